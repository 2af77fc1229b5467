//! What SDKs do to a token that they manage in Redis themselves, where the config says
//! `writes: Report`: deleting it means "the upstream refused this one", and setting it changes nothing.
//!
//! An SDK that sees errcode 40001 deletes the key, reads it again and fetches a token of its own when
//! it is gone, which would end ours. So the answer waits until the refresh has come off or failed: what
//! is read then is another token.

use crate::refresh::{Refused, Wish};
use crate::resp::command::spec::Keys;
use crate::resp::command::token::Asker;
use crate::resp::command::{Answer, CommandSpec, Context, Outcome, error_about, token};
use crate::resp::parse::{Args, integer};
use crate::token::SourceName;

const KEY: Keys = Keys { first: 1, last: 1, step: 1, access: &["OW", "update"] };
const KEYS: Keys = Keys { first: 1, last: -1, step: 1, access: &["RM", "delete"] };

const fn row(
    name: &'static str,
    arity: i32,
    keys: Keys,
    since: &'static str,
    summary: &'static str,
    usage: &'static str,
    run: fn(&mut Context<'_>, Args<'_>) -> Outcome,
) -> CommandSpec {
    CommandSpec {
        name,
        arity,
        flags: &["write"],
        keys,
        categories: &["@keyspace", "@write"],
        group: "generic",
        since,
        summary,
        usage,
        run: Some(run),
        ..CommandSpec::EMPTY
    }
}

/// The writes that are answered, sorted by name; without `writes: Report` they are refused like all
/// others.
pub(super) static REPORTS: &[CommandSpec] = &[
    row(
        "del",
        -2,
        KEYS,
        "1.0.0",
        "Report tokens as refused by the upstream",
        "key [key ...]",
        delete,
    ),
    row(
        "expire",
        -3,
        KEY,
        "1.0.0",
        "Report a token as refused when the time is up",
        "key seconds [NX|XX|GT|LT]",
        expire,
    ),
    row(
        "pexpire",
        -3,
        KEY,
        "2.6.0",
        "Report a token as refused when the time is up",
        "key milliseconds [NX|XX|GT|LT]",
        expire,
    ),
    row("psetex", 4, KEY, "2.6.0", "Accept and change nothing", "key milliseconds value", set_ex),
    row("set", -3, KEY, "1.0.0", "Accept and change nothing", "key value [option ...]", set),
    row("setex", 4, KEY, "2.0.0", "Accept and change nothing", "key seconds value", set_ex),
    row(
        "unlink",
        -2,
        KEYS,
        "4.0.0",
        "Report tokens as refused by the upstream",
        "key [key ...]",
        delete,
    ),
];

/// `DEL key [key ...]`, `UNLINK key [key ...]`: how many of them are tokens.
fn delete(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.charge(args.len());
    report(ctx, args.from(1))
}

/// `EXPIRE key seconds`, `PEXPIRE key milliseconds`: a time that is up means that the token is refused.
fn expire(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let Some(time) = integer(args.at(2)) else {
        return ctx.error("ERR value is not an integer or out of range");
    };
    let is_option = |word: &[u8]| {
        [&b"nx"[..], b"xx", b"gt", b"lt"].iter().any(|o| word.eq_ignore_ascii_case(o))
    };
    if let Some(wrong) = args.from(3).find(|word| !is_option(word)) {
        return error_about(ctx, "ERR Unsupported option ", wrong, "");
    }
    if time <= 0 {
        return report(ctx, std::iter::once(args.at(1)));
    }
    let is_token = ctx.live(args.at(1)).is_some();
    ctx.reply.count(usize::from(is_token));
    Outcome::Replied
}

/// `SET key value [option ...]`
fn set(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let mut at = 3;
    while let Some(option) = args.get(at) {
        let is = |words: &[&[u8]]| words.iter().any(|word| option.eq_ignore_ascii_case(word));
        if is(&[b"ex", b"px", b"exat", b"pxat"]) && args.get(at + 1).is_some() {
            if args.get(at + 1).and_then(integer).is_none() {
                return ctx.error("ERR value is not an integer or out of range");
            }
            at += 1;
        } else if !is(&[b"nx", b"xx", b"keepttl"]) {
            return ctx.syntax_error();
        }
        at += 1;
    }
    accept(ctx, args.at(1))
}

/// `SETEX key seconds value`, `PSETEX key milliseconds value`
fn set_ex(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    match integer(args.at(2)) {
        None => ctx.error("ERR value is not an integer or out of range"),
        Some(..=0) => {
            let name = String::from_utf8_lossy(args.at(0)).to_lowercase();
            error_about(ctx, "ERR invalid expire time in '", name.as_bytes(), "' command")
        }
        Some(1..) => accept(ctx, args.at(1)),
    }
}

/// Answers OK for a token; anything else cannot be kept here.
fn accept(ctx: &mut Context<'_>, key: &[u8]) -> Outcome {
    if token::source(ctx, key).is_none() {
        return ctx.error("READONLY You can't write against a read only replica.");
    }
    ctx.reply.ok();
    Outcome::Replied
}

fn report<'k>(ctx: &mut Context<'_>, keys: impl Iterator<Item = &'k [u8]>) -> Outcome {
    let mut count = 0;
    let mut wishes: Vec<(SourceName, Wish)> = Vec::new();
    for key in keys {
        let Some(live) = ctx.live(key) else { continue };
        count += 1;
        let Some(source) = token::source(ctx, key) else { continue };
        if wishes.iter().any(|(other, _)| *other == source) {
            continue;
        }
        let record = live.record();
        let given = ctx.client.given(&source);
        let counts = match given {
            // It was given an older one: it has only to read again.
            Some(generation) => generation == record.generation,
            // It does not say what it saw. A hundred SDKs that all delete the key must not end each
            // new token in turn.
            None => live.is_older_than_overlap(ctx.now),
        };
        if counts {
            let refused = Refused::value(&record.value);
            // Said once: from here on this connection has to read again before it can complain again.
            ctx.client.has_complained(&source);
            wishes.push((source, Wish::Other { refused, force: false }));
        }
    }
    if wishes.is_empty() {
        ctx.reply.count(count);
        return Outcome::Replied;
    }
    if ctx.in_exec {
        token::ask_unheard(ctx, wishes);
        ctx.reply.count(count);
        return Outcome::Replied;
    }
    let Some(asker) = Asker::of(ctx) else { return Outcome::Replied };
    ctx.waits = Some(Box::pin(async move {
        let asked = wishes.iter().map(|(source, wish)| asker.ask(source, *wish));
        // Whether it came off or not, the client reads again, and is given what there is.
        futures_util::future::join_all(asked).await;
        Answer::Count(count)
    }));
    Outcome::Waits
}
