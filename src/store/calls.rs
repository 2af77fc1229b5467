//! The bytes of an account's count of calls and of a source's mark (requests whose outcome is not
//! known), and the keys they are kept under. Fixed fields, so that no codec is needed: a version, a
//! checksum, little-endian numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::account::{Account, Calls, Unsettled};
use crate::token::SourceName;

/// No source's name begins with this byte.
const PREFIX: &[u8] = b"\0calls\0";
const MARK_PREFIX: &[u8] = b"\0mark\0";
const VERSION_1: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
const CONTENT_BYTES: usize = 8 + 4 + 4 + 8;
const MARK_BYTES: usize = 8 + 8;

/// The key of an account's count.
pub(super) fn key(account: &Account) -> Vec<u8> {
    [PREFIX, account.name.as_bytes(), b"\0", account.endpoint.as_bytes()].concat()
}

/// Whose count a key is for; `None` if it is of another kind.
pub(super) fn account(key: &[u8]) -> Option<Account> {
    let text = std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?;
    let (name, endpoint) = text.split_once('\0')?;
    Some(Account { name: name.into(), endpoint: endpoint.into() })
}

/// The bytes of a count.
pub(super) fn encode(calls: Calls) -> Vec<u8> {
    let mut content = Vec::with_capacity(CONTENT_BYTES);
    content.extend_from_slice(&calls.day.to_le_bytes());
    content.extend_from_slice(&calls.made.to_le_bytes());
    content.extend_from_slice(&calls.forced_new.to_le_bytes());
    content.extend_from_slice(&calls.last_forced_new.to_le_bytes());
    sealed(&content)
}

fn sealed(content: &[u8]) -> Vec<u8> {
    let sum = Sha256::digest(content);
    [&[VERSION_1][..], &sum[..CHECKSUM_BYTES], content].concat()
}

/// The content of whole bytes of this length; `None` if they are none.
fn opened(bytes: &[u8], length: usize) -> Option<&[u8]> {
    let (sum, content) = bytes.strip_prefix(&[VERSION_1])?.split_at_checked(CHECKSUM_BYTES)?;
    let whole = content.len() == length && sum == &Sha256::digest(content)[..CHECKSUM_BYTES];
    whole.then_some(content)
}

/// The count of these bytes; `None` if they are none, or not whole.
pub(super) fn decode(bytes: &[u8]) -> Option<Calls> {
    let content = opened(bytes, CONTENT_BYTES)?;
    let (day, rest) = content.split_first_chunk()?;
    let (made, rest) = rest.split_first_chunk()?;
    let (forced_new, rest) = rest.split_first_chunk()?;
    let (last_forced_new, _) = rest.split_first_chunk()?;
    Some(Calls {
        day: u64::from_le_bytes(*day),
        made: u32::from_le_bytes(*made),
        forced_new: u32::from_le_bytes(*forced_new),
        last_forced_new: u64::from_le_bytes(*last_forced_new),
    })
}

/// The key of a source's mark.
pub(super) fn mark_key(source: &SourceName) -> Vec<u8> {
    [MARK_PREFIX, source.as_str().as_bytes()].concat()
}

/// Whose mark a key is for; `None` if it is of another kind.
pub(super) fn marked(key: &[u8]) -> Option<SourceName> {
    SourceName::parse(std::str::from_utf8(key.strip_prefix(MARK_PREFIX)?).ok()?).ok()
}

/// The bytes of a mark: Unix milliseconds.
pub(super) fn encode_mark(mark: Unsettled) -> Vec<u8> {
    let milliseconds = |at: SystemTime| {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).to_le_bytes()
    };
    sealed(&[milliseconds(mark.first), milliseconds(mark.last)].concat())
}

/// The mark of these bytes; `None` if they are none, or not whole.
pub(super) fn decode_mark(bytes: &[u8]) -> Option<Unsettled> {
    let (first, last) = opened(bytes, MARK_BYTES)?.split_first_chunk()?;
    let at =
        |bytes: [u8; 8]| UNIX_EPOCH.checked_add(Duration::from_millis(u64::from_le_bytes(bytes)));
    Some(Unsettled { first: at(*first)?, last: at(last.try_into().ok()?)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_as_it_was_written() {
        let calls = Calls { day: 20_000, made: 7, forced_new: 2, last_forced_new: 1_800_000_000 };
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
    fn a_mark_is_read_as_it_was_written() {
        let at = |milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds);
        let mark = Unsettled { first: at(1_800_000_000_123), last: at(1_800_000_000_456) };
        assert_eq!(decode_mark(&encode_mark(mark)), Some(mark));
        assert_eq!(decode_mark(&encode(Calls::default())), None);
        let name = SourceName::parse("公众号").unwrap();
        assert_eq!(marked(&mark_key(&name)), Some(name));
    }

    #[test]
    fn a_key_names_account_and_endpoint() {
        let wechat = Account { name: "wx0".into(), endpoint: "/cgi-bin/token".into() };
        assert_eq!(account(&key(&wechat)), Some(wechat));
        assert_eq!(account(b"access_token"), None);
    }
}
