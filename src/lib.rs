//! The central server (中控服务器) for WeChat tokens, as a library. See `ARCHITECTURE.md` for the map.
//! The rooms, in reading order: the vocabulary (`clock`, `token`, `account`,
//! `duration`), what the operator wants
//! (`config`), how a token is obtained (`outbound`, `source`), kept (`store`), served (`snapshot`) and
//! kept fresh (`refresh`); how all of it is doing (`status`), what it may be told to do (`control`); the listeners (`http`, `resp`, and what both
//! keep to: `access`, `admission`, `log_budget`, `tls`); the stand-in for WeChat (`sandbox`); and
//! what makes a program of it (`shutdown`, `supervisor`, `logging`, `check`, `cli`, `operator`, `app`). `fuzzing` is
//! for tests only.

pub mod access;
pub mod account;
pub mod admission;
pub mod app;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod doctor;
pub mod duration;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod log_budget;
pub mod logging;
pub mod notify;
pub mod operator;
pub mod outbound;
pub mod refresh;
pub mod resp;
pub mod sandbox;
pub mod shutdown;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod store;
pub mod supervisor;
pub mod tls;
pub mod token;
