//! What goes wrong or changes on purpose: faults of the upstream, another system's fetches, reloads.

use std::sync::Arc;
use std::time::Duration;

use wechat_token_server::sandbox::{Endpoint, Fault, FaultKind, Field, Upstream};

use crate::server::{ConfigFile, Server, Variation};
use crate::truth::{Breaks, SOURCES, Truth, count};

/// Between two looks at all promises.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) fn spawn_all(server: &Server, upstream: &Upstream, truth: &Arc<Truth>) {
    tokio::spawn(look(Arc::clone(truth)));
    tokio::spawn(faults(upstream.clone(), Arc::clone(truth)));
    tokio::spawn(rotations(Arc::clone(truth)));
    tokio::spawn(reloads(server.config.clone(), Arc::clone(truth)));
}

async fn look(truth: Arc<Truth>) {
    loop {
        truth.look();
        tokio::time::sleep(LOOK).await;
    }
}

async fn pause(dice: &mut fastrand::Rng, seconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(dice.u64(seconds.start * 1_000..seconds.end * 1_000)))
        .await;
}

/// Every few seconds one or two calls of one endpoint go wrong.
async fn faults(upstream: Upstream, truth: Arc<Truth>) {
    let mut dice = fastrand::Rng::with_seed(1);
    loop {
        pause(&mut dice, 2..8).await;
        let endpoints = [Endpoint::Token, Endpoint::Token, Endpoint::StableToken, Endpoint::Ticket];
        let kind = match dice.u8(0..12) {
            0 => FaultKind::Errcode(-1),
            1 => FaultKind::Status(502),
            2 => FaultKind::Garbage,
            3 => FaultKind::Truncated,
            4 => FaultKind::Missing(Field::Value),
            5 => FaultKind::Missing(Field::ExpiresIn),
            6 => FaultKind::Hang,
            7 => FaultKind::Reset,
            8 => FaultKind::Huge,
            9 => FaultKind::Drip(Duration::from_millis(5)),
            10 => FaultKind::Redirect("http://127.0.0.1:1/".into()),
            _ => FaultKind::Latency(Duration::from_secs(1)),
        };
        let fault =
            Fault::new(kind).on(endpoints[dice.usize(..endpoints.len())]).times(dice.u32(1..3));
        // With or without its effect: an answer that is lost has rotated the token all the same. (A
        // refusal or a redirect says that nothing was done, and is believed.)
        let says_no = matches!(fault.kind, FaultKind::Errcode(_) | FaultKind::Redirect(_));
        upstream.inject(if !says_no && dice.bool() { fault.applied() } else { fault });
        count(&truth.counts.faults);
    }
}

/// Another system fetches.
async fn rotations(truth: Arc<Truth>) {
    let mut dice = fastrand::Rng::with_seed(2);
    let source = SOURCES.iter().find(|source| source.breaks == Breaks::ByOthers).unwrap();
    loop {
        pause(&mut dice, 10..30).await;
        truth.rotate(source);
    }
}

/// Sources come and go, are changed, and now and then the config has a mistake.
async fn reloads(config: ConfigFile, truth: Arc<Truth>) {
    let mut dice = fastrand::Rng::with_seed(3);
    loop {
        pause(&mut dice, 5..12).await;
        if truth.is_over() {
            return;
        }
        let guests = dice.u8(..);
        let wanted = |at: usize| guests & (1 << at) != 0;
        let variation =
            Variation { early: dice.bool(), patient: dice.bool(), is_wrong: dice.u8(0..5) == 0 };
        let place = |name: &str| SOURCES.iter().position(|source| source.name == name).unwrap();
        config.write(|source| !source.comes_and_goes || wanted(place(source.name)), variation);
        config.reload();
        count(&truth.counts.reloads);
    }
}
