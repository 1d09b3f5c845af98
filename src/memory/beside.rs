//! What lies on the GPU beside the trained model: teachers, reward and value models, the cache of
//! texts that the model itself generates, and the copies of fake quantisation.

use super::data_parallel::{Strategy, gathered_to_generate, zero_optimizer};
use super::expression::{Sum, Symbol};
use super::ledger::{Component, Driver, Phase, PhaseSet};
use super::lines::{Line, Lines, line};
use super::plan::Plan;
use super::rank::Rank;
use super::shape::Shape;
use super::timeline;
use crate::catalog::Architecture;
use crate::run::{FakeQuantization, Generator, OptimizerImplementation, Role, Task, TrainingRun};
use crate::units::Bytes;

const FROZEN: &str = "a frozen model of its own, every parameter in the stored dtype";
const VLLM: &str = "vLLM fills gpu_memory_utilization times the card with weights and cache";
const KD: &str = "torchtune's chunked forward KL: the teacher's logits, their softmax and the \
                  student's log-softmax in fp32, a byte for what is masked";

/// Lines of all of it.
pub(crate) fn lines(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    for companion in &plan.run.beside.companions {
        let parameters = companion.parameters as f64;
        if companion.role == Role::Value {
            value_model(plan, rank, parameters, lines);
            continue;
        }
        lines.product(
            Line {
                component: Component::Weights,
                name: companion.role.describe().into(),
                live: PhaseSet::ALL,
                drivers: &[Driver::Companions],
                source: FROZEN,
            },
            &[("bytes", timeline::frozen_bytes(plan, rank, plan.run.weights.value)), ("P", parameters)],
        );
        if companion.role == Role::Teacher {
            distillation(plan, lines);
        }
    }
    generation(plan, lines);
}

/// A value model that goes through one backward with the policy has its body: what its layers keep
/// comes on top, as its states do always; of logits it has one a token.
fn value_model(plan: &Plan<'_>, rank: &Rank, parameters: f64, lines: &mut Lines) {
    const SOURCE: &str = "policy and value model go through one backward";
    let run = plan.run;
    let trained = plan.groups.total.max(1.0);
    let in_backward = run.optimizer_implementation.value == OptimizerImplementation::InBackward;
    let each = match rank.strategy {
        Strategy::Zero { stage, shards } => {
            let w = plan.run.gathered_bytes();
            let states =
                if rank.optimizer_on_host { 0.0 } else { w + 4.0 + zero_optimizer(plan).state / trained };
            w / if stage == 3 { shards } else { 1.0 } + states / shards
        }
        _ => {
            let mut each = plan.weight;
            if !in_backward {
                each += plan.gradient;
            }
            if run.master_weights.value {
                each += 4.0;
            }
            if !rank.optimizer_on_host {
                each += plan.optimizer.state / trained;
            }
            each / rank.weight_shards
        }
    };
    let drivers = &[Driver::Companions, Driver::Optimizer];
    lines.product(
        Line {
            component: Component::Weights,
            name: "value model with its gradients and states".into(),
            live: PhaseSet::ALL,
            drivers,
            source: SOURCE,
        },
        &[("bytes", each), ("P", parameters)],
    );
    if run.beside.rollout.as_ref().is_none_or(|rollout| !rollout.value_apart) {
        timeline::saved(plan, rank, lines);
    }
}

/// Both models' logits are there in chunks, and the divergence keeps two tensors of their size.
fn distillation(plan: &Plan<'_>, lines: &mut Lines) {
    let logits = &[Symbol::Tokens, Symbol::Vocabulary];
    let teacher = Sum::term(plan.shape.precision.logit(), logits);
    let held = line(
        Component::Logits,
        "the teacher's logits",
        &[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward],
        &[Driver::Companions, Driver::MicroBatchSize, Driver::SequenceLength],
        KD,
    );
    lines.sum(held, None, &teacher, &plan.shape.symbols);
    let kept = line(
        Component::Logits,
        "softmax of the teacher, log-softmax of the student",
        &[Phase::Loss],
        &[Driver::Companions, Driver::MicroBatchSize, Driver::SequenceLength],
        KD,
    );
    lines.sum(kept, None, &Sum::term(9.0, logits), &plan.shape.symbols);
}

/// Values of keys and values that one token leaves in the cache, over all layers.
fn cached_values(architecture: &Architecture) -> f64 {
    let each = match &architecture.mla {
        // transformers caches the expanded heads.
        Some(mla) => architecture.heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim + mla.v_head_dim),
        None => 2 * architecture.kv_heads * architecture.head_dim,
    };
    architecture.layers as f64 * each as f64
}

/// What `generate` needs beside the weights: its cache, and what it makes of a token's logits.
fn generation(plan: &Plan<'_>, lines: &mut Lines) {
    let run = plan.run;
    let Some(rollout) = &run.beside.rollout else { return };
    if !rollout.by_model() {
        let (name, live) = if rollout.sleeps {
            ("vLLM's share of the card, while it generates", PhaseSet::of(&[Phase::Evaluation]))
        } else {
            ("vLLM's share of the card", PhaseSet::ALL)
        };
        let drivers = &[Driver::Rollout];
        let what = Line { component: Component::Temporaries, name: name.into(), live, drivers, source: VLLM };
        lines.worded(what, "share·card", rollout.reserved as f64);
        return;
    }
    if rollout.generator.value == Generator::WithoutCache {
        return;
    }
    let drivers = &[Driver::Rollout, Driver::SequenceLength, Driver::Model];
    lines.product(
        line(
            Component::Activations,
            "keys and values of the sequences that are generated",
            &[Phase::Evaluation],
            drivers,
            "two vectors a key head, layer and token",
        ),
        &[
            ("sequences", rollout.sequences.value as f64),
            ("S", run.sequence_length.value as f64),
            ("2·h_kv·d_head·n", cached_values(plan.shape.architecture)),
            ("bytes", run.compute.value.bytes() as f64),
        ],
    );
    lines.product(
        line(
            Component::Logits,
            "logits of the next token, their softmax and its sort",
            &[Phase::Evaluation],
            drivers,
            "fp32 scores, probabilities and a sorted copy with 8-byte indices",
        ),
        &[
            ("20", 20.0),
            ("sequences", rollout.sequences.value as f64),
            ("V", plan.shape.get(Symbol::Vocabulary)),
        ],
    );
}

/// Fake quantisation rounds each weight matrix into a copy that the product keeps, with a byte a
/// value that says which were clamped; the same for the inputs. Returned: what one layer keeps.
pub(crate) fn fake_quantized(run: &TrainingRun, shape: &Shape<'_>) -> Option<Sum> {
    let fake = run.beside.fake_quantization.as_ref()?;
    let each = run.compute.value.bytes() as f64 + 1.0;
    let layers = shape.inventory.layer_kinds().iter().map(|k| k.count).sum::<u64>().max(1) as f64;
    let (mut weights, mut inputs) = (0.0, 0.0);
    for (tensor, linear) in shape.inventory.linears().filter(|(t, _)| t.in_layer()) {
        let share = tensor.copies as f64 / layers;
        weights += share * (linear.input * linear.output) as f64;
        inputs += share * linear.input as f64;
    }
    // A sum over symbols: matrices as a multiple of d², inputs as one of N·d.
    let hidden = shape.get(Symbol::Hidden).max(1.0);
    let mut sum = Sum::term(each * weights / hidden / hidden, &[Symbol::Hidden, Symbol::Hidden]);
    if fake.value == FakeQuantization::WeightsAndInputs {
        sum = sum.plus(&Sum::term(each * inputs / hidden, &[Symbol::Tokens, Symbol::Hidden]));
    }
    Some(sum)
}

/// What lies on the card in large pieces to generate: a colocated vLLM's share, weights and cache
/// together, or the weights that ZeRO-3 makes whole.
pub(crate) fn held_by_engine(plan: &Plan<'_>, rank: &Rank, phase: Phase) -> Bytes {
    let Some(rollout) = &plan.run.beside.rollout else { return Bytes::ZERO };
    let generates = phase == Phase::Evaluation;
    let engine = if generates || !rollout.sleeps { rollout.reserved as f64 } else { 0.0 };
    let whole = if generates { gathered_to_generate(plan, rank) } else { 0.0 };
    Bytes::from_f64(engine + whole)
}

/// Parameters of routed experts that stay in the host's memory.
pub(crate) fn experts_on_host(plan: &Plan<'_>) -> f64 {
    let away = plan.run.beside.experts_on_host.as_ref().is_some_and(|on| on.value);
    if away { plan.shape.inventory.experts() as f64 } else { 0.0 }
}

/// The logits are of the last tokens only.
pub(crate) fn answers_only(run: &TrainingRun) -> bool {
    run.task.value == Task::Rollout && run.target_length.is_some()
}
