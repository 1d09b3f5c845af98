//! Weights, gradients and optimizer states: bytes a parameter, with where each figure comes from.

use crate::run::{Optimizer, OptimizerImplementation, Quantization};

/// What an optimizer needs to know about the parameters it trains.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Trained {
    /// Parameters.
    pub(crate) parameters: f64,
    /// Parameter tensors.
    pub(crate) tensors: f64,
    /// Elements of the largest.
    pub(crate) largest: f64,
    /// Parameters in tensors of fewer than 4096 elements.
    pub(crate) small: f64,
    /// Adafactor's rows and columns.
    pub(crate) rows_and_columns: f64,
    /// Parameters in the layers' matrices, which Muon and GaLore treat apart.
    pub(crate) matrices: f64,
    /// Parameters of embeddings whose states an 8-bit optimizer keeps in 32 bits.
    pub(crate) wide: f64,
    /// Rank of a low-rank optimizer, where the run says so.
    pub(crate) rank: Option<f64>,
}

/// What it keeps and what its step needs, in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OptimizerMemory {
    /// Kept between steps on the GPU.
    pub(crate) state: f64,
    /// The same in words: `2·4·P`.
    pub(crate) formula: String,
    /// Kept in pageable memory, outside the allocator.
    pub(crate) paged: f64,
    /// Temporaries of the step.
    pub(crate) step: f64,
    /// The same in words.
    pub(crate) step_formula: String,
    /// Where the figures come from.
    pub(crate) source: &'static str,
    /// Not traced: how far the state may be off, as a part of it.
    pub(crate) doubt: f64,
}

impl OptimizerMemory {
    /// Of two groups of parameters that it steps one after the other.
    pub(crate) fn plus(self, other: &OptimizerMemory) -> OptimizerMemory {
        OptimizerMemory {
            state: self.state + other.state,
            formula: format!("{} + {} (modules)", self.formula, other.formula),
            paged: self.paged + other.paged,
            step: self.step + other.step,
            step_formula: format!("{} + {} (modules)", self.step_formula, other.step_formula),
            source: self.source,
            doubt: self.doubt.max(other.doubt),
        }
    }
}

/// bitsandbytes: one fp32 scale a block of 256 (2048 before 0.44) for each 8-bit moment.
const BLOCK_SCALE: f64 = 4.0 / 256.0;
/// torchao's 4-bit states: one fp32 scale a block of 128 (torchao/optim/subclass_4bit.py).
const BLOCK_SCALE_4BIT: f64 = 4.0 / 128.0;
/// transformers' default GaLore rank (`optim_args`: rank 128).
const GALORE_RANK: f64 = 128.0;

const TORCH: &str = "torch.optim: states have the parameter's dtype; traced";
const BNB: &str =
    "bitsandbytes: 32-bit or block-wise 8-bit states, 32-bit for tensors under 4096 elements; traced";
const BNB_PAGED: &str =
    "bitsandbytes: paged states live in managed memory, only the scales in the allocator; traced";

/// What `optimizer` needs for the parameters `p`; `weight` is bytes of a trained parameter as the
/// optimizer sees it, `state` bytes of a state where the optimizer leaves a choice.
/// `None`: not modelled.
pub(crate) fn optimizer(
    optimizer: Optimizer,
    implementation: OptimizerImplementation,
    p: &Trained,
    weight: f64,
    state: f64,
) -> Option<OptimizerMemory> {
    let all = p.parameters;
    let large = (all - p.small).max(0.0);
    let moments = |count: f64| OptimizerMemory {
        state: count * state * all,
        formula: format!("{count}·{state}·P"),
        source: TORCH,
        ..OptimizerMemory::default()
    };
    // 8-bit moments in blocks; small tensors keep 32-bit ones.
    let blocks = |count: f64, source| OptimizerMemory {
        state: count * ((1.0 + BLOCK_SCALE) * (large - p.wide) + 4.0 * (p.small + p.wide)),
        formula: if p.wide > 0.0 {
            format!("{count}·((1 + 4/256)·(P − P_embedding) + 4·P_embedding)")
        } else {
            format!("{count}·(1 + 4/256)·P")
        },
        source,
        ..OptimizerMemory::default()
    };
    let paged_blocks = |count: f64| OptimizerMemory {
        state: count * (BLOCK_SCALE * large + 4.0 * p.small),
        formula: format!("{count}·4/256·P"),
        paged: count * large,
        source: BNB_PAGED,
        ..OptimizerMemory::default()
    };
    let wide = |count: f64, source| OptimizerMemory {
        state: 4.0 * count * all,
        formula: format!("{count}·4·P"),
        source,
        ..OptimizerMemory::default()
    };
    Some(match optimizer {
        Optimizer::Sgd => {
            OptimizerMemory { formula: "0".into(), source: TORCH, ..OptimizerMemory::default() }
        }
        Optimizer::SgdMomentum => moments(1.0),
        Optimizer::Adam | Optimizer::Adamw => adam(moments(2.0), implementation, p, weight, state),
        Optimizer::ScheduleFreeAdamw => OptimizerMemory {
            source: "schedulefree: z and the second moment, both the parameter's size; foreach by default",
            doubt: 0.05,
            ..adam(moments(2.0), implementation, p, weight, state)
        },
        Optimizer::Adamw32bit => wide(2.0, BNB),
        Optimizer::Lion => wide(1.0, BNB),
        Optimizer::Adamw8bit => blocks(2.0, BNB),
        Optimizer::Lion8bit => blocks(1.0, BNB),
        Optimizer::PagedAdamw8bit => paged_blocks(2.0),
        Optimizer::PagedLion8bit => paged_blocks(1.0),
        Optimizer::PagedAdamw32bit | Optimizer::PagedLion32bit => OptimizerMemory {
            formula: "0".into(),
            paged: all * if optimizer == Optimizer::PagedAdamw32bit { 8.0 } else { 4.0 },
            source: BNB_PAGED,
            ..OptimizerMemory::default()
        },
        Optimizer::Adamw4bit => OptimizerMemory {
            state: 2.0 * ((0.5 + BLOCK_SCALE_4BIT) * large + 4.0 * p.small),
            formula: "2·(0.5 + 4/128)·P".into(),
            source: "torchao: 4-bit states, one fp32 scale a block of 128",
            ..OptimizerMemory::default()
        },
        // The step squares the gradient in fp32, factored: traced temporaries of the largest tensor.
        Optimizer::Adafactor => OptimizerMemory {
            state: 4.0 * p.rows_and_columns,
            formula: "4·(rows + columns)".into(),
            step: if weight <= 2.0 { 16.0 } else { 8.0 } * p.largest,
            step_formula: format!("{}·largest tensor", if weight <= 2.0 { 16 } else { 8 }),
            source: "transformers' Adafactor without first moment; traced",
            ..OptimizerMemory::default()
        },
        Optimizer::TorchAdafactor => OptimizerMemory {
            state: weight * p.rows_and_columns,
            formula: format!("{weight}·(rows + columns)"),
            step: 1.1 * weight * p.largest,
            step_formula: format!("1.1·{weight}·largest tensor"),
            source: "torch.optim.Adafactor; traced",
            ..OptimizerMemory::default()
        },
        Optimizer::Adagrad => foreach_or_single(moments(1.0), implementation, 2.0 * weight, p),
        Optimizer::Rmsprop => foreach_or_single(moments(1.0), implementation, weight, p),
        // Momentum for the layers' matrices, AdamW for the rest. Newton-Schulz holds the update
        // and about three products of its size in bf16, one matrix at a time.
        Optimizer::Muon => OptimizerMemory {
            state: state * p.matrices + 2.0 * state * (all - p.matrices),
            formula: format!("{state}·P_matrices + 2·{state}·P_rest"),
            step: 8.0 * p.largest,
            step_formula: "8·largest tensor".into(),
            source: "torch.optim.Muon's update; not traced",
            doubt: 0.1,
            ..OptimizerMemory::default()
        },
        Optimizer::Galore | Optimizer::Galore8bit | Optimizer::Apollo => galore(optimizer, p, state),
        // A first moment of every value; of second moments one a head, row or matrix.
        Optimizer::AdamMini => OptimizerMemory {
            step: 2.0 * state * p.largest,
            step_formula: format!("2·{state}·largest tensor"),
            source: "adam-mini: a first moment, and a second one a block; not traced",
            doubt: 0.1,
            ..moments(1.0)
        },
        // The trained parameters are those of one block.
        Optimizer::Badam => OptimizerMemory {
            source: "BAdam: fp32 moments of the block that is trained; not traced",
            doubt: 0.1,
            ..adam(wide(2.0, TORCH), implementation, p, weight, 4.0)
        },
        Optimizer::Other => return None,
    })
}

/// Fused keeps one step counter a parameter on the GPU (512 bytes after rounding); foreach makes a
/// list of temporaries of the states' size; the loop does so tensor by tensor.
fn adam(
    states: OptimizerMemory,
    implementation: OptimizerImplementation,
    p: &Trained,
    weight: f64,
    state: f64,
) -> OptimizerMemory {
    match implementation {
        OptimizerImplementation::Fused => OptimizerMemory {
            state: states.state + 512.0 * p.tensors,
            formula: format!("{} + 512·tensors", states.formula),
            ..states
        },
        OptimizerImplementation::Foreach => OptimizerMemory {
            step: state.max(weight.min(state)) * p.parameters,
            step_formula: format!("{state}·P"),
            ..states
        },
        OptimizerImplementation::ForLoop | OptimizerImplementation::InBackward => OptimizerMemory {
            step: 2.0 * state * p.largest,
            step_formula: format!("2·{state}·largest tensor"),
            ..states
        },
    }
}

fn foreach_or_single(
    states: OptimizerMemory,
    implementation: OptimizerImplementation,
    each: f64,
    p: &Trained,
) -> OptimizerMemory {
    match implementation {
        OptimizerImplementation::Foreach | OptimizerImplementation::Fused => {
            OptimizerMemory { step: each * p.parameters, step_formula: format!("{each}·P"), ..states }
        }
        OptimizerImplementation::ForLoop | OptimizerImplementation::InBackward => OptimizerMemory {
            step: each * p.largest,
            step_formula: format!("{each}·largest tensor"),
            ..states
        },
    }
}

/// A projector of r rows and two moments of r columns for every matrix of the layers: about
/// `3·r·side` values where a matrix is square, taken from its rows and columns.
fn galore(optimizer: Optimizer, p: &Trained, state: f64) -> OptimizerMemory {
    let moment = if optimizer == Optimizer::Galore8bit { 1.0 + BLOCK_SCALE } else { state };
    let sides = p.rows_and_columns / 2.0;
    let rank = p.rank.unwrap_or(GALORE_RANK);
    OptimizerMemory {
        state: rank * sides * (state + 2.0 * moment) + 2.0 * moment * (p.parameters - p.matrices),
        formula: format!("r·side·(projector + 2 moments), r = {rank}"),
        step: 8.0 * p.largest,
        step_formula: "8·largest tensor (singular vectors)".into(),
        source: if optimizer == Optimizer::Apollo {
            "apollo-torch: a projector and two moments in its rank, as GaLore; not traced"
        } else {
            "galore-torch with transformers' default rank 128; not traced"
        },
        doubt: 0.25,
        ..OptimizerMemory::default()
    }
}

/// Bytes of a frozen weight in storage, with its scales, and where the figure comes from.
/// `outputs` is weights a row has, for formats with one scale a row.
pub(crate) fn quantized_bytes(quantization: Quantization) -> Option<(f64, &'static str, &'static str)> {
    Some(match quantization {
        Quantization::None => return None,
        Quantization::Nf4 => {
            (0.5 + 4.0 / 64.0, "0.5 + 4/64", "bitsandbytes nf4: one fp32 scale a block of 64")
        }
        Quantization::Nf4Double => (
            0.5 + 1.0 / 64.0 + 4.0 / (64.0 * 256.0),
            "0.5 + 1/64 + 4/(64·256)",
            "bitsandbytes nf4, scales in 8 bits with one fp32 scale a block of 256",
        ),
        Quantization::Int4 => (
            0.5 + 2.5 / 128.0,
            "0.5 + 2.5/128",
            "GPTQ and AWQ: 4-bit integers, a 16-bit scale and a 4-bit zero point per 128",
        ),
        Quantization::Nvfp4 => (0.5 + 1.0 / 16.0, "0.5 + 1/16", "NVFP4: one 8-bit scale per 16"),
        Quantization::Aqlm2 => (0.25, "0.25", "AQLM 1x16: a 16-bit code for 8 weights; codebooks apart"),
        Quantization::Int8 => (1.0, "1", "bitsandbytes LLM.int8: one fp32 scale a row"),
        Quantization::Fp8 => (1.0, "1", "8-bit floats with one fp32 scale a tensor or block"),
    })
}
