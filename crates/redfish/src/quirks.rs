//! What is special about vendors: one predicate per bug, named for it.

use crate::system::System;

/// AMI, ASRock Rack and others answer 400 to a boot override without `BootSourceOverrideMode`, and
/// Dell's 13th generation too; no BMC is known to refuse it. So it is always sent when setting, and
/// left out only when clearing, where Supermicro insists on it as well.
#[must_use]
pub fn wants_mode_when_clearing(system: &System) -> bool {
    let maker = system.manufacturer.as_deref().unwrap_or_default().to_lowercase();
    ["american megatrends", "ami", "asrockrack", "supermicro"]
        .iter()
        .any(|picky| maker.starts_with(picky))
}
