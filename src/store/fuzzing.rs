//! What must hold of the store's bytes, whatever they are; see `crate::fuzzing`.

use sha2::{Digest, Sha256};

use crate::store::seal::Keys;
use crate::store::{calls, format};
use crate::token::{Secret, SourceName};

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
    let name = SourceName::parse("access_token").expect("it is a name");
    let sealing = Keys::new(Some(&Secret::new("key-for-fuzzing-0123")), &[]);
    for keys in [&Keys::default(), &sealing] {
        match format::decode(bytes, &name, keys) {
            Ok(decoded) => {
                let record = decoded.record;
                let written = format::encode(&record, &name, keys).expect("there is randomness");
                let again = format::decode(&written, &name, keys).map(|decoded| decoded.record);
                assert_eq!(again, Ok(record), "written as another");
            }
            Err(broken) => assert!(!broken.to_string().is_empty()),
        }
    }
    // Fixed fields: there is one way to write each.
    if let Some(calls) = calls::decode(bytes) {
        assert_eq!(calls::encode(calls), bytes, "written as another");
    }
    if let Some(mark) = calls::decode_mark(bytes) {
        assert_eq!(calls::encode_mark(mark), bytes, "written as another");
    }
}
