//! What the Rust programs share: the way to the harness, the steps, and a try that is repeated.

use std::env;
use std::fmt::Debug;
use std::io::{BufRead, stdin};
use std::panic;
use std::time::Duration;

const LIFETIME: i64 = 7200;
pub const CHANNEL: &str = "token:access_token";
pub const KEYSPACE: &str = "__keyspace@0__:access_token";

/// How long is waited for what must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What must be read right now.
pub struct Tokens {
    pub access_token: String,
    pub ticket: String,
}

impl Tokens {
    pub fn of_environment() -> Tokens {
        Tokens { access_token: variable("TOKEN"), ticket: variable("TICKET") }
    }

    /// Has the token rotated; the answer is its generation.
    pub fn rotate(&mut self) -> String {
        let answer = ask("@rotate");
        let (token, generation) = answer.split_once(' ').expect("a value and a generation");
        self.access_token = token.to_owned();
        generation.to_owned()
    }
}

#[allow(clippy::disallowed_methods, reason = "a script is told by its environment what to do")]
pub fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// Whether RESP3 is to be spoken.
pub fn resp3() -> bool {
    variable("PROTOCOL") == "3"
}

fn ask(request: &str) -> String {
    println!("{request}");
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).expect("an answer of the harness");
    answer.trim().to_owned()
}

pub fn restart() {
    ask("@restart");
}

/// The steps to take. From here on stderr ends with one line that says what went wrong.
pub fn steps() -> impl Iterator<Item = String> {
    panic::set_hook(Box::new(|panic| eprintln!("{}", panic.to_string().replace('\n', " "))));
    env::args().skip(1)
}

pub fn sensible(ttl: i64, pttl: i64) {
    assert!((1..=LIFETIME).contains(&ttl), "TTL {ttl}");
    assert!((pttl - ttl * 1000).abs() < 2000, "TTL {ttl}, PTTL {pttl}");
}

/// Repeats `attempt` until it succeeds.
pub async fn until<T, E: Debug>(mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    for _ in 0..200 {
        if let Ok(value) = attempt().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    attempt().await.expect("it should have come off within ten seconds")
}

/// Awaits messages until both channels have brought what they should.
pub async fn both_channels(generation: &str, mut next: impl AsyncFnMut() -> (String, String)) {
    let (mut told, mut set) = (false, false);
    while !told || !set {
        let message = tokio::time::timeout(PATIENCE, next()).await;
        let (channel, payload) = message.expect("a message within ten seconds");
        told |= channel == CHANNEL && payload == generation;
        set |= channel == KEYSPACE && payload == "set";
    }
}
