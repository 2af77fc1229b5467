//! What is said of each answer, as tables.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config::{self, Environment};
use crate::snapshot::{ConditionNow, Remedy, Trouble};
use crate::status::TokenStatus;
use crate::token::Generation;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn source(url: &str) -> TokenSource {
    let text = format!(r#"(token_sources: {{"t": (url: "{url}")}})"#);
    let config = config::parse(&text, Path::new("c.ron"), &Environment::default()).unwrap();
    config.sources.into_iter().next().unwrap()
}

fn wechat() -> TokenSource {
    source("https://api.weixin.qq.com/cgi-bin/token")
}

fn status(state: State, trouble: Option<Trouble>, is_on_disk: bool) -> SourceStatus {
    let is_failing = trouble.is_some();
    let token = matches!(state, State::Live | State::Failing).then_some(TokenStatus {
        generation: Generation(1),
        fetched_at: NOW,
        first_seen: NOW,
        expires_at: NOW,
        life_left: Duration::from_secs(3_000),
        promised: Duration::from_secs(3_000),
    });
    SourceStatus {
        name: wechat().name,
        state,
        token,
        condition: ConditionNow {
            trouble: trouble.map(Arc::new),
            is_trouble_over: false,
            is_failing,
            is_on_disk,
            next_renewal: None,
            renewed: 0,
            failed: 0,
        },
        calls: None,
    }
}

fn trouble(class: FailureClass, code: Option<&str>) -> Trouble {
    Trouble {
        at: NOW,
        what: "the upstream did not answer in time".into(),
        what_zh: "上游没有及时应答".into(),
        class: class.as_str(),
        code: code.map(Into::into),
        remedy: Remedy { en: "the hint".into(), zh: "中文".into() },
        is_failure: class != FailureClass::Reserved,
    }
}

#[test]
fn what_a_running_servers_renewals_came_to_is_named_with_what_to_do() {
    use FailureClass::{Misconfigured, QuotaSpent, Throttled, Transient, Unknown};
    for (class, code, live, topic, mark, remedy) in [
        (Misconfigured, Some("40164"), true, Topic::Address, Mark::Problem, "Development keys"),
        (Misconfigured, Some("40125"), true, Topic::Credentials, Mark::Problem, "reset it at"),
        (
            Misconfigured,
            Some("40243"),
            false,
            Topic::Credentials,
            Mark::Problem,
            "mp.weixin.qq.com",
        ),
        (Misconfigured, Some("40013"), false, Topic::Credentials, Mark::Problem, "weixin"),
        (QuotaSpent, Some("45009"), true, Topic::Quota, Mark::Problem, "stable_token"),
        (Throttled, Some("45011"), true, Topic::Credentials, Mark::Warning, "hint"),
        (Transient, None, true, Topic::Credentials, Mark::Warning, "hint"),
        (Transient, None, false, Topic::Credentials, Mark::Problem, "hint"),
        (QuotaSpent, None, true, Topic::Quota, Mark::Problem, "hint"),
        (Unknown, Some("7"), true, Topic::Credentials, Mark::Problem, "hint"),
    ] {
        let state = if live { State::Failing } else { State::Absent };
        let trouble = trouble(class, code);
        let status = status(state, Some(trouble), true);
        let findings = judge_running(&wechat(), &status, &Some(Ok(())), NOW);
        assert_eq!(findings.len(), 1, "{code:?}: {findings:#?}");
        let finding = &findings[0];
        assert_eq!((finding.topic, finding.mark), (topic, mark), "{code:?}");
        let said = finding.remedy.as_ref().unwrap();
        assert!(said.en.contains(remedy) && !said.zh.is_empty(), "{code:?}: {}", said.en);
        assert!(said.en.starts_with("the hint"), "{code:?}: {}", said.en);
        let name = code.map_or_else(|| class.as_str().to_owned(), |code| format!("errcode_{code}"));
        assert_eq!(finding.code, name);
    }
}

#[test]
fn nobody_who_reads_the_report_is_sent_to_doctor() {
    let error = FetchError::NotConnected("x".into());
    let (en, zh) = error.hint();
    assert!(en.contains("doctor") && zh.contains("doctor"), "{en} {zh}");
    let remedy = Failure::of(&error).remedy(&wechat());
    assert!(remedy.en.ends_with("outbound.proxy. What is said of the hosts may tell why"));
    assert!(remedy.zh.ends_with("outbound.proxy。原因可参考「上游主机」一节"));
    let spent = FetchError::BudgetSpent { wait: Duration::from_secs(7) };
    assert_eq!(Failure::of(&spent).remedy(&wechat()).en, spent.hint().0);
}

#[test]
fn a_refused_wish_of_a_client_and_a_trouble_that_is_over_are_none() {
    let mut over = status(State::Live, Some(trouble(FailureClass::Transient, None)), true);
    over.condition.is_trouble_over = true;
    let reserved = status(State::Live, Some(trouble(FailureClass::Reserved, None)), true);
    for status in [over, reserved] {
        let findings = judge_running(&wechat(), &status, &None, NOW);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].mark, &*findings[0].code), (Mark::Ok, "token_ok"));
    }
}

#[test]
fn a_source_without_a_token_and_one_in_memory_only_are_told() {
    let findings = judge_running(&wechat(), &status(State::Absent, None, true), &None, NOW);
    assert_eq!((findings.len(), &*findings[0].code), (1, "no_token"));
    let findings = judge_running(&wechat(), &status(State::Live, None, false), &None, NOW);
    let codes: Vec<&str> = findings.iter().map(|finding| &*finding.code).collect();
    assert_eq!(codes, ["token_ok", "memory_only"]);
}

#[test]
fn what_an_upstream_says_of_a_token_is_told_from_what_it_says_of_the_call() {
    use FailureClass::{Misconfigured, QuotaSpent, Transient};
    let refused = |code, class| Some(Err(FetchError::refused(code, class)));
    for (asked, mark, code) in [
        (None, Mark::Ok, "token_ok"),
        (Some(Ok(())), Mark::Ok, "token_ok"),
        (refused(40001, Misconfigured), Mark::Problem, "token_refused"),
        (refused(42001, Misconfigured), Mark::Problem, "token_refused"),
        (refused(40164, Misconfigured), Mark::Problem, "errcode_40164"),
        // The call may not be made by this account, or not again today: the token was looked at before.
        (refused(48001, Misconfigured), Mark::Ok, "token_ok"),
        (refused(45009, QuotaSpent), Mark::Ok, "token_ok"),
        (refused(-1, Transient), Mark::Warning, "token_not_asked"),
        (Some(Err(FetchError::TimedOut)), Mark::Warning, "token_not_asked"),
    ] {
        let finding = judge_token(&wechat(), &asked, &words("how", "如何"));
        assert_eq!((finding.mark, &*finding.code), (mark, code), "{asked:?}");
        assert_eq!(finding.remedy.is_none(), mark == Mark::Ok, "{asked:?}");
    }
}

#[test]
fn without_a_server_a_trial_tells_or_it_is_said_why_there_is_none() {
    use FailureClass::{Misconfigured, Transient};
    let refused =
        |code, class| Offline::Tried(Trial::StableToken, Err(FetchError::refused(code, class)));
    for (known, topic, mark, code) in [
        (
            Offline::Tried(Trial::StableToken, Ok(())),
            Topic::Credentials,
            Mark::Ok,
            "credentials_ok",
        ),
        (refused(40164, Misconfigured), Topic::Address, Mark::Problem, "errcode_40164"),
        (refused(40125, Misconfigured), Topic::Credentials, Mark::Problem, "errcode_40125"),
        (refused(-1, Transient), Topic::Credentials, Mark::Warning, "credentials_not_tried"),
        (Offline::WouldReplace, Topic::Credentials, Mark::Warning, "credentials_not_tried"),
        (Offline::QuotaSpent, Topic::Credentials, Mark::Warning, "credentials_not_tried"),
        (Offline::StoreInUse, Topic::Credentials, Mark::Warning, "credentials_not_tried"),
        (Offline::StoreUnread, Topic::Credentials, Mark::Warning, "credentials_not_tried"),
    ] {
        let findings = judge_offline(&wechat(), &known);
        let first = &findings[0];
        assert_eq!((first.topic, first.mark, &*first.code), (topic, mark, code), "{known:?}");
        assert_eq!(first.remedy.is_none(), mark == Mark::Ok, "{known:?}");
    }
    // A page of WeChat's console is for WeChat's accounts.
    let wecom = source("https://qyapi.weixin.qq.com/cgi-bin/gettoken");
    let findings = judge_offline(&wecom, &refused(40001, Misconfigured));
    assert!(!findings[0].remedy.as_ref().unwrap().en.contains("My business"));
}
