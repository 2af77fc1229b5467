//! What a config would do, for the `check` sub-command: in words, without a secret. Starts nothing.

use std::fmt;

use crate::config::{
    Advice, Body, Config, HttpConfig, Method, RefreshPolicy, Rotation, TlsConfig, TokenSource,
    WebhookConfig,
};
use crate::duration::format_duration;

/// Writes what `config` would do.
#[derive(Debug)]
pub struct Plan<'a>(pub &'a Config);

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        let HttpConfig { bind, max_connections, tls, .. } = &config.http;
        writeln!(f, "http     {bind}{}, {max_connections} connections at most", how(tls))?;
        match &config.resp {
            Some(resp) => {
                let who = match (resp.password.is_some(), config.clients.len()) {
                    (true, 0) => "with password".to_owned(),
                    (true, clients) => format!("with password, {clients} clients"),
                    (false, 0) => "without password".to_owned(),
                    (false, clients) => format!("{clients} clients and nobody else"),
                };
                let most = resp.max_connections;
                let tls = how(&resp.tls);
                writeln!(f, "resp     {}{tls}, {who}, {most} connections at most", resp.bind)?;
            }
            None => writeln!(f, "resp     off")?,
        }
        let records = if config.store.key.is_some() { "sealed" } else { "in plain" };
        let old = match config.store.old_keys.len() {
            0 => String::new(),
            1 => ", 1 old key".into(),
            old => format!(", {old} old keys"),
        };
        writeln!(f, "store    {}, records {records}{old}", config.store.path.display())?;
        match &config.request_secret {
            Some(_) => writeln!(f, "secret   set in the config")?,
            None => {
                writeln!(f, "secret   made at the first start and kept in the store directory")?
            }
        }
        config.webhooks.iter().try_for_each(|webhook| write_webhook(f, webhook))?;
        writeln!(f, "sources  {}, in order of dependency:", config.sources.len())?;
        config.sources.iter().try_for_each(|source| write_source(f, source))?;
        let mut advice = config.advice.iter();
        advice
            .try_for_each(|Advice { path, message, .. }| writeln!(f, "advice   {path}: {message}"))
    }
}

/// How a listener speaks, where that is worth a word.
fn how(tls: &Option<TlsConfig>) -> &'static str {
    match tls {
        None => "",
        Some(TlsConfig { client_ca: None, .. }) => ", TLS",
        Some(TlsConfig { client_ca: Some(_), .. }) => ", TLS with client certificates",
    }
}

/// Without its address, which may hold a key.
fn write_webhook(f: &mut fmt::Formatter<'_>, webhook: &WebhookConfig) -> fmt::Result {
    let WebhookConfig { name, kind, secret, topics, quiet, .. } = webhook;
    let signed = if secret.is_some() { ", signed" } else { "" };
    let topics: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
    let (kind, topics, quiet) = (kind.as_str(), topics.join(", "), format_duration(*quiet));
    writeln!(f, "webhook  {name}, {kind}{signed}: {topics}; the same again after {quiet}")
}

fn write_source(f: &mut fmt::Formatter<'_>, source: &TokenSource) -> fmt::Result {
    let request = &source.request;
    let method = match request.method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    // Host and path only: secrets stand in the rest.
    let host = source.url.host_str().unwrap_or_default();
    write!(f, "  {}  {method} {}://{host}", source.name, source.url.scheme())?;
    if let Some(port) = source.url.port() {
        write!(f, ":{port}")?;
    }
    // Placeholders as they were written.
    write!(f, "{}", source.url.path().replace("%7B%7B", "{{").replace("%7D%7D", "}}"))?;
    match &request.body {
        Body::Empty => writeln!(f)?,
        Body::Json(_) => writeln!(f, " (JSON)")?,
        Body::Form(_) => writeln!(f, " (form)")?,
    }
    if !source.hosts.is_empty() {
        let hosts: Vec<String> = source.hosts.iter().map(ToString::to_string).collect();
        writeln!(f, "      or from {} while that host fails", hosts.join(", "))?;
    }
    if !source.dependencies.is_empty() {
        let names: Vec<&str> = source.dependencies.iter().map(|name| name.as_str()).collect();
        let follow = if source.follow { ", and is fetched anew when that changes" } else { "" };
        writeln!(f, "      uses {}{follow}", names.join(", "))?;
    }
    if let Some(field) = &source.answer.capture {
        writeln!(f, "      sends back what each answer has in {field}")?;
    }
    write_account(f, source)?;
    write_timing(f, &source.policy)
}

fn write_account(f: &mut fmt::Formatter<'_>, source: &TokenSource) -> fmt::Result {
    if source.account.name.is_empty() && source.policy.daily_limit.is_none() {
        return Ok(());
    }
    let account = if source.account.name.is_empty() { "(none)" } else { &*source.account.name };
    write!(f, "      account {account}")?;
    match source.policy.daily_limit {
        Some(limit) => writeln!(f, ", {limit} calls a day at most"),
        None => writeln!(f),
    }
}

fn write_timing(f: &mut fmt::Formatter<'_>, policy: &RefreshPolicy) -> fmt::Result {
    match policy.rotation {
        Rotation::Rotating => {
            let overlap = format_duration(policy.overlap);
            write!(f, "      each fetch makes a new value and ends the old one after {overlap}")?;
        }
        Rotation::Sticky { window } => {
            let window = format_duration(window);
            write!(f, "      a fetch gives the same value until the last {window} of its life")?;
        }
        Rotation::Nominal => f.write_str(
            "      a fetch gives the same value until its end, counted from when it was first seen",
        )?,
        Rotation::Sliding => {
            f.write_str("      a fetch gives the same value and lengthens its life")?;
        }
        Rotation::Independent => {
            f.write_str("      each fetch makes a new value and leaves the old one alone")?;
        }
    }
    if let Some(lifetime) = policy.lifetime {
        write!(f, "; lifetime {} at most", format_duration(lifetime))?;
    }
    writeln!(f)?;
    f.write_str("      ")?;
    match policy.rotation {
        Rotation::Sticky { .. } => f.write_str("renewed when that begins")?,
        _ => {
            let before = format_duration(policy.renew_before);
            write!(f, "renewed {before} before its end (a quarter of its life at most)")?;
        }
    }
    writeln!(
        f,
        ", tried hard {} before it (a twentieth at most), cooldown {}, timeout {}",
        format_duration(policy.must_renew_before),
        format_duration(policy.cooldown),
        format_duration(policy.timeout),
    )
}
