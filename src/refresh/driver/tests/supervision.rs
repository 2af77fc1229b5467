//! What becomes of a refresher that panics: it goes on with what it knew. On the paused clock.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_refresher_is_survived_and_the_others_notice_nothing() {
    let steps = vec![Step::Give(2 * HOUR, Duration::ZERO), Step::Panic];
    let world = world(TWO, [("access_token", steps)]);
    world.changed("card").await;
    seconds(60).await;
    assert_eq!(world.force("access_token").await, Err(RefreshError::Lost));
    assert_eq!(world.value("access_token").unwrap(), "access_token-0");
    seconds(60).await;
    assert!(world.force("access_token").await.is_ok());
    assert_eq!(world.fetched_at("card").len(), 1);
}

/// A source with a token of ten seconds ago, whose next request panics at once. Its refresher is back
/// two seconds later.
async fn broken_down(kept: impl Fn(TokenRecord) -> TokenRecord) -> World {
    let world = restored(ONE, [("access_token", vec![Step::Panic])], |source, now| {
        Some(kept(record(source, now, 10, 7_200)))
    });
    let dependents_complain = Wish::Newer { generation: Generation(77) };
    assert_eq!(world.ask("access_token", dependents_complain).await, Err(RefreshError::Lost));
    seconds(3).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_refresher_that_panicked_keeps_its_cooldown() {
    let world = broken_down(|record| record).await;
    let told = world.force("access_token").await.unwrap_err();
    assert_eq!(told, RefreshError::TooSoon { wait: Duration::from_secs(17) });
    assert_eq!(world.fetched_at("access_token"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_refresher_that_panicked_keeps_its_doubt_about_the_answer_it_lost() {
    let world = broken_down(|record| record).await;
    let promised = world.reader.live("access_token", world.clock.now()).unwrap().promised_life();
    assert_eq!(promised, Duration::from_secs(300 - 3));
    // Not before the lost request can no longer come in after the next one: its timeout, and a second.
    world.changed("access_token").await;
    assert_eq!(world.fetched_at("access_token"), [0, 11]);
    assert_eq!(world.generation("access_token"), Some(Generation(78)));
}

#[tokio::test(start_paused = true)]
async fn a_refresher_that_panicked_sends_what_its_last_answer_gave() {
    let captured = Some(Secret::new("refresh-token"));
    let world = broken_down(|record| TokenRecord { captured: captured.clone(), ..record }).await;
    world.changed("access_token").await;
    let calls = world.upstream.calls.lock().unwrap();
    let sent: Vec<_> = calls.iter().map(|call| call.captured.as_deref()).collect();
    assert_eq!(sent, [Some("refresh-token"); 2]);
}
