//! Checks the manifests: a crate declares no dependency that its code does not use.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};
use proc_macro2::{Punct, Spacing, TokenStream, TokenTree};
use quote::ToTokens;

use crate::sources::{self, SourceFile};
use crate::workspace::{Crate, Dependency, DependencyKind, TargetKind, crates};

/// A crate, a dependency without a use in its code, and the reason.
type Exception = (&'static str, &'static str, &'static str);

const UNNAMED: &[Exception] = &[];

/// Searches the code of each crate for its dependencies.
///
/// # Errors
/// The dependencies without a use.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for member in crates(root)? {
        wrong.extend(unused(&member, UNNAMED)?);
    }
    ensure!(wrong.is_empty(), "unused dependencies:\n  {}", wrong.join("\n  "));
    Ok(())
}

fn unused(member: &Crate, exceptions: &[Exception]) -> Result<Vec<String>> {
    let named = NamedCrates::of(member)?;
    let is_excepted = |dependency: &Dependency| {
        let names = (member.short_name(), dependency.short_name());
        exceptions.iter().any(|(name, unnamed, _)| names == (*name, *unnamed))
    };
    let unused = member.dependencies.iter().filter(|dependency| {
        !named.by(dependency.kind).contains(&dependency.identifier()) && !is_excepted(dependency)
    });
    Ok(unused.map(|dependency| words(member, dependency)).collect())
}

fn words(member: &Crate, dependency: &Dependency) -> String {
    let (name, unused) = (member.short_name(), dependency.short_name());
    match dependency.kind {
        DependencyKind::Normal => format!("{name} does not use {unused} outside its tests"),
        DependencyKind::Dev => format!("the tests of {name} do not use {unused}"),
        DependencyKind::Build => format!("the build script of {name} does not use {unused}"),
    }
}

/// The identifiers that may name a crate, by kind of code.
#[derive(Default)]
struct NamedCrates {
    product: BTreeSet<String>,
    anywhere: BTreeSet<String>,
    build: BTreeSet<String>,
}

impl NamedCrates {
    fn of(member: &Crate) -> Result<Self> {
        let mut named = Self::default();
        for (target, files) in sources::targets(member)? {
            let all = || files.iter().map(|file| file.syntax.to_token_stream());
            match target.kind() {
                TargetKind::Product => {
                    let product = files.iter().map(SourceFile::product);
                    collect(product.map(ToTokens::into_token_stream), &mut named.product);
                    collect(all(), &mut named.anywhere);
                }
                TargetKind::Test => collect(all(), &mut named.anywhere),
                TargetKind::BuildScript => collect(all(), &mut named.build),
            }
        }
        Ok(named)
    }

    fn by(&self, kind: DependencyKind) -> &BTreeSet<String> {
        match kind {
            DependencyKind::Normal => &self.product,
            DependencyKind::Dev => &self.anywhere,
            DependencyKind::Build => &self.build,
        }
    }
}

fn collect(streams: impl Iterator<Item = TokenStream>, named: &mut BTreeSet<String>) {
    for stream in streams {
        let mut words = Vec::new();
        flatten(stream, &mut words);
        named.extend(path_roots(&words).map(str::to_owned));
    }
}

/// The first identifier of each path: `a` in `a::b` and in `use a;`, also in macro arguments.
fn path_roots(words: &[String]) -> impl Iterator<Item = &str> {
    let word = |at: Option<usize>| at.and_then(|at| words.get(at)).map_or("", String::as_str);
    let is_root = move |at: usize| {
        let (before, after) = (word(at.checked_sub(1)), word(Some(at + 1)));
        before != "::" && after == "::" || before == "use" && matches!(after, ";" | "as")
    };
    (0..words.len()).filter(move |at| is_root(*at)).map(|at| words[at].as_str())
}

/// Flattens the tokens of a stream, with `::` as one token, and without literals (and so without comments).
fn flatten(stream: TokenStream, words: &mut Vec<String>) {
    let mut tokens = stream.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => {
                words.push("(".to_owned());
                flatten(group.stream(), words);
                words.push(")".to_owned());
            }
            TokenTree::Ident(identifier) => words.push(identifier.to_string()),
            TokenTree::Literal(_) => words.push("literal".to_owned()),
            TokenTree::Punct(punct) if is_colon(&punct) && punct.spacing() == Spacing::Joint => {
                tokens.next_if(|next| matches!(next, TokenTree::Punct(next) if is_colon(next)));
                words.push("::".to_owned());
            }
            TokenTree::Punct(punct) => words.push(punct.to_string()),
        }
    }
}

fn is_colon(punct: &Punct) -> bool {
    punct.as_char() == ':'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn a_dependency_that_code_names_is_used() {
        for library in [
            "use url::Url;",
            "use url;",
            "pub use url as address;",
            "pub fn port(url: url::Url) {}",
            "pub fn f() { assert!(url::Url::parse(\"\").is_ok()) }",
            "#[url::test]\nfn f() {}",
        ] {
            assert_eq!(unused_of("[dependencies]\nurl = \"2\"", library), "", "{library}");
        }
    }

    #[test]
    fn a_dependency_that_no_code_names_is_named_with_its_crate() {
        for library in [
            "/// Not url::Url.\npub fn url(url: u8) -> u8 { url }",
            "pub const URL: &str = \"url::Url\";",
            "use crate::url::Url;",
            "#[cfg(test)]\nmod tests { use url::Url; }",
            "#[cfg(test)]\nuse url::Url;",
        ] {
            let expected = "it does not use url outside its tests";
            assert_eq!(unused_of("[dependencies]\nurl = \"2\"", library), expected, "{library}");
        }
    }

    #[test]
    fn a_dependency_of_tests_may_be_used_in_any_of_them() {
        let manifest = "[dev-dependencies]\nurl = \"2\"";

        assert_eq!(unused_of(manifest, ""), "the tests of it do not use url");
        assert_eq!(unused_of(manifest, "#[cfg(test)]\nmod tests { use url::Url; }"), "");
        let fixture = Fixture::new().with_crate("it", manifest, "");
        assert_eq!(unused_in(&fixture.with("crates/it/tests/urls.rs", "use url::Url;")), "");
    }

    #[test]
    fn a_dependency_of_the_build_script_is_looked_for_there() {
        let manifest = "[build-dependencies]\nurl = \"2\"";
        let fixture = || Fixture::new().with_crate("it", manifest, "use url::Url;");

        let without = fixture().with("crates/it/build.rs", "fn main() {}");
        assert_eq!(unused_in(&without), "the build script of it does not use url");
        assert_eq!(unused_in(&fixture().with("crates/it/build.rs", "use url::Url;")), "");
    }

    #[test]
    fn modules_in_files_of_their_own_count_and_those_of_tests_only_as_tests() {
        let manifest = "[dependencies]\nurl = \"2\"";
        let with = |library: &str, file: &str| {
            let fixture = Fixture::new().with_crate("it", manifest, library);
            unused_in(&fixture.with(&format!("crates/it/src/{file}"), "use url::Url;"))
        };

        assert_eq!(with("mod urls;", "urls.rs"), "");
        assert_eq!(with("mod urls;", "urls/mod.rs"), "");
        assert_eq!(with("mod names { mod urls; }", "names/urls.rs"), "");
        assert_eq!(with("#[path = \"other.rs\"]\nmod urls;", "other.rs"), "");
        assert_eq!(
            with("#[cfg(test)]\nmod urls;", "urls.rs"),
            "it does not use url outside its tests"
        );
        assert_eq!(with("", "urls.rs"), "it does not use url outside its tests");
    }

    #[test]
    fn an_exception_is_no_mistake() {
        let fixture = Fixture::new().with_crate("it", "[dependencies]\nurl = \"2\"", "");
        let member = &crates(fixture.root()).unwrap()[0];

        let unused = unused(member, &[("it", "url", "for a feature of it")]).unwrap();

        assert_eq!(unused, Vec::<String>::new());
    }

    fn unused_of(manifest: &str, library: &str) -> String {
        unused_in(&Fixture::new().with_crate("it", manifest, library))
    }

    fn unused_in(fixture: &Fixture) -> String {
        let members = crates(fixture.root()).unwrap();
        let unused = members.iter().flat_map(|member| unused(member, &[]).unwrap());
        unused.collect::<Vec<_>>().join("\n")
    }
}
