//! Helpers for statements: values in and out, conditions, names of constraints.

use hardware::Mac;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Any, Row, query::Query};
use uuid::Uuid;

use crate::error::StoreError;

/// A value to bind to a statement.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Mac> for Value {
    fn from(mac: Mac) -> Self {
        Self::Text(mac.to_string())
    }
}

impl From<Uuid> for Value {
    fn from(uuid: Uuid) -> Self {
        Self::Text(uuid.to_string())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Number(flag.into())
    }
}

/// A `WHERE` clause, built condition by condition, with its values.
#[derive(Debug, Default)]
pub(crate) struct Where {
    text: String,
    values: Vec<Value>,
}

impl Where {
    /// Adds a condition without values.
    pub(crate) fn holds(&mut self, condition: &str) {
        self.text.push_str(if self.text.is_empty() { " WHERE " } else { " AND " });
        self.text.push_str(condition);
    }

    /// Adds `column = value`, if there is a value.
    pub(crate) fn equals(&mut self, column: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            let place = self.place(value);
            self.holds(&format!("{column} = {place}"));
        }
    }

    /// Adds `column IN (values)`, which is false without values.
    pub(crate) fn is_one_of(
        &mut self,
        column: &str,
        values: impl IntoIterator<Item = impl Into<Value>>,
    ) {
        let places: Vec<_> = values.into_iter().map(|value| self.place(value)).collect();
        match &places[..] {
            // PostgreSQL rejects an empty list.
            [] => self.holds("1 = 0"),
            places => self.holds(&format!("{column} IN ({})", places.join(", "))),
        }
    }

    /// The `$n` of a value; values are bound in this order.
    pub(crate) fn place(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    /// The clause, for between `FROM table` and `ORDER BY`.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Binds the values to a statement that contains the clause.
    pub(crate) fn bind(self, statement: Statement<'_>) -> Statement<'_> {
        self.values.into_iter().fold(statement, |statement, value| match value {
            Value::Text(text) => statement.bind(text),
            Value::Number(number) => statement.bind(number),
        })
    }
}

pub(crate) type Statement<'a> = Query<'a, Any, AnyArguments>;

pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// `time` plus `duration` in microseconds, saturated at the end of time.
pub(crate) fn micros_after(time: Timestamp, duration: SignedDuration) -> i64 {
    let sum = i128::from(micros(time)) + duration.as_micros();
    i64::try_from(sum).unwrap_or(i64::MAX)
}

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our types have text keys and no failing serializers")
}

pub(crate) fn parsed<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Unreadable { what, source })
}

/// The document in the column `name` of a row.
pub(crate) fn document<T: DeserializeOwned>(
    row: &AnyRow,
    name: &'static str,
) -> Result<T, StoreError> {
    parsed(row.try_get(name)?, name)
}

pub(crate) fn uuid(row: &AnyRow, name: &'static str) -> Result<Uuid, StoreError> {
    let text: &str = row.try_get(name)?;
    Uuid::parse_str(text)
        .map_err(|_| StoreError::OutOfRange { what: "UUID", value: text.to_owned() })
}

pub(crate) fn time(row: &AnyRow, name: &'static str) -> Result<Timestamp, StoreError> {
    let micros: i64 = row.try_get(name)?;
    Timestamp::from_microsecond(micros)
        .map_err(|_| StoreError::OutOfRange { what: "time", value: micros.to_string() })
}

/// Whether a statement failed because `table.column` must be unique.
///
/// SQLite reports `UNIQUE constraint failed: nodes.name`; PostgreSQL names the constraint, `nodes_name_key`, or
/// `nodes_pkey` for the primary key `uuid`.
pub(crate) fn duplicates(error: &sqlx::Error, table: &str, column: &str) -> bool {
    let Some(error) = error.as_database_error().filter(|error| error.is_unique_violation()) else {
        return false;
    };
    let constraint =
        if column == "uuid" { format!("{table}_pkey") } else { format!("{table}_{column}_key") };
    let message = error.message();
    message.ends_with(&format!("{table}.{column}")) || message.contains(&constraint)
}
