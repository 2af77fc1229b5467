//! Splits an inline request into its arguments by Redis' quoting rules. Pure.

use crate::resp::parse::{Span, span};

/// Appends the arguments of `line`, without their quotes, to `unquoted`, and where each is to
/// `spans`. Says whether the quotes were balanced.
///
/// An argument ends at a space, tab or line end. Between double quotes `\n \r \t \b \a` and `\xHH`
/// are what they are in C, and a backslash before any other byte is dropped; between single quotes
/// only `\'` is special. A closing quote must be followed by a space or the end.
pub(super) fn split(line: &[u8], unquoted: &mut Vec<u8>, spans: &mut Vec<Span>) -> bool {
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // C's isspace also knows the vertical tab, trim_ascii_start does not.
        while let [0x0b, after @ ..] = rest {
            rest = after.trim_ascii_start();
        }
        if rest.is_empty() {
            return true;
        }
        let start = unquoted.len();
        match argument(rest, unquoted) {
            Some(after) => rest = after,
            None => return false,
        }
        spans.push(span(start, unquoted.len() - start));
    }
}

/// Takes one argument off the front of `rest`.
fn argument<'a>(mut rest: &'a [u8], unquoted: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return Some(rest),
            [b' ' | b'\n' | b'\r' | b'\t', after @ ..] => return Some(after),
            [b'"', after @ ..] => return end_of_argument(double_quoted(after, unquoted)?),
            [b'\'', after @ ..] => return end_of_argument(single_quoted(after, unquoted)?),
            [byte, after @ ..] => {
                unquoted.push(*byte);
                rest = after;
            }
        }
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], unquoted: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = match rest {
            [] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) << 4 | hex(*low), after)
            }
            [b'\\', escaped, after @ ..] => {
                let byte = match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                };
                (byte, after)
            }
            [byte, after @ ..] => (*byte, after),
        };
        unquoted.push(byte);
        rest = after;
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], unquoted: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = match rest {
            [] => return None,
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
        };
        unquoted.push(byte);
        rest = after;
    }
}

/// What follows a closing quote: a space (any that C's `isspace` knows) or nothing.
fn end_of_argument(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [] => Some(rest),
        [byte, ..] if byte.is_ascii_whitespace() || *byte == 0x0b => Some(rest),
        _ => None,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&[&str]>) {
        let (mut unquoted, mut spans) = (Vec::new(), Vec::new());
        let balanced = split(line.as_bytes(), &mut unquoted, &mut spans);
        let got: Vec<&[u8]> =
            spans.iter().map(|s| &unquoted[s.start as usize..(s.start + s.len) as usize]).collect();
        match expected {
            None => assert!(!balanced, "{line:?} gave {got:?}"),
            Some(args) => {
                let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
                assert!(balanced && got == args, "{line:?} gave {got:?}");
            }
        }
    }

    // Each line was given to redis-server 7.0.15 behind an ECHO or an unknown command.
    #[test]
    fn quotes_are_read_as_redis_reads_them() {
        check("", Some(&[]));
        check(" \t\x0b ", Some(&[]));
        check("PING", Some(&["PING"]));
        check("  GET\t a ", Some(&["GET", "a"]));
        check("ECHO a\x0bb", Some(&["ECHO", "a\x0bb"]));
        check(r#"ECHO "a b\x41\n\"""#, Some(&["ECHO", "a bA\n\""]));
        check(r#"ECHO "\q\xZZ\x4""#, Some(&["ECHO", "qxZZx4"]));
        check(r"ECHO 'a \'b\n'", Some(&["ECHO", r"a 'b\n"]));
        check("ECHO ''", Some(&["ECHO", ""]));
        check(r#"ECHO a"b c""#, Some(&["ECHO", "ab c"]));
        check(r#"ECHO "a"b"#, None);
        check(r#"ECHO """""#, None);
        check("ECHO 'a", None);
        check("ECHO \"a", None);
        check("ECHO \"a\\", None);
    }
}
