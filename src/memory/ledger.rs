//! Everything that occupies memory on one rank, and when. The estimate is computed from the
//! ledger, `explain` prints it, and a diagnostic labels the settings its biggest entries name.

use crate::run::{Origin, TrainingRun};
use crate::units::Bytes;

/// What an entry is, in the words of the JSON contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    /// Stored parameters, frozen and trained, with quantisation scales and master copies.
    Weights,
    /// Gradients of trained parameters.
    Gradients,
    /// Optimizer states.
    Optimizer,
    /// What the layers save for backward.
    Activations,
    /// Logits, their loss and their gradient.
    Logits,
    /// Short-lived tensors of one operation.
    Temporaries,
    /// Buckets and gathered copies of distributed training.
    Communication,
    /// What lives outside the allocator: CUDA context, kernels, communicators.
    Context,
}

impl Component {
    /// All of them, in the order a person adds them up.
    pub const ALL: [Component; 8] = [
        Component::Weights,
        Component::Gradients,
        Component::Optimizer,
        Component::Activations,
        Component::Logits,
        Component::Temporaries,
        Component::Communication,
        Component::Context,
    ];

    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Component::Weights => "weights",
            Component::Gradients => "gradients",
            Component::Optimizer => "optimizer",
            Component::Activations => "activations",
            Component::Logits => "logits",
            Component::Temporaries => "temporaries",
            Component::Communication => "communication",
            Component::Context => "context",
        }
    }
}

/// The moments of a step at which memory can peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Weights are loaded.
    Load,
    /// The head's forward and the loss, every layer's activations alive.
    ForwardEnd,
    /// The start of the loss's backward.
    Loss,
    /// The head's matrix products backward.
    HeadBackward,
    /// The first layer to go backward (the last of the model), everything else still saved.
    BackwardTop,
    /// The last layer to go backward, most gradients already there.
    BackwardBottom,
    /// All gradients there, the embedding's just made.
    BackwardEnd,
    /// The optimizer's step.
    OptimizerStep,
    /// Evaluation: its own batch, nothing saved.
    Evaluation,
}

impl Phase {
    /// All of them, in the order of a step.
    pub const ALL: [Phase; 9] = [
        Phase::Load,
        Phase::ForwardEnd,
        Phase::Loss,
        Phase::HeadBackward,
        Phase::BackwardTop,
        Phase::BackwardBottom,
        Phase::BackwardEnd,
        Phase::OptimizerStep,
        Phase::Evaluation,
    ];

    /// The word of the JSON contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Load => "load",
            Phase::ForwardEnd => "forward-end",
            Phase::Loss => "loss",
            Phase::HeadBackward => "head-backward",
            Phase::BackwardTop => "backward-top",
            Phase::BackwardBottom => "backward-bottom",
            Phase::BackwardEnd => "backward-end",
            Phase::OptimizerStep => "optimizer-step",
            Phase::Evaluation => "evaluation",
        }
    }

    /// For a sentence: "the peak is at …".
    pub fn describe(self) -> &'static str {
        match self {
            Phase::Load => "loading the weights",
            Phase::ForwardEnd => "the end of the forward pass",
            Phase::Loss => "the start of the loss's backward",
            Phase::HeadBackward => "the backward of the output head",
            Phase::BackwardTop => "the backward of the last layer",
            Phase::BackwardBottom => "the backward of the first layer",
            Phase::BackwardEnd => "the end of the backward pass",
            Phase::OptimizerStep => "the optimizer step",
            Phase::Evaluation => "evaluation",
        }
    }
}

/// A set of phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PhaseSet(u16);

impl PhaseSet {
    /// Every phase.
    pub const ALL: PhaseSet = PhaseSet(0x1ff);

    /// Just these.
    pub fn of(phases: &[Phase]) -> PhaseSet {
        PhaseSet(phases.iter().fold(0, |bits, phase| bits | 1 << *phase as u16))
    }

    /// Is `phase` in it?
    pub fn contains(self, phase: Phase) -> bool {
        self.0 & (1 << phase as u16) != 0
    }
}

/// A setting that drives an entry's size: what a diagnostic labels, and what `fit` may turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the field of the same name of `TrainingRun`")]
pub enum Driver {
    Model,
    Method,
    LoraRank,
    LoraTargets,
    Quantization,
    Weights,
    Compute,
    Gradients,
    Optimizer,
    OptimizerImplementation,
    MicroBatchSize,
    GradientAccumulation,
    SequenceLength,
    Checkpointing,
    ActivationOffload,
    Attention,
    Kernels,
    Loss,
    ReferenceModel,
    Companions,
    Rollout,
    EvalBatchSize,
    DataParallel,
    Gpus,
    Tensor,
    Pipeline,
    Context,
    Expert,
    Offload,
    ZeroBuffers,
}

impl Driver {
    /// Where the run's value of this setting came from.
    pub fn origin(self, run: &TrainingRun) -> Option<&Origin> {
        let parallel = &run.parallelism;
        Some(match self {
            Driver::Model => &run.model.origin,
            Driver::Method => &run.method.origin,
            Driver::LoraRank => &run.lora.as_ref()?.rank.origin,
            Driver::LoraTargets => &run.lora.as_ref()?.targets.origin,
            Driver::Quantization => &run.quantization.origin,
            Driver::Weights => &run.weights.origin,
            Driver::Compute => &run.compute.origin,
            Driver::Gradients => &run.gradients.origin,
            Driver::Optimizer => &run.optimizer.origin,
            Driver::OptimizerImplementation => &run.optimizer_implementation.origin,
            Driver::MicroBatchSize => &run.micro_batch_size.origin,
            Driver::GradientAccumulation => &run.gradient_accumulation_steps.origin,
            Driver::SequenceLength => &run.sequence_length.origin,
            Driver::Checkpointing => &run.activation_checkpointing.origin,
            Driver::ActivationOffload => &run.activation_offload.origin,
            Driver::Attention => &run.attention.origin,
            Driver::Kernels => &run.kernels.origin,
            Driver::Loss => &run.loss.origin,
            Driver::ReferenceModel => &run.reference_model.origin,
            Driver::Companions => &run.beside.companions.first()?.model.origin,
            Driver::Rollout => &run.beside.rollout.as_ref()?.generator.origin,
            Driver::EvalBatchSize => &run.eval_batch_size.as_ref()?.origin,
            Driver::DataParallel => &parallel.data_parallel.origin,
            Driver::Gpus => &parallel.gpus.as_ref()?.origin,
            Driver::Tensor => &parallel.tensor.origin,
            Driver::Pipeline => &parallel.pipeline.origin,
            Driver::Context => &parallel.context.origin,
            Driver::Expert => &parallel.expert.origin,
            Driver::Offload => &parallel.offload_optimizer.origin,
            Driver::ZeroBuffers => &parallel.zero.as_ref()?.reduce_bucket.origin,
        })
    }
}

/// One line of the sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it is.
    pub component: Component,
    /// In words: `saved for backward, 32 layers`.
    pub name: String,
    /// The formula in named symbols: `n·(16·N·d + 8·N·f)`.
    pub formula: String,
    /// The formula with this run's numbers: `32·(16·8192·4096 + …)`.
    pub numbers: String,
    /// What it comes to; negative for tensors already freed.
    pub bytes: Bytes,
    /// When it lives.
    pub live: PhaseSet,
    /// The settings that drive it, the one worth changing first.
    pub drivers: Vec<Driver>,
    /// Where the formula comes from.
    pub source: &'static str,
}

/// The sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// The lines, in the order a person adds them up.
    pub entries: Vec<Entry>,
}

impl Ledger {
    /// What is allocated in one phase: all but what lies outside the allocator.
    pub fn total(&self, phase: Phase) -> Bytes {
        let inside = self.entries.iter().filter(|e| e.component != Component::Context);
        inside.filter(|e| e.live.contains(phase)).map(|e| e.bytes).sum()
    }

    /// What lies outside the allocator: the CUDA context, communicators.
    pub fn outside(&self) -> Bytes {
        self.entries.iter().filter(|e| e.component == Component::Context).map(|e| e.bytes).sum()
    }

    /// The phase with the largest total, and that total. Of equal phases the earliest.
    pub fn peak(&self) -> (Phase, Bytes) {
        let mut best = (Phase::Load, self.total(Phase::Load));
        for phase in Phase::ALL {
            let total = self.total(phase);
            if total > best.1 {
                best = (phase, total);
            }
        }
        best
    }

    /// The largest total once the weights are loaded.
    pub(crate) fn peak_of_steps(&self) -> Bytes {
        let steps = Phase::ALL.into_iter().filter(|phase| *phase != Phase::Load);
        steps.map(|phase| self.total(phase)).max().unwrap_or(Bytes::ZERO)
    }

    /// One component's part of a phase.
    pub fn component(&self, component: Component, phase: Phase) -> Bytes {
        self.entries
            .iter()
            .filter(|e| e.component == component && e.live.contains(phase))
            .map(|e| e.bytes)
            .sum()
    }
}
