//! Types of offers, and the selection among several (`HttpBootSelectDhcpOffer` of EDK2).

/// The type of an offer (`HTTP_BOOT_OFFER_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OfferType {
    /// An address.
    Only,
    /// An address and a name server.
    Dns,
    /// An address, and a URL whose host is an IP address.
    IpUri,
    /// An address, a URL whose host is an IP address, and a name server.
    IpUriDns,
    /// An address, a URL with a host name, and a name server.
    NameUriDns,
    /// An address, and a URL with a host name that cannot be resolved.
    NameUri,
    /// No address, and a URL whose host is an IP address.
    ProxyIpUri,
    /// No address, and a URL with a host name.
    ProxyNameUri,
}

/// The offers that firmware looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BootEnvironment {
    /// An address, and a URL to boot from ("corporate environment").
    Url,
    /// An address alone: the URL comes from the BMC or the firmware's set-up ("home environment").
    Address,
}

/// The offers that firmware selects, by their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The offer whose address is used.
    pub address: usize,
    /// The offer whose URL is used, if a URL is wanted.
    pub url: Option<usize>,
}

/// Pairs of offers that are combined, best first (`HttpBootSelectDhcpOffer`).
const WITH_URL: [(OfferType, OfferType); 7] = [
    (OfferType::IpUri, OfferType::IpUri),
    (OfferType::IpUriDns, OfferType::IpUriDns),
    (OfferType::NameUriDns, OfferType::NameUriDns),
    (OfferType::Only, OfferType::ProxyIpUri),
    (OfferType::Dns, OfferType::ProxyIpUri),
    (OfferType::Dns, OfferType::ProxyNameUri),
    (OfferType::Dns, OfferType::NameUri),
];
const WITHOUT_URL: [OfferType; 5] =
    [OfferType::Dns, OfferType::IpUriDns, OfferType::NameUriDns, OfferType::Only, OfferType::IpUri];

/// The selection among offers, in the order of arrival. `None` if none can be booted; firmware reports no error then.
#[must_use]
pub fn choose(offers: &[OfferType], wanted: BootEnvironment) -> Option<Choice> {
    let first = |wanted: OfferType| offers.iter().position(|offer| *offer == wanted);
    match wanted {
        BootEnvironment::Url => WITH_URL.iter().find_map(|(address, url)| {
            Some(Choice { address: first(*address)?, url: Some(first(*url)?) })
        }),
        BootEnvironment::Address => {
            WITHOUT_URL.iter().find_map(|offer| Some(Choice { address: first(*offer)?, url: None }))
        }
    }
}

impl OfferType {
    /// Whether firmware boots from this offer alone.
    #[must_use]
    pub fn suffices(self, wanted: BootEnvironment) -> bool {
        choose(&[self], wanted).is_some()
    }
}
