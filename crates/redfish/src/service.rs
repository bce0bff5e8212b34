//! Requests with the manners that BMCs need: repeated while the BMC is busy, restarts or tests itself; redirects on
//! the same host followed; ETags that the BMC itself refuses given up; tasks awaited.

use std::time::Duration;

use hardware::{HttpMethod, RedfishPurpose};
use http::StatusCode;
use serde_json::Value;
use url::{Position, Url};

use crate::channel::{BmcChannel, ChannelFailure, RedfishAnswer, RedfishRequest};
use crate::failure::{BmcFailure, says_nothing_of_the_request};
use crate::lenient_json::sanitized_json;
use crate::messages::RefusalReasons;
use crate::quirks;
use crate::resource::{RedfishResource, link_in, path_in};

/// Number of tries of a request without an answer.
const TRIES: u32 = 3;
/// Number limit of further pages of a collection that are read.
const MOST_PAGES: usize = 16;
/// Number of redirects that are followed: a path may get a slash, then https.
const REDIRECTS: u32 = 3;
/// The longest wait between two tries, whatever the BMC asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest wait between two readings of a task.
const LONGEST_TASK_WAIT: Duration = Duration::from_secs(10);

/// A BMC's Redfish service.
#[derive(Debug)]
pub struct RedfishService<'c, C> {
    channel: &'c C,
    /// The time for all waits of one request.
    patience: Duration,
}

impl<C> Clone for RedfishService<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for RedfishService<'_, C> {}

/// A change that the BMC has accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptedChange {
    /// The path of the task, job or new resource.
    pub location: Option<String>,
}

/// Whether a change that the BMC does later is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskEnd {
    /// Until its task is over, or waits for a reset.
    Awaited,
    /// Until its task is over, also after a reset.
    Completed,
    /// Not at all: it waits for a reset.
    AtReset,
}

/// The `If-Match` of a PATCH. BMCs with weak ETags answer 412 when one comes back, which compares strongly (RFC 9110
/// §13.1.1); some change the ETag at every GET; some refuse `*`; some require a fresh one. The new value does not
/// depend on the old one, so each is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfMatch {
    /// The ETag of the last reading, or none if it had none.
    Known,
    /// `*`.
    Any,
    /// The ETag of the last reading without the mark of a weak one (sushy's `fix-return-full-weak-etag`).
    Strong,
    /// The ETag of a new reading.
    Fresh,
    /// None.
    Absent,
}

impl IfMatch {
    /// The forms to try after the ETag of the last reading was refused.
    fn forms_after(known: Option<&str>) -> Vec<Self> {
        match (known, strong(known)) {
            (None, _) => vec![Self::Fresh],
            (Some(_), None) => vec![Self::Any, Self::Fresh, Self::Absent],
            (Some(_), Some(_)) => vec![Self::Any, Self::Strong, Self::Fresh, Self::Absent],
        }
    }

    /// Whether the BMC refused because of this form.
    fn is_refused_by(self, failure: &BmcFailure) -> bool {
        const STATUSES: [StatusCode; 2] =
            [StatusCode::PRECONDITION_FAILED, StatusCode::PRECONDITION_REQUIRED];
        let BmcFailure::Refused { status, .. } = failure else { return false };
        STATUSES.contains(status)
            || ["PreconditionFailed", "PreconditionRequired"]
                .iter()
                .any(|name| failure.has_message(name))
            || self == Self::Any && *status == StatusCode::BAD_REQUEST
    }
}

/// The value of a weak ETag.
fn strong(etag: Option<&str>) -> Option<&str> {
    etag?.strip_prefix("W/")
}

/// The waits of one request so far.
struct WaitBudget {
    left: Duration,
    next: Duration,
    longest: Duration,
}

impl WaitBudget {
    fn new(patience: Duration, longest: Duration) -> Self {
        Self { left: patience, next: Duration::from_secs(1), longest }
    }

    /// The next wait: what the BMC asks for, else twice the one before. `None` if the time is over.
    fn next(&mut self, asked: Option<Duration>, at_least: Duration) -> Option<Duration> {
        let own = self.next.max(at_least);
        let wait = asked.map_or(own, |asked| asked.max(Duration::from_secs(1))).min(self.longest);
        self.next = (own * 2).min(self.longest);
        let wait = wait.min(self.left);
        self.left -= wait;
        (!wait.is_zero()).then_some(wait)
    }
}

impl<'c, C: BmcChannel> RedfishService<'c, C> {
    /// The service behind `channel`. All waits for one request are at most `patience`.
    #[must_use]
    pub fn new(channel: &'c C, patience: Duration) -> Self {
        Self { channel, patience }
    }

    /// Waits, whatever the reason.
    pub(crate) async fn pause(&self, how_long: Duration) {
        self.channel.pause(how_long).await;
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn get(
        &self,
        purpose: RedfishPurpose,
        path: &str,
    ) -> Result<RedfishResource, BmcFailure> {
        let request = request(purpose, HttpMethod::Get, path, None);
        let mut tries = 1;
        loop {
            let (path, answer) = self.answer(&request).await?;
            match RedfishResource::of(&path, &answer) {
                Ok(resource) => return Ok(resource),
                // A BMC that restarts shows a web page for a while.
                Err(_) if tries < TRIES => {
                    tries += 1;
                    self.pause(Duration::from_secs(2)).await;
                }
                Err(message) => {
                    return Err(BmcFailure::NoAnswer { purpose, message, may_be_done: false });
                }
            }
        }
    }

    /// Reads a resource that may be missing.
    ///
    /// # Errors
    /// [`BmcFailure`] other than 404.
    pub(crate) async fn find(
        &self,
        purpose: RedfishPurpose,
        path: &str,
    ) -> Result<Option<RedfishResource>, BmcFailure> {
        match self.get(purpose, path).await {
            Ok(resource) => Ok(Some(resource)),
            Err(BmcFailure::Refused { status, .. }) if is_missing(status) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Reads a collection that may be missing, with the members of its further pages (`Members@odata.nextLink`).
    ///
    /// # Errors
    /// [`BmcFailure`] other than 404.
    pub(crate) async fn collection(
        &self,
        purpose: RedfishPurpose,
        path: &str,
    ) -> Result<Option<RedfishResource>, BmcFailure> {
        const NEXT: &str = "Members@odata.nextLink";
        let Some(mut first) = self.find(purpose, path).await? else { return Ok(None) };
        let mut next = first.body[NEXT].as_str().and_then(path_in).map(str::to_owned);
        for _ in 0..MOST_PAGES {
            let Some(path) = next.take() else { break };
            let Some(mut page) = self.find(purpose, &path).await? else { break };
            next = page.body[NEXT].as_str().and_then(path_in).map(str::to_owned);
            let (all, more) = (&mut first.body["Members"], page.body["Members"].as_array_mut());
            let (Some(all), Some(more)) = (all.as_array_mut(), more) else { break };
            all.append(more);
        }
        Ok(Some(first))
    }

    /// Changes a resource, with the ETag of its last reading.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub(crate) async fn patch(
        &self,
        purpose: RedfishPurpose,
        resource: &RedfishResource,
        body: Value,
        end: TaskEnd,
    ) -> Result<AcceptedChange, BmcFailure> {
        let path = resource.path.as_str();
        let mut request = request(purpose, HttpMethod::Patch, path, Some(body));
        request.if_match.clone_from(&resource.etag);
        let mut forms = IfMatch::forms_after(resource.etag.as_deref()).into_iter();
        let mut form = IfMatch::Known;
        loop {
            let failure = match self.answer(&request).await {
                Ok((_, answer)) => return self.accepted(purpose, answer, end).await,
                Err(failure) => failure,
            };
            if !form.is_refused_by(&failure) {
                return Err(failure);
            }
            let Some(next) = forms.next() else { return Err(failure) };
            form = next;
            request.if_match = match form {
                IfMatch::Known => resource.etag.clone(),
                IfMatch::Any => Some("*".to_owned()),
                IfMatch::Strong => strong(resource.etag.as_deref()).map(str::to_owned),
                IfMatch::Fresh => {
                    let fresh = self.get(purpose, path).await?.etag;
                    Some(fresh.unwrap_or_else(|| "*".to_owned()))
                }
                IfMatch::Absent => None,
            };
        }
    }

    /// Carries out an action, with a body or without. It is not repeated if it may have been carried out
    /// ([`BmcFailure::may_be_done`]).
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub(crate) async fn post(
        &self,
        purpose: RedfishPurpose,
        path: &str,
        body: impl Into<Option<Value>>,
    ) -> Result<AcceptedChange, BmcFailure> {
        let request = request(purpose, HttpMethod::Post, path, body.into());
        let (_, answer) = self.answer(&request).await?;
        self.accepted(purpose, answer, TaskEnd::Awaited).await
    }

    /// Deletes a resource.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub(crate) async fn delete(
        &self,
        purpose: RedfishPurpose,
        path: &str,
    ) -> Result<(), BmcFailure> {
        self.answer(&request(purpose, HttpMethod::Delete, path, None)).await.map(drop)
    }

    /// The successful answer to a request, and the path that gave it.
    async fn answer(
        &self,
        request: &RedfishRequest,
    ) -> Result<(String, RedfishAnswer), BmcFailure> {
        let purpose = request.purpose;
        let mut request = request.clone();
        let mut budget = WaitBudget::new(self.patience, LONGEST_WAIT);
        let (mut silent, mut redirects) = (0, 0);
        loop {
            let answer = match self.channel.exchange(&request).await {
                Ok(answer) => answer,
                Err(failure) => {
                    silent += 1;
                    let may_be_done = matches!(failure, ChannelFailure::BrokeOff(_));
                    let again = is_repeatable(&request, &failure) && silent < TRIES;
                    let wait = if again { budget.next(None, Duration::ZERO) } else { None };
                    let Some(wait) = wait else {
                        let message = failure.to_string();
                        return Err(BmcFailure::NoAnswer { purpose, message, may_be_done });
                    };
                    self.pause(wait).await;
                    continue;
                }
            };
            if answer.status.is_success() {
                return Ok((request.path, answer));
            }
            if answer.status.is_redirection() {
                redirects += 1;
                request.path = self.redirected(&request, &answer, redirects)?;
                continue;
            }
            let refused = refused(&request, &answer);
            if request.method == HttpMethod::Post && says_nothing_of_the_request(answer.status) {
                return Err(refused);
            }
            let at_least = quirks::wait_of_a_busy_bmc(&refused);
            let wait = at_least.and_then(|at_least| budget.next(answer.retry_after, at_least));
            let Some(wait) = wait else { return Err(refused) };
            // An internal error may pass, but seldom does.
            if answer.status == StatusCode::INTERNAL_SERVER_ERROR {
                silent += 1;
                if silent >= TRIES {
                    return Err(refused);
                }
            }
            self.pause(wait).await;
        }
    }

    /// The path that the BMC redirects to: some answer a path without its last slash with the path with it. Elsewhere,
    /// the password does not go.
    fn redirected(
        &self,
        request: &RedfishRequest,
        answer: &RedfishAnswer,
        redirects: u32,
    ) -> Result<String, BmcFailure> {
        let address = self.channel.address();
        let location = answer.location.as_deref().unwrap_or_default();
        let target = address.join(&request.path).and_then(|from| from.join(location));
        let same_host = target.as_ref().is_ok_and(|target| target.origin() == address.origin());
        match target {
            Ok(target) if same_host && !location.is_empty() && redirects <= REDIRECTS => {
                Ok(path_and_query(&target))
            }
            Ok(_) | Err(_) => {
                let shown: String = location.chars().take(200).collect();
                Err(BmcFailure::Refused {
                    purpose: request.purpose,
                    status: answer.status,
                    message: format!(
                        "it redirects to {shown:?}: if that is the BMC, set redfish_address to it"
                    ),
                    ids: Vec::new(),
                })
            }
        }
    }

    /// After a success: 202 may name a task, which is awaited. Without one, the change counts as done.
    async fn accepted(
        &self,
        purpose: RedfishPurpose,
        answer: RedfishAnswer,
        end: TaskEnd,
    ) -> Result<AcceptedChange, BmcFailure> {
        let body = sanitized_json(&answer.body);
        let in_body = || body.as_ref().and_then(link_in).map(str::to_owned);
        let location = answer.location.as_deref().and_then(|location| self.path_here(location));
        let is_task = answer.status == StatusCode::ACCEPTED;
        let location = location.or_else(|| if is_task { in_body() } else { None });
        if is_task
            && end != TaskEnd::AtReset
            && let Some(task) = &location
        {
            self.await_task(purpose, task, answer.retry_after, end).await?;
        }
        Ok(AcceptedChange { location })
    }

    fn path_here(&self, location: &str) -> Option<String> {
        let address = self.channel.address();
        let target = address.join(location).ok()?;
        (target.origin() == address.origin()).then(|| path_and_query(&target))
    }

    /// Reads a task (`Task`, DSP0266 §14), or its monitor, until it is over.
    ///
    /// # Errors
    /// [`BmcFailure::TaskFailed`], or the failure of a reading.
    pub(crate) async fn await_task(
        &self,
        purpose: RedfishPurpose,
        path: &str,
        first: Option<Duration>,
        end: TaskEnd,
    ) -> Result<(), BmcFailure> {
        let mut budget = WaitBudget::new(self.patience, LONGEST_TASK_WAIT);
        let mut asked = first;
        loop {
            let Some(wait) = budget.next(asked, Duration::ZERO) else {
                let (state, message) = ("Running".to_owned(), "it takes too long".to_owned());
                return Err(BmcFailure::TaskFailed { purpose, state, message });
            };
            self.pause(wait).await;
            let (progress, retry_after) = self.read_task(purpose, path).await?;
            asked = retry_after;
            match progress {
                TaskProgress::Over => return Ok(()),
                TaskProgress::Scheduled if end == TaskEnd::Awaited => return Ok(()),
                TaskProgress::Running | TaskProgress::Scheduled => {}
                TaskProgress::Failed { state, message } => {
                    return Err(BmcFailure::TaskFailed { purpose, state, message });
                }
            }
        }
    }

    /// Whether a task is over, by one reading.
    ///
    /// # Errors
    /// [`BmcFailure::TaskFailed`], or the failure of the reading.
    pub(crate) async fn task_is_over(
        &self,
        purpose: RedfishPurpose,
        path: &str,
    ) -> Result<bool, BmcFailure> {
        match self.read_task(purpose, path).await?.0 {
            TaskProgress::Over => Ok(true),
            TaskProgress::Running | TaskProgress::Scheduled => Ok(false),
            TaskProgress::Failed { state, message } => {
                Err(BmcFailure::TaskFailed { purpose, state, message })
            }
        }
    }

    /// Reads a task once; with the wait that the BMC asks for.
    async fn read_task(
        &self,
        purpose: RedfishPurpose,
        path: &str,
    ) -> Result<(TaskProgress, Option<Duration>), BmcFailure> {
        let request = request(RedfishPurpose::AwaitTask, HttpMethod::Get, path, None);
        match self.answer(&request).await {
            Ok((_, answer)) => Ok((task_state(&answer), answer.retry_after)),
            // A monitor ends with its task.
            Err(BmcFailure::Refused { status, .. }) if is_missing(status) => {
                Ok((TaskProgress::Over, None))
            }
            // The final answer of a monitor is that of the request.
            Err(BmcFailure::Refused { status, message, ids, .. }) => {
                Err(BmcFailure::Refused { purpose, status, message, ids })
            }
            Err(failure) => Err(failure),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum TaskProgress {
    Running,
    /// Until a reset.
    Scheduled,
    Over,
    Failed {
        state: String,
        message: String,
    },
}

/// `TaskState` of a task, or `JobState` of a job; a task's monitor answers 202 until its task is over.
fn task_state(answer: &RedfishAnswer) -> TaskProgress {
    let Some(body) =
        sanitized_json(&answer.body).or_else(|| answer.body.is_empty().then(Value::default))
    else {
        // A BMC that restarts shows a web page for a while.
        return TaskProgress::Running;
    };
    let state = body["TaskState"].as_str().or_else(|| body["JobState"].as_str());
    match state {
        Some("Completed") => match body["TaskStatus"].as_str() {
            Some("Critical") => failed_task("Critical", &body),
            Some(_) | None => TaskProgress::Over,
        },
        Some(
            state @ ("Exception"
            | "Killed"
            | "Cancelled"
            | "Interrupted"
            | "Failed"
            | "CompletedWithErrors"
            | "Invalid"),
        ) => failed_task(state, &body),
        // Of Dell's jobs: it is made, and waits for a reset.
        Some("Scheduled") => TaskProgress::Scheduled,
        Some(_) => TaskProgress::Running,
        None if answer.status == StatusCode::ACCEPTED => TaskProgress::Running,
        None => TaskProgress::Over,
    }
}

fn failed_task(state: &str, body: &Value) -> TaskProgress {
    let messages = body["Messages"].as_array().into_iter().flatten();
    let words: Vec<_> = messages.filter_map(|message| message["Message"].as_str()).collect();
    TaskProgress::Failed {
        state: state.to_owned(),
        message: words.join("; ").chars().take(500).collect(),
    }
}

fn request(
    purpose: RedfishPurpose,
    method: HttpMethod,
    path: &str,
    body: Option<Value>,
) -> RedfishRequest {
    RedfishRequest { purpose, method, path: path.to_owned(), if_match: None, body }
}

fn refused(request: &RedfishRequest, answer: &RedfishAnswer) -> BmcFailure {
    let RefusalReasons { words: message, ids } = RefusalReasons::of(request, &answer.body);
    BmcFailure::Refused { purpose: request.purpose, status: answer.status, message, ids }
}

/// What a request for a URL names after the host.
fn path_and_query(url: &Url) -> String {
    url[Position::BeforePath..Position::AfterQuery].to_owned()
}

fn is_missing(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// A POST whose answer is lost may have been carried out. All other requests do the same when repeated.
fn is_repeatable(request: &RedfishRequest, failure: &ChannelFailure) -> bool {
    match failure {
        ChannelFailure::NotConnected(_) => true,
        ChannelFailure::BrokeOff(_) => request.method != HttpMethod::Post,
        ChannelFailure::Unusable(_) => false,
    }
}
