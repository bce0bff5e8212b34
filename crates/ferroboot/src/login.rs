//! The command's login at a service's API, from the same environment variables as Ironic's own clients.

use std::env;
use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{RequestBuilder, StatusCode};
use url::Url;

/// A user and password for HTTP Basic, or none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ApiLogin(Option<(String, String)>);

impl fmt::Debug for ApiLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ApiLogin(…)" } else { "ApiLogin(nobody)" })
    }
}

impl ApiLogin {
    /// The login in `OS_AUTH_TYPE` (`http_basic` or `none`), `OS_USERNAME` and `OS_PASSWORD`.
    ///
    /// # Errors
    /// The missing variable.
    pub fn from_environment() -> Result<Self> {
        let text = |name| match env::var(name) {
            Ok(text) => Ok(Some(text)),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(odd @ env::VarError::NotUnicode(_)) => Err(odd).context(name),
        };
        Self::of(text("OS_AUTH_TYPE")?.as_deref(), text("OS_USERNAME")?, text("OS_PASSWORD")?)
    }

    fn of(auth_type: Option<&str>, user: Option<String>, password: Option<String>) -> Result<Self> {
        match auth_type {
            Some("http_basic") => {
                let user =
                    user.context("OS_AUTH_TYPE is http_basic, and OS_USERNAME is not set")?;
                ensure!(
                    !user.contains(':'),
                    "OS_USERNAME has a colon, which user names cannot have"
                );
                let password =
                    password.context("OS_AUTH_TYPE is http_basic, and OS_PASSWORD is not set")?;
                Ok(Self(Some((user, password))))
            }
            None | Some("") => Ok(Self(user.zip(password))),
            // Other types belong to other services.
            Some(_) => Ok(Self(None)),
        }
    }

    /// Adds the login to a request.
    pub fn sign(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.0 {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    /// The remedy for an error status that means a missing or wrong login.
    #[must_use]
    pub fn hint(&self, status: StatusCode) -> &'static str {
        match (status, &self.0) {
            (StatusCode::UNAUTHORIZED, None) => {
                " (set OS_AUTH_TYPE=http_basic, OS_USERNAME and OS_PASSWORD)"
            }
            (StatusCode::UNAUTHORIZED, Some(_)) => " (check OS_USERNAME and OS_PASSWORD)",
            _ => "",
        }
    }
}

/// Refuses a URL with a password, which would be visible in errors and in process lists.
///
/// # Errors
/// The remedy.
pub fn without_password(url: &Url) -> Result<()> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(());
    }
    bail!(
        "the API's URL has a user in it: leave that out, and set OS_USERNAME and OS_PASSWORD instead"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(auth_type: Option<&str>, user: Option<&str>, password: Option<&str>) -> ApiLogin {
        of(auth_type, user, password).unwrap()
    }

    fn of(auth_type: Option<&str>, user: Option<&str>, password: Option<&str>) -> Result<ApiLogin> {
        ApiLogin::of(auth_type, user.map(str::to_owned), password.map(str::to_owned))
    }

    #[test]
    fn the_environment_says_who_asks_as_it_does_to_ironics_clients() {
        let ann = ApiLogin(Some(("ann".to_owned(), "secret".to_owned())));

        assert_eq!(login(Some("http_basic"), Some("ann"), Some("secret")), ann);
        assert_eq!(login(None, Some("ann"), Some("secret")), ann);
        assert_eq!(login(Some("none"), Some("ann"), Some("secret")), ApiLogin(None));
        assert_eq!(login(Some("password"), Some("ann"), Some("secret")), ApiLogin(None));
        assert_eq!(login(None, None, None), ApiLogin(None));
        assert!(!format!("{ann:?}").contains("secret"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let said = |user, password| of(Some("http_basic"), user, password).unwrap_err().to_string();

        assert!(said(None, Some("secret")).contains("OS_USERNAME"));
        assert!(said(Some("ann"), None).contains("OS_PASSWORD"));
        assert!(said(Some("a:b"), Some("secret")).contains("colon"));
        let url = "http://ann:secret@127.0.0.1:6385".parse().unwrap();
        let refused = without_password(&url).unwrap_err().to_string();
        assert!(!refused.contains("secret"), "{refused}");
    }
}
