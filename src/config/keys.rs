//! Settings that are secrets: what a key must be, where it should not stand, and what no message about a
//! setting may repeat.

use std::path::Path;

use zeroize::{Zeroize, Zeroizing};

use super::error::Advice;
use super::expand::files;
use super::lower::Lowering;
use super::setting::Setting;
use crate::token::Secret;

/// The `requestSecret` in the example config of the original server.
const EXAMPLE_KEY: &str = "f3b2241f967aa3c7966f537cdd82ce11";

/// A key of fewer characters is advised against.
const SHORT_KEY: usize = 16;

/// How to come by a better one.
const NEW_KEY: &str = "make one with `openssl rand -hex 16`";
const NEW_KEY_ZH: &str = "可用 `openssl rand -hex 16` 生成一个";

/// The shortest text that is taken for a secret in a message, in bytes: cutting out shorter ones would
/// garble it.
const MIN_SECRET_BYTES: usize = 6;

impl Lowering<'_> {
    /// Notes that the setting at `path` is a secret, written as `text`: where it stands, nobody else
    /// should read it.
    pub(super) fn is_secret(&mut self, path: &str, text: &str) {
        self.exposure.note(path, text, files(text, self.dir));
    }

    /// As [`Lowering::text`], of a secret.
    pub(super) fn secret(
        &mut self,
        path: &str,
        setting: Option<Setting>,
    ) -> Option<Zeroizing<String>> {
        if let Some(Setting::Text(text)) = &setting {
            self.is_secret(path, text);
        }
        self.text(path, setting)
    }

    /// A key that clients show. Never empty: an empty one would let everybody in.
    pub(super) fn key(&mut self, path: &str, setting: Option<Setting>) -> Option<Secret> {
        let text = self.secret(path, setting)?;
        // What is stripped from a parameter on its way in could never match.
        if text.trim() != text.as_str() || text.is_empty() || text.contains(char::is_control) {
            let what = "is empty, has white space around it or holds control characters";
            self.mistake(path, format!("{what}; leave it out or set a key"));
            return None;
        }
        if let Some((en, zh)) = weakness(&text) {
            self.advise(path, (format!("{en}; {NEW_KEY}"), format!("{zh}；{NEW_KEY_ZH}")));
        }
        Some(Secret::new(text.as_str()))
    }

    /// A message about a setting may repeat what was written, but not what was taken from a variable or a
    /// file: a secret in the wrong place is one all the same.
    pub(super) fn without_taken(&self, mut message: String) -> String {
        for value in self.taken.iter().filter(|value| value.len() >= MIN_SECRET_BYTES) {
            let masked = message.replace(value.as_str(), "…");
            std::mem::replace(&mut message, masked).zeroize();
            // As `{:?}` writes it.
            let quoted = Zeroizing::new(value.escape_debug().to_string());
            let masked = message.replace(quoted.as_str(), "…");
            std::mem::replace(&mut message, masked).zeroize();
        }
        message
    }
}

/// Why somebody else may know or guess a key, in English and Chinese.
fn weakness(key: &str) -> Option<(String, String)> {
    if key == EXAMPLE_KEY {
        let en = "is the example that the original server comes with, which everybody knows";
        Some((en.to_owned(), "与原版服务器示例配置中的密钥相同，人尽皆知".to_owned()))
    } else if key.chars().count() < SHORT_KEY {
        Some((
            format!("has fewer than {SHORT_KEY} characters, so it can be guessed"),
            format!("少于 {SHORT_KEY} 个字符，可能被猜到"),
        ))
    } else {
        None
    }
}

/// As the advice on a `request_secret` of the config, on one that is kept in `file`.
pub fn advice_on_kept(key: &Secret, file: &Path) -> Option<Advice> {
    let (en, zh) = weakness(key.expose())?;
    let file = file.display();
    // Where the file is removed from under a running server, that writes the same key again.
    let en = format!(
        "in {file}: {en}; stop the server, remove the file and start it: it makes a better one"
    );
    let zh = format!("（{file}）{zh}；请停止服务器，删除该文件，再启动服务器：它会生成更好的密钥");
    Some(Advice::on("request_secret", en, Some(zh)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_on_a_kept_key_stops_the_server_first() {
        let advice = advice_on_kept(&Secret::new("hunter2"), Path::new("/s/request_secret"));
        let Advice { message, zh, .. } = advice.unwrap();
        for (told, steps) in [
            (message, ["stop the server", "remove the file", "start it"]),
            (zh.unwrap(), ["停止服务器", "删除该文件", "启动服务器"]),
        ] {
            let places = steps.map(|step| told.find(step).unwrap_or_else(|| panic!("{told}")));
            assert!(places.is_sorted() && !told.contains("hunter2"), "{told}");
        }
        let good = Secret::new("0123456789abcdef0123456789abcdef");
        assert!(advice_on_kept(&good, Path::new("/s")).is_none());
    }
}
