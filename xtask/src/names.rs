//! Checks the names of types: a search for a name finds one type, since no other type of the workspace has it.
//!
//! Two lists contain the exceptions. `shared-names.txt` has the permanent ones, each with a reason.
//! `names-to-change.txt` has those that need a better name, and may only get shorter: `cargo xtask names --write`
//! removes the ones that have become unique.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use syn::visit::{self, Visit};

use crate::sources;
use crate::workspace::crates;

const SHARED: &str = "xtask/shared-names.txt";
const TO_CHANGE: &str = "xtask/names-to-change.txt";

/// Number of permanently shared names.
const MOST_SHARED: usize = 20;

/// Counts the types of the workspace with a shared name, and compares the names with the lists.
///
/// # Errors
/// The shared names in neither list, and the listed names that are not shared.
pub(crate) fn check(root: &Path) -> Result<()> {
    let types = TypeNames::of(root)?;
    println!("{types}");
    let wrong = types.compare(&NameLists::read(root)?);
    ensure!(wrong.is_empty(), "the names of types:\n  {}", wrong.join("\n  "));
    Ok(())
}

/// Removes names that have become unique from the list of names to change.
pub(crate) fn write(root: &Path) -> Result<()> {
    let types = TypeNames::of(root)?;
    let mut lists = NameLists::read(root)?;
    lists.to_change.retain(|name| types.is_shared(name));
    let text: String = lists.to_change.iter().map(|name| format!("{name}\n")).collect();
    fs::write(root.join(TO_CHANGE), text).with_context(|| format!("writing {TO_CHANGE}"))
}

/// Each name of a type, with the files that define it.
pub(crate) struct TypeNames(BTreeMap<String, Vec<String>>);

impl TypeNames {
    pub(crate) fn of(root: &Path) -> Result<Self> {
        let mut names = BTreeMap::<_, Vec<_>>::new();
        for member in crates(root)? {
            for file in sources::product(&member)? {
                let mut defined = DefinedTypes::default();
                defined.visit_file(&file.product());
                let path = member.folder().join(&file.path);
                let path = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                for name in defined.0 {
                    names.entry(name).or_default().push(path.clone());
                }
            }
        }
        Ok(Self(names))
    }

    fn is_shared(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|files| files.len() > 1)
    }

    fn shared(&self) -> impl Iterator<Item = (&String, &Vec<String>)> {
        self.0.iter().filter(|(_, files)| files.len() > 1)
    }

    fn compare(&self, lists: &NameLists) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, files) in self.shared() {
            if !lists.shared.contains(name) && !lists.to_change.contains(name) {
                wrong.push(format!("{name} is defined more than once: {}", files.join(", ")));
            }
        }
        for name in lists.shared.iter().filter(|name| !self.is_shared(name)) {
            wrong.push(format!("{name} is in {SHARED}, and unique"));
        }
        for name in lists.to_change.iter().filter(|name| !self.is_shared(name)) {
            wrong
                .push(format!("{name} is in {TO_CHANGE}, and unique: `cargo xtask names --write`"));
        }
        for name in lists.shared.intersection(&lists.to_change) {
            wrong.push(format!("{name} is in both lists"));
        }
        if lists.shared.len() > MOST_SHARED {
            let count = lists.shared.len();
            wrong.push(format!("{SHARED} has {count} names, and may have {MOST_SHARED}"));
        }
        wrong
    }
}

impl std::fmt::Display for TypeNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: usize = self.0.values().map(Vec::len).sum();
        let shared: usize = self.shared().map(|(_, files)| files.len()).sum();
        let names = self.shared().count();
        write!(f, "{shared} of {all} types share their name with another ({names} names)")
    }
}

/// The structs, enums, unions, traits and aliases of a file, including those in functions.
#[derive(Default)]
struct DefinedTypes(Vec<String>);

impl<'ast> Visit<'ast> for DefinedTypes {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let name = match item {
            syn::Item::Enum(item) => Some(&item.ident),
            syn::Item::Struct(item) => Some(&item.ident),
            syn::Item::Trait(item) => Some(&item.ident),
            syn::Item::Type(item) => Some(&item.ident),
            syn::Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        self.0.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }
}

#[derive(Default)]
struct NameLists {
    shared: BTreeSet<String>,
    to_change: BTreeSet<String>,
}

impl NameLists {
    fn read(root: &Path) -> Result<Self> {
        let text = |path: &str| {
            fs::read_to_string(root.join(path)).with_context(|| format!("reading {path}"))
        };
        Self::parse(&text(SHARED)?, &text(TO_CHANGE)?)
    }

    /// A shared name has its reason after a colon; a name to change has none.
    fn parse(shared: &str, to_change: &str) -> Result<Self> {
        let mut lists = Self::default();
        for line in shared.lines() {
            let (name, reason) = line.split_once(": ").unwrap_or((line, ""));
            ensure!(!reason.is_empty(), "{SHARED} gives no reason for {name}");
            lists.shared.insert(name.to_owned());
        }
        lists.to_change.extend(to_change.lines().map(str::to_owned));
        Ok(lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn unique_names_pass() {
        assert_eq!(wrong("pub struct Lease;", "pub struct Offer;", "", ""), "");
    }

    #[test]
    fn a_name_that_two_crates_define_is_shown_with_both_files() {
        let expected =
            "Kind is defined more than once: crates/one/src/lib.rs, crates/two/src/lib.rs";
        for definition in ["struct Kind;", "enum Kind {}", "trait Kind {}", "type Kind = u8;"] {
            assert_eq!(wrong(definition, "fn f() { struct Kind; }", "", ""), expected);
        }
    }

    #[test]
    fn names_of_tests_count_for_nothing() {
        let tests = "#[cfg(test)]\nmod tests { struct Kind; }";

        assert_eq!(wrong("struct Kind;", tests, "", ""), "");
    }

    #[test]
    fn a_name_in_one_of_the_lists_may_be_shared() {
        assert_eq!(wrong("struct Kind;", "struct Kind;", "Kind: each has one", ""), "");
        assert_eq!(wrong("struct Kind;", "struct Kind;", "", "Kind"), "");
    }

    #[test]
    fn a_name_that_is_listed_and_unique_is_shown_with_its_list() {
        let shared = wrong("struct Kind;", "", "Kind: each has one", "");
        assert_eq!(shared, "Kind is in xtask/shared-names.txt, and unique");

        let expected = "Kind is in xtask/names-to-change.txt, and unique: \
                        `cargo xtask names --write`";
        assert_eq!(wrong("struct Kind;", "", "", "Kind"), expected);
    }

    #[test]
    fn a_shared_name_needs_a_reason() {
        let Err(error) = NameLists::parse("Kind", "") else { panic!("it is taken without") };

        assert_eq!(error.to_string(), "xtask/shared-names.txt gives no reason for Kind");
    }

    #[test]
    fn writing_the_list_only_takes_names_out() {
        let fixture = fixture("struct Kind; struct Sort;", "struct Kind; struct Sort;")
            .with(SHARED, "")
            .with(TO_CHANGE, "Gone\nKind\n");

        write(fixture.root()).unwrap();

        assert_eq!(fs::read_to_string(fixture.root().join(TO_CHANGE)).unwrap(), "Kind\n");
    }

    fn fixture(one: &str, two: &str) -> Fixture {
        Fixture::new().with_crate("one", "", one).with_crate("two", "", two)
    }

    fn wrong(one: &str, two: &str, shared: &str, to_change: &str) -> String {
        let types = TypeNames::of(fixture(one, two).root()).unwrap();
        types.compare(&NameLists::parse(shared, to_change).unwrap()).join("\n")
    }
}
