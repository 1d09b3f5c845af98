//! Runs that have a budget and no estimate.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::framework::Kind;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Says what is missing when a run has a budget and its memory cannot be worked out.
    ///
    /// ## Why
    ///
    /// Silence would look like "it fits".
    ///
    /// ## Example
    ///
    /// ```yaml
    /// llmlint: 1
    /// model: { id: our-lab/secret-13b }
    /// training: { method: full, micro_batch_size: 1, sequence_length: 2048 }
    /// budget: { gpu: H100-80GB, gpus: 8 }
    /// ```
    ///
    /// ## The fix
    ///
    /// Declare what the notes name: a model's shape under `[models."our-lab/secret-13b"]` in
    /// `llmlint.toml`, or the number of GPUs with `--gpus`.
    EstimateUnknown, "estimate-unknown", Note, "whether the run fits is not known"
}

impl EstimateUnknown {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        if file.kind != Kind::Run
            || file.budget.is_none()
            || file.estimate.is_some()
            || file.unknown.is_empty()
        {
            return;
        }
        let missing: Vec<&str> = file.unknown.iter().map(|unknown| unknown.what.as_str()).collect();
        let location = file.unknown.iter().find_map(|unknown| unknown.location);
        let mut finding = Finding::new(
            Self::NAME,
            Severity::Note,
            location.unwrap_or_default(),
            format!("whether this run fits is not known: {}", missing.join(", ")),
        );
        for unknown in file.unknown {
            finding = finding.note(format!("{}: {}", unknown.what, unknown.why));
        }
        let labels = file.unknown.iter().filter_map(|unknown| Some((unknown.location?, &unknown.what)));
        let mut seen: Vec<Location> = Vec::new();
        for (place, what) in labels {
            if Some(place) == location {
                if finding.primary.text.is_empty() {
                    finding = finding.at(what.clone());
                }
            } else if !seen.contains(&place) {
                seen.push(place);
                finding = finding.label(place, what.clone());
            }
        }
        findings.push(finding);
    }
}
