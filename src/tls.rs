//! TLS of the listeners: certificates from files, replaced while the server runs, and the handshake.
//! Knows no protocol that is spoken over it. TLS of requests to the upstream is in `outbound`.

mod certificate;
mod files;
mod handshake;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use crate::clock::SharedClock;
use crate::config::{Mistake, TlsConfig};
use crate::log_budget::LogBudget;
use crate::shutdown::Drain;

use certificate::Validity;
use files::Seen;

pub use certificate::Life;
pub use files::Loaded;
pub use handshake::Handshakes;
pub use stream::Stream;

/// How often files are looked at for a change: an inode each, so it costs nothing, and a certificate
/// is renewed days before its end.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The first byte of all that a TLS client sends: the type of a record that holds a handshake, RFC 8446,
/// section 5.1. No request in the clear begins with it.
pub const HANDSHAKE_RECORD: u8 = 0x16;

/// What a listener is called, and what is spoken on it.
#[derive(Debug)]
pub struct Listener {
    /// The setting with its files, such as `http.tls`.
    pub setting: &'static str,
    /// What is offered by ALPN; empty: nothing, and nothing is asked for.
    pub alpn: &'static [&'static [u8]],
    /// What a client is told, in the clear, that does not speak TLS.
    pub in_the_clear: &'static [u8],
}

/// TLS of one listener. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    listener: &'static Listener,
    handshakes: Arc<Handshakes>,
    /// What the next handshake uses; connections keep what they began with.
    served: ArcSwap<ServerConfig>,
    files: Mutex<Files>,
    clock: SharedClock,
    /// Of handshakes that failed.
    log: LogBudget,
}

/// The files, and how far they have been dealt with.
struct Files {
    config: TlsConfig,
    /// As they were when what is served was read from them.
    served: Seen,
    /// As they were when they were last read, with or without success.
    tried: Seen,
    validity: Validity,
    /// What the operator was last told of it.
    told: Life,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.listener.setting).finish()
    }
}

impl Tls {
    /// Serves what was loaded. Says in the log until when that is good, and what is wrong with it.
    pub fn new(
        listener: &'static Listener,
        loaded: Loaded,
        clock: SharedClock,
        handshakes: Arc<Handshakes>,
    ) -> Tls {
        loaded.log(listener);
        let Loaded { files, seen, server, validity, .. } = loaded;
        let files =
            Files { config: files, served: seen.clone(), tried: seen, validity, told: Life::Good };
        let served = ArcSwap::from(server);
        let (files, log) = (Mutex::new(files), LogBudget::default());
        let tls = Tls(Arc::new(Inner { listener, handshakes, served, files, clock, log }));
        tls.look_at_the_life(&mut tls.files());
        tls
    }

    /// Which listener it is of.
    pub fn listener(&self) -> &'static Listener {
        self.0.listener
    }

    /// Goes over to what was loaded, for connections from now on; nothing happens where it is what is
    /// served already. What is wrong with it is said in any case: somebody asked for this.
    pub fn replace(&self, loaded: Loaded) {
        let mut files = self.files();
        if files.config != loaded.files || files.served != loaded.seen {
            self.take_over(&mut files, loaded);
        }
        files.told = Life::Good;
        self.look_at_the_life(&mut files);
    }

    /// Replaces the certificate when its files change, until the drain begins.
    pub async fn watch(self, drain: Drain) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = drain.begun() => return,
            }
            let tls = self.clone();
            tokio::select! {
                // A disk may hang. An error: it panicked, and the next look may do better.
                _ = tokio::task::spawn_blocking(move || tls.look()) => {}
                () = drain.begun() => return,
            }
        }
    }

    /// Looks at the files once.
    fn look(&self) {
        let mut files = self.files();
        let seen = Seen::of(&files.config);
        if seen != files.tried {
            files.tried = seen;
            match Loaded::read(self.0.listener, &files.config) {
                Ok(loaded) => self.take_over(&mut files, loaded),
                // Also what was read between the two writes of a pair; then the next look makes it good.
                Err(mistakes) => {
                    for Mistake { path, message } in mistakes {
                        tracing::warn!(
                            setting = path,
                            mistake = message,
                            "the files of the certificate have changed and cannot be used; the one before is \
                             served on"
                        );
                    }
                }
            }
        }
        self.look_at_the_life(&mut files);
    }

    fn take_over(&self, files: &mut Files, loaded: Loaded) {
        loaded.log(self.0.listener);
        let Loaded { files: config, seen, server, validity, .. } = loaded;
        self.0.served.store(server);
        *files = Files { config, served: seen.clone(), tried: seen, validity, told: Life::Good };
    }

    /// Tells the operator when the certificate is near its end or not good, once.
    fn look_at_the_life(&self, files: &mut Files) {
        let life = files.validity.at(self.0.clock.now().wall);
        if life == std::mem::replace(&mut files.told, life) {
            return;
        }
        let Validity { begin, end } = files.validity;
        let (setting, cert) = (self.0.listener.setting, files.config.cert.display());
        match life {
            Life::Good => {}
            Life::Ending => tracing::warn!(
                setting, %cert, ends = %end,
                "the certificate ends soon and has not been replaced; renew it: new files are taken up by themselves"
            ),
            Life::Ended => tracing::warn!(
                setting, %cert, ended = %end,
                "the certificate has expired, so clients refuse it; renew it: new files are taken up by themselves"
            ),
            Life::NotBegun => tracing::warn!(
                setting, %cert, begins = %begin,
                "the certificate is not good yet, so clients refuse it; is this machine's clock right?"
            ),
        }
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        // Replaced whole; a panic between leaves what was there.
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    /// Says what will be served.
    fn log(&self, listener: &Listener) {
        let Loaded { files, validity, .. } = self;
        let setting = listener.setting;
        let client_certificates =
            if files.client_ca.is_some() { "needed" } else { "not asked for" };
        tracing::info!(
            setting, cert = %files.cert.display(), ends = %validity.end, client_certificates,
            "TLS certificate loaded"
        );
    }
}
