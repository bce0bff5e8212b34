//! Boots on real UEFI firmware: QEMU and OVMF behind the BMC emulator, the daemon, and the `baremetal` command.
//!
//! Each test starts itself again in separate namespaces, two tests at a time, since emulated firmware occupies a
//! processor. The tests need the packages and files that `make test` installs and builds.

mod architectures;
mod boot_chains;
mod check;
mod crashes;
mod daemons;
mod faults;
mod hardware;
mod https;
mod https_faults;
mod instances;
mod leases;
mod main_job;
mod matrix;
mod nat;
mod neighbours;
mod platforms;
mod providers;
mod proxy;
mod relay;
mod revocations;
mod secure_boot;
mod site_certificate;
mod story;
mod sushy_tools;
mod upstream;
