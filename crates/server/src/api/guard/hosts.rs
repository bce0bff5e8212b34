//! Checks of `Host`, `Origin`, `Sec-Fetch-Site` and `Content-Type`.
//!
//! A page in an operator's browser can send requests to every address that the browser reaches. Foreign host names
//! are refused, since their owners can make them resolve to this host (DNS rebinding). Pages of other origins are
//! refused, and bodies of types that a page may send without a preflight (Fetch Standard §4.8, CORS-safelisted
//! request headers).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::{HeaderMap, Uri, Version, header};
use thiserror::Error;
use url::{Host, Url};

/// The host names of the API, besides `localhost` and IP addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct ApiNames {
    names: BTreeSet<String>,
    /// The origin of `public_url`: the origin of the API behind a TLS proxy.
    public: Option<Origin>,
}

/// The authority of a request: the target host (RFC 9110 §7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    host: HostName,
    port: Option<u16>,
}

/// The origin of a web page (RFC 6454 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: HostName,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostName {
    Address(IpAddr),
    /// In lower case, without a trailing dot.
    Name(String),
}

/// A request for a foreign host, or without one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum WrongHost {
    #[error("The request has no Host header, which HTTP/1.1 asks for.")]
    Missing,
    #[error("The request has more than one Host header.")]
    Several,
    #[error("The request's Host is not a host with or without a port.")]
    Unreadable,
    #[error(
        "This API does not answer to the name {0}: use its IP address or localhost, or add the name to `hosts` in \
         [api] of the service's settings, or set `public_url` there."
    )]
    NotOurs(String),
}

/// A request sent by a web page of another origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum ForeignPage {
    #[error("The request comes from a web page of another origin (its Origin is not this API's).")]
    Origin,
    #[error("The request comes from a web page of another site (its Sec-Fetch-Site says so).")]
    Site,
}

impl ApiNames {
    /// The names in the settings `hosts` (without ports) and `public_url`.
    pub(super) fn new(hosts: &[Host], public_url: Option<&Url>) -> Self {
        let public_host = public_url.and_then(Url::host).map(|host| host.to_owned());
        let names = hosts.iter().chain(&public_host).filter_map(|host| match host {
            Host::Domain(name) => Some(lower(name)),
            // Every IP address is accepted.
            Host::Ipv4(_) | Host::Ipv6(_) => None,
        });
        Self { names: names.collect(), public: public_url.and_then(Origin::of_url) }
    }

    /// The authority of a request, if it belongs to the API.
    ///
    /// # Errors
    /// [`WrongHost`]
    pub(super) fn check(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<Authority>, WrongHost> {
        // With a target in absolute form (RFC 9112 §3.2.2), both the target and `Host` are checked.
        if let Some(target) = uri.authority() {
            self.judge(target.as_str())?;
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (None, _) if version <= Version::HTTP_10 => Ok(None),
            (None, _) => Err(WrongHost::Missing),
            (Some(_), Some(_)) => Err(WrongHost::Several),
            (Some(host), None) => {
                self.judge(host.to_str().map_err(|_| WrongHost::Unreadable)?).map(Some)
            }
        }
    }

    fn judge(&self, text: &str) -> Result<Authority, WrongHost> {
        let authority = Authority::parse(text).ok_or(WrongHost::Unreadable)?;
        match &authority.host {
            HostName::Address(_) => Ok(authority),
            HostName::Name(name) if name == "localhost" || self.names.contains(name) => {
                Ok(authority)
            }
            HostName::Name(name) => Err(WrongHost::NotOurs(name.clone())),
        }
    }

    /// Refuses a request from a page of another origin than `own`, on a connection of this scheme.
    ///
    /// # Errors
    /// [`ForeignPage`]
    pub(super) fn check_page(
        &self,
        own: Option<&Authority>,
        scheme: &str,
        headers: &HeaderMap,
    ) -> Result<(), ForeignPage> {
        let own = own.map(|own| own.origin(scheme));
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.to_str().ok().and_then(Origin::parse);
            if origin.is_none() || (origin != own && origin != self.public) {
                return Err(ForeignPage::Origin);
            }
        }
        // A GET for an image has no `Origin`. Browsers send `Sec-Fetch-Site` to trustworthy URLs, including loopback
        // (Fetch Metadata Request Headers §2.4).
        let is_ours = |site: &[u8]| matches!(site, b"same-origin" | b"none");
        let mut sites = headers.get_all("sec-fetch-site").iter();
        if sites.all(|site| is_ours(site.as_bytes())) { Ok(()) } else { Err(ForeignPage::Site) }
    }
}

impl Authority {
    /// Parses `host[:port]` (RFC 3986 §3.2, without user information).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                // A zone (RFC 6874) is meaningful only on the client's host.
                let address = address.split_once('%').map_or(address, |(address, _)| address);
                let address = address.parse::<Ipv6Addr>().ok()?;
                (HostName::Address(IpAddr::from(address).to_canonical()), port)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                (HostName::parse(&text[..end])?, &text[end..])
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            Some("") => None,
            Some(port) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
                Some(port.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(Self { host, port })
    }

    fn origin(&self, scheme: &str) -> Origin {
        let port = self.port.or_else(|| default_port(scheme)).unwrap_or_default();
        Origin { scheme: scheme.to_owned(), host: self.host.clone(), port }
    }
}

impl HostName {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = lower(text);
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (!name.is_empty() && name.len() <= 253 && name.bytes().all(is_fit))
            .then_some(Self::Name(name))
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        default_port(&scheme)?;
        Some(Authority::parse(authority)?.origin(&scheme))
    }

    fn of_url(url: &Url) -> Option<Self> {
        Self::parse(&url.origin().ascii_serialization())
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// A host name in lower case, without the dot of the DNS root.
fn lower(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Whether `Content-Type` is JSON: `application/json` or `application/…+json` (RFC 6839 §3.1), with any parameters.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let Ok(text) = only.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some(subtype) = essence.strip_prefix("application/") else { return false };
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    (subtype == "json" || subtype.ends_with("+json")) && subtype.bytes().all(is_token)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn names() -> ApiNames {
        let hosts = ["Ironic.example", "bücher.example"].map(|name| Host::parse(name).unwrap());
        ApiNames::new(&hosts, Some(&"https://api.example/baremetal".parse().unwrap()))
    }

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn checked(target: &str, hosts: &[&str]) -> Result<Option<Authority>, WrongHost> {
        let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        names().check(Version::HTTP_11, &target.parse().unwrap(), &headers(&hosts))
    }

    #[test]
    fn the_api_answers_to_addresses_localhost_and_the_names_of_its_settings() {
        for ours in [
            "127.0.0.1:6385",
            "192.0.2.7",
            "[::1]:6385",
            "[fe80::1%25eth0]:6385",
            "[fe80::1%eth0]",
            "[::ffff:127.0.0.1]",
            "localhost",
            "LocalHost.:16385",
            "localhost:",
            "ironic.example",
            "IRONIC.example.:80",
            "xn--bcher-kva.example",
            "api.example:443",
        ] {
            assert!(checked("/v1", &[ours]).is_ok(), "{ours}");
            assert!(checked(&format!("http://{ours}/v1"), &[ours]).is_ok() || ours.contains('%'));
        }
    }

    #[test]
    fn a_name_that_may_point_here_without_being_ours_is_refused_by_name() {
        for (name, said) in [
            ("rebound.example", "rebound.example"),
            ("localhost.evil.example:6385", "localhost.evil.example"),
            ("evil-localhost", "evil-localhost"),
            ("127.0.0.1.nip.example", "127.0.0.1.nip.example"),
            ("a.ironic.example", "a.ironic.example"),
            ("2130706433", "2130706433"),
            ("0x7f.1", "0x7f.1"),
        ] {
            assert_eq!(checked("/v1", &[name]), Err(WrongHost::NotOurs(said.to_owned())));
            let absolute = format!("http://{name}/v1");
            assert!(matches!(checked(&absolute, &["localhost"]), Err(WrongHost::NotOurs(_))));
        }
        assert!(checked("http://localhost/v1", &["evil.example"]).is_err());
    }

    #[test]
    fn a_host_that_is_none_or_is_there_twice_is_refused() {
        assert_eq!(checked("/v1", &[]), Err(WrongHost::Missing));
        assert_eq!(checked("/v1", &["localhost", "localhost"]), Err(WrongHost::Several));
        for odd in [
            "",
            ".",
            ":80",
            "localhost:http",
            "localhost:+80",
            "localhost:99999",
            "user@localhost",
            "localhost/x",
            "localhost evil",
            "::1",
            "[::1",
            "[::1]80",
            "[localhost]",
            "localhost, evil.example",
        ] {
            assert_eq!(checked("/v1", &[odd]), Err(WrongHost::Unreadable), "{odd:?}");
        }
        let bytes = HeaderValue::from_bytes(b"loc\xe4lhost").unwrap();
        let headers: HeaderMap = [(header::HOST, bytes)].into_iter().collect();
        let odd = names().check(Version::HTTP_11, &"/".parse().unwrap(), &headers);
        assert_eq!(odd, Err(WrongHost::Unreadable));
        // HTTP/1.0 has no Host header, and all browsers send one.
        let old = names().check(Version::HTTP_10, &"/".parse().unwrap(), &HeaderMap::new());
        assert_eq!(old, Ok(None));
    }

    #[test]
    fn a_page_must_be_of_our_own_origin() {
        let own = Authority::parse("127.0.0.1:6385");
        let page =
            |all: &[(&'static str, &str)]| names().check_page(own.as_ref(), "http", &headers(all));

        assert_eq!(page(&[]), Ok(()));
        assert_eq!(page(&[("origin", "http://127.0.0.1:6385")]), Ok(()));
        assert_eq!(page(&[("origin", "https://API.example")]), Ok(()), "public_url's");
        assert_eq!(page(&[("sec-fetch-site", "none")]), Ok(()), "typed by hand");
        assert_eq!(page(&[("sec-fetch-site", "same-origin")]), Ok(()));
        for foreign in [
            "null",
            "",
            "http://evil.example",
            "http://127.0.0.1",
            "http://127.0.0.1:8000",
            "https://127.0.0.1:6385",
            "http://localhost:6385",
            "http://api.example",
            "https://api.example:6385",
            "file://",
            "http://127.0.0.1:6385.evil.example",
            "http://127.0.0.1:6385@evil.example",
            "moz-extension://0",
        ] {
            assert_eq!(page(&[("origin", foreign)]), Err(ForeignPage::Origin), "{foreign:?}");
        }
        let both = [("origin", "http://127.0.0.1:6385"), ("origin", "http://evil.example")];
        assert_eq!(page(&both), Err(ForeignPage::Origin));
        for site in ["cross-site", "same-site", "x"] {
            assert_eq!(page(&[("sec-fetch-site", site)]), Err(ForeignPage::Site));
        }
        let nameless = names().check_page(None, "http", &headers(&[("origin", "http://x")]));
        assert_eq!(nameless, Err(ForeignPage::Origin));
    }

    #[test]
    fn a_body_is_json_if_it_is_said_to_be() {
        let is = |text: &str| is_json(&headers(&[("content-type", text)]));
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json ;x=y",
            "application/json-patch+json",
            "application/vnd.openstack.ironic.v1+json",
        ] {
            assert!(is(json), "{json}");
        }
        for other in [
            "",
            "text/plain",
            "text/plain; application/json",
            "text/plain;,application/json",
            "application/json, text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/json",
            "json",
            "application/jsonp",
            "application/\u{7f}+json",
        ] {
            if let Ok(value) = HeaderValue::from_str(other) {
                assert!(
                    !is_json(&[(header::CONTENT_TYPE, value)].into_iter().collect()),
                    "{other}"
                );
            }
        }
        assert!(!is_json(&HeaderMap::new()));
        let twice = [("content-type", "application/json"), ("content-type", "text/plain")];
        assert!(!is_json(&headers(&twice)));
    }

    proptest! {
        #[test]
        fn no_host_panics_and_what_is_read_is_read_again(text in ".{0,80}") {
            if let Some(Authority { host: HostName::Name(name), .. }) = Authority::parse(&text) {
                prop_assert_eq!(HostName::parse(&name), Some(HostName::Name(name)));
            }
            let _ = Origin::parse(&text);
        }
    }
}
