//! The reach of downloads: names and redirects lead only as far as [`ImageReach`] allows.

use std::io;
use std::net::SocketAddr;

use netboot::image_reach::ImageReach;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;

/// Follows the redirects that are in reach.
pub(super) fn redirects(reach: &ImageReach) -> Policy {
    let reach = reach.clone();
    Policy::custom(move |attempt| match reach.expect_redirect(attempt.previous(), attempt.url()) {
        Ok(()) => attempt.follow(),
        Err(why) => attempt.error(why),
    })
}

/// The host's resolver, without forbidden addresses.
#[derive(Clone, Debug)]
pub(super) struct ImageResolver(pub(super) ImageReach);

impl Resolve for ImageResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            reached(&reach, found)
        })
    }
}

fn reached(
    reach: &ImageReach,
    found: impl Iterator<Item = SocketAddr>,
) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
    let mut addresses = Vec::new();
    let mut refused = None;
    for address in found {
        match reach.expect_address(address.ip()) {
            Ok(()) => addresses.push(address),
            Err(why) => refused = Some(why),
        }
    }
    match (addresses.is_empty(), refused) {
        (false, _) => Ok(Box::new(addresses.into_iter())),
        (true, Some(why)) => Err(why.into()),
        (true, None) => Err(io::Error::from(io::ErrorKind::NotFound).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_to_a_forbidden_address_and_another_leads_to_the_other() {
        let found = |addresses: &[&str]| {
            let addresses: Vec<SocketAddr> =
                addresses.iter().map(|it| it.parse().unwrap()).collect();
            reached(&ImageReach::default(), addresses.into_iter()).map(Vec::from_iter)
        };

        let both = found(&["127.0.0.1:0", "192.0.2.1:0"]).unwrap();
        assert_eq!(both, ["192.0.2.1:0".parse().unwrap()]);
        let none = found(&["127.0.0.1:0", "[::1]:0"]).unwrap_err().to_string();
        assert!(none.contains("set loopback = true in [images]"), "{none}");
    }
}
