//! Boot options of a card, known by its address in their device path (UEFI 2.10 §10.3.4: `MAC(…)/IPv4(…)/Uri()`).

use hardware::Mac;

use super::reader::BootOptionView;

/// How a boot option is chosen for the next boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OptionPick {
    /// The target `UefiBootNext`, with `BootNext`.
    BootNext,
    /// The target `UefiTarget`, with this `UefiTargetBootSourceOverride`.
    UefiTarget(String),
}

/// The cards that a machine may boot by.
#[derive(Clone, Copy, Debug)]
pub(super) struct BootCards<'m> {
    pub(super) macs: &'m [Mac],
    /// Whether PXE is answered.
    pub(super) allows_pxe: bool,
}

impl BootCards<'_> {
    /// How well a device path boots one of these cards, 0 being the best: over HTTP before PXE, by IPv4 before IPv6.
    /// `None` if not at all.
    pub(super) fn rank(self, device_path: &str) -> Option<u8> {
        let path = device_path.to_ascii_lowercase();
        let has = |mac: &Mac| path.contains(&format!("mac({}", mac.to_string().replace(':', "")));
        if !self.macs.iter().any(has) {
            return None;
        }
        let is_ipv6 = u8::from(path.contains("/ipv6("));
        match (path.contains("/uri("), path.contains("/ipv4(") || is_ipv6 == 1) {
            (true, _) => Some(is_ipv6),
            (false, true) if self.allows_pxe => Some(2 + is_ipv6),
            (false, _) => None,
        }
    }

    /// The best boot option of these cards.
    pub(super) fn best_option(self, options: &[BootOptionView]) -> Option<&BootOptionView> {
        let ranked =
            options.iter().filter_map(|option| Some((self.rank(&option.device_path)?, option)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, option)| option)
    }

    /// The best device path of these cards.
    pub(super) fn best_device_path<'p>(self, paths: &[&'p str]) -> Option<&'p str> {
        let ranked = paths.iter().filter_map(|path| Some((self.rank(path)?, *path)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, path)| path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_chosen_by_address_and_uri_and_ipv4_comes_first() {
        let macs = ["02:00:00:00:00:0a".parse().unwrap()];
        let cards = BootCards { macs: &macs, allows_pxe: false };
        let v4 = "PciRoot(0x2)/Pci(0x1,0x0)/MAC(02000000000A,0x1)/IPv4(0.0.0.0)/Uri()";
        let v6 = "PciRoot(0x2)/Pci(0x1,0x0)/MAC(02000000000A,0x1)/IPv6(0000)/Uri()";
        let pxe = "PciRoot(0x2)/Pci(0x1,0x0)/MAC(02000000000A,0x1)/IPv4(0.0.0.0)";
        let other = "PciRoot(0x2)/Pci(0x1,0x0)/MAC(02000000000B,0x1)/IPv4(0.0.0.0)/Uri()";

        assert_eq!(cards.best_device_path(&[other, pxe, v6, v4]), Some(v4));
        assert_eq!(cards.best_device_path(&[other, pxe, v6]), Some(v6));
        assert_eq!(cards.best_device_path(&[other, pxe]), None);
        let with_pxe = BootCards { allows_pxe: true, ..cards };
        assert_eq!(with_pxe.best_device_path(&[other, pxe]), Some(pxe));
    }
}
