//! The book of who was given what: a line for each refresh and each refusal, and for reads, of which there
//! are many, a line a minute for each client, source and address. Never a key, never a token.
//!
//! A read costs one look into a table of its thread and one addition: no lock, no memory, no line.

#![expect(
    clippy::mutable_key_type,
    reason = "an entry is known by its row, which never changes; its count does"
)]

use std::borrow::Borrow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use foldhash::fast::FixedState;

use crate::token::SourceName;

use super::{Refusal, User, Via};

/// How often [`Audit::report`] is to be called.
pub const REPORT_EVERY: Duration = Duration::from_secs(60);

/// How many rows a minute may have; what is beyond is counted without its address, as long as there are
/// [`MOST_READERS`] more rows at most, and then for each client together.
const MOST_ROWS: usize = 4096;

/// How many readers are remembered for longer than their page, which is a minute or two; what others read
/// is remembered without its source.
const MOST_READERS: usize = 1024;

/// What stands in a line for all that there was no room for.
const OTHERS: &str = "others";

/// Our lines are logged under this name, so that they can be had, or not had, by themselves.
const TARGET: &str = "wechat_token_server::audit";

/// What one row counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum What {
    /// A client was given a source's token. `None`: those of all sources for which there was no room.
    Read { client: Arc<str>, source: Option<SourceName> },
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

/// A row and its count: once in memory, for its page and for the threads that add to it.
#[derive(Debug)]
struct Entry {
    row: Row,
    count: AtomicU64,
}

/// The rows of a minute.
type Page = HashSet<Arc<Entry>>;

/// What a client has read of a source over one protocol. Where there were too many to tell them apart,
/// `source` is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reader {
    /// The client's name.
    pub client: Arc<str>,
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
    entries: HashMap<u64, Arc<Entry>, FixedState>,
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
                *bookmark = Bookmark { page, entries: HashMap::default() };
            }
            let known = bookmark.entries.get(&place(user, Some(address), Some(source)));
            match known {
                Some(entry) if entry.counts_reads_of(user, Some(source), Some(address), via) => {
                    entry.count.fetch_add(1, Ordering::Relaxed);
                }
                _ => self.read_first_or_in_a_crowd(bookmark, user, source, address, via),
            }
        });
    }

    /// Counts a read that has no row of its own in the bookmark: it is the first, or there was no room.
    #[cold]
    fn read_first_or_in_a_crowd(
        &self,
        bookmark: &mut Bookmark,
        user: &Arc<User>,
        source: &str,
        address: IpAddr,
        via: Via,
    ) {
        for source in [Some(source), None] {
            let known = bookmark.entries.get(&place(user, None, source));
            if let Some(entry) = known
                && entry.counts_reads_of(user, source, None, via)
            {
                entry.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let Ok(source) = SourceName::parse(source) else { return };
        let what = What::Read { client: user.shared_name(), source: Some(source) };
        let entry = self.entry(Row { what, address: Some(address), via });
        entry.count.fetch_add(1, Ordering::Relaxed);
        if let What::Read { source, .. } = &entry.row.what
            && bookmark.entries.len() < MOST_ROWS + MOST_READERS
        {
            let source = source.as_ref().map(SourceName::as_str);
            bookmark.entries.insert(place(user, entry.row.address, source), entry);
        }
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
        for entry in &written {
            let Some(reader) = Reader::of(&entry.row) else { continue };
            let reads = known_or_crowd(&mut pages.read, reader);
            reads.total += entry.count.load(Ordering::Relaxed);
            reads.last = reads.last.max(turned);
        }
        drop(pages);
        written.iter().for_each(|entry| tell(entry));
    }

    /// Who has read what.
    pub fn reads(&self, now: SystemTime) -> HashMap<Reader, Reads> {
        let pages = self.pages();
        let mut read = pages.read.clone();
        for entry in pages.previous.iter().chain(&pages.current) {
            let Some(reader) = Reader::of(&entry.row) else { continue };
            let reads = known_or_crowd(&mut read, reader);
            let count = entry.count.load(Ordering::Relaxed);
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
        let entry = self.entry(Row { what, address: Some(address), via });
        entry.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The entry of a row, or of one that stands for many where there is no room for it; made if it is
    /// not there.
    fn entry(&self, mut row: Row) -> Arc<Entry> {
        let page = &mut self.pages().current;
        let has_no_room = |row: &Row, most| page.len() >= most && !page.contains(row);
        if has_no_room(&row, MOST_ROWS) {
            row.address = None;
        }
        if has_no_room(&row, MOST_ROWS + MOST_READERS)
            && let What::Read { source, .. } = &mut row.what
        {
            *source = None;
        }
        if let Some(known) = page.get(&row) {
            return Arc::clone(known);
        }
        let entry = Arc::new(Entry { row, count: AtomicU64::default() });
        page.insert(Arc::clone(&entry));
        entry
    }

    fn pages(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn counts_reads_of(
        &self,
        user: &User,
        source: Option<&str>,
        address: Option<IpAddr>,
        via: Via,
    ) -> bool {
        let What::Read { client, source: own } = &self.row.what else { return false };
        (self.row.address, self.row.via) == (address, via)
            && own.as_ref().map(SourceName::as_str) == source
            // The very name, not one that reads the same: an entry shares its client's.
            && std::ptr::eq(&raw const **client, user.name())
    }
}

impl Borrow<Row> for Arc<Entry> {
    fn borrow(&self) -> &Row {
        &self.row
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.row.hash(state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.row == other.row
    }
}

impl Eq for Entry {}

/// Where a thread looks for an entry. The user's place in memory stands for it: it is quicker to hash than
/// a name, and what is found there is looked at.
fn place(user: &Arc<User>, address: Option<IpAddr>, source: Option<&str>) -> u64 {
    FixedState::default().hash_one((Arc::as_ptr(user), address, source))
}

impl Reader {
    fn of(row: &Row) -> Option<Reader> {
        let What::Read { client, source } = &row.what else { return None };
        Some(Reader { client: Arc::clone(client), source: source.clone(), via: row.via })
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

fn tell(Entry { row: Row { what, address, via }, count }: &Entry) {
    let (via, count) = (via.as_str(), count.load(Ordering::Relaxed));
    let address = address.map_or_else(|| OTHERS.to_owned(), |address| address.to_string());
    match what {
        What::Read { client, source } => {
            let source = source.as_ref().map_or(OTHERS, SourceName::as_str);
            tracing::info!(target: TARGET, %client, source, address, via, reads = count, "tokens read");
        }
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
