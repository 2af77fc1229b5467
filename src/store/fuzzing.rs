//! What must hold of the store's bytes, whatever they are; see `crate::fuzzing`.

use sha2::{Digest, Sha256};

use crate::store::{calls, format};

/// Reads the input as everything that is kept, as it is and behind a checksum that is right.
pub(crate) fn record(input: &[u8]) {
    check(input);
    if let Some((version, content)) = input.split_first() {
        let sum = Sha256::digest(content);
        check(&[&[*version][..], &sum[..8], content].concat());
    }
    if let Some(account) = calls::account(input) {
        assert_eq!(calls::key(&account), input, "another key");
    }
    if let Some(source) = calls::marked(input) {
        assert_eq!(calls::mark_key(&source), input, "another key");
    }
}

fn check(bytes: &[u8]) {
    match format::decode(bytes) {
        Ok(record) => {
            let written = format::encode(&record);
            assert_eq!(format::decode(&written), Ok(record), "written as another");
        }
        Err(broken) => assert!(!broken.to_string().is_empty()),
    }
    // Fixed fields: there is one way to write each.
    if let Some(calls) = calls::decode(bytes) {
        assert_eq!(calls::encode(calls), bytes, "written as another");
    }
    if let Some(mark) = calls::decode_mark(bytes) {
        assert_eq!(calls::encode_mark(mark), bytes, "written as another");
    }
}
