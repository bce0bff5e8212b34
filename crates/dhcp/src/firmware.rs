//! A model of how firmware evaluates answers. It predicts whether a machine would accept an offer before the machine
//! is switched on.

mod offer;
pub mod v4;
pub mod v6;

use std::fmt;

use self::offer::{BootEnvironment, OfferType};

/// The firmware's reaction to an offer, if it is the only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferVerdict {
    /// It boots.
    Boots {
        /// The URL.
        url: String,
    },
    /// It boots if another server offers an address.
    Beside {
        /// The URL.
        url: String,
    },
    /// It takes the address, and boots if it has a URL from another source.
    Address,
    /// It does not boot, and reports no error.
    Refuses {
        /// The reason, in words.
        because: String,
    },
}

impl OfferVerdict {
    fn of(offer: OfferType, url: Option<&[u8]>) -> Self {
        let url = String::from_utf8_lossy(url.unwrap_or_default()).into_owned();
        match offer {
            OfferType::ProxyIpUri | OfferType::ProxyNameUri => Self::Beside { url },
            OfferType::NameUri => {
                let because = format!("{url} has a name in it, and there is no name server");
                Self::Refuses { because }
            }
            OfferType::IpUri
            | OfferType::IpUriDns
            | OfferType::NameUriDns
            | OfferType::Only
            | OfferType::Dns => {
                if offer.suffices(BootEnvironment::Url) {
                    Self::Boots { url }
                } else {
                    Self::Address
                }
            }
        }
    }
}

impl fmt::Display for OfferVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boots { url } => write!(f, "the firmware takes this offer and fetches {url}"),
            Self::Beside { url } => write!(
                f,
                "the firmware fetches {url} if another server gives it an address at the same time"
            ),
            Self::Address => f.write_str(
                "the firmware takes the address; it boots if its BMC or its set-up has a URL",
            ),
            Self::Refuses { because } => write!(f, "the firmware refuses it: {because}"),
        }
    }
}
