//! What the privileged client may have the server do beside refreshes: read its config again, have an
//! account's calls of the day given back. The way from who asks to who does it; decides and does nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::config::ConfigErrors;
use crate::token::SourceName;

/// How many orders of a kind may wait; each is of a person, or of a program that acts for one.
const MOST_WAITING: usize = 8;

/// How long anybody waits for an order to be carried out: longer than the two requests of a reset take.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// How often an account's calls of the day can be given back in a month, by WeChat's page of
/// `clearQuota` (upstream.md, section 1): in the console and by both endpoints together.
pub const RESETS_A_MONTH: u32 = 10;

/// What a reload did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// How many sources were left alone.
    pub kept: usize,
    /// The sources that were restarted.
    pub changed: Vec<SourceName>,
    /// The sources that are not served any more.
    pub removed: Vec<SourceName>,
    /// The sources that are new.
    pub added: Vec<SourceName>,
    /// The settings that differ from those the server was started with, and wait for a restart.
    pub need_restart: Vec<&'static str>,
}

/// What the reset of an account's calls did.
#[derive(Debug, PartialEq, Eq)]
pub struct QuotaReset {
    /// How many resets the account has had this month, with this one, as far as this server knows.
    pub resets: u32,
    /// The account's sources, and what came of trying each that had waited for the next day.
    pub sources: Vec<(SourceName, Result<(), Arc<str>>)>,
}

/// Why there was no reset. `Display` is what the client is told: no secret, no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoReset {
    /// There is no source of this name.
    UnknownSource,
    /// Its calls cannot be given back, and why.
    NotOfWeChat(&'static str),
    /// The month's resets are used up.
    UsedUp,
    /// The upstream did not do it; in words.
    Upstream(Arc<str>),
}

impl fmt::Display for NoReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoReset::UnknownSource => f.write_str("there is no such source"),
            NoReset::NotOfWeChat(why) => f.write_str(why),
            NoReset::UsedUp => f.write_str("the account's resets of this month are used up; its calls come back at midnight in Beijing"),
            NoReset::Upstream(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for NoReset {}

/// Why an order was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// Nobody takes such orders here: the sandbox has no config file to read.
    NotHere,
    /// Too many wait already.
    TooMany,
    /// Nothing came of it in time; it may be done yet.
    TimedOut,
    /// The server is going down.
    Draining,
}

/// Where the outcome of an order goes.
pub type Reply<T> = oneshot::Sender<T>;

/// An order to read the config again.
pub type ReloadOrder = Reply<Result<Reloaded, ConfigErrors>>;

/// An order to have the calls of this source's account given back.
#[derive(Debug)]
pub struct ResetOrder {
    /// The source.
    pub source: SourceName,
    /// Where the outcome goes.
    pub reply: Reply<Result<QuotaReset, NoReset>>,
}

/// The right to give orders. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    reloads: mpsc::Sender<ReloadOrder>,
    resets: mpsc::Sender<ResetOrder>,
}

/// The orders that are given, for whoever carries them out. Where one is dropped, nobody does.
#[derive(Debug)]
pub struct Orders {
    /// To read the config again.
    pub reloads: mpsc::Receiver<ReloadOrder>,
    /// To have calls given back.
    pub resets: mpsc::Receiver<ResetOrder>,
}

impl Control {
    /// The right to give orders, and where they arrive.
    pub fn new() -> (Control, Orders) {
        let (reloads, of_reloads) = mpsc::channel(MOST_WAITING);
        let (resets, of_resets) = mpsc::channel(MOST_WAITING);
        (Control { reloads, resets }, Orders { reloads: of_reloads, resets: of_resets })
    }

    /// Has the config read again.
    ///
    /// # Errors
    /// The order was not carried out. (That the config has mistakes is an outcome.)
    pub async fn reload(&self) -> Result<Result<Reloaded, ConfigErrors>, Undone> {
        carried_out(&self.reloads, |reply| reply).await
    }

    /// Has the calls of this source's account given back.
    ///
    /// # Errors
    /// The order was not carried out. (That the upstream refuses it is an outcome.)
    pub async fn reset_quota(
        &self,
        source: SourceName,
    ) -> Result<Result<QuotaReset, NoReset>, Undone> {
        carried_out(&self.resets, |reply| ResetOrder { source, reply }).await
    }
}

async fn carried_out<O, T>(
    orders: &mpsc::Sender<O>,
    order: impl FnOnce(Reply<T>) -> O,
) -> Result<T, Undone> {
    let (reply, outcome) = oneshot::channel();
    orders.try_send(order(reply)).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => Undone::TooMany,
        mpsc::error::TrySendError::Closed(_) => Undone::NotHere,
    })?;
    match tokio::time::timeout(MAX_WAIT, outcome).await {
        Ok(outcome) => outcome.map_err(|_| Undone::Draining),
        Err(_) => Err(Undone::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_order_comes_to_an_end_whatever_becomes_of_it() {
        let (control, mut orders) = Control::new();
        let carry_out = async {
            let reply = orders.reloads.recv().await.unwrap();
            reply.send(Ok(Reloaded { kept: 2, ..Reloaded::default() })).unwrap();
        };
        let (outcome, ()) = tokio::join!(control.reload(), carry_out);
        assert_eq!(outcome.unwrap().unwrap().kept, 2);
        // Nobody looks at it; whoever would goes down with it; nobody ever will.
        assert_eq!(control.reload().await, Err(Undone::TimedOut));
        let go_down = async {
            orders.reloads.recv().await.unwrap();
            drop(orders);
        };
        let (outcome, ()) = tokio::join!(control.reload(), go_down);
        assert_eq!(outcome, Err(Undone::Draining));
        let source = SourceName::parse("a").unwrap();
        assert_eq!(control.reset_quota(source).await, Err(Undone::NotHere));
        assert_eq!(control.reload().await, Err(Undone::NotHere));
    }

    #[tokio::test(start_paused = true)]
    async fn orders_that_nobody_takes_do_not_pile_up() {
        let (control, _orders) = Control::new();
        let all = (0..=MOST_WAITING).map(|_| control.reload());
        let outcomes = futures_util::future::join_all(all).await;
        let too_many = outcomes.iter().filter(|outcome| **outcome == Err(Undone::TooMany));
        assert_eq!(too_many.count(), 1);
    }
}
