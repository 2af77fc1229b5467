//! What a config would do, for the `check` sub-command: in words, without a secret. Starts nothing.

use std::fmt;

use crate::config::{Config, Method, Rotation, TokenSource};
use crate::duration::format_duration;

/// Writes what `config` would do.
#[derive(Debug)]
pub struct Plan<'a>(pub &'a Config);

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        writeln!(
            f,
            "http     {}, {} connections at most",
            config.http.bind, config.http.max_connections
        )?;
        match &config.resp {
            Some(resp) => {
                let password = if resp.password.is_some() { "with" } else { "without" };
                let most = resp.max_connections;
                writeln!(
                    f,
                    "resp     {}, {password} password, {most} connections at most",
                    resp.bind
                )?;
            }
            None => writeln!(f, "resp     off")?,
        }
        writeln!(f, "store    {}", config.store.path.display())?;
        match &config.request_secret {
            Some(_) => writeln!(f, "secret   set in the config")?,
            None => {
                writeln!(f, "secret   made at the first start and kept in the store directory")?
            }
        }
        writeln!(f, "sources  {}, in order of dependency:", config.sources.len())?;
        config.sources.iter().try_for_each(|source| write_source(f, source))
    }
}

fn write_source(f: &mut fmt::Formatter<'_>, source: &TokenSource) -> fmt::Result {
    let method = match source.method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    // Host and path only: secrets stand in the rest.
    let host = source.url.host_str().unwrap_or_default();
    write!(f, "  {}  {method} {}://{host}", source.name, source.url.scheme())?;
    if let Some(port) = source.url.port() {
        write!(f, ":{port}")?;
    }
    writeln!(f, "{}", source.url.path())?;
    if !source.dependencies.is_empty() {
        let names: Vec<&str> = source.dependencies.iter().map(|name| name.as_str()).collect();
        writeln!(f, "      uses {}", names.join(", "))?;
    }
    let policy = &source.policy;
    write!(
        f,
        "      renewed {} before its end (a quarter of its life at most), cooldown {}, timeout {}",
        format_duration(policy.renew_before),
        format_duration(policy.cooldown),
        format_duration(policy.timeout),
    )?;
    if policy.rotation == Rotation::Rotating {
        write!(f, ", a fetch ends the old value after {}", format_duration(policy.overlap))?;
    }
    if let Some(lifetime) = policy.lifetime {
        write!(f, ", lifetime {} at most", format_duration(lifetime))?;
    }
    writeln!(f)
}
