//! Scripts for boot loaders: iPXE's script and GRUB's configuration.
//!
//! Both refer to files relative to their own URL, so that they work through any address or proxy that the machine
//! uses.

use efi::COMMAND_LINE_ROOM;
use thiserror::Error;

/// Bytes that loaders add to a kernel's command line: iPXE the name of the initramfs, GRUB the kernel's path.
const ADDED: usize = 160;

/// The reason why a script cannot pass a kernel command line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScriptError {
    /// iPXE has no quoting, so some words cannot be passed (`core/exec.c`).
    #[error("iPXE cannot pass {0:?} on to the kernel: it has a meaning of its own in its scripts")]
    Meaningful(String),
    /// Linux would truncate it silently.
    #[error(
        "the kernel command line has {0} bytes; Linux takes at most {max}, less {ADDED} for what \
         its loader adds",
        max = COMMAND_LINE_ROOM - 1
    )]
    Long(usize),
}

/// iPXE's script for a kernel command line.
///
/// # Errors
/// [`ScriptError`]
pub fn ipxe(command_line: &str) -> Result<String, ScriptError> {
    fits(command_line)?;
    let odd = |word: &&str| word.contains("${") || matches!(*word, "#" | ";" | "||" | "&&");
    if let Some(word) = command_line.split_whitespace().find(odd) {
        return Err(ScriptError::Meaningful(word.to_owned()));
    }
    // The kernel finds its initramfs among iPXE's images by the name in `initrd=`.
    Ok(format!(
        "#!ipxe
kernel kernel initrd=initramfs {command_line} || goto failed
initrd initramfs || goto failed
boot || goto failed
:failed
echo The ramdisk could not be fetched or started; this machine restarts in 10 s.
sleep 10
reboot
"
    ))
}

/// The path at which Debian's signed GRUB, started by shim over HTTP, looks for its configuration: `grubnetx64.efi` is
/// built with the prefix `/grub`, so that it leaves the folder that it came from.
pub const SIGNED_GRUB_CONFIG_PATH: &str = "/grub/grub.cfg";

/// The configuration of Debian's signed GRUB, the same for all machines: it goes on to the one in the folder that GRUB
/// came from, whose name only the machine with the ticket knows. `$fw_path` is that folder, from GRUB 2.12 on;
/// `$cmdpath` is empty if shim started it.
pub const SIGNED_GRUB_CONFIG: &str = r#"set cmdpath="$fw_path"
export cmdpath
configfile "$cmdpath/grub.cfg"
echo "GRUB found no configuration at $cmdpath/grub.cfg; this machine restarts in 10 s."
sleep 10
reboot
"#;

/// GRUB's configuration for a kernel command line, in the folder that GRUB came from, with kernel and initramfs.
///
/// # Errors
/// [`ScriptError::Long`]
pub fn grub(command_line: &str) -> Result<String, ScriptError> {
    grub_in("$cmdpath", command_line)
}

/// The folder of an ISO image in which Debian's signed GRUB, started by shim from that image, looks for its
/// configuration: its prefix, on the device that it came from, which it reads as ISO 9660.
pub const SIGNED_GRUB_FOLDER: &str = "grub";

/// The same configuration in that folder, with kernel and initramfs beside it.
///
/// # Errors
/// [`ScriptError::Long`]
pub fn grub_in_image(command_line: &str) -> Result<String, ScriptError> {
    grub_in("$prefix", command_line)
}

/// The configuration for kernel and initramfs in `folder`.
fn grub_in(folder: &str, command_line: &str) -> Result<String, ScriptError> {
    fits(command_line)?;
    let words: String =
        command_line.split_whitespace().map(|word| format!(" {}", quoted(word))).collect();
    Ok(format!(
        "linux \"{folder}/kernel\"{words}
initrd \"{folder}/initramfs\"
boot
echo The ramdisk could not be loaded or started; this machine restarts in 10 s.
sleep 10
reboot
"
    ))
}

fn fits(command_line: &str) -> Result<(), ScriptError> {
    let len = command_line.len();
    if len + ADDED < COMMAND_LINE_ROOM { Ok(()) } else { Err(ScriptError::Long(len)) }
}

/// Quotes a word for GRUB: within single quotes, only a single quote is special.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipxe_fetches_beside_its_script() {
        insta::assert_snapshot!(ipxe("console=ttyS0 a=b").unwrap());
    }

    #[test]
    fn grub_fetches_from_the_folder_it_came_from() {
        insta::assert_snapshot!(grub("console=ttyS0 a='$b;c'").unwrap());
    }

    #[test]
    fn grub_in_an_image_loads_from_the_folder_of_its_configuration() {
        let [fetched, in_image] = [grub, grub_in_image].map(|script| script("a='$b;c'").unwrap());
        assert_eq!(in_image, fetched.replace("$cmdpath", "$prefix"));
    }

    #[test]
    fn words_that_ipxe_would_act_on_are_refused() {
        for word in ["${net0/mac}", "a${x}b", "||", "#"] {
            assert_eq!(ipxe(&format!("quiet {word}")), Err(ScriptError::Meaningful(word.into())));
        }
        assert!(ipxe("a=#b c=||d $e").is_ok());
    }
}
