//! From Axolotl's keys to a run. Facts: axolotl 0.18.0 and 0.21.0, the files named beside them.

use super::RELEASE;
use super::adapter;
use super::rollout;
use super::sharding;
use crate::framework::baseline::{count, first, plain};
use crate::framework::lowering::here;
use crate::framework::schema::at_least;
use crate::framework::training_arguments::{self as hf, flag, text};
use crate::framework::{Lowering, deepspeed};
use crate::run::lengths::{Overlong, SequenceLengths};
use crate::run::{
    Attention, Batching, Checkpointing, DataParallel, Doubt, Dtype, Kernels, Loss, Method, ModelCode,
    ModelRef, Optimizer, OptimizerImplementation, ReferenceModel, Setting, Task, TrainingRun,
};

/// The Trainer's must-be-equal list under Axolotl's names (transformers
/// `integrations/deepspeed.py`; Axolotl hands its keys on in `core/builders/base.py`).
const PAIRS: &[deepspeed::MustEqual] = &[
    ("train_micro_batch_size_per_gpu", "micro_batch_size", Some(1.0)),
    ("gradient_accumulation_steps", "gradient_accumulation_steps", None),
    ("gradient_clipping", "max_grad_norm", Some(1.0)),
    ("optimizer.params.lr", "learning_rate", None),
    ("optimizer.params.eps", "adam_epsilon", None),
    ("optimizer.params.weight_decay", "weight_decay", None),
    ("scheduler.params.warmup_max_lr", "learning_rate", None),
];

pub(super) fn lower(cx: &mut Lowering<'_>) -> Option<TrainingRun> {
    let model = model(cx)?;
    let micro = cx.or_default("micro_batch_size", count, 1, RELEASE);
    let length = cx.or_default("sequence_len", count, 512, RELEASE);
    let mut run = plain(RELEASE, model, ModelCode::Transformers, micro, length);
    run.gradient_accumulation_steps = accumulation(cx, run.micro_batch_size.value);
    run.gradient_clipping = cx.or_default(
        "max_grad_norm",
        |v| v.to_float().map(|norm| (norm > 0.0).then_some(norm)),
        Some(1.0),
        RELEASE,
    );
    run.parallelism.gpus = cx.declared_gpus.clone();
    precision(cx, &mut run);
    optimizer(cx, &mut run);
    batching(cx, &mut run);
    attention(cx, &mut run);
    checkpointing(cx, &mut run);
    loss_and_kernels(cx, &mut run);
    adapter::lower(cx, &mut run);
    partial(cx, &mut run);
    task(cx, &mut run);
    evaluation(cx, &mut run);
    if let Some(on) = cx.written("torch_compile", |v| flag(v).or(Some(v.as_str() == Some("auto")))) {
        run.compile = on;
    }
    sharding::lower(cx, &mut run, PAIRS);
    reentrant(cx, &mut run);
    fp32_ends(cx, &mut run);
    Some(run)
}

/// Is the declared release (newest otherwise) at least `release`?
pub(super) fn since(cx: &Lowering<'_>, release: &str) -> bool {
    cx.declared_version.as_deref().is_none_or(|declared| at_least(declared, release))
}

fn model(cx: &mut Lowering<'_>) -> Option<Setting<ModelRef>> {
    // `base_model_config` replaces the config that the weights are read into.
    let config = cx.written("base_model_config", text);
    let Some(named) = config.or_else(|| cx.written("base_model", text)) else {
        let at = cx.root.get("base_model").map(here);
        let why = if at.is_some() { "`base_model` names no model" } else { "the file has no `base_model`" };
        cx.missing("model", why, at);
        return None;
    };
    let replaced = ["overrides_of_model_config", "model_config"]
        .iter()
        .find_map(|key| cx.root.get(key).filter(|v| v.is_mapping()))
        .and_then(|v| v.to_json())
        .and_then(|json| json.as_object().cloned())
        .unwrap_or_default();
    Some(named.map(|id| if replaced.is_empty() { ModelRef::Id(id) } else { ModelRef::IdWith(id, replaced) }))
}

/// `batch_size` is the product (utils/config, `normalize_config`).
fn accumulation(cx: &Lowering<'_>, micro: u64) -> Setting<u64> {
    cx.written("gradient_accumulation_steps", count)
        .or_else(|| cx.written("batch_size", count).map(|all| all.map(|n| (n / micro.max(1)).max(1))))
        .unwrap_or_else(|| Setting::default_of(1, RELEASE))
}

/// Weights are loaded in the dtype that is trained with (utils/config, `resolve_dtype`), and the
/// Trainer runs autocast over them (core/builders/base.py).
fn precision(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let on = |key: &str| cx.written(key, flag).filter(|on| on.value);
    let auto = cx.root.get("bf16").is_none_or(|v| v.is_null() || v.as_str() == Some("auto"));
    let half = || on("fp16").or_else(|| on("float16"));
    let chosen = if let Some(bf16) = on("bf16").or_else(|| on("bfloat16")) {
        bf16.map(|_| Dtype::Bf16)
    } else if auto && half().is_none() {
        match cx.root.get("bf16").filter(|v| !v.is_null()) {
            Some(value) => Setting::written(Dtype::Bf16, here(value)),
            None => Setting::default_of(Dtype::Bf16, RELEASE),
        }
    } else if let Some(half) = half().or_else(|| on("load_in_8bit")) {
        half.map(|_| Dtype::Fp16)
    } else {
        Setting::default_of(Dtype::Fp32, RELEASE)
    };
    run.autocast = chosen.clone().map(|dtype| dtype != Dtype::Fp32);
    run.gradients = chosen.clone();
    run.optimizer_state = chosen.clone();
    run.compute = chosen.clone();
    run.weights = chosen;
}

fn optimizer(cx: &Lowering<'_>, run: &mut TrainingRun) {
    use OptimizerImplementation::{ForLoop, Foreach, Fused};
    let read = |name: &str| match name {
        // core/builders/base.py, `_configure_custom_optimizer`; torchao's are compiled.
        "ao_adamw_4bit" => (Optimizer::Adamw4bit, Fused),
        "ao_adamw_8bit" | "ao_adamw_fp8" => (Optimizer::Adamw8bit, Fused),
        "adopt_adamw" | "adamc" => (Optimizer::Adamw, Foreach),
        "muon" => (Optimizer::Muon, ForLoop),
        "q_galore_adamw8bit" => (Optimizer::Galore8bit, ForLoop),
        other => hf::optimizer_named(other),
    };
    let chosen = cx
        .written("optimizer", |v| v.as_str().map(read))
        .unwrap_or_else(|| Setting::default_of((Optimizer::Adamw, Fused), RELEASE));
    run.optimizer = chosen.clone().map(|(optimizer, _)| optimizer);
    run.optimizer_implementation = chosen.map(|(_, implementation)| implementation);
    // transformers' `Trainer.create_optimizer`, which makes bitsandbytes' optimizers here too.
    run.wide_embedding_states = Setting::default_of(true, RELEASE);
}

fn batching(cx: &Lowering<'_>, run: &mut TrainingRun) {
    run.batching = match cx.written("sample_packing", flag) {
        Some(on) if on.value => on.map(|_| Batching::Packed),
        // Pretraining text is cut into full sequences (utils/data/streaming.py).
        _ => match cx.root.get("pretraining_dataset").filter(|v| !v.is_null()) {
            Some(value) => Setting::written(Batching::Fixed, here(value)),
            None => Setting::default_of(Batching::Padded, RELEASE),
        },
    };
    // `handle_long_seq_in_dataset` (utils/data/utils.py).
    let cut = cx.written("excess_length_strategy", |v| v.as_str().map(|s| s == "truncate"));
    run.overlong = if cut.is_some_and(|cut| cut.value) { Overlong::Truncated } else { Overlong::Dropped };
    hf::order_of_rows(cx, run);
    // Padded with a mask, to a multiple that is no less than `sequence_len` (core/builders/causal.py).
    if let Some(on) = cx.written("pad_to_sequence_len", flag).filter(|on| on.value) {
        run.sequence_lengths = on.map(|_| Some(SequenceLengths::FULL));
    }
}

/// The boolean flags of old and what each stands for (schemas/enums.py); specific ones first.
pub(super) const ATTENTION_FLAGS: &[(&str, &str)] = &[
    ("xformers_attention", "xformers"),
    ("sage_attention", "sage"),
    ("flex_attention", "flex_attention"),
    ("flash_attention", "flash_attention_2"),
    ("sdp_attention", "sdpa"),
    ("eager_attention", "eager"),
];

fn attention(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let named = cx.written("attn_implementation", |v| {
        Some(match v.as_str()? {
            "eager" => Attention::Eager,
            "sdpa" => Attention::Sdpa,
            "flex_attention" => Attention::Flex,
            // Like FlashAttention, they keep the output and one number a row.
            _ => Attention::Flash,
        })
    });
    let flagged = || {
        ATTENTION_FLAGS.iter().find_map(|(key, name)| {
            let on = cx.written(key, flag).filter(|on| on.value)?;
            Some(on.map(|_| match *name {
                "eager" => Attention::Eager,
                "sdpa" => Attention::Sdpa,
                "flex_attention" => Attention::Flex,
                _ => Attention::Flash,
            }))
        })
    };
    run.attention = named.or_else(flagged).unwrap_or_else(|| Setting::default_of(Attention::Sdpa, RELEASE));
}

/// core/builders/base.py `_configure_gradient_checkpointing`, loaders/model.py
/// `_apply_activation_checkpointing`.
fn checkpointing(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let offloads = |v: crate::document::Value<'_>| matches!(v.as_str(), Some("offload" | "offload_disk"));
    let written = cx.written("gradient_checkpointing", |v| flag(v).or(Some(offloads(v))));
    let on = written.unwrap_or_else(|| Setting::default_of(false, RELEASE));
    let offload = cx
        .written("activation_offloading", |v| flag(v).or(Some(v.as_str().is_some())))
        .or_else(|| cx.written("gradient_checkpointing", |v| Some(offloads(v))));
    run.activation_checkpointing = on.map(|on| if on { Checkpointing::Full } else { Checkpointing::None });
    if let Some(offload) = offload.filter(|offload| offload.value) {
        let inputs_only =
            cx.root.get("activation_offloading").and_then(|v| v.as_str()) == Some("hidden_states");
        let adapter = cx.root.get("adapter").is_some_and(|v| !v.is_null());
        if adapter && !inputs_only {
            // With adapters everything is offloaded and nothing recomputed.
            run.activation_checkpointing = offload.clone().map(|_| Checkpointing::None);
        }
        run.activation_offload = offload;
    }
    if cx.root.get("selective_checkpointing").is_some_and(|v| !v.is_null() && flag(v) != Some(false)) {
        run.activation_checkpointing.value = Checkpointing::Selective;
    }
}

/// utils/config/__init__.py `normalize_config`, core/builders/base.py: left open, checkpoints are
/// reentrant until 0.20 in plain fine-tuning, and since then under ZeRO-3 only.
fn reentrant(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let given = |key: &str| cx.root.get(key).is_some_and(|v| !v.is_null());
    let by =
        cx.declared_version.as_ref().map_or_else(|| RELEASE.into(), |version| format!("axolotl {version}"));
    let old = !since(cx, "0.21");
    let zero3 = run.parallelism.data_parallel.value == DataParallel::Zero3 && run.parallelism.zero.is_some();
    let plain = !given("unfrozen_parameters") && !given("rl");
    let written = cx.written("gradient_checkpointing_kwargs.use_reentrant", flag);
    run.reentrant_checkpointing =
        written.unwrap_or_else(|| Setting::default_of(plain && (old || zero3), &by));
}

/// Is a plugin listed? Keys of a plugin that is not are dropped.
pub(super) fn plugin(cx: &Lowering<'_>, part: &str) -> bool {
    cx.root
        .get("plugins")
        .is_some_and(|list| list.items().any(|item| item.as_str().is_some_and(|name| name.contains(part))))
}

fn loss_and_kernels(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let on = |key: &str| cx.written(key, flag).filter(|on| on.value);
    if plugin(cx, "cut_cross_entropy") {
        // The plugin's switch is on unless it is turned off.
        match cx.written("cut_cross_entropy", flag) {
            Some(switch) if switch.value => run.loss = switch.map(|_| Loss::Fused),
            Some(_) => {}
            None => {
                if let Some(list) = cx.root.get("plugins") {
                    run.loss = Setting::written(Loss::Fused, here(list));
                }
            }
        }
    }
    if plugin(cx, "liger") {
        if let Some(fused) = on("liger_fused_linear_cross_entropy") {
            run.loss = fused.map(|_| Loss::Fused);
        } else if let Some(in_place) = on("liger_cross_entropy") {
            run.loss = in_place.map(|_| Loss::FullNoUpcast);
        }
        let mlp = on("liger_glu_activation").or_else(|| on("liger_swiglu"));
        if let (Some(norms), Some(_)) = (on("liger_rms_norm").or_else(|| on("liger_layer_norm")), mlp) {
            run.kernels = norms.map(|_| Kernels::Liger);
        }
    }
    if let Some(chunked) = on("chunked_cross_entropy") {
        // monkeypatch/loss/chunked.py: 8 unless said otherwise.
        let chunks = cx.written("chunked_cross_entropy_num_chunks", count).map_or(8, |n| n.value);
        run.loss = chunked.map(|_| Loss::Chunked { chunked: u32::try_from(chunks).unwrap_or(8) });
    }
    if let Some(in_place) = on("flash_attn_cross_entropy") {
        run.loss = in_place.map(|_| Loss::FullNoUpcast);
    }
}

/// `unfrozen_parameters`: everything else is frozen. A dot stands for itself; a range behind the
/// pattern masks gradients, which are still made whole (utils/freeze.py). PEFT freezes the base by
/// itself, so under adapters the list comes to nothing.
fn partial(cx: &mut Lowering<'_>, run: &mut TrainingRun) {
    let listed = cx.root.get("unfrozen_parameters").filter(|v| v.items().next().is_some());
    if let Some(list) = listed.filter(|_| run.method.value == Method::Full) {
        let patterns = list.items().filter_map(|item| item.as_str().map(literal_dots)).collect();
        run.beside.trained_patterns = Some(Setting::written(patterns, here(list)));
        run.beside.doubts.push(Doubt {
            why: "frozen layers among trained ones keep less",
            below: 0.3,
            above: 0.0,
        });
    }
    if plugin(cx, "spectrum") || cx.root.get("lisa_n_layers").is_some_and(|v| !v.is_null()) {
        cx.missing("trained parameters", "layers are chosen while training (Spectrum, LISA)", None);
    }
}

/// Axolotl's reading of a pattern: no range behind it, and dots for themselves unless a plus follows.
fn literal_dots(pattern: &str) -> String {
    let range = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == ':');
    let name = match pattern.strip_suffix(']').and_then(|head| head.rsplit_once('[')) {
        Some((name, inside)) if !name.is_empty() && !inside.is_empty() && range(inside) => name,
        _ => pattern,
    };
    let mut text = String::with_capacity(name.len() + 8);
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '.' && rest.peek() != Some(&'+') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn task(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let method = cx.written("rl", text);
    if let Some(rl) = method {
        let adapter = run.lora.is_some();
        match rl.value.as_str() {
            "grpo" | "gdpo" => {
                run.task = rl.map(|_| Task::Rollout);
                rollout::lower(cx, run);
            }
            "ebft" => {
                run.task = rl.map(|_| Task::Rollout);
                rollout::features(cx, run);
            }
            name => {
                // train.py, `setup_reference_model`: an adapter's base is its own reference; ORPO
                // and SimPO have none; every other method loads the model a second time.
                if !adapter && !matches!(name, "orpo" | "simpo") {
                    run.reference_model = rl.clone().map(|_| ReferenceModel::Resident);
                }
                // KTO learns from single answers, not from pairs.
                run.task = rl.map(|name| if name == "kto" { Task::CausalLm } else { Task::Preference });
            }
        }
        return;
    }
    if let Some(on) = cx.written("reward_model", flag).filter(|on| on.value) {
        // A head of one output: there are no logits over the vocabulary.
        run.loss = on.clone().map(|_| Loss::Fused);
        run.task = on.map(|_| Task::Preference);
    } else if let Some(on) = cx.written("process_reward_model", flag).filter(|on| on.value) {
        run.loss = on.map(|_| Loss::Fused);
    }
}

fn evaluation(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let share = cx.root.get("val_set_size").and_then(|v| v.to_float()).is_some_and(|share| share > 0.0);
    let sets = cx.root.get("test_datasets").is_some_and(|v| v.items().next().is_some());
    let off = first(cx, &["eval_strategy", "evaluation_strategy"], |v| {
        Some(v.as_str() == Some("no") || v.as_bool() == Some(false))
    });
    if (share || sets) && !off.is_some_and(|off| off.value) {
        let size = cx.written("eval_batch_size", count);
        run.eval_batch_size = Some(size.unwrap_or_else(|| run.micro_batch_size.clone()));
    }
}

/// Full fine-tuning without FlashAttention, FSDP and DeepSpeed leaves norms, embeddings and head
/// in fp32 (loaders/model.py, `_configure_embedding_dtypes`).
fn fp32_ends(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let sharded = run.parallelism.fsdp.is_some() || run.parallelism.zero.is_some();
    let cast = run.attention.value != Attention::Sdpa && run.attention.value != Attention::Eager;
    let fused = plugin(cx, "cut_cross_entropy") && run.loss.value == Loss::Fused;
    if run.lora.is_none() && !sharded && !cast && !fused && run.weights.value != Dtype::Fp32 {
        run.prepare_kbit = Setting::default_of(true, RELEASE);
    }
}
