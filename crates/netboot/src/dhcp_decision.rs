//! The decision about a packet, and its name in the counters.

use dhcp::limits::Exceeded;
use dhcp::v4::decide::NoReply as NoReply4;
use dhcp::v6::decide::NoReply as NoReply6;
use provision::boot::NoBoot;

/// The decision about a packet: the kind of answer, or the reason for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpDecision {
    /// An address was offered.
    Offer,
    /// An address was acknowledged.
    Ack,
    /// An address was refused: the client has moved to another network, or its lease has ended.
    Nak,
    /// A boot was sent without an address, which another server leases.
    Beside,
    /// The message needs no reply, or the reply contains no boot.
    Noted,
    /// The DHCPv4 server, or the proxy, sends no answer.
    V4(NoReply4),
    /// The DHCPv6 server sends no answer, or one without an address.
    V6(NoReply6),
    /// The client exceeds a rate limit.
    Exceeded(Exceeded),
    /// The node has nothing to boot.
    NoBoot(NoBoot),
    /// There is no URL that the client could fetch.
    NoUrl,
    /// The machine is not registered.
    Stranger,
    /// A relay sent the message from a network without a subnet.
    NoSubnet,
    /// The message cannot come from a host on this link.
    Forged,
    /// The packet cannot be read.
    Unreadable,
    /// The message is not one between clients and servers.
    OfOthers,
    /// The reply could not be sent.
    NotSent,
    /// The lease could not be written to the journal.
    NotWritten,
}

impl DhcpDecision {
    /// The name in the counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Ack => "ack",
            Self::Nak => "nak",
            Self::Beside => "beside",
            Self::Noted => "noted",
            Self::V4(why) => why.name(),
            Self::V6(why) => why.name(),
            Self::Exceeded(limit) => limit.name(),
            Self::NoBoot(why) => why.name(),
            Self::NoUrl => "no_url",
            Self::Stranger => "stranger",
            Self::NoSubnet => "no_subnet",
            Self::Forged => "forged",
            Self::Unreadable => "unreadable",
            Self::OfOthers => "not_a_clients_message",
            Self::NotSent => "not_sent",
            Self::NotWritten => "not_written",
        }
    }

    /// Whether the decision is usual in a working network, so that it needs no warning.
    #[must_use]
    pub fn is_ordinary(self) -> bool {
        match self {
            Self::Stranger | Self::Nak => true,
            Self::V4(why) => match why {
                NoReply4::OtherServer(_) | NoReply4::NothingToBoot | NoReply4::NotForAProxy => true,
                NoReply4::NotARequest
                | NoReply4::NotAClientsMessage
                | NoReply4::Nothing
                | NoReply4::PoolExhausted
                | NoReply4::NoneLeftForGuests
                | NoReply4::UnknownLease
                | NoReply4::NotJustLeased
                | NoReply4::ForeignPool
                | NoReply4::NoAddress => false,
            },
            Self::V6(why) => match why {
                NoReply6::OtherServer | NoReply6::NoAssociation => true,
                NoReply6::NotAClientsMessage
                | NoReply6::NoClientId
                | NoReply6::Malformed
                | NoReply6::Nothing
                | NoReply6::PoolExhausted
                | NoReply6::NoAddress => false,
            },
            Self::NoBoot(why) => match why {
                NoBoot::NotNow { .. } | NoBoot::AgentHasCalled => true,
                NoBoot::PortNotEnabled
                | NoBoot::PxeNotHttp
                | NoBoot::Architecture { .. }
                | NoBoot::NoBootSet { .. }
                | NoBoot::OtherCpuArch { .. }
                | NoBoot::NoIpxe { .. }
                | NoBoot::ArchitectureUnknown => false,
            },
            Self::Offer
            | Self::Ack
            | Self::Beside
            | Self::Noted
            | Self::Exceeded(_)
            | Self::NoUrl
            | Self::NoSubnet
            | Self::Forged
            | Self::Unreadable
            | Self::OfOthers
            | Self::NotSent
            | Self::NotWritten => false,
        }
    }

    /// Whether the client gets nothing to boot because of its node, not of its message.
    #[must_use]
    pub fn is_nothing_to_boot(self) -> bool {
        matches!(
            self,
            Self::V4(NoReply4::Nothing | NoReply4::NothingToBoot) | Self::V6(NoReply6::Nothing)
        )
    }
}
