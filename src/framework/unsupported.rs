//! Frameworks whose files are recognised and not read further: "recognised as verl, not supported
//! yet", so that nobody wonders why a config was passed over. One row a framework.
//!
//! Signatures ask for the *types* of values, never for names alone: a tokenizer's vocabulary holds
//! any word as a key.

use super::{Framework, Kind, Lowering, TextNumbers};
use crate::document::{Dialect, Syntax, Value};
use crate::run::TrainingRun;

/// A framework that is only recognised.
pub struct Unsupported {
    name: &'static str,
    syntaxes: &'static [Syntax],
    yaml: Dialect,
    numbers: TextNumbers,
    signature: fn(Value<'_>) -> Option<Kind>,
}

const YAML: &[Syntax] = &[Syntax::Yaml];
const TOML: &[Syntax] = &[Syntax::Toml];
const JSON: &[Syntax] = &[Syntax::Json];
const YAML_OR_JSON: &[Syntax] = &[Syntax::Yaml, Syntax::Json];

const fn row(
    name: &'static str,
    syntaxes: &'static [Syntax],
    yaml: Dialect,
    signature: fn(Value<'_>) -> Option<Kind>,
) -> Unsupported {
    Unsupported { name, syntaxes, yaml, numbers: TextNumbers::Cast, signature }
}

/// verl and what is derived from it.
pub static VERL: Unsupported = row("verl", YAML, Dialect::OmegaConf, verl);
/// EasyR1.
pub static EASYR1: Unsupported = row("easyr1", YAML, Dialect::OmegaConf, easyr1);
/// H2O LLM Studio.
pub static H2O: Unsupported = row("h2o-llmstudio", YAML, Dialect::PyYaml, h2o);
/// Unsloth's command line and studio.
pub static UNSLOTH: Unsupported = row("unsloth", YAML_OR_JSON, Dialect::PyYaml, unsloth);
/// ms-swift.
pub static MS_SWIFT: Unsupported = row("ms-swift", YAML_OR_JSON, Dialect::PyYaml, ms_swift);
/// Megatron-LM's `MODEL_ARGS` and `--yaml-cfg` files.
pub static MEGATRON_LM: Unsupported = row("megatron-lm", YAML, Dialect::PyYaml, megatron_lm);
/// NeMo Automodel.
pub static NEMO_AUTOMODEL: Unsupported = row("nemo-automodel", YAML, Dialect::OmegaConf, nemo_automodel);
/// NeMo RL.
pub static NEMO_RL: Unsupported = row("nemo-rl", YAML, Dialect::OmegaConf, nemo_rl);
/// NeMo 1 and its launcher.
pub static NEMO: Unsupported = row("nemo", YAML, Dialect::OmegaConf, nemo);
/// nanotron: PyYAML and a strict reader, so that `1e-5` stays text and the run dies.
pub static NANOTRON: Unsupported =
    Unsupported { numbers: TextNumbers::Fatal, ..row("nanotron", YAML, Dialect::PyYaml, nanotron) };
/// picotron.
pub static PICOTRON: Unsupported = row("picotron", JSON, Dialect::Json, picotron);
/// Meta lingua.
pub static LINGUA: Unsupported = row("lingua", YAML, Dialect::OmegaConf, lingua);
/// OLMo.
pub static OLMO: Unsupported = row("olmo", YAML, Dialect::OmegaConf, olmo);
/// Megatron-Bridge's overrides.
pub static MEGATRON_BRIDGE: Unsupported = row("megatron-bridge", YAML, Dialect::OmegaConf, megatron_bridge);
/// Levanter.
pub static LEVANTER: Unsupported = row("levanter", YAML, Dialect::PyYaml, levanter);
/// MaxText.
pub static MAXTEXT: Unsupported = row("maxtext", YAML, Dialect::PyYaml, maxtext);
/// OpenLM.
pub static OPEN_LM: Unsupported = row("open_lm", YAML_OR_JSON, Dialect::PyYaml, open_lm);
/// prime-rl.
pub static PRIME_RL: Unsupported = row("prime-rl", TOML, Dialect::Toml, prime_rl);

impl Framework for Unsupported {
    fn name(&self) -> &'static str {
        self.name
    }

    fn release(&self) -> &'static str {
        self.name
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        self.syntaxes
    }

    fn dialect(&self, syntax: Syntax) -> Dialect {
        match syntax {
            Syntax::Yaml => self.yaml,
            Syntax::Toml => Dialect::Toml,
            Syntax::Json => Dialect::Json,
        }
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        (self.signature)(root)
    }

    fn supported(&self) -> bool {
        false
    }

    fn text_numbers(&self) -> TextNumbers {
        self.numbers
    }

    fn lower(&self, _: &mut Lowering<'_>) -> Option<TrainingRun> {
        None
    }
}

fn mapping(value: Value<'_>, path: &str) -> bool {
    value.path(path).is_some_and(|v| v.is_mapping())
}

fn text(value: Value<'_>, path: &str) -> bool {
    value.path(path).is_some_and(|v| v.as_str().is_some())
}

/// A scalar that is no plain word: a number, an interpolation, or null.
fn number(value: Value<'_>, path: &str) -> bool {
    use crate::document::Scalar;
    value.path(path).is_some_and(|v| {
        matches!(v.scalar(), Some(Scalar::Int(_) | Scalar::Float(_) | Scalar::Interpolated(_) | Scalar::Null))
            || v.to_int().is_some()
    })
}

fn any(value: Value<'_>, paths: &[&str], test: fn(Value<'_>, &str) -> bool) -> bool {
    paths.iter().any(|path| test(value, path))
}

fn count(value: Value<'_>, paths: &[&str], test: fn(Value<'_>, &str) -> bool) -> usize {
    paths.iter().filter(|path| test(value, path)).count()
}

/// Present and a scalar or collection other than null.
fn there(value: Value<'_>, path: &str) -> bool {
    value.path(path).is_some()
}

/// Some `_target_` starts with `prefix`.
fn targets(value: Value<'_>, prefix: &str) -> bool {
    value.document().scalar_entries().any(|(key, text)| key == "_target_" && text.starts_with(prefix))
}

/// The names in a Hydra `defaults:` list: plain items and the keys of `group: name` items.
fn defaults(root: Value<'_>) -> Vec<String> {
    let Some(list) = root.get("defaults") else { return Vec::new() };
    list.items()
        .flat_map(|item| match item.as_str() {
            Some(name) => vec![name.to_owned()],
            None => item
                .fields()
                .iter()
                .flat_map(|f| [Some(f.key.to_owned()), f.value.as_str().map(str::to_owned)])
                .flatten()
                .collect(),
        })
        .collect()
}

fn verl(root: Value<'_>) -> Option<Kind> {
    if mapping(root, "actor_rollout_ref") {
        return Some(Kind::Run);
    }
    if text(root, "model.partial_pretrain") && mapping(root, "data") && mapping(root, "optim") {
        return Some(Kind::Run);
    }
    const ROOTS: [&str; 4] = ["ppo_trainer", "ppo_megatron_trainer", "sft_trainer", "hf_model"];
    const GROUPS: [&str; 5] = ["model@", "engine@", "actor@", "optim@", "override model_engine"];
    let names = defaults(root);
    let chained = names
        .iter()
        .any(|name| ROOTS.contains(&name.as_str()) || GROUPS.iter().any(|group| name.starts_with(group)));
    let typed = ["verl.workers.config", "verl.trainer.config"].iter().any(|prefix| targets(root, prefix));
    (chained || typed).then_some(Kind::Fragment)
}

fn easyr1(root: Value<'_>) -> Option<Kind> {
    (mapping(root, "worker.actor") && mapping(root, "algorithm")).then_some(Kind::Run)
}

fn h2o(root: Value<'_>) -> Option<Kind> {
    (text(root, "llm_backbone") && (mapping(root, "architecture") || text(root, "problem_type")))
        .then_some(Kind::Run)
}

fn unsloth(root: Value<'_>) -> Option<Kind> {
    let length = number(root, "training.max_seq_length");
    let adapters = mapping(root, "lora") && (length || number(root, "lora.lora_r"));
    let full = length && mapping(root, "logging");
    (mapping(root, "training") && (adapters || full)).then_some(Kind::Run)
}

fn ms_swift(root: Value<'_>) -> Option<Kind> {
    const OWN: [&str; 12] = [
        "tuner_type",
        "train_type",
        "sft_type",
        "split_dataset_ratio",
        "rlhf_type",
        "attn_impl",
        "model_author",
        "external_plugins",
        "torch_dtype",
        "target_modules",
        "lora_rank",
        "dataset_num_proc",
    ];
    const STEP: [&str; 4] = ["learning_rate", "lr", "per_device_train_batch_size", "micro_batch_size"];
    let named = any(root, &["model", "model_type", "rlhf_type"], text);
    (named && count(root, &OWN, there) >= 2 && any(root, &STEP, number)).then_some(Kind::Run)
}

fn megatron_lm(root: Value<'_>) -> Option<Kind> {
    if mapping(root, "language_model") && mapping(root, "model_parallel") {
        return Some(Kind::Run);
    }
    let arguments = root.get("MODEL_ARGS").filter(Value::is_mapping)?;
    let flags = arguments.fields();
    let flagged = flags.iter().any(|f| f.key.starts_with("--"));
    let trains = !flags.iter().any(|f| f.key.contains("inference") || f.key.contains("grpo"));
    flagged.then_some(if trains { Kind::Run } else { Kind::Other })
}

fn nemo_automodel(root: Value<'_>) -> Option<Kind> {
    const SECTIONS: [&str; 4] = ["model", "step_scheduler", "distributed", "optimizer"];
    let recipe = text(root, "recipe") && any(root, &SECTIONS, mapping);
    let targeted = any(root, &["step_scheduler", "optimizer"], mapping) && targets(root, "nemo_automodel");
    (recipe || targeted).then_some(Kind::Run)
}

fn nemo_rl(root: Value<'_>) -> Option<Kind> {
    const POLICY: [&str; 4] =
        ["policy.model_name", "policy.train_global_batch_size", "policy.megatron_cfg", "policy.dtensor_cfg"];
    const SECTIONS: [&str; 9] =
        ["policy", "cluster", "grpo", "sft", "dpo", "distillation", "checkpointing", "data_plane", "value"];
    let file = |v: Value<'_>| v.as_str().is_some_and(|name| name.ends_with(".yaml"));
    let inherits = root.get("defaults").is_some_and(|v| file(v) || v.items().any(file));
    if inherits && any(root, &SECTIONS, mapping) {
        return Some(Kind::Fragment);
    }
    (mapping(root, "policy") && any(root, &POLICY, there)).then_some(Kind::Run)
}

fn nemo(root: Value<'_>) -> Option<Kind> {
    // A search space of the launcher's auto-configurator.
    if number(root, "train_settings.model_size_in_b") && there(root, "train_settings.gpu_memory_gb") {
        return Some(Kind::Fragment);
    }
    const BATCHES: [&str; 3] =
        ["model.micro_batch_size", "model.global_batch_size", "model.tensor_model_parallel_size"];
    let trainer = any(root, &["trainer.devices", "trainer.num_nodes", "trainer.precision"], there);
    let model = any(root, &BATCHES, number);
    let trains = any(root, &["model.optim", "model.data.train_ds"], mapping);
    let serves = any(root, &["inference", "gpt_model_file", "run.huggingface_ckpt_path"], there);
    (trainer && model && trains && !serves).then_some(Kind::Run)
}

fn nanotron(root: Value<'_>) -> Option<Kind> {
    (count(root, &["parallelism.dp", "parallelism.pp", "parallelism.tp"], number) == 3
        && any(root, &["tokens.micro_batch_size", "tokens.sequence_length"], number))
    .then_some(Kind::Run)
}

fn picotron(root: Value<'_>) -> Option<Kind> {
    (any(root, &["distributed.tp_size", "distributed.dp_size"], number)
        && any(root, &["training.micro_batch_size", "training.gradient_accumulation_steps"], number))
    .then_some(Kind::Run)
}

fn lingua(root: Value<'_>) -> Option<Kind> {
    const DISTRIBUTED: [&str; 3] = [
        "distributed.fsdp_type",
        "distributed.model_dtype",
        "distributed.selective_activation_checkpointing",
    ];
    let data = any(root, &["data.seq_len", "data.batch_size", "data.root_dir", "data.sources"], there);
    (any(root, &DISTRIBUTED, there) && data && mapping(root, "model") && mapping(root, "optim"))
        .then_some(Kind::Run)
}

fn olmo(root: Value<'_>) -> Option<Kind> {
    (any(root, &["device_train_microbatch_size", "global_train_batch_size"], number)
        && any(root, &["model.d_model", "model.n_layers", "model.mlp_ratio"], number))
    .then_some(Kind::Run)
}

fn megatron_bridge(root: Value<'_>) -> Option<Kind> {
    const TRAIN: [&str; 3] = ["train.train_iters", "train.global_batch_size", "train.micro_batch_size"];
    const SECTIONS: [&str; 6] = ["model", "scheduler", "logger", "ddp", "checkpoint", "optimizer"];
    (any(root, &TRAIN, number) && any(root, &SECTIONS, mapping)).then_some(Kind::Fragment)
}

fn levanter(root: Value<'_>) -> Option<Kind> {
    let model = mapping(root, "model") || any(root, &["initialize_from_hf", "model_name_or_path"], there);
    let steps = number(root, "trainer.num_train_steps");
    let rate = root.path("optimizer.learning_rate").is_some_and(|v| v.to_float().is_some());
    // Lightning files have a `trainer` too; Levanter's has keys of its own.
    const TRAINER: [&str; 7] = [
        "trainer.mp",
        "trainer.train_batch_size",
        "trainer.num_train_steps",
        "trainer.tracker",
        "trainer.checkpointer",
        "trainer.tensor_parallel_axes",
        "trainer.per_device_parallelism",
    ];
    (mapping(root, "trainer") && any(root, &TRAINER, there) && model && (steps || rate)).then_some(Kind::Run)
}

fn maxtext(root: Value<'_>) -> Option<Kind> {
    if any(root, &["base_emb_dim", "base_num_decoder_layers"], number) {
        return Some(if there(root, "per_device_batch_size") { Kind::Run } else { Kind::Fragment });
    }
    let base = root.get("base_config").and_then(|v| v.as_str())?;
    (base.ends_with(".yml") && !base.contains("inference")).then_some(Kind::Fragment)
}

fn open_lm(root: Value<'_>) -> Option<Kind> {
    if number(root, "train-num-samples") {
        return Some(Kind::Run);
    }
    (count(root, &["hidden_dim", "n_layers", "n_heads"], number) == 3).then_some(Kind::Fragment)
}

fn prime_rl(root: Value<'_>) -> Option<Kind> {
    const SECTIONS: [&str; 4] = ["optim", "trainer", "orchestrator", "data"];
    const LOOP: [&str; 2] = ["max_async_level", "max_concurrent_runs"];
    let trainer =
        text(root, "trainer.model.name") && any(root, &["deployment", "orchestrator", "inference"], mapping);
    let own = text(root, "model.name") && (any(root, &SECTIONS, mapping) || any(root, &LOOP, number));
    (own || trainer).then_some(Kind::Run)
}
