//! Helpers of this crate's tests: numbered CIDs and peers, a wish in a map, and a table around one machine.

use crate::{Effect, Event, Machine, NodeOp, NodeOutcome, OpId, Options, PinChange, RequestId, SharedChange, SharedView, ViewState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use types::{ByteCount, Cid, Depth, Millis, Now, PeerId, Pin, PinKind, PinOptions, UnixMillis};

/// The CID with a number.
pub fn cid(number: u64) -> Cid {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(number.to_be_bytes());
    Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x12, &digest).expect("32 bytes fit"))
}

/// The peer with a number.
pub fn peer(number: u8) -> PeerId {
    PeerId::from_ed25519(&[number; 32])
}

/// A pin on these peers.
pub fn pin_on(cid: Cid, peers: &[PeerId], options: PinOptions) -> Pin {
    Pin {
        cid,
        kind: PinKind::Data,
        options,
        placement: peers.to_vec(),
        depth: Depth::Recursive,
        reference: None,
        created: UnixMillis::from_seconds(1_000),
    }
}

/// The wish and the ledger in maps.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    pub pins: BTreeMap<Vec<u8>, (Pin, u64)>,
    pub ledger: BTreeMap<Vec<u8>, Cid>,
    /// Sizes of what is in the ledger; zero where none is said.
    pub sizes: BTreeMap<Vec<u8>, ByteCount>,
}

impl SharedView for Shelf {
    fn pins_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Pin, u64)> {
        self.pins
            .range(start(after)..)
            .filter(|(key, _)| after.is_none_or(|after| **key != after.to_bytes()))
            .take(limit)
            .map(|(_, value)| value.clone())
            .collect()
    }
    fn pin(&self, cid: &Cid) -> Option<(Pin, u64)> {
        self.pins.get(&cid.to_bytes()).cloned()
    }
    fn ledger_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Cid, ByteCount)> {
        let entries = self.ledger.range(start(after)..).filter(|(key, _)| after.is_none_or(|after| **key != after.to_bytes()));
        entries.take(limit).map(|(key, cid)| (*cid, self.sizes.get(key).copied().unwrap_or_default())).collect()
    }
    fn own_size(&self, cid: &Cid) -> Option<ByteCount> {
        let key = cid.to_bytes();
        self.ledger.contains_key(&key).then(|| self.sizes.get(&key).copied().unwrap_or_default())
    }
    fn ledger_count(&self) -> u64 {
        self.ledger.len() as u64
    }
}

fn start(after: Option<&Cid>) -> Vec<u8> {
    after.map(Cid::to_bytes).unwrap_or_default()
}

/// One machine with its shelf and node, and a clock that the test moves.
pub struct Table {
    pub machine: Machine,
    pub shelf: Shelf,
    pub held: BTreeSet<Vec<u8>>,
    pub now: Now,
    pub effects: Vec<Effect>,
    /// Whether node operations end at once.
    pub node_works: bool,
    /// Whether the node may have blocks without a fetch; otherwise every look at once finds nothing.
    pub has_blocks: bool,
    /// Operations that were handed to the node and not ended.
    pub open: Vec<(OpId, NodeOp)>,
    versions: u64,
    inbox: VecDeque<Event>,
}

impl Table {
    pub fn new(options: Options) -> Table {
        let now = Now { mono: Millis(0), wall: WALL };
        let machine = Machine::new(options, now);
        Table {
            machine,
            shelf: Shelf::default(),
            held: BTreeSet::new(),
            now,
            effects: Vec::new(),
            node_works: true,
            has_blocks: false,
            open: Vec::new(),
            versions: 1,
            inbox: VecDeque::new(),
        }
    }

    /// A table whose view is current and whose first comparison is done.
    pub fn started(options: Options) -> Table {
        let mut table = Table::new(options);
        table.handle(Event::Shared(SharedChange::View(ViewState::Current)));
        table.pass(Millis::seconds(1));
        table
    }

    /// Hands an event in and performs its effects, and those of what follows; keeps them for the test to look at.
    pub fn handle(&mut self, mut event: Event) {
        // All clocks go alike here: what `hello` made is said now.
        if let Event::Message(_, types::PeerMessage::Hello { clock, .. }) = &mut event
            && *clock == WALL
        {
            *clock = self.now.wall;
        }
        self.inbox.push_back(event);
        while let Some(event) = self.inbox.pop_front() {
            let mut effects = Vec::new();
            self.machine.handle(event, self.now, &self.shelf, &mut effects);
            self.perform(effects);
        }
    }

    pub fn command(&mut self, request: u64, command: crate::Command) {
        self.handle(Event::Command(RequestId(request), command));
    }

    /// Time passes; the machine is woken whenever it wants.
    pub fn pass(&mut self, span: Millis) {
        let end = self.now.after(span);
        for _ in 0..100_000 {
            let Some(wake) = self.machine.next_wake().filter(|wake| *wake <= end) else { break };
            self.advance(wake.max(self.now.mono));
            let mut effects = Vec::new();
            self.machine.wake(self.now, &self.shelf, &mut effects);
            self.perform(effects);
            while let Some(event) = self.inbox.pop_front() {
                self.handle(event);
            }
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Millis) {
        self.now.wall.0 += to.0.saturating_sub(self.now.mono.0);
        self.now.mono = to;
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match &effect {
                Effect::Ledger { cid, ours: Some(bytes) } => {
                    self.shelf.ledger.insert(cid.to_bytes(), *cid);
                    self.shelf.sizes.insert(cid.to_bytes(), *bytes);
                }
                Effect::Ledger { cid, ours: None } => drop(self.shelf.ledger.remove(&cid.to_bytes())),
                Effect::Node(op, NodeOp::ListHeld { after, limit }) => {
                    let after = after.map(|cid| cid.to_bytes());
                    let from = after.clone().unwrap_or_default();
                    let keys = self.held.range(from..).filter(|key| Some(*key) != after.as_ref()).take(*limit);
                    let page = keys.map(|key| Cid::try_from(key.as_slice()).expect("a CID")).collect();
                    self.inbox.push_back(Event::Node(*op, NodeOutcome::Held(page)));
                }
                Effect::Node(op, NodeOp::PinHere { .. }) if !self.has_blocks => {
                    self.inbox.push_back(Event::Node(*op, NodeOutcome::NotHere));
                }
                Effect::Node(op, node_op) if self.node_works => self.finish(*op, node_op),
                Effect::Node(op, node_op) => self.open.push((*op, node_op.clone())),
                Effect::Cancel(op) => {
                    self.open.retain(|(open, _)| open != op);
                    self.inbox.push_back(Event::Node(*op, NodeOutcome::Cancelled));
                }
                _ => {}
            }
            self.effects.push(effect);
        }
    }

    fn finish(&mut self, op: OpId, node_op: &NodeOp) {
        let outcome = match node_op {
            NodeOp::Pin { cid, .. } | NodeOp::PinHere { cid, .. } => {
                self.held.insert(cid.to_bytes());
                NodeOutcome::Pinned { bytes: types::ByteCount(100) }
            }
            NodeOp::Unpin { cid } => {
                self.held.remove(&cid.to_bytes());
                NodeOutcome::Unpinned
            }
            NodeOp::ListHeld { .. } => return,
        };
        self.inbox.push_back(Event::Node(op, outcome));
    }

    /// Writes a pin to the wish and gives the hint.
    pub fn wish(&mut self, pin: Pin) -> u64 {
        self.versions += 1;
        let version = self.versions;
        let before = self.shelf.pins.insert(pin.cid.to_bytes(), (pin.clone(), version)).map(|(pin, _)| pin);
        self.handle(Event::Shared(SharedChange::Pins(vec![PinChange { cid: pin.cid, before, after: Some((pin, version)) }])));
        version
    }

    /// Removes a pin from the wish and gives the hint.
    pub fn unwish(&mut self, cid: Cid) {
        let before = self.shelf.pins.remove(&cid.to_bytes()).map(|(pin, _)| pin);
        self.handle(Event::Shared(SharedChange::Pins(vec![PinChange { cid, before, after: None }])));
    }

    /// Accepts every write that waits: applies it to the wish, hints and confirms it.
    pub fn accept_writes(&mut self) {
        let (writes, others) = std::mem::take(&mut self.effects).into_iter().partition(|effect| matches!(effect, Effect::Submit(..)));
        self.effects = others;
        let writes: Vec<Effect> = writes;
        for effect in writes {
            if let Effect::Submit(id, changes) = effect {
                for change in changes {
                    match change {
                        crate::Change::Put(pin) => drop(self.wish(*pin)),
                        crate::Change::Remove(cid) => self.unwish(cid),
                    }
                }
                self.handle(Event::Submitted(id, Ok(())));
            }
        }
    }

    pub fn holds(&self, cid: &Cid) -> bool {
        self.held.contains(&cid.to_bytes())
    }
}

/// What every clock says when a table begins.
pub const WALL: UnixMillis = UnixMillis(1_000_000_000);

/// A hello of a peer with so much room, said when the table began.
pub fn hello(limit: u64, used: u64, is_draining: bool) -> types::PeerMessage {
    types::PeerMessage::Hello {
        name: String::new(),
        node_addresses: Vec::new(),
        gateway: None,
        api: None,
        space_limit: types::ByteCount(limit),
        space_used: types::ByteCount(used),
        space_reserved: types::ByteCount(0),
        is_draining,
        incarnation: 1,
        clock: WALL,
        load: None,
    }
}
