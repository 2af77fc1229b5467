//! A stand-in for the WeChat API on loopback, with its rules, its refusals and faults on demand.
//! It is the upstream of the `sandbox` sub-command and of the tests, and a tool for the CI of others.
//!
//! `model` knows what WeChat does and is pure; the rest puts it on a socket. Nothing here is
//! used to serve real tokens, and it knows no other room than the vocabulary, the clock and the
//! drain.

mod account;
mod body;
mod calendar;
mod control;
mod endpoint;
mod fault;
mod line;
mod model;
mod parameters;
mod refusal;
mod server;
mod settings;
mod wechat;

pub use account::Account;
pub use endpoint::Endpoint;
pub use fault::{Fault, FaultKind, Field};
pub use line::Verdict;
pub use model::{Caller, Grant, Model};
pub use refusal::Refusal;
pub use server::{Call, Upstream};
pub use settings::{Rule, Settings, parse_life};
