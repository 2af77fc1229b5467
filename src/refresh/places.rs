//! The places for requests that are prepared and under way: so many of one host, so that one that
//! hangs leaves the others theirs, and so many in all. Lends places; sends nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::{Host, TokenSource};

/// How many requests may be under way at once to one host: ten thousand accounts that start together
/// must not open ten thousand connections.
pub(super) const MAX_FETCHES_OF_HOST: usize = 64;

/// How many may be under way in all: it takes four hosts that hang to delay a fifth.
const MAX_FETCHES: usize = 4 * MAX_FETCHES_OF_HOST;

/// How many requests may be prepared at once for one host: those under way, and enough of those that
/// come next for the disk to mark many of them with one flush. The others wait, and hold next to
/// nothing while they do.
const MAX_PREPARED_OF_HOST: usize = 4 * MAX_FETCHES_OF_HOST;

/// The places of all hosts.
#[derive(Debug)]
pub(super) struct Places {
    all: Semaphore,
    /// Those of a host, as long as somebody has or wants one: hosts that a reload takes away leave
    /// nothing behind.
    hosts: Mutex<HashMap<Option<Host>, Weak<HostPlaces>>>,
}

/// The places of one host.
#[derive(Debug)]
pub(super) struct HostPlaces {
    turns: Semaphore,
    places: Semaphore,
}

/// The right to prepare a request: given back when dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(#[expect(dead_code, reason = "held")] Option<SemaphorePermit<'a>>);

/// The right to have a request under way: given back when dropped.
#[derive(Debug)]
pub(super) struct Place<'a>(#[expect(dead_code, reason = "held")] [Option<SemaphorePermit<'a>>; 2]);

impl Places {
    /// All of them free.
    pub(super) fn new() -> Places {
        Places { all: Semaphore::new(MAX_FETCHES), hosts: Mutex::default() }
    }

    /// The places of the host that a source's address names. (Its other hosts are asked while that one
    /// rests, and stand for it.)
    pub(super) fn of(&self, source: &TokenSource) -> Arc<HostPlaces> {
        let host = Host::of(&source.url);
        // Whole after each call, whoever panicked.
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(&host).and_then(Weak::upgrade) {
            return known;
        }
        hosts.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(HostPlaces {
            turns: Semaphore::new(MAX_PREPARED_OF_HOST),
            places: Semaphore::new(MAX_FETCHES_OF_HOST),
        });
        hosts.insert(host, Arc::downgrade(&places));
        places
    }

    /// Waits for the right to have a request to this host under way.
    pub(super) async fn take<'a>(&'a self, host: &'a HostPlaces) -> Place<'a> {
        // In this order: who waits for its host must not keep a place from the others. (Neither is ever
        // closed, which would be the error.)
        let of_host = host.places.acquire().await.ok();
        Place([of_host, self.all.acquire().await.ok()])
    }
}

impl HostPlaces {
    /// Waits for the right to prepare a request.
    pub(super) async fn turn(&self) -> Turn<'_> {
        Turn(self.turns.acquire().await.ok())
    }
}
