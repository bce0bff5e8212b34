//! Debian's packages: installed ones are used, others are downloaded and unpacked separately.
//!
//! Nothing here needs root: `apt-get download` and `dpkg-deb` write into private folders. Packages for other
//! architectures use separate package lists, so that this host's `dpkg` need not know the architecture.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use hardware::CpuArch;
use indicatif::HumanBytes;
use tempfile::TempDir;

use super::files::read;
use super::steps::step;

/// The first release of Debian with riscv64.
const RISCV64_SINCE: &str = "trixie";
/// The keyring that verifies Debian's package lists.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Downloaded packages, and a scratch folder for unpacked ones, which exists until this is dropped.
#[derive(Debug)]
pub(super) struct DebianPackages {
    cpu_arch: CpuArch,
    downloads: PathBuf,
    scratch: TempDir,
    apt: Apt,
}

/// The package lists for apt.
#[derive(Clone, Debug, Default)]
struct Apt {
    /// Options of apt; empty for this host's own lists.
    options: Vec<String>,
}

/// An unpacked kernel package.
#[derive(Debug)]
pub(super) struct KernelPackage {
    /// The kernel itself.
    pub(super) image: PathBuf,
    /// The folder for `/lib/modules/VERSION`.
    pub(super) modules: PathBuf,
    /// The version, as in `uname -r`.
    pub(super) version: String,
}

impl DebianPackages {
    /// Opens `downloads`, or a folder in the user's cache, for packages for `cpu_arch` of `release`, by default this
    /// host's.
    ///
    /// # Errors
    ///
    /// A folder cannot be created, or there are no such package lists.
    pub(super) fn open(
        downloads: Option<&Path>,
        cpu_arch: CpuArch,
        release: Option<&str>,
    ) -> Result<Self> {
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
        let apt = Apt::of(cpu_arch, release, &downloads)?;
        Ok(Self { cpu_arch, downloads, scratch, apt })
    }

    /// The kernel in `packages`, or Debian's current one (`linux-image-amd64`, or the architecture's).
    ///
    /// # Errors
    ///
    /// A package is unavailable, or has no kernel.
    pub(super) fn kernel(&self, packages: &[PathBuf]) -> Result<KernelPackage> {
        let packages = match packages {
            [] => self.download_kernel()?,
            some => some.to_vec(),
        };
        let root = self.scratch.path().join("kernel");
        packages.iter().try_for_each(|package| unpack_into(package, &root))?;
        find_kernel(&root).with_context(|| {
            let names: Vec<_> =
                packages.iter().map(|package| package.display().to_string()).collect();
            format!("there is no kernel, or there are no modules of it, in {}", names.join(" and "))
        })
    }

    /// Downloads the newest kernel. After Debian 13 it is split into several packages, on which the named one
    /// depends.
    fn download_kernel(&self) -> Result<Vec<PathBuf>> {
        let meta = format!("linux-image-{}", debian_name(self.cpu_arch));
        let newest = self.depends(&meta)?.into_iter().find(|name| name.starts_with("linux-image-"));
        let newest = newest.with_context(|| unavailable(&meta))?;
        let parts = self.depends(&newest)?;
        let parts = parts.into_iter().filter(|name| {
            ["linux-base-", "linux-binary-", "linux-modules-"]
                .iter()
                .any(|part| name.starts_with(part))
        });
        let all: Vec<_> = [newest].into_iter().chain(parts).collect();
        all.iter().map(|package| self.apt.download(package, &self.downloads)).collect()
    }

    /// The dependencies of a package.
    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let depends = output(self.apt.run("apt-cache").args(["depends", package]))
            .with_context(|| unavailable(package))?;
        let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// Folders in the layout of `/lib/firmware`; packages among `sources` are unpacked.
    ///
    /// # Errors
    ///
    /// A package cannot be unpacked, or a folder does not exist.
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
    /// The package is unavailable.
    pub(super) fn stub(&self) -> Result<Vec<u8>> {
        let file = format!("usr/lib/systemd/boot/efi/linux{}.efi.stub", self.cpu_arch.uefi_name());
        read(&self.find("systemd-boot-efi", &file)?)
    }

    /// iPXE; `None` if this release of Debian has none for the architecture.
    ///
    /// # Errors
    ///
    /// The package is unavailable.
    pub(super) fn ipxe(&self) -> Result<Option<Vec<u8>>> {
        let file = match self.cpu_arch {
            // The build that uses the firmware's own network driver.
            CpuArch::X64 => "usr/lib/ipxe/snponly.efi",
            CpuArch::Arm64 => "usr/lib/ipxe/ipxe-arm64.efi",
            CpuArch::Riscv64 => return Ok(None),
        };
        let found = self.look("ipxe", file)?;
        found.map(|file| read(&file)).transpose()
    }

    /// The `file` of `package`, installed or downloaded.
    ///
    /// # Errors
    ///
    /// The package is unavailable, or has no such file.
    pub(super) fn find(&self, package: &str, file: &str) -> Result<PathBuf> {
        let found = self.look(package, file)?;
        found.with_context(|| format!("package {package} has no /{file}"))
    }

    /// A program that runs on this host.
    ///
    /// # Errors
    ///
    /// The package is unavailable, or has no such file.
    pub(super) fn find_program(&self, package: &str, file: &str) -> Result<PathBuf> {
        let installed = Path::new("/").join(file);
        if installed.exists() {
            return Ok(installed);
        }
        let here = Apt::default();
        let unpacked = self.unpack(&here.download(package, &self.downloads)?)?.join(file);
        unpacked
            .exists()
            .then_some(unpacked)
            .with_context(|| format!("package {package} has no /{file}"))
    }

    fn look(&self, package: &str, file: &str) -> Result<Option<PathBuf>> {
        let installed = Path::new("/").join(file);
        if self.apt.is_here() && installed.exists() {
            return Ok(Some(installed));
        }
        let unpacked = self.unpack(&self.apt.download(package, &self.downloads)?)?.join(file);
        Ok(unpacked.exists().then_some(unpacked))
    }

    fn unpack(&self, package: &Path) -> Result<PathBuf> {
        let name = package.file_stem().unwrap_or(package.as_os_str());
        let root = self.scratch.path().join(name);
        unpack_into(package, &root)?;
        Ok(root)
    }
}

impl Apt {
    /// The lists of packages for an architecture, in `folder` if they are not this host's own.
    fn of(cpu_arch: CpuArch, release: Option<&str>, folder: &Path) -> Result<Self> {
        let name = debian_name(cpu_arch);
        let is_here = output(Command::new("dpkg").arg("--print-architecture"))?.trim() == name;
        let since = (cpu_arch == CpuArch::Riscv64 && !is_here).then_some(RISCV64_SINCE);
        let release = release.or(since);
        if is_here && release.is_none() {
            return Ok(Self::default());
        }
        let own = folder.join(format!("lists-{}-{name}", release.unwrap_or("installed")));
        for needed in ["lists/partial", "cache/archives/partial"] {
            let needed = own.join(needed);
            fs::create_dir_all(&needed)
                .with_context(|| format!("cannot create {}", needed.display()))?;
        }
        let mut options = vec![
            format!("APT::Architecture={name}"),
            format!("APT::Architectures::={name}"),
            "APT::Sandbox::User=".to_owned(),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::State::lists={}", own.join("lists").display()),
            format!("Dir::Cache={}", own.join("cache").display()),
        ];
        if let Some(release) = release {
            let sources = own.join("sources.list");
            fs::write(
                &sources,
                format!("deb [signed-by={KEYRING}] {} {release} main\n", mirror()?),
            )
            .with_context(|| format!("cannot write {}", sources.display()))?;
            options.push(format!("Dir::Etc::sourcelist={}", sources.display()));
            options.push("Dir::Etc::sourceparts=-".to_owned());
        }
        let apt = Self { options };
        let what = match release {
            Some(release) => format!("reading which packages {release} has for {cpu_arch}"),
            None => format!("reading which packages there are for {cpu_arch}"),
        };
        step(&what, || output(apt.run("apt-get").args(["-q", "update"])))?;
        Ok(apt)
    }

    /// Whether the lists are this host's own.
    fn is_here(&self) -> bool {
        self.options.is_empty()
    }

    fn run(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.options.iter().for_each(|option| {
            command.args(["-o", option]);
        });
        command
    }

    /// Downloads a package into a folder, unless it is there.
    fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        let address = output(self.run("apt-get").args(["download", "--print-uris", package]))
            .with_context(|| unavailable(package))?;
        let (name, len) = name_and_len(&address).with_context(|| unavailable(package))?;
        let cached = into.join(name).metadata().is_ok_and(|file| file.len() == len);
        let what = match cached {
            true => format!("checking {name}"),
            false => format!("fetching {name}, {}", HumanBytes(len)),
        };
        step(&what, || {
            // apt skips a file whose digest is right already.
            output(self.run("apt-get").args(["-q", "download", package]).current_dir(into))
                .with_context(|| unavailable(package))
        })?;
        Ok(into.join(name))
    }
}

/// The mirror of this host's own release.
fn mirror() -> Result<String> {
    let format = ["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"];
    let known = output(Command::new("apt-get").args(format))?;
    // Security updates have another label.
    let debian = known.lines().find_map(|line| line.strip_prefix("Debian "));
    Ok(debian.with_context(|| unavailable("any"))?.to_owned())
}

/// Debian's name of an architecture.
fn debian_name(cpu_arch: CpuArch) -> &'static str {
    match cpu_arch {
        CpuArch::X64 => "amd64",
        CpuArch::Arm64 => "arm64",
        CpuArch::Riscv64 => "riscv64",
    }
}

/// The kernel below a folder of unpacked packages.
fn find_kernel(root: &Path) -> Option<KernelPackage> {
    let folders = ["lib/modules", "usr/lib/modules"].map(|folder| fs::read_dir(root.join(folder)));
    let modules = folders.into_iter().flatten().flatten().find_map(Result::ok)?.path();
    let version = modules.file_name()?.to_str()?.to_owned();
    let images = [root.join(format!("boot/vmlinuz-{version}")), modules.join("vmlinuz")];
    let image = images.into_iter().find(|image| image.exists())?;
    Some(KernelPackage { image, modules, version })
}

fn unpack_into(package: &Path, root: &Path) -> Result<()> {
    let name = package.file_stem().unwrap_or(package.as_os_str()).display();
    step(&format!("unpacking {name}"), || {
        output(Command::new("dpkg-deb").arg("-x").arg(package).arg(root))
            .with_context(|| format!("cannot unpack {}", package.display()))
    })?;
    Ok(())
}

/// The name and length in a line of `apt-get --print-uris`: `'ADDRESS' NAME LENGTH DIGEST`.
fn name_and_len(line: &str) -> Option<(&str, u64)> {
    let mut words = line.split_whitespace().skip(1);
    Some((words.next()?, words.next()?.parse().ok()?))
}

fn unavailable(package: &str) -> String {
    format!(
        "package {package} cannot be had: this needs Debian's apt and its lists (`apt-get update` \
         as root makes them), or the package's own file"
    )
}

/// Runs a program and returns its output.
///
/// # Errors
///
/// It cannot be started, or fails; with its error output.
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
    fn a_kernel_is_found_in_one_package_as_in_those_of_newer_releases() {
        for (modules, image) in [
            ("lib/modules/6.1-arm64", "boot/vmlinuz-6.1-arm64"),
            ("usr/lib/modules/6.1-arm64", "usr/lib/modules/6.1-arm64/vmlinuz"),
        ] {
            let root = TempDir::new().unwrap();
            let root = root.path();
            fs::create_dir_all(root.join("boot")).unwrap();
            fs::create_dir_all(root.join(modules)).unwrap();
            assert!(find_kernel(root).is_none(), "without an image");
            fs::write(root.join(image), "").unwrap();

            let kernel = find_kernel(root).unwrap();

            assert_eq!((kernel.version.as_str(), kernel.image), ("6.1-arm64", root.join(image)));
        }
    }

    #[test]
    fn a_packages_file_and_its_length_are_read_from_apt() {
        let line =
            "'http://mirror.example/i/ipxe_1.0_all.deb' ipxe_1.0_all.deb 3216908 SHA256:00\n";

        assert_eq!(name_and_len(line), Some(("ipxe_1.0_all.deb", 3_216_908)));
        assert_eq!(name_and_len(""), None);
    }
}
