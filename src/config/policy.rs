//! When one source is refreshed: the durations of its schedule, and their sense.

use std::time::Duration;

/// What a fetch does to the value that was fetched before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Each fetch makes a new value and the old one lives on for `overlap` at most.
    Rotating,
    /// Each fetch leaves the old value alone.
    Independent,
}

/// The timing of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshPolicy {
    /// How long before the end a renewal is due; never more than a quarter of the lifetime.
    pub renew_before: Duration,
    /// How long a value goes on working after a fetch has replaced it.
    pub overlap: Duration,
    /// How long after a successful fetch a forced refresh is answered with what is there.
    pub cooldown: Duration,
    /// How long one request to the upstream may take, all in all.
    pub timeout: Duration,
    /// What a fetch does to the value before.
    pub rotation: Rotation,
    /// A fixed lifetime: caps what the answer says, and stands for it where it says nothing.
    pub lifetime: Option<Duration>,
}

impl Default for RefreshPolicy {
    fn default() -> RefreshPolicy {
        RefreshPolicy {
            renew_before: Duration::from_secs(600),
            // WeChat: old and new token both work for 5 minutes (upstream.md, section 1).
            overlap: Duration::from_secs(300),
            cooldown: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            rotation: Rotation::Independent,
            lifetime: None,
        }
    }
}

impl RefreshPolicy {
    /// How long before the end of a record with this lifetime its renewal is due.
    pub fn lead(&self, lifetime: Duration) -> Duration {
        self.renew_before.min(lifetime / 4)
    }

    /// The overlap, where it limits what may be promised.
    pub fn promised_overlap(&self) -> Option<Duration> {
        (self.rotation == Rotation::Rotating).then_some(self.overlap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_is_due_in_the_last_quarter_at_the_earliest() {
        let policy = RefreshPolicy::default();
        for (lifetime, lead) in [(7_200, 600), (2_400, 600), (2_000, 500), (48, 12), (20, 5)] {
            assert_eq!(policy.lead(Duration::from_secs(lifetime)), Duration::from_secs(lead));
        }
    }
}
