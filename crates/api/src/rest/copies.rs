//! The status of all pins, a page at a time.
//!
//! Each page is read from the state, joined with what is not as wished, and printed straight into its buffer; nothing grows with the
//! number of pins.

use super::json::{PeerFacts, error_text, public};
use super::stream::Pages;
use super::{Failure, pins, wall};
use cluster::ShortRow;
use peer::go::{GoList, GoRow};
use peer::{Cluster, Moment, PinReader};
use std::borrow::Cow;
use std::sync::Arc;
use tokio::runtime::Handle;
use types::{Pin, PinState};
use wire::gotime::GoTime;
use wire::rest::LineWriter;
use wire::rest::line::{push_text, push_time, push_unsigned};
use wire::status::Filter;

/// Pages of the status of every pin.
pub(super) struct StatusPages {
    cluster: Arc<dyn Cluster>,
    runtime: Handle,
    go: Vec<GoList>,
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
    pub fn new(cluster: Arc<dyn Cluster>, go: Vec<GoList>, filter: Filter, is_local: bool, shows_shards: bool) -> StatusPages {
        StatusPages {
            reader: cluster.read_pins(Moment::Passing),
            cluster,
            runtime: Handle::current(),
            go,
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
        let members = self.runtime.block_on(self.cluster.short_rows(&self.pins, &mut self.rows));
        let facts = PeerFacts::of(&*self.cluster);
        let order = Order::of(self.rows.get(..members).unwrap_or_default(), &self.go, &facts, self.is_local);
        let mut page = Vec::with_capacity(self.size + self.size / 8);
        let now = wall();
        for (number, pin) in self.pins.iter().enumerate() {
            let rows = self.rows.get(number * members..(number + 1) * members).unwrap_or_default();
            let mut of_go = Vec::with_capacity(self.go.len());
            of_go.extend(self.go.iter().map(|list| list.row(pin, now).filter(|row| self.filter.has(row.state))));
            let is_shown = |member: &Member| match member {
                Member::Ours(at) => rows.get(*at).is_some_and(|row| self.filter.has(row.state)),
                Member::Go(at) => of_go.get(*at).is_some_and(Option::is_some),
            };
            if order.0.iter().any(|(member, _)| is_shown(member)) {
                self.lines.push_status_head(&mut page, pin);
                push_copies(&mut page, rows, &of_go, &order, &self.filter);
            }
        }
        self.size = page.len();
        Ok(Some(page))
    }
}

/// Where the copy of a member stands.
enum Member {
    Ours(usize),
    Go(usize),
}

/// The members in the order of their texts, each with what stands before its status.
struct Order(Vec<(Member, Vec<u8>)>);

impl Order {
    fn of(rows: &[ShortRow], go: &[GoList], facts: &PeerFacts, is_local: bool) -> Order {
        let shown = rows.iter().enumerate().filter(|(_, row)| !is_local || facts.is_self(&row.peer));
        let ours = shown.map(|(at, row)| {
            let (name, node, addresses) = facts.of_peer(&row.peer);
            (Member::Ours(at), head_of(&row.peer, name, node, addresses))
        });
        let theirs = go.iter().enumerate().map(|(at, list)| {
            let head = list.head();
            let node = head.node.map(|node| node.to_string()).unwrap_or_default();
            (Member::Go(at), head_of(&head.peer, &head.name, &node, &public(head.node_addresses)))
        });
        let mut members: Vec<(Member, Vec<u8>)> = ours.chain(theirs).collect();
        members.sort_by(|(_, a), (_, b)| a.cmp(b));
        Order(members)
    }
}

/// `"12D3Koo…":{"peername":"…",…,"status":"`
fn head_of(peer: &types::PeerId, name: &str, node: &str, addresses: &[String]) -> Vec<u8> {
    let mut head = Vec::new();
    push_text(&mut head, &peer.to_string());
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

fn push_copies(page: &mut Vec<u8>, rows: &[ShortRow], go: &[Option<GoRow<'_>>], order: &Order, filter: &Filter) {
    page.push(b'{');
    let mut is_first = true;
    // Most copies of a pin are as old as the pin.
    let mut time: Option<(GoTime, std::ops::Range<usize>)> = None;
    for (member, head) in &order.0 {
        let (state, since, tries, error) = match member {
            Member::Ours(at) => match rows.get(*at).filter(|row| filter.has(row.state)) {
                Some(row) => (row.state, row.since.into(), u64::from(row.tries), error_of(row)),
                None => continue,
            },
            Member::Go(at) => match go.get(*at).and_then(Option::as_ref) {
                Some(row) => (row.state, row.since, u64::try_from(row.tries).unwrap_or(0), Cow::Borrowed(&*row.error)),
                None => continue,
            },
        };
        if !std::mem::take(&mut is_first) {
            page.push(b',');
        }
        page.extend_from_slice(head);
        page.extend_from_slice(state.as_str().as_bytes());
        page.extend_from_slice(b"\",\"timestamp\":");
        match &time {
            Some((written, text)) if *written == since => page.extend_from_within(text.clone()),
            _ => {
                let begin = page.len();
                push_time(page, since);
                time = Some((since, begin..page.len()));
            }
        }
        page.extend_from_slice(b",\"error\":");
        push_text(page, &error);
        page.extend_from_slice(b",\"attempt_count\":");
        push_unsigned(page, tries);
        page.extend_from_slice(b",\"priority_pin\":false}");
    }
    page.extend_from_slice(b"}}\n");
}

fn error_of(row: &ShortRow) -> Cow<'static, str> {
    match (&row.because, row.state) {
        (None, PinState::Pinned | PinState::Remote) => Cow::Borrowed(""),
        (because, state) => Cow::Owned(error_text(because.as_ref(), state)),
    }
}
