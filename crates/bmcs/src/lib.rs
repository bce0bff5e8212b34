//! Connections to BMCs: what carries the conversations of `redfish` over HTTP.
//!
//! A daemon has one [`BmcConnections`]. A [`BmcLink`] from it is the `BmcChannel` of one node, by the [`BmcSettings`]
//! of its `driver_info`. Links to one BMC share its session, its idle connections and its limit of requests at once.

mod certificate_refusal;
mod connect_failure;
mod connections;
mod connector;
mod firmware_certificate;
mod first_bytes;
mod http_client;
mod legacy_tls;
mod link;
mod login;
mod modern_tls;
mod record;
mod session_answer;
mod settings;
mod trust;

pub use self::connections::BmcConnections;
pub use self::firmware_certificate::{ServiceCertificates, firmware_certificate};
pub use self::link::{BmcLink, BmcObserver};
pub use self::settings::{
    BmcAuthType, BmcSettings, BmcTlsPolicy, BmcTrust, BmcUser, WrongBmcSetting,
};
