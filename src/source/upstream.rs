//! The [`Upstream`] over HTTP: sends a source's request to one of its hosts and has the answer read.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::hosts::Resting;
use super::{FetchError, FetchRequest, Fetched, QuotaUpstream, Upstream, reply, request};
use crate::clock::SharedClock;
use crate::config::{Host, TokenSource};
use crate::outbound::{Outbound, OutboundError};

/// Fetches tokens over HTTP.
#[derive(Debug)]
pub struct HttpUpstream {
    outbound: Outbound,
    clock: SharedClock,
    resting: Mutex<Resting>,
}

impl HttpUpstream {
    /// Fetches through `outbound`.
    pub fn new(outbound: Outbound, clock: SharedClock) -> HttpUpstream {
        HttpUpstream { outbound, clock, resting: Mutex::default() }
    }

    /// Held for a look-up only, and what it guards is whole at any time.
    fn resting(&self) -> MutexGuard<'_, Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream for HttpUpstream {
    async fn fetch(
        &self,
        source: &TokenSource,
        with: &FetchRequest,
    ) -> Result<Fetched, FetchError> {
        let mut filled = request::fill(source, with)?;
        let own = Host::of(&filled.request.url);
        let sent_at = self.clock.now();
        // One host for one attempt: a second request could make a second token.
        let host = own.filter(|_| !source.hosts.is_empty()).map(|own| {
            let hosts: Vec<&Host> = std::iter::once(&own).chain(&source.hosts).collect();
            self.resting().pick(&hosts, sent_at).clone()
        });
        if let Some(host) = &host {
            host.put_into(&mut filled.request.url);
        }
        let outcome = match self.outbound.exchange(filled.request).await {
            Ok(answer) => reply::read(source, &answer, sent_at.wall, &filled.sent),
            Err(OutboundError::CannotSend(words)) => return Err(FetchError::CannotSend(words)),
            Err(error) => Err(FetchError::from(error)),
        };
        if let Some(host) = &host {
            let blamed = outcome.as_ref().is_err_and(FetchError::blames_host);
            let now = self.clock.now();
            let mut resting = self.resting();
            if blamed { resting.failed(host, now) } else { resting.answered(host) }
        }
        let mut fetched = outcome?;
        if source.answer.capture.is_some() && fetched.captured.is_none() {
            // An answer that gives no new one leaves the one that was sent in force.
            fetched.captured = with.captured.clone().or_else(|| source.captured.clone());
        }
        Ok(fetched)
    }
}

impl QuotaUpstream for HttpUpstream {
    async fn clear_quota(&self, source: &TokenSource) -> Result<(), FetchError> {
        let filled = request::clear_quota(source)?;
        let answer = self.outbound.exchange(filled.request).await?;
        reply::read_done(source, &answer, &filled.sent)
    }
}

impl From<OutboundError> for FetchError {
    fn from(error: OutboundError) -> FetchError {
        match error {
            OutboundError::CannotSend(words) => FetchError::CannotSend(words),
            OutboundError::NotConnected(words) | OutboundError::NoTls(words) => {
                FetchError::NotConnected(words)
            }
            OutboundError::TimedOut => FetchError::TimedOut,
            OutboundError::Broken(words) => FetchError::Broken(words),
            OutboundError::TooLarge => FetchError::TooLarge,
        }
    }
}
