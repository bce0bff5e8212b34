//! Boots on real UEFI firmware: QEMU and OVMF behind our BMC, our daemon, and the `baremetal` command.
//!
//! Each test starts itself anew in namespaces of its own, one after another, since a firmware in
//! software takes a processor for itself. They need what `make test` installs and builds.

mod architectures;
mod check;
mod crashes;
mod daemons;
mod faults;
mod hardware;
mod instances;
mod leases;
mod main_job;
mod matrix;
mod neighbours;
mod providers;
mod proxy;
mod story;
