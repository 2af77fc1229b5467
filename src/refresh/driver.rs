//! One task per source: carries the machine's effects out (fetch, store, publish, answer, sleep)
//! and brings it the events. Small enough to read in one sitting; decides nothing.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, select_all};
use tokio::sync::{oneshot, watch};

use crate::clock::{SharedClock, seed};
use crate::config::TokenSource;
use crate::refresh::handle::{Cause, RefreshError, RefreshHandle, RefreshRequest, RequestQueue};
use crate::refresh::machine::{Effect, Event, Machine, Report, WaiterId};
use crate::shutdown::Drain;
use crate::snapshot::{Published, Publisher, Reader};
use crate::source::{Dependencies, FetchError, FetchRequest, Upstream};
use crate::store::{RecordStore, StoreError};
use crate::token::{Generation, SourceName, TokenRecord};

/// How long a write may take before its token is served from memory: longer, and clients would
/// wait for a disk that hangs.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// How long beyond its timeout a fetch is left to end by itself, which tells more than cutting it.
const FETCH_MARGIN: Duration = Duration::from_secs(1);

/// The wait before a refresher that panicked is started again, and the longest one.
const RESTART_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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
            clock: Arc::clone(&self.clock),
            drain: self.drain.clone(),
        }
    }
}

/// One source's refresher.
pub struct Refresher<U, S> {
    source: Arc<TokenSource>,
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
        let mut refresher = Refresher {
            source: Arc::new(source),
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
                Some(request) = self.queue.recv() => asked(request, &mut self.waiters, &mut self.next_waiter),
                () = tokio::time::sleep(wake) => Event::Woken,
                () = any_change(&mut self.changes) => Event::DependencyChanged,
                () = drain.begun(), if !self.machine.is_draining() => Event::Drain,
            };
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Fetch => self.work = Some(self.fetch()),
                Effect::Store(published) => self.work = Some(self.store(published)),
                Effect::HealDependencies => self.work = Some(self.heal()),
                Effect::Publish(published) => self.publisher.publish(published),
                Effect::Answer(WaiterId(id), answer) => {
                    if let Some(waiter) = self.waiters.remove(&id) {
                        // A client that has hung up does not want to know.
                        let _ = waiter.send(answer);
                    }
                }
                Effect::Report(report) => log(&self.source.name, &report),
            }
        }
    }

    fn fetch(&mut self) -> BoxFuture<'static, Event> {
        let now = self.tools.clock.now();
        let mut dependencies = Dependencies::default();
        self.used.clear();
        for name in &self.source.dependencies {
            let Some(token) = self.tools.reader.live(name.as_str(), now) else {
                let absent = FetchError::DependencyAbsent(name.clone());
                return async { Event::Fetched(Err(absent)) }.boxed();
            };
            self.used.push((name.clone(), token.record().generation));
            dependencies.insert(name.clone(), token.record().value.clone());
        }
        let (upstream, source) = (Arc::clone(&self.tools.upstream), Arc::clone(&self.source));
        async move {
            // Whatever the upstream does about time itself: nothing stays under way for ever.
            let limit = source.policy.timeout + FETCH_MARGIN;
            let request = FetchRequest { dependencies, captured: None, force: false };
            let fetch = tokio::time::timeout(limit, upstream.fetch(&source, &request));
            Event::Fetched(fetch.await.unwrap_or(Err(FetchError::TimedOut)))
        }
        .boxed()
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
                let newer = refresh.ask(name.as_str(), Some(generation), Cause::Dependent).await;
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
    Machine::new(source.policy.clone(), source.identity, seed(clock.now()))
}

fn asked(
    request: RefreshRequest,
    waiters: &mut HashMap<u64, oneshot::Sender<Result<Arc<Published>, RefreshError>>>,
    next_waiter: &mut u64,
) -> Event {
    let waiter = WaiterId(*next_waiter);
    *next_waiter += 1;
    waiters.insert(waiter.0, request.reply);
    Event::Asked { waiter, newer_than: request.newer_than, cause: request.cause }
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

fn log(source: &SourceName, report: &Report) {
    match report {
        Report::Renewed { generation, lifetime, changed, after_failures } => tracing::info!(
            %source, %generation, lifetime_s = lifetime.as_secs(), changed, after_failures,
            "token renewed"
        ),
        Report::Failed { error: FetchError::DependencyAbsent(dependency), .. } => {
            tracing::info!(%source, %dependency, "waiting for the token of a dependency");
        }
        Report::Failed { error, streak, retry_in } => {
            let hint_zh = error.hint_zh();
            tracing::warn!(
                %source, %error, detail = ?error.for_log(), hint_zh, streak,
                retry_in_s = retry_in.as_secs_f32(), "token not renewed"
            );
        }
        Report::NotOnDisk { error, retry_in } => tracing::error!(
            %source, %error, retry_in_s = retry_in.as_secs_f32(),
            "the token is served from memory only and would be lost in a restart"
        ),
        Report::OnDisk => tracing::info!(%source, "the token is on disk again"),
        Report::Healing => {
            tracing::warn!(%source, "the upstream refused a dependency's token; renewing that first");
        }
    }
}

#[cfg(test)]
mod tests;
