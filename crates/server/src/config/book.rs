//! The examples of settings in the book are accepted.

use std::fs;
use std::path::Path;

use super::Config;

#[test]
fn each_example_of_settings_in_the_book_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let pages = fs::read_dir(root.join("docs/book/src")).unwrap();
    let pages = pages.map(|page| page.unwrap().path()).chain([root.join("README.md")]);
    let (mut count, mut refused) = (0, Vec::new());
    for page in pages.filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        for example in examples(&fs::read_to_string(&page).unwrap()) {
            let error = example.parse::<Config>().err();
            refused.extend(error.map(|error| format!("{}: {error:#}\n{example}", page.display())));
            count += 1;
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n\n"));
    assert!(count >= 10, "{count} examples were found");
}

/// The blocks of TOML in a page, without those for the BMC emulator, which has machines and faults.
fn examples(page: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "```toml" {
            let block: Vec<_> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            examples.push(block.join("\n"));
        }
    }
    examples.retain(|example| !example.contains("[[machine]]") && !example.contains("[[fault]]"));
    examples
}
