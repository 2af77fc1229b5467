//! The bytes of a stored record. The only file that names bincode.
//!
//! A record is: one byte of format version, eight bytes of checksum (the first of the SHA-256 of
//! what follows), the bincode of [`StoredV2`] or, in what an earlier program wrote, [`StoredV1`]. In
//! version 3 an envelope (`seal`) is what follows, and the bincode of [`StoredV2`] is its content.
//! Each version's golden bytes stay in the tests for ever: what was once written can be read for ever.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bincode::Options;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::seal::{self, KeyId, Keys, NonceBytes, Unopened};
use crate::clock;
use crate::token::{Generation, Secret, SourceIdentity, SourceName, TokenRecord};

const VERSION_1: u8 = 1;
const VERSION_2: u8 = 2;
const VERSION_3: u8 = seal::VERSION;
const CHECKSUM_BYTES: usize = 8;

/// The largest record that is read, in bytes: a value and a captured text of 8 KiB each, and much
/// room.
const MAX_RECORD_BYTES: u64 = 64 * 1024;

/// Version 1. Times are milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct StoredV1<'a> {
    value: &'a str,
    fetched_at: u64,
    expires_at: u64,
    generation: u64,
    first_seen: u64,
    identity: [u8; 32],
}

/// Version 2: what version 1 has, and what was captured from the answer.
#[derive(Serialize, Deserialize)]
struct StoredV2<'a> {
    #[serde(borrow)]
    v1: StoredV1<'a>,
    captured: Option<&'a str>,
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BrokenRecord {
    /// Fewer bytes than any record has.
    TooShort,
    /// A version that this program does not know: a newer one wrote it.
    UnknownVersion(u8),
    /// The checksum does not match.
    Checksum,
    /// The checksum matches, but the content is none.
    Content,
    /// It is whole, and sealed with a key that is not at hand.
    UnknownKey(KeyId),
    /// The checksum matches, but not what it is sealed with.
    Seal,
}

impl fmt::Display for BrokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokenRecord::TooShort => f.write_str("it is too short"),
            BrokenRecord::UnknownVersion(version) => {
                write!(f, "its format {version} is unknown; a newer version may have written it")
            }
            BrokenRecord::Checksum => f.write_str("its checksum does not match"),
            BrokenRecord::UnknownKey(key) => {
                write!(f, "it is sealed with the key {key}, which is not in the config")
            }
            BrokenRecord::Seal => {
                f.write_str("its seal does not match: it was changed, or is another source's")
            }
            BrokenRecord::Content => f.write_str("its content cannot be read"),
        }
    }
}

impl From<Unopened> for BrokenRecord {
    fn from(unopened: Unopened) -> BrokenRecord {
        match unopened {
            Unopened::TooShort => BrokenRecord::TooShort,
            Unopened::UnknownKey(key) => BrokenRecord::UnknownKey(key),
            Unopened::Broken => BrokenRecord::Seal,
        }
    }
}

fn codec() -> impl Options {
    bincode::DefaultOptions::new().with_limit(MAX_RECORD_BYTES).reject_trailing_bytes()
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(milliseconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 32] = Sha256::digest(content).into();
    std::array::from_fn(|at| digest[at])
}

/// A record, and how it was kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub record: TokenRecord,
    /// The key it was sealed with; `None` if it was kept in plain.
    pub sealed_with: Option<KeyId>,
}

/// The bytes of a record of the source `name`: sealed, if there is a key.
///
/// # Errors
/// The system has no randomness to seal it with.
pub(super) fn encode(record: &TokenRecord, name: &SourceName, keys: &Keys) -> io::Result<Vec<u8>> {
    let mut nonce = NonceBytes::default();
    if keys.current().is_some() {
        clock::random(&mut nonce)?;
    }
    Ok(encode_with(nonce, record, name, keys))
}

fn encode_with(nonce: NonceBytes, record: &TokenRecord, name: &SourceName, keys: &Keys) -> Vec<u8> {
    let content = content(record);
    match keys.current() {
        None => framed(VERSION_2, &content),
        Some(key) => framed(VERSION_3, &key.seal(name, record.generation, nonce, &content)),
    }
}

fn framed(version: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + CHECKSUM_BYTES + content.len());
    bytes.push(version);
    bytes.extend_from_slice(&checksum(content));
    bytes.extend_from_slice(content);
    bytes
}

fn content(record: &TokenRecord) -> Zeroizing<Vec<u8>> {
    let v1 = StoredV1 {
        value: record.value.expose(),
        fetched_at: milliseconds(record.fetched_at),
        // Rounded down by the conversion: a restart must not lengthen a life.
        expires_at: milliseconds(record.expires_at),
        generation: record.generation.0,
        first_seen: milliseconds(record.first_seen),
        identity: record.identity.0,
    };
    let stored = StoredV2 { v1, captured: record.captured.as_ref().map(Secret::expose) };
    // bincode asks for the size first, so no partial copy is left behind by growing.
    Zeroizing::new(codec().serialize(&stored).expect(
        "a record is far below the limit: the texts' lengths are checked when they are read",
    ))
}

/// The record of the source `name` in these bytes.
///
/// # Errors
/// They are no record, or not whole, or sealed with a key that is not among these.
pub(super) fn decode(
    bytes: &[u8],
    name: &SourceName,
    keys: &Keys,
) -> Result<Decoded, BrokenRecord> {
    let (&version, rest) = bytes.split_first().ok_or(BrokenRecord::TooShort)?;
    if ![VERSION_1, VERSION_2, VERSION_3].contains(&version) {
        return Err(BrokenRecord::UnknownVersion(version));
    }
    let (sum, content) = rest.split_at_checked(CHECKSUM_BYTES).ok_or(BrokenRecord::TooShort)?;
    if sum != checksum(content) {
        return Err(BrokenRecord::Checksum);
    }
    let (record, sealed_with) = match version {
        VERSION_1 => {
            let v1 = codec().deserialize(content).map_err(|_| BrokenRecord::Content)?;
            (read(StoredV2 { v1, captured: None })?, None)
        }
        VERSION_2 => (read_content(content)?, None),
        _ => {
            let (content, key) = keys.open(name, content)?;
            (read_content(&content)?, Some(key))
        }
    };
    Ok(Decoded { record, sealed_with })
}

fn read_content(content: &[u8]) -> Result<TokenRecord, BrokenRecord> {
    read(codec().deserialize(content).map_err(|_| BrokenRecord::Content)?)
}

fn read(StoredV2 { v1, captured }: StoredV2<'_>) -> Result<TokenRecord, BrokenRecord> {
    let instant = |milliseconds| time(milliseconds).ok_or(BrokenRecord::Content);
    Ok(TokenRecord {
        value: Secret::new(v1.value),
        fetched_at: instant(v1.fetched_at)?,
        expires_at: instant(v1.expires_at)?,
        generation: Generation(v1.generation),
        first_seen: instant(v1.first_seen)?,
        identity: SourceIdentity(v1.identity),
        captured: captured.map(Secret::new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> TokenRecord {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        TokenRecord {
            value: Secret::new("57_golden"),
            fetched_at: at(1_700_000_000),
            expires_at: at(1_700_007_200),
            generation: Generation(1_700_000_000),
            first_seen: at(1_700_000_000),
            identity: SourceIdentity([7; 32]),
            captured: None,
        }
    }

    /// Version 1 as it was first written. Never changed: databases in the field hold such bytes.
    const GOLDEN_V1: &str = concat!(
        "0184b9e1c026da50810935375f676f6c64656efd0068e5cf8b010000fd004553d08b010000",
        "fc00f15365fd0068e5cf8b0100000707070707070707070707070707070707070707070707",
        "070707070707070707",
    );

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Version 2 as it was first written, without and with a captured text.
    const GOLDEN_V2: &str = concat!(
        "02067aeba201c971380935375f676f6c64656efd0068e5cf8b010000fd004553d08b0100",
        "00fc00f15365fd0068e5cf8b010000070707070707070707070707070707070707070707",
        "070707070707070707070700",
    );
    const GOLDEN_V2_CAPTURED: &str = concat!(
        "02064abc53e1b3062e0935375f676f6c64656efd0068e5cf8b010000fd004553d08b0100",
        "00fc00f15365fd0068e5cf8b010000070707070707070707070707070707070707070707",
        "0707070707070707070707010a72656672657368404031",
    );

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    fn source() -> SourceName {
        SourceName::parse("access_token").unwrap()
    }

    fn keys(current: Option<&str>, old: &[&str]) -> Keys {
        let old: Vec<Secret> = old.iter().map(|text| Secret::new(*text)).collect();
        Keys::new(current.map(Secret::new).as_ref(), &old)
    }

    fn captured() -> TokenRecord {
        TokenRecord { captured: Some(Secret::new("refresh@@1")), ..record() }
    }

    fn plain(record: &TokenRecord) -> Vec<u8> {
        encode(record, &source(), &Keys::default()).unwrap()
    }

    /// Version 3 as it was first written, and as another implementation (Python's `cryptography`) opens
    /// it with this key and the source's name.
    const GOLDEN_V3: &str = concat!(
        "03b657b29079bd12261131d851a3f147f400f15365000000000102030405060708090a0b",
        "0cae757489fc8e3b5836c8466836e306ecb9ca51865128cfa62dd3f2e36032dbff377f06",
        "6d4383d811730051e160a2582aae1a5cb080d348dd18ec0152370b4be3a8e5509bb63c2d",
        "a5ac67942dfeb0a3f66495dd6753b7230df7a599a6decf1e437864123505f8",
    );
    const GOLDEN_KEY: &str = "0123456789abcdef0123456789abcdef";
    const GOLDEN_NONCE: NonceBytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    #[test]
    fn every_version_is_read_as_ever() {
        let (key, none) = (keys(Some(GOLDEN_KEY), &[]), Keys::default());
        for (golden, expected, sealed) in [
            (GOLDEN_V1, record(), false),
            (GOLDEN_V2, record(), false),
            (GOLDEN_V2_CAPTURED, captured(), false),
            (GOLDEN_V3, captured(), true),
        ] {
            let read = decode(&bytes(golden), &source(), &key).unwrap();
            assert_eq!((read.record, read.sealed_with.is_some()), (expected, sealed));
            assert_eq!(decode(&bytes(golden), &source(), &none).is_ok(), !sealed);
        }
    }

    #[test]
    fn versions_2_and_3_are_written_as_ever() {
        assert_eq!(hex(&plain(&record())), GOLDEN_V2);
        assert_eq!(hex(&plain(&captured())), GOLDEN_V2_CAPTURED);
        let key = keys(Some(GOLDEN_KEY), &[]);
        assert_eq!(hex(&encode_with(GOLDEN_NONCE, &captured(), &source(), &key)), GOLDEN_V3);
    }

    #[test]
    fn each_write_is_sealed_with_a_nonce_of_its_own() {
        let key = keys(Some(GOLDEN_KEY), &[]);
        let write = || encode(&record(), &source(), &key).unwrap();
        assert_ne!(write(), write());
    }

    #[test]
    fn a_record_is_read_with_the_key_it_was_sealed_with_and_no_other() {
        let id = |key: &str| keys(Some(key), &[]).current_id();
        let unknown = |key: &str| Err(BrokenRecord::UnknownKey(id(key).unwrap()));
        // (what it was written with, what is at hand, what becomes of it)
        for (wrote, current, old, expected) in [
            (None, None, &[][..], Ok(None)),
            (None, Some("k1"), &[], Ok(None)),
            (None, Some("k1"), &["k2"], Ok(None)),
            (Some("k1"), Some("k1"), &[], Ok(id("k1"))),
            (Some("k1"), Some("k1"), &["k2"], Ok(id("k1"))),
            (Some("k1"), Some("k2"), &["k1"], Ok(id("k1"))),
            (Some("k1"), Some("k3"), &["k2", "k1"], Ok(id("k1"))),
            (Some("k1"), None, &["k1"], Ok(id("k1"))),
            (Some("k1"), None, &[], unknown("k1")),
            (Some("k1"), Some("k2"), &[], unknown("k1")),
            (Some("k1"), Some("k2"), &["k3"], unknown("k1")),
        ] {
            let written = encode(&record(), &source(), &keys(wrote, &[])).unwrap();
            let read = decode(&written, &source(), &keys(current, old));
            let outcome = read.map(|read| {
                assert_eq!(read.record, record());
                read.sealed_with
            });
            assert_eq!(outcome, expected, "{wrote:?} read with {current:?} and {old:?}");
        }
    }

    #[test]
    fn a_sealed_record_is_of_one_source() {
        let key = keys(Some(GOLDEN_KEY), &[]);
        let written = encode(&record(), &source(), &key).unwrap();
        let other = SourceName::parse("ticket").unwrap();
        assert_eq!(decode(&written, &other, &key), Err(BrokenRecord::Seal));
    }

    #[test]
    fn what_is_not_whole_is_no_record() {
        for keys in [Keys::default(), keys(Some(GOLDEN_KEY), &[])] {
            let bytes = encode(&record(), &source(), &keys).unwrap();
            let decode = |bytes: &[u8]| decode(bytes, &source(), &keys);
            assert_eq!(decode(&[]), Err(BrokenRecord::TooShort));
            assert_eq!(decode(&bytes[..5]), Err(BrokenRecord::TooShort));
            assert_eq!(decode(&[9, 1, 2]), Err(BrokenRecord::UnknownVersion(9)));
            for at in 1..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                assert_eq!(decode(&flipped), Err(BrokenRecord::Checksum), "byte {at}");
                assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
                // With a checksum that matches, as only a person could make it.
                let forged = framed(bytes[0], &flipped[1 + CHECKSUM_BYTES..]);
                let sealed = bytes[0] == VERSION_3 && at > CHECKSUM_BYTES;
                assert!(!sealed || decode(&forged).is_err(), "byte {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = keys(Some(GOLDEN_KEY), &[]);
            let _ = decode(&bytes, &source(), &key);
            // With a right checksum or seal, so that the content is reached.
            let sealed = key.current().unwrap().seal(&source(), Generation(1), GOLDEN_NONCE, &bytes);
            for (version, content) in [(VERSION_1, &bytes), (VERSION_2, &bytes), (VERSION_3, &sealed)] {
                if let Ok(Decoded { record, .. }) = decode(&framed(version, content), &source(), &key) {
                    let again = encode(&record, &source(), &key).unwrap();
                    prop_assert_eq!(decode(&again, &source(), &key).unwrap().record, record);
                }
            }
        }

        #[test]
        fn any_record_is_read_as_it_was_written(
            value in "[!-~]{1,600}",
            kept in proptest::option::of("[!-~]{1,300}"),
            times in proptest::array::uniform3(0..4_000_000_000_000_u64),
            generation: u64,
            identity: [u8; 32],
            sealed: bool,
        ) {
            let at = |milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds);
            let record = TokenRecord {
                value: Secret::new(value),
                fetched_at: at(times[0]),
                expires_at: at(times[1]),
                generation: Generation(generation),
                first_seen: at(times[2]),
                identity: SourceIdentity(identity),
                captured: kept.map(Secret::new),
            };
            let keys = keys(sealed.then_some(GOLDEN_KEY), &[]);
            let written = encode(&record, &source(), &keys).unwrap();
            let expected = Decoded { record, sealed_with: keys.current_id() };
            prop_assert_eq!(decode(&written, &source(), &keys), Ok(expected));
        }
    }
}
