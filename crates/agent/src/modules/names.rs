//! Names of modules: files have dashes or underscores, the kernel underscores only.

/// A module's name from the path of its file.
pub fn name_of(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    normal(file.split(".ko").next().unwrap_or_default())
}

/// `nvme-core` and `nvme_core` are the same module: file names have either, the kernel uses underscores.
pub fn normal(name: &str) -> String {
    name.trim().replace('-', "_")
}
