//! What a row of the command table says, and how a row is found. The rows are in `table`.

use crate::resp::command::{Context, Outcome};
use crate::resp::parse::Args;

/// Runs a command whose arity and authorisation have been checked.
type Run = fn(&mut Context<'_>, Args<'_>) -> Outcome;

/// One command, or one subcommand.
#[derive(Debug)]
pub(super) struct CommandSpec {
    /// Its name, in lower case.
    pub(super) name: &'static str,
    /// How many words it has, its name included (and its container's); negative: at least so many.
    pub(super) arity: i32,
    /// Flags as COMMAND INFO shows them; `no_auth` is the one that decides something here.
    pub(super) flags: &'static [&'static str],
    /// Which of its words are keys.
    pub(super) keys: Keys,
    /// ACL categories.
    pub(super) categories: &'static [&'static str],
    /// Hints for clients of a cluster.
    pub(super) tips: &'static [&'static str],
    /// Its group in the documentation.
    pub(super) group: &'static str,
    /// The version of Redis that had it first.
    pub(super) since: &'static str,
    /// What it costs.
    pub(super) complexity: &'static str,
    /// What it does.
    pub(super) summary: &'static str,
    /// The words after its name.
    pub(super) usage: &'static str,
    /// What runs it; `None` for a container, whose subcommands do.
    pub(super) run: Option<Run>,
    /// Its subcommands, sorted by name.
    pub(super) subcommands: &'static [CommandSpec],
}

/// Where the keys of a command are among its words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    /// The first key; 0: there is none.
    pub(super) first: i64,
    /// The last key; -1: the last word.
    pub(super) last: i64,
    /// From one key to the next.
    pub(super) step: i64,
    /// What is done to them, as COMMAND INFO shows it.
    pub(super) access: &'static [&'static str],
}

impl Keys {
    /// None of them.
    pub(super) const NONE: Keys = Keys { first: 0, last: 0, step: 0, access: &[] };
    /// The word after the name; what it holds or its life is sent.
    pub(super) const ONE_READ: Keys =
        Keys { first: 1, last: 1, step: 1, access: &["RO", "access"] };
    /// All words after the name; what they hold is sent.
    pub(super) const ALL_READ: Keys =
        Keys { first: 1, last: -1, step: 1, access: &["RO", "access"] };
    /// The word after the name; only whether it is there, or its kind or length, is told.
    pub(super) const ONE_LOOKED_UP: Keys = Keys { first: 1, last: 1, step: 1, access: &["RO"] };
    /// All words after the name; only whether they are there is told.
    pub(super) const ALL_LOOKED_UP: Keys = Keys { first: 1, last: -1, step: 1, access: &["RO"] };
}

impl CommandSpec {
    /// What a row leaves out.
    pub(super) const EMPTY: CommandSpec = CommandSpec {
        name: "",
        arity: 0,
        flags: &[],
        keys: Keys::NONE,
        categories: &[],
        tips: &[],
        group: "",
        since: "",
        complexity: "O(1)",
        summary: "",
        usage: "",
        run: None,
        subcommands: &[],
    };

    /// Whether a client may send it before it has authenticated.
    pub(super) fn runs_before_auth(&self) -> bool {
        self.flags.contains(&"no_auth")
    }
}

/// Finds a name, whatever its case, in a table of subcommands, which is short.
pub(super) fn find(table: &'static [CommandSpec], name: &[u8]) -> Option<&'static CommandSpec> {
    table.iter().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
}

/// For each letter, where the commands that begin with it begin in a sorted table, and after the
/// last letter its end.
#[derive(Debug)]
pub(super) struct Index {
    starts: [u8; LETTERS + 1],
}

const LETTERS: usize = 26;

impl Index {
    /// Reads a table whose names begin with lower-case letters.
    pub(super) const fn of(table: &[CommandSpec]) -> Index {
        assert!(table.len() <= u8::MAX as usize, "positions are bytes");
        let mut starts = [0; LETTERS + 1];
        let (mut letter, mut at) = (0, 0);
        while letter <= LETTERS {
            while at < table.len() && ((table[at].name.as_bytes()[0] - b'a') as usize) < letter {
                at += 1;
            }
            starts[letter] = at as u8;
            letter += 1;
        }
        Index { starts }
    }

    /// Finds a name, whatever its case, in the table this was made of. A search through the whole
    /// table would cost more than running the command does, in a long pipeline.
    pub(super) fn find(
        &self,
        table: &'static [CommandSpec],
        name: &[u8],
    ) -> Option<&'static CommandSpec> {
        let letter = usize::from(name.first()?.to_ascii_lowercase().wrapping_sub(b'a'));
        let end = *self.starts.get(letter + 1)?;
        let rows = &table[usize::from(self.starts[letter])..usize::from(end)];
        rows.iter().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::command::table::COMMANDS;

    fn check(table: &'static [CommandSpec], container: Option<&CommandSpec>) {
        assert!(table.is_sorted_by(|a, b| a.name < b.name));
        for spec in table {
            let name = spec.name;
            assert_eq!(name, name.to_lowercase());
            assert!(spec.arity != 0, "{name}");
            assert!(!spec.summary.is_empty() && !spec.group.is_empty(), "{name} says nothing");
            assert!(!spec.since.is_empty() && !spec.categories.is_empty(), "{name}");
            // A container without a function is never run: its arity asks for a subcommand.
            assert!(spec.run.is_some() || spec.arity <= -2, "{name}");
            assert!(container.is_none() || spec.arity.abs() >= 2, "{name}");
            let upper = name.to_uppercase();
            assert_eq!(find(table, upper.as_bytes()).map(|found| found.name), Some(name));
            check(spec.subcommands, Some(spec));
        }
    }

    #[test]
    fn the_table_is_sorted_and_every_row_documented() {
        check(COMMANDS, None);
        assert!(find(COMMANDS, b"").is_none());
    }

    #[test]
    fn every_command_is_found_by_its_letter_and_nothing_else_is() {
        let index = Index::of(COMMANDS);
        for spec in COMMANDS {
            for name in [spec.name.to_owned(), spec.name.to_uppercase()] {
                let found = index.find(COMMANDS, name.as_bytes()).map(|found| found.name);
                assert_eq!(found, Some(spec.name));
            }
            for wrong in [format!("{}x", spec.name), spec.name[1..].to_owned()] {
                let expected = COMMANDS.iter().any(|other| other.name == wrong);
                assert_eq!(index.find(COMMANDS, wrong.as_bytes()).is_some(), expected, "{wrong}");
            }
        }
        for first in 0..=u8::MAX {
            assert!(
                index.find(COMMANDS, &[first]).is_none() && index.find(COMMANDS, b"").is_none()
            );
        }
    }
}
