//! What is sent to Neutron and Keystone, and what is read of their answers.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use netboot::urls::IpFamily;
use provision::BootInterface;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use crate::config;
use crate::providers::announcement::Announcement;

/// Neutron's limit of an option's value (`DHCP_OPT_VALUE_MAX_LEN`).
const LONGEST: usize = 255;

/// The options of a boot: upstream's `dhcp_options_for_instance`, in its order. Tags (`tag:ipxe`) are
/// what Neutron's DHCP agent gives to dnsmasq, which sets them for iPXE (`ipxe` and `ipxe6`).
pub(super) fn of(told: &Announcement) -> Result<Vec<Value>> {
    match [IpFamily::V4, IpFamily::V6].map(|family| of_family(told, family)) {
        [Ok(v4), Ok(v6)] => Ok([v4, v6].concat()),
        [Ok(one), Err(_)] | [Err(_), Ok(one)] => Ok(one),
        [Err(refused), Err(_)] => Err(refused),
    }
}

fn of_family(told: &Announcement, family: IpFamily) -> Result<Vec<Value>> {
    let links = told.links(family)?;
    // It cannot tell one client from another, but for iPXE.
    let (firmware, ipxe) = (links.own.as_str(), links.ipxe.as_str());
    ensure!(
        firmware.len() <= LONGEST,
        "the URL {firmware} is longer than the {LONGEST} bytes that Neutron keeps"
    );
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

/// Those of the families that a port has addresses of, and `null` for what it had besides: Neutron
/// keeps each option that it is not told of.
pub(super) fn for_port(options: &[Value], port: &Value) -> Vec<Value> {
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

/// Where a port is read and set.
pub(super) fn path_of(id: &str) -> String {
    let id: String = id.bytes().map(escaped).collect();
    format!("v2.0/ports/{id}")
}

/// In a segment of a path (RFC 3986 §2.3). What an operator writes down may be anything.
fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    }
}

/// Where to read the options of all ports that have one of these properties.
pub(super) fn list_of(ports: &[(&str, String)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([("fields", "id"), ("fields", "extra_dhcp_opts")]).extend_pairs(ports);
    format!("v2.0/ports?{}", query.finish())
}

/// Whether a port has a URL with one of these tickets.
pub(super) fn has_link(port: &Value, tickets: &HashSet<&str>) -> bool {
    let options = port["extra_dhcp_opts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ticket = |option: &Value| {
        let (_, rest) = option["opt_value"].as_str()?.split_once("/boot/")?;
        let (ticket, _) = rest.split_once('/')?;
        Some(tickets.contains(ticket))
    };
    options.iter().any(|option| ticket(option) == Some(true))
}

/// The options of ours that a port has, each with `null`, which is how Neutron deletes one.
pub(super) fn present(port: &Value) -> Vec<Value> {
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

/// The body of `POST /v3/auth/tokens`.
pub(super) fn log_in(settings: &config::NeutronConfig, password: &str) -> Value {
    let domain = |name: &str| json!({"name": if name.is_empty() { "Default" } else { name }});
    json!({"auth": {
        "identity": {
            "methods": ["password"],
            "password": {"user": {
                "name": settings.username,
                "password": password,
                "domain": domain(&settings.user_domain_name),
            }},
        },
        "scope": {"project": {
            "name": settings.project_name,
            "domain": domain(&settings.project_domain_name),
        }},
    }})
}

/// Where Keystone's answer says that Neutron is.
pub(super) fn endpoint(answer: &Value, region: Option<&str>) -> Option<Url> {
    let services = answer["token"]["catalog"].as_array()?;
    let network = services.iter().find(|service| service["type"] == "network")?;
    let endpoints = network["endpoints"].as_array()?;
    let fits = |endpoint: &&Value| {
        endpoint["interface"] == "public"
            && region.is_none_or(|region| endpoint["region"] == region)
    };
    endpoints.iter().find(fits)?["url"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use provision::BootInterface::{Http, HttpIpxe};

    use super::*;

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
        let http = of(&Announcement::example(Http, "10.0.0.1")).unwrap();
        let both = of(&Announcement::example(HttpIpxe, "boot.example")).unwrap();

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
        let options = of(&Announcement::example(Http, "boot.example")).unwrap();

        let sent = for_port(&options, &port);

        let url = "http://boot.example/boot/TICKET/bootx64.efi";
        let expected = [("67", url, 4), ("60", "HTTPClient", 4), ("tag:ipxe,67", "null", 4)];
        assert_eq!(named(&sent), expected);
        assert_eq!(named(&present(&port)), [("tag:ipxe,67", "null", 4), ("67", "null", 4)]);
        let elsewhere = json!({"fixed_ips": []});
        assert!(for_port(&options, &elsewhere).is_empty());
    }

    #[test]
    fn an_id_that_an_operator_wrote_down_stays_one_segment_of_the_path() {
        assert_eq!(path_of("db528128-a3a7"), "v2.0/ports/db528128-a3a7");
        assert_eq!(path_of("../x?y=ü"), "v2.0/ports/%2E%2E%2Fx%3Fy%3D%C3%BC");
    }

    #[test]
    fn neutron_is_where_the_catalogue_says() {
        let endpoint_in = |region: &str, interface: &str, url: &str| json!({"region": region, "interface": interface, "url": url});
        let answer = json!({"token": {"catalog": [
            {"type": "compute", "endpoints": [endpoint_in("one", "public", "http://nova")]},
            {"type": "network", "endpoints": [
                endpoint_in("one", "admin", "http://admin"),
                endpoint_in("one", "public", "http://one:9696"),
                endpoint_in("two", "public", "http://two:9696"),
            ]},
        ]}});

        assert_eq!(endpoint(&answer, None).unwrap().as_str(), "http://one:9696/");
        assert_eq!(endpoint(&answer, Some("two")).unwrap().as_str(), "http://two:9696/");
        assert_eq!(endpoint(&answer, Some("three")), None);
    }
}
