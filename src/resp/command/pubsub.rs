//! SUBSCRIBE and its kin, and PUBSUB: who is told of what. What is told, the audience decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::resp::audience::{INVALIDATE, Topic};
use crate::resp::command::{Client, Context, Extra, Outcome};
use crate::resp::parse::Args;
use crate::resp::{DATABASES, Shared};

/// What one client subscribes to.
pub(super) type Subscribed = BTreeSet<Box<[u8]>>;

/// How many bytes the names may have that one client subscribes to. 10 000 sources with a channel
/// each fit in, with room to spare.
const MOST_BYTES: usize = 1024 * 1024;

/// How many patterns one client may subscribe to: each of them is looked at whenever something
/// happens.
const MOST_PATTERNS: usize = 1_000;

impl Extra {
    fn of(&mut self, topic: Topic) -> &mut Subscribed {
        match topic {
            Topic::Channel => &mut self.channels,
            Topic::Pattern => &mut self.patterns,
        }
    }

    fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    fn has_room_for(&self, topic: Topic, name: &[u8]) -> bool {
        let is_one_too_many = topic == Topic::Pattern && self.patterns.len() >= MOST_PATTERNS;
        self.subscribed_bytes + name.len() <= MOST_BYTES && !is_one_too_many
    }
}

/// `SUBSCRIBE channel [channel ...]`
pub(super) fn subscribe(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    enter(ctx, args, Topic::Channel, b"subscribe")
}

/// `PSUBSCRIBE pattern [pattern ...]`
pub(super) fn psubscribe(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    enter(ctx, args, Topic::Pattern, b"psubscribe")
}

/// `UNSUBSCRIBE [channel [channel ...]]`
pub(super) fn unsubscribe(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    leave(ctx, args, Topic::Channel, b"unsubscribe")
}

/// `PUNSUBSCRIBE [pattern [pattern ...]]`
pub(super) fn punsubscribe(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    leave(ctx, args, Topic::Pattern, b"punsubscribe")
}

fn enter(ctx: &mut Context<'_>, args: Args<'_>, topic: Topic, word: &[u8]) -> Outcome {
    ctx.charge(args.len());
    for name in args.from(1) {
        let client = &mut *ctx.client;
        let card = Arc::clone(&client.card);
        let extra = client.extra();
        if !extra.of(topic).contains(name) {
            if !extra.has_room_for(topic, name) {
                return ctx.error("ERR too many subscriptions on this connection");
            }
            extra.of(topic).insert(name.into());
            extra.subscribed_bytes += name.len();
            ctx.shared.audience.subscribe(topic, name, &card);
        }
        confirm(ctx, word, Some(name));
    }
    Outcome::Replied
}

fn leave(ctx: &mut Context<'_>, args: Args<'_>, topic: Topic, word: &[u8]) -> Outcome {
    ctx.charge(args.len());
    let card = Arc::clone(&ctx.client.card);
    if !ctx.in_exec {
        // What was said before is told before; inside the array of EXEC it has no place.
        let was_muted = ctx.reply.unmute();
        ctx.reply.frames(|out| card.collect(out));
        if was_muted {
            ctx.reply.mute();
        }
    }
    let names: Vec<Box<[u8]>> = match (args.len(), &mut ctx.client.extra) {
        (1, None) => Vec::new(),
        (1, Some(extra)) => extra.of(topic).iter().cloned().collect(),
        _ => args.from(1).map(Box::from).collect(),
    };
    ctx.charge(names.len());
    if names.is_empty() {
        confirm(ctx, word, None);
    }
    for name in names {
        if let Some(extra) = &mut ctx.client.extra
            && extra.of(topic).remove(&name)
        {
            extra.subscribed_bytes -= name.len();
            ctx.shared.audience.unsubscribe(topic, &name, &card);
        }
        confirm(ctx, word, Some(&name));
    }
    Outcome::Replied
}

/// Says that a name was taken in or out, and how many there are by now.
fn confirm(ctx: &mut Context<'_>, word: &[u8], name: Option<&[u8]>) {
    let (channels, patterns) = match &ctx.client.extra {
        Some(extra) => (extra.channels.len(), extra.patterns.len()),
        None => (0, 0),
    };
    ctx.client.card.set_subscriptions(channels, patterns);
    // It is no reply but something that is told: it is sent where replies are not wanted.
    let was_muted = ctx.reply.unmute();
    ctx.reply.push(3);
    ctx.reply.bulk(word);
    match name {
        Some(name) => ctx.reply.bulk(name),
        None => ctx.reply.nil(),
    }
    ctx.reply.count(channels + patterns);
    if was_muted {
        ctx.reply.mute();
    }
}

/// Ends every subscription.
pub(super) fn leave_all(client: &mut Client, shared: &Shared) {
    let Some(extra) = client.extra.as_mut().filter(|extra| extra.count() > 0) else { return };
    for topic in [Topic::Channel, Topic::Pattern] {
        for name in std::mem::take(extra.of(topic)) {
            shared.audience.unsubscribe(topic, &name, &client.card);
        }
    }
    extra.subscribed_bytes = 0;
    client.card.set_subscriptions(0, 0);
}

/// Whether a client that does not see every source may subscribe to the channels of this request: those
/// of its own sources. Patterns are let through, since of other sources it is told nothing.
pub(super) fn may_subscribe(ctx: &Context<'_>, command: &str, args: Args<'_>) -> bool {
    command != "subscribe" || args.from(1).all(|channel| may_hear(ctx, channel))
}

fn may_hear(ctx: &Context<'_>, channel: &[u8]) -> bool {
    if channel == INVALIDATE {
        return true;
    }
    if let Some(source) = channel.strip_prefix(b"token:") {
        return ctx.may_see(source);
    }
    (0..DATABASES).any(|db| {
        let keyspace = format!("__keyspace@{db}__:");
        let keyevent = format!("__keyevent@{db}__:");
        match channel.strip_prefix(keyspace.as_bytes()) {
            Some(source) => ctx.may_see(source),
            None => channel.starts_with(keyevent.as_bytes()),
        }
    })
}

/// `PUBSUB CHANNELS [pattern]`
pub(super) fn channels(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if args.len() > 3 {
        return ctx.no_such_form("pubsub", args.at(1));
    }
    let mut names = ctx.shared.audience.channels(args.get(2));
    if ctx.client.user.as_ref().is_some_and(|user| user.is_limited()) {
        names.retain(|name| may_hear(ctx, name));
    }
    ctx.charge(names.len());
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name));
    Outcome::Replied
}

/// `PUBSUB NUMSUB [channel ...]`
pub(super) fn numsub(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    ctx.charge(args.len());
    let names = args.from(2);
    ctx.reply.array(names.len() * 2);
    for name in names {
        let user = ctx.client.user.as_ref();
        let is_secret = user.is_some_and(|user| user.is_limited()) && !may_hear(ctx, name);
        let count = if is_secret { 0 } else { ctx.shared.audience.subscribers(name) };
        ctx.reply.bulk(name);
        ctx.reply.count(count);
    }
    Outcome::Replied
}

/// PUBSUB NUMPAT
pub(super) fn numpat(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let count = ctx.shared.audience.patterns();
    ctx.reply.count(count);
    Outcome::Replied
}
