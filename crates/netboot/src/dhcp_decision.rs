//! What was decided about a packet, and the word that it is counted by.

use dhcp::limits::Exceeded;
use dhcp::v4::decide::NoReply as NoReply4;
use dhcp::v6::decide::NoReply as NoReply6;
use provision::boot::NoBoot;

/// What was decided about a packet: what the client got, or why it got nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpDecision {
    /// The client was offered an address.
    Offer,
    /// The client was given an address.
    Ack,
    /// The client was refused its address: it was on another network, or away for long.
    Nak,
    /// The client was told what to boot, beside the server that gives its address.
    Beside,
    /// The message wants no reply, or one that says nothing of a boot.
    Noted,
    /// The server for DHCPv4, or a proxy, says nothing.
    V4(NoReply4),
    /// The server for DHCPv6 says nothing, or that it has no address.
    V6(NoReply6),
    /// The client asks too often.
    Exceeded(Exceeded),
    /// There is nothing for the client to boot.
    NoBoot(NoBoot),
    /// There is no URL that the client could fetch.
    NoUrl,
    /// Nobody registered the machine.
    Stranger,
    /// A relay sent the message from where there is no subnet.
    NoSubnet,
    /// Nobody on our link can have sent the message so.
    Forged,
    /// The packet cannot be read.
    Unreadable,
    /// The message is one between others than clients and servers.
    OfOthers,
    /// The reply could not be sent.
    NotSent,
    /// The lease could not be written down.
    NotWritten,
}

impl DhcpDecision {
    /// A short name, for counters.
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

    /// Whether it is nobody's fault.
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
                | NoReply4::NotTold
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

    /// Whether the client gets nothing to boot, and the reason lies in its node rather than in its message.
    #[must_use]
    pub fn is_nothing_to_boot(self) -> bool {
        matches!(
            self,
            Self::V4(NoReply4::Nothing | NoReply4::NothingToBoot) | Self::V6(NoReply6::Nothing)
        )
    }
}
