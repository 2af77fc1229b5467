//! What was found out: about what, how bad it is, what to do, in English and in Chinese. Never a value, a key
//! or a text that an upstream made up.

use std::borrow::Cow;

use crate::snapshot::Remedy;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// As it should be.
    Ok,
    /// It works, and could be better, or will not for long.
    Warning,
    /// It does not work.
    Problem,
}

impl Mark {
    /// Every one.
    pub const ALL: [Mark; 3] = [Mark::Ok, Mark::Warning, Mark::Problem];

    /// Its name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Mark::Ok => "ok",
            Mark::Warning => "warning",
            Mark::Problem => "problem",
        }
    }
}

/// What a finding is about; its order is that of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Whether a server runs.
    Server,
    /// Whether tokens and credentials are accepted.
    Credentials,
    /// From which address the upstream sees us, and whether it lets that in.
    Address,
    /// The calls of the day.
    Quota,
    /// DNS, TLS, latency.
    Hosts,
    /// This machine's clock.
    Clock,
    /// The directory that tokens are kept in, and its disk.
    Store,
    /// Who may read what is secret; certificates.
    Files,
    /// The addresses that are listened on.
    Ports,
    /// How many files and connections may be open.
    Descriptors,
    /// What the config could do better.
    Config,
}

impl Topic {
    /// Every one, in the order of a report.
    pub const ALL: [Topic; 11] = [
        Topic::Server,
        Topic::Credentials,
        Topic::Address,
        Topic::Quota,
        Topic::Hosts,
        Topic::Clock,
        Topic::Store,
        Topic::Files,
        Topic::Ports,
        Topic::Descriptors,
        Topic::Config,
    ];

    /// Its name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Topic::Server => "server",
            Topic::Credentials => "credentials",
            Topic::Address => "address",
            Topic::Quota => "quota",
            Topic::Hosts => "hosts",
            Topic::Clock => "clock",
            Topic::Store => "store",
            Topic::Files => "files",
            Topic::Ports => "ports",
            Topic::Descriptors => "descriptors",
            Topic::Config => "config",
        }
    }

    /// Its title in a report.
    pub(super) fn title(self) -> Words {
        match self {
            Topic::Server => words("Server", "服务器"),
            Topic::Credentials => words("Tokens and credentials", "令牌与凭据"),
            Topic::Address => words("Address that the upstream sees", "上游看到的出口 IP"),
            Topic::Quota => words("Calls of today", "今日调用次数"),
            Topic::Hosts => words("Hosts", "上游主机"),
            Topic::Clock => words("Clock", "时钟"),
            Topic::Store => words("Store and disk", "存储与磁盘"),
            Topic::Files => words("Files", "文件"),
            Topic::Ports => words("Ports", "端口"),
            Topic::Descriptors => words("Open files", "文件描述符"),
            Topic::Config => words("Config", "配置"),
        }
    }
}

/// A text in both languages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// In English.
    pub en: String,
    /// In Chinese.
    pub zh: String,
}

/// A text in both languages.
pub fn words(en: impl Into<String>, zh: impl Into<String>) -> Words {
    Words { en: en.into(), zh: zh.into() }
}

impl From<(String, String)> for Words {
    fn from((en, zh): (String, String)) -> Words {
        Words { en, zh }
    }
}

impl From<&Remedy> for Words {
    fn from(remedy: &Remedy) -> Words {
        words(&*remedy.en, &*remedy.zh)
    }
}

/// One thing that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing it is about.
    pub topic: Topic,
    /// How bad it is.
    pub mark: Mark,
    /// Names it for programs.
    pub code: Cow<'static, str>,
    /// What it is about: a source, a host, a file, a setting.
    pub about: String,
    /// What was found.
    pub what: Words,
    /// What to do about it.
    pub remedy: Option<Words>,
}

impl Finding {
    fn new(
        topic: Topic,
        mark: Mark,
        code: impl Into<Cow<'static, str>>,
        about: impl Into<String>,
        what: Words,
    ) -> Finding {
        Finding { topic, mark, code: code.into(), about: about.into(), what, remedy: None }
    }

    /// All is well with it.
    pub(super) fn ok(
        topic: Topic,
        code: &'static str,
        about: impl Into<String>,
        what: Words,
    ) -> Finding {
        Finding::new(topic, Mark::Ok, code, about, what)
    }

    /// It could be better.
    pub(super) fn warning(
        topic: Topic,
        code: impl Into<Cow<'static, str>>,
        about: impl Into<String>,
        what: Words,
    ) -> Finding {
        Finding::new(topic, Mark::Warning, code, about, what)
    }

    /// It does not work.
    pub(super) fn problem(
        topic: Topic,
        code: impl Into<Cow<'static, str>>,
        about: impl Into<String>,
        what: Words,
    ) -> Finding {
        Finding::new(topic, Mark::Problem, code, about, what)
    }

    /// With what to do about it.
    pub(super) fn remedy(self, remedy: impl Into<Words>) -> Finding {
        Finding { remedy: Some(remedy.into()), ..self }
    }
}

/// How many findings have this mark.
pub(super) fn count(findings: &[Finding], mark: Mark) -> usize {
    findings.iter().filter(|finding| finding.mark == mark).count()
}

/// Whether nothing is a problem.
pub fn is_well(findings: &[Finding]) -> bool {
    count(findings, Mark::Problem) == 0
}
