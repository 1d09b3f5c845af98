//! What is trained: the model, the method, the adapters, the task.

use super::{Dtype, Setting};

/// How a model is named; `catalog` turns it into an architecture.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelRef {
    /// A hub id or a framework's own spelling that the catalogue knows: `meta-llama/Llama-3.1-8B`.
    Id(String),
    /// A local directory or `config.json`, relative to the file or the repository root.
    Path(String),
    /// The architecture spelled out, in Hugging Face `config.json` names (`model_type` included).
    Config(serde_json::Map<String, serde_json::Value>),
    /// An id with some fields replaced.
    IdWith(String, serde_json::Map<String, serde_json::Value>),
}

/// Which parameters are trained.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// All of them.
    Full,
    /// Low-rank adapters over frozen weights.
    Lora,
    /// Low-rank adapters over quantised frozen weights.
    Qlora,
    /// The last layers only.
    Freeze,
}

/// Which linear layers get an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoraTargets {
    /// Every linear layer but the head (PEFT's `all-linear`); in models of experts whose config it
    /// converts, the routed experts too.
    AllLinear,
    /// The names of all linear modules but the head, as Axolotl and LLaMA-Factory collect them:
    /// routed experts that are one tensor a projection are none.
    LinearModules,
    /// By the last part of the module's name: `q_proj`, `v_proj`, …
    Modules(Vec<String>),
}

/// Low-rank adapters.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// The rank.
    pub rank: Setting<u64>,
    /// Where adapters go.
    pub targets: Setting<LoraTargets>,
    /// Dropout on the adapters' input; above zero it keeps masks for backward.
    pub dropout: Setting<f64>,
    /// What adapters are stored in (PEFT upcasts to fp32 by default).
    pub dtype: Setting<Dtype>,
    /// Weight-decomposed adapters.
    pub dora: Setting<bool>,
    /// Modules trained in full beside the adapters (`embed_tokens`, `lm_head`).
    pub modules_to_save: Setting<Vec<String>>,
}

/// How frozen base weights are stored.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Quantization {
    /// As they are.
    None,
    /// 4-bit normal float, one fp32 scale per 64 weights.
    Nf4,
    /// 4-bit normal float with quantised scales.
    Nf4Double,
    /// 4-bit integers, one 16-bit scale and one zero point per 128 weights (GPTQ, AWQ).
    Int4,
    /// 4-bit floats, one 8-bit scale per 16 weights.
    Nvfp4,
    /// 2 bits a weight: 16-bit codes for vectors of 8, out of a codebook a matrix (AQLM 1x16).
    Aqlm2,
    /// LLM.int8.
    Int8,
    /// 8-bit floats.
    Fp8,
}

impl Quantization {
    /// Four bits or fewer: products run on a 16-bit copy of each matrix.
    pub fn is_packed(self) -> bool {
        use Quantization::{Aqlm2, Fp8, Int4, Int8, Nf4, Nf4Double, None, Nvfp4};
        match self {
            Nf4 | Nf4Double | Int4 | Nvfp4 | Aqlm2 => true,
            None | Int8 | Fp8 => false,
        }
    }

    /// By the name of a checkpoint's format, where that says enough.
    pub fn of_format(format: &str) -> Option<Quantization> {
        Some(match format {
            "gptq" | "awq" => Quantization::Int4,
            "nvfp4" => Quantization::Nvfp4,
            "aqlm" => Quantization::Aqlm2,
            "nf4" | "fp4" => Quantization::Nf4,
            "bnb4" => Quantization::Nf4Double,
            "int8" => Quantization::Int8,
            "fp8" => Quantization::Fp8,
            _ => return None,
        })
    }
}

/// The reference model of preference training.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceModel {
    /// None, or the base under disabled adapters.
    None,
    /// A frozen second copy on the GPU.
    Resident,
}

/// What is learnt; decides how many sequences one example is and what the loss needs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Next-token prediction: pretraining and supervised fine-tuning.
    CausalLm,
    /// Chosen and rejected answers, twice the sequences (DPO, ORPO, CPO, SimPO, reward models).
    Preference,
    /// Generation between steps (PPO, GRPO): answers are scored, and learnt from by their scores.
    Rollout,
    /// Masked tokens, or a sequence classifier.
    Encoder,
}

/// Whose modelling code runs: it decides what a layer saves for backward.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ModelCode {
    /// Hugging Face transformers.
    Transformers,
    /// torchtune.
    Torchtune,
    /// torchtitan.
    Torchtitan,
    /// LitGPT.
    Litgpt,
    /// Megatron core (also NeMo, Megatron-Bridge).
    Megatron,
    /// GPT-NeoX.
    GptNeox,
    /// LLM Foundry's MPT.
    LlmFoundry,
}

impl std::fmt::Display for ModelRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ModelRef::Id(name) | ModelRef::Path(name) => f.write_str(name),
            ModelRef::IdWith(name, _) => write!(f, "{name} with changes"),
            ModelRef::Config(config) => match config.get("parameters").filter(|_| config.len() == 1) {
                Some(number) => write!(f, "a model of {} parameters", number.as_f64().unwrap_or_default()),
                None => {
                    let family = config.get("model_type").and_then(|t| t.as_str()).unwrap_or("model");
                    write!(f, "{family}, spelled out")
                }
            },
        }
    }
}

impl std::fmt::Display for LoraTargets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoraTargets::AllLinear => f.write_str("all-linear"),
            LoraTargets::LinearModules => f.write_str("every linear module"),
            LoraTargets::Modules(names) => f.write_str(&names.join(", ")),
        }
    }
}
