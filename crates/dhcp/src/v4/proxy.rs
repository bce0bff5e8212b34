//! Answers beside another server, which leases the addresses (ProxyDHCP; Preboot Execution Environment 2.1, §2.2).
//!
//! EDK2's HTTP boot takes URL and class from an OFFER without an address, and sends no further request
//! (`HttpBootDhcp4.c`). PXE firmware and iPXE do the same if the OFFER names a file, but some send a second request
//! to port 4011.

use hardware::ClientKind;

use super::decide::NoReply;
use super::packet::{MessageType, Op, Packet};
use super::relay;
use super::reply::{Network, proxy_reply};
use crate::answer::Answer;
use crate::client::kind_of;

/// The port for second requests of ProxyDHCP clients.
pub const PXE_PORT: u16 = 4011;

/// The port that received a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyPort {
    /// Port 67, for all messages; most of them are for the server that leases addresses.
    Dhcp,
    /// Port 4011, for clients that had an offer from a proxy.
    Pxe,
}

/// Decides about a client's message. The reply never has an address.
///
/// # Errors
/// The reason for sending no reply.
pub fn decide(
    request: &Packet,
    port: ProxyPort,
    answer: &Answer,
    network: &Network,
) -> Result<Packet, NoReply> {
    if request.op != Op::Request {
        return Err(NoReply::NotARequest);
    }
    let message = reply_to(request, port, network)?;
    if !is_of_use(kind_of(request), answer) {
        return Err(NoReply::NothingToBoot);
    }
    Ok(proxy_reply(request, message, answer, network))
}

fn reply_to(request: &Packet, port: ProxyPort, network: &Network) -> Result<MessageType, NoReply> {
    match (port, request.message) {
        (ProxyPort::Dhcp, MessageType::Discover) => Ok(MessageType::Offer),
        (ProxyPort::Pxe, MessageType::Request | MessageType::Inform) => {
            let chosen = relay::named_server(request);
            let own = relay::server_id(request, network.server);
            match chosen.filter(|chosen| *chosen != own) {
                Some(other) => Err(NoReply::OtherServer(other)),
                None => Ok(MessageType::Ack),
            }
        }
        (_, MessageType::Offer | MessageType::Ack | MessageType::Nak) => {
            Err(NoReply::NotAClientsMessage)
        }
        (
            _,
            MessageType::Discover
            | MessageType::Request
            | MessageType::Decline
            | MessageType::Release
            | MessageType::Inform,
        ) => Err(NoReply::NotForAProxy),
    }
}

/// Whether a client of this kind boots from an offer without an address. Other clients must not get one.
fn is_of_use(kind: ClientKind, answer: &Answer) -> bool {
    match (kind, answer) {
        (ClientKind::HttpClient | ClientKind::Ipxe, Answer::Boot(_))
        | (ClientKind::PxeClient | ClientKind::Ipxe, Answer::Tftp { .. }) => true,
        (_, Answer::Address | Answer::Nothing)
        | (ClientKind::HttpClient, Answer::Tftp { .. })
        | (ClientKind::PxeClient, Answer::Boot(_))
        | (
            ClientKind::Grub | ClientKind::Agent | ClientKind::Firmware | ClientKind::System,
            Answer::Boot(_) | Answer::Tftp { .. },
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::super::options as code;
    use super::super::packet::tests::discover;
    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const THEM: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn network() -> Network {
        Network::new(US, Ipv4Addr::new(255, 255, 255, 0), 3_600)
    }

    fn url() -> Answer {
        Answer::Boot("http://10.0.0.2:8080/boot/x/bootx64.efi".into())
    }

    fn file() -> Answer {
        Answer::Tftp { server: US, file: "snponly.efi".into() }
    }

    fn from(class: &[u8], message: MessageType) -> Packet {
        let options = vec![(code::VENDOR_CLASS, class.to_vec())];
        Packet { message, options, ..discover([2; 6]) }
    }

    fn from_ipxe(message: MessageType) -> Packet {
        let mut packet = from(b"PXEClient:Arch:00007:UNDI:003010", message);
        packet.options.push((code::USER_CLASS, b"iPXE".to_vec()));
        packet
    }

    #[test]
    fn http_firmware_gets_class_and_url_in_an_offer_without_an_address() {
        let request = from(b"HTTPClient:Arch:00016:UNDI:003000", MessageType::Discover);

        let offer = decide(&request, ProxyPort::Dhcp, &url(), &network()).unwrap();

        assert_eq!((offer.message, offer.yiaddr), (MessageType::Offer, Ipv4Addr::UNSPECIFIED));
        assert_eq!(offer.option(code::VENDOR_CLASS), Some(&b"HTTPClient"[..]));
        assert!(offer.option(code::BOOT_FILE).is_some());
        assert_eq!(offer.option_address(code::SERVER_ID), Some(US));
        assert_eq!(offer.option(code::LEASE_TIME), None);
        assert_eq!(offer.option(code::VENDOR_INFORMATION), None, "that is for PXE");
    }

    #[test]
    fn ipxe_gets_what_it_takes_from_a_proxy_without_asking_port_4011() {
        let offer =
            decide(&from_ipxe(MessageType::Discover), ProxyPort::Dhcp, &url(), &network()).unwrap();

        assert_eq!(offer.option(code::VENDOR_CLASS), Some(&b"PXEClient"[..]));
        assert_eq!(offer.siaddr, US);
        assert!(offer.option(code::BOOT_FILE).is_some());
        assert_eq!(offer.option(code::IPXE), None, "it must not be told to look past proxies");
    }

    #[test]
    fn pxe_firmware_gets_a_file_but_no_url_it_could_not_fetch() {
        let request = from(b"PXEClient:Arch:00007:UNDI:003000", MessageType::Discover);

        let offer = decide(&request, ProxyPort::Dhcp, &file(), &network()).unwrap();
        let silent = decide(&request, ProxyPort::Dhcp, &url(), &network());

        assert_eq!(offer.option(code::VENDOR_INFORMATION), Some(&[6, 1, 8, 255][..]));
        assert_eq!((offer.siaddr, &offer.file[..]), (US, &b"snponly.efi"[..]));
        assert_eq!(silent, Err(NoReply::NothingToBoot));
    }

    #[test]
    fn who_asks_on_port_4011_is_told_again_if_he_means_us() {
        let asks = |message, server: Option<Ipv4Addr>| {
            let mut request = from_ipxe(message);
            request.ciaddr = Ipv4Addr::new(10, 0, 0, 50);
            let server = server.map(|server| (code::SERVER_ID, server.octets().to_vec()));
            request.options.extend(server);
            decide(&request, ProxyPort::Pxe, &url(), &network())
                .map(|ack| (ack.message, ack.ciaddr))
        };
        let ack = Ok((MessageType::Ack, Ipv4Addr::new(10, 0, 0, 50)));

        assert_eq!(asks(MessageType::Request, Some(US)), ack);
        assert_eq!(asks(MessageType::Inform, None), ack);
        assert_eq!(asks(MessageType::Request, Some(THEM)), Err(NoReply::OtherServer(THEM)));
    }

    #[test]
    fn systems_hear_nothing_from_a_proxy() {
        let request = from(b"dhcpcd-9.4.1", MessageType::Discover);

        assert_eq!(
            decide(&request, ProxyPort::Dhcp, &url(), &network()),
            Err(NoReply::NothingToBoot)
        );
    }

    #[test]
    fn what_is_said_about_addresses_is_left_to_the_server_that_gives_them() {
        for message in [MessageType::Request, MessageType::Decline, MessageType::Release] {
            let mut request = from(b"HTTPClient", message);
            request.options.push((code::SERVER_ID, THEM.octets().to_vec()));

            let said = decide(&request, ProxyPort::Dhcp, &url(), &network());

            assert_eq!(said, Err(NoReply::NotForAProxy));
        }
    }

    proptest! {
        #[test]
        fn a_proxy_never_gives_an_address(
            kind in 0..8_usize, class in "(HTTPClient|PXEClient|GRUB|x)", ipxe: bool, pxe: bool,
            file_instead: bool, wanted: u32,
        ) {
            let message = MessageType::ALL[kind];
            let mut request =
                if ipxe { from_ipxe(message) } else { from(class.as_bytes(), message) };
            request.options.push((code::REQUESTED_ADDRESS, wanted.to_be_bytes().to_vec()));
            let port = if pxe { ProxyPort::Pxe } else { ProxyPort::Dhcp };
            let answer = if file_instead { file() } else { url() };

            if let Ok(reply) = decide(&request, port, &answer, &network()) {
                prop_assert!(reply.yiaddr.is_unspecified());
                prop_assert_eq!(reply.option(code::LEASE_TIME), None);
                prop_assert_eq!(reply.message == MessageType::Offer, port == ProxyPort::Dhcp);
            }
        }
    }
}
