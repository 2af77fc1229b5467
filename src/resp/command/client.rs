//! CLIENT and its subcommands: what a connection says of itself and may know of the others.

use std::sync::Arc;

use crate::resp::command::{Context, Outcome, error_about, plain};
use crate::resp::connections::Card;
use crate::resp::parse::{Args, integer};

/// The kinds of connections that CLIENT LIST TYPE knows. All of ours are the first.
const TYPES: [&[u8]; 5] = [b"normal", b"master", b"replica", b"slave", b"pubsub"];

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
    let Some(text) = plain(text) else {
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
    ctx.client.card.describe(ctx.now, &mut text);
    ctx.reply.text(&text);
    Outcome::Replied
}

/// `CLIENT LIST [TYPE type] [ID id ...]`
pub(super) fn list(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let connections = &ctx.shared.connections;
    let cards: Vec<Arc<Card>> = match args.get(2) {
        None => connections.all(),
        Some(option) if option.eq_ignore_ascii_case(b"type") && args.len() == 4 => {
            let wanted = args.at(3);
            match TYPES.iter().position(|kind| kind.eq_ignore_ascii_case(wanted)) {
                None => return error_about(ctx, "ERR Unknown client type '", wanted, "'"),
                Some(0) => connections.all(),
                Some(_) => Vec::new(),
            }
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
    ctx.charge(cards.len());
    let mut text = String::new();
    cards.iter().for_each(|card| card.describe(ctx.now, &mut text));
    ctx.reply.text(&text);
    Outcome::Replied
}

/// CLIENT NO-EVICT (ON|OFF) and CLIENT NO-TOUCH (ON|OFF): nothing is evicted here, so both are
/// accepted and change nothing.
pub(super) fn on_or_off(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let switch = args.at(2);
    if !switch.eq_ignore_ascii_case(b"on") && !switch.eq_ignore_ascii_case(b"off") {
        return ctx.syntax_error();
    }
    ctx.reply.ok();
    Outcome::Replied
}
