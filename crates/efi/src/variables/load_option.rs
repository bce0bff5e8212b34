//! `EFI_LOAD_OPTION` (UEFI §3.1.3) and the device path in it (§10.3).

use std::fmt;

use hardware::Mac;
use thiserror::Error;

/// `LOAD_OPTION_ACTIVE`: the firmware may boot it automatically.
const ACTIVE: u32 = 1;
/// The size of the attributes and of the device path's length.
const FIXED_LEN: usize = 6;

const HARDWARE: u8 = 0x01;
const ACPI: u8 = 0x02;
const MESSAGING: u8 = 0x03;
const URI: u8 = 0x18;
const END: u8 = 0x7F;
const END_ENTIRE: u8 = 0xFF;
const NODE_HEADER_LEN: usize = 4;

/// The contents of a `Boot####` variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOption {
    /// `LOAD_OPTION_ACTIVE` (1) and others.
    pub attributes: u32,
    /// The text in boot menus. Invalid UTF-16 becomes U+FFFD.
    pub description: String,
    /// The device path of the program.
    pub path: DevicePath,
    /// Data for the program.
    pub optional_data: Vec<u8>,
}

/// The reason for rejecting a load option.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadOptionError {
    /// It is shorter than the fixed part.
    #[error("a load option has at least {FIXED_LEN} bytes, this has {0}")]
    Short(usize),
    /// The description has no final NUL.
    #[error("the description does not end")]
    EndlessDescription,
    /// The device path exceeds the data.
    #[error("the device path needs {needed} bytes, {left} left")]
    ShortPath {
        /// The length in its field.
        needed: usize,
        /// The remaining bytes.
        left: usize,
    },
    /// A node of the device path is shorter than its header or exceeds the path.
    #[error("the device path's node at {offset} claims {len} bytes")]
    BadNode {
        /// The offset in the path.
        offset: usize,
        /// The length in its field.
        len: usize,
    },
    /// The device path has no end node, or bytes after it.
    #[error("the device path does not end with an end node")]
    NoEnd,
}

impl LoadOption {
    /// An active option that starts the program at `url`.
    #[must_use]
    pub fn from_uri(description: &str, url: &str) -> Self {
        Self::active(description, DevicePath(vec![DevicePathNode::Uri(url.to_owned())]))
    }

    /// An active option that starts the program at `path`.
    #[must_use]
    pub fn active(description: &str, path: DevicePath) -> Self {
        let description = description.to_owned();
        Self { attributes: ACTIVE, description, path, optional_data: Vec::new() }
    }

    /// Parses a variable's data.
    ///
    /// # Errors
    /// [`LoadOptionError`] if it is malformed.
    pub fn parse(data: &[u8]) -> Result<Self, LoadOptionError> {
        let Some((fixed, rest)) = data.split_first_chunk::<FIXED_LEN>() else {
            return Err(LoadOptionError::Short(data.len()));
        };
        let [a, b, c, d, low, high] = *fixed;
        let path_len = usize::from(u16::from_le_bytes([low, high]));

        let (units, _) = rest.as_chunks::<2>();
        let end = units
            .iter()
            .position(|unit| *unit == [0, 0])
            .ok_or(LoadOptionError::EndlessDescription)?;
        let description: Vec<u16> = units[..end].iter().map(|u| u16::from_le_bytes(*u)).collect();

        let rest = &rest[2 * (end + 1)..];
        if path_len > rest.len() {
            return Err(LoadOptionError::ShortPath { needed: path_len, left: rest.len() });
        }
        let (path, optional_data) = rest.split_at(path_len);
        Ok(Self {
            attributes: u32::from_le_bytes([a, b, c, d]),
            description: String::from_utf16_lossy(&description),
            path: DevicePath::parse(path)?,
            optional_data: optional_data.to_vec(),
        })
    }

    /// The variable's data. The description is cut at its first NUL, which would end it anyway.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let path = self.path.to_bytes();
        let path_len = u16::try_from(path.len()).unwrap_or(u16::MAX);
        let mut bytes = self.attributes.to_le_bytes().to_vec();
        bytes.extend(path_len.to_le_bytes());
        let description = self.description.split('\0').next().unwrap_or_default();
        bytes.extend(description.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        bytes.extend(&path[..usize::from(path_len)]);
        bytes.extend(&self.optional_data);
        bytes
    }
}

/// A device path, from bus to bus, without the end node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePath(pub Vec<DevicePathNode>);

impl DevicePath {
    /// HTTP boot on the network card at this device number of the first PCI bus, with the URL from DHCP.
    ///
    /// EDK2 starts an entry whose full path it knows directly, without trying other network cards or their option
    /// ROMs.
    #[must_use]
    pub fn http_boot(pci_device: u8, mac: Mac, version: IpVersion) -> Self {
        let other = |kind, subtype, data| DevicePathNode::Other { kind, subtype, data };
        let mut address = [0; 32];
        address[..mac.0.len()].copy_from_slice(&mac.0);
        Self(vec![
            // PNP0A03, the first one.
            other(ACPI, 1, [0xD0, 0x41, 0x03, 0x0A, 0, 0, 0, 0].to_vec()),
            other(HARDWARE, 1, vec![0, pci_device]),
            // The hardware type is Ethernet.
            other(MESSAGING, 11, [&address[..], &[1]].concat()),
            version.node(),
            DevicePathNode::Uri(String::new()),
        ])
    }

    /// Parses nodes up to the end node, which must be last.
    ///
    /// # Errors
    /// [`LoadOptionError::BadNode`] and [`LoadOptionError::NoEnd`].
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadOptionError> {
        let mut nodes = Vec::new();
        let mut offset = 0;
        loop {
            let rest = &bytes[offset..];
            let &[kind, subtype, low, high, ..] = rest else {
                return Err(LoadOptionError::NoEnd);
            };
            let len = usize::from(u16::from_le_bytes([low, high]));
            if len < NODE_HEADER_LEN || len > rest.len() {
                return Err(LoadOptionError::BadNode { offset, len });
            }
            if (kind, subtype) == (END, END_ENTIRE) {
                let last = len == rest.len() && len == NODE_HEADER_LEN;
                return if last { Ok(Self(nodes)) } else { Err(LoadOptionError::NoEnd) };
            }
            nodes.push(DevicePathNode::of(kind, subtype, &rest[NODE_HEADER_LEN..len]));
            offset += len;
        }
    }

    /// The nodes and the end node.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.0.iter().flat_map(DevicePathNode::to_bytes).collect();
        bytes.extend([END, END_ENTIRE, NODE_HEADER_LEN as u8, 0]);
        bytes
    }

    /// The URI in the path, if any; an empty one, as in HTTP boot entries without a fixed URL, counts as none.
    #[must_use]
    pub fn uri(&self) -> Option<&str> {
        self.0.iter().find_map(|node| match node {
            DevicePathNode::Uri(uri) if !uri.is_empty() => Some(uri.as_str()),
            DevicePathNode::Uri(_) | DevicePathNode::Other { .. } => None,
        })
    }
}

/// The IP version of a network boot entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// `IPv4(…)` or `IPv6(…)` in the form of EDK2's HttpBootDxe: all zero, since everything comes from DHCP, except
    /// IPv6's prefix length (`HttpBootIp4DxeDriverBindingStart`, `HttpBootIp6DxeDriverBindingStart`).
    fn node(self) -> DevicePathNode {
        match self {
            Self::V4 => DevicePathNode::Other { kind: MESSAGING, subtype: 12, data: vec![0; 23] },
            Self::V6 => {
                let mut data = vec![0; 56];
                data[IPV6_PREFIX_LENGTH_AT] = 64;
                DevicePathNode::Other { kind: MESSAGING, subtype: 13, data }
            }
        }
    }
}

/// The offset behind two addresses, two ports, the protocol and the address origin (UEFI §10.3.4.13).
const IPV6_PREFIX_LENGTH_AT: usize = 16 + 16 + 2 + 2 + 2 + 1;

/// A node of a device path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevicePathNode {
    /// `Uri(…)` (UEFI §10.3.4.23).
    Uri(String),
    /// Any other node, unchanged.
    Other {
        /// Type.
        kind: u8,
        /// Sub-type.
        subtype: u8,
        /// The data after the header.
        data: Vec<u8>,
    },
}

impl DevicePathNode {
    fn of(kind: u8, subtype: u8, data: &[u8]) -> Self {
        match (kind, subtype, str::from_utf8(data)) {
            (MESSAGING, URI, Ok(uri)) => Self::Uri(uri.to_owned()),
            _ => Self::Other { kind, subtype, data: data.to_vec() },
        }
    }

    /// The encoded node. Its length has 16 bits, so longer data is cut.
    fn to_bytes(&self) -> Vec<u8> {
        let (kind, subtype, data) = match self {
            Self::Uri(uri) => (MESSAGING, URI, uri.as_bytes()),
            Self::Other { kind, subtype, data } => (*kind, *subtype, data.as_slice()),
        };
        let len = u16::try_from(NODE_HEADER_LEN + data.len()).unwrap_or(u16::MAX);
        let mut bytes = vec![kind, subtype];
        bytes.extend(len.to_le_bytes());
        bytes.extend(&data[..usize::from(len) - NODE_HEADER_LEN]);
        bytes
    }
}

impl fmt::Display for DevicePath {
    /// EDK2's text form for known nodes: `Uri(http://…)`; otherwise `Path(type,subtype,data)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            match node {
                DevicePathNode::Uri(uri) => write!(f, "Uri({uri})")?,
                DevicePathNode::Other { kind, subtype, data } => {
                    write!(f, "Path({kind},{subtype}")?;
                    if !data.is_empty() {
                        f.write_str(",")?;
                    }
                    data.iter().try_for_each(|byte| write!(f, "{byte:02X}"))?;
                    f.write_str(")")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn node() -> impl Strategy<Value = DevicePathNode> {
        prop_oneof![
            "[ -~]{0,80}".prop_map(DevicePathNode::Uri),
            (1u8..6, 0u8..0x17, vec(any::<u8>(), 0..40))
                .prop_map(|(kind, subtype, data)| DevicePathNode::Other { kind, subtype, data }),
        ]
    }

    fn load_option() -> impl Strategy<Value = LoadOption> {
        (any::<u32>(), "[^\0]{0,40}", vec(node(), 0..6), vec(any::<u8>(), 0..20)).prop_map(
            |(attributes, description, nodes, optional_data)| LoadOption {
                attributes,
                description,
                path: DevicePath(nodes),
                optional_data,
            },
        )
    }

    proptest! {
        #[test]
        fn what_we_write_we_read_back(option in load_option()) {
            prop_assert_eq!(LoadOption::parse(&option.to_bytes()), Ok(option));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = LoadOption::parse(&bytes);
            let _ = DevicePath::parse(&bytes);
        }
    }

    #[test]
    fn a_bare_uri_is_what_the_firmware_expands() {
        let option = LoadOption::from_uri("x", "http://a/b.efi");

        assert_eq!(
            option.to_bytes(),
            b"\x01\0\0\0\x16\0x\0\0\0\x03\x18\x12\0http://a/b.efi\x7f\xff\x04\0"
        );
        assert_eq!(option.path.to_string(), "Uri(http://a/b.efi)");
    }

    #[test]
    fn http_boot_of_a_card_has_the_path_that_the_firmware_gives_its_own_entry() {
        let path = DevicePath::http_boot(8, Mac([0x52, 0x54, 0, 0xAA, 0xBB, 1]), IpVersion::V4);

        let bytes = path.to_bytes();

        let mac = b"\x03\x0b\x25\0\x52\x54\0\xaa\xbb\x01\0\0";
        assert_eq!(bytes[..18], *b"\x02\x01\x0c\0\xd0\x41\x03\x0a\0\0\0\0\x01\x01\x06\0\0\x08");
        assert_eq!(bytes[18..30], *mac);
        assert_eq!(bytes[55..59], *b"\x03\x0c\x1b\0");
        assert_eq!(bytes[82..], *b"\x03\x18\x04\0\x7f\xff\x04\0");
    }

    #[test]
    fn http_boot_over_ipv6_is_told_by_a_node_with_the_prefix_length() {
        let bytes = DevicePath::http_boot(8, Mac([0; 6]), IpVersion::V6).to_bytes();

        let mut node = [0; 60];
        node[..4].copy_from_slice(b"\x03\x0d\x3c\0");
        node[43] = 64;
        assert_eq!(bytes[55..115], node);
        assert_eq!(bytes[115..], *b"\x03\x18\x04\0\x7f\xff\x04\0");
    }

    #[test]
    fn an_entry_with_an_empty_uri_has_no_url_of_its_own() {
        assert_eq!(DevicePath(vec![DevicePathNode::Uri(String::new())]).uri(), None);
    }

    #[test]
    fn a_node_of_no_length_is_refused_rather_than_walked_for_ever() {
        assert_eq!(
            DevicePath::parse(&[3, 0x18, 0, 0]),
            Err(LoadOptionError::BadNode { offset: 0, len: 0 })
        );
    }
}
