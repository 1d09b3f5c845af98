//! FSDP with the embedding, and the last norm with the head, in groups of their own (torchtitan):
//! what is gathered and reduced when. Read off the blocks alive at the peaks of torchtitan 0.2.2,
//! Llama 3 8B over 8 ranks.

use super::dtensor;
use super::ledger::{Component, Driver, Phase};
use super::lines::{Lines, line};
use super::plan::Plan;

const SOURCE: &str = "FSDP2 with groups for embedding and head, traced with torchtitan";
const DRIVERS: &[Driver] = &[Driver::DataParallel, Driver::Model];

/// Bytes of an element, and parameters of the groups.
pub(crate) struct Groups {
    /// Of a gathered weight and of its gradient.
    pub(crate) compute: f64,
    /// Of a gradient as it is reduced.
    pub(crate) reduce: f64,
    /// Weights stay gathered from forward to backward?
    pub(crate) kept: bool,
    /// One layer's parameters.
    pub(crate) layer: f64,
    /// The embedding's.
    pub(crate) embedding: f64,
    /// The head's and the last norm's.
    pub(crate) head: f64,
}

/// The lines of gathered weights and of reductions.
pub(crate) fn lines(plan: &Plan<'_>, g: &Groups, lines: &mut Lines) {
    let all = g.head + g.embedding + plan.shape.inventory.in_layers() as f64;
    // The head is not given back after the forward: its backward comes next.
    let (name, formula, gathered) = if g.kept {
        ("gathered weights, kept until backward", "P", all)
    } else {
        ("gathered weights: norm and head", "P_h", g.head)
    };
    let before = &[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward];
    let mut push = |name: &str, phases: &[Phase], terms: &[(&str, f64)]| {
        lines.product(line(Component::Communication, name, phases, DRIVERS, SOURCE), terms);
    };
    push(name, before, &[("bytes", g.compute), (formula, gathered)]);
    let (top, bottom) = if g.kept {
        (("(P − P_h)", all - g.head), ("(P_l + P_e)", g.layer + g.embedding))
    } else {
        (("2·P_l", 2.0 * g.layer), ("(P_l + P_e)", g.layer + g.embedding))
    };
    push("gathered weights: a layer and the next", &[Phase::BackwardTop], &[("bytes", g.compute), top]);
    push(
        "the head's gradients being reduced",
        &[Phase::BackwardTop],
        &[("bytes", g.reduce), ("P_h", g.head)],
    );
    push(
        "gathered weights: a layer and the embedding",
        &[Phase::BackwardBottom],
        &[("bytes", g.compute), bottom],
    );
    push(
        "a layer's gradients being reduced",
        &[Phase::BackwardBottom],
        &[("bytes", g.reduce), ("P_l", g.layer)],
    );
    // Gathered in one buffer and copied out of it while the first layer's gradients are still on
    // their way; or, later, its gradient beside the copy that is reduced.
    let gathering = 2.0 * g.compute * g.embedding + g.reduce * g.layer;
    let reducing = (g.compute + g.reduce) * g.embedding;
    // Whole on each tensor-parallel rank, beside the gathered table and the rows cut out of it.
    let whole = dtensor::while_reduced(plan, g.compute)
        .map_or(0.0, |whole| whole + g.compute * g.embedding + g.reduce * g.layer);
    let formula = if whole > 0.0 {
        "max(2·bytes·P_e + reduce·P_l, (bytes + reduce)·P_e, bytes·(V·d + 2·P_e) + reduce·P_l)"
    } else {
        "max(2·bytes·P_e + reduce·P_l, (bytes + reduce)·P_e)"
    };
    lines.worded(
        line(
            Component::Communication,
            "the embedding gathered, then its gradient and its reduction",
            &[Phase::BackwardEnd],
            DRIVERS,
            SOURCE,
        ),
        formula,
        gathering.max(reducing).max(whole),
    );
}
