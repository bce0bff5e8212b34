//! A module's description: the `.modinfo` section of its ELF file, NUL-separated `key=value` strings.

use super::names::normal;

/// The fields of `.modinfo` for loading and packing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modinfo {
    /// Names of the modules that it depends on.
    pub depends: Vec<String>,
    /// Patterns of its devices, and its other names.
    pub aliases: Vec<String>,
    /// Names or aliases of modules to load first.
    pub before: Vec<String>,
    /// Firmware blobs, relative to `/lib/firmware`.
    pub firmware: Vec<String>,
}

impl Modinfo {
    /// Parses a module's file: 64-bit, little-endian, uncompressed. `None` for anything else.
    pub fn parse(module: &[u8]) -> Option<Self> {
        let mut modinfo = Self::default();
        for entry in section(module, b".modinfo")?.split(|&byte| byte == 0) {
            let Some((key, value)) =
                str::from_utf8(entry).ok().and_then(|text| text.split_once('='))
            else {
                continue;
            };
            match key {
                "depends" => {
                    modinfo
                        .depends
                        .extend(value.split(',').filter(|name| !name.is_empty()).map(normal));
                }
                "alias" => modinfo.aliases.push(value.to_owned()),
                "softdep" => modinfo.before.extend(before(value)),
                "firmware" => modinfo.firmware.push(value.to_owned()),
                _ => {}
            }
        }
        Some(modinfo)
    }
}

/// The `pre:` part of a soft dependency; `post:` modules are loaded when their devices appear.
pub(super) fn before(softdep: &str) -> Vec<String> {
    let mut wanted = false;
    let mut before = Vec::new();
    for word in softdep.split_whitespace() {
        match word {
            "pre:" => wanted = true,
            "post:" => wanted = false,
            name if wanted => before.push(name.to_owned()),
            _ => {}
        }
    }
    before
}

/// The contents of a section (ELF-64 Object File Format, "Sections").
fn section<'a>(elf: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    const CLASS_64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    if !elf.starts_with(CLASS_64_LITTLE_ENDIAN) {
        return None;
    }
    let table = offset(elf, 0x28)?;
    let entry_len = usize::from(u16_at(elf, 0x3A)?);
    let count = usize::from(u16_at(elf, 0x3C)?);
    let names = usize::from(u16_at(elf, 0x3E)?);
    let header = |index: usize| {
        let start = table.checked_add(index.checked_mul(entry_len)?)?;
        elf.get(start..start.checked_add(0x40)?)
    };
    let contents = |header: &[u8]| {
        let start = offset(header, 0x18)?;
        elf.get(start..start.checked_add(offset(header, 0x20)?)?)
    };

    let names = contents(header(names)?)?;
    (0..count).filter_map(header).find_map(|header| {
        let name = names.get(usize::try_from(u32_at(header, 0)?).ok()?..)?;
        (name.split(|&byte| byte == 0).next() == Some(wanted)).then(|| contents(header))?
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn offset(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_module_tells_what_it_drives_and_needs() {
        let elf = module(
            b"license=GPL\0depends=ptp,pps-core\0alias=pci:v8086*\0softdep=pre: crc32c post: x\0",
        );

        let modinfo = Modinfo::parse(&elf).unwrap();

        assert_eq!(modinfo.depends, ["ptp", "pps_core"]);
        assert_eq!(modinfo.aliases, ["pci:v8086*"]);
        assert_eq!(modinfo.before, ["crc32c"]);
    }

    #[test]
    fn a_module_without_dependencies_has_none() {
        assert_eq!(Modinfo::parse(&module(b"depends=\0")).unwrap(), Modinfo::default());
    }

    #[test]
    fn a_compressed_module_is_not_misread() {
        assert_eq!(Modinfo::parse(b"\x28\xb5\x2f\xfd rest of a zstd frame"), None);
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_read_without_panic(
            damage in prop::collection::vec((0_usize..0x120, any::<u8>()), 0..12),
            len in 0_usize..0x140,
        ) {
            let mut elf = module(b"alias=x\0");
            for (at, byte) in damage {
                if let Some(target) = elf.get_mut(at) {
                    *target = byte;
                }
            }
            elf.truncate(len);
            Modinfo::parse(&elf);
        }
    }

    /// ELF header, section names, contents, and three section headers.
    fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.names\0.modinfo\0";
        let contents = 0x40 + names.len();
        let table = contents + modinfo.len();

        let mut elf = vec![0; 0x40];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        elf[0x3A..0x40].copy_from_slice(&[0x40, 0, 3, 0, 1, 0]);
        elf.extend_from_slice(names);
        elf.extend_from_slice(modinfo);
        elf.extend_from_slice(&[0; 0x40]);
        for (name, start, len) in [(1_u32, 0x40, names.len()), (8, contents, modinfo.len())] {
            let mut header = [0; 0x40];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(start as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf
    }
}
