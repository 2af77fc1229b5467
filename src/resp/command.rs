//! Finds the command of a request and decides whether it may run: existence, arity, AUTH, in
//! Redis' order. What each command does is in the files below this one; `table` lists them all.

mod acl;
mod bits;
mod catalogue;
mod client;
mod connection;
mod foreign;
mod keys;
mod lcs;
mod object;
mod pubsub;
mod reports;
mod server;
mod spec;
mod table;
mod token;
mod tracking;
mod transaction;
mod weight;
mod writes;

use std::pin::Pin;
use std::sync::Arc;

use crate::access::User;
use crate::clock::Now;
use crate::config::Writes;
use crate::refresh::RefreshError;
use crate::resp::Shared;
use crate::resp::command::foreign::FOREIGN;
use crate::resp::command::pubsub::Subscribed;
use crate::resp::command::reports::REPORTS;
use crate::resp::command::spec::{CommandSpec, Index, Run, find};
use crate::resp::command::table::COMMANDS;
use crate::resp::command::transaction::{Transaction, Watched};
use crate::resp::command::writes::WRITES;
use crate::resp::connections::Card;
use crate::resp::parse::Args;
use crate::resp::reply::{Protocol, Reply};
use crate::snapshot::{Published, View};
use crate::token::{Generation, SourceName};

/// What clients are told of the version. The behaviour is that of Redis 7.0 with the commands of 7.2
/// that clients send first; some clients keep a cache only from 7.4 on, and need nothing of it.
const REDIS_VERSION: &str = "7.4.0";

/// What a session remembers of its client between requests.
pub(super) struct Client {
    /// What others may know of it.
    pub(super) card: Arc<Card>,
    /// Which protocol it speaks.
    pub(super) protocol: Protocol,
    /// Who it is; `None`: it has not said so, and may do little more than AUTH.
    pub(super) user: Option<Arc<User>>,
    /// What only few clients have; `None` for one that just reads.
    extra: Option<Box<Extra>>,
}

/// What makes a client more than one that just reads.
#[derive(Default)]
struct Extra {
    transaction: Option<Transaction>,
    watched: Vec<Watched>,
    channels: Subscribed,
    patterns: Subscribed,
    /// What the names of both take, in bytes.
    subscribed_bytes: usize,
    /// Whether it caches: what it reads is noted.
    tracks: bool,
    /// CLIENT CACHING came right before.
    caching: bool,
    replies: Replies,
    /// Which token it was last given of each source, where deleting one is a report.
    given: Vec<(SourceName, Generation)>,
}

impl Extra {
    fn is_nothing(&self) -> bool {
        let Extra { transaction, watched, channels, patterns, tracks, replies, given, .. } = self;
        transaction.is_none()
            && watched.is_empty()
            && channels.is_empty()
            && patterns.is_empty()
            && !tracks
            && *replies == Replies::All
            && given.is_empty()
    }
}

/// Which replies are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Replies {
    #[default]
    All,
    None,
    /// Not that to the next request.
    SkipOne,
}

impl Client {
    /// A client that has said nothing yet.
    pub(super) fn new(card: Arc<Card>, user: Option<Arc<User>>) -> Client {
        Client { card, protocol: Protocol::Resp2, user, extra: None }
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Whether it is let in, may see everything, and just reads.
    fn is_plain(&self) -> bool {
        self.extra.is_none() && self.user.as_ref().is_some_and(|user| !user.is_limited())
    }

    fn is_in_transaction(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.transaction.is_some())
    }

    /// Makes it one that just reads again, when it is.
    fn simplify(&mut self) {
        self.extra.take_if(|extra| extra.is_nothing());
    }

    /// Undoes what others know of it: it goes, or begins anew.
    pub(super) fn leave(&mut self, shared: &Shared) {
        pubsub::leave_all(self, shared);
        tracking::stop(self, shared);
    }
}

/// What a command works with.
pub(super) struct Context<'a> {
    /// What all sessions share.
    pub(super) shared: &'a Arc<Shared>,
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
    /// The sources, as they are for the whole batch; a token is that of the moment it is read.
    pub(super) view: View,
    /// What is to be waited for, after [`Outcome::Waits`].
    pub(super) waits: Option<Wait>,
    /// Whether EXEC is running: nothing is waited for.
    pub(super) in_exec: bool,
}

/// What a client waits for before its next request is looked at.
pub(super) type Wait = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What it is answered then.
#[derive(Debug)]
pub(super) enum Answer {
    /// It does not want to know.
    Nothing,
    /// A number of tokens.
    Count(usize),
    /// It has tried too often.
    Refused(&'static str),
    /// A token, or why there is none.
    Token(Result<Arc<Published>, RefreshError>),
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

    /// An answer in one line of text that is an error.
    fn error(&mut self, text: &str) -> Outcome {
        self.reply.error(text);
        Outcome::Replied
    }

    /// Whether the client may know of this source.
    fn may_see(&self, source: &[u8]) -> bool {
        self.client.user.as_ref().is_some_and(|user| user.may_see(source))
    }

    /// The subcommand or option is not one, or comes with too many words.
    fn no_such_form(&mut self, container: &str, sub: &[u8]) -> Outcome {
        let after = format!("'. Try {} HELP.", container.to_uppercase());
        error_about(self, "ERR unknown subcommand or wrong number of arguments for '", sub, &after)
    }
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer is in the reply.
    Replied,
    /// The answer is still to come: see [`Context::waits`].
    Waits,
    /// The answer is in the reply and is the last one.
    Last,
    /// There is no answer, not even to the requests before in this batch: the connection is cut.
    HangUp,
}

/// Where the commands of a letter are, in each of the tables.
static BY_LETTER: [Index; 2] = [Index::of(COMMANDS), Index::of(FOREIGN)];

/// The longest name that a client may give itself, in bytes: it stands in each line of CLIENT LIST.
const MOST_NAME_BYTES: usize = 256;

/// The HTTP verbs and headers that Redis takes for an attempt at cross-protocol scripting.
const HTTP: [&[u8]; 2] = [b"post", b"host:"];

/// How much of a client's words an error repeats, as in Redis.
const QUOTED_BYTES: usize = 128;

/// Runs one request.
pub(super) fn dispatch(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.charge(1);
    if !ctx.client.is_plain() {
        return dispatch_with_care(ctx, args);
    }
    match named(ctx, args) {
        Ok(Named { run, .. }) => run(ctx, args),
        Err(outcome) => outcome,
    }
}

/// The command that a request names, which has as many words as it should.
struct Named {
    spec: &'static CommandSpec,
    container: Option<&'static CommandSpec>,
    run: Run,
}

/// Finds the command of a request, or refuses it.
fn named(ctx: &mut Context<'_>, args: Args<'_>) -> Result<Named, Outcome> {
    let reports = || match ctx.shared.writes {
        Writes::Report => find(REPORTS, args.at(0)),
        Writes::Refuse => None,
    };
    let Some(spec) = find_command(args.at(0)).or_else(reports) else {
        return Err(refuse(ctx, args));
    };
    let (spec, container) = match args.get(1) {
        Some(sub) if !spec.subcommands.is_empty() => match find(spec.subcommands, sub) {
            Some(found) => (found, Some(spec)),
            None => return Err(unknown_subcommand(ctx, spec, sub)),
        },
        _ => (spec, None),
    };
    match spec.run.filter(|_| admits(spec.arity, args.len())) {
        Some(run) => Ok(Named { spec, container, run }),
        None => Err(wrong_arity(ctx, spec, container)),
    }
}

/// Every command that is not refused: those that are about tokens, and the others.
static TABLES: [&[CommandSpec]; 2] = [COMMANDS, FOREIGN];

/// The command of this name.
fn find_command(name: &[u8]) -> Option<&'static CommandSpec> {
    BY_LETTER.iter().zip(TABLES).find_map(|(index, table)| index.find(table, name))
}

/// Runs a request of a client that is not let in yet, or does not see everything, or is more than one
/// that just reads.
fn dispatch_with_care(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let replies = match &mut ctx.client.extra {
        Some(extra) if extra.replies == Replies::SkipOne => std::mem::take(&mut extra.replies),
        Some(extra) => extra.replies,
        None => Replies::All,
    };
    if replies != Replies::All {
        ctx.reply.mute();
    }
    let outcome = match named(ctx, args) {
        Ok(command) => check_and_run(ctx, &command, args),
        Err(outcome) => outcome,
    };
    if ctx.reply.unmute()
        && let Some(wait) = ctx.waits.take()
    {
        ctx.waits = Some(Box::pin(async move {
            wait.await;
            Answer::Nothing
        }));
    }
    ctx.client.simplify();
    outcome
}

/// Runs a request unless the client may not send it now. The checks are in Redis' order.
fn check_and_run(ctx: &mut Context<'_>, command: &Named, args: Args<'_>) -> Outcome {
    let Named { spec, container, .. } = *command;
    if ctx.client.user.is_none() && !spec.runs_before_auth() {
        return no_auth(ctx, spec.name);
    }
    let in_transaction = ctx.client.is_in_transaction();
    if in_transaction && spec.flags.contains(&"no_multi") {
        return reject(ctx, spec.name, b"ERR Command not allowed inside a transaction");
    }
    if ctx.client.user.as_ref().is_some_and(|user| user.is_limited()) {
        if let Some((key, _)) = spec.keys_in(args).iter().find(|(key, _)| !ctx.may_see(key)) {
            token::note_denied(ctx, key);
            return reject(ctx, spec.name, NO_KEY_PERMISSION);
        }
        if !pubsub::may_subscribe(ctx, spec.name, args) {
            return reject(ctx, spec.name, NO_CHANNEL_PERMISSION);
        }
    }
    if ctx.client.protocol == Protocol::Resp2
        && ctx.client.card.is_subscribed()
        && !(container.is_none() && SUBSCRIBERS_MAY.contains(&spec.name))
    {
        let name = full_name(spec, container);
        let text = format!(
            "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context"
        );
        return reject(ctx, spec.name, text.as_bytes());
    }
    if in_transaction && !(container.is_none() && NEVER_QUEUED.contains(&spec.name)) {
        return transaction::queue(ctx, spec, args);
    }
    run_noted(ctx, spec, container, args)
}

/// Runs a request, and notes what a client that caches has read.
fn run_noted(
    ctx: &mut Context<'_>,
    spec: &'static CommandSpec,
    container: Option<&CommandSpec>,
    args: Args<'_>,
) -> Outcome {
    // Before the read: a token that changes in between is told of, and not missed.
    tracking::note(ctx, spec, container, args);
    let run = spec.run.expect("the dispatcher looked for it");
    run(ctx, args)
}

/// What a RESP2 client may send while it subscribes.
const SUBSCRIBERS_MAY: &[&str] =
    &["subscribe", "psubscribe", "unsubscribe", "punsubscribe", "ping", "quit", "reset"];

/// What is run at once inside MULTI.
const NEVER_QUEUED: &[&str] = &["exec", "discard", "multi", "watch", "quit", "reset"];

const NO_KEY_PERMISSION: &[u8] =
    b"NOPERM this user has no permissions to access one of the keys used as arguments";

const NO_CHANNEL_PERMISSION: &[u8] =
    b"NOPERM this user has no permissions to access one of the channels used as arguments";

/// Refuses a request before it is run: a transaction that it belongs to will not run either, and EXEC
/// ends it.
fn reject(ctx: &mut Context<'_>, command: &str, text: &[u8]) -> Outcome {
    if command == "exec" {
        transaction::abandon(ctx);
        let text = text.strip_prefix(b"ERR ").unwrap_or(text);
        let text = [b"EXECABORT Transaction discarded because of: ", text].concat();
        ctx.reply.error_quoting(&text);
    } else {
        transaction::spoil(ctx);
        ctx.reply.error_quoting(text);
    }
    Outcome::Replied
}

/// Writes the answer to what was waited for.
pub(super) fn answer(reply: &mut Reply<'_>, answer: Answer) {
    match answer {
        Answer::Nothing => {}
        Answer::Count(count) => reply.count(count),
        Answer::Refused(text) => reply.error(text),
        Answer::Token(Ok(published)) => keys::token(reply, &published),
        Answer::Token(Err(error)) => reply.error_quoting(format!("ERR {error}").as_bytes()),
    }
}

/// Answers a request whose command is not in the table.
fn refuse(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let name = args.at(0);
    if HTTP.iter().any(|word| name.eq_ignore_ascii_case(word)) {
        return Outcome::HangUp;
    }
    match WRITES.iter().find(|(write, _)| name.eq_ignore_ascii_case(write.as_bytes())) {
        Some((write, arity)) if !admits(*arity, args.len()) => {
            reject(ctx, write, arity_text(write).as_bytes())
        }
        Some((write, _)) if ctx.client.user.is_none() => no_auth(ctx, write),
        Some((write, _)) => {
            reject(ctx, write, b"READONLY You can't write against a read only replica.")
        }
        None => unknown_command(ctx, args),
    }
}

/// Whether a request of `len` words has as many as `arity` wants; a negative one says "at least".
fn admits(arity: i32, len: usize) -> bool {
    let wanted = arity.unsigned_abs() as usize;
    if arity < 0 { len >= wanted } else { len == wanted }
}

fn no_auth(ctx: &mut Context<'_>, command: &str) -> Outcome {
    reject(ctx, command, b"NOAUTH Authentication required.")
}

fn arity_text(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

fn full_name(spec: &CommandSpec, container: Option<&CommandSpec>) -> String {
    match container {
        None => spec.name.to_owned(),
        Some(container) => format!("{}|{}", container.name, spec.name),
    }
}

fn wrong_arity(
    ctx: &mut Context<'_>,
    spec: &CommandSpec,
    container: Option<&CommandSpec>,
) -> Outcome {
    let text = arity_text(&full_name(spec, container));
    reject(ctx, spec.name, text.as_bytes())
}

fn unknown_subcommand(ctx: &mut Context<'_>, spec: &CommandSpec, sub: &[u8]) -> Outcome {
    let mut text = b"ERR unknown subcommand '".to_vec();
    text.extend_from_slice(quoted(sub, QUOTED_BYTES));
    text.extend_from_slice(format!("'. Try {} HELP.", spec.name.to_uppercase()).as_bytes());
    reject(ctx, spec.name, &text)
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
    reject(ctx, "", &text)
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
    TABLES.into_iter().flatten().flat_map(of).collect()
}
