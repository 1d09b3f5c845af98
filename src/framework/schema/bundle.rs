//! A schema and the parts that it shares with others, as one document.

use serde_json::Value as Json;

/// Schema parts that framework schemas share, by the name they are referred to with.
pub const PARTS: &[(&str, &str)] = &[(
    "parts/training-arguments.schema.json",
    include_str!("../../../schemas/parts/training-arguments.schema.json"),
)];

/// Parses a schema and inlines the parts it refers to, so that it stands alone.
///
/// # Errors
/// The schema or a part is no JSON, or it refers to a part that is not in [`PARTS`].
pub fn bundle(text: &str) -> Result<Json, String> {
    let mut schema: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut parts = serde_json::Map::new();
    let mut wanted = Vec::new();
    rewrite_references(&mut schema, None, &mut wanted);
    while let Some(name) = wanted.pop() {
        if parts.contains_key(&name) {
            continue;
        }
        let (_, part) =
            PARTS.iter().find(|(known, _)| *known == name).ok_or_else(|| format!("no part {name}"))?;
        let mut part: Json = serde_json::from_str(part).map_err(|e| e.to_string())?;
        rewrite_references(&mut part, Some(&name), &mut wanted);
        if let Some(object) = part.as_object_mut() {
            object.remove("$schema");
            object.remove("$id");
        }
        parts.insert(name, part);
    }
    if let Some(object) = schema.as_object_mut() {
        // A relative `$id` is for editors; here it would be a base for references.
        object.remove("$id");
        if !parts.is_empty() {
            let defs = object.entry("$defs").or_insert_with(|| Json::Object(Default::default()));
            if let Some(defs) = defs.as_object_mut() {
                defs.extend(parts);
            }
        }
    }
    Ok(schema)
}

fn rewrite_references(node: &mut Json, part: Option<&str>, wanted: &mut Vec<String>) {
    match node {
        Json::Object(object) => {
            if let Some(Json::String(reference)) = object.get_mut("$ref") {
                let (file, fragment) = match reference.split_once('#') {
                    Some((file, fragment)) => (file, fragment),
                    None => (reference.as_str(), ""),
                };
                let target = if file.is_empty() {
                    part.map(str::to_owned)
                } else {
                    // Parts refer to each other by bare names: they stand in the same folder.
                    let name = if part.is_some() && !file.starts_with("parts/") {
                        format!("parts/{file}")
                    } else {
                        file.to_owned()
                    };
                    Some(name)
                };
                if let Some(name) = target {
                    *reference = format!("#/$defs/{}{fragment}", name.replace('~', "~0").replace('/', "~1"));
                    wanted.push(name);
                }
            }
            object.values_mut().for_each(|value| rewrite_references(value, part, wanted));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| rewrite_references(item, part, wanted)),
        _ => {}
    }
}
