//! Holds the architecture: who may use whom in the workspace, and what deciding crates never use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Each crate, and the crates of the workspace it may use.
const LAYERS: [(&str, &[&str]); 12] = [
    ("hardware", &[]),
    ("provision", &["hardware"]),
    ("dhcp", &["hardware"]),
    ("redfish", &["hardware"]),
    ("efi", &["hardware"]),
    ("ironic", &["hardware", "provision"]),
    ("store", &["hardware", "provision"]),
    ("server", &["hardware", "provision", "dhcp", "redfish", "efi", "ironic", "store"]),
    ("bmc", &["hardware", "redfish", "efi"]),
    ("agent", &["hardware", "ironic", "dhcp", "efi"]),
    (
        "ferroboot",
        &[
            "hardware",
            "provision",
            "dhcp",
            "redfish",
            "efi",
            "ironic",
            "store",
            "server",
            "bmc",
            "agent",
        ],
    ),
    ("xtask", &[]),
];

/// The crates that decide.
const DECIDING: [&str; 6] = ["hardware", "provision", "dhcp", "redfish", "efi", "ironic"];

/// What does I/O, and so has no place among the dependencies of a deciding crate.
const IO: [&str; 13] = [
    "axum",
    "hyper",
    "hyper-util",
    "nix",
    "nv-redfish-bmc-http",
    "rand",
    "reqwest",
    "rtnetlink",
    "rustix",
    "rustls",
    "socket2",
    "sqlx",
    "tokio",
];

/// Compares `cargo metadata` with the tables above, and the lints of the crates that decide.
///
/// # Errors
/// Lists every dependency that breaks them.
pub(crate) fn check() -> Result<()> {
    let uses = dependencies()?;
    let mut wrong = Vec::new();
    for (name, dependencies) in &uses {
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| layer == name) else {
            wrong.push(format!("{name} is not in the table of layers (xtask/src/layers.rs)"));
            continue;
        };
        for dependency in dependencies {
            let ours = LAYERS.iter().any(|(layer, _)| layer == dependency);
            if ours && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} must not use {dependency}"));
            }
            if DECIDING.contains(&name.as_str()) && IO.contains(&dependency.as_str()) {
                wrong.push(format!("{name} decides, and so must not use {dependency}"));
            }
        }
    }
    for (layer, _) in LAYERS {
        if !uses.contains_key(layer) {
            wrong.push(format!("{layer} is in the table of layers, but not in the workspace"));
        }
    }
    wrong.extend(unlike_the_others()?);
    ensure!(wrong.is_empty(), "the layers are broken:\n  {}", wrong.join("\n  "));
    Ok(())
}

/// The deciding crates whose `clippy.toml` does not forbid what that of the first one does.
fn unlike_the_others() -> Result<Vec<String>> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("crates");
    let forbids = |name: &str| {
        let path = crates.join(name).join("clippy.toml");
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    let [first, others @ ..] = DECIDING;
    let all = forbids(first)?;
    let mut unlike = Vec::new();
    for name in others {
        if forbids(name)? != all {
            unlike.push(format!("{name}/clippy.toml is not that of {first}, and both decide"));
        }
    }
    Ok(unlike)
}

/// The normal dependencies of each crate of the workspace, all by their short names.
fn dependencies() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("reading its JSON")?;
    let packages = metadata["packages"].as_array().context("it lists no packages")?;
    Ok(packages.iter().map(|package| (short(&package["name"]), normal(package))).collect())
}

fn normal(package: &Value) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array();
    dependencies
        .into_iter()
        .flatten()
        // `kind` is null for a normal dependency, else "dev" or "build".
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| short(&dependency["name"]))
        .collect()
}

fn short(name: &Value) -> String {
    let name = name.as_str().unwrap_or_default();
    name.strip_prefix("ferroboot-").unwrap_or(name).to_owned()
}
