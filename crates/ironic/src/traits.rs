//! Traits of a node, set by the operator.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use thiserror::Error;

use crate::python;

/// Number of traits of a node, as in Ironic.
const MAX: usize = 50;
const MAX_LEN: usize = 255;

/// The reason for rejecting traits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadTraits {
    /// The form of the body is wrong.
    #[error("Schema error for traits: {0}")]
    Schema(String),
    /// The name is invalid. Names without `CUSTOM_` come from a list of OpenStack's; here they must begin like those.
    #[error(
        "Schema error for trait: {0} is not valid under any of the given schemas. Possible root \
         cause: {0} does not match '^CUSTOM_[A-Z0-9_]+$'"
    )]
    Name(String),
    /// The node would have too many traits.
    #[error(
        "Could not modify traits for node {node} as it would exceed the maximum number of traits per \
         node ({number} vs. {MAX})"
    )]
    TooMany {
        /// The node, as in the client's request.
        node: String,
        /// The resulting number.
        number: usize,
    },
    /// The node does not have the trait.
    #[error("Node {node} doesn't have a trait '{name}'")]
    Unknown {
        /// The node, as in the client's request.
        node: String,
        /// The name.
        name: String,
    },
    /// The PUT of a single trait has a body.
    #[error("No body should be provided when adding a trait")]
    Body,
}

/// The beginnings of names in OpenStack's list (os-traits).
const STANDARD: [&str; 5] = ["COMPUTE_", "HW_", "MISC_", "OWNER_", "STORAGE_"];

/// The names in the body of `PUT /v1/nodes/{}/traits`, each once.
///
/// # Errors
/// [`BadTraits`].
pub fn list(node: &str, body: &Value) -> Result<Vec<String>, BadTraits> {
    let schema = |value: &Value, kind| {
        BadTraits::Schema(format!("{} is not of type '{kind}'", python::repr(value)))
    };
    let body = body.as_object().ok_or_else(|| schema(body, "object"))?;
    if let Some(name) = body.keys().find(|name| *name != "traits") {
        return Err(BadTraits::Schema(format!(
            "Additional properties are not allowed ({} was unexpected)",
            python::repr(&json!(name))
        )));
    }
    let traits = body
        .get("traits")
        .ok_or_else(|| BadTraits::Schema("'traits' is a required property".to_owned()))?;
    let traits = traits.as_array().ok_or_else(|| schema(traits, "array"))?;
    let mut names = BTreeSet::new();
    for name in traits {
        let text = name.as_str().ok_or_else(|| BadTraits::Name(python::repr(name)))?;
        check(text)?;
        names.insert(text.to_owned());
    }
    if names.len() > MAX {
        return Err(BadTraits::TooMany { node: node.to_owned(), number: names.len() });
    }
    Ok(names.into_iter().collect())
}

/// `names` plus one more, if it is not in the list.
///
/// # Errors
/// [`BadTraits`].
pub fn with(node: &str, mut names: Vec<String>, name: &str) -> Result<Vec<String>, BadTraits> {
    check(name)?;
    if names.iter().any(|other| other == name) {
        return Ok(names);
    }
    names.push(name.to_owned());
    let number = names.len();
    if number > MAX { Err(BadTraits::TooMany { node: node.to_owned(), number }) } else { Ok(names) }
}

/// `names` minus one.
///
/// # Errors
/// [`BadTraits::Unknown`] if it is not in the list.
pub fn without(node: &str, mut names: Vec<String>, name: &str) -> Result<Vec<String>, BadTraits> {
    let before = names.len();
    names.retain(|other| other != name);
    if names.len() == before {
        return Err(BadTraits::Unknown { node: node.to_owned(), name: name.to_owned() });
    }
    Ok(names)
}

fn check(name: &str) -> Result<(), BadTraits> {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let known = |prefix: &&str| name.len() > prefix.len() && name.starts_with(*prefix);
    let begins = STANDARD.iter().chain(&["CUSTOM_"]).any(known);
    if !begins || name.len() > MAX_LEN || !name.chars().all(fits) {
        return Err(BadTraits::Name(python::repr(&json!(name))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(body: Value) -> Result<Vec<String>, BadTraits> {
        list("n1", &body)
    }

    #[test]
    fn traits_are_upper_case_and_each_is_there_once() {
        let names = put(json!({ "traits": ["HW_CPU_X86_VMX", "CUSTOM_A", "CUSTOM_A"] }));
        assert_eq!(names.unwrap(), ["CUSTOM_A", "HW_CPU_X86_VMX"]);
    }

    #[test]
    fn a_bad_trait_is_refused_in_upstreams_words() {
        assert_eq!(
            check("bad trait").unwrap_err().to_string(),
            "Schema error for trait: 'bad trait' is not valid under any of the given schemas. \
             Possible root cause: 'bad trait' does not match '^CUSTOM_[A-Z0-9_]+$'"
        );
        for name in ["", "CUSTOM_", "GPU", "custom_a", "CUSTOM-A", "HW", &"CUSTOM_A".repeat(40)] {
            assert!(matches!(check(name), Err(BadTraits::Name(_))), "{name}");
        }
        for body in [
            json!([]),
            json!({}),
            json!(null),
            json!({ "traits": "CUSTOM_A" }),
            json!({ "traits": [], "more": 1 }),
        ] {
            assert!(matches!(put(body.clone()), Err(BadTraits::Schema(_))), "{body}");
        }
        assert!(matches!(put(json!({ "traits": [1] })), Err(BadTraits::Name(_))));
    }

    #[test]
    fn a_node_has_fifty_traits_at_most() {
        let fifty: Vec<_> = (0..50).map(|n| format!("CUSTOM_{n}")).collect();

        assert_eq!(with("n1", fifty.clone(), "CUSTOM_0").as_ref(), Ok(&fifty));
        let refused = with("n1", fifty.clone(), "CUSTOM_50").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Could not modify traits for node n1 as it would exceed the maximum number of traits per \
             node (51 vs. 50)"
        );
        let more: Vec<_> = (0..51).map(|n| format!("CUSTOM_{n}")).collect();
        assert_eq!(put(json!({ "traits": more })).unwrap_err(), refused);
        let twice = [fifty.clone(), fifty].concat();
        assert_eq!(put(json!({ "traits": twice })).unwrap().len(), 50);
    }

    #[test]
    fn a_trait_that_is_not_there_cannot_be_taken_away() {
        let names = vec!["CUSTOM_A".to_owned()];
        assert_eq!(without("n1", names.clone(), "CUSTOM_A"), Ok(vec![]));
        let refused = without("n1", names, "CUSTOM_B").unwrap_err();
        assert_eq!(refused.to_string(), "Node n1 doesn't have a trait 'CUSTOM_B'");
    }
}
