//! HTTP transport of the daemon, as server and as client: connections, limits, certificates.

pub mod answers;
pub mod host_addresses;
pub mod htpasswd;
pub mod http_server;
pub mod listen;
pub mod repeats;
pub mod settings_file;
#[cfg(any(test, feature = "test-servers"))]
pub mod test_servers;
pub mod tls;
