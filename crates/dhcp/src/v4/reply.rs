//! What goes into a reply, and in which order: firmware is particular about both.

use std::net::Ipv4Addr;

use super::options as code;
use super::packet::{MessageType, Op, Packet};
use crate::answer::Answer;
use crate::client::{Client, Kind};

/// How long a name can be in `file`, with a NUL after it (RFC 2131 §2).
const LONGEST_FILE: usize = 127;
/// `PXE_DISCOVERY_CONTROL`: fetch the file that is named here, without looking for boot servers
/// (Preboot Execution Environment 2.1, table 2-1); then the end.
const TAKE_THE_FILE_NAMED: [u8; 4] = [6, 1, 8, 255];

/// What we are on the network of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Our own address there.
    pub server: Ipv4Addr,
    /// Its mask.
    pub mask: Ipv4Addr,
    /// Its router, if it has one.
    pub router: Option<Ipv4Addr>,
    /// Its name servers.
    pub dns: Vec<Ipv4Addr>,
    /// How long a lease is, in seconds.
    pub lease_secs: u32,
}

/// Which address a reply gives, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// An address of ours, with its lease time.
    Lease(Ipv4Addr),
    /// The client has an address of its own (INFORM).
    OwnAddress,
}

/// An OFFER or ACK.
///
/// Both carry everything: EDK2 reads URL and class from the OFFER and never looks at the ACK
/// (`HttpBootDhcp4.c`), other clients the other way round.
#[must_use]
pub fn reply(
    request: &Packet,
    message: MessageType,
    grant: Grant,
    answer: &Answer,
    network: &Network,
) -> Packet {
    let client = Client::identify(request);
    let mut reply = empty_reply(request, message);
    let mut put = |code, value: Vec<u8>| reply.options.push((code, value));
    put(code::SERVER_ID, network.server.octets().to_vec());
    match grant {
        Grant::Lease(address) => {
            reply.yiaddr = address;
            put_lease_times(&mut put, network.lease_secs);
        }
        Grant::OwnAddress => {}
    }
    // EDK2 gives up on an offer without a mask.
    put(code::SUBNET_MASK, network.mask.octets().to_vec());
    if let Some(router) = network.router {
        put(code::ROUTER, router.octets().to_vec());
    }
    if !network.dns.is_empty() && !needs_no_names(client.kind, answer) {
        put(code::DNS, network.dns.iter().flat_map(|server| server.octets()).collect());
    }
    echo(request, &mut put);
    match answer {
        Answer::Boot(url) => put_url(client.kind, url, &mut put),
        Answer::Tftp { server, file } => {
            put_tftp(client.kind, *server, file, &mut put);
            reply.siaddr = *server;
            // Loaders in ROMs read it here only. What does not fit is in option 67.
            reply.file = if file.len() <= LONGEST_FILE { file.clone().into() } else { Vec::new() };
        }
        Answer::Address | Answer::Nothing => {}
    }
    echo_relay_agent(request, &mut |code, value| reply.options.push((code, value)));
    reply
}

/// Firmware that was told a name server notes it in the device path of what it starts
/// (`HttpBootUpdateDevicePath`), and GRUB 2.06 cannot read that path (`efinet.c`). So it is told of one
/// only where its URL has a name to look up.
fn needs_no_names(kind: Kind, answer: &Answer) -> bool {
    let host = |url: &str| {
        let rest = url.split_once("://")?.1;
        rest.split(['/', ':']).next()?.parse::<Ipv4Addr>().ok()
    };
    match answer {
        Answer::Boot(url) => kind == Kind::HttpClient && host(url).is_some(),
        Answer::Tftp { .. } | Answer::Address | Answer::Nothing => false,
    }
}

/// A NAK: the client must start over.
#[must_use]
pub fn nak(request: &Packet, because: &str, network: &Network) -> Packet {
    let mut nak = empty_reply(request, MessageType::Nak);
    // RFC 2131 §4.3.2: a relay must broadcast it, since the client's address is wrong.
    nak.broadcast = true;
    nak.ciaddr = Ipv4Addr::UNSPECIFIED;
    let mut put = |code, value| nak.options.push((code, value));
    put(code::SERVER_ID, network.server.octets().to_vec());
    put(code::MESSAGE, because.as_bytes().to_vec());
    echo_client_id(request, &mut put);
    echo_relay_agent(request, &mut put);
    nak
}

fn empty_reply(request: &Packet, message: MessageType) -> Packet {
    Packet {
        op: Op::Reply,
        hops: 0,
        xid: request.xid,
        secs: 0,
        broadcast: request.broadcast,
        // RFC 2131 table 3: an OFFER has none, an ACK the client's.
        ciaddr: if message == MessageType::Ack { request.ciaddr } else { Ipv4Addr::UNSPECIFIED },
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: request.giaddr,
        chaddr: request.chaddr,
        file: Vec::new(),
        message,
        options: Vec::new(),
    }
}

/// RFC 2131 §4.4.5: T1 at half, T2 at seven eighths.
fn put_lease_times(put: &mut impl FnMut(u8, Vec<u8>), secs: u32) {
    put(code::LEASE_TIME, secs.to_be_bytes().to_vec());
    put(code::RENEWAL, (secs / 2).to_be_bytes().to_vec());
    put(code::REBINDING, (secs / 8 * 7).to_be_bytes().to_vec());
}

fn put_url(kind: Kind, url: &str, put: &mut impl FnMut(u8, Vec<u8>)) {
    if kind == Kind::HttpClient {
        // EDK2 takes an offer as HTTP only if option 60 comes back starting `HTTPClient`. Without
        // a URL such an offer is none at all to it (`HttpBootParseDhcp4Packet`), and firmware that
        // has its URL from the BMC would be left without an address.
        put(code::VENDOR_CLASS, b"HTTPClient".to_vec());
    }
    // EDK2 writes a NUL one byte past the URL if it has none (`HttpBootDhcp4.c`), and so over
    // the code of the next option.
    put(code::BOOT_FILE, [url.as_bytes(), &[0]].concat());
}

fn put_tftp(kind: Kind, server: Ipv4Addr, file: &str, put: &mut impl FnMut(u8, Vec<u8>)) {
    if kind == Kind::PxeClient {
        put(code::VENDOR_CLASS, b"PXEClient".to_vec());
        // With the class alone, PXE firmware would go on to ask boot servers on port 4011, and
        // wait for them in vain.
        put(code::VENDOR_INFORMATION, TAKE_THE_FILE_NAMED.to_vec());
    }
    put(code::TFTP_SERVER, server.to_string().into_bytes());
    put(code::BOOT_FILE, [file.as_bytes(), &[0]].concat());
}

fn echo(request: &Packet, put: &mut impl FnMut(u8, Vec<u8>)) {
    // RFC 4578 §2.3: the server returns it.
    if let Some(id) = request.option(code::MACHINE_ID) {
        put(code::MACHINE_ID, id.to_vec());
    }
    echo_client_id(request, put);
}

/// RFC 6842 §3.
fn echo_client_id(request: &Packet, put: &mut impl FnMut(u8, Vec<u8>)) {
    if let Some(id) = request.option(code::CLIENT_ID) {
        put(code::CLIENT_ID, id.to_vec());
    }
}

/// RFC 3046 §2.2: byte for byte, and last.
fn echo_relay_agent(request: &Packet, put: &mut impl FnMut(u8, Vec<u8>)) {
    if let Some(agent) = request.option(code::RELAY_AGENT) {
        put(code::RELAY_AGENT, agent.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::LARGEST;
    use super::super::packet::tests::discover;
    use super::*;

    pub(crate) fn network() -> Network {
        Network {
            server: Ipv4Addr::new(10, 0, 0, 1),
            mask: Ipv4Addr::new(255, 255, 255, 0),
            router: None,
            dns: Vec::new(),
            lease_secs: 3_600,
        }
    }

    fn offer(class: &str) -> Packet {
        let mut request = discover([2; 6]);
        request.options.push((code::VENDOR_CLASS, class.into()));
        request.options.push((code::CLIENT_ID, vec![1; 255]));
        request.options.push((code::MACHINE_ID, vec![0; 17]));
        request.options.push((code::RELAY_AGENT, vec![9; 255]));
        let grant = Grant::Lease(Ipv4Addr::new(10, 0, 0, 9));
        let url = format!("http://10.0.0.1/{}", "x".repeat(230));
        reply(&request, MessageType::Offer, grant, &Answer::Boot(url), &network())
    }

    #[test]
    fn only_a_client_that_says_http_client_hears_it_back() {
        let class = |offer: &Packet| offer.option(code::VENDOR_CLASS).map(<[u8]>::to_vec);

        assert_eq!(class(&offer("HTTPClient:Arch:00016")), Some(b"HTTPClient".to_vec()));
        assert_eq!(class(&offer("PXEClient:Arch:00007")), None);
        assert_eq!(class(&offer("dhcpcd")), None);
    }

    #[test]
    fn an_address_alone_is_no_http_offer_so_that_firmware_with_a_url_from_its_bmc_takes_it() {
        let mut request = discover([2; 6]);
        request.options.push((code::VENDOR_CLASS, b"HTTPClient:Arch:00016".to_vec()));
        let grant = Grant::Lease(Ipv4Addr::new(10, 0, 0, 9));

        let offer = reply(&request, MessageType::Offer, grant, &Answer::Address, &network());

        assert_eq!(offer.option(code::VENDOR_CLASS), None);
    }

    fn offer_of_a_file(class: &str, file: &str) -> Packet {
        let mut request = discover([2; 6]);
        request.options.push((code::VENDOR_CLASS, class.into()));
        let grant = Grant::Lease(Ipv4Addr::new(10, 0, 0, 9));
        let server = Ipv4Addr::new(10, 0, 0, 1);
        let answer = Answer::Tftp { server, file: file.to_owned() };
        reply(&request, MessageType::Offer, grant, &answer, &network())
    }

    #[test]
    fn pxe_firmware_is_told_to_fetch_its_file_without_asking_port_4011() {
        let offer = offer_of_a_file("PXEClient:Arch:00007", "snponly.efi");

        assert_eq!(offer.option(code::VENDOR_CLASS), Some(&b"PXEClient"[..]));
        assert_eq!(offer.option(code::VENDOR_INFORMATION), Some(&[6, 1, 8, 255][..]));
        assert_eq!(offer.option(code::TFTP_SERVER), Some(&b"10.0.0.1"[..]));
        assert_eq!(offer.option(code::BOOT_FILE), Some(&b"snponly.efi\0"[..]));
        assert_eq!((offer.siaddr, &offer.file[..]), (network().server, &b"snponly.efi"[..]));
    }

    #[test]
    fn a_file_name_too_long_for_its_field_is_in_the_option_alone() {
        let offer = offer_of_a_file("PXEClient", &"x".repeat(128));

        assert!(offer.file.is_empty());
        assert_eq!(offer.option(code::BOOT_FILE).unwrap().len(), 129);
    }

    #[test]
    fn an_http_client_never_hears_that_it_is_a_pxe_client() {
        let offer = offer_of_a_file("HTTPClient:Arch:00016", "snponly.efi");

        assert_eq!(offer.option(code::VENDOR_CLASS), None);
        assert_eq!(offer.option(code::VENDOR_INFORMATION), None);
    }

    #[test]
    fn the_url_ends_with_a_nul_that_firmware_would_else_write_over_the_next_option() {
        assert_eq!(offer("HTTPClient").option(code::BOOT_FILE).unwrap().last(), Some(&0));
    }

    #[test]
    fn firmware_hears_of_name_servers_only_if_its_url_has_a_name() {
        let network = Network { dns: vec![Ipv4Addr::new(10, 0, 0, 53)], ..network() };
        let names = |class: &[u8], url: Option<&str>| {
            let answer = url.map_or(Answer::Address, |url| Answer::Boot(url.to_owned()));
            let mut request = discover([2; 6]);
            request.options.push((code::VENDOR_CLASS, class.to_vec()));
            let grant = Grant::Lease(Ipv4Addr::new(10, 0, 0, 9));
            let offer = reply(&request, MessageType::Offer, grant, &answer, &network);
            offer.option(code::DNS).is_some()
        };

        assert!(!names(b"HTTPClient:Arch:00016", Some("http://10.0.0.1:8080/x")));
        assert!(names(b"HTTPClient:Arch:00016", Some("http://boot.example/x")));
        assert!(names(b"HTTPClient:Arch:00016", None));
        assert!(names(b"dhcpcd", Some("http://10.0.0.1/x")));
    }

    #[test]
    fn the_relays_option_comes_last_and_unchanged() {
        assert_eq!(offer("HTTPClient").options.last(), Some(&(code::RELAY_AGENT, vec![9; 255])));
    }

    #[test]
    fn the_longest_reply_is_one_that_firmware_takes() {
        assert!(offer("HTTPClient").emit().len() <= LARGEST);
    }

    #[test]
    fn every_option_has_the_size_that_firmware_insists_on() {
        let offer = offer("HTTPClient");
        for four in
            [code::SERVER_ID, code::LEASE_TIME, code::RENEWAL, code::REBINDING, code::SUBNET_MASK]
        {
            assert_eq!(offer.option(four).map(<[u8]>::len), Some(4), "option {four}");
        }
        assert!(offer.options.iter().all(|(_, value)| !value.is_empty()));
    }
}
