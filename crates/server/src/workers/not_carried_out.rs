//! The reasons why work at a BMC is not completed.

use redfish::failure::BmcFailure;
use store::WorkError;
use thiserror::Error;

use super::power::plan::PowerPlanFailure;
use crate::bmcs::BmcError;

/// The reason why a plan was not completed.
#[derive(Debug, Error)]
pub(super) enum NotCarriedOut {
    #[error(transparent)]
    Bmc(#[from] BmcError),
    #[error(transparent)]
    Call(#[from] BmcFailure),
    #[error(transparent)]
    Plan(#[from] PowerPlanFailure),
    #[error(transparent)]
    Work(#[from] WorkError),
}
