//! Kea options that take precedence over a class's: those of hosts, pools, subnets and shared networks.

use std::collections::{HashMap, HashSet};

use hardware::Mac;
use serde_json::Value;
use thiserror::Error;

use crate::providers::announcement::Announcement;
use crate::urls::IpFamily;

/// Options in a configuration that take precedence over this service's, for some clients or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// Subnets with their own options, in words.
    places: Vec<String>,
    /// Whether every subnet has its own options.
    everywhere: bool,
    /// Ports with their own options, in words.
    reserved: HashMap<Mac, String>,
}

/// Kea sends other options in place of a class's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "it sends the option-data of {place} in place of the URL: put its boot file and vendor class \
     into a client class, which Ferroboot's come before"
)]
pub struct OptionsInFront {
    /// Their place in the configuration, in words.
    place: String,
}

impl Obstacles {
    /// The obstacles in a configuration, for the ports of `boots`.
    #[must_use]
    pub fn of<'a>(
        configuration: &Value,
        family: IpFamily,
        boots: impl Iterator<Item = &'a Announcement>,
    ) -> Self {
        let macs: HashSet<_> =
            boots.flat_map(|boot| boot.ports.iter().map(|port| port.mac)).collect();
        let mut found = Self { everywhere: true, ..Self::default() };
        if heeds_hosts_of_all_subnets(configuration, family) {
            found.look_at_hosts(configuration, "all subnets", family, &macs);
        }
        let mut subnets = 0;
        for network in list(configuration, "shared-networks") {
            let own = has_option(network, family).then(|| {
                format!("the shared network {}", network["name"].as_str().unwrap_or_default())
            });
            for subnet in list(network, subnets_of(family)) {
                subnets += 1;
                found.look_at(subnet, own.clone(), family, &macs);
            }
        }
        for subnet in list(configuration, subnets_of(family)) {
            subnets += 1;
            found.look_at(subnet, None, family, &macs);
        }
        found.everywhere &= subnets > 0;
        found.places.dedup();
        found
    }

    /// The options that take precedence for some clients of a boot.
    ///
    /// # Errors
    /// The options that take precedence for all its clients, or for one of its ports.
    pub fn warning(&self, boot: &Announcement) -> Result<Option<OptionsInFront>, OptionsInFront> {
        let mut reserved = boot.ports.iter().filter_map(|port| self.reserved.get(&port.mac));
        if let Some(place) = reserved.next() {
            return Err(OptionsInFront { place: place.clone() });
        }
        let in_front = OptionsInFront { place: self.places.join(" and ") };
        if self.everywhere {
            return Err(in_front);
        }
        Ok((!self.places.is_empty()).then_some(in_front))
    }

    fn look_at(
        &mut self,
        subnet: &Value,
        network: Option<String>,
        family: IpFamily,
        macs: &HashSet<Mac>,
    ) {
        let name = format!("the subnet {}", subnet["subnet"].as_str().unwrap_or_default());
        self.look_at_hosts(subnet, &name, family, macs);
        let pools = list(subnet, "pools");
        let of_pools: Vec<_> = pools
            .iter()
            .filter(|pool| has_option(pool, family))
            .map(|pool| format!("the pool {}", pool["pool"].as_str().unwrap_or_default()))
            .collect();
        let own = has_option(subnet, family).then_some(name);
        let all_pools = !pools.is_empty() && of_pools.len() == pools.len();
        self.everywhere &= own.is_some() || network.is_some() || all_pools;
        self.places.extend(network.into_iter().chain(own).chain(of_pools));
    }

    fn look_at_hosts(&mut self, of: &Value, name: &str, family: IpFamily, macs: &HashSet<Mac>) {
        let hosts = list(of, "reservations").iter().filter(|host| has_option(host, family));
        for (mac, id) in hosts.filter_map(identified) {
            if macs.contains(&mac) {
                self.reserved.insert(mac, format!("the reservation of {id} in {name}"));
            }
        }
    }
}

/// Kea uses reservations outside of subnets only if configured to, globally or for a subnet.
fn heeds_hosts_of_all_subnets(configuration: &Value, family: IpFamily) -> bool {
    let networks = list(configuration, "shared-networks").iter();
    let places: Vec<_> = networks.chain([configuration]).collect();
    let subnets = places.iter().flat_map(|place| list(place, subnets_of(family)));
    let is_set = |place: &Value| {
        place["reservations-global"] == true || place["early-global-reservations-lookup"] == true
    };
    places.iter().copied().chain(subnets).any(is_set)
}

/// The MAC address and the identifier of a reservation. Some identifiers end with the MAC address.
fn identified(host: &Value) -> Option<(Mac, &str)> {
    ["hw-address", "duid", "client-id"].iter().find_map(|kind| {
        let id = host[kind].as_str()?;
        let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
        let mac = digits.get(digits.len().checked_sub(12)?..)?;
        let bytes = u64::from_str_radix(mac, 16).ok()?.to_be_bytes();
        let [_, _, a, b, c, d, e, f] = bytes;
        Some((Mac([a, b, c, d, e, f]), id))
    })
}

/// Whether an object has a boot file or a vendor class.
fn has_option(of: &Value, family: IpFamily) -> bool {
    let (codes, names) = match family {
        IpFamily::V4 => ([67, 60], ["boot-file-name", "vendor-class-identifier"]),
        IpFamily::V6 => ([59, 16], ["bootfile-url", "vendor-class"]),
    };
    list(of, "option-data").iter().any(|option| {
        let space = option["space"].as_str().is_none_or(|space| space.starts_with("dhcp"));
        let code = option["code"].as_u64().is_some_and(|code| codes.contains(&code));
        let name = option["name"].as_str().is_some_and(|name| names.contains(&name));
        space && (code || name)
    })
}

fn subnets_of(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "subnet4",
        IpFamily::V6 => "subnet6",
    }
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use provision::BootInterface::Http;
    use serde_json::json;

    use super::*;
    use crate::providers::test_announcements::announcement;

    fn warning(configuration: &Value, family: IpFamily) -> Result<Option<String>, String> {
        let boot = announcement(Http, "boot.example");
        let obstacles = Obstacles::of(configuration, family, [&boot].into_iter());
        let warning = obstacles.warning(&boot).map_err(|refused| refused.to_string())?;
        Ok(warning.map(|in_front| in_front.to_string()))
    }

    #[test]
    fn options_that_each_client_gets_in_place_of_a_classs_are_refused_with_where_they_are() {
        let own = json!([{"name": "boot-file-name", "code": 67, "space": "dhcp4", "data": "x"}]);
        let free = json!([{"name": "routers", "code": 3, "space": "dhcp4", "data": "10.0.0.1"}]);
        let subnet = json!({"subnet": "10.0.0.0/24", "option-data": own});
        let pool =
            json!({"subnet": "10.0.0.0/24", "pools": [{"pool": "10.0.0.9", "option-data": own}]});
        let network =
            json!({"name": "lab", "option-data": own, "subnet4": [{"option-data": free}]});
        let host = json!({"hw-address": "52:54:00:00:00:01", "option-data": own});
        let class = json!({"name": "legacy", "option-data": own});
        let url = json!([{"code": 59, "data": "x"}]);
        let duid = json!({"duid": "00:03:00:01:52:54:00:00:00:01", "option-data": url});

        for (configuration, family, place) in [
            (json!({"subnet4": [subnet]}), IpFamily::V4, "the subnet 10.0.0.0/24 in"),
            (json!({"subnet4": [pool]}), IpFamily::V4, "the pool 10.0.0.9 in"),
            (json!({"shared-networks": [network]}), IpFamily::V4, "the shared network lab in"),
            (
                json!({"subnet4": [{"subnet": "10.0.0.0/24", "reservations": [host]}]}),
                IpFamily::V4,
                "the reservation of 52:54:00:00:00:01 in the subnet 10.0.0.0/24 in",
            ),
            (
                json!({"reservations-global": true, "reservations": [duid]}),
                IpFamily::V6,
                "the reservation of 00:03:00:01:52:54:00:00:00:01 in all subnets in",
            ),
        ] {
            let refused = warning(&configuration, family).unwrap_err();
            assert!(refused.contains(&format!("the option-data of {place} place")), "{refused}");
        }
        let fine = json!({
            "option-data": own, "client-classes": [class], "subnet4": [{"option-data": free}],
            "reservations": [host],
        });
        assert_eq!(warning(&fine, IpFamily::V4), Ok(None));
    }

    #[test]
    fn where_some_subnets_or_other_machines_alone_have_options_of_their_own_machines_still_boot() {
        let own = json!([{"code": 67, "data": "x"}]);
        let some = json!({"subnet4": [
            {"subnet": "10.0.0.0/24", "option-data": own}, {"subnet": "10.0.1.0/24"},
        ]});
        let others = json!({"subnet4": [{"reservations": [
            {"hw-address": "52:54:00:00:00:02", "option-data": own},
        ]}]});

        let warned = warning(&some, IpFamily::V4).unwrap().unwrap();
        assert!(warned.contains("the option-data of the subnet 10.0.0.0/24 in place"), "{warned}");
        assert_eq!(warning(&others, IpFamily::V4), Ok(None));
    }
}
