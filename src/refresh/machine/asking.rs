//! Who is answered with what, and when: at once, from the state after an attempt, or with the reason
//! why not. Part of the machine.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::config::Rotation;
use crate::refresh::handle::{RefreshError, Refused, Wish};
use crate::refresh::ledger::Purpose;
use crate::refresh::report::Report;
use crate::snapshot::Published;
use crate::token::Generation;

use super::{Effect, Machine, WaiterId};

/// How many clients wait for one source at most: a tenth of the connections there are by default.
/// Each holds one; more is an attack or a loop, and is refused rather than remembered.
pub(in crate::refresh) const MAX_WAITERS: usize = 1_024;

/// What a waiter would take for news.
#[derive(Debug)]
pub(super) enum Knows {
    /// A newer generation than this; any, where there was none.
    Generation(Option<Generation>),
    /// Another value than this.
    Refused(Refused),
    /// Nothing that is there: it waits for an attempt.
    Attempt,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) id: WaiterId,
    pub(super) knows: Knows,
    pub(super) purpose: Purpose,
}

impl Waiter {
    /// Whether this failure is an answer to it. That new values are forced too often says nothing to who
    /// wants whatever the upstream gives.
    fn is_concerned_by(&self, failure: &RefreshError) -> bool {
        self.purpose == Purpose::ForcedNew
            || !matches!(failure, RefreshError::ForcedTooOften { .. })
    }
}

impl Machine {
    pub(super) fn asked(&mut self, now: Now, id: WaiterId, wish: Wish, effects: &mut Vec<Effect>) {
        let (knows, purpose) = match wish {
            Wish::Any { newer_than, force } => (Knows::Generation(newer_than), self.purpose(force)),
            Wish::Other { refused, force } => (Knows::Refused(refused), self.purpose(force)),
            Wish::Newer { generation } => (Knows::Generation(Some(generation)), Purpose::Scheduled),
            // What had failed for want of calls is tried now. Else there is nothing to be done.
            Wish::CallsAgain if self.calls_again() => (Knows::Attempt, Purpose::Scheduled),
            Wish::CallsAgain => (Knows::Generation(None), Purpose::Scheduled),
        };
        let waiter = Waiter { id, knows, purpose };
        match self.answer_at_once(now, &waiter, effects) {
            Some(answer) => effects.push(Effect::Answer(id, answer)),
            None if self.waiters.len() >= MAX_WAITERS => {
                effects.push(Effect::Answer(id, Err(RefreshError::TooMany)));
            }
            None => self.waiters.push(waiter),
        }
    }

    /// Forgets the waiters who do not wait any more.
    pub(in crate::refresh) fn forget(&mut self, has_left: impl Fn(WaiterId) -> bool) {
        self.waiters.retain(|waiter| !has_left(waiter.id));
    }

    /// Only a sticky source can be asked for a new value while the old one is good.
    fn purpose(&self, force: bool) -> Purpose {
        match self.policy.rotation {
            Rotation::Sticky { .. } if force => Purpose::ForcedNew,
            _ => Purpose::Forced,
        }
    }

    /// The answer that needs no attempt, if there is one.
    fn answer_at_once(
        &mut self,
        now: Now,
        waiter: &Waiter,
        effects: &mut Vec<Effect>,
    ) -> Option<Result<Arc<Published>, RefreshError>> {
        let live = self.live(now).cloned();
        if let Some(current) = live.as_ref().filter(|_| !matches!(waiter.knows, Knows::Attempt)) {
            if is_news(current, waiter) {
                return Some(Ok(Arc::clone(current)));
            }
            if !matches!(waiter.knows, Knows::Generation(_)) || waiter.purpose == Purpose::Scheduled
            {
                self.note_refused(now, current, effects);
            }
            match (&waiter.knows, waiter.purpose) {
                (_, Purpose::ForcedNew | Purpose::Scheduled) => {}
                (Knows::Refused(_), _) => {
                    if let Some(wait) = self.cools_down(now, self.policy.cooldown) {
                        return Some(Err(RefreshError::TooSoon { wait }));
                    }
                }
                (Knows::Generation(_) | Knows::Attempt, _) => {
                    if self.cools_down(now, self.policy.unfounded_cooldown()).is_some() {
                        return Some(Ok(Arc::clone(current)));
                    }
                }
            }
        }
        let last = self.streak.last.as_ref().filter(|last| !last.shared.is_over(now))?;
        if !waiter.is_concerned_by(&last.told) {
            return None;
        }
        // The longer of the two: who comes back sooner would only be told again.
        let wait = last.shared.left(now).max(last.own.left(now));
        Some(Err(last.told.clone().again_in(wait)))
    }

    /// What is left of a cooldown of this length.
    fn cools_down(&self, now: Now, cooldown: Duration) -> Option<Duration> {
        let left = cooldown.checked_sub(now.since(self.succeeded?))?;
        (!left.is_zero()).then_some(left)
    }

    /// Somebody saw the current value refused. Unless a request of ours may have replaced it,
    /// another system's has; told once for each value.
    fn note_refused(&mut self, now: Now, current: &Published, effects: &mut Vec<Effect>) {
        let generation = current.record.generation;
        if current.in_doubt_since.is_none() && self.refused != Some(generation) {
            self.refused = Some(generation);
            let age = self.succeeded.map_or(Duration::ZERO, |succeeded| now.since(succeeded));
            effects.push(Effect::Report(Report::Foreign { generation, age }));
        }
    }

    /// Answers every waiter from the state: the current token where it is news to it, or where the
    /// attempt did not fail; else the attempt's failure. Whom that does not concern waits on.
    pub(super) fn answer_all(
        &mut self,
        now: Now,
        failure: Option<&RefreshError>,
        effects: &mut Vec<Effect>,
    ) {
        for waiter in std::mem::take(&mut self.waiters) {
            let answer = match (self.live(now), failure) {
                (Some(current), _) if is_news(current, &waiter) => Ok(Arc::clone(current)),
                (_, Some(failure)) if !waiter.is_concerned_by(failure) => {
                    self.waiters.push(waiter);
                    continue;
                }
                (_, Some(failure)) => Err(failure.clone()),
                // The upstream stands by a value that was seen refused: say so, never the value.
                (Some(current), None) => match waiter.knows {
                    Knows::Refused(_) => Err(RefreshError::Unchanged),
                    Knows::Generation(_) | Knows::Attempt => Ok(Arc::clone(current)),
                },
                (None, None) => Err(RefreshError::Lost),
            };
            effects.push(Effect::Answer(waiter.id, answer));
        }
    }
}

/// Whether `current` is news to the waiter.
fn is_news(current: &Published, waiter: &Waiter) -> bool {
    match &waiter.knows {
        Knows::Generation(known) => known.is_none_or(|known| current.record.generation > known),
        Knows::Refused(refused) => !refused.is(&current.record.value),
        Knows::Attempt => false,
    }
}
