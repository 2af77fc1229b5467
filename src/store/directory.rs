//! The store's directory: private to its owner, held by one process, the place of the generated
//! request secret. Knows nothing of what the database holds.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::SharedClock;
use crate::token::Secret;

/// How often a locked directory is tried again.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// How often and how many times a database is looked at that has just been closed: 5 seconds at most.
const CLOSED_POLL: Duration = Duration::from_millis(5);
const CLOSED_LOOKS: usize = 1_000;

const LOCK_FILE: &str = "lock";
const SECRET_FILE: &str = "request_secret";
/// The database's directory in the store's.
pub(super) const DATABASE: &str = "tokens.sled";
/// What stands behind its name when it is moved aside, before the time.
pub(super) const CORRUPT: &str = ".corrupt-";

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

/// Takes the directory for this process, so that two servers never share an account's tokens. It is
/// let go of when the file is closed. Blocks, `patience` at most.
pub(super) fn lock(dir: &Path, patience: Duration, clock: &SharedClock) -> Result<File, LockError> {
    let file = private_dir(dir)
        .and_then(|()| {
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(dir.join(LOCK_FILE))
        })
        .map_err(|_| LockError::Unusable)?;
    let start = clock.now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
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
        [LOCK_FILE, DATABASE, SECRET_FILE].iter().any(|ours| name.starts_with(ours))
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

/// Makes the directory of a database, for its owner alone.
pub(super) fn private_database(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The databases that were moved aside as corrupt.
pub(super) fn moved_aside(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().strip_prefix(DATABASE).is_some_and(|rest| rest.starts_with(CORRUPT))
    });
    names.map(|entry| entry.path()).collect()
}

/// Waits until a database that this process had open is closed: sled drops it in the background, and
/// locks its file until it has. Blocks, for some milliseconds as a rule.
pub(super) fn wait_until_closed(database: &Path) -> io::Result<()> {
    let file = match File::options().read(true).write(true).open(database.join("db")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    for _ in 0..CLOSED_LOOKS {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::Error(error)) => return Err(error),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(CLOSED_POLL),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "sled does not close it"))
}

/// Where a generated request secret is kept.
pub fn secret_path(dir: &Path) -> PathBuf {
    dir.join(SECRET_FILE)
}

/// The request secret of this directory: what an earlier start made, else `fresh`, which is kept
/// from now on. Blocks.
///
/// # Errors
/// It can be neither read nor written; then `fresh` serves until the next start.
pub fn request_secret(dir: &Path, fresh: &str) -> io::Result<Secret> {
    let path = secret_path(dir);
    match fs::read_to_string(&path).map(Zeroizing::new) {
        Ok(kept) if !kept.trim().is_empty() => return Ok(Secret::new(kept.trim())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    private_dir(dir)?;
    // Written beside and renamed: a crash leaves no half secret.
    let draft = path.with_extension("new");
    let mut file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    io::Write::write_all(&mut file, fresh.as_bytes())?;
    io::Write::write_all(&mut file, b"\n")?;
    file.sync_all()?;
    fs::rename(&draft, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(Secret::new(fresh))
}
