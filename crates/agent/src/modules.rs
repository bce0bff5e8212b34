//! Kernel modules: the modules for a device, and their load order.
//!
//! The index has the format of `depmod` (`modules.dep`, `modules.alias`, `modules.softdep`), so the agent works in
//! any ramdisk. `ferroboot image build` writes the index with [`ModuleIndex::emit`]. Nothing here touches a file.

pub mod glob;
pub mod modinfo;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use self::modinfo::Modinfo;
pub use self::names::{name_of, normal};

/// The modules of one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleIndex {
    modules: BTreeMap<String, Module>,
    /// A pattern of modaliases, and its module. `crc32c` is an alias, too, like `pci:v00008086d…`.
    aliases: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Module {
    path: String,
    depends: Vec<String>,
    /// Optional modules to load first: names or aliases.
    before: Vec<String>,
}

/// The three files of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleIndexFiles {
    /// `modules.dep`
    pub dep: String,
    /// `modules.alias`
    pub alias: String,
    /// `modules.softdep`
    pub softdep: String,
}

impl ModuleIndex {
    /// Parses an index; invalid lines are skipped.
    pub fn parse(files: &ModuleIndexFiles) -> Self {
        let mut index = Self::default();
        for (path, depends) in files.dep.lines().filter_map(|line| line.split_once(':')) {
            let depends = depends.split_whitespace().map(name_of).collect();
            index.module(&name_of(path)).path = path.trim().to_owned();
            index.module(&name_of(path)).depends = depends;
        }
        for line in files.alias.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) =
                (words.next(), words.next(), words.next())
            {
                index.aliases.push((pattern.to_owned(), normal(name)));
            }
        }
        for line in files.softdep.lines().filter_map(|line| line.strip_prefix("softdep ")) {
            if let Some((name, rest)) = line.split_once(' ')
                && let Some(module) = index.modules.get_mut(&normal(name))
            {
                module.before = modinfo::before(rest);
            }
        }
        index
    }

    /// Adds a module found at `path`, relative to `/lib/modules/VERSION`.
    pub fn add(&mut self, path: &str, modinfo: Modinfo) {
        let name = name_of(path);
        self.aliases.extend(modinfo.aliases.into_iter().map(|alias| (alias, name.clone())));
        *self.module(&name) =
            Module { path: path.to_owned(), depends: modinfo.depends, before: modinfo.before };
    }

    /// The files of the index, in the format of [`ModuleIndex::parse`].
    pub fn emit(&self) -> ModuleIndexFiles {
        let mut files = ModuleIndexFiles::default();
        for (name, module) in &self.modules {
            let depends = module.depends.iter().filter_map(|name| self.path(name));
            let depends: String = depends.map(|path| format!(" {path}")).collect();
            writeln!(files.dep, "{}:{depends}", module.path).expect("a String takes everything");
            if !module.before.is_empty() {
                let before = module.before.join(" ");
                writeln!(files.softdep, "softdep {name} pre: {before}")
                    .expect("a String takes everything");
            }
        }
        for (pattern, name) in &self.aliases {
            writeln!(files.alias, "alias {pattern} {name}").expect("a String takes everything");
        }
        files
    }

    /// The modules for a device's modalias, or for a module's own name.
    pub fn matching(&self, modalias: &str) -> BTreeSet<&str> {
        let own = self.modules.get_key_value(&normal(modalias)).map(|(name, _)| name.as_str());
        let aliased = self
            .aliases
            .iter()
            .filter(|(pattern, _)| glob::matches(pattern, modalias))
            .map(|(_, name)| name.as_str());
        own.into_iter().chain(aliased).collect()
    }

    /// The paths of `name` and of all its dependencies, dependencies first. Empty for an unknown module.
    pub fn load_order(&self, name: &str) -> Vec<&str> {
        let mut order = Vec::new();
        self.visit(&normal(name), &mut BTreeSet::new(), &mut order);
        order
    }

    fn visit<'a>(&'a self, name: &str, seen: &mut BTreeSet<&'a str>, order: &mut Vec<&'a str>) {
        let Some((name, module)) = self.modules.get_key_value(name) else { return };
        // Soft dependencies may be circular; a module that is being visited is skipped.
        if !seen.insert(name) {
            return;
        }
        for before in &module.before {
            for name in self.matching(before) {
                self.visit(name, seen, order);
            }
        }
        for name in &module.depends {
            self.visit(name, seen, order);
        }
        order.push(&module.path);
    }

    fn module(&mut self, name: &str) -> &mut Module {
        self.modules.entry(name.to_owned()).or_default()
    }

    fn path(&self, name: &str) -> Option<&str> {
        self.modules.get(name).map(|module| module.path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_module_needs_goes_in_before_it() {
        let index = e1000e();

        assert_eq!(index.load_order("e1000e"), ["crc.ko", "ptp.ko", "e1000e.ko"]);
    }

    #[test]
    fn a_modalias_finds_its_driver() {
        let index = e1000e();

        let modalias = "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00";
        assert_eq!(index.matching(modalias).into_iter().collect::<Vec<_>>(), ["e1000e"]);
        assert!(index.matching("pci:v00001AF4d00001000").is_empty());
    }

    #[test]
    fn modules_that_want_each_other_first_still_end() {
        let files = ModuleIndexFiles {
            dep: "a.ko: b.ko\nb.ko: a.ko\n".into(),
            softdep: "softdep a pre: b\nsoftdep b pre: a\n".into(),
            ..ModuleIndexFiles::default()
        };

        assert_eq!(ModuleIndex::parse(&files).load_order("a"), ["b.ko", "a.ko"]);
    }

    #[test]
    fn dashes_and_underscores_are_the_same() {
        let files = ModuleIndexFiles {
            dep: "kernel/nvme-core.ko:\n".into(),
            ..ModuleIndexFiles::default()
        };

        assert_eq!(ModuleIndex::parse(&files).load_order("nvme_core"), ["kernel/nvme-core.ko"]);
        assert_eq!(ModuleIndex::parse(&files).load_order("nvme-core"), ["kernel/nvme-core.ko"]);
    }

    proptest! {
        #[test]
        fn an_index_survives_being_written_and_read(
            modules in prop::collection::btree_map(
                "[a-z]{1,8}",
                (prop::collection::vec("[a-z]{1,8}", 0..3), prop::collection::vec("[a-z]{1,8}", 0..2)),
                0..6,
            ),
        ) {
            let mut index = ModuleIndex::default();
            for (name, (depends, before)) in &modules {
                let depends = depends.iter().filter(|name| modules.contains_key(*name)).cloned();
                let modinfo = Modinfo {
                    depends: depends.collect(),
                    aliases: vec![format!("pci:{name}*")],
                    before: before.clone(),
                    firmware: vec![],
                };
                index.add(&format!("kernel/{name}.ko"), modinfo);
            }

            prop_assert_eq!(ModuleIndex::parse(&index.emit()), index);
        }

        #[test]
        fn any_text_is_read_without_panic(dep: String, alias: String, softdep: String, name: String) {
            let index = ModuleIndex::parse(&ModuleIndexFiles { dep, alias, softdep });
            index.load_order(&name);
            index.matching(&name);
        }
    }

    fn e1000e() -> ModuleIndex {
        ModuleIndex::parse(&ModuleIndexFiles {
            dep: "e1000e.ko: ptp.ko\nptp.ko:\ncrc.ko:\n".into(),
            alias: "alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e\nalias crc32c crc\n".into(),
            softdep: "softdep e1000e pre: crc32c\n".into(),
        })
    }
}
