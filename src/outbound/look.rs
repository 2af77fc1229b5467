//! A look at a host: whether it can be reached, what is in the way, what time it is there. Sends nothing secret.

use std::time::{Duration, SystemTime};

use reqwest::header::DATE;
use url::Url;

use super::{Outbound, cause_in, text_of};

/// What lies between here and a host that was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Its certificate has ended, or has not begun, by this machine's clock.
    OutOfDate,
    /// Its certificate is another host's.
    AnotherName,
    /// Nobody who is trusted here speaks for its certificate.
    Untrusted,
    /// It does not speak TLS.
    NotTls,
    /// No connection: no name, no route, nobody listens, or the handshake broke off.
    NoConnection,
    /// The time was up.
    Silence,
    /// It has hung up.
    Broken,
}

impl Obstacle {
    /// What to do about a host that TLS was not agreed on with.
    pub(super) fn advice(self) -> Option<&'static str> {
        Some(match self {
            Obstacle::OutOfDate => {
                "is this machine's clock right? If so, the host has to renew its certificate"
            }
            Obstacle::AnotherName => {
                "correct the host in url, or find out who answers in its place"
            }
            Obstacle::Untrusted => {
                "if the host or a proxy before it is yours, put its authority into outbound.ca_file; else \
                 find out who answers in its place"
            }
            Obstacle::NotTls => "the host does not speak TLS at that port",
            Obstacle::NoConnection | Obstacle::Silence | Obstacle::Broken => return None,
        })
    }
}

/// What TLS was not agreed on for, where there is something to be done about it.
pub(super) fn obstacle(error: &rustls::Error) -> Option<Obstacle> {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext,
    };
    Some(match error {
        rustls::Error::InvalidCertificate(error) => match error {
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
                Obstacle::OutOfDate
            }
            NotValidForName | NotValidForNameContext { .. } => Obstacle::AnotherName,
            _ => Obstacle::Untrusted,
        },
        rustls::Error::InvalidMessage(_) => Obstacle::NotTls,
        _ => return None,
    })
}

/// Why a host was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// What is in the way.
    pub obstacle: Obstacle,
    /// The same in the transport's words, without the address.
    pub words: String,
}

impl Unreached {
    fn of(error: reqwest::Error) -> Unreached {
        let error = error.without_url();
        let mut cause: &(dyn std::error::Error + 'static) = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let by_kind = match (error.is_timeout(), error.is_connect()) {
            (true, _) => Obstacle::Silence,
            (false, true) => Obstacle::NoConnection,
            (false, false) => Obstacle::Broken,
        };
        let of_tls = cause_in(cause).downcast_ref().and_then(obstacle);
        Unreached { obstacle: of_tls.unwrap_or(by_kind), words: cause.to_string() }
    }
}

impl Outbound {
    /// Asks for `url`, which holds nothing secret, and does not read what it gives: what time it is there, by
    /// the `Date` of the answer. Any status is an answer.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn look(&self, url: Url, timeout: Duration) -> Result<Option<SystemTime>, Unreached> {
        let response = self.client.get(url).timeout(timeout).send().await;
        let response = response.map_err(Unreached::of)?;
        Ok(text_of(&response, DATE).and_then(|date| httpdate::parse_http_date(date).ok()))
    }
}
