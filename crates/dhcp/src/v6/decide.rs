//! What a server does with each message (RFC 8415 §18.3).

use std::net::Ipv6Addr;

use thiserror::Error;

use super::client::Client;
use super::leases::{Identity, Leases, Record, binding_id};
use super::options as code;
use super::packet::{Ia, Message, MessageType};
use super::reply::{Grant, Network, Status, add_grants, reply, status};
use crate::answer::Answer;
use crate::leases::{Claim, Seconds};

/// `IRT_MINIMUM`: a client takes less than this many seconds for as many (RFC 8415 §7.6).
const SHORTEST_REFRESH: u32 = 600;

/// What to do with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this, once the records are in the journal.
    Send {
        /// The answer.
        reply: Message,
        /// What changed.
        records: Vec<Record>,
        /// The address that the client has or may have from it.
        address: Option<Ipv6Addr>,
    },
    /// Stay silent.
    Silent(Silence),
}

/// Why a message gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Silence {
    /// A server's message.
    #[error("clients do not send this type of message")]
    NotAClientsMessage,
    /// RFC 8415 §16 lets none be answered.
    #[error("the message has no client identifier")]
    NoClientId,
    /// The client chose another server.
    #[error("the client chose another server")]
    OtherServer,
    /// An option where it must not be, or none where it must be.
    #[error("the message has an option that it must not have, or lacks one that it must have")]
    Malformed,
    /// This machine is to be told nothing.
    #[error("this machine is to be told nothing now")]
    Nothing,
    /// An advertisement without an address is none to firmware.
    #[error("the address pool is exhausted: make it larger, or the leases shorter")]
    PoolExhausted,
    /// It asks for what only others give, such as prefixes.
    #[error("the client asks for no address (IA_NA)")]
    NoAssociation,
    /// RFC 8415 §18.3.3: whoever has no address to confirm is not answered.
    #[error("the client asks about no address")]
    NoAddress,
}

impl Silence {
    /// A short name, for counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotAClientsMessage => "not_a_clients_message",
            Self::NoClientId => "no_client_id",
            Self::OtherServer => "other_server",
            Self::Malformed => "malformed",
            Self::Nothing => "nothing",
            Self::PoolExhausted => "pool_exhausted",
            Self::NoAssociation => "not_for_us",
            Self::NoAddress => "no_address",
        }
    }
}

/// Decides about a message of a client that `identity` stands for, and that may claim so much.
///
/// Changes `leases`; whatever of it must survive a crash is in the decision's records.
#[expect(
    clippy::too_many_arguments,
    reason = "each is of its own owner, and none belongs to another"
)]
pub fn decide(
    request: &Message,
    client: &Client,
    identity: Identity,
    answer: &Answer,
    claim: Claim,
    leases: &mut Leases,
    network: &Network,
    now: Seconds,
) -> Decision {
    let turn = Turn { request, client, identity, answer, claim, leases, network, now };
    match turn.run() {
        Ok(decision) => decision,
        Err(silence) => Decision::Silent(silence),
    }
}

struct Turn<'a> {
    request: &'a Message,
    client: &'a Client,
    identity: Identity,
    answer: &'a Answer,
    claim: Claim,
    leases: &'a mut Leases,
    network: &'a Network,
    now: Seconds,
}

impl Turn<'_> {
    fn run(self) -> Result<Decision, Silence> {
        self.check()?;
        match self.request.kind {
            MessageType::Solicit => self.solicit(),
            MessageType::Request => self.bind_all(Status::NoAddresses),
            MessageType::Rebind if !self.network.sole && !self.is_bound() => {
                Err(Silence::OtherServer)
            }
            // RFC 8415 §18.3.4, §18.3.5. A client of ours that renews has its binding made anew.
            MessageType::Renew | MessageType::Rebind => self.bind_all(Status::NoBinding),
            MessageType::Confirm => self.confirm(),
            MessageType::Release => {
                Ok(self.give_back(|leases, identity, address, binding, now| {
                    leases.release(identity, address, binding, now)
                }))
            }
            MessageType::Decline => Ok(self.give_back(|leases, identity, address, _, now| {
                leases.decline(identity, address, now)
            })),
            MessageType::InformationRequest => {
                self.expect_boot()?;
                let again = self.network.lease_secs.max(SHORTEST_REFRESH).to_be_bytes();
                let asked = self.request.asks_for(code::REFRESH_TIME);
                let mut decision = self.send(MessageType::Reply, &[], Vec::new());
                if let Decision::Send { reply, .. } = &mut decision
                    && asked
                {
                    reply.options.put(code::REFRESH_TIME, again);
                }
                Ok(decision)
            }
            MessageType::Advertise | MessageType::Reply | MessageType::Reconfigure => {
                Err(Silence::NotAClientsMessage)
            }
        }
    }

    /// RFC 8415 §16: what each message must have and must not have.
    fn check(&self) -> Result<(), Silence> {
        let options = &self.request.options;
        let server = options.get(code::SERVER_ID);
        let for_us = server.map(|server| server == self.network.duid);
        match self.request.kind {
            MessageType::Solicit | MessageType::Confirm | MessageType::Rebind => {
                for_us.map_or(Ok(()), |_| Err(Silence::Malformed))?;
            }
            MessageType::Request
            | MessageType::Renew
            | MessageType::Release
            | MessageType::Decline => match for_us {
                Some(true) => {}
                Some(false) => return Err(Silence::OtherServer),
                None => return Err(Silence::Malformed),
            },
            MessageType::InformationRequest => {
                if for_us == Some(false) {
                    return Err(Silence::OtherServer);
                }
                // RFC 8415 §16.12: one that wants no address names none.
                let names_one = self.request.ias().next().is_some();
                return if names_one { Err(Silence::Malformed) } else { Ok(()) };
            }
            MessageType::Advertise | MessageType::Reply | MessageType::Reconfigure => {
                return Err(Silence::NotAClientsMessage);
            }
        }
        options.get(code::CLIENT_ID).map(drop).ok_or(Silence::NoClientId)
    }

    fn expect_boot(&self) -> Result<(), Silence> {
        if *self.answer == Answer::Nothing { Err(Silence::Nothing) } else { Ok(()) }
    }

    /// Whoever is not, where there are other servers, has its address from one of them: to rebind it
    /// must not cost the client that address (RFC 8415 §18.3.5).
    fn is_bound(&self) -> bool {
        self.leases.of(&self.identity).is_some_and(|lease| !lease.bindings.is_empty())
    }

    fn solicit(self) -> Result<Decision, Silence> {
        self.expect_boot()?;
        let Some(Ia { id: ia, address: wanted }) = self.request.ias().next() else {
            return Err(Silence::NoAssociation);
        };
        let address = self.leases.offer(self.identity, wanted, self.claim, self.now);
        let address = address.ok_or(Silence::PoolExhausted)?;
        if self.request.options.get(code::RAPID_COMMIT).is_some() && self.network.sole {
            let mut decision = self.bind_all(Status::NoAddresses)?;
            if let Decision::Send { reply, .. } = &mut decision {
                reply.options.put(code::RAPID_COMMIT, []);
            }
            return Ok(decision);
        }
        // Each client has one address here, so further associations get none. EDK2 drops an
        // ADVERTISE with any status in it, so they are not mentioned.
        Ok(self.send(
            MessageType::Advertise,
            &[Grant::Lease { ia, address, instead_of: None }],
            Vec::new(),
        ))
    }

    /// Binds what belongs to the client, and says of the rest that it does not.
    fn bind_all(self, refusal: Status) -> Result<Decision, Silence> {
        self.expect_boot()?;
        let (mut grants, mut records) = (Vec::new(), Vec::new());
        let ias: Vec<_> = self.request.ias().collect();
        if ias.is_empty() {
            return Err(Silence::NoAssociation);
        }
        for (index, Ia { id: ia, address: wanted }) in ias.into_iter().enumerate() {
            let address = if index == 0 {
                self.leases.offer(self.identity, wanted, self.claim, self.now)
            } else {
                None
            };
            let Some(address) = address else {
                grants.push(Grant::Refused { ia, status: refusal });
                continue;
            };
            let binding = binding_id(&self.client.duid, ia);
            let secs = self.network.lease_secs;
            records.extend(self.leases.bind(self.identity, address, binding, secs, self.now));
            // It must stop using what is not its own, and start using what is.
            let instead_of = wanted.filter(|wanted| *wanted != address);
            grants.push(Grant::Lease { ia, address, instead_of });
        }
        // RFC 8415 §18.3.2: every association is answered, and of these two kinds there is nothing.
        let others = [(code::IA_TA, Status::NoAddresses), (code::IA_PD, Status::NoPrefixes)];
        for (option, status) in others {
            let named = self.request.options.all(option).filter_map(|value| value.first_chunk());
            grants.extend(named.map(|ia| Grant::None {
                option,
                ia: u32::from_be_bytes(*ia),
                status,
            }));
        }
        Ok(self.send(MessageType::Reply, &grants, records))
    }

    /// Whether the client is still on the link that its addresses are of (RFC 8415 §18.3.3).
    fn confirm(self) -> Result<Decision, Silence> {
        let mut addresses = self.request.ias().filter_map(|ia| ia.address).peekable();
        addresses.peek().ok_or(Silence::NoAddress)?;
        let (kind, words) = if addresses.all(|address| self.network.net.contains(&address)) {
            (Status::Success, "all addresses are still on this link")
        } else {
            (Status::NotOnLink, "an address is of another link")
        };
        let reply = status(self.request, kind, words, self.network);
        Ok(Decision::Send { reply, records: Vec::new(), address: None })
    }

    fn give_back(
        self,
        back: impl Fn(&mut Leases, Identity, Ipv6Addr, u64, Seconds) -> Option<Record>,
    ) -> Decision {
        let (mut records, mut unknown) = (Vec::new(), Vec::new());
        for Ia { id, address } in self.request.ias() {
            let binding = binding_id(&self.client.duid, id);
            let record = address
                .and_then(|address| back(self.leases, self.identity, address, binding, self.now));
            match record {
                Some(record) => records.push(record),
                None => unknown.push(Grant::Refused { ia: id, status: Status::NoBinding }),
            }
        }
        // RFC 8415 §18.3.7: success, whatever was known of it, and which of it was not.
        let mut reply = status(self.request, Status::Success, "", self.network);
        add_grants(&mut reply.options, &unknown, self.network);
        Decision::Send { reply, records, address: None }
    }

    fn send(self, kind: MessageType, grants: &[Grant], records: Vec<Record>) -> Decision {
        let url = match self.answer {
            Answer::Boot(url) => Some(url.as_str()),
            // A name without a URL around it means nothing here (RFC 5970 §3.1).
            Answer::Tftp { .. } | Answer::Address | Answer::Nothing => None,
        };
        let address = grants.iter().find_map(|grant| match grant {
            Grant::Lease { address, .. } => Some(*address),
            Grant::Refused { .. } | Grant::None { .. } => None,
        });
        let reply = reply(self.request, kind, self.client.kind, grants, url, self.network);
        Decision::Send { reply, records, address }
    }
}

#[cfg(test)]
mod tests {
    use super::super::leases::Pool;
    use super::super::packet::tests::{OVMF_SOLICIT, bytes};
    use super::super::packet::{Options, Packet};
    use super::*;

    const URL: &str = "http://[fd00::1]:8080/boot/x/bootx64.efi";
    const WHO: Identity = [7; 16];

    struct Server {
        leases: Leases,
        network: Network,
    }

    impl Server {
        fn new() -> Self {
            let pool =
                Pool { first: "fd00::10".parse().unwrap(), last: "fd00::1f".parse().unwrap() };
            let network = Network {
                net: "fd00::/64".parse().unwrap(),
                duid: vec![0, 2, 9],
                sole: true,
                dns: Vec::new(),
                lease_secs: 600,
            };
            Self { leases: Leases::new(pool, []), network }
        }

        fn takes(&mut self, request: &Message, answer: &Answer) -> Decision {
            let packet = Packet { relays: Vec::new(), message: request.clone() };
            let client = Client::identify(&packet, "fe80::5054:ff:feaa:bb01".parse().unwrap());
            decide(
                request,
                &client,
                WHO,
                answer,
                Claim::Known,
                &mut self.leases,
                &self.network,
                1_000,
            )
        }

        fn answers(&mut self, request: &Message) -> Message {
            match self.takes(request, &Answer::Boot(URL.to_owned())) {
                Decision::Send { reply, .. } => reply,
                Decision::Silent(why) => panic!("silent: {why}"),
            }
        }
    }

    fn solicit() -> Message {
        Packet::parse(&bytes(OVMF_SOLICIT)).unwrap().message
    }

    /// The message with the server that `reply` is from, and what it gave.
    fn next(kind: MessageType, reply: &Message) -> Message {
        let mut options = solicit().options;
        options.0.retain(|(code, _)| *code != code::IA_NA);
        for keep in [code::SERVER_ID, code::IA_NA] {
            options.put(keep, reply.options.get(keep).unwrap());
        }
        Message { kind, transaction: [9, 9, 9], options }
    }

    fn address(message: &Message) -> Ipv6Addr {
        message.ias().next().unwrap().address.unwrap()
    }

    #[test]
    fn an_exhausted_pool_does_not_bind_a_client_in_a_hurry_to_nothing() {
        let mut server = Server::new();
        let one = "fd00::10".parse().unwrap();
        server.leases = Leases::new(Pool { first: one, last: one }, [([9; 16], one)]);
        let mut hurried = solicit();
        hurried.options.put(code::RAPID_COMMIT, []);

        let decision = server.takes(&hurried, &Answer::Boot(URL.to_owned()));

        assert_eq!(decision, Decision::Silent(Silence::PoolExhausted));
    }

    #[test]
    fn a_client_on_its_link_may_keep_an_address_that_the_pool_no_longer_has() {
        let mut server = Server::new();
        let confirm = |address: &str| {
            let mut message = solicit();
            message.kind = MessageType::Confirm;
            message.options.0.retain(|(code, _)| *code != code::IA_NA);
            let address: Ipv6Addr = address.parse().unwrap();
            let head = [1_u32, 0, 0].map(u32::to_be_bytes).concat();
            let held = [&[0, 5, 0, 24][..], &address.octets(), &[0; 8]].concat();
            message.options.put(code::IA_NA, [head, held].concat());
            message
        };
        let mut said = |address| {
            let reply = server.answers(&confirm(address));
            reply.options.get(code::STATUS).unwrap()[..2].to_vec()
        };

        assert_eq!(said("fd00::ff"), [0, 0]);
        assert_eq!(said("fd01::10"), [0, 4]);
    }

    #[test]
    fn firmware_gets_address_url_and_class_and_need_not_wait_for_others() {
        let mut server = Server::new();

        let advertise = server.answers(&solicit());
        let reply = server.answers(&next(MessageType::Request, &advertise));

        for message in [&advertise, &reply] {
            assert_eq!(message.options.get(code::BOOT_FILE_URL), Some(URL.as_bytes()));
            let class = bytes("00000157000A48545450436C69656E74");
            assert_eq!(message.options.get(code::VENDOR_CLASS), Some(&class[..]));
            assert_eq!(message.options.get(code::PREFERENCE), Some(&[255][..]));
            assert_eq!(address(message), server.leases.pool().first);
        }
        assert_eq!((advertise.kind, reply.kind), (MessageType::Advertise, MessageType::Reply));
    }

    #[test]
    fn the_url_is_followed_by_a_byte_of_zero_which_firmware_takes_for_its_end() {
        let mut server = Server::new();
        let options = server.answers(&solicit()).options;
        let at = options.0.iter().position(|(code, _)| *code == code::BOOT_FILE_URL).unwrap();

        assert!(options.0.get(at + 1).unwrap().0 < 256);
    }

    #[test]
    fn firmware_is_never_advertised_a_status() {
        let mut server = Server::new();
        let mut two = solicit();
        two.options.put(code::IA_NA, [0; 12]);

        let advertise = server.answers(&two);

        assert_eq!(advertise.options.get(code::STATUS), None);
        assert_eq!(advertise.ias().count(), 1);
    }

    #[test]
    fn another_servers_client_is_left_to_it() {
        let mut server = Server::new();
        let mut request = next(MessageType::Request, &server.answers(&solicit()));
        request.options.0.retain(|(code, _)| *code != code::SERVER_ID);
        request.options.put(code::SERVER_ID, [1, 2, 3]);

        let decision = server.takes(&request, &Answer::Address);

        assert_eq!(decision, Decision::Silent(Silence::OtherServer));
    }

    #[test]
    fn a_client_of_another_server_that_rebinds_keeps_its_address() {
        let mut server = Server::new();
        server.network.sole = false;
        let mut rebind = next(MessageType::Rebind, &server.answers(&solicit()));
        rebind.options.0.retain(|(code, _)| *code != code::SERVER_ID);
        let decision = server.takes(&rebind, &Answer::Address);
        assert_eq!(decision, Decision::Silent(Silence::OtherServer));

        let advertise = server.answers(&solicit());
        server.answers(&next(MessageType::Request, &advertise));
        assert_eq!(address(&server.answers(&rebind)), address(&advertise));
    }

    #[test]
    fn a_release_frees_and_is_confirmed() {
        let mut server = Server::new();
        let reply = server.answers(&solicit());
        let reply = server.answers(&next(MessageType::Request, &reply));

        let decision = server.takes(&next(MessageType::Release, &reply), &Answer::Nothing);

        let Decision::Send { reply, records, .. } = decision else { panic!("{decision:?}") };
        assert_eq!(reply.options.get(code::STATUS), Some(&[0, 0][..]));
        assert_eq!(records.len(), 1);
        assert_eq!(server.leases.of(&WHO).unwrap().until(), 1_000);
    }

    #[test]
    fn what_was_not_the_clients_cannot_be_given_back_and_is_named() {
        let mut server = Server::new();
        let reply = server.answers(&solicit());
        let reply = server.answers(&next(MessageType::Request, &reply));
        let mut release = next(MessageType::Release, &reply);
        release.options.put(code::IA_NA, [0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0]);

        let reply = server.answers(&release);

        assert_eq!(reply.options.get(code::STATUS), Some(&[0, 0][..]));
        let unknown: Vec<_> = reply.options.all(code::IA_NA).collect();
        assert_eq!(unknown.len(), 1);
        assert_eq!(unknown[0][..4], [0, 0, 0, 99]);
        assert_eq!(Options::parse(&unknown[0][12..]).unwrap().get(code::STATUS).unwrap()[1], 3);
    }

    #[test]
    fn whoever_wants_prefixes_and_temporary_addresses_too_hears_that_there_are_none() {
        let mut server = Server::new();
        let mut request = next(MessageType::Request, &server.answers(&solicit()));
        request.options.put(code::IA_TA, [0, 0, 0, 7]);
        request.options.put(code::IA_PD, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        request.options.put(code::IA_PD, [0, 0]);

        let reply = server.answers(&request);

        assert_eq!(address(&reply), server.leases.pool().first);
        let status = |option, head: usize| {
            let mut all = reply.options.all(option);
            let value = all.next().unwrap();
            assert_eq!(all.next(), None);
            let inner = Options::parse(&value[head..]).unwrap();
            (value[3], inner.get(code::STATUS).unwrap()[1])
        };
        assert_eq!(status(code::IA_TA, 4), (7, 2));
        assert_eq!(status(code::IA_PD, 12), (8, 6));
    }

    #[test]
    fn whoever_asks_for_information_alone_gets_the_url_and_is_told_when_to_ask_again() {
        let mut server = Server::new();
        let mut request = solicit();
        request.kind = MessageType::InformationRequest;
        request.options.0.retain(|(code, _)| *code != code::IA_NA);
        let plain = server.answers(&request);
        request.options.put(code::OPTION_REQUEST, [0, 32]);

        let reply = server.answers(&request);

        assert_eq!(reply.kind, MessageType::Reply);
        assert_eq!(reply.options.get(code::BOOT_FILE_URL), Some(URL.as_bytes()));
        assert_eq!(reply.options.get(code::REFRESH_TIME), Some(&600_u32.to_be_bytes()[..]));
        assert_eq!(plain.options.get(code::REFRESH_TIME), None);
        assert_eq!(reply.ias().count(), 0);
    }

    #[test]
    fn an_address_of_another_link_is_not_confirmed() {
        let mut server = Server::new();
        let reply = server.answers(&solicit());
        let confirm = |address: &str| {
            let mut confirm = next(MessageType::Confirm, &reply);
            confirm.options.0.retain(|(code, _)| ![code::SERVER_ID, code::IA_NA].contains(code));
            let mut inner = vec![0; 12];
            let mut options = Options::default();
            let octets = address.parse::<Ipv6Addr>().unwrap().octets();
            options.put(code::IA_ADDRESS, [&octets[..], &[0; 8]].concat());
            options.emit_into(&mut inner);
            confirm.options.put(code::IA_NA, inner);
            confirm
        };

        let status = |message: Message| message.options.get(code::STATUS).unwrap()[1];
        assert_eq!(status(server.answers(&confirm("fd00::11"))), 0);
        assert_eq!(status(server.answers(&confirm("fd99::11"))), 4);
    }

    #[test]
    fn a_rapid_commit_is_answered_at_once() {
        let mut server = Server::new();
        let mut rapid = solicit();
        rapid.options.put(code::RAPID_COMMIT, []);

        let reply = server.answers(&rapid);

        assert_eq!(reply.kind, MessageType::Reply);
        assert!(reply.options.get(code::RAPID_COMMIT).is_some());
        assert!(server.leases.of(&WHO).unwrap().until() > 1_060, "it is bound, not only offered");
    }

    #[test]
    fn a_client_that_uses_anothers_address_is_told_to_stop() {
        let mut server = Server::new();
        server.leases.offer([8; 16], None, Claim::Known, 1_000).unwrap();
        let advertise = server.answers(&solicit());
        let mut request = next(MessageType::Request, &advertise);
        let foreign = server.leases.of(&[8; 16]).unwrap().address;
        let ia = request.options.0.iter_mut().find(|(code, _)| *code == code::IA_NA).unwrap();
        ia.1[16..32].copy_from_slice(&foreign.octets());

        let reply = server.answers(&request);

        assert_eq!(reply.ias().count(), 1, "an association is answered once (RFC 8415 §18.3.2)");
        let inner = Options::parse(&reply.options.get(code::IA_NA).unwrap()[12..]).unwrap();
        let told: Vec<_> = inner.all(code::IA_ADDRESS).collect();
        assert_eq!(told[0][..16], address(&advertise).octets());
        assert_eq!(told[1], [&foreign.octets()[..], &[0; 8]].concat());
    }

    #[test]
    fn a_machine_that_should_not_boot_hears_nothing() {
        let mut server = Server::new();

        let decision = server.takes(&solicit(), &Answer::Nothing);

        assert_eq!(decision, Decision::Silent(Silence::Nothing));
    }
}
