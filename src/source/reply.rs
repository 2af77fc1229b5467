//! From an answer's bytes to a token or a reason why not. No sockets.

use std::time::Duration;

use serde_json::Value;

use super::errcode::classify;
use super::{FetchError, Fetched};
use crate::config::TokenSource;
use crate::token::Secret;

/// The longest value taken for a token, in bytes. WeChat asks to reserve 512, Feishu 4 KB.
const MAX_VALUE_BYTES: usize = 8 * 1024;

/// The longest lifetime taken as meant, ten years: what is longer is an absolute time or a mistake.
const MAX_LIFETIME_SECONDS: u64 = 10 * 366 * 86_400;

/// The longest part of an upstream's message that is kept for the log, in characters.
const MAX_MESSAGE_CHARS: usize = 300;

/// Reads an answer with this HTTP status. `sent` are the texts that the request was made of; none
/// of them is repeated in an error.
pub(super) fn read(
    source: &TokenSource,
    status: u16,
    body: &[u8],
    sent: &[Secret],
) -> Result<Fetched, FetchError> {
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    // The code decides, whatever the status: some gateways answer a refusal with 4xx.
    if let Some(errcode) = answer.as_ref().and_then(|answer| answer.get("errcode")).and_then(number)
        && errcode != 0
    {
        let (class, hint) = classify(errcode, !source.dependencies.is_empty());
        let message = answer.as_ref().and_then(|answer| answer.get("errmsg"));
        let message = quote(message.and_then(Value::as_str).unwrap_or_default(), sent);
        return Err(FetchError::Refused { errcode, class, hint, message });
    }
    if status != 200 {
        return Err(FetchError::Status(status));
    }
    let answer = answer.ok_or(FetchError::NotJson)?;
    let value = value(source, &answer)?;
    let expires_in = lifetime(source, answer.get("expires_in"))?;
    Ok(Fetched { value, expires_in, captured: None, upstream_time: None })
}

/// The first of the source's value fields that is there.
fn value(source: &TokenSource, answer: &Value) -> Result<Secret, FetchError> {
    let found = source.value_fields.iter().find_map(|field| Some((field, at_path(answer, field)?)));
    let Some((field, value)) = found else {
        let fields = source.value_fields.join(" or ");
        return Err(FetchError::NoValue(format!("there is no {fields}")));
    };
    let problem = match value {
        Value::String(text) if text.is_empty() => "is empty",
        Value::String(text) if text.len() > MAX_VALUE_BYTES => "is too long",
        // Tokens are printable ASCII; anything else would be garbage, or an attack on a client.
        Value::String(text) if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "holds characters that no token has"
        }
        Value::String(text) => return Ok(Secret::new(text.as_str())),
        _ => "is not a text",
    };
    Err(FetchError::NoValue(format!("{field} {problem}")))
}

/// The life the answer promises, capped by the source's fixed lifetime; that one alone where the
/// answer promises none.
fn lifetime(source: &TokenSource, expires_in: Option<&Value>) -> Result<Duration, FetchError> {
    let seconds = match expires_in {
        None => None,
        Some(value) => match number(value) {
            None => return Err(FetchError::NoLifetime("expires_in is not a whole number")),
            Some(seconds) => match u64::try_from(seconds) {
                Ok(0) | Err(_) => return Err(FetchError::NoLifetime("expires_in is not positive")),
                Ok(seconds) if seconds > MAX_LIFETIME_SECONDS => {
                    return Err(FetchError::NoLifetime("expires_in is longer than ten years"));
                }
                Ok(seconds) => Some(Duration::from_secs(seconds)),
            },
        },
    };
    match (seconds, source.policy.lifetime) {
        (Some(said), Some(fixed)) => Ok(said.min(fixed)),
        (Some(said), None) => Ok(said),
        (None, Some(fixed)) => Ok(fixed),
        (None, None) => {
            Err(FetchError::NoLifetime("there is no expires_in; set lifetime if that is right"))
        }
    }
}

/// A whole number, also one written as a text, as some vendors do.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// What stands at a path of names and indexes separated by dots.
fn at_path<'a>(answer: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(answer, |at, step| match at {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => at.get(step),
    })
}

/// An upstream's message for the log: bounded, without what was sent, nothing that breaks a line.
fn quote(message: &str, sent: &[Secret]) -> String {
    let mut message = message.to_owned();
    // Short texts (`jsapi`, `2`) are no secrets, and cutting them out would garble the message.
    for secret in sent.iter().map(Secret::expose).filter(|text| text.len() >= 6) {
        message = message.replace(secret, "***");
    }
    message.chars().take(MAX_MESSAGE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use crate::source::FailureClass;
    use std::path::Path;

    fn source(extra: &str) -> TokenSource {
        let text = format!(
            r#"(token_sources: {{"t": (url: "https://h/x", args: {{"secret": "s3cr3ts3cr3t"}}, {extra})}})"#
        );
        let config = config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap();
        config.sources.into_iter().next().unwrap()
    }

    fn check(extra: &str, body: &str, expected: Result<(&str, u64), &str>) {
        let sent = [Secret::new("s3cr3ts3cr3t")];
        let got = read(&source(extra), 200, body.as_bytes(), &sent);
        match (got, expected) {
            (Ok(fetched), Ok((value, seconds))) => {
                assert_eq!(fetched.value.expose(), value, "{body}");
                assert_eq!(fetched.expires_in, Duration::from_secs(seconds), "{body}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{body}: {error}"),
            (got, expected) => panic!("{body}: {got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn answers_are_read() {
        check("", r#"{"access_token":"A","expires_in":7200}"#, Ok(("A", 7200)));
        check("", r#"{"errcode":0,"errmsg":"ok","ticket":"B","expires_in":7200}"#, Ok(("B", 7200)));
        check("", r#"{"t":"C","expires_in":"345"}"#, Ok(("C", 345)));
        check("", r#"{"access_token":"A"}"#, Err("no expires_in; set lifetime"));
        check(r#"lifetime: "7000s""#, r#"{"access_token":"A"}"#, Ok(("A", 7000)));
        check(r#"lifetime: "7000s""#, r#"{"access_token":"A","expires_in":7200}"#, Ok(("A", 7000)));
        check(r#"lifetime: "7000s""#, r#"{"access_token":"A","expires_in":60}"#, Ok(("A", 60)));
        let nested = r#"{"data":{"list":[{"v":"D"}]},"expires_in":9}"#;
        check(r#"value_field: "data.list.0.v""#, nested, Ok(("D", 9)));
    }

    #[test]
    fn bad_answers_are_named() {
        for (body, part) in [
            ("", "not JSON"),
            ("<html>", "not JSON"),
            (r#"{"access_token":"A","expires_in":72"#, "not JSON"),
            ("[]", "no access_token or ticket or t"),
            (r#"{"expires_in":7200}"#, "no access_token or ticket or t"),
            (r#"{"access_token":"","expires_in":7200}"#, "access_token is empty"),
            (r#"{"access_token":5,"expires_in":7200}"#, "access_token is not a text"),
            (r#"{"access_token":null,"expires_in":7200}"#, "access_token is not a text"),
            (r#"{"access_token":"a b","expires_in":7200}"#, "characters that no token has"),
            (r#"{"access_token":"a\r\n+OK","expires_in":7200}"#, "characters that no token has"),
            (r#"{"access_token":"A","expires_in":0}"#, "not positive"),
            (r#"{"access_token":"A","expires_in":-7200}"#, "not positive"),
            (r#"{"access_token":"A","expires_in":"soon"}"#, "not a whole number"),
            (r#"{"access_token":"A","expires_in":1.5}"#, "not a whole number"),
            (r#"{"access_token":"A","expires_in":1893456000}"#, "longer than ten years"),
            (r#"{"errcode":40164,"errmsg":"x"}"#, "errcode 40164: this server's address"),
            (r#"{"errcode":"40013","errmsg":"x"}"#, "errcode 40013"),
            (r#"{"errcode":987654}"#, "errcode 987654"),
            (r#"{"access_token":"A","expires_in":7200,"errcode":-1}"#, "errcode -1"),
        ] {
            check("", body, Err(part));
        }
        let long = format!(r#"{{"access_token":"{}","expires_in":1}}"#, "x".repeat(9_000));
        check("", &long, Err("too long"));
    }

    #[test]
    fn a_status_counts_only_without_a_code() {
        let refusal = br#"{"errcode":45009,"errmsg":"x"}"#;
        let error = read(&source(""), 429, refusal, &[]).unwrap_err();
        assert_eq!(error.class(), FailureClass::QuotaSpent);
        let good = br#"{"access_token":"A","expires_in":7200}"#;
        assert_eq!(read(&source(""), 502, good, &[]), Err(FetchError::Status(502)));
        assert_eq!(read(&source(""), 302, b"", &[]), Err(FetchError::Status(302)));
    }

    #[test]
    fn an_upstreams_message_repeats_nothing_that_was_sent() {
        let body = r#"{"errcode":40013,"errmsg":"bad secret=s3cr3ts3cr3t\nforged line rid: a-b"}"#;
        let error = read(&source(""), 200, body.as_bytes(), &[Secret::new("s3cr3ts3cr3t")]);
        assert_eq!(error.unwrap_err().for_log(), "bad secret=*** forged line rid: a-b");
    }
}
