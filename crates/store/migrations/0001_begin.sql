-- The same text runs on SQLite and on PostgreSQL, so every value is TEXT or BIGINT: times are
-- microseconds since 1970, booleans 0 or 1, documents JSON.

CREATE TABLE nodes (
    uuid TEXT NOT NULL PRIMARY KEY,
    name TEXT UNIQUE,
    -- The whole node; the columns below repeat what lists are filtered and sorted by.
    document TEXT NOT NULL,
    -- Counts changes.
    version BIGINT NOT NULL,
    -- Which daemon works on it, and until when that holds without renewal.
    reservation TEXT,
    reservation_expires BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    provision_state TEXT NOT NULL,
    power_state TEXT,
    driver TEXT NOT NULL,
    maintenance BIGINT NOT NULL,
    fault TEXT,
    instance_uuid TEXT UNIQUE,
    resource_class TEXT,
    owner TEXT,
    lessee TEXT,
    conductor_group TEXT,
    shard TEXT,
    description TEXT,
    retired BIGINT NOT NULL
);

CREATE INDEX nodes_by_creation ON nodes (created_at, uuid);
CREATE INDEX nodes_by_state ON nodes (provision_state);

CREATE TABLE ports (
    uuid TEXT NOT NULL PRIMARY KEY,
    node_uuid TEXT NOT NULL REFERENCES nodes (uuid) ON DELETE CASCADE,
    address TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    document TEXT NOT NULL
);

CREATE INDEX ports_by_node ON ports (node_uuid);

-- What is to be done next: at most one piece of work for each node.
CREATE TABLE work (
    node_uuid TEXT NOT NULL PRIMARY KEY REFERENCES nodes (uuid) ON DELETE CASCADE,
    -- Differs from that of the work it replaced, so that an old claim fits nothing.
    id TEXT NOT NULL,
    work TEXT NOT NULL,
    -- How often it was claimed.
    claims BIGINT NOT NULL,
    progress TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    claimed_by TEXT,
    claimed_until BIGINT
);

CREATE INDEX work_by_time ON work (not_before);

-- Without a foreign key: events are written in batches, and one that comes after its node was
-- deleted must not lose the others. Those are swept by age.
CREATE TABLE boot_events (
    node_uuid TEXT NOT NULL,
    attempt TEXT NOT NULL,
    at BIGINT NOT NULL,
    -- Orders events of the same microsecond.
    seq BIGINT NOT NULL,
    event TEXT NOT NULL
);

CREATE INDEX boot_events_by_node ON boot_events (node_uuid, attempt, at, seq);
CREATE INDEX boot_events_by_age ON boot_events (at);
