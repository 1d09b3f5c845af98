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
    /// ```yaml
    /// training: { compute: fp8 }
    /// budget: { gpu: A100-80GB }
    /// ```
    ///
    /// ## The fix
    ///
    /// Use bf16 on this GPU, or an H100, L40S or newer.
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
