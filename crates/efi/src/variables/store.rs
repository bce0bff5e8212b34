//! EDK2's variable store: a firmware volume header, a store header, and records up to erased flash.
//!
//! Layout: `MdeModulePkg/Include/Guid/VariableFormat.h`; rules:
//! `MdeModulePkg/Universal/Variable/RuntimeDxe/VariableParsing.c`. Writing flash only clears bits, so records are
//! never moved: a new record is appended and the old one marked; a full store is compacted.

use std::ops::Range;

use thiserror::Error;
use uuid::{Uuid, uuid};

/// `gEfiSystemNvDataFvGuid`.
const NV_DATA: Uuid = uuid!("fff12b8d-7696-4c8b-a985-2747075b4f50");
/// `gEfiAuthenticatedVariableGuid`.
const AUTHENTICATED: Uuid = uuid!("aaf32c78-947b-439a-a180-2e144ec37792");

const VOLUME_SIGNATURE: &[u8; 4] = b"_FVH";
const STORE_HEADER_LEN: usize = 28;
const FORMATTED: u8 = 0x5A;
const HEALTHY: u8 = 0xFE;

const START_ID: u16 = 0x55AA;
const RECORD_HEADER_LEN: usize = 60;
const RECORD_ALIGN: usize = 4;

/// States are combined by AND: each step of a record's life clears one bit.
const VALID: u8 = 0x3F;
const IN_DELETED_TRANSITION: u8 = 0xFE;
const DELETED: u8 = 0xFD;

const ERASED: u8 = 0xFF;

/// `EFI_VARIABLE_TIME_BASED_AUTHENTICATED_WRITE_ACCESS` and the older counter.
const AUTHENTICATED_WRITE: u32 = 0x30;

/// `PcdMaxVariableSize` of OVMF without Secure Boot: header, name and data.
const MAX_RECORD_LEN: usize = 0x2000;
/// `PcdMaxAuthVariableSize` of OVMF with a flash of 4 MiB.
const MAX_AUTHENTICATED_RECORD_LEN: usize = 0x8400;

/// A variable store, with the rest of the flash image around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableStore {
    flash: Vec<u8>,
    /// The area of records.
    records: Range<usize>,
}

/// A valid variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UefiVariable<'a> {
    /// Its name.
    pub name: String,
    /// Its vendor GUID.
    pub vendor: Uuid,
    /// `EFI_VARIABLE_…` bits.
    pub attributes: u32,
    /// Its value.
    pub data: &'a [u8],
}

/// The reason for rejecting a flash image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VariableStoreError {
    /// It ends within its headers.
    #[error("a variable store has more than {0} bytes")]
    Short(usize),
    /// It does not begin with a firmware volume for variables: it may be the firmware's code.
    #[error("this is not a firmware volume with variables")]
    NotAVolume,
    /// The volume's header is damaged.
    #[error("the volume header's checksum is wrong")]
    Checksum,
    /// The volume exceeds the file, or its header exceeds the volume.
    #[error("the volume claims {claimed} bytes, there are {len}")]
    VolumeLength {
        /// The length in the volume's header.
        claimed: u64,
        /// The length of the file.
        len: usize,
    },
    /// The store has records without authentication, the format of EDK2 before 2013.
    #[error("the store's format is {0}, not that of authenticated variables")]
    NotAuthenticated(Uuid),
    /// The store is unformatted, or its formatting was interrupted.
    #[error("the store is not formatted and healthy (format {format:#04x}, state {state:#04x})")]
    NotFormatted {
        /// `0x5A` if formatted.
        format: u8,
        /// `0xFE` if healthy.
        state: u8,
    },
    /// The store exceeds its volume.
    #[error("the store claims {claimed} bytes, its volume has {left} for it")]
    StoreLength {
        /// The length in the store's header.
        claimed: usize,
        /// The volume's size after its header.
        left: usize,
    },
    /// A record exceeds the store.
    #[error("the record at {offset:#x} runs over the end of the store")]
    RecordLength {
        /// The offset in the file.
        offset: usize,
    },
    /// The name of a valid record is malformed.
    #[error("the record at {offset:#x} has a name that is not text ending with NUL")]
    RecordName {
        /// The offset in the file.
        offset: usize,
    },
}

/// The reason for not setting a variable. The store is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetVariableError {
    /// There is not enough room, even after compaction.
    #[error("the variable needs {needed} bytes, the store has {left}")]
    Full {
        /// The size with header and name.
        needed: usize,
        /// The free space after compaction.
        left: usize,
    },
    /// The firmware would refuse a record of this size.
    #[error("the variable needs {needed} bytes; firmware takes at most {most}")]
    Long {
        /// The size with header and name.
        needed: usize,
        /// The limit.
        most: usize,
    },
    /// The variable accepts only signed writes.
    #[error("{0} may be written with a signature only")]
    Authenticated(String),
    /// The name cannot be encoded.
    #[error("{0:?} is not the name of a variable")]
    Name(String),
}

impl VariableStore {
    /// Reads a flash image, such as a copy of `OVMF_VARS_4M.fd`.
    ///
    /// The bytes after the store (EDK2's fault-tolerant write area, padding) are kept unchanged.
    ///
    /// # Errors
    /// [`VariableStoreError`] if the image deviates from EDK2's format.
    pub fn parse(flash: Vec<u8>) -> Result<Self, VariableStoreError> {
        let volume = volume_contents(&flash)?;
        let records = store_contents(&flash[volume.clone()])?;
        let store =
            Self { records: volume.start + records.start..volume.start + records.end, flash };
        let mut walk = RecordWalk { store: &store, offset: store.records.start };
        for record in walk.by_ref() {
            let record = record?;
            if record.is_live() && record.name(&store.flash).is_none() {
                return Err(VariableStoreError::RecordName { offset: record.offset });
            }
        }
        Ok(store)
    }

    /// An empty store in a flash image of `len` bytes for QEMU's `virt` board.
    ///
    /// The image equals that of the board's firmware on erased flash (EDK2's `ArmVirtQemu.dsc` for the sizes, and
    /// `VirtNorFlashDxe/VirtNorFlashFvb.c`, `InitializeFvAndVariableStoreHeaders`). Debian's `AAVMF_VARS.fd` is
    /// erased flash.
    ///
    /// # Errors
    /// [`VariableStoreError::Short`] if `len` is too small.
    pub fn empty_for_virt(len: usize) -> Result<Self, VariableStoreError> {
        const BLOCK: u32 = 0x4_0000;
        /// The variables, and two areas for fault-tolerant writes.
        const VOLUME: u32 = 3 * BLOCK;
        const HEADER: u16 = 72;
        /// `EFI_FVB2_…`: readable, writable, memory-mapped, erased to ones.
        const ATTRIBUTES: u32 = 0xE36;

        let volume_len = VOLUME as usize;
        if len < volume_len {
            return Err(VariableStoreError::Short(volume_len - 1));
        }
        let blocks = u32::try_from(len).unwrap_or(u32::MAX) / BLOCK;
        let mut volume = vec![0; 16];
        volume.extend(NV_DATA.to_bytes_le());
        volume.extend(u64::from(VOLUME).to_le_bytes());
        volume.extend(VOLUME_SIGNATURE);
        volume.extend(ATTRIBUTES.to_le_bytes());
        volume.extend(HEADER.to_le_bytes());
        // The checksum, no extended header, and revision 2.
        volume.extend([0, 0, 0, 0, 0, 2]);
        for number in [blocks, BLOCK, 0, 0] {
            volume.extend(number.to_le_bytes());
        }
        let words = volume.chunks_exact(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
        let checksum = words.fold(0_u16, u16::wrapping_add).wrapping_neg();
        volume[50..52].copy_from_slice(&checksum.to_le_bytes());
        volume.extend(AUTHENTICATED.to_bytes_le());
        volume.extend((BLOCK - u32::from(HEADER)).to_le_bytes());
        volume.extend([FORMATTED, HEALTHY, 0, 0, 0, 0, 0, 0]);
        volume.resize(volume_len, ERASED);
        volume.resize(len, 0);
        Self::parse(volume)
    }

    /// The flash image.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.flash
    }

    /// All valid variables, in the order of writing.
    #[must_use]
    pub fn list(&self) -> Vec<UefiVariable<'_>> {
        self.live().iter().map(|record| record.variable(&self.flash)).collect()
    }

    /// One variable.
    #[must_use]
    pub fn get(&self, name: &str, vendor: Uuid) -> Option<UefiVariable<'_>> {
        self.list().into_iter().find(|variable| variable.name == name && variable.vendor == vendor)
    }

    /// Writes a variable; an existing one of the same name is replaced.
    ///
    /// # Errors
    /// [`SetVariableError`]; the store is then unchanged.
    pub fn set(
        &mut self,
        name: &str,
        vendor: Uuid,
        attributes: u32,
        data: &[u8],
    ) -> Result<(), SetVariableError> {
        if name.is_empty() || name.contains('\0') {
            return Err(SetVariableError::Name(name.to_owned()));
        }
        let old = self.get(name, vendor).map_or(0, |variable| variable.attributes);
        if (attributes | old) & AUTHENTICATED_WRITE != 0 {
            return Err(SetVariableError::Authenticated(name.to_owned()));
        }
        self.write(name, vendor, attributes, data)
    }

    /// Writes a variable of any attributes, as the firmware does after it has checked a signature.
    pub(super) fn write(
        &mut self,
        name: &str,
        vendor: Uuid,
        attributes: u32,
        data: &[u8],
    ) -> Result<(), SetVariableError> {
        let record = encode(name, vendor, attributes, data);
        let most = if attributes & AUTHENTICATED_WRITE == 0 {
            MAX_RECORD_LEN
        } else {
            MAX_AUTHENTICATED_RECORD_LEN
        };
        if record.len() > most {
            return Err(SetVariableError::Long { needed: record.len(), most });
        }
        if !self.has_erased_room_for(record.len()) {
            let mut compacted = self.clone();
            compacted.delete(name, vendor);
            compacted.compact();
            if !compacted.has_erased_room_for(record.len()) {
                let left = compacted.records.end - compacted.end_of_records();
                return Err(SetVariableError::Full { needed: record.len(), left });
            }
            *self = compacted;
        }
        self.delete(name, vendor);
        let at = self.end_of_records();
        self.flash[at..at + record.len()].copy_from_slice(&record);
        Ok(())
    }

    /// Marks a variable as deleted; returns whether it existed.
    pub fn delete(&mut self, name: &str, vendor: Uuid) -> bool {
        let mut found = false;
        for record in self.all() {
            let named = record.name(&self.flash).as_deref() == Some(name);
            if record.is_live() && named && record.vendor(&self.flash) == vendor {
                self.flash[record.offset + 2] &= IN_DELETED_TRANSITION & DELETED;
                found = true;
            }
        }
        found
    }

    /// The valid records. A record in transition is valid only if its successor is missing, since the firmware may
    /// have lost power between the two writes.
    fn live(&self) -> Vec<VariableRecord> {
        let (settled, in_transition): (Vec<_>, Vec<_>) =
            self.all().into_iter().filter(VariableRecord::is_live).partition(|r| r.state == VALID);
        let key = |record: &VariableRecord| (record.name(&self.flash), record.vendor(&self.flash));
        let mut live = settled;
        for record in in_transition {
            if !live.iter().any(|other| key(other) == key(&record)) {
                live.push(record);
            }
        }
        live.sort_by_key(|record| record.offset);
        live
    }

    fn all(&self) -> Vec<VariableRecord> {
        self.walk().flatten().collect()
    }

    fn walk(&self) -> RecordWalk<'_> {
        RecordWalk { store: self, offset: self.records.start }
    }

    fn end_of_records(&self) -> usize {
        let mut walk = self.walk();
        walk.by_ref().for_each(drop);
        walk.offset.min(self.records.end)
    }

    /// Whether the free space is erased: an interrupted write leaves cleared bits.
    fn has_erased_room_for(&self, len: usize) -> bool {
        let at = self.end_of_records();
        let room = self.flash.get(at..at + len);
        at + len <= self.records.end && room.is_some_and(|room| room.iter().all(|b| *b == ERASED))
    }

    /// `Reclaim`: keeps valid records, and erases the rest.
    fn compact(&mut self) {
        let mut kept = Vec::with_capacity(self.records.len());
        for record in self.live() {
            let start = kept.len();
            kept.extend_from_slice(&self.flash[record.range()]);
            kept[start + 2] = VALID;
            kept.resize(kept.len().next_multiple_of(RECORD_ALIGN), ERASED);
        }
        kept.resize(self.records.len(), ERASED);
        self.flash[self.records.clone()].copy_from_slice(&kept);
    }
}

/// `EFI_FIRMWARE_VOLUME_HEADER` (PI vol. 3 §3.2.1).
fn volume_contents(flash: &[u8]) -> Result<Range<usize>, VariableStoreError> {
    const HEADER_LEN_FIELD: usize = 48;
    const SMALLEST_HEADER: usize = 72;
    let short = VariableStoreError::Short(SMALLEST_HEADER);
    if flash.len() < SMALLEST_HEADER {
        return Err(short);
    }
    if guid(flash, 16) != NV_DATA || &flash[40..44] != VOLUME_SIGNATURE {
        return Err(VariableStoreError::NotAVolume);
    }
    let header_len = usize::from(u16_at(flash, HEADER_LEN_FIELD));
    let claimed = u64::from(u32_at(flash, 32)) | u64::from(u32_at(flash, 36)) << 32;
    let len = usize::try_from(claimed).unwrap_or(usize::MAX);
    if len > flash.len() || header_len > len || header_len < SMALLEST_HEADER {
        return Err(VariableStoreError::VolumeLength { claimed, len: flash.len() });
    }
    let (words, odd) = flash[..header_len].as_chunks::<2>();
    let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(u16::from_le_bytes(*word)));
    if sum != 0 || !odd.is_empty() {
        return Err(VariableStoreError::Checksum);
    }
    Ok(header_len..len)
}

/// `VARIABLE_STORE_HEADER`. The range is within `volume`.
fn store_contents(volume: &[u8]) -> Result<Range<usize>, VariableStoreError> {
    if volume.len() < STORE_HEADER_LEN {
        return Err(VariableStoreError::Short(STORE_HEADER_LEN));
    }
    let format = guid(volume, 0);
    if format != AUTHENTICATED {
        return Err(VariableStoreError::NotAuthenticated(format));
    }
    let (format, state) = (volume[20], volume[21]);
    if (format, state) != (FORMATTED, HEALTHY) {
        return Err(VariableStoreError::NotFormatted { format, state });
    }
    let claimed = u32_at(volume, 16) as usize;
    if claimed > volume.len() || claimed < STORE_HEADER_LEN {
        return Err(VariableStoreError::StoreLength { claimed, left: volume.len() });
    }
    Ok(STORE_HEADER_LEN..claimed)
}

/// `AUTHENTICATED_VARIABLE_HEADER`, name and data, padded to the next record.
fn encode(name: &str, vendor: Uuid, attributes: u32, data: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut record = Vec::with_capacity(RECORD_HEADER_LEN + name.len() + data.len());
    record.extend(START_ID.to_le_bytes());
    record.extend([VALID, 0]);
    record.extend(attributes.to_le_bytes());
    // Monotonic count, time stamp and public key index: only for authenticated variables.
    record.extend([0; 8 + 16 + 4]);
    record.extend((name.len() as u32).to_le_bytes());
    record.extend((data.len() as u32).to_le_bytes());
    record.extend(vendor.to_bytes_le());
    record.extend(name);
    record.extend(data);
    record.resize(record.len().next_multiple_of(RECORD_ALIGN), ERASED);
    record
}

/// An iterator over records, up to the first without a start mark.
struct RecordWalk<'a> {
    store: &'a VariableStore,
    offset: usize,
}

impl Iterator for RecordWalk<'_> {
    type Item = Result<VariableRecord, VariableStoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (flash, end) = (&self.store.flash, self.store.records.end);
        let offset = self.offset;
        if offset + RECORD_HEADER_LEN > end || u16_at(flash, offset) != START_ID {
            return None;
        }
        let record = VariableRecord {
            offset,
            state: flash[offset + 2],
            name_len: written(u32_at(flash, offset + 36)),
            data_len: written(u32_at(flash, offset + 40)),
        };
        let record_end = record.name_len.saturating_add(record.data_len);
        let record_end = record_end.saturating_add(offset + RECORD_HEADER_LEN);
        if record_end > end {
            self.offset = end;
            return Some(Err(VariableStoreError::RecordLength { offset }));
        }
        self.offset = record_end.next_multiple_of(RECORD_ALIGN);
        Some(Ok(record))
    }
}

/// A length field. One that is still erased after a power loss counts as zero (`NameSizeOfVariable`).
fn written(len: u32) -> usize {
    if len == u32::MAX { 0 } else { len as usize }
}

/// The position of a record; its creator has checked that it is within the store.
#[derive(Clone, Copy, Debug)]
struct VariableRecord {
    offset: usize,
    state: u8,
    name_len: usize,
    data_len: usize,
}

impl VariableRecord {
    fn is_live(&self) -> bool {
        self.state == VALID || self.state == VALID & IN_DELETED_TRANSITION
    }

    fn name(&self, flash: &[u8]) -> Option<String> {
        let at = self.offset + RECORD_HEADER_LEN;
        let (units, odd) = flash[at..at + self.name_len].as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        let (last, name) = units.split_last()?;
        let proper = odd.is_empty() && *last == 0 && !name.is_empty() && !name.contains(&0);
        proper.then(|| String::from_utf16(name).ok()).flatten()
    }

    fn vendor(&self, flash: &[u8]) -> Uuid {
        guid(flash, self.offset + 44)
    }

    fn variable<'a>(&self, flash: &'a [u8]) -> UefiVariable<'a> {
        let range = self.range();
        UefiVariable {
            name: self.name(flash).unwrap_or_default(),
            vendor: self.vendor(flash),
            attributes: u32_at(flash, self.offset + 4),
            data: &flash[range.end - self.data_len..range.end],
        }
    }

    fn range(&self) -> Range<usize> {
        self.offset..self.offset + RECORD_HEADER_LEN + self.name_len + self.data_len
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn guid(bytes: &[u8], at: usize) -> Uuid {
    let mut guid = [0; 16];
    guid.copy_from_slice(&bytes[at..at + 16]);
    Uuid::from_bytes_le(guid)
}

#[cfg(test)]
impl VariableStore {
    /// A newly formatted store of 4 kB, laid out like the beginning of `OVMF_VARS_4M.fd`.
    pub(crate) fn empty() -> Self {
        Self::parse(tests::formatted(0x1000)).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::variables::{GLOBAL, LoadOption, NON_VOLATILE_BOOT_RUNTIME as NVBR};

    pub(super) fn formatted(len: usize) -> Vec<u8> {
        let mut flash = vec![0; 16];
        flash.extend(NV_DATA.to_bytes_le());
        flash.extend((len as u64).to_le_bytes());
        flash.extend(VOLUME_SIGNATURE);
        flash.extend([0xFF, 0xFE, 0x04, 0x00, 0x48, 0x00, 0, 0, 0, 0, 0, 2]);
        flash.extend([(len as u32 / 0x100).to_le_bytes(), 0x100u32.to_le_bytes()].concat());
        flash.extend([0; 8]);
        let sum = flash.chunks(2).fold(0u16, |s, w| s.wrapping_add(u16_at(w, 0)));
        flash[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
        flash.extend(AUTHENTICATED.to_bytes_le());
        flash.extend((len as u32 - 0x48).to_le_bytes());
        flash.extend([FORMATTED, HEALTHY, 0, 0, 0, 0, 0, 0]);
        flash.resize(len, ERASED);
        flash
    }

    fn names(store: &VariableStore) -> Vec<String> {
        store.list().into_iter().map(|variable| variable.name).collect()
    }

    #[test]
    fn what_is_set_is_there_after_parsing_again() {
        let mut store = VariableStore::empty();

        store.set("Lang", GLOBAL, NVBR, b"eng").unwrap();

        let again = VariableStore::parse(store.as_bytes().to_vec()).unwrap();
        let variable = again.get("Lang", GLOBAL).unwrap();
        assert_eq!((variable.attributes, variable.data), (NVBR, &b"eng"[..]));
    }

    /// The output of `virt-fw-vars --set-boot-uri http://10.0.0.1:8080/boot/x/boot.iso` (virt-firmware) in Debian's
    /// `OVMF_VARS_4M.fd`, from the first record to erased flash.
    #[test]
    fn a_boot_uri_is_written_byte_for_byte_as_by_virt_firmware() {
        let golden = include_bytes!("../../tests/golden/virt-fw-vars-boot-uri.bin");
        let url = "http://10.0.0.1:8080/boot/x/boot.iso";
        let mut store = VariableStore::empty();

        store.set_boot_option(0x99, &LoadOption::from_uri("netboot boot.iso", url)).unwrap();
        store.set_boot_next(0x99).unwrap();

        assert_eq!(&store.flash[store.records.start..][..golden.len()], golden);
    }

    /// The headers of Debian's `AAVMF_VARS.snakeoil.fd`, written by QEMU's `virt` board.
    #[test]
    fn an_empty_store_for_arm_begins_as_its_firmware_writes_it() {
        let header = "8d2bf1ff96768b4ca9852747075b4f5000000c00000000005f465648360e00004800f8f800000002\
                      00010000000004000000000000000000";
        let store = "782cf3aa7b949a43a1802e144ec37792b8ff03005afe000000000000";

        let made = VariableStore::empty_for_virt(64 * 1024 * 1024).unwrap();

        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&made.flash[16..72]), header);
        assert_eq!(hex(&made.flash[72..100]), store);
        assert!(made.list().is_empty());
        assert_eq!(VariableStore::empty_for_virt(1024), Err(VariableStoreError::Short(0xB_FFFF)));
    }

    #[test]
    fn a_new_value_is_appended_and_the_old_record_only_marked() {
        let mut store = VariableStore::empty();
        store.set("A", GLOBAL, NVBR, b"old").unwrap();
        let first = store.records.start;

        store.set("A", GLOBAL, NVBR, b"new!").unwrap();

        assert_eq!(store.flash[first + 2], 0x3C);
        assert_eq!(store.list().len(), 1);
        assert_eq!(store.get("A", GLOBAL).unwrap().data, b"new!");
    }

    #[test]
    fn the_same_name_of_another_vendor_is_another_variable() {
        let mut store = VariableStore::empty();
        store.set("A", GLOBAL, NVBR, b"1").unwrap();
        store.set("A", Uuid::nil(), NVBR, b"2").unwrap();

        assert!(store.delete("A", Uuid::nil()));

        assert_eq!(store.get("A", GLOBAL).unwrap().data, b"1");
    }

    #[test]
    fn a_full_store_is_compacted_before_it_refuses() {
        let mut store = VariableStore::empty();
        for round in 0..200u16 {
            store.set("Counter", GLOBAL, NVBR, &round.to_le_bytes()).unwrap();
        }
        assert_eq!(store.get("Counter", GLOBAL).unwrap().data, [199, 0]);

        let before = store.clone();
        let refused = store.set("Big", GLOBAL, NVBR, &[0; 0x1000]).unwrap_err();

        assert!(matches!(refused, SetVariableError::Full { .. }), "{refused}");
        assert_eq!(store, before);
    }

    #[test]
    fn a_record_in_transition_counts_until_its_successor_is_there() {
        let mut store = VariableStore::empty();
        store.set("A", GLOBAL, NVBR, b"old").unwrap();
        let first = store.records.start;
        store.flash[first + 2] = VALID & IN_DELETED_TRANSITION;
        assert_eq!(store.get("A", GLOBAL).unwrap().data, b"old");

        let at = store.end_of_records();
        let successor = encode("A", GLOBAL, NVBR, b"new");
        store.flash[at..at + successor.len()].copy_from_slice(&successor);

        assert_eq!(store.list().len(), 1);
        assert_eq!(store.get("A", GLOBAL).unwrap().data, b"new");
    }

    #[test]
    fn a_write_that_lost_power_is_stepped_over() {
        let mut store = VariableStore::empty();
        let at = store.records.start;
        store.flash[at..at + 3].copy_from_slice(&[0xAA, 0x55, 0xFF]);

        store.set("A", GLOBAL, NVBR, b"1").unwrap();

        assert_eq!(names(&VariableStore::parse(store.flash).unwrap()), ["A"]);
    }

    #[test]
    fn flash_that_is_not_erased_is_not_written_over() {
        let mut store = VariableStore::empty();
        let at = store.records.start;
        store.flash[at + 70] = 0;

        store.set("A", GLOBAL, NVBR, b"12345678").unwrap();

        assert_eq!(store.get("A", GLOBAL).unwrap().data, b"12345678");
    }

    #[test]
    fn an_authenticated_variable_is_left_to_its_owner() {
        let mut store = VariableStore::empty();
        let at = store.records.start;
        let record = encode("db", GLOBAL, 0x27, b"keys");
        store.flash[at..at + record.len()].copy_from_slice(&record);

        let refused = store.set("db", GLOBAL, NVBR, b"").unwrap_err();

        assert_eq!(refused, SetVariableError::Authenticated("db".into()));
    }

    #[test]
    fn the_firmware_s_code_is_not_taken_for_its_variables() {
        let mut code = formatted(0x1000);
        code[16..32].fill(0x8C);
        assert_eq!(VariableStore::parse(code), Err(VariableStoreError::NotAVolume));
    }

    #[test]
    fn a_damaged_header_is_refused() {
        let mut flash = formatted(0x1000);
        flash[45] ^= 1;
        assert_eq!(VariableStore::parse(flash), Err(VariableStoreError::Checksum));
    }

    #[test]
    fn a_record_that_runs_over_the_end_is_refused() {
        let mut store = VariableStore::empty();
        store.set("A", GLOBAL, NVBR, b"1").unwrap();
        let at = store.records.start;
        store.flash[at + 40..at + 44].copy_from_slice(&0xFFFF_FF00u32.to_le_bytes());
        assert_eq!(
            VariableStore::parse(store.flash),
            Err(VariableStoreError::RecordLength { offset: at })
        );
    }

    proptest! {
        #[test]
        fn edits_end_where_a_plain_map_would(
            edits in vec(("[A-D]", vec(any::<u8>(), 0..300), any::<bool>()), 0..60),
        ) {
            let mut store = VariableStore::empty();
            let mut map = std::collections::BTreeMap::new();
            for (name, data, delete) in edits {
                if delete {
                    prop_assert_eq!(store.delete(&name, GLOBAL), map.remove(&name).is_some());
                } else {
                    store.set(&name, GLOBAL, NVBR, &data).unwrap();
                    map.insert(name, data);
                }
                store = VariableStore::parse(store.flash).unwrap();
            }
            let mut listed: Vec<_> =
                store.list().into_iter().map(|v| (v.name, v.data.to_vec())).collect();
            listed.sort();
            prop_assert_eq!(listed, map.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic(
            at in vec((0usize..0x400, any::<u8>()), 0..40), cut in 0usize..=0x1000,
        ) {
            let mut store = VariableStore::empty();
            store.set("Boot0000", GLOBAL, NVBR, &[7; 40]).unwrap();
            store.set("BootOrder", GLOBAL, NVBR, &[0, 0]).unwrap();
            let mut flash = store.flash;
            for (at, byte) in at {
                flash[at] = byte;
            }
            flash.truncate(cut);
            if let Ok(mut store) = VariableStore::parse(flash) {
                let _ = store.boot_options();
                let _ = store.boot_once_from("http://a/b.iso");
                prop_assert!(VariableStore::parse(store.flash).is_ok());
            }
        }
    }
}
