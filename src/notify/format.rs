//! A message as its receiver takes it: the bytes, the signature, the address. Pure, but for the time that
//! it is handed.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::Serialize;
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

use crate::config::{Method, WebhookConfig, WebhookKind};
use crate::outbound::{Payload, Request};
use crate::token::Secret;

use super::ATTEMPT_TIMEOUT;
use super::message::{Item, Message};
use super::text::text;

/// The longest text, in bytes. WeCom takes 2048, by its page on group robots
/// (developer.work.weixin.qq.com/document/path/91770); the others take more.
const MOST_TEXT_BYTES: usize = 2_048;

/// The headers of Standard Webhooks (standardwebhooks.com).
const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// What a secret begins with whose rest is the key in Base64.
const ENCODED: &str = "whsec_";

/// The request that delivers a message at `now`: the signature is of this very moment.
pub(super) fn request(webhook: &WebhookConfig, message: &Message, now: SystemTime) -> Request {
    let mut url = Url::parse(webhook.url.expose()).expect("the config has been checked");
    let secret = webhook.secret.as_ref().map(Secret::expose);
    let content = text(message, webhook.language, MOST_TEXT_BYTES);
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut headers = Vec::new();
    let body = match webhook.kind {
        WebhookKind::Json => {
            let body = bytes(&json_message(message, &content));
            headers.push((ID.to_owned(), Secret::new(message.id.as_str())));
            let seconds = since_1970.as_secs();
            headers.push((TIMESTAMP.to_owned(), Secret::new(seconds.to_string())));
            if let Some(secret) = secret {
                let signature = standard_signature(secret, &message.id, seconds, &body);
                headers.push((SIGNATURE.to_owned(), Secret::new(signature)));
            }
            body
        }
        WebhookKind::WeCom => bytes(&robot_text(&content)),
        WebhookKind::DingTalk => {
            if let Some(secret) = secret {
                let milliseconds = since_1970.as_millis();
                url.query_pairs_mut()
                    .append_pair("timestamp", &milliseconds.to_string())
                    .append_pair("sign", &dingtalk_sign(secret, milliseconds));
            }
            bytes(&robot_text(&content))
        }
        WebhookKind::Feishu => {
            let mut body = json!({"msg_type": "text", "content": {"text": content}});
            if let Some(secret) = secret {
                let seconds = since_1970.as_secs();
                body["timestamp"] = Value::from(seconds.to_string());
                body["sign"] = Value::from(feishu_sign(secret, seconds));
            }
            bytes(&body)
        }
    };
    Request {
        method: Method::Post,
        url,
        headers,
        basic: None,
        body: Some(Payload {
            content_type: "application/json; charset=utf-8",
            bytes: Zeroizing::new(body),
        }),
        timeout: ATTEMPT_TIMEOUT,
    }
}

fn bytes(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("a message has no maps with odd keys")
}

/// The text of WeCom's and DingTalk's robots.
fn robot_text(content: &str) -> Value {
    json!({"msgtype": "text", "text": {"content": content}})
}

/// `v1,` and the Base64 of HMAC-SHA256 over `id.timestamp.body`.
fn standard_signature(secret: &str, id: &str, seconds: u64, body: &[u8]) -> String {
    let decoded = secret.strip_prefix(ENCODED).and_then(|encoded| STANDARD.decode(encoded).ok());
    let key = Zeroizing::new(decoded.unwrap_or_else(|| secret.as_bytes().to_vec()));
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
    context.update(format!("{id}.{seconds}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// The Base64 of HMAC-SHA256 with the secret over `timestamp\nsecret`, as DingTalk's page on custom
/// robots says; escaped where it stands in the address.
fn dingtalk_sign(secret: &str, milliseconds: u128) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let content = Zeroizing::new(format!("{milliseconds}\n{secret}"));
    STANDARD.encode(hmac::sign(&key, content.as_bytes()))
}

/// The Base64 of HMAC-SHA256 over nothing, with `timestamp\nsecret` as the key, as Feishu's page on
/// custom robots says.
fn feishu_sign(secret: &str, seconds: u64) -> String {
    let key = Zeroizing::new(format!("{seconds}\n{secret}"));
    STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), b""))
}

#[derive(Serialize)]
struct JsonMessage<'a> {
    id: &'a str,
    at: u64,
    server: &'a str,
    version: &'static str,
    text: &'a str,
    events: Vec<Event<'a>>,
    left_out: usize,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Failing {
        source: &'a str,
        since: u64,
        class: &'static str,
        code: Option<&'a str>,
        message: &'a str,
        remedy: Remedy<'a>,
        /// Until when the token works; null: there is none that does.
        token_until: Option<u64>,
    },
    Recovered {
        source: &'a str,
        since: u64,
        at: u64,
        token_until: Option<u64>,
    },
    Quota {
        account: &'a str,
        endpoint: &'a str,
        made: u32,
        limit: u32,
        percent: u32,
    },
    Foreign {
        source: &'a str,
        at: u64,
        times: u32,
    },
    Test {},
}

#[derive(Serialize)]
struct Remedy<'a> {
    en: &'a str,
    zh: &'a str,
}

fn json_message<'a>(message: &'a Message, text: &'a str) -> JsonMessage<'a> {
    JsonMessage {
        id: &message.id,
        at: unix(message.at),
        server: &message.server,
        version: env!("CARGO_PKG_VERSION"),
        text,
        events: message.items.iter().map(event).collect(),
        left_out: message.left_out,
    }
}

fn event(item: &Item) -> Event<'_> {
    match item {
        Item::Failing { source, since, trouble, until } => Event::Failing {
            source: source.as_str(),
            since: unix(*since),
            class: trouble.class,
            code: trouble.code.as_deref(),
            message: &trouble.what,
            remedy: Remedy { en: &trouble.remedy.en, zh: &trouble.remedy.zh },
            token_until: until.map(unix),
        },
        Item::Recovered { source, since, at, until } => Event::Recovered {
            source: source.as_str(),
            since: unix(*since),
            at: unix(*at),
            token_until: until.map(unix),
        },
        Item::Quota(used) => Event::Quota {
            account: &used.account.name,
            endpoint: &used.account.endpoint,
            made: used.made,
            limit: used.limit,
            percent: used.percent,
        },
        Item::Foreign { source, at, times } => {
            Event::Foreign { source: source.as_str(), at: unix(*at), times: *times }
        }
        Item::Test => Event::Test {},
    }
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
