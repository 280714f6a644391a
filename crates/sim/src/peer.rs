//! One simulated peer: what survives a crash, and what runs.

use crate::node::Node;
use crate::queue::{Place, Time};
use crate::view::View;
use cluster::{Machine, OpId, SubmitId, ViewState};
use consensus::crdt;
use std::collections::{BTreeMap, BTreeSet};
use store::MemoryStore;
use types::{Cid, Millis, Now, PeerId, PeerMessage, UnixMillis};

/// Wall time at the beginning of every run.
const EPOCH: u64 = 1_800_000_000_000;

/// A peer, running or not.
pub struct SimPeer {
    /// Its id.
    pub id: PeerId,
    /// Counts its starts.
    pub life: u32,
    /// How far its wall clock is off, in milliseconds.
    pub skew: i64,
    /// Its disk: the shared state and the ledger.
    pub store: MemoryStore,
    /// Its node.
    pub node: Node,
    /// The machines, while it runs.
    pub running: Option<Running>,
    /// What a person pinned on its node.
    pub persons: BTreeSet<Cid>,
    /// It never comes back.
    pub is_over: bool,
}

/// What runs.
pub struct Running {
    /// When it started.
    pub started: Time,
    /// The mind.
    pub machine: Machine,
    /// The consensus.
    pub crdt: crdt::Machine,
    /// What the machine reads.
    pub view: View,
    /// How complete that is, as the machine was told.
    pub shown: ViewState,
    /// When each machine is to be woken, as it stands in the queue.
    pub wake: Option<Time>,
    /// The same for the consensus.
    pub crdt_wake: Option<Time>,
    /// What waits for the consensus.
    pub inbox: Vec<crdt::Event>,
    /// A write is on its way to the disk; what follows it.
    pub syncing: Option<Vec<crdt::Effect>>,
    /// Writes under way.
    pub tickets: BTreeMap<u64, SubmitId>,
    /// Operations of the node under way.
    pub ops: BTreeMap<OpId, Cid>,
    /// CRDT blocks asked for.
    pub blocks_asked: BTreeSet<Cid>,
    /// Stretches of history asked for, and of whom.
    pub stretches_asked: BTreeSet<(Cid, Place)>,
    /// The page of the set asked for, and of whom.
    pub page_asked: Option<(Vec<u8>, Place)>,
    /// Peers asked for heads.
    pub heads_asked: BTreeSet<Place>,
    /// Full questions that wait until the asker's heads are merged.
    pub deferred: Vec<(Time, PeerId, PeerMessage)>,
    /// Links that are up, as this peer sees it.
    pub linked: BTreeSet<Place>,
}

/// How an operation of the node goes on.
#[derive(Clone, Copy, Debug)]
pub enum Done {
    /// Half is here.
    Half(OpId),
    /// It is complete.
    Pin(OpId),
    /// It is not here.
    Absent(OpId),
    /// Nobody has it.
    Missing(OpId),
    /// No room.
    NoRoom(OpId),
    /// Let go.
    Unpin(OpId),
    /// A page was read.
    List(OpId, Option<Cid>, usize),
    /// It was told to stop.
    Cancelled(OpId),
}

impl SimPeer {
    /// Both clocks of the peer.
    pub fn clocks(&self, now: Time) -> Now {
        let started = self.running.as_ref().map_or(now, |running| running.started);
        Now { mono: Millis(now - started), wall: UnixMillis((EPOCH + now).saturating_add_signed(self.skew)) }
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }
}

/// Wall time of a peer whose clock is right.
pub fn true_wall(now: Time) -> UnixMillis {
    UnixMillis(EPOCH + now)
}
