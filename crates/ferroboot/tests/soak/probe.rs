//! Checks that the service answers a well-behaved client, on every port.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use crate::links::{ADDRESS, FirmwareLink};

/// Timeout of an answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(100);
/// A machine that is not a port of any node.
const STRANGER: [u8; 6] = [0x52, 0x54, 0, 0xff, 0, 1];

/// Sends requests to every port.
#[derive(Clone)]
pub(crate) struct PortProbe {
    http: Client,
    link: FirmwareLink,
}

/// The probed ports.
pub(crate) const PORTS: [&str; 6] = ["API", "agents", "boot", "DHCPv4", "DHCPv6", "TFTP"];

impl PortProbe {
    pub(crate) fn new(link: FirmwareLink) -> Self {
        let http = Client::builder()
            .local_address(IpAddr::from(Ipv4Addr::new(127, 2, 0, 1)))
            .timeout(ANSWERS_WITHIN)
            // Each probe is a new connection: the probe tests whether those are accepted.
            .pool_max_idle_per_host(0)
            .no_proxy()
            .build()
            .unwrap();
        Self { http, link }
    }

    /// The longest response time of a port, in milliseconds; or the ports that do not answer `within` this time.
    pub(crate) async fn all_answer(&self, within: Duration) -> Result<u64, Vec<&'static str>> {
        let began = Instant::now();
        let mut silent = PORTS.to_vec();
        loop {
            let mut still = Vec::new();
            for port in silent {
                if !self.answers(port).await {
                    still.push(port);
                }
            }
            let took = began.elapsed();
            if still.is_empty() {
                return Ok(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            }
            if took > within {
                return Err(still);
            }
            silent = still;
            sleep(AGAIN).await;
        }
    }

    async fn answers(&self, port: &str) -> bool {
        match port {
            "API" => self.answers_http("http://127.0.0.1:6385/").await,
            "agents" => self.answers_http("http://127.0.0.1:6386/").await,
            "boot" => self.answers_http("http://127.0.0.1:8080/boot/x/boot.iso").await,
            "DHCPv4" => self.link.is_offered4(STRANGER).await,
            "DHCPv6" => self.link.is_offered6(STRANGER).await,
            _ => tftp_answers().await,
        }
    }

    /// A refusal is also an answer.
    async fn answers_http(&self, url: &str) -> bool {
        self.http.get(url).send().await.is_ok()
    }
}

async fn tftp_answers() -> bool {
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0").await else { return false };
    let request = b"\0\x01snponly.efi\0octet\0";
    if socket.send_to(request, (ADDRESS, 69)).await.is_err() {
        return false;
    }
    let mut buffer = [0; 1_024];
    let Ok(Ok((_, from))) = timeout(Duration::from_secs(1), socket.recv_from(&mut buffer)).await
    else {
        return false;
    };
    // Ends the transfer, which the server would otherwise retransmit.
    let _ = socket.send_to(b"\0\x05\0\0done\0", from).await;
    true
}
