//! What EDK2's DHCP and HTTP boot drivers make of a reply, rule by rule, read from bytes alone.
//!
//! Nothing of ours is used here: a parser that shared a mistake with the encoder would hide it.

use std::net::Ipv4Addr;

/// What an offer is good for (`HTTP_BOOT_OFFER_TYPE`, without proxy offers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// An address.
    Only,
    /// An address and a name server.
    Dns,
    /// A URL with an address in it; name server or not.
    IpUri,
    /// A URL with a name in it, and a name server.
    NameUriDns,
    /// A URL with a name in it that nobody can look up.
    NameUri,
}

impl Offer {
    /// Whether firmware that looks for a URL boots from this offer alone
    /// (`HttpBootSelectDhcpOffer`, "corporate environment").
    pub(crate) fn boots(self) -> bool {
        match self {
            Self::IpUri | Self::NameUriDns => true,
            Self::Only | Self::Dns | Self::NameUri => false,
        }
    }

    /// Whether firmware that has its URL from its BMC takes it (ibid., "home environment").
    pub(crate) fn serves_a_known_url(self) -> bool {
        match self {
            Self::Only | Self::Dns | Self::IpUri | Self::NameUriDns => true,
            Self::NameUri => false,
        }
    }
}

/// Sizes of options (`DhcpOptionFormats`, `Dhcp4Option.c`): code, unit, least and most units.
const FORMATS: [(u8, usize, usize, usize); 31] = [
    (1, 4, 1, 1),
    (2, 4, 1, 1),
    (3, 4, 1, usize::MAX),
    (4, 4, 1, usize::MAX),
    (6, 4, 1, usize::MAX),
    (7, 4, 1, usize::MAX),
    (12, 1, 1, usize::MAX),
    (13, 2, 1, 1),
    (15, 1, 1, usize::MAX),
    (17, 1, 1, usize::MAX),
    (19, 1, 1, 1),
    (23, 1, 1, 1),
    (26, 2, 1, 1),
    (28, 4, 1, 1),
    (33, 8, 1, usize::MAX),
    (42, 4, 1, usize::MAX),
    (43, 1, 1, usize::MAX),
    (50, 4, 1, 1),
    (51, 4, 1, 1),
    (52, 1, 1, 1),
    (53, 1, 1, 1),
    (54, 4, 1, 1),
    (55, 1, 1, usize::MAX),
    (56, 1, 1, usize::MAX),
    (57, 2, 1, 1),
    (58, 4, 1, 1),
    (59, 4, 1, 1),
    (60, 1, 1, usize::MAX),
    (61, 1, 2, usize::MAX),
    (67, 1, 1, usize::MAX),
    (121, 1, 5, usize::MAX),
];

/// Why a reply is dropped. Firmware says none of this to anybody.
pub(crate) type Dropped = String;

/// What it makes of an OFFER.
pub(crate) fn take_offer(request: &[u8], offer: &[u8]) -> Result<Offer, Dropped> {
    let options = reply_to(request, offer, 2)?;
    let address = &offer[16..20];
    let mask = find(&options, 1).ok_or("there is no mask, so the address cannot be used")?;
    if address == [0; 4] || mask == [0; 4] {
        return Err("the address or its mask is zero".into());
    }
    let has_dns = find(&options, 6).is_some();
    // Nine of the ten letters are compared (`HttpBootParseDhcp4Packet`).
    if !find(&options, 60).is_some_and(|class| class.starts_with(b"HTTPClien")) {
        return Ok(if has_dns { Offer::Dns } else { Offer::Only });
    }
    let url = find(&options, 67).ok_or("an HTTP offer without a URL is dropped")?;
    if options.iter().filter(|(code, _)| *code == 67).count() > 1 {
        return Err("a URL in two parts is cut after the first".into());
    }
    let Some(url) = url.strip_suffix(&[0]) else {
        return Err("without its NUL the URL is ended by overwriting the next option".into());
    };
    let url = std::str::from_utf8(url).map_err(|_| "the URL is no text")?;
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split('/').next()).ok_or("this is no HTTP URL")?;
    let host = authority.split(':').next().unwrap_or_default();
    Ok(match (host.parse::<Ipv4Addr>(), has_dns) {
        (Ok(_), _) => Offer::IpUri,
        (Err(_), true) => Offer::NameUriDns,
        (Err(_), false) => Offer::NameUri,
    })
}

/// Whether it takes an ACK after an OFFER (`DhcpHandleRequesting`, `Dhcp4Io.c`).
pub(crate) fn take_ack(request: &[u8], offer: &[u8], ack: &[u8]) -> Result<(), Dropped> {
    let offered = reply_to(request, offer, 2)?;
    let given = reply_to(request, ack, 5)?;
    if offer[16..20] != ack[16..20] {
        return Err("it declines an address that is not the one offered".into());
    }
    if find(&offered, 54) != find(&given, 54) {
        return Err("the ACK is of another server than the OFFER".into());
    }
    Ok(())
}

type Options<'a> = Vec<(u8, &'a [u8])>;

/// What every reply must have (`DhcpInput` and `DhcpHandleSelect`, `Dhcp4Io.c`).
fn reply_to<'a>(request: &[u8], reply: &'a [u8], message: u8) -> Result<Options<'a>, Dropped> {
    if reply.len() > 1472 {
        return Err(format!("{} bytes are more than it takes", reply.len()));
    }
    if reply[0] != 2 || reply[4..8] != request[4..8] || reply[28..34] != request[28..34] {
        return Err("it is no reply to this client and this exchange".into());
    }
    let options = options(&reply[240..])?;
    if find(&options, 53) != Some(&[message]) {
        return Err("it is not of the type awaited".into());
    }
    find(&options, 54).filter(|server| **server != [0; 4]).ok_or("no server says it is his")?;
    Ok(options)
}

/// One option of a wrong size costs the whole packet (`DhcpValidateOptions`).
fn options(mut bytes: &[u8]) -> Result<Options<'_>, Dropped> {
    let mut options = Options::new();
    loop {
        match bytes {
            [255, ..] => return Ok(options),
            [0, rest @ ..] => bytes = rest,
            [code, len, rest @ ..] => {
                let value = rest.get(..usize::from(*len)).ok_or("an option ends too late")?;
                check(*code, value)?;
                options.push((*code, value));
                bytes = &rest[value.len()..];
            }
            _ => return Err("no end option".into()),
        }
    }
}

fn check(code: u8, value: &[u8]) -> Result<(), Dropped> {
    // An empty one is passed over.
    let Some((_, unit, least, most)) = FORMATS.iter().find(|format| format.0 == code) else {
        return Ok(());
    };
    let fits = value.is_empty()
        || value.len().is_multiple_of(*unit) && (*least..=*most).contains(&(value.len() / unit));
    if fits { Ok(()) } else { Err(format!("option {code} cannot have {} bytes", value.len())) }
}

fn find<'a>(options: &Options<'a>, wanted: u8) -> Option<&'a [u8]> {
    options.iter().find(|(code, _)| *code == wanted).map(|(_, value)| *value)
}
