//! The routes as a table, and the one warp filter that takes a request apart, finds its row and
//! calls the handler. A table and not a chain of filters: a chain answers an unknown path or method
//! by collecting rejections, and the reading route must not pay for them.

use std::convert::Infallible;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::Stream;
use percent_encoding::percent_decode_str;
use warp::http::Method;
use warp::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, IF_NONE_MATCH};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Buf, Filter, Rejection};

use super::handlers::{Site, Visitor, force_refresh, token};
use super::progress::Progress;
use super::query::Asked;
use super::reply::{self, Unserved};
use super::v1::{self, ApiError, Resource};
use super::{Door, form, health, metrics, ui};
use crate::token::Secret;

/// One path that is served.
#[derive(Debug)]
pub struct Route {
    /// The path, compared as it stands: the original knows no trailing slash either.
    pub path: &'static str,
    /// The methods, as the `Allow` header says them.
    pub methods: &'static str,
    /// What it does, for the documentation.
    pub summary: &'static str,
    /// The statuses that it is answered with.
    pub statuses: &'static [u16],
    endpoint: Endpoint,
}

#[derive(Debug, Clone, Copy)]
enum Endpoint {
    Banner,
    Token,
    ForceRefresh,
    V1(Resource),
    OpenApi,
    Health,
    Ready,
    Metrics,
    /// A file of the page.
    Page(&'static ui::File),
    /// To the page.
    ToThePage,
}

/// Stands for the name of a source in a path.
const NAME: &str = "{name}";

/// Every path that is served, the most frequent first.
pub static ROUTES: &[Route] = &[
    Route {
        path: "/wechat/token",
        methods: "GET, HEAD",
        summary: "the current token of a source",
        statuses: &[200, 429],
        endpoint: Endpoint::Token,
    },
    Route {
        path: "/wechat/token/forcerefresh",
        // No HEAD: it must be safe, and this spends the account's quota.
        methods: "GET, POST",
        summary: "a token newer than the current one",
        statuses: &[200, 400, 408, 413, 429],
        endpoint: Endpoint::ForceRefresh,
    },
    Route {
        path: "/",
        methods: "GET, HEAD",
        summary: "a greeting",
        statuses: &[200],
        endpoint: Endpoint::Banner,
    },
    Route {
        path: "/v1/tokens",
        methods: "GET, HEAD",
        summary: "the sources that the client may see, without their values",
        statuses: &[200, 401, 429],
        endpoint: Endpoint::V1(Resource::Tokens),
    },
    Route {
        path: "/v1/tokens/{name}",
        methods: "GET, HEAD",
        summary: "the current token of a source, at once or as soon as it is another",
        statuses: &[200, 204, 304, 400, 401, 404, 429, 503],
        endpoint: Endpoint::V1(Resource::Token),
    },
    Route {
        path: "/v1/tokens/{name}/refresh",
        methods: "POST",
        summary: "another token than the one that was refused",
        statuses: &[200, 400, 401, 403, 404, 408, 409, 413, 415, 429, 502, 503],
        endpoint: Endpoint::V1(Resource::Refresh),
    },
    Route {
        path: "/v1/quota/{name}/reset",
        methods: "POST",
        summary: "has WeChat give the calls of a source's account back",
        statuses: &[200, 401, 403, 404, 409, 429, 502, 503],
        endpoint: Endpoint::V1(Resource::QuotaReset),
    },
    Route {
        path: "/v1/reload",
        methods: "POST",
        summary: "reads the config again",
        statuses: &[200, 401, 403, 409, 429, 503],
        endpoint: Endpoint::V1(Resource::Reload),
    },
    Route {
        path: "/v1/status",
        methods: "GET, HEAD",
        summary: "how the server and its sources are",
        statuses: &[200, 401, 404, 429],
        endpoint: Endpoint::V1(Resource::Status),
    },
    Route {
        path: "/v1/events",
        methods: "GET",
        summary: "what happens to the sources, as it happens",
        statuses: &[200, 401, 429],
        endpoint: Endpoint::V1(Resource::Events),
    },
    Route {
        path: "/v1/doctor",
        // No HEAD: it asks the upstream.
        methods: "GET",
        summary: "what is wrong, and what to do about it",
        statuses: &[200, 401, 403, 429],
        endpoint: Endpoint::V1(Resource::Doctor),
    },
    Route {
        path: "/v1/openapi.json",
        methods: "GET, HEAD",
        summary: "this interface as an OpenAPI document",
        statuses: &[200],
        endpoint: Endpoint::OpenApi,
    },
    Route {
        path: "/healthz",
        methods: "GET, HEAD",
        summary: "whether the server serves",
        statuses: &[200],
        endpoint: Endpoint::Health,
    },
    Route {
        path: "/readyz",
        methods: "GET, HEAD",
        summary: "whether the tokens that are needed are there",
        statuses: &[200, 401, 429, 503],
        endpoint: Endpoint::Ready,
    },
    Route {
        path: "/metrics",
        methods: "GET, HEAD",
        summary: "the server in numbers, for Prometheus",
        statuses: &[200, 401, 429],
        endpoint: Endpoint::Metrics,
    },
    page("/ui", "the page for people", &ui::INDEX),
    page("/ui/style.css", "how it looks", &ui::STYLE),
    page("/ui/icon.svg", "its icon", &ui::ICON),
    page("/ui/early.js", "its language and colours, before it is drawn", &ui::EARLY),
    page("/ui/app.js", "its script", &ui::APP),
    page("/ui/api.js", "… and how it talks to /v1", &ui::API),
    page("/ui/live.js", "… how it stays connected", &ui::LIVE),
    page("/ui/render.js", "… how it shows a source", &ui::RENDER),
    page("/ui/text.js", "… its words, in both languages", &ui::TEXT),
    Route {
        path: "/ui/",
        methods: "GET, HEAD",
        summary: "to the page",
        statuses: &[308],
        endpoint: Endpoint::ToThePage,
    },
];

const fn page(path: &'static str, summary: &'static str, file: &'static ui::File) -> Route {
    let endpoint = Endpoint::Page(file);
    Route { path, methods: "GET, HEAD", summary, statuses: &[200, 304], endpoint }
}

/// The row of a path, and the name of a source where the path has one, as it was sent.
fn find(path: &str) -> Option<(&'static Route, &str)> {
    // First whole paths, as the most frequent ones are; a bracket is part of no such path.
    let whole = ROUTES.iter().find(|route| route.path == path && !path.contains('{'));
    if let Some(route) = whole {
        return Some((route, ""));
    }
    ROUTES.iter().find_map(|route| {
        let (before, after) = route.path.split_once(NAME)?;
        let name = path.strip_prefix(before)?.strip_suffix(after)?;
        (!name.is_empty() && !name.contains('/')).then_some((route, name))
    })
}

impl Route {
    fn allows(&self, method: &Method) -> bool {
        self.methods.split([',', ' ']).any(|allowed| allowed == method.as_str())
    }

    /// Whether it tells how the server is, and nothing that only clients may know.
    fn tells_how_it_is(&self) -> bool {
        matches!(self.endpoint, Endpoint::Health | Endpoint::Ready | Endpoint::Metrics)
    }

    /// Whether it belongs to the page for people, and so not to the interface for programs.
    pub(super) fn is_of_the_page(&self) -> bool {
        matches!(self.endpoint, Endpoint::Page(_) | Endpoint::ToThePage)
    }

    /// Whether it is served here.
    fn is_served(&self, site: &Site) -> bool {
        match site.door {
            Door::Main => site.ui || !self.is_of_the_page(),
            Door::Metrics => self.tells_how_it_is(),
        }
    }
}

/// The filter that answers everything `peer` asks on one connection.
pub(super) fn routes(
    site: Arc<Site>,
    peer: SocketAddr,
    progress: Arc<Progress>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    // Cloned for each request, so each connection has a count of its own: one count for all would
    // travel between the processors' caches.
    let visit = Arc::new((site, peer, progress));
    warp::method()
        .and(warp::path::full())
        .and(query())
        .and(warp::ext::optional())
        .and(warp::body::stream())
        .then(move |method: Method, path: FullPath, query: String, said: Option<Said>, body| {
            let visit = Arc::clone(&visit);
            async move {
                let (site, peer, progress) = &*visit;
                let Said { bearer, forwarded_for, if_none_match, format } =
                    &said.unwrap_or_default();
                let visitor = Visitor {
                    address: forwarded_for.unwrap_or_else(|| peer.ip()),
                    bearer: bearer.as_ref().map(|key| key.expose().as_bytes()),
                };
                let if_none_match = if_none_match.as_deref();
                let query = &query;
                let request = Request { method, query, if_none_match, format: *format, progress };
                answer(site, visitor, path.as_str(), request, body)
                    .await
                    .unwrap_or_else(Response::from)
            }
        })
}

/// What a request says in its headers, where it says anything: most have none of them. Left with it by the
/// connection, as a filter for each header would cost every request more than looking for all of them does.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// The key in `Authorization: Bearer`. RFC 6750, section 2.1.
    bearer: Option<Secret>,
    /// Where it comes from, by the word of a trusted proxy.
    forwarded_for: Option<IpAddr>,
    /// The tags of what a client has.
    if_none_match: Option<Box<str>>,
    format: BodyFormat,
}

impl Said {
    /// What is said here; `None` if it is nothing.
    pub(super) fn of(headers: &HeaderMap, forwarded_for: Option<IpAddr>) -> Option<Said> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let (bearer, tags) = (text(AUTHORIZATION).and_then(bearer), text(IF_NONE_MATCH));
        let format = text(CONTENT_TYPE).map_or(BodyFormat::Other, BodyFormat::of);
        let is_silent = bearer.is_none()
            && tags.is_none()
            && forwarded_for.is_none()
            && matches!(format, BodyFormat::Other);
        let said = || Said { bearer, forwarded_for, if_none_match: tags.map(Box::from), format };
        (!is_silent).then(said)
    }
}

/// The key in these credentials, if they are of the kind that has one.
fn bearer(credentials: &str) -> Option<Secret> {
    let scheme = "Bearer ";
    let is_bearer =
        credentials.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    is_bearer.then(|| Secret::new(credentials[scheme.len()..].trim()))
}

/// What a request says beside its path and its body.
struct Request<'a> {
    method: Method,
    query: &'a str,
    if_none_match: Option<&'a str>,
    format: BodyFormat,
    progress: &'a Arc<Progress>,
}

async fn answer(
    site: &Arc<Site>,
    visitor: Visitor<'_>,
    path: &str,
    request: Request<'_>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Unserved> {
    let Request { method, query, format, .. } = &request;
    let found = find(path).filter(|(route, _)| route.is_served(site));
    let (route, name) = match found {
        Some((route, name)) if route.allows(method) => (route, name),
        found => {
            let why =
                found.map_or(Unserved::NotFound, |(route, _)| Unserved::Method(route.methods));
            return if path.starts_with("/v1/") {
                Ok(ApiError::from(why).into())
            } else {
                Err(why)
            };
        }
    };
    match route.endpoint {
        Endpoint::Banner => Ok(reply::banner()),
        Endpoint::Token => {
            Ok(token(site, visitor, &Asked::of(query.as_bytes(), &[])).await?.into())
        }
        // Boxed, here and below, so that the future of every other request is small.
        Endpoint::ForceRefresh => {
            Box::pin(async move {
                let form = match format {
                    BodyFormat::Form if method == Method::POST => {
                        form::read(body, site.body_timeout).await?
                    }
                    _ => Vec::new(),
                };
                let asked = Asked::of(query.as_bytes(), &form);
                Ok(force_refresh(site, visitor, &asked).await?.into())
            })
            .await
        }
        Endpoint::V1(resource) => Ok(Box::pin(async move {
            let name = percent_decode_str(name).decode_utf8_lossy();
            let Request { query, if_none_match, format, progress, .. } = request;
            let asked =
                v1::Asked { site, visitor, query, name: &name, if_none_match, format, progress };
            v1::answer(resource, asked, body).await.unwrap_or_else(Response::from)
        })
        .await),
        Endpoint::OpenApi => Ok(health::openapi()),
        Endpoint::Health => Ok(health::alive()),
        Endpoint::Ready => {
            let answer = Box::pin(health::ready(site, visitor)).await;
            Ok(answer.unwrap_or_else(Response::from))
        }
        Endpoint::Metrics => {
            let answer = Box::pin(metrics::metrics(site, visitor)).await;
            Ok(answer.unwrap_or_else(Response::from))
        }
        Endpoint::Page(file) => Ok(ui::file(file, request.if_none_match)),
        Endpoint::ToThePage => Ok(ui::to_the_page()),
    }
}

/// The query string as it was sent; empty where there is none. (Not `warp::query`: where it fails,
/// it writes the string to the log.)
fn query() -> impl Filter<Extract = (String,), Error = Infallible> + Copy {
    warp::query::raw().or_else(|_| ready(Ok::<_, Infallible>((String::new(),))))
}

/// What a body holds, by its `Content-Type`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum BodyFormat {
    Form,
    Json,
    /// Not read, as in the original.
    #[default]
    Other,
}

impl BodyFormat {
    fn of(content_type: &str) -> BodyFormat {
        let begins_with = |kind: &str| {
            content_type.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
        };
        if begins_with("application/x-www-form-urlencoded") {
            BodyFormat::Form
        } else if begins_with("application/json") {
            BodyFormat::Json
        } else {
            BodyFormat::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_is_sound() {
        let paths: HashSet<&str> = ROUTES.iter().map(|route| route.path).collect();
        assert_eq!(paths.len(), ROUTES.len());
        for route in ROUTES {
            assert!(route.path.starts_with('/') && !route.summary.is_empty());
            assert!(route.statuses[0] < 400 && route.statuses.is_sorted());
            assert!(!route.allows(&Method::DELETE));
        }
    }

    #[test]
    fn a_path_is_found_with_the_name_in_it() {
        for (path, expected) in [
            ("/wechat/token", Some(("/wechat/token", ""))),
            ("/v1/tokens", Some(("/v1/tokens", ""))),
            ("/v1/tokens/a.b:c", Some(("/v1/tokens/{name}", "a.b:c"))),
            ("/v1/tokens/refresh", Some(("/v1/tokens/{name}", "refresh"))),
            ("/v1/tokens/a/refresh", Some(("/v1/tokens/{name}/refresh", "a"))),
            ("/v1/tokens/{name}", Some(("/v1/tokens/{name}", "{name}"))),
            ("/v1/tokens/", None),
            ("/v1/tokens//refresh", None),
            ("/v1/tokens/a/b", None),
            ("/v1/tokens/a/b/refresh", None),
            ("/v1/tokens/a/", None),
            ("/v1", None),
        ] {
            assert_eq!(find(path).map(|(route, name)| (route.path, name)), expected, "{path}");
        }
    }
}
