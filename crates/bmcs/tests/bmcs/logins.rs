//! Sessions and basic authentication.

use std::sync::Mutex;
use std::time::Duration;

use bmcs::BmcConnections;
use futures::future::join_all;
use http::header::AUTHORIZATION;
use http::request::Parts;
use redfish::channel::{ChannelFailure, RedfishAnswer};
use redfish::emulator::{EmulatedFault, Platform};
use serde_json::{Value, json};
use tokio::time::{advance, pause, resume};

use crate::test_bmc::{PASSWORD, SESSIONS, SYSTEM, TestBmc, TestTls, answer, get, status};

const LIMIT: &str = r#"{"error": {"code": "Base.1.8.SessionLimitExceeded"}}"#;

const SYSTEMS: &str = "/redfish/v1/Systems";

fn login() -> String {
    format!("POST {SESSIONS}")
}

fn by(kind: &str) -> String {
    format!("GET {SYSTEM} by {kind}")
}

fn opens_session(head: &Parts) -> bool {
    head.method == "POST" && head.uri.path() == SESSIONS
}

fn is_basic(head: &Parts) -> bool {
    head.headers.contains_key(AUTHORIZATION)
}

async fn later(duration: Duration) {
    pause();
    advance(duration).await;
    resume();
}

#[tokio::test]
async fn one_session_serves_all_links_to_a_bmc() {
    let bmc = TestBmc::start().await;
    let connections = BmcConnections::new();
    let links = join_all((0..8).map(|_| bmc.link(&connections, json!({})))).await;

    let statuses = join_all(links.iter().map(status)).await;

    assert_eq!(statuses, [200; 8]);
    let mut expected = vec![login()];
    expected.extend(vec![by("token"); 8]);
    assert_eq!(bmc.requests(), expected);
}

#[tokio::test]
async fn a_session_that_ended_is_replaced_once_for_all_requests() {
    let bmc = TestBmc::start().await;
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({})).await;
    assert_eq!(status(&link).await, 200);
    bmc.end_session(1);
    bmc.requests();
    bmc.hold();

    let (statuses, ()) = tokio::join!(join_all((0..4).map(|_| status(&link))), async {
        bmc.reached(4).await;
        bmc.let_go(100);
    });

    assert_eq!(statuses, [200; 4]);
    let logins = bmc.requests().into_iter().filter(|request| *request == login());
    assert_eq!(logins.count(), 1);
}

#[tokio::test]
async fn a_request_that_is_refused_with_a_new_session_too_leaves_one_session() {
    let bmc = TestBmc::start().await;
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({})).await;
    bmc.set_fault(|head, _| (head.uri.path() == SYSTEM).then(|| answer(401, "")));

    assert_eq!(status(&link).await, 401);

    let delete = format!("DELETE {SESSIONS}/1 by token");
    let expected = [login(), by("token"), login(), by("token"), delete];
    assert_eq!(bmc.requests(), expected);
}

#[tokio::test]
async fn a_login_that_nobody_waits_for_any_more_stands_in_no_ones_way() {
    let bmc = TestBmc::start().await;
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({})).await;
    bmc.hold();
    // What the server has begun to answer counts on, although its client is gone.
    for begun in 1..=5 {
        tokio::select! {
            _ = status(&link) => panic!("the answer is held"),
            () = bmc.reached(begun) => {}
        }
        bmc.has_connections(0).await;
    }
    bmc.let_go(100);

    assert_eq!(status(&link).await, 200);
}

#[tokio::test]
async fn a_wrong_password_costs_one_request_for_all_that_wait() {
    let bmc = TestBmc::start().await;
    for (auth_type, with_password) in
        [("auto", login()), ("session", login()), ("basic", by("basic"))]
    {
        let connections = BmcConnections::new();
        let wrong = json!({"redfish_password": "wrong", "redfish_auth_type": auth_type});
        let link = bmc.link(&connections, wrong).await;

        let statuses = join_all((0..12).map(|_| status(&link))).await;

        assert_eq!(statuses, [401; 12], "{auth_type}");
        let mut requests = bmc.requests();
        // It shows that the BMC has sessions, and needs no password.
        requests.retain(|request| request != "GET /redfish/v1/");
        assert_eq!(requests, [with_password], "{auth_type}");
    }
}

#[tokio::test]
async fn a_password_that_is_changed_on_the_bmc_is_tried_once_by_all_whose_session_ended() {
    let bmc = TestBmc::start().await;
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({})).await;
    assert_eq!(status(&link).await, 200);
    bmc.set_fault(|head, _| (head.uri.path() != "/redfish/v1/").then(|| answer(401, "")));
    bmc.requests();
    bmc.hold();

    let (statuses, ()) = tokio::join!(join_all((0..4).map(|_| status(&link))), async {
        bmc.reached(4).await;
        bmc.let_go(100);
    });

    assert_eq!(statuses, [401; 4]);
    let logins = bmc.requests().into_iter().filter(|request| *request == login());
    assert_eq!(logins.count(), 1);
}

#[tokio::test]
async fn with_all_sessions_in_use_basic_authentication_serves_for_a_while() {
    for full in [503, 400, 403] {
        let bmc = TestBmc::start().await;
        bmc.set_fault(move |head, _| opens_session(head).then(|| answer(full, LIMIT)));
        let connections = BmcConnections::new();
        let link = bmc.link(&connections, json!({})).await;

        assert_eq!((status(&link).await, status(&link).await), (200, 200));
        assert_eq!(bmc.requests(), [login(), by("basic"), by("basic")], "{full}");

        bmc.set_fault(|_, _| None);
        later(Duration::from_secs(301)).await;
        assert_eq!(status(&link).await, 200);
        assert_eq!(bmc.requests(), [login(), by("token")], "{full}");
    }
}

#[tokio::test]
async fn every_vendors_words_for_a_full_table_of_sessions_are_known() {
    for platform in Platform::ALL {
        let bmc = TestBmc::of_platform(platform, TestTls::None).await;
        bmc.set_emulated_fault(EmulatedFault::SessionsFull { basic: false });
        let connections = BmcConnections::new();
        let only = bmc.link(&connections, json!({"redfish_auth_type": "session"})).await;
        let words = get(&only, SYSTEM).await.unwrap_err().to_string();
        assert!(words.starts_with("all sessions of the BMC are in use"), "{platform:?}: {words}");

        let auto = bmc.link(&connections, json!({})).await;
        assert_eq!(get(&auto, SYSTEMS).await.unwrap().status.as_u16(), 200, "{platform:?}");
    }
}

#[tokio::test]
async fn a_bmc_without_basic_authentication_is_used_by_a_session() {
    let bmc = TestBmc::start().await;
    bmc.set_emulated_fault(EmulatedFault::BasicOff);
    let connections = BmcConnections::new();

    assert_eq!(status(&bmc.link(&connections, json!({})).await).await, 200);

    bmc.set_emulated_fault(EmulatedFault::SessionsFull { basic: true });
    assert_eq!(status(&bmc.link(&connections, json!({})).await).await, 200);
    assert_eq!(bmc.requests(), [login(), by("token"), by("token")]);
}

#[tokio::test]
async fn with_sessions_alone_a_full_table_is_said_in_words() {
    let bmc = TestBmc::start().await;
    bmc.set_fault(|head, _| opens_session(head).then(|| answer(400, LIMIT)));
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({"redfish_auth_type": "session"})).await;

    let failure = get(&link, SYSTEM).await.unwrap_err();

    let ChannelFailure::Unusable(words) = failure else { panic!("{failure:?}") };
    assert!(words.starts_with("all sessions of the BMC are in use"), "{words}");
    assert!(words.ends_with("set redfish_auth_type to auto"), "{words}");
    assert_eq!(bmc.requests(), [login()]);
}

#[tokio::test]
async fn a_bmc_that_refuses_basic_authentication_is_asked_by_it_once_while_its_sessions_are_in_use()
{
    let bmc = TestBmc::start().await;
    bmc.set_fault(|head, _| match () {
        () if opens_session(head) => Some(answer(503, LIMIT)),
        () => is_basic(head).then(|| answer(401, "")),
    });
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({})).await;

    for _ in 0..2 {
        let words = get(&link, SYSTEM).await.unwrap_err().to_string();
        assert!(words.contains("it refuses basic authentication too"), "{words}");
    }

    assert_eq!(bmc.requests(), [login(), by("basic"), login()]);
}

#[tokio::test]
async fn a_bmc_that_is_busy_is_asked_again_with_a_session() {
    let bmc = TestBmc::start().await;
    bmc.set_fault(|_, _| Some(answer(503, "")));
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({})).await;
    assert_eq!(status(&link).await, 503);

    bmc.set_fault(|_, _| None);
    assert_eq!(status(&link).await, 200);

    assert_eq!(bmc.requests(), [login(), by("basic"), login(), by("token")]);
}

#[tokio::test]
async fn a_bmc_without_sessions_is_asked_for_one_once() {
    for missing in [404, 405, 501] {
        let bmc = TestBmc::start().await;
        bmc.set_fault(move |head, _| opens_session(head).then(|| answer(missing, "")));
        let connections = BmcConnections::new();
        let link = bmc.link(&connections, json!({})).await;

        assert_eq!((status(&link).await, status(&link).await), (200, 200));

        let root = "GET /redfish/v1/".to_owned();
        assert_eq!(bmc.requests(), [login(), root, by("basic"), by("basic")], "{missing}");
        let only = bmc.link(&connections, json!({"redfish_auth_type": "session"})).await;
        let words = get(&only, SYSTEM).await.unwrap_err().to_string();
        assert!(words.starts_with("the BMC offers no sessions"), "{words}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_basic_authentication_everywhere_gets_it() {
    for root in [200, 401] {
        let bmc = TestBmc::start().await;
        bmc.set_fault(move |head, _| match head.uri.path() {
            "/redfish/v1/" => Some(answer(root, "{}")),
            _ => (!is_basic(head)).then(|| answer(401, "Not Authorized")),
        });
        let connections = BmcConnections::new();
        let link = bmc.link(&connections, json!({})).await;

        assert_eq!(status(&link).await, 200, "{root}");
    }
}

#[tokio::test]
async fn sessions_are_opened_where_the_service_root_says() {
    let bmc = TestBmc::start().await;
    bmc.set_fault(|head, _| match (head.method.as_str(), head.uri.path()) {
        ("GET", "/redfish/v1/") => {
            Some(answer(200, r#"{"Links": {"Sessions": {"@odata.id": "/redfish/v1/Sessions"}}}"#))
        }
        ("POST", "/redfish/v1/Sessions") => {
            let mut opened = answer(201, r#"{"@odata.id": "/redfish/v1/Sessions/9"}"#);
            opened.headers_mut().insert("X-Auth-Token", "elsewhere".parse().unwrap());
            Some(opened)
        }
        ("GET", SYSTEM) if head.headers.get("X-Auth-Token").is_some() => Some(answer(200, "{}")),
        _ => Some(answer(404, "")),
    });
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({})).await;

    assert_eq!(status(&link).await, 200);
    connections.close().await;

    let requests = bmc.requests();
    assert_eq!(requests[2..4], ["POST /redfish/v1/Sessions".to_owned(), by("token")]);
    assert_eq!(requests[4..], ["DELETE /redfish/v1/Sessions/9 by token"]);
}

#[tokio::test]
async fn a_login_follows_a_redirect_within_the_bmc() {
    let bmc = TestBmc::start().await;
    bmc.set_fault(|head, _| {
        opens_session(head).then(|| {
            let mut moved = answer(308, "");
            moved.headers_mut().insert("Location", format!("{SESSIONS}/").parse().unwrap());
            moved
        })
    });
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({})).await;

    assert_eq!(status(&link).await, 200);

    assert_eq!(bmc.requests(), [login(), format!("{}/", login()), by("token")]);
}

#[tokio::test]
async fn a_login_that_is_sent_elsewhere_says_where_and_sends_the_password_no_more() {
    let bmc = TestBmc::start().await;
    bmc.set_fault(|_, _| {
        let mut moved = answer(301, "");
        moved.headers_mut().insert("Location", "https://192.0.2.1/login".parse().unwrap());
        Some(moved)
    });
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({})).await;

    let words = get(&link, SYSTEM).await.unwrap_err().to_string();

    let expected = "the BMC answers 301 Moved Permanently to a login, and names \
                    \"https://192.0.2.1/login\": correct redfish_address";
    assert_eq!(words, expected);
    assert_eq!(bmc.requests(), [login()]);
}

#[tokio::test]
async fn basic_authentication_alone_opens_no_session_and_a_session_needs_none() {
    let bmc = TestBmc::start().await;
    let connections = BmcConnections::new();
    let basic = bmc.link(&connections, json!({"redfish_auth_type": "basic"})).await;
    assert_eq!(status(&basic).await, 200);
    assert_eq!(bmc.requests(), [by("basic")]);

    bmc.set_fault(|head, _| is_basic(head).then(|| answer(401, "")));
    let auto = bmc.link(&connections, json!({})).await;
    assert_eq!(status(&auto).await, 200);
    assert_eq!(status(&basic).await, 401);
}

#[tokio::test]
async fn without_a_user_name_no_credentials_are_sent() {
    let bmc = TestBmc::start().await;
    let connections = BmcConnections::new();
    let link = bmc.link(&connections, json!({"redfish_username": null})).await;

    assert_eq!(status(&link).await, 401);

    assert_eq!(bmc.requests(), [format!("GET {SYSTEM}")]);
}

#[tokio::test]
async fn sessions_are_closed_at_the_end_and_when_they_are_idle() {
    let bmc = TestBmc::start().await;
    let connections = BmcConnections::new();
    let closed = |id: u32| format!("DELETE {SESSIONS}/{id} by token");
    status(&bmc.link(&connections, json!({})).await).await;
    bmc.requests();

    later(Duration::from_secs(540)).await;
    let link = bmc.link(&connections, json!({})).await;
    assert_eq!(status(&link).await, 200);
    assert_eq!(bmc.requests(), [by("token")]);
    drop(link);
    bmc.hold();
    later(Duration::from_secs(660)).await;
    bmc.reached(1).await;
    assert_eq!(bmc.requests(), [closed(1)]);
    bmc.let_go(100);

    let link = bmc.link(&connections, json!({})).await;
    assert_eq!(status(&link).await, 200);
    connections.close().await;
    assert_eq!(bmc.requests(), [login(), by("token"), closed(2)]);
}

#[tokio::test]
async fn facts_are_shared_by_the_links_to_a_bmc_until_it_cannot_be_reached() {
    let bmc = TestBmc::start().await;
    let connections = BmcConnections::new();
    let (one, other) =
        (bmc.link(&connections, json!({})).await, bmc.link(&connections, json!({})).await);
    let unverified = bmc.link(&connections, json!({"redfish_username": "other"})).await;

    one.note_facts("an iDRAC".to_owned().into());

    assert_eq!(other.facts().as_deref().map(String::as_str), Some("an iDRAC"));
    assert_eq!(unverified.facts(), None);
    let gone = bmcs::BmcSettings {
        address: "http://127.0.0.1:1".parse().unwrap(),
        ..bmc.settings(json!({}))
    };
    let gone = connections.link(&gone, Box::new(|_, _| ())).await.unwrap();
    gone.note_facts("gone".to_owned().into());
    get(&gone, SYSTEM).await.unwrap_err();
    assert_eq!(gone.facts(), None);
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

#[tokio::test]
async fn each_exchange_is_observed_and_no_secret_with_it() {
    let bmc = TestBmc::start().await;
    let seen = Mutex::new(Vec::new());
    let connections = BmcConnections::<String>::new();
    let echo = |value: &Value| value["Password"].as_str().map(|password| format!("bad {password}"));
    for auth_type in ["auto", "basic"] {
        let settings = bmc.settings(json!({"redfish_auth_type": auth_type}));
        let observer = Box::new(|request: &_, outcome: Result<&RedfishAnswer, &_>| {
            let body = outcome.map(|answer| text(&answer.body)).unwrap_or_default();
            seen.lock().unwrap().push(format!("{request:?} {outcome:?} {body}"));
        });
        let link = connections.link(&settings, observer).await.unwrap();
        assert_eq!(status(&link).await, 200);
        // The messages of some BMCs repeat what was sent.
        bmc.set_fault(move |head, body| {
            if head.uri.path() == "/redfish/v1/" {
                return None;
            }
            let text = echo(&serde_json::from_slice(body).unwrap_or_default()).unwrap_or_default();
            Some(answer(if opens_session(head) { 403 } else { 401 }, &text))
        });
        let refused = get(&link, SYSTEM).await.unwrap();
        assert_eq!(text(&refused.body), "");
        bmc.set_fault(|_, _| None);
    }

    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.iter().filter(|told| told.contains("OpenSession")).count(), 2);
    assert_eq!(seen.iter().filter(|told| told.contains("LookAtSystem")).count(), 4);
    for told in seen {
        assert!(!told.contains(PASSWORD) && !told.contains("token-"), "{told}");
    }
}
