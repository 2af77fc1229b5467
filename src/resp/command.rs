//! Finds the command of a request and decides whether it may run: existence, arity, AUTH, in
//! Redis' order. What each command does is in the files below this one; `table` lists them all.

mod catalogue;
mod client;
mod connection;
mod keys;
mod server;
mod spec;
mod table;
mod writes;

use std::sync::Arc;

use crate::clock::Now;
use crate::resp::Shared;
use crate::resp::command::spec::{CommandSpec, Index, find};
use crate::resp::command::table::COMMANDS;
use crate::resp::command::writes::WRITES;
use crate::resp::connections::Card;
use crate::resp::parse::Args;
use crate::resp::reply::{Protocol, Reply};

/// The version of Redis whose behaviour this is, and what clients are told.
const REDIS_VERSION: &str = "7.0.15";

/// What a session remembers of its client between requests.
#[derive(Debug)]
pub(super) struct Client {
    /// What others may know of it.
    pub(super) card: Arc<Card>,
    /// Which protocol it speaks.
    pub(super) protocol: Protocol,
    /// Whether it may do more than AUTH.
    pub(super) authenticated: bool,
}

/// What a command works with.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// What all sessions share.
    pub(super) shared: &'a Shared,
    /// The client that asks.
    pub(super) client: &'a mut Client,
    /// Where the answer goes.
    pub(super) reply: Reply<'a>,
    /// One reading for the whole batch.
    pub(super) now: Now,
    /// What the batch has cost so far; see [`Context::charge`].
    pub(super) work: usize,
    /// Keys that were asked for and found.
    pub(super) hits: u64,
    /// Keys that were asked for and not found.
    pub(super) misses: u64,
}

impl Context<'_> {
    /// Counts `units` of work: about one for each source looked at. A batch that has done much of
    /// it makes room for other sessions before it goes on.
    fn charge(&mut self, units: usize) {
        self.work = self.work.saturating_add(units);
    }

    fn syntax_error(&mut self) -> Outcome {
        self.reply.error("ERR syntax error");
        Outcome::Replied
    }
}

/// How a command ends.
///
/// TODO-hardening: a third kind, an answer that is still to come, arrives with the first command
/// that waits (TOKEN.REFRESH); the session will then hold back the rest of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer is in the reply.
    Replied,
    /// The answer is in the reply and is the last one.
    Last,
    /// There is no answer, not even to the requests before in this batch: the connection is cut.
    HangUp,
}

/// Where the commands of a letter are.
static BY_LETTER: Index = Index::of(COMMANDS);

/// The HTTP verbs and headers that Redis takes for an attempt at cross-protocol scripting.
const HTTP: [&[u8]; 2] = [b"post", b"host:"];

/// How much of a client's words an error repeats, as in Redis.
const QUOTED_BYTES: usize = 128;

/// Runs one request.
pub(super) fn dispatch(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.charge(1);
    let name = args.at(0);
    let Some(spec) = BY_LETTER.find(COMMANDS, name) else {
        return refuse(ctx, args);
    };
    let (spec, container) = match args.get(1) {
        Some(sub) if !spec.subcommands.is_empty() => match find(spec.subcommands, sub) {
            Some(found) => (found, Some(spec)),
            None => return unknown_subcommand(ctx, spec, sub),
        },
        _ => (spec, None),
    };
    let Some(run) = spec.run.filter(|_| admits(spec.arity, args.len())) else {
        return wrong_arity(ctx, spec, container);
    };
    if !ctx.client.authenticated && !spec.runs_before_auth() {
        return no_auth(ctx);
    }
    run(ctx, args)
}

/// Answers a request whose command is not in the table.
fn refuse(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let name = args.at(0);
    if HTTP.iter().any(|word| name.eq_ignore_ascii_case(word)) {
        return Outcome::HangUp;
    }
    match WRITES.iter().find(|(write, _)| name.eq_ignore_ascii_case(write.as_bytes())) {
        Some((write, arity)) if !admits(*arity, args.len()) => {
            ctx.reply.error(&arity_text(write));
            Outcome::Replied
        }
        Some(_) if !ctx.client.authenticated => no_auth(ctx),
        Some(_) => {
            ctx.reply.error("READONLY You can't write against a read only replica.");
            Outcome::Replied
        }
        None => unknown_command(ctx, args),
    }
}

/// Whether a request of `len` words has as many as `arity` wants; a negative one says "at least".
fn admits(arity: i32, len: usize) -> bool {
    let wanted = arity.unsigned_abs() as usize;
    if arity < 0 { len >= wanted } else { len == wanted }
}

fn no_auth(ctx: &mut Context<'_>) -> Outcome {
    ctx.reply.error("NOAUTH Authentication required.");
    Outcome::Replied
}

fn arity_text(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

fn wrong_arity(
    ctx: &mut Context<'_>,
    spec: &CommandSpec,
    container: Option<&CommandSpec>,
) -> Outcome {
    let text = match container {
        None => arity_text(spec.name),
        Some(container) => arity_text(&format!("{}|{}", container.name, spec.name)),
    };
    ctx.reply.error(&text);
    Outcome::Replied
}

fn unknown_subcommand(ctx: &mut Context<'_>, spec: &CommandSpec, sub: &[u8]) -> Outcome {
    let mut text = b"ERR unknown subcommand '".to_vec();
    text.extend_from_slice(quoted(sub, QUOTED_BYTES));
    text.extend_from_slice(format!("'. Try {} HELP.", spec.name.to_uppercase()).as_bytes());
    ctx.reply.error_quoting(&text);
    Outcome::Replied
}

fn unknown_command(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let mut words = Vec::new();
    for arg in args.from(1) {
        if words.len() >= QUOTED_BYTES {
            break;
        }
        let room = QUOTED_BYTES - words.len();
        words.push(b'\'');
        words.extend_from_slice(quoted(arg, room));
        words.extend_from_slice(b"' ");
    }
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(quoted(args.at(0), QUOTED_BYTES));
    text.extend_from_slice(b"', with args beginning with: ");
    text.extend_from_slice(&words);
    ctx.reply.error_quoting(&text);
    Outcome::Replied
}

/// What Redis' `%.128s` prints of a client's word: it stops at a NUL byte.
fn quoted(word: &[u8], most: usize) -> &[u8] {
    let word = &word[..word.len().min(most)];
    word.iter().position(|&byte| byte == 0).map_or(word, |nul| &word[..nul])
}

/// An error that repeats a word of the client's between `before` and `after`.
fn error_about(ctx: &mut Context<'_>, before: &str, word: &[u8], after: &str) -> Outcome {
    let whole = quoted(word, word.len());
    let text = [before.as_bytes(), whole, after.as_bytes()].concat();
    ctx.reply.error_quoting(&text);
    Outcome::Replied
}

/// Whether a text may stand in CLIENT LIST: visible ASCII without spaces.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

/// A text for which [`is_plain`] holds.
fn plain(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok().filter(|_| is_plain(text))
}

/// The name of every command, and of every subcommand after its container's.
#[cfg(test)]
pub(super) fn command_names() -> Vec<String> {
    let of = |spec: &CommandSpec| match spec.subcommands {
        [] => vec![spec.name.to_owned()],
        subs => subs.iter().map(|sub| format!("{}|{}", spec.name, sub.name)).collect(),
    };
    COMMANDS.iter().flat_map(of).collect()
}
