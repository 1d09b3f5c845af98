//! What the forward pass leaves: saved activations, logits, casts; and evaluation's forward.

use super::{BEFORE_STEP, SAVED, UNTIL_HEAD_BACKWARD};
use crate::memory::activations::split_layers;
use crate::memory::adapters::Adapters;
use crate::memory::data_parallel::Strategy;
use crate::memory::expression::{Sum, Symbol};
use crate::memory::ledger::{Component, Driver, Phase};
use crate::memory::lines::{Line, Lines, line};
use crate::memory::loss::{self, held_logit};
use crate::memory::plan::Plan;
use crate::memory::rank::Rank;
use crate::memory::shape::Precision;
use crate::run::{Checkpointing, Dtype, Loss, Method, ModelCode, Task};

/// What the layers and the body keep for backward.
pub(crate) fn saved(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    let activations = &plan.activations;
    let symbols = &plan.shape.symbols;
    let encoder_layers = plan.shape.architecture.encoder_layers as f64;
    let layers = plan.trained_layers().min(rank.layers) - encoder_layers;
    let (checkpointed, whole) =
        split_layers(plan.run.activation_checkpointing.value, layers, plan.slice.ranges.len());
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
        let (checkpointed, whole) = split_layers(plan.run.activation_checkpointing.value, encoder_layers, 1);
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
    if waiting == 0.0 || plan.live.is_some() {
        return;
    }
    let a = &plan.activations;
    let mut each = a.checkpoint.clone().times(checkpointed).plus(&a.layer.clone().times(whole));
    if plan.slice.last {
        each = each.plus(&a.body);
    }
    lines.sum(
        line(
            Component::Activations,
            "activations of the other micro-batches in flight",
            BEFORE_STEP,
            &[Driver::Pipeline, Driver::MicroBatchSize, Driver::SequenceLength, Driver::Checkpointing],
            "the pipeline's schedule: forwards that start before this stage's first backward",
        ),
        Some(("micro-batches", waiting)),
        &each,
        &plan.shape.symbols,
    );
}

pub(super) fn head_and_loss(plan: &Plan<'_>, lines: &mut Lines) {
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

/// Autocast keeps its 16-bit copies of fp32 weights until the forward's context ends. Without
/// checkpointing the layers' own saved tensors hold them already.
pub(super) fn cast_cache(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
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
pub(super) fn evaluation(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
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
