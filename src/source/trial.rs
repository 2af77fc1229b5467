//! Asking an upstream whether a token or the credentials are good, in ways that change nothing for anybody
//! who holds a token: a call that every token may make, and a fetch that gives the value that there is.
//! Decides nothing about when.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::json::Json;
use super::request::{self, Filled};
use super::{FetchError, FetchRequest, reply};
use crate::config::{Body, Method, Rotation, TokenSource, Vendor};
use crate::outbound::{Outbound, Payload, Request};
use crate::token::Secret;

/// Whose tokens can be asked about: the end of the path that they are fetched from, and of the call that each
/// of them may make.
///
/// `getcallbackip` tells which addresses the vendor's own servers have. For an official account WeChat looks
/// at the caller's address there too: developers.weixin.qq.com/doc/oplatform/developers/basic_func/ip_whitelist.
const CALLS: &[(Vendor, &str, &str)] = &[
    (Vendor::WeChat, TOKEN, "cgi-bin/getcallbackip"),
    (Vendor::WeChat, STABLE_TOKEN, "cgi-bin/getcallbackip"),
];

const TOKEN: &str = "cgi-bin/token";
const STABLE_TOKEN: &str = "cgi-bin/stable_token";

/// How the credentials of a source can be tried so that no token is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// By the source's own request, which gives the value that there is.
    OwnRequest,
    /// By `stable_token` in the place of `cgi-bin/token`: the same credentials, and tokens of its own, which have
    /// nothing to do with the others; a repeated call gives the same one. "getStableAccessToken" at
    /// developers.weixin.qq.com.
    StableToken,
}

/// How the credentials of `source` can be tried; `None` where only a fetch would tell that may replace a token
/// that others hold, or use up what it sends (a refresh token). A source that depends on others has no credentials
/// of its own.
pub fn trial_of(source: &TokenSource) -> Option<Trial> {
    let captures = source.answer.capture.is_some() || source.captured.is_some();
    if captures || !source.dependencies.is_empty() {
        return None;
    }
    match source.policy.rotation {
        Rotation::Sticky { .. } | Rotation::Nominal | Rotation::Sliding => Some(Trial::OwnRequest),
        Rotation::Rotating if has_stable_twin(source) => Some(Trial::StableToken),
        // Of an endpoint that nobody knows it is only assumed that tokens leave each other alone.
        Rotation::Rotating | Rotation::Independent => None,
    }
}

fn has_stable_twin(source: &TokenSource) -> bool {
    source.vendor == Vendor::WeChat
        && matches!(source.request.body, Body::Empty)
        && with_end(&source.url, TOKEN, STABLE_TOKEN).is_some()
}

/// Tries the credentials of a source.
///
/// # Errors
/// As the upstream refuses them, or why it could not be asked.
pub async fn try_credentials(
    outbound: &Outbound,
    source: &TokenSource,
    trial: Trial,
    now: SystemTime,
) -> Result<(), FetchError> {
    let Filled { mut request, sent } = request::fill(source, &FetchRequest::default())?;
    if trial == Trial::StableToken {
        request = as_stable(request)?;
    }
    let answer = outbound.exchange(request).await?;
    reply::read(source, &answer, now, &sent).map(drop)
}

/// The same request to `stable_token`: what stood in the query stands in the body.
fn as_stable(request: Request) -> Result<Request, FetchError> {
    let other = || FetchError::CannotSend("its address is none of cgi-bin/token".into());
    let mut url = with_end(&request.url, TOKEN, STABLE_TOKEN).ok_or_else(other)?;
    url.set_query(None);
    let pairs = request.url.query_pairs().into_owned();
    let body = Json::new(pairs.map(|(name, value)| (name, Value::String(value))).collect());
    let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
    serde_json::to_writer(&mut *bytes, &*body).expect("a Vec takes what is written");
    let body = Some(Payload { content_type: "application/json; charset=utf-8", bytes });
    Ok(Request { method: Method::Post, url, body, ..request })
}

/// Whether it can be asked if a token of `source` is accepted.
pub fn can_be_asked_about(source: &TokenSource) -> bool {
    call_of(source).is_some()
}

fn call_of(source: &TokenSource) -> Option<Url> {
    let mut of_vendor = CALLS.iter().filter(|(vendor, ..)| *vendor == source.vendor);
    of_vendor.find_map(|(_, from, to)| with_end(&source.url, from, to))
}

/// Asks whether `token`, which is one of `source`, is accepted.
///
/// # Errors
/// As the upstream refuses it, or why it could not be asked.
pub async fn accepts(
    outbound: &Outbound,
    source: &TokenSource,
    token: &Secret,
    timeout: Duration,
) -> Result<(), FetchError> {
    let mut url = call_of(source)
        .ok_or_else(|| FetchError::CannotSend("no call is known that tells".into()))?;
    url.query_pairs_mut().append_pair("access_token", token.expose());
    let (headers, basic, body) = (Vec::new(), None, None);
    let request = Request { method: Method::Get, url, headers, basic, body, timeout };
    let answer = outbound.exchange(request).await?;
    reply::refusal(source, &answer, std::slice::from_ref(token))
}

/// The address with another end of its path; `None` if that is not its end. Doubled slashes and one behind it are
/// let pass, as in the config.
fn with_end(url: &Url, from: &str, to: &str) -> Option<Url> {
    let path = url.path().replace("//", "/");
    let before = path.trim_end_matches('/').strip_suffix(from)?;
    if !before.ends_with('/') || before.contains("%7B%7B") {
        return None;
    }
    let mut url = url.clone();
    url.set_path(&format!("{before}{to}"));
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use std::path::Path;

    fn source(settings: &str) -> TokenSource {
        let text = format!(
            r#"(token_sources: {{"a": (url: "https://h/cgi-bin/token"), "t": ({settings})}})"#
        );
        let config = config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap();
        config.sources.into_iter().find(|source| source.name.as_str() == "t").unwrap()
    }

    #[test]
    fn credentials_are_tried_only_where_no_token_is_replaced() {
        const REPLACES: Option<Trial> = None;
        for (settings, trial, token) in [
            (r#"url: "https://h/cgi-bin/token""#, Some(Trial::StableToken), true),
            (
                r#"url: "http://h:1//cgi-bin/token/", method: "POST""#,
                Some(Trial::StableToken),
                true,
            ),
            (r#"url: "https://h/cgi-bin/token", form: {"appid": "x"}"#, REPLACES, true),
            (
                r#"url: "https://h/cgi-bin/stable_token", json: {"appid": "x"}"#,
                Some(Trial::OwnRequest),
                true,
            ),
            (r#"url: "https://h/cgi-bin/stable_token", rotation: Rotating"#, REPLACES, true),
            (
                r#"url: "https://qyapi.weixin.qq.com/cgi-bin/gettoken""#,
                Some(Trial::OwnRequest),
                false,
            ),
            // A ticket has no credentials but its token.
            (
                r#"url: "https://h/cgi-bin/ticket/getticket", args: {"access_token": "{{a}}"}"#,
                None,
                false,
            ),
            (r#"url: "https://h/cgi-bin/component/api_component_token""#, REPLACES, false),
            (r#"url: "https://api.q.qq.com/api/getToken""#, REPLACES, false),
            (r#"url: "https://unknown.example/token""#, REPLACES, false),
            (
                r#"url: "https://h/cgi-bin/stable_token", json: {"r": "{{captured}}"}, capture: "r", captured: "x""#,
                REPLACES,
                true,
            ),
        ] {
            let source = source(settings);
            assert_eq!(trial_of(&source), trial, "{settings}");
            assert_eq!(can_be_asked_about(&source), token, "{settings}");
        }
    }

    #[test]
    fn the_trial_sends_what_the_request_would_have_sent() {
        let source = source(
            r#"url: "https://h:8443/x//cgi-bin/token?grant_type=client_credential", args: {"appid": "a&b", "secret": "s\"c"}"#,
        );
        let filled = request::fill(&source, &FetchRequest::default()).unwrap();
        let request = as_stable(filled.request).unwrap();
        assert_eq!(request.url.as_str(), "https://h:8443/x/cgi-bin/stable_token");
        assert_eq!(request.method, Method::Post);
        let body: Value = serde_json::from_slice(&request.body.unwrap().bytes).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"grant_type": "client_credential", "appid": "a&b", "secret": "s\"c"})
        );
    }
}
