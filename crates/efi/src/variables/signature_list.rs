//! `EFI_SIGNATURE_LIST`s: the value of `PK`, `KEK`, `db`, `dbx` and `TlsCaCertificate` (UEFI §32.4.1).

use thiserror::Error;
use uuid::{Uuid, uuid};

/// `EFI_CERT_X509_GUID`.
const X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
/// `EFI_CERT_SHA256_GUID`.
const SHA_256: Uuid = uuid!("c1c41626-504c-4092-aca9-41f936934328");

/// Type, and the sizes of list, header and signature.
const LIST_HEADER: usize = 28;
/// The owner before each signature.
const OWNER: usize = 16;
/// Number limit of signatures: Microsoft's `dbx` has some hundred.
const MOST_SIGNATURES: usize = 4096;

/// A signature in a database of Secure Boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EfiSignature {
    /// `SignatureOwner`: who put it there.
    pub owner: Uuid,
    /// What it stands for.
    pub data: EfiSignatureData,
}

/// What a signature stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EfiSignatureData {
    /// All that the key of a certificate (DER) has signed.
    X509(Vec<u8>),
    /// The program with this SHA-256, as Authenticode counts it.
    Sha256([u8; 32]),
    /// Another type.
    Other {
        /// `SignatureType`.
        kind: Uuid,
        /// `SignatureData`.
        data: Vec<u8>,
    },
}

/// The reason for rejecting signature lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureListError {
    /// A list ends within its header, or exceeds the value.
    #[error("the signature list at {0:#x} runs over the end of its variable")]
    Length(usize),
    /// Its signatures do not fill it, or have no room for an owner.
    #[error("the signatures in the list at {0:#x} do not fill it")]
    Sizes(usize),
    /// There are more signatures than are read.
    #[error("there are more than {MOST_SIGNATURES} signatures")]
    TooMany,
}

/// Reads signature lists.
///
/// # Errors
/// [`SignatureListError`]
pub fn parse_signature_lists(bytes: &[u8]) -> Result<Vec<EfiSignature>, SignatureListError> {
    let mut signatures = Vec::new();
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let Some((header, _)) = rest.split_at_checked(LIST_HEADER) else {
            return Err(SignatureListError::Length(offset));
        };
        let (list_len, header_len, signature_len) =
            (len_at(header, 16), len_at(header, 20), len_at(header, 24));
        if list_len < LIST_HEADER || list_len > rest.len() {
            return Err(SignatureListError::Length(offset));
        }
        let contents = LIST_HEADER.checked_add(header_len).filter(|start| *start <= list_len);
        let contents = &rest[contents.ok_or(SignatureListError::Sizes(offset))?..list_len];
        if signature_len < OWNER || !contents.len().is_multiple_of(signature_len) {
            return Err(SignatureListError::Sizes(offset));
        }
        if signatures.len() + contents.len() / signature_len > MOST_SIGNATURES {
            return Err(SignatureListError::TooMany);
        }
        let kind = guid_at(header, 0);
        signatures.extend(contents.chunks_exact(signature_len).map(|one| EfiSignature {
            owner: guid_at(one, 0),
            data: EfiSignatureData::of(kind, &one[OWNER..]),
        }));
        offset += list_len;
    }
    Ok(signatures)
}

/// The signature lists of these signatures: neighbours of the same type and size share one.
#[must_use]
pub fn signature_lists(signatures: &[EfiSignature]) -> Vec<u8> {
    let mut lists = Vec::new();
    let alike = |one: &EfiSignature, next: &EfiSignature| {
        // A list has one size for all; EDK2 and its tools write each certificate into a list of its own.
        one.data.kind() == next.data.kind()
            && one.data.kind() != X509
            && one.data.bytes().len() == next.data.bytes().len()
    };
    for list in signatures.chunk_by(alike) {
        let signature_len = OWNER + list[0].data.bytes().len();
        let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        lists.extend(list[0].data.kind().to_bytes_le());
        lists.extend(len(LIST_HEADER + list.len() * signature_len));
        lists.extend(len(0));
        lists.extend(len(signature_len));
        for signature in list {
            lists.extend(signature.owner.to_bytes_le());
            lists.extend(signature.data.bytes());
        }
    }
    lists
}

impl EfiSignatureData {
    fn of(kind: Uuid, data: &[u8]) -> Self {
        match (kind, <[u8; 32]>::try_from(data)) {
            (X509, _) => Self::X509(data.to_vec()),
            (SHA_256, Ok(digest)) => Self::Sha256(digest),
            _ => Self::Other { kind, data: data.to_vec() },
        }
    }

    fn kind(&self) -> Uuid {
        match self {
            Self::X509(_) => X509,
            Self::Sha256(_) => SHA_256,
            Self::Other { kind, .. } => *kind,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::X509(certificate) => certificate,
            Self::Sha256(digest) => digest,
            Self::Other { data, .. } => data,
        }
    }
}

fn len_at(bytes: &[u8], at: usize) -> usize {
    let field = bytes[at..at + 4].try_into().unwrap_or_default();
    usize::try_from(u32::from_le_bytes(field)).unwrap_or(usize::MAX)
}

fn guid_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid::from_bytes_le(bytes[at..at + 16].try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const OWNER_OF_ALL: Uuid = uuid!("fe440b00-7c1d-4e0f-9b2a-6d1f3c5e7a90");

    fn of(data: EfiSignatureData) -> EfiSignature {
        EfiSignature { owner: OWNER_OF_ALL, data }
    }

    #[test]
    fn digests_share_a_list_and_certificates_do_not() {
        let signatures = [
            of(EfiSignatureData::X509(vec![0x30; 7])),
            of(EfiSignatureData::X509(vec![0x31; 7])),
            of(EfiSignatureData::Sha256([1; 32])),
            of(EfiSignatureData::Sha256([2; 32])),
        ];

        let lists = signature_lists(&signatures);

        assert_eq!(lists.len(), 2 * (28 + 16 + 7) + 28 + 2 * (16 + 32));
        assert_eq!(parse_signature_lists(&lists).unwrap(), signatures);
    }

    #[test]
    fn a_list_with_a_header_before_its_signatures_is_read() {
        let mut list = signature_lists(&[of(EfiSignatureData::Sha256([1; 32]))]);
        list.splice(28..28, [0xEE; 4]);
        list[16..20].copy_from_slice(&80_u32.to_le_bytes());
        list[20..24].copy_from_slice(&4_u32.to_le_bytes());

        assert_eq!(parse_signature_lists(&list).unwrap(), [of(EfiSignatureData::Sha256([1; 32]))]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let good = signature_lists(&[of(EfiSignatureData::Sha256([1; 32]))]);
        let with = |at: usize, value: u32| {
            let mut list = good.clone();
            list[at..at + 4].copy_from_slice(&value.to_le_bytes());
            parse_signature_lists(&list)
        };

        for (at, value, expected) in [
            (16, 77, SignatureListError::Length(0)),
            (16, 27, SignatureListError::Length(0)),
            (16, u32::MAX, SignatureListError::Length(0)),
            (20, 49, SignatureListError::Sizes(0)),
            (20, u32::MAX, SignatureListError::Sizes(0)),
            (24, 0, SignatureListError::Sizes(0)),
            (24, 15, SignatureListError::Sizes(0)),
            (24, 47, SignatureListError::Sizes(0)),
        ] {
            assert_eq!(with(at, value), Err(expected), "{at} {value}");
        }
        assert_eq!(parse_signature_lists(&good[..27]), Err(SignatureListError::Length(0)));
        let many = vec![of(EfiSignatureData::Sha256([1; 32])); MOST_SIGNATURES + 1];
        assert_eq!(
            parse_signature_lists(&signature_lists(&many)),
            Err(SignatureListError::TooMany)
        );
    }

    fn any_signature() -> impl Strategy<Value = EfiSignature> {
        let data = prop_oneof![
            vec(any::<u8>(), 0..40).prop_map(EfiSignatureData::X509),
            any::<[u8; 32]>().prop_map(EfiSignatureData::Sha256),
            vec(any::<u8>(), 0..40)
                .prop_map(|data| EfiSignatureData::Other { kind: Uuid::from_u128(7), data }),
        ];
        (any::<u128>(), data)
            .prop_map(|(owner, data)| EfiSignature { owner: Uuid::from_u128(owner), data })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(signatures in vec(any_signature(), 0..8)) {
            let lists = signature_lists(&signatures);
            prop_assert_eq!(parse_signature_lists(&lists), Ok(signatures));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            let _ = parse_signature_lists(&bytes);
        }
    }
}
