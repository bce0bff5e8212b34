//! EDK2's evaluation of an ADVERTISE (DHCPv6 and HTTP boot drivers), rule by rule, from bytes alone.
//!
//! The model shares no code with the server: a parser with the same mistake as the encoder would hide it. EDK2
//! selects among offers as in DHCPv4, by [`choose`](super::offer::choose).

use std::net::Ipv6Addr;

use super::OfferVerdict;
use super::offer::OfferType;
use super::v4::Dropped;

/// The type of an ADVERTISE that answers a SOLICIT, neither of them relayed.
///
/// # Errors
/// The reason for dropping the advertisement.
pub fn take_advertise(solicit: &[u8], advertise: &[u8]) -> Result<OfferType, Dropped> {
    read(solicit, advertise).map(|(offer, _)| offer)
}

/// The firmware's reaction to an ADVERTISE that is alone on its network.
#[must_use]
pub fn verdict(solicit: &[u8], advertise: &[u8]) -> OfferVerdict {
    let taken = read(solicit, advertise).and_then(|(offer, url)| {
        match offer {
            // The address is checked in the other server's offer.
            OfferType::ProxyIpUri | OfferType::ProxyNameUri => {}
            OfferType::Only
            | OfferType::Dns
            | OfferType::IpUri
            | OfferType::IpUriDns
            | OfferType::NameUriDns
            | OfferType::NameUri => has_an_address(solicit, advertise)?,
        }
        Ok(OfferVerdict::of(offer, url))
    });
    taken.unwrap_or_else(|because| OfferVerdict::Refuses { because })
}

/// Whether EDK2 waits for advertisements of other servers after this one: for the whole of its first retransmission
/// time, about four seconds (`Dhcp6HandleAdvertiseMsg`).
#[must_use]
pub fn waits_after(advertise: &[u8]) -> bool {
    let options = advertise.get(4..).and_then(|bytes| options(bytes).ok()).unwrap_or_default();
    find(&options, 7) != Some(&[255])
}

fn read<'a>(solicit: &[u8], advertise: &'a [u8]) -> Result<(OfferType, Option<&'a [u8]>), Dropped> {
    let options = advertise_to(solicit, advertise)?;
    // Any IA_NA counts here, with or without an address, and with any IAID. EDK2 checks its contents only after the
    // selection (`HttpBootParseDhcp6Packet`).
    let has_address = last(&options, 3).is_some();
    let has_dns = last(&options, 23).is_some();
    // EDK2 compares from the seventh byte on; the enterprise number is ignored (`HttpBootParseDhcp6Packet`).
    let class = last(&options, 16).and_then(|class| class.get(6..16));
    if class != Some(b"HTTPClient") {
        return match (has_address, has_dns) {
            (false, _) => Err("it has neither an address nor the class HTTPClient".into()),
            (true, true) => Ok((OfferType::Dns, None)),
            (true, false) => Ok((OfferType::Only, None)),
        };
    }
    let url = url(&options)?;
    let offer = match (has_address, names_an_address(url)?, has_dns) {
        (true, true, true) => OfferType::IpUriDns,
        (true, true, false) => OfferType::IpUri,
        (true, false, true) => OfferType::NameUriDns,
        (true, false, false) => OfferType::NameUri,
        (false, true, _) => OfferType::ProxyIpUri,
        (false, false, _) => OfferType::ProxyNameUri,
    };
    Ok((offer, Some(url)))
}

/// The checks of every ADVERTISE (`Dhcp6HandleStateful`, `Dhcp6HandleAdvertiseMsg`).
fn advertise_to<'a>(solicit: &[u8], advertise: &'a [u8]) -> Result<AdvertisedOptions<'a>, Dropped> {
    // `HTTP_BOOT_DHCP6_PACKET_MAX_SIZE`
    if advertise.len() > 1472 {
        return Err(format!("{} bytes are more than it takes", advertise.len()));
    }
    let (Some((asked, wanted)), Some((head, given))) =
        (solicit.split_at_checked(4), advertise.split_at_checked(4))
    else {
        return Err("it is not a DHCPv6 message".into());
    };
    if head[0] != 2 || head[1..] != asked[1..] {
        return Err("it is not an ADVERTISE of this exchange".into());
    }
    let (wanted, given) = (options(wanted)?, options(given)?);
    if find(&given, 1).is_none() || find(&given, 1) != find(&wanted, 1) {
        return Err("it is not for this client".into());
    }
    find(&given, 2).ok_or("no server says it is his")?;
    refuse_status(&given)?;
    if let Some(association) = association(&wanted, &given) {
        refuse_status(&inner(association)?)?;
    }
    Ok(given)
}

/// EDK2 drops the whole packet for any status but success (`Dhcp6SeekStsOption`).
fn refuse_status(options: &AdvertisedOptions<'_>) -> Result<(), Dropped> {
    match find(options, 13) {
        None | Some([0, 0, ..]) => Ok(()),
        Some(_) => Err("it has a status that is not success".into()),
    }
}

/// The IA_NA with the IAID of the SOLICIT (`Dhcp6SeekIaOption`).
fn association<'a>(
    solicited: &AdvertisedOptions<'_>,
    advertised: &AdvertisedOptions<'a>,
) -> Option<&'a [u8]> {
    let wanted = find(solicited, 3)?.get(..4)?;
    let mut associations = advertised.iter().filter(|(code, _)| *code == 3);
    associations.find(|(_, value)| value.get(..4) == Some(wanted)).map(|(_, value)| *value)
}

/// The options of an IA_NA, after IAID, T1 and T2 (`Dhcp6SeekInnerOptionSafe`).
fn inner(association: &[u8]) -> Result<AdvertisedOptions<'_>, Dropped> {
    options(association.get(12..).ok_or("its IA_NA is too short")?)
}

/// Whether a selected advertisement has an address to request. Without one EDK2 gives up and tries no other
/// advertisement (`Dhcp6SelectAdvertiseMsg`, `Dhcp6UpdateIaInfo`, `Dhcp6GenerateIaCb`).
fn has_an_address(solicit: &[u8], advertise: &[u8]) -> Result<(), Dropped> {
    let [asked, given] = [solicit, advertise].map(|bytes| bytes.get(4..).unwrap_or_default());
    let association = association(&options(asked)?, &options(given)?);
    let association = association.ok_or("its IA_NA is not the one asked for")?;
    let inner = inner(association)?;
    let [t1, t2] = [&association[4..8], &association[8..12]];
    if t1 > t2 && t2 != [0; 4] {
        return Err("T1 is after T2".into());
    }
    // EDK2 ignores addresses with a valid lifetime of zero, or a preferred lifetime longer than the valid one
    // (`Dhcp6ParseAddrOption`).
    let usable = |address: &[u8]| {
        let lifetimes = address.get(16..20).zip(address.get(20..24));
        lifetimes.is_some_and(|(preferred, valid)| valid >= preferred && valid != [0; 4])
    };
    if !inner.iter().any(|(code, value)| *code == 5 && usable(value)) {
        return Err("there is no address in its IA_NA".into());
    }
    Ok(())
}

/// Option 59 up to the first zero byte. The driver searches for the zero byte beyond the option's end
/// (`HttpBootParseDhcp6Packet`).
fn url<'a>(options: &AdvertisedOptions<'a>) -> Result<&'a [u8], Dropped> {
    let at = options.iter().rposition(|(code, _)| *code == 59);
    let at = at.ok_or("an HTTP offer without a URL is dropped")?;
    let url = options[at].1;
    // The next option begins with its code, most significant byte first.
    let next = options.get(at + 1).map(|(code, _)| *code);
    if !url.contains(&0) && next.is_none_or(|code| code > 255) {
        return Err("no zero byte follows the URL, so what follows is read as a part of it".into());
    }
    Ok(url.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// Whether a URL can be fetched without name resolution: its host is an IPv6 address in brackets.
fn names_an_address(url: &[u8]) -> Result<bool, Dropped> {
    let url = std::str::from_utf8(url).map_err(|_| "the URL is not text")?;
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or("this is not an HTTP URL")?;
    let literal = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    Ok(literal.is_some_and(|(literal, _)| literal.parse::<Ipv6Addr>().is_ok()))
}

type AdvertisedOptions<'a> = Vec<(u16, &'a [u8])>;

fn options(mut bytes: &[u8]) -> Result<AdvertisedOptions<'_>, Dropped> {
    let mut options = AdvertisedOptions::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(4).ok_or("an option ends too late")?;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (value, rest) = rest.split_at_checked(len).ok_or("an option ends too late")?;
        options.push((u16::from_be_bytes([head[0], head[1]]), value));
        bytes = rest;
    }
    Ok(options)
}

/// The HTTP boot driver uses the last option of a code (`HttpBootParseDhcp6Packet`); the DHCPv6 driver uses the
/// first.
fn last<'a>(options: &AdvertisedOptions<'a>, wanted: u16) -> Option<&'a [u8]> {
    options.iter().rfind(|(code, _)| *code == wanted).map(|(_, value)| *value)
}

fn find<'a>(options: &AdvertisedOptions<'a>, wanted: u16) -> Option<&'a [u8]> {
    options.iter().find(|(code, _)| *code == wanted).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URL: &[u8] = b"http://[fd00::1]:8080/boot/x/bootx64.efi";

    fn message(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![kind, 1, 2, 3];
        for (code, value) in options {
            bytes.extend(code.to_be_bytes());
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(*value);
        }
        bytes
    }

    fn solicit() -> Vec<u8> {
        message(1, &[(1, b"client"), (3, &[7; 12])])
    }

    fn association() -> Vec<u8> {
        [&[7; 4][..], &[0, 0, 0, 50, 0, 0, 0, 80], &[0, 5, 0, 24], &[0xfd; 24]].concat()
    }

    fn advertise(more: &[(u16, &[u8])]) -> Vec<u8> {
        message(
            2,
            &[&[(1, &b"client"[..]), (2, b"server"), (3, &association())][..], more].concat(),
        )
    }

    fn class() -> Vec<u8> {
        [&343_u32.to_be_bytes()[..], &10_u16.to_be_bytes(), b"HTTPClient"].concat()
    }

    fn refusal(advertise: &[u8]) -> String {
        match verdict(&solicit(), advertise) {
            OfferVerdict::Refuses { because } => because,
            taken @ (OfferVerdict::Boots { .. }
            | OfferVerdict::Beside { .. }
            | OfferVerdict::Address) => {
                panic!("{taken:?}")
            }
        }
    }

    #[test]
    fn a_url_needs_the_class_beside_it_and_a_zero_byte_after_it() {
        let url = String::from_utf8(URL.to_vec()).unwrap();
        let right = advertise(&[(59, URL), (16, &class())]);
        let last = advertise(&[(16, &class()), (59, URL)]);
        let classless = advertise(&[(59, URL), (23, &[0; 16])]);

        assert_eq!(verdict(&solicit(), &right), OfferVerdict::Boots { url });
        assert!(refusal(&last).contains("zero byte"));
        assert_eq!(
            verdict(&solicit(), &classless),
            OfferVerdict::Address,
            "it never asks for HTTP"
        );
    }

    #[test]
    fn of_two_urls_the_later_one_counts() {
        let twice = advertise(&[(59, b"http://[fd00::2]/old"), (59, URL), (16, &class())]);

        let OfferVerdict::Boots { url } = verdict(&solicit(), &twice) else { panic!("it refuses") };
        assert_eq!(url.as_bytes(), URL);
    }

    #[test]
    fn a_url_with_a_name_needs_a_name_server() {
        let named = advertise(&[(59, b"http://boot.test/x"), (16, &class())]);
        let served = advertise(&[(59, b"http://boot.test/x"), (16, &class()), (23, &[0; 16])]);

        assert!(refusal(&named).contains("name server"));
        assert!(matches!(verdict(&solicit(), &served), OfferVerdict::Boots { .. }));
    }

    #[test]
    fn any_status_but_success_costs_the_whole_advertisement() {
        let fails = advertise(&[(13, &[0, 2])]);
        let succeeds = advertise(&[(13, &[0, 0])]);

        assert!(refusal(&fails).contains("status"));
        assert_eq!(verdict(&solicit(), &succeeds), OfferVerdict::Address);
    }

    #[test]
    fn the_highest_preference_ends_the_wait_for_other_servers() {
        assert!(waits_after(&advertise(&[])));
        assert!(waits_after(&advertise(&[(7, &[254])])));
        assert!(!waits_after(&advertise(&[(7, &[255])])));
    }

    #[test]
    fn an_association_without_an_address_is_chosen_and_then_fails() {
        let empty = [&[7; 4][..], &[0; 8]].concat();
        let offer =
            message(2, &[(1, b"client"), (2, b"server"), (3, &empty), (59, URL), (16, &class())]);

        assert_eq!(take_advertise(&solicit(), &offer), Ok(OfferType::IpUri), "as good as any");
        assert!(refusal(&offer).contains("no address"));
    }

    #[test]
    fn of_several_associations_the_one_asked_for_counts() {
        let refused = [&[9; 4][..], &[0; 8], &[0, 13, 0, 2, 0, 2]].concat();
        let others_first =
            message(2, &[(1, b"client"), (2, b"server"), (3, &refused), (3, &association())]);
        let others_only = message(2, &[(1, b"client"), (2, b"server"), (3, &refused)]);

        assert_eq!(verdict(&solicit(), &others_first), OfferVerdict::Address);
        assert!(refusal(&others_only).contains("not the one asked for"));
    }

    #[test]
    fn an_address_that_is_valid_no_more_is_none() {
        let mut association = association();
        association[36..40].fill(0);
        let over = message(2, &[(1, b"client"), (2, b"server"), (3, &association)]);

        assert!(refusal(&over).contains("no address"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, solicited: Vec<u8>) {
            let _ = verdict(&solicited, &bytes);
            let _ = verdict(&solicit(), &advertise(&[(3, &bytes), (59, &bytes), (16, &class())]));
            let _ = waits_after(&bytes);
        }
    }
}
