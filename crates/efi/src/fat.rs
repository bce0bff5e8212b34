//! An EFI system partition: a FAT16 file system with one program, the default loader for the architecture, such as
//! `\EFI\BOOT\BOOTX64.EFI` (Microsoft's "FAT: General Overview of On-Disk Format"; UEFI §13.3.1.1, §3.5.1.1), and the
//! program that it starts, if it is shim.
//!
//! Each program's clusters are consecutive, up to the end of the file system, so that they are a run of the program's
//! own extents.

use std::sync::Arc;

use thiserror::Error;

use crate::image::ComposedImage;
use crate::pe::PeMachine;

const SECTOR: u64 = 512;
const DIRECTORY_ENTRY: usize = 32;
const ROOT_ENTRIES: u16 = 512;
const ROOT_SECTORS: u64 = ROOT_ENTRIES as u64 * DIRECTORY_ENTRY as u64 / SECTOR;
const RESERVED_SECTORS: u16 = 1;
const FATS: u8 = 2;

/// The number of clusters alone makes a file system FAT16: 4085 to 65524. Drivers disagree about the exact limits, so
/// Microsoft's paper recommends a distance of 16.
const FEWEST_CLUSTERS: u64 = 4085 + 16;
const MOST_CLUSTERS: u64 = 65_524 - 16;
const MOST_SECTORS_PER_CLUSTER: u64 = 64;

const EFI_CLUSTER: u16 = 2;
const BOOT_CLUSTER: u16 = 3;
const FILE_CLUSTER: u16 = 4;

const DIRECTORY: u8 = 0x10;
const VOLUME_LABEL: u8 = 0x08;
const END_OF_CHAIN: u16 = 0xFFFF;
/// 1980-01-01, the earliest date: an image depends only on its contents.
const DATE: u16 = 0x0021;
/// Any constant serves.
const SERIAL: u32 = 0xFE44_0B00;

/// The reason for not composing an ESP.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EspError {
    /// The program exceeds the limit of FAT16.
    #[error("the program has {len} bytes; an ESP of ours holds at most {most}")]
    Long {
        /// The size of the program.
        len: u64,
        /// The size limit.
        most: u64,
    },
}

/// Composes an ESP with `program` as the default loader of `machine`.
///
/// # Errors
/// [`EspError::Long`] above 2 GiB.
pub fn esp(program: &ComposedImage, machine: PeMachine) -> Result<ComposedImage, EspError> {
    esp_of(&[program], machine)
}

/// Composes an ESP for x64 with shim as the default loader, and beside it the program that shim starts,
/// `\EFI\BOOT\GRUBX64.EFI`.
///
/// # Errors
/// [`EspError::Long`] above 2 GiB.
pub fn esp_with_shim(
    shim: &ComposedImage,
    second_stage: &ComposedImage,
) -> Result<ComposedImage, EspError> {
    esp_of(&[shim, second_stage], PeMachine::X64)
}

fn esp_of(programs: &[&ComposedImage], machine: PeMachine) -> Result<ComposedImage, EspError> {
    let lens: Vec<_> = programs.iter().map(|program| program.len()).collect();
    let layout = FatLayout::of(&lens)?;
    let mut fat = layout.fat();
    let fat_len = layout.sectors_per_fat * SECTOR;
    fat.resize(fat_len as usize, 0);
    let fat: Arc<[u8]> = fat.into();

    let mut image = ComposedImage::default();
    image.push_bytes(layout.boot_sector());
    (0..FATS).for_each(|_| image.push_bytes(fat.clone()));
    image.push_bytes(root_directory());
    image.pad_to(layout.data_start());
    for directory in [efi_directory(), boot_directory(machine, &lens, &layout)] {
        let end = image.len() + layout.cluster_len();
        image.push_bytes(directory);
        image.pad_to(end);
    }
    for (program, clusters) in programs.iter().zip(&layout.file_clusters) {
        let end = image.len() + clusters * layout.cluster_len();
        image.append(program);
        image.pad_to(end);
    }
    image.pad_to(layout.len());
    Ok(image)
}

/// Sizes in sectors and clusters.
struct FatLayout {
    sectors_per_cluster: u64,
    /// The number of clusters of each program.
    file_clusters: Vec<u64>,
    clusters: u64,
    sectors_per_fat: u64,
}

impl FatLayout {
    /// The layout with the largest clusters that leave enough of them for FAT16, for the shortest tables.
    fn of(lens: &[u64]) -> Result<Self, EspError> {
        let mut sectors_per_cluster = MOST_SECTORS_PER_CLUSTER;
        let clusters_of =
            |len: &u64, sectors_per_cluster| len.div_ceil(sectors_per_cluster * SECTOR);
        let used = |sectors_per_cluster| {
            lens.iter().map(|len| clusters_of(len, sectors_per_cluster)).sum::<u64>() + 2
        };
        while sectors_per_cluster > 1 && used(sectors_per_cluster) < FEWEST_CLUSTERS {
            sectors_per_cluster /= 2;
        }
        let used = used(sectors_per_cluster);
        if used > MOST_CLUSTERS {
            let most = (MOST_CLUSTERS - 2) * MOST_SECTORS_PER_CLUSTER * SECTOR;
            return Err(EspError::Long { len: lens.iter().sum(), most });
        }
        let clusters = used.max(FEWEST_CLUSTERS);
        // Two entries of the table are reserved.
        let sectors_per_fat = (2 * (clusters + 2)).div_ceil(SECTOR);
        let file_clusters = lens.iter().map(|len| clusters_of(len, sectors_per_cluster)).collect();
        Ok(Self { sectors_per_cluster, file_clusters, clusters, sectors_per_fat })
    }

    fn cluster_len(&self) -> u64 {
        self.sectors_per_cluster * SECTOR
    }

    fn data_start(&self) -> u64 {
        let tables = u64::from(FATS) * self.sectors_per_fat;
        (u64::from(RESERVED_SECTORS) + tables + ROOT_SECTORS) * SECTOR
    }

    fn len(&self) -> u64 {
        self.data_start() + self.clusters * self.cluster_len()
    }

    fn boot_sector(&self) -> Vec<u8> {
        let sectors = self.len() / SECTOR;
        let short = u16::try_from(sectors).unwrap_or(0);
        let long = if short == 0 { sectors as u32 } else { 0 };
        let mut sector = Vec::with_capacity(SECTOR as usize);
        sector.extend([0xEB, 0x3C, 0x90]);
        sector.extend(b"FERROBT ");
        sector.extend((SECTOR as u16).to_le_bytes());
        sector.push(self.sectors_per_cluster as u8);
        sector.extend(RESERVED_SECTORS.to_le_bytes());
        sector.push(FATS);
        sector.extend(ROOT_ENTRIES.to_le_bytes());
        sector.extend(short.to_le_bytes());
        sector.push(0xF8);
        sector.extend((self.sectors_per_fat as u16).to_le_bytes());
        // A geometry for drivers that read one, and no hidden sectors.
        sector.extend(32u16.to_le_bytes());
        sector.extend(64u16.to_le_bytes());
        sector.extend(0u32.to_le_bytes());
        sector.extend(long.to_le_bytes());
        sector.extend([0x80, 0, 0x29]);
        sector.extend(SERIAL.to_le_bytes());
        sector.extend(b"FERROBOOT  FAT16   ");
        sector.resize(510, 0);
        sector.extend([0x55, 0xAA]);
        sector
    }

    fn fat(&self) -> Vec<u8> {
        let reserved_and_directories = [0xFFF8, END_OF_CHAIN, END_OF_CHAIN, END_OF_CHAIN];
        let files = self.starts().zip(&self.file_clusters).flat_map(|(start, clusters)| {
            let end = start + *clusters as u16;
            (start..end).map(move |n| if n + 1 == end { END_OF_CHAIN } else { n + 1 })
        });
        reserved_and_directories.into_iter().chain(files).flat_map(u16::to_le_bytes).collect()
    }

    /// The first cluster of each program.
    fn starts(&self) -> impl Iterator<Item = u16> {
        self.file_clusters.iter().scan(FILE_CLUSTER, |next, clusters| {
            let start = *next;
            *next += *clusters as u16;
            Some(start)
        })
    }
}

fn root_directory() -> Vec<u8> {
    [entry(b"FERROBOOT  ", VOLUME_LABEL, 0, 0), entry(b"EFI        ", DIRECTORY, EFI_CLUSTER, 0)]
        .concat()
}

fn efi_directory() -> Vec<u8> {
    [
        entry(b".          ", DIRECTORY, EFI_CLUSTER, 0),
        // The root directory has no cluster.
        entry(b"..         ", DIRECTORY, 0, 0),
        entry(b"BOOT       ", DIRECTORY, BOOT_CLUSTER, 0),
    ]
    .concat()
}

fn boot_directory(machine: PeMachine, lens: &[u64], layout: &FatLayout) -> Vec<u8> {
    let mut places = layout.starts().zip(lens);
    let mut program = |name| {
        let (start, len) = places.next().expect("there is a program for each name");
        entry(name, 0, start, *len as u32)
    };
    let mut entries = vec![
        entry(b".          ", DIRECTORY, BOOT_CLUSTER, 0),
        entry(b"..         ", DIRECTORY, EFI_CLUSTER, 0),
    ];
    match machine {
        PeMachine::X64 => entries.push(program(b"BOOTX64 EFI")),
        PeMachine::Arm64 => entries.push(program(b"BOOTAA64EFI")),
        PeMachine::Riscv64 => {
            let short = b"BOOTRI~1EFI";
            entries.extend(long_name("BOOTRISCV64.EFI", short));
            entries.push(program(short));
        }
    }
    if lens.len() > 1 {
        // The name is in shim (`DEFAULT_LOADER`).
        entries.push(program(b"GRUBX64 EFI"));
    }
    entries.concat()
}

/// The directory entries before a file's own that hold a name of more than eight characters ("Long File Name
/// Implementation"): 13 UTF-16 characters each, the last ones first.
fn long_name(name: &str, short: &[u8; 11]) -> Vec<[u8; DIRECTORY_ENTRY]> {
    const CHARACTERS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    const LONG_NAME: u8 = 0x0F;
    const LAST: u8 = 0x40;
    let checksum = short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(CHARACTERS.len()) {
        units.push(0);
    }
    let mut entries: Vec<_> = (1..)
        .zip(units.chunks(CHARACTERS.len()))
        .map(|(number, part): (u8, _)| {
            let mut entry = [0; DIRECTORY_ENTRY];
            (entry[0], entry[11], entry[13]) = (number, LONG_NAME, checksum);
            let padded = part.iter().copied().chain(std::iter::repeat(0xFFFF));
            for (at, unit) in CHARACTERS.into_iter().zip(padded) {
                entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
            }
            entry
        })
        .collect();
    entries.reverse();
    if let Some(first) = entries.first_mut() {
        first[0] |= LAST;
    }
    entries
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u16, len: u32) -> [u8; DIRECTORY_ENTRY] {
    let mut entry = [0; DIRECTORY_ENTRY];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    for date in [16, 18, 24] {
        entry[date..date + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    entry[26..28].copy_from_slice(&cluster.to_le_bytes());
    entry[28..32].copy_from_slice(&len.to_le_bytes());
    entry
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::Extent;
    use crate::image::tests::{contents, part, source};

    pub(crate) fn program_in(esp: &[u8]) -> Vec<u8> {
        file_in(esp, b"BOOTX64 EFI")
    }

    /// Finds a file in `\EFI\BOOT` as a driver does: from the boot sector, through directories and cluster chains.
    fn file_in(esp: &[u8], name: &[u8; 11]) -> Vec<u8> {
        let u16_at = |at: usize| usize::from(u16::from_le_bytes([esp[at], esp[at + 1]]));
        assert_eq!(&esp[510..512], [0x55, 0xAA]);
        let (sector, cluster) = (u16_at(11), u16_at(11) * usize::from(esp[13]));
        let fat = u16_at(14) * sector;
        let root = fat + usize::from(esp[16]) * u16_at(22) * sector;
        let data = root + u16_at(17) * 32;
        let sectors = u16_at(19).max(u16_at(32) | u16_at(34) << 16);
        assert_eq!(sectors * sector, esp.len());
        let clusters = (esp.len() - data) / cluster;
        assert!((4085..65525).contains(&clusters), "{clusters} clusters are not FAT16");

        let find = |directory: usize, name: &[u8; 11]| {
            let entries = esp[directory..].chunks(32).take_while(|entry| entry[0] != 0);
            let at = entries.into_iter().position(|entry| &entry[..11] == name).unwrap();
            let entry = &esp[directory + 32 * at..][..32];
            let first = usize::from(u16::from_le_bytes([entry[26], entry[27]]));
            (first, u32::from_le_bytes(entry[28..32].try_into().unwrap()) as usize)
        };
        let at = |n: usize| data + (n - 2) * cluster;
        let (efi, _) = find(root, b"EFI        ");
        let (boot, _) = find(at(efi), b"BOOT       ");
        let (mut n, len) = find(at(boot), name);
        let mut program = Vec::new();
        while n < 0xFFF8 {
            program.extend(&esp[at(n)..at(n) + cluster]);
            n = u16_at(fat + 2 * n);
        }
        assert!(program.len() >= len && program.len() - len < cluster);
        program.truncate(len);
        program
    }

    fn program(len: u64) -> ComposedImage {
        ComposedImage::of_file(source("uki", len))
    }

    #[test]
    fn an_esp_of_60_megabytes_has_tables_of_few_kilobytes() {
        let esp = esp(&program(60_000_000), PeMachine::X64).unwrap();
        let memory = |extent: &Extent| match extent {
            Extent::Bytes(bytes) => size_of::<Extent>() + bytes.len(),
            Extent::File { .. } | Extent::Zeros(_) => size_of::<Extent>(),
        };
        let held: usize = esp.extents().iter().map(memory).sum();
        assert!(held < 40_000, "{held} bytes");
    }

    #[test]
    fn each_machine_finds_the_program_by_the_name_it_looks_for() {
        let layout = FatLayout::of(&[1]).unwrap();
        let directory = |machine| boot_directory(machine, &[1], &layout);
        assert!(directory(PeMachine::X64)[64..].starts_with(b"BOOTX64 EFI"));
        assert!(directory(PeMachine::Arm64)[64..].starts_with(b"BOOTAA64EFI"));
        // As written by mtools.
        let long = directory(PeMachine::Riscv64);
        let second = b"\x42F\0I\0\0\0\xff\xff\xff\xff\xff\xff";
        assert!(long[64..].starts_with(&second[..11]));
        assert!(long[96..].starts_with(b"\x01B\0O\0O\0T\0R\0\x0f\0"));
        assert_eq!(long[64 + 13], long[96 + 13]);
        assert!(long[128..].starts_with(b"BOOTRI~1EFI"));
    }

    #[test]
    fn what_fat16_cannot_hold_is_refused() {
        let most = (MOST_CLUSTERS - 2) * MOST_SECTORS_PER_CLUSTER * SECTOR;
        assert!(esp(&program(most), PeMachine::X64).is_ok());
        assert_eq!(
            esp(&program(most + 1), PeMachine::X64),
            Err(EspError::Long { len: most + 1, most })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn a_driver_finds_the_program(len in prop_oneof![1u64..5_000, 2_000_000u64..9_000_000]) {
            let program = program(len);
            let esp = esp(&program, PeMachine::X64).unwrap();
            prop_assert_eq!(program_in(&contents(&esp)), contents(&program));
        }

        #[test]
        fn shim_finds_its_second_stage_beside_itself(
            shim in 1u64..1_100_000, len in prop_oneof![1u64..5_000, 2_000_000u64..9_000_000],
        ) {
            let programs = [source("shim", shim), source("uki", len)].map(ComposedImage::of_file);
            let esp = contents(&esp_with_shim(&programs[0], &programs[1]).unwrap());
            prop_assert_eq!(program_in(&esp), contents(&programs[0]));
            prop_assert_eq!(file_in(&esp, b"GRUBX64 EFI"), contents(&programs[1]));
        }

        #[test]
        fn the_program_is_one_run_for_any_length(len in 1u64..2_147_000_000) {
            let layout = FatLayout::of(&[len]).unwrap();
            let esp = esp(&program(len), PeMachine::X64).unwrap();
            prop_assert_eq!(esp.len(), layout.len());
            let start = layout.data_start() + 2 * layout.cluster_len();
            let first = part(&esp, start..start + len.min(100));
            prop_assert_eq!(first, part(&program(len), 0..len.min(100)));
            prop_assert!(layout.file_clusters[0] * layout.cluster_len() >= len);
            prop_assert!((FEWEST_CLUSTERS..=MOST_CLUSTERS).contains(&layout.clusters));
        }
    }
}
