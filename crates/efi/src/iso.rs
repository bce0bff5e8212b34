//! An ISO 9660 image with an ESP, which UEFI firmware finds by El Torito, and perhaps a folder, which GRUB finds by
//! ISO 9660 (ECMA-119; "El Torito" 1.0; UEFI §13.3.2.1).
//!
//! The ESP comes last. El Torito's size has 16 bits in blocks of 512 bytes, 32 MiB at most; UEFI reads a size of 0 or
//! 1 as "to the end of the medium", which permits a longer ESP.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::image::ComposedImage;

const BLOCK: usize = 2048;

const PRIMARY_DESCRIPTOR: u32 = 16;
const CATALOG: u32 = 19;
const PATH_TABLE: u32 = 20;
const PATH_TABLE_BIG_ENDIAN: u32 = 21;
const ROOT: u32 = 22;
const FOLDER: u32 = 23;
const FIRST_FILE: u32 = 24;
/// Files begin at multiples of 4 KiB, so that readers of the image have no split pages.
const FILE_ALIGNMENT: u32 = 2;

const TO_THE_END: u16 = 1;
const UEFI: u8 = 0xEF;
const BOOTABLE: u8 = 0x88;
const DIRECTORY: u8 = 0x02;

/// The reason for not composing an ISO image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IsoError {
    /// A file exceeds ISO 9660's size of 4 GiB.
    #[error("{name} has {len} bytes, more than a file of ISO 9660 can have")]
    Long {
        /// The name of the file.
        name: String,
        /// The size of the file.
        len: u64,
    },
}

/// A folder of an ISO image, for loaders that read ISO 9660 themselves.
///
/// Names have letters, digits and at most one dot; readers of ISO 9660 show them in lower case.
#[derive(Clone, Debug)]
pub struct IsoFolder<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its files, few enough for one block of directory records.
    pub files: BTreeMap<&'a str, ComposedImage>,
}

/// Composes an ISO image around an ESP, for firmware that boots optical media.
///
/// # Errors
/// [`IsoError::Long`] from 4 GiB on.
pub fn iso(esp: &ComposedImage) -> Result<ComposedImage, IsoError> {
    iso_of(esp, None)
}

/// Composes an ISO image around an ESP, with a folder for the loader in that ESP.
///
/// # Errors
/// [`IsoError::Long`] from 4 GiB on.
pub fn iso_with_folder(
    esp: &ComposedImage,
    folder: &IsoFolder<'_>,
) -> Result<ComposedImage, IsoError> {
    iso_of(esp, Some(folder))
}

fn iso_of(esp: &ComposedImage, folder: Option<&IsoFolder<'_>>) -> Result<ComposedImage, IsoError> {
    let in_folder = folder.iter().flat_map(|folder| &folder.files);
    let files: Vec<_> =
        in_folder.map(|(name, file)| (*name, file)).chain([("efi.img", esp)]).collect();
    let entries = place(&files)?;
    let (esp_entry, in_folder) = entries.split_last().expect("the ESP is a file");
    let folder = folder.map(|folder| DirectoryEntry::of_folder(folder.name));

    let mut image = ComposedImage::default();
    // The system area is empty: the image does not support BIOS.
    for (block, header) in (PRIMARY_DESCRIPTOR..).zip(headers(esp_entry, folder, in_folder)) {
        pad_to_block(&mut image, block);
        image.push_bytes(header);
    }
    for ((_, file), entry) in files.iter().zip(&entries) {
        pad_to_block(&mut image, entry.block);
        image.append(file);
    }
    pad_to_block(&mut image, esp_entry.end());
    Ok(image)
}

/// The blocks from the primary descriptor on, in the order of the constants.
fn headers(
    esp: &DirectoryEntry,
    folder: Option<DirectoryEntry>,
    in_folder: &[DirectoryEntry],
) -> Vec<Vec<u8>> {
    let path_table = path_table_in(folder.as_ref(), u32::to_le_bytes, u16::to_le_bytes);
    let mut headers = vec![
        primary_descriptor(esp.end(), path_table.len() as u32),
        boot_record(),
        terminator(),
        catalog(esp.block),
        path_table,
        path_table_in(folder.as_ref(), u32::to_be_bytes, u16::to_be_bytes),
        directory(ROOT, [esp].into_iter().chain(&folder)),
    ];
    headers.extend(folder.map(|folder| directory(folder.block, in_folder)));
    headers
}

/// The entries of files, which lie in the image in this order.
fn place(files: &[(&str, &ComposedImage)]) -> Result<Vec<DirectoryEntry>, IsoError> {
    let mut next = FIRST_FILE;
    let place = |(name, file): &(&str, &ComposedImage)| {
        let entry = DirectoryEntry::of_file(name, next, file.len())?;
        next = entry.end().next_multiple_of(FILE_ALIGNMENT);
        Ok(entry)
    };
    files.iter().map(place).collect()
}

fn pad_to_block(image: &mut ComposedImage, block: u32) {
    image.pad_to(u64::from(block) * BLOCK as u64);
}

/// ECMA-119 §8.4.
fn primary_descriptor(blocks: u32, path_table_len: u32) -> Vec<u8> {
    let mut block = descriptor(1);
    block.push(0);
    block.extend(padded("", 32));
    block.extend(padded("FERROBOOT", 32));
    block.extend([0; 8]);
    block.extend(both_32(blocks));
    block.extend([0; 32]);
    // One volume of one, in blocks of 2048.
    block.extend([both_16(1), both_16(1), both_16(BLOCK as u16)].concat());
    block.extend(both_32(path_table_len));
    block.extend(PATH_TABLE.to_le_bytes());
    block.extend([0; 4]);
    block.extend(PATH_TABLE_BIG_ENDIAN.to_be_bytes());
    block.extend([0; 4]);
    block.extend(directory_record(&[0], DIRECTORY, ROOT, BLOCK as u32));
    // Volume set, publisher, data preparer, application; copyright, abstract, bibliography.
    block.extend(padded("", 3 * 128));
    block.extend(padded("FERROBOOT", 128));
    block.extend(padded("", 3 * 37));
    for _created_modified_expires_effective in 0..4 {
        block.extend(no_date());
    }
    block.push(1);
    block
}

/// El Torito figure 7.
fn boot_record() -> Vec<u8> {
    let mut block = descriptor(0);
    block.extend(b"EL TORITO SPECIFICATION");
    block.resize(71, 0);
    block.extend(CATALOG.to_le_bytes());
    block
}

fn terminator() -> Vec<u8> {
    descriptor(255)
}

fn descriptor(kind: u8) -> Vec<u8> {
    [&[kind][..], b"CD001", &[1]].concat()
}

/// El Torito figures 2 and 3: the validation entry and the default entry.
fn catalog(esp: u32) -> Vec<u8> {
    let mut validation = [0u8; 32];
    validation[0] = 1;
    validation[1] = UEFI;
    validation[4..13].copy_from_slice(b"FERROBOOT");
    validation[30..32].copy_from_slice(&[0x55, 0xAA]);
    let (words, _) = validation.as_chunks();
    let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(u16::from_le_bytes(*word)));
    validation[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());

    let mut default = [0u8; 32];
    default[0] = BOOTABLE;
    default[6..8].copy_from_slice(&TO_THE_END.to_le_bytes());
    default[8..12].copy_from_slice(&esp.to_le_bytes());
    [validation, default].concat()
}

/// ECMA-119 §9.4, in one of the two byte orders; the root is the parent of both directories.
fn path_table_in(
    folder: Option<&DirectoryEntry>,
    number_32: fn(u32) -> [u8; 4],
    number_16: fn(u16) -> [u8; 2],
) -> Vec<u8> {
    let record = |(name, block): (&[u8], u32)| {
        let mut record = vec![name.len() as u8, 0];
        record.extend(number_32(block));
        record.extend(number_16(1));
        record.extend(name);
        record.resize(record.len().next_multiple_of(2), 0);
        record
    };
    let folder = folder.map(|folder| (folder.identifier.as_bytes(), folder.block));
    [(&[0][..], ROOT)].into_iter().chain(folder).flat_map(record).collect()
}

/// ECMA-119 §9.3: the directory itself, its parent, which is the root, and its entries by identifier.
fn directory<'a>(block: u32, entries: impl IntoIterator<Item = &'a DirectoryEntry>) -> Vec<u8> {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_unstable_by_key(|entry| &entry.identifier);
    let records = entries.into_iter().map(|entry| {
        directory_record(entry.identifier.as_bytes(), entry.flags, entry.block, entry.len)
    });
    let of_directory = |name, block| directory_record(&[name], DIRECTORY, block, BLOCK as u32);
    [of_directory(0, block), of_directory(1, ROOT)].into_iter().chain(records).flatten().collect()
}

/// An entry of a directory.
struct DirectoryEntry {
    identifier: String,
    flags: u8,
    block: u32,
    len: u32,
}

impl DirectoryEntry {
    /// ECMA-119 §7.5: an identifier of a file has a dot and a version.
    fn of_file(name: &str, block: u32, len: u64) -> Result<Self, IsoError> {
        let len = u32::try_from(len).map_err(|_| IsoError::Long { name: name.to_owned(), len })?;
        let dot = if name.contains('.') { "" } else { "." };
        let identifier = format!("{}{dot};1", name.to_ascii_uppercase());
        Ok(Self { identifier, flags: 0, block, len })
    }

    fn of_folder(name: &str) -> Self {
        let identifier = name.to_ascii_uppercase();
        Self { identifier, flags: DIRECTORY, block: FOLDER, len: BLOCK as u32 }
    }

    /// The block after its last one.
    fn end(&self) -> u32 {
        self.block + self.len.div_ceil(BLOCK as u32)
    }
}

/// ECMA-119 §9.1. All zeros mean that no date is given.
fn directory_record(name: &[u8], flags: u8, block: u32, len: u32) -> Vec<u8> {
    let padding = usize::from(name.len().is_multiple_of(2));
    let mut record = vec![(33 + name.len() + padding) as u8, 0];
    record.extend(both_32(block));
    record.extend(both_32(len));
    record.extend([0; 7]);
    record.extend([flags, 0, 0]);
    record.extend(both_16(1));
    record.push(name.len() as u8);
    record.extend(name);
    record.resize(record.len() + padding, 0);
    record
}

/// ECMA-119 §8.4.26.1: sixteen zero digits mean that no date is given.
fn no_date() -> [u8; 17] {
    let mut date = [b'0'; 17];
    date[16] = 0;
    date
}

fn padded(text: &str, len: usize) -> Vec<u8> {
    format!("{text:len$}").into_bytes()
}

fn both_16(number: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (number.to_le_bytes(), number.to_be_bytes());
    [a, b, c, d]
}

fn both_32(number: u32) -> Vec<u8> {
    [number.to_le_bytes(), number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fat::esp;
    use crate::fat::tests::program_in;
    use crate::image::tests::{contents, source};
    use crate::pe::PeMachine;
    use crate::uki::COMMAND_LINE_ROOM;
    use crate::uki::tests::small_uki;

    /// Finds the ESP as firmware does: boot record, catalog, default entry, up to the end.
    fn esp_in(iso: &[u8]) -> &[u8] {
        let u32_at = |at: usize| u32::from_le_bytes(iso[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(u32_at(16 * BLOCK + 80) * BLOCK, iso.len(), "the volume is as long as the file");
        let record = 17 * BLOCK;
        assert_eq!(&iso[record..record + 30], b"\0CD001\x01EL TORITO SPECIFICATION");
        let catalog = u32_at(record + 71) * BLOCK;
        let words = iso[catalog..catalog + 32].chunks(2);
        let sum = words.fold(0u16, |sum, w| sum.wrapping_add(u16::from_le_bytes([w[0], w[1]])));
        assert_eq!((iso[catalog], iso[catalog + 1], sum), (1, UEFI, 0));
        assert_eq!(iso[catalog + 32], BOOTABLE);
        &iso[u32_at(catalog + 32 + 8) * BLOCK..]
    }

    /// Finds a file as GRUB does: primary descriptor, root, folder, entry; the names without case and version.
    fn file_in<'i>(iso: &'i [u8], folder: &str, name: &str) -> &'i [u8] {
        let number = |at: usize, len: usize| {
            let (little, big) = (&iso[at..at + len], &iso[at + len..at + 2 * len]);
            assert!(little.iter().rev().eq(big), "both byte orders");
            little.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
        };
        let contents = |record: usize| {
            let start = number(record + 2, 4) * BLOCK;
            start..start + number(record + 10, 4)
        };
        let find = |directory: usize, name: &str| {
            let mut record = contents(directory).start;
            while iso[record] != 0 {
                let identifier = &iso[record + 33..][..usize::from(iso[record + 32])];
                let shown = String::from_utf8_lossy(identifier).to_lowercase();
                let shown = shown.split(';').next().unwrap().trim_end_matches('.');
                if shown == name {
                    return record;
                }
                record += usize::from(iso[record]);
            }
            panic!("there is no {name}");
        };
        let folder = find(PRIMARY_DESCRIPTOR as usize * BLOCK + 156, folder);
        &iso[contents(find(folder, name))]
    }

    #[test]
    fn firmware_finds_the_program() {
        let uki = small_uki(3_000_000, 2_000_000, "quiet");

        let iso = contents(&iso(&esp(&uki, PeMachine::X64).unwrap()).unwrap());

        let esp = esp_in(&iso);
        let sectors = u32::from_le_bytes(esp[32..36].try_into().unwrap());
        let sectors = sectors.max(u32::from(u16::from_le_bytes([esp[19], esp[20]])));
        assert_eq!(program_in(&esp[..sectors as usize * 512]), contents(&uki));
    }

    #[test]
    fn two_nodes_isos_differ_where_their_command_lines_are_only() {
        let compose = |line| {
            contents(
                &iso(&esp(&small_uki(3_000_000, 9_000, line), PeMachine::X64).unwrap()).unwrap(),
            )
        };
        let (one, two) = (compose("token=one"), compose("token=another"));

        let differing: Vec<_> = (0..one.len()).filter(|n| one[*n] != two[*n]).collect();

        assert_eq!(one.len(), two.len());
        assert!(differing.last().unwrap() - differing[0] < COMMAND_LINE_ROOM);
    }

    #[test]
    fn path_tables_name_the_root_and_the_folder() {
        let folder = IsoFolder { name: "grub", files: BTreeMap::new() };
        let iso = contents(&iso_with_folder(&small_esp(), &folder).unwrap());

        let at = |block: u32| &iso[block as usize * BLOCK..];
        let both = [&b"\x01\0\x16\0\0\0\x01\0\0\0"[..], b"\x04\0\x17\0\0\0\x01\0GRUB\0"].concat();
        assert!(at(PATH_TABLE).starts_with(&both));
        assert!(at(PATH_TABLE_BIG_ENDIAN).starts_with(b"\x01\0\0\0\0\x16\0\x01\0\0\x04"));
        assert_eq!(at(PRIMARY_DESCRIPTOR)[132..136], [22, 0, 0, 0]);
    }

    #[test]
    fn an_esp_longer_than_el_torito_can_count_goes_to_the_end() {
        let esp = esp(&ComposedImage::of_file(source("uki", 60_000_000)), PeMachine::X64).unwrap();
        let iso = iso(&esp).unwrap();
        let entry = crate::image::tests::part(&iso, 19 * 2048 + 32..19 * 2048 + 64);
        assert_eq!(entry[6..8], [1, 0]);
        assert_eq!(iso.len(), (esp.len() + 24 * 2048).next_multiple_of(2048));
    }

    #[test]
    fn an_esp_of_4_gib_is_refused() {
        let esp = ComposedImage::of_file(source("esp", 1 << 32));
        assert_eq!(
            iso(&esp).unwrap_err().to_string(),
            "efi.img has 4294967296 bytes, more than a file of ISO 9660 can have"
        );
    }

    fn small_esp() -> ComposedImage {
        esp(&ComposedImage::of_file(source("shim", 1_000_000)), PeMachine::X64).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn firmware_finds_its_program_and_grub_its_files(
            config in 0u64..5_000, kernel in 1u64..2_000_000, initramfs in 1u64..2_000_000,
        ) {
            let files = [("kernel", kernel), ("initramfs", initramfs), ("grub.cfg", config)];
            let files: BTreeMap<_, _> =
                files.map(|(name, len)| (name, ComposedImage::of_file(source(name, len)))).into();
            let folder = IsoFolder { name: "grub", files: files.clone() };
            let esp = small_esp();

            let iso = contents(&iso_with_folder(&esp, &folder).unwrap());

            for (name, file) in &files {
                prop_assert_eq!(file_in(&iso, "grub", name), contents(file));
            }
            prop_assert_eq!(esp_in(&iso), contents(&esp));
        }

        #[test]
        fn records_are_as_long_as_they_say(name in "[A-Z]{1,8};1", len in any::<u32>()) {
            let record = directory_record(name.as_bytes(), 0, FIRST_FILE, len);
            prop_assert_eq!(usize::from(record[0]), record.len());
            prop_assert!(record.len().is_multiple_of(2));
        }
    }
}
