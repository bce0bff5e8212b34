//! The peers of a port for machines: who is expected, and whose TLS handshakes fail.

use std::net::IpAddr;

use nodes::{NodeIndex, Recorder};
use provision::BootEventKind;
use provision::trace::{HandshakePort, TlsFailure};
use tracing::info;
use transport::http_server::{HandshakeFailure, PortPeers, TlsAlert};
use transport::repeats::line;

/// Largest number of booting machines at one address whose traces get its failed handshakes. With more of them, a
/// failure says little about each.
const MOST_MACHINES: usize = 16;

/// The peers of one port for machines. Failed handshakes are in the traces of the nodes whose machines have the client's
/// address, else in the log.
#[derive(Clone, Debug)]
pub struct MachinePeers {
    index: NodeIndex,
    recorder: Recorder,
    port: HandshakePort,
}

impl MachinePeers {
    /// The peers of this port.
    #[must_use]
    pub fn new(index: NodeIndex, recorder: Recorder, port: HandshakePort) -> Self {
        Self { index, recorder, port }
    }

    fn log(&self, remote: IpAddr, failure: &HandshakeFailure, whose: &str) {
        // Where there is no certificate, the listener says so itself.
        if matches!(failure, HandshakeFailure::NoCertificate(_)) {
            return;
        }
        let (port, words) = (self.port, tls_failure(failure));
        if let Some(more) = line("failed handshake", (port, remote, &words)) {
            info!("a TLS handshake of {remote} with {port} failed: {words}; {whose}{more}");
        }
    }
}

impl PortPeers for MachinePeers {
    /// In a current boot, a machine got this address, or fetched from it; several machines, behind NAT.
    fn expects(&self, remote: IpAddr) -> bool {
        self.recorder.addresses().is_of_machines(remote)
    }

    /// An address proves nothing, and behind NAT it is that of several machines: each of their traces gets the failure
    /// with their number, and repetitions at growing intervals, since others cause them as well.
    fn handshake_failed(&self, remote: IpAddr, failure: &HandshakeFailure) {
        let nodes = self.recorder.addresses().nodes_at(remote);
        let words = tls_failure(failure);
        match nodes.len() {
            0 => self.log(remote, failure, "no booting machine is known at this address"),
            1..=MOST_MACHINES => {
                let machines = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
                for node in nodes {
                    let Some((node, _)) = self.index.by_uuid(node) else { continue };
                    let attempt = node.attempt.as_ref().map(|attempt| attempt.id);
                    let kind = (attempt, self.port, remote, &words);
                    if machines == 1 || line("failed handshake of one of several", kind).is_some() {
                        let (failure, port) = (words.clone(), self.port);
                        let what = BootEventKind::TlsHandshake { remote, failure, port, machines };
                        self.recorder.record(&node, what);
                    }
                }
            }
            several => {
                let whose = format!("it may be of any of {several} booting machines");
                self.log(remote, failure, &whose);
            }
        }
    }
}

/// The trace's form of a failure.
fn tls_failure(failure: &HandshakeFailure) -> TlsFailure {
    match failure {
        HandshakeFailure::Alert(TlsAlert(alert)) => TlsFailure::Alert { alert: *alert },
        HandshakeFailure::NoCommonCipher => TlsFailure::NoCommonCipher,
        HandshakeFailure::NoCommonVersion => TlsFailure::NoCommonVersion,
        HandshakeFailure::NotTls => TlsFailure::NotTls,
        HandshakeFailure::PlainPort => TlsFailure::PlainPort,
        HandshakeFailure::Expired => TlsFailure::Expired,
        HandshakeFailure::Closed => TlsFailure::Closed,
        HandshakeFailure::NoCertificate(_) | HandshakeFailure::Other(_) => {
            TlsFailure::Other { words: failure.to_string() }
        }
    }
}

#[cfg(test)]
mod tests {
    use nodes::Backlog;
    use provision::Node;
    use provision::test_nodes::booting_node;
    use uuid::Uuid;

    use super::*;

    const REMOTE: [u8; 4] = [192, 0, 2, 7];

    /// So many booting machines behind one address, and the recorded events.
    async fn with_machines(machines: u8, port: HandshakePort) -> (MachinePeers, Backlog) {
        let (index, (recorder, backlog)) = (NodeIndex::default(), Recorder::new());
        for _ in 0..machines {
            // Tests share the table of repetitions.
            let id = Uuid::new_v4();
            let mut node = Node { uuid: id, ..booting_node() };
            node.attempt.as_mut().unwrap().id = id;
            recorder.addresses().fetches(&node, REMOTE.into()).await;
            index.put_node(node);
        }
        (MachinePeers::new(index, recorder, port), backlog)
    }

    fn recorded(backlog: &mut Backlog) -> Vec<BootEventKind> {
        std::iter::from_fn(|| backlog.recorded.try_recv().ok()).map(|it| it.event.what).collect()
    }

    #[tokio::test]
    async fn machines_behind_one_address_are_expected_there_as_a_single_one_is() {
        for (machines, port) in
            [(1, HandshakePort::Boot), (1, HandshakePort::Agents), (2, HandshakePort::Agents)]
        {
            let (peers, _backlog) = with_machines(machines, port).await;

            assert!(peers.expects(REMOTE.into()), "{machines}");
            assert!(!peers.expects([192, 0, 2, 8].into()), "{machines}");
        }
        assert!(!with_machines(0, HandshakePort::Boot).await.0.expects(REMOTE.into()));
    }

    #[tokio::test]
    async fn each_of_several_machines_at_an_address_has_the_failure_with_their_number() {
        for (machines, events) in [(0, 0), (1, 1), (3, 3), (16, 16), (17, 0)] {
            let (peers, mut backlog) = with_machines(machines, HandshakePort::Agents).await;

            peers.handshake_failed(REMOTE.into(), &HandshakeFailure::Closed);

            let what = BootEventKind::TlsHandshake {
                remote: REMOTE.into(),
                failure: TlsFailure::Closed,
                port: HandshakePort::Agents,
                machines: machines.into(),
            };
            assert_eq!(recorded(&mut backlog), vec![what; events], "{machines}");
        }
    }

    #[tokio::test]
    async fn repetitions_at_an_address_of_several_machines_fill_no_trace() {
        let (peers, mut backlog) = with_machines(2, HandshakePort::Boot).await;

        for _ in 0..100 {
            peers.handshake_failed(REMOTE.into(), &HandshakeFailure::Closed);
            peers.handshake_failed(REMOTE.into(), &HandshakeFailure::PlainPort);
        }

        assert_eq!(recorded(&mut backlog).len(), 4);
    }
}
