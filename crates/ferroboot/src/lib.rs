//! One program that boots bare metal from an HTTP URL.

pub mod image;
