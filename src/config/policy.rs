//! When one source is refreshed: the durations of its schedule, and their sense.

use std::time::Duration;

/// What a fetch does to the value that was fetched before it, and what an answer's lifetime means.
/// The sources of these facts are in the table of defaults by URL, in `sources`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rotation {
    /// Each fetch makes a new value and the old one lives on for `overlap` at most.
    Rotating,
    /// A fetch gives the same value with the time it has left, until the last `window` of its life;
    /// from then on it gives a new one, and both work.
    Sticky {
        /// How long before the end a fetch gives a new value.
        window: Duration,
    },
    /// A fetch gives the same value until its end and states the whole lifetime each time: the life
    /// is counted from when the value was first seen.
    Nominal,
    /// A fetch gives the same value and lengthens its life.
    Sliding,
    /// Each fetch makes a new value and leaves the old one alone.
    Independent,
}

/// The timing of one source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RefreshPolicy {
    /// How long before the end a renewal is due, and tried without haste; never more than a quarter
    /// of the lifetime.
    pub renew_before: Duration,
    /// How long before the end it is tried hard; never more than a twentieth of the lifetime.
    pub must_renew_before: Duration,
    /// How long a value goes on working after a fetch has replaced it.
    pub overlap: Duration,
    /// How long after a successful fetch a client that saw the value refused is asked to wait before
    /// the next one; ten times that for clients that do not say what they saw.
    pub cooldown: Duration,
    /// How long one request to the upstream may take, all in all.
    pub timeout: Duration,
    /// What a fetch does to the value before.
    pub rotation: Rotation,
    /// A fixed lifetime: caps what the answer says, and stands for it where it says nothing.
    pub lifetime: Option<Duration>,
    /// How many calls an account may make of this endpoint in a Beijing day; `None`: no limit is
    /// known.
    pub daily_limit: Option<u32>,
}

impl Default for RefreshPolicy {
    fn default() -> RefreshPolicy {
        RefreshPolicy {
            renew_before: Duration::from_secs(600),
            must_renew_before: Duration::from_secs(120),
            // WeChat: old and new token both work for 5 minutes (upstream.md, section 1).
            overlap: Duration::from_secs(300),
            cooldown: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            rotation: Rotation::Independent,
            lifetime: None,
            daily_limit: None,
        }
    }
}

impl RefreshPolicy {
    /// How long before the end of a record with this lifetime its renewal is due.
    ///
    /// A sticky source gives a new value in its last window only: asking a moment later than its
    /// beginning, so that two clocks may differ a little, is the earliest that brings anything.
    pub fn lead(&self, lifetime: Duration) -> Duration {
        match self.rotation {
            Rotation::Sticky { window } => window - STICKY_LAG.min(window / 20),
            _ => self.renew_before.min(lifetime / 4),
        }
    }

    /// How long before the end of a record with this lifetime its renewal is tried hard.
    pub fn must_lead(&self, lifetime: Duration) -> Duration {
        self.must_renew_before.min(lifetime / 20).min(self.lead(lifetime))
    }

    /// How long after a successful fetch a client that does not say which value it saw refused has nothing
    /// fetched: ten cooldowns.
    pub fn unfounded_cooldown(&self) -> Duration {
        self.cooldown * 10
    }

    /// The overlap, where it limits what may be promised.
    pub fn promised_overlap(&self) -> Option<Duration> {
        (self.rotation == Rotation::Rotating).then_some(self.overlap)
    }

    /// Whether a request whose outcome is not known matters afterwards: it may have ended the value
    /// that is served, or begun the life of the next one.
    pub fn outcome_matters(&self) -> bool {
        matches!(self.rotation, Rotation::Rotating | Rotation::Nominal)
    }
}

/// How long after the beginning of a sticky source's window it is asked.
const STICKY_LAG: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_renewal_is_due_in_the_last_quarter_at_the_earliest() {
        let policy = RefreshPolicy::default();
        for (lifetime, lead, must) in
            [(7_200, 600, 120), (2_400, 600, 120), (2_000, 500, 100), (400, 100, 20), (20, 5, 1)]
        {
            assert_eq!(policy.lead(seconds(lifetime)), seconds(lead));
            assert_eq!(policy.must_lead(seconds(lifetime)), seconds(must));
        }
    }

    #[test]
    fn a_sticky_source_is_asked_just_after_its_window_begins() {
        for (window, lead) in [(300_000, 295_000), (1_800_000, 1_795_000), (60_000, 57_000)] {
            let window = Duration::from_millis(window);
            let policy =
                RefreshPolicy { rotation: Rotation::Sticky { window }, ..RefreshPolicy::default() };
            assert_eq!(policy.lead(seconds(7_200)), Duration::from_millis(lead));
        }
    }
}
