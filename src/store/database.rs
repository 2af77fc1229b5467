//! The database, as far as it is proven whole; a damaged one is replaced by what is left of it. The only
//! file that names sled.
//!
//! sled 0.34 takes some damage for a log that a crash cut short, and forgets what comes after it without
//! a word. So nothing that it gives is believed that the proof (`proof`) does not cover.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use super::directory::{self, DATABASE, FRESH, MARK_FILE, Place, sync_dir};
use super::failpoint;
use super::proof::{Content, Judged, Proof, is_sum, sum_key};
use super::watermark::{self, INNER_MARK, Watermark};
use super::{Change, StoreError};
use crate::token::SourceName;

/// Memory for sled's pages, in bytes. What is kept is read at a start only, and a write that has to
/// read its page first finds it in the system's cache; a page in memory takes several times its bytes.
const CACHE_BYTES: u64 = 512 * 1024;

/// How often a file is tried that sled itself has not let go of, and the wait in between: five seconds.
const LOCK_TRIES: u32 = 500;
const LOCK_POLL: Duration = Duration::from_millis(10);

/// How many entries are written at once into a fresh database.
const ENTRIES_AT_ONCE: usize = 1024;

/// A key that every database of ours has from its first moment on. It is no source's name. sled
/// takes some damaged files for empty ones, without a word; then this key is missing.
const MARKER: &[u8] = b"\0wechat-token-server";
/// Its value in a database that has proofs; before there were any it was `1`.
const WITH_PROOF: &[u8] = b"2";

/// What is called with each key and its value.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

/// Why something cannot be done with a database.
#[derive(Debug)]
enum Failure {
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

/// An open database.
pub(super) struct Database {
    tree: sled::Db,
    /// sled's data file once more: sled 0.34 flushes with `sync_file_range`, which neither reaches
    /// through a disk's cache nor writes the file's length.
    file: File,
    place: Place,
    marks: [Watermark; 2],
    proof: Proof,
    /// Whether something that was written was given up when this was opened.
    pub(super) gave_up: bool,
}

/// Opens the database in `dir`, or begins one, and shows `keep` each entry that is proven to be what was
/// written last. What is not is given up, loudly; a damaged database is moved aside. Names of
/// what is moved aside end in `now`, Unix seconds.
///
/// # Errors
/// The disk refuses. What `keep` was shown is whole all the same: of a disk that is read-only too.
pub(super) fn open(dir: &Path, now: u64, keep: Option<Visit<'_>>) -> Result<Database, StoreError> {
    let path = dir.join(DATABASE);
    let unusable = |error: &dyn fmt::Display| StoreError(format!("{}: {error}", path.display()));
    directory::finish_replacement(dir, &|fresh| watermark::is_whole(&fresh.join(INNER_MARK)))
        .map_err(|error| unusable(&error))?;
    let known = watermark::read(dir);
    let there = fs::metadata(path.join("db")).is_ok_and(|file| file.len() > 0);
    let (tree, mut damage) = match there.then(|| open_tree(&path)) {
        None => (None, None),
        Some(Ok(tree)) => (Some(tree), None),
        Some(Err(Failure::Corrupt(what))) => (without_settings(&path), Some(what)),
        Some(Err(failure)) => {
            if let (Some(keep), Some(proof)) = (keep, &known.proof) {
                read_copy(&path, proof, keep);
            }
            return Err(unusable(&failure));
        }
    };
    let mut keep = keep;
    let mut found = Found::default();
    if let Some(tree) = &tree {
        found = Found::read(tree, &path);
        if let Some(Failure::Corrupt(what)) = &found.broken {
            damage.get_or_insert(what.clone());
        }
    }
    let old = found.marker.as_deref().is_some_and(|marker| marker != WITH_PROOF);
    let upgrade = old && !known.any && damage.is_none();
    let judged = match &known.proof {
        Some(proof) => found.content.judged(proof),
        None if upgrade => found.content.believed(),
        None => found.content.unproven(),
    };
    if damage.is_none() {
        damage = match (&tree, judged.lost()) {
            (None, _) => known.any.then(|| "it is gone".into()),
            (Some(_), 0) if found.marker.is_none() => Some("its content is gone".into()),
            (Some(_), 0) => None,
            (Some(_), _) if known.proof.is_none() => {
                Some("the files that prove it are gone or damaged".into())
            }
            (Some(_), _) => Some("it is not what was written last".into()),
        };
    }
    let mut census = Census::default();
    if let Some(tree) = &tree {
        each(tree, &path, &mut |key, value| {
            let whole = is_content(key) && census.count(key, judged.is_whole(key));
            if let (true, Some(keep)) = (whole, &mut keep) {
                keep(key, value);
            }
        });
    }
    if let Some(failure @ Failure::Unusable(_)) = &found.broken {
        // What was read is whole where it is proven; what was not may be there again when the disk is.
        return Err(unusable(failure));
    }
    let fits = tree.is_some() && damage.is_none() && !upgrade;
    if let (true, Some(tree)) = (fits, tree.as_ref()) {
        let database = Database::attach(dir, tree.clone(), judged.proof.clone())
            .map_err(|failure| unusable(&failure))?;
        if !known.both {
            tracing::warn!(dir = %dir.display(), "a file that proves the token database whole was missing or damaged; it is written again");
        }
        if known.proof.as_ref() != Some(&judged.proof) || !known.both {
            database.write_marks(&judged.proof).map_err(|error| unusable(&error))?;
        }
        return Ok(database);
    }
    if let Some(cause) = &damage {
        tracing::error!(
            database = %path.display(), cause, kept = census.kept, given_up = census.given_up,
            sources = census.names.join(" "), groups_lost = judged.lost(),
            "the token database is damaged; what is proven whole is kept, the other tokens are fetched \
             anew. If nobody has changed its files, check the disk"
        );
    }
    build(dir, tree.as_ref(), &judged).map_err(|failure| unusable(&failure))?;
    if tree.is_none() && damage.is_none() {
        tracing::info!(database = %path.display(), "a new token database is begun");
    }
    drop(tree);
    let aside = damage.is_some().then_some(now);
    let fresh = replace(dir, aside, &judged.proof)?;
    Ok(Database { gave_up: judged.lost() > 0, ..fresh })
}

/// Puts a fresh database, which is built, in the place of the one that is there, and opens it.
fn replace(dir: &Path, aside: Option<u64>, proof: &Proof) -> Result<Database, StoreError> {
    let path = dir.join(DATABASE);
    let unusable = |error: &dyn fmt::Display| StoreError(format!("{}: {error}", path.display()));
    directory::replace_database(dir, aside).map_err(|error| unusable(&error))?;
    let tree = open_tree(&path).map_err(|failure| unusable(&failure))?;
    let database =
        Database::attach(dir, tree, proof.clone()).map_err(|failure| unusable(&failure))?;
    database.write_marks(proof).map_err(|error| unusable(&error))?;
    Ok(database)
}

impl Database {
    fn attach(dir: &Path, tree: sled::Db, proof: Proof) -> Result<Database, Failure> {
        let path = dir.join(DATABASE);
        let opened = || -> io::Result<_> {
            let data = path.join("db");
            let file = File::open(&data)?;
            let place = Place::of(&data, &file)?;
            let marks =
                [Watermark::open(&dir.join(MARK_FILE))?, Watermark::open(&path.join(INNER_MARK))?];
            // The names of the files must be on disk too, or a power cut leaves an empty directory.
            sync_dir(&path)?;
            sync_dir(dir)?;
            Ok((file, place, marks))
        };
        let (file, place, marks) =
            opened().map_err(|error| Failure::Unusable(error.to_string()))?;
        Ok(Database { tree, file, place, marks, proof, gave_up: false })
    }

    /// What a key has; `None` if nothing, or the disk does not give it.
    pub(super) fn get(&self, key: &[u8]) -> Option<sled::IVec> {
        contained(&self.place.path, || get(&self.tree, key)).ok()?
    }

    /// Makes these changes, the later ones over the earlier ones, all or none. They are on disk when this
    /// returns.
    ///
    /// # Errors
    /// They may be on disk or not. The database is not to be used any more.
    pub(super) fn write(&mut self, changes: &[&Change]) -> Result<(), StoreError> {
        let last: HashMap<&[u8], Option<&[u8]>> =
            changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
        let mut proof = self.proof.clone();
        let number = proof.next_batch();
        let written = contained(&self.place.path, || {
            let mut batch = sled::Batch::default();
            let mut sums = HashMap::new();
            for (&key, &value) in &last {
                let old = get(&self.tree, key)?;
                match value {
                    Some(value) => batch.insert(key, value),
                    None if old.is_none() => continue,
                    None => batch.remove(key),
                }
                let (at, group) = proof.change(number, key, old.as_deref(), value);
                sums.insert(at, group);
            }
            for (at, group) in sums {
                batch.insert(sum_key(at), &group.encode());
            }
            failpoint::reached("before the batch")?;
            apply(&self.tree, batch)?;
            failpoint::reached("before the flush")?;
            self.tree.flush()?;
            failpoint::reached("before the sync")?;
            Ok(self.file.sync_all()?)
        });
        // In this order: a mark never knows of what is not on disk.
        let proven = written
            .map_err(|failure| failure.to_string())
            .and_then(|()| self.write_marks(&proof).map_err(|error| error.to_string()));
        proven.map_err(StoreError)?;
        self.proof = proof;
        Ok(())
    }

    fn write_marks(&self, proof: &Proof) -> io::Result<()> {
        let bytes = proof.encode();
        let [outer, inner] = &self.marks;
        failpoint::reached("before the marks")?;
        outer.write(&bytes)?;
        failpoint::reached("between the marks")?;
        inner.write(&bytes)?;
        failpoint::reached("before the answer")
    }

    /// Whether the files are still where they were opened: they can be written after they were
    /// deleted, but nobody would ever read them.
    pub(super) fn is_in_place(&self) -> bool {
        self.place.holds() && self.marks.iter().all(Watermark::is_in_place)
    }

    /// Writes a fresh copy of what is open into `dir`, from which it was deleted, or where something else
    /// was put in its place; that is moved aside.
    ///
    /// # Errors
    /// The disk refuses. The database is still open, and may be tried again.
    pub(super) fn put_back(&mut self, dir: &Path, now: u64) -> Result<(), StoreError> {
        let path = dir.join(DATABASE);
        let unusable = |failure: Failure| StoreError(format!("{}: {failure}", path.display()));
        let found = Found::read(&self.tree, &path);
        if let Some(failure @ Failure::Unusable(_)) = found.broken {
            return Err(unusable(failure));
        }
        let judged = found.content.judged(&self.proof);
        build(dir, Some(&self.tree), &judged).map_err(unusable)?;
        let lost = judged.lost();
        *self = Database { gave_up: lost > 0, ..replace(dir, Some(now), &judged.proof)? };
        tracing::error!(
            dir = %dir.display(), groups_lost = lost,
            "the store's files were deleted or replaced while they were in use; all that they held is \
             written again. Find out what deletes them: a restart before this would have lost every token"
        );
        Ok(())
    }
}

/// What was found in a database.
#[derive(Default)]
struct Found {
    content: Content,
    marker: Option<Vec<u8>>,
    /// Why not everything could be read.
    broken: Option<Failure>,
}

impl Found {
    fn read(tree: &sled::Db, path: &Path) -> Found {
        let mut found = Found::default();
        found.broken = each(tree, path, &mut |key, value| {
            if key == MARKER {
                found.marker = Some(value.to_vec());
            } else {
                found.content.note(key, value);
            }
        });
        found
    }
}

// sled inlines all of itself wherever it is called: one copy is enough.
#[inline(never)]
fn get(tree: &sled::Db, key: &[u8]) -> sled::Result<Option<sled::IVec>> {
    tree.get(key)
}

#[inline(never)]
fn apply(tree: &sled::Db, batch: sled::Batch) -> sled::Result<()> {
    tree.apply_batch(batch)
}

/// Whether a key is of what is kept, and not of what proves it.
fn is_content(key: &[u8]) -> bool {
    !is_sum(key) && key != MARKER
}

/// Shows what is whole of a database on a disk that takes no writes. sled opens nothing that it cannot
/// write to: it is given a copy, in memory where there is such a place, for as long as this takes.
fn read_copy(path: &Path, proof: &Proof, keep: Visit<'_>) {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let copy = place.join(format!("wechat-token-server-{}", std::process::id()));
    // Made anew, for its owner alone, or not used.
    if directory::private_copy(path, &copy).is_ok()
        && let Ok(tree) = open_tree(&copy)
    {
        let judged = Found::read(&tree, &copy).content.judged(proof);
        each(&tree, &copy, &mut |key, value| {
            if is_content(key) && judged.is_whole(key) {
                keep(key, value);
            }
        });
    }
    let _ = directory::remove_dir(&copy);
}

/// How much is kept and given up, and of which sources, the first few by name.
#[derive(Default)]
struct Census {
    kept: usize,
    given_up: usize,
    names: Vec<String>,
}

impl Census {
    /// Counts a key if it is of a source's record; whether it is whole, as was said.
    fn count(&mut self, key: &[u8], whole: bool) -> bool {
        let name = std::str::from_utf8(key).ok().and_then(|name| SourceName::parse(name).ok());
        match name {
            Some(_) if whole => self.kept += 1,
            Some(name) => {
                self.given_up += 1;
                if self.names.len() < 10 {
                    self.names.push(name.as_str().to_owned());
                }
            }
            None => {}
        }
        whole
    }
}

/// Shows each entry up to the first that cannot be read; why it cannot. (What is behind it could be read from
/// the end on, but that alone would make the binary larger by a megabyte: sled's largest key.)
fn each(tree: &sled::Db, path: &Path, visit: Visit<'_>) -> Option<Failure> {
    let shown = contained(path, || {
        for entry in tree.iter() {
            let (key, value) = entry?;
            visit(&key, &value);
        }
        Ok(())
    });
    shown.err()
}

/// Writes what is proven whole of a database into a fresh one beside it.
fn build(dir: &Path, tree: Option<&sled::Db>, judged: &Judged) -> Result<(), Failure> {
    let path = dir.join(FRESH);
    let begun = || -> io::Result<()> {
        directory::remove_dir(&path)?;
        directory::private_database(&path)
    };
    begun().map_err(|error| Failure::Unusable(error.to_string()))?;
    let fresh = open_tree(&path)?;
    let mut batch = sled::Batch::default();
    batch.insert(MARKER, WITH_PROOF);
    for (at, group) in judged.proof.groups().filter(|(_, group)| group.batch > 0) {
        batch.insert(sum_key(at), &group.encode());
    }
    let (mut waiting, mut written) = (0, Ok(()));
    if let Some(tree) = tree {
        // What cannot be read is lost, as was judged.
        each(tree, &dir.join(DATABASE), &mut |key, value| {
            if !is_content(key) || !judged.is_whole(key) || written.is_err() {
                return;
            }
            batch.insert(key, value);
            waiting += 1;
            if waiting == ENTRIES_AT_ONCE {
                waiting = 0;
                let full = std::mem::take(&mut batch);
                written = contained(&path, || apply(&fresh, full));
            }
        });
    }
    written?;
    contained(&path, || {
        apply(&fresh, batch)?;
        fresh.flush()?;
        Ok(File::open(path.join("db"))?.sync_all()?)
    })?;
    drop(fresh);
    let proven = || -> io::Result<()> {
        Watermark::open(&path.join(INNER_MARK))?.write(&judged.proof.encode())?;
        sync_dir(&path)?;
        failpoint::reached("fresh database built")
    };
    proven().map_err(|error| Failure::Unusable(error.to_string()))
}

fn open_tree(path: &Path) -> Result<sled::Db, Failure> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // Every write is flushed by `write`; a thread that does it twice a second is not needed.
        .flush_every_ms(None);
    let mut tries = 0;
    contained(path, || {
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
    })
}

/// A corrupt database once more, without what sled can do without: its settings, which are always the
/// same, and the summary of its log.
fn without_settings(path: &Path) -> Option<sled::Db> {
    for entry in fs::read_dir(path).ok()?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "conf" || name.starts_with("snap.") {
            fs::remove_file(entry.path()).ok()?;
        }
    }
    open_tree(path).ok()
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
