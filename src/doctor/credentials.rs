//! Whether tokens and credentials are accepted: judged by what the server's own renewals came to, by a call that
//! a live token may make, and, where there is no live token and no server, by a trial that replaces nobody's
//! token. A server that runs is never fetched beside: it tries by itself, and says what came of it.

use std::time::{Duration, SystemTime};

use super::finding::{Finding, Mark, Topic, Words, words};
use crate::config::{TokenSource, Vendor};
use crate::source::{FailureClass, FetchError, SEE_DOCTOR, SEE_LOG, Trial};
use crate::status::{SourceStatus, State};

/// What came of asking the upstream about a live token; `None` where no call is known that tells.
pub(super) type Asked = Option<Result<(), FetchError>>;

/// Codes with which an upstream does not let an address in: WeChat's, and WeCom's last.
const ADDRESS_CODES: &[&str] = &["40164", "61004", "60020"];

/// Codes with which WeChat refuses a token, on a call that is made with one.
const TOKEN_CODES: &[&str] = &["40001", "40014", "42001", "41001"];

/// Codes that tell of the call that was made, and not of the token: it may not be made, or not as often.
const CALL_CODES: &[&str] = &["48001", "45009", "45011"];

/// A failure, whoever met it.
struct Failure {
    code: Option<String>,
    class: String,
    /// What went wrong, where there is no code.
    words: Words,
    hint: Words,
}

impl Failure {
    fn of(error: &FetchError) -> Failure {
        let (en, zh) = error.hint();
        let hint = words(en, zh);
        Failure {
            code: error.code(),
            class: error.class().as_str().to_owned(),
            words: words(error.to_string(), error.in_chinese()),
            // What doctor itself has met is in no log.
            hint: here(without(&hint, SEE_LOG).unwrap_or(hint)),
        }
    }

    fn has(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    fn topic(&self) -> Topic {
        if self.has(ADDRESS_CODES) {
            Topic::Address
        } else if self.class == FailureClass::QuotaSpent.as_str() {
            Topic::Quota
        } else {
            Topic::Credentials
        }
    }

    /// Names it for programs.
    fn name(&self) -> String {
        match &self.code {
            Some(code) => format!("errcode_{code}"),
            None => self.class.clone(),
        }
    }

    /// Whether it may pass by itself.
    fn may_pass(&self) -> bool {
        [FailureClass::Transient, FailureClass::Throttled]
            .iter()
            .any(|class| class.as_str() == self.class)
    }

    /// What went wrong.
    fn said(&self) -> Words {
        match &self.code {
            Some(code) if self.has(ADDRESS_CODES) => words(
                format!("the upstream does not let this machine's address in (errcode {code})"),
                format!("上游拒绝了本机的出口 IP（errcode {code}）"),
            ),
            Some(code) => words(
                format!("the upstream answers errcode {code}"),
                format!("上游返回 errcode {code}"),
            ),
            None => self.words.clone(),
        }
    }

    fn remedy(&self, source: &TokenSource) -> Words {
        let hint = &self.hint;
        match self.page(source) {
            Some(page) => {
                words(format!("{}. {}", hint.en, page.en), format!("{}。{}", hint.zh, page.zh))
            }
            None => hint.clone(),
        }
    }

    /// Where in the console this is put right. The paths are those of
    /// developers.weixin.qq.com/doc/oplatform/developers/basic_func/ip_whitelist and …/developers/dev/api.
    fn page(&self, source: &TokenSource) -> Option<Words> {
        if source.vendor != Vendor::WeChat {
            return None;
        }
        let account = words(
            "developers.weixin.qq.com/platform > My business > the account > Basic information > Development keys \
             (a mini program's: mp.weixin.qq.com > Development management > Development settings)",
            "位置：微信开发者平台（developers.weixin.qq.com/platform）- 我的业务 - 对应账号 - 基础信息 - 开发密钥；\
             小程序：微信公众平台（mp.weixin.qq.com）- 开发管理 - 开发设置",
        );
        if self.has(ADDRESS_CODES) {
            return Some(words(
                format!("It is at {}; a change takes some minutes", account.en),
                format!("{}；修改后需等待数分钟生效", account.zh),
            ));
        }
        if self.has(&["40001", "40125"]) && source.dependencies.is_empty() {
            return Some(words(
                format!(
                    "WeChat does not show a secret again: if it is lost, reset it at {}, put the new one where the \
                     config takes it from, and reload or restart the server",
                    account.en
                ),
                format!(
                    "AppSecret 无法再次查看，遗失时只能重置；重置后请更新配置所引用的值，并重新加载或重启服务器。{}",
                    account.zh
                ),
            ));
        }
        if self.has(&["40243", "40013"]) {
            return Some(words(format!("It is at {}", account.en), account.zh));
        }
        // By our own count there is no code, and the hint says it all.
        if self.class == FailureClass::QuotaSpent.as_str() && self.code.is_some() {
            return Some(words(
                "Nothing is sent until then, since each call counts. Find out who else fetches for this account, or \
                 change to stable_token, which has 500000 calls a day",
                "在此之前不会再发请求，因为每次调用都计数。请查明还有谁在用该账号获取令牌，或改用每日 50 万次的 stable_token",
            ));
        }
        None
    }

    fn finding(&self, source: &TokenSource, mark: Mark, more: &Words) -> Finding {
        let said = self.said();
        let what = words(format!("{}{}", said.en, more.en), format!("{}{}", said.zh, more.zh));
        let name = source.name.as_str();
        let finding = match mark {
            Mark::Problem => Finding::problem(self.topic(), self.name(), name, what),
            Mark::Ok | Mark::Warning => Finding::warning(self.topic(), self.name(), name, what),
        };
        finding.remedy(self.remedy(source))
    }
}

/// A hint as it is read here: not one to run doctor.
fn here(hint: Words) -> Words {
    match without(&hint, SEE_DOCTOR) {
        Some(Words { en, zh }) => words(
            format!("{en}. What is said of the hosts may tell why"),
            format!("{zh}。原因可参考「上游主机」一节"),
        ),
        None => hint,
    }
}

/// A hint without this end, if it has it.
fn without(hint: &Words, (en, zh): (&str, &str)) -> Option<Words> {
    Some(words(hint.en.strip_suffix(en)?, hint.zh.strip_suffix(zh)?))
}

/// A span of time, roughly.
fn about(span: Duration) -> Words {
    match span.as_secs() {
        seconds @ 0..120 => words(format!("{seconds} s"), format!("{seconds} 秒")),
        seconds @ 120..7_200 => {
            words(format!("{} min", seconds / 60), format!("{} 分钟", seconds / 60))
        }
        seconds => words(format!("{} h", seconds / 3_600), format!("{} 小时", seconds / 3_600)),
    }
}

fn since(then: SystemTime, now: SystemTime) -> Words {
    about(now.duration_since(then).unwrap_or_default())
}

/// What is to be said of a source of a server that runs.
pub(super) fn judge_running(
    source: &TokenSource,
    status: &SourceStatus,
    asked: &Asked,
    now: SystemTime,
) -> Vec<Finding> {
    let is_live = matches!(status.state, State::Live | State::Failing);
    let mut findings = Vec::new();
    let trouble = status.condition.trouble.as_ref();
    let trouble = trouble.filter(|trouble| trouble.is_failure && !status.condition.is_trouble_over);
    if let Some(trouble) = trouble {
        let failure = Failure {
            code: trouble.code.as_deref().map(str::to_owned),
            class: trouble.class.to_owned(),
            words: words(&*trouble.what, &*trouble.what_zh),
            hint: here(Words::from(&trouble.remedy)),
        };
        let ago = since(trouble.at, now);
        let more = match &status.token {
            Some(token) if is_live => {
                let left = about(token.life_left);
                words(
                    format!(", {} ago; the token that there is lives for {} more", ago.en, left.en),
                    format!("（{}前）；现有令牌还可用 {}", ago.zh, left.zh),
                )
            }
            _ => words(
                format!(", {} ago; there is no live token", ago.en),
                format!("（{}前）；当前没有可用令牌", ago.zh),
            ),
        };
        let mark = if is_live && failure.may_pass() { Mark::Warning } else { Mark::Problem };
        findings.push(failure.finding(source, mark, &more));
    }
    match &status.token {
        Some(token) if is_live => {
            let fetched = since(token.fetched_at, now);
            let how = words(format!("fetched {} ago", fetched.en), format!("{}前获取", fetched.zh));
            let token = judge_token(source, asked, &how);
            // Its renewals fail: that it is good for now goes without saying.
            findings.extend((trouble.is_none() || token.mark != Mark::Ok).then_some(token));
        }
        _ if trouble.is_none() => findings.push(
            Finding::warning(
                Topic::Credentials,
                "no_token",
                source.name.as_str(),
                words(
                    "there is no live token, and no failure yet",
                    "尚无可用令牌，也还没有失败记录",
                ),
            )
            .remedy(words(
                "a fetch is under way or about to be: ask again in a minute",
                "正在获取或即将获取，请一分钟后再试",
            )),
        ),
        _ => {}
    }
    if status.token.is_some() && !status.condition.is_on_disk {
        findings.push(
            Finding::problem(
                Topic::Store,
                "memory_only",
                source.name.as_str(),
                words(
                    "its token is kept in memory only, and would be lost in a restart: the disk refuses it",
                    "令牌仅保存在内存中，重启即丢失：磁盘拒绝写入",
                ),
            )
            .remedy(words(
                "free space, or make the store directory writable again; a restart is not needed",
                "请释放磁盘空间或恢复存储目录的写权限，无需重启",
            )),
        );
    }
    findings
}

/// What is to be said of a live token; `how` it was come by.
pub(super) fn judge_token(source: &TokenSource, asked: &Asked, how: &Words) -> Finding {
    let name = source.name.as_str();
    let ok = |en: &str, zh: &str| {
        let what = words(format!("{en} ({})", how.en), format!("{zh}（{}）", how.zh));
        Finding::ok(Topic::Credentials, "token_ok", name, what)
    };
    let error = match asked {
        None => return ok("has a live token", "有可用令牌"),
        Some(Ok(())) => return ok("the upstream accepts the token", "上游接受该令牌"),
        Some(Err(error)) => error,
    };
    let failure = Failure::of(error);
    if failure.has(CALL_CODES) {
        return ok("the upstream accepts the token", "上游接受该令牌");
    }
    if failure.has(ADDRESS_CODES) {
        return failure.finding(source, Mark::Problem, &words("", ""));
    }
    if failure.has(TOKEN_CODES) {
        let code = failure.code.as_deref().unwrap_or_default();
        let what = words(
            format!("the upstream refuses the token (errcode {code}, {})", how.en),
            format!("上游拒绝该令牌（errcode {code}，{}）", how.zh),
        );
        let is_stable = source.url.path().ends_with("/stable_token");
        let (or, or_zh) = match is_stable {
            true => ("", ""),
            false => (", or change to stable_token", "，或改用 stable_token"),
        };
        let run = format!(
            "`wechat-token-server get {name} | wechat-token-server refresh {name} --stale -`"
        );
        let en = format!(
            "somebody else fetched one for this account: find and stop that{or}. Until then, {run} has the running \
             server fetch another"
        );
        let zh = format!(
            "有其他程序也在用该账号获取令牌：请停用它{or_zh}；目前可运行 {run}，让运行中的服务器重新获取"
        );
        return Finding::problem(Topic::Credentials, "token_refused", name, what)
            .remedy(words(en, zh));
    }
    let said = failure.said();
    let what = words(
        format!("whether the token is accepted could not be asked: {}", said.en),
        format!("无法确认令牌是否有效：{}", said.zh),
    );
    Finding::warning(Topic::Credentials, "token_not_asked", name, what)
        .remedy(failure.remedy(source))
}

/// What is known of a source where no server runs and there is no live token of it.
#[derive(Debug)]
pub(super) enum Offline {
    /// A trial that replaces nobody's token.
    Tried(Trial, Result<(), FetchError>),
    /// Only a fetch would tell that may replace a token which others hold.
    WouldReplace,
    /// The day's calls are used up, by our count.
    QuotaSpent,
    /// Another process has the store, and perhaps a live token.
    StoreInUse,
    /// The store cannot be read: there may be a live token in it.
    StoreUnread,
}

/// What is to be said of it.
pub(super) fn judge_offline(source: &TokenSource, known: &Offline) -> Vec<Finding> {
    let name = source.name.as_str();
    let not_tried = |code: &'static str, what: Words, remedy: Words| {
        vec![Finding::warning(Topic::Credentials, code, name, what).remedy(remedy)]
    };
    match known {
        Offline::Tried(trial, Ok(())) => {
            let (en, zh) = match trial {
                Trial::StableToken => (
                    "the upstream takes the credentials (tried with stable_token, which ends nobody's token)",
                    "上游接受该凭据（用 stable_token 试过，不影响任何人的令牌）",
                ),
                Trial::OwnRequest => (
                    "the upstream takes the credentials (tried with a fetch that gives the same token to all)",
                    "上游接受该凭据（该接口重复获取返回相同令牌，不影响他人）",
                ),
            };
            vec![
                Finding::ok(Topic::Credentials, "credentials_ok", name, words(en, zh)),
                Finding::ok(
                    Topic::Address,
                    "address_ok",
                    name,
                    words("the upstream lets this machine's address in", "上游允许本机的出口 IP"),
                ),
            ]
        }
        Offline::Tried(_, Err(error)) => {
            let failure = Failure::of(error);
            if !failure.may_pass() {
                return vec![failure.finding(source, Mark::Problem, &words("", ""))];
            }
            let said = failure.said();
            not_tried(
                "credentials_not_tried",
                words(
                    format!("whether the credentials are right could not be asked: {}", said.en),
                    format!("无法确认凭据是否正确：{}", said.zh),
                ),
                words(
                    "what is said of the hosts may tell why; then run doctor again",
                    "原因可参考「上游主机」一节，之后请再次运行 doctor",
                ),
            )
        }
        Offline::WouldReplace => not_tried(
            "credentials_not_tried",
            words(
                "whether the credentials are right is not known: there is no live token, and a fetch to try them \
                 could end one that another program holds",
                "无法确认凭据是否正确：没有可用令牌，而试取可能使其他程序持有的令牌失效",
            ),
            words(
                "start the server, which fetches one for all, and ask again",
                "请启动服务器（由它统一获取），然后再次检查",
            ),
        ),
        Offline::QuotaSpent => not_tried(
            "credentials_not_tried",
            words(
                "the credentials were not tried: the day's calls are used up",
                "未尝试凭据：今日调用次数已用完",
            ),
            words("ask again after midnight in Beijing", "请在北京时间零点之后再试"),
        ),
        Offline::StoreInUse => not_tried(
            "credentials_not_tried",
            words(
                "the credentials were not tried: another process has the store, and perhaps a live token",
                "未尝试凭据：存储目录被另一进程占用，其中可能有可用令牌",
            ),
            words(
                "ask the server that has it: run doctor with its config",
                "请使用该进程的配置文件运行 doctor",
            ),
        ),
        Offline::StoreUnread => not_tried(
            "credentials_not_tried",
            words(
                "the credentials were not tried: the store cannot be read, and may hold a live token",
                "未尝试凭据：无法读取存储目录，其中可能有可用令牌",
            ),
            words("see to the store first", "请先处理存储问题"),
        ),
    }
}

#[cfg(test)]
mod tests;
