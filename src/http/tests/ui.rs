//! The page for people, from outside: which files there are, what a browser is told about them, and that
//! it can be switched off.

use super::*;
use crate::http::ROUTES;

const FILES: [(&str, &str); 9] = [
    ("/ui", "text/html; charset=utf-8"),
    ("/ui/style.css", "text/css; charset=utf-8"),
    ("/ui/icon.svg", "image/svg+xml"),
    ("/ui/early.js", "text/javascript; charset=utf-8"),
    ("/ui/app.js", "text/javascript; charset=utf-8"),
    ("/ui/api.js", "text/javascript; charset=utf-8"),
    ("/ui/live.js", "text/javascript; charset=utf-8"),
    ("/ui/render.js", "text/javascript; charset=utf-8"),
    ("/ui/text.js", "text/javascript; charset=utf-8"),
];

fn if_none_match(target: &str, tags: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\nif-none-match: {tags}\r\n\r\n")
}

#[tokio::test]
async fn the_page_is_sent_with_what_confines_it() {
    let server = TestServer::patient().await;
    for (path, content_type) in FILES {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)));
        let policy = answer.header("content-security-policy").unwrap();
        let rules: Vec<&str> = policy.split("; ").collect();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(rules.contains(&rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert!(answer.header("set-cookie").is_none());
    }
}

#[tokio::test]
async fn a_browser_that_has_a_file_is_not_sent_it_again() {
    let server = TestServer::patient().await;
    let mut tags = Vec::new();
    for (path, _) in FILES {
        let answer = server.get(path).await;
        let tag = answer.header("etag").unwrap();
        assert!(tag.starts_with('"') && tag.ends_with('"') && !answer.body.is_empty());
        tags.push(tag.to_owned());
        for known in [tag.to_owned(), format!("W/{tag}"), format!("\"x\", {tag}")] {
            let again = server.ask(&if_none_match(path, &known)).await;
            assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
            assert_eq!(again.header("etag"), Some(tag));
            assert!(again.header("content-security-policy").is_some());
        }
        let other = server.ask(&if_none_match(path, "\"0\"")).await;
        assert_eq!((other.status, &other.body), (200, &answer.body));
        let head = server.ask(&format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!((head.status, head.header("etag"), head.body.as_str()), (200, Some(tag), ""));
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), FILES.len(), "each file has a tag of its own");
}

#[tokio::test]
async fn there_is_no_other_file_and_a_slash_leads_to_the_page() {
    let server = TestServer::patient().await;
    let of_table = ROUTES.iter().filter(|route| route.is_of_the_page()).map(|route| route.path);
    let expected = FILES.iter().map(|(path, _)| *path).chain(["/ui/"]);
    assert_eq!(of_table.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let slash = server.get("/ui/").await;
    assert_eq!((slash.status, slash.header("location")), (308, Some("../ui")));
    for path in ["/ui/x", "/ui/../ui", "/ui/%2e%2e/app.js", "/UI", "/ui/app.js/"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    // The original's greeting stays where it was.
    assert!(server.get("/").await.body.starts_with("Welcome"));
}

#[tokio::test]
async fn without_ui_there_is_no_page() {
    let config = HttpConfig { ui: false, ..config(100, NEVER, NEVER) };
    let server = TestServer::start(config, Arc::new(Still(still()))).await;
    for (path, _) in FILES.into_iter().chain([("/ui/", "")]) {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (404, r#"{"error": "not found"}"#));
    }
    assert_eq!(server.get("/healthz").await.status, 200);
}
