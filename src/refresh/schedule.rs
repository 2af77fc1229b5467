//! When the next attempt is: the whole timing policy after a failure. Pure: reads no clock, and
//! draws its jitter from the generator it is handed.

use std::time::Duration;

use crate::source::FailureClass;

/// The least time between two attempts that nobody asked for, whatever the upstream says a token's
/// life is.
pub(super) const MIN_GAP: Duration = Duration::from_secs(1);

/// How often the clocks are looked at when nothing is due: a suspend or a clock step strands a
/// renewal for no longer.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(60);

/// The wait after the first failure of a streak, and the longest one. It doubles in between.
fn bounds(class: FailureClass) -> (Duration, Duration) {
    let (first, longest) = match class {
        // A day of it is 1440 attempts, below WeChat's 2000 a day.
        FailureClass::Transient | FailureClass::DependencyInvalid => (1, 60),
        FailureClass::Unknown => (5, 300),
        FailureClass::Throttled => (60, 60),
        FailureClass::QuotaSpent => (600, 600),
        FailureClass::Misconfigured => (30, 600),
        // Nothing is sent: the wait only bounds how late a missed change is noticed.
        FailureClass::DependencyAbsent => (5, 5),
    };
    (Duration::from_secs(first), Duration::from_secs(longest))
}

/// How long to wait after the `streak`-th failure in a row (the first is 1).
///
/// The jitter takes up to a fifth off, so that many servers that failed together do not come back
/// together; it never adds, so the bounds hold.
pub(super) fn retry_wait(class: FailureClass, streak: u32, jitter: &mut fastrand::Rng) -> Duration {
    let (first, longest) = bounds(class);
    let doubled =
        first.saturating_mul(1_u32.checked_shl(streak.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(longest).mul_f64(1.0 - 0.2 * jitter.f64())
}

/// How long after the renewal of a refused dependency (the `heals`-th, counted from 0, in a streak
/// of failures) the next one may be: five minutes, doubling up to two hours.
pub(super) fn heal_wait(heals: u32) -> Duration {
    Duration::from_secs(300 << heals.min(5)).min(Duration::from_secs(7_200))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        for (class, expected) in [
            (FailureClass::Transient, [1, 2, 4, 8, 16, 32, 60, 60]),
            (FailureClass::Throttled, [60; 8]),
            (FailureClass::Misconfigured, [30, 60, 120, 240, 480, 600, 600, 600]),
        ] {
            for (streak, seconds) in (1..).zip(expected) {
                let wait = retry_wait(class, streak, &mut fastrand::Rng::with_seed(1));
                let longest = Duration::from_secs(seconds);
                assert!(wait <= longest && wait >= longest.mul_f64(0.8), "{class:?} {streak}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_never_zero_and_never_beyond_the_longest(streak in 0_u32.., seed: u64) {
            use FailureClass::*;
            for class in [Transient, Unknown, Throttled, QuotaSpent, Misconfigured, DependencyInvalid, DependencyAbsent] {
                let wait = retry_wait(class, streak, &mut fastrand::Rng::with_seed(seed));
                let (first, longest) = bounds(class);
                prop_assert!(wait >= first.mul_f64(0.79) && wait <= longest);
            }
        }
    }
}
