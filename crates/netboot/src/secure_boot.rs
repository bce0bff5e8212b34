//! Secure Boot: the boots that firmware refuses for certain.

use hardware::CpuArch;
use provision::BootInterface;
use provision::artifact::HttpLoader;

/// Why firmware with Secure Boot refuses the first loader of a boot, in words; `signs` says whether this service signs its
/// UKIs. `None` if the databases of the firmware decide.
#[must_use]
pub fn refused_by_secure_boot(
    interface: BootInterface,
    loader: HttpLoader,
    cpu_arch: CpuArch,
    signs: bool,
) -> Option<&'static str> {
    if interface.begins_with_shim(loader, cpu_arch) {
        return None;
    }
    match interface {
        BootInterface::HttpIpxe => Some(
            "iPXE is not signed: use the boot interface http with http_loader = \"uki\", or redfish-https",
        ),
        BootInterface::Http if loader == HttpLoader::Grub => {
            Some("the boot set's GRUB is not signed: set another http_loader in [boot]")
        }
        BootInterface::Http
        | BootInterface::RedfishHttps
        | BootInterface::RedfishVirtualMedia => (!signs).then_some(
            "images are not signed: set sign_key and sign_certificate in [boot], and enrol that certificate in db, or set \
             http_loader = \"shim-grub\" for the keys of the factory",
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
                    let refused = refused_by_secure_boot(interface, loader, CpuArch::X64, signs);
                    assert_eq!(refused.is_none(), signs && !is_chain, "{interface} {loader:?}");
                }
            }
        }
    }

    #[test]
    fn shim_needs_no_signature_of_ours_over_http_and_in_an_image() {
        use BootInterface::{Http, HttpIpxe, RedfishHttps, RedfishVirtualMedia};
        let refused = |interface, cpu_arch| {
            refused_by_secure_boot(interface, HttpLoader::ShimGrub, cpu_arch, false).is_some()
        };
        for interface in [Http, RedfishHttps, RedfishVirtualMedia] {
            assert!(!refused(interface, CpuArch::X64), "{interface}");
        }
        assert!(refused(HttpIpxe, CpuArch::X64));
        assert!(refused(RedfishHttps, CpuArch::Arm64), "its image has a UKI");
    }
}
