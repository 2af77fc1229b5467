//! Keeps tokens over a restart. The only file that names sled.
//!
//! [`TokenStore::put`] is durable when it returns: on disk, not in some cache. All writes are made
//! by one thread, which flushes once for however many are waiting. Where the disk refuses, `put`
//! says so, and the next one tries from the start: the server runs on from memory meanwhile.

mod calls;
mod custody;
mod directory;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod rewrite;
mod seal;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::account::{Account, Calls, Unsettled};
use crate::clock::SharedClock;
use crate::token::{SourceName, TokenRecord};

use custody::Custody;
use directory::{CORRUPT, DATABASE, LockError, private_dir};

pub use custody::WrongKey;
pub use directory::{Locked, request_secret, secret_path};
pub use seal::{KeyId, Keys};

/// Memory for sled's pages, in bytes. What is kept is read at a start only, and a write that has to
/// read its page first finds it in the system's cache; a page in memory takes several times its bytes.
const CACHE_BYTES: u64 = 512 * 1024;

/// How many jobs may wait for the disk. Each source has one at most.
const MAX_QUEUED: usize = 16 * 1024;

/// How many writes share a flush at most, so that the first of a flood is not kept waiting.
const MAX_BATCH: usize = 1024;

/// A key that every database of ours has from its first moment on. It is no source's name. sled
/// takes some damaged files for empty ones, without a word; then this key is missing.
const MARKER: &[u8] = b"\0wechat-token-server";

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
}

struct Write {
    /// Keys and what is to be there; `None` removes what is.
    changes: Vec<Change>,
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
/// A directory in use by another process is waited for, `patience` at most. A database that is
/// proven corrupt is moved aside, a broken record left out, each with a loud line. Where the disk
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
    let mut disk = Disk {
        dir: dir.to_owned(),
        keys: Arc::clone(&keys),
        rewrites: true,
        clock: clock.clone(),
        database: None,
        lock: None,
    };
    if disk.lock(patience) == Err(LockError::Held) {
        return Err(Refused::Locked(Locked { dir: dir.to_owned() }));
    }
    let restored = match disk.open() {
        Ok(restored) => restored,
        Err(Unopened::Disk(error)) => Restored { memory_only: Some(error), ..Restored::default() },
        Err(Unopened::WrongKey(wrong)) => return Err(Refused::WrongKey(wrong)),
    };
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
}

impl RecordStore for TokenStore {
    async fn put(&self, name: &SourceName, record: &TokenRecord) -> Result<(), StoreError> {
        // In this order: where only the first is durable, a doubt is kept too long, and none is lost.
        let bytes = format::encode(record, name, &self.keys)
            .map_err(|error| StoreError(format!("the record cannot be sealed: {error}")))?;
        let record = (name.as_str().as_bytes().to_vec(), Some(bytes));
        self.write(vec![record, (calls::mark_key(name), None)]).await
    }

    async fn put_calls(&self, account: &Account, calls: Calls) -> Result<(), StoreError> {
        self.write(vec![(calls::key(account), Some(calls::encode(calls)))]).await
    }

    async fn put_mark(
        &self,
        source: &SourceName,
        mark: Option<Unsettled>,
    ) -> Result<(), StoreError> {
        self.write(vec![(calls::mark_key(source), mark.map(calls::encode_mark))]).await
    }
}

impl TokenStore {
    async fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (done, outcome) = oneshot::channel();
        let gone = || StoreError("the store has stopped".into());
        self.jobs.send(Job::Write(Write { changes, done })).await.map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// The directory and what is open in it. Lives on the store's thread.
struct Disk {
    dir: PathBuf,
    keys: Arc<Keys>,
    /// Whether the database may be written anew; not again once that has failed.
    rewrites: bool,
    clock: SharedClock,
    // Before the lock, so that it is closed before another process is let in.
    database: Option<Database>,
    lock: Option<File>,
}

struct Database {
    tree: sled::Db,
    /// sled's data file once more: sled 0.34 flushes with `sync_file_range`, which neither reaches
    /// through a disk's cache nor writes the file's length.
    file: File,
}

impl Disk {
    fn lock(&mut self, patience: Duration) -> Result<(), LockError> {
        if self.lock.is_none() {
            self.lock = Some(directory::lock(&self.dir, patience, &self.clock)?);
        }
        Ok(())
    }

    /// Opens the database and reads all that is whole.
    fn open(&mut self) -> Result<Restored, Unopened> {
        if let Err(error) = private_dir(&self.dir) {
            return Err(StoreError(format!("{}: {error}", self.dir.display())).into());
        }
        if self.lock(Duration::ZERO).is_err() {
            return Err(StoreError(format!("{} cannot be locked", self.dir.display())).into());
        }
        let database = self.open_database()?;
        let (restored, custody) = custody::read(&database, &self.keys)?;
        custody.check(&self.dir, &self.keys).map_err(Unopened::WrongKey)?;
        let wanted = custody.wanted(&self.keys);
        self.database = Some(rewrite::keep_as(wanted, self, database, &restored)?);
        Ok(restored)
    }

    fn open_database(&self) -> Result<Database, StoreError> {
        let path = self.dir.join(DATABASE);
        rewrite::finish(&self.dir).map_err(|error| {
            StoreError(format!("{} cannot be put in order: {error}", self.dir.display()))
        })?;
        let database = match open_database(&path) {
            Err(OpenError::Corrupt(what)) => {
                self.move_aside(&path, &what)?;
                open_database(&path)
            }
            outcome => outcome,
        };
        database.map_err(|error| match error {
            OpenError::Corrupt(what) | OpenError::Unusable(what) => {
                StoreError(format!("{}: {what}", path.display()))
            }
        })
    }

    /// A corrupt database is kept for whoever wants to look into it.
    fn move_aside(&self, path: &Path, what: &str) -> Result<(), StoreError> {
        let aside =
            self.dir.join(format!("{DATABASE}{CORRUPT}{}", self.clock.now().unix_seconds()));
        tracing::error!(
            database = %path.display(), moved_to = %aside.display(), cause = what,
            "the token database is corrupt; it is moved aside and every token is fetched anew"
        );
        fs::rename(path, &aside)
            .map_err(|error| StoreError(format!("{} cannot be moved: {error}", path.display())))
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
                }
                let full = writes.len() + reads.len() >= MAX_BATCH;
                next = if full { None } else { queue.try_recv().ok() };
            }
            let outcome = if writes.is_empty() { Ok(()) } else { self.write(&writes) };
            if outcome.is_err() {
                // sled refuses everything after its first failed write: start from the file.
                self.database = None;
            }
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
        let tree = &self.opened().ok()?.tree;
        let bytes = contained(|| tree.get(name.as_str())).ok()??;
        Custody::default().record(name, &bytes, &self.keys)
    }

    /// The database, which is opened again if the disk refused before.
    fn opened(&mut self) -> Result<&Database, StoreError> {
        if self.database.is_none() {
            self.open().map_err(|unopened| match unopened {
                Unopened::Disk(error) => error,
                Unopened::WrongKey(wrong) => StoreError(wrong.to_string()),
            })?;
        }
        Ok(self.database.as_ref().expect("`open` has just succeeded"))
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        apply(self.opened()?, batch.iter().flat_map(|write| &write.changes))
    }
}

/// Makes these changes, in order. They are on disk when this returns.
fn apply<'a>(
    database: &Database,
    changes: impl IntoIterator<Item = &'a Change>,
) -> Result<(), StoreError> {
    contained(|| {
        for (key, bytes) in changes {
            match bytes {
                Some(bytes) => database.tree.insert(key, bytes.as_slice())?,
                None => database.tree.remove(key)?,
            };
        }
        database.tree.flush()?;
        database.file.sync_all()?;
        Ok(())
    })
    .map_err(StoreError)
}

/// Why a database could not be opened.
enum OpenError {
    /// It is proven corrupt, in sled's words.
    Corrupt(String),
    /// The disk refuses: nothing is said about the database.
    Unusable(String),
}

fn open_database(path: &Path) -> Result<Database, OpenError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // Every write is flushed by `put`; a thread that does it twice a second is not needed.
        .flush_every_ms(None);
    directory::wait_until_closed(path).map_err(|error| OpenError::Unusable(error.to_string()))?;
    let was_there = fs::metadata(path.join("db")).is_ok_and(|file| file.len() > 0);
    let tree = match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(tree)) => tree,
        Ok(Err(error)) if is_corruption(&error) => {
            return Err(OpenError::Corrupt(error.to_string()));
        }
        Ok(Err(error)) => return Err(OpenError::Unusable(error.to_string())),
        // sled checks its own invariants by panicking, but panics on a full disk too: only where
        // the disk takes writes is the database to blame.
        Err(_) => {
            return Err(match probe(path) {
                Ok(()) => OpenError::Corrupt("reading it broke an invariant of sled".into()),
                Err(error) => OpenError::Unusable(error.to_string()),
            });
        }
    };
    let marked = contained(|| tree.contains_key(MARKER)).map_err(OpenError::Corrupt)?;
    if was_there && !marked {
        return Err(OpenError::Corrupt("its content is gone".into()));
    }
    let finished = contained(|| {
        let file = File::open(path.join("db"))?;
        if !marked {
            tree.insert(MARKER, b"1")?;
            tree.flush()?;
            file.sync_all()?;
        }
        // The names of the files must be on disk too, or a power cut leaves an empty directory.
        for dir in [Some(path), path.parent()].into_iter().flatten() {
            File::open(dir)?.sync_all()?;
        }
        Ok(file)
    });
    match finished {
        Ok(file) => Ok(Database { tree, file }),
        Err(error) => Err(OpenError::Unusable(error)),
    }
}

/// Whether an error says that the files are not what sled wrote.
fn is_corruption(error: &sled::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    match error {
        sled::Error::Corruption { .. } => true,
        // "Made by another version": none was ever used here, so its settings file is damaged.
        sled::Error::Unsupported(_) => true,
        sled::Error::Io(error) => matches!(error.kind(), InvalidData | UnexpectedEof),
        _ => false,
    }
}

/// Whether the disk takes as much as sled writes when it opens a database.
fn probe(path: &Path) -> io::Result<()> {
    let probe = path.with_extension("probe");
    let written = File::create(&probe).and_then(|mut file| {
        io::Write::write_all(&mut file, &vec![0; 1024 * 1024])?;
        file.sync_all()
    });
    let _ = fs::remove_file(&probe);
    written
}

/// Runs what calls sled, whose broken invariants are panics: here they are failures.
fn contained<T>(run: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err("sled broke one of its invariants".into()),
    }
}

#[cfg(test)]
mod tests;
