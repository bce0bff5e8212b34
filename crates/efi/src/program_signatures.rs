//! The signatures in a program for UEFI, as far as needed to tell whose they are (Microsoft's "PE Format", "The Attribute
//! Certificate Table").

use thiserror::Error;

const PE32_PLUS: u16 = 0x020B;
const WIN_CERT_TYPE_PKCS_SIGNED_DATA: u16 = 0x0002;
const WIN_CERTIFICATE_HEADER_LEN: usize = 8;
const MOST_SIGNATURES: usize = 16;

/// The reason why a program's signatures cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignaturesError {
    /// The file is not a program for UEFI with 64 bits.
    #[error("this is not a PE32+ program")]
    NotPe,
    /// The table of signatures lies beyond the end of the file, or contradicts itself.
    #[error("the table of signatures is damaged")]
    Damaged,
}

/// The signatures of a program, each a PKCS #7 message; none if it is not signed. At most 16 are read.
///
/// # Errors
/// [`SignaturesError`]
pub fn program_signatures(program: &[u8]) -> Result<Vec<&[u8]>, SignaturesError> {
    let header = certificate_table_entry(program).ok_or(SignaturesError::NotPe)?;
    let table = header.of(program).ok_or(SignaturesError::Damaged)?;
    let mut signatures = Vec::new();
    let mut rest = table;
    while !rest.is_empty() && signatures.len() < MOST_SIGNATURES {
        let len = u32_at(rest, 0).ok_or(SignaturesError::Damaged)? as usize;
        let kind = u16_at(rest, 6).ok_or(SignaturesError::Damaged)?;
        let message = rest.get(WIN_CERTIFICATE_HEADER_LEN..len).ok_or(SignaturesError::Damaged)?;
        if kind == WIN_CERT_TYPE_PKCS_SIGNED_DATA {
            signatures.push(message);
        }
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(signatures)
}

/// The place of the table in the file.
struct TableEntry {
    offset: usize,
    len: usize,
}

impl TableEntry {
    fn of<'a>(&self, program: &'a [u8]) -> Option<&'a [u8]> {
        if self.len == 0 {
            return Some(&[]);
        }
        program.get(self.offset..self.offset.checked_add(self.len)?)
    }
}

fn certificate_table_entry(program: &[u8]) -> Option<TableEntry> {
    let pe = u32_at(program, 0x3C)? as usize;
    let optional = pe.checked_add(24)?;
    let is_pe = program.starts_with(b"MZ") && program.get(pe..pe + 4) == Some(b"PE\0\0");
    if !is_pe || u16_at(program, optional)? != PE32_PLUS {
        return None;
    }
    if u32_at(program, optional.checked_add(108)?)? < 5 {
        return Some(TableEntry { offset: 0, len: 0 });
    }
    let entry = optional.checked_add(112 + 8 * 4)?;
    let [offset, len] = [u32_at(program, entry)?, u32_at(program, entry + 4)?];
    Some(TableEntry { offset: offset as usize, len: len as usize })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A program of headers alone, with these messages in its table.
    fn program(messages: &[&[u8]]) -> Vec<u8> {
        const PE: usize = 0x80;
        let mut program = vec![0; 0x200];
        program[..2].copy_from_slice(b"MZ");
        program[0x3C] = PE as u8;
        program[PE..PE + 4].copy_from_slice(b"PE\0\0");
        program[PE + 24..PE + 26].copy_from_slice(&PE32_PLUS.to_le_bytes());
        program[PE + 24 + 108] = 16;
        let mut table = Vec::new();
        for message in messages {
            table.extend((8 + message.len() as u32).to_le_bytes());
            table.extend([0, 2, 2, 0]);
            table.extend(*message);
            table.resize(table.len().next_multiple_of(8), 0);
        }
        let entry = [(program.len() as u32).to_le_bytes(), (table.len() as u32).to_le_bytes()];
        program[PE + 24 + 144..][..8].copy_from_slice(entry.concat().as_slice());
        program.extend(table);
        program
    }

    #[test]
    fn each_signature_of_a_program_is_found_and_an_unsigned_one_has_none() {
        let two = program(&[b"first one", b"second"]);

        assert_eq!(program_signatures(&two).unwrap(), [b"first one".as_slice(), b"second"]);
        assert_eq!(program_signatures(&program(&[])).unwrap(), Vec::<&[u8]>::new());
        assert_eq!(program_signatures(b"#!/bin/sh\n"), Err(SignaturesError::NotPe));
        let cut = &two[..two.len() - 4];
        assert_eq!(program_signatures(cut), Err(SignaturesError::Damaged));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            tail in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..0x200, byte: u8,
        ) {
            let mut program = program(&[&tail]);
            program[at] = byte;
            let _ = program_signatures(&program);
            let _ = program_signatures(&tail);
        }
    }
}
