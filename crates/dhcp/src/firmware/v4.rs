//! EDK2's evaluation of a DHCPv4 reply (DHCP and HTTP boot drivers), rule by rule, from bytes alone.
//!
//! The model shares no code with the server: a parser with the same mistake as the encoder would hide it.

use std::net::Ipv4Addr;

use super::OfferVerdict;
pub use super::offer::{BootEnvironment, Choice, OfferType, choose};

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

/// The reason for dropping a reply. Firmware reports it to nobody.
pub type Dropped = String;

/// The type of an OFFER.
///
/// # Errors
/// The reason for dropping the offer.
pub fn take_offer(request: &[u8], offer: &[u8]) -> Result<OfferType, Dropped> {
    read(request, offer).map(|(offer, _)| offer)
}

/// The firmware's reaction to an OFFER that is alone on its network.
#[must_use]
pub fn verdict(request: &[u8], offer: &[u8]) -> OfferVerdict {
    match read(request, offer) {
        Err(because) => OfferVerdict::Refuses { because },
        Ok((offer, url)) => OfferVerdict::of(offer, url),
    }
}

fn read<'a>(request: &[u8], offer: &'a [u8]) -> Result<(OfferType, Option<&'a [u8]>), Dropped> {
    let options = reply_to(request, offer, 2)?;
    let is_proxy = offer[16] == 0;
    let mask = find(&options, 1);
    if !is_proxy && mask.is_none_or(|mask| mask == [0; 4]) {
        return Err("there is no mask, so the address cannot be used".into());
    }
    let has_dns = find(&options, 6).is_some();
    // EDK2 compares nine of the ten letters (`HttpBootParseDhcp4Packet`).
    if !find(&options, 60).is_some_and(|class| class.starts_with(b"HTTPClien")) {
        return match (is_proxy, has_dns) {
            (true, _) => Err("it has neither an address nor the class HTTPClient".into()),
            (false, true) => Ok((OfferType::Dns, None)),
            (false, false) => Ok((OfferType::Only, None)),
        };
    }
    let url = url(offer, &options)?;
    let has_literal = names_an_address(url)?;
    let offer = match (is_proxy, has_literal, has_dns) {
        (true, true, _) => OfferType::ProxyIpUri,
        (true, false, _) => OfferType::ProxyNameUri,
        (false, true, true) => OfferType::IpUriDns,
        (false, true, false) => OfferType::IpUri,
        (false, false, true) => OfferType::NameUriDns,
        (false, false, false) => OfferType::NameUri,
    };
    Ok((offer, Some(url)))
}

/// The boot file: option 67, otherwise the field `file`.
fn url<'a>(offer: &'a [u8], options: &OfferOptions<'a>) -> Result<&'a [u8], Dropped> {
    if options.iter().filter(|(code, _)| *code == 67).count() > 1 {
        return Err("a URL in two parts is cut after the first".into());
    }
    if let Some(url) = find(options, 67) {
        let unterminated = "without its NUL the URL is ended by overwriting the next option";
        return Ok(url.strip_suffix(&[0]).ok_or(unterminated)?);
    }
    let file = offer[108..236].split(|byte| *byte == 0).next().unwrap_or_default();
    if file.is_empty() { Err("an HTTP offer without a URL is dropped".into()) } else { Ok(file) }
}

/// Whether a URL can be fetched without name resolution.
fn names_an_address(url: &[u8]) -> Result<bool, Dropped> {
    let url = std::str::from_utf8(url).map_err(|_| "the URL is not text")?;
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let authority =
        rest.and_then(|rest| rest.split('/').next()).ok_or("this is not an HTTP URL")?;
    let host = authority.split(':').next().unwrap_or_default();
    Ok(host.parse::<Ipv4Addr>().is_ok())
}

/// Whether the ACK after an OFFER is accepted (`DhcpHandleRequesting`, `Dhcp4Io.c`).
///
/// # Errors
/// The reason for dropping the ACK.
pub fn take_ack(request: &[u8], offer: &[u8], ack: &[u8]) -> Result<(), Dropped> {
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

type OfferOptions<'a> = Vec<(u8, &'a [u8])>;

/// The checks of every reply (`DhcpInput` and `DhcpHandleSelect`, `Dhcp4Io.c`).
fn reply_to<'a>(request: &[u8], reply: &'a [u8], message: u8) -> Result<OfferOptions<'a>, Dropped> {
    if reply.len() > 1472 {
        return Err(format!("{} bytes are more than it takes", reply.len()));
    }
    if request.len() < 240 || reply.len() < 240 {
        return Err("it is not a DHCP message".into());
    }
    if reply[0] != 2 || reply[4..8] != request[4..8] || reply[28..34] != request[28..34] {
        return Err("it is not a reply to this client and this exchange".into());
    }
    let options = options(&reply[240..])?;
    if find(&options, 53) != Some(&[message]) {
        return Err("it is not of the type awaited".into());
    }
    find(&options, 54).filter(|server| **server != [0; 4]).ok_or("no server says it is his")?;
    Ok(options)
}

/// The options of a reply. EDK2 drops the whole packet for one option of a wrong size (`DhcpValidateOptions`).
fn options(mut bytes: &[u8]) -> Result<OfferOptions<'_>, Dropped> {
    let mut options = OfferOptions::new();
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
    // EDK2 ignores empty options.
    let Some((_, unit, least, most)) = FORMATS.iter().find(|format| format.0 == code) else {
        return Ok(());
    };
    let fits = value.is_empty()
        || value.len().is_multiple_of(*unit) && (*least..=*most).contains(&(value.len() / unit));
    if fits { Ok(()) } else { Err(format!("option {code} cannot have {} bytes", value.len())) }
}

fn find<'a>(options: &OfferOptions<'a>, wanted: u8) -> Option<&'a [u8]> {
    options.iter().find(|(code, _)| *code == wanted).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_without_a_name_is_taken_before_one_with_it_whoever_was_first() {
        let offers = [OfferType::NameUriDns, OfferType::Only, OfferType::IpUri];

        assert_eq!(
            choose(&offers, BootEnvironment::Url),
            Some(Choice { address: 2, url: Some(2) })
        );
    }

    #[test]
    fn an_address_of_one_server_and_a_url_of_a_proxy_go_together() {
        let offers = [OfferType::ProxyIpUri, OfferType::Dns];

        assert_eq!(
            choose(&offers, BootEnvironment::Url),
            Some(Choice { address: 1, url: Some(0) })
        );
        assert_eq!(
            choose(&offers[..1], BootEnvironment::Url),
            None,
            "somebody must give an address"
        );
    }

    #[test]
    fn a_name_that_nobody_can_look_up_boots_nothing() {
        assert!(!OfferType::NameUri.suffices(BootEnvironment::Url));
        assert_eq!(choose(&[OfferType::Only, OfferType::ProxyNameUri], BootEnvironment::Url), None);
        assert!(choose(&[OfferType::Dns, OfferType::ProxyNameUri], BootEnvironment::Url).is_some());
    }

    #[test]
    fn firmware_that_has_its_url_from_the_bmc_needs_an_address_and_likes_a_name_server() {
        let offers = [OfferType::IpUri, OfferType::Only, OfferType::Dns];

        assert_eq!(
            choose(&offers, BootEnvironment::Address),
            Some(Choice { address: 2, url: None })
        );
        assert_eq!(
            choose(&[OfferType::ProxyIpUri, OfferType::NameUri], BootEnvironment::Address),
            None
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut offer: Vec<u8>, request in prop::array::uniform32(0..9_u8)) {
            let _ = take_offer(&request, &offer);
            let mut header = vec![0; 240];
            header[0] = 2;
            header.extend([53, 1, 2, 54, 4, 10, 0, 0, 1]);
            header.append(&mut offer);
            let _ = verdict(&[0; 240], &header);
            let _ = take_ack(&[0; 240], &header, &header);
        }
    }
}
