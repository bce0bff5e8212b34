//! Circles of files: modules of a crate that use each other, so that none can be read or moved without the others.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{UseTree, Visibility};

use crate::sources::SourceFile;

/// A module, by its path below the root of its target.
type ModulePath = Vec<String>;

/// The circles among the files of a target: sets of files, each of which leads to every other.
///
/// A file uses another if a path leads to an item there, through any re-exports. Re-exports, visibilities and module
/// declarations do not count as a use.
pub(crate) fn circles(files: &[SourceFile]) -> Vec<BTreeSet<String>> {
    let tree = ModuleTree::of(files);
    let uses = files.iter().filter(|file| !file.is_test).map(|file| {
        let used = tree.used_by(file);
        (display(file), used.into_iter().collect())
    });
    strongly_connected(&uses.collect())
}

fn display(file: &SourceFile) -> String {
    file.path.display().to_string()
}

/// The modules of a target, with the names in each.
#[derive(Default)]
struct ModuleTree(BTreeMap<ModulePath, ModuleNames>);

#[derive(Default)]
struct ModuleNames {
    /// Its file.
    file: String,
    /// The imported names, and their meanings.
    imports: BTreeMap<String, Vec<String>>,
}

impl ModuleTree {
    fn of(files: &[SourceFile]) -> Self {
        let mut tree = Self::default();
        for file in files.iter().filter(|file| !file.is_test) {
            tree.add(&display(file), file.module.clone(), &file.product().items);
        }
        tree
    }

    fn add(&mut self, file: &str, module: ModulePath, items: &[syn::Item]) {
        let mut imports = BTreeMap::new();
        for item in items {
            match item {
                syn::Item::Use(item) => {
                    each_import(&item.tree, &mut Vec::new(), &mut |path, name| {
                        imports.insert(name.to_owned(), path.to_vec());
                    });
                }
                syn::Item::Mod(syn::ItemMod { ident, content: Some((_, items)), .. }) => {
                    self.add(file, [module.clone(), vec![ident.to_string()]].concat(), items);
                }
                _ => {}
            }
        }
        self.0.insert(module, ModuleNames { file: file.to_owned(), imports });
    }

    fn used_by(&self, file: &SourceFile) -> BTreeSet<String> {
        let mut paths = UsedPaths { module: file.module.clone(), found: Vec::new() };
        paths.visit_file(&file.product());
        let used = paths.found.iter().filter_map(|(module, path)| self.resolve(module, path, 0));
        let own = display(file);
        used.filter(|used| *used != own).map(str::to_owned).collect()
    }

    /// The file of the item at the end of a path in a module; `None` for a module itself, and for items of other
    /// crates.
    fn resolve(&self, module: &[String], path: &[String], depth: u8) -> Option<&str> {
        let (first, rest) = path.split_first()?;
        let child = [module, std::slice::from_ref(first)].concat();
        // Imports of a name as itself (`use a::a`) would recurse forever.
        if depth > 8 {
            return None;
        }
        match first.as_str() {
            "crate" => self.resolve_below(&[], rest, depth),
            "self" => self.resolve_below(module, rest, depth),
            "super" => self.resolve_below(module.split_last()?.1, rest, depth),
            _ if self.0.contains_key(&child) => self.resolve_below(&child, rest, depth),
            name => {
                let import = self.0.get(module)?.imports.get(name)?;
                self.resolve(module, &[import, rest].concat(), depth + 1)
            }
        }
    }

    /// Like `resolve`, for a path whose first name is searched only in the module.
    fn resolve_below(&self, module: &[String], path: &[String], depth: u8) -> Option<&str> {
        let (first, rest) = path.split_first()?;
        let child = [module, std::slice::from_ref(first)].concat();
        let names = self.0.get(module)?;
        match first.as_str() {
            "super" => self.resolve_below(module.split_last()?.1, rest, depth),
            _ if self.0.contains_key(&child) => self.resolve_below(&child, rest, depth),
            name if names.imports.contains_key(name) => self.resolve(module, path, depth),
            _ => Some(&names.file),
        }
    }
}

/// The paths in a file, each with its module.
struct UsedPaths {
    module: ModulePath,
    found: Vec<(ModulePath, Vec<String>)>,
}

impl UsedPaths {
    fn add(&mut self, path: Vec<String>) {
        self.found.push((self.module.clone(), path));
    }
}

impl<'ast> Visit<'ast> for UsedPaths {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if matches!(item.vis, Visibility::Inherited) {
            each_import(&item.tree, &mut Vec::new(), &mut |path, _| self.add(path.to_vec()));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        each_path_in_tokens(call.tokens.clone(), &mut |path| self.add(path));
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// Calls `found` with the path of each import and its imported name; `*` for a whole module.
fn each_import(tree: &UseTree, path: &mut Vec<String>, found: &mut impl FnMut(&[String], &str)) {
    match tree {
        UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            each_import(&tree.tree, path, found);
            path.pop();
        }
        UseTree::Name(tree) if tree.ident == "self" => {
            found(path, path.last().map_or("self", String::as_str));
        }
        UseTree::Name(tree) => {
            let name = tree.ident.to_string();
            found(&[path.as_slice(), std::slice::from_ref(&name)].concat(), &name);
        }
        UseTree::Rename(tree) => {
            let original = tree.ident.to_string();
            found(&[path.as_slice(), &[original]].concat(), &tree.rename.to_string());
        }
        UseTree::Glob(_) => found(&[path.as_slice(), &["*".to_owned()]].concat(), "*"),
        UseTree::Group(tree) => {
            for tree in &tree.items {
                each_import(tree, path, found);
            }
        }
    }
}

/// Calls `found` with each `a::b` among the arguments of a macro.
fn each_path_in_tokens(stream: TokenStream, found: &mut impl FnMut(Vec<String>)) {
    let mut path = Vec::new();
    let mut colons = 0;
    for token in stream {
        match token {
            TokenTree::Ident(identifier) if path.is_empty() || colons == 2 => {
                path.push(identifier.to_string());
                colons = 0;
                continue;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                continue;
            }
            TokenTree::Group(group) => each_path_in_tokens(group.stream(), found),
            TokenTree::Ident(identifier) => {
                found(std::mem::replace(&mut path, vec![identifier.to_string()]));
                colons = 0;
                continue;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        found(std::mem::take(&mut path));
        colons = 0;
    }
    found(path);
}

/// The sets of several files that all lead to each other, from each file's uses.
fn strongly_connected(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        uses.keys().map(|file| (file, reachable(file, uses))).collect();
    let mut circles = BTreeSet::new();
    for (file, others) in &reached {
        let leads_back =
            |other: &&&String| reached.get(**other).is_some_and(|all| all.contains(*file));
        let circle: BTreeSet<_> =
            others.iter().filter(leads_back).map(|other| (*other).clone()).collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

fn reachable<'a>(
    from: &String,
    uses: &'a BTreeMap<String, BTreeSet<String>>,
) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<_> = uses.get(from).into_iter().flatten().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(uses.get(file).into_iter().flatten());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;
    use crate::sources;
    use crate::workspace::crates;

    #[test]
    fn two_files_that_use_each_other_are_a_circle() {
        for uses in [
            "use crate::a::A;",
            "use super::a::A;",
            "use super::a; fn f(_: a::A) {}",
            "use crate::*; fn f(_: crate::a::A) {}",
            "fn f() { println!(\"{}\", crate::a::A) }",
        ] {
            let library = "mod a; mod b; pub use a::A;";
            let found = circles_of(library, "pub struct A; use crate::b::B;", uses);
            assert!(found.contains(&"src/a.rs, src/b.rs".to_owned()), "{uses}: {found:?}");
        }
    }

    #[test]
    fn an_item_is_where_it_is_defined_and_not_where_it_is_exported_from() {
        let library = "mod a; mod b; pub use a::A; pub use b::B;";

        assert_eq!(circles_of(library, "pub struct A;", "use crate::A; pub struct B;"), [""; 0]);
        assert_eq!(
            circles_of(library, "use crate::B; pub struct A;", "use crate::A; pub struct B;"),
            ["src/a.rs, src/b.rs"]
        );
    }

    #[test]
    fn a_file_and_one_below_it_can_be_a_circle() {
        let library = "mod a; mod b; pub struct Top; fn f(_: a::A) {}";

        assert_eq!(
            circles_of(library, "use super::Top; pub struct A;", ""),
            ["src/a.rs, src/lib.rs"]
        );
        assert_eq!(circles_of(library, "pub(super) struct A;", ""), [""; 0]);
    }

    #[test]
    fn uses_of_tests_make_no_circle() {
        let tests = "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }";

        assert_eq!(circles_of("mod a; mod b;", "pub struct A; use crate::b::B;", tests), [""; 0]);
    }

    fn circles_of(library: &str, a: &str, b: &str) -> Vec<String> {
        let fixture = Fixture::new()
            .with_crate("it", "", library)
            .with("crates/it/src/a.rs", a)
            .with("crates/it/src/b.rs", b);
        let members = crates(fixture.root()).unwrap();
        let found = circles(&sources::product(&members[0]).unwrap());
        found.iter().map(|circle| circle.iter().cloned().collect::<Vec<_>>().join(", ")).collect()
    }
}
