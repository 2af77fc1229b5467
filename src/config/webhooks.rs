//! The table of webhooks: who is told of failures and recoveries, of what, in which form.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::lower::Lowering;
use super::raw::{RawWebhook, nearest};
use super::setting::{Setting, Table};
use super::template::wipe;
use super::{Language, Topic, WebhookConfig, WebhookKind};
use crate::token::Secret;

/// The longest name of a webhook and of a server, in bytes: both stand in messages or metrics.
const MAX_NAME_BYTES: usize = 64;

/// A repeat sooner than this is nagging, and a slip of the pen.
const SHORTEST_QUIET: Duration = Duration::from_secs(60);

/// Who waits for longer before he tells does not tell.
const LONGEST_GATHER: Duration = Duration::from_secs(600);

/// What the secrets of Standard Webhooks begin with; the rest is the key in Base64.
const ENCODED: &str = "whsec_";

const KINDS: &[(&str, WebhookKind)] = &[
    ("Json", WebhookKind::Json),
    ("WeCom", WebhookKind::WeCom),
    ("DingTalk", WebhookKind::DingTalk),
    ("Feishu", WebhookKind::Feishu),
];

/// Whose group robots answer at a host.
const ROBOTS: &[(&str, &str, WebhookKind)] = &[
    ("qyapi.weixin.qq.com", "WeCom", WebhookKind::WeCom),
    ("oapi.dingtalk.com", "DingTalk", WebhookKind::DingTalk),
    ("open.feishu.cn", "Feishu", WebhookKind::Feishu),
    ("open.larksuite.com", "Feishu", WebhookKind::Feishu),
];

/// Checks every webhook.
pub(super) fn lower_webhooks(
    raw: Table<RawWebhook>,
    lowering: &mut Lowering<'_>,
) -> Vec<WebhookConfig> {
    let mut seen = BTreeSet::new();
    let mut webhooks: Vec<WebhookConfig> = Vec::new();
    for (name, webhook) in raw.0 {
        let path = format!("webhooks.{name}");
        if !seen.insert(name.clone()) {
            lowering.mistake(path, "is there twice; remove one or rename it");
            continue;
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_plain) {
            let what = "is no name of a webhook; use 1 to 64 letters, digits, `_`, `-` and `.`";
            lowering.mistake(&path, what);
        }
        let Some(webhook) = lowering.webhook(name, &path, webhook) else { continue };
        // Each keeps to the limit of its robot, and knows nothing of another one.
        if let Some(other) = webhooks.iter().find(|other| other.url == webhook.url) {
            let what = format!("is the address of webhooks.{}; remove one", other.name);
            lowering.mistake(format!("{path}.url"), what);
        }
        webhooks.push(webhook);
    }
    webhooks
}

impl Lowering<'_> {
    fn webhook(&mut self, name: String, path: &str, raw: RawWebhook) -> Option<WebhookConfig> {
        let at = |name: &str| format!("{path}.{name}");
        let is_set = raw.url.is_some();
        let text = self.secret(&at("url"), raw.url);
        if !is_set {
            self.mistake(at("url"), "is missing; write where messages are sent to");
        }
        let url = text.as_ref().and_then(|text| self.receiver(&at("url"), text));
        let robot = url.as_ref().and_then(|url| robot_at(url));
        if let Some(url) = url {
            wipe(url);
        }
        let written = raw.kind.and_then(|choice| self.choice(&at("kind"), &choice, KINDS));
        let kind = match (written, robot) {
            (Some(kind), Some((owner, robot))) if kind != robot => {
                self.mistake(
                    at("kind"),
                    format!("is another than the robot's at url: write {owner}"),
                );
                kind
            }
            (Some(kind), _) => kind,
            (None, robot) => robot.map_or(WebhookKind::Json, |(_, kind)| kind),
        };
        let secret = self.signing_key(&at("secret"), kind, raw.secret);
        let webhook =
            WebhookConfig {
                name,
                kind,
                secret,
                topics: self.topics(&at("events"), raw.events),
                quiet: {
                    let path = at("quiet");
                    let quiet = self.duration(&path, raw.quiet, Duration::from_secs(6 * 3_600));
                    if quiet < SHORTEST_QUIET {
                        self.mistake(
                            path,
                            "is shorter than 1m; the same would be told again and again",
                        );
                    }
                    quiet
                },
                gather: {
                    let path = at("gather");
                    let gather = self.duration(&path, raw.gather, Duration::from_secs(10));
                    if gather > LONGEST_GATHER {
                        self.mistake(path, "is longer than 10m; who is told so late is not told");
                    }
                    gather
                },
                language: self.read(&at("language"), raw.language, Language::Chinese, |text| {
                    match text {
                        "zh" => Ok(Language::Chinese),
                        "en" => Ok(Language::English),
                        _ => Err(format!("{text:?} is no language; write zh or en")),
                    }
                }),
                server_name: self.server_name(&at("server_name"), raw.server_name),
                url: Secret::new(text?.as_str()),
            };
        Some(webhook)
    }

    /// The address of a receiver, which is never repeated: a robot's holds its key.
    fn receiver(&mut self, path: &str, text: &str) -> Option<Url> {
        let url = Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.fragment().is_none()
        });
        let Some(url) = url else {
            self.mistake(path, "is no address; write https://host/path");
            return None;
        };
        let is_here = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if url.scheme() == "http" && !is_here {
            let what = "is in the clear, so that others on the way read it and what is sent";
            let zh = "以明文传输，途中的其他人可以读到地址与消息；请改用 https://";
            self.advise(path, (format!("{what}; write https://"), zh.into()));
        }
        Some(url)
    }

    /// What messages are signed with.
    fn signing_key(
        &mut self,
        path: &str,
        kind: WebhookKind,
        setting: Option<Setting>,
    ) -> Option<Secret> {
        let is_set = setting.is_some();
        let text = self.secret(path, setting);
        match kind {
            WebhookKind::WeCom if is_set => {
                self.mistake(path, "is of no use: WeCom's robots have none; remove it");
            }
            WebhookKind::Json if !is_set => {
                let command = "`echo whsec_$(openssl rand -base64 32)`";
                let what = "is missing, so that the receiver cannot tell who sends";
                let zh = format!("未设置，接收方无法确认消息来自谁；请用 {command} 生成一个");
                self.advise(path, (format!("{what}; make one with {command}"), zh));
            }
            _ => {}
        }
        let text = text?;
        if text.is_empty() || text.trim() != text.as_str() {
            self.mistake(
                path,
                "is empty or has white space around it; leave it out or set a secret",
            );
            return None;
        }
        let encoded = text.strip_prefix(ENCODED).filter(|_| kind == WebhookKind::Json);
        let decoded = encoded.map(|encoded| STANDARD.decode(encoded).map(Zeroizing::new));
        if matches!(decoded, Some(Err(_))) {
            let what = "begins with whsec_ and goes on with what is no Base64; make one with \
                 `echo whsec_$(openssl rand -base64 32)`";
            self.mistake(path, what);
        }
        Some(Secret::new(text.as_str()))
    }

    fn topics(&mut self, path: &str, setting: Option<Setting>) -> Vec<Topic> {
        let wanted = self.list(path, setting, "a list such as [\"failing\", \"recovered\"]");
        let Some(items) = wanted else { return Topic::ALL.to_vec() };
        if items.is_empty() {
            self.mistake(path, "is empty, so nothing would be told; leave it out for everything");
        }
        let mut topics = Vec::new();
        for (at, item) in items {
            let Some(word) = self.text(&at, Some(item)) else { continue };
            match Topic::ALL.into_iter().find(|topic| topic.as_str() == word.as_str()) {
                Some(topic) if topics.contains(&topic) => {
                    self.mistake(at, "is there twice; remove one");
                }
                Some(topic) => topics.push(topic),
                None => {
                    let words = Topic::ALL.map(Topic::as_str);
                    let what_to_do = match nearest(&word, words.into_iter()) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => format!("there are {}", words.join(", ")),
                    };
                    self.mistake(at, format!("nothing is called {:?}; {what_to_do}", &**word));
                }
            }
        }
        topics
    }

    fn server_name(&mut self, path: &str, setting: Option<Setting>) -> Option<String> {
        let text = self.text(path, setting)?;
        if text.trim().is_empty() || text.len() > MAX_NAME_BYTES || text.contains(char::is_control)
        {
            self.mistake(path, "is empty, longer than 64 bytes or more than a line; write a name");
            return None;
        }
        Some(text.as_str().to_owned())
    }
}

/// The robot that answers at an address, and the word for it.
fn robot_at(url: &Url) -> Option<(&'static str, WebhookKind)> {
    let host = url.host_str()?;
    let robot = ROBOTS.iter().find(|(known, ..)| *known == host);
    robot.map(|(_, word, kind)| (*word, *kind))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Config, Environment};

    fn parse(webhooks: &str) -> Result<Config, String> {
        let source = r#""access_token": (url: "https://h/x")"#;
        let text = format!("(webhooks: {{{webhooks}}}, token_sources: {{{source}}})");
        let environment =
            Environment::of([("ROBOT", "https://qyapi.weixin.qq.com/x?key=k-canary")]);
        config::parse(&text, Path::new("c.ron"), &environment).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn a_robot_is_known_by_its_host_and_the_rest_has_defaults() {
        let config = parse(r#""ops": (url: "${env:ROBOT}")"#).unwrap();
        let [webhook] = &config.webhooks[..] else { panic!("{:?}", config.webhooks) };
        assert_eq!((webhook.kind, webhook.language), (WebhookKind::WeCom, Language::Chinese));
        assert_eq!((webhook.quiet.as_secs(), webhook.gather.as_secs()), (21_600, 10));
        assert_eq!((&webhook.topics[..], &webhook.server_name), (&Topic::ALL[..], &None));
        assert!(!format!("{config:?}").contains("canary"));
        for (url, kind) in [
            ("https://oapi.dingtalk.com/robot/send?access_token=a", WebhookKind::DingTalk),
            ("https://open.feishu.cn/open-apis/bot/v2/hook/a", WebhookKind::Feishu),
            ("https://open.larksuite.com/open-apis/bot/v2/hook/a", WebhookKind::Feishu),
            ("http://127.0.0.1:9/in", WebhookKind::Json),
        ] {
            assert_eq!(parse(&format!(r#""a": (url: {url:?})"#)).unwrap().webhooks[0].kind, kind);
        }
        let config = parse(
            r#""a": (url: "https://proxy.example/hook", kind: DingTalk, secret: "SECx", quiet: "1h",
                gather: "0s", events: ["quota", "failing"], language: "en", server_name: "上海 1")"#,
        )
        .unwrap();
        let webhook = &config.webhooks[0];
        assert_eq!(webhook.topics, [Topic::Quota, Topic::Failing]);
        assert_eq!(webhook.server_name.as_deref(), Some("上海 1"));
        assert!(webhook.secret.as_ref().unwrap().matches(b"SECx") && config.advice.is_empty());
    }

    #[test]
    fn every_mistake_is_named_with_its_path_and_no_address_is_repeated() {
        for (webhook, expected) in [
            (r#""a b": (url: "https://h/")"#, "webhooks.a b: is no name of a webhook"),
            (r#""a": ()"#, "webhooks.a.url: is missing"),
            (r#""a": (url: "ftp://canary")"#, "webhooks.a.url: is no address"),
            (
                r#""a": (url: "https://h/", urk: "x")"#,
                "webhooks.a.urk: unknown setting; did you mean `url`?",
            ),
            (
                r#""a": (url: "https://h/canary"), "b": (url: "https://h/canary")"#,
                "webhooks.b.url: is the address of webhooks.a",
            ),
            (r#""a": (url: "https://h/"), "a": (url: "https://i/")"#, "webhooks.a: is there twice"),
            (
                r#""a": (url: "${env:ROBOT}", kind: Feishu)"#,
                "webhooks.a.kind: is another than the robot's at url: write WeCom",
            ),
            (
                r#""a": (url: "https://h/", kind: Wecom)"#,
                "webhooks.a.kind: there is no Wecom; did you mean WeCom?",
            ),
            (r#""a": (url: "${env:ROBOT}", secret: "s")"#, "webhooks.a.secret: is of no use"),
            (r#""a": (url: "https://h/", secret: " ")"#, "webhooks.a.secret: is empty"),
            (
                r#""a": (url: "https://h/", secret: "whsec_?canary")"#,
                "webhooks.a.secret: begins with whsec_",
            ),
            (r#""a": (url: "https://h/", events: [])"#, "webhooks.a.events: is empty"),
            (
                r#""a": (url: "https://h/", events: ["faling"])"#,
                "webhooks.a.events.0: nothing is called \"faling\"; did you mean `failing`?",
            ),
            (
                r#""a": (url: "https://h/", events: ["quota", "quota"])"#,
                "webhooks.a.events.1: is there twice",
            ),
            (r#""a": (url: "https://h/", quiet: "1s")"#, "webhooks.a.quiet: is shorter than 1m"),
            (r#""a": (url: "https://h/", gather: "1h")"#, "webhooks.a.gather: is longer than 10m"),
            (
                r#""a": (url: "https://h/", language: "cn")"#,
                "webhooks.a.language: \"cn\" is no language",
            ),
            (r#""a": (url: "https://h/", server_name: "")"#, "webhooks.a.server_name: is empty"),
        ] {
            let wrong = parse(webhook).unwrap_err();
            assert!(wrong.contains(expected), "{expected}\n\n{wrong}");
            assert!(!wrong.contains("canary"), "{wrong}");
        }
    }

    #[test]
    fn what_others_could_read_or_forge_is_advised_against() {
        let advice = |webhook: &str| {
            let advice = parse(webhook).unwrap().advice;
            advice.into_iter().map(|advice| advice.path).collect::<Vec<_>>()
        };
        let unsigned = r#""a": (url: "http://example.com/x")"#;
        assert_eq!(advice(unsigned), ["webhooks.a.url", "webhooks.a.secret"]);
        let signed = r#""a": (url: "https://example.com/x", secret: "whsec_AAAA")"#;
        assert!(advice(signed).is_empty() && advice(r#""a": (url: "${env:ROBOT}")"#).is_empty());
    }
}
