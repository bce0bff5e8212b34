-- The key under which the secrets of this database are encrypted. A database that no daemon has served since version 0.1
-- has no row.

CREATE TABLE database_key (
    -- There is one row.
    id BIGINT NOT NULL PRIMARY KEY,
    -- The name of the key.
    key_id TEXT NOT NULL,
    -- A text that is known, encrypted under the key: whoever can decrypt it has the key.
    check_value TEXT NOT NULL
);
