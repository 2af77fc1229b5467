//! How any token is obtained: one exchange with an upstream, and what can come of it.
//! Decides nothing about when; that is the engine's.

mod errcode;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hosts;
mod json;
mod remedy;
mod reply;
mod request;
mod trial;
mod upstream;

use std::time::{Duration, SystemTime};

use crate::config::TokenSource;
use crate::token::{Secret, SourceName};

pub use errcode::Hint;
pub use failure::{FailureClass, FetchError, Refusal};
pub use remedy::{SEE_DOCTOR, SEE_LOG};
pub use trial::{Trial, accepts, can_be_asked_about, trial_of, try_credentials};
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

/// An [`Upstream`] that can be asked to give an account's calls of the day back.
pub trait QuotaUpstream: Upstream {
    /// Asks for it with the account and secret of `source`'s own request. Counts against the month's
    /// resets.
    ///
    /// # Errors
    /// Whatever went wrong.
    fn clear_quota(
        &self,
        source: &TokenSource,
    ) -> impl Future<Output = Result<(), FetchError>> + Send;
}

/// What one request is made with, beside the source's settings.
#[derive(Debug, Clone, Default)]
pub struct FetchRequest {
    /// The tokens of the sources it depends on.
    pub dependencies: Dependencies,
    /// What the source's last answer gave to be sent with the next request; `None` if none has given
    /// anything yet: then the config's first value is sent.
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
    /// What is to be sent with the next request (a refresh token): what the answer gave, else what
    /// this request was made with.
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
