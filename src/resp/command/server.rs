//! Commands about the server: INFO and the few settings that clients and health checks look at.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use crate::resp::command::connection::DATABASES;
use crate::resp::command::keys::live_count;
use crate::resp::command::{Context, Outcome, REDIS_VERSION};
use crate::resp::glob::{Case, matches};
use crate::resp::parse::Args;

/// One section of INFO: its name and what writes its lines.
type Section = (&'static str, fn(&mut Context<'_>, &mut String));

/// The sections, in the order of Redis.
static SECTIONS: &[Section] = &[
    ("Server", server),
    ("Clients", clients),
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
    text.push_str("blocked_clients:0\r\n");
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
}

fn keyspace(ctx: &mut Context<'_>, text: &mut String) {
    let live = live_count(ctx);
    if live == 0 {
        return;
    }
    let view = ctx.shared.reader.view();
    let lives = view.all_live(ctx.now).map(|(_, token)| token.promised_life());
    let total = lives.fold(Duration::ZERO, Duration::saturating_add);
    let average = total.as_millis() / (live as u128);
    line(text, format_args!("db0:keys={live},expires={live},avg_ttl={average}"));
}

/// `CONFIG GET parameter [parameter ...]`
pub(super) fn config_get(ctx: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let settings = [
        ("appendonly", "no".to_owned()),
        ("cluster-enabled", "no".to_owned()),
        ("databases", DATABASES.to_string()),
        ("maxclients", ctx.shared.max_connections.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", String::new()),
        ("port", ctx.shared.port.to_string()),
        ("replica-read-only", "yes".to_owned()),
        ("save", String::new()),
        ("slave-read-only", "yes".to_owned()),
        ("timeout", ctx.shared.idle_timeout.as_secs().to_string()),
    ];
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
