//! A whole check of any text, as each syntax: it ends, and each finding points into the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmlint::check::{Context, check_bytes};
use llmlint::document::Syntax;

fuzz_target!(|text: &str| {
    for (name, syntax) in [("a.yaml", Syntax::Yaml), ("a.toml", Syntax::Toml), ("a.json", Syntax::Json)] {
        let context = Context { working_directory: "/nonexistent".into(), ..Context::default() };
        if let Some(report) = check_bytes(name, text.as_bytes().to_vec(), syntax, true, &context) {
            for finding in &report.findings {
                let location = finding.primary.location;
                let source = &report.sources[usize::from(location.source.0)];
                assert!(source.text.get(location.span.range()).is_some(), "{finding:?}");
            }
        }
    }
});
