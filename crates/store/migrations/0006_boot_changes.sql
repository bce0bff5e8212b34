-- The ways of boots that changed something at their node's BMC beside the boot override, until that is undone. The trace
-- has the same events, and forgets them by age and number.

CREATE TABLE boot_changes (
    node_uuid TEXT NOT NULL REFERENCES nodes (uuid) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    -- Orders events of the same microsecond.
    seq BIGINT NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (node_uuid, at, seq)
);

-- Until now only the trace had them: those of attempts under way, and of all boots of an instance.
INSERT INTO boot_changes (node_uuid, at, seq, event)
SELECT way.node_uuid, way.at, way.seq, way.event
FROM boot_events way JOIN nodes ON nodes.uuid = way.node_uuid
WHERE way.event LIKE '%"kind":"boot_way"%' AND way.event LIKE '%"changes":[{%'
    AND nodes.document LIKE '%"ended_at":null%'
    AND (
        nodes.document LIKE '%"id":"' || way.attempt || '"%'
        OR (
            nodes.provision_state = 'active'
            AND way.at >= (
                SELECT MAX(deployed.at) FROM boot_events deployed
                WHERE deployed.node_uuid = way.node_uuid AND deployed.event LIKE '%"to":"deploying"%'
            )
        )
    );
