//! Everything that leaves the machine goes through here: one tuned HTTP client. The only file that
//! names reqwest. Errors leave this room without the URL, which carries secrets.

mod look;
mod trust;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use url::Url;
use zeroize::Zeroizing;

use crate::config::{Method, OutboundConfig};
use crate::token::Secret;

pub use look::{Obstacle, Unreached};
pub use trust::Trust;

/// How long an idle connection is kept: long enough for a source and its dependent, or a retry.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// How long reaching a host may take; it leaves time for an answer, and tells "nothing was sent"
/// from "no answer".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes. The largest real ones are below 10 KB.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// As [`MAX_ANSWER_BYTES`], of a server of ours: a status of a hundred thousand sources that all fail. Each
/// takes 0.9 to 1.4 kB then, most of it what went wrong and what to do, in two languages.
const MAX_STATUS_BYTES: usize = 192 * 1024 * 1024;

/// Makes requests. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    client: reqwest::Client,
    /// The largest answer that is read, in bytes.
    most: usize,
    advice: Advice,
}

/// What to do about a host that TLS was not agreed on with.
type Advice = fn(&rustls::Error) -> Option<&'static str>;

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // reqwest's own shows the proxy, which may come with a password.
        f.write_str("Outbound(..)")
    }
}

/// A request to be made.
pub struct Request {
    /// The method.
    pub method: Method,
    /// The whole address.
    pub url: Url,
    /// Header fields; one named like a field that comes with the body goes before that.
    pub headers: Vec<(String, Secret)>,
    /// User and password for HTTP Basic authentication.
    pub basic: Option<(Secret, Secret)>,
    /// The body.
    pub body: Option<Payload>,
    /// How long it may take until the whole answer is there.
    pub timeout: Duration,
}

/// The body of a request.
pub struct Payload {
    /// What it is.
    pub content_type: &'static str,
    /// The body itself.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// A whole answer. A token is in it, so it has no `Debug`.
#[derive(Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; what is too large is not read.
    pub body: Zeroizing<Vec<u8>>,
    /// The upstream's clock, by the `Date` field.
    pub date: Option<SystemTime>,
    /// How long it asks to be left alone for, by the `Retry-After` field.
    pub retry_after: Option<Duration>,
}

/// Why there is no answer. No variant holds the address.
#[derive(Debug, PartialEq, Eq)]
pub enum OutboundError {
    /// Nothing was sent: it is no request. Says in words what is wrong.
    CannotSend(String),
    /// Nothing was sent: no name, no route, nobody there.
    NotConnected(String),
    /// Nothing was sent: TLS was not agreed on.
    NoTls(String),
    /// The time was up.
    TimedOut,
    /// Something went wrong after the request was sent, or while it was.
    Broken(String),
    /// The answer is larger than any that is meant; the rest of it was not read.
    TooLarge,
}

/// Why a client could not be made of the settings: by their path, for the operator.
#[derive(Debug)]
pub struct OutboundSetupError {
    setting: &'static str,
    message: String,
}

impl fmt::Display for OutboundSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.message)
    }
}

impl std::error::Error for OutboundSetupError {}

impl Outbound {
    /// Makes the client.
    ///
    /// # Errors
    /// The CA file cannot be read or holds no certificate; the proxy is not one.
    pub fn new(config: &OutboundConfig) -> Result<Outbound, OutboundSetupError> {
        let mut builder = client(tls(config)?);
        if let Some(proxy) = &config.proxy {
            let proxy = reqwest::Proxy::all(proxy.expose())
                .map_err(|error| setup_error("outbound.proxy", error.without_url().to_string()))?;
            builder = builder.proxy(proxy);
        }
        Outbound::made(builder, MAX_ANSWER_BYTES, advice)
    }

    /// Makes the client with which a command talks to a server of the operator's own.
    ///
    /// # Errors
    /// A file of `trust` cannot be read or holds no certificate.
    pub fn to_server(trust: &Trust) -> Result<Outbound, OutboundSetupError> {
        Outbound::made(client(trust.tls()?), MAX_STATUS_BYTES, trust::advice)
    }

    fn made(
        builder: reqwest::ClientBuilder,
        most: usize,
        advice: Advice,
    ) -> Result<Outbound, OutboundSetupError> {
        let client = builder
            .build()
            .map_err(|error| setup_error("outbound", error.without_url().to_string()))?;
        Ok(Outbound { client, most, advice })
    }

    /// Makes one request and reads the whole answer, all within its timeout.
    ///
    /// # Errors
    /// See [`OutboundError`]. A status other than 200 is an answer, not an error.
    pub async fn exchange(&self, request: Request) -> Result<Answer, OutboundError> {
        let Request { method, url, headers, basic, body, timeout } = request;
        let mut builder = match method {
            Method::Get => self.client.get(url),
            Method::Post => self.client.post(url),
        };
        if let Some((user, password)) = &basic {
            builder = builder.basic_auth(user.expose(), Some(password.expose()));
        }
        if let Some(Payload { content_type, bytes }) = body {
            builder = builder.header(CONTENT_TYPE, content_type).body(Bytes::from_owner(bytes));
        }
        builder = builder.headers(header_map(&headers)?);
        let mut response =
            builder.timeout(timeout).send().await.map_err(|error| self.wrong(error))?;
        let status = response.status().as_u16();
        let date = text_of(&response, DATE).and_then(|text| httpdate::parse_http_date(text).ok());
        let retry_after = text_of(&response, RETRY_AFTER).and_then(|text| retry_after(text, date));
        if response.content_length().is_some_and(|length| length > self.most as u64) {
            return Err(OutboundError::TooLarge);
        }
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.wrong(error))? {
            if body.len() + chunk.len() > self.most {
                return Err(OutboundError::TooLarge);
            }
            append(&mut body, &chunk);
        }
        Ok(Answer { status, body, date, retry_after })
    }

    /// reqwest's errors print the whole URL, and WeChat's carries the app secret.
    fn wrong(&self, error: reqwest::Error) -> OutboundError {
        let error = error.without_url();
        if error.is_connect() {
            let words = innermost(&error, self.advice);
            let is_of_tls = cause_of::<rustls::Error>(&error).is_some();
            if is_of_tls { OutboundError::NoTls(words) } else { OutboundError::NotConnected(words) }
        } else if error.is_timeout() {
            OutboundError::TimedOut
        } else {
            OutboundError::Broken(innermost(&error, self.advice))
        }
    }
}

/// What every client is like.
fn client(tls: rustls::ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("wechat-token-server/", env!("CARGO_PKG_VERSION")))
        // An answer that points elsewhere would send the secret there.
        .redirect(reqwest::redirect::Policy::none())
        // The engine alone decides when a request is made again: each may kill a token.
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(1)
        // The environment's proxies are for other programs.
        .no_proxy()
}

/// Appends, and leaves no copy behind where it has to make room.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = body.len() + chunk.len();
    if needed > body.capacity() {
        let room = needed.max(2 * body.capacity());
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

fn header_map(headers: &[(String, Secret)]) -> Result<HeaderMap, OutboundError> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let wrong = |_| OutboundError::CannotSend(format!("header {name} is none"));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong(()))?;
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| wrong(()))?;
        // Keeps it out of the transport's own logs.
        value.set_sensitive(true);
        map.insert(key, value);
    }
    Ok(map)
}

fn text_of(response: &reqwest::Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// A `Retry-After`, in seconds or as an instant in the upstream's time: RFC 9110, section 10.2.3.
fn retry_after(text: &str, date: Option<SystemTime>) -> Option<Duration> {
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(date?).ok(),
    }
}

fn setup_error(setting: &'static str, message: impl Into<String>) -> OutboundSetupError {
    OutboundSetupError { setting, message: message.into() }
}

/// TLS that trusts Mozilla's roots, built in, and the configured ones beside them.
fn tls(config: &OutboundConfig) -> Result<rustls::ClientConfig, OutboundSetupError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = &config.ca_file {
        for certificate in trust::certificates("outbound.ca_file", path)? {
            roots.add(certificate).map_err(|error| {
                let what = format!(
                    "{} holds a certificate that cannot be used: {error}; have it made anew",
                    path.display()
                );
                setup_error("outbound.ca_file", what)
            })?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup_error("outbound", error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The words of the cause behind all causes: the outer ones only say that something failed. Where it
/// is one of TLS, what to do as well.
fn innermost(error: &(dyn std::error::Error + 'static), advice: Advice) -> String {
    let last = last_cause(error);
    match cause_of(error).and_then(advice) {
        Some(advice) => format!("{last}; {advice}"),
        None => last.to_string(),
    }
}

/// The cause behind all causes, where it is of this kind.
fn cause_of<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    cause_in(last_cause(error)).downcast_ref()
}

fn last_cause<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

/// What an I/O error is made of, which it does not name as its source.
fn cause_in<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => cause_in(inner),
        None => error,
    }
}

/// What to do about a host that TLS was not agreed on with.
fn advice(error: &rustls::Error) -> Option<&'static str> {
    look::obstacle(error).and_then(Obstacle::advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together_in_order() {
        let mut body = Zeroizing::new(Vec::new());
        let chunks = [&b"a"[..], b"", b"bcd", &[b'e'; 5_000], b"f"];
        chunks.iter().for_each(|chunk| append(&mut body, chunk));
        assert_eq!(*body, chunks.concat());
    }

    #[test]
    fn what_is_wrong_with_a_ca_file_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let pem = |what, body| format!("-----BEGIN {what}-----\n{body}\n-----END {what}-----\n");
        let none =
            "holds no certificate in PEM (-----BEGIN CERTIFICATE-----); name a file that does; ";
        for (content, words) in [
            (String::new(), none),
            ("0\u{82}\u{1}\n".into(), none),
            (pem("PRIVATE KEY", "AAAA"), none),
            (pem("CERTIFICATE", "AAAA"), "holds a certificate that cannot be used: "),
            (pem("CERTIFICATE", "?"), "is damaged: "),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n".into(), "is cut off: its last line is not"),
        ] {
            std::fs::write(&path, &content).unwrap();
            let config = OutboundConfig { ca_file: Some(path.clone()), proxy: None };
            let told = tls(&config).unwrap_err().to_string();
            let begin = format!("outbound.ca_file: {} {words}", path.display());
            assert!(told.starts_with(&begin), "{content:?}: {told}");
            assert!(told.contains("; "), "what to do: {told}");
        }
    }

    #[test]
    fn a_retry_after_is_seconds_or_an_instant_of_the_upstreams_clock() {
        let date = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").ok();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(retry_after("120", None), seconds(120));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", date), seconds(60));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", None), None);
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", date), None);
        assert_eq!(retry_after("soon", date), None);
        assert_eq!(retry_after("-1", date), None);
    }
}
