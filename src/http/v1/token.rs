//! `GET /v1/tokens/{name}`: one token, at once or as soon as there is another than the client has.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use warp::reply::Response;

use crate::access::{User, Via};
use crate::clock::Now;
use crate::duration::parse_duration;
use crate::snapshot::LiveToken;
use crate::token::{Generation, Secret};

use super::super::reply::is_among;
use super::{ApiError, Asked, json, parameter, visible, with};

/// How long a client may have the server wait at most: shorter than what proxies allow an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How a token is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Text,
}

/// What a client wants to know.
#[derive(Debug)]
struct Wanted<'a> {
    format: Format,
    wait: Duration,
    /// The generation that it has.
    after: Option<Generation>,
    /// What it has, by the tags that came with it.
    has: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn read(query: &str, if_none_match: Option<&'a str>) -> Result<Wanted<'a>, ApiError> {
        let format = match parameter(query, "format").as_deref() {
            None | Some("json") => Format::Json,
            Some("text") => Format::Text,
            Some(_) => return Err(ApiError::bad_request("format is json or text")),
        };
        let wait = parameter(query, "wait").map_or(Ok(Duration::ZERO), |text| {
            let wait = parse_duration(&text).ok().filter(|wait| *wait <= LONGEST_WAIT);
            wait.ok_or(ApiError::bad_request("wait is a duration such as 30s, 60s at most"))
        })?;
        let after = match parameter(query, "after") {
            None => None,
            Some(text) => Some(Generation(text.parse().map_err(|_| {
                ApiError::bad_request("after is a generation: the number that came with a token")
            })?)),
        };
        Ok(Wanted { format, wait, after, has: if_none_match })
    }

    /// Whether the client has this one.
    fn has(&self, generation: Generation) -> bool {
        if self.after == Some(generation) {
            return true;
        }
        let tag = tag(generation, self.format);
        self.has.is_some_and(|tags| is_among(tags, &tag))
    }
}

/// Which value it is, and in which form: nothing of the value itself.
fn tag(generation: Generation, format: Format) -> String {
    match format {
        Format::Json => format!("\"{generation}\""),
        Format::Text => format!("\"{generation}-text\""),
    }
}

/// A token as it is answered. Holds the value, so has no `Debug`.
#[derive(Serialize)]
struct Body<'a> {
    name: &'a str,
    value: &'a str,
    #[serde(flatten)]
    life: Life,
    #[serde(skip_serializing_if = "Option::is_none")]
    refreshed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// A token as JSON.
fn body(name: &str, value: &Secret, life: Life) -> Response {
    json(&Body { name, value: value.expose(), life, refreshed: None, retry_after: None })
}

/// What a refresh came to: `refreshed` says whether it brought another value, `retry_after` for how many more
/// seconds the cooldown keeps it from that.
pub(super) fn after_refresh(
    name: &str,
    value: &Secret,
    life: Life,
    refreshed: bool,
    retry_after: Option<u64>,
) -> Response {
    json(&Body { name, value: value.expose(), life, refreshed: Some(refreshed), retry_after })
}

/// How long a client may rely on a token: whole seconds, and Unix seconds.
#[derive(Serialize)]
pub(super) struct Life {
    expires_in: u64,
    expires_at: u64,
    generation: u64,
}

impl Life {
    pub(super) fn new(promised: Duration, generation: Generation, now: Now) -> Life {
        let expires_at = now.after(promised).unix_seconds();
        Life { expires_in: promised.as_secs(), expires_at, generation: generation.0 }
    }
}

/// The token, or what there is to say instead.
pub(super) async fn token(asked: &Asked<'_>, user: &Arc<User>) -> Result<Response, ApiError> {
    let name = visible(asked, user)?;
    let wanted = Wanted::read(asked.query, asked.if_none_match)?;
    if let Some(answer) = news(asked, user, name, &wanted) {
        return Ok(answer);
    }
    if !wanted.wait.is_zero() {
        let _place = asked.site.waits.take(user).ok_or_else(ApiError::too_many_waiting)?;
        // A client that hangs up is to give its place back.
        let _attended = asked.progress.attend();
        let wait = until_news(asked, user, name, &wanted);
        if let Ok(Some(answer)) = tokio::time::timeout(wanted.wait, wait).await {
            return Ok(answer);
        }
        // A reload may have put another source in the place of the one that was watched.
        if let Some(answer) = news(asked, user, name, &wanted) {
            return Ok(answer);
        }
    }
    nothing_new(asked, name, &wanted)
}

/// The token, if it is live and the client has not got it.
fn news(asked: &Asked<'_>, user: &Arc<User>, name: &str, wanted: &Wanted<'_>) -> Option<Response> {
    let now = asked.site.clock.now();
    let live = asked.site.reader.live(name, now)?;
    if wanted.has(live.record().generation) {
        return None;
    }
    asked.site.access.audit().read(user, name, asked.visitor.address, Via::Http);
    Some(given(name, &live, wanted.format, now))
}

/// The next token that the client has not got; `None` where the server goes down.
async fn until_news(
    asked: &Asked<'_>,
    user: &Arc<User>,
    name: &str,
    wanted: &Wanted<'_>,
) -> Option<Response> {
    // Before the look: what is published after it wakes this.
    let mut changes = asked.site.reader.changes(name)?;
    loop {
        if let Some(answer) = news(asked, user, name, wanted) {
            return Some(answer);
        }
        tokio::select! {
            () = changes.changed() => {}
            () = asked.site.drain.begun() => return None,
        }
    }
}

fn given(name: &str, live: &LiveToken, format: Format, now: Now) -> Response {
    let record = live.record();
    let answer = match format {
        Format::Json => {
            let life = Life::new(live.promised_life(), record.generation, now);
            body(name, &record.value, life)
        }
        Format::Text => {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            with(Response::new(record.value.expose().to_owned().into()), CONTENT_TYPE, plain)
        }
    };
    tagged(answer, record.generation, format)
}

fn tagged(answer: Response, generation: Generation, format: Format) -> Response {
    let tag = HeaderValue::try_from(tag(generation, format)).expect("a tag is made of digits");
    with(answer, ETAG, tag)
}

/// There is nothing that the client has not got: 304 where it asked by a tag, 204 where it asked by
/// `after`.
fn nothing_new(asked: &Asked<'_>, name: &str, wanted: &Wanted<'_>) -> Result<Response, ApiError> {
    let live = asked.site.reader.live(name, asked.site.clock.now());
    let generation = live.ok_or_else(ApiError::no_token)?.record().generation;
    let mut answer = tagged(Response::default(), generation, wanted.format);
    let is_by_tag = wanted.has.is_some();
    *answer.status_mut() =
        if is_by_tag { StatusCode::NOT_MODIFIED } else { StatusCode::NO_CONTENT };
    Ok(answer)
}
