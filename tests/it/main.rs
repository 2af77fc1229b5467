//! The server as a whole: real sockets, a real store, the sandbox as the upstream.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod config;
mod corruption;
mod crash;
#[cfg(feature = "interop")]
mod differential;
mod disk;
mod doctor;
mod faults;
mod import;
#[cfg(feature = "interop")]
mod interop;
mod kills;
mod limits;
mod notify;
mod operator;
mod program;
mod refresh;
mod reload;
mod sealing;
mod secrets;
mod supervisor;
mod support;
mod tls;
mod upstream_tls;
mod vendors;
