//! The machine's clock, which may be wrong after years without power.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;
use tracing::{info, warn};

/// A deviation in seconds that certificates, logs and Ironic tolerate.
const NEAR_SECONDS: i64 = 5;

/// Seconds from NTP's era (1900) to Unix's (1970).
const NTP_TO_UNIX: i64 = 2_208_988_800;

/// Sets the clock to the time of `source`, unless the deviation is small.
pub fn set_if_far_off(now: Timestamp, source: &str) {
    let off = now.as_second() - Timestamp::now().as_second();
    if off.abs() <= NEAR_SECONDS {
        return;
    }
    match clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(now.as_second(), 0)) {
        Ok(()) => info!("the clock was off by {off} s: set to {now} after {source}"),
        Err(error) => warn!("the clock is off by {off} s and cannot be set: {error}"),
    }
}

/// Reads the time from an NTP server (RFC 4330, SNTP).
///
/// # Errors
///
/// The server does not answer within some seconds, or sends no usable time.
pub async fn ask(server: &str) -> Result<Timestamp> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut addresses = lookup_host((server, 123)).await.context("finding it")?;
    let address = addresses.next().context("it has no address")?;
    let socket = UdpSocket::bind(own(address)).await.context("opening a socket")?;
    socket.connect(address).await.context("finding a way to it")?;
    let mut request = [0; 48];
    // Leap indicator 0, version 4, mode 3 (client).
    request[0] = 0x23;
    socket.send(&request).await.context("sending")?;
    let mut answer = [0; 48];
    let len = timeout(PATIENCE, socket.recv(&mut answer))
        .await
        .context("it does not answer")?
        .context("receiving")?;
    match sntp_time(&answer[..len]) {
        Some(time) => Ok(time),
        None => bail!("it is not synchronized"),
    }
}

/// An unspecified local address and port of the same family.
pub fn own(theirs: SocketAddr) -> SocketAddr {
    match theirs {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The transmit time in a server's answer (RFC 4330 §4), if the server is synchronized.
pub fn sntp_time(answer: &[u8]) -> Option<Timestamp> {
    let answer: &[u8; 48] = answer.try_into().ok()?;
    let (leap, mode, stratum) = (answer[0] >> 6, answer[0] & 7, answer[1]);
    if leap == 3 || mode != 4 || stratum == 0 {
        return None;
    }
    let seconds = u32::from_be_bytes(answer[40..44].try_into().ok()?);
    // RFC 4330 §3: with the highest bit clear, the time counts from 2036.
    let era = if seconds >> 31 == 0 { 1_i64 << 32 } else { 0 };
    Timestamp::from_second(i64::from(seconds) + era - NTP_TO_UNIX).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_time_of_a_server_is_read() {
        let mut answer = [0; 48];
        answer[..2].copy_from_slice(&[0x24, 2]);
        answer[40..44].copy_from_slice(&3_913_056_000_u32.to_be_bytes());

        assert_eq!(sntp_time(&answer).unwrap().to_string(), "2024-01-01T00:00:00Z");
        answer[1] = 0;
        assert_eq!(sntp_time(&answer), None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(answer in prop::collection::vec(any::<u8>(), 0..60)) {
            sntp_time(&answer);
        }
    }
}
