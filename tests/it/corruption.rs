//! The store's files damaged in every way that a disk, a crash or a person damages files: the server is
//! up all the same, at once, and never serves a token that is not the last one put for its source. With
//! a key no file holds a token, before, during and after.
//!
//! `CORRUPTIONS=500 cargo test --features interop --test it corruption -- --nocapture` for the full
//! count; `CORRUPTION_SEED=N CORRUPTIONS=1` repeats one.

#![allow(clippy::disallowed_methods, reason = "it measures how long a start takes")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use wechat_token_server::clock::SystemClock;
use wechat_token_server::config::{self, Environment, TokenSource};
use wechat_token_server::sandbox::{Account, Model, Settings, Upstream};
use wechat_token_server::store::{self, Keys, RecordStore};
use wechat_token_server::token::{Generation, Secret, TokenRecord};

use crate::support::{Running, binary, files_with, number, resp, serve, soon};

/// How long a start may take, whatever was done to the files.
const UP: Duration = Duration::from_secs(2);

/// What the log says of a loss; and where nothing is left that could tell that there was anything.
const SAID: [&str; 2] = ["the token database is damaged", "a new token database is begun"];

/// A store directory as it was left, with older copies of it, and what was put last.
struct Template {
    /// The latest, and before it the older ones, from the first on.
    stages: Vec<PathBuf>,
    last: HashMap<String, String>,
    /// What the records are sealed with.
    key: Option<&'static str>,
}

/// (sources, puts of each in a stage, stages); each stage ends with an orderly stop.
const SHAPES: [(usize, usize, usize); 4] = [(1, 3, 2), (5, 40, 3), (60, 8, 2), (120, 60, 2)];

/// An appid for each source, so that each fetches a token of its own.
fn account(at: usize) -> Account {
    Account::new(format!("wx{at:014}"), "secret")
}

fn config_text(upstream: &str, dir: &Path, sources: usize, key: Option<&str>) -> String {
    let source = |at: usize| {
        let appid = account(at).appid().to_owned();
        format!(
            r#""source_{at}": (url: "http://{upstream}/cgi-bin/token", args:
                {{"grant_type": "client_credential", "appid": "{appid}", "secret": "secret"}}),"#
        )
    };
    let key = key.map(|key| format!("key: {key:?},")).unwrap_or_default();
    format!(
        r#"(http: (bind: "127.0.0.1:0"), resp: (bind: "127.0.0.1:0"), store: ({key} path: {:?}),
            request_secret: "{}", log: (format: "json"), token_sources: {{{}}})"#,
        dir.join("store").display().to_string(),
        crate::support::SECRET,
        (0..sources).map(source).collect::<String>()
    )
}

fn parse(text: &str) -> Vec<TokenSource> {
    config::parse(text, Path::new("test.ron"), &Environment::default()).unwrap().sources
}

impl Template {
    async fn make(
        dir: &Path,
        (sources, puts, stages): (usize, usize, usize),
        key: Option<&'static str>,
    ) -> Template {
        // An identity is of path and arguments, not of the host.
        let sources = parse(&config_text("127.0.0.1:1", dir, sources, key));
        let work = dir.join("work");
        let mut template = Template { stages: Vec::new(), last: HashMap::new(), key };
        let fetched_at = SystemTime::now();
        for stage in 0..stages {
            let clock = SystemClock::shared();
            let keys = Keys::new(key.map(Secret::new).as_ref(), &[]);
            let (tokens, _, closing) = store::open(&work, keys, Duration::ZERO, &clock).unwrap();
            for put in 0..puts {
                // All at once: some share a batch, as renewals do.
                let writes = sources.iter().map(|source| {
                    let (tokens, name) = (tokens.clone(), source.name.clone());
                    let value = format!("kept_{name}_{stage}_{put}_{}", "x".repeat(100));
                    template.last.insert(name.as_str().to_owned(), value.clone());
                    let record = TokenRecord {
                        value: Secret::new(value),
                        fetched_at,
                        expires_at: fetched_at + Duration::from_secs(7_200),
                        generation: Generation((1_000 * stage + put) as u64),
                        first_seen: fetched_at,
                        identity: source.identity,
                        captured: None,
                    };
                    tokio::spawn(async move { tokens.put(&name, &record).await })
                });
                for write in writes.collect::<Vec<_>>() {
                    write.await.unwrap().unwrap();
                }
            }
            drop(tokens);
            closing.wait();
            let copy = dir.join(format!("stage_{stage}"));
            copy_dir(&work, &copy);
            template.stages.push(copy);
        }
        template
    }

    fn latest(&self) -> &Path {
        self.stages.last().unwrap()
    }

    /// With a key no file below `dir` holds one of these tokens, nor one that was kept, nor the key.
    fn assert_sealed<'a>(&self, case: &str, dir: &Path, tokens: impl Iterator<Item = &'a String>) {
        let Some(key) = self.key else { return };
        // What every value that was kept begins with, before the name of its source; of the others a few.
        let some = tokens.take(5).map(String::as_str);
        let secrets: Vec<&str> = ["kept_source", key].into_iter().chain(some).collect();
        assert_eq!(files_with(dir, &secrets), [] as [PathBuf; 0], "{case}");
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// The files below a directory, relative to it, in a fixed order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = PathBuf::from(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path()).into_iter().map(|path| name.join(path))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

/// Damages one thing; what was done, in words.
fn damage(dice: &mut fastrand::Rng, store: &Path, template: &Template) -> String {
    let files = files(store);
    let Some(file) = dice.choice(&files).cloned() else { return "nothing is left".into() };
    // The data file is most of what there is.
    let database = PathBuf::from("tokens.sled/db");
    let file = if dice.bool() && store.join(&database).exists() { database } else { file };
    let path = store.join(&file);
    let mut bytes = fs::read(&path).unwrap();
    let shown = file.display();
    let (length, page) = (bytes.len(), 4_096);
    let what = match dice.u8(..14) {
        0..4 if length > 0 => {
            let at = dice.usize(..length);
            let bit = dice.u8(..8);
            bytes[at] ^= 1 << bit;
            format!("{shown}: bit {bit} of byte {at} flipped")
        }
        4 if length > 0 => {
            // Where there is something: most of the data file is padding.
            let used: Vec<usize> = (0..length).filter(|at| bytes[*at] > 31).collect();
            let at = dice.choice(&used).copied().unwrap_or(0);
            bytes[at] = dice.u8(..);
            format!("{shown}: byte {at} changed")
        }
        5 | 6 if length > 0 => {
            bytes.truncate(dice.usize(..length));
            format!("{shown}: cut from {length} to {}", bytes.len())
        }
        7 if length > 0 => {
            let start = dice.usize(..length) / page * page;
            let end = (start + page).min(length);
            bytes[start..end].fill(0);
            format!("{shown}: bytes {start}..{end} zeroed")
        }
        8 if length > 0 => {
            let start = dice.usize(..length) / page * page;
            let end = (start + page).min(length);
            bytes[start..end].iter_mut().for_each(|byte| *byte = dice.u8(..));
            format!("{shown}: bytes {start}..{end} are noise")
        }
        9 => {
            fs::remove_file(&path).unwrap();
            return format!("{shown}: removed");
        }
        10 => {
            let more = dice.usize(1..20_000);
            bytes.extend(std::iter::repeat_with(|| dice.u8(..)).take(more));
            format!("{shown}: {more} bytes of noise appended")
        }
        11 => {
            let other = dice.choice(&files).unwrap();
            let theirs = fs::read(store.join(other)).unwrap();
            fs::write(store.join(other), &bytes).unwrap();
            bytes = theirs;
            format!("{shown} and {}: exchanged", other.display())
        }
        12 => {
            let older = &template.stages[dice.usize(..template.stages.len() - 1)];
            let Ok(old) = fs::read(older.join(&file)) else { return "nothing".into() };
            bytes = old;
            format!("{shown}: as in {}", older.display())
        }
        _ => {
            let folder = store.join("tokens.sled");
            // The damage before this one may have been the same.
            let _ = fs::remove_dir_all(&folder);
            if dice.bool() {
                return "tokens.sled: removed".into();
            }
            let older = &template.stages[dice.usize(..template.stages.len() - 1)];
            copy_dir(&older.join("tokens.sled"), &folder);
            return format!("tokens.sled: as in {}", older.display());
        }
    };
    fs::write(&path, bytes).unwrap();
    what
}

/// What is served of each source.
async fn served(ours: &Running, sources: usize) -> HashMap<String, String> {
    let names: Vec<String> = (0..sources).map(|at| format!("source_{at}")).collect();
    let request: String = names.iter().map(|name| format!("GET {name}\r\n")).collect();
    let answer = resp(ours.resp, &request, sources).await;
    let mut lines = answer.lines();
    let mut served = HashMap::new();
    for name in names {
        if lines.next().unwrap() != "$-1" {
            served.insert(name, lines.next().unwrap().to_owned());
        }
    }
    served
}

#[derive(Debug, Default)]
struct Figures {
    whole: usize,
    lost: usize,
    without_loss: usize,
    slowest: Duration,
    /// Starts that took longer, without the processor's part in it: the machine was busy with something else.
    busy: usize,
}

/// Starts the server on a copy of a damaged store and looks at what it serves: how many of the kept tokens.
async fn look(
    case: &str,
    damaged: &Path,
    upstream: &str,
    template: &Template,
    figures: &mut Figures,
) -> (Running, tempfile::TempDir, usize) {
    let sources = template.last.len();
    let dir = tempfile::tempdir().unwrap();
    copy_dir(damaged, &dir.path().join("store"));
    let file = dir.path().join("config.ron");
    fs::write(&file, config_text(upstream, dir.path(), sources, template.key)).unwrap();
    let begun = Instant::now();
    let ours = serve(binary(), &file).await;
    let took = begun.elapsed();
    let worked = ours.processor_time();
    if took < UP {
        figures.slowest = figures.slowest.max(took);
    } else {
        assert!(worked < UP / 2, "{case}: up after {took:?}, {worked:?} of work\n{}", ours.log());
        figures.busy += 1;
    }
    let served = served(&ours, sources).await;
    let kept = served.iter().filter(|(_, value)| value.starts_with("kept_"));
    for (name, value) in kept.clone() {
        assert_eq!(Some(value), template.last.get(name), "{case}: {name}\n{}", ours.log());
    }
    let kept = kept.count();
    template.assert_sealed(case, &dir.path().join("store"), served.values());
    let log = ours.log();
    let said = SAID.iter().any(|line| log.contains(line));
    assert!(kept == sources || said, "{case}: a silent loss\n{log}");
    (ours, dir, kept)
}

async fn case(seed: u64, template: &Template, figures: &mut Figures) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let damaged = tempfile::tempdir().unwrap();
    let store = damaged.path().join("store");
    copy_dir(template.latest(), &store);
    // Mostly one thing goes wrong, sometimes another one with it.
    let mut case = format!("CORRUPTION_SEED={seed}");
    let times = if dice.u8(..4) == 0 { 2 } else { 1 };
    for _ in 0..times {
        let what = damage(&mut dice, &store, template);
        case.push_str(&format!("; {what}"));
        if what.starts_with("tokens.sled: as in") {
            // With the file beside it gone as well this is a whole older directory: a backup that was
            // put back, of which nothing here can tell that it is one.
            break;
        }
    }
    let sources = template.last.len();
    let (mut ours, _, kept) = look(&case, &store, "127.0.0.1:1", template, figures).await;
    ours.child.kill().await.unwrap();
    figures.whole += kept;
    figures.lost += sources - kept;
    figures.without_loss += usize::from(kept == sources);

    // The same with the upstream there: the rest is fetched soon, and all of it is there after a restart.
    let settings = Settings { token_quota: None, ..Settings::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let model = Model::new(settings, (0..sources).map(account), seed);
    let wechat = Upstream::start(listener, model, SystemClock::shared()).unwrap();
    let address = wechat.address().to_string();
    let (mut ours, dir, again) = look(&case, &store, &address, template, figures).await;
    assert_eq!(again, kept, "{case}: what is whole is so each time\n{}", ours.log());
    let before = soon("every token", async {
        loop {
            let served = served(&ours, sources).await;
            if served.len() == sources {
                return served;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    ours.child.kill().await.unwrap();
    wechat.stop().await;
    template.assert_sealed(&case, &dir.path().join("store"), before.values());
    let ours = serve(binary(), &dir.path().join("config.ron")).await;
    assert_eq!(served(&ours, sources).await, before, "{case}: after a restart\n{}", ours.log());
}

/// Damages `CORRUPTIONS` stores, `quick` if that is not set; what came of it.
async fn corrupt(key: Option<&'static str>, quick: u64) -> String {
    let (count, first) = (number("CORRUPTIONS", quick), number("CORRUPTION_SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let mut templates = Vec::new();
    for (at, shape) in SHAPES.into_iter().enumerate() {
        templates.push(Template::make(&dir.path().join(at.to_string()), shape, key).await);
    }
    // Without a key they are found: the search does search.
    assert_eq!(files_with(dir.path(), &["kept_source"]).is_empty(), key.is_some());
    let mut figures = Figures::default();
    for seed in first..first + count {
        let template = &templates[usize::try_from(seed).unwrap() % templates.len()];
        case(seed, template, &mut figures).await;
    }
    format!("{count} corruptions from CORRUPTION_SEED={first} on: {figures:?}, wrong tokens: 0")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_serves_what_is_whole_and_nothing_else() {
    println!("{}", corrupt(None, 24).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_with_a_key_shows_no_token_to_who_reads_its_files() {
    println!("sealed: {}", corrupt(Some("corruption-store-key-0123456789"), 12).await);
}
