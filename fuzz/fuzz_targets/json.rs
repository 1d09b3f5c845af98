//! Any text is read, and every span of the tree lies in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmlint::document::{Dialect, Document, NodeId, Syntax};
use llmlint::source::Source;

fuzz_target!(|text: &str| {
    let source = Source::new("a.json", text);
    let document = Document::parse(&source, Syntax::Json);
    for id in 0..document.len() as u32 {
        let span = document.node(NodeId(id)).span;
        assert!(text.get(span.range()).is_some(), "{span:?} is not in the text");
    }
    if let Some(root) = document.root(Dialect::Json) {
        let _ = root.to_json();
    }
});
