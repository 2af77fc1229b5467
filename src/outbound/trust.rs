//! Whom a command believes that it talks to, and what it shows of itself: TLS of requests to a server of
//! the operator's own. (What an upstream is believed by is in `outbound`.)

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    Error, RootCertStore, SignatureScheme, StreamOwned,
};

use super::{OutboundError, OutboundSetupError, cause_of, innermost, setup_error};

/// What a server is believed by, and what it is shown.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// A PEM file with the one certificate that is right, whatever names are in it: the very file that
    /// the server serves. Nothing else is believed then.
    pub exactly: Option<PathBuf>,
    /// A PEM file of authorities beside Mozilla's, or of the server's own certificate.
    pub beside: Option<PathBuf>,
    /// A PEM file with a certificate and its private key, for a server that asks for one.
    pub identity: Option<PathBuf>,
}

/// The flags by which an operator names the files.
const CA: &str = "--ca";
const IDENTITY: &str = "--identity";

impl Trust {
    /// TLS by these files.
    pub(super) fn tls(&self) -> Result<ClientConfig, OutboundSetupError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let no_tls = |error: &dyn std::fmt::Display| setup_error("TLS", error.to_string());
        let verifier = match &self.exactly {
            Some(path) => {
                Believed { known: certificates("http.tls.cert", path)?, otherwise: None, provider }
            }
            None => {
                let mut roots = RootCertStore::empty();
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                let known = match &self.beside {
                    Some(path) => certificates(CA, path)?,
                    None => Vec::new(),
                };
                for certificate in &known {
                    // One that is no authority is believed when it is the server's own.
                    let _ = roots.add(certificate.clone());
                }
                let otherwise =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                        .build()
                        .map_err(|error| no_tls(&error))?;
                Believed { known, otherwise: Some(otherwise), provider }
            }
        };
        let builder = ClientConfig::builder_with_provider(verifier.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| no_tls(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let Some(path) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(IDENTITY, path)?;
        let wrong = |error: &dyn std::fmt::Display| {
            setup_error(IDENTITY, format!("{} {error}", path.display()))
        };
        let key = PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
            pem::Error::NoItemsFound => wrong(
                &"holds no private key in PEM (-----BEGIN PRIVATE KEY-----); put it there, after the certificate",
            ),
            error => wrong(&format_args!("is damaged: {error}; write it anew")),
        })?;
        builder.with_client_auth_cert(chain, key).map_err(|error| {
            wrong(&format_args!(
                "holds a certificate and a key that cannot be used: {error}; have them made anew"
            ))
        })
    }

    /// Encrypts a connection to `host`; `in_the_clear` is what to say of a server that does not know TLS.
    ///
    /// # Errors
    /// A file cannot be used, `host` is no name of one, or TLS is not agreed on.
    pub fn encrypt(
        &self,
        host: &str,
        mut stream: TcpStream,
        in_the_clear: &'static str,
    ) -> Result<impl io::Read + io::Write + use<>, OutboundError> {
        let cannot = |words: String| OutboundError::CannotSend(words);
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare)
            .map_err(|_| cannot(format!("{host} is no name of a host")))?;
        let tls = self.tls().map_err(|error| cannot(error.to_string()))?;
        let mut connection = ClientConnection::new(Arc::new(tls), name)
            .map_err(|error| cannot(error.to_string()))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(|error| {
                OutboundError::NoTls(match (error.kind(), cause_of(&error)) {
                    // The read timeout is over: the hello was taken for a command that goes on.
                    (io::ErrorKind::WouldBlock, _) | (_, Some(Error::InvalidMessage(_))) => {
                        in_the_clear.to_owned()
                    }
                    _ => innermost(&error, advice),
                })
            })?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}

/// The certificates of a PEM file; there is at least one.
pub(super) fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, OutboundSetupError> {
    let wrong = |message: &dyn std::fmt::Display| {
        setup_error(setting, format!("{} {message}", path.display()))
    };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| match error {
            pem::Error::Io(error) => wrong(&format_args!("cannot be read: {error}")),
            pem::Error::MissingSectionEnd { .. } => {
                wrong(&"is cut off: its last line is not -----END CERTIFICATE-----; write it anew")
            }
            error => wrong(&format_args!("is damaged: {error}; write it anew")),
        })?;
    if found.is_empty() {
        return Err(wrong(
            &"holds no certificate in PEM (-----BEGIN CERTIFICATE-----); name a file that does; of one in DER, \
              `openssl x509 -inform der` makes it",
        ));
    }
    Ok(found)
}

/// Believes certificates that are known as they are, and others where something else vouches for them.
#[derive(Debug)]
struct Believed {
    known: Vec<CertificateDer<'static>>,
    otherwise: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Who has its private key is the server: its names and its end are for those who do not know it.
        if self.known.iter().any(|known| known == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.otherwise {
            Some(otherwise) => otherwise.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What to do about a server that TLS was not agreed on with.
pub(super) fn advice(error: &Error) -> Option<&'static str> {
    use CertificateError::{
        ApplicationVerificationFailure, Expired, ExpiredContext, NotValidForName,
        NotValidForNameContext, NotValidYet, NotValidYetContext,
    };
    Some(match error {
        Error::InvalidCertificate(ApplicationVerificationFailure) => {
            "it shows another certificate than http.tls.cert holds now: find out who answers there, or \
             have the server read its files again"
        }
        Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => "is this machine's clock right? If so, renew the server's certificate",
        Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "use a name that is in its certificate, or name that very certificate with --ca"
        }
        Error::InvalidCertificate(_) => {
            "if the server is yours, name its certificate or its authority with --ca"
        }
        Error::InvalidMessage(_) => {
            "it does not speak TLS at that port; write http:// if that is right"
        }
        Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
        ) => "it asks for a client's certificate (http.tls.client_ca): show one with --identity",
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied,
        ) => {
            "it refuses the certificate of --identity: show one of an authority in http.tls.client_ca"
        }
        _ => return None,
    })
}
