//! The central server (中控服务器) for WeChat tokens, as a library: the rooms in reading order.
//! See `ARCHITECTURE.md` for the map and for what each room may know.

/// Time and randomness.
pub mod clock;
/// What the operator wants, validated.
pub mod config;
/// The HTTP listener.
pub mod http;
/// Where log lines go.
pub mod logging;
/// The HTTP client for everything that leaves the machine.
pub mod outbound;
/// The refresh engine.
pub mod refresh;
/// The RESP listener.
pub mod resp;
/// The stand-in for the WeChat API.
pub mod sandbox;
/// Signals, drain and grace period.
pub mod shutdown;
/// What is served right now.
pub mod snapshot;
/// How any token is obtained.
pub mod source;
/// Keeps tokens over a restart.
pub mod store;
/// Names, secrets, generations, token records.
pub mod token;
