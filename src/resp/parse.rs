//! Turns bytes into requests: a flat list of arguments, from a multibulk array or an inline line,
//! with Redis' limits, quirks and error texts. Knows no socket and no command.
//!
//! Nothing is copied: an argument is a range of the input. A request that has not arrived in full
//! is taken up where it stopped, so a client that drips bytes costs no more than one that does not.
//! Nesting does not exist in requests, and so neither does recursion.

use crate::resp::inline;
use crate::tls::HANDSHAKE_RECORD;

/// The most arguments of one request. 10 000 sources fit in one MGET, with room to spare; Redis
/// admits 2^31 - 1, which is a promise of memory to whoever asks.
pub(super) const MAX_ARGS: i64 = 16_384;

/// The longest argument, in bytes. A key has at most 256 bytes; what is longer is the value of a
/// write that will be refused, and deserves that refusal rather than a cut connection.
const MAX_BULK_BYTES: i64 = 512 * 1024;

/// The longest request, in bytes: `MAX_ARGS` names of ordinary length. A connection that exceeds it
/// is closed without a word, as Redis does at its query buffer limit.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// The longest line (an inline request, or the header of an array or a bulk), as in Redis.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Before AUTH, as in Redis: what a handshake needs, and nothing to fill memory with.
const MAX_ARGS_BEFORE_AUTH: i64 = 10;

/// Before AUTH, as in Redis.
const MAX_BULK_BYTES_BEFORE_AUTH: i64 = 16 * 1024;

/// The longest request before AUTH, in bytes: two arguments of the longest kind, a name and a key. Redis
/// would take ten.
const MAX_REQUEST_BYTES_BEFORE_AUTH: usize = 33 * 1024;

/// Redis' own limits, where its error text changes.
const REDIS_MAX_ARGS: i64 = i32::MAX as i64;
const REDIS_MAX_BULK_BYTES: i64 = 512 * 1024 * 1024;

/// The byte after it, of every version: RFC 8446, section 5.1.
const TLS_VERSION: u8 = 3;

/// How many ranges a connection keeps for its next request; what is above is given back.
const KEPT_ARGS: usize = 8;

/// Why a connection's bytes cannot be understood; it is closed after the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProtocolError {
    /// A line without an end.
    InlineTooBig,
    /// `*` without a line end.
    ArrayHeaderTooBig,
    /// `$` without a line end.
    BulkHeaderTooBig,
    /// Not a number of arguments, or too many.
    ArrayLength,
    /// Too many arguments before AUTH.
    ArrayLengthBeforeAuth,
    /// Something else where a bulk had to begin.
    NoBulk(u8),
    /// Not a length, or too long.
    BulkLength,
    /// Too long before AUTH.
    BulkLengthBeforeAuth,
    /// An inline request with a quote that does not end, or not where an argument does.
    Quotes,
    /// More than `MAX_REQUEST_BYTES`; there is no text for it.
    RequestTooBig,
    /// The first message of TLS; who sent it does not understand ours.
    TlsHello,
}

impl ProtocolError {
    /// Redis' text, without the `-ERR ` before it; `None` where Redis closes without one.
    pub(super) fn text(self) -> Option<Vec<u8>> {
        let what = match self {
            ProtocolError::InlineTooBig => "too big inline request",
            ProtocolError::ArrayHeaderTooBig => "too big mbulk count string",
            ProtocolError::BulkHeaderTooBig => "too big bulk count string",
            ProtocolError::ArrayLength => "invalid multibulk length",
            ProtocolError::ArrayLengthBeforeAuth => "unauthenticated multibulk length",
            ProtocolError::NoBulk(got) => {
                return Some([&b"Protocol error: expected '$', got '"[..], &[got], b"'"].concat());
            }
            ProtocolError::BulkLength => "invalid bulk length",
            ProtocolError::BulkLengthBeforeAuth => "unauthenticated bulk length",
            ProtocolError::Quotes => "unbalanced quotes in request",
            ProtocolError::RequestTooBig | ProtocolError::TlsHello => return None,
        };
        Some(format!("Protocol error: {what}").into_bytes())
    }
}

/// Where an argument is, counted from the first byte of its request (or of its unquoted line).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Its first byte.
    pub(super) start: u32,
    /// Its length.
    pub(super) len: u32,
}

/// The arguments of one request, the command's name first. There is at least that one.
#[derive(Clone, Copy)]
pub(super) struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// The arguments at `spans` of `bytes`; at least one.
    pub(super) fn new(bytes: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        Args { bytes, spans }
    }

    /// How many there are, the command's name included.
    pub(super) fn len(self) -> usize {
        self.spans.len()
    }

    /// The argument at `at`. A command whose arity was checked may index as far as its arity says.
    pub(super) fn at(self, at: usize) -> &'a [u8] {
        let Span { start, len } = self.spans[at];
        &self.bytes[start as usize..start as usize + len as usize]
    }

    /// The argument at `at`, if there is one.
    pub(super) fn get(self, at: usize) -> Option<&'a [u8]> {
        (at < self.len()).then(|| self.at(at))
    }

    /// The request that is named in this one, from `first` on, where there is one.
    pub(super) fn after(self, first: usize) -> Args<'a> {
        Args { spans: &self.spans[first..], ..self }
    }

    /// The arguments from `first` on.
    pub(super) fn from(self, first: usize) -> impl ExactSizeIterator<Item = &'a [u8]> {
        (first..self.len().max(first)).map(move |at| self.at(at))
    }
}

/// Reads requests one after the other from a growing input. See [`Parser::next`].
#[derive(Default)]
pub(super) struct Parser {
    /// Where the request that is being read begins.
    start: usize,
    /// The first byte that is not understood yet.
    at: usize,
    /// How many bytes from `at` on are known to hold no line end.
    searched: usize,
    /// How many arguments of the array are still to come; 0 between requests.
    missing: usize,
    /// The length of the bulk whose header has been read.
    bulk: Option<usize>,
    spans: Vec<Span>,
    /// The arguments of an inline request, without their quotes.
    unquoted: Vec<u8>,
    inline: bool,
}

impl Parser {
    /// Looks for the next request in `input`: all bytes received that have not been
    /// [given up](Parser::take_consumed). Says whether there is one in full; it is then in
    /// [`Parser::args`] until the next call.
    ///
    /// # Errors
    /// The bytes are no request; the connection cannot go on.
    pub(super) fn next(
        &mut self,
        input: &[u8],
        authenticated: bool,
    ) -> Result<bool, ProtocolError> {
        while self.missing == 0 {
            self.start = self.at;
            self.spans.clear();
            match input.get(self.at) {
                None => return Ok(false),
                Some(b'*') => match self.array_header(input, authenticated)? {
                    None => return Ok(false),
                    Some(missing) => {
                        self.missing = missing;
                        self.inline = false;
                    }
                },
                Some(&HANDSHAKE_RECORD) if input.get(self.at + 1) == Some(&TLS_VERSION) => {
                    return Err(ProtocolError::TlsHello);
                }
                Some(_) => {
                    if !self.inline_request(input)? {
                        return Ok(false);
                    }
                    if !self.spans.is_empty() {
                        return Ok(true);
                    }
                }
            }
        }
        while self.missing > 0 {
            if !self.bulk(input, authenticated)? {
                let most =
                    if authenticated { MAX_REQUEST_BYTES } else { MAX_REQUEST_BYTES_BEFORE_AUTH };
                // The beginning of a header does not count: a line has a limit, and words, of its own.
                let end = if self.bulk.is_some() { input.len() } else { self.at };
                if end - self.start > most {
                    return Err(ProtocolError::RequestTooBig);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The request that [`Parser::next`] found in this `input`.
    pub(super) fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        let bytes = if self.inline { &self.unquoted } else { &input[self.start..self.at] };
        Args { bytes, spans: &self.spans }
    }

    /// How many bytes at the beginning of the input are done with, the request last found among
    /// them. The next input begins after them.
    pub(super) fn take_consumed(&mut self) -> usize {
        if self.missing == 0 {
            self.start = self.at;
        }
        let consumed = std::mem::take(&mut self.start);
        self.at -= consumed;
        consumed
    }

    /// Gives memory back that only an unusual request needs. Between requests only.
    pub(super) fn shrink(&mut self) {
        if self.missing == 0 {
            self.spans.clear();
            self.spans.shrink_to(KEPT_ARGS);
            self.unquoted = Vec::new();
        }
    }

    /// The number of arguments an array announces; 0 for none (`*0`, `*-1`): such a request is
    /// skipped without an answer.
    fn array_header(
        &mut self,
        input: &[u8],
        authenticated: bool,
    ) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.header(input, ProtocolError::ArrayHeaderTooBig)? else {
            return Ok(None);
        };
        match integer(&line[1..]) {
            None => Err(ProtocolError::ArrayLength),
            Some(count) if count > REDIS_MAX_ARGS => Err(ProtocolError::ArrayLength),
            Some(count) if count > MAX_ARGS_BEFORE_AUTH && !authenticated => {
                Err(ProtocolError::ArrayLengthBeforeAuth)
            }
            Some(count) if count > MAX_ARGS => Err(ProtocolError::ArrayLength),
            Some(count) => Ok(Some(usize::try_from(count).unwrap_or(0))),
        }
    }

    /// Reads the next bulk; says whether it is there in full.
    fn bulk(&mut self, input: &[u8], authenticated: bool) -> Result<bool, ProtocolError> {
        let len = match self.bulk {
            Some(len) => len,
            None => {
                let Some(line) = self.header(input, ProtocolError::BulkHeaderTooBig)? else {
                    return Ok(false);
                };
                let len = bulk_length(line, authenticated)?;
                self.bulk = Some(len);
                len
            }
        };
        // Redis does not look at the two bytes after a bulk, it only counts them.
        if input.len() - self.at < len + 2 {
            return Ok(false);
        }
        self.spans.push(span(self.at - self.start, len));
        self.at += len + 2;
        self.bulk = None;
        self.missing -= 1;
        Ok(true)
    }

    /// The header line that begins at `at`, which moves past it; `None` if its end is not there yet.
    fn header<'a>(
        &mut self,
        input: &'a [u8],
        too_big: ProtocolError,
    ) -> Result<Option<&'a [u8]>, ProtocolError> {
        // The byte after the carriage return is counted and not looked at, as in Redis.
        match self.line_end(input, b'\r') {
            Some(end) if end + 1 < input.len() => {
                let line = &input[self.at..end];
                self.move_to(end + 2);
                Ok(Some(line))
            }
            Some(_) => Ok(None),
            None if input.len() - self.at > MAX_LINE_BYTES => Err(too_big),
            None => Ok(None),
        }
    }

    /// Reads an inline request; says whether its line is there in full. An empty line is one
    /// without arguments.
    fn inline_request(&mut self, input: &[u8]) -> Result<bool, ProtocolError> {
        let Some(end) = self.line_end(input, b'\n') else {
            return if input.len() - self.at > MAX_LINE_BYTES {
                Err(ProtocolError::InlineTooBig)
            } else {
                Ok(false)
            };
        };
        let line = &input[self.at..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.move_to(end + 1);
        self.inline = true;
        self.unquoted.clear();
        if inline::split(line, &mut self.unquoted, &mut self.spans) {
            Ok(true)
        } else {
            Err(ProtocolError::Quotes)
        }
    }

    /// Where the line that begins at `at` ends. Redis looks with C's `strchr`, which gives up at a
    /// NUL byte: a line with one in it never ends.
    fn line_end(&mut self, input: &[u8], end: u8) -> Option<usize> {
        let from = self.at + self.searched;
        let found = input[from..].iter().position(|&byte| byte == end || byte == 0);
        self.searched += found.unwrap_or(input.len() - from);
        found.map(|offset| from + offset).filter(|&at| input[at] == end)
    }

    fn move_to(&mut self, at: usize) {
        self.at = at;
        self.searched = 0;
    }
}

fn bulk_length(line: &[u8], authenticated: bool) -> Result<usize, ProtocolError> {
    let digits = match line.split_first() {
        Some((b'$', digits)) => digits,
        Some((other, _)) => return Err(ProtocolError::NoBulk(*other)),
        // Redis shows the byte at the position, which is the line end itself.
        None => return Err(ProtocolError::NoBulk(b'\r')),
    };
    match integer(digits) {
        None => Err(ProtocolError::BulkLength),
        Some(len) if !(0..=REDIS_MAX_BULK_BYTES).contains(&len) => Err(ProtocolError::BulkLength),
        Some(len) if len > MAX_BULK_BYTES_BEFORE_AUTH && !authenticated => {
            Err(ProtocolError::BulkLengthBeforeAuth)
        }
        Some(len) if len > MAX_BULK_BYTES => Err(ProtocolError::BulkLength),
        Some(len) => Ok(usize::try_from(len).expect("0..=512 KiB")),
    }
}

/// A range of a request or line, both of which have limits far below 4 GiB.
pub(super) fn span(start: usize, len: usize) -> Span {
    let short = |n| u32::try_from(n).expect("a request has at most MAX_REQUEST_BYTES and one read");
    Span { start: short(start), len: short(len) }
}

/// A number as Redis reads it: decimal, no sign but one minus, no leading zeros, no spaces.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        b"0" if digits.len() == text.len() => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let negative = digits.len() != text.len();
    // Counted downwards: the most negative number has no positive counterpart.
    let mut value: i64 = 0;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value = value.checked_mul(10)?.checked_sub(digit.into())?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

#[cfg(test)]
mod tests;
