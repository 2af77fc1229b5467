//! What is promised, and who is told of what.

use futures_util::FutureExt;

use super::feed::{HAPPENINGS_KEPT, NEWS_KEPT};
use super::*;
use crate::token::{Secret, SourceIdentity};

const START: u64 = 1_000_000;

fn at(seconds: u64) -> Now {
    Now {
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(START + seconds),
        mono: Duration::from_secs(seconds),
    }
}

fn published(lifetime: u64, lead: u64, overlap: Option<u64>) -> Published {
    Published {
        record: TokenRecord {
            value: Secret::new("v"),
            fetched_at: at(0).wall,
            expires_at: at(lifetime).wall,
            generation: Generation(7),
            first_seen: at(0).wall,
            identity: SourceIdentity([0; 32]),
            captured: None,
        },
        ends_mono: at(lifetime).mono,
        lead: Duration::from_secs(lead),
        overlap: overlap.map(Duration::from_secs),
        in_doubt_since: None,
    }
}

#[test]
fn the_promise_ends_with_the_overlap_after_the_renewal() {
    let rotating = published(7_200, 600, Some(300));
    let independent = published(7_200, 600, None);
    // (now, promised by a rotating source, by an independent one)
    for (now, rotating_promise, independent_promise) in [
        (0, Some(6_900), Some(7_200)),
        (6_000, Some(900), Some(1_200)),
        (6_600, Some(300), Some(600)), // due
        (6_800, Some(300), Some(400)), // overdue: any moment now, then `overlap` more
        (7_000, Some(200), Some(200)), // the true end comes first
        (7_200, None, None),
    ] {
        let seconds = |promise: Option<Duration>| promise.map(|p| p.as_secs());
        assert_eq!(seconds(rotating.promised_life(at(now))), rotating_promise, "at {now}");
        assert_eq!(seconds(independent.promised_life(at(now))), independent_promise, "at {now}");
    }
}

#[test]
fn a_request_whose_answer_is_unknown_starts_the_overlap() {
    let mut doubtful = published(7_200, 600, Some(300));
    doubtful.in_doubt_since = Some(at(6_600));
    for (now, promise) in [(6_600, 300), (6_700, 200), (6_900, 0), (7_100, 0)] {
        assert_eq!(doubtful.promised_life(at(now)), Some(Duration::from_secs(promise)));
    }
}

#[test]
fn neither_a_suspend_nor_a_clock_step_serves_a_dead_token() {
    let name = SourceName::parse("t").unwrap();
    let (publishers, reader) = snapshot([name]);
    publishers[0].publish(Arc::new(published(100, 10, None)));
    assert!(reader.live("t", at(99)).is_some());
    let suspended = Now { wall: at(200).wall, mono: at(50).mono };
    assert!(reader.live("t", suspended).is_none());
    let stepped_back = Now { wall: at(0).wall - Duration::from_secs(3_600), mono: at(101).mono };
    assert!(reader.live("t", stepped_back).is_none());
}

#[tokio::test]
async fn readers_are_told_of_new_values_only() {
    let (publishers, reader) = snapshot([SourceName::parse("t").unwrap()]);
    let mut changes = reader.changes("t").unwrap();
    assert!(reader.live("t", at(0)).is_none() && reader.source("t").is_some());
    let first = published(100, 10, None);
    publishers[0].publish(Arc::new(first.clone()));
    assert!(changes.changed().now_or_never().is_some());
    publishers[0].publish(Arc::new(Published { in_doubt_since: Some(at(1)), ..first.clone() }));
    assert!(changes.changed().now_or_never().is_none());
    assert!(reader.changes("u").is_none());
    // Who waits is woken.
    let waiting = tokio::spawn(async move { changes.changed().await });
    tokio::task::yield_now().await;
    let mut second = first;
    second.record.generation = Generation(8);
    publishers[0].publish(Arc::new(second));
    waiting.await.unwrap();
}

#[tokio::test]
async fn listeners_are_told_of_everything_and_of_what_they_missed() {
    let name = SourceName::parse("t").unwrap();
    let (publishers, reader) = snapshot([name.clone()]);
    let mut news = reader.news();
    assert!(news.next().now_or_never().is_none());
    publishers[0].publish(Arc::new(published(100, 10, None)));
    assert_eq!(news.next().await, News::Published(name.clone()));
    for _ in 0..=NEWS_KEPT {
        publishers[0].publish(Arc::new(published(100, 10, None)));
    }
    assert_eq!(news.next().await, News::Everything);
    assert_eq!(news.next().await, News::Published(name));
}

#[test]
fn trouble_is_known_until_a_refresh_comes_off() {
    let (publishers, reader) = snapshot([SourceName::parse("t").unwrap()]);
    assert_eq!(reader.trouble("t"), None);
    let trouble = trouble("transient");
    publishers[0].note_failure(trouble.clone());
    assert_eq!(reader.trouble("t").as_deref(), Some(&trouble));
    publishers[0].note_success(at(1).wall);
    assert_eq!(reader.trouble("t"), None);
    let condition = reader.slot("t").unwrap().condition();
    assert_eq!(condition.trouble.as_deref(), Some(&trouble), "which it was is still known");
}

fn trouble(class: &'static str) -> Trouble {
    let (what, what_zh) = ("no".into(), "否".into());
    let remedy = Remedy { en: "wait".into(), zh: "等待".into() };
    Trouble { at: at(0).wall, what, what_zh, class, code: None, remedy, is_failure: true }
}

#[tokio::test]
async fn onlookers_are_told_once_of_each_change() {
    let source = SourceName::parse("t").unwrap();
    let (publishers, reader) = snapshot([source.clone()]);
    let (mut happenings, publisher) = (reader.happenings(), &publishers[0]);
    let rotated = |generation| Happening::Rotated { source: source.clone(), generation };
    let life = |generation| Published {
        record: TokenRecord { generation, ..published(100, 10, None).record },
        ..published(100, 10, None)
    };
    // More life of the same value is no rotation, and a failure once more is no news.
    for generation in [1, 1, 2].map(Generation) {
        publisher.publish(Arc::new(life(generation)));
    }
    let (one, other) = (trouble("transient"), trouble("unknown"));
    for trouble in [&one, &one, &other] {
        publisher.note_failure(trouble.clone());
    }
    publisher.note_success(at(1).wall);
    publisher.note_success(at(2).wall);
    let failing =
        |trouble| Happening::Failing { source: source.clone(), trouble: Arc::new(trouble) };
    for expected in [
        rotated(Generation(1)),
        rotated(Generation(2)),
        failing(one),
        failing(other),
        Happening::Recovered { source: source.clone() },
    ] {
        assert_eq!(happenings.next().await, expected);
    }
    assert!(happenings.next().now_or_never().is_none());
    for generation in 3..=4 + HAPPENINGS_KEPT as u64 {
        publisher.publish(Arc::new(life(Generation(generation))));
    }
    assert_eq!(happenings.next().await, Happening::Everything, "it was too slow");
}

#[tokio::test]
async fn a_slot_that_is_carried_over_keeps_its_token_and_its_watchers() {
    let mut roster = Roster::default();
    let slot = |roster: &Roster, name| roster.slot(SourceName::parse(name).unwrap());
    let (kept, left) = (slot(&roster, "kept"), slot(&roster, "left"));
    let (keeper, leaver) = (kept.publisher(), left.publisher());
    let reader = roster.reader();
    roster.serve([left, kept.clone()]);
    leaver.publish(Arc::new(published(100, 10, None)));
    let mut changes = reader.changes("kept").unwrap();
    let (before, mut news) = (reader.view(), reader.news());

    let added = slot(&roster, "added");
    roster.serve([kept, added]);
    assert_eq!(
        reader.view().sources().map(SourceName::as_str).collect::<Vec<_>>(),
        ["kept", "added"]
    );
    assert!(reader.live("left", at(0)).is_none() && reader.source("left").is_none());
    assert!(reader.changes("left").is_none());
    assert_eq!(before.all_live(at(0)).count(), 1, "a view is of its moment");
    assert_eq!(news.next().await, News::Everything);
    keeper.publish(Arc::new(published(100, 10, None)));
    assert!(changes.changed().now_or_never().is_some());
    assert!(reader.live("kept", at(0)).is_some());
}
