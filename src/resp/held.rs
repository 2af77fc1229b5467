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

/// Where others than who brought it over the limit must go, it is brought down to this part of it: not each
/// byte that comes next is to be a reason to look at everybody.
const RELIEVED: (usize, usize) = (7, 8);

/// What is held, in bytes.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By all, strangers included.
    all: AtomicUsize,
    strangers: AtomicUsize,
    /// How many strangers hold anything.
    holding_strangers: AtomicUsize,
}

/// Who must go after a connection has taken more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// Nobody: there is room.
    None,
    /// The connection itself.
    Own,
    /// Those who hold most; see [`must_go`].
    OfOthers,
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
        let (strange_before, strange_after) = (of_stranger(before), of_stranger(after));
        for (total, before, after) in [
            (&self.all, before.bytes, after.bytes),
            (&self.strangers, strange_before, strange_after),
            (&self.holding_strangers, strange_before.min(1), strange_after.min(1)),
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

    /// Who must go, now that one connection holds `latest`. A stranger who brings it over the limit and holds
    /// no less than strangers do on average goes itself: so thousands who come and hold as much as they
    /// may cost no look at everybody, nor do many of them go, and come back, in the same moment.
    pub(super) fn excess(&self, latest: Holding) -> Excess {
        if !self.is_too_much() {
            return Excess::None;
        }
        let strangers = self.strangers.load(Ordering::Relaxed);
        let holding = self.holding_strangers.load(Ordering::Relaxed);
        if latest.by_stranger
            && strangers > MOST_HELD_BEFORE_AUTH
            && latest.bytes.saturating_mul(holding) >= strangers
        {
            return Excess::Own;
        }
        Excess::OfOthers
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

    /// Takes a connection's holding over; says who must go.
    fn grows(held: &Held, before: Holding, after: Holding) -> Excess {
        held.change(before, after);
        held.excess(after)
    }

    #[test]
    fn the_stranger_who_brings_it_over_the_limit_goes_unless_others_hold_more() {
        let stranger = |bytes| Holding { bytes, by_stranger: true };
        let nothing = Holding::default();
        let held = Held::default();
        for _ in 0..127 {
            assert_eq!(grows(&held, nothing, stranger(16 * 1024)), Excess::None);
        }
        assert_eq!(grows(&held, nothing, stranger(100)), Excess::None);
        assert_eq!(grows(&held, nothing, stranger(16 * 1024)), Excess::Own, "one like the others");
        held.change(stranger(16 * 1024), nothing);
        // It finishes what it began, and one that holds little is no reason to go.
        assert_eq!(grows(&held, stranger(100), nothing), Excess::None);
        assert_eq!(grows(&held, nothing, stranger(16 * 1024 - 50)), Excess::None);
        assert_eq!(grows(&held, nothing, stranger(100)), Excess::OfOthers, "a small one");
        let known = Holding { bytes: 1024, by_stranger: false };
        assert_eq!(grows(&held, nothing, known), Excess::OfOthers, "somebody known");
    }

    proptest! {
        /// Whatever strangers come and grow: they never hold more than they may once those have gone who
        /// must, and none goes itself while those who stay could hold twice as much on average.
        #[test]
        fn strangers_never_hold_too_much(
            steps in proptest::collection::vec((0_usize..300, 0_usize..40_000), 0..600)
        ) {
            let held = Held::default();
            let mut holdings = vec![Holding { bytes: 0, by_stranger: true }; 300];
            for (who, bytes) in steps {
                let after = Holding { bytes, by_stranger: true };
                let excess = grows(&held, holdings[who], after);
                holdings[who] = after;
                let gone = match excess {
                    Excess::None => Vec::new(),
                    Excess::Own => vec![who],
                    Excess::OfOthers => must_go(&holdings),
                };
                if excess == Excess::Own {
                    let holding = holdings.iter().filter(|holding| holding.bytes > 0).count();
                    let all: usize = holdings.iter().map(|holding| holding.bytes).sum();
                    prop_assert!(bytes >= all / holding);
                }
                for at in gone {
                    held.change(holdings[at], Holding::default());
                    holdings[at].bytes = 0;
                }
                prop_assert!(!held.is_too_much());
            }
        }

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
