//! What is right and what is wrong: every answered token is one that the upstream issued for that source,
//! and the upstream accepts it for as long as was promised with it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use wechat_token_server::sandbox::{Upstream, Verdict};

/// What may end a token of a source before its promise does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breaks {
    /// Nothing.
    Never,
    /// Our own forced refreshes, which fetch before the schedule does.
    ByForce,
    /// Another system's fetches, which the server learns of only when somebody complains.
    ByOthers,
    /// Reloads that change when it is renewed.
    ByReload,
}

/// One source of the server's config.
pub(crate) struct Source {
    pub(crate) name: &'static str,
    /// The endpoint's last part.
    pub(crate) endpoint: &'static str,
    /// The letter in its values.
    letter: char,
    /// Whose values they are: the account's place.
    account: usize,
    pub(crate) breaks: Breaks,
    /// Whether reloads take it away and bring it back.
    pub(crate) comes_and_goes: bool,
}

const fn source(name: &'static str, account: usize, breaks: Breaks) -> Source {
    Source { name, endpoint: "token", letter: 'T', account, breaks, comes_and_goes: false }
}

/// All of them; each one's account is at the same place as the source itself, but for the ticket's.
pub(crate) const SOURCES: &[Source] = &[
    source("plain", 0, Breaks::Never),
    Source { endpoint: "ticket/getticket", letter: 'J', ..source("ticket", 0, Breaks::Never) },
    Source { endpoint: "stable_token", letter: 'S', ..source("stable", 2, Breaks::Never) },
    source("forced", 3, Breaks::ByForce),
    source("foreign", 4, Breaks::ByOthers),
    Source { comes_and_goes: true, ..source("guest-1", 5, Breaks::ByReload) },
    Source { comes_and_goes: true, ..source("guest-2", 6, Breaks::ByReload) },
    Source { comes_and_goes: true, ..source("guest-3", 7, Breaks::ByReload) },
];

/// How far two readings of clocks in two processes may lie apart.
const TOLERANCE: Duration = Duration::from_millis(5);

/// How long after another system's fetch its victim may still be answered: until the server's own renewal
/// has come off, faults and all.
const NOTICED: Duration = Duration::from_secs(60);

pub(crate) fn appid(account: usize) -> String {
    format!("wxsoak{account:010}")
}

pub(crate) fn secret(account: usize) -> String {
    format!("soaksecret{account:022}")
}

/// What a client was promised of a value, by the longest promise.
struct Promise {
    source: &'static Source,
    until: Instant,
}

#[derive(Default)]
struct Known {
    promises: HashMap<String, Promise>,
    /// Another system's fetches of an account: the serial number they got, and when.
    foreign: HashMap<usize, Vec<(u64, Instant)>>,
    /// The last value answered for each source.
    last: HashMap<&'static str, String>,
    wrong: u64,
}

/// How many of the wrong answers are told.
const MOST_TOLD: u64 = 40;

/// What happened, counted.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    tokens: AtomicU64,
    pub(crate) absent: AtomicU64,
    pub(crate) told: AtomicU64,
    pub(crate) errors: AtomicU64,
    /// Dead tokens that were answered with no promise.
    unpromised: AtomicU64,
    /// Promises broken by what may break them.
    excused: AtomicU64,
    pub(crate) forced: AtomicU64,
    pub(crate) forced_anew: AtomicU64,
    pub(crate) wrong_keys: AtomicU64,
    pub(crate) churned: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) reloads: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) rotations: AtomicU64,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The judge. All clients tell it what they were answered.
pub(crate) struct Truth {
    upstream: Upstream,
    known: Mutex<Known>,
    pub(crate) counts: Counts,
    over: AtomicBool,
}

impl Truth {
    pub(crate) fn new(upstream: Upstream) -> Truth {
        Truth {
            upstream,
            known: Mutex::default(),
            counts: Counts::default(),
            over: AtomicBool::new(false),
        }
    }

    /// Whether what happens now is the end: the server goes.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    fn verdict(&self, source: &Source, value: &str) -> Verdict {
        if source.letter == 'J' {
            self.upstream.accepts_ticket(value)
        } else {
            self.upstream.accepts(value)
        }
    }

    /// A client asked at `sent` and was given `value`, to rely on for `promised`.
    pub(crate) fn answered(
        &self,
        source: &'static Source,
        value: &str,
        sent: Instant,
        promised: Duration,
    ) {
        count(&self.counts.tokens);
        let mut known = self.known();
        let (now, verdict) = (Instant::now(), self.verdict(source, value));
        known.last.insert(source.name, value.to_owned());
        let until = sent + promised;
        let shape = shape(value);
        let is_ours =
            shape.is_some_and(|(at, letter, _)| (at, letter) == (source.account, source.letter));
        let wrong = match verdict {
            _ if !is_ours => Some("is a value of another source"),
            Verdict::Unknown => Some("was never issued"),
            Verdict::Live { left }
                if source.breaks == Breaks::Never && until > now + left + TOLERANCE =>
            {
                Some("is promised longer than it lives")
            }
            Verdict::Live { .. } => None,
            // (The answer took so long that its promise is over.)
            Verdict::Replaced | Verdict::Expired if until <= now => {
                count(&self.counts.unpromised);
                None
            }
            Verdict::Replaced if self.is_excused(&known, source, value, now) => {
                count(&self.counts.excused);
                return;
            }
            Verdict::Replaced => Some("is replaced, and was promised"),
            Verdict::Expired => Some("is expired, and was promised"),
        };
        if let Some(what) = wrong {
            // The serial number and not the value tells what happened.
            self.complain(&mut known, source, &format!("{shape:?} {what} for {promised:?}"));
            return;
        }
        if until > now {
            let promise =
                known.promises.entry(value.to_owned()).or_insert(Promise { source, until });
            promise.until = promise.until.max(until);
        }
    }

    /// Notes a wrong answer; the first ones are told, with the last calls of the account.
    fn complain(&self, known: &mut Known, source: &Source, what: &str) {
        known.wrong += 1;
        if known.wrong > MOST_TOLD {
            return;
        }
        println!("WRONG {}: {what}", source.name);
        let (now, appid) = (SystemTime::now(), appid(source.account));
        let calls = self.upstream.log();
        for call in calls.iter().rev().filter(|call| call.appid.as_deref() == Some(&*appid)).take(6)
        {
            let ago = now.duration_since(call.at).unwrap_or_default();
            println!(
                "    {ago:.1?} ago {} {:?} {:?}",
                call.endpoint.name(),
                call.errcode,
                call.fault
            );
        }
    }

    /// Whether another system has replaced the value, so lately that nobody may have noticed.
    fn is_excused(&self, known: &Known, source: &Source, value: &str, now: Instant) -> bool {
        let Some((account, _, serial)) = shape(value) else { return false };
        let victims = known.foreign.get(&account).into_iter().flatten();
        source.breaks == Breaks::ByOthers
            && victims.into_iter().any(|(theirs, at)| serial < *theirs && now - *at < NOTICED)
    }

    /// Whether the upstream refuses an access token, as a business server finds out.
    pub(crate) fn is_refused(&self, value: &str) -> bool {
        !self.upstream.accepts(value).is_live()
    }

    /// The value that was last answered for a source.
    pub(crate) fn last(&self, source: &str) -> Option<String> {
        self.known().last.get(source).cloned()
    }

    /// Another system fetches a token of this source's account.
    pub(crate) fn rotate(&self, source: &Source) {
        let mut known = self.known();
        let appid = appid(source.account);
        let theirs = self.upstream.with_model(|model, now| model.rotate(&appid, now)).unwrap();
        let value = theirs.value.expose().to_owned();
        let (.., serial) = shape(&value).unwrap();
        known.foreign.entry(source.account).or_default().push((serial, Instant::now()));
        count(&self.counts.rotations);
    }

    /// Looks whether every promise holds; those that are over are forgotten.
    pub(crate) fn look(&self) {
        let mut known = self.known();
        let now = Instant::now();
        let mut promises = std::mem::take(&mut known.promises);
        promises.retain(|value, promise| {
            if promise.until <= now {
                return false;
            }
            let Promise { source, until } = *promise;
            if self.verdict(source, value).is_live() {
                return true;
            }
            if source.breaks == Breaks::Never {
                let (shape, left) = (shape(value), until - Instant::now());
                let what = format!("{shape:?} ended {left:?} before its promise");
                self.complain(&mut known, source, &what);
            } else {
                count(&self.counts.excused);
            }
            false
        });
        known.promises = promises;
    }

    /// What a row says of the clients.
    pub(crate) fn counts(&self) -> String {
        let Counts { requests, tokens, absent, told, errors, .. } = &self.counts;
        let [requests, tokens, absent, told, errors] =
            [requests, tokens, absent, told, errors].map(|count| count.load(Ordering::Relaxed));
        let wrong = self.known().wrong;
        format!("{requests:>10} {tokens:>9} {absent:>7} {told:>5} {errors:>7} {wrong:>6}")
    }

    /// What happened in all.
    pub(crate) fn summary(&self) -> String {
        let counts = &self.counts;
        let mut text = String::new();
        for (name, count) in [
            ("forced refreshes", &counts.forced),
            ("… of which brought a new token", &counts.forced_anew),
            ("wrong keys refused", &counts.wrong_keys),
            ("connections that came and went", &counts.churned),
            ("slow connections cut", &counts.cut),
            ("reloads", &counts.reloads),
            ("faults of the upstream", &counts.faults),
            ("fetches of another system", &counts.rotations),
            ("tokens past their life, answered without a promise", &counts.unpromised),
            ("promises ended by force, another system or a reload", &counts.excused),
            ("unexpected answers and broken connections", &counts.errors),
        ] {
            let _ = writeln!(text, "{name}: {}", count.load(Ordering::Relaxed));
        }
        text
    }

    /// Prints what was wrong; whether there was nothing.
    pub(crate) fn nothing_was_wrong(&self) -> bool {
        self.over.store(true, Ordering::Relaxed);
        let known = self.known();
        let errors = self.counts.errors.load(Ordering::Relaxed);
        println!(
            "wrong answers: {}, errors: {errors}; at most 0: {}",
            known.wrong,
            if known.wrong == 0 && errors == 0 { "yes" } else { "NO" }
        );
        known.wrong == 0 && errors == 0
    }
}

/// Account, letter and serial number of a value of the stand-in.
fn shape(value: &str) -> Option<(usize, char, u64)> {
    let (at, rest) = value.split_once('_')?;
    let (kind, _) = rest.split_once('_')?;
    let letter = kind.chars().next()?;
    Some((at.parse().ok()?, letter, kind[letter.len_utf8()..].parse().ok()?))
}
