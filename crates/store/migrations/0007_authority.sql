-- The authority of all daemons of this database, which issues the certificates of their listeners.

CREATE TABLE authority (
    -- There is one row.
    id BIGINT NOT NULL PRIMARY KEY,
    -- PEM.
    certificate TEXT NOT NULL,
    -- PEM, encrypted.
    private_key TEXT NOT NULL
);
