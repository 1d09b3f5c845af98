//! What PEFT trains when it adapts a model: the adapters and the modules saved beside them.
//!
//! Rules as in PEFT 0.21 over transformers 5.23, observed on the modules it builds:
//! - a target names modules by the end of their dotted name; `all-linear` is every `nn.Linear`
//!   and `Conv1D` except the output head;
//! - an adapter on a linear layer is A of `[rank, in]` and B of `[out, rank]`, with DoRA one more
//!   value for each output; on an embedding A is `[rank, rows]` and B `[width, rank]`;
//! - routed experts are one tensor a projection and no linear layers, so they get no adapter,
//!   except in the models whose config PEFT converts (Mixtral, Qwen3-MoE, Qwen3-Next, GLM-4.5,
//!   OLMoE, DeepSeek-V2 and V3): there the projections' old names and `all-linear` stand for the expert tensors and the
//!   router, gate and up count as one tensor of twice the rank, and a target that was converted
//!   no longer names a linear layer (dense first layers and shared experts get no adapter by it);
//! - a module to save is trained as a copy of its own, also where its weight was tied.

use super::{Inventory, Role, Tensor};
use crate::catalog::Family;
use crate::run::LoraTargets;

/// The tensors that adapter training trains.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapters {
    /// Adapters (`Role::Adapter`) and saved copies; every sum of an inventory is a sum over the
    /// trained tensors here.
    pub trained: Inventory,
    /// Targets and modules to save that name nothing in this model.
    pub unmatched: Vec<String>,
    /// What PEFT refuses about this combination, each a sentence.
    pub refused: Vec<String>,
    /// The matrices that got adapters: linear layers, and parameters that are no module's weight.
    pub sites: Vec<Site>,
}

/// A matrix with an adapter: A of `[rank, input]` and B of `[output, rank]`, in each copy of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// The matrix.
    pub base: Tensor,
    /// Rows of A; of a stack of experts, those of all of them.
    pub rank: u64,
    /// Columns of A.
    pub input: u64,
    /// Rows of B.
    pub output: u64,
}

impl Site {
    /// A linear layer, which is adapted beside its own product; of another parameter PEFT forms
    /// the adapted matrix.
    pub fn is_linear(&self) -> bool {
        self.base.linear.is_some()
    }
}

impl Adapters {
    /// Trained parameters, adapters and saved copies.
    pub fn trainable(&self) -> u64 {
        self.trained.total()
    }

    /// Parameters of the adapters alone.
    pub fn adapters(&self) -> u64 {
        self.trained
            .own()
            .filter(|t| t.role == Role::Adapter)
            .map(Tensor::parameters)
            .fold(0, u64::saturating_add)
    }

    /// Parameters of the saved modules' copies; the originals stay in memory beside them.
    pub fn saved(&self) -> u64 {
        self.trainable() - self.adapters()
    }
}

/// An expert projection's old name and what it stands for since experts are one tensor.
const CONVERTED: &[(&str, &str)] = &[
    ("gate", "gate.weight"),
    ("gate_proj", "gate_up_proj"),
    ("up_proj", "gate_up_proj"),
    ("down_proj", "down_proj"),
];

/// The same for Mixtral.
const CONVERTED_MIXTRAL: &[(&str, &str)] =
    &[("gate", "gate.weight"), ("w1", "gate_up_proj"), ("w3", "gate_up_proj"), ("w2", "down_proj")];

/// The converted names in this family.
fn converted(family: Family) -> &'static [(&'static str, &'static str)] {
    match family {
        Family::Mixtral => CONVERTED_MIXTRAL,
        Family::Qwen3Moe
        | Family::Qwen3Next
        | Family::Glm4Moe
        | Family::Olmoe
        | Family::DeepseekV2
        | Family::DeepseekV3 => CONVERTED,
        _ => &[],
    }
}

fn ends_with_part(name: &str, part: &str) -> bool {
    name == part || name.strip_suffix(part).is_some_and(|rest| rest.ends_with('.'))
}

/// The modules around a tensor, its own first: `model.layers.*.mlp.up_proj`, `model.layers.*.mlp`, …
fn modules_around(tensor: &Tensor) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(tensor.module()), |module| Some(module.rsplit_once('.')?.0))
}

/// True when `saved` names a module that holds the tensor. PEFT compares ends of names without
/// regard to dots: `norm` is also `input_layernorm`.
fn is_saved(tensor: &Tensor, saved: &str) -> bool {
    modules_around(tensor).any(|module| module.ends_with(saved))
}

/// True when a module gets no adapter because `saved` names it or one around it; here whole parts
/// of the name count.
fn is_left_to_saving(tensor: &Tensor, saved: &str) -> bool {
    modules_around(tensor).any(|module| ends_with_part(module, saved))
}

struct Collector {
    rank: u64,
    dora: bool,
    tensors: Vec<Tensor>,
    sites: Vec<Site>,
}

impl Collector {
    fn push(&mut self, base: &Tensor, suffix: &str, shape: Vec<u64>) {
        self.tensors.push(Tensor {
            name: format!("{}.{suffix}", base.module()),
            shape,
            copies: base.copies,
            place: base.place,
            role: Role::Adapter,
            linear: None,
            tied: false,
        });
    }

    fn linear(&mut self, base: &Tensor, input: u64, output: u64) {
        self.sites.push(Site { base: base.clone(), rank: self.rank, input, output });
        self.push(base, "lora_A.weight", vec![self.rank, input]);
        self.push(base, "lora_B.weight", vec![output, self.rank]);
        if self.dora {
            self.push(base, "lora_magnitude_vector.weight", vec![output]);
        }
    }

    fn embedding(&mut self, base: &Tensor, rows: u64, width: u64) {
        self.push(base, "lora_embedding_A", vec![self.rank, rows]);
        self.push(base, "lora_embedding_B", vec![width, self.rank]);
        if self.dora {
            self.push(base, "lora_magnitude_vector.weight", vec![width]);
        }
    }

    fn convolution(&mut self, base: &Tensor, output: u64, kernel: &[u64]) {
        let mut shape = vec![self.rank];
        shape.extend(kernel);
        let points = vec![1; kernel.len() - 1];
        self.push(base, "lora_A.weight", shape);
        self.push(base, "lora_B.weight", [vec![output, self.rank], points].concat());
        if self.dora {
            self.push(base, "lora_magnitude_vector.weight", vec![output]);
        }
    }

    /// A parameter that is no module's weight: every expert of a stack has `rank` of its own.
    fn parameter(&mut self, base: &Tensor, doubled: bool) {
        let (experts, rows, columns) = match base.shape.as_slice() {
            [experts, rows, columns] => (*experts, *rows, *columns),
            [rows, columns] => (1, *rows, *columns),
            _ => return,
        };
        let rank = self.rank.saturating_mul(experts).saturating_mul(if doubled { 2 } else { 1 });
        self.sites.push(Site { base: base.clone(), rank, input: columns, output: rows });
        self.push(base, "lora_A.weight", vec![rank, columns]);
        self.push(base, "lora_B.weight", vec![rows, rank]);
    }
}

/// What PEFT trains in the model of `inventory`.
pub fn adapters(
    inventory: &Inventory,
    rank: u64,
    targets: &LoraTargets,
    dora: bool,
    modules_to_save: &[String],
) -> Adapters {
    // PEFT goes by the whole model's type, which for a vision-language model is none of these.
    let table = if inventory.has_vision() { &[] } else { converted(inventory.family()) };
    let leaves;
    let targets = match targets {
        LoraTargets::LinearModules => {
            leaves = LoraTargets::Modules(linear_modules(inventory));
            &leaves
        }
        other => other,
    };
    let mut collector = Collector { rank, dora, tensors: Vec::new(), sites: Vec::new() };
    let mut unmatched = Vec::new();
    let mut refused = Vec::new();

    // The targets that still name modules, and the parameters that the others stand for.
    let mut modules: Vec<&str> = Vec::new();
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    match targets {
        LoraTargets::AllLinear => parameters.extend(table),
        LoraTargets::LinearModules => {}
        LoraTargets::Modules(names) => {
            for name in names {
                match table.iter().find(|(old, _)| ends_with_part(name, old)) {
                    Some(entry) => parameters.push(*entry),
                    None => modules.push(name),
                }
            }
        }
    }
    let fused: Vec<&str> =
        table.iter().filter(|(_, new)| *new == "gate_up_proj").map(|(old, _)| *old).collect();
    let missing: Vec<&str> =
        fused.iter().filter(|old| !parameters.iter().any(|(p, _)| p == *old)).copied().collect();
    if !missing.is_empty() && missing.len() < fused.len() {
        refused.push(format!(
            "PEFT adapts the experts' {} only together, and {} is not a target",
            fused.join(" and "),
            missing.join(" and ")
        ));
    }

    let saved = |tensor: &Tensor| modules_to_save.iter().any(|name| is_left_to_saving(tensor, name));
    let mut hit: Vec<&str> = Vec::new();
    for tensor in inventory.tensors() {
        if let Some((old, new)) =
            parameters.iter().find(|(_, new)| tensor.linear.is_none() && ends_with_part(&tensor.name, new))
        {
            hit.extend(parameters.iter().filter(|(_, n)| n == new).map(|(o, _)| *o));
            collector.parameter(tensor, fused.contains(old));
            if dora {
                refused.push(format!("PEFT has no DoRA for `{}`", tensor.name));
            }
            continue;
        }
        let named = modules.iter().find(|name| {
            tensor.role == Role::Expert
                && tensor.linear.is_none()
                && name.contains("experts.")
                && ends_with_part(&tensor.name, name)
        });
        if let Some(name) = named {
            hit.push(name);
            collector.parameter(tensor, false);
            continue;
        }
        if saved(tensor) {
            continue;
        }
        let targeted = match targets {
            // A leaf name that was converted no longer stands for linear layers.
            LoraTargets::AllLinear => {
                tensor.linear.is_some()
                    && tensor.role != Role::Head
                    && !table.iter().any(|(old, _)| *old == tensor.module_name())
            }
            LoraTargets::LinearModules | LoraTargets::Modules(_) => {
                let named = modules.iter().find(|name| ends_with_part(tensor.module(), name));
                hit.extend(named);
                named.is_some() && tensor.name.ends_with(".weight")
            }
        };
        if !targeted {
            continue;
        }
        let table_of_rows =
            matches!(tensor.role, Role::InputEmbedding | Role::PositionEmbedding | Role::TypeEmbedding);
        match (tensor.linear, tensor.shape.as_slice()) {
            (Some(linear), _) => collector.linear(tensor, linear.input, linear.output),
            (None, [rows, width]) if table_of_rows => collector.embedding(tensor, *rows, *width),
            // A convolution over patches: A is one of its shape, B one over single points.
            (None, [output, kernel @ ..]) if kernel.len() >= 3 => {
                collector.convolution(tensor, *output, kernel);
            }
            _ => {
                let module = tensor.module();
                refused.push(format!("`{module}` is no linear layer, and PEFT adapts none other"));
            }
        }
    }
    if let LoraTargets::Modules(names) = targets {
        let old_name = |name: &String| table.iter().find(|(old, _)| ends_with_part(name, old));
        unmatched.extend(
            names
                .iter()
                .filter(|name| {
                    let known = old_name(name).map_or(name.as_str(), |(old, _)| old);
                    !hit.contains(&known)
                })
                .cloned(),
        );
    }
    for name in modules_to_save {
        let before = collector.tensors.len();
        for tensor in inventory.tensors().iter().filter(|t| is_saved(t, name)) {
            let already = collector.tensors.iter().any(|t| t.name == tensor.name && t.place == tensor.place);
            if !already {
                collector.tensors.push(Tensor { tied: false, ..tensor.clone() });
            }
        }
        if collector.tensors.len() == before && !inventory.tensors().iter().any(|t| is_saved(t, name)) {
            unmatched.push(name.clone());
        }
    }
    refused.dedup();
    let trained = inventory.with_tensors(collector.tensors);
    Adapters { trained, unmatched, refused, sites: collector.sites }
}

/// The last parts of all linear modules' names, the head's left out.
fn linear_modules(inventory: &Inventory) -> Vec<String> {
    let mut names: Vec<String> = inventory.linears().map(|(t, _)| t.module_name().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What PEFT adapts when nobody says what: its own table by model type. `None`: it has no entry
/// and stops with an error.
pub fn default_targets(family: Family) -> Option<&'static [&'static str]> {
    Some(match family {
        Family::Llama
        | Family::Mistral
        | Family::Mixtral
        | Family::StableLm
        | Family::Gemma
        | Family::Gemma2
        | Family::Gemma3Text
        | Family::Qwen2
        | Family::Qwen3
        | Family::Opt
        | Family::Gptj
        | Family::GptNeo
        | Family::Bart => &["q_proj", "v_proj"],
        Family::Phi => &["q_proj", "v_proj", "fc1", "fc2"],
        Family::Gpt2 | Family::GptBigcode => &["c_attn"],
        Family::GptNeox | Family::Bloom | Family::Falcon => &["query_key_value"],
        Family::Mpt => &["Wqkv"],
        Family::T5 => &["q", "v"],
        Family::Bert | Family::Roberta => &["query", "value"],
        _ => return None,
    })
}
