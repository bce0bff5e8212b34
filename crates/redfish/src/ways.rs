//! The ways in which a BMC has its machine boot over HTTP: which one its platform has, and the conversation of each;
//! and the boot device, boot mode, Secure Boot and BIOS attributes that an operator sets.

mod bios;
mod bios_settings;
mod boot_option;
mod choose;
mod chosen;
mod device;
mod errors;
mod http_attributes;
mod media_drive;
mod mode;
mod over;
mod read_back;
mod reader;
mod secure_boot;
mod set;
mod still_shown;
mod undo;
mod virtual_media;
mod wanted;

pub use self::bios_settings::{BiosNotSet, BiosPlan, WantedBios};
pub use self::chosen::ChosenWay;
pub use self::device::{BootDevice, DeviceNotSet, ShownBootDevice};
pub use self::errors::{BootNotSet, CannotHttpBoot, NotKept};
pub use self::http_attributes::HttpSupport;
pub use self::mode::ModeEffect;
pub use self::read_back::BootReadBack;
pub use self::secure_boot::SecureBootNotSet;
pub use self::wanted::{BootNeed, HttpBootOverride, MediaUse, OverrideEnabled};

#[cfg(test)]
mod fault_matrix;
#[cfg(test)]
mod sushy_tools;
#[cfg(test)]
mod tests;
