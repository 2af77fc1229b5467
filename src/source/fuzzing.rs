//! What must hold of an upstream's answer, whatever it is; see `crate::fuzzing`.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{self, Environment, TokenSource};
use crate::outbound::Answer;
use crate::source::reply;
use crate::token::Secret;

/// The statuses an answer may have, the frequent ones more than once.
const STATUSES: [u16; 8] = [200, 200, 200, 201, 302, 400, 429, 503];

/// What the request was made of.
const SENT: [&str; 3] = ["s3cr3ts3cr3t", "wx0123456789abcdef", "jsapi"];

/// Every source of the document on vendors.
static SOURCES: LazyLock<Vec<TokenSource>> = LazyLock::new(|| {
    let document = include_str!("../../docs/vendors.md");
    let pieces = document.split("```ron\n").skip(1).filter_map(|piece| piece.split_once("```"));
    let sources = pieces.flat_map(|(piece, _)| {
        let names = piece.split("${env:").skip(1).filter_map(|rest| rest.split('}').next());
        let environment = Environment::of(names.map(|name| (name, "c0nfigured")));
        let text = format!("(token_sources: {{ {piece} }})");
        let config = config::parse(&text, Path::new("c.ron"), &environment);
        config.expect("a test reads the document as well").sources
    });
    sources.collect()
});

/// The first byte says whose answer it is, the second which status it has, and whether a date and a
/// `Retry-After` come with it.
pub(crate) fn reply(input: &[u8]) {
    let [which, how, body @ ..] = input else { return };
    let source = &SOURCES[usize::from(*which) % SOURCES.len()];
    let sent_at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let answer = Answer {
        status: STATUSES[usize::from(how & 7)],
        body: body.to_vec().into(),
        date: (how & 8 != 0).then_some(sent_at + Duration::from_secs(5)),
        retry_after: (how & 16 != 0).then_some(Duration::from_secs(u64::from(*how) * 1_000)),
    };
    check(source, &answer, sent_at);
}

fn check(source: &TokenSource, answer: &Answer, sent_at: SystemTime) {
    let sent = SENT.map(Secret::new);
    match reply::read(source, answer, sent_at, &sent) {
        Ok(fetched) => {
            assert!((200..300).contains(&answer.status), "a token with status {}", answer.status);
            for text in [Some(&fetched.value), fetched.captured.as_ref()].into_iter().flatten() {
                let text = text.expose();
                assert!((1..=8 * 1024).contains(&text.len()), "{} bytes", text.len());
                assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "garbled: {text:?}");
            }
            let life = fetched.expires_in;
            assert!(!life.is_zero() && life.as_secs() <= 3_660 * 86_400, "lives {life:?}");
        }
        Err(error) => {
            let (words, chinese) = (error.to_string(), error.in_chinese());
            let (detail, (en, zh)) = (error.for_log(), error.hint());
            for text in [&*words, &*chinese, detail, &*en, &*zh] {
                assert!(text.len() <= 8 * 1024, "{} bytes", text.len());
                assert!(!text.chars().any(char::is_control), "breaks a line: {text:?}");
                // The third is no secret: it is too short.
                let told = SENT[..2].iter().find(|secret| text.contains(**secret));
                assert_eq!(told, None, "repeats what was sent: {text:?}");
            }
            let is_told = ![&*words, &*chinese, &*en, &*zh].contains(&"");
            assert!(is_told, "no words for {error:?}");
            assert!(error.was_sent(), "{error:?}");
            let waits = [error.wait(), error.wait_again()];
            let longest = Duration::from_secs(86_400);
            assert!(waits.into_iter().flatten().all(|wait| wait <= longest), "{waits:?}");
        }
    }
}
