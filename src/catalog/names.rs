//! What a model's name means: mirrors, quantised uploads, frameworks' spellings, paths.

use serde_json::{Value, json};

use super::models::{Model, by_bare_name, by_id};

/// A name that the catalogue understands.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its model.
    pub model: &'static Model,
    /// The `quantization_config` that the name implies.
    pub stored: Option<Value>,
    /// The id that it is taken for because of its name alone.
    pub taken_for: Option<&'static str>,
}

/// Accounts that re-upload others' checkpoints under the original name.
const MIRRORS: &[&str] = &[
    "unsloth",
    "nousresearch",
    "axolotl-ai-co",
    "axolotl-quants",
    "mlx-community",
    "thebloke",
    "techxgenus",
    "casperhansen",
    "hugging-quants",
    "neuralmagic",
    "redhatai",
    "ista-daslab",
    "nvidia",
    "modelscope",
    "llm-research",
    "shakechen",
    "ai-modelscope",
    "alpindale",
    "meta-llama",
    "huggyllama",
    "lmstudio-community",
    "bartowski",
    "solidrust",
    "modelcloud",
    "quantfactory",
    "mradermacher",
    "gaunernst",
    "cognitivecomputations",
    "zai-org",
    "thudm",
];

/// Endings that say how weights are stored and leave the architecture as it is, longest first.
/// GGUF files are loaded as full weights.
const STORAGE: &[(&str, Stored)] = &[
    ("-quantized.w4a16", Stored::Method("compressed-tensors", 4)),
    ("-unsloth-bnb-4bit", Stored::Nf4),
    ("-gptq-marlin", Stored::Method("gptq", 4)),
    ("-gptq-4bit", Stored::Method("gptq", 4)),
    ("-gptq-8bit", Stored::Method("gptq", 8)),
    ("-gptq-int4", Stored::Method("gptq", 4)),
    ("-gptq-int8", Stored::Method("gptq", 8)),
    ("-gptqmodel-4bit", Stored::Method("gptq", 4)),
    ("-bnb-nf4-bf16", Stored::Nf4),
    ("-aqlm-2bit-1x16", Stored::Method("aqlm", 2)),
    ("-aqlm-2bit-2x8", Stored::Method("aqlm", 2)),
    ("-awq-int4", Stored::Method("awq", 4)),
    ("-awq-4bit", Stored::Method("awq", 4)),
    ("-int4-awq", Stored::Method("awq", 4)),
    ("-hqq-4bit", Stored::Method("hqq", 4)),
    ("-fp8-dynamic", Stored::Method("fp8", 8)),
    ("-fp8-block", Stored::Method("fp8", 8)),
    ("-bnb-4bit", Stored::Nf4),
    ("-bnb-8bit", Stored::Int8),
    ("-bnb-nf4", Stored::Nf4),
    ("-dequantized", Stored::Full),
    ("-w4a16", Stored::Method("compressed-tensors", 4)),
    ("-w8a8", Stored::Method("compressed-tensors", 8)),
    ("-nvfp4", Stored::Method("nvfp4", 4)),
    ("-mxfp4", Stored::Method("mxfp4", 4)),
    ("-4bit", Stored::Nf4),
    ("-8bit", Stored::Int8),
    ("-int4", Stored::Method("gptq", 4)),
    ("-int8", Stored::Method("gptq", 8)),
    ("-gptq", Stored::Method("gptq", 4)),
    ("-gguf", Stored::Full),
    ("-bf16", Stored::Full),
    ("-fp16", Stored::Full),
    ("-awq", Stored::Method("awq", 4)),
    ("-fp8", Stored::Method("fp8", 8)),
    ("-hf", Stored::Full),
];

/// How an upload's weights are stored.
#[derive(Clone, Copy)]
enum Stored {
    /// As the original's.
    Full,
    /// bitsandbytes, four bits.
    Nf4,
    /// bitsandbytes, eight bits.
    Int8,
    /// Another `quant_method`, with its bits.
    Method(&'static str, u8),
}

impl Stored {
    fn config(self) -> Option<Value> {
        Some(match self {
            Stored::Full => return None,
            Stored::Nf4 => json!({
                "quant_method": "bitsandbytes", "load_in_4bit": true,
                "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true
            }),
            Stored::Int8 => json!({ "quant_method": "bitsandbytes", "load_in_8bit": true }),
            Stored::Method(method, bits) => json!({ "quant_method": method, "bits": bits }),
        })
    }
}

fn storage(name: &str) -> (&str, Stored) {
    STORAGE
        .iter()
        .find_map(|(ending, stored)| Some((name.strip_suffix(ending)?, *stored)))
        .unwrap_or((name, Stored::Full))
}

/// The catalogue's model for a name, and how its weights are stored where the name says.
///
/// Spellings that cannot mean another architecture are mapped. A public model's name under another
/// owner or in a local path is mapped too, and said to be an assumption in [`Named::taken_for`].
pub fn in_catalogue(name: &str) -> Option<Named> {
    let lower = name.trim().trim_end_matches('/').to_ascii_lowercase();
    let lower = default_of_variable(&lower).unwrap_or(&lower);
    exact(lower).or_else(|| likely(lower))
}

/// `${oc.env:NAME,org/model}`: what OmegaConf takes when the variable is not set.
fn default_of_variable(name: &str) -> Option<&str> {
    let (_, default) = name.strip_prefix("${oc.env:")?.strip_suffix('}')?.split_once(',')?;
    Some(default.trim())
}

fn exact(lower: &str) -> Option<Named> {
    let plain = |model| Named { model, stored: None, taken_for: None };
    if let Some(model) = by_id(lower) {
        return Some(plain(model));
    }
    if let Some(builder) = lower.strip_prefix("torchtune:") {
        let (module, builder) = builder.rsplit_once('.')?;
        let name = builder.trim_start_matches("qlora_").trim_start_matches("lora_");
        return by_id(&format!("torchtune:{module}.{name}")).map(plain);
    }
    if lower.starts_with("torchtitan:") {
        // `_flex_attn` and the like change the kernel, not a dimension.
        let name = ["_flex_attn", "_varlen_attn", "_flex", "_varlen"]
            .iter()
            .find_map(|suffix| lower.strip_suffix(suffix))?;
        return by_id(name).map(plain);
    }
    if let Some(name) = lower.strip_prefix("litgpt:") {
        return if name.contains('/') { by_id(name) } else { by_bare_name(name) }.map(plain);
    }
    // The hub's cache spells an id as a folder: `models--org--name/snapshots/…`.
    if let Some((_, folder)) = lower.split_once("models--") {
        let folder = folder.split('/').next()?;
        let id = folder.replacen("--", "/", 1);
        return mirrored(&id);
    }
    // LitGPT keeps weights in `checkpoints/org/name`.
    if let Some((_, rest)) = lower.rsplit_once("checkpoints/")
        && rest.split('/').count() == 2
        && let Some(found) = exact(rest)
    {
        return Some(found);
    }
    mirrored(lower)
}

/// The id itself, less how its weights are stored, or the same name under its first owner.
fn mirrored(id: &str) -> Option<Named> {
    let (stem, stored) = storage(id);
    let model = by_id(id).map(|model| (model, Stored::Full)).or_else(|| {
        let (owner, bare) = stem.split_once('/')?;
        let same = || MIRRORS.contains(&owner).then(|| by_bare_name(bare)).flatten();
        Some((by_id(stem).or_else(same)?, stored))
    });
    model.map(|(model, stored)| Named { model, stored: stored.config(), taken_for: None })
}

/// Last parts of a path that say nothing of the model in it.
fn says_nothing(part: &str) -> bool {
    const NAMES: &[&str] = &[
        "",
        "final",
        "last",
        "latest",
        "best",
        "merged",
        "model",
        "models",
        "hf",
        "base",
        "weights",
        "snapshots",
        "main",
        "checkpoint",
        "output",
        "outputs",
    ];
    let counted = |prefix: &str| {
        part.strip_prefix(prefix).is_some_and(|rest| {
            let digits = rest.trim_start_matches(['-', '_']);
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let hash = part.len() >= 32 && part.bytes().all(|b| b.is_ascii_hexdigit());
    NAMES.contains(&part)
        || hash
        || ["checkpoint", "epoch", "step", "iter", "global_step"].iter().any(|p| counted(p))
}

/// Words that a training run adds to the name of the model it started from. What follows them may
/// be versions, dates and counts. Words of another build (`vision`, `moe`, `pruned`, …) are none.
const TRAINED: &[&str] = &[
    "sft",
    "dpo",
    "orpo",
    "kto",
    "ppo",
    "grpo",
    "gspo",
    "cpo",
    "ipo",
    "rlhf",
    "rlaif",
    "rlvr",
    "simpo",
    "rloo",
    "reinforce",
    "instruct",
    "instruction",
    "chat",
    "it",
    "base",
    "hf",
    "ft",
    "tuned",
    "finetune",
    "finetuned",
    "full",
    "align",
    "aligned",
    "alignment",
    "magpie",
    "reward",
    "rm",
    "preference",
    "reasoning",
    "reasoner",
    "thinking",
    "think",
    "cot",
    "math",
    "code",
    "function",
    "tool",
    "tools",
    "calling",
    "agent",
    "uncensored",
    "abliterated",
    "zero",
    "distill",
    "distilled",
    "r1",
    "alpaca",
    "ultrachat",
    "ultrafeedback",
    "hermes",
    "dolphin",
    "orca",
    "tulu",
    "zh",
    "en",
    "chinese",
    "english",
    "japanese",
    "korean",
    "german",
    "french",
    "italian",
    "spanish",
    "multilingual",
    "preview",
    "checkpoint",
    "ckpt",
    "step",
    "steps",
    "epoch",
    "epochs",
    "seed",
    "run",
    "exp",
    "test",
    "demo",
    "custom",
    "final",
    "latest",
    "longcontext",
    "iter",
    "lr",
    "safe",
    "merged",
    "qlora",
    "stage",
    "stage1",
    "stage2",
    "warmup",
    "cold",
    "start",
    "mixture",
    "mix",
    "data",
];

/// A version, a date, a count: `v0.2`, `2507`, `10k`, `ep1`, `300steps`.
fn is_count(token: &str) -> bool {
    let core = token.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let digits = core.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (before, after) = (&token[..token.len() - core.len()], &core[digits.len()..]);
    !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && ["", "v", "ep", "epoch", "step", "iter", "ckpt", "seed", "r"].contains(&before)
        && ["", "k", "ep", "epochs", "steps"].contains(&after)
}

/// A public model's name where only the owner is another, or a path ends in it, or training words
/// follow it.
fn likely(lower: &str) -> Option<Named> {
    if lower.contains([':', '{', '$']) && !lower.contains('/') {
        return None;
    }
    let part = lower.split(['/', '\\']).rev().find(|part| !says_nothing(part))?;
    let (stem, stored) = storage(part);
    let whole = by_bare_name(part).map(|model| (model, Stored::Full));
    let (model, stored) =
        whole.or_else(|| Some((by_bare_name(stem).or_else(|| trained_from(stem))?, stored)))?;
    // `gpt2`, `model` and `llama` may be anything; `phi-2` and `llama-3.1-8b` are hardly.
    let telling = part.contains(['-', '_']) && part.bytes().any(|b| b.is_ascii_digit());
    if !telling {
        return None;
    }
    Some(Named { model, stored: stored.config(), taken_for: Some(model.id) })
}

/// The longest public name that `name` starts with, when nothing but training words follow.
fn trained_from(name: &str) -> Option<&'static Model> {
    let cuts: Vec<usize> =
        name.char_indices().filter(|(_, c)| matches!(c, '-' | '_')).map(|(at, _)| at).collect();
    cuts.iter().rev().take(12).find_map(|&cut| {
        let (base, rest) = name.split_at_checked(cut)?;
        let mut words = rest.split(['-', '_']).filter(|word| !word.is_empty()).peekable();
        let first_is_trained = words.peek().is_some_and(|word| TRAINED.contains(word));
        (first_is_trained && words.all(|word| TRAINED.contains(&word) || is_count(word)))
            .then(|| by_bare_name(base).or_else(|| by_bare_name(storage(base).0)))
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_from_sizes_and_words() {
        for count in ["v0.2", "2507", "10k", "ep1", "300steps", "1"] {
            assert!(is_count(count), "{count}");
        }
        for other in ["7b", "sft", "", "x8", "v", "70B", "1e5"] {
            assert!(!is_count(other), "{other}");
        }
    }
}
