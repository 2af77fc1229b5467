//! What the log never says.

use std::io::Write;
use std::sync::Mutex;

use tracing_subscriber::fmt::format::FmtSpan;

use super::*;

#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The runtime of this test has one thread, so all of the server logs to `lines`.
#[tokio::test]
async fn no_line_at_any_level_holds_a_secret_a_token_or_a_query() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let mut server = TestServer::hasty(SOON, SOON).await;
    let value = published("canaryTOKEN", SystemClock::shared().now(), NEVER, 2);
    server.publishers[0].publish(Arc::new(Published { ends_mono: NEVER, ..value.clone() }));
    let mut queue = server.queues.remove(0);
    tokio::spawn(async move {
        loop {
            let request = queue.next().await;
            let _ = request.reply.send(Ok(Arc::new(value.clone())));
        }
    });
    let form = "application/x-www-form-urlencoded";
    let refresh = "/wechat/token/forcerefresh";
    for request in [
        get("/wechat/token?type=access_token&secret=k3y&x=canaryQUERY"),
        get("/wechat/token?type=access_token&secret=canarySENT"),
        get("/wechat/token?type=canaryTYPE&secret=k3y"),
        get("/wechat/token/forcerefresh?type=access_token&secret=k3y"),
        get("/wechat/token/forcerefresh?type=canaryTYPE&secret=k3y"),
        get("/wechat/token/forcerefresh?type=access_token&secret=canarySENT"),
        get("/canaryPATH?canaryQUERY"),
        post(refresh, form, "type=access_token&secret=canarySENT"),
        post(refresh, form, "type=access_token&secret=k3y"),
        post(refresh, form, "canaryBODY")[..60].into(),
        "canaryRAW\x1b[31m\r\n\r\n".into(),
        "GET /?canaryQUERY HTTP/1.1\r\ncanaryHEAD".into(),
    ] {
        server.ask(&request).await;
    }
    assert_eq!(server.connect().await.rest().await, "");

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("refresh asked for") && text.contains("refused"), "{text}");
    for never in ["canary", KEY, "\x1b[31m"] {
        assert!(!text.contains(never), "{never}: {text}");
    }
}
