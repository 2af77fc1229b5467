//! What WeChat does, as far as tokens go: accounts, rotation, windows, tickets, quotas, refusals.
//! Pure: every call is told the time, randomness comes from a seed; no I/O, no HTTP.
//!
//! Where WeChat's documents leave room, the model takes the reading that is worse for a client:
//! an old token works for exactly the overlap, a life counts from the call's arrival, a stated
//! life is rounded down.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use fastrand::Rng;

use crate::sandbox::account::{Account, Count, Limit, Usage};
use crate::sandbox::calendar;
use crate::sandbox::endpoint::{Endpoint, PerEndpoint};
use crate::sandbox::line::{Issue, Line, Verdict, left};
use crate::sandbox::refusal::Refusal;
use crate::sandbox::settings::Settings;
use crate::token::Secret;

/// The one `grant_type` there is.
pub(super) const GRANT_TYPE: &str = "client_credential";

/// Who calls for a token, as the call says it. What is missing is `None`.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// `grant_type`
    pub grant_type: Option<&'a str>,
    /// `appid`
    pub appid: Option<&'a str>,
    /// `secret`
    pub secret: Option<&'a str>,
    /// Where the call comes from.
    pub address: IpAddr,
}

impl<'a> Caller<'a> {
    /// A well-formed call from this machine.
    pub fn new(appid: &'a str, secret: &'a str) -> Caller<'a> {
        Caller {
            grant_type: Some(GRANT_TYPE),
            appid: Some(appid),
            secret: Some(secret),
            address: Ipv4Addr::LOCALHOST.into(),
        }
    }
}

impl fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the secret.
        f.debug_struct("Caller")
            .field("grant_type", &self.grant_type)
            .field("appid", &self.appid)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What a successful fetch brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The token or ticket.
    pub value: Secret,
    /// The stated life: whole seconds.
    pub expires_in: Duration,
}

impl Grant {
    fn of(issue: &Issue, stated: Duration) -> Grant {
        Grant { value: issue.text.clone(), expires_in: Duration::from_secs(stated.as_secs()) }
    }
}

/// The kinds of values, each with a line of its own. The letter stands in the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Token,
    StableToken,
    JsapiTicket,
    CardTicket,
    SdkTicket,
}

/// Letter of a value, and `type` of a ticket.
const KINDS: [(Kind, char, Option<&str>); 5] = [
    (Kind::Token, 'T', None),
    (Kind::StableToken, 'S', None),
    (Kind::JsapiTicket, 'J', Some("jsapi")),
    (Kind::CardTicket, 'C', Some("wx_card")),
    // Known from SDKs only: the ticket of the open platform's SDK.
    (Kind::SdkTicket, 'K', Some("2")),
];

/// An account with everything that WeChat remembers of it.
#[derive(Debug)]
struct Entry {
    account: Account,
    lines: [Line; KINDS.len()],
    usage: PerEndpoint<Usage>,
    forced: Count,
    last_forced: Option<SystemTime>,
    clears: Count,
}

/// The stand-in's state. See the head of this file.
#[derive(Debug)]
pub struct Model {
    /// The rules; a change holds for the next call.
    pub settings: Settings,
    entries: Vec<Entry>,
    by_appid: HashMap<Box<str>, usize>,
    random: Rng,
}

impl Default for Model {
    /// WeChat's rules and the one account of [`Account::default`].
    fn default() -> Model {
        Model::new(Settings::default(), [Account::default()], 0)
    }
}

impl Model {
    /// A model with these accounts. The same seed and calls give the same values.
    pub fn new(
        settings: Settings,
        accounts: impl IntoIterator<Item = Account>,
        seed: u64,
    ) -> Model {
        let mut model = Model {
            settings,
            entries: Vec::new(),
            by_appid: HashMap::new(),
            random: Rng::with_seed(seed),
        };
        for account in accounts {
            model.add(account);
        }
        model
    }

    /// Adds an account, or replaces what its owner can change of it.
    pub fn add(&mut self, account: Account) {
        match self.by_appid.get(account.appid()) {
            Some(at) => self.entries[*at].account = account,
            None => {
                self.by_appid.insert(account.appid().into(), self.entries.len());
                self.entries.push(Entry {
                    account,
                    lines: Default::default(),
                    usage: PerEndpoint::default(),
                    forced: Count::default(),
                    last_forced: None,
                    clears: Count::default(),
                });
            }
        }
    }

    /// The account of this appid.
    pub fn account(&self, appid: &str) -> Option<&Account> {
        self.by_appid.get(appid).map(|at| &self.entries[*at].account)
    }

    /// What the owner of an account can change of it.
    pub fn account_mut(&mut self, appid: &str) -> Option<&mut Account> {
        self.by_appid.get(appid).map(|at| &mut self.entries[*at].account)
    }

    /// The accounts, in the order in which they were added.
    pub fn accounts(&self) -> impl ExactSizeIterator<Item = &Account> {
        self.entries.iter().map(|entry| &entry.account)
    }

    /// The calls that count towards an account's quota of `endpoint` today.
    pub fn used_today(&self, appid: &str, endpoint: Endpoint, now: SystemTime) -> Option<u32> {
        self.by_appid.get(appid).map(|at| self.entries[*at].usage[endpoint].today(now))
    }

    /// `cgi-bin/token`: a new token; the old one works for the overlap.
    ///
    /// # Errors
    /// As WeChat refuses.
    pub fn token(&mut self, caller: Caller<'_>, now: SystemTime) -> Result<Grant, Refusal> {
        let at = self.authenticate(caller)?;
        self.charge(at, Endpoint::Token, now)?;
        Ok(self.replace(at, Kind::Token, self.settings.overlap(), now))
    }

    /// `cgi-bin/stable_token`: the same token until the window, then a new one; with `force` a new
    /// one that kills the old at once, within the limits of forcing.
    ///
    /// # Errors
    /// As WeChat refuses.
    pub fn stable_token(
        &mut self,
        caller: Caller<'_>,
        force: bool,
        now: SystemTime,
    ) -> Result<Grant, Refusal> {
        let at = self.authenticate(caller)?;
        self.charge(at, Endpoint::StableToken, now)?;
        if force && let Some(grant) = self.force(at, now)? {
            return Ok(grant);
        }
        let window = self.settings.window();
        if let Some(issue) = self.entries[at].lines[Kind::StableToken as usize].current(now)
            && let Some(life) = left(issue.until, now).filter(|life| *life > window)
        {
            return Ok(Grant::of(issue, life));
        }
        Ok(self.replace(at, Kind::StableToken, self.settings.overlap(), now))
    }

    /// A forced refresh; `None` where the last one is too recent to make another.
    fn force(&mut self, at: usize, now: SystemTime) -> Result<Option<Grant>, Refusal> {
        let today = calendar::day(now);
        let entry = &mut self.entries[at];
        let again = entry.last_forced.map(|last| last + self.settings.force_interval);
        if again.is_some_and(|again| now < again) {
            return Ok(None);
        }
        if entry.forced.is_full(self.settings.force_quota, today) {
            return Err(Refusal::of(45009));
        }
        entry.forced.add(today);
        entry.last_forced = Some(now);
        Ok(Some(self.replace(at, Kind::StableToken, Duration::ZERO, now)))
    }

    /// `cgi-bin/ticket/getticket`: the same ticket until its end, always with the full life stated.
    ///
    /// # Errors
    /// As WeChat refuses: 40001, 40014 or 42001 for an access token that is not accepted.
    pub fn ticket(
        &mut self,
        access_token: Option<&str>,
        ticket_type: Option<&str>,
        now: SystemTime,
    ) -> Result<Grant, Refusal> {
        let at = self.authorise(access_token, now)?;
        let kind = KINDS.iter().find(|row| row.2.is_some() && row.2 == ticket_type);
        let (kind, ..) = kind.ok_or(Refusal::of(40097))?;
        self.charge(at, Endpoint::Ticket, now)?;
        let stated = self.settings.lifetime;
        if let Some(issue) = self.entries[at].lines[*kind as usize].current(now) {
            return Ok(Grant::of(issue, stated));
        }
        let until = now + self.settings.ticket_lifetime();
        let dies = until + self.settings.ticket_grace();
        Ok(Grant::of(self.issue(at, *kind, until, dies, now), stated))
    }

    /// `cgi-bin/getcallbackip`: refuses exactly when the access token is not accepted.
    ///
    /// # Errors
    /// As WeChat refuses.
    pub fn callback_ip(
        &mut self,
        access_token: Option<&str>,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let at = self.authorise(access_token, now)?;
        self.charge(at, Endpoint::CallbackIp, now)
    }

    /// `cgi-bin/clear_quota/v2`: sets the account's counts of today back to zero.
    ///
    /// # Errors
    /// As WeChat refuses: 48006 when this month's clears are used up.
    pub fn clear_quota(&mut self, caller: Caller<'_>, now: SystemTime) -> Result<(), Refusal> {
        let at = self.authenticate(caller)?;
        let entry = &mut self.entries[at];
        let month = calendar::month(now);
        if entry.clears.is_full(self.settings.clear_quota, month) {
            return Err(Refusal::of(48006));
        }
        entry.clears.add(month);
        entry.usage = PerEndpoint::default();
        Ok(())
    }

    /// A fetch of `cgi-bin/token` by somebody else with the same account, from an allowed address.
    /// It counts towards the quota but is never refused. `None`: there is no such account.
    pub fn rotate(&mut self, appid: &str, now: SystemTime) -> Option<Grant> {
        let at = *self.by_appid.get(appid)?;
        // Refused or not: the fetch is to happen.
        let _ = self.charge(at, Endpoint::Token, now);
        Some(self.replace(at, Kind::Token, self.settings.overlap(), now))
    }

    /// Whether an access token, of either kind, is accepted.
    pub fn accepts(&self, access_token: &str, now: SystemTime) -> Verdict {
        self.find(access_token, now, |kind| kind.2.is_none()).map_or(Verdict::Unknown, |f| f.1)
    }

    /// Whether a ticket is accepted.
    pub fn accepts_ticket(&self, ticket: &str, now: SystemTime) -> Verdict {
        self.find(ticket, now, |kind| kind.2.is_some()).map_or(Verdict::Unknown, |found| found.1)
    }

    /// The account that an access token was issued to, live or not.
    pub fn owner(&self, access_token: &str) -> Option<&str> {
        let (at, verdict) = self.find(access_token, SystemTime::UNIX_EPOCH, |_| true)?;
        (verdict != Verdict::Unknown).then(|| self.entries[at].account.appid())
    }

    /// Checks a call in the order: form, account, secret, standing, address.
    fn authenticate(&self, caller: Caller<'_>) -> Result<usize, Refusal> {
        if caller.grant_type != Some(GRANT_TYPE) {
            return Err(Refusal::of(40002));
        }
        let appid = caller.appid.ok_or(Refusal::of(41002))?;
        let secret = caller.secret.ok_or(Refusal::of(41004))?;
        let at = *self.by_appid.get(appid).ok_or(Refusal::of(40013))?;
        let account = &self.entries[at].account;
        if !account.secret.matches(secret.as_bytes()) {
            return Err(Refusal::of(40125));
        }
        if let Some(code) = account.refused_with {
            return Err(Refusal { code, caller: Some(caller.address) });
        }
        match &account.allow {
            Some(allowed) if !allowed.contains(&caller.address) => {
                Err(Refusal { code: 40164, caller: Some(caller.address) })
            }
            _ => Ok(at),
        }
    }

    /// The account that an access token speaks for.
    fn authorise(&self, access_token: Option<&str>, now: SystemTime) -> Result<usize, Refusal> {
        let access_token = access_token.ok_or(Refusal::of(41001))?;
        let found = self.find(access_token, now, |kind| kind.2.is_none());
        let (at, verdict) = found.unwrap_or((0, Verdict::Unknown));
        verdict.errcode().map_or(Ok(at), |code| Err(Refusal::of(code)))
    }

    fn charge(&mut self, at: usize, endpoint: Endpoint, now: SystemTime) -> Result<(), Refusal> {
        let settings = &self.settings;
        let (per_day, per_minute) = match endpoint {
            Endpoint::Token => (settings.token_quota, None),
            Endpoint::StableToken => (settings.stable_quota, settings.stable_per_minute),
            Endpoint::Ticket => (settings.ticket_quota, None),
            Endpoint::CallbackIp | Endpoint::ClearQuota | Endpoint::Unknown => (None, None),
        };
        let limit = Limit { per_day, per_minute };
        self.entries[at].usage[endpoint].charge(limit, now).map_err(Refusal::of)
    }

    /// Issues a new access token; those before it work for `overlap` at most.
    fn replace(&mut self, at: usize, kind: Kind, overlap: Duration, now: SystemTime) -> Grant {
        self.entries[at].lines[kind as usize].retire(now + overlap);
        let lifetime = self.settings.lifetime;
        Grant::of(self.issue(at, kind, now + lifetime, now + lifetime, now), lifetime)
    }

    fn issue(
        &mut self,
        at: usize,
        kind: Kind,
        until: SystemTime,
        dies: SystemTime,
        now: SystemTime,
    ) -> &Issue {
        let serial = self.entries[at].lines[kind as usize].next_serial();
        let mut text = format!("{at}_{}{serial}_", KINDS[kind as usize].1);
        let random = &mut self.random;
        let missing = self.settings.value_bytes.saturating_sub(text.len()).max(8);
        text.extend(std::iter::repeat_with(|| random.alphanumeric()).take(missing));
        let issue = Issue { text: Secret::new(text), until, dies };
        self.entries[at].lines[kind as usize].issue(issue, now)
    }

    /// The account and the state of a value of the `wanted` kinds. The value says where to look.
    fn find(
        &self,
        value: &str,
        now: SystemTime,
        wanted: fn(&(Kind, char, Option<&str>)) -> bool,
    ) -> Option<(usize, Verdict)> {
        let (at, rest) = value.split_once('_')?;
        let (serial, _) = rest.split_once('_')?;
        let letter = serial.chars().next()?;
        let kind = KINDS.iter().find(|kind| kind.1 == letter && wanted(kind))?;
        let at: usize = at.parse().ok()?;
        let serial = serial[letter.len_utf8()..].parse().ok()?;
        let line = &self.entries.get(at)?.lines[kind.0 as usize];
        Some((at, line.verdict(serial, value, now)))
    }
}

#[cfg(test)]
mod tests;
