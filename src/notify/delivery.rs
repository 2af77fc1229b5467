//! The task of one webhook: hears what happens, and delivers one message at a time, with patience. What
//! happens while a message is on its way, or waits for its next attempt, is gathered for the next one:
//! there is no queue that could grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::clock::{Now, SharedClock};
use crate::config::{WebhookConfig, WebhookKind};
use crate::outbound::{Answer, Outbound, OutboundError, Request};
use crate::shutdown::Drain;
use crate::snapshot::{Happening, Reader, Slot};
use crate::token::SourceName;

use super::answer::{Verdict, verdict};
use super::decide::{Decider, Life, Standing};
use super::message::{Item, Message};
use super::{Counts, format};

/// How often a message is tried; the last attempt is 38 minutes after the first one, or later.
const MOST_ATTEMPTS: u32 = 15;

/// The wait after the first attempt; it doubles up to the longest one.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The least time between two requests to a robot: WeCom's and DingTalk's take 20 a minute, and other
/// programs may use the same one.
const ROBOT_SPACING: Duration = Duration::from_secs(4);

/// How often the clocks are looked at when nothing is due: neither a suspend nor a step strands a message
/// for longer.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// Makes the requests.
pub(super) trait Carrier: Clone + Send + Sync + 'static {
    /// Makes one, within its timeout.
    fn carry(&self, request: Request)
    -> impl Future<Output = Result<Answer, OutboundError>> + Send;
}

impl Carrier for Outbound {
    async fn carry(&self, request: Request) -> Result<Answer, OutboundError> {
        self.exchange(request).await
    }
}

/// One webhook at work.
#[derive(Debug)]
pub(super) struct Courier<C> {
    webhook: Arc<WebhookConfig>,
    server: Arc<str>,
    carrier: C,
    reader: Reader,
    clock: SharedClock,
    counts: Arc<Counts>,
    decider: Decider,
}

impl<C: Carrier> Courier<C> {
    pub(super) fn new(
        webhook: Arc<WebhookConfig>,
        server: Arc<str>,
        carrier: C,
        reader: Reader,
        clock: SharedClock,
        counts: Arc<Counts>,
    ) -> Courier<C> {
        let decider = Decider::new(&webhook);
        Courier { webhook, server, carrier, reader, clock, counts, decider }
    }

    /// Tells until the drain, which waits for nothing that is under way.
    pub(super) async fn run(mut self, drain: Drain) {
        tokio::select! {
            biased;
            () = drain.begun() => {}
            () = self.tell() => {}
        }
    }

    async fn tell(&mut self) {
        // Before the look at what there is: what happens after it is heard.
        let mut happenings = self.reader.happenings();
        self.catch_up();
        let mut delivery: Option<BoxFuture<'static, ()>> = None;
        loop {
            let wait = self.wait();
            // In this order: what has happened is heard before it is told.
            tokio::select! {
                biased;
                happening = happenings.next() => match happening {
                    Happening::Everything => self.catch_up(),
                    happening => self.decider.hear(self.clock.now(), &happening),
                },
                () = under_way(&mut delivery) => delivery = None,
                () = tokio::time::sleep(wait), if delivery.is_none() => {
                    delivery = self.next_message().map(|message| self.deliver(message).boxed());
                }
            }
        }
    }

    /// How long until there may be something to tell.
    fn wait(&self) -> Duration {
        let wake = self
            .decider
            .wake()
            .map_or(MAX_SLEEP, |wake| wake.saturating_sub(self.clock.now().mono));
        wake.min(MAX_SLEEP)
    }

    fn catch_up(&mut self) {
        let view = self.reader.view();
        let now = self.clock.now();
        self.decider
            .catch_up(now, view.slots().map(|slot| (slot.name().clone(), standing(slot, now))));
    }

    fn next_message(&mut self) -> Option<Message> {
        let now = self.clock.now();
        let reader = &self.reader;
        let (items, left_out) = self.decider.take(now, &|source| life(reader, source, now))?;
        Some(new_message(&self.clock, Arc::clone(&self.server), items, left_out))
    }

    /// Tries until it has arrived or is given up, and leaves a robot alone for a moment after that.
    fn deliver(&self, message: Message) -> impl Future<Output = ()> + Send + use<C> {
        let (webhook, counts) = (Arc::clone(&self.webhook), Arc::clone(&self.counts));
        let (carrier, clock) = (self.carrier.clone(), Arc::clone(&self.clock));
        let spacing = match webhook.kind {
            WebhookKind::Json => Duration::ZERO,
            _ => ROBOT_SPACING,
        };
        async move {
            let name = webhook.name.as_str();
            let mut wait = FIRST_WAIT;
            for attempt in 1..=MOST_ATTEMPTS {
                let request = format::request(&webhook, &message, clock.now().wall);
                let (why, at_least) = match verdict(webhook.kind, carrier.carry(request).await) {
                    Verdict::Delivered => {
                        count(&counts.delivered);
                        tracing::debug!(
                            webhook = name,
                            items = message.items.len(),
                            attempt,
                            "a message has arrived"
                        );
                        tokio::time::sleep(spacing).await;
                        return;
                    }
                    Verdict::Later { why, wait } if attempt < MOST_ATTEMPTS => (why, wait),
                    Verdict::Later { why, .. } | Verdict::Never(why) => {
                        count(&counts.failed_attempts);
                        tracing::error!(
                            webhook = name,
                            why,
                            attempt,
                            "a webhook's message is given up; see to its receiver, and try it with notify-test"
                        );
                        break;
                    }
                };
                count(&counts.failed_attempts);
                let pause = wait.max(at_least).max(spacing);
                if attempt == 1 {
                    tracing::warn!(
                        webhook = name,
                        why,
                        retry_in_s = pause.as_secs(),
                        "a webhook's message has not arrived; it is tried again"
                    );
                } else {
                    tracing::debug!(
                        webhook = name,
                        why,
                        attempt,
                        retry_in_s = pause.as_secs(),
                        "not arrived"
                    );
                }
                tokio::time::sleep(pause).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            count(&counts.given_up);
            tokio::time::sleep(spacing).await;
        }
    }
}

/// A message of this moment.
pub(super) fn new_message(
    clock: &SharedClock,
    server: Arc<str>,
    items: Vec<Item>,
    left_out: usize,
) -> Message {
    let id = format!("msg_{:016x}", clock.seed());
    Message { id, at: clock.now().wall, server, items, left_out }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Ends with the delivery that is under way; never, when none is.
async fn under_way(delivery: &mut Option<BoxFuture<'static, ()>>) {
    match delivery {
        Some(delivery) => delivery.await,
        None => std::future::pending().await,
    }
}

/// How a source's renewals are doing.
fn standing(slot: &Slot, now: Now) -> Standing {
    let condition = slot.condition();
    match condition.trouble {
        Some(trouble) if condition.is_failing => {
            let history = slot.history(now);
            let failures = history.iter().rev().take_while(|chapter| chapter.failure.is_some());
            let since = failures.last().map_or(trouble.at, |chapter| {
                UNIX_EPOCH + Duration::from_secs(chapter.first.into())
            });
            Standing::Failing { since, trouble }
        }
        None if condition.renewed == 0 => Standing::Untried,
        _ => Standing::Well,
    }
}

/// How its live token stands.
fn life(reader: &Reader, source: &SourceName, now: Now) -> Option<Life> {
    let token = reader.live(source.as_str(), now)?;
    let left = token.life_left(now);
    let sure = if token.is_in_doubt() { token.promised_life() } else { left };
    Some(Life { until: now.wall + sure, ends: now.mono + left })
}

#[cfg(test)]
mod tests;
