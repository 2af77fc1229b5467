//! Writes a fresh database beside the one that is there: with what is proven whole of it, kept as the
//! config says. What is given up, or kept otherwise, is in none of its files: sled keeps what has been
//! overwritten in its own for a good while, so nothing less takes that off the disk.
//!
//! The fresh database is on disk and read back before it is complete (`directory` puts it in its place
//! then), and its proof is of what it holds: a record that is sealed anew has other bytes.

use std::path::Path;

use super::custody::{self, SEALED_BY};
use super::database::{Found, MARKER, WITH_PROOF, is_content};
use super::directory::{self, FRESH, sync_dir};
use super::engine::{Batch, Failure, Tree};
use super::failpoint;
use super::proof::{Judged, Proof, sum_key};
use super::seal::Keys;
use super::watermark::{INNER_MARK, Watermark};

/// How many entries are written at once.
const ENTRIES_AT_ONCE: usize = 1024;

/// Writes the fresh database, with what is whole of `tree` and nothing else; what proves it.
///
/// # Errors
/// The disk refuses, or does not give back what was written. What is there is not complete.
pub(super) fn build(
    dir: &Path,
    tree: Option<&Tree>,
    judged: &Judged,
    keys: &Keys,
) -> Result<Proof, Failure> {
    let path = dir.join(FRESH);
    directory::remove_dir(&path)?;
    directory::private_database(&path)?;
    let fresh = Tree::open(&path)?;
    let proof = match tree {
        None => Copy::begin(&fresh, judged, keys).end()?,
        Some(tree) => {
            let mut copy = Copy::begin(&fresh, judged, keys);
            // What cannot be read is lost, as was judged.
            tree.each(&mut |key, value| copy.take(key, value));
            copy.end()?
        }
    };
    drop(fresh);
    if tree.is_some() {
        read_back(&path, &proof)?;
    }
    Watermark::open(&path.join(INNER_MARK))?.write(&proof.encode())?;
    sync_dir(&path)?;
    failpoint::reached("fresh database built")?;
    Ok(proof)
}

/// Reads the fresh database as the next start would.
fn read_back(path: &Path, proof: &Proof) -> Result<(), Failure> {
    let found = Found::read(&Tree::open(path)?);
    match found.broken {
        Some(failure) => Err(failure),
        None if found.is_marked() && found.content.judged(proof).lost() == 0 => Ok(()),
        None => Err(Failure::Unusable("the disk does not give back what was written".into())),
    }
}

/// Takes over entry after entry.
struct Copy<'a> {
    fresh: &'a Tree,
    judged: &'a Judged,
    keys: &'a Keys,
    proof: Proof,
    /// The number of what is changed on the way.
    number: u64,
    /// What the old database says of how it is kept.
    sealed_by: Option<Vec<u8>>,
    batch: Batch,
    waiting: usize,
    written: Result<(), Failure>,
}

impl<'a> Copy<'a> {
    fn begin(fresh: &'a Tree, judged: &'a Judged, keys: &'a Keys) -> Copy<'a> {
        let mut batch = Batch::default();
        batch.insert(MARKER, WITH_PROOF);
        Copy {
            fresh,
            judged,
            keys,
            proof: judged.proof.clone(),
            number: judged.proof.next_batch(),
            sealed_by: None,
            batch,
            waiting: 0,
            written: Ok(()),
        }
    }

    fn take(&mut self, key: &[u8], value: &[u8]) {
        if !is_content(key) || !self.judged.is_whole(key) || self.written.is_err() {
            return;
        }
        if key == SEALED_BY {
            self.sealed_by = Some(value.to_vec());
            return;
        }
        let kept = match custody::kept_as(key, value, self.keys) {
            Ok(kept) => kept,
            Err(error) => {
                self.written = Err(error.into());
                return;
            }
        };
        if kept.as_deref() != Some(value) {
            self.proof.change(self.number, key, Some(value), kept.as_deref());
        }
        if let Some(kept) = kept {
            self.batch.insert(key, &*kept);
            self.waiting += 1;
        }
        if self.waiting == ENTRIES_AT_ONCE {
            self.waiting = 0;
            self.written = self.fresh.apply(std::mem::take(&mut self.batch));
        }
    }

    /// Writes what is left, with what proves the whole. It is on disk when this returns.
    fn end(mut self) -> Result<Proof, Failure> {
        self.written?;
        let (_, sealed_by) = custody::mark_of(self.keys);
        if sealed_by != self.sealed_by {
            let (old, new) = (self.sealed_by.as_deref(), sealed_by.as_deref());
            self.proof.change(self.number, SEALED_BY, old, new);
        }
        if let Some(sealed_by) = sealed_by {
            self.batch.insert(SEALED_BY, sealed_by);
        }
        for (at, group) in self.proof.groups().filter(|(_, group)| group.batch > 0) {
            self.batch.insert(sum_key(at), &group.encode());
        }
        self.fresh.apply(self.batch)?;
        self.fresh.flush()?;
        self.fresh.file().sync_all()?;
        Ok(self.proof)
    }
}
