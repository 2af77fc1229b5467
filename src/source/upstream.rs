//! The [`Upstream`] over HTTP: makes a source's request and has the answer read.

use crate::config::TokenSource;
use crate::outbound::{Outbound, OutboundError};
use crate::token::Secret;

use super::{Dependencies, FetchError, FetchRequest, Fetched, Upstream, reply};

/// Fetches tokens over HTTP.
#[derive(Debug, Clone)]
pub struct HttpUpstream {
    outbound: Outbound,
}

impl HttpUpstream {
    /// Fetches through `outbound`.
    pub fn new(outbound: Outbound) -> HttpUpstream {
        HttpUpstream { outbound }
    }
}

impl Upstream for HttpUpstream {
    async fn fetch(
        &self,
        source: &TokenSource,
        request: &FetchRequest,
    ) -> Result<Fetched, FetchError> {
        let args = render(source, &request.dependencies)?;
        let mut url = source.url.clone();
        if !args.is_empty() {
            let mut query = url.query_pairs_mut();
            for ((name, _), value) in source.args.iter().zip(&args) {
                query.append_pair(name, value.expose());
            }
        }
        let answer = self.outbound.exchange(source.method, url, source.policy.timeout).await?;
        reply::read(source, answer.status, &answer.body, &args)
    }
}

/// The values of the source's arguments, in order.
fn render(source: &TokenSource, dependencies: &Dependencies) -> Result<Vec<Secret>, FetchError> {
    if let Some(absent) = source.dependencies.iter().find(|name| dependencies.get(name).is_none()) {
        return Err(FetchError::DependencyAbsent(absent.clone()));
    }
    let args = source.args.iter().map(|(_, value)| value.render(|name| dependencies.get(name)));
    Ok(args.map(|value| value.expect("every dependency is there, checked above")).collect())
}

impl From<OutboundError> for FetchError {
    fn from(error: OutboundError) -> FetchError {
        match error {
            OutboundError::NotConnected(words) => FetchError::NotConnected(words),
            OutboundError::TimedOut => FetchError::TimedOut,
            OutboundError::Broken(words) => FetchError::Broken(words),
            OutboundError::TooLarge => FetchError::TooLarge,
        }
    }
}
