//! From the files that the config names to what is served with them, with every mistake by the path
//! of its setting. The text of a key is wiped once it has been read.

use std::fmt::Display;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use zeroize::{Zeroize, Zeroizing};

use super::Listener;
use super::certificate::{Life, Validity};
use crate::config::{Mistake, TlsConfig};

/// What the files of a listener held, ready to be served.
#[derive(Debug)]
pub struct Loaded {
    pub(super) files: TlsConfig,
    /// As they were before they were read: what has changed since has to be read again.
    pub(super) seen: Seen,
    pub(super) server: Arc<ServerConfig>,
    pub(super) validity: Validity,
}

impl Loaded {
    /// Reads the files.
    ///
    /// # Errors
    /// Every mistake in them, by the path of the setting that names the file.
    pub fn read(listener: &Listener, files: &TlsConfig) -> Result<Loaded, Vec<Mistake>> {
        let seen = Seen::of(files);
        let mut reading = Reading { listener, mistakes: Vec::new() };
        let chain = reading.certificates("cert", &files.cert);
        let key = reading.key(&files.key);
        let verifier = files.client_ca.as_deref().map(|path| reading.client_verifier(path));
        let certified = match (chain, key) {
            (Some(chain), Some(key)) => reading.certified(files, chain, key),
            _ => None,
        };
        let (Some((certified, validity)), true) = (certified, reading.mistakes.is_empty()) else {
            return Err(reading.mistakes);
        };
        match server(listener, certified, verifier.flatten()) {
            Ok(server) => {
                Ok(Loaded { files: files.clone(), seen, server: Arc::new(server), validity })
            }
            Err(error) => Err(vec![Mistake::at(listener.setting, format!("no TLS: {error}"))]),
        }
    }

    /// How far the certificate is in its life.
    pub fn life(&self, now: SystemTime) -> Life {
        self.validity.at(now)
    }

    /// From when to when it is good, in UTC.
    pub fn span(&self) -> (String, String) {
        (self.validity.begin.to_string(), self.validity.end.to_string())
    }

    /// How long the certificate is good for, in words.
    pub fn told(&self, now: SystemTime) -> String {
        let Validity { begin, end } = self.validity;
        match self.life(now) {
            Life::Good => format!("is good until {end}"),
            Life::Ending => format!("is good until {end}; renew it"),
            Life::Ended => format!("has expired: it was good until {end}; renew it"),
            Life::NotBegun => format!("is not good before {begin}; is this machine's clock right?"),
        }
    }
}

/// Reads files and collects what is wrong with them.
struct Reading<'a> {
    listener: &'a Listener,
    mistakes: Vec<Mistake>,
}

impl Reading<'_> {
    fn mistake(&mut self, setting: &str, path: &Path, message: impl Display) {
        let setting = format!("{}.{setting}", self.listener.setting);
        self.mistakes.push(Mistake::at(setting, format!("{}: {message}", path.display())));
    }

    fn bytes(&mut self, setting: &str, path: &Path) -> Option<Zeroizing<Vec<u8>>> {
        let what_to_do = |error: &io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => "; let the server's user read it",
            io::ErrorKind::NotFound => "; a relative path starts at the config file",
            _ => "",
        };
        match fs::read(path) {
            Ok(bytes) => Some(Zeroizing::new(bytes)),
            Err(error) => {
                let message = format!("cannot be read: {error}{}", what_to_do(&error));
                self.mistake(setting, path, message);
                None
            }
        }
    }

    /// The certificates of a file; there is at least one.
    fn certificates(&mut self, setting: &str, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.bytes(setting, path)?;
        match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
            Ok(certificates) if !certificates.is_empty() => Some(certificates),
            Ok(_) => {
                let what = "holds no certificate in PEM (-----BEGIN CERTIFICATE-----); of one in DER, \
                    `openssl x509 -inform der` makes it";
                self.mistake(setting, path, what);
                None
            }
            // Its own words are of bytes.
            Err(pem::Error::MissingSectionEnd { .. }) => {
                self.mistake(setting, path, "is cut off: an END line is missing; write it anew");
                None
            }
            Err(error) => {
                self.mistake(setting, path, format_args!("is damaged: {error}; write it anew"));
                None
            }
        }
    }

    fn key(&mut self, path: &Path) -> Option<Arc<dyn SigningKey>> {
        let bytes = self.bytes("key", path)?;
        let Ok(mut der) = PrivateKeyDer::from_pem_slice(&bytes) else {
            let encrypted = bytes.windows(9).any(|word| word == b"ENCRYPTED");
            self.mistake("key", path, if encrypted {
                "is encrypted, and nobody is there to type its password; `openssl pkey` writes it in the clear"
            } else {
                "holds no private key in PEM (-----BEGIN PRIVATE KEY-----)"
            });
            return None;
        };
        let key = crypto::ring::sign::any_supported_type(&der);
        der.zeroize();
        if key.is_err() {
            let what = "is a key of a kind that is not supported; use ECDSA (P-256, P-384), Ed25519, or RSA of \
                2048 bits or more";
            self.mistake("key", path, what);
        }
        key.ok()
    }

    /// The certificate with its key, which has to be its own, and how long it is good for.
    fn certified(
        &mut self,
        files: &TlsConfig,
        chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
    ) -> Option<(CertifiedKey, Validity)> {
        let belongs = |certificate: &CertificateDer<'static>| {
            CertifiedKey::new(vec![certificate.clone()], Arc::clone(&key)).keys_match()
        };
        match belongs(&chain[0]) {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_))
                if chain[1..].iter().any(|c| belongs(c).is_ok()) =>
            {
                let what = "its first certificate is not that of the key; put the server's own first, then those \
                    that lead to its authority";
                self.mistake("cert", &files.cert, what);
                return None;
            }
            Err(rustls::Error::InconsistentKeys(_)) => {
                let cert = files.cert.display();
                let what = format!(
                    "is not the key of the certificate in {cert}; name the one it was made with"
                );
                self.mistake("key", &files.key, what);
                return None;
            }
            Err(error) => {
                self.unusable("cert", &files.cert, &error);
                return None;
            }
        }
        let validity = Validity::of(&chain[0]);
        if validity.is_none() {
            self.mistake(
                "cert",
                &files.cert,
                "does not say how long it is good for; have it made anew",
            );
        }
        Some((CertifiedKey::new(chain, key), validity?))
    }

    fn unusable(&mut self, setting: &str, path: &Path, error: &dyn Display) {
        let what = format!("holds a certificate that cannot be used: {error}; have it made anew");
        self.mistake(setting, path, what);
    }

    fn client_verifier(&mut self, path: &Path) -> Option<Arc<dyn ClientCertVerifier>> {
        const SETTING: &str = "client_ca";
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(SETTING, path)? {
            if let Err(error) = roots.add(certificate) {
                self.unusable(SETTING, path, &error);
                return None;
            }
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        verifier.build().inspect_err(|error| self.unusable(SETTING, path, error)).ok()
    }
}

/// What connections are accepted with. A session is resumed with a ticket, which costs no memory here;
/// its key is made anew each time, so that a ticket ends with the files it was given for. Early data,
/// which can be replayed, is not taken.
fn server(
    listener: &Listener,
    certified: CertifiedKey,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    server.alpn_protocols = listener.alpn.iter().map(|name| name.to_vec()).collect();
    server.ticketer = crypto::ring::Ticketer::new()?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(server)
}

/// What tells whether files have changed, without reading them. Links are followed: certbot replaces
/// those and leaves the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen([Option<Look>; 3]);

/// One file: device, inode, length, and when its content and anything else about it changed last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    file: (u64, u64),
    length: u64,
    changed: [(i64, i64); 2],
}

impl Seen {
    pub(super) fn of(files: &TlsConfig) -> Seen {
        let look = |path: &Path| fs::metadata(path).ok().map(|metadata| Look::of(&metadata));
        let client_ca = files.client_ca.as_deref().and_then(look);
        Seen([look(&files.cert), look(&files.key), client_ca])
    }
}

impl Look {
    fn of(metadata: &Metadata) -> Look {
        Look {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            changed: [
                (metadata.mtime(), metadata.mtime_nsec()),
                (metadata.ctime(), metadata.ctime_nsec()),
            ],
        }
    }
}
