//! What a failure leads to: its place in the streak, the wait after it, the healing of a refused
//! dependency, the doubt it leaves. Part of the machine.

use std::time::Duration;

use crate::clock::Now;
use crate::refresh::handle::RefreshError;
use crate::refresh::ledger::until_calls_again;
use crate::refresh::life;
use crate::refresh::report::Report;
use crate::refresh::schedule::{self, Failed, Pause};
use crate::source::{FailureClass, FetchError};

use super::{Effect, Machine, Phase, doubted};

/// The streak of failures since the last success.
#[derive(Debug, Default)]
pub(super) struct Streak {
    /// How many attempts have failed in a row.
    pub(super) failures: u32,
    /// How many of them in the last window of the token's life, or without a token.
    pub(super) hard: u32,
    /// The class of the last one.
    pub(super) class: Option<FailureClass>,
    /// How many times refused dependencies were renewed, and for how long they are not again.
    pub(super) heals: u32,
    pub(super) healing: Pause,
    /// The last failure.
    pub(super) last: Option<Box<LastFailure>>,
}

/// A failure as clients are told of it.
#[derive(Debug)]
pub(super) struct LastFailure {
    pub(super) told: RefreshError,
    class: FailureClass,
    /// For how long a client's wish is answered with it.
    pub(super) shared: Pause,
    /// How long it asked to be left alone for by itself.
    pub(super) own: Pause,
}

impl Machine {
    pub(super) fn healed(
        &mut self,
        now: Now,
        outcome: Result<(), RefreshError>,
        effects: &mut Vec<Effect>,
    ) {
        debug_assert!(matches!(self.phase, Phase::Healing), "no healing was under way");
        self.phase = Phase::Idle;
        if outcome.is_ok() {
            // Ever more rarely in a streak: where a new token of the dependency does not help, another
            // one hardly does, and each costs the dependency's other users.
            self.streak.healing = Pause::begin(now, schedule::heal_wait(self.streak.heals));
            self.streak.heals += 1;
        }
        match outcome {
            Ok(()) if !self.draining => self.fetch(now, true, effects),
            Ok(()) => {}
            Err(error) => {
                self.count_failure(now, FailureClass::DependencyInvalid, None, error.clone());
                self.answer_all(now, Some(&error), effects);
            }
        }
    }

    pub(super) fn failed(
        &mut self,
        now: Now,
        sent: Now,
        error: FetchError,
        effects: &mut Vec<Effect>,
    ) {
        if !error.may_have_replaced() {
            self.undoubt(sent, effects);
        }
        let class = error.class();
        let again = self.streak.class == Some(class);
        let wait = if again { error.wait_again() } else { error.wait() };
        // 45009 and the like mean the day, where nothing nearer is known.
        let wait = match (class, wait) {
            (FailureClass::QuotaSpent, None) => until_calls_again(now.wall),
            (_, wait) => wait,
        };
        self.lacks_dependency = class == FailureClass::DependencyAbsent;
        let told = RefreshError::from(&error);
        let retry_in = self.count_failure(now, class, wait, told.clone());
        let told = match (wait, schedule::forced_wait(class, wait, self.streak.failures)) {
            (Some(wait), _) => told.again_in(wait),
            (None, None) => told.again_in(retry_in),
            (None, Some(_)) => told,
        };
        let streak = self.streak.failures;
        effects.push(Effect::Report(Report::Failed { error, streak, retry_in }));
        self.answer_all(now, Some(&told), effects);
    }

    /// Enters a failure into the streak; how long until the schedule's next attempt.
    fn count_failure(
        &mut self,
        now: Now,
        class: FailureClass,
        wait: Option<Duration>,
        told: RefreshError,
    ) -> Duration {
        let nothing_sent = matches!(class, FailureClass::DependencyAbsent | FailureClass::Reserved);
        let calm = self.calm(now);
        if !nothing_sent {
            self.streak.failures = self.streak.failures.saturating_add(1);
            self.streak.class = Some(class);
            self.streak.hard = if calm.is_zero() { self.streak.hard.saturating_add(1) } else { 0 };
        }
        let (streak, hard_streak) = (self.streak.failures, self.streak.hard);
        let failed = Failed { class, wait, streak, hard_streak, calm };
        let retry_in = schedule::retry_wait(&failed, &mut self.jitter);
        let forced_in = schedule::forced_wait(class, wait, streak).unwrap_or(retry_in);
        let own = Pause::begin(now, wait.unwrap_or_default());
        let shared = Pause::begin(now, forced_in);
        self.streak.last = Some(Box::new(LastFailure { told, class, shared, own }));
        if class != FailureClass::Reserved {
            // What a client was refused says nothing of the schedule.
            self.pause = Pause::begin(now, retry_in);
        }
        retry_in
    }

    /// The day's calls are to be had again: whatever waited for them does not any more. Whether the last
    /// attempt failed for want of them.
    pub(super) fn calls_again(&mut self) -> bool {
        let waited = |class| matches!(class, FailureClass::QuotaSpent | FailureClass::Reserved);
        if self.streak.last.as_ref().is_some_and(|last| waited(last.class)) {
            self.streak.last = None;
        }
        let failed = self.streak.class == Some(FailureClass::QuotaSpent);
        if failed {
            self.pause = Pause::default();
        }
        failed
    }

    /// How long until the last window of the token's life begins; zero in it, or without a token.
    fn calm(&self, now: Now) -> Duration {
        self.live(now).map_or(Duration::ZERO, |current| {
            let left = current.life_left(now).unwrap_or(Duration::ZERO);
            left.saturating_sub(life::must_lead(&self.policy, &current.record))
        })
    }

    /// Takes back the doubt that the request sent at `sent` raised; one raised before it stays.
    pub(super) fn undoubt(&mut self, sent: Now, effects: &mut Vec<Effect>) {
        if self.unsettled == Some(sent) {
            self.unsettled = None;
        }
        if let Some(current) = &self.current
            && current.in_doubt_since == Some(sent)
        {
            self.publish(doubted(current, None), effects);
        }
    }
}
