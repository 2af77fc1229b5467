//! A look at what a store directory holds, for whoever wants to know and not to serve: at a copy, in memory
//! where there is such a place. Nothing in the directory is changed, not even a file's owner.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::custody;
use super::database;
use super::directory::{self, DATABASE, LOCK_FILE, MARK_FILE};
use super::{Keys, Restored, WrongKey};

/// What a look at a store directory has brought.
#[derive(Debug)]
pub enum Peek {
    /// There is no such directory, or no database in it: no server has run.
    Empty,
    /// A process has it.
    Locked,
    /// Its records are sealed with a key that is not at hand.
    WrongKey(WrongKey),
    /// It cannot be read; in the system's words.
    Unreadable(String),
    /// This user may not look.
    NotPermitted,
    /// What it holds.
    Holds {
        /// Everything that is proven whole.
        restored: Restored,
        /// What is wrong with its files, which the next start mends.
        damage: Option<String>,
    },
}

/// Looks at the store in `dir`. Blocks. A process that has the directory is not waited for; none can take it
/// while its files are copied.
pub fn peek(dir: &Path, keys: &Keys) -> Peek {
    let path = dir.join(DATABASE);
    let copied = match held(dir) {
        Ok(Held::Elsewhere) => return Peek::Locked,
        Ok(Held::Here(_)) if !path.exists() => {
            return match fs::read_dir(dir).map(drop) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => unreadable(dir, &error),
                _ => Peek::Empty,
            };
        }
        Ok(held) => {
            let copy = Copy::of(dir);
            drop(held);
            copy
        }
        Err(error) => Err(error),
    };
    let copy = match copied {
        Ok(copy) => copy,
        Err(error) => return unreadable(dir, &error),
    };
    let examined = match database::examine(&copy.0) {
        Ok(examined) => examined,
        Err(error) => return Peek::Unreadable(error.0),
    };
    let (restored, custody) = custody::read(&examined, keys);
    if let Err(wrong) = custody.check(dir, keys) {
        return Peek::WrongKey(wrong);
    }
    Peek::Holds { restored, damage: examined.damage().map(str::to_owned) }
}

fn unreadable(dir: &Path, error: &io::Error) -> Peek {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Peek::NotPermitted;
    }
    Peek::Unreadable(format!("{}: {error}", dir.display()))
}

/// Whether another process has the store in `dir`.
///
/// # Errors
/// This user may not know, or the system refuses it otherwise.
pub fn is_locked(dir: &Path) -> io::Result<bool> {
    Ok(matches!(held(dir)?, Held::Elsewhere))
}

/// Who holds a directory.
enum Held {
    /// Another process.
    Elsewhere,
    /// This one, until the file is dropped; nobody, where there is none: no server has ever run.
    Here(
        #[expect(dead_code, reason = "the lock is held for as long as the file is open")]
        Option<File>,
    ),
}

fn held(dir: &Path) -> io::Result<Held> {
    let file = match File::open(dir.join(LOCK_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Held::Here(None)),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(Held::Here(Some(file))),
        Err(fs::TryLockError::WouldBlock) => Ok(Held::Elsewhere),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// A copy of what a store directory holds, for its owner alone. Removed when this is dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(dir: &Path) -> io::Result<Copy> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wechat-token-server-look-{}-{number}", std::process::id());
        let place = directory::memory().join(name);
        // Made anew, or not used: nobody else has put anything there.
        DirBuilder::new().mode(0o700).create(&place)?;
        let copy = Copy(place);
        directory::private_copy(&dir.join(DATABASE), &copy.0.join(DATABASE))?;
        match fs::copy(dir.join(MARK_FILE), copy.0.join(MARK_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(copy),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What stays behind is in memory, and nobody else may read it.
        let _ = directory::remove_dir(&self.0);
    }
}
