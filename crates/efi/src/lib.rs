//! What firmware reads: UKI, ESP, ISO and boot variables, composed from extents.
//!
//! Nothing here opens a file. An [`Image`](image::Image) says which bytes of which shared file lie
//! where, and whoever serves it does the reading.

pub mod variables;
