//! The parsed modules of a crate, separated from its tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Item, ItemMod, Meta};

use crate::workspace::{Crate, Target, TargetKind};

/// A Rust source file, with its module in a target.
pub(crate) struct SourceFile {
    /// Its path, below the crate's folder.
    pub(crate) path: PathBuf,
    /// Its module, below the target's root: `["dhcp", "v4"]`.
    pub(crate) module: Vec<String>,
    /// Whether it is only for tests.
    pub(crate) is_test: bool,
    pub(crate) syntax: syn::File,
}

impl SourceFile {
    /// The file without its tests.
    pub(crate) fn product(&self) -> syn::File {
        let mut syntax = self.syntax.clone();
        if self.is_test {
            syntax.items.clear();
        } else {
            WithoutTests.visit_file_mut(&mut syntax);
        }
        syntax
    }
}

/// The files of each target of a crate; several targets may share a file.
pub(crate) fn targets(member: &Crate) -> Result<Vec<(&Target, Vec<SourceFile>)>> {
    let files = |target: &Target| -> Result<Vec<SourceFile>> {
        let mut reader = Reader { folder: member.folder(), files: Vec::new() };
        let is_test = target.kind() == TargetKind::Test;
        // The children of a root module are beside it.
        let children = target.src_path.parent().expect("a file lies in a folder");
        reader.read(&target.src_path, children, Vec::new(), is_test)?;
        Ok(reader.files)
    };
    member.targets.iter().map(|target| Ok((target, files(target)?))).collect()
}

/// The files of a crate's library and programs.
pub(crate) fn product(member: &Crate) -> Result<Vec<SourceFile>> {
    let targets = targets(member)?.into_iter();
    let product = targets.filter(|(target, _)| target.kind() == TargetKind::Product);
    Ok(product.flat_map(|(_, files)| files).collect())
}

struct Reader<'a> {
    folder: &'a Path,
    files: Vec<SourceFile>,
}

impl Reader<'_> {
    /// Reads a file, and the modules that it declares, which are in `children`.
    fn read(
        &mut self,
        path: &Path,
        children: &Path,
        module: Vec<String>,
        is_test: bool,
    ) -> Result<()> {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let syntax =
            syn::parse_file(&text).with_context(|| format!("parsing {}", path.display()))?;
        let mut declared = Vec::new();
        declarations(&syntax.items, children, &module, is_test, &mut declared);
        let path = path.strip_prefix(self.folder).unwrap_or(path).to_owned();
        self.files.push(SourceFile { path, module, is_test, syntax });
        for declaration in declared {
            let Declaration { path, children, module, is_test } = declaration;
            self.read(&path, &children, module, is_test)?;
        }
        Ok(())
    }
}

/// A module in a separate file.
struct Declaration {
    path: PathBuf,
    children: PathBuf,
    module: Vec<String>,
    is_test: bool,
}

fn declarations(
    items: &[Item],
    folder: &Path,
    parent: &[String],
    is_test: bool,
    found: &mut Vec<Declaration>,
) {
    for item in items {
        let Item::Mod(declared) = item else { continue };
        let name = declared.ident.to_string();
        let module = [parent, std::slice::from_ref(&name)].concat();
        let is_test = is_test || is_for_tests(&declared.attrs);
        let children = folder.join(&name);
        match &declared.content {
            Some((_, items)) => declarations(items, &children, &module, is_test, found),
            None => found.push(declaration(declared, folder, module, is_test)),
        }
    }
}

fn declaration(
    declared: &ItemMod,
    folder: &Path,
    module: Vec<String>,
    is_test: bool,
) -> Declaration {
    let name = declared.ident.to_string();
    let beside = folder.join(format!("{name}.rs"));
    let children = folder.join(&name);
    match path_attribute(&declared.attrs) {
        Some(path) => {
            let path = folder.join(path);
            let children = path.parent().unwrap_or(folder).to_owned();
            Declaration { path, children, module, is_test }
        }
        None if beside.exists() => Declaration { path: beside, children, module, is_test },
        None => Declaration { path: children.join("mod.rs"), children, module, is_test },
    }
}

/// The `path` attribute of a module.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("path"))?;
    let Meta::NameValue(meta) = &attribute.meta else { return None };
    let syn::Expr::Lit(literal) = &meta.value else { return None };
    let syn::Lit::Str(text) = &literal.lit else { return None };
    Some(text.value())
}

/// Whether an item is compiled only for tests.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && matches!(&attribute.meta, Meta::List(list) if requires_test(&list.tokens))
    })
}

/// `test` and `all(test, …)` require it; `not(test)` and `any(test, …)` do not.
fn requires_test(predicate: &proc_macro2::TokenStream) -> bool {
    let text = predicate.to_string();
    text == "test" || text.starts_with("all") && text.contains("test") && !text.contains("not")
}

/// Removes items that are compiled only for tests.
struct WithoutTests;

impl VisitMut for WithoutTests {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(|item| !is_item_for_tests(item));
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(|item| !is_item_for_tests(item));
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, block: &mut syn::ItemImpl) {
        block.items.retain(|item| match item {
            syn::ImplItem::Fn(function) => !is_for_tests(&function.attrs),
            syn::ImplItem::Const(constant) => !is_for_tests(&constant.attrs),
            _ => true,
        });
        visit_mut::visit_item_impl_mut(self, block);
    }
}

fn is_item_for_tests(item: &Item) -> bool {
    let attributes = match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return false,
    };
    is_for_tests(attributes)
}
