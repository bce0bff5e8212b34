//! The client classes of boots. Each class selects the clients of one URL.

use std::collections::BTreeSet;
use std::fmt;

use hardware::{ClientArchitecture, CpuArch, Mac};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

use crate::interface_addresses::link_local_of;
use crate::providers::announcement::Announcement;
use crate::urls::IpFamily;

/// The prefix of this service's classes.
const OURS: &str = "ferroboot-";

/// The classes of all `boots`: for each port, one for firmware of each architecture, and one for iPXE.
pub(super) fn of(boots: &[Announcement], family: IpFamily) -> Vec<Value> {
    boots.iter().flat_map(|boot| of_boot(boot, family)).collect()
}

fn of_boot(boot: &Announcement, family: IpFamily) -> Vec<Value> {
    let Ok(links) = boot.links_in_options(family) else { return Vec::new() };
    let firmware =
        links.firmware.iter().map(|(cpu_arch, url)| (ClassClient::Firmware(*cpu_arch), url));
    let clients: Vec<_> = firmware.chain([(ClassClient::Ipxe, &links.ipxe)]).collect();
    let classes = boot.ports.iter().flat_map(|port| {
        let class = |&(client, url): &(ClassClient, &Url)| {
            let (test, options) = match family {
                IpFamily::V4 => (v4::test(port.mac, client), v4::options(url.as_str(), client)),
                IpFamily::V6 => (v6::test(port.mac, client), v6::options(url.as_str(), client)),
            };
            let (boot, mac) = (boot.attempt.simple(), port.mac.dashed());
            let mut class = json!({"test": test, "option-data": options});
            class["name"] = format!("{OURS}{boot}-{mac}-{client}-{}", digest(&class)).into();
            class
        };
        clients.iter().map(class).collect::<Vec<_>>()
    });
    classes.collect()
}

/// A digest that differs between classes with different contents.
fn digest(class: &Value) -> String {
    let digest = Sha256::digest(class.to_string());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// The clients of a machine that a class selects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClassClient {
    Firmware(CpuArch),
    Ipxe,
}

impl fmt::Display for ClassClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firmware(cpu_arch) => write!(f, "http-{cpu_arch}"),
            Self::Ipxe => f.write_str("ipxe"),
        }
    }
}

/// Puts `ours` into a configuration, before all others, and removes the classes of boots whose attempts `is_replaced`
/// selects: of two classes with the same option, Kea sends the first one's.
///
/// Returns whether the configuration changed.
pub(super) fn replace(
    configuration: &mut Value,
    ours: Vec<Value>,
    is_replaced: impl Fn(Uuid) -> bool,
) -> bool {
    let classes = configuration["client-classes"].take();
    let mut classes = if let Value::Array(classes) = classes { classes } else { Vec::new() };
    let is_old = |class: &Value| attempt_of(name(class)).is_some_and(&is_replaced);
    let is_others = |class: &Value| attempt_of(name(class)).is_none();
    let behind_others = classes.iter().skip_while(|class| !is_others(class)).any(is_old);
    let old: Vec<_> = classes.extract_if(.., |class| is_old(class)).collect();
    // A class's name includes a digest of its contents, and Kea shows more members than were set.
    let changes = behind_others || names(&old) != names(&ours);
    classes.splice(..0, ours);
    configuration["client-classes"] = Value::Array(classes);
    changes
}

/// Whether one of `ours` is missing in a configuration.
pub(super) fn lacks(configuration: &Value, ours: &[Value]) -> bool {
    let classes = configuration["client-classes"].as_array().map(Vec::as_slice);
    let there = names(classes.unwrap_or_default());
    !names(ours).is_subset(&there)
}

fn names(classes: &[Value]) -> BTreeSet<&str> {
    classes.iter().map(name).collect()
}

fn name(class: &Value) -> &str {
    class["name"].as_str().unwrap_or_default()
}

/// The attempt of a class that this service made, on any daemon; `None` for other classes.
fn attempt_of(name: &str) -> Option<Uuid> {
    let (attempt, _) = name.strip_prefix(OURS)?.split_once('-')?;
    attempt.parse().ok()
}

/// Whether a client lists an architecture among the first three in its option (RFC 5970 §3.3: a list of two-byte
/// codes).
fn lists(option: u16, cpu_arch: CpuArch) -> String {
    let ClientArchitecture(code) = cpu_arch.http_client();
    let at = |byte| format!("substring(option[{option}].hex,{byte},2) == 0x{code:04x}");
    format!("({})", [0, 2, 4].map(at).join(" or "))
}

/// A text in Kea's list of values.
fn escaped(url: &str) -> String {
    url.replace(',', "\\,")
}

mod v4 {
    use super::{ClassClient, Mac, Value, escaped, hex, json, lists};

    const IPXE: &str = "(option[175].exists or option[77].hex == 'iPXE')";

    pub(super) fn test(mac: Mac, client: ClassClient) -> String {
        let mac = hex(mac);
        match client {
            ClassClient::Firmware(cpu_arch) => format!(
                "pkt4.mac == 0x{mac} and {} and substring(option[60].hex,0,10) == 'HTTPClient' \
                 and not {IPXE}",
                lists(93, cpu_arch)
            ),
            ClassClient::Ipxe => format!("pkt4.mac == 0x{mac} and {IPXE}"),
        }
    }

    pub(super) fn options(url: &str, client: ClassClient) -> Vec<Value> {
        let file = json!({"name": "boot-file-name", "data": escaped(url), "always-send": true});
        let class = json!({
            "name": "vendor-class-identifier", "data": "HTTPClient", "always-send": true,
        });
        match client {
            ClassClient::Firmware(_) => vec![file, class],
            ClassClient::Ipxe => vec![file],
        }
    }
}

mod v6 {
    use super::{ClassClient, Mac, Value, escaped, hex, json, link_local_of, lists};

    const IPXE: &str = "substring(option[15].hex,2,4) == 'iPXE'";

    pub(super) fn test(mac: Mac, client: ClassClient) -> String {
        let sender = sender(mac);
        match client {
            ClassClient::Firmware(cpu_arch) => format!(
                "{sender} and {} and substring(option[16].hex,6,10) == 'HTTPClient' \
                 and not ({IPXE})",
                lists(61, cpu_arch)
            ),
            ClassClient::Ipxe => format!("{sender} and {IPXE}"),
        }
    }

    /// A DHCPv6 message has the MAC address in its sender's link-local address, in a relay's option (RFC 6939), or in
    /// its DUID; firmware's DUID is the machine's UUID.
    fn sender(mac: Mac) -> String {
        let (address, mac) = (link_local_of(mac), hex(mac));
        format!(
            "(pkt.src == {address} or relay6[-1].peeraddr == {address} or \
             relay6[-1].option[79].hex == 0x0001{mac} or substring(option[1].hex,-6,6) == 0x{mac})"
        )
    }

    /// The option after the URL (an empty boot file parameter) is required since EDK2 reads the URL as a
    /// zero-terminated text (`HttpBootDhcp6.c`), and Kea sends options by number.
    pub(super) fn options(url: &str, client: ClassClient) -> Vec<Value> {
        let file = json!({"name": "bootfile-url", "data": escaped(url), "always-send": true});
        // IANA's enterprise number (343, Intel), and one text of ten bytes.
        let class = "00000157000a48545450436c69656e74";
        let class = json!({"code": 16, "csv-format": false, "data": class, "always-send": true});
        let end = json!({"code": 60, "csv-format": false, "data": "0000", "always-send": true});
        match client {
            ClassClient::Firmware(_) => vec![class, file, end],
            ClassClient::Ipxe => vec![file],
        }
    }
}

fn hex(mac: Mac) -> String {
    mac.dashed().replace('-', "")
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use provision::BootInterface::{Http, HttpIpxe};

    use super::*;
    use crate::providers::test_announcements::{announcement, next_boot};

    #[test]
    fn each_family_is_told_of_urls_that_it_reaches() {
        let boots = [
            announcement(Http, "10.0.0.1"),
            announcement(Http, "[fd00::1]"),
            announcement(Http, "boot.example"),
        ];

        let urls = |family, option: usize| -> Vec<String> {
            let classes = of(&boots, family);
            let x64 = classes.iter().step_by(3);
            x64.map(|class| class["option-data"][option]["data"].to_string()).collect()
        };

        let [four, six] = [urls(IpFamily::V4, 0), urls(IpFamily::V6, 1)];
        assert!(four[0].contains("//10.0.0.1/") && four[1].contains("//boot.example/"), "{four:?}");
        assert!(six[0].contains("//[fd00::1]/") && six[1].contains("//boot.example/"), "{six:?}");
    }

    #[test]
    fn classes_have_the_form_on_this_page() {
        let boots = [announcement(HttpIpxe, "boot.example")];

        insta::assert_json_snapshot!(json!({
            "Dhcp4": of(&boots, IpFamily::V4),
            "Dhcp6": of(&boots, IpFamily::V6),
        }));
    }

    #[test]
    fn what_others_configured_stays_and_what_is_there_is_not_set_again() {
        let ours = of(&[announcement(Http, "10.0.0.1")], IpFamily::V4);
        let others = json!({"name": "phones", "test": "option[60].text == 'phone'"});
        let mut configuration = json!({"valid-lifetime": 60, "client-classes": [others]});

        assert!(lacks(&configuration, &ours));
        assert!(replace(&mut configuration, ours.clone(), |_| true));
        assert_eq!(configuration["client-classes"].as_array().unwrap().len(), 4);
        assert!(!lacks(&configuration, &ours));
        assert!(!replace(&mut configuration, ours, |_| true));
        assert!(replace(&mut configuration, Vec::new(), |_| true));
        assert_eq!(configuration, json!({"valid-lifetime": 60, "client-classes": [others]}));
    }

    #[test]
    fn classes_stand_in_front_of_others_of_which_one_with_another_url_would_win() {
        let ours = of(&[announcement(Http, "10.0.0.1")], IpFamily::V4);
        let others = vec![json!({"name": "legacy"})];
        let [in_front, behind] = [[&ours, &others], [&others, &ours]].map(|[first, second]| {
            let all: Vec<_> = first.iter().chain(second).collect();
            json!({"client-classes": all})
        });

        for mut configuration in [json!({"client-classes": others}), behind] {
            assert!(replace(&mut configuration, ours.clone(), |_| true));
            assert_eq!(configuration, in_front);
            assert!(!replace(&mut configuration, ours.clone(), |_| true));
        }
    }

    #[test]
    fn a_boot_whose_url_has_changed_is_told_anew() {
        let old = of(&[announcement(Http, "10.0.0.1")], IpFamily::V4);
        let new = of(&[announcement(Http, "10.0.0.2")], IpFamily::V4);
        let mut configuration = json!({"client-classes": old});

        assert!(lacks(&configuration, &new));
        assert!(replace(&mut configuration, new.clone(), |_| true));

        assert_eq!(configuration, json!({"client-classes": new}));
    }

    #[test]
    fn what_another_daemon_told_stays() {
        let first = announcement(Http, "10.0.0.1");
        let other = next_boot(&first);
        let [first_classes, others] = [&first, &other].map(|boot| of(from_ref(boot), IpFamily::V4));
        let mut configuration = json!({"client-classes": others});
        let is_ours = |attempt| attempt == first.attempt;

        assert!(replace(&mut configuration, first_classes, is_ours));
        assert!(replace(&mut configuration, Vec::new(), is_ours));

        assert_eq!(configuration, json!({"client-classes": others}));
    }

    #[test]
    fn a_client_that_lists_several_architectures_is_known_by_any_of_them() {
        let tests = [v4::test, v6::test]
            .map(|test| test(Mac([0x52, 0x54, 0, 0, 0, 1]), ClassClient::Firmware(CpuArch::X64)));

        for (test, option) in tests.iter().zip([93, 61]) {
            for byte in [0, 2, 4] {
                let listed = format!("substring(option[{option}].hex,{byte},2) == 0x0010");
                assert!(test.contains(&listed), "{listed} is not in {test}");
            }
        }
    }
}
