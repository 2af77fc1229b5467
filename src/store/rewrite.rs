//! Writes a database anew: when its records are to be kept under another key than they are, or were.
//! sled keeps overwritten values in its files for a good while, so nothing less takes them off the disk.
//!
//! The fresh database is whole, on disk and read back before it takes the place of the old one, and at
//! each moment one of the two is found by the next start: [`finish`] goes on from wherever a crash left
//! things.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::custody::{self, SEALED_BY, Wanted};
use super::directory::{self, DATABASE};
use super::seal::{KeyId, Keys};
use super::{
    Change, Database, Disk, MARKER, OpenError, Restored, StoreError, apply, contained, format,
    open_database,
};

/// The old, the fresh and the replaced database.
pub(super) struct Places {
    dir: PathBuf,
    pub(super) database: PathBuf,
    pub(super) fresh: PathBuf,
    pub(super) replaced: PathBuf,
}

impl Places {
    pub(super) fn of(dir: &Path) -> Places {
        let place = |suffix: &str| dir.join(format!("{DATABASE}{suffix}"));
        Places {
            dir: dir.to_owned(),
            database: place(""),
            fresh: place(".new"),
            replaced: place(".old"),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

/// What puts the fresh database in the place of the old one, each on disk before the next.
pub(super) const SWAP: &[fn(&Places) -> io::Result<()>] = &[
    |at| fs::rename(&at.database, &at.replaced),
    Places::sync,
    |at| fs::rename(&at.fresh, &at.database),
    Places::sync,
    |at| remove(&at.replaced),
    Places::sync,
];

/// Completes what a crash, or a disk that refused, has interrupted, or takes it back. To be called before
/// the database is opened.
pub(super) fn finish(dir: &Path) -> io::Result<()> {
    let at = Places::of(dir);
    if !at.fresh.exists() && !at.replaced.exists() {
        return Ok(());
    }
    if !at.database.exists() && at.replaced.exists() {
        // Between the two renames: the fresh one was whole before the first. Without a fresh one,
        // somebody has removed the database; what it replaced is better than nothing.
        let best = if at.fresh.exists() { &at.fresh } else { &at.replaced };
        fs::rename(best, &at.database)?;
        at.sync()?;
    }
    // Before the swap the fresh one may be half written, and after it the old one is superseded.
    remove(&at.fresh)?;
    remove(&at.replaced)?;
    at.sync()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The database with its records kept as the config wants. Where the disk refuses that, they are served
/// all the same, and it is tried again at the next start.
///
/// # Errors
/// The disk does not even give back the database.
pub(super) fn keep_as(
    wanted: Wanted,
    disk: &mut Disk,
    database: Database,
    restored: &Restored,
) -> Result<Database, StoreError> {
    match wanted {
        Wanted::Rewrite { outdated } if disk.rewrites => {
            match rewrite(&disk.dir, database, restored, &disk.keys) {
                Ok(()) => {
                    tracing::info!(
                        records = restored.records.len(),
                        outdated,
                        "the token database was written anew; nothing in its files is kept otherwise than store.key says"
                    );
                }
                Err(error) => {
                    disk.rewrites = false;
                    tracing::error!(
                        %error,
                        "the token database cannot be written anew, so its files may hold records in plain or under an old key; \
                         leave store.old_keys as they are, and restart when the disk is well"
                    );
                }
            }
            disk.open_database()
        }
        Wanted::Mark => apply(&database, [&mark_of(&disk.keys)]).map(|()| database),
        Wanted::Rewrite { .. } | Wanted::Nothing => Ok(database),
    }
}

/// What says in a database how its records are kept.
fn mark_of(keys: &Keys) -> Change {
    (SEALED_BY.to_vec(), keys.current_id().as_ref().map(KeyId::bytes).map(<[u8]>::to_vec))
}

/// Puts a fresh database in the place of `database`, with what was `restored` of it kept under the current
/// key. What was broken in it is not taken over.
///
/// # Errors
/// The disk refuses, or does not give back what was written. Then [`finish`] leads back to what was
/// there before, or on to what is whole.
pub(super) fn rewrite(
    dir: &Path,
    database: Database,
    restored: &Restored,
    keys: &Keys,
) -> Result<(), StoreError> {
    let at = Places::of(dir);
    build(&at, &database, restored, keys)?;
    // As long as it is open sled may write, and by name, not only by descriptor.
    drop(database);
    [&at.database, &at.fresh]
        .into_iter()
        .try_for_each(|path| directory::wait_until_closed(path))
        .and_then(|()| SWAP.iter().try_for_each(|step| step(&at)))
        .map_err(|error| refused(&at.database, &error))
}

/// Writes the fresh database and reads it back.
pub(super) fn build(
    at: &Places,
    database: &Database,
    restored: &Restored,
    keys: &Keys,
) -> Result<(), StoreError> {
    remove(&at.fresh)
        .and_then(|()| directory::private_database(&at.fresh))
        .map_err(|error| refused(&at.fresh, &error))?;
    let mut changes = vec![mark_of(keys)];
    for (name, record) in &restored.records {
        let bytes =
            format::encode(record, name, keys).map_err(|error| refused(&at.fresh, &error))?;
        changes.push((name.as_str().as_bytes().to_vec(), Some(bytes)));
    }
    // What is no record is no secret, and taken over as it is.
    let others = contained(|| database.tree.iter().collect::<Result<Vec<_>, _>>());
    let others = others
        .map_err(StoreError)?
        .into_iter()
        .filter(|(key, _)| key.first() == Some(&0) && *key != MARKER && *key != SEALED_BY);
    changes.extend(others.map(|(key, value)| (key.to_vec(), Some(value.to_vec()))));
    let fresh = open(&at.fresh)?;
    apply(&fresh, &changes)?;
    drop(fresh);
    // As the next start would find it.
    let (again, custody) = custody::read(&open(&at.fresh)?, keys)?;
    let is_whole = (&again.records, &again.calls, &again.marks)
        == (&restored.records, &restored.calls, &restored.marks);
    if is_whole && custody.wanted(keys) == Wanted::Nothing {
        Ok(())
    } else {
        Err(StoreError(format!("{} does not give back what was written", at.fresh.display())))
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    open_database(path).map_err(|error| match error {
        OpenError::Corrupt(what) | OpenError::Unusable(what) => refused(path, &what),
    })
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError(format!("{}: {why}", path.display()))
}
