//! What was heard on one interface, and what came of it: counted, said, and recorded in the traces of
//! those it concerns.

use std::fmt::Display;

use dhcp::limits::{Millis, Rate, Said};
use provision::What;
use tracing::{debug, warn};

use super::Witness;
use super::heard::{Done, Story};
use super::repeats::{Exchange, Repeats};
use crate::metrics::DhcpMessage;
use crate::nodes::Found;

/// How often the log names one reason for not answering.
const SAY: Rate = Rate { per_sec: 1, burst: 5 };
/// Reasons that are nobody's fault.
const ORDINARY: [&str; 7] = [
    "stranger",
    "other_server",
    "nothing",
    "nothing_to_boot",
    "not_for_a_proxy",
    "not_for_us",
    // A machine that was on another network, or away for long.
    "nak",
];

#[derive(Debug)]
pub(super) struct Diary {
    interface: String,
    repeats: Repeats,
    said: Said,
}

impl Diary {
    pub(super) fn new(interface: &str) -> Self {
        let said = Said::new(SAY);
        Self { interface: interface.to_owned(), repeats: Repeats::default(), said }
    }

    /// Notes a message and what came of it. `unreadable` is why there is no story of it.
    pub(super) fn note(
        &mut self,
        counted: &DhcpMessage,
        story: Option<Story>,
        unreadable: Option<&str>,
        witness: &Witness,
        now: Millis,
    ) {
        witness.metrics.dhcp(counted);
        match &story {
            None => {
                let why = unreadable.unwrap_or("it cannot be read");
                self.say(counted, &"a packet", "not answered", why, now);
            }
            Some(Story { asked, done: Done::Silent(why), .. }) => {
                self.say(counted, asked, "not answered", why, now);
            }
            Some(Story { asked, done: Done::Refused(why), .. }) => {
                self.say(counted, asked, "refused", why, now);
            }
            Some(_) => {}
        }
        if let Some(story) = story {
            self.record(story, witness, now);
        }
    }

    fn say(
        &mut self,
        counted: &DhcpMessage,
        what: &dyn Display,
        done: &str,
        why: &str,
        now: Millis,
    ) {
        let on = &self.interface;
        if ORDINARY.contains(&counted.decision) {
            debug!("{what} on {on} is {done}: {why}");
        } else if let Some(more) = self.said.may_say(counted.decision, now) {
            let more = match more {
                0 => String::new(),
                more => format!(" (and {more} before it, for the same reason)"),
            };
            warn!("{what} on {on} is {done}: {why}{more}");
        }
    }

    /// In the trace of the boot that it is part of, if it is part of one.
    fn record(&mut self, story: Story, witness: &Witness, now: Millis) {
        let Some(answer) = story.answer() else { return };
        let asked = story.asked;
        debug!("{asked}: {answer}");
        let Some(Found { node, port }) = asked.found else { return };
        // What a running system says between two boots is no part of either.
        let Some(attempt) = node.live_attempt() else { return };
        let mac = asked.mac.unwrap_or(port.address);
        let exchange = Exchange { attempt: attempt.id, mac, message: asked.message };
        let Some(unlisted) = self.repeats.note(exchange, &answer, now / 1_000) else { return };
        let what = What::Dhcp {
            message: asked.message.to_owned(),
            mac,
            client: asked.client,
            architecture: asked.architecture,
            answer,
            unlisted,
        };
        witness.recorder.record(&node, what);
    }
}
