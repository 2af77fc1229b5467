//! What the refreshers count and time for whoever watches the server: failures by class and code, the
//! time that upstream and disk take. Decides nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::snapshot::Trouble;

/// How many codes are counted apart; there are some thirty that are known, and an upstream may make up
/// others.
const MOST_CODES: usize = 64;

/// What stands for the codes beyond that.
const OTHER: &str = "other";

/// What is counted over all sources.
#[derive(Debug, Default)]
pub struct Meters {
    /// How long requests to the upstream took, whatever came of them.
    pub upstream: Timings,
    /// How long writes of tokens to the disk took, whatever came of them.
    pub store: Timings,
    foreign: AtomicU64,
    failures: Mutex<BTreeMap<(&'static str, Box<str>), u64>>,
}

impl Meters {
    /// How often a token was refused that should have been good: another system had fetched one.
    pub fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
    }

    /// How often renewals have failed, by class and error code (empty where there was none).
    pub fn failures(&self) -> Vec<(&'static str, Box<str>, u64)> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().map(|((class, code), count)| (*class, code.clone(), *count)).collect()
    }

    pub(super) fn count_foreign(&self) {
        self.foreign.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_failure(&self, trouble: &Trouble) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (trouble.class, Box::from(trouble.code.as_deref().unwrap_or_default()));
        if failures.len() >= MOST_CODES && !failures.contains_key(&key) {
            key.1 = OTHER.into();
        }
        *failures.entry(key).or_default() += 1;
    }
}

/// How long something took, counted by length.
#[derive(Debug, Default)]
pub struct Timings {
    counts: [AtomicU64; Timings::BOUNDS.len() + 1],
    total_us: AtomicU64,
}

impl Timings {
    /// The upper bounds of the lengths that are counted apart, in seconds; longer ones come after.
    pub const BOUNDS: [f64; 12] =
        [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

    pub(super) fn note(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = Timings::BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.total_us.fetch_add(took, Ordering::Relaxed);
    }

    /// How many there were up to each of [`Timings::BOUNDS`] from the one before on, and beyond the last.
    pub fn counts(&self) -> [u64; Timings::BOUNDS.len() + 1] {
        std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed))
    }

    /// How long all of them took together.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_counted_by_length() {
        let timings = Timings::default();
        for milliseconds in [0, 1, 2, 50, 51, 10_000, 60_000] {
            timings.note(Duration::from_millis(milliseconds));
        }
        assert_eq!(timings.counts(), [2, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!(timings.total(), Duration::from_millis(70_104));
    }

    #[test]
    fn codes_that_an_upstream_makes_up_do_not_fill_the_memory() {
        let meters = Meters::default();
        for code in 0..1_000 {
            meters.count_failure(&Trouble {
                at: std::time::UNIX_EPOCH,
                what: "no".into(),
                what_zh: "否".into(),
                class: "unknown",
                code: Some(code.to_string().into()),
                remedy: crate::snapshot::Remedy { en: "wait".into(), zh: "等待".into() },
                is_failure: true,
            });
        }
        let failures = meters.failures();
        assert_eq!(failures.len(), MOST_CODES + 1);
        assert_eq!(failures.iter().map(|(_, _, count)| count).sum::<u64>(), 1_000);
        assert!(failures.contains(&("unknown", "other".into(), 1_000 - MOST_CODES as u64)));
    }
}
