//! Other DHCP services, told by the daemon what machines boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ferroboot::lab::machine::Machine;
use ferroboot::lab::process::Process;
use ferroboot::lab::{Lab, Plan};
use provision::What;
use tempfile::TempDir;

use crate::story::{Fetched as _, Verbs as _, in_a_lab, with};

#[test]
fn ovmf_boots_through_dnsmasq_by_http_and_by_http_ipxe() {
    let dirs = Dirs::new().unwrap();
    in_a_lab(dirs.plan(), |lab| {
        let dnsmasq = dirs.dnsmasq()?;
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.manage(&machine)?;
        for (boot_interface, first) in [("http", "bootx64.efi"), ("http-ipxe", "snponly.efi")] {
            lab.boot_by(&machine, boot_interface)?;

            lab.clean(&machine)?;

            let trace = lab.trace(&machine.name)?;
            assert_eq!(trace.fetched_by_firmware().as_deref(), Some(first));
            was_told(lab, &machine, "dnsmasq")?;
            // Nothing of the boot is left.
            assert!(is_empty(&dirs.options())?);
            let host = fs::read_to_string(dirs.host(&machine))?;
            assert_eq!(host, format!("{},set:ironic\n", machine.mac()));
        }
        dnsmasq.kill()
    });
}

fn was_told(lab: &Lab, machine: &Machine, provider: &str) -> Result<()> {
    let trace = lab.trace(&machine.name)?;
    let told = trace.events.iter().any(
        |event| matches!(&event.what, What::Provider { name, error: None, .. } if name == provider),
    );
    ensure!(told, "the trace does not say that {provider} was told");
    Ok(())
}

fn is_empty(folder: &Path) -> Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

/// The folders of dnsmasq, which must be there before the daemon.
struct Dirs(TempDir);

impl Dirs {
    fn new() -> Result<Self> {
        let dirs = Self(tempfile::tempdir()?);
        fs::create_dir(dirs.hosts())?;
        fs::create_dir(dirs.options())?;
        Ok(dirs)
    }

    fn hosts(&self) -> PathBuf {
        self.0.path().join("hosts")
    }

    fn options(&self) -> PathBuf {
        self.0.path().join("options")
    }

    fn host(&self, machine: &Machine) -> PathBuf {
        self.hosts().join(format!("ironic-{}.conf", machine.mac()))
    }

    fn plan(&self) -> Plan {
        let (hosts, options) = (self.hosts(), self.options());
        beside(&format!(
            "provider = \"dnsmasq\"\n[dhcp.dnsmasq]\ndhcp_hostsdir = {hosts:?}\ndhcp_optsdir = {options:?}\n"
        ))
    }

    /// As the book says.
    fn dnsmasq(&self) -> Result<Process> {
        let (hosts, options) = (self.hosts(), self.options());
        let leases = self.0.path().join("leases");
        let configuration = format!(
            "port=0\ninterface=lab0\nuser=root\nlog-dhcp\nno-ping\ndhcp-leasefile={}\n\
             dhcp-range=10.77.0.100,10.77.0.199,1h\n\
             dhcp-hostsdir={}\ndhcp-optsdir={}\n\
             dhcp-vendorclass=set:ferroboot-http,HTTPClient\n\
             dhcp-match=set:ferroboot-x64,option:client-arch,16\n\
             dhcp-match=set:ipxe,175\ndhcp-userclass=set:ipxe,iPXE\n\
             dhcp-ignore=tag:ironic,tag:ferroboot-http,tag:!ferroboot-boot\n",
            leases.display(),
            hosts.display(),
            options.display(),
        );
        let path = self.0.path().join("dnsmasq.conf");
        fs::write(&path, configuration)?;
        let mut dnsmasq = Command::new("/usr/sbin/dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--log-facility=-", "-C"]).arg(&path);
        let log = self.0.path().join("dnsmasq.log");
        Process::start(&mut dnsmasq, "DHCP, ", &log).context("dnsmasq")
    }
}

/// A lab whose daemon is not its DHCP server.
fn beside(settings: &str) -> Plan {
    let mut plan = with([Machine::new(1)]);
    plan.own_dhcp = false;
    plan.settings = format!("[boot]\nurl = \"http://10.77.0.1:8080\"\n[dhcp]\n{settings}");
    plan
}
