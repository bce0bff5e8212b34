//! Secure Boot: the boots that firmware refuses for certain.

use hardware::CpuArch;
use provision::BootInterface;
use provision::artifact::HttpLoader;

/// The signature of this service's UKIs, as the firmware of a machine takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UkiSignature {
    /// They are not signed.
    Absent,
    /// The signer's certificate is not in `dbx`, as far as that was read.
    Present,
    /// The signer's certificate is in `dbx`.
    Forbidden,
}

impl UkiSignature {
    /// Why firmware refuses a UKI for certain.
    fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Absent => Some(
                "images are not signed: set sign_key and sign_certificate in [boot], and enrol that certificate in db, or set \
                 http_loader = \"shim-grub\" for the keys of the factory",
            ),
            Self::Present => None,
            Self::Forbidden => Some(
                "dbx forbids the certificate that signs images: sign with another key (sign_key in [boot]), or remove it \
                 from dbx in the firmware's set-up",
            ),
        }
    }
}

/// Why firmware with Secure Boot refuses a boot, in words: the first loader, or a UKI that shim shall start. `None` if `db`
/// decides.
#[must_use]
pub fn refused_by_secure_boot(
    interface: BootInterface,
    loader: HttpLoader,
    cpu_arch: CpuArch,
    signature: UkiSignature,
) -> Option<&'static str> {
    // Their distribution has signed all of this chain.
    if loader == HttpLoader::ShimGrub && interface.begins_with_shim(loader, cpu_arch) {
        return None;
    }
    match interface {
        BootInterface::HttpIpxe => Some(
            "iPXE is not signed: use the boot interface http with http_loader = \"uki\", or redfish-https",
        ),
        BootInterface::Http if loader == HttpLoader::Grub => {
            Some("the boot set's GRUB is not signed: set another http_loader in [boot]")
        }
        BootInterface::Http | BootInterface::RedfishHttps | BootInterface::RedfishVirtualMedia => {
            signature.refusal()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uki_whose_signature_is_not_forbidden_is_a_matter_of_db() {
        use BootInterface::{Http, HttpIpxe, RedfishHttps, RedfishVirtualMedia};
        use UkiSignature::{Absent, Forbidden, Present};
        for interface in [Http, HttpIpxe, RedfishHttps, RedfishVirtualMedia] {
            for loader in [HttpLoader::Uki, HttpLoader::ShimUki, HttpLoader::Grub] {
                for signature in [Absent, Present, Forbidden] {
                    let is_chain =
                        interface == HttpIpxe || (interface == Http && loader == HttpLoader::Grub);
                    let refused =
                        refused_by_secure_boot(interface, loader, CpuArch::X64, signature);
                    let may_start = signature == Present && !is_chain;
                    assert_eq!(
                        refused.is_none(),
                        may_start,
                        "{interface} {loader:?} {signature:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn shim_and_grub_need_no_signature_of_ours_over_http_and_in_an_image() {
        use BootInterface::{Http, HttpIpxe, RedfishHttps, RedfishVirtualMedia};
        let refused = |interface, cpu_arch| {
            let signature = UkiSignature::Absent;
            refused_by_secure_boot(interface, HttpLoader::ShimGrub, cpu_arch, signature).is_some()
        };
        for interface in [Http, RedfishHttps, RedfishVirtualMedia] {
            assert!(!refused(interface, CpuArch::X64), "{interface}");
        }
        assert!(refused(HttpIpxe, CpuArch::X64));
        assert!(refused(RedfishHttps, CpuArch::Arm64), "its image has a UKI");
    }
}
