//! The server's decision about each message (RFC 2131 §4.3).

use std::net::Ipv4Addr;

use thiserror::Error;

use super::options as code;
use super::packet::{MessageType, Op, Packet};
use super::relay::{named_server, server_id};
use super::reply::{Grant, Network, nak, reply};
use crate::answer::Answer;
use crate::journal::LeaseRecord;
use crate::leases::{LeaseClaim, LeaseTable, Seconds};

/// The decision about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this, once the record (if any) is in the journal.
    Send {
        /// The reply.
        reply: Packet,
        /// The change of a lease.
        record: Option<LeaseRecord<Ipv4Addr>>,
    },
    /// Send nothing; write the records to the journal.
    Note {
        /// The changes of leases.
        records: Vec<LeaseRecord<Ipv4Addr>>,
    },
    /// Stay silent.
    Silent(NoReply),
}

/// The reason for sending no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum NoReply {
    /// A server's message.
    #[error("it is a server's message, not a client's")]
    NotARequest,
    /// OFFER, ACK or NAK in a request.
    #[error("clients do not send this type of message")]
    NotAClientsMessage,
    /// The policy gives this machine no answer.
    #[error("this machine gets no answer now")]
    Nothing,
    /// The client accepted another server's offer.
    #[error("the client chose another server, {0}")]
    OtherServer(Ipv4Addr),
    /// No address is left.
    #[error("the address pool is exhausted: make it larger, or the leases shorter")]
    PoolExhausted,
    /// The remaining addresses are kept for known machines.
    #[error(
        "this machine is not registered, and the remaining addresses are for registered machines"
    )]
    NoneLeftForGuests,
    /// RFC 2131 §4.3.2: a server without a record of a client must stay silent.
    #[error("the client requests an address that this server never leased to it")]
    UnknownLease,
    /// RFC 5227 §2.1.1: a client probes an address before it uses it, and declines it within seconds.
    #[error(
        "it declines an address that it did not get within the last minute, which changes nothing"
    )]
    NotJustLeased,
    /// The address is in the pool of another daemon on the same database.
    #[error("the address is of the pool of another daemon, which answers for it")]
    ForeignPool,
    /// A REQUEST that names no address.
    #[error("the request names no address")]
    NoAddress,
    /// A proxy manages no addresses.
    #[error("it is about an address, and another server leases addresses here")]
    NotForAProxy,
    /// An offer without an address is of use only to clients that boot from it.
    #[error("there is nothing for it to boot that it would take from a proxy")]
    NothingToBoot,
}

impl NoReply {
    /// A short name, for counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotARequest => "not_a_request",
            Self::NotAClientsMessage => "not_a_clients_message",
            Self::Nothing => "nothing",
            Self::OtherServer(_) => "other_server",
            Self::PoolExhausted => "pool_exhausted",
            Self::NoneLeftForGuests => "none_left_for_guests",
            Self::UnknownLease => "unknown_lease",
            Self::NotJustLeased => "not_just_leased",
            Self::ForeignPool => "foreign_pool",
            Self::NoAddress => "no_address",
            Self::NotForAProxy => "not_for_a_proxy",
            Self::NothingToBoot => "nothing_to_boot",
        }
    }
}

/// Decides about a client's message.
///
/// It changes `leases`; the records of the decision hold every change that must survive a crash.
pub fn decide(
    request: &Packet,
    answer: &Answer,
    claim: LeaseClaim,
    leases: &mut LeaseTable<Ipv4Addr>,
    network: &Network,
    now: Seconds,
) -> Decision {
    if request.op != Op::Request {
        return Decision::Silent(NoReply::NotARequest);
    }
    let context = MessageContext { request, answer, claim, leases, network, now };
    match request.message {
        MessageType::Discover => context.discover(),
        MessageType::Request => context.request(),
        MessageType::Decline => context.decline(),
        MessageType::Release => context.release(),
        MessageType::Inform => context.inform(),
        MessageType::Offer | MessageType::Ack | MessageType::Nak => {
            Decision::Silent(NoReply::NotAClientsMessage)
        }
    }
}

struct MessageContext<'a> {
    request: &'a Packet,
    answer: &'a Answer,
    claim: LeaseClaim,
    leases: &'a mut LeaseTable<Ipv4Addr>,
    network: &'a Network,
    now: Seconds,
}

impl MessageContext<'_> {
    fn discover(self) -> Decision {
        if *self.answer == Answer::Nothing {
            return Decision::Silent(NoReply::Nothing);
        }
        match self.leases.offer(self.request.chaddr, self.wants(), self.claim, self.now) {
            None => Decision::Silent(match self.claim {
                LeaseClaim::Known => NoReply::PoolExhausted,
                LeaseClaim::Guest { .. } => NoReply::NoneLeftForGuests,
            }),
            Some(address) => self.send(MessageType::Offer, Grant::Lease(address), None),
        }
    }

    /// RFC 2131 §4.3.2: a REQUEST with a server identifier accepts an offer (SELECTING); one with a requested address
    /// and no server identifier verifies an earlier address (INIT-REBOOT); one with `ciaddr` extends a lease
    /// (RENEWING, REBINDING).
    fn request(mut self) -> Decision {
        if let Some(other) = self.other_server() {
            self.leases.withdraw(&self.request.chaddr, self.now);
            return Decision::Silent(NoReply::OtherServer(other));
        }
        let Some(address) = self.wants().or_else(|| self.has()) else {
            return Decision::Silent(NoReply::NoAddress);
        };
        if *self.answer == Answer::Nothing {
            return Decision::Silent(NoReply::Nothing);
        }
        match self.bind(address) {
            Some(record) => self.send(MessageType::Ack, Grant::Lease(address), Some(record)),
            None => self.refuse(address),
        }
    }

    fn bind(&mut self, address: Ipv4Addr) -> Option<LeaseRecord<Ipv4Addr>> {
        let Self { request, claim, now, .. } = *self;
        let (mac, secs) = (request.chaddr, self.network.secs_for(request));
        let bound = self.leases.bind(mac, address, (), secs, claim, now);
        // A REQUEST with our server identifier accepts our offer. The journal has no offers, so the offer may date
        // from before a restart. A NAK would end the firmware's boot (RFC 2131 §4.3.2).
        let took_our_offer = named_server(request).is_some();
        if bound.is_some() || !took_our_offer {
            return bound;
        }
        self.leases.bind_unoffered(mac, address, (), secs, claim, now)
    }

    /// Refuses an address that is not leased to the client here. A sole server knows that no other server leased it.
    fn refuse(self, address: Ipv4Addr) -> Decision {
        let chose_us = named_server(self.request).is_some();
        let gives = self.leases.gives(address);
        let is_foreign = self.network.foreign_pools.iter().any(|pool| pool.contains(address));
        if is_foreign && !gives && !chose_us {
            return Decision::Silent(NoReply::ForeignPool);
        }
        let knows_client = self.leases.of(&self.request.chaddr).is_some();
        // This server is authoritative for the addresses of its pools and for its own clients.
        let has_moved = self.network.others.iter().any(|other| other.contains(&address));
        let ours = chose_us || knows_client || gives || has_moved;
        if !ours && !self.network.sole {
            return Decision::Silent(NoReply::UnknownLease);
        }
        let because = format!("{address} is not yours here");
        Decision::Send { reply: nak(self.request, &because, self.network), record: None }
    }

    /// The address that the client has (`ciaddr`).
    fn has(&self) -> Option<Ipv4Addr> {
        Some(self.request.ciaddr).filter(|address| !address.is_unspecified())
    }

    /// The requested address (option 50).
    fn wants(&self) -> Option<Ipv4Addr> {
        let wanted = self.request.option_address(code::REQUESTED_ADDRESS);
        wanted.filter(|address| !address.is_unspecified())
    }

    /// The server identifier in the message, if it is another server's.
    fn other_server(&self) -> Option<Ipv4Addr> {
        let named = named_server(self.request)?;
        let towards_client = server_id(self.request, self.network.server);
        (named != self.network.server && named != towards_client).then_some(named)
    }

    fn decline(self) -> Decision {
        if let Some(other) = self.other_server() {
            return Decision::Silent(NoReply::OtherServer(other));
        }
        let Some(address) = self.wants().or_else(|| self.has()) else {
            return Decision::Silent(NoReply::NoAddress);
        };
        match self.leases.decline(self.request.chaddr, address, self.now) {
            Some(records) => Decision::Note { records },
            None => Decision::Silent(NoReply::NotJustLeased),
        }
    }

    fn release(self) -> Decision {
        if let Some(other) = self.other_server() {
            return Decision::Silent(NoReply::OtherServer(other));
        }
        let mac = self.request.chaddr;
        let given_back = self.has().or_else(|| self.wants());
        let record = given_back.and_then(|address| self.leases.release(mac, address, (), self.now));
        Decision::Note { records: record.into_iter().collect() }
    }

    fn inform(self) -> Decision {
        match self.answer {
            Answer::Nothing => Decision::Silent(NoReply::Nothing),
            Answer::Boot(_) | Answer::Tftp { .. } | Answer::Address => {
                self.send(MessageType::Ack, Grant::OwnAddress, None)
            }
        }
    }

    fn send(
        self,
        message: MessageType,
        grant: Grant,
        record: Option<LeaseRecord<Ipv4Addr>>,
    ) -> Decision {
        let reply = reply(self.request, message, grant, self.answer, self.network);
        Decision::Send { reply, record }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::discover;
    use super::*;
    use crate::leases::LeasePool;
    use hardware::Mac;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    struct Server {
        leases: LeaseTable<Ipv4Addr>,
        network: Network,
        answer: Answer,
        now: Seconds,
    }

    impl Server {
        fn new() -> Self {
            let first = Ipv4Addr::new(10, 0, 0, 100);
            Self {
                leases: LeaseTable::new(
                    LeasePool { first, last: Ipv4Addr::new(10, 0, 0, 101) },
                    [],
                ),
                network: Network::new(
                    Ipv4Addr::new(10, 0, 0, 1),
                    Ipv4Addr::new(255, 255, 255, 0),
                    3_600,
                ),
                answer: Answer::Boot("http://10.0.0.1/x.efi".into()),
                now: 1_000,
            }
        }

        fn hears(&mut self, request: &Packet) -> Decision {
            decide(
                request,
                &self.answer,
                LeaseClaim::Known,
                &mut self.leases,
                &self.network,
                self.now,
            )
        }

        fn answers(&mut self, request: &Packet) -> Packet {
            match self.hears(request) {
                Decision::Send { reply, .. } => reply,
                other @ (Decision::Note { .. } | Decision::Silent(_)) => {
                    panic!("no answer: {other:?}")
                }
            }
        }
    }

    fn request(options: &[(u8, Ipv4Addr)]) -> Packet {
        let options = options.iter().map(|(code, at)| (*code, at.octets().to_vec())).collect();
        Packet { message: MessageType::Request, options, ..discover(MAC) }
    }

    #[test]
    fn four_messages_give_an_address_and_a_url_twice() {
        let mut server = Server::new();

        let offer = server.answers(&discover(MAC));
        let ack = server.answers(&request(&[
            (code::SERVER_ID, server.network.server),
            (code::REQUESTED_ADDRESS, offer.yiaddr),
        ]));

        assert_eq!((offer.message, ack.message), (MessageType::Offer, MessageType::Ack));
        assert_eq!(offer.yiaddr, ack.yiaddr);
        assert_eq!(offer.option(code::BOOT_FILE), ack.option(code::BOOT_FILE));
    }

    #[test]
    fn a_client_may_have_a_shorter_lease_than_others_but_no_longer_one() {
        let secs = |asked: u32| {
            let mut server = Server::new();
            let offer = server.answers(&discover(MAC));
            let mut request = request(&[(code::REQUESTED_ADDRESS, offer.yiaddr)]);
            request.options.push((code::LEASE_TIME, asked.to_be_bytes().to_vec()));
            let ack = server.answers(&request);
            let until = server.leases.of(&MAC).unwrap().until() - server.now;
            let told = ack.option_u32(code::LEASE_TIME).unwrap();
            assert_eq!(u64::from(told), until, "what is told is what is kept");
            told
        };

        assert_eq!(secs(600), 600);
        assert_eq!(secs(1), 60);
        assert_eq!(secs(u32::MAX), 3_600);
    }

    #[test]
    fn what_must_survive_a_crash_is_recorded_before_the_ack() {
        let mut server = Server::new();
        let offer = server.answers(&discover(MAC));

        let decision = server.hears(&request(&[(code::REQUESTED_ADDRESS, offer.yiaddr)]));

        assert!(matches!(decision, Decision::Send { record: Some(_), .. }));
    }

    #[test]
    fn a_client_that_chose_another_server_is_left_alone() {
        let mut server = Server::new();
        let other = Ipv4Addr::new(10, 0, 0, 2);

        let decision = server.hears(&request(&[(code::SERVER_ID, other)]));

        assert_eq!(decision, Decision::Silent(NoReply::OtherServer(other)));
    }

    #[test]
    fn a_server_identifier_that_is_no_servers_chooses_nobody() {
        for nobody in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST] {
            let mut server = Server::new();
            let offer = server.answers(&discover(MAC));
            let takes = [(code::SERVER_ID, nobody), (code::REQUESTED_ADDRESS, offer.yiaddr)];

            let ack = server.answers(&request(&takes));

            assert_eq!((ack.message, ack.yiaddr), (MessageType::Ack, offer.yiaddr));
        }
    }

    #[test]
    fn a_wish_for_no_address_is_none() {
        let mut server = Server::new();
        let nothing = (code::REQUESTED_ADDRESS, Ipv4Addr::UNSPECIFIED);
        let renewal = |ciaddr| Packet { ciaddr, ..request(&[nothing]) };
        let offer = server.answers(&discover(MAC));

        let ack = server.answers(&renewal(offer.yiaddr));

        assert_eq!((ack.message, ack.yiaddr), (MessageType::Ack, offer.yiaddr));
        let decision = server.hears(&renewal(Ipv4Addr::UNSPECIFIED));
        assert_eq!(decision, Decision::Silent(NoReply::NoAddress));
    }

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
    const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    /// The decision about an unknown client that returns with an address (INIT-REBOOT).
    fn comes_back_with(server: &mut Server, address: Ipv4Addr) -> Decision {
        server.hears(&request(&[(code::REQUESTED_ADDRESS, address)]))
    }

    #[test]
    fn a_client_from_another_network_is_sent_back_to_the_start_by_the_only_server() {
        let mut server = Server::new();

        for address in [OURS, FOREIGN] {
            let nak = server.answers(&request(&[(code::REQUESTED_ADDRESS, address)]));

            assert_eq!(nak.message, MessageType::Nak);
            assert_eq!(nak.option_address(code::SERVER_ID), Some(server.network.server));
        }
    }

    #[test]
    fn a_client_that_may_be_another_servers_is_not_refused_by_us() {
        let mut server = Server::new();
        server.network.sole = false;

        let foreign = comes_back_with(&mut server, FOREIGN);
        let renewal = server.hears(&Packet { ciaddr: FOREIGN, ..request(&[]) });

        assert_eq!(foreign, Decision::Silent(NoReply::UnknownLease));
        assert_eq!(renewal, Decision::Silent(NoReply::UnknownLease));
        assert!(matches!(comes_back_with(&mut server, OURS), Decision::Send { .. }), "our pool's");
    }

    #[test]
    fn a_client_that_moved_here_from_another_link_of_ours_is_refused_whoever_else_is_there() {
        let mut server = Server::new();
        server.network.sole = false;
        server.network.others = vec!["192.0.2.0/24".parse().unwrap()];

        for kept in [
            Packet { ciaddr: FOREIGN, ..request(&[]) },
            request(&[(code::REQUESTED_ADDRESS, FOREIGN)]),
        ] {
            assert_eq!(server.answers(&kept).message, MessageType::Nak);
        }
    }

    #[test]
    fn a_client_of_ours_that_comes_back_with_a_wrong_address_is_refused_by_whoever_it_had_one_from()
    {
        let mut server = Server::new();
        server.network.sole = false;
        server.answers(&discover(MAC));

        let nak = server.answers(&request(&[(code::REQUESTED_ADDRESS, FOREIGN)]));

        assert_eq!(nak.message, MessageType::Nak);
    }

    #[test]
    fn an_address_of_another_daemons_pool_is_refused_by_nobody_but_that_daemon() {
        let renewal = |ciaddr| Packet { ciaddr, ..request(&[]) };
        for sole in [true, false] {
            let mut server = Server::new();
            server.network.sole = sole;
            server.network.others = vec!["192.0.2.0/24".parse().unwrap()];
            // The client had an address of this server before, and the other address later.
            server.answers(&discover(MAC));
            assert_eq!(server.answers(&renewal(FOREIGN)).message, MessageType::Nak);

            server.network.foreign_pools = [LeasePool { first: FOREIGN, last: FOREIGN }].into();

            let silent = Decision::Silent(NoReply::ForeignPool);
            assert_eq!(server.hears(&renewal(FOREIGN)), silent);
            assert_eq!(comes_back_with(&mut server, FOREIGN), silent);
            let chose_us = (code::SERVER_ID, server.network.server);
            let took = request(&[chose_us, (code::REQUESTED_ADDRESS, FOREIGN)]);
            assert_eq!(server.answers(&took).message, MessageType::Nak, "we were asked by name");
        }
    }

    #[test]
    fn an_address_that_is_reserved_here_is_given_though_it_lies_in_another_daemons_pool() {
        let mut server = Server::new();
        let pool = server.leases.pool();
        server.leases = LeaseTable::new(pool, [(MAC, FOREIGN)]);
        server.network.foreign_pools = [LeasePool { first: FOREIGN, last: FOREIGN }].into();

        let Decision::Send { reply, .. } = comes_back_with(&mut server, FOREIGN) else {
            panic!("it is not answered")
        };

        assert_eq!((reply.message, reply.yiaddr), (MessageType::Ack, FOREIGN));
    }

    #[test]
    fn a_client_that_comes_back_with_its_address_keeps_it() {
        let mut server = Server::new();
        let offer = server.answers(&discover(MAC));
        server.answers(&request(&[(code::REQUESTED_ADDRESS, offer.yiaddr)]));

        let ack = server.answers(&request(&[(code::REQUESTED_ADDRESS, offer.yiaddr)]));

        assert_eq!((ack.message, ack.yiaddr), (MessageType::Ack, offer.yiaddr));
    }

    #[test]
    fn an_offer_that_ended_is_still_good_unless_somebody_else_has_the_address() {
        let takes = |server: &mut Server, address| {
            let us = server.network.server;
            let options = [(code::SERVER_ID, us), (code::REQUESTED_ADDRESS, address)];
            server.answers(&request(&options)).message
        };
        let mut server = Server::new();
        let offered = server.answers(&discover(MAC)).yiaddr;
        server.now += 1_000;
        assert_eq!(takes(&mut server, offered), MessageType::Ack);

        let mut server = Server::new();
        let offered = server.answers(&discover(MAC)).yiaddr;
        server.now += 1_000;
        for last in 1..=2 {
            server.answers(&discover([2, 0, 0, 0, 1, last]));
        }
        assert_eq!(takes(&mut server, offered), MessageType::Nak);
    }

    #[test]
    fn an_offer_is_still_good_after_a_restart_that_forgot_it() {
        let mut server = Server::new();
        let offered = server.answers(&discover(MAC)).yiaddr;
        let pool = server.leases.pool();
        server.leases = LeaseTable::replay(pool, [], server.leases.records(), 0);

        let us = server.network.server;
        let options = [(code::SERVER_ID, us), (code::REQUESTED_ADDRESS, offered)];
        let ack = server.answers(&request(&options));
        let next = server.answers(&discover([2, 0, 0, 0, 1, 1]));

        assert_eq!((ack.message, ack.yiaddr), (MessageType::Ack, offered));
        assert_ne!(next.yiaddr, offered);
    }

    #[test]
    fn a_client_behind_a_relay_is_refused_through_it_with_the_broadcast_flag_set() {
        let mut server = Server::new();
        let relay = Ipv4Addr::new(10, 0, 0, 254);
        let request = Packet {
            giaddr: relay,
            broadcast: false,
            ..request(&[(code::REQUESTED_ADDRESS, FOREIGN)])
        };

        let nak = server.answers(&request);

        assert_eq!((nak.message, nak.giaddr, nak.broadcast), (MessageType::Nak, relay, true));
    }

    #[test]
    fn a_relay_that_stands_in_for_us_is_named_to_the_client_and_by_it() {
        let mut server = Server::new();
        let relay = Ipv4Addr::new(10, 0, 0, 254);
        let agent = [&[11, 4][..], &relay.octets()].concat();
        let through = |packet: Packet| {
            let mut packet = Packet { giaddr: relay, ..packet };
            packet.options.push((code::RELAY_AGENT, agent.clone()));
            packet
        };

        let offer = server.answers(&through(discover(MAC)));
        let named = [(code::SERVER_ID, relay), (code::REQUESTED_ADDRESS, offer.yiaddr)];
        let ack = server.answers(&through(request(&named)));

        assert_eq!(offer.option_address(code::SERVER_ID), Some(relay));
        assert_eq!(ack.message, MessageType::Ack);
        assert_eq!(ack.options.last(), Some(&(code::RELAY_AGENT, agent.clone())));
    }

    #[test]
    fn the_address_of_a_client_that_chose_another_server_is_free_at_once() {
        let mut server = Server::new();
        for last in 1..=2 {
            server.answers(&discover([2, 0, 0, 0, 1, last]));
        }
        assert_eq!(server.hears(&discover(MAC)), Decision::Silent(NoReply::PoolExhausted));

        let other = [(code::SERVER_ID, Ipv4Addr::new(10, 0, 0, 2))];
        server.hears(&Packet { chaddr: Mac([2, 0, 0, 0, 1, 1]), ..request(&other) });

        assert_eq!(server.answers(&discover(MAC)).message, MessageType::Offer);
    }

    fn gives_back(message: MessageType, chaddr: Mac, address: Ipv4Addr) -> Packet {
        let mut packet = Packet { message, chaddr, ..request(&[]) };
        if message == MessageType::Release {
            packet.ciaddr = address;
        } else {
            packet.options.push((code::REQUESTED_ADDRESS, address.octets().to_vec()));
        }
        packet
    }

    #[test]
    fn nobody_gives_back_the_address_of_another() {
        let mut server = Server::new();
        let address = server.answers(&discover(MAC)).yiaddr;
        server.answers(&request(&[(code::REQUESTED_ADDRESS, address)]));

        for (message, nothing) in [
            (MessageType::Release, Decision::Note { records: Vec::new() }),
            (MessageType::Decline, Decision::Silent(NoReply::NotJustLeased)),
        ] {
            let other = server.hears(&gives_back(message, Mac([2, 0, 0, 0, 9, 9]), address));
            assert_eq!(other, nothing);
        }
        for message in [MessageType::Release, MessageType::Decline] {
            server.answers(&request(&[(code::REQUESTED_ADDRESS, address)]));
            let owner = server.hears(&gives_back(message, MAC, address));
            assert!(matches!(owner, Decision::Note { records } if records.len() == 1));
        }
    }

    #[test]
    fn what_is_given_back_to_another_server_is_not_ours_to_take() {
        let mut server = Server::new();
        let address = server.answers(&discover(MAC)).yiaddr;
        let other = Ipv4Addr::new(10, 0, 0, 2);
        for message in [MessageType::Release, MessageType::Decline] {
            let mut packet = gives_back(message, MAC, address);
            packet.options.push((code::SERVER_ID, other.octets().to_vec()));

            assert_eq!(server.hears(&packet), Decision::Silent(NoReply::OtherServer(other)));
        }
    }

    #[test]
    fn a_renewal_extends_the_lease_without_naming_the_server() {
        let mut server = Server::new();
        let offer = server.answers(&discover(MAC));
        server.answers(&request(&[(code::REQUESTED_ADDRESS, offer.yiaddr)]));

        let renewal = Packet { ciaddr: offer.yiaddr, ..request(&[]) };

        assert_eq!(server.answers(&renewal).message, MessageType::Ack);
    }

    #[test]
    fn a_machine_that_must_not_boot_hears_nothing() {
        let mut server = Server::new();
        server.answer = Answer::Nothing;

        assert_eq!(server.hears(&discover(MAC)), Decision::Silent(NoReply::Nothing));
    }

    #[test]
    fn an_exhausted_pool_is_said_in_words() {
        let mut server = Server::new();
        for last in 1..=2 {
            server.answers(&discover([2, 0, 0, 0, 1, last]));
        }

        let Decision::Silent(silence) = server.hears(&discover(MAC)) else { panic!("answered") };

        assert!(silence.to_string().starts_with("the address pool is exhausted"));
    }

    #[test]
    fn an_inform_gets_everything_but_an_address() {
        let mut server = Server::new();
        let inform = Packet {
            message: MessageType::Inform,
            ciaddr: Ipv4Addr::new(10, 0, 0, 50),
            ..discover(MAC)
        };

        let ack = server.answers(&inform);

        assert_eq!(ack.message, MessageType::Ack);
        assert!(ack.yiaddr.is_unspecified());
        assert_eq!(ack.option(code::LEASE_TIME), None);
    }
}
