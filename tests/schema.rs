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

/// Editors check `llmlint.toml` with this one.
#[test]
fn settings_schema_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/llmlint.toml.schema.json");
    let schema = schemars::schema_for!(llmlint::settings::SettingsFile);
    let derived = serde_json::to_string_pretty(&schema).expect("serialises") + "\n";
    if std::env::var_os("LLMLINT_UPDATE").is_some() {
        std::fs::write(path, &derived).expect("schema is writable");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == derived, "{path} is stale: run LLMLINT_UPDATE=1 cargo test --test schema");
}

/// Every framework's schema is one: it compiles, and says which dialect it is.
#[test]
fn every_schema_is_a_schema() {
    use llmlint::framework::{ALL, Kind};
    for framework in ALL {
        for kind in [Kind::Run, Kind::Fragment, Kind::Other] {
            if let Some(text) = framework.schema(kind) {
                let schema: serde_json::Value = serde_json::from_str(text).expect("JSON");
                assert!(jsonschema::meta::is_valid(&schema), "{}: not a JSON Schema", framework.name());
            }
        }
    }
}
