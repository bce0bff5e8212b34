//! The first message of each kind of client, as captured from real clients.

use std::fmt;
use std::net::Ipv4Addr;

use dhcp::client::AGENT_USER_CLASS;
use dhcp::firmware;
use dhcp::v4::options as code4;
use dhcp::v4::packet::{Hardware, MessageType, Op, Packet};
use dhcp::v6::options as code6;
use dhcp::v6::packet::{self as packet6, Message, Options};
use hardware::{ClientArchitecture, ClientKind, Mac};

use crate::v4::V4Reply;
use crate::v6::V6Reply;

/// The first message of one client.
#[derive(Clone, Debug)]
pub struct SampleRequest {
    /// The MAC address of its network card.
    pub mac: Mac,
    /// The kind of client.
    pub client: ClientKind,
    /// The architecture in the message.
    pub architecture: Option<ClientArchitecture>,
}

/// One sample of each kind of client that boots or runs, with firmware of `architecture`.
#[must_use]
pub fn all(mac: Mac, architecture: ClientArchitecture) -> Vec<SampleRequest> {
    let ask = |client, architecture| SampleRequest { mac, client, architecture };
    vec![
        ask(ClientKind::HttpClient, Some(architecture)),
        ask(ClientKind::PxeClient, Some(by_tftp(architecture))),
        ask(ClientKind::Ipxe, Some(by_tftp(architecture))),
        ask(ClientKind::Grub, None),
        ask(ClientKind::Firmware, None),
        ask(ClientKind::Agent, None),
        ask(ClientKind::System, None),
    ]
}

/// A message over IPv4 of a client that has no address yet.
#[must_use]
pub fn message4(mac: Mac, message: MessageType, options: Vec<(u8, Vec<u8>)>) -> Packet {
    Packet {
        op: Op::Request,
        hardware: Hardware::ETHERNET,
        hops: 0,
        xid: 1,
        secs: 0,
        broadcast: true,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: Ipv4Addr::UNSPECIFIED,
        chaddr: mac,
        file: Vec::new(),
        message,
        options,
    }
}

impl SampleRequest {
    /// Whether this kind of client uses IPv4.
    #[must_use]
    pub fn is_of_v4(&self) -> bool {
        self.client != ClientKind::Firmware
    }

    /// The sample as a DISCOVER.
    #[must_use]
    pub fn v4(&self) -> Vec<u8> {
        let mut options = vec![
            (code4::MAX_SIZE, 1_472_u16.to_be_bytes().to_vec()),
            (
                code4::PARAMETER_LIST,
                vec![1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 43, 54, 58, 59, 60, 67, 97, 121],
            ),
        ];
        if let Some(architecture) = self.architecture {
            options.push((code4::INTERFACE, vec![1, 3, 0]));
            options.push((code4::ARCHITECTURE, architecture.0.to_be_bytes().to_vec()));
        }
        options.extend(self.vendor_class().map(|class| (code4::VENDOR_CLASS, class.into_bytes())));
        options.extend(self.user_class().map(|class| (code4::USER_CLASS, class.to_vec())));
        message4(self.mac, MessageType::Discover, options).emit()
    }

    /// The sample as a SOLICIT.
    #[must_use]
    pub fn v6(&self) -> Vec<u8> {
        let (client_id, wanted) = match self.client {
            // A DUID-UUID (RFC 6355); only the card's MAC address identifies the machine.
            ClientKind::Firmware => {
                ([&[0, 4][..], &[0; 10], &self.mac.0].concat(), &[code6::DNS][..])
            }
            ClientKind::HttpClient
            | ClientKind::PxeClient
            | ClientKind::Ipxe
            | ClientKind::Grub
            | ClientKind::Agent
            | ClientKind::System => {
                // DUID-LL (RFC 8415 §11.4).
                ([&[0, 3, 0, 1][..], &self.mac.0].concat(), &[59, 60, code6::DNS, 16][..])
            }
        };
        let wanted: Vec<_> = wanted.iter().flat_map(|code| code.to_be_bytes()).collect();
        let mut options = vec![
            (code6::CLIENT_ID, client_id),
            (code6::IA_NA, [[0, 0, 0, 1], [0xff; 4], [0xff; 4]].concat()),
            (code6::OPTION_REQUEST, wanted),
        ];
        if let Some(architecture) = self.architecture {
            options.push((code6::INTERFACE, vec![1, 3, 0]));
            options.push((code6::ARCHITECTURE, architecture.0.to_be_bytes().to_vec()));
        }
        let sized = |text: &[u8]| {
            let len = u16::try_from(text.len()).unwrap_or_default();
            [&len.to_be_bytes(), text].concat()
        };
        options.extend(self.vendor_class().map(|class| {
            let enterprise = 343_u32.to_be_bytes();
            (code6::VENDOR_CLASS, [&enterprise[..], &sized(class.as_bytes())].concat())
        }));
        options.extend(self.user_class().map(|class| (code6::USER_CLASS, sized(class))));
        let message = Message {
            kind: packet6::MessageType::Solicit,
            transaction: [0, 0, 1],
            options: Options(options),
        };
        packet6::Packet { relays: Vec::new(), message }.emit()
    }

    /// The firmware's reaction to the reply to [`v4`](Self::v4); `None` for other clients.
    #[must_use]
    pub fn verdict4(&self, request: &[u8], reply: Option<&V4Reply>) -> Option<String> {
        let reply = reply.filter(|_| self.client == ClientKind::HttpClient)?;
        Some(firmware::v4::verdict(request, &reply.reply.emit()).to_string())
    }

    /// The firmware's reaction to the reply to [`v6`](Self::v6).
    #[must_use]
    pub fn verdict6(&self, request: &[u8], reply: Option<&V6Reply>) -> Option<String> {
        let reply = reply.filter(|_| self.client == ClientKind::HttpClient)?;
        let verdict = firmware::v6::verdict(request, &reply.bytes).to_string();
        Some(match firmware::v6::waits_after(&reply.bytes) {
            true => {
                format!("{verdict}, about four seconds later, since it waits for other servers")
            }
            false => verdict,
        })
    }

    fn vendor_class(&self) -> Option<String> {
        let class = match self.client {
            ClientKind::HttpClient => "HTTPClient",
            // iPXE sends the vendor class of the firmware that started it.
            ClientKind::PxeClient | ClientKind::Ipxe => "PXEClient",
            ClientKind::Grub => return Some("GRUB".to_owned()),
            ClientKind::Agent | ClientKind::Firmware | ClientKind::System => return None,
        };
        let architecture = self.architecture?.0;
        Some(format!("{class}:Arch:{architecture:05}:UNDI:003000"))
    }

    fn user_class(&self) -> Option<&'static [u8]> {
        match self.client {
            ClientKind::Ipxe => Some(b"iPXE"),
            ClientKind::Agent => Some(AGENT_USER_CLASS),
            ClientKind::HttpClient
            | ClientKind::PxeClient
            | ClientKind::Grub
            | ClientKind::Firmware
            | ClientKind::System => None,
        }
    }
}

impl fmt::Display for SampleRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.client)?;
        match self.architecture {
            Some(architecture) => write!(f, ", {}", architecture),
            None => Ok(()),
        }
    }
}

/// The server identifier in an IPv4 message.
#[must_use]
pub fn server4(message: &[u8]) -> Option<Ipv4Addr> {
    Packet::parse(message).ok()?.option_address(code4::SERVER_ID)
}

/// The server identifier (DUID) in an IPv6 message.
#[must_use]
pub fn server6(message: &[u8]) -> Option<Vec<u8>> {
    let packet = packet6::Packet::parse_request(message).ok()?;
    packet.message.options.get(code6::SERVER_ID).map(<[u8]>::to_vec)
}

/// The architecture of the same machine's firmware when it boots over TFTP.
fn by_tftp(architecture: ClientArchitecture) -> ClientArchitecture {
    match architecture.0 {
        0x0f => ClientArchitecture(0x06),
        0x10 => ClientArchitecture(0x07),
        0x12 => ClientArchitecture(0x0a),
        0x13 => ClientArchitecture(0x0b),
        0x1a => ClientArchitecture(0x19),
        0x1c => ClientArchitecture(0x1b),
        0x26 => ClientArchitecture(0x25),
        0x28 => ClientArchitecture(0x27),
        _ => architecture,
    }
}

#[cfg(test)]
mod tests {
    use dhcp::client::Client;
    use dhcp::v6;
    use hardware::architecture::X64_HTTP;

    use super::*;
    use crate::interface_addresses::link_local_of;

    #[test]
    fn each_sample_request_is_taken_for_one_of_the_client_that_it_is_of() {
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        let mut asked = Vec::new();
        for sample in all(mac, X64_HTTP) {
            if sample.is_of_v4() {
                let client = Client::identify(&Packet::parse(&sample.v4()).unwrap());
                assert_eq!(client.kind, sample.client, "over IPv4");
            }
            let packet = packet6::Packet::parse_request(&sample.v6()).unwrap();
            let client = v6::client_identity::Client::identify(&packet, link_local_of(mac));
            assert_eq!(client.kind, sample.client, "over IPv6");
            asked.push(sample.client);
        }
        for kind in [
            ClientKind::HttpClient,
            ClientKind::PxeClient,
            ClientKind::Ipxe,
            ClientKind::Grub,
            ClientKind::Agent,
            ClientKind::Firmware,
            ClientKind::System,
        ] {
            assert!(asked.contains(&kind), "{kind} is in the book's table");
        }
    }
}
