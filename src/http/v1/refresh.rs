//! `POST /v1/tokens/{name}/refresh`: another token than the one that the client saw refused.

use std::sync::Arc;

use futures_util::Stream;
use serde::Deserialize;
use warp::Buf;
use warp::reply::Response;

use crate::access::{User, Via};
use crate::refresh::{Refused, Wish};
use crate::token::SourceName;

use super::super::form;
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
    let before = site.reader.live(name, site.clock.now()).map(|live| live.record().generation);
    let rests_until = || site.reader.slot(name).map(|slot| slot.condition().rests_until);
    let rested_until = rests_until();
    let wish = match stale.filter(|stale| !stale.is_empty()) {
        Some(stale) => Wish::Other { refused: Refused::parse(&stale), force },
        None => Wish::Any { newer_than: before, force },
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
    let generation = published.record.generation;
    // Of other than was served when the client asked; somebody may have refreshed it before.
    let refreshed = before != Some(generation);
    let life = Life::new(promised, generation, now);
    // Who named no value is given the current one in a cooldown; a fetch meanwhile would have begun another.
    let is_any = matches!(wish, Wish::Any { .. });
    let rest = rested_until.filter(|until| is_any && !refreshed && rests_until() == Some(*until));
    let retry_after = rest.and_then(|until| until.checked_sub(now.unix_seconds()));
    let retry_after = retry_after.filter(|seconds| *seconds > 0);
    Ok(token::after_refresh(name, &published.record.value, life, refreshed, retry_after))
}
