//! `ferroboot replay FILE`: the service's answers to captured packets.

mod frame;

use std::fs::File;
use std::io::{BufReader, Read, Write, stdin, stdout};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail, ensure};
use clap::Args;
use netboot::dry_run::CapturedPacket;
use netboot::dry_run::vantage::InterfaceAddress;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, Endianness, TsResolution};
use provision::text::printable;
use server::dhcp::DryRun;

use self::frame::{Frame, FrameContents, contents_of};
use crate::serve::ServeSettings;
use crate::service::runtime;

/// The port of ProxyDHCP.
const PXE: u16 = 4011;

/// Replays captured packets against the current settings, nodes and leases, and prints the answers. Nothing is sent
/// or changed.
#[derive(Debug, Args)]
pub struct Replay {
    /// A capture by tcpdump or Wireshark (pcap or pcapng); `-` for standard input.
    file: PathBuf,

    /// The network of the packets; by default the first one.
    #[arg(long, value_name = "INTERFACE")]
    interface: Option<String>,

    /// The service's address on an interface that this host lacks, such as eth1=192.0.2.1/24; may be repeated.
    #[arg(long = "address", value_name = "INTERFACE=ADDRESS/LENGTH")]
    addresses: Vec<InterfaceAddress>,

    #[command(flatten)]
    settings: ServeSettings,
}

impl Replay {
    /// Prints one line per packet.
    ///
    /// # Errors
    /// The file is not a capture or has nothing to replay, or the settings do not permit a dry run.
    pub fn run(self) -> Result<()> {
        let name = self.file.display();
        let Capture { frames, cut_off } =
            read(&self.file).with_context(|| format!("{name} is not a readable capture"))?;
        let config = self.settings.config()?;
        let mut dry_run = runtime()?.block_on(DryRun::open(&config, &self.addresses))?;
        if let Some(other) = dry_run.other_server() {
            bail!("with these settings {other} answers DHCP: there is nothing to replay");
        }
        let interface = self.interface.or_else(|| dry_run.interfaces().next().map(str::to_owned));
        let interface = interface.context(
            "these settings have no DHCP network: add the --config FILE or --dhcp of `serve`",
        )?;
        ensure!(
            dry_run.interfaces().any(|name| name == interface),
            "these settings have no DHCP network on {interface}"
        );
        let mut out = stdout();
        for note in dry_run.notes() {
            writeln!(out, "note: {}", printable(note)).context("cannot print")?;
        }
        let began = frames.first().map(|frame| frame.at).unwrap_or_default();
        let mut tally = Tally::default();
        for (number, frame) in frames.iter().enumerate() {
            let contents = contents_of(frame);
            tally.count(frame.link, &contents);
            let FrameContents::ToServer(captured) = contents else { continue };
            let after = frame.at.saturating_sub(began);
            let said = dry_run.replay(&interface, &captured, after.as_secs());
            let said = said.unwrap_or_else(|| nobody(&captured));
            let said = printable(&said);
            writeln!(out, "{:>5} {:>9.3} s  {said}", number + 1, after.as_secs_f64())
                .context("cannot print")?;
        }
        out.write_all(tally.in_words().as_bytes()).context("cannot print")?;
        if let Some(error) = cut_off {
            let cut_off = "the rest of the file cannot be read";
            writeln!(out, "{cut_off}: {}", printable(&format!("{error:#}")))
                .context("cannot print")?;
        }
        if tally.to_server == 0 {
            bail!(
                "nothing in {name} could be replayed: it has no complete packet to a DHCP server"
            );
        }
        Ok(())
    }
}

/// The contents of a capture in words, and its number of packets to a DHCP server.
///
/// # Errors
/// It is not a capture.
pub fn summary(capture: impl Read) -> Result<(String, u64)> {
    let Capture { frames, cut_off } = read_from(capture)?;
    let mut tally = Tally::default();
    for frame in &frames {
        tally.count(frame.link, &contents_of(frame));
    }
    let cut_off = cut_off.map_or_else(String::new, |error| format!("cut off: {error:#}"));
    Ok((tally.in_words() + &cut_off, tally.to_server))
}

/// The reason why no responder received a packet.
fn nobody(packet: &CapturedPacket) -> String {
    let CapturedPacket { from, port, .. } = packet;
    match from {
        IpAddr::V4(_) if *port == PXE => {
            format!("nothing listens on port {port}, since this network is not a proxy")
        }
        IpAddr::V4(_) => "IPv4 is not answered here: there is no pool, and no proxy".to_owned(),
        IpAddr::V6(_) => "IPv6 is not answered here: there is no pool6".to_owned(),
    }
}

/// Numbers of frames, by contents.
#[derive(Debug, Default)]
struct Tally {
    to_server: u64,
    from_server: u64,
    other: u64,
    cut_off: u64,
    fragments: u64,
    unknown: u64,
    /// The link layer of the first frame with an unknown one.
    unknown_link: Option<DataLink>,
}

impl Tally {
    fn count(&mut self, link: DataLink, contents: &FrameContents) {
        let of = match contents {
            FrameContents::ToServer(_) => &mut self.to_server,
            FrameContents::FromServer => &mut self.from_server,
            FrameContents::Other => &mut self.other,
            FrameContents::CutOff => &mut self.cut_off,
            FrameContents::Fragment => &mut self.fragments,
            FrameContents::Unknown => {
                self.unknown_link.get_or_insert(link);
                &mut self.unknown
            }
        };
        *of += 1;
    }

    /// A summary line, and a line for each kind of unusable frame, with a remedy.
    fn in_words(&self) -> String {
        let Self { to_server, from_server, other, cut_off, fragments, unknown, .. } = self;
        let left_out = from_server + other;
        let all = to_server + left_out + cut_off + fragments + unknown;
        let mut text = format!(
            "{all} frames, {left_out} of them not to a DHCP server ({from_server} are answers of one)\n"
        );
        let mut add = |count: &u64, words: &str| {
            if *count > 0 {
                text.push_str(&format!("{count} left out: {words}\n"));
            }
        };
        add(cut_off, "the packet was captured incompletely; use tcpdump's `-s 0`");
        add(fragments, "a fragment of a longer UDP packet; fragments are not reassembled");
        if let Some(link) = self.unknown_link {
            let words = format!(
                "its link layer ({link:?}, {}) is not known here; capture where it is Ethernet, as with \
                 `tcpdump -i eth1`",
                u32::from(link)
            );
            add(unknown, &words);
        }
        text
    }
}

/// The readable part of a capture. A capture may end within a packet.
#[derive(Debug, Default)]
struct Capture {
    frames: Vec<Frame>,
    cut_off: Option<Error>,
}

/// Reads the frames of either format.
fn read(path: &Path) -> Result<Capture> {
    if path == Path::new("-") {
        return read_from(stdin().lock());
    }
    read_from(BufReader::new(File::open(path)?))
}

fn read_from(mut source: impl Read) -> Result<Capture> {
    let mut magic = Vec::new();
    source.by_ref().take(4).read_to_end(&mut magic)?;
    // The file may be a pipe, which can be read only once.
    let whole = magic.chain(source);
    match magic[..] {
        // pcapng begins with a Section Header Block.
        [0x0a, 0x0d, 0x0d, 0x0a] => read_pcapng(whole),
        [0x1f, 0x8b, ..] => bail!("it is compressed: `gunzip` it first"),
        [0x28, 0xb5, 0x2f, 0xfd] => bail!("it is compressed: `unzstd` it first"),
        [0xfd, b'7', b'z', b'X'] => bail!("it is compressed: `unxz` it first"),
        [_, _, _, _] => read_pcap(whole),
        _ => bail!("it has {} bytes", magic.len()),
    }
}

fn read_pcap(file: impl Read) -> Result<Capture> {
    let mut reader = PcapReader::new(file)?;
    let header = reader.header();
    let tick = match header.ts_resolution {
        TsResolution::MicroSecond => Duration::from_micros(1),
        TsResolution::NanoSecond => Duration::from_nanos(1),
    };
    Ok(gather(|| {
        // The raw reader, since the checking one rejects truncated packets.
        let packet = reader.next_raw_packet()?;
        Some(packet.map_err(Error::from).map(|packet| {
            let at = Duration::from_secs(packet.ts_sec.into()) + tick * packet.ts_frac;
            let cut = packet.incl_len < packet.orig_len;
            Some(Frame { at, link: header.datalink, bytes: packet.data.into_owned(), cut })
        }))
    }))
}

fn read_pcapng(file: impl Read) -> Result<Capture> {
    let mut reader = PcapNgReader::new(file)?;
    let mut section = PcapngSection::of(reader.section().endianness);
    Ok(gather(|| {
        let block = reader.next_block()?;
        Some(block.map_err(Error::from).and_then(|block| section.frame_in(block)))
    }))
}

/// A section of a pcapng file, as far as it has been read.
struct PcapngSection {
    endianness: Endianness,
    interfaces: Vec<Interface>,
    /// The time of the previous packet.
    before: Duration,
}

impl PcapngSection {
    fn of(endianness: Endianness) -> Self {
        Self { endianness, interfaces: Vec::new(), before: Duration::ZERO }
    }

    /// The frame in a block, if any; its interface is described in an earlier block.
    fn frame_in(&mut self, block: Block<'_>) -> Result<Option<Frame>> {
        let (number, ticks, bytes, len) = match block {
            Block::SectionHeader(header) => {
                *self = Self { before: self.before, ..Self::of(header.endianness) };
                return Ok(None);
            }
            Block::InterfaceDescription(described) => {
                self.interfaces.push(Interface::of(&described));
                return Ok(None);
            }
            Block::EnhancedPacket(packet) => {
                let number = usize::try_from(packet.interface_id)?;
                (number, Some(packet.timestamp.as_nanos()), packet.data, packet.original_len)
            }
            Block::Packet(packet) => {
                // The upper half comes first, whatever the byte order is.
                let ticks = match self.endianness {
                    Endianness::Big => packet.timestamp,
                    Endianness::Little => packet.timestamp.rotate_left(32),
                };
                (packet.interface_id.into(), Some(ticks.into()), packet.data, packet.original_len)
            }
            Block::SimplePacket(packet) => (0, None, packet.data, packet.original_len),
            Block::NameResolution(_)
            | Block::InterfaceStatistics(_)
            | Block::SystemdJournalExport(_)
            | Block::Unknown(_) => return Ok(None),
        };
        let interface = self.interfaces.get(number).context("a packet of no interface")?;
        // A simple packet block has no time; the previous packet's is used.
        let at = ticks.map_or(self.before, |ticks| interface.duration(ticks));
        self.before = at;
        let len = usize::try_from(len)?;
        let kept = interface.kept.map_or(len, |kept| kept.min(len));
        let mut bytes = bytes.into_owned();
        // A simple packet block includes its padding.
        bytes.truncate(kept);
        let cut = bytes.len() < len;
        Ok(Some(Frame { at, link: interface.link, bytes, cut }))
    }
}

/// A capture interface in a pcapng file.
struct Interface {
    link: DataLink,
    /// The snapshot length in bytes, if limited.
    kept: Option<usize>,
    /// `if_tsresol`: the number of decimal digits of time stamps, or of binary digits if the first bit is set.
    resolution: u8,
}

impl Interface {
    fn of(described: &InterfaceDescriptionBlock<'_>) -> Self {
        let resolution = described.options.iter().find_map(|option| {
            let InterfaceDescriptionOption::IfTsResol(resolution) = option else { return None };
            Some(*resolution)
        });
        let kept = usize::try_from(described.snaplen).ok().filter(|kept| *kept > 0);
        Self { link: described.linktype, kept, resolution: resolution.unwrap_or(6) }
    }

    /// The duration of this many ticks. The reader assumes that a tick is a nanosecond.
    fn duration(&self, ticks: u128) -> Duration {
        let digits = u32::from(self.resolution & 0x7f);
        let base: u128 = if self.resolution & 0x80 == 0 { 10 } else { 2 };
        let per_second = base.checked_pow(digits).unwrap_or(u128::MAX);
        let nanos = ticks.saturating_mul(1_000_000_000) / per_second;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// All frames up to the end, or to the first error.
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

    /// A pcap file of packets with this snapshot length, one and a half seconds apart.
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

    /// A block of pcapng.
    fn block(kind: u32, words: &[u32], data: &[u8]) -> Vec<u8> {
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend(data);
        body.resize(body.len().next_multiple_of(4), 0);
        let len = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes(), &len, &body[..], &len].concat()
    }

    /// A pcapng file of blocks, after a section header and an Ethernet interface.
    fn pcapng(blocks: &[Vec<u8>]) -> Vec<u8> {
        let section = block(0x0A0D_0D0A, &[0x1A2B_3C4D, 1, u32::MAX, u32::MAX], &[]);
        let interface = block(1, &[1, 0], &[]);
        [section, interface, blocks.concat()].concat()
    }

    #[test]
    fn a_packet_of_which_not_all_was_kept_hides_none_of_the_others() {
        let capture = read_from(&pcap(64, &[&[1; 60], &[2; 1_500], &[3; 64]])[..]).unwrap();

        assert!(capture.cut_off.is_none());
        assert_eq!(capture.frames.iter().map(|f| f.bytes.len()).collect::<Vec<_>>(), [60, 64, 64]);
        assert_eq!(capture.frames.iter().map(|f| f.cut).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(capture.frames[1].at, Duration::from_millis(1_500));
    }

    #[test]
    fn a_capture_that_was_ended_in_a_packet_is_read_up_to_there() {
        let mut file = pcap(64, &[&[1; 60], &[2; 60]]);
        file.truncate(file.len() - 1);

        let capture = read_from(&file[..]).unwrap();

        assert_eq!(capture.frames.len(), 1);
        assert!(capture.cut_off.is_some());
    }

    #[test]
    fn an_interface_says_what_its_ticks_are() {
        let second = |resolution, ticks| {
            Interface { link: DataLink::ETHERNET, kept: None, resolution }
                .duration(ticks)
                .as_millis()
        };

        assert_eq!(second(6, 1_500_000), 1_500);
        assert_eq!(second(9, 1_500_000_000), 1_500);
        assert_eq!(second(0x80 | 10, 1_536), 1_500);
        assert_eq!(second(127, u128::MAX), 0, "nonsense");
    }

    #[test]
    fn what_is_no_capture_is_said_to_be_none() {
        for junk in [&b""[..], b"abc", b"no capture at all, but long enough to have a header"] {
            assert!(read_from(junk).is_err());
        }
    }

    #[test]
    fn a_compressed_capture_is_said_to_be_compressed() {
        let refused = read_from(&[0x1f, 0x8b, 8, 0, 0, 0][..]).unwrap_err().to_string();

        assert!(refused.contains("gunzip"), "{refused}");
    }

    #[test]
    fn packets_are_read_from_blocks_of_every_kind() {
        let data = [7; 61];
        let second = 1_000_000_u64;
        let file = pcapng(&[
            block(6, &[0, 0, second as u32, 61, 61], &data),
            block(3, &[61], &data),
            // Obsolete: interface and drop count share a word, and the upper half of the time comes first.
            block(2, &[0, 0, 2 * second as u32, 61, 90], &data),
        ]);

        let capture = read_from(&file[..]).unwrap();

        assert!(capture.cut_off.is_none());
        assert!(capture.frames.iter().all(|frame| frame.bytes == data), "without what fills them");
        let at: Vec<_> = capture.frames.iter().map(|frame| frame.at.as_secs()).collect();
        assert_eq!(at, [1, 1, 2]);
        assert_eq!(capture.frames.iter().map(|f| f.cut).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn what_cannot_be_replayed_is_counted_apart_with_what_to_do() {
        let mut tally = Tally::default();
        for contents in [
            FrameContents::Other,
            FrameContents::FromServer,
            FrameContents::CutOff,
            FrameContents::Fragment,
            FrameContents::Unknown,
        ] {
            tally.count(DataLink::IEEE802_11, &contents);
        }

        let words = tally.in_words();

        assert!(words.starts_with("5 frames, 2 of them not to a DHCP server"), "{words}");
        assert!(words.contains("`-s 0`"), "{words}");
        assert!(words.contains("a fragment"), "{words}");
        assert!(words.contains("(IEEE802_11, 105)"), "{words}");
    }

    /// A message of the firmware in `dhcp/tests/golden/ovmf-2022.11-http.pcap`, in another capture form.
    macro_rules! golden {
        ($name:literal) => {
            &include_bytes!(concat!("../tests/golden/ovmf-2022.11-http-", $name))[..]
        };
    }

    #[test]
    fn the_same_packets_are_found_in_whichever_way_they_were_captured() {
        for (name, file) in [
            ("-i any, tcpdump 4.99", golden!("sll2.pcap")),
            ("loopback", golden!("null.pcap")),
            ("simple packets", golden!("simple.pcapng")),
        ] {
            let capture = read_from(file).unwrap();

            let contents: Vec<_> = capture.frames.iter().map(contents_of).collect();
            assert!(
                matches!(&contents[..], [FrameContents::ToServer(_), FrameContents::ToServer(_)]),
                "{name}: {contents:?}"
            );
        }
    }

    #[test]
    fn a_capture_of_the_first_bytes_of_each_packet_is_said_to_be_one() {
        let capture = read_from(golden!("cut.pcap")).unwrap();

        let contents: Vec<_> = capture.frames.iter().map(contents_of).collect();

        assert_eq!(contents, [FrameContents::CutOff, FrameContents::CutOff]);
    }
}
