//! Every decision about one source, as a pure machine: an event comes in, effects come out. Reads
//! no clock, does no I/O, knows no task; a run is repeated from its seed and its events.
//!
//! One thing is under way at a time ([`Phase`]), so there is never a second request for a source,
//! and nothing to lock.

mod asking;
mod failing;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::account::Unsettled;
use crate::clock::Now;
use crate::config::RefreshPolicy;
use crate::refresh::handle::{RefreshError, Wish};
use crate::refresh::ledger::Purpose;
use crate::refresh::life::{self, Before};
use crate::refresh::report::Report;
use crate::refresh::schedule::{self, Failed, MAX_SLEEP, MIN_GAP, Pause};
use crate::snapshot::Published;
use crate::source::{FailureClass, FetchError, Fetched};
use crate::store::StoreError;
use crate::token::{Generation, Secret, SourceIdentity, TokenRecord};

pub(super) use asking::MAX_WAITERS;
use asking::Waiter;
use failing::Streak;

/// Names a waiting client to the driver, which has its reply channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaiterId(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A wake-up that was asked for, or any other reason to look at the clocks.
    Woken,
    /// A source this one depends on has a new token.
    DependencyChanged,
    /// Somebody wants a newer token.
    Asked(WaiterId, Wish),
    /// [`Effect::Fetch`] has ended.
    Fetched(Result<Fetched, FetchError>),
    /// [`Effect::Store`] has ended.
    Stored(Result<(), StoreError>),
    /// [`Effect::HealDependencies`] has ended: they have newer tokens, or could not get them.
    Healed(Result<(), RefreshError>),
    /// Finish what is under way and start nothing new.
    Drain,
}

/// What the driver does next, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the upstream for a token, if the account's calls allow it.
    Fetch(Purpose),
    /// Write this record.
    Store(Arc<Published>),
    /// Get newer tokens for the sources whose tokens the last request was made with.
    HealDependencies,
    /// Let every reader see this from now on.
    Publish(Arc<Published>),
    /// Answer a client.
    Answer(WaiterId, Result<Arc<Published>, RefreshError>),
    /// Tell the operator.
    Report(Report),
}

/// What is under way.
#[derive(Debug)]
enum Phase {
    Idle,
    /// A request, sent then. `healed`: a refused dependency was renewed for it already.
    Fetching {
        sent: Now,
        healed: bool,
    },
    /// The write of a record that nobody has seen yet.
    Storing(Arc<Published>),
    /// The write of the current record, which is served from memory meanwhile.
    Saving,
    /// The renewal of refused dependencies.
    Healing,
}

/// A record in memory that is not on disk.
#[derive(Debug)]
struct Unsaved {
    tries: u32,
    retry: Pause,
}

/// The decisions of one source.
#[derive(Debug)]
pub struct Machine {
    policy: Arc<RefreshPolicy>,
    identity: SourceIdentity,
    /// Whether the token dies with the token of the dependency it was fetched with.
    follows: bool,
    jitter: fastrand::Rng,
    phase: Phase,
    current: Option<Arc<Published>>,
    /// A kept record of this source that may not be served: where the upstream gives its value once
    /// more, it is known to be an old one.
    remembered: Option<Box<TokenRecord>>,
    /// The newest generation known, also of a record that is not served any more.
    generation: Option<Generation>,
    /// When the first request since the last success was sent whose outcome is not known (also of
    /// one under way).
    unsettled: Option<Now>,
    /// When the last fetch succeeded; the cooldown counts from here.
    succeeded: Option<Now>,
    /// For how long no attempt is made unless somebody asks.
    pause: Pause,
    /// For how long none is made, whoever asks: a request of the process before this one may still be
    /// on its way. Ours must not come in before it: what it brings would end what ours has brought.
    hold: Pause,
    /// The dependency of a token that dies with it has changed while a request with its old token was
    /// under way.
    outdated: bool,
    streak: Streak,
    /// How many answers in a row brought the value that was there although it was due.
    unchanged: u32,
    /// The last attempt found a dependency without a token: its change is worth an attempt.
    lacks_dependency: bool,
    /// The generation that was last said to be refused although it should have been good.
    refused: Option<Generation>,
    unsaved: Option<Box<Unsaved>>,
    waiters: Vec<Waiter>,
    draining: bool,
}

impl Machine {
    /// A machine that knows of no token. `seed` is for the jitter.
    pub fn new(
        policy: impl Into<Arc<RefreshPolicy>>,
        identity: SourceIdentity,
        follows: bool,
        seed: u64,
    ) -> Machine {
        Machine {
            policy: policy.into(),
            identity,
            follows,
            jitter: fastrand::Rng::with_seed(seed),
            phase: Phase::Idle,
            current: None,
            remembered: None,
            generation: None,
            unsettled: None,
            succeeded: None,
            pause: Pause::default(),
            hold: Pause::default(),
            outdated: false,
            streak: Streak::default(),
            unchanged: 0,
            lacks_dependency: false,
            refused: None,
            unsaved: None,
            waiters: Vec::new(),
            draining: false,
        }
    }

    /// Begins with what the store held, if anything. A record that may not be served counts by its
    /// generation all the same. `unsettled`: requests whose outcome is not known.
    pub fn restore(
        &mut self,
        now: Now,
        record: Option<TokenRecord>,
        unsettled: Option<Unsettled>,
    ) -> Vec<Effect> {
        self.unsettled = unsettled.map(|unsettled| when(unsettled.first, now));
        if let Some(Unsettled { last, .. }) = unsettled {
            self.hold = Pause::begin(now.back_to(last), self.policy.timeout + MIN_GAP);
        }
        let mut effects = Vec::new();
        let Some(record) = record else { return effects };
        self.generation = Some(record.generation);
        if record.identity != self.identity {
            return effects;
        }
        let Some(left) = life::left_of_kept(&record, now) else {
            self.remembered = Some(Box::new(record));
            return effects;
        };
        self.succeeded = Some(now.back_to(record.fetched_at));
        let published = life::published(&self.policy, record, left, now);
        let in_doubt_since = published.overlap.and(self.unsettled);
        self.publish(Published { in_doubt_since, ..published }, &mut effects);
        effects
    }

    /// As [`Machine::restore`], from what a refresher before this one has published in the same process
    /// (it was let go by a reload, or broke down): what the monotonic clock knows of its end, and its
    /// doubt, stay.
    pub fn inherit(
        &mut self,
        now: Now,
        published: &Published,
        unsettled: Option<Unsettled>,
    ) -> Vec<Effect> {
        let mut effects = self.restore(now, Some(published.record.clone()), unsettled);
        if let Some(current) = self.current.take() {
            let ends_mono = current.ends_mono.min(published.ends_mono);
            let in_doubt_since = current.in_doubt_since.or(published.in_doubt_since);
            let overlap =
                current.overlap.or(published.overlap.filter(|_| in_doubt_since.is_some()));
            effects.clear();
            let inherited = Published { ends_mono, in_doubt_since, overlap, ..(*current).clone() };
            self.publish(inherited, &mut effects);
        }
        effects
    }

    /// Whether a request was sent whose outcome is not known.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled.is_some()
    }

    /// What the last answer gave to be sent with the next request.
    pub fn captured(&self) -> Option<Secret> {
        let current = self.current.as_ref().map(|current| &current.record);
        current.or(self.remembered.as_deref())?.captured.clone()
    }

    /// Takes an event; what is to be done about it, in order.
    pub fn on(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Woken => {}
            Event::DependencyChanged => self.dependency_changed(now, &mut effects),
            Event::Asked(waiter, wish) => self.asked(now, waiter, wish, &mut effects),
            Event::Fetched(outcome) => self.fetched(now, outcome, &mut effects),
            Event::Stored(outcome) => self.stored(now, outcome, &mut effects),
            Event::Healed(outcome) => self.healed(now, outcome, &mut effects),
            Event::Drain => self.draining = true,
        }
        self.go_on(now, &mut effects);
        effects
    }

    /// The monotonic instant at which [`Event::Woken`] is wanted.
    pub fn wake_at(&self, now: Now) -> Duration {
        let latest = now.mono + MAX_SLEEP;
        match self.phase {
            Phase::Idle if !self.draining => {
                let save = self.unsaved.as_ref().map_or(latest, |u| now.mono + u.retry.left(now));
                let asked =
                    if self.waiters.is_empty() { latest } else { now.mono + self.hold.left(now) };
                self.due_at(now).min(asked).min(save).min(latest)
            }
            _ => latest,
        }
    }

    /// The wall-clock instant of the next attempt that nobody asks for, as things are; `None` while
    /// something is under way.
    pub fn next_renewal(&self, now: Now) -> Option<SystemTime> {
        let is_idle = matches!(self.phase, Phase::Idle) && !self.draining;
        is_idle.then(|| now.wall + self.due_at(now).saturating_sub(now.mono))
    }

    /// Whether the drain has been seen.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether the drain has been seen and nothing is under way any more.
    pub fn is_finished(&self) -> bool {
        self.draining && matches!(self.phase, Phase::Idle)
    }

    fn live(&self, now: Now) -> Option<&Arc<Published>> {
        self.current.as_ref().filter(|current| current.life_left(now).is_some())
    }

    /// The monotonic instant of the next attempt that nobody asks for.
    fn due_at(&self, now: Now) -> Duration {
        let due = match self.live(now) {
            None => now.mono,
            // It may be dead already: only another fetch can tell.
            Some(current) if current.in_doubt_since.is_some() => now.mono,
            Some(current) => {
                let left = current.life_left(now).unwrap_or(Duration::ZERO);
                now.mono + left.saturating_sub(current.lead)
            }
        };
        due.max(now.mono + self.pause.left(now).max(self.hold.left(now)))
    }

    /// Starts what is due, if nothing is under way.
    fn go_on(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        if self.draining {
            let nobody = Err(RefreshError::Draining);
            effects.extend(self.waiters.drain(..).map(|w| Effect::Answer(w.id, nobody.clone())));
        } else if self.hold.is_over(now)
            && (!self.waiters.is_empty() || self.due_at(now) <= now.mono)
        {
            self.fetch(now, false, effects);
        } else if self.unsaved.as_ref().is_some_and(|unsaved| unsaved.retry.is_over(now))
            && let Some(current) = &self.current
        {
            self.phase = Phase::Saving;
            effects.push(Effect::Store(Arc::clone(current)));
        }
    }

    fn dependency_changed(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.lacks_dependency) {
            self.pause = Pause::default();
        }
        self.outdated = self.follows && !matches!(self.phase, Phase::Idle);
        if self.follows
            && let Some(current) = self.live(now)
        {
            // Dead at the latest when the dependency's old token is, and to be replaced at once.
            let left = current.life_left(now).unwrap_or(Duration::ZERO);
            let overlap = Some(self.policy.overlap);
            let since = current.in_doubt_since.or(Some(now));
            let dying =
                Published { lead: left, overlap, in_doubt_since: since, ..(**current).clone() };
            self.publish(dying, effects);
        }
    }

    fn fetch(&mut self, now: Now, healed: bool, effects: &mut Vec<Effect>) {
        self.phase = Phase::Fetching { sent: now, healed };
        self.outdated = false;
        let asked_for_new = self.waiters.iter().any(|w| w.purpose == Purpose::ForcedNew);
        let asked_for = self.waiters.iter().all(|w| w.purpose == Purpose::Forced);
        let purpose = if asked_for_new {
            Purpose::ForcedNew
        } else if asked_for && !self.waiters.is_empty() && self.due_at(now) > now.mono {
            Purpose::Forced
        } else {
            Purpose::Scheduled
        };
        self.unsettled.get_or_insert(now);
        // From here on the upstream may replace the value at any moment, so that the promise shrinks
        // before the request is sent. An earlier doubt goes on.
        if self.policy.promised_overlap().is_some()
            && let Some(current) = self.live(now)
            && current.in_doubt_since.is_none()
        {
            self.publish(doubted(current, self.unsettled), effects);
        }
        effects.push(Effect::Fetch(purpose));
    }

    fn publish(&mut self, published: Published, effects: &mut Vec<Effect>) {
        let published = Arc::new(published);
        self.current = Some(Arc::clone(&published));
        effects.push(Effect::Publish(published));
    }

    fn fetched(
        &mut self,
        now: Now,
        outcome: Result<Fetched, FetchError>,
        effects: &mut Vec<Effect>,
    ) {
        let Phase::Fetching { sent, healed } = std::mem::replace(&mut self.phase, Phase::Idle)
        else {
            debug_assert!(false, "a fetch ended that was not under way");
            return;
        };
        self.lacks_dependency = false;
        match outcome {
            Ok(fetched) if fetched.expires_in <= now.since(sent) => {
                let late = FetchError::NoLifetime("it had ended before it arrived");
                self.failed(now, sent, late, effects);
            }
            Ok(fetched) => self.succeeded(now, sent, fetched, effects),
            // Not again and again: see `healed`.
            Err(error)
                if error.class() == FailureClass::DependencyInvalid
                    && !healed
                    && self.streak.healing.is_over(now) =>
            {
                self.phase = Phase::Healing;
                self.undoubt(sent, effects);
                effects.push(Effect::Report(Report::Healing));
                effects.push(Effect::HealDependencies);
            }
            Err(error) => self.failed(now, sent, error, effects),
        }
    }

    fn succeeded(&mut self, now: Now, sent: Now, fetched: Fetched, effects: &mut Vec<Effect>) {
        if let Some(upstream_time) = fetched.upstream_time {
            effects.extend(Report::clock_off(upstream_time, now).map(Effect::Report));
        }
        let before = Before {
            record: self.current.as_ref().map(|c| &c.record).or(self.remembered.as_deref()),
            left: self.current.as_ref().map(|c| c.life_left(sent).unwrap_or(Duration::ZERO)),
            generation: self.generation,
            unsettled: self.unsettled.take(),
        };
        let (record, changed) =
            life::record_of(&self.policy, self.identity, &before, fetched, sent, now);
        let lifetime = record.lifetime();
        let published = life::published(&self.policy, record, lifetime, sent);
        effects.push(Effect::Report(Report::Renewed {
            generation: published.record.generation,
            lifetime,
            changed,
            after_failures: self.streak.failures,
        }));
        // Whether the healing helped is known; the next one is still not before its time.
        let healing = std::mem::take(&mut self.streak).healing;
        self.streak.healing = healing;
        self.generation = Some(published.record.generation);
        self.remembered = None;
        self.succeeded = Some(now);
        let left = published.life_left(now).unwrap_or(Duration::ZERO);
        self.unchanged = if !changed && left <= published.lead { self.unchanged + 1 } else { 0 };
        let wait = match self.unchanged {
            0 => MIN_GAP,
            unchanged => life::poll_wait(&self.policy, left, unchanged),
        };
        self.pause = Pause::begin(now, wait);
        // Durable, then visible, then answered: what a client has seen must survive a crash, or the
        // restart would serve the value before, which the upstream is about to drop.
        let published = Arc::new(published);
        self.phase = Phase::Storing(Arc::clone(&published));
        effects.push(Effect::Store(published));
    }

    fn stored(&mut self, now: Now, outcome: Result<(), StoreError>, effects: &mut Vec<Effect>) {
        let fresh = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Storing(published) => {
                self.current = Some(Arc::clone(&published));
                effects.push(Effect::Publish(published));
                if std::mem::take(&mut self.outdated) {
                    self.dependency_changed(now, effects);
                }
                true
            }
            Phase::Saving => false,
            _ => {
                debug_assert!(false, "a write ended that was not under way");
                return;
            }
        };
        match outcome {
            Ok(()) => {
                if self.unsaved.take().is_some() {
                    effects.push(Effect::Report(Report::OnDisk));
                }
            }
            Err(error) => {
                let tries = self.unsaved.as_ref().map_or(0, |unsaved| unsaved.tries) + 1;
                let failed = Failed {
                    class: FailureClass::Transient,
                    wait: None,
                    streak: tries,
                    hard_streak: 0,
                    calm: Duration::MAX,
                };
                let retry_in = schedule::retry_wait(&failed, &mut self.jitter);
                self.unsaved =
                    Some(Box::new(Unsaved { tries, retry: Pause::begin(now, retry_in) }));
                effects.push(Effect::Report(Report::NotOnDisk { error, retry_in, tries }));
            }
        }
        if fresh {
            self.answer_all(now, None, effects);
        }
    }
}

fn doubted(current: &Published, since: Option<Now>) -> Published {
    Published { in_doubt_since: since, ..current.clone() }
}

/// When a request was sent, by its mark. A mark from the future is one of before the clock was set
/// back: how long ago that was, nobody knows, so it counts as longer than any token lives.
fn when(sent: SystemTime, now: Now) -> Now {
    if sent <= now.wall {
        return now.back_to(sent);
    }
    let day = Duration::from_secs(86_400);
    Now { wall: now.wall - day, mono: now.mono.saturating_sub(day) }
}

#[cfg(test)]
mod tests;
