//! One program that boots bare metal from an HTTP URL.

pub mod bmc;
pub mod check;
pub mod image;
pub mod lab;
pub mod serve;
pub mod service;
pub mod trace;
