//! Which parts of a schema describe a value.

use serde_json::Value as Json;

/// A schema and everything it pulls in: `$ref`, `allOf`, `anyOf`, `oneOf`, `then`, `else`.
pub(super) fn applicable<'a>(root: &'a Json, schemas: &[&'a Json]) -> Vec<&'a Json> {
    let mut found: Vec<&Json> = Vec::new();
    let mut open: Vec<&Json> = schemas.to_vec();
    while let Some(schema) = open.pop() {
        if found.iter().any(|known| std::ptr::eq(*known, schema)) {
            continue;
        }
        found.push(schema);
        if let Some(target) = schema
            .get("$ref")
            .and_then(Json::as_str)
            .and_then(|r| r.strip_prefix('#'))
            .and_then(|pointer| root.pointer(pointer))
        {
            open.push(target);
        }
        for list in ["allOf", "anyOf", "oneOf"] {
            open.extend(schema.get(list).and_then(Json::as_array).into_iter().flatten());
        }
        open.extend(["then", "else"].iter().filter_map(|name| schema.get(*name)));
    }
    found
}

pub(super) fn properties<'a>(root: &'a Json, schemas: &[&'a Json]) -> Vec<(&'a str, &'a Json)> {
    applicable(root, schemas)
        .into_iter()
        .filter_map(|s| s.get("properties")?.as_object())
        .flatten()
        .map(|(name, schema)| (name.as_str(), schema))
        .collect()
}

pub(super) fn is_marked(property: &Json) -> bool {
    ["deprecated", "x-deprecated-in", "x-removed-in", "x-added-in"]
        .iter()
        .any(|mark| property.get(*mark).is_some())
}

/// Is the property worth suggesting: current, under its own name?
pub(super) fn suggestible(property: &Json) -> bool {
    ["deprecated", "x-deprecated-in", "x-removed-in", "x-alias-of"]
        .iter()
        .all(|mark| property.get(*mark).is_none())
}

/// The dotted path of a section one level down that has `key`, when there is exactly one.
pub(super) fn section_with(root: &Json, key: &str) -> Option<String> {
    let mut sections: Vec<&str> = properties(root, &[root])
        .into_iter()
        .filter(|(_, schema)| {
            properties(root, &[*schema]).iter().any(|(name, s)| *name == key && suggestible(s))
        })
        .map(|(name, _)| name)
        .collect();
    sections.sort_unstable();
    sections.dedup();
    match sections.as_slice() {
        [one] => Some(format!("{one}.{key}")),
        _ => None,
    }
}
