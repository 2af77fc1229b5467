//! Reads a database, and takes note of how its records are kept, in plain or under which key, and whether
//! that is what the config wants.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::calls;
use super::database::Examined;
use super::directory::{self, DATABASE};
use super::format::{self, BrokenRecord};
use super::seal::{KeyId, Keys};
use super::{Change, Restored};
use crate::token::{SourceName, TokenRecord};

/// The key under which a database says with which key everything in its files is sealed. It is missing
/// where they may hold plain records: sled keeps what has been overwritten for a good while.
pub(super) const SEALED_BY: &[u8] = b"\0sealed by";

/// Reads everything that is proven whole; what is broken is left out, loudly.
pub(super) fn read(database: &Examined, keys: &Keys) -> (Restored, Custody) {
    let (mut restored, mut custody) = (Restored::default(), Custody::default());
    database.show(&mut |key, value| {
        if let Some(account) = calls::account(key) {
            // A count that is lost is begun anew.
            restored.calls.extend(calls::decode(value).map(|calls| (account, calls)));
        } else if let Some(source) = calls::marked(key) {
            restored.marks.extend(calls::decode_mark(value).map(|mark| (source, mark)));
        } else if key == SEALED_BY {
            custody.sealed_by = Some(value.to_vec());
        } else {
            restored.records.extend(custody.named_record(key, value, keys));
        }
    });
    (restored, custody)
}

/// What says in a database that everything in its files is kept under the current key, or under none.
pub(super) fn mark_of(keys: &Keys) -> Change {
    (SEALED_BY.to_vec(), keys.current_id().as_ref().map(KeyId::bytes).map(<[u8]>::to_vec))
}

/// How an entry is kept in a database that is written anew: a record under the current key, what is no record,
/// and so no secret, as it is. `None` for a broken record, which may hold anything.
///
/// # Errors
/// The system has no randomness to seal it with.
pub(super) fn kept_as<'a>(
    key: &[u8],
    value: &'a [u8],
    keys: &Keys,
) -> io::Result<Option<Cow<'a, [u8]>>> {
    if key.first() == Some(&0) {
        return Ok(Some(value.into()));
    }
    let name = std::str::from_utf8(key).ok().and_then(|name| SourceName::parse(name).ok());
    let Some(name) = name else { return Ok(None) };
    match format::decode(value, &name, keys) {
        Ok(decoded) if decoded.sealed_with == keys.current_id() => Ok(Some(value.into())),
        Ok(decoded) => format::encode(&decoded.record, &name, keys).map(|bytes| Some(bytes.into())),
        // Whole, and not ours to destroy.
        Err(BrokenRecord::UnknownKey(_)) => Ok(Some(value.into())),
        Err(_) => Ok(None),
    }
}

/// How the records of one database are kept.
#[derive(Debug, Default)]
pub(super) struct Custody {
    /// All of them, the broken ones too.
    records: usize,
    /// Those that new ones would not be kept like.
    outdated: usize,
    /// Those that are sealed with a key that is not at hand, and the names of these keys.
    unopened: usize,
    unknown: BTreeSet<KeyId>,
    /// What stands under [`SEALED_BY`].
    sealed_by: Option<Vec<u8>>,
}

impl Custody {
    fn named_record(
        &mut self,
        key: &[u8],
        value: &[u8],
        keys: &Keys,
    ) -> Option<(SourceName, TokenRecord)> {
        let name = String::from_utf8_lossy(key);
        match SourceName::parse(&name) {
            Ok(name) => self.record(&name, value, keys).map(|record| (name, record)),
            Err(_) => {
                tracing::warn!(name = %name.escape_debug(), "a stored record has a name that no source can have; it is left out");
                None
            }
        }
    }

    /// The record in these bytes; a broken one is left out, loudly.
    pub(super) fn record(
        &mut self,
        name: &SourceName,
        bytes: &[u8],
        keys: &Keys,
    ) -> Option<TokenRecord> {
        self.records += 1;
        match format::decode(bytes, name, keys) {
            Ok(decoded) => {
                self.outdated += usize::from(decoded.sealed_with != keys.current_id());
                Some(decoded.record)
            }
            Err(BrokenRecord::UnknownKey(key)) => {
                self.unopened += 1;
                self.unknown.insert(key);
                None
            }
            Err(broken) => {
                tracing::error!(source = %name, cause = %broken, "a stored record is broken and left out; the token is fetched anew");
                None
            }
        }
    }

    /// Whether every record can be opened.
    ///
    /// # Errors
    /// Some cannot, for want of their key.
    pub(super) fn check(&self, dir: &Path, keys: &Keys) -> Result<(), WrongKey> {
        if self.unknown.is_empty() {
            return Ok(());
        }
        Err(WrongKey {
            dir: dir.to_owned(),
            records: self.unopened,
            sealed_with: self.unknown.iter().copied().collect(),
            has_key: keys.current().is_some(),
        })
    }

    /// What the files of the database need so that they are as the config wants.
    pub(super) fn wanted(&self, keys: &Keys) -> Wanted {
        let current = keys.current_id();
        if self.outdated == 0 && self.sealed_by.as_deref() == current.as_ref().map(KeyId::bytes) {
            Wanted::Nothing
        } else if self.records == 0 {
            // No record is ever removed: there has been none.
            Wanted::Mark
        } else {
            Wanted::Rewrite { outdated: self.outdated }
        }
    }
}

/// Warns of databases that were moved aside as corrupt: nobody seals what cannot be read.
pub(super) fn warn_of_remains(dir: &Path, keys: &Keys) {
    let Some(_) = keys.current() else { return };
    for path in directory::moved_aside(dir) {
        tracing::warn!(
            path = %path.display(),
            "a database that was moved aside may hold tokens in plain; remove it when nobody needs it any more"
        );
    }
}

/// What the files of a database need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// They are as they should be.
    Nothing,
    /// They have never held a record: what stands under [`SEALED_BY`] is to be written.
    Mark,
    /// They hold records, or remains of records, that are kept otherwise.
    Rewrite {
        /// How many records are.
        outdated: usize,
    },
}

/// Records are sealed with keys that the config does not have. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongKey {
    /// The store's directory.
    pub dir: PathBuf,
    /// How many records cannot be opened.
    pub records: usize,
    /// Names the keys that they are sealed with.
    pub sealed_with: Vec<KeyId>,
    /// Whether the config has a key.
    pub has_key: bool,
}

impl fmt::Display for WrongKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WrongKey { dir, records, sealed_with, has_key } = self;
        let keys: Vec<String> = sealed_with.iter().map(ToString::to_string).collect();
        let why = match has_key {
            true => "which store.key is not",
            false => "and store.key is not set",
        };
        write!(
            f,
            "{records} record(s) in the store directory {} are sealed with the key named {}, {why}; \
             nothing was changed. Set store.key to the key they were sealed with, or, if another one \
             is to take its place, add it to store.old_keys. If it is lost, so are the tokens: remove \
             {} and they are fetched anew (a captured refresh token has to be given again)",
            dir.display(),
            keys.join(" and "),
            dir.join(DATABASE).display(),
        )
    }
}

impl std::error::Error for WrongKey {}
