//! Files and folders that only their owner reads: they contain boot URLs with tickets, consoles and keys.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes a private folder with those above it. An existing one stays as it is, since it may have other uses.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a private folder; an existing one becomes private.
pub(crate) fn make_own_folder(path: &Path) -> io::Result<()> {
    make_folder(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Opens a file for writing; creates it if it is missing, and makes it private. Its content is kept.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Writes a file.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = open(path)?;
    file.set_len(0)?;
    file.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_become_private() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("a/b"), dir.path().join("a/b/c"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(&file, "longer than the new one").unwrap();

        make_own_folder(&folder).unwrap();
        write(&file, b"new").unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }
}
