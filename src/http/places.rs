//! Places for those whose answers take long (long polls, event streams): so many in all, and so many
//! for each client, so that one that forgets its requests keeps nobody else from waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::access::User;

/// The places of one kind.
#[derive(Debug)]
pub(super) struct Places {
    in_all: usize,
    of_each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    /// By the client's name; nobody who has none.
    by_client: HashMap<String, usize>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: Arc<User>,
}

impl Places {
    pub(super) fn new(in_all: usize, of_each: usize) -> Arc<Places> {
        Arc::new(Places { in_all, of_each, taken: Mutex::default() })
    }

    /// A place for this client, if there is one left for it.
    pub(super) fn take(self: &Arc<Places>, client: &Arc<User>) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = taken.by_client.get(client.name()).copied().unwrap_or(0);
        if taken.in_all >= self.in_all || of_client >= self.of_each {
            return None;
        }
        taken.in_all += 1;
        taken.by_client.insert(client.name().to_owned(), of_client + 1);
        Some(Place { places: Arc::clone(self), client: Arc::clone(client) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.in_all -= 1;
        let name = self.client.name();
        match taken.by_client.get_mut(name) {
            Some(left) if *left > 1 => *left -= 1,
            _ => {
                taken.by_client.remove(name);
            }
        }
    }
}
