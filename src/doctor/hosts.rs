//! The hosts that tokens are fetched from: their names, their certificates, how long they take; and this
//! machine's clock by theirs. A look sends nothing secret, and is no call of any API.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use url::Url;

use super::finding::{Finding, Topic, Words, words};
use crate::clock::{Now, SharedClock};
use crate::config::TokenSource;
use crate::outbound::{Obstacle, Outbound, Unreached};

/// How many hosts are looked at, and how many at once: a look is a connection and no call, and where none of them
/// answers, it is to end well within the time that a command waits for it (90 s).
const MOST: usize = 64;
const AT_ONCE: usize = 32;

/// How long a name and a look may take each. reqwest gives up a connection after five seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// What is slow: a fetch has ten seconds, and comes with its own handshake.
const SLOW: Duration = Duration::from_secs(2);

/// By how much this machine's clock and the upstream's may differ without a word: a `Date` has whole seconds, and
/// an answer takes some. The server's log has the same bound.
const TOLERANCE: Duration = Duration::from_secs(60);

/// A host to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    /// Its scheme, name and port.
    root: Url,
    /// For each source that uses it, where the others are that may take its place.
    others: Vec<Vec<usize>>,
}

/// What was seen of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its name, and its port where that is not the usual one.
    pub(super) name: String,
    /// Whether each source that uses it has another host that answers.
    pub(super) is_replaced: bool,
    /// What came of it.
    pub(super) outcome: Outcome,
}

/// What came of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its name has no address; in the system's words.
    NoName(String),
    /// It was not reached.
    NotReached(Unreached),
    /// It answered.
    Reached {
        /// How long that took, with the handshakes.
        took: Duration,
        /// Whether it speaks TLS.
        tls: bool,
        /// How far its clock is ahead of ours (or, the other way round, behind), if it says what time it is.
        clock: Option<Offset>,
    },
}

/// By how much another clock differs from ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offset {
    pub(super) by: Duration,
    /// Whether ours is ahead.
    pub(super) ours_is_ahead: bool,
}

impl Offset {
    /// Of `theirs`, which was read somewhere between two readings of ours.
    fn between(theirs: SystemTime, before: Now, after: Now) -> Offset {
        let (begin, end) = (before.wall, after.wall);
        // A `Date` is cut off to the second.
        let theirs_at_most = theirs + Duration::from_secs(1);
        match (theirs.duration_since(end), begin.duration_since(theirs_at_most)) {
            (Ok(by), _) => Offset { by, ours_is_ahead: false },
            (_, Ok(by)) => Offset { by, ours_is_ahead: true },
            _ => Offset { by: Duration::ZERO, ours_is_ahead: false },
        }
    }
}

/// The distinct hosts of these sources, in the order of first mention.
fn hosts(sources: &[Arc<TokenSource>]) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    for source in sources {
        let mut root = (*source.url).clone();
        root.set_path("/");
        let others = source.hosts.iter().map(|host| {
            let mut root = root.clone();
            host.put_into(&mut root);
            root
        });
        let roots: Vec<Url> = std::iter::once(root.clone()).chain(others).collect();
        let places: Vec<usize> = roots
            .into_iter()
            .filter_map(|root| {
                let known = hosts.iter().position(|host| host.root == root);
                if known.is_none() && hosts.len() < MOST {
                    hosts.push(Host { root, others: Vec::new() });
                    return Some(hosts.len() - 1);
                }
                known
            })
            .collect();
        for place in &places {
            let others = places.iter().copied().filter(|other| other != place).collect();
            if !hosts[*place].others.contains(&others) {
                hosts[*place].others.push(others);
            }
        }
    }
    hosts
}

/// Looks at every host of these sources.
pub(super) async fn observe(
    outbound: &Outbound,
    by_proxy: bool,
    sources: &[Arc<TokenSource>],
    clock: &SharedClock,
) -> Vec<Seen> {
    let hosts = hosts(sources);
    // Boxed, here and in `doctor.rs`: the compiler finds no other way to see that they may change threads.
    let looks: Vec<BoxFuture<'_, Outcome>> =
        hosts.iter().map(|host| look(outbound, by_proxy, &host.root, clock).boxed()).collect();
    let outcomes: Vec<Outcome> = stream::iter(looks).buffered(AT_ONCE).collect().await;
    let answers = |at: &usize| matches!(outcomes[*at], Outcome::Reached { .. });
    let seen = hosts.iter().zip(&outcomes).map(|(host, outcome)| {
        let port = host.root.port().map_or_else(String::new, |port| format!(":{port}"));
        Seen {
            name: format!("{}{port}", host.root.host_str().unwrap_or_default()),
            is_replaced: host.others.iter().all(|others| others.iter().any(answers)),
            outcome: outcome.clone(),
        }
    });
    seen.collect()
}

async fn look(outbound: &Outbound, by_proxy: bool, root: &Url, clock: &SharedClock) -> Outcome {
    let silence = |what: &str| Unreached { obstacle: Obstacle::Silence, words: what.to_owned() };
    // Behind a proxy names are its business.
    if !by_proxy
        && let (Some(url::Host::Domain(name)), Some(port)) =
            (root.host(), root.port_or_known_default())
    {
        match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, port))).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Outcome::NoName(error.to_string()),
            Err(_) => return Outcome::NoName(silence("no answer from the resolver").words),
        }
    }
    let before = clock.now();
    match outbound.look(root.clone(), PATIENCE).await {
        Ok(date) => {
            let after = clock.now();
            Outcome::Reached {
                took: after.mono.saturating_sub(before.mono),
                tls: root.scheme() == "https",
                clock: date.map(|date| Offset::between(date, before, after)),
            }
        }
        Err(unreached) => Outcome::NotReached(unreached),
    }
}

/// What is to be said of a host.
pub(super) fn judge(seen: &Seen) -> Finding {
    let (code, what, remedy) = match &seen.outcome {
        Outcome::Reached { took, tls, .. } => return reached(&seen.name, *took, *tls),
        Outcome::NoName(cause) => (
            "dns_failure",
            words(
                format!("DNS knows no address for it ({cause})"),
                format!("DNS 解析失败（{cause}）"),
            ),
            words(
                "check the host in url, and that this machine's resolvers work (/etc/resolv.conf)",
                "请检查 url 中的主机名，以及本机的域名服务器（/etc/resolv.conf）是否可用",
            ),
        ),
        Outcome::NotReached(Unreached { obstacle, words: cause }) => blocked(*obstacle, cause),
    };
    if seen.is_replaced {
        let en = format!("{}; another host of this API answers in its place", what.en);
        let zh = format!("{}；该 API 的备用主机可用", what.zh);
        return Finding::warning(Topic::Hosts, code, &*seen.name, words(en, zh)).remedy(remedy);
    }
    Finding::problem(Topic::Hosts, code, &*seen.name, what).remedy(remedy)
}

fn reached(name: &str, took: Duration, tls: bool) -> Finding {
    let took_ms = took.as_millis();
    let what = match tls {
        true => words(
            format!("name, TLS and answer in {took_ms} ms"),
            format!("域名、TLS 与应答正常，用时 {took_ms} 毫秒"),
        ),
        false => words(
            format!("answers in {took_ms} ms, without TLS"),
            format!("应答正常，用时 {took_ms} 毫秒（未加密）"),
        ),
    };
    if took < SLOW {
        return Finding::ok(Topic::Hosts, "host_ok", name, what);
    }
    Finding::warning(Topic::Hosts, "host_slow", name, what).remedy(words(
        "that is slow: look for a resolver that times out, an IPv6 address that leads nowhere, or a full line",
        "响应过慢：请检查域名服务器是否超时、IPv6 是否不通，或带宽是否占满",
    ))
}

fn blocked(obstacle: Obstacle, cause: &str) -> (&'static str, Words, Words) {
    match obstacle {
        Obstacle::OutOfDate => (
            "certificate_out_of_date",
            words(
                format!("its certificate has expired, or is not valid yet ({cause})"),
                format!("证书已过期或尚未生效（{cause}）"),
            ),
            words(
                "check this machine's clock; if it is right, the host has to renew its certificate. Is a proxy of \
                 yours in between?",
                "请先检查本机时钟；若时钟正确，则需对方更新证书。中间是否有你自己的代理？",
            ),
        ),
        Obstacle::AnotherName => (
            "certificate_name",
            words(
                format!("its certificate is for another name ({cause})"),
                format!("证书与主机名不符（{cause}）"),
            ),
            words(
                "correct the host in url, or find out who answers in its place",
                "请修正 url 中的主机名，或查明是谁在代替它应答",
            ),
        ),
        Obstacle::Untrusted => (
            "certificate_untrusted",
            words(
                format!("nobody trusted speaks for its certificate ({cause})"),
                format!("证书不受信任（{cause}）"),
            ),
            words(
                "if the host or a proxy before it is yours, put its authority into outbound.ca_file; else find out \
                 who answers in its place",
                "若该主机或其前面的代理属于你，请将其 CA 证书写入 outbound.ca_file；否则请查明是谁在代替它应答",
            ),
        ),
        Obstacle::NotTls => (
            "not_tls",
            words("it does not speak TLS at that port", "该端口不支持 TLS"),
            words(
                "correct the port in url, or write http://",
                "请修正 url 中的端口，或改用 http://",
            ),
        ),
        Obstacle::NoConnection => (
            "unreachable",
            words(format!("it cannot be reached ({cause})"), format!("无法连接（{cause}）")),
            words(
                "check the route, the firewall's outgoing rules and outbound.proxy",
                "请检查路由、防火墙出站规则以及 outbound.proxy",
            ),
        ),
        Obstacle::Silence => (
            "no_answer",
            words("it does not answer in time", "应答超时"),
            words(
                "check the route, the firewall's outgoing rules and outbound.proxy",
                "请检查路由、防火墙出站规则以及 outbound.proxy",
            ),
        ),
        Obstacle::Broken => (
            "broken_off",
            words(
                format!("it broke the connection off ({cause})"),
                format!("连接被对方中断（{cause}）"),
            ),
            words(
                "try again; if it stays so, something in between (a firewall, a proxy) does it",
                "请重试；若持续如此，多半是中间的防火墙或代理所致",
            ),
        ),
    }
}

/// What is to be said of this machine's clock; `None` where no host says what time it is. Where one agrees with
/// us, it is the others' clocks that are wrong.
pub(super) fn judge_clock(seen: &[Seen]) -> Option<Finding> {
    let offsets = seen.iter().filter_map(|seen| match &seen.outcome {
        Outcome::Reached { clock, .. } => clock.map(|offset| (offset, seen.name.as_str())),
        _ => None,
    });
    let (Offset { by, ours_is_ahead }, name) = offsets.min_by_key(|(offset, _)| offset.by)?;
    if by <= TOLERANCE {
        let what = words("agrees with the upstream's", "与上游时间一致");
        return Some(Finding::ok(Topic::Clock, "clock_ok", name, what));
    }
    let (minutes, seconds) = (by.as_secs() / 60, by.as_secs() % 60);
    let (en, zh) = if ours_is_ahead { ("ahead of", "快") } else { ("behind", "慢") };
    let what = words(
        format!("this machine's clock is {minutes} min {seconds} s {en} the upstream's"),
        format!("本机时钟比上游{zh} {minutes} 分 {seconds} 秒"),
    );
    let remedy = words(
        "set it and keep it right by NTP: `timedatectl set-ntp true` (systemd-timesyncd), or chrony. Certificates, \
         the days of the quota and the ends of tokens are judged by it",
        "请校准并用 NTP 保持同步：`timedatectl set-ntp true`（systemd-timesyncd）或 chrony；证书、配额日期与令牌到期都以它为准",
    );
    Some(Finding::problem(Topic::Clock, "clock_off", name, what).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use crate::doctor::finding::Mark;
    use std::path::Path;

    fn unreached(obstacle: Obstacle) -> Outcome {
        Outcome::NotReached(Unreached { obstacle, words: "why".into() })
    }

    fn reached_after(milliseconds: u64, offset: Option<(u64, bool)>) -> Outcome {
        Outcome::Reached {
            took: Duration::from_millis(milliseconds),
            tls: true,
            clock: offset
                .map(|(by, ours_is_ahead)| Offset { by: Duration::from_secs(by), ours_is_ahead }),
        }
    }

    #[test]
    fn what_is_in_the_way_of_a_host_is_named_with_what_to_do() {
        for (outcome, mark, code, remedy) in [
            (reached_after(48, None), Mark::Ok, "host_ok", ""),
            (reached_after(2_000, None), Mark::Warning, "host_slow", "resolver"),
            (Outcome::NoName("why".into()), Mark::Problem, "dns_failure", "/etc/resolv.conf"),
            (unreached(Obstacle::OutOfDate), Mark::Problem, "certificate_out_of_date", "clock"),
            (unreached(Obstacle::AnotherName), Mark::Problem, "certificate_name", "url"),
            (unreached(Obstacle::Untrusted), Mark::Problem, "certificate_untrusted", "ca_file"),
            (unreached(Obstacle::NotTls), Mark::Problem, "not_tls", "http://"),
            (unreached(Obstacle::NoConnection), Mark::Problem, "unreachable", "firewall"),
            (unreached(Obstacle::Silence), Mark::Problem, "no_answer", "firewall"),
            (unreached(Obstacle::Broken), Mark::Problem, "broken_off", "try again"),
        ] {
            for is_replaced in [false, true] {
                let seen = Seen { name: "h".into(), is_replaced, outcome: outcome.clone() };
                let finding = judge(&seen);
                // A host that another one stands in for keeps no token from anybody.
                let mark = if is_replaced { mark.min(Mark::Warning) } else { mark };
                assert_eq!((finding.mark, &*finding.code), (mark, code));
                let said = finding.remedy.map_or_else(String::new, |remedy| remedy.en);
                assert!(said.contains(remedy) && said.is_empty() == remedy.is_empty(), "{said}");
            }
        }
    }

    #[test]
    fn the_clock_is_judged_by_the_host_that_agrees_best() {
        for (offsets, expected) in [
            (&[][..], None),
            (&[None], None),
            (&[Some((0, false))], Some("clock_ok")),
            (&[Some((60, true))], Some("clock_ok")),
            (&[Some((61, true))], Some("clock_off")),
            (&[Some((600, false)), None], Some("clock_off")),
            (&[Some((600, false)), Some((1, true))], Some("clock_ok")),
        ] {
            let seen: Vec<Seen> = offsets
                .iter()
                .map(|offset| Seen {
                    name: "h".into(),
                    is_replaced: false,
                    outcome: reached_after(1, *offset),
                })
                .collect();
            let finding = judge_clock(&seen);
            assert_eq!(finding.as_ref().map(|finding| &*finding.code), expected, "{offsets:?}");
        }
        let late = Seen {
            name: "h".into(),
            is_replaced: false,
            outcome: reached_after(1, Some((605, false))),
        };
        let finding = judge_clock(&[late]).unwrap();
        assert_eq!(finding.what.en, "this machine's clock is 10 min 5 s behind the upstream's");
        assert!(finding.remedy.unwrap().zh.contains("timedatectl"));
    }

    #[test]
    fn a_date_in_between_is_no_difference() {
        let at = |milliseconds| {
            let mono = Duration::from_millis(milliseconds);
            Now { wall: SystemTime::UNIX_EPOCH + mono, mono }
        };
        let date = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (theirs, by, ours_is_ahead) in [
            (100, 0, false),
            (99, 500, true),
            (101, 0, false),
            (102, 0, false),
            (103, 1_000, false),
        ] {
            let offset = Offset::between(date(theirs), at(100_500), at(102_000));
            assert_eq!(offset, Offset { by: Duration::from_millis(by), ours_is_ahead }, "{theirs}");
        }
    }

    #[test]
    fn each_host_is_looked_at_once_with_those_that_may_take_its_place() {
        let text = r#"(token_sources: {
            "a": (url: "https://h/cgi-bin/token?x=1", hosts: ["h2", "h3:8443"]),
            "b": (url: "https://h/other"),
            "c": (url: "http://h:80/x"),
            "d": (url: "https://h2/x", hosts: ["h"]),
        })"#;
        let config = config::parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
        let sources: Vec<Arc<TokenSource>> = config.sources.into_iter().map(Arc::new).collect();
        let hosts = hosts(&sources);
        let roots: Vec<&str> = hosts.iter().map(|host| host.root.as_str()).collect();
        assert_eq!(roots, ["https://h/", "https://h2/", "https://h3:8443/", "http://h/"]);
        assert_eq!(hosts[0].others, [vec![1, 2], vec![], vec![1]]);
        assert_eq!(hosts[3].others, [Vec::<usize>::new()]);
    }
}
