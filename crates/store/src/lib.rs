//! Nodes, ports, leases, work and traces on SQLite and PostgreSQL.
