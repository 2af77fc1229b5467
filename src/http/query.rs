//! Reads `type`, `secret`, `stale` and `force` from a query string and a form body, by the rules of the original
//! (tornado's `get_argument`). Borrows plain values; does no I/O.

use std::borrow::Cow;

/// What a client asks for. Both values are decoded, rid of control characters and stripped; bytes
/// that are not UTF-8 stay as they are, and match no name and no secret.
#[derive(Default)]
pub(super) struct Asked<'a> {
    /// The source's name; `Some` but empty for `type=`.
    pub(super) source: Option<Cow<'a, [u8]>>,
    /// What the client holds for our secret. Not a `Secret` type: it is as long as it likes and is
    /// only ever compared.
    pub(super) secret: Option<Cow<'a, [u8]>>,
    /// The token that the client saw refused, or its SHA-256 in hexadecimal digits.
    stale: Option<Cow<'a, [u8]>>,
    /// `force=1`: a new token is wanted although the old one is good.
    pub(super) force: bool,
}

impl<'a> Asked<'a> {
    /// Reads a query string and after it a form body: the last of repeated parameters wins.
    pub(super) fn of(query: &'a [u8], form: &'a [u8]) -> Asked<'a> {
        // One look at all of it: most often nothing is coded.
        let is_plain = |text| memchr::memchr2(b'%', b'+', text).is_none();
        let all_plain = is_plain(query) && is_plain(form);
        let decoded = |raw| if all_plain { Cow::Borrowed(raw) } else { percent_decoded(raw) };
        let (mut source, mut secret, mut stale, mut force) = (None, None, None, None);
        for mut rest in [query, form] {
            while !rest.is_empty() {
                let (field, after) = cut(rest, b'&');
                rest = after;
                let (name, value) = cut(field, b'=');
                match &*decoded(name) {
                    b"type" => source = Some(value),
                    b"secret" => secret = Some(value),
                    b"stale" => stale = Some(value),
                    b"force" => force = Some(value),
                    _ => {}
                }
            }
        }
        let argument = |value| stripped(decoded(value));
        Asked {
            source: source.map(argument),
            secret: secret.map(argument),
            stale: stale.map(argument),
            force: force.map(argument).as_deref() == Some(b"1"),
        }
    }

    /// The refused token as text; `None` if there is none, or nothing in it that a token has.
    pub(super) fn stale(&self) -> Option<&str> {
        let stale = std::str::from_utf8(self.stale.as_deref()?).ok()?;
        (!stale.is_empty()).then_some(stale)
    }

    /// The name as text; `None` also for bytes that cannot be a name.
    pub(super) fn source_name(&self) -> Option<&str> {
        self.source.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

/// What is before the first `separator`, and what is after it: nothing, if there is none.
fn cut(text: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match memchr::memchr(separator, text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

/// `+` becomes a space and `%41` an `A`; a `%` without two hexadecimal digits stays.
fn percent_decoded(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(raw);
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        rest = tail;
        decoded.push(match (first, hex_pair(tail)) {
            (b'+', _) => b' ',
            (b'%', Some(byte)) => {
                rest = &tail[2..];
                byte
            }
            (other, _) => *other,
        });
    }
    Cow::Owned(decoded)
}

fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

/// Control characters other than the white ones become spaces, then white space is stripped.
fn stripped(value: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if value.iter().fold(true, |all, byte| all & byte.is_ascii_graphic()) {
        return value;
    }
    let Ok(text) = std::str::from_utf8(&value) else { return value };
    let is_control = |c: char| matches!(c, '\0'..='\x08' | '\x0e'..='\x1f');
    let text = text.replace(is_control, " ");
    Cow::Owned(text.trim().as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks (query, form) against (type, secret).
    fn check((query, form): (&str, &str), (source, secret): (Option<&[u8]>, Option<&[u8]>)) {
        let asked = Asked::of(query.as_bytes(), form.as_bytes());
        assert_eq!(asked.source.as_deref(), source, "{query} {form}");
        assert_eq!(asked.secret.as_deref(), secret, "{query} {form}");
    }

    /// The expected values were taken from tornado 6.6.1: `parse_qs_bytes`, then `get_argument`.
    #[test]
    fn parameters_are_read_as_tornado_reads_them() {
        type Case = (&'static str, Option<&'static str>, Option<&'static str>);
        let cases: &[Case] = &[
            ("", None, None),
            ("&&", None, None),
            ("type=t&secret=s", Some("t"), Some("s")),
            ("secret=s&type=t", Some("t"), Some("s")),
            ("type=a&type=b&secret=x&secret=y", Some("b"), Some("y")),
            ("type=a&type=", Some(""), None),
            ("type", Some(""), None),
            ("type=", Some(""), None),
            ("=t", None, None),
            ("type=a=b", Some("a=b"), None),
            ("type=a;secret=s", Some("a;secret=s"), None),
            ("Type=a&types=b", None, None),
            ("%74ype=a&s%65cret=b", Some("a"), Some("b")),
            ("type=%41%2b+%2B", Some("A+ +"), None),
            ("type=%&secret=%4", Some("%"), Some("%4")),
            ("type=%zz%4g", Some("%zz%4g"), None),
            ("type=%E5%85%AC%e4%BC%97", Some("公众"), None),
            ("type=+t+&secret=%09s%0d%0a", Some("t"), Some("s")),
            ("type=%e3%80%80t%c2%a0%c2%85", Some("t"), None),
            ("type=a%00b%1fc%7f", Some("a b c\x7f"), None),
            ("type=%00%01a%0b", Some("a"), None),
            ("type=a%09b", Some("a\tb"), None),
            ("type=%1c%1da", Some("a"), None),
        ];
        for (query, source, secret) in cases {
            check((query, ""), (source.map(str::as_bytes), secret.map(str::as_bytes)));
        }
    }

    #[test]
    fn a_form_comes_after_the_query() {
        check(("type=a&secret=q", "secret=f"), (Some(b"a"), Some(b"f")));
        check(("", "type=b&secret=f"), (Some(b"b"), Some(b"f")));
        check(("type=a", ""), (Some(b"a"), None));
    }

    #[test]
    fn what_is_not_utf_8_stays_and_is_no_name() {
        check(("type=%ff+", ""), (Some(b"\xff "), None));
        assert_eq!(Asked::of(b"type=%ff", b"").source_name(), None);
        assert_eq!(Asked::of(b"type=%c3%a9", b"").source_name(), Some("é"));
    }

    #[test]
    fn plain_values_are_borrowed() {
        let asked = Asked::of(b"type=access_token&secret=f3b2241f", b"");
        assert!(matches!(asked.source, Some(Cow::Borrowed(_))));
        assert!(matches!(asked.secret, Some(Cow::Borrowed(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(query: Vec<u8>, form: Vec<u8>) {
            let asked = Asked::of(&query, &form);
            let _ = asked.source_name();
        }
    }
}
