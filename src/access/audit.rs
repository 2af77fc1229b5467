//! The book of who was given what: a line for each refresh and each refusal, and for reads, of which there
//! are many, a line a minute for each client, source and address. Never a key, never a token.
//!
//! A read costs one look into a table of its thread and one addition: no lock, no memory, no line.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::token::SourceName;

use super::{Refusal, User, Via};

/// How often [`Audit::report`] is to be called.
pub const REPORT_EVERY: Duration = Duration::from_secs(60);

/// How many rows a minute may have; what is beyond is counted without its address.
const MOST_ROWS: usize = 4096;

/// Our lines are logged under this name, so that they can be had, or not had, by themselves.
const TARGET: &str = "wechat_token_server::audit";

/// What one row counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum What {
    /// A client was given a source's token.
    Read { client: Box<str>, source: SourceName },
    /// Somebody showed a wrong key, and had shown so many that it had no line of its own.
    WrongKey,
    /// Somebody showed no key.
    NoKey,
}

/// A row of the book.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Row {
    what: What,
    /// `None`: of all addresses for which there was no room.
    address: Option<IpAddr>,
    via: Via,
}

type Count = Arc<AtomicU64>;

/// The counts of a minute.
type Page = HashMap<Row, Count>;

/// The book. See the head of this file.
#[derive(Debug, Default)]
pub struct Audit {
    pages: Mutex<Pages>,
    /// Which page is written on. Never that of another book of this process: see [`NEXT_PAGE`].
    page: AtomicU64,
}

/// Numbers the pages of all books of the process, since a thread may write in several.
static NEXT_PAGE: AtomicU64 = AtomicU64::new(1);

#[derive(Debug, Default)]
struct Pages {
    current: Page,
    /// The one before it, in which a thread that was interrupted may still be writing.
    previous: Page,
}

/// What a thread remembers of the page it writes on.
#[derive(Debug, Default)]
struct Bookmark {
    page: u64,
    counts: HashMap<u64, Known, FixedState>,
}

/// A count, and what it counts.
#[derive(Debug)]
struct Known {
    user: Arc<User>,
    source: SourceName,
    address: IpAddr,
    via: Via,
    count: Count,
}

thread_local! {
    static BOOKMARK: RefCell<Bookmark> = RefCell::default();
}

impl Audit {
    /// A client was given the token of a source.
    pub fn read(&self, user: &Arc<User>, source: &str, address: IpAddr, via: Via) {
        let page = self.page();
        BOOKMARK.with_borrow_mut(|bookmark| {
            if bookmark.page != page {
                *bookmark = Bookmark { page, counts: HashMap::default() };
            }
            // The user's place in memory stands for it: the bookmark keeps it alive.
            let hash = FixedState::default().hash_one((Arc::as_ptr(user), address, source));
            if let Some(known) = bookmark.counts.get(&hash) {
                let is_it = Arc::ptr_eq(&known.user, user)
                    && known.source.as_str() == source
                    && known.address == address
                    && known.via == via;
                if is_it {
                    known.count.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
            let Ok(source) = SourceName::parse(source) else { return };
            let client = user.name().into();
            let what = What::Read { client, source: source.clone() };
            let count = self.count(Row { what, address: Some(address), via });
            count.fetch_add(1, Ordering::Relaxed);
            if bookmark.counts.len() < MOST_ROWS {
                let user = Arc::clone(user);
                bookmark.counts.insert(hash, Known { user, source, address, via, count });
            }
        });
    }

    /// A client asked for another token of a source, and this came of it.
    pub fn refreshed(
        &self,
        user: &User,
        source: &SourceName,
        address: IpAddr,
        via: Via,
        outcome: &dyn fmt::Display,
    ) {
        tracing::info!(
            target: TARGET, client = user.name(), %source, %address, via = via.as_str(),
            %outcome, "refresh asked for"
        );
    }

    /// A client asked for what it may not have.
    pub fn denied(
        &self,
        user: &User,
        source: &str,
        address: IpAddr,
        via: Via,
        reason: &'static str,
    ) {
        tracing::warn!(
            target: TARGET, client = user.name(), source = %source.escape_debug(), %address,
            via = via.as_str(), reason, "refused"
        );
    }

    /// Somebody was not let in.
    pub(super) fn refused(&self, refusal: &Refusal, address: IpAddr, via: Via) {
        let via = via.as_str();
        match refusal {
            Refusal::WrongAddress(user) => tracing::warn!(
                target: TARGET, client = user.name(), %address, via,
                reason = "the key is right, but not from this address", "refused"
            ),
            Refusal::WrongKey | Refusal::NoKey => tracing::warn!(
                target: TARGET, %address, via, reason = "wrong key", "refused"
            ),
        }
    }

    /// Somebody was not let in, as so often before.
    pub(super) fn refused_once_more(&self, address: IpAddr, via: Via) {
        self.add(What::WrongKey, address, via);
    }

    /// Somebody showed no key.
    pub(super) fn no_key(&self, address: IpAddr, via: Via) {
        self.add(What::NoKey, address, via);
    }

    /// Writes a line for each row of the last page but one, and begins a new one.
    pub fn report(&self) {
        let mut pages = self.pages();
        self.page.store(NEXT_PAGE.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let current = std::mem::take(&mut pages.current);
        let written = std::mem::replace(&mut pages.previous, current);
        drop(pages);
        written.into_iter().for_each(|(row, count)| tell(&row, count.load(Ordering::Relaxed)));
    }

    fn page(&self) -> u64 {
        match self.page.load(Ordering::Relaxed) {
            0 => {
                // The first look into this book.
                let fresh = NEXT_PAGE.fetch_add(1, Ordering::Relaxed);
                let first =
                    self.page.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed);
                first.map_or_else(|page| page, |_| fresh)
            }
            page => page,
        }
    }

    fn add(&self, what: What, address: IpAddr, via: Via) {
        self.count(Row { what, address: Some(address), via }).fetch_add(1, Ordering::Relaxed);
    }

    /// The count of a row, which is made if it is not there.
    fn count(&self, row: Row) -> Count {
        let mut pages = self.pages();
        let is_full = pages.current.len() >= MOST_ROWS;
        match pages.current.entry(row) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(fresh) if !is_full => Arc::clone(fresh.insert(Count::default())),
            Entry::Vacant(crowded) => {
                let row = Row { address: None, ..crowded.into_key() };
                Arc::clone(pages.current.entry(row).or_default())
            }
        }
    }

    fn pages(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(row: &Row, count: u64) {
    let Row { what, address, via } = row;
    let via = via.as_str();
    let address = address.map_or_else(|| "others".to_owned(), |address| address.to_string());
    match what {
        What::Read { client, source } => tracing::info!(
            target: TARGET, %client, %source, address, via, reads = count, "tokens read"
        ),
        What::WrongKey => tracing::warn!(
            target: TARGET, address, via, requests = count, "refused: more wrong keys"
        ),
        What::NoKey => tracing::info!(
            target: TARGET, address, via, requests = count, "refused: no key"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Secret;

    fn user(name: &str) -> Arc<User> {
        User::new(name, vec![Secret::new("k")], None, None)
    }

    fn rows(page: &Page) -> Vec<(String, u64)> {
        let row = |(row, count): (&Row, &Count)| {
            let address = row.address.map_or("others".to_owned(), |address| address.to_string());
            let what = match &row.what {
                What::Read { client, source } => format!("{client} {source}"),
                other => format!("{other:?}"),
            };
            let via = row.via.as_str();
            (format!("{what} {address} {via}"), count.load(Ordering::Relaxed))
        };
        let mut rows: Vec<_> = page.iter().map(row).collect();
        rows.sort();
        rows
    }

    #[test]
    fn reads_are_counted_by_client_source_address_and_protocol() {
        let (audit, shop, app) = (Audit::default(), user("shop"), user("app"));
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..3 {
            audit.read(&shop, "ticket", here, Via::Http);
            audit.read(&shop, "access_token", here, Via::Http);
            audit.read(&shop, "ticket", there, Via::Http);
            audit.read(&app, "ticket", here, Via::Http);
            audit.read(&app, "ticket", here, Via::Resp);
        }
        audit.no_key(here, Via::Resp);
        let found = rows(&audit.pages().current);
        let expected = [
            ("NoKey 10.0.0.1 resp", 1),
            ("app ticket 10.0.0.1 http", 3),
            ("app ticket 10.0.0.1 resp", 3),
            ("shop access_token 10.0.0.1 http", 3),
            ("shop ticket 10.0.0.1 http", 3),
            ("shop ticket 10.0.0.2 http", 3),
        ];
        assert_eq!(found, expected.map(|(row, count)| (row.to_owned(), count)));
    }

    #[test]
    fn a_page_is_told_when_nobody_can_write_on_it_any_more() {
        let (audit, shop) = (Audit::default(), user("shop"));
        let here = IpAddr::from([10, 0, 0, 1]);
        audit.read(&shop, "ticket", here, Via::Http);
        audit.report();
        audit.read(&shop, "ticket", here, Via::Http);
        let pages = audit.pages();
        assert_eq!(rows(&pages.previous), rows(&pages.current));
        drop(pages);
        audit.report();
        audit.report();
        let pages = audit.pages();
        assert!(pages.previous.is_empty() && pages.current.is_empty());
    }

    #[test]
    fn threads_and_books_do_not_mix() {
        let (one, two, shop) = (Audit::default(), Audit::default(), user("shop"));
        let here = IpAddr::from([10, 0, 0, 1]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        one.read(&shop, "ticket", here, Via::Http);
                        two.read(&shop, "ticket", here, Via::Http);
                    }
                });
            }
        });
        for audit in [one, two] {
            assert_eq!(
                rows(&audit.pages().current),
                [("shop ticket 10.0.0.1 http".to_owned(), 400)]
            );
        }
    }

    #[test]
    fn a_crowd_is_counted_together() {
        let (audit, shop) = (Audit::default(), user("shop"));
        for at in 0..MOST_ROWS + 10 {
            let [a, b] = u16::try_from(at).unwrap().to_be_bytes();
            audit.read(&shop, "ticket", IpAddr::from([10, 0, a, b]), Via::Http);
        }
        let pages = audit.pages();
        assert_eq!(pages.current.len(), MOST_ROWS + 1);
        assert!(rows(&pages.current).contains(&("shop ticket others http".to_owned(), 10)));
    }
}
