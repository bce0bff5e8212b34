//! What agents send, heartbeats to us and answers of their command API, is read or refused; what
//! we send to agents reads back as it was.

#![no_main]

use ironic::agent::{CleanResult, CleanSteps, CommandList, DeploySteps, Fault, Lookup, Root};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return };
    let heartbeat = ironic::agent::heartbeat(&body, true, Timestamp::UNIX_EPOCH);
    if let Ok(heartbeat) = heartbeat {
        assert_eq!(heartbeat.callback_url.scheme(), "https", "the token is in its query");
    }
    reads_back::<Lookup>(&body);
    reads_back::<CommandList>(&body);
    reads_back::<CleanSteps>(&body);
    reads_back::<DeploySteps>(&body);
    reads_back::<CleanResult>(&body);
    reads_back::<Fault>(&body);
    reads_back::<Root>(&body);
});

fn reads_back<T: Serialize + DeserializeOwned>(body: &Value) {
    let Ok(read) = T::deserialize(body) else { return };
    let sent = serde_json::to_value(&read).expect("it is JSON");
    let again: T = serde_json::from_value(sent.clone()).expect("what we emit we parse");
    assert_eq!(serde_json::to_value(&again).expect("it is JSON"), sent);
}
