//! Megatron's distributed optimizer.

use super::{SHARDED, sharded_optimizer};
use crate::memory::ledger::{Component, Driver, PhaseSet};
use crate::memory::lines::{Line, Lines, line};
use crate::memory::plan::Plan;
use crate::memory::rank::Rank;
use crate::memory::timeline::STEP;

/// Megatron's own data parallelism: gradients are accumulated in one buffer that is also what is
/// reduced; with its distributed optimizer each rank steps on its part of the masters.
pub(super) fn megatron(plan: &Plan<'_>, rank: &Rank, shards: f64, lines: &mut Lines) {
    const SOURCE: &str = "Megatron core: parameter and gradient buffers, masters and moments";
    let run = plan.run;
    let total = plan.groups.total;
    let stored = run.weights.value.bytes() as f64;
    let always = |component, name: &str, drivers| Line {
        component,
        name: name.to_owned(),
        live: PhaseSet::ALL,
        drivers,
        source: SOURCE,
    };
    let all = plan.shape.inventory.total() as f64;
    let drivers: &[Driver] = &[Driver::Model, Driver::Tensor, Driver::Pipeline, Driver::Weights];
    lines.product(
        always(Component::Weights, "weights of this rank", drivers),
        &[("bytes", stored), ("P", all)],
    );
    let drivers: &[Driver] = &[Driver::Model, Driver::Gradients, Driver::Tensor, Driver::Pipeline];
    lines.product(
        always(Component::Gradients, "buffer of the gradients", drivers),
        &[("bytes", plan.gradient), ("P", total)],
    );
    let workspaces = line(
        Component::Temporaries,
        "workspaces of cuBLAS (forward and backward thread) and Transformer Engine",
        STEP,
        &[],
        "32 MiB each from sm90 on: PyTorch's CublasHandlePool, Transformer Engine's get_cublas_workspace_size_bytes",
    );
    lines.product(workspaces, &[("3", 3.0), ("32 MiB", 33_554_432.0)]);
    if rank.optimizer_on_host {
        return;
    }
    let shared = (total + plan.spread_experts) / shards;
    if stored < 4.0 {
        let line = always(Component::Optimizer, "fp32 master weights, this rank's part", SHARDED);
        lines.product(line, &[("4", 4.0), ("P/W", shared)]);
    }
    sharded_optimizer(plan, rank, shards, &plan.optimizer, lines);
}
