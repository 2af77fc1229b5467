//! What one client caches, by CLIENT TRACKING: which of the tokens it has read it must be told of when
//! they change. Decides; sends nothing.

use std::collections::HashSet;

use crate::token::SourceName;

/// Which reads are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Remembers {
    /// All.
    #[default]
    All,
    /// Those right after `CLIENT CACHING YES`.
    OptIn,
    /// All but those right after `CLIENT CACHING NO`.
    OptOut,
    /// None: the client is told of every key with one of its prefixes, read or not.
    Broadcast,
}

/// What a client asked for.
#[derive(Debug, Default)]
pub(super) struct Tracking {
    /// Which reads are remembered.
    pub(super) remembers: Remembers,
    /// Whether the client does not want to hear of its own changes. It makes none; kept to be told.
    pub(super) no_loop: bool,
    /// Which connection is told in the place of this one.
    pub(super) to: Option<u64>,
    /// Whether that connection has gone.
    pub(super) broken: bool,
    /// The prefixes of [`Remembers::Broadcast`], sorted.
    pub(super) prefixes: Vec<Vec<u8>>,
    /// What was read and not told of since.
    keys: HashSet<SourceName>,
}

impl Tracking {
    /// The number of the connection that is told, 0 for this one.
    pub(super) fn redirect(&self) -> i64 {
        self.to.map_or(0, |id| i64::try_from(id).unwrap_or(i64::MAX))
    }

    /// Notes that the client has read a key. `caching`: whether CLIENT CACHING came right before.
    pub(super) fn remember(&mut self, source: SourceName, caching: bool) {
        let remembers = match self.remembers {
            Remembers::All => true,
            Remembers::OptIn => caching,
            Remembers::OptOut => !caching,
            Remembers::Broadcast => false,
        };
        if remembers {
            self.keys.insert(source);
        }
    }

    /// Whether the client must be told that this source's token has changed. It is told once for all
    /// the times that it has read it.
    pub(super) fn must_tell(&mut self, source: &SourceName) -> bool {
        if self.remembers == Remembers::Broadcast {
            let name = source.as_str().as_bytes();
            return self.prefixes.iter().any(|prefix| name.starts_with(prefix));
        }
        self.keys.remove(source)
    }

    /// What it takes, in bytes: about.
    pub(super) fn size(&self) -> usize {
        const ROW_BYTES: usize = 64;
        (self.prefixes.len() + self.keys.capacity()) * ROW_BYTES
    }

    /// Forgets all that was read.
    pub(super) fn forget(&mut self) {
        self.keys = HashSet::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> SourceName {
        SourceName::parse(name).unwrap()
    }

    #[test]
    fn each_mode_remembers_what_it_should() {
        for (remembers, caching, told) in [
            (Remembers::All, false, true),
            (Remembers::OptIn, false, false),
            (Remembers::OptIn, true, true),
            (Remembers::OptOut, false, true),
            (Remembers::OptOut, true, false),
        ] {
            let mut tracking = Tracking { remembers, ..Tracking::default() };
            tracking.remember(name("t"), caching);
            assert_eq!(tracking.must_tell(&name("t")), told, "{remembers:?} {caching}");
            assert!(!tracking.must_tell(&name("t")), "told once");
        }
    }

    #[test]
    fn a_broadcast_goes_by_prefix_each_time() {
        let prefixes = vec![b"app1:".to_vec(), b"app2:".to_vec()];
        let mut tracking =
            Tracking { remembers: Remembers::Broadcast, prefixes, ..Tracking::default() };
        for (source, told) in [("app1:t", true), ("app2:t", true), ("app3:t", false)] {
            assert_eq!(tracking.must_tell(&name(source)), told);
            assert_eq!(tracking.must_tell(&name(source)), told);
        }
    }
}
