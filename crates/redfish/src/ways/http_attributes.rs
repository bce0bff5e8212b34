//! The BIOS attributes that decide whether the firmware boots over HTTP, under each vendor's names.

use serde_json::{Map, Value, json};

/// What the firmware is to boot over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpSupport {
    /// HTTP over IPv6, not IPv4.
    pub ipv6: bool,
    /// Plain HTTP, without TLS.
    pub plain: bool,
}

/// What an attribute is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttributePurpose {
    /// HTTP over IPv4: Supermicro's `IPv4HTTPSupport_…`, Lenovo's `NetworkStackSettings_IPv4HTTPSupport`, AMI's
    /// `Ipv4Http` and `NWSK006`, Cisco's `IPV4HTTP`.
    Ipv4Http,
    /// The same over IPv6 (`NWSK007` in libredfish's `ami.rs`).
    Ipv6Http,
    /// The network stack of the firmware: `NetworkStack`, AMI's `NWSK000`.
    NetworkStack,
    /// Dell's `HttpDev1EnDis`.
    DellDevice,
    /// Dell's `HttpDev1TlsMode`: `OneWay` refuses plain HTTP (UEFI0417).
    DellTls,
    /// HPE's `HttpSupport`: `Auto`, `HttpsOnly`, `HttpOnly`, `Disabled`.
    HpeHttp,
    /// Lenovo's PXE over IPv4, which its *Network* tries before HTTP (libredfish's `lenovo.rs`).
    LenovoPxe,
    /// Lenovo's `BootModes_InfiniteBootRetry`.
    LenovoRetry,
}

impl AttributePurpose {
    fn of(name: &str, attributes: &Map<String, Value>) -> Option<Self> {
        const LENOVO: &str = "NetworkStackSettings_IPv4HTTPSupport";
        match name {
            "HttpDev1EnDis" => return Some(Self::DellDevice),
            "HttpDev1TlsMode" => return Some(Self::DellTls),
            "HttpSupport" => return Some(Self::HpeHttp),
            "NetworkStackSettings_IPv4PXESupport" if attributes.contains_key(LENOVO) => {
                return Some(Self::LenovoPxe);
            }
            "BootModes_InfiniteBootRetry" if attributes.contains_key(LENOVO) => {
                return Some(Self::LenovoRetry);
            }
            _ => {}
        }
        let lower = name.to_ascii_lowercase();
        let lower = lower.rsplit("settings_").next().unwrap_or(&lower);
        match lower.split('_').next().unwrap_or(lower) {
            "ipv4httpsupport" | "ipv4http" | "nwsk006" => Some(Self::Ipv4Http),
            "ipv6httpsupport" | "ipv6http" | "nwsk007" => Some(Self::Ipv6Http),
            "networkstack" | "nwsk000" => Some(Self::NetworkStack),
            _ => None,
        }
    }

    /// The values that let the firmware boot, the best first; in lower case. Empty if the present value does.
    fn wanted(self, value: &str, support: HttpSupport) -> &'static [&'static str] {
        const ON: &[&str] = &["enabled", "enable", "on"];
        let is_off = matches!(value, "disabled" | "disable" | "off");
        match self {
            Self::Ipv4Http if is_off && !support.ipv6 => ON,
            Self::Ipv6Http if is_off && support.ipv6 => ON,
            Self::NetworkStack | Self::DellDevice | Self::LenovoRetry if is_off => ON,
            Self::DellTls if value != "none" && !is_off && support.plain => &["none", "disabled"],
            Self::HpeHttp if is_off || (value == "httpsonly" && support.plain) => &["auto"],
            Self::LenovoPxe if !is_off && !support.ipv6 => &["disabled"],
            Self::Ipv4Http
            | Self::Ipv6Http
            | Self::NetworkStack
            | Self::DellDevice
            | Self::DellTls
            | Self::HpeHttp
            | Self::LenovoPxe
            | Self::LenovoRetry => &[],
        }
    }
}

/// The attributes that keep the firmware from booting over HTTP, with the values that let it; in the order of their
/// names. `registry` has the entries of the BIOS attribute registry, if it could be read.
pub(super) fn for_http(
    attributes: &Map<String, Value>,
    registry: &[Value],
    support: HttpSupport,
) -> Vec<(String, Value)> {
    let wanted = attributes.iter().filter_map(|(name, shown)| {
        let purpose = AttributePurpose::of(name, attributes)?;
        let shown = shown.as_str()?;
        let wanted = purpose.wanted(&plain_value(name, shown), support);
        let first = wanted.first()?;
        let value = listed_value(name, registry, wanted)
            .unwrap_or_else(|| in_the_form_of(name, shown, first));
        Some((name.clone(), json!(value)))
    });
    wanted.collect()
}

/// Whether an attribute for HTTP boot is known among these.
pub(super) fn knows_any(attributes: &Map<String, Value>) -> bool {
    attributes.keys().any(|name| {
        matches!(
            AttributePurpose::of(name, attributes),
            Some(
                AttributePurpose::Ipv4Http
                    | AttributePurpose::Ipv6Http
                    | AttributePurpose::DellDevice
                    | AttributePurpose::HpeHttp
            )
        )
    })
}

/// Advice about the attributes that keep the firmware from booting over HTTP.
pub(super) fn advice(attributes: &Map<String, Value>, support: HttpSupport) -> Vec<String> {
    let needed = for_http(attributes, &[], support).into_iter().filter_map(|(name, value)| {
        let purpose = AttributePurpose::of(&name, attributes)?;
        let (shown, value) = (attributes.get(&name)?.as_str()?, value.as_str()?.to_owned());
        match purpose {
            AttributePurpose::LenovoRetry => None,
            AttributePurpose::LenovoPxe => Some(format!(
                "the BIOS attribute {name} is {shown}: the firmware asks for PXE before HTTP until it is {value} and \
                 the machine was reset"
            )),
            AttributePurpose::DellTls => Some(format!(
                "the BIOS attribute {name} is {shown}: the firmware refuses plain HTTP until it is {value} and the \
                 machine was reset"
            )),
            AttributePurpose::Ipv4Http
            | AttributePurpose::Ipv6Http
            | AttributePurpose::NetworkStack
            | AttributePurpose::DellDevice
            | AttributePurpose::HpeHttp => Some(format!(
                "the BIOS attribute {name} is {shown}: the firmware boots over HTTP only after it is {value} and the \
                 machine was reset"
            )),
        }
    });
    let needed: Vec<_> = needed.collect();
    let step = "the clean step bios.enable_http_boot sets what the BIOS lacks for it".to_owned();
    let step = (!needed.is_empty()).then_some(step);
    needed.into_iter().chain(step).collect()
}

/// A value in lower case, without the attribute's name before it: some of AMI's are `NWSK006Enabled`.
fn plain_value(name: &str, value: &str) -> String {
    let rest = value.strip_prefix(name).filter(|rest| !rest.is_empty());
    rest.unwrap_or(value).to_ascii_lowercase()
}

/// The best of the `wanted` values that the registry lists, as it spells it.
fn listed_value(name: &str, registry: &[Value], wanted: &[&str]) -> Option<String> {
    let entry = registry.iter().find(|entry| entry["AttributeName"] == name)?;
    let values = entry["Value"].as_array()?;
    let names: Vec<_> = values.iter().filter_map(|value| value["ValueName"].as_str()).collect();
    let fits = |wanted: &&str| names.iter().find(|value| plain_value(name, value) == **wanted);
    wanted.iter().find_map(fits).map(|value| (*value).to_owned())
}

/// A wanted value as the present one is spelled: `Disable` becomes `Enable`, `NWSK006Disabled` `NWSK006Enabled`.
fn in_the_form_of(name: &str, shown: &str, wanted: &str) -> String {
    let prefix = if shown.len() > name.len() && shown.starts_with(name) { name } else { "" };
    let wanted = match &*plain_value(name, shown) {
        "disable" => "Enable",
        "enable" => "Disable",
        "off" => "On",
        "on" => "Off",
        _ => match wanted {
            "enabled" => "Enabled",
            "disabled" => "Disabled",
            "auto" => "Auto",
            _ => "None",
        },
    };
    format!("{prefix}{wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4: HttpSupport = HttpSupport { ipv6: false, plain: true };
    const IPV6: HttpSupport = HttpSupport { ipv6: true, plain: true };
    const TLS: HttpSupport = HttpSupport { ipv6: false, plain: false };

    fn needed(attributes: Value, registry: &[Value], support: HttpSupport) -> Value {
        let attributes = attributes.as_object().unwrap().clone();
        for_http(&attributes, registry, support).into_iter().collect::<Map<_, _>>().into()
    }

    #[test]
    fn attributes_that_prevent_http_boot_are_found_under_each_vendors_name() {
        for (name, off, on) in [
            ("IPv4HTTPSupport_00F5", "Disabled", "Enabled"),
            ("NetworkStackSettings_IPv4HTTPSupport", "Disabled", "Enabled"),
            ("NetworkStackSettings_NetworkStack", "Disabled", "Enabled"),
            ("Ipv4Http", "Disabled", "Enabled"),
            ("IPV4HTTP", "disabled", "Enabled"),
            ("NWSK006", "Disable", "Enable"),
            ("NWSK006", "NWSK006Disabled", "NWSK006Enabled"),
            ("NWSK000", "NWSK000Disabled", "NWSK000Enabled"),
            ("NetworkStack_00F3", "Disabled", "Enabled"),
            ("HttpDev1EnDis", "Disabled", "Enabled"),
            ("HttpDev1TlsMode", "OneWay", "None"),
            ("HttpSupport", "Disabled", "Auto"),
            ("HttpSupport", "HttpsOnly", "Auto"),
        ] {
            assert_eq!(needed(json!({name: off}), &[], IPV4), json!({name: on}), "{name} {off}");
            assert_eq!(needed(json!({name: on}), &[], IPV4), json!({}), "{name} {on}");
        }
        for name in
            ["IPv6HTTPSupport_00F7", "NetworkStackSettings_IPv6HTTPSupport", "Ipv6Http", "NWSK007"]
        {
            assert_eq!(needed(json!({name: "Disabled"}), &[], IPV4), json!({}), "{name}");
            assert_eq!(
                needed(json!({name: "Disabled"}), &[], IPV6),
                json!({name: "Enabled"}),
                "{name}"
            );
        }
        let for_tls = json!({"HttpDev1TlsMode": "OneWay", "HttpSupport": "HttpsOnly"});
        assert_eq!(needed(for_tls, &[], TLS), json!({}));
        for other in [
            "HTTPSBootChecksHostname_010E",
            "IPv4PXESupport_00F4",
            "UEFINetworkStack",
            "HttpDev2EnDis",
        ] {
            assert_eq!(needed(json!({other: "Disabled"}), &[], IPV4), json!({}), "{other}");
        }
    }

    #[test]
    fn the_registry_says_how_a_value_is_spelled() {
        let registry = |values: [&str; 2]| {
            let values = values.map(|value| json!({"ValueName": value}));
            [json!({"AttributeName": "Ipv4Http", "Value": values})]
        };
        for (off, on) in [
            ("Disabled", "Enabled"),
            ("Disable", "Enable"),
            ("Ipv4HttpDisabled", "Ipv4HttpEnabled"),
        ] {
            let needed = needed(json!({"Ipv4Http": "Disabled"}), &registry([off, on]), IPV4);

            assert_eq!(needed, json!({"Ipv4Http": on}));
        }
    }

    #[test]
    fn lenovos_network_asks_for_pxe_first_unless_that_is_off() {
        let name = |rest: &str| format!("NetworkStackSettings_{rest}");
        let shown = json!({
            name("IPv4HTTPSupport"): "Enabled",
            name("IPv4PXESupport"): "Enabled",
            "BootModes_InfiniteBootRetry": "Disabled",
        });
        let wanted =
            json!({name("IPv4PXESupport"): "Disabled", "BootModes_InfiniteBootRetry": "Enabled"});

        let advice = advice(shown.as_object().unwrap(), IPV4);

        assert_eq!(needed(shown, &[], IPV4), wanted);
        assert_eq!(advice.len(), 2, "{advice:?}");
        assert!(advice[1].contains("bios.enable_http_boot"), "{advice:?}");
        assert!(advice[0].contains("asks for PXE before HTTP until it is Disabled"), "{advice:?}");
    }
}
