//! The second version of the interface: who asks is told by a header, what goes wrong by the status and
//! one shape of error. Finds out who asks and calls what answers; the answers are in `v1/`.

mod doctor;
mod error;
mod events;
mod orders;
mod refresh;
mod status;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use warp::Buf;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use warp::reply::Response;

use crate::access::{Manner, SLOWNESS, User, Via};

use super::handlers::{NOT_ITS_SOURCE, Site, Visitor};
use super::progress::Progress;
use super::routes::BodyFormat;

pub(super) use error::ApiError;

/// The interface as an OpenAPI document; a test holds it to the table of routes.
pub(super) const OPENAPI: &str = include_str!("v1/openapi.json");

/// What can be asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Resource {
    /// Every source the client may see.
    Tokens,
    /// One token.
    Token,
    /// A newer token.
    Refresh,
    /// How the server is.
    Status,
    /// What happens.
    Events,
    /// The config is to be read again.
    Reload,
    /// An account's calls of the day are to be given back.
    QuotaReset,
    /// What is wrong, and what to do.
    Doctor,
}

/// What is asked, by whom.
pub(super) struct Asked<'a> {
    pub(super) site: &'a Arc<Site>,
    pub(super) visitor: Visitor<'a>,
    pub(super) query: &'a str,
    /// The source that the path names, decoded; empty where it names none.
    pub(super) name: &'a str,
    pub(super) if_none_match: Option<&'a str>,
    pub(super) format: BodyFormat,
    pub(super) progress: &'a Arc<Progress>,
}

/// Answers what is asked.
///
/// # Errors
/// Why it cannot be, in the words of the client.
pub(super) async fn answer(
    resource: Resource,
    asked: Asked<'_>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, ApiError> {
    let user = user(asked.site, asked.visitor).await?;
    match resource {
        Resource::Tokens => Ok(status::tokens(asked.site, user)),
        Resource::Token => token::token(&asked, user).await,
        Resource::Refresh => refresh::refresh(&asked, user, body).await,
        Resource::Status => status::status(&asked, user),
        Resource::Events => events::events(&asked, user),
        Resource::Reload => orders::reload(&asked, user).await,
        Resource::QuotaReset => orders::reset_quota(&asked, user).await,
        Resource::Doctor => doctor::doctor(&asked, user).await,
    }
}

/// Who shows this key.
///
/// # Errors
/// Nobody who may use the server.
pub(super) async fn user<'a>(
    site: &'a Site,
    visitor: Visitor<'_>,
) -> Result<&'a Arc<User>, ApiError> {
    match site.access.with_key(visitor.bearer, visitor.address) {
        Ok(user) => Ok(user),
        Err(refusal) => match site.access.turn_away(&refusal, visitor.address, Via::Http) {
            Manner::AtOnce => Err(ApiError::unauthorized(visitor.bearer.is_some())),
            Manner::Slowly(None) => Err(ApiError::too_many_wrong_keys()),
            Manner::Slowly(Some(_place)) => {
                tokio::time::sleep(SLOWNESS).await;
                Err(ApiError::too_many_wrong_keys())
            }
        },
    }
}

/// The name of a source that this client may see.
///
/// # Errors
/// There is none: whether there is one that it may not see is not told.
fn visible<'a>(asked: &Asked<'a>, user: &User) -> Result<&'a str, ApiError> {
    let Asked { site, name, visitor, .. } = *asked;
    if !user.may_see(name.as_bytes()) {
        site.access.audit().denied(user, name, visitor.address, Via::Http, NOT_ITS_SOURCE);
        return Err(ApiError::not_found());
    }
    if site.reader.source(name).is_none() {
        return Err(ApiError::not_found());
    }
    Ok(name)
}

/// An answer that no cache may keep: it holds a secret, or is of a moment.
pub(super) fn json(answer: &impl serde::Serialize) -> Response {
    as_json(serde_json::to_vec(answer).expect("an answer has no maps with odd keys"))
}

/// As [`json`], of what is JSON already.
pub(super) fn as_json(body: impl Into<Bytes>) -> Response {
    with(
        Response::new(body.into().into()),
        CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )
}

/// Sets a header, and keeps caches off.
pub(super) fn with(mut answer: Response, name: HeaderName, value: HeaderValue) -> Response {
    let headers = answer.headers_mut();
    headers.insert(name, value);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The parameters of a query string, decoded; the last one of a name wins.
fn parameter<'a>(query: &'a str, name: &str) -> Option<std::borrow::Cow<'a, str>> {
    form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name).last().map(|(_, v)| v)
}
