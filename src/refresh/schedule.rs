//! When the next attempt is: the whole timing policy after a failure. Pure: reads no clock, and
//! draws its jitter from the generator it is handed.

use std::time::Duration;

use crate::clock::Now;
use crate::source::FailureClass;

/// The least time between two attempts that nobody asked for, whatever the upstream says a token's
/// life is.
pub(super) const MIN_GAP: Duration = Duration::from_secs(1);

/// How often the clocks are looked at when nothing is due: a suspend or a clock step strands a
/// renewal for no longer.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(60);

/// How often it is tried hard at a time: twice a minute's worth of [`HARD_WAIT`]s. A token that is
/// still not there then is tried for as an outage is.
const HARD_TRIES: u32 = 24;

/// How long after a refusal that asks for a long wait a client may have it tried before.
const BLOCK_RETRY: Duration = Duration::from_secs(600);

/// The longest wait while it is tried hard.
const HARD_WAIT: Duration = Duration::from_secs(5);

/// A wait that has begun, by when it ends: by whichever clock says so first. A suspend, which the
/// monotonic one does not see, must not lengthen it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pause(Option<Now>);

impl Pause {
    /// A wait of this length that began at `from`.
    pub(super) fn begin(from: Now, length: Duration) -> Pause {
        Pause(Some(from.after(length)))
    }

    /// What is left of it.
    pub(super) fn left(self, now: Now) -> Duration {
        self.0.map_or(Duration::ZERO, |end| now.until(end))
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(self, now: Now) -> bool {
        self.left(now).is_zero()
    }
}

/// A failed attempt, as the schedule sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed {
    /// Its class.
    pub(super) class: FailureClass,
    /// The wait that it asks for itself.
    pub(super) wait: Option<Duration>,
    /// Which one in a row it was; the first is 1.
    pub(super) streak: u32,
    /// Which one in a row it was of those in the last window or without a token; 0 before.
    pub(super) hard_streak: u32,
    /// How long until the last window of the token's life begins; zero in it, or without a token.
    pub(super) calm: Duration,
}

/// The wait after the first failure of a streak, and the longest one. It doubles in between.
fn bounds(class: FailureClass) -> (Duration, Duration) {
    let (first, longest) = match class {
        // A day of it is 1440 attempts, below WeChat's 2000 a day.
        FailureClass::Transient | FailureClass::DependencyInvalid => (1, 60),
        FailureClass::Unknown => (5, 300),
        FailureClass::Throttled => (60, 60),
        FailureClass::QuotaSpent => (600, 3_600),
        FailureClass::Misconfigured => (30, 600),
        // Nothing was sent: the wait only bounds how late a missed change is noticed.
        FailureClass::DependencyAbsent | FailureClass::Reserved => (5, 5),
    };
    (Duration::from_secs(first), Duration::from_secs(longest))
}

/// Whether trying again soon may help.
fn may_pass(class: FailureClass) -> bool {
    use FailureClass::{DependencyInvalid, Transient, Unknown};
    matches!(class, Transient | Unknown | DependencyInvalid)
}

/// How long to wait after a failure.
///
/// The jitter takes up to a fifth off, so that many servers that failed together do not come back
/// together; it never adds, so the bounds hold. Of a wait that the failure itself asks for nothing
/// is taken: a little is added instead.
pub(super) fn retry_wait(failed: &Failed, jitter: &mut fastrand::Rng) -> Duration {
    if let Some(wait) = failed.wait {
        return wait.max(MIN_GAP) + wait.min(MAX_SLEEP).mul_f64(0.2 * jitter.f64());
    }
    let (first, longest) = bounds(failed.class);
    let wait = if !may_pass(failed.class) {
        doubled(first, failed.streak, longest)
    } else if failed.calm.is_zero() {
        match failed.hard_streak {
            0..=HARD_TRIES => doubled(MIN_GAP, failed.hard_streak, HARD_WAIT),
            tries => doubled(HARD_WAIT, tries - HARD_TRIES, longest),
        }
    } else {
        // Not past the beginning of the last window, where it is tried hard.
        doubled(first, failed.streak, longest).min(failed.calm)
    };
    wait.mul_f64(1.0 - 0.2 * jitter.f64()).max(MIN_GAP.mul_f64(0.8))
}

/// How long after a failure a client's wish leads to another attempt before the schedule's: soon,
/// since the one who asks may have mended it, but not as often as somebody asks in a loop. `None`:
/// not before the schedule's.
pub(super) fn forced_wait(
    class: FailureClass,
    asked_for: Option<Duration>,
    streak: u32,
) -> Option<Duration> {
    let longest = match (class, asked_for) {
        (FailureClass::Throttled | FailureClass::QuotaSpent, _) => return None,
        // A block of an hour or a day: somebody may have lifted it, but a loop must not go on at it.
        (FailureClass::Misconfigured, Some(wait)) => return Some(wait.min(BLOCK_RETRY)),
        (FailureClass::Misconfigured, None) => 60,
        (FailureClass::DependencyAbsent | FailureClass::Reserved, _) => 1,
        (FailureClass::Transient | FailureClass::Unknown | FailureClass::DependencyInvalid, _) => {
            10
        }
    };
    Some(doubled(MIN_GAP, streak, Duration::from_secs(longest)))
}

/// How long after the renewal of a refused dependency (the `heals`-th, counted from 0, in a streak
/// of failures) the next one may be: five minutes, doubling up to two hours.
pub(super) fn heal_wait(heals: u32) -> Duration {
    doubled(Duration::from_secs(300), heals + 1, Duration::from_secs(7_200))
}

/// `first`, doubled with each of a streak after the first, `longest` at most.
fn doubled(first: Duration, streak: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(streak.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLASSES: [FailureClass; 8] = [
        FailureClass::Transient,
        FailureClass::Unknown,
        FailureClass::Throttled,
        FailureClass::QuotaSpent,
        FailureClass::Reserved,
        FailureClass::Misconfigured,
        FailureClass::DependencyInvalid,
        FailureClass::DependencyAbsent,
    ];

    fn calm(class: FailureClass, streak: u32) -> Failed {
        Failed { class, wait: None, streak, hard_streak: 0, calm: Duration::from_secs(3_600) }
    }

    fn check(failed: &Failed, longest: u64) {
        let wait = retry_wait(failed, &mut fastrand::Rng::with_seed(u64::from(failed.streak)));
        let longest = Duration::from_secs(longest);
        assert!(wait <= longest && wait >= longest.mul_f64(0.8), "{failed:?}: {wait:?}");
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        for (class, expected) in [
            (FailureClass::Transient, [1, 2, 4, 8, 16, 32, 60, 60]),
            (FailureClass::Unknown, [5, 10, 20, 40, 80, 160, 300, 300]),
            (FailureClass::Throttled, [60; 8]),
            (FailureClass::Misconfigured, [30, 60, 120, 240, 480, 600, 600, 600]),
        ] {
            for (streak, seconds) in (1..).zip(expected) {
                check(&calm(class, streak), seconds);
            }
        }
    }

    #[test]
    fn it_is_tried_hard_in_the_last_window_and_then_as_in_an_outage() {
        let hard = |hard_streak| Failed {
            hard_streak,
            calm: Duration::ZERO,
            ..calm(FailureClass::Transient, 50)
        };
        for (tries, seconds) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (4, 5),
            (24, 5),
            (25, 5),
            (26, 10),
            (27, 20),
            (29, 60),
            (900, 60),
        ] {
            check(&hard(tries), seconds);
        }
        // The hurry of a token's end mends no configuration.
        check(&Failed { class: FailureClass::Misconfigured, ..hard(3) }, 600);
        // A long wait ends where the last window begins.
        check(&Failed { calm: Duration::from_secs(30), ..calm(FailureClass::Transient, 9) }, 30);
    }

    #[test]
    fn a_wait_that_is_asked_for_is_kept() {
        let asked =
            Failed { wait: Some(Duration::from_secs(3_600)), ..calm(FailureClass::QuotaSpent, 1) };
        let wait = retry_wait(&asked, &mut fastrand::Rng::with_seed(7));
        assert!(wait >= Duration::from_secs(3_600) && wait <= Duration::from_secs(3_612));
    }

    proptest! {
        #[test]
        fn a_wait_is_never_zero_and_never_beyond_the_longest(
            streak in 1_u32.., hard_streak: u32, calm in 0_u64..4_000, seed: u64
        ) {
            for class in CLASSES {
                let calm = Duration::from_secs(calm);
                let failed = Failed { class, wait: None, streak, hard_streak, calm };
                let wait = retry_wait(&failed, &mut fastrand::Rng::with_seed(seed));
                prop_assert!(wait >= MIN_GAP.mul_f64(0.79) && wait <= bounds(class).1);
            }
        }
    }
}
