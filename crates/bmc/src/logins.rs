//! The users of the BMCs: one, or those of a file.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use redfish::emulator::EmulatedUsers;
use sha2::{Digest as _, Sha256};
use transport::htpasswd::Htpasswd;

use crate::config::BmcConfig;

/// The users of the configuration. The file is read once.
pub(crate) fn users(config: &BmcConfig) -> Result<EmulatedUsers> {
    if let Some(path) = &config.users_file {
        let (users, _) = Htpasswd::read(path)?;
        return Ok(of_file(users));
    }
    match (&config.username, &config.password) {
        (Some(username), Some(password)) => Ok(EmulatedUsers::one(username, password)),
        _ => bail!("the configuration has no user"),
    }
}

fn of_file(users: Htpasswd) -> EmulatedUsers {
    // bcrypt takes tens of milliseconds by design: a password that was right is not computed again.
    let right: Mutex<HashSet<[u8; 32]>> = Mutex::default();
    EmulatedUsers::checked(move |user, password| {
        let (known, hash) = users.hash_of(user, 0);
        let mut digest = Sha256::new();
        for part in [hash.as_str(), user, password] {
            digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let mut right = right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.contains(&digest) {
            return true;
        }
        // bcrypt sees 72 bytes, and repeats a password with a NUL after it.
        let fits = password.len() <= 72 && !password.contains('\0');
        let is_right = fits && bcrypt::verify(password, hash.as_str()).unwrap_or(false);
        if is_right && known.is_some() {
            right.insert(digest);
        }
        is_right && known.is_some()
    })
}

#[cfg(test)]
mod tests {
    use http::Method;
    use redfish::emulator::{Emulator, EmulatorRequest, Platform};

    use super::*;

    #[test]
    fn a_user_of_the_file_logs_in_with_its_password() {
        let hash = bcrypt::hash_with_salt("secret", 4, [7; 16]).unwrap();
        let line = format!("ann:{}\n", hash.format_for_version(bcrypt::Version::TwoY));
        let mut emulator = Emulator::with_users(of_file(Htpasswd::parse(&line).unwrap()));
        emulator.add_system("1", &[], Platform::Generic);
        for (authorization, status) in [
            ("Basic YW5uOnNlY3JldA==", 200),
            ("Basic YW5uOnNlY3JldA==", 200),
            ("Basic YW5uOndyb25n", 401),
            ("Basic Ym9iOnNlY3JldA==", 401),
        ] {
            let request = EmulatorRequest {
                method: &Method::GET,
                path: "/redfish/v1/Systems",
                authorization: Some(authorization),
                session_token: None,
                if_match: None,
                body: b"",
                fresh: "",
                now: std::time::Duration::ZERO,
            };
            assert_eq!(emulator.answer(&request).0.status.as_u16(), status, "{authorization}");
        }
    }
}
