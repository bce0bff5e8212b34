//! The advice after a loader's last fetch: which program of the boot chain did not start the next one.

use crate::artifact::{Artifact, HttpLoader};
use crate::boot::BootMethod;

const ANY_LOADER: &str = "the loader did not start or did not continue: Secure Boot may refuse it; \
                          look at the machine's console";
const NO_SHIM: &str = "the firmware did not start shim: with Secure Boot it needs one of Microsoft's certificates that \
                       signed this shim in db, and nothing of shim in dbx; or shim found itself revoked by its SBAT level, \
                       and switched the machine off; look at the machine's console";
const NO_FETCH: &str = "shim started, and fetched nothing more; look at the machine's console";
const NO_GRUB: &str = "shim refuses GRUB if it is not signed by the distribution of this shim, or revoked by its SBAT level \
                       (then shim waits at its console), and GRUB before 2.12 asks for nothing over HTTP: add newer ones by \
                       `ferroboot image loaders`";
const NO_WAY_BACK: &str = "GRUB did not return to the folder that it came from: it must be 2.12 or newer; look at the \
                           machine's console";
const ANY_IN_IMAGE: &str = "Secure Boot refused shim (db needs one of Microsoft's certificates that signed it, and dbx nothing of it), \
                            or GRUB, or the kernel (the distribution of this shim must have signed both); or the kernel \
                            did not start, or has no driver for this network card: look at the machine's console";
const NO_KERNEL: &str = "GRUB starts only a kernel that shim accepts: one signed by the distribution of this shim; look at \
                         the machine's console";

/// The advice for a boot whose last fetch is `path`; `shim_looked` says whether shim has looked for its optional files.
pub(super) fn after_fetch(loader: HttpLoader, path: &str, shim_looked: bool) -> &'static str {
    let with_grub = match loader {
        HttpLoader::Uki | HttpLoader::Grub => return ANY_LOADER,
        HttpLoader::ShimUki => false,
        HttpLoader::ShimGrub => true,
    };
    match (Artifact::of_file_name(path), path) {
        (Some(Artifact::BootLoader), _) if shim_looked => NO_FETCH,
        (Some(Artifact::BootLoader), _) => NO_SHIM,
        (Some(Artifact::ShimSecondStage), _) if with_grub => NO_GRUB,
        (Some(Artifact::Kernel), _) if with_grub => NO_KERNEL,
        (None, "grub/grub.cfg") => NO_WAY_BACK,
        (Some(_) | None, _) => ANY_LOADER,
    }
}

/// The advice for an ISO image that was fetched and does not run; `None` without GRUB in it.
pub(super) fn after_image(method: BootMethod) -> Option<&'static str> {
    let has_grub =
        method.interface.bmc_artifact().is_some() && method.loader == HttpLoader::ShimGrub;
    has_grub.then_some(ANY_IN_IMAGE)
}

/// Whether shim, and no other program, looks for this file in its folder (`httpboot.c`, `load_revocations_file`).
pub(super) fn is_of_shim(path: &str) -> bool {
    path.starts_with("revocations_") || path.starts_with("shim_certificate_")
}
