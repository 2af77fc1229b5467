//! From an answer's bytes to a token or a reason why not, by the source's rules. No sockets.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use zeroize::Zeroizing;

use super::errcode::meaning;
use super::json::Json;
use super::{FetchError, Fetched, Refusal};
use crate::config::{AnswerRules, Code, ExpiresIs, ExpiresUnit, Fields, TokenSource};
use crate::outbound::Answer;
use crate::token::Secret;

/// The longest value taken for a token, in bytes. WeChat asks to reserve 512, Feishu 4 KB.
const MAX_VALUE_BYTES: usize = 8 * 1024;

/// The longest lifetime taken as meant, ten years: what is longer is an absolute time or a mistake.
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The longest part of an upstream's message that is kept for the log, in characters.
const MAX_MESSAGE_CHARS: usize = 300;

/// The longest text taken for an error code, in bytes.
const MAX_CODE_BYTES: usize = 64;

/// The longest time that an upstream can have us stay away by a `Retry-After`.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// Reads an answer to a request that was sent at `sent_at`. `sent` are the texts that the request
/// was made of; none of them is repeated in an error.
pub(super) fn read(
    source: &TokenSource,
    answer: &Answer,
    sent_at: SystemTime,
    sent: &[Secret],
) -> Result<Fetched, FetchError> {
    let status = answer.status;
    let json = Json::read(&answer.body);
    // The code decides, whatever the status: some gateways answer a refusal with 4xx.
    if let Some(json) = &json
        && let Some(code) = refusal_code(&source.answer, json)
    {
        return Err(refused(source, code, json, answer, sent));
    }
    if !(200..300).contains(&status) {
        return Err(match wait_asked_for(answer) {
            Some(wait) => FetchError::ComeBack { status, wait },
            None => FetchError::Status(status),
        });
    }
    let json = json.ok_or(FetchError::NotJson)?;
    let value = value(&source.value, &json)?;
    // An absolute end is in the upstream's time: where it tells that, a wrong clock here is harmless.
    let expires_in = lifetime(source, &json, answer.date.unwrap_or(sent_at))?;
    let captured = captured(&source.answer, &json)?;
    Ok(Fetched { value, expires_in, captured, upstream_time: answer.date })
}

/// Whether an answer that brings no token is a success, by the source's rules.
///
/// # Errors
/// As in [`read`].
pub(super) fn refusal(
    source: &TokenSource,
    answer: &Answer,
    sent: &[Secret],
) -> Result<(), FetchError> {
    let json = Json::read(&answer.body);
    if let Some(json) = &json
        && let Some(code) = refusal_code(&source.answer, json)
    {
        return Err(refused(source, code, json, answer, sent));
    }
    match answer.status {
        200..300 if json.is_some() => Ok(()),
        200..300 => Err(FetchError::NotJson),
        status => Err(FetchError::Status(status)),
    }
}

/// Reads an answer that brings nothing but "done": `errcode` 0.
pub(super) fn read_done(
    source: &TokenSource,
    answer: &Answer,
    sent: &[Secret],
) -> Result<(), FetchError> {
    refusal(source, answer, sent)?;
    let json = Json::read(&answer.body);
    let is_done =
        json.is_some_and(|json| json.get("errcode").is_some_and(|code| code.as_i64() == Some(0)));
    if is_done { Ok(()) } else { Err(FetchError::NoValue("there is no errcode".into())) }
}

/// How long the upstream asks to be left alone for, where its status says that it means that.
fn wait_asked_for(answer: &Answer) -> Option<Duration> {
    let wait = answer.retry_after.filter(|_| matches!(answer.status, 429 | 503));
    wait.map(|wait| wait.min(LONGEST_RETRY_AFTER))
}

/// The first code in an answer that does not mean success.
fn refusal_code(rules: &AnswerRules, json: &Value) -> Option<Code> {
    let codes = rules.code.paths().filter_map(|(_, steps)| at_path(json, steps));
    codes.filter_map(code).find(|code| !rules.accepts(code))
}

/// The code in a field; `None` where the field says that there is none. What has a shape that no
/// code has is one all the same: something is wrong, and nobody here knows what.
fn code(value: &Value) -> Option<Code> {
    let readable = |text: &str| {
        text.len() <= MAX_CODE_BYTES
            && text
                .bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) if readable(text) => Some(Code::of_text(text)),
        Value::Number(number) => {
            Some(number.as_i64().map_or_else(|| Code::Text("unreadable".into()), Code::Number))
        }
        Value::Bool(value) => Some(Code::Text(value.to_string().into())),
        _ => Some(Code::Text("unreadable".into())),
    }
}

fn refused(
    source: &TokenSource,
    code: Code,
    json: &Value,
    answer: &Answer,
    sent: &[Secret],
) -> FetchError {
    let mut messages = source.answer.message.paths().filter_map(|(_, steps)| at_path(json, steps));
    let message = messages.find_map(Value::as_str).unwrap_or_default();
    let mut meaning = meaning(source, &code, answer.status);
    let asked_for = wait_asked_for(answer).map(|wait| (wait, wait));
    meaning.waits = meaning.waits.or(asked_for);
    let address =
        meaning.hint.filter(|hint| hint.names_address()).and_then(|_| address_in(message));
    let code = match code {
        // After its meaning was looked up. A client is told it.
        Code::Text(text) => Code::Text(without(&text, sent).as_str().into()),
        number => number,
    };
    FetchError::Refused(Box::new(Refusal::known(code, meaning, address, quote(message, sent))))
}

/// The first address in a message such as `invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist`.
fn address_in(message: &str) -> Option<IpAddr> {
    let words = message.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'));
    let mut addresses = words.filter_map(|word| word.trim_end_matches(['.', ':']).parse().ok());
    addresses.next().map(|address: IpAddr| address.to_canonical())
}

/// The first of the value fields that is there.
fn value(fields: &Fields, json: &Value) -> Result<Secret, FetchError> {
    let mut found = fields.paths().filter_map(|(path, steps)| Some((path, at_path(json, steps)?)));
    match found.next() {
        Some((path, value)) => {
            token_text(value).map_err(|problem| FetchError::NoValue(format!("{path} {problem}")))
        }
        None => Err(FetchError::NoValue(format!("there is no {fields}"))),
    }
}

/// What the source captures; `None` if it is not there, or there is nothing to capture.
fn captured(rules: &AnswerRules, json: &Value) -> Result<Option<Secret>, FetchError> {
    let Some(path) = &rules.capture else { return Ok(None) };
    match at_path(json, path.steps()) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(value) => {
            let text = token_text(value);
            text.map(Some).map_err(|problem| FetchError::NoValue(format!("{path} {problem}")))
        }
    }
}

fn token_text(value: &Value) -> Result<Secret, &'static str> {
    match value {
        Value::String(text) if text.is_empty() => Err("is empty"),
        Value::String(text) if text.len() > MAX_VALUE_BYTES => Err("is too long"),
        // Tokens are printable ASCII; anything else would be garbage, or an attack on a client.
        Value::String(text) if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err("holds characters that no token has")
        }
        Value::String(text) => Ok(Secret::new(text.as_str())),
        _ => Err("is not a text"),
    }
}

/// How long the token lives, by the answer and the configured lifetime. `now` is what an absolute
/// end is counted from.
fn lifetime(source: &TokenSource, json: &Value, now: SystemTime) -> Result<Duration, FetchError> {
    let rules = &source.answer;
    let mut found = rules.expires.paths().filter_map(|(_, steps)| at_path(json, steps));
    let said = found.next().map(|value| stated_life(rules, value, now)).transpose();
    match (said.map_err(FetchError::NoLifetime)?, source.policy.lifetime) {
        (Some(said), Some(fixed)) => Ok(said.min(fixed)),
        (Some(life), None) | (None, Some(life)) => Ok(life),
        (None, None) => Err(FetchError::NoLifetime(
            "there is no expires_in or the like; set expires_field, or lifetime if that is right",
        )),
    }
}

fn stated_life(
    rules: &AnswerRules,
    value: &Value,
    now: SystemTime,
) -> Result<Duration, &'static str> {
    let number = number(value).ok_or("it is not a whole number")?;
    let number = u64::try_from(number).ok().filter(|n| *n > 0).ok_or("it is not positive")?;
    let stated = match rules.expires_unit {
        ExpiresUnit::Seconds => Duration::from_secs(number),
        ExpiresUnit::Milliseconds => Duration::from_millis(number),
    };
    let life = match rules.expires_is {
        ExpiresIs::Relative => stated,
        ExpiresIs::Absolute => {
            let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let left = stated.checked_sub(since_epoch).filter(|left| !left.is_zero());
            left.ok_or("its end is past already")?
        }
    };
    if life > LONGEST_LIFETIME { Err("it is longer than ten years") } else { Ok(life) }
}

/// A whole number, also one written as a text, as some vendors do.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// What stands at a path of names and indexes.
fn at_path<'a, 'p>(
    answer: &'a Value,
    mut steps: impl Iterator<Item = &'p str>,
) -> Option<&'a Value> {
    steps.try_fold(answer, |at, step| match at {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => at.get(step),
    })
}

/// A text of an upstream's without what was sent.
fn without(text: &str, sent: &[Secret]) -> Zeroizing<String> {
    // Short texts (`jsapi`, `2`) are no secrets, and cutting them out would garble the message.
    let secrets = sent.iter().map(Secret::expose).filter(|text| text.len() >= 6);
    let whole = Zeroizing::new(text.to_owned());
    secrets.fold(whole, |text, secret| text.replace(secret, "***").into())
}

/// An upstream's message for the log: bounded, without what was sent, nothing that breaks a line.
/// The `rid` at its end, by which WeChat's support finds a call, is kept of a long one too.
fn quote(message: &str, sent: &[Secret]) -> String {
    let message = without(message, sent);
    let printable = |text: &str, most: usize| -> String {
        text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
    };
    let mut quoted = printable(&message, MAX_MESSAGE_CHARS);
    if let Some(at) = message.rfind(" rid: ")
        && message.chars().count() > MAX_MESSAGE_CHARS
    {
        quoted.push_str(" …");
        quoted.push_str(&printable(&message[at..], MAX_CODE_BYTES));
    }
    quoted
}

#[cfg(test)]
mod tests;
