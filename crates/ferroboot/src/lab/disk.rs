//! Disks of machines, written and inspected from outside.

use std::env;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 256 * MIB;

/// The offset of the only partition.
const PARTITION: u64 = MIB;

/// Creates a used disk: a GPT with a partition and a file system.
///
/// # Errors
/// The error output of the programs.
pub fn make_used(path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.set_len(SIZE).with_context(|| format!("cannot make {}", path.display()))?;
    let table = format!("label: gpt\nstart={}MiB, type=linux\n", PARTITION / MIB);
    run(tool("sfdisk").args(["--quiet", "--no-reread", "--no-tell-kernel"]).arg(path), &table)?;
    let (offset, blocks) = (format!("offset={PARTITION}"), format!("{}k", (SIZE - 2 * MIB) / 1024));
    let mut mkfs = tool("mkfs.ext4");
    mkfs.args(["-q", "-F", "-E", &offset]).arg(path).arg(blocks);
    run(&mut mkfs, "")?;
    Ok(())
}

/// The signatures on a disk according to another program: its partition table, and the file system in its partition.
///
/// # Errors
/// `blkid` cannot read the file.
pub fn signatures(path: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for offset in [0, PARTITION] {
        let probe = tool("blkid")
            .args(["--probe", "--output", "export", "--offset", &offset.to_string()])
            .arg(path)
            .output()
            .context("cannot start blkid (package util-linux)")?;
        // Exit status 2 means that nothing was found.
        ensure!(
            matches!(probe.status.code(), Some(0 | 2)),
            "blkid {}: {}",
            path.display(),
            String::from_utf8_lossy(&probe.stderr).trim()
        );
        let text = String::from_utf8_lossy(&probe.stdout);
        let named = |line: &str| {
            line.strip_prefix("PTTYPE=").or_else(|| line.strip_prefix("TYPE=")).map(str::to_owned)
        };
        found.extend(text.lines().filter_map(named));
    }
    Ok(found)
}

/// The digest of a disk's contents.
///
/// # Errors
/// It cannot be read.
pub fn digest(path: &Path) -> Result<String> {
    let text = run(tool("sha256sum").arg("--").arg(path), "")?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    // Debian keeps programs that change disks out of ordinary users' PATH.
    command.env("PATH", env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin");
    command
}

fn run(command: &mut Command, input: &str) -> Result<String> {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let mut stdin = child.stdin.take().context("it has no standard input")?;
    stdin.write_all(input.as_bytes()).with_context(|| format!("cannot write to {name}"))?;
    drop(stdin);
    let done = child.wait_with_output().with_context(|| format!("cannot wait for {name}"))?;
    let words = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{name}: {}", words.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
