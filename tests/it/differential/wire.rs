//! Bytes on the wire: replies as trees, requests as arrays or inline. Knows no command.

/// A reply as it came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reply {
    /// `+ - : , # _ (` and a line.
    Line(u8, Vec<u8>),
    /// `$ = !`: a string with its length.
    Bulk(u8, Vec<u8>),
    /// `$-1` or `*-1`.
    Nil(u8),
    /// `* ~ % >`: its elements; of a map, keys and values in turn.
    List(u8, Vec<Reply>),
    /// What is no whole reply: the end of a connection that was cut in the middle.
    Rest(Vec<u8>),
}

impl Reply {
    /// The replies in `bytes`.
    pub(super) fn all(mut bytes: &[u8]) -> Vec<Reply> {
        let mut replies = Vec::new();
        while !bytes.is_empty() {
            match Reply::first(bytes) {
                Some((reply, rest)) => {
                    replies.push(reply);
                    bytes = rest;
                }
                None => {
                    replies.push(Reply::Rest(bytes.to_vec()));
                    break;
                }
            }
        }
        replies
    }

    fn first(bytes: &[u8]) -> Option<(Reply, &[u8])> {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let (kind, line, mut rest) = (*bytes.first()?, &bytes[1..end.max(1)], &bytes[end + 2..]);
        let length = || std::str::from_utf8(line).ok()?.parse::<i64>().ok();
        let reply = match kind {
            b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => Reply::Line(kind, line.to_vec()),
            b'$' | b'=' | b'!' | b'*' | b'~' | b'%' | b'>' if length()? < 0 => Reply::Nil(kind),
            b'$' | b'=' | b'!' => {
                let length = usize::try_from(length()?).ok()?;
                let text = rest.get(..length)?.to_vec();
                rest = rest[length..].strip_prefix(b"\r\n")?;
                Reply::Bulk(kind, text)
            }
            b'*' | b'~' | b'%' | b'>' => {
                let mut elements = Vec::new();
                for _ in 0..length()? * if kind == b'%' { 2 } else { 1 } {
                    let (element, after) = Reply::first(rest)?;
                    elements.push(element);
                    rest = after;
                }
                Reply::List(kind, elements)
            }
            _ => return None,
        };
        Some((reply, rest))
    }

    /// The number of an integer reply.
    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Reply::Line(b':', digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The text of a string or a status.
    pub(super) fn text(&self) -> Option<&[u8]> {
        match self {
            Reply::Line(b'+', text) | Reply::Bulk(_, text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is an error whose text begins so.
    pub(super) fn is_error(&self, beginning: &str) -> bool {
        matches!(self, Reply::Line(b'-', text) if text.starts_with(beginning.as_bytes()))
    }

    /// The elements of a list, a set, a map or a push.
    pub(super) fn elements(&self) -> &[Reply] {
        match self {
            Reply::List(_, elements) => elements,
            _ => &[],
        }
    }

    /// For people.
    pub(super) fn show(&self) -> String {
        let bytes = |bytes: &[u8]| bytes.escape_ascii().to_string();
        match self {
            Reply::Line(kind, line) => format!("{}{}", char::from(*kind), bytes(line)),
            Reply::Bulk(kind, text) => format!("{}\"{}\"", char::from(*kind), bytes(text)),
            Reply::Nil(kind) => format!("{}-1", char::from(*kind)),
            Reply::List(kind, elements) => {
                let elements: Vec<String> = elements.iter().map(Reply::show).collect();
                format!("{}[{}]", char::from(*kind), elements.join(", "))
            }
            Reply::Rest(rest) => format!("(in part) {}", bytes(rest)),
        }
    }
}

/// A request as an array of strings.
pub(super) fn array(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// A request as a line, each word in the quotes it needs.
pub(super) fn inline(words: &[Vec<u8>], end: &str) -> Vec<u8> {
    let quoted: Vec<String> = words
        .iter()
        .map(|word| {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_:*.-+".contains(byte);
            if !word.is_empty() && word.iter().all(plain) {
                return String::from_utf8(word.clone()).unwrap();
            }
            let escape = |byte: &u8| match byte {
                b'"' | b'\\' => format!("\\{}", char::from(*byte)),
                b' '..=b'~' => char::from(*byte).to_string(),
                _ => format!("\\x{byte:02x}"),
            };
            format!("\"{}\"", word.iter().map(escape).collect::<String>())
        })
        .collect();
    format!("{}{end}", quoted.join(" ")).into_bytes()
}

#[test]
fn replies_are_read_to_their_last_byte() {
    let bytes = b"+OK\r\n$2\r\na\r\r\n*2\r\n:1\r\n$-1\r\n%1\r\n+k\r\n~0\r\n_\r\n$3\r\nab";
    let shown: Vec<String> = Reply::all(bytes).iter().map(Reply::show).collect();
    assert_eq!(
        shown,
        ["+OK", "$\"a\\r\"", "*[:1, $-1]", "%[+k, ~[]]", "_", "(in part) $3\\r\\nab"]
    );
}
