//! The sources that are being refreshed: starts them, carries them over a reload of the config, lets
//! them go. What is to become of each is decided in `reload`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::config::TokenSource;
use crate::control::Reloaded;
use crate::refresh::{
    Kept, Line, RefreshHandle, Refresher, RequestQueue, Shared, Switchboard, Tools,
};
use crate::shutdown::Drain;
use crate::snapshot::{Publisher, Reader, Roster, Slot};
use crate::source::HttpUpstream;
use crate::status::Catalogue;
use crate::store::TokenStore;
use crate::token::{SourceName, TokenRecord};

use super::orders::Resets;
use super::reload::Fate;

/// How long a source that is added waits for the disk to say what it holds: longer, and a disk that
/// hangs would keep its token from the clients.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// Everything that is refreshed.
#[derive(Debug)]
pub(super) struct Running {
    roster: Roster,
    switchboard: Switchboard,
    tools: Arc<Tools<HttpUpstream, TokenStore>>,
    drain: Drain,
    catalogue: Catalogue,
    /// In the order of the config.
    members: Vec<Member>,
    /// Removed sources whose refreshers have not ended yet, as far as is known.
    leaving: HashMap<SourceName, Drain>,
}

/// One source, and the ways to its refresher.
#[derive(Debug)]
struct Member {
    source: Arc<TokenSource>,
    slot: Slot,
    line: Line,
    drain: Drain,
}

impl Running {
    /// Nothing yet.
    pub(super) fn new(
        upstream: HttpUpstream,
        store: TokenStore,
        shared: Arc<Shared>,
        clock: SharedClock,
        drain: Drain,
    ) -> Running {
        let (roster, switchboard) = (Roster::default(), Switchboard::default());
        let tools = Arc::new(Tools {
            upstream: Arc::new(upstream),
            store,
            reader: roster.reader(),
            refresh: switchboard.handle(),
            shared,
            clock,
        });
        Running {
            roster,
            switchboard,
            tools,
            drain,
            catalogue: Catalogue::default(),
            members: Vec::new(),
            leaving: HashMap::new(),
        }
    }

    /// How many sources there are.
    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    /// The right to read what is served.
    pub(super) fn reader(&self) -> Reader {
        self.tools.reader.clone()
    }

    /// The right to ask for a refresh.
    pub(super) fn handle(&self) -> RefreshHandle {
        self.tools.refresh.clone()
    }

    /// The sources as they are configured.
    pub(super) fn catalogue(&self) -> Catalogue {
        self.catalogue.clone()
    }

    /// The right to have the calls of an account given back.
    pub(super) fn resets(&self) -> Resets {
        Resets::new(Arc::clone(&self.tools), self.catalogue.clone())
    }

    /// What all refreshers share.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.tools.shared)
    }

    /// Takes the first sources in, with what the store held. Live records are served when this
    /// returns; nothing is fetched before [`Ready::begin`].
    pub(super) fn restore(
        &mut self,
        sources: Vec<TokenSource>,
        mut records: HashMap<SourceName, TokenRecord>,
    ) -> Vec<Ready> {
        let mut newcomers = Vec::with_capacity(sources.len());
        self.members.reserve_exact(sources.len());
        for source in sources {
            let (member, newcomer) = self.newcomer(source, None, None);
            self.members.push(member);
            newcomers.push(newcomer);
        }
        self.open();
        let ready = newcomers.into_iter().map(|newcomer| {
            let record = records.remove(&newcomer.source.name);
            newcomer.with(record.map(Kept::OnDisk))
        });
        ready.collect()
    }

    /// Goes over to `wanted`: what has not changed goes on as if nothing had happened.
    pub(super) fn change_to(&mut self, wanted: Vec<TokenSource>) -> Reloaded {
        let mut before: HashMap<SourceName, Member> = std::mem::take(&mut self.members)
            .into_iter()
            .map(|member| (member.source.name.clone(), member))
            .collect();
        self.leaving.retain(|_, drain| !drain.has_finished());
        let mut reloaded = Reloaded::default();
        let mut newcomers = Vec::new();
        let mut replaced = Vec::new();
        for source in wanted {
            let old = before.remove(&source.name);
            let fate = Fate::of(old.as_ref().map(|member| &*member.source), &source);
            reloaded.note(fate, &source.name);
            match (fate, old) {
                (Fate::Kept, Some(member)) => self.members.push(member),
                (fate, old) => {
                    let slot = match (fate, &old) {
                        (Fate::Restarted, Some(member)) => Some(member.slot.clone()),
                        _ => None,
                    };
                    let predecessor = match &old {
                        Some(member) => Some(Predecessor {
                            drain: member.drain.clone(),
                            slot: Some(member.slot.clone()),
                        }),
                        None => self
                            .leaving
                            .remove(&source.name)
                            .map(|drain| Predecessor { drain, slot: None }),
                    };
                    let (member, newcomer) = self.newcomer(source, slot, predecessor);
                    self.members.push(member);
                    newcomers.push(newcomer);
                    replaced.extend(old);
                }
            }
        }
        reloaded.removed = before.keys().cloned().collect();
        reloaded.removed.sort();
        // In this order: who is let go must find that others are asked now, and a newcomer, whose
        // slot is empty, must not publish while dependents of the one before it can still fetch.
        self.open();
        replaced.iter().chain(before.values()).for_each(|member| member.drain.begin());
        self.leaving.extend(before.into_iter().map(|(name, member)| (name, member.drain)));
        for newcomer in newcomers {
            let drain = newcomer.drain.clone();
            drain.spawn(newcomer.run());
        }
        reloaded
    }

    /// Lets readers and clients see the members, and nobody else.
    fn open(&mut self) {
        self.catalogue.set(self.members.iter().map(|member| Arc::clone(&member.source)));
        self.roster.serve(self.members.iter().map(|member| member.slot.clone()));
        let lines = self.members.iter();
        self.switchboard
            .connect(lines.map(|member| (member.source.name.clone(), member.line.clone())));
    }

    fn newcomer(
        &self,
        source: TokenSource,
        slot: Option<Slot>,
        predecessor: Option<Predecessor>,
    ) -> (Member, Newcomer) {
        let source = Arc::new(source);
        let slot = slot.unwrap_or_else(|| self.roster.slot(source.name.clone()));
        let (line, queue) = Line::new();
        let drain = self.drain.part();
        let newcomer = Newcomer {
            source: Arc::clone(&source),
            publisher: slot.publisher(),
            queue,
            tools: Arc::clone(&self.tools),
            drain: drain.clone(),
            predecessor,
        };
        (Member { source, slot, line, drain }, newcomer)
    }
}

/// The refresher of the same name that is on its way out.
struct Predecessor {
    drain: Drain,
    /// Where it publishes; `None` if what it leaves is on disk only.
    slot: Option<Slot>,
}

/// A source whose refresher is about to come.
struct Newcomer {
    source: Arc<TokenSource>,
    publisher: Publisher,
    queue: RequestQueue,
    tools: Arc<Tools<HttpUpstream, TokenStore>>,
    drain: Drain,
    predecessor: Option<Predecessor>,
}

impl Newcomer {
    fn with(self, kept: Option<Kept>) -> Ready {
        let Newcomer { source, publisher, queue, tools, drain, .. } = self;
        let refresher = Refresher::new(source, kept, publisher, queue, tools, drain.clone());
        Ready { drain, refresher }
    }

    /// Waits for its turn, so that no source ever has two requests under way and the later write is
    /// that of the later token; then refreshes, from what the one before it left.
    async fn run(self) {
        let mut left = None;
        if let Some(predecessor) = &self.predecessor {
            predecessor.drain.finished().await;
            left = predecessor.slot.as_ref().and_then(Slot::current);
        }
        let kept = match left {
            Some(published) => Some(Kept::Served(published)),
            None => self.stored().await.map(Kept::OnDisk),
        };
        if self.drain.has_begun() {
            // Let go before its turn came. Who waits in its queue finds out and asks on.
            return;
        }
        self.with(kept).refresher.run().await;
    }

    async fn stored(&self) -> Option<TokenRecord> {
        let read = self.tools.store.get(&self.source.name);
        let Ok(record) = tokio::time::timeout(READ_PATIENCE, read).await else {
            tracing::warn!(source = %self.source.name, "the disk does not say what it holds of a new source; its token is fetched");
            return None;
        };
        record
    }
}

/// A refresher that has published what was restored, and does nothing yet.
pub(super) struct Ready {
    drain: Drain,
    refresher: Box<Refresher<HttpUpstream, TokenStore>>,
}

impl Ready {
    /// Lets it refresh.
    pub(super) fn begin(self) {
        self.drain.spawn(self.refresher.run());
    }
}
