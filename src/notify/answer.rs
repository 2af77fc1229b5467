//! What came of an attempt, by the receiver's answer. A robot answers with a code in a 200; its own words
//! are not repeated, since nobody knows what they repeat. Pure.

use std::time::Duration;

use serde::Deserialize;

use crate::config::WebhookKind;
use crate::outbound::{Answer, OutboundError};

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has arrived.
    Delivered,
    /// It may arrive the next time.
    Later {
        /// Why it has not.
        why: String,
        /// For how long the receiver is to be left alone at least.
        wait: Duration,
    },
    /// It will not arrive until a person does something: why, and what to do.
    Never(String),
}

/// How long a robot that is called too often is left alone. WeCom and DingTalk count by the minute;
/// DingTalk blocks for ten minutes.
const MINUTE: Duration = Duration::from_secs(60);
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// The longest `Retry-After` that is kept to.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A robot's answer. Feishu's says `code`, in its older form `StatusCode`, or both.
#[derive(Deserialize)]
struct RobotAnswer {
    errcode: Option<i64>,
    code: Option<i64>,
    #[serde(rename = "StatusCode")]
    status_code: Option<i64>,
}

/// What a robot's code says.
enum Meaning {
    /// It is called too often, or has trouble of its own.
    Wait(Duration),
    /// Somebody has to do something.
    Remedy(&'static str),
}

/// (whose robot, code, meaning), by the vendors' pages on group robots and their lists of codes:
/// developer.work.weixin.qq.com/document/path/90313, open.dingtalk.com/document/orgapp/custom-robot-access,
/// open.feishu.cn/document/client-docs/bot-v3/add-custom-bot. A code that is not here is tried again.
const CODES: &[(WebhookKind, i64, Meaning)] = &[
    (WebhookKind::WeCom, 45_009, Meaning::Wait(MINUTE)),
    (
        WebhookKind::WeCom,
        93_000,
        Meaning::Remedy("the key in url is no robot's (any more): copy the address anew"),
    ),
    (WebhookKind::WeCom, 93_004, Meaning::Remedy("the robot is switched off")),
    (WebhookKind::WeCom, 93_008, Meaning::Remedy("the robot is not in the group: add it again")),
    (WebhookKind::DingTalk, 130_101, Meaning::Wait(TEN_MINUTES)),
    (WebhookKind::DingTalk, 410_100, Meaning::Wait(TEN_MINUTES)),
    (
        WebhookKind::DingTalk,
        310_000,
        Meaning::Remedy(
            "its security settings refuse it: set secret to the one that it shows (加签), take \
             `wechat-token-server` as a keyword, or allow this server's address; is this machine's clock right?",
        ),
    ),
    (
        WebhookKind::DingTalk,
        300_001,
        Meaning::Remedy("the access_token in url is no robot's (any more): copy the address anew"),
    ),
    (WebhookKind::DingTalk, 400_013, Meaning::Remedy("the group has been dissolved")),
    (
        WebhookKind::DingTalk,
        400_101,
        Meaning::Remedy("the access_token in url is no robot's (any more): copy the address anew"),
    ),
    (WebhookKind::DingTalk, 400_102, Meaning::Remedy("the robot is switched off")),
    (WebhookKind::DingTalk, 400_106, Meaning::Remedy("there is no such robot (any more): add one")),
    (WebhookKind::Feishu, 11_232, Meaning::Wait(MINUTE)),
    (
        WebhookKind::Feishu,
        19_001,
        Meaning::Remedy("the address is no robot's (any more): copy it anew"),
    ),
    (
        WebhookKind::Feishu,
        19_021,
        Meaning::Remedy(
            "the signature does not fit: set secret to the one that it shows (签名校验); is this machine's clock right?",
        ),
    ),
    (
        WebhookKind::Feishu,
        19_022,
        Meaning::Remedy("its IP allow list refuses this server's address: add it"),
    ),
    (
        WebhookKind::Feishu,
        19_024,
        Meaning::Remedy("its keywords refuse it: take `wechat-token-server` as one"),
    ),
];

/// Reads the outcome of an attempt.
pub(super) fn verdict(kind: WebhookKind, outcome: Result<Answer, OutboundError>) -> Verdict {
    let later = |why: String| Verdict::Later { why, wait: Duration::ZERO };
    let answer = match outcome {
        Ok(answer) => answer,
        Err(OutboundError::CannotSend(why)) => return Verdict::Never(why),
        Err(OutboundError::NotConnected(why) | OutboundError::NoTls(why)) => {
            return later(format!("it cannot be reached: {why}"));
        }
        Err(OutboundError::TimedOut) => return later("it did not answer in time".into()),
        Err(OutboundError::Broken(why)) => return later(format!("the connection broke: {why}")),
        Err(OutboundError::TooLarge) => return later("its answer is too large".into()),
    };
    if !(200..300).contains(&answer.status) {
        let why = format!("it answered with status {}", answer.status);
        let wait = answer.retry_after.unwrap_or_default().min(LONGEST_WAIT);
        return Verdict::Later { why, wait };
    }
    if kind == WebhookKind::Json {
        return Verdict::Delivered;
    }
    let read = serde_json::from_slice(&answer.body).ok();
    let code = |answer: RobotAnswer| answer.errcode.or(answer.code).or(answer.status_code);
    let Some(errcode) = read.and_then(code) else {
        return later("its answer is not a robot's; is the address in url right?".into());
    };
    let known = CODES.iter().find(|(whose, code, _)| *whose == kind && *code == errcode);
    match known.map(|(.., meaning)| meaning) {
        _ if errcode == 0 => Verdict::Delivered,
        None => later(format!("the robot answered errcode {errcode}")),
        Some(Meaning::Wait(wait)) => Verdict::Later {
            why: format!("the robot answered errcode {errcode}: it is called too often"),
            wait: *wait,
        },
        Some(Meaning::Remedy(remedy)) => {
            Verdict::Never(format!("the robot answered errcode {errcode}: {remedy}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn answered(status: u16, body: &str) -> Result<Answer, OutboundError> {
        let body = Zeroizing::new(body.as_bytes().to_vec());
        Ok(Answer { status, body, ..Answer::default() })
    }

    #[test]
    fn a_receiver_that_is_a_program_answers_by_status() {
        for (status, delivered) in
            [(200, true), (204, true), (302, false), (404, false), (500, false)]
        {
            let is = verdict(WebhookKind::Json, answered(status, "")) == Verdict::Delivered;
            assert_eq!(is, delivered, "{status}");
        }
        let busy =
            Answer { status: 429, retry_after: Some(Duration::from_secs(7)), ..Answer::default() };
        let Verdict::Later { wait, .. } = verdict(WebhookKind::Json, Ok(busy)) else { panic!() };
        assert_eq!(wait, Duration::from_secs(7));
        let Verdict::Never(_) =
            verdict(WebhookKind::Json, Err(OutboundError::CannotSend("x".into())))
        else {
            panic!()
        };
    }

    #[test]
    fn a_robot_answers_by_a_code_in_a_200() {
        use WebhookKind::{DingTalk, Feishu, WeCom};
        // Whether it is delivered, or for how long it is left alone; `None`: for good.
        for (kind, body, outcome) in [
            (WeCom, r#"{"errcode":0,"errmsg":"ok"}"#, Ok(())),
            (DingTalk, r#"{"errcode":0,"errmsg":"ok"}"#, Ok(())),
            (Feishu, r#"{"code":0,"data":{},"msg":"success"}"#, Ok(())),
            (Feishu, r#"{"StatusCode":0,"StatusMessage":"success"}"#, Ok(())),
            (Feishu, r#"{"StatusCode":0,"StatusMessage":"success","code":0,"data":{}}"#, Ok(())),
            (WeCom, r#"{"errcode":45009,"errmsg":"api freq out of limit"}"#, Err(Some(60))),
            (WeCom, r#"{"errcode":93000,"errmsg":"invalid webhook url"}"#, Err(None)),
            (WeCom, r#"{"errcode":-1,"errmsg":"system busy"}"#, Err(Some(0))),
            (WeCom, "<html>", Err(Some(0))),
            (DingTalk, r#"{"errcode":130101,"errmsg":"send too fast"}"#, Err(Some(600))),
            (DingTalk, r#"{"errcode":310000,"errmsg":"sign not match"}"#, Err(None)),
            // Another vendor's.
            (WeCom, r#"{"errcode":310000,"errmsg":"?"}"#, Err(Some(0))),
            (Feishu, r#"{"code":19021,"msg":"sign match fail"}"#, Err(None)),
            (Feishu, r#"{"code":11232,"msg":"frequency limited"}"#, Err(Some(60))),
        ] {
            let is = match verdict(kind, answered(200, body)) {
                Verdict::Delivered => Ok(()),
                Verdict::Later { wait, why } => {
                    assert!(!why.contains("errmsg") && !why.contains("<html>"), "{why}");
                    Err(Some(wait.as_secs()))
                }
                Verdict::Never(why) => {
                    assert!(why.starts_with("the robot answered errcode"), "{why}");
                    Err(None)
                }
            };
            assert_eq!(is, outcome, "{body}");
        }
    }
}
