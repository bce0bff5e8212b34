//! Domain names in wire format: labels with a length byte each, ended by a label of length zero (RFC 1035 §3.1, RFC
//! 8415 §10).

const LONGEST: usize = 255;
const LONGEST_LABEL: usize = 63;

/// The encoded name. `None` if a label is too long or empty, or not ASCII.
pub(super) fn encode(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let fits = (1..=LONGEST_LABEL).contains(&label.len()) && is_text(label.as_bytes());
        bytes.push(u8::try_from(label.len()).ok().filter(|_| fits)?);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= LONGEST).then_some(bytes)
}

/// The names in these bytes, which zeros may follow. `None` if the bytes hold anything else.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<String>> {
    let (mut names, mut labels) = (Vec::new(), Vec::new());
    while let Some((&len, rest)) = bytes.split_first() {
        bytes = rest;
        if len > 0 {
            let (label, rest) = bytes.split_at_checked(len.into())?;
            // A dot within a label would split the label in the text form.
            labels.push(str::from_utf8(label).ok().filter(|_| is_text(label))?);
            bytes = rest;
        } else if labels.is_empty() {
            return rest.iter().all(|byte| *byte == 0).then_some(names);
        } else {
            let name = labels.join(".");
            labels.clear();
            encode(&name)?;
            names.push(name);
        }
    }
    labels.is_empty().then_some(names)
}

fn is_text(label: &[u8]) -> bool {
    label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_its_labels_each_with_its_length() {
        assert_eq!(encode("hall.example").unwrap(), b"\x04hall\x07example\0");
        assert_eq!(encode("hall.example."), encode("hall.example"));
        for none in ["", ".", "hall..example", "hall example", "hällo"] {
            assert_eq!(encode(none), None, "{none:?}");
        }
        assert_eq!(encode(&"a".repeat(64)), None);
        assert_eq!(encode(&"a.".repeat(128)), None);
    }

    #[test]
    fn a_dot_within_a_label_is_no_name() {
        assert_eq!(decode(b"\x03ro.\0"), None);
        assert_eq!(decode(b"\x02ro\0"), Some(vec!["ro".to_owned()]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            names in prop::collection::vec("[a-z0-9_-]{1,9}(\\.[a-z0-9_-]{1,9}){0,3}", 0..4),
            padding in 0..8_usize,
        ) {
            let bytes = names.iter().flat_map(|name| encode(name).unwrap());
            let bytes: Vec<_> = bytes.chain(std::iter::repeat_n(0, padding)).collect();

            prop_assert_eq!(decode(&bytes), Some(names));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            if let Some(names) = decode(&bytes) {
                let again: Vec<u8> = names.iter().flat_map(|name| encode(name).unwrap()).collect();
                prop_assert_eq!(decode(&again), Some(names));
            }
        }
    }
}
