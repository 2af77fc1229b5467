//! An upstream whose certificate is not to be trusted: nothing is sent to it, the operator is told why
//! and what to do, and a good token is served on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use wechat_token_server::sandbox::{Endpoint, Settings, Verdict};

use crate::support::certificates::{Authority, Made, NAME, self_signed};
use crate::support::{NO_COOLDOWN, binary, config_text, force, run_text, served, soon, upstream};

/// What stands before the stand-in for WeChat and speaks TLS, with a certificate that can be changed.
pub(crate) struct Front {
    address: SocketAddr,
    /// A change ends the connections that are there, so that the next request meets it.
    server: watch::Sender<Arc<ServerConfig>>,
}

fn server(made: &Made) -> Arc<ServerConfig> {
    let cert = CertificateDer::from_pem_slice(made.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key);
    Arc::new(server.unwrap())
}

impl Front {
    pub(crate) async fn start(made: &Made, wechat: SocketAddr) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, current) = watch::channel(server(made));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut current = current.clone();
                let acceptor = TlsAcceptor::from(Arc::clone(&current.borrow_and_update()));
                tokio::spawn(async move {
                    // An error: the client refuses the certificate, which is what is tested.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut wechat = TcpStream::connect(wechat).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut stream, &mut wechat) => {}
                        _ = current.changed() => {}
                    }
                });
            }
        });
        Front { address, server: sender }
    }

    pub(crate) fn change_to(&self, made: &Made) {
        self.server.send_replace(server(made));
    }
}

/// A config that fetches over TLS from the front, and trusts this authority beside those of the web.
pub(crate) fn text(front: &Front, wechat: SocketAddr, dir: &Path, authority: &Authority) -> String {
    let ca = dir.join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let extra = format!(r#"log: (format: "json"), outbound: (ca_file: {ca:?}), {NO_COOLDOWN}"#);
    let port = front.address.port();
    config_text(wechat, dir, &extra)
        .replace(&format!("http://{wechat}"), &format!("https://{NAME}:{port}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_with_a_bad_certificate_is_refused_and_a_good_token_is_served_on() {
    let authority = Authority::new();
    for (made, cause, remedy) in [
        (authority.made(NAME, [2000, 2001]), "expired", "clock"),
        (authority.made(NAME, [2090, 2100]), "not valid yet", "clock"),
        (authority.made("elsewhere.example", [2020, 2100]), "not valid for name", "url"),
        (self_signed(NAME), "UnknownIssuer", "outbound.ca_file"),
        (Authority::new().server(), "UnknownIssuer", "outbound.ca_file"),
    ] {
        let wechat = upstream(Settings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let front = Front::start(&authority.server(), wechat.address()).await;
        let text = text(&front, wechat.address(), dir.path(), &authority);
        let ours = run_text(binary(), dir.path(), &text).await;
        served(ours.http, "ticket", None).await;
        front.change_to(&made);
        // A request may still have met the end of a connection that is kept.
        let refused = async {
            while !force(ours.http, "access_token").await.contains("cannot be reached") {}
        };
        soon("the refusal", refused).await;
        let sent = wechat.calls(Endpoint::Token);
        let told = force(ours.http, "access_token").await;
        assert!(told.contains("errmsg") && wechat.calls(Endpoint::Token) == sent, "{told}");
        ours.logged(cause, 1).await;
        let log = ours.log();
        let line = log.lines().find(|line| line.contains(cause));
        let line = line.unwrap_or_else(|| panic!("no {cause} in {log}"));
        assert!(line.contains(remedy), "{line}");
        let token = served(ours.http, "access_token", None).await;
        assert!(matches!(wechat.accepts(&token), Verdict::Live { .. }));
        wechat.stop().await;
    }
}
