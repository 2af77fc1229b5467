//! How Redis 7.0.15 reads the words of a request: options, numbers, ranges, stream IDs, places. Each
//! function checks one kind of word and says Redis' text where it is none. Knows no key.

use std::borrow::Cow;

use crate::resp::parse::{Args, integer};

/// What a check brings, or the error that is answered.
pub(in crate::resp::command) type Checked<T> = Result<T, Cow<'static, str>>;

pub(in crate::resp::command) const SYNTAX: &str = "ERR syntax error";
pub(in crate::resp::command) const NOT_AN_INTEGER: &str =
    "ERR value is not an integer or out of range";
const NOT_A_FLOAT: &str = "ERR value is not a valid float";
const NO_STREAM_ID: &str = "ERR Invalid stream ID specified as stream command argument";

/// Goes through the words of a request that follow its fixed ones.
pub(in crate::resp::command) struct Words<'a> {
    args: Args<'a>,
    at: usize,
}

impl<'a> Words<'a> {
    /// The words from `at` on.
    pub(in crate::resp::command) fn new(args: Args<'a>, at: usize) -> Words<'a> {
        Words { args, at }
    }

    /// How many are left.
    pub(in crate::resp::command) fn left(&self) -> usize {
        self.args.len().saturating_sub(self.at)
    }

    /// The next one. Whoever takes it knows that it is there.
    pub(in crate::resp::command) fn take(&mut self) -> &'a [u8] {
        self.at += 1;
        self.args.at(self.at - 1)
    }

    /// The next option, which is one of `known`: its name, in lower case, and how many words must
    /// follow it. `None` after the last word.
    pub(in crate::resp::command) fn option(
        &mut self,
        known: &[(&'static str, usize)],
    ) -> Checked<Option<&'static str>> {
        if self.left() == 0 {
            return Ok(None);
        }
        let word = self.take();
        let fits = |&(name, wanted): &(&'static str, usize)| {
            (word.eq_ignore_ascii_case(name.as_bytes()) && self.left() >= wanted).then_some(name)
        };
        known.iter().find_map(fits).map(Some).ok_or(SYNTAX.into())
    }
}

/// A whole number.
pub(in crate::resp::command) fn number(word: &[u8]) -> Checked<i64> {
    integer(word).ok_or(NOT_AN_INTEGER.into())
}

/// A whole number of `least` or more; anything else is answered `refusal`.
pub(super) fn at_least(least: i64, word: &[u8], refusal: &'static str) -> Checked<i64> {
    integer(word).filter(|number| *number >= least).ok_or(refusal.into())
}

/// How many random members are wanted; negative: the same ones may come again.
pub(super) fn how_many(word: &[u8]) -> Checked<i64> {
    match number(word)? {
        i64::MIN => Err("ERR value is out of range, value must between \
                         -9223372036854775807 and 9223372036854775807"
            .into()),
        count => Ok(count),
    }
}

/// A number as C's `strtod` reads a whole word; what is too large for it is infinite, what is too
/// small is 0, and both are said to be `out_of_range`.
#[derive(Debug, Clone, Copy)]
struct Float {
    value: f64,
    out_of_range: bool,
}

fn strtod(word: &[u8]) -> Option<Float> {
    if word.is_empty() {
        return Some(Float { value: 0.0, out_of_range: false });
    }
    let text = std::str::from_utf8(word).ok()?.trim_start_matches(is_space);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (value, is_exact) = match unsigned.get(..2) {
        Some("0x" | "0X") => hexadecimal(&unsigned[2..])?,
        _ => decimal(unsigned)?,
    };
    let value = if text.starts_with('-') { -value } else { value };
    Some(Float { value, out_of_range: !is_exact && (value == 0.0 || value.is_infinite()) })
}

/// A decimal number, or the name of none, without a sign; and whether it is exactly 0 or infinite
/// if it seems to be.
fn decimal(text: &str) -> Option<(f64, bool)> {
    let value = text.parse().ok().filter(|_| !text.starts_with(['+', '-']))?;
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic());
    Some((value, is_name || !mantissa.contains(|c: char| matches!(c, '1'..='9'))))
}

/// The digits after `0x`, with a point and a binary exponent if they like; as [`decimal`].
fn hexadecimal(text: &str) -> Option<(f64, bool)> {
    let (mantissa, exponent) = match text.split_once(['p', 'P']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| {
        text.chars().try_fold(0.0, |sum, digit| Some(sum * 16.0 + f64::from(digit.to_digit(16)?)))
    };
    let places = i32::try_from(fraction.len()).ok()?;
    let mantissa = digits(whole)? + digits(fraction)? * 16f64.powi(-places);
    Some((mantissa * f64::from(exponent).exp2(), mantissa == 0.0))
}

/// A space for C.
fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// A number with a fraction; anything else is answered `refusal`.
pub(super) fn float(word: &[u8], refusal: &'static str) -> Checked<f64> {
    let spaced = word.first().is_none_or(|&first| is_space(first.into()));
    strtod(word)
        .filter(|float| !spaced && !float.out_of_range && !float.value.is_nan())
        .map(|float| float.value)
        .ok_or(refusal.into())
}

/// The two ends of a range of scores: `1.5`, `(1.5`, `-inf`.
pub(super) fn scores(min: &[u8], max: &[u8]) -> Checked<()> {
    let is_score = |word: &[u8]| {
        let word = word.strip_prefix(b"(").unwrap_or(word);
        // For C the word ends here.
        let word = word.split(|&byte| byte == 0).next().unwrap_or_default();
        strtod(word).is_some_and(|float| !float.value.is_nan())
    };
    match is_score(min) && is_score(max) {
        true => Ok(()),
        false => Err("ERR min or max is not a float".into()),
    }
}

/// The two ends of a range of members: `[a`, `(a`, `-`, `+`.
pub(super) fn members(min: &[u8], max: &[u8]) -> Checked<()> {
    let is_item = |word: &[u8]| matches!(word, b"-" | b"+" | [b'[' | b'(', ..]);
    match is_item(min) && is_item(max) {
        true => Ok(()),
        false => Err("ERR min or max not valid string range item".into()),
    }
}

/// The two positions of a range.
pub(super) fn positions(first: &[u8], last: &[u8]) -> Checked<()> {
    number(first)?;
    number(last)?;
    Ok(())
}

/// The ID of an entry in a stream: milliseconds and a sequence.
type StreamId = (u64, u64);

/// An ID as it is, without the names of the first and the last; `missing` is its sequence where it
/// has none.
pub(super) fn stream_id(word: &[u8], missing: u64) -> Checked<StreamId> {
    let parse = || {
        let text = std::str::from_utf8(word).ok().filter(|text| text.len() <= 127)?;
        match text.split_once('-') {
            None => Some((unsigned(text)?, missing)),
            Some((millis, sequence)) => Some((unsigned(millis)?, unsigned(sequence)?)),
        }
    };
    parse().ok_or(NO_STREAM_ID.into())
}

/// The two ends of a range of IDs: `-`, `+`, `1-2`, `(1-2`.
pub(super) fn stream_ids(start: &[u8], end: &[u8]) -> Checked<()> {
    let side = |word: &[u8], missing, nothing_beyond: StreamId, refusal: &'static str| match word {
        b"-" | b"+" => Ok(()),
        [b'(', id @ ..] if !id.is_empty() => match stream_id(id, missing)? {
            id if id == nothing_beyond => Err(refusal.into()),
            _ => Ok(()),
        },
        id => stream_id(id, missing).map(drop),
    };
    side(start, 0, (u64::MAX, u64::MAX), "ERR invalid start ID for the interval")?;
    side(end, u64::MAX, (0, 0), "ERR invalid end ID for the interval")
}

/// As Redis' `string2ull`: an [`integer`] that is not negative; what is none is left to `strtoull`,
/// which lets spaces, zeros and signs stand before the digits.
fn unsigned(text: &str) -> Option<u64> {
    if let Some(number) = integer(text.as_bytes()) {
        return u64::try_from(number).ok();
    }
    let text = text.trim_start_matches(is_space);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let value: u64 = digits.parse().ok().filter(|_| !digits.starts_with('+'))?;
    Some(if text.starts_with('-') { value.wrapping_neg() } else { value })
}

/// A unit of length.
pub(super) fn unit(word: &[u8]) -> Checked<()> {
    match [&b"m"[..], b"km", b"ft", b"mi"].iter().any(|unit| word.eq_ignore_ascii_case(unit)) {
        true => Ok(()),
        false => Err("ERR unsupported unit provided. please use M, KM, FT, MI".into()),
    }
}

/// How far Redis' coordinates reach, by longitude and by latitude.
const FARTHEST: (f64, f64) = (180.0, 85.051_128_78);

/// A longitude and a latitude.
pub(super) fn place(longitude: &[u8], latitude: &[u8]) -> Checked<()> {
    let (longitude, latitude) = (float(longitude, NOT_A_FLOAT)?, float(latitude, NOT_A_FLOAT)?);
    if longitude.abs() > FARTHEST.0 || latitude.abs() > FARTHEST.1 {
        let text = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
        return Err(text.into());
    }
    Ok(())
}

/// A radius and its unit.
pub(super) fn radius(radius: &[u8], its_unit: &[u8]) -> Checked<()> {
    if float(radius, "ERR need numeric radius")? < 0.0 {
        return Err("ERR radius cannot be negative".into());
    }
    unit(its_unit)
}

/// The width and the height of a box and their unit.
pub(super) fn extent(width: &[u8], height: &[u8], their_unit: &[u8]) -> Checked<()> {
    let width = float(width, "ERR need numeric width")?;
    let height = float(height, "ERR need numeric height")?;
    if width < 0.0 || height < 0.0 {
        return Err("ERR height or width cannot be negative".into());
    }
    unit(their_unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_read_as_c_reads_them() {
        for (word, value) in [
            ("1", 1.0),
            ("+.5", 0.5),
            ("-1.e1", -10.0),
            ("0x10", 16.0),
            ("-0X.8p+2", -2.0),
            ("-Infinity", f64::NEG_INFINITY),
            ("0e999", 0.0),
            ("0x0p-9", 0.0),
            ("0xep-3", 1.75),
            ("0x1p-1074", f64::from_bits(1)),
        ] {
            assert_eq!(float(word.as_bytes(), "no"), Ok(value), "{word}");
        }
        let none = [
            "",
            " 1",
            "1 ",
            "0x",
            "0x.",
            "1e",
            "1e999",
            "-1e-999",
            "0xep-2000",
            "0x1p2000",
            "nan",
            "x",
            "+-1",
            "--1",
            "+-inf",
            "1_0",
        ];
        for word in none {
            assert!(float(word.as_bytes(), "no").is_err(), "{word}");
        }
        // A range of scores is read with fewer questions.
        for word in ["", " 1", "(", "(-inf", "1e999", "(1e-999"] {
            assert!(scores(word.as_bytes(), b"0").is_ok(), "{word}");
        }
        for word in ["1 ", "((1", "nan", "(nan", "0x", "\u{e9}"] {
            assert!(scores(word.as_bytes(), b"0").is_err(), "{word}");
        }
    }

    #[test]
    fn stream_ids_are_read_as_redis_reads_them() {
        let most = u64::MAX;
        for (word, id) in [
            ("0", (0, 7)),
            ("5-3", (5, 3)),
            ("18446744073709551615-18446744073709551615", (most, most)),
            (" +01-00", (1, 0)),
            ("5--01", (5, most)),
        ] {
            assert_eq!(stream_id(word.as_bytes(), 7), Ok(id), "{word}");
        }
        for word in ["", "-", "+", "-5", "5-", "5--1", "5-1-1", "18446744073709551616", "++1", "5 "]
        {
            assert!(stream_id(word.as_bytes(), 7).is_err(), "{word}");
        }
        let whole = format!("({most}-{most}");
        assert_eq!(stream_ids(b"(0-0", b"+"), Ok(()));
        assert_eq!(
            stream_ids(whole.as_bytes(), b"(0-0"),
            Err("ERR invalid start ID for the interval".into())
        );
        assert_eq!(stream_ids(b"-", b"(0-0"), Err("ERR invalid end ID for the interval".into()));
    }
}
