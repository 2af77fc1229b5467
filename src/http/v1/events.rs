//! `GET /v1/events`: what happens to the sources, as it happens (server-sent events). Never a value: who
//! is told of a rotation reads the token.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use serde::Serialize;
use tokio::time::Sleep;
use warp::Reply;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;
use warp::sse::Event;

use crate::access::User;
use crate::shutdown::Drain;
use crate::snapshot::{Happening, Onlooker};
use crate::token::SourceName;

use super::super::places::Place;
use super::super::progress::Attended;
use super::{ApiError, Asked, with};

/// How often a stream says that it is alive: well within what proxies and clients take for silence.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a client is asked to wait before it connects again.
const RECONNECT: Duration = Duration::from_secs(3);

/// A stream to one client. Ends when it leaves, or with the server.
struct Stream {
    onlooker: Onlooker,
    user: Arc<User>,
    drain: Drain,
    heartbeat: Duration,
    /// Whether the first word has been said.
    has_begun: bool,
    _place: Place,
    _attended: Attended,
}

/// Tells what happens from now on.
pub(super) fn events(asked: &Asked<'_>, user: &Arc<User>) -> Result<Response, ApiError> {
    let site = asked.site;
    let place = site.streams.take(user).ok_or_else(ApiError::too_many_waiting)?;
    let stream = Stream {
        onlooker: site.reader.happenings(),
        user: Arc::clone(user),
        drain: site.drain.clone(),
        // A connection that stands still for longer is cut.
        heartbeat: HEARTBEAT.min(site.body_timeout / 2),
        has_begun: false,
        _place: place,
        _attended: asked.progress.attend(),
    };
    let answer = warp::sse::reply(stream::unfold(stream, next)).into_response();
    Ok(with(answer, CONTENT_TYPE, HeaderValue::from_static("text/event-stream")))
}

async fn next(mut stream: Stream) -> Option<(Result<Event, Infallible>, Stream)> {
    if !std::mem::replace(&mut stream.has_begun, true) {
        // At once, so that the client knows from when on it is told.
        return Some((Ok(Event::default().comment("listening").retry(RECONNECT)), stream));
    }
    let alive: Sleep = tokio::time::sleep(stream.heartbeat);
    let mut alive = std::pin::pin!(alive);
    loop {
        let happening = tokio::select! {
            biased;
            () = stream.drain.begun() => return None,
            happening = stream.onlooker.next() => happening,
            () = &mut alive => return Some((Ok(Event::default().comment("")), stream)),
        };
        if let Some(event) = told(&happening, &stream.user) {
            return Some((Ok(event), stream));
        }
    }
}

#[derive(Serialize)]
struct Rotated<'a> {
    name: &'a str,
    generation: u64,
}

#[derive(Serialize)]
struct Failing<'a> {
    name: &'a str,
    class: &'static str,
    code: Option<&'a str>,
    message: &'a str,
}

#[derive(Serialize)]
struct Recovered<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Resync {}

/// What this client is told of it, if anything.
fn told(happening: &Happening, user: &User) -> Option<Event> {
    let visible = |source: &SourceName| user.may_see(source.as_str().as_bytes()).then_some(());
    match happening {
        Happening::Rotated { source, generation } => {
            visible(source)?;
            let data = Rotated { name: source.as_str(), generation: generation.0 };
            Some(event("rotated", &data))
        }
        Happening::Failing { source, trouble } => {
            visible(source)?;
            let data = Failing {
                name: source.as_str(),
                class: trouble.class,
                code: trouble.code.as_deref(),
                message: &trouble.what,
            };
            Some(event("failing", &data))
        }
        Happening::Recovered { source } => {
            visible(source)?;
            Some(event("recovered", &Recovered { name: source.as_str() }))
        }
        // For the operator: it is of the account, and told by webhooks, metrics and the log.
        Happening::Foreign { .. } | Happening::CallsUsed(_) => None,
        Happening::Everything => Some(event("resync", &Resync {})),
    }
}

fn event(name: &'static str, data: &impl Serialize) -> Event {
    Event::default().event(name).json_data(data).expect("an event has no maps with odd keys")
}
