//! The rules of a node's life, seen from outside: one binary, one file for each subject.
#![expect(clippy::unwrap_used, reason = "clippy sees tests only where they are marked as such")]

mod boot;
mod diagnosis;
mod instances;
mod lookups;
mod properties;
mod refusals;
mod situations;
mod stored;
mod table;
mod walks;
mod world;
