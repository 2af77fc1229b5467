//! What a fetched or kept value means: its record, its life, when it is due. Pure.

use std::time::{Duration, SystemTime};

use crate::clock::Now;
use crate::config::{RefreshPolicy, Rotation};
use crate::snapshot::Published;
use crate::source::Fetched;
use crate::token::{Generation, SourceIdentity, TokenRecord};

/// By how much a kept record may seem to come from the future. More says that the clock is wrong,
/// and then nothing is known of the record's age.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(60);

/// A nominal life is confirmed for a twenty-fourth of the lifetime at a time, 5 minutes at most, and
/// asked about every 120th of it, a minute at most: 5 minutes and a minute of WeChat's two hours.
const CONFIRMED_PART: u32 = 24;
const LONGEST_CONFIRMED: Duration = Duration::from_secs(300);
const POLL_PART: u32 = 120;
const LONGEST_POLL: Duration = Duration::from_secs(60);

/// The shortest wait after an answer that brought the value that was there already.
const SHORTEST_POLL: Duration = Duration::from_secs(1);

/// The part of its lead by which a renewal is put off at random, so that many accounts that were
/// fetched together are not renewed together.
const SPREAD: f64 = 0.25;

/// What comes before a fetched value.
pub(super) struct Before<'a> {
    /// The record that is there, live or not.
    pub(super) record: Option<&'a TokenRecord>,
    /// The newest generation that is known.
    pub(super) generation: Option<Generation>,
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
    let expires_at = match (policy.rotation, same) {
        (Rotation::Nominal, Some(record)) => {
            let confirmed = (fetched.expires_in / CONFIRMED_PART).min(LONGEST_CONFIRMED);
            let counted = record.first_seen + fetched.expires_in;
            counted.max(sent.wall + confirmed).min(stated)
        }
        _ => stated,
    };
    let record = TokenRecord {
        first_seen: same.map_or(sent.wall, |record| record.first_seen),
        value: fetched.value,
        fetched_at: sent.wall,
        expires_at,
        generation,
        identity,
    };
    (record, same.is_none())
}

/// The record as it is published: `left` of its life is left at `now`.
pub(super) fn published(
    policy: &RefreshPolicy,
    record: TokenRecord,
    left: Duration,
    now: Now,
    jitter: &mut fastrand::Rng,
) -> Published {
    let lead = policy.lead(whole_life(policy, &record));
    Published {
        ends_mono: now.mono + left,
        lead: lead.mul_f64(1.0 - SPREAD * jitter.f64()),
        overlap: policy.promised_overlap(),
        in_doubt_since: None,
        record,
    }
}

/// Since when a kept record is in doubt, on both clocks: a request that may have replaced it was sent
/// then, and the process before this one did not live to see the answer.
pub(super) fn doubt_of_kept(
    policy: &RefreshPolicy,
    record: &TokenRecord,
    unsettled_since: Option<SystemTime>,
    now: Now,
) -> Option<Now> {
    policy.promised_overlap()?;
    // An outcome that is known by the record itself is none.
    let since = unsettled_since.filter(|since| *since > record.fetched_at)?;
    let ago = now.wall.duration_since(since).unwrap_or(Duration::ZERO);
    Some(Now { wall: since.min(now.wall), mono: now.mono.saturating_sub(ago) })
}

/// What is left of a kept record's life, if it may be served: it is this source's, it has not
/// ended, and the clock makes sense of it.
pub(super) fn left_of_kept(
    record: &TokenRecord,
    identity: SourceIdentity,
    now: Now,
) -> Option<Duration> {
    let from_the_future = record.fetched_at > now.wall + FUTURE_TOLERANCE;
    if record.identity != identity || from_the_future {
        return None;
    }
    // A clock that was set back a little would make the life longer than it ever was.
    record.ttl(now.wall).map(|left| left.min(record.lifetime()))
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
/// value although a new one is due.
pub(super) fn poll_wait(policy: &RefreshPolicy, record: &TokenRecord, unchanged: u32) -> Duration {
    let life = whole_life(policy, record);
    let longest = (life / POLL_PART).min(LONGEST_POLL);
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
    use std::time::UNIX_EPOCH;

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
            let before = Before { record, generation: record.map(|record| record.generation) };
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
            let got = left_of_kept(&record, SourceIdentity([0; 32]), at(0));
            assert_eq!(got, left.map(Duration::from_secs), "fetched at {fetched_at}");
        }
        assert_eq!(left_of_kept(&kept(0, 7_200), SourceIdentity([1; 32]), at(0)), None);
    }

    #[test]
    fn renewals_are_spread_but_never_early() {
        let mut leads = Vec::new();
        for seed in 0..200 {
            let mut jitter = fastrand::Rng::with_seed(seed);
            let record = kept(0, 7_200);
            let left = Duration::from_secs(7_200);
            leads.push(
                published(&policy(Rotation::Rotating), record, left, at(0), &mut jitter).lead,
            );
        }
        let (least, most) = (leads.iter().min().unwrap(), leads.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(450) && *most <= Duration::from_secs(600));
        assert!(*most - *least > Duration::from_secs(120));
    }

    #[test]
    fn a_value_that_does_not_change_is_asked_about_every_minute_at_most() {
        let record = kept(0, 7_200);
        let sticky = policy(Rotation::Sticky { window: Duration::from_secs(300) });
        let waits = |policy: &RefreshPolicy| {
            [1, 2, 3, 6, 7, 40].map(|n| poll_wait(policy, &record, n).as_secs())
        };
        assert_eq!(waits(&policy(Rotation::Nominal)), [60; 6]);
        assert_eq!(waits(&sticky), [2, 4, 8, 60, 60, 60]);
        // Short lives are asked about more often, but not without end.
        let short = kept(0, 60);
        assert_eq!(poll_wait(&policy(Rotation::Nominal), &short, 1), SHORTEST_POLL);
    }
}
