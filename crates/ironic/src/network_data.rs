//! `network_data` of a node: the network settings for the machine's system.
//!
//! Ironic validates it with the JSON schema of OpenStack's `network_data.json`. This file checks only its outline:
//! the lists, and the required keys of their entries.

use serde_json::Value;

use crate::field::BadBody;
use crate::python;

/// The lists, all required, and the required text keys of their entries.
const LISTS: [(&str, &[&str]); 3] = [
    ("links", &["id", "type"]),
    ("networks", &["id", "link", "network_id", "type"]),
    ("services", &["type", "address"]),
];

/// Checks the outline of a value; null is accepted.
///
/// # Errors
/// [`BadBody::NetworkData`]
pub(crate) fn check(value: &Value) -> Result<(), BadBody> {
    let no = |reason: String| Err(BadBody::NetworkData(reason));
    if value.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(());
    }
    for (list, names) in LISTS {
        let Some(entries) = value.get(list) else {
            return no(format!("'{list}' is a required property"));
        };
        let Some(entries) = entries.as_array() else {
            return no(format!("{} is not of type 'array'", python::repr(entries)));
        };
        for entry in entries {
            if let Some(name) = names.iter().find(|name| !entry[**name].is_string()) {
                return no(format!("{} has no text '{name}'", python::repr(entry)));
            }
            let address = |name: &str| entry[name].is_string();
            if list == "links" && !address("ethernet_mac_address") && !address("vlan_mac_address") {
                return no(format!(
                    "{} has neither 'ethernet_mac_address' nor 'vlan_mac_address'",
                    python::repr(entry)
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_metal3_makes_of_its_network_templates_is_taken() {
        let links = json!([
            { "id": "enp1s0", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01", "mtu": 1500 },
            {
                "id": "vlan1", "type": "vlan", "vlan_mac_address": "52:54:00:aa:bb:01", "vlan_id": 7,
                "vlan_link": "enp1s0",
            },
        ]);
        let networks = json!([
            { "id": "n", "link": "enp1s0", "network_id": "n", "type": "ipv4_dhcp", "routes": [] },
        ]);
        let services = json!([{ "type": "dns", "address": "192.0.2.53" }]);
        let whole = json!({ "links": links, "networks": networks, "services": services });
        for value in [whole, json!({}), json!({ "links": [], "networks": [], "services": [] })] {
            assert_eq!(check(&value), Ok(()), "{value}");
        }
    }

    #[test]
    fn another_outline_is_refused() {
        for value in [
            json!({ "a": 1 }),
            json!({ "links": [], "networks": [] }),
            json!({ "links": {}, "networks": [], "services": [] }),
            json!({ "links": [1], "networks": [], "services": [] }),
            json!({ "links": [{ "id": "a", "type": "phy" }], "networks": [], "services": [] }),
            json!({ "links": [], "networks": [{ "id": "a" }], "services": [] }),
            json!({ "links": [], "networks": [], "services": [{ "type": "dns", "address": 1 }] }),
        ] {
            assert!(matches!(check(&value), Err(BadBody::NetworkData(_))), "{value}");
        }
    }
}
