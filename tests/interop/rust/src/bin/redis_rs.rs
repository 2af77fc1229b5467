//! The crate `redis`: its connection manager, over RESP2 or RESP3.

use futures_util::StreamExt;
use interop::{
    CHANNEL, KEYSPACE, Tokens, both_channels, resp3, restart, sensible, steps, until, variable,
};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::caching::CacheConfig;
use redis::{
    AsyncCommands, Client, ErrorKind, PushKind, RedisResult, ServerErrorKind, from_redis_value,
    pipe,
};

struct Script {
    client: Client,
    connection: ConnectionManager,
    tokens: Tokens,
}

impl Script {
    async fn take(&mut self, step: &str) -> RedisResult<()> {
        match step {
            "connect" => assert_eq!(self.connection.ping::<String>().await?, "PONG"),
            "read" => self.read().await?,
            "ttl" => {
                let seconds = self.connection.ttl("access_token").await?;
                sensible(seconds, self.connection.pttl("access_token").await?);
            }
            "pipeline" => self.both(&mut pipe()).await?,
            "transaction" => self.both(pipe().atomic()).await?,
            "missing" => {
                assert_eq!(self.connection.get::<_, Option<String>>("nobody").await?, None);
                assert_eq!(self.connection.ttl::<_, i64>("nobody").await?, -2);
            }
            "refused" => {
                let error = self.connection.set::<_, _, ()>("access_token", "x").await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly));
                self.read().await?;
            }
            "reconnect" => {
                restart();
                until(async || self.read().await).await;
            }
            "subscribe" if resp3() => self.subscribe_on_the_same_connection().await?,
            "subscribe" => self.subscribe().await?,
            "cache" => self.cache().await?,
            _ => panic!("no step {step}"),
        }
        Ok(())
    }

    async fn read(&mut self) -> RedisResult<()> {
        let Tokens { access_token, ticket } = &self.tokens;
        assert_eq!(&self.connection.get::<_, String>("access_token").await?, access_token);
        let both: [String; 2] = self.connection.mget(&["access_token", "ticket"]).await?;
        assert_eq!(both, [access_token.clone(), ticket.clone()]);
        Ok(())
    }

    async fn both(&mut self, commands: &mut redis::Pipeline) -> RedisResult<()> {
        commands.get("access_token").ttl("access_token");
        let (value, ttl): (String, i64) = commands.query_async(&mut self.connection).await?;
        assert_eq!(value, self.tokens.access_token);
        sensible(ttl, ttl * 1000);
        Ok(())
    }

    async fn subscribe(&mut self) -> RedisResult<()> {
        let mut subscriber = self.client.get_async_pubsub().await?;
        subscriber.subscribe(&[CHANNEL, KEYSPACE]).await?;
        let generation = self.tokens.rotate();
        let mut messages = subscriber.on_message();
        both_channels(&generation, async || {
            let message = messages.next().await.expect("a message");
            let payload = message.get_payload().expect("a text");
            (message.get_channel_name().to_owned(), payload)
        })
        .await;
        self.read().await
    }

    async fn subscribe_on_the_same_connection(&mut self) -> RedisResult<()> {
        let (sender, mut pushes) = tokio::sync::mpsc::unbounded_channel();
        let config = ConnectionManagerConfig::new().set_push_sender(sender);
        let mut subscriber = self.client.get_connection_manager_with_config(config).await?;
        subscriber.subscribe(&[CHANNEL, KEYSPACE]).await?;
        let generation = self.tokens.rotate();
        both_channels(&generation, async || {
            loop {
                let push = pushes.recv().await.expect("a push");
                if push.kind == PushKind::Message {
                    let mut texts =
                        push.data.into_iter().map(|part| from_redis_value(part).expect("a text"));
                    return (texts.next().expect("a channel"), texts.next().expect("a payload"));
                }
            }
        })
        .await;
        // It is the same connection that reads.
        assert_eq!(subscriber.get::<_, String>("access_token").await?, self.tokens.access_token);
        Ok(())
    }

    async fn cache(&mut self) -> RedisResult<()> {
        let config = ConnectionManagerConfig::new().set_cache_config(CacheConfig::new());
        let mut cached = self.client.get_connection_manager_with_config(config).await?;
        for _ in 0..2 {
            assert_eq!(cached.get::<_, String>("access_token").await?, self.tokens.access_token);
        }
        assert_eq!(cached.get_cache_statistics().map(|statistics| statistics.hit), Some(1));
        self.tokens.rotate();
        until(async || match cached.get::<_, String>("access_token").await {
            Ok(value) if value == self.tokens.access_token => Ok(()),
            other => Err(other),
        })
        .await;
        Ok(())
    }
}

#[tokio::main]
async fn main() {
    let protocol = if resp3() { "?protocol=resp3" } else { "" };
    let url = format!("redis://{}:{}/{protocol}", variable("HOST"), variable("PORT"));
    let client = Client::open(url).expect("a URL");
    let connection = client.get_connection_manager().await.expect("a connection");
    let mut script = Script { client, connection, tokens: Tokens::of_environment() };
    for step in steps() {
        script.take(&step).await.expect(&step);
        println!("ok {step}");
    }
}
