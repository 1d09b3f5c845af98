//! Findings that are known and accepted: a baseline file silences them until they change.

use std::collections::BTreeMap;

use crate::check::Report;
use crate::report::fingerprint;

/// The file's content: fingerprints by path, as hexadecimal, each as often as it occurs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    version: u32,
    findings: BTreeMap<String, Vec<String>>,
}

impl Baseline {
    /// The baseline that silences everything a report says.
    pub fn of(report: &Report) -> Baseline {
        let mut findings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in &report.files {
            for finding in &file.findings {
                findings
                    .entry(file.path.clone())
                    .or_default()
                    .push(format!("{:016x}", fingerprint(file, finding)));
            }
        }
        Baseline { version: 1, findings }
    }

    /// Reads a baseline.
    ///
    /// # Errors
    /// Why the text is none.
    pub fn parse(text: &str) -> Result<Baseline, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    /// As text, stable so that it can be committed.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Takes known findings out of a report, each as often as the baseline has it.
    pub fn apply(&self, report: &mut Report) {
        for file in &mut report.files {
            let mut known = self.findings.get(&file.path).cloned().unwrap_or_default();
            let mut kept = Vec::new();
            for finding in std::mem::take(&mut file.findings) {
                let print = format!("{:016x}", fingerprint(file, &finding));
                match known.iter().position(|k| *k == print) {
                    Some(at) => {
                        known.swap_remove(at);
                        file.suppressed += 1;
                    }
                    None => kept.push(finding),
                }
            }
            file.findings = kept;
        }
    }
}
