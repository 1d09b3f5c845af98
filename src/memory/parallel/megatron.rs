//! What Megatron's own layers save for backward, from the shapes of their tensors.
//!
//! Korthikanti et al. 2022 (section 4) give `34·N·d + 5·B·h·S²` bytes for a GPT layer in 16 bits with
//! dropout; the terms below are theirs, tensor by tensor, with the widths of this model. Experts and
//! latent attention are read off Megatron core's `moe/` and `multi_latent_attention.py` (2026-08),
//! whose projections (`experts.py`) take the router's probabilities into the activation function.

use crate::catalog::{Family, LayerMlp, Mixer};
use crate::memory::activations::Activations;
use crate::memory::expression::{Sum, Symbol};
use crate::memory::loss::LossMemory;
use crate::memory::parallel::Degrees;
use crate::memory::shape::{Shape, attention_key, dropout};
use crate::run::{Attention, Checkpointing, Dtype, RecomputedModule, RecomputedModules, TrainingRun};

const N: Symbol = Symbol::Tokens;
const SOURCE: &str = "Megatron's layers tensor by tensor (Korthikanti et al. 2022, section 4)";

/// Families whose MLP has one projection up, and no gate.
const PLAIN: [Family; 16] = [
    Family::Gpt2,
    Family::GuideGpt,
    Family::GptNeox,
    Family::Gptj,
    Family::GptNeo,
    Family::GptBigcode,
    Family::Falcon,
    Family::Opt,
    Family::Bloom,
    Family::Mpt,
    Family::Phi,
    Family::Starcoder2,
    Family::Nemotron,
    Family::NemotronH,
    Family::Arcee,
    Family::Apertus,
];

/// Bytes of a layer's part: kept for backward, or kept only while the layer is computed again.
#[derive(Clone, Debug, Default)]
struct Part {
    kept: Sum,
    again: Sum,
}

impl Part {
    fn plus(self, other: &Part) -> Part {
        Part { kept: self.kept.plus(&other.kept), again: self.again.plus(&other.again) }
    }
}

/// What decides the sums of every kind of layer.
struct Layers<'a> {
    run: &'a TrainingRun,
    shape: &'a Shape<'a>,
    /// Which modules are computed again.
    recomputed: RecomputedModules,
    dropout: bool,
    /// Projections up of an MLP: two where it is gated.
    ups: f64,
    /// Bytes of an element that only a matrix product of the backward reads: its inputs are kept as
    /// they were quantised.
    input: f64,
    /// The part of a micro-batch's tokens that a rank has between the layers.
    share: f64,
}

/// Replaces the layers' sums by Megatron's.
///
/// # Errors
/// Which block is not known.
pub(crate) fn layer(
    activations: &mut Activations,
    run: &TrainingRun,
    shape: &Shape<'_>,
) -> Result<(), String> {
    let architecture = shape.architecture;
    let tensor = Degrees::of(run).tensor as f64;
    let layers = Layers {
        run,
        shape,
        recomputed: recomputed(run.activation_checkpointing.value),
        dropout: run.dropout.value.unwrap_or(architecture.dropout) > 0.0,
        ups: if PLAIN.contains(&architecture.family) { 1.0 } else { 2.0 },
        input: if run.compute.value == Dtype::Fp8 { 1.0 } else { 2.0 },
        share: if run.parallelism.sequence_parallel.value { 1.0 / tensor } else { 1.0 },
    };
    let symbols = &shape.symbols;
    let all = architecture.layers.max(1) as f64;
    let (mut mean, mut most) = (Sum::default(), Sum::default());
    let whole =
        matches!(run.activation_checkpointing.value, Checkpointing::Full | Checkpointing::Every { .. })
            || matches!(run.activation_checkpointing.value, Checkpointing::First { .. });
    for (mixer, mlp, count) in kinds(shape) {
        let part = layers.mixer(mixer)?.plus(&layers.mlp(mlp));
        let mut backward = layers.backward(mlp).plus(&part.again);
        if whole {
            backward = backward.plus(&part.kept);
        }
        if backward.value(symbols) > most.value(symbols) {
            most = backward;
        }
        mean = mean.plus(&part.kept.times(count / all));
    }
    if run.lora.is_some() {
        let (kept, gathered) = layers.adapters(tensor);
        mean = mean.plus(&kept).plus(&gathered);
    }
    activations.layer = mean;
    activations.checkpoint = hidden(2.0);
    // The last norm's input and output, the embedding's dropout mask.
    activations.body = hidden(4.0 + if layers.dropout { 1.0 } else { 0.0 });
    activations.transient = most;
    activations.source = SOURCE;
    activations.doubt = layers.doubt();
    Ok(())
}

fn hidden(bytes: f64) -> Sum {
    Sum::term(bytes, &[N, Symbol::Hidden])
}

/// `selective` without a list is attention proper (Megatron's default).
fn recomputed(checkpointing: Checkpointing) -> RecomputedModules {
    match checkpointing {
        Checkpointing::Selective => vec![RecomputedModule::CoreAttn].into(),
        Checkpointing::Modules { modules } => modules,
        _ => RecomputedModules::default(),
    }
}

/// The model's kinds of layers and how many it has of each.
fn kinds(shape: &Shape<'_>) -> Vec<(Mixer, LayerMlp, f64)> {
    let mut kinds: Vec<(Mixer, LayerMlp, f64)> = Vec::new();
    for index in 0..shape.architecture.layers {
        let layer = shape.architecture.layer(index);
        match kinds.iter_mut().find(|kind| (kind.0, kind.1) == (layer.mixer, layer.mlp)) {
            Some(kind) => kind.2 += 1.0,
            None => kinds.push((layer.mixer, layer.mlp, 1.0)),
        }
    }
    kinds
}

impl Layers<'_> {
    fn again(&self, module: RecomputedModule) -> bool {
        self.recomputed.has(module)
    }

    /// A norm before a sublayer: its input, its output, and the mask of the dropout behind it. Where
    /// the first projection takes the norm in (`TELayerNormColumnParallelLinear`) the output is that
    /// product's input; where it does not, it may be computed again.
    fn norm(&self, taken_in: bool) -> Part {
        let mask = if self.dropout { 1.0 } else { 0.0 };
        let scalars = Sum::term(8.0, &[N]);
        let output = hidden(if taken_in { self.input } else { 2.0 });
        let kept = hidden(2.0 + mask).plus(&scalars);
        if !taken_in && self.again(RecomputedModule::Layernorm) {
            return Part { kept, again: output };
        }
        Part { kept: kept.plus(&output), again: Sum::default() }
    }

    fn mixer(&self, mixer: Mixer) -> Result<Part, String> {
        match mixer {
            Mixer::None => Ok(Part::default()),
            // The same kernels as in transformers: mamba-ssm's.
            Mixer::Mamba2 if self.shape.architecture.family == Family::NemotronH => {
                let dropout = dropout(self.run, self.shape.architecture);
                let table = self.shape.table_of("nemotron_h-mamba", attention_key(self.run), dropout);
                let table = table.ok_or("what a state-space layer keeps is not traced in this precision")?;
                Ok(Part { kept: table.get("layer"), again: Sum::default() })
            }
            _ if self.shape.architecture.mla.is_some() => Ok(self.norm(false).plus(&self.latent())),
            _ => Ok(self.norm(true).plus(&self.attention())),
        }
    }

    /// Queries, keys, values and attention's output, which its projection takes as well.
    fn attention(&self) -> Part {
        let kept = Sum::term(2.0, &[N, Symbol::QueryKeyValue]).plus(&self.output(Symbol::Query));
        Part { kept, again: Sum::default() }.plus(&self.scores())
    }

    fn output(&self, width: Symbol) -> Sum {
        let copy = if self.input < 2.0 { self.input } else { 0.0 };
        Sum::term(2.0 + copy, &[N, width])
    }

    fn scores(&self) -> Part {
        let kept = match self.run.attention.value {
            // Softmax's output (2), its dropout mask (1) and the dropped probabilities (2).
            Attention::Eager | Attention::SdpaMath => Sum::term(
                if self.dropout { 5.0 } else { 2.0 },
                &[Symbol::Batch, Symbol::Heads, Symbol::Sequence, Symbol::Sequence],
            ),
            // The log-sum-exp of each row, little enough to be counted where it is computed again too.
            _ => Sum::term(4.0, &[N, Symbol::Heads]),
        };
        let eager = matches!(self.run.attention.value, Attention::Eager | Attention::SdpaMath);
        match self.again(RecomputedModule::CoreAttn) {
            true if eager => Part { kept: Sum::default(), again: kept },
            _ => Part { kept, again: Sum::default() },
        }
    }

    /// Latent attention: both compressions and what their norms make of them, whole on each rank but
    /// for the tokens; queries, keys and values of this rank's heads, attention's output.
    fn latent(&self) -> Part {
        let ranks = Sum::term(4.0 * self.share, &[N, Symbol::QueryRank])
            .plus(&Sum::term(2.0 * self.share, &[N, Symbol::KvRank]))
            .plus(&Sum::term(2.0 * self.share, &[N, Symbol::KvRankRope]));
        let heads =
            Sum::term(4.0, &[N, Symbol::LatentQuery]).plus(&Sum::term(2.0, &[N, Symbol::LatentValue]));
        let kept = ranks.plus(&self.output(Symbol::LatentValue));
        let expanded = if self.again(RecomputedModule::MlaUpProj) {
            Part { kept, again: heads }
        } else {
            Part { kept: kept.plus(&heads), again: Sum::default() }
        };
        expanded.plus(&self.scores())
    }

    /// The projections up, and the activation function's output, which the projection down takes.
    fn projections(&self, tokens: &[Symbol], factor: f64) -> (Sum, Sum) {
        (Sum::term(2.0 * self.ups * factor, tokens), Sum::term(self.input * factor, tokens))
    }

    fn mlp(&self, mlp: LayerMlp) -> Part {
        match mlp {
            LayerMlp::None => Part::default(),
            LayerMlp::Sparse => self.norm(false).plus(&self.experts()),
            LayerMlp::Dense | LayerMlp::Double => {
                let (width, factor) = self.dense(mlp);
                let (up, active) = self.projections(&[N, width], factor);
                let sum = up.plus(&active);
                if self.again(RecomputedModule::Mlp) {
                    let output = hidden(self.input);
                    let norm = self.norm(true);
                    let kept = norm.kept.plus(&output.clone().times(-1.0));
                    return Part { kept, again: sum.plus(&output) };
                }
                self.norm(true).plus(&Part { kept: sum, again: Sum::default() })
            }
        }
    }

    /// A dense MLP's width, as a symbol that is divided over tensor ranks and a multiple of it: where
    /// the model has experts, the symbol of the MLP's width is that of the shared ones.
    fn dense(&self, mlp: LayerMlp) -> (Symbol, f64) {
        let twice = if mlp == LayerMlp::Double { 2.0 } else { 1.0 };
        let width = self.shape.architecture.intermediate_size as f64 * twice;
        match &self.shape.architecture.moe {
            None => (Symbol::FeedForward, twice),
            Some(moe) if moe.shared_intermediate_size > 0 => {
                (Symbol::FeedForward, width / moe.shared_intermediate_size as f64)
            }
            Some(moe) => (Symbol::Expert, width / moe.intermediate_size.max(1) as f64),
        }
    }

    /// Router, routed tokens and experts. Tensor ranks that share experts each take all tokens of
    /// the group; where every rank has whole experts, it takes its own.
    fn experts(&self) -> Part {
        let degrees = Degrees::of(self.run);
        let taken = self.share * degrees.expert_tensor as f64;
        let router = Sum::term(8.0 * self.share, &[N, Symbol::Experts]);
        let inputs = Sum::term(self.input * taken.min(1.0), &[N, Symbol::TopK, Symbol::Hidden]);
        let (up, active) = self.projections(&[N, Symbol::TopK, Symbol::Expert], 1.0);
        let (shared_up, shared_active) = self.projections(&[N, Symbol::FeedForward], 1.0);
        let shared = shared_up.plus(&shared_active);
        let routed = router.plus(&inputs).plus(&up);
        if self.again(RecomputedModule::Moe) {
            return Part { kept: Sum::default(), again: routed.plus(&active).plus(&shared) };
        }
        let mut part = Part { kept: routed, again: Sum::default() };
        for (sum, module) in [(active, RecomputedModule::MoeAct), (shared, RecomputedModule::SharedExperts)] {
            let into = if self.again(module) { &mut part.again } else { &mut part.kept };
            *into = into.clone().plus(&sum);
        }
        part
    }

    /// Gradients of the activation function's output and input, of the layer's input.
    fn backward(&self, mlp: LayerMlp) -> Sum {
        let width = match mlp {
            LayerMlp::Sparse => Sum::term(2.0 + 2.0 * self.ups, &[N, Symbol::TopK, Symbol::Expert]),
            LayerMlp::None => Sum::default(),
            dense => {
                let (width, factor) = self.dense(dense);
                Sum::term((2.0 + 2.0 * self.ups) * factor, &[N, width])
            }
        };
        width.plus(&hidden(2.0))
    }

    /// Adapters keep their own middle, and under sequence parallelism the two inputs of a layer that
    /// are gathered for them: a frozen matrix gathers again, a trained one keeps
    /// (Megatron-Bridge's `sequence_parallel_input_regather`, which is off by default).
    fn adapters(&self, tensor: f64) -> (Sum, Sum) {
        let middle = Sum::term(14.0, &[N, Symbol::Rank]);
        let gathered = if self.share < 1.0 { hidden(4.0 * (tensor - 1.0)) } else { Sum::default() };
        (middle, gathered)
    }

    fn doubt(&self) -> Option<(f64, &'static str)> {
        let own = |mixer: Mixer| {
            matches!(mixer, Mixer::Attention | Mixer::SlidingAttention | Mixer::None)
                || mixer == Mixer::Mamba2 && self.shape.architecture.family == Family::NemotronH
        };
        if kinds(self.shape).iter().any(|kind| !own(kind.0)) {
            return Some((0.3, "mixers that Megatron's layers have instead of attention are taken for it"));
        }
        if self.run.lora.is_some() {
            let why = "which inputs frozen layers keep for their adapters depends on what is adapted";
            return Some((0.25, why));
        }
        if self.input < 2.0 {
            return Some((0.15, "what Transformer Engine keeps in 8 bits depends on its recipe and release"));
        }
        None
    }
}

/// Vocabulary-parallel cross entropy: 16-bit logits and their fp32 copy, which the softmax and then
/// its gradient overwrite in place; the caller lets the 16-bit ones go with the forward.
pub(crate) fn loss() -> LossMemory {
    let logits = |bytes: f64| Sum::term(bytes, &[N, Symbol::Vocabulary]);
    LossMemory {
        forward: logits(6.0),
        saved: logits(4.0),
        backward: logits(2.0),
        head_backward: Some(logits(2.0).plus(&Sum::term(2.0, &[N, Symbol::Hidden]))),
        source: "Megatron's vocabulary-parallel cross entropy: fp32 softmax in place",
    }
}
