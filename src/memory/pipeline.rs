//! What PyTorch's pipeline keeps on a rank beside one micro-batch: activations, losses and gradients of
//! others, what is sent and received (`torch/distributed/pipelining/stage.py`, `schedules.py`; traced with
//! 2.15).

use super::activations::split_layers;
use super::data_parallel::{Strategy, deferred};
use super::dtensor;
use super::expression::{Sum, Symbol};
use super::ledger::{Component, Driver, Phase};
use super::lines::{Lines, line};
use super::loss::held_logit;
use super::parallel::{Degrees, Moment, Part};
use super::plan::Plan;
use super::rank::Rank;
use super::timeline::{AFTER_LOAD, SAVED};
use crate::run::PipelineSchedule;

const HEAD: &[Phase] = &[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward];
const TOP: &[Phase] = &[Phase::BackwardTop];
const AFTER: &[Phase] = &[Phase::BackwardBottom, Phase::BackwardEnd];
const STAGE: &str = "PyTorch's pipeline stages and schedules, traced";
const DRIVERS: &[Driver] = &[Driver::Pipeline, Driver::MicroBatchSize, Driver::SequenceLength];

/// What is there when a micro-batch goes backward, in numbers of tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Held {
    /// Layers whose activations wait, each once a micro-batch.
    layers: f64,
    /// Of these the micro-batch's at work.
    own: f64,
    /// Losses that wait beside the one at work, and those of which the weights' gradients are put off.
    losses: f64,
    halved: f64,
    /// The model's end is at work, its beginning, a chunk's last micro-batch.
    ends: bool,
    begins: bool,
    last: bool,
    /// Hidden states: outputs, gradients sent, inputs of the last stage.
    outputs: f64,
    sent: f64,
    inputs: f64,
    /// Layers whose weights' gradients are put off, each once a micro-batch; those at work.
    put_off: f64,
    halves: f64,
    /// Parts of the rank's parameters that have gradients before and after this backward.
    before: f64,
    after: f64,
    /// The embedding has its gradient before, or gets its first.
    table: f64,
    new_table: f64,
    /// Part of them whose gradients are reduced and whose weights are given back.
    finished: f64,
}

/// The heaviest moments of a rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Live {
    /// While a loss goes backward; the other where the rank has none.
    pub(crate) at_loss: Held,
    /// While layers go backward.
    pub(crate) at_layers: Held,
    /// As a backward ends.
    pub(crate) at_end: Held,
}

/// The same figure in neighbouring stretches is one line.
fn merged<const N: usize>(figures: [(&'static [Phase], f64); N]) -> Vec<(Vec<Phase>, f64)> {
    let mut lines: Vec<(Vec<Phase>, f64)> = Vec::new();
    for (phases, figure) in figures {
        match lines.last_mut() {
            Some((before, same)) if *same == figure => before.extend(phases),
            _ => lines.push((phases.to_vec(), figure)),
        }
    }
    lines
}

impl Live {
    /// A figure of each stretch of the step.
    fn figures(self, of: impl Fn(&Held) -> f64) -> Vec<(Vec<Phase>, f64)> {
        merged(self.by_phase().map(|(phases, held)| (phases, of(&held))))
    }

    fn by_phase(self) -> [(&'static [Phase], Held); 3] {
        [(HEAD, self.at_loss), (TOP, self.at_layers), (AFTER, self.at_end)]
    }
}

/// Bytes of hidden states between stages.
fn hidden(plan: &Plan<'_>) -> Sum {
    let shares =
        if plan.run.parallelism.sequence_parallel.value { Degrees::of(plan.run).tensor as f64 } else { 1.0 };
    Sum::term(plan.shape.precision.residual() / shares, &[Symbol::Tokens, Symbol::Hidden])
}

/// The releases whose `step` returned every micro-batch's output made all receive buffers at once, and
/// kept outputs until the backward.
fn early(plan: &Plan<'_>) -> bool {
    plan.run.keep_logits.value
}

/// Bytes of one layer's activations of a micro-batch, on average.
fn each_layer(plan: &Plan<'_>) -> Sum {
    let layers = plan.trained_layers();
    let (checkpointed, whole) =
        split_layers(plan.run.activation_checkpointing.value, layers, plan.slice.ranges.len());
    let a = &plan.activations;
    a.checkpoint.clone().times(checkpointed).plus(&a.layer.clone().times(whole)).times(1.0 / layers.max(1.0))
}

/// Gradients of the outputs of a layer's matrices and norms, from which their weights' follow.
fn each_put_off(plan: &Plan<'_>) -> Sum {
    let inventory = &plan.shape.inventory;
    let linears = inventory.linears().filter(|(tensor, _)| tensor.in_layer());
    let outputs: u64 = linears.map(|(tensor, linear)| tensor.copies.saturating_mul(linear.output)).sum();
    let element = plan.shape.precision.residual();
    let width = element * outputs as f64 / plan.layers().max(1.0);
    Sum::term(width, &[Symbol::Tokens]).plus(&Sum::term(2.0 * element, &[Symbol::Tokens, Symbol::Hidden]))
}

/// What a loss keeps until its backward, the model's output included.
fn each_loss(plan: &Plan<'_>) -> Sum {
    let own = plan.loss.saved.clone().plus(&plan.activations.body);
    // There the loss counts it, and every micro-batch's is kept anyway.
    own.plus(&output(plan).times(if early(plan) { -1.0 } else { 1.0 }))
}

/// Once the input's gradient is there the loss is gone, and the logits' gradient waits for the head's.
fn each_halved(plan: &Plan<'_>) -> Sum {
    output(plan).plus(&plan.activations.body)
}

/// The part of a finished chunk's gradients that stays: FSDP's shard of it.
fn left(plan: &Plan<'_>) -> f64 {
    match (Strategy::of(plan.run), deferred(plan)) {
        (Ok(Strategy::Fsdp { shards, .. }), Some(each)) => plan.gradient / each / shards,
        _ => 1.0,
    }
}

/// The last stage's output is kept as long as its activations, unless the loss keeps that very tensor.
fn output(plan: &Plan<'_>) -> Sum {
    let logit = plan.shape.precision.logit();
    let same = plan.run.compile.value && logit >= 4.0;
    let bytes = if plan.run.loss.value.without_logits() || same {
        0.0
    } else {
        held_logit(plan.run.loss.value, logit)
    };
    let ranks = Degrees::of(plan.run).tensor as f64;
    let whole = if plan.run.parallelism.vocab_parallel_loss.value { 1.0 } else { ranks };
    Sum::term(bytes * whole, &[Symbol::Tokens, Symbol::Vocabulary])
}

/// The heaviest moments of this rank.
pub(crate) fn live(plan: &Plan<'_>) -> Option<Live> {
    let part = plan.slice.part.as_ref()?;
    let symbols = &plan.shape.symbols;
    let (layer, loss) = (each_layer(plan).value(symbols), each_loss(plan).value(symbols));
    let hidden = hidden(plan).value(symbols);
    let gradients = plan.groups.total * deferred(plan).unwrap_or(plan.gradient);
    let weights = match deferred(plan) {
        Some(_) => plan.shape.inventory.total() as f64 * plan.run.gathered_bytes(),
        None => 0.0,
    };
    let shares = shares(plan, part);
    let put_off = each_put_off(plan).value(symbols);
    let halved = each_halved(plan).value(symbols);
    let left = left(plan);
    let weight = |held: &Held| {
        held.layers * layer
            + (held.put_off + held.halves) * put_off
            + held.losses * loss
            + held.halved * halved
            + (held.outputs + held.sent + held.inputs) * hidden
            + (held.before + held.finished * left) * gradients
            - held.finished * weights
    };
    let end = |held: &Held| {
        let more = (held.after - held.before) * gradients - held.own * layer;
        weight(held) + more + fresh(plan, held).max(reduced(plan, held))
    };
    let mut at_loss: Option<(f64, Held)> = None;
    let mut at_layers: Option<(f64, Held)> = None;
    let mut at_end: Option<(f64, Held)> = None;
    part.each(|moment| {
        let held = held(plan, part, &shares, moment);
        let heaviest = |best: &mut Option<(f64, Held)>, bytes: f64| {
            if best.is_none_or(|(most, _)| bytes > most) {
                *best = Some((bytes, held));
            }
        };
        heaviest(&mut at_layers, weight(&held));
        heaviest(&mut at_end, end(&held));
        if held.ends {
            heaviest(&mut at_loss, weight(&held));
        }
    });
    let (_, at_layers) = at_layers?;
    let or_layers = |best: Option<(f64, Held)>| best.map_or(at_layers, |(_, held)| held);
    Some(Live { at_loss: or_layers(at_loss), at_layers, at_end: or_layers(at_end) })
}

/// Parts of the rank's parameters in each of its chunks.
fn shares(plan: &Plan<'_>, part: &Part) -> Vec<f64> {
    let inventory = &plan.shape.inventory;
    let all = (inventory.total() as f64).max(1.0);
    let embedding = if plan.slice.first { inventory.embedding() as f64 } else { 0.0 };
    let layers = inventory.in_layers() as f64;
    let head = (all - layers - embedding).max(0.0);
    let count = (plan.slice.layers() as f64).max(1.0);
    plan.slice
        .ranges
        .iter()
        .zip(0..)
        .map(|((from, to), chunk)| {
            let own = to.saturating_sub(*from) as f64 / count * layers;
            let first = if part.piece(chunk) == 0 { embedding } else { 0.0 };
            (own + first + if part.ends(chunk) { head } else { 0.0 }) / all
        })
        .collect()
}

fn held(plan: &Plan<'_>, part: &Part, shares: &[f64], moment: &Moment) -> Held {
    let mut held = Held::default();
    let chunks = plan.slice.ranges.iter().zip(0u64..).zip(moment.in_flight.iter().zip(&moment.done));
    for (((from, to), chunk), (waiting, done)) in chunks {
        let layers = to.saturating_sub(*from) as f64;
        let (waiting, done) = (*waiting as f64, *done as f64);
        let share = shares.get(chunk as usize).copied().unwrap_or(0.0);
        let at_work = chunk as usize == moment.chunk;
        held.layers += waiting * layers;
        held.put_off += moment.put_off.get(chunk as usize).copied().unwrap_or(0) as f64 * layers;
        if at_work {
            // What waits for the weights' gradients is not given back.
            held.own = if moment.in_halves { 0.0 } else { layers };
            held.halves = layers - held.own;
            held.ends = part.ends(chunk);
            held.begins = part.piece(chunk) == 0;
            held.last = moment.batches == moment.done.get(moment.chunk).copied().unwrap_or(0) + 1;
        }
        if part.ends(chunk) {
            held.halved = moment.put_off.get(chunk as usize).copied().unwrap_or(0) as f64;
            held.losses = waiting - held.halved - if at_work { 1.0 } else { 0.0 };
            // A loss that is kept for its value keeps the graph's leaf.
            held.inputs = if part.piece(chunk) == 0 { 0.0 } else { done };
        } else if part.looped() || early(plan) {
            held.outputs += waiting;
        }
        if part.piece(chunk) > 0 && part.looped() {
            held.sent += done;
        }
        if moment.batches == done as u64 && part.looped() {
            held.finished += share;
        } else if done > 0.0 {
            held.before += share;
            held.table += if part.piece(chunk) == 0 { 1.0 } else { 0.0 };
        }
        if at_work && part.piece(chunk) == 0 && done == 0.0 {
            held.new_table = 1.0;
        }
        if moment.batches > done as u64 && (done > 0.0 || at_work) {
            held.after += share;
        }
    }
    if !part.looped() && part.piece(0) > 0 {
        // The loop holds the operations of the last send until the next.
        held.sent = 1.0;
    }
    if early(plan) {
        (held.sent, held.inputs) = (0.0, 0.0);
    }
    held
}

/// The lines of one rank, without its gradients.
pub(crate) fn lines(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    let (Some(live), Some(part)) = (plan.live, plan.slice.part) else { return };
    let symbols = &plan.shape.symbols;
    let mut push = |component, name: &str, phases: &[Phase], count: f64, each: &Sum| {
        let what = line(component, name, phases, DRIVERS, STAGE);
        lines.sum(what, Some(("micro-batches", count)), each, symbols);
    };
    let each = each_layer(plan);
    let name = "activations of other micro-batches, by layers";
    for (phases, count) in merged([
        (HEAD, live.at_loss.layers - rank.layers),
        (TOP, live.at_layers.layers - rank.layers),
        (AFTER, live.at_end.layers - live.at_end.own),
    ]) {
        push(Component::Activations, name, &phases, count, &each);
    }
    let put_off = each_put_off(plan);
    for (phases, count) in merged([
        (HEAD, live.at_loss.put_off),
        (TOP, live.at_layers.put_off + live.at_layers.halves),
        (AFTER, live.at_end.put_off + live.at_end.halves),
    ]) {
        let name = "gradients from which the weights' follow later, by layers";
        push(Component::Activations, name, &phases, count, &put_off);
    }
    let (loss, output, hidden) = (each_loss(plan), output(plan), hidden(plan));
    for (phases, count) in live.figures(|held| held.losses) {
        push(Component::Logits, "losses of other micro-batches, with their logits", &phases, count, &loss);
    }
    for (phases, count) in live.figures(|held| held.halved) {
        let name = "logits' gradients from which the head's follow later";
        push(Component::Logits, name, &phases, count, &each_halved(plan));
    }
    let sent = |held: &Held| held.sent;
    for (name, counts) in [
        ("outputs that go to the next stage, kept for their backward", live.figures(|held| held.outputs)),
        ("gradients sent to the stage before, until the step ends", live.figures(sent)),
        ("inputs of the last stage, kept by the losses", live.figures(|held| held.inputs)),
        ("the gradient received", live.figures(|held| if held.ends { 0.0 } else { 1.0 })),
    ] {
        for (phases, count) in counts {
            push(Component::Communication, name, &phases, count, &hidden);
        }
    }
    if !early(plan) {
        let kept = |held: Held| if held.ends { 1.0 } else { 0.0 };
        for (phases, count) in merged([
            (&[Phase::Loss, Phase::HeadBackward], kept(live.at_loss)),
            (TOP, kept(live.at_layers)),
            (AFTER, kept(live.at_end)),
        ]) {
            push(Component::Logits, "the last stage's output", &phases, count, &output);
        }
    }
    if part.schedule == PipelineSchedule::AllForwardAllBackward && !part.looped() && !plan.slice.last {
        let waiting = part.batches as f64 - live.at_loss.outputs;
        let name = "outputs that go to the next stage, until all forwards are through";
        push(Component::Communication, name, &[Phase::ForwardEnd], waiting, &hidden);
    }
    if early(plan) {
        early_lines(plan, &part, live, lines);
    }
}

/// Receive buffers made for all micro-batches as the first step begins, and the outputs that `step`
/// put together and returned.
fn early_lines(plan: &Plan<'_>, part: &Part, live: Live, lines: &mut Lines) {
    const EARLY: &str = "PyTorch's PipelineStage of 2.5 to 2.9: _prepare_forward_infra, output_chunks";
    let symbols = &plan.shape.symbols;
    let batches = part.batches as f64;
    let chunks = 0..part.chunks;
    let receiving = chunks.clone().filter(|chunk| part.piece(*chunk) > 0).count() as f64;
    let sending = chunks.filter(|chunk| !part.ends(*chunk)).count() as f64;
    let name = "receive buffers of all micro-batches";
    let what = line(Component::Communication, name, AFTER_LOAD, DRIVERS, EARLY);
    lines.sum(what, Some(("micro-batches", batches * (receiving + sending))), &hidden(plan), symbols);
    // A layer's input that waits is such a buffer.
    let chunks = plan.slice.ranges.len().max(1) as f64;
    let waiting = live.at_layers.layers / plan.layers().max(1.0) * receiving / chunks;
    let what = line(Component::Communication, "of which inputs that wait", SAVED, DRIVERS, EARLY);
    lines.sum(what, Some(("−micro-batches", -waiting)), &hidden(plan), symbols);
    if !plan.slice.last {
        return;
    }
    let own = output(plan);
    let name = "logits of the other micro-batches, kept by the last stage";
    let phases: Vec<Phase> = [HEAD, TOP, AFTER, &[Phase::OptimizerStep]].concat();
    let what = line(Component::Logits, name, &phases, DRIVERS, EARLY);
    lines.sum(what, Some(("micro-batches", batches - 1.0)), &own, symbols);
    let name = "the same, put together after the last backward";
    let what = line(Component::Logits, name, &[Phase::OptimizerStep], DRIVERS, EARLY);
    lines.sum(what, Some(("micro-batches", batches)), &own, symbols);
}

/// Gradients of earlier micro-batches and of this one, `each` bytes.
pub(crate) fn gradients(plan: &Plan<'_>, each: f64, live: Live, lines: &mut Lines) {
    let drivers = &[Driver::Pipeline, Driver::GradientAccumulation, Driver::Model];
    let layers = plan.layers();
    let end = live.at_end;
    let left = left(plan);
    let bottom = end.before + (end.after - end.before) * (layers - 1.0) / layers.max(1.0);
    for (phases, share) in merged([
        (HEAD, live.at_loss.before + live.at_loss.finished * left),
        (TOP, live.at_layers.before + live.at_layers.finished * left),
        (&[Phase::BackwardBottom], bottom + end.finished * left),
        (&[Phase::BackwardEnd], end.after + end.finished * left),
    ]) {
        lines.product(
            line(Component::Gradients, "gradients, earlier micro-batches included", &phases, drivers, STAGE),
            &[("part", share), ("bytes", each), ("P_trained", plan.groups.total)],
        );
    }
}

/// The embedding's new gradient beside the sum of the earlier ones, in the dtype it is computed in.
fn fresh(plan: &Plan<'_>, held: &Held) -> f64 {
    let bytes = deferred(plan).map_or(plan.gradient, |_| plan.run.gathered_bytes());
    let rows = plan.shape.inventory.embedding() as f64;
    if held.begins { bytes * dtensor::tables(plan).map_or(rows, |(whole, _)| whole) } else { 0.0 }
}

/// FSDP's copy of a group's gradients as it is reduced, once a chunk's last micro-batch is through. The
/// last group comes first, when the others' are all there; the early releases began with the first.
fn reduced(plan: &Plan<'_>, held: &Held) -> f64 {
    let Some(bytes) = deferred(plan).filter(|_| held.last) else { return 0.0 };
    let inventory = &plan.shape.inventory;
    let (layer, embedding) = (inventory.largest_layer() as f64, inventory.embedding() as f64);
    let ends = (inventory.language().saturating_sub(inventory.in_layers())) as f64;
    let first = if early(plan) && held.begins { embedding } else { 0.0 };
    let last = if held.ends { ends - if plan.slice.first { embedding } else { 0.0 } } else { 0.0 };
    bytes * layer.max(first).max(last)
}

/// Weights that FSDP keeps gathered over all micro-batches, and the reduction at their end.
pub(crate) fn sharded(plan: &Plan<'_>, lines: &mut Lines) {
    const DATA: &str = "PyTorch's PipelineStage.perform_reduce_grad: no reshard, no reduction before the end";
    let Some(live) = plan.live else { return };
    let drivers = &[Driver::Pipeline, Driver::DataParallel, Driver::Model];
    let all = plan.shape.inventory.total() as f64;
    for (phases, part) in live.figures(|held| 1.0 - held.finished) {
        let name = "gathered weights, kept over all micro-batches";
        lines.product(
            line(Component::Communication, name, &phases, drivers, DATA),
            &[("bytes", plan.run.gathered_bytes()), ("part", part), ("P", all)],
        );
    }
    if let (Some((whole, rows)), Some(each)) = (dtensor::tables(plan), deferred(plan)) {
        // Beyond this rank's rows, which are counted with the others.
        for (phases, there) in merged([
            (HEAD, live.at_loss.table),
            (TOP, live.at_layers.table),
            (&[Phase::BackwardBottom], live.at_end.table),
            (&[Phase::BackwardEnd], live.at_end.table + live.at_end.new_table),
        ]) {
            let name = "the embedding's gradient, whole on each rank";
            lines.product(
                line(Component::Gradients, name, &phases, drivers, DATA),
                &[("there", there), ("bytes", each), ("(V·d − P_e)", (whole - rows).max(0.0))],
            );
        }
    }
    let (fresh, reduced) = (fresh(plan, &live.at_end), reduced(plan, &live.at_end));
    let (component, name, bytes) = if fresh > reduced {
        (Component::Gradients, "the embedding's new gradient", fresh)
    } else {
        (Component::Communication, "a group's gradients being reduced", reduced)
    };
    lines.worded(line(component, name, &[Phase::BackwardEnd], drivers, DATA), "bytes·P_group", bytes);
}

/// Does FSDP wait for the pipeline's last micro-batch?
pub(crate) fn waits(plan: &Plan<'_>, rank: &Rank) -> bool {
    matches!(rank.strategy, Strategy::Fsdp { .. }) && plan.live.is_some() && deferred(plan).is_some()
}
