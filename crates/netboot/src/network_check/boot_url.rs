//! Checks that machines can reach their boot URL: what to request there, and what an answer means.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dhcp::v4::reply::LONGEST_URL;
use hardware::CpuArch;
use http::StatusCode;
use ipnet::IpNet;
use provision::artifact::Artifact;
use thiserror::Error;
use url::{Host, ParseError, Url};

use crate::network_settings::NetworkSettings;
use crate::ticket::TicketRefusal;
use crate::urls::{IpFamily, ListenAddress, Urls};

/// A ticket of the usual length that no node has.
const NOBODYS: &str = "ferroboot-check-network";

/// The boot URL of one family's machines on a network.
#[derive(Clone, Debug)]
pub struct CheckedUrl<'a> {
    url: Url,
    /// The network.
    pub network: &'a NetworkSettings,
    /// The service's address with its network.
    near: IpNet,
    /// The address of the boot listener.
    listen: ListenAddress,
    /// Whether the service is running.
    is_running: bool,
}

/// The host in a URL, as machines resolve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlHost<'a> {
    /// An address.
    Address(IpAddr),
    /// A host name, and the name servers of machines, at least one.
    Name(&'a str, Vec<IpAddr>),
}

/// The reason why nothing was received from a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// No answer within this number of seconds.
    Timeout(u64),
    /// The errors of the connection, innermost last.
    Connection(String),
}

/// The reason why machines get nothing to boot from a URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnusableUrl {
    /// The text cannot be parsed.
    #[error("{base} is not a URL")]
    Unreadable {
        /// The text.
        base: String,
        /// The error.
        #[source]
        source: ParseError,
    },
    /// It has no host.
    #[error("the URL names no host")]
    NoHost,
    /// Firmware accepts no URL of that length.
    #[error(
        "URLs below {base} have {len} bytes, and firmware takes {LONGEST_URL} at most over IPv4: set a shorter url \
         in [boot]"
    )]
    TooLong {
        /// The URL before `/boot/`.
        base: String,
        /// The length of the longest URL below it, in bytes.
        len: usize,
    },
    /// Machines cannot resolve its name.
    #[error(
        "{url} has the name {name} in it, and machines here get no name server of {family}: set dns",
        family = if *family == IpFamily::V4 { "IPv4" } else { "IPv6" }
    )]
    NoNameServer {
        /// The URL.
        url: String,
        /// Its host name.
        name: String,
        /// The family of the machines.
        family: IpFamily,
    },
    /// The boot listener is on another address.
    #[error(
        "machines get the URL {url}, but the boot listener is on {listen} alone, not on {address}: set listen in \
         [boot] to {}://[::]:{}",
        listen.scheme.name(), listen.address.port()
    )]
    ListensElsewhere {
        /// The URL.
        url: String,
        /// The address of the boot listener.
        listen: ListenAddress,
        /// The URL's address.
        address: IpAddr,
    },
    /// A proxy does not remove its own path.
    #[error(
        "{url} leads to a boot listener with another path, so machines get no image: let the proxy before it remove \
         {path} from the path"
    )]
    OtherPath {
        /// The URL.
        url: String,
        /// Its path.
        path: String,
    },
    /// The answer is an error.
    #[error(
        "{url} answers {status}, so machines get no image: check the service there, or the proxy before it"
    )]
    ServerError {
        /// The URL.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// The answer is not the boot listener's.
    #[error(
        "another program answers at {url} ({status}), so machines get no image: stop it, or set listen and url in \
         [boot] to another port"
    )]
    OtherProgram {
        /// The URL.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// The service runs, and does not listen there.
    #[error(
        "nothing answers at {url}, although the service runs: was it started with other settings? restart it"
    )]
    Silent {
        /// The URL.
        url: String,
    },
    /// Nothing listens at a proxy's URL.
    #[error(
        "nothing answers at {url}, and the boot listener is on {listen}: start the proxy that forwards requests to \
         it, or set url in [boot]"
    )]
    NoProxy {
        /// The URL.
        url: String,
        /// The address of the boot listener.
        listen: ListenAddress,
    },
    /// This host does not trust the certificate.
    #[error(
        "the certificate of {url} is not trusted by this host ({why}); firmware has its own list of authorities: \
         put the one that signed it there, and into this host's to have it checked"
    )]
    Untrusted {
        /// The URL.
        url: String,
        /// The innermost error.
        why: String,
    },
    /// No answer arrived.
    #[error(
        "{url} cannot be reached from {interface} ({why}), so machines get nothing to boot: look at {way}, and at \
         the service there"
    )]
    Unreached {
        /// The URL.
        url: String,
        /// The interface.
        interface: String,
        /// The error.
        why: String,
        /// The obstacles that an operator should look at.
        way: String,
    },
}

impl<'a> CheckedUrl<'a> {
    /// The URL for machines at this address of the service; `listen` is the boot listener's address.
    ///
    /// # Errors
    /// [`UnusableUrl`]
    pub fn new(
        urls: &Urls,
        network: &'a NetworkSettings,
        near: IpNet,
        listen: ListenAddress,
        is_running: bool,
    ) -> Result<Self, UnusableUrl> {
        let base = urls.fetched_from(near.addr());
        if near.addr().is_ipv4() {
            expect_short(&base)?;
        }
        let url = Url::parse(&base).map_err(|source| UnusableUrl::Unreadable { base, source })?;
        Ok(Self { url, network, near, listen, is_running })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The reason not to fetch the URL, in words, if there is one.
    #[must_use]
    pub fn why_not_fetched(&self) -> Option<String> {
        let name = self.url.domain()?;
        (self.network.proxy && self.near.addr().is_ipv4()).then(|| {
            let url = &self.url;
            format!("{url} was not fetched: the other server says who knows the name {name}")
        })
    }

    /// The URL's host.
    ///
    /// # Errors
    /// [`UnusableUrl`]
    pub fn host(&self) -> Result<UrlHost<'_>, UnusableUrl> {
        let name = match self.url.host().ok_or(UnusableUrl::NoHost)? {
            Host::Ipv4(address) => return Ok(UrlHost::Address(address.into())),
            Host::Ipv6(address) => return Ok(UrlHost::Address(address.into())),
            Host::Domain(name) => name,
        };
        let family = IpFamily::of(self.near.addr());
        let servers = self.network.dns.iter().copied();
        let servers: Vec<_> = servers.filter(|server| IpFamily::of(*server) == family).collect();
        if servers.is_empty() {
            let (url, name) = (self.url.to_string(), name.to_owned());
            return Err(UnusableUrl::NoNameServer { url, name, family });
        }
        Ok(UrlHost::Name(name, servers))
    }

    /// Checks that the boot listener listens at the URL, if the URL is its port on this host. `at` are the addresses of
    /// the URL's host.
    ///
    /// # Errors
    /// [`UnusableUrl::ListensElsewhere`]
    pub fn expect_listening(&self, at: &BTreeSet<IpAddr>) -> Result<(), UnusableUrl> {
        let listen = self.listen;
        let is_elsewhere = |address: &&IpAddr| {
            !listen.address.ip().is_unspecified() && **address != listen.address.ip()
        };
        match at.iter().find(is_elsewhere) {
            Some(address) if self.has_listeners_port() => Err(UnusableUrl::ListensElsewhere {
                url: self.url.to_string(),
                listen,
                address: *address,
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn has_listeners_port(&self) -> bool {
        self.url.port_or_known_default() == Some(self.listen.address.port())
    }

    /// The URL of a file that the boot listener refuses.
    #[must_use]
    pub fn refused_file(&self) -> String {
        let base = self.url.as_str().trim_end_matches('/');
        format!("{base}/boot/{NOBODYS}/{}", Artifact::IpxeScript.file_name())
    }

    /// Checks that an answer is the boot listener's answer to an unknown ticket.
    ///
    /// # Errors
    /// [`UnusableUrl`]
    pub fn judge(&self, status: StatusCode, text: &str) -> Result<String, UnusableUrl> {
        let url = self.url.to_string();
        let says = |refusal: TicketRefusal| {
            status == refusal.status() && text.trim() == refusal.to_string()
        };
        if says(TicketRefusal::UnknownTicket) {
            Ok(format!("{url} answers"))
        } else if says(TicketRefusal::Elsewhere) {
            Err(UnusableUrl::OtherPath { url, path: self.url.path().to_owned() })
        } else if status.is_server_error() {
            Err(UnusableUrl::ServerError { url, status })
        } else {
            Err(UnusableUrl::OtherProgram { url, status })
        }
    }

    /// Evaluates that this host refused the connection.
    ///
    /// # Errors
    /// [`UnusableUrl`], unless the boot listener is to listen there, and the service does not run.
    pub fn judge_silence(&self) -> Result<String, UnusableUrl> {
        let (url, listen) = (self.url.to_string(), self.listen);
        let is_listeners =
            self.url.scheme() == self.listen.scheme.name() && self.has_listeners_port();
        match (is_listeners, self.is_running) {
            (true, false) => Ok(format!("{url}, once the service runs")),
            (true, true) => Err(UnusableUrl::Silent { url }),
            (false, _) => Err(UnusableUrl::NoProxy { url, listen }),
        }
    }

    /// The fault that a failed request shows. `at` are the addresses of the URL's host.
    #[must_use]
    pub fn fault(&self, at: &BTreeSet<IpAddr>, failure: FetchFailure) -> UnusableUrl {
        let url = self.url.to_string();
        let why = match failure {
            FetchFailure::Connection(why) if why.contains("certificate") => {
                let why = why.rsplit(": ").next().unwrap_or_default().to_owned();
                return UnusableUrl::Untrusted { url, why };
            }
            FetchFailure::Connection(why) => why,
            FetchFailure::Timeout(secs) => format!("no answer within {secs} s"),
        };
        let is_far = !at.iter().any(|address| self.near.contains(address));
        // Machines use the network's router, but this host uses its own routing table.
        let router = self.network.router.filter(|_| is_far && self.near.addr().is_ipv4());
        let way = match router {
            Some(router) => format!("a route by {router} on this host, such as machines have"),
            None => "the way there (router, firewall)".to_owned(),
        };
        let interface = self.network.interface.clone();
        UnusableUrl::Unreached { url, interface, why, way }
    }
}

/// Checks that firmware accepts URLs below this one over IPv4.
///
/// # Errors
/// [`UnusableUrl::TooLong`]
pub fn expect_short(base: &str) -> Result<(), UnusableUrl> {
    // Tickets are 16 bytes in base 64.
    let file = Artifact::boot_loader(CpuArch::X64).file_name();
    let len = base.trim_end_matches('/').len() + "/boot/".len() + 22 + 1 + file.len();
    match len <= LONGEST_URL {
        true => Ok(()),
        false => Err(UnusableUrl::TooLong { base: base.to_owned(), len }),
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::urls::{UrlScheme, UrlSettings};

    fn network() -> NetworkSettings {
        "lo=127.0.0.10-127.0.0.20".parse().unwrap()
    }

    fn checked<'a>(
        network: &'a NetworkSettings,
        url: Option<&str>,
        listen: &str,
        is_running: bool,
    ) -> Result<CheckedUrl<'a>, UnusableUrl> {
        let settings =
            UrlSettings { boot: url.map(|url| url.parse().unwrap()), ..UrlSettings::default() };
        let near = "127.0.0.1/8".parse().unwrap();
        let listen = ListenAddress { scheme: UrlScheme::Http, address: listen.parse().unwrap() };
        CheckedUrl::new(&Urls::new(settings, None), network, near, listen, is_running)
    }

    #[test]
    fn the_boot_listeners_answer_is_told_from_others() {
        let network = network();
        let ours = checked(&network, None, "[::]:8080", true).unwrap();
        let said = |status: u16, text: &str| {
            let judged = ours.judge(StatusCode::from_u16(status).unwrap(), text);
            judged.map_err(|error| error.to_string())
        };

        assert!(ours.refused_file().starts_with("http://127.0.0.1:8080/boot/ferroboot-check"));
        let unknown = format!("{}\n", TicketRefusal::UnknownTicket);
        assert!(said(404, &unknown).unwrap().ends_with("answers"));
        assert!(said(404, "").unwrap_err().starts_with("another program answers at"));
        assert!(said(200, "hi").unwrap_err().starts_with("another program answers at"));
        assert!(said(502, "").unwrap_err().contains("answers 502 Bad Gateway"));
        let other_path = said(404, &TicketRefusal::Elsewhere.to_string());
        assert!(other_path.unwrap_err().contains("remove / from the path"));
    }

    #[test]
    fn the_boot_listener_may_be_silent_only_while_the_service_does_not_run() {
        let network = network();
        let said = |url: Option<&str>, is_running| {
            let checked = checked(&network, url, "[::]:8080", is_running).unwrap();
            checked.judge_silence().map_err(|error| error.to_string())
        };

        assert!(said(None, false).unwrap().ends_with("once the service runs"));
        assert!(said(None, true).unwrap_err().contains("although the service runs"));
        let proxy = said(Some("https://127.0.0.1:8080"), false).unwrap_err();
        assert!(proxy.starts_with("nothing answers at https"), "{proxy}");
    }

    #[test]
    fn a_listener_on_another_address_is_named() {
        let (network, at) = (network(), BTreeSet::from([[127, 0, 0, 1].into()]));
        let said = |listen: &str| {
            let checked = checked(&network, None, listen, false).unwrap();
            checked.expect_listening(&at).map_err(|error| error.to_string())
        };

        let elsewhere = said("127.0.0.9:8080").unwrap_err();
        assert!(
            elsewhere.contains("is on http://127.0.0.9:8080 alone, not on 127.0.0.1"),
            "{elsewhere}"
        );
        assert_eq!(said("127.0.0.1:8080"), Ok(()));
        assert_eq!(said("127.0.0.9:80"), Ok(()), "a proxy has the URL's port");
    }

    #[test]
    fn a_name_without_a_name_server_and_a_url_that_is_too_long_are_wrong() {
        let network = network();
        let name = checked(&network, Some("http://boot.example"), "[::]:8080", false).unwrap();
        let long = format!("http://192.0.2.1/{}", "a".repeat(230));
        let long = checked(&network, Some(&long), "[::]:8080", false).unwrap_err().to_string();

        let no_server = name.host().unwrap_err().to_string();
        assert!(no_server.contains("no name server of IPv4: set dns"), "{no_server}");
        assert!(long.contains("firmware takes 254 at most"), "{long}");
        let dns = vec!["192.0.2.53".parse().unwrap(), "fd77::53".parse().unwrap()];
        let network = NetworkSettings { dns, ..network };
        let name = checked(&network, Some("http://boot.example"), "[::]:8080", false).unwrap();
        let servers = vec![IpAddr::from([192, 0, 2, 53])];
        assert_eq!(name.host(), Ok(UrlHost::Name("boot.example", servers)));
    }

    #[test]
    fn a_name_that_the_other_servers_machines_resolve_is_not_fetched() {
        let beside: NetworkSettings = "lo=proxy".parse().unwrap();
        let why = |url| checked(&beside, Some(url), "[::]:8080", true).unwrap().why_not_fetched();

        assert!(why("http://boot.example").unwrap().contains("knows the name boot.example"));
        assert_eq!(why("http://192.0.2.1"), None);
    }

    #[test]
    fn a_failed_request_is_explained_by_its_cause_and_the_way_of_the_packets() {
        let network = NetworkSettings { router: Some([127, 0, 0, 254].into()), ..network() };
        let checked = checked(&network, None, "[::]:8080", true).unwrap();
        let said = |at: [u8; 4], failure| checked.fault(&[at.into()].into(), failure).to_string();
        let connection = |why: &str| FetchFailure::Connection(why.to_owned());

        let untrusted = said([127, 0, 0, 1], connection("invalid peer certificate: UnknownIssuer"));
        assert!(untrusted.contains("not trusted by this host (UnknownIssuer)"), "{untrusted}");
        let near = said([127, 0, 0, 1], FetchFailure::Timeout(3));
        assert!(near.contains("(no answer within 3 s)") && near.contains("firewall"), "{near}");
        let far = said([192, 0, 2, 1], connection("no route to host"));
        assert!(far.contains("a route by 127.0.0.254 on this host"), "{far}");
    }
}
