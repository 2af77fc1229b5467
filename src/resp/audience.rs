//! Who wants to be told of what: subscribers of channels and patterns, and clients that cache. Turns
//! what has happened to a source into frames and leaves them with each of them. Locked when somebody
//! subscribes and when something happens; never by a read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::resp::DATABASES;
use crate::resp::connections::{Card, Connections};
use crate::resp::glob::{Case, matches};
use crate::resp::reply::{Frame, Protocol, Reply};
use crate::token::{Generation, SourceName};

/// The channel on which Redis tells a RESP2 client what another one caches.
pub(super) const INVALIDATE: &[u8] = b"__redis__:invalidate";

/// What has happened to a source's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// There is another one, or one again.
    Set(Generation),
    /// It has ended.
    Expired,
    /// Its source is served no more.
    Removed,
}

impl Happening {
    /// What Redis calls it in its keyspace notifications.
    fn event(self) -> &'static str {
        match self {
            Happening::Set(_) => "set",
            Happening::Expired => "expired",
            Happening::Removed => "del",
        }
    }
}

/// Everybody who wants to be told.
#[derive(Debug)]
pub(super) struct Audience {
    rows: Mutex<Rows>,
    /// Whether keyspace notifications are sent.
    notify: bool,
}

#[derive(Debug, Default)]
struct Rows {
    channels: HashMap<Box<[u8]>, Vec<Arc<Card>>>,
    patterns: HashMap<Box<[u8]>, Vec<Arc<Card>>>,
    trackers: Vec<Arc<Card>>,
}

/// Channels or patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// A channel by its name.
    Channel,
    /// All channels whose name matches.
    Pattern,
}

impl Rows {
    fn of(&mut self, topic: Topic) -> &mut HashMap<Box<[u8]>, Vec<Arc<Card>>> {
        match topic {
            Topic::Channel => &mut self.channels,
            Topic::Pattern => &mut self.patterns,
        }
    }
}

impl Audience {
    /// Nobody yet.
    pub(super) fn new(notify: bool) -> Audience {
        Audience { rows: Mutex::default(), notify }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // Each change is one insertion or removal: a panic leaves nothing half done.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a client in that is not in yet.
    pub(super) fn subscribe(&self, topic: Topic, name: &[u8], card: &Arc<Card>) {
        let mut rows = self.rows();
        rows.of(topic).entry(name.into()).or_default().push(Arc::clone(card));
    }

    /// Lets a client go.
    pub(super) fn unsubscribe(&self, topic: Topic, name: &[u8], card: &Card) {
        let mut rows = self.rows();
        let rows = rows.of(topic);
        if let Some(cards) = rows.get_mut(name) {
            cards.retain(|other| other.id != card.id);
            if cards.is_empty() {
                rows.remove(name);
            }
        }
    }

    /// Takes a client in that caches and is not in yet.
    pub(super) fn track(&self, card: &Arc<Card>) {
        self.rows().trackers.push(Arc::clone(card));
    }

    /// Lets a client go that caches no more.
    pub(super) fn untrack(&self, card: &Card) {
        self.rows().trackers.retain(|other| other.id != card.id);
    }

    /// How many clients cache.
    pub(super) fn tracking_clients(&self) -> usize {
        self.rows().trackers.len()
    }

    /// The channels that somebody subscribes to and that match, in order.
    pub(super) fn channels(&self, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let rows = self.rows();
        let wanted =
            |name: &[u8]| pattern.is_none_or(|pattern| matches(pattern, name, Case::Sensitive));
        let mut names: Vec<Box<[u8]>> =
            rows.channels.keys().filter(|name| wanted(name)).cloned().collect();
        names.sort_unstable();
        names
    }

    /// How many channels are subscribed to.
    pub(super) fn channel_count(&self) -> usize {
        self.rows().channels.len()
    }

    /// How many subscribe to a channel.
    pub(super) fn subscribers(&self, channel: &[u8]) -> usize {
        self.rows().channels.get(channel).map_or(0, Vec::len)
    }

    /// How many patterns are subscribed to.
    pub(super) fn patterns(&self) -> usize {
        self.rows().patterns.len()
    }

    /// Tells everybody who wants to know of it.
    pub(super) fn tell(&self, source: &SourceName, what: Happening, connections: &Connections) {
        let mut rows = self.rows();
        if self.notify {
            for keyspace in [true, false] {
                notify(&rows, source, what, keyspace);
            }
        }
        if let Happening::Set(generation) = what {
            let channel = format!("token:{source}");
            let generation = generation.to_string();
            let message = |channel: &[u8]| message(channel, generation.as_bytes());
            if let Some(cards) = rows.channels.get(channel.as_bytes()) {
                let frame = message(channel.as_bytes());
                cards.iter().for_each(|card| card.push(Some(source), &frame));
            }
            for (pattern, cards) in &rows.patterns {
                if matches(pattern, channel.as_bytes(), Case::Sensitive) {
                    let frame = pmessage(pattern, channel.as_bytes(), generation.as_bytes());
                    cards.iter().for_each(|card| card.push(Some(source), &frame));
                }
            }
        }
        invalidate(&mut rows, Some(source), connections);
    }

    /// Has everything forgotten that anybody caches.
    pub(super) fn invalidate_all(&self, connections: &Connections) {
        invalidate(&mut self.rows(), None, connections);
    }
}

/// Sends one of the two keyspace notifications: the event on the key's channel, or the key on the
/// event's. In Redis each database has its own channels. Here all databases show the same keys, so
/// who subscribes to a channel of any of them is told; by a pattern that matches several, once, in
/// the database that the client has selected where that is one of them.
fn notify(rows: &Rows, source: &SourceName, what: Happening, keyspace: bool) {
    let (kind, topic, payload) = if keyspace {
        ("keyspace", source.as_str(), what.event())
    } else {
        ("keyevent", what.event(), source.as_str())
    };
    let channels: Vec<String> =
        (0..DATABASES).map(|db| format!("__{kind}@{db}__:{topic}")).collect();
    if !rows.channels.is_empty() {
        for channel in &channels {
            if let Some(cards) = rows.channels.get(channel.as_bytes()) {
                let frame = message(channel.as_bytes(), payload.as_bytes());
                cards.iter().for_each(|card| card.push(Some(source), &frame));
            }
        }
    }
    for (pattern, cards) in &rows.patterns {
        let is_match = |db: usize| matches(pattern, channels[db].as_bytes(), Case::Sensitive);
        let Some(first) = (0..channels.len()).find(|db| is_match(*db)) else { continue };
        let frame = |db: usize| pmessage(pattern, channels[db].as_bytes(), payload.as_bytes());
        // Most clients have selected the same database.
        let mut last = (first, frame(first));
        for card in cards {
            let selected = usize::from(card.db());
            let db = if selected == first || !is_match(selected) { first } else { selected };
            if db != last.0 {
                last = (db, frame(db));
            }
            card.push(Some(source), &last.1);
        }
    }
}

/// Tells who caches a source's token (`None`: any token) that it has changed.
fn invalidate(rows: &mut Rows, source: Option<&SourceName>, connections: &Connections) {
    let Rows { trackers, channels, .. } = rows;
    if trackers.is_empty() {
        return;
    }
    let keys = |reply: &mut Reply<'_>| match source {
        Some(source) => {
            reply.array(1);
            reply.bulk(source.as_str().as_bytes());
        }
        None => reply.nil_array(),
    };
    let pushed = Frame::new(|reply| {
        reply.push(2);
        reply.bulk(b"invalidate");
        keys(reply);
    });
    let published = Frame::new(|reply| {
        reply.push(3);
        reply.bulk(b"message");
        reply.bulk(INVALIDATE);
        keys(reply);
    });
    for card in trackers.iter() {
        let mut mail = card.mail();
        let Some(tracking) = &mut mail.tracking else { continue };
        let told = match source {
            Some(source) => tracking.must_tell(source),
            None => {
                tracking.forget();
                true
            }
        };
        if !told {
            continue;
        }
        let Some(id) = tracking.to else {
            drop(mail);
            // In RESP2 there is no way to tell the client itself, as in Redis.
            if card.protocol() == Protocol::Resp3 {
                card.push(source, &pushed);
            }
            continue;
        };
        match connections.get(id) {
            Some(other) => {
                drop(mail);
                let listens = || {
                    let listeners = channels.get(INVALIDATE);
                    listeners.is_some_and(|cards| cards.iter().any(|card| card.id == id))
                };
                if other.protocol() == Protocol::Resp3 {
                    other.push(source, &pushed);
                } else if listens() {
                    other.push(source, &published);
                }
            }
            None => {
                let was_broken = std::mem::replace(&mut tracking.broken, true);
                drop(mail);
                if card.protocol() == Protocol::Resp3 && !was_broken {
                    let gone = i64::try_from(id).unwrap_or(i64::MAX);
                    card.push(
                        None,
                        &Frame::new(|reply| {
                            reply.push(2);
                            reply.bulk(b"tracking-redir-broken");
                            reply.integer(gone);
                        }),
                    );
                }
            }
        }
    }
}

fn message(channel: &[u8], payload: &[u8]) -> Frame {
    Frame::new(|reply| {
        reply.push(3);
        reply.bulk(b"message");
        reply.bulk(channel);
        reply.bulk(payload);
    })
}

fn pmessage(pattern: &[u8], channel: &[u8], payload: &[u8]) -> Frame {
    Frame::new(|reply| {
        reply.push(4);
        reply.bulk(b"pmessage");
        reply.bulk(pattern);
        reply.bulk(channel);
        reply.bulk(payload);
    })
}
