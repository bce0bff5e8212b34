//! The advice after a loader's last fetch: which program of the boot chain did not start the next one.

use super::firmware::ShownSecureBoot;
use crate::artifact::{Artifact, HttpLoader};
use crate::boot::BootMethod;

const ANY_LOADER: &str = "the loader did not start or did not continue: Secure Boot may refuse it; \
                          look at the machine's console";
const NO_SHIM: &str = "the firmware did not start shim: with Secure Boot it needs one of Microsoft's certificates that \
                       signed this shim in db, and nothing of shim in dbx; or shim found itself revoked by its SBAT level, \
                       and switched the machine off; look at the machine's console";
const FORBIDDEN_SHIM: &str = "the firmware refuses a shim if dbx has the certificate of one of its signatures, also if db has that \
                              of another: add a shim without that signature by `ferroboot image loaders`, or remove the \
                              certificate from dbx in the firmware's set-up";
const NO_FETCH: &str = "shim started, and fetched nothing more; look at the machine's console";
const NO_GRUB: &str = "shim refuses GRUB if it is not signed by the distribution of this shim, or revoked by its SBAT level \
                       (then shim waits at its console); GRUB before 2.12 asks for nothing over HTTP: add newer ones by \
                       `ferroboot image loaders`; and no GRUB up to 2.14 asks for anything over IPv6: use IPv4, or \
                       http_loader = \"shim-uki\"";
const SHIM_AGAIN: &str = "shim was fetched again after GRUB: the machine was restarted, or shim returned to the firmware, as it does if \
                          MokPolicy requires NX and GRUB is not for NX (add a newer one by `ferroboot image loaders`); after \
                          a restart, look at the machine's console, where shim waits if it refuses GRUB";
const NO_WAY_BACK: &str = "GRUB did not return to the folder that it came from: it must be 2.12 or newer; look at the \
                           machine's console";
const ANY_IN_IMAGE: &str = "Secure Boot refused shim (db needs one of Microsoft's certificates that signed it, and dbx nothing of it), \
                            or GRUB, or the kernel (the distribution of this shim must have signed both); or the kernel \
                            did not start, or has no driver for this network card: look at the machine's console";
const NO_KERNEL: &str = "GRUB starts only a kernel that shim accepts: one signed by the distribution of this shim; look at \
                         the machine's console";

/// What shim was seen to do since the power-on.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ShimSigns {
    #[default]
    Nothing,
    /// It has looked for its optional files, and so has started.
    Looked,
    /// It has fetched its second stage.
    Fetched,
    /// It was fetched again after its second stage: the machine was restarted, or shim has returned to the firmware.
    FetchedAgain,
}

impl ShimSigns {
    /// Takes a file that was looked for and is not there.
    pub(super) fn take_missing(&mut self, path: &str) {
        if *self == Self::Nothing && is_of_shim(path) {
            *self = Self::Looked;
        }
    }

    /// Takes a fetch.
    pub(super) fn take_fetch(&mut self, artifact: Option<Artifact>) {
        *self = match (*self, artifact) {
            (Self::Nothing | Self::Looked, Some(Artifact::ShimSecondStage)) => Self::Fetched,
            (Self::Fetched, Some(Artifact::BootLoader)) => Self::FetchedAgain,
            (signs, _) => signs,
        };
    }

    /// The advice for a boot whose last fetch is `path`.
    pub(super) fn advice(
        self,
        loader: HttpLoader,
        path: &str,
        secure_boot: ShownSecureBoot,
    ) -> &'static str {
        let with_grub = match loader {
            HttpLoader::Uki | HttpLoader::Grub => return ANY_LOADER,
            HttpLoader::ShimUki => false,
            HttpLoader::ShimGrub => true,
        };
        match (Artifact::of_file_name(path), path) {
            (Some(Artifact::BootLoader), _) if self != Self::Nothing => NO_FETCH,
            (Some(Artifact::BootLoader), _) if secure_boot.forbids_shim() => FORBIDDEN_SHIM,
            (Some(Artifact::BootLoader), _) => NO_SHIM,
            (Some(Artifact::ShimSecondStage), _) if with_grub && self == Self::FetchedAgain => {
                SHIM_AGAIN
            }
            (Some(Artifact::ShimSecondStage), _) if with_grub => NO_GRUB,
            (Some(Artifact::Kernel), _) if with_grub => NO_KERNEL,
            (None, "grub/grub.cfg") => NO_WAY_BACK,
            (Some(_) | None, _) => ANY_LOADER,
        }
    }
}

/// The advice for an ISO image that was fetched and does not run; `None` if it has no GRUB, or Secure Boot is off.
pub(super) fn after_image(
    method: BootMethod,
    secure_boot: ShownSecureBoot,
) -> Option<&'static str> {
    let has_grub =
        method.interface.bmc_artifact().is_some() && method.loader == HttpLoader::ShimGrub;
    let advice = match secure_boot {
        ShownSecureBoot::Off => return None,
        ShownSecureBoot::On(_) if secure_boot.forbids_shim() => FORBIDDEN_SHIM,
        ShownSecureBoot::On(_) | ShownSecureBoot::Unknown => ANY_IN_IMAGE,
    };
    has_grub.then_some(advice)
}

/// Whether shim, and no other program, looks for this file in its folder (`httpboot.c`, `load_revocations_file`).
fn is_of_shim(path: &str) -> bool {
    path.starts_with("revocations_") || path.starts_with("shim_certificate_")
}
