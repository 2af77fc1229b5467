//! What starts this process and watches over it, where anything does: the sockets it passes, what it
//! is told, its watchdog. It speaks systemd's protocol, and does nothing where nobody listens.

use std::net::TcpListener;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;

use crate::config::Environment;

/// Where the names of the passed sockets are (sd_listen_fds(3)).
const SOCKET_NAMES: &str = "LISTEN_FDNAMES";

/// Sockets that were listening before this process was there, and will be after it: whoever connects
/// while one process takes over from another waits, and is not refused.
#[derive(Debug, Default)]
pub struct Sockets {
    /// What stands for `http.bind`.
    pub http: Option<TcpListener>,
    /// What stands for `resp.bind`.
    pub resp: Option<TcpListener>,
}

impl Sockets {
    /// Those that were passed to this process. To be called once, before there is a second thread:
    /// what speaks of them is removed from the environment of the process.
    ///
    /// # Errors
    /// One of them is of no use here; in words for the operator.
    pub fn passed(environment: &Environment) -> Result<Sockets, String> {
        let mut passed = ListenFd::from_env();
        let names = environment.get(SOCKET_NAMES).unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = Sockets::default();
        for at in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            let place = match name {
                "http" => &mut sockets.http,
                "resp" => &mut sockets.resp,
                other => {
                    return Err(format!(
                        "a socket named {other:?} is passed; name it http or resp \
                         (FileDescriptorName= in its socket unit)"
                    ));
                }
            };
            if place.is_some() {
                return Err(format!(
                    "two sockets named {name} are passed; leave one ListenStream= in its socket unit"
                ));
            }
            let unusable =
                |error| format!("the socket {name} that is passed cannot be used: {error}");
            *place = passed.take_tcp_listener(at).map_err(unusable)?;
            if let Some(socket) = place {
                socket.set_nonblocking(true).map_err(unusable)?;
            }
        }
        Ok(sockets)
    }
}

/// Says that requests are served, and how things stand (shown by `systemctl status`).
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the config is read again; [`ready`] ends it.
pub fn reloading() {
    // systemd 253 and later want the time with it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the supervisor is not told of the reload"),
    }
}

/// Says that nothing new is taken.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing what is in flight")]);
}

/// Tells the watchdog, where there is one, that these runtimes turn: twice within the time that it
/// waits, and no longer than all of them do. A process that hangs is then restarted.
pub async fn watch(runtimes: Vec<Handle>) {
    let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())
    else {
        return;
    };
    let mut turns = tokio::time::interval(patience / 2);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        all_turn(&runtimes).await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// Ends when each runtime has run something. One that has ended does not hang.
async fn all_turn(runtimes: &[Handle]) {
    for runtime in runtimes {
        // An error: it is going down.
        let _ = runtime.spawn(async {}).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the supervisor cannot be told how things stand (NOTIFY_SOCKET)");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_runtime_that_hangs_is_noticed_and_one_that_has_ended_is_not_missed() {
        let hangs = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let runtimes = [Handle::current(), hangs.handle().clone()];
        all_turn(&runtimes).await;
        let (release, held) = mpsc::channel::<()>();
        let (hanging, hung) = tokio::sync::oneshot::channel();
        hangs.spawn(async move {
            hanging.send(()).unwrap();
            held.recv().unwrap_err();
        });
        hung.await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), all_turn(&runtimes)).await;
        assert!(early.is_err(), "it does not turn");
        drop(release);
        all_turn(&runtimes).await;
        hangs.shutdown_background();
        all_turn(&runtimes).await;
    }
}
