//! Agents' messages (heartbeats, and answers of their command API) are parsed or refused; messages to agents can be
//! parsed again without a change.

#![no_main]

use ironic::agent::{CleanResult, CleanSteps, CommandList, DeploySteps, Fault, Lookup, Root};
use ironic::agent_channel::{AgentCallAnswer, FetchedAgentCall};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use provision::Node;
use provision::addresses::{AGENT_NETWORKS, agent_networks};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(macs) = ironic::agent::lookup_addresses(text, Some(text)) {
            assert!(macs.len() <= ironic::agent::MOST_ADDRESSES);
        }
    }
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return };
    let heartbeat = ironic::agent::heartbeat(&body, true, Timestamp::UNIX_EPOCH);
    if let Ok(heartbeat) = heartbeat {
        assert_eq!(heartbeat.callback_url.scheme(), "https", "the token is in its query");
    }
    let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
    node.driver_info.insert(AGENT_NETWORKS.to_owned(), body.clone());
    if let Err(bad) = agent_networks(&node) {
        assert!(bad.to_string().len() < 1_000, "what is wrong is said in few words");
    }
    reads_back::<Lookup>(&body);
    reads_back::<CommandList>(&body);
    reads_back::<CleanSteps>(&body);
    reads_back::<DeploySteps>(&body);
    reads_back::<CleanResult>(&body);
    reads_back::<Fault>(&body);
    reads_back::<Root>(&body);
    reads_back::<FetchedAgentCall>(&body);
    reads_back::<AgentCallAnswer>(&body);
});

fn reads_back<T: Serialize + DeserializeOwned>(body: &Value) {
    let Ok(read) = T::deserialize(body) else { return };
    let sent = serde_json::to_value(&read).expect("it is JSON");
    let again: T = serde_json::from_value(sent.clone()).expect("what we emit we parse");
    assert_eq!(serde_json::to_value(&again).expect("it is JSON"), sent);
}
