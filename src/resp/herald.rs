//! Notices what happens to the tokens that are served (another value, an end, a reload) and has
//! the audience told. Fetches nothing and knows no client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::resp::Shared;
use crate::resp::audience::Happening;
use crate::snapshot::News;
use crate::token::{Generation, SourceName};

/// How often ended tokens are looked for at least: a step of the wall clock ends tokens earlier than
/// was foreseen.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Longer than anything is slept: the next look comes before.
const MUCH_LATER: Duration = Duration::from_secs(3_600);

/// What has been told of a source.
#[derive(Debug, Clone, Copy)]
struct Told {
    generation: Generation,
    is_live: bool,
}

/// What has been told of all sources.
#[derive(Debug)]
struct Herald {
    shared: Arc<Shared>,
    told: HashMap<SourceName, Told>,
    /// When the next live token ends, on the monotonic clock.
    next_end: Duration,
}

/// Tells what happens, for ever.
pub(super) async fn announce(shared: Arc<Shared>) {
    let mut news = shared.reader.news();
    let mut herald = Herald { shared, told: HashMap::new(), next_end: Duration::MAX };
    herald.look_at_all(&|_, _| {});
    // Whatever news comes meanwhile.
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        let now = herald.shared.clock.now();
        let wait = herald.next_end.saturating_sub(now.mono).min(MUCH_LATER);
        let shared = Arc::clone(&herald.shared);
        let tell = |source: &SourceName, what| {
            shared.audience.tell(source, what, &shared.connections);
        };
        tokio::select! {
            news = news.next() => match news {
                News::Published(source) => herald.look_at(&source, &tell),
                News::Everything => {
                    herald.look_at_all(&tell);
                    // A client may have cached that there was no such key.
                    shared.audience.invalidate_all(&shared.connections);
                }
            },
            () = tokio::time::sleep(wait) => herald.look_for_ended(&tell),
            _ = looks.tick() => herald.look_for_ended(&tell),
        }
    }
}

impl Herald {
    /// Looks whether a source has a token that has not been told of.
    fn look_at(&mut self, source: &SourceName, tell: &impl Fn(&SourceName, Happening)) {
        let now = self.shared.clock.now();
        let Some(token) = self.shared.reader.live(source.as_str(), now) else { return };
        let generation = token.record().generation;
        self.next_end = self.next_end.min(now.mono + token.life_left(now));
        drop(token);
        let told = self.told.insert(source.clone(), Told { generation, is_live: true });
        if told.is_none_or(|told| told.generation != generation || !told.is_live) {
            tell(source, Happening::Set(generation));
        }
    }

    /// Looks at every source, and whether any that was told of is gone.
    fn look_at_all(&mut self, tell: &impl Fn(&SourceName, Happening)) {
        let view = self.shared.reader.view();
        for source in view.sources() {
            self.look_at(source, tell);
        }
        // What is not served any more, be it that the source is gone or that its token is not the same.
        let (reader, now) = (&self.shared.reader, self.shared.clock.now());
        self.told.retain(|source, told| {
            if told.is_live && reader.live(source.as_str(), now).is_none() {
                told.is_live = false;
                tell(source, Happening::Removed);
            }
            reader.source(source.as_str()).is_some()
        });
    }

    /// Looks whether any token has ended.
    fn look_for_ended(&mut self, tell: &impl Fn(&SourceName, Happening)) {
        let now: Now = self.shared.clock.now();
        let mut next_end = Duration::MAX;
        for (source, told) in self.told.iter_mut().filter(|(_, told)| told.is_live) {
            match self.shared.reader.live(source.as_str(), now) {
                Some(token) => next_end = next_end.min(now.mono + token.life_left(now)),
                None => {
                    told.is_live = false;
                    tell(source, Happening::Expired);
                }
            }
        }
        self.next_end = next_end;
    }
}
