//! GPUs by the names people write, with the memory a process can really use.

use crate::units::Bytes;

/// One GPU product.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// The canonical name: `H100-80GB`.
    pub name: &'static str,
    /// Other spellings, normalised.
    pub aliases: &'static [&'static str],
    /// What `torch.cuda.mem_get_info` gives as total at least (lowest reading known).
    pub usable: Bytes,
    /// True when that figure was read in a source, false when it is from memory.
    pub read: bool,
    /// CUDA compute capability times ten (`sm_90` is 90); 0 for other vendors.
    pub sm: u32,
    /// Native bf16.
    pub bf16: bool,
    /// Native fp8.
    pub fp8: bool,
    /// FlashAttention 2 runs on it.
    pub flash_attention_2: bool,
}

/// Why a GPU name gives no GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuError {
    /// The name stands for several products; their names.
    Ambiguous(Vec<&'static str>),
    /// Nobody knows it; near names.
    Unknown(Vec<&'static str>),
}

/// Finds a GPU by any spelling of its name.
///
/// # Errors
/// [`GpuError`] with the choices.
pub fn find(name: &str) -> Result<&'static Gpu, GpuError> {
    let _ = name;
    Err(GpuError::Unknown(Vec::new()))
}
