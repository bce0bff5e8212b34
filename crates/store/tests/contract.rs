//! The contract of the store, tested on SQLite always and on PostgreSQL if `FERROBOOT_TEST_POSTGRES` has the URL of
//! one (`scripts/with-postgres` starts one).
#![expect(clippy::unwrap_used, reason = "clippy sees tests only where they are marked as such")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hardware::{BootChange, BootWayKind, Mac};
use jiff::{SignedDuration, Timestamp};
use provision::event::BootPhase;
use provision::limits::MAX_PORTS_OF_NODE;
use provision::node::{Attempt, FreshAttempt, Secret};
use provision::state::PowerTarget;
use provision::trace::{AgentCall, AgentOutcome};
use provision::{
    BootEvent, BootEventKind, Node, Port, PowerState, Procedure, ProvisionState, Work,
};
use serde_json::json;
use sqlx::{AnyPool, AssertSqlSafe};
use store::{
    AgentCallProgress, Change, ChangeError, ChangeNumber, ChangePage, ChangedPort, CreateNodeError,
    DaemonIdentity, DaemonPools, DaemonReservation, ListError, NodeChange, NodeFilter, NodeKey,
    NodeSort, PoolRange, PortChangeError, PortError, PortFilter, PortKey, RegistrationError,
    Retention, SavedPorts, SortDirection, Store, StoreError, StoredAgentAnswer, StoredAgentCall,
    StoredAuthority, WorkError,
};
use tempfile::TempDir;
use uuid::Uuid;

/// Each function below is one promise, and becomes one test for each database.
macro_rules! promises {
    ($($name:ident,)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(super::Database::sqlite()).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                if let Some(database) = super::Database::postgres().await {
                    super::$name(database).await;
                }
            })*
        }
    };
}

promises![
    daemons_that_start_at_once_have_one_authority_whose_key_is_encrypted,
    a_call_to_an_agent_is_fetched_until_it_is_answered_and_by_its_attempt_alone,
    a_call_to_an_agent_replaces_the_one_before_and_goes_with_its_node,
    a_node_is_found_by_uuid_and_by_name,
    every_field_of_a_node_comes_back,
    a_second_node_of_the_same_name_uuid_or_instance_is_refused,
    a_change_to_a_name_that_is_taken_is_refused_and_leaves_the_node_alone,
    any_number_of_nodes_may_have_no_name,
    each_filter_picks_its_nodes,
    pages_follow_each_other_without_gap_or_overlap_in_every_order,
    a_marker_that_is_not_there_is_said_so,
    a_refused_change_changes_nothing,
    changes_of_one_node_at_once_all_count,
    several_nodes_are_changed_together_and_each_that_cannot_be_stays_as_it_is,
    changes_of_several_nodes_at_once_all_count,
    a_deleted_node_takes_its_ports_work_and_trace_along,
    a_node_that_the_check_protects_is_not_deleted,
    a_port_is_found_by_uuid_and_by_address,
    the_ports_at_several_addresses_are_found_at_once,
    an_address_belongs_to_one_port,
    a_port_needs_a_node,
    a_port_can_change_its_address_and_its_node,
    changes_of_one_port_at_once_all_count,
    moves_and_changes_of_ports_at_once_leave_each_where_the_last_one_put_it,
    a_node_has_no_more_ports_than_it_may,
    ports_come_page_by_page,
    changes_are_read_in_order_with_ports_and_deletions,
    changes_come_page_by_page,
    a_change_that_commits_late_is_not_missed,
    a_follower_has_in_the_end_what_the_store_has,
    what_was_found_out_before_a_change_changes_nothing,
    deletions_that_are_forgotten_are_missed_by_nobody,
    a_follower_from_after_a_restored_backup_reads_everything_anew,
    nodes_of_the_version_before_are_followed,
    planned_work_is_claimed_once,
    claimers_at_once_never_get_the_same_work,
    work_that_waited_longest_comes_first,
    a_claimed_node_is_locked_for_everyone_else,
    a_finished_claim_frees_the_node_and_leaves_the_next_work,
    work_of_a_dead_daemon_is_claimed_again_with_its_progress,
    a_restarted_daemon_takes_over_its_own_work_at_once,
    a_daemon_that_starts_frees_nothing_of_a_twin_with_its_name,
    where_a_daemon_is_alone_it_frees_what_any_held,
    daemons_are_alive_until_they_end_or_fall_silent,
    of_two_processes_with_one_identity_the_older_is_told,
    a_pool_that_overlaps_one_of_a_living_daemon_is_refused_in_words,
    a_pool_is_free_again_when_its_daemon_has_ended_or_is_dead,
    a_daemon_that_comes_back_after_another_has_taken_its_pool_is_told,
    of_daemons_that_register_one_pool_at_once_one_has_it,
    a_daemon_knows_the_addresses_of_the_others_until_their_leases_have_ended,
    an_address_that_living_daemons_reserve_for_different_machines_is_named,
    a_daemon_of_the_version_before_has_no_known_pools,
    a_renewed_lease_holds,
    a_lost_claim_can_do_nothing,
    replaced_work_does_not_answer_to_the_old_claim,
    work_that_is_taken_over_is_lost_to_its_claimer_and_done_by_the_next,
    what_nobody_works_on_is_taken_over_as_any_change_is_made,
    a_node_whose_daemon_died_can_be_changed_once_the_lease_is_over,
    work_that_was_put_back_waits_and_keeps_its_progress,
    dropped_work_is_gone_and_the_node_is_free,
    a_change_without_work_leaves_what_is_planned,
    added_work_wakes_a_worker,
    a_clock_that_was_set_back_before_a_restart_delays_no_work,
    daemons_whose_clocks_differ_do_not_take_work_from_each_other,
    a_daemon_does_not_take_work_over_from_itself,
    a_trace_comes_back_in_order,
    events_of_an_attempt_are_given_to_another_in_their_order,
    a_change_appends_its_trace_to_the_attempt,
    what_happens_between_attempts_is_in_no_trace,
    a_large_batch_of_events_is_kept_whole,
    an_attempt_keeps_so_many_events_and_says_how_many_are_left_out,
    traces_of_several_attempts_are_told_apart,
    attempts_are_listed_newest_first,
    retention_keeps_the_newest_events_of_each_node,
    retention_forgets_by_age,
    what_boots_changed_outlives_the_trace_until_it_is_undone,
    of_changes_of_one_place_the_first_is_kept,
    changes_that_only_the_trace_of_the_version_before_has_are_kept,
    what_was_saved_is_there_after_a_restart,
    opening_twice_at_once_migrates_once,
    what_is_read_beside_a_daemon_is_what_it_wrote_last,
    a_database_of_another_version_is_said_to_be_one,
    secrets_are_in_clear_in_memory_and_encrypted_in_the_database,
    a_key_that_is_not_the_databases_is_refused_in_words,
    whoever_has_another_key_does_not_bring_the_tables_up_to_date,
    a_secret_that_was_moved_to_another_node_is_refused,
];

// Nodes.

async fn a_node_is_found_by_uuid_and_by_name(database: Database) {
    let store = database.open().await;
    let node = named("rack1-7");
    store.create_node(&node).await.unwrap();

    for key in [node.uuid.to_string(), "rack1-7".to_owned()] {
        let found = store.node(&key.as_str().into()).await.unwrap().unwrap();
        assert_eq!(found.node, node);
        assert_eq!(found.reservation, None);
    }
    assert_eq!(store.node(&"rack1-8".into()).await.unwrap(), None);
    assert_eq!(store.node(&Uuid::new_v4().into()).await.unwrap(), None);
}

async fn every_field_of_a_node_comes_back(database: Database) {
    let store = database.open().await;
    let mut node = cleaning("full");
    node.power_state = Some(PowerState::On);
    node.maintenance = true;
    node.maintenance_reason = Some("it's \"odd\"; 漢字 \u{1f980}".into());
    node.extra.insert("deep".into(), json!({"list": [1, 2.5, null, {"x": "\u{1}"}]}));
    node.updated_at = Some("2026-01-02T03:04:05.678901234Z".parse().unwrap());

    store.create_node(&node).await.unwrap();

    assert_eq!(read(&store, node.uuid).await, node);
}

async fn a_second_node_of_the_same_name_uuid_or_instance_is_refused(database: Database) {
    let store = database.open().await;
    let mut first = named("one");
    first.kept.insert("instance_uuid".into(), json!("instance-1"));
    store.create_node(&first).await.unwrap();

    let same_name = store.create_node(&named("one")).await.unwrap_err();
    assert!(matches!(same_name, CreateNodeError::DuplicateName(name) if name == "one"));

    let same_uuid = Node { name: None, kept: <_>::default(), ..first.clone() };
    let same_uuid = store.create_node(&same_uuid).await.unwrap_err();
    assert!(matches!(same_uuid, CreateNodeError::DuplicateUuid(uuid) if uuid == first.uuid));

    let mut same_instance = named("two");
    same_instance.kept.insert("instance_uuid".into(), json!("instance-1"));
    let same_instance = store.create_node(&same_instance).await.unwrap_err();
    assert!(matches!(same_instance, CreateNodeError::DuplicateInstance(it) if it == "instance-1"));
    assert_eq!(all(&store).await, [first]);
}

async fn a_change_to_a_name_that_is_taken_is_refused_and_leaves_the_node_alone(database: Database) {
    let store = database.open().await;
    let (one, two) = (named("one"), named("two"));
    store.create_node(&one).await.unwrap();
    store.create_node(&two).await.unwrap();

    let refused = store
        .change(two.uuid, None, now(), |node| {
            fine(Node { name: Some("one".into()), ..node.clone() })
        })
        .await
        .unwrap_err();

    assert!(matches!(refused, ChangeError::DuplicateName(name) if name == "one"));
    assert_eq!(read(&store, two.uuid).await, two);
}

async fn any_number_of_nodes_may_have_no_name(database: Database) {
    let store = database.open().await;
    for _ in 0..3 {
        store.create_node(&Node { name: None, ..named("") }).await.unwrap();
    }
    assert_eq!(all(&store).await.len(), 3);
}

async fn each_filter_picks_its_nodes(database: Database) {
    let store = database.open().await;
    let plain = named("plain");
    let mut odd = cleaning("odd");
    odd.driver = "other".into();
    odd.maintenance = true;
    odd.fault = Some("clean failure".into());
    odd.kept = kept(&[
        ("instance_uuid", json!("i")),
        ("resource_class", json!("c")),
        ("owner", json!("o")),
        ("lessee", json!("l")),
        ("conductor_group", json!("g")),
        ("shard", json!("s")),
        ("description", json!("The 100% Machine")),
        ("retired", json!(true)),
    ]);
    store.create_node(&plain).await.unwrap();
    store.create_node(&odd).await.unwrap();
    let all = NodeFilter::default;

    let picks_odd = [
        NodeFilter { provision_state: Some("clean wait".into()), ..all() },
        NodeFilter { driver: Some("other".into()), ..all() },
        NodeFilter { maintenance: Some(true), ..all() },
        NodeFilter { fault: Some("clean failure".into()), ..all() },
        NodeFilter { instance_uuid: Some("i".into()), ..all() },
        NodeFilter { associated: Some(true), ..all() },
        NodeFilter { resource_class: Some("c".into()), ..all() },
        NodeFilter { owner: Some("o".into()), ..all() },
        NodeFilter { lessee: Some("l".into()), ..all() },
        NodeFilter { conductor_group: Some("g".into()), ..all() },
        NodeFilter { shard: vec!["x".into(), "s".into()], ..all() },
        NodeFilter { sharded: Some(true), ..all() },
        NodeFilter { retired: Some(true), ..all() },
        NodeFilter { description_contains: Some("100% mach".into()), ..all() },
        NodeFilter { owner: Some("o".into()), maintenance: Some(true), ..all() },
    ];
    let picks_plain = [
        NodeFilter { provision_state: Some("enroll".into()), ..all() },
        NodeFilter { maintenance: Some(false), ..all() },
        NodeFilter { associated: Some(false), ..all() },
        NodeFilter { sharded: Some(false), ..all() },
        NodeFilter { retired: Some(false), ..all() },
    ];
    let picks_none = [
        NodeFilter { owner: Some("o".into()), maintenance: Some(false), ..all() },
        NodeFilter { description_contains: Some("1000".into()), ..all() },
        NodeFilter { description_contains: Some("_he".into()), ..all() },
        NodeFilter { owner: Some("' OR 1=1 --".into()), ..all() },
        NodeFilter { limit: Some(0), ..all() },
    ];
    for (filters, expected) in [
        (picks_odd.as_slice(), vec!["odd"]),
        (picks_plain.as_slice(), vec!["plain"]),
        (picks_none.as_slice(), vec![]),
    ] {
        for filter in filters {
            assert_eq!(names(&store, filter).await, expected, "{filter:?}");
        }
    }
}

async fn pages_follow_each_other_without_gap_or_overlap_in_every_order(database: Database) {
    let store = database.open().await;
    for i in 0..7 {
        let mut node = named(&format!("n{i}"));
        // Equal and missing values must neither skip nor repeat a node at the edge of a page.
        node.created_at = now() + SignedDuration::from_secs(i / 3);
        node.updated_at = (i % 2 == 0).then(|| now() + SignedDuration::from_secs(i));
        node.maintenance = i % 2 == 0;
        node.power_state = (i > 3).then_some(PowerState::On);
        if i % 3 == 0 {
            node.name = None;
            node.kept = kept(&[("owner", json!("o"))]);
        }
        store.create_node(&node).await.unwrap();
    }
    for sort_key in NodeSort::ALL {
        for sort_dir in [SortDirection::Ascending, SortDirection::Descending] {
            let whole = NodeFilter { sort_key, sort_dir, ..NodeFilter::default() };
            let whole_list = uuids(&store, &whole).await;
            let mut paged = Vec::new();
            loop {
                let marker = paged.last().copied();
                let page = NodeFilter { marker, limit: Some(2), ..whole.clone() };
                let page = uuids(&store, &page).await;
                if page.is_empty() {
                    break;
                }
                paged.extend(page);
            }
            assert_eq!(paged, whole_list, "{sort_key:?} {sort_dir:?}");
            assert_eq!(paged.iter().collect::<HashSet<_>>().len(), 7);
        }
    }
    let newest =
        NodeFilter { sort_dir: SortDirection::Descending, limit: Some(1), ..NodeFilter::default() };
    assert_eq!(store.nodes(&newest).await.unwrap()[0].node.created_at.as_second() % 60, 2);
}

async fn a_marker_that_is_not_there_is_said_so(database: Database) {
    let store = database.open().await;
    let marker = Uuid::new_v4();

    let nodes = NodeFilter { marker: Some(marker), ..NodeFilter::default() };
    let nodes = store.nodes(&nodes).await.unwrap_err();
    let ports = PortFilter { marker: Some(marker), ..PortFilter::default() };
    let ports = store.ports(&ports).await.unwrap_err();

    for refused in [nodes, ports] {
        assert!(matches!(refused, ListError::NoSuchMarker(it) if it == marker));
    }
}

async fn a_refused_change_changes_nothing(database: Database) {
    let store = database.open().await;
    let node = named("n");
    store.create_node(&node).await.unwrap();

    let refused =
        store.change(node.uuid, None, now(), |_| Err::<Change, _>("not today")).await.unwrap_err();

    assert!(matches!(refused, ChangeError::Refused("not today")));
    assert_eq!(read(&store, node.uuid).await, node);
    let nobody = Uuid::new_v4();
    let missing = store.change(nobody, None, now(), |node| fine(node.clone())).await.unwrap_err();
    assert!(matches!(missing, ChangeError::NoSuchNode(it) if it == nobody));
}

async fn changes_of_one_node_at_once_all_count(database: Database) {
    let daemons = [database.open().await, database.open().await];
    let node = named("n");
    daemons[0].create_node(&node).await.unwrap();

    let changes = (0..40).map(|i| {
        let (store, uuid) = (daemons[i % 2].clone(), node.uuid);
        tokio::spawn(async move {
            let count = |node: &Node| {
                let mut node = node.clone();
                let counted = node.extra.get("count").and_then(|it| it.as_i64()).unwrap_or(0);
                node.extra.insert("count".into(), json!(counted + 1));
                fine(node)
            };
            store.change(uuid, None, now(), count).await.unwrap();
        })
    });
    join(changes).await;

    assert_eq!(read(&daemons[0], node.uuid).await.extra["count"], 40);
}

async fn several_nodes_are_changed_together_and_each_that_cannot_be_stays_as_it_is(
    database: Database,
) {
    let store = database.open().await;
    let claimed = with_work(&store, "claimed").await;
    claim(&store, "host-a").await.unwrap();
    let (changed, refused, nobody) = (named("changed"), named("refused"), Uuid::new_v4());
    for node in [&changed, &refused] {
        store.create_node(node).await.unwrap();
    }
    let before = store.all_changes().await.unwrap().reaches;

    let nodes = [claimed.uuid, changed.uuid, nobody, refused.uuid];
    let results = store.change_all(&nodes, now(), |node| {
        let mut node = node.clone();
        node.extra.insert("changed".into(), json!(true));
        if node.name.as_deref() == Some("refused") { Err("not today") } else { Ok(node) }
    });
    let results = results.await.unwrap();

    let [locked, saved, missing, not_today] = &results[..] else { panic!("{results:?}") };
    assert!(matches!(locked, Err(ChangeError::Locked { by, .. }) if by == "host-a"));
    assert_eq!(saved.as_ref().unwrap().node, read(&store, changed.uuid).await);
    assert!(matches!(missing, Err(ChangeError::NoSuchNode(it)) if *it == nobody));
    assert!(matches!(not_today, Err(ChangeError::Refused("not today"))));
    assert_eq!(read(&store, changed.uuid).await.extra["changed"], true);
    for node in [claimed.uuid, refused.uuid] {
        assert!(read(&store, node).await.extra.is_empty());
    }
    let followed = since(&store, before).await;
    assert_eq!(numbers(&followed), [saved.as_ref().unwrap().number]);
}

async fn changes_of_several_nodes_at_once_all_count(database: Database) {
    let daemons = [database.open().await, database.open().await];
    let mut nodes = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let node = named(name);
        daemons[0].create_node(&node).await.unwrap();
        nodes.push(node.uuid);
    }
    let count = |node: &Node| {
        let mut node = node.clone();
        let counted = node.extra.get("count").and_then(|it| it.as_i64()).unwrap_or(0);
        node.extra.insert("count".into(), json!(counted + 1));
        fine(node)
    };

    let changes = (0..20).map(|i| {
        let (store, mut nodes) = (daemons[i % 2].clone(), nodes.clone());
        nodes.rotate_left(i % 4);
        tokio::spawn(async move {
            if i % 5 == 0 {
                for node in nodes {
                    store.change(node, None, now(), count).await.unwrap();
                }
            } else {
                let changed = store.change_all(&nodes, now(), count).await.unwrap();
                assert!(changed.iter().all(Result::is_ok), "{changed:?}");
            }
        })
    });
    join(changes).await;

    for node in nodes {
        assert_eq!(read(&daemons[0], node).await.extra["count"], 20);
    }
}

async fn a_deleted_node_takes_its_ports_work_and_trace_along(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let port = port(&node, 1);
    store.create_port(&port, now()).await.unwrap();
    store.append_events(&[(node.uuid, event(&cleaning("x"), 1, "a"))]).await.unwrap();

    store.delete_node(node.uuid, now(), |_| Ok::<_, Infallible>(())).await.unwrap();

    assert_eq!(store.node(&node.uuid.into()).await.unwrap(), None);
    assert_eq!(store.port(PortKey::Uuid(port.uuid)).await.unwrap(), None);
    assert_eq!(claim(&store, "a").await, None);
    assert_eq!(store.events(node.uuid, None).await.unwrap(), []);
}

async fn a_node_that_the_check_protects_is_not_deleted(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;

    let refused = store.delete_node(node.uuid, now(), |_| Err("protected")).await.unwrap_err();
    assert!(matches!(refused, ChangeError::Refused("protected")));

    claim(&store, "a").await.unwrap();
    let refused = store.delete_node(node.uuid, now(), |_| Ok::<_, &str>(())).await.unwrap_err();
    assert!(matches!(refused, ChangeError::Locked { by, .. } if by == "a"));
    assert_eq!(all(&store).await.len(), 1);
}

// Ports.

async fn a_port_is_found_by_uuid_and_by_address(database: Database) {
    let store = database.open().await;
    let node = named("n");
    let port = port(&node, 1);
    store.create_node(&node).await.unwrap();
    store.create_port(&port, now()).await.unwrap();

    for key in [PortKey::Uuid(port.uuid), PortKey::Address(port.address)] {
        assert_eq!(store.port(key).await.unwrap().as_ref(), Some(&port));
    }
    assert_eq!(store.port(PortKey::Address(Mac([9; 6]))).await.unwrap(), None);

    assert_eq!(delete_port(&store, port.uuid).await.unwrap().ports, []);
    assert_eq!(store.port(PortKey::Uuid(port.uuid)).await.unwrap(), None);
    let gone = delete_port(&store, port.uuid).await.unwrap_err();
    assert!(matches!(gone, PortError::NoSuchPort(it) if it == port.uuid));
}

async fn the_ports_at_several_addresses_are_found_at_once(database: Database) {
    let store = database.open().await;
    let node = named("n");
    store.create_node(&node).await.unwrap();
    let ports = [port(&node, 1), port(&node, 2)];
    for port in &ports {
        store.create_port(port, now()).await.unwrap();
    }

    let asked = [ports[1].address, ports[0].address, Mac([2; 6])];
    let mut found = store.ports_at(&asked).await.unwrap();
    found.sort_by_key(|port| port.address);
    assert_eq!(found, ports);
    assert_eq!(store.ports_at(&[]).await.unwrap(), []);
}

async fn an_address_belongs_to_one_port(database: Database) {
    let store = database.open().await;
    let node = named("n");
    store.create_node(&node).await.unwrap();
    let first = port(&node, 1);
    let second = port(&node, 2);
    store.create_port(&first, now()).await.unwrap();
    store.create_port(&second, now()).await.unwrap();

    let same_address = store.create_port(&port(&node, 1), now()).await.unwrap_err();
    assert!(matches!(same_address, PortError::DuplicateAddress(it) if it == first.address));
    let same_uuid = Port { uuid: first.uuid, ..port(&node, 3) };
    let same_uuid = store.create_port(&same_uuid, now()).await.unwrap_err();
    assert!(matches!(same_uuid, PortError::DuplicateUuid(it) if it == first.uuid));
    let moved = Port { address: first.address, ..second.clone() };
    let moved = replace_port(&store, &moved).await.unwrap_err();
    assert!(matches!(moved, PortError::DuplicateAddress(it) if it == first.address));
}

async fn a_port_needs_a_node(database: Database) {
    let store = database.open().await;
    let nobody = named("never created");

    let refused = store.create_port(&port(&nobody, 1), now()).await.unwrap_err();

    assert!(matches!(refused, PortError::NoSuchNode(it) if it == nobody.uuid));
}

async fn a_port_can_change_its_address_and_its_node(database: Database) {
    let store = database.open().await;
    let (one, two) = (named("one"), named("two"));
    store.create_node(&one).await.unwrap();
    store.create_node(&two).await.unwrap();
    let before = port(&one, 1);
    store.create_port(&before, now()).await.unwrap();

    let after = Port { node_uuid: two.uuid, address: Mac([2; 6]), ..before.clone() };
    let changed = replace_port(&store, &after).await.unwrap();
    assert_eq!(changed.port, after);
    let left: Vec<_> = changed.of_nodes.iter().map(|of| (of.node, of.ports.len())).collect();
    assert_eq!(BTreeMap::from_iter(left), BTreeMap::from([(one.uuid, 0), (two.uuid, 1)]));

    assert_eq!(store.port(PortKey::Address(before.address)).await.unwrap(), None);
    assert_eq!(store.port(PortKey::Address(Mac([2; 6]))).await.unwrap(), Some(after.clone()));
    let of_two = PortFilter { nodes: vec![two.uuid], ..PortFilter::default() };
    assert_eq!(store.ports(&of_two).await.unwrap(), [after]);
}

async fn changes_of_one_port_at_once_all_count(database: Database) {
    let daemons = [database.open().await, database.open().await];
    let node = named("n");
    let port = port(&node, 1);
    daemons[0].create_node(&node).await.unwrap();
    daemons[0].create_port(&port, now()).await.unwrap();

    let changes = (0..40).map(|i| {
        let (store, uuid) = (daemons[i % 2].clone(), port.uuid);
        tokio::spawn(async move {
            store
                .change_port(uuid, now(), |port, _| Ok::<_, Infallible>(counted(port)))
                .await
                .unwrap();
        })
    });
    join(changes).await;

    let found = daemons[0].port(PortKey::Uuid(port.uuid)).await.unwrap().unwrap();
    assert_eq!(found.extra["count"], 40);
}

async fn moves_and_changes_of_ports_at_once_leave_each_where_the_last_one_put_it(
    database: Database,
) {
    let daemons = [database.open().await, database.open().await];
    let (one, two) = (named("one"), named("two"));
    let ports = [port(&one, 1), port(&two, 2)];
    for (node, port) in [&one, &two].into_iter().zip(&ports) {
        daemons[0].create_node(node).await.unwrap();
        daemons[0].create_port(port, now()).await.unwrap();
    }
    // Each port moves from one node to the other and back, in opposite directions, with changes in between.
    let changes = (0..40).map(|i: usize| {
        let (store, uuid) = (daemons[i % 2].clone(), ports[i / 2 % 2].uuid);
        let nodes = [one.uuid, two.uuid];
        tokio::spawn(async move {
            let change = |port: &Port, node: &Node| {
                assert_eq!(port.node_uuid, node.uuid);
                let other = if port.node_uuid == nodes[0] { nodes[1] } else { nodes[0] };
                let node_uuid = if i.is_multiple_of(5) { other } else { port.node_uuid };
                Ok::<_, Infallible>(Port { node_uuid, ..counted(port) })
            };
            while store.change_port(uuid, now(), change).await.is_err_and(|failed| {
                assert!(matches!(failed, PortChangeError::Port(PortError::Moving(_))), "{failed}");
                true
            }) {}
        })
    });
    join(changes).await;

    for port in &ports {
        let found = daemons[0].port(PortKey::Uuid(port.uuid)).await.unwrap().unwrap();
        assert_eq!(found.extra["count"], 20);
        let there = PortFilter { nodes: vec![found.node_uuid], ..PortFilter::default() };
        assert!(daemons[0].ports(&there).await.unwrap().contains(&found));
    }
}

async fn a_node_has_no_more_ports_than_it_may(database: Database) {
    let store = database.open().await;
    let (full, other) = (named("full"), named("other"));
    store.create_node(&full).await.unwrap();
    store.create_node(&other).await.unwrap();
    let numbered = |node: &Node, number: usize| {
        let [.., high, low] = number.to_be_bytes();
        Port { uuid: Uuid::new_v4(), address: Mac([2, 0, 0, 0, high, low]), ..port(node, 1) }
    };
    for number in 0..MAX_PORTS_OF_NODE {
        store.create_port(&numbered(&full, number), now()).await.unwrap();
    }
    let elsewhere = numbered(&other, MAX_PORTS_OF_NODE);
    store.create_port(&elsewhere, now()).await.unwrap();

    let refused = [
        store.create_port(&numbered(&full, MAX_PORTS_OF_NODE + 1), now()).await.unwrap_err(),
        replace_port(&store, &Port { node_uuid: full.uuid, ..elsewhere }).await.unwrap_err(),
    ];

    for refused in refused {
        assert!(matches!(refused, PortError::TooMany { node, .. } if node == full.uuid));
    }
    let filter = PortFilter { nodes: vec![full.uuid], limit: Some(1), ..PortFilter::default() };
    let there = store.ports(&filter).await.unwrap().remove(0);
    replace_port(&store, &counted(&there)).await.unwrap();
}

async fn ports_come_page_by_page(database: Database) {
    let store = database.open().await;
    let (one, two) = (named("one"), named("two"));
    store.create_node(&one).await.unwrap();
    store.create_node(&two).await.unwrap();
    for i in 0..5 {
        store.create_port(&port(if i < 4 { &one } else { &two }, i), now()).await.unwrap();
    }

    let mut seen = Vec::new();
    loop {
        let marker = seen.last().map(|port: &Port| port.uuid);
        let nodes = vec![one.uuid];
        let page = PortFilter { nodes, marker, limit: Some(3), ..PortFilter::default() };
        let page = store.ports(&page).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }

    assert_eq!(seen.len(), 4);
    let by_address = PortFilter { address: Some(seen[2].address), ..PortFilter::default() };
    assert_eq!(store.ports(&by_address).await.unwrap(), [seen[2].clone()]);
    let newest =
        PortFilter { sort_dir: SortDirection::Descending, limit: Some(5), ..PortFilter::default() };
    assert_eq!(store.ports(&newest).await.unwrap().len(), 5);
}

// Changes, followed.

async fn changes_are_read_in_order_with_ports_and_deletions(database: Database) {
    let store = database.open().await;
    let (one, two, gone) = (named("one"), named("two"), named("gone"));
    for node in [&one, &two, &gone] {
        store.create_node(node).await.unwrap();
    }
    let port = port(&one, 1);
    let saved = store.create_port(&port, now()).await.unwrap();
    let (deleted, _) =
        store.delete_node(gone.uuid, now(), |_| Ok::<_, Infallible>(())).await.unwrap();
    let changed =
        store.change(two.uuid, None, now(), |node| fine(node.clone())).await.unwrap().number;

    let page = since(&store, ChangeNumber::default()).await;

    let expected = [
        NodeChange { number: saved.number, uuid: one.uuid, state: Some((one, vec![port])) },
        NodeChange { number: deleted, uuid: gone.uuid, state: None },
        NodeChange { number: changed, uuid: two.uuid, state: Some((two, Vec::new())) },
    ];
    assert_eq!(page.changes, expected);
    assert_eq!((page.reaches, page.is_last), (changed, true));
    assert_eq!(since(&store, changed).await.changes, []);
}

async fn changes_come_page_by_page(database: Database) {
    let store = database.open().await;
    for name in ["a", "b", "c", "d", "e"] {
        store.create_node(&named(name)).await.unwrap();
    }

    let (mut reached, mut sizes) = (ChangeNumber::default(), Vec::new());
    loop {
        let page = store.changes_since(reached, 2).await.unwrap().unwrap();
        sizes.push(page.changes.len());
        reached = page.reaches;
        if page.is_last {
            break;
        }
    }

    assert_eq!(sizes, [2, 2, 1]);
    assert_eq!(store.all_changes().await.unwrap().changes.len(), 5);
}

async fn a_change_that_commits_late_is_not_missed(database: Database) {
    let (one, other) = (database.open().await, database.open().await);
    let (late, early) = (named("late"), named("early"));
    one.create_node(&late).await.unwrap();
    one.create_node(&early).await.unwrap();
    let before = since(&one, ChangeNumber::default()).await.reaches;
    let (decides, begun) = std::sync::mpsc::channel();
    let (go_on, held) = std::sync::mpsc::channel();
    let held_open = tokio::spawn(async move {
        let rename = move |node: &Node| {
            decides.send(()).unwrap();
            held.recv().unwrap();
            fine(Node { name: Some("was late".into()), ..node.clone() })
        };
        one.change(late.uuid, None, now(), rename).await.unwrap()
    });
    tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();

    // SQLite has one writer at a time: this one waits.
    let quick = other.clone();
    let quick = tokio::spawn(async move {
        quick.change(early.uuid, None, now(), |node| fine(node.clone())).await.unwrap()
    });
    let quick = if let Database::Postgres(..) = database {
        let changed = quick.await.unwrap();
        let meanwhile = since(&other, before).await;
        assert_eq!(numbers(&meanwhile), [changed.number], "what is open is not seen");
        go_on.send(()).unwrap();
        changed
    } else {
        assert_eq!(since(&other, before).await.changes, []);
        go_on.send(()).unwrap();
        quick.await.unwrap()
    };
    let late = held_open.await.unwrap();

    let after = if let Database::Postgres(..) = database { quick.number } else { before };
    let after = since(&other, after).await;
    assert!(numbers(&after).contains(&late.number), "{after:?}");
}

async fn a_follower_has_in_the_end_what_the_store_has(database: Database) {
    let daemons = [database.open().await, database.open().await, database.open().await];
    let follower = database.open().await;
    let writers = (0..3_u8).map(move |daemon| {
        let store = daemons[usize::from(daemon)].clone();
        tokio::spawn(async move {
            for round in 0..8 {
                let node = named(&format!("n{daemon}-{round}"));
                store.create_node(&node).await.unwrap();
                let port = port(&node, daemon * 8 + round);
                store.create_port(&port, now()).await.unwrap();
                let hurt = |node: &Node| fine(Node { maintenance: true, ..node.clone() });
                store.change(node.uuid, None, now(), hurt).await.unwrap();
                if round % 3 == 0 {
                    delete_port(&store, port.uuid).await.unwrap();
                }
                if round % 4 == 0 {
                    let free = |_: &Node| Ok::<_, Infallible>(());
                    store.delete_node(node.uuid, now(), free).await.unwrap();
                }
            }
        })
    });
    let writers = tokio::spawn(join(writers));
    let (mut known, mut reached) = (BTreeMap::new(), ChangeNumber::default());
    loop {
        let written = writers.is_finished();
        let page = follower.changes_since(reached, 3).await.unwrap().unwrap();
        for change in page.changes {
            assert!(change.number > reached, "it is read once");
            match change.state {
                Some(state) => known.insert(change.uuid, state),
                None => known.remove(&change.uuid),
            };
        }
        reached = page.reaches;
        if written && page.is_last {
            break;
        }
    }

    let mut there = BTreeMap::new();
    for node in all(&follower).await {
        let of_node = PortFilter { nodes: vec![node.uuid], ..PortFilter::default() };
        there.insert(node.uuid, (node, follower.ports(&of_node).await.unwrap()));
    }
    assert_eq!(there.len(), 18);
    assert_eq!(known, there);
}

async fn what_was_found_out_before_a_change_changes_nothing(database: Database) {
    let store = database.open().await;
    let node = named("n");
    let seen = store.create_node(&node).await.unwrap();
    let off = |node: &Node| fine(Node { power_state: Some(PowerState::Off), ..node.clone() });
    plan(&store, &node, Work::SetPower { target: PowerTarget::On }, now()).await;

    let stale = store.change_unless_changed(node.uuid, seen, now(), off).await.unwrap();
    assert_eq!(stale, None);
    assert_eq!(read(&store, node.uuid).await.power_state, None);

    let seen = since(&store, seen).await.reaches;
    let changed = store.change_unless_changed(node.uuid, seen, now(), off).await.unwrap().unwrap();
    assert_eq!(changed.node.power_state, Some(PowerState::Off));
    let claimed = claim(&store, "a").await.unwrap();
    assert_eq!(claimed.work, Work::SetPower { target: PowerTarget::On });
    let locked = store.change_unless_changed(node.uuid, changed.number, now(), off).await;
    assert!(matches!(locked, Err(ChangeError::Locked { .. })), "{locked:?}");
}

async fn deletions_that_are_forgotten_are_missed_by_nobody(database: Database) {
    let store = database.open().await;
    let (gone, stays) = (named("gone"), named("stays"));
    let created = store.create_node(&gone).await.unwrap();
    let (deleted, _) =
        store.delete_node(gone.uuid, now(), |_| Ok::<_, Infallible>(())).await.unwrap();
    store.create_node(&stays).await.unwrap();
    let day = SignedDuration::from_hours(24);

    assert_eq!(store.prune_deletions(now() + day).await.unwrap(), 0);
    let remembered = since(&store, created).await;
    assert_eq!((remembered.changes[0].uuid, &remembered.changes[0].state), (gone.uuid, &None));
    assert_eq!(store.prune_deletions(now() + day * 2).await.unwrap(), 1);

    assert_eq!(store.changes_since(created, 9).await.unwrap(), None, "it must load everything");
    assert_eq!(since(&store, deleted).await.changes.len(), 1);
    assert_eq!(store.all_changes().await.unwrap().changes.len(), 1);
}

async fn a_follower_from_after_a_restored_backup_reads_everything_anew(database: Database) {
    let other = Database::sqlite().open().await;
    for name in ["a", "b"] {
        other.create_node(&named(name)).await.unwrap();
    }
    let later = since(&other, ChangeNumber::default()).await.reaches;
    let restored = database.open().await;
    restored.create_node(&named("a")).await.unwrap();

    assert_eq!(restored.changes_since(later, 9).await.unwrap(), None);
}

async fn nodes_of_the_version_before_are_followed(database: Database) {
    let store = database.open().await;
    let nodes = [named("a"), named("b")];
    for node in &nodes {
        store.create_node(node).await.unwrap();
    }
    store.close().await;
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(&database.url()).await.unwrap();
    for undo in [
        "DROP TABLE change_counter",
        "DROP TABLE node_changes",
        "DROP TABLE daemons",
        "DROP TABLE database_key",
        "DROP TABLE boot_changes",
        "DROP TABLE authority",
        "DROP TABLE agent_calls",
        "DELETE FROM _sqlx_migrations WHERE version >= 2",
    ] {
        sqlx::query(undo).execute(&pool).await.unwrap();
    }
    pool.close().await;

    let store = database.open().await;

    let followed = since(&store, ChangeNumber::default()).await;
    let uuids: HashSet<_> = followed.changes.iter().map(|change| change.uuid).collect();
    assert_eq!(uuids, nodes.iter().map(|node| node.uuid).collect());
    assert!(store.create_node(&named("c")).await.unwrap() > followed.reaches);
}

// Work.

async fn planned_work_is_claimed_once(database: Database) {
    let store = database.open().await;
    assert_eq!(claim(&store, "a").await, None);
    let node = with_work(&store, "n").await;
    let ports = [port(&node, 1), port(&node, 2)];
    for port in &ports {
        store.create_port(port, now()).await.unwrap();
    }

    let claimed = claim(&store, "a").await.unwrap();

    assert_eq!(claimed.work, Work::Verify);
    let addresses = |ports: &[Port]| BTreeSet::from_iter(ports.iter().map(|port| port.address));
    let claimed_ports: Vec<_> = claimed.ports.iter().map(|port| (**port).clone()).collect();
    assert_eq!(addresses(&claimed_ports), addresses(&ports));
    assert_eq!(claimed.node, read(&store, node.uuid).await);
    assert_eq!((claimed.claims, claimed.progress), (1, BootPhase::Untouched));
    assert_eq!(claim(&store, "a").await, None);
    assert_eq!(claim(&store, "b").await, None);
}

async fn claimers_at_once_never_get_the_same_work(database: Database) {
    let daemons = [database.open().await, database.open().await, database.open().await];
    for i in 0..30 {
        with_work(&daemons[0], &format!("n{i}")).await;
    }

    let claimers = (0..9).map(|i| {
        let store = daemons[i % 3].clone();
        tokio::spawn(async move {
            let host = format!("host-{}", i % 3);
            let mut got = Vec::new();
            while let Some(claimed) = claim(&store, &host).await {
                assert_eq!(claimed.claims, 1);
                got.push(claimed.node.uuid);
            }
            got
        })
    });
    let got = join(claimers).await.concat();

    // A claimer gives up if others were faster for every candidate; the remaining work stays claimable.
    let mut seen: HashSet<_> = got.iter().copied().collect();
    assert_eq!(seen.len(), got.len(), "the same work was claimed twice");
    while let Some(claimed) = claim(&daemons[0], "host-0").await {
        assert!(seen.insert(claimed.node.uuid));
    }
    assert_eq!(seen.len(), 30);
}

async fn work_that_waited_longest_comes_first(database: Database) {
    let store = database.open().await;
    let mut expected = Vec::new();
    for i in 0..5 {
        let node = named(&format!("n{i}"));
        store.create_node(&node).await.unwrap();
        let at = now() - SignedDuration::from_secs(10 - i);
        plan(&store, &node, Work::Verify, at).await;
        expected.push(node.uuid);
    }

    let mut order = Vec::new();
    while let Some(claimed) = claim(&store, "a").await {
        order.push(claimed.node.uuid);
    }

    assert_eq!(order, expected);
}

async fn a_claimed_node_is_locked_for_everyone_else(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let port = port(&node, 1);
    store.create_port(&port, now()).await.unwrap();

    claim(&store, "host-a").await.unwrap();

    let refused =
        store.change(node.uuid, None, now(), |node| fine(node.clone())).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "node {} is locked by host host-a, please retry after the current operation is \
             completed",
            node.uuid
        )
    );
    let stored = store.node(&node.uuid.into()).await.unwrap().unwrap();
    assert_eq!(stored.reservation.as_deref(), Some("host-a"));
    for refused in [
        store.create_port(&self::port(&node, 2), now()).await.unwrap_err(),
        replace_port(&store, &port).await.unwrap_err(),
        delete_port(&store, port.uuid).await.unwrap_err(),
    ] {
        assert!(matches!(refused, PortError::Locked { by, .. } if by == "host-a"));
    }
}

async fn a_finished_claim_frees_the_node_and_leaves_the_next_work(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let first = claim(&store, "a").await.unwrap();
    store.note_progress(&first.claim, BootPhase::PoweringOn).await.unwrap();
    let next = Work::Boot { attempt: Uuid::from_u128(7) };

    let changed = store
        .change(node.uuid, Some(&first.claim), now(), |node| {
            let node = Node { power_state: Some(PowerState::On), ..node.clone() };
            fine(Change { work: Some(next.clone()), ..Change::from(node) })
        })
        .await
        .unwrap();

    let stored = store.node(&node.uuid.into()).await.unwrap().unwrap();
    assert_eq!(stored.node, changed.node);
    assert_eq!(stored.reservation, None);
    let second = claim(&store, "a").await.unwrap();
    assert_eq!((second.work, second.claims), (next, 1));
    assert_eq!(second.progress, BootPhase::Untouched);

    store.change(node.uuid, Some(&second.claim), now(), |node| fine(node.clone())).await.unwrap();
    assert_eq!(claim(&store, "a").await, None);
}

async fn work_of_a_dead_daemon_is_claimed_again_with_its_progress(database: Database) {
    let store = database.open().await;
    with_work(&store, "n").await;
    let first = claim(&store, "dead").await.unwrap();
    store.note_progress(&first.claim, BootPhase::Overriding).await.unwrap();

    let just_before = now() + LEASE - SignedDuration::from_micros(1);
    assert_eq!(store.claim_work(&daemon("heir"), just_before, LEASE).await.unwrap(), None);
    let second = store.claim_work(&daemon("heir"), now() + LEASE, LEASE).await.unwrap().unwrap();

    assert_eq!((second.claims, second.progress), (2, BootPhase::Overriding));
    assert_eq!(second.work, first.work);
    let stored = store.node(&second.node.uuid.into()).await.unwrap().unwrap();
    assert_eq!(stored.reservation.as_deref(), Some("heir"));
}

async fn a_restarted_daemon_takes_over_its_own_work_at_once(database: Database) {
    let store = database.open().await;
    let mine = with_work(&store, "mine").await;
    let claimed = claim(&store, "me").await.unwrap();
    store.note_progress(&claimed.claim, BootPhase::PoweringOff).await.unwrap();
    let other = with_work(&store, "other").await;
    claim(&store, "them").await.unwrap();
    store.close().await;

    let store = database.open().await;
    assert_eq!(store.release_all(Some(&daemon("me")), now(), LEASE).await.unwrap(), 1);

    let again = claim(&store, "me").await.unwrap();
    assert_eq!(again.node.uuid, mine.uuid);
    assert_eq!((again.claims, again.progress), (2, BootPhase::PoweringOff));
    assert_eq!(claim(&store, "me").await, None, "{} is not ours", other.uuid);
}

async fn a_daemon_that_starts_frees_nothing_of_a_twin_with_its_name(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let held = claim(&store, "host").await.unwrap();
    let twin = DaemonIdentity { id: Uuid::new_v4(), ..daemon("host") };

    assert_eq!(store.release_all(Some(&twin), now(), LEASE).await.unwrap(), 0);

    assert_eq!(store.claim_work(&twin, now(), LEASE).await.unwrap(), None);
    let stored = store.node(&NodeKey::Uuid(node.uuid)).await.unwrap().unwrap();
    assert_eq!(stored.reservation.as_deref(), Some("host"));
    store.renew(&held.claim, now(), LEASE).await.unwrap();
}

async fn where_a_daemon_is_alone_it_frees_what_any_held(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    claim(&store, "before").await.unwrap();

    assert_eq!(store.release_all(None, now(), LEASE).await.unwrap(), 1);

    let stored = store.node(&NodeKey::Uuid(node.uuid)).await.unwrap().unwrap();
    assert_eq!(stored.reservation, None);
    assert!(claim(&store, "after").await.is_some());
}

async fn daemons_are_alive_until_they_end_or_fall_silent(database: Database) {
    let store = database.open().await;
    let second = SignedDuration::from_secs(1);
    let alive = async |after: SignedDuration| {
        let known = store.daemons(now() + after).await.unwrap();
        known.into_iter().map(|it| (it.host, it.is_alive)).collect::<Vec<_>>()
    };
    let (one, two, no_pools) = (daemon("one"), daemon("two"), DaemonPools::default());
    store.register_daemon(&two, &no_pools, now()).await.unwrap();
    store.register_daemon(&one, &no_pools, now()).await.unwrap();
    let (up, down) = (|name: &str| (name.to_owned(), true), |name: &str| (name.to_owned(), false));

    assert_eq!(alive(second).await, [up("one"), up("two")]);
    store.note_alive(&one, &no_pools, now() + second * 15).await.unwrap();
    assert_eq!(alive(second * 25).await, [up("one"), down("two")]);
    store.note_end(&one).await.unwrap();
    assert_eq!(alive(second * 25).await, [down("one"), down("two")]);
    // A day later the silent daemons are forgotten.
    let later = now() + second * 86_500;
    store.register_daemon(&daemon("three"), &no_pools, later).await.unwrap();
    assert_eq!(alive(second * 86_500).await, [up("three")]);
}

async fn of_two_processes_with_one_identity_the_older_is_told(database: Database) {
    let store = database.open().await;
    let (older, no_pools) = (daemon("host"), DaemonPools::default());
    let newer = DaemonIdentity { run: Uuid::new_v4(), ..older.clone() };
    store.register_daemon(&older, &no_pools, now()).await.unwrap();
    store.note_alive(&older, &no_pools, now()).await.unwrap();

    store.register_daemon(&newer, &no_pools, now()).await.unwrap();

    let told = store.note_alive(&older, &no_pools, now()).await;
    assert!(matches!(told, Err(RegistrationError::Replaced)));
    store.note_alive(&newer, &no_pools, now()).await.unwrap();
    store.note_end(&older).await.unwrap();
    assert!(
        store.daemons(now()).await.unwrap()[0].is_alive,
        "the end of the older is not the newer's"
    );
}

async fn a_pool_that_overlaps_one_of_a_living_daemon_is_refused_in_words(database: Database) {
    let store = database.open().await;
    let other = pools(&["10.0.0.200-10.0.0.250", "fd00::10-fd00::1f"]);
    store.register_daemon(&daemon("one"), &other, now()).await.unwrap();

    let own = pools(&["10.0.1.1-10.0.1.9", "fd00::1f-fd00::2f"]);
    let refused = store.register_daemon(&daemon("two"), &own, now()).await.unwrap_err();

    let words = refused.to_string();
    let both = "the pool fd00::1f-fd00::2f of this daemon (two) overlaps the pool fd00::10-fd00::1f of the daemon one";
    assert!(words.contains(both), "{words}");
    assert!(words.contains("another site in [dhcp]"), "{words}");
    let known = store.daemons(now()).await.unwrap();
    assert_eq!(known.iter().map(|it| &it.host).collect::<Vec<_>>(), ["one"], "two does not serve");
    let elsewhere = DaemonPools { site: "elsewhere".to_owned(), ..own };
    store.register_daemon(&daemon("two"), &elsewhere, now()).await.unwrap();
}

async fn a_pool_is_free_again_when_its_daemon_has_ended_or_is_dead(database: Database) {
    let store = database.open().await;
    let second = SignedDuration::from_secs(1);
    let (one, two, three) = (daemon("one"), daemon("two"), daemon("three"));
    let pools = pools(&["10.0.0.100-10.0.0.199"]);
    store.register_daemon(&one, &pools, now()).await.unwrap();
    // The same daemon, killed and restarted at once.
    let again = DaemonIdentity { run: Uuid::new_v4(), ..one };
    store.register_daemon(&again, &pools, now() + second).await.unwrap();

    let early = store.register_daemon(&two, &pools, now() + second * 20).await;
    assert!(matches!(early, Err(RegistrationError::Overlap(_))), "{early:?}");
    store.register_daemon(&two, &pools, now() + second * 21).await.unwrap();
    store.note_end(&two).await.unwrap();
    store.register_daemon(&three, &pools, now() + second * 22).await.unwrap();
}

async fn a_daemon_that_comes_back_after_another_has_taken_its_pool_is_told(database: Database) {
    let store = database.open().await;
    let (one, two, pools) = (daemon("one"), daemon("two"), pools(&["10.0.0.100-10.0.0.199"]));
    let later = now() + SignedDuration::from_secs(30);
    store.register_daemon(&one, &pools, now()).await.unwrap();
    store.register_daemon(&two, &pools, later).await.unwrap();

    let told = store.note_alive(&one, &pools, later).await;

    let Err(RegistrationError::Overlap(overlap)) = told else { panic!("{told:?}") };
    assert_eq!((overlap.host.as_str(), overlap.other_host.as_str()), ("one", "two"));
    store.note_alive(&two, &pools, later).await.unwrap();
}

async fn of_daemons_that_register_one_pool_at_once_one_has_it(database: Database) {
    let stores = [database.open().await, database.open().await, database.open().await];
    let registered = (0..9).map(|number| {
        let store = stores[number % 3].clone();
        tokio::spawn(async move {
            let (daemon, pools) = (daemon(&number.to_string()), pools(&["10.0.0.1-10.0.0.9"]));
            match store.register_daemon(&daemon, &pools, now()).await {
                Ok(_) => true,
                Err(RegistrationError::Overlap(_)) => false,
                Err(error) => panic!("{error:?}"),
            }
        })
    });

    let registered = join(registered).await;

    assert_eq!(registered.iter().filter(|has_it| **has_it).count(), 1);
}

async fn a_daemon_knows_the_addresses_of_the_others_until_their_leases_have_ended(
    database: Database,
) {
    let store = database.open().await;
    let hour = SignedDuration::from_hours(1);
    let (one, two, own) = (daemon("one"), daemon("two"), pools(&["10.0.0.1-10.0.0.9"]));
    assert_eq!(store.register_daemon(&one, &own, now()).await.unwrap(), []);
    let other = DaemonPools {
        lease_secs: 48 * 3_600,
        reservations: vec![reservation(1, "10.0.9.9")],
        ..pools(&["10.0.0.10-10.0.0.19", "fd00::10-fd00::1f"])
    };
    let elsewhere = pools(&["10.0.3.1-10.0.3.9"]);
    let elsewhere = DaemonPools { site: "elsewhere".to_owned(), ..elsewhere };
    assert_eq!(store.register_daemon(&two, &other, now()).await.unwrap(), own.ranges);
    assert_eq!(store.register_daemon(&daemon("far"), &elsewhere, now()).await.unwrap(), []);

    let foreign = async |after| {
        let foreign = store.note_alive(&one, &own, now() + after).await.unwrap();
        foreign.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let both = ["10.0.0.10-10.0.0.19", "fd00::10-fd00::1f", "10.0.9.9-10.0.9.9"];
    assert_eq!(foreign(SignedDuration::ZERO).await, both);
    let all = store.leased_ranges("", now()).await.unwrap();
    assert_eq!(all.len(), 4, "with those of the daemon itself: {all:?}");
    store.note_end(&two).await.unwrap();
    assert_eq!(foreign(hour * 47).await, both, "machines still have its addresses");
    store
        .register_daemon(&daemon("new"), &DaemonPools::default(), now() + hour * 47)
        .await
        .unwrap();
    assert_eq!(foreign(hour * 48).await, both, "it is not forgotten with those of a day ago");
    assert_eq!(store.daemons(now() + hour * 48).await.unwrap().len(), 2, "nor shown");
    assert_eq!(foreign(hour * 49).await, [""; 0]);
    assert_eq!(store.leased_ranges("", now() + hour * 49).await.unwrap(), own.ranges);
}

async fn an_address_that_living_daemons_reserve_for_different_machines_is_named(
    database: Database,
) {
    let store = database.open().await;
    let reserving = |site: &str, reservations| DaemonPools {
        site: site.to_owned(),
        reservations,
        ..DaemonPools::default()
    };
    let both = vec![reservation(1, "10.0.9.1"), reservation(2, "fd00::2")];
    let later = now() + SignedDuration::from_secs(30);
    for (host, site, at) in [("one", "", later), ("dead", "", now()), ("far", "far", later)] {
        store.register_daemon(&daemon(host), &reserving(site, both.clone()), at).await.unwrap();
    }
    let conflicts = async |reservations| {
        let pools = reserving("", reservations);
        let found = store.reservation_conflicts(&daemon("own"), &pools, later).await.unwrap();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };

    assert_eq!(conflicts(both.clone()).await, [""; 0], "the same ones");
    let other = vec![reservation(1, "10.0.9.1"), reservation(3, "fd00::2")];
    let said = "fd00::2 is reserved for 02:00:00:00:00:03, and by the daemon one for 02:00:00:00:00:02, so two \
                machines may get it: reserve it for one of them on all daemons";
    assert_eq!(conflicts(other).await, [said]);
}

async fn a_daemon_of_the_version_before_has_no_known_pools(database: Database) {
    let pool = version_without_pools(&database).await;
    let at = now().as_microsecond();
    let insert = format!("INSERT INTO daemons VALUES ('1', '1', 'one', {at}, {at}, 0)");
    sqlx::query(AssertSqlSafe(insert)).execute(&pool).await.unwrap();
    pool.close().await;

    let store = database.open().await;

    let own = pools(&["10.0.0.1-10.0.0.9"]);
    assert_eq!(store.register_daemon(&daemon("two"), &own, now()).await.unwrap(), []);
    assert_eq!(store.daemons(now()).await.unwrap().len(), 2);
}

async fn a_renewed_lease_holds(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let claimed = claim(&store, "a").await.unwrap();
    let later = now() + LEASE + LEASE / 2;

    store.renew(&claimed.claim, now() + LEASE, LEASE).await.unwrap();

    assert_eq!(store.claim_work(&daemon("b"), later, LEASE).await.unwrap(), None);
    let refused = store.change(node.uuid, None, later, |node| fine(node.clone())).await;
    assert!(matches!(refused, Err(ChangeError::Locked { .. })));
}

async fn a_lost_claim_can_do_nothing(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let lost = claim(&store, "a").await.unwrap().claim;
    let good = store.claim_work(&daemon("a"), now() + LEASE, LEASE).await.unwrap().unwrap().claim;

    let phase = BootPhase::PoweringOff;
    for refused in [
        store.note_progress(&lost, phase).await,
        store.renew(&lost, now(), LEASE).await,
        store.put_back(&lost, now(), SignedDuration::ZERO).await,
        store.drop_work(&lost).await,
    ] {
        assert!(matches!(refused, Err(WorkError::ClaimLost(it)) if it == node.uuid));
    }
    let refused = store.change(node.uuid, Some(&lost), now(), |node| fine(node.clone())).await;
    assert!(matches!(refused, Err(ChangeError::ClaimLost(it)) if it == node.uuid));

    store.note_progress(&good, phase).await.unwrap();
}

async fn replaced_work_does_not_answer_to_the_old_claim(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let old = claim(&store, "a").await.unwrap().claim;
    let later = now() + LEASE;
    plan(&store, &node, Work::Verify, later).await;
    let new = store.claim_work(&daemon("a"), later, LEASE).await.unwrap().unwrap();
    assert_eq!(new.claims, 1);

    let refused = store.note_progress(&old, BootPhase::PoweringOff).await;

    assert!(matches!(refused, Err(WorkError::ClaimLost(_))));
}

async fn work_that_is_taken_over_is_lost_to_its_claimer_and_done_by_the_next(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let lost = claim(&store, "a").await.unwrap().claim;
    let settle = SignedDuration::from_secs(20);
    let next = Work::TearDown { attempt: Uuid::from_u128(1) };
    let decide =
        |node: &Node| fine(Change { work: Some(next.clone()), ..Change::from(node.clone()) });

    let (_, taken) = store.take_over(node.uuid, now(), settle, decide).await.unwrap();

    assert_eq!(taken, Some(lost.clone()));
    let refused = store.note_progress(&lost, BootPhase::PoweringOn).await;
    assert!(matches!(refused, Err(WorkError::ClaimLost(_))));
    let refused = store.change(node.uuid, Some(&lost), now(), |node| fine(node.clone())).await;
    assert!(matches!(refused, Err(ChangeError::ClaimLost(_))));
    let second = claim(&store, "b").await.unwrap();
    assert_eq!((&second.work, second.claims), (&next, 1));

    // The previous worker may have changed the machine, and its last request may still be in transit.
    store.note_progress(&second.claim, BootPhase::PoweringOff).await.unwrap();
    let (_, taken) = store.take_over(node.uuid, now(), settle, decide).await.unwrap();

    assert_eq!(taken, Some(second.claim));
    assert_eq!(claim(&store, "b").await, None);
    assert!(store.claim_work(&daemon("b"), now() + settle, LEASE).await.unwrap().is_some());
}

async fn what_nobody_works_on_is_taken_over_as_any_change_is_made(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let (settle, now) = (SignedDuration::from_secs(20), now());

    let keep = |node: &Node| fine(node.clone());
    let (_, taken) = store.take_over(node.uuid, now, settle, keep).await.unwrap();
    let refuse = |_: &Node| Err::<Change, _>("no");
    let refused = store.take_over(node.uuid, now, settle, refuse).await.unwrap_err();

    assert_eq!(taken, None);
    assert!(matches!(refused, ChangeError::Refused("no")));
    assert!(claim(&store, "a").await.is_some(), "the work that was planned is still there");
}

async fn a_node_whose_daemon_died_can_be_changed_once_the_lease_is_over(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    claim(&store, "dead").await.unwrap();

    let later = now() + LEASE;
    store.change(node.uuid, None, later, |node| fine(node.clone())).await.unwrap();

    let stored = store.node(&node.uuid.into()).await.unwrap().unwrap();
    assert_eq!(stored.reservation, None);
    let again = store.claim_work(&daemon("heir"), later, LEASE).await.unwrap().unwrap();
    assert_eq!(again.claims, 2);
}

async fn work_that_was_put_back_waits_and_keeps_its_progress(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let claimed = claim(&store, "a").await.unwrap();
    store.note_progress(&claimed.claim, BootPhase::Overriding).await.unwrap();
    let delay = SignedDuration::from_secs(5);
    let then = now() + delay;

    store.put_back(&claimed.claim, now(), delay).await.unwrap();

    store.change(node.uuid, None, now(), |node| fine(node.clone())).await.unwrap();
    assert_eq!(claim(&store, "a").await, None);
    let again = store.claim_work(&daemon("a"), then, LEASE).await.unwrap().unwrap();
    assert_eq!((again.claims, again.progress), (2, BootPhase::Overriding));
}

async fn dropped_work_is_gone_and_the_node_is_free(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let claimed = claim(&store, "a").await.unwrap();

    store.drop_work(&claimed.claim).await.unwrap();

    assert_eq!(claim(&store, "a").await, None);
    store.change(node.uuid, None, now(), |node| fine(node.clone())).await.unwrap();
}

async fn a_change_without_work_leaves_what_is_planned(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;

    store.change(node.uuid, None, now(), |node| fine(node.clone())).await.unwrap();
    assert_eq!(claim(&store, "a").await.unwrap().work, Work::Verify);
}

async fn added_work_wakes_a_worker(database: Database) {
    let store = database.open().await;
    let workers = (0..3).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                if let Some(claimed) = claim(&store, "a").await {
                    return claimed.node.uuid;
                }
                store.work_added().await;
            }
        })
    });
    let workers: Vec<_> = workers.collect();

    let mut planned = HashSet::new();
    for i in 0..3 {
        planned.insert(with_work(&store, &format!("n{i}")).await.uuid);
    }

    // No worker polls, so this ends only if each was woken.
    assert_eq!(join(workers.into_iter()).await.into_iter().collect::<HashSet<_>>(), planned);
}

async fn a_clock_that_was_set_back_before_a_restart_delays_no_work(database: Database) {
    let store = database.open().await;
    let [mine, free, other] = ["mine", "free", "other"].map(|name| with_work(&store, name));
    let (mine, free, other) = (mine.await, free.await, other.await);
    let held = [claim(&store, "me").await.unwrap(), claim(&store, "them").await.unwrap()];
    let earlier = now() - SignedDuration::from_hours(2);

    store.release_all(Some(&daemon("me")), earlier, LEASE).await.unwrap();

    let mut claimed = HashSet::new();
    for at in [earlier, earlier, earlier + LEASE] {
        claimed.insert(
            store.claim_work(&daemon("me"), at, LEASE * 2).await.unwrap().unwrap().node.uuid,
        );
    }
    assert_eq!(claimed, HashSet::from([mine.uuid, free.uuid, other.uuid]));
    assert!(claimed.contains(&held[1].node.uuid), "a claim of another's lasts for a lease at most");
}

async fn daemons_whose_clocks_differ_do_not_take_work_from_each_other(database: Database) {
    if let Database::Sqlite(_) = database {
        return; // It has one daemon.
    }
    let store = Store::open(&database.url(), &database.key_file()).await.unwrap();
    let node = with_work(&store, "n").await;
    let (fast, slow) =
        (now() + SignedDuration::from_hours(9), now() - SignedDuration::from_hours(9));

    let claimed = store.claim_work(&daemon("slow"), slow, LEASE).await.unwrap().unwrap();
    assert_eq!(store.claim_work(&daemon("fast"), fast, LEASE).await.unwrap(), None);
    store.renew(&claimed.claim, slow, LEASE).await.unwrap();
    let refused = store.change(node.uuid, None, fast, |node| fine(node.clone())).await;
    assert!(matches!(refused, Err(ChangeError::Locked { .. })));

    store.put_back(&claimed.claim, fast, SignedDuration::ZERO).await.unwrap();
    assert!(store.claim_work(&daemon("slow"), slow, LEASE).await.unwrap().is_some());
}

async fn a_daemon_does_not_take_work_over_from_itself(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    let claimed = claim(&store, "a").await.unwrap();
    let later = now() + LEASE + LEASE;

    let in_hand = HashSet::from([node.uuid]);
    let taken = store.claim_work_beside(&daemon("a"), later, LEASE, &in_hand).await.unwrap();

    assert_eq!(taken, None);
    store.renew(&claimed.claim, later, LEASE).await.unwrap();
}

// Traces.

async fn a_trace_comes_back_in_order(database: Database) {
    let store = database.open().await;
    let node = cleaning("n");
    // Events of the same microsecond keep their writing order; an older event comes first in any case.
    let events = [event(&node, 5, "b"), event(&node, 5, "c"), event(&node, 1, "a")];
    store.append_events(&events.clone().map(|event| (node.uuid, event))).await.unwrap();
    store.append_events(&[(node.uuid, event(&node, 5, "d"))]).await.unwrap();
    store.append_events(&[(Uuid::new_v4(), event(&node, 2, "of another node"))]).await.unwrap();

    let trace = store.events(node.uuid, None).await.unwrap();

    assert_eq!(calls(&trace), ["a", "b", "c", "d"]);
    assert_eq!(trace[0], events[2]);
}

async fn events_of_an_attempt_are_given_to_another_in_their_order(database: Database) {
    let store = database.open().await;
    let (node, other) = (cleaning("n"), cleaning("o"));
    let [from, to] = [Uuid::new_v4(), Uuid::new_v4()];
    let of = |attempt, at, call| BootEvent { attempt, ..event(&node, at, call) };
    let events = [of(from, 5, "b"), of(from, 5, "c"), of(from, 1, "a"), of(to, 7, "d")];
    store.append_events(&events.map(|event| (node.uuid, event))).await.unwrap();
    store.append_events(&[(other.uuid, of(from, 2, "of another node"))]).await.unwrap();

    store.move_events(node.uuid, from, to).await.unwrap();

    let moved = store.events(node.uuid, Some(to)).await.unwrap();
    assert_eq!(calls(&moved), ["a", "b", "c", "d"]);
    assert!(moved.iter().all(|event| event.attempt == to));
    assert!(store.events(node.uuid, Some(from)).await.unwrap().is_empty());
    assert_eq!(store.events(other.uuid, Some(from)).await.unwrap().len(), 1);
}

async fn a_change_appends_its_trace_to_the_attempt(database: Database) {
    let store = database.open().await;
    let node = cleaning("n");
    store.create_node(&node).await.unwrap();
    let (from, to) = (ProvisionState::CleanWait, ProvisionState::Cleaning);
    let what = BootEventKind::State { from, to, reason: None };

    store
        .change(node.uuid, None, now(), |node| {
            fine(Change { trace: vec![what.clone()], ..Change::from(node.clone()) })
        })
        .await
        .unwrap();

    let attempt = node.attempt.unwrap().id;
    let trace = store.events(node.uuid, Some(attempt)).await.unwrap();
    assert_eq!(trace, [BootEvent { at: now(), attempt, what }]);
}

async fn what_happens_between_attempts_is_in_no_trace(database: Database) {
    let store = database.open().await;
    let node = cleaning("n");
    store.create_node(&node).await.unwrap();
    let (from, to) = (ProvisionState::Cleaning, ProvisionState::Manageable);
    let end = |node: &Node| {
        let mut node = node.clone();
        node.attempt.as_mut().unwrap().ended_at = Some(now());
        let trace = vec![BootEventKind::State { from, to, reason: None }];
        fine(Change { trace, ..Change::from(node) })
    };

    // The first event ends the attempt, and is its last.
    for _ in 0..2 {
        store.change(node.uuid, None, now(), end).await.unwrap();
    }

    assert_eq!(store.events(node.uuid, None).await.unwrap().len(), 1);
}

async fn a_large_batch_of_events_is_kept_whole(database: Database) {
    let store = database.open().await;
    let node = cleaning("n");
    let batch: Vec<_> = (0..1_234).map(|i| (node.uuid, event(&node, i, &i.to_string()))).collect();

    store.append_events(&batch).await.unwrap();
    store.append_events(&[]).await.unwrap();

    let trace = store.events(node.uuid, None).await.unwrap();
    assert!(batch.iter().map(|(_, event)| event).eq(&trace));
}

async fn an_attempt_keeps_so_many_events_and_says_how_many_are_left_out(database: Database) {
    let store = database.open().await;
    let (node, other) = (cleaning("n"), cleaning("o"));
    let flood = |from: i64| -> Vec<_> {
        (from..from + 500).map(|i| (node.uuid, event(&node, i, "lookup"))).collect()
    };
    for round in 0..6 {
        store.append_events(&flood(round * 500)).await.unwrap();
    }
    let (from, to) = (ProvisionState::CleanWait, ProvisionState::Cleaning);
    let state = BootEvent {
        what: BootEventKind::State { from, to, reason: None },
        ..event(&node, 5_000, "")
    };
    store.append_events(&[(node.uuid, state.clone())]).await.unwrap();
    store.append_events(&[(other.uuid, event(&other, 1, "call"))]).await.unwrap();

    let trace = store.events(node.uuid, None).await.unwrap();

    assert_eq!(trace.len(), 2_002);
    assert_eq!(trace[2_000].what, BootEventKind::LeftOut { events: 1_000 });
    assert_eq!(trace[2_001], state);
    assert_eq!(store.events(other.uuid, None).await.unwrap().len(), 1);
}

async fn traces_of_several_attempts_are_told_apart(database: Database) {
    let store = database.open().await;
    let [one, other, silent, unasked] = ["a", "b", "c", "d"].map(cleaning);
    let earlier = cleaning("a");
    let events = [
        (one.uuid, event(&one, 9, "later")),
        (one.uuid, event(&one, 0, "first")),
        (one.uuid, event(&earlier, 0, "of another attempt")),
        (other.uuid, event(&other, 5, "another's")),
        (unasked.uuid, event(&unasked, 5, "not asked for")),
    ];
    store.append_events(&events).await.unwrap();

    let attempt = |node: &Node| node.attempt.as_ref().unwrap().id;
    let asked = [&one, &other, &silent].map(|node| (node.uuid, attempt(node)));
    let traces = store.traces(&asked).await.unwrap();

    assert_eq!(traces.len(), 2);
    assert_eq!(calls(&traces[&attempt(&one)]), ["first", "later"]);
    assert_eq!(calls(&traces[&attempt(&other)]), ["another's"]);
    assert!(store.traces(&[]).await.unwrap().is_empty());
}

async fn attempts_are_listed_newest_first(database: Database) {
    let store = database.open().await;
    let (old, new) = (cleaning("n"), cleaning("n"));
    let events = [event(&old, 0, "a"), event(&old, 9, "b"), event(&new, 20, "c")];
    store.append_events(&events.map(|event| (old.uuid, event))).await.unwrap();

    let attempts = store.attempts(old.uuid).await.unwrap();

    let ids: Vec<_> = attempts.iter().map(|attempt| attempt.attempt).collect();
    assert_eq!(ids, [new.attempt.unwrap().id, old.attempt.as_ref().unwrap().id]);
    assert_eq!(attempts[1].events, 2);
    assert_eq!(attempts[1].last.duration_since(attempts[1].began).as_secs(), 9);
    let one = store.events(old.uuid, Some(ids[0])).await.unwrap();
    assert_eq!(calls(&one), ["c"]);
}

async fn retention_keeps_the_newest_events_of_each_node(database: Database) {
    let store = database.open().await;
    let (busy, calm) = (cleaning("busy"), cleaning("calm"));
    for i in 0..10 {
        // All at the same time, so that only the writing order distinguishes old from new.
        store.append_events(&[(busy.uuid, event(&busy, 0, &i.to_string()))]).await.unwrap();
    }
    store.append_events(&[(calm.uuid, event(&calm, 0, "x"))]).await.unwrap();

    let keep = Retention { per_node: 3, ..Retention::default() };
    assert_eq!(store.prune_events(now(), &keep).await.unwrap(), 7);

    assert_eq!(calls(&store.events(busy.uuid, None).await.unwrap()), ["7", "8", "9"]);
    assert_eq!(calls(&store.events(calm.uuid, None).await.unwrap()), ["x"]);
    assert_eq!(store.prune_events(now(), &keep).await.unwrap(), 0);
}

async fn retention_forgets_by_age(database: Database) {
    let store = database.open().await;
    let node = cleaning("n");
    let events = [event(&node, 0, "old"), event(&node, 60, "young")];
    store.append_events(&events.map(|event| (node.uuid, event))).await.unwrap();

    let keep = Retention { age: SignedDuration::from_secs(60), ..Retention::default() };
    let removed = store.prune_events(now() + SignedDuration::from_secs(90), &keep).await.unwrap();

    assert_eq!(removed, 1);
    assert_eq!(calls(&store.events(node.uuid, None).await.unwrap()), ["young"]);
}

// What boots changed at BMCs.

/// A boot of the node's attempt that changed an order.
fn boot_way(node: &Node, secs: i64, resource: &str, before: &str) -> BootEvent {
    let what = BootEventKind::BootWay {
        way: BootWayKind::BootOrder,
        platform: "p".to_owned(),
        resource: resource.to_owned(),
        warnings: Vec::new(),
        changes: vec![boot_order(resource, before)],
    };
    BootEvent { what, ..event(node, secs, "replaced") }
}

fn boot_order(resource: &str, before: &str) -> BootChange {
    let (resource, property) = (resource.to_owned(), "BootOrder".to_owned());
    BootChange::Order { resource, property, before: vec![before.to_owned()] }
}

async fn what_boots_changed_outlives_the_trace_until_it_is_undone(database: Database) {
    let store = database.open().await;
    let node = cleaning("n");
    store.create_node(&node).await.unwrap();
    store.note_boot_way(node.uuid, boot_way(&node, 0, "/1", "a")).await.unwrap();
    assert_eq!(store.events(node.uuid, None).await.unwrap(), [boot_way(&node, 0, "/1", "a")]);

    let keep = Retention { per_node: 0, ..Retention::default() };
    store.prune_events(now(), &keep).await.unwrap();

    assert_eq!(store.events(node.uuid, None).await.unwrap(), []);
    assert_eq!(store.boot_changes(node.uuid).await.unwrap(), [boot_order("/1", "a")]);
    store.forget_boot_changes(node.uuid).await.unwrap();
    assert_eq!(store.boot_changes(node.uuid).await.unwrap(), []);

    store.note_boot_way(node.uuid, boot_way(&node, 1, "/1", "a")).await.unwrap();
    let free = |_: &Node| Ok::<_, Infallible>(());
    let (_, left) = store.delete_node(node.uuid, now(), free).await.unwrap();
    assert_eq!(left, [boot_order("/1", "a")]);
    assert_eq!(store.boot_changes(node.uuid).await.unwrap(), []);
}

async fn of_changes_of_one_place_the_first_is_kept(database: Database) {
    let store = database.open().await;
    let node = cleaning("n");
    store.create_node(&node).await.unwrap();
    for (resource, before) in [("/1", "a"), ("/1", "b"), ("/2", "c"), ("/2", "d")] {
        store.note_boot_way(node.uuid, boot_way(&node, 0, resource, before)).await.unwrap();
    }

    let changes = store.boot_changes(node.uuid).await.unwrap();

    assert_eq!(changes, [boot_order("/1", "a"), boot_order("/2", "c")]);
    assert_eq!(store.events(node.uuid, None).await.unwrap().len(), 4);
}

async fn changes_that_only_the_trace_of_the_version_before_has_are_kept(database: Database) {
    let store = database.open().await;
    let (under_way, mut over, mut instance) = (cleaning("a"), cleaning("b"), cleaning("c"));
    over.attempt.as_mut().unwrap().ended_at = Some(now());
    instance.provision_state = ProvisionState::Active;
    // The deployment of the instance, and its attempt before. Its machine has booted it again since.
    let (deployment, before) = (cleaning("c"), cleaning("c"));
    let deploying = BootEventKind::State {
        from: ProvisionState::Available,
        to: ProvisionState::Deploying,
        reason: None,
    };
    let deploying = BootEvent { what: deploying, ..event(&deployment, 2, "replaced") };
    let traces = [
        (under_way.uuid, boot_way(&under_way, 0, "/1", "a")),
        (under_way.uuid, event(&under_way, 1, "other")),
        (over.uuid, boot_way(&over, 0, "/1", "b")),
        (instance.uuid, boot_way(&before, 1, "/1", "c")),
        (instance.uuid, deploying),
        (instance.uuid, boot_way(&deployment, 3, "/1", "d")),
    ];
    for node in [&under_way, &over, &instance] {
        store.create_node(node).await.unwrap();
    }
    store.append_events(&traces).await.unwrap();
    store.close().await;
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(&database.url()).await.unwrap();
    for undo in [
        "DROP TABLE boot_changes",
        "DROP TABLE authority",
        "DROP TABLE agent_calls",
        "DELETE FROM _sqlx_migrations WHERE version >= 6",
    ] {
        sqlx::query(undo).execute(&pool).await.unwrap();
    }
    pool.close().await;

    let store = database.open().await;

    let changes = async |node: &Node| store.boot_changes(node.uuid).await.unwrap();
    assert_eq!(changes(&under_way).await, [boot_order("/1", "a")]);
    assert_eq!(changes(&over).await, []);
    assert_eq!(changes(&instance).await, [boot_order("/1", "d")]);
}

// The database itself.

async fn what_was_saved_is_there_after_a_restart(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await;
    store.append_events(&[(node.uuid, event(&cleaning("x"), 0, "before"))]).await.unwrap();
    store.close().await;

    let store = database.open().await;
    store.append_events(&[(node.uuid, event(&cleaning("x"), 0, "after"))]).await.unwrap();

    assert_eq!(read(&store, node.uuid).await.name.as_deref(), Some("n"));
    assert_eq!(claim(&store, "a").await.unwrap().work, Work::Verify);
    assert_eq!(calls(&store.events(node.uuid, None).await.unwrap()), ["before", "after"]);
}

async fn opening_twice_at_once_migrates_once(database: Database) {
    let (one, two) = tokio::join!(database.open(), database.open());
    one.create_node(&named("n")).await.unwrap();
    assert_eq!(all(&two).await.len(), 1);
}

/// SQLite refuses the second of two connections that begin write-ahead logging at once, and does not let it wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_files_are_opened_by_several_at_once() {
    for _ in 0..16 {
        let database = Database::sqlite();
        tokio::join!(database.open(), database.open(), database.open(), database.open());
    }
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state/deep/store.db");
    let key = path.with_file_name("ferroboot.key");
    let store = Store::open(&format!("sqlite://{}", path.display()), &key).await.unwrap();
    store.create_node(&named("n")).await.unwrap();

    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for file in path.parent().unwrap().read_dir().unwrap() {
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_url_that_names_no_store_is_refused_without_its_password() {
    for url in
        ["", "sqlite::memory:", "sqlite:relative.db", "mysql://u:geheim@h/d", "/var/lib/x.db"]
    {
        let refused = Store::open(url, Path::new("/dev/null")).await.unwrap_err();
        assert!(matches!(refused, StoreError::Url { .. }), "{url}: {refused:?}");
        assert!(!refused.to_string().contains("geheim"), "{refused}");
    }
}

/// The contents of a folder, byte for byte.
fn contents(folder: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let files = folder.read_dir().unwrap().map(|file| file.unwrap());
    files.map(|file| (file.file_name(), fs::read(file.path()).unwrap())).collect()
}

async fn reading(folder: &Path) -> Result<Store, StoreError> {
    let url = format!("sqlite://{}", folder.join("store.db").display());
    Store::open_to_read(&url, &folder.join("ferroboot.key")).await
}

#[tokio::test]
async fn a_copy_of_a_database_in_use_is_read_with_its_log_and_left_as_it_is() {
    let database = Database::sqlite();
    let store = database.open().await;
    store.create_node(&named("n")).await.unwrap();
    let Database::Sqlite(folder) = &database else { unreachable!("it is SQLite's") };
    let copy = TempDir::new().unwrap();
    for name in ["store.db", "store.db-wal", "ferroboot.key"] {
        fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let before = contents(copy.path());

    let read = reading(copy.path()).await.unwrap();

    assert_eq!(all(&read).await.len(), 1);
    read.create_node(&named("m")).await.unwrap_err();
    read.close().await;
    assert_eq!(contents(copy.path()), before);
}

#[tokio::test]
async fn a_database_that_was_closed_is_read_and_left_as_it_is() {
    let database = Database::sqlite();
    let store = database.open().await;
    store.create_node(&named("n")).await.unwrap();
    store.close().await;
    let Database::Sqlite(folder) = &database else { unreachable!("it is SQLite's") };
    let before = contents(folder.path());

    let read = reading(folder.path()).await.unwrap();

    assert_eq!(all(&read).await.len(), 1);
    read.create_node(&named("m")).await.unwrap_err();
    read.close().await;
    assert_eq!(contents(folder.path()), before);
}

async fn what_is_read_beside_a_daemon_is_what_it_wrote_last(database: Database) {
    let store = database.open().await;
    store.create_node(&named("n")).await.unwrap();

    let read = Store::open_to_read(&database.url(), &database.key_file()).await.unwrap();

    assert_eq!(all(&read).await.len(), 1);
    read.create_node(&named("m")).await.unwrap_err();
    store.create_node(&named("o")).await.unwrap();
    assert_eq!(all(&read).await.len(), 2);
}

async fn a_database_of_another_version_is_said_to_be_one(database: Database) {
    drop(database.open().await);
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(&database.url()).await.unwrap();
    let other = async |statement: &'static str| {
        sqlx::query(statement).execute(&pool).await.unwrap();
        Store::open_to_read(&database.url(), &database.key_file()).await.unwrap_err().to_string()
    };

    let newer = other(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 9999, description, success, checksum, execution_time FROM _sqlx_migrations LIMIT 1",
    )
    .await;
    let served = Store::open(&database.url(), &database.key_file()).await.unwrap_err().to_string();
    let older = other("DELETE FROM _sqlx_migrations").await;

    assert!(newer.contains("a newer version's"), "{newer}");
    assert_eq!(served, newer);
    assert!(older.contains("an older version's"), "{older}");
}

/// A node with every kind of secret.
fn with_secrets(name: &str) -> Node {
    let node = cleaning(name);
    let driver_info = kept(&[
        ("redfish_address", json!("https://192.0.2.9")),
        ("redfish_password", json!("s3cret")),
        ("deep", json!({ "auth_token": { "x": ["s3cret"] } })),
    ]);
    let instance_info = kept(&[("configdrive", json!({ "user_data": "s3cret" }))]);
    Node { driver_info, instance_info, ..node }
}

async fn secrets_are_in_clear_in_memory_and_encrypted_in_the_database(database: Database) {
    let store = database.open().await;
    let node = with_secrets("n");
    store.create_node(&node).await.unwrap();
    let renamed =
        |node: &Node| Ok::<_, Infallible>(Node { name: Some("m".into()), ..node.clone() });
    store.change(node.uuid, None, now(), renamed).await.unwrap();
    let node = Node { name: Some("m".into()), ..node };

    assert_eq!(read(&store, node.uuid).await, node);
    assert_eq!(all(&store).await, std::slice::from_ref(&node));
    let changes = store.all_changes().await.unwrap().changes;
    assert_eq!(changes[0].state.as_ref().unwrap().0, node);
    let pool = AnyPool::connect(&database.url()).await.unwrap();
    let select = sqlx::query_scalar("SELECT document FROM nodes");
    let document: String = select.fetch_one(&pool).await.unwrap();
    let attempt = node.attempt.as_ref().unwrap();
    for secret in ["s3cret", &attempt.ticket.0, &attempt.agent_token.0] {
        assert!(!document.contains(secret), "{document}");
    }
    assert!(document.contains("https://192.0.2.9"), "{document}");
}

async fn a_key_that_is_not_the_databases_is_refused_in_words(database: Database) {
    let node = with_secrets("n");
    database.open().await.create_node(&node).await.unwrap();
    let (key, kept) = (database.key_file(), database.key_file().with_extension("kept"));
    let opened = async || {
        let served = Store::open(&database.url(), &key).await.map(drop);
        let looked = Store::open_to_read(&database.url(), &key).await.map(drop);
        let words = served.unwrap_err().to_string();
        assert_eq!(words, looked.unwrap_err().to_string());
        words
    };

    fs::rename(&key, &kept).unwrap();
    let missing = opened().await;
    assert!(
        missing.contains("there is no key file") && missing.contains("from a back-up"),
        "{missing}"
    );
    assert!(!key.exists(), "no other key is made");
    write_key(&key, 2);
    let other = opened().await;
    assert!(other.contains("are encrypted under the key"), "{other}");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let open = opened().await;
    assert!(open.contains("is open to other users (mode 0644)"), "{open}");
    fs::rename(&kept, &key).unwrap();

    assert_eq!(read(&database.open().await, node.uuid).await, node);
}

async fn whoever_has_another_key_does_not_bring_the_tables_up_to_date(database: Database) {
    let pool = version_without_pools(&database).await;
    write_key(&database.key_file(), 2);

    let refused = Store::open(&database.url(), &database.key_file()).await.unwrap_err();

    assert!(matches!(refused, StoreError::Key(_)), "{refused}");
    let last = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations");
    assert_eq!(last.fetch_one(&pool).await.ok(), Some(4_i64), "daemons of that version go on");
}

async fn a_secret_that_was_moved_to_another_node_is_refused(database: Database) {
    let store = database.open().await;
    let (one, two) = (with_secrets("one"), with_secrets("two"));
    store.create_node(&one).await.unwrap();
    store.create_node(&two).await.unwrap();
    let pool = AnyPool::connect(&database.url()).await.unwrap();
    let document = async |node: &Node| -> serde_json::Value {
        let select = sqlx::query_scalar("SELECT document FROM nodes WHERE uuid = $1");
        let text: String = select.bind(node.uuid.to_string()).fetch_one(&pool).await.unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let mut forged = document(&two).await;
    forged["driver_info"]["redfish_password"] =
        document(&one).await["driver_info"]["redfish_password"].clone();

    let update = sqlx::query("UPDATE nodes SET document = $1 WHERE uuid = $2");
    let update = update.bind(forged.to_string()).bind(two.uuid.to_string());
    update.execute(&pool).await.unwrap();

    let refused = store.node(&NodeKey::Uuid(two.uuid)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Secret { .. }), "{refused:?}");
    assert!(refused.to_string().contains("driver_info/redfish_password"), "{refused}");
    assert_eq!(read(&store, one.uuid).await, one);
}

#[tokio::test]
async fn the_key_of_a_shared_database_is_made_by_the_operator() {
    let Some(database) = Database::postgres().await else { return };
    fs::remove_file(database.key_file()).unwrap();

    let refused = Store::open(&database.url(), &database.key_file()).await.unwrap_err().to_string();

    assert!(refused.contains("openssl rand -hex 32"), "{refused}");
    assert!(!database.key_file().exists());
}

#[tokio::test]
async fn what_is_no_database_is_named_at_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let url = format!("sqlite://{}", path.display());
    let began = std::time::Instant::now();

    let missing = reading(folder.path()).await.unwrap_err();
    assert!(matches!(missing, StoreError::Missing { .. }), "{missing:?}");
    fs::write(&path, [7; 8_192]).unwrap();
    let served = Store::open(&url, &path.with_extension("key")).await.unwrap_err();
    let read = reading(folder.path()).await.unwrap_err();
    fs::write(&path, []).unwrap();
    let empty = reading(folder.path()).await.unwrap_err();

    for error in [missing, served, read, empty] {
        let words = error.to_string();
        assert!(words.contains(&path.display().to_string()), "{words}");
    }
    assert!(began.elapsed().as_secs() < 10, "nobody waits for what cannot come");
}

// Shared test helpers.

const LEASE: SignedDuration = SignedDuration::from_secs(30);

/// An empty database, for one or more daemons.
enum Database {
    Sqlite(TempDir),
    Postgres(String, TempDir),
}

impl Database {
    fn sqlite() -> Self {
        Self::Sqlite(TempDir::new().unwrap())
    }

    /// A separate schema in the database of the environment, if there is one.
    async fn postgres() -> Option<Self> {
        let url = std::env::var("FERROBOOT_TEST_POSTGRES").ok()?;
        sqlx::any::install_default_drivers();
        let pool = AnyPool::connect(&url).await.expect("the PostgreSQL that was asked for answers");
        let schema = format!("test_{}", Uuid::new_v4().simple());
        sqlx::query(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).execute(&pool).await.unwrap();
        pool.close().await;
        let more = if url.contains('?') { '&' } else { '?' };
        let folder = TempDir::new().unwrap();
        write_key(&folder.path().join("ferroboot.key"), 1);
        Some(Self::Postgres(format!("{url}{more}options=-csearch_path%3D{schema}"), folder))
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite(dir) => format!("sqlite://{}", dir.path().join("store.db").display()),
            Self::Postgres(url, _) => url.clone(),
        }
    }

    fn key_file(&self) -> PathBuf {
        let (Self::Sqlite(folder) | Self::Postgres(_, folder)) = self;
        folder.path().join("ferroboot.key")
    }

    async fn open(&self) -> Store {
        Store::open(&self.url(), &self.key_file()).await.unwrap().by_given_time()
    }
}

/// A key file in an operator's format.
fn write_key(path: &Path, byte: u8) {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    writeln!(file, "{}", format!("{byte:02x}").repeat(32)).unwrap();
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn named(name: &str) -> Node {
    let node = Node::enrolled(Uuid::new_v4(), "redfish", now());
    Node { name: Some(name.to_owned()), ..node }
}

fn cleaning(name: &str) -> Node {
    let attempt = Attempt {
        powered_on_at: Some(now()),
        ..Attempt::begun(
            FreshAttempt {
                attempt: Uuid::new_v4(),
                ticket: Secret("t".repeat(22)),
                agent_token: Secret("a".repeat(43)),
            },
            Procedure::Clean,
            provision::BootInterface::Http,
            now(),
        )
    };
    Node {
        provision_state: ProvisionState::CleanWait,
        target_provision_state: Some(ProvisionState::Manageable),
        attempt: Some(attempt),
        ..named(name)
    }
}

fn kept(fields: &[(&str, serde_json::Value)]) -> serde_json::Map<String, serde_json::Value> {
    fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn port(node: &Node, last_byte: u8) -> Port {
    Port {
        uuid: Uuid::new_v4(),
        node_uuid: node.uuid,
        address: Mac([0x52, 0x54, 0, 0, 0, last_byte]),
        pxe_enabled: true,
        created_at: now(),
        updated_at: None,
        extra: <_>::default(),
        kept: <_>::default(),
    }
}

/// The port with its `extra/count` incremented.
fn counted(port: &Port) -> Port {
    let mut port = port.clone();
    let counted = port.extra.get("count").and_then(|it| it.as_i64()).unwrap_or(0);
    port.extra.insert("count".into(), json!(counted + 1));
    port
}

/// Replaces the port with the same UUID.
async fn replace_port(store: &Store, port: &Port) -> Result<ChangedPort, PortError> {
    let replace = |_: &Port, _: &Node| Ok::<_, Infallible>(port.clone());
    store.change_port(port.uuid, now(), replace).await.map_err(not_refused)
}

async fn delete_port(store: &Store, port: Uuid) -> Result<SavedPorts, PortError> {
    store.delete_port(port, now(), |_| Ok::<_, Infallible>(())).await.map_err(not_refused)
}

fn not_refused(failed: PortChangeError<Infallible>) -> PortError {
    match failed {
        PortChangeError::Refused(never) => match never {},
        PortChangeError::Port(failed) => failed,
    }
}

fn event(node: &Node, second: i64, call: &str) -> BootEvent {
    BootEvent {
        at: now() + SignedDuration::from_secs(second),
        attempt: node.attempt.as_ref().unwrap().id,
        what: BootEventKind::Agent {
            call: AgentCall::StepEnded { step: call.to_owned() },
            outcome: AgentOutcome::Done,
            caller: None,
        },
    }
}

fn calls(trace: &[BootEvent]) -> Vec<&str> {
    trace.iter().filter_map(ended_step).collect()
}

fn ended_step(event: &BootEvent) -> Option<&str> {
    let BootEventKind::Agent { call: AgentCall::StepEnded { step }, .. } = &event.what else {
        return None;
    };
    Some(step)
}

fn fine<C: Into<Change>>(change: C) -> Result<C, Infallible> {
    Ok(change)
}

async fn plan(store: &Store, node: &Node, work: Work, at: Timestamp) {
    let planned =
        |node: &Node| fine(Change { work: Some(work.clone()), ..Change::from(node.clone()) });
    store.change(node.uuid, None, at, planned).await.unwrap();
}

async fn with_work(store: &Store, name: &str) -> Node {
    let node = named(name);
    store.create_node(&node).await.unwrap();
    plan(store, &node, Work::Verify, now()).await;
    node
}

/// The daemon of that name; each name has one state directory.
fn daemon(host: &str) -> DaemonIdentity {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_DNS, host.as_bytes());
    DaemonIdentity { id, run: id, host: host.to_owned() }
}

/// A database as the version before pools of daemons left it.
async fn version_without_pools(database: &Database) -> AnyPool {
    database.open().await.close().await;
    let pool = AnyPool::connect(&database.url()).await.unwrap();
    for undo in [
        "ALTER TABLE daemons DROP COLUMN pools",
        "ALTER TABLE daemons DROP COLUMN leases_until",
        "DROP TABLE boot_changes",
        "DROP TABLE authority",
        "DROP TABLE agent_calls",
        "DELETE FROM _sqlx_migrations WHERE version >= 5",
    ] {
        sqlx::query(undo).execute(&pool).await.unwrap();
    }
    pool
}

/// A reservation for the machine of this number.
fn reservation(number: u8, address: &str) -> DaemonReservation {
    let (mac, address) = (Mac([2, 0, 0, 0, 0, number]), address.parse().unwrap());
    DaemonReservation { mac, address }
}

/// A daemon's pools, with a lease time of an hour.
fn pools(ranges: &[&str]) -> DaemonPools {
    let range = |range: &&str| {
        let (first, last) = range.split_once('-').unwrap();
        let parse = |address: &str| address.parse::<IpAddr>().unwrap();
        PoolRange { first: parse(first), last: parse(last) }
    };
    let ranges = ranges.iter().map(range).collect();
    DaemonPools { lease_secs: 3_600, ranges, ..DaemonPools::default() }
}

async fn claim(store: &Store, host: &str) -> Option<store::Claimed> {
    store.claim_work(&daemon(host), now(), LEASE).await.unwrap()
}

async fn since(store: &Store, number: ChangeNumber) -> ChangePage {
    store.changes_since(number, 100).await.unwrap().unwrap()
}

fn numbers(page: &ChangePage) -> Vec<ChangeNumber> {
    page.changes.iter().map(|change| change.number).collect()
}

async fn read(store: &Store, node: Uuid) -> Node {
    store.node(&NodeKey::Uuid(node)).await.unwrap().unwrap().node
}

async fn all(store: &Store) -> Vec<Node> {
    let nodes = store.nodes(&NodeFilter::default()).await.unwrap();
    nodes.into_iter().map(|stored| stored.node).collect()
}

async fn names(store: &Store, filter: &NodeFilter) -> Vec<String> {
    let nodes = store.nodes(filter).await.unwrap();
    nodes.into_iter().filter_map(|stored| stored.node.name).collect()
}

async fn uuids(store: &Store, filter: &NodeFilter) -> Vec<Uuid> {
    store.nodes(filter).await.unwrap().into_iter().map(|stored| stored.node.uuid).collect()
}

async fn daemons_that_start_at_once_have_one_authority_whose_key_is_encrypted(database: Database) {
    let store = database.open().await;
    let authority = |name: &str| StoredAuthority {
        certificate: format!("certificate of {name}"),
        key: format!("key of {name}"),
    };
    assert_eq!(store.authority().await.unwrap(), None);

    let (a, b) = (authority("a"), authority("b"));
    let (first, second) = tokio::join!(store.add_authority(&a), store.add_authority(&b));

    let first = first.unwrap();
    assert_eq!(second.unwrap(), first);
    assert!(first == a || first == b, "{first:?}");
    assert_eq!(store.authority().await.unwrap(), Some(first));
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(&database.url()).await.unwrap();
    let key: String =
        sqlx::query_scalar("SELECT private_key FROM authority").fetch_one(&pool).await.unwrap();
    pool.close().await;
    assert!(key.starts_with("encrypted:"), "{key}");
}

async fn a_call_to_an_agent_is_fetched_until_it_is_answered_and_by_its_attempt_alone(
    database: Database,
) {
    let store = database.open().await;
    let node = with_work(&store, "n").await.uuid;
    let call = agent_call(node, "list");
    let other_attempt = Uuid::new_v4();
    assert_eq!(store.agent_call(node, call.attempt).await.unwrap(), None);

    store.add_agent_call(&call).await.unwrap();

    assert_eq!(store.agent_call(node, other_attempt).await.unwrap(), None);
    for _ in 0..2 {
        assert_eq!(store.agent_call(node, call.attempt).await.unwrap(), Some(call.clone()));
    }
    let answer = |body: &str| StoredAgentAnswer { status: 200, body: body.to_owned() };
    store.answer_agent_call(node, other_attempt, call.id, &answer("wrong")).await.unwrap();
    store.answer_agent_call(node, call.attempt, Uuid::new_v4(), &answer("wrong")).await.unwrap();
    assert_eq!(store.agent_answer(node, call.id).await.unwrap(), None);
    for body in ["first", "again"] {
        store.answer_agent_call(node, call.attempt, call.id, &answer(body)).await.unwrap();
    }
    assert_eq!(store.agent_answer(node, call.id).await.unwrap(), Some(answer("first")));
    assert_eq!(store.agent_call(node, call.attempt).await.unwrap(), None);
    let progress = AgentCallProgress { node, id: call.id, is_answered: true };
    assert_eq!(store.agent_calls().await.unwrap(), [progress]);
}

async fn a_call_to_an_agent_replaces_the_one_before_and_goes_with_its_node(database: Database) {
    let store = database.open().await;
    let node = with_work(&store, "n").await.uuid;
    let (first, second) = (agent_call(node, "list"), agent_call(node, "run"));
    store.add_agent_call(&first).await.unwrap();
    let answer = StoredAgentAnswer { status: 200, body: "{}".to_owned() };
    store.answer_agent_call(node, first.attempt, first.id, &answer).await.unwrap();

    store.add_agent_call(&second).await.unwrap();

    assert_eq!(store.agent_answer(node, first.id).await.unwrap(), None);
    assert_eq!(store.agent_call(node, second.attempt).await.unwrap(), Some(second.clone()));
    store.remove_agent_call(node, first.id).await.unwrap();
    assert_eq!(store.agent_calls().await.unwrap().len(), 1, "the first one is gone already");
    store.delete_node(node, now(), |_| Ok::<_, Infallible>(())).await.unwrap();
    assert_eq!(store.agent_calls().await.unwrap(), []);
    assert!(store.add_agent_call(&second).await.is_err(), "there is no such node");
}

fn agent_call(node: Uuid, call: &str) -> StoredAgentCall {
    let (id, attempt) = (Uuid::new_v4(), Uuid::new_v4());
    StoredAgentCall { id, node, attempt, call: call.to_owned() }
}

async fn join<T>(tasks: impl Iterator<Item = tokio::task::JoinHandle<T>>) -> Vec<T> {
    let tasks: Vec<_> = tasks.collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
