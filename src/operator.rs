//! What an operator's commands do beside serving: they ask the running server, or prepare its store.
//! Each is a file in `operator/`; here is what they share: how a command ends.

mod clothes;
mod connection;
mod doctor;
mod import;
mod inherited;
mod orders;
mod printer;
mod redis;
mod refusal;
mod status;
mod token;

use std::fmt;
use std::path::Path;

use crate::cli::OperatorCommand;
use crate::clock::SharedClock;
use crate::config::Environment;
use crate::doctor::Words;

pub use connection::Connection;
pub use printer::{Printer, note, print};

/// The server's answer is no: a source is not live.
pub const NOT_ALL_WELL: u8 = 1;

// The names and numbers of `sysexits.h`.
/// The command's words make no sense.
pub const EX_USAGE: u8 = 64;
/// What was named is not there, or what was given cannot be meant.
pub const EX_DATAERR: u8 = 65;
/// No server answers.
pub const EX_UNAVAILABLE: u8 = 69;
/// The system refuses something.
pub const EX_OSERR: u8 = 71;
/// Not now: try again later.
pub const EX_TEMPFAIL: u8 = 75;
/// What answers is not this server.
pub const EX_PROTOCOL: u8 = 76;
/// The key is wrong, or may not do this.
pub const EX_NOPERM: u8 = 77;
/// The config has mistakes.
pub const EX_CONFIG: u8 = 78;

/// Why a command did not do what it was told: what to say, and what to end with.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// In words, with what to do. Never with a secret.
    pub message: String,
    /// The same in Chinese, where it is said in Chinese.
    chinese: Option<String>,
    /// The code of a server's refusal, where one has answered.
    refusal: Option<String>,
}

impl Failure {
    fn new(code: u8, message: impl fmt::Display) -> Failure {
        Failure { code, message: message.to_string(), chinese: None, refusal: None }
    }

    /// With the same words in Chinese.
    fn zh(self, message: impl fmt::Display) -> Failure {
        Failure { chinese: Some(message.to_string()), ..self }
    }

    /// What is said to an operator.
    pub fn told(&self, printer: &Printer) -> &str {
        printer.either(&self.message, self.in_chinese())
    }

    /// In both languages.
    fn words(&self) -> Words {
        Words { en: self.message.clone(), zh: self.in_chinese().to_owned() }
    }

    fn in_chinese(&self) -> &str {
        self.chinese.as_ref().unwrap_or(&self.message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// What a command works with.
#[derive(Debug)]
pub struct Desk<'a> {
    /// The config file.
    pub file: &'a Path,
    /// The variables of the process.
    pub environment: &'a Environment,
    /// The time.
    pub clock: SharedClock,
    /// How it says what it has to say.
    pub printer: Printer,
}

/// Does what one of the operator's commands says; the exit code.
///
/// # Errors
/// Why not.
pub async fn run(command: &OperatorCommand, desk: &Desk<'_>) -> Result<u8, Failure> {
    match command {
        OperatorCommand::Status(args) => status::status(args, desk).await,
        OperatorCommand::Get(args) => token::get(args, desk).await,
        OperatorCommand::Refresh(args) => token::refresh(args, desk).await,
        OperatorCommand::Quota(args) => orders::quota(args, desk).await,
        OperatorCommand::Reload(args) => orders::reload(args, desk).await,
        OperatorCommand::Import(args) => import::import(args, desk).await,
        OperatorCommand::Doctor(args) => doctor::doctor(args, desk).await,
    }
}
