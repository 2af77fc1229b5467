//! The settings of the store: where it is, and what its records are sealed with.

use super::StoreConfig;
use super::lower::{DEFAULT_STORE, Lowering};
use super::raw::RawStore;
use super::setting::Setting;
use crate::token::Secret;

/// The shortest text that records may be sealed with, in characters: 64 bits as hexadecimal digits.
const MIN_STORE_KEY_CHARS: usize = 16;

impl Lowering<'_> {
    pub(super) fn store(&mut self, raw: RawStore) -> StoreConfig {
        let path =
            self.path("store.path", raw.path).unwrap_or_else(|| self.dir.join(DEFAULT_STORE));
        let key = self.store_key("store.key", raw.key);
        let mut old_keys: Vec<Secret> = Vec::new();
        let wanted = "a list such as [\"${env:OLD_STORE_KEY}\"]";
        for (path, item) in self.list("store.old_keys", raw.old_keys, wanted).unwrap_or_default() {
            let Some(old) = self.store_key(&path, Some(item)) else { continue };
            if key.as_ref() == Some(&old) {
                self.mistake(path, "is store.key itself; an old key is another one, remove it");
            } else if old_keys.contains(&old) {
                self.mistake(path, "is there twice; remove one");
            } else {
                old_keys.push(old);
            }
        }
        StoreConfig { path, key, old_keys }
    }

    /// A key that records are sealed with: guessing it is the one way to open them.
    fn store_key(&mut self, path: &str, setting: Option<Setting>) -> Option<Secret> {
        let text = self.secret(path, setting)?;
        if text.chars().count() < MIN_STORE_KEY_CHARS {
            self.mistake(
                path,
                format!("has less than {MIN_STORE_KEY_CHARS} characters, so it could be guessed; make one with `openssl rand -hex 32`"),
            );
            return None;
        }
        Some(Secret::new(text.as_str()))
    }
}
