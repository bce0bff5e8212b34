//! `[api]`: Ironic's API, for operators.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use netboot::listen_addresses::ListenAddresses;
use serde::Deserialize;
use url::{Host, Url};

use super::addresses::expect_public;

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// The listening addresses; loopback by default, since the API switches machines. Another address requires `users`
    /// or `noauth`.
    pub listen: ListenAddresses,
    /// The URL for links in answers; by default the one in each request.
    pub public_url: Option<Url>,
    /// Host names of the API, besides `localhost`, IP addresses and the host of `public_url`.
    pub hosts: Vec<String>,
    /// The users file, as written by `htpasswd -B` (Ironic's `http_basic_auth_user_file`); without one, every client
    /// may do everything.
    pub users: Option<PathBuf>,
    /// Whether the API may be reachable from other hosts without users.
    pub noauth: bool,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 6385)).into(),
            public_url: None,
            hosts: Vec::new(),
            users: None,
            noauth: false,
        }
    }
}

impl ApiConfig {
    /// Whether only this host reaches it.
    pub(crate) fn is_local(&self) -> bool {
        self.listen.is_local()
    }

    /// `hosts`, parsed.
    ///
    /// # Errors
    /// The invalid entry.
    pub(crate) fn host_names(&self) -> Result<Vec<Host>> {
        let read = |name: &String| {
            Host::parse(name).ok().filter(|_| !name.contains('*')).with_context(|| {
                format!(
                    "{name:?} in hosts of [api] is not a host: give a name such as ironic.example, without http:// and \
                     without a port"
                )
            })
        };
        self.hosts.iter().map(read).collect()
    }

    pub(super) fn check(&self) -> Result<()> {
        self.host_names()?;
        expect_public("api.public_url", self.public_url.as_ref())?;
        ensure!(
            self.users.is_none() || !self.noauth,
            "[api] has users and noauth = true, which exclude each other: leave one of them out"
        );
        ensure!(
            self.is_local() || self.users.is_some() || self.noauth,
            "the API listens on addresses that are reachable from other hosts, without logins: set users in \
             [api] to a file that `htpasswd -B` made; or, if all who reach it may do everything, write noauth = true \
             there"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::config::tests::refusal;

    #[test]
    fn an_api_that_others_reach_has_users_or_says_that_it_has_none() {
        let api = |settings: &str| format!("[api]\n{settings}");
        let users = "users = \"/etc/ferroboot/htpasswd\"";

        for listen in ["0.0.0.0:6385", "[::]:6385", "192.0.2.1:6385", "[::ffff:192.0.2.1]:1"] {
            let listen = format!("listen = \"{listen}\"\n");
            let refused = refusal(&api(&listen));
            assert!(refused.contains("users") && refused.contains("noauth = true"), "{refused}");
            assert!(api(&(listen.clone() + users)).parse::<Config>().is_ok());
            assert!(api(&(listen + "noauth = true")).parse::<Config>().is_ok());
        }
        for listen in ["127.0.0.1:6385", "127.0.0.2:1", "[::1]:6385", "[::ffff:127.0.0.1]:6385"] {
            assert!(api(&format!("listen = \"{listen}\"")).parse::<Config>().is_ok(), "{listen}");
        }
        let both = format!("noauth = true\n{users}");
        assert!(refusal(&api(&both)).contains("exclude each other"));
    }

    #[test]
    fn a_name_of_the_api_is_a_name_and_no_more() {
        let hosts = |name: &str| format!("[api]\nhosts = [\"{name}\"]");

        assert!(hosts("ironic.example").parse::<Config>().is_ok());
        for odd in ["http://ironic.example", "ironic.example:6385", "", "a b", "*.example"] {
            assert!(refusal(&hosts(odd)).contains("hosts of [api]"), "{odd}");
        }
    }
}
