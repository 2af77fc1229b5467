//! The central server (中控服务器) for WeChat tokens, as a library. See `ARCHITECTURE.md` for the map.
//! The rooms, in reading order: the vocabulary (`clock`, `token`, `account`,
//! `duration`), what the operator wants
//! (`config`), how a token is obtained (`outbound`, `source`), kept (`store`), served (`snapshot`) and
//! kept fresh (`refresh`); who may have it (`access`); how all of it is doing (`status`); the listeners (`http`, `resp`); the stand-in for WeChat (`sandbox`); and
//! what makes a program of it (`shutdown`, `logging`, `check`, `cli`, `app`).

pub mod access;
pub mod account;
pub mod app;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod duration;
pub mod http;
pub mod logging;
pub mod outbound;
pub mod refresh;
pub mod resp;
pub mod sandbox;
pub mod shutdown;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod store;
pub mod token;
