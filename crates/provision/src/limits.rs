//! Limits of operators' data about one machine.
//!
//! Every change reads and writes the whole node, and the index holds all nodes in memory: each change of a node of 60
//! MB would take a second.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::node::{Node, Port};

/// Number of ports of a node. Servers have some ten; a machine with a port for each virtual function has fewer than
/// this.
pub const MAX_PORTS_OF_NODE: usize = 256;

/// Number of clean steps in one request. The agent has some ten, and a request may repeat them.
pub const MAX_CLEAN_STEPS: usize = 100;

/// The size of free-form data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeFormSize {
    /// Length as JSON, in bytes.
    pub bytes: usize,
    /// Number of object members and list items, at all depths.
    pub values: usize,
    /// Nesting depth of objects and lists.
    pub depth: usize,
}

/// Limit of a node's `driver_info`, `instance_info`, `properties`, `extra` and all kept fields, together. A Metal3
/// node with its network configuration has some 10 KiB.
pub const NODE_LIMIT: FreeFormSize = FreeFormSize { bytes: 256 * 1024, values: 10_000, depth: 32 };

/// Limit of a port's `extra`, `local_link_connection` and all kept fields, together.
pub const PORT_LIMIT: FreeFormSize = FreeFormSize { bytes: 64 * 1024, values: 2_000, depth: 32 };

/// Limit of the arguments of all clean steps in one request, together.
pub const CLEAN_STEPS_LIMIT: FreeFormSize =
    FreeFormSize { bytes: 64 * 1024, values: 2_000, depth: 32 };

/// A measure that exceeds its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// [`FreeFormSize::bytes`], with the limit.
    Bytes(usize),
    /// [`FreeFormSize::values`], with the limit.
    Values(usize),
    /// [`FreeFormSize::depth`], with the limit.
    Depth(usize),
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(most) => write!(f, "more than {most} bytes of JSON"),
            Self::Values(most) => write!(f, "more than {most} values"),
            Self::Depth(most) => write!(f, "objects and lists nested deeper than {most} levels"),
        }
    }
}

impl FreeFormSize {
    const NOTHING: Self = Self { bytes: 0, values: 0, depth: 0 };

    /// The size of a node's free-form data.
    #[must_use]
    pub fn of_node(node: &Node) -> Self {
        Self::of_maps([
            &node.driver_info,
            &node.instance_info,
            &node.properties,
            &node.extra,
            &node.kept,
        ])
    }

    /// The size of a port's free-form data.
    #[must_use]
    pub fn of_port(port: &Port) -> Self {
        Self::of_maps([&port.extra, &port.kept])
    }

    /// The size of several objects together.
    #[must_use]
    pub fn of_maps<'a>(maps: impl IntoIterator<Item = &'a Map<String, Value>>) -> Self {
        let members = |size: Self, (key, value): (&String, &Value)| {
            let key = Self { bytes: Self::of(&json!(key)).bytes + 2, ..Self::NOTHING };
            size.and(key).and(Self::of(value).below())
        };
        maps.into_iter().flatten().fold(Self::NOTHING, members)
    }

    /// The size of several values together.
    #[must_use]
    pub fn of_all<'a>(values: impl IntoIterator<Item = &'a Value>) -> Self {
        values.into_iter().fold(Self::NOTHING, |size, value| size.and(Self::of(value)))
    }

    /// The larger of this limit and the existing size, for each measure.
    #[must_use]
    pub fn or(self, there: Self) -> Self {
        Self {
            bytes: self.bytes.max(there.bytes),
            values: self.values.max(there.values),
            depth: self.depth.max(there.depth),
        }
    }

    /// The size of one value.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        let (values, depth) = shape(value);
        Self { bytes: value.to_string().len(), values, depth }
    }

    /// Checks that `after` exceeds no limit. Data that exceeds a limit already, from a version without limits, may be
    /// changed as long as it does not grow.
    ///
    /// # Errors
    /// [`Excess`]
    pub fn check(self, before: Self, after: Self) -> Result<(), Excess> {
        let grew = |most: usize, before: usize, after: usize| after > most && after > before;
        if grew(self.bytes, before.bytes, after.bytes) {
            return Err(Excess::Bytes(self.bytes));
        }
        if grew(self.values, before.values, after.values) {
            return Err(Excess::Values(self.values));
        }
        if grew(self.depth, before.depth, after.depth) {
            return Err(Excess::Depth(self.depth));
        }
        Ok(())
    }

    /// [`FreeFormSize::check`] for new data.
    ///
    /// # Errors
    /// [`Excess`]
    pub fn check_new(self, size: Self) -> Result<(), Excess> {
        self.check(Self::NOTHING, size)
    }

    fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            values: self.values + other.values,
            depth: self.depth.max(other.depth),
        }
    }

    /// The size as a member of a container.
    fn below(self) -> Self {
        Self { values: self.values + 1, depth: self.depth + 1, ..self }
    }
}

/// The number of values in this one, and their depth.
fn shape(value: &Value) -> (usize, usize) {
    let sum = |(values, depth): (usize, usize), inner: &Value| {
        let (more, deeper) = shape(inner);
        (values + 1 + more, depth.max(1 + deeper))
    };
    match value {
        Value::Array(items) => items.iter().fold((0, 1), sum),
        Value::Object(map) => map.values().fold((0, 1), sum),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: Value) -> FreeFormSize {
        FreeFormSize::of_maps([value.as_object().unwrap()])
    }

    #[test]
    fn values_of_every_depth_are_counted() {
        let size = of(json!({ "a": [1, { "b": {} }], "c": "x" }));
        assert_eq!((size.values, size.depth), (5, 4));
        assert!(size.bytes >= r#"{"a":[1,{"b":{}}],"c":"x"}"#.len() - 2);
    }

    #[test]
    fn what_is_over_its_limit_may_shrink_and_stay_but_not_grow() {
        let limit = FreeFormSize { bytes: 100, values: 10, depth: 3 };
        let size = |length: usize| of(json!({ "a": "x".repeat(length) }));

        assert_eq!(limit.check(size(10), size(80)), Ok(()));
        assert_eq!(limit.check(size(10), size(200)), Err(Excess::Bytes(100)));
        assert_eq!(limit.check(size(300), size(300)), Ok(()), "something else was changed");
        assert_eq!(limit.check(size(300), size(200)), Ok(()), "it is on its way back");
        assert_eq!(limit.check(size(300), size(301)), Err(Excess::Bytes(100)));
    }

    #[test]
    fn many_small_values_and_deep_ones_are_over_the_limit_too() {
        let limit = FreeFormSize { bytes: 1_000, values: 10, depth: 3 };
        assert_eq!(limit.check_new(of(json!({ "a": vec![0; 10] }))), Err(Excess::Values(10)));
        assert_eq!(limit.check_new(of(json!({ "a": [[[]]] }))), Err(Excess::Depth(3)));
        assert_eq!(limit.check_new(of(json!({ "a": [[]] }))), Ok(()));
    }
}
