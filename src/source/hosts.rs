//! Which of an API's hosts is asked next: one that failed is rested, ever longer, and another takes
//! its place at the next attempt. Pure: no clock, no I/O.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Now;
use crate::config::Host;

/// How long a host rests after its first failure, and the longest rest. It doubles in between.
const REST: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// The hosts that failed lately, whoever's requests they were.
#[derive(Debug, Default)]
pub(super) struct Resting(HashMap<Host, Rest>);

#[derive(Debug)]
struct Rest {
    since: Now,
    length: Duration,
}

impl Resting {
    /// The first of `hosts` (which are not none) that is not resting; if all are, the one that has
    /// rested longest.
    pub(super) fn pick<'a>(&self, hosts: &[&'a Host], now: Now) -> &'a Host {
        let rested =
            |host: &Host| self.0.get(host).map(|rest| (now.since(rest.since), rest.length));
        hosts
            .iter()
            .find(|host| rested(host).is_none_or(|(rested, length)| rested >= length))
            .or_else(|| {
                // Of equals the first: `max_by_key` takes the last.
                hosts.iter().rev().max_by_key(|host| rested(host).map(|(rested, _)| rested))
            })
            .expect("there is a host")
    }

    /// `host` failed: it rests from now on.
    pub(super) fn failed(&mut self, host: &Host, now: Now) {
        let (first, longest) = REST;
        let before = self.0.get(host).map(|rest| rest.length);
        let length = before.map_or(first, |before| (before * 2).min(longest));
        self.0.insert(host.clone(), Rest { since: now, length });
    }

    /// `host` answered: its failures are forgotten.
    pub(super) fn answered(&mut self, host: &Host) {
        self.0.remove(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    fn at(seconds: u64) -> Now {
        let mono = Duration::from_secs(seconds);
        Now { wall: UNIX_EPOCH + mono, mono }
    }

    fn hosts() -> Vec<Host> {
        let text = r#"(token_sources: {"t": (url: "https://a", hosts: ["b", "c:8443"])})"#;
        let config = config::parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
        let source = &config.sources[0];
        Host::of(&source.url).into_iter().chain(source.hosts.iter().cloned()).collect()
    }

    #[test]
    fn a_host_that_fails_is_rested_and_the_next_one_asked() {
        let hosts = hosts();
        let all: Vec<&Host> = hosts.iter().collect();
        let mut resting = Resting::default();
        let picked = |resting: &Resting, seconds| resting.pick(&all, at(seconds)).to_string();
        assert_eq!(picked(&resting, 0), "a");
        resting.failed(all[0], at(0));
        assert_eq!(picked(&resting, 0), "b");
        resting.failed(all[1], at(5));
        assert_eq!(picked(&resting, 5), "c:8443");
        resting.failed(all[2], at(10));
        // All rest: the one that has rested longest.
        assert_eq!(picked(&resting, 10), "a");
        // The first one's thirty seconds are over, and it is the preferred one again.
        assert_eq!(picked(&resting, 31), "a");
        resting.failed(all[0], at(31));
        assert_eq!(picked(&resting, 36), "b");
        resting.answered(all[1]);
        assert_eq!(picked(&resting, 37), "b");
        assert_eq!(picked(&resting, 90), "b", "the second rest is a minute from 31 on");
        assert_eq!(picked(&resting, 91), "a");
    }

    #[test]
    fn rests_double_up_to_ten_minutes_and_a_good_answer_ends_them() {
        let hosts = hosts();
        let all: Vec<&Host> = hosts.iter().take(2).collect();
        let mut resting = Resting::default();
        let mut now = 0;
        for rest in [30, 60, 120, 240, 480, 600, 600] {
            resting.failed(all[0], at(now));
            assert_eq!(resting.pick(&all, at(now + rest - 1)), all[1], "{rest}");
            assert_eq!(resting.pick(&all, at(now + rest)), all[0], "{rest}");
            now += rest;
        }
        resting.answered(all[0]);
        resting.failed(all[0], at(now));
        assert_eq!(resting.pick(&all, at(now + 30)), all[0]);
    }
}
