//! One task per source: carries the machine's effects out (fetch, store, publish, answer, sleep)
//! and brings it the events. Small enough to read in one sitting; decides nothing.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture, select_all};
use tokio::sync::oneshot;

use crate::account::{Account, Calls, Unsettled};
use crate::clock::{Now, SharedClock};
use crate::config::TokenSource;
use crate::refresh::handle::{RefreshError, RefreshHandle, RefreshRequest, Wish};
use crate::refresh::ledger::{Admitted, Denied, Ledger, Purpose};
use crate::refresh::line::RequestQueue;
use crate::refresh::machine::{Effect, Event, MAX_WAITERS, Machine, WaiterId};
use crate::refresh::meters::Meters;
use crate::refresh::places::Places;
use crate::refresh::report::{self, Report};
use crate::shutdown::Drain;
use crate::snapshot::{CallsUsed, Changes, Published, Publisher, Reader};
use crate::source::{Dependencies, FetchError, FetchRequest, Upstream};
use crate::store::{RecordStore, StoreError};
use crate::token::{Generation, SourceName, TokenRecord};

/// How long a write may take before its token is served from memory, and how long the mark of a
/// request before that is sent: together two seconds. Longer, and clients would wait for a disk that
/// hangs.
const STORE_PATIENCE: Duration = Duration::from_millis(1_500);
const MARK_PATIENCE: Duration = Duration::from_millis(500);

/// How long beyond its timeout a fetch is left to end by itself, which tells more than cutting it.
const FETCH_MARGIN: Duration = Duration::from_secs(1);

/// The wait before a refresher that panicked is started again, and the longest one.
const RESTART_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What all refreshers share: the count of calls, and the places for requests that are prepared and
/// under way.
#[derive(Debug)]
pub struct Shared {
    ledger: Mutex<Ledger>,
    meters: Meters,
    places: Places,
}

impl Shared {
    /// Begins with the counts and marks that were kept.
    pub fn new(
        calls: impl IntoIterator<Item = (Account, Calls)>,
        marks: impl IntoIterator<Item = (SourceName, Unsettled)>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            ledger: Mutex::new(Ledger::restore(calls, marks)),
            meters: Meters::default(),
            places: Places::new(),
        })
    }

    /// The calls of an account today.
    pub fn calls(&self, account: &Account, now: Now) -> Calls {
        self.ledger().calls(account, now.wall)
    }

    /// What the refreshers have counted and timed.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// How many resets of its calls an account has had this month.
    pub fn resets(&self, account: &str, now: Now) -> u32 {
        self.ledger().resets(account, now.wall)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Its pages are whole after each call, whoever panicked in between.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every refresher works with: one for all of them.
#[derive(Debug)]
pub struct Tools<U, S> {
    /// Where tokens come from.
    pub upstream: Arc<U>,
    /// Where they are kept.
    pub store: S,
    /// The other sources' tokens.
    pub reader: Reader,
    /// The other sources' refreshers.
    pub refresh: RefreshHandle,
    /// What all refreshers share.
    pub shared: Arc<Shared>,
    /// The time.
    pub clock: SharedClock,
}

/// What a refresher begins with.
#[derive(Debug)]
pub enum Kept {
    /// What the store held.
    OnDisk(TokenRecord),
    /// What the refresher before it, in this process, has published.
    Served(Arc<Published>),
}

/// One source's refresher.
pub struct Refresher<U, S> {
    source: Arc<TokenSource>,
    publisher: Publisher,
    queue: RequestQueue,
    tools: Arc<Tools<U, S>>,
    /// The end.
    drain: Drain,
    machine: Machine,
    /// What is under way; the machine sees to it that it is one thing at a time.
    work: Option<BoxFuture<'static, Event>>,
    waiters: BTreeMap<u64, oneshot::Sender<Result<Arc<Published>, RefreshError>>>,
    next_waiter: u64,
    changes: Vec<Changes>,
    /// Whether the ledger has the request that is under way.
    entered: bool,
    /// The generations of the dependencies that the last request was made with.
    used: Vec<(SourceName, Generation)>,
}

impl<U: Upstream, S: RecordStore> Refresher<U, S> {
    /// A refresher of `source`, with what is kept of it. A live record is published at once.
    ///
    /// Boxed, since it is large and moves: a task that it moved into would have room for it twice.
    pub fn new(
        source: impl Into<Arc<TokenSource>>,
        kept: Option<Kept>,
        publisher: Publisher,
        queue: RequestQueue,
        tools: Arc<Tools<U, S>>,
        drain: Drain,
    ) -> Box<Refresher<U, S>> {
        let source: Arc<TokenSource> = source.into();
        let changes =
            source.dependencies.iter().filter_map(|name| tools.reader.changes(name.as_str()));
        let changes = changes.collect();
        let machine = new_machine(&source, &tools.clock);
        let mut refresher = Box::new(Refresher {
            source,
            publisher,
            queue,
            tools,
            drain,
            machine,
            work: None,
            waiters: BTreeMap::new(),
            next_waiter: 0,
            changes,
            entered: false,
            used: Vec::new(),
        });
        refresher.restore(kept);
        refresher
    }

    fn restore(&mut self, kept: Option<Kept>) {
        let now = self.tools.clock.now();
        let unsettled = self.ledger().unsettled(&self.source.name);
        let effects = match kept {
            None => self.machine.restore(now, None, unsettled),
            Some(Kept::OnDisk(record)) => self.machine.restore(now, Some(record), unsettled),
            Some(Kept::Served(published)) => self.machine.inherit(now, &published, unsettled),
        };
        if !self.machine.is_unsettled() {
            // The record is the outcome: the next request counts from its own time.
            self.ledger().settle(&self.source.name);
        }
        self.carry_out(now, effects);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.tools.shared.ledger()
    }

    /// Keeps the token fresh until the drain. A panic is logged and the work goes on from what is
    /// published; the other sources notice nothing.
    pub async fn run(mut self: Box<Self>) {
        let mut panics = 0_u32;
        loop {
            let begun = self.tools.clock.now().mono;
            if AssertUnwindSafe(self.refresh_until_drained()).catch_unwind().await.is_ok() {
                return;
            }
            let (first, longest) = RESTART_WAIT;
            let held = self.tools.clock.now().mono.saturating_sub(begun) > longest;
            panics = if held { 0 } else { panics + 1 };
            let wait = first.saturating_mul(1 << panics.min(6)).min(longest);
            tracing::error!(source = %self.source.name, restart_in = ?wait, "a refresher panicked; this is a bug, please report it");
            self.work = None;
            self.waiters.clear();
            self.machine = new_machine(&self.source, &self.tools.clock);
            tokio::select! {
                biased;
                () = self.drain.begun() => return,
                () = tokio::time::sleep(wait) => {}
            }
            self.restore(self.publisher.current().map(Kept::Served));
        }
    }

    async fn refresh_until_drained(&mut self) {
        let mut event = Event::Woken;
        // Whether a request whose outcome matters has failed; where it left no doubt, the disk is told.
        // (The record of a success removes its mark.)
        let mut settled = false;
        loop {
            // A life must not be counted from before a jump that is noticed only later.
            self.tools.clock.look();
            let now = self.tools.clock.now();
            if self.waiters.len() >= MAX_WAITERS {
                self.forget_who_left();
            }
            let effects = self.machine.on(now, event);
            self.carry_out(now, effects);
            if std::mem::take(&mut settled) && !self.machine.is_unsettled() {
                self.unmark();
            }
            if self.machine.is_finished() {
                return;
            }
            let now = self.tools.clock.now();
            self.publisher.note_next_renewal(self.machine.next_renewal(now));
            // From the absolute instant, each time: a stream of requests does not move it.
            let wake = self.machine.wake_at(now).saturating_sub(now.mono);
            // In this order: no stream of requests keeps the rest waiting, and a run can be repeated.
            event = tokio::select! {
                biased;
                () = self.drain.begun(), if !self.machine.is_draining() => Event::Drain,
                Some(event) = OptionFuture::from(self.work.as_mut()) => {
                    self.work = None;
                    if self.entered && matches!(&event, Event::Fetched(Err(error)) if !error.was_sent()) {
                        self.ledger().take_back(&self.source.account, self.tools.clock.now().wall);
                    }
                    if let Event::Stored(outcome) = &event {
                        self.publisher.note_on_disk(outcome.is_ok());
                    }
                    settled = self.source.policy.outcome_matters() && matches!(event, Event::Fetched(Err(_)));
                    event
                }
                () = tokio::time::sleep(wake) => Event::Woken,
                Some(()) = any_change(&mut self.changes) => Event::DependencyChanged,
                request = self.queue.next() => asked(request, &mut self.waiters, &mut self.next_waiter),
            };
        }
    }

    /// Gives the places of waiters who do not wait any more (cut, or gone with the client) to others.
    fn forget_who_left(&mut self) {
        self.waiters.retain(|_, waiter| !waiter.is_closed());
        let waiters = &self.waiters;
        self.machine.forget(|WaiterId(id)| !waiters.contains_key(&id));
    }

    fn carry_out(&mut self, now: Now, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Fetch(purpose) => self.work = Some(self.fetch(now, purpose)),
                Effect::Store(published) => {
                    // On disk the record takes the mark away.
                    self.ledger().settle(&self.source.name);
                    self.work = Some(self.store(published));
                }
                Effect::HealDependencies => self.work = Some(self.heal()),
                Effect::Publish(published) => self.publisher.publish(published),
                Effect::Answer(WaiterId(id), answer) => {
                    if let Some(waiter) = self.waiters.remove(&id) {
                        // A client that has hung up does not want to know.
                        let _ = waiter.send(answer);
                    }
                }
                Effect::Report(report) => self.report(now, &report),
            }
        }
    }

    /// Tells the operator, and keeps what clients may know of it.
    fn report(&self, now: Now, report: &Report) {
        report::log(&self.source.name, report);
        match report {
            Report::Failed { error, .. } => {
                let trouble = report::trouble(error, now);
                if trouble.is_failure {
                    self.tools.shared.meters.count_failure(&trouble);
                }
                self.publisher.note_failure(trouble);
            }
            Report::Foreign { generation, .. } => {
                self.tools.shared.meters.count_foreign();
                self.publisher.note_foreign(*generation);
            }
            Report::Renewed { .. } => self.publisher.note_success(now.wall),
            _ => {}
        }
    }

    fn fetch(&mut self, now: Now, purpose: Purpose) -> BoxFuture<'static, Event> {
        let mut dependencies = Dependencies::default();
        self.entered = false;
        self.used.clear();
        for name in &self.source.dependencies {
            let Some(token) = self.tools.reader.live(name.as_str(), now) else {
                return failed(FetchError::DependencyAbsent(name.clone()));
            };
            self.used.push((name.clone(), token.record().generation));
            dependencies.insert(name.clone(), token.record().value.clone());
        }
        let admitted = match self.enter(now, purpose) {
            Ok(admitted) => admitted,
            Err(Denied::Spent(wait)) => return failed(FetchError::BudgetSpent { wait }),
            Err(Denied::Reserved(wait)) => return failed(FetchError::BudgetReserved { wait }),
            Err(Denied::ForcedNew(wait)) => return failed(FetchError::ForcedTooOften { wait }),
        };
        self.entered = true;
        let force = purpose == Purpose::ForcedNew;
        let captured = self.machine.captured();
        let request = FetchRequest { dependencies, captured, force };
        let (tools, source, calls) =
            (Arc::clone(&self.tools), Arc::clone(&self.source), admitted.calls);
        let (host, wall) = (tools.shared.places.of(&source), now.wall);
        async move {
            let Tools { upstream, store, shared, clock, .. } = &*tools;
            let _turn = host.turn().await;
            // On disk before the request is sent: the call counts, and where its outcome matters it is
            // marked, from the very instant that a record of it would be counted from.
            let mark =
                source.policy.outcome_matters().then(|| shared.ledger().mark(&source.name, wall));
            // Each step is boxed when it comes, so that who waits does not hold room for it.
            save(store, &source, calls, mark).boxed().await;
            let _place = shared.places.take(&host).boxed().await;
            // Whatever the upstream does about time itself: nothing stays under way for ever.
            let limit = source.policy.timeout + FETCH_MARGIN;
            let exchange = tokio::time::timeout(limit, upstream.fetch(&source, &request)).boxed();
            let sent = clock.now().mono;
            let fetched = exchange.await.unwrap_or(Err(FetchError::TimedOut));
            shared.meters.upstream.note(clock.now().mono.saturating_sub(sent));
            Event::Fetched(fetched)
        }
        .boxed()
    }

    /// Takes the mark away, here and on disk: every outcome is known.
    fn unmark(&self) {
        if self.ledger().settle(&self.source.name) {
            let (tools, source) = (Arc::clone(&self.tools), self.source.name.clone());
            self.drain.spawn(async move {
                if let Err(error) = tools.store.put_mark(&source, None).await {
                    tracing::debug!(%source, %error, "a mark is still on disk");
                }
            });
        }
    }

    /// Enters a call into the ledger.
    fn enter(&self, now: Now, purpose: Purpose) -> Result<Admitted, Denied> {
        let (account, limit) = (&self.source.account, self.source.policy.daily_limit);
        let admitted = self.ledger().enter(account, limit, purpose, now.wall)?;
        if let Some(percent) = admitted.warn_at {
            tracing::warn!(
                source = %self.source.name, account = &*account.name,
                endpoint = &*account.endpoint, percent, made = admitted.calls.made,
                "a good part of the account's calls of this day is used up"
            );
            self.publisher.note_calls(CallsUsed {
                account: account.clone(),
                made: admitted.calls.made,
                limit: limit.unwrap_or(u32::MAX),
                percent,
            });
        }
        Ok(admitted)
    }

    fn store(&self, published: Arc<Published>) -> BoxFuture<'static, Event> {
        let (tools, name) = (Arc::clone(&self.tools), self.source.name.clone());
        async move {
            let Tools { store, shared, clock, .. } = &*tools;
            let begun = clock.now();
            let write = store.put(&name, &published.record);
            let slow = || Err(StoreError(format!("the disk takes more than {STORE_PATIENCE:?}")));
            let outcome = tokio::time::timeout(STORE_PATIENCE, write).await;
            shared.meters.store.note(clock.now().mono.saturating_sub(begun.mono));
            Event::Stored(outcome.unwrap_or_else(|_| slow()))
        }
        .boxed()
    }

    fn heal(&self) -> BoxFuture<'static, Event> {
        let (refresh, used) = (self.tools.refresh.clone(), self.used.clone());
        async move {
            for (name, generation) in used {
                let newer = refresh.ask(name.as_str(), Wish::Newer { generation }).await;
                if let Err(error) = newer {
                    return Event::Healed(Err(error));
                }
            }
            Event::Healed(Ok(()))
        }
        .boxed()
    }
}

/// Writes an account's page of the ledger and a source's mark. A disk that hangs is not waited for for
/// long.
async fn save(
    store: &impl RecordStore,
    source: &TokenSource,
    calls: Calls,
    mark: Option<Unsettled>,
) {
    let marked = async {
        match mark {
            Some(mark) => store.put_mark(&source.name, Some(mark)).await,
            None => Ok(()),
        }
    };
    // Both at once: one flush serves them.
    let written = futures_util::future::try_join(marked, store.put_calls(&source.account, calls));
    if !matches!(tokio::time::timeout(MARK_PATIENCE, written).await, Ok(Ok(_))) {
        tracing::debug!(source = %source.name, "a request is not marked on disk");
    }
}

fn new_machine(source: &TokenSource, clock: &SharedClock) -> Machine {
    Machine::new(Arc::clone(&source.policy), source.identity, source.follow, clock.seed())
}

fn asked(
    request: RefreshRequest,
    waiters: &mut BTreeMap<u64, oneshot::Sender<Result<Arc<Published>, RefreshError>>>,
    next_waiter: &mut u64,
) -> Event {
    let waiter = WaiterId(*next_waiter);
    *next_waiter += 1;
    waiters.insert(waiter.0, request.reply);
    Event::Asked(waiter, request.wish)
}

fn failed(error: FetchError) -> BoxFuture<'static, Event> {
    async { Event::Fetched(Err(error)) }.boxed()
}

/// Ends when any of the dependencies has a new token; with `None`, when there are none.
fn any_change(changes: &mut [Changes]) -> impl Future<Output = Option<()>> {
    let any = (!changes.is_empty())
        .then(|| select_all(changes.iter_mut().map(|change| change.changed().boxed())).map(drop));
    OptionFuture::from(any)
}

#[cfg(test)]
mod tests;
