//! Ironic's disk hints (`root_device`, `skip_block_devices`), matched as in ironic-python-agent.
//!
//! Here they protect disks, so an unsupported hint is an error: its author wanted to keep a disk.

use serde_json::{Map, Value};
use thiserror::Error;

const GIB: u64 = 1 << 30;

/// The properties of a disk. Texts are compared case-insensitively.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traits {
    /// `/dev/sda`
    pub name: String,
    /// Size in bytes.
    pub len: u64,
    /// As reported by the disk.
    pub model: Option<String>,
    /// As reported by the disk.
    pub vendor: Option<String>,
    /// As reported by the disk.
    pub serial: Option<String>,
    /// World-wide name, `0x5000c500…` or `eui.…`.
    pub wwn: Option<String>,
    /// The world-wide name with its vendor's extension, if it has one.
    pub wwn_with_extension: Option<String>,
    /// SCSI address: host, channel, target, unit.
    pub hctl: Option<String>,
    /// Whether it is a rotating disk.
    pub rotational: Option<bool>,
}

/// A hint, which matches disks with all of its properties.
#[derive(Debug, Clone, PartialEq)]
pub struct Hint(Vec<Condition>);

#[derive(Debug, Clone, PartialEq)]
enum Condition {
    Text(Trait, TextTest),
    /// Size in bytes.
    Size(SizeTest, u64),
    Rotational(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trait {
    Hctl,
    Model,
    Name,
    Serial,
    Vendor,
    Wwn,
    WwnWithExtension,
}

/// The operators of oslo.utils' specs_matcher for texts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TextTest {
    Is(String),
    IsNot(String),
    Contains(Vec<String>),
    IsOneOf(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SizeTest {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
    More,
    Less,
}

/// The reason for rejecting a hint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HintError {
    /// The hint is not an object with at least one key.
    #[error("a disk hint is an object with at least one key, not {0}")]
    NoObject(String),
    /// The property is unknown, or not detected by this agent.
    #[error("this agent cannot select a disk by its {0:?}")]
    Unknown(String),
    /// The value or operator is invalid for the property.
    #[error("disk hint {name:?} has a value that this agent does not support: {value}")]
    Value {
        /// The property.
        name: String,
        /// The value.
        value: String,
    },
}

impl Hint {
    /// Parses a hint.
    ///
    /// # Errors
    ///
    /// Any part of it is unsupported.
    pub fn parse(hint: &Value) -> Result<Self, HintError> {
        match hint.as_object().filter(|hint| !hint.is_empty()) {
            Some(hint) => conditions(hint).map(Self),
            None => Err(HintError::NoObject(hint.to_string())),
        }
    }

    /// Whether the hint matches the disk. A property that the disk lacks matches nothing.
    pub fn fits(&self, disk: &Traits) -> bool {
        self.0.iter().all(|condition| condition.fits(disk))
    }
}

fn conditions(hint: &Map<String, Value>) -> Result<Vec<Condition>, HintError> {
    let condition = |(name, value): (&String, &Value)| {
        let wrong = || HintError::Value { name: name.clone(), value: value.to_string() };
        let text = |subject| Some(Condition::Text(subject, TextTest::parse(value.as_str()?)?));
        match name.as_str() {
            "hctl" => text(Trait::Hctl),
            "model" => text(Trait::Model),
            "name" => text(Trait::Name),
            "serial" => text(Trait::Serial),
            "vendor" => text(Trait::Vendor),
            "wwn" => text(Trait::Wwn),
            "wwn_with_extension" => text(Trait::WwnWithExtension),
            "rotational" => truth(value).map(Condition::Rotational),
            "size" => size(value),
            unknown => return Err(HintError::Unknown(unknown.to_owned())),
        }
        .ok_or_else(wrong)
    };
    hint.iter().map(condition).collect()
}

impl TextTest {
    fn parse(expression: &str) -> Option<Self> {
        let expression = expression.trim().to_lowercase();
        let several = |operator: &str, values: &str| -> Option<Vec<String>> {
            let values: Vec<_> = values.split(operator).map(|value| value.trim().into()).collect();
            values.iter().all(|value: &String| !value.is_empty()).then_some(values)
        };
        let one = |value: &str| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        if let Some(value) = expression.strip_prefix("s==") {
            return one(value).map(Self::Is);
        }
        if let Some(value) = expression.strip_prefix("s!=") {
            return one(value).map(Self::IsNot);
        }
        if let Some(value) = expression.strip_prefix("<in>") {
            return one(value).map(|value| Self::Contains(vec![value]));
        }
        if let Some(values) = expression.strip_prefix("<all-in>") {
            let words: Vec<_> = values.split_whitespace().map(str::to_owned).collect();
            return (!words.is_empty()).then_some(Self::Contains(words));
        }
        if let Some(values) = expression.strip_prefix("<or>") {
            return several("<or>", values).map(Self::IsOneOf);
        }
        // Any other operator orders texts or is for numbers.
        let operator = expression.starts_with(['<', '>', '=', '!']) || expression.starts_with("s<");
        if operator || expression.starts_with("s>") {
            return None;
        }
        one(&expression).map(Self::Is)
    }

    fn holds(&self, value: &str) -> bool {
        let value = value.trim().to_lowercase();
        match self {
            Self::Is(wanted) => value == *wanted,
            Self::IsNot(unwanted) => value != *unwanted,
            Self::Contains(parts) => parts.iter().all(|part| value.contains(part)),
            Self::IsOneOf(wanted) => wanted.contains(&value),
        }
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
        // The words that oslo.utils' bool_from_string accepts.
        Value::String(text) => match text.trim().to_lowercase().as_str() {
            "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
            "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
            _ => None,
        },
    }
}

/// A size in GiB. As in specs_matcher, a bare number means equality, and `=` means at least.
fn size(value: &Value) -> Option<Condition> {
    const OPERATORS: [(&str, SizeTest); 7] = [
        (">=", SizeTest::AtLeast),
        ("<=", SizeTest::AtMost),
        ("==", SizeTest::Equal),
        ("!=", SizeTest::NotEqual),
        ("=", SizeTest::AtLeast),
        (">", SizeTest::More),
        ("<", SizeTest::Less),
    ];
    if let Some(number) = value.as_u64() {
        return gib(&number.to_string()).map(|bytes| Condition::Size(SizeTest::Equal, bytes));
    }
    let text = value.as_str()?.trim();
    let with_operator =
        OPERATORS.iter().find_map(|(operator, test)| Some((*test, text.strip_prefix(operator)?)));
    let (test, number) = with_operator.unwrap_or((SizeTest::Equal, text));
    gib(number).map(|bytes| Condition::Size(test, bytes))
}

fn gib(number: &str) -> Option<u64> {
    let number: u32 = number.trim().parse().ok()?;
    (number > 0).then(|| u64::from(number) * GIB)
}

impl SizeTest {
    fn holds(self, len: u64, bytes: u64) -> bool {
        match self {
            Self::Equal => len == bytes,
            Self::NotEqual => len != bytes,
            Self::AtLeast => len >= bytes,
            Self::AtMost => len <= bytes,
            Self::More => len > bytes,
            Self::Less => len < bytes,
        }
    }
}

impl Condition {
    fn fits(&self, disk: &Traits) -> bool {
        match self {
            Self::Text(subject, test) => {
                let value = match subject {
                    Trait::Hctl => disk.hctl.as_deref(),
                    Trait::Model => disk.model.as_deref(),
                    Trait::Name => Some(disk.name.as_str()),
                    Trait::Serial => disk.serial.as_deref(),
                    Trait::Vendor => disk.vendor.as_deref(),
                    Trait::Wwn => disk.wwn.as_deref(),
                    Trait::WwnWithExtension => disk.wwn_with_extension.as_deref(),
                };
                value.is_some_and(|value| test.holds(value))
            }
            Self::Size(test, bytes) => test.holds(disk.len, *bytes),
            Self::Rotational(wanted) => disk.rotational == Some(*wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_disk_is_told_by_any_of_its_traits() {
        let fitting = [
            json!({"name": "/dev/sda"}),
            json!({"serial": "s== wd-42"}),
            json!({"model": "<in> gold"}),
            json!({"model": "<all-in> wd gold"}),
            json!({"vendor": "<or> intel <or> ata"}),
            json!({"wwn": "0x50014EE2", "rotational": "yes"}),
            json!({"size": 4000}),
            json!({"size": ">= 4000"}),
            json!({"size": "= 100"}),
            json!({"hctl": "0:0:1:0", "rotational": true}),
        ];
        for hint in fitting {
            assert!(Hint::parse(&hint).unwrap().fits(&disk()), "{hint}");
        }
        let other = [
            json!({"name": "/dev/sda", "size": "< 4000"}),
            json!({"serial": "s!= WD-42"}),
            json!({"vendor": "intel"}),
            json!({"rotational": "false"}),
            json!({"wwn_with_extension": "0x50014ee2"}),
        ];
        for hint in other {
            assert!(!Hint::parse(&hint).unwrap().fits(&disk()), "{hint}");
        }
    }

    #[test]
    fn a_hint_that_is_not_understood_is_refused_rather_than_ignored() {
        let refused = [
            (json!({}), "a disk hint is an object with at least one key, not {}"),
            (json!({"by_path": "x"}), r#"this agent cannot select a disk by its "by_path""#),
            (
                json!({"size": "big"}),
                r#"disk hint "size" has a value that this agent does not support: "big""#,
            ),
            (
                json!({"name": "s>= /dev/sda"}),
                r#"disk hint "name" has a value that this agent does not support: "s>= /dev/sda""#,
            ),
        ];
        for (hint, words) in refused {
            assert_eq!(Hint::parse(&hint).unwrap_err().to_string(), words);
        }
    }

    proptest! {
        #[test]
        fn any_hint_is_read_without_panic(name in "[a-z_]{0,12}|size|model|name", value: String, number: u64) {
            for value in [json!(value), json!(number)] {
                if let Ok(hint) = Hint::parse(&json!({ name.clone(): value })) {
                    hint.fits(&disk());
                }
            }
        }
    }

    fn disk() -> Traits {
        Traits {
            name: "/dev/sda".to_owned(),
            len: 4000 << 30,
            model: Some("WD Gold".to_owned()),
            vendor: Some("ATA     ".to_owned()),
            serial: Some("WD-42".to_owned()),
            wwn: Some("0x50014ee2".to_owned()),
            wwn_with_extension: None,
            hctl: Some("0:0:1:0".to_owned()),
            rotational: Some(true),
        }
    }
}
