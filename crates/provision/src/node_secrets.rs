//! The secrets of a node, each with its place: encrypted in the database.

use serde_json::Value;

use crate::node::Node;
use crate::secrets::{is_secret, is_secret_of_instance, visit_map};

/// A secret of a node, in place.
#[derive(Debug)]
pub enum NodeSecret<'a> {
    /// A value of `driver_info` or `instance_info`.
    Value(&'a mut Value),
    /// A ticket or a token.
    Text(&'a mut String),
}

/// Visits each secret of a node with its place, such as `driver_info/redfish_password`. Places are unique within a
/// node.
///
/// # Errors
/// The first error of `visit`, which ends the visit.
pub fn visit_secrets<E>(
    node: &mut Node,
    visit: &mut impl FnMut(&str, NodeSecret<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut visit_value = |place: &str, value: &mut Value| match value {
        Value::Null => Ok(()),
        Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => visit(place, NodeSecret::Value(value)),
    };
    visit_map(&mut node.driver_info, "driver_info", is_secret, &mut visit_value)?;
    visit_map(&mut node.instance_info, "instance_info", is_secret_of_instance, &mut visit_value)?;
    if let Some(attempt) = &mut node.attempt {
        visit("attempt/ticket", NodeSecret::Text(&mut attempt.ticket.0))?;
        visit("attempt/agent_token", NodeSecret::Text(&mut attempt.agent_token.0))?;
        let agent = attempt.agent.as_mut();
        if let Some(key) = agent.and_then(|agent| agent.channel_key.as_mut()) {
            visit("attempt/agent/channel_key", NodeSecret::Text(&mut key.0))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use jiff::Timestamp;
    use serde_json::{Map, json};
    use uuid::Uuid;

    use super::*;
    use crate::node::{Agent, Attempt, FreshAttempt, Secret};
    use crate::{BootInterface, Procedure};

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("an object") };
        map
    }

    fn node() -> Node {
        let fresh = FreshAttempt {
            attempt: Uuid::nil(),
            ticket: Secret("s3cret".to_owned()),
            agent_token: Secret("s3cret".to_owned()),
        };
        let driver_info = json!({
            "redfish_address": "https://192.0.2.9", "Redfish_Password": "s3cret", "a/b_secret": 7,
            "deep": { "auth_token": { "x": ["s3cret"] }, "list": [{ "passwd": "s3cret" }] }, "token": null,
        });
        let mut begun =
            Attempt::begun(fresh, Procedure::Clean, BootInterface::Http, Timestamp::UNIX_EPOCH);
        begun.agent = Some(Agent {
            callback_url: "https://192.0.2.7:9999".parse().unwrap(),
            version: "1".to_owned(),
            verify_ca: None,
            channel_key: Some(Secret("s3cret".to_owned())),
            last_heartbeat: Timestamp::UNIX_EPOCH,
        });
        Node {
            driver_info: object(driver_info),
            instance_info: object(json!({ "configdrive": { "user_data": "s3cret" } })),
            attempt: Some(begun),
            ..Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH)
        }
    }

    #[test]
    fn each_secret_has_a_place_of_its_own() {
        let mut places = Vec::new();

        let visited = visit_secrets(&mut node(), &mut |place, _| {
            places.push(place.to_owned());
            Ok::<_, Infallible>(())
        });

        visited.unwrap();
        places.sort();
        assert_eq!(
            places,
            [
                "attempt/agent/channel_key",
                "attempt/agent_token",
                "attempt/ticket",
                "driver_info/Redfish_Password",
                "driver_info/a~1b_secret",
                "driver_info/deep/auth_token",
                "driver_info/deep/list/0/passwd",
                "instance_info/configdrive",
            ]
        );
    }

    #[test]
    fn a_node_in_a_log_shows_no_secret() {
        let shown = format!("{:?}", node());

        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("192.0.2.9"), "{shown}");
    }
}
