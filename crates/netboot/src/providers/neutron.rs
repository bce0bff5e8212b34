//! The boots of machines in Neutron: `extra_dhcp_opts` of its ports, exactly as Ironic sets them.

use std::collections::HashSet;

use provision::BootInterface;
use serde_json::{Value, json};
use thiserror::Error;
use url::form_urlencoded;

use super::announcement::{AnnouncedPort, Announcement, NoLinks};
use crate::urls::IpFamily;

/// Neutron's limit of an option's value (`DHCP_OPT_VALUE_MAX_LEN`).
const LONGEST: usize = 255;

/// The reason why Neutron cannot be configured for a boot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NeutronRefusal {
    /// There is no URL.
    #[error(transparent)]
    NoLinks(#[from] NoLinks),
    /// The URL is longer than Neutron's limit.
    #[error("the URL {url} is longer than the {LONGEST} bytes that Neutron keeps")]
    TooLong {
        /// The URL.
        url: String,
    },
}

/// The options of a boot: Ironic's `dhcp_options_for_instance`, in its order. Neutron's DHCP agent passes the tags
/// (`tag:ipxe`) to dnsmasq, which sets them for iPXE (`ipxe` and `ipxe6`).
///
/// # Errors
/// There is no URL, or it is too long.
pub fn options_of(told: &Announcement) -> Result<Vec<Value>, NeutronRefusal> {
    match [IpFamily::V4, IpFamily::V6].map(|family| of_family(told, family)) {
        [Ok(v4), Ok(v6)] => Ok([v4, v6].concat()),
        [Ok(one), Err(_)] | [Err(_), Ok(one)] => Ok(one),
        [Err(refused), Err(_)] => Err(refused),
    }
}

fn of_family(told: &Announcement, family: IpFamily) -> Result<Vec<Value>, NeutronRefusal> {
    let links = told.links(family)?;
    // Neutron distinguishes no clients except iPXE.
    let (firmware, ipxe) = (links.own.as_str(), links.ipxe.as_str());
    if firmware.len() > LONGEST {
        return Err(NeutronRefusal::TooLong { url: firmware.to_owned() });
    }
    let (code, tag, version) = match family {
        IpFamily::V4 => ("67", "ipxe", 4),
        IpFamily::V6 => ("59", "ipxe6", 6),
    };
    let option = |name: &str, value: &str| json!({"opt_name": name, "opt_value": value, "ip_version": version});
    let mut options = if told.boot_interface == BootInterface::HttpIpxe {
        vec![
            option(&format!("tag:!{tag},{code}"), firmware),
            option(&format!("tag:{tag},{code}"), ipxe),
        ]
    } else {
        vec![option(code, firmware)]
    };
    match family {
        IpFamily::V4 => options.push(option("60", "HTTPClient")),
        IpFamily::V6 => {}
    }
    Ok(options)
}

/// The options for the address families of a port, and `null` for outdated ones: Neutron keeps each option that a
/// request does not mention.
#[must_use]
pub fn options_for(options: &[Value], port: &Value) -> Vec<Value> {
    let has = |version: &Value| {
        let addresses = port["fixed_ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is = |ip: &Value| ip["ip_address"].as_str().is_some_and(|ip| ip.contains(':'));
        addresses.iter().any(|ip| is(ip) == (version == &json!(6)))
    };
    let fitting: Vec<_> =
        options.iter().filter(|option| has(&option["ip_version"])).cloned().collect();
    if fitting.is_empty() {
        return fitting;
    }
    let same =
        |a: &Value, b: &Value| a["opt_name"] == b["opt_name"] && a["ip_version"] == b["ip_version"];
    let gone = present(port).into_iter().filter(|old| !fitting.iter().any(|new| same(old, new)));
    let gone: Vec<_> = gone.collect();
    fitting.into_iter().chain(gone).collect()
}

/// The ports of a node to configure in Neutron: those whose Neutron port an operator has set, otherwise all.
#[must_use]
pub fn known(ports: &[AnnouncedPort]) -> Vec<&AnnouncedPort> {
    let written_down: Vec<_> = ports.iter().filter(|port| port.vif.is_some()).collect();
    if written_down.is_empty() { ports.iter().collect() } else { written_down }
}

/// The ports of the announcement `before` that are not configured for `now`.
#[must_use]
pub fn gone<'a>(before: &'a Announcement, now: &Announcement) -> Vec<&'a AnnouncedPort> {
    let known = known(&now.ports);
    before.ports.iter().filter(|port| !known.contains(port)).collect()
}

/// The URL path of a Neutron port.
#[must_use]
pub fn path_of(id: &str) -> String {
    let id: String = id.bytes().map(escaped).collect();
    format!("v2.0/ports/{id}")
}

/// Escapes a byte in a path segment (RFC 3986 §2.3). The operator's value may be anything.
fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    }
}

/// The URL path for reading the options of all Neutron ports with one of these properties.
#[must_use]
pub fn list_of(ports: &[(&str, String)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([("fields", "id"), ("fields", "extra_dhcp_opts")]).extend_pairs(ports);
    format!("v2.0/ports?{}", query.finish())
}

/// Whether a Neutron port has a URL with one of these tickets.
#[must_use]
pub fn has_link(port: &Value, tickets: &HashSet<&str>) -> bool {
    let options = port["extra_dhcp_opts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ticket = |option: &Value| {
        let (_, rest) = option["opt_value"].as_str()?.split_once("/boot/")?;
        let (ticket, _) = rest.split_once('/')?;
        Some(tickets.contains(ticket))
    };
    options.iter().any(|option| ticket(option) == Some(true))
}

/// This service's options of a Neutron port, each with `null`, which deletes it.
#[must_use]
pub fn present(port: &Value) -> Vec<Value> {
    let options = port["extra_dhcp_opts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours = ["67", "60", "59", "tag:!ipxe,67", "tag:ipxe,67", "tag:!ipxe6,59", "tag:ipxe6,59"];
    let is_ours =
        |option: &&Value| option["opt_name"].as_str().is_some_and(|name| ours.contains(&name));
    let delete = |option: &Value| {
        json!({
            "opt_name": option["opt_name"], "opt_value": null, "ip_version": option["ip_version"],
        })
    };
    options.iter().filter(is_ours).map(delete).collect()
}

#[cfg(test)]
mod tests {
    use provision::BootInterface::{Http, HttpIpxe};

    use super::*;
    use crate::providers::test_announcements::announcement;

    fn named(options: &[Value]) -> Vec<(&str, &str, u64)> {
        let text = |value: &Value| value.as_str().unwrap_or("null").to_owned().leak() as &str;
        let one = |option: &Value| {
            let version = option["ip_version"].as_u64().unwrap();
            (text(&option["opt_name"]), text(&option["opt_value"]), version)
        };
        options.iter().map(one).collect()
    }

    #[test]
    fn options_are_upstreams_and_of_the_families_that_reach_the_url() {
        let http = options_of(&announcement(Http, "10.0.0.1")).unwrap();
        let both = options_of(&announcement(HttpIpxe, "boot.example")).unwrap();

        let url = "http://10.0.0.1/boot/TICKET/bootx64.efi";
        assert_eq!(named(&http), [("67", url, 4), ("60", "HTTPClient", 4)]);
        let (ipxe, script) = (
            "http://boot.example/boot/TICKET/snponly.efi",
            "http://boot.example/boot/TICKET/boot.ipxe",
        );
        let expected = [
            ("tag:!ipxe,67", ipxe, 4),
            ("tag:ipxe,67", script, 4),
            ("60", "HTTPClient", 4),
            ("tag:!ipxe6,59", ipxe, 6),
            ("tag:ipxe6,59", script, 6),
        ];
        assert_eq!(named(&both), expected);
    }

    #[test]
    fn a_port_gets_what_fits_its_addresses_and_loses_what_another_boot_left() {
        let port = json!({
            "fixed_ips": [{"ip_address": "10.0.0.7"}],
            "extra_dhcp_opts": [
                {"opt_name": "tag:ipxe,67", "opt_value": "http://old", "ip_version": 4},
                {"opt_name": "67", "opt_value": "http://old", "ip_version": 4},
                {"opt_name": "42", "opt_value": "10.0.0.9", "ip_version": 4},
            ],
        });
        let options = options_of(&announcement(Http, "boot.example")).unwrap();

        let sent = options_for(&options, &port);

        let url = "http://boot.example/boot/TICKET/bootx64.efi";
        let expected = [("67", url, 4), ("60", "HTTPClient", 4), ("tag:ipxe,67", "null", 4)];
        assert_eq!(named(&sent), expected);
        assert_eq!(named(&present(&port)), [("tag:ipxe,67", "null", 4), ("67", "null", 4)]);
        let elsewhere = json!({"fixed_ips": []});
        assert!(options_for(&options, &elsewhere).is_empty());
    }

    #[test]
    fn an_id_that_an_operator_wrote_down_stays_one_segment_of_the_path() {
        assert_eq!(path_of("db528128-a3a7"), "v2.0/ports/db528128-a3a7");
        assert_eq!(path_of("../x?y=ü"), "v2.0/ports/%2E%2E%2Fx%3Fy%3D%C3%BC");
    }
}
