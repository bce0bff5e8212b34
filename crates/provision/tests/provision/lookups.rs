//! Lookups for the token of an operator's own image: who gets it, and who does not.

use std::net::{IpAddr, Ipv4Addr};

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::sample::select;
use provision::addresses::token_for;
use provision::event::AgentLookup;
use provision::{Event, Outcome, Refused};
use serde_json::json;
use uuid::Uuid;

use crate::situations::{booting, boots, cleaning, running};
use crate::world::{MACHINE, World, heartbeat, lookup};

const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 66));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

/// A machine that is on and boots an image of its operator's.
fn own_iso() -> World {
    boots(with_own_iso(booting()))
}

fn with_own_iso(mut world: World) -> World {
    world.node.driver_info.insert("deploy_iso".to_owned(), json!("https://images/own.iso"));
    world
}

/// The token in the answer to a lookup, if the lookup is accepted.
fn token(world: &mut World, event: &Event) -> Result<Option<String>, Refused> {
    let Event::AgentLooksUp(AgentLookup { from, at, .. }) = event else { panic!("no lookup") };
    let Outcome { node, .. } = world.tries(event)?;
    Ok(token_for(&node, *from, *at).map(|token| token.0.clone()))
}

fn asks(world: &mut World, from: IpAddr) -> Result<Option<String>, Refused> {
    let event = lookup(from, world.now);
    token(world, &event)
}

#[test]
fn the_machine_that_fetched_its_image_is_told_the_token_once() {
    let mut world = own_iso();
    let expected = world.attempt().agent_token.0.clone();

    assert_eq!(asks(&mut world, MACHINE), Ok(Some(expected)));
    assert_eq!(asks(&mut world, MACHINE), Err(Refused::TokenJustGiven { from: MACHINE }));
}

#[test]
fn an_answer_that_was_lost_is_given_again_to_the_same_address_until_the_first_heartbeat() {
    let mut world = own_iso();
    let first = asks(&mut world, MACHINE).unwrap();

    world.passes(4);
    assert_eq!(asks(&mut world, MACHINE).unwrap(), first);
    world.happens(world.heartbeat());
    world.passes(4);

    assert_eq!(asks(&mut world, MACHINE), Ok(None), "an agent that has called has its token");
}

#[test]
fn a_stranger_is_told_nothing_and_changes_nothing() {
    let mut world = own_iso();
    let before = world.node.clone();

    let refused = asks(&mut world, STRANGER).unwrap_err();

    assert_eq!(
        refused.to_string(),
        "the image was fetched by 192.0.2.7, and the lookup came from 192.0.2.66: an address that is not known to be \
         the machine's gets no token"
    );
    assert_eq!(world.node, before);
    assert!(asks(&mut world, MACHINE).unwrap().is_some(), "and takes nothing from the machine");
}

#[test]
fn nobody_is_told_the_token_before_the_machine_is_on() {
    let mut world = with_own_iso(booting());
    let early = world.lookup();

    assert_eq!(world.tries(&early), Err(Refused::LookupTooEarly(world.node.uuid)));
    world.passes(1);
    let mut world = boots(world);

    // It waited for the node meanwhile.
    assert_eq!(world.tries(&early), Err(Refused::LookupTooEarly(world.node.uuid)));
    assert!(asks(&mut world, MACHINE).unwrap().is_some());
}

#[test]
fn of_two_addresses_of_the_machine_one_is_told_the_token() {
    let mut world = own_iso();
    world.node.driver_info.insert("agent_networks".to_owned(), json!(["198.51.100.0/24"]));

    assert!(asks(&mut world, ELSEWHERE).unwrap().is_some());
    world.passes(60);

    let taken = Refused::TokenTaken { holder: Some(ELSEWHERE), from: MACHINE };
    assert_eq!(asks(&mut world, MACHINE), Err(taken));
}

#[test]
fn a_lease_or_a_network_of_the_operators_shows_whose_an_address_is() {
    let v6: IpAddr = "2001:db8::7".parse().unwrap();
    let mut leased = own_iso();
    let attempt = leased.attempt().id;
    leased.happens(Event::AddressesSeen { attempt, fetched: vec![], leased: vec![v6] });
    assert!(asks(&mut leased, v6).unwrap().is_some());

    let mut named = own_iso();
    named.node.driver_info.insert("agent_networks".to_owned(), json!("2001:db8::/64, 10.0.0.0/8"));
    assert!(asks(&mut named, v6).unwrap().is_some());

    let mut mapped = own_iso();
    assert!(asks(&mut mapped, "::ffff:192.0.2.7".parse().unwrap()).unwrap().is_some());
}

#[test]
fn networks_that_cannot_be_read_let_nobody_in() {
    let mut world = own_iso();
    world.node.driver_info.insert("agent_networks".to_owned(), json!(["0.0.0.0/0", "nonsense"]));

    assert!(matches!(asks(&mut world, ELSEWHERE), Err(Refused::ForeignLookup(_))));
}

#[test]
fn addresses_of_an_older_attempt_are_not_taken() {
    let mut world = own_iso();
    let seen =
        Event::AddressesSeen { attempt: Uuid::max(), fetched: vec![STRANGER], leased: vec![] };

    assert_eq!(world.tries(&seen), Err(Refused::Stale));
}

#[test]
fn a_composed_image_carries_its_token_and_nobody_is_told_it() {
    let mut world = boots(booting());

    assert_eq!(asks(&mut world, STRANGER), Ok(None));
    assert!(
        !world.attempt().token_given,
        "a stranger does not keep a missed boot from being repeated"
    );
    assert_eq!(asks(&mut world, MACHINE), Ok(None));
    assert!(world.attempt().token_given);
}

#[test]
fn a_stranger_does_not_keep_a_missed_boot_from_being_repeated() {
    for mut world in [own_iso(), boots(booting())] {
        let serving_since = world.now + SignedDuration::from_secs(1);
        world.passes(600);
        let _ = asks(&mut world, STRANGER);

        assert!(world.is_missed(serving_since));
        world.happens(Event::BootMissed { attempt: world.attempt().id });
    }
}

#[test]
fn a_machine_that_is_started_anew_has_a_new_token_and_gets_it() {
    let mut world = with_own_iso(running(&["update_firmware", "erase_devices"]));
    let (attempt, before) = (world.attempt().id, world.attempt().agent_token.0.clone());
    let late = world.heartbeat();
    world.happens(Event::StepSucceeded { attempt, command_id: "command-0".into() });

    assert!(matches!(asks(&mut world, MACHINE), Err(Refused::LookupTooEarly(_))));
    let mut world = boots(world);

    assert_eq!(world.tries(&late), Err(Refused::WrongToken(world.node.uuid)));
    let given = asks(&mut world, MACHINE).unwrap().unwrap();
    assert_ne!(given, before);
    world.happens(heartbeat(&given, "https://192.0.2.7:9999", world.now));
}

#[test]
fn a_heartbeat_that_came_before_the_machine_was_on_is_refused_though_it_waited() {
    let mut world = cleaning(&["erase_devices_metadata"]);
    let early = world.heartbeat();
    world.passes(1);
    let mut world = boots(world);

    assert_eq!(world.tries(&early), Err(Refused::HeartbeatTooEarly(world.node.uuid)));
    assert!(provision::boot::bootable(&world.node).is_some(), "its images can still be fetched");
    world.happens(world.heartbeat());
}

/// The caller, the time since the previous lookup, and whether an agent has called by then.
fn asked() -> impl Strategy<Value = (IpAddr, i64)> {
    (select(vec![MACHINE, STRANGER, ELSEWHERE, IpAddr::from([0; 16])]), 0..6_i64)
}

proptest! {
    #[test]
    fn the_token_has_one_holder_whoever_asks_and_however_often(
        lookups in prop::collection::vec(asked(), 1..40), calls_after in 0..40_usize,
    ) {
        let mut world = own_iso();
        world.node.driver_info.insert("agent_networks".to_owned(), json!("198.51.100.0/24"));
        let mut holder = None;
        for (number, (from, wait)) in lookups.into_iter().enumerate() {
            world.passes(wait);
            if number == calls_after {
                world.happens(world.heartbeat());
            }
            if let Ok(Some(_)) = asks(&mut world, from) {
                prop_assert!(number < calls_after);
                prop_assert_eq!(*holder.get_or_insert(from), from);
                prop_assert!([MACHINE, ELSEWHERE].contains(&from));
            }
        }
    }
}
