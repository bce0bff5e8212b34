//! The signatures in a program for UEFI, as far as needed to tell whose they are (Microsoft's "PE Format", "The Attribute
//! Certificate Table").

use thiserror::Error;

use crate::pe_headers::{
    CertificateTableEntry, PeHeaders, PeHeadersError, WIN_CERT_TYPE_PKCS_SIGNED_DATA,
    WIN_CERTIFICATE_HEADER_LEN, u16_at, u32_at,
};

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
    let headers = PeHeaders::find(program).map_err(not_pe)?;
    let entry = headers.certificate_table().map_err(not_pe)?;
    let table = entry.map_or(Some(&[][..]), |entry| table(program, entry));
    let table = table.ok_or(SignaturesError::Damaged)?;
    let mut signatures = Vec::new();
    let mut rest = table;
    while !rest.is_empty() && signatures.len() < MOST_SIGNATURES {
        let len = u32_at(rest, 0).map_err(damaged)? as usize;
        let kind = u16_at(rest, 6).map_err(damaged)?;
        let message = rest.get(WIN_CERTIFICATE_HEADER_LEN..len).ok_or(SignaturesError::Damaged)?;
        if kind == WIN_CERT_TYPE_PKCS_SIGNED_DATA {
            signatures.push(message);
        }
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(signatures)
}

fn table(program: &[u8], entry: CertificateTableEntry) -> Option<&[u8]> {
    if entry.len == 0 {
        return Some(&[]);
    }
    program.get(entry.offset..entry.offset.checked_add(entry.len)?)
}

/// Bytes that end within the headers are no program either.
fn not_pe(error: PeHeadersError) -> SignaturesError {
    match error {
        PeHeadersError::Short | PeHeadersError::NotPe => SignaturesError::NotPe,
    }
}

fn damaged(error: PeHeadersError) -> SignaturesError {
    match error {
        PeHeadersError::Short | PeHeadersError::NotPe => SignaturesError::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pe_headers::tests::MAGIC;

    /// A program of headers alone, with these messages in its table.
    fn program(messages: &[&[u8]]) -> Vec<u8> {
        const PE: usize = 0x80;
        let mut program = vec![0; 0x200];
        program[..2].copy_from_slice(b"MZ");
        program[0x3C] = PE as u8;
        program[PE..PE + 4].copy_from_slice(b"PE\0\0");
        program[PE + 24..PE + 26].copy_from_slice(&MAGIC);
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
