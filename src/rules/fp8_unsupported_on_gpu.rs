//! fp8 on GPUs without fp8 arithmetic.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::run::Dtype;

declare_rule! {
    /// ## What it does
    ///
    /// Reports fp8 compute on a GPU without fp8 arithmetic (NVIDIA before Ada and Hopper).
    ///
    /// ## Why
    ///
    /// Transformer Engine and torchao ask for compute capability 8.9 or higher and stop without it.
    ///
    /// ## Example
    ///
    /// ```yaml title="run.yaml" mark="fp8"
    /// llmlint: 1
    /// model: { id: meta-llama/Llama-3.2-1B }
    /// training:
    ///   compute: fp8
    ///   micro_batch_size: 1
    ///   sequence_length: 2048
    /// ```
    ///
    /// ```console
    /// $ llmlint run.yaml --gpu A100-80GB --gpus 1
    /// ```
    ///
    /// ## The fix
    ///
    /// Use bf16 on this GPU, or an H100, L40S or newer.
    ///
    /// ```diff title="run.yaml"
    /// -  compute: fp8
    /// +  compute: bf16
    /// ```
    Fp8UnsupportedOnGpu, "fp8-unsupported-on-gpu", Error, "fp8 on a GPU without fp8 arithmetic"
}

impl Fp8UnsupportedOnGpu {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(gpu)) = (file.run, file.budget.and_then(|budget| budget.gpu)) else { return };
        // fp8 weights alone are storage; only arithmetic needs the hardware.
        if gpu.fp8 || run.compute.value != Dtype::Fp8 {
            return;
        }
        let Some(location) = run.compute.origin.location() else { return };
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Error,
                location,
                format!("{} has no fp8 arithmetic", gpu.name),
            )
            .note("It needs NVIDIA compute capability 8.9 or higher (Ada, Hopper, Blackwell).")
            .help("use bf16, or a GPU with fp8 such as H100 or L40S"),
        );
    }
}
