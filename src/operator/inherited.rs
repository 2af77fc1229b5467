//! A token of an old server: what a key of its Redis holds, how long that lives, and the record that it becomes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::clothes::{self, Worn};
use super::connection::printable;
use super::redis::{Client, Reply};
use super::status::life;
use super::{EX_DATAERR, Failure};
use crate::config::{TokenSource, Vendor};
use crate::doctor::{Words, words};
use crate::token::{Generation, TokenRecord};

/// A token with less than this left is not taken over: the first start would hardly be done by then.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);

/// What a token of WeChat's lives, and a minute for clocks that differ: a longer TTL is not its life.
const LONGEST_LIFE: Duration = Duration::from_secs(7_260);

pub(super) fn not_taken(key: &str, why: &Words) -> Failure {
    let key = printable(key);
    Failure::new(EX_DATAERR, format_args!("{key} is not taken over: {}", why.en))
        .zh(format_args!("未接管 {key}：{}", why.zh))
}

/// A value and what its key says of its life.
pub(super) struct Read {
    worn: Zeroizing<Vec<u8>>,
    /// What is left, by the key's TTL.
    ttl: Option<Duration>,
    /// The end, by something that stands beside it.
    ends: Option<SystemTime>,
}

/// What a key holds; `None` if there is none.
pub(super) fn token(redis: &mut Client, key: &str) -> Result<Option<Read>, Failure> {
    let text = |reply: Reply| match reply {
        Reply::Text(text) => Some(text),
        _ => None,
    };
    let kind = text(redis.tell(&["TYPE", key])?).unwrap_or_default();
    // It may be renewed between two requests: then its TTL would be the new one's.
    for _ in 0..3 {
        let (worn, ends) = match &kind[..] {
            b"none" => return Ok(None),
            // The old configs of WxJava: a hash of value and end.
            b"hash" => match redis.tell(&["HMGET", key, "value", "expire"])? {
                Reply::List(fields) => {
                    let mut fields = fields.into_iter().map(text);
                    let worn = fields.next().flatten();
                    (worn, fields.next().flatten().and_then(|end| instant(&end, 1)))
                }
                _ => (None, None),
            },
            b"string" => (text(redis.tell(&["GET", key])?), None),
            other => {
                let kind = printable(&String::from_utf8_lossy(other));
                let why = words(
                    format!("it is a {kind}, not a token"),
                    format!("其类型为 {kind}，不是令牌"),
                );
                return Err(not_taken(key, &why));
            }
        };
        let Some(worn) = worn else {
            // The hash may also have ended since its type was asked for.
            if &kind[..] == b"hash" && matches!(redis.tell(&["EXISTS", key])?, Reply::Number(1)) {
                let why =
                    words("it is a hash without the field `value`", "它是没有 `value` 字段的 hash");
                return Err(not_taken(key, &why));
            }
            return Ok(None);
        };
        let Reply::Number(ttl) = redis.tell(&["PTTL", key])? else { return Ok(None) };
        let ends = match (ends, ttl) {
            // wechatpy keeps the end of some tokens in a key of its own.
            (None, -1) => {
                let beside = format!("{key}_expires_at");
                let is_text = text(redis.tell(&["TYPE", &beside])?)
                    .is_some_and(|kind| &kind[..] == b"string");
                let end = if is_text { text(redis.tell(&["GET", &beside])?) } else { None };
                end.and_then(|end| instant(&end, 1_000))
            }
            (ends, _) => ends,
        };
        let again = match &kind[..] {
            b"hash" => match redis.tell(&["HMGET", key, "value"])? {
                Reply::List(fields) => fields.into_iter().next().and_then(text),
                _ => None,
            },
            _ => text(redis.tell(&["GET", key])?),
        };
        if again.as_ref() == Some(&worn) {
            let ttl = u64::try_from(ttl).ok().map(Duration::from_millis);
            return Ok(Some(Read { worn, ttl, ends }));
        }
    }
    Ok(None)
}

/// An instant that is written as a whole number since the Unix epoch; `unit` is how many milliseconds one is.
fn instant(text: &[u8], unit: u64) -> Option<SystemTime> {
    let number: u64 = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_millis(number.checked_mul(unit)?))
}

/// The record of what was read, or why there is none.
pub(super) fn record(
    read: &Read,
    source: &TokenSource,
    now: SystemTime,
) -> Result<TokenRecord, Words> {
    let Worn { value, ends } = clothes::taken_off(&read.worn)?;
    let by_clock = |end: SystemTime| end.duration_since(now).unwrap_or_default();
    let lives = [read.ttl, read.ends.map(by_clock), ends.map(by_clock), source.policy.lifetime];
    let known = &lives[..3];
    if known.iter().all(Option::is_none) {
        return Err(words(
            "its key has no TTL, so nobody knows how long it lives; set one in the old Redis if you know (EXPIRE), or \
             leave it out: the first start fetches another",
            "该键没有 TTL，无从得知有效期；若您知道，请在旧 Redis 中设置（EXPIRE），否则请略去它，首次启动时会重新获取",
        ));
    }
    // The shortest of all that is said.
    let left = lives.into_iter().flatten().min().unwrap_or_default();
    let is_of_wechat = matches!(source.vendor, Vendor::WeChat | Vendor::Component | Vendor::WeCom);
    if is_of_wechat && left > LONGEST_LIFE {
        let left = life(left.as_secs());
        return Err(words(
            format!(
                "its key has a TTL of {left}, which is longer than WeChat's tokens live; it is something else, or old"
            ),
            format!("该键的 TTL 为 {left}，超过微信令牌的有效期；它不是令牌，或已陈旧"),
        ));
    }
    if left < SHORTEST_LIFE {
        let left = life(left.as_secs());
        return Err(words(
            format!("it ends in {left}; wait until the old server has renewed it"),
            format!("它将在 {left} 后失效；请等旧服务器续期之后再试"),
        ));
    }
    Ok(TokenRecord {
        value,
        fetched_at: now,
        expires_at: now + left,
        // Until the store has said what it has.
        generation: Generation(0),
        first_seen: now,
        identity: source.identity,
        captured: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config, Environment};
    use std::path::Path;

    fn config(sources: &str) -> Config {
        let text = format!("(token_sources: {{{sources}}})");
        config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap()
    }

    const TOKEN: &str = r#"(url: "https://api.weixin.qq.com/cgi-bin/token")"#;

    #[test]
    fn a_life_is_the_shortest_that_anything_says() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let config = config(&format!(
            r#""t": {TOKEN}, "capped": (url: "https://h/cgi-bin/token", lifetime: "1000s"), "other": (url: "https://h/x")"#
        ));
        let value = "a-token-of-WeChats-0123456789";
        let life_of = |name: &str, ttl: Option<u64>, ends: Option<i64>| {
            let source = config.sources.iter().find(|source| source.name.as_str() == name).unwrap();
            let at = |offset: i64| {
                UNIX_EPOCH + Duration::from_secs(1_800_000_000_u64.saturating_add_signed(offset))
            };
            let read = Read {
                worn: Zeroizing::new(value.into()),
                ttl: ttl.map(Duration::from_secs),
                ends: ends.map(at),
            };
            record(&read, source, now).map(|record| record.lifetime().as_secs())
        };
        assert_eq!(life_of("t", Some(5_000), None), Ok(5_000));
        assert_eq!(life_of("t", None, Some(4_000)), Ok(4_000));
        assert_eq!(life_of("t", Some(5_000), Some(4_000)), Ok(4_000));
        assert_eq!(life_of("capped", Some(5_000), None), Ok(1_000));
        assert_eq!(life_of("other", Some(86_400), None), Ok(86_400));
        for (ttl, ends, words) in [
            (None, None, "no TTL"),
            (Some(59), None, "ends in 59s"),
            (Some(5_000), Some(-1), "ends in 0s"),
            (Some(86_400), None, "TTL of 1d00h"),
        ] {
            let wrong = life_of("t", ttl, ends).unwrap_err();
            assert!(wrong.en.contains(words) && !wrong.en.contains(value), "{wrong:?}");
        }
    }
}
