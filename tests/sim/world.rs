//! A world of one account: the true time, our clocks, WeChat as the sandbox models it, our engine
//! with a driver and a disk of its own, clients, and the weather. Every promise that is made is
//! checked when it ends; every rule is checked at every event.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wechat_token_server::account::{Account, Calls, Unsettled};
use wechat_token_server::clock::{HiddenTime, Now};
use wechat_token_server::refresh::{
    Denied, Effect, Event, Ledger, Machine, Purpose, RefreshError, Refused, Report, WaiterId, Wish,
};
use wechat_token_server::sandbox::{Account as WechatAccount, Caller, Model, Settings};
use wechat_token_server::snapshot::Published;
use wechat_token_server::source::{FailureClass, FetchError, Fetched};
use wechat_token_server::store::StoreError;
use wechat_token_server::token::SourceName;

use crate::fault::{Fault, recovery, refused};
use crate::figures::Figures;
use crate::source::{IDENTITY, Kind, Source, Wanted, Work};

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;
const TIMEOUT: u64 = 10 * SECOND;
const A_MINUTE: Duration = Duration::from_secs(60);
const LOOK: u64 = 10 * SECOND;
/// How many looks at the clocks are left out at a time.
const LOOKS: u64 = 120;

/// How much goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Nothing.
    Fair,
    /// A few things a day: faults, restarts, clock steps, suspends, foreign fetches, a full disk.
    Stormy,
}

/// What happens next. Times are milliseconds of true time since the start.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Wake {
        source: usize,
    },
    /// The upstream does a request's work.
    Arrive {
        source: usize,
        epoch: u64,
        fault: u8,
        answer_after: u64,
    },
    Answered {
        source: usize,
        epoch: u64,
        answer: usize,
    },
    Written {
        source: usize,
        epoch: u64,
    },
    Healed {
        source: usize,
        epoch: u64,
        healed: bool,
    },
    PromiseEnds {
        source: usize,
        value: String,
    },
    Read,
    Mishap,
}

pub(crate) struct World {
    seed: u64,
    tracing: bool,
    weather: Weather,
    dice: fastrand::Rng,
    figures: Figures,
    /// True time, in milliseconds since `base`.
    t: u64,
    base: SystemTime,
    /// By how much our wall clock is off, and how much of the time since the boot the monotonic one
    /// has not seen; in milliseconds.
    wall_off: i64,
    booted: u64,
    suspended: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, Next)>>,
    sequence: u64,
    model: Model,
    ledger: Ledger,
    kept_calls: HashMap<String, (Account, Calls)>,
    kept_marks: HashMap<SourceName, Unsettled>,
    sources: Vec<Source>,
    answers: Vec<Option<Result<Fetched, FetchError>>>,
    next_waiter: u64,
    /// The latest end that was promised for a value, when that was promised, by value.
    promises: HashMap<String, (u64, u64)>,
    fault: Option<(Fault, u64)>,
    disk_broken_until: u64,
    asleep_until: u64,
    hidden: HiddenTime,
    hidden_total: Duration,
    looked: u64,
    /// When the wall clock was last set.
    stepped_at: Option<u64>,
    /// When each value was first given by the upstream.
    issued: HashMap<String, u64>,
    /// When everything that went wrong should be over and mended, and why.
    excused_until: u64,
    /// The end of the last fault, while no live token has been seen since.
    recovering_since: Option<u64>,
}

impl World {
    pub(crate) fn new(seed: u64, weather: Weather) -> World {
        let mut dice = fastrand::Rng::with_seed(seed);
        let kinds =
            if dice.bool() { [Kind::Token, Kind::Ticket] } else { [Kind::Stable, Kind::Ticket] };
        let settings = Settings { value_bytes: 32, ticket_quota: None, ..Settings::default() };
        let sources = kinds.map(|kind| Source::new(kind, dice.u64(..))).into();
        let mut world = World {
            seed,
            tracing: std::env::var_os("SIM_TRACE").is_some(),
            weather,
            figures: Figures::default(),
            t: 0,
            base: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + dice.u64(..86_400)),
            wall_off: 0,
            booted: 0,
            suspended: 0,
            agenda: BinaryHeap::new(),
            sequence: 0,
            model: Model::new(settings, [WechatAccount::default()], seed),
            ledger: Ledger::default(),
            kept_calls: HashMap::new(),
            kept_marks: HashMap::new(),
            sources,
            answers: Vec::new(),
            next_waiter: 0,
            promises: HashMap::new(),
            fault: None,
            disk_broken_until: 0,
            asleep_until: 0,
            hidden: HiddenTime::default(),
            hidden_total: Duration::ZERO,
            looked: 0,
            stepped_at: None,
            issued: HashMap::new(),
            excused_until: 60 * SECOND,
            recovering_since: None,
            dice,
        };
        world.plan(10 * SECOND, Next::Read);
        if weather == Weather::Stormy {
            let first = world.dice.u64(60 * SECOND..DAY / 4);
            world.plan(first, Next::Mishap);
        }
        for source in 0..world.sources.len() {
            world.tell(source, Event::Woken);
        }
        world
    }

    pub(crate) fn run(mut self, days: u64) -> Figures {
        let end = days * DAY;
        while let Some(Reverse((at, _, next))) = self.agenda.pop() {
            if at >= end {
                break;
            }
            let upstream = matches!(next, Next::Arrive { .. } | Next::PromiseEnds { .. });
            if at < self.asleep_until && !upstream {
                // We sleep; it comes right after.
                let after = (at - self.t.min(at)).min(SECOND);
                self.plan(self.asleep_until + after, next);
                continue;
            }
            self.t = at;
            self.happen(next);
        }
        self.figures.account_days = days as f64;
        self.figures
    }

    fn fail(&self, what: &str) -> ! {
        panic!(
            "seed {} ({:?}, {:?}) at {} days {:.3} s: {what}\nrepeat with SIM_FIRST={} SIM_SEEDS=1",
            self.seed,
            self.weather,
            self.sources[0].kind,
            self.t / DAY,
            (self.t % DAY) as f64 / 1e3,
            self.seed
        )
    }

    /// Prints what happens, when a single run is looked into (`SIM_TRACE=1`).
    fn trace(&self, what: impl FnOnce() -> String) {
        if self.tracing {
            println!("{:>8}.{:03}  {}", self.t / SECOND, self.t % SECOND, what());
        }
    }

    fn plan(&mut self, at: u64, next: Next) {
        self.sequence += 1;
        self.agenda.push(Reverse((at, self.sequence, next)));
    }

    /// The true wall time: WeChat's.
    fn truth(&self, t: u64) -> SystemTime {
        self.base + Duration::from_millis(t)
    }

    /// Our clocks.
    fn now(&self) -> Now {
        let truth = self.truth(self.t);
        let off = Duration::from_millis(self.wall_off.unsigned_abs());
        let wall = if self.wall_off < 0 { truth - off } else { truth + off };
        // (While it sleeps nobody looks at the clocks.)
        let awake = self.t.saturating_sub(self.booted + self.suspended);
        Now { wall, mono: Duration::from_millis(awake) + self.hidden_total }
    }

    /// Looks for hidden time, as the server does every ten seconds.
    fn look(&mut self) {
        let Now { wall, mono } = self.now();
        let bare = Now { wall, mono: mono - self.hidden_total };
        self.hidden_total = self.hidden.look(bare);
        self.looked = self.t;
    }

    fn happen(&mut self, next: Next) {
        let upstream = matches!(next, Next::Arrive { .. } | Next::PromiseEnds { .. });
        if !upstream && self.t >= self.looked + LOOK {
            self.look();
        }
        self.trace(|| format!("{next:?}"));
        match next {
            Next::Wake { source } => {
                // Another may have been planned meanwhile.
                if self.sources[source].wake <= self.t {
                    self.tell(source, Event::Woken);
                }
            }
            Next::Arrive { source, epoch, fault, answer_after } => {
                self.arrive(source, epoch, fault, answer_after);
            }
            Next::Answered { source, epoch, answer } => {
                let outcome = self.answers[answer].take().expect("an answer is given once");
                if self.sources[source].epoch == epoch {
                    self.sources[source].work = None;
                    if let Err(error @ FetchError::Refused(_)) = &outcome {
                        // Its wait begins now, however long the answer was slept over.
                        let recovers = recovery(error.class());
                        self.excuse(self.t + u64::try_from(recovers.as_millis()).unwrap());
                    }
                    if matches!(outcome, Err(FetchError::NotConnected(_))) {
                        let account = self.sources[source].kind.account();
                        self.ledger.take_back(&account, self.now().wall);
                    }
                    self.tell(source, Event::Fetched(outcome));
                }
            }
            Next::Written { source, epoch } => self.written(source, epoch),
            Next::Healed { source, epoch, healed } => {
                if self.sources[source].epoch == epoch {
                    self.sources[source].work = None;
                    let outcome = if healed { Ok(()) } else { Err(RefreshError::Lost) };
                    self.tell(source, Event::Healed(outcome));
                }
            }
            Next::PromiseEnds { source, value } => self.check_promise(source, &value),
            Next::Read => self.read(),
            Next::Mishap => self.mishap(),
        }
    }

    /// Brings an event to a machine and carries its effects out, as the driver does.
    fn tell(&mut self, source: usize, event: Event) {
        self.look();
        let now = self.now();
        let replaced_nothing =
            matches!(&event, Event::Fetched(Err(error)) if !error.may_have_replaced());
        let effects = self.sources[source].machine.on(now, event);
        self.carry_out(source, effects);
        if replaced_nothing && !self.sources[source].machine.is_unsettled() {
            self.settle(source, false);
        }
        let after = self.next_wake(source);
        self.sources[source].wake = self.t + after;
        self.plan(self.t + after, Next::Wake { source });
    }

    /// How long until the machine has something to do. The driver looks at the clocks every minute in
    /// between, which changes nothing while the clocks run as they should: here it is left out, and
    /// done after each mishap.
    fn next_wake(&self, source: usize) -> u64 {
        let now = self.now();
        let mut at = now;
        for _ in 0..LOOKS {
            let wake = self.sources[source].machine.wake_at(at);
            if wake < at.mono + A_MINUTE {
                let after = wake.saturating_sub(now.mono);
                return u64::try_from(after.as_millis()).unwrap() + 1;
            }
            at = at.after(A_MINUTE);
        }
        LOOKS * 60 * SECOND
    }

    /// Marks a source's request, or takes the mark away: in the ledger, and on the disk if it works.
    fn settle(&mut self, source: usize, unsettled: bool) {
        let kind = self.sources[source].kind;
        if !kind.policy().outcome_matters() {
            return;
        }
        let mark = if unsettled {
            Some(self.ledger.mark(&kind.name(), self.now().wall))
        } else {
            self.ledger.settle(&kind.name());
            None
        };
        if self.disk_broken_until <= self.t {
            match mark {
                Some(mark) => self.kept_marks.insert(kind.name(), mark),
                None => self.kept_marks.remove(&kind.name()),
            };
        }
    }

    fn keep_calls(&mut self, kind: Kind, calls: Calls) {
        if self.disk_broken_until <= self.t {
            let account = kind.account();
            self.kept_calls.insert(account.endpoint.to_string(), (account, calls));
        }
    }

    fn carry_out(&mut self, source: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.trace(|| format!("    {source} {effect:?}"));
            match effect {
                Effect::Fetch(purpose) => self.fetch(source, purpose),
                Effect::Store(published) => {
                    let kind = self.sources[source].kind;
                    self.ledger.settle(&kind.name());
                    let epoch = self.begin(source, Work::Store(published));
                    let after = self.dice.u64(1..20);
                    self.plan(self.t + after, Next::Written { source, epoch });
                }
                Effect::HealDependencies => self.heal(source),
                Effect::Publish(published) => self.publish(source, &published),
                Effect::Answer(WaiterId(id), answer) => self.answer(source, id, answer),
                Effect::Report(Report::Failed { retry_in, error, .. }) => {
                    let nothing_sent = matches!(
                        error.class(),
                        FailureClass::DependencyAbsent | FailureClass::Reserved
                    );
                    if !nothing_sent {
                        let wait = u64::try_from(retry_in.as_millis()).unwrap();
                        self.sources[source].not_before = self.t + wait;
                    }
                }
                Effect::Report(_) => {}
            }
        }
    }

    fn begin(&mut self, source: usize, work: Work) -> u64 {
        if let Some(under_way) = &self.sources[source].work {
            self.fail(&format!("{work:?} was begun while {under_way:?} was under way"));
        }
        let source = &mut self.sources[source];
        source.work = Some(work);
        source.epoch += 1;
        source.epoch
    }

    fn fetch(&mut self, source: usize, purpose: Purpose) {
        let epoch = self.begin(source, Work::Fetch);
        let kind = self.sources[source].kind;
        if kind == Kind::Ticket {
            let Some(token) = self.live(0) else {
                let name = wechat_token_server::token::SourceName::parse("access_token").unwrap();
                return self.answer_later(
                    source,
                    epoch,
                    0,
                    Err(FetchError::DependencyAbsent(name)),
                );
            };
            let used = (token.record.value.expose().to_owned(), token.record.generation);
            self.sources[source].used = Some(used);
        }
        // Attempts are never closer than the schedule says, unless somebody asks.
        let asked = !self.sources[source].waiters.is_empty();
        if !asked
            && self.t < self.sources[source].not_before.saturating_sub(1)
            && kind != Kind::Ticket
        {
            self.fail("an attempt that nobody asked for came before its time");
        }
        let limit = kind.policy().daily_limit;
        match self.ledger.enter(&kind.account(), limit, purpose, self.now().wall) {
            Ok(admitted) => self.keep_calls(kind, admitted.calls),
            Err(denied) => {
                if let Denied::Spent(wait) = denied {
                    let wait = u64::try_from(wait.as_millis()).unwrap();
                    self.excuse(self.t + wait + 30 * SECOND);
                }
                let error = match denied {
                    Denied::Spent(wait) => FetchError::BudgetSpent { wait },
                    Denied::Reserved(wait) => FetchError::BudgetReserved { wait },
                    Denied::ForcedNew(wait) => FetchError::ForcedTooOften { wait },
                };
                return self.answer_later(source, epoch, 0, Err(error));
            }
        }
        self.settle(source, true);
        self.figures.fetches += 1;
        self.figures.rotating_fetches += u64::from(kind != Kind::Ticket);
        if purpose != Purpose::Scheduled && kind == Kind::Token {
            // What a client forces may break what was promised to others.
            self.taint(source);
        }
        let latency = self.dice.u64(40..600);
        let fault = self.fault.filter(|(_, until)| *until > self.t).map(|(fault, _)| fault);
        let force = Source::force(purpose);
        match fault {
            None => self.plan(
                self.t + latency / 2,
                Next::Arrive { source, epoch, fault: u8::from(force), answer_after: latency / 2 },
            ),
            Some(Fault::Slow) => {
                let slow = self.dice.u64(1_000..9_500);
                self.plan(
                    self.t + slow / 2,
                    Next::Arrive { source, epoch, fault: u8::from(force), answer_after: slow / 2 },
                );
            }
            Some(Fault::AnswersLost) => {
                self.plan(
                    self.t + latency,
                    Next::Arrive {
                        source,
                        epoch,
                        fault: 2 + u8::from(force),
                        answer_after: TIMEOUT - latency,
                    },
                );
            }
            Some(Fault::Unreachable) => {
                let words = "scripted".to_owned();
                self.answer_later(source, epoch, latency, Err(FetchError::NotConnected(words)));
            }
            Some(Fault::Silent) => {
                self.answer_later(source, epoch, TIMEOUT, Err(FetchError::TimedOut));
            }
            Some(Fault::Refuses(code)) => {
                let error = refused(code, kind == Kind::Ticket);
                self.answer_later(source, epoch, latency, Err(error));
            }
        }
    }

    fn answer_later(
        &mut self,
        source: usize,
        epoch: u64,
        after: u64,
        outcome: Result<Fetched, FetchError>,
    ) {
        self.answers.push(Some(outcome));
        let answer = self.answers.len() - 1;
        self.plan(self.t + after, Next::Answered { source, epoch, answer });
    }

    /// WeChat does a request's work; `fault`: 1 = a new value is forced, 2 = the answer is lost.
    fn arrive(&mut self, source: usize, epoch: u64, fault: u8, answer_after: u64) {
        let (force, lost) = (fault & 1 == 1, fault & 2 == 2);
        let truth = self.truth(self.t);
        let caller = Caller::new(WechatAccount::SANDBOX_APPID, WechatAccount::SANDBOX_SECRET);
        let kind = self.sources[source].kind;
        let granted = match kind {
            Kind::Token => self.model.token(caller, truth),
            Kind::Stable => self.model.stable_token(caller, force, truth),
            Kind::Ticket => {
                let used = self.sources[source].used.as_ref().map(|(value, _)| value.as_str());
                self.model.ticket(used, Some("jsapi"), truth)
            }
        };
        let outcome = match granted {
            _ if lost => Err(FetchError::TimedOut),
            Ok(grant) => {
                self.issued.entry(grant.value.expose().to_owned()).or_insert(self.t);
                Ok(Fetched {
                    value: grant.value,
                    expires_in: grant.expires_in,
                    captured: None,
                    upstream_time: Some(truth),
                })
            }
            Err(refusal) => Err(refused(refusal.code, kind == Kind::Ticket)),
        };
        self.answer_later(source, epoch, answer_after, outcome);
    }

    fn written(&mut self, source: usize, epoch: u64) {
        if self.sources[source].epoch != epoch {
            return;
        }
        let Some(Work::Store(published)) = self.sources[source].work.take() else {
            self.fail("a write ended that was not under way");
        };
        if self.disk_broken_until > self.t {
            return self.tell(source, Event::Stored(Err(StoreError("scripted".into()))));
        }
        self.sources[source].kept = Some(published.record.clone());
        self.kept_marks.remove(&self.sources[source].kind.name());
        self.tell(source, Event::Stored(Ok(())));
    }

    fn heal(&mut self, source: usize) {
        self.begin(source, Work::Heal);
        let Some((_, generation)) = self.sources[source].used.clone() else {
            self.fail("a source without dependencies heals them");
        };
        let id = self.waiter(0, Wanted::Healing);
        // The healed one answers through `answer`, which ends the work.
        self.tell(0, Event::Asked(WaiterId(id), Wish::Newer { generation }));
    }

    fn waiter(&mut self, source: usize, wanted: Wanted) -> u64 {
        self.next_waiter += 1;
        self.sources[source].waiters.insert(self.next_waiter, wanted);
        self.next_waiter
    }

    fn answer(&mut self, source: usize, id: u64, answer: Result<Arc<Published>, RefreshError>) {
        let Some(wanted) = self.sources[source].waiters.remove(&id) else {
            self.fail("somebody was answered twice, or never asked");
        };
        match wanted {
            Wanted::Other(refused_value) => {
                if let Ok(published) = answer
                    && published.record.value.expose() == refused_value
                {
                    self.fail("a client was answered with the value that it refused");
                }
            }
            Wanted::Healing => {
                // Its epoch is the healing one's, unless a restart has come in between.
                if matches!(self.sources[1].work, Some(Work::Heal)) {
                    let epoch = self.sources[1].epoch;
                    self.plan(
                        self.t + 1,
                        Next::Healed { source: 1, epoch, healed: answer.is_ok() },
                    );
                }
            }
        }
    }

    fn publish(&mut self, source: usize, published: &Arc<Published>) {
        let before = self.sources[source].published.replace(Arc::clone(published));
        let generation = published.record.generation;
        if let Some(before) = before {
            if before.record.generation > generation {
                self.fail("a generation went back");
            }
            let newer = before.record.generation < generation;
            if newer && source == 0 {
                self.tell(1, Event::DependencyChanged);
            }
        } else if source == 0 {
            self.tell(1, Event::DependencyChanged);
        }
    }

    fn live(&self, source: usize) -> Option<Arc<Published>> {
        let published = self.sources[source].published.as_ref()?;
        published.life_left(self.now()).map(|_| Arc::clone(published))
    }

    fn accepted(&self, source: usize, value: &str, at: u64) -> bool {
        let truth = self.truth(at);
        match self.sources[source].kind {
            Kind::Ticket => self.model.accepts_ticket(value, truth).is_live(),
            Kind::Token | Kind::Stable => self.model.accepts(value, truth).is_live(),
        }
    }

    /// Notes that the source's token may be replaced for reasons that no engine can know.
    fn taint(&mut self, source: usize) {
        self.sources[source].foreign_at = Some(self.t);
    }

    fn excuse(&mut self, until: u64) {
        self.excused_until = self.excused_until.max(until);
    }

    /// Clients read, use what they got, and complain if it is refused.
    fn read(&mut self) {
        for source in 0..self.sources.len() {
            self.figures.reads += 1;
            match self.live(source) {
                None => self.note_gap(source),
                Some(published) => self.use_token(source, &published),
            }
        }
        let pause = match self.dice.u8(..20) {
            0 => self.dice.u64(10..500),
            _ => self.dice.u64(5 * SECOND..25 * 60 * SECOND),
        };
        self.plan(self.t + pause, Next::Read);
    }

    fn note_gap(&mut self, source: usize) {
        self.figures.gaps += 1;
        if let Some((_, end)) = self.fault {
            // Recovered from when a token is there again.
            self.recovering_since.get_or_insert(end.max(self.t));
        }
        if self.t > self.excused_until {
            self.fail(&format!(
                "no {:?}, although all has been well since {:.1} s",
                self.sources[source].kind,
                (self.t - self.excused_until) as f64 / 1e3
            ));
        }
    }

    fn use_token(&mut self, source: usize, published: &Published) {
        let value = published.record.value.expose().to_owned();
        let promised = published.promised_life(self.now()).unwrap_or_default();
        // Whole seconds, as clients are told.
        let until = self.t + promised.as_secs() * SECOND;
        if let Some(since) = self.recovering_since.filter(|since| *since <= self.t) {
            self.recovering_since = None;
            let took = (self.t - since) as f64 / 1e3;
            self.figures.longest_recovery = self.figures.longest_recovery.max(took);
        }
        if self.accepted(source, &value, self.t) {
            self.promise(source, value, until);
            return;
        }
        let in_doubt = promised < Duration::from_secs(1) && published.in_doubt_since.is_some();
        if in_doubt {
            self.figures.refused_served_in_doubt += 1;
        } else if self.is_tainted(source, &value) {
            self.figures.refused_served_foreign += 1;
        } else {
            self.fail(&format!(
                "a {:?} was served that the upstream refuses, with a promise of {promised:?}",
                self.sources[source].kind
            ));
        }
        self.complain(source, &value);
    }

    /// Whether the upstream's token may have changed behind our back since it gave this one.
    fn is_tainted(&self, source: usize, value: &str) -> bool {
        let issued = self.issued.get(value).copied().unwrap_or(0);
        self.sources[source].foreign_at.is_some_and(|at| at >= issued)
    }

    fn promise(&mut self, source: usize, value: String, until: u64) {
        let made = self.t;
        match self.promises.get_mut(&value) {
            Some((end, _)) if *end >= until => {}
            Some(promise) => *promise = (until, made),
            None => {
                self.promises.insert(value.clone(), (until, made));
                self.plan(until, Next::PromiseEnds { source, value });
            }
        }
    }

    fn check_promise(&mut self, source: usize, value: &str) {
        let (end, made) = self.promises[value];
        if end > self.t {
            // It has been promised for longer meanwhile.
            return self.plan(end, Next::PromiseEnds { source, value: value.to_owned() });
        }
        self.promises.remove(value);
        self.figures.promises += 1;
        // The last moment for which it was promised.
        let kept = end <= made || self.accepted(source, value, end - 1);
        if !kept && !self.is_tainted(source, value) {
            self.fail(&format!(
                "a {:?} was promised for {:.3} s and refused before",
                self.sources[source].kind,
                (end - made) as f64 / 1e3
            ));
        }
    }

    fn complain(&mut self, source: usize, value: &str) {
        let clients = if self.dice.u8(..4) == 0 { self.dice.u64(1..300) } else { 1 };
        self.figures.reports += clients;
        for _ in 0..clients {
            let id = self.waiter(source, Wanted::Other(value.to_owned()));
            let wish = Wish::Other { refused: Refused::parse(value), force: false };
            self.tell(source, Event::Asked(WaiterId(id), wish));
        }
    }

    fn mishap(&mut self) {
        let pause = self.dice.u64(60 * SECOND..DAY / 2);
        self.plan(self.t + pause, Next::Mishap);
        // The driver looks at the clocks within a minute of whatever happens to them.
        for source in 0..self.sources.len() {
            let within = self.dice.u64(1..60 * SECOND);
            let wake = &mut self.sources[source].wake;
            *wake = (*wake).min(self.t + within);
            self.plan(self.t + within, Next::Wake { source });
        }
        self.look();
        let kind = self.dice.u8(..12);
        self.trace(|| format!("    mishap {kind}"));
        match kind {
            0..=5 => {
                let (fault, lasts) = Fault::draw(&mut self.dice);
                self.figures.faults += 1;
                let end = self.t + u64::try_from(lasts.as_millis()).unwrap();
                self.fault = Some((fault, end));
                let class = match fault {
                    Fault::Refuses(code) => refused(code, false).class(),
                    _ => FailureClass::Transient,
                };
                let recovers = u64::try_from(recovery(class).as_millis()).unwrap();
                self.excuse(end + recovers);
            }
            6..=7 => self.restart(),
            8 => {
                // An NTP step, either way, of anything up to a day.
                let step = match self.dice.u8(..3) {
                    0 => self.dice.i64(-2_000..2_000),
                    1 => self.dice.i64(-600_000..600_000),
                    _ => self.dice.i64(-86_400_000..86_400_000),
                };
                self.wall_off += step;
                // What was promised by the old clock is renewed by the new one.
                self.taint(0);
                self.stepped_at = Some(self.t);
                if self.t < self.asleep_until + 61 * SECOND {
                    // Suspended and set back before anybody looked: no clock can tell the time.
                    self.taint(1);
                }
                // A step forwards ends the waits too.
                self.sources.iter_mut().for_each(|source| source.not_before = 0);
                self.excuse(self.t + 150 * SECOND);
            }
            9 => {
                // The machine is suspended: true time goes on, nothing else does.
                let slept = self.dice.u64(SECOND..4 * 3_600 * SECOND);
                self.sleep(slept);
            }
            10 => {
                self.model.rotate(WechatAccount::SANDBOX_APPID, self.truth(self.t));
                if self.sources[0].kind == Kind::Token {
                    self.taint(0);
                }
            }
            _ => {
                self.disk_broken_until = self.t + self.dice.u64(SECOND..1_800 * SECOND);
            }
        }
    }

    /// Time passes that our process does not see: what was planned for it comes right after it, but
    /// for what the upstream does meanwhile.
    fn sleep(&mut self, slept: u64) {
        self.asleep_until = self.t + slept;
        self.suspended += slept;
        for source in &mut self.sources {
            source.wake = 0;
            source.not_before = 0;
        }
        if self.stepped_at.is_some() {
            // Set back before, suspended now: until the machine has looked once, no clock can tell.
            for source in &mut self.sources {
                source.foreign_at = Some(self.asleep_until + LOOK);
            }
        }
        self.excuse(self.asleep_until + 150 * SECOND);
    }

    /// A crash (or an upgrade): what is in memory is gone, what is on disk is there.
    fn restart(&mut self) {
        self.figures.restarts += 1;
        self.booted = self.t;
        self.suspended = 0;
        self.hidden = HiddenTime::default();
        self.hidden_total = Duration::ZERO;
        self.look();
        let marks = self.kept_marks.iter().map(|(name, mark)| (name.clone(), *mark));
        self.ledger = Ledger::restore(self.kept_calls.values().cloned(), marks);
        let now = self.now();
        for at in 0..self.sources.len() {
            let seed = self.dice.u64(..);
            let source = &mut self.sources[at];
            let lost = source.published.as_ref().map(|published| published.record.generation)
                > source.kept.as_ref().map(|record| record.generation);
            source.machine = Machine::new(source.kind.policy(), IDENTITY, false, seed);
            source.published = None;
            source.work = None;
            source.epoch += 1;
            source.waiters.clear();
            source.not_before = 0;
            let kept = source.kept.clone();
            if lost || self.disk_broken_until > self.t {
                // The disk had refused it, loudly, or the mark of a request that is still on its way and
                // may come in after ours: not our promise.
                self.sources[at].foreign_at = Some(self.t + 11 * SECOND);
            }
            let kind = self.sources[at].kind;
            let unsettled = self.ledger.unsettled(&kind.name());
            let effects = self.sources[at].machine.restore(now, kept, unsettled);
            if !self.sources[at].machine.is_unsettled() {
                self.ledger.settle(&kind.name());
            }
            for effect in effects {
                if let Effect::Publish(published) = effect {
                    self.sources[at].published = Some(published);
                }
            }
        }
        if self.stepped_at.take().is_some() {
            // What was kept is dated by a clock that is another now.
            self.taint(0);
            self.taint(1);
        }
        self.excuse(self.t + 100 * SECOND);
        for source in 0..self.sources.len() {
            self.tell(source, Event::Woken);
        }
    }
}
