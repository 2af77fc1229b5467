//! The rules of the model as tables, and the property that verdicts agree with answers.

use super::*;
use proptest::prelude::*;

const APPID: &str = Account::SANDBOX_APPID;
const SECRET: &str = Account::SANDBOX_SECRET;

/// Midnight in Beijing.
const START: u64 = 1_767_196_800;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(START + seconds)
}

fn model(settings: Settings) -> Model {
    Model::new(settings, [Account::default()], 7)
}

fn caller() -> Caller<'static> {
    Caller::new(APPID, SECRET)
}

fn live_for(verdict: Verdict) -> Option<u64> {
    match verdict {
        Verdict::Live { left } => Some(left.as_secs()),
        _ => None,
    }
}

fn code<T>(result: Result<T, Refusal>) -> i32 {
    result.map_or_else(|refusal| refusal.code, |_| 0)
}

#[test]
fn kinds_stand_in_the_order_of_their_declaration() {
    for (at, kind) in KINDS.iter().enumerate() {
        assert_eq!(kind.0 as usize, at);
    }
}

#[test]
fn each_fetch_makes_a_token_and_the_old_one_works_for_the_overlap() {
    let mut model = model(Settings::default());
    let old = model.token(caller(), at(0)).unwrap();
    let new = model.token(caller(), at(6_600)).unwrap();
    assert_eq!(old.expires_in, Duration::from_secs(7_200));
    assert_ne!(old.value, new.value);
    // (now, old accepted for, new accepted for)
    for (now, old_left, new_left) in [
        (6_600, Some(300), Some(7_200)),
        (6_899, Some(1), Some(6_901)),
        (6_900, None, Some(6_900)),
        (13_799, None, Some(1)),
        (13_800, None, None),
    ] {
        assert_eq!(live_for(model.accepts(old.value.expose(), at(now))), old_left, "at {now}");
        assert_eq!(live_for(model.accepts(new.value.expose(), at(now))), new_left, "at {now}");
    }
    assert_eq!(model.accepts(old.value.expose(), at(6_900)), Verdict::Replaced);
    assert_eq!(model.accepts(old.value.expose(), at(7_200)), Verdict::Expired);
}

#[test]
fn a_late_rotation_does_not_lengthen_the_old_life() {
    let mut model = model(Settings::default());
    let old = model.token(caller(), at(0)).unwrap();
    model.rotate(APPID, at(7_100)).unwrap();
    assert_eq!(live_for(model.accepts(old.value.expose(), at(7_199))), Some(1));
    assert_eq!(model.accepts(old.value.expose(), at(7_200)), Verdict::Expired);
    assert!(model.rotate("wxother", at(7_200)).is_none());
}

#[test]
fn a_stable_token_changes_only_within_its_window() {
    let mut model = model(Settings::default());
    let first = model.stable_token(caller(), false, at(0)).unwrap();
    // (now, stated life, same token)
    for (now, stated, same) in [
        (1, 7_199, true),
        (6_899, 301, true),
        (6_900, 7_200, false), // the last five minutes begin
        (7_000, 7_100, false), // the second one now
    ] {
        let grant = model.stable_token(caller(), false, at(now)).unwrap();
        assert_eq!(grant.expires_in, Duration::from_secs(stated), "at {now}");
        assert_eq!(grant.value == first.value, same, "at {now}");
        assert!(model.accepts(grant.value.expose(), at(now)).is_live());
    }
    assert_eq!(live_for(model.accepts(first.value.expose(), at(7_199))), Some(1));
    assert_eq!(model.accepts(first.value.expose(), at(7_200)), Verdict::Expired);
}

#[test]
fn forcing_kills_at_once_is_spaced_and_rationed() {
    let mut model = model(Settings { force_quota: Some(3), ..Settings::default() });
    let first = model.stable_token(caller(), true, at(0)).unwrap();
    // (now, same token as before)
    let mut before = first.clone();
    for (now, same) in [(29, true), (30, false), (59, true), (60, false)] {
        let grant = model.stable_token(caller(), true, at(now)).unwrap();
        assert_eq!(grant.value == before.value, same, "at {now}");
        if !same {
            assert_eq!(model.accepts(before.value.expose(), at(now)), Verdict::Replaced);
        }
        before = grant;
    }
    assert_eq!(code(model.stable_token(caller(), true, at(90))), 45009);
    assert_eq!(code(model.stable_token(caller(), false, at(90))), 0);
    assert_eq!(code(model.stable_token(caller(), true, at(86_399))), 45009);
    assert_eq!(code(model.stable_token(caller(), true, at(86_400))), 0, "the next Beijing day");
}

#[test]
fn the_two_kinds_of_access_token_leave_each_other_alone() {
    let mut model = model(Settings::default());
    let plain = model.token(caller(), at(0)).unwrap();
    let stable = model.stable_token(caller(), true, at(0)).unwrap();
    model.stable_token(caller(), true, at(100)).unwrap();
    assert_eq!(live_for(model.accepts(plain.value.expose(), at(100))), Some(7_100));
    let stable_2 = model.stable_token(caller(), false, at(100)).unwrap();
    model.token(caller(), at(100)).unwrap();
    assert_eq!(live_for(model.accepts(stable_2.value.expose(), at(1_000))), Some(6_300));
    assert_eq!(model.accepts(stable.value.expose(), at(100)), Verdict::Replaced);
}

#[test]
fn a_ticket_stays_the_same_to_its_end_and_always_states_a_full_life() {
    let mut model = model(Settings::default());
    let token = model.stable_token(caller(), false, at(0)).unwrap();
    let first = model.ticket(Some(token.value.expose()), Some("jsapi"), at(0)).unwrap();
    let card = model.ticket(Some(token.value.expose()), Some("wx_card"), at(0)).unwrap();
    assert_ne!(first.value, card.value);
    // (now, same ticket)
    for (now, same) in [(1, true), (7_199, true), (7_200, false)] {
        let token = model.stable_token(caller(), false, at(now)).unwrap();
        let grant = model.ticket(Some(token.value.expose()), Some("jsapi"), at(now)).unwrap();
        assert_eq!(grant.expires_in, Duration::from_secs(7_200));
        assert_eq!(grant.value == first.value, same, "at {now}");
    }
    assert_eq!(live_for(model.accepts_ticket(first.value.expose(), at(7_200))), Some(300));
    assert!(!model.accepts_ticket(first.value.expose(), at(7_500)).is_live());
    assert_eq!(model.accepts(first.value.expose(), at(0)), Verdict::Unknown, "is no access token");
    assert_eq!(model.accepts_ticket(token.value.expose(), at(0)), Verdict::Unknown);
}

#[test]
fn calls_that_present_a_token_are_refused_as_their_token_is() {
    let mut model = model(Settings::default());
    let old = model.token(caller(), at(0)).unwrap();
    let new = model.token(caller(), at(10)).unwrap();
    let (old, new) = (old.value.expose(), new.value.expose());
    // (now, access token, expected)
    for (now, token, expected) in [
        (10, Some(new), 0),
        (10, Some(old), 0),
        (310, Some(old), 40001),
        (7_200, Some(old), 42001),
        (7_210, Some(new), 42001),
        (10, Some("nonsense"), 40014),
        (10, Some("0_T0_forged"), 40014),
        (10, Some("9_T0_x"), 40014),
        (10, Some("0_é0_x"), 40014),
        (10, Some("0__"), 40014),
        (10, None, 41001),
    ] {
        assert_eq!(code(model.callback_ip(token, at(now))), expected, "{token:?} at {now}");
        assert_eq!(code(model.ticket(token, Some("jsapi"), at(now))), expected, "{token:?}");
    }
    for wrong in [None, Some("Jsapi"), Some("")] {
        assert_eq!(code(model.ticket(Some(new), wrong, at(10))), 40097);
    }
}

#[test]
fn a_call_is_checked_in_order() {
    let there: IpAddr = Ipv4Addr::new(1, 2, 3, 4).into();
    let open = Account::default();
    let (mut frozen, mut closed) = (open.clone(), open.clone());
    frozen.refused_with = Some(40243);
    closed.allow = Some(vec![there]);
    let of = |grant_type, appid, secret| Caller { grant_type, appid, secret, ..caller() };
    let grant = Some(GRANT_TYPE);
    for (account, caller, expected) in [
        (&open, of(grant, Some(APPID), Some(SECRET)), 0),
        (&open, of(None, Some(APPID), Some(SECRET)), 40002),
        (&open, of(Some("password"), None, None), 40002),
        (&open, of(grant, None, None), 41002),
        (&open, of(grant, Some(APPID), None), 41004),
        (&open, of(grant, Some("wxother"), Some(SECRET)), 40013),
        (&open, of(grant, Some(APPID), Some("other")), 40125),
        (&frozen, of(grant, Some(APPID), Some("other")), 40125),
        (&frozen, of(grant, Some(APPID), Some(SECRET)), 40243),
        (&closed, of(grant, Some(APPID), Some(SECRET)), 40164),
        (&closed, Caller { address: there, ..self::caller() }, 0),
    ] {
        let mut model = Model::new(Settings::default(), [account.clone()], 7);
        assert_eq!(code(model.token(caller, at(0))), expected, "{caller:?}");
        assert_eq!(code(model.stable_token(caller, false, at(0))), expected, "{caller:?}");
        assert_eq!(code(model.clear_quota(caller, at(0))), expected, "{caller:?}");
    }
    let mut closed = Model::new(Settings::default(), [closed], 7);
    let refused = closed.token(caller(), at(0)).unwrap_err();
    assert_eq!(refused.caller, Some(Ipv4Addr::LOCALHOST.into()), "40164 names the address");
}

#[test]
fn a_quota_is_of_an_account_an_endpoint_and_a_beijing_day() {
    let settings = Settings { token_quota: Some(2), clear_quota: Some(1), ..Settings::default() };
    let accounts = [Account::default(), Account::new("wx2", "s2")];
    let mut model = Model::new(settings, accounts, 7);
    for expected in [0, 0, 45009, 45009] {
        assert_eq!(code(model.token(caller(), at(10))), expected);
    }
    assert_eq!(model.used_today(APPID, Endpoint::Token, at(10)), Some(2));
    assert_eq!(code(model.stable_token(caller(), false, at(10))), 0, "another endpoint");
    assert_eq!(code(model.token(Caller::new("wx2", "s2"), at(10))), 0, "another account");
    assert_eq!(code(model.token(caller(), at(86_399))), 45009);
    assert_eq!(code(model.token(caller(), at(86_400))), 0, "the next day");
    assert_eq!(code(model.token(caller(), at(86_400))), 0);
    assert_eq!(code(model.token(caller(), at(86_400))), 45009);
    assert_eq!(code(model.clear_quota(caller(), at(86_400))), 0);
    assert_eq!(code(model.token(caller(), at(86_400))), 0, "cleared");
    assert_eq!(code(model.clear_quota(caller(), at(86_401))), 48006, "once this month");
    assert_eq!(code(model.clear_quota(caller(), at(31 * 86_400))), 0, "once next month");
}

#[test]
fn a_minute_has_its_own_limit() {
    let mut model = model(Settings { stable_per_minute: Some(2), ..Settings::default() });
    for (now, expected) in [(0, 0), (59, 0), (59, 45011), (60, 0), (61, 0), (62, 45011)] {
        assert_eq!(code(model.stable_token(caller(), false, at(now))), expected, "at {now}");
    }
}

#[test]
fn values_have_the_length_that_is_set_and_repeat_from_the_seed() {
    for bytes in [32, 136, 600] {
        let settings = Settings { value_bytes: bytes, ..Settings::default() };
        let value = model(settings.clone()).token(caller(), at(0)).unwrap().value;
        assert_eq!(value.expose().len(), bytes);
        assert_eq!(model(settings.clone()).token(caller(), at(9)).unwrap().value, value);
        let mut other = Model::new(settings, [Account::default()], 8);
        assert_ne!(other.token(caller(), at(0)).unwrap().value, value);
    }
}

#[test]
fn an_account_can_be_replaced_without_losing_its_tokens() {
    let mut model = model(Settings::default());
    let token = model.token(caller(), at(0)).unwrap();
    model.add(Account::new(APPID, "reset"));
    assert_eq!(model.accounts().len(), 1);
    assert_eq!(model.owner(token.value.expose()), Some(APPID));
    assert_eq!(model.owner("0_T0_forged"), None);
    assert_eq!(code(model.token(caller(), at(1))), 40125);
    assert!(model.accepts(token.value.expose(), at(1)).is_live());
}

/// What may happen in the property below.
#[derive(Debug, Clone, Copy)]
enum Step {
    Token,
    Foreign,
    Stable,
    Forced,
    Ticket,
}

/// A value as it was answered, and the end that the rules give it.
struct Answered {
    value: Secret,
    /// 0 token, 1 stable token, 2 ticket
    line: usize,
    ends: SystemTime,
}

proptest! {
    /// Whatever the order of calls: a value is accepted until the earliest of its end and what a
    /// later answer has done to it, and never longer; no answer states more life than there is.
    #[test]
    fn verdicts_agree_with_answers(
        steps in prop::collection::vec(
            (0_u64..3_000, prop::sample::select(vec![
                Step::Token, Step::Foreign, Step::Stable, Step::Forced, Step::Ticket,
            ])),
            1..60,
        )
    ) {
        let settings = Settings { force_quota: None, ..Settings::default() };
        let (life, overlap) = (settings.lifetime, settings.overlap());
        let grace = settings.ticket_grace();
        let mut model = model(settings);
        let mut answered: Vec<Answered> = Vec::new();
        // Indexes of what is current, by line.
        let mut current: [Option<usize>; 3] = [None; 3];
        let mut now = at(0);
        for (wait, step) in steps {
            now += Duration::from_secs(wait);
            let (grant, line) = match step {
                Step::Token => (model.token(caller(), now).unwrap(), 0),
                Step::Foreign => (model.rotate(APPID, now).unwrap(), 0),
                Step::Stable => (model.stable_token(caller(), false, now).unwrap(), 1),
                Step::Forced => (model.stable_token(caller(), true, now).unwrap(), 1),
                Step::Ticket => {
                    let Some(bearer) = current[0] else { continue };
                    let bearer = &answered[bearer];
                    let result = model.ticket(Some(bearer.value.expose()), Some("jsapi"), now);
                    prop_assert_eq!(result.is_ok(), now < bearer.ends);
                    let Ok(grant) = result else { continue };
                    (grant, 2)
                }
            };
            let is_ticket = line == 2;
            let before = current[line];
            if before.is_none_or(|at| answered[at].value != grant.value) {
                let killed = match step {
                    Step::Forced => now,
                    Step::Ticket => now + life + grace, // a ticket is not killed
                    _ => now + overlap,
                };
                for old in answered.iter_mut().filter(|old| old.line == line) {
                    old.ends = old.ends.min(killed);
                }
                prop_assert_eq!(grant.expires_in, life);
                current[line] = Some(answered.len());
                let ends = now + life + if is_ticket { grace } else { Duration::ZERO };
                answered.push(Answered { value: grant.value, line, ends });
            } else if !is_ticket {
                prop_assert_eq!(now + grant.expires_in, answered[before.unwrap()].ends);
            }
            for one in &answered {
                let verdict = if one.line == 2 {
                    model.accepts_ticket(one.value.expose(), now)
                } else {
                    model.accepts(one.value.expose(), now)
                };
                let expected = left(one.ends, now).map(|left| Verdict::Live { left });
                prop_assert_eq!(verdict.is_live().then_some(verdict), expected);
            }
        }
    }
}
