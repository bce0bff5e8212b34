//! The signatures of file systems, volume managers and RAIDs, and their positions.
//!
//! The offsets are those that libblkid probes (util-linux, libblkid/src/superblocks and partitions), which an
//! installer or an initramfs would find at the next boot.

/// A signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature {
    /// The format, by libblkid's name.
    pub(super) name: &'static str,
    place: SignaturePlace,
    magic: &'static [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignaturePlace {
    /// Offset from the start of the disk or partition.
    Start(u64),
    /// Offset from the end, after rounding the length down to a multiple of the second value.
    End(u64, u64),
}

impl Signature {
    /// The position on a disk or partition of `len` bytes, if there is room.
    pub(super) fn offset(&self, len: u64) -> Option<u64> {
        let offset = match self.place {
            SignaturePlace::Start(offset) => offset,
            SignaturePlace::End(offset, unit) => (len - len % unit).checked_sub(offset)?,
        };
        (offset + self.magic.len() as u64 <= len).then_some(offset)
    }

    /// The length of the signature in bytes.
    pub(super) fn magic_len(&self) -> usize {
        self.magic.len()
    }

    /// Whether these bytes, read at [`Signature::offset`], are the signature.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        bytes == self.magic
    }
}

const fn start(name: &'static str, offset: u64, magic: &'static [u8]) -> Signature {
    Signature { name, place: SignaturePlace::Start(offset), magic }
}

const fn end(name: &'static str, offset: u64, unit: u64, magic: &'static [u8]) -> Signature {
    Signature { name, place: SignaturePlace::End(offset, unit), magic }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECTOR: u64 = 512;

const BTRFS: &[u8] = b"_BHRfS_M";
const LUKS_SECOND: &[u8] = b"SKUL\xba\xbe";
const LVM2: &[u8] = b"LABELONE";
const MD: &[u8] = b"\xfc\x4e\x2b\xa9";
const SWAP: &[u8] = b"SWAPSPACE2";
const ZFS_UBERBLOCK: &[u8] = b"\x0c\xb1\xba\x00\x00\x00\x00\x00";

/// All known signatures.
pub(super) const SIGNATURES: &[Signature] = &[
    // Partition tables.
    start("dos", 0x1FE, b"\x55\xaa"),
    start("gpt", SECTOR, b"EFI PART"),
    start("gpt", 4 * KIB, b"EFI PART"),
    end("gpt", SECTOR, SECTOR, b"EFI PART"),
    end("gpt", 4 * KIB, 4 * KIB, b"EFI PART"),
    start("mac", SECTOR, b"PM\0\0"),
    start("sun", 0x1FC, b"\xda\xbe"),
    start("bsd", SECTOR, b"\x57\x45\x56\x82"),
    // Volume managers, encryption, caches.
    start("LVM2_member", 0, LVM2),
    start("LVM2_member", SECTOR, LVM2),
    start("LVM2_member", 2 * SECTOR, LVM2),
    start("LVM2_member", 3 * SECTOR, LVM2),
    start("LVM1_member", 0, b"HM"),
    start("crypto_LUKS", 0, b"LUKS\xba\xbe"),
    start("crypto_LUKS", 0x4000, LUKS_SECOND),
    start("crypto_LUKS", 0x8000, LUKS_SECOND),
    start("crypto_LUKS", 0x10000, LUKS_SECOND),
    start("crypto_LUKS", 0x20000, LUKS_SECOND),
    start("crypto_LUKS", 0x40000, LUKS_SECOND),
    start("crypto_LUKS", 0x80000, LUKS_SECOND),
    start("crypto_LUKS", 0x10_0000, LUKS_SECOND),
    start("crypto_LUKS", 0x20_0000, LUKS_SECOND),
    start("crypto_LUKS", 0x40_0000, LUKS_SECOND),
    start("BitLocker", 0, b"\xeb\x58\x90-FVE-FS-"),
    start("bcache", 0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    start("ceph_bluestore", 0, b"bluestore block device"),
    start("vdo", 0, b"dmvdo001"),
    start("stratis", 0x204, b"!Stra0tis\x86\xff\x02^\x41rh"),
    start("VMFS_volume_member", MIB, b"\x0d\xd0\x01\xc0"),
    // RAIDs.
    end("linux_raid_member", 64 * KIB, 64 * KIB, MD),
    end("linux_raid_member", 8 * KIB, 4 * KIB, MD),
    start("linux_raid_member", 0, MD),
    start("linux_raid_member", 4 * KIB, MD),
    end("isw_raid_member", 2 * SECTOR, SECTOR, b"Intel Raid ISM Cfg Sig. "),
    end("ddf_raid_member", SECTOR, SECTOR, b"\xde\x11\xde\x11"),
    end("ddf_raid_member", 257 * SECTOR, SECTOR, b"\xde\x11\xde\x11"),
    end("adaptec_raid_member", SECTOR, SECTOR, b"\x37\xfc\x4d\x1e"),
    end("promise_fasttrack_raid_member", 63 * SECTOR, SECTOR, b"Promise Technology, Inc."),
    end("hpt45x_raid_member", 11 * SECTOR - 32, SECTOR, b"\xee\xd3\x16\x5a"),
    // File systems.
    start("ext", 0x438, b"\x53\xef"),
    start("xfs", 0, b"XFSB"),
    start("btrfs", 64 * KIB + 0x40, BTRFS),
    start("btrfs", 64 * MIB + 0x40, BTRFS),
    start("btrfs", 256 * GIB + 0x40, BTRFS),
    start("vfat", 0x36, b"FAT12   "),
    start("vfat", 0x36, b"FAT16   "),
    start("vfat", 0x52, b"FAT32   "),
    start("ntfs", 3, b"NTFS    "),
    start("ReFS", 3, b"ReFS\0\0\0\0"),
    start("exfat", 3, b"EXFAT   "),
    start("apfs", 32, b"NXSB"),
    start("hfsplus", KIB, b"H+"),
    start("hfsplus", KIB, b"HX"),
    start("f2fs", KIB, b"\x10\x20\xf5\xf2"),
    start("f2fs", 5 * KIB, b"\x10\x20\xf5\xf2"),
    start("nilfs2", KIB + 6, b"\x34\x34"),
    end("nilfs2", 4 * KIB - 6, 4 * KIB, b"\x34\x34"),
    start("jfs", 32 * KIB, b"JFS1"),
    start("reiserfs", 64 * KIB + 0x34, b"ReIsEr2Fs"),
    start("reiserfs", 64 * KIB + 0x34, b"ReIsEr3Fs"),
    start("reiserfs", 8 * KIB + 0x34, b"ReIsErFs"),
    start("reiser4", 64 * KIB, b"ReIsEr4"),
    start("gfs2", 64 * KIB, b"\x01\x16\x19\x70"),
    start("ocfs2", KIB, b"OCFSV2"),
    start("ocfs2", 2 * KIB, b"OCFSV2"),
    start("ocfs2", 4 * KIB, b"OCFSV2"),
    start("minix", KIB + 0x10, b"\x7f\x13"),
    start("minix", KIB + 0x10, b"\x8f\x13"),
    start("minix", KIB + 0x10, b"\x68\x24"),
    start("minix", KIB + 0x10, b"\x78\x24"),
    start("ufs", 8 * KIB + 0x55C, b"\x54\x19\x01\x00"),
    start("ufs", 64 * KIB + 0x55C, b"\x19\x01\x54\x19"),
    start("squashfs", 0, b"hsqs"),
    start("erofs", KIB, b"\xe2\xe1\xf5\xe0"),
    start(
        "bcachefs",
        4 * KIB + 0x18,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
    ),
    start("iso9660", 32 * KIB + 1, b"CD001"),
    start("udf", 32 * KIB + 1, b"BEA01"),
    start("udf", 32 * KIB + 1, b"NSR02"),
    start("udf", 32 * KIB + 1, b"NSR03"),
    // ZFS: the first uberblock of each of the four labels.
    start("zfs_member", 128 * KIB, ZFS_UBERBLOCK),
    start("zfs_member", 384 * KIB, ZFS_UBERBLOCK),
    end("zfs_member", 384 * KIB, 256 * KIB, ZFS_UBERBLOCK),
    end("zfs_member", 128 * KIB, 256 * KIB, ZFS_UBERBLOCK),
    // Swap: ten bytes before the end of the first page, for every page size.
    start("swap", 4 * KIB - 10, SWAP),
    start("swap", 8 * KIB - 10, SWAP),
    start("swap", 16 * KIB - 10, SWAP),
    start("swap", 32 * KIB - 10, SWAP),
    start("swap", 64 * KIB - 10, SWAP),
    start("swap", 4 * KIB - 10, b"SWAP-SPACE"),
    start("swsuspend", 4 * KIB - 10, b"S1SUSPEND"),
];
