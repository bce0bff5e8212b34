//! The resources of a BMC: bodies that many BMCs share, and the changes of one of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

/// Bodies of resources by their paths, without a slash at the end.
///
/// A text may contain `{mac0}`, the first MAC address of the machine, and `{MAC0}`, the same as twelve upper-case
/// digits; `{mac1}` and so on for the other cards.
#[derive(Debug, Default)]
pub(super) struct ResourceBodies {
    pub(super) bodies: BTreeMap<String, Value>,
    /// Whether upper and lower case are the same in paths (HPE iLO).
    pub(super) folds_case: bool,
}

/// The resources of one BMC. What it has not changed is shared with other BMCs.
#[derive(Clone, Debug, Default)]
pub(super) struct ResourceTree {
    shared: Arc<ResourceBodies>,
    macs: Vec<String>,
    changes: BTreeMap<String, ResourceChange>,
}

/// The change of one resource.
#[derive(Clone, Debug, Default)]
struct ResourceChange {
    /// Merged into the shared body; `None` if the resource is deleted.
    merged: Option<Value>,
    /// Number of changes, for the ETag.
    count: u64,
}

impl ResourceTree {
    pub(super) fn new(shared: Arc<ResourceBodies>, macs: Vec<String>) -> Self {
        Self { shared, macs, changes: BTreeMap::new() }
    }

    /// The path under which a resource is kept, if it exists.
    pub(super) fn key(&self, path: &str) -> Option<String> {
        let path = path.trim_end_matches('/');
        let same = |key: &String| {
            key == path || (self.shared.folds_case && key.eq_ignore_ascii_case(path))
        };
        let changed = self.changes.iter().find(|(key, _)| same(key));
        match changed {
            Some((_, ResourceChange { merged: None, .. })) => None,
            Some((key, _)) => Some(key.clone()),
            None if self.shared.bodies.contains_key(path) => Some(path.to_owned()),
            None if self.shared.folds_case => {
                self.shared.bodies.keys().find(|key| same(key)).cloned()
            }
            None => None,
        }
    }

    /// A resource as it is now.
    pub(super) fn view(&self, path: &str) -> Option<Value> {
        let key = self.key(path)?;
        let mut body = self.shared.bodies.get(&key).cloned().unwrap_or_default();
        self.name_macs(&mut body);
        if let Some(change) = self.changes.get(&key) {
            merge(&mut body, change.merged.as_ref()?);
            if let Some(etag) = body.get_mut("@odata.etag") {
                *etag = changed_etag(etag, change.count).into();
            }
        }
        Some(body)
    }

    /// The paths of all resources.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        let shared = self.shared.bodies.keys();
        let new = self.changes.keys().filter(|key| !self.shared.bodies.contains_key(*key));
        shared.chain(new).filter(|key| self.key(key).is_some()).cloned()
    }

    /// Merges into a resource; creates it if it does not exist.
    pub(super) fn change(&mut self, path: &str, value: &Value) {
        let key = self.key(path).unwrap_or_else(|| path.trim_end_matches('/').to_owned());
        let change = self.changes.entry(key).or_default();
        merge(change.merged.get_or_insert_with(|| Value::Object(Map::new())), value);
        change.count += 1;
    }

    /// Counts a change that the owner of the resource keeps itself.
    pub(super) fn touch(&mut self, path: &str) {
        self.change(path, &Value::Object(Map::new()));
    }

    /// Takes the changes of a resource back, and returns them.
    pub(super) fn revert(&mut self, path: &str) -> Option<Value> {
        let key = self.key(path)?;
        let change = self.changes.get_mut(&key)?;
        change.count += 1;
        change.merged.replace(Value::Object(Map::new()))
    }

    /// The changes of a resource.
    pub(super) fn changes(&self, path: &str) -> Option<&Value> {
        self.changes.get(&self.key(path)?)?.merged.as_ref()
    }

    /// Deletes a resource.
    pub(super) fn delete(&mut self, path: &str) {
        if let Some(key) = self.key(path) {
            self.changes.entry(key).or_default().merged = None;
        }
    }

    /// Whether a resource was ever changed, made or deleted.
    pub(super) fn was_changed(&self, path: &str) -> bool {
        self.changes.contains_key(path)
    }

    /// Makes a collection list the resources right below it.
    pub(super) fn list_children(&mut self, folder: &str) {
        let members: Vec<_> = self.children(folder);
        let links: Vec<_> = members.iter().map(|path| json!({"@odata.id": path})).collect();
        self.change(folder, &json!({"Members": links, "Members@odata.count": members.len()}));
    }

    /// Paths of the resources right below a path.
    pub(super) fn children(&self, path: &str) -> Vec<String> {
        let below = |key: &&String| {
            let rest = key.strip_prefix(path).and_then(|rest| rest.strip_prefix('/'));
            rest.is_some_and(|rest| !rest.contains('/'))
        };
        let mut keys: Vec<_> = self.shared.bodies.keys().filter(below).cloned().collect();
        let new =
            self.changes.keys().filter(below).filter(|key| !self.shared.bodies.contains_key(*key));
        keys.extend(new.cloned());
        keys.retain(|key| self.key(key).is_some());
        keys
    }

    fn name_macs(&self, value: &mut Value) {
        match value {
            Value::String(text) if text.contains('{') => {
                for (number, mac) in self.macs.iter().enumerate() {
                    let digits = mac.replace([':', '-'], "").to_uppercase();
                    *text = text
                        .replace(&format!("{{mac{number}}}"), mac)
                        .replace(&format!("{{MAC{number}}}"), &digits);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.name_macs(value)),
            Value::Object(object) => object.values_mut().for_each(|value| self.name_macs(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// Merges objects; anything else replaces. Null is a value.
pub(super) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                match into.get_mut(name) {
                    Some(old) => merge(old, value),
                    None => drop(into.insert(name.clone(), value.clone())),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// The ETag of a body after some changes, weak if the first one was.
fn changed_etag(first: &Value, count: u64) -> String {
    let first = first.as_str().unwrap_or_default();
    let (weak, text) = match first.strip_prefix("W/") {
        Some(text) => ("W/", text),
        None => ("", first),
    };
    format!("{weak}\"{}.{count}\"", text.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(folds_case: bool) -> ResourceTree {
        let bodies =
            [("/a/B", json!({"@odata.etag": "W/\"7\"", "Mac": "{mac0} {MAC0}", "X": {"Y": 1}}))];
        let bodies = bodies.map(|(path, body)| (path.to_owned(), body)).into();
        let shared = ResourceBodies { bodies, folds_case };
        ResourceTree::new(Arc::new(shared), vec!["52:54:00:00:00:0a".to_owned()])
    }

    #[test]
    fn a_change_is_seen_by_one_bmc_and_changes_the_etag() {
        let mut tree = tree(false);
        assert_eq!(tree.view("/a/B/").unwrap()["Mac"], "52:54:00:00:00:0a 52540000000A");

        tree.change("/a/B", &json!({"X": {"Z": null}}));

        let body = tree.view("/a/B").unwrap();
        assert_eq!(body["X"], json!({"Y": 1, "Z": null}));
        assert_eq!(body["@odata.etag"], "W/\"7.1\"");
        assert_eq!(tree.shared.bodies["/a/B"]["X"], json!({"Y": 1}));
    }

    #[test]
    fn case_matters_except_where_a_bmc_ignores_it() {
        assert!(tree(false).view("/A/b").is_none());
        let mut folding = tree(true);
        folding.change("/A/b", &json!({"X": 2}));
        assert_eq!(folding.view("/a/B").unwrap()["X"], 2);
    }

    #[test]
    fn a_resource_can_be_made_and_deleted() {
        let mut tree = tree(false);
        tree.change("/a/C", &json!({}));
        assert_eq!(tree.children("/a"), ["/a/B", "/a/C"]);

        tree.delete("/a/C");
        tree.delete("/a/B");

        assert!(tree.children("/a").is_empty());
        assert!(tree.view("/a/B").is_none());
    }
}
