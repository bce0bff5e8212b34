//! Neutron, configured by `extra_dhcp_opts` of its ports, as in Ironic.
//!
//! Neutron's DHCP agent or OVN sends these options to every client of a port alike.

pub mod keystone;

use std::collections::HashSet;

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::{BoxFuture, FutureExt as _, ready};
use http::StatusCode;
use netboot::providers::announcement::{AnnouncedPort, Announcement};
use netboot::providers::neutron::{
    gone, has_link, known, list_of, options_for, options_of, path_of, present,
};
use netboot::providers::picture::Picture;
use provision::text::shown_url;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use transport::answers::{read_body, read_json};
use url::Url;

use crate::provider::{But, Provider, all_well};
use crate::settings::NeutronConfig;

/// Ironic's `[neutron]request_timeout`, for a whole exchange.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(45);

/// Size limit of an answer in bytes: Keystone's catalogue of a large cloud has 1 MiB, 50 ports have 200 KiB.
const LONGEST_ANSWER: usize = 16 << 20;

/// Number of ports in one request; each is in the URL of the request.
const AT_ONCE: usize = 50;

/// Neutron's API, with the credentials.
#[derive(Debug)]
pub struct Neutron {
    settings: NeutronConfig,
    client: Client,
    /// From Keystone; kept until it is refused.
    session: Mutex<Option<Session>>,
}

/// The URL and the token.
#[derive(Clone, Debug)]
struct Session {
    url: Url,
    token: Option<String>,
}

impl Neutron {
    /// The Neutron in the settings. Nothing is sent yet.
    ///
    /// # Errors
    /// No client can be created.
    pub fn new(settings: &NeutronConfig) -> Result<Self> {
        // A redirect would send the password or the token elsewhere.
        let client =
            Client::builder().timeout(PATIENCE).redirect(Policy::none()).no_proxy().build();
        let client = client.context("cannot make a client for Neutron")?;
        Ok(Self { settings: settings.clone(), client, session: Mutex::default() })
    }

    /// Checks that Keystone and Neutron answer, and permit reading ports.
    ///
    /// # Errors
    /// The one that does not.
    pub async fn answers(&self) -> Result<String> {
        self.ask(Method::GET, "v2.0/ports?limit=1", None).await?;
        Ok(format!("answers at {}", shown_url(&self.session().await?.url)))
    }

    /// As in Ironic: sets the options of all existing Neutron ports; one success suffices.
    async fn put(&self, told: &Announcement) -> Result<But> {
        let options = options_of(told)?;
        let mut failed = But::new();
        let ports = known(&told.ports);
        for port in &ports {
            if let Err(error) = self.put_port(port, &options).await {
                failed.push(format!("port {}: {error:#}", port.mac));
            }
        }
        ensure!(failed.is_empty() || failed.len() < ports.len(), failed.join("; "));
        Ok(failed)
    }

    async fn put_port(&self, port: &AnnouncedPort, options: &[Value]) -> Result<()> {
        let found = self.find(port).await?;
        let options = options_for(options, &found);
        ensure!(
            !options.is_empty(),
            "Neutron's port has no address of the family that url in [boot] has"
        );
        self.set(&found, &options).await
    }

    /// Removes the options of ended boots; others stay.
    async fn take_back(&self, over: &[Announcement]) -> Result<()> {
        let ports: Vec<_> = over.iter().flat_map(|told| &told.ports).collect();
        let tickets = over.iter().map(Announcement::ticket).collect();
        self.clear_all(&ports, &tickets).await
    }

    async fn clear_all(&self, ports: &[&AnnouncedPort], tickets: &HashSet<&str>) -> Result<()> {
        let (by_id, by_mac): (Vec<&AnnouncedPort>, Vec<_>) =
            ports.iter().partition(|port| port.vif.is_some());
        let by_id = by_id.iter().filter_map(|port| Some(("id", port.vif.clone()?)));
        let by_mac = by_mac.iter().map(|port| ("mac_address", port.mac.to_string()));
        let mut done = Vec::new();
        for list in [by_id.collect::<Vec<_>>(), by_mac.collect()] {
            for some in list.chunks(AT_ONCE) {
                done.push(self.clear(some, tickets).await);
            }
        }
        all_well(done)
    }

    async fn clear(&self, ports: &[(&str, String)], tickets: &HashSet<&str>) -> Result<()> {
        let answer = self.ask(Method::GET, &list_of(ports), None).await?;
        let found = answer["ports"].as_array().context("it gave no list of ports")?;
        let mut done = Vec::new();
        for port in found.iter().filter(|port| has_link(port, tickets)) {
            done.push(self.set(port, &present(port)).await);
        }
        all_well(done)
    }

    /// The Neutron port of a port: the operator's setting, otherwise the one with its MAC address.
    async fn find(&self, port: &AnnouncedPort) -> Result<Value> {
        if let Some(id) = &port.vif {
            let mut answer = self.ask(Method::GET, &path_of(id), None).await?;
            return Ok(answer["port"].take());
        }
        let path = format!("v2.0/ports?mac_address={}", port.mac);
        let mut answer = self.ask(Method::GET, &path, None).await?;
        let ports = answer["ports"].as_array_mut().context("it gave no list of ports")?;
        match ports.len() {
            0 => bail!(
                "it has no port with the MAC address {}: make one, or write its id down as \
                 vif_port_id in extra of the node's port",
                port.mac
            ),
            1 => Ok(ports.remove(0)),
            more => bail!(
                "it has {more} ports with the MAC address {}: write down which as vif_port_id in \
                 extra of the node's port",
                port.mac
            ),
        }
    }

    async fn set(&self, port: &Value, options: &[Value]) -> Result<()> {
        let id = port["id"].as_str().context("it gave a port without an id")?;
        let body = json!({"port": {"extra_dhcp_opts": options}});
        self.ask(Method::PUT, &path_of(id), Some(&body)).await.map(drop)
    }

    /// Retries with a new token if the current one has expired.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        for attempt in 0.. {
            let session = self.session().await?;
            let url = format!("{}/{path}", session.url.as_str().trim_end_matches('/'));
            let mut request = self.client.request(method.clone(), &url);
            if let Some(token) = &session.token {
                request = request.header("X-Auth-Token", token);
            }
            let request = if let Some(body) = body { request.json(body) } else { request };
            let answer = request.send().await.context("Neutron cannot be reached")?;
            if answer.status() == StatusCode::UNAUTHORIZED
                && session.token.is_some()
                && attempt == 0
            {
                *self.session.lock().await = None;
                continue;
            }
            return read(answer).await.with_context(|| format!("Neutron, {method} {path}"));
        }
        unreachable!("the second attempt returns")
    }

    async fn session(&self) -> Result<Session> {
        let mut session = self.session.lock().await;
        if let Some(session) = &*session {
            return Ok(session.clone());
        }
        let opened = self.open_session().await?;
        *session = Some(opened.clone());
        Ok(opened)
    }

    async fn open_session(&self) -> Result<Session> {
        let settings = &self.settings;
        let Some(auth_url) = &settings.auth_url else {
            let url = settings.url.clone().context("neither url nor auth_url of Neutron is set")?;
            return Ok(Session { url, token: None });
        };
        let (token, catalogue) = self.log_in(auth_url).await.context("Keystone")?;
        let url = match &settings.url {
            Some(url) => url.clone(),
            None => keystone::endpoint(&catalogue, settings.region_name.as_deref()).context(
                "Keystone's catalogue has no public network service: set url in [dhcp.neutron]",
            )?,
        };
        Ok(Session { url, token: Some(token) })
    }

    /// The token, and the rest of Keystone's answer (Identity API v3, password authentication).
    async fn log_in(&self, auth_url: &Url) -> Result<(String, Value)> {
        let settings = &self.settings;
        let file = settings.password_file.as_ref().context("password_file is not set")?;
        let password = tokio::fs::read_to_string(file).await;
        let password = password.with_context(|| format!("cannot read {}", file.display()))?;
        let base = auth_url.as_str().trim_end_matches('/').trim_end_matches("/v3");
        let request = self.client.post(format!("{base}/v3/auth/tokens"));
        let answer = send(request.json(&keystone::log_in(settings, password.trim_end()))).await?;
        let token = answer.headers().get("X-Subject-Token").and_then(|token| token.to_str().ok());
        let token = token.map(str::to_owned);
        let body = read(answer).await?;
        Ok((token.context("it gave no token")?, body))
    }
}

impl Provider for Neutron {
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<But>> {
        self.put(told).boxed()
    }

    fn amend<'a>(
        &'a self,
        before: &'a Announcement,
        now: &'a Announcement,
    ) -> BoxFuture<'a, Result<But>> {
        async move {
            let tickets = HashSet::from([before.ticket()]);
            let gone = self.clear_all(&gone(before, now), &tickets).await;
            let but = self.put(now).await?;
            gone.map(|()| but)
        }
        .boxed()
    }

    fn withdraw<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        self.take_back(std::slice::from_ref(told)).boxed()
    }

    fn reconcile<'a>(&'a self, picture: &'a Picture) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut done = vec![self.take_back(&picture.over).await];
            for one in &picture.told {
                let put = self.put(one).await.map(drop);
                done.push(put.with_context(|| format!("the boot of node {}", one.node)));
            }
            all_well(done)
        }
        .boxed()
    }

    /// Neutron stores the options in its database; changes by other parties are their responsibility.
    fn has_forgotten<'a>(&'a self, _: &'a [Announcement]) -> BoxFuture<'a, Result<bool>> {
        ready(Ok(false)).boxed()
    }
}

async fn send(request: RequestBuilder) -> Result<reqwest::Response> {
    request.send().await.context("cannot be reached")
}

/// The body of a success, or the error message of a failure.
async fn read(answer: reqwest::Response) -> Result<Value> {
    let status = answer.status();
    let body = read_body(answer, LONGEST_ANSWER).await?;
    let body: Value = read_json(body).await.unwrap_or(Value::Null);
    if status.is_success() {
        return Ok(body);
    }
    ensure!(
        !status.is_redirection(),
        "it answered {status}, and redirects are not followed: set the URL that it leads to"
    );
    let message = [&body["NeutronError"]["message"], &body["error"]["message"]];
    let words = message.into_iter().find_map(Value::as_str).unwrap_or("no reason");
    bail!("it answered {status}: {words}")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex as SyncMutex};

    use axum::Router;
    use axum::extract::{Request, State};
    use axum::response::{IntoResponse, Response};
    use netboot::providers::test_announcements::{announcement, next_boot, plain_port};
    use provision::BootInterface::Http;
    use tokio::net::TcpListener;
    use transport::test_servers::{Hostility, hostile_server};

    use super::*;

    const URL: &str = "http://10.77.0.1:8080/boot/TICKET/bootx64.efi";
    const FIND: &str = "GET /v2.0/ports?mac_address=52:54:00:00:00:01";
    const LOOK: &str =
        "GET /v2.0/ports?fields=id&fields=extra_dhcp_opts&mac_address=52%3A54%3A00%3A00%3A00%3A01";

    const GLANCE: &str = "GET /v2.0/ports?limit=1";

    /// A server with recorded answers of Neutron 29 and Keystone, which keeps the requests.
    #[derive(Clone, Default)]
    struct Recorded {
        asked: Arc<SyncMutex<Vec<(String, Value)>>>,
        tokens: Arc<SyncMutex<u32>>,
    }

    async fn answer(State(recorded): State<Recorded>, request: Request) -> Response {
        let path = request.uri().path_and_query().unwrap().to_string();
        let line = format!("{} {path}", request.method());
        let token = request.headers().get("X-Auth-Token").cloned();
        let body = axum::body::to_bytes(request.into_body(), 65_536).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        recorded.asked.lock().unwrap().push((line.clone(), body));
        if line == "POST /v3/auth/tokens" {
            let mut tokens = recorded.tokens.lock().unwrap();
            *tokens += 1;
            let headers = [("X-Subject-Token", format!("token-{tokens}"))];
            return (StatusCode::CREATED, headers, json!({"token": {}}).to_string())
                .into_response();
        }
        // The first token has expired.
        if token.is_some_and(|token| token == "token-1") {
            return (StatusCode::UNAUTHORIZED, "").into_response();
        }
        let port = json!({
            "id": "db528128", "mac_address": "52:54:00:00:00:01",
            "fixed_ips": [{"subnet_id": "a3a7c092", "ip_address": "10.77.0.13"}],
            "extra_dhcp_opts": [
                {"opt_name": "67", "opt_value": URL, "ip_version": 4},
                {"opt_name": "60", "opt_value": "HTTPClient", "ip_version": 4},
            ],
        });
        let answer = match line.as_str() {
            FIND | LOOK | GLANCE => json!({"ports": [port]}),
            "PUT /v2.0/ports/db528128" => json!({"port": port}),
            _ => {
                let error = json!({"NeutronError": {
                    "type": "PortNotFound", "message": "Port x could not be found.", "detail": "",
                }});
                return (StatusCode::NOT_FOUND, error.to_string()).into_response();
            }
        };
        answer.to_string().into_response()
    }

    async fn recorded() -> (Recorded, Url) {
        let recorded = Recorded::default();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(answer).with_state(recorded.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (recorded, url)
    }

    #[tokio::test]
    async fn an_answer_without_end_and_a_redirect_in_circles_are_refused() {
        for (hostility, words) in [
            (Hostility::Endless, "the answer has more than 16777216 bytes"),
            (Hostility::Redirects, "redirects are not followed"),
        ] {
            let url = format!("http://{}/", hostile_server(hostility).await).parse().unwrap();
            let settings = NeutronConfig { url: Some(url), ..NeutronConfig::default() };
            let refused = neutron(&settings).answers().await.unwrap_err();
            assert!(format!("{refused:#}").contains(words), "{refused:#}");
        }
    }

    fn neutron(settings: &NeutronConfig) -> Neutron {
        // The following calls need a crypto provider, though nothing is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Neutron::new(settings).unwrap()
    }

    #[tokio::test]
    async fn whether_it_can_be_told_is_known_before_a_machine_boots() {
        let (recorded, url) = recorded().await;
        let there = NeutronConfig { url: Some(url.clone()), ..NeutronConfig::default() };
        let gone = NeutronConfig { url: Some(url.join("x/").unwrap()), ..there.clone() };

        let said = neutron(&there).answers().await.unwrap();
        let refused = neutron(&gone).answers().await.unwrap_err();

        assert_eq!(said, format!("answers at {url}"));
        assert_eq!(recorded.asked.lock().unwrap()[0].0, GLANCE);
        assert!(format!("{refused:#}").contains("could not be found"), "{refused:#}");
    }

    #[tokio::test]
    async fn a_port_is_found_by_its_mac_address_told_and_made_to_forget() {
        let (recorded, url) = recorded().await;
        let neutron = neutron(&NeutronConfig { url: Some(url), ..NeutronConfig::default() });
        let told = announcement(Http, "10.77.0.1:8080");

        neutron.announce(&told).await.unwrap();
        neutron.withdraw(&told).await.unwrap();

        let asked = recorded.asked.lock().unwrap();
        let lines: Vec<_> = asked.iter().map(|(line, _)| line.as_str()).collect();
        let put = "PUT /v2.0/ports/db528128";
        assert_eq!(lines, [FIND, put, LOOK, put]);
        let options = json!([
            {"opt_name": "67", "opt_value": URL, "ip_version": 4},
            {"opt_name": "60", "opt_value": "HTTPClient", "ip_version": 4},
        ]);
        assert_eq!(asked[1].1, json!({"port": {"extra_dhcp_opts": options}}));
        let gone = json!([
            {"opt_name": "67", "opt_value": null, "ip_version": 4},
            {"opt_name": "60", "opt_value": null, "ip_version": 4},
        ]);
        assert_eq!(asked[3].1, json!({"port": {"extra_dhcp_opts": gone}}));
    }

    #[tokio::test]
    async fn after_a_crash_what_a_boot_left_is_deleted_and_what_another_has_told_stays() {
        let (recorded, url) = recorded().await;
        let neutron = neutron(&NeutronConfig { url: Some(url), ..NeutronConfig::default() });
        let first = announcement(Http, "10.0.0.1");
        let next = next_boot(&first);

        let over = |over| Picture { over: vec![over], ..Picture::default() };
        neutron.reconcile(&over(next)).await.unwrap();
        neutron.reconcile(&over(first)).await.unwrap();

        let asked = recorded.asked.lock().unwrap();
        let lines: Vec<_> = asked.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(lines, [LOOK, LOOK, "PUT /v2.0/ports/db528128"]);
    }

    #[tokio::test]
    async fn a_token_that_has_run_out_is_replaced() {
        let (recorded, url) = recorded().await;
        let dir = tempfile::tempdir().unwrap();
        let password_file = dir.path().join("password");
        std::fs::write(&password_file, "secret\n").unwrap();
        let neutron = neutron(&NeutronConfig {
            auth_url: Some(url.join("v3").unwrap()),
            url: Some(url),
            username: "ferroboot".to_owned(),
            project_name: "service".to_owned(),
            password_file: Some(password_file),
            ..NeutronConfig::default()
        });

        neutron.announce(&announcement(Http, "10.77.0.1")).await.unwrap();

        assert_eq!(*recorded.tokens.lock().unwrap(), 2);
        let log_in = recorded.asked.lock().unwrap()[0].1.clone();
        let user = &log_in["auth"]["identity"]["password"]["user"];
        assert_eq!(
            (&user["password"], &user["domain"]["name"]),
            (&json!("secret"), &json!("Default"))
        );
    }

    #[tokio::test]
    async fn one_port_that_is_told_is_enough_and_of_the_others_it_is_said_why_not() {
        let (recorded, url) = recorded().await;
        let neutron = neutron(&NeutronConfig { url: Some(url), ..NeutronConfig::default() });
        let mut told = announcement(Http, "10.77.0.1");
        told.ports.insert(0, plain_port(9));

        let but = neutron.announce(&told).await.unwrap();

        assert!(but.len() == 1 && but[0].starts_with("port 52:54:00:00:00:09: "), "{but:?}");
        // With an operator's setting, no other port is searched.
        recorded.asked.lock().unwrap().clear();
        told.ports[0].vif = Some("x".to_owned());
        neutron.announce(&told).await.unwrap_err();
        assert_eq!(recorded.asked.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_boot_that_cannot_be_told_keeps_no_other_from_being_told_or_deleted() {
        let (recorded, url) = recorded().await;
        let neutron = neutron(&NeutronConfig { url: Some(url), ..NeutronConfig::default() });
        let good = announcement(Http, "10.77.0.1");
        let mut bad = next_boot(&good);
        bad.ports = vec![plain_port(9)];
        let over = vec![good.clone()];
        let picture = Picture { told: vec![bad, good], over, ..Picture::default() };

        let failed = neutron.reconcile(&picture).await.unwrap_err().to_string();

        assert!(
            failed.starts_with(&format!("the boot of node {}: ", picture.told[0].node)),
            "{failed}"
        );
        let asked = recorded.asked.lock().unwrap();
        let puts = asked.iter().filter(|(line, _)| line.starts_with("PUT"));
        assert_eq!(puts.count(), 2);
    }

    #[tokio::test]
    async fn a_port_that_a_node_loses_in_the_middle_of_its_boot_loses_its_options() {
        let (recorded, url) = recorded().await;
        let neutron = neutron(&NeutronConfig { url: Some(url), ..NeutronConfig::default() });
        let now = announcement(Http, "10.77.0.1");
        let mut before = now.clone();
        before.ports.push(plain_port(9));

        neutron.amend(&before, &now).await.unwrap_err();

        let look = LOOK.replace("%3A01", "%3A09");
        let asked = recorded.asked.lock().unwrap();
        let lines: Vec<_> = asked.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(lines, [&*look, FIND, "PUT /v2.0/ports/db528128"]);
    }

    #[tokio::test]
    async fn neutrons_own_words_say_why_not() {
        let (_, url) = recorded().await;
        let neutron = neutron(&NeutronConfig { url: Some(url), ..NeutronConfig::default() });
        let mut told = announcement(Http, "10.77.0.1");
        told.ports[0].vif = Some("x".to_owned());

        let refused = neutron.announce(&told).await.unwrap_err();

        assert!(format!("{refused:#}").ends_with("404 Not Found: Port x could not be found."));
    }

    /// Needs a network, an IPv4 subnet, and a port with the MAC address 52:54:00:00:00:01.
    #[tokio::test]
    #[ignore = "needs a Neutron without authentication at http://127.0.0.1:9696"]
    async fn a_real_neutron_keeps_and_forgets_what_it_is_told() {
        let url: Url = "http://127.0.0.1:9696".parse().unwrap();
        let neutron = neutron(&NeutronConfig { url: Some(url), ..NeutronConfig::default() });
        let told = announcement(Http, "10.77.0.1:8080");
        let options = async || {
            let port = neutron.find(&told.ports[0]).await.unwrap();
            port["extra_dhcp_opts"].as_array().unwrap().len()
        };

        neutron.announce(&told).await.unwrap();
        assert_eq!(options().await, 2);
        neutron.announce(&told).await.unwrap();
        assert_eq!(options().await, 2);
        neutron.withdraw(&told).await.unwrap();
        assert_eq!(options().await, 0);
    }
}
