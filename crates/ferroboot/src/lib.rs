//! One program that boots bare metal from an HTTP URL.

pub mod api_reader;
pub mod bmc;
pub mod ca;
pub mod check;
pub mod explain;
pub mod image;
pub mod lab;
pub mod login;
pub mod replay;
pub mod serve;
pub mod service;
pub mod top;
pub mod trace;
