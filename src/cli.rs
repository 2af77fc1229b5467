//! The command line: sub-commands, their flags, their help. Parses; `main` carries out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config;
use crate::duration::parse_duration;
use crate::sandbox::Fault;

/// One central server (中控服务器) for WeChat access_token and jsapi_ticket.
///
/// It alone fetches them, renews them ahead of their end, keeps them over a restart, and serves
/// them over HTTP and the Redis protocol. Without a sub-command it serves.
#[derive(Debug, Parser)]
#[command(name = "wechat-token-server", version, about, long_about, disable_help_subcommand = true)]
pub struct Cli {
    /// The config file.
    #[arg(long, short, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,

    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve tokens (what is done without a sub-command).
    Serve,
    /// Validate the config and say what it would do; nothing is started or fetched.
    Check,
    /// Send a test message to every webhook of the config, and say what came of it.
    NotifyTest,
    /// Try everything without a WeChat account: a stand-in for the WeChat API and a fresh server.
    Sandbox(SandboxArgs),
}

/// Flags of `sandbox`.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    /// How long tokens live
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub lifetime: Duration,

    /// How long each answer of the stand-in takes
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = parse_duration)]
    pub latency: Duration,

    /// A fault to begin with, such as "kind=errcode&code=40164&times=3"; may be repeated
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<Fault>,

    /// Another rule of the stand-in, such as overlap=2s or token_quota=10; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub rules: Vec<String>,

    /// Where HTTP is served; a free port is taken when this one is not
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:12123", value_parser = loopback)]
    pub http: SocketAddr,

    /// Where the Redis protocol is served; a free port is taken when this one is not
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6379", value_parser = loopback)]
    pub resp: SocketAddr,

    /// Where the stand-in for the WeChat API listens; a free port is taken when this one is not
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:12124", value_parser = loopback)]
    pub upstream: SocketAddr,
}

/// Tokens of the sandbox are worthless, but its control surface lets everybody do everything.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write an address such as 127.0.0.1:12123".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the sandbox serves this machine only: write a loopback address".into())
    }
}
