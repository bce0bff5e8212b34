//! The daemon: API, DHCP, artifacts and workers.
