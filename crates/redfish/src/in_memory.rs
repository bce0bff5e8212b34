//! The emulator behind nv-redfish's `Bmc` trait, for tests without sockets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nv_redfish_core::query::ExpandQuery;
use nv_redfish_core::{
    Action, Bmc, BmcError, BmcErrorClass, BoxTryStream, EntityTypeRef, Expandable, FilterQuery,
    HttpPushUriUpdateRequest, ModificationResponse, MultipartUpdateRequest, ODataETag, ODataId,
    Repair, RepairError, SessionCreateResponse, UploadReader,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::emulator::{
    EmulatedPower, Emulator, EmulatorRequest, NextBoot, Personality, Platform, PowerEffect,
};

/// A BMC with one system, `1`, whose machine starts at once and never ends by itself.
pub(crate) struct InMemoryBmc {
    emulator: Mutex<Emulator>,
    booted: Mutex<Option<NextBoot>>,
    /// The answer to every GET, instead of the emulator's.
    shown: Option<Value>,
}

/// The transport's error for an unexpected answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InMemoryError {
    #[error("status {status}")]
    Status { status: u16, body: String },
    #[error("not understood: {0}")]
    Body(#[from] serde_json::Error),
}

impl BmcError for InMemoryError {
    fn error_class(&self) -> BmcErrorClass {
        match self {
            Self::Status { status, .. } => BmcErrorClass::HttpResponse { status: *status },
            Self::Body(_) => BmcErrorClass::ResponseParse,
        }
    }

    fn response_body(&self) -> Option<&str> {
        match self {
            Self::Status { body, .. } => Some(body),
            Self::Body(_) => None,
        }
    }
}

impl InMemoryBmc {
    pub(crate) fn new(personality: Personality) -> Self {
        let mut emulator = Emulator::new("admin", "secret");
        emulator.add_system("1", &["52:54:00:00:00:01".to_owned()], Platform::Generic);
        emulator.set_faults(personality.rules());
        Self { emulator: Mutex::new(emulator), booted: Mutex::default(), shown: None }
    }

    /// A BMC whose resources all have this body.
    pub(crate) fn showing(body: Value) -> Self {
        Self { shown: Some(body), ..Self::new(Personality::default()) }
    }

    pub(crate) fn power(&self) -> EmulatedPower {
        self.emulator.lock().unwrap().power("1").unwrap()
    }

    pub(crate) fn booted_from(&self) -> Option<String> {
        match self.booted.lock().unwrap().clone() {
            Some(NextBoot::Url(url)) => Some(url),
            Some(
                NextBoot::Http { .. } | NextBoot::Pxe { .. } | NextBoot::Cd(_) | NextBoot::Usual,
            )
            | None => None,
        }
    }

    fn answer(
        &self,
        method: http::Method,
        path: &str,
        if_match: Option<&str>,
        body: &[u8],
    ) -> Result<Value, InMemoryError> {
        let mut emulator = self.emulator.lock().unwrap();
        let request = EmulatorRequest {
            method: &method,
            path,
            // `admin:secret`.
            authorization: Some("Basic YWRtaW46c2VjcmV0"),
            session_token: None,
            if_match,
            body,
            fresh: "fresh",
            now: Duration::ZERO,
        };
        let (response, effect) = emulator.answer(&request);
        if let Some(effect) = effect {
            match effect {
                PowerEffect::Start { system } => {
                    *self.booted.lock().unwrap() = emulator.starts(&system, request.now);
                }
                PowerEffect::Stop { system } | PowerEffect::ShutDown { system } => {
                    emulator.stopped(&system, request.now)
                }
                PowerEffect::Interrupt { .. } => {}
                PowerEffect::Restart { system } => {
                    emulator.stopped(&system, request.now);
                    *self.booted.lock().unwrap() = emulator.starts(&system, request.now);
                }
            }
        }
        let body = response.body.unwrap_or(Value::Null);
        if response.status.is_success() {
            Ok(body)
        } else {
            Err(InMemoryError::Status { status: response.status.as_u16(), body: body.to_string() })
        }
    }

    fn modify<R: for<'de> Deserialize<'de>>(
        &self,
        method: http::Method,
        path: &str,
        if_match: Option<&str>,
        body: &impl Serialize,
    ) -> Result<ModificationResponse<R>, InMemoryError> {
        let value = self.answer(method, path, if_match, &serde_json::to_vec(body)?)?;
        if value.is_null() {
            return Ok(ModificationResponse::Empty);
        }
        Ok(ModificationResponse::Entity(serde_json::from_value(value)?))
    }
}

impl Bmc for InMemoryBmc {
    type Error = InMemoryError;

    async fn get<T: EntityTypeRef + for<'de> Deserialize<'de> + 'static>(
        &self,
        id: &ODataId,
    ) -> Result<Arc<T>, InMemoryError> {
        let value = match &self.shown {
            Some(body) => body.clone(),
            None => self.answer(http::Method::GET, &id.to_string(), None, b"")?,
        };
        Ok(Arc::new(serde_json::from_value(value)?))
    }

    async fn update<V: Sync + Send + Serialize, R: Send + Sync + for<'de> Deserialize<'de>>(
        &self,
        id: &ODataId,
        etag: Option<&ODataETag>,
        update: &V,
    ) -> Result<ModificationResponse<R>, InMemoryError> {
        let if_match = etag.map_or_else(|| "*".to_owned(), ToString::to_string);
        self.modify(http::Method::PATCH, &id.to_string(), Some(&if_match), update)
    }

    async fn action<T: Send + Sync + Serialize, R: Send + Sync + for<'de> Deserialize<'de>>(
        &self,
        action: &Action<T, R>,
        params: &T,
    ) -> Result<ModificationResponse<R>, InMemoryError> {
        self.modify(http::Method::POST, action.target.as_str(), None, params)
    }

    async fn expand<T: Expandable>(
        &self,
        _: &ODataId,
        _: ExpandQuery,
    ) -> Result<Arc<T>, InMemoryError> {
        unreachable!("not used by the client")
    }

    async fn filter<T: EntityTypeRef + for<'de> Deserialize<'de> + 'static>(
        &self,
        _: &ODataId,
        _: FilterQuery,
    ) -> Result<Arc<T>, InMemoryError> {
        unreachable!("not used by the client")
    }

    async fn get_repaired<T: EntityTypeRef + for<'de> Deserialize<'de> + 'static>(
        &self,
        _: &ODataId,
        _: &impl Repair,
    ) -> Result<Arc<T>, RepairError<InMemoryError>> {
        unreachable!("not used by the client")
    }

    async fn expand_repaired<T: Expandable>(
        &self,
        _: &ODataId,
        _: ExpandQuery,
        _: &impl Repair,
    ) -> Result<Arc<T>, RepairError<InMemoryError>> {
        unreachable!("not used by the client")
    }

    async fn filter_repaired<T: EntityTypeRef + for<'de> Deserialize<'de> + 'static>(
        &self,
        _: &ODataId,
        _: FilterQuery,
        _: &impl Repair,
    ) -> Result<Arc<T>, RepairError<InMemoryError>> {
        unreachable!("not used by the client")
    }

    async fn create<V: Send + Sync + Serialize, R: Send + Sync + for<'de> Deserialize<'de>>(
        &self,
        _: &ODataId,
        _: &V,
    ) -> Result<ModificationResponse<R>, InMemoryError> {
        unreachable!("not used by the client")
    }

    async fn create_session<
        V: Send + Sync + Serialize,
        R: Send + Sync + for<'de> Deserialize<'de>,
    >(
        &self,
        _: &ODataId,
        _: &V,
    ) -> Result<SessionCreateResponse<R>, InMemoryError> {
        unreachable!("not used by the client")
    }

    async fn delete<R: EntityTypeRef + for<'de> Deserialize<'de>>(
        &self,
        _: &ODataId,
    ) -> Result<ModificationResponse<R>, InMemoryError> {
        unreachable!("not used by the client")
    }

    async fn poll<R: Send + Sync + for<'de> Deserialize<'de>>(
        &self,
        _: &ODataId,
    ) -> Result<ModificationResponse<R>, InMemoryError> {
        unreachable!("not used by the client")
    }

    async fn multipart_update<U, V, R>(
        &self,
        _: &str,
        _: MultipartUpdateRequest<'_, U, V>,
    ) -> Result<ModificationResponse<R>, InMemoryError>
    where
        U: UploadReader,
        R: Send + Sync + for<'de> Deserialize<'de>,
        V: Send + Sync + Serialize,
    {
        unreachable!("not used by the client")
    }

    async fn http_push_uri_update<U, R>(
        &self,
        _: &str,
        _: HttpPushUriUpdateRequest<U>,
    ) -> Result<ModificationResponse<R>, InMemoryError>
    where
        U: UploadReader,
        R: Send + Sync + for<'de> Deserialize<'de>,
    {
        unreachable!("not used by the client")
    }

    async fn stream<T: Sized + for<'de> Deserialize<'de> + Send + 'static>(
        &self,
        _: &str,
    ) -> Result<BoxTryStream<T, InMemoryError>, InMemoryError> {
        unreachable!("not used by the client")
    }
}
