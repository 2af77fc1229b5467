//! Keeps a log line that strangers can cause from filling the disk: one in a while, with a count of
//! those left out. Writes no line itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Now;

/// The least time between two lines of one budget.
const SPACING: Duration = Duration::from_secs(10);

/// The budget of one kind of line.
#[derive(Debug, Default)]
pub struct LogBudget {
    /// When the next line may come: milliseconds on the monotonic clock.
    next: AtomicU64,
    unsaid: AtomicU64,
}

impl LogBudget {
    /// Asks to write a line. `Some` allows it and tells how many were left out since the last one.
    pub fn spend(&self, now: Now) -> Option<u64> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let allowed = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (millis(now.mono) >= next).then(|| millis(now.mono + SPACING))
            })
            .is_ok();
        if allowed {
            Some(self.unsaid.swap(0, Ordering::Relaxed))
        } else {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn one_line_in_a_while_and_the_rest_are_counted() {
        let budget = LogBudget::default();
        // (milliseconds, allowed with this many left out)
        for (at, expected) in
            [(0, Some(0)), (1, None), (9_999, None), (10_000, Some(2)), (20_000, Some(0))]
        {
            let now = Now { wall: SystemTime::UNIX_EPOCH, mono: Duration::from_millis(at) };
            assert_eq!(budget.spend(now), expected, "at {at} ms");
        }
    }
}
