//! The servers from which images may be fetched.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use provision::image::NamedImage;
use thiserror::Error;
use url::{Host, Url};

/// Redirects that are followed.
const REDIRECTS: usize = 5;

/// The servers from which images may be fetched. Addresses are checked at the resolution for the connection itself,
/// so that a later DNS answer cannot differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageReach {
    /// Whether loopback addresses of this host are permitted.
    pub loopback: bool,
    /// Whether link-local addresses are permitted. Clouds serve secrets at 169.254.169.254.
    pub link_local: bool,
    /// The ports of this service. No image is fetched from them at any address of this host.
    pub own_ports: Vec<u16>,
}

/// The reason for refusing a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OutOfReach {
    /// An address of this host itself, unless the settings allow it.
    #[error(
        "images are not fetched from this host itself ({0}): set loopback = true in [images], or use a file:// \
         URL"
    )]
    Loopback(IpAddr),
    /// A link-local address, unless the settings allow it.
    #[error(
        "images are not fetched from link-local addresses ({0}): set link_local = true in [images]"
    )]
    LinkLocal(IpAddr),
    /// An address that stands for many hosts, or for none.
    #[error("{0} is the address of no host")]
    NoHost(IpAddr),
    /// A port of this service.
    #[error("{0} is this service itself, which has no images")]
    OurOwn(SocketAddr),
    /// A redirect that gives up encryption.
    #[error("a redirect leads from https to http")]
    Downgrade,
    /// A redirect to a URL of another scheme.
    #[error("a redirect leads to something else than http or https")]
    Scheme,
    /// One redirect after another.
    #[error("there are more than {REDIRECTS} redirects")]
    Redirects,
}

/// The URL of a node's image leads to a server from which images are not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{field} cannot be used")]
pub struct UnreachableImage {
    /// The field of the node with the URL.
    pub field: &'static str,
    /// The reason.
    pub source: OutOfReach,
}

impl ImageReach {
    /// Whether an address may be asked.
    ///
    /// # Errors
    /// [`OutOfReach`]
    pub fn expect_address(&self, address: IpAddr) -> Result<(), OutOfReach> {
        let address = embedded(address);
        let (loopback, link_local, no_host) = match address {
            // Linux treats all of 0.0.0.0/8 as its own address.
            IpAddr::V4(v4) => (
                v4.is_loopback() || v4.octets()[0] == 0,
                v4.is_link_local(),
                v4.is_multicast() || v4.is_broadcast(),
            ),
            IpAddr::V6(v6) => (
                v6.is_loopback() || v6.is_unspecified(),
                v6.is_unicast_link_local(),
                v6.is_multicast(),
            ),
        };
        match () {
            () if no_host => Err(OutOfReach::NoHost(address)),
            () if loopback && !self.loopback => Err(OutOfReach::Loopback(address)),
            () if link_local && !self.link_local => Err(OutOfReach::LinkLocal(address)),
            () => Ok(()),
        }
    }

    /// Checks the host in a URL. The parser of `url` normalizes every notation of an address (`127.1`, `0x7f000001`).
    ///
    /// # Errors
    /// [`OutOfReach`]
    pub fn expect_url(&self, url: &Url) -> Result<(), OutOfReach> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.expect_address(address.into()),
            Some(Host::Ipv6(address)) => self.expect_address(address.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    /// Checks the URL of a node's image, before a machine is touched.
    ///
    /// # Errors
    /// [`UnreachableImage`]
    pub fn expect_image(&self, image: NamedImage<'_>) -> Result<(), UnreachableImage> {
        // An invalid URL fails at the fetch, with a better message.
        let Ok(url) = Url::parse(image.url) else { return Ok(()) };
        self.expect_url(&url).map_err(|source| UnreachableImage { field: image.field, source })
    }

    /// Checks that the peer of a connection is not this service. `own` are the addresses of this host.
    ///
    /// # Errors
    /// [`OutOfReach`]
    pub fn expect_peer(&self, peer: SocketAddr, own: &BTreeSet<IpAddr>) -> Result<(), OutOfReach> {
        let address = embedded(peer.ip());
        self.expect_address(address)?;
        let is_own = address.is_loopback() || address.is_unspecified() || own.contains(&address);
        if is_own && self.own_ports.contains(&peer.port()) {
            return Err(OutOfReach::OurOwn(peer));
        }
        Ok(())
    }

    /// Whether a redirect is followed: few are, and only to where a URL may lead. `previous` are the URLs before it.
    ///
    /// # Errors
    /// [`OutOfReach`]
    pub fn expect_redirect(&self, previous: &[Url], next: &Url) -> Result<(), OutOfReach> {
        let was_safe = previous.last().is_some_and(|url| url.scheme() == "https");
        match next.scheme() {
            "https" => {}
            "http" if was_safe => return Err(OutOfReach::Downgrade),
            "http" => {}
            _ => return Err(OutOfReach::Scheme),
        }
        if previous.len() > REDIRECTS {
            return Err(OutOfReach::Redirects);
        }
        self.expect_url(next)
    }
}

/// The IPv4 address embedded in an IPv6 address, if there is one.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match (v6.to_ipv4_mapped(), v6.segments()) {
        (Some(v4), _) => v4.into(),
        // RFC 4291 §2.5.5.1: `::127.0.0.1`, but not `::` and `::1`.
        (None, [0, 0, 0, 0, 0, 0, high, low]) if high != 0 => {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            Ipv4Addr::new(a, b, c, d).into()
        }
        (None, _) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> Option<OutOfReach> {
        ImageReach::default().expect_url(&Url::parse(url).unwrap()).err()
    }

    #[test]
    fn every_spelling_of_loopback_and_of_link_local_addresses_is_refused() {
        for host in [
            "127.0.0.1",
            "127.1",
            "127.9.9.9",
            "0x7f.1",
            "2130706433",
            "017700000001",
            "0",
            "0.0.0.0",
            "0.1.2.3",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "127.0.0.1.",
            "①②⑦.0.0.1",
            "[0:0:0:0:0:ffff:0:0]",
        ] {
            let refused = refused(&format!("http://{host}/x.iso"));
            assert!(matches!(refused, Some(OutOfReach::Loopback(_))), "{host}: {refused:?}");
        }
        for host in ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"] {
            let refused = refused(&format!("http://{host}/x.iso"));
            assert!(matches!(refused, Some(OutOfReach::LinkLocal(_))), "{host}: {refused:?}");
        }
        for host in ["224.0.0.1", "255.255.255.255", "[ff02::1]"] {
            let refused = refused(&format!("http://{host}/x.iso"));
            assert!(matches!(refused, Some(OutOfReach::NoHost(_))), "{host}: {refused:?}");
        }
        for host in
            ["192.0.2.1", "10.0.0.1", "[2001:db8::1]", "[::ffff:192.0.2.1]", "images.example"]
        {
            assert_eq!(refused(&format!("http://{host}/x.iso")), None, "{host}");
        }
    }

    #[test]
    fn settings_allow_what_is_refused_otherwise_but_never_our_own_ports() {
        let reach = ImageReach { loopback: true, link_local: true, own_ports: vec![6385] };
        let own = BTreeSet::from(["192.0.2.9".parse().unwrap()]);
        let peer = |text: &str| reach.expect_peer(text.parse().unwrap(), &own);

        assert_eq!(peer("127.0.0.1:80"), Ok(()));
        assert_eq!(peer("169.254.1.1:6385"), Ok(()));
        assert_eq!(peer("192.0.2.9:8000"), Ok(()));
        assert_eq!(peer("192.0.2.8:6385"), Ok(()));
        for ours in ["127.0.0.1:6385", "127.8.8.8:6385", "192.0.2.9:6385", "[::1]:6385"] {
            assert!(matches!(peer(ours), Err(OutOfReach::OurOwn(_))), "{ours}");
        }
    }

    #[test]
    fn redirects_are_few_and_lead_nowhere_that_a_url_may_not() {
        let url = |text: &str| Url::parse(text).unwrap();
        let reach = ImageReach::default();
        let leads = |from: &str, to: &str| reach.expect_redirect(&[url(from)], &url(to));

        assert_eq!(leads("http://a.example/", "https://b.example/"), Ok(()));
        assert_eq!(leads("https://a.example/", "http://a.example/"), Err(OutOfReach::Downgrade));
        assert_eq!(leads("http://a.example/", "file:///etc/passwd"), Err(OutOfReach::Scheme));
        assert!(matches!(
            leads("http://a.example/", "http://127.1/"),
            Err(OutOfReach::Loopback(_))
        ));
        let many = vec![url("http://a.example/"); REDIRECTS + 1];
        assert_eq!(
            reach.expect_redirect(&many, &url("http://a.example/")),
            Err(OutOfReach::Redirects)
        );
    }
}
