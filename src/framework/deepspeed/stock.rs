//! The DeepSpeed files that frameworks ship and users name without having them in the
//! repository: what they say about stage, offload, buffers and precision.
//!
//! Sources: axolotl `deepspeed_configs/` (0.18.0), LLaMA-Factory `examples/deepspeed/`
//! (ff6d4d1), ms-swift `swift/config/` (3602360).

/// What a name such as `ds_zero3_offload.json` says: the stage, and what is offloaded; everything
/// else at DeepSpeed's defaults. `None`: no stage in it, or two.
pub(super) fn by_name(base: &str) -> Option<String> {
    let lower = base.to_ascii_lowercase();
    let stem = lower.strip_suffix(".json")?;
    let named = |stage: char| {
        ["zero", "zero-", "zero_", "zero_stage", "zero-stage", "stage", "stage_", "stage-", "z"]
            .iter()
            .map(|word| format!("{word}{stage}"))
            .any(|word| {
                // `z3` within a word and `zero30` are something else.
                stem.match_indices(&word).any(|(at, _)| {
                    let before = stem[..at].chars().next_back();
                    let after = stem[at + word.len()..].chars().next();
                    before.is_none_or(|c| !c.is_ascii_alphanumeric())
                        && after.is_none_or(|c| !c.is_ascii_digit())
                })
            })
    };
    let stages: Vec<char> = ['1', '2', '3'].into_iter().filter(|stage| named(*stage)).collect();
    let [stage] = stages.as_slice() else { return None };
    let states = if stem.contains("offload") && !stem.contains("no_offload") && !stem.contains("no-offload") {
        r#", "offload_optimizer": {"device": "cpu"}"#
    } else {
        ""
    };
    let parameters =
        if *stage == '3' && !states.is_empty() { r#", "offload_param": {"device": "cpu"}"# } else { "" };
    Some(format!(
        r#"{{"zero_optimization": {{"stage": {stage}{states}{parameters}}}, "bf16": {{"enabled": "auto"}}, "fp16": {{"enabled": "auto"}}}}"#
    ))
}

/// Whose file it is and its effective content. `name` is the last part of the path, or a preset.
pub(super) fn content(name: &str) -> Option<(&'static str, &'static str)> {
    const AXOLOTL: &str = "axolotl";
    const FACTORY: &str = "LLaMA-Factory";
    const SWIFT: &str = "ms-swift";
    Some(match name {
        "zero1.json" | "zero1_torch_compile.json" => (
            AXOLOTL,
            r#"{"zero_optimization": {"stage": 1, "overlap_comm": true},
                "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#,
        ),
        "zero2.json" | "zero2_torch_compile.json" => (
            AXOLOTL,
            r#"{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}, "overlap_comm": true},
                "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#,
        ),
        "zero3.json" => (
            AXOLOTL,
            r#"{"zero_optimization": {"stage": 3, "overlap_comm": true, "sub_group_size": 0,
                "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
                "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 0},
                "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#,
        ),
        "zero3_bf16.json" => (
            AXOLOTL,
            r#"{"zero_optimization": {"stage": 3, "overlap_comm": true, "sub_group_size": 0,
                "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
                "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 0},
                "bf16": {"enabled": true}}"#,
        ),
        "zero3_bf16_cpuoffload_params.json" => (
            AXOLOTL,
            r#"{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"},
                "overlap_comm": true, "sub_group_size": 0,
                "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
                "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 0},
                "bf16": {"enabled": true}}"#,
        ),
        "zero3_bf16_cpuoffload_all.json" => (
            AXOLOTL,
            r#"{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"},
                "offload_optimizer": {"device": "cpu"}, "overlap_comm": true, "sub_group_size": 0,
                "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
                "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 0},
                "bf16": {"enabled": true}}"#,
        ),
        "ds_z0_config.json" => (
            FACTORY,
            r#"{"zero_optimization": {"stage": 0, "allgather_bucket_size": 5e8, "overlap_comm": false,
                "reduce_bucket_size": 5e8},
                "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#,
        ),
        "ds_z2_autotp_config.json" => (
            FACTORY,
            r#"{"zero_optimization": {"stage": 2, "allgather_bucket_size": 5e8, "overlap_comm": false,
                "reduce_bucket_size": 5e8}, "tensor_parallel": {"autotp_size": 2},
                "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#,
        ),
        "ds_z2_config.json" => (
            FACTORY,
            r#"{"zero_optimization": {"stage": 2, "allgather_bucket_size": 5e8, "overlap_comm": false,
                "reduce_bucket_size": 5e8},
                "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#,
        ),
        "ds_z2_offload_config.json" => (
            FACTORY,
            r#"{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"},
                "allgather_bucket_size": 5e8, "overlap_comm": false, "reduce_bucket_size": 5e8},
                "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#,
        ),
        "ds_z3_fp8_config.json" => (
            FACTORY,
            r#"{"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"},
                "overlap_comm": false, "sub_group_size": 1e9, "reduce_bucket_size": 12845056,
                "stage3_prefetch_bucket_size": 11560550, "stage3_param_persistence_threshold": 35840,
                "stage3_max_live_parameters": 1e9},
                "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#,
        ),
        "ds_z3_config.json" => (
            FACTORY,
            r#"{"zero_optimization": {"stage": 3, "overlap_comm": false, "sub_group_size": 1e9,
                "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
                "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 1e9},
                "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#,
        ),
        "ds_z3_offload_config.json" => (
            FACTORY,
            r#"{"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"},
                "offload_param": {"device": "cpu"}, "overlap_comm": false, "sub_group_size": 1e9,
                "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
                "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 1e9},
                "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#,
        ),
        "zero0" => (SWIFT, SWIFT_0),
        "zero1" => (SWIFT, SWIFT_1),
        "zero2" => (SWIFT, SWIFT_2),
        "zero2_offload" => (SWIFT, SWIFT_2_OFFLOAD),
        "zero3" => (SWIFT, SWIFT_3),
        "zero3_offload" => (SWIFT, SWIFT_3_OFFLOAD),
        _ => return None,
    })
}

const SWIFT_0: &str = r#"{"zero_optimization": {"stage": 0, "allgather_bucket_size": 2e8,
    "overlap_comm": false, "reduce_bucket_size": 2e8},
    "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#;

const SWIFT_1: &str = r#"{"zero_optimization": {"stage": 1, "allgather_bucket_size": 2e8,
    "overlap_comm": false, "reduce_bucket_size": 2e8},
    "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#;

const SWIFT_2: &str = r#"{"zero_optimization": {"stage": 2, "allgather_bucket_size": 2e8,
    "overlap_comm": false, "reduce_bucket_size": 2e8},
    "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#;

const SWIFT_2_OFFLOAD: &str = r#"{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}, "allgather_bucket_size": 2e8,
    "overlap_comm": false, "reduce_bucket_size": 2e8},
    "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#;

const SWIFT_3: &str = r#"{"zero_optimization": {"stage": 3, "overlap_comm": false, "sub_group_size": 1e9,
    "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 1e9},
    "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#;

const SWIFT_3_OFFLOAD: &str = r#"{"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"},
    "overlap_comm": false, "sub_group_size": 1e9,
    "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 1e9},
    "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Dialect, Document, Syntax};
    use crate::source::Source;

    #[test]
    fn every_stock_file_parses_and_names_a_stage() {
        for name in [
            "zero1.json",
            "zero2.json",
            "zero3.json",
            "zero3_bf16.json",
            "ds_z0_config.json",
            "ds_z2_config.json",
            "ds_z3_config.json",
            "ds_z3_fp8_config.json",
            "ds_z3_offload_config.json",
            "zero0",
            "zero1",
            "zero2",
            "zero2_offload",
            "zero3",
            "zero3_offload",
            "zero3_bf16_cpuoffload_params.json",
            "zero3_bf16_cpuoffload_all.json",
        ] {
            let text = content(name).map_or("", |(_, text)| text);
            let document = Document::parse(&Source::new(name, text), Syntax::Json);
            let stage =
                document.root(Dialect::Json).and_then(|r| r.path("zero_optimization.stage")?.as_int());
            assert!(stage.is_some(), "{name}");
        }
    }

    #[test]
    fn a_stage_is_read_out_of_a_name_that_has_one() {
        let stage = |name: &str| super::by_name(name).map(|text| (text.contains("offload_optimizer"), text));
        let of = |name: &str, stage_of: u8, offloads: bool| {
            let (found, text) = stage(name).unwrap_or_default();
            assert!(text.contains(&format!("\"stage\": {stage_of}")) && found == offloads, "{name}: {text}");
        };
        of("zero3_offload.json", 3, true);
        of("ds_zero2_no_offload.json", 2, false);
        of("deepspeed-13b-stage2.json", 2, false);
        of("ds_z3_config.json", 3, false);
        for none in ["ds_config.json", "zero30.json", "jazz3.json", "zero2_to_zero3.json", "zero3.yaml"] {
            assert_eq!(super::by_name(none), None, "{none}");
        }
    }
}
