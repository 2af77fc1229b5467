//! The bytes of a stored record. The only file that names bincode.
//!
//! A record is: one byte of format version, eight bytes of checksum (the first of the SHA-256 of
//! what follows), the bincode of [`StoredV2`] or, in what an earlier program wrote, [`StoredV1`].
//! Each version's golden bytes stay in the tests for ever: what was once written can be read for ever.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bincode::Options;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::token::{Generation, Secret, SourceIdentity, TokenRecord};

const VERSION_1: u8 = 1;
const VERSION_2: u8 = 2;
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
}

impl fmt::Display for BrokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokenRecord::TooShort => f.write_str("it is too short"),
            BrokenRecord::UnknownVersion(version) => {
                write!(f, "its format {version} is unknown; a newer version may have written it")
            }
            BrokenRecord::Checksum => f.write_str("its checksum does not match"),
            BrokenRecord::Content => f.write_str("its content cannot be read"),
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

/// The bytes of a record.
pub(super) fn encode(record: &TokenRecord) -> Vec<u8> {
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
    let content = codec().serialize(&stored).expect(
        "a record is far below the limit: the texts' lengths are checked when they are read",
    );
    let mut bytes = Vec::with_capacity(1 + CHECKSUM_BYTES + content.len());
    bytes.push(VERSION_2);
    bytes.extend_from_slice(&checksum(&content));
    bytes.extend_from_slice(&content);
    bytes
}

/// The record of these bytes.
///
/// # Errors
/// They are no record, or not whole.
pub(super) fn decode(bytes: &[u8]) -> Result<TokenRecord, BrokenRecord> {
    let (&version, rest) = bytes.split_first().ok_or(BrokenRecord::TooShort)?;
    if ![VERSION_1, VERSION_2].contains(&version) {
        return Err(BrokenRecord::UnknownVersion(version));
    }
    let (sum, content) = rest.split_at_checked(CHECKSUM_BYTES).ok_or(BrokenRecord::TooShort)?;
    if sum != checksum(content) {
        return Err(BrokenRecord::Checksum);
    }
    let stored = match version {
        VERSION_1 => codec().deserialize(content).map(|v1| StoredV2 { v1, captured: None }),
        _ => codec().deserialize(content),
    };
    let StoredV2 { v1, captured } = stored.map_err(|_| BrokenRecord::Content)?;
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

    #[test]
    fn every_version_is_read_as_ever() {
        assert_eq!(decode(&bytes(GOLDEN_V1)), Ok(record()));
        assert_eq!(decode(&bytes(GOLDEN_V2)), Ok(record()));
        let captured = TokenRecord { captured: Some(Secret::new("refresh@@1")), ..record() };
        assert_eq!(decode(&bytes(GOLDEN_V2_CAPTURED)), Ok(captured));
    }

    #[test]
    fn version_2_is_written_as_ever() {
        assert_eq!(hex(&encode(&record())), GOLDEN_V2);
        let captured = TokenRecord { captured: Some(Secret::new("refresh@@1")), ..record() };
        assert_eq!(hex(&encode(&captured)), GOLDEN_V2_CAPTURED);
    }

    #[test]
    fn what_is_not_whole_is_no_record() {
        let bytes = encode(&record());
        assert_eq!(decode(&[]), Err(BrokenRecord::TooShort));
        assert_eq!(decode(&bytes[..5]), Err(BrokenRecord::TooShort));
        assert_eq!(decode(&[9, 1, 2]), Err(BrokenRecord::UnknownVersion(9)));
        for at in 1..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), Err(BrokenRecord::Checksum), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            // With a right checksum, so that the content is reached.
            for version in [VERSION_1, VERSION_2] {
                let mut summed = vec![version];
                summed.extend_from_slice(&checksum(&bytes));
                summed.extend_from_slice(&bytes);
                if let Ok(record) = decode(&summed) {
                    prop_assert_eq!(decode(&encode(&record)), Ok(record));
                }
            }
        }
    }
}
