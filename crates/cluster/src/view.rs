//! What the machine may read of the disk: pages in key order.

use types::{ByteCount, Cid, Pin};

/// Page scans of the shared wish and of the own ledger; both ordered by the CID's bytes.
///
/// `peer` implements it over a store snapshot, the simulator over maps. Every call is bounded by its `limit`.
pub trait SharedView {
    /// Pins with a CID after `after` (exclusive), at most `limit`, with the version of their stored form
    /// (`wire::pin_version`).
    fn pins_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Pin, u64)>;

    /// The same without handing the pins over: calls `each` for every pin of the page and gives how many there were. Walks
    /// use it; implementers that keep decoded pins can spare the copies.
    fn each_pin_after(&self, after: Option<&Cid>, limit: usize, each: &mut dyn FnMut(&Pin, u64)) -> usize {
        let page = self.pins_after(after, limit);
        page.iter().for_each(|(pin, version)| each(pin, *version));
        page.len()
    }

    /// One pin; for commands and single questions, never in a loop over the wish.
    fn pin(&self, cid: &Cid) -> Option<(Pin, u64)>;

    /// CIDs in the ledger (what this peer once pinned for this cluster) after `after`, at most `limit`, with their sizes.
    fn ledger_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Cid, ByteCount)>;

    /// The size of what the ledger has under this CID.
    fn own_size(&self, cid: &Cid) -> Option<ByteCount>;

    /// Whether the ledger has it.
    fn is_ours(&self, cid: &Cid) -> bool {
        self.own_size(cid).is_some()
    }

    /// How many entries the ledger has.
    fn ledger_count(&self) -> u64;
}
