//! A Redfish BMC in front of QEMU machines.
