//! Commands about the connection itself: the handshake, the password, the farewell.

use crate::resp::command::{Client, Context, Outcome, REDIS_VERSION, error_about, plain};
use crate::resp::parse::{Args, integer};
use crate::resp::reply::Protocol;

/// The one user there is; `AUTH password` means this one.
const USER: &[u8] = b"default";

/// How many databases SELECT admits. All of them show the same keys, so that a client configured
/// for any of Redis' sixteen works unchanged.
pub(super) const DATABASES: u8 = 16;

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// `PING [message]`
pub(super) fn ping(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    match (args.len(), args.get(1)) {
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
    let (user, password) = match args.len() {
        2 if ctx.shared.password.is_none() => {
            ctx.reply.error(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            );
            return Outcome::Replied;
        }
        2 => (USER, args.at(1)),
        3 => (args.at(1), args.at(2)),
        _ => return ctx.syntax_error(),
    };
    if authenticate(ctx, user, password) {
        ctx.reply.ok();
    } else {
        ctx.reply.error(WRONG_PASSWORD);
    }
    Outcome::Replied
}

/// Lets the client in if it may. A wrong password leaves it as it was. Without a configured
/// password any will do, as for Redis' user without one.
fn authenticate(ctx: &mut Context<'_>, user: &[u8], password: &[u8]) -> bool {
    let matches = ctx.shared.password.as_ref().is_none_or(|expected| expected.matches(password));
    let right = matches & (user == USER);
    ctx.client.authenticated |= right;
    right
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
                if !authenticate(ctx, user, password) {
                    ctx.reply.error(WRONG_PASSWORD);
                    return Outcome::Replied;
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
    if !ctx.client.authenticated {
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
    ctx.client.protocol = protocol;
    ctx.client.card.set_protocol(protocol);
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
    ctx.client.authenticated = ctx.shared.password.is_none();
    ctx.client.card.set_db(0);
    ctx.client.card.label().name.clear();
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
    let name = plain(name);
    match name {
        Some(name) => ctx.client.card.label().name = name.into(),
        None => ctx
            .reply
            .error("ERR Client names cannot contain spaces, newlines or special characters."),
    }
    name.is_some()
}
