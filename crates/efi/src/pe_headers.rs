//! The headers that every PE32+ program has (Microsoft's "PE Format"), as far as they lead to its other parts: the sections,
//! and the table of certificates.

use thiserror::Error;

const E_LFANEW: usize = 0x3C;
const PE32_PLUS: u16 = 0x020B;
/// Length of the signature `PE\0\0` and the COFF header.
pub(crate) const COFF_LEN: usize = 24;
/// Place of the data directories in the optional header.
pub(crate) const DATA_DIRECTORIES: usize = 112;
const CERTIFICATE_TABLE: usize = 4;

/// The only revision of a `WIN_CERTIFICATE` in use.
pub(crate) const WIN_CERT_REVISION_2_0: u16 = 0x0200;
/// The type of a `WIN_CERTIFICATE` that holds a PKCS #7 message.
pub(crate) const WIN_CERT_TYPE_PKCS_SIGNED_DATA: u16 = 0x0002;
/// Length of a `WIN_CERTIFICATE` before its message.
pub(crate) const WIN_CERTIFICATE_HEADER_LEN: usize = 8;

/// The reason why bytes are not taken for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PeHeadersError {
    /// The bytes end within the headers.
    #[error("the headers are cut short")]
    Short,
    /// This is not a PE32+ program.
    #[error("this is not a PE32+ program")]
    NotPe,
}

/// The headers of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeHeaders<'a> {
    bytes: &'a [u8],
    /// Position of the signature `PE\0\0`.
    pub(crate) pe: usize,
}

/// The entry of the certificate table in the data directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CertificateTableEntry {
    /// Position of the entry itself.
    pub(crate) at: usize,
    /// Position of the table in the file.
    pub(crate) offset: usize,
    /// Length of the table in bytes; 0 if the program is not signed.
    pub(crate) len: usize,
}

impl<'a> PeHeaders<'a> {
    /// Finds the headers in a program.
    ///
    /// # Errors
    /// [`PeHeadersError`]
    pub(crate) fn find(bytes: &'a [u8]) -> Result<Self, PeHeadersError> {
        if !bytes.starts_with(b"MZ") {
            return Err(PeHeadersError::NotPe);
        }
        let pe = u32_at(bytes, E_LFANEW)? as usize;
        let is_pe = bytes.get(pe..).is_some_and(|rest| rest.starts_with(b"PE\0\0"));
        if !is_pe || u16_at(bytes, pe + COFF_LEN)? != PE32_PLUS {
            return Err(PeHeadersError::NotPe);
        }
        Ok(Self { bytes, pe })
    }

    /// Position of the optional header.
    pub(crate) fn optional(&self) -> usize {
        self.pe + COFF_LEN
    }

    /// Number of data directories.
    ///
    /// # Errors
    /// [`PeHeadersError::Short`]
    pub(crate) fn directories(&self) -> Result<usize, PeHeadersError> {
        Ok(u32_at(self.bytes, self.optional() + 108)? as usize)
    }

    /// The entry of the certificate table; `None` if there are too few data directories.
    ///
    /// # Errors
    /// [`PeHeadersError::Short`]
    pub(crate) fn certificate_table(
        &self,
    ) -> Result<Option<CertificateTableEntry>, PeHeadersError> {
        if self.directories()? <= CERTIFICATE_TABLE {
            return Ok(None);
        }
        let at = self.optional() + DATA_DIRECTORIES + 8 * CERTIFICATE_TABLE;
        let [offset, len] = [u32_at(self.bytes, at)?, u32_at(self.bytes, at + 4)?];
        Ok(Some(CertificateTableEntry { at, offset: offset as usize, len: len as usize }))
    }
}

/// A field of two bytes.
///
/// # Errors
/// [`PeHeadersError::Short`]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, PeHeadersError> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(PeHeadersError::Short)?;
    Ok(u16::from_le_bytes(*field))
}

/// A field of four bytes.
///
/// # Errors
/// [`PeHeadersError::Short`]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, PeHeadersError> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(PeHeadersError::Short)?;
    Ok(u32::from_le_bytes(*field))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The magic number of a program's optional header.
    pub(crate) const MAGIC: [u8; 2] = PE32_PLUS.to_le_bytes();

    #[test]
    fn only_a_whole_pe32_plus_program_has_headers() {
        let mut program = vec![0; 0x100];
        program[..2].copy_from_slice(b"MZ");
        program[0x3C] = 0x40;
        program[0x40..0x44].copy_from_slice(b"PE\0\0");
        program[0x58..0x5A].copy_from_slice(&MAGIC);
        let read = |program: &[u8]| PeHeaders::find(program).map(|headers| headers.pe);

        assert_eq!(read(&program), Ok(0x40));
        assert_eq!(PeHeaders::find(&program).unwrap().certificate_table(), Ok(None));
        assert_eq!(read(&program[..0x59]), Err(PeHeadersError::Short));
        assert_eq!(read(&program[..0x42]), Err(PeHeadersError::NotPe));
        assert_eq!(read(b"#!/bin/sh"), Err(PeHeadersError::NotPe));
        // A program with 32 bits.
        program[0x59] = 0x01;
        assert_eq!(read(&program), Err(PeHeadersError::NotPe));
    }
}
