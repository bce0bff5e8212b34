//! Recorded trees, from a file or a folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use redfish::emulator::RecordedTree;
use serde_json::Value;

/// Reads a tree: a JSON object from paths to bodies, or a DMTF mock-up (DSP2043), a folder with an `index.json` for
/// each path.
///
/// # Errors
/// The file that cannot be read.
pub(crate) fn read_tree(path: &Path) -> Result<RecordedTree> {
    let mut bodies = BTreeMap::new();
    if path.is_dir() {
        read_folder(path, "", &mut bodies)?;
    } else {
        bodies = read_json(path)?;
    }
    ensure!(!bodies.is_empty(), "the tree {} has no resources", path.display());
    Ok(RecordedTree::new(bodies))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let context = || format!("reading {}", path.display());
    let file = File::open(path).with_context(context)?;
    serde_json::from_reader(BufReader::new(file)).with_context(context)
}

fn read_folder(root: &Path, below: &str, bodies: &mut BTreeMap<String, Value>) -> Result<()> {
    let folder = root.join(below);
    let index = folder.join("index.json");
    if index.is_file() {
        // A short mock-up begins below `/redfish/v1`.
        let full = below == "redfish" || below.starts_with("redfish/");
        let path = if full { format!("/{below}") } else { format!("/redfish/v1/{below}") };
        bodies.insert(path, read_json(&index)?);
    }
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        // Symbolic links could lead round in a circle.
        if entry.file_type()?.is_dir() {
            let name = entry.file_name();
            let name = name.to_str().with_context(|| format!("the name {name:?}"))?;
            let rest = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            read_folder(root, &rest, bodies)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_both_forms_of_a_folder_are_the_same_tree() {
        let dir = tempfile::tempdir().unwrap();
        let system = r##"{"Actions": {"#ComputerSystem.Reset": {}}}"##;
        let file = dir.path().join("tree.json");
        fs::write(&file, format!(r#"{{"/redfish/v1/Systems/1/": {system}}}"#)).unwrap();
        for prefix in ["short", "full/redfish/v1"] {
            let folder = dir.path().join(prefix).join("Systems/1");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("index.json"), system).unwrap();
        }

        for name in ["tree.json", "short", "full"] {
            let tree = read_tree(&dir.path().join(name)).unwrap();
            assert_eq!(tree.system_path().as_deref(), Some("/redfish/v1/Systems/1"), "{name}");
        }
    }
}
