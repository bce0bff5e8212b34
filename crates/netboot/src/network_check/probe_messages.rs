//! The messages of a probe for other DHCP servers: requests like those of machines that are switched on, and the
//! answers to them.

use std::net::{IpAddr, Ipv4Addr};

use dhcp::firmware;
use dhcp::v4::{MessageType, Packet, options};
use dhcp::v6::options as options6;
use dhcp::v6::packet as packet6;
use hardware::architecture::{X64_HTTP, X64_PXE};
use hardware::{ClientArchitecture, ClientKind, Mac};

use super::dhcp_servers::{ProbeClient, SeenOffer, SeenServer6};
use crate::dry_run::sample_requests::SampleRequest;

/// The clients, in the order of [`ProbeClient`].
const CLIENTS: [(ProbeClient, ClientKind, ClientArchitecture); 3] = [
    (ProbeClient::Http, ClientKind::HttpClient, X64_HTTP),
    (ProbeClient::Pxe, ClientKind::PxeClient, X64_PXE[0]),
    (ProbeClient::Ipxe, ClientKind::Ipxe, X64_PXE[0]),
];

/// The transaction ID (RFC 2131 §2) identifies the answered request.
const TRANSACTION: [u8; 3] = [0xfe, 0x88, 0xb0];

/// The DHCPv4 requests of HTTP boot firmware, PXE firmware and iPXE of each machine.
#[must_use]
pub fn requests4(machines: &[Mac]) -> Vec<Vec<u8>> {
    machines.iter().flat_map(|mac| CLIENTS.map(|(to, _, _)| request4(*mac, to))).collect()
}

fn request4(mac: Mac, to: ProbeClient) -> Vec<u8> {
    let (_, client, architecture) = CLIENTS[to as usize];
    let request = SampleRequest { mac, client, architecture: Some(architecture) };
    let mut bytes = request.v4();
    bytes[4..7].copy_from_slice(&TRANSACTION);
    bytes[7] = to as u8;
    bytes
}

/// The offer in a message, if it answers one of the [`requests4`] of `machines`.
#[must_use]
pub fn offer(machines: &[Mac], bytes: &[u8], from: IpAddr) -> Option<SeenOffer> {
    let reply = Packet::parse(bytes).ok()?;
    if reply.message != MessageType::Offer || !machines.contains(&reply.chaddr) {
        return None;
    }
    let [a, b, c, last] = reply.xid.to_be_bytes();
    let (to, _, _) = CLIENTS.get(usize::from(last)).filter(|_| [a, b, c] == TRANSACTION)?;
    let from = if let IpAddr::V4(from) = from { from } else { Ipv4Addr::UNSPECIFIED };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let file = reply.option(options::BOOT_FILE).unwrap_or(&reply.file);
    Some(SeenOffer {
        server: reply.option_address(options::SERVER_ID).unwrap_or(from),
        to: *to,
        address: Some(reply.yiaddr).filter(|address| !address.is_unspecified()),
        file: Some(text(file)).filter(|file| !file.is_empty()),
    })
}

/// The DHCPv6 request of HTTP boot firmware of each machine.
#[must_use]
pub fn requests6(machines: &[Mac]) -> Vec<Vec<u8>> {
    let (client, architecture) = (ClientKind::HttpClient, Some(X64_HTTP));
    let request = |mac: &Mac| SampleRequest { mac: *mac, client, architecture }.v6();
    machines.iter().map(request).collect()
}

/// The server that sent a message, if it answers one of these [`requests6`].
#[must_use]
pub fn server6(requests: &[Vec<u8>], bytes: &[u8], address: IpAddr) -> Option<SeenServer6> {
    requests.iter().find_map(|request| answer6(request, bytes, address))
}

fn answer6(request: &[u8], bytes: &[u8], address: IpAddr) -> Option<SeenServer6> {
    let message = packet6::Packet::parse(bytes).ok()?.message;
    if message.kind != packet6::MessageType::Advertise || bytes.get(1..4) != request.get(1..4) {
        return None;
    }
    let options = &message.options;
    let client = packet6::Packet::parse(request).ok()?.message.options;
    if options.get(options6::CLIENT_ID) != client.get(options6::CLIENT_ID) {
        return None;
    }
    let url = options.get(options6::BOOT_FILE_URL);
    let preference = options.get(options6::PREFERENCE).and_then(|it| it.first());
    Some(SeenServer6 {
        address,
        duid: options.get(options6::SERVER_ID).unwrap_or_default().to_vec(),
        is_taken: firmware::v6::take_advertise(request, bytes).is_ok(),
        gives: message.ias().find_map(|ia| ia.addresses.first().copied()),
        preference: preference.copied().unwrap_or(0),
        url: url.map(|url| String::from_utf8_lossy(url).into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use dhcp::client::Client;
    use dhcp::v6::packet::{Message, Options};

    use super::*;

    const MAC: Mac = Mac([2; 6]);
    const THEM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    #[test]
    fn each_kind_of_client_sends_a_request_and_its_offers_are_told_apart() {
        for (request, (to, kind, _)) in requests4(&[MAC]).iter().zip(CLIENTS) {
            let asked = Packet::parse(request).unwrap();
            let offered = Packet {
                message: MessageType::Offer,
                yiaddr: Ipv4Addr::new(192, 0, 2, 77),
                file: b"pxelinux.0\0\0".to_vec(),
                options: vec![(options::SERVER_ID, THEM.octets().to_vec())],
                ..asked.clone()
            };
            let seen = |machines: &[Mac], offered: &Packet| {
                offer(machines, &offered.emit(), [192, 0, 2, 3].into())
            };

            let found = seen(&[MAC], &offered).unwrap();

            assert_eq!(Client::identify(&asked).kind, kind);
            assert_eq!((found.server, found.to), (THEM, to));
            assert_eq!(found.file.as_deref(), Some("pxelinux.0"));
            assert_eq!(seen(&[Mac([3; 6])], &offered), None, "another machine's");
            assert_eq!(seen(&[MAC], &Packet { xid: 7, ..offered }), None);
        }
    }

    #[test]
    fn what_a_dhcpv6_server_would_do_to_firmware_is_read_from_its_answer() {
        let requests = requests6(&[MAC]);
        let client = packet6::Packet::parse(&requests[0]).unwrap().message.options;
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let inner = [&[0, 5, 0, 24][..], &address.octets(), &[0, 0, 14, 16, 0, 0, 14, 16]].concat();
        let answer = |ia: &[u8], transaction| {
            let options = Options(vec![
                (options6::CLIENT_ID, client.get(options6::CLIENT_ID).unwrap().to_vec()),
                (options6::SERVER_ID, vec![0, 3, 0, 1, 9]),
                (options6::IA_NA, [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], ia].concat()),
                (options6::PREFERENCE, vec![255]),
            ]);
            let kind = packet6::MessageType::Advertise;
            let message = Message { kind, transaction, options };
            packet6::Packet { relays: Vec::new(), message }.emit()
        };
        let from = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 2]);
        // NoAddrsAvail (RFC 8415 §21.13), inside the association.
        let none_left = [0, 13, 0, 2, 0, 2];

        let gives = server6(&requests, &answer(&inner, [0, 0, 1]), from).unwrap();
        let empty = server6(&requests, &answer(&[], [0, 0, 1]), from).unwrap();
        let refuses = server6(&requests, &answer(&none_left, [0, 0, 1]), from).unwrap();

        assert_eq!((gives.gives, gives.preference, gives.is_taken), (Some(address), 255, true));
        assert_eq!((empty.gives, empty.is_taken), (None, true));
        assert!(!refuses.is_taken);
        assert_eq!(server6(&requests, &answer(&inner, [9, 9, 9]), from), None);
        let another = requests6(&[Mac([3; 6])]);
        assert_eq!(server6(&another, &answer(&inner, [0, 0, 1]), from), None, "it asked another");
    }
}
