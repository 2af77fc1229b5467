//! Certificates made on the spot, the files they are put into, and clients that trust them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::soon;

/// The name that servers of these tests have.
pub(crate) const NAME: &str = "localhost";

/// Makes certificates that others trust who trust it.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its private key, both in PEM.
pub(crate) struct Made {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        // Each has a name of its own: by that a client tells whom to trust.
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("Authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of a server of this name, good from one year to another.
    pub(crate) fn made(&self, name: &str, years: [i32; 2]) -> Made {
        let key = KeyPair::generate().unwrap();
        let cert = params(name, years).signed_by(&key, &self.0).unwrap();
        Made { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A good one of [`NAME`].
    pub(crate) fn server(&self) -> Made {
        self.made(NAME, [2020, 2100])
    }

    /// A client's.
    pub(crate) fn client(&self) -> Made {
        let key = KeyPair::generate().unwrap();
        let mut params = params("client", [2020, 2100]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.0).unwrap();
        Made { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// A certificate that nobody vouches for but itself.
pub(crate) fn self_signed(name: &str) -> Made {
    let key = KeyPair::generate().unwrap();
    let cert = params(name, [2020, 2100]).self_signed(&key).unwrap();
    Made { cert: cert.pem(), key: key.serialize_pem() }
}

fn params(name: &str, [begin, end]: [i32; 2]) -> CertificateParams {
    let names = [name.to_owned(), "127.0.0.1".to_owned()];
    let names = if name == NAME { &names[..] } else { &names[..1] };
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(begin, 1, 1);
    params.not_after = rcgen::date_time_ymd(end, 1, 1);
    params
}

impl Made {
    /// Puts both into files of a directory; a setting that names them.
    pub(crate) fn setting(&self, dir: &Path) -> String {
        let (cert, key) = (dir.join("server.pem"), dir.join("server.key"));
        std::fs::write(&key, &self.key).unwrap();
        std::fs::write(&cert, &self.cert).unwrap();
        format!("tls: (cert: {cert:?}, key: {key:?})")
    }
}

/// A client over TLS.
#[derive(Clone)]
pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    /// One that trusts this authority, and shows `own` if it is asked for a certificate.
    pub(crate) fn new(authority: &Authority, own: Option<&Made>) -> Client {
        Client::of_versions(authority, own, rustls::DEFAULT_VERSIONS)
    }

    pub(crate) fn of_versions(
        authority: &Authority,
        own: Option<&Made>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(Made { cert, key }) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        Client(Arc::new(config))
    }

    /// A client that offers this by ALPN.
    pub(crate) fn offering(&self, alpn: &[&[u8]]) -> Client {
        let mut config = (*self.0).clone();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Client(Arc::new(config))
    }

    /// Connects. What a server has against the client's certificate comes with the first read.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = soon("a connection", TcpStream::connect(address)).await?;
        let name = NAME.try_into().unwrap();
        let connect = TlsConnector::from(Arc::clone(&self.0)).connect(name, stream);
        soon("a handshake", connect).await
    }
}
