//! The status of all pins, a page at a time.
//!
//! Each page is read from the state, joined with what is not as wished, and printed straight into its buffer; nothing grows with the
//! number of pins.

use super::json::{PeerFacts, error_text};
use super::stream::Pages;
use super::{Failure, pins};
use cluster::ShortRow;
use peer::{Cluster, Moment, PinReader};
use std::sync::Arc;
use types::{Pin, PinState, UnixMillis};
use wire::rest::LineWriter;
use wire::rest::line::{push_text, push_time, push_unsigned};
use wire::status::Filter;

/// Pages of the status of every pin.
pub(super) struct StatusPages {
    cluster: Arc<dyn Cluster>,
    reader: Box<dyn PinReader>,
    filter: Filter,
    is_local: bool,
    /// Shards of roots that were added here are parts of those, and shown only when asked for.
    shows_shards: bool,
    lines: LineWriter,
    pins: Vec<Pin>,
    rows: Vec<ShortRow>,
    page: usize,
    /// Bytes of the last page.
    size: usize,
}

impl StatusPages {
    pub fn new(cluster: Arc<dyn Cluster>, filter: Filter, is_local: bool, shows_shards: bool) -> StatusPages {
        StatusPages {
            reader: cluster.read_pins(Moment::Passing),
            cluster,
            filter,
            is_local,
            shows_shards,
            lines: LineWriter::default(),
            pins: Vec::new(),
            rows: Vec::new(),
            page: pins::FIRST_PAGE,
            size: 0,
        }
    }
}

impl Pages for StatusPages {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        self.pins.clear();
        self.rows.clear();
        let read = &mut self.pins;
        let shows_shards = self.shows_shards;
        let count = self.reader.next(self.page, &mut |pin| {
            if shows_shards || !pins::is_part(pin) {
                read.push(pin.clone());
            }
        })?;
        self.page = pins::PAGE;
        if count == 0 {
            return Ok(None);
        }
        let members = self.cluster.short_rows(&self.pins, &mut self.rows);
        let facts = PeerFacts::of(&*self.cluster);
        let order = Order::of(self.rows.get(..members).unwrap_or_default(), &facts, self.is_local);
        let mut page = Vec::with_capacity(self.size + self.size / 8);
        if members > 0 {
            for (pin, rows) in self.pins.iter().zip(self.rows.chunks_exact(members)) {
                if order.0.iter().any(|(at, _)| self.filter.has(rows[*at].state)) {
                    self.lines.push_status_head(&mut page, pin);
                    push_copies(&mut page, rows, &order, &self.filter);
                }
            }
        }
        self.size = page.len();
        Ok(Some(page))
    }
}

/// The members in the order of their texts, each with what stands before its status.
struct Order(Vec<(usize, Vec<u8>)>);

impl Order {
    fn of(rows: &[ShortRow], facts: &PeerFacts, is_local: bool) -> Order {
        let shown = rows.iter().enumerate().filter(|(_, row)| !is_local || facts.is_self(&row.peer));
        let mut members: Vec<(usize, Vec<u8>)> = shown.map(|(at, row)| (at, head_of(&row.peer, facts))).collect();
        members.sort_by(|(_, a), (_, b)| a.cmp(b));
        Order(members)
    }
}

/// `"12D3Koo…":{"peername":"…",…,"status":"`
fn head_of(peer: &types::PeerId, facts: &PeerFacts) -> Vec<u8> {
    let mut head = Vec::new();
    push_text(&mut head, &peer.to_string());
    let (name, node, addresses) = facts.of_peer(peer);
    head.extend_from_slice(b":{\"peername\":");
    push_text(&mut head, name);
    if !node.is_empty() {
        head.extend_from_slice(b",\"ipfs_peer_id\":");
        push_text(&mut head, node);
    }
    if !addresses.is_empty() {
        head.extend_from_slice(b",\"ipfs_peer_addresses\":");
        head.extend_from_slice(wire::rest::to_go_json(addresses).as_bytes());
    }
    head.extend_from_slice(b",\"status\":\"");
    head
}

fn push_copies(page: &mut Vec<u8>, rows: &[ShortRow], order: &Order, filter: &Filter) {
    page.push(b'{');
    let mut is_first = true;
    // Most copies of a pin are as old as the pin.
    let mut time: Option<(UnixMillis, std::ops::Range<usize>)> = None;
    for (at, head) in &order.0 {
        let row = &rows[*at];
        if !filter.has(row.state) {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            page.push(b',');
        }
        page.extend_from_slice(head);
        page.extend_from_slice(row.state.as_str().as_bytes());
        page.extend_from_slice(b"\",\"timestamp\":");
        match &time {
            Some((since, text)) if *since == row.since => page.extend_from_within(text.clone()),
            _ => {
                let begin = page.len();
                push_time(page, row.since.into());
                time = Some((row.since, begin..page.len()));
            }
        }
        page.extend_from_slice(b",\"error\":");
        match (&row.because, row.state) {
            (None, PinState::Pinned | PinState::Remote) => page.extend_from_slice(b"\"\""),
            (because, state) => push_text(page, &error_text(because.as_ref(), state)),
        }
        page.extend_from_slice(b",\"attempt_count\":");
        push_unsigned(page, u64::from(row.tries));
        page.extend_from_slice(b",\"priority_pin\":false}");
    }
    page.extend_from_slice(b"}}\n");
}
