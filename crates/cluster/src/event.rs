//! What goes into the machine and what comes out.

use crate::decisions::{Balancing, Duty};
pub use crate::machine::{NewRoot, NewUnit};
use std::collections::BTreeMap;
use types::{ByteCount, Cid, Depth, PeerId, PeerMessage, Pin, PinOptions, RecordKey, SignedRecord, UnixMillis};

/// A question of a door; its answer carries the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// An operation on the own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A write handed to the consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmitId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A door asks.
    Command(RequestId, Command),
    /// The shared wish changed (hints: a lost one is found by the slow walk).
    Shared(SharedChange),
    /// A write was accepted (durable, visible here) or refused.
    Submitted(SubmitId, Result<(), String>),
    /// An operation on the own node progressed or ended.
    Node(OpId, NodeOutcome),
    /// The own node's room, measured: hard limit and what is used on disk.
    Space {
        /// Hard limit.
        limit: ByteCount,
        /// Used.
        used: ByteCount,
        /// Kept free by the node for its own upkeep: reserved, as others see it.
        upkeep: ByteCount,
    },
    /// Blocks of this kept pin turned out to be lost or damaged on the own node: it is no longer whole.
    Lost(Cid),
    /// What this peer says about itself in its hello changed (addresses, gateway, API); its space comes by `Space`.
    Facts {
        /// Multiaddrs of its node, with `/p2p/`.
        node_addresses: Vec<String>,
        /// Its gateway.
        gateway: Option<String>,
        /// Its REST door.
        api: Option<String>,
    },
    /// The Go peers that are known, heard of now or not; the list replaces the one before. What they say comes by `Link` and `Message`, put into
    /// words by the shell.
    GoPeers(Vec<GoMember>),
    /// Failure domains that Go peers name (their `tag:group`); the list replaces the one before. What is configured here goes before it.
    Domains(BTreeMap<PeerId, String>),
    /// A Pinfold peer that the configuration trusts, and that trusts this one: a member, as if one had invited the other.
    Ours(PeerId),
    /// So many Go peers are connected, and none of them takes what this peer writes; 0 where one does, or none is there.
    Distrusted(u32),
    /// A link to another peer came or went.
    Link(PeerId, LinkState),
    /// Another Pinfold peer says something (the transport has proved who).
    Message(PeerId, PeerMessage),
    /// Ends of writes or of operations that came together, each of another pin: handled in order, and then one look at what
    /// may start. Effects of the earlier ones are not performed before the later ones are handled.
    Together(Vec<Event>),
}

/// A Go peer. It takes part in what this cluster holds, and in nothing of what Pinfold peers tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoMember {
    /// Who.
    pub peer: PeerId,
    /// Whether it may write here, and takes what is written here. Where not, it is given no copies and its word proves none; those it was given by
    /// others are not taken for lost while it is there.
    pub is_trusted: bool,
}

/// A change of the shared wish.
#[derive(Clone, Debug)]
pub enum SharedChange {
    /// These keys, with values before and after.
    Pins(Vec<PinChange>),
    /// Hints were lost: compare everything.
    Lagged,
    /// How complete the own view is.
    View(ViewState),
}

/// One key of the wish.
#[derive(Clone, Debug)]
pub struct PinChange {
    /// The key.
    pub cid: Cid,
    /// Before.
    pub before: Option<Pin>,
    /// After, with the version of its stored form; none when removed (a tombstone was merged).
    pub after: Option<(Pin, u64)>,
}

/// How complete the own view of the wish is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewState {
    /// Nothing was ever merged here, or the state was restored from a backup: nothing may be let go.
    Unknown,
    /// Heads are known whose history is still being fetched.
    CatchingUp,
    /// Everything announced has been merged.
    Current,
}

/// A link to another peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Connected and trusted.
    Up,
    /// Gone.
    Down,
}

/// What a door may ask.
#[derive(Clone, Debug)]
pub enum Command {
    /// Write a pin; the machine chooses the placement. With `keep_placement` given (an add whose blocks were already spread)
    /// that list is used as it is.
    Pin {
        /// The root.
        cid: Cid,
        /// What is wished.
        options: PinOptions,
        /// Recursive or direct.
        depth: Depth,
        /// Size, when known (an add knows it); for the space of the holders.
        size: Option<ByteCount>,
        /// The add whose placement is taken over.
        lease: Option<u64>,
    },
    /// Remove a pin.
    Unpin {
        /// The root.
        cid: Cid,
    },
    /// Choose holders for an add before its first block, and reserve room with them.
    Place {
        /// What is wished.
        options: PinOptions,
        /// Expected size, if the client said one.
        size: Option<ByteCount>,
    },
    /// The add grew: reserve more (in all, not on top).
    Grow {
        /// The add.
        lease: u64,
        /// Bytes so far plus headroom.
        bytes: ByteCount,
    },
    /// A lane of an add broke: choose another holder.
    Replace {
        /// The add.
        lease: u64,
        /// The broken holder.
        broken: PeerId,
    },
    /// A unit of an add lies with its holders: keep it as a shard that ends by itself unless the add comes to its end.
    PinUnit {
        /// Whose holders have it.
        lease: u64,
        /// The name of the add, the same for all its units.
        add: String,
        /// The unit.
        unit: NewUnit,
    },
    /// All units of an add are pinned: they belong to this root from now on.
    PinRoot(Box<NewRoot>),
    /// An add that was cut ended without a root.
    DropUnits {
        /// The name of the add.
        add: String,
        /// Its units so far.
        units: Vec<Cid>,
    },
    /// An add that was cut goes on: its units so far do not end yet.
    RenewUnits {
        /// Its units so far.
        units: Vec<Cid>,
    },
    /// All of the add has come to its holders: they need to reserve nothing more for it. It still keeps its blocks, until [`Command::Release`].
    Arrived {
        /// The add.
        lease: u64,
    },
    /// The add ended without a pin.
    Release {
        /// The add.
        lease: u64,
        /// What it brought is pinned, and all its holders have confirmed it.
        is_kept: bool,
    },
    /// Try again at once what waits after an error; `None`: everything.
    Recover {
        /// One pin.
        cid: Option<Cid>,
    },
    /// Take no new copies, hand the own ones over, then answer [`Answer::Left`].
    Leave {
        /// Leave although some copies can go nowhere; otherwise that is refused and this peer stays.
        force: bool,
    },
    /// A mass removal that was braked may go on.
    ApproveRemovals,
    /// The claims of a CID changed: write its pin so that it serves them; answered by [`Answer::Pinned`] or [`Answer::Unpinned`].
    FollowClaims {
        /// The CID.
        cid: Cid,
        /// Metadata, origins and preferred peers for a pin that is not there yet.
        wished: Box<PinOptions>,
    },
    /// Write a record of this peer (membership: trust or expel).
    SetRecord {
        /// Already signed by the shell.
        record: SignedRecord,
    },
}

/// Answers to commands.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The pin as accepted; it is durable.
    Pinned(Box<Pin>),
    /// The pin as it was stored.
    Unpinned(Box<Pin>),
    /// The CID is not in the shared state.
    NotPinned,
    /// Holders for an add; may contain this peer.
    Placed {
        /// The add's number.
        lease: u64,
        /// Who takes the blocks.
        holders: Vec<PeerId>,
        /// What was resolved of the wish (default class applied).
        options: Box<PinOptions>,
        /// What grows beyond this is cut.
        unit: ByteCount,
    },
    /// How many waiting operations were put back in the queue, and which (at most 1,000).
    Recovered(Vec<Cid>),
    /// Everything was handed over (or leaving was forced: so many copies stay only here).
    Left {
        /// Pins whose last copies stay here.
        stranded: u64,
    },
    /// Done, nothing to say.
    Done,
    /// Refused, in words that name the cause and the next step.
    Refused(Missing),
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Fewer peers fit than are needed.
    #[error(
        "not enough peers to allocate CID. Needed at least: {needed}. Wanted at most: {wanted}. Available candidates: {candidates}. {detail}"
    )]
    NotEnoughPeers {
        /// Least copies.
        needed: u32,
        /// Most copies.
        wanted: u32,
        /// Peers that fit.
        candidates: u32,
        /// Why the others do not, by peer.
        detail: String,
    },
    /// The wish contradicts itself or the pin that is there.
    #[error("{0}")]
    BadWish(String),
    /// The shared state did not take the write.
    #[error("writing to the shared state: {0}")]
    NotWritten(String),
    /// This peer follows others and writes nothing (Go's follower mode).
    #[error(
        "this peer is configured to be in follower mode. Write operations are disabled: ask a peer that the others trust, or set `follower = false` in pinfold.toml if they trust this one"
    )]
    Follower,
    /// Nobody who is here would take what this peer writes.
    #[error(
        "none of the {peers} Go peers that are connected trusts this peer, so the pin would be nobody's but its own: put {own} into `trusted_peers` of one of them (or take them out of `trusted_peers` in pinfold.toml)"
    )]
    NotTrusted {
        /// How many are connected.
        peers: u32,
        /// This peer.
        own: PeerId,
    },
    /// This peer is leaving or draining.
    #[error("this peer is leaving the cluster: use another one")]
    Leaving,
    /// Copies that only this peer has would be left behind.
    #[error(
        "this peer stays: {only_here} of its {pins} pins are held by nobody else, and nobody can take them. {detail} Make room there, start or invite another peer; or leave with --force: the copies then stay only on this disk"
    )]
    CannotLeave {
        /// Pins that are still placed here.
        pins: u64,
        /// Those that only this peer holds.
        only_here: u64,
        /// Why the others cannot take them, by peer.
        detail: String,
    },
    /// Too many questions at once.
    #[error("too many requests wait for an answer: try again")]
    Busy,
}

/// What the machine wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Write to the shared state; answered by [`Event::Submitted`].
    Submit(SubmitId, Vec<Change>),
    /// Do something on the own node; answered by [`Event::Node`].
    Node(OpId, NodeOp),
    /// Stop an operation; it answers [`NodeOutcome::Cancelled`] or how it ended.
    Cancel(OpId),
    /// Say something to another peer.
    Tell(PeerId, PeerMessage),
    /// Say something to all connected Pinfold peers.
    TellAll(PeerMessage),
    /// Answer a door.
    Answer(RequestId, Answer),
    /// Enter into, or strike from, the ledger of what is ours. Performed before later effects.
    Ledger {
        /// Which pin.
        cid: Cid,
        /// In, with its size, or out.
        ours: Option<ByteCount>,
    },
    /// Store and spread a record.
    Record(SignedRecord),
    /// Membership changed: these are trusted now.
    Trusted(Vec<PeerId>),
    /// What another peer's add brought here is pinned: the node keeps it for the pin alone from now on.
    LaneEnded {
        /// Whose add.
        peer: PeerId,
        /// Its number there.
        lease: u64,
    },
    /// Measure the node soon: what adds brought is counted twice until then, and room is scarce.
    Measure,
    /// For people: log, page, alerts.
    Note(Notice),
    /// The copies of this pin on some peer changed: watchers should look again.
    Changed(Cid),
}

/// A write to the shared state.
#[derive(Clone, Debug)]
pub enum Change {
    /// Insert or replace.
    Put(Box<Pin>),
    /// Remove.
    Remove(Cid),
}

/// An operation on the own node.
#[derive(Clone, Debug)]
pub enum NodeOp {
    /// Fetch and keep for the cluster.
    Pin {
        /// The root.
        cid: Cid,
        /// How deep.
        depth: Depth,
        /// Peers that are believed to hold it, best first (cluster ids; the shell knows their nodes).
        holders: Vec<PeerId>,
    },
    /// Keep for the cluster what is here completely already, without fetching anything; else [`NodeOutcome::NotHere`]. Many at
    /// once cost the node little, and it may gather them.
    PinHere {
        /// The root.
        cid: Cid,
        /// How deep.
        depth: Depth,
    },
    /// End the cluster's wish.
    Unpin {
        /// The root.
        cid: Cid,
    },
    /// List what the node keeps for this cluster after a CID, at most so many; answered by [`NodeOutcome::Held`].
    ListHeld {
        /// Exclusive start.
        after: Option<Cid>,
        /// At most.
        limit: usize,
    },
}

/// What became of an operation.
#[derive(Clone, Debug)]
pub enum NodeOutcome {
    /// A pin goes on.
    Progress {
        /// Blocks here.
        blocks: u64,
        /// Bytes here.
        bytes: ByteCount,
        /// Blocks known to be missing.
        missing: u64,
    },
    /// Pinned: complete and durable.
    Pinned {
        /// Bytes of the pinned DAG.
        bytes: ByteCount,
    },
    /// The node held it before on somebody else's account, and has no accounts of its own (Kubo): it serves the wish, and is
    /// not entered into the ledger, so that it is never let go.
    AlreadyHeld {
        /// Bytes of the pinned DAG.
        bytes: ByteCount,
    },
    /// It is not here completely, or it would take long to say: it is to be fetched.
    NotHere,
    /// Let go.
    Unpinned,
    /// A page of what the node keeps for this cluster, sorted; shorter than asked means the end.
    Held(Vec<Cid>),
    /// It was cancelled and left nothing.
    Cancelled,
    /// It failed.
    Failed(NodeFailure),
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeFailure {
    /// Blocks are missing and nobody has them.
    Missing {
        /// How many are known.
        missing: u64,
        /// One of them.
        first: Option<Cid>,
        /// Who was asked for it beside connected nodes, and what was said; short.
        asked: String,
    },
    /// No room.
    NoRoom {
        /// Needed.
        needed: ByteCount,
        /// Free.
        free: ByteCount,
    },
    /// The content cannot be walked; trying again is of little use, it is still tried, rarely.
    Malformed(String),
    /// The node failed.
    Node(String),
}

/// For people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A peer became silent.
    PeerSuspect(PeerId),
    /// Its grace is over.
    PeerDown(PeerId),
    /// It is back.
    PeerBack(PeerId),
    /// A pin gets new holders because old ones are lost.
    Repairing {
        /// Which pin.
        cid: Cid,
        /// The lost holders.
        lost: Vec<PeerId>,
        /// The new ones.
        gained: Vec<PeerId>,
    },
    /// A pin that was short of copies has enough again.
    Repaired {
        /// Which pin.
        cid: Cid,
    },
    /// A copy could not be made.
    PinFailed {
        /// Which pin.
        cid: Cid,
        /// Why, in words.
        why: String,
    },
    /// Blocks of a copy on the own node are lost or damaged.
    CopyDamaged {
        /// Which pin.
        cid: Cid,
    },
    /// Too many removals at once: waiting for approval.
    RemovalsBraked {
        /// How many.
        removals: u64,
        /// Of how many.
        held: u64,
    },
    /// A peer was trusted or expelled by a record.
    Membership {
        /// Whom it is about.
        peer: PeerId,
        /// Who says so.
        by: PeerId,
        /// Trusted, or expelled.
        trusted: bool,
    },
    /// Somebody decided what a peer is there for.
    Duty {
        /// Which peer.
        peer: PeerId,
        /// Who decided.
        by: PeerId,
        /// What.
        duty: Duty,
    },
    /// Somebody decided how copies are balanced.
    Balancing {
        /// Who decided.
        by: PeerId,
        /// What.
        mode: Balancing,
    },
    /// Somebody decided that what no member signed counts too.
    SigningEnds {
        /// Who decided.
        by: PeerId,
    },
    /// A block of the shared state has a fault in its author.
    Author {
        /// Which block.
        block: Cid,
        /// The author it names.
        author: Option<PeerId>,
        /// What is wrong, in words.
        fault: String,
        /// It counts for nothing here.
        is_left_out: bool,
    },
    /// A record was refused, and why.
    RecordRefused {
        /// Which.
        key: RecordKey,
        /// Why.
        why: String,
    },
}

/// Free text about peers, for doors: filled from `Hello`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerFacts {
    /// Name for people.
    pub name: String,
    /// Multiaddrs of its node host.
    pub node_addresses: Vec<String>,
    /// Its gateway.
    pub gateway: Option<String>,
    /// Its REST door.
    pub api: Option<String>,
    /// Space.
    pub space_limit: ByteCount,
    /// Space.
    pub space_used: ByteCount,
    /// Space.
    pub space_reserved: ByteCount,
    /// Takes no new copies.
    pub is_draining: bool,
    /// The copies it has.
    pub load: Option<types::Load>,
    /// Last heard of, wall time of this peer.
    pub heard: UnixMillis,
    /// Free labels (`region`, `site`), for spreads.
    pub labels: BTreeMap<String, String>,
}
