//! Has an account's calls of the day given back by WeChat, which does that ten times a month, and lets
//! the sources go on that had waited for the next day. The month's count is on disk before the request is
//! sent, as the day's are.

use std::sync::Arc;
use std::time::Duration;

use crate::account::{Account, Calls};
use crate::config::{Code, TokenSource};
use crate::control::{NoReset, QuotaReset, RESETS_A_MONTH};
use crate::refresh::driver::Tools;
use crate::refresh::handle::Wish;
use crate::source::{FetchError, QuotaUpstream};
use crate::store::RecordStore;
use crate::token::SourceName;

/// How long the disk is waited for: a reset is asked for by a person, who waits.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// WeChat's word for "the month's resets are used up".
const USED_UP: Code = Code::Number(48_006);

/// Has the calls of an account given back. `payer` is the source whose request has the account's secret,
/// `sources` are all that are charged to it, in the order of dependency.
///
/// # Errors
/// See [`NoReset`]; then no source was touched.
pub async fn reset_quota<U: QuotaUpstream, S: RecordStore + Clone>(
    tools: &Tools<U, S>,
    payer: &TokenSource,
    sources: &[SourceName],
) -> Result<QuotaReset, NoReset> {
    let name = &payer.account.name;
    let wall = || tools.clock.now().wall;
    let entered = tools.shared.ledger().enter_reset(name, wall());
    let Some((account, calls)) = entered else {
        tracing::warn!(
            account = &**name,
            resets = RESETS_A_MONTH,
            "no reset of the quota: this month's are used up"
        );
        return Err(NoReset::UsedUp);
    };
    keep(&tools.store, [(account, calls)]).await;
    if let Err(error) = tools.upstream.clear_quota(payer).await {
        let used_up = matches!(&error, FetchError::Refused(refusal) if refusal.code == USED_UP);
        let corrected = if used_up {
            // Others have reset it: the operator in the console, another server.
            tools.shared.ledger().fill_resets(name, wall())
        } else if error.may_have_replaced() {
            // It may have been done. Rather one too many in the count.
            None
        } else {
            tools.shared.ledger().take_reset_back(name, wall())
        };
        keep(&tools.store, corrected).await;
        tracing::warn!(
            account = &**name, source = %payer.name, %error, details = error.for_log(),
            "the quota was not reset"
        );
        return Err(if used_up {
            NoReset::UsedUp
        } else {
            NoReset::Upstream(error.to_string().into())
        });
    }
    let forgiven = tools.shared.ledger().forgive(name, wall());
    keep(&tools.store, forgiven).await;
    tracing::info!(
        account = &**name,
        resets = calls.made,
        of = RESETS_A_MONTH,
        "the quota is reset: the account's calls of this day count from zero"
    );
    let mut outcomes = Vec::with_capacity(sources.len());
    // One after the other: what a source depends on is to be there before it is tried.
    for source in sources {
        let outcome = tools.refresh.ask(source.as_str(), Wish::CallsAgain).await;
        let outcome = outcome.map(|_| ()).map_err(|error| Arc::from(error.to_string()));
        outcomes.push((source.clone(), outcome));
    }
    Ok(QuotaReset { resets: calls.made, sources: outcomes })
}

/// Writes counts. A disk that hangs or refuses is not waited for for long: the store has said so.
async fn keep(store: &impl RecordStore, pages: impl IntoIterator<Item = (Account, Calls)>) {
    for (account, calls) in pages {
        let write = store.put_calls(&account, calls);
        if !matches!(tokio::time::timeout(DISK_PATIENCE, write).await, Ok(Ok(()))) {
            tracing::warn!(account = &*account.name, "a count of calls is not on disk");
        }
    }
}
