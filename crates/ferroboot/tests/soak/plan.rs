//! The plan of a soak run: duration, database, seed.

use std::env;
use std::time::Duration;

use rand::random;

const SECONDS: &str = "FERROBOOT_SOAK_SECONDS";
const DATABASE: &str = "FERROBOOT_SOAK_DATABASE";
const SEED: &str = "FERROBOOT_SOAK_SEED";
const NODES: &str = "FERROBOOT_SOAK_NODES";
const DAEMONS: &str = "FERROBOOT_SOAK_DAEMONS";

/// The default duration of faults in seconds. A run takes about half a minute more.
const SHORT: u64 = 20;

/// The database of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    Sqlite,
    Postgresql,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct SoakPlan {
    pub(crate) database: Database,
    /// Whether `FERROBOOT_SOAK_DATABASE` includes this database.
    pub(crate) is_wanted: bool,
    /// The duration of faults.
    pub(crate) lasts: Duration,
    /// Determines the order of faults and the machines' behaviour. Timing depends on the host.
    pub(crate) seed: u64,
    pub(crate) nodes: u8,
    /// Number of daemons on the database; one with SQLite.
    pub(crate) daemons: u8,
}

impl SoakPlan {
    pub(crate) fn from_environment(database: Database) -> Self {
        let number = |name: &str| {
            let text = env::var(name).ok().filter(|text| !text.is_empty())?;
            Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")))
        };
        let wanted = env::var(DATABASE).unwrap_or_default();
        let is_wanted = match wanted.as_str() {
            "" | "both" => true,
            "sqlite" => database == Database::Sqlite,
            "postgres" | "postgresql" => database == Database::Postgresql,
            other => panic!("{DATABASE} is {other:?}, neither sqlite, postgres nor both"),
        };
        Self {
            database,
            is_wanted,
            lasts: Duration::from_secs(number(SECONDS).unwrap_or(SHORT)),
            seed: number(SEED).unwrap_or_else(|| u64::from(random::<u32>())),
            daemons: match database {
                Database::Sqlite => 1,
                Database::Postgresql => number(DAEMONS)
                    .map_or(3, |daemons| u8::try_from(daemons.clamp(1, 9)).unwrap_or(9)),
            },
            nodes: number(NODES).map_or(8, |nodes| u8::try_from(nodes.clamp(1, 64)).unwrap_or(64)),
        }
    }

    /// The same plan, as environment variables for the run in the namespace.
    pub(crate) fn to_environment(&self) -> [(&'static str, String); 5] {
        [
            (SECONDS, self.lasts.as_secs().to_string()),
            (SEED, self.seed.to_string()),
            (NODES, self.nodes.to_string()),
            (DAEMONS, self.daemons.to_string()),
            (DATABASE, String::new()),
        ]
    }

    /// Whether it is the run of `make test`, which leaves out faults that take a machine minutes to recover from.
    pub(crate) fn is_short(&self) -> bool {
        self.lasts <= Duration::from_secs(SHORT)
    }
}
