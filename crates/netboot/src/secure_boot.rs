//! Secure Boot: the boots that firmware refuses for certain.

use provision::BootInterface;
use provision::artifact::HttpLoader;

/// Why firmware with Secure Boot refuses the first loader of a boot, in words; `signs` says whether this service signs its
/// UKIs. `None` if the databases of the firmware decide.
#[must_use]
pub fn refused_by_secure_boot(
    interface: BootInterface,
    loader: HttpLoader,
    signs: bool,
) -> Option<&'static str> {
    match interface {
        BootInterface::HttpIpxe => Some(
            "iPXE is not signed: use the boot interface http with http_loader = \"uki\", or redfish-https",
        ),
        BootInterface::Http if loader == HttpLoader::Grub => {
            Some("the boot set's GRUB is not signed: set another http_loader in [boot]")
        }
        BootInterface::Http if loader.begins_with_shim() => None,
        BootInterface::Http
        | BootInterface::RedfishHttps
        | BootInterface::RedfishVirtualMedia => (!signs).then_some(
            "images are not signed: set sign_key and sign_certificate in [boot], and enrol that certificate in db",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_uki_alone_is_the_databases_matter() {
        use BootInterface::{Http, HttpIpxe, RedfishHttps, RedfishVirtualMedia};
        for interface in [Http, HttpIpxe, RedfishHttps, RedfishVirtualMedia] {
            for loader in [HttpLoader::Uki, HttpLoader::Grub] {
                for signs in [true, false] {
                    let is_chain =
                        interface == HttpIpxe || (interface == Http && loader == HttpLoader::Grub);
                    let refused = refused_by_secure_boot(interface, loader, signs);
                    assert_eq!(refused.is_none(), signs && !is_chain, "{interface} {loader:?}");
                }
            }
        }
    }
}
