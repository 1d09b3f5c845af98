//! What is known about models and GPUs: data files compiled in, and the look-up.

pub mod architecture;
pub mod gpus;
pub mod hub;
pub mod instances;
pub mod models;
pub mod names;

pub use architecture::{Architecture, Family, Layer, LayerMlp, Mixer, Mla, Moe, Vision, VisionClass};
pub use gpus::Gpu;
