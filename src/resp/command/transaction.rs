//! MULTI, EXEC, DISCARD, WATCH, UNWATCH: the requests that wait for EXEC, and the keys that must not
//! change before it.

use crate::clock::Now;
use crate::resp::command::{CommandSpec, Context, Outcome, run_noted};
use crate::resp::parse::{Args, Span, span};
use crate::snapshot::Reader;
use crate::token::Generation;

/// How many bytes a transaction may hold. Redis counts them to the client's query buffer, which it
/// limits too.
const MOST_BYTES: usize = 1024 * 1024;

/// How many requests a transaction may hold: one that only reads can say all it has to in one MGET.
const MOST_REQUESTS: usize = 4 * 1024;

/// How many bytes the answers of a transaction may have, and how much work (see [`Context::charge`])
/// they may cost: nobody else is served meanwhile. Requests beyond are answered with an error.
const MOST_ANSWER_BYTES: usize = 4 * 1024 * 1024;
const MOST_WORK: usize = 200_000;

/// The requests between MULTI and EXEC.
#[derive(Default)]
pub(super) struct Transaction {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    requests: Vec<Queued>,
    /// What all of it takes, in bytes.
    size: usize,
    /// Whether a request was refused: EXEC will run none.
    pub(super) is_spoilt: bool,
}

/// One request that waits.
#[derive(Debug)]
struct Queued {
    spec: &'static CommandSpec,
    /// Where its arguments end among the spans.
    end: usize,
}

impl Transaction {
    /// Keeps a request for later; says whether there was room for it.
    pub(super) fn queue(&mut self, spec: &'static CommandSpec, args: Args<'_>) -> bool {
        let bytes: usize = args.from(0).map(<[u8]>::len).sum();
        let size = bytes + args.len() * size_of::<Span>() + size_of::<Queued>();
        if self.size + size > MOST_BYTES || self.requests.len() >= MOST_REQUESTS {
            return false;
        }
        self.size += size;
        for arg in args.from(0) {
            self.spans.push(span(self.bytes.len(), arg.len()));
            self.bytes.extend_from_slice(arg);
        }
        self.requests.push(Queued { spec, end: self.spans.len() });
        true
    }

    /// What all of it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// The requests in their order.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&'static CommandSpec, Args<'_>)> {
        let begins = std::iter::once(0).chain(self.requests.iter().map(|request| request.end));
        self.requests.iter().zip(begins).map(|(request, begin)| {
            (request.spec, Args::new(&self.bytes, &self.spans[begin..request.end]))
        })
    }
}

/// A key as it was when it was watched.
#[derive(Debug)]
pub(super) struct Watched {
    key: Box<[u8]>,
    /// Its token; `None`: there was none.
    generation: Option<Generation>,
}

impl Watched {
    /// A key as it is now.
    pub(super) fn new(key: &[u8], reader: &Reader, now: Now) -> Watched {
        Watched { key: key.into(), generation: generation(key, reader, now) }
    }

    /// Whether this is the key.
    pub(super) fn is(&self, key: &[u8]) -> bool {
        *self.key == *key
    }

    /// Whether it has another token by now, or none, or one at all.
    pub(super) fn has_changed(&self, reader: &Reader, now: Now) -> bool {
        generation(&self.key, reader, now) != self.generation
    }
}

fn generation(key: &[u8], reader: &Reader, now: Now) -> Option<Generation> {
    let key = std::str::from_utf8(key).ok()?;
    reader.live(key, now).map(|token| token.record().generation)
}

/// How many keys one client may watch.
const MOST_WATCHED: usize = 1_024;

/// The longest key that can become a token, as `SourceName` has it.
const MOST_KEY_BYTES: usize = 256;

/// MULTI
pub(super) fn multi(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let extra = ctx.client.extra();
    if extra.transaction.is_some() {
        return ctx.error("ERR MULTI calls can not be nested");
    }
    extra.transaction = Some(Transaction::default());
    ctx.client.card.set_queued(Some(0));
    ctx.reply.ok();
    Outcome::Replied
}

/// Keeps a request for EXEC.
pub(super) fn queue(ctx: &mut Context<'_>, spec: &'static CommandSpec, args: Args<'_>) -> Outcome {
    let transaction = ctx.client.extra().transaction.as_mut().expect("asked for in one");
    if !transaction.queue(spec, args) {
        transaction.is_spoilt = true;
        return ctx.error("ERR the transaction is too large");
    }
    let queued = transaction.len();
    ctx.client.card.set_queued(Some(queued));
    ctx.reply.simple("QUEUED");
    Outcome::Replied
}

/// Notes that a request of the transaction was refused, if there is one.
pub(super) fn spoil(ctx: &mut Context<'_>) {
    let extra = ctx.client.extra.as_mut();
    if let Some(transaction) = extra.and_then(|extra| extra.transaction.as_mut()) {
        transaction.is_spoilt = true;
    }
}

/// Ends the transaction, if there is one, and with it what is watched.
pub(super) fn abandon(ctx: &mut Context<'_>) -> Option<Transaction> {
    let extra = ctx.client.extra.as_mut()?;
    extra.watched = Vec::new();
    ctx.client.card.set_queued(None);
    extra.transaction.take()
}

/// EXEC
pub(super) fn exec(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    if !ctx.client.is_in_transaction() {
        return ctx.error("ERR EXEC without MULTI");
    }
    let watched = std::mem::take(&mut ctx.client.extra().watched);
    let transaction = ctx.client.extra().transaction.take().expect("it is in one");
    let outcome = run(ctx, &transaction, &watched);
    ctx.client.card.set_queued(None);
    outcome
}

fn run(ctx: &mut Context<'_>, transaction: &Transaction, watched: &[Watched]) -> Outcome {
    if transaction.is_spoilt {
        return ctx.error("EXECABORT Transaction discarded because of previous errors.");
    }
    ctx.charge(transaction.len() + watched.len());
    let (reader, now) = (&ctx.shared.reader, ctx.now);
    if watched.iter().any(|watched| watched.has_changed(reader, now)) {
        ctx.reply.nil_array();
        return Outcome::Replied;
    }
    ctx.reply.array(transaction.len());
    ctx.in_exec = true;
    let (begun, worked) = (ctx.reply.len(), ctx.work);
    let mut outcome = Outcome::Replied;
    for (spec, args) in transaction.requests() {
        ctx.charge(1);
        if ctx.reply.len() - begun > MOST_ANSWER_BYTES || ctx.work - worked > MOST_WORK {
            ctx.reply.error("ERR the transaction asks for too much at once; split it");
        } else if run_noted(ctx, spec, None, args) == Outcome::Last {
            // (Nothing that waits or hangs up is ever queued.)
            outcome = Outcome::Last;
        }
    }
    ctx.in_exec = false;
    if let Some(extra) = &mut ctx.client.extra {
        extra.caching = false;
    }
    outcome
}

/// DISCARD
pub(super) fn discard(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    if !ctx.client.is_in_transaction() {
        return ctx.error("ERR DISCARD without MULTI");
    }
    abandon(ctx);
    ctx.reply.ok();
    Outcome::Replied
}

/// `WATCH key [key ...]`: EXEC runs nothing when one of the tokens has changed by then.
pub(super) fn watch(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.charge(args.len() * 8);
    let (shared, now) = (ctx.shared, ctx.now);
    let extra = ctx.client.extra();
    if extra.transaction.is_some() {
        return ctx.error("ERR WATCH inside MULTI is not allowed");
    }
    for key in args.from(1) {
        if key.len() > MOST_KEY_BYTES || extra.watched.iter().any(|watched| watched.is(key)) {
            continue;
        }
        if extra.watched.len() >= MOST_WATCHED {
            return ctx.error("ERR too many keys are watched on this connection");
        }
        extra.watched.push(Watched::new(key, &shared.reader, now));
    }
    ctx.reply.ok();
    Outcome::Replied
}

/// UNWATCH
pub(super) fn unwatch(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    if let Some(extra) = &mut ctx.client.extra {
        extra.watched = Vec::new();
    }
    ctx.reply.ok();
    Outcome::Replied
}
