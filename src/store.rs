//! Keeps tokens over a restart: the store's thread, and what it is asked for.
//!
//! [`TokenStore::put`] is durable when it returns: on disk, not in some cache. All writes are made
//! by one thread, which flushes once for however many are waiting. Where the disk refuses, `put`
//! says so, and the next one tries from the start: the server runs on from memory meanwhile.

mod calls;
mod database;
mod directory;
mod failpoint;
mod format;
mod proof;
mod watermark;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::account::{Account, Calls, Unsettled};
use crate::clock::SharedClock;
use crate::token::{SourceName, TokenRecord};

use database::{Database, Visit};
use directory::{Lock, LockError, private_dir};

pub use directory::{Locked, request_secret, secret_path};

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
/// A directory in use by another process is waited for, `patience` at most. A database that is
/// proven corrupt is moved aside, a broken record left out, each with a loud line. Where the disk
/// cannot be used the store runs from memory and tries again at each write.
///
/// # Errors
/// Only [`Locked`].
pub fn open(
    dir: &Path,
    patience: Duration,
    clock: &SharedClock,
) -> Result<(TokenStore, Restored, Closing), Locked> {
    let mut disk = Disk::new(dir, clock);
    if disk.lock(patience) == Err(LockError::Held) {
        return Err(Locked { dir: dir.to_owned() });
    }
    let mut restored = Restored::default();
    let opened = disk.open(Some(&mut |key, value| restored.note(key, value)));
    restored.memory_only = opened.err();
    disk.refused = restored.memory_only.is_some();
    let (jobs, queue) = mpsc::channel(MAX_QUEUED);
    let thread = std::thread::Builder::new()
        .name("store".into())
        .spawn(move || disk.serve(queue))
        .expect("a thread can be started: the runtime has just started its own");
    Ok((TokenStore { jobs }, restored, Closing(thread)))
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
        let record = (name.as_str().as_bytes().to_vec(), Some(format::encode(record)));
        self.write(vec![record], true).await
    }
}

impl RecordStore for TokenStore {
    async fn put(&self, name: &SourceName, record: &TokenRecord) -> Result<(), StoreError> {
        // Both or neither: a batch is one step.
        let record = (name.as_str().as_bytes().to_vec(), Some(format::encode(record)));
        self.write(vec![record, (calls::mark_key(name), None)], false).await
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
    fn new(dir: &Path, clock: &SharedClock) -> Disk {
        Disk {
            dir: dir.to_owned(),
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

    /// Opens the database, and shows `keep` all that is whole, also where it cannot be written.
    fn open(&mut self, keep: Option<Visit<'_>>) -> Result<(), StoreError> {
        self.take_dir()?;
        let now = self.clock.now().unix_seconds();
        let database = database::open(&self.dir, now, keep)?;
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
        decoded(name, &bytes)
    }

    /// The database, which is opened again if the disk refused before.
    fn opened(&mut self) -> Result<&mut Database, StoreError> {
        if self.database.is_none() {
            self.open(None)?;
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
                database.put_back(&self.dir, now)?;
                self.gave_up |= database.gave_up;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Restored {
    /// Takes in an entry of the database; what is broken is left out, loudly.
    fn note(&mut self, key: &[u8], value: &[u8]) {
        if let Some(account) = calls::account(key) {
            // A count that is lost is begun anew.
            self.calls.extend(calls::decode(value).map(|calls| (account, calls)));
        } else if let Some(source) = calls::marked(key) {
            self.marks.extend(calls::decode_mark(value).map(|mark| (source, mark)));
        } else {
            self.records.extend(read_record(key, value));
        }
    }
}

fn read_record(key: &[u8], value: &[u8]) -> Option<(SourceName, TokenRecord)> {
    let name = String::from_utf8_lossy(key);
    match SourceName::parse(&name) {
        Ok(name) => decoded(&name, value).map(|record| (name, record)),
        Err(_) => {
            tracing::warn!(name = %name.escape_debug(), "a stored record has a name that no source can have; it is left out");
            None
        }
    }
}

/// The record in these bytes; a broken one is left out, loudly.
fn decoded(name: &SourceName, bytes: &[u8]) -> Option<TokenRecord> {
    match format::decode(bytes) {
        Ok(record) => Some(record),
        Err(broken) => {
            tracing::error!(source = %name, cause = %broken, "a stored record is broken and left out; the token is fetched anew");
            None
        }
    }
}

#[cfg(test)]
mod tests;
