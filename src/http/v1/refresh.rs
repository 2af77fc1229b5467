//! `POST /v1/tokens/{name}/refresh`: another token than the one that the client saw refused.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::Stream;
use serde::Deserialize;
use warp::Buf;
use warp::reply::Response;

use crate::access::{User, Via};
use crate::clock::Now;
use crate::refresh::{Refused, Wish};
use crate::token::{SourceName, TokenRecord};

use super::super::form;
use super::super::handlers::Site;
use super::super::routes::BodyFormat;
use super::token::{self, Life};
use super::{ApiError, Asked, visible};

/// The body, which may be left out.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    /// The value that was refused, or its SHA-256 in hexadecimal digits.
    stale: Option<String>,
    /// Whether a new value is wanted although the old one is good.
    force: bool,
}

impl Wanted {
    fn read(json: &[u8]) -> Result<Wanted, ApiError> {
        // serde would take an array as well, for the fields in their order.
        let wanted = json.starts_with(b"{").then(|| serde_json::from_slice(json).ok()).flatten();
        // Not serde's words, which quote what was sent.
        let what = "the body is an object with `stale` (a text) and `force` (true or false), both optional";
        wanted.ok_or(ApiError::bad_request(what))
    }
}

/// Asks for it, and waits for what comes of it.
pub(super) async fn refresh(
    asked: &Asked<'_>,
    user: &Arc<User>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, ApiError> {
    let site = asked.site;
    let name = visible(asked, user)?;
    let bytes = form::read(body, site.body_timeout).await?;
    let Wanted { stale, force } = match (bytes.trim_ascii(), asked.format) {
        ([], _) => Wanted::default(),
        (bytes, BodyFormat::Json) => Wanted::read(bytes)?,
        _ => return Err(ApiError::not_json()),
    };
    let audit = site.access.audit();
    let address = asked.visitor.address;
    if force && !user.is_default() {
        let reason = "force is for the request_secret";
        audit.denied(user, name, address, Via::Http, reason);
        return Err(ApiError::may_not_force());
    }
    let before = site.reader.live(name, site.clock.now());
    let before = before.map(|live| (live.record().generation, live.record().fetched_at));
    let wish = match stale.filter(|stale| !stale.is_empty()) {
        Some(stale) => Wish::Other { refused: Refused::parse(&stale), force },
        None => Wish::Any { newer_than: before.map(|(generation, _)| generation), force },
    };
    let outcome = site.refresh.ask(name, wish).await;
    if let Ok(source) = SourceName::parse(name) {
        match &outcome {
            Ok(published) => {
                let generation = published.record.generation;
                let outcome = format_args!("generation {generation}");
                audit.refreshed(user, &source, address, Via::Http, &outcome);
            }
            Err(error) => audit.refreshed(user, &source, address, Via::Http, error),
        }
    }
    let published = outcome?;
    // A fresh reading: the fetch may have taken seconds.
    let now = site.clock.now();
    let promised = published.promised_life(now).ok_or_else(ApiError::no_token)?;
    let TokenRecord { generation, fetched_at, .. } = published.record;
    // Of other than was served when the client asked; somebody may have refreshed it before.
    let refreshed = before.is_none_or(|(served, _)| served != generation);
    let life = Life::new(promised, generation, now);
    // An upstream that was asked and gave the same value again has given it a new time.
    let is_untouched = matches!(wish, Wish::Any { .. }) && before == Some((generation, fetched_at));
    let retry_after = if is_untouched { rest(site, name, fetched_at, now) } else { None };
    Ok(token::after_refresh(name, &published.record.value, life, refreshed, retry_after))
}

/// For how many more seconds a source of which this was fetched then is not asked again by who names no
/// refused value.
fn rest(site: &Site, name: &str, fetched_at: SystemTime, now: Now) -> Option<u64> {
    let sources = site.status.sources();
    let source = sources.iter().find(|source| source.name.as_str() == name)?;
    let end = fetched_at + source.policy.unfounded_cooldown();
    let left = end.duration_since(now.wall).ok().filter(|left| !left.is_zero())?;
    Some(left.as_secs() + u64::from(left.subsec_nanos() > 0))
}
