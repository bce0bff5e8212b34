//! The headers of a PE32+ program for UEFI, as far as needed to add sections.
//!
//! Names and offsets are those of Microsoft's "PE Format". Anything unusual is refused: the stub is chosen by this
//! project, so an oddity is an error.

use thiserror::Error;

use crate::image::{Extent, SharedFile};
use crate::pe_headers::{COFF_LEN, DATA_DIRECTORIES, PeHeaders, PeHeadersError, u16_at, u32_at};

const SUBSYSTEM_EFI_APPLICATION: u16 = 10;

const SECTION_LEN: usize = 40;

/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`.
const READ_ONLY_DATA: u32 = 0x4000_0040;

/// The architecture of a program; the values are those of the COFF header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum PeMachine {
    /// x86-64.
    X64 = 0x8664,
    /// AArch64.
    Arm64 = 0xAA64,
    /// RISC-V with 64 bits.
    Riscv64 = 0x5064,
}

impl PeMachine {
    fn of_header(machine: u16) -> Option<Self> {
        [Self::X64, Self::Arm64, Self::Riscv64].into_iter().find(|known| *known as u16 == machine)
    }
}

/// A program that starts the kernel in its own sections, such as systemd's `linuxx64.efi.stub`.
#[derive(Clone, Debug)]
pub struct UkiStub {
    source: SharedFile,
    machine: PeMachine,
    /// The headers, up to `SizeOfHeaders`.
    headers: Vec<u8>,
    pe: usize,
    sections: Vec<PeSection>,
    section_alignment: u32,
    file_alignment: u32,
    /// The end of the sections' contents; the rest (debugging symbols) is left out.
    raw_end: u32,
    /// The position of the certificate table's entry in the headers; `None` if they have too few entries.
    certificate_table: Option<usize>,
}

/// The fields in a program's headers that no signature covers, by their offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignaturePlaces {
    /// `CheckSum`, 4 bytes.
    pub(crate) checksum: u64,
    /// The entry of the certificate table, 8 bytes.
    pub(crate) certificate_table: u64,
}

/// The reason for rejecting a stub.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StubError {
    /// The bytes are not those of the given file.
    #[error("{0} has another length than was said")]
    Length(String),
    /// The file ends within its headers.
    #[error("the headers are cut short")]
    Short,
    /// The file is not a PE32+ program.
    #[error("this is not a PE32+ program")]
    NotPe,
    /// The program is for another architecture or environment.
    #[error(
        "this is not a UEFI application for x64, arm64 or riscv64 (machine {machine:#06x}, subsystem {subsystem})"
    )]
    NotForUefi {
        /// The value in the COFF header.
        machine: u16,
        /// The value in the optional header.
        subsystem: u16,
    },
    /// The program is signed: added sections would invalidate the signature.
    #[error("the stub is signed; give an unsigned one")]
    Signed,
    /// Two fields contradict each other.
    #[error("the headers make no sense: {0}")]
    Nonsense(&'static str),
}

impl From<PeHeadersError> for StubError {
    fn from(error: PeHeadersError) -> Self {
        match error {
            PeHeadersError::Short => Self::Short,
            PeHeadersError::NotPe => Self::NotPe,
        }
    }
}

/// The reason for not adding sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddSectionError {
    /// The headers have no room for the sections.
    #[error("the stub's headers have room for {room} more sections, {needed} are needed")]
    NoRoom {
        /// The number of sections that fit.
        room: usize,
        /// The number of sections to add.
        needed: usize,
    },
    /// The image exceeds the 32-bit offsets of a PE file.
    #[error("the image would be longer than 4 GiB")]
    Long,
}

/// The reason why a program cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotSignable {
    /// The headers have no room for the place of a signature.
    #[error("the headers of the stub have no entry for a certificate table")]
    NoCertificateTable,
    /// Bytes between two sections would be signed by some tools, and not by others.
    #[error("the stub has bytes that belong to no section")]
    Gap,
    /// The program and its signature exceed the 32-bit offsets of a PE file.
    #[error("the signed program would be longer than 4 GiB")]
    Long,
}

/// A section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeSection {
    pub(crate) name: [u8; 8],
    pub(crate) virtual_size: u32,
    pub(crate) virtual_address: u32,
    pub(crate) raw_size: u32,
    pub(crate) raw_offset: u32,
    pub(crate) characteristics: u32,
}

impl UkiStub {
    /// Parses the headers of `bytes`, the whole contents of `source`.
    ///
    /// # Errors
    /// [`StubError`] for anything but a well-formed, unsigned UEFI application.
    pub fn parse(source: SharedFile, bytes: &[u8]) -> Result<Self, StubError> {
        if source.len != bytes.len() as u64 {
            return Err(StubError::Length(source.name.to_string()));
        }
        let found = PeHeaders::find(bytes)?;
        let (pe, optional) = (found.pe, found.optional());
        let optional_len = usize::from(u16_at(bytes, pe + 20)?);
        let (machine, subsystem) = (u16_at(bytes, pe + 4)?, u16_at(bytes, optional + 68)?);
        let known =
            PeMachine::of_header(machine).filter(|_| subsystem == SUBSYSTEM_EFI_APPLICATION);
        let machine = known.ok_or(StubError::NotForUefi { machine, subsystem })?;
        let directories = found.directories()?;
        if optional_len != DATA_DIRECTORIES + 8 * directories.min(16) || directories > 16 {
            return Err(StubError::Nonsense("the number of data directories"));
        }
        let certificate_table = found.certificate_table()?;
        if certificate_table.is_some_and(|entry| entry.len != 0) {
            return Err(StubError::Signed);
        }
        let section_alignment = u32_at(bytes, optional + 32)?;
        let file_alignment = u32_at(bytes, optional + 36)?;
        if !file_alignment.is_power_of_two()
            || !section_alignment.is_power_of_two()
            || file_alignment < 0x200
            || section_alignment < file_alignment
            || section_alignment > 0x1_0000
        {
            return Err(StubError::Nonsense("the alignments"));
        }
        let sections = sections(bytes, pe, optional + optional_len)?;
        let headers_len = u32_at(bytes, optional + 60)? as usize;
        let table_end = optional + optional_len + SECTION_LEN * sections.len();
        let headers = bytes.get(..headers_len).ok_or(StubError::Short)?.to_vec();
        if headers_len < table_end || !headers_len.is_multiple_of(file_alignment as usize) {
            return Err(StubError::Nonsense("SizeOfHeaders"));
        }
        let image_len = u32_at(bytes, optional + 56)?;
        let raw_end = check_sections(&sections, headers_len as u32, image_len, bytes.len())?;
        Ok(Self {
            source,
            machine,
            headers,
            pe,
            sections,
            section_alignment,
            file_alignment,
            raw_end,
            certificate_table: certificate_table.map(|entry| entry.at),
        })
    }

    /// Its architecture.
    #[must_use]
    pub fn machine(&self) -> PeMachine {
        self.machine
    }

    /// The places of a signature's fields.
    ///
    /// # Errors
    /// [`NotSignable::NoCertificateTable`] and [`NotSignable::Gap`].
    pub(crate) fn signature_places(&self) -> Result<SignaturePlaces, NotSignable> {
        let entry = self.certificate_table.ok_or(NotSignable::NoCertificateTable)?;
        let in_sections: u64 = self.sections.iter().map(|s| u64::from(s.raw_size)).sum();
        let end = self.align_in_file(self.contents_end());
        if self.headers.len() as u64 + in_sections != end {
            return Err(NotSignable::Gap);
        }
        let checksum = (self.pe + COFF_LEN + 64) as u64;
        Ok(SignaturePlaces { checksum, certificate_table: entry as u64 })
    }

    /// The file offset of a section that follows one that ends at `end`.
    pub(crate) fn align_in_file(&self, end: u64) -> u64 {
        end.next_multiple_of(u64::from(self.file_alignment))
    }

    /// The sections' unchanged contents.
    pub(crate) fn contents(&self) -> Extent {
        let offset = self.headers.len() as u64;
        let len = u64::from(self.raw_end) - offset;
        Extent::File { source: self.source.clone(), offset, len }
    }

    /// The end of those contents.
    pub(crate) fn contents_end(&self) -> u64 {
        u64::from(self.raw_end)
    }

    /// The headers with the sections `added` (name and length each) after the existing ones. Their contents follow
    /// each other in the file and in memory, each aligned.
    pub(crate) fn headers_with(&self, added: &[(&str, u64)]) -> Result<Vec<u8>, AddSectionError> {
        let table = self.pe + COFF_LEN + usize::from(self.field_u16(self.pe + 20));
        let used = table + SECTION_LEN * self.sections.len();
        let room = (self.headers.len() - used) / SECTION_LEN;
        if added.len() > room {
            return Err(AddSectionError::NoRoom { room, needed: added.len() });
        }
        let (new, image_len) = self.place(added)?;

        let mut headers = self.headers.clone();
        for (section, header) in new.iter().zip(headers[used..].chunks_exact_mut(SECTION_LEN)) {
            section.write(header);
        }
        let optional = self.pe + COFF_LEN;
        let count = (self.sections.len() + new.len()) as u16;
        let data_len = new.iter().fold(self.field_u32(optional + 8), |sum, section| {
            sum.saturating_add(section.raw_size)
        });
        headers[self.pe + 6..][..2].copy_from_slice(&count.to_le_bytes());
        // PointerToSymbolTable and NumberOfSymbols: the symbols are left out.
        headers[self.pe + 12..][..8].fill(0);
        headers[optional + 8..][..4].copy_from_slice(&data_len.to_le_bytes());
        headers[optional + 56..][..4].copy_from_slice(&image_len.to_le_bytes());
        // CheckSum: UEFI ignores it, and computing it would require reading all contents.
        headers[optional + 64..][..4].fill(0);
        Ok(headers)
    }

    fn place(&self, added: &[(&str, u64)]) -> Result<(Vec<PeSection>, u32), AddSectionError> {
        // systemd's stub passes sections to the kernel in place, so each begins on a page.
        let page = u64::from(self.section_alignment.max(0x1000));
        let ends = self.sections.iter().map(|s| u64::from(s.virtual_address) + s.memory_len());
        let mut address = ends.max().unwrap_or_default().next_multiple_of(page);
        let mut offset = self.align_in_file(self.contents_end());
        let mut placed = Vec::with_capacity(added.len());
        for (name, len) in added {
            let raw_size = self.align_in_file(*len);
            let end = (address + raw_size).max(offset + raw_size);
            if u32::try_from(end.next_multiple_of(page)).is_err() {
                return Err(AddSectionError::Long);
            }
            placed.push(PeSection {
                name: section_name(name),
                virtual_size: *len as u32,
                virtual_address: address as u32,
                raw_size: raw_size as u32,
                raw_offset: offset as u32,
                characteristics: READ_ONLY_DATA,
            });
            address = (address + raw_size).next_multiple_of(page);
            offset += raw_size;
        }
        Ok((placed, address as u32))
    }

    /// A field in the headers; its position was checked by the parser.
    fn field_u16(&self, at: usize) -> u16 {
        u16_at(&self.headers, at).unwrap_or_default()
    }

    fn field_u32(&self, at: usize) -> u32 {
        u32_at(&self.headers, at).unwrap_or_default()
    }
}

impl PeSection {
    fn read(header: &[u8]) -> Result<Self, StubError> {
        let mut name = [0; 8];
        name.copy_from_slice(header.get(..8).ok_or(StubError::Short)?);
        Ok(Self {
            name,
            virtual_size: u32_at(header, 8)?,
            virtual_address: u32_at(header, 12)?,
            raw_size: u32_at(header, 16)?,
            raw_offset: u32_at(header, 20)?,
            characteristics: u32_at(header, 36)?,
        })
    }

    fn write(&self, header: &mut [u8]) {
        header.fill(0);
        header[..8].copy_from_slice(&self.name);
        header[8..12].copy_from_slice(&self.virtual_size.to_le_bytes());
        header[12..16].copy_from_slice(&self.virtual_address.to_le_bytes());
        header[16..20].copy_from_slice(&self.raw_size.to_le_bytes());
        header[20..24].copy_from_slice(&self.raw_offset.to_le_bytes());
        header[36..40].copy_from_slice(&self.characteristics.to_le_bytes());
    }

    /// The length in memory: EDK2 loads the smaller of the two lengths and clears up to the virtual one.
    fn memory_len(&self) -> u64 {
        u64::from(self.virtual_size.max(self.raw_size))
    }
}

fn sections(bytes: &[u8], pe: usize, table: usize) -> Result<Vec<PeSection>, StubError> {
    let count = usize::from(u16_at(bytes, pe + 6)?);
    let table = bytes.get(table..).ok_or(StubError::Short)?;
    (0..count)
        .map(|n| PeSection::read(table.get(SECTION_LEN * n..).ok_or(StubError::Short)?))
        .collect()
}

/// Checks that sections are consecutive in memory and in the file, and follow the headers.
fn check_sections(
    sections: &[PeSection],
    headers_len: u32,
    image_len: u32,
    file_len: usize,
) -> Result<u32, StubError> {
    let mut memory_end = u64::from(headers_len);
    let mut raw_end = u64::from(headers_len);
    for section in sections {
        let (address, offset) = (u64::from(section.virtual_address), u64::from(section.raw_offset));
        // Debian's stub has `.sdmagic` right after `.sbat`'s contents, within its padding: the virtual sizes must not
        // overlap.
        if address < memory_end {
            return Err(StubError::Nonsense("sections that overlap in memory"));
        }
        memory_end = address + u64::from(section.virtual_size);
        if section.raw_size > 0 {
            if offset < raw_end {
                return Err(StubError::Nonsense("sections that overlap in the file"));
            }
            raw_end = offset + u64::from(section.raw_size);
        }
    }
    if raw_end > file_len as u64 {
        return Err(StubError::Short);
    }
    if memory_end > u64::from(image_len) {
        return Err(StubError::Nonsense("SizeOfImage"));
    }
    u32::try_from(raw_end).map_err(|_| StubError::Nonsense("sections behind 4 GiB"))
}

fn section_name(name: &str) -> [u8; 8] {
    let mut padded = [0; 8];
    let len = name.len().min(8);
    padded[..len].copy_from_slice(&name.as_bytes()[..len]);
    padded
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::pe_headers::tests::MAGIC;

    /// A stub with two sections, in the layout of systemd's.
    pub(crate) fn small_stub() -> Vec<u8> {
        let mut bytes = vec![0; 0x800];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3C] = 0x80;
        let (pe, optional) = (0x80, 0x98);
        bytes[pe..pe + 4].copy_from_slice(b"PE\0\0");
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(pe + 4, &(PeMachine::X64 as u16).to_le_bytes());
        put(pe + 6, &[2, 0]);
        put(pe + 20, &[240, 0]);
        put(optional, &MAGIC);
        put(optional + 32, &0x200u32.to_le_bytes());
        put(optional + 36, &0x200u32.to_le_bytes());
        put(optional + 56, &0x6000u32.to_le_bytes());
        put(optional + 60, &0x400u32.to_le_bytes());
        put(optional + 68, &[10, 0]);
        put(optional + 108, &[16, 0, 0, 0]);
        for (n, name) in [".text", ".data"].into_iter().enumerate() {
            let section = PeSection {
                name: section_name(name),
                virtual_size: 0x180,
                virtual_address: 0x4000 + 0x1000 * n as u32,
                raw_size: 0x200,
                raw_offset: 0x400 + 0x200 * n as u32,
                characteristics: 0x6000_0020,
            };
            section.write(&mut bytes[optional + 240 + 40 * n..][..40]);
        }
        bytes.extend(b"symbols that nobody needs");
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<UkiStub, StubError> {
        let sha256 = Sha256::digest(bytes).into();
        UkiStub::parse(
            SharedFile { name: "stub.efi".into(), len: bytes.len() as u64, sha256 },
            bytes,
        )
    }

    /// The sections in a program's headers.
    pub(crate) fn sections_of(bytes: &[u8]) -> Vec<PeSection> {
        let pe = PeHeaders::find(bytes).unwrap().pe;
        sections(bytes, pe, pe + COFF_LEN + usize::from(u16_at(bytes, pe + 20).unwrap())).unwrap()
    }

    #[test]
    fn symbols_behind_the_sections_are_left_behind() {
        let stub = parse(&small_stub()).unwrap();
        assert_eq!(stub.contents_end(), 0x800);
    }

    #[test]
    fn a_signed_stub_is_refused() {
        let mut bytes = small_stub();
        bytes[0x98 + 112 + 32 + 4] = 8;
        assert_eq!(parse(&bytes).unwrap_err(), StubError::Signed);
    }

    #[test]
    fn a_stub_says_what_it_runs_on_and_is_refused_where_nothing_of_ours_does() {
        let of = |machine: u16| {
            let mut bytes = small_stub();
            bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
            parse(&bytes).map(|stub| stub.machine())
        };
        assert_eq!(of(0x8664), Ok(PeMachine::X64));
        assert_eq!(of(0xAA64), Ok(PeMachine::Arm64));
        assert_eq!(of(0x5064), Ok(PeMachine::Riscv64));
        assert_eq!(of(0x014C), Err(StubError::NotForUefi { machine: 0x014C, subsystem: 10 }));
    }

    #[test]
    fn more_sections_than_the_headers_have_room_for_are_refused() {
        let stub = parse(&small_stub()).unwrap();
        let room = (0x400 - (0x98 + 240 + 2 * 40)) / 40;

        let refused = stub.headers_with(&vec![(".linux", 1); room + 1]).unwrap_err();

        assert_eq!(refused, AddSectionError::NoRoom { room, needed: room + 1 });
    }

    #[test]
    fn added_sections_are_neither_writable_nor_executable_and_nx_compat_is_that_of_the_stub() {
        const NX_COMPAT: u16 = 0x0100;
        // IMAGE_SCN_MEM_EXECUTE and IMAGE_SCN_MEM_WRITE.
        const EXECUTE_OR_WRITE: u32 = 0xA000_0000;
        let mut bytes = small_stub();
        for flags in [0, NX_COMPAT] {
            bytes[0x98 + 70..][..2].copy_from_slice(&flags.to_le_bytes());

            let stub = parse(&bytes).unwrap();
            let headers = stub.headers_with(&[(".linux", 5_000), (".initrd", 1)]).unwrap();

            assert_eq!(u16_at(&headers, 0x98 + 70), Ok(flags));
            let added = &sections_of(&headers)[2..];
            assert!(added.iter().all(|section| section.characteristics & EXECUTE_OR_WRITE == 0));
        }
    }

    #[test]
    fn an_image_that_32_bits_cannot_address_is_refused() {
        let stub = parse(&small_stub()).unwrap();
        let refused = stub.headers_with(&[(".initrd", u64::from(u32::MAX) - 0x1000)]);
        assert_eq!(refused, Err(AddSectionError::Long));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            at in proptest::collection::vec((0usize..0x200, any::<u8>()), 0..20),
            cut in 0usize..=0x800,
        ) {
            let mut bytes = small_stub();
            for (at, byte) in at {
                bytes[at] = byte;
            }
            bytes.truncate(cut.max(0x40));
            if let Ok(stub) = parse(&bytes) {
                let _ = stub.headers_with(&[(".linux", 5_000)]);
            }
        }
    }
}
