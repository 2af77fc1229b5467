//! Whether the server serves, and whether it is ready: for load balancers and whoever restarts it. And
//! the document that describes the interface.

use serde::Serialize;
use warp::http::StatusCode;
use warp::reply::Response;

use super::Door;
use super::handlers::{Site, Visitor};
use super::v1::{self, ApiError, OPENAPI, json};

/// `GET /healthz`: who gets this answer has reached a server that serves.
pub(super) fn alive() -> Response {
    #[derive(Serialize)]
    struct Body {
        alive: bool,
    }
    json(&Body { alive: true })
}

/// `GET /readyz`: 200 where the tokens that are needed are there, else 503. Which are not is told to
/// those who may see them.
///
/// # Errors
/// A key is shown, and it is wrong. None need be.
pub(super) async fn ready(site: &Site, visitor: Visitor<'_>) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Body {
        ready: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        not_ready: Option<Vec<String>>,
    }
    let user = match visitor.bearer {
        Some(_) if site.door == Door::Main => Some(v1::user(site, visitor).await?),
        _ => None,
    };
    let names =
        site.status.not_ready(site.ready.sources.as_deref(), site.ready.life, site.clock.now());
    let is_ready = names.is_empty() && !site.drain.has_begun();
    let not_ready = user.map(|user| {
        let visible = names.iter().filter(|name| user.may_see(name.as_str().as_bytes()));
        visible.map(|name| name.as_str().to_owned()).collect()
    });
    let mut answer = json(&Body { ready: is_ready, not_ready });
    if !is_ready {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(answer)
}

/// `GET /v1/openapi.json`.
pub(super) fn openapi() -> Response {
    v1::as_json(OPENAPI)
}
