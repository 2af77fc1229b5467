//! Random requests from a seed: what is sent, and nothing of what is answered. Long because nonsense
//! has many forms.

use std::sync::Arc;

use fastrand::Rng;

use super::servers::PASSWORD;
use super::templates::{GROUPS, Group};
use super::wire::{array, inline};
use super::words::*;

/// A request, or bytes that are none.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Its words; none if the bytes are malformed.
    pub(super) words: Vec<Vec<u8>>,
    /// What is sent.
    pub(super) bytes: Vec<u8>,
}

impl Request {
    /// As an array.
    pub(super) fn new(words: Vec<Vec<u8>>) -> Request {
        Request { bytes: array(&words), words }
    }

    /// As an array, from a text without quotes.
    pub(super) fn of(text: &str) -> Request {
        Request::new(text.split(' ').map(|word| word.as_bytes().to_vec()).collect())
    }

    fn malformed(bytes: impl Into<Vec<u8>>) -> Request {
        Request { words: Vec::new(), bytes: bytes.into() }
    }

    /// A word in lower case, as text; empty where there is none.
    pub(super) fn word(&self, at: usize) -> String {
        let word = self.words.get(at).map_or(&[][..], Vec::as_slice);
        String::from_utf8_lossy(word).to_lowercase()
    }
}

/// What is said on one connection.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// Whether it is said to the servers with a password.
    pub(super) protected: bool,
    /// In order, without waiting for answers.
    pub(super) requests: Vec<Request>,
}

/// Further names for `DIFF_SKIP`: what no template draws.
const ELSEWHERE: &[&str] =
    &["client-reply", "high-bytes", "malformed", "password", "publish", "shard"];

/// What the servers say of themselves, which the requests are made of.
#[derive(Debug, Clone)]
pub(super) struct Catalogue {
    /// Names and arities of the commands that the reference marks as writes.
    pub(super) writes: Vec<(String, i64)>,
    /// The commands that ours has, subcommands as `client|id`.
    pub(super) served: Vec<String>,
}

/// Draws scripts from a seed.
pub(super) struct Generator {
    random: Rng,
    resp3: bool,
    catalogue: Arc<Catalogue>,
    /// The groups that may be drawn, each as often as it weighs.
    groups: Vec<&'static Group>,
    skipped: Vec<String>,
}

impl Generator {
    pub(super) fn new(seed: u64, catalogue: Arc<Catalogue>, skipped: &[String]) -> Generator {
        for name in skipped {
            assert!(
                GROUPS.iter().any(|group| group.name == name) || ELSEWHERE.contains(&name.as_str()),
                "there is no group {name:?} to skip"
            );
        }
        let drawn = |group: &&&Group| !skipped.iter().any(|name| name == group.name);
        let groups = GROUPS.iter().collect::<Vec<_>>();
        let groups = groups.iter().filter(drawn).flat_map(|&group| vec![group; group.weight]);
        Generator {
            random: Rng::with_seed(seed),
            resp3: seed % 2 == 1,
            catalogue,
            groups: groups.collect(),
            skipped: skipped.to_vec(),
        }
    }

    fn skips(&self, group: &str) -> bool {
        self.skipped.iter().any(|name| name == group)
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.random.usize(..many) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.random.usize(..from.len())]
    }

    fn pick_text(&mut self, from: &[&'static str]) -> &'static str {
        from[self.random.usize(..from.len())]
    }

    /// The next connection.
    pub(super) fn script(&mut self) -> Script {
        let protected = self.one_in(6) && !self.skips("password");
        let mut requests = Vec::new();
        if protected {
            self.handshake(&mut requests);
        } else if self.resp3 {
            requests.push(Request::of("HELLO 3"));
        }
        let door = requests.len();
        let many = door + self.random.usize(1..40);
        // A transaction that is left open takes all that follows.
        let mut open = false;
        while requests.len() < many {
            match self.random.usize(..24) {
                _ if open => requests.push(self.request()),
                0..3 if !self.skips("multi") => open = self.transaction(&mut requests),
                3 if !self.skips("pubsub") => self.subscription(&mut requests),
                4 if !self.skips("client-reply") => self.silence(&mut requests),
                _ => requests.push(self.request()),
            }
        }
        // Redis 7.0 refuses it, and with it a transaction that was left open.
        let has_transaction = requests.iter().any(|request| request.word(0) == "multi");
        requests.retain(|request| !(has_transaction && request.word(1) == "setinfo"));
        // Redis 7.0 answers an error and OK to this: `checkPrefixCollisionsOrReply` returns a position.
        requests.retain(|request| {
            let words = 0..request.words.len();
            words.filter(|&at| request.word(at) == "prefix").count() < 3
        });
        if protected {
            // Redis cuts a client that has to log in again while more than a kilobyte is owed to it:
            // RESET is said at the door, where nothing is.
            let is_reset = |request: &&mut Request| request.word(0) == "reset";
            for request in requests[door..].iter_mut().filter(is_reset) {
                *request = Request::of(if self.skips("multi") { "PING" } else { "DISCARD" });
            }
        }
        match self.random.usize(..8) {
            0..2 if !self.skips("malformed") => {
                requests.push(self.malformed());
                // Whether both still listen.
                requests.push(Request::malformed("PING\r\n"));
                requests.push(Request::malformed("*2\r\n$4\r\nECHO\r\n$5\r\nstill\r\n"));
            }
            2 => {
                requests.push(Request::of(self.pick_text(&["QUIT", "quit", "QUIT now"])));
                requests.push(Request::of("PING"));
            }
            _ => {}
        }
        Script { protected, requests }
    }

    /// Before and at the door of a server with a password.
    fn handshake(&mut self, requests: &mut Vec<Request>) {
        for _ in 0..self.random.usize(..6) {
            requests.push(self.request());
        }
        for _ in 0..self.random.usize(..3) {
            let text = *self.pick(&[
                "AUTH wrong",
                "AUTH default wrong",
                "AUTH nobody PASSWORD",
                "HELLO 3 AUTH default wrong",
                "HELLO 2 AUTH default PASSWORD SETNAME me",
                "HELLO 3 AUTH default PASSWORD FOO",
                "HELLO 4 AUTH default PASSWORD",
                "HELLO 3",
                "HELLO",
                "AUTH a b c",
            ]);
            requests.push(Request::of(&text.replace("PASSWORD", PASSWORD)));
        }
        if !self.one_in(6) {
            let door = if self.resp3 { "HELLO 3 AUTH default" } else { "AUTH" };
            let door = Request::of(&format!("{door} {PASSWORD}"));
            if self.one_in(4) {
                requests.extend([door.clone(), Request::of("RESET"), Request::of("GET ticket")]);
            }
            requests.push(door);
        }
    }

    /// Returns whether it is left open.
    fn transaction(&mut self, requests: &mut Vec<Request>) -> bool {
        requests.push(Request::of("MULTI"));
        for _ in 0..self.random.usize(..7) {
            let mut request = self.request();
            let name = request.word(0);
            // Several replies to one command of a transaction are no array any more, and a reader
            // loses its place; Redis has that as well.
            if name.ends_with("subscribe") {
                request.words.truncate(1);
                request.words.push(b"ch".to_vec());
                request = Request::new(request.words);
            }
            requests.push(request);
            if self.one_in(12) {
                requests.push(Request::of(self.pick_text(&[
                    "MULTI",
                    "SUBSCRIBE ch",
                    "HELLO 3",
                    "PUNSUBSCRIBE x",
                ])));
            }
        }
        let end =
            *self.pick(&["EXEC", "EXEC", "EXEC", "exec", "DISCARD", "RESET", "EXEC x", "PING"]);
        requests.push(Request::of(end));
        if end == "RESET" && self.resp3 {
            requests.push(Request::of("HELLO 3"));
        }
        end == "PING"
    }

    fn subscription(&mut self, requests: &mut Vec<Request>) {
        let kinds = if self.skips("shard") { &["", "P"][..] } else { &["", "P", "S"] };
        for _ in 0..self.random.usize(1..3) {
            let kind = *self.pick(kinds);
            let mut words = vec![format!("{kind}SUBSCRIBE").into_bytes()];
            self.placeholder("<channels>", &mut words);
            requests.push(Request::new(words));
        }
        for _ in 0..self.random.usize(..6) {
            let mut request = self.request();
            if self.one_in(3) {
                let text = *self.pick(&["PING", "PING hi", "PUBLISH ch hello", "PUBSUB NUMSUB ch"]);
                if !(text.starts_with("PUBLISH") && self.skips("publish")) {
                    request = Request::of(text);
                }
            }
            requests.push(request);
        }
        if self.one_in(4) {
            requests.push(Request::of("RESET"));
            if self.resp3 {
                requests.push(Request::of("HELLO 3"));
            }
        } else {
            for kind in kinds {
                requests.push(Request::of(&format!("{kind}UNSUBSCRIBE")));
            }
        }
    }

    fn silence(&mut self, requests: &mut Vec<Request>) {
        let how = *self.pick(&["OFF", "OFF", "SKIP", "ON", "foo"]);
        requests.push(Request::of(&format!("CLIENT REPLY {how}")));
        for _ in 0..self.random.usize(..4) {
            requests.push(Request::of(self.pick_text(&[
                "PING",
                "GET ticket",
                "NOSUCH",
                "GET",
                "ECHO a",
            ])));
        }
        requests.push(Request::of("CLIENT REPLY ON"));
    }

    /// One request of any group.
    fn request(&mut self) -> Request {
        loop {
            let group = *self.pick(&self.groups.clone());
            let template = *self.pick(group.templates);
            let mut words = self.fill(template);
            self.mutate(&mut words);
            let mut request = Request::new(words);
            if !is_harmless(&request) {
                continue;
            }
            if self.one_in(10) {
                let end = *self.pick(&["\r\n", "\n", " \r\n"]);
                request.bytes = inline(&request.words, end);
            }
            return request;
        }
    }

    fn fill(&mut self, template: &str) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        let mut left_out = false;
        for token in template.split(' ') {
            match token {
                "[" => left_out = self.random.bool(),
                "]" => left_out = false,
                _ if left_out => {}
                _ => {
                    let choices: Vec<&str> = token.split('|').collect();
                    let choice = *self.pick(&choices);
                    if choice.starts_with('<') {
                        self.placeholder(choice, &mut words);
                    } else {
                        words.push(self.in_any_case(choice));
                    }
                }
            }
        }
        words
    }

    fn in_any_case(&mut self, word: &str) -> Vec<u8> {
        match self.random.usize(..4) {
            0 => word.to_lowercase().into_bytes(),
            1 => word
                .bytes()
                .map(|byte| {
                    if self.random.bool() {
                        byte.to_ascii_lowercase()
                    } else {
                        byte.to_ascii_uppercase()
                    }
                })
                .collect(),
            _ => word.as_bytes().to_vec(),
        }
    }

    /// Draws what a word in `<>` stands for.
    fn placeholder(&mut self, name: &str, words: &mut Vec<Vec<u8>>) {
        let several = |generator: &mut Generator, one: &str, words: &mut Vec<Vec<u8>>| {
            for _ in 0..generator.random.usize(1..5) {
                generator.placeholder(one, words);
            }
        };
        let texts = match name {
            "<keys>" => return several(self, "<key>", words),
            "<words>" => return several(self, "<word>", words),
            "<channels>" => return several(self, "<channel>", words),
            "<key>" => {
                let from = if self.random.bool() { KEYS } else { MISSING };
                return words.push(self.pick(from).to_vec());
            }
            "<missing>" => return words.push(self.pick(MISSING).to_vec()),
            "<word>" => return words.push(self.pick(WORDS).to_vec()),
            "<long>" => {
                let length = *self.pick(&[100, 127, 128, 129, 300]);
                return words.push(vec![b'x'; length]);
            }
            "<empty>" => return words.push(Vec::new()),
            "<write>" => {
                let writes = Arc::clone(&self.catalogue);
                let (name, arity) = self.pick(&writes.writes);
                words.push(self.in_any_case(name));
                let wanted = usize::try_from(arity.unsigned_abs()).unwrap();
                let extra = if *arity < 0 { self.random.usize(..3) } else { 0 };
                for _ in 1..wanted + extra {
                    self.placeholder("<key>", words);
                }
                return;
            }
            "<served>" => {
                let served = Arc::clone(&self.catalogue);
                let name = self.pick(&served.served);
                return words.push(self.in_any_case(name));
            }
            "<int>" => {
                // Half of them small: the edges alone would never show a range.
                let small = self.random.bool();
                &INTEGERS[..if small { 10 } else { INTEGERS.len() }]
            }
            "<numkeys>" => &["1", "1", "2", "2", "3", "0", "-1", "a", "", "100"],
            "<id-of-nobody>" => &["9999999", "0", "-1", "a", "9223372036854775807"],
            "<user>" => &["default", "nobody", ""],
            "<pattern>" => PATTERNS,
            "<channel>" => CHANNELS,
            "<cursor>" => CURSORS,
            "<score>" => SCORES,
            "<lex>" => LEXES,
            "<id>" => IDS,
            "<float>" => FLOATS,
            "<unit>" => UNITS,
            "<bits>" => BITS,
            "<offset>" => OFFSETS,
            "<type>" => TYPES,
            "<section>" => SECTIONS,
            "<setting>" => SETTINGS,
            "<category>" => CATEGORIES,
            _ => panic!("{name} is no placeholder"),
        };
        words.push(self.pick(texts).as_bytes().to_vec());
    }

    /// Now and then too few words, too many, or a wrong one.
    fn mutate(&mut self, words: &mut Vec<Vec<u8>>) {
        match self.random.usize(..16) {
            0 | 1 => words.truncate(self.random.usize(1..=words.len())),
            2 => self.placeholder("<word>", words),
            3 if words.len() > 1 => {
                let at = self.random.usize(1..words.len());
                self.placeholder(["<word>", "<int>", "<key>"][at % 3], words);
                words.swap_remove(at);
            }
            _ => {}
        }
    }

    /// Bytes that are no request, or only nearly one.
    fn malformed(&mut self) -> Request {
        let int = *self.pick(INTEGERS);
        let byte = self.random.u8(..if self.skips("high-bytes") { 0x80 } else { 0xff });
        let bytes: Vec<u8> = match self.random.usize(..14) {
            // Ours takes fewer words than this one announces, and Redis would wait for all of them.
            0 if int != "2147483647" => format!("*{int}\r\n").into_bytes(),
            1 => format!("*1\r\n${int}\r\nPING\r\n").into_bytes(),
            2 => [b"*1\r\n", &[byte][..], b"4\r\nPING\r\n"].concat(),
            3 => b"*2\r\n$3\r\nGET\r\n$6\r\nticketXY".to_vec(),
            4 => b"*1\n$4\nPING\n".to_vec(),
            5 => b"*1\r\n$4\r\nPI\r\n".to_vec(),
            // So long that no read of the reference, which grow, holds both its middle and its end.
            6 => [&b"PING"[..], &vec![b'x'; 300_000]].concat(),
            7 => [self.pick(&[&b"*"[..], b"*1\r\n$"]).to_vec(), vec![b'1'; 300_000]].concat(),
            8 => self
                .pick(&[
                    &b"GET \"ticket\r\n"[..],
                    b"GET 'ticket\r\n",
                    b"GET \"ticket\"x\r\n",
                    b"GET 'ticket'x\r\n",
                    b"\"GET\" 'ticket'\r\n",
                    b"ECHO \"a\\x41\\n\\r\\t\\b\\a\\q\\\"\"\r\n",
                    b"ECHO 'it\\'s \\x41'\r\n",
                    b"ECHO \"\\x4\"\r\n",
                    b"ECHO a\"b\"\r\n",
                    b"ECHO \"\"\r\n",
                    b"  \t ECHO\x0b\x0ca \r\n",
                    b"\r\n\r\n\n",
                    b" \r\n",
                ])
                .to_vec(),
            9 => self
                .pick(&[
                    &b"PI\x00NG\r\n"[..],
                    b"ECHO a\x00b c\r\n",
                    b"\x00\r\n",
                    b"ECHO \"a\x00b\"\r\n",
                    b"PING \x00\r\n",
                ])
                .to_vec(),
            10 => self
                .pick(&[
                    &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
                    b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"HEAD / HTTP/1.1\r\n\r\n",
                    b"host: x\r\n",
                    b"*1\r\n$4\r\nPOST\r\n",
                    b"*1\r\n$5\r\nhOsT:\r\n",
                ])
                .to_vec(),
            11 => {
                let length = self.random.usize(1..40);
                let mut noise: Vec<u8> = (0..length).map(|_| self.random.u8(..)).collect();
                noise.extend(b"\r\n");
                noise
            }
            12 => self
                .pick(&[
                    &b"*11\r\n"[..],
                    b"*10\r\n",
                    b"*1\r\n$16385\r\n",
                    b"*1\r\n$16384\r\n",
                    b"*1\r\n$524288\r\n",
                    b"*1\r\n$536870913\r\n",
                    b"*16384\r\n",
                    b"*1\r\n\r\n",
                    b"*\r\n",
                    b"*1\r\n$\r\n",
                    b"*1\r\n$0\r\n\r\n",
                    b"*2\r\n$0\r\n\r\n$1\r\na\r\n",
                    b"*1\r\n:4\r\n",
                    b"*1\rX$4\rXPINGXX",
                    b"*0\r\n*-1\r\n\r\n",
                ])
                .to_vec(),
            _ => {
                // A sound request with one byte changed, taken away or put in.
                let text = *self.pick(&["GET ticket", "ECHO abc", "EXISTS a b c", "STRLEN ticket"]);
                let mut bytes = Request::of(text).bytes;
                let at = self.random.usize(..bytes.len());
                match self.random.usize(..3) {
                    0 => bytes[at] = byte,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, byte),
                }
                bytes
            }
        };
        Request::malformed(bytes)
    }
}

/// Whether a request leaves the reference as it is and is answered at once, and briefly.
fn is_harmless(request: &Request) -> bool {
    let name = request.word(0);
    let blocks = |at: usize| request.word(at) == "block";
    match name.as_str() {
        "" => true,
        "command" => {
            request.words.len() > 2 || !matches!(request.word(1).as_str(), "" | "info" | "docs")
        }
        "xread" => !(1..request.words.len()).any(blocks),
        // It is drawn where its silence is expected.
        "client" => request.word(1) != "reply" && request.word(1) != "pause",
        _ => true,
    }
}

#[test]
fn every_template_can_be_filled() {
    let catalogue =
        Arc::new(Catalogue { writes: vec![("set".into(), -3)], served: vec!["get".into()] });
    let mut generator = Generator::new(1, catalogue, &[]);
    for template in GROUPS.iter().flat_map(|group| group.templates) {
        for _ in 0..50 {
            assert!(!generator.fill(template).is_empty(), "{template}");
        }
    }
    let scripts: Vec<Script> = (0..500).map(|_| generator.script()).collect();
    assert!(scripts.iter().any(|script| script.protected));
}
