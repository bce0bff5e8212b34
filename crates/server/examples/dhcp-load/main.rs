//! A load generator for measurements of DHCP: UEFI HTTP boot clients behind a relay, which need so little processor
//! time that the server is the bottleneck. Answers are checked: an answer without a boot for a client does not count.
//!
//! ```text
//! dhcp-load rate SERVER RELAY FIRST_MAC CLIENTS RATE SECONDS [--expect-url]
//! dhcp-load storm SERVER RELAY FIRST_MAC CLIENTS [--expect-url]
//! ```
//!
//! SERVER and RELAY are addresses of one family; RELAY is an address of this host. The clients have FIRST_MAC and the
//! addresses after it. `--expect-url` requires a URL in each offer. Both modes print JSON with these fields: `wrong`,
//! the number of invalid answers, with the first reason in `why`; `lost_here`, the number of answers that this
//! program had no buffer for, which are not the server's fault.
//!
//! `rate` starts RATE four-way exchanges a second, each client in its turn, and prints the number of `started`,
//! `offered` and `completed` exchanges; `dropped`, the number of first and of second messages without an answer
//! within a second; the `latency` of all answers in ms; `behind`, the number of exchanges that were not completed at
//! the end of the SECONDS, since a server may queue what it cannot handle; and `kept_up`, whether the exchanges were
//! started in time.
//!
//! `storm` switches all clients on at once; a client repeats its message after 4 s without an answer. It prints the
//! number of clients that had to repeat (`again`), the number of `unserved` clients after half a minute, and the
//! seconds until the `slowest` first answer and until the last client was `done`.

mod clients;
mod link;
mod protocol;

use std::env;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::clients::Clients;
use crate::link::{BATCH, Link};
use crate::protocol::{Kind, four, six};

/// Time after which a machine repeats its message (EDK2 `Dhcp4Impl.c`, `Dhcp6Impl.h`).
const AGAIN: Duration = Duration::from_secs(4);
/// Longest duration of a storm.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time after which a message counts as dropped, as in perfdhcp.
const DROPPED: Duration = Duration::from_secs(1);
/// Least interval between batches of started exchanges, which saves wake-ups.
const TICK: Duration = Duration::from_micros(250);

fn main() -> Result<()> {
    let (flags, told): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|it| it.starts_with("--"));
    let at = |index: usize| told.get(index).map(String::as_str).context("too few arguments");
    let (server, relay): (IpAddr, IpAddr) = (at(1)?.parse()?, at(2)?.parse()?);
    let protocol = match relay {
        IpAddr::V4(relay) => four(relay),
        IpAddr::V6(relay) => six(&relay.octets()),
    };
    let mut link = Link::open((server, protocol.port).into(), (relay, protocol.port).into())?;
    let expect_url = flags.iter().any(|flag| flag == "--expect-url");
    let mut clients = Clients::new(protocol, at(3)?.parse()?, at(4)?.parse()?, expect_url);
    let mut report = match at(0)? {
        "rate" => rate(&mut link, &mut clients, at(5)?.parse()?, at(6)?.parse()?)?,
        "storm" => storm(&mut link, &mut clients)?,
        other => bail!("there is `rate` and `storm`, but no `{other}`"),
    };
    report["wrong"] = clients.wrong.into();
    report["why"] = clients.why.into();
    report["lost_here"] = link.lost()?.into();
    writeln!(io::stdout(), "{report}").context("cannot print")
}

fn rate(link: &mut Link, clients: &mut Clients, rate: u32, seconds: u32) -> Result<Value> {
    let total = rate.checked_mul(seconds).filter(|total| (1..1 << 24).contains(total));
    let total = total.context("more exchanges than there are transaction numbers")? as usize;
    let mut exchanges: Vec<(Awaits, Instant)> = Vec::with_capacity(total);
    let (mut offers, mut acks) = (Vec::with_capacity(total), Vec::with_capacity(total));
    let begun = Instant::now();
    let (mut last, mut started_within, mut in_time) = (begun, Duration::ZERO, 0);
    while exchanges.len() < total || acks.len() < total && last.elapsed() < DROPPED {
        let due = ((begun.elapsed().as_secs_f64() * f64::from(rate)) as usize + 1).min(total);
        for exchange in exchanges.len()..due.min(exchanges.len() + BATCH) {
            last = Instant::now();
            exchanges.push((Awaits::Offer, last));
            started_within = last - begun;
            clients.discover(exchange as u32, link.next_packet());
        }
        link.send()?;
        if exchanges.len() == total {
            link.wait(DROPPED)?;
        } else if exchanges.len() == due {
            let next = begun + Duration::from_secs_f64(due as f64 / f64::from(rate));
            link.wait(next.saturating_duration_since(Instant::now()).max(TICK))?;
        }
        let received = link.receive()?;
        let now = Instant::now();
        for index in 0..received {
            let Some(answer) = clients.hear(link.packet(index)) else { continue };
            let Some((awaits, asked)) = exchanges.get_mut(answer.exchange as usize) else {
                continue;
            };
            let delay = now - *asked;
            if delay > DROPPED || !clients.believe(*awaits, &answer) {
                continue;
            }
            if answer.kind == Kind::Offer {
                offers.push(delay);
                (*awaits, *asked, last) = (Awaits::Ack, now, now);
                clients.request(&answer, link.next_packet());
            } else {
                acks.push(delay);
                *awaits = Awaits::Nothing;
                in_time += usize::from(now - begun < Duration::from_secs(seconds.into()));
            }
        }
    }
    let (offered, completed) = (offers.len(), acks.len());
    Ok(json!({
        "started": total,
        "offered": offered,
        "completed": completed,
        "dropped": [total - offered, offered - completed],
        "latency": delays([offers, acks].concat()),
        "behind": total - in_time,
        "kept_up": started_within.as_secs_f64() < 1.03 * f64::from(seconds),
    }))
}

fn delays(mut all: Vec<Duration>) -> Value {
    all.sort_unstable();
    let below = |share: f64| {
        let index = (all.len() as f64 * share) as usize;
        all.get(index).or_else(|| all.last()).map(|delay| delay.as_secs_f64() * 1_000.0)
    };
    json!({ "p50": below(0.5), "p99": below(0.99), "p999": below(0.999) })
}

fn storm(link: &mut Link, clients: &mut Clients) -> Result<Value> {
    let count = clients.count as usize;
    let mut machines = vec![Machine::default(); count];
    let mut unsent: Vec<u32> = (0..clients.count).rev().collect();
    let (mut done, mut slowest) = (0, None);
    let begun = Instant::now();
    let (mut ended, mut look) = (begun, begun);
    while done < count && begun.elapsed() < PATIENCE {
        for _ in 0..BATCH {
            let Some(number) = unsent.pop() else { break };
            let (machine, now) = (&mut machines[number as usize], Instant::now());
            match machine.awaits {
                Awaits::Offer => clients.discover(number, link.next_packet()),
                Awaits::Ack => link.next_packet().extend(&machine.request),
                Awaits::Nothing => continue,
            }
            machine.again |= machine.first_asked.is_some();
            machine.first_asked.get_or_insert(now);
            machine.asked = Some(now);
        }
        link.send()?;
        if unsent.is_empty() {
            link.wait(Duration::from_millis(50))?;
        }
        let received = link.receive()?;
        let now = Instant::now();
        for index in 0..received {
            let Some(answer) = clients.hear(link.packet(index)) else { continue };
            let machine = &mut machines[answer.exchange as usize];
            let Some(first_asked) = machine.first_asked else { continue };
            if !clients.believe(machine.awaits, &answer) {
                continue;
            }
            if answer.kind == Kind::Offer {
                slowest = slowest.max(Some(now - first_asked));
                clients.request(&answer, &mut machine.request);
                link.next_packet().extend(&machine.request);
                (machine.awaits, machine.asked) = (Awaits::Ack, Some(now));
            } else {
                (machine.awaits, machine.asked, ended) = (Awaits::Nothing, None, now);
                done += 1;
            }
        }
        link.send()?;
        if unsent.is_empty() && now > look {
            look = now + Duration::from_millis(50);
            let is_due = |machine: &Machine| machine.asked.is_some_and(|at| now > at + AGAIN);
            unsent = (0..clients.count).filter(|&it| is_due(&machines[it as usize])).collect();
        }
    }
    Ok(json!({
        "again": machines.iter().filter(|machine| machine.again).count(),
        "unserved": count - done,
        "slowest": slowest.unwrap_or(PATIENCE).as_secs_f64(),
        "done": if done == count { ended - begun } else { begun.elapsed() }.as_secs_f64(),
    }))
}

#[derive(Clone, Debug, Default)]
struct Machine {
    awaits: Awaits,
    first_asked: Option<Instant>,
    asked: Option<Instant>,
    again: bool,
    /// Its second message, after an offer.
    request: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Awaits {
    #[default]
    Offer,
    Ack,
    Nothing,
}
