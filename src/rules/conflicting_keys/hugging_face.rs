//! Refusals of transformers' Trainer and of TRL's trainers: transformers 5.23
//! `training_args.py` (`__post_init__`) and `trainer.py`, TRL 1.16 `trainer/*_config.py` and
//! `trainer/*_trainer.py`.

use super::Test::{Given, Off, On};
use super::{Conflict, refused};

/// Everything on the Trainer.
pub(super) const CONFLICTS: &[Conflict] =
    &[refused(On("fp16"), On("bf16"), "Only one of the two 16-bit formats can be used.")];

/// TRL's own.
pub(super) const TRL: &[Conflict] = &[
    refused(On("load_in_4bit"), On("load_in_8bit"), "Weights are quantised one way or the other."),
    refused(
        On("load_in_4bit"),
        Off("use_peft"),
        "Quantised weights can only be trained through adapters, and `use_peft` is off by default.",
    ),
    refused(
        On("load_in_8bit"),
        Off("use_peft"),
        "Quantised weights can only be trained through adapters, and `use_peft` is off by default.",
    ),
    refused(On("sync_ref_model"), On("use_peft"), "With adapters there is no reference model to update."),
    refused(
        On("sync_ref_model"),
        On("precompute_ref_log_probs"),
        "What was computed beforehand cannot follow a reference that changes.",
    ),
    refused(Given("generation_batch_size"), Given("steps_per_generation"), "One follows from the other."),
];
