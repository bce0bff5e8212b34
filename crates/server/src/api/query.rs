//! The query of a request: filters, fields, and the page of a list.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use ironic::ClientView;
use ironic::field::{self, Field};
use ironic::query::{self, QueryArgument};
use ironic::{Fields, Version};
use serde_json::Value;
use store::SortDirection;
use url::form_urlencoded;
use uuid::Uuid;

use crate::error::ApiError;

/// The arguments of a query. The last of several equal names counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        if query.contains("%00") {
            return Err(ApiError::bad_request("A NUL is part of no value."));
        }
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Query {
    /// Takes an argument.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Refuses arguments that are in none of `tables`, or newer than the version.
    pub(super) fn expect(
        &self,
        tables: &[&[QueryArgument]],
        version: Version,
    ) -> Result<(), ApiError> {
        Ok(query::check(self.0.keys().map(String::as_str), tables, version)?)
    }

    /// Takes a Boolean argument.
    pub(super) fn take_boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        field::boolean(&text).map(Some).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Invalid {name}: Unrecognized value '{text}', acceptable values are: \
                 '0', '1', 'f', 'false', 'n', 'no', 'off', 'on', 't', 'true', 'y', 'yes'"
            ))
        })
    }

    /// Takes an argument that is a UUID.
    pub(super) fn take_uuid(&mut self, name: &str) -> Result<Option<Uuid>, ApiError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        Uuid::try_parse(&text)
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("Expected UUID for {name}: {text}")))
    }

    /// Takes the sort direction.
    pub(super) fn take_direction(&mut self) -> Result<SortDirection, ApiError> {
        match self.take("sort_dir").as_deref() {
            None | Some("asc") => Ok(SortDirection::Ascending),
            Some("desc") => Ok(SortDirection::Descending),
            Some(other) => Err(ApiError::bad_request(format!(
                "Invalid sort direction: {other}. Acceptable values are 'asc' or 'desc'"
            ))),
        }
    }

    /// Takes the fields of a single resource's answer.
    pub(super) fn take_fields(
        &mut self,
        table: &[Field],
        version: Version,
    ) -> Result<Fields, ApiError> {
        match self.take("fields") {
            Some(list) => Ok(Fields::parse(&list, table, version)?),
            None => Ok(Fields::All),
        }
    }

    /// Takes the fields of list entries; by default `listed`.
    pub(super) fn take_listed_fields(
        &mut self,
        table: &[Field],
        listed: &[&'static str],
        version: Version,
    ) -> Result<Fields, ApiError> {
        let detail = self.take_boolean("detail")?.unwrap_or(false);
        match (self.take("fields"), detail) {
            (Some(_), true) => {
                Err(ApiError::bad_request("Can't fetch a subset of fields with 'detail' set"))
            }
            (Some(list), false) => Ok(Fields::parse(&list, table, version)?),
            (None, true) => Ok(Fields::All),
            (None, false) => Ok(Fields::Only(listed.to_vec())),
        }
    }
}

/// The requested page of a list.
#[derive(Clone, Debug)]
pub(super) struct PageRequest {
    /// The size of the page.
    pub(super) limit: u32,
    /// The last entry of the previous page.
    pub(super) marker: Option<Uuid>,
    /// The whole query, which the link to the next page repeats.
    asked: Query,
}

impl PageRequest {
    /// Ironic's `[api]max_limit`.
    const MAX: u32 = 1_000;

    /// Takes the page. Must be called before other arguments are taken, since the link to the next page contains all
    /// of them.
    pub(super) fn take(query: &mut Query) -> Result<Self, ApiError> {
        let asked = query.clone();
        let limit = match query.take("limit") {
            None => Self::MAX,
            Some(text) => match text.trim().parse::<i64>() {
                Ok(limit) if limit > 0 => u32::try_from(limit).unwrap_or(Self::MAX).min(Self::MAX),
                Ok(_) => return Err(ApiError::bad_request("Limit must be positive")),
                Err(_) => {
                    let text = format!("Expected an integer for limit: {text}");
                    return Err(ApiError::bad_request(text));
                }
            },
        };
        Ok(Self { limit, marker: query.take_uuid("marker")?, asked })
    }

    /// The answer: the list `name`, with a link to the next page if this one is full.
    pub(super) fn show(
        &self,
        view: &ClientView,
        path: &str,
        name: &str,
        shown: Vec<Value>,
        last: Option<Uuid>,
    ) -> Value {
        let next = last.filter(|_| shown.len() == self.limit as usize);
        let mut out = field::Object::new();
        out.insert(name.to_owned(), Value::Array(shown));
        if let Some(last) = next {
            out.insert("next".to_owned(), self.after(view, path, last).into());
        }
        Value::Object(out)
    }

    fn after(&self, view: &ClientView, path: &str, last: Uuid) -> String {
        let mut next = form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.asked.0.iter().filter(|(name, _)| *name != "marker") {
            next.append_pair(name, value);
        }
        next.append_pair("marker", &last.to_string());
        format!("{}?{}", view.url(path), next.finish())
    }
}
