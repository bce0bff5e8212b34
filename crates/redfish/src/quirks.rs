//! Vendors' quirks: one predicate for each bug, named for it.

use http::StatusCode;

use crate::system::ComputerSystem;

/// AMI, ASRock Rack and Supermicro answer 400 to a boot override without `BootSourceOverrideMode`, even when clearing
/// it. When setting the override, the property is sent to all BMCs: none is known to refuse it.
#[must_use]
pub fn wants_mode_when_clearing(system: &ComputerSystem) -> bool {
    let maker = system.manufacturer.as_deref().unwrap_or_default().to_lowercase();
    ["american megatrends", "ami", "asrockrack", "supermicro"]
        .iter()
        .any(|picky| maker.starts_with(picky))
}

/// BMCs with weak ETags answer 412 when one comes back in `If-Match`, which compares strongly (RFC 9110 §13.1.1);
/// others change the ETag at every GET. The new boot override does not depend on the old one, so the PATCH is
/// repeated with `*`.
#[must_use]
pub fn denies_its_own_etag(status: StatusCode) -> bool {
    status == StatusCode::PRECONDITION_FAILED
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::boot::{BmcCall, BmcFailure, HttpBootOverride, RedfishSystem};
    use crate::emulator::Personality;
    use crate::in_memory::InMemoryBmc;

    fn nobody(_: &BmcCall, _: Option<&BmcFailure>) {}

    #[tokio::test]
    async fn a_bmc_with_weak_etags_is_told_its_override_all_the_same() {
        let bmc = InMemoryBmc::new(Personality { weak_etags: true, ..Personality::default() });
        let machine = RedfishSystem::new(&bmc, "/redfish/v1/Systems/1", &nobody);
        let view = machine.look().await.unwrap();
        let wanted = HttpBootOverride::once(Some("http://10.0.0.1/boot.iso".to_owned()));

        machine.override_boot(&view, &wanted).await.unwrap();

        let view = machine.look().await.unwrap();
        assert_eq!(view.has_override(&wanted), Ok(()));
        machine.clear_override(&view).await.unwrap();
        assert!(!machine.look().await.unwrap().is_overridden());
    }

    #[test]
    fn the_mode_is_sent_when_clearing_to_those_that_insist_on_it_alone() {
        let made_by = |maker| {
            let system = json!({"@odata.id": "/redfish/v1/Systems/1", "Manufacturer": maker});
            wants_mode_when_clearing(&serde_json::from_value(system).unwrap())
        };

        assert!(made_by(json!("Supermicro")));
        assert!(made_by(json!("ASRockRack")));
        assert!(!made_by(json!("HPE")));
        assert!(!made_by(json!(null)));
    }
}
