//! Files that do not parse: which of them would be training configs if they did.

/// Text that a program fills in before anybody loads it: `${zero_stage}`, `{{ model }}`, or a
/// bare word in capitals where JSON needs a value (`"train_batch_size": GB_SIZE`).
fn is_template(text: &str) -> bool {
    let bare = |line: &str| {
        line.split_once("\":").map(|(_, rest)| rest.trim().trim_end_matches(',')).is_some_and(|value| {
            value.len() > 1
                && value.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
                && value.starts_with(|c: char| c.is_ascii_uppercase())
        })
    };
    text.contains("${") || text.contains("{{") || text.lines().any(bare)
}

/// A file that does not parse cannot be recognised by its keys; a training config that lost a
/// quote should still be reported. Three well-known keys at line starts make it one.
pub(super) fn looks_like_training(text: &str) -> bool {
    const KEYS: [&str; 31] = [
        "base_model",
        "model_name_or_path",
        "micro_batch_size",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "sequence_len",
        "cutoff_len",
        "num_epochs",
        "num_train_epochs",
        "lora_r",
        "bf16",
        "optimizer",
        "deepspeed",
        "pipe_parallel_size",
        "pipe-parallel-size",
        "num_layers",
        "num-layers",
        "hidden_size",
        "hidden-size",
        "seq_length",
        "seq-length",
        "local_batch_size",
        "global_batch_size",
        "flavor",
        "enable_activation_checkpointing",
        "max_seq_len",
        "lora_rank",
        "global_train_batch_size",
        "device_train_microbatch_size",
        "max_duration",
    ];
    let starts = text
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '"', '\'']).split([':', '=', '"', ' ']).next());
    let mut seen: Vec<&str> = starts.filter(|word| KEYS.contains(word)).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.len() >= 3 && !is_template(text)
}
