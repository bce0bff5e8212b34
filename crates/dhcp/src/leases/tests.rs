//! Tests of the table, each for both families.

use std::net::{Ipv4Addr, Ipv6Addr};

use hardware::Mac;
use proptest::prelude::*;

use super::*;
use crate::journal::{TimeMark, read};

/// Clients and addresses by number.
pub(crate) trait TestFamily: AddressFamily {
    const BINDING: Self::Binding;

    fn client(last: u8) -> Self::Client;
    fn at(last: u8) -> Self;
}

impl TestFamily for Ipv4Addr {
    const BINDING: () = ();

    fn client(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    fn at(last: u8) -> Self {
        Self::new(10, 0, 0, last)
    }
}

impl TestFamily for Ipv6Addr {
    const BINDING: u64 = 7;

    fn client(last: u8) -> [u8; 16] {
        [last; 16]
    }

    fn at(last: u8) -> Self {
        Self::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into())
    }
}

/// Makes a test of each function for each family.
macro_rules! for_both_families {
    ($($name:ident,)*) => {
        mod ipv4 {
            $(#[test]
            fn $name() {
                super::$name::<std::net::Ipv4Addr>();
            })*
        }

        mod ipv6 {
            $(#[test]
            fn $name() {
                super::$name::<std::net::Ipv6Addr>();
            })*
        }
    };
}

for_both_families! {
    a_client_that_comes_back_gets_the_address_it_had,
    a_clock_that_is_set_between_two_runs_neither_ends_a_lease_nor_brings_one_back,
    who_gives_back_what_it_was_only_offered_leaves_nothing_in_the_journal,
    an_exhausted_pool_offers_nothing_until_a_lease_ends,
    an_address_that_is_in_use_is_not_offered_again_for_ten_minutes,
    an_address_is_declined_right_after_it_was_told_or_not_at_all,
    a_machine_that_has_its_lease_extended_did_not_decline_it_whatever_is_said_in_its_name,
    what_a_known_machine_declined_is_its_own_again_later_or_another_machines_if_it_took_another,
    one_client_cannot_have_more_than_three_addresses_left_alone,
    a_client_that_takes_back_what_it_declined_again_and_again_keeps_few_addresses_from_others,
    nobody_binds_an_address_that_was_not_offered_to_him,
    what_was_never_offered_is_bound_for_whoever_has_nothing_if_nobody_else_may_have_it,
    a_reserved_address_is_its_clients_whether_in_the_pool_or_not_and_nobody_elses,
    an_address_that_is_kept_back_is_given_to_nobody_whoever_had_it,
    a_client_takes_its_reserved_address_without_an_offer_after_all_was_lost,
    a_reservation_that_came_later_moves_its_client_and_frees_the_address_it_had_for_other_nodes,
    an_address_that_its_client_may_still_use_is_nobodys_while_it_is_offered_another,
    a_reserved_address_that_is_in_use_is_replaced_by_another_until_it_is_free,
    a_guest_never_takes_the_address_that_a_known_node_had,
    guests_leave_the_last_addresses_to_known_nodes,
    what_a_guest_was_offered_and_does_not_take_is_free_after_ten_seconds,
    every_known_machine_gets_an_address_however_many_strangers_came_before_it,
    a_restart_remembers_who_was_a_guest,
    a_declined_address_that_ends_late_takes_nothing_from_its_client_when_all_is_read_back,
}

fn pool<A: TestFamily>() -> LeasePool<A> {
    LeasePool { first: A::at(1), last: A::at(4) }
}

pub(crate) const GUEST: LeaseClaim = LeaseClaim::Guest { keep: 0 };

pub(crate) fn plain<A: TestFamily>() -> LeaseTable<A> {
    LeaseTable::<A>::new(pool(), [])
}

pub(crate) fn bound<A: TestFamily>(
    leases: &mut LeaseTable<A>,
    last: u8,
    claim: LeaseClaim,
    now: Seconds,
) -> A {
    let address = leases.offer(A::client(last), None, claim, now).unwrap();
    leases.bind(A::client(last), address, A::BINDING, 100, claim, now).unwrap();
    address
}

pub(crate) fn offered<A: TestFamily>(
    leases: &mut LeaseTable<A>,
    last: u8,
    now: Seconds,
) -> Option<A> {
    leases.offer(A::client(last), None, LeaseClaim::Known, now)
}

fn a_client_that_comes_back_gets_the_address_it_had<A: TestFamily>() {
    let mut leases = plain::<A>();
    let first = bound(&mut leases, 1, LeaseClaim::Known, 0);
    bound(&mut leases, 2, LeaseClaim::Known, 0);

    assert_eq!(offered(&mut leases, 1, 1_000), Some(first));
}

fn a_clock_that_is_set_between_two_runs_neither_ends_a_lease_nor_brings_one_back<A: TestFamily>() {
    let (mut before, begun) = (plain::<A>(), 1_000_000);
    let alive = bound(&mut before, 1, GUEST, begun);
    let ended = bound(&mut before, 2, GUEST, begun - 100);
    let records = [TimeMark::Started(begun - 100), TimeMark::Running(begun + 40)];
    let records = records.map(LeaseRecord::mark).into_iter().chain(before.records());

    for now in [begun - 86_400, begun + 40, begun + 86_400] {
        let mut leases = LeaseTable::<A>::replay(pool(), [], records.clone(), now);

        let wanted = |leases: &mut LeaseTable<A>, address, now| {
            leases.offer(A::client(3), Some(address), LeaseClaim::Known, now) == Some(address)
        };
        assert!(!wanted(&mut leases.clone(), alive, now + 59), "60 of 100 seconds were left");
        assert!(wanted(&mut leases.clone(), alive, now + 60));
        assert!(wanted(&mut leases, ended, now), "{now}");
    }
}

fn who_gives_back_what_it_was_only_offered_leaves_nothing_in_the_journal<A: TestFamily>() {
    let mut leases = plain::<A>();
    let address = leases.offer(A::client(1), None, GUEST, 0).unwrap();

    assert_eq!(leases.release(A::client(1), address, A::BINDING, 1), None);
    assert_eq!(leases.offer(A::client(2), Some(address), GUEST, 1), Some(address));
}

fn an_exhausted_pool_offers_nothing_until_a_lease_ends<A: TestFamily>() {
    let mut leases = plain::<A>();
    for client in 1..=4 {
        bound(&mut leases, client, LeaseClaim::Known, 0);
    }

    assert_eq!(offered(&mut leases, 5, 99), None);
    assert!(offered(&mut leases, 5, 100).is_some());
}

fn an_address_that_is_in_use_is_not_offered_again_for_ten_minutes<A: TestFamily>() {
    let mut leases = plain::<A>();
    let declined = bound(&mut leases, 1, GUEST, 0);
    leases.decline(A::client(1), declined, 10).unwrap();

    let other = leases.offer(A::client(1), Some(declined), GUEST, 11);

    assert!(other.is_some_and(|other| other != declined));
    assert!(leases.offer(A::client(2), Some(declined), LeaseClaim::Known, 11) != Some(declined));
    assert_eq!(leases.offer(A::client(3), Some(declined), LeaseClaim::Known, 610), Some(declined));
}

fn an_address_is_declined_right_after_it_was_told_or_not_at_all<A: TestFamily>() {
    let mut leases = plain::<A>();
    let address = bound(&mut leases, 1, LeaseClaim::Known, 1_000);
    let mut again = LeaseTable::<A>::replay(pool(), [], leases.records(), 0);

    assert_eq!(leases.decline(A::client(1), address, 1_060), None, "a minute later");
    assert_eq!(leases.decline(A::client(1), address, 1_100), None, "it has ended");
    assert_eq!(offered(&mut leases, 1, 1_101), Some(address));
    assert!(leases.decline(A::client(1), address, 1_102).is_some(), "it was told it again");
    assert_eq!(again.decline(A::client(1), address, 1_001), None, "who knows when it was told");
}

fn a_machine_that_has_its_lease_extended_did_not_decline_it_whatever_is_said_in_its_name<
    A: TestFamily,
>() {
    for forged in 0..=2 {
        let mut leases = plain::<A>();
        let address = bound(&mut leases, 1, LeaseClaim::Known, 0);
        leases.decline(A::client(1), address, 1).unwrap();
        if forged > 0 {
            let other = offered(&mut leases, 1, 2).unwrap();
            assert_ne!(other, address);
            if forged > 1 {
                leases.bind(A::client(1), other, A::BINDING, 100, LeaseClaim::Known, 2).unwrap();
            }
        }
        for guest in 10..20 {
            leases.offer(A::client(guest), Some(address), GUEST, 3);
        }

        assert!(
            leases.bind(A::client(1), address, A::BINDING, 100, LeaseClaim::Known, 50).is_some()
        );
        assert_eq!(leases.of(&A::client(1)).map(|lease| lease.address), Some(address));
        is_sound(&leases).unwrap();
    }
}

fn what_a_known_machine_declined_is_its_own_again_later_or_another_machines_if_it_took_another<
    A: TestFamily,
>() {
    let declined = |holder| {
        let mut leases = plain::<A>();
        let address = bound(&mut leases, 1, holder, 0);
        leases.decline(A::client(1), address, 1).unwrap();
        (leases, address)
    };
    let (mut leases, address) = declined(LeaseClaim::Known);
    assert_eq!(
        leases.offer(A::client(9), Some(address), GUEST, 601).filter(|at| *at == address),
        None
    );
    assert_eq!(offered(&mut leases, 1, 602), Some(address));

    let (mut leases, address) = declined(LeaseClaim::Known);
    let other = offered(&mut leases, 1, 2).unwrap();
    leases.bind(A::client(1), other, A::BINDING, 10_000, LeaseClaim::Known, 2).unwrap();
    let others: Vec<_> =
        (9..12).map(|who| leases.offer(A::client(who), None, GUEST, 601)).collect();
    assert!(!others.contains(&Some(address)) && others.contains(&None));
    let others: Vec<_> = (2..5).map(|who| offered(&mut leases, who, 602)).collect();
    assert!(others.contains(&Some(address)));
    assert_eq!(offered(&mut leases, 1, 602), Some(other));

    let (mut leases, address) = declined(GUEST);
    assert_eq!(leases.offer(A::client(9), Some(address), GUEST, 601), Some(address));
}

fn one_client_cannot_have_more_than_three_addresses_left_alone<A: TestFamily>() {
    let mut leases = LeaseTable::new(LeasePool { first: A::at(1), last: A::at(200) }, []);
    for now in 0..100 {
        let address = bound(&mut leases, 1, GUEST, now);
        leases.decline(A::client(1), address, now).unwrap();
    }

    assert_eq!(
        leases.sets.len(LeasePlace::Declined),
        MOST_GIVEN_UP + 1,
        "and the one just declined"
    );
    offered(&mut leases, 2, 100);
    assert_eq!(leases.sets.len(LeasePlace::Declined), MOST_GIVEN_UP);
}

fn a_client_that_takes_back_what_it_declined_again_and_again_keeps_few_addresses_from_others<
    A: TestFamily,
>() {
    let mut leases = LeaseTable::<A>::new(LeasePool { first: A::at(1), last: A::at(200) }, []);
    let address = bound(&mut leases, 1, LeaseClaim::Known, 0);
    for now in 0..100 {
        leases.decline(A::client(1), address, now).unwrap();
        bound(&mut leases, 1, LeaseClaim::Known, now);
        leases.bind(A::client(1), address, A::BINDING, 100, LeaseClaim::Known, now).unwrap();
    }

    offered(&mut leases, 2, 100);
    assert!(leases.sets.taken <= MOST_GIVEN_UP + 3, "{} are taken", leases.sets.taken);
}

fn nobody_binds_an_address_that_was_not_offered_to_him<A: TestFamily>() {
    let mut leases = plain::<A>();
    let address = offered(&mut leases, 1, 0).unwrap();

    assert_eq!(leases.bind(A::client(2), address, A::BINDING, 100, LeaseClaim::Known, 0), None);
}

fn what_was_never_offered_is_bound_for_whoever_has_nothing_if_nobody_else_may_have_it<
    A: TestFamily,
>() {
    let mut leases = LeaseTable::<A>::new(pool(), [(A::client(9), A::at(4))]);
    let taken = bound(&mut leases, 1, LeaseClaim::Known, 0);
    let bind = |leases: &mut LeaseTable<A>, last, address, claim, now| {
        leases.bind_unoffered(A::client(last), address, A::BINDING, 100, claim, now).map(|_| ())
    };

    assert_eq!(bind(&mut leases, 2, taken, LeaseClaim::Known, 0), None, "another's");
    assert_eq!(bind(&mut leases, 2, A::at(4), LeaseClaim::Known, 0), None, "reserved");
    assert_eq!(bind(&mut leases, 2, A::at(77), LeaseClaim::Known, 0), None, "not of the pool");
    assert_eq!(bind(&mut leases, 2, A::at(2), LeaseClaim::Guest { keep: 3 }, 0), None, "kept");
    assert_eq!(bind(&mut leases, 2, A::at(2), LeaseClaim::Known, 0), Some(()));
    assert_eq!(bind(&mut leases, 2, A::at(3), LeaseClaim::Known, 0), None, "it has one");
    assert_eq!(bind(&mut leases, 9, A::at(3), LeaseClaim::Known, 0), None, "it has one reserved");
    assert_eq!(bind(&mut leases, 3, taken, LeaseClaim::Known, 500), None, "a known node's before");
}

fn a_reserved_address_is_its_clients_whether_in_the_pool_or_not_and_nobody_elses<A: TestFamily>() {
    let mut leases =
        LeaseTable::<A>::new(pool(), [(A::client(1), A::at(2)), (A::client(2), A::at(9))]);

    let guests: Vec<_> = (10..20)
        .map_while(|client| leases.offer(A::client(client), Some(A::at(2)), GUEST, 0))
        .collect();

    assert_eq!(guests, [A::at(1), A::at(3), A::at(4)]);
    assert_eq!(offered(&mut leases, 1, 0), Some(A::at(2)));
    assert_eq!(offered(&mut leases, 2, 0), Some(A::at(9)));
    assert_eq!(offered(&mut leases, 3, 11), Some(A::at(1)), "the pool is all there again");
    assert!(leases.offer(A::client(4), Some(A::at(9)), LeaseClaim::Known, 11) != Some(A::at(9)));
}

fn an_address_that_is_kept_back_is_given_to_nobody_whoever_had_it<A: TestFamily>() {
    let mut leases = LeaseTable::<A>::new(pool(), [(A::client(9), A::at(3))]);
    let had = bound(&mut leases, 1, LeaseClaim::Known, 0);
    leases.keep_back([had, had, A::at(3), A::at(77)]);

    let given: Vec<_> = (1..9).map_while(|c| offered(&mut leases, c, 0)).collect();

    assert_eq!(given, [A::at(2), A::at(4)]);
    assert_eq!(leases.bind(A::client(1), had, A::BINDING, 100, LeaseClaim::Known, 0), None);
    assert_eq!(leases.bind(A::client(9), A::at(3), A::BINDING, 100, LeaseClaim::Known, 0), None);
    assert_eq!(leases.size, 2);
    is_sound(&leases).unwrap();
}

fn a_client_takes_its_reserved_address_without_an_offer_after_all_was_lost<A: TestFamily>() {
    let mut leases = LeaseTable::<A>::new(pool(), [(A::client(1), A::at(9))]);

    assert!(leases.bind(A::client(1), A::at(9), A::BINDING, 100, LeaseClaim::Known, 0).is_some());
    assert_eq!(leases.bind(A::client(2), A::at(9), A::BINDING, 100, LeaseClaim::Known, 0), None);
}

fn a_reservation_that_came_later_moves_its_client_and_frees_the_address_it_had_for_other_nodes<
    A: TestFamily,
>() {
    let mut before = plain::<A>();
    let record = {
        let address = offered(&mut before, 1, 0).unwrap();
        before.bind(A::client(1), address, A::BINDING, 100, LeaseClaim::Known, 0).unwrap()
    };
    let mut leases = LeaseTable::<A>::replay(pool(), [(A::client(1), A::at(9))], [record], 0);

    assert_eq!(offered(&mut leases, 1, 10), Some(A::at(9)));
    let guests = (2..9).map_while(|client| leases.offer(A::client(client), None, GUEST, 100));
    assert_eq!(guests.count(), 3);
    assert!(offered(&mut leases, 9, 200).is_some());
}

fn an_address_that_its_client_may_still_use_is_nobodys_while_it_is_offered_another<
    A: TestFamily,
>() {
    let mut leases = LeaseTable::<A>::new(pool(), [(A::client(1), A::at(2))]);
    offered(&mut leases, 1, 0);
    leases.decline(A::client(1), A::at(2), 0).unwrap();
    let second = offered(&mut leases, 1, 0).unwrap();
    leases.bind(A::client(1), second, A::BINDING, 5_000, LeaseClaim::Known, 0).unwrap();

    assert_eq!(offered(&mut leases, 1, 1_000), Some(A::at(2)));
    let others: Vec<_> = (2..9).map_while(|client| offered(&mut leases, client, 1_000)).collect();

    assert_eq!(others, [A::at(3), A::at(4)]);
}

fn a_reserved_address_that_is_in_use_is_replaced_by_another_until_it_is_free<A: TestFamily>() {
    let mut leases = LeaseTable::<A>::new(pool(), [(A::client(1), A::at(2))]);
    offered(&mut leases, 1, 0);
    leases.decline(A::client(1), A::at(2), 0).unwrap();

    assert_eq!(offered(&mut leases, 1, 1), Some(A::at(1)));
    assert_eq!(offered(&mut leases, 1, 600), Some(A::at(2)));
}

fn a_guest_never_takes_the_address_that_a_known_node_had<A: TestFamily>() {
    let mut leases = plain::<A>();
    let known = bound(&mut leases, 1, LeaseClaim::Known, 0);

    let guests: Vec<_> = (2..9)
        .map_while(|client| leases.offer(A::client(client), Some(known), GUEST, 500))
        .collect();

    assert_eq!(guests.len(), 3);
    assert!(!guests.contains(&known));
    assert_eq!(offered(&mut leases, 1, 501), Some(known));
}

fn guests_leave_the_last_addresses_to_known_nodes<A: TestFamily>() {
    let (mut leases, guest) = (plain::<A>(), LeaseClaim::Guest { keep: 2 });

    let served = (10..100)
        .filter(|client| leases.offer(A::client(*client), None, guest, 0).is_some())
        .count();

    assert_eq!(served, 2);
    assert!(offered(&mut leases, 1, 0).is_some() && offered(&mut leases, 2, 0).is_some());
}

fn what_a_guest_was_offered_and_does_not_take_is_free_after_ten_seconds<A: TestFamily>() {
    let mut leases = plain::<A>();
    for client in 10..14 {
        leases.offer(A::client(client), None, GUEST, 0).unwrap();
    }

    assert_eq!(leases.offer(A::client(20), None, GUEST, 9), None);
    assert!(leases.offer(A::client(20), None, GUEST, 10).is_some());
}

fn every_known_machine_gets_an_address_however_many_strangers_came_before_it<A: TestFamily>() {
    for known in 0..=100_u8 {
        let mut leases = LeaseTable::new(LeasePool { first: A::at(0), last: A::at(99) }, []);
        let guest = LeaseClaim::guest(100, known.into());
        let flood = |leases: &mut LeaseTable<A>| {
            for last in 100..=255 {
                let stranger = A::client(last);
                if let Some(address) = leases.offer(stranger, None, guest, 0) {
                    leases.bind(stranger, address, A::BINDING, 10_000, guest, 0).unwrap();
                }
            }
        };
        for number in 0..known {
            flood(&mut leases);
            bound(&mut leases, number, LeaseClaim::Known, 0);
        }
        flood(&mut leases);

        let strangers = leases.by_address.len() - usize::from(known);
        let kept = usize::from(known).max(25);
        assert_eq!(strangers, 100 - kept, "and what is left over is for strangers");
    }
}

fn a_restart_remembers_who_was_a_guest<A: TestFamily>() {
    let mut leases = plain::<A>();
    let mut records = Vec::new();
    for (client, claim) in [(1, LeaseClaim::Known), (2, GUEST)] {
        let address = leases.offer(A::client(client), None, claim, 0).unwrap();
        records.extend(leases.bind(A::client(client), address, A::BINDING, 100, claim, 0));
    }
    let mut again = LeaseTable::<A>::replay(pool(), [], records, 0);

    let free: Vec<_> = (3..9).map_while(|c| again.offer(A::client(c), None, GUEST, 500)).collect();

    assert_eq!(free, [A::at(3), A::at(4), A::at(2)]);
}

fn a_declined_address_that_ends_late_takes_nothing_from_its_client_when_all_is_read_back<
    A: TestFamily,
>() {
    let mut leases = plain::<A>();
    let first = bound(&mut leases, 1, LeaseClaim::Known, 0);
    leases.decline(A::client(1), first, 0).unwrap();
    let second = bound(&mut leases, 1, LeaseClaim::Known, 0);

    let again = LeaseTable::<A>::replay(pool(), [], leases.records(), 0);

    assert_eq!(again.of(&A::client(1)).map(|lease| lease.address), Some(second));
}

#[derive(Clone, Debug)]
enum Deed {
    Offer(u8, Option<u8>),
    Bind(u8),
    BindUnoffered(u8, u8),
    Release(u8),
    Decline(u8),
    Wait(u8),
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let who = 0..12_u8;
    prop::collection::vec(
        prop_oneof![
            (who.clone(), prop::option::of(0..16_u8)).prop_map(|(w, a)| Deed::Offer(w, a)),
            who.clone().prop_map(Deed::Bind),
            (who.clone(), 0..16_u8).prop_map(|(w, a)| Deed::BindUnoffered(w, a)),
            who.clone().prop_map(Deed::Release),
            who.prop_map(Deed::Decline),
            any::<u8>().prop_map(Deed::Wait),
            Just(Deed::Restart),
        ],
        0..300,
    )
}

/// Every fourth client is a guest; 0 and 1 have reservations.
fn claim(who: u8) -> LeaseClaim {
    if who.is_multiple_of(4) && who > 0 { LeaseClaim::Guest { keep: 1 } } else { LeaseClaim::Known }
}

fn is_sound<A: TestFamily>(leases: &LeaseTable<A>) -> Result<(), TestCaseError> {
    for (client, address) in &leases.by_client {
        prop_assert_eq!(leases.by_address[address].lease.client, *client);
    }
    let places = [
        LeasePlace::Running,
        LeasePlace::OfferedToGuest,
        LeasePlace::Declined,
        LeasePlace::EndedOfGuest,
        LeasePlace::EndedOfKnown,
    ];
    let at = |place| leases.by_address.values().filter(move |entry| entry.place == place);
    let in_sets: usize = places.iter().map(|place| leases.sets.len(*place)).sum();
    prop_assert_eq!(in_sets + at(LeasePlace::Reserved).count(), leases.by_address.len());
    let taken = leases.by_address.values().filter(|entry| entry.place.is_taken()).count();
    prop_assert_eq!(taken, leases.sets.taken);
    let running = at(LeasePlace::Running);
    let of_known = running.filter(|entry| entry.lease.holder == LeaseHolder::Known).count();
    prop_assert_eq!(of_known, leases.sets.taken_by_known);
    let given_up = at(LeasePlace::Declined).count() + at(LeasePlace::Replaced).count();
    prop_assert_eq!(given_up, leases.sets.all_given_up());
    for (client, address) in &leases.reservations {
        let holder = leases.by_address.get(address).map(|entry| entry.lease.client);
        prop_assert!(holder.is_none_or(|holder| holder == *client));
    }
    Ok(())
}

fn no_address_is_two_clients_and_the_journal_repeats_the_table<A: TestFamily>(
    deeds: Vec<Deed>,
) -> Result<(), TestCaseError> {
    let reservations = [(A::client(0), A::at(3)), (A::client(1), A::at(9))];
    let mut leases = LeaseTable::<A>::new(pool(), reservations);
    let (mut journal, mut now) = (Vec::new(), 1_000);
    for deed in deeds {
        let held = |who| leases.of(&A::client(who)).map(|lease| lease.address);
        match deed {
            Deed::Offer(who, wanted) => {
                leases.offer(A::client(who), wanted.map(A::at), claim(who), now);
            }
            Deed::Bind(who) => {
                journal.extend(held(who).and_then(|own| {
                    leases.bind(A::client(who), own, A::BINDING, 50, claim(who), now)
                }))
            }
            Deed::BindUnoffered(who, address) => {
                let (client, address) = (A::client(who), A::at(address));
                let claim = claim(who);
                journal.extend(leases.bind_unoffered(client, address, A::BINDING, 50, claim, now));
            }
            Deed::Release(who) => journal.extend(
                held(who).and_then(|own| leases.release(A::client(who), own, A::BINDING, now)),
            ),
            Deed::Decline(who) => {
                let records = held(who).and_then(|own| leases.decline(A::client(who), own, now));
                journal.extend(records.into_iter().flatten());
            }
            Deed::Wait(secs) => now += Seconds::from(secs),
            Deed::Restart => {
                let mut bytes = Vec::new();
                journal.iter().for_each(|record: &LeaseRecord<A>| record.encode(&mut bytes));
                prop_assert_eq!(read(&bytes), journal, "all of it can be read");
                journal = leases.records();
                leases = LeaseTable::replay(pool(), reservations, journal.iter().copied(), now);
            }
        }
        is_sound(&leases)?;
    }
    let replayed = LeaseTable::<A>::replay(pool(), reservations, journal, now);
    for LeaseEntry { lease, .. } in leases.by_address.values() {
        if lease.bindings.until().is_some() {
            let of = replayed.by_address.get(&lease.address).map(|entry| entry.lease.client);
            prop_assert_eq!(of, Some(lease.client));
        }
    }
    // After all leases have ended, every address of the pool but the reserved one is available again.
    now += 10_000;
    let free = (100..200).map_while(|client| offered(&mut leases, client, now)).count();
    prop_assert_eq!(free, leases.pool().len() - 1);
    Ok(())
}

proptest! {
    #[test]
    fn no_address_is_ever_two_clients_none_is_lost_and_the_journal_repeats_the_table_over_ipv4(
        deeds in deeds(),
    ) {
        no_address_is_two_clients_and_the_journal_repeats_the_table::<Ipv4Addr>(deeds)?;
    }

    #[test]
    fn no_address_is_ever_two_clients_none_is_lost_and_the_journal_repeats_the_table_over_ipv6(
        deeds in deeds(),
    ) {
        no_address_is_two_clients_and_the_journal_repeats_the_table::<Ipv6Addr>(deeds)?;
    }
}
