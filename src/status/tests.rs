//! What is told of a source in each of its states, and what it takes to be ready.

use std::net::IpAddr;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::*;
use crate::account::Calls;
use crate::clock::Clock;
use crate::config::{self, Environment};
use crate::snapshot::{Publisher, Remedy, Trouble, snapshot};
use crate::token::{Secret, SourceIdentity, TokenRecord};

/// A clock that stands still.
#[derive(Debug)]
struct Still(Now);

impl Clock for Still {
    fn now(&self) -> Now {
        self.0
    }
}

fn at(seconds: u64) -> Now {
    Now {
        wall: UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds),
        mono: Duration::from_secs(1_000 + seconds),
    }
}

fn published(life: u64, generation: u64) -> Arc<Published> {
    Arc::new(Published {
        record: TokenRecord {
            value: Secret::new("VALUE"),
            fetched_at: at(0).wall,
            expires_at: at(life).wall,
            generation: Generation(generation),
            first_seen: at(0).wall,
            identity: SourceIdentity([0; 32]),
            captured: None,
        },
        ends_mono: at(life).mono,
        lead: Duration::from_secs(600),
        overlap: Some(Duration::from_secs(300)),
        in_doubt_since: None,
    })
}

fn trouble() -> Trouble {
    Trouble {
        at: at(1).wall,
        what: "no".into(),
        what_zh: "否".into(),
        class: "transient",
        code: None,
        remedy: Remedy { en: "wait".into(), zh: "等待".into() },
        is_failure: true,
    }
}

/// Two sources, of which only the first belongs to an account.
struct World {
    status: Status,
    access: Arc<Access>,
    publishers: Vec<Publisher>,
}

fn world() -> World {
    let text = r#"(token_sources: {
        "a": (url: "https://h/cgi-bin/token", args: {"appid": "wx0", "secret": "s3cr3t"}, daily_limit: 10),
        "b": (url: "https://h/x"),
    })"#;
    let config = config::parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
    let sources: Vec<Arc<TokenSource>> = config.sources.into_iter().map(Arc::new).collect();
    let (publishers, reader) = snapshot(sources.iter().map(|source| source.name.clone()));
    let day = (at(0).unix_seconds() + 8 * 3_600) / 86_400;
    let calls = Calls { day, made: 7, ..Calls::default() };
    let shared = Shared::new([(sources[0].account.clone(), calls)], []);
    let catalogue = Catalogue::default();
    catalogue.set(sources);
    let clock: SharedClock = Arc::new(Still(at(0)));
    let access = Arc::new(Access::new(Secret::new("k"), None, Vec::new(), Arc::clone(&clock)));
    let status =
        Status::new(reader, catalogue, shared, Arc::clone(&access), Deliveries::default(), clock);
    World { status, access, publishers }
}

#[test]
fn a_source_is_in_one_of_four_states() {
    let World { status, publishers, .. } = world();
    let state = |seconds| status.source("a", at(seconds)).unwrap().state;
    assert_eq!(state(0), State::Absent);
    publishers[0].note_failure(trouble());
    assert_eq!(state(0), State::Absent, "what there is goes before how it came");
    publishers[0].publish(published(7_200, 1));
    assert_eq!(state(0), State::Failing);
    publishers[0].note_success(at(2).wall);
    assert_eq!((state(0), state(7_199), state(7_200)), (State::Live, State::Live, State::Expired));
    publishers[0].note_failure(trouble());
    assert_eq!(state(7_200), State::Expired);
    assert!(status.source("c", at(0)).is_none());
}

#[test]
fn a_source_is_told_with_its_token_its_renewals_and_its_calls() {
    let World { status, publishers, .. } = world();
    publishers[0].publish(published(7_200, 5));
    publishers[0].note_success(at(0).wall);
    publishers[0].note_next_renewal(Some(at(6_600).wall));
    publishers[0].note_on_disk(false);
    let told: Vec<SourceStatus> = status.survey().all(at(100)).collect();
    assert_eq!(told.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let token = told[0].token.unwrap();
    assert_eq!(token.generation, Generation(5));
    assert_eq!(token.life_left, Duration::from_secs(7_100));
    assert_eq!(token.promised, Duration::from_secs(7_100 - 600 + 300));
    let calls = told[0].calls.as_ref().unwrap();
    assert_eq!((&*calls.account.name, calls.made, calls.limit), ("wx0", 7, Some(10)));
    let condition = &told[0].condition;
    assert_eq!(condition.next_renewal, Some(at(6_600).unix_seconds()));
    assert_eq!((condition.renewed, condition.is_on_disk), (1, false));
    assert!(told[1].token.is_none() && told[1].calls.is_none());
    assert_eq!(status.history("a", at(100)).len(), 1);
    assert!(status.history("nobody", at(100)).is_empty());
    // Nothing that is told holds a value, or what a request is made of.
    let text = format!("{told:?}{status:?}");
    assert!(!text.contains("VALUE") && !text.contains("s3cr3t"), "{text}");
}

#[test]
fn those_who_read_most_come_first() {
    let World { status, access, .. } = world();
    let here = IpAddr::from([10, 0, 0, 1]);
    let user = access.with_key(Some(b"k"), here).unwrap();
    access.audit().read(user, "a", here, Via::Resp);
    for _ in 0..2 {
        access.audit().read(user, "a", here, Via::Http);
    }
    let readers = status.readers(at(0));
    let of_a = &readers[&Some(SourceName::parse("a").unwrap())];
    let told: Vec<_> = of_a.iter().map(|who| (&*who.client, who.via, who.reads.recent)).collect();
    assert_eq!(told, [("default", Via::Http, 2), ("default", Via::Resp, 1)]);
    assert_eq!(readers.len(), 1);
}

#[test]
fn a_server_is_ready_when_every_token_that_is_needed_lives_long_enough() {
    let World { status, publishers, .. } = world();
    let [a, b] = ["a", "b"].map(|name| SourceName::parse(name).unwrap());
    let now = at(0);
    assert_eq!(status.not_ready(None, Duration::ZERO, now), [a.clone(), b.clone()]);
    publishers[0].publish(published(1_000, 1));
    assert_eq!(status.not_ready(None, Duration::ZERO, now), [b]);
    let only_a = std::slice::from_ref(&a);
    // Promised for 1000 - 600 + 300 s.
    for (life, ready) in [(0, true), (699, true), (700, false)] {
        let not_ready = status.not_ready(Some(only_a), Duration::from_secs(life), now);
        assert_eq!(not_ready.is_empty(), ready, "{life}");
    }
}
