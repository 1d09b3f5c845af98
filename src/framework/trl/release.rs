//! Which release of TRL a file is for. Defaults changed a lot; a declared version decides, else
//! the newest release that still has every key of the file.

use super::super::Lowering;
use super::super::rollout::Facts;
use crate::document::Value;

/// The newest release whose keys and defaults are known.
pub(super) const NEWEST: &str = "trl 1.16";

/// Keys that mark a file as TRL's rather than some script's.
const OWN: &[&str] = &[
    "use_peft",
    "dtype",
    "torch_dtype",
    "attn_implementation",
    "lora_target_modules",
    "max_seq_length",
    "max_length",
    "max_prompt_length",
    "packing",
    "dataset_name",
    "dataset_mixer",
    "dataset_mixture",
    "dataset_splits",
    "dataset_num_proc",
    "dataset_text_field",
    "dataset_kwargs",
    "chat_template",
    "loss_type",
    "beta",
    "use_liger",
    "reward_funcs",
    "num_generations",
    "max_completion_length",
    "precompute_ref_log_probs",
    "assistant_only_loss",
    "completion_only_loss",
];

/// A script's own keys, which TRL never had; among them those of transformers' `run_clm.py`.
const FOREIGN: &[&str] = &[
    "train_mode",
    "train_file",
    "template_name",
    "model_max_length",
    "data_path",
    "block_size",
    "dataset_config_name",
    "validation_file",
    "validation_split_percentage",
    "overwrite_cache",
];

/// Keys that a release dropped: the last one that has them. Read from the releases themselves.
const LAST: &[(&str, (u32, u32))] = &[
    ("torch_dtype", (0, 26)),
    ("max_prompt_length", (0, 28)),
    ("max_seq_length", (0, 19)),
    ("use_liger", (0, 17)),
    ("use_flash_attention_2", (0, 8)),
    ("rpo_alpha", (0, 28)),
    ("ref_model_init_kwargs", (0, 28)),
    ("dataset_batch_size", (0, 17)),
    ("vllm_device", (0, 17)),
    ("vllm_max_model_len", (0, 17)),
    // Gone from transformers by 4.51; 0.18 is the last release that runs with an older one.
    ("evaluation_strategy", (0, 18)),
];

/// Has the file keys that only TRL reads, and none that it never had?
pub(super) fn is_trl(root: Value<'_>) -> bool {
    let written = |key: &str| root.get(key).is_some_and(|v| !v.is_null());
    OWN.iter().any(|key| root.get(key).is_some()) && !FOREIGN.iter().any(|key| written(key))
}

/// A release and how it is named in `by` lines.
pub(super) struct Release {
    number: (u32, u32),
    /// `trl 1.16`, `trl 0.26, the newest with torch_dtype`, `transformers 5.23`.
    pub(super) by: String,
    /// TRL's trainers read the file; false: only the Trainer is certain.
    pub(super) trl: bool,
    /// transformers takes FSDP 2 when nothing says otherwise (from 5.10).
    pub(super) fsdp2: bool,
}

impl Release {
    /// The release of the file that `cx` lowers.
    pub(super) fn of(cx: &Lowering<'_>) -> Release {
        let root = cx.root;
        let trl = is_trl(root);
        if let Some(declared) = &cx.declared_version {
            let number = parse(declared);
            return Release { number, by: format!("trl {declared}"), trl, fsdp2: number >= (1, 6) };
        }
        let oldest = LAST.iter().filter(|(key, _)| root.get(key).is_some()).min_by_key(|(_, last)| *last);
        match oldest {
            _ if !trl => {
                Release { number: (1, 16), by: "transformers 5.23".into(), trl, fsdp2: oldest.is_none() }
            }
            Some((key, number)) => Release {
                number: *number,
                by: format!("trl {}.{}, the newest that has `{key}`", number.0, number.1),
                trl,
                fsdp2: false,
            },
            None => Release { number: (1, 16), by: NEWEST.into(), trl, fsdp2: true },
        }
    }

    /// GRPO in this release.
    pub(super) fn rollout(&self) -> Facts<'_> {
        Facts {
            by: &self.by,
            prefix: "",
            share: "vllm_gpu_memory_utilization",
            beta: if self.at_least(0, 19) { 0.0 } else { 0.04 },
            completion: if self.at_least(1, 10) { 512 } else { 256 },
            server: !self.at_least(1, 0),
            whole_step: self.at_least(0, 18),
            liger_loss: self.at_least(0, 27),
        }
    }

    /// Is it that release or a later one?
    pub(super) fn at_least(&self, major: u32, minor: u32) -> bool {
        self.number >= (major, minor)
    }
}

fn parse(version: &str) -> (u32, u32) {
    let mut parts = version
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .split('.')
        .map(|part| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
