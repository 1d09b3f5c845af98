//! Low-rank adapters: where they go, how many parameters they have, and what each adapted linear
//! layer keeps beside the frozen one.

use super::expression::{Sum, Symbol, Symbols};
use super::parameters::{Inventory, Role};
use crate::catalog::{Architecture, Family};
use crate::run::{Dtype, Lora, LoraTargets, Quantization, TrainingRun};

/// Which tensor a linear layer reads: layers that read the same one can share what they keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// The norm's output before attention.
    Attention,
    /// Attention's output.
    Projection,
    /// The norm's output before the MLP.
    Mlp,
    /// The MLP's product.
    Down,
}

fn input_of(module: &str) -> Input {
    let name = module.rsplit('.').next().unwrap_or(module);
    let in_mlp =
        ["mlp", "ffn", "feed_forward", "experts", "intermediate"].iter().any(|part| module.contains(part));
    match name {
        "down_proj" | "fc2" | "dense_4h_to_h" | "fc_out" | "lin2" | "wo" => Input::Down,
        "c_proj" if in_mlp => Input::Down,
        "gate_proj" | "up_proj" | "gate_up_proj" | "fc1" | "dense_h_to_4h" | "c_fc" | "fc_in" | "lin1" => {
            Input::Mlp
        }
        "o_proj" | "out_proj" | "c_proj" | "out_lin" => Input::Projection,
        "dense" if in_mlp => Input::Mlp,
        "dense" if module.contains("attention") || module.contains("attn") => Input::Projection,
        "dense" => Input::Down,
        _ => Input::Attention,
    }
}

/// One adapted linear layer, in each of `copies` layers.
#[derive(Clone, Debug)]
struct Module {
    input: f64,
    output: f64,
    copies: f64,
    reads: Input,
}

/// The adapters of a run.
#[derive(Clone, Debug)]
pub(crate) struct Adapters {
    modules: Vec<Module>,
    rank: f64,
    layers: f64,
    /// Bytes of an adapter's weight.
    pub(crate) weight: f64,
    /// Dropout above zero.
    pub(crate) dropout: bool,
    /// The MLP's down projection is adapted.
    pub(crate) down_projection: bool,
    /// Attention's output projection is adapted.
    pub(crate) output_projection: bool,
    mode: Keeps,
    /// Parameters of modules trained in full beside the adapters.
    pub(crate) saved_modules: f64,
    /// `all-linear` on a model of experts: PEFT adapts the experts' stacked weights too.
    pub(crate) routed: bool,
    /// Magnitude vectors of weight-decomposed adapters.
    magnitudes: f64,
}

/// In what form an adapted layer keeps its input.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Keeps {
    /// Bytes of an element.
    element: f64,
    /// Each layer casts its own copy, rather than sharing the tensor it reads.
    own_copy: bool,
    /// The same for the output projection.
    own_projection: bool,
    /// Autocast keeps a 16-bit copy of fp32 adapter weights.
    cast_weights: bool,
}

impl Keeps {
    /// fp32 adapters without autocast upcast their input: a copy each. With autocast the copy has
    /// 16 bits. Adapters of the base's dtype share the tensor that the layer reads; so do those of a
    /// 4-bit base, whose output has the compute dtype, unless preparation made the stream fp32.
    fn of(run: &TrainingRun, adapter: f64) -> Keeps {
        let quantization = run.quantization.value;
        let prepared = run.prepare_kbit.value && quantization != Quantization::None;
        let int8 = quantization == Quantization::Int8;
        let autocast = run.autocast.value || int8 || prepared;
        let four_bit = matches!(quantization, Quantization::Nf4 | Quantization::Nf4Double);
        let full_base = run.weights.value == Dtype::Fp32 && quantization == Quantization::None;
        let wide = adapter >= 4.0 || full_base;
        if wide && !autocast {
            return Keeps {
                element: 4.0,
                own_copy: !full_base,
                own_projection: !full_base,
                cast_weights: false,
            };
        }
        let own = wide && (!four_bit || prepared);
        Keeps { element: 2.0, own_copy: own, own_projection: own && !four_bit, cast_weights: wide }
    }
}

impl Adapters {
    /// Where `lora` puts adapters in the model of `inventory`.
    ///
    /// Where attention and MLP run in parallel off one norm, both read the same tensor.
    pub(crate) fn of(
        run: &TrainingRun,
        lora: &Lora,
        architecture: &Architecture,
        inventory: &Inventory,
    ) -> Adapters {
        let one_norm = architecture.parallel_residual && architecture.family != Family::GptNeox;
        let wanted = |name: &str, module: &str| match &lora.targets.value {
            LoraTargets::AllLinear => true,
            LoraTargets::Modules(names) => {
                names.iter().any(|n| n == name || n == "all-linear" || module.ends_with(&format!(".{n}")))
            }
        };
        let mut modules = Vec::new();
        let mut magnitudes = 0.0;
        for (tensor, linear) in inventory.linears() {
            if !tensor.in_layer() || !wanted(tensor.module_name(), tensor.module_in_layer()) {
                continue;
            }
            magnitudes += linear.output as f64 * tensor.copies as f64;
            modules.push(Module {
                input: linear.input as f64,
                output: linear.output as f64,
                copies: tensor.copies as f64,
                reads: match input_of(tensor.module_in_layer()) {
                    Input::Mlp if one_norm => Input::Attention,
                    other => other,
                },
            });
        }
        let weight = lora.dtype.value.bytes() as f64;
        let reads = |which| modules.iter().any(|m| m.reads == which);
        Adapters {
            rank: lora.rank.value as f64,
            layers: inventory.layer_kinds().iter().map(|k| k.count).sum::<u64>().max(1) as f64,
            weight,
            dropout: lora.dropout.value > 0.0,
            down_projection: reads(Input::Down),
            output_projection: reads(Input::Projection),
            mode: Keeps::of(run, weight),
            saved_modules: saved_modules(&lora.modules_to_save.value, inventory),
            routed: architecture.moe.is_some() && lora.targets.value == LoraTargets::AllLinear,
            magnitudes: if lora.dora.value { magnitudes } else { 0.0 },
            modules,
        }
    }

    /// Adapter parameters: `Σ r·(in + out)`, and the magnitudes of DoRA.
    pub(crate) fn parameters(&self) -> f64 {
        let pairs: f64 = self.modules.iter().map(|m| m.copies * (m.input + m.output)).sum();
        self.rank * pairs + self.magnitudes
    }

    /// Adapter tensors: two a module.
    pub(crate) fn tensors(&self) -> f64 {
        2.0 * self.modules.iter().map(|m| m.copies).sum::<f64>()
    }

    /// Elements of the largest adapter tensor.
    pub(crate) fn largest(&self) -> f64 {
        self.rank * self.modules.iter().map(|m| m.input.max(m.output)).fold(0.0, f64::max)
    }

    /// Parameters in adapter tensors of fewer than 4096 elements.
    pub(crate) fn small(&self) -> f64 {
        let small = |side: f64| if self.rank * side < 4096.0 { self.rank * side } else { 0.0 };
        self.modules.iter().map(|m| m.copies * (small(m.input) + small(m.output))).sum()
    }

    /// Rows and columns of the adapter matrices.
    pub(crate) fn rows_and_columns(&self) -> f64 {
        self.modules.iter().map(|m| m.copies * (m.input + m.output + 2.0 * self.rank)).sum()
    }

    /// What the adapters of one layer keep: the inputs of A (copied or shared, masked under
    /// dropout), of B (N·r), and cast weights under autocast.
    pub(crate) fn saved(&self, symbols: &Symbols) -> Sum {
        let mut inputs = 0.0;
        let mut weights = 0.0;
        let mut read: Vec<Input> = Vec::new();
        for module in &self.modules {
            let share = module.copies / self.layers;
            let own =
                if module.reads == Input::Projection { self.mode.own_projection } else { self.mode.own_copy };
            if self.dropout {
                // The dropped input and its one-byte mask.
                inputs += share * (self.mode.element + 1.0) * module.input;
            } else if own {
                inputs += share * self.mode.element * module.input;
            } else if module.reads != Input::Projection && !read.contains(&module.reads) {
                // Attention keeps its output anyway; of the others the first pays.
                inputs += share * self.mode.element * module.input;
            }
            if self.mode.cast_weights {
                weights += share * 2.0 * (module.input + module.output);
            }
            read.push(module.reads);
        }
        let count: f64 = self.modules.iter().map(|m| m.copies / self.layers).sum();
        let hidden = symbols.get(Symbol::Hidden).max(1.0);
        Sum::term(inputs / hidden, &[Symbol::Tokens, Symbol::Hidden])
            .plus(&Sum::term(self.mode.element * count, &[Symbol::Tokens, Symbol::Rank]))
            .plus(&Sum::term(weights, &[Symbol::Rank]))
    }
}

/// LitGPT adapts q, k and v as one layer.
const MERGED: f64 = 3.0;

impl Adapters {
    /// What the adapters of one layer keep in LitGPT: the dropped input and its mask a linear layer,
    /// q, k and v counted once; where not all three are adapted, the update before it is spread
    /// over the merged output as well.
    pub(crate) fn saved_by_litgpt(&self, symbols: &Symbols) -> Sum {
        let each = if self.dropout { 3.0 } else { 2.0 };
        let (mut inputs, mut spread, mut merged, mut ranks) = (0.0, 0.0, 0.0, 0.0);
        for module in &self.modules {
            let share = module.copies / self.layers;
            ranks += share;
            if module.reads == Input::Attention && module.output < 3.0 * module.input {
                if merged == 0.0 {
                    inputs += share * each * module.input;
                }
                merged += share;
                spread += share * 2.0 * module.output;
            } else {
                inputs += share * each * module.input;
            }
        }
        let update = if merged > 0.0 && merged < MERGED { spread } else { 0.0 };
        let hidden = symbols.get(Symbol::Hidden).max(1.0);
        Sum::term((inputs + update) / hidden, &[Symbol::Tokens, Symbol::Hidden])
            .plus(&Sum::term(2.0 * ranks, &[Symbol::Tokens, Symbol::Rank]))
    }
}

/// Modules that PEFT copies and trains in full.
fn saved_modules(names: &[String], inventory: &Inventory) -> f64 {
    inventory
        .tensors()
        .iter()
        .filter(|t| names.iter().any(|n| n == t.module_name() || (n == "lm_head" && t.role == Role::Head)))
        // A tied head is copied too: the copy no longer shares the embedding.
        .map(|t| t.elements() as f64 * t.copies as f64)
        .sum()
}
