//! torchtitan, torchtune, LitGPT, GPT-NeoX and LLM Foundry: what small files of each become, and
//! what is said about the real ones.

#![expect(clippy::print_stdout, reason = "the tables are the point")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use llmlint::check::{Context, FileReport, check_bytes};
use llmlint::document::{Document, Syntax};
use llmlint::finding::Severity;
use llmlint::framework::{self, Kind, Lowering};
use llmlint::run::{
    Attention, Checkpointing, DataParallel, Dtype, Loss, Method, ModelRef, Offload, Optimizer,
    OptimizerImplementation, Origin, PipelineSchedule, Quantization, Setting, TrainingRun, Unknown,
};
use llmlint::settings::Loaded;
use llmlint::source::Source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fixture as its framework lowers it, with `gpus` declared.
fn lower(path: &str, gpus: Option<u64>) -> (&'static str, TrainingRun, Vec<Unknown>) {
    let text = std::fs::read_to_string(root().join("fixtures").join(path)).expect("fixture");
    lower_text(path, &text, gpus)
}

fn lower_text(path: &str, text: &str, gpus: Option<u64>) -> (&'static str, TrainingRun, Vec<Unknown>) {
    let source: Arc<Source> = Source::new(path, text);
    let document = Document::parse(&source, Syntax::of_path(path).expect("syntax"));
    let (framework, kind) = framework::recognise(&document).expect("recognised");
    assert_eq!(kind, Kind::Run, "{path}");
    let tree = document.root(framework.dialect(document.syntax)).expect("root");
    let mut cx = Lowering::new(tree, &source, root(), root());
    cx.declared_gpus = gpus.map(|n| Setting { value: n, origin: Origin::Declared("a test".into()) });
    let run = framework.lower(&mut cx).expect("lowered");
    (framework.name(), run, cx.unknown)
}

fn id(run: &TrainingRun) -> &str {
    match &run.model.value {
        ModelRef::Id(id) | ModelRef::IdWith(id, _) => id,
        _ => "",
    }
}

#[test]
fn torchtitan_keeps_fp32_states_and_computes_in_bf16_under_fsdp() {
    let (name, run, unknown) = lower("torchtitan/llama3-8b-2026.toml", Some(8));
    assert_eq!((name, id(&run)), ("torchtitan", "torchtitan:llama3:8B"));
    assert_eq!(unknown, []);
    assert_eq!(
        (run.weights.value, run.gradients.value, run.optimizer_state.value),
        (Dtype::Fp32, Dtype::Fp32, Dtype::Fp32)
    );
    assert_eq!((run.compute.value, run.autocast.value), (Dtype::Bf16, false));
    assert_eq!(run.activation_checkpointing.value, Checkpointing::Selective);
    // A compiled loss never makes the fp32 copy of the logits.
    assert_eq!(run.loss.value, Loss::FullNoUpcast);
    assert_eq!(run.optimizer_implementation.value, OptimizerImplementation::Fused);
    assert_eq!(run.parallelism.data_parallel.value, DataParallel::Fsdp);
    assert_eq!(run.parallelism.shard_group.map(|s| s.value), Some(8));
    assert_eq!((run.micro_batch_size.value, run.gradient_accumulation_steps.value), (2, 2));
}

/// What a fixture's ledger holds, by name, in bytes.
fn ledger(path: &str) -> BTreeMap<String, i64> {
    let text = std::fs::read_to_string(root().join("fixtures").join(path)).expect("fixture");
    let report =
        check_bytes(path, text.into_bytes(), Syntax::Yaml, true, &Context::default()).expect("a run");
    let estimate = report.estimate.unwrap_or_else(|| panic!("{path}: {:?}", report.unknown));
    estimate.ledger.entries.into_iter().map(|entry| (entry.name, entry.bytes.0)).collect()
}

#[test]
fn torchtunes_other_models_are_counted() {
    // The whole of the policy, its copy, the reward model and the value model with all its states.
    let ppo = ledger("torchtune/ppo.yaml");
    let policy = ppo["weights"];
    assert_eq!((ppo["reference model"], ppo["reward model"]), (policy, policy));
    let value = ppo["value model with its gradients and states"] as f64 / policy as f64;
    assert!((4.0..4.01).contains(&value), "weights, gradients and two moments: {value}");

    let distillation = ledger("torchtune/distillation.yaml");
    // 1,543,714,304 parameters of Qwen2.5-1.5B in bf16; torchtune ties its embedding, too.
    assert_eq!(distillation["teacher model"], 2 * 1_543_714_304);
    assert_eq!(distillation["the teacher's logits"], 2 * 2 * 1024 * 151_936);
}

#[test]
fn quantisation_aware_training_keeps_rounded_copies() {
    let text = std::fs::read_to_string(root().join("fixtures/torchtune/qat.yaml")).expect("fixture");
    let plain = text.replace("quantizer:", "unused:").replace("qat_distributed", "full_finetune_distributed");
    let transient = |text: &str| {
        let report = check_bytes("a.yaml", text.into(), Syntax::Yaml, true, &Context::default());
        let entries = report.and_then(|r| r.estimate).expect("estimated").ledger.entries;
        let line = entries.iter().find(|e| e.name == "one layer recomputed, and its backward");
        line.map_or(0, |entry| entry.bytes.0)
    };
    // A copy of 2 bytes and a mask of 1 for each of the layer's 60.8 million weights.
    let more = transient(&text) - transient(&plain);
    assert!(more > 3 * 60_000_000, "{more}");
}

#[test]
fn torchtitan_of_2024_is_read_with_the_defaults_of_its_time() {
    let (_, run, _) = lower("torchtitan/llama3-70b-2024.toml", None);
    let parallel = &run.parallelism;
    // Every degree is written, so their product is the number of GPUs.
    assert_eq!(parallel.gpus.as_ref().map(|g| g.value), Some(2 * 4 * 8 * 2));
    assert_eq!(parallel.data_parallel.value, DataParallel::Hsdp);
    assert_eq!(parallel.shard_group.as_ref().map(|s| s.value), Some(4));
    assert_eq!((parallel.tensor.value, parallel.sequence_parallel.value), (8, true));
    assert_eq!(parallel.pipeline_schedule.value, PipelineSchedule::Interleaved);
    // As many micro-batches as stages, which is what 2024 did without a setting.
    assert_eq!((run.micro_batch_size.value, run.gradient_accumulation_steps.value), (4, 2));
    // Pipelines keep weights gathered.
    assert_eq!(parallel.fsdp.as_ref().map(|f| f.reshard_after_forward.value), Some(false));
    assert_eq!(run.loss.value, Loss::Full);
    assert!(parallel.vocab_parallel_loss.value);
}

#[test]
fn torchtitan_alone_on_a_gpu_has_no_fsdp_and_autocasts() {
    let (_, run, _) = lower("torchtitan/llama3-8b-2026.toml", Some(1));
    assert_eq!(run.parallelism.data_parallel.value, DataParallel::None);
    assert_eq!((run.compute.value, run.autocast.value), (Dtype::Bf16, true));
}

#[test]
fn torchtitan_reads_every_way_to_checkpoint() {
    let with = |lines: &str| {
        let text = format!(
            "[model]\nname = \"llama3\"\nflavor = \"8B\"\n[training]\nseq_len = 2048\nsteps = 1\n{lines}"
        );
        lower_text("job.toml", &text, Some(8)).1.activation_checkpointing.value
    };
    assert_eq!(with(""), Checkpointing::Every { every: 2 });
    assert_eq!(with("[activation_checkpoint]\nmode = \"full\""), Checkpointing::Full);
    assert_eq!(with("[activation_checkpoint]\nmode = \"none\""), Checkpointing::None);
    assert_eq!(
        with("[activation_checkpoint]\nmode = \"selective\"\nselective_ac_option = \"1\""),
        Checkpointing::Full
    );
    assert_eq!(with("[activation_checkpoint]\nselective_ac_option = \"op\""), Checkpointing::Selective);
}

#[test]
fn torchtune_takes_the_recipe_from_the_header_as_an_assumption() {
    let (name, run, unknown) = lower("torchtune/8b-qlora-single-device.yaml", Some(8));
    assert_eq!((name, id(&run)), ("torchtune", "torchtune:torchtune.models.llama3_1.llama3_1_8b"));
    assert_eq!(unknown, []);
    let gpus = run.parallelism.gpus.as_ref().expect("from the comment");
    assert_eq!(gpus.value, 1);
    assert!(matches!(&gpus.origin, Origin::Assumed(why) if why.contains("lora_finetune_single_device")));
    assert_eq!((run.method.value, run.quantization.value), (Method::Qlora, Quantization::Nf4Double));
    assert_eq!(
        run.lora.as_ref().map(|l| l.targets.value.to_string()).as_deref(),
        Some("q_proj, v_proj, o_proj, gate_proj, up_proj, down_proj")
    );
    assert_eq!(run.loss.value, Loss::Chunked { chunked: 8 });
    assert_eq!(run.attention.value, Attention::Flex);
    assert_eq!((run.weights.value, run.optimizer_state.value), (Dtype::Bf16, Dtype::Bf16));
}

#[test]
fn torchtune_says_that_the_longest_sample_decides() {
    let (_, run, unknown) = lower("torchtune/70b-full-distributed.yaml", None);
    assert_eq!(unknown.iter().map(|u| u.what.as_str()).collect::<Vec<_>>(), ["sequence length"]);
    let parallel = &run.parallelism;
    assert_eq!(parallel.gpus.as_ref().map(|g| g.value), Some(8));
    assert_eq!(parallel.data_parallel.value, DataParallel::Fsdp);
    assert_eq!(
        (parallel.offload_parameters.value, parallel.offload_optimizer.value),
        (Offload::Cpu, Offload::Cpu)
    );
}

#[test]
fn an_assumed_length_fills_what_the_file_leaves_to_the_data() {
    let text = std::fs::read_to_string(root().join("fixtures/torchtune/70b-full-distributed.yaml"))
        .expect("fixture");
    let mut settings = Loaded::default();
    settings.content.assume.sequence_length = std::num::NonZeroU64::new(1500);
    let mut context = Context::default();
    context.settings.explicit = Some(settings);
    let report = check_bytes("a.yaml", text.into(), Syntax::Yaml, true, &context).expect("recognised");
    let run = report.run.expect("lowered");
    assert_eq!(run.sequence_length.value, 1500);
    assert_eq!(run.sequence_length.origin, Origin::Declared("llmlint.toml".into()));
    assert!(!report.unknown.iter().any(|u| u.what == "sequence length"), "{:?}", report.unknown);
}

#[test]
fn torchtune_optimizers_go_by_their_class() {
    let with = |optimizer: &str| {
        let text = format!(
            "model: {{ _component_: torchtune.models.llama2.llama2_7b }}\ntokenizer: {{ max_seq_len: 512 }}\nloss: {{ _component_: torchtune.modules.loss.LinearCrossEntropyLoss }}\nbatch_size: 1\noptimizer: {optimizer}\n"
        );
        let run = lower_text("recipe.yaml", &text, Some(1)).1;
        (run.optimizer.value, run.parallelism.offload_optimizer.value)
    };
    assert_eq!(with("{ _component_: bitsandbytes.optim.PagedAdamW8bit }").0, Optimizer::PagedAdamw8bit);
    assert_eq!(with("{ _component_: bitsandbytes.optim.PagedAdamW }").0, Optimizer::PagedAdamw32bit);
    assert_eq!(with("{ _component_: torchao.optim.AdamW4bit }").0, Optimizer::Adamw4bit);
    assert_eq!(
        with("{ _component_: torchao.optim.CPUOffloadOptimizer, optimizer_class: torch.optim.AdamW }"),
        (Optimizer::Adamw, Offload::Cpu)
    );
}

#[test]
fn litgpt_finetunes_on_one_gpu_without_checkpointing() {
    let (name, run, unknown) = lower("litgpt/llama-3-8b-lora.yaml", Some(8));
    assert_eq!((name, id(&run)), ("litgpt", "meta-llama/Meta-Llama-3-8B"));
    assert_eq!(unknown, []);
    let ModelRef::IdWith(_, own) = &run.model.value else { panic!("a head of its own") };
    assert_eq!(own.get("tie_word_embeddings"), Some(&false.into()));
    // The file says one device, whatever the machine has.
    assert_eq!(run.parallelism.gpus.as_ref().map(|g| g.value), Some(1));
    assert_eq!(run.activation_checkpointing.value, Checkpointing::None);
    // Quantised training takes no optimizer but the paged one.
    assert_eq!(run.optimizer.value, Optimizer::PagedAdamw32bit);
    assert_eq!(run.quantization.value, Quantization::Nf4Double);
    assert_eq!(run.loss.value, Loss::Chunked { chunked: 4 });
    assert_eq!(run.gradient_accumulation_steps.value, 4);
}

#[test]
fn litgpt_pretrains_sharded_within_a_machine() {
    let (_, run, unknown) = lower("litgpt/pretrain-spelled-out.yaml", None);
    assert_eq!(unknown, []);
    assert_eq!(run.parallelism.gpus.as_ref().map(|g| g.value), Some(8));
    assert_eq!(run.parallelism.data_parallel.value, DataParallel::Hsdp);
    assert_eq!(run.parallelism.shard_group.as_ref().map(|s| s.value), Some(4));
    assert_eq!((run.weights.value, run.compute.value), (Dtype::Fp32, Dtype::Bf16));
    // Without a length of its own: the model's block size.
    assert_eq!(run.sequence_length.value, 1024);
    assert_eq!(run.gradient_accumulation_steps.value, 8);
    let ModelRef::Config(config) = &run.model.value else { panic!("spelled out") };
    // The head is a matrix of its own, whatever the family ties.
    assert_eq!(config.get("tie_word_embeddings"), Some(&false.into()));
}

#[test]
fn gpt_neox_reads_hyphens_pads_the_vocabulary_and_keeps_master_weights() {
    let (name, run, unknown) = lower("gpt-neox/160m.yml", Some(8));
    assert_eq!(name, "gpt-neox");
    assert_eq!(unknown, []);
    let ModelRef::Config(config) = &run.model.value else { panic!("spelled out") };
    assert_eq!(config.get("num_hidden_layers"), Some(&12.into()));
    // 50,277 tokens up to a multiple of 128 for each of two ranks.
    assert_eq!(config.get("vocab_size"), Some(&50432.into()));
    assert_eq!(run.parallelism.tensor.value, 2);
    assert_eq!(run.parallelism.data_parallel.value, DataParallel::Zero1);
    assert!(run.master_weights.value);
    assert_eq!((run.weights.value, run.optimizer_state.value), (Dtype::Fp16, Dtype::Fp32));
    assert_eq!(run.activation_checkpointing.value, Checkpointing::Full);
    assert_eq!(run.attention.value, Attention::Flash);
}

#[test]
fn a_gated_width_of_gpt_neox_is_a_third_of_what_is_written() {
    let text = "{\"pipe_parallel_size\": 1, \"num_layers\": 32, \"hidden_size\": 4096, \"num_attention_heads\": 32, \
                \"seq_length\": 4096, \"activation\": \"swiglu\", \"intermediate_size\": 33024, \
                \"mlp_multiple_of\": 256, \"train_micro_batch_size_per_gpu\": 1}";
    let (_, run, _) = lower_text("llama.yml", text, Some(1));
    let ModelRef::Config(config) = &run.model.value else { panic!("spelled out") };
    assert_eq!(config.get("intermediate_size"), Some(&11008.into()));
    assert_eq!(config.get("model_type"), Some(&"llama".into()));
}

#[test]
fn llm_foundry_follows_its_variables() {
    let (name, run, unknown) = lower("llm-foundry/mpt-350m.yaml", Some(8));
    assert_eq!(name, "llm-foundry");
    assert_eq!(unknown, []);
    assert_eq!(run.sequence_length.value, 2048);
    assert_eq!((run.weights.value, run.compute.value), (Dtype::Fp32, Dtype::Bf16));
    assert_eq!(run.parallelism.data_parallel.value, DataParallel::Fsdp);
    assert_eq!(run.gradient_accumulation_steps.value, 2);
    assert_eq!(run.gradient_clipping.value, Some(1.0));
}

#[test]
fn what_is_only_recognised_is_named_and_left_alone() {
    let text = "actor_rollout_ref:\n  model: { path: Qwen/Qwen2-7B }\n  actor: { lr: 1e-6 }\n";
    let report =
        check_bytes("ppo.yaml", text.into(), Syntax::Yaml, true, &Context::default()).expect("recognised");
    assert_eq!(report.framework, Some("verl"));
    assert_eq!(report.findings, []);
    assert!(report.unknown.iter().any(|u| u.why.contains("not supported yet")), "{:?}", report.unknown);
    // Keys of the right names with values of the wrong type are somebody else's.
    let vocabulary =
        "{\"policy\": 12, \"cluster\": 7, \"defaults\": 3, \"actor_rollout_ref\": 5, \"MODEL_ARGS\": 1}";
    assert!(check_bytes("vocab.json", vocabulary.into(), Syntax::Json, false, &Context::default()).is_none());
}

#[test]
fn a_file_explains_keys_that_its_framework_does_not_have() {
    let findings = |path: &str, text: &str| {
        let syntax = Syntax::of_path(path).expect("syntax");
        let report = check_bytes(path, text.into(), syntax, true, &Context::default()).expect("recognised");
        report.findings.iter().map(|f| f.rule).filter(|rule| *rule == "unknown-key").collect::<Vec<_>>()
    };
    let job =
        "[model]\nname = \"llama3\"\nflavor = \"8B\"\n[training]\nseq_len = 2048\nsteps = 1\nmine = 1\n";
    assert_eq!(findings("job.toml", job), ["unknown-key"]);
    let own = format!("[job]\ncustom_config_module = \"my.config\"\n{job}");
    assert_eq!(findings("job.toml", &own), [] as [&str; 0]);
    // A variable that a path interpolates.
    let text = std::fs::read_to_string(root().join("fixtures/torchtune/8b-qlora-single-device.yaml"))
        .expect("fixture");
    let variable = format!("{text}models: /tmp\n")
        .replace("checkpoint_dir: /tmp/llama", "checkpoint_dir: ${models}/llama");
    assert_eq!(findings("a.yaml", &variable), [] as [&str; 0]);
    assert_eq!(findings("a.yaml", &format!("{text}models: /tmp\n")), ["unknown-key"]);
}

#[test]
fn a_broken_gpt_neox_file_is_still_reported() {
    // A comma is missing behind the hidden size, as in a file that Pythia shipped.
    let text = "{\n  \"pipe-parallel-size\": 1,\n  \"num-layers\": 36,\n  \"hidden-size\": 5120\n  \"seq-length\": 2048,\n}\n";
    let report =
        check_bytes("12b.yml", text.into(), Syntax::Yaml, false, &Context::default()).expect("reported");
    assert!(report.findings.iter().any(|f| f.severity == Severity::Error), "{:?}", report.findings);
}

fn corpus() -> Option<PathBuf> {
    let shared = std::env::var_os("LLMLINT_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    if shared.join("corpus/manifest.tsv").is_file() {
        return Some(shared.join("corpus"));
    }
    println!("SKIPPED: no corpus at {}", shared.display());
    None
}

const OURS: [&str; 5] = ["torchtitan", "torchtune", "litgpt", "gpt-neox", "llm-foundry"];

/// Every error over upstream's own files, each a mistake that was proven in the framework's source.
const PROVEN: &[(&str, &str, &str)] = &[
    // `NeoXArgs` has no `attention_type`; `from_ymls` passes it to the dataclass, which raises.
    ("configs/llemma/34B.yml", "unknown-key", "attention_type"),
    // The dataclass of 0.1.0 has `classifier_free_guidance_scale`; the misspelt key was dropped.
    ("flux/train_configs/debug_model.toml", "unknown-key", "classifer_free_guidance_scale"),
    ("flux/train_configs/flux_dev_model.toml", "unknown-key", "classifer_free_guidance_scale"),
    ("flux/train_configs/flux_schnell_model.toml", "unknown-key", "classifer_free_guidance_scale"),
];

#[test]
fn errors_on_real_files_are_proven_mistakes_and_runs_are_lowered() {
    let Some(corpus) = corpus() else { return };
    let manifest = std::fs::read_to_string(corpus.join("manifest.tsv")).expect("manifest");
    let mut context = Context { working_directory: corpus.clone(), ..Context::default() };
    context.command_line.gpus = Some(8);
    // torchtune's own files leave the length to the data.
    let mut settings = Loaded::default();
    settings.content.assume.sequence_length = std::num::NonZeroU64::new(2048);
    context.settings.explicit = Some(settings);
    let mut rules: BTreeMap<(String, &str, &str), usize> = BTreeMap::new();
    let mut shares: BTreeMap<String, (usize, usize, usize)> = BTreeMap::new();
    let mut reasons: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut false_alarms = Vec::new();
    for line in manifest.lines().skip(1) {
        let mut cells = line.split('\t');
        let (Some("config"), Some(framework), Some(path)) = (cells.next(), cells.next(), cells.next()) else {
            continue;
        };
        if !OURS.contains(&framework) {
            continue;
        }
        let bytes = std::fs::read(corpus.join(path)).expect("corpus file");
        let syntax = Syntax::of_path(path).expect("syntax");
        let Some(report): Option<FileReport> = check_bytes(path, bytes, syntax, false, &context) else {
            continue;
        };
        for finding in &report.findings {
            *rules.entry((framework.to_owned(), finding.severity.as_str(), finding.rule)).or_default() += 1;
            let proven = PROVEN.iter().any(|(end, rule, word)| {
                path.ends_with(end) && finding.rule == *rule && finding.message.contains(word)
            });
            // Eight GPUs are this test's own claim.
            if finding.severity == Severity::Error && !proven && finding.rule != "world-size-mismatch" {
                false_alarms.push(format!("{path}: {}: {}", finding.rule, finding.message));
            }
        }
        if report.kind == Kind::Run {
            let share = shares.entry(framework.to_owned()).or_default();
            share.0 += 1;
            share.1 += usize::from(report.run.is_some());
            share.2 += usize::from(report.estimate.is_some());
            if report.estimate.is_none() {
                for unknown in &report.unknown {
                    let why = unknown.why.split('`').step_by(2).collect::<Vec<_>>().join("…");
                    *reasons
                        .entry((framework.to_owned(), format!("{}: {why}", unknown.what)))
                        .or_default() += 1;
                }
            }
        }
    }
    for ((framework, severity, rule), n) in &rules {
        println!("{framework:12} {severity:8} {rule:28} {n}");
    }
    for (framework, (runs, lowered, estimated)) in &shares {
        println!("{framework:12} {runs} runs, {lowered} lowered, {estimated} estimated on 8 GPUs");
    }
    for ((framework, reason), n) in &reasons {
        println!("{framework:12} {n:4} {reason}");
    }
    assert_eq!(false_alarms, [] as [String; 0]);
    for (framework, (runs, lowered, _)) in &shares {
        // What is not lowered is no language model, or layers and experts that are not modelled.
        assert!(lowered * 100 >= runs * 75, "{framework}: {lowered} of {runs} lowered");
    }
}
