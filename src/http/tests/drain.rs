//! Going down: what is in flight is finished, everything else is closed.

use super::*;

#[tokio::test]
async fn a_drain_closes_what_waits_and_finishes_what_is_in_flight() {
    let mut server = TestServer::hasty(NEVER, NEVER).await;
    let mut silent = server.connect().await;
    let mut half = server.connect().await;
    half.send("GET / HT").await;
    let mut idle = server.connect().await;
    idle.send(&get("/")).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut busy = server.connect().await;
    busy.send(&get("/wechat/token/forcerefresh?type=ticket&secret=k3y")).await;
    let request = server.queues[1].next().await;

    server.drain.begin();
    for client in [&mut silent, &mut half, &mut idle] {
        assert_eq!(client.rest().await, "");
    }
    assert!(!server.serving.is_finished());
    let fresh = published("T", SystemClock::shared().now(), NEVER, 3);
    request.reply.send(Ok(Arc::new(fresh))).unwrap();
    let answer = Answer::parse(&busy.rest().await);
    assert!(answer.body.starts_with(r#"{"ticket": "T", "expires_in": 35"#), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"));

    tokio::time::timeout(PATIENCE, server.serving).await.expect("serving ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn who_connected_just_before_a_drain_may_still_ask() {
    let server = TestServer::hasty(NEVER, NEVER).await;
    let mut fresh = server.connect().await;
    // Connections are accepted in their order: who is answered came after it.
    server.get("/").await;
    server.drain.begin();
    // Where nobody is let in any more, the drain is under way.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    fresh.send(&get("/")).await;
    assert_eq!(Answer::parse(&fresh.rest().await).status, 200);
    tokio::time::timeout(PATIENCE, server.serving).await.expect("serving ends").unwrap();
}

#[tokio::test]
async fn a_drain_that_began_before_serving_ends_it_at_once() {
    let (parts, _publishers, _queues) = parts(Arc::new(Still(still())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let drain = Drain::new();
    drain.begin();
    let served = serve(listener, config(1, NEVER, NEVER), parts, drain);
    tokio::time::timeout(PATIENCE, served).await.expect("serving ends");
}
