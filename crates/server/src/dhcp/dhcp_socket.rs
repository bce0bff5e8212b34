//! The socket of a listener, which a test may replace.

use std::io;

/// Receives packets and sends answers.
pub(super) trait DhcpSocket {
    /// The source and destination addresses of a packet.
    type Arrival;
    /// An answer.
    type Reply;

    /// Waits for packets, and receives up to `most`, each with its sender.
    async fn receive(
        &self,
        packets: &mut Vec<(Vec<u8>, Self::Arrival)>,
        most: usize,
    ) -> io::Result<()>;

    /// Sends an answer.
    async fn send(&self, reply: &Self::Reply) -> io::Result<()>;
}
