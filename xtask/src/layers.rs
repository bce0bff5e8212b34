//! Checks the architecture: permitted dependencies within the workspace, and forbidden ones of deciding crates.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::workspace::{Crate, DependencyKind, crates};

/// The rules for the crates of a workspace.
struct Layers {
    /// Each crate, with the workspace crates that it may use.
    uses: &'static [(&'static str, &'static [&'static str])],
    /// The crates that decide.
    deciding: &'static [&'static str],
    /// Crates that do I/O, which deciding crates must not use.
    io: &'static [&'static str],
}

const OURS: Layers = Layers {
    uses: &[
        ("hardware", &[]),
        ("provision", &["hardware"]),
        ("dhcp", &["hardware"]),
        ("redfish", &["hardware"]),
        ("efi", &["hardware"]),
        ("ironic", &["hardware", "provision"]),
        ("netboot", &["hardware", "provision", "dhcp", "efi"]),
        ("store", &["hardware", "provision"]),
        ("nodes", &["hardware", "provision", "store"]),
        ("transport", &[]),
        ("certificates", &["transport"]),
        ("bmcs", &["hardware", "redfish", "transport"]),
        ("agents", &["provision", "ironic", "store", "transport"]),
        ("artifacts", &["hardware", "provision", "efi", "netboot", "nodes", "transport"]),
        (
            "providers",
            &["hardware", "provision", "netboot", "store", "nodes", "artifacts", "transport"],
        ),
        (
            "server",
            &[
                "hardware",
                "provision",
                "dhcp",
                "redfish",
                "efi",
                "ironic",
                "netboot",
                "store",
                "nodes",
                "transport",
                "certificates",
                "bmcs",
                "agents",
                "artifacts",
                "providers",
            ],
        ),
        ("bmc", &["hardware", "redfish", "efi", "transport"]),
        ("agent", &["hardware", "ironic", "dhcp"]),
        (
            "ferroboot",
            &[
                "hardware",
                "provision",
                "dhcp",
                "redfish",
                "efi",
                "ironic",
                "netboot",
                "store",
                "nodes",
                "transport",
                "certificates",
                "bmcs",
                "agents",
                "artifacts",
                "providers",
                "server",
                "bmc",
                "agent",
            ],
        ),
        ("xtask", &[]),
    ],
    deciding: &["hardware", "provision", "dhcp", "redfish", "efi", "ironic", "netboot"],
    io: &[
        "axum",
        "hyper",
        "hyper-util",
        "nix",
        "openssl",
        "rand",
        "reqwest",
        "rtnetlink",
        "rustix",
        "rustls",
        "socket2",
        "sqlx",
        "tokio",
    ],
};

/// Compares the workspace at `root` with the table above.
///
/// # Errors
/// Every forbidden dependency, and the deciding crates whose `clippy.toml` differs from the others'.
pub(crate) fn check(root: &Path) -> Result<()> {
    OURS.check(root)
}

impl Layers {
    fn check(&self, root: &Path) -> Result<()> {
        let crates = crates(root)?;
        let mut wrong = self.broken_by_dependencies(&crates);
        wrong.extend(self.broken_by_lints(&crates)?);
        ensure!(wrong.is_empty(), "the layers are broken:\n  {}", wrong.join("\n  "));
        Ok(())
    }

    fn broken_by_dependencies(&self, crates: &[Crate]) -> Vec<String> {
        let mut wrong = Vec::new();
        for member in crates {
            let name = member.short_name();
            match self.uses.iter().find(|(layer, _)| *layer == name) {
                Some((_, allowed)) => wrong.extend(self.broken_by(member, allowed)),
                None => {
                    wrong.push(format!(
                        "{name} is not in the table of layers (xtask/src/layers.rs)"
                    ));
                }
            }
        }
        for (layer, _) in self.uses {
            if !crates.iter().any(|member| member.short_name() == *layer) {
                wrong.push(format!("{layer} is in the table of layers, but not in the workspace"));
            }
        }
        wrong
    }

    /// Only the product counts: tests may use anything.
    fn broken_by(&self, member: &Crate, allowed: &[&str]) -> Vec<String> {
        let name = member.short_name();
        let mut wrong = Vec::new();
        for dependency in &member.dependencies {
            if dependency.kind != DependencyKind::Normal {
                continue;
            }
            let used = dependency.short_name();
            let is_ours = self.uses.iter().any(|(layer, _)| *layer == used);
            if is_ours && !allowed.contains(&used) {
                wrong.push(format!("{name} must not use {used}"));
            }
            if self.deciding.contains(&name) && self.io.contains(&used) {
                wrong.push(format!("{name} decides, and so must not use {used}"));
            }
        }
        wrong
    }

    /// All deciding crates have the same `clippy.toml`.
    fn broken_by_lints(&self, crates: &[Crate]) -> Result<Vec<String>> {
        let mut deciding = Vec::new();
        for member in crates.iter().filter(|member| self.deciding.contains(&member.short_name())) {
            let path = member.folder().join("clippy.toml");
            let lints = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            deciding.push((member.short_name(), lints));
        }
        let Some(((first, expected), others)) = deciding.split_first() else {
            return Ok(Vec::new());
        };
        let unlike = others.iter().filter(|(_, lints)| lints != expected);
        let words =
            |name| format!("{name}/clippy.toml is not that of {first}, and both of them decide");
        Ok(unlike.map(|(name, _)| words(name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    const TWO: Layers = Layers {
        uses: &[("rules", &[]), ("daemon", &["rules"])],
        deciding: &["rules"],
        io: &["tokio"],
    };

    #[test]
    fn a_workspace_that_keeps_to_its_layers_passes() {
        let fixture = two("", "[dependencies]\nrules.path = \"../rules\"\ntokio = \"1\"");

        assert_eq!(broken(&TWO, &fixture), "");
    }

    #[test]
    fn a_crate_that_uses_one_above_it_is_named_with_it() {
        let fixture = two("[dependencies]\ndaemon.path = \"../daemon\"", "");

        assert_eq!(broken(&TWO, &fixture), "rules must not use daemon");
    }

    #[test]
    fn a_deciding_crate_that_does_io_is_named_with_what_it_uses() {
        let fixture = two("[dependencies]\ntokio = \"1\"", "");

        assert_eq!(broken(&TWO, &fixture), "rules decides, and so must not use tokio");
    }

    #[test]
    fn tests_of_a_deciding_crate_may_do_io() {
        let fixture = two("[dev-dependencies]\ntokio = \"1\"\ndaemon.path = \"../daemon\"", "");

        assert_eq!(broken(&TWO, &fixture), "");
    }

    #[test]
    fn a_crate_that_the_table_lacks_is_named() {
        let fixture = two("", "").with_crate("extra", "", "");

        let expected = "extra is not in the table of layers (xtask/src/layers.rs)";
        assert_eq!(broken(&TWO, &fixture), expected);
    }

    #[test]
    fn a_crate_that_only_the_table_has_is_named() {
        const THREE: Layers =
            Layers { uses: &[("rules", &[]), ("daemon", &[]), ("gone", &[])], ..TWO };

        let expected = "gone is in the table of layers, but not in the workspace";
        assert_eq!(broken(&THREE, &two("", "")), expected);
    }

    #[test]
    fn a_deciding_crate_with_other_lints_is_named() {
        const BOTH: Layers = Layers { deciding: &["rules", "daemon"], ..TWO };
        let fixture = two("", "").with("crates/rules/clippy.toml", "allow-unwrap-in-tests = true");

        let expected = "rules/clippy.toml is not that of daemon, and both of them decide";
        assert_eq!(broken(&BOTH, &fixture), expected);
    }

    /// The crates `rules` and `daemon`, with these lines in their manifests.
    fn two(rules: &str, daemon: &str) -> Fixture {
        Fixture::new()
            .with_crate("rules", rules, "")
            .with_crate("daemon", daemon, "")
            .with("crates/rules/clippy.toml", "")
            .with("crates/daemon/clippy.toml", "")
    }

    /// The errors of the check; empty if it passes.
    fn broken(layers: &Layers, fixture: &Fixture) -> String {
        let Err(error) = layers.check(fixture.root()) else { return String::new() };
        error.to_string().replace("the layers are broken:\n  ", "")
    }
}
