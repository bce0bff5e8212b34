//! `ferroboot replay FILE`: what the service would have said to packets that were captured.

mod frame;

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, Write as _, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use server::dhcp::Rehearsal;

use crate::serve::Settings;
use crate::service::runtime;

/// Runs captured packets against the present settings, nodes and leases, and prints what would be
/// answered. Nothing is sent or changed.
#[derive(Debug, Args)]
pub struct Replay {
    /// A capture, as tcpdump or Wireshark write it (pcap or pcapng).
    file: PathBuf,

    /// On which of the networks the packets come in; by default the first.
    #[arg(long, value_name = "INTERFACE")]
    interface: Option<String>,

    #[command(flatten)]
    settings: Settings,
}

/// A frame, and when it was captured.
struct Frame {
    at: Duration,
    link: DataLink,
    bytes: Vec<u8>,
}

impl Replay {
    /// Prints a line per packet.
    ///
    /// # Errors
    /// The file is no capture, or the settings cannot be rehearsed.
    pub fn run(self) -> Result<()> {
        let frames = read(&self.file)
            .with_context(|| format!("{} is no capture that can be read", self.file.display()))?;
        let config = self.settings.config()?;
        let mut rehearsal = runtime()?.block_on(Rehearsal::open(&config))?;
        let interface = self.interface.or_else(|| rehearsal.interfaces().next().map(str::to_owned));
        let interface = interface.context(
            "these settings have no DHCP network: add --config FILE or --dhcp as `serve` has them",
        )?;
        ensure!(
            rehearsal.interfaces().any(|name| name == interface),
            "these settings have no DHCP network on {interface}"
        );
        let began = frames.first().map(|frame| frame.at).unwrap_or_default();
        let mut others = 0_u64;
        let mut out = stdout();
        for (number, frame) in frames.iter().enumerate() {
            let Some(captured) = frame::to_server(frame.link, &frame.bytes) else {
                others += 1;
                continue;
            };
            let after = frame.at.saturating_sub(began);
            let said = rehearsal.hear(&interface, &captured, after.as_secs());
            let said = said.unwrap_or_else(|| "nobody answers this family here".to_owned());
            writeln!(out, "{:>5} {:>9.3} s  {said}", number + 1, after.as_secs_f64())
                .context("cannot print")?;
        }
        writeln!(out, "{} frames, {others} of them not to a DHCP server", frames.len())
            .context("cannot print")
    }
}

/// The frames of either format.
fn read(path: &Path) -> Result<Vec<Frame>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    file.rewind()?;
    // pcapng begins with a Section Header Block.
    if magic == [0x0a, 0x0d, 0x0d, 0x0a] { read_pcapng(file) } else { read_pcap(file) }
}

fn read_pcap(file: File) -> Result<Vec<Frame>> {
    let mut reader = PcapReader::new(BufReader::new(file))?;
    let link = reader.header().datalink;
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet?;
        frames.push(Frame { at: packet.timestamp, link, bytes: packet.data.into_owned() });
    }
    Ok(frames)
}

fn read_pcapng(file: File) -> Result<Vec<Frame>> {
    let mut reader = PcapNgReader::new(BufReader::new(file))?;
    let mut links = Vec::new();
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        match block? {
            Block::SectionHeader(_) => links.clear(),
            Block::InterfaceDescription(interface) => links.push(interface.linktype),
            Block::EnhancedPacket(packet) => {
                let interface = usize::try_from(packet.interface_id)?;
                let link = *links.get(interface).context("a packet of no interface")?;
                let bytes = packet.data.into_owned();
                frames.push(Frame { at: packet.timestamp, link, bytes });
            }
            Block::Packet(_)
            | Block::SimplePacket(_)
            | Block::NameResolution(_)
            | Block::InterfaceStatistics(_)
            | Block::SystemdJournalExport(_)
            | Block::Unknown(_) => {}
        }
    }
    Ok(frames)
}
