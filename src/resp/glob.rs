//! Matches names against Redis' glob patterns: `*`, `?`, `[a-z]`, `[^a]` and the backslash. Pure.
//!
//! Never backtracks further than the last `*`, so a hostile pattern costs the product of the two
//! lengths at most, where the obvious recursion costs an exponential of the stars.

/// The longest pattern that matches anything. Names have at most 256 bytes, so a longer one says
/// nothing that a shorter one could not, and every name would pay for it.
const MAX_PATTERN_BYTES: usize = 1_024;

/// Whether letters match their other case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// They do not: keys.
    Sensitive,
    /// They do: names of commands and settings.
    Insensitive,
}

/// Whether the whole of `text` matches `pattern`.
pub(super) fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    if pattern.len() > MAX_PATTERN_BYTES {
        return false;
    }
    if text.is_empty() {
        // In Redis nothing but nothing matches it: `stringmatchlen` in util.c ends before it sees a star.
        return pattern.is_empty();
    }
    let (mut p, mut t) = (pattern, text);
    // What to try next when the rest does not match: the pattern after the last star, and the text
    // with one byte more swallowed by that star.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = p {
            p = after;
            retry = Some((p, t));
            continue;
        }
        match t.split_first() {
            None if p.is_empty() => return true,
            // A star can only swallow more of the text, and there is no more.
            None => return false,
            Some((&byte, rest)) => {
                if let Some(after) = one(p, byte, case) {
                    (p, t) = (after, rest);
                    continue;
                }
            }
        }
        match retry {
            Some((after_star, [_, rest @ ..])) => {
                retry = Some((after_star, rest));
                (p, t) = (after_star, rest);
            }
            _ => return false,
        }
    }
}

/// Matches `byte` against the first element of `pattern`, which is no star: the pattern after it.
fn one(pattern: &[u8], byte: u8, case: Case) -> Option<&[u8]> {
    let fold = |byte: u8| match case {
        Case::Sensitive => byte,
        Case::Insensitive => byte.to_ascii_lowercase(),
    };
    let byte = fold(byte);
    match pattern {
        [] => None,
        [b'?', after @ ..] => Some(after),
        [b'[', class @ ..] => {
            let (class, negated) = match class {
                [b'^', class @ ..] => (class, true),
                class => (class, false),
            };
            let (mut class, mut found) = (class, false);
            loop {
                // In the order of Redis: an escape, the end, a range, a byte.
                class = match class {
                    [b'\\', escaped, after @ ..] => {
                        found |= fold(*escaped) == byte;
                        after
                    }
                    [b']', after @ ..] => return (found != negated).then_some(after),
                    [] => return (found != negated).then_some(class),
                    [start, b'-', end, after @ ..] => {
                        let (start, end) = (fold(*start), fold(*end));
                        found |= (start.min(end)..=start.max(end)).contains(&byte);
                        after
                    }
                    [single, after @ ..] => {
                        found |= fold(*single) == byte;
                        after
                    }
                };
            }
        }
        [b'\\', escaped, after @ ..] => (fold(*escaped) == byte).then_some(after),
        [literal, after @ ..] => (fold(*literal) == byte).then_some(after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", false),
            ("**", "", false),
            ("", "", true),
            ("a*", "a", true),
            ("", "a", false),
            ("a*", "access_token", true),
            ("*token", "access_token", true),
            ("*a*a*", "aba", true),
            ("*a*a*", "ab", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hello", false),
            (r"[\]]", "]", true),
            ("[abc", "b", true),
            ("[abc", "d", false),
            ("[^", "d", true),
            (r"a\", r"a\", true),
            ("**x**", "axb", true),
            ("*?", "", false),
            ("A", "a", false),
            ("公*", "公众号", true),
        ] {
            let got = matches(pattern.as_bytes(), text.as_bytes(), Case::Sensitive);
            assert_eq!(got, expected, "{pattern:?} against {text:?}");
        }
        assert!(matches(b"GET[R-T]*", b"getrange", Case::Insensitive));
    }

    #[test]
    fn a_pattern_of_stars_ends() {
        let pattern = b"*a".repeat(MAX_PATTERN_BYTES / 2);
        assert!(!matches(&pattern, &b"a".repeat(256), Case::Sensitive));
        assert!(!matches(b"*a*a*a*a*a*a*a*a*b", &b"a".repeat(256), Case::Sensitive));
    }
}
