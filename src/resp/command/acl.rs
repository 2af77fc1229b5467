//! ACL, as far as clients ask: who the client is and what it may do. Who may what is set in the config.

use std::fmt::Write as _;

use crate::resp::command::catalogue::commands;
use crate::resp::command::{CommandSpec, Context, Outcome, error_about};
use crate::resp::parse::Args;

/// The categories of Redis 7.0, in its order.
const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// ACL WHOAMI
pub(super) fn whoami(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let name = ctx.client.user.as_ref().map_or("", |user| user.name()).to_owned();
    ctx.reply.bulk(name.as_bytes());
    Outcome::Replied
}

/// `ACL CAT [category]`
pub(super) fn cat(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    match args.get(2) {
        None => {
            ctx.reply.array(CATEGORIES.len());
            CATEGORIES.iter().for_each(|category| ctx.reply.bulk(category.as_bytes()));
        }
        Some(_) if args.len() > 3 => return ctx.no_such_form("acl", args.at(1)),
        Some(category) => {
            if !CATEGORIES.iter().any(|known| category.eq_ignore_ascii_case(known.as_bytes())) {
                return error_about(ctx, "ERR Unknown category '", category, "'");
            }
            let names = in_category(category);
            ctx.reply.array(names.len());
            names.iter().for_each(|name| ctx.reply.bulk(name.as_bytes()));
        }
    }
    Outcome::Replied
}

fn in_category(category: &[u8]) -> Vec<String> {
    let is_in = |spec: &CommandSpec| {
        spec.categories.iter().any(|own| own.as_bytes()[1..].eq_ignore_ascii_case(category))
    };
    let mut names = Vec::new();
    for spec in commands() {
        if is_in(spec) {
            names.push(spec.name.to_owned());
        }
        let subcommands = spec.subcommands.iter().filter(|sub| is_in(sub));
        names.extend(subcommands.map(|sub| format!("{}|{}", spec.name, sub.name)));
    }
    names
}

/// ACL LIST: the client's own line; no keys, not even as digests.
pub(super) fn list(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let line = rules(ctx);
    ctx.reply.array(1);
    ctx.reply.bulk(line.as_bytes());
    Outcome::Replied
}

fn rules(ctx: &Context<'_>) -> String {
    let Some(user) = &ctx.client.user else { return String::new() };
    let nopass = if ctx.shared.access.users().is_open() { " nopass" } else { "" };
    let mut line = format!("user {} on{nopass}", user.name());
    match user.sources() {
        None => line.push_str(" ~* &*"),
        Some(sources) => {
            for source in sources {
                write!(line, " ~{source}").expect("a String takes any text");
            }
            line.push_str(" resetchannels");
            for source in sources {
                write!(line, " &token:{source} &__key*__:{source}")
                    .expect("a String takes any text");
            }
        }
    }
    line.push_str(" +@all");
    line
}

/// ACL USERS: everybody's name for who sees everything, the own name for others.
pub(super) fn users(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let names: Vec<String> = match &ctx.client.user {
        Some(user) if user.is_limited() => vec![user.name().to_owned()],
        _ => ctx.shared.access.users().names().into_iter().map(str::to_owned).collect(),
    };
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name.as_bytes()));
    Outcome::Replied
}

/// `ACL GETUSER username`: for the own name.
pub(super) fn get_user(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let Some(user) = ctx.client.user.clone().filter(|user| user.name().as_bytes() == args.at(2))
    else {
        ctx.reply.nil();
        return Outcome::Replied;
    };
    let (mut keys, mut channels) = ("~*".to_owned(), "&*".to_owned());
    if let Some(sources) = user.sources() {
        let joined = |before: &str| {
            let rules: Vec<String> = sources.iter().map(|name| format!("{before}{name}")).collect();
            rules.join(" ")
        };
        (keys, channels) = (joined("~"), joined("&token:"));
    }
    let is_open = ctx.shared.access.users().is_open();
    let reply = &mut ctx.reply;
    reply.map(6);
    reply.bulk(b"flags");
    let flags: &[&str] = if is_open { &["on", "nopass"] } else { &["on"] };
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(0);
    for (name, text) in
        [("commands", "+@all"), ("keys", keys.as_str()), ("channels", channels.as_str())]
    {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    reply.bulk(b"selectors");
    reply.array(0);
    Outcome::Replied
}
