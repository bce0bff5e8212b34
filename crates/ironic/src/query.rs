//! Query arguments, with their microversions.

use thiserror::Error;

use crate::version::{Version, since};

/// An argument of a query.
#[derive(Clone, Copy, Debug)]
pub struct QueryArgument {
    /// Its name.
    pub name: &'static str,
    /// The microversion that introduced it is 1.`since`.
    pub since: u16,
}

const fn argument(name: &'static str, since: u16) -> QueryArgument {
    QueryArgument { name, since }
}

/// The page and the order of a list.
pub const PAGE: &[QueryArgument] = &[
    argument("limit", 1),
    argument("marker", 1),
    argument("sort_key", 1),
    argument("sort_dir", 1),
];

/// The fields of the answer.
pub const FIELDS: &[QueryArgument] = &[argument("fields", 8)];

/// Whether a list shows all fields.
pub const DETAIL: &[QueryArgument] = &[argument("detail", 43)];

/// The filters of a list of nodes.
pub const NODE_FILTERS: &[QueryArgument] = &[
    argument("associated", 1),
    argument("instance_uuid", 1),
    argument("maintenance", 1),
    argument("provision_state", 9),
    argument("driver", 16),
    argument("resource_class", 21),
    argument("fault", 42),
    argument("conductor_group", 46),
    argument("conductor", since::CONDUCTORS),
    argument("owner", 50),
    argument("description_contains", 51),
    argument("retired", 61),
    argument("lessee", 65),
    argument("shard", since::SHARDS),
    argument("sharded", since::SHARDS),
    argument("include_children", since::CHILDREN),
];

/// Arguments of a PATCH of a node.
pub const NODE_PATCH: &[QueryArgument] = &[argument("reset_interfaces", 45)];

/// The filters of every list of ports.
pub const PORT_FILTERS: &[QueryArgument] = &[argument("address", 1)];

/// The node of a list of ports, if the path does not have it.
pub const PORT_NODE: &[QueryArgument] = &[argument("node", 1), argument("node_uuid", 1)];

/// Arguments of the list of drivers. `fields` is accepted without effect.
pub const DRIVERS: &[QueryArgument] =
    &[argument("detail", 1), argument("type", 1), argument("fields", 1)];

/// The attempt of a trace.
pub const BOOT_TRACE: &[QueryArgument] = &[argument("attempt", 1)];

/// Number of listed boots.
pub const BOOTS: &[QueryArgument] = &[argument("limit", 1)];

/// The reason for rejecting a query.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadQuery {
    /// It has an argument of a later version: 406.
    #[error("Request not acceptable.")]
    Newer,
    /// It has an unknown argument: 400. An ignored filter would list everything.
    #[error("Unexpected arguments: {0}")]
    Unexpected(String),
}

/// Checks that each argument is in `tables` and exists at the requested version.
///
/// # Errors
/// [`BadQuery`]
pub fn check<'a>(
    names: impl IntoIterator<Item = &'a str>,
    tables: &[&[QueryArgument]],
    version: Version,
) -> Result<(), BadQuery> {
    for name in names {
        match tables.iter().copied().flatten().find(|argument| argument.name == name) {
            None => return Err(BadQuery::Unexpected(name.to_owned())),
            Some(argument) if !version.has(argument.since) => return Err(BadQuery::Newer),
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_refused_before_its_version_and_where_nobody_knows_it() {
        let at = |minor, name| check([name], &[PAGE, NODE_FILTERS], Version::new(minor).unwrap());

        assert_eq!(at(1, "limit"), Ok(()));
        assert_eq!(at(60, "retired"), Err(BadQuery::Newer));
        assert_eq!(at(61, "retired"), Ok(()));
        assert_eq!(at(81, "sharded"), Err(BadQuery::Newer));
        assert_eq!(at(110, "ownr"), Err(BadQuery::Unexpected("ownr".to_owned())));
        assert_eq!(at(110, "fields"), Err(BadQuery::Unexpected("fields".to_owned())));
    }
}
