//! What firmware makes of answers, so that "would this machine take this offer?" has an answer before
//! it is switched on.

pub mod v4;
