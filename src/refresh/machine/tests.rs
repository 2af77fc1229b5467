//! Decisions that need clocks which no running engine would show: as events and effects alone.

use std::time::UNIX_EPOCH;

use super::*;
use crate::config::Rotation;
use crate::refresh::handle::Refused;

const START: u64 = 1_800_000_000;
const IDENTITY: SourceIdentity = SourceIdentity([0; 32]);

/// The clocks, by themselves; in milliseconds.
fn clocks(wall: u64, mono: u64) -> Now {
    Now {
        wall: UNIX_EPOCH + Duration::from_secs(START) + Duration::from_millis(wall),
        mono: Duration::from_millis(mono),
    }
}

/// A two-hour token that was fetched at 0.
fn record() -> TokenRecord {
    TokenRecord {
        value: Secret::new("kept"),
        fetched_at: clocks(0, 0).wall,
        expires_at: clocks(7_200_000, 0).wall,
        generation: Generation(7),
        first_seen: clocks(0, 0).wall,
        identity: IDENTITY,
        captured: None,
    }
}

/// A machine that has it.
fn machine() -> Machine {
    let mut machine = Machine::new(RefreshPolicy::default(), IDENTITY, false, 1);
    machine.restore(clocks(0, 0), Some(record()), None);
    machine
}

fn answers(effects: Vec<Effect>) -> Vec<Result<Generation, RefreshError>> {
    let answer = |effect| match effect {
        Effect::Answer(_, answer) => Some(answer.map(|published| published.record.generation)),
        _ => None,
    };
    effects.into_iter().filter_map(answer).collect()
}

#[test]
fn a_waiter_is_answered_from_the_state_also_where_the_attempt_failed() {
    let mut machine = machine();
    assert!(
        machine
            .on(clocks(7_100_000, 7_100_000), Event::Woken)
            .contains(&Effect::Fetch(Purpose::Scheduled))
    );
    // The wall clock is two seconds ahead, by which the token has just ended …
    let older = Wish::Other { refused: Refused::parse("older"), force: false };
    let effects = machine.on(clocks(7_200_500, 7_198_600), Event::Asked(WaiterId(1), older));
    assert_eq!(answers(effects), []);
    // … and is put right before the attempt fails.
    let lost = Event::Fetched(Err(FetchError::TimedOut));
    let effects = machine.on(clocks(7_199_000, 7_199_000), lost);
    assert_eq!(answers(effects), [Ok(Generation(7))]);
}

#[test]
fn no_more_than_a_bounded_number_of_clients_wait() {
    let mut machine = machine();
    let now = clocks(100_000, 100_000);
    let refused = Wish::Other { refused: Refused::parse("kept"), force: false };
    for waiter in 0..1_024 {
        let effects = machine.on(now, Event::Asked(WaiterId(waiter), refused));
        assert_eq!(answers(effects), [], "{waiter}");
    }
    let effects = machine.on(now, Event::Asked(WaiterId(1_024), refused));
    assert_eq!(answers(effects), [Err(RefreshError::TooMany)]);
    // The others are answered all the same.
    let lost = Event::Fetched(Err(FetchError::TimedOut));
    assert_eq!(answers(machine.on(now, lost)).len(), 1_024);
}

#[test]
fn a_request_before_a_crash_is_waited_for_also_where_the_clock_was_set_back() {
    // Sent an hour after the token was fetched, by a clock that had been set back by two.
    let sent = clocks(0, 0).wall - Duration::from_secs(3_600);
    let unsettled = Some(Unsettled { first: sent, last: sent });
    let mut machine = Machine::new(RefreshPolicy::default(), IDENTITY, false, 1);
    let now = Now { wall: sent + Duration::from_millis(100), mono: Duration::ZERO };
    // A record from the future is not served, but the request counts all the same.
    assert_eq!(machine.restore(now, Some(record()), unsettled), []);
    // It could come in after a new one.
    assert_eq!(machine.on(now, Event::Woken), []);
    let settled = now.after(RefreshPolicy::default().timeout + Duration::from_secs(2));
    assert!(machine.on(settled, Event::Woken).contains(&Effect::Fetch(Purpose::Scheduled)));
}

#[test]
fn a_mark_from_before_the_clock_was_set_back_counts_as_old() {
    let later = clocks(3_600_000, 0).wall;
    let unsettled = Some(Unsettled { first: later, last: later });
    let policy = RefreshPolicy { rotation: Rotation::Rotating, ..RefreshPolicy::default() };
    let mut machine = Machine::new(policy, IDENTITY, false, 1);
    let now = clocks(1_000, 0);
    let effects = machine.restore(now, Some(record()), unsettled);
    let [Effect::Publish(published)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(published.promised_life(now), Some(Duration::ZERO));
}

#[test]
fn calls_that_are_given_back_have_what_failed_for_want_of_them_tried_now_and_nothing_else() {
    let now = clocks(1_000_000, 1_000_000);
    let again =
        |machine: &mut Machine, at| machine.on(at, Event::Asked(WaiterId(9), Wish::CallsAgain));
    // Nothing has failed: there is nothing to do.
    let mut idle = machine();
    assert_eq!(answers(again(&mut idle, now)), [Ok(Generation(7))]);
    let fails_with = |class| {
        let mut machine = machine();
        let forced = Wish::Any { newer_than: Some(Generation(7)), force: false };
        machine.on(now, Event::Asked(WaiterId(1), forced));
        let refused = FetchError::refused(45_009, class);
        machine.on(now, Event::Fetched(Err(refused)));
        machine
    };
    let mut spent = fails_with(FailureClass::QuotaSpent);
    let later = clocks(1_001_000, 1_001_000);
    let forced = Wish::Any { newer_than: Some(Generation(7)), force: false };
    let effects = spent.on(later, Event::Asked(WaiterId(2), forced));
    assert!(
        matches!(&answers(effects)[..], [Err(RefreshError::Failed { .. })]),
        "the next day is waited for"
    );
    let effects = again(&mut spent, later);
    assert_eq!(effects, [Effect::Fetch(Purpose::Scheduled)], "and nobody is blamed");
    let effects =
        spent.on(later, Event::Fetched(Err(FetchError::refused(45_009, FailureClass::QuotaSpent))));
    assert!(matches!(&answers(effects)[..], [Err(RefreshError::Failed { .. })]));
    // What calls cannot mend is left alone.
    let mut other = fails_with(FailureClass::Misconfigured);
    assert_eq!(answers(again(&mut other, later)), [Ok(Generation(7))]);
}

#[test]
fn a_refused_force_is_the_answer_of_those_alone_who_force() {
    let policy = RefreshPolicy {
        rotation: Rotation::Sticky { window: Duration::from_secs(300) },
        ..RefreshPolicy::default()
    };
    let mut machine = Machine::new(policy, IDENTITY, false, 1);
    machine.restore(clocks(0, 0), Some(record()), None);
    let now = clocks(1_000_000, 1_000_000);
    let new = Wish::Any { newer_than: Some(Generation(7)), force: true };
    let other = Wish::Other { refused: Refused::parse("kept"), force: false };
    machine.on(now, Event::Asked(WaiterId(1), new));
    machine.on(now, Event::Asked(WaiterId(2), other));
    let wait = Duration::from_secs(28);
    let refused = || Event::Fetched(Err(FetchError::ForcedTooOften { wait }));
    let effects = machine.on(now, refused());
    // Who waits for another reason has the upstream asked.
    assert!(effects.contains(&Effect::Fetch(Purpose::Forced)), "{effects:?}");
    assert_eq!(answers(effects), [Err(RefreshError::ForcedTooOften { wait })]);
    assert_eq!(answers(machine.on(now, Event::Fetched(Err(FetchError::NotJson)))).len(), 1);
    // Who comes right after the refusal is not held back by it, but who forces is.
    let later = clocks(1_100_000, 1_100_000);
    machine.on(later, Event::Asked(WaiterId(3), new));
    machine.on(later, refused());
    let effects = machine.on(later, Event::Asked(WaiterId(4), new));
    assert_eq!(answers(effects), [Err(RefreshError::ForcedTooOften { wait })]);
    let effects = machine.on(later, Event::Asked(WaiterId(5), other));
    assert_eq!(effects.last(), Some(&Effect::Fetch(Purpose::Forced)), "{effects:?}");
}
