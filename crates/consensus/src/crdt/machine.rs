//! Decides: what to write, what to fetch, what to tell. Takes events and the time, gives a batch and effects; does nothing itself.
//!
//! Who drives it commits the batch first and performs the effects only then: an acknowledgement must not overtake the disk. When
//! the commit fails, the machine has gone ahead of the store and must be read again by [`Machine::open`].

mod authors;
mod history;
mod paging;
mod spacing;

use self::authors::Authors;
use self::paging::Paging;
use self::spacing::Writers;
use super::block::{Block, LINKS_MAX, PRIORITY_MAX};
use super::draft::Draft;
use super::event::{Effect, Event, MachineOptions, PlantedBug, Step};
use super::id::BlockId;
use super::journal::Journal;
use super::merge::{Mark, mark, mark_refused, read_mark, show};
use super::snapshot::Unsure;
use super::tell::{self, Told};
use super::values::Values;
use super::wants::{WANTS_MAX, Wants};
use super::{CrdtError, alive};
use crate::{Change, OtherLayout, SubmitError, ViewState, Write};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Area, Durability, Snapshot};
use types::{Cid, Millis, PeerId};

/// The greatest height merged, in `Area::Meta`.
const HEIGHT: &[u8] = b"crdt/height";

/// How many rows `Area::Pins` has, in `Area::Meta`.
const PINS: &[u8] = b"crdt/pins";

/// How rows of `Area::Pins` are laid out, in `Area::Meta`; a state without it and with a height is of the layout before.
const ROWS: &[u8] = b"crdt/rows";
const ROWS_NOW: u8 = 2;

/// Heads in a block or broadcast of ours.
const HEADS_TOLD_MAX: usize = 1024;
const _: () = assert!(HEADS_TOLD_MAX <= LINKS_MAX);

/// Up to so many blocks, missing for at most so long, are the ordinary way of news and do not make the view incomplete.
const LAG_BLOCKS: usize = 16;
const LAG_SPAN: Millis = Millis(500);

/// After a burst of own blocks the heads are told once more, so that who missed the last one does not wait for the next round. Go
/// peers were seen to lose the thread in a burst.
const SETTLED: Millis = Millis(3_000);

/// Own blocks up to this size are handed to connected Pinfold peers at once: they have the news after one way instead of three, and
/// fetch nothing.
pub(super) const PUSH_BYTES_MAX: usize = 128 << 10;

/// So many peers are handed a block; the others fetch it, from any of them.
const PUSHED_MOST: usize = 16;

/// After a push heads are told so late, once for all pushes of that time: to peers that are not linked to this one.
const PUSHED_TOLD: Millis = Millis(100);

/// A peer that came is told the heads when its subscription has had time to arrive.
const GREETING: Millis = Millis(1_000);

/// First pause before a broadcast that reached nobody is repeated.
const SPEAK_AGAIN: Millis = Millis(250);

/// First pause before a peer that did not tell its heads is asked again, and how often.
const ASK_AGAIN: Millis = Millis(1_000);
const ASK_TRIES: u32 = 5;

/// Pause of a block that links to more than can be wanted.
const NO_ROOM: Millis = Millis(10_000);

/// The CRDT of one peer.
pub struct Machine {
    options: MachineOptions,
    heads: BTreeMap<BlockId, u64>,
    height: u64,
    pins: u64,
    journal: Journal,
    wants: Wants,
    values: Values,
    paging: Paging,
    authors: Authors,
    writers: Writers,
    /// Connected ones, and whether each is a Pinfold.
    peers: BTreeMap<PeerId, bool>,
    asks: BTreeMap<PeerId, Ask>,
    /// Who is asked for a stretch of history; one question each.
    stretches: BTreeMap<PeerId, BlockId>,
    /// Who gave none lately, and until when it is not asked.
    mute: BTreeMap<PeerId, Millis>,
    state: ViewState,
    /// The next own block is made no earlier, unless one step brings enough wishes for one.
    tell_after: Millis,
    /// Heads that others told since the last round.
    heard: BTreeSet<BlockId>,
    rebroadcast_at: Millis,
    /// All heads are told then.
    speak_at: Option<Millis>,
    /// And once more when the burst has settled.
    speaks_again: bool,
    /// Nothing can be told later.
    is_ending: bool,
    /// Broadcasts in a row that reached nobody.
    unheard: u32,
    block_size: usize,
    random: u64,
}

/// A peer that did not answer.
struct Ask {
    tries: u32,
    again: Option<Millis>,
}

/// One step under way.
struct Round {
    draft: Draft,
    changes: Vec<Change>,
    effects: Vec<Effect>,
    durability: Durability,
    now: Millis,
}

impl Machine {
    /// Goes on with what the store holds: pending wishes are told and missing history is fetched from the first step on.
    pub fn open(options: MachineOptions, now: Millis, view: Arc<dyn Snapshot>) -> Result<Machine, CrdtError> {
        let draft = Draft::new(view);
        let mut heads = BTreeMap::new();
        for (digest, height) in draft.scan(Area::Heads, b"")? {
            let id = digest[..].try_into().map_err(|_| CrdtError::damaged("head", &digest))?;
            heads.insert(BlockId(id), number(&height).ok_or_else(|| CrdtError::damaged("head", &digest))?);
        }
        let height = match draft.get(Area::Meta, HEIGHT)? {
            Some(row) => number(&row).ok_or_else(|| CrdtError::damaged("height", HEIGHT))?,
            None => 0,
        };
        let rows = draft.get(Area::Meta, ROWS)?;
        if height > 0 && rows.as_deref() != Some(&[ROWS_NOW]) {
            let found = rows.and_then(|row| row.first().copied()).unwrap_or(1);
            return Err(OtherLayout { found, known: ROWS_NOW }.into());
        }
        let pins = match draft.get(Area::Meta, PINS)? {
            Some(row) => number(&row).ok_or_else(|| CrdtError::damaged("number of pins", PINS))?,
            // A state of before they were counted.
            None => draft.view().count(Area::Pins)?,
        };
        let mut machine = Machine {
            heads,
            height,
            pins,
            journal: Journal::load(&draft)?,
            wants: Wants::load(&draft, now)?,
            values: Values::default(),
            authors: Authors::open(&draft, options.authors.clone(), now)?,
            writers: Writers::default(),
            paging: Paging::new(height == 0, Unsure::load(&draft)?, now),
            peers: BTreeMap::new(),
            asks: BTreeMap::new(),
            stretches: BTreeMap::new(),
            mute: BTreeMap::new(),
            state: ViewState::Unknown,
            tell_after: now,
            heard: BTreeSet::new(),
            rebroadcast_at: now,
            speak_at: None,
            speaks_again: false,
            is_ending: false,
            unheard: 0,
            block_size: 4096,
            random: options.seed | 1,
            options,
        };
        machine.rebroadcast_at = machine.next_rebroadcast(now);
        machine.state = machine.completeness(now);
        Ok(machine)
    }

    /// Takes what happened, together with the time that passed, over the store as it is.
    pub fn step(&mut self, events: Vec<Event>, now: Millis, view: Arc<dyn Snapshot>) -> Result<Step, CrdtError> {
        let mut round = Round { draft: Draft::new(view), changes: Vec::new(), effects: Vec::new(), durability: Durability::Buffered, now };
        self.journal.begin_step();
        if self.heads.is_empty() && self.rebroadcast_at <= now {
            self.rebroadcast_at = self.next_rebroadcast(now);
        }
        for event in events {
            self.handle(event, &mut round)?;
        }
        self.take_up(&mut round)?;
        self.tell(&mut round)?;
        self.speak(&mut round);
        self.ask_again(&mut round);
        self.page(&mut round)?;
        self.fetch(&mut round);
        self.look(&mut round);
        Ok(self.end(round))
    }

    /// The newest blocks of the history, in order of their bytes.
    pub fn heads(&self) -> Vec<Cid> {
        self.heads.keys().take(HEADS_TOLD_MAX).map(BlockId::cid).collect()
    }

    /// How complete the view is.
    pub fn state(&self) -> ViewState {
        self.state
    }

    /// Blocks of the known history that are not here.
    pub fn missing(&self) -> usize {
        self.wants.missing_linked()
    }

    /// Up to where wishes were acknowledged, and up to where they are in blocks.
    pub(super) fn marks(&self) -> (u64, u64) {
        self.journal.marks()
    }

    /// Keys whose wish is acknowledged and not yet in a block.
    pub fn pending(&self) -> usize {
        self.journal.len()
    }

    /// Elements that came from a page of another peer and were not yet met in the history; none when there is nothing to compare.
    pub fn unsure(&self) -> Option<u64> {
        self.paging.unsure.as_ref().map(|unsure| unsure.count)
    }

    /// What pages said wrongly and was put right, since the start.
    pub fn mended(&self) -> u64 {
        self.paging.mended
    }

    /// How many pins are wished.
    pub fn pins(&self) -> u64 {
        self.pins
    }

    /// The height of the highest block merged.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The last blocks are made, and told, without waiting.
    pub fn hurry(&mut self) {
        self.is_ending = true;
        if self.speaks_again {
            self.speak_at = Some(Millis(0));
        }
        self.tell_after = Millis(0);
    }

    /// Puts in a fault that the simulator must find.
    #[doc(hidden)]
    pub fn plant(&mut self, bug: PlantedBug) {
        match bug {
            PlantedBug::KeepsFirstOfEquals => self.values.keeps_first_of_equals = true,
            PlantedBug::NeverFetchesAgain => self.wants.never_again = true,
        }
    }

    /// Whether `view` contains these blocks and everything before them. While any history is missing the answer is no, also
    /// where the missing part belongs to another branch.
    pub fn has_merged(view: &dyn Snapshot, heads: &[Cid]) -> Result<bool, CrdtError> {
        for head in heads {
            let Some(id) = BlockId::of_cid(head) else { return Ok(false) };
            if view.get(Area::Processed, &id.0)?.map(|row| read_mark(&row)) != Some(Mark::Merged) {
                return Ok(false);
            }
        }
        Ok(heads.is_empty() || !Wants::is_history_missing(view)?)
    }

    fn handle(&mut self, event: Event, round: &mut Round) -> Result<(), CrdtError> {
        match event {
            Event::Submit { ticket, writes } => return self.submit(ticket, writes, round),
            Event::Heads { from, heads } => return self.heads_told(from, &heads, round),
            Event::Block { cid, bytes } => return self.block_came(&cid, bytes, round),
            Event::FetchFailed { cid } => {
                let jitter = self.chance();
                if let Some(id) = BlockId::of_cid(&cid) {
                    self.wants.failed(&id, round.now, jitter);
                }
            }
            Event::Pushed { from, bytes } => return self.pushed(from, bytes, round),
            Event::Page { from, bytes } => return self.page_came(from, &bytes, round),
            Event::Stretch { cid, from, blocks } => return self.stretch_came(&cid, from, blocks, round),
            Event::Connected { peer, is_pinfold } => self.connected(peer, is_pinfold, round),
            Event::Disconnected { peer } => {
                self.peers.remove(&peer);
                self.asks.remove(&peer);
                self.mute.remove(&peer);
            }
            Event::AskFailed { peer } => self.ask_failed(peer, round.now),
            Event::Authors(known) => self.authors.learn(known),
            Event::AcceptUnsigned => self.authors.accept_unsigned(),
            Event::Broadcast { is_sent } => self.broadcast_ended(is_sent, round.now),
        }
        Ok(())
    }

    fn submit(&mut self, ticket: u64, writes: Vec<Write>, round: &mut Round) -> Result<(), CrdtError> {
        if writes.iter().any(|write| write.expect.is_some()) {
            round.effects.push(Effect::Refused { ticket, error: SubmitError::NotLinearizable });
            return Ok(());
        }
        let batch = if self.has_others() { None } else { Told::of_batch(&writes) };
        if let Some(told) = batch.filter(|told| !told.touches(&self.journal)) {
            self.make_block(told, round)?;
            round.durability = Durability::Synced;
            round.effects.push(Effect::Accepted { ticket });
            return Ok(());
        }
        for Write { key, value, .. } in writes {
            let is_absent = value.is_none() && round.draft.get(Area::Pins, &key)?.is_none();
            if is_absent {
                continue;
            }
            self.journal.push(&mut round.draft, key.clone(), value.clone());
            show(&mut round.draft, &mut round.changes, key, value)?;
            round.durability = Durability::Synced;
        }
        round.effects.push(Effect::Accepted { ticket });
        Ok(())
    }

    fn heads_told(&mut self, from: PeerId, heads: &[Cid], round: &mut Round) -> Result<(), CrdtError> {
        self.asks.remove(&from);
        for id in heads.iter().filter_map(BlockId::of_cid) {
            if self.heads.contains_key(&id) {
                self.heard.insert(id);
            } else if self.wants.contains(&id) || mark(&round.draft, &id)?.is_none() {
                self.wants.announced(id, Some(from), round.now);
            }
        }
        Ok(())
    }

    fn block_came(&mut self, cid: &Cid, bytes: Bytes, round: &mut Round) -> Result<(), CrdtError> {
        let Some(id) = BlockId::of_cid(cid).filter(|id| self.wants.contains(id)) else { return Ok(()) };
        self.block_size = (self.block_size * 7 + bytes.len()) / 8;
        let block = match Block::parse(&bytes) {
            Ok(block) => block,
            Err(why) => {
                self.wants.settle(&mut round.draft, &id);
                mark_refused(&mut round.draft, &id);
                round.effects.push(Effect::BlockRefused { cid: *cid, why });
                return Ok(());
            }
        };
        if self.wants.len() + block.links.len() > WANTS_MAX {
            self.wants.postpone(&id, Millis(round.now.0 + NO_ROOM.0));
            return Ok(());
        }
        self.paging.merged(bytes.len());
        self.judge(id, bytes, block, round)
    }

    /// A head is told and given at once; what lies below it and is not here is wanted as ever.
    fn pushed(&mut self, from: PeerId, bytes: Bytes, round: &mut Round) -> Result<(), CrdtError> {
        let cid = wire::delta::block_cid(&bytes);
        let Some(id) = BlockId::of_cid(&cid) else { return Ok(()) };
        if mark(&round.draft, &id)?.is_some() {
            return Ok(());
        }
        self.wants.announced(id, Some(from), round.now);
        self.block_came(&cid, bytes, round)
    }

    /// Merges a block, ours or fetched, and moves the heads: a head is a merged block that no merged block links to.
    fn merge(&mut self, id: BlockId, bytes: Bytes, block: Block, round: &mut Round) -> Result<(), CrdtError> {
        let likely = self.wants.likely(&id);
        let is_linked = self.wants.settle(&mut round.draft, &id).unwrap_or(false);
        let priority = block.priority;
        for link in &block.links {
            if self.heads.remove(link).is_some() {
                round.draft.delete(Area::Heads, link.0);
                self.heard.remove(link);
                continue;
            }
            match mark(&round.draft, link)? {
                None => self.wants.linked(&mut round.draft, *link, priority - 1, likely, round.now),
                Some(Mark::LeftOut) => self.authors.linked(&mut round.draft, link)?,
                Some(Mark::Merged | Mark::Refused) => {}
            }
        }
        if !is_linked {
            self.heads.insert(id, priority);
            round.draft.put(Area::Heads, id.0, alive::varint(priority));
        }
        if self.height == 0 {
            round.draft.put(Area::Meta, ROWS, vec![ROWS_NOW]);
        }
        if priority > self.height {
            self.height = priority;
            round.draft.put(Area::Meta, HEIGHT, alive::varint(priority));
        }
        self.set(round).merge(id, bytes, block)
    }

    fn connected(&mut self, peer: PeerId, is_pinfold: bool, round: &mut Round) {
        self.peers.insert(peer, is_pinfold);
        self.wants.retry_all();
        if is_pinfold {
            self.asks.insert(peer, Ask { tries: 0, again: None });
            round.effects.push(Effect::AskHeads(peer));
        }
        if !is_pinfold || self.unheard > 0 {
            let greeting = Millis(round.now.0 + GREETING.0);
            self.speak_at = Some(self.speak_at.map_or(greeting, |at| at.min(greeting)));
        }
    }

    fn ask_failed(&mut self, peer: PeerId, now: Millis) {
        let Some(ask) = self.asks.get_mut(&peer) else { return };
        ask.tries += 1;
        if ask.tries >= ASK_TRIES {
            self.asks.remove(&peer);
        } else {
            ask.again = Some(Millis(now.0 + (ASK_AGAIN.0 << (ask.tries - 1))));
        }
    }

    fn broadcast_ended(&mut self, is_sent: bool, now: Millis) {
        if is_sent {
            self.unheard = 0;
            return;
        }
        self.unheard = self.unheard.saturating_add(1);
        // With nobody connected it waits for somebody who comes.
        if !self.peers.is_empty() {
            self.speak_at = Some(Millis(now.0 + (SPEAK_AGAIN.0 << self.unheard.min(6))));
        }
    }

    /// Makes a block of the pending wishes, if it is time, or if there are so many that they fill one: what is told in the step that noted
    /// it needs no place in the journal.
    fn tell(&mut self, round: &mut Round) -> Result<(), CrdtError> {
        let fills_one = self.journal.fresh() >= tell::FILL && !self.has_others();
        if self.journal.is_empty() || (round.now < self.tell_after && !fills_one) {
            return Ok(());
        }
        let told = Told::take(&mut self.journal, &mut round.draft)?;
        if told.is_empty() { Ok(()) } else { self.make_block(told, round) }
    }

    /// Puts a block on top of the heads, merges it, tells it.
    fn make_block(&mut self, told: Told, round: &mut Round) -> Result<(), CrdtError> {
        let links = self.heads.keys().take(HEADS_TOLD_MAX).copied().collect();
        let (cid, bytes, block) = told.into_block(links, (self.height + 1).min(PRIORITY_MAX), self.options.signer.as_ref());
        let id = BlockId::of_cid(&cid).expect("blocks of the DAG are dag-pb hashed by sha2-256");
        self.merge(id, bytes.clone(), block, round)?;
        let pinfolds = self.peers.iter().filter(|(_, is_pinfold)| **is_pinfold).map(|(peer, _)| *peer);
        let pinfolds: Vec<PeerId> = pinfolds.take(PUSHED_MOST).collect();
        let is_pushed = !pinfolds.is_empty() && bytes.len() <= PUSH_BYTES_MAX;
        if is_pushed {
            round.effects.push(Effect::Push { peers: pinfolds, bytes });
        }
        self.tell_after = Millis(round.now.0 + self.distance(round.now).0);
        if is_pushed && !self.has_others() && !self.is_ending {
            let soon = Millis(round.now.0 + PUSHED_TOLD.0);
            self.speak_at = Some(self.speak_at.map_or(soon, |at| at.min(soon)));
            self.speaks_again = true;
            return Ok(());
        }
        round.effects.push(Effect::Broadcast(vec![cid]));
        if !self.peers.is_empty() {
            self.speak_at = Some(Millis(round.now.0 + SETTLED.0));
        }
        Ok(())
    }

    /// Whether a Go peer is connected, which follows few blocks a second: everything is gathered for it.
    fn has_others(&self) -> bool {
        self.peers.values().any(|is_pinfold| !is_pinfold)
    }

    /// Tells heads: all of them when there was a reason, else now and then those that nobody told.
    fn speak(&mut self, round: &mut Round) {
        let mut told = Vec::new();
        if self.speak_at.is_some_and(|at| at <= round.now) {
            self.speak_at = std::mem::take(&mut self.speaks_again).then_some(Millis(round.now.0 + SETTLED.0));
            told = self.heads();
        }
        if self.rebroadcast_at <= round.now {
            self.rebroadcast_at = self.next_rebroadcast(round.now);
            let heard = std::mem::take(&mut self.heard);
            if told.is_empty() {
                told = self.heads.keys().filter(|head| !heard.contains(head)).take(HEADS_TOLD_MAX).map(BlockId::cid).collect();
            }
        }
        if !told.is_empty() {
            round.effects.push(Effect::Broadcast(told));
        }
    }

    fn ask_again(&mut self, round: &mut Round) {
        for (peer, ask) in &mut self.asks {
            if ask.again.is_some_and(|at| at <= round.now) {
                ask.again = None;
                round.effects.push(Effect::AskHeads(*peer));
            }
        }
    }

    fn look(&mut self, round: &mut Round) {
        let state = self.completeness(round.now);
        if state != self.state {
            self.state = state;
            round.effects.push(Effect::State(state));
        }
    }

    fn completeness(&self, now: Millis) -> ViewState {
        let is_empty = self.height == 0 && self.journal.is_empty();
        match self.wants.is_empty() {
            true if is_empty && !self.options.alone => ViewState::Unknown,
            _ if self.authors.awaited_until().is_some_and(|end| now < end) => ViewState::CatchingUp,
            true => ViewState::Current,
            false if self.state == ViewState::Current && self.lag_ends().is_some_and(|end| now < end) => ViewState::Current,
            false => ViewState::CatchingUp,
        }
    }

    /// Until when what is missing passes as ordinary news; none when it is too much.
    fn lag_ends(&self) -> Option<Millis> {
        if self.wants.len() > LAG_BLOCKS {
            return None;
        }
        self.wants.oldest(LAG_BLOCKS).map(|oldest| Millis(oldest.0 + LAG_SPAN.0))
    }

    fn end(&mut self, mut round: Round) -> Step {
        self.paging.save(&mut round);
        if round.draft.more_pins != 0 {
            self.pins = self.pins.saturating_add_signed(round.draft.more_pins);
            round.draft.put(Area::Meta, PINS, alive::varint(self.pins));
        }
        self.values.settle();
        let Round { draft, changes, mut effects, durability, now } = round;
        if !changes.is_empty() {
            effects.insert(0, Effect::Changed(changes));
        }
        Step { batch: draft.into_batch(), durability, effects, next_wake: self.next_wake(now) }
    }

    fn next_wake(&self, now: Millis) -> Option<Millis> {
        let journal = (!self.journal.is_empty()).then_some(self.tell_after);
        let rebroadcast = (!self.heads.is_empty()).then_some(self.rebroadcast_at);
        let lag = (self.state == ViewState::Current).then(|| self.lag_ends()).flatten();
        let asks = self.asks.values().filter_map(|ask| ask.again).min();
        // Once over, this wait changes nothing any more, whatever else keeps the view from being current.
        let left_out = if self.authors.is_due() { Some(Millis(0)) } else { self.authors.awaited_until().filter(|until| *until > now) };
        let sweep = (self.paging.is_sweeping() && self.is_history_read(now)).then_some(Millis(0));
        let paging = self.paging.next_wake();
        [sweep, paging, journal, rebroadcast, self.speak_at, self.wants.next_wake(), lag, asks, left_out].into_iter().flatten().min()
    }

    fn next_rebroadcast(&mut self, now: Millis) -> Millis {
        let part = 0.7 + 0.6 * self.chance();
        Millis(now.0 + (self.options.rebroadcast.0 as f64 * part) as u64)
    }

    /// From 0 to 1 (xorshift64*: enough to keep peers out of step).
    fn chance(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn number(mut row: &[u8]) -> Option<u64> {
    alive::take_varint(&mut row)
}
