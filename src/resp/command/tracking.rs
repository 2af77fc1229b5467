//! CLIENT TRACKING and its kin: a client says what it caches. Error texts and the order of the checks
//! are those of Redis 7.0 (`clientCommand` in networking.c).

use std::sync::Arc;

use crate::resp::Shared;
use crate::resp::command::client::may_see_client;
use crate::resp::command::{Client, CommandSpec, Context, Outcome, quoted};
use crate::resp::parse::{Args, integer};
use crate::resp::tracking::{Remembers, Tracking};

/// How many prefixes a client may have, and how long each may be: no key is longer.
const MOST_PREFIXES: usize = 256;
const MOST_PREFIX_BYTES: usize = 256;

/// The options of CLIENT TRACKING.
#[derive(Debug, Default)]
struct Options {
    to: Option<u64>,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    no_loop: bool,
    prefixes: Vec<Vec<u8>>,
}

/// `CLIENT TRACKING (ON|OFF) [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN]
/// [OPTOUT] [NOLOOP]`
pub(super) fn tracking(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let options = match options(ctx, args) {
        Ok(options) => options,
        Err(outcome) => return outcome,
    };
    if args.at(2).eq_ignore_ascii_case(b"off") {
        stop(ctx.client, ctx.shared);
    } else if !args.at(2).eq_ignore_ascii_case(b"on") {
        return ctx.syntax_error();
    } else if let Err(text) = start(ctx, options) {
        ctx.reply.error_quoting(&text);
        return Outcome::Replied;
    }
    ctx.reply.ok();
    Outcome::Replied
}

fn options(ctx: &mut Context<'_>, args: Args<'_>) -> Result<Options, Outcome> {
    let mut options = Options::default();
    let mut at = 3;
    while let Some(option) = args.get(at) {
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        match args.get(at + 1) {
            Some(id) if is(b"redirect") => {
                at += 1;
                if options.to.is_some() {
                    return Err(
                        ctx.error("ERR A client can only redirect to a single other client")
                    );
                }
                let Some(id) = integer(id) else {
                    return Err(ctx.error("ERR value is not an integer or out of range"));
                };
                let id = u64::try_from(id).ok().filter(|id| {
                    let card = ctx.shared.connections.get(*id);
                    card.is_some_and(|card| may_see_client(ctx, &card))
                });
                if id.is_none() {
                    let gone = "ERR The client ID you want redirect to does not exist";
                    return Err(ctx.error(gone));
                }
                options.to = id;
            }
            Some(prefix) if is(b"prefix") => {
                at += 1;
                options.prefixes.push(prefix.to_vec());
            }
            _ if is(b"bcast") => options.broadcast = true,
            _ if is(b"optin") => options.opt_in = true,
            _ if is(b"optout") => options.opt_out = true,
            _ if is(b"noloop") => options.no_loop = true,
            _ => return Err(ctx.syntax_error()),
        }
        at += 1;
    }
    Ok(options)
}

fn start(ctx: &mut Context<'_>, options: Options) -> Result<(), Vec<u8>> {
    let Options { to, broadcast, opt_in, opt_out, no_loop, prefixes } = options;
    if !broadcast && !prefixes.is_empty() {
        return Err(b"ERR PREFIX option requires BCAST mode to be enabled".to_vec());
    }
    let card = Arc::clone(&ctx.client.card);
    let mut mail = card.mail();
    let before = mail.tracking.as_deref();
    if before.is_some_and(|before| (before.remembers == Remembers::Broadcast) != broadcast) {
        return Err(b"ERR You can't switch BCAST mode on/off before disabling tracking for this \
                     client, and then re-enabling it with a different mode."
            .to_vec());
    }
    if broadcast && (opt_in || opt_out) {
        return Err(b"ERR OPTIN and OPTOUT are not compatible with BCAST".to_vec());
    }
    if opt_in && opt_out {
        return Err(b"ERR You can't specify both OPTIN mode and OPTOUT mode".to_vec());
    }
    let remembered = before.map_or(Remembers::All, |before| before.remembers);
    if (opt_in && remembered == Remembers::OptOut) || (opt_out && remembered == Remembers::OptIn) {
        return Err(b"ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this \
                     client, and then re-enabling it with a different mode."
            .to_vec());
    }
    let known = before.map_or(0, |before| before.prefixes.len());
    if known + prefixes.len() > MOST_PREFIXES
        || prefixes.iter().any(|p| p.len() > MOST_PREFIX_BYTES)
    {
        return Err(b"ERR too many prefixes, or too long ones, on this connection".to_vec());
    }
    if broadcast {
        check_overlaps(before.map_or(&[], |before| &before.prefixes), &prefixes)?;
    }
    let is_new = before.is_none();
    let tracking = mail.tracking.get_or_insert_default();
    tracking.remembers = match (broadcast, opt_in, opt_out) {
        (true, ..) => Remembers::Broadcast,
        (_, true, _) => Remembers::OptIn,
        (.., true) => Remembers::OptOut,
        _ => Remembers::All,
    };
    (tracking.no_loop, tracking.to, tracking.broken) = (no_loop, to, false);
    if broadcast {
        let everything = prefixes.is_empty().then(Vec::new);
        tracking.prefixes.extend(prefixes.into_iter().chain(everything));
        tracking.prefixes.sort();
        tracking.prefixes.dedup();
    }
    drop(mail);
    ctx.client.extra().tracks = true;
    if is_new {
        ctx.shared.audience.track(&card);
    }
    Ok(())
}

/// Prefixes of one client must not overlap, or it would be told twice.
fn check_overlaps(before: &[Vec<u8>], new: &[Vec<u8>]) -> Result<(), Vec<u8>> {
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let error = |a: &[u8], which: &str, b: &[u8]| {
        let with = format!("' overlaps with {which} '");
        let after = b"'. Prefixes for a single client must not overlap.";
        let [a, b] = [a, b].map(|prefix| quoted(prefix, prefix.len()));
        Err([b"ERR Prefix '", a, with.as_bytes(), b, after].concat())
    };
    for (at, prefix) in new.iter().enumerate() {
        if let Some(other) = before.iter().find(|other| overlap(prefix, other)) {
            return error(prefix, "an existing prefix", other);
        }
        if let Some(other) = new[at + 1..].iter().find(|other| overlap(prefix, other)) {
            return error(prefix, "another provided prefix", other);
        }
    }
    Ok(())
}

/// Ends the tracking.
pub(super) fn stop(client: &mut Client, shared: &Shared) {
    let Some(extra) = client.extra.as_mut().filter(|extra| extra.tracks) else { return };
    (extra.tracks, extra.caching) = (false, false);
    client.card.mail().tracking = None;
    shared.audience.untrack(&client.card);
}

/// Notes the keys that a request is about to read, for a client that caches.
pub(super) fn note(
    ctx: &mut Context<'_>,
    spec: &CommandSpec,
    container: Option<&CommandSpec>,
    args: Args<'_>,
) {
    let Some(extra) = ctx.client.extra.as_mut().filter(|extra| extra.tracks) else { return };
    // It holds for the next request that is not about the client, or for the whole of a transaction.
    let is_client = container.is_some_and(|container| container.name == "client");
    let about_tracking = is_client || spec.group == "transactions" || ctx.in_exec;
    let caching = if about_tracking { extra.caching } else { std::mem::take(&mut extra.caching) };
    if !spec.flags.contains(&"readonly") {
        return;
    }
    let mut mail = ctx.client.card.mail();
    let Some(tracking) = &mut mail.tracking else { return };
    for key in spec.keys.of(args) {
        let source = std::str::from_utf8(key).ok().and_then(|key| ctx.shared.reader.source(key));
        if let Some(source) = source {
            tracking.remember(source, caching);
        }
    }
}

/// `CLIENT CACHING (YES|NO)`
pub(super) fn caching(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let card = Arc::clone(&ctx.client.card);
    let remembers = card.mail().tracking.as_ref().map(|tracking| tracking.remembers);
    let Some(remembers) = remembers else {
        return ctx.error(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN \
             or OPTOUT mode enabled",
        );
    };
    if args.at(2).eq_ignore_ascii_case(b"yes") {
        if remembers != Remembers::OptIn {
            return ctx.error(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            );
        }
    } else if args.at(2).eq_ignore_ascii_case(b"no") {
        if remembers != Remembers::OptOut {
            return ctx.error(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            );
        }
    } else {
        return ctx.syntax_error();
    }
    ctx.client.extra().caching = true;
    ctx.reply.ok();
    Outcome::Replied
}

/// CLIENT GETREDIR
pub(super) fn get_redirect(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let redirect = ctx.client.card.mail().tracking.as_deref().map_or(-1, Tracking::redirect);
    ctx.reply.integer(redirect);
    Outcome::Replied
}

/// CLIENT TRACKINGINFO
pub(super) fn tracking_info(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let caching = ctx.client.extra.as_ref().is_some_and(|extra| extra.caching);
    let mail = ctx.client.card.mail();
    let (mut flags, mut redirect, mut prefixes) = (vec!["off"], -1, &[][..]);
    if let Some(tracking) = &mail.tracking {
        (redirect, prefixes) = (tracking.redirect(), &tracking.prefixes);
        flags = vec!["on"];
        let (mode, exception) = match tracking.remembers {
            Remembers::All => (None, None),
            Remembers::Broadcast => (Some("bcast"), None),
            Remembers::OptIn => (Some("optin"), Some("caching-yes")),
            Remembers::OptOut => (Some("optout"), Some("caching-no")),
        };
        flags.extend(mode);
        flags.extend(exception.filter(|_| caching));
        flags.extend(tracking.no_loop.then_some("noloop"));
        flags.extend(tracking.broken.then_some("broken_redirect"));
    }
    let reply = &mut ctx.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(redirect);
    reply.bulk(b"prefixes");
    reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Outcome::Replied
}
