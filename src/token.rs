//! The vocabulary: names, secrets, generations and token records. No I/O, no clock.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::clock::Now;

/// The longest source name, in bytes. A name is a RESP key and a query parameter.
pub const MAX_NAME_BYTES: usize = 256;

/// The configured name of a token source: also the RESP key and the `type` of the HTTP routes.
///
/// Letters, digits, `_ . - :` and non-ASCII letters; checked once, in [`SourceName::parse`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// Checks a configured name.
    ///
    /// # Errors
    /// Says in words what is wrong with `name`.
    pub fn parse(name: &str) -> Result<SourceName, String> {
        if name.is_empty() {
            return Err("a source needs a name".into());
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(format!("a source name has at most {MAX_NAME_BYTES} bytes"));
        }
        // Clients leave these out of an address before they ask (RFC 3986, section 5.2.4).
        if matches!(name, "." | "..") {
            return Err(format!("{name} cannot be a source's name: it has a meaning in addresses"));
        }
        match name.chars().find(|c| !(c.is_alphanumeric() || "_.-:".contains(*c))) {
            None => Ok(SourceName(name.into())),
            Some(c) => Err(format!(
                "a source name is made of letters, digits and _ . - : ({c:?} is none of them)"
            )),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for SourceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Text that must never be shown: a token's value, an app secret, a client's key.
///
/// `Debug` prints `Secret(..)`, there is no `Display`, and the memory is wiped when dropped.
/// [`Secret::expose`] is the one way to the text, and `tests/tidy.rs` lists the files that use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: impl Into<String>) -> Secret {
        let mut text = text.into();
        if text.capacity() == text.len() {
            return Secret(text.into_boxed_str());
        }
        // Giving room back could move the text and leave a copy behind.
        let secret = Secret(text.as_str().into());
        text.zeroize();
        secret
    }

    /// The text itself. For sending to a client or the upstream; never for a log or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares with what a client sent, in a time that depends on the lengths only.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }

    /// The SHA-256 of the text: stands for it where the text itself must not.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Grows each time a source's *value* changes, across restarts. It starts at Unix seconds, so that
/// a lost store never steps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation of a first value seen at `now`.
    pub fn first(now: Now) -> Generation {
        Generation(now.unix_seconds().max(1))
    }

    /// The generation of the next value.
    pub fn next(self) -> Generation {
        Generation(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What fetched a record: a digest of path and arguments of its source and of the sources it
/// depends on. A stored record is served only to the source with the same identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SourceIdentity(pub [u8; 32]);

impl fmt::Debug for SourceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}{:02x}", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// One token as it was fetched: the value and its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// The token itself.
    pub value: Secret,
    /// When the request that brought it was sent: the life is counted from here.
    pub fetched_at: SystemTime,
    /// The end of its life, by the upstream's word.
    pub expires_at: SystemTime,
    /// Which value this is, counted across restarts.
    pub generation: Generation,
    /// When this value was seen for the first time.
    pub first_seen: SystemTime,
    /// What fetched it.
    pub identity: SourceIdentity,
    /// What the answer gave to be sent with the next request (a refresh token): kept with the value,
    /// since losing it may mean asking a person for a new one.
    pub captured: Option<Secret>,
}

impl TokenRecord {
    /// The whole life, from the request to the end.
    pub fn lifetime(&self) -> Duration {
        self.expires_at.duration_since(self.fetched_at).unwrap_or(Duration::ZERO)
    }

    /// What is left of its life by the wall clock; `None` once it has ended.
    pub fn ttl(&self, now: SystemTime) -> Option<Duration> {
        self.expires_at.duration_since(now).ok().filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_digits_and_four_signs() {
        for good in ["access_token", "a.b-c:d", "...", "公众号", "é1", &"x".repeat(MAX_NAME_BYTES)]
        {
            assert_eq!(SourceName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "a{b",
            "a\n",
            "😀",
            "a\"b",
            &"x".repeat(MAX_NAME_BYTES + 1),
        ] {
            assert!(SourceName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert!(secret.matches(b"canary"));
        for wrong in [&b"canarY"[..], b"canar", b"canaryy", b""] {
            assert!(!secret.matches(wrong));
        }
    }

    #[test]
    fn a_text_with_room_to_spare_is_taken_as_it_is() {
        let mut text = String::with_capacity(100);
        text.push_str("canary");
        assert_eq!(Secret::new(text), Secret::new("canary"));
    }

    #[test]
    fn a_record_ends_at_its_end() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let record = TokenRecord {
            value: Secret::new("v"),
            fetched_at: start,
            expires_at: start + Duration::from_secs(20),
            generation: Generation(1),
            first_seen: start,
            identity: SourceIdentity([0; 32]),
            captured: None,
        };
        assert_eq!(record.ttl(start), Some(Duration::from_secs(20)));
        assert_eq!(record.ttl(start + Duration::from_secs(20)), None);
        assert_eq!(record.ttl(start + Duration::from_secs(21)), None);
        assert_eq!(record.lifetime(), Duration::from_secs(20));
    }
}
