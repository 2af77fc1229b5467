//! What each route does: plain functions from what was asked to what is answered. No bytes, no
//! headers, no sockets.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::log_budget::LogBudget;
use crate::refresh::{RefreshError, RefreshHandle, Refused, Wish};
use crate::snapshot::Reader;
use crate::tls::Tls;

use super::auth::Gate;
use super::query::Asked;
use super::reply::{RefreshAnswer, TokenAnswer, TokenJson};

/// What the routes serve from; all connections share one.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) reader: Reader,
    pub(super) refresh: RefreshHandle,
    pub(super) clock: SharedClock,
    pub(super) gate: Gate,
    /// How long a request's body may take, all in all.
    pub(super) body_timeout: Duration,
    pub(super) tls: Option<Tls>,
    /// Of clients that speak TLS where it is not spoken.
    pub(super) tls_hellos: LogBudget,
}

/// The current token.
pub(super) fn token(site: &Site, peer: SocketAddr, asked: &Asked<'_>) -> TokenAnswer {
    let now = site.clock.now();
    // The secret first: without it, known and unknown types are the same.
    if !site.gate.admits(asked.secret.as_deref()) || asked.source.is_none() {
        site.gate.turned_away(peer, false, now);
        return TokenAnswer::Invalid;
    }
    let Some(name) = asked.source_name() else { return TokenAnswer::NotFound };
    match site.reader.live(name, now) {
        Some(live) => {
            TokenAnswer::Token(TokenJson::new(name, &live.record().value, live.promised_life()))
        }
        None => TokenAnswer::NotFound,
    }
}

/// Another token than the one that the client saw refused (`stale`), or than the current one.
pub(super) async fn force_refresh(
    site: &Site,
    peer: SocketAddr,
    asked: &Asked<'_>,
) -> RefreshAnswer {
    let now = site.clock.now();
    if !site.gate.admits(asked.secret.as_deref()) || asked.source.is_none() {
        site.gate.turned_away(peer, true, now);
        return RefreshAnswer::Invalid;
    }
    let Some(source) = asked.source_name().and_then(|name| site.reader.source(name)) else {
        return RefreshAnswer::Failed(RefreshError::UnknownSource);
    };
    // The one client there is may do everything, so it may also force.
    let force = asked.force;
    let wish = match asked.stale() {
        Some(stale) => Wish::Other { refused: Refused::parse(stale), force },
        None => {
            let known = site.reader.live(source.as_str(), now);
            Wish::Any { newer_than: known.map(|live| live.record().generation), force }
        }
    };
    match site.refresh.ask(source.as_str(), wish).await {
        Ok(published) => {
            let generation = published.record.generation;
            // The refresher tells of the attempt, once; this is a line for each who waited for it.
            tracing::debug!(%source, %peer, %generation, force, "forced refresh answered");
            // A fresh reading: the fetch may have taken seconds.
            match published.promised_life(site.clock.now()) {
                Some(promised) => {
                    let value = &published.record.value;
                    RefreshAnswer::Token(TokenJson::new(source.as_str(), value, promised))
                }
                None => RefreshAnswer::Ended,
            }
        }
        Err(error) => {
            tracing::debug!(%source, %peer, %error, "forced refresh brought no newer token");
            RefreshAnswer::Failed(error)
        }
    }
}
