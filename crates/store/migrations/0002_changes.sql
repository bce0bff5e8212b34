-- Every change of a node or of its ports has a number. The number is taken from one row in the transaction of the
-- change, so that numbers are in the order of commits: whoever has read up to a number misses nothing below it.

CREATE TABLE change_counter (
    -- There is one row.
    id BIGINT NOT NULL PRIMARY KEY,
    -- The number of the last change.
    number BIGINT NOT NULL,
    -- Deletions up to this number may be missing below.
    forgotten BIGINT NOT NULL
);

-- The last change of each node; of a deleted one this row is what is left. Without a foreign key for that.
CREATE TABLE node_changes (
    node_uuid TEXT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    deleted_at BIGINT
);

INSERT INTO change_counter (id, number, forgotten) SELECT 1, COUNT(*), 0 FROM nodes;
INSERT INTO node_changes (node_uuid, number)
SELECT uuid, ROW_NUMBER() OVER (ORDER BY created_at, uuid) FROM nodes;
