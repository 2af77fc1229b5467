//! Which replies answer which request. Most are answered once; subscriptions, pushes and CLIENT REPLY
//! are why this is not a zip.

use std::collections::BTreeSet;
use std::ops::Range;

use super::generator::Request;
use super::wire::Reply;

/// Whether the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    On,
    /// The next request is not answered.
    Skipping,
    Off,
}

/// What is known of a connection from what was said on it.
#[derive(Debug)]
struct Connection {
    voice: Voice,
    in_transaction: bool,
    queued: Vec<Request>,
    /// Channels, patterns, shard channels.
    subscribed: [BTreeSet<Vec<u8>>; 3],
}

/// The replies to one request.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// Where they are among all.
    pub(super) replies: Range<usize>,
    /// Of EXEC: what it ran, each as often as it is answered.
    pub(super) transaction: Vec<Request>,
}

/// For each request, the replies to it. The last one has what is left over, as has the first of
/// which nothing is known but its bytes.
pub(super) fn attribute(requests: &[Request], replies: &[Reply]) -> Vec<Answer> {
    let mut connection = Connection {
        voice: Voice::On,
        in_transaction: false,
        queued: Vec::new(),
        subscribed: Default::default(),
    };
    let mut at = 0;
    let mut answers = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let rest = &replies[at..];
        let is_last = index + 1 == requests.len() || request.words.is_empty();
        let mut transaction = Vec::new();
        let many = connection.count(request, rest, &mut transaction).min(rest.len());
        let many = if is_last { rest.len() } else { many };
        answers.push(Answer { replies: at..at + many, transaction });
        at += many;
    }
    answers
}

/// Which of the three kinds of subscriptions a command is about.
fn kind(name: &str) -> Option<usize> {
    ["subscribe", "psubscribe", "ssubscribe"]
        .iter()
        .position(|kind| name == *kind || name.replace("unsub", "sub") == *kind)
}

/// What a push says that it is.
fn head(reply: &Reply) -> Option<&[u8]> {
    reply.elements().first().and_then(Reply::text)
}

impl Connection {
    fn count(
        &mut self,
        request: &Request,
        replies: &[Reply],
        transaction: &mut Vec<Request>,
    ) -> usize {
        let name = request.word(0);

        let is_message = |reply: &&Reply| {
            matches!(reply, Reply::List(b'>', _))
                && head(reply).is_some_and(|word| word.ends_with(b"message"))
        };
        let pushed = replies.iter().take_while(is_message).count();
        let Some(first) = replies.get(pushed) else { return pushed };
        let subscribes = kind(&name).is_some() && head(first) == Some(name.as_bytes());
        if self.voice != Voice::On && !subscribes {
            return self.count_in_silence(request, first);
        }
        if subscribes {
            return pushed + self.subscribe(request);
        }
        if self.in_transaction && first.text() == Some(b"QUEUED") {
            self.queued.push(request.clone());
            return pushed + 1;
        }
        let further = self.note(request, first, transaction);
        // CLIENT REPLY OFF and SKIP are not answered themselves.
        let silent = self.voice != Voice::On;
        pushed + usize::from(!silent) + further
    }

    fn count_in_silence(&mut self, request: &Request, first: &Reply) -> usize {
        let sets_voice = (request.word(0), request.word(1)) == ("client".into(), "reply".into());
        let heard = match request.word(0).as_str() {
            "client" => sets_voice && request.word(2) == "on" && first.text() == Some(b"OK"),
            "reset" => first.text() == Some(b"RESET"),
            _ => false,
        };
        if heard || (self.voice == Voice::Skipping && !sets_voice) {
            self.voice = Voice::On;
        }
        usize::from(heard)
    }

    /// What a request changes that was answered so. Returns how many replies there are beside this
    /// one: those to a subscription to several channels, for which EXEC announces only one.
    fn note(&mut self, request: &Request, reply: &Reply, transaction: &mut Vec<Request>) -> usize {
        let mut further = 0;
        match request.word(0).as_str() {
            "client" if request.word(1) == "reply" && request.words.len() == 3 => {
                // Where it is obeyed, the first reply is that of a later request, and never one of
                // these.
                if reply.is_error("ERR Can't execute 'client|reply'") || reply.is_error("NOAUTH") {
                    return 0;
                }
                match request.word(2).as_str() {
                    "off" => self.voice = Voice::Off,
                    "skip" => self.voice = Voice::Skipping,
                    _ => {}
                }
            }
            "multi" if reply.text() == Some(b"OK") => self.in_transaction = true,
            "exec" if self.in_transaction && !reply.is_error("ERR") => {
                self.in_transaction = false;
                for queued in std::mem::take(&mut self.queued) {
                    let many = if reply.is_error("") { 1 } else { self.subscribe(&queued) };
                    further += many - 1;
                    transaction.extend(std::iter::repeat_n(queued, many));
                }
            }
            "discard" if reply.text() == Some(b"OK") => {
                self.in_transaction = false;
                self.queued.clear();
            }
            "reset" if reply.text() == Some(b"RESET") => {
                self.in_transaction = false;
                self.queued.clear();
                self.subscribed = Default::default();
            }
            _ => {}
        }
        further
    }

    /// How many replies a (un)subscription has that is not refused.
    fn subscribe(&mut self, request: &Request) -> usize {
        let name = request.word(0);
        let Some(kind) = kind(&name) else { return 1 };
        let channels = &mut self.subscribed[kind];
        let named = &request.words[1..];
        if !name.contains("unsub") {
            channels.extend(named.iter().cloned());
            named.len()
        } else if named.is_empty() {
            let had = channels.len();
            channels.clear();
            had.max(1)
        } else {
            channels.retain(|channel| !named.contains(channel));
            named.len()
        }
    }
}

#[test]
fn replies_find_their_requests() {
    let requests: Vec<Request> = [
        "MULTI",
        "PING",
        "EXEC",
        "SUBSCRIBE a b",
        "UNSUBSCRIBE",
        "UNSUBSCRIBE",
        "MULTI",
        "SUBSCRIBE c d",
        "PING",
        "EXEC",
        "CLIENT REPLY SKIP",
        "PING",
        "CLIENT REPLY OFF",
        "PING",
        "CLIENT REPLY ON",
        "PING",
    ]
    .map(Request::of)
    .to_vec();
    let one = |name: &str| format!("*3\r\n+{name}\r\n+x\r\n:0\r\n");
    let bytes = [
        "+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n",
        &one("subscribe").repeat(2),
        &one("unsubscribe").repeat(3),
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n",
        &one("subscribe").repeat(2),
        "+PONG\r\n",
        "+OK\r\n+PONG\r\n",
    ]
    .concat();
    let replies = Reply::all(bytes.as_bytes());
    let answers = attribute(&requests, &replies);
    let counts: Vec<usize> = answers.iter().map(|answer| answer.replies.len()).collect();
    assert_eq!(counts, [1, 1, 1, 2, 2, 1, 1, 1, 1, 2, 0, 0, 0, 0, 1, 1]);
    let ran = |at: usize| -> Vec<String> {
        answers[at].transaction.iter().map(|queued: &Request| queued.word(0)).collect()
    };
    assert_eq!(ran(2), ["ping"]);
    assert_eq!(ran(9), ["subscribe", "subscribe", "ping"]);
}
