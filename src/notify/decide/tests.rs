//! What is told, as tables: what happens at which second, and the messages that come of it.

use std::time::UNIX_EPOCH;

use super::*;
use crate::config::{Language, WebhookKind};
use crate::token::{Generation, Secret};

const HOUR: u64 = 3_600;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn now(seconds: u64) -> Now {
    Now { wall: at(seconds), mono: Duration::from_secs(seconds) }
}

fn name(name: &str) -> SourceName {
    SourceName::parse(name).unwrap()
}

fn webhook(topics: &[Topic]) -> WebhookConfig {
    WebhookConfig {
        name: "ops".into(),
        url: Secret::new("https://h/"),
        kind: WebhookKind::Json,
        secret: None,
        topics: topics.to_vec(),
        quiet: Duration::from_secs(6 * HOUR),
        gather: Duration::from_secs(10),
        language: Language::English,
        server_name: None,
    }
}

fn trouble(seconds: u64, class: FailureClass, code: Option<&str>) -> Arc<Trouble> {
    Arc::new(Trouble {
        at: at(seconds),
        what: "no".into(),
        what_zh: "否".into(),
        class: class.as_str(),
        code: code.map(Into::into),
        remedy: crate::snapshot::Remedy { en: "wait".into(), zh: "等待".into() },
        is_failure: true,
    })
}

/// What happens. Every source is `a` unless it says otherwise.
#[derive(Clone, Copy)]
enum Happens {
    Fails(FailureClass),
    FailsWith(&'static str),
    OtherFails(&'static str),
    Recovers,
    Foreign,
    Calls(u32),
}
use Happens::{Calls, Fails, FailsWith, Foreign, OtherFails, Recovers};

const NET: FailureClass = FailureClass::Transient;
const WRONG: FailureClass = FailureClass::Misconfigured;

/// Plays it for a day; each message as (second, what it tells). Tokens end at `token_ends`.
fn play(topics: &[Topic], token_ends: u64, script: &[(u64, Happens)]) -> Vec<(u64, String)> {
    let mut decider = Decider::new(&webhook(topics));
    let mut told = Vec::new();
    let life = |second: u64| {
        (second < token_ends)
            .then(|| Life { until: at(token_ends), ends: Duration::from_secs(token_ends) })
    };
    for second in 0..24 * HOUR {
        for (_, what) in script.iter().filter(|(when, _)| *when == second) {
            let failing =
                |source: &str, trouble| Happening::Failing { source: name(source), trouble };
            let happening = match *what {
                Fails(class) => failing("a", trouble(second, class, None)),
                FailsWith(code) => failing("a", trouble(second, WRONG, Some(code))),
                OtherFails(source) => failing(source, trouble(second, NET, None)),
                Recovers => Happening::Recovered { source: name("a") },
                Foreign => Happening::Foreign { source: name("a"), generation: Generation(1) },
                Calls(percent) => Happening::CallsUsed(Arc::new(CallsUsed {
                    account: Account { name: "wx0".into(), endpoint: "/e".into() },
                    made: percent,
                    limit: 100,
                    percent,
                })),
            };
            decider.hear(now(second), &happening);
        }
        if let Some((items, left_out)) = decider.take(now(second), &|_| life(second)) {
            let mut words: Vec<String> = items.iter().map(|item| words(item, second)).collect();
            words.extend((left_out > 0).then(|| format!("+{left_out}")));
            told.push((second, words.join(" ")));
        }
    }
    told
}

/// An item in a word: `a!` has no token, `a?40001` fails with a code.
fn words(item: &Item, second: u64) -> String {
    match item {
        Item::Failing { source, since, trouble, until } => {
            let since = since.duration_since(at(0)).unwrap().as_secs();
            assert!(since <= second);
            let dead = if until.is_none() { "!" } else { "" };
            let code = trouble.code.as_deref().map_or_else(String::new, |code| format!("?{code}"));
            format!("{source}{dead}{code}@{since}")
        }
        Item::Recovered { source, since, at: end, .. } => {
            let seconds = |time: &SystemTime| time.duration_since(at(0)).unwrap().as_secs();
            format!("{source}-ok@{}-{}", seconds(since), seconds(end))
        }
        Item::Quota(used) => format!("{}%", used.percent),
        Item::Foreign { source, times, .. } => format!("{source}x{times}"),
        Item::Test => "test".into(),
    }
}

/// (what is meant, what is asked for, when the token ends, what happens, what is told).
type Row = (
    &'static str,
    &'static [Topic],
    u64,
    &'static [(u64, Happens)],
    &'static [(u64, &'static str)],
);

#[test]
fn what_is_told_and_when() {
    const LIVE: u64 = 24 * HOUR;
    const ALL: &[Topic] = &Topic::ALL;
    let table: &[Row] = &[
        (
            "a failure is told once, and its end",
            ALL,
            LIVE,
            &[(100, Fails(NET)), (500, Recovers)],
            &[(110, "a@100"), (510, "a-ok@100-500")],
        ),
        ("a blip is not told", ALL, LIVE, &[(100, Fails(NET)), (105, Recovers)], &[]),
        (
            "the end of what was not told is not told",
            ALL,
            LIVE,
            &[(100, Fails(NET)), (109, Recovers), (200, Recovers)],
            &[],
        ),
        (
            "a failure that lasts is told again when it has been quiet",
            ALL,
            LIVE,
            &[(0, Fails(NET))],
            &[
                (10, "a@0"),
                (10 + 6 * HOUR, "a@0"),
                (10 + 12 * HOUR, "a@0"),
                (10 + 18 * HOUR, "a@0"),
            ],
        ),
        (
            "another reason is told, the first one again is not",
            ALL,
            LIVE,
            &[(0, Fails(NET)), (100, FailsWith("40125")), (200, Fails(NET)), (300, Recovers)],
            &[(10, "a@0"), (110, "a?40125@0"), (310, "a-ok@0-300")],
        ),
        (
            "what comes and goes is told once in the quiet hours",
            ALL,
            LIVE,
            &[
                (0, Fails(NET)),
                (100, Recovers),
                (200, Fails(NET)),
                (300, Recovers),
                (400, Fails(NET)),
                (500, Recovers),
            ],
            &[(10, "a@0"), (110, "a-ok@0-100")],
        ),
        (
            "what is there again, and lasts, is told when it has been quiet",
            ALL,
            LIVE,
            &[(0, Fails(NET)), (100, Recovers), (200, Fails(NET)), (7 * HOUR, Recovers)],
            &[
                (10, "a@0"),
                (110, "a-ok@0-100"),
                (10 + 6 * HOUR, "a@200"),
                (10 + 7 * HOUR, "a-ok@200-25200"),
            ],
        ),
        (
            "over for a moment is not over",
            ALL,
            LIVE,
            &[(0, Fails(NET)), (100, Recovers), (105, Fails(NET)), (200, Recovers)],
            &[(10, "a@0"), (210, "a-ok@0-200")],
        ),
        (
            "the end of the token is told at that very moment",
            ALL,
            1_000,
            &[(100, Fails(NET)), (2_000, Recovers)],
            &[(110, "a@100"), (1_000, "a!@100"), (2_010, "a-ok@100-2000")],
        ),
        (
            "an outage is told in the quiet hours too",
            ALL,
            1_000,
            &[(0, Fails(NET)), (100, Recovers), (200, Fails(NET))],
            &[
                (10, "a@0"),
                (110, "a-ok@0-100"),
                (1_000, "a!@200"),
                (1_000 + 6 * HOUR, "a!@200"),
                (1_000 + 12 * HOUR, "a!@200"),
                (1_000 + 18 * HOUR, "a!@200"),
            ],
        ),
        (
            "many at once are one message",
            ALL,
            LIVE,
            &[
                (0, OtherFails("b")),
                (3, Fails(NET)),
                (9, OtherFails("c")),
                (9, Calls(80)),
                (10, Recovers),
            ],
            &[
                (10, "b@0 c@9 80%"),
                (10 + 6 * HOUR, "b@0 c@9"),
                (10 + 12 * HOUR, "b@0 c@9"),
                (10 + 18 * HOUR, "b@0 c@9"),
            ],
        ),
        (
            "who waits for another's token is not told",
            ALL,
            LIVE,
            &[(0, Fails(FailureClass::DependencyAbsent)), (100, Recovers)],
            &[],
        ),
        (
            "foreign fetches are counted while it is quiet",
            ALL,
            LIVE,
            &[(0, Foreign), (100, Foreign), (200, Foreign)],
            &[(10, "ax1"), (10 + 6 * HOUR, "ax2")],
        ),
        (
            "each part of a day's calls is told",
            ALL,
            LIVE,
            &[
                (0, Calls(50)),
                (100, Calls(80)),
                (200, Calls(80)),
                (300, Calls(100)),
                (8 * HOUR, Calls(80)),
            ],
            &[(110, "80%"), (310, "100%"), (10 + 8 * HOUR, "80%")],
        ),
        (
            "only what was asked for is told",
            &[Topic::Failing],
            LIVE,
            &[(0, Fails(NET)), (50, Foreign), (60, Calls(80)), (100, Recovers)],
            &[(10, "a@0")],
        ),
        (
            "who asked for quotas hears that one is spent, and of no other failure",
            &[Topic::Quota, Topic::Recovered],
            LIVE,
            &[(0, Fails(NET)), (100, Fails(FailureClass::QuotaSpent)), (200, Recovers)],
            &[(110, "a@100"), (210, "a-ok@100-200")],
        ),
    ];
    for (what, topics, token_ends, script, expected) in table {
        let expected: Vec<(u64, String)> =
            expected.iter().map(|(second, words)| (*second, (*words).to_owned())).collect();
        assert_eq!(play(topics, *token_ends, script), expected, "{what}");
    }
}

#[test]
fn a_source_that_fails_for_ever_other_reasons_is_not_told_for_ever() {
    let codes: Vec<&'static str> = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"].into();
    let script: Vec<(u64, Happens)> =
        (0..).zip(&codes).map(|(n, code)| (n * 20, FailsWith(code))).collect();
    let told = play(&Topic::ALL, 24 * HOUR, &script);
    assert_eq!(told.iter().filter(|(second, _)| *second < 5 * HOUR).count(), MOST_REASONS);
}

#[test]
fn ten_thousand_failures_are_one_bounded_message() {
    let mut decider = Decider::new(&webhook(&Topic::ALL));
    for n in 0..10_000 {
        let trouble = trouble(0, NET, None);
        decider.hear(now(0), &Happening::Failing { source: name(&format!("s{n}")), trouble });
    }
    let (items, left_out) = decider.take(now(10), &|_| None).unwrap();
    assert_eq!((items.len(), left_out), (MOST_ITEMS, 10_000 - MOST_ITEMS));
    assert_eq!(decider.take(now(11), &|_| None), None);
    // What is over is forgotten when it has been quiet.
    for n in 0..10_000 {
        decider.hear(now(20), &Happening::Recovered { source: name(&format!("s{n}")) });
    }
    assert!(decider.take(now(30), &|_| None).is_some());
    decider
        .hear(now(7 * HOUR), &Happening::Foreign { source: name("s0"), generation: Generation(1) });
    assert!(decider.take(now(8 * HOUR), &|_| None).is_some());
    assert_eq!(decider.episodes.len(), 0);
}

#[test]
fn who_has_missed_something_catches_up() {
    let mut decider = Decider::new(&webhook(&Topic::ALL));
    let fails = |since| Standing::Failing { since: at(since), trouble: trouble(since, NET, None) };
    let live = |_: &SourceName| Some(Life { until: at(9_000), ends: Duration::from_secs(9_000) });
    let take = |decider: &mut Decider, second| {
        let taken = decider.take(now(second), &live);
        taken.map(|(items, _)| items.iter().map(|item| words(item, second)).collect::<Vec<_>>())
    };
    let standings = [("a", fails(5)), ("b", fails(6)), ("c", fails(7)), ("d", Standing::Well)];
    decider.catch_up(now(50), standings.map(|(source, standing)| (name(source), standing)));
    assert_eq!(take(&mut decider, 60).unwrap(), ["a@5", "b@6", "c@7"]);
    // `a` has recovered, `b` was replaced by a reload, `c` removed by it; `d` is as it was.
    let standings = [("a", Standing::Well), ("b", Standing::Untried), ("d", Standing::Well)];
    decider.catch_up(now(100), standings.map(|(source, standing)| (name(source), standing)));
    assert_eq!(take(&mut decider, 110).unwrap(), ["a-ok@5-100"]);
    // It is another source by now.
    decider.catch_up(now(200), [(name("b"), fails(190))]);
    assert_eq!(take(&mut decider, 210).unwrap(), ["b@190"]);
}

#[test]
fn a_recovery_is_told_when_its_token_is_there() {
    let mut decider =
        Decider::new(&WebhookConfig { gather: Duration::ZERO, ..webhook(&Topic::ALL) });
    let trouble = trouble(0, NET, None);
    decider.hear(now(0), &Happening::Failing { source: name("a"), trouble });
    assert!(decider.take(now(0), &|_| None).is_some());
    decider.hear(now(10), &Happening::Recovered { source: name("a") });
    // Something else meanwhile does not take it along.
    decider.hear(now(11), &Happening::Foreign { source: name("b"), generation: Generation(1) });
    let (items, _) = decider.take(now(11), &|_| None).unwrap();
    assert_eq!((words(&items[0], 11), items.len()), ("bx1".into(), 1));
    assert_eq!(decider.wake(), Some(Duration::from_secs(12)));
    let (items, _) = decider.take(now(12), &|_| None).unwrap();
    assert_eq!(words(&items[0], 12), "a-ok@0-10");
}
