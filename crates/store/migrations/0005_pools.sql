-- What each daemon leases by DHCP, so that no two daemons lease the same addresses.

-- Its pools and reserved addresses, as JSON.
ALTER TABLE daemons ADD COLUMN pools TEXT NOT NULL DEFAULT '{}';
-- When the last of its leases ends, if it leases no more.
ALTER TABLE daemons ADD COLUMN leases_until BIGINT NOT NULL DEFAULT 0;
