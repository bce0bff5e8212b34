//! The options of a reply and their order: firmware depends on both.

use std::net::Ipv4Addr;
use std::sync::Arc;

use hardware::ClientKind;
use ipnet::Ipv4Net;

use super::options as code;
use super::packet::{LARGEST, MessageType, Op, Packet};
use super::relay;
use crate::answer::Answer;
use crate::client::kind_of;
use crate::leases::LeasePool;

/// The datagram size that every client accepts, in bytes (RFC 2131 §2), and the size of its headers.
const LEAST_DATAGRAM: u16 = 576;
const IP_AND_UDP: usize = 28;
/// Options that may be left out of a reply that is too large, the least important first. A client computes the times
/// itself, few clients need the echoed options, and names matter less than routes. Server identifier, lease time,
/// mask, class, boot file and the relay's option are never left out.
const FIRST_LEFT_OUT: [u8; 12] = [
    code::NTP,
    code::DOMAIN,
    code::RENEWAL,
    code::REBINDING,
    code::MACHINE_ID,
    code::IPXE,
    code::CLIENT_ID,
    code::TFTP_SERVER,
    code::MTU,
    code::DNS,
    code::CLASSLESS_ROUTES,
    code::ROUTER,
];
/// Longest name in `file`, in bytes, without its NUL (RFC 2131 §2).
const LONGEST_FILE: usize = 127;
/// `no-pxedhcp`: iPXE need not wait two seconds for a ProxyDHCP server (`DHCP_EB_NO_PXEDHCP`, `dhcp.h`).
const NO_PROXY: [u8; 3] = [176, 1, 1];
/// `PXE_DISCOVERY_CONTROL`: fetch the named file without a search for boot servers (Preboot Execution Environment
/// 2.1, table 2-1); then the end option.
const TAKE_THE_FILE_NAMED: [u8; 4] = [6, 1, 8, 255];

/// The settings of a client's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The server's address on this network.
    pub server: Ipv4Addr,
    /// Its mask.
    pub mask: Ipv4Addr,
    /// Its router, if it has one.
    pub router: Option<Ipv4Addr>,
    /// Further routes, for clients that request them (RFC 3442).
    pub routes: Vec<Route>,
    /// Its name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The DNS search domain.
    pub domain: Option<String>,
    /// Its time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// The MTU in bytes, if it is not 1500.
    pub mtu: Option<u16>,
    /// The lease time in seconds.
    pub lease_secs: u32,
    /// Whether this is the only server on the network. Then no other server knows an unknown client, and a NAK is
    /// allowed.
    pub sole: bool,
    /// The other links that this server serves. A client with an address of one of them has moved.
    pub others: Vec<Ipv4Net>,
    /// The pools of other daemons on the same database. Each daemon answers for the addresses of its own pools.
    pub foreign_pools: Arc<[LeasePool<Ipv4Addr>]>,
}

/// A route to another network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub to: Ipv4Net,
    /// The router.
    pub via: Ipv4Addr,
}

/// The shortest lease, in seconds.
const SHORTEST_LEASE: u32 = 60;

/// The longest URL for HTTP boot firmware, in bytes. EDK2 keeps an option's length in one byte, even if the option
/// was split (`EFI_DHCP4_PACKET_OPTION`), and ours ends with a zero byte.
pub const LONGEST_URL: usize = 254;

impl Network {
    /// A network without router and services, and with no other server.
    #[must_use]
    pub fn new(server: Ipv4Addr, mask: Ipv4Addr, lease_secs: u32) -> Self {
        Self {
            server,
            mask,
            router: None,
            routes: Vec::new(),
            dns: Vec::new(),
            domain: None,
            ntp: Vec::new(),
            mtu: None,
            lease_secs,
            sole: true,
            others: Vec::new(),
            foreign_pools: Arc::default(),
        }
    }

    /// The lease time for the client in seconds: the requested time (option 51), but at most the network's lease
    /// time, and at least a minute, since shorter leases mean constant renewals.
    pub(super) fn secs_for(&self, request: &Packet) -> u32 {
        let asked = request.option_u32(code::LEASE_TIME).unwrap_or(u32::MAX);
        asked.max(SHORTEST_LEASE).min(self.lease_secs)
    }

    /// All routes, with the default route: a client that uses option 121 ignores option 3 (RFC 3442).
    fn all_routes(&self) -> impl Iterator<Item = Route> {
        let default = self.router.map(|via| Route { to: Ipv4Net::default(), via });
        let has_default = self.routes.iter().any(|route| route.to.prefix_len() == 0);
        let default = default.filter(|_| !has_default);
        self.routes.iter().copied().chain(default)
    }
}

/// The address in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// A leased address, with its lease time.
    Lease(Ipv4Addr),
    /// The client has its own address (INFORM).
    OwnAddress,
}

/// An OFFER or ACK.
///
/// Both messages carry everything: EDK2 reads URL and class from the OFFER and ignores the ACK (`HttpBootDhcp4.c`);
/// other clients do the opposite.
#[must_use]
pub fn reply(
    request: &Packet,
    message: MessageType,
    grant: Grant,
    answer: &Answer,
    network: &Network,
) -> Packet {
    let kind = kind_of(request);
    let mut reply = empty_reply(request, message);
    let mut put = |code, value: Vec<u8>| reply.options.push((code, value));
    put(code::SERVER_ID, relay::server_id(request, network.server).octets().to_vec());
    match grant {
        Grant::Lease(address) => {
            reply.yiaddr = address;
            put_lease_times(&mut put, network.secs_for(request));
        }
        Grant::OwnAddress => {}
    }
    // EDK2 rejects an offer without a mask.
    put(code::SUBNET_MASK, network.mask.octets().to_vec());
    put_ways(request, network, &mut put);
    if !network.dns.is_empty() && !needs_no_names(kind, answer) {
        put(code::DNS, octets(&network.dns));
    }
    put_what_was_asked_for(request, kind, network, &mut put);
    echo(request, &mut put);
    match answer {
        Answer::Boot(url) => {
            put_url(kind, url, &mut put);
            put_no_proxy(kind, &mut put);
        }
        Answer::Tftp { server, file } => {
            put_tftp(kind, *server, file, &mut put);
            put_no_proxy(kind, &mut put);
            (reply.siaddr, reply.file) = (*server, short(file));
        }
        Answer::Address | Answer::Nothing => {}
    }
    echo_relay_agent(request, &mut |code, value| reply.options.push((code, value)));
    fit(&mut reply, largest(request));
    // Option 3 comes last: if option 121 did not fit, the router is the only route.
    if takes_routes_instead(request, kind) && reply.option(code::CLASSLESS_ROUTES).is_some() {
        reply.options.retain(|(code, _)| *code != code::ROUTER);
    }
    reply
}

/// Whether a client gets option 121 instead of option 3 (RFC 3442, "DHCP Server Administrator Responsibilities"): it
/// requested both. Firmware reads only option 3, and its parameter request list has an uninitialised slot, which may
/// hold 121.
fn takes_routes_instead(request: &Packet, kind: ClientKind) -> bool {
    match kind {
        ClientKind::HttpClient | ClientKind::PxeClient | ClientKind::Firmware => false,
        ClientKind::Ipxe | ClientKind::Grub | ClientKind::Agent | ClientKind::System => {
            asks_for(request, code::CLASSLESS_ROUTES) && asks_for(request, code::ROUTER)
        }
    }
}

/// Adds the router, and the routes for clients that use them.
fn put_ways(request: &Packet, network: &Network, put: &mut impl FnMut(u8, Vec<u8>)) {
    if !network.routes.is_empty() && asks_for(request, code::CLASSLESS_ROUTES) {
        put(code::CLASSLESS_ROUTES, network.all_routes().flat_map(encoded).collect());
    }
    if let Some(router) = network.router {
        put(code::ROUTER, router.octets().to_vec());
    }
}

/// RFC 3442: prefix length, significant bytes of the destination, router.
fn encoded(route: Route) -> impl Iterator<Item = u8> {
    let width = route.to.prefix_len();
    let significant = usize::from(width.div_ceil(8));
    let destination = route.to.network().octets().into_iter().take(significant);
    std::iter::once(width).chain(destination).chain(route.via.octets())
}

/// Adds options that only operating systems use, on request.
fn put_what_was_asked_for(
    request: &Packet,
    kind: ClientKind,
    network: &Network,
    put: &mut impl FnMut(u8, Vec<u8>),
) {
    let asked = |code| asks_for(request, code);
    if let Some(domain) = network.domain.as_ref().filter(|domain| !domain.is_empty())
        && asked(code::DOMAIN)
    {
        put(code::DOMAIN, domain.clone().into_bytes());
    }
    if !network.ntp.is_empty() && asked(code::NTP) {
        put(code::NTP, octets(&network.ntp));
    }
    if let Some(mtu) = network.mtu.filter(|mtu| takes(kind, *mtu))
        && asked(code::MTU)
    {
        put(code::MTU, mtu.to_be_bytes().to_vec());
    }
}

/// Whether the client can use this MTU. Firmware drivers hang on packets larger than plain Ethernet's, and iPXE uses
/// these drivers.
fn takes(kind: ClientKind, mtu: u16) -> bool {
    match kind {
        ClientKind::HttpClient | ClientKind::PxeClient | ClientKind::Ipxe | ClientKind::Grub => {
            mtu <= 1_500
        }
        ClientKind::Agent | ClientKind::Firmware | ClientKind::System => true,
    }
}

/// Whether the client requests an option (option 55). Only the first entries count: EDK2 leaves a slot of its list
/// uninitialised, which may hold any code.
fn asks_for(request: &Packet, wanted: u8) -> bool {
    request.option(code::PARAMETER_LIST).is_some_and(|list| list.contains(&wanted))
}

fn octets(addresses: &[Ipv4Addr]) -> Vec<u8> {
    addresses.iter().flat_map(Ipv4Addr::octets).collect()
}

/// The largest message that the client accepts, in bytes (RFC 2132 §9.10). The option states the size of an IP
/// datagram (RFC 2131 §2), and every client accepts 576 bytes.
fn largest(request: &Packet) -> usize {
    let named: Option<[u8; 2]> = request.option(code::MAX_SIZE).and_then(|v| v.try_into().ok());
    let datagram = named.map_or(LEAST_DATAGRAM, u16::from_be_bytes).max(LEAST_DATAGRAM);
    (usize::from(datagram) - IP_AND_UDP).min(LARGEST)
}

/// Leaves out optional options until the reply fits. A reply that still does not fit is sent: most clients accept
/// more than they state.
fn fit(reply: &mut Packet, largest: usize) {
    for unimportant in FIRST_LEFT_OUT {
        if reply.len() <= largest {
            return;
        }
        reply.options.retain(|(code, _)| *code != unimportant);
    }
}

/// Whether the name servers are left out. Firmware with a name server adds it to the device path of the loader
/// (`HttpBootUpdateDevicePath`), and GRUB 2.06 cannot parse that path (`efinet.c`). So firmware gets a name server
/// only if its URL has a host name.
fn needs_no_names(kind: ClientKind, answer: &Answer) -> bool {
    let host = |url: &str| {
        let rest = url.split_once("://")?.1;
        rest.split(['/', ':']).next()?.parse::<Ipv4Addr>().ok()
    };
    match answer {
        Answer::Boot(url) => kind == ClientKind::HttpClient && host(url).is_some(),
        Answer::Tftp { .. } | Answer::Address | Answer::Nothing => false,
    }
}

/// An OFFER or ACK beside another server, which leases the address.
///
/// Only for clients that can use the answer: HTTP boot firmware takes a URL, iPXE either, PXE firmware a file.
#[must_use]
pub fn proxy_reply(
    request: &Packet,
    message: MessageType,
    answer: &Answer,
    network: &Network,
) -> Packet {
    let kind = kind_of(request);
    let mut reply = empty_reply(request, message);
    let mut put = |code, value: Vec<u8>| reply.options.push((code, value));
    put(code::SERVER_ID, relay::server_id(request, network.server).octets().to_vec());
    echo(request, &mut put);
    match answer {
        Answer::Boot(url) => {
            put_url(kind, url, &mut put);
            if kind == ClientKind::Ipxe {
                // iPXE takes a proxy's offer only with this class, and only with a next server counts it as complete,
                // without a request to port 4011 (`dhcp_has_pxeopts`, `dhcp.c`).
                put_pxe_class(&mut put);
                reply.siaddr = network.server;
            }
        }
        Answer::Tftp { server, file } => {
            put_tftp(kind, *server, file, &mut put);
            if kind == ClientKind::Ipxe {
                put_pxe_class(&mut put);
            }
            (reply.siaddr, reply.file) = (*server, short(file));
        }
        Answer::Address | Answer::Nothing => {}
    }
    echo_relay_agent(request, &mut |code, value| reply.options.push((code, value)));
    fit(&mut reply, largest(request));
    reply
}

/// A NAK: the client must start over.
#[must_use]
pub fn nak(request: &Packet, because: &str, network: &Network) -> Packet {
    let mut nak = empty_reply(request, MessageType::Nak);
    // RFC 2131 §4.3.2: a relay must broadcast the NAK, since the client's address is wrong.
    nak.broadcast = true;
    nak.ciaddr = Ipv4Addr::UNSPECIFIED;
    let mut put = |code, value| nak.options.push((code, value));
    put(code::SERVER_ID, relay::server_id(request, network.server).octets().to_vec());
    put(code::MESSAGE, because.as_bytes().to_vec());
    echo_client_id(request, &mut put);
    echo_relay_agent(request, &mut put);
    nak
}

fn empty_reply(request: &Packet, message: MessageType) -> Packet {
    Packet {
        op: Op::Reply,
        hardware: request.hardware,
        hops: 0,
        xid: request.xid,
        secs: 0,
        broadcast: request.broadcast,
        // RFC 2131 table 3: `ciaddr` is 0 in an OFFER, and the client's in an ACK.
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

fn put_url(kind: ClientKind, url: &str, put: &mut impl FnMut(u8, Vec<u8>)) {
    if kind == ClientKind::HttpClient {
        // EDK2 takes an offer as HTTP only if option 60 comes back starting `HTTPClient`. It drops such an offer if
        // it has no URL (`HttpBootParseDhcp4Packet`); firmware with a URL from the BMC would then be left without an
        // address.
        put(code::VENDOR_CLASS, b"HTTPClient".to_vec());
    }
    // EDK2 writes a NUL one byte past the URL if it has none (`HttpBootDhcp4.c`), which overwrites the code of the
    // next option.
    put(code::BOOT_FILE, [url.as_bytes(), &[0]].concat());
}

fn put_tftp(kind: ClientKind, server: Ipv4Addr, file: &str, put: &mut impl FnMut(u8, Vec<u8>)) {
    if kind == ClientKind::PxeClient {
        put_pxe_class(put);
    }
    put(code::TFTP_SERVER, server.to_string().into_bytes());
    put(code::BOOT_FILE, [file.as_bytes(), &[0]].concat());
}

fn put_pxe_class(put: &mut impl FnMut(u8, Vec<u8>)) {
    put(code::VENDOR_CLASS, b"PXEClient".to_vec());
    // With the class alone, PXE firmware would query boot servers on port 4011 and wait in vain.
    put(code::VENDOR_INFORMATION, TAKE_THE_FILE_NAMED.to_vec());
}

/// The name for `file`, which loaders in ROMs read. A name that does not fit is in option 67 alone.
fn short(file: &str) -> Vec<u8> {
    if file.len() <= LONGEST_FILE { file.into() } else { Vec::new() }
}

/// Adds `no-pxedhcp` only for machines that boot from here: others may need a proxy.
fn put_no_proxy(kind: ClientKind, put: &mut impl FnMut(u8, Vec<u8>)) {
    if kind == ClientKind::Ipxe {
        put(code::IPXE, NO_PROXY.to_vec());
    }
}

fn echo(request: &Packet, put: &mut impl FnMut(u8, Vec<u8>)) {
    // RFC 4578 §2.3: the server returns it.
    if let Some(id) = request.option(code::MACHINE_ID) {
        put(code::MACHINE_ID, id.to_vec());
    }
    // RFC 3011 §3: a client drops answers of servers that ignored the option.
    if let Some(subnet) = request.option(code::SUBNET_SELECTION)
        && relay::relayed(request).is_some()
    {
        put(code::SUBNET_SELECTION, subnet.to_vec());
    }
    echo_client_id(request, put);
}

/// RFC 6842 §3. An identifier shorter than two bytes (RFC 2132 §9.14) is not echoed: firmware would drop the whole
/// reply.
fn echo_client_id(request: &Packet, put: &mut impl FnMut(u8, Vec<u8>)) {
    if let Some(id) = request.option(code::CLIENT_ID).filter(|id| id.len() >= 2) {
        put(code::CLIENT_ID, id.to_vec());
    }
}

/// RFC 3046 §2.2: the option is echoed byte for byte, as the last one.
fn echo_relay_agent(request: &Packet, put: &mut impl FnMut(u8, Vec<u8>)) {
    if let Some(agent) = request.option(code::RELAY_AGENT) {
        put(code::RELAY_AGENT, agent.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::discover;
    use super::*;

    pub(crate) fn network() -> Network {
        Network::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(255, 255, 255, 0), 3_600)
    }

    fn offer(class: &str) -> Packet {
        let mut request = discover([2; 6]);
        request.options.push((code::VENDOR_CLASS, class.into()));
        request.options.push((code::MAX_SIZE, 1_472_u16.to_be_bytes().to_vec()));
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
    fn who_selects_a_subnet_is_told_that_it_was_heeded() {
        let selected = |giaddr| {
            let subnet = vec![198, 51, 100, 0];
            let options = vec![(code::SUBNET_SELECTION, subnet)];
            let request = Packet { giaddr, options, ..discover([2; 6]) };
            let grant = Grant::Lease(Ipv4Addr::new(198, 51, 100, 9));
            let offer = reply(&request, MessageType::Offer, grant, &Answer::Address, &network());
            offer.option_address(code::SUBNET_SELECTION)
        };

        assert_eq!(selected(Ipv4Addr::new(10, 9, 0, 1)), Some(Ipv4Addr::new(198, 51, 100, 0)));
        assert_eq!(selected(Ipv4Addr::UNSPECIFIED), None);
    }

    #[test]
    fn the_longest_reply_is_one_that_firmware_takes() {
        assert!(offer("HTTPClient").emit().len() <= LARGEST);
    }

    fn asked(codes: &[u8], network: &Network) -> Packet {
        let mut request = discover([2; 6]);
        request.options.push((code::PARAMETER_LIST, codes.to_vec()));
        let grant = Grant::Lease(Ipv4Addr::new(10, 0, 0, 9));
        reply(&request, MessageType::Offer, grant, &Answer::Address, network)
    }

    fn full_network() -> Network {
        let via = Ipv4Addr::new(10, 0, 0, 2);
        Network {
            router: Some(Ipv4Addr::new(10, 0, 0, 254)),
            routes: vec![Route { to: "192.0.2.0/25".parse().unwrap(), via }],
            domain: Some("example.org".into()),
            ntp: vec![via],
            mtu: Some(9_000),
            ..network()
        }
    }

    #[test]
    fn ipxe_need_not_wait_for_a_proxy_and_nobody_else_hears_of_it() {
        let own = |class: &[u8]| {
            let mut request = discover([2; 6]);
            request.options.push((code::USER_CLASS, class.to_vec()));
            let answer = Answer::Boot("http://10.0.0.1/boot.ipxe".into());
            let offer = reply(&request, MessageType::Offer, Grant::OwnAddress, &answer, &network());
            offer.option(code::IPXE).map(<[u8]>::to_vec)
        };

        assert_eq!(own(b"iPXE"), Some(vec![176, 1, 1]));
        assert_eq!(own(b"linux"), None);
    }

    #[test]
    fn who_asks_for_classless_routes_has_the_default_route_among_them() {
        let offer = asked(&[code::CLASSLESS_ROUTES], &full_network());

        let routes = [25, 192, 0, 2, 0, 10, 0, 0, 2, 0, 10, 0, 0, 254];
        assert_eq!(offer.option(code::CLASSLESS_ROUTES), Some(&routes[..]));
        assert_eq!(offer.option_address(code::ROUTER), full_network().router);
    }

    #[test]
    fn who_asks_for_routes_and_a_router_gets_the_router_among_the_routes_alone() {
        let both = [code::CLASSLESS_ROUTES, code::ROUTER];

        let offer = asked(&both, &full_network());
        let without_routes = asked(&both, &Network { routes: Vec::new(), ..full_network() });

        assert!(offer.option(code::CLASSLESS_ROUTES).unwrap().ends_with(&[0, 10, 0, 0, 254]));
        assert_eq!(offer.option(code::ROUTER), None);
        assert_eq!(without_routes.option_address(code::ROUTER), full_network().router);
    }

    #[test]
    fn who_has_no_room_for_routes_keeps_its_router() {
        let to = "192.0.2.0/25".parse().unwrap();
        let routes = vec![Route { to, via: Ipv4Addr::new(10, 0, 0, 2) }; 80];

        let both = [code::CLASSLESS_ROUTES, code::ROUTER];
        let offer = asked(&both, &Network { routes, ..full_network() });

        assert_eq!(offer.option(code::CLASSLESS_ROUTES), None);
        assert_eq!(offer.option_address(code::ROUTER), full_network().router);
    }

    #[test]
    fn a_default_route_of_its_own_is_not_joined_by_the_router() {
        let mut network = full_network();
        network.routes[0].to = "0.0.0.0/0".parse().unwrap();

        let offer = asked(&[code::CLASSLESS_ROUTES], &network);

        assert_eq!(offer.option(code::CLASSLESS_ROUTES), Some(&[0, 10, 0, 0, 2][..]));
    }

    #[test]
    fn what_only_systems_need_is_for_those_that_ask_for_it() {
        let codes = [code::DOMAIN, code::NTP, code::MTU, code::CLASSLESS_ROUTES];

        let unasked = asked(&[], &full_network());
        let offer = asked(&codes, &full_network());

        assert!(codes.iter().all(|code| unasked.option(*code).is_none()));
        assert_eq!(offer.option(code::DOMAIN), Some(&b"example.org"[..]));
        assert_eq!(offer.option(code::NTP), Some(&[10, 0, 0, 2][..]));
        assert_eq!(offer.option(code::MTU), Some(&9_000_u16.to_be_bytes()[..]));
    }

    fn crowded(max_size: Option<u16>) -> Packet {
        let mut request = discover([2; 6]);
        let max_size = max_size.map(|size| (code::MAX_SIZE, size.to_be_bytes().to_vec()));
        let list = vec![code::NTP, code::DOMAIN, code::CLASSLESS_ROUTES];
        request.options.extend(max_size);
        request.options.push((code::VENDOR_CLASS, b"HTTPClient".to_vec()));
        request.options.push((code::CLIENT_ID, vec![1; 255]));
        request.options.push((code::MACHINE_ID, vec![0; 17]));
        request.options.push((code::PARAMETER_LIST, list));
        request.options.push((code::RELAY_AGENT, vec![9; 20]));
        let network = Network {
            ntp: vec![Ipv4Addr::LOCALHOST; 200],
            dns: vec![Ipv4Addr::LOCALHOST; 10],
            ..full_network()
        };
        let url = Answer::Boot(format!("http://boot.example/{}", "x".repeat(150)));
        let grant = Grant::Lease(Ipv4Addr::new(10, 0, 0, 9));
        reply(&request, MessageType::Offer, grant, &url, &network)
    }

    #[test]
    fn a_client_that_says_nothing_of_its_size_gets_what_every_client_takes() {
        let (small, large) = (crowded(None), crowded(Some(1_472)));

        assert!(small.emit().len() <= 548, "{}", small.emit().len());
        assert!(large.emit().len() <= 1_444, "{}", large.emit().len());
        assert!(crowded(Some(u16::MAX)).emit().len() <= LARGEST);
        assert_eq!(crowded(Some(0)), small);
    }

    #[test]
    fn a_reply_that_is_too_large_loses_time_servers_before_its_name_servers_and_never_its_url() {
        let small = crowded(None);

        assert_eq!(small.option(code::NTP), None);
        assert_eq!(small.option(code::CLIENT_ID), None);
        assert!(small.option(code::DNS).is_some());
        assert!(small.option(code::CLASSLESS_ROUTES).is_some());
        for needed in [
            code::SERVER_ID,
            code::LEASE_TIME,
            code::SUBNET_MASK,
            code::VENDOR_CLASS,
            code::BOOT_FILE,
            code::RELAY_AGENT,
        ] {
            assert!(small.option(needed).is_some(), "option {needed}");
        }
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
