//! What a run counted.

use std::fmt;

#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    pub(crate) account_days: f64,
    pub(crate) fetches: u64,
    pub(crate) rotating_fetches: u64,
    pub(crate) reads: u64,
    pub(crate) promises: u64,
    pub(crate) reports: u64,
    pub(crate) restarts: u64,
    pub(crate) faults: u64,
    /// Reads that found no token (each excused by a fault, or the run would have failed).
    pub(crate) gaps: u64,
    /// Reads that were answered with a token the upstream refused, because somebody else's fetch
    /// (or one a client forced) had replaced it.
    pub(crate) refused_served_foreign: u64,
    /// … because a request whose answer was lost had replaced it: served with a promise of nothing.
    pub(crate) refused_served_in_doubt: u64,
    /// From the end of a fault to the next live token, in seconds.
    pub(crate) longest_recovery: f64,
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Figures) {
        self.account_days += other.account_days;
        self.fetches += other.fetches;
        self.rotating_fetches += other.rotating_fetches;
        self.reads += other.reads;
        self.promises += other.promises;
        self.reports += other.reports;
        self.restarts += other.restarts;
        self.faults += other.faults;
        self.gaps += other.gaps;
        self.refused_served_foreign += other.refused_served_foreign;
        self.refused_served_in_doubt += other.refused_served_in_doubt;
        self.longest_recovery = self.longest_recovery.max(other.longest_recovery);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  days simulated            {:.0}", self.account_days)?;
        writeln!(
            f,
            "  fetches                   {} ({:.1} of a token per account-day)",
            self.fetches,
            self.rotating_fetches as f64 / self.account_days
        )?;
        writeln!(f, "  faults, restarts          {}, {}", self.faults, self.restarts)?;
        writeln!(f, "  reads, promises checked   {}, {}", self.reads, self.promises)?;
        writeln!(f, "  stale reports             {}", self.reports)?;
        writeln!(f, "  reads without a token     {} (each excused by a fault)", self.gaps)?;
        writeln!(
            f,
            "  refused tokens served     {} after a foreign or forced fetch, {} in doubt with a promise of 0",
            self.refused_served_foreign, self.refused_served_in_doubt
        )?;
        write!(f, "  longest recovery          {:.1} s", self.longest_recovery)
    }
}
