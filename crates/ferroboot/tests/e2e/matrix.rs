//! Each build of OVMF, with each boot interface, in each kind of network.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bmc::config::FirmwareConfig;
use bmc::config::Ip::{self, Ipv4, Ipv6};
use ferroboot::lab::firmware::OvmfBuild;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::network::LabNetwork;
use ferroboot::lab::{Lab, Plan};

use self::Outcome::{Boots, Explained};
use crate::story::{Fetched as _, Verbs as _, in_a_lab, measured, with};

/// One test per row: a build of OVMF and the seconds of its logo, a boot interface, a network, and the result.
/// Ignored rows belong to `make test-lab`.
macro_rules! matrix {
    ($($(#[$attribute:meta])* $name:ident: $build:ident $logo_secs:literal, $boot_interface:literal, $network:ident => $outcome:expr;)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            let row = Row {
                build: OvmfBuild::$build,
                logo_secs: $logo_secs,
                boot_interface: $boot_interface,
                network: LabNetwork::$network,
            };
            in_a_lab(row.plan(), |lab| row.hold(lab, $outcome));
        }
    )*};
}

#[derive(Clone, Copy, Debug)]
struct Row {
    build: OvmfBuild,
    logo_secs: u16,
    boot_interface: &'static str,
    network: LabNetwork,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// The machine is cleaned, by the files that its firmware fetched over this IP version.
    Boots(Ip),
    /// The boot fails, and the trace explains it with these words.
    Explained(&'static str),
}

/// The trace's words if the firmware's HTTP boot gave up before its first request.
const TOO_EARLY: &str = "never requested HTTP boot";

matrix! {
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2026_08_boots_by_redfish_https_over_ipv6_alone: V2026_08 0, "redfish-https", Ipv6 => Boots(Ipv6);
    ovmf_2026_08_boots_by_http_over_ipv6_alone: V2026_08 0, "http", Ipv6 => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2026_08_boots_by_http_ipxe_over_ipv6_alone: V2026_08 0, "http-ipxe", Ipv6 => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2026_08_boots_by_redfish_https_where_there_are_both: V2026_08 0, "redfish-https", Dual => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2026_08_boots_by_http_where_there_are_both: V2026_08 0, "http", Dual => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2026_08_boots_by_http_ipxe_where_there_are_both: V2026_08 0, "http-ipxe", Dual => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2026_08_boots_by_redfish_https_over_ipv4: V2026_08 0, "redfish-https", Ipv4 => Boots(Ipv4);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2026_08_boots_by_http_over_ipv4: V2026_08 0, "http", Ipv4 => Boots(Ipv4);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2026_08_boots_by_http_ipxe_over_ipv4: V2026_08 0, "http-ipxe", Ipv4 => Boots(Ipv4);

    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_asks_too_early_by_redfish_https_over_ipv6_alone: V2025_02 0, "redfish-https", Ipv6 => Explained(TOO_EARLY);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_asks_too_early_by_http_over_ipv6_alone: V2025_02 0, "http", Ipv6 => Explained(TOO_EARLY);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_asks_too_early_by_http_ipxe_over_ipv6_alone: V2025_02 0, "http-ipxe", Ipv6 => Explained(TOO_EARLY);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_boots_by_redfish_https_over_ipv6_alone_after_its_logo: V2025_02 8, "redfish-https", Ipv6 => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_boots_by_http_over_ipv6_alone_after_its_logo: V2025_02 8, "http", Ipv6 => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_boots_by_http_ipxe_over_ipv6_alone_after_its_logo: V2025_02 8, "http-ipxe", Ipv6 => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_boots_by_redfish_https_where_there_are_both: V2025_02 0, "redfish-https", Dual => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_goes_on_to_ipv4_by_http_where_there_are_both: V2025_02 0, "http", Dual => Boots(Ipv4);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_goes_on_to_ipv4_by_http_ipxe_where_there_are_both: V2025_02 0, "http-ipxe", Dual => Boots(Ipv4);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_boots_by_redfish_https_over_ipv4: V2025_02 0, "redfish-https", Ipv4 => Boots(Ipv4);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_boots_by_http_over_ipv4: V2025_02 0, "http", Ipv4 => Boots(Ipv4);
    #[ignore = "one of the full matrix: make test-lab"]
    ovmf_2025_02_boots_by_http_ipxe_over_ipv4: V2025_02 0, "http-ipxe", Ipv4 => Boots(Ipv4);

    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_asks_too_early_by_redfish_https_over_ipv6_alone: Installed 0, "redfish-https", Ipv6 => Explained(TOO_EARLY);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_asks_too_early_by_http_over_ipv6_alone: Installed 0, "http", Ipv6 => Explained(TOO_EARLY);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_asks_too_early_by_http_ipxe_over_ipv6_alone: Installed 0, "http-ipxe", Ipv6 => Explained(TOO_EARLY);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_boots_by_redfish_https_over_ipv6_alone_after_its_logo: Installed 8, "redfish-https", Ipv6 => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_boots_by_http_over_ipv6_alone_after_its_logo: Installed 8, "http", Ipv6 => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_boots_by_http_ipxe_over_ipv6_alone_after_its_logo: Installed 8, "http-ipxe", Ipv6 => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_boots_by_redfish_https_where_there_are_both: Installed 0, "redfish-https", Dual => Boots(Ipv6);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_goes_on_to_ipv4_by_http_where_there_are_both: Installed 0, "http", Dual => Boots(Ipv4);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_goes_on_to_ipv4_by_http_ipxe_where_there_are_both: Installed 0, "http-ipxe", Dual => Boots(Ipv4);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_boots_by_redfish_https_over_ipv4: Installed 0, "redfish-https", Ipv4 => Boots(Ipv4);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_boots_by_http_over_ipv4: Installed 0, "http", Ipv4 => Boots(Ipv4);
    #[ignore = "one of the full matrix: make test-lab"]
    the_installed_ovmf_boots_by_http_ipxe_over_ipv4: Installed 0, "http-ipxe", Ipv4 => Boots(Ipv4);
}

impl Row {
    /// With both families, IPv6 comes first, and the BMC's URL has an IPv6 address, too.
    fn plan(self) -> Plan {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let ip = match self.network {
            LabNetwork::Ipv4 => vec![Ipv4],
            LabNetwork::Dual => vec![Ipv6, Ipv4],
            LabNetwork::Ipv6 => vec![Ipv6],
        };
        let firmware =
            FirmwareConfig { ip, logo_secs: self.logo_secs, ..self.build.firmware(&root) };
        let mut plan = with([LabMachine::new(1).with_firmware(firmware)]);
        plan.network = self.network;
        if self.network == LabNetwork::Dual && self.boot_interface == "redfish-https" {
            plan.settings = "[boot]\nurl = \"http://[fd77::1]:8080\"\n".to_owned();
        }
        plan
    }

    fn hold(self, lab: &Lab, outcome: Outcome) -> Result<()> {
        let machine = &lab.machines()[0];
        lab.enroll(machine)?;
        lab.manage(machine)?;
        lab.boot_by(machine, self.boot_interface)?;
        match outcome {
            Boots(ip) => {
                lab.clean(machine)?;
                let trace = lab.trace(&machine.name)?;
                let by = trace.firmware_fetched_by().context("the firmware fetched nothing")?;
                ensure!(by == ip, "the firmware fetched by {by}");
                eprintln!("measured: {}", measured(&trace));
            }
            Explained(words) => {
                lab.begin_to_clean(machine)?;
                let diagnosis = lab.wait_for_diagnosis(machine, words)?;
                eprintln!("measured: no boot: {diagnosis}");
            }
        }
        Ok(())
    }
}
