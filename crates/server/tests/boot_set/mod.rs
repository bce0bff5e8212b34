//! A boot set for x64 that the service accepts, although no machine would.

use std::fs;
use std::path::Path;

use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};

pub(crate) fn write_boot_set(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let mut files = Map::new();
    for name in ["kernel", "initramfs", "stub.efi", "snponly.efi", "grubx64.efi"] {
        let contents = if name == "stub.efi" { stub() } else { vec![7; 5_000] };
        fs::write(folder.join(name), &contents).unwrap();
        let digest = Sha256::digest(&contents);
        let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        files.insert(name.to_owned(), json!({ "len": contents.len(), "sha256": sha256 }));
    }
    let manifest = json!({ "version": 1, "kernel_version": "6.1.0", "files": files });
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

/// The headers of a program with two sections, like systemd's stub.
fn stub() -> Vec<u8> {
    let mut bytes = vec![0; 0x800];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    let (pe, optional) = (0x80, 0x98);
    put(0, b"MZ");
    put(0x3C, &[0x80]);
    put(pe, b"PE\0\0");
    put(pe + 4, &(efi::PeMachine::X64 as u16).to_le_bytes());
    put(pe + 6, &2u16.to_le_bytes());
    put(pe + 20, &240u16.to_le_bytes());
    put(optional, &0x20Bu16.to_le_bytes());
    let long = [(32, 0x200u32), (36, 0x200), (56, 0x6000), (60, 0x400), (68, 10), (108, 16)];
    for (at, field) in long {
        put(optional + at, &field.to_le_bytes());
    }
    for (n, name) in [(0, ".text"), (1, ".data")] {
        let at = optional + 240 + 40 * n as usize;
        put(at, name.as_bytes());
        let sizes: [u32; 4] = [0x180, 0x4000 + 0x1000 * n, 0x200, 0x400 + 0x200 * n];
        put(at + 8, &sizes.map(u32::to_le_bytes).concat());
        put(at + 36, &0x6000_0020u32.to_le_bytes());
    }
    bytes
}
