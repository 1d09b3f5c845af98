//! "Did you mean": names that look alike, and the names that other frameworks have for the same
//! thing.

/// The candidates that `word` may be a slip for, best first, at most three: same letters but for
/// case and separators, or few edits for its length.
pub fn near<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_', '.', ' '], "");
    let (lower, bare) = (word.to_ascii_lowercase(), plain(word));
    let mut scored: Vec<(usize, f64, &str)> = candidates
        .filter(|candidate| *candidate != word)
        .filter_map(|candidate| {
            if plain(candidate) == bare {
                return Some((0, 1.0, candidate));
            }
            let other = candidate.to_ascii_lowercase();
            let distance = strsim::damerau_levenshtein(&lower, &other);
            let similar = strsim::jaro_winkler(&lower, &other);
            let shorter = lower.chars().count().min(other.chars().count());
            // Two edits make one short word of any other; long names may slip a little more.
            let allowed = if shorter < 5 { 1 } else { 2.max(shorter / 8) };
            (distance <= allowed || similar >= 0.95).then_some((distance, similar, candidate))
        })
        .collect();
    scored.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(b.2)));
    scored.dedup_by(|a, b| a.2 == b.2);
    scored.into_iter().take(3).map(|(_, _, name)| name.to_owned()).collect()
}

/// Names of one thing in several frameworks. A framework that is not in a row has no such key.
/// Dotted names are paths. Source: the key maps of each framework's own file here.
const EQUIVALENTS: &[&[(&str, &str)]] = &[
    &[
        ("axolotl", "base_model"),
        ("llama-factory", "model_name_or_path"),
        ("trl", "model_name_or_path"),
        ("litgpt", "checkpoint_dir"),
        ("ms-swift", "model"),
    ],
    &[
        ("axolotl", "sequence_len"),
        ("llama-factory", "cutoff_len"),
        ("trl", "max_length"),
        ("trl", "max_seq_length"),
        ("torchtune", "tokenizer.max_seq_len"),
        ("torchtitan", "training.seq_len"),
        ("litgpt", "train.max_seq_length"),
        ("llm-foundry", "max_seq_len"),
        ("unsloth", "max_seq_length"),
    ],
    &[
        ("axolotl", "micro_batch_size"),
        ("llama-factory", "per_device_train_batch_size"),
        ("trl", "per_device_train_batch_size"),
        ("torchtune", "batch_size"),
        ("torchtitan", "training.local_batch_size"),
        ("litgpt", "train.micro_batch_size"),
        ("llm-foundry", "device_train_microbatch_size"),
        ("deepspeed", "train_micro_batch_size_per_gpu"),
    ],
    &[
        ("axolotl", "eval_batch_size"),
        ("llama-factory", "per_device_eval_batch_size"),
        ("trl", "per_device_eval_batch_size"),
        ("llm-foundry", "device_eval_batch_size"),
    ],
    &[
        ("axolotl", "num_epochs"),
        ("llama-factory", "num_train_epochs"),
        ("trl", "num_train_epochs"),
        ("torchtune", "epochs"),
        ("litgpt", "train.epochs"),
    ],
    &[("axolotl", "optimizer"), ("llama-factory", "optim"), ("trl", "optim"), ("torchtune", "optimizer")],
    &[("axolotl", "lr_scheduler"), ("llama-factory", "lr_scheduler_type"), ("trl", "lr_scheduler_type")],
    &[
        ("axolotl", "lora_r"),
        ("llama-factory", "lora_rank"),
        ("trl", "lora_r"),
        ("ms-swift", "lora_rank"),
        ("torchtune", "model.lora_rank"),
    ],
    &[
        ("axolotl", "lora_target_modules"),
        ("llama-factory", "lora_target"),
        ("trl", "lora_target_modules"),
        ("ms-swift", "target_modules"),
    ],
    &[
        ("axolotl", "lora_modules_to_save"),
        ("llama-factory", "additional_target"),
        ("trl", "lora_modules_to_save"),
        ("ms-swift", "modules_to_save"),
    ],
    &[("axolotl", "peft_use_dora"), ("llama-factory", "use_dora"), ("trl", "use_dora")],
    &[("axolotl", "peft_use_rslora"), ("llama-factory", "use_rslora"), ("trl", "use_rslora")],
    &[("axolotl", "adapter"), ("llama-factory", "finetuning_type"), ("trl", "use_peft")],
    &[("axolotl", "rl"), ("llama-factory", "stage"), ("ms-swift", "rlhf_type")],
    &[
        ("axolotl", "attn_implementation"),
        ("llama-factory", "flash_attn"),
        ("trl", "attn_implementation"),
        ("ms-swift", "attn_impl"),
    ],
    &[
        ("axolotl", "sample_packing"),
        ("llama-factory", "packing"),
        ("trl", "packing"),
        ("torchtune", "dataset.packed"),
    ],
    &[
        ("axolotl", "gradient_checkpointing"),
        ("trl", "gradient_checkpointing"),
        ("torchtune", "enable_activation_checkpointing"),
        ("torchtitan", "activation_checkpoint.mode"),
        ("llm-foundry", "fsdp_config.activation_checkpointing"),
    ],
    &[
        ("axolotl", "activation_offloading"),
        ("trl", "activation_offloading"),
        ("torchtune", "enable_activation_offloading"),
    ],
    &[
        ("axolotl", "max_grad_norm"),
        ("llama-factory", "max_grad_norm"),
        ("trl", "max_grad_norm"),
        ("deepspeed", "gradient_clipping"),
        ("torchtune", "clip_grad_norm"),
        ("torchtitan", "training.max_norm"),
    ],
    &[
        ("axolotl", "context_parallel_size"),
        ("torchtitan", "parallelism.context_parallel_degree"),
        ("ms-swift", "sequence_parallel_size"),
    ],
    &[
        ("axolotl", "tensor_parallel_size"),
        ("torchtitan", "parallelism.tensor_parallel_degree"),
        ("torchtune", "tensor_parallel_dim"),
    ],
    &[("axolotl", "torch_compile"), ("trl", "torch_compile"), ("torchtune", "compile")],
    &[("axolotl", "evals_per_epoch"), ("llama-factory", "eval_steps"), ("trl", "eval_steps")],
    &[("axolotl", "val_set_size"), ("llama-factory", "val_size")],
    &[("axolotl", "chat_template"), ("llama-factory", "template")],
    &[("axolotl", "datasets"), ("llama-factory", "dataset"), ("trl", "dataset_name")],
    &[("axolotl", "load_in_4bit"), ("llama-factory", "quantization_bit"), ("trl", "load_in_4bit")],
    &[("axolotl", "trust_remote_code"), ("llama-factory", "trust_remote_code"), ("trl", "trust_remote_code")],
    &[("axolotl", "wandb_project"), ("trl", "report_to"), ("llama-factory", "report_to")],
    &[
        ("axolotl", "liger_fused_linear_cross_entropy"),
        ("llama-factory", "enable_liger_kernel"),
        ("trl", "use_liger_kernel"),
    ],
    &[("axolotl", "trl.beta"), ("llama-factory", "pref_beta"), ("trl", "beta")],
    &[
        ("axolotl", "neftune_noise_alpha"),
        ("llama-factory", "neftune_noise_alpha"),
        ("trl", "neftune_noise_alpha"),
    ],
];

/// The framework whose name for something `key` is, and `framework`'s own name for that thing.
pub fn elsewhere(framework: &str, key: &str) -> Option<(&'static str, Option<&'static str>)> {
    let named = |name: &str| name == key || name.rsplit('.').next() == Some(key);
    let mut found = None;
    for row in EQUIVALENTS {
        if row.iter().any(|(whose, name)| *whose == framework && *name == key) {
            return None;
        }
        let Some((whose, _)) = row.iter().find(|(whose, name)| *whose != framework && named(name)) else {
            continue;
        };
        let own = row.iter().find(|(whose, _)| *whose == framework).map(|(_, name)| *name);
        if found.is_none() || own.is_some() {
            found = Some((*whose, own));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let known = ["sequence_len", "learning_rate", "lora_r", "lr_scheduler", "tf32", "bf16", "fp16"];
        let near = |word: &str| near(word, known.iter().copied());
        assert_eq!(near("sequence_length"), ["sequence_len"]);
        assert_eq!(near("sequnce_len"), ["sequence_len"]);
        assert_eq!(near("sequence-len"), ["sequence_len"]);
        assert_eq!(near("LearningRate"), ["learning_rate"]);
        assert_eq!(near("lora_alpha"), [""; 0]);
    }

    #[test]
    fn another_frameworks_name_leads_to_ones_own() {
        assert_eq!(elsewhere("axolotl", "cutoff_len"), Some(("llama-factory", Some("sequence_len"))));
        assert_eq!(elsewhere("llama-factory", "sequence_len"), Some(("axolotl", Some("cutoff_len"))));
        assert_eq!(elsewhere("axolotl", "nonsense"), None);
    }
}
