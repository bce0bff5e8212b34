//! The soak: the built daemon with scripted BMCs, machines and agents, under faults of its environment.
//!
//! It is killed repeatedly, its database is restarted, its disk runs full, its connections stall and break, and
//! strangers flood every port. A table shows the faults and failures at the end. A short run is an ordinary test;
//! `make soak MINUTES=10 DATABASE=both SEED=1` runs longer. Each run has a separate network namespace and starts no
//! firmware.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

mod agent;
mod bmc;
mod daemon;
mod disk;
mod instance;
mod links;
mod machine;
mod operator;
mod plan;
mod postgres;
mod probe;
mod relay;
mod report;
mod strangers;
mod world;

use std::env;
use std::io::{Read as _, Write as _, stdin, stdout};
use std::process::{Stdio, exit};
use std::thread;

use ferroboot::lab::namespace;
use ferroboot::service::runtime;

use plan::{Database, SoakPlan};
use postgres::Cluster;

/// The test that does the work, in a separate namespace.
const INSIDE: &str = "inside";

#[test]
fn a_short_soak_on_sqlite_breaks_nothing() {
    soak(Database::Sqlite);
}

#[test]
fn a_short_soak_on_postgresql_breaks_nothing() {
    soak(Database::Postgresql);
}

/// Starts this program again in a namespace, for one database.
fn soak(database: Database) {
    let plan = SoakPlan::from_environment(database);
    if !plan.is_wanted {
        return;
    }
    let cluster = (database == Database::Postgresql).then(Cluster::start);
    let mut inside = namespace::command(&env::current_exe().unwrap()).unwrap();
    inside.args(["--exact", INSIDE, "--ignored", "--nocapture"]).stdin(Stdio::piped());
    inside.envs(plan.to_environment());
    if let Some(cluster) = &cluster {
        inside.env(postgres::URL, cluster.url()).env(postgres::CONTROL, cluster.control());
    }
    let mut inside = inside.spawn().unwrap();
    // The end of this process ends the run, which waits for the end of its input.
    let lifeline = inside.stdin.take();
    let ended = inside.wait().unwrap();
    drop(lifeline);
    assert!(ended.success(), "something broke: the table above says what (seed {})", plan.seed);
}

#[test]
#[ignore = "started by the others, in a namespace of its own"]
fn inside() {
    assert!(namespace::is_inside().unwrap(), "it is not a test by itself");
    let database = match env::var(postgres::URL) {
        Ok(_) => Database::Postgresql,
        Err(_) => Database::Sqlite,
    };
    thread::spawn(|| {
        let _ = stdin().read_to_end(&mut Vec::new());
        exit(1);
    });
    let plan = SoakPlan::from_environment(database);
    let report = runtime().unwrap().block_on(world::soak(&plan));
    writeln!(stdout(), "{}", report.table()).unwrap();
    assert!(report.is_whole(), "something broke: see the table above");
}
