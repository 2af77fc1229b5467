//! The house rules that a compiler cannot check: who may use whom, which file names which crate,
//! where secrets are exposed, how long a file is, which tests a document may name. The table is the one
//! of `ARCHITECTURE.md`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// (room, the rooms it may use beside itself). A room is a file of `src/` and the folder of its
/// name. The order is that of the flow: no room uses one that stands below it, but for `app`,
/// which sees all.
const ROOMS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("token", &["clock"]),
    ("account", &[]),
    ("duration", &[]),
    ("config", &["token", "account", "duration"]),
    ("logging", &["config"]),
    ("shutdown", &[]),
    ("outbound", &["token", "config"]),
    ("source", &["clock", "token", "config", "outbound"]),
    ("store", &["clock", "token", "account"]),
    ("snapshot", &["clock", "token"]),
    (
        "refresh",
        &["clock", "token", "account", "config", "shutdown", "source", "store", "snapshot"],
    ),
    ("http", &["clock", "token", "config", "shutdown", "snapshot", "refresh"]),
    ("resp", &["clock", "token", "config", "shutdown", "snapshot", "refresh"]),
    ("sandbox", &["clock", "token", "duration", "shutdown"]),
    ("check", &["duration", "config"]),
    ("cli", &["duration", "config", "sandbox"]),
    (
        "app",
        &[
            "clock", "token", "account", "duration", "config", "logging", "shutdown", "outbound",
            "source", "store", "snapshot", "refresh", "http", "resp", "sandbox", "check", "cli",
        ],
    ),
];

/// What the listeners may name of the engine: the way back in, and nothing else.
const ENGINE_FOR_LISTENERS: &[&str] = &[
    "RefreshHandle",
    "RefreshError",
    "RefreshRequest",
    "RequestQueue",
    "Refused",
    "Wish",
    "queue",
];

/// (foreign crate, the files that may name it).
const FOREIGN: &[(&str, &[&str])] = &[
    ("sled", &["store/database.rs"]),
    ("bincode", &["store/format.rs"]),
    ("ron", &["config/raw.rs"]),
    ("reqwest", &["outbound.rs"]),
    ("rustls", &["outbound.rs"]),
    ("httpdate", &["outbound.rs"]),
    ("warp", &["http"]),
    ("hyper", &["http", "sandbox"]),
    ("hyper_util", &["http", "sandbox"]),
    ("clap", &["cli.rs", "main.rs"]),
    ("getrandom", &["clock.rs"]),
    ("tracing_appender", &["logging.rs"]),
    ("rlimit", &["app.rs"]),
    ("foldhash", &["snapshot.rs"]),
];

/// The files in which a secret's text is taken out of its custody, each with the reason.
const EXPOSE: &[(&str, &str)] = &[
    ("token.rs", "defines it"),
    ("config/template.rs", "renders what a request is made of"),
    ("source/request.rs", "makes a request of it"),
    ("source/reply.rs", "cuts what was sent out of messages"),
    ("outbound.rs", "sends it, and logs in to a proxy"),
    ("store/directory.rs", "keeps the generated request secret"),
    ("store/format.rs", "writes the record"),
    ("http/reply.rs", "answers a client"),
    ("resp/command/bits.rs", "answers a client, of its bits"),
    ("resp/command/keys.rs", "answers a client"),
    ("resp/command/object.rs", "answers a client"),
    ("resp/command/lcs.rs", "answers a client, of two that are compared"),
    ("sandbox/wechat.rs", "answers as WeChat does"),
];

/// The longest file without a reason in its header.
const MAX_LINES: usize = 500;

/// Names that say nothing.
const BANNED_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "manager", "common", "misc", "data", "info", "process"];

struct File {
    /// Relative to `src`, with `/`.
    path: String,
    text: String,
}

impl File {
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    /// Code without comments, with line numbers; the rest of a file after `#[cfg(test)]` is left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let code = self.text[..tests].lines().enumerate();
        code.map(|(at, line)| (at + 1, line.split("//").next().unwrap()))
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || self.room() == *place)
    }
}

/// Every Rust file below a folder.
fn rust_files(root: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, &mut found);
    found.sort();
    found
}

fn sources() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let found = rust_files(&root);
    let file = |path: PathBuf| File {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
    };
    found.into_iter().map(file).collect()
}

fn fail_on(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The identifiers after each `prefix` in a line.
fn after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let rest = line.split(prefix).skip(1);
    rest.map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap())
        .collect()
}

#[test]
fn use_points_upstream_only() {
    let mut complaints = Vec::new();
    for file in sources() {
        if ["lib", "main"].contains(&file.room()) {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == file.room()) else {
            complaints.push(format!("{}: a room that is not in the table", file.path));
            continue;
        };
        // Tests of a room may build the world around it.
        for (at, line) in file.code().filter(|_| !file.is_test()) {
            if line.contains("use crate::{") {
                complaints.push(format!("{}:{at}: grouped imports hide who is used", file.path));
            }
            for used in after(line, "crate::") {
                if used != file.room() && !allowed.contains(&used) {
                    complaints.push(format!("{}:{at}: may not use `{used}`", file.path));
                }
            }
        }
    }
    fail_on(&complaints);
}

#[test]
fn the_table_of_rooms_has_one_direction() {
    let mut above = BTreeSet::new();
    for (room, uses) in ROOMS {
        for used in *uses {
            assert!(above.contains(used), "{room} uses {used}, which stands below it");
        }
        above.insert(*room);
    }
}

#[test]
fn listeners_know_the_engine_by_its_handle_only() {
    let mut complaints = Vec::new();
    for file in sources().iter().filter(|file| ["http", "resp"].contains(&file.room())) {
        for (at, line) in file.code() {
            let names = line.split("crate::refresh::").skip(1).flat_map(|rest| {
                rest.split([';', '}', '(']).next().unwrap().trim_start_matches('{').split(',')
            });
            for name in names.map(str::trim).filter(|name| !name.is_empty()) {
                if !ENGINE_FOR_LISTENERS.contains(&name) {
                    complaints.push(format!("{}:{at}: may not use refresh::{name}", file.path));
                }
            }
        }
    }
    fail_on(&complaints);
}

#[test]
fn a_foreign_crate_has_one_room() {
    let mut complaints = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        for (name, places) in FOREIGN {
            if file.is_in(places) {
                continue;
            }
            for (at, line) in file.code() {
                let path = format!("{name}::");
                let named = line.match_indices(&path).any(|(start, _)| {
                    !line[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                });
                if named {
                    complaints.push(format!("{}:{at}: {name} belongs to {places:?}", file.path));
                }
            }
        }
    }
    fail_on(&complaints);
}

#[test]
fn secrets_are_exposed_where_they_are_sent_and_nowhere_else() {
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        for (at, line) in file.code() {
            if !line.contains("expose") || line.trim_start().starts_with("use ") {
                continue;
            }
            if EXPOSE.iter().any(|(path, _)| *path == file.path) {
                seen.insert(file.path.clone());
            } else if line.contains("expose()") || line.contains("::expose") {
                complaints.push(format!("{}:{at}: exposes a secret", file.path));
            }
        }
    }
    complaints.extend(
        EXPOSE
            .iter()
            .filter(|(path, _)| !seen.contains(*path))
            .map(|(path, _)| format!("{path}: exposes nothing any more; take it off the list")),
    );
    fail_on(&complaints);
}

#[test]
fn every_file_is_a_room_with_a_header() {
    let mut complaints = Vec::new();
    for file in sources() {
        let first = file.text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") || first.len() < 20 {
            complaints.push(format!("{}: does not say what happens there", file.path));
        }
        let lines = file.text.lines().count();
        if lines > MAX_LINES && !file.is_test() && !file.text.contains("Long because") {
            complaints.push(format!("{}: {lines} lines and no `Long because`", file.path));
        }
        let banned = file.path.split(['/', '.']).find(|part| BANNED_NAMES.contains(part));
        complaints.extend(banned.map(|name| format!("{}: `{name}` says nothing", file.path)));
    }
    fail_on(&complaints);
}

#[test]
fn nothing_is_awaited_inside_a_log_line() {
    // Below the level a line evaluates nothing: the wait would not happen.
    let mut complaints = Vec::new();
    for file in sources() {
        for call in file.text.split("tracing::").skip(1) {
            let line = call.split(");").next().unwrap();
            if line.contains("!(") && line.contains(".await") {
                complaints.push(format!("{}: awaits in tracing::{line}", file.path));
            }
        }
    }
    fail_on(&complaints);
}

#[test]
fn no_correctness_debt_is_left() {
    let debts =
        ["TODO-correctness", "TODO:", "FIXME", "XXX", "unimplemented!", "todo!", "#[ignore"];
    let mut complaints = Vec::new();
    for file in sources() {
        for (at, line) in file.text.lines().enumerate() {
            if let Some(debt) = debts.iter().find(|debt| line.contains(*debt)) {
                complaints.push(format!("{}:{}: {debt}", file.path, at + 1));
            }
        }
    }
    fail_on(&complaints);
}

/// The names of the tests in a text: functions that an attribute `#[…test…]` stands before.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let mut marked = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("#[") {
            marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            return None;
        }
        let name = line.trim_start_matches("async ").strip_prefix("fn ")?.split('(').next();
        std::mem::take(&mut marked).then_some(name)?
    })
}

#[test]
fn every_trap_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let texts: Vec<String> = ["src", "tests"]
        .iter()
        .flat_map(|folder| rust_files(&root.join(folder)))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let known: BTreeSet<&str> = texts.iter().flat_map(|text| tests_in(text)).collect();
    let table = fs::read_to_string(root.join("docs/traps.md")).unwrap();
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let number: usize = cells.next()?.parse().ok()?;
        Some((number, cells.collect::<Vec<_>>()))
    });
    let mut complaints = Vec::new();
    let mut count = 0;
    for (number, cells) in rows {
        count += 1;
        assert_eq!((number, cells.len()), (count, 3), "{cells:?}");
        let named: Vec<&str> = cells[2].split('`').skip(1).step_by(2).collect();
        if named.is_empty() && !cells[1].starts_with("Does not apply: ") {
            complaints.push(format!("trap {number}: no test"));
        }
        for name in named.into_iter().filter(|name| !known.contains(name)) {
            complaints.push(format!("trap {number}: there is no test `{name}`"));
        }
    }
    assert!(count >= 18 && known.len() > 100, "{count} traps, {} tests", known.len());
    fail_on(&complaints);
}
