//! Config drives: a client's data for the system of an instance, as the files that the system reads.
//!
//! cloud-init (`DataSourceConfigDrive`) and Ignition read them from a disk with the label `config-2`. A machine that
//! boots from a URL has no such disk: the files are added to its initramfs, where cloud-init looks for a seed.

use serde_json::Value;
use thiserror::Error;

/// The folder in the initramfs where cloud-init looks for a config drive's files.
pub const SEED_FOLDER: &str = "var/lib/cloud/seed/config_drive";

/// A file of a config drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigDriveFile {
    /// Its path on the drive: `openstack/latest/meta_data.json`.
    pub path: &'static str,
    /// Its contents.
    pub contents: Vec<u8>,
}

/// The reason for rejecting a config drive.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadConfigDrive {
    /// It is an image of a drive, or a URL.
    #[error(
        "this service takes a config drive as a JSON object with meta_data, user_data, network_data and vendor_data, and \
         not as an image or a URL"
    )]
    Image,
    /// It has an unknown part.
    #[error(
        "a config drive has no {0:?}; it may have meta_data, user_data, network_data and vendor_data"
    )]
    UnknownPart(String),
    /// A part has the wrong type.
    #[error("{0} is not of type 'object'")]
    NoObject(&'static str),
}

/// The parts of a config drive, and their files.
const PARTS: [(&str, &str); 4] = [
    ("meta_data", "openstack/latest/meta_data.json"),
    ("network_data", "openstack/latest/network_data.json"),
    ("user_data", "openstack/latest/user_data"),
    ("vendor_data", "openstack/latest/vendor_data2.json"),
];

/// The files of a config drive, ordered by path.
///
/// # Errors
/// [`BadConfigDrive`]
pub fn files(config_drive: &Value) -> Result<Vec<ConfigDriveFile>, BadConfigDrive> {
    let Value::Object(parts) = config_drive else { return Err(BadConfigDrive::Image) };
    if let Some(part) = parts.keys().find(|part| PARTS.iter().all(|(name, _)| name != part)) {
        return Err(BadConfigDrive::UnknownPart(part.clone()));
    }
    let mut files = Vec::new();
    for (part, path) in PARTS {
        let contents = match (part, parts.get(part)) {
            (_, None | Some(Value::Null)) => continue,
            // A script or a cloud-config, unchanged.
            ("user_data", Some(Value::String(text))) => text.clone().into_bytes(),
            ("user_data", Some(data)) => data.to_string().into_bytes(),
            (_, Some(data @ Value::Object(_))) => data.to_string().into_bytes(),
            (_, Some(_)) => return Err(BadConfigDrive::NoObject(part)),
        };
        files.push(ConfigDriveFile { path, contents });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_part_becomes_the_file_that_cloud_init_looks_for() {
        let drive =
            json!({ "meta_data": { "hostname": "web" }, "user_data": "#!/bin/sh\necho hi\n" });
        let files = files(&drive).unwrap();

        assert_eq!(files[0].path, "openstack/latest/meta_data.json");
        assert_eq!(files[0].contents, br#"{"hostname":"web"}"#);
        assert_eq!(files[1].path, "openstack/latest/user_data");
        assert_eq!(files[1].contents, b"#!/bin/sh\necho hi\n");
    }

    #[test]
    fn what_is_no_config_drive_is_refused_in_words() {
        for (drive, words) in [
            (json!("H4sIAAAA"), "JSON object"),
            (json!({ "meta": {} }), "no \"meta\""),
            (json!({ "network_data": [] }), "network_data is not"),
        ] {
            assert!(files(&drive).unwrap_err().to_string().contains(words), "{drive}");
        }
    }
}
