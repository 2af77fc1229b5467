//! `GET /v1/tokens` and `GET /v1/status`: which sources there are, and how they are. Times are Unix
//! seconds, durations whole seconds; never a value.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use warp::reply::Response;

use crate::access::User;
use crate::clock::Now;
use crate::snapshot::{Chapter, Remedy as Advice, Trouble};
use crate::status::{CallsToday, ReaderStatus, Readers, SourceStatus, State, Survey};
use crate::token::SourceName;

use super::super::handlers::Site;
use super::super::parts::{SOURCES_OF_A_PART, in_parts};
use super::{ApiError, Asked, parameter};

#[derive(Serialize)]
struct TokenLine {
    name: String,
    state: &'static str,
    expires_in: Option<u64>,
    expires_at: Option<u64>,
    generation: Option<u64>,
}

/// The sources that this client may see, without their values.
pub(super) fn tokens(site: &Site, user: &Arc<User>) -> Response {
    let now = site.clock.now();
    let line = move |source: SourceStatus| {
        let live = source.token.filter(|token| !token.life_left.is_zero());
        TokenLine {
            name: source.name.as_str().to_owned(),
            state: source.state.as_str(),
            expires_in: live.map(|token| token.promised.as_secs()),
            expires_at: live.map(|token| now.after(token.promised).unix_seconds()),
            generation: live.map(|token| token.generation.0),
        }
    };
    let user = Arc::clone(user);
    listed(r#"{"tokens":["#.into(), site.status.survey(), now, move |source| {
        sees(&user, &source.name).then(|| line(source))
    })
}

/// An answer that ends with a list of sources: its beginning, and an item for each source that has one.
fn listed<T: Serialize>(
    beginning: String,
    survey: Survey,
    now: Now,
    item: impl Fn(SourceStatus) -> Option<T> + Send + Sync + 'static,
) -> Response {
    let mut text = beginning;
    let (mut next, mut has_items, mut is_over) = (0, false, false);
    in_parts(
        "application/json",
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            for item in survey.part(next, SOURCES_OF_A_PART, now).filter_map(&item) {
                if std::mem::replace(&mut has_items, true) {
                    text.push(',');
                }
                text.push_str(&serde_json::to_string(&item).expect("an item has no maps"));
            }
            next += SOURCES_OF_A_PART;
            is_over = next >= survey.count();
            if is_over {
                text.push_str("]}");
            }
            Some(std::mem::take(&mut text))
        }),
    )
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    now: u64,
    started_at: u64,
    uptime: u64,
    states: States,
}

#[derive(Default, Serialize)]
struct States {
    live: usize,
    failing: usize,
    expired: usize,
    absent: usize,
}

#[derive(Serialize)]
struct Source {
    name: String,
    state: &'static str,
    generation: Option<u64>,
    /// When the request was sent that brought the token, or confirmed it last: the last success.
    fetched_at: Option<u64>,
    first_seen_at: Option<u64>,
    expires_at: Option<u64>,
    life_left: Option<u64>,
    /// The promised life.
    expires_in: Option<u64>,
    on_disk: Option<bool>,
    next_renewal_at: Option<u64>,
    refreshes: Refreshes,
    last_error: Option<Error>,
    calls_today: Option<Calls>,
    history: Vec<Past>,
    #[serde(skip_serializing_if = "Option::is_none")]
    readers: Option<Vec<Reader>>,
}

/// Since the server started.
#[derive(Serialize)]
struct Refreshes {
    succeeded: u32,
    failed: u32,
}

#[derive(Serialize)]
struct Error {
    at: u64,
    class: &'static str,
    code: Option<String>,
    message: String,
    message_zh: String,
    remedy: Remedy,
    /// Whether a refresh has come off since.
    over: bool,
}

#[derive(Serialize)]
pub(super) struct Remedy {
    en: Cow<'static, str>,
    zh: Cow<'static, str>,
}

impl From<Advice> for Remedy {
    fn from(Advice { en, zh }: Advice) -> Remedy {
        Remedy { en, zh }
    }
}

#[derive(Serialize)]
struct Calls {
    made: u32,
    limit: Option<u32>,
    resets_this_month: u32,
}

#[derive(Serialize)]
struct Past {
    first: u32,
    last: u32,
    count: u16,
    /// The class of the failure.
    failure: Option<&'static str>,
    code: Option<i32>,
}

#[derive(Serialize)]
struct Reader {
    client: String,
    protocol: &'static str,
    reads: u64,
    /// In the last one to two minutes.
    recent_reads: u64,
    last_read_at: Option<u64>,
}

/// How the server is, as far as this client may see.
pub(super) fn status(asked: &Asked<'_>, user: &Arc<User>) -> Result<Response, ApiError> {
    let status = &asked.site.status;
    let now = asked.site.clock.now();
    // Who else reads a source is for those who may do everything.
    let readers = user.is_default().then(|| status.readers(now));
    let survey = status.survey();
    let only = match parameter(asked.query, "source") {
        None => None,
        Some(name) if status.source(&name, now).is_some_and(|one| sees(user, &one.name)) => {
            Some(name.into_owned())
        }
        Some(_) => return Err(ApiError::not_found()),
    };
    let user = Arc::clone(user);
    let is_told = move |source: &SourceStatus| {
        let name = source.name.as_str();
        only.as_ref().is_none_or(|only| only == name) && sees(&user, &source.name)
    };
    let mut states = States::default();
    for source in survey.all(now).filter(&is_told) {
        *match source.state {
            State::Live => &mut states.live,
            State::Failing => &mut states.failing,
            State::Expired => &mut states.expired,
            State::Absent => &mut states.absent,
        } += 1;
    }
    let beginning = serde_json::to_string(&Status {
        version: env!("CARGO_PKG_VERSION"),
        now: now.unix_seconds(),
        started_at: unix(status.started()),
        uptime: status.uptime().as_secs(),
        states,
    });
    let mut beginning = beginning.expect("it has no maps");
    // The sources come last.
    beginning.truncate(beginning.len() - 1);
    beginning.push_str(r#","sources":["#);
    let status = status.clone();
    Ok(listed(beginning, survey, now, move |source| {
        is_told(&source).then(|| {
            let history = status.history(source.name.as_str(), now);
            shown(source, &history, readers.as_ref())
        })
    }))
}

fn sees(user: &User, source: &SourceName) -> bool {
    user.may_see(source.as_str().as_bytes())
}

fn shown(source: SourceStatus, history: &[Chapter], readers: Option<&Readers>) -> Source {
    let SourceStatus { name, state, token, condition, calls } = source;
    let over = condition.is_trouble_over;
    let readers = readers.map(|readers| {
        readers.get(&Some(name.clone())).into_iter().flatten().map(reader).collect()
    });
    Source {
        state: state.as_str(),
        generation: token.map(|token| token.generation.0),
        fetched_at: token.map(|token| unix(token.fetched_at)),
        first_seen_at: token.map(|token| unix(token.first_seen)),
        expires_at: token.map(|token| unix(token.expires_at)),
        life_left: token.map(|token| token.life_left.as_secs()),
        expires_in: token.map(|token| token.promised.as_secs()),
        on_disk: token.map(|_| condition.is_on_disk),
        next_renewal_at: condition.next_renewal,
        refreshes: Refreshes { succeeded: condition.renewed, failed: condition.failed },
        last_error: condition.trouble.map(|trouble| error(&trouble, over)),
        calls_today: calls.map(|CallsToday { made, limit, resets, .. }| Calls {
            made,
            limit,
            resets_this_month: resets,
        }),
        history: history.iter().map(past).collect(),
        readers,
        name: name.as_str().to_owned(),
    }
}

fn error(trouble: &Trouble, over: bool) -> Error {
    Error {
        at: unix(trouble.at),
        class: trouble.class,
        code: trouble.code.as_deref().map(str::to_owned),
        message: trouble.what.to_string(),
        message_zh: trouble.what_zh.to_string(),
        remedy: trouble.remedy.clone().into(),
        over,
    }
}

fn past(chapter: &Chapter) -> Past {
    let Chapter { first, last, count, failure, code } = *chapter;
    Past { first, last, count, failure, code: (code != 0).then_some(code) }
}

fn reader(who: &ReaderStatus) -> Reader {
    let ReaderStatus { client, via, reads } = who;
    Reader {
        client: client.to_string(),
        protocol: via.as_str(),
        reads: reads.total,
        recent_reads: reads.recent,
        last_read_at: reads.last.map(unix),
    }
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
