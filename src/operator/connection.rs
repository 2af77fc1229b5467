//! Where the running server is, and as whom it is asked: from the config, or from `--url` and the
//! variables. Sends a request and takes the answer apart; what goes wrong is said with what to do.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::{
    Desk, EX_CONFIG, EX_DATAERR, EX_NOPERM, EX_PROTOCOL, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE,
    Failure, refusal,
};
use crate::cli::{ServerArgs, server_url};
use crate::config::{self, Method, Whereabouts};
use crate::doctor::{Words, words};
use crate::outbound::{Answer, Outbound, OutboundError, Payload, Request, Trust};
use crate::store;
use crate::token::{Secret, SourceName};

/// The variables that name another server and the key for it.
const URL: &str = "WECHAT_TOKEN_SERVER_URL";
const KEY: &str = "WECHAT_TOKEN_SERVER_KEY";

/// How long an answer may take that the server has at hand.
pub(super) const AT_HAND: Duration = Duration::from_secs(10);

/// How long one may take that waits for the upstream: a little longer than the server waits itself.
pub(super) const FROM_UPSTREAM: Duration = Duration::from_secs(125);

/// What is said of a source that the server does not know, or not to this key.
pub(super) const NO_SOURCE: &str = "there is no such source, or not for this key; `wechat-token-server status` lists those there are";
/// The same in Chinese.
pub(super) const NO_SOURCE_ZH: &str =
    "没有该令牌源，或此密钥无权访问；`wechat-token-server status` 列出现有的令牌源";

/// A running server, and what opens it.
#[derive(Debug)]
pub struct Connection {
    outbound: Outbound,
    url: Url,
    /// Where it is and who says so, for messages.
    place: String,
    key: Secret,
    /// What to do where a server drops a connection because of the certificate that it is shown, or not:
    /// it may do so without a word. Empty where nothing is encrypted.
    about_identity: Aside,
    /// Why nobody may answer although a server runs. Empty where its address was named.
    about_address: Aside,
}

/// What may be said beside, in both languages.
#[derive(Debug)]
struct Aside {
    en: &'static str,
    zh: &'static str,
}

const NOTHING: Aside = Aside { en: "", zh: "" };

/// What a request says.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The path, in parts, of which one may be a name that somebody has typed.
    pub path: &'a [&'a str],
    /// The query, as it is written.
    pub query: Option<&'a str>,
    /// The body, as JSON; `None`: it is asked with GET.
    pub body: Option<Zeroizing<Vec<u8>>>,
    /// How long the answer may take.
    pub patience: Duration,
}

impl<'a> Ask<'a> {
    /// What the server has at hand.
    pub fn get(path: &'a [&'a str]) -> Ask<'a> {
        Ask { path, query: None, body: None, patience: AT_HAND }
    }

    /// What the server is to do.
    pub fn post(path: &'a [&'a str], body: Zeroizing<Vec<u8>>) -> Ask<'a> {
        Ask { path, query: None, body: Some(body), patience: FROM_UPSTREAM }
    }
}

impl Connection {
    /// Finds the server. Nothing is sent yet.
    ///
    /// # Errors
    /// It is not known where it is, or what opens it.
    pub fn find(args: &ServerArgs, desk: &Desk<'_>) -> Result<Connection, Failure> {
        let variable = |name| desk.environment.get(name).map(str::trim).filter(|v| !v.is_empty());
        let key = variable(KEY).map(Secret::new);
        let url = match (&args.url, variable(URL)) {
            (Some(url), _) => Some((named("--url", url.expose())?, "--url")),
            (None, Some(text)) => Some((named(URL, text)?, URL)),
            (None, None) => None,
        };
        let mut trust =
            Trust { exactly: None, beside: args.ca.clone(), identity: args.identity.clone() };
        let about_address = match url {
            Some(_) => NOTHING,
            None => Aside {
                en: "; if http.bind was changed since it was started, --url with the address of before finds it",
                zh: "；若启动后改过 http.bind，可用 --url 指定原来的地址",
            },
        };
        let (url, by, key) = match url {
            Some((url, by)) => {
                // The key of the config is for the server of the config: it is sent to no other.
                let key = key.ok_or_else(|| {
                    Failure::new(
                        EX_USAGE,
                        format_args!(
                            "{by} names a server, so its key has to be in the variable {KEY}"
                        ),
                    )
                    .zh(format_args!("{by} 指定了服务器，请在环境变量 {KEY} 中提供它的密钥"))
                })?;
                (url, by.to_owned(), key)
            }
            None => {
                let found = config::whereabouts(desk.file, desk.environment)
                    .map_err(|mistakes| Failure::new(EX_CONFIG, mistakes))?;
                let key = match key {
                    Some(key) => key,
                    None => configured_key(&found)?,
                };
                if let Some(tls) = &found.tls {
                    if tls.client_ca.is_some() && args.identity.is_none() {
                        return Err(Failure::new(
                            EX_CONFIG,
                            "http.tls.client_ca lets nobody in without a client's certificate: show one with \
                             --identity FILE, a PEM file with the certificate and its private key",
                        )
                        .zh("http.tls.client_ca 要求客户端证书：请用 --identity FILE 指定包含证书与私钥的 PEM 文件"));
                    }
                    trust.exactly = args.ca.is_none().then(|| tls.cert.clone());
                }
                let by = format!("http.bind of {}", desk.file.display());
                (own_url(found.bind, found.tls.is_some())?, by, key)
            }
        };
        let outbound =
            Outbound::to_server(&trust).map_err(|error| Failure::new(EX_CONFIG, error))?;
        let place = format!("{} ({by})", url.as_str().trim_end_matches('/'));
        let about_identity = match (url.scheme(), &args.identity) {
            ("https", None) => Aside {
                en: "; if it asks for a client's certificate (http.tls.client_ca), show one with --identity",
                zh: "；若它要求客户端证书（http.tls.client_ca），请用 --identity 提供",
            },
            ("https", Some(_)) => Aside {
                en: "; if it refuses the certificate of --identity, show one of an authority in http.tls.client_ca",
                zh: "；若它拒绝 --identity 的证书，请换用 http.tls.client_ca 中机构签发的证书",
            },
            _ => NOTHING,
        };
        Ok(Connection { outbound, url, place, key, about_identity, about_address })
    }

    /// Asks, and takes the body of an answer that is no refusal.
    ///
    /// # Errors
    /// There is no answer, or it is a refusal, or not of this server.
    pub async fn ask(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        // An address would lose a part that is no name, such as "..", and lead elsewhere.
        if ask.path.iter().any(|part| SourceName::parse(part).is_err()) {
            return Err(Failure::new(EX_DATAERR, NO_SOURCE).zh(NO_SOURCE_ZH));
        }
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(ask.path);
        }
        url.set_query(ask.query);
        let bearer = Zeroizing::new(format!("Bearer {}", self.key.expose()));
        let body = ask.body.map(|bytes| Payload { content_type: "application/json", bytes });
        let request = Request {
            method: if body.is_some() { Method::Post } else { Method::Get },
            url,
            headers: vec![("authorization".into(), Secret::new(bearer.as_str()))],
            basic: None,
            body,
            timeout: ask.patience,
        };
        let answer =
            self.outbound.exchange(request).await.map_err(|error| self.unanswered(error))?;
        match answer.status {
            200..300 => Ok(answer),
            _ => Err(self.refused(&answer)),
        }
    }

    /// As [`Connection::ask`], of JSON.
    ///
    /// # Errors
    /// As there.
    pub async fn json(&self, ask: Ask<'_>) -> Result<Value, Failure> {
        let answer = self.ask(ask).await?;
        serde_json::from_slice(&answer.body).map_err(|_| self.not_ours(answer.status))
    }

    fn unanswered(&self, error: OutboundError) -> Failure {
        let place = &self.place;
        match error {
            OutboundError::NotConnected(words) => {
                let about = &self.about_address;
                Failure::new(
                    EX_UNAVAILABLE,
                    format_args!(
                        "no server answers at {place}: {words}. Is it running? Start it, or name another one with --url{}",
                        about.en
                    ),
                )
                .zh(format_args!(
                    "{place} 上没有服务器应答：{words}。它在运行吗？请启动它，或用 --url 指定另一台{}",
                    about.zh
                ))
            }
            OutboundError::NoTls(words) => Failure::new(
                EX_UNAVAILABLE,
                format_args!("{place} is not believed, and nothing was sent: {words}"),
            )
            .zh(format_args!("{place} 的身份无法确认，未发送任何内容：{words}")),
            OutboundError::Broken(words) => {
                let about = match words.contains("--identity") {
                    true => &NOTHING,
                    false => &self.about_identity,
                };
                Failure::new(
                    EX_UNAVAILABLE,
                    format_args!("the connection to {place} broke: {words}{}", about.en),
                )
                .zh(format_args!("与 {place} 的连接中断：{words}{}", about.zh))
            }
            OutboundError::TimedOut => Failure::new(
                EX_TEMPFAIL,
                format_args!("{place} does not answer in time; its log may say why"),
            )
            .zh(format_args!("{place} 未在规定时间内应答，原因可查看其日志")),
            OutboundError::TooLarge => {
                Failure::new(EX_PROTOCOL, format_args!("{place} answers more than is read"))
                    .zh(format_args!("{place} 的应答过大"))
            }
            // It has nothing else that could be wrong.
            OutboundError::CannotSend(_) => Failure::new(
                EX_USAGE,
                format_args!(
                    "the key holds what no request can, such as a line end; correct it in {KEY}, or where the config \
                     has it"
                ),
            )
            .zh(format_args!("密钥含有无法发送的字符（如换行），请在 {KEY} 或配置中改正")),
        }
    }

    fn not_ours(&self, status: u16) -> Failure {
        let place = &self.place;
        Failure::new(
            EX_PROTOCOL,
            format_args!(
                "what answers at {place} (HTTP status {status}) is not a server of this version; correct the address, \
                 or https:// and http://"
            ),
        )
        .zh(format_args!(
            "{place} 上应答的（HTTP 状态 {status}）不是本版本的服务器；请检查地址，以及 https:// 还是 http://"
        ))
    }

    /// A refusal in the server's words, or in better ones.
    fn refused(&self, answer: &Answer) -> Failure {
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let error = &json["error"];
        let (Some(code), Some(_)) = (error["code"].as_str(), error["message"].as_str()) else {
            return self.not_ours(answer.status);
        };
        let exit = match (answer.status, code) {
            (401 | 403, _) => EX_NOPERM,
            (400 | 404 | 413, _) | (_, "not_resettable" | "not_reloadable") => EX_DATAERR,
            (_, "config_mistakes") => EX_CONFIG,
            _ => EX_TEMPFAIL,
        };
        let place = &self.place;
        let better = match (answer.status, code) {
            (401, _) => Some(words(
                format!(
                    "{place} refuses the key: it is not the one it was started with, or may not be used from here. It \
                     is taken from the config's request_secret, the store's file request_secret, or {KEY}"
                ),
                format!(
                    "{place} 拒绝了密钥：与服务器启动时的不一致，或不允许从此处使用。密钥取自配置中的 request_secret、\
                     存储目录中的文件 request_secret，或环境变量 {KEY}"
                ),
            )),
            (404, _) => Some(words(NO_SOURCE, NO_SOURCE_ZH)),
            (_, "no_token") => Some(words(
                "the source has no live token now; `wechat-token-server status` says why",
                "该令牌源目前没有可用令牌；原因见 `wechat-token-server status`",
            )),
            _ => None,
        };
        let Words { en, zh } = refusal::words(error, better);
        Failure { refusal: Some(code.to_owned()), ..Failure::new(exit, en).zh(zh) }
    }
}

/// Whether a server is named by its address, and not by the config.
pub(super) fn names_a_server(args: &ServerArgs, desk: &Desk<'_>) -> bool {
    args.url.is_some() || desk.environment.get(URL).is_some_and(|url| !url.trim().is_empty())
}

/// The address that an operator has named; `by` says where.
fn named(by: &str, text: &str) -> Result<Url, Failure> {
    server_url(text).map_err(|wrong| Failure::new(EX_USAGE, format_args!("{by}: {wrong}")))
}

/// What opens the server of the config.
fn configured_key(found: &Whereabouts) -> Result<Secret, Failure> {
    match &found.key {
        Ok(Some(key)) => Ok(key.clone()),
        Ok(None) => {
            let path = store::secret_path(&found.store);
            match store::kept_secret(&found.store) {
                Ok(Some(key)) => Ok(key),
                Ok(None) => Err(Failure::new(
                    EX_UNAVAILABLE,
                    format_args!(
                        "{} is not there, or empty: the server makes it at its first start. Start it, or set request_secret in \
                         the config",
                        path.display()
                    ),
                )
                .zh(format_args!(
                    "{} 不存在或为空：服务器首次启动时会创建它。请启动服务器，或在配置中设置 request_secret",
                    path.display()
                ))),
                // What it holds is no key, in words that say what to do.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    Err(Failure::new(EX_CONFIG, format_args!("{} {error}", path.display()))
                        .zh(format_args!(
                            "{} 中不是密钥（可能有多行或其他字符）；请只保留一行密钥，或删除该文件，服务器会重新写入",
                            path.display()
                        )))
                }
                Err(error) => Err(Failure::new(
                    EX_NOPERM,
                    format_args!(
                        "{} cannot be read: {error}; run this as the server's user, or put a key into the variable \
                         {KEY}",
                        path.display()
                    ),
                )
                .zh(format_args!(
                    "{} 无法读取：{error}；请以服务器的运行用户执行，或在环境变量 {KEY} 中提供密钥",
                    path.display()
                ))),
            }
        }
        Err(mistakes) => Err(Failure::new(
            EX_CONFIG,
            format_args!("{mistakes}\nOr put a key into the variable {KEY}."),
        )
        .zh(format_args!("{mistakes}\n也可以在环境变量 {KEY} 中提供密钥。"))),
    }
}

/// The address of a server on this machine. One that listens everywhere is asked on loopback.
fn own_url(bind: SocketAddr, is_encrypted: bool) -> Result<Url, Failure> {
    if bind.port() == 0 {
        return Err(Failure::new(
            EX_CONFIG,
            "http.bind has port 0, so only the server knows which one it took: its log says it; name it with --url",
        )
        .zh("http.bind 的端口为 0，只有服务器知道实际端口（见其日志）；请用 --url 指定"));
    }
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let scheme = if is_encrypted { "https" } else { "http" };
    let url = format!("{scheme}://{}", SocketAddr::new(ip, bind.port()));
    Ok(Url::parse(&url).expect("an address and a port make an address"))
}

/// A wait in words.
pub(super) fn in_seconds(seconds: u64) -> String {
    format!("{seconds} second{}", if seconds == 1 { "" } else { "s" })
}

/// A text of a server's without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        for (bind, tls, url) in [
            ("0.0.0.0:12123", false, "http://127.0.0.1:12123/"),
            ("[::]:1", true, "https://[::1]:1/"),
            ("10.0.0.7:80", true, "https://10.0.0.7:80/"),
            ("[fe80::1]:8443", false, "http://[fe80::1]:8443/"),
        ] {
            assert_eq!(own_url(bind.parse().unwrap(), tls).unwrap().as_str(), url);
        }
        assert_eq!(own_url("127.0.0.1:0".parse().unwrap(), false).unwrap_err().code, EX_CONFIG);
    }
}
