//! Commands that read tokens. A token is a string key that expires; what it is, the snapshot says.
//!
//! **Life.** The promised life is stated half a second shorter and then rounded as Redis rounds: so
//! TTL never names more whole seconds than are left, and TTL, PTTL and EXPIRETIME agree with each
//! other by Redis' own rules.

use std::time::{Duration, UNIX_EPOCH};

use crate::access::Via;
use crate::clock::Now;
use crate::config::Writes;
use crate::resp::Shared;
use crate::resp::command::{Client, Context, Outcome};
use crate::resp::glob::{Case, matches};
use crate::resp::parse::{Args, integer};
use crate::resp::reply::Reply;
use crate::snapshot::{LiveToken, Published};
use crate::token::{Generation, SourceName};

/// Redis rounds TTL to the nearest second; this makes it round down.
const ROUNDING: Duration = Duration::from_millis(500);

/// What TTL and its kin say of a key that does not exist.
const NO_KEY: i64 = -2;

/// Of how many sources a connection remembers which token it was given: more than any SDK uses on one.
const MOST_GIVEN: usize = 64;

/// How many keys SCAN looks at when it is not told, as in Redis.
const SCAN_COUNT: usize = 10;

impl Context<'_> {
    /// The token under this key. A name is UTF-8, so anything else is no key.
    pub(super) fn live(&mut self, key: &[u8]) -> Option<LiveToken> {
        let key = std::str::from_utf8(key).ok();
        let token = key.and_then(|key| self.view.live(key, self.now));
        match token {
            Some(_) => {
                self.hits += 1;
                if let (Some(key), Some(user)) = (key, &self.client.user) {
                    let (audit, address) = (self.shared.access.audit(), self.client.card.peer.ip());
                    audit.read(user, key, address, Via::Resp);
                }
            }
            None => self.misses += 1,
        }
        token
    }
}

impl Client {
    /// Notes which token of a source the client has been given.
    fn give(&mut self, key: &[u8], generation: Generation) {
        let given = &mut self.extra().given;
        if let Some(known) = given.iter_mut().find(|(source, _)| source.as_str().as_bytes() == key)
        {
            known.1 = generation;
        } else if let Some(source) =
            std::str::from_utf8(key).ok().and_then(|key| SourceName::parse(key).ok())
        {
            if given.len() >= MOST_GIVEN {
                given.remove(0);
            }
            given.push((source, generation));
        }
    }

    /// Notes that the client has said what it thinks of the token it was given.
    pub(super) fn has_complained(&mut self, source: &SourceName) {
        // No token's generation: whatever is served now is another one.
        self.give(source.as_str().as_bytes(), Generation(0));
    }

    /// Which token of a source the client was last given.
    pub(super) fn given(&self, source: &SourceName) -> Option<Generation> {
        let given = &self.extra.as_ref()?.given;
        given.iter().find(|(other, _)| other == source).map(|(_, generation)| *generation)
    }
}

/// Answers with a token that has just been fetched.
pub(super) fn token(reply: &mut Reply<'_>, published: &Published) {
    reply.bulk(published.record.value.expose().as_bytes());
}

fn value(ctx: &mut Context<'_>, key: &[u8]) {
    match ctx.live(key) {
        Some(token) => {
            if ctx.shared.writes == Writes::Report {
                ctx.client.give(key, token.record().generation);
            }
            ctx.reply.bulk(token.record().value.expose().as_bytes());
        }
        None => ctx.reply.nil(),
    }
}

/// `GET key`
pub(super) fn get(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    value(ctx, args.at(1));
    Outcome::Replied
}

/// `MGET key [key ...]`
pub(super) fn mget(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.charge(args.len());
    let keys = args.from(1);
    ctx.reply.array(keys.len());
    keys.for_each(|key| value(ctx, key));
    Outcome::Replied
}

/// `STRLEN key`
pub(super) fn strlen(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let len = ctx.live(args.at(1)).map_or(0, |token| token.record().value.expose().len());
    ctx.reply.count(len);
    Outcome::Replied
}

/// `EXISTS key [key ...]` and TOUCH: a key named twice counts twice.
pub(super) fn exists(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.charge(args.len());
    let found = args.from(1).filter(|key| ctx.live(key).is_some()).count();
    ctx.reply.count(found);
    Outcome::Replied
}

/// `TYPE key`
pub(super) fn type_of(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let kind = if ctx.live(args.at(1)).is_some() { "string" } else { "none" };
    ctx.reply.simple(kind);
    Outcome::Replied
}

/// `TTL key`: whole seconds.
pub(super) fn ttl(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    life(ctx, args, |_, stated| to_seconds(stated))
}

/// `PTTL key`: milliseconds.
pub(super) fn pttl(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    life(ctx, args, |_, stated| stated)
}

/// `EXPIRETIME key`: Unix seconds.
pub(super) fn expiretime(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    life(ctx, args, |now, stated| to_seconds(now.saturating_add(stated)))
}

/// `PEXPIRETIME key`: Unix milliseconds.
pub(super) fn pexpiretime(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    life(ctx, args, i64::saturating_add)
}

/// Answers with `show(now, stated life)`, both in milliseconds.
fn life(ctx: &mut Context<'_>, args: Args<'_>, show: fn(i64, i64) -> i64) -> Outcome {
    let shown = ctx.live(args.at(1)).map_or(NO_KEY, |token| {
        let KeyLife { now, stated } = KeyLife::of(&token, ctx.now);
        show(now, stated)
    });
    ctx.reply.integer(shown);
    Outcome::Replied
}

/// How long a token lives, as it is stated; in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyLife {
    /// Since the Unix epoch.
    now: i64,
    stated: i64,
}

impl KeyLife {
    fn of(token: &LiveToken, now: Now) -> KeyLife {
        let unix = now.wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let stated = token.promised_life().saturating_sub(ROUNDING);
        KeyLife { now: to_millis(unix), stated: to_millis(stated) }
    }

    /// What TTL says.
    pub(super) fn seconds(&self) -> i64 {
        to_seconds(self.stated)
    }

    /// What EXPIRETIME says.
    pub(super) fn ends_at(&self) -> i64 {
        to_seconds(self.now.saturating_add(self.stated))
    }
}

/// How long the token of a source lives, if it does.
pub(super) fn life_of(shared: &Shared, source: &str, now: Now) -> Option<KeyLife> {
    shared.reader.live(source, now).map(|token| KeyLife::of(&token, now))
}

fn to_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// As Redis rounds.
fn to_seconds(millis: i64) -> i64 {
    millis.saturating_add(500) / 1_000
}

/// `KEYS pattern`
pub(super) fn keys(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let pattern = args.at(1);
    let view = ctx.shared.reader.view();
    ctx.charge(view.sources().len());
    let found: Vec<_> = view
        .all_live(ctx.now)
        .map(|(name, _)| name.as_str().as_bytes())
        .filter(|name| matches(pattern, name, Case::Sensitive) && ctx.may_see(name))
        .collect();
    ctx.reply.array(found.len());
    found.into_iter().for_each(|name| ctx.reply.bulk(name));
    Outcome::Replied
}

/// DBSIZE: how many tokens are live.
pub(super) fn dbsize(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let live = live_count(ctx);
    ctx.reply.count(live);
    Outcome::Replied
}

/// How many tokens are live.
pub(super) fn live_count(ctx: &mut Context<'_>) -> usize {
    let view = ctx.shared.reader.view();
    ctx.charge(view.sources().len());
    view.all_live(ctx.now).filter(|(name, _)| ctx.may_see(name.as_str().as_bytes())).count()
}

/// RANDOMKEY
pub(super) fn randomkey(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let live = live_count(ctx);
    let view = ctx.shared.reader.view();
    let seen = view.all_live(ctx.now).filter(|(name, _)| ctx.may_see(name.as_str().as_bytes()));
    let mut dice = fastrand::Rng::with_seed(ctx.shared.clock.seed());
    match seen.map(|(name, _)| name).nth(dice.usize(..live.max(1))) {
        Some(name) => ctx.reply.bulk(name.as_str().as_bytes()),
        None => ctx.reply.nil(),
    }
    Outcome::Replied
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
///
/// The cursor is a position in the config, so each token that lives all the time is shown exactly
/// once, unless a reload of the config moves it meanwhile.
pub(super) fn scan(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let Some(cursor) = cursor(args.at(1)) else {
        ctx.reply.error("ERR invalid cursor");
        return Outcome::Replied;
    };
    let (mut pattern, mut count, mut strings) = (&b"*"[..], SCAN_COUNT, true);
    let mut at = 2;
    while let Some(option) = args.get(at) {
        let Some(argument) = args.get(at + 1) else { return ctx.syntax_error() };
        if option.eq_ignore_ascii_case(b"count") {
            match integer(argument) {
                None => {
                    ctx.reply.error("ERR value is not an integer or out of range");
                    return Outcome::Replied;
                }
                Some(wanted) if wanted < 1 => return ctx.syntax_error(),
                Some(wanted) => count = usize::try_from(wanted).unwrap_or(usize::MAX),
            }
        } else if option.eq_ignore_ascii_case(b"match") {
            pattern = argument;
        } else if option.eq_ignore_ascii_case(b"type") {
            strings = argument.eq_ignore_ascii_case(b"string");
        } else {
            return ctx.syntax_error();
        }
        at += 2;
    }
    let (shared, now) = (ctx.shared, ctx.now);
    let view = shared.reader.view();
    // Counted among those that the client may see: the others are not there for it.
    let sources = || view.sources().filter(|name| ctx.may_see(name.as_str().as_bytes()));
    let seen = sources().count();
    let next = cursor.saturating_add(count);
    let next = if next < seen { next } else { 0 };
    let found: Vec<_> = sources()
        .skip(cursor)
        .take(count)
        .filter(|_| strings)
        .filter(|name| matches(pattern, name.as_str().as_bytes(), Case::Sensitive))
        .filter(|name| view.live(name.as_str(), now).is_some())
        .collect();
    ctx.charge(view.sources().len());
    ctx.reply.array(2);
    ctx.reply.bulk(next.to_string().as_bytes());
    ctx.reply.array(found.len());
    found.into_iter().for_each(|name| ctx.reply.bulk(name.as_str().as_bytes()));
    Outcome::Replied
}

/// A cursor as C's `strtoul` reads it: a sign is allowed, nothing at all is 0.
pub(super) fn cursor(text: &[u8]) -> Option<usize> {
    // For C the text ends at a NUL byte.
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    let (digits, negative) = match text {
        [b'+', digits @ ..] => (digits, false),
        [b'-', digits @ ..] => (digits, true),
        digits => (digits, false),
    };
    if digits.is_empty() {
        return text.is_empty().then_some(0);
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let value = if negative { value.wrapping_neg() } else { value };
    Some(usize::try_from(value).unwrap_or(usize::MAX))
}
