//! Our own commands: TOKEN.REFRESH asks for a new token, TOKEN.INFO says how one is.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::access::{User, Via};
use crate::refresh::{RefreshError, Refused, Wish};
use crate::resp::Shared;
use crate::resp::command::keys::{KeyLife, life_of};
use crate::resp::command::{Answer, Context, Outcome};
use crate::resp::parse::Args;
use crate::snapshot::Published;
use crate::token::SourceName;

/// `TOKEN.REFRESH name [STALE value]`: a token newer than what the client has (or saw refused), as
/// soon as there is one. Answers with the value, or with why there is no other.
pub(super) fn refresh(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let stale = match args.len() {
        2 => None,
        4 if args.at(2).eq_ignore_ascii_case(b"stale") => Some(args.at(3)),
        _ => return ctx.syntax_error(),
    };
    let Some(source) = source(ctx, args.at(1)) else { return no_such_token(ctx) };
    let wish = match stale {
        Some(value) => {
            let refused = Refused::parse(&String::from_utf8_lossy(value));
            Wish::Other { refused, force: false }
        }
        None => {
            let known = ctx.shared.reader.live(source.as_str(), ctx.now);
            let newer_than = known.map(|live| live.record().generation);
            Wish::Any { newer_than, force: false }
        }
    };
    let Some(asker) = Asker::of(ctx) else { return no_such_token(ctx) };
    ctx.waits = Some(Box::pin(async move { Answer::Token(asker.ask(&source, wish).await) }));
    Outcome::Waits
}

/// `TOKEN.INFO name`
pub(super) fn info(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let Some(source) = source(ctx, args.at(1)) else { return no_such_token(ctx) };
    let reader = &ctx.shared.reader;
    let current = reader.current(source.as_str());
    let trouble = reader.trouble(source.as_str());
    let life = life_of(ctx.shared, source.as_str(), ctx.now);
    let state = match (&life, &current) {
        (Some(_), _) => "live",
        (None, Some(_)) => "expired",
        (None, None) => "absent",
    };
    let unix = |at: SystemTime| {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    };
    let record = current.as_ref().map(|published| &published.record);
    let reply = &mut ctx.reply;
    reply.map(9);
    reply.bulk(b"name");
    reply.bulk(source.as_str().as_bytes());
    reply.bulk(b"state");
    reply.bulk(state.as_bytes());
    let generation = record.map(|record| i64::try_from(record.generation.0).unwrap_or(i64::MAX));
    for (name, number) in [
        ("generation", generation),
        ("ttl", Some(life.as_ref().map_or(-2, KeyLife::seconds))),
        ("fetched_at", record.map(|record| unix(record.fetched_at))),
        ("expires_at", record.map(|record| unix(record.expires_at))),
        ("promised_until", life.as_ref().map(KeyLife::ends_at)),
    ] {
        reply.bulk(name.as_bytes());
        match number {
            Some(number) => reply.integer(number),
            None => reply.nil(),
        }
    }
    reply.bulk(b"last_error");
    match &trouble {
        Some(trouble) => reply.bulk(trouble.what.as_bytes()),
        None => reply.nil(),
    }
    reply.bulk(b"last_error_at");
    match &trouble {
        Some(trouble) => reply.integer(unix(trouble.at)),
        None => reply.nil(),
    }
    Outcome::Replied
}

/// The configured source of this name.
pub(super) fn source(ctx: &Context<'_>, name: &[u8]) -> Option<SourceName> {
    std::str::from_utf8(name).ok().and_then(|name| ctx.shared.reader.source(name))
}

fn no_such_token(ctx: &mut Context<'_>) -> Outcome {
    super::answer(&mut ctx.reply, Answer::Token(Err(RefreshError::UnknownSource)));
    Outcome::Replied
}

/// Asks for another token than this one, in the background: nobody waits for the answer.
pub(super) fn ask_unheard(ctx: &Context<'_>, wishes: Vec<(SourceName, Wish)>) {
    for (source, wish) in wishes {
        let Some(asker) = Asker::of(ctx) else { return };
        tokio::spawn(async move {
            // Why it failed, the refresher has said.
            let _ = asker.ask(&source, wish).await;
        });
    }
}

/// Asks in a client's name, and notes what comes of it.
pub(super) struct Asker {
    shared: Arc<Shared>,
    user: Arc<User>,
    address: IpAddr,
}

impl Asker {
    /// For this client; `None` if it is not known who it is.
    pub(super) fn of(ctx: &Context<'_>) -> Option<Asker> {
        let user = Arc::clone(ctx.client.user.as_ref()?);
        let address = ctx.client.card.peer.ip();
        Some(Asker { shared: Arc::clone(ctx.shared), user, address })
    }

    /// A token that fulfils the wish, or why there is none.
    pub(super) async fn ask(
        &self,
        source: &SourceName,
        wish: Wish,
    ) -> Result<Arc<Published>, RefreshError> {
        let answer = self.shared.refresh.ask(source.as_str(), wish).await;
        let audit = self.shared.access.audit();
        let tell = |outcome: &dyn std::fmt::Display| {
            audit.refreshed(&self.user, source, self.address, Via::Resp, outcome);
        };
        match &answer {
            Ok(published) => tell(&format_args!("generation {}", published.record.generation)),
            Err(error) => tell(error),
        }
        answer
    }
}

/// Notes that a client asked for what it may not have.
pub(super) fn note_denied(ctx: &Context<'_>, key: &[u8]) {
    if let Some(user) = &ctx.client.user {
        let (key, address) = (String::from_utf8_lossy(key), ctx.client.card.peer.ip());
        let why = "the client may not have this source";
        ctx.shared.access.audit().denied(user, &key, address, Via::Resp, why);
    }
}
