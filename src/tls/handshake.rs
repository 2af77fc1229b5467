//! From an accepted socket to a TLS connection, within a time; what does not come to one, and what
//! the operator is told of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::{AlertDescription, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{HANDSHAKE_RECORD, Stream, Tls};

/// How long a client that was answered in the clear may take to close: a socket closed with unread
/// bytes is reset, and a reset may overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
/// What is read of what it sent, in bytes, before it is cut off.
const LINGER_BYTES: u64 = 64 * 1024;

/// Why there is no TLS connection.
enum Failure {
    /// The peer has gone, or is a port scan or a health check that never said a word.
    Gone(io::Error),
    /// It does not speak TLS, and has been told so.
    PlainText,
    /// It speaks TLS, and the two did not agree.
    Refused(Error),
}

impl Tls {
    /// Makes a TLS connection of a fresh one. `None`: there is none within `limit`; what was to be said
    /// about it has been.
    pub async fn accept(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        limit: Duration,
    ) -> Option<Stream> {
        let listener = self.0.listener.setting;
        let failure = match tokio::time::timeout(limit, self.handshake(socket)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(failure)) => failure,
            Err(_) => {
                tracing::debug!(listener, %peer, ?limit, "no TLS handshake in time: connection closed");
                return None;
            }
        };
        if let Failure::Gone(error) = &failure {
            tracing::debug!(listener, %peer, %error, "a client left before the TLS handshake was done");
            return None;
        }
        let unsaid = self.0.log.spend(self.0.clock.now());
        match (failure, unsaid) {
            (Failure::Refused(error), Some(unsaid)) => {
                let advice = advice(&error);
                tracing::warn!(listener, %peer, %error, advice, unsaid, "TLS handshake failed");
            }
            (Failure::Refused(error), None) => {
                tracing::debug!(listener, %peer, %error, "TLS handshake failed");
            }
            (_, Some(unsaid)) => {
                tracing::warn!(
                    listener, %peer, unsaid,
                    "a client does not speak TLS on a port that does, and was told so; have it use \
                     https:// or rediss://"
                );
            }
            (_, None) => {
                tracing::debug!(listener, %peer, "a client does not speak TLS");
            }
        }
        None
    }

    async fn handshake(&self, mut socket: TcpStream) -> Result<Stream, Failure> {
        let mut first = [0];
        match socket.peek(&mut first).await {
            Ok(0) => return Err(Failure::Gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) if first[0] == HANDSHAKE_RECORD => {}
            Ok(_) => {
                let answer = self.0.listener.in_the_clear;
                // Either way it is closed now, and there is nobody left to tell.
                let _ = tokio::time::timeout(LINGER, tell(&mut socket, answer)).await;
                return Err(Failure::PlainText);
            }
            Err(error) => return Err(Failure::Gone(error)),
        }
        let server = self.0.served.load_full();
        match TlsAcceptor::from(server).accept(socket).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => {
                Err(match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                    Some(refused) => Failure::Refused(refused.clone()),
                    None => Failure::Gone(error),
                })
            }
        }
    }
}

/// Answers in the clear and waits until the client has closed.
async fn tell(socket: &mut TcpStream, answer: &[u8]) -> io::Result<u64> {
    socket.write_all(answer).await?;
    socket.shutdown().await?;
    tokio::io::copy(&mut socket.take(LINGER_BYTES), &mut tokio::io::sink()).await
}

/// What to do about a failed handshake, where that is known.
fn advice(error: &Error) -> &'static str {
    match error {
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown,
        ) => "the client does not trust our certificate: have it trust the authority that made it",
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "our certificate has expired: renew it"
        }
        Error::NoCertificatesPresented => {
            "client_ca is set, so the client has to show a certificate: give it one"
        }
        Error::InvalidCertificate(_) => {
            "the client's certificate does not come from an authority in client_ca, or is not good now"
        }
        Error::PeerIncompatible(_) => "the client is too old: TLS 1.2 and 1.3 are spoken here",
        _ => "",
    }
}
