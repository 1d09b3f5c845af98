//! The moments of a step, and what is alive at each: the peak is the largest of them.
//!
//! ```text
//! forward end      states + gradients of earlier micro-batches + saved activations + head and loss
//! loss             … + log-softmax and its gradients
//! head backward    … + the logits' gradient, the head's weight gradient
//! backward top     … + one layer's transient (nothing of the body freed yet)
//! backward bottom  gradients of all layers but one + one layer's activations + its transient
//! backward end     all gradients + the embedding's halves where it is tied
//! optimizer step   all gradients + the step's temporaries
//! ```

use super::activations::split_layers;
use super::adapters::Adapters;
use super::beside;
use super::data_parallel::{self, Strategy, bucket_views};
use super::dtensor;
use super::exchange;
use super::expression::{Sum, Symbol};
use super::ledger::{Component, Driver, Ledger, Phase, PhaseSet};
use super::lines::{Line, Lines, line};
use super::loss::{self, held_logit};
use super::overhead::CUBLAS_WORKSPACE;
use super::plan::Plan;
use super::rank::Rank;
use super::shape::Precision;
use super::states::quantized_bytes;
use crate::catalog::Family;
use crate::run::{
    Checkpointing, Dtype, Loss, Method, ModelCode, OptimizerImplementation, Quantization, ReferenceModel,
    Task,
};

/// From the first forward to the optimizer's step.
pub(crate) const STEP: &[Phase] = &[
    Phase::ForwardEnd,
    Phase::Loss,
    Phase::HeadBackward,
    Phase::BackwardTop,
    Phase::BackwardBottom,
    Phase::BackwardEnd,
    Phase::OptimizerStep,
];
/// While the layers' activations are all there.
const SAVED: &[Phase] = &[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward, Phase::BackwardTop];
/// … before the last norm's backward.
const UNTIL_HEAD_BACKWARD: &[Phase] = &[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward];
/// While a layer goes backward.
const LAYER_BACKWARD: &[Phase] = &[Phase::BackwardTop, Phase::BackwardBottom];
const BACKWARD: &[Phase] = &[Phase::BackwardTop, Phase::BackwardBottom, Phase::BackwardEnd];
const GRADIENTS_WHOLE: &[Phase] = &[Phase::BackwardEnd, Phase::OptimizerStep];

const TIMELINE: &str = "the engine's order of a backward pass, traced";

/// The ledger of one rank.
pub(crate) fn ledger(plan: &Plan<'_>, rank: &Rank) -> Ledger {
    let mut lines = Lines::default();
    match rank.strategy {
        Strategy::Single => {
            weights(plan, &mut lines);
            optimizer(plan, rank, &mut lines);
            gradients(plan, &mut lines);
        }
        _ => data_parallel::states(plan, rank, &mut lines),
    }
    dtensor::lines(plan, rank, &mut lines);
    exchange::lines(plan, &mut lines);
    inputs(plan, &mut lines);
    reference(plan, rank, &mut lines);
    beside::lines(plan, rank, &mut lines);
    saved(plan, rank, &mut lines);
    head_and_loss(plan, &mut lines);
    layer_backward(plan, &mut lines);
    cast_cache(plan, rank, &mut lines);
    evaluation(plan, rank, &mut lines);
    lines.finish()
}

/// Stored parameters, everywhere and always.
pub(crate) fn weights(plan: &Plan<'_>, lines: &mut Lines) {
    let run = plan.run;
    let always = |name: &str, drivers, source| Line {
        component: Component::Weights,
        name: name.to_owned(),
        live: PhaseSet::ALL,
        drivers,
        source,
    };
    let dtype = "one element a parameter, tied tensors once";
    let inventory = &plan.shape.inventory;
    if plan.shape.architecture.family == Family::GptNeo {
        let side = plan.shape.architecture.config_u64("max_position_embeddings").unwrap_or(2048) as f64;
        lines.product(
            always(
                "masks of all positions, one a layer",
                &[Driver::Model],
                "GPTNeoSelfAttention's buffer `bias`, booleans",
            ),
            &[("n", plan.layers()), ("positions²", side * side)],
        );
    }
    let all = inventory.total() as f64;
    let stored = run.weights.value.bytes() as f64;
    let Some(adapters) = &plan.adapters else {
        lines.product(
            always("weights", &[Driver::Model, Driver::Weights], dtype),
            &[("bytes", stored), ("P", all)],
        );
        if run.master_weights.value && stored < 4.0 {
            lines.product(
                always(
                    "fp32 master weights",
                    &[Driver::Weights],
                    "mixed-precision optimizers keep an fp32 copy",
                ),
                &[("4", 4.0), ("P", plan.groups.total)],
            );
        }
        upcast_ends(plan, stored, lines);
        upcast_trained(plan, stored, lines);
        return;
    };
    let quantised = quantized_bytes(run.quantization.value);
    let part = if quantised.is_some() { plan.quantized() } else { 0.0 };
    if let Some((bytes, formula, source)) = quantised {
        let drivers = &[Driver::Quantization, Driver::Model];
        lines.product(
            always("quantised weights", drivers, source),
            &[(&format!("({formula})"), bytes), ("P_linear", part)],
        );
        if run.quantization.value == Quantization::Aqlm2 {
            let matrices: f64 =
                inventory.linears().filter(|(t, _)| t.in_layer()).map(|(t, _)| t.copies as f64).sum();
            lines.product(
                always(
                    "codebooks of the quantised weights",
                    drivers,
                    "65,536 vectors of 8 in 16 bits a matrix",
                ),
                &[("2·8·2^16", 1_048_576.0), ("matrices", matrices)],
            );
        }
        if run.quantization.value == Quantization::Int8 {
            let rows: f64 = inventory
                .linears()
                .filter(|(t, _)| t.in_layer())
                .map(|(t, l)| (l.output * t.copies) as f64)
                .sum();
            lines.product(
                always("scales of the quantised weights", drivers, source),
                &[("4", 4.0), ("rows", rows)],
            );
        }
    }
    let rest = if run.quantised_beside_fp32() { 4.0 } else { stored };
    lines.product(
        always("frozen weights", &[Driver::Model, Driver::Weights], dtype),
        &[("bytes", rest), ("P_frozen", (all - part - beside::experts_on_host(plan)).max(0.0))],
    );
    lines.product(
        always(
            "adapters",
            &[Driver::LoraRank, Driver::LoraTargets],
            "r·(in + out) for each adapted linear layer",
        ),
        &[("bytes", plan.weight), ("P_adapters", adapters.parameters())],
    );
    if run.model_code.value == ModelCode::Litgpt && quantised.is_some() {
        // Its optimizer is made before the exchange and never clears the new table's gradient.
        lines.product(
            always(
                "embedding table kept beside bitsandbytes' StableEmbedding, and that one's gradient",
                &[Driver::Quantization],
                "LitGPT's finetune scripts exchange the embedding under a bitsandbytes precision",
            ),
            &[("2", 2.0), ("bytes", stored), ("V·d", inventory.embedding() as f64)],
        );
    }
    lines.product(
        always("modules trained in full", &[Driver::LoraTargets], "PEFT's copies of modules_to_save"),
        &[("bytes", adapters.saved_weight), ("P_modules", adapters.saved_modules)],
    );
}

/// Of a partly frozen model the trained layers may be fp32 among 16-bit ones; a gradient has its
/// parameter's dtype.
fn upcast_trained(plan: &Plan<'_>, stored: f64, lines: &mut Lines) {
    if plan.run.method.value != Method::Freeze || plan.gradient <= stored {
        return;
    }
    lines.product(
        line(
            Component::Weights,
            "trained layers in fp32",
            &Phase::ALL,
            &[Driver::Weights, Driver::Method],
            "LLaMA-Factory's init_adapter casts what is trained to fp32",
        ),
        &[("(4 − bytes)", plan.gradient - stored), ("P_trained", plan.groups.total)],
    );
}

/// Full training after `prepare_kbit`-like casts (Axolotl without flash attention, FSDP or
/// DeepSpeed): embedding, head and norms are fp32 among 16-bit layers, and so are their gradients
/// and moments. What the other lines count for them is 16-bit; this is the rest.
fn upcast_ends(plan: &Plan<'_>, stored: f64, lines: &mut Lines) {
    if !plan.run.prepare_kbit.value || stored >= 4.0 {
        return;
    }
    let inventory = &plan.shape.inventory;
    let head = if inventory.head_is_tied() { 0 } else { inventory.head() };
    let ends = (inventory.embedding() + head + inventory.norms()) as f64;
    let source = "Axolotl's loaders/model.py casts embedding, head and norms to fp32; a gradient and a \
                  moment have their parameter's dtype";
    let whole: Vec<Phase> = STEP.iter().copied().chain([Phase::Evaluation]).collect();
    let with_step: Vec<Phase> = BACKWARD.iter().copied().chain([Phase::OptimizerStep]).collect();
    let drivers = &[Driver::Weights, Driver::Attention];
    let more = 4.0 - stored;
    for (component, name, phases, count) in [
        (Component::Weights, "embedding, head and norms in fp32", &Phase::ALL[..], 1.0),
        (Component::Gradients, "their gradients in fp32", &with_step[..], 1.0),
        (Component::Optimizer, "their moments in fp32", &whole[..], 2.0),
    ] {
        lines.product(
            line(component, name, phases, drivers, source),
            &[("copies", count), ("(4 − bytes)", more), ("P_ends", ends)],
        );
    }
}

/// States from the first step on, and the step's temporaries.
pub(crate) fn optimizer(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    let memory = &plan.optimizer;
    let kept: Vec<Phase> = STEP.iter().copied().chain([Phase::Evaluation]).collect();
    if !rank.optimizer_on_host {
        let drivers = &[Driver::Optimizer, Driver::Method];
        lines.worded(
            line(Component::Optimizer, "optimizer states", &kept, drivers, memory.source),
            &memory.formula,
            memory.state,
        );
        lines.worded(
            line(
                Component::Temporaries,
                "temporaries of the optimizer's step",
                &[Phase::OptimizerStep],
                &[Driver::OptimizerImplementation, Driver::Optimizer],
                memory.source,
            ),
            &memory.step_formula,
            memory.step,
        );
    }
}

/// Gradients appear in the order of the backward pass. With accumulation those of earlier
/// micro-batches are there all the time.
pub(crate) fn gradients(plan: &Plan<'_>, lines: &mut Lines) {
    let g = plan.gradient;
    let groups = plan.groups;
    let drivers = &[Driver::Method, Driver::Gradients, Driver::Model];
    if plan.run.optimizer_implementation.value == OptimizerImplementation::InBackward {
        let name = "gradient of the largest tensor (freed as soon as it is applied)";
        lines.product(
            line(Component::Gradients, name, BACKWARD, drivers, "the step runs inside the backward"),
            &[("bytes", g), ("largest tensor", plan.trained.largest)],
        );
        return;
    }
    let embedding = plan.shape.inventory.embedding() as f64;
    if bucket_views(plan.run) {
        lines.product(
            Line {
                component: Component::Gradients,
                name: "gradients, which are DDP's buckets".into(),
                live: PhaseSet::ALL,
                drivers,
                source: "DDP with gradient_as_bucket_view; traced",
            },
            &[("bytes", g), ("P_trained", groups.total)],
        );
    } else if plan.run.gradient_accumulation_steps.value > 1 {
        lines.product(
            line(
                Component::Gradients,
                "gradients, those of earlier micro-batches included",
                STEP,
                &[Driver::Method, Driver::GradientAccumulation, Driver::Gradients],
                "gradients stay allocated between micro-batches",
            ),
            &[("bytes", g), ("P_trained", groups.total)],
        );
    } else {
        gradients_of_one_batch(plan, lines);
    }
    gradients_of_modules(plan, lines);
    if groups.total < embedding {
        return;
    }
    tied_gradients(plan, lines);
}

/// Modules trained in full beside adapters may have another dtype than those: what the lines that
/// count every trained parameter as an adapter's are off by.
fn gradients_of_modules(plan: &Plan<'_>, lines: &mut Lines) {
    let Some(adapters) = &plan.adapters else { return };
    let more = adapters.saved_weight - plan.gradient;
    let live: PhaseSet = if bucket_views(plan.run) {
        PhaseSet::ALL
    } else if plan.run.gradient_accumulation_steps.value > 1 {
        PhaseSet::of(STEP)
    } else {
        PhaseSet::of(GRADIENTS_WHOLE)
    };
    let what = Line {
        component: Component::Gradients,
        name: "of which modules trained in full, in their own dtype".into(),
        live,
        drivers: &[Driver::LoraTargets, Driver::Gradients],
        source: "a gradient has its parameter's dtype",
    };
    lines.product(what, &[("(bytes − bytes_adapters)", more), ("P_modules", adapters.saved_modules)]);
}

fn gradients_of_one_batch(plan: &Plan<'_>, lines: &mut Lines) {
    let (g, groups, n) = (plan.gradient, plan.groups, plan.trained_layers());
    let drivers = &[Driver::Method, Driver::Gradients, Driver::Model];
    let head = if groups.tied { plan.shape.inventory.embedding() as f64 } else { groups.head };
    lines.product(
        line(Component::Gradients, "gradient of the output head", LAYER_BACKWARD, drivers, TIMELINE),
        &[("bytes", g), ("P_head", head)],
    );
    // With adapters the gradients are so small that the last layer's are not told apart.
    let (name, factor, share) = if plan.adapters.is_some() {
        ("gradients", "(n−1)/n", 1.0)
    } else if let Some(first) = encoder_backward(plan) {
        let left = first.layers * first.parameters / groups.layers.max(1.0);
        ("gradients of the layers that have gone backward", "P_gone/P", (1.0 - left).max(0.0))
    } else {
        ("gradients of all layers but one", "(n−1)/n", (n - 1.0) / n.max(1.0))
    };
    lines.product(
        line(Component::Gradients, name, &[Phase::BackwardBottom], drivers, TIMELINE),
        &[(factor, share), ("bytes", g), ("P_layers", groups.layers)],
    );
    if plan.activations.encoder.is_some() && !groups.tied && groups.total > groups.layers {
        lines.product(
            line(
                Component::Gradients,
                "the shared embedding's gradient from the decoder",
                &[Phase::BackwardBottom],
                drivers,
                TIMELINE,
            ),
            &[("bytes", g), ("V·d", plan.shape.inventory.embedding() as f64)],
        );
    }
    lines.product(
        line(Component::Gradients, "gradients", GRADIENTS_WHOLE, drivers, TIMELINE),
        &[("bytes", g), ("P_trained", groups.total)],
    );
}

/// Where the backward of one side of an encoder-decoder is largest: at its last layer, all its
/// activations still there, or at its first, all its gradients but that one's.
struct EncoderBackward {
    /// Layers whose activations are there and whose gradients are not.
    layers: f64,
    /// Parameters of one.
    parameters: f64,
}

fn encoder_backward(plan: &Plan<'_>) -> Option<EncoderBackward> {
    let encoder = plan.activations.encoder.as_ref()?;
    side_backward(plan, true, &encoder.checkpoint, &encoder.layer)
}

/// The same of the decoder.
fn decoder_backward(plan: &Plan<'_>) -> Option<EncoderBackward> {
    plan.activations.encoder.as_ref()?;
    side_backward(plan, false, &plan.activations.checkpoint, &plan.activations.layer)
}

fn side_backward(plan: &Plan<'_>, encoder: bool, checkpoint: &Sum, layer: &Sum) -> Option<EncoderBackward> {
    let kinds = plan.shape.inventory.layer_kinds();
    let kinds = kinds.iter().filter(|kind| kind.encoder == encoder);
    let (count, all) = kinds.fold((0, 0), |(count, all), kind| {
        (count + kind.count, all + kind.count.saturating_mul(kind.parameters))
    });
    if count == 0 {
        return None;
    }
    let (count, parameters) = (count as f64, all as f64 / count as f64);
    let checkpointed = !matches!(plan.run.activation_checkpointing.value, Checkpointing::None);
    let each = if checkpointed { checkpoint } else { layer };
    let growing = plan.adapters.is_none() && plan.run.gradient_accumulation_steps.value <= 1;
    let gradient = if growing { plan.gradient * parameters } else { 0.0 };
    let at_its_end = gradient > each.value(&plan.shape.symbols);
    Some(EncoderBackward { layers: if at_its_end { 1.0 } else { count }, parameters })
}

/// A tied embedding gets two gradients, the head's and its own, which the engine adds out of
/// place: two tensors more at the end of the backward, three where `.grad` exists already. Under
/// autocast the cast lets the sum be in place: one fewer.
fn tied_gradients(plan: &Plan<'_>, lines: &mut Lines) {
    // A bucket's view stands ready like the gradient of an earlier micro-batch.
    let accumulated = plan.run.gradient_accumulation_steps.value > 1 || bucket_views(plan.run);
    // A head that ran once a chunk has made the engine's sum its own already.
    let chunked = plan.run.model_code.value == ModelCode::Torchtune
        && matches!(plan.run.loss.value, Loss::Chunked { chunked } if chunked > 1);
    let in_place =
        plan.shape.precision == Precision::Mixed || plan.run.loss.value.without_logits() || chunked;
    let matrix = plan.gradient * plan.shape.get(Symbol::Vocabulary) * plan.shape.get(Symbol::Hidden);
    let drivers = &[Driver::Model, Driver::Gradients];
    let tied = plan.groups.tied;
    let copies = match (tied, accumulated, in_place) {
        (true, false, true) => 1.0,
        (true, false, false) | (true, true, true) => 2.0,
        (true, true, false) => 3.0,
        (false, true, _) => 1.0,
        // The encoder's, beside the decoder's.
        (false, false, _) if plan.activations.encoder.is_some() => 1.0,
        (false, false, _) => 0.0,
    };
    let name = if tied {
        "the tied embedding's gradients, added out of place"
    } else {
        "the embedding's new gradient"
    };
    lines.product(
        line(Component::Temporaries, name, &[Phase::BackwardEnd], drivers, TIMELINE),
        &[("copies", copies), ("bytes·V·d", matrix)],
    );
    if tied && accumulated {
        lines.product(
            line(Component::Temporaries, "the head's new gradient", LAYER_BACKWARD, drivers, TIMELINE),
            &[("bytes·V·d", matrix)],
        );
    }
}

/// Token ids and labels, 8 bytes each.
fn inputs(plan: &Plan<'_>, lines: &mut Lines) {
    lines.sum(
        line(
            Component::Activations,
            "token ids and labels",
            STEP,
            &[Driver::MicroBatchSize, Driver::SequenceLength],
            "64-bit integers",
        ),
        None,
        &Sum::term(16.0, &[Symbol::Tokens]),
        &plan.shape.symbols,
    );
}

/// A frozen second model, in the dtype it is loaded in.
fn reference(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    if plan.run.reference_model.value == ReferenceModel::None {
        return;
    }
    let dtype = plan.run.reference_weights.as_ref().unwrap_or(&plan.run.weights);
    let bytes = dtype.value.bytes() as f64 / rank.weight_shards;
    lines.product(
        Line {
            component: Component::Weights,
            name: "reference model".into(),
            live: PhaseSet::ALL,
            drivers: &[Driver::ReferenceModel, Driver::Model],
            source: "a frozen copy of the whole model",
        },
        &[("bytes", bytes), ("P", plan.shape.inventory.total() as f64)],
    );
}

/// What the layers and the body keep for backward.
pub(crate) fn saved(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    let activations = &plan.activations;
    let symbols = &plan.shape.symbols;
    let encoder_layers = plan.shape.architecture.encoder_layers as f64;
    let layers = plan.trained_layers().min(rank.layers) - encoder_layers;
    let (checkpointed, whole) = split_layers(plan.run.activation_checkpointing.value, layers);
    let drivers = &[
        Driver::MicroBatchSize,
        Driver::SequenceLength,
        Driver::Checkpointing,
        Driver::Attention,
        Driver::Kernels,
    ];
    let name = |what: &str, count: f64| format!("{what}, {count} layers");
    if plan.run.activation_offload.value {
        // The host holds them; the layer at work and the one on its way are on the GPU.
        let each = if checkpointed > 0.0 { &activations.checkpoint } else { &activations.layer };
        lines.sum(
            line(
                Component::Activations,
                "saved activations not yet on the host",
                SAVED,
                drivers,
                "two layers in flight",
            ),
            Some(("2", 2.0)),
            each,
            symbols,
        );
    } else {
        lines.sum(
            Line {
                name: name("inputs of the checkpointed layers", checkpointed),
                ..line(Component::Activations, "", SAVED, drivers, activations.source)
            },
            Some(("n", checkpointed)),
            &activations.checkpoint,
            symbols,
        );
        lines.sum(
            Line {
                name: name("saved for backward", whole),
                ..line(Component::Activations, "", SAVED, drivers, activations.source)
            },
            Some(("n", whole)),
            &activations.layer,
            symbols,
        );
        in_flight(plan, checkpointed, whole, lines);
    }
    if let Some(encoder) = &activations.encoder {
        let (checkpointed, whole) = split_layers(plan.run.activation_checkpointing.value, encoder_layers);
        for (count, each) in [(checkpointed, &encoder.checkpoint), (whole, &encoder.layer)] {
            let what = line(Component::Activations, "", SAVED, drivers, activations.source);
            lines.sum(
                Line { name: name("saved by the encoder", count), ..what },
                Some(("n_enc", count)),
                each,
                symbols,
            );
        }
    }
    // The last norm has gone backward before the layers do; masks and rotary tables stay, and so
    // does an encoder's last norm while the decoder's layers go.
    let last = if activations.encoder.is_some() { Symbol::TargetTokens } else { Symbol::Tokens };
    let norm = |of: &[Symbol]| of.first() == Some(&last);
    let tables = activations.body.clone().without(norm);
    let rest = activations.body.clone().plus(&tables.clone().times(-1.0));
    for (name, live, sum) in [
        ("saved once a model: last norm and the head's input", UNTIL_HEAD_BACKWARD, &rest),
        ("saved once a model: masks, rotary tables", SAVED, &tables),
    ] {
        let what = line(Component::Activations, name, live, drivers, activations.source);
        lines.sum(what, None, sum, symbols);
    }
}

/// A pipeline stage holds the activations of micro-batches whose backward has not come back yet.
fn in_flight(plan: &Plan<'_>, checkpointed: f64, whole: f64, lines: &mut Lines) {
    let waiting = plan.slice.in_flight - 1.0;
    if waiting == 0.0 {
        return;
    }
    let a = &plan.activations;
    let mut each = a.checkpoint.clone().times(checkpointed).plus(&a.layer.clone().times(whole));
    if plan.slice.last {
        each = each.plus(&a.body);
    }
    let phases: Vec<Phase> = STEP.iter().copied().filter(|p| *p != Phase::OptimizerStep).collect();
    lines.sum(
        line(
            Component::Activations,
            "activations of the other micro-batches in flight",
            &phases,
            &[Driver::Pipeline, Driver::MicroBatchSize, Driver::SequenceLength, Driver::Checkpointing],
            "the pipeline's schedule: forwards that start before this stage's first backward",
        ),
        Some(("micro-batches", waiting)),
        &each,
        &plan.shape.symbols,
    );
}

fn head_and_loss(plan: &Plan<'_>, lines: &mut Lines) {
    let loss = &plan.loss;
    let symbols = &plan.shape.symbols;
    let drivers = &[Driver::Loss, Driver::MicroBatchSize, Driver::SequenceLength, Driver::Model];
    let mut push = |name: &str, phase: Phase, sum: &Sum| {
        lines.sum(line(Component::Logits, name, &[phase], drivers, loss.source), None, sum, symbols);
    };
    push("logits and loss, forward", Phase::ForwardEnd, &loss.forward);
    push("logits and log-softmax kept for backward", Phase::Loss, &loss.saved);
    push("gradients of the log-likelihood and the log-softmax", Phase::Loss, &loss.backward);
    if let Some(sum) = &loss.head_backward {
        push("gradients of logits, head and hidden states", Phase::HeadBackward, sum);
    } else {
        push("gradients made by the fused loss", Phase::HeadBackward, &loss.saved);
    }
    held_logits(plan, lines);
}

/// Logits that the trainer's loop holds until its next forward has made new ones; Composer computes
/// its training metrics from them after the backward.
fn held_logits(plan: &Plan<'_>, lines: &mut Lines) {
    let run = plan.run;
    if !run.keep_logits.value || run.loss.value.without_logits() || !plan.slice.last {
        return;
    }
    let fabric = run.model_code.value == ModelCode::Litgpt;
    let each = if fabric { 4.0 } else { held_logit(run.loss.value, plan.shape.precision.logit()) };
    let drivers = &[Driver::MicroBatchSize, Driver::SequenceLength, Driver::Model];
    let logits = |bytes: f64| Sum::term(bytes, &[Symbol::Tokens, Symbol::Vocabulary]);
    let phases = &[Phase::BackwardTop, Phase::BackwardBottom, Phase::BackwardEnd, Phase::OptimizerStep];
    let source = "the training loop's own reference to the model's output";
    lines.sum(
        line(Component::Logits, "logits that the trainer holds", phases, drivers, source),
        None,
        &logits(each),
        &plan.shape.symbols,
    );
    if run.model_code.value == ModelCode::LlmFoundry {
        lines.sum(
            line(
                Component::Logits,
                "training metrics between backward and step: fp32 logits and their log-softmax",
                &[Phase::OptimizerStep],
                drivers,
                "Composer's _eval_train_metrics with LanguageCrossEntropy, under autocast",
            ),
            None,
            &logits(8.0),
            &plan.shape.symbols,
        );
    }
}

/// One layer's backward: its gradient in flight, its own activations and its temporaries.
fn layer_backward(plan: &Plan<'_>, lines: &mut Lines) {
    let activations = &plan.activations;
    let symbols = &plan.shape.symbols;
    let drivers = &[Driver::MicroBatchSize, Driver::SequenceLength, Driver::Attention];
    let split = if dtensor::splits(plan.run) { plan.run.parallelism.tensor.value as f64 } else { 1.0 };
    let residual = Sum::term(plan.residual() / split, &[Symbol::Tokens, Symbol::Hidden]);
    let ends: &[Phase] = if plan.adapters.is_some() { LAYER_BACKWARD } else { BACKWARD };
    lines.sum(
        line(Component::Temporaries, "gradient of the residual stream", ends, drivers, TIMELINE),
        None,
        &residual,
        symbols,
    );
    encoder_decoder(plan, lines);
    let first = encoder_backward(plan).map_or(1.0, |first| first.layers);
    let (what, one) = match plan.run.activation_checkpointing.value {
        Checkpointing::None | Checkpointing::Selective => {
            let first = activations.encoder.as_ref().map_or(&activations.layer, |e| &e.layer);
            ("saved activations of the first layer", first)
        }
        Checkpointing::Full | Checkpointing::Every { .. } => {
            let first = activations.encoder.as_ref().map_or(&activations.checkpoint, |e| &e.checkpoint);
            ("input of the first layer", first)
        }
    };
    lines.sum(
        line(Component::Activations, what, &[Phase::BackwardBottom], drivers, activations.source),
        (first > 1.0).then_some(("n_enc", first)),
        one,
        symbols,
    );
    let what = match plan.run.activation_checkpointing.value {
        Checkpointing::None => "one layer's backward",
        _ => "one layer recomputed, and its backward",
    };
    // The first layer to go backward is the decoder's last, the last one the encoder's first.
    let ends: &[(&[Phase], &Sum)] = match &activations.encoder {
        None => &[(LAYER_BACKWARD, &activations.transient)],
        Some(encoder) => {
            &[(&[Phase::BackwardTop], &activations.transient), (&[Phase::BackwardBottom], &encoder.transient)]
        }
    };
    for (live, transient) in ends {
        lines.sum(
            line(Component::Temporaries, what, live, drivers, activations.source),
            None,
            transient,
            symbols,
        );
    }
    dequantised(plan, lines);
    lines.worded(
        line(
            Component::Temporaries,
            "cuBLAS workspace",
            LAYER_BACKWARD,
            &[],
            "one matrix product's workspace, sm80 to sm89",
        ),
        "8.125 MiB",
        CUBLAS_WORKSPACE,
    );
}

/// What is alive beside the layers of an encoder-decoder: the gradient of the encoder's output
/// (above, of the residual stream) gathers over all decoder layers, T5's position biases and their
/// gradients over all layers of their side.
fn encoder_decoder(plan: &Plan<'_>, lines: &mut Lines) {
    let Some(encoder) = &plan.activations.encoder else { return };
    let drivers = &[Driver::MicroBatchSize, Driver::SequenceLength, Driver::Attention];
    let stream = Sum::term(plan.residual(), &[Symbol::TargetTokens, Symbol::Hidden]);
    for (name, phase, sum) in [
        ("gradient of the decoder's residual stream", Phase::BackwardTop, &stream),
        (
            "position biases and masks beside the decoder's layers",
            Phase::BackwardTop,
            &encoder.beside_decoder,
        ),
        ("position biases and masks beside the encoder's layers", Phase::BackwardBottom, &encoder.beside),
    ] {
        let what = line(Component::Temporaries, name, &[phase], drivers, plan.activations.source);
        lines.sum(what, None, sum, &plan.shape.symbols);
    }
    // The decoder at its first layer: gradients in the place of activations.
    let Some(decoder) = decoder_backward(plan).filter(|decoder| decoder.layers == 1.0) else { return };
    let gone = (plan.layers() - plan.shape.architecture.encoder_layers as f64 - 1.0).max(0.0);
    let checkpointed = !matches!(plan.run.activation_checkpointing.value, Checkpointing::None);
    let each = if checkpointed { &plan.activations.checkpoint } else { &plan.activations.layer };
    let top = &[Phase::BackwardTop];
    let freed = line(
        Component::Activations,
        "of which the decoder's layers are through",
        top,
        drivers,
        plan.activations.source,
    );
    lines.sum(freed, Some(("−(n_dec − 1)", -gone)), each, &plan.shape.symbols);
    let drivers = &[Driver::Method, Driver::Gradients, Driver::Model];
    lines.product(
        line(Component::Gradients, "gradients of all decoder layers but one", top, drivers, TIMELINE),
        &[("(n_dec − 1)", gone), ("bytes", plan.gradient), ("P_dec/n_dec", decoder.parameters)],
    );
}

/// 4-bit weights are dequantised one matrix at a time.
fn dequantised(plan: &Plan<'_>, lines: &mut Lines) {
    if !plan.run.quantization.value.is_packed() || plan.adapters.is_none() {
        return;
    }
    let linears = plan.shape.inventory.linears().filter(|(t, _)| t.in_layer());
    let largest = linears.map(|(_, l)| l.input * l.output).max().unwrap_or(0) as f64;
    // It is gone before the product's gradients are all there, which the layer's line counts: two
    // tensors of the MLP's width after an unadapted down projection, one after an adapted one.
    let adapted = plan.adapters.as_ref().is_some_and(|a| a.down_projection);
    let after = if adapted { 1.0 } else { 2.0 };
    let later = after * plan.shape.get(Symbol::Tokens) * plan.shape.get(Symbol::FeedForward);
    lines.product(
        line(
            Component::Temporaries,
            "the widest weight, dequantised",
            LAYER_BACKWARD,
            &[Driver::Quantization],
            "bitsandbytes multiplies with a 16-bit copy",
        ),
        &[("2", 2.0), ("(in·out − N·f·after)", (largest - later).max(0.0))],
    );
}

/// Autocast keeps its 16-bit copies of fp32 weights until the forward's context ends. Without
/// checkpointing the layers' own saved tensors hold them already.
fn cast_cache(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    let run = plan.run;
    // Log-probabilities are taken from what the model returned: its context has ended.
    let after = matches!(run.loss.value, Loss::LogProbabilities | Loss::ComparedLogProbabilities);
    let recomputes = !matches!(run.activation_checkpointing.value, Checkpointing::None);
    // Trained layers in fp32 among 16-bit ones: no table holds their casts.
    let upcast = run.method.value == Method::Freeze
        && run.autocast.value
        && plan.gradient > run.weights.value.bytes() as f64;
    if after || !(recomputes || upcast) {
        return;
    }
    let live: &[Phase] = if recomputes { &[Phase::ForwardEnd] } else { SAVED };
    let cast = match &plan.adapters {
        None if upcast => plan.groups.total,
        Some(adapters)
            if run.autocast.value && run.weights.value != Dtype::Fp32 && adapters.weight >= 4.0 =>
        {
            Adapters::parameters(adapters)
        }
        None if plan.shape.precision == Precision::Mixed => {
            plan.shape.inventory.layer_linear_parameters() as f64 * rank.layers / plan.layers().max(1.0)
        }
        _ => return,
    };
    lines.product(
        line(
            Component::Temporaries,
            "autocast's cache of 16-bit weights",
            live,
            &[Driver::Weights, Driver::Compute],
            "torch.autocast caches casts of fp32 leaves until its context ends",
        ),
        &[("2", 2.0), ("P_linear", cast)],
    );
}

/// Evaluation keeps nothing for backward: its peak is one layer's MLP or the logits, which are
/// upcast as in training.
fn evaluation(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    let Some(batch) = &plan.run.eval_batch_size else { return };
    if plan.run.model_code.value == ModelCode::Torchtitan {
        let shards = if let Strategy::Fsdp { shards, .. } = rank.strategy { shards } else { 1.0 };
        lines.product(
            line(
                Component::Gradients,
                "gradients of the last step",
                &[Phase::Evaluation],
                &[Driver::Method, Driver::Gradients, Driver::Model],
                "torchtitan clears them as the next step begins",
            ),
            &[("bytes", plan.gradient), ("P_trained/W", plan.groups.total / shards)],
        );
    }
    let sides = if plan.run.task.value == Task::Preference { 2 } else { 1 };
    let mut shape = plan.shape.clone();
    shape.set_sequences(plan.run, batch.value.saturating_mul(sides));
    let symbols = shape.symbols;
    let loss = loss::loss(plan.loss_context, plan.activations.table, &symbols);
    let hidden = |copies: f64| Sum::term(copies * plan.residual(), &[Symbol::Tokens, Symbol::Hidden]);
    // The gate's activation, up and their product; beside them the embedding, the layer's input, the
    // residual and the norm's output (transformers' Llama, traced).
    let element = if plan.run.quantised_beside_fp32() { 4.0 } else { plan.shape.precision.logit() };
    let width: &[Symbol] = if plan.shape.architecture.moe.is_some() {
        &[Symbol::Tokens, Symbol::TopK, Symbol::Expert]
    } else {
        &[Symbol::Tokens, Symbol::FeedForward]
    };
    let layer = Sum::term(3.0 * element, width).plus(&hidden(4.0));
    let logits = loss.forward.plus(&hidden(2.0));
    let (component, name, sum, source) = if layer.value(&symbols) > logits.value(&symbols) {
        let name = "one layer of an evaluation batch";
        (Component::Activations, name, layer, "a forward without gradients keeps one layer's tensors")
    } else {
        (Component::Logits, "logits and loss of an evaluation batch", logits, loss.source)
    };
    if plan.adapters.is_none() && plan.shape.precision == Precision::Mixed {
        lines.product(
            line(
                Component::Temporaries,
                "autocast's cache of 16-bit weights, in evaluation",
                &[Phase::Evaluation],
                &[Driver::Weights, Driver::Compute],
                "torch.autocast caches casts of leaves that require gradients, without gradients too",
            ),
            &[("2", 2.0), ("P_linear", plan.shape.inventory.layer_linear_parameters() as f64)],
        );
    }
    let drivers = &[Driver::EvalBatchSize, Driver::SequenceLength, Driver::Loss];
    lines.sum(line(component, name, &[Phase::Evaluation], drivers, source), None, &sum, &symbols);
}
