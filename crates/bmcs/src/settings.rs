//! The settings of a BMC: the `redfish_*` keys of a node's `driver_info`.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};
use thiserror::Error;
use transport::tls::CertificateFingerprint;
use url::Url;

/// The settings of one node's BMC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BmcSettings {
    /// `redfish_address`: scheme, host and port alone.
    pub address: Url,
    /// `redfish_username` and `redfish_password`; `None` without a user name.
    pub user: Option<BmcUser>,
    /// `redfish_system_id`.
    pub system_id: Option<String>,
    /// `redfish_auth_type`.
    pub auth_type: BmcAuthType,
    /// `redfish_verify_ca` and `redfish_fingerprint`.
    pub trust: BmcTrust,
    /// `redfish_tls`.
    pub tls: BmcTlsPolicy,
}

/// A user of a BMC.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BmcUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// Without the password.
impl fmt::Debug for BmcUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BmcUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The kind of login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BmcAuthType {
    /// A session; basic authentication if the BMC offers no sessions, or has none to spare.
    #[default]
    Auto,
    /// A session only.
    Session,
    /// Basic authentication only.
    Basic,
}

/// The protocol versions and ciphers of TLS that are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BmcTlsPolicy {
    /// TLS 1.2 and 1.3 with forward secrecy.
    #[default]
    Modern,
    /// All that OpenSSL has: TLS 1.0 and 1.1, RSA key exchange, SHA-1 signatures.
    Legacy,
}

/// The server certificates that are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BmcTrust {
    /// Those of the authorities that this host trusts.
    Authorities,
    /// All.
    Anything,
    /// The certificates in a file, and those that they issued.
    File(PathBuf),
    /// The one with this fingerprint, whatever `redfish_verify_ca` is.
    Fingerprint(CertificateFingerprint),
}

/// A setting of the node is missing or invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("driver_info/{setting} {problem}")]
pub struct WrongBmcSetting {
    /// The setting.
    pub setting: &'static str,
    /// The problem, to follow the name of the setting.
    pub problem: String,
}

impl WrongBmcSetting {
    pub(crate) fn new(setting: &'static str, problem: impl Into<String>) -> Self {
        Self { setting, problem: problem.into() }
    }
}

impl BmcSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// The first setting that is missing or invalid.
    pub fn of(driver_info: &Map<String, Value>) -> Result<Self, WrongBmcSetting> {
        let address = address(text(driver_info, "redfish_address")?)?;
        let name = text(driver_info, "redfish_username")?.filter(|name| !name.is_empty());
        let password = text(driver_info, "redfish_password")?.unwrap_or_default();
        let user = name.map(|name| BmcUser { name: name.into(), password: password.into() });
        Ok(Self {
            trust: trust(driver_info, &address)?,
            address,
            user,
            system_id: system_id(driver_info)?,
            auth_type: auth_type(driver_info)?,
            tls: tls(driver_info)?,
        })
    }
}

/// A text; `None` if it is missing or null.
fn text<'i>(
    driver_info: &'i Map<String, Value>,
    setting: &'static str,
) -> Result<Option<&'i str>, WrongBmcSetting> {
    match driver_info.get(setting) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        // The value is not shown: it may be a password.
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(WrongBmcSetting::new(setting, "must be a string"))
        }
    }
}

/// Ironic accepts a bare host and assumes https.
fn address(text: Option<&str>) -> Result<Url, WrongBmcSetting> {
    let wrong = |problem: &str| WrongBmcSetting::new("redfish_address", problem);
    let text = text.ok_or_else(|| wrong("is missing"))?;
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&full).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The value must not appear in logs and errors.
        return Err(wrong(
            "must not hold a user name or a password: set redfish_username and redfish_password",
        ));
    }
    url.set_path("");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn system_id(driver_info: &Map<String, Value>) -> Result<Option<String>, WrongBmcSetting> {
    match text(driver_info, "redfish_system_id")? {
        None => Ok(None),
        Some(path) if path.starts_with('/') => Ok(Some(path.to_owned())),
        Some(_) => Err(WrongBmcSetting::new(
            "redfish_system_id",
            "must be the path of a ComputerSystem, such as /redfish/v1/Systems/1",
        )),
    }
}

fn auth_type(driver_info: &Map<String, Value>) -> Result<BmcAuthType, WrongBmcSetting> {
    match text(driver_info, "redfish_auth_type")? {
        None | Some("auto") => Ok(BmcAuthType::Auto),
        Some("session") => Ok(BmcAuthType::Session),
        Some("basic") => Ok(BmcAuthType::Basic),
        Some(_) => {
            Err(WrongBmcSetting::new("redfish_auth_type", "must be one of basic, session, auto"))
        }
    }
}

fn tls(driver_info: &Map<String, Value>) -> Result<BmcTlsPolicy, WrongBmcSetting> {
    match text(driver_info, "redfish_tls")? {
        None | Some("modern") => Ok(BmcTlsPolicy::Modern),
        Some("legacy") => Ok(BmcTlsPolicy::Legacy),
        Some(_) => Err(WrongBmcSetting::new("redfish_tls", "must be one of modern, legacy")),
    }
}

fn trust(driver_info: &Map<String, Value>, address: &Url) -> Result<BmcTrust, WrongBmcSetting> {
    if let Some(text) = text(driver_info, "redfish_fingerprint")? {
        let wrong = |problem: &str| WrongBmcSetting::new("redfish_fingerprint", problem);
        if address.scheme() != "https" {
            return Err(wrong("needs a redfish_address with https"));
        }
        let fingerprint = text.parse::<CertificateFingerprint>();
        return fingerprint.map(BmcTrust::Fingerprint).map_err(|error| wrong(&error.to_string()));
    }
    match driver_info.get("redfish_verify_ca") {
        None | Some(Value::Bool(true)) => Ok(BmcTrust::Authorities),
        Some(Value::Bool(false)) => Ok(BmcTrust::Anything),
        Some(Value::String(text)) => Ok(match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => BmcTrust::Authorities,
            "false" | "no" | "0" => BmcTrust::Anything,
            _ => BmcTrust::File(text.into()),
        }),
        Some(Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(WrongBmcSetting::new(
                "redfish_verify_ca",
                "must be true, false or the path of a PEM file",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn any_settings_are_read_or_refused_with_the_name_of_one(
            setting in "redfish_(address|username|password|system_id|auth_type|tls|verify_ca|fingerprint)",
            text in prop_oneof![".*", "(https?|ftp)://[^/]{0,9}(:[0-9]{0,6})?(/.{0,9})?", "\\[[0-9a-f:]{0,20}\\]"],
        ) {
            match read_with(&setting, json!(text)) {
                Ok(settings) => prop_assert!(settings.address.has_host()),
                Err(refused) => {
                    let name = format!("driver_info/{setting} ");
                    prop_assert!(refused.starts_with(&name), "{}", refused);
                }
            }
        }
    }

    fn read(driver_info: Value) -> Result<BmcSettings, String> {
        BmcSettings::of(driver_info.as_object().unwrap()).map_err(|error| error.to_string())
    }

    /// With an address.
    fn read_with(setting: &str, value: Value) -> Result<BmcSettings, String> {
        read(json!({"redfish_address": "https://192.0.2.1", setting: value}))
    }

    #[test]
    fn a_bare_host_means_https_and_a_path_is_left_out() {
        for (text, address) in [
            ("bmc.example", "https://bmc.example/"),
            ("192.0.2.1:8443", "https://192.0.2.1:8443/"),
            ("[2001:db8::1]", "https://[2001:db8::1]/"),
            ("http://bmc/redfish/v1?x=y#z", "http://bmc/"),
        ] {
            let settings = read(json!({"redfish_address": text})).unwrap();
            assert_eq!(settings.address.as_str(), address);
        }
    }

    #[test]
    fn what_is_not_set_has_a_default() {
        let settings = read(json!({"redfish_address": "bmc"})).unwrap();

        assert_eq!(settings.user, None);
        assert_eq!(settings.auth_type, BmcAuthType::Auto);
        assert_eq!(settings.tls, BmcTlsPolicy::Modern);
        assert_eq!(settings.trust, BmcTrust::Authorities);
    }

    #[test]
    fn an_address_with_a_password_is_refused_without_saying_it() {
        for address in
            ["https://admin:geheim@192.0.2.1", "admin:geheim@192.0.2.1", "https://geheim@h"]
        {
            let refused = read(json!({"redfish_address": address})).unwrap_err();
            assert!(refused.contains("must not hold a user name or a password"), "{refused}");
            assert!(!refused.contains("geheim"), "{refused}");
        }
    }

    #[test]
    fn a_password_is_in_no_error_and_no_debug_output() {
        let info =
            json!({"redfish_address": "h", "redfish_username": "me", "redfish_password": "geheim"});
        assert!(!format!("{:?}", read(info).unwrap()).contains("geheim"));

        let refused = read_with("redfish_password", json!(["geheim"])).unwrap_err();
        assert_eq!(refused, "driver_info/redfish_password must be a string");
    }

    #[test]
    fn a_fingerprint_wins_over_redfish_verify_ca_and_is_checked() {
        let pinned = |address: &str, value: Value| {
            read(json!({
                "redfish_address": address, "redfish_verify_ca": false, "redfish_fingerprint": value,
            }))
        };
        let good = json!("ab".repeat(32));

        let trust = pinned("192.0.2.1", good.clone()).unwrap().trust;
        assert!(matches!(trust, BmcTrust::Fingerprint(_)));
        let refused = pinned("192.0.2.1", json!("abc")).unwrap_err();
        assert!(refused.contains("64 hexadecimal digits"), "{refused}");
        assert!(pinned("192.0.2.1", json!(true)).unwrap_err().ends_with("must be a string"));
        let refused = pinned("http://192.0.2.1", good).unwrap_err();
        assert!(refused.contains("needs a redfish_address with https"), "{refused}");
    }

    #[test]
    fn redfish_verify_ca_is_a_switch_or_a_path() {
        let trust = |value: Value| read_with("redfish_verify_ca", value).map(|all| all.trust);

        for yes in [json!(true), json!("True"), json!("yes"), json!("1")] {
            assert_eq!(trust(yes), Ok(BmcTrust::Authorities));
        }
        for no in [json!(false), json!("FALSE"), json!("no"), json!("0")] {
            assert_eq!(trust(no), Ok(BmcTrust::Anything));
        }
        assert_eq!(trust(json!("/etc/bmc.pem")), Ok(BmcTrust::File("/etc/bmc.pem".into())));
        for wrong in [json!(null), json!(1), json!([]), json!({})] {
            let refused = trust(wrong).unwrap_err();
            assert!(refused.starts_with("driver_info/redfish_verify_ca must be"), "{refused}");
        }
    }

    #[test]
    fn each_wrong_setting_is_named() {
        for (setting, value) in [
            ("redfish_address", json!("ftp://h")),
            ("redfish_address", json!("https://")),
            ("redfish_address", json!(null)),
            ("redfish_username", json!(1)),
            ("redfish_system_id", json!("1")),
            ("redfish_auth_type", json!("digest")),
            ("redfish_tls", json!("1.0")),
        ] {
            let refused = read_with(setting, value).unwrap_err();
            assert!(refused.starts_with(&format!("driver_info/{setting} ")), "{refused}");
        }
    }
}
