//! Offloaded states that the host has no room for.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::memory::Driver;

declare_rule! {
    /// ## What it does
    ///
    /// Compares what a node's processes keep in host memory (offloaded optimizer states and
    /// weights) with the host memory that is declared.
    ///
    /// ## Why
    ///
    /// Offloading moves bytes, it does not save them. A host that runs out is worse than a GPU
    /// that does: the kernel kills a process, and the others wait for it without a message.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// llmlint: 1
    /// model: { id: meta-llama/Llama-3.1-70B }
    /// training: { method: full, weights: bf16, optimizer: adamw, micro_batch_size: 1, sequence_length: 2048 }
    /// parallelism: { gpus: 8, data_parallel: zero3, offload: { optimizer: cpu } }
    /// budget: { gpu: H100-80GB, gpus: 8, host_memory: 256GiB }
    /// ```
    ///
    /// ## The fix
    ///
    /// Offload to NVMe, use more nodes, keep states in 8 bits, or stop offloading.
    HostOverBudget, "host-over-budget", Error, "offloaded states need more host memory than there is"
}

impl HostOverBudget {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(estimate), Some(budget)) = (file.run, file.estimate, file.budget) else {
            return;
        };
        let Some(available) = budget.host_memory.filter(|available| estimate.host > *available) else {
            return;
        };
        let location = [Driver::Offload, Driver::DataParallel, Driver::Optimizer]
            .iter()
            .find_map(|driver| driver.origin(run)?.location())
            .unwrap_or_default();
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Error,
                location,
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
    }
}
