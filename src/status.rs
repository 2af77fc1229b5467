//! What the server knows of itself: how each source is, who reads it, what of the day's calls is used
//! up, whether it can do its work. Puts together what other rooms know, when somebody asks; keeps
//! nothing itself. Never a value, a key or an address of the upstream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use crate::access::{Access, Reader as Who, Reads, Reason, Via};
use crate::account::Account;
use crate::clock::{Now, SharedClock};
use crate::config::TokenSource;
use crate::notify::Deliveries;
use crate::refresh::Shared;
use crate::snapshot::{Chapter, ConditionNow, Published, Reader};
use crate::token::{Generation, SourceName};

pub use crate::refresh::{Meters, Timings};

/// The sources as they are configured, in the order of the config. Cheap to clone: each clone shows
/// what was set last.
#[derive(Debug, Clone, Default)]
pub struct Catalogue(Arc<ArcSwap<Vec<Arc<TokenSource>>>>);

impl Catalogue {
    /// The sources now.
    pub fn sources(&self) -> Arc<Vec<Arc<TokenSource>>> {
        self.0.load_full()
    }

    /// Shows these sources from now on.
    pub fn set(&self, sources: impl IntoIterator<Item = Arc<TokenSource>>) {
        self.0.store(Arc::new(sources.into_iter().collect()));
    }
}

/// The right to ask how the server is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Status(Arc<Sight>);

#[derive(Debug)]
struct Sight {
    reader: Reader,
    catalogue: Catalogue,
    shared: Arc<Shared>,
    access: Arc<Access>,
    webhooks: Deliveries,
    clock: SharedClock,
    started: Now,
    /// By protocol.
    traffic: [Traffic; Via::ALL.len()],
}

/// The connections of one listener, which counts them.
#[derive(Debug, Default)]
pub struct Traffic {
    accepted: AtomicU64,
    rejected: AtomicU64,
    open: OnceLock<TaskTracker>,
}

impl Traffic {
    /// Each task of `connections` is an open connection.
    pub fn watch(&self, connections: &TaskTracker) {
        // An error: a second listener of this protocol, whose connections are not told.
        let _ = self.open.set(connections.clone());
    }

    /// A connection has come.
    pub fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// It was refused, since all places were taken, or all that its address may have.
    pub fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have come since the start, with those that were refused.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many were refused since the start.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// How many are open.
    pub fn open(&self) -> u64 {
        self.open.get().map_or(0, |connections| connections.len() as u64)
    }
}

/// The sources of one moment, to go through them: what is told of each is of the moment it is looked at.
#[derive(Debug)]
pub struct Survey {
    status: Status,
    sources: Arc<Vec<Arc<TokenSource>>>,
}

impl Survey {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.sources.len()
    }

    /// Those from `begin` on, `most` at most. One that a reload has removed meanwhile is left out.
    pub fn part(
        &self,
        begin: usize,
        most: usize,
        now: Now,
    ) -> impl Iterator<Item = SourceStatus> + '_ {
        let part = self.sources.iter().skip(begin).take(most);
        part.filter_map(move |source| self.status.status(source, now))
    }

    /// All of them.
    pub fn all(&self, now: Now) -> impl Iterator<Item = SourceStatus> + '_ {
        self.part(0, self.count(), now)
    }
}

/// How a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has a live token, and its last renewal came off.
    Live,
    /// It has a live token, and its renewals fail.
    Failing,
    /// Its token has ended, and no other has come.
    Expired,
    /// It has had no token that this server knows of.
    Absent,
}

impl State {
    /// Every one.
    pub const ALL: [State; 4] = [State::Live, State::Failing, State::Expired, State::Absent];

    /// Its name in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Live => "live",
            State::Failing => "failing",
            State::Expired => "expired",
            State::Absent => "absent",
        }
    }
}

/// All there is to know of a source.
#[derive(Debug, Clone)]
pub struct SourceStatus {
    /// Its name.
    pub name: SourceName,
    /// How it is.
    pub state: State,
    /// The token it has, live or not.
    pub token: Option<TokenStatus>,
    /// How its renewals are doing.
    pub condition: ConditionNow,
    /// The calls of its account and endpoint today, which other sources may share; `None` where they
    /// are charged to nobody.
    pub calls: Option<CallsToday>,
}

/// A token, but for its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenStatus {
    /// Which value it is.
    pub generation: Generation,
    /// When the request was sent that brought it, or confirmed it last: the last success.
    pub fetched_at: SystemTime,
    /// When the value was seen first.
    pub first_seen: SystemTime,
    /// The end of its life.
    pub expires_at: SystemTime,
    /// What is left of its life; zero where it has ended.
    pub life_left: Duration,
    /// How long a client may rely on it.
    pub promised: Duration,
}

/// The calls of an account and endpoint in one Beijing day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallsToday {
    /// Whose calls of what.
    pub account: Account,
    /// How many were made.
    pub made: u32,
    /// How many may be made; `None`: nobody has said.
    pub limit: Option<u32>,
    /// How often the account has had its calls given back this month, as far as is known here.
    pub resets: u32,
}

/// Somebody who reads a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderStatus {
    /// The client.
    pub client: Arc<str>,
    /// The protocol.
    pub via: Via,
    /// How much it has read.
    pub reads: Reads,
}

/// Who reads which source. `None` stands for the sources of those who were too many to tell apart.
pub type Readers = HashMap<Option<SourceName>, Vec<ReaderStatus>>;

impl Status {
    /// A sight of these; the server starts now.
    pub fn new(
        reader: Reader,
        catalogue: Catalogue,
        shared: Arc<Shared>,
        access: Arc<Access>,
        webhooks: Deliveries,
        clock: SharedClock,
    ) -> Status {
        let started = clock.now();
        Status(Arc::new(Sight {
            reader,
            catalogue,
            shared,
            access,
            webhooks,
            clock,
            started,
            traffic: Default::default(),
        }))
    }

    /// A sight of these sources where nothing refreshes them: for tests and measurements.
    pub fn apart(
        sources: Vec<TokenSource>,
        reader: &Reader,
        access: &Arc<Access>,
        clock: &SharedClock,
    ) -> Status {
        let (catalogue, shared) = (Catalogue::default(), Shared::new([], []));
        catalogue.set(sources.into_iter().map(Arc::new));
        let (access, webhooks) = (Arc::clone(access), Deliveries::default());
        Status::new(reader.clone(), catalogue, shared, access, webhooks, Arc::clone(clock))
    }

    /// When the server started.
    pub fn started(&self) -> SystemTime {
        self.0.started.wall
    }

    /// How long it has been running.
    pub fn uptime(&self) -> Duration {
        self.0.clock.now().mono.saturating_sub(self.0.started.mono)
    }

    /// The sources as they are configured now, in the order of the config.
    pub fn survey(&self) -> Survey {
        Survey { status: self.clone(), sources: self.0.catalogue.0.load_full() }
    }

    /// The sources themselves, in the order of the config.
    pub fn sources(&self) -> Arc<Vec<Arc<TokenSource>>> {
        self.0.catalogue.0.load_full()
    }

    /// One source; `None` where there is none of this name.
    pub fn source(&self, name: &str, now: Now) -> Option<SourceStatus> {
        let sources = self.0.catalogue.0.load();
        self.status(sources.iter().find(|source| source.name.as_str() == name)?, now)
    }

    /// What came of a source's renewals of the last day, the oldest first. Empty where there is no such
    /// source.
    pub fn history(&self, name: &str, now: Now) -> Vec<Chapter> {
        self.0.reader.slot(name).map_or_else(Vec::new, |slot| slot.history(now))
    }

    /// Who reads which source, those who read most of it first.
    pub fn readers(&self, now: Now) -> Readers {
        let mut readers = Readers::new();
        for (who, reads) in self.0.access.audit().reads(now.wall) {
            let Who { client, source, via } = who;
            readers.entry(source).or_default().push(ReaderStatus { client, via, reads });
        }
        for of_one in readers.values_mut() {
            of_one.sort_by(|a, b| {
                b.reads.total.cmp(&a.reads.total).then_with(|| a.client.cmp(&b.client))
            });
        }
        readers
    }

    /// Which of these sources have no token that may be relied on for longer than `life`; of all
    /// sources where `required` is `None`.
    pub fn not_ready(
        &self,
        required: Option<&[SourceName]>,
        life: Duration,
        now: Now,
    ) -> Vec<SourceName> {
        let is_ready = |name: &SourceName| {
            let live = self.0.reader.live(name.as_str(), now);
            live.is_some_and(|token| token.promised_life() > life)
        };
        let not_ready = |name: &&SourceName| !is_ready(name);
        match required {
            Some(required) => required.iter().filter(not_ready).cloned().collect(),
            None => self.0.reader.view().sources().filter(not_ready).cloned().collect(),
        }
    }

    /// What the refreshers have counted and timed.
    pub fn meters(&self) -> &Meters {
        self.0.shared.meters()
    }

    /// What came of the messages of each webhook.
    pub fn webhooks(&self) -> &Deliveries {
        &self.0.webhooks
    }

    /// The connections of a protocol's listener.
    pub fn traffic(&self, via: Via) -> &Traffic {
        &self.0.traffic[via as usize]
    }

    /// How often somebody was given nothing, by reason and protocol.
    pub fn refusals(&self) -> impl Iterator<Item = (Reason, Via, u64)> {
        self.0.access.audit().refusals()
    }

    fn status(&self, source: &TokenSource, now: Now) -> Option<SourceStatus> {
        let slot = self.0.reader.slot(source.name.as_str())?;
        let condition = slot.condition();
        let token = slot.current().map(|published| token_status(&published, now));
        let calls = (!source.account.name.is_empty()).then(|| CallsToday {
            account: source.account.clone(),
            made: self.0.shared.calls(&source.account, now).made,
            limit: source.policy.daily_limit,
            resets: self.0.shared.resets(&source.account.name, now),
        });
        let state = match token {
            None => State::Absent,
            Some(token) if token.life_left.is_zero() => State::Expired,
            Some(_) if condition.is_failing => State::Failing,
            Some(_) => State::Live,
        };
        Some(SourceStatus { name: slot.name().clone(), state, token, condition, calls })
    }
}

fn token_status(published: &Published, now: Now) -> TokenStatus {
    let record = &published.record;
    TokenStatus {
        generation: record.generation,
        fetched_at: record.fetched_at,
        first_seen: record.first_seen,
        expires_at: record.expires_at,
        life_left: published.life_left(now).unwrap_or_default(),
        promised: published.promised_life(now).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
