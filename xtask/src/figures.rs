//! Figures of the tree, and the limit of a crate's code size.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::circles::circles;
use crate::names::TypeNames;
use crate::sources::{self, SourceFile};
use crate::workspace::{Crate, TargetKind, crates};

/// Largest number of code lines of a crate, without tests.
const MOST_LINES: usize = 9_000;

/// The crates with larger limits, which may only be lowered.
const LARGER: &[(&str, usize)] = &[];

/// Number of longest functions to show.
const LONGEST: usize = 10;

/// Prints the figures, and checks the limit.
///
/// # Errors
/// The crates that exceed their limit, and those that no longer need their exception.
pub(crate) fn check(root: &Path) -> Result<()> {
    let figures = crates(root)?.iter().map(CrateFigures::of).collect::<Result<Vec<_>>>()?;
    print!("{}", page(&figures)?);
    println!("\n{}", TypeNames::of(root)?);
    let wrong = too_large(&figures, LARGER);
    ensure!(wrong.is_empty(), "crates are too large:\n  {}", wrong.join("\n  "));
    Ok(())
}

/// The figures of a crate: its library and its programs, without tests.
struct CrateFigures {
    name: String,
    files: usize,
    lines: usize,
    functions: Vec<Function>,
    circles: Vec<BTreeSet<String>>,
}

struct Function {
    name: String,
    file: String,
    lines: usize,
}

impl CrateFigures {
    fn of(member: &Crate) -> Result<Self> {
        let name = member.short_name().to_owned();
        let mut figures =
            Self { name, files: 0, lines: 0, functions: Vec::new(), circles: Vec::new() };
        for (target, files) in sources::targets(member)? {
            if target.kind() == TargetKind::Product {
                figures.circles.extend(circles(&files));
                files.iter().filter(|file| !file.is_test).for_each(|file| figures.add(file));
            }
        }
        Ok(figures)
    }

    fn add(&mut self, file: &SourceFile) {
        let product = file.product();
        self.files += 1;
        self.lines += lines_of_code(&product);
        let file = format!("{}/{}", self.name, file.path.display());
        FunctionLengths { file, found: &mut self.functions }.visit_file(&product);
    }
}

fn page(figures: &[CrateFigures]) -> Result<String> {
    let mut page = String::new();
    writeln!(page, "{:12} {:>6} {:>6}   without tests", "crate", "lines", "files")?;
    for CrateFigures { name, lines, files, .. } in figures {
        writeln!(page, "{name:12} {lines:>6} {files:>6}")?;
    }
    let lines: usize = figures.iter().map(|figures| figures.lines).sum();
    let files: usize = figures.iter().map(|figures| figures.files).sum();
    writeln!(page, "{:12} {lines:>6} {files:>6}", "all")?;

    writeln!(page, "\nthe longest functions")?;
    let mut functions: Vec<_> = figures.iter().flat_map(|figures| &figures.functions).collect();
    functions.sort_by_key(|function| std::cmp::Reverse(function.lines));
    for Function { name, file, lines } in functions.into_iter().take(LONGEST) {
        writeln!(page, "{lines:>6} lines: {name}, {file}")?;
    }

    let circles = figures.iter().flat_map(|figures| &figures.circles);
    let in_circles: usize = circles.clone().map(BTreeSet::len).sum();
    writeln!(page, "\n{} circles of files, with {in_circles} files", circles.count())?;
    for CrateFigures { name, circles, .. } in figures {
        for circle in circles {
            let files: Vec<_> = circle.iter().map(String::as_str).collect();
            writeln!(page, "  {name}: {}", files.join(", "))?;
        }
    }
    Ok(page)
}

fn too_large(figures: &[CrateFigures], larger: &[(&str, usize)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for CrateFigures { name, lines, .. } in figures {
        let exception = larger.iter().find(|(larger, _)| larger == name);
        let most = exception.map_or(MOST_LINES, |(_, most)| *most);
        if *lines > most {
            wrong.push(format!(
                "{name} has {lines} lines of code without tests, and may have {most}"
            ));
        }
        if exception.is_some() && *lines <= MOST_LINES {
            wrong.push(format!("{name} needs no exception (xtask/src/figures.rs) any more"));
        }
    }
    wrong
}

/// The lines with a name, a keyword or a literal: neither comments nor brackets alone.
fn lines_of_code(syntax: &impl ToTokens) -> usize {
    let mut lines = BTreeSet::new();
    add_lines(syntax.to_token_stream(), &mut lines);
    lines.len()
}

fn add_lines(stream: TokenStream, lines: &mut BTreeSet<usize>) {
    let mut tokens = stream.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => add_lines(group.stream(), lines),
            TokenTree::Ident(name) => {
                lines.insert(name.span().start().line);
            }
            TokenTree::Literal(literal) => {
                let span = literal.span();
                lines.extend(span.start().line..=span.end().line);
            }
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                // A doc comment is `#[doc = "…"]` or `#![doc = "…"]` among the tokens.
                tokens.next_if(|next| next.to_string() == "!");
                tokens.next_if(is_documentation);
            }
            TokenTree::Punct(_) => {}
        }
    }
}

fn is_documentation(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(name)) if name == "doc")
}

struct FunctionLengths<'a> {
    file: String,
    found: &'a mut Vec<Function>,
}

impl FunctionLengths<'_> {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line + 1 - signature.span().start().line;
        let (name, file) = (signature.ident.to_string(), self.file.clone());
        self.found.push(Function { name, file, lines });
    }
}

impl<'ast> Visit<'ast> for FunctionLengths<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_brackets_and_empty_lines_are_no_code() {
        let source =
            "//! What it is.\n\n/// One.\nfn one() {\n    // Why.\n    two(\"a\nb\");\n}\n";

        assert_eq!(lines_of_code(&syn::parse_file(source).unwrap()), 3);
    }

    #[test]
    fn a_function_is_as_long_as_from_its_name_to_its_end() {
        let mut found = Vec::new();
        let syntax = syn::parse_file("/// One.\nfn one() {\n    two();\n}\n").unwrap();

        FunctionLengths { file: String::new(), found: &mut found }.visit_file(&syntax);

        assert_eq!((found[0].name.as_str(), found[0].lines), ("one", 3));
    }

    #[test]
    fn a_crate_that_is_too_large_is_named_with_its_lines() {
        let expected = "server has 9001 lines of code without tests, and may have 9000";
        assert_eq!(too_large(&[of(9_001)], &[]), [expected]);
        assert_eq!(too_large(&[of(9_000)], &[]), [""; 0]);
    }

    #[test]
    fn an_exception_has_a_limit_of_its_own_and_goes_when_it_is_not_needed() {
        let larger = &[("server", 10_000)];

        assert_eq!(too_large(&[of(10_000)], larger), [""; 0]);
        let expected = "server has 10001 lines of code without tests, and may have 10000";
        assert_eq!(too_large(&[of(10_001)], larger), [expected]);
        let expected = "server needs no exception (xtask/src/figures.rs) any more";
        assert_eq!(too_large(&[of(9_000)], larger), [expected]);
    }

    fn of(lines: usize) -> CrateFigures {
        let name = "server".to_owned();
        CrateFigures { name, files: 1, lines, functions: Vec::new(), circles: Vec::new() }
    }
}
