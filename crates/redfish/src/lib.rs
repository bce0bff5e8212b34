//! Redfish: boot overrides, quirks, and the brain of a BMC.
