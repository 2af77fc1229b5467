//! A day of the whole engine: its real tasks on tokio's paused clock, with a disk, clients and
//! restarts, under the same weather as the machine alone has in `world`.
//!
//! What is true is kept apart (`truth`), so that what the engine believes can be held against it:
//! every promise at its end, every token at every read, every answer to a client.

mod disk;
mod process;
mod truth;
mod wechat;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use wechat_token_server::config::{self, Environment, TokenSource};
use wechat_token_server::refresh::{RefreshError, Refused, Wish};
use wechat_token_server::snapshot::Published;
use wechat_token_server::source::FailureClass;

use crate::fault::{Fault, recovery, refused};
use crate::figures::Figures;

use disk::Disk;
use process::Process;
use truth::Truth;
use wechat::{Trouble, Wechat};

const DAY: Duration = Duration::from_secs(86_400);

/// After this nothing goes wrong any more: at the end of the day all must be well.
const LAST_TROUBLE: Duration = Duration::from_secs(22 * 3_600);

/// How long a refresher that panicked rests, at most, with the fetch after that.
const PANIC_RECOVERY: Duration = Duration::from_secs(60 + 40);

/// How long a restart without a kept token takes to have one.
const RESTART_RECOVERY: Duration = Duration::from_secs(100);

const NAMES: [&str; 3] = ["access_token", "ticket", "card"];

/// The account's sources: a token of one kind or the other, and two tickets for it.
fn sources(token_path: &str) -> Vec<TokenSource> {
    let text = format!(
        r#"(token_sources: {{
            "access_token": (url: "https://api.weixin.qq.com/cgi-bin/{token_path}", account: "wx0"),
            "ticket": (
                url: "https://api.weixin.qq.com/cgi-bin/ticket/getticket", account: "wx0",
                args: {{"type": "jsapi", "access_token": "{{{{access_token}}}}"}},
            ),
            "card": (
                url: "https://api.weixin.qq.com/cgi-bin/ticket/getticket", account: "wx0",
                args: {{"type": "wx_card", "access_token": "{{{{access_token}}}}"}}, value_field: "ticket",
            ),
        }})"#
    );
    config::parse(&text, Path::new("day.ron"), &Environment::default()).unwrap().sources
}

/// What was promised of a value, and when.
struct Promise {
    source: usize,
    made: Duration,
    until: Duration,
}

pub(crate) struct Day {
    dice: fastrand::Rng,
    figures: Figures,
    truth: Arc<Truth>,
    wechat: Wechat,
    disk: Disk,
    sources: Vec<TokenSource>,
    /// Whether another fetch ends the token: the first source is `cgi-bin/token`.
    rotates: bool,
    process: Process,
    clients: JoinSet<()>,
    promises: HashMap<String, Promise>,
    /// Good tokens that a mistaken client has said to be refused, and when it last did.
    maligned: HashMap<String, Duration>,
    /// The next request is to be cut off by a crash.
    crash_awaits_request: bool,
    /// When the next day's calls end the last refusal of more calls.
    quota_ends: Duration,
    recovering_since: Option<Duration>,
}

impl Day {
    /// Runs the day of this seed.
    pub(crate) fn run(seed: u64) -> Figures {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async { Day::new(seed).live().await })
    }

    fn new(seed: u64) -> Day {
        let mut dice = fastrand::Rng::with_seed(seed);
        let rotates = dice.bool();
        let truth = Arc::new(Truth::new(seed, dice.u64(..86_400)));
        truth.excuse(RESTART_RECOVERY);
        let sources = sources(if rotates { "token" } else { "stable_token" });
        let wechat = Wechat::new(Arc::clone(&truth), &sources, seed);
        let disk = Disk::new(Arc::clone(&truth));
        let process = Process::boot(&sources, &wechat, &disk, &truth, dice.u64(..));
        Day {
            dice,
            figures: Figures::default(),
            truth,
            wechat,
            disk,
            sources,
            rotates,
            process,
            clients: JoinSet::new(),
            promises: HashMap::new(),
            maligned: HashMap::new(),
            crash_awaits_request: false,
            quota_ends: Duration::ZERO,
            recovering_since: None,
        }
    }

    async fn live(mut self) -> Figures {
        let mut next_read = self.pause_ms(1..10_000);
        let mut next_mishap = self.pause_ms(60_000..3_600_000);
        loop {
            let promised = self.promises.values().map(|promise| promise.until).min();
            let next = promised.unwrap_or(DAY).min(next_read).min(next_mishap).min(DAY);
            tokio::select! {
                biased;
                () = self.wechat.requested(), if self.crash_awaits_request => {
                    let pause = self.pause_ms(0..1_500);
                    tokio::time::sleep(pause).await;
                    self.restart(true).await;
                }
                () = tokio::time::sleep(next.saturating_sub(self.truth.now())) => {}
            }
            self.truth.fail_if_troubled();
            let now = self.truth.now();
            if now >= DAY {
                break;
            }
            self.check_promises(now);
            if now >= next_read {
                self.read();
                next_read = now + self.until_next_read();
            }
            if now >= next_mishap {
                self.mishap(now).await;
                // (A restart takes its time.)
                let pause = self.pause_ms(60_000..7_200_000);
                let next = self.truth.now() + pause;
                next_mishap = if next < LAST_TROUBLE { next } else { DAY };
            }
        }
        self.end_well().await
    }

    fn pause_ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.dice.u64(range))
    }

    fn until_next_read(&mut self) -> Duration {
        match self.dice.u8(..20) {
            0 => self.pause_ms(10..500),
            // Without a token they ask again soon.
            _ if self.recovering_since.is_some() => self.pause_ms(1_000..120_000),
            _ => self.pause_ms(5_000..900_000),
        }
    }

    /// Clients read, use what they got, and complain if it is refused.
    fn read(&mut self) {
        for source in 0..NAMES.len() {
            self.figures.reads += 1;
            match self.process.live(source) {
                None => self.note_gap(source),
                Some(published) => self.use_token(source, &published),
            }
        }
    }

    fn note_gap(&mut self, source: usize) {
        self.figures.gaps += 1;
        let now = self.truth.now();
        let mended = self.wechat.fault_ends().max(self.quota_ends).max(now);
        self.recovering_since.get_or_insert(mended);
        if now > self.truth.excused_until() {
            self.truth.fail(&format!("no {}, although all has been well", NAMES[source]));
        }
    }

    fn use_token(&mut self, source: usize, published: &Published) {
        let value = published.record.value.expose();
        let now = self.truth.now();
        let promised = published.promised_life(self.process.now()).unwrap_or_default();
        if let Some(since) = self.recovering_since.filter(|since| *since <= now) {
            self.recovering_since = None;
            let took = (now - since).as_secs_f64();
            self.figures.longest_recovery = self.figures.longest_recovery.max(took);
        }
        if self.wechat.accepts(source, value, now) {
            // Whole seconds, as clients are told.
            let until = now + Duration::from_secs(promised.as_secs());
            let fresh = || Promise { source, made: now, until };
            let promise = self.promises.entry(value.to_owned()).or_insert_with(fresh);
            if until > promise.until {
                *promise = fresh();
            }
            if self.dice.u8(..60) == 0 {
                self.malign(source, value);
            }
            return;
        }
        let in_doubt = published.in_doubt_since.is_some();
        if in_doubt && promised < Duration::from_secs(1) {
            self.figures.refused_served_in_doubt += 1;
        } else if self.wechat.is_tainted(source, value) {
            self.figures.refused_served_foreign += 1;
        } else {
            self.truth.fail(&format!(
                "a {} was served that the upstream refuses, with a promise of {promised:?}",
                NAMES[source]
            ));
        }
        self.complain(source, value);
    }

    /// A client is mistaken.
    fn malign(&mut self, source: usize, value: &str) {
        self.maligned.insert(value.to_owned(), self.truth.now());
        self.complain(source, value);
    }

    fn complain(&mut self, source: usize, value: &str) {
        let clients = if self.dice.u8(..4) == 0 { self.dice.u64(1..300) } else { 1 };
        self.figures.reports += clients;
        for _ in 0..clients {
            let (refresh, truth) = (self.process.refresh.clone(), Arc::clone(&self.truth));
            let value = value.to_owned();
            self.clients.spawn(async move {
                let wish = Wish::Other { refused: Refused::parse(&value), force: false };
                match refresh.ask(NAMES[source], wish).await {
                    Ok(other) if other.record.value.expose() == value => {
                        truth.note("a client was answered with the value that it refused");
                    }
                    Err(RefreshError::TimedOut) => truth.note("a client was never answered"),
                    _ => {}
                }
            });
        }
    }

    fn check_promises(&mut self, now: Duration) {
        let (truth, wechat, maligned) = (&self.truth, &self.wechat, &self.maligned);
        let figures = &mut self.figures;
        self.promises.retain(|value, promise| {
            let Promise { source, made, until } = *promise;
            if until > now {
                return true;
            }
            figures.promises += 1;
            // The last moment for which it was promised.
            let last = until.saturating_sub(Duration::from_millis(1));
            let kept = until <= made || wechat.accepts(source, value, last);
            // A fetch that a client forced breaks what was promised before; we know of it after.
            let complained = maligned.get(value).filter(|_| source == 0);
            let sent = complained.and_then(|at| wechat.first_sent_since(*at));
            let forced = sent.is_some_and(|sent| made <= sent);
            if !kept && !forced && !wechat.is_tainted(source, value) {
                truth.fail(&format!(
                    "a {} was promised for {:?} and refused before",
                    NAMES[source],
                    until - made
                ));
            }
            false
        });
    }

    async fn mishap(&mut self, now: Duration) {
        match self.dice.u8(..14) {
            0..=5 => {
                let (fault, lasts) = Fault::draw(&mut self.dice);
                self.fault(now, fault, lasts);
            }
            6 => {
                let until = (now + self.pause_ms(1_000..300_000)).min(LAST_TROUBLE);
                self.wechat.trouble(Trouble::Panics, until);
                self.figures.faults += 1;
                self.truth.excuse(until + PANIC_RECOVERY);
            }
            7 => self.restart(true).await,
            8 => {
                // A crash at the worst moment: while a request is under way that replaces a good token.
                self.crash_awaits_request = true;
                if let Some(published) = self.process.live(0) {
                    self.malign(0, published.record.value.expose());
                }
            }
            9..=10 => self.restart(false).await,
            11 => {
                self.wechat.rotate_for_others();
                if self.rotates {
                    self.wechat.taint(0);
                }
            }
            12 => {
                let until = now + self.pause_ms(1_000..1_800_000);
                self.disk.refuse_until(until.min(LAST_TROUBLE));
            }
            _ => {
                let until = now + self.pause_ms(500..600_000);
                self.disk.hang_until(until.min(LAST_TROUBLE));
            }
        }
    }

    fn fault(&mut self, now: Duration, fault: Fault, lasts: Duration) {
        let until = (now + lasts).min(LAST_TROUBLE);
        let class = match fault {
            Fault::Refuses(code) => refused(code, false).class(),
            _ => FailureClass::Transient,
        };
        let recovered = if class == FailureClass::QuotaSpent {
            // Until the next Beijing day; where that is too late for this one, it does not happen.
            let midnight = self.truth.next_beijing_midnight();
            if midnight < until || midnight > LAST_TROUBLE {
                return;
            }
            self.quota_ends = midnight;
            midnight + recovery(FailureClass::Transient)
        } else {
            until + recovery(class)
        };
        self.figures.faults += 1;
        self.recovering_since = self.recovering_since.map(|since| since.max(until));
        self.wechat.trouble(Trouble::Upstream(fault), until);
        self.truth.excuse(recovered);
    }

    /// A crash, or an upgrade that lets what is under way finish; then what was kept begins again.
    async fn restart(&mut self, crash: bool) {
        self.figures.restarts += 1;
        self.crash_awaits_request = false;
        for (at, source) in self.sources.iter().enumerate() {
            let lost = self.process.generation(at) > self.disk.generation(&source.name);
            if lost || self.disk.was_troubled() {
                // The disk had refused it (or the mark before a request), loudly: not our promise.
                self.wechat.taint(at);
            }
        }
        if crash {
            self.process.crash().await;
        } else {
            self.process.drain().await;
        }
        let seed = self.dice.u64(..);
        self.process = Process::boot(&self.sources, &self.wechat, &self.disk, &self.truth, seed);
        self.truth.excuse(self.truth.now() + RESTART_RECOVERY);
        // Clients come back at once.
        self.read();
    }

    /// All is well in the end: everybody is answered, every token is good, and on disk.
    async fn end_well(mut self) -> Figures {
        self.clients.join_all().await;
        self.truth.fail_if_troubled();
        let now = self.truth.now();
        for (at, source) in self.sources.iter().enumerate() {
            let Some(published) = self.process.live(at) else {
                self.truth.fail(&format!("no {} at the end", source.name));
            };
            if !self.wechat.accepts(at, published.record.value.expose(), now)
                && !self.wechat.is_tainted(at, published.record.value.expose())
            {
                self.truth.fail(&format!("a refused {} at the end", source.name));
            }
            if self.disk.generation(&source.name) != Some(published.record.generation) {
                self.truth.fail(&format!("the {} is not on disk at the end", source.name));
            }
        }
        self.process.drain().await;
        self.figures.account_days = 1.0;
        (self.figures.fetches, self.figures.rotating_fetches) = self.wechat.fetches();
        self.figures
    }
}
