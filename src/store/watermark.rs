//! The proof outside the database, in two files: beside the database, so that an older copy of it is
//! found out, and in its folder, so that either file alone may be lost. Written in place, one after the
//! other: of a write that is cut short the other file knows nothing, and is whole.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::directory::{DATABASE, MARK_FILE, Place};
use super::failpoint;
use super::proof::Proof;

/// The name of the second file, in the database's folder.
pub(super) const INNER_MARK: &str = "mark";

/// What the files say.
pub(super) struct Known {
    /// What is known to have been written; `None` where neither file is whole.
    pub(super) proof: Option<Proof>,
    /// Whether there is a file, whole or not.
    pub(super) any: bool,
    /// Whether both are whole.
    pub(super) both: bool,
}

/// Reads both files.
pub(super) fn read(dir: &Path) -> Known {
    let files = [dir.join(MARK_FILE), dir.join(DATABASE).join(INNER_MARK)];
    let any = files.iter().any(|path| path.exists());
    let proofs = files.map(|path| fs::read(path).ok().and_then(|bytes| Proof::decode(&bytes)));
    let both = proofs.iter().all(Option::is_some);
    let [outer, inner] = proofs;
    let proof = match (outer, inner) {
        (Some(outer), Some(inner)) => Some(outer.merged(&inner)),
        (one, other) => one.or(other),
    };
    Known { proof, any, both }
}

/// Whether there is a whole file at `path`.
pub(super) fn is_whole(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| Proof::decode(&bytes).is_some())
}

/// One of the files, open.
pub(super) struct Watermark {
    file: File,
    place: Place,
}

impl Watermark {
    /// Opens the file at `path`, which is made if it is missing; its folder must be synced after that.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn open(path: &Path) -> io::Result<Watermark> {
        let file =
            File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        let place = Place::of(path, &file)?;
        Ok(Watermark { file, place })
    }

    /// Whether the file is still where it was opened.
    pub(super) fn is_in_place(&self) -> bool {
        self.place.holds()
    }

    /// Writes a proof over the one before. It is on disk when this returns.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        self.file.write_all_at(first, 0)?;
        failpoint::reached("half a mark")?;
        self.file.write_all_at(second, first.len() as u64)?;
        self.file.sync_data()
    }
}
