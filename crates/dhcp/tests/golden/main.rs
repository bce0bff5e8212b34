//! Messages of real firmware and boot loaders, and their answers: every answer is a snapshot, checked by a model of
//! EDK2's selection and by an independent decoder.
//!
//! The captures are of OVMF 2022.11, iPXE 1.0.0 (git 36a4c85) as EFI program and in a network card's BIOS ROM, and
//! GRUB 2.06's `net_bootp`.
#![expect(clippy::unwrap_used, reason = "clippy sees tests only where they are marked as such")]

mod capture;
mod six;

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use dhcp::firmware::v4::{self as edk2, BootEnvironment, OfferType};
use dhcp::leases::{LeaseClaim, LeasePool, LeaseTable};
use dhcp::v4::Packet;
use dhcp::v4::decide::{Decision, decide};
use dhcp::v4::options as code;
use dhcp::v4::reply::Network;
use dhcp::{Answer, Client};
use dhcproto::{Decodable as _, Decoder, v4};
use proptest::prelude::*;

const CAPTURES: [&str; 5] =
    ["ovmf-2022.11-http", "ovmf-2022.11-pxe", "ipxe-1.0.0-efi", "ipxe-1.0.0-bios", "grub-2.06"];

const URL: &str = "http://10.0.2.2:8080/boot/AAAAAAAAAAAAAAAAAAAAAA/bootx64.efi";

#[test]
fn each_client_is_told_by_what_it_sends() {
    let mut page = String::new();
    for name in CAPTURES {
        let capture = capture::open(name);
        for bytes in [&capture.discover, &capture.request] {
            let packet = Packet::parse(bytes).unwrap();
            let client = Client::identify(&packet);
            let architecture =
                client.architecture().map(|architecture| format!("{:#06x}", architecture.0));
            writeln!(
                page,
                "{name}: {} of a client that is {}, {}, {}",
                packet.message.name(),
                client.kind,
                architecture.as_deref().unwrap_or("of no architecture"),
                if client.machine_id.is_some() { "with a UUID" } else { "without a UUID" },
            )
            .unwrap();
        }
    }
    insta::assert_snapshot!(page);
}

#[test]
fn each_client_gets_an_address_and_a_url_in_the_form_it_reads() {
    for name in CAPTURES {
        insta::assert_snapshot!(name, Exchange::play(name, &boot(URL)).page());
    }
}

#[test]
fn each_client_gets_an_address_alone_where_the_bmc_has_the_url() {
    let page: String =
        CAPTURES.map(|name| Exchange::play(name, &Answer::Address).page()).join("\n");
    insta::assert_snapshot!(page);
}

#[test]
fn firmware_that_looks_for_a_url_boots_from_our_offer() {
    let exchange = Exchange::play("ovmf-2022.11-http", &boot(URL));

    let offer = edk2::take_offer(&exchange.discover, &exchange.offer.emit()).unwrap();

    assert!(offer.suffices(BootEnvironment::Url), "{offer:?}");
}

#[test]
fn firmware_that_has_its_url_from_the_bmc_takes_an_address_alone() {
    let exchange = Exchange::play("ovmf-2022.11-http", &Answer::Address);

    let offer = edk2::take_offer(&exchange.discover, &exchange.offer.emit());

    assert_eq!(offer, Ok(OfferType::Only));
    assert!(offer.unwrap().suffices(BootEnvironment::Address));
}

#[test]
fn pxe_firmware_takes_our_offer_too() {
    let exchange = Exchange::play("ovmf-2022.11-pxe", &Answer::Address);

    assert_eq!(
        edk2::take_offer(&exchange.discover, &exchange.offer.emit()),
        Ok(OfferType::Only),
        "its DHCP driver is the same"
    );
}

#[test]
fn the_ack_is_of_the_server_and_the_address_that_were_offered() {
    for name in CAPTURES {
        let Exchange { discover, offer, ack } = Exchange::play(name, &boot(URL));

        assert_eq!(edk2::take_ack(&discover, &offer.emit(), &ack.emit()), Ok(()), "{name}");
    }
}

#[test]
fn another_decoder_reads_the_captures_and_our_answers_as_we_do() {
    for name in CAPTURES {
        let Exchange { discover, offer, ack } = Exchange::play(name, &boot(URL));
        agrees(&discover, &Packet::parse(&discover).unwrap());
        agrees(&offer.emit(), &offer);
        agrees(&ack.emit(), &ack);
    }
}

#[test]
fn wherever_a_message_ends_after_its_type_the_client_is_answered_by_what_came_before() {
    for name in CAPTURES {
        let capture = capture::open(name);
        let whole = Packet::parse(&capture.discover).unwrap();
        let from = 240 + 3;
        for end in from..capture.discover.len() {
            let cut = Packet::parse(&capture.discover[..end]).unwrap();
            let codes = |packet: &Packet| -> Vec<u8> {
                packet.options.iter().map(|(code, _)| *code).collect()
            };
            assert!(codes(&whole).starts_with(&codes(&cut)), "{name}, cut at {end}");

            let network = network(Ipv4Addr::new(10, 0, 2, 2));
            let first = Ipv4Addr::new(10, 0, 2, 15);
            let mut leases = LeaseTable::new(LeasePool { first, last: first }, []);
            let offer =
                reply(decide(&cut, &boot(URL), LeaseClaim::Known, &mut leases, &network, 0));

            assert_eq!(offer.yiaddr, first, "{name}, cut at {end}");
            if Client::identify(&cut).kind == Client::identify(&whole).kind {
                assert!(offer.option(code::BOOT_FILE).is_some(), "{name}, cut at {end}");
            }
        }
    }
}

proptest! {
    #[test]
    fn one_byte_that_is_wrong_after_its_type_leaves_no_client_without_an_address(
        which in 0..CAPTURES.len(), at in 243_usize..400, byte: u8,
    ) {
        let mut discover = capture::open(CAPTURES[which]).discover;
        let at = at.min(discover.len() - 1);
        discover[at] = byte;

        let packet = Packet::parse(&discover).unwrap();

        let network = network(Ipv4Addr::new(10, 0, 2, 2));
        let first = Ipv4Addr::new(10, 0, 2, 15);
        let mut leases = LeaseTable::new(LeasePool { first, last: first }, []);
        let offer = reply(decide(&packet, &boot(URL), LeaseClaim::Known, &mut leases, &network, 0));
        prop_assert_eq!(offer.yiaddr, first);
    }

    #[test]
    fn what_follows_the_options_of_firmware_costs_it_nothing(
        garbage in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let discover = capture::open("ovmf-2022.11-http").discover;
        let whole = Packet::parse(&discover).unwrap();
        // Up to the end option, which is then missing.
        let mut bytes = discover[..whole.len() - 1].to_vec();
        bytes.extend(garbage);

        let packet = Packet::parse(&bytes).unwrap();

        let (read, sent) = (Client::identify(&packet), Client::identify(&whole));
        prop_assert_eq!(read.mac, sent.mac);
        prop_assert!(packet.options.len() >= whole.options.len());
    }

    #[test]
    fn firmware_boots_from_an_offer_for_any_network_and_any_client_of_its_kind(
        path in "[A-Za-z0-9_/-]{0,150}",
        router: Option<u32>,
        dns in prop::collection::vec(1_u32.., 0..5),
        client_id in prop::option::of(prop::collection::vec(any::<u8>(), 2..=255)),
        relay_agent in prop::option::of(prop::collection::vec(any::<u8>(), 1..=255)),
        lease_secs: u32,
    ) {
        let discover = capture::open("ovmf-2022.11-http").discover;
        let mut request = Packet::parse(&discover).unwrap();
        request.options.extend(client_id.map(|id| (code::CLIENT_ID, id)));
        request.options.extend(relay_agent.map(|agent| (code::RELAY_AGENT, agent)));
        let server = Ipv4Addr::new(10, 0, 2, 2);
        let network = Network {
            router: router.map(Ipv4Addr::from),
            dns: dns.into_iter().map(Ipv4Addr::from).collect(),
            lease_secs,
            ..network(server)
        };
        let answer = boot(&format!("http://10.0.2.2:8080/{path}"));
        let first = Ipv4Addr::new(10, 0, 2, 15);
        let mut leases = LeaseTable::new(LeasePool { first, last: first }, []);

        let offer = reply(decide(&request, &answer, LeaseClaim::Known, &mut leases, &network, 0));

        let offer = edk2::take_offer(&discover, &offer.emit());
        prop_assert_eq!(offer, Ok(OfferType::IpUri));
    }
}

/// The four messages of a boot, two captured and two composed.
struct Exchange {
    discover: Vec<u8>,
    offer: Packet,
    ack: Packet,
}

impl Exchange {
    /// Plays the server of the capture.
    fn play(name: &str, answer: &Answer) -> Self {
        let capture = capture::open(name);
        let discover = Packet::parse(&capture.discover).unwrap();
        let request = Packet::parse(&capture.request).unwrap();
        let first = request.option_address(code::REQUESTED_ADDRESS).unwrap();
        let network = network(request.option_address(code::SERVER_ID).unwrap());
        let mut leases = LeaseTable::new(LeasePool { first, last: first }, []);
        let mut hear =
            |packet| reply(decide(packet, answer, LeaseClaim::Known, &mut leases, &network, 1_000));
        Self { offer: hear(&discover), ack: hear(&request), discover: capture.discover }
    }

    fn page(&self) -> String {
        let packets =
            [Packet::parse(&self.discover).unwrap(), self.offer.clone(), self.ack.clone()];
        packets.iter().map(page).collect()
    }
}

fn boot(url: &str) -> Answer {
    Answer::Boot(url.to_owned())
}

fn network(server: Ipv4Addr) -> Network {
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    Network::new(server, mask, 600)
}

fn reply(decision: Decision) -> Packet {
    match decision {
        Decision::Send { reply, .. } => reply,
        Decision::Note { .. } | Decision::Silent(_) => panic!("no answer: {decision:?}"),
    }
}

/// A packet in a form for review.
fn page(packet: &Packet) -> String {
    let mut page = format!(
        "{} {:#010x} yiaddr {} broadcast {}\n",
        packet.message.name(),
        packet.xid,
        packet.yiaddr,
        packet.broadcast
    );
    for (code, value) in &packet.options {
        writeln!(page, "  {code:3} {}", value.escape_ascii()).unwrap();
    }
    page
}

/// Compares header fields and options; the decoder stops silently at an unreadable option.
fn agrees(bytes: &[u8], ours: &Packet) {
    let theirs = v4::Message::decode(&mut Decoder::new(bytes)).unwrap();
    assert_eq!((theirs.xid(), theirs.secs()), (ours.xid, ours.secs));
    assert_eq!((theirs.ciaddr(), theirs.yiaddr()), (ours.ciaddr, ours.yiaddr));
    assert_eq!(theirs.chaddr(), ours.chaddr.0);
    assert_eq!(theirs.flags().broadcast(), ours.broadcast);
    assert_eq!(theirs.opts().msg_type().map(u8::from), Some(ours.message.code()));
    let mut known: Vec<u8> = theirs.opts().iter().map(|(code, _)| u8::from(*code)).collect();
    let mut read: Vec<u8> = ours.options.iter().map(|(code, _)| *code).collect();
    read.push(code::MESSAGE_TYPE);
    known.sort_unstable();
    read.sort_unstable();
    assert_eq!(known, read);
}
