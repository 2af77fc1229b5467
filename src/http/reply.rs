//! Answers as bytes: the original's JSON, with the spacing and escaping of Python's `json.dumps`,
//! and the headers around it. Decides nothing.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use warp::http::StatusCode;
use warp::http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use warp::reply::Response;

use crate::refresh::RefreshError;
use crate::token::Secret;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// `{"<source>": "<value>", "expires_in": <whole seconds>}`. Holds the token, so has no `Debug`.
pub(super) struct TokenJson(Vec<u8>);

impl TokenJson {
    /// Says the value, and how long the client may rely on it.
    pub(super) fn new(source: &str, value: &Secret, promised: Duration) -> TokenJson {
        let value = value.expose();
        let mut digits = itoa::Buffer::new();
        let seconds = digits.format(promised.as_secs());
        // Exact where nothing is escaped: a buffer without spare room becomes a body as it is.
        let length =
            r#"{"": "", "expires_in": }"#.len() + source.len() + value.len() + seconds.len();
        let mut body = Vec::with_capacity(length);
        body.push(b'{');
        push_json_string(&mut body, source);
        body.extend_from_slice(b": ");
        push_json_string(&mut body, value);
        body.extend_from_slice(b", \"expires_in\": ");
        body.extend_from_slice(seconds.as_bytes());
        body.push(b'}');
        TokenJson(body)
    }
}

/// What `/wechat/token` says.
pub(super) enum TokenAnswer {
    /// The token.
    Token(TokenJson),
    /// No such source, or nothing live.
    NotFound,
    /// No or a wrong secret, or no type.
    Invalid,
}

/// What `/wechat/token/forcerefresh` says.
pub(super) enum RefreshAnswer {
    /// The token after the refresh.
    Token(TokenJson),
    /// Why there is none. No secret and no address is in the error's `Display`.
    Failed(RefreshError),
    /// The refresh brought a token, but its life is over by now.
    Ended,
    /// Only the user who may do everything may spend a fetch while the token is good.
    MayNotForce,
    /// No or a wrong secret, or no type.
    Invalid,
}

impl From<TokenAnswer> for Response {
    fn from(answer: TokenAnswer) -> Response {
        match answer {
            TokenAnswer::Token(TokenJson(body)) => json(StatusCode::OK, body),
            TokenAnswer::NotFound => json(StatusCode::OK, r#"{"error": "not found"}"#),
            TokenAnswer::Invalid => json(StatusCode::OK, r#"{"error": "invalid request"}"#),
        }
    }
}

impl From<RefreshAnswer> for Response {
    fn from(answer: RefreshAnswer) -> Response {
        let body = match answer {
            RefreshAnswer::Token(TokenJson(body)) => body,
            RefreshAnswer::Failed(error) => errmsg(&error.to_string()),
            RefreshAnswer::Ended => errmsg("the token ended before it could be answered"),
            RefreshAnswer::MayNotForce => errmsg("only the request_secret may force"),
            RefreshAnswer::Invalid => b"{}".to_vec(),
        };
        json(StatusCode::OK, body)
    }
}

/// A request that reached no handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unserved {
    /// No such path.
    NotFound,
    /// The path is there, but not for this method; it is for these.
    Method(&'static str),
    /// The body is longer than we read.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body's encoding is broken, or the client left in the middle of it.
    BodyBroken,
    /// Whoever asks has shown too many wrong keys.
    TooManyWrongKeys,
}

impl From<Unserved> for Response {
    fn from(unserved: Unserved) -> Response {
        let (status, body) = match unserved {
            Unserved::NotFound => (StatusCode::NOT_FOUND, r#"{"error": "not found"}"#),
            Unserved::Method(_) => {
                (StatusCode::METHOD_NOT_ALLOWED, r#"{"error": "method not allowed"}"#)
            }
            Unserved::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, r#"{"error": "body too large"}"#)
            }
            Unserved::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, r#"{"error": "body too slow"}"#),
            Unserved::BodyBroken => (StatusCode::BAD_REQUEST, r#"{"error": "body unreadable"}"#),
            Unserved::TooManyWrongKeys => {
                (StatusCode::TOO_MANY_REQUESTS, r#"{"error": "too many wrong keys"}"#)
            }
        };
        let answer = json(status, body);
        match unserved {
            Unserved::NotFound => answer,
            Unserved::Method(allowed) => with(answer, ALLOW, HeaderValue::from_static(allowed)),
            Unserved::TooManyWrongKeys => {
                let answer = with(answer, RETRY_AFTER, HeaderValue::from_static("60"));
                with(answer, CONNECTION, HeaderValue::from_static("close"))
            }
            // The rest of the body is not read, so nothing can follow it.
            Unserved::BodyTooLarge | Unserved::BodyTimeout | Unserved::BodyBroken => {
                with(answer, CONNECTION, HeaderValue::from_static("close"))
            }
        }
    }
}

/// Whether `If-None-Match` names this tag. It compares weakly: RFC 9110, section 13.1.2.
pub(super) fn is_among(tags: &str, tag: &str) -> bool {
    let mut tags = tags.split(',').map(str::trim);
    tags.any(|given| given == "*" || given.trim_start_matches("W/") == tag)
}

/// The original's greeting.
pub(super) fn banner() -> Response {
    let body = "Welcome to use wechat access token server!";
    with(Response::new(body.into()), CONTENT_TYPE, HTML)
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut answer = Response::new(body.into().into());
    *answer.status_mut() = status;
    with(with(answer, CONTENT_TYPE, JSON), CACHE_CONTROL, NO_STORE)
}

fn with(mut answer: Response, name: HeaderName, value: HeaderValue) -> Response {
    answer.headers_mut().insert(name, value);
    answer
}

fn errmsg(text: &str) -> Vec<u8> {
    let mut body = b"{\"errmsg\": ".to_vec();
    push_json_string(&mut body, text);
    body.push(b'}');
    body
}

/// Writes `text` as `json.dumps` with `ensure_ascii` does: everything outside space to `~` is
/// escaped, what is outside the basic plane as a pair of surrogates.
fn push_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    // A fold, not `all`: tokens are long, and it looks at many bytes at once.
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        out.extend_from_slice(text.as_bytes());
    } else {
        for c in text.chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\x08' => out.extend_from_slice(b"\\b"),
                '\x0c' => out.extend_from_slice(b"\\f"),
                ' '..='~' => out.push(c as u8),
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").expect("writing to a Vec cannot fail");
                    }
                }
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let mut out = Vec::new();
        push_json_string(&mut out, text);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{text:?}");
    }

    /// The expected texts are what `json.dumps` of Python 3 printed.
    #[test]
    fn strings_are_escaped_as_python_does() {
        check("", r#""""#);
        check("access_token", r#""access_token""#);
        check("a b/c<>&'~", r#""a b/c<>&'~""#);
        check("\"\\", r#""\"\\""#);
        check("\x08\x0c\n\r\t", r#""\b\f\n\r\t""#);
        check("\0\x1f\x7f", r#""\u0000\u001f\u007f""#);
        check("é公\u{2028}", r#""\u00e9\u516c\u2028""#);
        check("😀x", r#""\ud83d\ude00x""#);
        check("\u{d7ff}\u{e000}\u{ffff}\u{10ffff}", r#""\ud7ff\ue000\uffff\udbff\udfff""#);
    }

    #[test]
    fn a_plain_token_fills_its_buffer() {
        for seconds in [0, 9, 10, 7_200, u64::MAX] {
            let promised = Duration::from_secs(seconds);
            let TokenJson(body) = TokenJson::new("t", &Secret::new("value"), promised);
            assert_eq!(body.len(), body.capacity());
            assert_eq!(
                String::from_utf8(body).unwrap(),
                format!(r#"{{"t": "value", "expires_in": {seconds}}}"#)
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn every_string_can_be_read_back(text: String) {
            let mut out = Vec::new();
            push_json_string(&mut out, &text);
            proptest::prop_assert!(out.is_ascii());
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
