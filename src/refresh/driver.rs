//! One task per source: carries the machine's effects out (fetch, store, publish, answer, sleep)
//! and brings it the events. Small enough to read in one sitting; decides nothing.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, select_all};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::account::{Account, Calls};
use crate::clock::{SharedClock, seed};
use crate::config::TokenSource;
use crate::refresh::handle::{RefreshError, RefreshHandle, RefreshRequest, RequestQueue, Wish};
use crate::refresh::ledger::{Denied, Ledger, Purpose};
use crate::refresh::machine::{Effect, Event, Machine, WaiterId};
use crate::refresh::report;
use crate::shutdown::Drain;
use crate::snapshot::{Published, Publisher, Reader};
use crate::source::{Dependencies, FetchError, FetchRequest, Upstream};
use crate::store::{RecordStore, StoreError};
use crate::token::{Generation, SourceName, TokenRecord};

/// How long a write may take before its token is served from memory: longer, and clients would
/// wait for a disk that hangs.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// How many requests may be under way at once, over all sources: ten thousand accounts that start
/// together must not open ten thousand connections.
const MAX_FETCHES: usize = 64;

/// How long beyond its timeout a fetch is left to end by itself, which tells more than cutting it.
const FETCH_MARGIN: Duration = Duration::from_secs(1);

/// The wait before a refresher that panicked is started again, and the longest one.
const RESTART_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What all refreshers share: the count of calls, and the places for requests under way.
#[derive(Debug)]
pub struct Shared {
    ledger: Mutex<Ledger>,
    places: Semaphore,
}

impl Shared {
    /// Begins with the counts that were kept.
    pub fn new(kept: impl IntoIterator<Item = (Account, Calls)>) -> Arc<Shared> {
        Arc::new(Shared {
            ledger: Mutex::new(Ledger::restore(kept)),
            places: Semaphore::new(MAX_FETCHES),
        })
    }
}

/// What every refresher works with.
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
    /// The end.
    pub drain: Drain,
}

impl<U, S: Clone> Clone for Tools<U, S> {
    fn clone(&self) -> Self {
        Tools {
            upstream: Arc::clone(&self.upstream),
            store: self.store.clone(),
            reader: self.reader.clone(),
            refresh: self.refresh.clone(),
            shared: Arc::clone(&self.shared),
            clock: Arc::clone(&self.clock),
            drain: self.drain.clone(),
        }
    }
}

/// One source's refresher.
pub struct Refresher<U, S> {
    source: Arc<TokenSource>,
    account: Account,
    publisher: Publisher,
    queue: RequestQueue,
    tools: Tools<U, S>,
    machine: Machine,
    /// What is under way; the machine sees to it that it is one thing at a time.
    work: Option<BoxFuture<'static, Event>>,
    waiters: HashMap<u64, oneshot::Sender<Result<Arc<Published>, RefreshError>>>,
    next_waiter: u64,
    changes: Vec<watch::Receiver<Option<Generation>>>,
    /// The generations of the dependencies that the last request was made with.
    used: Vec<(SourceName, Generation)>,
}

impl<U: Upstream, S: RecordStore + Clone> Refresher<U, S> {
    /// A refresher of `source`, with what the store held of it. A live record is published at once.
    pub fn new(
        source: TokenSource,
        restored: Option<TokenRecord>,
        publisher: Publisher,
        queue: RequestQueue,
        tools: Tools<U, S>,
    ) -> Refresher<U, S> {
        let changes =
            source.dependencies.iter().filter_map(|name| tools.reader.changes(name.as_str()));
        let changes = changes.collect();
        let machine = new_machine(&source, &tools.clock);
        let account =
            Account { name: source.account.clone(), endpoint: source.url.path().to_owned() };
        let mut refresher = Refresher {
            source: Arc::new(source),
            account,
            publisher,
            queue,
            tools,
            machine,
            work: None,
            waiters: HashMap::new(),
            next_waiter: 0,
            changes,
            used: Vec::new(),
        };
        refresher.restore(restored);
        refresher
    }

    fn restore(&mut self, record: Option<TokenRecord>) {
        if let Some(record) = record {
            let now = self.tools.clock.now();
            let effects = self.machine.restore(now, record);
            self.carry_out(effects);
        }
    }

    /// Keeps the token fresh until the drain. A panic is logged and the work goes on from what is
    /// published; the other sources notice nothing.
    pub async fn run(mut self) {
        let mut panics = 0_u32;
        while AssertUnwindSafe(self.refresh_until_drained()).catch_unwind().await.is_err() {
            panics += 1;
            let (first, longest) = RESTART_WAIT;
            let wait = first.saturating_mul(1 << panics.min(6)).min(longest);
            tracing::error!(source = %self.source.name, restart_in = ?wait, "a refresher panicked; this is a bug, please report it");
            self.work = None;
            self.waiters.clear();
            self.machine = new_machine(&self.source, &self.tools.clock);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.tools.drain.begun() => return,
            }
            let record = self.publisher.current().map(|current| current.record.clone());
            self.restore(record);
        }
    }

    async fn refresh_until_drained(&mut self) {
        let drain = self.tools.drain.clone();
        let mut event = Event::Woken;
        loop {
            let now = self.tools.clock.now();
            let effects = self.machine.on(now, event);
            self.carry_out(effects);
            if self.machine.is_finished() {
                return;
            }
            let now = self.tools.clock.now();
            // From the absolute instant, each time: a stream of requests does not move it.
            let wake = self.machine.wake_at(now).saturating_sub(now.mono);
            event = tokio::select! {
                event = next(&mut self.work) => {
                    self.work = None;
                    event
                }
                Some(request) = self.queue.recv() => asked(*request, &mut self.waiters, &mut self.next_waiter),
                () = tokio::time::sleep(wake) => Event::Woken,
                () = any_change(&mut self.changes) => Event::DependencyChanged,
                () = drain.begun(), if !self.machine.is_draining() => Event::Drain,
            };
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Fetch(purpose) => self.work = Some(self.fetch(purpose)),
                Effect::Store(published) => self.work = Some(self.store(published)),
                Effect::HealDependencies => self.work = Some(self.heal()),
                Effect::Publish(published) => self.publisher.publish(published),
                Effect::Answer(WaiterId(id), answer) => {
                    if let Some(waiter) = self.waiters.remove(&id) {
                        // A client that has hung up does not want to know.
                        let _ = waiter.send(answer);
                    }
                }
                Effect::Report(report) => report::log(&self.source.name, &report),
            }
        }
    }

    fn fetch(&mut self, purpose: Purpose) -> BoxFuture<'static, Event> {
        let mut dependencies = Dependencies::default();
        self.used.clear();
        let now = self.tools.clock.now();
        for name in &self.source.dependencies {
            let Some(token) = self.tools.reader.live(name.as_str(), now) else {
                return failed(FetchError::DependencyAbsent(name.clone()));
            };
            self.used.push((name.clone(), token.record().generation));
            dependencies.insert(name.clone(), token.record().value.clone());
        }
        if let Err(denied) = self.enter(purpose) {
            return failed(match denied {
                Denied::Spent(wait) => FetchError::BudgetSpent { wait },
                Denied::Reserved(wait) | Denied::ForcedNew(wait) => {
                    FetchError::BudgetReserved { wait }
                }
            });
        }
        let force = purpose == Purpose::ForcedNew;
        let request = FetchRequest { dependencies, captured: None, force };
        let (upstream, source) = (Arc::clone(&self.tools.upstream), Arc::clone(&self.source));
        let shared = Arc::clone(&self.tools.shared);
        async move {
            let _place = shared.places.acquire().await;
            // Whatever the upstream does about time itself: nothing stays under way for ever.
            let limit = source.policy.timeout + FETCH_MARGIN;
            let fetch = tokio::time::timeout(limit, upstream.fetch(&source, &request));
            Event::Fetched(fetch.await.unwrap_or(Err(FetchError::TimedOut)))
        }
        .boxed()
    }

    /// Enters a call into the ledger, and the ledger's page into the store.
    fn enter(&self, purpose: Purpose) -> Result<(), Denied> {
        let limit = self.source.policy.daily_limit;
        let wall = self.tools.clock.now().wall;
        let mut ledger = self.tools.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = ledger.enter(&self.account, limit, purpose, wall)?;
        drop(ledger);
        let (source, account, calls) = (&self.source.name, &self.account, admitted.calls);
        if let Some(percent) = admitted.warn_at {
            tracing::warn!(
                %source, account = account.name, endpoint = account.endpoint, percent,
                made = calls.made, "a good part of the account's calls of this day is used up"
            );
        }
        let (store, account) = (self.tools.store.clone(), account.clone());
        // The request does not wait for it: a count that is one short after a crash harms nobody.
        self.tools.drain.spawn(async move {
            if let Err(error) = store.put_calls(&account, calls).await {
                tracing::debug!(account = account.name, %error, "the count of calls is not on disk");
            }
        });
        Ok(())
    }

    fn store(&self, published: Arc<Published>) -> BoxFuture<'static, Event> {
        let (store, name) = (self.tools.store.clone(), self.source.name.clone());
        async move {
            let write = store.put(&name, &published.record);
            let slow = || Err(StoreError(format!("the disk takes more than {STORE_PATIENCE:?}")));
            let outcome = tokio::time::timeout(STORE_PATIENCE, write).await;
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

fn new_machine(source: &TokenSource, clock: &SharedClock) -> Machine {
    Machine::new(source.policy.clone(), source.identity, false, seed(clock.now()))
}

fn asked(
    request: RefreshRequest,
    waiters: &mut HashMap<u64, oneshot::Sender<Result<Arc<Published>, RefreshError>>>,
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

/// The outcome of what is under way; never, when nothing is.
async fn next(work: &mut Option<BoxFuture<'static, Event>>) -> Event {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// Ends when any of the dependencies has a new token; never, when there are none.
async fn any_change(changes: &mut [watch::Receiver<Option<Generation>>]) {
    if changes.is_empty() {
        std::future::pending::<()>().await;
    }
    let waits = changes.iter_mut().map(|change| change.changed().boxed());
    // The senders live as long as the snapshot, which this task holds.
    let _ = select_all(waits).await;
}

#[cfg(test)]
mod tests;
