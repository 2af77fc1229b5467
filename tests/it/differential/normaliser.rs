//! What cannot be equal between two servers, made equal: numbers and ages of connections, addresses,
//! random keys, orders that nobody promises, times. Each rule is for one command and one place in its
//! reply; all else is compared as it came.

use super::generator::Request;
use super::servers::KEYS;
use super::wire::Reply;

/// What a comparison needs besides the replies.
#[derive(Debug)]
pub(super) struct Measure<'a> {
    /// How long the script took: what a life may have shrunk between one server's answer and the
    /// other's.
    pub(super) elapsed_ms: i64,
    /// The time, in Unix seconds.
    pub(super) now: i64,
    /// The commands that ours has.
    pub(super) served: &'a [String],
}

/// Whether two answers to a request mean the same.
pub(super) fn same(request: &Request, ours: &Reply, theirs: &Reply, measure: &Measure<'_>) -> bool {
    let (ours, theirs) = (normal(request, ours, measure), normal(request, theirs, measure));
    ours == theirs || near(request, &ours, &theirs, measure)
}

/// Whether two answers to EXEC mean the same: each element by the rules of its request, and after
/// them the replies that EXEC did not announce.
pub(super) fn same_transaction(
    queued: &[Request],
    ours: &[Reply],
    theirs: &[Reply],
    agree: &mut dyn FnMut(&Request, &Reply, &Reply) -> bool,
) -> bool {
    let ([Reply::List(a, mine), my_rest @ ..], [Reply::List(b, other), other_rest @ ..]) =
        (ours, theirs)
    else {
        return ours == theirs;
    };
    let mut each =
        queued.iter().zip(mine.iter().chain(my_rest)).zip(other.iter().chain(other_rest));
    a == b
        && mine.len() == other.len()
        && my_rest.len() == other_rest.len()
        && mine.len() + my_rest.len() == queued.len()
        && each.all(|((request, ours), theirs)| agree(request, ours, theirs))
}

/// UNSUBSCRIBE without names leaves its channels in the order of Redis' hash table: here in that of
/// their names.
pub(super) fn sort_channels(request: &Request, replies: &mut [Reply]) {
    if !request.word(0).ends_with("unsubscribe") || request.words.len() != 1 {
        return;
    }
    let mut channels: Vec<Reply> =
        replies.iter().filter_map(|reply| reply.elements().get(1).cloned()).collect();
    channels.sort();
    if channels.len() == replies.len() {
        for (reply, channel) in replies.iter_mut().zip(channels) {
            if let Reply::List(_, elements) = reply {
                elements[1] = channel;
            }
        }
    }
}

/// Lives and ends of lives: the reference was given its ends in milliseconds, so these agree to the
/// millisecond or two by which our two clocks are read apart; lives shrink between two answers.
fn near(request: &Request, ours: &Reply, theirs: &Reply, measure: &Measure<'_>) -> bool {
    let (Some(ours), Some(theirs)) = (ours.number(), theirs.number()) else { return false };
    let within = match request.word(0).as_str() {
        "ttl" | "expiretime" => 1,
        "pttl" => measure.elapsed_ms + 5,
        "pexpiretime" => 5,
        _ => return false,
    };
    ours > 0 && theirs > 0 && (ours - theirs).abs() <= within
}

fn stand_in(what: &str) -> Reply {
    Reply::Line(b'<', what.as_bytes().to_vec())
}

fn normal(request: &Request, reply: &Reply, measure: &Measure<'_>) -> Reply {
    let (name, sub) = (request.word(0), request.word(1));
    match (name.as_str(), sub.as_str(), reply) {
        (_, _, Reply::Line(b'-', _)) => reply.clone(),
        ("client", "id", Reply::Line(b':', _)) => counted(reply, "number of a connection"),
        ("object", "idletime", Reply::Line(b':', _)) => counted(reply, "seconds"),
        ("memory", "usage", Reply::Line(b':', _)) => counted(reply, "bytes"),
        ("client", "info" | "list", Reply::Bulk(kind, text)) => {
            Reply::Bulk(*kind, connections(text))
        }
        ("hello", _, Reply::List(kind, elements)) => Reply::List(*kind, greeting(elements)),
        ("time", _, Reply::List(..)) => time(reply, measure),
        ("randomkey", _, _) if reply.text().is_some_and(is_key) => stand_in("one of the keys"),
        ("keys", _, Reply::List(..)) | ("pubsub", "channels", Reply::List(..)) => sorted(reply),
        ("scan", _, Reply::List(..)) => scanned(request, reply),
        ("info", _, Reply::Bulk(kind, text)) => Reply::Bulk(*kind, sections(request, text)),
        ("command", "info", Reply::List(kind, commands)) => {
            Reply::List(*kind, commands.iter().map(described).collect())
        }
        ("command", "docs", Reply::List(kind, pairs)) => {
            Reply::List(*kind, pairs.iter().map(documented).collect())
        }
        ("command", "list", Reply::List(kind, names)) => {
            Reply::List(*kind, only_served(names, measure))
        }
        ("acl", "cat", Reply::List(kind, names)) if request.words.len() == 3 => {
            Reply::List(*kind, only_served(names, measure))
        }
        ("config", "get", Reply::List(kind, pairs)) => Reply::List(*kind, settings(pairs)),
        // A replica answers other things than a master without one.
        ("role", _, Reply::List(..)) => stand_in("role"),
        _ => reply.clone(),
    }
}

/// A number of which only that it is one can be compared.
fn counted(reply: &Reply, what: &str) -> Reply {
    if reply.number().is_some_and(|number| number >= 0) { stand_in(what) } else { reply.clone() }
}

fn is_key(text: &[u8]) -> bool {
    KEYS.iter().any(|key| key.as_bytes() == text)
}

fn sorted(reply: &Reply) -> Reply {
    let Reply::List(kind, elements) = reply else { return reply.clone() };
    let mut elements = elements.clone();
    elements.sort();
    Reply::List(*kind, elements)
}

/// CLIENT INFO and LIST: the fields that describe the machine become a star, and those of later
/// versions (`lib-name`, `lib-ver`) go.
fn connections(text: &[u8]) -> Vec<u8> {
    const OF_THE_MACHINE: [&str; 16] = [
        "id",
        "addr",
        "laddr",
        "fd",
        "age",
        "idle",
        "qbuf",
        "qbuf-free",
        "argv-mem",
        "multi-mem",
        "rbs",
        "rbp",
        "obl",
        "oll",
        "omem",
        "tot-mem",
    ];
    let text = String::from_utf8_lossy(text.strip_prefix(b"txt:").unwrap_or(text));
    let field = |field: &str| match field.split_once('=') {
        Some(("lib-name" | "lib-ver", _)) => None,
        Some((name, _)) if OF_THE_MACHINE.contains(&name) => Some(format!("{name}=*")),
        _ => Some(field.to_owned()),
    };
    let line = |line: &str| line.split(' ').filter_map(field).collect::<Vec<_>>().join(" ");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n").into_bytes()
}

/// HELLO: the number of the connection, the role (the reference is a replica), and the version (some
/// clients keep a cache only from 7.4 on, so that is what we call ourselves).
fn greeting(elements: &[Reply]) -> Vec<Reply> {
    let mut elements = elements.to_vec();
    for at in (0..elements.len().saturating_sub(1)).step_by(2) {
        if let Some(b"id" | b"role" | b"version") = elements[at].text() {
            elements[at + 1] = stand_in("id, role or version");
        }
    }
    elements
}

/// TIME: two numbers, the first within a second or two of now.
fn time(reply: &Reply, measure: &Measure<'_>) -> Reply {
    let number =
        |reply: &Reply| -> Option<i64> { std::str::from_utf8(reply.text()?).ok()?.parse().ok() };
    match reply.elements() {
        [seconds, micros]
            if number(seconds).is_some_and(|at| (at - measure.now).abs() <= 2)
                && number(micros).is_some_and(|micros| (0..1_000_000).contains(&micros)) =>
        {
            stand_in("now")
        }
        _ => reply.clone(),
    }
}

/// SCAN: the order of the keys is nobody's promise. Where the cursor or COUNT lets a server show only
/// some of them, which ones is its own affair, and so is the next cursor.
fn scanned(request: &Request, reply: &Reply) -> Reply {
    let [cursor, found] = reply.elements() else { return reply.clone() };
    let count = (2..request.words.len()).rev().find(|&at| request.word(at) == "count");
    let count = count.map_or(Some(10), |at| request.word(at + 1).parse::<u64>().ok());
    // The reference keeps three keys in a table of four places.
    let shows_all = count.is_some_and(|count| count >= 4);
    let from_start = matches!(request.word(1).as_str(), "0" | "" | "+0");
    if shows_all && from_start {
        return Reply::List(b'*', vec![cursor.clone(), sorted(found)]);
    }
    if found.elements().iter().all(|key| key.text().is_some_and(is_key)) {
        return stand_in("some of the keys");
    }
    reply.clone()
}

/// INFO: its sections, if one is asked for; what is in them is each server's own.
fn sections(request: &Request, text: &[u8]) -> Vec<u8> {
    if request.words.len() != 2 || ["all", "default", "everything"].contains(&&*request.word(1)) {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(text);
    let headers = text.lines().filter(|line| line.starts_with("# ") || !line.contains(':'));
    headers.collect::<Vec<_>>().join("\n").into_bytes()
}

/// COMMAND INFO: name, arity, flags, positions of keys, categories. Tips, key specifications and
/// subcommands are left out: we do not have all subcommands.
fn described(command: &Reply) -> Reply {
    let Reply::List(kind, elements) = command else { return command.clone() };
    Reply::List(*kind, elements.iter().take(7).map(sorted_words).collect())
}

fn sorted_words(reply: &Reply) -> Reply {
    if reply.elements().is_empty() { reply.clone() } else { sorted(reply) }
}

/// COMMAND DOCS: summary, version, group, complexity.
fn documented(part: &Reply) -> Reply {
    let Reply::List(kind, pairs) = part else { return part.clone() };
    let kept = pairs.chunks(2).filter(|pair| {
        matches!(pair[0].text(), Some(b"summary" | b"since" | b"group" | b"complexity"))
    });
    Reply::List(*kind, kept.flatten().cloned().collect())
}

/// Lists of commands: those that ours has, in the order of their names.
fn only_served(names: &[Reply], measure: &Measure<'_>) -> Vec<Reply> {
    let served =
        |name: &&Reply| measure.served.iter().any(|served| name.text() == Some(served.as_bytes()));
    let mut names: Vec<Reply> = names.iter().filter(served).cloned().collect();
    names.sort();
    names
}

/// CONFIG GET: in any order, and not which port it is.
fn settings(pairs: &[Reply]) -> Vec<Reply> {
    let mut pairs: Vec<&[Reply]> = pairs.chunks(2).collect();
    pairs.sort();
    let value = |pair: &[Reply]| match pair {
        [name, _] if name.text().is_some_and(|name| name.eq_ignore_ascii_case(b"port")) => {
            vec![name.clone(), stand_in("port")]
        }
        _ => pair.to_vec(),
    };
    pairs.into_iter().flat_map(value).collect()
}

#[test]
fn only_what_cannot_be_equal_is_let_through() {
    let measure = Measure { elapsed_ms: 10, now: 1_800_000_000, served: &["get".to_owned()] };
    let check = |request: &str, ours: &str, theirs: &str| {
        let reply = |text: &str| Reply::all(text.as_bytes()).remove(0);
        same(&Request::of(request), &reply(ours), &reply(theirs), &measure)
    };
    assert!(check("TTL a", ":7000\r\n", ":7001\r\n") && !check("TTL a", ":7000\r\n", ":7002\r\n"));
    assert!(!check("TTL a", ":-1\r\n", ":-2\r\n") && !check("TTL a", ":0\r\n", ":-1\r\n"));
    assert!(check("PTTL a", ":70\r\n", ":80\r\n") && !check("PTTL a", ":70\r\n", ":90\r\n"));
    assert!(check("CLIENT ID", ":7\r\n", ":900\r\n") && !check("STRLEN a", ":7\r\n", ":8\r\n"));
    assert!(check("KEYS *", "*2\r\n+a\r\n+b\r\n", "*2\r\n+b\r\n+a\r\n"));
    assert!(!check("KEYS *", "*1\r\n+a\r\n", "*2\r\n+b\r\n+a\r\n"));
    assert!(!check("MGET a b", "*2\r\n+a\r\n+b\r\n", "*2\r\n+b\r\n+a\r\n"));
    assert!(check("RANDOMKEY", "+ticket\r\n", "+access_token\r\n"));
    assert!(!check("RANDOMKEY", "+ticket\r\n", "+other\r\n"));
    let keys = "*2\r\n+0\r\n*1\r\n+ticket\r\n";
    assert!(!check("SCAN 0", keys, "*2\r\n+0\r\n*0\r\n"));
    assert!(check("SCAN 0 COUNT 1", keys, "*2\r\n+2\r\n*0\r\n"));
    assert!(check("CLIENT INFO", "$11\r\nid=1 name=a\r\n", "$12\r\nid=23 name=a\r\n"));
    assert!(!check("CLIENT INFO", "$11\r\nid=1 name=a\r\n", "$11\r\nid=1 name=b\r\n"));
    assert!(!check("GET a", "$-1\r\n", "_\r\n") && !check("GET a", "-ERR a\r\n", "-ERR b\r\n"));
    assert!(check("COMMAND LIST", "*1\r\n+get\r\n", "*2\r\n+get\r\n+spop\r\n"));
    assert!(!check("COMMAND LIST", "*0\r\n", "*2\r\n+get\r\n+spop\r\n"));
}
