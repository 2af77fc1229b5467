//! Ours side by side with a real Redis 7.0: the same seeded random requests, transactions and
//! malformed bytes to both, and equal replies wanted.
//!
//! `DIFF_SEEDS`, `DIFF_REQUESTS` (of each seed) and `DIFF_FIRST` change how much is asked, `DIFF_SKIP`
//! leaves out groups of commands (`multi,pubsub`). Odd seeds speak RESP3. A failure names the seed and
//! how to repeat it.
#![allow(clippy::disallowed_methods, reason = "reads its settings from the environment")]

mod attribution;
mod differences;
mod generator;
mod normaliser;
mod servers;
mod templates;
mod wire;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use wechat_token_server::clock::SystemClock;

use self::attribution::attribute;
use self::differences::{DIFFERENCES, known};
use self::generator::{Catalogue, Generator, Request};
use self::normaliser::{Measure, same, same_transaction, sort_channels};
use self::servers::{PASSWORD, Pair};
use self::templates::names;
use self::wire::Reply;

/// Groups of commands that are not served at all, and so unknown. With the table of known differences
/// these are all there are.
const LEFT_OUT: &[&str] = &[
    "dump",    // a token is read, not moved to another Redis
    "publish", // messages are the server's own: nobody can pretend that a token has changed
    "shard",   // channels of a cluster
];

/// Commands that the reference marks as reads and that no template draws, each with the reason.
const NOT_ASKED: &[(&str, &str)] = &[
    ("eval_ro", "scripts are not served"),
    ("evalsha_ro", "scripts are not served"),
    ("fcall_ro", "functions are not served"),
    ("lolwut", "draws a picture"),
];

/// How many failures are shown, alike ones once.
const MOST_SHOWN: usize = 40;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn skipped() -> Vec<String> {
    let asked = std::env::var("DIFF_SKIP").ok();
    let asked = asked.iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty());
    LEFT_OUT.iter().copied().chain(asked).map(str::to_owned).collect()
}

/// Both pairs.
struct Both {
    open: Pair,
    protected: Pair,
    catalogue: Arc<Catalogue>,
    reads: Vec<String>,
}

/// The first request of a script that is answered differently.
#[derive(Debug, Clone)]
struct Mismatch {
    at: usize,
    ours: String,
    theirs: String,
}

impl Both {
    async fn start() -> Both {
        Both::of(false).await
    }

    /// With `twins`, a second Redis takes the place of ours.
    async fn of(twins: bool) -> Both {
        let (open, protected) =
            tokio::join!(Pair::start(None, twins), Pair::start(Some(PASSWORD), twins));
        let (catalogue, reads) = open.catalogue().await;
        Both { open, protected, catalogue: Arc::new(catalogue), reads }
    }

    async fn stop(&mut self) {
        self.open.stop().await;
        self.protected.stop().await;
    }

    /// Says a script to both; `hits` counts the known differences.
    async fn compare(
        &self,
        protected: bool,
        requests: &[Request],
        hits: &mut BTreeMap<usize, usize>,
    ) -> Option<Mismatch> {
        let clock = SystemClock::shared();
        let pair = if protected { &self.protected } else { &self.open };
        let begun = clock.now();
        let (ours, theirs) = pair.ask(requests).await;
        let ended = clock.now();
        let measure = Measure {
            elapsed_ms: i64::try_from(ended.since(begun).as_millis()).unwrap(),
            now: i64::try_from(ended.wall.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap(),
            served: &self.catalogue.served,
        };
        let (ours, theirs) = (Reply::all(&ours), Reply::all(&theirs));
        let our_answers = attribute(requests, &ours);
        let their_answers = attribute(requests, &theirs);
        for (at, request) in requests.iter().enumerate() {
            let (mine, other) = (&our_answers[at], &their_answers[at]);
            let mut mine_replies = ours[mine.replies.clone()].to_vec();
            let mut other_replies = theirs[other.replies.clone()].to_vec();
            sort_channels(request, &mut mine_replies);
            sort_channels(request, &mut other_replies);
            let mut agree = |request: &Request, ours: &Reply, theirs: &Reply| {
                let known = || known(request, ours, theirs);
                same(request, ours, theirs, &measure)
                    || known().is_some_and(|at| {
                        *hits.entry(at).or_default() += 1;
                        true
                    })
            };
            let equal = match &other.transaction[..] {
                [] => {
                    mine_replies.len() == other_replies.len()
                        && mine_replies
                            .iter()
                            .zip(&other_replies)
                            .all(|(ours, theirs)| agree(request, ours, theirs))
                }
                queued => same_transaction(queued, &mine_replies, &other_replies, &mut agree),
            };
            if equal {
                continue;
            }
            let show = |replies: &[Reply]| match replies {
                [] => "(nothing)".to_owned(),
                _ => replies.iter().map(Reply::show).collect::<Vec<_>>().join(" & "),
            };
            return Some(Mismatch { at, ours: show(&mine_replies), theirs: show(&other_replies) });
        }
        None
    }

    /// Takes away what a mismatch does not need.
    async fn shrink(&self, protected: bool, requests: &[Request]) -> Vec<Request> {
        let mut kept = requests.to_vec();
        let mut at = kept.len() - 1;
        while at > 0 {
            at -= 1;
            let mut fewer = kept.clone();
            fewer.remove(at);
            let last = fewer.len() - 1;
            let mismatch = self.compare(protected, &fewer, &mut BTreeMap::new()).await;
            if mismatch.is_some_and(|mismatch| mismatch.at == last) {
                kept = fewer;
            }
        }
        kept
    }
}

fn show(request: &Request) -> String {
    let mut text = request.bytes[..request.bytes.len().min(400)].escape_ascii().to_string();
    if request.bytes.len() > 400 {
        text += &format!("... ({} bytes)", request.bytes.len());
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_answers_as_redis_does() {
    run(Both::start().await, setting("DIFF_SEEDS", 20), &skipped()).await;
}

/// What two Redis answer differently must not be asked, or must be made equal.
#[tokio::test(flavor = "multi_thread")]
async fn redis_answers_as_redis_does() {
    run(Both::of(true).await, setting("DIFF_SEEDS", 20).div_ceil(4), &[]).await;
}

/// Asks both for so many seeds and fails with what they answered differently.
async fn run(mut both: Both, seeds: u64, skipped: &[String]) {
    let (first, wanted) = (setting("DIFF_FIRST", 0), setting("DIFF_REQUESTS", 1_000));
    let mut hits = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut complaints = Vec::new();
    let mut failed = 0;
    for seed in first..first + seeds {
        let mut generator = Generator::new(seed, Arc::clone(&both.catalogue), skipped);
        let mut asked = 0;
        while asked < wanted {
            let script = generator.script();
            asked += script.requests.len() as u64;
            let found = both.compare(script.protected, &script.requests, &mut hits).await;
            let Some(mismatch) = found else { continue };
            failed += 1;
            let request = &script.requests[mismatch.at];
            let beginning = |text: &str| {
                let text = text.to_lowercase().replace(|c: char| c.is_ascii_digit(), "");
                text.chars().take(40).collect::<String>()
            };
            let sub = request.word(1);
            let sub = if request.words.len() > 2 { sub } else { String::new() };
            let shown = (beginning(&mismatch.ours), beginning(&mismatch.theirs));
            let kind = (request.word(0), sub, shown);
            if complaints.len() >= MOST_SHOWN || !seen.insert(kind) {
                continue;
            }
            let said = both.shrink(script.protected, &script.requests[..=mismatch.at]).await;
            let said: Vec<String> = said.iter().map(show).collect();
            complaints.push(format!(
                "seed {seed}{}, request {}:\n  said   {}\n  ours   {}\n  Redis  {}\n  repeat with \
                 DIFF_FIRST={seed} DIFF_SEEDS=1 DIFF_REQUESTS={asked}",
                if script.protected { " (with a password)" } else { "" },
                asked - script.requests.len() as u64 + mismatch.at as u64,
                said.join("\n         "),
                mismatch.ours,
                mismatch.theirs,
            ));
        }
    }
    both.stop().await;
    assert!(failed == 0, "{failed} connections differ:\n\n{}\n", complaints.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_known_difference_is_still_one() {
    assert!(DIFFERENCES.len() + LEFT_OUT.len() <= 15);
    let mut both = Both::start().await;
    for (at, difference) in DIFFERENCES.iter().enumerate() {
        let mut hits = BTreeMap::new();
        let requests: Vec<Request> = difference.example.split("; ").map(Request::of).collect();
        let protected = requests[0].word(0) == "auth";
        let mismatch = both.compare(protected, &requests, &mut hits).await;
        assert!(mismatch.is_none(), "{}: {mismatch:?}", difference.example);
        let hit = hits.get(&at) == Some(&1);
        assert!(hit, "{} is answered alike now: {}", difference.example, difference.why);
    }
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_of_redis_is_asked() {
    let mut both = Both::start().await;
    let asked = names();
    both.stop().await;
    let excused = |read: &String| NOT_ASKED.iter().any(|(name, _)| name == read);
    let missing: Vec<&String> =
        both.reads.iter().filter(|read| excused(read) == asked.contains(*read)).collect();
    assert!(!both.reads.is_empty() && missing.is_empty(), "{missing:?}");
}
