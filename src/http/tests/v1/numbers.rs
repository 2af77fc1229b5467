//! Metrics, the door for them, and answers about many sources.

use super::*;

#[tokio::test]
async fn metrics_can_be_read_by_prometheus() {
    let server = served().await;
    server.publishers[1].note_failure(trouble());
    server.publishers[0].note_success(still().wall);
    server.with("/v1/tokens/ticket", SHOP, "").await;
    let answer = server.v1("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut families = Vec::new();
    for line in answer.body.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(name.starts_with("wechat_token_"));
            families.push(name);
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(families.last().unwrap()), "{line}");
            value.parse::<f64>().unwrap();
        }
    }
    assert!(families.len() >= 20, "{families:?}");
    for line in [
        r#"wechat_token_sources{state="failing"} 1"#,
        r#"wechat_token_expiry_timestamp_seconds{source="ticket"} 1700007200.0"#,
        r#"wechat_token_failing{source="ticket"} 1.0"#,
        r#"wechat_token_refreshes_total{source="access_token",result="succeeded"} 1.0"#,
        r#"wechat_token_reads_total{client="shop",source="ticket",protocol="http"} 1"#,
        r#"wechat_token_refusals_total{reason="wrong_key",protocol="http"} 0"#,
        r#"wechat_token_store_write_duration_seconds_bucket{le="+Inf"} 0"#,
        r#"wechat_token_connections{protocol="http"} 1"#,
    ] {
        assert!(answer.body.lines().any(|found| found == line), "{line}\n{}", answer.body);
    }
    // A limited client is shown its own.
    let own = server.with("/metrics", SHOP, "").await.body;
    assert!(own.contains(r#"source="ticket""#) && !own.contains(r#"source="access_token""#));
    // What goes wrong with all of them together tells of the others as well.
    for family in ["wechat_token_refresh_failures_total", "wechat_token_foreign_fetches_total"] {
        assert!(answer.body.contains(family) && !own.contains(family), "{family}");
    }
}

/// The body of an answer that is sent in chunks: RFC 9112, section 7.1.
fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").unwrap();
    }
}

#[tokio::test]
async fn answers_about_many_sources_are_whole_though_they_are_made_in_parts() {
    const MANY: usize = 600;
    let clock: SharedClock = Arc::new(Still(still()));
    let (parts, ..) = parts(Arc::clone(&clock));
    let urls: Vec<String> =
        (0..MANY).map(|n| format!(r#""s{n}": (url: "https://h/cgi-bin/token")"#)).collect();
    let text = format!("(token_sources: {{{}}})", urls.join(", "));
    let config = config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap();
    let (_publishers, reader) = snapshot(config.sources.iter().map(|source| source.name.clone()));
    let status = Status::apart(config.sources, &reader, &parts.access, &clock);
    let parts = HttpParts { reader, status, ..parts };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let http = HttpConfig { bind: address, ..super::super::config(10, NEVER, NEVER) };
    let drain = Drain::new();
    tokio::spawn(serve(listener, http, parts, drain.clone()));
    let mut bodies = Vec::new();
    for target in ["/metrics", "/v1/status", "/v1/tokens"] {
        let mut client = Client(TcpStream::connect(address).await.unwrap());
        client.send(&request("GET", target, Some(KEY), "connection: close\r\n")).await;
        let answer = Answer::parse(&client.rest().await);
        let is_in_chunks = answer.header("transfer-encoding") == Some("chunked");
        // The shortest of them is sent at once.
        assert_eq!(is_in_chunks, target != "/v1/tokens");
        bodies.push(if is_in_chunks { unchunked(&answer.body) } else { answer.body });
    }
    drain.begin();
    let rows = |family: &str| bodies[0].lines().filter(|line| line.starts_with(family)).count();
    assert_eq!(rows("wechat_token_failing{"), MANY);
    assert_eq!(rows("wechat_token_refreshes_total{"), 2 * MANY);
    let mut families: Vec<&str> =
        bodies[0].lines().filter(|line| line.starts_with("# TYPE")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), count, "each is told once");
    for (body, list) in [(&bodies[1], "sources"), (&bodies[2], "tokens")] {
        let answer: Value = serde_json::from_str(body).unwrap();
        let items = answer[list].as_array().unwrap();
        let names: Vec<&str> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
        assert_eq!((names.len(), names[0], names[MANY - 1]), (MANY, "s0", "s599"));
    }
    let status: Value = serde_json::from_str(&bodies[1]).unwrap();
    assert_eq!(status["states"]["absent"], MANY);
}

/// Alerts, dashboard and document name no metric that there is not, and the document names all.
#[tokio::test]
async fn what_is_written_about_metrics_names_those_that_there_are() {
    let server = served().await;
    let answer = server.v1("/metrics").await.body;
    let families: Vec<&str> =
        answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let read = |file: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
    };
    for file in
        ["packaging/prometheus-alerts.yml", "packaging/grafana-dashboard.json", "docs/api.md"]
    {
        let text = read(file);
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let names = text.match_indices("wechat_token_").map(|(at, _)| {
            let rest = &text[at..];
            &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]
        });
        let mut count = 0;
        for name in names {
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(families.contains(&family), "{file} names {name}");
            count += 1;
        }
        assert!(count > 8, "{file}");
    }
    let document = read("docs/api.md");
    for family in families {
        assert!(document.contains(&format!("`{family}`")), "docs/api.md does not name {family}");
    }
}

#[tokio::test]
async fn the_door_for_metrics_asks_for_no_key_and_leads_nowhere_else() {
    let clock: SharedClock = Arc::new(Still(still()));
    let (parts, _publishers, _queues) = parts(clock);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::new();
    let parts = HttpParts { door: Door::Metrics, ..parts };
    tokio::spawn(serve(listener, config(10, NEVER, NEVER), parts, drain.clone()));
    for (target, status) in [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/readyz", 503),
        ("/v1/status", 404),
        ("/v1/tokens/ticket", 404),
        ("/wechat/token?type=ticket&secret=k3y", 404),
        ("/", 404),
    ] {
        let mut client = Client(TcpStream::connect(address).await.unwrap());
        client.send(&request("GET", target, Some(KEY), "")).await;
        assert_eq!(client.answer().await.status, status, "{target}");
    }
    drain.begin();
}
