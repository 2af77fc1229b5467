//! What each route does: plain functions from what was asked to what is answered. No bytes, no
//! headers, no sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::access::{Access, Manner, SLOWNESS, User, Via};
use crate::clock::SharedClock;
use crate::config::ReadyConfig;
use crate::control::Control;
use crate::doctor::Doctor;
use crate::log_budget::LogBudget;
use crate::refresh::{RefreshError, RefreshHandle, Refused, Wish};
use crate::shutdown::Drain;
use crate::snapshot::Reader;
use crate::status::Status;
use crate::tls::Tls;

use super::Door;
use super::places::Places;
use super::query::Asked;
use super::reply::{RefreshAnswer, TokenAnswer, TokenJson, Unserved};

/// What the routes serve from; all connections share one.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) reader: Reader,
    pub(super) refresh: RefreshHandle,
    pub(super) clock: SharedClock,
    pub(super) access: Arc<Access>,
    pub(super) status: Status,
    /// The way to have the server do something.
    pub(super) control: Control,
    pub(super) doctor: Doctor,
    /// Whether a key may stand in the parameter `secret`.
    pub(super) secret_parameter: bool,
    /// Whether the page is served.
    pub(super) ui: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub(super) trusted_proxies: Vec<IpNet>,
    /// How long a request's body may take, all in all; and how long a connection may stand still.
    pub(super) body_timeout: Duration,
    pub(super) tls: Option<Tls>,
    /// Of clients that speak TLS where it is not spoken.
    pub(super) tls_hellos: LogBudget,
    /// What must be there for the server to be ready.
    pub(super) ready: ReadyConfig,
    /// What is served here.
    pub(super) door: Door,
    /// Places for those who wait for a token.
    pub(super) waits: Arc<Places>,
    /// Places for those who are told what happens.
    pub(super) streams: Arc<Places>,
    /// Ends both.
    pub(super) drain: Drain,
}

/// Somebody who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visitor<'a> {
    /// Where they come from, as far as trusted proxies tell.
    pub(super) address: IpAddr,
    /// The key they show in a header.
    pub(super) bearer: Option<&'a [u8]>,
}

/// Who asks for what: a user and the type they name.
///
/// # Errors
/// How the others are turned away; all alike, so that a caller without a key learns nothing about which
/// sources exist.
fn admitted<'a>(
    site: &'a Site,
    visitor: Visitor<'_>,
    asked: &Asked<'_>,
) -> Result<Option<&'a Arc<User>>, Manner> {
    let parameter = asked.secret.as_deref().filter(|_| site.secret_parameter);
    let key = visitor.bearer.or(parameter);
    match site.access.with_key(key, visitor.address) {
        Ok(user) => Ok(asked.source.is_some().then_some(user)),
        Err(refusal) => Err(site.access.turn_away(&refusal, visitor.address, Via::Http)),
    }
}

/// Answers somebody who was not let in, in this manner; `as_ever` is what the original says.
async fn turned_away<T>(manner: Manner, as_ever: T) -> Result<T, Unserved> {
    match manner {
        Manner::AtOnce => Ok(as_ever),
        Manner::Slowly(None) => Err(Unserved::TooManyWrongKeys),
        Manner::Slowly(Some(_place)) => {
            tokio::time::sleep(SLOWNESS).await;
            Err(Unserved::TooManyWrongKeys)
        }
    }
}

/// The current token; an error tells how to turn the visitor away.
fn token_of(site: &Site, visitor: Visitor<'_>, asked: &Asked<'_>) -> Result<TokenAnswer, Manner> {
    let Some(user) = admitted(site, visitor, asked)? else { return Ok(TokenAnswer::Invalid) };
    let Some(name) = asked.source_name() else { return Ok(TokenAnswer::NotFound) };
    if !user.may_see(name.as_bytes()) {
        // As if there were none of this name.
        site.access.audit().denied(user, name, visitor.address, Via::Http, NOT_ITS_SOURCE);
        return Ok(TokenAnswer::NotFound);
    }
    let Some(live) = site.reader.live(name, site.clock.now()) else {
        return Ok(TokenAnswer::NotFound);
    };
    site.access.audit().read(user, name, visitor.address, Via::Http);
    Ok(TokenAnswer::Token(TokenJson::new(name, &live.record().value, live.promised_life())))
}

/// Why a client is refused a source.
pub(super) const NOT_ITS_SOURCE: &str = "the client may not have this source";

/// The current token.
///
/// # Errors
/// The visitor has shown too many wrong keys.
pub(super) async fn token(
    site: &Site,
    visitor: Visitor<'_>,
    asked: &Asked<'_>,
) -> Result<TokenAnswer, Unserved> {
    match token_of(site, visitor, asked) {
        Ok(answer) => Ok(answer),
        // Boxed, so that the future of every other request is small.
        Err(manner) => Box::pin(turned_away(manner, TokenAnswer::Invalid)).await,
    }
}

/// Another token than the one that the client saw refused (`stale`), or than the current one.
///
/// # Errors
/// The visitor has shown too many wrong keys.
pub(super) async fn force_refresh(
    site: &Site,
    visitor: Visitor<'_>,
    asked: &Asked<'_>,
) -> Result<RefreshAnswer, Unserved> {
    let now = site.clock.now();
    let user = match admitted(site, visitor, asked) {
        Ok(Some(user)) => user,
        Ok(None) => return Ok(RefreshAnswer::Invalid),
        Err(manner) => return turned_away(manner, RefreshAnswer::Invalid).await,
    };
    let audit = site.access.audit();
    let denied = |name: &str, why| audit.denied(user, name, visitor.address, Via::Http, why);
    let name = asked.source_name().unwrap_or_default();
    let Some(source) =
        site.reader.source(name).filter(|name| user.may_see(name.as_str().as_bytes()))
    else {
        if user.is_limited() {
            denied(name, NOT_ITS_SOURCE);
        }
        return Ok(RefreshAnswer::Failed(RefreshError::UnknownSource));
    };
    if asked.force && !user.is_default() {
        denied(name, "force is for the request_secret");
        return Ok(RefreshAnswer::MayNotForce);
    }
    let force = asked.force;
    let wish = match asked.stale() {
        Some(stale) => Wish::Other { refused: Refused::parse(stale), force },
        None => {
            let known = site.reader.live(source.as_str(), now);
            Wish::Any { newer_than: known.map(|live| live.record().generation), force }
        }
    };
    // The refresher tells of the attempt, once; this is a line for each who waited for it.
    let told = |outcome: &dyn std::fmt::Display| {
        audit.refreshed(user, &source, visitor.address, Via::Http, outcome);
    };
    match site.refresh.ask(source.as_str(), wish).await {
        Ok(published) => {
            told(&format_args!("generation {}", published.record.generation));
            // A fresh reading: the fetch may have taken seconds.
            Ok(match published.promised_life(site.clock.now()) {
                Some(promised) => {
                    let value = &published.record.value;
                    RefreshAnswer::Token(TokenJson::new(source.as_str(), value, promised))
                }
                None => RefreshAnswer::Ended,
            })
        }
        Err(error) => {
            told(&error);
            Ok(RefreshAnswer::Failed(error))
        }
    }
}
