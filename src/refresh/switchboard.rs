//! Which refreshers can be asked, and through which line: replaced whole, by a reload of the config.
//! Carries no message and decides nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::refresh::handle::RefreshHandle;
use crate::refresh::line::Line;
use crate::token::SourceName;

/// The line of each source.
pub(super) type Lines = HashMap<SourceName, Line>;

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
