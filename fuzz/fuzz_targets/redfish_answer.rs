//! Every conversation with a BMC ends, whatever the BMC answers; its words stay short.
//!
//! The input is cut into answers at zero bytes. The first byte of each chooses the status and the headers.

#![no_main]

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use redfish::channel::{BmcChannel, ChannelFailure, RedfishAnswer, RedfishRequest};
use redfish::facts::BmcFacts;
use redfish::machine::RedfishSystem;
use redfish::messages::words_of;
use redfish::ways::{BootNeed, HttpBootOverride, HttpSupport, MediaUse};
use url::Url;

/// Requests of all conversations together, before the BMC falls silent.
const MOST_REQUESTS: usize = 2_000;

struct FuzzedBmc<'d> {
    address: Url,
    answers: Vec<&'d [u8]>,
    asked: Mutex<usize>,
}

impl BmcChannel for FuzzedBmc<'_> {
    fn address(&self) -> &Url {
        &self.address
    }

    async fn exchange(&self, _: &RedfishRequest) -> Result<RedfishAnswer, ChannelFailure> {
        let mut asked = self.asked.lock().expect("nothing panics with the lock");
        *asked += 1;
        if *asked > MOST_REQUESTS {
            return Err(ChannelFailure::Unusable("silent".to_owned()));
        }
        let answer = self.answers[*asked % self.answers.len()];
        let (kind, body) = answer.split_first().unwrap_or((&0, &[]));
        let status = match kind % 8 {
            0..=2 => 200,
            3 => 202,
            4 => 204,
            5 => 400 + u16::from(*kind),
            6 => 308,
            _ => return Err(ChannelFailure::BrokeOff("cut".to_owned())),
        };
        let text = || String::from_utf8_lossy(&body[..body.len().min(64)]).into_owned();
        Ok(RedfishAnswer {
            status: StatusCode::from_u16(status).unwrap_or_default(),
            etag: (kind & 0x10 != 0).then(text),
            location: (kind & 0x20 != 0).then(text),
            retry_after: (kind & 0x40 != 0).then(|| Duration::from_secs(u64::from(*kind))),
            body: body.to_vec(),
        })
    }

    async fn pause(&self, _: Duration) {}
}

async fn converse(bmc: &FuzzedBmc<'_>) {
    let (facts, macs) = (BmcFacts::default(), ["52:54:00:00:00:01".parse().expect("it is one")]);
    let found = RedfishSystem::find(bmc, &facts, None, Duration::from_secs(60)).await;
    let Ok(machine) = found else { return };
    let Ok(view) = machine.look().await else { return };
    for (by_url, media) in
        [(true, MediaUse::AsFallback), (true, MediaUse::Only), (false, MediaUse::Never)]
    {
        let advice = Some(HttpSupport { ipv6: false, plain: true });
        let need = BootNeed { by_url, macs: &macs, allows_pxe: by_url, media, advice };
        let way = match machine.choose_way(&view, &need).await {
            Ok(way) => way,
            Err(cannot) => {
                assert!(!cannot.to_string().is_empty());
                continue;
            }
        };
        let wanted = HttpBootOverride::once(by_url.then(|| "http://192.0.2.1/boot.iso".to_owned()));
        let _ = machine.set_boot(&view, &way, &wanted).await;
        let _ = machine.read_back(&way, &wanted).await;
        let _ = machine.undo_boot(&view, way.changes()).await;
    }
    let _ = machine.power_on(&view).await;
    let _ = machine.power_off(&view).await;
}

/// Nothing here waits, so one poll is enough.
fn to_its_end(conversation: impl Future<Output = ()>) {
    let end = pin!(conversation).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(end, Poll::Ready(()));
}

fuzz_target!(|data: &[u8]| {
    assert!(words_of(data).chars().count() <= 500);
    let answers: Vec<_> = data.split(|byte| *byte == 0).collect();
    let address = Url::parse("https://192.0.2.2").expect("it is a URL");
    to_its_end(converse(&FuzzedBmc { address, answers, asked: Mutex::new(0) }));
});
