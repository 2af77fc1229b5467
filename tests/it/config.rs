//! What a config may say, and what is said of its mistakes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use wechat_token_server::config::{
    self, Config, ConfigErrors, Environment, LogFormat, Rotation, Vendor,
};

/// The minimal form of the README, as of the first version: with a key, which the server may make itself.
const MINIMAL: &str = r#"(
    http: (bind: "127.0.0.1:12123"),
    resp: (bind: "127.0.0.1:6379"),
    store: (path: "data"),
    request_secret: "f3b2241f967aa3c7966f537cdd82ce11",
    refresh: (cooldown: "30s"),
    token_sources: {
        "access_token": (
            url: "https://api.weixin.qq.com/cgi-bin/token",
            args: {"grant_type": "client_credential", "appid": "wx0", "secret": "s0"},
        ),
        "ticket": (
            url: "https://api.weixin.qq.com/cgi-bin/ticket/getticket",
            args: {"type": "jsapi", "access_token": "{{access_token}}"},
        ),
    },
)
"#;

fn parse(text: &str, environment: &Environment) -> Result<Config, ConfigErrors> {
    config::parse(text, Path::new("/etc/wts/config.ron"), environment)
}

fn account() -> Environment {
    Environment::of([("WECHAT_APPID", "wx0"), ("WECHAT_SECRET", "s0")])
}

#[test]
fn the_minimal_form_works_as_written() {
    let config = parse(MINIMAL, &Environment::default()).unwrap();
    assert_eq!(config.http.bind.to_string(), "127.0.0.1:12123");
    assert_eq!(config.resp.unwrap().bind.to_string(), "127.0.0.1:6379");
    assert_eq!(config.store.path, Path::new("/etc/wts/data"));
    assert!(config.request_secret.unwrap().matches(b"f3b2241f967aa3c7966f537cdd82ce11"));
    let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["access_token", "ticket"]);
    assert_eq!(config.sources[0].policy.rotation, Rotation::Rotating);
    assert_eq!(config.sources[0].policy.daily_limit, Some(2_000));
    assert_eq!(config.sources[1].policy.rotation, Rotation::Nominal);
    assert_eq!(config.sources[1].policy.daily_limit, None);
    let accounts: Vec<&str> = config.sources.iter().map(|source| &*source.account.name).collect();
    assert_eq!(accounts, ["wx0", "wx0"]);
    assert_eq!(config.sources[1].dependencies[0].as_str(), "access_token");
}

/// Removes the `//` before settings that the shipped config shows as comments.
fn with_commented_settings(text: &str) -> String {
    let setting = |line: &str| {
        let rest = line.trim_start().strip_prefix("// ")?;
        let (name, _) = rest.split_once(": ")?;
        (rest.ends_with(',') && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            .then(|| rest.to_owned())
    };
    text.lines().map(|line| setting(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn the_shipped_config_shows_every_setting_with_its_default() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.ron")).unwrap();
    let shipped = parse(&text, &account()).unwrap();
    // The same sources with nothing else said.
    let sources = &text[text.find("token_sources").unwrap()..];
    let bare = parse(&format!("({sources}"), &account()).unwrap();
    assert_eq!(format!("{shipped:#?}"), format!("{bare:#?}"));

    let everything = with_commented_settings(&text);
    let environment = Environment::of([
        ("WECHAT_APPID", "wx0"),
        ("WECHAT_SECRET", "s0"),
        ("WECHAT_RESP_PASSWORD", "p"),
        ("WECHAT_REQUEST_SECRET", "r"),
        ("WECHAT_STORE_KEY", "0123456789abcdef"),
        ("WECHAT_OLD_STORE_KEY", "fedcba9876543210"),
    ]);
    let config = parse(&everything, &environment).unwrap();
    assert!(config.request_secret.is_some() && config.outbound.proxy.is_some());
    assert!(config.store.key.is_some() && config.store.old_keys.len() == 1);
    assert_eq!(config.sources[0].policy.lifetime, Some(Duration::from_secs(7_000)));
    for setting in config::setting_names() {
        assert!(everything.contains(&format!("{setting}:")), "{setting} is not in config.ron");
    }
}

#[test]
fn the_configs_of_both_readmes_are_the_same_and_work() {
    let blocks = |file: &str| {
        let text =
            std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let blocks = text.split("```ron\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        blocks.map(str::to_owned).collect::<Vec<_>>()
    };
    let (english, chinese) = (blocks("README.md"), blocks("README.zh-CN.md"));
    assert_eq!(english, chinese);
    let [clients, tls, minimal, sealed, stable] = &english[..] else { panic!("{english:?}") };
    let key = "    request_secret: \"f3b2241f967aa3c7966f537cdd82ce11\",\n";
    assert_eq!(*minimal, MINIMAL.replace(key, ""), "the server makes a key of its own");
    let with_clients = minimal.replace("token_sources:", &format!("{clients} token_sources:"));
    let environment = Environment::of([("SHOP_KEY", "k"), ("SHOP_KEY_OLD", "k1")]);
    assert_eq!(parse(&with_clients, &environment).unwrap().clients.len(), 1);
    let environment = Environment::of([("WECHAT_RESP_PASSWORD", "0123456789abcdef")]);
    let tls = format!("({tls} token_sources: {{\"t\": (url: \"https://h\")}})");
    let tls = parse(&tls, &environment).unwrap();
    assert!(tls.http.tls.is_some() && tls.resp.unwrap().tls.is_some() && tls.advice.is_empty());
    let plain = r#"store: (path: "data"),"#;
    assert!(minimal.contains(plain));
    let environment = Environment::of([("WECHAT_STORE_KEY", "0123456789abcdef")]);
    let sealed = parse(&minimal.replace(plain, sealed), &environment).unwrap().store;
    assert!(sealed.key.unwrap().matches(b"0123456789abcdef"));
    let stable = format!("(token_sources: {{{stable}}})");
    let config = parse(&stable, &account()).unwrap();
    assert!(matches!(config.sources[0].policy.rotation, Rotation::Sticky { .. }));
}

#[test]
fn settings_are_read() {
    let text = r#"(
        http: (bind: "[::1]:0", max_connections: 5, header_timeout: "500ms", idle_timeout: "2m",
               tls: (cert: "c.pem", key: "/k.pem", client_ca: "ca.pem")),
        resp: (enabled: false),
        store: (path: "/var/lib/x"),
        refresh: (renew_before: "1h", overlap: "0s", cooldown: "0s", timeout: "2s"),
        log: (level: "info,wechat_token_server::resp=debug", format: "json", dir: "l", keep: 3),
        grace_period: "1s",
        token_sources: {
            "b": (url: "http://h/p?x=1", method: "post", args: {"k": "{{a}}", "n": 5, "t": true},
                  timeout: "3s", value_field: "data.v", lifetime: "9s"),
            "a": (url: "https://h/q"),
        },
    )"#;
    let config = parse(text, &Environment::default()).unwrap();
    assert!(config.resp.is_none());
    let tls = config.http.tls.unwrap();
    assert_eq!((&*tls.cert, &*tls.key), (Path::new("/etc/wts/c.pem"), Path::new("/k.pem")));
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("/etc/wts/ca.pem")));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.dir.as_deref(), Some(Path::new("/etc/wts/l")));
    assert_eq!(config.grace_period, Duration::from_secs(1));
    // Dependencies first, whatever the order of the file.
    let [a, b] = &config.sources[..] else { panic!("two sources") };
    assert_eq!((a.name.as_str(), b.name.as_str()), ("a", "b"));
    assert_eq!(a.policy.timeout, Duration::from_secs(2));
    assert_eq!(b.policy.timeout, Duration::from_secs(3));
    assert_eq!(b.policy.cooldown, Duration::ZERO);
    assert_eq!(b.value.to_string(), "data.v");
    assert_eq!(b.policy.lifetime, Some(Duration::from_secs(9)));
}

#[test]
fn a_sources_settings_are_read() {
    let text = r#"(
        refresh: (must_renew_before: "90s", overlap: "4m"),
        token_sources: {
            "a": (url: "https://h/cgi-bin/token", args: {"appid": "wx1"}, daily_limit: 200,
                  rotation: Sticky(window: "90s"), hosts: ["h2", "h3:444"]),
            "b": (url: "https://h/b/{{a}}", account: "mine", daily_limit: 0, follow: true,
                  rotation: Sliding, must_renew_before: "1m"),
            "c": (url: "https://h/cgi-bin/token?{{b}}", daily_limit: 0, rotation: Independent),
            "d": (url: "https://h/cgi-bin/stable_token", json: {"appid": "wx2"}),
            "e": (url: "https://h", basic: (user: "client", password: "x")),
            "f": (url: "https://kyc1.qcloud.com/api/oauth2/access_token", form: {"app_id": 7}),
            "g": (url: "https://kyc1.qcloud.com/api/oauth2/api_ticket", args: {"t": "{{f}}"}),
            "h": (url: "https://h", args: {"x": "{{captured}}"}, capture: "x", captured: "1"),
        },
    )"#;
    let config = parse(text, &Environment::default()).unwrap();
    let [a, b, c, d, e, f, g, h] = &config.sources[..] else { panic!("eight sources") };
    let seconds = Duration::from_secs;
    assert_eq!(a.policy.rotation, Rotation::Sticky { window: seconds(90) });
    assert_eq!((a.policy.daily_limit, a.account.name.as_ref()), (Some(200), "wx1"));
    assert_eq!(a.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["h2", "h3:444"]);
    assert_eq!(a.policy.must_renew_before, seconds(90));
    assert_eq!((b.policy.daily_limit, b.account.name.as_ref(), b.follow), (None, "mine", true));
    assert_eq!(b.policy.rotation, Rotation::Sliding);
    assert_eq!(b.policy.must_renew_before, seconds(60));
    // Placeholders of the address count, and an account is handed on.
    assert_eq!((c.dependencies[0].as_str(), c.account.name.as_ref()), ("b", "mine"));
    assert_eq!((c.policy.rotation, c.policy.daily_limit), (Rotation::Independent, None));
    assert_eq!((d.vendor, d.account.name.as_ref()), (Vendor::WeChat, "wx2"));
    assert_eq!(d.policy.rotation, Rotation::Sticky { window: seconds(300) });
    assert_eq!((e.account.name.as_ref(), e.policy.overlap), ("client", seconds(240)));
    // What is known of an endpoint goes before the general setting.
    assert_eq!((f.account.name.as_ref(), f.policy.overlap), ("7", seconds(60)));
    assert!(g.follow && !f.follow);
    assert!(h.captured.as_ref().unwrap().matches(b"1"));
}

/// All mistakes of a text, a line each, as an operator sees them.
fn mistakes(text: &str) -> Vec<String> {
    let errors = parse(text, &Environment::default()).unwrap_err();
    errors.mistakes().iter().map(|m| format!("{}: {}", m.path, m.message)).collect()
}

#[test]
fn all_mistakes_are_reported_at_once_by_path_with_what_to_do() {
    let text = r#"(
        http: (bind: "localhost:x", max_connections: 0, header_timeout: "0s", bnd: "x", tls: (cert: "", kee: "k")),
        resp: (bind: "0.0.0.0:6379", idle_timeout: 5, max_connections: "many", tls: (client_ca: 5)),
        request_secret: "",
        refresh: (cooldown: "30 s", renew_before: true),
        outbound: (proxy: "user:hunter2@h"),
        log: (level: "loud=very=much", format: "xml", keep: 0),
        token_sources: {
            "access_token": (url: "api.weixin.qq.com", args: {"appid": "${env:WECHAT_APPID}", "secret": "${file:nope}"}),
            "ticket": (url: "https://h/?secret=hunter2#x", methd: "GET", args: {"access_token": "{{acess_token}}", "b": "{{"}),
            "bad name": (url: "https://h", method: "PUT", args: {"x": "{{nobody}}"}),
            "dup": (url: "ftp://h"), "dup": (url: "https://h"),
            "nourl": (method: "PUT"),
            "captured": (url: "https://h", rotation: Rotatin, follow: true, daily_limit: -1, hosts: ["a/b", 5, "h", "h"]),
            "body": (url: "https://{{dup}}/x", method: "GET", json: {"a": {"b": ["{{nobody}}"]}, "n": 99999999999999999999}, form: {"x": [1]}),
            "send": (url: "https://h", headers: {"Host": "h", "a b": "c", "X": "a\nb", "Authorization": "x"}, basic: (user: "u:v", pasword: "p"), force: {"a": 1}),
            "answer": (url: "https://h", success: (field: "a..b"), expires_unit: "h", expires_is: Absolut, capture: "x", rotation: Sticky(window: "25h", widow: "1s")),
            "again": (url: "https://h", args: {"x": "{{captured}}"}, rotation: Sticky(window: "0s"), expires_field: "", must_renew_before: 5),
        },
    )"#;
    let found = mistakes(text);
    let expected = include_str!("../golden/config-mistakes.txt");
    assert_eq!(found.join("\n") + "\n", expected);
    assert!(!found.join("").contains("hunter2"), "a secret is repeated");
}

#[test]
fn a_file_that_is_missing_is_told_with_all_other_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.ron");
    let tls = r#"tls: (cert: "c.pem", key: "config.ron", client_ca: "a.pem")"#;
    let text = format!(
        r#"(http: ({tls}), resp: ({tls}), outbound: (ca_file: "x.pem"), log: (level: "loud"), token_sources: {{}})"#
    );
    std::fs::write(&path, text).unwrap();
    let errors = config::load(&path, &Environment::default()).unwrap_err();
    let named: Vec<&str> = errors.mistakes().iter().map(|m| m.path.as_str()).collect();
    let of_files = [
        "http.tls.cert",
        "http.tls.client_ca",
        "resp.tls.cert",
        "resp.tls.client_ca",
        "outbound.ca_file",
    ];
    assert_eq!(named, [&of_files[..], &["log.level", "token_sources"]].concat());
    let first = &errors.mistakes()[0].message;
    let expected = format!("there is no {}; name a file", dir.path().join("c.pem").display());
    assert!(first.starts_with(&expected), "{first}");
}

#[test]
fn a_file_that_an_editor_on_windows_has_saved_is_read_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.ron");
    std::fs::write(dir.path().join("secret"), "\u{feff}s0\r\n").unwrap();
    let text = "(\n    request_secret: \"${file:secret}\",\n    token_sources: {\"t\": (url: \"https://h\")},\n)";
    std::fs::write(&path, format!("\u{feff}{text}").replace('\n', "\r\n")).unwrap();
    let config = config::load(&path, &Environment::default()).unwrap();
    assert!(config.request_secret.unwrap().matches(b"s0"), "without the mark");

    // 令牌, as GBK has it.
    let gbk = [b"(\n// \xc1\xee\xc5\xc6\n".as_slice(), text.as_bytes()].concat();
    std::fs::write(&path, gbk).unwrap();
    let errors = config::load(&path, &Environment::default()).unwrap_err();
    let [mistake] = errors.mistakes() else { panic!("{errors}") };
    assert_eq!(
        mistake.message,
        "cannot be read: line 2 is not UTF-8; have the editor save the file as UTF-8"
    );
}

#[test]
fn a_log_level_is_a_level() {
    for (level, good) in [
        ("info", true),
        ("ERROR", true),
        ("off", true),
        ("warn,sled=debug", true),
        ("", false),
        ("inof", false),
        ("sled", false),
        ("info,sled", false),
        ("=info", false),
    ] {
        let text = MINIMAL.replacen("http:", &format!("log: (level: \"{level}\"), http:"), 1);
        assert_eq!(parse(&text, &Environment::default()).is_ok(), good, "{level:?}");
    }
}

#[test]
fn circles_are_named() {
    let circle = |args: &[(&str, &str)]| {
        let sources: String = args
            .iter()
            .map(|(name, arg)| format!(r#""{name}": (url: "https://h", args: {{"x": "{arg}"}}),"#))
            .collect();
        mistakes(&format!("(token_sources: {{{sources}}})"))
    };
    assert_eq!(
        circle(&[("a", "{{b}}"), ("b", "{{c}}"), ("c", "{{b}}"), ("d", "")]),
        ["token_sources.b: depends on itself: b -> c -> b; break the circle"]
    );
    assert_eq!(
        circle(&[("a", "{{a}}")]),
        ["token_sources.a: depends on itself: a -> a; break the circle"]
    );
}

#[test]
fn variables_that_are_not_set_are_named() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.ron")).unwrap();
    let found = mistakes(&text);
    assert_eq!(
        found,
        [
            "token_sources.access_token.args.appid: the environment variable WECHAT_APPID is not set; set it",
            "token_sources.access_token.args.secret: the environment variable WECHAT_SECRET is not set; set it",
        ]
    );
}

#[test]
fn a_records_identity_is_path_and_arguments_of_a_source_and_of_what_it_depends_on() {
    let identities = |text: &str| {
        let config = parse(text, &Environment::default()).unwrap();
        config.sources.iter().map(|source| source.identity).collect::<Vec<_>>()
    };
    let base = identities(MINIMAL);
    // Hosts, schedule and the order of arguments do not count.
    for (from, to) in [
        (
            "https://api.weixin.qq.com/cgi-bin/token",
            "https://sh.api.weixin.qq.com:444/cgi-bin/token",
        ),
        ("cooldown: \"30s\"", "cooldown: \"3s\", timeout: \"1s\""),
        ("\"appid\": \"wx0\", \"secret\": \"s0\"", "\"secret\": \"s0\", \"appid\": \"wx0\""),
    ] {
        assert!(MINIMAL.contains(from), "{from}");
        assert_eq!(identities(&MINIMAL.replace(from, to)), base, "{to}");
    }
    // What the token is fetched with does, for its dependents too.
    for (from, to) in
        [("\"s0\"", "\"s1\""), ("wx0", "wx1"), ("cgi-bin/token", "cgi-bin/stable_token")]
    {
        let changed = identities(&MINIMAL.replace(from, to));
        assert!(changed[0] != base[0] && changed[1] != base[1], "{to}");
    }
    let changed = identities(&MINIMAL.replace("jsapi", "wx_card"));
    assert!(changed[0] == base[0] && changed[1] != base[1]);
}

#[test]
fn a_records_identity_is_all_that_is_sent_and_nothing_else() {
    let identity = |settings: &str| {
        let text = format!(
            r#"(token_sources: {{"o": (url: "https://h/o"), "t": (url: "https://h/{settings})}})"#
        );
        let config = parse(&text, &Environment::default()).unwrap();
        config.sources.iter().find(|source| source.name.as_str() == "t").unwrap().identity
    };
    let sent = [
        r#"""#,
        r#"{{o}}""#,
        r#"?a=1""#,
        r#"?a=2""#,
        r#"", args: {"a": "1"}"#,
        r#"", form: {"a": "1"}"#,
        r#"", json: {"a": "1"}"#,
        r#"", json: {"a": 1}"#,
        r#"", json: {"a": "{{o}}"}"#,
        r#"", json: {"a": ["1"]}"#,
        r#"", json: {"a": {"a": "1"}}"#,
        r#"", headers: {"a": "1"}"#,
        r#"", basic: (user: "a", password: "1")"#,
        r#"", args: {"a": "{{captured}}"}, capture: "a", captured: "1""#,
        r#"", args: {"a": "{{captured}}"}, capture: "a", captured: "2""#,
    ]
    .map(identity);
    for (at, one) in sent.iter().enumerate() {
        assert!(!sent[..at].contains(one), "{at} is like one before it");
    }
    let same = r#"", json: {"a": "1"}, method: "post", hosts: ["h2"], rotation: Nominal, account: "x",
        daily_limit: 9, value_field: "x", success: (field: "x", value: 1), force: {"f": true},
        expires_field: "y", expires_unit: "ms", expires_is: Absolute, must_renew_before: "1s""#;
    assert_eq!(identity(same), sent[6]);
}

/// What records in the field belong to: a change here would have every one of them fetched anew.
#[test]
fn the_identity_of_what_was_there_before_does_not_change() {
    let config = parse(MINIMAL, &Environment::default()).unwrap();
    let shown = config.sources.iter().map(|source| format!("{:?}", source.identity));
    assert_eq!(shown.collect::<Vec<_>>(), ["776c6e79", "462658e8"]);
}

#[test]
fn no_mistake_repeats_a_secret_wherever_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "hunter2-\"from\"-a-file\n").unwrap();
    let environment = Environment::of([("KEY", "hunter2-from-a-variable")]);
    let source = r#"token_sources: {"a": (url: "https://h")}"#;
    // Taken from elsewhere, and put where it does not belong.
    for value in [r#""${env:KEY}""#, r#""${file:key}""#] {
        for setting in [
            "http: (bind: V)",
            "resp: (password: \"p\", idle_timeout: V)",
            "log: (level: V, format: V)",
            "grace_period: V",
            "store: (key: \"0123456789abcdef\", old_keys: V)",
            "clients: {\"c\": (keys: [\"k\"], sources: [V])}",
            "token_sources: {\"b\": (url: V, hosts: [V], method: V, expires_unit: V, lifetime: V)}",
            "outbound: (proxy: V)",
        ] {
            let rest = if setting.starts_with("token_sources") { "" } else { source };
            let text = format!("({}, {rest})", setting.replace('V', value));
            let outcome = config::parse(&text, &dir.path().join("c.ron"), &environment);
            let said = outcome.unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{text}\n{said}");
        }
    }
    // Written without its quotes, or where a group of settings belongs.
    for wrong in [
        "request_secret: hunter2",
        "request_secret: hunter2-x",
        "request_secret: r#hunter2",
        "resp: (writes: \"hunter2\")",
        "resp: \"hunter2\"",
        "resp: hunter2",
        "resp: hunter2(password: 1)",
        "clients: \"hunter2\"",
        "clients: {\"c\": \"hunter2\"}",
        "clients: {hunter2: ()}",
        "#![enable(hunter2)]",
        "store: (key: 'hunter2')",
        "store: (key: b\"hunter2\")",
        "token_sources: {\"a\": (rotation: \"hunter2\", url: \"u\")}",
        "token_sources: {\"a\": (args: \"hunter2\", url: \"u\")}",
        "token_sources: {\"a\": (basic: \"hunter2\", url: \"u\")}",
        "token_sources: {\"a\": (basic: hunter2, url: \"u\")}",
        "token_sources: {\"a\": (json: [\"hunter2\"], url: \"u\")}",
    ] {
        let text = if wrong.starts_with('#') { format!("{wrong}()") } else { format!("({wrong})") };
        let said = parse(&text, &environment).unwrap_err().to_string();
        assert!(!said.contains("hunter2"), "{wrong}\n{said}");
    }
}

#[test]
fn a_config_never_shows_its_secrets() {
    let text =
        MINIMAL.replace("s0", "hunter2").replace("f3b2241f967aa3c7966f537cdd82ce11", "hunter3");
    let shown = format!("{:#?}", parse(&text, &Environment::default()).unwrap());
    assert!(!shown.contains("hunter"), "{shown}");
    let text = r#"(token_sources: {"t": (url: "https://h/{{captured}}?s=hunter0", json: {"s": "hunter1"},
        headers: {"H": "hunter2"}, basic: (user: "hunter3", password: "hunter4"),
        force: {"f": "hunter5"}, capture: "c", captured: "hunter6", account: "a")})"#;
    let shown = format!("{:#?}", parse(text, &Environment::default()).unwrap());
    assert!(!shown.contains("hunter"), "{shown}");
    let text = r#"(
        store: (key: "hunter0123456789", old_keys: ["hunter1123456789"]), resp: (password: "hunter2"),
        clients: {"c": (keys: ["hunter3"])}, outbound: (proxy: "http://u:hunter4@h"),
        token_sources: {"t": (url: "https://h", json: {"pin": 7777771, "o": {"pin": 7777772.5}})},
    )"#;
    let shown = format!("{:#?}", parse(text, &Environment::default()).unwrap());
    assert!(!shown.contains("hunter") && !shown.contains("77777"), "{shown}");
    let environment = Environment::of([("NAME", "hunter")]);
    assert_eq!(format!("{environment:?}"), r#"{"NAME"}"#);
}

#[test]
fn a_store_key_cannot_be_guessed_and_an_old_one_is_another_one() {
    let (key, old) = ("0123456789abcdef", "fedcba9876543210");
    let source = r#"token_sources: {"a": (url: "https://h")}"#;
    for (settings, expected) in [
        (format!(r#"key: "{key}", old_keys: ["{old}"]"#), &[][..]),
        (format!(r#"old_keys: ["{old}"]"#), &[]),
        (
            r#"key: "0123456789abcde", old_keys: ["", "x"]"#.to_owned(),
            &[
                "store.key: has less than 16 characters, so it could be guessed; make one with `openssl rand -hex 32`",
                "store.old_keys.0: has less than 16",
                "store.old_keys.1: has less than 16",
            ],
        ),
        (
            format!(r#"key: "{key}", old_keys: ["{key}", "{old}", "{old}"]"#),
            &["store.old_keys.0: is store.key itself", "store.old_keys.2: is there twice"],
        ),
        (
            format!(r#"key: 5, old_keys: "{old}""#),
            &["store.key: is a number", "store.old_keys: is a text"],
        ),
        (
            r#"key: "${credential:k}""#.to_owned(),
            &["store.key: the credential k is not there, since CREDENTIALS_DIRECTORY is not set"],
        ),
    ] {
        let text = format!("(store: ({settings}), {source})");
        let found = match parse(&text, &Environment::default()) {
            Ok(config) => {
                assert!(config.store.old_keys[0].matches(old.as_bytes()));
                Vec::new()
            }
            Err(_) => mistakes(&text),
        };
        assert_eq!(found.len(), expected.len(), "{settings}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{settings}: {found}");
            assert!(!found.contains(key) && !found.contains(old), "{found}");
        }
    }
}

/// The advice of a config that is read from a file of this mode, beside `key` of another.
fn advice(settings: &str, mode: u32, mode_of_key: u32) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    file("key", "0123456789abcdef-from-a-file", mode_of_key);
    let text = format!("({settings}, token_sources: {{\"a\": (url: \"https://h\")}})");
    let path = file("c.ron", &text, mode);
    let config = config::load(&path, &Environment::of([("KEY", "0123456789abcdef")])).unwrap();
    let advice = config.advice.iter().map(|advice| format!("{}: {}", advice.path, advice.message));
    advice.map(|line| line.replace(dir.path().to_str().unwrap(), "DIR")).collect()
}

#[test]
fn a_file_with_secrets_that_others_may_read_is_told_of() {
    let written = |path: &str| {
        format!("{path}: is a secret in a file that others may read; run `chmod go= DIR/c.ron`")
    };
    let named = |path: &str| {
        format!("{path}: is a secret in a file that others may read; run `chmod go= DIR/key`")
    };
    for (settings, expected) in [
        (r#"request_secret: "0123456789abcdef""#, vec![written("request_secret")]),
        (r#"resp: (password: "0123456789abcdef")"#, vec![written("resp.password")]),
        (r#"clients: {"c": (keys: ["0123456789abcdef"])}"#, vec![written("clients.c.keys.0")]),
        (r#"outbound: (proxy: "http://u:p@h")"#, vec![written("outbound.proxy")]),
        (r#"request_secret: "${file:key}""#, vec![named("request_secret")]),
        (
            r#"request_secret: "0123456789abcdef", resp: (password: "${file:key}")"#,
            vec![written("request_secret"), named("resp.password")],
        ),
        // Each file once.
        (
            r#"request_secret: "${file:key}1", resp: (password: "${file:key}2")"#,
            vec![named("resp.password")],
        ),
        (r#"request_secret: "${env:KEY}""#, vec![]),
        (r#"outbound: (proxy: "http://h:3128"), grace_period: "1s""#, vec![]),
    ] {
        assert_eq!(advice(settings, 0o644, 0o640), expected, "{settings}");
        assert_eq!(advice(settings, 0o600, 0o400), [] as [&str; 0], "{settings}");
    }
}

#[test]
fn a_sources_secrets_are_told_by_their_names() {
    for (source, setting) in [
        (r#"args: {"appid": "wx0", "secret": "s0"}"#, Some("args.secret")),
        (r#"json: {"o": {"appSecret": "s0"}}"#, Some("json.o.appSecret")),
        (r#"form: {"client_secret": "s0"}"#, Some("form.client_secret")),
        (r#"headers: {"X-Api-Key": "s0"}"#, Some("headers.X-Api-Key")),
        (r#"basic: (user: "u", password: "s0")"#, Some("basic.password")),
        (r#"args: {"r": "{{captured}}"}, capture: "r", captured: "s0""#, Some("captured")),
        (r#"args: {"appid": "wx0", "secret": "${env:KEY}", "access_token": "{{a}}"}"#, None),
        (r#"headers: {"Authorization": "Bearer {{a}}"}"#, None),
    ] {
        let settings = format!(
            "token_sources: {{\"a\": (url: \"https://h\"), \"t\": (url: \"https://h\", {source})}}"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.ron");
        std::fs::write(&path, format!("({settings})")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o604)).unwrap();
        let config = config::load(&path, &Environment::of([("KEY", "k")])).unwrap();
        let paths: Vec<&str> = config.advice.iter().map(|advice| advice.path.as_str()).collect();
        let expected = setting.map(|setting| format!("token_sources.t.{setting}"));
        assert_eq!(paths, expected.iter().map(String::as_str).collect::<Vec<_>>(), "{source}");
    }
}

#[test]
fn keys_that_can_be_guessed_are_advised_against() {
    let groups = r#"request_secret: "f3b2241f967aa3c7966f537cdd82ce11",
        resp: (password: "fifteen-letters"),
        clients: {"shop": (keys: ["sixteen-letters-", "口令"])},
        token_sources: {"access_token": (url: "https://h/cgi-bin/token")},"#;
    let config = parse(&format!("({groups})"), &Environment::default()).unwrap();
    let advice: Vec<String> =
        config.advice.iter().map(|advice| format!("{}: {}", advice.path, advice.message)).collect();
    for expected in [
        "request_secret: is the example that the original server comes with",
        "resp.password: has fewer than 16 characters",
        "clients.shop.keys.1: has fewer than 16 characters",
    ] {
        let said = advice.iter().filter(|advice| advice.starts_with(expected)).count();
        assert_eq!(said, 1, "{expected}\n{}", advice.join("\n"));
    }
    assert!(!advice.iter().any(|advice| advice.starts_with("clients.shop.keys.0")));
    assert!(advice.iter().all(|advice| !advice.contains("fifteen") && !advice.contains("f3b2")));
}
