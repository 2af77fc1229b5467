//! One line of values that replace each other: which is current, which still work. Pure: reads no
//! clock, draws no randomness, knows no account.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::token::Secret;

/// Whether a value is accepted right now, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted, and for so much longer if nothing replaces it.
    Live {
        /// Until its end, as things stand.
        left: Duration,
    },
    /// Killed by a later fetch before its own end (errcode 40001).
    Replaced,
    /// Its life has ended (errcode 42001).
    Expired,
    /// Never issued here (errcode 40014).
    Unknown,
}

impl Verdict {
    /// Whether it is accepted.
    pub fn is_live(self) -> bool {
        matches!(self, Verdict::Live { .. })
    }

    /// The errcode of a call that presents such an access token.
    pub fn errcode(self) -> Option<i32> {
        match self {
            Verdict::Live { .. } => None,
            Verdict::Replaced => Some(40001),
            Verdict::Expired => Some(42001),
            Verdict::Unknown => Some(40014),
        }
    }
}

/// A value as it was issued.
#[derive(Debug)]
pub(super) struct Issue {
    /// The value.
    pub(super) text: Secret,
    /// Until when it is handed out.
    pub(super) until: SystemTime,
    /// When it stops working: before `until` once replaced, after it where there is a grace.
    pub(super) dies: SystemTime,
}

/// The values of one kind of one account, with consecutive serial numbers.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Serial number of the first value kept.
    first: u64,
    /// Those whose life or working time is not over, and a few that happen to stand behind one.
    kept: VecDeque<Issue>,
}

impl Line {
    /// The serial number of the next value.
    pub(super) fn next_serial(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Adds the value with [`Line::next_serial`], and forgets those that are long over.
    pub(super) fn issue(&mut self, issue: Issue, now: SystemTime) -> &Issue {
        while self.kept.front().is_some_and(|old| old.until.max(old.dies) <= now) {
            self.kept.pop_front();
            self.first += 1;
        }
        self.kept.push_back(issue);
        self.kept.back().expect("a value was just added")
    }

    /// Lets every value work until `at` at most.
    pub(super) fn retire(&mut self, at: SystemTime) {
        for issue in &mut self.kept {
            issue.dies = issue.dies.min(at);
        }
    }

    /// The value to hand out, if it works and its end has not come.
    pub(super) fn current(&self, now: SystemTime) -> Option<&Issue> {
        self.kept.back().filter(|issue| now < issue.until.min(issue.dies))
    }

    /// Whether the value with this serial number and text is accepted.
    pub(super) fn verdict(&self, serial: u64, text: &str, now: SystemTime) -> Verdict {
        let Some(at) = serial.checked_sub(self.first) else { return Verdict::Expired };
        let Some(issue) = usize::try_from(at).ok().and_then(|at| self.kept.get(at)) else {
            return Verdict::Unknown;
        };
        if !issue.text.matches(text.as_bytes()) {
            Verdict::Unknown
        } else if let Some(left) = left(issue.dies, now) {
            Verdict::Live { left }
        } else if now < issue.until {
            Verdict::Replaced
        } else {
            Verdict::Expired
        }
    }
}

/// What is left until `end`, if anything.
pub(super) fn left(end: SystemTime, now: SystemTime) -> Option<Duration> {
    end.duration_since(now).ok().filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn issue(text: &str, until: u64) -> Issue {
        Issue { text: Secret::new(text), until: at(until), dies: at(until) }
    }

    #[test]
    fn a_retired_value_works_until_then_and_says_why_it_does_not() {
        let mut line = Line::default();
        line.issue(issue("a", 100), at(0));
        line.retire(at(20));
        line.issue(issue("b", 110), at(10));
        // (now, verdict on a, verdict on b)
        for (now, on_a, on_b) in [
            (10, Verdict::Live { left: Duration::from_secs(10) }, true),
            (20, Verdict::Replaced, true),
            (99, Verdict::Replaced, true),
            (100, Verdict::Expired, true),
            (110, Verdict::Expired, false),
        ] {
            assert_eq!(line.verdict(0, "a", at(now)), on_a, "at {now}");
            assert_eq!(line.verdict(1, "b", at(now)).is_live(), on_b, "at {now}");
        }
        assert_eq!(line.verdict(1, "a", at(10)), Verdict::Unknown);
        assert_eq!(line.verdict(2, "c", at(10)), Verdict::Unknown);
        assert!(line.current(at(110)).is_none());
    }

    #[test]
    fn what_is_over_is_forgotten_and_still_called_expired() {
        let mut line = Line::default();
        for turn in 0..1_000 {
            assert_eq!(line.next_serial(), turn);
            line.issue(issue("x", turn * 100 + 100), at(turn * 100));
            line.retire(at(turn * 100 + 150));
        }
        assert!(line.kept.len() <= 2);
        assert_eq!(line.verdict(3, "x", at(100_000)), Verdict::Expired);
    }
}
