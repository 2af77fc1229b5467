//! One source in the world: its machine, what is under way for it, what it kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use wechat_token_server::account::Account;
use wechat_token_server::config::{RefreshPolicy, Rotation};
use wechat_token_server::refresh::{Machine, Purpose};
use wechat_token_server::snapshot::Published;
use wechat_token_server::token::{Generation, SourceIdentity, SourceName, TokenRecord};

/// What a source fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `cgi-bin/token`
    Token,
    /// `cgi-bin/stable_token`
    Stable,
    /// `cgi-bin/ticket/getticket`, which depends on the source before it.
    Ticket,
}

impl Kind {
    pub(crate) fn policy(self) -> RefreshPolicy {
        let window = Duration::from_secs(300);
        let (rotation, daily_limit) = match self {
            Kind::Token => (Rotation::Rotating, Some(2_000)),
            Kind::Stable => (Rotation::Sticky { window }, None),
            Kind::Ticket => (Rotation::Nominal, None),
        };
        RefreshPolicy { rotation, daily_limit, ..RefreshPolicy::default() }
    }

    pub(crate) fn name(self) -> SourceName {
        let name = if self == Kind::Ticket { "ticket" } else { "access_token" };
        SourceName::parse(name).unwrap()
    }

    pub(crate) fn account(self) -> Account {
        let endpoint = match self {
            Kind::Token => "/cgi-bin/token",
            Kind::Stable => "/cgi-bin/stable_token",
            Kind::Ticket => "/cgi-bin/ticket/getticket",
        };
        Account { name: "wx0".into(), endpoint: endpoint.into() }
    }
}

/// What is under way for a source; the machine sees to it that it is one thing.
#[derive(Debug)]
pub(crate) enum Work {
    Fetch,
    Store(Arc<Published>),
    Heal,
}

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) kind: Kind,
    pub(crate) machine: Machine,
    pub(crate) published: Option<Arc<Published>>,
    /// What survives a restart.
    pub(crate) kept: Option<TokenRecord>,
    pub(crate) work: Option<Work>,
    /// Grows with each thing under way and each restart: answers to older ones are dropped.
    pub(crate) epoch: u64,
    /// The value and the generation of the dependency that the request was made with.
    pub(crate) used: Option<(String, Generation)>,
    /// Who waits, and for what: a value that was refused, or the healing of a dependent.
    pub(crate) waiters: HashMap<u64, Wanted>,
    /// Before when the schedule makes no attempt, by its own word, in milliseconds.
    pub(crate) not_before: u64,
    /// Since when the upstream's token may be another for reasons that no engine can know.
    pub(crate) foreign_at: Option<u64>,
    /// When the wake-up that is on its way comes, in milliseconds.
    pub(crate) wake: u64,
}

#[derive(Debug)]
pub(crate) enum Wanted {
    Other(String),
    Healing,
}

pub(crate) const IDENTITY: SourceIdentity = SourceIdentity([0; 32]);

impl Source {
    pub(crate) fn new(kind: Kind, seed: u64) -> Source {
        Source {
            kind,
            machine: Machine::new(kind.policy(), IDENTITY, false, seed),
            published: None,
            kept: None,
            work: None,
            epoch: 0,
            used: None,
            waiters: HashMap::new(),
            not_before: 0,
            foreign_at: None,
            wake: 0,
        }
    }

    pub(crate) fn force(purpose: Purpose) -> bool {
        purpose == Purpose::ForcedNew
    }
}
