//! Authenticode: the signature of a program that firmware with Secure Boot verifies.
//!
//! Formats: Microsoft's "Windows Authenticode Portable Executable Signature Format" and "PE Format"; RFC 2315 (PKCS #7).
//! Verified by EDK2's `SecurityPkg/Library/DxeImageVerificationLib`. The private key is the caller's: [`SpcIndirectData`]
//! has the bytes to be signed, and takes their signature.
//!
//! The text has no time of signing, so that the same program always has the same signature, and the same entity tag.

use sha2::{Digest, Sha256};

use crate::der;
use crate::image::{ComposedImage, Extent, ExtentSlice, SharedFile};
use crate::pe::NotSignable;
use crate::pe_headers::{
    WIN_CERT_REVISION_2_0, WIN_CERT_TYPE_PKCS_SIGNED_DATA, WIN_CERTIFICATE_HEADER_LEN,
};
use crate::uki::Uki;

/// 1.3.6.1.4.1.311.2.1.4
const SPC_INDIRECT_DATA: &[u8] = &[0x2B, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 4];
/// 1.3.6.1.4.1.311.2.1.15
const SPC_PE_IMAGE_DATA: &[u8] = &[0x2B, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 15];
/// 1.2.840.113549.1.7.2
const SIGNED_DATA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 2];
/// 1.2.840.113549.1.9.3
const CONTENT_TYPE: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 3];
/// 1.2.840.113549.1.9.4
const MESSAGE_DIGEST: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 4];
/// 1.2.840.113549.1.1.1
const RSA_ENCRYPTION: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1];
/// 2.16.840.1.101.3.4.2.1
const SHA_256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];

/// Number of bytes of a shared file that are read and hashed at once.
const CHUNK: u64 = 1 << 20;

/// The signed bytes of a program, in order: all but its checksum and the entry of its certificate table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticodeBytes {
    /// The bytes up to the end of the last shared file: the same for every node with the same files.
    pub shared: ComposedImage,
    /// The rest, in memory.
    pub own: ComposedImage,
}

/// The state of a SHA-256 over images. A clone continues on its own.
#[derive(Clone, Debug, Default)]
pub struct ImageDigest(Sha256);

/// The certificate of the signer, as its signature names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerCertificate {
    /// The DER encodings of the certificate and of those of its issuers that the signature shall carry.
    pub chain: Vec<Vec<u8>>,
    /// The DER encoding of the name of its issuer.
    pub issuer: Vec<u8>,
    /// The bytes of its serial number, most significant first.
    pub serial: Vec<u8>,
}

/// What a signature says about a program: its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpcIndirectData {
    /// The contents of the sequence, without tag and length: firmware hashes these.
    contents: Vec<u8>,
}

impl AuthenticodeBytes {
    /// The signed bytes of a UKI.
    ///
    /// # Errors
    /// [`NotSignable::NoCertificateTable`] and [`NotSignable::Gap`].
    pub fn of(uki: &Uki) -> Result<Self, NotSignable> {
        let places = uki.signature_places()?;
        let image = uki.image();
        let signed = [
            0..places.checksum,
            places.checksum + 4..places.certificate_table,
            places.certificate_table + 8..image.len(),
        ];
        let extents: Vec<Extent> =
            signed.into_iter().flat_map(|range| image.slice(range)).map(Extent::from).collect();
        let is_file = |extent: &Extent| matches!(extent, Extent::File { .. });
        let end = extents.iter().rposition(is_file).map_or(0, |last| last + 1);
        let (shared, own) = extents.split_at(end);
        let [shared, own] = [shared, own].map(|part| part.iter().cloned().collect());
        Ok(Self { shared, own })
    }
}

impl ImageDigest {
    /// Continues with an image; `read` fills a buffer from a shared file at an offset.
    ///
    /// # Errors
    /// The first error of `read`; the state is then useless.
    pub fn update_with<E>(
        &mut self,
        image: &ComposedImage,
        mut read: impl FnMut(&SharedFile, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = Vec::new();
        let mut start = 0;
        while start < image.len() {
            let end = image.len().min(start + CHUNK);
            for slice in image.slice(start..end) {
                match slice {
                    ExtentSlice::Bytes(bytes) => self.0.update(bytes),
                    ExtentSlice::File { source, offset, len } => {
                        buffer.resize(len as usize, 0);
                        read(source, offset, &mut buffer)?;
                        self.0.update(&buffer);
                    }
                    ExtentSlice::Zeros(len) => {
                        buffer.clear();
                        buffer.resize(len as usize, 0);
                        self.0.update(&buffer);
                    }
                }
            }
            start = end;
        }
        Ok(())
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl SpcIndirectData {
    /// The statement about a program with this digest of its [`AuthenticodeBytes`].
    #[must_use]
    pub fn of(digest: &[u8; 32]) -> Self {
        let obsolete: Vec<u8> =
            "<<<Obsolete>>>".encode_utf16().flat_map(u16::to_be_bytes).collect();
        // SpcPeImageData: no flags, and a link to a file, which is a text in Unicode.
        let link = der::context(2, &[&der::context_primitive(0, &obsolete)]);
        let image = der::sequence(&[&der::no_bits(), &der::context(0, &[&link])]);
        let data = der::sequence(&[&der::object_identifier(SPC_PE_IMAGE_DATA), &image]);
        let digest_info = der::sequence(&[&sha_256(), &der::octet_string(digest)]);
        Self { contents: [data, digest_info].concat() }
    }

    /// The bytes whose signature (RSA, PKCS #1 v1.5, SHA-256) [`Self::signed_data`] takes.
    #[must_use]
    pub fn to_be_signed(&self) -> Vec<u8> {
        // RFC 2315 §9.3: the attributes are signed as a SET, whatever their tag in the message is.
        let [content_type, message_digest] = self.attributes();
        der::set(&[&content_type, &message_digest])
    }

    /// The attributes in the order of their encodings.
    fn attributes(&self) -> [Vec<u8>; 2] {
        let attribute = |name, value: &[u8]| {
            der::sequence(&[&der::object_identifier(name), &der::set(&[value])])
        };
        let digest = Sha256::digest(&self.contents);
        [
            attribute(CONTENT_TYPE, &der::object_identifier(SPC_INDIRECT_DATA)),
            attribute(MESSAGE_DIGEST, &der::octet_string(&digest)),
        ]
    }

    /// The message with the signature of [`Self::to_be_signed`].
    #[must_use]
    pub fn signed_data(&self, signer: &SignerCertificate, signature: &[u8]) -> Vec<u8> {
        let version = der::unsigned_integer(&[1]);
        let content = der::sequence(&[
            &der::object_identifier(SPC_INDIRECT_DATA),
            &der::context(0, &[&der::sequence(&[&self.contents])]),
        ]);
        let [content_type, message_digest] = self.attributes();
        let signer_info = der::sequence(&[
            &version,
            &der::sequence(&[&signer.issuer, &der::unsigned_integer(&signer.serial)]),
            &sha_256(),
            &der::context(0, &[&content_type, &message_digest]),
            &der::sequence(&[&der::object_identifier(RSA_ENCRYPTION), &der::null()]),
            &der::octet_string(signature),
        ]);
        let signed_data = der::sequence(&[
            &version,
            &der::set(&[&sha_256()]),
            &content,
            &der::context(0, &[&signer.chain.concat()]),
            &der::set(&[&signer_info]),
        ]);
        der::sequence(&[&der::object_identifier(SIGNED_DATA), &der::context(0, &[&signed_data])])
    }
}

fn sha_256() -> Vec<u8> {
    der::sequence(&[&der::object_identifier(SHA_256), &der::null()])
}

/// A UKI with `signed_data` in its certificate table.
///
/// # Errors
/// [`NotSignable`].
pub fn signed_uki(uki: &Uki, signed_data: &[u8]) -> Result<ComposedImage, NotSignable> {
    let places = uki.signature_places()?;
    let image = uki.image();
    let table = certificate_table(signed_data);
    let end = image.len() + table.len() as u64;
    let (Ok(at), Ok(len), Ok(_)) =
        (u32::try_from(image.len()), u32::try_from(table.len()), u32::try_from(end))
    else {
        return Err(NotSignable::Long);
    };
    // The entry contains an offset in the file, unlike the other entries (PE Format, "The Attribute Certificate Table").
    let entry = [at.to_le_bytes(), len.to_le_bytes()].concat();
    let before = image.slice(0..places.certificate_table);
    let after = image.slice(places.certificate_table + 8..image.len());
    let entry = ExtentSlice::Bytes(&entry);
    let slices = before.chain([entry]).chain(after).chain([ExtentSlice::Bytes(&table)]);
    Ok(slices.map(Extent::from).collect())
}

/// A `WIN_CERTIFICATE`. Its length, with padding, is a multiple of eight bytes.
fn certificate_table(signed_data: &[u8]) -> Vec<u8> {
    let len = (WIN_CERTIFICATE_HEADER_LEN + signed_data.len()).next_multiple_of(8);
    let mut table = Vec::with_capacity(len);
    table.extend((len as u32).to_le_bytes());
    table.extend(WIN_CERT_REVISION_2_0.to_le_bytes());
    table.extend(WIN_CERT_TYPE_PKCS_SIGNED_DATA.to_le_bytes());
    table.extend(signed_data);
    table.resize(len, 0);
    table
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::image::tests::{contents, source};
    use crate::pe::tests::sections_of;
    use crate::uki::tests::small_uki_with_seed;

    /// The places in the headers of the stub for tests.
    const CHECKSUM: usize = 0x98 + 64;
    const CERTIFICATE_TABLE: usize = 0x98 + 112 + 8 * 4;

    fn uki(initramfs: u64, seed: &[u8], command_line: &str) -> Uki {
        small_uki_with_seed(70_000, initramfs, seed, command_line)
    }

    fn digest(image: &ComposedImage) -> [u8; 32] {
        let bytes = contents(image);
        let read = |_: &SharedFile, _: u64, _: &mut [u8]| Ok::<_, Infallible>(());
        let mut digest = ImageDigest::default();
        digest.update_with(&ComposedImage::of_bytes(bytes), read).unwrap();
        digest.finish()
    }

    fn signer() -> SignerCertificate {
        let [issuer, certificate] = [b"issuer", b"signed"].map(|name| der::octet_string(name));
        SignerCertificate { chain: vec![certificate], issuer, serial: vec![0x80] }
    }

    #[test]
    fn nodes_with_the_same_files_share_all_but_the_end_of_their_signed_bytes() {
        let one = AuthenticodeBytes::of(&uki(5_001, b"070701a", "token=one")).unwrap();
        let two = AuthenticodeBytes::of(&uki(5_001, b"070701b", "token=another")).unwrap();

        assert_eq!(one.shared, two.shared);
        assert_ne!(one.own, two.own);
        assert!(one.own.bytes().is_some(), "the own part needs no file");
    }

    #[test]
    fn the_same_program_always_has_the_same_signature() {
        let sign = || {
            let spc = SpcIndirectData::of(&[7; 32]);
            signed_uki(&uki(5_001, b"", "quiet"), &spc.signed_data(&signer(), &[9; 256])).unwrap()
        };

        assert_eq!(sign().etag(), sign().etag());
    }

    #[test]
    fn a_signature_tells_the_digest_of_the_program() {
        let spc = SpcIndirectData::of(&[7; 32]);

        let message = spc.signed_data(&signer(), &[9; 256]);

        let is_there = |part: &[u8]| message.windows(part.len()).any(|window| window == part);
        assert!(is_there(&[7; 32]) && is_there(&[9; 256]));
        assert!(is_there(&Sha256::digest(&spc.contents)));
        assert_eq!(spc.to_be_signed()[0], 0x31);
    }

    proptest! {
        /// The rules of EDK2's `HashPeImage`, applied to the bytes of the signed file.
        #[test]
        fn the_digest_is_that_which_firmware_computes(
            initramfs in 1u64..100_000, seed in proptest::collection::vec(any::<u8>(), 0..9_000),
            command_line in "[ -~]{0,2047}", signed_data in proptest::collection::vec(any::<u8>(), 0..3_000),
        ) {
            let uki = uki(initramfs, &seed, &command_line);
            let signed = contents(&signed_uki(&uki, &signed_data).unwrap());

            let field = |at: usize| u32::from_le_bytes(signed[at..at + 4].try_into().unwrap()) as usize;
            let (table, table_len) = (field(CERTIFICATE_TABLE), field(CERTIFICATE_TABLE + 4));
            prop_assert_eq!(table + table_len, signed.len());
            prop_assert!(table.is_multiple_of(8) && table_len.is_multiple_of(8));
            prop_assert_eq!(field(table), table_len);
            prop_assert_eq!(&signed[table + 8..][..signed_data.len()], &signed_data[..]);

            let mut hash = Sha256::new();
            hash.update(&signed[..CHECKSUM]);
            hash.update(&signed[CHECKSUM + 4..CERTIFICATE_TABLE]);
            hash.update(&signed[CERTIFICATE_TABLE + 8..0x400]);
            let mut hashed = 0x400;
            for section in sections_of(&signed) {
                hash.update(&signed[section.raw_offset as usize..][..section.raw_size as usize]);
                hashed += section.raw_size as usize;
            }
            hash.update(&signed[hashed..signed.len() - table_len]);

            let bytes = AuthenticodeBytes::of(&uki).unwrap();
            let mut whole = bytes.shared;
            whole.append(&bytes.own);
            prop_assert_eq!(digest(&whole), <[u8; 32]>::from(hash.finalize()));
        }
    }

    #[test]
    fn a_state_goes_on_where_it_was() {
        // Longer than what is read at once.
        const FILE: u64 = 5 * CHUNK / 4;
        let file = Extent::File { source: source("initramfs", FILE), offset: 0, len: FILE };
        let image: ComposedImage = [file, Extent::Zeros(CHUNK)].into_iter().collect();
        let whole = contents(&image);
        let read = |_: &SharedFile, offset: u64, buffer: &mut [u8]| {
            buffer.copy_from_slice(&whole[offset as usize..][..buffer.len()]);
            Ok::<_, Infallible>(())
        };

        let mut state = ImageDigest::default();
        state.update_with(&image, read).unwrap();
        let mut other = state.clone();
        state.update_with(&ComposedImage::of_bytes(*b"own"), read).unwrap();
        other.update_with(&ComposedImage::of_bytes(*b"other"), read).unwrap();

        let expected = |own: &[u8]| <[u8; 32]>::from(Sha256::digest([&whole, own].concat()));
        assert_eq!(state.finish(), expected(b"own"));
        assert_eq!(other.finish(), expected(b"other"));
    }
}
