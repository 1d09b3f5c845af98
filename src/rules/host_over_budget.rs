//! Offloaded states that the host has no room for.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::memory::Driver;

declare_rule! {
    /// ## What it does
    ///
    /// Compares what a node's processes keep in host memory (offloaded optimizer states, gradients
    /// and weights, pinned buffers) with the host memory that is declared, and, as a warning, what
    /// they may need while each of them loads the checkpoint.
    ///
    /// ## Why
    ///
    /// Offloading moves bytes, it does not save them. A host that runs out is worse than a GPU
    /// that does: the kernel kills a process, and the others wait for it without a message.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml"
    /// base_model: meta-llama/Llama-3.1-70B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 2048
    /// micro_batch_size: 1
    /// gradient_checkpointing: true
    /// learning_rate: 1.0e-5
    /// bf16: true
    /// attn_implementation: flash_attention_2
    /// deepspeed: ds_zero3_offload.json
    /// ```
    ///
    /// ```json title="ds_zero3_offload.json" mark="\"cpu\""
    /// {
    ///   "bf16": { "enabled": true },
    ///   "train_micro_batch_size_per_gpu": "auto",
    ///   "gradient_accumulation_steps": "auto",
    ///   "zero_optimization": {
    ///     "stage": 3,
    ///     "offload_optimizer": { "device": "cpu" }
    ///   }
    /// }
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml --gpu H100-80GB --gpus 8 --host-memory 512GiB
    /// ```
    ///
    /// ## The fix
    ///
    /// Use more nodes, keep states in 8 bits, train an adapter, whose states are small, or stop
    /// offloading.
    ///
    /// ```diff title="sft.yaml"
    ///  base_model: meta-llama/Llama-3.1-70B
    /// +adapter: lora
    /// +lora_r: 16
    /// +lora_alpha: 32
    /// +lora_target_linear: true
    /// ```
    HostOverBudget, "host-over-budget", Error, "offloaded states need more host memory than there is"
}

impl HostOverBudget {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(estimate), Some(budget)) = (file.run, file.estimate, file.budget) else {
            return;
        };
        let Some(available) = budget.host_memory else { return };
        let place = |drivers: &[Driver]| {
            drivers.iter().find_map(|driver| driver.origin(run)?.location()).unwrap_or_default()
        };
        if estimate.host > available {
            findings.push(
                Finding::new(
                    Self::NAME,
                    Severity::Error,
                    place(&[Driver::Offload, Driver::DataParallel, Driver::Optimizer]),
                    format!(
                        "offloaded states need {} of host memory, {} more than the {available} of {}",
                        estimate.host,
                        estimate.host - available,
                        budget.declared_in,
                    ),
                )
                .at(format!("{} go to the host", estimate.host))
                .note("a host that runs out of memory kills processes without a word to the others")
                .help("offload to NVMe, keep optimizer states in 8 bits, or spread the run over more nodes"),
            );
        } else if estimate.host_loading > available {
            findings.push(
                Finding::new(
                    Self::NAME,
                    Severity::Warning,
                    place(&[Driver::DataParallel, Driver::Gpus, Driver::Model]),
                    format!(
                        "loading the weights in every process may take {} of host memory, {} more than the \
                         {available} of {}",
                        estimate.host_loading,
                        estimate.host_loading - available,
                        budget.declared_in,
                    ),
                )
                .note("each process reads the checkpoint into memory of its own before it moves it to its card")
                .help("FSDP's `cpu_ram_efficient_loading` has one process read it; ZeRO-3 divides it as it is read"),
            );
        }
    }
}
