//! The server's decision about each message (RFC 8415 §18.3).

use std::net::Ipv6Addr;

use thiserror::Error;

use super::client_identity::Client;
use super::leases::{Identity, Owner, binding_id};
use super::options as code;
use super::packet::{Ia, Message, MessageType};
use super::reply::{Grant, Network, Status, add_grants, reply, status};
use crate::answer::Answer;
use crate::journal::LeaseRecord;
use crate::leases::{LeaseClaim, LeaseTable, Seconds};

/// `IRT_MINIMUM`: clients raise a shorter refresh time to this one, in seconds (RFC 8415 §7.6).
const SHORTEST_REFRESH: u32 = 600;
/// Number of associations in one message that get an address.
const MOST_ASSOCIATIONS: usize = 4;
/// The option codes of associations.
const ASSOCIATIONS: [u16; 3] = [code::IA_NA, code::IA_TA, code::IA_PD];

/// The decision about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this, once the records are in the journal.
    Send {
        /// The answer.
        reply: Message,
        /// The changes of leases.
        records: Vec<LeaseRecord<Ipv6Addr>>,
        /// The address that the client has or may have from this answer.
        address: Option<Ipv6Addr>,
        /// The reason for answering that no address is available.
        lacks: Option<NoReply>,
    },
    /// Stay silent.
    Silent(NoReply),
}

/// The reason for sending no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum NoReply {
    /// A server's message.
    #[error("clients do not send this type of message")]
    NotAClientsMessage,
    /// RFC 8415 §16: a message without a client identifier is not answered.
    #[error("the message has no client identifier")]
    NoClientId,
    /// The client chose another server.
    #[error("the client chose another server")]
    OtherServer,
    /// A forbidden option is present, or a required one is missing.
    #[error("the message has an option that it must not have, or lacks one that it must have")]
    Malformed,
    /// The policy gives this machine no answer.
    #[error("this machine gets no answer now")]
    Nothing,
    /// No address is left for the client.
    #[error("the address pool is exhausted: make it larger, or the leases shorter")]
    PoolExhausted,
    /// A SOLICIT without an association.
    #[error("the client names no association (IA_NA)")]
    NoAssociation,
    /// RFC 8415 §18.3.3: a CONFIRM without an address is not answered.
    #[error("the message has no address")]
    NoAddress,
}

impl NoReply {
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

/// Decides about a client's message.
///
/// It changes `leases`; the records of the decision hold every change that must survive a crash.
pub fn decide(
    request: &Message,
    client: &Client,
    answer: &Answer,
    claim: LeaseClaim,
    leases: &mut LeaseTable<Ipv6Addr>,
    network: &Network,
    now: Seconds,
) -> Decision {
    let owner = client.owner();
    let context = MessageContext { request, client, owner, answer, claim, leases, network, now };
    match context.run() {
        Ok(decision) => decision,
        Err(silence) => Decision::Silent(silence),
    }
}

struct MessageContext<'a> {
    request: &'a Message,
    client: &'a Client,
    owner: Owner,
    answer: &'a Answer,
    claim: LeaseClaim,
    leases: &'a mut LeaseTable<Ipv6Addr>,
    network: &'a Network,
    now: Seconds,
}

/// The results for the associations of a message.
struct Grants {
    grants: Vec<Grant>,
    records: Vec<LeaseRecord<Ipv6Addr>>,
    /// The reason for which no association got an address, although one could have.
    lacks: Option<NoReply>,
}

impl MessageContext<'_> {
    fn run(self) -> Result<Decision, NoReply> {
        self.check()?;
        match self.request.kind {
            MessageType::Solicit
            | MessageType::Request
            | MessageType::Renew
            | MessageType::Rebind => self.give(),
            MessageType::Confirm => self.confirm(),
            MessageType::Release => {
                Ok(self.give_back(|leases, identity, address, binding, now| {
                    leases.release(identity, address, binding, now).map(|record| vec![record])
                }))
            }
            MessageType::Decline => {
                Ok(self.give_back(|leases, identity, address, binding, now| {
                    let is_of_it = leases.bound(&identity, binding, now) == Some(address);
                    is_of_it.then(|| leases.decline(identity, address, now))?
                }))
            }
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
                Err(NoReply::NotAClientsMessage)
            }
        }
    }

    /// RFC 8415 §16: the required and forbidden options of each message.
    fn check(&self) -> Result<(), NoReply> {
        let options = &self.request.options;
        let server = options.get(code::SERVER_ID);
        let for_us = server.map(|server| server == self.network.duid);
        match self.request.kind {
            MessageType::Solicit | MessageType::Confirm | MessageType::Rebind => {
                for_us.map_or(Ok(()), |_| Err(NoReply::Malformed))?;
            }
            MessageType::Request
            | MessageType::Renew
            | MessageType::Release
            | MessageType::Decline => match for_us {
                Some(true) => {}
                Some(false) => return Err(NoReply::OtherServer),
                None => return Err(NoReply::Malformed),
            },
            MessageType::InformationRequest => {
                if for_us == Some(false) {
                    return Err(NoReply::OtherServer);
                }
                // RFC 8415 §16.12: an INFORMATION-REQUEST has no association.
                let names_one = ASSOCIATIONS.iter().any(|code| options.get(*code).is_some());
                return if names_one { Err(NoReply::Malformed) } else { Ok(()) };
            }
            MessageType::Advertise | MessageType::Reply | MessageType::Reconfigure => {
                return Err(NoReply::NotAClientsMessage);
            }
        }
        let has_id = options.get(code::CLIENT_ID).is_some_and(|duid| !duid.is_empty());
        if has_id { Ok(()) } else { Err(NoReply::NoClientId) }
    }

    fn expect_boot(&self) -> Result<(), NoReply> {
        if *self.answer == Answer::Nothing { Err(NoReply::Nothing) } else { Ok(()) }
    }

    /// Leases the client its addresses, one for a card, and refuses everything else that it requests (RFC 8415
    /// §18.3.1, §18.3.2, §18.3.4, §18.3.5, §18.3.9).
    fn give(mut self) -> Result<Decision, NoReply> {
        self.expect_boot()?;
        let mut ias: Vec<_> = self.request.ias().collect();
        if self.may_be_anothers() {
            ias.retain(|ia| self.is_bound(ia) || self.has_reserved(ia));
            if ias.is_empty() {
                return Err(NoReply::OtherServer);
            }
        }
        let others = self.refuse_others();
        let solicits = self.request.kind == MessageType::Solicit;
        if solicits && ias.is_empty() && others.is_empty() {
            return Err(NoReply::NoAssociation);
        }
        let hurries = self.request.options.get(code::RAPID_COMMIT).is_some();
        let commits = !solicits || (hurries && self.network.sole);
        let Grants { mut grants, records, lacks } = self.grants(&ias, commits);
        // A rapid commit without an address would bind nothing.
        let is_rapid = solicits && commits && grants.iter().any(Grant::says_something);
        let kind = if solicits && !is_rapid { MessageType::Advertise } else { MessageType::Reply };
        grants.extend(others);
        let mut decision = self.send(kind, &grants, records);
        if let Decision::Send { reply, lacks: why, .. } = &mut decision {
            *why = lacks;
            if is_rapid {
                reply.options.put(code::RAPID_COMMIT, []);
            }
        }
        Ok(decision)
    }

    /// The result for each association: its address is bound, or only set aside.
    fn grants(&mut self, ias: &[Ia], commits: bool) -> Grants {
        if matches!(self.request.kind, MessageType::Renew | MessageType::Rebind) {
            for (ia, address) in
                ias.iter().flat_map(|ia| ia.addresses.iter().map(move |at| (ia, at)))
            {
                self.leases.reclaim(self.identity(ia), *address, self.now);
            }
        }
        let chosen = self.chosen(ias, commits);
        let addresses: Vec<_> = (0..ias.len())
            .map(|at| chosen.contains(&at).then(|| self.offer(&ias[at])).flatten())
            .collect();
        let is_short = !chosen.is_empty() && addresses.iter().all(Option::is_none);
        let lacks = is_short.then_some(NoReply::PoolExhausted);
        let (mut grants, mut records) = (Vec::new(), Vec::new());
        for (ia, address) in ias.iter().zip(addresses) {
            if commits && self.is_elsewhere(ia) {
                grants.push(Grant::Refused { ia: ia.id, status: Status::NotOnLink });
                continue;
            }
            let Some(address) = address else {
                grants.push(Grant::Refused { ia: ia.id, status: self.refusal() });
                continue;
            };
            if commits {
                let (identity, binding) = (self.identity(ia), self.binding(ia.id));
                let secs = self.network.lease_secs;
                records.extend(
                    self.leases.bind(identity, address, binding, secs, self.claim, self.now),
                );
            }
            let instead_of = self.taken_back(ia, address);
            grants.push(Grant::Lease { ia: ia.id, address, instead_of });
        }
        Grants { grants, records, lacks }
    }

    fn offer(&mut self, ia: &Ia) -> Option<Ipv6Addr> {
        let (identity, wanted) = (self.identity(ia), ia.addresses.first().copied());
        self.leases.offer(identity, wanted, self.claim, self.now)
    }

    /// Whether another server may have bound the addresses. A REBIND goes to all servers, and a client must not lose
    /// an address of another server because of this one (RFC 8415 §18.3.5).
    fn may_be_anothers(&self) -> bool {
        let mut named = self.request.ias().flat_map(|ia| ia.addresses);
        self.request.kind == MessageType::Rebind
            && (!self.network.sole || named.any(|address| self.is_foreign(address)))
    }

    /// Whether an address is in the pool of another daemon, and is not given here.
    fn is_foreign(&self, address: Ipv6Addr) -> bool {
        let mut pools = self.network.foreign_pools.iter();
        !self.leases.gives(address) && pools.any(|pool| pool.contains(address))
    }

    /// Whether an association names the address that is reserved for it here. Every server that has the reservation may
    /// answer.
    fn has_reserved(&self, ia: &Ia) -> bool {
        let reserved = self.leases.reserved(&self.identity(ia));
        reserved.is_some_and(|reserved| ia.addresses.contains(&reserved))
    }

    /// Positions of the associations that get an address: for a card, the one that has it, otherwise the first.
    fn chosen(&self, ias: &[Ia], commits: bool) -> Vec<usize> {
        let may_have = |at: &usize| !(commits && self.is_elsewhere(&ias[*at]));
        let mut may_have = (0..ias.len()).filter(may_have);
        match self.owner {
            Owner::System(_) => may_have.take(MOST_ASSOCIATIONS).collect(),
            Owner::Card(_) => {
                let bound = may_have.clone().find(|at| self.is_bound(&ias[*at]));
                bound.or_else(|| may_have.next()).into_iter().collect()
            }
        }
    }

    fn identity(&self, ia: &Ia) -> Identity {
        self.owner.of_association(ia.id)
    }

    /// Whether a requesting client comes from another link: its address is not usable here (RFC 8415 §18.3.2).
    fn is_elsewhere(&self, ia: &Ia) -> bool {
        let asks = matches!(self.request.kind, MessageType::Solicit | MessageType::Request);
        asks && !ia.addresses.iter().all(|address| self.network.net.contains(address))
    }

    /// The addresses that the client must stop using at once. They concern only clients that renew or rebind (RFC
    /// 8415 §18.3.4, §18.3.5).
    fn taken_back(&self, ia: &Ia, own: Ipv6Addr) -> Vec<Ipv6Addr> {
        match self.request.kind {
            MessageType::Renew | MessageType::Rebind => {
                let all = ia.addresses.iter().copied();
                all.filter(|address| *address != own && !self.is_foreign(*address)).collect()
            }
            MessageType::Solicit
            | MessageType::Advertise
            | MessageType::Request
            | MessageType::Confirm
            | MessageType::Reply
            | MessageType::Release
            | MessageType::Decline
            | MessageType::Reconfigure
            | MessageType::InformationRequest => Vec::new(),
        }
    }

    /// The status for an association that gets no address.
    fn refusal(&self) -> Status {
        match self.request.kind {
            MessageType::Renew | MessageType::Rebind => Status::NoBinding,
            MessageType::Solicit
            | MessageType::Advertise
            | MessageType::Request
            | MessageType::Confirm
            | MessageType::Reply
            | MessageType::Release
            | MessageType::Decline
            | MessageType::Reconfigure
            | MessageType::InformationRequest => Status::NoAddresses,
        }
    }

    /// Refuses IA_TA and IA_PD: every association needs an answer (RFC 8415 §18.3.2), and the server leases neither.
    fn refuse_others(&self) -> Vec<Grant> {
        if self.may_be_anothers() {
            return Vec::new();
        }
        let temporary = self.refuse_all(code::IA_TA, Status::NoAddresses);
        temporary.chain(self.refuse_all(code::IA_PD, Status::NoPrefixes)).collect()
    }

    fn refuse_all(&self, option: u16, status: Status) -> impl Iterator<Item = Grant> {
        let named = self.request.options.all(option).filter_map(|value| value.first_chunk());
        named.map(move |ia| Grant::None { option, ia: u32::from_be_bytes(*ia), status })
    }

    fn binding(&self, ia: u32) -> u64 {
        binding_id(&self.client.duid, ia)
    }

    fn is_bound(&self, ia: &Ia) -> bool {
        self.leases.bound(&self.identity(ia), self.binding(ia.id), self.now).is_some()
    }

    /// Whether the client's addresses are still on its link (RFC 8415 §18.3.3).
    fn confirm(self) -> Result<Decision, NoReply> {
        let mut addresses = self.request.ias().flat_map(|ia| ia.addresses).peekable();
        addresses.peek().ok_or(NoReply::NoAddress)?;
        let (kind, words) = if addresses.all(|address| self.network.net.contains(&address)) {
            (Status::Success, "all addresses are still on this link")
        } else {
            (Status::NotOnLink, "an address is of another link")
        };
        let reply = status(self.request, kind, words, self.network);
        Ok(Decision::Send { reply, records: Vec::new(), address: None, lacks: None })
    }

    fn give_back(
        self,
        back: impl Fn(
            &mut LeaseTable<Ipv6Addr>,
            Identity,
            Ipv6Addr,
            u64,
            Seconds,
        ) -> Option<Vec<LeaseRecord<Ipv6Addr>>>,
    ) -> Decision {
        let (mut records, mut unknown) = (Vec::new(), Vec::new());
        for ia in self.request.ias() {
            let (identity, binding) = (self.identity(&ia), self.binding(ia.id));
            let before = records.len();
            for address in ia.addresses {
                let changed = back(self.leases, identity, address, binding, self.now);
                records.extend(changed.into_iter().flatten());
            }
            if records.len() == before {
                unknown.push(Grant::Refused { ia: ia.id, status: Status::NoBinding });
            }
        }
        for option in [code::IA_TA, code::IA_PD] {
            unknown.extend(self.refuse_all(option, Status::NoBinding));
        }
        // RFC 8415 §18.3.7: the status is success in any case; unknown associations get NoBinding.
        let mut reply = status(self.request, Status::Success, "", self.network);
        add_grants(&mut reply.options, &unknown, self.network);
        Decision::Send { reply, records, address: None, lacks: None }
    }

    fn send(
        self,
        kind: MessageType,
        grants: &[Grant],
        records: Vec<LeaseRecord<Ipv6Addr>>,
    ) -> Decision {
        let url = match self.answer {
            Answer::Boot(url) => Some(url.as_str()),
            // A file name without a URL is meaningless in DHCPv6 (RFC 5970 §3.1).
            Answer::Tftp { .. } | Answer::Address | Answer::Nothing => None,
        };
        let address = grants.iter().find_map(|grant| match grant {
            Grant::Lease { address, .. } => Some(*address),
            Grant::Refused { .. } | Grant::None { .. } => None,
        });
        let reply = reply(self.request, kind, self.client.kind, grants, url, self.network);
        Decision::Send { reply, records, address, lacks: None }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::super::leases::Identity;
    use super::super::packet::tests::{OVMF_SOLICIT, bytes};
    use super::super::packet::{Options, Packet};
    use super::*;
    use crate::leases::LeasePool;

    const URL: &str = "http://[fd00::1]:8080/boot/x/bootx64.efi";

    struct Server {
        leases: LeaseTable<Ipv6Addr>,
        network: Network,
    }

    impl Server {
        fn new() -> Self {
            let pool =
                LeasePool { first: "fd00::10".parse().unwrap(), last: "fd00::1f".parse().unwrap() };
            let network = Network {
                net: "fd00::/64".parse().unwrap(),
                duid: vec![0, 2, 9],
                sole: true,
                dns: Vec::new(),
                domain: None,
                ntp: Vec::new(),
                lease_secs: 600,
                foreign_pools: std::sync::Arc::default(),
            };
            Self { leases: LeaseTable::new(pool, []), network }
        }

        fn takes(&mut self, request: &Message, answer: &Answer) -> Decision {
            self.takes_from("fe80::5054:ff:feaa:bb01", request, answer)
        }

        fn takes_from(&mut self, from: &str, request: &Message, answer: &Answer) -> Decision {
            let client = client(from, request);
            decide(
                request,
                &client,
                answer,
                LeaseClaim::Known,
                &mut self.leases,
                &self.network,
                1_000,
            )
        }

        fn answers(&mut self, request: &Message) -> Message {
            self.answers_from("fe80::5054:ff:feaa:bb01", request)
        }

        fn answers_from(&mut self, from: &str, request: &Message) -> Message {
            match self.takes_from(from, request, &Answer::Boot(URL.to_owned())) {
                Decision::Send { reply, .. } => reply,
                Decision::Silent(why) => panic!("silent: {why}"),
            }
        }
    }

    fn client(from: &str, request: &Message) -> Client {
        let packet = Packet { relays: Vec::new(), message: request.clone() };
        Client::identify(&packet, from.parse().unwrap())
    }

    /// The owner of the address that firmware requests.
    fn who() -> Identity {
        client("fe80::5054:ff:feaa:bb01", &solicit()).owner().identity()
    }

    fn solicit() -> Message {
        Packet::parse(&bytes(OVMF_SOLICIT)).unwrap().message
    }

    /// A running system's message: the machine's DUID, and no boot options.
    fn system(kind: MessageType, ias: &[Vec<u8>]) -> Message {
        let mut message = Message { kind, ..about(&solicit(), ias) };
        let of_boot = [code::VENDOR_CLASS, code::ARCHITECTURE, code::OPTION_REQUEST];
        message.options.0.retain(|(code, _)| !of_boot.contains(code));
        if kind != MessageType::Solicit {
            message.options.put(code::SERVER_ID, [0, 2, 9]);
        }
        message
    }

    /// The addresses in an answer, for each association.
    fn given(server: &mut Server, from: &str, request: &Message) -> Vec<Option<Ipv6Addr>> {
        match server.takes_from(from, request, &Answer::Address) {
            Decision::Send { reply, .. } => associations(&reply)
                .iter()
                .map(|(_, _, all)| all.first().map(|(at, _)| *at))
                .collect(),
            Decision::Silent(why) => panic!("silent: {why}"),
        }
    }

    /// The client's next message, with the server and the addresses of `reply`.
    fn next(kind: MessageType, reply: &Message) -> Message {
        let mut options = solicit().options;
        options.0.retain(|(code, _)| *code != code::IA_NA);
        for keep in [code::SERVER_ID, code::IA_NA] {
            options.put(keep, reply.options.get(keep).unwrap());
        }
        Message { kind, transaction: [9, 9, 9], options }
    }

    fn address(message: &Message) -> Ipv6Addr {
        message.ias().next().unwrap().addresses[0]
    }

    /// An association with these addresses.
    fn ia(id: u32, addresses: &[&str]) -> Vec<u8> {
        let mut value = [id, 0, 0].map(u32::to_be_bytes).concat();
        let mut held = Options::default();
        for address in addresses {
            let octets = address.parse::<Ipv6Addr>().unwrap().octets();
            held.put(code::IA_ADDRESS, [&octets[..], &[0; 8]].concat());
        }
        held.emit_into(&mut value);
        value
    }

    /// The same message with other associations.
    fn about(message: &Message, ias: &[Vec<u8>]) -> Message {
        let mut message = message.clone();
        message.options.0.retain(|(code, _)| *code != code::IA_NA);
        message.options.0.extend(ias.iter().map(|ia| (code::IA_NA, ia.clone())));
        message
    }

    /// An association of addresses: its number, its status, and each address with its lifetime.
    type RepliedAssociation = (u32, Option<u8>, Vec<(Ipv6Addr, u32)>);

    fn associations(reply: &Message) -> Vec<RepliedAssociation> {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let of = |value: &[u8]| {
            let inner = Options::parse(&value[12..]);
            let address = |value: &[u8]| {
                let octets: [u8; 16] = value[..16].try_into().unwrap();
                (octets.into(), number(&value[20..24]))
            };
            let addresses = inner.all(code::IA_ADDRESS).map(address).collect();
            let status = inner.get(code::STATUS).map(|status| status[1]);
            (number(&value[..4]), status, addresses)
        };
        reply.options.all(code::IA_NA).map(of).collect()
    }

    /// A client with the first address for its first association.
    fn bound(server: &mut Server) -> (Message, Ipv6Addr, u32) {
        let reply = server.answers(&solicit());
        let reply = server.answers(&next(MessageType::Request, &reply));
        let ia = reply.ias().next().unwrap();
        (reply, ia.addresses[0], ia.id)
    }

    /// Link-local addresses that contain no MAC address.
    const HIDING: [&str; 2] = ["fe80::a1", "fe80::a2"];

    #[test]
    fn machines_with_one_duid_that_hide_their_cards_have_an_address_each() {
        let mut server = Server::new();
        let [one, other] = HIDING;

        let mut all = Vec::new();
        for (from, id) in [(one, 1), (other, 1), (one, 2)] {
            let asked = system(MessageType::Request, &[ia(id, &[])]);
            let first = given(&mut server, from, &asked);
            assert_eq!(given(&mut server, from, &asked), first, "asked again");
            all.extend(first.into_iter().map(Option::unwrap));
        }

        all.sort();
        all.dedup();
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn two_associations_in_one_message_of_a_system_have_an_address_each() {
        let mut server = Server::new();
        let ias: Vec<_> = (1..=6).map(|id| ia(id, &[])).collect();

        let given = given(&mut server, HIDING[0], &system(MessageType::Request, &ias));

        let mut some: Vec<_> = given.iter().flatten().collect();
        some.dedup();
        assert_eq!((some.len(), given.len()), (MOST_ASSOCIATIONS, 6));
    }

    #[test]
    fn firmware_that_hides_its_card_has_one_address_with_every_association_and_its_twin_another() {
        let mut server = Server::new();
        let mut asks = |from, id| {
            let mut request = about(&solicit(), &[ia(id, &[])]);
            request.kind = MessageType::Request;
            request.options.put(code::SERVER_ID, [0, 2, 9]);
            given(&mut server, from, &request)[0].unwrap()
        };
        let [one, other] = HIDING;

        let first = asks(one, 1);

        assert_eq!(asks(one, 2), first);
        assert_ne!(asks(other, 1), first);
    }

    #[test]
    fn what_a_machine_has_in_use_is_not_its_twins_that_names_it() {
        let mut server = Server::new();
        let [one, other] = HIDING;
        let had = given(&mut server, one, &system(MessageType::Request, &[ia(1, &[])]))[0].unwrap();
        let held = ia(1, &[&had.to_string()]);

        for kind in [MessageType::Renew, MessageType::Release, MessageType::Decline] {
            server.takes_from(other, &system(kind, slice::from_ref(&held)), &Answer::Address);
        }

        let uses = |owner: Identity| server.leases.of(&owner).unwrap().address;
        let [one, other] = [one, other].map(|from| client(from, &system(MessageType::Renew, &[])));
        assert_eq!(uses(one.owner().of_association(1)), had);
        assert_ne!(uses(other.owner().of_association(1)), had);
    }

    #[test]
    fn a_client_identifier_of_nothing_is_none() {
        let mut request = solicit();
        request.options.0.retain(|(code, _)| *code != code::CLIENT_ID);
        request.options.put(code::CLIENT_ID, []);

        let decision = Server::new().takes(&request, &Answer::Address);

        assert_eq!(decision, Decision::Silent(NoReply::NoClientId));
    }

    #[test]
    fn an_exhausted_pool_does_not_bind_a_client_in_a_hurry_to_nothing() {
        let mut server = Server::new();
        let one = "fd00::10".parse().unwrap();
        server.leases = LeaseTable::new(LeasePool { first: one, last: one }, [([9; 16], one)]);
        let mut hurried = solicit();
        hurried.options.put(code::RAPID_COMMIT, []);

        let decision = server.takes(&hurried, &Answer::Boot(URL.to_owned()));

        let Decision::Send { reply, lacks, .. } = decision else { panic!("{decision:?}") };
        assert_eq!(lacks, Some(NoReply::PoolExhausted));
        assert_eq!(reply.kind, MessageType::Advertise);
        assert_eq!(associations(&reply), [(0xdce5_1bc0, Some(2), Vec::new())]);
        assert_eq!(reply.options.get(code::STATUS), None, "it is in the association");
        let nobody_is_waited_for = reply.options.get(code::PREFERENCE);
        assert_eq!(nobody_is_waited_for, None, "another server may have one");
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
    fn an_association_that_gets_nothing_is_told_so_and_firmware_takes_the_other() {
        let mut server = Server::new();
        let mut two = solicit();
        two.options.put(code::IA_NA, [0; 12]);
        two.options.put(code::IA_PD, [0; 12]);

        let advertise = server.answers(&two);

        assert_eq!(advertise.options.get(code::STATUS), None);
        let first = server.leases.pool().first;
        let expected = [(0xdce5_1bc0, None, vec![(first, 600)]), (0, Some(2), Vec::new())];
        assert_eq!(associations(&advertise), expected);
        let prefixes = advertise.options.get(code::IA_PD).unwrap();
        assert_eq!(Options::parse(&prefixes[12..]).get(code::STATUS).unwrap()[1], 6);
        let [asked, told] =
            [two, advertise].map(|message| Packet { relays: Vec::new(), message }.emit());
        let verdict = crate::firmware::v6::verdict(&asked, &told);
        assert_eq!(verdict, crate::firmware::OfferVerdict::Boots { url: URL.to_owned() });
    }

    #[test]
    fn who_wants_prefixes_alone_or_names_nothing_is_answered_all_the_same() {
        let mut server = Server::new();
        let (bound, ..) = bound(&mut server);
        let bare = |mut message: Message| {
            message.options.0.retain(|(code, _)| *code != code::IA_NA);
            message
        };
        let prefixes = |mut message: Message| {
            message.options.put(code::IA_PD, [7; 12]);
            message
        };
        let request = |kind| bare(next(kind, &bound));

        let advertise = server.answers(&prefixes(bare(solicit())));
        assert_eq!(advertise.kind, MessageType::Advertise);
        assert!(advertise.options.get(code::IA_PD).is_some());
        for kind in [MessageType::Request, MessageType::Renew] {
            let reply = server.answers(&prefixes(request(kind)));
            assert_eq!(reply.kind, MessageType::Reply);
            assert!(reply.options.get(code::IA_PD).is_some());
        }
        assert_eq!(server.answers(&request(MessageType::Request)).kind, MessageType::Reply);
        let nothing = server.takes(&bare(solicit()), &Answer::Address);
        assert_eq!(nothing, Decision::Silent(NoReply::NoAssociation));
    }

    #[test]
    fn who_asks_for_an_address_of_another_link_is_told_so_and_given_none() {
        let mut server = Server::new();
        let (bound, ..) = bound(&mut server);
        let elsewhere = |message| about(&message, &[ia(1, &["fd00::12", "fd99::5"])]);
        let mut rapid = solicit();
        rapid.options.put(code::RAPID_COMMIT, []);

        for request in [next(MessageType::Request, &bound), rapid] {
            let reply = server.answers(&elsewhere(request));
            assert_eq!(reply.kind, MessageType::Reply);
            assert_eq!(associations(&reply), [(1, Some(4), Vec::new())]);
        }
        let advertise = server.answers(&elsewhere(solicit()));
        assert_eq!(address(&advertise), address(&bound), "there it is a wish and no more");
    }

    #[test]
    fn the_association_that_has_the_address_keeps_it_wherever_it_stands() {
        let mut server = Server::new();
        let (bound, own, id) = bound(&mut server);
        let held = ia(id, &[&own.to_string()]);
        let renew = about(&next(MessageType::Renew, &bound), &[ia(99, &[]), held]);

        let reply = server.answers(&renew);

        assert_eq!(associations(&reply), [(99, Some(3), Vec::new()), (id, None, vec![(own, 600)])]);
    }

    #[test]
    fn another_servers_client_is_left_to_it() {
        let mut server = Server::new();
        let mut request = next(MessageType::Request, &server.answers(&solicit()));
        request.options.0.retain(|(code, _)| *code != code::SERVER_ID);
        request.options.put(code::SERVER_ID, [1, 2, 3]);

        let decision = server.takes(&request, &Answer::Address);

        assert_eq!(decision, Decision::Silent(NoReply::OtherServer));
    }

    #[test]
    fn a_client_of_another_server_that_rebinds_keeps_its_address() {
        let mut server = Server::new();
        server.network.sole = false;
        let mut rebind = next(MessageType::Rebind, &server.answers(&solicit()));
        rebind.options.0.retain(|(code, _)| *code != code::SERVER_ID);
        let decision = server.takes(&rebind, &Answer::Address);
        assert_eq!(decision, Decision::Silent(NoReply::OtherServer));

        let (_, own, id) = bound(&mut server);
        assert_eq!(address(&server.answers(&rebind)), own);
        // A second association of this machine, whose firmware has an address from this server.
        let theirs = ia(77, &["fd00::1b"]);
        let decision = server.takes(&about(&rebind, slice::from_ref(&theirs)), &Answer::Address);
        assert_eq!(decision, Decision::Silent(NoReply::OtherServer));
        let both = server.answers(&about(&rebind, &[theirs, ia(id, &[&own.to_string()])]));
        assert_eq!(associations(&both), [(id, None, vec![(own, 600)])]);
    }

    #[test]
    fn a_client_with_an_address_of_another_daemons_pool_is_left_to_that_daemon() {
        let mut server = Server::new();
        let mut rebind = next(MessageType::Rebind, &server.answers(&solicit()));
        rebind.options.0.retain(|(code, _)| *code != code::SERVER_ID);
        let theirs = about(&rebind, &[ia(77, &["fd00::2b"])]);
        let before = server.leases.clone();
        assert!(matches!(server.takes(&theirs, &Answer::Address), Decision::Send { .. }));
        server.leases = before;

        let (first, last) = ("fd00::20".parse().unwrap(), "fd00::2f".parse().unwrap());
        server.network.foreign_pools = [LeasePool { first, last }].into();

        let decision = server.takes(&theirs, &Answer::Address);
        assert_eq!(decision, Decision::Silent(NoReply::OtherServer));
        assert!(matches!(server.takes(&rebind, &Answer::Address), Decision::Send { .. }), "ours");
    }

    #[test]
    fn a_client_that_rebinds_its_reserved_address_gets_it_though_another_server_gave_it() {
        let reserved: Ipv6Addr = "fd00::2b".parse().unwrap();
        for sole in [true, false] {
            let mut server = Server::new();
            let mut rebind = next(MessageType::Rebind, &server.answers(&solicit()));
            rebind.options.0.retain(|(code, _)| *code != code::SERVER_ID);
            let rebind = about(&rebind, &[ia(77, &[&reserved.to_string()])]);
            server.network.sole = sole;
            let (first, last) = ("fd00::20".parse().unwrap(), "fd00::2f".parse().unwrap());
            server.network.foreign_pools = [LeasePool { first, last }].into();
            server.leases = LeaseTable::new(server.leases.pool(), []);
            let silent = Decision::Silent(NoReply::OtherServer);
            assert_eq!(server.takes(&rebind, &Answer::Address), silent, "not reserved here");

            server.leases = LeaseTable::new(server.leases.pool(), [(who(), reserved)]);

            assert_eq!(address(&server.answers(&rebind)), reserved);
        }
    }

    #[test]
    fn a_pool_that_was_taken_over_from_a_dead_daemon_is_answered_for() {
        let mut server = Server::new();
        let mut rebind = next(MessageType::Rebind, &server.answers(&solicit()));
        rebind.options.0.retain(|(code, _)| *code != code::SERVER_ID);
        server.network.foreign_pools = [server.leases.pool()].into();

        let own = server.leases.pool().last.to_string();
        let rebind = about(&rebind, &[ia(77, &[&own])]);

        assert!(matches!(server.takes(&rebind, &Answer::Address), Decision::Send { .. }));
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
        assert_eq!(server.leases.of(&who()).unwrap().until(), 1_000);
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
        assert_eq!(Options::parse(&unknown[0][12..]).get(code::STATUS).unwrap()[1], 3);
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
            let inner = Options::parse(&value[head..]);
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
        let confirm = |addresses: &[&str]| {
            let mut confirm = next(MessageType::Confirm, &reply);
            confirm.options.0.retain(|(code, _)| *code != code::SERVER_ID);
            about(&confirm, &[ia(1, addresses)])
        };

        let status = |message: Message| message.options.get(code::STATUS).unwrap()[1];
        assert_eq!(status(server.answers(&confirm(&["fd00::11"]))), 0);
        assert_eq!(status(server.answers(&confirm(&["fd99::11"]))), 4);
        assert_eq!(status(server.answers(&confirm(&["fd00::11", "fd99::11"]))), 4);
    }

    #[test]
    fn a_rapid_commit_is_answered_at_once() {
        let mut server = Server::new();
        let mut rapid = solicit();
        rapid.options.put(code::RAPID_COMMIT, []);

        let reply = server.answers(&rapid);

        assert_eq!(reply.kind, MessageType::Reply);
        assert!(reply.options.get(code::RAPID_COMMIT).is_some());
        assert!(server.leases.of(&who()).unwrap().until() > 1_060, "it is bound, not only offered");
    }

    #[test]
    fn a_client_that_uses_what_is_not_its_own_is_told_to_stop() {
        let mut server = Server::new();
        let (bound, own, id) = bound(&mut server);
        let used = ia(id, &["fd00::1a", &own.to_string(), "fd99::5"]);
        let renew = about(&next(MessageType::Renew, &bound), &[used]);

        let reply = server.answers(&renew);

        let others = ["fd00::1a", "fd99::5"].map(|other| (other.parse().unwrap(), 0));
        let all = [vec![(own, 600)], others.to_vec()].concat();
        assert_eq!(associations(&reply), [(id, None, all)], "an association is answered once");
    }

    #[test]
    fn who_asks_for_anothers_address_gets_its_own_and_hears_nothing_of_the_other() {
        let mut server = Server::new();
        server.leases.offer([8; 16], None, LeaseClaim::Known, 1_000).unwrap();
        let foreign = server.leases.of(&[8; 16]).unwrap().address;
        let advertise = server.answers(&solicit());
        let wishes = ia(1, &[&foreign.to_string()]);
        let request = about(&next(MessageType::Request, &advertise), &[wishes]);

        let reply = server.answers(&request);

        assert_eq!(associations(&reply), [(1, None, vec![(address(&advertise), 600)])]);
    }

    #[test]
    fn what_is_declined_without_being_had_is_kept_from_nobody() {
        let mut server = Server::new();
        let (bound, own, id) = bound(&mut server);
        let decline = next(MessageType::Decline, &bound);
        let refused = |reply: &Message| -> Vec<_> {
            associations(reply).iter().map(|(ia, status, _)| (*ia, *status)).collect()
        };

        let other_ia = server.answers(&about(&decline, &[ia(77, &[&own.to_string()])]));
        let other_address = server.answers(&about(&decline, &[ia(id, &["fd00::1f"])]));

        assert_eq!(refused(&other_ia), [(77, Some(3))]);
        assert_eq!(refused(&other_address), [(id, Some(3))]);
        assert_eq!(address(&server.answers(&solicit())), own);
        let really = about(&decline, &[ia(id, &["fd00::1f", &own.to_string()])]);
        assert_eq!(associations(&server.answers(&really)), []);
        assert_ne!(address(&server.answers(&solicit())), own);
    }

    #[test]
    fn a_machine_that_renews_keeps_its_address_whatever_was_declined_in_its_name() {
        for kind in [MessageType::Renew, MessageType::Rebind] {
            let mut server = Server::new();
            let (bound, own, id) = bound(&mut server);
            let forged = about(&next(MessageType::Decline, &bound), &[ia(id, &[&own.to_string()])]);
            assert_eq!(associations(&server.answers(&forged)), [], "it is believed");

            let mut renewal = next(kind, &bound);
            if kind == MessageType::Rebind {
                renewal.options.0.retain(|(code, _)| *code != code::SERVER_ID);
            }
            let renewed = server.answers(&renewal);

            assert_eq!(associations(&renewed), [(id, None, vec![(own, 600)])]);
        }
    }

    #[test]
    fn what_was_given_back_cannot_be_given_back_again_nor_can_prefixes() {
        let mut server = Server::new();
        let (bound, _, id) = bound(&mut server);
        let mut release = next(MessageType::Release, &bound);
        assert_eq!(associations(&server.answers(&release)), []);
        release.options.put(code::IA_PD, [7; 12]);

        let again = server.answers(&release);

        assert_eq!(associations(&again), [(id, Some(3), Vec::new())]);
        let prefixes = again.options.get(code::IA_PD).unwrap();
        assert_eq!(Options::parse(&prefixes[12..]).get(code::STATUS).unwrap()[1], 3);
    }

    #[test]
    fn a_system_that_asks_for_domain_and_time_servers_is_told_and_firmware_is_not() {
        let mut server = Server::new();
        let ntp: Ipv6Addr = "fd00::7b".parse().unwrap();
        server.network.domain = Some("hall.example".to_owned());
        server.network.ntp = vec![ntp];
        let mut asks = solicit();
        let wishes = [code::DOMAINS, code::SNTP, code::NTP].map(u16::to_be_bytes).concat();
        asks.options.put(code::OPTION_REQUEST, wishes);

        let [system, firmware] = [asks, solicit()].map(|request| server.answers(&request).options);

        assert_eq!(system.get(code::DOMAINS), Some(&b"\x04hall\x07example\0"[..]));
        assert_eq!(system.get(code::SNTP), Some(&ntp.octets()[..]));
        let servers = Options::parse(system.get(code::NTP).unwrap());
        assert_eq!(servers.get(1), Some(&ntp.octets()[..]));
        for code in [code::DOMAINS, code::SNTP, code::NTP] {
            assert_eq!(firmware.get(code), None);
        }
    }

    #[test]
    fn a_request_for_information_that_names_an_association_is_dropped() {
        let mut server = Server::new();
        for option in ASSOCIATIONS {
            let mut request = solicit();
            request.kind = MessageType::InformationRequest;
            request.options.0.retain(|(code, _)| *code != code::IA_NA);
            request.options.put(option, [0, 0, 0, 1]);

            let decision = server.takes(&request, &Answer::Address);

            assert_eq!(decision, Decision::Silent(NoReply::Malformed));
        }
    }

    #[test]
    fn a_machine_that_should_not_boot_hears_nothing() {
        let mut server = Server::new();

        let decision = server.takes(&solicit(), &Answer::Nothing);

        assert_eq!(decision, Decision::Silent(NoReply::Nothing));
    }
}
