//! What lies there all step long: weights and their copies, optimizer states, inputs, a reference model.

use super::{AFTER_LOAD, BACKWARD, STEP};
use crate::catalog::Family;
use crate::memory::beside;
use crate::memory::data_parallel::Strategy;
use crate::memory::expression::{Sum, Symbol};
use crate::memory::ledger::{Component, Driver, Phase, PhaseSet};
use crate::memory::lines::{Line, Lines, line};
use crate::memory::plan::Plan;
use crate::memory::rank::Rank;
use crate::memory::states::quantized_bytes;
use crate::run::{Dtype, Method, ModelCode, Quantization, ReferenceModel};

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
    let with_step: Vec<Phase> = BACKWARD.iter().copied().chain([Phase::OptimizerStep]).collect();
    let drivers = &[Driver::Weights, Driver::Attention];
    let more = 4.0 - stored;
    for (component, name, phases, count) in [
        (Component::Weights, "embedding, head and norms in fp32", &Phase::ALL[..], 1.0),
        (Component::Gradients, "their gradients in fp32", &with_step[..], 1.0),
        (Component::Optimizer, "their moments in fp32", AFTER_LOAD, 2.0),
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
    if !rank.optimizer_on_host {
        let drivers = &[Driver::Optimizer, Driver::Method];
        lines.worded(
            line(Component::Optimizer, "optimizer states", AFTER_LOAD, drivers, memory.source),
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

/// Token ids and labels, 8 bytes each.
pub(super) fn inputs(plan: &Plan<'_>, lines: &mut Lines) {
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
pub(super) fn reference(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    if plan.run.reference_model.value == ReferenceModel::None {
        return;
    }
    let dtype = plan.run.reference_weights.as_ref().unwrap_or(&plan.run.weights);
    let bytes = frozen_bytes(plan, rank, dtype.value);
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

/// Bytes a parameter of a frozen model takes on a rank, shared out like the trained one's weights.
pub(crate) fn frozen_bytes(plan: &Plan<'_>, rank: &Rank, stored: Dtype) -> f64 {
    let bytes = stored.bytes() as f64;
    // DeepSpeed casts what it is given to the compute dtype.
    let cast = if matches!(rank.strategy, Strategy::Zero { .. }) {
        bytes.min(plan.run.gathered_bytes())
    } else {
        bytes
    };
    cast / rank.weight_shards
}
