//! Messages of OVMF 2022.11 over IPv6, and whether it boots from the answers.

use std::net::Ipv6Addr;

use dhcp::Answer;
use dhcp::firmware::{OfferVerdict, v6 as edk2};
use dhcp::leases::{LeaseClaim, LeasePool, LeaseTable};
use dhcp::v6::client_identity::Client;
use dhcp::v6::decide::{Decision, decide};
use dhcp::v6::reply::Network;
use dhcp::v6::{Message, Packet, options as code};
use hardware::architecture::X64_HTTP;
use hardware::{ClientKind, Mac};
use proptest::prelude::*;

use crate::capture;

const URL: &str = "http://[fd00::1]:8080/boot/AAAAAAAAAAAAAAAAAAAAAA/bootx64.efi";
const MAC: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 1]);

#[test]
fn the_boot_is_told_from_the_ipv6_stacks_own_wish_for_an_address() {
    let [boot, stack, request] = messages().map(|bytes| client(&bytes));

    assert_eq!([boot.kind, stack.kind, request.kind], KINDS);
    assert_eq!([boot.mac(), stack.mac()], [Some(MAC); 2], "both are of one machine");
    assert_eq!(boot.architecture(), Some(X64_HTTP));
}

#[test]
fn firmware_boots_from_our_advertisement_at_once() {
    let [solicit, ..] = messages();

    let advertise = reply_to(&solicit, &mut leases(), true);

    let url = URL.to_owned();
    assert_eq!(edk2::verdict(&solicit, &advertise), OfferVerdict::Boots { url });
    assert!(!edk2::waits_after(&advertise));
}

#[test]
fn beside_other_servers_firmware_hears_them_out_first() {
    let [solicit, ..] = messages();

    let advertise = reply_to(&solicit, &mut leases(), false);

    assert!(matches!(edk2::verdict(&solicit, &advertise), OfferVerdict::Boots { .. }));
    assert!(edk2::waits_after(&advertise));
}

#[test]
fn boot_and_stack_get_one_address_for_all_that_their_associations_differ() {
    let [boot, stack, _] = messages();
    let mut leases = leases();

    let [first, second] = [boot, stack].map(|solicit| {
        let advertise = Packet::parse(&reply_to(&solicit, &mut leases, true)).unwrap().message;
        advertise.ias().next().unwrap()
    });

    assert_ne!(first.id, second.id);
    assert_eq!(first.addresses, second.addresses);
}

#[test]
fn parameters_are_never_sent_which_would_stop_pxe_firmware() {
    let [solicit, ..] = messages();

    let advertise = Packet::parse(&reply_to(&solicit, &mut leases(), true)).unwrap().message;

    // OPT_BOOTFILE_PARAM (RFC 5970 §3.2), which this firmware requests but does not use.
    let requested = Packet::parse(&solicit).unwrap().message;
    let requested = requested.options.get(code::OPTION_REQUEST).unwrap().to_vec();
    assert!(requested.chunks(2).any(|code| code == [0, 60]));
    assert_eq!(advertise.options.get(60), None);
}

#[test]
fn wherever_a_message_ends_after_its_association_firmware_is_answered_by_what_came_before() {
    let [solicit, ..] = messages();
    let whole = Packet::parse(&solicit).unwrap().message;
    for end in AFTER_ASSOCIATION..=solicit.len() {
        let cut = &solicit[..end];
        let advertise = Packet::parse(&reply_to(cut, &mut leases(), true)).unwrap().message;

        assert_eq!(advertise.ias().next().unwrap().addresses.len(), 1, "cut at {end}");
        let read = Packet::parse(cut).unwrap().message;
        let codes = |message: &Message| -> Vec<u16> {
            message.options.0.iter().map(|(code, _)| *code).collect()
        };
        assert!(codes(&whole).starts_with(&codes(&read)), "cut at {end}");
        if client(cut).kind == ClientKind::HttpClient {
            assert!(matches!(
                edk2::verdict(&solicit, &reply_to(cut, &mut leases(), true)),
                OfferVerdict::Boots { .. }
            ));
        }
    }
}

proptest! {
    #[test]
    fn one_byte_that_is_wrong_after_its_association_leaves_firmware_with_an_address(
        at in AFTER_ASSOCIATION..150_usize, byte: u8,
    ) {
        let [mut solicit, ..] = messages();
        let at = at.min(solicit.len() - 1);
        solicit[at] = byte;
        let message = Packet::parse(&solicit).unwrap().message;
        // RFC 8415 §16.2: such a message must not be answered.
        prop_assume!(message.options.get(code::SERVER_ID).is_none());

        let advertise = Packet::parse(&reply_to(&solicit, &mut leases(), true)).unwrap().message;

        prop_assert_eq!(advertise.ias().next().unwrap().addresses.len(), 1);
    }
}

/// Offset in the SOLICIT: client identifier, elapsed time, and the head of the association.
const AFTER_ASSOCIATION: usize = 4 + (4 + 18) + (4 + 2) + (4 + 12);

const KINDS: [ClientKind; 3] =
    [ClientKind::HttpClient, ClientKind::Firmware, ClientKind::HttpClient];

/// The SOLICIT of HTTP boot, that of the IPv6 stack, and a REQUEST to another server.
fn messages() -> [Vec<u8>; 3] {
    capture::open6("ovmf-2022.11-http-v6")
}

fn client(bytes: &[u8]) -> Client {
    let from: Ipv6Addr = "fe80::5054:ff:feaa:bb01".parse().unwrap();
    Client::identify(&Packet::parse(bytes).unwrap(), from)
}

fn leases() -> LeaseTable<Ipv6Addr> {
    let [first, last] = ["fd00::10", "fd00::1f"].map(|address| address.parse().unwrap());
    LeaseTable::new(LeasePool { first, last }, [])
}

fn reply_to(bytes: &[u8], leases: &mut LeaseTable<Ipv6Addr>, sole: bool) -> Vec<u8> {
    let network = Network {
        net: "fd00::/64".parse().unwrap(),
        duid: vec![0, 2, 9],
        sole,
        dns: Vec::new(),
        domain: None,
        ntp: Vec::new(),
        lease_secs: 600,
        foreign_pools: std::sync::Arc::default(),
    };
    let request = Packet::parse(bytes).unwrap();
    let (client, answer) = (client(bytes), Answer::Boot(URL.to_owned()));
    let message = &request.message;
    let decision = decide(message, &client, &answer, LeaseClaim::Known, leases, &network, 1_000);
    match decision {
        Decision::Send { reply, .. } => request.answered_by(reply).emit(),
        Decision::Silent(why) => panic!("{why}"),
    }
}
