//! Commands about the connection itself: the handshake, the password, the farewell.

use std::sync::Arc;

use crate::access::{Manner, Refusal, SLOWNESS, User, Via};
use crate::resp::DATABASES;
use crate::resp::command::{
    Answer, Client, Context, MOST_NAME_BYTES, Outcome, REDIS_VERSION, error_about, plain,
};
use crate::resp::parse::{Args, integer};
use crate::resp::reply::Protocol;

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const TOO_MANY_WRONG_KEYS: &str = "ERR too many wrong keys from this address, try again later";

/// `PING [message]`
pub(super) fn ping(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let subscribes = ctx.reply.protocol == Protocol::Resp2 && ctx.client.card.is_subscribed();
    match (args.len(), args.get(1)) {
        (1 | 2, message) if subscribes => {
            ctx.reply.array(2);
            ctx.reply.bulk(b"pong");
            ctx.reply.bulk(message.unwrap_or_default());
        }
        (1, _) => ctx.reply.simple("PONG"),
        (2, Some(message)) => ctx.reply.bulk(message),
        // The table's arity has no upper end, and Redis checks this one here as well.
        _ => ctx.reply.error("ERR wrong number of arguments for 'ping' command"),
    }
    Outcome::Replied
}

/// `ECHO message`
pub(super) fn echo(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.reply.bulk(args.at(1));
    Outcome::Replied
}

/// `AUTH [username] password`
pub(super) fn auth(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let access = &ctx.shared.access;
    let address = ctx.client.card.peer.ip();
    let user = match args.len() {
        2 if access.users().is_open() => {
            return ctx.error(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            );
        }
        // Redis knows the default user only by a password alone. Here a client is known by its key as
        // well: old ones cannot say a name.
        2 => access.with_key(Some(args.at(1)), address),
        3 => access.with_name(args.at(1), args.at(2), address),
        _ => return ctx.syntax_error(),
    };
    match user.cloned() {
        Ok(user) => {
            let_in(ctx, user);
            ctx.reply.ok();
            Outcome::Replied
        }
        Err(refusal) => turn_away(ctx, &refusal),
    }
}

/// Lets the client in as this user.
fn let_in(ctx: &mut Context<'_>, user: Arc<User>) {
    ctx.client.card.set_user(Some(Arc::clone(&user)));
    ctx.client.user = Some(user);
}

/// Answers a client that has shown a wrong key, and leaves it as it was. One that comes from where many
/// are shown is answered later, and what it sends next waits as long.
fn turn_away(ctx: &mut Context<'_>, refusal: &Refusal) -> Outcome {
    let address = ctx.client.card.peer.ip();
    match ctx.shared.access.turn_away(refusal, address, Via::Resp) {
        Manner::AtOnce => ctx.error(WRONG_PASSWORD),
        Manner::Slowly(None) => {
            ctx.reply.error(TOO_MANY_WRONG_KEYS);
            Outcome::Last
        }
        Manner::Slowly(Some(place)) => {
            ctx.waits = Some(Box::pin(async move {
                tokio::time::sleep(SLOWNESS).await;
                drop(place);
                Answer::Refused(TOO_MANY_WRONG_KEYS)
            }));
            Outcome::Waits
        }
    }
}

/// `HELLO [protover [AUTH username password] [SETNAME clientname]]`
pub(super) fn hello(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let protocol = match args.get(1).map(integer) {
        None => None,
        Some(Some(2)) => Some(Protocol::Resp2),
        Some(Some(3)) => Some(Protocol::Resp3),
        Some(Some(_)) => {
            ctx.reply.error("NOPROTO unsupported protocol version");
            return Outcome::Replied;
        }
        Some(None) => {
            ctx.reply.error("ERR Protocol version is not an integer or out of range");
            return Outcome::Replied;
        }
    };
    // Each option takes effect when it is read, even where a later one fails: as in Redis.
    let mut at = 2;
    while let Some(option) = args.get(at) {
        match (args.get(at + 1), args.get(at + 2)) {
            (Some(user), Some(password)) if option.eq_ignore_ascii_case(b"auth") => {
                let address = ctx.client.card.peer.ip();
                match ctx.shared.access.with_name(user, password, address).cloned() {
                    Ok(user) => let_in(ctx, user),
                    Err(refusal) => return turn_away(ctx, &refusal),
                }
                at += 3;
            }
            (Some(name), _) if option.eq_ignore_ascii_case(b"setname") => {
                if !name_client(ctx, name) {
                    return Outcome::Replied;
                }
                at += 2;
            }
            _ => return error_about(ctx, "ERR Syntax error in HELLO option '", option, "'"),
        }
    }
    if ctx.client.user.is_none() {
        ctx.reply.error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO AUTH <user> <pass> option can be used to authenticate the client and select \
             the RESP protocol version at the same time",
        );
        return Outcome::Replied;
    }
    if let Some(protocol) = protocol {
        speak(ctx, protocol);
    }
    greet(ctx);
    Outcome::Replied
}

fn speak(ctx: &mut Context<'_>, protocol: Protocol) {
    // What was left for the client before was left in the old protocol.
    let card = Arc::clone(&ctx.client.card);
    let was_muted = ctx.reply.unmute();
    ctx.reply.frames(|out| card.switch(protocol, out));
    if was_muted {
        ctx.reply.mute();
    }
    ctx.client.protocol = protocol;
    ctx.reply.protocol = protocol;
}

/// The map that answers HELLO. Clients look for `proto` in it, some for `version`.
fn greet(ctx: &mut Context<'_>) {
    let Client { card, protocol, .. } = &*ctx.client;
    let id = i64::try_from(card.id).unwrap_or(i64::MAX);
    let reply = &mut ctx.reply;
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    for (key, value) in [("proto", protocol.number().into()), ("id", id)] {
        reply.bulk(key.as_bytes());
        reply.integer(value);
    }
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
}

/// `SELECT index`
pub(super) fn select(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    match integer(args.at(1)) {
        None => ctx.reply.error("ERR value is not an integer or out of range"),
        Some(index) if i32::try_from(index).is_err() => ctx
            .reply
            .error("ERR value is out of range, value must between -2147483648 and 2147483647"),
        Some(index) => match u8::try_from(index) {
            Ok(db @ 0..DATABASES) => {
                ctx.client.card.set_db(db);
                ctx.reply.ok();
            }
            _ => ctx.reply.error("ERR DB index is out of range"),
        },
    }
    Outcome::Replied
}

/// QUIT
pub(super) fn quit(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.ok();
    Outcome::Last
}

/// RESET: as if the connection were new.
pub(super) fn reset(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    speak(ctx, Protocol::Resp2);
    ctx.reply.unmute();
    ctx.client.leave(ctx.shared);
    ctx.client.extra = None;
    ctx.client.user = ctx.shared.access.users().at_connect();
    let card = &ctx.client.card;
    card.set_user(ctx.client.user.clone());
    card.set_queued(None);
    card.set_db(0);
    card.label().name.clear();
    ctx.reply.simple("RESET");
    Outcome::Replied
}

/// `CLIENT SETNAME name`: an empty one takes the name away.
pub(super) fn set_name(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if name_client(ctx, args.at(2)) {
        ctx.reply.ok();
    }
    Outcome::Replied
}

/// Names the client, or answers why not.
fn name_client(ctx: &mut Context<'_>, name: &[u8]) -> bool {
    let name = plain(name).filter(|name| name.len() <= MOST_NAME_BYTES);
    match name {
        Some(name) => ctx.client.card.label().name = name.into(),
        None => ctx
            .reply
            .error("ERR Client names cannot contain spaces, newlines or special characters."),
    }
    name.is_some()
}
