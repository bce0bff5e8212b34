//! Any answer of a BMC is parsed or refused, with a short message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use redfish::boot::{HttpBootOverride, SystemView, words_of};
use redfish::system::{ComputerSystem, ComputerSystemCollection};

fuzz_target!(|body: &[u8]| {
    if let Ok(text) = std::str::from_utf8(body) {
        assert!(words_of(text).chars().count() <= 500);
    }
    if let Ok(systems) = serde_json::from_slice::<ComputerSystemCollection>(body) {
        assert!(systems.members.len() <= body.len());
    }
    let Ok(system) = serde_json::from_slice::<ComputerSystem>(body) else { return };
    let view = SystemView::from(system);
    let _ = view.power();
    for uri in [None, Some("http://192.0.2.1/boot.iso")] {
        if let Err(cannot) = view.validate(uri.is_some()) {
            assert!(!cannot.to_string().is_empty());
        }
        if view.has_override(&HttpBootOverride::once(uri.map(str::to_owned))).is_ok() {
            assert!(view.is_overridden(), "an override that is kept is one to clear");
        }
    }
});
