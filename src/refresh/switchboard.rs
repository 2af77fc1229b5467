//! Which refreshers can be asked, and through which line: replaced whole, by a reload of the config.
//! Carries no message and decides nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::refresh::handle::{MAX_QUEUED, RefreshHandle, RefreshRequest, RequestQueue};
use crate::token::SourceName;

/// The line of each source.
pub(super) type Lines = HashMap<SourceName, Line>;

/// The way to one refresher's [`RequestQueue`]. Cheap to clone: each clone leads to the same one.
#[derive(Debug, Clone)]
pub struct Line(pub(super) mpsc::Sender<Box<RefreshRequest>>);

impl Line {
    /// A line and its end. What is asked before a refresher takes the end up waits in it.
    pub fn new() -> (Line, RequestQueue) {
        let (sender, queue) = mpsc::channel(MAX_QUEUED);
        (Line(sender), queue)
    }
}

/// The right to say which refreshers are asked. The composition root holds it, and nobody else.
#[derive(Debug, Default)]
pub struct Switchboard {
    lines: Arc<ArcSwap<Lines>>,
}

impl Switchboard {
    /// Leads requests through these lines and no others from now on. Whoever waits on a line that is
    /// left out asks the refresher that has come in its place.
    pub fn connect(&mut self, lines: impl IntoIterator<Item = (SourceName, Line)>) {
        self.lines.store(Arc::new(lines.into_iter().collect()));
    }

    /// The right to ask.
    pub fn handle(&self) -> RefreshHandle {
        RefreshHandle { lines: Arc::clone(&self.lines) }
    }
}
