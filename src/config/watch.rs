//! What others may know of the server's condition: when it is ready, and where its metrics are.

use std::collections::BTreeSet;
use std::time::Duration;

use super::clients::known;
use super::lower::Lowering;
use super::raw::{RawMetrics, RawReady};
use super::{HttpConfig, MetricsConfig, ReadyConfig, RespConfig};

impl Lowering<'_> {
    /// `ready`; `names` are those of all sources.
    pub(super) fn ready(&mut self, raw: RawReady, names: &BTreeSet<String>) -> ReadyConfig {
        let wanted = self.list("ready.sources", raw.sources, "a list such as [\"access_token\"]");
        if wanted.as_ref().is_some_and(Vec::is_empty) {
            let what =
                "is empty, so the server would always be ready; leave it out for all sources";
            self.mistake("ready.sources", what);
        }
        let sources = wanted.map(|items| {
            let name = |(at, item): (String, _)| {
                let name = self.text(&at, Some(item))?;
                known(&at, &name, names, self)
            };
            items.into_iter().filter_map(name).collect()
        });
        ReadyConfig { sources, life: self.duration("ready.life", raw.life, Duration::ZERO) }
    }

    /// `metrics`.
    pub(super) fn metrics(
        &mut self,
        raw: RawMetrics,
        http: &HttpConfig,
        resp: Option<&RespConfig>,
    ) -> Option<MetricsConfig> {
        let public = self.flag("metrics.public", raw.public, false);
        raw.bind.as_ref()?;
        let example = std::net::SocketAddr::from(([127, 0, 0, 1], 12125));
        let bind = self.address("metrics.bind", raw.bind, example);
        if !bind.ip().is_loopback() && !public {
            self.mistake(
                "metrics.bind",
                format!(
                    "{bind} can be reached from other machines, and no key is asked for there; \
                     bind it to 127.0.0.1, leave it out (/metrics on http.bind takes a key), or set \
                     metrics.public to true"
                ),
            );
        }
        let others = [Some(("http.bind", http.bind)), resp.map(|resp| ("resp.bind", resp.bind))];
        for (other, address) in others.into_iter().flatten() {
            if address == bind && bind.port() != 0 {
                let what = format!("is the address of {other}; give them different ports");
                self.mistake("metrics.bind", what);
            }
        }
        Some(MetricsConfig { bind, public })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use crate::config::{self, Environment};

    fn parse(groups: &str) -> Result<config::Config, String> {
        let text = format!(
            r#"({groups} token_sources: {{"access_token": (url: "https://h/x"), "ticket": (url: "https://h/y")}})"#
        );
        let environment = Environment::default();
        config::parse(&text, Path::new("c.ron"), &environment).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn readiness_is_of_all_sources_and_metrics_take_a_key_unless_it_is_said_otherwise() {
        let config = parse("").unwrap();
        assert_eq!((config.ready.sources, config.ready.life), (None, Duration::ZERO));
        assert_eq!(config.metrics, None);
        let config =
            parse(r#"ready: (sources: ["ticket"], life: "30s"), metrics: (bind: "127.0.0.1:0"),"#);
        let config = config.unwrap();
        let names: Vec<_> =
            config.ready.sources.iter().flatten().map(|name| name.as_str()).collect();
        assert_eq!((names, config.ready.life), (vec!["ticket"], Duration::from_secs(30)));
        assert_eq!(config.metrics.unwrap().bind.port(), 0);
        assert!(parse(r#"metrics: (bind: "0.0.0.0:9", public: true),"#).is_ok());
    }

    #[test]
    fn every_mistake_is_named_with_its_path() {
        for (groups, expected) in [
            (
                r#"ready: (sources: ["tickt"]),"#,
                "ready.sources.0: no token source is called \"tickt\"; did you mean `ticket`?",
            ),
            ("ready: (sources: []),", "ready.sources: is empty"),
            (r#"ready: (life: 5),"#, "ready.life: is a number, but a duration"),
            (r#"ready: (source: []),"#, "ready.source: unknown setting; did you mean `sources`?"),
            (
                r#"metrics: (bind: "0.0.0.0:9090"),"#,
                "metrics.bind: 0.0.0.0:9090 can be reached from other machines",
            ),
            (r#"metrics: (bind: "9090"),"#, "metrics.bind: \"9090\" is no address"),
            (r#"metrics: (bind: "127.0.0.1:12123"),"#, "metrics.bind: is the address of http.bind"),
            (r#"metrics: (bind: "127.0.0.1:6379"),"#, "metrics.bind: is the address of resp.bind"),
            (
                r#"metrics: (pubic: true),"#,
                "metrics.pubic: unknown setting; did you mean `public`?",
            ),
        ] {
            let wrong = parse(groups).unwrap_err();
            assert!(wrong.contains(expected), "{expected}\n\n{wrong}");
        }
    }
}
