//! Instances: a system made from Debian's packages that boots from its URL, again at each start of its machine, until
//! it is removed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use efi::{ComposedImage, CpioArchive, SharedFile, UkiParts, UkiStub, esp, iso, uki};
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::{Lab, Plan};
use provision::BootEventKind;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::story::{Fetched as _, Verbs as _, in_a_lab, with};

/// The system's console line when it is up.
const HELLO: &str = "instance: this is busybox of Debian";

/// The boot interface without a trace of the boots that a machine begins by itself.
const VIRTUAL_MEDIA: &str = "redfish-virtual-media";

/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// The system's first process: it prints its name and its identity from the config drive, and restarts its machine.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc
/bin/busybox mount -t proc proc /proc
echo "instance: this is busybox of Debian, booted by $(/bin/busybox cat /proc/cmdline)"
echo "instance: $(/bin/busybox cat /var/lib/cloud/seed/config_drive/openstack/latest/meta_data.json)"
/bin/busybox sleep 3
/bin/busybox reboot -f
"#;

#[test]
fn an_iso_that_the_bmc_is_told_is_active_and_boots_again_by_itself() {
    let images = InstanceImages::make().unwrap();
    in_a_lab(images.plan(), |lab| {
        let machine = lab.machines()[0].clone();
        let iso = images.iso().context("the instance's ISO image")?;
        boots_and_is_taken_away(lab, &machine, "redfish-https", &[("boot_iso", &iso)], None)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn an_iso_that_dhcp_tells_is_active_and_boots_again_by_itself() {
    let images = InstanceImages::make().unwrap();
    in_a_lab(images.plan(), |lab| {
        let machine = lab.machines()[0].clone();
        let iso = images.iso().context("the instance's ISO image")?;
        boots_and_is_taken_away(lab, &machine, "http", &[("boot_iso", &iso)], None)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn an_iso_in_the_virtual_cd_drive_is_active_and_boots_again_by_itself() {
    let images = InstanceImages::make().unwrap();
    in_a_lab(images.plan(), |lab| {
        let machine = lab.machines()[0].clone();
        let iso = images.iso().context("the instance's ISO image")?;
        boots_and_is_taken_away(lab, &machine, VIRTUAL_MEDIA, &[("boot_iso", &iso)], None)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn an_iso_needs_no_ipxe_and_is_active_and_boots_again_by_itself() {
    let images = InstanceImages::make().unwrap();
    in_a_lab(images.plan(), |lab| {
        let machine = lab.machines()[0].clone();
        let iso = images.iso().context("the instance's ISO image")?;
        boots_and_is_taken_away(lab, &machine, "http-ipxe", &[("boot_iso", &iso)], None)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_kernel_and_ramdisk_with_a_config_drive_boot_as_a_uki() {
    let images = InstanceImages::make().unwrap();
    in_a_lab(images.plan(), |lab| {
        let machine = lab.machines()[0].clone();
        let [kernel, ramdisk] = images.kernel_and_ramdisk();
        let named = [("kernel", kernel.as_str()), ("ramdisk", &ramdisk)];
        boots_and_is_taken_away(lab, &machine, "http", &named, Some("web-1"))
    });
}

#[test]
fn a_kernel_and_ramdisk_with_a_config_drive_boot_by_ipxe() {
    let images = InstanceImages::make().unwrap();
    in_a_lab(images.plan(), |lab| {
        let machine = lab.machines()[0].clone();
        let [kernel, ramdisk] = images.kernel_and_ramdisk();
        let named = [("kernel", kernel.as_str()), ("ramdisk", &ramdisk)];
        boots_and_is_taken_away(lab, &machine, "http-ipxe", &named, Some("web-2"))
    });
}

#[test]
#[ignore = "waits for a whole minute of silence: make test-lab"]
fn an_image_that_is_never_fetched_makes_no_node_active() {
    let images = InstanceImages::make().unwrap();
    let settings = format!("{}\n[deploy]\ncallback_timeout_secs = 60\n", images.settings());
    // Its firmware has no network boot.
    in_a_lab(Plan { settings, ..images.plan() }, |lab| {
        let machine = lab.machines()[0].clone();
        let [kernel, ramdisk] = images.kernel_and_ramdisk();
        let named = [("kernel", kernel.as_str()), ("ramdisk", &ramdisk)];
        make_available(lab, &machine, "http", &named)?;
        // The machine has another MAC address than its port.
        let port = ["port", "list", "--node", &machine.name, "-f", "value", "-c", "UUID"];
        let port = lab.baremetal(&port)?;
        let other = machine.mac().replace("fb", "f8");
        lab.baremetal(&["port", "set", port.trim(), "--address", &other])?;

        lab.baremetal(&["node", "deploy", &machine.name])?;

        lab.wait_for_state(&machine, "deploy failed")?;
        let node = lab.node(&machine.name)?;
        let said = node["last_error"].as_str().unwrap_or_default();
        assert!(said.starts_with("the image was not fetched whole within 60 s: "), "{said}");
        Ok(())
    });
}

/// `available` → `active`, over a reboot of the machine by itself, → `available`.
fn boots_and_is_taken_away(
    lab: &Lab,
    machine: &LabMachine,
    interface: &str,
    images: &[(&str, &str)],
    host_name: Option<&str>,
) -> Result<()> {
    make_available(lab, machine, interface, images)?;
    let deploy = ["node", "deploy", "--wait", "300", &machine.name];
    let drive = host_name.map(|name| format!(r#"{{"meta_data": {{"hostname": "{name}"}}}}"#));
    let drive = drive.iter().flat_map(|drive| ["--config-drive", drive]);
    lab.baremetal(&deploy.into_iter().chain(drive).collect::<Vec<_>>())?;

    assert_eq!(lab.state(machine)?, "active");
    let first = lab.trace(&machine.name)?;
    ensure!(!first.fetched().is_empty(), "active, and nothing was fetched whole");
    wait_for_hellos(lab, machine, 1)?;
    // The machine restarts by itself; that boot has its own trace, unless its BMC reads the image.
    wait_for_hellos(lab, machine, 2)?;
    let is_fetch = |what: &BootEventKind| matches!(what, BootEventKind::Http { .. });
    lab.wait_for_event(machine, "fetch of the second boot", is_fetch)?;
    let second = lab.trace(&machine.name)?;
    let id = |trace: &ironic::trace::BootTrace| trace.attempt.as_ref().map(|it| it.id);
    let is_seen = interface != VIRTUAL_MEDIA;
    ensure!((id(&first) != id(&second)) == is_seen, "the second boot is in the wrong trace");
    assert_eq!(lab.state(machine)?, "active");
    if let Some(name) = host_name {
        let console = lab.console(machine)?;
        assert!(console.contains(&format!(r#"{{"hostname":"{name}"}}"#)), "{console}");
    }

    lab.baremetal(&["node", "undeploy", "--wait", "300", &machine.name])?;

    let node = lab.node(&machine.name)?;
    assert_eq!(node["provision_state"], "available");
    assert_eq!(node["instance_info"], serde_json::json!({}));
    assert_eq!(node["power_state"], "power off");
    Ok(())
}

pub(crate) fn make_available(
    lab: &Lab,
    machine: &LabMachine,
    interface: &str,
    images: &[(&str, &str)],
) -> Result<()> {
    lab.enroll(machine)?;
    lab.boot_by(machine, interface)?;
    lab.manage(machine)?;
    lab.baremetal(&["node", "set", &machine.name, "--no-automated-clean"])?;
    lab.provide(machine)?;
    let mut set = vec!["node", "set", &machine.name, "--deploy-interface", "ramdisk"];
    let info = images.iter().map(|(key, url)| format!("{key}={url}"));
    let info: Vec<_> = info.chain(["kernel_append_params=console=ttyS0".to_owned()]).collect();
    set.extend(info.iter().flat_map(|info| ["--instance-info", info]));
    lab.baremetal(&set)?;
    Ok(())
}

pub(crate) fn wait_for_hellos(lab: &Lab, machine: &LabMachine, wanted: usize) -> Result<()> {
    let said = lab.wait_until(|| {
        let console = lab.console(machine).unwrap_or_default();
        Ok((console.matches(HELLO).count() >= wanted).then_some(()))
    })?;
    said.with_context(|| format!("the system did not come up {wanted} times"))
}

/// The images of an instance, in a folder that the daemon permits.
pub(crate) struct InstanceImages {
    dir: TempDir,
    boot_set: PathBuf,
}

impl InstanceImages {
    pub(crate) fn make() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let boot_set = with([]).ramdisk;
        let mut archive = CpioArchive::default();
        let busybox = fs::read(BUSYBOX).context("busybox-static is installed by `make test`")?;
        archive.program("bin/busybox", busybox);
        archive.program("init", INIT.as_bytes().to_vec());
        archive.character_device("dev/console", 5, 1);
        fs::write(dir.path().join("initramfs"), archive.finish())?;
        fs::copy(boot_set.join("kernel"), dir.path().join("kernel"))?;
        Ok(Self { dir, boot_set })
    }

    pub(crate) fn settings(&self) -> String {
        format!("[boot]\n{}", self.image_dirs())
    }

    /// The line of `[boot]` that permits the folder.
    pub(crate) fn image_dirs(&self) -> String {
        format!("image_dirs = [{:?}]\n", self.dir.path().display().to_string())
    }

    fn plan(&self) -> Plan {
        Plan { settings: self.settings(), ..with([LabMachine::new(1)]) }
    }

    fn kernel_and_ramdisk(&self) -> [String; 2] {
        ["kernel", "initramfs"]
            .map(|name| format!("file://{}", self.dir.path().join(name).display()))
    }

    /// The instance's own ISO image, made without the daemon.
    pub(crate) fn iso(&self) -> Result<String> {
        let stub_file = self.boot_set.join("stub.efi");
        let stub = UkiStub::parse(source("stub", &stub_file)?, &fs::read(&stub_file)?)?;
        let [kernel, initramfs] = ["kernel", "initramfs"].map(|name| self.dir.path().join(name));
        let parts = UkiParts {
            os_release: "ID=instance\nNAME=Instance\n",
            uname: "6.1.0",
            kernel: &source("kernel", &kernel)?,
            initramfs: &source("initramfs", &initramfs)?,
            seed: b"",
            command_line: "console=ttyS0 own-iso",
        };
        let image = iso(&esp(uki(&stub, &parts)?.image(), stub.machine())?)?;
        let files = [("stub", stub_file), ("kernel", kernel), ("initramfs", initramfs)];
        let path = self.dir.path().join("own.iso");
        fs::write(&path, bytes_of(&image, &files)?)?;
        Ok(format!("file://{}", path.display()))
    }
}

fn source(name: &str, path: &Path) -> Result<SharedFile> {
    let bytes = fs::read(path)?;
    Ok(SharedFile {
        name: name.into(),
        len: bytes.len() as u64,
        sha256: Sha256::digest(&bytes).into(),
    })
}

fn bytes_of(image: &ComposedImage, files: &[(&str, PathBuf)]) -> Result<Vec<u8>> {
    let contents: Vec<_> =
        files.iter().map(|(name, path)| Ok((*name, fs::read(path)?))).collect::<Result<_>>()?;
    let read = |source: &SharedFile, offset: u64, buffer: &mut [u8]| {
        let (_, bytes) = contents
            .iter()
            .find(|(name, _)| *name == &*source.name)
            .with_context(|| format!("no {}", source.name))?;
        let start = usize::try_from(offset)?;
        buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
        Ok::<_, anyhow::Error>(())
    };
    image.read_with(0..image.len(), read)
}
