//! Years of renewals: the size of the store on disk, the time of a write and the memory of the process, over
//! a number of renewals of a few sources, each written and answered before the next.
//!
//! `RENEWALS=1000000 STORE_DIR=/dev/shm cargo bench --bench renewals`; both may be left out: 20 000 in the
//! directory for temporary files. A source has some 12 renewals a day: a million are 23 years of ten.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports, and may fail")]
#![allow(clippy::disallowed_methods, reason = "it measures real time, as the environment says")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use wechat_token_server::clock::SystemClock;
use wechat_token_server::store::{self, Keys, RecordStore};
use wechat_token_server::token::{Generation, Secret, SourceIdentity, SourceName, TokenRecord};

const SOURCES: u64 = 10;
const ROWS: u64 = 20;

fn main() {
    // `cargo test --benches` runs this too; then there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let renewals: u64 = std::env::var("RENEWALS").map_or(20_000, |text| text.parse().unwrap());
    let place = std::env::var("STORE_DIR").map_or_else(|_| std::env::temp_dir(), Into::into);
    let dir = tempfile::tempdir_in(&place).unwrap();
    println!("{renewals} renewals of {SOURCES} sources in {}", place.display());
    println!("{:>10} {:>12} {:>12} {:>10} {:>10}", "renewals", "disk", "resident", "p50", "p99");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut largest, mut took) = (0, Vec::new());
    runtime.block_on(async {
        let (tokens, _, closing) =
            store::open(dir.path(), Keys::default(), Duration::ZERO, &SystemClock::shared())
                .unwrap();
        let mut dice = fastrand::Rng::with_seed(1);
        for number in 0..renewals {
            let (name, record) = renewal(number, &mut dice);
            let begun = Instant::now();
            tokens.put(&name, &record).await.unwrap();
            took.push(begun.elapsed());
            if number % (renewals / ROWS).max(1) == 0 || number + 1 == renewals {
                let size = size_of(dir.path());
                largest = largest.max(size);
                took.sort();
                let at = |part: usize| format!("{:.0?}", took[(took.len() - 1) * part / 100]);
                let resident = status("VmRSS:");
                let done = number + 1;
                println!(
                    "{done:>10} {:>9} kB {resident:>12} {:>10} {:>10}",
                    size / 1024,
                    at(50),
                    at(99)
                );
                took.clear();
            }
        }
        drop(tokens);
        closing.wait();
        let begun = Instant::now();
        let (tokens, restored, closing) =
            store::open(dir.path(), Keys::default(), Duration::ZERO, &SystemClock::shared())
                .unwrap();
        println!("opened after it in {:.1?}: {} records", begun.elapsed(), restored.records.len());
        assert_eq!(restored.records.len() as u64, SOURCES.min(renewals));
        drop(tokens);
        closing.wait();
    });
    println!(
        "largest on disk: {} kB; after the last start: {} kB",
        largest / 1024,
        size_of(dir.path()) / 1024
    );
}

fn renewal(number: u64, dice: &mut fastrand::Rng) -> (SourceName, TokenRecord) {
    let now = SystemTime::now();
    // As long as WeChat's, and as little alike.
    let value: String = std::iter::repeat_with(|| dice.alphanumeric()).take(136).collect();
    let record = TokenRecord {
        value: Secret::new(value),
        fetched_at: now,
        expires_at: now + Duration::from_secs(7_200),
        generation: Generation(number),
        first_seen: now,
        identity: SourceIdentity([7; 32]),
        captured: None,
    };
    (SourceName::parse(&format!("account_{}", number % SOURCES)).unwrap(), record)
}

fn size_of(dir: &Path) -> u64 {
    let size = |entry: fs::DirEntry| {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() { size_of(&entry.path()) } else { metadata.len() }
    };
    fs::read_dir(dir).unwrap().map(|entry| size(entry.unwrap())).sum()
}

fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line[field.len()..].trim().to_owned()
}
