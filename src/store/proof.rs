//! What proves that a database holds what was written last: nothing lost, nothing older. Pure.
//!
//! Keys are spread over [`GROUPS`] groups. A [`Proof`] has, for each group, the number of the batch that
//! changed it last and a digest of all it holds. It is kept outside the database (`watermark`), where it
//! is written before a batch is answered; and in the database, group by group, in the batch itself. So
//! a group is whole if its content is what the proof outside says, or, after a crash between the two,
//! what a *later* batch inside says. One that has lost a write fits neither, however whole it looks.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::calls;

/// Into how many groups keys are spread. What is damaged costs its group: with a few sources mostly its
/// own, with ten thousand forty. As many fit into the 6 KiB that each batch writes of a proof.
pub(super) const GROUPS: usize = 256;

/// No source's name begins with this byte. What follows is the number of a group.
const PREFIX: &[u8] = b"\0sum\0";
/// Of the file, with the version of its layout.
const MAGIC: &[u8; 8] = b"WTSMARK1";
const GROUP_BYTES: usize = 8 + 16;
const CHECKSUM_BYTES: usize = 32;

/// One group of keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// The batch that changed it last; 0 if none has.
    pub(super) batch: u64,
    /// Of every key in it with its value: order does not matter, so that one change is one step.
    digest: u128,
}

impl Group {
    /// The bytes that are kept in the database.
    pub(super) fn encode(self) -> [u8; GROUP_BYTES] {
        let mut bytes = [0; GROUP_BYTES];
        bytes[..8].copy_from_slice(&self.batch.to_le_bytes());
        bytes[8..].copy_from_slice(&self.digest.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Group> {
        let (batch, digest) = bytes.split_first_chunk()?;
        let digest = digest.try_into().ok()?;
        Some(Group { batch: u64::from_le_bytes(*batch), digest: u128::from_le_bytes(digest) })
    }
}

/// The key that a group's sum is kept under in the database.
pub(super) fn sum_key(group: usize) -> Vec<u8> {
    let number = u8::try_from(group).expect("there are 256 groups");
    [PREFIX, &[number]].concat()
}

/// The group of a sum's key; `None` if the key is of another kind.
fn summed(key: &[u8]) -> Option<usize> {
    match key.strip_prefix(PREFIX)? {
        &[group] => Some(usize::from(group)),
        _ => None,
    }
}

/// Whether a key is of what proves, and not of what is proven.
pub(super) fn is_sum(key: &[u8]) -> bool {
    key.starts_with(PREFIX)
}

/// The group of a key. A record and the mark of a request for its source are in the same one: a record
/// whose mark is lost is not proven to be alive.
pub(super) fn group_of(key: &[u8]) -> usize {
    let source = calls::marked(key);
    let subject = source.as_ref().map_or(key, |source| source.as_str().as_bytes());
    usize::from(Sha256::digest(subject)[0])
}

fn digest_of(key: &[u8], value: &[u8]) -> u128 {
    let length = u64::try_from(key.len()).unwrap_or(u64::MAX);
    let sum =
        Sha256::new().chain_update(length.to_le_bytes()).chain_update(key).chain_update(value);
    let sum: [u8; 32] = sum.finalize().into();
    u128::from_le_bytes(std::array::from_fn(|at| sum[at]))
}

/// The state of every group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof(Vec<Group>);

impl Proof {
    /// Every group with its number.
    pub(super) fn groups(&self) -> impl Iterator<Item = (usize, Group)> {
        self.0.iter().copied().enumerate()
    }

    /// The number of the next batch: higher than that of any before.
    pub(super) fn next_batch(&self) -> u64 {
        self.0.iter().map(|group| group.batch).max().unwrap_or(0) + 1
    }

    /// Enters a change of a key by this batch; the changed group, with its number.
    pub(super) fn change(
        &mut self,
        batch: u64,
        key: &[u8],
        old: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> (usize, Group) {
        let at = group_of(key);
        let group = &mut self.0[at];
        for value in [old, new].into_iter().flatten() {
            group.digest ^= digest_of(key, value);
        }
        group.batch = batch;
        (at, *group)
    }

    /// What both know: of each group the later state.
    pub(super) fn merged(self, other: &Proof) -> Proof {
        let later = |(mine, theirs): (Group, &Group)| {
            if theirs.batch > mine.batch { *theirs } else { mine }
        };
        Proof(self.0.into_iter().zip(&other.0).map(later).collect())
    }

    /// The bytes of a file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        self.0.iter().for_each(|group| bytes.extend_from_slice(&group.encode()));
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// The proof of a file's bytes; `None` if they are none, or not whole.
    pub(super) fn decode(bytes: &[u8]) -> Option<Proof> {
        let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        let groups = content.strip_prefix(MAGIC)?;
        let whole =
            groups.len() == GROUPS * GROUP_BYTES && sum == Sha256::digest(content).as_slice();
        let groups = whole.then(|| groups.chunks_exact(GROUP_BYTES).map(Group::decode))?;
        groups.collect::<Option<_>>().map(Proof)
    }
}

/// What a database was found to hold, key by key.
#[derive(Debug, Default)]
pub(super) struct Content {
    digests: HashMap<usize, u128>,
    sums: HashMap<usize, Group>,
}

impl Content {
    /// Takes note of an entry.
    pub(super) fn note(&mut self, key: &[u8], value: &[u8]) {
        match summed(key) {
            Some(group) => drop(Group::decode(value).map(|sum| self.sums.insert(group, sum))),
            None => *self.digests.entry(group_of(key)).or_default() ^= digest_of(key, value),
        }
    }

    /// Believes what was found: of a database that was written before there were proofs.
    pub(super) fn believed(&self) -> Judged {
        let group = |at| match self.digests.get(&at) {
            Some(&digest) => Group { batch: 1, digest },
            None => Group::default(),
        };
        Judged { proof: Proof((0..GROUPS).map(group).collect()), lost: [false; GROUPS] }
    }

    /// Gives up all that was found: nothing is known of what was written.
    pub(super) fn unproven(&self) -> Judged {
        let highest = self.sums.values().map(|sum| sum.batch).max().unwrap_or(0);
        let lost =
            std::array::from_fn(|at| self.digests.contains_key(&at) || self.sums.contains_key(&at));
        let group = |lost| Group { batch: if lost { highest + 1 } else { 0 }, digest: 0 };
        Judged { proof: Proof(lost.map(group).to_vec()), lost }
    }

    /// Holds what was found against what is known to have been written.
    pub(super) fn judged(&self, known: &Proof) -> Judged {
        let mut lost = [false; GROUPS];
        let next = known.next_batch();
        let mut verdict = |at: usize| {
            let digest = self.digests.get(&at).copied().unwrap_or_default();
            let known = known.0[at];
            let later = self.sums.get(&at).filter(|sum| sum.batch > known.batch);
            match later {
                Some(sum) if sum.digest == digest => *sum,
                _ if known.digest == digest => known,
                _ => {
                    lost[at] = true;
                    // It is empty from now on. Numbered, so that what is lost stays lost if it should
                    // turn up again.
                    Group { batch: next.max(later.map_or(0, |sum| sum.batch + 1)), digest: 0 }
                }
            }
        };
        let proof = Proof((0..GROUPS).map(&mut verdict).collect());
        Judged { proof, lost }
    }
}

/// What is proven of a database.
#[derive(Debug)]
pub(super) struct Judged {
    /// Of what is left: what is lost is not in it.
    pub(super) proof: Proof,
    lost: [bool; GROUPS],
}

impl Judged {
    /// How many groups are lost.
    pub(super) fn lost(&self) -> usize {
        self.lost.iter().filter(|lost| **lost).count()
    }

    /// Whether what a key has is what was written last.
    pub(super) fn is_whole(&self, key: &[u8]) -> bool {
        !self.lost[group_of(key)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SourceName;

    /// A database as a list, with the proof inside, and the one outside.
    #[derive(Clone)]
    struct World {
        entries: HashMap<Vec<u8>, Vec<u8>>,
        outside: Proof,
    }

    impl World {
        fn new() -> World {
            World { entries: HashMap::new(), outside: Proof(vec![Group::default(); GROUPS]) }
        }

        fn put(&mut self, key: &str, value: Option<&str>) {
            let batch = self.outside.next_batch();
            let (key, new) = (key.as_bytes().to_vec(), value.map(|value| value.as_bytes()));
            let old = match new {
                Some(new) => self.entries.insert(key.clone(), new.to_vec()),
                None => self.entries.remove(&key),
            };
            let (at, group) = self.outside.change(batch, &key, old.as_deref(), new);
            self.entries.insert(sum_key(at), group.encode().to_vec());
        }

        fn judged(&self, known: &Proof) -> Judged {
            let mut content = Content::default();
            self.entries.iter().for_each(|(key, value)| content.note(key, value));
            content.judged(known)
        }
    }

    #[test]
    fn what_was_written_last_is_whole_and_what_was_before_is_not() {
        let mut world = World::new();
        world.put("a", Some("1"));
        world.put("b", Some("1"));
        let before = world.clone();
        world.put("a", Some("2"));
        let judged = world.judged(&world.outside);
        assert_eq!((judged.lost(), &judged.proof), (0, &world.outside));

        // Rolled back, as whole as it was: `a` is older than what is known, `b` is not.
        let judged = before.judged(&world.outside);
        assert!(!judged.is_whole(b"a") && judged.is_whole(b"b"));
        assert_eq!(judged.lost(), 1);
        // What was given up stays given up, should it turn up again.
        assert!(!world.judged(&judged.proof).is_whole(b"a"));
    }

    #[test]
    fn a_batch_that_a_crash_kept_from_the_proof_is_whole() {
        let mut world = World::new();
        world.put("a", Some("1"));
        let outside = world.outside.clone();
        world.put("a", Some("2"));
        world.put("a", None);
        let judged = world.judged(&outside);
        assert_eq!((judged.lost(), judged.proof), (0, world.outside));
    }

    #[test]
    fn what_is_missing_changed_or_back_again_is_lost() {
        let mut world = World::new();
        world.put("a", Some("1"));
        world.put("gone", Some("1"));
        world.put("gone", None);
        for damage in [
            |entries: &mut HashMap<_, _>| drop(entries.remove(&b"a"[..])),
            |entries: &mut HashMap<_, _>| drop(entries.insert(b"a".to_vec(), b"2".to_vec())),
            |entries: &mut HashMap<_, _>| drop(entries.insert(b"gone".to_vec(), b"1".to_vec())),
        ] {
            let mut damaged = world.clone();
            damage(&mut damaged.entries);
            assert_eq!(damaged.judged(&world.outside).lost(), 1);
        }
        // Damaged sums cost nothing where the proof outside is enough.
        let mut damaged = world.clone();
        damaged.entries.retain(|key, _| !is_sum(key));
        assert_eq!(damaged.judged(&world.outside).lost(), 0);
        assert_eq!(Content::default().judged(&world.outside).lost(), 1, "`gone` is whole");
    }

    #[test]
    fn a_mark_is_in_the_group_of_its_record() {
        for name in ["a", "公众号", "access_token"] {
            let mark = calls::mark_key(&SourceName::parse(name).unwrap());
            assert_eq!(group_of(&mark), group_of(name.as_bytes()));
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written_or_not_at_all() {
        let mut world = World::new();
        world.put("a", Some("1"));
        world.put("b", Some("1"));
        let bytes = world.outside.encode();
        assert_eq!(Proof::decode(&bytes), Some(world.outside));
        assert_eq!(bytes.len(), 8 + 24 * 256 + 32);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(Proof::decode(&flipped), None, "byte {at}");
        }
        assert_eq!(Proof::decode(&bytes[..40]), None);
        assert_eq!(Proof::decode(&[]), None);
    }
}
