//! The HTTP transport for nv-redfish: like its own client, but with a size limit and errors without URLs.

use futures::future::ready;
use http::header::{self, HeaderMap};
use nv_redfish_bmc_http::{
    BmcCredentials, CacheableError, HttpClient, ModificationDecodeError, RejectedUriReferenceError,
    RequestError, decode_modification, decode_poll,
};
use nv_redfish_core::{
    ActionError, BmcError, BmcErrorClass, BoxTryStream, DecodeError, HttpPushUriUpdateRequest,
    ModificationResponse, MultipartUpdateRequest, ODataETag, Repair, SessionCreateResponse,
    UploadReader,
};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use transport::answers::{ANSWER_LIMIT, AnswerError, read_body, read_error, read_json, reason};
use url::Url;

/// nv-redfish's transport: one request, one answer of at most [`ANSWER_LIMIT`] bytes. The daemon reads no registries,
/// which may be longer.
#[derive(Clone, Debug)]
pub struct RedfishClient(Client);

/// The reason why a request to a BMC failed.
#[derive(Debug, Error)]
pub enum RedfishHttpError {
    /// The answer is missing or incomplete.
    #[error("{0}")]
    Transport(String),
    /// The BMC refused.
    #[error("it answered {status}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The error message, shortened.
        body: String,
    },
    /// The answer is not JSON.
    #[error("the answer is no JSON: {0}")]
    NoJson(serde_json::Error),
    /// The answer is JSON of another form.
    #[error("the answer has another form than expected, at {}: {}", .0.path(), .0.inner())]
    Form(DecodeError),
    /// The request is impossible.
    #[error("{0}")]
    Request(String),
}

impl RedfishClient {
    /// Uses `client`, which has a total timeout and follows no redirects.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    async fn send(
        &self,
        request: RequestBuilder,
        credentials: Option<&BmcCredentials>,
        headers: &HeaderMap,
    ) -> Result<(Url, StatusCode, HeaderMap, Vec<u8>), RedfishHttpError> {
        let request = match credentials {
            Some(BmcCredentials::UsernamePassword { username, password }) => {
                request.basic_auth(username, password.as_ref())
            }
            Some(BmcCredentials::Token { token }) => request.header("X-Auth-Token", token),
            Some(BmcCredentials::Anonymous) | None => request,
        };
        let answer = request.headers(headers.clone()).send().await.map_err(transport)?;
        let (url, status) = (answer.url().clone(), answer.status());
        if !status.is_success() {
            return Err(RedfishHttpError::Refused { status, body: read_error(answer).await });
        }
        let headers = answer.headers().clone();
        let body = body_of(answer, status).await?;
        Ok((url, status, headers, body))
    }

    async fn modify<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        credentials: &BmcCredentials,
        headers: &HeaderMap,
    ) -> Result<ModificationResponse<T>, RedfishHttpError> {
        let (url, status, headers, body) = self.send(request, Some(credentials), headers).await?;
        Ok(decode_modification(&url, status, &headers, &body)?)
    }
}

async fn body_of(answer: Response, status: StatusCode) -> Result<Vec<u8>, RedfishHttpError> {
    match (read_body(answer, ANSWER_LIMIT).await, status) {
        (_, StatusCode::NO_CONTENT) => Ok(Vec::new()),
        (Ok(body), _) => Ok(body),
        // The request was accepted; its result is read by a later request.
        (Err(AnswerError::BrokeOff(_)), StatusCode::ACCEPTED) => Ok(Vec::new()),
        (Err(AnswerError::BrokeOff(error)), _) => Err(transport(error)),
        (Err(error @ AnswerError::TooLong { .. }), _) => {
            Err(RedfishHttpError::Transport(error.to_string()))
        }
    }
}

fn transport(error: reqwest::Error) -> RedfishHttpError {
    RedfishHttpError::Transport(reason(&error))
}

fn unused<T>() -> Result<T, RedfishHttpError> {
    Err(RedfishHttpError::Request("the daemon makes no such request".to_owned()))
}

impl HttpClient for RedfishClient {
    type Error = RedfishHttpError;

    async fn get<T>(
        &self,
        url: Url,
        credentials: &BmcCredentials,
        etag: Option<ODataETag>,
        custom_headers: &HeaderMap,
        repair: &impl Repair,
    ) -> Result<T, Self::Error>
    where
        T: DeserializeOwned + Send + Sync,
    {
        let mut request = self.0.get(url);
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag.to_string());
        }
        let (_, _, headers, body) = self.send(request, Some(credentials), custom_headers).await?;
        let mut value = read_json(body).await.map_err(RedfishHttpError::NoJson)?;
        repair.repair(&mut value);
        // Some BMCs send the ETag only in the header.
        if let (Some(etag), Value::Object(resource)) = (headers.get(header::ETAG), &mut value)
            && let Ok(etag) = etag.to_str()
        {
            resource.insert("@odata.etag".to_owned(), etag.into());
        }
        serde_path_to_error::deserialize(value).map_err(RedfishHttpError::Form)
    }

    async fn poll<T>(
        &self,
        url: Url,
        credentials: &BmcCredentials,
        custom_headers: &HeaderMap,
    ) -> Result<ModificationResponse<T>, Self::Error>
    where
        T: DeserializeOwned + Send + Sync,
    {
        let request = self.0.get(url);
        let (url, status, headers, body) =
            self.send(request, Some(credentials), custom_headers).await?;
        Ok(decode_poll(&url, status, &headers, &body)?)
    }

    async fn post<B, T>(
        &self,
        url: Url,
        body: &B,
        credentials: &BmcCredentials,
        custom_headers: &HeaderMap,
    ) -> Result<ModificationResponse<T>, Self::Error>
    where
        B: Serialize + Send + Sync,
        T: DeserializeOwned + Send + Sync,
    {
        self.modify(self.0.post(url).json(body), credentials, custom_headers).await
    }

    async fn patch<B, T>(
        &self,
        url: Url,
        etag: ODataETag,
        body: &B,
        credentials: &BmcCredentials,
        custom_headers: &HeaderMap,
    ) -> Result<ModificationResponse<T>, Self::Error>
    where
        B: Serialize + Send + Sync,
        T: DeserializeOwned + Send + Sync,
    {
        let request = self.0.patch(url).header(header::IF_MATCH, etag.to_string()).json(body);
        self.modify(request, credentials, custom_headers).await
    }

    async fn delete<T>(
        &self,
        url: Url,
        credentials: &BmcCredentials,
        custom_headers: &HeaderMap,
    ) -> Result<ModificationResponse<T>, Self::Error>
    where
        T: DeserializeOwned + Send + Sync,
    {
        self.modify(self.0.delete(url), credentials, custom_headers).await
    }

    fn post_session<B, T>(
        &self,
        _: Url,
        _: &B,
        _: &HeaderMap,
    ) -> impl Future<Output = Result<SessionCreateResponse<T>, Self::Error>> + Send
    where
        B: Serialize + Send + Sync,
        T: DeserializeOwned + Send + Sync,
    {
        ready(unused())
    }

    fn post_multipart_update<U, V, T>(
        &self,
        _: Url,
        _: MultipartUpdateRequest<'_, U, V>,
        _: &BmcCredentials,
        _: &HeaderMap,
    ) -> impl Future<Output = Result<ModificationResponse<T>, Self::Error>> + Send
    where
        U: UploadReader,
        T: DeserializeOwned + Send + Sync,
        V: Serialize + Send + Sync,
    {
        ready(unused())
    }

    fn post_http_push_uri_update<U, T>(
        &self,
        _: Url,
        _: HttpPushUriUpdateRequest<U>,
        _: &BmcCredentials,
        _: &HeaderMap,
    ) -> impl Future<Output = Result<ModificationResponse<T>, Self::Error>> + Send
    where
        U: UploadReader,
        T: DeserializeOwned + Send + Sync,
    {
        ready(unused())
    }

    fn sse<T: Sized + for<'de> Deserialize<'de> + Send>(
        &self,
        _: Url,
        _: &BmcCredentials,
        _: &HeaderMap,
    ) -> impl Future<Output = Result<BoxTryStream<T, Self::Error>, Self::Error>> + Send {
        ready(unused())
    }
}

impl BmcError for RedfishHttpError {
    fn error_class(&self) -> BmcErrorClass {
        match self {
            Self::Transport(_) => BmcErrorClass::Transport,
            Self::Refused { status, .. } => BmcErrorClass::HttpResponse { status: status.as_u16() },
            Self::NoJson(_) | Self::Form(_) => BmcErrorClass::ResponseParse,
            Self::Request(_) => BmcErrorClass::Other,
        }
    }

    fn response_body(&self) -> Option<&str> {
        match self {
            Self::Refused { body, .. } => Some(body),
            Self::Transport(_) | Self::NoJson(_) | Self::Form(_) | Self::Request(_) => None,
        }
    }

    fn into_decode_error(self) -> Result<DecodeError, Self> {
        match self {
            Self::Form(error) => Ok(error),
            other @ (Self::Transport(_)
            | Self::Refused { .. }
            | Self::NoJson(_)
            | Self::Request(_)) => Err(other),
        }
    }
}

impl From<ModificationDecodeError> for RedfishHttpError {
    fn from(error: ModificationDecodeError) -> Self {
        match error {
            ModificationDecodeError::InvalidResponse { status, text, .. } => {
                Self::Refused { status, body: text }
            }
            ModificationDecodeError::Json(error) => Self::NoJson(error),
            ModificationDecodeError::Decode(error) => Self::Form(error),
            // The enum may get more variants.
            error => Self::Request(error.to_string()),
        }
    }
}

impl ActionError for RedfishHttpError {
    fn not_supported() -> Self {
        Self::Request("the BMC does not offer this action".to_owned())
    }
}

impl RequestError for RedfishHttpError {
    fn rejected_uri_reference(error: RejectedUriReferenceError) -> Self {
        Self::Request(error.reason)
    }
}

/// Nothing is cached.
impl CacheableError for RedfishHttpError {
    fn is_cached(&self) -> bool {
        false
    }

    fn cache_miss() -> Self {
        Self::Request("nothing is kept".to_owned())
    }

    fn cache_error(reason: String) -> Self {
        Self::Request(reason)
    }
}
