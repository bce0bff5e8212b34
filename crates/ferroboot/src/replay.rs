//! `ferroboot replay FILE`: what the service would have said to packets that were captured.

mod frame;

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, Write as _, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, ensure};
use clap::Args;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, TsResolution};
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
#[derive(Debug)]
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
        let Capture { frames, cut_off } = read(&self.file)
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
            .context("cannot print")?;
        if let Some(error) = cut_off {
            let cut_off = "what comes after these in the file cannot be read";
            writeln!(out, "{cut_off}: {error:#}").context("cannot print")?;
        }
        Ok(())
    }
}

/// What could be read of a file. Whoever ends a capture may do so in the middle of a packet.
#[derive(Debug, Default)]
struct Capture {
    frames: Vec<Frame>,
    cut_off: Option<Error>,
}

/// The frames of either format.
fn read(path: &Path) -> Result<Capture> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    let len = file.metadata()?.len();
    file.read_exact(&mut magic).with_context(|| format!("it has {len} bytes"))?;
    file.rewind()?;
    // pcapng begins with a Section Header Block.
    if magic == [0x0a, 0x0d, 0x0d, 0x0a] { read_pcapng(file) } else { read_pcap(file) }
}

fn read_pcap(file: File) -> Result<Capture> {
    let mut reader = PcapReader::new(BufReader::new(file))?;
    let header = reader.header();
    let tick = match header.ts_resolution {
        TsResolution::MicroSecond => Duration::from_micros(1),
        TsResolution::NanoSecond => Duration::from_nanos(1),
    };
    Ok(gather(|| {
        // Raw, since the checked one takes no packet that was longer than what was kept of each.
        let packet = reader.next_raw_packet()?;
        Some(packet.map_err(Error::from).map(|packet| {
            let at = Duration::from_secs(packet.ts_sec.into()) + tick * packet.ts_frac;
            Some(Frame { at, link: header.datalink, bytes: packet.data.into_owned() })
        }))
    }))
}

fn read_pcapng(file: File) -> Result<Capture> {
    let mut reader = PcapNgReader::new(BufReader::new(file))?;
    let mut interfaces = Vec::new();
    Ok(gather(|| {
        let block = reader.next_block()?;
        Some(block.map_err(Error::from).and_then(|block| frame_in(block, &mut interfaces)))
    }))
}

/// The frame in a block of pcapng, if there is one, whose interface is described in a block before it.
fn frame_in(block: Block<'_>, interfaces: &mut Vec<Interface>) -> Result<Option<Frame>> {
    match block {
        Block::SectionHeader(_) => interfaces.clear(),
        Block::InterfaceDescription(described) => interfaces.push(Interface::of(&described)),
        Block::EnhancedPacket(packet) => {
            let number = usize::try_from(packet.interface_id)?;
            let interface = interfaces.get(number).context("a packet of no interface")?;
            let at = interface.duration(packet.timestamp.as_nanos());
            return Ok(Some(Frame { at, link: interface.link, bytes: packet.data.into_owned() }));
        }
        Block::Packet(_)
        | Block::SimplePacket(_)
        | Block::NameResolution(_)
        | Block::InterfaceStatistics(_)
        | Block::SystemdJournalExport(_)
        | Block::Unknown(_) => {}
    }
    Ok(None)
}

/// An interface that packets of a pcapng file were captured on.
struct Interface {
    link: DataLink,
    /// `if_tsresol`: how many decimal digits of a second its time stamps have, or binary ones if the first bit is set.
    resolution: u8,
}

impl Interface {
    fn of(described: &InterfaceDescriptionBlock<'_>) -> Self {
        let resolution = described.options.iter().find_map(|option| {
            let InterfaceDescriptionOption::IfTsResol(resolution) = option else { return None };
            Some(*resolution)
        });
        Self { link: described.linktype, resolution: resolution.unwrap_or(6) }
    }

    /// What so many of its ticks are. The reader takes all ticks for nanoseconds.
    fn duration(&self, ticks: u128) -> Duration {
        let digits = u32::from(self.resolution & 0x7f);
        let base: u128 = if self.resolution & 0x80 == 0 { 10 } else { 2 };
        let per_second = base.checked_pow(digits).unwrap_or(u128::MAX);
        let nanos = ticks.saturating_mul(1_000_000_000) / per_second;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// All frames up to the end, or to what cannot be read.
fn gather(mut next: impl FnMut() -> Option<Result<Option<Frame>>>) -> Capture {
    let mut capture = Capture::default();
    while let Some(frame) = next() {
        match frame {
            Ok(frame) => capture.frames.extend(frame),
            Err(error) => return Capture { cut_off: Some(error), ..capture },
        }
    }
    capture
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pcap file of packets with so many bytes kept of each, each a second and a half after the one before.
    fn pcap(kept: u32, packets: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        let header = [0xA1B2_C3D4, 0x0004_0002, 0, 0, kept, 1];
        file.extend(header.iter().flat_map(|word: &u32| word.to_le_bytes()));
        for (number, packet) in (0..).zip(packets) {
            let (millis, len) = (number * 1_500, packet.len() as u32);
            let stamp = [millis / 1_000, millis % 1_000 * 1_000, len.min(kept), len];
            file.extend(stamp.iter().flat_map(|word: &u32| word.to_le_bytes()));
            file.extend(&packet[..len.min(kept) as usize]);
        }
        file
    }

    fn read_bytes(bytes: &[u8]) -> Result<Capture> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capture");
        std::fs::write(&path, bytes).unwrap();
        read(&path)
    }

    #[test]
    fn a_packet_of_which_not_all_was_kept_hides_none_of_the_others() {
        let capture = read_bytes(&pcap(64, &[&[1; 60], &[2; 1_500], &[3; 64]])).unwrap();

        assert!(capture.cut_off.is_none());
        assert_eq!(capture.frames.iter().map(|f| f.bytes.len()).collect::<Vec<_>>(), [60, 64, 64]);
        assert_eq!(capture.frames[1].at, Duration::from_millis(1_500));
    }

    #[test]
    fn a_capture_that_was_ended_in_a_packet_is_read_up_to_there() {
        let mut file = pcap(64, &[&[1; 60], &[2; 60]]);
        file.truncate(file.len() - 1);

        let capture = read_bytes(&file).unwrap();

        assert_eq!(capture.frames.len(), 1);
        assert!(capture.cut_off.is_some());
    }

    #[test]
    fn an_interface_says_what_its_ticks_are() {
        let second = |resolution, ticks| {
            Interface { link: DataLink::ETHERNET, resolution }.duration(ticks).as_millis()
        };

        assert_eq!(second(6, 1_500_000), 1_500);
        assert_eq!(second(9, 1_500_000_000), 1_500);
        assert_eq!(second(0x80 | 10, 1_536), 1_500);
        assert_eq!(second(127, u128::MAX), 0, "nonsense");
    }

    #[test]
    fn what_is_no_capture_is_said_to_be_none() {
        for junk in [&b""[..], b"abc", b"no capture at all, but long enough to have a header"] {
            assert!(read_bytes(junk).is_err());
        }
    }
}
