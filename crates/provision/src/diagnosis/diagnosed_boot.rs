//! The boot that a diagnosis is about, in the words of its hints.

use crate::boot::BootMethod;
use crate::boot_interface::BootInterface;
use crate::procedure::Boots;

/// The boot that a diagnosis is about.
#[derive(Clone, Copy)]
pub(super) struct DiagnosedBoot {
    /// Its method.
    pub(super) method: BootMethod,
    /// Its course.
    pub(super) course: BootCourse,
}

/// The course of a boot, which decides how an operator begins it again.
#[derive(Clone, Copy)]
pub(super) enum BootCourse {
    /// Its procedure is under way.
    UnderWay,
    /// Its procedure has failed.
    Failed,
    /// The machine of an active node began the boot by itself.
    ByItself,
}

impl DiagnosedBoot {
    /// The name of its procedure in a sentence: `clean`.
    pub(super) fn noun(self) -> &'static str {
        self.method.procedure.row().noun
    }

    /// The operator's way to begin the boot again after a change: `abort the clean, …, and start it again`.
    pub(super) fn again_after(self, change: &str) -> String {
        let noun = self.noun();
        match self.course {
            BootCourse::UnderWay => format!("abort the {noun}, {change}, and start it again"),
            BootCourse::Failed => format!("{change}, and start the {noun} again"),
            BootCourse::ByItself => format!("{change}, and restart the machine"),
        }
    }

    /// The hint for an agent that called and is silent.
    pub(super) fn hanging_ramdisk(self) -> String {
        let noun = self.noun();
        let again = match self.course {
            BootCourse::UnderWay => format!("abort the {noun} and start it again"),
            BootCourse::Failed | BootCourse::ByItself => format!("start the {noun} again"),
        };
        format!("look at the machine's console; if it hangs, {again}")
    }

    /// The hint for a machine that requests a URL of an older boot.
    pub(super) fn older_url(self) -> String {
        format!("the URL is that of an older boot: {}", self.again_with_a_new_url())
    }

    /// The hint for a machine that requests a URL that is not known. Tickets of much older boots are not known either.
    pub(super) fn unknown_url(self) -> String {
        format!(
            "this is another URL than the one that was given: check url under [boot] in the settings of this host, and \
             any proxy before it; if it is that of a much older boot: {}",
            self.again_with_a_new_url()
        )
    }

    fn again_with_a_new_url(self) -> String {
        let noun = self.noun();
        match self.course {
            BootCourse::UnderWay => format!("abort the {noun}, and start it again"),
            BootCourse::Failed => format!("start the {noun} again"),
            BootCourse::ByItself => "restart the machine, or rebuild its instance".to_owned(),
        }
    }

    /// The hint for an image that this host could not send.
    pub(super) fn missing_image(self) -> String {
        let fields = match (self.method.boots(), self.method.interface) {
            (Boots::Instance, _) => "boot_iso, or kernel and ramdisk, in instance_info",
            (
                Boots::Ramdisk | Boots::Nothing,
                BootInterface::RedfishHttps | BootInterface::RedfishVirtualMedia,
            ) => "deploy_iso, or deploy_kernel and deploy_ramdisk, in driver_info",
            (Boots::Ramdisk | Boots::Nothing, BootInterface::Http | BootInterface::HttpIpxe) => {
                "deploy_kernel and deploy_ramdisk in driver_info"
            }
        };
        format!(
            "check {fields}, and the boot set of this host (ramdisk under [boot] in its settings)"
        )
    }
}
