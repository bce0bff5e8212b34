-- The daemons that share this database.

CREATE TABLE daemons (
    -- Random, and kept in the daemon's state directory.
    id TEXT NOT NULL PRIMARY KEY,
    -- The process that runs as this daemon.
    run TEXT NOT NULL,
    -- What it calls itself.
    host TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    -- When it last said that it is alive.
    seen_at BIGINT NOT NULL,
    -- 1 once it has ended in order.
    ended BIGINT NOT NULL
);
