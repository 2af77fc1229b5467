//! The engine against the sandbox's model of WeChat, in virtual time: months of random faults in
//! milliseconds, each run repeatable from its seed.
//!
//! `SIM_SEEDS`, `SIM_DAYS` and `SIM_FIRST` change how much is run, `SIM_DRIVEN` on how many days
//! with the real tasks. A failure names the seed: `SIM_FIRST=<seed> SIM_SEEDS=1` repeats it (with the
//! tasks: `SIM_DRIVEN=1`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the figures are the point of a long run")]
#![allow(clippy::disallowed_methods, reason = "reads its settings from the environment")]

mod day;
mod fault;
mod figures;
mod source;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use day::Day;
use figures::Figures;
use world::{Weather, World};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Runs every seed on two threads, and says what came of all of them. A seed that fails ends none of
/// the others.
fn run(weather: Weather, seeds: u64, days: u64) -> Figures {
    let first = setting("SIM_FIRST", 1);
    let next = AtomicU64::new(first);
    let total = Mutex::new(Figures::default());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    match std::panic::catch_unwind(|| World::new(seed, weather).run(days)) {
                        Ok(figures) => total.lock().unwrap().add(&figures),
                        Err(_) => failed.lock().unwrap().push(seed),
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!("{weather:?}: {seeds} seeds of {days} days\n{total}");
    assert_eq!(failed.into_inner().unwrap(), [0; 0], "these seeds failed; see above");
    total
}

#[test]
fn whatever_happens_the_promises_are_kept() {
    let (seeds, days) = (setting("SIM_SEEDS", 25), setting("SIM_DAYS", 30));
    let figures = run(Weather::Stormy, seeds, days);
    assert!(figures.fetches > 0 && figures.restarts > 0 && figures.refused_served_foreign > 0);
}

#[test]
fn in_good_weather_fourteen_fetches_a_day_are_enough() {
    let (seeds, days) = (setting("SIM_SEEDS", 25), setting("SIM_DAYS", 30));
    let figures = run(Weather::Fair, seeds, days);
    let a_day = figures.rotating_fetches as f64 / figures.account_days;
    assert!(a_day <= 14.0, "{a_day} fetches of a rotating token a day");
    assert_eq!((figures.gaps, figures.refused_served_foreign), (0, 0));
}

#[test]
fn the_tasks_keep_the_promises_too() {
    let (first, days) = (setting("SIM_FIRST", 1), setting("SIM_DRIVEN", 20));
    let mut total = Figures::default();
    for seed in first..first + days {
        total.add(&Day::run(seed));
    }
    println!("the tasks: {days} seeds of a day\n{total}");
    assert!(total.fetches > 0 && total.restarts > 0 && total.refused_served_foreign > 0);
}

#[test]
fn a_day_of_the_tasks_is_repeated_by_its_seed() {
    let [once, again] = [7, 7].map(|seed| Day::run(seed).to_string());
    assert_eq!(once, again);
}
