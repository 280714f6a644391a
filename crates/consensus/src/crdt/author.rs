//! Who made the blocks of the DAG, and which of them count.
//!
//! Trust among Go peers covers only the announcement: whoever is trusted may hand on a block of anybody. Pinfold peers sign their blocks.
//! Where signatures are *required* (a cluster that was founded so and never took a Go peer in), a block without a right one of a known
//! author is **left out**: it keeps its place in the DAG, so that what lies below it is still found, and its content counts for nothing.
//! Elsewhere it counts, and a wrong signature is told as a finding.
//!
//! All peers must agree in the end on what counts. So an author once known stays known, whatever becomes of it; a block of an author
//! not known yet is looked at again when others become known; and *required* ends for good and on every peer (by a record), whereupon all that was
//! left out is merged. Nothing goes the other way.

use super::id::BlockId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use types::{Cid, PeerId};
use wire::delta::{AuthorSignature, Authorship, authorship};

/// Whether an author signed a delta: gets the author, the links and the delta without the author.
pub type Verifier = Arc<dyn Fn(&AuthorSignature, &[Cid], &[u8]) -> bool + Send + Sync>;

/// Signatures looked at before their block's turn came; with more, those are forgotten and looked at again.
const AHEAD_MAX: usize = 4096;

/// What is wrong with a block's author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It names none.
    Unsigned,
    /// The signature is not the author's, or does not cover the whole delta.
    Wrong,
    /// Nobody here knows the author as a member, now or earlier.
    Stranger,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Fault::Unsigned => "nobody signed it",
            Fault::Wrong => "its signature is wrong",
            Fault::Stranger => "its author was never a member",
        })
    }
}

/// A block with a fault, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub block: Cid,
    /// The author it names.
    pub author: Option<PeerId>,
    /// What is wrong.
    pub fault: Fault,
    /// Its content does not count here.
    pub is_left_out: bool,
}

/// How authors stand, since the start where not said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorNumbers {
    /// Blocks without a right signature of a known author are left out.
    pub required: bool,
    /// Blocks that are left out now.
    pub left_out: u64,
    /// Blocks that counted although nobody signed them.
    pub unsigned: u64,
    /// Blocks with a wrong signature.
    pub wrong: u64,
    /// Blocks of authors that were not known when they came.
    pub strangers: u64,
    /// The last findings, newest last; blocks of Go peers are none.
    pub findings: Vec<Finding>,
}

/// What is asked of the blocks of others.
#[derive(Clone)]
pub struct AuthorRules {
    /// Checks signatures.
    pub signatures: Signatures,
    /// Whether faulty blocks are left out, or only told.
    pub required: bool,
    /// Who is, or was, a member.
    pub known: BTreeSet<PeerId>,
    /// Everybody counts as known.
    pub everybody: bool,
}

/// Checks signatures, ahead of a block's turn where there is time: each costs about as much as merging a small block.
#[derive(Clone)]
pub struct Signatures {
    verify: Verifier,
    ahead: Arc<Mutex<BTreeMap<BlockId, Signed>>>,
}

/// What the bytes of a block alone say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    Not,
    Wrong(Option<PeerId>),
    By(PeerId),
}

impl Signatures {
    /// Over a function that checks one.
    pub fn new(verify: Verifier) -> Signatures {
        Signatures { verify, ahead: Arc::default() }
    }

    /// Checks a block that will be merged in a moment.
    pub(crate) fn look_ahead(&self, id: BlockId, bytes: &[u8]) {
        let signed = self.check(bytes);
        let mut ahead = self.ahead.lock();
        if ahead.len() >= AHEAD_MAX {
            ahead.clear();
        }
        ahead.insert(id, signed);
    }

    pub(crate) fn of(&self, id: &BlockId, bytes: &[u8]) -> Signed {
        let ahead = self.ahead.lock().remove(id);
        ahead.unwrap_or_else(|| self.check(bytes))
    }

    fn check(&self, bytes: &[u8]) -> Signed {
        match authorship(bytes) {
            Ok(Authorship::Unsigned) => Signed::Not,
            Ok(Authorship::Signed { author, links, unsigned }) if (self.verify)(&author, &links, unsigned) => Signed::By(author.author),
            Ok(Authorship::Signed { author, .. }) => Signed::Wrong(Some(author.author)),
            Ok(Authorship::Unreadable) | Err(_) => Signed::Wrong(None),
        }
    }
}

impl fmt::Debug for Signatures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Signatures").finish_non_exhaustive()
    }
}
