//! Checks the snapshots: each belongs to a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};

use crate::sources::{self, SourceFile};
use crate::workspace::{Crate, crates};

/// Searches the test of every `*.snap` in the crates.
///
/// # Errors
/// The snapshots without a test.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for member in crates(root)? {
        wrong.extend(orphans(&member)?);
    }
    ensure!(wrong.is_empty(), "snapshots that no test has:\n  {}", wrong.join("\n  "));
    Ok(())
}

fn orphans(member: &Crate) -> Result<Vec<String>> {
    let mut snapshots = BTreeSet::new();
    add_snapshots(member.folder(), &mut snapshots)?;
    if snapshots.is_empty() {
        return Ok(Vec::new());
    }
    let mut names = BTreeSet::new();
    for (target, files) in sources::targets(member)? {
        for file in &files {
            names.extend(names_of(&target.name.replace('-', "_"), file));
        }
    }
    let is_orphan = |path: &&PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        !names.contains(stem.as_ref()) && !names.contains(without_number(&stem))
    };
    let orphans = snapshots.iter().filter(is_orphan);
    let below = |path: &PathBuf| path.strip_prefix(member.folder()).unwrap_or(path).to_owned();
    Ok(orphans.map(|path| format!("{}: {}", member.short_name(), below(path).display())).collect())
}

fn add_snapshots(folder: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            add_snapshots(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "snap") {
            found.insert(path);
        }
    }
    Ok(())
}

/// insta numbers the snapshots of one test from its second: `a_test-2`.
fn without_number(stem: &str) -> &str {
    let split = stem.rsplit_once('-');
    split.filter(|(_, number)| number.parse::<u8>().is_ok()).map_or(stem, |(name, _)| name)
}

/// The possible snapshot names of a file: those of its functions that compare with one and, if there is such a
/// function, all texts of the file, since a name may be given as a text.
fn names_of(target: &str, file: &SourceFile) -> BTreeSet<String> {
    let module = [vec![target.to_owned()], file.module.clone()].concat();
    let mut comparing = ComparingFunctions { module, found: Vec::new() };
    comparing.visit_file(&file.syntax);
    let mut names = BTreeSet::new();
    let mut texts = Vec::new();
    add_texts(file.syntax.to_token_stream(), &mut texts);
    for (module, function) in comparing.found {
        let module = module.join("__");
        for name in texts.iter().chain([&function]) {
            names.insert(format!("{module}__{name}"));
        }
        names.extend(texts.iter().cloned());
    }
    names
}

/// The functions that compare with a snapshot, each with its module.
struct ComparingFunctions {
    module: Vec<String>,
    found: Vec<(Vec<String>, String)>,
}

impl<'ast> Visit<'ast> for ComparingFunctions {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if compares(function.block.to_token_stream()) {
            self.found.push((self.module.clone(), function.sig.ident.to_string()));
        }
    }
}

/// Whether one of insta's macros is called.
fn compares(stream: TokenStream) -> bool {
    stream.into_iter().any(|token| match token {
        TokenTree::Group(group) => compares(group.stream()),
        TokenTree::Ident(name) => {
            let name = name.to_string();
            name.starts_with("assert") && name.ends_with("snapshot")
        }
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

fn add_texts(stream: TokenStream, texts: &mut Vec<String>) {
    for token in stream {
        match token {
            TokenTree::Group(group) => add_texts(group.stream(), texts),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                texts.extend(
                    text.strip_prefix('"')
                        .and_then(|text| text.strip_suffix('"'))
                        .map(str::to_owned),
                );
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn a_snapshot_of_a_test_has_its_name() {
        let library =
            "#[cfg(test)]\nmod tests { #[test] fn a_page() { insta::assert_snapshot!(1); } }";

        assert_eq!(orphans_of(library, "it__tests__a_page.snap"), "");
        assert_eq!(orphans_of(library, "it__tests__a_page-2.snap"), "");
    }

    #[test]
    fn a_snapshot_may_have_a_name_of_its_own() {
        let library = "fn compare() { insta::assert_json_snapshot!(\"documents\", 1); }";
        assert_eq!(orphans_of(library, "it__documents.snap"), "");

        let inside =
            "fn f() { insta::with_settings!({ a => 1 }, { insta::assert_snapshot!(\"b\", 1) }) }";
        assert_eq!(orphans_of(inside, "b.snap"), "");
    }

    #[test]
    fn a_snapshot_that_no_test_has_is_named_with_its_crate() {
        let expected = "it: src/snapshots/it__tests__a_page.snap";
        for library in [
            "",
            "mod tests { fn a_page() {} }",
            "mod tests { fn another() { insta::assert_snapshot!(1); } }",
            "mod other { fn a_page() { insta::assert_snapshot!(1); } }",
            "fn names() -> &'static str { \"a_page\" }",
        ] {
            assert_eq!(orphans_of(library, "it__tests__a_page.snap"), expected, "{library}");
        }
    }

    fn orphans_of(library: &str, snapshot: &str) -> String {
        let fixture = Fixture::new()
            .with_crate("it", "", library)
            .with(&format!("crates/it/src/snapshots/{snapshot}"), "");
        orphans(&crates(fixture.root()).unwrap()[0]).unwrap().join("\n")
    }
}
