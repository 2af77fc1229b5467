//! The house rules that a compiler cannot check: who may use whom, which file names which crate,
//! where secrets are exposed, how long a file is, which tests a document may name. The table is the one
//! of `ARCHITECTURE.md`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// (room, the rooms it may use beside itself). A room is a file of `src/` and the folder of its
/// name. The order is that of the flow: no room uses one that stands below it. `app` sees all, and
/// `fuzzing`, which is no part of the program, whatever has something to be held for any input.
const ROOMS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("token", &["clock"]),
    ("account", &[]),
    ("duration", &[]),
    ("config", &["token", "account", "duration"]),
    ("control", &["token", "config"]),
    ("log_budget", &["clock"]),
    ("admission", &[]),
    ("logging", &["config"]),
    ("shutdown", &[]),
    ("supervisor", &["config"]),
    ("access", &["clock", "token", "config"]),
    ("tls", &["clock", "config", "log_budget", "shutdown"]),
    ("outbound", &["token", "config"]),
    ("source", &["clock", "token", "config", "outbound"]),
    ("store", &["clock", "token", "account"]),
    ("snapshot", &["clock", "token", "account"]),
    (
        "refresh",
        &[
            "clock", "token", "account", "config", "control", "shutdown", "source", "store",
            "snapshot",
        ],
    ),
    (
        "notify",
        &["clock", "token", "account", "config", "shutdown", "outbound", "source", "snapshot"],
    ),
    ("status", &["clock", "token", "account", "config", "access", "snapshot", "refresh", "notify"]),
    (
        "doctor",
        &[
            "clock", "token", "account", "config", "tls", "outbound", "source", "store",
            "snapshot", "refresh", "status",
        ],
    ),
    (
        "http",
        &[
            "clock",
            "token",
            "duration",
            "config",
            "control",
            "access",
            "log_budget",
            "admission",
            "tls",
            "shutdown",
            "snapshot",
            "refresh",
            "status",
            "doctor",
        ],
    ),
    (
        "resp",
        &[
            "clock",
            "token",
            "config",
            "access",
            "log_budget",
            "admission",
            "tls",
            "shutdown",
            "snapshot",
            "refresh",
            "status",
        ],
    ),
    ("sandbox", &["clock", "token", "duration", "shutdown"]),
    ("check", &["duration", "config"]),
    ("cli", &["token", "duration", "config", "sandbox"]),
    ("operator", &["clock", "token", "config", "outbound", "store", "doctor", "cli"]),
    (
        "app",
        &[
            "clock",
            "token",
            "account",
            "duration",
            "config",
            "control",
            "access",
            "logging",
            "shutdown",
            "outbound",
            "source",
            "store",
            "snapshot",
            "refresh",
            "notify",
            "status",
            "doctor",
            "http",
            "resp",
            "sandbox",
            "check",
            "cli",
            "tls",
            "supervisor",
        ],
    ),
    ("fuzzing", &["config", "source", "store", "http", "resp", "check"]),
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
    ("sled", &["store/engine.rs"]),
    ("bincode", &["store/format.rs"]),
    ("ring", &["store/seal.rs", "notify/format.rs"]),
    ("ron", &["config/raw.rs"]),
    ("reqwest", &["outbound"]),
    ("rustls", &["outbound", "tls"]),
    ("tokio_rustls", &["tls"]),
    ("httpdate", &["outbound", "sandbox/server.rs"]),
    ("warp", &["http"]),
    ("hyper", &["http", "sandbox"]),
    ("hyper_util", &["http", "sandbox"]),
    ("clap", &["cli.rs", "main.rs"]),
    ("clap_complete", &["cli.rs"]),
    ("clap_mangen", &["cli.rs"]),
    ("getrandom", &["clock.rs"]),
    ("tracing_appender", &["logging.rs"]),
    ("rlimit", &["app.rs"]),
    ("listenfd", &["supervisor.rs"]),
    ("sd_notify", &["supervisor.rs"]),
    ("foldhash", &["snapshot.rs", "access/audit.rs"]),
    ("prometheus_client", &["http/metrics.rs"]),
    ("governor", &["access/wrong_keys.rs"]),
];

/// The files in which a secret's text is taken out of its custody, each with the reason.
const EXPOSE: &[(&str, &str)] = &[
    ("token.rs", "defines it"),
    ("config/keys.rs", "says whether one that is kept can be guessed"),
    ("config/template.rs", "renders what a request is made of"),
    ("source/request.rs", "makes a request of it"),
    ("source/reply.rs", "cuts what was sent out of messages"),
    ("source/trial.rs", "asks the upstream about it"),
    ("outbound.rs", "sends it, and logs in to a proxy"),
    ("notify/format.rs", "sends it to its receiver, and signs with it"),
    ("store/directory.rs", "keeps the generated request secret"),
    ("store/format.rs", "writes the record"),
    ("store/seal.rs", "draws a key from the configured text"),
    ("operator/connection.rs", "shows the key to the server"),
    ("operator/redis.rs", "shows the password to the old Redis"),
    ("http/reply.rs", "answers a client"),
    ("http/v1/token.rs", "answers a client"),
    ("http/routes.rs", "shows a key to the table of users"),
    ("resp/command/bits.rs", "answers a client, of its bits"),
    ("resp/command/keys.rs", "answers a client"),
    ("resp/command/object.rs", "answers a client"),
    ("resp/command/lcs.rs", "answers a client, of two that are compared"),
    ("sandbox/wechat.rs", "answers as WeChat does"),
];

/// (file, a type that holds what clients or upstreams sent or are sent). `Debug` would show it.
const SILENT: &[(&str, &str)] = &[
    ("http/query.rs", "Asked"),
    ("http/reply.rs", "TokenJson"),
    ("resp/command.rs", "Client"),
    ("resp/command/transaction.rs", "Transaction"),
    ("resp/parse.rs", "Args"),
    ("resp/parse.rs", "Parser"),
    ("resp/reply.rs", "Reply"),
    ("resp/session.rs", "Owed"),
    ("resp/session.rs", "Scratch"),
    ("resp/session.rs", "Session"),
    ("outbound.rs", "Answer"),
    ("outbound.rs", "Payload"),
    ("outbound.rs", "Request"),
    ("source/request.rs", "Filled"),
    ("operator/clothes.rs", "Worn"),
    ("operator/import.rs", "Found"),
    ("operator/inherited.rs", "Read"),
    ("operator/redis.rs", "Client"),
    ("operator/redis.rs", "Reply"),
    ("store/format.rs", "StoredV1"),
    ("store/format.rs", "StoredV2"),
    ("store.rs", "Write"),
];

/// (file, a type that holds secrets and has a `Debug` of its own, which does not show them).
const OWN_DEBUG: &[(&str, &str)] = &[
    ("token.rs", "Secret"),
    ("config/expand.rs", "Environment"),
    ("config/request.rs", "JsonTemplate"),
    ("config/setting.rs", "Setting"),
    ("outbound.rs", "Outbound"),
    ("source/json.rs", "Json"),
    ("store/seal.rs", "Keys"),
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

    /// Tests, and what must hold for any input: no part of the program.
    fn is_test(&self) -> bool {
        let path = &self.path;
        path.ends_with("tests.rs") || path.contains("/tests/") || path.ends_with("/fuzzing.rs")
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
fn what_holds_secrets_is_not_shown_by_debug() {
    let files = sources();
    let mut complaints = Vec::new();
    for (path, name) in SILENT.iter().chain(OWN_DEBUG) {
        let file = files.iter().find(|file| file.path == *path);
        let text = file.map_or("", |file| &file.text);
        let declared = ["struct", "enum"].iter().find_map(|kind| {
            let at = text.find(&format!("{kind} {name}"))?;
            text[at..].split_once(*name)?.1.starts_with(['(', '<', ' ']).then_some(at)
        });
        let Some(at) = declared else {
            complaints.push(format!("{path}: there is no {name} any more; take it off the list"));
            continue;
        };
        // The attributes of a type follow the item before it, and are not parted by an empty line.
        let attributes = &text[text[..at].rfind("\n\n").unwrap_or(0)..at];
        if attributes.lines().any(|line| line.starts_with("#[derive(") && line.contains("Debug")) {
            complaints.push(format!("{path}: {name} derives Debug"));
        }
        let implements = text.contains(&format!("Debug for {name}"));
        if implements != OWN_DEBUG.contains(&(*path, *name)) {
            complaints.push(format!("{path}: {name} is on the wrong list"));
        }
    }
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

/// (path of a Rust file from the root, name of a test in it), of all there are.
fn tests() -> BTreeSet<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "tests"].iter().flat_map(|folder| rust_files(&root.join(folder)));
    let tests = files.flat_map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        tests_in(&text).map(|name| (file.clone(), name.to_owned())).collect::<Vec<_>>()
    });
    tests.collect()
}

/// A file of the project, by its path from the root.
fn text_of(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_trap_has_a_test_that_exists() {
    let tests = tests();
    let known: BTreeSet<&str> = tests.iter().map(|(_, name)| name.as_str()).collect();
    let table = text_of("docs/traps.md");
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
        let named: Vec<&str> = quoted(cells[2]).collect();
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

#[test]
fn every_threat_has_a_test_that_exists() {
    let tests = tests();
    let document = text_of("SECURITY.md");
    let (_, table) = document.split_once("| threat | what is done | the tests |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut complaints = Vec::new();
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        let threat = cells[0].trim();
        let (mut file, mut named) = (None, 0);
        for word in quoted(cells[2]) {
            if word.ends_with(".rs") {
                file = Some(word);
                continue;
            }
            named += 1;
            let file = file.unwrap_or_default();
            if !tests.contains(&(file.to_owned(), word.to_owned())) {
                complaints.push(format!("{threat}: there is no test `{word}` in {file:?}"));
            }
        }
        if named == 0 {
            complaints.push(format!("{threat}: no test"));
        }
        count += 1;
    }
    assert!(count >= 20, "{count} threats");
    fail_on(&complaints);
}

#[test]
fn accepted_advisories_are_the_same_everywhere() {
    let ids = |path: &str| -> BTreeSet<String> {
        let text = text_of(path);
        let ids = text.match_indices("RUSTSEC-");
        ids.map(|(at, _)| text[at..].chars().take("RUSTSEC-0000-0000".len()).collect()).collect()
    };
    let accepted = ids(".cargo/audit.toml");
    assert!(!accepted.is_empty());
    assert_eq!(ids("deny.toml"), accepted);
    assert_eq!(ids("SECURITY.md"), accepted);
}

/// A log line of the source: its level, and its words as they appear.
type LogLine = (String, &'static str);

/// The warnings and errors that a text of code logs: the last text in each call of the macro. (They may
/// be called by their path or by their names.)
fn log_lines(code: &str) -> Vec<LogLine> {
    let mut lines = Vec::new();
    for (call, level) in [("warn!(", "warn"), ("error!(", "error")] {
        for (at, _) in code.match_indices(call) {
            let is_whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let words = is_whole.then(|| last_text(&code[at + call.len()..])).flatten();
            lines.extend(words.map(|words| (words, level)));
        }
    }
    lines
}

/// The last text in double quotes before the parenthesis that closes, with its lines put together.
fn last_text(code: &str) -> Option<String> {
    let (mut depth, mut last) = (1, None);
    let mut chars = code.chars();
    while let Some(char) = chars.next() {
        match char {
            '(' => depth += 1,
            ')' => depth -= 1,
            '"' => {
                let mut text = String::new();
                while let Some(char) = chars.next().filter(|char| *char != '"') {
                    match char {
                        // A line that goes on, or what is written with a backslash.
                        '\\' => match chars.next() {
                            Some('\n') => {
                                let rest = chars.as_str().trim_start();
                                chars = rest.chars();
                            }
                            escaped => text.extend(escaped),
                        },
                        char => text.push(char),
                    }
                }
                last = Some(text);
            }
            _ => {}
        }
        if depth == 0 {
            return last;
        }
    }
    None
}

#[test]
fn the_words_of_a_log_line_are_found() {
    let code = r#"
        tracing::warn!(%error, a = f("x"), "one \
            line"); error!("two"); my_warn!("no"); tracing::info!("no");
        tracing::warn!(reason = "not this", "refused \"so\"")"#;
    let found = log_lines(code);
    let expected = [("one line", "warn"), ("refused \"so\"", "warn"), ("two", "error")];
    assert_eq!(found, expected.map(|(words, level)| (words.to_owned(), level)));
}

/// docs/operations.md says of each warning and error what it means and what to do, and of no other.
#[test]
fn every_warning_and_error_is_explained() {
    let said: BTreeSet<LogLine> = sources()
        .iter()
        .filter(|file| !file.is_test())
        .flat_map(|file| {
            let tests = file.text.find("#[cfg(test)]\nmod tests {").unwrap_or(file.text.len());
            log_lines(&file.text[..tests])
        })
        .collect();
    let document = text_of("docs/operations.md");
    let (_, tables) = document.split_once("## What the log says").unwrap();
    let mut explained = BTreeSet::new();
    let mut complaints = Vec::new();
    for row in tables.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [line, level, meaning, action] = cells[..] else {
            complaints.push(format!("not a line, its level, its meaning and what to do: {row}"));
            continue;
        };
        if meaning.is_empty() || action.is_empty() {
            complaints.push(format!("{line}: no meaning, or nothing to do"));
        }
        let level = if level == "error" { "error" } else { "warn" };
        if !explained.insert((line.trim_matches('`').to_owned(), level)) {
            complaints.push(format!("{line}: explained twice"));
        }
    }
    assert!(said.len() > 40, "{} lines were found", said.len());
    let missing = said.difference(&explained).map(|line| format!("not explained: {line:?}"));
    let stale = explained.difference(&said).map(|line| format!("nobody logs: {line:?}"));
    complaints.extend(missing.chain(stale));
    fail_on(&complaints);
}
