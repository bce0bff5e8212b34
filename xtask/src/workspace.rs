//! The crates of a workspace, as `cargo metadata` lists them.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The platform of the product.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// A crate of the workspace.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Crate {
    /// The name of its package.
    pub(crate) name: String,
    manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// A dependency that a crate declares.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The name of its package.
    pub(crate) name: String,
    /// The crate's own name for it, if that differs.
    rename: Option<String>,
    #[serde(default, deserialize_with = "null_is_normal")]
    pub(crate) kind: DependencyKind,
}

/// The kind of code that may use a dependency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DependencyKind {
    #[default]
    Normal,
    Dev,
    Build,
}

/// A build target of a crate.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    kind: Vec<String>,
    /// Its root file.
    pub(crate) src_path: PathBuf,
}

/// The purpose of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetKind {
    /// Library and programs: the product.
    Product,
    /// Tests, examples and benches.
    Test,
    BuildScript,
}

/// The crates of the workspace at `root`, ordered by name.
pub(crate) fn crates(root: &Path) -> Result<Vec<Crate>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Crate>,
    }

    let mut crates = metadata::<Metadata>(root, &["--no-deps"])?.packages;
    crates.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(crates)
}

/// The names of all packages that are linked into the product of a crate, on the platform that we build for.
///
/// # Errors
/// There is no such crate.
pub(crate) fn linked_packages(root: &Path, program: &str) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct LinkMetadata {
        packages: Vec<LinkPackage>,
        resolve: LinkResolve,
    }

    #[derive(Deserialize)]
    struct LinkPackage {
        id: String,
        name: String,
    }

    #[derive(Deserialize)]
    struct LinkResolve {
        nodes: Vec<LinkNode>,
    }

    #[derive(Deserialize)]
    struct LinkNode {
        id: String,
        deps: Vec<LinkDependency>,
    }

    #[derive(Deserialize)]
    struct LinkDependency {
        pkg: String,
        dep_kinds: Vec<DependencyUse>,
    }

    #[derive(Deserialize)]
    struct DependencyUse {
        #[serde(default, deserialize_with = "null_is_normal")]
        kind: DependencyKind,
    }

    let metadata: LinkMetadata = metadata(root, &["--filter-platform", PLATFORM])?;
    let start = metadata.packages.iter().find(|package| package.name == program);
    let start = start.with_context(|| format!("the workspace has no crate {program}"))?;
    let mut linked = BTreeSet::new();
    let mut open = vec![start.id.as_str()];
    while let Some(id) = open.pop() {
        if linked.insert(id) {
            let node = metadata.resolve.nodes.iter().find(|node| node.id == id);
            let is_linked = |dependency: &&LinkDependency| {
                dependency.dep_kinds.iter().any(|of| of.kind == DependencyKind::Normal)
            };
            let dependencies = node.into_iter().flat_map(|node| &node.deps).filter(is_linked);
            open.extend(dependencies.map(|dependency| dependency.pkg.as_str()));
        }
    }
    let linked = metadata.packages.iter().filter(|package| linked.contains(package.id.as_str()));
    Ok(linked.map(|package| package.name.clone()).collect())
}

fn metadata<T: DeserializeOwned>(root: &Path, arguments: &[&str]) -> Result<T> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .args(arguments)
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("reading the JSON of cargo metadata")
}

impl Crate {
    /// The name in tables and messages: its folder's.
    pub(crate) fn short_name(&self) -> &str {
        short(&self.name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().expect("a manifest lies in a folder")
    }
}

impl Dependency {
    pub(crate) fn short_name(&self) -> &str {
        short(&self.name)
    }

    /// The identifier in code.
    pub(crate) fn identifier(&self) -> String {
        // The workspace renames its own packages to their short names.
        self.rename.as_deref().unwrap_or(&self.name).replace('-', "_")
    }
}

impl Target {
    pub(crate) fn kind(&self) -> TargetKind {
        match self.kind.first().map(String::as_str) {
            Some("custom-build") => TargetKind::BuildScript,
            Some("test" | "example" | "bench") => TargetKind::Test,
            _ => TargetKind::Product,
        }
    }
}

fn short(package: &str) -> &str {
    package.strip_prefix("ferroboot-").unwrap_or(package)
}

fn null_is_normal<'de, D: serde::Deserializer<'de>>(kind: D) -> Result<DependencyKind, D::Error> {
    Ok(Option::deserialize(kind)?.unwrap_or_default())
}
