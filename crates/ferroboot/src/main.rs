//! The `ferroboot` command.

fn main() {}
