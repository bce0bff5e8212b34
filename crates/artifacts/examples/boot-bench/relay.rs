//! A network with delay and loss, as TCP's user sees it: late data, and stops of a retransmission time-out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use rand::RngExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use transport::listen::listen;

use crate::storm::WINDOW;

/// Bytes of a TCP segment on Ethernet.
const SEGMENT: usize = 1448;
/// Linux' least retransmission time-out.
const TIMEOUT: Duration = Duration::from_millis(200);
/// Number of reads that are under way in one direction: a window of 64 KiB.
const UNDER_WAY: usize = 4;

/// The network between two hosts.
#[derive(Clone, Copy)]
pub(crate) struct NetworkPath {
    pub(crate) delay_ms: u64,
    pub(crate) loss_percent: f64,
}

pub(crate) async fn relay(
    address: SocketAddr,
    target: SocketAddr,
    path: NetworkPath,
    is_nat: bool,
) -> Result<()> {
    let listener = listen(address, "the relay")?;
    loop {
        let (near, peer) = listener.accept().await?;
        let from = match peer.ip() {
            IpAddr::V4(own) if !is_nat => own,
            IpAddr::V4(_) | IpAddr::V6(_) => Ipv4Addr::LOCALHOST,
        };
        tokio::spawn(async move { pass(near, target, from, path).await.ok() });
    }
}

async fn pass(
    near: TcpStream,
    target: SocketAddr,
    from: Ipv4Addr,
    path: NetworkPath,
) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    // The server must not fill buffers of the relay that no path has.
    socket.set_recv_buffer_size(WINDOW)?;
    socket.bind((from, 0).into())?;
    // The handshake takes a round trip.
    sleep(Duration::from_millis(path.delay_ms)).await;
    let far = socket.connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::try_join!(one_way(near_read, far_write, path), one_way(far_read, near_write, path))?;
    Ok(())
}

async fn one_way(
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    path: NetworkPath,
) -> Result<()> {
    let (sent, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let reading = async move {
        loop {
            let mut buffer = vec![0; 16 * 1024];
            let bytes = read.read(&mut buffer).await?;
            buffer.truncate(bytes);
            let at = Instant::now() + Duration::from_millis(path.delay_ms) / 2 + path.stop(bytes);
            if bytes == 0 || sent.send((at, buffer)).await.is_err() {
                return anyhow::Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = under_way.recv().await {
            sleep_until(at).await;
            write.write_all(&bytes).await?;
        }
        write.shutdown().await?;
        anyhow::Ok(())
    };
    tokio::try_join!(reading, writing)?;
    Ok(())
}

impl NetworkPath {
    /// The time for which lost segments stop the connection.
    fn stop(self, bytes: usize) -> Duration {
        let loss = (self.loss_percent / 100.0).clamp(0.0, 0.5);
        let mut random = rand::rng();
        let mut stop = Duration::ZERO;
        for _ in 0..bytes.div_ceil(SEGMENT) {
            let mut timeout = TIMEOUT;
            while random.random_bool(loss) {
                stop += timeout;
                timeout *= 2;
            }
        }
        stop
    }
}
