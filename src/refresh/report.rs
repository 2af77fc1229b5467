//! What an operator is told of a source, and how it is put in a log line. Never a value.

use std::time::{Duration, SystemTime};

use crate::clock::Now;
use crate::refresh::handle::remedy;
use crate::snapshot::Trouble;
use crate::source::{FailureClass, FetchError};
use crate::store::StoreError;
use crate::token::{Generation, SourceName};

/// By how much our clock and the upstream's may differ without a word: the `Date` of an answer has
/// whole seconds, and an answer takes some.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// What an operator is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// A fetch brought a token.
    Renewed {
        /// Its generation.
        generation: Generation,
        /// Its life, from the request on.
        lifetime: Duration,
        /// Whether the value is another than before.
        changed: bool,
        /// How many attempts had failed before.
        after_failures: u32,
    },
    /// An attempt failed.
    Failed {
        /// Why.
        error: FetchError,
        /// How many have failed in a row.
        streak: u32,
        /// When the next one is, unless somebody asks before.
        retry_in: Duration,
    },
    /// The token is served, but it is not on disk.
    NotOnDisk {
        /// Why.
        error: StoreError,
        /// When the write is tried again.
        retry_in: Duration,
        /// Which refusal in a row this is; the first is 1.
        tries: u32,
    },
    /// A token that was not on disk is now.
    OnDisk,
    /// A dependency's token was refused and is renewed.
    Healing,
    /// A token was refused although it should have been good.
    Foreign {
        /// Its generation.
        generation: Generation,
        /// How long ago it was fetched.
        age: Duration,
    },
    /// Our clock and the upstream's differ.
    ClockOff {
        /// By how much.
        by: Duration,
        /// Whether ours is ahead.
        ahead: bool,
    },
}

impl Report {
    /// The report of a clock that is far from the upstream's.
    pub(super) fn clock_off(upstream: SystemTime, now: Now) -> Option<Report> {
        let (by, ahead) = match now.wall.duration_since(upstream) {
            Ok(by) => (by, true),
            Err(behind) => (behind.duration(), false),
        };
        (by > CLOCK_TOLERANCE).then_some(Report::ClockOff { by, ahead })
    }
}

/// A failure as whoever asks may know it.
pub(super) fn trouble(error: &FetchError, now: Now) -> Trouble {
    let class = error.class();
    Trouble {
        at: now.wall,
        what: error.in_english().into(),
        what_zh: error.in_chinese().into(),
        class: class.as_str(),
        code: error.code().map(Into::into),
        remedy: remedy(error),
        // Our own count refused a client's wish; what is due goes on.
        is_failure: class != FailureClass::Reserved,
    }
}

/// Writes a report to the log.
pub(super) fn log(source: &SourceName, report: &Report) {
    match report {
        Report::Renewed { generation, lifetime, changed, after_failures } => tracing::info!(
            %source, %generation, lifetime_s = lifetime.as_secs(), changed, after_failures,
            "token renewed"
        ),
        Report::Failed { error: FetchError::DependencyAbsent(dependency), .. } => {
            tracing::info!(%source, %dependency, "waiting for the token of a dependency");
        }
        Report::Failed {
            error: error @ (FetchError::BudgetReserved { .. } | FetchError::ForcedTooOften { .. }),
            ..
        } => tracing::warn!(%source, %error, "forced refresh refused"),
        Report::Failed { error, streak, retry_in } => {
            let hint_zh = &*error.hint_zh();
            tracing::warn!(
                %source, %error, detail = ?error.for_log(), hint_zh, streak,
                retry_in_s = retry_in.as_secs_f32(), "token not renewed"
            );
        }
        // Once: ten thousand sources that say so each minute would fill what is left of the disk.
        Report::NotOnDisk { error, retry_in, tries: 2.. } => tracing::debug!(
            %source, %error, retry_in_s = retry_in.as_secs_f32(), "the token is still not on disk"
        ),
        Report::NotOnDisk { error, retry_in, .. } => tracing::error!(
            %source, %error, retry_in_s = retry_in.as_secs_f32(),
            "the token is served from memory only and would be lost in a restart"
        ),
        Report::OnDisk => tracing::info!(%source, "the token is on disk again"),
        Report::Healing => {
            tracing::warn!(%source, "the upstream refused a dependency's token; renewing that first");
        }
        Report::Foreign { generation, age } => tracing::warn!(
            %source, %generation, age_s = age.as_secs(),
            "a token that should be good was refused: another system is fetching tokens for this \
             appid. Look for servers, SDKs or tools that hold its AppSecret; where none can be \
             found, resetting the AppSecret ends them. 有其他系统在用同一 appid 获取令牌"
        ),
        Report::ClockOff { by, ahead } => tracing::warn!(
            %source, by_s = by.as_secs(), ahead,
            "this machine's clock is far from the upstream's; set it (NTP)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_from_a_minute_on() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let now = Now { wall: at(10_000), mono: Duration::ZERO };
        let off = |by, ahead| Some(Report::ClockOff { by: Duration::from_secs(by), ahead });
        for (upstream, expected) in [
            (10_000, None),
            (9_940, None),
            (10_060, None),
            (9_900, off(100, true)),
            (13_600, off(3_600, false)),
        ] {
            assert_eq!(Report::clock_off(at(upstream), now), expected);
        }
    }
}
