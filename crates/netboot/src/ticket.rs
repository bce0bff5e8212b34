//! Permission to fetch: a path with a ticket, checked against the node with this ticket.

use std::borrow::Cow;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use provision::artifact::Artifact;
use provision::boot::bootable;
use provision::text::printable;
use provision::virtual_media::attempt_with_live_cd;
use provision::{Attempt, Node};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::scripts::SIGNED_GRUB_CONFIG_PATH;

/// The parts of `/boot/{ticket}/{file}`, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPath<'a> {
    /// The ticket, a secret that proves that the machine got this URL.
    pub ticket: Cow<'a, str>,
    /// The file.
    pub file: Cow<'a, str>,
}

/// The parts of a path under `/boot` for the trace, whether the path is answered or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedPath<'a> {
    /// The part after `/boot`, which may be a ticket.
    pub ticket: Cow<'a, str>,
    /// The parts after it, printable and without tickets.
    pub file: String,
}

/// The reason for refusing a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TicketRefusal {
    /// A path that tries to leave its folder, or whose encoding is not valid.
    #[error(
        "a path with a backslash, the folders . and .., or an invalid encoding is not answered"
    )]
    Disguised,
    /// A path of another form.
    #[error("there is nothing here but /boot/TICKET/FILE")]
    Elsewhere,
    /// No node has this ticket.
    #[error("this ticket is unknown: it was never given out, or a newer one took its place")]
    UnknownTicket,
    /// The boot that the ticket was for is over: it has ended, or a newer one took its place.
    #[error("this ticket is used up: the boot that it was for is over")]
    Over,
    /// No file of that name.
    #[error("there is no file of this name to boot")]
    NoSuchFile,
}

impl TicketRefusal {
    /// The answer's status. Never a redirect, which firmware does not follow, and never 401, for which EDK2 prompts
    /// at the console for a password.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Disguised | Self::Elsewhere | Self::UnknownTicket | Self::NoSuchFile => {
                StatusCode::NOT_FOUND
            }
            Self::Over => StatusCode::FORBIDDEN,
        }
    }
}

/// Splits a request's path, and decodes each part once (RFC 3986 §2.1).
///
/// Empty parts are ignored: shim requests `//grubx64.efi` in its own folder.
///
/// # Errors
/// [`TicketRefusal::Disguised`] and [`TicketRefusal::Elsewhere`].
pub fn boot_path(path: &str) -> Result<BootPath<'_>, TicketRefusal> {
    let parts = parts(path).map(decoded).collect::<Result<Vec<_>, _>>()?;
    match <[_; 3]>::try_from(parts) {
        Ok([folder, ticket, file]) if folder == "boot" => Ok(BootPath { ticket, file }),
        Ok(_) | Err(_) => Err(TicketRefusal::Elsewhere),
    }
}

/// The parts of a path for the trace; `None` outside of `/boot`. A part that is a ticket is shown as `…`.
pub fn traced_path(path: &str, is_ticket: impl Fn(&str) -> bool) -> Option<TracedPath<'_>> {
    /// Further parts are left out.
    const MOST_PARTS: usize = 8;
    let mut parts = parts(path).map(|part| decoded(part).unwrap_or(Cow::Borrowed(part)));
    let ticket = parts.next().filter(|folder| folder == "boot").and_then(|_| parts.next())?;
    let shown = |part: Cow<'_, str>| match is_ticket(&part) {
        true => "…".to_owned(),
        false => printable(&part).into_owned(),
    };
    let file = parts.take(MOST_PARTS).map(shown).collect::<Vec<_>>().join("/");
    let file = if file.is_empty() { "/".to_owned() } else { file };
    Some(TracedPath { ticket, file })
}

/// Whether the path is [`SIGNED_GRUB_CONFIG_PATH`]; empty parts are ignored, and the others decoded.
#[must_use]
pub fn is_signed_grub_config(path: &str) -> bool {
    let asked = parts(path).map(decoded);
    asked.eq(parts(SIGNED_GRUB_CONFIG_PATH).map(|part| Ok(Cow::Borrowed(part))))
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

fn decoded(part: &str) -> Result<Cow<'_, str>, TicketRefusal> {
    let is_escape = |after: &str| {
        after.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !part.split('%').skip(1).all(is_escape) {
        return Err(TicketRefusal::Disguised);
    }
    let decoded = percent_decode_str(part).decode_utf8().map_err(|_| TicketRefusal::Disguised)?;
    if decoded.contains(['/', '\\', '\0']) || matches!(&*decoded, "." | "..") {
        return Err(TicketRefusal::Disguised);
    }
    Ok(decoded)
}

/// The artifact to serve, if the ticket is valid; `node` is the result of looking the ticket up.
///
/// # Errors
/// [`TicketRefusal`].
pub fn admit<'n>(
    node: Option<&'n Node>,
    path: &BootPath<'_>,
) -> Result<(&'n Attempt, Artifact), TicketRefusal> {
    let node = node.ok_or(TicketRefusal::UnknownTicket)?;
    let attempt =
        bootable(node).or_else(|| attempt_with_live_cd(node)).ok_or(TicketRefusal::Over)?;
    // The index has already matched the text. This comparison protects against a future index that matches otherwise.
    if !bool::from(attempt.ticket.0.as_bytes().ct_eq(path.ticket.as_bytes())) {
        return Err(TicketRefusal::UnknownTicket);
    }
    let artifact = Artifact::of_file_name(&path.file).ok_or(TicketRefusal::NoSuchFile)?;
    Ok((attempt, artifact))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use provision::BootInterface;
    use provision::test_nodes::{TICKET, booting_node};

    use super::*;

    #[test]
    fn a_doubled_slash_is_one() {
        let path = boot_path("/boot/T//bootx64.efi").unwrap();
        assert_eq!(path, of("T", "bootx64.efi"));
    }

    #[test]
    fn a_part_is_decoded_once() {
        for (path, file) in [
            ("/boot/T/boot%2Eiso", "boot.iso"),
            ("/%62oot/%54/%6bernel", "kernel"),
            ("/boot/T/%252e", "%2e"),
        ] {
            assert_eq!(boot_path(path), Ok(of("T", file)), "{path}");
        }
    }

    #[test]
    fn a_path_that_climbs_or_whose_encoding_is_not_valid_is_a_plain_404() {
        for path in [
            "/boot/T/../kernel",
            "/boot/T/%2e%2e/kernel",
            "/boot/T/.%2E",
            "/boot/./T/kernel",
            "/boot\\T",
            "/boot/T/a%2fkernel",
            "/boot/T/a%5ckernel",
            "/boot/T/kernel%00",
            "/boot/T/%",
            "/boot/T/kernel%2",
            "/boot/T/%zzkernel",
            "/boot/T/%ff",
        ] {
            assert_eq!(boot_path(path), Err(TicketRefusal::Disguised), "{path}");
        }
        assert_eq!(TicketRefusal::Disguised.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn the_trace_shows_a_path_without_tickets_also_if_it_is_refused() {
        let traced = |path| {
            let traced = traced_path(path, |part| part == "T");
            traced.map(|TracedPath { ticket, file }| (ticket.into_owned(), file))
        };
        for (path, ticket, file) in [
            ("/boot/T/boot%2Eiso", "T", "boot.iso"),
            ("/boot/%54", "T", "/"),
            ("//boot//T/a/b", "T", "a/b"),
            ("/boot/T/%2e%2e/kernel", "T", "%2e%2e/kernel"),
            ("/boot/./T/kernel", ".", "…/kernel"),
            ("/boot/T/%1bkernel", "T", "\\u{1b}kernel"),
        ] {
            assert_eq!(traced(path), Some((ticket.to_owned(), file.to_owned())), "{path}");
        }
        for path in ["/", "/boot", "/v1/boot/T", "/grub/grub.cfg"] {
            assert_eq!(traced(path), None, "{path}");
        }
    }

    #[test]
    fn the_configuration_of_a_signed_grub_has_one_path() {
        assert!(
            is_signed_grub_config("/grub/grub.cfg") && is_signed_grub_config("//grub//grub.cfg")
        );
        assert!(is_signed_grub_config("/grub/%67rub.cfg"));
        for path in ["/grub", "/grub/grub.cfg-01", "/x/grub/grub.cfg", "/grub/../grub/grub.cfg"] {
            assert!(!is_signed_grub_config(path), "{path}");
        }
    }

    #[test]
    fn a_path_of_another_form_is_refused() {
        for path in ["/", "/boot", "/boot/T", "/boot/T/a/b", "/v1/nodes/x"] {
            assert_eq!(boot_path(path), Err(TicketRefusal::Elsewhere), "{path}");
        }
    }

    #[test]
    fn a_ticket_opens_the_files_of_its_attempt() {
        let node = booting_node();
        let path = of(TICKET, "boot.iso");
        assert_eq!(admit(Some(&node), &path).unwrap().1, Artifact::Iso);
    }

    #[test]
    fn the_ticket_of_an_earlier_attempt_opens_nothing() {
        let node = booting_node();
        let path = of("earlierearlierearlier1", "boot.iso");
        assert_eq!(admit(Some(&node), &path), Err(TicketRefusal::UnknownTicket));
    }

    #[test]
    fn a_ticket_is_used_up_when_its_attempt_has_ended() {
        let mut node = booting_node();
        let attempt = node.attempt.as_mut().unwrap();
        attempt.ended_at = Some(attempt.started_at);
        let path = of(TICKET, "boot.iso");
        assert_eq!(admit(Some(&node), &path), Err(TicketRefusal::Over));
        assert_eq!(TicketRefusal::Over.status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn the_cd_of_an_operators_own_system_is_read_on_while_its_agent_works() {
        let mut node = booting_node();
        let attempt = node.attempt.as_mut().unwrap();
        attempt.agent = Some(provision::node::Agent {
            callback_url: "https://192.0.2.7:9999/".parse().unwrap(),
            version: "11.1".to_owned(),
            verify_ca: None,
            channel_key: None,
            last_heartbeat: attempt.started_at,
        });
        let path = of(TICKET, "boot.iso");
        node.driver_info.insert("deploy_iso".into(), "http://images.example/live.iso".into());

        assert_eq!(admit(Some(&node), &path), Err(TicketRefusal::Over));
        node.attempt.as_mut().unwrap().boot_interface = BootInterface::RedfishVirtualMedia;

        assert_eq!(admit(Some(&node), &path).unwrap().1, Artifact::Iso);
    }

    #[test]
    fn what_shim_looks_for_and_is_not_there_is_a_plain_404() {
        let node = booting_node();
        let path = of(TICKET, "revocations_sku.efi");
        let refusal = admit(Some(&node), &path).unwrap_err();
        assert_eq!(refusal.status(), StatusCode::NOT_FOUND);
    }

    fn of<'a>(ticket: &'a str, file: &'a str) -> BootPath<'a> {
        BootPath { ticket: ticket.into(), file: file.into() }
    }

    proptest! {
        #[test]
        fn any_path_is_taken_apart_or_refused(path in "\\PC{0,60}") {
            if let Ok(BootPath { ticket, file }) = boot_path(&path) {
                prop_assert!(!ticket.contains('/') && !file.contains('/') && file != "..");
                prop_assert!(traced_path(&path, |_| false).is_some_and(|traced| traced.ticket == ticket));
            }
        }
    }
}
