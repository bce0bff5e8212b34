//! Requirements of real firmware, one test for each mistake that other servers made.

use std::net::Ipv4Addr;

use hardware::ClientKind;
use hardware::Mac;
use proptest::prelude::*;

use super::decide::{Decision, decide};
use super::options as code;
use super::packet::tests::discover;
use super::packet::{LARGEST, MessageType, Packet};
use super::proxy::{self, ProxyPort};
use super::reply::{Network, Route};
use crate::answer::Answer;
use crate::client::Client;
use crate::firmware::v4::{BootEnvironment, Choice, OfferType, choose, take_ack, take_offer};
use crate::leases::{LeaseClaim, LeasePool, LeaseTable};

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const URL: &str = "http://10.0.0.1:8080/boot/AAAAAAAAAAAAAAAAAAAAAA/bootx64.efi";
/// Options that clients use and request.
const LIST: [u8; 7] = [
    code::SUBNET_MASK,
    code::ROUTER,
    code::DNS,
    code::DOMAIN,
    code::MTU,
    code::NTP,
    code::CLASSLESS_ROUTES,
];

fn network() -> Network {
    Network {
        router: Some(Ipv4Addr::new(10, 0, 0, 254)),
        routes: vec![Route { to: "192.0.2.0/24".parse().unwrap(), via: US }],
        domain: Some("example.org".into()),
        ntp: vec![US],
        ..Network::new(US, Ipv4Addr::new(255, 255, 255, 0), 3_600)
    }
}

fn url() -> Answer {
    Answer::Boot(URL.into())
}

/// A DISCOVER in the form that OVMF sends, for any architecture.
fn firmware(class: &str, architecture: u16) -> Packet {
    let options = vec![
        (code::MAX_SIZE, 1_472_u16.to_be_bytes().to_vec()),
        (code::PARAMETER_LIST, LIST.to_vec()),
        (code::MACHINE_ID, vec![0; 17]),
        (code::INTERFACE, vec![1, 3, 0]),
        (code::ARCHITECTURE, architecture.to_be_bytes().to_vec()),
        (code::VENDOR_CLASS, format!("{class}:Arch:{architecture:05}:UNDI:003000").into()),
    ];
    Packet { options, ..discover(MAC) }
}

fn http_client() -> Packet {
    firmware("HTTPClient", 0x10)
}

fn system() -> Packet {
    let options =
        vec![(code::VENDOR_CLASS, b"dhcpcd-9.4.1".to_vec()), (code::PARAMETER_LIST, LIST.to_vec())];
    Packet { broadcast: false, options, ..discover(MAC) }
}

/// The OFFER and the ACK that follow a DISCOVER.
fn exchange(discover: &Packet, answer: &Answer, network: &Network) -> [Packet; 2] {
    let pool =
        LeasePool { first: Ipv4Addr::new(10, 0, 0, 100), last: Ipv4Addr::new(10, 0, 0, 109) };
    let mut leases = LeaseTable::new(pool, []);
    let mut hear = |packet: &Packet| match decide(
        packet,
        answer,
        LeaseClaim::Known,
        &mut leases,
        network,
        0,
    ) {
        Decision::Send { reply, .. } => reply,
        other @ (Decision::Note { .. } | Decision::Silent(_)) => {
            panic!("no answer: {other:?}")
        }
    };
    let offer = hear(discover);
    let mut request = Packet { message: MessageType::Request, ..discover.clone() };
    for (code, address) in
        [(code::SERVER_ID, network.server), (code::REQUESTED_ADDRESS, offer.yiaddr)]
    {
        request.options.push((code, address.octets().to_vec()));
    }
    let ack = hear(&request);
    [offer, ack]
}

fn taken(discover: &Packet, answer: &Answer, network: &Network) -> Result<OfferType, String> {
    let [offer, ack] = exchange(discover, answer, network);
    let [discover, offer, ack] = [discover.emit(), offer.emit(), ack.emit()];
    take_ack(&discover, &offer, &ack)?;
    take_offer(&discover, &offer)
}

#[test]
fn firmware_sees_its_class_come_back_and_boots() {
    assert_eq!(taken(&http_client(), &url(), &network()), Ok(OfferType::IpUri));
}

#[test]
fn firmware_that_reads_only_the_offer_and_a_loader_that_reads_only_the_ack_are_told_the_same() {
    let [offer, ack] = exchange(&http_client(), &url(), &network());

    assert_eq!(offer.options, ack.options);
}

#[test]
fn a_url_with_a_name_comes_with_the_name_servers_that_know_it() {
    let named = Answer::Boot("http://boot.example.org/bootx64.efi".into());
    let network = Network { dns: vec![Ipv4Addr::new(10, 0, 0, 53)], ..network() };

    assert_eq!(taken(&http_client(), &named, &network), Ok(OfferType::NameUriDns));
}

#[test]
fn nothing_but_the_class_of_a_client_comes_back_to_it() {
    for (client, class) in [
        (http_client(), Some(&b"HTTPClient"[..])),
        (firmware("PXEClient", 7), None),
        (system(), None),
    ] {
        for reply in exchange(&client, &url(), &network()) {
            assert_eq!(reply.option(code::VENDOR_CLASS), class);
            assert_eq!(reply.option(code::VENDOR_INFORMATION), None);
        }
    }
}

#[test]
fn pxe_firmware_with_its_class_back_has_the_menu_switched_off_so_that_it_does_not_wait_for_one() {
    let file = Answer::Tftp { server: US, file: "snponly.efi".into() };

    for reply in exchange(&firmware("PXEClient", 7), &file, &network()) {
        assert_eq!(reply.option(code::VENDOR_CLASS), Some(&b"PXEClient"[..]));
        assert_eq!(reply.option(code::VENDOR_INFORMATION), Some(&[6, 1, 8, 255][..]));
    }
}

#[test]
fn firmware_boots_by_a_proxys_url_and_another_servers_address() {
    let discover = http_client();
    let theirs = Network { server: Ipv4Addr::new(10, 0, 0, 2), ..network() };
    let [address, _] = exchange(&system(), &Answer::Address, &theirs);
    let ours = proxy::decide(&discover, ProxyPort::Dhcp, &url(), &network()).unwrap();

    let offers =
        [&address, &ours].map(|offer| take_offer(&discover.emit(), &offer.emit()).unwrap());

    assert_eq!(offers, [OfferType::Only, OfferType::ProxyIpUri]);
    let choice = Choice { address: 0, url: Some(1) };
    assert_eq!(choose(&offers, BootEnvironment::Url), Some(choice));
}

#[test]
fn a_reply_has_mask_and_server_and_is_small_enough_for_firmware_whatever_was_sent() {
    let mut crowded = http_client();
    crowded.options.retain(|(code, _)| *code != code::MAX_SIZE);
    crowded.options.push((code::MAX_SIZE, u16::MAX.to_be_bytes().to_vec()));
    crowded.options.push((code::CLIENT_ID, vec![1; 900]));
    crowded.options.push((code::RELAY_AGENT, vec![9; 200]));

    for reply in exchange(&crowded, &url(), &network()) {
        assert!(reply.emit().len() <= LARGEST);
        assert!(reply.option_address(code::SUBNET_MASK).is_some_and(|mask| !mask.is_unspecified()));
        assert_eq!(reply.option_address(code::SERVER_ID), Some(US));
        assert!(reply.option_u32(code::LEASE_TIME).is_some());
    }
}

#[test]
fn the_byte_that_firmware_puts_behind_the_url_is_there_already() {
    let [offer, _] = exchange(&http_client(), &url(), &network());

    assert_eq!(offer.option(code::BOOT_FILE).and_then(<[u8]>::last), Some(&0));
}

#[test]
fn a_list_of_wishes_with_a_slot_that_was_never_filled_in_changes_nothing() {
    let plain = exchange(&http_client(), &url(), &network());
    let mut odd = http_client();
    for (code, value) in &mut odd.options {
        if *code == code::PARAMETER_LIST {
            value.extend([235, 0, 255, code::END]);
        }
    }

    assert_eq!(exchange(&odd, &url(), &network()), plain);
}

#[test]
fn firmware_has_its_router_whatever_its_list_of_wishes_says() {
    for class in ["HTTPClient", "PXEClient"] {
        for reply in exchange(&firmware(class, 0x10), &url(), &network()) {
            assert_eq!(reply.option_address(code::ROUTER), network().router);
        }
    }
    for reply in exchange(&system(), &Answer::Address, &network()) {
        assert_eq!(reply.option(code::ROUTER), None, "it asked for option 121 too");
    }
}

#[test]
fn the_broadcast_flag_comes_back_as_it_was_through_relays_too() {
    for relay in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 0, 0, 254)] {
        for broadcast in [true, false] {
            let discover = Packet { giaddr: relay, broadcast, ..http_client() };
            for reply in exchange(&discover, &url(), &network()) {
                assert_eq!((reply.broadcast, reply.giaddr), (broadcast, relay));
            }
        }
    }
}

#[test]
fn class_and_url_come_together_or_not_at_all() {
    let file = Answer::Tftp { server: US, file: "snponly.efi".into() };

    for (answer, both) in [(url(), true), (Answer::Address, false), (file, false)] {
        let [offer, _] = exchange(&http_client(), &answer, &network());
        let is_http = offer.option(code::VENDOR_CLASS) == Some(b"HTTPClient");
        let has_url = offer.option(code::BOOT_FILE).is_some_and(|file| file.starts_with(b"http"));

        assert_eq!((is_http, has_url), (both, both), "{answer:?}");
    }
}

#[test]
fn firmware_of_an_architecture_that_nobody_has_heard_of_is_answered_like_any_other() {
    let discover = firmware("HTTPClient", 0x7fff);

    assert_eq!(taken(&discover, &url(), &network()), Ok(OfferType::IpUri));
    let known = Client::identify(&discover).architecture().unwrap();
    assert_eq!(known.0, 0x7fff);
}

#[test]
fn ipxe_started_by_http_firmware_is_told_a_url_and_not_taken_for_the_firmware() {
    let mut ipxe = firmware("PXEClient", 7);
    ipxe.options.push((code::USER_CLASS, b"iPXE".to_vec()));
    ipxe.options.push((code::IPXE, vec![19, 1, 1]));

    let [offer, _] = exchange(&ipxe, &url(), &network());

    assert_eq!(Client::identify(&ipxe).kind, ClientKind::Ipxe);
    assert!(offer.option(code::BOOT_FILE).is_some());
    assert_eq!(offer.option(code::VENDOR_CLASS), None);
}

#[test]
fn firmware_and_loaders_never_hear_of_packets_larger_than_their_drivers_take() {
    let jumbo = Network { mtu: Some(9_000), ..network() };
    let tunnel = Network { mtu: Some(1_400), ..network() };
    let mut ipxe = firmware("PXEClient", 7);
    ipxe.options.push((code::USER_CLASS, b"iPXE".to_vec()));
    let mtu = |client: &Packet, network| {
        let [offer, _] = exchange(client, &url(), network);
        offer.option(code::MTU).map(<[u8]>::to_vec)
    };

    for client in [&http_client(), &ipxe] {
        assert_eq!(mtu(client, &jumbo), None);
        assert_eq!(mtu(client, &tunnel), Some(vec![0x05, 0x78]));
    }
    assert_eq!(mtu(&system(), &jumbo), Some(vec![0x23, 0x28]));
}

#[test]
fn a_loader_that_asks_although_its_firmware_had_a_fixed_address_gets_one() {
    let [_, ack] = exchange(&system(), &Answer::Address, &network());

    assert_eq!(ack.message, MessageType::Ack);
    assert!(!ack.yiaddr.is_unspecified());
}

proptest! {
    #[test]
    fn every_reply_passes_the_check_of_sizes_that_costs_firmware_the_whole_packet(
        list in prop::collection::vec(any::<u8>(), 0..60),
        client_id in prop::option::of(prop::collection::vec(any::<u8>(), 2..300)),
        domain in prop::option::of("[a-z.]{0,40}"),
        mtu: Option<u16>,
        ntp in prop::collection::vec(any::<u32>(), 0..5),
        dns in prop::collection::vec(any::<u32>(), 0..5),
        routes in prop::collection::vec((any::<u32>(), 0..=32_u8, any::<u32>()), 0..5),
        lease_secs: u32, max_size: Option<u16>, named: bool,
    ) {
        let mut discover = http_client();
        discover.options.retain(|(code, _)| ![code::PARAMETER_LIST, code::MAX_SIZE].contains(code));
        discover.options.push((code::PARAMETER_LIST, list));
        let max_size = max_size.map(|size| (code::MAX_SIZE, size.to_be_bytes().to_vec()));
        discover.options.extend(max_size);
        discover.options.extend(client_id.map(|id| (code::CLIENT_ID, id)));
        let routes = routes.into_iter().map(|(to, width, via)| Route {
            to: ipnet::Ipv4Net::new(to.into(), width).unwrap(),
            via: via.into(),
        });
        let network = Network {
            routes: routes.collect(),
            domain, mtu, lease_secs,
            ntp: ntp.into_iter().map(Into::into).collect(),
            dns: dns.into_iter().map(Into::into).collect(),
            ..network()
        };
        let host = if named { "boot.example" } else { "10.0.0.1" };

        let offer = taken(&discover, &Answer::Boot(format!("http://{host}/x.efi")), &network);

        prop_assert!(offer.is_ok(), "{:?}", offer);
    }
}
