//! Debian's packages: what is installed is used, what is not is downloaded and unpacked beside it.
//!
//! Nothing here needs root: `apt-get download` writes into a folder of ours, `dpkg-deb` unpacks into another.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use indicatif::HumanBytes;
use tempfile::TempDir;

use super::read;
use super::steps::step;

/// Downloaded packages, and a scratch folder in which they lie unpacked until this is dropped.
#[derive(Debug)]
pub(super) struct Packages {
    downloads: PathBuf,
    scratch: TempDir,
}

/// An unpacked kernel package.
#[derive(Debug)]
pub(super) struct Kernel {
    root: PathBuf,
    /// As `uname -r` will say.
    pub(super) version: String,
}

impl Kernel {
    /// The kernel itself.
    pub(super) fn image(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.version))
    }

    /// The folder that becomes `/lib/modules/VERSION`.
    pub(super) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.version)
    }
}

impl Packages {
    /// Takes `downloads`, or a folder in the user's cache, to keep packages in.
    ///
    /// # Errors
    ///
    /// When a folder cannot be created.
    pub(super) fn open(downloads: Option<&Path>) -> Result<Self> {
        let downloads = match downloads {
            Some(folder) => folder.to_owned(),
            None => cache()?,
        };
        fs::create_dir_all(&downloads)
            .with_context(|| format!("cannot create {}", downloads.display()))?;
        let downloads = downloads
            .canonicalize()
            .with_context(|| format!("cannot resolve {}", downloads.display()))?;
        let scratch = TempDir::with_prefix("ferroboot-image-").context("cannot make a folder")?;
        Ok(Self { downloads, scratch })
    }

    /// The kernel of `package`, or the one Debian's `linux-image-amd64` stands for.
    ///
    /// # Errors
    ///
    /// When the package cannot be had, or holds no kernel.
    pub(super) fn kernel(&self, package: Option<&Path>) -> Result<Kernel> {
        let package = match package {
            Some(file) => file.to_owned(),
            None => self.download(&newest_kernel()?)?,
        };
        let root = self.unpack(&package)?;
        let boot = fs::read_dir(root.join("boot"))
            .with_context(|| format!("{} holds no kernel", package.display()))?;
        let version = boot
            .filter_map(Result::ok)
            .find_map(|file| Some(file.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()))
            .with_context(|| format!("{} holds no kernel", package.display()))?;
        Ok(Kernel { root, version })
    }

    /// Folders laid out like `/lib/firmware`, packages among `sources` unpacked.
    ///
    /// # Errors
    ///
    /// When a package cannot be unpacked, or a folder does not exist.
    pub(super) fn firmware(&self, sources: &[PathBuf]) -> Result<Vec<PathBuf>> {
        sources.iter().map(|source| self.firmware_folder(source)).collect()
    }

    fn firmware_folder(&self, source: &Path) -> Result<PathBuf> {
        if source.is_dir() {
            return Ok(source.to_owned());
        }
        let root = self.unpack(source)?;
        ["lib/firmware", "usr/lib/firmware"]
            .map(|folder| root.join(folder))
            .into_iter()
            .find(|folder| folder.is_dir())
            .with_context(|| format!("{} holds no firmware", source.display()))
    }

    /// systemd's UKI stub.
    ///
    /// # Errors
    ///
    /// When the package cannot be had.
    pub(super) fn stub(&self) -> Result<Vec<u8>> {
        read(&self.find("systemd-boot-efi", "usr/lib/systemd/boot/efi/linuxx64.efi.stub")?)
    }

    /// iPXE on the firmware's own network driver.
    ///
    /// # Errors
    ///
    /// When the package cannot be had.
    pub(super) fn ipxe(&self) -> Result<Vec<u8>> {
        read(&self.find("ipxe", "usr/lib/ipxe/snponly.efi")?)
    }

    /// `file` of `package`: the installed one, or else a downloaded one.
    ///
    /// # Errors
    ///
    /// When the package cannot be had, or has no such file.
    pub(super) fn find(&self, package: &str, file: &str) -> Result<PathBuf> {
        let installed = Path::new("/").join(file);
        if installed.exists() {
            return Ok(installed);
        }
        let unpacked = self.unpack(&self.download(package)?)?.join(file);
        if !unpacked.exists() {
            bail!("package {package} has no /{file}");
        }
        Ok(unpacked)
    }

    fn download(&self, package: &str) -> Result<PathBuf> {
        let address = output(Command::new("apt-get").args(["download", "--print-uris", package]))
            .with_context(|| unavailable(package))?;
        let (name, len) = name_and_len(&address).with_context(|| unavailable(package))?;
        let cached = self.downloads.join(name).metadata().is_ok_and(|file| file.len() == len);
        let what = match cached {
            true => format!("checking {name}"),
            false => format!("fetching {name}, {}", HumanBytes(len)),
        };
        step(&what, || {
            // apt leaves a file alone whose digest is right already.
            output(
                Command::new("apt-get")
                    .args(["-q", "download", package])
                    .current_dir(&self.downloads),
            )
            .with_context(|| unavailable(package))
        })?;
        Ok(self.downloads.join(name))
    }

    fn unpack(&self, package: &Path) -> Result<PathBuf> {
        let name = package
            .file_stem()
            .with_context(|| format!("{} is no package", package.display()))?
            .to_owned();
        let root = self.scratch.path().join(&name);
        step(&format!("unpacking {}", name.display()), || {
            output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))
                .with_context(|| format!("cannot unpack {}", package.display()))
        })?;
        Ok(root)
    }
}

/// Of a line of `apt-get --print-uris`: `'ADDRESS' NAME LENGTH DIGEST`.
fn name_and_len(line: &str) -> Option<(&str, u64)> {
    let mut words = line.split_whitespace().skip(1);
    Some((words.next()?, words.next()?.parse().ok()?))
}

/// The package that `linux-image-amd64` depends on.
fn newest_kernel() -> Result<String> {
    const META: &str = "linux-image-amd64";
    let depends = output(Command::new("apt-cache").args(["depends", META]))
        .with_context(|| unavailable(META))?;
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
        .with_context(|| unavailable(META))
}

fn unavailable(package: &str) -> String {
    format!(
        "package {package} cannot be had: this needs Debian's apt and its lists (`apt-get update` \
         as root makes them), or the package's own file"
    )
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
///
/// When it cannot be started or fails, with what it had to say.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output =
        command.env("LC_ALL", "C").output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cache() -> Result<PathBuf> {
    let cache = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => {
            bail!("neither HOME nor XDG_CACHE_HOME is set: name a folder with --packages")
        }
    };
    Ok(cache.join("ferroboot/packages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packages_file_and_its_length_are_read_from_apt() {
        let line =
            "'http://mirror.example/i/ipxe_1.0_all.deb' ipxe_1.0_all.deb 3216908 SHA256:00\n";

        assert_eq!(name_and_len(line), Some(("ipxe_1.0_all.deb", 3_216_908)));
        assert_eq!(name_and_len(""), None);
    }
}
