//! What goes into the machine and what comes out.

use super::author::{AuthorRules, Finding};
use super::block::Refusal;
use crate::{Change, SubmitError, ViewState, Write};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Batch, Durability};
use types::{Cid, Millis, PeerId};
use wire::delta::AuthorSignature;

/// Signs blocks of this peer: gets the links and the encoded delta without its author, gives the author field.
pub type Signer = Arc<dyn Fn(&[Cid], &[u8]) -> AuthorSignature + Send + Sync>;

/// How a machine behaves.
#[derive(Clone)]
pub struct MachineOptions {
    /// Blocks follow each other at this distance while writing goes on; the first after a pause is made at once,
    /// and so is one of many wishes that came together.
    pub spacing: Millis,
    /// The same while a peer is connected that is no Pinfold: Go peers walk only so many blocks a second. All who write share it.
    pub spacing_with_others: Millis,
    /// How often heads are told that nobody else told, give or take 30 %.
    pub rebroadcast: Millis,
    /// No other members are configured: an empty view is the whole truth.
    pub alone: bool,
    /// Chance comes from here.
    pub seed: u64,
    /// A peer whose set was empty asks for pages of it once it has merged so many bytes of history and there is more.
    pub pages_after: usize,
    /// Signs own blocks.
    pub signer: Option<Signer>,
    /// What is asked of the authors of others' blocks; none: nothing.
    pub authors: Option<AuthorRules>,
}

/// Faults that tests put in on purpose, to see that the simulator finds them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Among values of the same height the first to come wins, not the greatest.
    KeepsFirstOfEquals,
    /// A block that was not given once is not asked for again.
    NeverFetchesAgain,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A door wishes; answered by [`Effect::Accepted`] or [`Effect::Refused`] with the same number. Checked before.
    Submit {
        /// Number of the submit.
        ticket: u64,
        /// What is wished.
        writes: Vec<Write>,
    },
    /// A trusted peer told its heads, asked or not.
    Heads {
        /// Who.
        from: PeerId,
        /// Which.
        heads: Vec<Cid>,
    },
    /// A fetch brought a block; its bytes match its CID.
    Block {
        /// Which.
        cid: Cid,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A fetch brought nothing.
    FetchFailed {
        /// Which block.
        cid: Cid,
    },
    /// A stretch of history came, or nothing did: bytes of blocks, not checked, each after one that links to it.
    Stretch {
        /// Which block was asked for.
        cid: Cid,
        /// Who answered.
        from: PeerId,
        /// The blocks.
        blocks: Vec<Bytes>,
    },
    /// A page of the set came, or nothing did: bytes, not checked.
    Page {
        /// Who answered.
        from: PeerId,
        /// The page.
        bytes: Bytes,
    },
    /// A trusted Pinfold peer made this block and handed it over unasked: the same as telling it as a head and giving it.
    Pushed {
        /// Who.
        from: PeerId,
        /// Bytes, not checked.
        bytes: Bytes,
    },
    /// A link to a peer came.
    Connected {
        /// Who.
        peer: PeerId,
        /// It can be asked for its heads.
        is_pinfold: bool,
    },
    /// It went.
    Disconnected {
        /// Who.
        peer: PeerId,
    },
    /// A peer did not tell its heads.
    AskFailed {
        /// Who.
        peer: PeerId,
    },
    /// These are, or were, members; those that were known before stay known.
    Authors(BTreeSet<PeerId>),
    /// Blocks without a right signature count from here on, also those that were left out.
    AcceptUnsigned,
    /// A broadcast went out, or reached nobody.
    Broadcast {
        /// It went out.
        is_sent: bool,
    },
}

/// What to do, once the batch is committed.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The writes are durable and visible.
    Accepted {
        /// Number of the submit.
        ticket: u64,
    },
    /// The writes did not take place.
    Refused {
        /// Number of the submit.
        ticket: u64,
        /// Why.
        error: SubmitError,
    },
    /// The visible wish changed.
    Changed(Vec<Change>),
    /// The completeness of the view changed.
    State(ViewState),
    /// Fetch a block; answered by [`Event::Block`] or [`Event::FetchFailed`].
    Fetch {
        /// Which.
        cid: Cid,
        /// Who probably has it.
        likely: Option<PeerId>,
    },
    /// Ask a Pinfold peer for a block and what lies below it; answered by [`Event::Stretch`].
    FetchStretch {
        /// The block.
        cid: Cid,
        /// Whom to ask.
        peer: PeerId,
        /// Where the stretch may end: the own heads.
        have: Vec<Cid>,
    },
    /// Ask a Pinfold peer for a page of the set; answered by [`Event::Page`].
    FetchPage {
        /// Whom to ask.
        peer: PeerId,
        /// The key behind which it begins; empty for the first.
        after: Vec<u8>,
    },
    /// A page of the set was taken over. Nobody is hinted at each of its pins, only at the end of all pages.
    Taken(Vec<Change>),
    /// No more pages come: who follows the wish compares it as a whole.
    PagesEnded,
    /// The history was read, and pages had said so many things that it does not say; they are put right.
    Mended(u64),
    /// Ask a peer for its heads; answered by [`Event::Heads`] or [`Event::AskFailed`].
    AskHeads(PeerId),
    /// Hand an own block to these peers, without waiting; it may be lost.
    Push {
        /// To whom.
        peers: Vec<PeerId>,
        /// The block.
        bytes: Bytes,
    },
    /// Tell everybody; answered by [`Event::Broadcast`].
    Broadcast(Vec<Cid>),
    /// A block has a fault in its author.
    Finding(Finding),
    /// A block was refused for good.
    BlockRefused {
        /// Which.
        cid: Cid,
        /// Why.
        why: Refusal,
    },
}

/// What one step gives.
pub struct Step {
    /// To be committed, first; may be empty.
    pub batch: Batch,
    /// How.
    pub durability: Durability,
    /// To be performed, then.
    pub effects: Vec<Effect>,
    /// When to step without events.
    pub next_wake: Option<Millis>,
}
