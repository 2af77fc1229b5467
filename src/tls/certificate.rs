//! How long a certificate is good for: the one thing that is read out of it here. Everything else
//! about certificates is rustls' business. Pure.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long before its end a certificate should have been replaced: certbot does it a month before,
/// so a week before nothing has come of that.
const END_IS_NEAR: Duration = Duration::from_secs(7 * DAY_SECONDS);

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// ASN.1 tags, as far as they are needed: X.690, section 8.
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// An instant as a certificate states it: in UTC, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant {
    year: u64,
    /// Month, day, hour, minute, second.
    rest: [u64; 5],
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Instant { year, rest: [month, day, hour, minute, second] } = self;
        write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

impl Instant {
    /// The same on the system's clock; what was before 1970 is 1970.
    fn time(self) -> SystemTime {
        let Instant { year, rest: [month, day, hour, minute, second] } = self;
        // The calendar repeats every 400 years of 146 097 days. Years counted from 1 March have the
        // leap day last: Hinnant, "chrono-compatible low-level date algorithms", days_from_civil.
        let year = if month <= 2 { year.saturating_sub(1) } else { year };
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
        let seconds = (days * 24 + hour) * 3_600 + minute * 60 + second;
        // 719 468 days lie between 1 March of the year 0 and 1970.
        let seconds = seconds.saturating_sub(719_468 * DAY_SECONDS);
        UNIX_EPOCH + Duration::from_secs(seconds)
    }
}

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

/// What a validity means at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is good.
    Good,
    /// Not much is left of it.
    Ending,
    /// It was good.
    Ended,
    /// It will be good.
    NotBegun,
}

impl Validity {
    /// Reads it from a certificate in DER: RFC 5280, section 4.1. `None`: it is none.
    pub(super) fn of(certificate: &[u8]) -> Option<Validity> {
        let (certificate, _) = element(certificate, SEQUENCE)?;
        let (mut fields, _) = element(certificate, SEQUENCE)?;
        if let Some((_, rest)) = element(fields, VERSION) {
            fields = rest;
        }
        // Serial number, algorithm of the signature, issuer.
        for _ in 0..3 {
            (_, fields) = any_element(fields)?;
        }
        let (validity, _) = element(fields, SEQUENCE)?;
        let (begin, rest) = instant(validity)?;
        let (end, _) = instant(rest)?;
        Some(Validity { begin, end })
    }

    /// What it means at `now`.
    pub(super) fn at(self, now: SystemTime) -> Life {
        let (begin, end) = (self.begin.time(), self.end.time());
        // Of a short life a week may be all there is.
        let whole = end.duration_since(begin).unwrap_or_default();
        if now < begin {
            Life::NotBegun
        } else if now >= end {
            Life::Ended
        } else if now + END_IS_NEAR.min(whole / 10) >= end {
            Life::Ending
        } else {
            Life::Good
        }
    }
}

/// Takes an element of this tag off the front; its content and what comes after it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    if *bytes.first()? == tag { any_element(bytes) } else { None }
}

/// Takes an element off the front. Its length has one byte, or says of how many it is made.
fn any_element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_, short], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (long, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Takes an instant off the front: YYMMDDhhmmssZ until 2049, YYYYMMDDhhmmssZ from then on.
fn instant(bytes: &[u8]) -> Option<(Instant, &[u8])> {
    let (&tag, _) = bytes.split_first()?;
    let (text, rest) = any_element(bytes)?;
    let digits = text.strip_suffix(b"Z")?;
    let pair = |pair: &[u8]| match pair {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(u64::from(tens - b'0') * 10 + u64::from(ones - b'0'))
        }
        _ => None,
    };
    let pairs: Vec<u64> = digits.chunks(2).map(pair).collect::<Option<_>>()?;
    let (year, after_year) = match (tag, &*pairs) {
        (UTC_TIME, [year @ 50..=99, rest @ ..]) => (1_900 + year, rest),
        (UTC_TIME, [year, rest @ ..]) => (2_000 + year, rest),
        (GENERALIZED_TIME, [century, year, rest @ ..]) => (century * 100 + year, rest),
        _ => return None,
    };
    let &[month, day, hour, minute, second] = after_year else { return None };
    let possible = (1..=12).contains(&month) && (1..=31).contains(&day);
    let possible = possible && hour < 24 && minute < 60 && second <= 60;
    possible.then_some((Instant { year, rest: [month, day, hour, minute, second] }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate(begin: (i32, u8, u8), end: (i32, u8, u8)) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(begin.0, begin.1, begin.2);
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn begin_and_end_are_read_on_both_sides_of_2050() {
        let der = certificate((1999, 12, 31), (2050, 2, 1));
        let Validity { begin, end } = Validity::of(&der).unwrap();
        assert_eq!(begin.to_string(), "1999-12-31 00:00:00 UTC");
        assert_eq!(end.to_string(), "2050-02-01 00:00:00 UTC");
    }

    #[test]
    fn an_instant_is_the_systems() {
        // (date, seconds since 1970: `date -u -d … +%s`)
        for (year, rest, seconds) in [
            (1970, [1, 1, 0, 0, 0], 0),
            (1969, [12, 31, 23, 59, 59], 0),
            (2000, [2, 29, 12, 0, 1], 951_825_601),
            (2000, [3, 1, 0, 0, 0], 951_868_800),
            (2025, [12, 31, 23, 59, 59], 1_767_225_599),
            (2100, [3, 1, 0, 0, 0], 4_107_542_400),
            (9999, [12, 31, 23, 59, 59], 253_402_300_799),
        ] {
            let instant = Instant { year, rest };
            assert_eq!(instant.time(), UNIX_EPOCH + Duration::from_secs(seconds), "{instant}");
        }
    }

    #[test]
    fn the_end_is_near_a_week_before_or_in_the_last_tenth() {
        let day = |day: u64| UNIX_EPOCH + Duration::from_secs((day - 1) * DAY_SECONDS);
        let validity = |end| Validity {
            begin: Instant { year: 1970, rest: [1, 2, 0, 0, 0] },
            end: Instant { year: 1970, rest: end },
        };
        // 90 days, and 10.
        let (long, short) = (validity([4, 2, 0, 0, 0]), validity([1, 12, 0, 0, 0]));
        for (validity, at, life) in [
            (long, 1, Life::NotBegun),
            (long, 2, Life::Good),
            (long, 84, Life::Good),
            (long, 85, Life::Ending),
            (long, 91, Life::Ending),
            (long, 92, Life::Ended),
            (short, 10, Life::Good),
            (short, 11, Life::Ending),
            (short, 12, Life::Ended),
        ] {
            assert_eq!(validity.at(day(at)), life, "day {at} of {validity:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(
            at in 0usize..400, byte: u8, cut in 0usize..600, noise in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let _ = Validity::of(&noise);
            let mut der = CERTIFICATE.with(Clone::clone);
            let at = at % der.len();
            der[at] = byte;
            der.truncate(cut);
            if let Some(validity) = Validity::of(&der) {
                let _ = validity.at(UNIX_EPOCH);
            }
        }
    }

    thread_local! {
        static CERTIFICATE: Vec<u8> = certificate((2020, 1, 1), (2030, 1, 1));
    }
}
