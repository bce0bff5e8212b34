//! What happened in a boot attempt, exchange by exchange.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::boot::{Artifact, NoBoot};
use crate::mac::Mac;
use crate::state::ProvisionState;

/// One exchange of one attempt of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootEvent {
    /// When it was over.
    pub at: Timestamp,
    /// Of which attempt.
    pub attempt: Uuid,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

/// What an exchange was. Never holds a ticket, token or password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The node changed its state.
    State {
        /// From.
        from: ProvisionState,
        /// To.
        to: ProvisionState,
        /// Why, where the states alone do not say it.
        reason: Option<String>,
    },
    /// A call to the BMC.
    Redfish {
        /// What it was for, in words: `boot override`, `power on`, ….
        purpose: String,
        /// The HTTP method.
        method: String,
        /// The path.
        path: String,
        /// The answer's status, if one came.
        status: Option<u16>,
        /// What went wrong, in the BMC's or the transport's words.
        error: Option<String>,
    },
    /// A DHCP message and its answer.
    Dhcp {
        /// `DISCOVER`, `REQUEST`, ….
        message: String,
        /// From which of the node's ports.
        mac: Mac,
        /// What sort of client sent it.
        client: DhcpClient,
        /// Option 93.
        architecture: Option<u16>,
        /// What it got.
        answer: DhcpAnswer,
    },
    /// A request to the boot listener.
    Http {
        /// `HEAD` or `GET`.
        method: String,
        /// Which file; `None` if there is none of that name.
        artifact: Option<Artifact>,
        /// The path without its ticket.
        path: String,
        /// From where.
        remote: Option<IpAddr>,
        /// Its `User-Agent`.
        user_agent: Option<String>,
        /// The answer's status.
        status: u16,
        /// Why, for an error.
        error: Option<String>,
        /// `Content-Range`, where a part was asked for.
        range: Option<String>,
        /// Bytes of the body that were sent.
        sent: u64,
        /// Bytes of the body that there were to send.
        length: u64,
        /// Milliseconds from the request to the last byte.
        millis: u64,
    },
    /// The agent called, or was called.
    Agent {
        /// Which call: `lookup`, `heartbeat`, or the command's name.
        call: String,
        /// What came of it, in words.
        result: String,
        /// Whether it came to what it should.
        ok: bool,
    },
}

/// What sort of DHCP client asks, by what it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DhcpClient {
    /// UEFI HTTP boot.
    HttpClient,
    /// PXE firmware.
    PxeClient,
    /// iPXE.
    Ipxe,
    /// GRUB.
    Grub,
    /// Our ramdisk agent.
    Agent,
    /// Anything else: a running system.
    System,
}

impl fmt::Display for DhcpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpClient => "UEFI HTTP boot",
            Self::PxeClient => "PXE firmware",
            Self::Ipxe => "iPXE",
            Self::Grub => "GRUB",
            Self::Agent => "the ramdisk agent",
            Self::System => "a running system",
        })
    }
}

/// What a DHCP client got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum DhcpAnswer {
    /// An offer.
    Offer {
        /// The address.
        address: Ipv4Addr,
        /// What to boot, if told.
        artifact: Option<Artifact>,
    },
    /// An acknowledgement.
    Ack {
        /// The address.
        address: Ipv4Addr,
        /// What to boot, if told.
        artifact: Option<Artifact>,
    },
    /// A refusal of the address it asked for.
    Nak {
        /// In words.
        because: String,
    },
    /// Nothing, since it should not boot.
    NoBoot {
        /// Why.
        because: NoBoot,
    },
    /// Nothing, for a reason of DHCP itself: another server chosen, pool exhausted.
    Ignored {
        /// In words.
        because: String,
    },
}
