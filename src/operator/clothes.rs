//! The forms in which SDKs keep a token in Redis: as it is, as JSON, as PHP writes it (upstream.md,
//! section 8). Pure: takes the token out of them, or says in words why there is none. Never repeats a value.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use crate::doctor::{Words, words};
use crate::token::Secret;

/// The shortest and the longest text that is taken for a token, in bytes. WeChat's have a hundred and more,
/// and asks to keep room for 512; Feishu's have up to 4 KB.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=4_096;

/// The fields that an object has a token in, by the SDKs that write them: PowerWeChat, EasyWeChat 5,
/// co-wechat-api.
const FIELDS: [&str; 3] = ["access_token", "accessToken", "ticket"];

/// A token, and the end that stands with it. Holds the value, so has no `Debug`.
pub(super) struct Worn {
    pub(super) value: Secret,
    /// `expireTime`, as co-wechat-api writes it.
    pub(super) ends: Option<SystemTime>,
}

/// The token in a value.
///
/// # Errors
/// What is there instead, in words that do not repeat it.
pub(super) fn taken_off(worn: &[u8]) -> Result<Worn, Words> {
    let text = std::str::from_utf8(worn).map_err(|_| {
        words(
            "its value is no text but the bytes of some serialiser (Redisson's or igbinary's, say), which are not read",
            "其值不是文本，而是某种序列化的字节（如 Redisson 或 igbinary），无法读取",
        )
    })?;
    let text = text.trim();
    let bare = |text: &str| Ok(Worn { value: plausible(text)?, ends: None });
    match text.as_bytes() {
        [b'"', ..] => match serde_json::from_str(text).map(Zeroizing::<String>::new) {
            Ok(inner) => bare(&inner),
            Err(_) => Err(no_json()),
        },
        [b'{', ..] => of_json(text),
        [b's', b':', ..] => {
            let no_text = || {
                words(
                    "its value begins as a text of PHP's does and is none",
                    "其值以 PHP 序列化字符串开头，但并不完整",
                )
            };
            bare(of_php(text).ok_or_else(no_text)?)
        }
        [b'a', b':', b'0'..=b'9', ..] => {
            let fields = FIELDS.iter().filter_map(|field| {
                let name = format!("\"{field}\";");
                of_php(&text[text.find(&name)? + name.len()..])
            });
            let found = fields.into_iter().next();
            let no_token = || {
                words(
                    "its value is an array of PHP's without a token in it",
                    "其值是 PHP 序列化数组，但其中没有令牌",
                )
            };
            bare(found.ok_or_else(no_token)?)
        }
        _ => bare(text),
    }
}

fn no_json() -> Words {
    words("its value begins as JSON does and is none", "其值以 JSON 开头，但并不是 JSON")
}

fn of_json(text: &str) -> Result<Worn, Words> {
    let mut json: Value = serde_json::from_str(text).map_err(|_| no_json())?;
    let found = FIELDS.iter().find_map(|field| json[field].as_str());
    let no_token = || {
        words(
            "its value is a JSON object without a token in it",
            "其值是 JSON 对象，但其中没有令牌",
        )
    };
    let value = found.ok_or_else(no_token).map(plausible);
    let ends = json["expireTime"].as_u64();
    let ends = ends.and_then(|end| UNIX_EPOCH.checked_add(Duration::from_millis(end)));
    for (_, field) in json.as_object_mut().into_iter().flatten() {
        if let Value::String(text) = field {
            text.zeroize();
        }
    }
    Ok(Worn { value: value??, ends })
}

/// The text in `s:3:"abc";`, and what may follow it.
fn of_php(text: &str) -> Option<&str> {
    let (length, rest) = text.strip_prefix("s:")?.split_once(":\"")?;
    let length = length.parse().ok()?;
    rest.get(length..)?.starts_with("\";").then(|| &rest[..length])
}

/// A text that can be meant for a token.
fn plausible(text: &str) -> Result<Secret, Words> {
    if !TOKEN_BYTES.contains(&text.len()) {
        let length = text.len();
        return Err(words(
            format!("its value has {length} bytes, which no token has"),
            format!("其值长 {length} 字节，不可能是令牌"),
        ));
    }
    let is_of_tokens = |byte: u8| byte.is_ascii_graphic() && !b"\"'<>{}\\".contains(&byte);
    if !text.bytes().all(is_of_tokens) {
        return Err(words(
            "its value holds characters that no token has",
            "其值含有令牌中不会出现的字符",
        ));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "56_aB-cdefghijklmnopqrstuvwxyz0123456789";

    #[test]
    fn a_token_is_found_in_what_sdks_make_of_it() {
        let length = TOKEN.len();
        for (worn, ends) in [
            (TOKEN.to_owned(), None),
            (format!(" {TOKEN}\n"), None),
            (format!("\"{TOKEN}\""), None),
            (format!("s:{length}:\"{TOKEN}\";"), None),
            (format!(r#"{{"access_token":"{TOKEN}","expires_in":7200}}"#), None),
            (
                format!(r#"{{"accessToken":"{TOKEN}","expireTime":1800000000123}}"#),
                Some(1_800_000_000_123),
            ),
            (format!(r#"{{"errcode":0,"ticket":"{TOKEN}"}}"#), None),
            (
                format!(
                    r#"a:2:{{s:12:"access_token";s:{length}:"{TOKEN}";s:10:"expires_in";i:7200;}}"#
                ),
                None,
            ),
        ] {
            let found =
                taken_off(worn.as_bytes()).unwrap_or_else(|wrong| panic!("{worn}: {wrong:?}"));
            assert_eq!(found.value, Secret::new(TOKEN), "{worn}");
            let ends = ends.map(|ms| UNIX_EPOCH + Duration::from_millis(ms));
            assert_eq!(found.ends, ends, "{worn}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        let long = "x".repeat(5_000);
        for (worn, words) in [
            (&b"\xac\xed\x00hunter2"[..], "serialiser"),
            (b"", "0 bytes"),
            (b"hunter2", "7 bytes"),
            (long.as_bytes(), "5000 bytes"),
            (b"hunter2 is not a token", "characters"),
            (b"<html>hunter2hunter2</html>", "characters"),
            (b"\"hunter2hunter2hunter2", "JSON"),
            (b"\"hunter2 \\u0000 hunter2\"", "characters"),
            (b"{\"hunter2\":\"hunter2hunter2hunter2\"}", "without a token"),
            (b"{\"access_token\":12345678901234567}", "without a token"),
            (b"{\"access_token\":\"hunter2\"}", "7 bytes"),
            (b"{hunter2", "JSON"),
            (b"s:99:\"hunter2hunter2hunter2\";", "PHP"),
            (b"s:x:hunter2hunter2hunter2", "PHP"),
            (b"a:1:{s:7:\"hunter2\";i:1;}", "PHP"),
        ] {
            let wrong = taken_off(worn).err().unwrap_or_else(|| panic!("{}", worn.escape_ascii()));
            let all = [wrong.en.as_str(), &wrong.zh].concat();
            assert!(wrong.en.contains(words) && !all.contains("hunter2"), "{wrong:?}");
        }
    }
}
