//! The little of DER that signatures need (ITU-T X.690): tags, lengths and contents.

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT: u8 = 0x80;
const CONSTRUCTED: u8 = 0x20;

/// A value with its tag and length.
pub(crate) fn tagged(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    let len = contents.len();
    if len < 0x80 {
        der.push(len as u8);
    } else {
        let bytes = len.to_be_bytes();
        let used = &bytes[(len.leading_zeros() / 8) as usize..];
        der.push(CONTEXT | used.len() as u8);
        der.extend_from_slice(used);
    }
    der.extend_from_slice(contents);
    der
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(SEQUENCE, &parts.concat())
}

/// A set; the caller sorts the parts by their encodings (X.690 §11.6).
pub(crate) fn set(parts: &[&[u8]]) -> Vec<u8> {
    tagged(SET, &parts.concat())
}

/// `[number]` around complete values, or in the place of the tag of a constructed value.
pub(crate) fn context(number: u8, parts: &[&[u8]]) -> Vec<u8> {
    tagged(CONTEXT | CONSTRUCTED | number, &parts.concat())
}

/// `[number]` in the place of the tag of a primitive value.
pub(crate) fn context_primitive(number: u8, contents: &[u8]) -> Vec<u8> {
    tagged(CONTEXT | number, contents)
}

/// An object identifier, given by the contents of its encoding.
pub(crate) fn object_identifier(contents: &[u8]) -> Vec<u8> {
    tagged(OBJECT_IDENTIFIER, contents)
}

/// A number that is not negative, given by its bytes, most significant first.
pub(crate) fn unsigned_integer(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = &bytes[first..];
    // A leading bit is the sign.
    let sign = digits.first().is_none_or(|byte| byte & 0x80 != 0);
    tagged(INTEGER, &[&[0][..usize::from(sign)], digits].concat())
}

pub(crate) fn octet_string(contents: &[u8]) -> Vec<u8> {
    tagged(OCTET_STRING, contents)
}

/// A bit string without bits.
pub(crate) fn no_bits() -> Vec<u8> {
    tagged(BIT_STRING, &[0])
}

pub(crate) fn null() -> Vec<u8> {
    tagged(NULL, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_has_a_long_length() {
        assert_eq!(tagged(4, &[7; 3]), [4, 3, 7, 7, 7]);
        assert_eq!(tagged(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(tagged(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(tagged(4, &[7; 0x1234])[..4], [4, 0x82, 0x12, 0x34]);
    }

    #[test]
    fn a_number_is_never_negative_and_has_no_needless_zeros() {
        assert_eq!(unsigned_integer(&[]), [2, 1, 0]);
        assert_eq!(unsigned_integer(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(unsigned_integer(&[0x80]), [2, 2, 0, 0x80]);
    }
}
