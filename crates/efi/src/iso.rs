//! An ISO 9660 image whose only file is an ESP, which UEFI firmware finds by El Torito (ECMA-119; "El Torito" 1.0;
//! UEFI §13.3.2.1).
//!
//! The ESP comes last. El Torito's size has 16 bits in blocks of 512 bytes, 32 MiB at most; UEFI reads a size of 0 or
//! 1 as "to the end of the medium", which permits a longer ESP.

use thiserror::Error;

use crate::image::ComposedImage;

const BLOCK: usize = 2048;

const PRIMARY_DESCRIPTOR: u32 = 16;
const CATALOG: u32 = 19;
const PATH_TABLE: u32 = 20;
const PATH_TABLE_BIG_ENDIAN: u32 = 21;
const ROOT: u32 = 22;
/// The first block of the ESP, at 48 KiB: a multiple of 4 KiB, so that readers of the image have no split pages.
const ESP: u32 = 24;

const PATH_TABLE_LEN: u32 = 10;
const TO_THE_END: u16 = 1;
const UEFI: u8 = 0xEF;
const BOOTABLE: u8 = 0x88;
const DIRECTORY: u8 = 0x02;

/// The reason for not composing an ISO image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IsoError {
    /// The ESP exceeds ISO 9660's file size of 4 GiB.
    #[error("the ESP has {0} bytes, more than a file of ISO 9660 can have")]
    Long(u64),
}

/// Composes an ISO image around an ESP, for firmware that boots optical media.
///
/// # Errors
/// [`IsoError::Long`] from 4 GiB on.
pub fn iso(esp: &ComposedImage) -> Result<ComposedImage, IsoError> {
    let len = u32::try_from(esp.len()).map_err(|_| IsoError::Long(esp.len()))?;
    let blocks = ESP + len.div_ceil(BLOCK as u32);

    let mut image = ComposedImage::default();
    // The system area is empty: the image does not support BIOS.
    image.pad_to(u64::from(PRIMARY_DESCRIPTOR) * BLOCK as u64);
    for block in [
        primary_descriptor(blocks),
        boot_record(),
        terminator(),
        catalog(),
        path_table(ROOT.to_le_bytes(), [1, 0]),
        path_table(ROOT.to_be_bytes(), [0, 1]),
        root_directory(len),
    ] {
        let end = image.len() + BLOCK as u64;
        image.push_bytes(block);
        image.pad_to(end);
    }
    image.pad_to(u64::from(ESP) * BLOCK as u64);
    image.append(esp);
    image.pad_to(u64::from(blocks) * BLOCK as u64);
    Ok(image)
}

/// ECMA-119 §8.4.
fn primary_descriptor(blocks: u32) -> Vec<u8> {
    let mut block = descriptor(1);
    block.push(0);
    block.extend(padded("", 32));
    block.extend(padded("FERROBOOT", 32));
    block.extend([0; 8]);
    block.extend(both_32(blocks));
    block.extend([0; 32]);
    // One volume of one, in blocks of 2048.
    block.extend([both_16(1), both_16(1), both_16(BLOCK as u16)].concat());
    block.extend(both_32(PATH_TABLE_LEN));
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
fn catalog() -> Vec<u8> {
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
    default[8..12].copy_from_slice(&ESP.to_le_bytes());
    [validation, default].concat()
}

/// ECMA-119 §9.4; the root is its own parent.
fn path_table(root: [u8; 4], parent: [u8; 2]) -> Vec<u8> {
    [&[1, 0][..], &root, &parent, &[0, 0]].concat()
}

fn root_directory(esp_len: u32) -> Vec<u8> {
    [
        directory_record(&[0], DIRECTORY, ROOT, BLOCK as u32),
        directory_record(&[1], DIRECTORY, ROOT, BLOCK as u32),
        directory_record(b"EFI.IMG;1", 0, ESP, esp_len),
    ]
    .concat()
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
        assert_eq!(iso(&esp), Err(IsoError::Long(1 << 32)));
    }

    proptest! {
        #[test]
        fn records_are_as_long_as_they_say(name in "[A-Z]{1,8};1", len in any::<u32>()) {
            let record = directory_record(name.as_bytes(), 0, ESP, len);
            prop_assert_eq!(usize::from(record[0]), record.len());
            prop_assert!(record.len().is_multiple_of(2));
        }
    }
}
