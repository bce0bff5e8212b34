//! A TFTP server for one file: iPXE, for PXE firmware.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use async_tftp::packet;
use async_tftp::server::{Handler, TftpServer, TftpServerBuilder};
use futures::io::{AsyncRead, Cursor, Sink};
use netboot::boot_answer::TFTP_FILE;
use netboot::tftp_limits::{NoTransfer, TransferCounts};
use nodes::AddressBook;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transport::repeats;

/// TFTP's port.
pub const PORT: u16 = 69;
/// Firmware with larger blocks gets IP fragments, which some firmware cannot reassemble.
const LARGEST_BLOCK: u16 = 1_468;
/// Number of blocks sent before the first acknowledgement (RFC 7440). EDK2 requests 4.
const LARGEST_WINDOW: u16 = 16;
/// Retransmission interval, whatever the client requests, and the number of tries; then the machine is considered
/// gone.
const AGAIN: Duration = Duration::from_secs(2);
const TIMES: u32 = 10;
/// Longest duration of a transfer. iPXE has about a megabyte.
const LONGEST: Duration = Duration::from_mins(5);
/// Largest file that may be iPXE, in bytes.
const LARGEST_FILE: u64 = 32 << 20;
/// Pause before a restart after a socket error.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// TFTP on one address.
pub struct Tftp {
    server: TftpServer<OneFile>,
    at: SocketAddrV4,
    file: OneFile,
}

/// The file, which is read on each request; clones share it.
#[derive(Clone)]
struct OneFile {
    path: PathBuf,
    transfers: Transfers,
    /// The last contents, while a transfer still uses them.
    contents: Arc<Mutex<Option<FileContents>>>,
}

/// Distinguishes a file from its replacement.
type FileStamp = (u64, Option<SystemTime>);

/// The contents of a file, as long as a transfer uses them.
type FileContents = (FileStamp, Weak<[u8]>);

impl Tftp {
    /// Opens the port; `ipxe` is the file, which is read on each request. `transfers` are those of all addresses of
    /// this host.
    ///
    /// # Errors
    /// The port is taken, or permission is missing.
    pub async fn open(at: SocketAddrV4, ipxe: PathBuf, transfers: Transfers) -> Result<Self> {
        let file = OneFile { path: ipxe, transfers, contents: Arc::default() };
        let server = bind(at, file.clone()).await;
        Ok(Self {
            server: server.with_context(|| format!("cannot answer TFTP on {at}"))?,
            at,
            file,
        })
    }

    /// Answers until `end`.
    pub async fn run(self, end: CancellationToken) {
        let Self { mut server, at, file } = self;
        loop {
            tokio::select! {
                ended = server.serve() => {
                    if let Err(error) = ended && let Some(more) = repeats::line("TFTP ended", at) {
                        warn!(%error, "TFTP on {at} failed, and is started again{more}");
                    }
                }
                () = end.cancelled() => return,
            }
            server = loop {
                tokio::select! {
                    () = sleep(AFTER_ERROR) => {}
                    () = end.cancelled() => return,
                }
                match bind(at, file.clone()).await {
                    Ok(server) => break server,
                    Err(error) => {
                        if let Some(more) = repeats::line("no TFTP", at) {
                            warn!(%error, "cannot answer TFTP on {at}{more}");
                        }
                    }
                }
            };
        }
    }
}

async fn bind(at: SocketAddrV4, file: OneFile) -> Result<TftpServer<OneFile>, async_tftp::Error> {
    TftpServerBuilder::with_handler(file)
        .bind(at.into())
        .timeout(AGAIN)
        .max_send_retries(TIMES)
        .ignore_client_timeout()
        .block_size_limit(LARGEST_BLOCK)
        .window_size_limit(LARGEST_WINDOW)
        .build()
        .await
}

impl Handler for OneFile {
    type Reader = Transfer;
    type Writer = Sink;

    async fn read_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
    ) -> Result<(Self::Reader, Option<u64>), packet::Error> {
        let client = client.ip();
        // Addresses are easily forged: all unknown ones count as one.
        let known = Some(client).filter(|client| self.transfers.known.is_of_machines(*client));
        // Some firmware puts a slash before it.
        if path.strip_prefix("/").unwrap_or(path) != Path::new(TFTP_FILE) {
            if let Some(more) = repeats::line("TFTP of another file", known) {
                let path: String = path.to_string_lossy().chars().take(80).collect();
                info!(
                    "{client} requests {path:?} over TFTP, which does not exist: only {TFTP_FILE} does{more}"
                );
            }
            return Err(packet::Error::FileNotFound);
        }
        let place = self.transfers.admit(client).map_err(|full| {
            if let Some(more) = repeats::line("too many TFTP transfers", full) {
                warn!("{client} gets no {TFTP_FILE} over TFTP now, since {}{more}", full.why());
            }
            packet::Error::Msg("too many transfers are under way".to_owned())
        })?;
        match self.read().await {
            Ok(contents) => {
                if let Some(more) = repeats::line("TFTP", known) {
                    info!("{client} fetches {TFTP_FILE} over TFTP{more}");
                }
                let len = contents.len() as u64;
                Ok((Transfer::new(contents, place), Some(len)))
            }
            Err(error) => {
                if let Some(more) = repeats::line("TFTP without iPXE", ()) {
                    let path = self.path.display();
                    warn!(%error, "{client} requests {TFTP_FILE} over TFTP, and {path} cannot be read{more}");
                }
                Err(packet::Error::FileNotFound)
            }
        }
    }

    async fn write_req_open(
        &mut self,
        _: &SocketAddr,
        _: &Path,
        _: Option<u64>,
    ) -> Result<Self::Writer, packet::Error> {
        Err(packet::Error::PermissionDenied)
    }
}

impl OneFile {
    /// The current file, in memory once for all transfers.
    async fn read(&self) -> io::Result<Arc<[u8]>> {
        let about = tokio::fs::metadata(&self.path).await?;
        if about.len() > LARGEST_FILE {
            return Err(io::Error::other("it is larger than any iPXE"));
        }
        let stamp = (about.len(), about.modified().ok());
        let known = |contents: &Option<FileContents>| match contents {
            Some((known, contents)) if *known == stamp => contents.upgrade(),
            Some(_) | None => None,
        };
        if let Some(contents) = known(&self.contents.lock().unwrap_or_else(PoisonError::into_inner))
        {
            return Ok(contents);
        }
        let contents: Arc<[u8]> = tokio::fs::read(&self.path).await?.into();
        *self.contents.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((stamp, Arc::downgrade(&contents)));
        Ok(contents)
    }
}

/// A transfer under way; dropping it ends it.
struct Transfer {
    contents: Cursor<Arc<[u8]>>,
    ends: Instant,
    _place: TransferPlace,
}

impl Transfer {
    fn new(contents: Arc<[u8]>, place: TransferPlace) -> Self {
        Self { contents: Cursor::new(contents), ends: Instant::now() + LONGEST, _place: place }
    }
}

impl AsyncRead for Transfer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // A client that acknowledges a block every second would otherwise be served for half an hour.
        if Instant::now() > self.ends {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.contents).poll_read(context, buffer)
    }
}

/// The current transfers; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Transfers {
    known: AddressBook,
    under_way: Arc<Mutex<TransferCounts>>,
}

impl Transfers {
    /// No transfers. `known` has the addresses of machines in current boots.
    #[must_use]
    pub fn new(known: AddressBook) -> Self {
        Self { known, under_way: Arc::default() }
    }

    fn admit(&self, client: IpAddr) -> Result<TransferPlace, NoTransfer> {
        let is_known = self.known.is_of_machines(client);
        self.with(|counts| counts.admit(client, is_known))?;
        Ok(TransferPlace { transfers: self.clone(), client, is_known })
    }

    fn with<T>(&self, act: impl FnOnce(&mut TransferCounts) -> T) -> T {
        act(&mut self.under_way.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The count that a transfer belongs to.
#[derive(Debug)]
struct TransferPlace {
    transfers: Transfers,
    client: IpAddr,
    is_known: bool,
}

impl Drop for TransferPlace {
    fn drop(&mut self) {
        let Self { transfers, client, is_known } = self;
        transfers.with(|counts| counts.end(*client, *is_known));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hardware::{ClientKind, Mac};
    use netboot::tftp_limits::OF_STRANGERS;
    use provision::BootEventKind;
    use provision::test_nodes::booting_node;
    use provision::trace::DhcpAnswer;
    use tokio::net::UdpSocket;

    use super::*;

    /// The answer to a request (RFC 1350 §5).
    async fn ask(opcode: u8, file: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let ipxe = dir.path().join("ipxe");
        std::fs::write(&ipxe, b"iPXE").unwrap();
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let tftp = Tftp::open(any, ipxe, Transfers::default()).await.unwrap();
        let at = tftp.server.listen_addr().unwrap();
        let end = CancellationToken::new();
        let serving = tokio::spawn(tftp.run(end.clone()));

        let client = UdpSocket::bind(any).await.unwrap();
        let request = [&[0, opcode], file.as_bytes(), b"\0octet\0"].concat();
        client.send_to(&request, at).await.unwrap();
        let mut buffer = [0; 600];
        let (len, from) = client.recv_from(&mut buffer).await.unwrap();
        client.send_to(&[0, 4, 0, 1], from).await.unwrap();

        end.cancel();
        serving.await.unwrap();
        buffer[..len].to_vec()
    }

    #[tokio::test]
    async fn firmware_gets_ipxe() {
        assert_eq!(ask(1, "snponly.efi").await, b"\0\x03\0\x01iPXE");
        assert_eq!(ask(1, "/snponly.efi").await, b"\0\x03\0\x01iPXE");
    }

    #[tokio::test]
    async fn nothing_else_is_there_and_nothing_can_be_written() {
        for (opcode, file) in [(1, "../../etc/passwd"), (1, "ipxe"), (2, "snponly.efi")] {
            let answer = ask(opcode, file).await;
            assert_eq!(answer[..2], [0, 5], "{file}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn thousands_of_requests_open_few_sockets_and_a_machine_in_a_boot_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let ipxe = dir.path().join("ipxe");
        std::fs::write(&ipxe, vec![7; 4_096]).unwrap();
        let (book, node) = (AddressBook::default(), booting_node());
        let machine = Ipv4Addr::new(127, 0, 0, 9);
        book.note(&node, &what(DhcpAnswer::Ack { address: machine.into(), artifact: None }));
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let transfers = Transfers::new(book);
        let tftp = Tftp::open(any, ipxe, transfers.clone()).await.unwrap();
        let at = tftp.server.listen_addr().unwrap();
        let end = CancellationToken::new();
        let serving = tokio::spawn(tftp.run(end.clone()));

        // Each is a separate request; its answer is never acknowledged.
        let mut strangers = Vec::new();
        let mut answer = [0; 600];
        for number in 0..400_u16 {
            let from = Ipv4Addr::new(127, 1, 0, u8::try_from(number / 10).unwrap());
            let stranger = UdpSocket::bind((from, 0)).await.unwrap();
            stranger.send_to(b"\0\x01snponly.efi\0octet\0", at).await.unwrap();
            stranger.recv_from(&mut answer).await.unwrap();
            strangers.push(stranger);
        }

        assert_eq!(transfers.with(|counts| counts.of_strangers()), OF_STRANGERS);
        let client = UdpSocket::bind((machine, 0)).await.unwrap();
        client.send_to(b"\0\x01snponly.efi\0octet\0", at).await.unwrap();
        client.recv_from(&mut answer).await.unwrap();
        assert_eq!(answer[..4], [0, 3, 0, 1], "the first block");
        end.cancel();
        serving.await.unwrap();
        drop(strangers);
        assert_eq!(
            transfers.with(|counts| counts.of_strangers()),
            0,
            "all are over with their server"
        );
    }

    fn what(answer: DhcpAnswer) -> BootEventKind {
        BootEventKind::Dhcp {
            message: "REQUEST".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            client: ClientKind::PxeClient,
            architecture: None,
            answer,
            unlisted: 0,
        }
    }

    #[tokio::test]
    async fn a_file_that_all_fetch_is_in_memory_once_and_read_anew_when_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipxe");
        std::fs::write(&path, b"one").unwrap();
        let file = OneFile {
            path: path.clone(),
            transfers: Transfers::default(),
            contents: Arc::default(),
        };

        let (first, again) = (file.read().await.unwrap(), file.read().await.unwrap());
        assert!(Arc::ptr_eq(&first, &again));
        std::fs::write(&path, b"another").unwrap();
        assert_eq!(&*file.read().await.unwrap(), b"another");
    }
}
