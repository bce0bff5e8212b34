//! Log lines: one line per event, whatever its texts contain.
//!
//! Messages and fields may contain texts of other parties. Characters that could begin a line, move a cursor or
//! reorder text are escaped, and passwords in URLs are masked. The daemon's log uses the same code.

use std::fmt;

use ironic::text::{masked, printable, shortened};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;

/// Longest message or field, in characters.
const FIELD_LIMIT: usize = 8_000;

/// Fields in the default format (`message name=value`), with unprintable characters escaped.
pub fn printable_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let field = |writer: &mut tracing_subscriber::fmt::format::Writer<'_>,
                 field: &tracing::field::Field,
                 value: &dyn fmt::Debug| {
        let text = format!("{value:?}");
        let text = shortened(&text, FIELD_LIMIT);
        let text = masked(&text);
        match field.name() {
            "message" => write!(writer, "{}", printable(&text)),
            name => write!(writer, "{name}={}", printable(&text)),
        }
    };
    debug_fn(field).delimited(" ")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::{info, info_span};
    use tracing_subscriber::fmt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_without_escapes_whatever_is_said_in_it() {
        let written = Written::default();
        let into = written.clone();
        let subscriber = fmt()
            .with_writer(move || into.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .fmt_fields(printable_fields())
            .finish();
        let evil = "x\n2026-01-01 INFO forged\r\x1b[2J\u{9b}2J\u{202e}";

        tracing::subscriber::with_default(subscriber, || {
            let _span = info_span!("work", name = %evil, text = evil).entered();
            info!(url = "http://me:geheim@h/", "asking http://me:geheim@h/");
            info!(error = %evil, quoted = ?evil, text = evil, "told {evil}");
        });

        let log = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.matches('\n').count(), 2, "{log}");
        assert!(!log.contains("geheim"), "{log}");
        assert!(
            log.lines().flat_map(str::chars).all(|it| !ironic::text::is_unprintable(it)),
            "{log:?}"
        );
        assert!(
            log.contains(r"told x\n2026-01-01 INFO forged\r\u{1b}[2J\u{9b}2J\u{202e} error="),
            "{log}"
        );
    }
}
