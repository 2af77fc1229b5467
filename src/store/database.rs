//! The database, as far as it is proven whole: examined first, and only then used, begun, or replaced by
//! what is left of it.
//!
//! sled 0.34 takes some damage for a log that a crash cut short, and forgets what comes after it without
//! a word. So nothing that it gives is believed that the proof (`proof`) does not cover.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::custody::{self, Wanted};
use super::directory::{self, DATABASE, FRESH, MARK_FILE, Place, sync_dir};
use super::engine::{Batch, DATA_FILE, Failure, Tree, Visit};
use super::failpoint;
use super::proof::{Content, Judged, Proof, is_sum, sum_key};
use super::rewrite;
use super::seal::Keys;
use super::watermark::{self, INNER_MARK, Known, Watermark};
use super::{Change, StoreError};
use crate::token::SourceName;

/// A key that every database of ours has from its first moment on. It is no source's name. sled
/// takes some damaged files for empty ones, without a word; then this key is missing.
pub(super) const MARKER: &[u8] = b"\0wechat-token-server";
/// Its value in a database that has proofs; before there were any it was `1`.
pub(super) const WITH_PROOF: &[u8] = b"2";

fn unusable(path: &Path, why: &dyn fmt::Display) -> StoreError {
    StoreError(format!("{}: {why}", path.display()))
}

/// A database that was looked at. What it holds has not been changed.
pub(super) struct Examined {
    dir: PathBuf,
    /// Nothing where there is none, or nothing can be read of it.
    tree: Option<Tree>,
    known: Known,
    judged: Judged,
    /// Why it must not be used as it is.
    damage: Option<String>,
    /// Whether it is of before there were proofs, and is believed.
    upgrade: bool,
    /// Why the disk refuses to have it opened, or read. What can be read is shown all the same.
    refusal: Option<StoreError>,
    /// Removed when this is dropped.
    _copy: Option<MemoryCopy>,
}

/// Looks at the database in `dir`, of which a replacement that was cut short is ended before.
///
/// # Errors
/// The disk refuses.
pub(super) fn examine(dir: &Path) -> Result<Examined, StoreError> {
    let path = dir.join(DATABASE);
    directory::finish_replacement(dir, &|fresh| watermark::is_whole(&fresh.join(INNER_MARK)))
        .map_err(|error| unusable(&path, &error))?;
    let known = watermark::read(dir);
    let there = fs::metadata(path.join(DATA_FILE)).is_ok_and(|file| file.len() > 0);
    let (mut damage, mut refusal, mut copy) = (None, None, None);
    let tree = match there.then(|| Tree::open(&path)) {
        None => None,
        Some(Ok(tree)) => Some(tree),
        Some(Err(Failure::Corrupt(what))) => {
            damage = Some(what);
            Tree::open_without_settings(&path)
        }
        Some(Err(failure)) => {
            refusal = Some(unusable(&path, &failure));
            copy = MemoryCopy::of(&path);
            copy.as_ref().and_then(|copy| Tree::open(&copy.0).ok())
        }
    };
    let mut found = tree.as_ref().map(Found::read).unwrap_or_default();
    match found.broken.take() {
        Some(Failure::Corrupt(what)) => drop(damage.get_or_insert(what)),
        // What was read is whole where it is proven; what was not may be there again when the disk is.
        Some(failure) => drop(refusal.get_or_insert(unusable(&path, &failure))),
        None => {}
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
    let dir = dir.to_owned();
    Ok(Examined { dir, tree, known, judged, damage, upgrade, refusal, _copy: copy })
}

impl Examined {
    /// Shows each entry that is proven to be what was written last.
    pub(super) fn show(&self, visit: Visit<'_>) {
        let Some(tree) = &self.tree else { return };
        // Why it ends early has been found before.
        let _ = tree.each(&mut |key, value| {
            if is_content(key) && self.judged.is_whole(key) {
                visit(key, value);
            }
        });
    }

    /// The database, ready for use. What is not proven whole is given up, loudly; a damaged database is
    /// moved aside, under a name that ends in `now`, Unix seconds. Where the disk refuses to have one written
    /// anew whose records are `wanted` under another key, it is used as it is.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn settle(
        mut self,
        now: u64,
        keys: &Keys,
        wanted: Wanted,
    ) -> Result<Database, StoreError> {
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        let fits = self.damage.is_none() && !self.upgrade;
        let database = match self.tree.clone().filter(|_| fits) {
            None => self.replaced(now, keys),
            Some(tree) => match wanted {
                Wanted::Rewrite { outdated } => self.rewritten(tree, keys, outdated),
                Wanted::Mark | Wanted::Nothing => self.attached(tree),
            },
        };
        let mut database = database?;
        if fits && wanted == Wanted::Mark {
            database.write(&[&custody::mark_of(keys)])?;
        }
        Ok(database)
    }

    /// As it is.
    fn attached(&self, tree: Tree) -> Result<Database, StoreError> {
        let Examined { dir, known, judged, .. } = self;
        let unusable = |error: &dyn fmt::Display| unusable(&dir.join(DATABASE), error);
        let database =
            Database::attach(dir, tree, judged.proof.clone()).map_err(|error| unusable(&error))?;
        if !known.both {
            tracing::warn!(dir = %dir.display(), "a file that proves the token database whole was missing or damaged; it is written again");
        }
        if known.proof.as_ref() != Some(&judged.proof) || !known.both {
            database.write_marks(&judged.proof).map_err(|error| unusable(&error))?;
        }
        Ok(database)
    }

    /// With every record kept as the config says.
    fn rewritten(self, tree: Tree, keys: &Keys, outdated: usize) -> Result<Database, StoreError> {
        match self.build(keys) {
            Ok(proof) => {
                let dir = self.dir.clone();
                drop((self, tree));
                let database = replace(&dir, None, &proof)?;
                tracing::info!(
                    outdated,
                    "the token database was written anew; nothing in its files is kept otherwise than store.key says"
                );
                Ok(database)
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "the token database cannot be written anew, so its files may hold records in plain or under an old key; \
                     leave store.old_keys as they are, and restart when the disk is well"
                );
                // Half of it takes space; the next start removes it in any case.
                let _ = directory::remove_dir(&self.dir.join(FRESH));
                Ok(Database { outdated: true, ..self.attached(tree)? })
            }
        }
    }

    /// Begun, or replaced by what is left of it.
    fn replaced(self, now: u64, keys: &Keys) -> Result<Database, StoreError> {
        let path = self.dir.join(DATABASE);
        if let Some(cause) = &self.damage {
            let census = self.census();
            tracing::error!(
                database = %path.display(), cause, kept = census.kept, given_up = census.given_up,
                sources = census.names.join(" "), groups_lost = self.judged.lost(),
                "the token database is damaged; what is proven whole is kept, the other tokens are fetched \
                 anew. If nobody has changed its files, check the disk"
            );
        }
        let proof = self.build(keys).map_err(|failure| unusable(&path, &failure))?;
        if self.tree.is_none() && self.damage.is_none() {
            tracing::info!(database = %path.display(), "a new token database is begun");
        }
        let (dir, lost) = (self.dir.clone(), self.judged.lost());
        let aside = self.damage.is_some().then_some(now);
        drop(self);
        let fresh = replace(&dir, aside, &proof)?;
        Ok(Database { gave_up: lost > 0, ..fresh })
    }

    /// Writes a fresh database beside it; what proves that one.
    pub(super) fn build(&self, keys: &Keys) -> Result<Proof, Failure> {
        rewrite::build(&self.dir, self.tree.as_ref(), &self.judged, keys)
    }

    /// Why it must not be used as it is.
    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    fn census(&self) -> Census {
        let mut census = Census::default();
        if let Some(tree) = &self.tree {
            let _ = tree.each(&mut |key, _| census.count(key, self.judged.is_whole(key)));
        }
        census
    }
}

/// Puts a fresh database, which is built, in the place of the one that is there, and opens it.
fn replace(dir: &Path, aside: Option<u64>, proof: &Proof) -> Result<Database, StoreError> {
    let path = dir.join(DATABASE);
    directory::replace_database(dir, aside).map_err(|error| unusable(&path, &error))?;
    let tree = Tree::open(&path).map_err(|failure| unusable(&path, &failure))?;
    let database =
        Database::attach(dir, tree, proof.clone()).map_err(|failure| unusable(&path, &failure))?;
    database.write_marks(proof).map_err(|error| unusable(&path, &error))?;
    Ok(database)
}

/// An open database.
pub(super) struct Database {
    tree: Tree,
    place: Place,
    marks: [Watermark; 2],
    proof: Proof,
    /// Whether something that was written was given up when this was opened.
    pub(super) gave_up: bool,
    /// Whether its records are kept otherwise than the config says, for the disk refused to have that changed.
    pub(super) outdated: bool,
}

impl Database {
    fn attach(dir: &Path, tree: Tree, proof: Proof) -> io::Result<Database> {
        let path = dir.join(DATABASE);
        let place = Place::of(&path.join(DATA_FILE), tree.file())?;
        let marks =
            [Watermark::open(&dir.join(MARK_FILE))?, Watermark::open(&path.join(INNER_MARK))?];
        // The names of the files must be on disk too, or a power cut leaves an empty directory.
        sync_dir(&path)?;
        sync_dir(dir)?;
        Ok(Database { tree, place, marks, proof, gave_up: false, outdated: false })
    }

    /// What a key has; `None` if nothing, or the disk does not give it.
    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.tree.get(key).ok()?
    }

    /// Makes these changes, the later ones over the earlier ones, all or none. They are on disk when this
    /// returns.
    ///
    /// # Errors
    /// They may be on disk or not. The database is not to be used any more.
    pub(super) fn write(&mut self, changes: &[&Change]) -> Result<(), StoreError> {
        let proof = self.written(changes).map_err(|failure| StoreError(failure.to_string()))?;
        self.proof = proof;
        Ok(())
    }

    /// Makes the changes; what proves the database from now on.
    fn written(&self, changes: &[&Change]) -> Result<Proof, Failure> {
        let last: HashMap<&[u8], Option<&[u8]>> =
            changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
        let mut proof = self.proof.clone();
        let number = proof.next_batch();
        let mut batch = Batch::default();
        let mut sums = HashMap::new();
        for (&key, &value) in &last {
            let old = self.tree.get(key)?;
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
        self.tree.apply(batch)?;
        failpoint::reached("before the flush")?;
        self.tree.flush()?;
        failpoint::reached("before the sync")?;
        self.tree.file().sync_all()?;
        // In this order: a mark never knows of what is not on disk.
        self.write_marks(&proof)?;
        Ok(proof)
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
    pub(super) fn put_back(&mut self, dir: &Path, now: u64, keys: &Keys) -> Result<(), StoreError> {
        let path = dir.join(DATABASE);
        let found = Found::read(&self.tree);
        if let Some(failure @ Failure::Unusable(_)) = found.broken {
            return Err(unusable(&path, &failure));
        }
        let judged = found.content.judged(&self.proof);
        let proof = rewrite::build(dir, Some(&self.tree), &judged, keys)
            .map_err(|failure| unusable(&path, &failure))?;
        let lost = judged.lost();
        *self = Database { gave_up: lost > 0, ..replace(dir, Some(now), &proof)? };
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
pub(super) struct Found {
    pub(super) content: Content,
    marker: Option<Vec<u8>>,
    /// Why not everything could be read.
    pub(super) broken: Option<Failure>,
}

impl Found {
    /// Reads all that can be read.
    pub(super) fn read(tree: &Tree) -> Found {
        let mut found = Found::default();
        found.broken = tree.each(&mut |key, value| {
            if key == MARKER {
                found.marker = Some(value.to_vec());
            } else {
                found.content.note(key, value);
            }
        });
        found
    }

    /// Whether it is a database of ours that has proofs.
    pub(super) fn is_marked(&self) -> bool {
        self.marker.as_deref() == Some(WITH_PROOF)
    }
}

/// Whether a key is of what is kept, and not of what proves it.
pub(super) fn is_content(key: &[u8]) -> bool {
    !is_sum(key) && key != MARKER
}

/// A copy of a database, on a disk that takes no writes, in memory where there is such a place: sled opens
/// nothing that it cannot write to. Removed when this is dropped.
struct MemoryCopy(PathBuf);

impl MemoryCopy {
    fn of(path: &Path) -> Option<MemoryCopy> {
        let name = format!("wechat-token-server-{}", std::process::id());
        let copy = MemoryCopy(directory::memory().join(name));
        // Made anew, for its owner alone, or not used.
        directory::private_copy(path, &copy.0).ok().map(|()| copy)
    }
}

impl Drop for MemoryCopy {
    fn drop(&mut self) {
        let _ = directory::remove_dir(&self.0);
    }
}

/// How much is kept and given up, and of which sources, the first few by name.
#[derive(Default)]
struct Census {
    kept: usize,
    given_up: usize,
    names: Vec<String>,
}

impl Census {
    /// Counts a key if it is of a source's record.
    fn count(&mut self, key: &[u8], whole: bool) {
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
    }
}
