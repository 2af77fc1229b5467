//! Who is let in, with which key, from where, and what becomes of those who are not.

use super::*;

const TOKEN: &str = "/wechat/token?type=ticket";
const REFRESH: &str = "/wechat/token/forcerefresh?type=ticket";

fn with_header(target: &str, header: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n")
}

async fn served(config: HttpConfig) -> TestServer {
    let server = TestServer::start(config, Arc::new(Still(still()))).await;
    for (publisher, value) in server.publishers.iter().zip(["AT", "TICKET"]) {
        publisher.publish(Arc::new(published(value, still(), NEVER, 1)));
    }
    server
}

#[tokio::test]
async fn a_key_may_stand_in_a_header() {
    let server = served(config(100, NEVER, NEVER)).await;
    let refused = r#"{"error": "invalid request"}"#;
    for (header, expected) in [
        ("authorization: Bearer k3y", "TICKET"),
        ("Authorization: bearer  k3y ", "TICKET"),
        ("authorization: Bearer shop-key", "TICKET"),
        ("authorization: Bearer wrong", refused),
        ("authorization: Bearer ", refused),
        ("authorization: Basic k3y", refused),
        ("authorization: k3y", refused),
        ("x: y", refused),
    ] {
        let answer = server.ask(&with_header(TOKEN, header)).await;
        assert!(answer.body.contains(expected), "{header}: {}", answer.body);
        assert_eq!(answer.status, 200);
    }
    // The header's goes before the parameter's.
    let both = with_header(&format!("{TOKEN}&secret=k3y"), "authorization: Bearer wrong");
    assert_eq!(server.ask(&both).await.body, refused);
}

#[tokio::test]
async fn the_parameter_can_be_switched_off() {
    let config = HttpConfig { secret_parameter: false, ..config(100, NEVER, NEVER) };
    let server = served(config).await;
    let refused = r#"{"error": "invalid request"}"#;
    assert_eq!(server.get(&format!("{TOKEN}&secret=k3y")).await.body, refused);
    assert_eq!(server.get(&format!("{REFRESH}&secret=k3y")).await.body, "{}");
    let answer = server.ask(&with_header(TOKEN, "authorization: Bearer k3y")).await;
    assert!(answer.body.contains("TICKET"));
}

#[tokio::test]
async fn a_client_has_its_own_sources_and_no_others() {
    let mut server = served(config(100, NEVER, NEVER)).await;
    assert!(server.get(&format!("{TOKEN}&secret=shop-key")).await.body.contains("TICKET"));
    for name in ["access_token", "nothing", "ended"] {
        let target = format!("/wechat/token?type={name}&secret=shop-key");
        assert_eq!(server.get(&target).await.body, r#"{"error": "not found"}"#, "{name}");
        let target = format!("/wechat/token/forcerefresh?type={name}&secret=shop-key");
        assert_eq!(server.get(&target).await.body, r#"{"errmsg": "unknown type"}"#, "{name}");
    }
    // It may ask for a fresh one, but not spend a fetch while the token is good.
    let forced = server.get(&format!("{REFRESH}&secret=shop-key&force=1")).await;
    assert_eq!(forced.body, r#"{"errmsg": "only the request_secret may force"}"#);
    let mut queue = server.queues.remove(1);
    let fresh = published("FRESH", still(), NEVER, 2);
    let answered = tokio::spawn(async move {
        let request = queue.next().await;
        let _ = request.reply.send(Ok(Arc::new(fresh)));
    });
    assert!(server.get(&format!("{REFRESH}&secret=shop-key")).await.body.contains("FRESH"));
    answered.await.unwrap();
}

#[tokio::test]
async fn a_trusted_proxy_says_where_a_client_comes_from() {
    let loopback = vec!["127.0.0.1/32".parse().unwrap()];
    let refused = r#"{"error": "invalid request"}"#;
    // (who is trusted, what stands in the head, key, whether it is let in)
    for (trusted, header, key, let_in) in [
        (&[][..], "x-forwarded-for: 203.0.113.7", "far-key", false),
        (&[], "x: y", "shop-key", true),
        (&loopback, "x-forwarded-for: 203.0.113.7", "far-key", true),
        (&loopback, "X-Forwarded-For: 203.0.113.7", "shop-key", false),
        (&loopback, "x-forwarded-for: 203.0.113.7, 192.0.2.1", "far-key", false),
        (&loopback, "x-forwarded-for: 203.0.113.7\r\nx-forwarded-for: 192.0.2.1", "far-key", false),
        (&loopback, "x: y", "shop-key", true),
    ] {
        let config = HttpConfig { trusted_proxies: trusted.to_vec(), ..config(9, NEVER, NEVER) };
        let server = served(config).await;
        let answer = server.ask(&with_header(&format!("{TOKEN}&secret={key}"), header)).await;
        assert_eq!(answer.body.contains("TICKET"), let_in, "{header} {key}: {}", answer.body);
        assert!(let_in || answer.body == refused);
    }
}

#[tokio::test]
async fn who_tries_many_wrong_keys_is_slowed_and_nobody_else() {
    let server = served(config(2_000, NEVER, NEVER)).await;
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(server.get(&format!("{TOKEN}&secret=wrong")).await.status);
    }
    assert_eq!(statuses, [200; 30]);
    let clock = SystemClock::shared();
    let asked = clock.now();
    let slowed = server.get(&format!("{REFRESH}&secret=wrong")).await;
    assert!(clock.now().since(asked) >= crate::access::SLOWNESS);
    assert_eq!((slowed.status, slowed.header("retry-after")), (429, Some("60")));
    assert_eq!(slowed.body, r#"{"error": "too many wrong keys"}"#);
    assert_eq!(slowed.header("connection"), Some("close"));
    // Where all places to wait are taken, the answer comes at once.
    let waiting: Vec<Client> = {
        let mut waiting = Vec::new();
        for _ in 0..600 {
            let mut client = server.connect().await;
            client.send(&get(&format!("{TOKEN}&secret=wrong"))).await;
            waiting.push(client);
        }
        waiting
    };
    // The same address, the right key: neither refused nor slowed.
    assert!(server.get(&format!("{TOKEN}&secret=shop-key")).await.body.contains("TICKET"));
    for mut client in waiting {
        assert_eq!(client.answer().await.status, 429);
    }
}
