//! Writes replies, in RESP2 and RESP3, at the end of a buffer. Knows no command and no socket.

/// Which protocol a connection speaks; HELLO changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// What every connection begins with.
    Resp2,
    /// With maps, sets, one nil and pushes.
    Resp3,
}

impl Protocol {
    /// Its number, as HELLO and CLIENT LIST name it.
    pub(super) fn number(self) -> u8 {
        match self {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        }
    }
}

/// The replies of one batch. Headers come before the elements they announce.
pub(super) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    /// From where on nothing is to be sent.
    muted_from: Option<usize>,
    /// How the next reply is written.
    pub(super) protocol: Protocol,
}

impl<'a> Reply<'a> {
    /// Replies are appended to `out`.
    pub(super) fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Reply<'a> {
        Reply { out, muted_from: None, protocol }
    }

    /// How many bytes of this batch wait to be sent.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Takes back what this batch has said so far.
    pub(super) fn discard(&mut self) {
        self.out.clear();
    }

    /// `+text`; no line end in it.
    pub(super) fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// `+OK`
    pub(super) fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// `-text`, which begins with the error's code.
    pub(super) fn error(&mut self, text: &str) {
        self.line(b'-', text.as_bytes());
    }

    /// An error that repeats what a client sent: its line ends become spaces.
    pub(super) fn error_quoting(&mut self, text: &[u8]) {
        self.out.push(b'-');
        let safe = text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte });
        self.out.extend(safe);
        self.out.extend_from_slice(b"\r\n");
    }

    /// `:number`
    pub(super) fn integer(&mut self, number: i64) {
        self.out.push(b':');
        if number < 0 {
            self.out.push(b'-');
        }
        self.decimal(number.unsigned_abs());
        self.out.extend_from_slice(b"\r\n");
    }

    /// How many there are of something.
    pub(super) fn count(&mut self, count: usize) {
        self.header(b':', count);
    }

    /// A string of bytes.
    pub(super) fn bulk(&mut self, bytes: &[u8]) {
        self.header(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A text for people: a verbatim string in RESP3.
    pub(super) fn text(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.header(b'=', text.len() + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Nothing, where a string could be.
    pub(super) fn nil(&mut self) {
        let nil: &[u8] = match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        };
        self.out.extend_from_slice(nil);
    }

    /// Nothing, where an array could be.
    pub(super) fn nil_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.out.extend_from_slice(b"*-1\r\n"),
            Protocol::Resp3 => self.nil(),
        }
    }

    /// Announces `len` elements.
    pub(super) fn array(&mut self, len: usize) {
        self.header(b'*', len);
    }

    /// Announces `len` elements without an order.
    pub(super) fn set(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', len),
            Protocol::Resp3 => self.header(b'~', len),
        }
    }

    /// Announces `len` pairs of a key and a value.
    pub(super) fn map(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', len * 2),
            Protocol::Resp3 => self.header(b'%', len),
        }
    }

    /// Announces `len` elements of what the client did not ask for.
    pub(super) fn push(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', len),
            Protocol::Resp3 => self.header(b'>', len),
        }
    }

    /// Whole frames as they are.
    pub(super) fn frames(&mut self, take: impl FnOnce(&mut Vec<u8>)) {
        take(self.out);
    }

    /// Nothing that is said from here on is sent.
    pub(super) fn mute(&mut self) {
        self.muted_from.get_or_insert(self.out.len());
    }

    /// What is said from here on is sent again. Says whether that is news.
    pub(super) fn unmute(&mut self) -> bool {
        let muted_from = self.muted_from.take();
        if let Some(muted_from) = muted_from {
            self.out.truncate(muted_from);
        }
        muted_from.is_some()
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(kind);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    fn header(&mut self, kind: u8, len: usize) {
        self.out.push(kind);
        self.decimal(len as u64);
        self.out.extend_from_slice(b"\r\n");
    }

    fn decimal(&mut self, mut number: u64) {
        let mut digits = [0; 20]; // as many as u64::MAX has
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(number % 10).expect("a remainder of 10 is below 10");
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }
}

/// What many clients are told: written once for those of each protocol.
#[derive(Debug)]
pub(super) struct Frame {
    resp2: Vec<u8>,
    resp3: Vec<u8>,
}

impl Frame {
    /// What `write` writes.
    pub(super) fn new(write: impl Fn(&mut Reply<'_>)) -> Frame {
        let [resp2, resp3] = [Protocol::Resp2, Protocol::Resp3].map(|protocol| {
            let mut out = Vec::new();
            write(&mut Reply::new(&mut out, protocol));
            out
        });
        Frame { resp2, resp3 }
    }

    /// As a client of this protocol is told it.
    pub(super) fn bytes(&self, protocol: Protocol) -> &[u8] {
        match protocol {
            Protocol::Resp2 => &self.resp2,
            Protocol::Resp3 => &self.resp3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(write: fn(&mut Reply<'_>), resp2: &str, resp3: &str) {
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            let mut out = Vec::new();
            write(&mut Reply::new(&mut out, protocol));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn each_kind_of_reply_has_its_bytes() {
        check(|r| r.ok(), "+OK\r\n", "+OK\r\n");
        check(|r| r.error("ERR x"), "-ERR x\r\n", "-ERR x\r\n");
        check(|r| r.error_quoting(b"ERR 'a\r\nb'"), "-ERR 'a  b'\r\n", "-ERR 'a  b'\r\n");
        check(|r| r.integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n");
        check(|r| r.integer(0), ":0\r\n", ":0\r\n");
        check(|r| r.count(1_000), ":1000\r\n", ":1000\r\n");
        check(|r| r.bulk(b"ab"), "$2\r\nab\r\n", "$2\r\nab\r\n");
        check(|r| r.text("ab"), "$2\r\nab\r\n", "=6\r\ntxt:ab\r\n");
        check(|r| r.nil(), "$-1\r\n", "_\r\n");
        check(|r| r.nil_array(), "*-1\r\n", "_\r\n");
        check(|r| r.array(2), "*2\r\n", "*2\r\n");
        check(|r| r.set(2), "*2\r\n", "~2\r\n");
        check(|r| r.map(2), "*4\r\n", "%2\r\n");
        check(|r| r.push(2), "*2\r\n", ">2\r\n");
        check(|r| r.nil_array(), "*-1\r\n", "_\r\n");
    }
}
