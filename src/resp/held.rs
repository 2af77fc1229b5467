//! How much memory the clients' own doing holds: requests that have not arrived in full, replies and
//! messages that are not taken, transactions, subscriptions. Together it is bounded, whatever each of
//! them may hold; where it is too much, those who hold most are cut, as Redis does (`maxmemory-clients`).
//! Counts and chooses; closes nothing. What a connection costs when it is silent is not in it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What all connections may hold together, in bytes: an eighth of a small machine, and room for dozens
/// of the largest requests.
pub(super) const MOST_HELD: usize = 64 * 1024 * 1024;

/// What those may hold together of whom it is not known who they are: handshakes are short, and half of
/// one arrives seldom.
pub(super) const MOST_HELD_BEFORE_AUTH: usize = 2 * 1024 * 1024;

/// Where it was too much, it is brought down to this part of the limit: not each byte that comes next
/// is to be a reason to look at everybody.
const RELIEVED: (usize, usize) = (7, 8);

/// What is held, in bytes.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By all, strangers included.
    all: AtomicUsize,
    strangers: AtomicUsize,
}

/// What one connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Holding {
    /// How many bytes.
    pub(super) bytes: usize,
    /// Whether it is not known who it is.
    pub(super) by_stranger: bool,
}

impl Held {
    /// Takes over that a connection holds `after` in the place of `before`.
    pub(super) fn change(&self, before: Holding, after: Holding) {
        let of_stranger = |holding: Holding| if holding.by_stranger { holding.bytes } else { 0 };
        for (total, before, after) in [
            (&self.all, before.bytes, after.bytes),
            (&self.strangers, of_stranger(before), of_stranger(after)),
        ] {
            // The sum is right at the end of both; it orders nothing else.
            total.fetch_add(after, Ordering::Relaxed);
            total.fetch_sub(before, Ordering::Relaxed);
        }
    }

    /// Whether it is too much.
    pub(super) fn is_too_much(&self) -> bool {
        self.all.load(Ordering::Relaxed) > MOST_HELD
            || self.strangers.load(Ordering::Relaxed) > MOST_HELD_BEFORE_AUTH
    }
}

/// Who must go so that those who stay do not hold too much: the largest first, strangers before those
/// who are known. Says where they are among `holdings`.
pub(super) fn must_go(holdings: &[Holding]) -> Vec<usize> {
    let mut by_size: Vec<usize> = (0..holdings.len()).collect();
    by_size.sort_by_key(|at| std::cmp::Reverse(holdings[*at].bytes));
    let mut gone = Vec::new();
    for (most, strangers_only) in [(MOST_HELD_BEFORE_AUTH, true), (MOST_HELD, false)] {
        let counts = |at: usize| holdings[at].by_stranger || !strangers_only;
        let staying = by_size.iter().filter(|at| counts(**at) && !gone.contains(*at));
        let mut sum: usize = staying.map(|at| holdings[*at].bytes).sum();
        if sum <= most {
            continue;
        }
        let (part, whole) = RELIEVED;
        for at in by_size.iter().copied().filter(|at| counts(*at)) {
            if sum <= most / whole * part {
                break;
            }
            if !gone.contains(&at) {
                sum -= holdings[at].bytes;
                gone.push(at);
            }
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_go_and_the_small_stay() {
        let known = |bytes| Holding { bytes, by_stranger: false };
        let mega = 1024 * 1024;
        let holdings = [known(100), known(40 * mega), known(2 * mega), known(30 * mega)];
        assert_eq!(must_go(&holdings), [1]);
        assert!(must_go(&holdings[..2]).is_empty());
    }

    #[test]
    fn strangers_have_their_own_smaller_limit() {
        let stranger = Holding { bytes: 16 * 1024, by_stranger: true };
        let known = Holding { bytes: 20 * 1024 * 1024, by_stranger: false };
        let mut holdings = vec![stranger; 129];
        holdings.insert(0, known);
        let gone = must_go(&holdings);
        assert_eq!(gone.len(), 129 - 112, "an eighth of the limit");
        assert!(!gone.contains(&0));
    }

    proptest! {
        #[test]
        fn those_who_stay_hold_little_enough(
            sizes in proptest::collection::vec((0_usize..4_000_000, any::<bool>()), 0..200)
        ) {
            let holdings: Vec<Holding> = sizes
                .into_iter()
                .map(|(bytes, by_stranger)| Holding { bytes, by_stranger })
                .collect();
            let held = Held::default();
            holdings.iter().for_each(|holding| held.change(Holding::default(), *holding));
            let was_too_much = held.is_too_much();
            let mut gone = must_go(&holdings);
            prop_assert_eq!(was_too_much, !gone.is_empty());
            for at in &gone {
                held.change(holdings[*at], Holding::default());
            }
            prop_assert!(!held.is_too_much());
            gone.sort_unstable();
            gone.dedup();
            prop_assert!(gone.len() <= holdings.len());
        }
    }
}
