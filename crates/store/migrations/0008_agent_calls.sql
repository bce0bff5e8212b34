-- Calls to agents that fetch them: the worker that makes a call and the agent's connection may be at different daemons.

CREATE TABLE agent_calls (
    -- A node has at most one, as it has one piece of work.
    node_uuid TEXT NOT NULL PRIMARY KEY REFERENCES nodes (uuid) ON DELETE CASCADE,
    attempt TEXT NOT NULL,
    -- Random.
    id TEXT NOT NULL,
    -- JSON.
    call TEXT NOT NULL,
    -- The status and the body of the answer, once there is one.
    status BIGINT,
    answer TEXT
);
