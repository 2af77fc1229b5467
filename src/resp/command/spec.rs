//! What a row of the command table says, and how a row is found. The rows are in `table`.

use crate::resp::command::{Context, Outcome};
use crate::resp::parse::{Args, integer};

/// Runs a command whose arity and authorisation have been checked.
pub(super) type Run = fn(&mut Context<'_>, Args<'_>) -> Outcome;

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
    /// Which of its words are keys, said the long way of Redis 7 where `keys` cannot say it all.
    pub(super) key_specs: &'static [KeySpec],
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

impl Keys {
    /// The keys among a request's words.
    pub(super) fn of<'a>(self, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> {
        let len = i64::try_from(args.len()).unwrap_or(i64::MAX);
        let last = if self.last < 0 { len + self.last } else { self.last };
        let at = move |position: i64| usize::try_from(position).ok().and_then(|at| args.get(at));
        let positions = (self.first..=last).step_by(usize::try_from(self.step).unwrap_or(1).max(1));
        positions.filter(move |_| self.first > 0).filter_map(at)
    }
}

/// Some of the keys of a command, as Redis 7 describes them.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeySpec {
    /// What people should know.
    pub(super) notes: &'static str,
    /// What is done to them.
    pub(super) access: &'static [&'static str],
    /// Where to begin.
    pub(super) begin: Begin,
    /// How to find them from there.
    pub(super) find: Find,
}

impl KeySpec {
    /// Which of a request's words these are; none where the words say nonsense.
    fn positions(&self, args: Args<'_>) -> Vec<usize> {
        let short = |number: i64| usize::try_from(number).ok();
        let begin = match self.begin {
            Begin::Index(at) => short(at),
            Begin::Keyword(word, from) => short(from).and_then(|from| {
                let mut words = args.from(from);
                let at = words.position(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))?;
                Some(from + at + 1)
            }),
            Begin::Unknown => None,
        };
        let Some(begin) = begin.filter(|begin| *begin < args.len()) else { return Vec::new() };
        let positions = match self.find {
            Find::Range { last, step, limit } => {
                let len = args.len() - begin;
                let count = match (last, limit) {
                    (-1, 2..) => len / short(limit).unwrap_or(1),
                    (..0, _) => len.saturating_sub(short(-last - 1).unwrap_or(0)),
                    _ => short(last).unwrap_or(0) + 1,
                };
                (begin..begin + count, step)
            }
            Find::Count { count, first, step } => {
                let count = short(count).and_then(|at| integer(args.get(begin + at)?));
                let count = count.and_then(short).filter(|count| *count <= args.len());
                let first = begin + short(first).unwrap_or(0);
                (first..first + count.unwrap_or(0), step)
            }
            Find::Unknown => return Vec::new(),
        };
        let (range, step) = positions;
        if range.end > args.len() {
            return Vec::new();
        }
        range.step_by(short(step).unwrap_or(1).max(1)).collect()
    }
}

/// Where the search for keys begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin {
    /// At the word of this number.
    Index(i64),
    /// After this word, which is looked for from the word of this number on.
    Keyword(&'static str, i64),
    /// Nobody knows.
    Unknown,
}

/// How keys are found from the [`Begin`] on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Find {
    /// Up to the last one; `limit` is the part of the words that is keys, 2 for a half.
    Range { last: i64, step: i64, limit: i64 },
    /// A word says how many.
    Count { count: i64, first: i64, step: i64 },
    /// Nobody knows.
    Unknown,
}

impl CommandSpec {
    /// What a row leaves out.
    pub(super) const EMPTY: CommandSpec = CommandSpec {
        name: "",
        arity: 0,
        flags: &[],
        keys: Keys::NONE,
        key_specs: &[],
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

    /// The keys among a request's words, each with what is done to it.
    pub(super) fn keys_in<'a>(&self, args: Args<'a>) -> Vec<(&'a [u8], &'static [&'static str])> {
        if self.key_specs.is_empty() {
            return self.keys.of(args).map(|key| (key, self.keys.access)).collect();
        }
        let keys = self.key_specs.iter().flat_map(|spec| {
            spec.positions(args).into_iter().filter_map(|at| Some((args.get(at)?, spec.access)))
        });
        keys.collect()
    }

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
    use std::fmt::Write as _;

    use super::*;
    use crate::resp::command::foreign::FOREIGN;
    use crate::resp::command::reports::REPORTS;
    use crate::resp::command::table::COMMANDS;
    use crate::resp::command::writes::WRITES;
    use crate::resp::command::{TABLES, find_command};

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
        for table in TABLES {
            check(table, None);
            assert!(find(table, b"").is_none());
        }
    }

    #[test]
    fn no_name_is_in_two_tables() {
        for spec in TABLES.into_iter().flatten() {
            let found = find_command(spec.name.as_bytes()).unwrap();
            assert!(std::ptr::eq(found, spec), "{} is there twice", spec.name);
            assert!(WRITES.iter().all(|(write, _)| *write != spec.name), "{} writes", spec.name);
        }
    }

    /// The commands as docs/protocol.md lists them.
    fn listed() -> String {
        let mut text = String::new();
        let rows = |table: &'static [CommandSpec], text: &mut String| {
            text.push_str("| command | what it does |\n|---|---|\n");
            for spec in table {
                let subs = spec.subcommands.iter().filter(|sub| sub.name != "help");
                let subs = subs.map(|sub| (format!("{} {}", spec.name, sub.name), sub));
                let own = spec.run.map(|_| (spec.name.to_owned(), spec));
                for (name, spec) in own.into_iter().chain(subs) {
                    let usage = spec.usage.replace('|', "\\|");
                    let usage = if spec.subcommands.is_empty() { usage } else { String::new() };
                    let words = format!("{} {usage}", name.to_uppercase());
                    let summary = spec.summary.trim_end_matches('.');
                    writeln!(text, "| `{}` | {summary} |", words.trim_end()).unwrap();
                }
            }
        };
        rows(COMMANDS, &mut text);
        text.push_str("\nWith `writes: Report`, besides:\n\n");
        rows(REPORTS, &mut text);
        text.push_str(
            "\nReads of types that no token has, and of a token's bits. They answer as Redis does for a \
             string: with the wrong type, or with what is empty for a missing key.\n\n",
        );
        let names: Vec<String> =
            FOREIGN.iter().map(|spec| format!("`{}`", spec.name.to_uppercase())).collect();
        text.push_str(&names.join(" "));
        text.push_str("\n\nRefused as writes: ");
        let names: Vec<String> =
            WRITES.iter().map(|(name, _)| format!("`{}`", name.to_uppercase())).collect();
        text.push_str(&names.join(" "));
        text.push_str(".\n");
        text
    }

    #[test]
    fn the_document_lists_every_command() {
        let document = include_str!("../../../docs/protocol.md");
        let listed = listed();
        if !document.contains(&listed) {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            std::fs::write(root.join("target/protocol-commands.md"), &listed).unwrap();
            panic!("docs/protocol.md lists other commands; target/protocol-commands.md has them");
        }
    }

    #[test]
    fn every_command_is_found_by_its_letter_and_nothing_else_is() {
        for table in TABLES {
            let index = Index::of(table);
            for spec in table {
                for name in [spec.name.to_owned(), spec.name.to_uppercase()] {
                    let found = index.find(table, name.as_bytes()).map(|found| found.name);
                    assert_eq!(found, Some(spec.name));
                }
                for wrong in [format!("{}x", spec.name), spec.name[1..].to_owned()] {
                    let expected = table.iter().any(|other| other.name == wrong);
                    assert_eq!(index.find(table, wrong.as_bytes()).is_some(), expected, "{wrong}");
                }
            }
            for first in 0..=u8::MAX {
                assert!(index.find(table, &[first]).is_none(), "{first}");
            }
            assert!(index.find(table, b"").is_none());
        }
    }
}
