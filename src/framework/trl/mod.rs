//! TRL's trainers and the scripts around them: the `trl` command, alignment-handbook, open-r1,
//! and any script that reads a flat file with `HfArgumentParser` into `TrainingArguments`.
//!
//! Facts: TRL 0.7.11 to 1.16 `trainer/*_config.py`, `trainer/*_trainer.py`, read release by
//! release; transformers 5.23 `training_args.py`.

mod release;

use super::baseline::{count, first, plain};
use super::training_arguments::{self as hf, Defaults, flag, names, text};
use super::{Framework, Kind, Lowering, UnknownKeys, accelerate, rollout};
use crate::change::{Change, RANK, Step, set};
use crate::document::{Dialect, Syntax, Value};
use crate::run::{
    Attention, Batching, DataParallel, Dtype, Lora, LoraTargets, Loss, Method, ModelCode, Quantization,
    ReferenceModel, SEQUENCE_LENGTH, Setting, Task, TrainingRun,
};
use release::Release;

/// TRL's own files, or those of scripts over the Trainer that have none of its keys.
pub struct Trl {
    scripts: bool,
}

/// Files with keys that only TRL has.
pub const TRL: Trl = Trl { scripts: false };

/// Any other flat file with a model and `TrainingArguments`. Two entries under one name, because
/// what such a script knows beside `TrainingArguments` is not known.
pub const SCRIPTS: Trl = Trl { scripts: true };

/// Keys that say which of TRL's trainers reads the file.
const ROLLOUT: &[&str] = &["num_generations", "max_completion_length", "reward_funcs"];

/// Keys that only the PPO trainer has.
const PPO: &[&str] = &["num_ppo_epochs", "response_length", "local_rollout_forward_batch_size"];

/// Names of the sequence length, TRL's own first.
const LENGTHS: &[&str] = &[
    "max_length",
    "max_seq_length",
    "max_seq_len",
    "model_max_length",
    "cutoff_len",
    "block_size",
    "max_source_length",
];

impl Framework for Trl {
    fn name(&self) -> &'static str {
        "trl"
    }

    fn release(&self) -> &'static str {
        release::NEWEST
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml, Syntax::Json]
    }

    fn dialect(&self, syntax: Syntax) -> Dialect {
        hf::dialect(syntax)
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        root.get("model_name_or_path")?;
        (hf::names_in(root) >= 2 && release::is_trl(root) != self.scripts).then_some(Kind::Run)
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(if self.scripts {
            include_str!("../../../schemas/hf-trainer.schema.json")
        } else {
            include_str!("../../../schemas/trl.schema.json")
        })
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Lookalikes
    }

    /// The argument parser converts text, and nothing else.
    fn checks_types(&self) -> bool {
        false
    }

    fn steps(&self, change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
        // A script of its own may have other names for adapters; TRL's `ModelConfig` has these.
        let switch = if root.get("use_lora").is_some() { "use_lora" } else { "use_peft" };
        match change {
            Change::Lora => set([
                (switch, true.into()),
                ("lora_r", RANK.into()),
                ("lora_target_modules", "all-linear".into()),
            ]),
            Change::Qlora if !hf::may_quantise(run) => None,
            Change::Qlora if run.lora.is_some() => set([("load_in_4bit", true.into())]),
            Change::Qlora => set([
                (switch, true.into()),
                ("lora_r", RANK.into()),
                ("lora_target_modules", "all-linear".into()),
                ("load_in_4bit", true.into()),
            ]),
            // A rollout's length is a prompt's and a completion's.
            Change::SequenceLength(_) if run.task.value == Task::Rollout => None,
            Change::SequenceLength(length) => {
                let key = LENGTHS.iter().find(|key| root.get(key).is_some()).unwrap_or(&"max_length");
                set([(*key, length.into())])
            }
            Change::Shard(DataParallel::Fsdp) if root.get("deepspeed").is_none() => {
                set([("fsdp", "full_shard auto_wrap".into())])
            }
            Change::Shard(stage) => hf::shard(stage, root),
            _ => hf::steps(change, run, root),
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let release = Release::of(cx);
        let model = hf::model(cx, "model_name_or_path")?;
        let task = trainer(cx);
        let length = sequence_length(cx, &release, task.value);
        let by = release.by.as_str();
        let micro = hf::micro_batch(cx, by);
        let mut run = plain(by, model, ModelCode::Transformers, micro, length);
        let defaults = Defaults {
            by,
            checkpointing: release.trl && release.at_least(0, 22),
            bf16: release.trl && release.at_least(0, 19),
            fsdp_version: if release.fsdp2 { 2 } else { 1 },
        };
        hf::lower(cx, &mut run, defaults);
        method(cx, &mut run, &release, defaults);
        run.attention = attention(cx, by);
        batching(cx, &mut run, &release, task.value);
        loss(cx, &mut run, &release, task.value);
        dropout(cx, &mut run, &release, task.value);
        reference(cx, &mut run, &release, task.value);
        let rollout = task.value == Trainer::Rollout;
        run.task = task.map(Trainer::task);
        if rollout {
            rollout::lower(cx, &mut run, release.rollout());
        }
        distribution(cx, &mut run, defaults);
        Some(run)
    }
}

/// Which trainer a file is for. TRL files do not say: their keys do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trainer {
    Sft,
    Dpo,
    Kto,
    Orpo,
    Reward,
    Rollout,
}

impl Trainer {
    fn task(self) -> Task {
        match self {
            Trainer::Sft | Trainer::Kto => Task::CausalLm,
            Trainer::Dpo | Trainer::Orpo | Trainer::Reward => Task::Preference,
            Trainer::Rollout => Task::Rollout,
        }
    }
}

fn trainer(cx: &mut Lowering<'_>) -> Setting<Trainer> {
    let root = cx.root;
    let has = |keys: &[&'static str]| keys.iter().find_map(|key| root.get(key));
    let keyed = |value: Value<'_>, trainer: Trainer| {
        Setting::written(trainer, crate::source::Location::primary(value.key_span()))
    };
    if let Some(value) = has(PPO) {
        let setting = keyed(value, Trainer::Rollout);
        cx.missing(
            "task",
            "PPO keeps a policy, a reference, a value and a reward model, which this file does not all name",
            setting.origin.location(),
        );
        return setting;
    }
    if let Some(value) = has(ROLLOUT) {
        return keyed(value, Trainer::Rollout);
    }
    if let Some(value) = has(&["desirable_weight", "undesirable_weight"]) {
        return keyed(value, Trainer::Kto);
    }
    if let Some(value) = has(&["center_rewards_coefficient"]) {
        return keyed(value, Trainer::Reward);
    }
    if let Some(value) = has(&["gamma_beta_ratio", "simpo_gamma", "cpo_alpha"]) {
        return keyed(value, Trainer::Orpo);
    }
    // ORPO's configuration is DPO's, letter for letter; people name their runs after it.
    let named = |part: &str| {
        ["run_name", "output_dir", "hub_model_id", "dataset_name"]
            .iter()
            .filter_map(|key| root.get(key).and_then(text))
            .any(|name| name.to_ascii_lowercase().contains(part))
    };
    let preference = if named("orpo") { Trainer::Orpo } else { Trainer::Dpo };
    if let Some(value) = has(&["beta", "max_prompt_length", "precompute_ref_log_probs", "sync_ref_model"]) {
        return keyed(value, preference);
    }
    if let Some(value) = has(&["loss_type"]).filter(|value| names_a_preference_loss(*value)) {
        return keyed(value, preference);
    }
    if named("dpo") || named("orpo") {
        return Setting::assumed(preference, "the run or its dataset is named after it");
    }
    Setting::assumed(Trainer::Sft, "no key of another trainer is there")
}

/// Whether `loss_type` holds a loss that `DPOConfig` has and `SFTConfig` has not (TRL 1.16).
fn names_a_preference_loss(value: Value<'_>) -> bool {
    const LOSSES: &[&str] = &[
        "sigmoid",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_pair",
        "aot_unpaired",
        "discopop",
        "apo_zero",
        "apo_down",
        "sigmoid_norm",
    ];
    text(value).is_some_and(|name| LOSSES.contains(&name.as_str()))
}

fn sequence_length(cx: &mut Lowering<'_>, release: &Release, trainer: Trainer) -> Setting<u64> {
    if trainer == Trainer::Rollout {
        return rollout_length(cx, release);
    }
    if let Some(length) = first(cx, LENGTHS, count) {
        return length;
    }
    let unlimited = cx.root.get("max_length").filter(|value| release.trl && value.is_null());
    if let Some(value) = unlimited {
        if let Some(assumed) = cx.assumed_sequence_length.clone() {
            return assumed;
        }
        let why = "`max_length: null` cuts nothing: the longest row of the data decides; set it, or \
                   `[assume] sequence-length` in llmlint.toml, to the longest you expect";
        cx.missing(SEQUENCE_LENGTH, why, Some(super::lowering::here(value)));
        return Setting::assumed(1024, "no limit is set");
    }
    if release.trl {
        // 512 in DPO's trainer until 0.12, which warned of it; 1024 everywhere since.
        let early = trainer == Trainer::Dpo && !release.at_least(0, 13);
        return Setting::default_of(if early { 512 } else { 1024 }, &release.by);
    }
    cx.missing(SEQUENCE_LENGTH, "no key gives the length of a sequence", None);
    Setting::assumed(1024, "no key gives it")
}

/// A prompt and its answer. Prompts were cut until 0.25; since then vLLM's window is the only
/// limit, if there is one.
fn rollout_length(cx: &Lowering<'_>, release: &Release) -> Setting<u64> {
    let completion = rollout::completion(cx, release.rollout());
    let whole = |prompt: u64| prompt.saturating_add(completion.value);
    if let Some(prompt) = cx.written("max_prompt_length", count) {
        return prompt.map(whole);
    }
    let window = first(cx, &["vllm_max_model_length", "vllm_max_model_len"], count);
    if let Some(window) = window.filter(|window| window.value > completion.value) {
        return window;
    }
    if release.at_least(0, 26) {
        let why = "nothing cuts prompts, so the longest decides: 512 tokens are taken beside the answer's";
        return Setting::assumed(whole(rollout::PROMPT), why);
    }
    Setting::default_of(whole(rollout::PROMPT), &release.by)
}

/// Adapters, quantisation and precision.
fn method(cx: &mut Lowering<'_>, run: &mut TrainingRun, release: &Release, defaults: Defaults<'_>) {
    let by = defaults.by;
    let mode = cx.written("train_mode", text).map(|mode| mode.map(|m| m.to_ascii_lowercase()));
    let adapters = first(cx, &["use_peft", "use_lora"], flag)
        .or_else(|| mode.clone().map(|m| m.map(|m| m.contains("lora"))))
        .or_else(|| {
            // A script of its own with a rank and no switch: the rank is the switch.
            (!release.trl)
                .then(|| first(cx, &["lora_r", "lora_rank"], count).map(|rank| rank.map(|_| true)))?
        })
        .unwrap_or_else(|| Setting::default_of(false, by));
    run.quantization = quantization(cx, mode, by);
    let quantised = run.quantization.value != Quantization::None;
    let on = adapters.value;
    run.method = adapters.map(|on| match (on, quantised) {
        (false, _) => Method::Full,
        (true, false) => Method::Lora,
        (true, true) => Method::Qlora,
    });
    let stored = weights(cx, release, by);
    hf::precision(run, stored, hf::mixed(cx, defaults));
    if !on {
        return;
    }
    // Adapters over quantised weights are bf16 from 0.26; PEFT keeps fp32 otherwise.
    let dtype = if quantised && release.trl && release.at_least(0, 26) { Dtype::Bf16 } else { Dtype::Fp32 };
    run.lora = Some(Lora {
        rank: first(cx, &["lora_r", "lora_rank"], count)
            .unwrap_or_else(|| Setting::default_of(if release.trl { 16 } else { 8 }, by)),
        targets: targets(cx, by),
        dropout: cx.or_default("lora_dropout", |v| v.to_float(), if release.trl { 0.05 } else { 0.0 }, by),
        dtype: Setting::default_of(dtype, by),
        dora: cx.or_default("use_dora", flag, false, by),
        modules_to_save: cx.or_default("lora_modules_to_save", names, Vec::new(), by),
    });
    run.gradients = Setting::default_of(dtype, by);
    run.optimizer_state = Setting::default_of(dtype, by);
    // Until 0.26 the model went through prepare_model_for_kbit_training; with bf16 and 4 bits
    // the embeddings and the head were cast back (`peft_module_casting_to_bf16`).
    let four = matches!(run.quantization.value, Quantization::Nf4 | Quantization::Nf4Double);
    let cast_back = four && run.compute.value == Dtype::Bf16 && run.autocast.value;
    let prepares = quantised && !cast_back && !(release.trl && release.at_least(0, 27));
    run.prepare_kbit = Setting::default_of(prepares, by);
}

fn quantization(cx: &Lowering<'_>, mode: Option<Setting<String>>, by: &str) -> Setting<Quantization> {
    let double = cx.written("use_bnb_nested_quant", flag).is_some_and(|on| on.value);
    let four = if double { Quantization::Nf4Double } else { Quantization::Nf4 };
    let on = |key: &str| cx.written(key, flag).filter(|on| on.value);
    on("load_in_4bit")
        .map(|on| on.map(|_| four))
        .or_else(|| on("load_in_8bit").map(|on| on.map(|_| Quantization::Int8)))
        .or_else(|| mode.filter(|m| m.value.contains("qlora")).map(|m| m.map(|_| Quantization::Nf4Double)))
        .unwrap_or_else(|| Setting::default_of(Quantization::None, by))
}

/// What weights are stored in: `dtype`, until 0.26 `torch_dtype`; fp32 when neither is there.
fn weights(cx: &Lowering<'_>, release: &Release, by: &str) -> Setting<Dtype> {
    let named = first(cx, &["dtype", "torch_dtype"], |v| v.as_str().map(str::to_owned));
    match named {
        Some(named) if named.value == "auto" => {
            Setting::assumed(Dtype::Bf16, "`auto` takes the checkpoint's dtype; bf16 is usual")
        }
        Some(_) => first(cx, &["dtype", "torch_dtype"], hf::dtype)
            .unwrap_or_else(|| Setting::default_of(Dtype::Fp32, by)),
        None if release.trl => Setting::default_of(Dtype::Fp32, by),
        None => Setting::assumed(Dtype::Fp32, "the script decides; from_pretrained loads fp32 by default"),
    }
}

/// PEFT's own choice when no targets are given: queries and values, under the names that the
/// model families have for them (`TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`).
fn targets(cx: &Lowering<'_>, by: &str) -> Setting<LoraTargets> {
    let read = |v: Value<'_>| {
        let list = names(v)?;
        let all = list == ["all-linear"] || list == ["all"];
        Some(if all { LoraTargets::AllLinear } else { LoraTargets::Modules(list) })
    };
    let keys = ["lora_target_modules", "lora_target", "target_modules"];
    first(cx, &keys, read).unwrap_or_else(|| {
        let usual = ["q_proj", "v_proj", "query_key_value", "qkv_proj", "c_attn", "q", "v"];
        Setting::default_of(LoraTargets::Modules(usual.map(str::to_owned).to_vec()), by)
    })
}

fn attention(cx: &Lowering<'_>, by: &str) -> Setting<Attention> {
    let flash = |v: Value<'_>| Some(if flag(v)? { Attention::Flash } else { Attention::Sdpa });
    cx.written("attn_implementation", |v| hf::attention(v.as_str()?))
        .or_else(|| first(cx, &["use_flash_attention_2", "use_flash_attn"], flash))
        .unwrap_or_else(|| Setting::default_of(Attention::Sdpa, by))
}

fn batching(cx: &Lowering<'_>, run: &mut TrainingRun, release: &Release, trainer: Trainer) {
    let by = &release.by;
    let packs = first(cx, &["packing", "padding_free"], |v| flag(v).filter(|on| *on));
    run.batching = match packs {
        Some(on) if trainer == Trainer::Sft || trainer == Trainer::Dpo => on.map(|_| Batching::Packed),
        _ => Setting::default_of(Batching::Padded, by),
    };
    // The strategy that cuts no sequence, the default, puts a micro-batch into one row.
    let wrapped = cx.written("packing_strategy", text).is_some_and(|s| s.value == "wrapped");
    let free = cx.written("padding_free", flag).is_some_and(|on| on.value);
    if run.batching.value == Batching::Packed && release.trl && release.at_least(0, 18) && (free || !wrapped)
    {
        run.batching.value = Batching::Flattened;
    }
    hf::order_of_rows(cx, run);
}

fn loss(cx: &Lowering<'_>, run: &mut TrainingRun, release: &Release, trainer: Trainer) {
    let by = &release.by;
    // 1.16 projects through the head tile by tile (`add_fused_lm_head`), with Liger's other kernels too.
    let tiles = matches!(trainer, Trainer::Sft | Trainer::Dpo | Trainer::Kto);
    if release.trl && release.at_least(1, 16) && tiles {
        run.loss = Setting::default_of(Loss::Tiled, by);
        return;
    }
    if run.loss.value == Loss::Fused || !release.trl {
        return;
    }
    let kind = cx.written("loss_type", text);
    let chunked = match &kind {
        Some(kind) => kind.value == "chunked_nll",
        // `loss_type: None` became chunked between 1.4 and 1.6.
        None => release.at_least(1, 6),
    };
    if trainer == Trainer::Sft && chunked {
        // 256 tokens a chunk: `_CHUNKED_LM_HEAD_CHUNK_SIZE`.
        let tokens = run.micro_batch_size.value.saturating_mul(run.sequence_length.value);
        let chunks = u32::try_from(tokens.div_ceil(256).max(1)).unwrap_or(u32::MAX);
        let loss = Loss::Chunked { chunked: chunks };
        run.loss = match kind {
            Some(kind) => kind.map(|_| loss),
            None => Setting::default_of(loss, by),
        };
    }
}

/// Every trainer of preferences switches dropout off (`disable_dropout`, on by default), in
/// adapters too.
fn dropout(cx: &Lowering<'_>, run: &mut TrainingRun, release: &Release, trainer: Trainer) {
    let prefers = matches!(trainer, Trainer::Dpo | Trainer::Kto | Trainer::Orpo | Trainer::Reward);
    if !release.trl || !prefers {
        return;
    }
    let off = cx.or_default("disable_dropout", flag, true, &release.by);
    if !off.value {
        return;
    }
    if let Some(lora) = &mut run.lora {
        lora.dropout = off.clone().map(|_| 0.0);
    }
    run.dropout = off.map(|_| Some(0.0));
}

/// DPO and KTO compare with the model as it was: a frozen copy, unless adapters can be switched
/// off or the comparison was computed beforehand.
fn reference(cx: &Lowering<'_>, run: &mut TrainingRun, release: &Release, trainer: Trainer) {
    if !matches!(trainer, Trainer::Dpo | Trainer::Kto) {
        return;
    }
    let computed = cx.written("precompute_ref_log_probs", flag).filter(|on| on.value);
    run.reference_model = match computed {
        Some(on) => on.map(|_| ReferenceModel::None),
        None => {
            let resident = run.lora.is_none();
            Setting::default_of(
                if resident { ReferenceModel::Resident } else { ReferenceModel::None },
                &release.by,
            )
        }
    };
}

/// The file's own keys, or the Accelerate file that the `trl` command is told to launch with.
fn distribution(cx: &mut Lowering<'_>, run: &mut TrainingRun, defaults: Defaults<'_>) {
    if cx.root.get("accelerate_config").is_some_and(|v| !v.is_null()) {
        accelerate::follow(cx, run, "accelerate_config", defaults);
        return;
    }
    hf::distribution(cx, run, defaults);
    let plain = run.parallelism.data_parallel.origin.is_assumption();
    if plain && run.parallelism.data_parallel.value == DataParallel::Ddp {
        let why = "the launch command may name an Accelerate file that shards; this file does not";
        run.parallelism.data_parallel = Setting::assumed(DataParallel::Ddp, why);
    }
}
