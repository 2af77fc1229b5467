//! The engine as a whole on the paused clock: a scripted upstream, a store in memory, no sockets.

mod supervision;
mod traps;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use super::*;
use crate::clock::{Clock, HiddenTime, Now, SystemClock};
use crate::config::{self, Environment};
use crate::refresh::handle::Refused;
use crate::refresh::queue;
use crate::refresh::report::Report;
use crate::sandbox::{Account, Caller, Model, Settings};
use crate::snapshot::{Happening, snapshot};
use crate::source::{FailureClass, Fetched};
use crate::token::Secret;

/// What the upstream does with one request.
#[derive(Clone)]
enum Step {
    /// A new token of this life, after this long.
    Give(u64, Duration),
    /// This value, of this life.
    Same(&'static str, u64),
    Fail(FetchError),
    Hang,
    Panic,
}

const HOUR: u64 = 3_600;

fn fetched(value: Secret, expires_in: Duration) -> Fetched {
    Fetched { value, expires_in, captured: None, upstream_time: None }
}

fn errcode(errcode: i64, class: FailureClass) -> Step {
    Step::Fail(FetchError::refused(errcode, class))
}

#[derive(Debug)]
struct Call {
    source: String,
    at: Duration,
    used: Option<String>,
    /// What an earlier answer gave to be sent with this one.
    captured: Option<String>,
}

/// Plays a script for each source; two-hour tokens when it has run out.
struct Scripted {
    scripts: Mutex<HashMap<&'static str, VecDeque<Step>>>,
    calls: Mutex<Vec<Call>>,
    given: AtomicUsize,
    /// Sources whose names begin so are never answered.
    hanging: Mutex<Option<&'static str>>,
    clock: SharedClock,
}

impl Scripted {
    fn new(
        scripts: impl Into<HashMap<&'static str, VecDeque<Step>>>,
        clock: &SharedClock,
    ) -> Arc<Scripted> {
        Arc::new(Scripted {
            scripts: Mutex::new(scripts.into()),
            calls: Mutex::default(),
            given: AtomicUsize::new(0),
            hanging: Mutex::default(),
            clock: Arc::clone(clock),
        })
    }
}

impl Upstream for Scripted {
    async fn fetch(
        &self,
        source: &TokenSource,
        request: &FetchRequest,
    ) -> Result<Fetched, FetchError> {
        let used = source.dependencies.first().and_then(|name| request.dependencies.get(name));
        self.calls.lock().unwrap().push(Call {
            source: source.name.to_string(),
            at: self.clock.now().mono,
            used: used.map(|secret| secret.expose().to_owned()),
            captured: request.captured.as_ref().map(|secret| secret.expose().to_owned()),
        });
        let hangs =
            self.hanging.lock().unwrap().is_some_and(|name| source.name.as_str().starts_with(name));
        if hangs {
            std::future::pending::<()>().await;
        }
        let step = self
            .scripts
            .lock()
            .unwrap()
            .get_mut(source.name.as_str())
            .and_then(VecDeque::pop_front);
        let give =
            |value: String, seconds| Ok(fetched(Secret::new(value), Duration::from_secs(seconds)));
        let fresh = || format!("{}-{}", source.name, self.given.fetch_add(1, Ordering::Relaxed));
        match step.unwrap_or(Step::Give(2 * HOUR, Duration::from_millis(100))) {
            Step::Give(seconds, delay) => {
                tokio::time::sleep(delay).await;
                give(fresh(), seconds)
            }
            Step::Same(value, seconds) => give(value.into(), seconds),
            Step::Fail(error) => Err(error),
            Step::Hang => std::future::pending().await,
            Step::Panic => panic!("scripted"),
        }
    }
}

/// Records in memory; refuses while `broken`, hangs while `stuck`, and with the marks of what is about
/// to be sent while `stuck_marks`.
#[derive(Clone, Default)]
struct MemoryStore {
    records: Arc<Mutex<Vec<(SourceName, TokenRecord)>>>,
    broken: Arc<Mutex<bool>>,
    stuck: Arc<Mutex<bool>>,
    stuck_marks: Arc<Mutex<bool>>,
}

impl RecordStore for MemoryStore {
    async fn put(&self, name: &SourceName, record: &TokenRecord) -> Result<(), StoreError> {
        if *self.stuck.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        if *self.broken.lock().unwrap() {
            return Err(StoreError("scripted".into()));
        }
        self.records.lock().unwrap().push((name.clone(), record.clone()));
        Ok(())
    }

    async fn put_calls(&self, _: &crate::account::Account, _: Calls) -> Result<(), StoreError> {
        Ok(())
    }

    async fn put_mark(&self, _: &SourceName, _: Option<Unsettled>) -> Result<(), StoreError> {
        if *self.stuck_marks.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// A clock whose wall can be stepped.
#[derive(Debug)]
struct SteppedClock {
    base: SharedClock,
    step: Mutex<Duration>,
    hidden: Mutex<(HiddenTime, Duration)>,
}

impl SteppedClock {
    fn bare(&self) -> Now {
        let now = self.base.now();
        Now { wall: now.wall + *self.step.lock().unwrap(), mono: now.mono }
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> Now {
        let bare = self.bare();
        Now { mono: bare.mono + self.hidden.lock().unwrap().1, ..bare }
    }

    fn look(&self) {
        let mut hidden = self.hidden.lock().unwrap();
        hidden.1 = hidden.0.look(self.bare());
    }
}

struct World {
    upstream: Arc<Scripted>,
    store: MemoryStore,
    reader: Reader,
    refresh: RefreshHandle,
    clock: Arc<SteppedClock>,
    drain: Drain,
}

const ONE: &str = r#"(token_sources: {"access_token": (url: "https://h/cgi-bin/token")})"#;
const TWO: &str = r#"(token_sources: {
    "access_token": (url: "https://h/cgi-bin/token"),
    "ticket": (url: "https://h/t", args: {"access_token": "{{access_token}}"}),
    "card": (url: "https://h/c", args: {"access_token": "{{access_token}}"}),
})"#;

fn source_of(config: &str) -> TokenSource {
    let config = config::parse(config, Path::new("c.ron"), &Environment::default()).unwrap();
    config.sources[0].clone()
}

fn world<const N: usize>(config: &str, scripts: [(&'static str, Vec<Step>); N]) -> World {
    restored(config, scripts, |_, _| None)
}

fn restored<const N: usize>(
    config: &str,
    scripts: [(&'static str, Vec<Step>); N],
    record: impl Fn(&TokenSource, Now) -> Option<TokenRecord>,
) -> World {
    let config = config::parse(config, Path::new("c.ron"), &Environment::default()).unwrap();
    let base =
        SystemClock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let stepped = Arc::new(SteppedClock { base, step: Mutex::default(), hidden: Mutex::default() });
    let clock: SharedClock = Arc::clone(&stepped) as SharedClock;
    let names = || config.sources.iter().map(|source| source.name.clone());
    let (publishers, reader) = snapshot(names());
    let (queues, refresh) = queue(names());
    let scripts = scripts.map(|(name, steps)| (name, steps.into()));
    let world = World {
        upstream: Scripted::new(scripts, &clock),
        store: MemoryStore::default(),
        reader,
        refresh,
        clock: stepped,
        drain: Drain::new(),
    };
    let tools = Arc::new(Tools {
        upstream: Arc::clone(&world.upstream),
        store: world.store.clone(),
        reader: world.reader.clone(),
        refresh: world.refresh.clone(),
        shared: Shared::new([], []),
        clock: Arc::clone(&clock),
    });
    for ((source, publisher), queue) in config.sources.iter().zip(publishers).zip(queues) {
        let (tools, drain) = (Arc::clone(&tools), world.drain.clone());
        let record = record(source, clock.now());
        let refresher = Refresher::new(
            source.clone(),
            record.map(Kept::OnDisk),
            publisher,
            queue,
            tools,
            drain,
        );
        world.drain.spawn(refresher.run());
    }
    world
}

impl World {
    fn now(&self) -> Duration {
        self.clock.now().mono
    }

    fn value(&self, name: &str) -> Option<String> {
        let live = self.reader.live(name, self.clock.now())?;
        Some(live.record().value.expose().to_owned())
    }

    fn generation(&self, name: &str) -> Option<Generation> {
        Some(self.reader.live(name, self.clock.now())?.record().generation)
    }

    /// Whether the source was fetched at the start and then each time in the window in which a
    /// two-hour token is due: ten minutes before its end, put off by a quarter of that at most.
    fn assert_renewed(&self, name: &str, times: usize) {
        let gaps = self.gaps(name);
        assert_eq!(gaps.len(), times, "{gaps:?}");
        assert!(gaps.iter().all(|gap| (6_599.0..6_752.0).contains(gap)), "{gaps:?}");
    }

    /// The whole seconds at which a source was fetched.
    fn fetched_at(&self, name: &str) -> Vec<u64> {
        let calls = self.upstream.calls.lock().unwrap();
        calls.iter().filter(|call| call.source == name).map(|call| call.at.as_secs()).collect()
    }

    fn gaps(&self, name: &str) -> Vec<f64> {
        let calls = self.upstream.calls.lock().unwrap();
        let at: Vec<f64> = calls
            .iter()
            .filter(|call| call.source == name)
            .map(|call| call.at.as_secs_f64())
            .collect();
        at.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Says that the current token was refused.
    async fn force(&self, name: &str) -> Result<String, RefreshError> {
        let refused = self.value(name).unwrap_or_default();
        self.ask(name, Wish::Other { refused: Refused::parse(&refused), force: false }).await
    }

    async fn ask(&self, name: &str, wish: Wish) -> Result<String, RefreshError> {
        let published = self.refresh.ask(name, wish).await?;
        Ok(published.record.value.expose().to_owned())
    }

    /// Waits for a value other than the one that is served now. On the paused clock a wait for what
    /// never comes would not end: in a day it must be there.
    async fn changed(&self, name: &str) {
        let mut changes = self.reader.changes(name).unwrap();
        let day = Duration::from_secs(24 * HOUR);
        tokio::time::timeout(day, changes.changed()).await.expect("a new value");
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_ten_minutes_ahead_three_times_in_a_row() {
    let world = world(ONE, []);
    for n in 1..=3 {
        world.changed("access_token").await;
        assert_eq!(world.value("access_token").unwrap(), format!("access_token-{}", n - 1));
    }
    world.changed("access_token").await;
    world.assert_renewed("access_token", 3);
}

#[tokio::test(start_paused = true)]
async fn the_life_counts_from_the_request_not_from_the_answer() {
    let slow = Step::Give(100, Duration::from_secs(9));
    let world = world(ONE, [("access_token", vec![slow])]);
    seconds(10).await;
    let life = world.reader.live("access_token", world.clock.now()).unwrap();
    assert_eq!(life.record().ttl(world.clock.now().wall), Some(Duration::from_secs(90)));
    world.changed("access_token").await;
    let due = world.fetched_at("access_token")[1];
    assert!((75..=82).contains(&due), "{due}");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_twenty_seconds_are_served_without_a_gap() {
    let steps = vec![Step::Give(20, Duration::from_millis(300)); 50];
    let world = world(ONE, [("access_token", steps)]);
    world.changed("access_token").await;
    for _ in 0..3_000 {
        assert!(world.value("access_token").is_some(), "gap at {:?}", world.now());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let fetches = world.fetched_at("access_token").len();
    assert!((36..=42).contains(&fetches), "{fetches} fetches in 600 s");
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_ever_more_slowly_and_hard_in_the_last_window() {
    let mut steps = vec![Step::Give(2 * HOUR, Duration::ZERO)];
    steps.extend(vec![Step::Fail(FetchError::Status(502)); 200]);
    let world = world(ONE, [("access_token", steps)]);
    seconds(2 * HOUR - 1).await;
    assert_eq!(world.value("access_token").unwrap(), "access_token-0");
    let gaps = &world.gaps("access_token")[1..];
    for (gap, longest) in gaps.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]) {
        assert!(*gap <= longest + 0.01 && *gap >= longest * 0.8 - 0.01, "{gaps:?}");
    }
    // From two minutes before the end: every five seconds, twenty-four times.
    let times = world.fetched_at("access_token");
    let hard = times.iter().filter(|at| **at >= 2 * HOUR - 121).count();
    assert!((20..=32).contains(&hard), "{hard} attempts in the last two minutes: {times:?}");
    // And without end, but as in an outage.
    seconds(HOUR).await;
    assert_eq!(world.value("access_token"), None);
    let dead = world.fetched_at("access_token").iter().filter(|at| **at > 2 * HOUR).count();
    assert!((55..=90).contains(&dead), "{dead} attempts in an hour without a token");
}

#[tokio::test(start_paused = true)]
async fn a_dependency_is_healed_also_when_something_else_had_failed_before() {
    let steps =
        vec![errcode(-1, FailureClass::Transient), errcode(42001, FailureClass::DependencyInvalid)];
    let world = world(TWO, [("ticket", steps)]);
    seconds(60).await;
    assert_eq!(world.fetched_at("access_token").len(), 2);
    assert!(world.value("ticket").is_some());
}

#[tokio::test(start_paused = true)]
async fn one_failure_at_the_start_does_not_end_the_loop() {
    // The original died of this (peers.md, S1 and S2; trap 1).
    let steps = vec![Step::Fail(FetchError::NotJson), errcode(-1, FailureClass::Transient)];
    let world = world(TWO, [("access_token", steps)]);
    seconds(10).await;
    assert_eq!(world.value("access_token").unwrap(), "access_token-0");
    assert!(world.value("ticket").is_some() && world.value("card").is_some());
}

#[tokio::test(start_paused = true)]
async fn one_failing_source_does_not_stop_another() {
    let broken = vec![errcode(48001, FailureClass::Misconfigured); 1_000];
    let world = world(TWO, [("ticket", broken)]);
    seconds(24 * HOUR).await;
    assert_eq!(world.fetched_at("card").len(), world.fetched_at("access_token").len());
    assert!(world.value("access_token").is_some() && world.value("ticket").is_none());
    let probes = world.fetched_at("ticket").len();
    assert!((140..200).contains(&probes), "{probes} probes of a misconfigured source in a day");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_satisfied_requests_does_not_move_the_renewal() {
    let world = world(ONE, []);
    world.changed("access_token").await;
    let older = Wish::Other { refused: Refused::parse("older"), force: false };
    while world.now() < Duration::from_secs(6_800) {
        world.ask("access_token", older).await.unwrap();
        seconds(1).await;
    }
    world.assert_renewed("access_token", 1);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_askers_share_one_fetch() {
    let slow = Step::Give(2 * HOUR, Duration::from_secs(2));
    let world = Arc::new(world(ONE, [("access_token", vec![slow.clone(), slow])]));
    world.changed("access_token").await;
    seconds(60).await;
    let askers = (0..200).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.force("access_token").await })
    });
    for asker in askers.collect::<Vec<_>>() {
        assert_eq!(asker.await.unwrap().unwrap(), "access_token-1");
    }
    assert_eq!(world.fetched_at("access_token"), [0, 62]);
}

#[tokio::test(start_paused = true)]
async fn within_the_cooldown_a_refused_token_is_not_answered_again() {
    let world = world(ONE, []);
    world.changed("access_token").await;
    seconds(29).await;
    let told = world.force("access_token").await.unwrap_err();
    let wait = Duration::from_secs(1);
    assert_eq!(told, RefreshError::TooSoon { wait });
    assert!(!told.to_string().contains("access_token-0"));
    seconds(1).await;
    assert_eq!(world.force("access_token").await.unwrap(), "access_token-1");
    assert_eq!(world.fetched_at("access_token"), [0, 30]);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_say_what_was_refused_has_a_cooldown_ten_times_as_long() {
    let world = world(ONE, []);
    world.changed("access_token").await;
    let any = Wish::Any { newer_than: world.generation("access_token"), force: false };
    seconds(299).await;
    assert_eq!(world.ask("access_token", any).await.unwrap(), "access_token-0");
    seconds(1).await;
    assert_eq!(world.ask("access_token", any).await.unwrap(), "access_token-1");
    assert_eq!(world.fetched_at("access_token"), [0, 300]);
}

#[tokio::test(start_paused = true)]
async fn the_cooldown_survives_a_restart() {
    let world = restored(ONE, [], |source, now| Some(record(source, now, 10, 7_200)));
    let told = world.force("access_token").await.unwrap_err();
    assert_eq!(told, RefreshError::TooSoon { wait: Duration::from_secs(20) });
    assert_eq!(world.fetched_at("access_token"), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_forced_refresh_says_why_keeps_the_token_and_may_be_forced_again() {
    let steps =
        vec![Step::Give(2 * HOUR, Duration::ZERO), errcode(40164, FailureClass::Misconfigured)];
    let world = world(ONE, [("access_token", steps)]);
    world.changed("access_token").await;
    seconds(60).await;
    let told = world.force("access_token").await.unwrap_err();
    assert_eq!(told.to_string(), "the upstream answered errcode 40164");
    assert_eq!(world.value("access_token").unwrap(), "access_token-0");
    // The failure is shared for a second; then the operator may have mended it.
    let told = world.force("access_token").await.unwrap_err();
    assert!(told.to_string().ends_with("try again in 1 second"), "{told}");
    seconds(1).await;
    assert_eq!(world.force("access_token").await.unwrap(), "access_token-1");
    assert_eq!(world.fetched_at("access_token"), [0, 60, 61]);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_upstream_is_left_alone_for_the_minute_whoever_asks() {
    let steps = vec![Step::Give(2 * HOUR, Duration::ZERO), errcode(45011, FailureClass::Throttled)];
    let world = world(ONE, [("access_token", steps)]);
    world.changed("access_token").await;
    seconds(60).await;
    for _ in 0..10 {
        let told = world.force("access_token").await.unwrap_err();
        assert!(told.to_string().contains("try again in"), "{told}");
        seconds(4).await;
    }
    assert_eq!(world.fetched_at("access_token"), [0, 60]);
    seconds(25).await;
    assert!(world.force("access_token").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn clients_that_ask_in_a_loop_cannot_spend_the_day() {
    let text = r#"(token_sources: {"access_token": (url: "https://h/cgi-bin/token")})"#;
    let world = world(text, []);
    world.changed("access_token").await;
    let end = world.now() + Duration::from_secs(24 * HOUR);
    while world.now() < end {
        let _ = world.force("access_token").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    // 2000 a day, of which the schedule keeps a fifth. The day begins at 16:00 in Beijing: eight hours
    // of one fetch in 30 s, then sixteen hours that would have 1920 of them.
    let fetches = world.fetched_at("access_token").len();
    assert!((2_400..=2_600).contains(&fetches), "{fetches}");
    assert!(world.value("access_token").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_sticky_token_is_renewed_in_its_last_window_and_forced_on_demand_only() {
    let text = r#"(token_sources: {"access_token": (url: "https://h/cgi-bin/stable_token", rotation: Sticky(window: "5m"))})"#;
    let sticky = |left| Step::Same("same", left);
    let world = world(
        text,
        [("access_token", vec![sticky(7_200), sticky(7_140), sticky(280), sticky(270)])],
    );
    world.changed("access_token").await;
    seconds(60).await;
    // Refused, and the upstream stands by it: said, not answered.
    assert_eq!(world.force("access_token").await, Err(RefreshError::Unchanged));
    // Unchanged in the window: asked again soon, but not in a loop.
    world.changed("access_token").await;
    let times = world.fetched_at("access_token");
    assert!((6_905..=6_980).contains(&times[2]), "{times:?}");
    assert!(times.len() == 5 && times[4] - times[2] <= 12 && times[3] > times[2], "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn who_forces_a_new_value_twice_is_told_of_the_pause_in_between() {
    let text = r#"(token_sources: {"access_token": (url: "https://h/cgi-bin/stable_token", rotation: Sticky(window: "5m"))})"#;
    let world = world(text, []);
    world.changed("access_token").await;
    let new = || Wish::Any { newer_than: world.generation("access_token"), force: true };
    assert_eq!(world.ask("access_token", new()).await.unwrap(), "access_token-1");
    seconds(9).await;
    let told = world.ask("access_token", new()).await.unwrap_err();
    assert_eq!(told, RefreshError::ForcedTooOften { wait: Duration::from_secs(21) });
    assert_eq!(
        told.to_string(),
        "a new token may be forced every 30 s, and 20 times a day; try again in 21 seconds"
    );
    // Nothing is wrong with the source.
    assert_eq!(world.reader.trouble("access_token"), None);
    seconds(21).await;
    assert_eq!(world.ask("access_token", new()).await.unwrap(), "access_token-2");
}

#[tokio::test(start_paused = true)]
async fn a_day_whose_forces_are_used_up_holds_nobody_back_who_does_not_force() {
    let text = r#"(token_sources: {"access_token": (url: "https://h/cgi-bin/stable_token", rotation: Sticky(window: "5m"))})"#;
    let world = world(text, []);
    world.changed("access_token").await;
    let new = || Wish::Any { newer_than: world.generation("access_token"), force: true };
    for _ in 0..20 {
        world.ask("access_token", new()).await.unwrap();
        seconds(31).await;
    }
    let told = world.ask("access_token", new()).await.unwrap_err();
    assert!(matches!(told, RefreshError::ForcedTooOften { .. }), "{told:?}");
    // At once after it.
    assert_eq!(world.force("access_token").await.unwrap(), "access_token-21");
}

#[tokio::test(start_paused = true)]
async fn a_nominal_life_counts_from_first_sight_and_has_no_gap() {
    let text = r#"(token_sources: {"ticket": (url: "https://h/cgi-bin/ticket/getticket", rotation: Nominal)})"#;
    // Ten polls in the last minutes and eight beyond the end bring the same, then there is a new one.
    let world = world(text, [("ticket", vec![Step::Same("same", 7_200); 18])]);
    world.changed("ticket").await;
    let first = world.generation("ticket").unwrap();
    while world.generation("ticket").unwrap_or(first) == first {
        assert!(world.value("ticket").is_some(), "a gap at {:?}", world.now());
        let live = world.reader.live("ticket", world.clock.now()).unwrap();
        assert!(
            live.promised_life()
                <= Duration::from_secs(7_200) - world.now().min(Duration::from_secs(6_900))
        );
        drop(live);
        seconds(1).await;
    }
    let gaps = &world.gaps("ticket")[1..];
    assert!(gaps.iter().all(|gap| (59.9..=61.0).contains(gap)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_fetch_is_told_once_for_each_token() {
    let world = world(ONE, []);
    world.changed("access_token").await;
    seconds(60).await;
    let refused = Refused::parse("access_token-0");
    let wish = Wish::Other { refused, force: false };
    let mut machine = new_machine(&source_of(ONE), &(Arc::clone(&world.clock) as SharedClock));
    let now = world.clock.now();
    machine.restore(now, Some(record(&source_of(ONE), now, 600, 7_200)), None);
    let kept = Wish::Other { refused: Refused::parse("kept"), force: false };
    let told = |machine: &mut Machine| {
        let effects = machine.on(now, Event::Asked(WaiterId(0), kept));
        effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Report(Report::Foreign { .. })))
            .count()
    };
    assert_eq!((told(&mut machine), told(&mut machine)), (1, 0));
    assert_eq!(world.ask("access_token", wish).await.unwrap(), "access_token-1");
}

#[tokio::test(start_paused = true)]
async fn who_knows_an_older_token_is_satisfied_during_a_failing_attempt() {
    let steps = vec![Step::Give(2 * HOUR, Duration::ZERO), Step::Hang];
    let world = Arc::new(world(ONE, [("access_token", steps)]));
    world.changed("access_token").await;
    seconds(60).await;
    let failing = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.force("access_token").await }
    });
    seconds(1).await;
    let older = Wish::Other { refused: Refused::parse("older"), force: false };
    assert_eq!(world.ask("access_token", older).await.unwrap(), "access_token-0");
    let told = failing.await.unwrap().unwrap_err();
    assert_eq!(told.to_string(), "the upstream did not answer in time");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_upstream_is_cut_off_and_tried_again() {
    let world = world(ONE, [("access_token", vec![Step::Hang])]);
    seconds(13).await;
    assert_eq!(world.value("access_token").unwrap(), "access_token-0");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_refuses_loses_no_token_and_is_tried_again() {
    let world = world(ONE, []);
    *world.store.broken.lock().unwrap() = true;
    world.changed("access_token").await;
    assert_eq!(world.value("access_token").unwrap(), "access_token-0");
    seconds(300).await;
    assert!(world.store.records.lock().unwrap().is_empty());
    *world.store.broken.lock().unwrap() = false;
    seconds(61).await;
    assert_eq!(world.store.records.lock().unwrap().len(), 1);
    seconds(600).await;
    assert_eq!(world.store.records.lock().unwrap().len(), 1, "saved once");
    assert_eq!(world.fetched_at("access_token"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_delays_a_token_by_two_seconds_at_most() {
    let world = world(ONE, []);
    *world.store.stuck.lock().unwrap() = true;
    *world.store.stuck_marks.lock().unwrap() = true;
    world.changed("access_token").await;
    assert_eq!(world.now(), Duration::from_millis(2_100));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_on_disk_before_anybody_sees_it() {
    let world = world(ONE, []);
    world.changed("access_token").await;
    assert_eq!(world.store.records.lock().unwrap()[0].1.value.expose(), "access_token-0");
}

fn record(source: &TokenSource, now: Now, age: u64, life: u64) -> TokenRecord {
    let fetched_at = now.wall - Duration::from_secs(age);
    TokenRecord {
        value: Secret::new("kept"),
        fetched_at,
        expires_at: fetched_at + Duration::from_secs(life),
        generation: Generation(77),
        first_seen: fetched_at,
        identity: source.identity,
        captured: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_serves_the_kept_token_and_makes_no_fetch_while_it_is_good() {
    let world = restored(ONE, [], |source, now| Some(record(source, now, 1_000, 7_200)));
    assert_eq!(world.value("access_token").unwrap(), "kept");
    seconds(5_590).await;
    assert_eq!(world.fetched_at("access_token"), [0; 0]);
    world.changed("access_token").await;
    let due = world.fetched_at("access_token")[0];
    assert!((5_600..=5_750).contains(&due), "{due}");
    assert_eq!(world.generation("access_token"), Some(Generation(78)));
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_or_belongs_to_another_source_is_not_served_after_a_restart() {
    let ended = restored(
        ONE,
        [("access_token", vec![Step::Fail(FetchError::Status(500))])],
        |source, now| Some(record(source, now, 7_200, 7_200)),
    );
    assert_eq!(ended.value("access_token"), None);
    ended.changed("access_token").await;
    assert_eq!(ended.generation("access_token"), Some(Generation(78)));
    let foreign = restored(ONE, [], |source, now| {
        Some(TokenRecord {
            identity: crate::token::SourceIdentity([9; 32]),
            ..record(source, now, 0, 7_200)
        })
    });
    assert_eq!(foreign.value("access_token"), None);
    foreign.changed("access_token").await;
    assert_eq!(foreign.value("access_token").unwrap(), "access_token-0");
}

#[tokio::test(start_paused = true)]
async fn a_record_from_the_future_is_not_served() {
    // The clock is a day behind what it was: nothing is known of the record's age.
    let world = restored(ONE, [], |source, now| {
        let ahead = now.after(Duration::from_secs(24 * HOUR));
        Some(record(source, ahead, 0, 7_200))
    });
    assert_eq!(world.value("access_token"), None);
    world.changed("access_token").await;
    assert_eq!(world.generation("access_token"), Some(Generation(78)));
    assert_eq!(world.fetched_at("access_token"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_dependent_waits_for_its_dependency() {
    let slow = Step::Give(2 * HOUR, Duration::from_secs(5));
    let world = world(TWO, [("access_token", vec![slow])]);
    world.changed("ticket").await;
    let calls = world.upstream.calls.lock().unwrap();
    let first = calls.iter().find(|call| call.source == "ticket").unwrap();
    assert_eq!(first.used.as_deref(), Some("access_token-0"));
    assert_eq!(first.at, Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_dependency_does_not_make_a_dependent_fetch_again() {
    let world = world(TWO, []);
    world.changed("ticket").await;
    seconds(60).await;
    world.force("access_token").await.unwrap();
    seconds(60).await;
    assert_eq!(world.fetched_at("ticket").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_follower_of_its_dependency_is_fetched_again_when_that_changes() {
    let text = r#"(token_sources: {
        "access_token": (url: "https://h/cgi-bin/token"),
        "ticket": (url: "https://h/t", args: {"access_token": "{{access_token}}"}, follow: true),
    })"#;
    let world = world(text, []);
    world.changed("ticket").await;
    seconds(60).await;
    world.force("access_token").await.unwrap();
    world.changed("ticket").await;
    assert_eq!(world.fetched_at("ticket").len(), 2);
    let calls = world.upstream.calls.lock().unwrap();
    assert_eq!(calls.last().unwrap().used.as_deref(), Some("access_token-2"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_dependency_is_renewed_once_however_many_dependents_complain() {
    let good = Step::Give(2 * HOUR, Duration::from_millis(100));
    let refused = || vec![good.clone(), errcode(40001, FailureClass::DependencyInvalid)];
    let world = world(TWO, [("ticket", refused()), ("card", refused())]);
    world.changed("card").await;
    // Both complain of the same token: the first renewal of it serves both.
    seconds(60).await;
    let (ticket, card) = tokio::join!(world.force("ticket"), world.force("card"));
    assert!(ticket.is_ok() && card.is_ok());
    assert_eq!(world.fetched_at("ticket").len(), 3);
    assert_eq!(world.fetched_at("card").len(), 3);
    assert_eq!(world.fetched_at("access_token").len(), 2);
    assert!(world.value("ticket").is_some() && world.value("card").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_dependent_that_is_always_refused_does_not_rotate_its_dependency_for_ever() {
    let refused = vec![errcode(40001, FailureClass::DependencyInvalid); 10_000];
    let world = world(TWO, [("ticket", refused)]);
    seconds(HOUR - 10).await;
    let fetches = world.fetched_at("access_token").len();
    // The first, and healings about 0, 5, 15 and 35 minutes after it.
    assert!((4..=5).contains(&fetches), "{fetches} fetches");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_past_the_end_serves_no_dead_token() {
    let world = world(
        ONE,
        [(
            "access_token",
            vec![Step::Give(2 * HOUR, Duration::ZERO), Step::Fail(FetchError::Status(500))],
        )],
    );
    world.changed("access_token").await;
    *world.clock.step.lock().unwrap() = Duration::from_secs(3 * HOUR);
    assert_eq!(world.value("access_token"), None);
    // Noticed within a minute, and tried again after the failure.
    seconds(62).await;
    assert!(world.value("access_token").is_some());
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_suspend_is_not_given_back_by_a_clock_that_is_set_back() {
    let world = world(ONE, []);
    world.changed("access_token").await;
    // An hour and a half in which the monotonic clock stood still …
    *world.clock.step.lock().unwrap() = Duration::from_secs(5_400);
    seconds(61).await;
    assert_eq!(world.fetched_at("access_token").len(), 1);
    // … and which the wall clock forgets: the renewal comes when it was due all the same.
    *world.clock.step.lock().unwrap() = Duration::ZERO;
    world.changed("access_token").await;
    let awake = world.clock.base.now().mono.as_secs();
    assert!((1_100..=1_400).contains(&awake), "an hour and a half earlier than else: {awake}");
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_value_keeps_its_generation_and_first_sight() {
    let steps = vec![Step::Same("same", 100), Step::Same("same", 7_200)];
    let world = world(ONE, [("access_token", steps)]);
    world.changed("access_token").await;
    let first = world.reader.live("access_token", world.clock.now()).unwrap().record().clone();
    seconds(80).await;
    let second = world.reader.live("access_token", world.clock.now()).unwrap().record().clone();
    assert_eq!((first.generation, first.first_seen), (second.generation, second.first_seen));
    assert!(second.expires_at > first.expires_at);
}

#[tokio::test(start_paused = true)]
async fn a_life_that_is_over_on_arrival_is_a_failure_not_a_loop() {
    let steps = vec![Step::Give(1, Duration::from_secs(2)); 100];
    let world = world(ONE, [("access_token", steps)]);
    seconds(300).await;
    // Tried hard for two minutes, then as in an outage.
    assert!(world.fetched_at("access_token").len() < 45);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_shortens_the_promise_until_a_retry_soon_after() {
    let good = Step::Give(2 * HOUR, Duration::ZERO);
    let lost = vec![good, Step::Fail(FetchError::TimedOut)];
    let world = world(ONE, [("access_token", lost)]);
    world.changed("access_token").await;
    seconds(60).await;
    world.force("access_token").await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let promised =
        || world.reader.live("access_token", world.clock.now()).unwrap().promised_life().as_secs();
    assert_eq!(promised(), 299);
    world.changed("access_token").await;
    assert!(world.now() <= Duration::from_millis(61_100), "{:?}", world.now());
    assert!(promised() >= 6_899);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_leaves_the_promise_as_it_was() {
    let steps = vec![Step::Give(2 * HOUR, Duration::ZERO), errcode(-1, FailureClass::Transient)];
    let world = world(ONE, [("access_token", steps)]);
    world.changed("access_token").await;
    seconds(60).await;
    world.force("access_token").await.unwrap_err();
    let live = world.reader.live("access_token", world.clock.now()).unwrap();
    assert!(live.promised_life() >= Duration::from_secs(6_839), "{:?}", live.promised_life());
}

#[tokio::test(start_paused = true)]
async fn a_doubt_survives_a_restart_and_is_cleared_by_a_fetch() {
    // A mark from before the record is one by a clock that has been set back: the write of a record
    // takes away what was there.
    for (unsettled_before, promise) in [(1_500_u64, 0), (500, 0), (60, 240)] {
        let config = config::parse(ONE, Path::new("c.ron"), &Environment::default()).unwrap();
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = SystemClock::following_tokio(base);
        let now = clock.now();
        let since = base - Duration::from_secs(unsettled_before);
        let mark = Unsettled { first: since, last: since };
        let name = config.sources[0].name.clone();
        let (mut publishers, reader) = snapshot([name.clone()]);
        let (mut queues, refresh) = queue([name]);
        let upstream = Scripted::new([], &clock);
        let tools = Tools {
            upstream: Arc::clone(&upstream),
            store: MemoryStore::default(),
            reader: reader.clone(),
            refresh,
            shared: Shared::new([], [(config.sources[0].name.clone(), mark)]),
            clock: Arc::clone(&clock),
        };
        let drain = Drain::new();
        let source = config.sources[0].clone();
        // Fetched 1000 s ago.
        let kept = record(&source, now, 1_000, 7_200);
        let refresher = Refresher::new(
            source,
            Some(Kept::OnDisk(kept)),
            publishers.remove(0),
            queues.remove(0),
            Arc::new(tools),
            drain.clone(),
        );
        let live = reader.live("access_token", now).unwrap().promised_life().as_secs();
        assert_eq!(live, promise, "{unsettled_before}");
        drain.spawn(refresher.run());
        seconds(30).await;
        let calls = upstream.calls.lock().unwrap();
        assert_eq!(calls.first().map(|call| call.at.as_secs()), Some(0), "{unsettled_before}");
    }
}

/// WeChat as the sandbox models it, on the paused clock.
struct Modelled {
    model: Mutex<Model>,
    clock: SharedClock,
    latency: Duration,
}

impl Upstream for Modelled {
    async fn fetch(&self, _: &TokenSource, _: &FetchRequest) -> Result<Fetched, FetchError> {
        tokio::time::sleep(self.latency / 2).await;
        let caller = Caller::new(Account::SANDBOX_APPID, Account::SANDBOX_SECRET);
        let grant = self.model.lock().unwrap().token(caller, self.clock.now().wall).unwrap();
        tokio::time::sleep(self.latency / 2).await;
        Ok(fetched(grant.value, grant.expires_in))
    }
}

#[tokio::test(start_paused = true)]
async fn no_promise_is_broken_over_ten_rotations_of_short_tokens() {
    let text = r#"(refresh: (overlap: "2s"), token_sources: {"access_token": (url: "https://h/cgi-bin/token")})"#;
    let config = config::parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
    let clock =
        SystemClock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let name = config.sources[0].name.clone();
    let (mut publishers, reader) = snapshot([name.clone()]);
    let (mut queues, refresh) = queue([name]);
    let settings = Settings {
        lifetime: Duration::from_secs(48),
        overlap: Some(Duration::from_secs(2)),
        ..Settings::default()
    };
    let upstream = Arc::new(Modelled {
        model: Mutex::new(Model::new(settings, [Account::default()], 1)),
        clock: Arc::clone(&clock),
        latency: Duration::from_millis(700),
    });
    let tools = Tools {
        upstream: Arc::clone(&upstream),
        store: MemoryStore::default(),
        reader: reader.clone(),
        refresh,
        shared: Shared::new([], []),
        clock: Arc::clone(&clock),
    };
    let (drain, tools) = (Drain::new(), Arc::new(tools));
    let source = config.sources[0].clone();
    let refresher =
        Refresher::new(source, None, publishers.remove(0), queues.remove(0), tools, drain.clone());
    drain.spawn(refresher.run());
    reader.changes("access_token").unwrap().changed().await;

    // Each token with the latest instant until which some answer has promised it.
    let mut promised: HashMap<String, SystemTime> = HashMap::new();
    while promised.len() < 11 {
        let now = clock.now();
        let live = reader.live("access_token", now).expect("no gap");
        let seconds = Duration::from_secs(live.promised_life().as_secs());
        let until = promised.entry(live.record().value.expose().to_owned()).or_insert(now.wall);
        *until = (*until).max(now.wall + seconds);
        drop(live);
        for (token, until) in &promised {
            if *until > now.wall {
                let verdict = upstream.model.lock().unwrap().accepts(token, now.wall);
                assert!(
                    verdict.is_live(),
                    "promised for {:?} more",
                    until.duration_since(now.wall)
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let elapsed = clock.now().mono.as_secs();
    assert!((360..=402).contains(&elapsed), "ten rotations of 36 to 39 s took {elapsed} s");
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_the_fetch_under_way_finish_and_be_stored() {
    let slow = Step::Give(2 * HOUR, Duration::from_secs(3));
    let world = world(ONE, [("access_token", vec![slow])]);
    seconds(1).await;
    world.drain.begin();
    world.drain.finished().await;
    assert_eq!(world.now(), Duration::from_secs(3));
    assert_eq!(world.store.records.lock().unwrap().len(), 1);
    let any = Wish::Any { newer_than: None, force: false };
    assert_eq!(world.ask("access_token", any).await, Err(RefreshError::Draining));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_source_is_refused() {
    let world = world(ONE, []);
    let any = Wish::Any { newer_than: None, force: false };
    assert_eq!(world.ask("nope", any).await, Err(RefreshError::UnknownSource));
}

#[tokio::test(start_paused = true)]
async fn who_looks_on_hears_of_foreign_fetches_and_of_the_days_calls() {
    let config = r#"(refresh: (cooldown: "0s"), token_sources: {"access_token": (
        url: "https://h/cgi-bin/token", args: {"appid": "wx0"}, daily_limit: 10)})"#;
    let world = world(config, []);
    let mut onlooker = world.reader.happenings();
    let (mut foreign, mut parts) = (Vec::new(), Vec::new());
    world.changed("access_token").await;
    for _ in 0..7 {
        foreign.push(world.generation("access_token").unwrap());
        world.force("access_token").await.unwrap();
    }
    let mut heard = Vec::new();
    while let Some(happening) = onlooker.next().now_or_never() {
        match happening {
            Happening::Foreign { source, generation } => {
                assert_eq!(source.as_str(), "access_token");
                heard.push(generation);
            }
            Happening::CallsUsed(used) => {
                assert_eq!((&*used.account.name, used.limit), ("wx0", 10));
                parts.push((used.made, used.percent));
            }
            Happening::Rotated { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, foreign);
    assert_eq!(parts, [(5, 50), (8, 80)]);
}

#[tokio::test]
async fn a_source_that_waits_takes_little() {
    let (mut publishers, reader) = snapshot([SourceName::parse("a").unwrap()]);
    let (mut queues, refresh) = queue([SourceName::parse("a").unwrap()]);
    let (store, shared) = (MemoryStore::default(), Shared::new([], []));
    let clock = SystemClock::shared();
    let upstream = Scripted::new([], &clock);
    let tools = Arc::new(Tools { upstream, store, reader, refresh, shared, clock });
    let text = r#"(token_sources: {"a": (url: "https://h/t")})"#;
    let mut config = config::parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
    let source = config.sources.remove(0);
    let (publisher, queue) = (publishers.remove(0), queues.remove(0));
    let mut refresher = Refresher::new(source, None, publisher, queue, tools, Drain::new());
    // Of a block of 512 bytes malloc takes eight.
    assert!(size_of_val(&*refresher) <= 504, "{} bytes", size_of_val(&*refresher));
    // One for each source, when all of them start together.
    let waiting = refresher.fetch(refresher.tools.clock.now(), Purpose::Scheduled);
    assert!(size_of_val(&*waiting) <= 304, "{} bytes", size_of_val(&*waiting));
    // With what tokio and the drain add to it, a task is a block of 512 bytes: they are cut to 128.
    let task = refresher.run();
    assert!(size_of_val(&task) <= 392, "{} bytes", size_of_val(&task));
}
