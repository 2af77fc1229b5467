//! A disk in memory that at times refuses or hangs, and survives the processes that write to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use wechat_token_server::account::{Account, Calls, Unsettled};
use wechat_token_server::store::{RecordStore, StoreError};
use wechat_token_server::token::{Generation, SourceName, TokenRecord};

use super::truth::Truth;

/// After a trouble a request may be under way for so long that was not marked before it was sent.
const MARKS_LACK: Duration = Duration::from_secs(60);

/// How long a write takes.
const WRITE: Duration = Duration::from_millis(7);

struct Platter {
    records: HashMap<SourceName, TokenRecord>,
    calls: HashMap<Account, Calls>,
    marks: HashMap<SourceName, Unsettled>,
    refuses_until: Duration,
    hangs_until: Duration,
}

/// One process's way to the disk.
#[derive(Clone)]
pub(crate) struct Disk {
    truth: Arc<Truth>,
    platter: Arc<Mutex<Platter>>,
    gone: Arc<AtomicBool>,
}

impl Disk {
    pub(crate) fn new(truth: Arc<Truth>) -> Disk {
        let platter = Platter {
            records: HashMap::new(),
            calls: HashMap::new(),
            marks: HashMap::new(),
            refuses_until: Duration::ZERO,
            hangs_until: Duration::ZERO,
        };
        Disk { truth, platter: Arc::new(Mutex::new(platter)), gone: Arc::default() }
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap()
    }

    /// The way of a new process to the same disk.
    pub(crate) fn mounted(&self) -> Disk {
        Disk { gone: Arc::default(), ..self.clone() }
    }

    /// The process has ended: what it had begun to write is not written.
    pub(crate) fn unmount(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    pub(crate) fn refuse_until(&self, until: Duration) {
        self.platter().refuses_until = until;
    }

    pub(crate) fn hang_until(&self, until: Duration) {
        self.platter().hangs_until = until;
    }

    /// Whether what should be there may not be.
    pub(crate) fn was_troubled(&self) -> bool {
        let platter = self.platter();
        let ended = platter.refuses_until.max(platter.hangs_until);
        !ended.is_zero() && self.truth.now() <= ended + MARKS_LACK
    }

    pub(crate) fn record(&self, name: &SourceName) -> Option<TokenRecord> {
        self.platter().records.get(name).cloned()
    }

    pub(crate) fn generation(&self, name: &SourceName) -> Option<Generation> {
        self.platter().records.get(name).map(|record| record.generation)
    }

    pub(crate) fn calls(&self) -> Vec<(Account, Calls)> {
        self.platter().calls.iter().map(|(account, calls)| (account.clone(), *calls)).collect()
    }

    pub(crate) fn marks(&self) -> Vec<(SourceName, Unsettled)> {
        self.platter().marks.iter().map(|(name, mark)| (name.clone(), *mark)).collect()
    }

    /// Takes the time of a write; the place to write to, if the disk takes it.
    async fn write(&self) -> Result<MutexGuard<'_, Platter>, StoreError> {
        tokio::time::sleep(WRITE).await;
        let hangs = self.platter().hangs_until.saturating_sub(self.truth.now());
        tokio::time::sleep(hangs).await;
        if self.gone.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let platter = self.platter();
        if platter.refuses_until > self.truth.now() {
            return Err(StoreError("scripted".into()));
        }
        Ok(platter)
    }
}

impl RecordStore for Disk {
    async fn put(&self, name: &SourceName, record: &TokenRecord) -> Result<(), StoreError> {
        let mut platter = self.write().await?;
        platter.records.insert(name.clone(), record.clone());
        platter.marks.remove(name);
        Ok(())
    }

    async fn put_calls(&self, account: &Account, calls: Calls) -> Result<(), StoreError> {
        self.write().await?.calls.insert(account.clone(), calls);
        Ok(())
    }

    async fn put_mark(
        &self,
        source: &SourceName,
        mark: Option<Unsettled>,
    ) -> Result<(), StoreError> {
        let mut platter = self.write().await?;
        match mark {
            Some(mark) => platter.marks.insert(source.clone(), mark),
            None => platter.marks.remove(source),
        };
        Ok(())
    }
}
