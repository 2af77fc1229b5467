//! What the upstream does with a request, drawn from the seed.

use std::time::Duration;

use wechat_token_server::source::{FailureClass, FetchError};

/// A state of the upstream (or of the way to it) that lasts a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It cannot be reached.
    Unreachable,
    /// Requests vanish.
    Silent,
    /// Requests do their work, and the answers vanish.
    AnswersLost,
    /// Answers take seconds.
    Slow,
    /// It answers this code, and does nothing.
    Refuses(i32),
}

const CODES: [i32; 8] = [-1, 40164, 40125, 45009, 45011, 50002, 89503, 987_654];

impl Fault {
    /// One of them, and how long it lasts: mostly seconds or minutes, at times hours.
    pub(crate) fn draw(dice: &mut fastrand::Rng) -> (Fault, Duration) {
        let fault = match dice.u8(..10) {
            0..=2 => Fault::Unreachable,
            3 => Fault::Silent,
            4..=5 => Fault::AnswersLost,
            6 => Fault::Slow,
            _ => Fault::Refuses(CODES[dice.usize(..CODES.len())]),
        };
        let seconds = match dice.u8(..10) {
            0..=5 => dice.u64(1..60),
            6..=8 => dice.u64(60..1_800),
            _ => dice.u64(1_800..6 * 3_600),
        };
        (fault, Duration::from_secs(seconds))
    }
}

/// What a refusal is to the engine, as `source::errcode` has it.
pub(crate) fn refused(code: i32, has_dependencies: bool) -> FetchError {
    let class = match code {
        40001 | 40014 | 42001 if has_dependencies => FailureClass::DependencyInvalid,
        45009 => FailureClass::QuotaSpent,
        45011 => FailureClass::Throttled,
        -1 => FailureClass::Transient,
        987_654 => FailureClass::Unknown,
        _ => FailureClass::Misconfigured,
    };
    FetchError::refused(i64::from(code), class)
}

/// How long after the end of a fault of this class the engine may take to notice, at most: the
/// longest wait of the class, and a request with a slow answer.
pub(crate) fn recovery(class: FailureClass) -> Duration {
    let seconds = match class {
        FailureClass::Misconfigured => 600,
        // The next day and two minutes, or the class' longest wait in a day's first hour.
        FailureClass::QuotaSpent => 86_400 + 3_720,
        FailureClass::Unknown => 300,
        _ => 72,
    };
    Duration::from_secs(seconds + 40)
}
