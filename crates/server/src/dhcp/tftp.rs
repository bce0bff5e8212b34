//! TFTP, for one file: iPXE, for PXE firmware that knows nothing else.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_tftp::packet;
use async_tftp::server::{Handler, TftpServer, TftpServerBuilder};
use futures::io::{Cursor, Sink};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The file's name towards firmware.
pub const FILE: &str = "snponly.efi";
/// TFTP's port.
pub const PORT: u16 = 69;
/// Firmware that asks for larger blocks gets fragments, which some of it cannot put together.
const LARGEST_BLOCK: u16 = 1_468;
/// A block is sent again after this long, and this often; then the machine is gone.
const AGAIN: Duration = Duration::from_secs(2);
const TIMES: u32 = 10;

/// TFTP on one address.
pub struct Tftp(TftpServer<OneFile>);

struct OneFile(PathBuf);

impl Tftp {
    /// Takes the port; `ipxe` is the file, which is read whenever it is asked for.
    ///
    /// # Errors
    /// The port is taken, or may not be had.
    pub async fn open(at: SocketAddrV4, ipxe: PathBuf) -> Result<Self> {
        let server = TftpServerBuilder::with_handler(OneFile(ipxe))
            .bind(at.into())
            .timeout(AGAIN)
            .max_send_retries(TIMES)
            .block_size_limit(LARGEST_BLOCK)
            .build()
            .await;
        Ok(Self(server.with_context(|| format!("cannot answer TFTP on {at}"))?))
    }

    /// Answers until `end`.
    pub async fn run(self, end: CancellationToken) {
        tokio::select! {
            ended = self.0.serve() => {
                if let Err(error) = ended {
                    warn!(%error, "TFTP ended");
                }
            }
            () = end.cancelled() => {}
        }
    }
}

impl Handler for OneFile {
    type Reader = Cursor<Vec<u8>>;
    type Writer = Sink;

    async fn read_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
    ) -> Result<(Self::Reader, Option<u64>), packet::Error> {
        let client = client.ip();
        // Some firmware puts a slash before it.
        if path.strip_prefix("/").unwrap_or(path) != Path::new(FILE) {
            info!("{client} asks by TFTP for {path:?}, which is not there: only {FILE} is");
            return Err(packet::Error::FileNotFound);
        }
        match tokio::fs::read(&self.0).await {
            Ok(bytes) => {
                info!("{client} fetches {FILE} by TFTP");
                let len = bytes.len() as u64;
                Ok((Cursor::new(bytes), Some(len)))
            }
            Err(error) => {
                warn!(%error, "{client} asks by TFTP for {FILE}, and {} cannot be read", self.0.display());
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;

    use super::*;

    /// What comes back to a request (RFC 1350 §5).
    async fn ask(opcode: u8, file: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let ipxe = dir.path().join("ipxe");
        std::fs::write(&ipxe, b"iPXE").unwrap();
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let tftp = Tftp::open(any, ipxe).await.unwrap();
        let at = tftp.0.listen_addr().unwrap();
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
}
