//! What is made of certificates, kept for each address of the service.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::certificate_pair::ServerCertificates;

/// Number limit of addresses: a wildcard route may give a host any number of them.
pub(crate) const MOST_ADDRESSES: usize = 256;

/// The latest value of each address, made anew when its certificates change.
pub(crate) struct AddressCache<T>(Mutex<HashMap<IpAddr, (Arc<ServerCertificates>, T)>>);

impl<T> Default for AddressCache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> AddressCache<T> {
    /// The value for an address; `make` makes it of the certificates.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn get(
        &self,
        near: IpAddr,
        certificates: Arc<ServerCertificates>,
        make: impl FnOnce(&ServerCertificates) -> Result<T>,
    ) -> Result<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, value)) = kept.get(&near)
            && Arc::ptr_eq(of, &certificates)
        {
            return Ok(value.clone());
        }
        let value = make(&certificates)?;
        if kept.len() >= MOST_ADDRESSES {
            kept.clear();
        }
        kept.insert(near, (certificates, value.clone()));
        Ok(value)
    }
}
