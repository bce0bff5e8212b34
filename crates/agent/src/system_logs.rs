//! The logs of this machine for `log.collect_system_logs`: Ironic asks for them after a failed clean.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::errno::Errno;
use serde_json::{Value, json};

/// Size of the agent's own log in bytes: hundreds of boots' lines, a minute of debug output.
const LARGEST_LOG: usize = 256 << 10;

/// Size limit of the kernel's log in bytes, above its own largest buffer (CONFIG_LOG_BUF_SHIFT).
const LARGEST_KERNEL_LOG: usize = 4 << 20;

/// Longest record of `/dev/kmsg` (kernel/printk: `PRINTK_MESSAGE_MAX`, 2048 in new kernels, 8192 before).
const LONGEST_RECORD: usize = 8192;

/// The parameter of the command line whose value is a secret, as the kernel prints it.
const TOKEN: &str = "ipa-agent-token=";

/// The agent's latest log lines, in memory.
#[derive(Debug, Clone, Default)]
pub struct RecentLog(Arc<Mutex<VecDeque<u8>>>);

impl RecentLog {
    /// Appends a line, and forgets the oldest bytes beyond 256 KiB.
    pub fn append(&self, line: &[u8]) {
        // Each change leaves a usable buffer, even after a panic.
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend(line);
        let surplus = bytes.len().saturating_sub(LARGEST_LOG);
        bytes.drain(..surplus);
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

/// The result of `log.collect_system_logs`: a gzipped tar archive in base64, as in ironic-python-agent, with this log
/// and the kernel's, and without the agent's token.
pub fn collect(log: &RecentLog) -> Value {
    let kernel = kernel_log().unwrap_or_else(|error| format!("cannot read /dev/kmsg: {error}\n"));
    let files = [("agent.log", log.bytes()), ("kernel.log", without_token(&kernel).into_bytes())];
    json!({ "system_logs": STANDARD.encode(gzip(&tar(&files))) })
}

fn kernel_log() -> io::Result<String> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let mut records = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")?;
    let mut record = [0; LONGEST_RECORD];
    let mut log = String::new();
    while log.len() < LARGEST_KERNEL_LOG {
        match records.read(&mut record) {
            Ok(0) => break,
            Ok(len) => log.extend(kernel_line(&String::from_utf8_lossy(&record[..len]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // A record was overwritten before it was read; the next read continues after it.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(log)
}

/// A record of `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg: `priority,number,microseconds,flags;text`) in the form
/// of the console.
fn kernel_line(record: &str) -> Option<String> {
    let (prefix, rest) = record.split_once(';')?;
    let micros: u64 = prefix.split(',').nth(2)?.parse().ok()?;
    let text = rest.lines().next().unwrap_or_default();
    Some(format!("[{:>5}.{:06}] {text}\n", micros / 1_000_000, micros % 1_000_000))
}

fn without_token(log: &str) -> String {
    let mut parts = log.split(TOKEN);
    let mut safe = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(char::is_whitespace).unwrap_or(part.len());
        let _ = write!(safe, "{TOKEN}******{}", &part[end..]);
    }
    safe
}

/// A tar archive (POSIX.1-1988, `ustar`) with files of these names.
fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend(tar_header(name, content.len()));
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks are the end.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

/// Fields by POSIX's offsets: mode, owner, group, size, time, checksum, type, magic.
fn tar_header(name: &str, len: usize) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{len:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// A gzip file (RFC 1952) with stored blocks (RFC 1951 §3.2.4): logs are short, and need no compression.
fn gzip(content: &[u8]) -> Vec<u8> {
    const LARGEST_BLOCK: usize = 0xFFFF;
    let mut file = vec![0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];
    let blocks = content.len().div_ceil(LARGEST_BLOCK);
    for (number, block) in (1..).zip(content.chunks(LARGEST_BLOCK)) {
        let len = u16::try_from(block.len()).expect("a chunk has 65,535 bytes at most");
        file.push(u8::from(number == blocks));
        file.extend(len.to_le_bytes());
        file.extend((!len).to_le_bytes());
        file.extend(block);
    }
    file.extend(crc32fast::hash(content).to_le_bytes());
    // The length modulo 2^32, as RFC 1952 §2.3.1 says.
    #[expect(clippy::cast_possible_truncation, reason = "the format has the length modulo 2^32")]
    file.extend((content.len() as u32).to_le_bytes());
    file
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn tar_unpacks_the_logs() {
        let log = RecentLog::default();
        log.append(&[b'x'; 100_000]);
        log.append(b"[    1.0]  INFO the last line\n");

        let folder = unpacked(&collect(&log));

        let agents = std::fs::read_to_string(folder.path().join("agent.log")).unwrap();
        assert_eq!(agents.len(), 100_000 + 30);
        assert!(agents.ends_with("x[    1.0]  INFO the last line\n"));
        assert!(folder.path().join("kernel.log").exists());
    }

    #[test]
    fn the_oldest_lines_are_forgotten_first() {
        let log = RecentLog::default();
        log.append(b"first");
        log.append(&[b'x'; LARGEST_LOG - 4]);
        log.append(b"last");

        let bytes = log.bytes();
        assert_eq!(bytes.len(), LARGEST_LOG);
        assert!(bytes.starts_with(b"xx") && bytes.ends_with(b"xlast"));
    }

    #[test]
    fn a_record_of_the_kernel_looks_as_on_the_console() {
        let record = "6,339,5140900,-;vda: vda1; 1 partition\n SUBSYSTEM=block\n DEVICE=b254:0\n";

        let line = kernel_line(record).unwrap();

        assert_eq!(line, "[    5.140900] vda: vda1; 1 partition\n");
        assert_eq!(kernel_line("nonsense"), None);
    }

    #[test]
    fn the_token_on_the_command_line_is_masked() {
        let log =
            "Command line: ipa-agent-token=0123456789abcdef text\nargs: ipa-agent-token=0123\n";

        let safe = without_token(log);

        let masked = "Command line: ipa-agent-token=****** text\nargs: ipa-agent-token=******\n";
        assert_eq!(safe, masked);
    }

    fn unpacked(result: &Value) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let archive = STANDARD.decode(result["system_logs"].as_str().unwrap()).unwrap();
        let path = folder.path().join("logs.tar.gz");
        std::fs::write(&path, archive).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(&path).arg("-C").arg(folder.path()).stdin(Stdio::null());
        assert!(tar.status().unwrap().success());
        folder
    }
}
