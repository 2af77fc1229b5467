//! From a source's templates to the request that is sent: fills the placeholders and escapes what
//! fills them for where it stands. Sends nothing.

use std::borrow::Cow;

use serde_json::{Map, Value};
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::json::Json;
use super::{FetchError, FetchRequest};
use crate::config::{
    Body, Credentials, JsonTemplate, Method, Placeholder, Template, TokenSource, is_header_text,
};
use crate::outbound::{Payload, Request};
use crate::token::Secret;

/// A request, and the texts that it was made of.
pub(super) struct Filled {
    pub request: Request,
    /// None of these may be repeated in an error.
    pub sent: Vec<Secret>,
}

/// Makes the request by which WeChat gives the calls of `source`'s account back.
///
/// # Errors
/// The source's own request does not have what this one needs.
pub(super) fn clear_quota(source: &TokenSource) -> Result<Filled, FetchError> {
    let cannot = |what: &str| FetchError::CannotSend(what.into());
    let Credentials { appid, secret } =
        source.credentials().ok_or_else(|| cannot("the source has no appid and secret"))?;
    let mut url = Url::clone(&source.url);
    let path = url.path();
    // What stands before it: a proxy, or a stand-in.
    let (before, _) =
        path.split_once("/cgi-bin/").ok_or_else(|| cannot("the source is none of WeChat's"))?;
    let path = format!("{before}/cgi-bin/clear_quota/v2");
    url.set_path(&path);
    // WeChat's pages have both in the body, their examples, and SDKs that work, in the query
    // (upstream.md, section 1): so they stand in both.
    let pairs = [("appid", appid.expose()), ("appsecret", secret.expose())];
    url.query_pairs_mut().extend_pairs(pairs);
    let object = pairs.map(|(name, value)| (name.to_owned(), Value::from(value)));
    let json = Json::new(Value::Object(object.into_iter().collect()));
    let mut bytes = Zeroizing::new(Vec::with_capacity(BODY_ROOM));
    serde_json::to_writer(&mut *bytes, &*json).expect("a Vec takes what is written");
    let body = Payload { content_type: "application/json; charset=utf-8", bytes };
    let request = Request {
        method: Method::Post,
        url,
        headers: Vec::new(),
        basic: None,
        body: Some(body),
        timeout: source.policy.timeout,
    };
    Ok(Filled { request, sent: vec![appid, secret] })
}

/// Makes the request of `source`.
///
/// # Errors
/// A dependency has no token, or what fills a placeholder cannot stand there.
pub(super) fn fill(source: &TokenSource, with: &FetchRequest) -> Result<Filled, FetchError> {
    if let Some(absent) =
        source.dependencies.iter().find(|name| with.dependencies.get(name).is_none())
    {
        return Err(FetchError::DependencyAbsent(absent.clone()));
    }
    let captured = with.captured.as_ref().or(source.captured.as_ref());
    let mut filling = Filling { with, captured, sent: Vec::new() };
    let template = &source.request;
    let address = filling.text(&template.address, percent_encode);
    let mut url = Url::parse(address.expose())
        .map_err(|_| FetchError::CannotSend("its address is none".into()))?;
    if !template.args.is_empty() {
        let mut query = url.query_pairs_mut();
        for (name, value) in &template.args {
            query.append_pair(name, filling.text(value, Cow::Borrowed).expose());
        }
    }
    let mut headers = Vec::with_capacity(template.headers.len());
    for (name, value) in &template.headers {
        let value = filling.text(value, Cow::Borrowed);
        if !is_header_text(value.expose()) {
            return Err(FetchError::CannotSend(format!(
                "header {name} would hold a control character"
            )));
        }
        headers.push((name.to_string(), value));
    }
    let basic = template.basic.as_ref().map(|basic| {
        (filling.text(&basic.user, Cow::Borrowed), filling.text(&basic.password, Cow::Borrowed))
    });
    let body = body(source, with.force, &mut filling);
    let method = template.method;
    let timeout = source.policy.timeout;
    let request = Request { method, url, headers, basic, body, timeout };
    Ok(Filled { request, sent: filling.sent })
}

struct Filling<'a> {
    with: &'a FetchRequest,
    captured: Option<&'a Secret>,
    sent: Vec<Secret>,
}

impl<'a> Filling<'a> {
    /// The text with its placeholders filled; remembered as sent.
    fn text(&mut self, template: &'a Template, escape: impl Fn(&'a str) -> Cow<'a, str>) -> Secret {
        let fill = |place: &Placeholder| match place {
            Placeholder::Token(name) => self.with.dependencies.get(name),
            Placeholder::Captured => self.captured,
        };
        let text = template
            .render(fill, escape)
            .expect("dependencies are there, checked above; the config sees to the captured value");
        self.sent.push(text.clone());
        text
    }

    fn json(&mut self, json: &'a JsonTemplate) -> Value {
        match json {
            JsonTemplate::Text(template) => self.text(template, Cow::Borrowed).expose().into(),
            JsonTemplate::Number(number) => (*number).into(),
            JsonTemplate::Fraction(number) => (*number).into(),
            JsonTemplate::Bool(value) => (*value).into(),
            JsonTemplate::List(items) => items.iter().map(|item| self.json(item)).collect(),
            JsonTemplate::Table(rows) => Value::Object(self.object(rows)),
        }
    }

    fn object(&mut self, rows: &'a [(String, JsonTemplate)]) -> Map<String, Value> {
        rows.iter().map(|(name, json)| (name.clone(), self.json(json))).collect()
    }
}

/// Room for a body from the start, in bytes: a usual one never grows, which would leave a copy behind.
const BODY_ROOM: usize = 4 * 1024;

fn body<'a>(source: &'a TokenSource, force: bool, filling: &mut Filling<'a>) -> Option<Payload> {
    let force: &[(String, JsonTemplate)] = if force { &source.request.force } else { &[] };
    match &source.request.body {
        Body::Empty => None,
        Body::Json(rows) => {
            let mut object = filling.object(rows);
            object.extend(filling.object(force));
            let json = Json::new(Value::Object(object));
            let mut bytes = Zeroizing::new(Vec::with_capacity(BODY_ROOM));
            serde_json::to_writer(&mut *bytes, &*json)
                .expect("a Vec takes what is written, and the names of an object are texts");
            Some(Payload { content_type: "application/json; charset=utf-8", bytes })
        }
        Body::Form(pairs) => {
            let mut form = Serializer::new(String::with_capacity(BODY_ROOM));
            let forced = |name: &str| force.iter().any(|(forced, _)| forced == name);
            for (name, value) in pairs.iter().filter(|(name, _)| !forced(name)) {
                form.append_pair(name, filling.text(value, Cow::Borrowed).expose());
            }
            for (name, json) in force {
                match &*Json::new(filling.json(json)) {
                    Value::String(text) => form.append_pair(name, text),
                    other => form.append_pair(name, &other.to_string()),
                };
            }
            let bytes = form.finish().into_bytes().into();
            Some(Payload { content_type: "application/x-www-form-urlencoded", bytes })
        }
    }
}

/// A text as it can stand in a path or a query, whatever is in it: RFC 3986, section 2.3, without
/// the dot, since `..` would lead elsewhere.
fn percent_encode(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte);
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(byte.into());
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                encoded.push(b"0123456789ABCDEF"[usize::from(digit)].into());
            }
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use crate::token::SourceName;
    use std::path::Path;

    fn filled(settings: &str, force: bool, captured: Option<&str>) -> Result<Filled, FetchError> {
        let text = format!(r#"(token_sources: {{"a.1": (url: "https://h"), "t": ({settings})}})"#);
        let config = config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap();
        let source = config.sources.iter().find(|source| source.name.as_str() == "t").unwrap();
        let mut with =
            FetchRequest { force, captured: captured.map(Secret::new), ..Default::default() };
        let nasty = "a/../b?c&d=\"e\"#%+\u{e9}";
        with.dependencies.insert(SourceName::parse("a.1").unwrap(), Secret::new(nasty));
        fill(source, &with)
    }

    fn text(payload: Option<&Payload>) -> &str {
        std::str::from_utf8(&payload.unwrap().bytes).unwrap()
    }

    #[test]
    fn what_fills_a_placeholder_is_escaped_for_where_it_stands() {
        let settings =
            r#"url: "https://h:8443/x/{{a.1}}/y?q={{a.1}}&r=1", args: {"k&": "{{a.1}}"}"#;
        let filled = filled(settings, false, None).unwrap();
        let escaped = "a%2F%2E%2E%2Fb%3Fc%26d%3D%22e%22%23%25%2B%C3%A9";
        let url = filled.request.url;
        assert_eq!(url.path(), format!("/x/{escaped}/y"));
        let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let nasty = "a/../b?c&d=\"e\"#%+\u{e9}";
        assert_eq!(
            query,
            [("q", nasty), ("r", "1"), ("k&", nasty)].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(filled.request.method, Method::Get);
        assert!(filled.request.body.is_none());
    }

    #[test]
    fn a_body_is_json_with_types_or_a_form() {
        let settings = r#"url: "https://h", json: {
            "s": "x{{a.1}}", "n": -1, "f": 1.5, "b": true, "l": [1, "{{a.1}}"], "o": {"i": (j: "k")},
        }"#;
        let json = filled(settings, false, None).unwrap();
        let body: Value = serde_json::from_str(text(json.request.body.as_ref())).unwrap();
        let nasty = "a/../b?c&d=\"e\"#%+\u{e9}";
        let expected = serde_json::json!({
            "s": format!("x{nasty}"), "n": -1, "f": 1.5, "b": true, "l": [1, nasty], "o": {"i": {"j": "k"}},
        });
        assert_eq!(body, expected);
        assert_eq!(json.request.method, Method::Post);
        let form =
            filled(r#"url: "https://h", form: {"a": "x y", "b": 1, "c": true}"#, false, None);
        assert_eq!(text(form.unwrap().request.body.as_ref()), "a=x+y&b=1&c=true");
    }

    #[test]
    fn force_is_added_to_the_body_when_it_is_asked_for() {
        let stable = r#"url: "https://h/cgi-bin/stable_token", json: {"appid": "wx"}"#;
        for (force, expected) in
            [(false, r#"{"appid":"wx"}"#), (true, r#"{"appid":"wx","force_refresh":true}"#)]
        {
            let filled = filled(stable, force, None).unwrap();
            assert_eq!(text(filled.request.body.as_ref()), expected);
        }
        let other = r#"url: "https://h/x", json: {"appid": "wx"}"#;
        assert_eq!(
            text(filled(other, true, None).unwrap().request.body.as_ref()),
            r#"{"appid":"wx"}"#
        );
        let own =
            r#"url: "https://h/x", form: {"a": 1, "refresh": false}, force: {"refresh": true}"#;
        let body = |force| filled(own, force, None).unwrap().request.body;
        assert_eq!(text(body(false).as_ref()), "a=1&refresh=false");
        assert_eq!(text(body(true).as_ref()), "a=1&refresh=true");
    }

    #[test]
    fn what_was_captured_goes_before_the_first_value() {
        let settings =
            r#"url: "https://h", json: {"r": "{{captured}}"}, capture: "r", captured: "first""#;
        for (captured, expected) in [(None, r#"{"r":"first"}"#), (Some("next"), r#"{"r":"next"}"#)]
        {
            let filled = filled(settings, false, captured).unwrap();
            assert_eq!(text(filled.request.body.as_ref()), expected);
        }
    }

    #[test]
    fn headers_hold_nothing_that_ends_a_line() {
        let settings = r#"url: "https://h", headers: {"Authorization": "Bearer {{captured}}"},
            capture: "x", captured: "first""#;
        let good = filled(settings, false, Some("abc")).unwrap();
        assert_eq!(good.request.headers, [("Authorization".into(), Secret::new("Bearer abc"))]);
        for evil in ["a\r\nX: y", "a\n", "\u{7f}", "\u{e9}"] {
            let error = filled(settings, false, Some(evil)).err().unwrap();
            let said =
                "the request cannot be made: header Authorization would hold a control character";
            assert_eq!(error.to_string(), said);
        }
    }

    #[test]
    fn a_request_is_not_made_without_a_dependencys_token() {
        let text =
            r#"(token_sources: {"other": (url: "https://h"), "t": (url: "https://h/{{other}}")})"#;
        let config = config::parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
        let error = fill(&config.sources[1], &FetchRequest::default()).err().unwrap();
        assert_eq!(error, FetchError::DependencyAbsent(SourceName::parse("other").unwrap()));
        // A client that may see "t" alone is told this.
        assert!(!error.to_string().contains("other"), "{error}");
    }
}
