//! The texts that boot loaders run: iPXE's script and GRUB's configuration.
//!
//! Both name their files relative to where they were themselves fetched from, so that they work
//! through whatever address or proxy the machine reached us by.

use thiserror::Error;

/// A kernel command line that iPXE would take for something else.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("iPXE cannot pass {0:?} on to the kernel: it has a meaning of its own in its scripts")]
pub struct Meaningful(String);

/// iPXE's script for a kernel command line.
///
/// # Errors
/// [`Meaningful`]: iPXE knows no quotes, so some words cannot be said (`core/exec.c`).
pub fn ipxe(command_line: &str) -> Result<String, Meaningful> {
    let odd = |word: &&str| word.contains("${") || matches!(*word, "#" | ";" | "||" | "&&");
    if let Some(word) = command_line.split_whitespace().find(odd) {
        return Err(Meaningful(word.to_owned()));
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

/// GRUB's configuration for a kernel command line.
#[must_use]
pub fn grub(command_line: &str) -> String {
    let words: String =
        command_line.split_whitespace().map(|word| format!(" {}", quoted(word))).collect();
    format!(
        "linux \"$cmdpath/kernel\"{words}
initrd \"$cmdpath/initramfs\"
boot
echo The ramdisk could not be fetched or started; this machine restarts in 10 s.
sleep 10
reboot
"
    )
}

/// In single quotes nothing has a meaning for GRUB but a single quote.
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
        insta::assert_snapshot!(grub("console=ttyS0 a='$b;c'"));
    }

    #[test]
    fn words_that_ipxe_would_act_on_are_refused() {
        for word in ["${net0/mac}", "a${x}b", "||", "#"] {
            assert_eq!(ipxe(&format!("quiet {word}")), Err(Meaningful(word.into())));
        }
        assert!(ipxe("a=#b c=||d $e").is_ok());
    }
}
