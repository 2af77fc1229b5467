//! CLIENT and its subcommands: what a connection says of itself and may know of the others.

use std::sync::Arc;

use crate::resp::command::{Context, MOST_NAME_BYTES, Outcome, Replies, error_about, plain};
use crate::resp::connections::{Card, Stop};
use crate::resp::parse::{Args, integer};

/// The kinds of connections. None of ours is a replica's or a master's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    PubSub,
    Other,
}

impl Kind {
    fn parse(name: &[u8]) -> Option<Kind> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Some(Kind::Normal),
            b"pubsub" => Some(Kind::PubSub),
            b"master" | b"replica" | b"slave" => Some(Kind::Other),
            _ => None,
        }
    }

    fn is_of(self, card: &Card) -> bool {
        match self {
            Kind::Normal => !card.is_subscribed(),
            Kind::PubSub => card.is_subscribed(),
            Kind::Other => false,
        }
    }
}

/// Whether the client may know of a connection: one that does not see every source knows of its own
/// alone.
pub(super) fn may_see_client(ctx: &Context<'_>, card: &Card) -> bool {
    let user = ctx.client.user.as_ref();
    user.is_some_and(|user| !user.is_limited() || card.is_of(user.name()))
}

/// CLIENT ID
pub(super) fn id(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.integer(i64::try_from(ctx.client.card.id).unwrap_or(i64::MAX));
    Outcome::Replied
}

/// CLIENT GETNAME
pub(super) fn get_name(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let label = ctx.client.card.label();
    if label.name.is_empty() {
        ctx.reply.nil();
    } else {
        ctx.reply.bulk(label.name.as_bytes());
    }
    Outcome::Replied
}

/// CLIENT SETINFO (LIB-NAME name | LIB-VER version), of Redis 7.2: most clients send it first.
pub(super) fn set_info(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (attribute, text) = (args.at(2), args.at(3));
    let is_name = attribute.eq_ignore_ascii_case(b"lib-name");
    if !is_name && !attribute.eq_ignore_ascii_case(b"lib-ver") {
        return error_about(ctx, "ERR Unrecognized option '", attribute, "'");
    }
    let Some(text) = plain(text).filter(|text| text.len() <= MOST_NAME_BYTES) else {
        let after = " cannot contain spaces, newlines or special characters.";
        return error_about(ctx, "ERR ", attribute, after);
    };
    let mut label = ctx.client.card.label();
    if is_name {
        label.lib_name = text.into();
    } else {
        label.lib_ver = text.into();
    }
    ctx.reply.ok();
    Outcome::Replied
}

/// CLIENT INFO
pub(super) fn info(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let mut text = String::new();
    let command = if ctx.in_exec { "exec" } else { "client|info" };
    ctx.client.card.describe(ctx.now, command, &mut text);
    ctx.reply.text(&text);
    Outcome::Replied
}

/// `CLIENT LIST [TYPE type] [ID id ...]`
pub(super) fn list(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let connections = &ctx.shared.connections;
    let mut cards: Vec<Arc<Card>> = match args.get(2) {
        None => connections.all(),
        Some(option) if option.eq_ignore_ascii_case(b"type") && args.len() == 4 => {
            let Some(kind) = Kind::parse(args.at(3)) else {
                return error_about(ctx, "ERR Unknown client type '", args.at(3), "'");
            };
            let mut cards = connections.all();
            cards.retain(|card| kind.is_of(card));
            cards
        }
        Some(option) if option.eq_ignore_ascii_case(b"id") && args.len() > 3 => {
            let mut cards = Vec::new();
            for id in args.from(3) {
                let Some(id) = integer(id) else {
                    ctx.reply.error("ERR Invalid client ID");
                    return Outcome::Replied;
                };
                cards.extend(u64::try_from(id).ok().and_then(|id| connections.get(id)));
            }
            cards
        }
        Some(_) => return ctx.syntax_error(),
    };
    cards.retain(|card| may_see_client(ctx, card));
    ctx.charge(cards.len());
    let mut text = String::new();
    let me = ctx.client.card.id;
    for card in &cards {
        // What others said last is not kept.
        let command = match card.id == me {
            true if ctx.in_exec => "exec",
            true => "client|list",
            false => "NULL",
        };
        card.describe(ctx.now, command, &mut text);
    }
    ctx.reply.text(&text);
    Outcome::Replied
}

/// CLIENT NO-EVICT (ON|OFF): no client is evicted here, so it changes nothing but what CLIENT LIST says.
pub(super) fn no_evict(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    match on_or_off(args.at(2)) {
        Some(on) => {
            ctx.client.card.label().no_evict = on;
            ctx.reply.ok();
            Outcome::Replied
        }
        None => ctx.syntax_error(),
    }
}

/// CLIENT NO-TOUCH (ON|OFF): no key is evicted here, so it is accepted and changes nothing.
pub(super) fn no_touch(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    match on_or_off(args.at(2)) {
        Some(_) => {
            ctx.reply.ok();
            Outcome::Replied
        }
        None => ctx.syntax_error(),
    }
}

fn on_or_off(word: &[u8]) -> Option<bool> {
    if word.eq_ignore_ascii_case(b"on") {
        Some(true)
    } else {
        word.eq_ignore_ascii_case(b"off").then_some(false)
    }
}

/// `CLIENT REPLY (ON|OFF|SKIP)`: only ON is answered.
pub(super) fn reply(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let mode = args.at(2);
    let replies = &mut ctx.client.extra().replies;
    if mode.eq_ignore_ascii_case(b"on") {
        *replies = Replies::All;
        ctx.reply.unmute();
        ctx.reply.ok();
    } else if mode.eq_ignore_ascii_case(b"off") {
        *replies = Replies::None;
        ctx.reply.mute();
    } else if mode.eq_ignore_ascii_case(b"skip") {
        // Where nothing is answered anyway, nothing is skipped.
        if *replies != Replies::None {
            *replies = Replies::SkipOne;
        }
    } else {
        return ctx.syntax_error();
    }
    Outcome::Replied
}

/// What CLIENT KILL looks for; a connection is cut that meets every condition.
#[derive(Debug, Default)]
struct Victims<'a> {
    id: Option<u64>,
    kind: Option<Kind>,
    user: Option<&'a [u8]>,
    peer: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    not_me: bool,
}

impl Victims<'_> {
    fn include(&self, card: &Card, me: u64) -> bool {
        let is = |wanted: Option<&[u8]>, text: &dyn Fn() -> String| {
            wanted.is_none_or(|wanted| text().as_bytes() == wanted)
        };
        self.id.is_none_or(|id| id == card.id)
            && self.kind.is_none_or(|kind| kind.is_of(card))
            && is(self.user, &|| card.user_name())
            && is(self.peer, &|| card.peer.to_string())
            && is(self.local, &|| card.local.to_string())
            && !(self.not_me && card.id == me)
    }
}

/// `CLIENT KILL ip:port`, `CLIENT KILL [ID id] [TYPE type] [USER name] [ADDR ip:port] [LADDR ip:port]
/// [SKIPME yes|no]`
pub(super) fn kill(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let is_old = args.len() == 3;
    let victims = if is_old {
        Victims { peer: Some(args.at(2)), ..Victims::default() }
    } else {
        match victims(ctx, args) {
            Ok(victims) => victims,
            Err(outcome) => return outcome,
        }
    };
    let me = ctx.client.card.id;
    let mut cards = ctx.shared.connections.all();
    ctx.charge(cards.len());
    cards.retain(|card| victims.include(card, me) && may_see_client(ctx, card));
    let kills_me = cards.iter().any(|card| card.id == me);
    for card in cards.iter().filter(|card| card.id != me) {
        card.stop(Stop::Cut);
    }
    match (is_old, cards.is_empty()) {
        (true, true) => return ctx.error("ERR No such client"),
        (true, false) => ctx.reply.ok(),
        (false, _) => ctx.reply.count(cards.len()),
    }
    if kills_me { Outcome::Last } else { Outcome::Replied }
}

fn victims<'a>(ctx: &mut Context<'_>, args: Args<'a>) -> Result<Victims<'a>, Outcome> {
    let mut victims = Victims { not_me: true, ..Victims::default() };
    let mut at = 2;
    while let Some(option) = args.get(at) {
        let Some(value) = args.get(at + 1) else { return Err(ctx.syntax_error()) };
        match option.to_ascii_lowercase().as_slice() {
            b"id" => match integer(value).and_then(|id| u64::try_from(id).ok()) {
                Some(id @ 1..) => victims.id = Some(id),
                _ => return Err(ctx.error("ERR client-id should be greater than 0")),
            },
            b"type" => match Kind::parse(value) {
                Some(kind) => victims.kind = Some(kind),
                None => return Err(error_about(ctx, "ERR Unknown client type '", value, "'")),
            },
            b"user" => {
                let user = ctx.client.user.as_ref();
                let knows = |name: &&str| {
                    name.as_bytes() == value
                        && user.is_some_and(|user| !user.is_limited() || user.name() == *name)
                };
                if !ctx.shared.access.users().names().iter().any(knows) {
                    return Err(error_about(ctx, "ERR No such user '", value, "'"));
                }
                victims.user = Some(value);
            }
            b"addr" => victims.peer = Some(value),
            b"laddr" => victims.local = Some(value),
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => victims.not_me = true,
            b"skipme" if value.eq_ignore_ascii_case(b"no") => victims.not_me = false,
            _ => return Err(ctx.syntax_error()),
        }
        at += 2;
    }
    Ok(victims)
}
