//! How any token is obtained: one exchange with an upstream, and what can come of it.
//! Decides nothing about when; that is the engine's.

mod errcode;
mod reply;
mod upstream;

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::config::TokenSource;
use crate::token::{Secret, SourceName};

pub use errcode::Hint;
pub use upstream::HttpUpstream;

/// Obtains a token.
pub trait Upstream: Send + Sync + 'static {
    /// Makes one request for a token of `source`.
    ///
    /// # Errors
    /// Whatever went wrong, with the class that decides what the engine does next.
    fn fetch(
        &self,
        source: &TokenSource,
        request: &FetchRequest,
    ) -> impl Future<Output = Result<Fetched, FetchError>> + Send;
}

/// What one request is made with, beside the source's settings.
#[derive(Debug, Clone, Default)]
pub struct FetchRequest {
    /// The tokens of the sources it depends on.
    pub dependencies: Dependencies,
    /// What the source's last answer gave to be sent with the next request.
    pub captured: Option<Secret>,
    /// Ask for a new value although the old one is good, where the upstream can be asked that
    /// (`force_refresh` of `stable_token`).
    pub force: bool,
}

/// A token as the upstream gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The token; not empty, printable.
    pub value: Secret,
    /// Its life, counted from when the request was sent.
    pub expires_in: Duration,
    /// What the answer gave to be sent with the next request (a refresh token).
    pub captured: Option<Secret>,
    /// The upstream's clock, by the answer's `Date`.
    pub upstream_time: Option<SystemTime>,
}

/// The tokens that a request is made with.
#[derive(Debug, Clone, Default)]
pub struct Dependencies(Vec<(SourceName, Secret)>);

impl Dependencies {
    /// Adds the token of `source`.
    pub fn insert(&mut self, source: SourceName, value: Secret) {
        self.0.push((source, value));
    }

    /// The token of `source`.
    pub fn get(&self, source: &SourceName) -> Option<&Secret> {
        self.0.iter().find(|(name, _)| name == source).map(|(_, value)| value)
    }
}

/// What kind of failure it was: all that the engine asks of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// Likely to pass: try again, ever more slowly.
    Transient,
    /// Too many calls a minute: not before the next minute.
    Throttled,
    /// Of a kind that nobody knows: as transient, but ever so much more slowly.
    Unknown,
    /// The day's calls are used up: the next ones fail too, and count.
    QuotaSpent,
    /// What is left of the day's calls is kept for the schedule: nothing was sent.
    Reserved,
    /// Will not pass until a person does something: probe slowly.
    Misconfigured,
    /// The token of a source this one depends on was refused.
    DependencyInvalid,
    /// A source this one depends on has no live token: nothing was sent.
    DependencyAbsent,
}

/// Why a fetch brought no token. `Display` is what a client is told; [`FetchError::for_log`] is
/// what the log says. Neither holds a secret or the address of the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// Our own count says that the account has used up the day's calls: nothing was sent.
    BudgetSpent {
        /// When the next day begins.
        wait: Duration,
    },
    /// What a client asked for would use up what the schedule needs, or comes too soon after the
    /// last time: nothing was sent.
    BudgetReserved {
        /// When it may be asked for again.
        wait: Duration,
    },
    /// A source this one depends on has no live token.
    DependencyAbsent(SourceName),
    /// The upstream could not be reached; in the transport's words.
    NotConnected(String),
    /// No (whole) answer in time.
    TimedOut,
    /// The connection broke before the answer was whole; in the transport's words.
    Broken(String),
    /// An answer with a status other than 200 and no error code in it.
    Status(u16),
    /// The answer is larger than any token's; it was not read.
    TooLarge,
    /// The answer is not JSON.
    NotJson,
    /// The answer has no usable value; which field is at fault, and how.
    NoValue(String),
    /// The answer has no usable lifetime; how it is at fault.
    NoLifetime(&'static str),
    /// The upstream said no.
    Refused {
        /// Its error code.
        errcode: i64,
        /// What the code means to us.
        class: FailureClass,
        /// What to do about it, if that is known.
        hint: Option<Hint>,
        /// Its message, for the log: bounded, free of what was sent.
        message: String,
    },
}

impl FetchError {
    /// The class.
    pub fn class(&self) -> FailureClass {
        match self {
            FetchError::DependencyAbsent(_) => FailureClass::DependencyAbsent,
            FetchError::BudgetSpent { .. } => FailureClass::QuotaSpent,
            FetchError::BudgetReserved { .. } => FailureClass::Reserved,
            FetchError::Refused { class, .. } => *class,
            _ => FailureClass::Transient,
        }
    }

    /// The wait that this very failure asks for, where it is known.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            FetchError::BudgetSpent { wait } | FetchError::BudgetReserved { wait } => Some(*wait),
            _ => None,
        }
    }

    /// Whether the upstream may have made a new token all the same, and with it begun the end of
    /// the one before: the request was sent, and no answer says that it was refused.
    pub fn may_have_replaced(&self) -> bool {
        match self {
            FetchError::DependencyAbsent(_)
            | FetchError::BudgetSpent { .. }
            | FetchError::BudgetReserved { .. }
            | FetchError::NotConnected(_)
            | FetchError::Refused { .. } => false,
            // 3xx and 4xx come from something that did not do the work.
            FetchError::Status(status) => *status >= 500,
            FetchError::TimedOut
            | FetchError::Broken(_)
            | FetchError::TooLarge
            | FetchError::NotJson
            | FetchError::NoValue(_)
            | FetchError::NoLifetime(_) => true,
        }
    }

    /// What the log says beside what the client is told: the transport's words, the upstream's
    /// message. Empty where there is nothing more to say.
    pub fn for_log(&self) -> &str {
        match self {
            FetchError::NotConnected(words) | FetchError::Broken(words) => words,
            FetchError::Refused { message, .. } => message,
            _ => "",
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::DependencyAbsent(name) => {
                write!(f, "it needs {name}, which has no live token now")
            }
            FetchError::BudgetSpent { .. } => {
                f.write_str("the account's calls of this day are used up")
            }
            FetchError::BudgetReserved { .. } => {
                f.write_str("the account's remaining calls are kept for scheduled renewals")
            }
            FetchError::NotConnected(_) => f.write_str("the upstream cannot be reached"),
            FetchError::TimedOut => f.write_str("the upstream did not answer in time"),
            FetchError::Broken(_) => f.write_str("the upstream broke the connection off"),
            FetchError::Status(status) => write!(f, "the upstream answered with status {status}"),
            FetchError::TooLarge => f.write_str("the upstream's answer is too large"),
            FetchError::NotJson => f.write_str("the upstream's answer is not JSON"),
            FetchError::NoValue(what) => {
                write!(f, "the upstream's answer has no usable token: {what}")
            }
            FetchError::NoLifetime(what) => {
                write!(f, "the upstream's answer has no usable lifetime: {what}")
            }
            FetchError::Refused { errcode, hint: Some(hint), .. } => {
                write!(f, "the upstream answered errcode {errcode}: {}", hint.en)
            }
            FetchError::Refused { errcode, hint: None, .. } => {
                write!(f, "the upstream answered errcode {errcode}")
            }
        }
    }
}

impl std::error::Error for FetchError {}
