//! Every decision about one source, as a pure machine: an event comes in, effects come out. Reads
//! no clock, does no I/O, knows no task; a run is repeated from its seed and its events.
//!
//! One thing is under way at a time ([`Phase`]), so there is never a second request for a source,
//! and nothing to lock.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::config::RefreshPolicy;
use crate::refresh::handle::{Cause, RefreshError};
use crate::refresh::schedule::{MAX_SLEEP, MIN_GAP, heal_wait, retry_wait};
use crate::snapshot::Published;
use crate::source::{FailureClass, FetchError, Fetched};
use crate::store::StoreError;
use crate::token::{Generation, SourceIdentity, TokenRecord};

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
    /// A client (or a dependent) wants a token newer than the one it knows.
    Asked {
        /// Who is to be answered.
        waiter: WaiterId,
        /// The generation it knows; `None` if it knows of no token.
        newer_than: Option<Generation>,
        /// Who asks.
        cause: Cause,
    },
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
    /// Ask the upstream for a token.
    Fetch,
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

/// What an operator is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// A fetch brought a token.
    Renewed {
        /// Its generation.
        generation: Generation,
        /// Its life, from the request on.
        lifetime: Duration,
        /// Whether the value is another than before.
        changed: bool,
        /// How many attempts had failed before.
        after_failures: u32,
    },
    /// An attempt failed.
    Failed {
        /// Why.
        error: FetchError,
        /// How many have failed in a row.
        streak: u32,
        /// When the next one is, unless somebody asks before.
        retry_in: Duration,
    },
    /// The token is served, but it is not on disk.
    NotOnDisk {
        /// Why.
        error: StoreError,
        /// When the write is tried again.
        retry_in: Duration,
    },
    /// A token that was not on disk is now.
    OnDisk,
    /// A dependency's token was refused and is renewed.
    Healing,
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

#[derive(Debug)]
struct Waiter {
    id: WaiterId,
    newer_than: Option<Generation>,
}

/// A record in memory that is not on disk.
#[derive(Debug)]
struct Unsaved {
    tries: u32,
    retry_at: Duration,
}

/// The decisions of one source.
#[derive(Debug)]
pub struct Machine {
    policy: RefreshPolicy,
    identity: SourceIdentity,
    jitter: fastrand::Rng,
    phase: Phase,
    current: Option<Arc<Published>>,
    /// The newest generation known, also of a record that is not served any more.
    generation: Option<Generation>,
    /// When the last fetch succeeded; the cooldown counts from here.
    succeeded: Option<Now>,
    /// How many attempts have failed in a row.
    failures: u32,
    /// The monotonic instant before which no attempt is made unless somebody asks.
    not_before: Duration,
    /// How many times dependencies were renewed in this streak of failures, and the monotonic
    /// instant before which they are not again.
    heals: u32,
    no_healing_before: Duration,
    /// The last attempt found a dependency without a token: its change is worth an attempt.
    lacks_dependency: bool,
    unsaved: Option<Unsaved>,
    waiters: Vec<Waiter>,
    draining: bool,
}

impl Machine {
    /// A machine that knows of no token. `seed` is for the jitter.
    pub fn new(policy: RefreshPolicy, identity: SourceIdentity, seed: u64) -> Machine {
        Machine {
            policy,
            identity,
            jitter: fastrand::Rng::with_seed(seed),
            phase: Phase::Idle,
            current: None,
            generation: None,
            succeeded: None,
            failures: 0,
            not_before: Duration::ZERO,
            heals: 0,
            no_healing_before: Duration::ZERO,
            lacks_dependency: false,
            unsaved: None,
            waiters: Vec::new(),
            draining: false,
        }
    }

    /// Begins with what the store held. A record of another identity, or one that has ended, is not
    /// served; its generation counts all the same.
    pub fn restore(&mut self, now: Now, record: TokenRecord) -> Vec<Effect> {
        self.generation = self.generation.max(Some(record.generation));
        let Some(left) = record.ttl(now.wall).filter(|_| record.identity == self.identity) else {
            return Vec::new();
        };
        // A wall clock that was set back since would make the life longer than it ever was.
        let left = left.min(record.lifetime());
        let age = now.wall.duration_since(record.fetched_at).unwrap_or(Duration::ZERO);
        self.succeeded = Some(Now { wall: record.fetched_at, mono: now.mono.saturating_sub(age) });
        let published = Arc::new(Published {
            ends_mono: now.mono + left,
            lead: self.policy.lead(record.lifetime()),
            overlap: self.policy.promised_overlap(),
            in_doubt_since: None,
            record,
        });
        self.current = Some(Arc::clone(&published));
        vec![Effect::Publish(published)]
    }

    /// Takes an event; what is to be done about it, in order.
    pub fn on(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Woken => {}
            Event::DependencyChanged => {
                if std::mem::take(&mut self.lacks_dependency) {
                    self.not_before = now.mono;
                }
            }
            Event::Asked { waiter, newer_than, cause } => {
                self.asked(now, Waiter { id: waiter, newer_than }, cause, &mut effects);
            }
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
                let save = self.unsaved.as_ref().map_or(latest, |unsaved| unsaved.retry_at);
                self.due_at(now).min(save).min(latest)
            }
            _ => latest,
        }
    }

    /// Whether the drain has been seen and nothing is under way any more.
    pub fn is_finished(&self) -> bool {
        self.draining && matches!(self.phase, Phase::Idle)
    }

    /// Whether the drain has been seen.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    fn live(&self, now: Now) -> Option<&Arc<Published>> {
        self.current.as_ref().filter(|current| current.life_left(now).is_some())
    }

    /// The monotonic instant of the next attempt that nobody asks for.
    fn due_at(&self, now: Now) -> Duration {
        let due = match self.live(now) {
            None => now.mono,
            Some(current) => {
                let left = current.life_left(now).unwrap_or(Duration::ZERO);
                now.mono + left.saturating_sub(current.lead)
            }
        };
        due.max(self.not_before)
    }

    /// Starts what is due, if nothing is under way.
    fn go_on(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        if self.draining {
            let nobody = Err(RefreshError::Draining);
            effects.extend(self.waiters.drain(..).map(|w| Effect::Answer(w.id, nobody.clone())));
        } else if !self.waiters.is_empty() || self.due_at(now) <= now.mono {
            self.fetch(now, false, effects);
        } else if self.unsaved.as_ref().is_some_and(|unsaved| unsaved.retry_at <= now.mono)
            && let Some(current) = &self.current
        {
            self.phase = Phase::Saving;
            effects.push(Effect::Store(Arc::clone(current)));
        }
    }

    fn asked(&mut self, now: Now, waiter: Waiter, cause: Cause, effects: &mut Vec<Effect>) {
        if let Some(current) = self.live(now)
            && (is_news(current, &waiter) || (cause == Cause::Client && self.cools_down(now)))
        {
            effects.push(Effect::Answer(waiter.id, Ok(Arc::clone(current))));
        } else {
            self.waiters.push(waiter);
        }
    }

    fn cools_down(&self, now: Now) -> bool {
        self.succeeded.is_some_and(|succeeded| now.since(succeeded) < self.policy.cooldown)
    }

    fn fetch(&mut self, now: Now, healed: bool, effects: &mut Vec<Effect>) {
        self.phase = Phase::Fetching { sent: now, healed };
        // From here on the upstream may replace the value at any moment, so that the promise shrinks
        // before the request is sent. An earlier doubt goes on.
        if self.policy.promised_overlap().is_some()
            && let Some(current) = self.live(now)
            && current.in_doubt_since.is_none()
        {
            self.publish(doubted(current, Some(now)), effects);
        }
        effects.push(Effect::Fetch);
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
            // Ever more rarely in a streak: where a new token of the dependency does not help,
            // another one hardly does, and each costs the dependency's other users.
            Err(error)
                if error.class() == FailureClass::DependencyInvalid
                    && !healed
                    && now.mono >= self.no_healing_before =>
            {
                self.phase = Phase::Healing;
                self.no_healing_before = now.mono + heal_wait(self.heals);
                self.heals += 1;
                self.undoubt(sent, effects);
                effects.push(Effect::Report(Report::Healing));
                effects.push(Effect::HealDependencies);
            }
            Err(error) => self.failed(now, sent, error, effects),
        }
    }

    fn succeeded(&mut self, now: Now, sent: Now, fetched: Fetched, effects: &mut Vec<Effect>) {
        let before = self.current.as_ref().map(|current| &current.record);
        let same = before.filter(|record| record.value == fetched.value);
        let generation = match (same, self.generation) {
            (Some(record), _) => record.generation,
            (None, Some(generation)) => generation.next(),
            (None, None) => Generation::first(now),
        };
        let record = TokenRecord {
            first_seen: same.map_or(sent.wall, |record| record.first_seen),
            value: fetched.value,
            // From when the request was sent: the upstream began to count before we had its answer.
            fetched_at: sent.wall,
            expires_at: sent.wall + fetched.expires_in,
            generation,
            identity: self.identity,
            captured: fetched.captured,
        };
        effects.push(Effect::Report(Report::Renewed {
            generation,
            lifetime: fetched.expires_in,
            changed: same.is_none(),
            after_failures: std::mem::take(&mut self.failures),
        }));
        self.generation = Some(generation);
        self.succeeded = Some(now);
        self.heals = 0;
        self.not_before = now.mono + MIN_GAP;
        let published = Arc::new(Published {
            ends_mono: sent.mono + fetched.expires_in,
            lead: self.policy.lead(fetched.expires_in),
            overlap: self.policy.promised_overlap(),
            in_doubt_since: None,
            record,
        });
        // Durable, then visible, then answered: what a client has seen must survive a crash, or the
        // restart would serve the value before, which the upstream is about to drop.
        self.phase = Phase::Storing(Arc::clone(&published));
        effects.push(Effect::Store(published));
    }

    fn stored(&mut self, now: Now, outcome: Result<(), StoreError>, effects: &mut Vec<Effect>) {
        let fresh = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Storing(published) => {
                self.current = Some(Arc::clone(&published));
                effects.push(Effect::Publish(published));
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
                let retry_in = retry_wait(FailureClass::Transient, tries, &mut self.jitter);
                self.unsaved = Some(Unsaved { tries, retry_at: now.mono + retry_in });
                effects.push(Effect::Report(Report::NotOnDisk { error, retry_in }));
            }
        }
        if fresh {
            self.answer_all(now, None, effects);
        }
    }

    fn healed(&mut self, now: Now, outcome: Result<(), RefreshError>, effects: &mut Vec<Effect>) {
        debug_assert!(matches!(self.phase, Phase::Healing), "no healing was under way");
        self.phase = Phase::Idle;
        match outcome {
            Ok(()) if !self.draining => self.fetch(now, true, effects),
            Ok(()) => {}
            Err(error) => {
                self.count_failure(now, FailureClass::DependencyInvalid);
                self.answer_all(now, Some(&error), effects);
            }
        }
    }

    fn failed(&mut self, now: Now, sent: Now, error: FetchError, effects: &mut Vec<Effect>) {
        if !error.may_have_replaced() {
            self.undoubt(sent, effects);
        }
        let retry_in = self.count_failure(now, error.class());
        self.lacks_dependency = error.class() == FailureClass::DependencyAbsent;
        let told = RefreshError::Failed(error.to_string().into());
        effects.push(Effect::Report(Report::Failed { error, streak: self.failures, retry_in }));
        self.answer_all(now, Some(&told), effects);
    }

    fn count_failure(&mut self, now: Now, class: FailureClass) -> Duration {
        if class != FailureClass::DependencyAbsent {
            // Nothing was sent, so nothing failed.
            self.failures = self.failures.saturating_add(1);
        }
        let retry_in = retry_wait(class, self.failures, &mut self.jitter);
        self.not_before = now.mono + retry_in;
        retry_in
    }

    /// Takes back the doubt that the request sent at `sent` raised; one raised before it stays.
    fn undoubt(&mut self, sent: Now, effects: &mut Vec<Effect>) {
        if let Some(current) = &self.current
            && current.in_doubt_since == Some(sent)
        {
            self.publish(doubted(current, None), effects);
        }
    }

    /// Answers every waiter from the state: the current token where it is news to it, or where the
    /// attempt did not fail; else the attempt's failure.
    fn answer_all(&mut self, now: Now, failure: Option<&RefreshError>, effects: &mut Vec<Effect>) {
        for waiter in std::mem::take(&mut self.waiters) {
            let answer = match (self.live(now), failure) {
                (Some(current), None) => Ok(Arc::clone(current)),
                (Some(current), Some(_)) if is_news(current, &waiter) => Ok(Arc::clone(current)),
                (_, Some(failure)) => Err(failure.clone()),
                (None, None) => Err(RefreshError::Lost),
            };
            effects.push(Effect::Answer(waiter.id, answer));
        }
    }
}

/// Whether `current` is newer than what the waiter knows.
fn is_news(current: &Published, waiter: &Waiter) -> bool {
    waiter.newer_than.is_none_or(|known| current.record.generation > known)
}

fn doubted(current: &Published, since: Option<Now>) -> Published {
    Published { in_doubt_since: since, ..current.clone() }
}
