//! Which units the roots of the wish have: gathered from the wish by hints and a slow scan, so that it is right without them.

use super::{Piece, owners};
use crate::context::Context;
use std::collections::{BTreeMap, BTreeSet};
use types::{Cid, Millis, Pin, PinKind, Replicas};

/// Pins looked at in one wake.
const PAGE: usize = 1_000;
/// Between two pages.
const PAGE_PAUSE: Millis = Millis(20);
/// Between two scans.
const SCAN_GAP: Millis = Millis::minutes(10);

/// All units by root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    /// Units of a root: spine first, each in order.
    roots: BTreeMap<Cid, BTreeSet<(bool, u32, Cid)>>,
    units: BTreeMap<Cid, Known>,
    /// Roots that a scan found without their pin; those that the next one finds again are ended.
    rootless: BTreeSet<Cid>,
    cursor: Option<Cid>,
    next: Millis,
    round: u64,
    is_complete: bool,
}

#[derive(Clone, Debug)]
struct Known {
    piece: Piece,
    /// Numbers by root; they may differ.
    of: BTreeMap<Cid, (bool, u32)>,
    /// Adds under way that have it.
    adds: Vec<String>,
    seen: u64,
}

impl Pieces {
    /// A pin changed, or was met by the scan.
    pub fn observe(&mut self, pin: &Pin) {
        if pin.kind != PinKind::Shard {
            self.forget(&pin.cid);
            return;
        }
        let belongs = owners(pin);
        let Some(first) = belongs.first() else {
            self.forget(&pin.cid);
            return;
        };
        let of: BTreeMap<Cid, (bool, u32)> =
            belongs.iter().filter_map(|belongs| Some((belongs.root()?, (belongs.is_spine, belongs.number)))).collect();
        let least = match pin.options.replicas {
            Replicas::Between { least, .. } => least.get(),
            Replicas::Unset | Replicas::Everywhere => 1,
        };
        let piece = Piece {
            cid: pin.cid,
            number: first.number,
            is_spine: first.is_spine,
            bytes: first.bytes,
            holders: pin.placement.clone(),
            is_everywhere: pin.is_everywhere(),
            least,
        };
        if self.units.get(&pin.cid).is_none_or(|known| known.of != of) {
            self.forget(&pin.cid);
            for (root, (is_spine, number)) in &of {
                self.roots.entry(*root).or_default().insert((!is_spine, *number, pin.cid));
            }
        }
        let adds = belongs.into_iter().filter(|belongs| belongs.root().is_none()).map(|belongs| belongs.owner).collect();
        self.units.insert(pin.cid, Known { piece, of, adds, seen: self.round });
    }

    /// A unit is no longer in the wish.
    pub fn forget(&mut self, cid: &Cid) {
        let Some(known) = self.units.remove(cid) else { return };
        for (root, (is_spine, number)) in known.of {
            if let Some(units) = self.roots.get_mut(&root) {
                units.remove(&(!is_spine, number, *cid));
                if units.is_empty() {
                    self.roots.remove(&root);
                }
            }
        }
    }

    /// Hints were lost: the whole wish is looked through again.
    pub fn lagged(&mut self, now: types::Now) {
        self.is_complete = false;
        self.cursor = None;
        self.next = now.mono;
    }

    /// Whether every unit of the wish is known.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether the root has units.
    pub fn has(&self, root: &Cid) -> bool {
        self.roots.contains_key(root)
    }

    /// The units of a root: spine first, each in order.
    pub fn of(&self, root: &Cid) -> impl Iterator<Item = Piece> + '_ {
        let root_cid = *root;
        let units = self.roots.get(root).into_iter().flatten();
        units.filter_map(move |(_, _, cid)| {
            let known = self.units.get(cid)?;
            let (is_spine, number) = known.of.get(&root_cid).copied()?;
            Some(Piece { number, is_spine, ..known.piece.clone() })
        })
    }

    /// All roots that have units.
    pub fn roots(&self) -> impl Iterator<Item = &Cid> {
        self.roots.keys()
    }

    /// How many shards (without spine) a root has.
    pub fn count(&self, root: &Cid) -> u32 {
        self.roots.get(root).map_or(0, |units| units.iter().filter(|(is_content, ..)| *is_content).count() as u32)
    }

    /// Units of adds whose names fit, with those names.
    pub fn of_adds(&self, fits: impl Fn(&str) -> bool) -> Vec<(String, Cid)> {
        let named = self.units.iter().flat_map(|(cid, known)| known.adds.iter().map(|name| (name.clone(), *cid)));
        named.filter(|(name, _)| fits(name)).collect()
    }

    /// How many units there are.
    pub fn len(&self) -> u64 {
        self.units.len() as u64
    }

    /// When [`Pieces::scan`] next has something to do.
    pub fn next_wake(&self) -> Millis {
        self.next
    }

    /// Goes one page on; at the end of a scan, roots whose pin was twice found missing.
    pub fn scan(&mut self, ctx: &Context) -> Vec<Cid> {
        if ctx.now.mono < self.next {
            return Vec::new();
        }
        if self.cursor.is_none() {
            self.round += 1;
        }
        let cursor = self.cursor;
        let mut last = None;
        let seen = ctx.shared.each_pin_after(cursor.as_ref(), PAGE, &mut |pin, _| {
            last = Some(pin.cid);
            if pin.kind == PinKind::Shard {
                self.observe(pin);
            }
        });
        if seen == PAGE {
            self.cursor = last;
            self.next = ctx.now.after(PAGE_PAUSE);
            return Vec::new();
        }
        self.cursor = None;
        self.next = ctx.now.after(SCAN_GAP);
        let gone: Vec<Cid> = self.units.iter().filter(|(_, known)| known.seen < self.round).map(|(cid, _)| *cid).collect();
        gone.iter().for_each(|cid| self.forget(cid));
        self.is_complete = true;
        if !ctx.is_current() {
            self.rootless.clear();
            return Vec::new();
        }
        let is_rootless = |root: &Cid| ctx.shared.pin(root).is_none_or(|(pin, _)| pin.kind != PinKind::Meta);
        let rootless: BTreeSet<Cid> = self.roots.keys().filter(|root| is_rootless(root)).copied().collect();
        let twice = rootless.intersection(&self.rootless).copied().collect();
        self.rootless = rootless;
        twice
    }
}
