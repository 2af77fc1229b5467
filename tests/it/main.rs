//! The server as a whole: real sockets, a real store, the sandbox as the upstream.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod config;
mod crash;
#[cfg(feature = "interop")]
mod differential;
mod faults;
#[cfg(feature = "interop")]
mod interop;
mod limits;
mod program;
mod refresh;
mod reload;
mod secrets;
mod support;
mod vendors;
