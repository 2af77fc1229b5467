//! sled, as far as the store needs it: opened, read in order, written in batches; and which of its
//! failures say that its files are damaged. The only file that names it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::directory;

/// Changes that are made at once, all or none.
pub(super) use sled::Batch;

/// The name of sled's data file in a database's folder.
pub(super) const DATA_FILE: &str = "db";

/// Memory for sled's pages, in bytes. What is kept is read at a start only, and a write that has to
/// read its page first finds it in the system's cache; a page in memory takes several times its bytes.
const CACHE_BYTES: u64 = 512 * 1024;

/// How often a file is tried that sled itself has not let go of, and the wait in between: five seconds.
const LOCK_TRIES: u32 = 500;
const LOCK_POLL: Duration = Duration::from_millis(10);

/// What is called with each key and its value.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

/// Why something cannot be done with a database.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is proven corrupt, in sled's words.
    Corrupt(String),
    /// The disk refuses: nothing is said about the database.
    Unusable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Corrupt(what) | Failure::Unusable(what)) = self;
        f.write_str(what)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Unusable(error.to_string())
    }
}

/// An open database of sled's. Cheap to clone; closed, in the background, when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Tree {
    tree: sled::Db,
    /// sled's data file once more: sled 0.34 flushes with `sync_file_range`, which neither reaches
    /// through a disk's cache nor writes the file's length.
    file: Arc<File>,
    path: PathBuf,
}

impl Tree {
    /// Opens the database in the folder at `path`, or begins one.
    pub(super) fn open(path: &Path) -> Result<Tree, Failure> {
        remove_half_written(path);
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            // Every write is flushed by whoever makes it; a thread that does it twice a second is not
            // needed.
            .flush_every_ms(None);
        let mut tries = 0;
        let tree = contained(path, || {
            loop {
                match config.open() {
                    // The directory is ours: it is one that was dropped, and whose threads have not ended.
                    Err(sled::Error::Io(error))
                        if tries < LOCK_TRIES
                            && error.to_string().starts_with("could not acquire lock") =>
                    {
                        tries += 1;
                        std::thread::sleep(LOCK_POLL);
                    }
                    outcome => return outcome,
                }
            }
        })?;
        let file = Arc::new(File::open(path.join(DATA_FILE))?);
        Ok(Tree { tree, file, path: path.to_owned() })
    }

    /// A corrupt database once more, without what sled can do without: its settings, which are always the
    /// same, and the summary of its log.
    pub(super) fn open_without_settings(path: &Path) -> Option<Tree> {
        for entry in fs::read_dir(path).ok()?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == "conf" || name.starts_with(SUMMARY) {
                fs::remove_file(entry.path()).ok()?;
            }
        }
        Tree::open(path).ok()
    }

    /// The data file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// What a key has; `None` if nothing.
    // sled inlines all of itself wherever it is called: one copy is enough. Here and below.
    #[inline(never)]
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        contained(&self.path, || Ok(self.tree.get(key)?.map(|value| value.to_vec())))
    }

    /// Makes these changes. They are not on disk yet when this returns.
    #[inline(never)]
    pub(super) fn apply(&self, batch: Batch) -> Result<(), Failure> {
        contained(&self.path, || self.tree.apply_batch(batch))
    }

    /// Hands what was changed to the system.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        contained(&self.path, || self.tree.flush().map(drop))
    }

    /// Shows each entry up to the first that cannot be read; why it cannot. (What is behind it could be read
    /// from the end on, but that alone would make the binary larger by a megabyte: sled's largest key.)
    pub(super) fn each(&self, visit: Visit<'_>) -> Option<Failure> {
        let shown = contained(&self.path, || {
            for entry in self.tree.iter() {
                let (key, value) = entry?;
                visit(&key, &value);
            }
            Ok(())
        });
        shown.err()
    }
}

/// What the names of sled's summaries of its log begin with.
const SUMMARY: &str = "snap.";
/// And end with, until they are complete.
const HALF_WRITTEN: &str = ".generating";

/// Removes what sled was writing when the process was killed: it takes half a summary for the newest one,
/// and then the database for corrupt. A summary that is complete has another name, and sled can do without.
fn remove_half_written(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(SUMMARY) && name.ends_with(HALF_WRITTEN) {
            // Where the disk refuses this it refuses sled as well, which says so.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether an error says that the files are not what sled wrote.
fn is_corruption(error: &sled::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    match error {
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) => true,
        // "Made by another version": none was ever used here, so its settings file is damaged.
        sled::Error::Unsupported(_) => true,
        sled::Error::Io(error) => matches!(error.kind(), InvalidData | UnexpectedEof),
        _ => false,
    }
}

/// Runs what calls sled on the files at `path`. sled checks its own invariants by panicking, but panics
/// on a full disk too: only where the disk takes writes is the database to blame.
fn contained<T>(path: &Path, run: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(error)) if is_corruption(&error) => Err(Failure::Corrupt(error.to_string())),
        Ok(Err(error)) => Err(Failure::Unusable(error.to_string())),
        Err(_) => Err(match directory::probe(path) {
            Ok(()) => Failure::Corrupt("reading it broke an invariant of sled".into()),
            Err(error) => Failure::Unusable(error.to_string()),
        }),
    }
}
