//! Where ours answers otherwise than Redis 7.0 on purpose. None of these is a read, a life, an arity
//! or a protocol error.

use super::generator::Request;
use super::wire::Reply;

/// One known difference.
pub(super) struct Difference {
    /// Why it is meant.
    pub(super) why: &'static str,
    /// Requests of which the last shows it; one that begins with AUTH is made of the pair with a
    /// password.
    pub(super) example: &'static str,
    /// The requests it is about.
    request: fn(&Request) -> bool,
    /// Our reply.
    ours: fn(&Reply) -> bool,
    /// Redis' reply.
    theirs: fn(&Reply) -> bool,
}

fn is(request: &Request, name: &str, sub: &str) -> bool {
    request.word(0) == name && request.word(1) == sub
}

/// The table. At most fifteen.
pub(super) const DIFFERENCES: &[Difference] = &[
    Difference {
        why: "most clients say it first, and Redis 7.2 has it; an error would only be noise in their logs",
        example: "CLIENT SETINFO LIB-NAME lib",
        request: |request| is(request, "client", "setinfo"),
        ours: |_| true,
        theirs: |reply| reply.is_error("ERR unknown subcommand '"),
    },
    Difference {
        why: "we have fewer commands, and say how many",
        example: "COMMAND COUNT",
        request: |request| is(request, "command", "count"),
        ours: |reply| reply.number().is_some(),
        theirs: |reply| reply.number().is_some(),
    },
    Difference {
        why: "a digest of a key is no business of a client's",
        example: "AUTH s3cret-of-the-pair; ACL LIST",
        request: |request| is(request, "acl", "list") || is(request, "acl", "getuser"),
        ours: |reply| shows(reply, b"user default on") || has_passwords(reply, 0),
        theirs: |reply| shows(reply, b"user default on #") || has_passwords(reply, 1),
    },
    Difference {
        why: "HELP is made of the table of commands, and names what there is",
        example: "CLIENT HELP",
        request: |request| request.word(1) == "help" && request.words.len() == 2,
        ours: is_help,
        theirs: is_help,
    },
    Difference {
        why: "of a command that there is not, nothing is known of its keys either",
        example: "COMMAND GETKEYS SET a b",
        request: |request| {
            request.word(0) == "command"
                && matches!(&*request.word(1), "getkeys" | "getkeysandflags")
        },
        ours: |reply| reply.is_error("ERR Invalid command specified"),
        theirs: |_| true,
    },
];

fn shows(reply: &Reply, beginning: &[u8]) -> bool {
    let first = reply.elements().first().and_then(Reply::text);
    first.is_some_and(|line| line.starts_with(beginning))
}

/// ACL GETUSER, with so many digests of passwords.
fn has_passwords(reply: &Reply, count: usize) -> bool {
    let [_, _, name, passwords, ..] = reply.elements() else { return false };
    name.text() == Some(b"passwords") && passwords.elements().len() == count
}

fn is_help(reply: &Reply) -> bool {
    let first = reply.elements().first().and_then(Reply::text);
    first.is_some_and(|line| {
        line.ends_with(b"<subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
    })
}

/// Commands that Redis 7.0 does not have: the first difference above, in COMMAND INFO and its like.
pub(super) const OURS_ALONE: &[&str] =
    &["client|no-touch", "client|setinfo", "token.info", "token.refresh"];

/// The difference that this is, if it is known.
pub(super) fn known(request: &Request, ours: &Reply, theirs: &Reply) -> Option<usize> {
    DIFFERENCES.iter().position(|difference| {
        (difference.request)(request) && (difference.ours)(ours) && (difference.theirs)(theirs)
    })
}
