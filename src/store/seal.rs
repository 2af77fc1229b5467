//! Seals the content of a record with the operator's key, and opens it. The only file that names ring.
//!
//! An **envelope** is: eight bytes that name the key, the generation in clear (eight bytes, little
//! endian), a nonce of twelve bytes that is drawn for each write, then the content under
//! ChaCha20-Poly1305 (RFC 8439) and its tag. The tag also covers the format's version, the key's name,
//! the generation and the name of the source: a record that is copied to another source, or given
//! another generation, does not open.
//!
//! The key itself is drawn from the configured text by HKDF-SHA256 (RFC 5869), and so is its name, which
//! tells a wrong key from a damaged record and tells nothing of the key.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use crate::token::{Generation, Secret, SourceName};

/// The version of a record whose content is sealed.
pub(super) const VERSION: u8 = 3;

/// What the derivations are for. Never changed: records in the field are sealed with what they give.
const SALT: &[u8] = b"wechat-token-server store 1";
const FOR_KEY: &[u8] = b"record";
const FOR_ID: &[u8] = b"key id";

const ID_BYTES: usize = 8;
const GENERATION_BYTES: usize = 8;
/// What stands before the sealed content, in clear.
const HEAD_BYTES: usize = ID_BYTES + GENERATION_BYTES + NONCE_LEN;
const TAG_BYTES: usize = 16;

/// A nonce, to be used once.
pub(super) type NonceBytes = [u8; NONCE_LEN];

/// Names a key where the key must not be shown: in a record, in a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; ID_BYTES]);

impl KeyId {
    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a record is sealed with.
pub(super) struct Key {
    id: KeyId,
    key: LessSafeKey,
}

impl Key {
    fn new(text: &Secret) -> Key {
        let drawn = Salt::new(HKDF_SHA256, SALT).extract(text.expose().as_bytes());
        let short = "the length is far below the most that HKDF gives";
        let key: UnboundKey = drawn.expand(&[FOR_KEY], &CHACHA20_POLY1305).expect(short).into();
        let mut id = [0; ID_BYTES];
        let name = drawn.expand(&[FOR_ID], IdLength).expect(short);
        name.fill(&mut id).expect("it has the length that was asked for");
        Key { id: KeyId(id), key: LessSafeKey::new(key) }
    }

    /// Names it.
    pub(super) fn id(&self) -> KeyId {
        self.id
    }

    /// The envelope of `content`. A nonce must never be used twice with one key.
    pub(super) fn seal(
        &self,
        name: &SourceName,
        generation: Generation,
        nonce: NonceBytes,
        content: &[u8],
    ) -> Vec<u8> {
        // As large as it will be, so that no copy of the content is left behind by growing.
        let mut envelope = Vec::with_capacity(HEAD_BYTES + content.len() + TAG_BYTES);
        envelope.extend_from_slice(&self.id.0);
        envelope.extend_from_slice(&generation.0.to_le_bytes());
        envelope.extend_from_slice(&nonce);
        envelope.extend_from_slice(content);
        let bound = Aad::from(bound(self.id, generation, name));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, bound, &mut envelope[HEAD_BYTES..])
            .expect("a record is far below the most that the cipher takes, 256 GiB");
        envelope.extend_from_slice(tag.as_ref());
        envelope
    }
}

/// The length of a key's name, as ring asks for it.
struct IdLength;

impl KeyType for IdLength {
    fn len(&self) -> usize {
        ID_BYTES
    }
}

/// What the tag covers beside the content. Everything before the name has a fixed length, so no two
/// records have the same bytes.
fn bound(id: KeyId, generation: Generation, name: &SourceName) -> Vec<u8> {
    let name = name.as_str().as_bytes();
    [&[VERSION][..], &id.0, &generation.0.to_le_bytes(), name].concat()
}

/// Why an envelope does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unopened {
    /// It is shorter than any envelope.
    TooShort,
    /// It is sealed with a key that is not at hand.
    UnknownKey(KeyId),
    /// The key is at hand, but the tag does not match: it was changed, or is another source's.
    Broken,
}

/// The keys that records are sealed with. Without a current one they are kept in plain.
#[derive(Default)]
pub struct Keys {
    current: Option<Key>,
    old: Vec<Key>,
}

impl Keys {
    /// The key that records are sealed with from now on, and those that they may be sealed with.
    pub fn new(current: Option<&Secret>, old: &[Secret]) -> Keys {
        Keys { current: current.map(Key::new), old: old.iter().map(Key::new).collect() }
    }

    /// What new records are sealed with.
    pub(super) fn current(&self) -> Option<&Key> {
        self.current.as_ref()
    }

    /// Names what new records are sealed with.
    pub(super) fn current_id(&self) -> Option<KeyId> {
        self.current.as_ref().map(Key::id)
    }

    /// The content of an envelope, and which key it was sealed with.
    pub(super) fn open(
        &self,
        name: &SourceName,
        envelope: &[u8],
    ) -> Result<(Zeroizing<Vec<u8>>, KeyId), Unopened> {
        let (id, rest) = envelope.split_first_chunk().ok_or(Unopened::TooShort)?;
        let (generation, rest) = rest.split_first_chunk().ok_or(Unopened::TooShort)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Unopened::TooShort)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(Unopened::TooShort)?;
        let id = KeyId(*id);
        let mut keys = self.current.iter().chain(&self.old);
        let key = keys.find(|key| key.id == id).ok_or(Unopened::UnknownKey(id))?;
        let bound = bound(id, Generation(u64::from_le_bytes(*generation)), name);
        let mut content = Zeroizing::new(sealed.to_vec());
        key.key
            .open_in_place_separate_tag(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(bound),
                Tag::from(*tag),
                &mut content,
                0..,
            )
            .map_err(|_| Unopened::Broken)?;
        Ok((content, id))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(name: &str) -> SourceName {
        SourceName::parse(name).unwrap()
    }

    fn keys(current: &str, old: &[&str]) -> Keys {
        let old: Vec<Secret> = old.iter().map(|text| Secret::new(*text)).collect();
        Keys::new(Some(&Secret::new(current)), &old)
    }

    fn seal(keys: &Keys, source: &str, generation: u64, content: &[u8]) -> Vec<u8> {
        let key = keys.current().unwrap();
        key.seal(&name(source), Generation(generation), [9; NONCE_LEN], content)
    }

    #[test]
    fn a_key_is_named_as_ever_and_shown_never() {
        let keys = keys("0123456789abcdef", &[]);
        assert_eq!(keys.current_id().unwrap().to_string(), "c11d001842daf944");
        assert_eq!(format!("{keys:?}"), "Keys(..)");
    }

    #[test]
    fn an_envelope_opens_for_its_source_and_key_only() {
        let sealed = seal(&keys("first-key", &[]), "a", 5, b"content");
        let first = keys("first-key", &[]).current_id().unwrap();
        let opened = |keys: &Keys, source: &str| {
            keys.open(&name(source), &sealed).map(|(content, id)| (content.to_vec(), id))
        };
        let content = b"content".to_vec();
        for (given, source, expected) in [
            (keys("first-key", &[]), "a", Ok((content.clone(), first))),
            (keys("next-key", &["other", "first-key"]), "a", Ok((content, first))),
            (keys("next-key", &["other"]), "a", Err(Unopened::UnknownKey(first))),
            (Keys::default(), "a", Err(Unopened::UnknownKey(first))),
            (keys("first-key", &[]), "b", Err(Unopened::Broken)),
        ] {
            assert_eq!(opened(&given, source), expected);
        }
    }

    #[test]
    fn the_same_content_is_sealed_otherwise_with_another_nonce() {
        let keys = keys("key", &[]);
        let key = keys.current().unwrap();
        let sealed = |nonce| key.seal(&name("a"), Generation(1), [nonce; NONCE_LEN], b"content");
        assert_ne!(sealed(1)[HEAD_BYTES..], sealed(2)[HEAD_BYTES..]);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_any_change_is_noticed(
            content in proptest::collection::vec(any::<u8>(), 0..300),
            generation: u64,
            at: prop::sample::Index,
            bit in 0..8_u8,
        ) {
            let keys = keys("key", &[]);
            let sealed = seal(&keys, "a", generation, &content);
            prop_assert_eq!(&**keys.open(&name("a"), &sealed).unwrap().0, &content[..]);
            if content.len() > 8 {
                prop_assert!(!sealed.windows(content.len()).any(|part| part == content));
            }
            let at = at.index(sealed.len());
            let mut changed = sealed.clone();
            changed[at] ^= 1 << bit;
            let error = keys.open(&name("a"), &changed).unwrap_err();
            prop_assert_eq!(matches!(error, Unopened::UnknownKey(_)), at < ID_BYTES);
            prop_assert!(keys.open(&name("a"), &sealed[..at]).is_err());
        }

        #[test]
        fn any_bytes_open_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(keys("key", &[]).open(&name("a"), &bytes).is_err());
        }
    }
}
