//! The bytes of an account's count of calls, and the key it is kept under. Fixed fields, so that no
//! codec is needed: a version, a checksum, six little-endian numbers.

use sha2::{Digest, Sha256};

use crate::account::{Account, Calls};

/// No source's name begins with this byte.
const PREFIX: &[u8] = b"\0calls\0";
const VERSION_1: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
const CONTENT_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 8;

/// The key of an account's count.
pub(super) fn key(account: &Account) -> Vec<u8> {
    [PREFIX, account.name.as_bytes(), b"\0", account.endpoint.as_bytes()].concat()
}

/// Whose count a key is for; `None` if it is of another kind.
pub(super) fn account(key: &[u8]) -> Option<Account> {
    let text = std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?;
    let (name, endpoint) = text.split_once('\0')?;
    Some(Account { name: name.to_owned(), endpoint: endpoint.to_owned() })
}

/// The bytes of a count.
pub(super) fn encode(calls: Calls) -> Vec<u8> {
    let mut content = Vec::with_capacity(CONTENT_BYTES);
    content.extend_from_slice(&calls.day.to_le_bytes());
    content.extend_from_slice(&calls.made.to_le_bytes());
    content.extend_from_slice(&calls.forced_new.to_le_bytes());
    content.extend_from_slice(&calls.last_forced_new.to_le_bytes());
    content.extend_from_slice(&calls.unsettled_since.to_le_bytes());
    content.extend_from_slice(&calls.last_sent.to_le_bytes());
    let sum = Sha256::digest(&content);
    [&[VERSION_1][..], &sum[..CHECKSUM_BYTES], &content].concat()
}

/// The count of these bytes; `None` if they are none, or not whole.
pub(super) fn decode(bytes: &[u8]) -> Option<Calls> {
    let (sum, content) = bytes.strip_prefix(&[VERSION_1])?.split_at_checked(CHECKSUM_BYTES)?;
    if content.len() != CONTENT_BYTES || sum != &Sha256::digest(content)[..CHECKSUM_BYTES] {
        return None;
    }
    let (day, rest) = content.split_first_chunk()?;
    let (made, rest) = rest.split_first_chunk()?;
    let (forced_new, rest) = rest.split_first_chunk()?;
    let (last_forced_new, rest) = rest.split_first_chunk()?;
    let (unsettled_since, rest) = rest.split_first_chunk()?;
    let (last_sent, _) = rest.split_first_chunk()?;
    Some(Calls {
        day: u64::from_le_bytes(*day),
        made: u32::from_le_bytes(*made),
        forced_new: u32::from_le_bytes(*forced_new),
        last_forced_new: u64::from_le_bytes(*last_forced_new),
        unsettled_since: u64::from_le_bytes(*unsettled_since),
        last_sent: u64::from_le_bytes(*last_sent),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_as_it_was_written() {
        let calls = Calls {
            day: 20_000,
            made: 7,
            forced_new: 2,
            last_forced_new: 1_800_000_000,
            unsettled_since: 1_800_000_000_123,
            last_sent: 1_800_000_000_456,
        };
        let bytes = encode(calls);
        assert_eq!(decode(&bytes), Some(calls));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_key_names_account_and_endpoint() {
        let wechat = Account { name: "wx0".into(), endpoint: "/cgi-bin/token".into() };
        assert_eq!(account(&key(&wechat)), Some(wechat));
        assert_eq!(account(b"access_token"), None);
    }
}
