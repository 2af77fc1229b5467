//! Sessions over TLS, whose replies are held back in two places: here and in TLS.

use std::fs;

use rustls::pki_types::CertificateDer;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::TlsConfig;
use crate::resp::TLS;
use crate::tls::{Handshakes, Loaded};

/// A server over TLS, and the certificate it has.
async fn start() -> (Server, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let loaded = Loaded::read(&TLS, &TlsConfig { cert, key, client_ca: None }).unwrap();
    let handshakes = Handshakes::start().unwrap();
    let tls = Some(Tls::new(&TLS, loaded, SystemClock::shared(), handshakes));
    (Setup { tls, ticking: true, ..Setup::default() }.start().await, made.cert.der().clone())
}

/// Connects with a small window.
async fn connect(server: &Server, trusted: CertificateDer<'static>) -> TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(server.address).await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), socket).await.unwrap()
}

#[tokio::test]
async fn what_tls_holds_back_is_sent_when_there_is_room() {
    const TIMES: usize = 5_000;
    const REPLY: &[u8] = b"$10\r\ntokenvalue\r\n";
    let (server, trusted) = start().await;
    let mut stream = connect(&server, trusted).await;
    stream.write_all("GET access_token\r\n".repeat(TIMES).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut got = vec![0; REPLY.len() * TIMES];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut got));
    read.await.expect("the rest is held back").unwrap();
    assert!(got.chunks(REPLY.len()).all(|reply| reply == REPLY));
    server.drain.begin();
    // A close_notify: without one, this would be an error.
    assert_eq!(stream.read(&mut got).await.unwrap(), 0);
}

#[tokio::test]
async fn at_the_drain_all_that_is_owed_is_sent_before_the_close_notify() {
    const TIMES: usize = 2_000;
    let (server, trusted) = start().await;
    let mut stream = connect(&server, trusted).await;
    let request = "GET access_token\r\n".repeat(TIMES);
    stream.write_all(request.as_bytes()).await.unwrap();
    // The first reply: from now on the server is at it, and stands still at a full socket.
    let mut got = vec![0; 17];
    stream.read_exact(&mut got).await.unwrap();
    server.drain.begin();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    let whole = rest.len() % 17 == 0 && rest.chunks(17).all(|reply| reply == got);
    assert!(whole && !rest.is_empty(), "{} bytes", rest.len());
}
