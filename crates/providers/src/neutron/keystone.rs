//! The log-in at Keystone, and Neutron's URL in its answer (Identity API v3).

use serde_json::{Value, json};
use url::Url;

use crate::settings::NeutronConfig;

/// The body of `POST /v3/auth/tokens`.
pub(super) fn log_in(settings: &NeutronConfig, password: &str) -> Value {
    let domain = |name: &str| json!({"name": if name.is_empty() { "Default" } else { name }});
    json!({"auth": {
        "identity": {
            "methods": ["password"],
            "password": {"user": {
                "name": settings.username,
                "password": password,
                "domain": domain(&settings.user_domain_name),
            }},
        },
        "scope": {"project": {
            "name": settings.project_name,
            "domain": domain(&settings.project_domain_name),
        }},
    }})
}

/// Neutron's URL in Keystone's answer.
#[must_use]
pub fn endpoint(answer: &Value, region: Option<&str>) -> Option<Url> {
    let services = answer["token"]["catalog"].as_array()?;
    let network = services.iter().find(|service| service["type"] == "network")?;
    let endpoints = network["endpoints"].as_array()?;
    let fits = |endpoint: &&Value| {
        endpoint["interface"] == "public"
            && region.is_none_or(|region| endpoint["region"] == region)
    };
    endpoints.iter().find(fits)?["url"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neutron_is_where_the_catalogue_says() {
        let endpoint_in = |region: &str, interface: &str, url: &str| json!({"region": region, "interface": interface, "url": url});
        let answer = json!({"token": {"catalog": [
            {"type": "compute", "endpoints": [endpoint_in("one", "public", "http://nova")]},
            {"type": "network", "endpoints": [
                endpoint_in("one", "admin", "http://admin"),
                endpoint_in("one", "public", "http://one:9696"),
                endpoint_in("two", "public", "http://two:9696"),
            ]},
        ]}});

        assert_eq!(endpoint(&answer, None).unwrap().as_str(), "http://one:9696/");
        assert_eq!(endpoint(&answer, Some("two")).unwrap().as_str(), "http://two:9696/");
        assert_eq!(endpoint(&answer, Some("three")), None);
    }
}
