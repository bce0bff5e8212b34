//! JSON PATCH (RFC 6902) of nodes and ports, with Ironic's rules and words.

use json_patch::PatchOperation;
use provision::limits::FreeFormSize;
use serde_json::{Value, json};

use crate::field::{BadBody, Field, Object};
use crate::python;
use crate::version::Version;

/// Operations that Ironic accepts.
const OPERATIONS: [&str; 3] = ["add", "replace", "remove"];

/// Deepest nesting of a patched document. Several operations can nest deeper than one body, and serde_json would
/// refuse to read a deeper node back.
const MAX_DEPTH: usize = 64;

/// Number of operations in one request. Clients send one for each changed field.
const MAX_OPERATIONS: usize = 1_000;

/// Applies `patch` to `document`, which holds the patchable fields of `table`.
///
/// Removed fields are missing from the result.
///
/// # Errors
/// [`BadBody`]; the document is dropped then, so nothing is half done.
pub fn apply(
    document: Object,
    patch: &Value,
    table: &[Field],
    version: Version,
) -> Result<Object, BadBody> {
    let operations = patch
        .as_array()
        .ok_or_else(|| schema(format!("{} is not of type 'array'", python::repr(patch))))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(schema(format!("there are more than {MAX_OPERATIONS} operations")));
    }
    for operation in operations {
        check(operation, table, version)?;
    }
    let mut document = Value::Object(document);
    for operation in operations {
        apply_one(&mut document, operation)?;
    }
    if depth(&document) > MAX_DEPTH {
        return Err(schema(format!("the result is nested deeper than {MAX_DEPTH} levels")));
    }
    let Value::Object(document) = document else {
        return Err(schema("the result is not of type 'object'".to_owned()));
    };
    Ok(document)
}

/// The size of all values that `patch` writes. It is limited before the patch is applied, since that can take time
/// proportional to the product of both sizes.
#[must_use]
pub fn size(patch: &Value) -> FreeFormSize {
    let operations = patch.as_array().into_iter().flatten();
    FreeFormSize::of_all(operations.filter_map(|operation| operation.get("value")))
}

fn check(operation: &Value, table: &[Field], version: Version) -> Result<(), BadBody> {
    let text = |key: &str| match operation.get(key) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err(schema(format!("{} is not of type 'string'", python::repr(other)))),
        None => Err(schema(format!("'{key}' is a required property"))),
    };
    let known = |name: &&String| ["op", "path", "value"].contains(&name.as_str());
    let mut names = operation.as_object().into_iter().flat_map(serde_json::Map::keys);
    if let Some(name) = names.find(|name| !known(name)) {
        let name = python::repr(&json!(name));
        let reason = format!("Additional properties are not allowed ({name} was unexpected)");
        return Err(schema(reason));
    }
    let (path, op) = (text("path")?, text("op")?);
    if !OPERATIONS.contains(&op) {
        let op = python::repr(&json!(op));
        return Err(schema(format!("{op} is not one of {}", python::names(OPERATIONS))));
    }
    if op != "remove" && operation.get("value").is_none() {
        return Err(schema("'value' is a required property".to_owned()));
    }
    let Some(root) = path.strip_prefix('/').and_then(|path| path.split('/').next()) else {
        let path = python::repr(&json!(path));
        return Err(schema(format!("{path} does not match '^(/[\\\\w-]+)+$'")));
    };
    // Each operation can go as deep as the ones before and add its value there; the limit on paths keeps the result
    // shallow enough to be measured and dropped, both of which recurse.
    if path.matches('/').count() > MAX_DEPTH {
        return Err(schema(format!("a path has more than {MAX_DEPTH} parts")));
    }
    match table.iter().find(|field| field.name == root && field.set.by_patch()) {
        Some(field) if version.has(field.since) => Ok(()),
        Some(_) => Err(BadBody::Newer),
        None => Err(BadBody::NotPatchable { path: path.to_owned(), allowed: allowed(table) }),
    }
}

fn allowed(table: &[Field]) -> String {
    let mut names: Vec<_> =
        table.iter().filter(|field| field.set.by_patch()).map(|field| field.name).collect();
    names.sort_unstable();
    names.join(", ")
}

fn apply_one(document: &mut Value, operation: &Value) -> Result<(), BadBody> {
    let cannot =
        |reason: String| BadBody::CannotApply { operation: python::repr(operation), reason };
    let parsed: PatchOperation =
        serde_json::from_value(operation.clone()).map_err(|error| cannot(error.to_string()))?;
    // No rollback is needed: the caller drops the document on an error.
    json_patch::patch_unsafe(document, &[parsed]).map_err(|error| cannot(reason(operation, &error)))
}

/// The words of Python's jsonpatch for a missing member, otherwise those of the Rust library.
fn reason(operation: &Value, error: &json_patch::PatchError) -> String {
    let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default();
    let (op, path) = (text("op"), text("path"));
    let last = path.rsplit('/').next().unwrap_or_default().replace("~1", "/").replace("~0", "~");
    match (op, &error.kind) {
        ("remove" | "replace", json_patch::PatchErrorKind::InvalidPointer) => {
            format!("can't {op} a non-existent object '{last}'")
        }
        (_, kind) => kind.to_string(),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn schema(reason: String) -> BadBody {
    BadBody::Schema { subject: "patch", reason }
}
