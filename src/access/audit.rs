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
use std::time::{Duration, SystemTime};

use foldhash::fast::FixedState;

use crate::token::SourceName;

use super::{Refusal, User, Via};

/// How often [`Audit::report`] is to be called.
pub const REPORT_EVERY: Duration = Duration::from_secs(60);

/// How many rows a minute may have; what is beyond is counted without its address.
const MOST_ROWS: usize = 4096;

/// How many readers are remembered for longer than their page, which is a minute or two; what others read
/// is remembered without its source.
const MOST_READERS: usize = 1024;

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

/// What a client has read of a source over one protocol. Where there were too many to tell them apart,
/// `source` is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reader {
    /// The client's name.
    pub client: Box<str>,
    /// The source.
    pub source: Option<SourceName>,
    /// The protocol.
    pub via: Via,
}

/// How much a reader has read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// Since the start.
    pub total: u64,
    /// In the last one to two minutes.
    pub recent: u64,
    /// When it read last, to the minute.
    pub last: Option<SystemTime>,
}

/// Why somebody was given nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No key was shown.
    NoKey,
    /// Nobody has the key that was shown.
    WrongKey,
    /// The key is right, but its owner comes from elsewhere.
    WrongAddress,
    /// A client asked for what it may not have.
    Denied,
}

impl Reason {
    const ALL: [Reason; 4] =
        [Reason::NoKey, Reason::WrongKey, Reason::WrongAddress, Reason::Denied];

    /// As it stands in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoKey => "no_key",
            Reason::WrongKey => "wrong_key",
            Reason::WrongAddress => "wrong_address",
            Reason::Denied => "denied",
        }
    }

    fn of(refusal: &Refusal) -> Reason {
        match refusal {
            Refusal::NoKey => Reason::NoKey,
            Refusal::WrongKey => Reason::WrongKey,
            Refusal::WrongAddress(_) => Reason::WrongAddress,
        }
    }
}

/// The book. See the head of this file.
#[derive(Debug, Default)]
pub struct Audit {
    pages: Mutex<Pages>,
    /// By reason, then by protocol.
    refusals: [[AtomicU64; Via::ALL.len()]; Reason::ALL.len()],
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
    /// When the previous one was full.
    turned: Option<SystemTime>,
    /// What the pages before that have told of reads.
    read: HashMap<Reader, Reads>,
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

    /// The privileged client had the server do something, and this came of it.
    pub fn ordered(
        &self,
        user: &User,
        order: &'static str,
        source: Option<&SourceName>,
        address: IpAddr,
        via: Via,
        outcome: &dyn fmt::Display,
    ) {
        let source = source.map_or("", SourceName::as_str);
        tracing::info!(
            target: TARGET, client = user.name(), order, source, %address, via = via.as_str(),
            %outcome, "order given"
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
        self.count_refusal(Reason::Denied, via);
        tracing::warn!(
            target: TARGET, client = user.name(), source = %source.escape_debug(), %address,
            via = via.as_str(), reason, "refused"
        );
    }

    /// Somebody was not let in.
    pub(super) fn refused(&self, refusal: &Refusal, address: IpAddr, via: Via) {
        self.count_refusal(Reason::of(refusal), via);
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
    pub(super) fn refused_once_more(&self, refusal: &Refusal, address: IpAddr, via: Via) {
        self.count_refusal(Reason::of(refusal), via);
        self.add(What::WrongKey, address, via);
    }

    /// Somebody showed no key.
    pub(super) fn no_key(&self, address: IpAddr, via: Via) {
        self.count_refusal(Reason::NoKey, via);
        self.add(What::NoKey, address, via);
    }

    /// Writes a line for each row of the last page but one, and begins a new one.
    pub fn report(&self, now: SystemTime) {
        let mut pages = self.pages();
        self.page.store(NEXT_PAGE.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let current = std::mem::take(&mut pages.current);
        let written = std::mem::replace(&mut pages.previous, current);
        let turned = pages.turned.replace(now);
        for (row, count) in &written {
            let Some(reader) = Reader::of(row) else { continue };
            let reads = known_or_crowd(&mut pages.read, reader);
            reads.total += count.load(Ordering::Relaxed);
            reads.last = reads.last.max(turned);
        }
        drop(pages);
        written.into_iter().for_each(|(row, count)| tell(&row, count.load(Ordering::Relaxed)));
    }

    /// Who has read what.
    pub fn reads(&self, now: SystemTime) -> HashMap<Reader, Reads> {
        let pages = self.pages();
        let mut read = pages.read.clone();
        for (row, count) in pages.previous.iter().chain(&pages.current) {
            let Some(reader) = Reader::of(row) else { continue };
            let reads = known_or_crowd(&mut read, reader);
            let count = count.load(Ordering::Relaxed);
            reads.total += count;
            reads.recent += count;
            reads.last = Some(now);
        }
        read
    }

    /// How often somebody was given nothing, by reason and protocol.
    pub fn refusals(&self) -> impl Iterator<Item = (Reason, Via, u64)> {
        Reason::ALL.into_iter().flat_map(move |reason| {
            Via::ALL.into_iter().map(move |via| {
                (reason, via, self.refusals[reason as usize][via as usize].load(Ordering::Relaxed))
            })
        })
    }

    fn count_refusal(&self, reason: Reason, via: Via) {
        self.refusals[reason as usize][via as usize].fetch_add(1, Ordering::Relaxed);
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

impl Reader {
    fn of(row: &Row) -> Option<Reader> {
        let What::Read { client, source } = &row.what else { return None };
        Some(Reader { client: client.clone(), source: Some(source.clone()), via: row.via })
    }
}

/// What is noted of a reader; of those for whom there is no room, what is noted of their client.
fn known_or_crowd(read: &mut HashMap<Reader, Reads>, reader: Reader) -> &mut Reads {
    let is_full = read.len() >= MOST_READERS;
    let key = if is_full && !read.contains_key(&reader) {
        Reader { source: None, ..reader }
    } else {
        reader
    };
    read.entry(key).or_default()
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
mod tests;
