//! Rows of the judges' tables as native config files, and the estimate of a native config file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use llmlint::catalog::Architecture;
use llmlint::document::{Document, Syntax};
use llmlint::framework::{Framework, Lowering, native::Native};
use llmlint::memory::{Estimate, estimate};
use llmlint::source::Source;

/// A CSV row by column name.
pub(crate) type Row = BTreeMap<String, String>;

/// Reads a CSV file; quoted fields may hold commas.
pub(crate) fn read_csv(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut records = records(&text).into_iter();
    let header = records.next().unwrap_or_default();
    records.map(|fields| header.iter().cloned().zip(fields).collect()).collect()
}

fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            '\r' if !quoted => {}
            _ => field.push(c),
        }
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    records
}

/// The judges' folder, when it is there.
pub(crate) fn shared() -> Option<PathBuf> {
    let root = std::env::var_os("LLMLINT_SHARED").map(PathBuf::from);
    let path = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    path.join("truth").is_dir().then_some(path)
}

/// A model's shape from its config.json.
pub(crate) fn architecture(shared: &Path, model: &str) -> Result<Architecture, String> {
    let path = shared.join("truth/model-configs").join(model).join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    match serde_json::from_str(&text) {
        Ok(serde_json::Value::Object(config)) => Architecture::from_config(&config),
        _ => Err(format!("{}: no object", path.display())),
    }
}

/// Lowers a native config and estimates it.
pub(crate) fn estimate_native(text: &str, architecture: &Architecture) -> Result<Estimate, String> {
    let source = Source::new("row.yaml", text);
    let document = Document::parse(&source, Syntax::Yaml);
    let root = document.root(Native.dialect(Syntax::Yaml)).ok_or("does not parse")?;
    let mut cx = Lowering::new(root, &source, Path::new("."), Path::new("."));
    let run = Native.lower(&mut cx).ok_or_else(|| format!("does not lower: {:?}", cx.unknown))?;
    estimate(&run, architecture).map_err(|unknown| {
        unknown.iter().map(|u| format!("{}: {}", u.what, u.why)).collect::<Vec<_>>().join("; ")
    })
}

/// A measured row, whose cells hold the parts of a native config: the config, and its estimate.
pub(crate) fn measured_row(row: &Row) -> (String, Result<Estimate, String>) {
    let Ok(serde_json::Value::Object(config)) = serde_json::from_str(&row["model"]) else {
        panic!("{}: model", row["id"])
    };
    let text = format!(
        "{{ llmlint: 1, model: {}, training: {}, parallelism: {} }}",
        row["model"], row["training"], row["parallelism"]
    );
    let architecture = Architecture::from_config(&config).unwrap_or_else(|e| panic!("{}: {e}", row["id"]));
    let mut estimated = estimate_native(&text, &architecture);
    if let (Ok(estimate), Some(name)) = (&mut estimated, row.get("gpu").filter(|name| !name.is_empty())) {
        let gpu = llmlint::catalog::gpus::find(name).unwrap_or_else(|_| panic!("{}: gpu", row["id"]));
        estimate.on_card(gpu.usable);
    }
    (text, estimated)
}

/// A traced row as the native config that means the same.
pub(crate) fn oracle_row(row: &Row) -> String {
    let get = |key: &str| row.get(key).map_or("", String::as_str);
    let is = |key: &str| get(key) == "True";
    let mut t = String::new();
    let mut put = |key: &str, value: &str| {
        let _ = writeln!(t, "  {key}: {value}");
    };
    let lora = get("lora_r") != "0" && !get("lora_r").is_empty();
    put("weights", get("param_dtype"));
    let autocast = get("autocast") != "none" && !get("autocast").is_empty();
    put("compute", if autocast { get("autocast") } else { get("param_dtype") });
    put("autocast", if autocast { "true" } else { "false" });
    let (optimizer, implementation) = match get("optimizer") {
        "adamw_fused" => ("adamw", "fused"),
        "adamw_single" => ("adamw", "for-loop"),
        "sgd_single" => ("sgd", "for-loop"),
        "sgd_momentum" => ("sgd-momentum", "foreach"),
        "sgd_momentum_fused" => ("sgd-momentum", "fused"),
        "torch_adafactor" => ("torch-adafactor", "foreach"),
        "bnb_adamw8bit" => ("adamw-8bit", "foreach"),
        "bnb_paged_adamw8bit" => ("paged-adamw-8bit", "foreach"),
        "bnb_paged_adamw32bit" => ("paged-adamw-32bit", "foreach"),
        "bnb_adamw32bit" => ("adamw-32bit", "foreach"),
        "bnb_lion32bit" => ("lion", "foreach"),
        "bnb_lion8bit" => ("lion-8bit", "foreach"),
        other => (other, "foreach"),
    };
    put("optimizer", optimizer);
    put("optimizer_implementation", implementation);
    put("micro_batch_size", get("micro_batch"));
    put("sequence_length", get("seq_len"));
    if !get("tgt_len").is_empty() {
        put("target_length", get("tgt_len"));
    }
    put("gradient_accumulation_steps", get("accum"));
    put("activation_checkpointing", get("ckpt"));
    put(
        "attention",
        match get("attn") {
            "eager" => "eager",
            "sdpa:math" => "sdpa-math",
            _ => "sdpa",
        },
    );
    let liger = is("liger");
    put(
        "loss",
        match get("loss") {
            "hf" if liger => "fused",
            "hf" => "full",
            "no_upcast" => "full-no-upcast",
            "old_hf_shift" => "full-shifted",
            "chunked8" => "{ chunked: 8 }",
            _ => "fused",
        },
    );
    if liger {
        put("kernels", "liger");
    }
    if is("clip") {
        put("gradient_clipping", "1.0");
    }
    if !get("dropout").is_empty() {
        put("dropout", get("dropout"));
    }
    if get("mask") == "padded" {
        // A mask over rows that all have the full length.
        put("batching", "padded");
        put("sequence_lengths", "{ full: 1 }");
    }
    if is("keep_outputs") {
        put("keep_logits", "true");
    }
    if lora {
        put("method", if get("quant") == "none" { "lora" } else { "qlora" });
        put(
            "quantization",
            match get("quant") {
                "nf4" => "nf4-double",
                other => other,
            },
        );
        put("prepare_kbit", if is("kbit_prep") { "true" } else { "false" });
        let targets = match get("lora_targets") {
            "all-linear" => "all-linear".to_owned(),
            names => format!("[{}]", names.replace('+', ", ")),
        };
        let dtype = if is("lora_fp32") { "fp32" } else { "bf16" };
        put(
            "lora",
            &format!(
                "{{ rank: {}, targets: {targets}, dropout: {}, dtype: {dtype} }}",
                get("lora_r"),
                get("lora_dropout")
            ),
        );
    }
    format!("llmlint: 1\nmodel: {{ id: row }}\ntraining:\n{t}parallelism:\n  gpus: 1\n")
}

/// A traced row of sharded training as the native config that means the same.
pub(crate) fn sharded_row(row: &Row) -> String {
    let get = |key: &str| row.get(key).map_or("", String::as_str);
    let strategy = get("strategy");
    let mut t = String::new();
    let mut put = |key: &str, value: &str| {
        let _ = writeln!(t, "  {key}: {value}");
    };
    put("weights", get("master"));
    put("compute", get("compute"));
    put("optimizer", "adamw");
    put("optimizer_implementation", if strategy.starts_with("zero") { "foreach" } else { "fused" });
    put("micro_batch_size", get("micro_batch"));
    put("sequence_length", get("seq_len"));
    put("gradient_accumulation_steps", get("accum"));
    put("activation_checkpointing", get("ckpt"));
    let mut p = format!("  gpus: {}\n", get("world"));
    let _ = match strategy {
        "ddp" => writeln!(p, "  data_parallel: ddp"),
        "ddp_view" => writeln!(p, "  data_parallel: ddp\n  ddp_bucket_view: true"),
        s if s.starts_with("fsdp") => writeln!(
            p,
            "  data_parallel: fsdp\n  fsdp: {{ version: {}, reshard_after_forward: {}, reduce: {} }}",
            if s.starts_with("fsdp1") { 1 } else { 2 },
            !matches!(s, "fsdp2_noreshard" | "fsdp1_grad_op"),
            // The traces have a policy only where something is cast.
            get(if get("master") == get("compute") { "compute" } else { "reduce" })
        ),
        s => writeln!(
            p,
            "  data_parallel: {s}\n  zero: {{ reduce_bucket_size: {}, overlap_comm: {} }}",
            get("bucket"),
            get("overlap").to_lowercase()
        ),
    };
    format!("llmlint: 1\nmodel: {{ id: row }}\ntraining:\n{t}parallelism:\n{p}")
}
