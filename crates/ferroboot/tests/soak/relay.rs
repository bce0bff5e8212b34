//! A TCP relay that can delay, stall or cut connections, like a bad network.
//!
//! Its outgoing connections have the source address of the incoming ones.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// The fault of a relay's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayFault {
    None,
    /// Each piece is delayed by this time.
    Slow(Duration),
    /// Nothing arrives until the end of the fault.
    Stalled,
    /// Connections are reset, including new ones.
    Cut,
}

/// A relay with controllable faults.
#[derive(Clone, Debug)]
pub(crate) struct FaultyRelay(watch::Sender<RelayFault>);

impl FaultyRelay {
    /// Relays connections to `at` on to `to`.
    pub(crate) async fn start(at: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let (fault, seen) = watch::channel(RelayFault::None);
        tokio::spawn(async move {
            loop {
                // Without file descriptors it pauses.
                let Ok((stream, peer)) = listener.accept().await else {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                tokio::spawn(relay(stream, peer, to, seen.clone()));
            }
        });
        Self(fault)
    }

    pub(crate) fn set(&self, fault: RelayFault) {
        self.0.send_replace(fault);
    }
}

async fn relay(
    client: TcpStream,
    peer: SocketAddr,
    to: SocketAddr,
    mut fault: watch::Receiver<RelayFault>,
) {
    let (there, back) = (fault.clone(), fault.clone());
    let whole = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(peer.ip(), 0))?;
        let server = socket.connect(to).await?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::try_join!(pass(from_client, to_server, there), pass(from_server, to_client, back),)
    };
    tokio::select! {
        _ = whole => {}
        _ = fault.wait_for(|fault| *fault == RelayFault::Cut) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: watch::Receiver<RelayFault>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = from.read(&mut buffer).await?;
        let now = *fault.borrow();
        match now {
            RelayFault::Slow(late) => sleep(late).await,
            RelayFault::Stalled => {
                let _ = fault.wait_for(|fault| *fault != RelayFault::Stalled).await;
            }
            RelayFault::None | RelayFault::Cut => {}
        }
        if len == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..len]).await?;
    }
}
