//! Being told: webhooks, which tell group robots and programs of what an operator must hear of. Each has a
//! task of its own that listens to what happens in the snapshot, decides what is worth a message
//! (`decide`), puts it into words (`text`) and bytes (`format`), and delivers it (`delivery`). Nobody
//! waits for it: not a refresher, not a reader, not the end of the server.

mod answer;
mod decide;
mod delivery;
mod format;
mod message;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::SharedClock;
use crate::config::WebhookConfig;
use crate::outbound::Outbound;
use crate::shutdown::Drain;
use crate::snapshot::Reader;

use answer::{Verdict, verdict};
use delivery::{Courier, new_message};
use message::Item;

/// How long an attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the system says how it is called.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// What came of messages, by webhook. Cheap to clone: each clone shows the same.
#[derive(Debug, Clone, Default)]
pub struct Deliveries(Arc<Mutex<Vec<Ledger>>>);

/// What came of the messages of one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Its name.
    pub webhook: Arc<str>,
    /// Messages that have arrived.
    pub delivered: u64,
    /// Attempts that have failed.
    pub failed_attempts: u64,
    /// Messages that were given up.
    pub given_up: u64,
}

#[derive(Debug)]
struct Ledger {
    name: Arc<str>,
    counts: Arc<Counts>,
}

/// As they are counted.
#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicU64,
    failed_attempts: AtomicU64,
    given_up: AtomicU64,
}

impl Deliveries {
    /// Of each webhook, since it was started.
    pub fn counts(&self) -> Vec<DeliveryCounts> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = |Ledger { name, counts }: &Ledger| DeliveryCounts {
            webhook: Arc::clone(name),
            delivered: read(&counts.delivered),
            failed_attempts: read(&counts.failed_attempts),
            given_up: read(&counts.given_up),
        };
        self.lock().iter().map(counts).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ledger>> {
        // Whole after each change, whoever panicked in between.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The webhooks that run.
#[derive(Debug)]
pub struct Webhooks {
    running: Vec<Running>,
    deliveries: Deliveries,
    outbound: Outbound,
    reader: Reader,
    clock: SharedClock,
    drain: Drain,
    host_name: Arc<str>,
}

#[derive(Debug)]
struct Running {
    webhook: Arc<WebhookConfig>,
    counts: Arc<Counts>,
    drain: Drain,
}

/// What a reload has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// How many webhooks were started: new ones, and such as are set otherwise.
    pub started: usize,
    /// How many were ended.
    pub ended: usize,
}

impl Webhooks {
    /// None yet.
    pub fn new(outbound: Outbound, reader: Reader, clock: SharedClock, drain: Drain) -> Webhooks {
        Webhooks {
            running: Vec::new(),
            deliveries: Deliveries::default(),
            outbound,
            reader,
            clock,
            drain,
            host_name: host_name(),
        }
    }

    /// What came of their messages.
    pub fn deliveries(&self) -> Deliveries {
        self.deliveries.clone()
    }

    /// Goes over to these. One that has not changed goes on as if nothing had happened; one that has
    /// starts anew, and what it was about to tell is told by the new one if it still holds.
    pub fn change_to(&mut self, wanted: &[WebhookConfig]) -> Changed {
        let mut before = std::mem::take(&mut self.running);
        let mut changed = Changed::default();
        for webhook in wanted {
            let same = before.iter().position(|running| *running.webhook == *webhook);
            let running = match same {
                Some(place) => before.swap_remove(place),
                None => {
                    changed.started += 1;
                    self.start(webhook)
                }
            };
            self.running.push(running);
        }
        changed.ended = before.len();
        before.iter().for_each(|running| running.drain.begin());
        let ledger = |running: &Running| Ledger {
            name: running.webhook.name.as_str().into(),
            counts: Arc::clone(&running.counts),
        };
        *self.deliveries.lock() = self.running.iter().map(ledger).collect();
        changed
    }

    fn start(&self, webhook: &WebhookConfig) -> Running {
        let (webhook, counts) = (Arc::new(webhook.clone()), Arc::new(Counts::default()));
        let drain = self.drain.part();
        let courier = Courier::new(
            Arc::clone(&webhook),
            self.server(&webhook),
            self.outbound.clone(),
            self.reader.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&counts),
        );
        drain.spawn(courier.run(drain.clone()));
        Running { webhook, counts, drain }
    }

    fn server(&self, webhook: &WebhookConfig) -> Arc<str> {
        webhook.server_name.as_deref().map_or_else(|| Arc::clone(&self.host_name), Into::into)
    }
}

/// Sends one message of a webhook that says that it is a test, once.
///
/// # Errors
/// Why it has not arrived, for the operator.
pub async fn test(
    webhook: &WebhookConfig,
    outbound: &Outbound,
    clock: &SharedClock,
) -> Result<(), String> {
    let server = webhook.server_name.as_deref().map_or_else(host_name, Into::into);
    let message = new_message(clock, server, vec![Item::Test], 0);
    let request = format::request(webhook, &message, clock.now().wall);
    match verdict(webhook.kind, outbound.exchange(request).await) {
        Verdict::Delivered => Ok(()),
        Verdict::Later { why, .. } | Verdict::Never(why) => Err(why),
    }
}

/// How this machine is called.
fn host_name() -> Arc<str> {
    let name = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
    match name.trim() {
        "" => "localhost".into(),
        name => name.into(),
    }
}
