//! What must hold of RESP for any bytes; see `crate::fuzzing`. Here: requests, and the shape of replies.

use crate::resp::parse::{Parser, ProtocolError};

pub(crate) use crate::resp::session::fuzzing::session;

/// The longest input whose requests cannot depend on where it was cut: a line without an end is given up
/// after this much, and how much has arrived by then depends on the cuts.
const LONGEST: usize = 64 * 1024;

/// The first byte says who asks and how the rest arrives.
pub(crate) fn request(input: &[u8]) {
    let Some((&setup, bytes)) = input.split_first() else { return };
    let authenticated = setup & 1 == 1;
    let whole = read([bytes], authenticated);
    let chunked = read(bytes.chunks(usize::from(setup >> 1) + 1), authenticated);
    if bytes.len() <= LONGEST {
        assert_eq!(chunked, whole, "it depends on where the bytes are cut");
    }
    // What was understood is understood again, said as an array.
    let said: Vec<u8> = whole.0.iter().flat_map(|request| array(request)).collect();
    assert_eq!(read([said.as_slice()], true), (whole.0, None));
}

/// The words of every request, and the error that ended the reading.
type Understood = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Reads pieces as a session does.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, authenticated: bool) -> Understood {
    let (mut parser, mut input, mut requests) = (Parser::default(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match parser.next(&input, authenticated) {
                Ok(true) => {
                    requests.push(parser.args(&input).from(0).map(<[u8]>::to_vec).collect());
                }
                Ok(false) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
        input.drain(..parser.take_consumed());
        parser.shrink();
    }
    (requests, None)
}

/// A request as an array.
pub(super) fn array(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// What may occur in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Resp2,
    Resp3,
    /// Both: EXEC has run a HELLO.
    Mixed,
}

/// Takes replies apart, each with whatever is inside it. Panics where the bytes are none, or a reply is not
/// whole.
pub(super) fn frames(mut bytes: &[u8], dialect: Dialect) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let end = frame(bytes, dialect);
        let end = end.unwrap_or_else(|| panic!("no reply: {:?}", bytes.escape_ascii().to_string()));
        frames.push(bytes[..end].to_vec());
        bytes = &bytes[end..];
    }
    frames
}

/// How long the reply is that `bytes` begin with; `None` if they begin with none.
fn frame(bytes: &[u8], dialect: Dialect) -> Option<usize> {
    let line_end = bytes.windows(2).position(|end| end == b"\r\n")?;
    let (&kind, line) = bytes[..line_end].split_first()?;
    let after = line_end + 2;
    let text = std::str::from_utf8(line).ok();
    let number = text.and_then(|text| text.parse::<i64>().ok());
    let bulk = |least: usize| {
        let len = usize::try_from(number?).ok().filter(|len| *len >= least)?;
        let end = after.checked_add(len)?;
        (bytes.get(end..end + 2)? == b"\r\n").then_some(end + 2)
    };
    let elements = |each: usize| {
        let count = usize::try_from(number?).ok()?.checked_mul(each)?;
        (0..count).try_fold(after, |at, _| Some(at + frame(&bytes[at..], dialect)?))
    };
    match kind {
        b'+' | b'-' => (!line.contains(&b'\r') && !line.contains(&b'\n')).then_some(after),
        b':' => number.map(|_| after),
        b'$' | b'*' if number == Some(-1) => (dialect != Dialect::Resp3).then_some(after),
        b'$' => bulk(0),
        b'*' => elements(1),
        _ if dialect == Dialect::Resp2 => None,
        b'_' => line.is_empty().then_some(after),
        b'#' => matches!(line, b"t" | b"f").then_some(after),
        b',' => text.and_then(|text| text.parse::<f64>().ok()).map(|_| after),
        b'=' => bulk(4).filter(|_| bytes[after..].starts_with(b"txt:")),
        b'~' | b'>' => elements(1),
        b'%' => elements(2),
        _ => None,
    }
}
