//! Commands about the server: INFO and the few settings that clients and health checks look at.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use crate::resp::DATABASES;
use crate::resp::command::keys::live_count;
use crate::resp::command::{Context, Outcome, REDIS_VERSION, error_about};
use crate::resp::glob::{Case, matches};
use crate::resp::parse::{Args, integer};

/// One section of INFO: its name and what writes its lines.
type Section = (&'static str, fn(&mut Context<'_>, &mut String));

/// What there is to say of memory over this protocol: nothing is evicted.
const NO_MEMORY: &str = "used_memory:0\r\nused_memory_human:0B\r\nused_memory_rss:0\r\n\
                         maxmemory:0\r\nmaxmemory_policy:noeviction\r\n";

/// The sections, in the order of Redis.
static SECTIONS: &[Section] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", |_, text| text.push_str(NO_MEMORY)),
    ("Persistence", |_, text| text.push_str("loading:0\r\nasync_loading:0\r\n")),
    ("Stats", stats),
    ("Replication", |_, text| text.push_str("role:master\r\nconnected_slaves:0\r\n")),
    ("Cluster", |_, text| text.push_str("cluster_enabled:0\r\n")),
    ("Keyspace", keyspace),
];

/// `INFO [section ...]`: all of them when none is named; one that we do not have is left out.
pub(super) fn info(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let is_wanted = |name: &str| {
        let named = |section: &[u8]| {
            section.eq_ignore_ascii_case(name.as_bytes())
                || [&b"default"[..], b"all", b"everything"]
                    .iter()
                    .any(|all| section.eq_ignore_ascii_case(all))
        };
        args.len() == 1 || args.from(1).any(named)
    };
    let mut text = String::new();
    for (name, write) in SECTIONS.iter().filter(|(name, _)| is_wanted(name)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        line(&mut text, format_args!("# {name}"));
        write(ctx, &mut text);
    }
    ctx.reply.text(&text);
    Outcome::Replied
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    write!(text, "{line}\r\n").expect("a String takes any text");
}

fn server(ctx: &mut Context<'_>, text: &mut String) {
    let uptime = ctx.now.since(ctx.shared.started).as_secs();
    line(text, format_args!("redis_version:{REDIS_VERSION}"));
    line(text, format_args!("redis_mode:standalone"));
    line(text, format_args!("wechat_token_server_version:{}", env!("CARGO_PKG_VERSION")));
    line(text, format_args!("os:{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line(text, format_args!("arch_bits:{}", usize::BITS));
    line(text, format_args!("process_id:{}", std::process::id()));
    line(text, format_args!("tcp_port:{}", ctx.shared.port));
    line(text, format_args!("uptime_in_seconds:{uptime}"));
    line(text, format_args!("uptime_in_days:{}", uptime / 86_400));
}

fn clients(ctx: &mut Context<'_>, text: &mut String) {
    line(text, format_args!("connected_clients:{}", ctx.shared.connections.len()));
    line(text, format_args!("maxclients:{}", ctx.shared.max_connections));
    line(text, format_args!("blocked_clients:{}", ctx.shared.connections.waiting()));
    line(text, format_args!("tracking_clients:{}", ctx.shared.audience.tracking_clients()));
}

fn stats(ctx: &mut Context<'_>, text: &mut String) {
    let counters = &ctx.shared.counters;
    for (name, counter) in [
        ("total_connections_received", &counters.connections),
        ("total_commands_processed", &counters.commands),
        ("rejected_connections", &counters.rejected),
        ("keyspace_hits", &counters.hits),
        ("keyspace_misses", &counters.misses),
    ] {
        line(text, format_args!("{name}:{}", counter.load(Ordering::Relaxed)));
    }
    let audience = &ctx.shared.audience;
    line(text, format_args!("pubsub_channels:{}", audience.channel_count()));
    line(text, format_args!("pubsub_patterns:{}", audience.patterns()));
}

fn keyspace(ctx: &mut Context<'_>, text: &mut String) {
    let live = live_count(ctx);
    if live == 0 {
        return;
    }
    let view = ctx.shared.reader.view();
    let seen = view.all_live(ctx.now).filter(|(name, _)| ctx.may_see(name.as_str().as_bytes()));
    let lives = seen.map(|(_, token)| token.promised_life());
    let total = lives.fold(Duration::ZERO, Duration::saturating_add);
    let average = total.as_millis() / (live as u128);
    line(text, format_args!("db0:keys={live},expires={live},avg_ttl={average}"));
}

/// The settings that clients and health checks ask for, by Redis' names.
fn settings(ctx: &Context<'_>) -> [(&'static str, String); 12] {
    let shared = ctx.shared;
    let events = if shared.notify { "AKE" } else { "" };
    [
        ("appendonly", "no".to_owned()),
        ("cluster-enabled", "no".to_owned()),
        ("databases", DATABASES.to_string()),
        ("maxclients", shared.max_connections.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", events.to_owned()),
        ("port", shared.port.to_string()),
        ("replica-read-only", "yes".to_owned()),
        ("save", String::new()),
        ("slave-read-only", "yes".to_owned()),
        ("timeout", shared.idle_timeout.as_secs().to_string()),
    ]
}

/// `CONFIG GET parameter [parameter ...]`
pub(super) fn config_get(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let settings = settings(ctx);
    ctx.charge(args.len() * settings.len());
    // A parameter that is named without a pattern is answered in the spelling of the question, as
    // Redis does.
    let asked = |name: &'static str| {
        let exact = args.from(2).find(|asked| asked.eq_ignore_ascii_case(name.as_bytes()));
        exact.or_else(|| {
            args.from(2)
                .any(|asked| matches(asked, name.as_bytes(), Case::Insensitive))
                .then_some(name.as_bytes())
        })
    };
    let found: Vec<(&[u8], &str)> =
        settings.iter().filter_map(|(name, value)| Some((asked(name)?, value.as_str()))).collect();
    ctx.reply.map(found.len());
    for (name, value) in found {
        ctx.reply.bulk(name);
        ctx.reply.bulk(value.as_bytes());
    }
    Outcome::Replied
}

/// `CONFIG SET parameter value [parameter value ...]`: settings are in the config file. Setting one to
/// what it is already comes off: frameworks do that at their start.
pub(super) fn config_set(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if !args.len().is_multiple_of(2) {
        return ctx.syntax_error();
    }
    let settings = settings(ctx);
    for at in (2..args.len()).step_by(2) {
        let (name, value) = (args.at(at), args.at(at + 1));
        let known = settings.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
        match known {
            None => {
                let before = "ERR Unknown option or number of arguments for CONFIG SET - '";
                return error_about(ctx, before, name, "'");
            }
            Some((_, is)) if is.as_bytes() != value => {
                let before = "ERR CONFIG SET failed (possibly related to argument '";
                return error_about(ctx, before, name, "') - can't set immutable config");
            }
            Some(_) => {}
        }
    }
    ctx.reply.ok();
    Outcome::Replied
}

/// CONFIG RESETSTAT: the counters go on; who asks wants to see a difference, and can take one.
pub(super) fn config_resetstat(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.ok();
    Outcome::Replied
}

/// CONFIG REWRITE: nothing is set here that could be written.
pub(super) fn config_rewrite(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.error("ERR The server is running without a config file")
}

/// TIME: Unix seconds, and microseconds within the second.
pub(super) fn time(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    let now = ctx.now.wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    ctx.reply.array(2);
    ctx.reply.bulk(now.as_secs().to_string().as_bytes());
    ctx.reply.bulk(now.subsec_micros().to_string().as_bytes());
    Outcome::Replied
}

/// ROLE: a master without replicas.
pub(super) fn role(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.array(3);
    ctx.reply.bulk(b"master");
    ctx.reply.integer(0);
    ctx.reply.array(0);
    Outcome::Replied
}

/// CLUSTER, READONLY, READWRITE: as a stand-alone Redis answers them.
pub(super) fn no_cluster(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.error("ERR This instance has cluster support disabled");
    Outcome::Replied
}

/// `LATENCY HISTORY event`, `LATENCY LATEST`, `SLOWLOG GET`, MODULE LIST: nothing is collected.
pub(super) fn nothing(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.array(0);
    Outcome::Replied
}

/// `LATENCY HISTOGRAM [command ...]`
pub(super) fn no_histogram(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.map(0);
    Outcome::Replied
}

/// `LATENCY RESET [event ...]`, SLOWLOG LEN
pub(super) fn none(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.integer(0);
    Outcome::Replied
}

/// SLOWLOG RESET
pub(super) fn done(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.ok();
    Outcome::Replied
}

/// `LATENCY GRAPH event`
pub(super) fn latency_graph(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    error_about(ctx, "ERR No samples available for event '", args.at(2), "'")
}

/// LATENCY DOCTOR
pub(super) fn latency_doctor(ctx: &mut Context<'_>, _: Args<'_>) -> Outcome {
    ctx.reply.text("Latency is not monitored by this server.");
    Outcome::Replied
}

/// `SLOWLOG GET [count]`
pub(super) fn slowlog_get(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if args.len() > 3 {
        return ctx.no_such_form("slowlog", args.at(1));
    }
    if args.get(2).is_some_and(|count| integer(count).is_none_or(|count| count < -1)) {
        return ctx.error("ERR count should be greater than or equal to -1");
    }
    nothing(ctx, args)
}
