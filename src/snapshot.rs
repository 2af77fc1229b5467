//! What is served right now: one slot per source, written by its refresher, read by everybody.
//! Reading takes no lock and makes no allocation; liveness is decided here, on each read, whatever
//! the timers did. Which slots there are is replaced whole, by a reload of the config. Knows nothing
//! of the store or of the upstream.

mod condition;
mod feed;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use foldhash::fast::RandomState;
use tokio::sync::Notify;

use crate::clock::Now;
use crate::token::{Generation, SourceName, TokenRecord};

use condition::Condition;
use feed::{Feeds, tell};

pub use condition::{Chapter, ConditionNow, Remedy, Trouble};
pub use feed::{CallsUsed, Happening, Listener, News, Onlooker};

/// A record as it is served: with what is needed to say how long a client may rely on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The record itself.
    pub record: TokenRecord,
    /// The record's end on the monotonic clock, counted when it was fetched or restored.
    pub ends_mono: Duration,
    /// How long before the end its renewal is due.
    pub lead: Duration,
    /// How long the value goes on working after a fetch has replaced it, for a source whose fetch
    /// kills the old value; `None` where it lives to its end in any case.
    pub overlap: Option<Duration>,
    /// When a request was sent that may have replaced the value without our knowing the new one:
    /// it is under way, or its answer was lost.
    pub in_doubt_since: Option<Now>,
}

impl Published {
    /// Whether the life has not ended, by either clock.
    fn is_live(&self, now: Now) -> bool {
        now.mono < self.ends_mono && now.wall < self.record.expires_at
    }

    /// What is left of the true life, by whichever clock says less; `None` once it has ended.
    pub fn life_left(&self, now: Now) -> Option<Duration> {
        let mono = self.ends_mono.checked_sub(now.mono).filter(|left| !left.is_zero())?;
        Some(self.record.ttl(now.wall)?.min(mono))
    }

    /// The **promised life**: how long a client that is answered now may rely on the value.
    ///
    /// Where a fetch kills the value after `overlap`, and we fetch ahead of the end, the true end
    /// would be a false promise: the value is sure to work until the renewal that is due (or may
    /// come at any moment, when it is overdue) and `overlap` longer.
    pub fn promised_life(&self, now: Now) -> Option<Duration> {
        let left = self.life_left(now)?;
        let Some(overlap) = self.overlap else { return Some(left) };
        let sure = match self.in_doubt_since {
            Some(since) => overlap.saturating_sub(now.since(since)),
            None => left.saturating_sub(self.lead) + overlap,
        };
        Some(left.min(sure))
    }
}

/// One source's place in the snapshot. Cheap to clone: each clone is the same place.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Place>);

#[derive(Debug)]
struct Place {
    name: SourceName,
    current: ArcSwapOption<Published>,
    condition: Condition,
    changed: Notify,
    feeds: Arc<Feeds>,
}

impl Slot {
    /// The right to publish here. To be given to one refresher at a time.
    pub fn publisher(&self) -> Publisher {
        Publisher { slot: self.clone() }
    }

    /// What it holds, live or not.
    pub fn current(&self) -> Option<Arc<Published>> {
        self.0.current.load_full()
    }

    /// Whose it is.
    pub fn name(&self) -> &SourceName {
        &self.0.name
    }

    /// How the source is doing.
    pub fn condition(&self) -> ConditionNow {
        self.0.condition.now()
    }

    /// What came of its renewals of the last day, the oldest first.
    pub fn history(&self, now: Now) -> Vec<Chapter> {
        self.0.condition.history(now.wall)
    }

    fn generation(&self) -> Option<Generation> {
        self.0.current.load().as_ref().map(|published| published.record.generation)
    }
}

/// The slots that are read at one time.
#[derive(Debug, Default)]
struct Slots {
    /// In the order of the config.
    slots: Vec<Slot>,
    by_name: HashMap<SourceName, Slot, RandomState>,
}

/// The right to say which sources are served. The composition root holds it, and nobody else.
#[derive(Debug, Default)]
pub struct Roster {
    slots: Arc<ArcSwap<Slots>>,
    feeds: Arc<Feeds>,
}

impl Roster {
    /// An empty place, which no reader sees before [`Roster::serve`] has put it in.
    pub fn slot(&self, name: SourceName) -> Slot {
        Slot(Arc::new(Place {
            name,
            current: ArcSwapOption::empty(),
            condition: Condition::default(),
            changed: Notify::new(),
            feeds: Arc::clone(&self.feeds),
        }))
    }

    /// Serves these slots and no others from now on, in this order. A slot that was served before
    /// is carried over with its token and its watchers. One that is left out is gone for readers at
    /// once.
    pub fn serve(&mut self, slots: impl IntoIterator<Item = Slot>) {
        let slots: Vec<Slot> = slots.into_iter().collect();
        let by_name = slots.iter().map(|slot| (slot.0.name.clone(), slot.clone())).collect();
        self.feeds.sources.store(slots.len(), Ordering::Relaxed);
        self.slots.store(Arc::new(Slots { slots, by_name }));
        tell(&self.feeds.news, News::Everything);
        tell(&self.feeds.happenings, Happening::Everything);
    }

    /// The right to read what is served.
    pub fn reader(&self) -> Reader {
        Reader { slots: Arc::clone(&self.slots), feeds: Arc::clone(&self.feeds) }
    }
}

/// Makes the snapshot of these sources, all absent, for a set of sources that never changes: a
/// [`Publisher`] for each, in the same order, and the [`Reader`] for everybody.
pub fn snapshot(names: impl IntoIterator<Item = SourceName>) -> (Vec<Publisher>, Reader) {
    let mut roster = Roster::default();
    let slots: Vec<Slot> = names.into_iter().map(|name| roster.slot(name)).collect();
    let publishers = slots.iter().map(Slot::publisher).collect();
    roster.serve(slots);
    (publishers, roster.reader())
}

/// The right to publish one source's token. Its refresher holds it, and nobody else.
#[derive(Debug)]
pub struct Publisher {
    slot: Slot,
}

impl Publisher {
    /// Whose token this publishes.
    pub fn name(&self) -> &SourceName {
        &self.slot.0.name
    }

    /// Makes `published` what every reader sees from now on.
    pub fn publish(&self, published: Arc<Published>) {
        let place = &self.slot.0;
        let generation = published.record.generation;
        let is_new = self.slot.generation() != Some(generation);
        place.current.store(Some(published));
        // After the store: who is woken must see the new value.
        place.changed.notify_waiters();
        tell(&place.feeds.news, News::Published(place.name.clone()));
        if is_new {
            let source = place.name.clone();
            tell(&place.feeds.happenings, Happening::Rotated { source, generation });
        }
    }

    /// Notes why a refresh failed, for whoever asks.
    pub fn note_failure(&self, trouble: Trouble) {
        let (place, trouble) = (&self.slot.0, Arc::new(trouble));
        if place.condition.fail(&trouble, place.feeds.sources.load(Ordering::Relaxed)) {
            let source = place.name.clone();
            tell(&place.feeds.happenings, Happening::Failing { source, trouble });
        }
    }

    /// Notes that a refresh has come off at `at`: what was in the way is over.
    pub fn note_success(&self, at: SystemTime) {
        let place = &self.slot.0;
        if place.condition.succeed(at, place.feeds.sources.load(Ordering::Relaxed)) {
            tell(&place.feeds.happenings, Happening::Recovered { source: place.name.clone() });
        }
    }

    /// Notes that a value was refused that should have been good.
    pub fn note_foreign(&self, generation: Generation) {
        let place = &self.slot.0;
        let source = place.name.clone();
        tell(&place.feeds.happenings, Happening::Foreign { source, generation });
    }

    /// Notes that a call of this source has used up a good part of its account's day.
    pub fn note_calls(&self, used: CallsUsed) {
        tell(&self.slot.0.feeds.happenings, Happening::CallsUsed(Arc::new(used)));
    }

    /// Notes when the next renewal is due; `None`: one is under way.
    pub fn note_next_renewal(&self, at: Option<SystemTime>) {
        self.slot.0.condition.set_next_renewal(at);
    }

    /// Notes whether the token that is served is on disk.
    pub fn note_on_disk(&self, is_on_disk: bool) {
        self.slot.0.condition.set_on_disk(is_on_disk);
    }

    /// What this slot holds, live or not.
    pub fn current(&self) -> Option<Arc<Published>> {
        self.slot.current()
    }
}

/// The right to read every source's token. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    slots: Arc<ArcSwap<Slots>>,
    feeds: Arc<Feeds>,
}

impl Reader {
    /// The live token of a source; `None` if there is no such source, or no token, or it has ended.
    pub fn live(&self, name: &str, now: Now) -> Option<LiveToken> {
        LiveToken::of(self.slots.load().by_name.get(name)?, now)
    }

    /// The configured source of this name.
    pub fn source(&self, name: &str) -> Option<SourceName> {
        self.slots.load().by_name.get(name).map(|slot| slot.0.name.clone())
    }

    /// What a source has published last, live or not.
    pub fn current(&self, name: &str) -> Option<Arc<Published>> {
        self.slots.load().by_name.get(name)?.current()
    }

    /// Why the last refresh of a source failed; `None` if it did not.
    pub fn trouble(&self, name: &str) -> Option<Arc<Trouble>> {
        self.slots.load().by_name.get(name)?.0.condition.trouble()
    }

    /// Tells each change of one source's value from now on.
    pub fn changes(&self, name: &str) -> Option<Changes> {
        let slot = self.slots.load().by_name.get(name)?.clone();
        Some(Changes { seen: slot.generation(), slot })
    }

    /// Tells what happens to any source from now on.
    pub fn news(&self) -> Listener {
        Listener(self.feeds.news.subscribe())
    }

    /// Tells what happens to any source from now on, for those who only look on.
    pub fn happenings(&self) -> Onlooker {
        Onlooker(self.feeds.happenings.subscribe())
    }

    /// The place of a source.
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.slots.load().by_name.get(name).cloned()
    }

    /// The sources as they are now, to go through them: a reload meanwhile does not change a view.
    pub fn view(&self) -> View {
        View { slots: self.slots.load_full() }
    }
}

/// Tells the changes of one source's value. See [`Reader::changes`].
#[derive(Debug)]
pub struct Changes {
    slot: Slot,
    seen: Option<Generation>,
}

impl Changes {
    /// Waits until the value is another than at the last time (several changes may be told as one).
    /// Never ends for a source that is served no more.
    pub async fn changed(&mut self) {
        loop {
            // Before the look: what is published after it wakes this.
            let changed = self.slot.0.changed.notified();
            let generation = self.slot.generation();
            if generation != self.seen {
                self.seen = generation;
                return;
            }
            changed.await;
        }
    }
}

/// Which sources are served at one moment; their tokens are those of the moment they are read.
/// Hold it briefly: it keeps what a reload has removed.
#[derive(Debug)]
pub struct View {
    slots: Arc<Slots>,
}

impl View {
    /// As [`Reader::live`], for whoever looks at several: it costs less than asking the reader each time.
    pub fn live(&self, name: &str, now: Now) -> Option<LiveToken> {
        LiveToken::of(self.slots.by_name.get(name)?, now)
    }

    /// Every live token with its source, in the order of the config.
    pub fn all_live(&self, now: Now) -> impl Iterator<Item = (&SourceName, LiveToken)> {
        let slots = self.slots.slots.iter();
        slots.filter_map(move |slot| Some((&slot.0.name, LiveToken::of(slot, now)?)))
    }

    /// The place of every configured source, in the order of the config.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = &Slot> {
        self.slots.slots.iter()
    }

    /// Every configured source, in the order of the config.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = &SourceName> {
        self.slots.slots.iter().map(|slot| &slot.0.name)
    }
}

/// A token that was live when it was read. Holds the record, so hold it briefly.
#[derive(Debug)]
pub struct LiveToken {
    published: Guard<Option<Arc<Published>>>,
    now: Now,
}

impl LiveToken {
    fn of(slot: &Slot, now: Now) -> Option<LiveToken> {
        let published = slot.0.current.load();
        published
            .as_ref()
            .is_some_and(|published| published.is_live(now))
            .then_some(LiveToken { published, now })
    }

    fn published(&self) -> &Published {
        self.published.as_ref().expect("`of` makes none from an empty slot")
    }

    /// The record.
    pub fn record(&self) -> &TokenRecord {
        &self.published().record
    }

    /// Whether a request is under way, or was lost, that may have replaced it.
    pub fn is_in_doubt(&self) -> bool {
        self.published().in_doubt_since.is_some()
    }

    /// How long a client may rely on the value, from the reading on. See
    /// [`Published::promised_life`].
    pub fn promised_life(&self) -> Duration {
        self.published().promised_life(self.now).unwrap_or_default()
    }

    /// What is left of the true life. See [`Published::life_left`].
    pub fn life_left(&self, now: Now) -> Duration {
        self.published().life_left(now).unwrap_or_default()
    }

    /// Whether every older value of the source has ended by now: whoever saw a value refused that was
    /// given by us saw this one.
    pub fn is_older_than_overlap(&self, now: Now) -> bool {
        let published = self.published();
        let age = now.since(now.back_to(published.record.fetched_at));
        age > published.overlap.unwrap_or_default()
    }

    /// The wall-clock instant until which a client may rely on the value.
    pub fn promised_end(&self, now: Now) -> SystemTime {
        now.wall + self.promised_life()
    }
}

#[cfg(test)]
mod tests;
