//! Deliveries on the paused clock: a receiver that is scripted, no sockets.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::*;
use crate::clock::SystemClock;
use crate::config::{Language, Topic};
use crate::snapshot::{Publisher, Remedy, Trouble, snapshot};
use crate::token::Secret;

/// What the receiver does with one request.
#[derive(Clone)]
enum Step {
    Take,
    Status(u16),
    Body(&'static str),
    Hang,
}

/// Plays its script, and takes everything when that has run out.
#[derive(Clone, Default)]
struct Receiver {
    script: Arc<Mutex<VecDeque<Step>>>,
    /// When each request came, and the message's id and text.
    got: Arc<Mutex<Vec<(Duration, String, String)>>>,
    clock: Arc<Mutex<Option<SharedClock>>>,
}

impl Carrier for Receiver {
    async fn carry(&self, request: Request) -> Result<Answer, OutboundError> {
        let at = self.clock.lock().unwrap().as_ref().unwrap().now().mono;
        let body: serde_json::Value = serde_json::from_slice(&request.body.unwrap().bytes).unwrap();
        let texts = [&body["text"], &body["text"]["content"], &body["content"]["text"]];
        let text = texts.into_iter().find_map(|text| text.as_str()).unwrap();
        let id = body["id"].as_str().unwrap_or_default();
        self.got.lock().unwrap().push((at, id.to_owned(), text.to_owned()));
        let step = self.script.lock().unwrap().pop_front().unwrap_or(Step::Take);
        let answer = |status, body: &str| {
            let body = Zeroizing::new(body.as_bytes().to_vec());
            Ok(Answer { status, body, ..Answer::default() })
        };
        match step {
            Step::Take => answer(200, r#"{"errcode": 0}"#),
            Step::Status(status) => answer(status, ""),
            Step::Body(body) => answer(200, body),
            Step::Hang => {
                tokio::time::sleep(request.timeout).await;
                Err(OutboundError::TimedOut)
            }
        }
    }
}

struct World {
    receiver: Receiver,
    publishers: Vec<Publisher>,
    clock: SharedClock,
    counts: Arc<Counts>,
    drain: Drain,
}

impl World {
    fn new(kind: WebhookKind, script: Vec<Step>) -> World {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = SystemClock::following_tokio(start);
        let names = ["a", "b"].map(|name| SourceName::parse(name).unwrap());
        let (publishers, reader) = snapshot(names);
        let receiver =
            Receiver { script: Arc::new(Mutex::new(script.into())), ..Receiver::default() };
        *receiver.clock.lock().unwrap() = Some(Arc::clone(&clock));
        let webhook = WebhookConfig {
            name: "ops".into(),
            url: Secret::new("https://h/"),
            kind,
            secret: None,
            topics: Topic::ALL.to_vec(),
            quiet: Duration::from_secs(24 * 3_600),
            gather: Duration::from_secs(10),
            language: Language::English,
            server_name: None,
        };
        let (counts, drain) = (Arc::new(Counts::default()), Drain::new());
        let courier = Courier::new(
            Arc::new(webhook),
            "here".into(),
            receiver.clone(),
            reader,
            Arc::clone(&clock),
            Arc::clone(&counts),
        );
        drain.spawn(courier.run(drain.clone()));
        World { receiver, publishers, clock, counts, drain }
    }

    fn fail(&self, source: usize) {
        self.publishers[source].note_failure(Trouble {
            at: self.clock.now().wall,
            what: "no".into(),
            what_zh: "否".into(),
            class: "transient",
            code: None,
            remedy: Remedy { en: "wait".into(), zh: "等待".into() },
            is_failure: true,
        });
    }

    fn recover(&self, source: usize) {
        self.publishers[source].note_success(self.clock.now().wall);
    }

    /// The whole seconds at which requests came.
    fn seconds(&self) -> Vec<u64> {
        self.receiver.got.lock().unwrap().iter().map(|(at, ..)| at.as_secs()).collect()
    }

    fn ids(&self) -> Vec<String> {
        self.receiver.got.lock().unwrap().iter().map(|(_, id, _)| id.clone()).collect()
    }

    fn text(&self, request: usize) -> String {
        self.receiver.got.lock().unwrap()[request].2.clone()
    }

    /// Delivered messages, failed attempts, messages given up.
    fn counts(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { delivered, failed_attempts, given_up } = &*self.counts;
        (read(delivered), read(failed_attempts), read(given_up))
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_and_its_end_are_delivered() {
    let world = World::new(WebhookKind::Json, vec![]);
    seconds(100).await;
    world.fail(0);
    seconds(100).await;
    world.recover(0);
    seconds(100).await;
    assert_eq!(world.seconds(), [110, 210]);
    assert!(world.text(0).contains("No token: a") && world.text(1).contains("Recovered: a"));
    assert_ne!(world.ids()[0], world.ids()[1]);
    assert_eq!(world.counts(), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_has_not_arrived_is_tried_again_ever_more_slowly() {
    let script = vec![Step::Status(500), Step::Hang, Step::Status(404), Step::Status(302)];
    let world = World::new(WebhookKind::Json, script);
    world.fail(0);
    seconds(1_000).await;
    // After 2, 4 (and the ten seconds of the attempt that hung), 8 and 16 seconds.
    assert_eq!(world.seconds(), [10, 12, 26, 34, 50]);
    assert!(
        world.ids().windows(2).all(|pair| pair[0] == pair[1]),
        "one message: {:?}",
        world.ids()
    );
    assert_eq!(world.counts(), (1, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_dead_costs_a_bounded_number_of_requests() {
    let world = World::new(WebhookKind::Json, vec![Step::Status(500); 1_000]);
    world.fail(0);
    seconds(20).await;
    // What happens meanwhile is gathered, however much it is.
    for _ in 0..2_000 {
        seconds(1).await;
        world.recover(1);
        world.fail(1);
    }
    seconds(1_000).await;
    let attempts = world.ids().iter().filter(|id| **id == world.ids()[0]).count();
    assert_eq!(attempts, MOST_ATTEMPTS as usize);
    assert_eq!(world.counts().2, 1, "given up once");
    world.receiver.script.lock().unwrap().clear();
    seconds(1_000).await;
    assert_eq!(world.counts().0, 1, "the next one arrives");
    let last = world.seconds().len() - 1;
    assert!(world.text(last).contains("No token: b"), "{}", world.text(last));
}

#[tokio::test(start_paused = true)]
async fn a_robot_is_left_alone_for_as_long_as_it_asks_and_a_hopeless_message_is_not_tried_again() {
    let often = Step::Body(r#"{"errcode":45009,"errmsg":"api freq out of limit"}"#);
    let wrong = Step::Body(r#"{"errcode":93000,"errmsg":"invalid webhook url"}"#);
    let world = World::new(WebhookKind::WeCom, vec![often, Step::Take, wrong]);
    world.fail(0);
    seconds(200).await;
    assert_eq!((world.seconds(), world.counts()), (vec![10, 70], (1, 1, 0)));
    world.recover(0);
    seconds(200).await;
    assert_eq!((world.seconds().len(), world.counts()), (3, (1, 2, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_robot_is_sent_fewer_than_its_twenty_a_minute() {
    // A receiver that fails, so that everything is sent as fast as it ever is.
    for kind in [WebhookKind::WeCom, WebhookKind::DingTalk, WebhookKind::Feishu] {
        let world = World::new(kind, vec![Step::Status(500); 4]);
        world.fail(0);
        seconds(300).await;
        let sent = world.seconds();
        assert!(sent.len() == 5 && sent.windows(2).all(|pair| pair[1] - pair[0] >= 4), "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_does_not_hold_the_end_up() {
    let world = World::new(WebhookKind::Json, vec![Step::Hang; 10]);
    world.fail(0);
    seconds(12).await;
    assert_eq!(world.seconds(), [10]);
    let before = world.clock.now().mono;
    world.drain.begin();
    world.drain.finished().await;
    assert_eq!(world.clock.now().mono, before);
}
