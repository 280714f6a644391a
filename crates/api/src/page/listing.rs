//! Which pins the page shows.
//!
//! The shared state is sorted by CID. Up to [`SCAN_MAX`] pins are looked through, so that the newest come first and filters see
//! them all; of larger states the page says that it shows a part.

use crate::rest::pins::is_part;
use cluster::CopyRow;
use peer::Cluster;
use std::cmp::Reverse;
use tokio::runtime::Handle;
use types::{Cid, Pin, PinState};
use wire::rest::query::Query;

/// Pins looked through for one page; tens of milliseconds.
const SCAN_MAX: usize = 20_000;
/// Pins read at once.
const STEP: usize = 1000;
/// Pins on a page.
pub(super) const PAGE: usize = 50;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Part of a name or a CID.
    pub text: String,
    /// Only pins that are not as wished.
    pub only_unfinished: bool,
    /// Counted from 0.
    pub page: usize,
}

impl Wanted {
    pub fn parse(query: &Query) -> Wanted {
        Wanted {
            text: query.get("q").chars().take(200).collect::<String>().trim().to_lowercase(),
            only_unfinished: query.get("show") == "unfinished",
            page: query.get("page").parse().unwrap_or(1usize).saturating_sub(1),
        }
    }

    fn lets(&self, pin: &Pin) -> bool {
        self.text.is_empty()
            || pin.options.name.to_lowercase().contains(&self.text)
            || pin.cid.to_string().to_lowercase().contains(&self.text)
    }
}

/// The pins of one page.
pub(super) struct Listing {
    pub wanted: Wanted,
    /// Newest first, with their copies.
    pub pins: Vec<(Pin, Vec<CopyRow>)>,
    /// Pins that match, of those looked through.
    pub matching: usize,
    /// Whether there are more pins than were looked through.
    pub is_partial: bool,
}

impl Listing {
    /// Reads the shared state; blocking, on a thread for that.
    pub fn read(cluster: &dyn Cluster, wanted: Wanted) -> Listing {
        let mut found: Vec<Pin> = Vec::new();
        let mut after: Option<Cid> = None;
        let mut scanned = 0;
        let mut is_partial = false;
        loop {
            let step = cluster.pins(after.as_ref(), STEP);
            let is_last = step.len() < STEP;
            after = step.last().map(|pin| pin.cid);
            scanned += step.len();
            found.extend(matching(cluster, step, &wanted));
            if is_last {
                break;
            }
            if scanned >= SCAN_MAX {
                is_partial = true;
                break;
            }
        }
        found.sort_by_key(|pin| (Reverse(pin.created), pin.cid));
        let matching = found.len();
        let first = wanted.page.saturating_mul(PAGE).min(matching);
        let pins: Vec<Pin> = found.drain(first..(first + PAGE).min(matching)).collect();
        let copies = Handle::current().block_on(cluster.status_page(&pins));
        Listing { wanted, pins: pins.into_iter().zip(copies).collect(), matching, is_partial }
    }
}

fn matching(cluster: &dyn Cluster, pins: Vec<Pin>, wanted: &Wanted) -> Vec<Pin> {
    let pins: Vec<Pin> = pins.into_iter().filter(|pin| !is_part(pin) && wanted.lets(pin)).collect();
    if !wanted.only_unfinished || pins.is_empty() {
        return pins;
    }
    let copies = Handle::current().block_on(cluster.status_page(&pins));
    pins.into_iter().zip(copies).filter(|(_, rows)| rows.iter().any(is_unfinished)).map(|(pin, _)| pin).collect()
}

/// Whether a copy is not as wished.
pub(super) fn is_unfinished(row: &CopyRow) -> bool {
    !matches!(row.state, PinState::Pinned | PinState::Remote | PinState::Sharded | PinState::Unpinned)
}
