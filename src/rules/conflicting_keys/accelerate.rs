//! Refusals of `accelerate launch`: accelerate 1.15 `utils/dataclasses.py`
//! (`_deepspeed_config_checks`, `DeepSpeedPlugin`) and `utils/launch.py`.

use super::Test::{Given, Is, IsNot, On};
use super::{Conflict, dropped, refused};

const FILE: &str = "deepspeed_config.deepspeed_config_file";
const WHY: &str = "With a DeepSpeed file, these settings belong in that file; Accelerate refuses them here.";
const STAGE: &str = "deepspeed_config.zero_stage";

pub(super) const CONFLICTS: &[Conflict] = &[
    refused(Given("deepspeed_config.gradient_accumulation_steps"), Given(FILE), WHY),
    refused(Given("deepspeed_config.gradient_clipping"), Given(FILE), WHY),
    refused(Given(STAGE), Given(FILE), WHY),
    refused(Given("deepspeed_config.offload_optimizer_device"), Given(FILE), WHY),
    refused(Given("deepspeed_config.offload_param_device"), Given(FILE), WHY),
    refused(Given("deepspeed_config.offload_optimizer_nvme_path"), Given(FILE), WHY),
    refused(Given("deepspeed_config.offload_param_nvme_path"), Given(FILE), WHY),
    refused(Given("deepspeed_config.zero3_save_16bit_model"), Given(FILE), WHY),
    refused(
        On("fsdp_config.fsdp_cpu_ram_efficient_loading"),
        Is("fsdp_config.fsdp_sync_module_states", &["false"]),
        "Only one rank loads the weights, so the others must be sent them.",
    ),
    dropped(
        On("deepspeed_config.zero3_init_flag"),
        IsNot(STAGE, &["3"]),
        "Only stage 3 partitions weights while they are made; Accelerate switches the flag off.",
    ),
    dropped(
        Is("deepspeed_config.offload_param_device", &["cpu", "nvme"]),
        IsNot(STAGE, &["3"]),
        "Below stage 3 every GPU holds all weights, and nothing of them is offloaded.",
    ),
    dropped(
        Given("deepspeed_config.zero_stage"),
        IsNot("distributed_type", &["DEEPSPEED"]),
        "The section is read only with `distributed_type: DEEPSPEED`.",
    ),
    dropped(
        Given("fsdp_config.fsdp_sharding_strategy"),
        IsNot("distributed_type", &["FSDP"]),
        "The section is read only with `distributed_type: FSDP`.",
    ),
];
