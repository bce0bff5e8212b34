//! An agent that nobody can call: it fetches the calls to it over its own connections.

use std::net::Ipv4Addr;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::bmc::NO_FAULTS;
use super::daemons::database;
use super::{World, client_at};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// An agent whose callback URL leads nowhere.
struct FetchingAgent {
    http: Client,
    daemon: Ipv4Addr,
    node: String,
    token: String,
    commands: Vec<Value>,
    /// The answer to the last call.
    last: Value,
}

impl FetchingAgent {
    /// Fetches the image of the node's boot, and looks the node up.
    async fn start(world: &World, last: u8) -> Self {
        let http = client_at([127, 88, 0, last]);
        let node = world.node_in("clean wait").await;
        let node = node["uuid"].as_str().unwrap().to_owned();
        world.fetches(&http).await;
        let lookup = http
            .get(format!("http://{}:6386/v1/lookup?node_uuid={node}", world.address))
            .header("x-openstack-ironic-api-version", "1.62")
            .header("x-ferroboot-channel", "1");
        let lookup: Value = lookup.send().await.unwrap().json().await.unwrap();
        assert_eq!(lookup["config"]["ferroboot_channel"], 1, "{lookup}");
        let token = lookup["config"]["agent_token"].as_str().unwrap().to_owned();
        Self { http, daemon: world.address, node, token, commands: Vec::new(), last: Value::Null }
    }

    /// Sends heartbeats until one is accepted.
    async fn heartbeat(&self) {
        while self.try_heartbeat().await != StatusCode::ACCEPTED {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// 409 while a worker holds the node, and 404 once the attempt is over.
    async fn try_heartbeat(&self) -> StatusCode {
        let heartbeat = json!({
            "callback_url": "https://203.0.113.1:9999", "agent_token": self.token,
            "agent_version": "1", "ferroboot_channel_key": KEY,
        });
        let at = format!("http://{}:6386/v1/heartbeat/{}", self.daemon, self.node);
        let request = self.http.post(&at).header("x-openstack-ironic-api-version", "1.68");
        request.json(&heartbeat).send().await.unwrap().status()
    }

    fn request(&self, key: &str) -> RequestBuilder {
        self.http
            .post(format!("http://{}:6386/v1/heartbeat/{}/calls", self.daemon, self.node))
            .header("x-openstack-ironic-api-version", "1.62")
            .header("x-ferroboot-channel-key", key)
    }

    /// Fetches the next call, with the answer to the last one.
    async fn fetch(&self, answer: Option<&Value>) -> Option<Value> {
        let request = self.request(KEY);
        let request = answer.into_iter().fold(request, RequestBuilder::json);
        let answered = request.send().await.unwrap();
        match answered.status() {
            StatusCode::OK => Some(answered.json().await.unwrap()),
            // The daemon has not read another daemon's change yet, or the attempt is over.
            StatusCode::NOT_FOUND => {
                sleep(Duration::from_millis(20)).await;
                None
            }
            status => {
                assert_eq!(status, StatusCode::NO_CONTENT);
                None
            }
        }
    }

    /// Carries a call out, once. Steps are done at once.
    fn carry_out(&mut self, call: &Value) -> Value {
        if self.last["id"] == call["id"] {
            return self.last.clone();
        }
        let body = if call["call"] == "list" {
            json!({ "commands": self.commands })
        } else {
            let (name, params) = (&call["command"]["name"], &call["command"]["params"]);
            let result = if *name == "clean.get_clean_steps" {
                let step = json!({
                    "step": "erase_devices_metadata", "interface": "deploy", "priority": 10,
                });
                json!({ "clean_steps": { "own": [step] }, "hardware_manager_version": { "own": "1" } })
            } else {
                json!({ "clean_result": null, "clean_step": params["step"] })
            };
            self.commands.push(json!({
                "id": self.commands.len().to_string(),
                "command_name": name.as_str().unwrap().trim_start_matches("clean."),
                "command_params": params, "command_status": "SUCCEEDED", "command_result": result,
            }));
            self.commands.last().unwrap().clone()
        };
        self.last = json!({ "id": call["id"], "status": 200, "body": body });
        self.last.clone()
    }

    /// The names of the commands so far.
    fn names(&self) -> Vec<&str> {
        self.commands.iter().map(|command| command["command_name"].as_str().unwrap()).collect()
    }

    /// Answers calls until the node is at rest.
    async fn serve(&mut self, world: &World) {
        let mut answer: Option<Value> = None;
        loop {
            if answer.is_none() {
                let node = world.api(Method::GET, "/v1/nodes/n1", Value::Null).await;
                match node["provision_state"].as_str().unwrap() {
                    // A worker that holds the node may wait for an answer.
                    "clean wait" => _ = self.try_heartbeat().await,
                    "manageable" => return,
                    state => assert_eq!(state, "cleaning"),
                }
            }
            let next = tokio::time::timeout(Duration::from_secs(1), self.fetch(answer.as_ref()));
            let Ok(next) = next.await else { continue };
            answer = next.map(|call| self.carry_out(&call));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_nobody_can_call_is_cleaned_by_an_agent_that_fetches_its_calls() {
    let world = World::new(90, NO_FAULTS).await;
    world.clean().await;
    let mut agent = FetchingAgent::start(&world, 90).await;

    agent.serve(&world).await;

    assert_eq!(agent.names(), ["get_clean_steps", "execute_clean_step"]);
    let trace = world.api(Method::GET, "/v1/nodes/n1/boot-trace", Value::Null).await.to_string();
    assert!(trace.contains("fetches_calls"), "{trace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_the_agent_fetched_before_the_daemon_died_is_sent_once() {
    let mut world = World::new(91, NO_FAULTS).await;
    world.clean().await;
    let mut agent = FetchingAgent::start(&world, 91).await;
    agent.heartbeat().await;
    let mut answer = None;
    let step = loop {
        let next = agent.fetch(answer.take().as_ref()).await;
        match next {
            Some(call) if call["command"]["name"] == "clean.execute_clean_step" => break call,
            Some(call) => answer = Some(agent.carry_out(&call)),
            None => {}
        }
    };

    agent.carry_out(&step);
    world.die();
    world.start().await;
    agent.serve(&world).await;

    assert_eq!(agent.names(), ["get_clean_steps", "execute_clean_step"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_to_the_first_agent_of_the_attempt_alone_and_only_while_it_lasts() {
    let world = World::new(92, NO_FAULTS).await;
    world.clean().await;
    let agent = FetchingAgent::start(&world, 92).await;
    let status = async |key: &str| agent.request(key).send().await.unwrap().status();
    assert_eq!(status(KEY).await, StatusCode::NOT_FOUND, "no heartbeat has come");
    agent.heartbeat().await;

    for wrong in ["", &agent.token, "0123456789abcdef0123456789abcdee"] {
        assert_eq!(status(wrong).await, StatusCode::NOT_FOUND, "{wrong}");
    }
    assert_eq!(status(KEY).await, StatusCode::OK);
    let bad = agent.request(KEY).json(&json!({ "id": 7 })).send().await.unwrap().status();
    assert_eq!(bad, StatusCode::BAD_REQUEST);
    let long = json!({ "id": "x".repeat(2 << 20) });
    let long = agent.request(KEY).json(&long).send().await;
    assert!(long.is_err() || long.unwrap().status() == StatusCode::PAYLOAD_TOO_LARGE);

    world.begin("abort").await;
    world.node_in("clean failed").await;
    assert_eq!(status(KEY).await, StatusCode::NOT_FOUND, "the attempt is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_fetches_from_one_daemon_what_another_calls() {
    let Some(database) = database().await else { return };
    let first = World::with(93, NO_FAULTS, &database).await;
    let second = World::beside(&first, 94, "two").await;
    first.clean().await;
    let mut agent = FetchingAgent::start(&first, 93).await;
    agent.daemon = second.address;

    agent.serve(&first).await;

    assert_eq!(agent.names(), ["get_clean_steps", "execute_clean_step"]);
}
