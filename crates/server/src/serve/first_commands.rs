//! The commands by which an operator's client reaches the API, for the log at the start.

use std::net::Ipv4Addr;

use netboot::urls::{ListenAddress, UrlScheme};

use crate::config::Config;

/// The commands, in their order.
pub(super) fn first_commands(config: &Config) -> Vec<String> {
    let listen = config.api.listen.of_urls(config.tls.only);
    let login = match config.api.users {
        None => "OS_AUTH_TYPE=none",
        Some(_) => "OS_AUTH_TYPE=http_basic OS_USERNAME=… OS_PASSWORD=…",
    };
    let endpoint = reached_from_here(listen);
    let list = |ca: &str| format!("{login} OS_ENDPOINT={endpoint}{ca} baremetal node list");
    // An operator's certificate may come from a public authority.
    let is_issued = config.tls.files().is_none() || config.tls.authority.is_some();
    match listen.scheme {
        UrlScheme::Https if is_issued => vec![
            "ferroboot ca > ca.pem, with the --config and --state-dir of this service".to_owned(),
            list(" OS_CACERT=ca.pem"),
        ],
        UrlScheme::Http | UrlScheme::Https => vec![list("")],
    }
}

/// No certificate is for the address that means all.
fn reached_from_here(mut listen: ListenAddress) -> ListenAddress {
    if listen.address.ip().to_canonical().is_unspecified() {
        listen.address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    listen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(settings: &str) -> Vec<String> {
        first_commands(&settings.parse().unwrap())
    }

    #[test]
    fn clients_of_an_api_with_tls_get_the_ca_first() {
        assert_eq!(
            commands(""),
            ["OS_AUTH_TYPE=none OS_ENDPOINT=http://127.0.0.1:6385 baremetal node list"]
        );
        let tls = "[api]\nnoauth = true\nlisten = \"https://[::]:6385\"\n";
        let list = "OS_AUTH_TYPE=none OS_ENDPOINT=https://127.0.0.1:6385";
        let with_ca = format!("{list} OS_CACERT=ca.pem baremetal node list");
        let operators = format!("{tls}[tls]\ncertificate = \"/c\"\nkey = \"/k\"\n");
        for settings in [tls, &format!("{operators}authority = \"/a\"")] {
            let said = commands(settings);
            assert!(said[0].starts_with("ferroboot ca > ca.pem"), "{said:?}");
            assert_eq!(said[1], with_ca);
        }
        assert_eq!(commands(&operators), [format!("{list} baremetal node list")]);
    }
}
