//! What a fetched or kept value means: its record, its life, when it is due. Pure.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Now;
use crate::config::{RefreshPolicy, Rotation};
use crate::snapshot::Published;
use crate::source::Fetched;
use crate::token::{Generation, SourceIdentity, TokenRecord};

/// By how much a kept record may seem to come from the future. More says that the clock is wrong,
/// and then nothing is known of the record's age.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(60);

/// A nominal life is confirmed for a twenty-fourth of the lifetime at a time, 5 minutes at most: 5
/// minutes of WeChat's two hours.
const CONFIRMED_PART: u32 = 24;
const LONGEST_CONFIRMED: Duration = Duration::from_secs(300);

/// A value that does not change although it is due is asked about this often in what is left of its
/// life, and once a minute at least.
const POLL_PART: u32 = 5;
const LONGEST_POLL: Duration = Duration::from_secs(60);

/// The shortest wait after an answer that brought the value that was there already.
const SHORTEST_POLL: Duration = Duration::from_secs(1);

/// The part of its lead by which a renewal is put off at random, so that many accounts that were
/// fetched together are not renewed together.
const SPREAD: f64 = 0.25;

/// As [`SPREAD`], for a sticky source: at most this long, or a twentieth of a shorter lead.
const STICKY_SPREAD: Duration = Duration::from_secs(5);

/// What comes before a fetched value.
pub(super) struct Before<'a> {
    /// The record that is there, live or not.
    pub(super) record: Option<&'a TokenRecord>,
    /// What was left of its life when the request was sent, by both clocks; `None` where only the
    /// wall clock knows, since it is of an earlier process.
    pub(super) left: Option<Duration>,
    /// The newest generation that is known.
    pub(super) generation: Option<Generation>,
    /// When the first request since the last success was sent whose outcome was not known.
    pub(super) unsettled: Option<Now>,
}

/// The record of a fetched value whose request was sent at `sent`, and whether the value is another
/// than the one before.
pub(super) fn record_of(
    policy: &RefreshPolicy,
    identity: SourceIdentity,
    before: &Before<'_>,
    fetched: Fetched,
    sent: Now,
    now: Now,
) -> (TokenRecord, bool) {
    let same = before.record.filter(|record| record.value == fetched.value);
    let generation = match (same, before.generation) {
        (Some(record), _) => record.generation,
        (None, Some(generation)) => generation.next(),
        (None, None) => Generation::first(now),
    };
    // From when the request was sent: the upstream began to count before we had its answer.
    let stated = sent.wall + fetched.expires_in;
    // The upstream may have made the value for a request whose answer was lost.
    let made = before.unsettled.map_or(sent.wall, |unsettled| {
        let earlier = now.since(unsettled).saturating_sub(now.since(sent));
        sent.wall.checked_sub(earlier).unwrap_or(sent.wall)
    });
    let expires_at = match (policy.rotation, same) {
        (Rotation::Nominal, Some(record)) => {
            let confirmed = (fetched.expires_in / CONFIRMED_PART).min(LONGEST_CONFIRMED);
            let counted = left_of_nominal(record, fetched.expires_in, sent);
            let counted = before.left.map_or(counted, |left| left.min(counted));
            sent.wall + counted.max(confirmed).min(fetched.expires_in)
        }
        (Rotation::Nominal, None) => made + fetched.expires_in,
        _ => stated,
    };
    let record = TokenRecord {
        first_seen: same.map_or(made, |record| record.first_seen),
        value: fetched.value,
        captured: fetched.captured,
        fetched_at: sent.wall,
        expires_at,
        generation,
        identity,
    };
    (record, same.is_none())
}

/// What is left of a nominal life that is counted from first sight, by the wall clock; nothing where
/// that was in the future: the clock was set back, and the age is not known.
fn left_of_nominal(record: &TokenRecord, lifetime: Duration, sent: Now) -> Duration {
    if record.first_seen > sent.wall + FUTURE_TOLERANCE {
        return Duration::ZERO;
    }
    let age = sent.wall.duration_since(record.first_seen).unwrap_or(Duration::ZERO);
    lifetime.saturating_sub(age)
}

/// The record as it is published: `left` of its life is left at `now`.
pub(super) fn published(
    policy: &RefreshPolicy,
    record: TokenRecord,
    left: Duration,
    now: Now,
) -> Published {
    let lead = if is_confirmed(policy, &record) {
        // It has had its time and is asked about until it changes.
        record.lifetime()
    } else {
        let lead = policy.lead(whole_life(policy, &record));
        let spread_over = match policy.rotation {
            // Its window is short, and its end is the same for every server.
            Rotation::Sticky { .. } => STICKY_SPREAD.min(lead / 20),
            _ => lead.mul_f64(SPREAD),
        };
        lead - spread_over.mul_f64(spread(&record))
    };
    Published {
        ends_mono: now.mono + left,
        lead,
        overlap: policy.promised_overlap(),
        in_doubt_since: None,
        record,
    }
}

/// Where in the spread this record's renewal is, from 0 to 1. Drawn from the record itself: promises
/// that were made before a restart must hold after it.
fn spread(record: &TokenRecord) -> f64 {
    let [a, b, c, d, e, f, g, h, ..] = record.identity.0;
    let source = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    // Of the value, not of the fetch: one that is confirmed keeps its place.
    let since_epoch = record.first_seen.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    fastrand::Rng::with_seed(source ^ record.generation.0.rotate_left(32) ^ since_epoch.as_secs())
        .f64()
}

/// What is left of a kept record's life, if it may be served: it has not ended, and the clock makes
/// sense of it.
pub(super) fn left_of_kept(record: &TokenRecord, now: Now) -> Option<Duration> {
    if record.fetched_at > now.wall + FUTURE_TOLERANCE {
        return None;
    }
    // A clock that was set back a little would make the life longer than it ever was.
    record.ttl(now.wall).map(|left| left.min(record.lifetime()))
}

/// Whether a nominal record lives on its last confirmation alone.
fn is_confirmed(policy: &RefreshPolicy, record: &TokenRecord) -> bool {
    policy.rotation == Rotation::Nominal
        && record.first_seen != record.fetched_at
        && record.lifetime() <= LONGEST_CONFIRMED
}

/// The life that a record's lead is a part of. That of a confirmed nominal record counts from its
/// first sight: its last confirmation says little.
fn whole_life(policy: &RefreshPolicy, record: &TokenRecord) -> Duration {
    let begin = match policy.rotation {
        Rotation::Nominal => record.first_seen,
        _ => record.fetched_at,
    };
    record.expires_at.duration_since(begin).unwrap_or(Duration::ZERO)
}

/// How long before its end the record is tried hard.
pub(super) fn must_lead(policy: &RefreshPolicy, record: &TokenRecord) -> Duration {
    policy.must_lead(whole_life(policy, record))
}

/// How long to wait after the `unchanged`-th answer in a row (the first is 1) that brought the same
/// value although a new one is due: a fifth of what is left of its life, a minute at most.
pub(super) fn poll_wait(policy: &RefreshPolicy, left: Duration, unchanged: u32) -> Duration {
    let longest = (left / POLL_PART).min(LONGEST_POLL);
    let wait = match policy.rotation {
        Rotation::Nominal => longest,
        // The clocks differ a little, or the window is shorter than was said.
        _ => SHORTEST_POLL.saturating_mul(1 << unchanged.min(6)).min(longest),
    };
    wait.max(SHORTEST_POLL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Secret;

    const START: u64 = 1_800_000_000;

    fn at(seconds: u64) -> Now {
        Now {
            wall: UNIX_EPOCH + Duration::from_secs(START + seconds),
            mono: Duration::from_secs(seconds),
        }
    }

    fn policy(rotation: Rotation) -> RefreshPolicy {
        RefreshPolicy { rotation, ..RefreshPolicy::default() }
    }

    /// The end of a value that was first fetched at 0 and is answered again at `second`, with this
    /// lifetime each time; in seconds.
    fn end_after(rotation: Rotation, first: u64, second: u64, lifetime: u64) -> u64 {
        let fetch = |record: Option<&TokenRecord>, at_second: u64, lifetime: u64| {
            let fetched = Fetched {
                value: Secret::new("same"),
                expires_in: Duration::from_secs(lifetime),
                captured: None,
                upstream_time: None,
            };
            let generation = record.map(|record| record.generation);
            let before = Before { record, left: None, generation, unsettled: None };
            let identity = SourceIdentity([0; 32]);
            record_of(&policy(rotation), identity, &before, fetched, at(at_second), at(at_second)).0
        };
        let one = fetch(None, 0, first);
        let two = fetch(Some(&one), second, lifetime);
        assert_eq!((two.first_seen, two.generation), (one.first_seen, one.generation));
        two.expires_at.duration_since(at(0).wall).unwrap().as_secs()
    }

    #[test]
    fn an_unchanged_value_ends_as_its_kind_says() {
        let sticky = Rotation::Sticky { window: Duration::from_secs(300) };
        for (rotation, second, lifetime, expected) in [
            // The answer states what is left: the end stays.
            (sticky, 3_600, 3_600, 7_200),
            // The answer states the whole life again: counted from first sight …
            (Rotation::Nominal, 3_600, 7_200, 7_200),
            // … and confirmed for five minutes where that ends before.
            (Rotation::Nominal, 7_100, 7_200, 7_400),
            (Rotation::Nominal, 9_000, 7_200, 9_300),
            // Each answer lengthens the life.
            (Rotation::Sliding, 3_600, 7_200, 10_800),
        ] {
            assert_eq!(end_after(rotation, 7_200, second, lifetime), expected, "{rotation:?}");
        }
    }

    fn kept(fetched_at: i64, lifetime: u64) -> TokenRecord {
        let base = at(0).wall;
        let fetched_at = if fetched_at < 0 {
            base - Duration::from_secs(fetched_at.unsigned_abs())
        } else {
            base + Duration::from_secs(fetched_at.unsigned_abs())
        };
        TokenRecord {
            value: Secret::new("kept"),
            fetched_at,
            expires_at: fetched_at + Duration::from_secs(lifetime),
            generation: Generation(1),
            first_seen: fetched_at,
            identity: SourceIdentity([0; 32]),
            captured: None,
        }
    }

    #[test]
    fn a_kept_record_is_served_while_the_clock_makes_sense_of_it() {
        for (fetched_at, left) in [
            (-1_000, Some(6_200)),
            (-7_200, None),
            (0, Some(7_200)),
            (30, Some(7_200)), // set back a little: not longer than it ever was
            (86_400, None),    // set back a day: nothing is known
        ] {
            let record = kept(fetched_at, 7_200);
            let got = left_of_kept(&record, at(0));
            assert_eq!(got, left.map(Duration::from_secs), "fetched at {fetched_at}");
        }
    }

    #[test]
    fn renewals_are_spread_but_never_early() {
        let mut leads = Vec::new();
        for account in 0..200 {
            let record = TokenRecord { identity: SourceIdentity([account; 32]), ..kept(0, 7_200) };
            let left = Duration::from_secs(7_200);
            let lead = || published(&policy(Rotation::Rotating), record.clone(), left, at(0)).lead;
            leads.push(lead());
            // The same after a restart.
            assert_eq!(lead(), *leads.last().unwrap());
        }
        let (least, most) = (leads.iter().min().unwrap(), leads.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(450) && *most <= Duration::from_secs(600));
        assert!(*most - *least > Duration::from_secs(120));
    }

    #[test]
    fn a_value_that_does_not_change_is_asked_about_five_times_in_what_is_left() {
        let sticky = policy(Rotation::Sticky { window: Duration::from_secs(300) });
        let nominal = policy(Rotation::Nominal);
        let wait = |policy, left, n| poll_wait(policy, Duration::from_secs(left), n).as_secs();
        // A minute at most, a second at least.
        assert_eq!([600, 300, 100, 5, 0].map(|left| wait(&nominal, left, 1)), [60, 60, 20, 1, 1]);
        assert_eq!([1, 2, 3, 6, 7, 40].map(|n| wait(&sticky, 300, n)), [2, 4, 8, 60, 60, 60]);
    }

    #[test]
    fn a_confirmed_life_is_asked_about_at_once_whenever_it_was_first_seen() {
        // Also where that seems to be in the future, since the clock was set back.
        for first_seen in [0, 1_000_000] {
            let record = TokenRecord { first_seen: at(first_seen).wall, ..kept(9_000, 300) };
            let left = Duration::from_secs(300);
            let lead = published(&policy(Rotation::Nominal), record, left, at(9_000)).lead;
            assert_eq!(lead, left);
        }
    }
}
