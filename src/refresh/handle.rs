//! The one way back into the engine: "another token, please". Carries wishes; decides nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::refresh::line::{Line, RequestQueue, SendError};
use crate::refresh::switchboard::{Lines, Switchboard};
use crate::snapshot::{Published, Remedy};
use crate::source::FetchError;
use crate::token::{Generation, Secret, SourceName};

/// How long anybody waits for an answer. An attempt is bounded by its timeout, the disk's patience
/// and the same again for a refused dependency; this is beyond all of them.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// A value that a client saw refused: as a digest, so that it is held nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    of_text: [u8; 32],
    /// The text read as a SHA-256 in hexadecimal digits, where it can be.
    given: Option<[u8; 32]>,
}

impl Refused {
    /// What a client says it saw refused: the value, or its SHA-256 in hexadecimal digits.
    pub fn parse(text: &str) -> Refused {
        Refused { of_text: Sha256::digest(text.as_bytes()).into(), given: hex(text) }
    }

    /// This value.
    pub fn value(value: &Secret) -> Refused {
        Refused { of_text: value.sha256(), given: None }
    }

    /// Whether this is the refused value.
    pub(super) fn is(&self, value: &Secret) -> bool {
        let digest = value.sha256();
        self.of_text == digest || self.given == Some(digest)
    }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte =
            u8::try_from(digit(0)? * 16 + digit(1)?).expect("two hexadecimal digits are a byte");
    }
    Some(bytes)
}

/// What somebody wishes for. `force` asks for a new value although the old one is good, where the
/// upstream can be asked that; it is for privileged clients only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A client wants a fresh token and does not say why.
    Any {
        /// The generation that was there when it asked; `None` if there was no token.
        newer_than: Option<Generation>,
        /// See [`Wish`].
        force: bool,
    },
    /// A client saw this value refused and wants another.
    Other {
        /// The value.
        refused: Refused,
        /// See [`Wish`].
        force: bool,
    },
    /// The refresher of a dependent wants a newer generation: its request was refused with this one.
    /// Not subject to a cooldown.
    Newer {
        /// The generation.
        generation: Generation,
    },
    /// The account's calls of the day are to be had again: what waits for the next day need not.
    CallsAgain,
}

/// Why a wish brought no token. `Display` is what a client is told: no secret, no address of the
/// upstream, and never the value that it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefreshError {
    /// There is no source of this name.
    UnknownSource,
    /// The attempt failed.
    Failed {
        /// What went wrong, for the client.
        what: Arc<str>,
        /// More of it, where more is known.
        more: Option<Arc<More>>,
        /// When it may be asked for again, where that is known.
        wait: Option<Duration>,
    },
    /// The value that the client saw refused is younger than the cooldown.
    TooSoon {
        /// How long to wait before saying it again.
        wait: Duration,
    },
    /// A client wanted a new value although the old one is good, too soon after the last one was
    /// forced, or too often today: nothing was sent.
    ForcedTooOften {
        /// When it may be asked for again.
        wait: Duration,
    },
    /// The upstream gives the value that the client saw refused, and no other.
    Unchanged,
    /// Too many clients wait for this source already.
    TooMany,
    /// No answer came in time.
    TimedOut,
    /// The server is going down.
    Draining,
    /// The refresher broke down before it could answer; it has been restarted.
    Lost,
}

/// What else is known of a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct More {
    what_zh: String,
    remedy: Remedy,
}

impl From<&FetchError> for RefreshError {
    fn from(error: &FetchError) -> RefreshError {
        match error {
            FetchError::ForcedTooOften { wait } => RefreshError::ForcedTooOften { wait: *wait },
            _ => RefreshError::Failed {
                what: error.to_string().into(),
                more: Some(Arc::new(More { what_zh: error.in_chinese(), remedy: remedy(error) })),
                wait: None,
            },
        }
    }
}

/// What to do about a failed fetch.
pub(super) fn remedy(error: &FetchError) -> Remedy {
    let (en, zh) = error.hint();
    Remedy { en, zh }
}

impl RefreshError {
    /// What a client is told, in Chinese, where that is known; without what to do about a failure.
    pub fn in_chinese(&self) -> Option<String> {
        let again = |wait: Duration| format!("请 {} 秒后再试", whole_seconds(wait));
        Some(match self {
            RefreshError::Failed { more, wait, .. } => {
                let what = &more.as_ref()?.what_zh;
                wait.map_or_else(|| what.clone(), |wait| format!("{what}；{}", again(wait)))
            }
            RefreshError::TooSoon { wait } => {
                format!("该令牌刚刚获取；若 {} 秒后仍被拒绝，请再次报告", whole_seconds(*wait))
            }
            RefreshError::ForcedTooOften { wait } => {
                let what = FetchError::ForcedTooOften { wait: *wait }.in_chinese();
                format!("{what}；{}", again(*wait))
            }
            _ => return None,
        })
    }

    /// How long to wait before it is asked again, in whole seconds, rounded up, where that is known.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            RefreshError::TooSoon { wait } | RefreshError::ForcedTooOften { wait } => Some(*wait),
            RefreshError::Failed { wait, .. } => *wait,
            _ => None,
        }
        .map(whole_seconds)
    }

    /// What to do about it, where that is known.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            RefreshError::Failed { more, .. } => Some(more.as_ref()?.remedy.clone()),
            RefreshError::ForcedTooOften { wait } => {
                Some(remedy(&FetchError::ForcedTooOften { wait: *wait }))
            }
            _ => None,
        }
    }

    /// The same failure, to be asked for again after this long.
    pub(super) fn again_in(self, wait: Duration) -> RefreshError {
        match self {
            RefreshError::Failed { what, more, .. } => {
                RefreshError::Failed { what, more, wait: Some(wait) }
            }
            RefreshError::ForcedTooOften { .. } => RefreshError::ForcedTooOften { wait },
            other => other,
        }
    }
}

/// Rounded up: who waits that long has waited long enough.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// The same in words.
fn seconds(wait: Duration) -> String {
    match whole_seconds(wait) {
        1 => "1 second".into(),
        seconds => format!("{seconds} seconds"),
    }
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefreshError::UnknownSource => f.write_str("unknown type"),
            RefreshError::Failed { what, wait: None, .. } => f.write_str(what),
            RefreshError::Failed { what, wait: Some(wait), .. } => {
                write!(f, "{what}; try again in {}", seconds(*wait))
            }
            RefreshError::TooSoon { wait } => write!(
                f,
                "this token was fetched a moment ago; if it is still refused in {}, say so then",
                seconds(*wait)
            ),
            RefreshError::ForcedTooOften { wait } => {
                let what = FetchError::ForcedTooOften { wait: *wait };
                write!(f, "{what}; try again in {}", seconds(*wait))
            }
            RefreshError::Unchanged => {
                f.write_str("the upstream gives this token again; it has no other one yet")
            }
            RefreshError::TooMany => f.write_str("too many refreshes are waiting, try again later"),
            RefreshError::TimedOut => f.write_str("the refresh takes too long, try again later"),
            RefreshError::Draining => f.write_str("the server is shutting down"),
            RefreshError::Lost => f.write_str("the refresh was interrupted, try again"),
        }
    }
}

impl std::error::Error for RefreshError {}

/// A wish on its way to the source's refresher.
#[derive(Debug)]
pub struct RefreshRequest {
    /// The wish.
    pub wish: Wish,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Arc<Published>, RefreshError>>,
}

/// Makes the handle for a set of sources that never changes, and each one's [`RequestQueue`], in the
/// same order.
pub fn queue(names: impl IntoIterator<Item = SourceName>) -> (Vec<RequestQueue>, RefreshHandle) {
    let (queues, lines): (Vec<_>, Vec<_>) = names
        .into_iter()
        .map(|name| {
            let (line, queue) = Line::new();
            (queue, (name, line))
        })
        .unzip();
    let mut switchboard = Switchboard::default();
    switchboard.connect(lines);
    (queues, switchboard.handle())
}

/// The right to ask for a refresh. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RefreshHandle {
    pub(super) lines: Arc<ArcSwap<Lines>>,
}

impl RefreshHandle {
    /// Takes a wish to the source's refresher and waits for the outcome: the token that is there
    /// where it is news already, else that of one attempt, which all who ask meanwhile share.
    ///
    /// # Errors
    /// See [`RefreshError`]; the current token, if any, goes on being served.
    pub async fn ask(&self, source: &str, wish: Wish) -> Result<Arc<Published>, RefreshError> {
        let answer = tokio::time::timeout(MAX_WAIT, self.ask_until_believed(source, wish));
        answer.await.unwrap_or(Err(RefreshError::TimedOut))
    }

    async fn ask_until_believed(
        &self,
        source: &str,
        wish: Wish,
    ) -> Result<Arc<Published>, RefreshError> {
        loop {
            let line = self.lines.load().get(source).cloned().ok_or(RefreshError::UnknownSource)?;
            let (reply, answer) = oneshot::channel();
            let answer = match line.send(RefreshRequest { wish, reply }) {
                Ok(()) => answer.await.unwrap_or(Err(RefreshError::Lost)),
                Err(SendError::Full) => Err(RefreshError::TooMany),
                Err(SendError::Closed) => Err(RefreshError::Draining),
            };
            if self.leads_through(source, &line) {
                return answer;
            }
            // A reload let that refresher go meanwhile, so its answer may be of a token that is not
            // served any more: whoever is in its place knows. If nobody is, the source is gone.
        }
    }

    /// Whether a source is still asked through `line`.
    fn leads_through(&self, source: &str, line: &Line) -> bool {
        self.lines.load().get(source).is_some_and(|current| current.is(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_is_known_by_itself_and_by_its_digest() {
        let value = Secret::new("abc");
        // SHA-256 of "abc", FIPS 180-2, appendix B.1.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (said, is_it) in [
            ("abc", true),
            (digest, true),
            (&digest.to_uppercase(), true),
            ("abd", false),
            ("", false),
            (&digest.replace('b', "c"), false),
            (&digest.replace('b', "x"), false),
        ] {
            assert_eq!(Refused::parse(said).is(&value), is_it, "{said}");
        }
        assert!(Refused::value(&value).is(&value) && !Refused::value(&Secret::new("x")).is(&value));
        // A token that looks like a digest is a token as well.
        assert!(Refused::parse(digest).is(&Secret::new(digest)));
    }

    #[test]
    fn a_failure_is_told_in_chinese_too_and_with_what_to_do() {
        let wait = Duration::from_millis(11_001);
        let timed_out = RefreshError::from(&FetchError::TimedOut);
        for (error, chinese, remedy) in [
            (timed_out.clone(), "上游没有及时应答", Some("会自动重试")),
            (timed_out.again_in(wait), "上游没有及时应答；请 12 秒后再试", Some("会自动重试")),
            (
                RefreshError::ForcedTooOften { wait },
                "每 30 秒只能强制换新一次，每日最多 20 次；请 12 秒后再试",
                Some("请使用现有令牌"),
            ),
            (
                RefreshError::TooSoon { wait },
                "该令牌刚刚获取；若 12 秒后仍被拒绝，请再次报告",
                None,
            ),
        ] {
            assert_eq!(error.in_chinese().as_deref(), Some(chinese));
            let zh = error.remedy().map(|remedy| remedy.zh);
            assert_eq!(zh.is_some(), remedy.is_some(), "{error:?}");
            assert!(zh.unwrap_or_default().starts_with(remedy.unwrap_or_default()), "{error:?}");
        }
    }

    #[test]
    fn who_is_told_to_wait_is_told_whole_seconds_that_are_enough() {
        let failed = RefreshError::Failed { what: "no".into(), more: None, wait: None };
        assert_eq!(failed.to_string(), "no");
        let again = failed.again_in(Duration::from_millis(29_001));
        assert_eq!(again.to_string(), "no; try again in 30 seconds");
        let again = again.again_in(Duration::from_secs(1));
        assert_eq!(again.to_string(), "no; try again in 1 second");
        let soon = RefreshError::TooSoon { wait: Duration::from_secs(30) };
        assert!(soon.to_string().contains("in 30 seconds"));
    }
}
