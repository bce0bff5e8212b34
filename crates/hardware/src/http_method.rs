//! HTTP methods in traces.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The method of an HTTP request that a trace lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum HttpMethod {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
    /// `DELETE`.
    Delete,
    /// A method that no request of ours has, in the words of a client.
    Unusual(String),
}

impl HttpMethod {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Unusual(name) => name,
        }
    }

    /// The text of a client in it.
    pub fn text(&mut self) -> Option<&mut String> {
        match self {
            Self::Get | Self::Head | Self::Post | Self::Put | Self::Patch | Self::Delete => None,
            Self::Unusual(name) => Some(name),
        }
    }
}

impl From<String> for HttpMethod {
    fn from(name: String) -> Self {
        match name.as_str() {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => Self::Unusual(name),
        }
    }
}

impl FromStr for HttpMethod {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(name.to_owned().into())
    }
}

impl From<HttpMethod> for String {
    fn from(method: HttpMethod) -> Self {
        method.as_str().to_owned()
    }
}

impl fmt::Display for HttpMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_read_back_from_its_name() {
        for name in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "get"] {
            let method = HttpMethod::from(name.to_owned());

            assert_eq!(method.as_str(), name);
            assert_eq!(
                matches!(method, HttpMethod::Unusual(_)),
                ["PROPFIND", "get"].contains(&name)
            );
        }
    }
}
