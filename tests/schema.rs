//! The derived schema in `schemas/` is the one the types give.

/// `LLMLINT_UPDATE=1 cargo test --test schema` writes the file anew.
#[test]
fn native_schema_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/llmlint.schema.json");
    let derived = serde_json::to_string_pretty(&llmlint::framework::native::derived_schema())
        .expect("serialises")
        + "\n";
    if std::env::var_os("LLMLINT_UPDATE").is_some() {
        std::fs::write(path, &derived).expect("schema is writable");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == derived,
        "schemas/llmlint.schema.json is stale: run LLMLINT_UPDATE=1 cargo test --test schema"
    );
}
