//! What clients are told without asking, and what they wait for: notifications, invalidations, WATCH,
//! refreshes, reports.

use super::*;
use crate::refresh::{RefreshError, Refused, Wish};

const HOUR: Duration = Duration::from_secs(3_600);

impl Server {
    /// Publishes another token of the source at `at` of [`VALUES`].
    fn rotate(&self, at: usize, generation: u64) {
        let value = format!("value{generation}");
        self.publishers[at].publish(published(self.clock.now(), &value, generation, HOUR));
    }

    async fn say(&self, words: &[&str], expected: &str) -> Peer {
        let mut peer = self.connect().await;
        peer.say(words, expected).await;
        peer
    }
}

impl Peer {
    /// Sends one request, and expects this answer; `|` stands for a line's end.
    async fn say(&mut self, words: &[&str], expected: &str) {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.send(&array(&words)).await;
        self.hear(expected).await;
    }

    async fn hear(&mut self, expected: &str) {
        self.expect(expected.replace('|', "\r\n").as_bytes(), expected).await;
    }

    /// Nothing was told that was not expected.
    async fn hears_nothing(&mut self) {
        // It would have been left before the answer.
        self.say(&["ECHO", "end"], "$3|end|").await;
    }
}

#[tokio::test]
async fn subscribers_are_told_of_another_token() {
    let server = Setup::default().start().await;
    let mut two =
        server.say(&["SUBSCRIBE", "token:ticket"], "*3|$9|subscribe|$12|token:ticket|:1|").await;
    let mut three = server.connect().await;
    three.send(&array(&[b"HELLO", b"3"])).await;
    three.hear("%7|$6|server|$5|redis|$7|version|$5|7.4.0|$5|proto|:3|$2|id|:2|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0|").await;
    three.say(&["SUBSCRIBE", "token:ticket"], ">3|$9|subscribe|$12|token:ticket|:1|").await;
    let mut pattern =
        server.say(&["PSUBSCRIBE", "token:*"], "*3|$10|psubscribe|$7|token:*|:1|").await;
    server.rotate(1, 7);
    two.hear("*3|$7|message|$12|token:ticket|$1|7|").await;
    three.hear(">3|$7|message|$12|token:ticket|$1|7|").await;
    pattern.hear("*4|$8|pmessage|$7|token:*|$12|token:ticket|$1|7|").await;
    // The same token with more life is no news, another source's token is none to these.
    server.rotate(1, 7);
    server.rotate(0, 8);
    pattern.hear("*4|$8|pmessage|$7|token:*|$18|token:access_token|$1|8|").await;
    three.hears_nothing().await;
    server.rotate(1, 9);
    two.hear("*3|$7|message|$12|token:ticket|$1|9|").await;
    two.say(&["UNSUBSCRIBE"], "*3|$11|unsubscribe|$12|token:ticket|:0|").await;
    server.rotate(1, 10);
    pattern.hear("*4|$8|pmessage|$7|token:*|$12|token:ticket|$1|9|").await;
    pattern.hear("*4|$8|pmessage|$7|token:*|$12|token:ticket|$2|10|").await;
    two.hears_nothing().await;
}

#[tokio::test]
async fn keyspace_notifications_are_those_of_the_database_that_was_selected() {
    let server = Setup::default().start().await;
    let mut exact = server
        .say(
            &["SUBSCRIBE", "__keyspace@3__:ticket"],
            "*3|$9|subscribe|$21|__keyspace@3__:ticket|:1|",
        )
        .await;
    let mut all =
        server.say(&["PSUBSCRIBE", "__key*@*__:*"], "*3|$10|psubscribe|$12|__key*@*__:*|:1|").await;
    let mut fifth = server.say(&["SELECT", "5"], "+OK|").await;
    fifth.say(&["PSUBSCRIBE", "__keyevent@*"], "*3|$10|psubscribe|$12|__keyevent@*|:1|").await;
    server.rotate(1, 7);
    exact.hear("*3|$7|message|$21|__keyspace@3__:ticket|$3|set|").await;
    all.hear("*4|$8|pmessage|$12|__key*@*__:*|$21|__keyspace@0__:ticket|$3|set|").await;
    all.hear("*4|$8|pmessage|$12|__key*@*__:*|$18|__keyevent@0__:set|$6|ticket|").await;
    fifth.hear("*4|$8|pmessage|$12|__keyevent@*|$18|__keyevent@5__:set|$6|ticket|").await;
}

#[tokio::test]
async fn the_end_of_a_token_and_of_a_source_are_told() {
    let mut server = Setup { ticking: true, ..Setup::default() }.start().await;
    let mut peer = server
        .say(&["PSUBSCRIBE", "__keyspace@0__:*"], "*3|$10|psubscribe|$16|__keyspace@0__:*|:1|")
        .await;
    let now = server.clock.now();
    server.publishers[2].publish(published(now, "v", 3, Duration::from_millis(30)));
    peer.hear("*4|$8|pmessage|$16|__keyspace@0__:*|$20|__keyspace@0__:empty|$3|set|").await;
    peer.hear("*4|$8|pmessage|$16|__keyspace@0__:*|$20|__keyspace@0__:empty|$7|expired|").await;
    server.rotate(2, 4);
    peer.hear("*4|$8|pmessage|$16|__keyspace@0__:*|$20|__keyspace@0__:empty|$3|set|").await;
    server.roster.serve([]);
    for _ in 0..3 {
        // In any order.
        peer.hear("*4|$8|pmessage|$16|__keyspace@0__:*|$").await;
        let mut rest = Vec::new();
        while !rest.ends_with(b"$3\r\ndel\r\n") {
            rest.push(peer.stream.read_u8().await.unwrap());
        }
    }
}

#[tokio::test]
async fn nobody_is_told_of_what_he_may_not_see() {
    let shop = ClientConfig {
        name: "shop".into(),
        keys: vec![Secret::new("k")],
        sources: Some(vec![SourceName::parse("access_token").unwrap()]),
        addresses: None,
    };
    let setup = Setup { password: Some("pw"), clients: vec![shop], ..Setup::default() };
    let server = setup.start().await;
    let mut peer = server.say(&["AUTH", "shop", "k"], "+OK|").await;
    peer.say(&["PSUBSCRIBE", "*"], "*3|$10|psubscribe|$1|*|:1|").await;
    server.rotate(1, 7);
    server.rotate(0, 8);
    peer.hear("*4|$8|pmessage|$1|*|$27|__keyspace@0__:access_token|$3|set|").await;
    peer.hear("*4|$8|pmessage|$1|*|$18|__keyevent@0__:set|$12|access_token|").await;
    peer.hear("*4|$8|pmessage|$1|*|$18|token:access_token|$1|8|").await;
}

#[tokio::test]
async fn who_caches_is_told_once_of_what_it_has_read() {
    let server = Setup::default().start().await;
    let mut peer = server.connect().await;
    let hello = array(&[b"HELLO", b"3"]);
    peer.send(&hello).await;
    peer.hear("%7|$6|server|$5|redis|$7|version|$5|7.4.0|$5|proto|:3|$2|id|:1|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0|").await;
    peer.say(&["CLIENT", "TRACKING", "ON"], "+OK|").await;
    server.rotate(1, 7);
    peer.hears_nothing().await;
    peer.say(&["MGET", "ticket", "none"], "*2|$6|value7|_|").await;
    server.rotate(0, 8);
    server.rotate(1, 9);
    peer.hear(">2|$10|invalidate|*1|$6|ticket|").await;
    server.rotate(1, 10);
    peer.hears_nothing().await;
    // In a transaction too, and by commands that only ask for its life.
    peer.say(&["MULTI"], "+OK|").await;
    peer.say(&["STRLEN", "ticket"], "+QUEUED|").await;
    peer.say(&["EXEC"], "*1|:7|").await;
    server.rotate(1, 11);
    peer.hear(">2|$10|invalidate|*1|$6|ticket|").await;
    // Only what was asked for in this mode.
    peer.say(&["CLIENT", "TRACKING", "OFF"], "+OK|").await;
    peer.say(&["CLIENT", "TRACKING", "ON", "OPTIN"], "+OK|").await;
    peer.say(&["STRLEN", "ticket"], ":7|").await;
    peer.say(&["CLIENT", "CACHING", "YES"], "+OK|").await;
    peer.say(&["STRLEN", "access_token"], ":6|").await;
    server.rotate(1, 12);
    server.rotate(0, 13);
    peer.hear(">2|$10|invalidate|*1|$12|access_token|").await;
    // A reload may have brought the key that was not there.
    let mut server = server;
    server.roster.serve([]);
    peer.hear(">2|$10|invalidate|_|").await;
}

#[tokio::test]
async fn a_broadcast_and_a_redirection_are_told() {
    let server = Setup::default().start().await;
    let mut listener = server.say(&["CLIENT", "ID"], ":1|").await;
    listener
        .say(&["SUBSCRIBE", "__redis__:invalidate"], "*3|$9|subscribe|$20|__redis__:invalidate|:1|")
        .await;
    let mut reader = server
        .say(&["CLIENT", "TRACKING", "ON", "REDIRECT", "1", "BCAST", "PREFIX", "tick"], "+OK|")
        .await;
    server.rotate(0, 7);
    server.rotate(1, 8);
    listener.hear("*3|$7|message|$20|__redis__:invalidate|*1|$6|ticket|").await;
    server.rotate(1, 9);
    listener.hear("*3|$7|message|$20|__redis__:invalidate|*1|$6|ticket|").await;
    // The reader gets to know when nobody listens any more.
    listener.send(b"QUIT\r\n").await;
    listener.hear("+OK|").await;
    listener.expect_end("it has left").await;
    loop {
        server.rotate(1, 10);
        reader.send(&array(&[b"CLIENT", b"TRACKINGINFO"])).await;
        reader.hear("*6|$5|flags|*").await;
        let flags = reader.stream.read_u8().await.unwrap();
        let mut rest = Vec::new();
        while !rest.ends_with(b"$4\r\ntick\r\n") {
            rest.push(reader.stream.read_u8().await.unwrap());
        }
        if flags == b'3' {
            assert!(String::from_utf8(rest).unwrap().contains("broken_redirect"));
            break;
        }
    }
}

#[tokio::test]
async fn a_transaction_is_not_run_when_a_watched_token_has_changed() {
    let server = Setup::default().start().await;
    let mut peer = server.say(&["WATCH", "ticket", "empty"], "+OK|").await;
    server.rotate(0, 7);
    peer.say(&["MULTI"], "+OK|").await;
    peer.say(&["GET", "ticket"], "+QUEUED|").await;
    peer.say(&["EXEC"], "*1|$4|tick|").await;
    peer.say(&["WATCH", "ticket"], "+OK|").await;
    peer.say(&["MULTI"], "+OK|").await;
    server.rotate(1, 8);
    peer.say(&["EXEC"], "*-1|").await;
    peer.say(&["WATCH", "empty"], "+OK|").await;
    server.rotate(2, 9);
    peer.say(&["MULTI"], "+OK|").await;
    peer.say(&["EXEC"], "*-1|").await;
    peer.say(&["WATCH", "empty"], "+OK|").await;
    server.rotate(2, 10);
    peer.say(&["UNWATCH"], "+OK|").await;
    peer.say(&["MULTI"], "+OK|").await;
    peer.say(&["EXEC"], "*0|").await;
}

#[tokio::test]
async fn a_refresh_is_waited_for_and_what_comes_after_it_waits_too() {
    let mut server = Setup::default().start().await;
    let mut peer = server.connect().await;
    let requests = [
        array(&[b"GET", b"ticket"]),
        array(&[b"TOKEN.REFRESH", b"ticket", b"STALE", b"tick"]),
        array(&[b"GET", b"ticket"]),
        array(&[b"TOKEN.REFRESH", b"ticket"]),
        array(&[b"PING"]),
    ];
    peer.send(&requests.concat()).await;
    peer.hear("$4|tick|").await;
    let request = server.queues[1].next().await;
    assert_eq!(request.wish, Wish::Other { refused: Refused::parse("tick"), force: false });
    // Another client is served meanwhile.
    let mut other = server.say(&["GET", "ticket"], "$4|tick|").await;
    let new = published(server.clock.now(), "new", 7, HOUR);
    server.publishers[1].publish(Arc::clone(&new));
    request.reply.send(Ok(new)).unwrap();
    peer.hear("$3|new|$3|new|").await;
    let request = server.queues[1].next().await;
    assert_eq!(request.wish, Wish::Any { newer_than: Some(Generation(7)), force: false });
    request.reply.send(Err(RefreshError::TooMany)).unwrap();
    peer.hear("-ERR too many refreshes are waiting, try again later|+PONG|").await;
    // Whoever does not want the answer does not get it.
    other
        .send(
            &[
                array(&[b"CLIENT", b"REPLY", b"SKIP"]),
                array(&[b"TOKEN.REFRESH", b"ticket"]),
                array(&[b"PING"]),
            ]
            .concat(),
        )
        .await;
    server.queues[1].next().await.reply.send(Err(RefreshError::TooMany)).unwrap();
    other.hear("+PONG|").await;
}

#[tokio::test]
async fn a_deleted_token_is_one_that_was_refused() {
    let setup = Setup { writes: Writes::Report, ..Setup::default() };
    let mut server = setup.start().await;
    let mut peer = server.say(&["GET", "ticket"], "$4|tick|").await;
    peer.send(&[array(&[b"DEL", b"ticket", b"none"]), array(&[b"GET", b"ticket"])].concat()).await;
    let request = server.queues[1].next().await;
    assert_eq!(
        request.wish,
        Wish::Other { refused: Refused::value(&Secret::new("tick")), force: false }
    );
    let new = published(server.clock.now(), "new", 7, HOUR);
    server.publishers[1].publish(Arc::clone(&new));
    request.reply.send(Ok(new)).unwrap();
    peer.hear(":1|$3|new|").await;
    // What was refused is not served any more: nothing is to be done.
    server.rotate(1, 8);
    peer.say(&["UNLINK", "ticket"], ":1|").await;
    peer.say(&["GET", "ticket"], "$6|value8|").await;
    peer.send(&array(&[b"EXPIRE", b"ticket", b"0"])).await;
    server.queues[1].next().await.reply.send(Err(RefreshError::TooMany)).unwrap();
    peer.hear(":1|").await;
    // In a transaction nobody waits.
    peer.say(&["GET", "ticket"], "$6|value8|").await;
    peer.say(&["MULTI"], "+OK|").await;
    peer.say(&["DEL", "ticket"], "+QUEUED|").await;
    peer.say(&["SETEX", "ticket", "7200", "x"], "+QUEUED|").await;
    peer.say(&["EXEC"], "*2|:1|+OK|").await;
    server.queues[1].next().await.reply.send(Err(RefreshError::TooMany)).unwrap();
    // Setting changes nothing, for tokens; other keys cannot be kept.
    for (words, expected) in [
        (&["SET", "ticket", "x", "EX", "7200"][..], "+OK|"),
        (&["PSETEX", "ticket", "7200", "x"], "+OK|"),
        (&["SETEX", "ticket", "y", "x"], "-ERR value is not an integer or out of range|"),
        (&["EXPIRE", "ticket", "100"], ":1|"),
        (&["PEXPIRE", "none", "100"], ":0|"),
        (&["EXPIRE", "ticket", "x"], "-ERR value is not an integer or out of range|"),
        (&["DEL", "none"], ":0|"),
        (&["SET", "none", "x"], "-READONLY You can't write against a read only replica.|"),
        (&["INCR", "ticket"], "-READONLY You can't write against a read only replica.|"),
        (&["GET", "ticket"], "$6|value8|"),
    ] {
        peer.say(words, expected).await;
    }
}

#[tokio::test]
async fn who_was_given_nothing_reports_only_a_token_that_is_old_enough() {
    let setup = Setup { writes: Writes::Report, ..Setup::default() };
    let mut server = setup.start().await;
    let now = server.clock.now();
    let aged = |seconds: u64| {
        let mut token = published(now, "aged", 7 + seconds, HOUR);
        let record = &mut Arc::get_mut(&mut token).unwrap().record;
        record.fetched_at = now.wall - Duration::from_secs(seconds);
        Arc::get_mut(&mut token).unwrap().overlap = Some(Duration::from_secs(300));
        token
    };
    server.publishers[1].publish(aged(200));
    let mut peer = server.say(&["DEL", "ticket"], ":1|").await;
    server.publishers[1].publish(aged(400));
    peer.send(&array(&[b"DEL", b"ticket"])).await;
    server.queues[1].next().await.reply.send(Err(RefreshError::TooMany)).unwrap();
    peer.hear(":1|").await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_cut() {
    let server = Setup::default().start().await;
    let mut deaf = server.connect().await;
    for stars in 900..920 {
        // Each message repeats the pattern.
        deaf.send(&array(&[b"PSUBSCRIBE", "*".repeat(stars).as_bytes()])).await;
    }
    let mut other = server.connect().await;
    for generation in 2..2_000 {
        server.rotate(1, generation);
        other.send(b"PUBSUB NUMPAT\r\n").await;
        other.hear(":").await;
        let mut count = Vec::new();
        while !count.ends_with(b"\r\n") {
            count.push(other.stream.read_u8().await.unwrap());
        }
        if generation > 20 && count == b"0\r\n" {
            return;
        }
    }
    panic!("it was never cut");
}

#[tokio::test]
async fn what_a_lost_connection_was_owed_is_nobody_elses() {
    let mut server = Setup::default().start().await;
    let mut victim = server.say(&["GET", "ticket"], "$4|tick|").await;
    victim.send(&array(&[b"TOKEN.REFRESH", b"ticket"])).await;
    let request = server.queues[1].next().await;
    let mut other = server.say(&["PING"], "+PONG|").await;
    // Reset, not closed: the write of the answer fails.
    socket2::SockRef::from(&victim.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(victim);
    request.reply.send(Ok(published(server.clock.now(), "secret", 7, HOUR))).unwrap();
    // The session of the one that is gone has ended by the time that this says 1.
    loop {
        other.send(b"INFO clients\r\n").await;
        let mut info = Vec::new();
        while !info.ends_with(b"tracking_clients:0\r\n\r\n") {
            info.push(other.stream.read_u8().await.unwrap());
        }
        let info = String::from_utf8(info).unwrap();
        assert!(info.starts_with('$') && !info.contains("secret"), "{info}");
        if info.contains("connected_clients:1\r\n") {
            break;
        }
    }
    server.say(&["PING"], "+PONG|").await;
    other.say(&["PING"], "+PONG|").await;
}

#[tokio::test]
async fn a_transaction_cannot_ask_for_any_amount() {
    let server = Setup::default().start().await;
    let mut peer = server.say(&["MULTI"], "+OK|").await;
    const REQUESTS: usize = 1_000;
    peer.send(&array(&[b"COMMAND", b"DOCS"]).repeat(REQUESTS)).await;
    for _ in 0..REQUESTS {
        peer.hear("+QUEUED|").await;
    }
    peer.send(&array(&[b"EXEC"])).await;
    peer.hear("*1000|").await;
    // Those that were not run say so, and the connection goes on.
    peer.send(&array(&[b"ECHO", b"the end"])).await;
    let (mut all, mut part) = (Vec::new(), vec![0; 65_536]);
    while !all.ends_with(b"$7\r\nthe end\r\n") {
        let read = peer.stream.read(&mut part).await.unwrap();
        all.extend_from_slice(&part[..read]);
    }
    assert!(all.len() < 8 * 1024 * 1024, "{}", all.len());
    let refused = b"-ERR the transaction asks for too much at once; split it\r\n";
    assert!(all.windows(refused.len()).filter(|window| window == refused).count() > 500);
    // Nor hold any amount.
    peer.say(&["MULTI"], "+OK|").await;
    let key = "k".repeat(500_000);
    peer.say(&["GET", &key], "+QUEUED|").await;
    peer.say(&["GET", &key], "+QUEUED|").await;
    peer.say(&["GET", &key], "-ERR the transaction is too large|").await;
    peer.say(&["EXEC"], "-EXECABORT Transaction discarded because of previous errors.|").await;
}

#[tokio::test]
async fn a_client_that_waits_for_an_answer_is_not_idle() {
    let idle_timeout = Duration::from_millis(60);
    let mut server = Setup { idle_timeout, ticking: true, ..Setup::default() }.start().await;
    let mut peer = server.connect().await;
    peer.send(&array(&[b"TOKEN.REFRESH", b"ticket"])).await;
    let request = server.queues[1].next().await;
    let mut silent = server.connect().await;
    silent.expect_end("who says nothing is cut").await;
    request.reply.send(Err(RefreshError::TooMany)).unwrap();
    peer.hear("-ERR too many refreshes are waiting, try again later|").await;
}

#[tokio::test]
async fn a_client_complains_once_of_a_token_whatever_it_repeats() {
    let setup = Setup { writes: Writes::Report, ..Setup::default() };
    let mut server = setup.start().await;
    let mut peer = server.say(&["GET", "ticket"], "$4|tick|").await;
    peer.say(&["MULTI"], "+OK|").await;
    for _ in 0..3 {
        peer.say(&["DEL", "ticket"], "+QUEUED|").await;
    }
    peer.say(&["EXEC"], "*3|:1|:1|:1|").await;
    server.queues[1].next().await.reply.send(Err(RefreshError::TooMany)).unwrap();
    // The second and third asked for nothing: this answer comes at once.
    peer.say(&["DEL", "ticket"], ":1|").await;
    for (words, expected) in [
        (
            &["SET", "ticket", "x", "EX", "BOGUS"][..],
            "-ERR value is not an integer or out of range|",
        ),
        (&["SET", "ticket", "x", "BOGUS"], "-ERR syntax error|"),
        (&["SETEX", "ticket", "-5", "x"], "-ERR invalid expire time in 'setex' command|"),
        (&["EXPIRE", "ticket", "100", "BOGUS"], "-ERR Unsupported option BOGUS|"),
        (&["EXPIRE", "ticket", "100", "NX"], ":1|"),
    ] {
        peer.say(words, expected).await;
    }
}
