//! What has happened to what is served, told to whoever listens: one feed for all sources. A listener
//! that is slow is told that it missed something, and holds nobody up.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::broadcast;

use crate::account::Account;
use crate::token::{Generation, SourceName};

use super::Trouble;

/// How many pieces of news wait for a listener that is slow; one that is slower is told so, and looks
/// at everything.
pub(super) const NEWS_KEPT: usize = 1_024;

/// What has happened to what is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A source has published: another token, or more (or less) life of the same one.
    Published(SourceName),
    /// A reload has changed which sources there are, or the listener missed something: any source may
    /// have another token than it had, or none.
    Everything,
}

/// How many happenings wait for a listener that is slow.
pub(super) const HAPPENINGS_KEPT: usize = 512;

/// What happens to a source, for those who look on: each is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// It has another value.
    Rotated {
        /// Whose.
        source: SourceName,
        /// Which value it is.
        generation: Generation,
    },
    /// Its renewals have begun to fail, or fail for another reason than before.
    Failing {
        /// Whose.
        source: SourceName,
        /// Why.
        trouble: Arc<Trouble>,
    },
    /// A renewal has come off after failures.
    Recovered {
        /// Whose.
        source: SourceName,
    },
    /// A value was refused that should have been good: another system fetches for the same account.
    Foreign {
        /// Whose.
        source: SourceName,
        /// Which value it was.
        generation: Generation,
    },
    /// A good part of the calls of an account's day is used up.
    CallsUsed(Arc<CallsUsed>),
    /// A reload has changed which sources there are, or the listener was too slow and missed some.
    Everything,
}

/// How much of an account's calls of a Beijing day is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallsUsed {
    /// Whose calls of what.
    pub account: Account,
    /// How many were made.
    pub made: u32,
    /// How many a day may have.
    pub limit: u32,
    /// The part that has just been reached, in percent.
    pub percent: u32,
}

/// What all places share: whom their refreshers tell.
#[derive(Debug)]
pub(super) struct Feeds {
    pub(super) news: broadcast::Sender<News>,
    pub(super) happenings: broadcast::Sender<Happening>,
    /// How many sources are served.
    pub(super) sources: AtomicUsize,
}

impl Default for Feeds {
    fn default() -> Feeds {
        Feeds {
            news: broadcast::Sender::new(NEWS_KEPT),
            happenings: broadcast::Sender::new(HAPPENINGS_KEPT),
            sources: AtomicUsize::new(0),
        }
    }
}

pub(super) fn tell<T>(listeners: &broadcast::Sender<T>, what: T) {
    // An error: nobody listens.
    let _ = listeners.send(what);
}

/// Tells what happens. See [`Reader::news`](super::Reader::news).
#[derive(Debug)]
pub struct Listener(pub(super) broadcast::Receiver<News>);

impl Listener {
    /// The next piece of news; waits for one. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> News {
        match self.0.recv().await {
            Ok(news) => news,
            Err(broadcast::error::RecvError::Lagged(_)) => News::Everything,
            // Nobody publishes any more, so nothing will happen.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Tells what happens. See [`Reader::happenings`](super::Reader::happenings).
#[derive(Debug)]
pub struct Onlooker(pub(super) broadcast::Receiver<Happening>);

impl Onlooker {
    /// The next happening; waits for one. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Happening {
        match self.0.recv().await {
            Ok(happening) => happening,
            Err(broadcast::error::RecvError::Lagged(_)) => Happening::Everything,
            // Nobody publishes any more, so nothing will happen.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
