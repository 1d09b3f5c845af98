//! Megatron's distributed optimizer.

use super::{SHARDED, sharded_optimizer};
use crate::memory::ledger::{Component, Driver, Phase, PhaseSet};
use crate::memory::lines::{Line, Lines, line};
use crate::memory::plan::Plan;
use crate::memory::rank::Rank;
use crate::memory::timeline::STEP;
use crate::run::Dtype;

const SOURCE: &str = "Megatron core: parameter and gradient buffers, masters and moments";

fn always(component: Component, name: &str, drivers: &'static [Driver]) -> Line<'static> {
    Line { component, name: name.to_owned(), live: PhaseSet::ALL, drivers, source: SOURCE }
}

/// Megatron's own data parallelism: gradients are accumulated in one buffer that is also what is
/// reduced; with its distributed optimizer each rank steps on its part of the masters.
pub(super) fn megatron(plan: &Plan<'_>, rank: &Rank, shards: f64, lines: &mut Lines) {
    let run = plan.run;
    let total = plan.groups.total;
    weights(plan, lines);
    let drivers: &[Driver] = &[Driver::Model, Driver::Gradients, Driver::Tensor, Driver::Pipeline];
    lines.product(
        always(Component::Gradients, "buffer of the gradients", drivers),
        &[("bytes", plan.gradient), ("P_trained", total)],
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
    let experts = if plan.adapters.is_some() { 0.0 } else { plan.spread_experts };
    let shared = (total + experts) / shards;
    let stored = if plan.adapters.is_some() { plan.weight } else { run.weights.value.bytes() as f64 };
    if stored < 4.0 {
        let line = always(Component::Optimizer, "fp32 master weights, this rank's part", SHARDED);
        lines.product(line, &[("4", 4.0), ("P/W", shared)]);
    }
    if stored < 4.0 && plan.gradient < 4.0 && !run.precision_aware.value {
        let copy = line(
            Component::Temporaries,
            "fp32 copy of the gradients, this rank's part",
            &[Phase::OptimizerStep],
            SHARDED,
            "Megatron core: _copy_model_grads_to_main_grads casts to the masters' dtype",
        );
        lines.product(copy, &[("4", 4.0), ("P/W", shared)]);
    }
    if matches!(run.optimizer_state.value, Dtype::Fp8 | Dtype::Fp16) {
        let copy = line(
            Component::Temporaries,
            "fp32 copies of the moments, this rank's part",
            &[Phase::OptimizerStep],
            SHARDED,
            "Transformer Engine's FusedAdam.step: scaled states are unscaled before its kernel, bf16 ones inside it",
        );
        lines.product(copy, &[("8", 8.0), ("P/W", shared)]);
    }
    sharded_optimizer(plan, rank, shards, &plan.optimizer, lines);
}

/// The rank's weights, and what Transformer Engine keeps of them in 8 bits: a matrix and its transpose,
/// as Hopper's 8-bit products take both operands by rows. Weights that are stored in 8 bits
/// (`fp8_param_gather`) are the first of the two.
fn weights(plan: &Plan<'_>, lines: &mut Lines) {
    let run = plan.run;
    let inventory = &plan.shape.inventory;
    let all = inventory.total() as f64;
    let drivers: &[Driver] = &[Driver::Model, Driver::Tensor, Driver::Pipeline, Driver::Weights];
    let in_8_bits = (inventory.layer_linear_parameters() + inventory.stacked_experts()) as f64;
    let stored = run.weights.value.bytes() as f64;
    if run.weights.value == Dtype::Fp8 {
        let line = always(Component::Weights, "weights of this rank that stay in 16 bits", drivers);
        lines.product(line, &[("2", 2.0), ("(P − P_linear)", (all - in_8_bits).max(0.0))]);
    } else {
        let line = always(Component::Weights, "weights of this rank", drivers);
        lines.product(line, &[("bytes", stored), ("P", all)]);
    }
    if run.compute.value == Dtype::Fp8 || run.weights.value == Dtype::Fp8 {
        let line = always(Component::Weights, "weights in 8 bits, by rows and by columns", drivers);
        lines.product(line, &[("2", 2.0), ("P_linear", in_8_bits)]);
    }
    if let Some(adapters) = &plan.adapters {
        let drivers = &[Driver::LoraRank, Driver::LoraTargets];
        let line = always(Component::Weights, "weights of the adapters", drivers);
        lines.product(line, &[("bytes", plan.weight), ("P_adapters", adapters.parameters())]);
    }
}
