//! The crate `fred`, over RESP2 or RESP3.

use std::time::Duration;

use fred::prelude::*;
use fred::types::RespVersion;
use interop::{
    CHANNEL, KEYSPACE, PATIENCE, Tokens, both_channels, resp3, restart, sensible, steps, until,
    variable,
};
use tokio::time::timeout;

struct Script {
    client: Client,
    builder: Builder,
    tokens: Tokens,
}

impl Script {
    async fn take(&mut self, step: &str) -> FredResult<()> {
        match step {
            "connect" => assert_eq!(self.client.ping::<String>(None).await?, "PONG"),
            "read" => self.read().await?,
            "ttl" => {
                let seconds = self.client.ttl("access_token").await?;
                sensible(seconds, self.client.pttl("access_token").await?);
            }
            "pipeline" => {
                let commands = self.client.pipeline();
                let _: () = commands.get("access_token").await?;
                let _: () = commands.ttl("access_token").await?;
                self.both(commands.all().await?);
            }
            "transaction" => {
                let commands = self.client.multi();
                let _: () = commands.get("access_token").await?;
                let _: () = commands.ttl("access_token").await?;
                self.both(commands.exec(true).await?);
            }
            "missing" => {
                assert_eq!(self.client.get::<Option<String>, _>("nobody").await?, None);
                assert_eq!(self.client.ttl::<i64, _>("nobody").await?, -2);
            }
            "refused" => {
                let set = self.client.set::<(), _, _>("access_token", "x", None, None, false).await;
                let error = set.unwrap_err();
                assert!(error.details().starts_with("READONLY "), "{error}");
                self.read().await?;
            }
            "reconnect" => {
                restart();
                until(async || self.read().await).await;
            }
            "subscribe" => self.subscribe().await?,
            "cache" => self.cache().await?,
            _ => panic!("no step {step}"),
        }
        Ok(())
    }

    async fn read(&self) -> FredResult<()> {
        let Tokens { access_token, ticket } = &self.tokens;
        assert_eq!(&self.client.get::<String, _>("access_token").await?, access_token);
        let both: Vec<String> = self.client.mget(vec!["access_token", "ticket"]).await?;
        assert_eq!(both, [access_token.clone(), ticket.clone()]);
        Ok(())
    }

    fn both(&self, (value, ttl): (String, i64)) {
        assert_eq!(value, self.tokens.access_token);
        sensible(ttl, ttl * 1000);
    }

    async fn subscribe(&mut self) -> FredResult<()> {
        let subscriber = self.builder.build_subscriber_client()?;
        subscriber.init().await?;
        let mut messages = subscriber.message_rx();
        // It makes keyspace events of messages on such channels.
        let mut events = subscriber.keyspace_event_rx();
        subscriber.subscribe(vec![CHANNEL, KEYSPACE]).await?;
        let generation = self.tokens.rotate();
        both_channels(&generation, async || {
            tokio::select! {
                message = messages.recv() => {
                    let message = message.expect("a message");
                    (message.channel.to_string(), message.value.convert().expect("a text"))
                }
                event = events.recv() => {
                    let event = event.expect("an event");
                    assert_eq!(event.key.as_str(), Some("access_token"));
                    (KEYSPACE.to_owned(), event.operation)
                }
            }
        })
        .await;
        self.read().await
    }

    /// It keeps no values; it tells whoever does that one has changed.
    async fn cache(&mut self) -> FredResult<()> {
        let tracking = self.builder.build()?;
        tracking.init().await?;
        let mut invalidations = tracking.invalidation_rx();
        tracking.start_tracking(None, false, false, false, false).await?;
        assert_eq!(tracking.get::<String, _>("access_token").await?, self.tokens.access_token);
        self.tokens.rotate();
        let invalidation = timeout(PATIENCE, invalidations.recv()).await;
        let keys = invalidation.expect("an invalidation within ten seconds").expect("one").keys;
        assert_eq!(keys[0].as_str(), Some("access_token"));
        assert_eq!(tracking.get::<String, _>("access_token").await?, self.tokens.access_token);
        Ok(())
    }
}

#[tokio::main]
async fn main() {
    let port = variable("PORT").parse().expect("a port");
    let mut config = Config {
        server: ServerConfig::new_centralized(variable("HOST"), port),
        ..Config::default()
    };
    if resp3() {
        config.version = RespVersion::RESP3;
    }
    let mut builder = Builder::from_config(config);
    // By default it does not reconnect.
    builder.set_policy(ReconnectPolicy::new_constant(0, 100));
    builder.with_connection_config(|config| config.connection_timeout = Duration::from_secs(5));
    let client = builder.build().expect("a client");
    client.init().await.expect("a connection");
    let mut script = Script { client, builder, tokens: Tokens::of_environment() };
    for step in steps() {
        script.take(&step).await.expect(&step);
        println!("ok {step}");
    }
}
