//! Low-rank adapters: where they go, how many parameters they have, and what each adapted linear
//! layer keeps beside the frozen one.

use super::expression::{Sum, Symbol, Symbols};
use super::parameters::lora::{self, Site};
use super::parameters::{Inventory, Place, Role, Tensor};
use super::shape::Shape;
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
    /// Latent attention: the norm's output after the queries' compression.
    LatentQuery,
    /// The same of keys and values.
    LatentKeyValue,
    /// What a state space projects.
    Mixer,
    /// What its short convolution gave.
    Convolved,
    /// What a low-rank gate or step size is made of.
    LowRank,
}

fn input_of(module: &str) -> Input {
    let name = module.rsplit('.').next().unwrap_or(module);
    let in_mlp =
        ["mlp", "ffn", "feed_forward", "experts", "intermediate"].iter().any(|part| module.contains(part));
    match name {
        "down_proj" | "fc2" | "dense_4h_to_h" | "fc_out" | "lin2" | "wo" => Input::Down,
        "w2" | "output_linear" => Input::Down,
        "c_proj" if in_mlp => Input::Down,
        "w1" | "w3" | "input_linear" => Input::Mlp,
        "in_proj" => Input::Mixer,
        "x_proj" => Input::Convolved,
        "dt_proj" | "f_b_proj" | "g_b_proj" => Input::LowRank,
        "q_b_proj" => Input::LatentQuery,
        "kv_b_proj" => Input::LatentKeyValue,
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

/// Where attention and MLP run in parallel off one norm, both read the same tensor.
fn reads(module: &str, architecture: &Architecture) -> Input {
    let one_norm = architecture.parallel_residual && architecture.family != Family::GptNeox;
    match input_of(module) {
        Input::Mlp if one_norm => Input::Attention,
        other => other,
    }
}

/// One adapted linear layer, in each of `copies` layers.
#[derive(Clone, Debug)]
struct Module {
    /// The adapted tensor's.
    name: String,
    rank: f64,
    input: f64,
    output: f64,
    copies: f64,
    reads: Input,
    /// In which layers.
    place: Place,
}

/// The adapters of a run.
#[derive(Clone, Debug)]
pub(crate) struct Adapters {
    /// Adapted linear layers.
    modules: Vec<Module>,
    /// Everything that is adapted.
    matrices: Vec<Module>,
    parameters: f64,
    /// Block size of orthogonal adapters (OFT), which have no rank.
    block: Option<f64>,
    layers: f64,
    /// Bytes of an adapter's weight.
    pub(crate) weight: f64,
    /// Weight-decomposed.
    dora: bool,
    /// Dropout above zero.
    pub(crate) dropout: bool,
    /// The MLP's down projection is adapted.
    pub(crate) down_projection: bool,
    /// Attention's output projection is adapted.
    pub(crate) output_projection: bool,
    mode: Keeps,
    /// Parameters of modules trained in full beside the adapters.
    pub(crate) saved_modules: f64,
    /// Bytes of one of those parameters.
    pub(crate) saved_weight: f64,
    /// Parameters that are no module's weight.
    pub(crate) formed: Option<Formed>,
}

/// Adapted parameters that are no module's weight (stacked experts, their router): PEFT forms
/// W + B·A before the layer runs, and autograd keeps the sum.
#[derive(Clone, Debug)]
pub(crate) struct Formed {
    /// Elements of the formed matrices, of all layers.
    elements: f64,
    /// Those of the down projections.
    down: f64,
    /// Which inputs are kept for the gradients of the formed matrices.
    up_adapted: bool,
    router_adapted: bool,
    /// Elements of the adapters.
    adapters: f64,
}

impl Formed {
    fn of(sites: &[&Site]) -> Option<Formed> {
        let elements = |site: &&&Site| site.base.parameters() as f64;
        let down = |site: &&&Site| site.base.name.ends_with("down_proj");
        let router = |site: &&Site| site.base.role == Role::Router;
        (!sites.is_empty()).then(|| Formed {
            elements: sites.iter().map(|s| elements(&s)).sum(),
            down: sites.iter().filter(down).map(|s| elements(&s)).sum(),
            up_adapted: sites.iter().any(|s| !down(&s) && !router(s)),
            router_adapted: sites.iter().any(router),
            adapters: sites.iter().map(|s| (s.rank * (s.input + s.output) * s.base.copies) as f64).sum(),
        })
    }
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
    /// The layer under the adapter keeps the tensor itself: LLM.int8 does.
    base_keeps: bool,
    /// Autocast keeps a 16-bit copy of fp32 adapter weights.
    cast_weights: bool,
}

impl Keeps {
    /// fp32 adapters without autocast upcast their input: a copy each. With autocast the copy has
    /// 16 bits. Adapters of the base's dtype share the tensor that the layer reads; so do those of a
    /// 4-bit base, whose output has the compute dtype, unless preparation made the stream fp32.
    fn of(run: &TrainingRun, adapter: f64) -> Keeps {
        let quantization = run.quantization.value;
        let prepared = run.quantised_beside_fp32();
        let int8 = quantization == Quantization::Int8;
        let autocast = run.autocast.value || int8 || prepared;
        let four_bit = quantization.is_packed();
        let full_base = run.layers_read_fp32() && quantization == Quantization::None;
        let wide = adapter >= 4.0 && !gathered_in_half(run) || full_base;
        if wide && !autocast {
            return Keeps {
                element: 4.0,
                own_copy: !full_base,
                own_projection: !full_base,
                base_keeps: false,
                cast_weights: false,
            };
        }
        // Over a quantised base PEFT casts no input under autocast (`tuners/lora/bnb.py`).
        let own = wide && !(four_bit || int8) || wide && prepared;
        Keeps {
            element: 2.0,
            own_copy: own,
            own_projection: own && !four_bit,
            base_keeps: int8 && !own,
            cast_weights: wide,
        }
    }
}

/// Adapters and base are fp32 shards of one policy, and both are gathered in 16 bits: PyTorch's
/// `MixedPrecisionPolicy.param_dtype` casts every parameter of a group.
pub(crate) fn gathered_in_half(run: &TrainingRun) -> bool {
    run.weights.value == Dtype::Fp32
        && run.quantization.value == Quantization::None
        && !run.layers_read_fp32()
}

/// PEFT copies a module in `modules_to_save` as it is, and casts adapters alone to fp32 (0.21,
/// `cast_adapter_dtype` goes through `BaseTunerLayer`s, which `ModulesToSaveWrapper` is none of);
/// some trainers cast everything that is trained.
fn saved_weight(run: &TrainingRun, adapter: f64) -> f64 {
    if run.beside.trained_like_adapters {
        adapter
    } else if run.prepare_kbit.value || run.quantised_beside_fp32() {
        4.0
    } else {
        run.weights.value.bytes() as f64
    }
}

impl Adapters {
    /// What `lora` adds to the model of `inventory`, as PEFT would.
    pub(crate) fn of(
        run: &TrainingRun,
        lora: &Lora,
        architecture: &Architecture,
        inventory: &Inventory,
    ) -> Adapters {
        let peft = lora::adapters(
            inventory,
            lora.rank.value,
            &lora.targets.value,
            lora.dora.value,
            &lora.modules_to_save.value,
        );
        let module = |site: &Site| Module {
            name: site.base.name.clone(),
            rank: site.rank as f64,
            input: site.input as f64,
            output: site.output as f64,
            copies: site.base.copies as f64,
            place: site.base.place,
            reads: reads(site.base.module_in_layer(), architecture),
        };
        let (linear, mut formed): (Vec<&Site>, Vec<&Site>) = peft.sites.iter().partition(|s| s.is_linear());
        let block = run.beside.orthogonal_block.as_ref().map(|block| block.value.max(1) as f64);
        if block.is_some() || run.beside.experts_on_host.as_ref().is_some_and(|on| on.value) {
            formed.clear();
        }
        let modules: Vec<Module> = linear.iter().filter(|s| s.base.in_layer()).map(|s| module(s)).collect();
        let weight = lora.dtype.value.bytes() as f64;
        let read = |which| modules.iter().any(|m| m.reads == which);
        Adapters {
            matrices: peft.sites.iter().map(module).collect(),
            layers: inventory.layer_kinds().iter().map(|k| k.count).sum::<u64>().max(1) as f64,
            weight,
            dora: lora.dora.value,
            dropout: lora.dropout.value > 0.0,
            down_projection: read(Input::Down),
            output_projection: read(Input::Projection),
            mode: Keeps::of(run, weight),
            parameters: match block {
                Some(block) => modules.iter().map(|m| m.copies * triangle(m.input, block)).sum(),
                None => peft.adapters() as f64,
            },
            block,
            saved_modules: peft.saved() as f64,
            saved_weight: saved_weight(run, weight),
            formed: Formed::of(&formed),
            modules,
        }
    }

    /// Adapter parameters: `Σ r·(in + out)`, and the magnitudes of DoRA. An orthogonal adapter has
    /// the upper triangle of one block for each `block` inputs: `Σ in·(block − 1)/2`.
    pub(crate) fn parameters(&self) -> f64 {
        self.parameters
    }

    /// Weight-decomposed (DoRA)?
    pub(crate) fn decomposed(&self) -> bool {
        self.dora
    }

    /// Adapter tensors: two a module.
    pub(crate) fn tensors(&self) -> f64 {
        let each = if self.block.is_some() { 1.0 } else { 2.0 };
        each * self.matrices.iter().map(|m| m.copies).sum::<f64>()
    }

    /// Elements of the largest adapter tensor.
    pub(crate) fn largest(&self) -> f64 {
        if let Some(block) = self.block {
            return self.modules.iter().map(|m| triangle(m.input, block)).fold(0.0, f64::max);
        }
        self.matrices.iter().map(|m| m.rank * m.input.max(m.output)).fold(0.0, f64::max)
    }

    /// Parameters in adapter tensors of fewer than 4096 elements.
    pub(crate) fn small(&self) -> f64 {
        let small = |elements: f64| if elements < 4096.0 { elements } else { 0.0 };
        if let Some(block) = self.block {
            return self.modules.iter().map(|m| m.copies * small(triangle(m.input, block))).sum();
        }
        self.matrices.iter().map(|m| m.copies * (small(m.rank * m.input) + small(m.rank * m.output))).sum()
    }

    /// Rows and columns of the adapter matrices.
    pub(crate) fn rows_and_columns(&self) -> f64 {
        self.matrices.iter().map(|m| m.copies * (m.input + m.output + 2.0 * m.rank)).sum()
    }

    /// Elements of A and of B of a tensor that is adapted.
    pub(crate) fn pair(&self, tensor: &Tensor) -> Option<[f64; 2]> {
        let module = self.modules.iter().find(|module| module.name == tensor.name)?;
        Some([module.rank * module.input, module.rank * module.output])
    }

    /// What frozen linear layers keep under DeepSpeed's stage 3: its stand-in for `F.linear` saves the
    /// input whatever is trained (`LinearFunctionForZeroStage3`, `runtime/zero/linear.py`). Attention
    /// keeps its output anyway, and so do adapters the tensor that they share with their layer.
    pub(crate) fn frozen_inputs(&self, shape: &Shape<'_>) -> Sum {
        let mut seen: Vec<(Input, Place)> = Vec::new();
        if !self.mode.own_copy && !self.dropout {
            seen.extend(self.modules.iter().map(|module| (module.reads, module.place)));
        }
        let mut inputs = 0.0;
        for (tensor, linear) in shape.inventory.linears().filter(|(tensor, _)| tensor.in_layer()) {
            let key = (reads(tensor.module_in_layer(), shape.architecture), tensor.place);
            if key.0 != Input::Projection && !seen.contains(&key) {
                inputs += 2.0 * linear.input as f64 * tensor.copies as f64 / self.layers;
                seen.push(key);
            }
        }
        let hidden = shape.symbols.get(Symbol::Hidden).max(1.0);
        Sum::term(inputs / hidden, &[Symbol::Tokens, Symbol::Hidden])
    }

    /// What the orthogonal adapters of one layer keep: each its own copy of the input, and the
    /// powers of the skew matrices that the Cayley series is made of (PEFT's `_cayley_batch`: five
    /// terms, cast anew for each product, and the rotation itself, 2 bytes each).
    fn saved_orthogonal(&self, block: f64, symbols: &Symbols) -> Sum {
        let share = |m: &Module| m.copies / self.layers;
        let inputs: f64 = self.modules.iter().map(|m| share(m) * m.input).sum();
        let hidden = symbols.get(Symbol::Hidden).max(1.0);
        Sum::term(self.mode.element * inputs / hidden, &[Symbol::Tokens, Symbol::Hidden])
            .plus(&Sum::term(16.0 * inputs * block / hidden, &[Symbol::Hidden]))
    }

    /// What the adapters of one layer keep: the inputs of A (copied or shared, masked under
    /// dropout), of B (N·r), and cast weights under autocast.
    pub(crate) fn saved(&self, symbols: &Symbols) -> Sum {
        if let Some(block) = self.block {
            return self.saved_orthogonal(block, symbols);
        }
        let mut inputs = 0.0;
        let mut weights = 0.0;
        let mut read: Vec<(Input, Place)> = Vec::new();
        for module in &self.modules {
            let share = module.copies / self.layers;
            let own =
                if module.reads == Input::Projection { self.mode.own_projection } else { self.mode.own_copy };
            if self.dropout {
                // The dropped input and its one-byte mask.
                inputs += share * (self.mode.element + 1.0) * module.input;
            } else if own {
                inputs += share * self.mode.element * module.input;
            } else if self.mode.base_keeps {
                // Nothing of the adapter's own.
            } else if module.reads != Input::Projection && !read.contains(&(module.reads, module.place)) {
                // Attention keeps its output anyway; of the others the first pays.
                inputs += share * self.mode.element * module.input;
            }
            if self.dora {
                // DoRA scales the layer's and the adapter's output: a product keeps its factors
                // (peft `tuners/lora/dora.py`).
                inputs += share * 2.0 * self.mode.element * module.output;
            }
            if self.mode.cast_weights {
                weights += share * 2.0 * (module.input + module.output);
            }
            read.push((module.reads, module.place));
        }
        let count: f64 = self.modules.iter().map(|m| m.copies / self.layers).sum();
        let hidden = symbols.get(Symbol::Hidden).max(1.0);
        Sum::term(inputs / hidden, &[Symbol::Tokens, Symbol::Hidden])
            .plus(&Sum::term(self.mode.element * count, &[Symbol::Tokens, Symbol::Rank]))
            .plus(&Sum::term(weights, &[Symbol::Rank]))
    }
}

/// So many bytes of one layer's stacked experts, as a multiple of `E·d·fe`.
pub(crate) fn stack_of_experts(bytes: f64, symbols: &Symbols) -> Sum {
    let experts = [Symbol::Experts, Symbol::Hidden, Symbol::Expert];
    let stack = experts.iter().map(|s| symbols.get(*s)).product::<f64>().max(1.0);
    Sum::term(bytes / stack, &experts)
}

impl Adapters {
    /// What one layer keeps for its formed matrices, and what its backward adds at the experts'
    /// point: the gradient of the down projections' W + B·A and the experts' inner gradient. Traced
    /// with PEFT 0.21 on Mixtral and Qwen3-MoE.
    pub(crate) fn formed(&self, symbols: &Symbols) -> Option<(Sum, Sum)> {
        let formed = self.formed.as_ref()?;
        let e = self.mode.element;
        let matrices = |elements: f64| stack_of_experts(e * elements / self.layers, symbols);
        let routed = |width| Sum::term(e, &[Symbol::Tokens, Symbol::TopK, width]);
        let mut kept = matrices(formed.elements);
        if formed.up_adapted {
            kept = kept.plus(&routed(Symbol::Hidden));
        }
        if formed.down > 0.0 {
            kept = kept.plus(&routed(Symbol::Expert));
        }
        if formed.router_adapted {
            kept = kept.plus(&Sum::term(e, &[Symbol::Tokens, Symbol::Hidden]));
        }
        if self.mode.cast_weights {
            kept = kept.plus(&Sum::term(2.0 * formed.adapters / self.layers, &[]));
        }
        Some((kept, matrices(formed.down).plus(&routed(Symbol::Expert))))
    }
}

/// Values of one orthogonal adapter.
fn triangle(input: f64, block: f64) -> f64 {
    input * (block - 1.0) / 2.0
}

/// LitGPT adapts q, k and v as one layer.
const MERGED: f64 = 3.0;

impl Adapters {
    /// What the adapters of one layer keep in LitGPT: the dropped input and its mask a linear layer,
    /// the merged q, k and v counted once; where not all three are adapted, the update before it is
    /// spread over the merged output as well. `element` is bytes of an activation.
    pub(crate) fn saved_by_litgpt(&self, lora: &Lora, element: f64, symbols: &Symbols) -> Sum {
        let each = element + if self.dropout { 1.0 } else { 0.0 };
        let adapted = |name: &str| match &lora.targets.value {
            LoraTargets::Modules(names) => names.iter().any(|n| n == name),
            _ => true,
        };
        let parts = [("q_proj", Symbol::Query), ("k_proj", Symbol::Key), ("v_proj", Symbol::Key)];
        let merged: Vec<Symbol> = parts.iter().filter(|(n, _)| adapted(n)).map(|(_, s)| *s).collect();
        let mut kept = Sum::default();
        if !merged.is_empty() {
            kept = kept.plus(&Sum::term(each, &[Symbol::Tokens, Symbol::Hidden]));
        }
        if (merged.len() as f64) < MERGED {
            for part in &merged {
                kept = kept.plus(&Sum::term(element, &[Symbol::Tokens, *part]));
            }
        }
        let (mut inputs, mut ranks) = (0.0, merged.len() as f64);
        for module in self.modules.iter().filter(|m| m.reads != Input::Attention) {
            let share = module.copies / self.layers;
            ranks += share;
            inputs += share * each * module.input;
        }
        let hidden = symbols.get(Symbol::Hidden).max(1.0);
        kept.plus(&Sum::term(inputs / hidden, &[Symbol::Tokens, Symbol::Hidden]))
            .plus(&Sum::term(element * ranks, &[Symbol::Tokens, Symbol::Rank]))
    }
}
