//! What a door may ask of the cluster: the one interface between `api` and everything below.
//!
//! Implemented by [`crate::Peer`] (the real one); the tests of doors have an in-memory twin.

use crate::Paths;
use crate::limits::{LimitsAsk, LimitsReport};
use crate::scrub::{ScrubAsk, ScrubReport};
use async_trait::async_trait;
use cluster::{Balancing, CopyRow, Duty, Explanation, Notice, PeerRow, ShortRow, plan};
use ipfs::{Block, IpfsNode};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use types::{ByteCount, Cid, Depth, PeerId, Pin, PinOptions, UnixMillis};

/// Who this peer is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Cluster peer id.
    pub peer: PeerId,
    /// Name for people.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// Multiaddrs of the cluster host, with `/p2p/`.
    pub addresses: Vec<String>,
    /// Id of the node.
    pub node: Option<PeerId>,
    /// Multiaddrs of the node, with `/p2p/`.
    pub node_addresses: Vec<String>,
    /// When it started.
    pub started: UnixMillis,
}

/// Why a command failed; the text names the cause and the next step.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The CID is not in the shared state (Go's words, which its clients look for).
    #[error("pin is not part of the pinset")]
    NotPinned,
    /// The machine refused.
    #[error(transparent)]
    Refused(#[from] cluster::Missing),
    /// The input was wrong.
    #[error("{0}")]
    Bad(String),
    /// The peer is stopping.
    #[error("this peer is stopping")]
    Stopping,
    /// Something below failed.
    #[error("{0}")]
    Failed(String),
}

/// Something a live page or a waiting client wants to know.
#[derive(Clone, Debug)]
pub enum Live {
    /// A pin or one of its copies changed.
    Pin(Cid),
    /// A peer changed.
    Peers,
    /// A notice for people, with its wall time and text.
    Notice(UnixMillis, Notice, String),
}

/// What an owner keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRow {
    /// Who.
    pub owner: String,
    /// Under which name.
    pub name: String,
    /// What.
    pub claim: cluster::owner::Claim,
}

/// What an owner lets go of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// What it keeps under this name.
    Name(String),
    /// All its names for this CID.
    Cid(Cid),
}

/// Numbers of the whole, for the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Pins in the shared state.
    pub pins: u64,
    /// Pins with fewer confirmed copies than their least.
    pub short: u64,
    /// Copies that wait (queued, pinning, errors, unconfirmed) over all peers.
    pub waiting: u64,
    /// Blocks of the shared state that are left out, since no member signed them.
    pub left_out: u64,
    /// Blocks of it that count although their signature is wrong, since the start.
    pub wrongly_signed: u64,
    /// Pins that came from other peers' sets when this peer joined, and are not yet compared with the history.
    pub unsure: u64,
    /// Pins that such a set said wrongly and that were put right, since the start.
    pub mended: u64,
}

/// Of when the pages of a long read are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// All of one moment. A reader that takes long keeps old values on disk meanwhile.
    One,
    /// Each of its own.
    Passing,
}

/// Reads the wish forward, in key order.
pub trait PinReader: Send {
    /// Gives the next pins to `each`, at most `limit` entries of the state; how many entries there were, fewer than `limit` at
    /// the end. What does not read as a pin is counted as an entry and not given.
    fn next(&mut self, limit: usize, each: &mut dyn FnMut(&Pin)) -> Result<usize, CommandError>;
}

/// What became of pins that were imported together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Were not in the shared state.
    pub added: u64,
    /// Were there with other options, placement or time.
    pub changed: u64,
    /// Were there as they are.
    pub same: u64,
}

/// An add in flight: blocks go to the holders while they are made. Dropped without `finish`, it ends and leaves no pin.
#[async_trait]
pub trait AddSession: Send {
    /// Who takes the blocks now (a broken holder is replaced).
    fn holders(&self) -> Vec<PeerId>;
    /// Hands blocks on, in order; waits when the slowest holder is behind its bound.
    async fn put(&mut self, blocks: Vec<Block>) -> Result<(), CommandError>;
    /// Waits until at least one holder has everything durably, then writes the pin (the answer is durable) unless `pin` is
    /// false. `size` is the DAG's size in bytes.
    async fn finish(self: Box<Self>, root: Cid, options: PinOptions, size: ByteCount, pin: bool) -> Result<Pin, CommandError>;
}

/// The cluster as doors see it. Any door of any peer gives the same answers.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Who this peer is.
    async fn identity(&self) -> Identity;
    /// All members, the own peer first, then by id.
    fn peers(&self) -> Vec<PeerRow>;
    /// Totals; cheap (the number of pins is cached, for a second where they are few).
    fn totals(&self) -> Totals;

    /// Writes a pin; durable when it returns. The pin as accepted (default class applied).
    async fn pin(&self, cid: Cid, options: PinOptions, depth: Depth) -> Result<Pin, CommandError>;
    /// Removes a pin; the pin as it was.
    async fn unpin(&self, cid: Cid) -> Result<Pin, CommandError>;
    /// Keeps a CID for an owner, under a name of its own; what the name stood for before is let go. Durable when it returns; the pin of all owners.
    async fn claim(&self, cid: Cid, owner: &str, name: &str, options: PinOptions) -> Result<Pin, CommandError> {
        let _ = (cid, owner, name, options);
        Err(CommandError::Bad("this peer keeps nothing for owners".to_owned()))
    }
    /// An owner lets go of what it keeps under a name, or of all its names for a CID; the pins as they were.
    async fn release(&self, owner: &str, what: Released) -> Result<Vec<Pin>, CommandError> {
        let _ = (owner, what);
        Err(CommandError::Bad("this peer keeps nothing for owners".to_owned()))
    }
    /// What owners keep, in order of owner and name; of all of them, or of one.
    fn claims(&self, owner: Option<&str>) -> Vec<ClaimRow> {
        let _ = owner;
        Vec::new()
    }
    /// Tries waiting pins again at once; `None`: all. Those that were put back.
    async fn recover(&self, cid: Option<Cid>) -> Result<Vec<Cid>, CommandError>;
    /// Begins an add. `size`: expected bytes, if known. `local`: this peer is to be one of the holders.
    async fn add(&self, options: PinOptions, size: Option<ByteCount>, local: bool) -> Result<Box<dyn AddSession>, CommandError>;

    /// One pin of the shared state.
    fn pin_of(&self, cid: &Cid) -> Option<Pin>;
    /// Pins after a CID in key order, at most `limit`.
    fn pins(&self, after: Option<&Cid>, limit: usize) -> Vec<Pin>;
    /// The copies of a pin on every member; for a CID that is not pinned, every member with `unpinned`. Waits until this peer's
    /// machine was told of the wish as it is (milliseconds; copies are unconfirmed when that takes longer than 10 s).
    async fn status(&self, cid: &Cid) -> (Option<Pin>, Vec<CopyRow>);
    /// The same for a page of pins, cheaper than one by one.
    async fn status_page(&self, pins: &[Pin]) -> Vec<Vec<CopyRow>>;
    /// The same in short, appended to `rows`: for every pin a row of each member, the members in one order. How many a pin has.
    async fn short_rows(&self, pins: &[Pin], rows: &mut Vec<ShortRow>) -> usize {
        let copies = self.status_page(pins).await;
        let members = copies.first().map_or(0, Vec::len);
        let short = |row: CopyRow| ShortRow { peer: row.peer, state: row.state, because: row.because, tries: row.tries, since: row.since };
        rows.extend(copies.into_iter().flatten().map(short));
        members
    }
    /// Reads all pins in key order.
    fn read_pins(&self, moment: Moment) -> Box<dyn PinReader>;
    /// Merges pins into the shared state as they are, placement and time included; durable when it returns. With `renews`, pins
    /// that are added get the present time.
    async fn import(&self, pins: Vec<Pin>, renews: bool) -> Result<Imported, CommandError>;
    /// Why a pin is where it is; none when it is not in the shared state.
    async fn why(&self, cid: &Cid) -> Option<Explanation>;
    /// Waits until `copies` holders confirmed it, or the time is over: how many have.
    async fn wait_copies(&self, cid: &Cid, copies: u32, limit: Duration) -> u32;
    /// Live events; a slow reader loses the oldest and is told.
    fn live(&self) -> broadcast::Receiver<Live>;
    /// The notices among the live events, for those who want nothing else.
    fn live_notices(&self) -> broadcast::Receiver<Live> {
        self.live()
    }

    /// Makes a one-time invite that expires after `ttl`: one line of text.
    async fn invite(&self, ttl: Duration) -> Result<String, CommandError>;
    /// Hands the own copies over and leaves; refused in words when some can go nowhere, unless forced: how many those were. With `purge` the disk is freed on stop.
    async fn leave(&self, purge: bool, force: bool) -> Result<u64, CommandError>;
    /// Lets a braked mass removal go on.
    async fn approve_removals(&self) -> Result<(), CommandError>;

    /// How this peer is reached, and which way its connections to members go.
    fn paths(&self) -> Paths {
        Paths::default()
    }
    /// When each peer will be full at the rate of the last week, for those of which it can be said.
    fn forecasts(&self) -> BTreeMap<PeerId, UnixMillis> {
        BTreeMap::new()
    }
    /// How many pins this peer's node holds for the cluster.
    fn pins_held(&self) -> u64 {
        0
    }
    /// Limits of bandwidth of this peer: shows or changes them.
    async fn limits(&self, ask: LimitsAsk) -> Result<LimitsReport, CommandError> {
        let _ = ask;
        Err(CommandError::Bad("this peer has no network of its own".to_owned()))
    }
    /// Looks after the blocks of this peer, or says how far that is.
    async fn scrub(&self, ask: ScrubAsk) -> Result<ScrubReport, CommandError> {
        let _ = ask;
        Err(CommandError::Bad("this peer keeps no blocks of its own".to_owned()))
    }
    /// Decides what a member is there for: in use, cordoned, draining. Holds on every peer, survives restarts, can be turned back.
    async fn set_duty(&self, peer: PeerId, duty: Duty) -> Result<(), CommandError>;
    /// What was decided about a peer, a Go peer too.
    fn duty(&self, _: &PeerId) -> Duty {
        Duty::InUse
    }
    /// How the authors of the shared state's blocks stand.
    fn authors(&self) -> consensus::AuthorNumbers {
        consensus::AuthorNumbers::default()
    }
    /// Decides how copies are balanced.
    async fn set_balancing(&self, mode: Balancing) -> Result<(), CommandError>;
    /// How they are.
    fn balancing(&self) -> Balancing;
    /// What a drain or a balancing would do.
    async fn plan(&self, goal: plan::Goal) -> Result<plan::Plan, CommandError>;

    /// The Go peers of a mixed cluster; none where there are none.
    fn go(&self) -> Option<Arc<dyn crate::go::GoMembers>> {
        None
    }
    /// The cluster as one node: reads come from here or from the holders.
    fn node(&self) -> Arc<dyn IpfsNode>;
    /// Keys of this peer and names of all; none where there are none.
    fn names(&self) -> Option<Arc<crate::Names>> {
        None
    }
    /// Finding and being found among strangers; none where it is off.
    fn routing(&self) -> Option<Arc<dyn ipfs::routing::NodeRouting>> {
        None
    }
    /// This peer's own node alone.
    fn own_node(&self) -> Arc<dyn IpfsNode>;
}
