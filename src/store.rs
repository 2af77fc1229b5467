//! Keeps tokens over a restart: the store's thread, and what it is asked for.
//!
//! [`TokenStore::put`] is durable when it returns: on disk, not in some cache. All writes are made
//! by one thread, which flushes once for however many are waiting. Where the disk refuses, `put`
//! says so, and the next one tries from the start: the server runs on from memory meanwhile.

mod calls;
mod custody;
mod database;
mod directory;
mod engine;
mod failpoint;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod peek;
mod proof;
mod rewrite;
mod seal;
mod watermark;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::account::{Account, Calls, Unsettled};
use crate::clock::SharedClock;
use crate::token::{SourceName, TokenRecord};

use custody::{Custody, Wanted};
use database::Database;
use directory::{Lock, LockError, private_dir};

pub use custody::WrongKey;
pub use directory::{Locked, kept_secret, lock_path, request_secret, secret_path};
pub use failpoint::PLACES_OF_A_WRITE;
pub use peek::{Peek, is_locked, peek};
pub use seal::{KeyId, Keys};

/// How many jobs may wait for the disk. Each source has one at most.
const MAX_QUEUED: usize = 16 * 1024;

/// How many writes share a flush at most, so that the first of a flood is not kept waiting.
const MAX_BATCH: usize = 1024;

/// A write is not on disk; in the disk's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// Why a store directory is left alone.
#[derive(Debug)]
pub enum Refused {
    /// Another process has it.
    Locked(Locked),
    /// Its records are sealed with a key that is not at hand.
    WrongKey(WrongKey),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Locked(locked) => locked.fmt(f),
            Refused::WrongKey(wrong) => wrong.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

/// Why the database is not open.
enum Unopened {
    /// The disk refuses.
    Disk(StoreError),
    /// Its records are sealed with a key that is not at hand.
    WrongKey(WrongKey),
}

impl From<StoreError> for Unopened {
    fn from(error: StoreError) -> Unopened {
        Unopened::Disk(error)
    }
}

/// What a store directory held when it was opened.
#[derive(Debug, Default)]
pub struct Restored {
    /// Every whole record.
    pub records: Vec<(SourceName, TokenRecord)>,
    /// Every whole count of calls.
    pub calls: Vec<(Account, Calls)>,
    /// Every whole mark of a source.
    pub marks: Vec<(SourceName, Unsettled)>,
    /// Why nothing is kept on disk for now; `None` when all is well.
    pub memory_only: Option<StoreError>,
}

/// What the store's thread is asked for.
enum Job {
    Write(Write),
    Read { name: SourceName, found: oneshot::Sender<Option<TokenRecord>> },
    Look(oneshot::Sender<bool>),
}

struct Write {
    /// Keys and what is to be there; `None` removes what is.
    changes: Vec<Change>,
    /// Only where there is nothing yet.
    if_missing: bool,
    done: oneshot::Sender<Result<(), StoreError>>,
}

type Change = (Vec<u8>, Option<Vec<u8>>);

/// The store. Cheap to clone; the directory is released when the last clone is dropped and
/// [`Closing::wait`] has returned.
#[derive(Debug, Clone)]
pub struct TokenStore {
    jobs: mpsc::Sender<Job>,
    keys: Arc<Keys>,
}

/// Tells when the store has let go of its directory.
#[derive(Debug)]
pub struct Closing(std::thread::JoinHandle<()>);

impl Closing {
    /// Waits for the last write and the release of the directory. Blocks; to be called when every
    /// [`TokenStore`] has been dropped.
    pub fn wait(self) {
        if self.0.join().is_err() {
            tracing::error!("the store's thread had panicked");
        }
    }
}

/// Opens the store in `dir`, which is made if it is missing, and reads what it holds. Blocks.
///
/// A directory in use by another process is waited for, `patience` at most. What is not proven to be what
/// was written last is given up, and a damaged database moved aside, with a loud line. Where the disk
/// cannot be used the store runs from memory and tries again at each write. Records are kept under
/// the current one of `keys`; those that are not are sealed anew, all at once.
///
/// # Errors
/// See [`Refused`]; nothing in the directory was changed.
pub fn open(
    dir: &Path,
    keys: Keys,
    patience: Duration,
    clock: &SharedClock,
) -> Result<(TokenStore, Restored, Closing), Refused> {
    let keys = Arc::new(keys);
    let mut disk = Disk::new(dir, Arc::clone(&keys), clock);
    if disk.lock(patience) == Err(LockError::Held) {
        return Err(Refused::Locked(Locked { dir: dir.to_owned() }));
    }
    let mut restored = Restored::default();
    match disk.open(&mut restored) {
        Ok(()) => {}
        Err(Unopened::Disk(error)) => restored.memory_only = Some(error),
        Err(Unopened::WrongKey(wrong)) => return Err(Refused::WrongKey(wrong)),
    }
    disk.refused = restored.memory_only.is_some();
    custody::warn_of_remains(dir, &keys);
    let (jobs, queue) = mpsc::channel(MAX_QUEUED);
    let thread = std::thread::Builder::new()
        .name("store".into())
        .spawn(move || disk.serve(queue))
        .expect("a thread can be started: the runtime has just started its own");
    Ok((TokenStore { jobs, keys }, restored, Closing(thread)))
}

/// Keeps records; what the engine needs of a store.
pub trait RecordStore: Send + Sync + 'static {
    /// Writes the record of a source over the one before, and removes the source's mark: the record is
    /// the outcome. It is durable when this returns.
    ///
    /// # Errors
    /// It is not durable; what was there before still is.
    fn put(
        &self,
        name: &SourceName,
        record: &TokenRecord,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes an account's count of calls over the one before. It is durable when this returns.
    ///
    /// # Errors
    /// It is not durable.
    fn put_calls(
        &self,
        account: &Account,
        calls: Calls,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes the mark of a source over the one before, or removes it. It is durable when this
    /// returns.
    ///
    /// # Errors
    /// It is not durable.
    fn put_mark(
        &self,
        source: &SourceName,
        mark: Option<Unsettled>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl TokenStore {
    /// The record of a source as it is on disk, after every write that was asked for before. `None`
    /// if there is none, or the disk does not give it.
    pub async fn get(&self, name: &SourceName) -> Option<TokenRecord> {
        let (found, record) = oneshot::channel();
        self.jobs.send(Job::Read { name: name.clone(), found }).await.ok()?;
        record.await.ok().flatten()
    }

    /// Looks whether the store's files are still where they were, and writes them again if not. To be
    /// called now and then: in an hour without a write nobody else would notice. Whether since the last
    /// look something was given up that had been written: then it is to be put again, if missing.
    pub async fn look(&self) -> bool {
        let (gave_up, looked) = oneshot::channel();
        self.jobs.send(Job::Look(gave_up)).await.is_ok() && looked.await.unwrap_or(false)
    }

    /// Writes the record of a source if there is none. It is durable when this returns.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn put_missing(
        &self,
        name: &SourceName,
        record: &TokenRecord,
    ) -> Result<(), StoreError> {
        self.write(vec![self.change_of(name, record)?], true).await
    }
}

impl RecordStore for TokenStore {
    async fn put(&self, name: &SourceName, record: &TokenRecord) -> Result<(), StoreError> {
        // Both or neither: a batch is one step.
        self.write(vec![self.change_of(name, record)?, (calls::mark_key(name), None)], false).await
    }

    async fn put_calls(&self, account: &Account, calls: Calls) -> Result<(), StoreError> {
        self.write(vec![(calls::key(account), Some(calls::encode(calls)))], false).await
    }

    async fn put_mark(
        &self,
        source: &SourceName,
        mark: Option<Unsettled>,
    ) -> Result<(), StoreError> {
        let mark = mark.map(calls::encode_mark);
        self.write(vec![(calls::mark_key(source), mark)], false).await
    }
}

impl TokenStore {
    fn change_of(&self, name: &SourceName, record: &TokenRecord) -> Result<Change, StoreError> {
        let bytes = format::encode(record, name, &self.keys)
            .map_err(|error| StoreError(format!("the record cannot be sealed: {error}")))?;
        Ok((name.as_str().as_bytes().to_vec(), Some(bytes)))
    }

    async fn write(&self, changes: Vec<Change>, if_missing: bool) -> Result<(), StoreError> {
        let (done, outcome) = oneshot::channel();
        let gone = || StoreError("the store has stopped".into());
        self.jobs
            .send(Job::Write(Write { changes, if_missing, done }))
            .await
            .map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// The directory and what is open in it. Lives on the store's thread.
struct Disk {
    dir: PathBuf,
    keys: Arc<Keys>,
    /// Whether the database may be written anew under another key; not again once that has failed.
    rewrites: bool,
    clock: SharedClock,
    // Before the lock, so that it is closed before another process is let in.
    database: Option<Database>,
    lock: Option<Lock>,
    /// Whether the last write was refused.
    refused: bool,
    /// What a write is answered with until then, on the monotonic clock: opening a large database again
    /// takes time, and many sources ask.
    resting: Option<(Duration, StoreError)>,
    /// Whether something that was written was given up since the last look.
    gave_up: bool,
}

impl Disk {
    fn new(dir: &Path, keys: Arc<Keys>, clock: &SharedClock) -> Disk {
        Disk {
            dir: dir.to_owned(),
            keys,
            rewrites: true,
            clock: clock.clone(),
            database: None,
            lock: None,
            refused: false,
            resting: None,
            gave_up: false,
        }
    }

    fn lock(&mut self, patience: Duration) -> Result<(), LockError> {
        if self.lock.as_ref().is_none_or(|lock| !lock.is_in_place()) {
            self.lock = Some(directory::lock(&self.dir, patience, &self.clock)?);
        }
        Ok(())
    }

    /// Has the directory, and has it to itself.
    fn take_dir(&mut self) -> Result<(), StoreError> {
        if let Err(error) = private_dir(&self.dir) {
            return Err(StoreError(format!("{}: {error}", self.dir.display())));
        }
        self.lock(Duration::ZERO).map_err(|error| {
            let dir = self.dir.display();
            StoreError(match error {
                LockError::Held => format!("another process has taken {dir}; stop it"),
                LockError::Unusable => format!("{dir} cannot be locked"),
            })
        })
    }

    /// Opens the database. What is whole of it is `restored`, also where it cannot be written.
    fn open(&mut self, restored: &mut Restored) -> Result<(), Unopened> {
        self.take_dir()?;
        let examined = database::examine(&self.dir)?;
        let (whole, custody) = custody::read(&examined, &self.keys);
        // Before anything is given up, moved or written.
        custody.check(&self.dir, &self.keys).map_err(Unopened::WrongKey)?;
        *restored = whole;
        let wanted = match custody.wanted(&self.keys) {
            Wanted::Rewrite { .. } if !self.rewrites => Wanted::Nothing,
            wanted => wanted,
        };
        let now = self.clock.now().unix_seconds();
        let database = examined.settle(now, &self.keys, wanted)?;
        self.rewrites &= !database.outdated;
        self.gave_up |= database.gave_up;
        self.database = Some(database);
        Ok(())
    }

    /// Carries out what is asked for until every [`TokenStore`] is gone.
    fn serve(mut self, mut queue: mpsc::Receiver<Job>) {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        while let Some(first) = queue.blocking_recv() {
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Write(write) => writes.push(write),
                    Job::Read { name, found } => reads.push((name, found)),
                    Job::Look(done) => {
                        // What cannot be done now is said, and tried again, by the next write.
                        if let Err(error) = self.in_place() {
                            self.note(Some(&error));
                        }
                        let _ = done.send(std::mem::take(&mut self.gave_up));
                    }
                }
                let full = writes.len() + reads.len() >= MAX_BATCH;
                next = if full { None } else { queue.try_recv().ok() };
            }
            let outcome = if writes.is_empty() { Ok(()) } else { self.write(&writes) };
            // Whoever gave up waiting does not want to know, here and below.
            for write in writes.drain(..) {
                let _ = write.done.send(outcome.clone());
            }
            // After the writes, some of which were asked for before.
            for (name, found) in reads.drain(..) {
                let _ = found.send(self.read(&name));
            }
        }
    }

    fn read(&mut self, name: &SourceName) -> Option<TokenRecord> {
        let bytes = self.opened().ok()?.get(name.as_str().as_bytes())?;
        Custody::default().record(name, &bytes, &self.keys)
    }

    /// The database, which is opened again if the disk refused before.
    fn opened(&mut self) -> Result<&mut Database, StoreError> {
        if self.database.is_none() {
            self.open(&mut Restored::default()).map_err(|unopened| match unopened {
                Unopened::Disk(error) => error,
                Unopened::WrongKey(wrong) => StoreError(wrong.to_string()),
            })?;
        }
        Ok(self.database.as_mut().expect("`open` has just succeeded"))
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        let begun = self.clock.now().mono;
        if let Some((until, error)) = &self.resting
            && begun < *until
        {
            return Err(error.clone());
        }
        let outcome = self.in_place().and_then(|()| {
            let database = self.opened()?;
            // Before all others, which so are the later ones.
            let missing = batch.iter().filter(|write| write.if_missing);
            let missing = missing.flat_map(|write| &write.changes);
            let missing = missing.filter(|(key, _)| database.get(key).is_none());
            let others = batch.iter().filter(|write| !write.if_missing);
            let changes: Vec<&Change> =
                missing.chain(others.flat_map(|write| &write.changes)).collect();
            let written = database.write(&changes);
            if written.is_err() {
                // sled refuses everything after its first failed write: start from the file.
                self.database = None;
            }
            written
        });
        self.note(outcome.as_ref().err());
        // A tenth of the time is spent on a disk that refuses, at most.
        let now = self.clock.now().mono;
        let rest = now.saturating_sub(begun).saturating_mul(9);
        self.resting = outcome.as_ref().err().map(|error| (now + rest, error.clone()));
        outcome
    }

    /// Tells the operator when the disk begins to refuse, and when it takes writes again.
    fn note(&mut self, refusal: Option<&StoreError>) {
        match refusal {
            Some(error) if !self.refused => tracing::error!(
                dir = %self.dir.display(), %error,
                "the disk refuses the store: tokens are renewed and served from memory, and are written \
                 when it takes them. Free space, or make it writable again; a restart is not needed"
            ),
            None if self.refused => {
                tracing::info!(dir = %self.dir.display(), "the disk takes the store's writes again");
            }
            _ => {}
        }
        self.refused = refusal.is_some();
    }

    /// Sees to it that what is written is what the next start will read.
    fn in_place(&mut self) -> Result<(), StoreError> {
        let Some(database) = &self.database else { return Ok(()) };
        if database.is_in_place() && self.lock.as_ref().is_some_and(Lock::is_in_place) {
            return Ok(());
        }
        self.take_dir()?;
        let now = self.clock.now().unix_seconds();
        match &mut self.database {
            Some(database) if !database.is_in_place() => {
                database.put_back(&self.dir, now, &self.keys)?;
                self.gave_up |= database.gave_up;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
