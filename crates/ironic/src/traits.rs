//! Traits: what an operator says that a node can do.

use serde_json::{Value, json};
use thiserror::Error;

use crate::python;

/// Upstream takes at most so many for one node.
const MAX: usize = 50;
const MAX_LEN: usize = 255;

/// Not traits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadTraits {
    /// The body is not of the form it should have.
    #[error("Schema error for traits: {0}")]
    Schema(String),
    /// A name that is none. Those that need no `CUSTOM_` are in a list that OpenStack keeps;
    /// upper case is all that is asked of them here.
    #[error(
        "Schema error for trait: {0} is not valid under any of the given schemas. Possible root \
         cause: {0} does not match '^CUSTOM_[A-Z0-9_]+$'"
    )]
    Name(String),
    /// More than a node may have.
    #[error("Could not save traits: number of traits exceeds the maximum of {MAX}")]
    TooMany,
}

/// The names in the body of `PUT /v1/nodes/{}/traits`.
///
/// # Errors
/// [`BadTraits`].
pub fn list(body: &Value) -> Result<Vec<String>, BadTraits> {
    let traits = body
        .get("traits")
        .ok_or_else(|| BadTraits::Schema("'traits' is a required property".to_owned()))?;
    let not_a_list =
        || BadTraits::Schema(format!("{} is not of type 'array'", python::repr(traits)));
    traits.as_array().ok_or_else(not_a_list)?.iter().try_fold(Vec::new(), |names, name| {
        let name = name.as_str().ok_or_else(|| BadTraits::Name(python::repr(name)))?;
        with(names, name)
    })
}

/// `names` and one more, if it is not among them already.
///
/// # Errors
/// [`BadTraits`].
pub fn with(mut names: Vec<String>, name: &str) -> Result<Vec<String>, BadTraits> {
    check(name)?;
    if !names.iter().any(|other| other == name) {
        names.push(name.to_owned());
    }
    if names.len() > MAX { Err(BadTraits::TooMany) } else { Ok(names) }
}

fn check(name: &str) -> Result<(), BadTraits> {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > MAX_LEN || !name.chars().all(fits) {
        return Err(BadTraits::Name(python::repr(&json!(name))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traits_are_upper_case_and_each_is_there_once() {
        let names = list(&json!({ "traits": ["CUSTOM_A", "HW_CPU_X86_VMX", "CUSTOM_A"] }));
        assert_eq!(names.unwrap(), ["CUSTOM_A", "HW_CPU_X86_VMX"]);
    }

    #[test]
    fn a_bad_trait_is_refused_in_upstreams_words() {
        assert_eq!(
            check("bad trait").unwrap_err().to_string(),
            "Schema error for trait: 'bad trait' is not valid under any of the given schemas. \
             Possible root cause: 'bad trait' does not match '^CUSTOM_[A-Z0-9_]+$'"
        );
        assert!(list(&json!({ "traits": [1] })).is_err());
        assert!(list(&json!([])).is_err());
    }

    #[test]
    fn a_node_has_fifty_traits_at_most() {
        let fifty: Vec<_> = (0..50).map(|n| format!("CUSTOM_{n}")).collect();

        assert_eq!(with(fifty.clone(), "CUSTOM_0").as_ref(), Ok(&fifty));
        assert_eq!(with(fifty, "CUSTOM_50"), Err(BadTraits::TooMany));
    }
}
