//! What a run needs at the least, where nothing but the number of its parameters is known.

use super::data_parallel::Strategy;
use super::parallel::Degrees;
use super::states::{self, Trained, quantized_bytes};
use crate::run::{Method, Offload, Optimizer, OptimizerImplementation, TrainingRun};
use crate::units::Bytes;

/// Weights, gradients and optimizer states of one GPU at the optimizer's step: not the activations,
/// nor buffers, nor what lies outside the allocator. No run of such a model can need less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Parameters of the whole model.
    pub parameters: u64,
    /// Weights, fp32 masters apart.
    pub weights: Bytes,
    /// Gradients of one kind.
    pub gradients: Bytes,
    /// Optimizer states and fp32 master weights.
    pub optimizer: Bytes,
}

impl Floor {
    /// All of it.
    pub fn total(&self) -> Bytes {
        self.weights + self.gradients + self.optimizer
    }
}

/// The floor of a run whose model has so many `parameters`, of which full training trains `language`.
/// Without a number of GPUs what is divided among them counts nothing. Pipeline stages and experts
/// are taken to divide evenly: the worst rank has no less than the mean. `None`: not known.
pub fn floor(run: &TrainingRun, parameters: u64, language: u64) -> Option<Floor> {
    let strategy = Strategy::of(run).ok()?;
    if run.beside.experts_on_host.as_ref().is_some_and(|on| on.value) {
        return None;
    }
    let among = |shards: f64| if run.parallelism.gpus.is_some() { shards } else { f64::INFINITY };
    // Ranks that share weights, gradients, and states with masters.
    let (weight_shards, gradient_shards, state_shards) = match strategy {
        Strategy::Single | Strategy::Ddp => (1.0, 1.0, 1.0),
        Strategy::Megatron { shards } => (1.0, 1.0, among(shards)),
        Strategy::Fsdp { shards, .. } | Strategy::Zero { stage: 3, shards } => {
            (among(shards), among(shards), among(shards))
        }
        Strategy::Zero { shards, .. } => (1.0, among(shards), among(shards)),
    };
    let degrees = Degrees::of(run);
    let sliced = degrees.tensor as f64 * degrees.pipeline as f64 * degrees.expert as f64;
    let all = parameters as f64 / sliced;
    // Adapters are small; of chosen layers and blocks the number alone says nothing.
    let whole = run.method.value == Method::Full
        && run.beside.trained_patterns.is_none()
        && run.optimizer.value != Optimizer::Badam;
    let trained = if whole { language as f64 / sliced } else { 0.0 };

    let zero = matches!(strategy, Strategy::Zero { .. });
    let stored = run.weights.value.bytes() as f64;
    let weight = match quantized_bytes(run.quantization.value) {
        Some((bytes, ..)) => bytes,
        None if zero => run.gathered_bytes(),
        None => stored,
    };
    let weights_on_host = run.parallelism.offload_parameters.value != Offload::None;
    let states_on_host = run.parallelism.offload_optimizer.value != Offload::None
        || (weights_on_host && matches!(strategy, Strategy::Fsdp { .. }));
    let masters = match strategy {
        Strategy::Zero { .. } | Strategy::Megatron { .. } => weight < 4.0,
        Strategy::Single | Strategy::Ddp => run.master_weights.value && weight < 4.0,
        Strategy::Fsdp { .. } => false,
    };
    // Where states follow a tensor's shape, this list of no tensors gives none.
    let parts = Trained { parameters: trained, matrices: trained, ..Trained::default() };
    let (stepped, state) = match strategy {
        Strategy::Zero { .. } => (4.0, 4.0),
        _ => (if masters { 4.0 } else { weight }, run.optimizer_state.value.bytes() as f64),
    };
    let implementation = run.optimizer_implementation.value;
    let kept = states::optimizer(run.optimizer.value, implementation, &parts, stepped, state)
        .map_or(0.0, |memory| memory.state);
    let master = if masters { 4.0 * trained } else { 0.0 };
    // Each gradient is given up as soon as its parameter has stepped.
    let stepped_at_once = implementation == OptimizerImplementation::InBackward;
    let gradient = if stepped_at_once { 0.0 } else { run.gradients.value.bytes() as f64 };
    let gradient = if zero { gradient.min(weight) } else { gradient };
    let unless = |away: bool, bytes: f64| Bytes::from_f64(if away { 0.0 } else { bytes });
    Some(Floor {
        parameters,
        weights: unless(weights_on_host, weight * all / weight_shards),
        gradients: unless(states_on_host, gradient * trained / gradient_shards),
        optimizer: unless(states_on_host, (kept + master) / state_shards),
    })
}
