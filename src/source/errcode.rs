//! What an upstream's error code means to us: the look-up in the table of codes, which is in
//! `errcode/table.rs`. The code decides, never the text beside it.

mod table;

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use self::table::{Key, Kind, Row};
use super::failure::{FailureClass, class_of_status};
use crate::config::{Code, TokenSource};

/// What to do about an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    en: &'static str,
    zh: &'static str,
    /// Where the code and its meaning are from: a page without `https://`, or who says so.
    pub source: &'static str,
}

/// Where a hint names the address that the upstream saw.
const ADDRESS: &str = "{address}";

impl Hint {
    /// In English. `address` is the one that the upstream saw, if it said so.
    pub fn en(self, address: Option<IpAddr>) -> Cow<'static, str> {
        named(self.en, address, "this server's address")
    }

    /// In Chinese.
    pub fn zh(self, address: Option<IpAddr>) -> Cow<'static, str> {
        const UNKNOWN: &str = "本服务器的公网 IP";
        match address {
            // A space stands before what is Latin, such as an address.
            None if self.zh.contains(ADDRESS) => {
                self.zh.replace(" {address}", UNKNOWN).replace(ADDRESS, UNKNOWN).into()
            }
            _ => named(self.zh, address, UNKNOWN),
        }
    }

    /// Whether the code is about the address that the upstream saw.
    pub(super) fn names_address(self) -> bool {
        self.en.contains(ADDRESS)
    }
}

fn named(text: &'static str, address: Option<IpAddr>, unknown: &str) -> Cow<'static, str> {
    match address {
        _ if !text.contains(ADDRESS) => text.into(),
        Some(address) => text.replace(ADDRESS, &address.to_string()).into(),
        None => text.replace(ADDRESS, unknown).into(),
    }
}

/// What a code means for one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    pub class: FailureClass,
    /// How long to stay away, where that is known: after the first refusal, and after further ones.
    pub waits: Option<(Duration, Duration)>,
    pub hint: Option<Hint>,
}

/// What `code` means to `source`, in an answer with this HTTP status. A code that nobody here knows
/// leaves the word to the status, if that says anything.
pub(super) fn meaning(source: &TokenSource, code: &Code, status: u16) -> Meaning {
    let path = source.url.path().trim_end_matches('/');
    let fits = |row: &&Row| row.code == *code && path.ends_with(row.endpoint);
    let Some(row) = table::of(source.vendor).iter().flat_map(|rows| rows.iter()).find(fits) else {
        let class = class_of_status(status).unwrap_or(FailureClass::Unknown);
        return Meaning { class, waits: None, hint: None };
    };
    let (class, waits) = match row.kind {
        Kind::Is(class) => (class, None),
        Kind::Waits(class, first, further) => {
            (class, Some((Duration::from_secs(first), Duration::from_secs(further))))
        }
        // The dependency's token where there is one, else the configured secret.
        Kind::Credential if source.dependencies.is_empty() => (FailureClass::Misconfigured, None),
        Kind::Credential => (FailureClass::DependencyInvalid, None),
    };
    let hint = Hint { en: row.en, zh: row.zh, source: row.source };
    Meaning { class, waits, hint: Some(hint) }
}

impl PartialEq<Code> for Key {
    fn eq(&self, code: &Code) -> bool {
        match (self, code) {
            (Key::Number(known), Code::Number(number)) => known == number,
            (Key::Text(known), Code::Text(text)) => *known == &**text,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use std::path::Path;

    fn check(url: &str, dependent: bool, code: &Code) -> Meaning {
        let args = if dependent { r#"{"access_token": "{{a}}"}"# } else { "{}" };
        let text = format!(
            r#"(token_sources: {{"a": (url: "https://h"), "t": (url: "{url}", args: {args})}})"#
        );
        let config = config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap();
        let source = config.sources.iter().find(|source| source.name.as_str() == "t").unwrap();
        meaning(source, code, 200)
    }

    #[test]
    fn a_code_means_what_its_vendor_and_endpoint_make_of_it() {
        use FailureClass::*;
        const TOKEN: &str = "https://api.weixin.qq.com/cgi-bin/token";
        const TICKET: &str = "https://api.weixin.qq.com/cgi-bin/ticket/getticket";
        const COMPONENT: &str = "https://api.weixin.qq.com/cgi-bin/component/api_component_token";
        const AUTHORIZER: &str = "https://api.weixin.qq.com/cgi-bin/component/api_authorizer_token";
        const WECOM: &str = "https://qyapi.weixin.qq.com/cgi-bin/gettoken";
        const HOUR: u64 = 3_600;
        for (url, dependent, code, class, waits) in [
            (TOKEN, false, -1, Transient, None),
            (TOKEN, false, 40001, Misconfigured, None),
            (TICKET, true, 40001, DependencyInvalid, None),
            (TICKET, true, 40014, DependencyInvalid, None),
            (TICKET, true, 42001, DependencyInvalid, None),
            (TOKEN, false, 40164, Misconfigured, None),
            (TOKEN, false, 45009, QuotaSpent, None),
            (TOKEN, false, 45011, Throttled, None),
            (TOKEN, false, 89507, Misconfigured, Some((HOUR, HOUR))),
            (TOKEN, false, 89506, Misconfigured, Some((24 * HOUR, 24 * HOUR))),
            (TOKEN, false, 123_456, Unknown, None),
            // A pushed ticket may be a source: the secret is at fault all the same.
            (COMPONENT, true, 40001, Misconfigured, None),
            (COMPONENT, true, 61006, DependencyInvalid, None),
            (COMPONENT, false, 61006, Misconfigured, None),
            (AUTHORIZER, true, 40001, DependencyInvalid, None),
            (AUTHORIZER, true, 61023, Misconfigured, None),
            (WECOM, false, 45009, Throttled, Some((60, HOUR))),
            (WECOM, false, 40001, Misconfigured, None),
            (WECOM, false, 89507, Unknown, None),
            ("https://api.q.qq.com/api/getToken", false, 40013, Misconfigured, None),
            ("https://unknown.example/x", false, 40013, Unknown, None),
        ] {
            let meaning = check(url, dependent, &Code::Number(code));
            let waits = waits.map(|(a, b)| (Duration::from_secs(a), Duration::from_secs(b)));
            assert_eq!((meaning.class, meaning.waits), (class, waits), "{url} {code}");
        }
        let oauth = Code::of_text("invalid_client");
        assert_eq!(check("https://unknown.example/x", false, &oauth).class, Misconfigured);
        assert_eq!(check(TOKEN, false, &Code::of_text("whatever")).class, Unknown);
    }

    #[test]
    fn an_unknown_code_leaves_the_word_to_the_status() {
        let text = r#"(token_sources: {"t": (url: "https://h/x")})"#;
        let config = config::parse(text, Path::new("c.ron"), &Environment::default()).unwrap();
        for (status, class) in [
            (200, FailureClass::Unknown),
            (400, FailureClass::Unknown),
            (401, FailureClass::Misconfigured),
            (429, FailureClass::Throttled),
            (503, FailureClass::Transient),
        ] {
            let meaning = meaning(&config.sources[0], &Code::Number(7), status);
            assert_eq!(meaning.class, class, "{status}");
        }
    }

    #[test]
    fn a_hint_names_the_address_if_it_is_known() {
        let hint = check("https://h/cgi-bin/token", false, &Code::Number(40164)).hint.unwrap();
        assert!(hint.names_address());
        let address = Some("1.2.3.4".parse().unwrap());
        assert!(hint.en(address).starts_with("add 1.2.3.4 to the IP allow list"));
        assert!(hint.zh(address).contains(" 1.2.3.4 "));
        assert!(hint.en(None).starts_with("add this server's address to the IP allow list"));
        assert!(hint.zh(None).starts_with("请将本服务器的公网 IP 加入"));
    }
}
