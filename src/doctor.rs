//! Finds out what is wrong, and says what to do about it. What is observed and what is made of it are apart: each
//! file of `doctor/` has an observation, which may take time, and a judgement, which is pure.
//!
//! There are two places to look from. A server knows its tokens, the calls it has made, and how its renewals do
//! ([`Doctor`]); a process beside it sees whether one runs ([`Presence`]), the config's files, the ports, the store's
//! directory ([`of_machine`]), and, where none answers, finds the rest out itself ([`of_upstream`]). Neither
//! fetches a token beside a server that runs, nor any that could replace one which others hold.

mod certificates;
mod credentials;
mod descriptors;
mod files;
mod finding;
mod hosts;
mod permissions;
mod ports;
mod presence;
mod quota;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::Mutex;

use crate::clock::{Now, SharedClock};
use crate::config::{Advice, Config, ConfigErrors, Mistake, OutboundConfig, TokenSource};
use crate::outbound::{Outbound, OutboundSetupError};
use crate::refresh::Ledger;
use crate::snapshot::Reader;
use crate::source::{Trial, accepts, can_be_asked_about, trial_of, try_credentials};
use crate::status::{SourceStatus, Status};
use crate::store::{self, Keys, Peek};
use crate::token::{Secret, SourceName, TokenRecord};

use credentials::Offline;
use ports::Owner;
use quota::Calls;

pub use finding::{Finding, Mark, Topic, Words, is_well, words};
pub use presence::{Asked, Presence};
pub use report::{Look, from_json, text, to_json};

/// How many sources are looked at one by one. Each may be a call of the upstream; and who has more of them looks
/// at metrics.
const MOST_SOURCES: usize = 50;

/// How many are asked about at once.
const AT_ONCE: usize = 8;

/// How long a call may take that tells whether a token is accepted.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a server can find out about itself. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Doctor(Arc<Practice>);

#[derive(Debug)]
struct Practice {
    status: Status,
    reader: Reader,
    outbound: OutboundConfig,
    /// How many descriptors the config may want.
    descriptors: usize,
    clock: SharedClock,
    /// One at a time: each asks the upstream.
    turn: Mutex<()>,
}

impl Doctor {
    /// Of a server with this status, which serves these tokens and was started with this config.
    pub fn new(status: Status, reader: Reader, config: &Config, clock: SharedClock) -> Doctor {
        let (outbound, descriptors) = (config.outbound.clone(), config.descriptors());
        let turn = Mutex::default();
        Doctor(Arc::new(Practice { status, reader, outbound, descriptors, clock, turn }))
    }

    /// Looks at everything. `None` while it does so for somebody else.
    pub async fn examine(&self) -> Option<Vec<Finding>> {
        let Practice { status, reader, outbound, descriptors, clock, turn } = &*self.0;
        let _turn = turn.try_lock().ok()?;
        let mut findings = vec![runs(status)];
        let sources = status.sources();
        let some = first(&sources, &mut findings);
        let now = clock.now();
        // As they are before anybody is asked: what is asked about is the token of this moment.
        let known: Vec<(Arc<TokenSource>, SourceStatus)> = some
            .iter()
            .filter_map(|source| Some((source.clone(), status.source(source.name.as_str(), now)?)))
            .collect();
        match Outbound::new(outbound) {
            Ok(client) => {
                let by_proxy = outbound.proxy.is_some();
                let ask = |source: Arc<TokenSource>| {
                    let live = reader.live(source.name.as_str(), now);
                    let token = live.map(|live| live.record().value.clone());
                    let client = &client;
                    async move { ask(client, &source, token.as_ref()).await }.boxed()
                };
                let asked: Vec<BoxFuture<'_, credentials::Asked>> =
                    known.iter().map(|(source, _)| ask(source.clone())).collect();
                let (seen, asked) = futures_util::join!(
                    hosts::observe(&client, by_proxy, &sources, clock),
                    stream::iter(asked).buffered(AT_ONCE).collect::<Vec<credentials::Asked>>(),
                );
                for ((source, status), asked) in known.iter().zip(&asked) {
                    findings.extend(credentials::judge_running(source, status, asked, now.wall));
                }
                findings.extend(seen.iter().map(hosts::judge));
                findings.extend(hosts::judge_clock(&seen));
            }
            Err(error) => findings.push(no_client(&error)),
        }
        findings.extend(quotas(
            known.iter().filter_map(|(_, status)| status.calls.as_ref().map(Calls::from)),
        ));
        let limit = descriptors::observe();
        findings.extend(limit.map(|limit| descriptors::judge(limit, *descriptors, true)));
        Some(findings)
    }
}

/// Asks the upstream about a live token, where there is a call that tells.
async fn ask(
    client: &Outbound,
    source: &TokenSource,
    token: Option<&Secret>,
) -> credentials::Asked {
    let token = token.filter(|_| can_be_asked_about(source))?;
    Some(accepts(client, source, token, PATIENCE).await)
}

fn runs(status: &Status) -> Finding {
    let version = env!("CARGO_PKG_VERSION");
    let (hours, minutes) = (status.uptime().as_secs() / 3_600, status.uptime().as_secs() / 60 % 60);
    let what = words(
        format!("runs, version {version}, for {hours} h {minutes} min"),
        format!("正在运行，版本 {version}，已运行 {hours} 小时 {minutes} 分"),
    );
    Finding::ok(Topic::Server, "server_runs", "", what)
}

/// The sources that are looked at one by one; says so where these are not all.
fn first<'a>(
    sources: &'a [Arc<TokenSource>],
    findings: &mut Vec<Finding>,
) -> &'a [Arc<TokenSource>] {
    let Some((some, others)) = sources.split_at_checked(MOST_SOURCES) else { return sources };
    if !others.is_empty() {
        let others = others.len();
        let what = words(
            format!(
                "{others} more sources are not looked at one by one; GET /v1/status tells of them"
            ),
            format!("其余 {others} 个令牌源未逐一检查，见 GET /v1/status"),
        );
        findings.push(Finding::ok(Topic::Credentials, "sources_left_out", "", what));
    }
    some
}

/// One finding for each account and endpoint.
fn quotas(calls: impl Iterator<Item = Calls>) -> Vec<Finding> {
    let mut distinct: Vec<Calls> = Vec::new();
    for calls in calls {
        if !distinct.iter().any(|known| known.account == calls.account) {
            distinct.push(calls);
        }
    }
    distinct.iter().filter_map(quota::judge).collect()
}

fn no_client(error: &OutboundSetupError) -> Finding {
    let what = words(format!("no request can be sent: {error}"), format!("无法发出请求：{error}"));
    let remedy = words("correct the setting, or the file it names", "请修正该设置或其所指的文件");
    Finding::problem(Topic::Files, "outbound_unusable", "outbound", what).remedy(remedy)
}

/// Finds out what a server would that cannot be asked: by the hosts themselves and, where none runs, by the tokens
/// that an earlier run has left in the store and, where there are none, by trials that replace nobody's token.
pub async fn of_upstream(config: &Config, server: &Presence, clock: &SharedClock) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sources: Vec<Arc<TokenSource>> = config.sources.iter().cloned().map(Arc::new).collect();
    let is_alone = matches!(server, Presence::Absent { .. });
    let kept = if is_alone {
        findings.push(does_not_run());
        Some(Kept::of(peek(config).await, config, &mut findings))
    } else {
        None
    };
    let now = clock.now();
    match Outbound::new(&config.outbound) {
        Ok(client) => {
            let by_proxy = config.outbound.proxy.is_some();
            let some = kept.as_ref().map(|kept| (kept, first(&sources, &mut findings)));
            let one: Vec<BoxFuture<'_, Vec<Finding>>> = some
                .iter()
                .flat_map(|(kept, some)| some.iter().map(|source| kept.look(&client, source, now)))
                .map(FutureExt::boxed)
                .collect();
            let (seen, found) = futures_util::join!(
                hosts::observe(&client, by_proxy, &sources, clock),
                stream::iter(one).buffered(AT_ONCE).collect::<Vec<Vec<Finding>>>(),
            );
            findings.extend(found.into_iter().flatten());
            findings.extend(seen.iter().map(hosts::judge));
            findings.extend(hosts::judge_clock(&seen));
        }
        Err(error) => findings.push(no_client(&error)),
    }
    if let Some(kept) = &kept {
        findings.extend(quotas(sources.iter().filter_map(|source| kept.calls(source, now.wall))));
        let limit = descriptors::observe();
        findings.extend(limit.map(|limit| descriptors::judge(limit, config.descriptors(), false)));
    }
    findings
}

fn does_not_run() -> Finding {
    let what = words(
        "does not run; this is what the command sees by itself",
        "未运行；以下由命令自行检查",
    );
    Finding::ok(Topic::Server, "server_does_not_run", "", what)
}

async fn peek(config: &Config) -> Peek {
    let path = config.store.path.clone();
    let keys = Keys::new(config.store.key.as_ref(), &config.store.old_keys);
    let peek = tokio::task::spawn_blocking(move || store::peek(&path, &keys));
    peek.await.unwrap_or_else(|_| Peek::Unreadable("looking at it failed".into()))
}

/// What an earlier run has left.
enum Kept {
    /// What the store holds; nothing if none has run.
    Known { records: HashMap<SourceName, TokenRecord>, ledger: Ledger },
    /// Another process has it.
    InUse,
    /// It cannot be read.
    Unread,
}

impl Kept {
    /// What a look has brought; says so where it is nothing.
    fn of(peek: Peek, config: &Config, findings: &mut Vec<Finding>) -> Kept {
        let about = config.store.path.display().to_string();
        let problem =
            |code, what, remedy| Finding::problem(Topic::Store, code, &*about, what).remedy(remedy);
        match peek {
            Peek::Empty => Kept::Known { records: HashMap::new(), ledger: Ledger::default() },
            Peek::Holds { restored, damage } => {
                findings.extend(damage.map(|cause| damaged(&about, &cause)));
                Kept::Known {
                    records: restored.records.into_iter().collect(),
                    ledger: Ledger::restore(restored.calls, restored.marks),
                }
            }
            Peek::Locked => {
                let owner = files::lock_holder(&config.store.path);
                let (en, zh) = owner.map_or_else(
                    || ("another process".to_owned(), "另一进程".to_owned()),
                    |owner| {
                        let Owner { pid, name, .. } = owner;
                        (format!("{name} (process {pid})"), format!("{name}（进程 {pid}）"))
                    },
                );
                let what = words(
                    format!("{en} has it, and is no server"),
                    format!("已被{zh}占用，而它不是服务器"),
                );
                findings.push(problem(
                    "store_in_use",
                    what,
                    words(
                        "a server does not start while that lasts: wait for its end, or stop it",
                        "在此期间服务器无法启动：请等它结束，或停止它",
                    ),
                ));
                Kept::InUse
            }
            Peek::WrongKey(wrong) => {
                findings.push(problem(
                    "store_wrong_key",
                    words(
                        format!("{} of its records are sealed with another key", wrong.records),
                        format!("其中 {} 条记录由另一个密钥加密", wrong.records),
                    ),
                    words(
                        "set store.key to the key they were sealed with, or add it to store.old_keys; a server does \
                         not start without",
                        "请将 store.key 设为当时的密钥，或将其加入 store.old_keys；否则服务器无法启动",
                    ),
                ));
                Kept::Unread
            }
            Peek::NotPermitted => {
                // What the machine shows says so too, where the directory is not this user's.
                if !files::is_strange(&config.store.path) {
                    findings.push(unreadable(&about, "this user may not look"));
                }
                Kept::Unread
            }
            Peek::Unreadable(why) => {
                findings.push(unreadable(&about, &why));
                Kept::Unread
            }
        }
    }

    /// What is to be said of a source, by its token if there is a live one.
    async fn look(&self, client: &Outbound, source: &TokenSource, now: Now) -> Vec<Finding> {
        let live = match self {
            Kept::Known { records, .. } => records.get(&source.name).filter(|record| {
                record.identity == source.identity && record.ttl(now.wall).is_some()
            }),
            Kept::InUse | Kept::Unread => None,
        };
        if let Some(record) = live {
            let asked = ask(client, source, Some(&record.value)).await;
            let how = words("kept from an earlier run", "上次运行保存的令牌");
            return vec![credentials::judge_token(source, &asked, &how)];
        }
        // What depends on another source has no credentials of its own.
        if !source.dependencies.is_empty() {
            return Vec::new();
        }
        let known = match self {
            Kept::InUse => Offline::StoreInUse,
            Kept::Unread => Offline::StoreUnread,
            Kept::Known { .. } => match trial_of(source) {
                None => Offline::WouldReplace,
                Some(Trial::OwnRequest) if self.is_spent(source, now.wall) => Offline::QuotaSpent,
                Some(trial) => {
                    Offline::Tried(trial, try_credentials(client, source, trial, now.wall).await)
                }
            },
        };
        credentials::judge_offline(source, &known)
    }

    /// The calls of a source's account today; `None` where they are not known, or charged to nobody.
    fn calls(&self, source: &TokenSource, now: SystemTime) -> Option<Calls> {
        let Kept::Known { ledger, .. } = self else { return None };
        let account = source.account.clone();
        let made = ledger.calls(&account, now).made;
        let limit = source.policy.daily_limit;
        (!account.name.is_empty()).then_some(Calls { account, made, limit })
    }

    fn is_spent(&self, source: &TokenSource, now: SystemTime) -> bool {
        self.calls(source, now).is_some_and(|calls| calls.are_spent())
    }
}

fn unreadable(about: &str, why: &str) -> Finding {
    let what = words(format!("cannot be read: {why}"), format!("无法读取：{why}"));
    Finding::problem(Topic::Store, "store_unreadable", about, what).remedy(words(
        "run this as the server's user (sudo -u wechat-token-server …) or as root; if it is that user, correct the \
         owner (chown -R) or store.path",
        "请以服务器的运行用户（sudo -u wechat-token-server …）或 root 运行；若已是该用户，请修正属主（chown -R）或 store.path",
    ))
}

fn damaged(about: &str, cause: &str) -> Finding {
    let what = words(format!("its database is damaged: {cause}"), format!("数据库已损坏：{cause}"));
    Finding::warning(Topic::Store, "store_damaged", about, what).remedy(words(
        "the next start keeps what is whole and fetches the rest anew; if nobody has changed its files, check the disk",
        "下次启动会保留完好的部分，其余重新获取；若没有人动过这些文件，请检查磁盘",
    ))
}

/// What the machine shows of a server's surroundings: ports, the store's directory and disk, certificates and keys,
/// and what the config could do better.
pub fn of_machine(config: &Config, server: &Presence, now: SystemTime) -> Vec<Finding> {
    let http = ports::observe("http.bind", config.http.bind);
    let resp = config.resp.as_ref().map(|resp| ports::observe("resp.bind", resp.bind));
    let metrics =
        config.metrics.as_ref().map(|metrics| ports::observe("metrics.bind", metrics.bind));
    let seen = [Some(http), resp, metrics].into_iter().flatten();
    let mut findings: Vec<Finding> = seen.map(|seen| ports::judge(&seen, server)).collect();
    let directory = files::observe(&config.store.path, &store::secret_path(&config.store.path));
    findings.extend(files::judge(&directory, server.has_store()));
    findings.extend(certificates::look(config, now));
    let secret = files::kept_secret(config);
    let is_well = config.advice.is_empty() && secret.is_none();
    findings.extend(config.advice.iter().map(advice));
    findings.extend(secret);
    if is_well {
        let what = words("could not be better, by what is known of it", "没有改进建议");
        findings.push(Finding::ok(Topic::Config, "config_ok", "", what));
    }
    findings
}

/// The mistakes of a config. Where a server runs all the same, some of them may be variables which it alone has.
pub fn mistakes(errors: &ConfigErrors, server: &Presence) -> Vec<Finding> {
    let of = |mistake: &Mistake| {
        let Mistake { path, message } = mistake;
        let what = words(&**message, format!("有误：{message}"));
        // Elsewhere it cannot be.
        let may_be_the_servers = message.contains("variable") || message.contains("credential");
        match server.is_sure() && may_be_the_servers {
            true => Finding::warning(Topic::Config, "config_mistake", &**path, what).remedy(words(
                "if it is about a variable that only the server has, run doctor with the same ones; else correct it \
                 before the next restart",
                "若与只有服务器才有的变量有关，请用相同的环境变量运行 doctor；否则请在下次重启前改正",
            )),
            false => {
                let remedy = match may_be_the_servers {
                    true => words(
                        "correct it, or give this command the variables that the server is given; then run doctor again",
                        "请改正，或为本命令提供与服务器相同的环境变量，然后再次运行 doctor",
                    ),
                    false => words(
                        "correct it, and run doctor again: a server does not start with it",
                        "请改正后再次运行 doctor：服务器无法以此启动",
                    ),
                };
                Finding::problem(Topic::Config, "config_mistake", &**path, what).remedy(remedy)
            }
        }
    };
    errors.mistakes().iter().map(of).collect()
}

fn advice(advice: &Advice) -> Finding {
    let Advice { path, message, zh } = advice;
    // It says what to do as well, behind a semicolon.
    let zh = zh.as_ref().unwrap_or(message);
    let part = |text: &str, sign: &str| match text.split_once(sign) {
        Some((what, remedy)) => (what.to_owned(), Some(remedy.trim_start().to_owned())),
        None => (text.to_owned(), None),
    };
    let ((en, remedy_en), (zh, remedy_zh)) =
        (part(message, "; "), part(zh, if advice.zh.is_some() { "；" } else { "; " }));
    let finding = Finding::warning(Topic::Config, "advice", &**path, words(en, zh));
    match (remedy_en, remedy_zh) {
        (Some(en), Some(zh)) => finding.remedy(words(en, zh)),
        _ => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use std::path::Path;

    #[test]
    fn advice_of_the_config_is_told_in_both_languages_with_what_to_do() {
        let text = r#"(
            http: (bind: "0.0.0.0:0"), request_secret: "short",
            webhooks: {"w": (url: "http://h/w")},
            token_sources: {"t": (url: "https://h/t")},
        )"#;
        let config =
            crate::config::parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
        assert_eq!(config.advice.len(), 4);
        for advised in &config.advice {
            let finding = advice(advised);
            let remedy = finding.remedy.unwrap();
            assert_eq!(format!("{}; {}", finding.what.en, remedy.en), advised.message);
            assert_eq!(Some(format!("{}；{}", finding.what.zh, remedy.zh)), advised.zh);
            assert_eq!((finding.mark, finding.about), (Mark::Warning, advised.path.clone()));
        }
    }

    #[test]
    fn every_topic_and_mark_is_told_by_its_name() {
        for topic in Topic::ALL {
            let finding = Finding::ok(topic, "x", "", words("a", "b"));
            assert_eq!(from_json(&to_json(std::slice::from_ref(&finding))), Some(vec![finding]));
        }
    }
}
