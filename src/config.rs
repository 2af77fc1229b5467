//! What the operator wants, validated: plain data that every room is handed a part of.
//! Read with [`load`]; nobody checks a setting a second time. Does no network I/O.

mod address;
mod answer;
mod clients;
mod error;
mod expand;
mod exposure;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod host;
mod identity;
mod keys;
mod listeners;
mod lower;
mod policy;
mod raw;
mod request;
mod setting;
mod sources;
mod store;
mod template;
mod vendors;
mod watch;
mod webhooks;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;
use zeroize::Zeroizing;

use crate::account::Account;
use crate::token::{Secret, SourceIdentity, SourceName};

pub use answer::{AnswerRules, Code, ExpiresIs, ExpiresUnit, FieldPath, Fields};
pub use error::{Advice, ConfigErrors, Mistake};
pub use expand::Environment;
pub use exposure::closing_command;
pub use host::Host;
pub use keys::advice_on_kept;
pub use policy::{RefreshPolicy, Rotation};
pub use request::{Basic, Body, Credentials, JsonTemplate, RequestTemplate, is_header_text};
pub use template::{Placeholder, Template};
pub use vendors::Vendor;

/// Where the config is read from when `--config` does not say.
pub const DEFAULT_PATH: &str = "config.ron";

/// Where the packages put it: commands about a server find it there, wherever they are run.
pub const INSTALLED_PATH: &str = "/etc/wechat-token-server/config.ron";

/// Descriptors for all that is not a client's connection: listeners, the store, the log, requests to
/// the upstream (of which 256 may be under way).
pub const OWN_DESCRIPTORS: usize = 384;

/// Everything an operator can set.
#[derive(Debug, Clone)]
pub struct Config {
    /// The HTTP listener.
    pub http: HttpConfig,
    /// The RESP listener; `None` when it is switched off.
    pub resp: Option<RespConfig>,
    /// Where tokens are kept.
    pub store: StoreConfig,
    /// The key of the client that may do everything; `None`: one is made at the first start.
    pub request_secret: Option<Secret>,
    /// Who else may use the server. Where there are any, the RESP listener lets nobody in without a
    /// key.
    pub clients: Vec<ClientConfig>,
    /// Requests to the upstream.
    pub outbound: OutboundConfig,
    /// Logs.
    pub log: LogConfig,
    /// When the server is ready.
    pub ready: ReadyConfig,
    /// Where metrics are served without a key; `None`: only where a key is asked for.
    pub metrics: Option<MetricsConfig>,
    /// Who is told of failures and recoveries.
    pub webhooks: Vec<WebhookConfig>,
    /// How long what is in flight may take to finish after SIGTERM.
    pub grace_period: Duration,
    /// The token sources in an order in which each comes after those it depends on.
    pub sources: Vec<TokenSource>,
    /// What the operator is told beside that: `check` prints it, a server logs it when it starts.
    pub advice: Vec<Advice>,
}

impl Config {
    /// How many descriptors a server may want.
    pub fn descriptors(&self) -> usize {
        let resp = self.resp.as_ref().map_or(0, |resp| resp.max_connections);
        OWN_DESCRIPTORS + self.http.max_connections + resp
    }
}

/// Settings of the HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Connections served at once; the next ones are refused.
    pub max_connections: usize,
    /// Of these, those of one address at most (an IPv6 address counts by its /64); the next ones are
    /// refused. Loopback addresses are exempt.
    pub max_connections_per_address: usize,
    /// How long a request's head may take to arrive, counted from its first byte or, on a new
    /// connection, from the accept.
    pub header_timeout: Duration,
    /// How long a connection may be idle between requests, and a request's body or an answer may
    /// stand still.
    pub idle_timeout: Duration,
    /// Whether a key may stand in the parameter `secret`, as in the original.
    pub secret_parameter: bool,
    /// Whether the page for people is served at `/ui`.
    pub ui: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `None`: it speaks plain HTTP.
    pub tls: Option<TlsConfig>,
}

/// Settings of the RESP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RespConfig {
    /// Address and port; port 0 takes a free one.
    pub bind: SocketAddr,
    /// What `AUTH` must say; `None`: no password is asked for.
    pub password: Option<Secret>,
    /// Connections served at once; the next ones are refused.
    pub max_connections: usize,
    /// As in [`HttpConfig::max_connections_per_address`]; each listener counts its own.
    pub max_connections_per_address: usize,
    /// How long a connection may be idle; zero means for ever, as in Redis.
    pub idle_timeout: Duration,
    /// What becomes of a write.
    pub writes: Writes,
    /// Whether keyspace notifications are sent to those who subscribe to them.
    pub notify: bool,
    /// `None`: it speaks the plain Redis protocol.
    pub tls: Option<TlsConfig>,
}

/// The files of a listener that speaks TLS, all in PEM. What is in them is not looked at here: it
/// changes while the server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate, and after it those that lead to an authority.
    pub cert: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// The authorities that clients' certificates come from; `None`: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// What becomes of a write to a token over the Redis protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// It is refused, as on a replica.
    Refuse,
    /// Deleting a token reports it as refused by the upstream, and setting one is answered OK and
    /// changes nothing: for SDKs that manage the token in Redis themselves.
    Report,
}

/// Somebody who may use the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Its name.
    pub name: String,
    /// What it shows; several while one is being replaced.
    pub keys: Vec<Secret>,
    /// The sources it may see; `None`: all.
    pub sources: Option<Vec<SourceName>>,
    /// Where it may come from; `None`: from anywhere.
    pub addresses: Option<Vec<IpNet>>,
}

/// Settings of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The directory, absolute or relative to the process.
    pub path: PathBuf,
    /// What records are sealed with; `None`: they are kept in plain.
    pub key: Option<Secret>,
    /// What records may be sealed with beside that; they are sealed anew at the next start.
    pub old_keys: Vec<Secret>,
}

/// Settings of all requests that leave the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundConfig {
    /// A PEM file of further certificate authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// A proxy (`http://host:port`, with `user:password@` if it asks for them).
    pub proxy: Option<Secret>,
}

/// How logs look and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Level, or directives such as `info,wechat_token_server::resp=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
    /// A directory for daily files; `None`: standard error only.
    pub dir: Option<PathBuf>,
    /// How many daily files are kept.
    pub keep: usize,
}

/// When the server is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyConfig {
    /// The sources that must have a live token; `None`: all.
    pub sources: Option<Vec<SourceName>>,
    /// How long those tokens must be promised for at least.
    pub life: Duration,
}

/// Where metrics are served without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Address and port; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Whether it may be an address that other machines can reach.
    pub public: bool,
}

/// Somebody who is told of what an operator must hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Its name, in the log and in metrics.
    pub name: String,
    /// Where messages are sent to: `http` or `https` with a host. A group robot's holds its key.
    pub url: Secret,
    /// What a message looks like.
    pub kind: WebhookKind,
    /// What messages are signed with; `None`: they are not. One of [`WebhookKind::Json`] that begins
    /// with `whsec_` goes on with the key in Base64.
    pub secret: Option<Secret>,
    /// What it is told of.
    pub topics: Vec<Topic>,
    /// How long the same is not told again.
    pub quiet: Duration,
    /// How long is waited for what else happens, to put it into one message.
    pub gather: Duration,
    /// The language of a message's text.
    pub language: Language,
    /// What this server is called in messages; `None`: the name of the host.
    pub server_name: Option<String>,
}

/// What a webhook's messages look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookKind {
    /// JSON for programs, signed as Standard Webhooks says.
    Json,
    /// A text for a group robot of WeCom (企业微信).
    WeCom,
    /// A text for a group robot of DingTalk (钉钉).
    DingTalk,
    /// A text for a group robot of Feishu (飞书) or Lark.
    Feishu,
}

impl WebhookKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            WebhookKind::Json => "JSON",
            WebhookKind::WeCom => "WeCom",
            WebhookKind::DingTalk => "DingTalk",
            WebhookKind::Feishu => "Feishu",
        }
    }
}

/// What a webhook can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// A source's renewals fail.
    Failing,
    /// They come off again.
    Recovered,
    /// An account's calls of the day run out.
    Quota,
    /// Another system fetches for the same account.
    Foreign,
}

impl Topic {
    /// Every one.
    pub const ALL: [Topic; 4] = [Topic::Failing, Topic::Recovered, Topic::Quota, Topic::Foreign];

    /// Its name in the config and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Topic::Failing => "failing",
            Topic::Recovered => "recovered",
            Topic::Quota => "quota",
            Topic::Foreign => "foreign",
        }
    }
}

/// The language of what people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Chinese
    Chinese,
    /// English
    English,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { level: "info".into(), format: LogFormat::Pretty, dir: None, keep: 7 }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: with colours on a terminal.
    Pretty,
    /// For machines: one JSON object a line.
    Json,
}

/// A configured way to obtain one kind of token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenSource {
    /// Its name.
    pub name: SourceName,
    /// Whose API it is: decides what error codes mean.
    pub vendor: Vendor,
    /// The address as it was written, placeholders and all, without its query, in which a secret may
    /// stand: for naming the endpoint. A request goes to the address of `request`.
    pub url: Arc<Url>,
    /// Other hosts where the same API answers, used in turn when the address's own fails.
    pub hosts: Box<[Host]>,
    /// What a request is made of.
    pub request: RequestTemplate,
    /// The sources named in the request's placeholders.
    pub dependencies: Box<[SourceName]>,
    /// Where the token stands in an answer.
    pub value: Fields,
    /// How the rest of an answer is read.
    pub answer: Arc<AnswerRules>,
    /// What `{{captured}}` stands for as long as no answer has given anything.
    pub captured: Option<Secret>,
    /// Whether its tokens die with the dependency's they were fetched with, and are to be fetched
    /// anew when that changes. It has a dependency then.
    pub follow: bool,
    /// Whose quota its calls are charged to: by default the appid, corpid … of its request, or the
    /// account of what it depends on; its name is empty if it has none.
    pub account: Account,
    /// When it is refreshed.
    pub policy: Arc<RefreshPolicy>,
    /// What its records belong to.
    pub identity: SourceIdentity,
}

impl TokenSource {
    /// The account of WeChat's that its own request is made for; `None` if it is not of WeChat, or made with
    /// another source's token.
    pub fn credentials(&self) -> Option<Credentials> {
        (self.vendor == Vendor::WeChat).then(|| self.request.credentials())?
    }
}

/// The method of a request to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// POST, with the arguments in the query string.
    Post,
}

/// The name of every setting, of every group; for tests of the documents.
pub fn setting_names() -> impl Iterator<Item = &'static str> {
    raw::groups().into_iter().flatten().copied()
}

/// Reads, expands and validates the config file at `path`.
///
/// # Errors
/// Every mistake at once, each by the path of its setting and with what to do.
pub fn load(path: &Path, environment: &Environment) -> Result<Config, ConfigErrors> {
    understand(&text_of(path)?, path, environment, Files::Sought)
}

/// Where a server with this config is and what opens it: all that a command needs that talks to it.
#[derive(Debug)]
pub struct Whereabouts {
    /// Where it serves HTTP.
    pub bind: SocketAddr,
    /// How that is encrypted.
    pub tls: Option<TlsConfig>,
    /// The store's directory, where a generated request secret is.
    pub store: PathBuf,
    /// The configured request secret; `None`: it is in the store's directory.
    ///
    /// # Errors
    /// Why it is not known here: it may be in a variable that only the server has.
    pub key: Result<Option<Secret>, ConfigErrors>,
}

/// Reads of the config file at `path` where its server is. Mistakes in other settings do not matter for
/// that, such as variables that are set for the server alone.
///
/// # Errors
/// Every mistake in those settings.
pub fn whereabouts(path: &Path, environment: &Environment) -> Result<Whereabouts, ConfigErrors> {
    let (raw, _) =
        raw::read(&text_of(path)?).map_err(|mistake| ConfigErrors::one(path, mistake))?;
    lower::whereabouts(raw, path, environment)
}

/// The text of a config file.
fn text_of(path: &Path) -> Result<Zeroizing<String>, ConfigErrors> {
    read_text(path).map_err(|error| {
        let what_to_do = match error.kind() {
            io::ErrorKind::InvalidData => "",
            io::ErrorKind::PermissionDenied => "; run it with sudo, or as the server's user",
            _ => "; --config names another file",
        };
        ConfigErrors::one(path, Mistake::file(format!("cannot be read: {error}{what_to_do}")))
    })
}

/// What is written in a file, without the mark that editors on Windows put at the beginning of UTF-8.
///
/// # Errors
/// It cannot be read, or is not UTF-8, which is then said with what to do.
fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    let bytes = Zeroizing::new(std::fs::read(path)?);
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned().into()),
        Err(error) => {
            let lines = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            let what =
                format!("line {} is not UTF-8; have the editor save the file as UTF-8", lines + 1);
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
    }
}

/// As [`load`], for a text that is at hand. Relative paths in it are relative to `path`'s directory; whether
/// there are such files is not asked.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Config, ConfigErrors> {
    understand(text, path, environment, Files::Unsought)
}

/// Whether it is a mistake to name a file that is missing, of those that are read when the server starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    Sought,
    Unsought,
}

fn understand(
    text: &str,
    path: &Path,
    environment: &Environment,
    files: Files,
) -> Result<Config, ConfigErrors> {
    let (raw, mut mistakes) =
        raw::read(text).map_err(|mistake| ConfigErrors::one(path, mistake))?;
    let config = lower::lower(raw, path, environment, files, &mut mistakes);
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(ConfigErrors::new(path, mistakes)),
    }
}
