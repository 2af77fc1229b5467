//! The command line: sub-commands, their flags, their help. Parses; `main` carries out.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config;

/// One central server (中控服务器) for WeChat access_token and jsapi_ticket.
///
/// It alone fetches them, renews them ahead of their end, keeps them over a restart, and serves
/// them over HTTP and the Redis protocol. Without a sub-command it serves.
#[derive(Debug, Parser)]
#[command(name = "wechat-token-server", version, about, long_about, disable_help_subcommand = true)]
pub struct Cli {
    /// The config file.
    #[arg(long, short, global = true, value_name = "FILE", default_value = config::DEFAULT_PATH)]
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
    /// Try everything without a WeChat account: a stand-in for the WeChat API and a fresh server.
    Sandbox(SandboxArgs),
}

