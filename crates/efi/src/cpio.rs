//! The `newc` archive that a kernel unpacks as its first file system (Documentation/driver-api/early-userspace).
//!
//! Equal contents give equal bytes: entries are sorted, times are zero, root owns everything.

use std::collections::BTreeMap;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const REGULAR: u32 = 0o100_644;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive under construction; parent folders of an entry are added automatically.
#[derive(Debug, Default)]
pub struct CpioArchive {
    entries: BTreeMap<String, CpioEntry>,
}

#[derive(Debug)]
struct CpioEntry {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

impl CpioArchive {
    /// Adds an empty folder. The path is relative to the root, without a leading slash.
    pub fn directory(&mut self, path: &str) {
        self.add(path, DIRECTORY, (0, 0), Vec::new());
    }

    /// Adds a world-readable file.
    pub fn file(&mut self, path: &str, content: Vec<u8>) {
        self.add(path, REGULAR, (0, 0), content);
    }

    /// Adds an executable file.
    pub fn program(&mut self, path: &str, content: Vec<u8>) {
        self.add(path, EXECUTABLE, (0, 0), content);
    }

    /// Adds a symbolic link to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.add(path, SYMLINK, (0, 0), target.as_bytes().to_vec());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.add(path, CHARACTER_DEVICE, (major, minor), Vec::new());
    }

    /// The archive's bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            emit(&mut out, inode, path, entry);
        }
        emit(
            &mut out,
            0,
            "TRAILER!!!",
            &CpioEntry { mode: 0, device: (0, 0), content: Vec::new() },
        );
        // The kernel accepts a following archive only at a 4-byte boundary; cpio(1) pads to 512.
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), content: Vec<u8>) {
        for (slash, _) in path.match_indices('/') {
            self.entries.entry(path[..slash].to_owned()).or_insert(CpioEntry {
                mode: DIRECTORY,
                device: (0, 0),
                content: Vec::new(),
            });
        }
        self.entries.insert(path.to_owned(), CpioEntry { mode, device, content });
    }
}

fn emit(out: &mut Vec<u8>, inode: u32, path: &str, entry: &CpioEntry) {
    let links = if entry.mode == DIRECTORY { 2 } else { 1 };
    let len = u32::try_from(entry.content.len()).expect("no module or program reaches 4 GiB");
    let name_len = u32::try_from(path.len() + 1).expect("no path reaches 4 GiB");
    let (major, minor) = entry.device;
    // inode, mode, user, group, links, time, size, device (2), special device (2), name, checksum.
    let fields =
        [inode, entry.mode, 0, 0, links, 0, len, 0, 0, major, minor, name_len, 0].map(hexadecimal);

    out.extend_from_slice(b"070701");
    out.extend(fields.iter().flatten());
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(&entry.content);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn hexadecimal(value: u32) -> [u8; 8] {
    let mut digits = [0; 8];
    for (digit, shift) in digits.iter_mut().zip((0..8).rev()) {
        *digit = b"0123456789ABCDEF"[(value >> (shift * 4)) as usize & 0xF];
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_make_equal_bytes_in_whatever_order_they_came() {
        let mut one = CpioArchive::default();
        one.file("etc/a", b"a".to_vec());
        one.symlink("sbin/modprobe", "/init");
        let mut other = CpioArchive::default();
        other.symlink("sbin/modprobe", "/init");
        other.file("etc/a", b"a".to_vec());

        assert_eq!(one.finish(), other.finish());
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut archive = CpioArchive::default();
        archive.file("lib/modules/e1000e.ko", vec![1]);

        let bytes = archive.finish();

        let at = |name: &[u8]| bytes.windows(name.len()).position(|window| window == name);
        assert!(at(b"lib\0").unwrap() < at(b"lib/modules\0").unwrap());
        assert!(at(b"lib/modules\0").unwrap() < at(b"lib/modules/e1000e.ko\0").unwrap());
    }

    #[test]
    fn headers_and_contents_are_aligned_to_four_bytes() {
        let mut archive = CpioArchive::default();
        archive.file("x", b"12345".to_vec());
        archive.file("yy", b"6".to_vec());

        let bytes = archive.finish();

        let headers = bytes.windows(6).enumerate().filter(|(_, window)| window == b"070701");
        let offsets: Vec<_> = headers.map(|(offset, _)| offset).collect();
        assert_eq!(offsets.len(), 3);
        assert!(offsets.iter().all(|offset| offset % 4 == 0));
        assert_eq!(&bytes[112..117], b"12345");
        assert_eq!(&bytes[54..62], b"00000005");
    }
}
