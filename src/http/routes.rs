//! The routes as a table, and the one warp filter that takes a request apart, finds its row and
//! calls the handler. A table and not a chain of filters: a chain answers an unknown path or method
//! by collecting rejections, and the reading route must not pay for them.

use std::convert::Infallible;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use futures_util::Stream;
use warp::http::Method;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Buf, Filter, Rejection};

use super::form;
use super::handlers::{Site, Visitor, force_refresh, token};
use super::query::Asked;
use super::reply::{self, Unserved};
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
    endpoint: Endpoint,
}

#[derive(Debug, Clone, Copy)]
enum Endpoint {
    Banner,
    Token,
    ForceRefresh,
}

/// Every path that is served, the most frequent first.
pub static ROUTES: &[Route] = &[
    Route {
        path: "/wechat/token",
        methods: "GET, HEAD",
        summary: "the current token of a source",
        endpoint: Endpoint::Token,
    },
    Route {
        path: "/wechat/token/forcerefresh",
        // No HEAD: it must be safe, and this spends the account's quota.
        methods: "GET, POST",
        summary: "a token newer than the current one",
        endpoint: Endpoint::ForceRefresh,
    },
    Route { path: "/", methods: "GET, HEAD", summary: "a greeting", endpoint: Endpoint::Banner },
];

impl Route {
    fn allows(&self, method: &Method) -> bool {
        self.methods.split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// The filter that answers everything `peer` asks on one connection.
pub(super) fn routes(
    site: Arc<Site>,
    peer: SocketAddr,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    // Cloned for each request, so each connection has a count of its own: one count for all would
    // travel between the processors' caches.
    let visit = Arc::new((site, peer));
    warp::method()
        .and(warp::path::full())
        .and(query())
        .and(bearer())
        .and(warp::ext::optional())
        .and(body_format())
        .and(warp::body::stream())
        .then(
            move |method: Method,
                  path: FullPath,
                  query: String,
                  bearer,
                  forwarded,
                  format,
                  body| {
                let visit = Arc::clone(&visit);
                async move {
                    let (site, peer) = &*visit;
                    let (Bearer(key), forwarded): (Bearer, Option<ForwardedFor>) =
                        (bearer, forwarded);
                    let visitor = Visitor {
                        address: forwarded.map_or_else(|| peer.ip(), |ForwardedFor(ip)| ip),
                        bearer: key.as_ref().map(|key| key.expose().as_bytes()),
                    };
                    answer(site, visitor, &method, path.as_str(), &query, format, body)
                        .await
                        .unwrap_or_else(Response::from)
                }
            },
        )
}

/// Left with a request by the connection: where it comes from, by the word of a trusted proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct ForwardedFor(pub(super) IpAddr);

async fn answer(
    site: &Site,
    visitor: Visitor<'_>,
    method: &Method,
    path: &str,
    query: &str,
    format: BodyFormat,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Unserved> {
    let route = ROUTES.iter().find(|route| route.path == path).ok_or(Unserved::NotFound)?;
    if !route.allows(method) {
        return Err(Unserved::Method(route.methods));
    }
    match route.endpoint {
        Endpoint::Banner => Ok(reply::banner()),
        Endpoint::Token => {
            Ok(token(site, visitor, &Asked::of(query.as_bytes(), &[])).await?.into())
        }
        // Boxed, so that the future of every other request is small.
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
    }
}

/// The query string as it was sent; empty where there is none. (Not `warp::query`: where it fails,
/// it writes the string to the log.)
fn query() -> impl Filter<Extract = (String,), Error = Infallible> + Copy {
    warp::query::raw().or_else(|_| ready(Ok::<_, Infallible>((String::new(),))))
}

/// The key in `Authorization: Bearer`, if there is one. RFC 6750, section 2.1.
struct Bearer(Option<Secret>);

impl FromStr for Bearer {
    type Err = Infallible;

    fn from_str(credentials: &str) -> Result<Bearer, Infallible> {
        let scheme = "Bearer ";
        let is_bearer =
            credentials.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        Ok(Bearer(is_bearer.then(|| Secret::new(credentials[scheme.len()..].trim()))))
    }
}

fn bearer() -> impl Filter<Extract = (Bearer,), Error = Infallible> + Copy {
    warp::header::optional("authorization")
        .map(|bearer: Option<Bearer>| bearer.unwrap_or(Bearer(None)))
        .or_else(|_| ready(Ok::<_, Infallible>((Bearer(None),))))
}

/// What a body holds, by its `Content-Type`.
#[derive(Debug, Clone, Copy)]
enum BodyFormat {
    Form,
    /// Not read, as in the original.
    Other,
}

impl FromStr for BodyFormat {
    type Err = Infallible;

    fn from_str(content_type: &str) -> Result<BodyFormat, Infallible> {
        let form = "application/x-www-form-urlencoded";
        let is_form =
            content_type.get(..form.len()).is_some_and(|start| start.eq_ignore_ascii_case(form));
        Ok(if is_form { BodyFormat::Form } else { BodyFormat::Other })
    }
}

fn body_format() -> impl Filter<Extract = (BodyFormat,), Error = Infallible> + Copy {
    warp::header::optional("content-type")
        .map(|format: Option<BodyFormat>| format.unwrap_or(BodyFormat::Other))
        .or_else(|_| ready(Ok::<_, Infallible>((BodyFormat::Other,))))
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
            assert!(route.allows(&Method::GET) && !route.allows(&Method::DELETE));
        }
    }
}
