//! Who may use the server: users, their keys and where they come from; strangers who try keys; the
//! audit of who was given what. Both listeners ask here. Knows no socket and no
//! protocol.

mod audit;
mod users;
mod visitor;
mod wrong_keys;

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::SharedClock;
use crate::config::ClientConfig;
use crate::token::Secret;

pub use audit::{Audit, REPORT_EVERY, Reader, Reads, Reason};
pub use users::{User, Users};
pub use visitor::forwarded_for;
pub use wrong_keys::{SLOWNESS, Slowed};

use wrong_keys::WrongKeys;

/// The listener that somebody comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// HTTP.
    Http,
    /// The Redis protocol.
    Resp,
}

impl Via {
    /// Every one.
    pub const ALL: [Via; 2] = [Via::Http, Via::Resp];

    /// As it stands in a log line.
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Http => "http",
            Via::Resp => "resp",
        }
    }
}

/// Why somebody is not let in. Whoever asked is told nothing of it.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// No key was shown.
    NoKey,
    /// Nobody has this key.
    WrongKey,
    /// The key is right, but its owner comes from elsewhere.
    WrongAddress(Arc<User>),
}

/// How somebody who was not let in is to be answered.
#[derive(Debug)]
pub enum Manner {
    /// As ever.
    AtOnce,
    /// With "too many", [`SLOWNESS`] later if there is room to wait.
    Slowly(Option<Slowed>),
}

/// Everybody who may use the server, and the book about it; both listeners share one.
#[derive(Debug)]
pub struct Access {
    users: Users,
    wrong_keys: WrongKeys,
    audit: Audit,
}

impl Access {
    /// `request_secret` is the key of the default user, who may do everything; so is `password`, that
    /// of the RESP listener.
    pub fn new(
        request_secret: Secret,
        password: Option<Secret>,
        clients: Vec<ClientConfig>,
        clock: SharedClock,
    ) -> Access {
        Access {
            users: Users::new(request_secret, password, clients),
            wrong_keys: WrongKeys::new(clock),
            audit: Audit::default(),
        }
    }

    /// Everybody who may use the server.
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// The book of who was given what.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The user who shows `key`, coming from `address`.
    ///
    /// # Errors
    /// There is none.
    pub fn with_key(&self, key: Option<&[u8]>, address: IpAddr) -> Result<&Arc<User>, Refusal> {
        let user = self.users.with_key(key.ok_or(Refusal::NoKey)?);
        at_home(user.ok_or(Refusal::WrongKey)?, address)
    }

    /// The user of this name, who shows `key`, coming from `address`.
    ///
    /// # Errors
    /// There is none.
    pub fn with_name(
        &self,
        name: &[u8],
        key: &[u8],
        address: IpAddr,
    ) -> Result<&Arc<User>, Refusal> {
        at_home(self.users.with_name(name, key).ok_or(Refusal::WrongKey)?, address)
    }

    /// Notes that somebody was not let in, and says how to answer. Those who try many wrong keys are
    /// slowed; who shows a right one from the same address notices nothing of it.
    pub fn turn_away(&self, refusal: &Refusal, address: IpAddr, via: Via) -> Manner {
        if let Refusal::NoKey = refusal {
            self.audit.no_key(address, via);
            return Manner::AtOnce;
        }
        let manner = self.wrong_keys.note(address);
        match manner {
            Manner::AtOnce => self.audit.refused(refusal, address, via),
            Manner::Slowly(_) => self.audit.refused_once_more(refusal, address, via),
        }
        manner
    }
}

/// The user, if `address` is one where they may come from.
fn at_home(user: &Arc<User>, address: IpAddr) -> Result<&Arc<User>, Refusal> {
    if user.may_come_from(address) {
        Ok(user)
    } else {
        Err(Refusal::WrongAddress(Arc::clone(user)))
    }
}

#[cfg(test)]
mod tests;
