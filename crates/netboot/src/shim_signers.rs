//! The authorities whose signatures a shim carries: firmware starts it if its `db` has one of them.

use efi::{SignaturesError, program_signatures};
use hardware::MicrosoftUefiCa;

/// The common name of an authority, as certificates have it.
#[must_use]
pub fn common_name(authority: MicrosoftUefiCa) -> &'static str {
    match authority {
        MicrosoftUefiCa::Ca2011 => "Microsoft Corporation UEFI CA 2011",
        MicrosoftUefiCa::Ca2023 => "Microsoft UEFI CA 2023",
    }
}

/// Microsoft's authorities that signed a program; none if others did. Debian's shim has the signatures of both.
///
/// Each signature carries its certificates, and they contain the name of their issuer; the signature itself is the
/// firmware's to verify.
///
/// # Errors
/// [`SignaturesError`] if it is no program, or a damaged one.
pub fn microsoft_authorities(program: &[u8]) -> Result<Vec<MicrosoftUefiCa>, SignaturesError> {
    let signatures = program_signatures(program)?;
    let has = |authority: &MicrosoftUefiCa| {
        let name = common_name(*authority).as_bytes();
        signatures.iter().any(|it| it.windows(name.len()).any(|window| window == name))
    };
    Ok([MicrosoftUefiCa::Ca2011, MicrosoftUefiCa::Ca2023].into_iter().filter(has).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of a program, and a table with one message.
    fn program(message: &[u8]) -> Vec<u8> {
        let (pe, optional, table) = (0x40, 0x58, 0x100);
        let mut program = vec![0; table];
        program[..2].copy_from_slice(b"MZ");
        program[0x3C] = pe;
        program[usize::from(pe)..][..4].copy_from_slice(b"PE\0\0");
        program[optional..][..2].copy_from_slice(&0x20Bu16.to_le_bytes());
        program[optional + 108] = 16;
        let len = 8 + message.len() as u32;
        let entry = [(table as u32).to_le_bytes(), len.to_le_bytes()].concat();
        program[optional + 144..][..8].copy_from_slice(&entry);
        program.extend(len.to_le_bytes());
        program.extend([0, 2, 2, 0]);
        program.extend(message);
        program
    }

    #[test]
    fn the_authority_is_the_issuer_in_a_signature_and_nowhere_else() {
        let of = |program: &[u8]| microsoft_authorities(program).unwrap();
        let new = program(b"\x31Microsoft UEFI CA 2023\x30");
        let elsewhere = [program(b"somebody"), b"Microsoft UEFI CA 2023".to_vec()].concat();

        assert_eq!(of(&new), [MicrosoftUefiCa::Ca2023]);
        assert_eq!(of(&elsewhere), []);
    }

    #[test]
    fn what_is_no_program_has_no_authority() {
        assert_eq!(microsoft_authorities(b"shim"), Err(SignaturesError::NotPe));
    }
}
