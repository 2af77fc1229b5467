//! A reload of the config: what it changes and what it cannot, and what the operator is told. The
//! refreshers themselves are started and let go in `running`.

use std::path::Path;

use crate::config::{self, Config, ConfigErrors, Environment, RespConfig, TokenSource};
use crate::control::Reloaded;
use crate::notify;
use crate::token::SourceName;

use super::{Certificates, Server, log_advice};

/// How many names of sources a log line holds.
const MAX_NAMES: usize = 20;

/// Whether two configs agree in a setting.
type Same = fn(&Config, &Config) -> bool;

/// Every setting that holds from the start to the end.
const FIXED: &[(&str, Same)] = &[
    ("http.bind", |a, b| a.http.bind == b.http.bind),
    ("http.max_connections", |a, b| a.http.max_connections == b.http.max_connections),
    ("http.max_connections_per_address", |a, b| {
        a.http.max_connections_per_address == b.http.max_connections_per_address
    }),
    ("http.header_timeout", |a, b| a.http.header_timeout == b.http.header_timeout),
    ("http.idle_timeout", |a, b| a.http.idle_timeout == b.http.idle_timeout),
    ("http.secret_parameter", |a, b| a.http.secret_parameter == b.http.secret_parameter),
    ("http.ui", |a, b| a.http.ui == b.http.ui),
    ("http.trusted_proxies", |a, b| a.http.trusted_proxies == b.http.trusted_proxies),
    // Whether there is TLS at all; its files are another matter.
    ("http.tls", |a, b| a.http.tls.is_some() == b.http.tls.is_some()),
    ("resp.enabled", |a, b| a.resp.is_some() == b.resp.is_some()),
    ("resp.bind", |a, b| same_resp(a, b, |a, b| a.bind == b.bind)),
    ("resp.password", |a, b| same_resp(a, b, |a, b| a.password == b.password)),
    ("resp.max_connections", |a, b| same_resp(a, b, |a, b| a.max_connections == b.max_connections)),
    ("resp.max_connections_per_address", |a, b| {
        same_resp(a, b, |a, b| a.max_connections_per_address == b.max_connections_per_address)
    }),
    ("resp.idle_timeout", |a, b| same_resp(a, b, |a, b| a.idle_timeout == b.idle_timeout)),
    ("resp.writes", |a, b| same_resp(a, b, |a, b| a.writes == b.writes)),
    ("resp.notify", |a, b| same_resp(a, b, |a, b| a.notify == b.notify)),
    ("resp.tls", |a, b| same_resp(a, b, |a, b| a.tls.is_some() == b.tls.is_some())),
    ("clients", |a, b| a.clients == b.clients),
    ("store.path", |a, b| a.store.path == b.store.path),
    ("store.key", |a, b| a.store.key == b.store.key),
    ("store.old_keys", |a, b| a.store.old_keys == b.store.old_keys),
    ("request_secret", |a, b| a.request_secret == b.request_secret),
    ("outbound.ca_file", |a, b| a.outbound.ca_file == b.outbound.ca_file),
    ("outbound.proxy", |a, b| a.outbound.proxy == b.outbound.proxy),
    ("log.level", |a, b| a.log.level == b.log.level),
    ("log.format", |a, b| a.log.format == b.log.format),
    ("log.dir", |a, b| a.log.dir == b.log.dir),
    ("ready.sources", |a, b| a.ready.sources == b.ready.sources),
    ("ready.life", |a, b| a.ready.life == b.ready.life),
    ("metrics.bind", |a, b| {
        let bind = |config: &Config| config.metrics.as_ref().map(|metrics| metrics.bind);
        bind(a) == bind(b)
    }),
    ("metrics.public", |a, b| {
        let public = |config: &Config| config.metrics.as_ref().map(|metrics| metrics.public);
        public(a) == public(b)
    }),
    ("log.keep", |a, b| a.log.keep == b.log.keep),
];

/// Where the listener is switched on or off, that is what needs the restart.
fn same_resp(a: &Config, b: &Config, same: impl Fn(&RespConfig, &RespConfig) -> bool) -> bool {
    match (&a.resp, &b.resp) {
        (Some(a), Some(b)) => same(a, b),
        _ => true,
    }
}

/// What becomes of a source that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing has changed: nothing happens to it.
    Kept,
    /// It is refreshed otherwise; its tokens are the same, and go on being served.
    Restarted,
    /// Its tokens are others than before, and those before are not served any more.
    Replaced,
    /// There was none of this name.
    Added,
}

impl Fate {
    /// Of a source that is wanted, by the one of its name that runs.
    pub(super) fn of(running: Option<&TokenSource>, wanted: &TokenSource) -> Fate {
        match running {
            None => Fate::Added,
            Some(running) if running == wanted => Fate::Kept,
            Some(running) if running.identity == wanted.identity => Fate::Restarted,
            Some(_) => Fate::Replaced,
        }
    }
}

impl Reloaded {
    pub(super) fn note(&mut self, fate: Fate, name: &SourceName) {
        match fate {
            Fate::Kept => self.kept += 1,
            Fate::Restarted | Fate::Replaced => self.changed.push(name.clone()),
            Fate::Added => self.added.push(name.clone()),
        }
    }

    fn log(&self) {
        let Reloaded { kept, changed, removed, added, need_restart } = self;
        if !need_restart.is_empty() {
            tracing::warn!(
                settings = need_restart.join(", "),
                "these settings have changed and need a restart; until then the old ones hold"
            );
        }
        tracing::info!(
            kept,
            changed = listed(changed),
            removed = listed(removed),
            added = listed(added),
            "config reloaded"
        );
    }
}

impl Server {
    /// Reads the config again and goes over to it. Sources that have not changed notice nothing. What
    /// was done, or why nothing was, is in the log.
    ///
    /// # Errors
    /// Every mistake in the config; then everything goes on as before.
    pub fn reload(
        &mut self,
        file: &Path,
        environment: &Environment,
    ) -> Result<Reloaded, ConfigErrors> {
        let read =
            config::load(file, environment).and_then(|config| match Certificates::read(&config) {
                Ok(certificates) => Ok((config, certificates)),
                Err(mistakes) => Err(ConfigErrors::new(file, mistakes)),
            });
        let (config, certificates) = read.inspect_err(|errors| {
            for mistake in errors.mistakes() {
                tracing::error!(
                    setting = mistake.path,
                    mistake = mistake.message,
                    "config mistake"
                );
            }
            tracing::error!(
                file = %file.display(), mistakes = errors.mistakes().len(),
                "the config is not reloaded; everything goes on as before"
            );
        })?;
        log_advice(&config.advice);
        let need_restart = differing(&self.settings, &config);
        self.settings.grace_period = config.grace_period;
        self.encryption.replace(certificates);
        let reloaded = Reloaded { need_restart, ..self.running.change_to(config.sources) };
        reloaded.log();
        // After the sources, whose failures they tell.
        let webhooks = self.webhooks.change_to(&config.webhooks);
        if webhooks != notify::Changed::default() {
            let notify::Changed { started, ended } = webhooks;
            tracing::info!(started, ended, "webhooks changed");
        }
        Ok(reloaded)
    }
}

/// The fixed settings in which two configs differ.
fn differing(a: &Config, b: &Config) -> Vec<&'static str> {
    FIXED.iter().filter(|(_, same)| !same(a, b)).map(|(name, _)| *name).collect()
}

/// Names for a log line; of many, the first.
fn listed(names: &[SourceName]) -> String {
    let shown: Vec<&str> = names.iter().take(MAX_NAMES).map(SourceName::as_str).collect();
    let mut text = shown.join(", ");
    if names.len() > shown.len() {
        text.push_str(&format!(" and {} more", names.len() - shown.len()));
    }
    text
}

#[cfg(test)]
mod tests;
