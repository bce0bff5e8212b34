//! Checks what programs link: a static program has no library of the system.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::workspace::linked_packages;

/// A crate, a package that it must not link, and the reason.
type Unlinked = (&'static str, &'static str, &'static str);

const UNLINKED: &[Unlinked] =
    &[("ferroboot-agent", "openssl-sys", "it is static, and OpenSSL is the system's library")];

/// Searches all dependencies of the crates, over any number of others, for the packages that they must not link.
///
/// # Errors
/// The packages that are linked all the same.
pub(crate) fn check(root: &Path) -> Result<()> {
    check_all(root, UNLINKED)
}

fn check_all(root: &Path, unlinked: &[Unlinked]) -> Result<()> {
    let mut wrong = Vec::new();
    for (program, package, reason) in unlinked {
        if linked_packages(root, program)?.contains(*package) {
            wrong.push(format!("{program} must not link {package}: {reason}"));
        }
    }
    ensure!(wrong.is_empty(), "linked packages:\n  {}", wrong.join("\n  "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    const ONE: &[Unlinked] = &[("agent", "ssl", "it is static")];

    #[test]
    fn a_package_that_a_program_links_over_another_is_named() {
        let fixture = three("[dependencies]\nssl.path = \"../ssl\"");

        let error = check_all(fixture.root(), ONE).unwrap_err().to_string();

        assert_eq!(error, "linked packages:\n  agent must not link ssl: it is static");
    }

    #[test]
    fn a_package_that_only_tests_or_build_scripts_use_is_not_linked() {
        for kind in ["dev-dependencies", "build-dependencies"] {
            let fixture = three(&format!("[{kind}]\nssl.path = \"../ssl\""));

            check_all(fixture.root(), ONE).unwrap();
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = check_all(three("").root(), &[("gone", "ssl", "")]).unwrap_err();

        assert_eq!(error.to_string(), "the workspace has no crate gone");
    }

    /// `agent`, which uses `between` with this manifest, and `ssl`.
    fn three(between: &str) -> Fixture {
        Fixture::new()
            .with_crate("agent", "[dependencies]\nbetween.path = \"../between\"", "")
            .with_crate("between", between, "")
            .with("crates/between/build.rs", "fn main() {}")
            .with_crate("ssl", "", "")
    }
}
