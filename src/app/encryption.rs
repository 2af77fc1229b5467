//! The certificates of both listeners: read at the start, by `check` and by a reload; watched in
//! between.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use crate::clock::SharedClock;
use crate::config::{Config, Mistake, TlsConfig};
use crate::http;
use crate::resp;
use crate::shutdown::Drain;
use crate::tls::{Handshakes, Listener, Loaded, Tls};

/// What the certificate files of both listeners hold.
#[derive(Debug)]
pub struct Certificates {
    http: Option<Loaded>,
    resp: Option<Loaded>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn read(config: &Config) -> Result<Certificates, Vec<Mistake>> {
        let mut all = Vec::new();
        let mut read =
            |listener: &Listener, files: Option<&TlsConfig>| match Loaded::read(listener, files?) {
                Ok(loaded) => Some(loaded),
                Err(mistakes) => {
                    all.extend(mistakes);
                    None
                }
            };
        let http = read(&http::TLS, config.http.tls.as_ref());
        let resp = read(&resp::TLS, config.resp.as_ref().and_then(|resp| resp.tls.as_ref()));
        if all.is_empty() { Ok(Certificates { http, resp }) } else { Err(all) }
    }

    /// How long each is good for, a line each.
    pub fn lives(&self, now: SystemTime) -> String {
        let (http, resp) = (self.http.as_ref(), self.resp.as_ref());
        let lines = [(&http::TLS, http), (&resp::TLS, resp)].map(|(listener, loaded)| {
            loaded.map_or_else(String::new, |loaded| {
                format!("tls      {}.cert {}\n", listener.setting, loaded.told(now))
            })
        });
        lines.concat()
    }
}

/// TLS of the listeners that have it.
#[derive(Debug)]
pub(super) struct Encryption {
    pub(super) http: Option<Tls>,
    pub(super) resp: Option<Tls>,
}

impl Encryption {
    /// Serves these certificates, and others when their files change, until the drain begins.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn begin(
        certificates: Certificates,
        clock: &SharedClock,
        drain: &Drain,
    ) -> io::Result<Encryption> {
        let Certificates { http, resp } = certificates;
        if http.is_none() && resp.is_none() {
            return Ok(Encryption { http: None, resp: None });
        }
        let handshakes = Handshakes::start()?;
        let begin = |listener, loaded: Option<Loaded>| {
            let tls = Tls::new(listener, loaded?, clock.clone(), Arc::clone(&handshakes));
            drain.spawn(tls.clone().watch(drain.clone()));
            Some(tls)
        };
        Ok(Encryption { http: begin(&http::TLS, http), resp: begin(&resp::TLS, resp) })
    }

    /// Goes over to other certificates, where the listener has TLS and is to have it.
    pub(super) fn replace(&self, certificates: Certificates) {
        let pairs = [(&self.http, certificates.http), (&self.resp, certificates.resp)];
        for (tls, loaded) in pairs {
            if let (Some(tls), Some(loaded)) = (tls, loaded) {
                tls.replace(loaded);
            }
        }
    }
}
