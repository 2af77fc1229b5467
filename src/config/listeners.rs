//! The settings of both listeners: where they listen, whom they admit, what they speak.

use std::net::SocketAddr;
use std::time::Duration;

use super::lower::Lowering;
use super::raw::{RawHttp, RawResp, RawTls};
use super::{HttpConfig, RespConfig, TlsConfig, Writes};

/// The most connections a listener can be told to serve: more descriptors than any kernel grants
/// by default, so a larger number is a slip.
const MAX_CONNECTIONS: usize = 1_000_000;

/// How many of them one address may have where nothing is said: a tenth of the places, so that one
/// stranger takes neither all of them nor the memory of a small machine. More than any one business
/// server needs; those behind one NAT address may need more.
const PER_ADDRESS: usize = 1_000;

/// What becomes of a write over the Redis protocol.
const WRITES: &[(&str, Writes)] = &[("Refuse", Writes::Refuse), ("Report", Writes::Report)];

impl Lowering<'_> {
    pub(super) fn http(&mut self, raw: RawHttp) -> HttpConfig {
        let config = HttpConfig {
            bind: self.address("http.bind", raw.bind, SocketAddr::from(([127, 0, 0, 1], 12123))),
            max_connections: self.count(
                "http.max_connections",
                raw.max_connections,
                10_000,
                MAX_CONNECTIONS,
            ),
            max_connections_per_address: self.count(
                "http.max_connections_per_address",
                raw.max_connections_per_address,
                PER_ADDRESS,
                MAX_CONNECTIONS,
            ),
            header_timeout: self.positive_duration(
                "http.header_timeout",
                raw.header_timeout,
                Duration::from_secs(10),
            ),
            idle_timeout: self.positive_duration(
                "http.idle_timeout",
                raw.idle_timeout,
                Duration::from_secs(60),
            ),
            secret_parameter: self.flag("http.secret_parameter", raw.secret_parameter, true),
            ui: self.flag("http.ui", raw.ui, true),
            trusted_proxies: self
                .networks("http.trusted_proxies", raw.trusted_proxies)
                .unwrap_or_default(),
            tls: self.tls("http.tls", raw.tls),
        };
        self.advise_on_plain_text("http", config.bind, config.tls.as_ref());
        config
    }

    /// Advises on tokens and keys that others on the way can read.
    fn advise_on_plain_text(&mut self, listener: &str, bind: SocketAddr, tls: Option<&TlsConfig>) {
        if tls.is_none() && !bind.ip().is_loopback() {
            let what = "is reachable from other machines, and all that is said there can be read on the way";
            let remedy =
                format!("set {listener}.tls, or put a TLS proxy before it and bind to 127.0.0.1");
            let zh = format!(
                "其他机器可以访问，且传输内容可被窃听；请设置 {listener}.tls，或在前面放置 TLS 代理并绑定到 127.0.0.1"
            );
            self.advise(format!("{listener}.bind"), (format!("{what}; {remedy}"), zh));
        }
    }

    /// The files of a listener that speaks TLS; the certificate and its key come together.
    fn tls(&mut self, path: &str, raw: Option<RawTls>) -> Option<TlsConfig> {
        let raw = raw?;
        let at = |name: &str| format!("{path}.{name}");
        for (name, setting, what) in
            [("cert", &raw.cert, "certificate and its chain"), ("key", &raw.key, "private key")]
        {
            if setting.is_none() {
                self.mistake(at(name), format!("is missing; name the PEM file of the {what}"));
            }
        }
        let cert = self.path(&at("cert"), raw.cert);
        let key = self.path(&at("key"), raw.key);
        self.exposure.note(&at("key"), "", key.iter().cloned().collect());
        let client_ca = self.path(&at("client_ca"), raw.client_ca);
        Some(TlsConfig { cert: cert?, key: key?, client_ca })
    }

    pub(super) fn resp(
        &mut self,
        raw: RawResp,
        http: &HttpConfig,
        has_clients: bool,
    ) -> Option<RespConfig> {
        let enabled = self.flag("resp.enabled", raw.enabled, true);
        // Whether a password is *meant* to be set: one that could not be read is its own mistake.
        let has_password = raw.password.is_some() || has_clients;
        let config = RespConfig {
            bind: self.address("resp.bind", raw.bind, SocketAddr::from(([127, 0, 0, 1], 6379))),
            password: self.key("resp.password", raw.password),
            max_connections: self.count(
                "resp.max_connections",
                raw.max_connections,
                10_000,
                MAX_CONNECTIONS,
            ),
            max_connections_per_address: self.count(
                "resp.max_connections_per_address",
                raw.max_connections_per_address,
                PER_ADDRESS,
                MAX_CONNECTIONS,
            ),
            idle_timeout: self.duration("resp.idle_timeout", raw.idle_timeout, Duration::ZERO),
            writes: raw
                .writes
                .and_then(|choice| self.choice("resp.writes", &choice, WRITES))
                .unwrap_or(Writes::Refuse),
            notify: self.flag("resp.notify", raw.notify, true),
            tls: self.tls("resp.tls", raw.tls),
        };
        if !enabled {
            return None;
        }
        if !config.bind.ip().is_loopback() && !has_password {
            self.mistake(
                "resp.bind",
                "is reachable from other machines, so resp.password or clients must be set (or bind to 127.0.0.1)",
            );
        }
        if config.bind == http.bind && config.bind.port() != 0 {
            self.mistake("resp.bind", "is the address of http.bind; give them different ports");
        }
        self.advise_on_plain_text("resp", config.bind, config.tls.as_ref());
        Some(config)
    }
}
