//! What one receiver is told, and when: from what happens to the items of a message. Pure: is handed the
//! time and how tokens stand.
//!
//! - What happens within `gather` is told together; what is over by then is not told at all.
//! - The same of the same source is told once within `quiet`. A failure for another reason is not the
//!   same; a source that is left without a token is told of once in each failure, whatever `quiet` says.
//! - A failure that lasts is told again when `quiet` is over; that it has ended, if it was told.
//! - A source that only waits for the token of another one is not told: the other one is.
//!
//! What is kept is bounded: by the sources and accounts of the config.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::account::Account;
use crate::clock::Now;
use crate::config::{Topic, WebhookConfig};
use crate::snapshot::{CallsUsed, Happening, Trouble};
use crate::source::FailureClass;
use crate::token::SourceName;

use super::message::{Item, MOST_ITEMS};

/// The part of a day's calls, in percent, from which on somebody is told.
const TOLD_FROM: u32 = 80;

/// How many reasons of one source are told within `quiet`: an upstream that answers ever another code
/// is told no more often.
const MOST_REASONS: usize = 8;

/// How long after a renewal its token is there for sure: it is published when it is on disk, or the disk
/// is not waited for any more.
const SETTLED: Duration = Duration::from_secs(2);

/// How a source's live token stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// Until when it works.
    pub until: SystemTime,
    /// When it is dead, on the monotonic clock.
    pub ends: Duration,
}

/// How a source is, for who has missed what happened.
#[derive(Debug)]
pub(super) enum Standing {
    /// Its renewals fail.
    Failing {
        /// Since when.
        since: SystemTime,
        /// Why.
        trouble: Arc<Trouble>,
    },
    /// They come off.
    Well,
    /// Nothing has been tried since the start, or since a reload has changed it.
    Untried,
}

/// Looks a source's live token up.
pub(super) type Lives<'a> = &'a dyn Fn(&SourceName) -> Option<Life>;

/// Decides for one receiver.
#[derive(Debug)]
pub(super) struct Decider {
    topics: Vec<Topic>,
    quiet: Duration,
    gather: Duration,
    episodes: HashMap<SourceName, Episode>,
    foreign: HashMap<SourceName, Foreign>,
    quotas: HashMap<Account, Quota>,
    /// When there may be something to tell, on the monotonic clock.
    wake: Option<Duration>,
}

/// The failures of a source, from the first one until they are over.
#[derive(Debug)]
struct Episode {
    since: SystemTime,
    trouble: Arc<Trouble>,
    state: State,
    /// Whether it has been told.
    is_told: bool,
    /// Whether it has been told that there is no token any more.
    is_told_dead: bool,
    /// The reasons that have been told, of this and of earlier failures, each with when it last was.
    told: VecDeque<(Reason, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Failing,
    /// Over, which is to be told.
    Over {
        /// Since when.
        at: SystemTime,
        /// From when on it may be told, on the monotonic clock.
        told_from: Duration,
    },
    /// Over, and kept for what has been told.
    Past,
}

/// Class and code.
type Reason = (&'static str, Option<Arc<str>>);

#[derive(Debug)]
struct Foreign {
    at: SystemTime,
    untold: u32,
    told: Option<Duration>,
}

#[derive(Debug)]
struct Quota {
    used: Arc<CallsUsed>,
    is_untold: bool,
    /// Which part, and when.
    told: Option<(u32, Duration)>,
}

impl Decider {
    /// Has heard of nothing yet.
    pub(super) fn new(webhook: &WebhookConfig) -> Decider {
        Decider {
            topics: webhook.topics.clone(),
            quiet: webhook.quiet,
            gather: webhook.gather,
            episodes: HashMap::new(),
            foreign: HashMap::new(),
            quotas: HashMap::new(),
            wake: None,
        }
    }

    /// When [`Decider::take`] may have something, on the monotonic clock; `None`: not before something
    /// happens.
    pub(super) fn wake(&self) -> Option<Duration> {
        self.wake
    }

    /// Takes in what has happened. After [`Happening::Everything`], [`Decider::catch_up`] is due.
    pub(super) fn hear(&mut self, now: Now, happening: &Happening) {
        match happening {
            Happening::Failing { source, trouble } => {
                self.fail(now, source, trouble.at, Arc::clone(trouble));
            }
            Happening::Recovered { source } => self.recover(now, source),
            Happening::Foreign { source, .. } => self.note_foreign(now, source),
            Happening::CallsUsed(used) => self.note_calls(now, used),
            Happening::Rotated { .. } | Happening::Everything => {}
        }
    }

    /// Takes in how every source is, for who has missed what happened, or has just come.
    pub(super) fn catch_up(
        &mut self,
        now: Now,
        standings: impl IntoIterator<Item = (SourceName, Standing)>,
    ) {
        let mut there_are = HashSet::new();
        for (source, standing) in standings {
            match standing {
                Standing::Failing { since, trouble } => self.fail(now, &source, since, trouble),
                Standing::Well => self.recover(now, &source),
                // What was told of it was of another one.
                Standing::Untried => drop(self.episodes.remove(&source)),
            }
            there_are.insert(source);
        }
        self.episodes.retain(|source, _| there_are.contains(source));
        self.foreign.retain(|source, _| there_are.contains(source));
    }

    fn fail(&mut self, now: Now, source: &SourceName, since: SystemTime, trouble: Arc<Trouble>) {
        let is_spent = trouble.class == FailureClass::QuotaSpent.as_str();
        let is_wanted = self.wants(Topic::Failing) || is_spent && self.wants(Topic::Quota);
        if !is_wanted || trouble.class == FailureClass::DependencyAbsent.as_str() {
            return;
        }
        match self.episodes.get_mut(source) {
            None => {
                let episode = Episode {
                    since,
                    trouble,
                    state: State::Failing,
                    is_told: false,
                    is_told_dead: false,
                    told: VecDeque::new(),
                };
                self.episodes.insert(source.clone(), episode);
            }
            Some(episode) => {
                if episode.state == State::Past {
                    episode.since = since;
                    (episode.is_told, episode.is_told_dead) = (false, false);
                }
                // Over and not told: it was never over, for who hears of it.
                episode.state = State::Failing;
                episode.trouble = trouble;
            }
        }
        self.wake_at(now.mono + self.gather);
    }

    fn recover(&mut self, now: Now, source: &SourceName) {
        let is_wanted = self.wants(Topic::Recovered);
        let Some(episode) = self.episodes.get_mut(source) else { return };
        if episode.state != State::Failing {
            return;
        }
        if episode.is_told && is_wanted {
            let told_from = now.mono + self.gather.max(SETTLED);
            episode.state = State::Over { at: now.wall, told_from };
            self.wake_at(told_from);
        } else {
            episode.state = State::Past;
        }
    }

    fn note_foreign(&mut self, now: Now, source: &SourceName) {
        if !self.wants(Topic::Foreign) {
            return;
        }
        let none = Foreign { at: now.wall, untold: 0, told: None };
        let foreign = self.foreign.entry(source.clone()).or_insert(none);
        foreign.at = now.wall;
        foreign.untold = foreign.untold.saturating_add(1);
        self.wake_at(now.mono + self.gather);
    }

    fn note_calls(&mut self, now: Now, used: &Arc<CallsUsed>) {
        if !self.wants(Topic::Quota) || used.percent < TOLD_FROM {
            return;
        }
        let none = Quota { used: Arc::clone(used), is_untold: true, told: None };
        let quota = self.quotas.entry(used.account.clone()).or_insert(none);
        quota.used = Arc::clone(used);
        quota.is_untold = true;
        self.wake_at(now.mono + self.gather);
    }

    fn wants(&self, topic: Topic) -> bool {
        self.topics.contains(&topic)
    }

    fn wake_at(&mut self, at: Duration) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// What is to be told now, what is worst first, and how many items there are beyond
    /// [`MOST_ITEMS`]; `None`: nothing. It counts as told.
    pub(super) fn take(&mut self, now: Now, lives: Lives<'_>) -> Option<(Vec<Item>, usize)> {
        if self.wake.is_none_or(|wake| wake > now.mono) {
            return None;
        }
        self.wake = None;
        let mut items = Vec::new();
        self.take_episodes(now, lives, &mut items);
        self.take_foreign(now, &mut items);
        self.take_quotas(now, &mut items);
        items.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let left_out = items.len().saturating_sub(MOST_ITEMS);
        items.truncate(MOST_ITEMS);
        (!items.is_empty()).then_some((items, left_out))
    }

    fn take_episodes(&mut self, now: Now, lives: Lives<'_>, items: &mut Vec<Item>) {
        let quiet = self.quiet;
        let mut wake: Option<Duration> = None;
        for (source, episode) in &mut self.episodes {
            let life = lives(source);
            let until = life.map(|life| life.until);
            episode.told.retain(|(_, at)| now.mono.saturating_sub(*at) < quiet);
            match episode.state {
                State::Failing => {
                    let due =
                        episode.reason_told().is_none() || life.is_none() && !episode.is_told_dead;
                    if due {
                        episode.note_told(now.mono, life.is_none());
                        items.push(Item::Failing {
                            source: source.clone(),
                            since: episode.since,
                            trouble: Arc::clone(&episode.trouble),
                            until,
                        });
                    }
                    let again = episode.reason_told().map(|at| at + quiet);
                    let dead = life.filter(|_| !episode.is_told_dead).map(|life| life.ends);
                    wake = [wake, again, dead].into_iter().flatten().min();
                }
                State::Over { told_from, .. } if told_from > now.mono => {
                    wake = Some(wake.map_or(told_from, |wake| wake.min(told_from)));
                }
                State::Over { at, .. } => {
                    let since = episode.since;
                    items.push(Item::Recovered { source: source.clone(), since, at, until });
                    episode.state = State::Past;
                }
                State::Past => {}
            }
        }
        self.episodes.retain(|_, episode| episode.state != State::Past || !episode.told.is_empty());
        if let Some(at) = wake {
            self.wake_at(at);
        }
    }

    fn take_foreign(&mut self, now: Now, items: &mut Vec<Item>) {
        let mut wake: Option<Duration> = None;
        for (source, foreign) in self.foreign.iter_mut().filter(|(_, foreign)| foreign.untold > 0) {
            match foreign.told.map(|at| at + self.quiet).filter(|again| *again > now.mono) {
                Some(again) => wake = Some(wake.map_or(again, |wake| wake.min(again))),
                None => {
                    foreign.told = Some(now.mono);
                    let times = std::mem::take(&mut foreign.untold);
                    items.push(Item::Foreign { source: source.clone(), at: foreign.at, times });
                }
            }
        }
        let is_kept = |told: Option<Duration>| told.is_some_and(|at| at + self.quiet > now.mono);
        self.foreign.retain(|_, foreign| foreign.untold > 0 || is_kept(foreign.told));
        if let Some(at) = wake {
            self.wake_at(at);
        }
    }

    fn take_quotas(&mut self, now: Now, items: &mut Vec<Item>) {
        let is_kept = |told: Option<(u32, Duration)>| {
            told.filter(|(_, at)| *at + self.quiet > now.mono).map(|(percent, _)| percent)
        };
        for quota in self.quotas.values_mut().filter(|quota| quota.is_untold) {
            quota.is_untold = false;
            if is_kept(quota.told) != Some(quota.used.percent) {
                quota.told = Some((quota.used.percent, now.mono));
                items.push(Item::Quota(Arc::clone(&quota.used)));
            }
        }
        self.quotas.retain(|_, quota| is_kept(quota.told).is_some());
    }
}

impl Episode {
    fn reason(&self) -> Reason {
        (self.trouble.class, self.trouble.code.clone())
    }

    /// When its reason was told, within the quiet time.
    fn reason_told(&self) -> Option<Duration> {
        let reason = self.reason();
        let told = self.told.iter().find(|(told, _)| *told == reason).map(|(_, at)| *at);
        // Another one at last would be one too many.
        told.or_else(|| self.told.front().filter(|_| self.told.len() >= MOST_REASONS).map(|t| t.1))
    }

    fn note_told(&mut self, at: Duration, is_dead: bool) {
        let reason = self.reason();
        self.told.retain(|(told, _)| *told != reason);
        if self.told.len() < MOST_REASONS {
            self.told.push_back((reason, at));
        }
        self.is_told = true;
        self.is_told_dead |= is_dead;
    }
}

#[cfg(test)]
mod tests;
