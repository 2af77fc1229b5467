//! Where ours answers otherwise than Redis 7.0 on purpose. None of these is a read, a life, an arity
//! or a protocol error.

use super::generator::Request;
use super::wire::Reply;

/// One known difference.
pub(super) struct Difference {
    /// Why it is meant.
    pub(super) why: &'static str,
    /// A request that shows it.
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
];

/// Commands that Redis 7.0 does not have: the first difference above, in COMMAND INFO and its like.
pub(super) const OURS_ALONE: &[&str] = &["client|no-touch", "client|setinfo"];

/// The difference that this is, if it is known.
pub(super) fn known(request: &Request, ours: &Reply, theirs: &Reply) -> Option<usize> {
    DIFFERENCES.iter().position(|difference| {
        (difference.request)(request) && (difference.ours)(ours) && (difference.theirs)(theirs)
    })
}
