//! Any bytes as a kernel module, and any texts as a module index and a device's name.

#![no_main]

use agent::modules::modinfo::Modinfo;
use agent::modules::{ModuleIndexFiles, ModuleIndex};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &str, &str, &str, &str)| {
    let (module, dep, alias, softdep, device) = input;
    let files = ModuleIndexFiles { dep: dep.into(), alias: alias.into(), softdep: softdep.into() };
    let mut index = ModuleIndex::parse(&files);
    if let Some(modinfo) = Modinfo::parse(module) {
        index.add("kernel/fuzzed.ko", modinfo);
    }
    for name in index.matching(device) {
        index.load_order(name);
    }
    ModuleIndex::parse(&index.emit());
});
