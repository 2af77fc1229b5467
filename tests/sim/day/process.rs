//! One life of our process: the real refreshers, started from what the disk holds, and its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use wechat_token_server::clock::{Now, SharedClock};
use wechat_token_server::config::TokenSource;
use wechat_token_server::refresh::{Kept, RefreshHandle, Refresher, Shared, Tools, queue};
use wechat_token_server::shutdown::Drain;
use wechat_token_server::snapshot::{Published, Roster, Slot};
use wechat_token_server::token::Generation;

use super::disk::Disk;
use super::truth::Truth;
use super::wechat::Wechat;

/// How long a drain may take: a request with its timeout, the mark before it and the write after it.
const DRAIN: Duration = Duration::from_secs(10 + 1 + 2 + 2 + 1);

pub(crate) struct Process {
    pub(crate) refresh: RefreshHandle,
    truth: Arc<Truth>,
    clock: SharedClock,
    disk: Disk,
    slots: Vec<Slot>,
    drain: Drain,
    refreshers: JoinSet<()>,
}

impl Process {
    pub(crate) fn boot(
        sources: &[TokenSource],
        wechat: &Wechat,
        disk: &Disk,
        truth: &Arc<Truth>,
        seed: u64,
    ) -> Process {
        let (disk, clock) = (disk.mounted(), truth.clock_of_process(seed));
        let names = || sources.iter().map(|source| source.name.clone());
        let mut roster = Roster::default();
        let slots: Vec<Slot> = names().map(|name| roster.slot(name)).collect();
        roster.serve(slots.iter().cloned());
        let (queues, refresh) = queue(names());
        let tools = Arc::new(Tools {
            upstream: Arc::new(wechat.clone()),
            store: disk.clone(),
            reader: roster.reader(),
            refresh: refresh.clone(),
            shared: Shared::new(disk.calls(), disk.marks()),
            clock: Arc::clone(&clock),
        });
        let drain = Drain::new();
        let mut refreshers = JoinSet::new();
        for ((source, slot), queue) in sources.iter().zip(&slots).zip(queues) {
            let kept = disk.record(&source.name);
            let refresher = Refresher::new(
                source.clone(),
                kept.map(Kept::OnDisk),
                slot.publisher(),
                queue,
                Arc::clone(&tools),
                drain.clone(),
            );
            refreshers.spawn(refresher.run());
        }
        let truth = Arc::clone(truth);
        Process { refresh, truth, clock, disk, slots, drain, refreshers }
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// What is served of a source.
    pub(crate) fn live(&self, source: usize) -> Option<Arc<Published>> {
        self.slots[source].current().filter(|current| current.life_left(self.now()).is_some())
    }

    /// The newest generation that was ever served in this life.
    pub(crate) fn generation(&self, source: usize) -> Option<Generation> {
        self.slots[source].current().map(|current| current.record.generation)
    }

    /// Ends at once. A request that was sent is on its way all the same.
    pub(crate) async fn crash(&mut self) {
        self.disk.unmount();
        self.refreshers.shutdown().await;
    }

    /// Ends when what is under way is finished.
    pub(crate) async fn drain(&mut self) {
        self.drain.begin();
        let all = async {
            while let Some(ended) = self.refreshers.join_next().await {
                ended.expect("a refresher survives its panics");
            }
            self.drain.finished().await;
        };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            self.truth.fail("a drain took too long");
        }
        self.disk.unmount();
    }
}
