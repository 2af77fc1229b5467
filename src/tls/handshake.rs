//! From an accepted socket to a TLS connection, within a time; what does not come to one, and what
//! the operator is told of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

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
        let acceptor = TlsAcceptor::from(self.0.served.load_full());
        let stream = self.0.handshakes.make(acceptor, socket).await;
        stream.map(|stream| Stream::Tls(Box::new(stream))).map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(refused) => Failure::Refused(refused.clone()),
                None => Failure::Gone(error),
            }
        })
    }
}

/// The thread that handshakes are made on. One takes a signature, which with RSA is a millisecond of
/// computing; when many clients come back at once, those who are connected would all wait for that. The
/// system shares the processors between threads more fairly. It ends with this.
#[derive(Debug)]
pub struct Handshakes {
    runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl Handshakes {
    /// Starts it.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start() -> io::Result<Arc<Handshakes>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (_end, ended) = oneshot::channel();
        std::thread::Builder::new().name("tls".into()).spawn(move || {
            // An error is what is waited for: that the other end is dropped.
            runtime.block_on(ended).ok();
        })?;
        Ok(Arc::new(Handshakes { runtime: handle, _end }))
    }

    /// Makes one there, and brings the connection back. What it takes to move a socket is a fiftieth of
    /// what a signature takes.
    async fn make(
        &self,
        acceptor: TlsAcceptor,
        socket: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let (socket, there) = (socket.into_std()?, acceptor.clone());
        let handshake = async move {
            let stream = there.accept(TcpStream::from_std(socket)?).await?;
            let (socket, connection) = stream.into_inner();
            io::Result::Ok((socket.into_std()?, connection))
        };
        // It ends with us: at the deadline, or when the connection is cut.
        let handshake = AbortOnDropHandle::new(self.runtime.spawn(handshake));
        let (socket, connection) = handshake.await.map_err(io::Error::other)??;
        // With its handshake behind it in place of the fresh one; so this does not wait.
        acceptor.accept_with(TcpStream::from_std(socket)?, |fresh| *fresh = connection).await
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
