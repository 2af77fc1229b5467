//! What other token servers got wrong and ours must not (the list is in `docs/traps.md`), as far as
//! it is the engine's; on the paused clock.

use super::*;
use crate::refresh::places::MAX_FETCHES_OF_HOST;

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_fetch_that_fails_shares_its_failure() {
    let steps = vec![Step::Give(2 * HOUR, Duration::ZERO), Step::Hang];
    let world = Arc::new(world(ONE, [("access_token", steps)]));
    world.changed("access_token").await;
    seconds(60).await;
    let askers = (0..200).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.force("access_token").await })
    });
    for asker in askers.collect::<Vec<_>>() {
        let told = asker.await.unwrap().unwrap_err();
        assert_eq!(told.to_string(), "the upstream did not answer in time");
        // Who comes right after them is told the same.
        world.force("access_token").await.unwrap_err();
    }
    assert_eq!(world.fetched_at("access_token"), [0, 60]);
}

/// A config with so many sources on each of these hosts.
fn sources_on(hosts: &[(&str, usize)]) -> String {
    let source = |host: &str, n| format!(r#""{host}-{n}": (url: "https://{host}/cgi-bin/token"),"#);
    let all = hosts.iter().flat_map(|(host, count)| (0..*count).map(move |n| source(host, n)));
    format!("(token_sources: {{{}}})", all.collect::<String>())
}

#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_leaves_the_others_their_places() {
    // More than there are places in all, and more than may be prepared for one host.
    let config = sources_on(&[("hangs", 600), ("works", 100)]);
    let world = world(&config, []);
    *world.upstream.hanging.lock().unwrap() = Some("hangs");
    seconds(1).await;
    let served = (0..100).filter(|n| world.value(&format!("works-{n}")).is_some()).count();
    assert_eq!(served, 100, "all are fetched at once");
    // Those on the host that hangs have so many under way, and one after the other times out.
    let calls = world.upstream.calls.lock().unwrap();
    let hanging = calls.iter().filter(|call| call.source.starts_with("hangs")).count();
    assert_eq!(hanging, MAX_FETCHES_OF_HOST);
}

#[tokio::test(start_paused = true)]
async fn who_gave_up_waiting_leaves_its_place_to_the_next() {
    let steps = vec![Step::Give(2 * HOUR, Duration::ZERO), Step::Hang];
    let world = Arc::new(world(ONE, [("access_token", steps)]));
    world.changed("access_token").await;
    seconds(60).await;
    let ask = || {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.force("access_token").await })
    };
    // One at a time, so that it is the places of those who wait that are full, not the line.
    let mut askers = Vec::new();
    for _ in 0..MAX_WAITERS {
        askers.push(ask());
        tokio::task::yield_now().await;
    }
    seconds(1).await;
    assert_eq!(ask().await.unwrap(), Err(RefreshError::TooMany));
    for asker in &askers[..10] {
        asker.abort();
    }
    let waiting: Vec<_> = (0..10).map(|_| ask()).collect();
    for asker in waiting {
        let told = asker.await.unwrap().unwrap_err();
        assert_eq!(told.to_string(), "the upstream did not answer in time");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dependency_is_renewed_once_however_late_a_dependent_complains() {
    let world = world(TWO, []);
    world.changed("ticket").await;
    let refused = Wish::Newer { generation: world.generation("access_token").unwrap() };
    let renewed = world.ask("access_token", refused).await.unwrap();
    assert_ne!(renewed, "access_token-0");
    // This one was long on its way: it means the token before, which is replaced already.
    seconds(20).await;
    assert_eq!(world.ask("access_token", refused).await.unwrap(), renewed);
    assert_eq!(world.fetched_at("access_token").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn after_45009_nobody_makes_a_call_before_the_next_beijing_day() {
    let steps =
        vec![Step::Give(2 * HOUR, Duration::ZERO), errcode(45009, FailureClass::QuotaSpent)];
    let world = world(ONE, [("access_token", steps)]);
    world.changed("access_token").await;
    seconds(60).await;
    // It is four in the afternoon there: eight hours that outlast the token.
    while world.now() < Duration::from_secs(8 * HOUR - 60) {
        let told = world.force("access_token").await.unwrap_err();
        assert!(told.to_string().contains("try again in"), "{told}");
        seconds(60).await;
    }
    assert_eq!(world.fetched_at("access_token"), [0, 60]);
    assert_eq!(world.value("access_token"), None);
    // Midnight, two minutes for clocks that differ, and the jitter.
    seconds(60 + 120 + 15).await;
    assert_eq!(world.value("access_token").unwrap(), "access_token-1");
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_a_token_that_a_slow_disk_has_not_taken_yet() {
    let world = Arc::new(world(ONE, []));
    world.changed("access_token").await;
    seconds(60).await;
    *world.store.stuck.lock().unwrap() = true;
    let asker = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.force("access_token").await }
    });
    // Fetched a tenth of a second later, and not on disk.
    seconds(1).await;
    assert_eq!(world.fetched_at("access_token"), [0, 60]);
    assert_eq!(world.value("access_token").unwrap(), "access_token-0");
    assert!(!asker.is_finished());
    assert_eq!(asker.await.unwrap().unwrap(), "access_token-1");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_back_serves_no_dead_token() {
    let steps = vec![Step::Give(2 * HOUR, Duration::ZERO), Step::Hang];
    let world = world(ONE, [("access_token", steps)]);
    *world.clock.step.lock().unwrap() = Duration::from_secs(3 * HOUR);
    world.changed("access_token").await;
    *world.clock.step.lock().unwrap() = Duration::ZERO;
    // The wall clock would have it live for three hours more.
    let times = async {
        while world.value("access_token").as_deref() == Some("access_token-0") {
            seconds(1).await;
        }
        world.now()
    };
    assert!(times.await <= Duration::from_secs(2 * HOUR));
}

#[tokio::test(start_paused = true)]
async fn a_day_of_questions_costs_the_scheduled_calls_only() {
    let world = world(TWO, []);
    world.changed("card").await;
    let known = |name| Wish::Any { newer_than: world.generation(name), force: false };
    while world.now() < Duration::from_secs(24 * HOUR) {
        for name in ["access_token", "ticket", "card"] {
            assert!(world.value(name).is_some());
            // Somebody who has no reason to: within five minutes of a fetch that costs nothing.
            let age = world.now().as_secs() - world.fetched_at(name).last().unwrap();
            if age < 300 {
                assert_eq!(world.ask(name, known(name)).await.ok(), world.value(name));
            }
        }
        seconds(60).await;
    }
    for name in ["access_token", "ticket", "card"] {
        let calls = world.fetched_at(name).len();
        assert!((13..=14).contains(&calls), "{calls} calls for {name}");
    }
}

#[tokio::test(start_paused = true)]
async fn accounts_of_one_process_have_each_their_own_tokens() {
    let text = r#"(token_sources: {
        "a": (url: "https://h/cgi-bin/token", args: {"appid": "wxa", "secret": "sa"}, value_field: "access_token"),
        "b": (url: "https://h/cgi-bin/token", args: {"appid": "wxb", "secret": "sb"}, value_field: "access_token"),
        "b.ticket": (url: "https://h/t", args: {"access_token": "{{b}}"}, value_field: "ticket"),
    })"#;
    let world = world(text, []);
    world.changed("b.ticket").await;
    seconds(60).await;
    let (a, b) = tokio::join!(world.force("a"), world.force("b"));
    for (name, forced) in [("a", a), ("b", b)] {
        let value = world.value(name).unwrap();
        assert!(value.starts_with(&format!("{name}-")), "{name}: {value}");
        assert_eq!(forced.unwrap(), value);
    }
    let calls = world.upstream.calls.lock().unwrap();
    let ticket = calls.iter().find(|call| call.source == "b.ticket").unwrap();
    assert!(ticket.used.as_ref().unwrap().starts_with("b-"), "{ticket:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_marked_on_disk_before_it_is_sent() {
    // Else a crash right after it would leave the token before with a promise that nobody keeps.
    let world = world(ONE, []);
    *world.store.stuck_marks.lock().unwrap() = true;
    world.changed("access_token").await;
    // The disk is given half a second; then the request is sent all the same.
    let sent = world.upstream.calls.lock().unwrap()[0].at;
    assert_eq!(sent, MARK_PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn many_accounts_that_start_together_do_not_ask_all_at_once() {
    let source = |n| format!(r#""s{n}": (url: "https://h/t", args: {{"n": "{n}"}}),"#);
    let sources: String = (0..150).map(source).collect();
    let world = world(&format!("(token_sources: {{{sources}}})"), []);
    // An answer takes a tenth of a second: three rounds.
    seconds(1).await;
    let calls = world.upstream.calls.lock().unwrap();
    let mut rounds: Vec<(Duration, usize)> = Vec::new();
    for call in calls.iter() {
        match rounds.last_mut() {
            Some((at, count)) if *at == call.at => *count += 1,
            _ => rounds.push((call.at, 1)),
        }
    }
    let counts: Vec<usize> = rounds.iter().map(|(_, count)| *count).collect();
    assert_eq!(
        counts,
        [MAX_FETCHES_OF_HOST, MAX_FETCHES_OF_HOST, 150 - 2 * MAX_FETCHES_OF_HOST],
        "{rounds:?}"
    );
}
