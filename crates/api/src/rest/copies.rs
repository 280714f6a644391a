//! The status of all pins: filters, and pages of copies.

use super::pins::next_pins;
use super::stream::Pages;
use super::{Failure, json};
use peer::Cluster;
use std::sync::Arc;
use types::{Cid, PinState};

/// Which states are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter(Option<Vec<PinState>>);

impl Filter {
    /// Reads Go's comma list; names that are not known count only when no other is.
    pub fn parse(text: &str) -> Result<Filter, Failure> {
        if text.is_empty() {
            return Ok(Filter(None));
        }
        let mut states = Vec::new();
        for name in text.split(',') {
            match name.trim() {
                "error" => states.extend([PinState::ClusterError, PinState::PinError, PinState::UnpinError]),
                "queued" => states.extend([PinState::PinQueued, PinState::UnpinQueued]),
                name => states.extend(PinState::ALL.iter().find(|state| state.as_str() == name)),
            }
        }
        if states.is_empty() { Err(Failure::bad("invalid filter value")) } else { Ok(Filter(Some(states))) }
    }

    fn lets(&self, state: PinState) -> bool {
        self.0.as_ref().is_none_or(|states| states.contains(&state))
    }
}

/// Pages of the status of every pin.
pub(super) struct StatusPages {
    cluster: Arc<dyn Cluster>,
    filter: Filter,
    is_local: bool,
    after: Option<Cid>,
    is_over: bool,
}

impl StatusPages {
    pub fn new(cluster: Arc<dyn Cluster>, filter: Filter, is_local: bool) -> StatusPages {
        StatusPages { cluster, filter, is_local, after: None, is_over: false }
    }
}

impl Pages for StatusPages {
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        let pins = next_pins(&*self.cluster, &mut self.after, &mut self.is_over);
        let copies = self.cluster.status_page(&pins);
        let facts = json::PeerFacts::of(&*self.cluster);
        let mut page = Vec::with_capacity(pins.len() * 1024);
        for (pin, rows) in pins.iter().zip(copies) {
            let mut rows = rows.into_iter().filter(|row| self.filter.lets(row.state) && (!self.is_local || facts.is_self(&row.peer))).peekable();
            if rows.peek().is_some() {
                json::push_status(&mut page, &pin.cid, Some(pin), rows, &facts);
            }
        }
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_as_go_reads_them() {
        assert_eq!(Filter::parse(""), Ok(Filter(None)));
        assert_eq!(Filter::parse("pinned,nonsense"), Ok(Filter(Some(vec![PinState::Pinned]))));
        assert_eq!(Filter::parse("queued"), Ok(Filter(Some(vec![PinState::PinQueued, PinState::UnpinQueued]))));
        for bad in ["nonsense", "undefined", ","] {
            assert_eq!(Filter::parse(bad), Err(Failure::bad("invalid filter value")), "{bad}");
        }
    }
}
