//! The store's directory: private to its owner, held by one process, the place of the generated
//! request secret. Knows nothing of what the database holds.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::engine::DATA_FILE;
use super::failpoint;
use crate::clock::SharedClock;
use crate::token::Secret;

/// How often a locked directory is tried again.
const LOCK_POLL: Duration = Duration::from_millis(50);

pub(super) const LOCK_FILE: &str = "lock";
const SECRET_FILE: &str = "request_secret";
/// The database's directory in the store's.
pub(super) const DATABASE: &str = "tokens.sled";
/// A fresh database that is to replace it. Complete once it has the file that proves it whole.
pub(super) const FRESH: &str = "tokens.sled.new";
/// The database that was replaced, until it is removed.
pub(super) const OLD: &str = "tokens.sled.old";
/// What the names of damaged databases begin with.
const ASIDE: &str = "tokens.sled.corrupt-";
/// The file that proves the database whole.
pub(super) const MARK_FILE: &str = "tokens.mark";

/// How many damaged databases are kept for whoever wants to look into them: the newest ones. A disk that
/// goes on to damage them must not be filled by it.
const KEPT_ASIDE: usize = 3;

/// Another process holds the directory, and held it all the time that was waited.
#[derive(Debug)]
pub struct Locked {
    /// The directory.
    pub dir: PathBuf,
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the store directory {} is in use by another process; two servers on one account kill \
             each other's tokens: stop the other one, or give this one its own store.path",
            self.dir.display()
        )
    }
}

impl std::error::Error for Locked {}

/// Why the directory is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockError {
    /// Another process has it.
    Held,
    /// The directory or the file cannot be used; opening the database will say why.
    Unusable,
}

/// Where an open file was, so that it can be told whether it still is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    /// Of a file that was opened by this path.
    pub(super) fn of(path: &Path, file: &File) -> io::Result<Place> {
        let metadata = file.metadata()?;
        Ok(Place { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// Whether the path still leads to the file.
    pub(super) fn holds(&self) -> bool {
        fs::metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }
}

/// The directory is this process's until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    place: Place,
}

impl Lock {
    /// Whether another process would find the directory locked.
    pub(super) fn is_in_place(&self) -> bool {
        self.place.holds()
    }
}

/// Takes the directory for this process, so that two servers never share an account's tokens. Blocks,
/// `patience` at most.
pub(super) fn lock(dir: &Path, patience: Duration, clock: &SharedClock) -> Result<Lock, LockError> {
    let path = dir.join(LOCK_FILE);
    let file = private_dir(dir).and_then(|()| lock_file(&path));
    let file = file.map_err(|_| LockError::Unusable)?;
    let start = clock.now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => {
                let place = Place::of(&path, &file).map_err(|_| LockError::Unusable)?;
                return Ok(Lock { _file: file, place });
            }
            Err(fs::TryLockError::Error(_)) => return Err(LockError::Unusable),
            Err(fs::TryLockError::WouldBlock) => {}
        }
        if clock.now().since(start) >= patience {
            return Err(LockError::Held);
        }
        if !told && !patience.is_zero() {
            told = true;
            tracing::info!(dir = %dir.display(), "waiting for another process to leave the store directory");
        }
        std::thread::sleep(LOCK_POLL);
    }
}

/// Opens the file to be locked. Not for writing, where it is there: a read-only disk can be locked too.
fn lock_file(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
            File::open(path)
        }
        opened => opened,
    }
}

/// Makes the directory, for its owner alone. One that was there is made private only if it is ours
/// or empty: who names `/tmp` by mistake must not break the machine.
pub(super) fn private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let metadata = fs::metadata(dir)?;
    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    let ours = |name: &std::ffi::OsStr| {
        let name = name.to_string_lossy();
        [LOCK_FILE, DATABASE, SECRET_FILE, MARK_FILE].iter().any(|ours| name.starts_with(ours))
    };
    let entries: Vec<fs::DirEntry> = fs::read_dir(dir)?.collect::<io::Result<_>>()?;
    if entries.iter().all(|entry| ours(&entry.file_name())) {
        return fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    }
    tracing::warn!(
        dir = %dir.display(),
        "the store directory holds other files and may be read by others; give the store its own"
    );
    // The database gets a directory of its own, which is private in any case.
    private_database(&dir.join(DATABASE))
}

/// Makes a database's folder, for its owner alone.
pub(super) fn private_database(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Has the names in a directory on disk.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a directory with all it holds, if it is there.
pub(super) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the disk takes as much as sled writes when it opens the database at `path`.
pub(super) fn probe(path: &Path) -> io::Result<()> {
    let probe = path.with_extension("probe");
    let written = File::create(&probe).and_then(|mut file| {
        // Not in one piece, which would be a megabyte of zeros in the binary.
        (0..256).try_for_each(|_| io::Write::write_all(&mut file, &[0; 4096]))?;
        file.sync_all()
    });
    let _ = fs::remove_file(&probe);
    written
}

/// Where a copy of a database is put: memory, where there is such a place.
pub(super) fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Copies a database into a new folder, which must not be there yet.
pub(super) fn private_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::write(to.join(entry.file_name()), fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Puts the fresh database in the place of the one that is there, if one is: it is moved aside, under a
/// name that ends in a number from `aside` on, or removed.
pub(super) fn replace_database(dir: &Path, aside: Option<u64>) -> io::Result<()> {
    let path = dir.join(DATABASE);
    if path.symlink_metadata().is_ok() {
        match aside {
            Some(number) => {
                let names = (number..).map(|number| dir.join(format!("{ASIDE}{number}")));
                let mut free = names.skip_while(|path| path.symlink_metadata().is_ok());
                let to = free.next().expect("the numbers do not end");
                fs::rename(&path, &to)?;
                tracing::warn!(moved_to = %to.display(), "the old token database is kept here; it is not needed");
            }
            None => {
                remove_dir(&dir.join(OLD))?;
                fs::rename(&path, dir.join(OLD))?;
            }
        }
    }
    failpoint::reached("old database aside")?;
    fs::rename(dir.join(FRESH), &path)?;
    sync_dir(dir)?;
    remove_dir(&dir.join(OLD))?;
    forget_oldest(dir)
}

/// Ends a replacement that was cut short: a fresh database that is complete takes its place, where
/// there is none; else it was not needed.
pub(super) fn finish_replacement(
    dir: &Path,
    is_complete: &dyn Fn(&Path) -> bool,
) -> io::Result<()> {
    let [path, fresh, old] = [DATABASE, FRESH, OLD].map(|name| dir.join(name));
    let pending = [&fresh, &old].into_iter().any(|path| path.symlink_metadata().is_ok());
    if pending && !path.join(DATA_FILE).exists() {
        // `private_dir` may have made the folder again, empty as it is then.
        let _ = fs::remove_dir(&path);
        // Without a fresh one somebody has removed the database: the proof says what the old one is worth.
        let best = if is_complete(&fresh) { &fresh } else { &old };
        if !path.exists() && best.exists() {
            fs::rename(best, &path)?;
            sync_dir(dir)?;
        }
    }
    remove_dir(&fresh)?;
    remove_dir(&old)
}

fn forget_oldest(dir: &Path) -> io::Result<()> {
    let mut aside = moved_aside(dir);
    aside.sort();
    let too_many = aside.len().saturating_sub(KEPT_ASIDE);
    aside[..too_many].iter().try_for_each(|path| remove_dir(path))
}

/// The databases that were moved aside as damaged.
pub(super) fn moved_aside(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let aside = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE));
    aside.map(|entry| entry.path()).collect()
}

/// The file by which a process holds the directory.
pub fn lock_path(dir: &Path) -> PathBuf {
    dir.join(LOCK_FILE)
}

/// Where a generated request secret is kept.
pub fn secret_path(dir: &Path) -> PathBuf {
    dir.join(SECRET_FILE)
}

/// The request secret that was generated in this directory, or that somebody has put there; `None` if there
/// is none. Blocks.
///
/// # Errors
/// It cannot be read; [`io::ErrorKind::InvalidData`] if what is in the file can be no key, which is then said
/// with what to do.
pub fn kept_secret(dir: &Path) -> io::Result<Option<Secret>> {
    let bytes = match fs::read(secret_path(dir)).map(Zeroizing::new) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let no_key = || {
        let what = "holds more than one line, or something else that is in no key; leave one line with the \
                    secret in it, or remove the file: the server writes one to it";
        io::Error::new(io::ErrorKind::InvalidData, what)
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| no_key())?;
    // Editors on Windows put a mark at the beginning.
    match text.strip_prefix('\u{feff}').unwrap_or(text).trim() {
        "" => Ok(None),
        key if key.contains(char::is_control) => Err(no_key()),
        key => Ok(Some(Secret::new(key))),
    }
}

/// The request secret of this directory: what an earlier start made, else `fresh`, which is kept
/// from now on. Blocks.
///
/// # Errors
/// It can be neither read nor written; then `fresh` serves until the next start.
pub fn request_secret(dir: &Path, fresh: &Secret) -> io::Result<Secret> {
    if let Some(kept) = kept_secret(dir)? {
        return Ok(kept);
    }
    let path = secret_path(dir);
    if path.exists() {
        tracing::warn!(path = %path.display(), "the file of the request secret was empty; one is written to it");
    }
    private_dir(dir)?;
    // Written beside and renamed: a crash leaves no half secret.
    let draft = path.with_extension("new");
    let mut file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    io::Write::write_all(&mut file, fresh.expose().as_bytes())?;
    io::Write::write_all(&mut file, b"\n")?;
    file.sync_all()?;
    fs::rename(&draft, &path)?;
    sync_dir(dir)?;
    Ok(fresh.clone())
}
