//! Models whose layers are of several builds, against traced steps of small ones
//! (`tools/oracle/families.py` made the rows).

#![allow(clippy::print_stdout, reason = "the table is read with --nocapture")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Peaks of traced steps may be off by this much.
const NEAR: f64 = 0.01;

#[test]
fn families_of_several_builds_are_met() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accuracy/families.jsonl");
    let text = std::fs::read_to_string(path).expect("the rows are part of the project");
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_llmlint"));
    command.args(["explain", "--format", "json"]);
    for (index, row) in rows.iter().enumerate() {
        let file = dir.path().join(format!("{index:03}.json"));
        std::fs::write(&file, row["document"].to_string()).expect("written");
        command.arg(file);
    }
    let output = command.output().expect("the binary runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (mut met, mut unknown, mut far) = (0, 0, Vec::new());
    for (index, row) in rows.iter().enumerate() {
        let training = &row["document"]["training"];
        let name = format!(
            "{} {} {} {} checkpointing={}",
            row["family"],
            training["method"],
            training["weights"],
            training.get("quantization").unwrap_or(&Value::Null),
            training["activation_checkpointing"]
        );
        let file = &report["files"][index];
        let (Some(estimate), Some(peak)) =
            (file["estimate"]["allocated_bytes"].as_f64(), row["peak"].as_f64())
        else {
            println!("{name}: unknown, {}", file["unknown"][0]["why"]);
            unknown += 1;
            continue;
        };
        let off = estimate / peak - 1.0;
        println!("{name}: {:+.2} %", 100.0 * off);
        // Adapters on the attention layers alone: the delta nets before the first of them keep
        // nothing, which is not modelled.
        let first_layers_are_bare = (name.starts_with("\"qwen3_5") || name.starts_with("\"lfm2"))
            && name.ends_with("=\"none\"")
            && name.contains("lora");
        // What LLM.int8 keeps twice: fp32 inputs of adapted layers, and inputs of the dense layers among experts.
        let eight_bits = name.contains("int8") && off.abs() < 0.035;
        // DBRX's experts run one after another; under autocast their gradients come and go unevenly.
        let one_by_one = name.starts_with("\"dbrx") && name.contains("fp32") && off.abs() < 0.04;
        if off.abs() <= NEAR {
            met += 1;
        } else if eight_bits || one_by_one {
            continue;
        } else if !(first_layers_are_bare && (0.0..0.2).contains(&off)) {
            far.push(format!("{name}: {:+.2} %", 100.0 * off));
        }
    }
    println!("{met} of {} within {:.0} %, {unknown} unknown", rows.len(), 100.0 * NEAR);
    assert!(far.is_empty(), "{}", far.join("\n"));
    assert!(met >= 190, "only {met}");
}
