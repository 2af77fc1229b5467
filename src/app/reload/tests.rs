//! What a reload decides, as tables.

use super::*;

/// A config whose groups and sources are written as in a file.
fn parse(groups: &str, sources: &str) -> Config {
    let text = format!("({groups} token_sources: {{{sources}}})");
    config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap()
}

const TOKEN: &str = r#""token": (url: "https://h/t", args: {"secret": "s"}),"#;
const TICKET: &str = r#""ticket": (url: "https://h/j", args: {"access_token": "{{token}}"}),"#;
const OTHER: &str = r#""other": (url: "https://h/o"),"#;

#[test]
fn a_source_is_restarted_for_what_matters_to_it_alone() {
    use Fate::{Added, Kept, Replaced, Restarted};
    let before = parse("", &[TOKEN, TICKET, OTHER].concat());
    // (what the file says now, what becomes of `token`, of `ticket`, of `other`)
    for (groups, token, ticket, other, fates) in [
        ("", TOKEN, TICKET, OTHER, [Kept, Kept, Kept]),
        (r#"http: (bind: "127.0.0.1:1"),"#, TOKEN, TICKET, OTHER, [Kept, Kept, Kept]),
        // A default of all sources.
        (r#"refresh: (cooldown: "31s"),"#, TOKEN, TICKET, OTHER, [Restarted, Restarted, Restarted]),
        // Schedule and host are not what a token belongs to, and no business of a dependent.
        (
            "",
            r#""token": (url: "https://h/t", args: {"secret": "s"}, renew_before: "5m"),"#,
            TICKET,
            OTHER,
            [Restarted, Kept, Kept],
        ),
        (
            "",
            r#""token": (url: "https://i/t", args: {"secret": "s"}),"#,
            TICKET,
            OTHER,
            [Restarted, Kept, Kept],
        ),
        // Secret and path are.
        (
            "",
            r#""token": (url: "https://h/t", args: {"secret": "S"}),"#,
            TICKET,
            OTHER,
            [Replaced, Replaced, Kept],
        ),
        (
            "",
            r#""token": (url: "https://h/u", args: {"secret": "s"}),"#,
            TICKET,
            OTHER,
            [Replaced, Replaced, Kept],
        ),
        // Renamed.
        ("", TOKEN, TICKET, r#""others": (url: "https://h/o"),"#, [Kept, Kept, Added]),
    ] {
        let after = parse(groups, &[other, token, ticket].concat());
        for (name, fate) in [("token", fates[0]), ("ticket", fates[1]), ("other", fates[2])] {
            let wanted = after.sources.iter().find(|wanted| wanted.name.as_str().starts_with(name));
            let wanted = wanted.unwrap();
            let running = before.sources.iter().find(|running| running.name == wanted.name);
            assert_eq!(Fate::of(running, wanted), fate, "{name} in {groups} {token} {other}");
        }
    }
}

#[test]
fn what_needs_a_restart_is_named() {
    let before = parse("", OTHER);
    for (groups, named) in [
        ("", &[][..]),
        (r#"grace_period: "1s", refresh: (cooldown: "1s"),"#, &[]),
        (
            r#"http: (bind: "127.0.0.1:1", idle_timeout: "1s"),"#,
            &["http.bind", "http.idle_timeout"],
        ),
        (
            r#"http: (max_connections: 1, header_timeout: "1s"),"#,
            &["http.max_connections", "http.header_timeout"],
        ),
        (r#"resp: (enabled: false, password: "p"),"#, &["resp.enabled"]),
        (
            r#"resp: (bind: "127.0.0.1:1", password: "p", max_connections: 1, idle_timeout: "1s"),"#,
            &["resp.bind", "resp.password", "resp.max_connections", "resp.idle_timeout"],
        ),
        ("resp: (writes: Report, notify: false),", &["resp.writes", "resp.notify"]),
        (r#"http: (tls: (cert: "c", key: "k")),"#, &["http.tls"]),
        (r#"resp: (tls: (cert: "c", key: "k")),"#, &["resp.tls"]),
        (r#"clients: {"shop": (keys: ["k"])},"#, &["clients"]),
        (r#"store: (path: "elsewhere"),"#, &["store.path"]),
        (
            r#"store: (key: "0123456789abcdef", old_keys: ["fedcba9876543210"]),"#,
            &["store.key", "store.old_keys"],
        ),
        (r#"request_secret: "0123456789abcdef","#, &["request_secret"]),
        (
            r#"outbound: (ca_file: "Cargo.toml", proxy: "http://p:1"),"#,
            &["outbound.ca_file", "outbound.proxy"],
        ),
        (r#"ready: (sources: ["other"], life: "1s"),"#, &["ready.sources", "ready.life"]),
        (r#"metrics: (bind: "127.0.0.1:0", public: true),"#, &["metrics.bind", "metrics.public"]),
        (
            r#"log: (level: "debug", format: "json", dir: "logs", keep: 1),"#,
            &["log.level", "log.format", "log.dir", "log.keep"],
        ),
    ] {
        assert_eq!(differing(&before, &parse(groups, OTHER)), named, "{groups}");
    }
}

/// Settings that a reload applies: the grace period, and what each source is made of.
const APPLIED: &[&str] =
    &["grace_period", "refresh", "token_sources", "webhooks", "cert", "key", "client_ca"];

#[test]
fn every_setting_is_either_applied_or_named() {
    let fixed = |name: &str| {
        let group = |setting: &str| setting.split('.').next() == Some(name);
        let last = |setting: &str| setting.rsplit('.').next() == Some(name);
        FIXED.iter().any(|(setting, _)| group(setting) || last(setting))
    };
    // Those of a client are compared as a whole.
    let of_clients = ["keys", "sources", "addresses"];
    // Those of a source (and the defaults of all) are compared as a whole.
    let of_sources = config::setting_names().skip_while(|name| *name != "url");
    let of_sources: Vec<&str> = of_sources.collect();
    for name in config::setting_names() {
        let known = fixed(name)
            || APPLIED.contains(&name)
            || of_sources.contains(&name)
            || of_clients.contains(&name);
        assert!(known, "{name}: is it applied by a reload, or does it need a restart?");
    }
}

#[test]
fn a_log_line_holds_a_few_names() {
    let names: Vec<_> = (0..22).map(|n| SourceName::parse(&format!("s{n}")).unwrap()).collect();
    assert_eq!(listed(&names[..2]), "s0, s1");
    assert_eq!(listed(&[]), "");
    assert!(listed(&names).ends_with("s18, s19 and 2 more"));
}
