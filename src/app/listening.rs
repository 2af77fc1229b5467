//! From an address, or a socket that systemd passes, to a listener.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::StartError;

/// Connections that may wait to be accepted. Where more come at once (all clients of a server that has
/// just been restarted), the system drops them, and each tries again after a second. The system
/// itself takes less where `net.core.somaxconn` says so.
const BACKLOG: u32 = 4_096;

/// The listener of a setting, and where it listens.
pub(super) async fn bind(
    setting: &'static str,
    address: SocketAddr,
    passed: Option<std::net::TcpListener>,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Bind { setting, address, error };
    let Some(passed) = passed else {
        let listener = listen(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        return Ok((listener, bound));
    };
    let listener = TcpListener::from_std(passed).map_err(failed)?;
    let passed = listener.local_addr().map_err(failed)?;
    // What the config was checked for (no password on an address that others can reach) is to hold.
    if passed.ip() != address.ip() || ![0, passed.port()].contains(&address.port()) {
        return Err(StartError::Elsewhere { setting, address, passed });
    }
    Ok((listener, passed))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart need not wait until the last connections are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
