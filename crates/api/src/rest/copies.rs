//! The status of all pins, a page at a time.

use super::json;
use super::pins::next_pins;
use super::stream::Pages;
use peer::Cluster;
use std::sync::Arc;
use types::Cid;
use wire::status::Filter;

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
    fn next(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        let pins = next_pins(&*self.cluster, &mut self.after, &mut self.is_over);
        let copies = self.cluster.status_page(&pins);
        let facts = json::PeerFacts::of(&*self.cluster);
        let mut page = String::with_capacity(pins.len() * 1024);
        for (pin, rows) in pins.iter().zip(copies) {
            let mut rows =
                rows.into_iter().filter(|row| self.filter.has(row.state) && (!self.is_local || facts.is_self(&row.peer))).peekable();
            if rows.peek().is_some() {
                json::push_status(&mut page, &pin.cid, Some(pin), rows, &facts);
            }
        }
        Some(page)
    }
}
