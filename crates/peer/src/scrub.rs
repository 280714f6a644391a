//! Looking after the own store: blocks read again at a gentle rate, then the DAGs of pins walked; what is damaged is fetched again.
//!
//! ```text
//!   idle ─ due, asked for, blocks lost while opening ─► blocks ─► pins ─► idle
//! ```
//! A damaged block is out of service at once (the node did that) and is fetched from other nodes. Where nobody has it, the pins are walked
//! next: the machine hears which of them are not whole ([`Event::Lost`]) and pins them again from their other holders. The place reached is
//! kept in the store, so a restart goes on there.

use crate::core::Core;
use bytes::Bytes;
use cluster::Event;
use ipfs::{BrokenPin, Source};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Area, Batch, Durability};
use tokio::sync::Notify;
use types::{ByteCount, Cid, Millis, UnixMillis};

const KEY: &[u8] = b"scrub";
const VERSION: u8 = 1;
/// Between two steps: short enough that a step does not disturb, long enough that looking costs nothing.
const STEP: Duration = Duration::from_millis(250);
/// The place reached is kept after so long at the latest.
const KEPT_EACH: Duration = Duration::from_secs(5);
/// A step that failed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(30);
/// The machine is told again of pins that are not whole, in case it did not take the first word.
const TOLD_EACH: Duration = Duration::from_secs(60);
/// Pins that are not whole, told and shown at most.
const BROKEN_MOST: usize = 1000;
/// Blocks fetched again one by one; beyond, pinning their pins again is quicker.
const RESTORED_MOST: usize = 256;
/// Fetched at once.
const RESTORED_AT_ONCE: usize = 8;
/// Nodes asked for a block.
const ASKED: usize = 32;
/// A block that does not come within this is left to the pins.
const RESTORE: Duration = Duration::from_secs(20);

/// How gently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes read in a second.
    pub rate: ByteCount,
    /// From the end of one round to the beginning of the next; none: only when asked for.
    pub every: Option<Millis>,
}

impl Default for ScrubOptions {
    fn default() -> ScrubOptions {
        ScrubOptions { rate: ByteCount(10_000_000), every: Some(Millis::seconds(14 * 24 * 3600)) }
    }
}

/// What is being looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScrubPhase {
    /// Nothing.
    #[default]
    Idle,
    /// The bytes of blocks.
    Blocks,
    /// Whether pins are whole.
    Pins,
}

/// How far it is; of the last round when idle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// What is being looked at.
    pub phase: ScrubPhase,
    /// When the round began.
    pub begun: Option<UnixMillis>,
    /// When it ended.
    pub ended: Option<UnixMillis>,
    /// Blocks read in it.
    pub blocks: u64,
    /// Blocks in the store.
    pub blocks_all: u64,
    /// Bytes read.
    pub bytes: ByteCount,
    /// Pins walked.
    pub pins: u64,
    /// Damaged blocks found.
    pub damaged: u64,
    /// Of these, fetched again one by one.
    pub restored: u64,
    /// What is kept and not whole now.
    pub broken: Vec<BrokenPin>,
    /// Bytes read in a second at most.
    pub rate: ByteCount,
    /// When the next round begins by itself.
    pub next: Option<UnixMillis>,
}

/// What a door may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubAsk {
    /// How far it is.
    Show,
    /// Begin a round now (one under way goes on), at another rate if one is named.
    Start {
        /// Bytes in a second.
        rate: Option<ByteCount>,
    },
    /// End the round that is under way.
    Stop,
}

/// The place reached and what was found, as kept in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    phase: ScrubPhase,
    cursor: Vec<u8>,
    begun: u64,
    ended: u64,
    blocks: u64,
    bytes: u64,
    pins: u64,
    damaged: u64,
    restored: u64,
}

/// Looks after one node.
pub(crate) struct Scrub {
    core: Arc<Core>,
    state: Mutex<State>,
    options: Mutex<ScrubOptions>,
    asked: Notify,
}

impl Scrub {
    /// Goes on where the last start ended; blocks that were found lost while opening make the pins be walked.
    pub(crate) fn new(core: Arc<Core>, options: ScrubOptions) -> Arc<Scrub> {
        let kept = core.store.get(Area::Meta, KEY).ok().flatten();
        let mut state = kept.and_then(|kept| State::decode(&kept)).unwrap_or_default();
        if core.node.has_lost_blocks() {
            if state.phase == ScrubPhase::Idle {
                state = State { begun: core.now().wall.0, ended: state.ended, ..State::default() };
            }
            (state.phase, state.cursor) = (ScrubPhase::Pins, Vec::new());
        }
        let scrub = Scrub { core, state: Mutex::new(state), options: Mutex::new(options), asked: Notify::new() };
        scrub.keep();
        Arc::new(scrub)
    }

    /// Answers a door.
    pub(crate) async fn ask(&self, ask: ScrubAsk) -> ScrubReport {
        match ask {
            ScrubAsk::Show => {}
            ScrubAsk::Start { rate } => {
                if let Some(rate) = rate {
                    self.options.lock().rate = rate;
                }
                self.begin();
            }
            ScrubAsk::Stop => {
                self.state.lock().phase = ScrubPhase::Idle;
                self.keep();
            }
        }
        self.report().await
    }

    fn begin(&self) {
        {
            let mut state = self.state.lock();
            if state.phase == ScrubPhase::Idle {
                *state = State { phase: ScrubPhase::Blocks, begun: self.core.now().wall.0, ended: state.ended, ..State::default() };
            }
        }
        self.keep();
        self.asked.notify_one();
    }

    async fn report(&self) -> ScrubReport {
        let broken = self.core.node.broken(BROKEN_MOST).await.unwrap_or_default();
        let blocks_all = self.core.node.space().await.map_or(0, |space| space.blocks);
        let (state, options) = (self.state.lock().clone(), *self.options.lock());
        let time = |at: u64| (at != 0).then_some(UnixMillis(at));
        ScrubReport {
            phase: state.phase,
            begun: time(state.begun),
            ended: time(state.ended).filter(|_| state.phase == ScrubPhase::Idle),
            blocks: state.blocks,
            blocks_all,
            bytes: ByteCount(state.bytes),
            pins: state.pins,
            damaged: state.damaged,
            restored: state.restored,
            broken,
            rate: options.rate,
            next: options.every.filter(|_| state.phase == ScrubPhase::Idle).map(|every| UnixMillis(self.last(&state) + every.0)),
        }
    }

    /// From when the next round is counted: the end of the last, or the first start of this peer.
    fn last(&self, state: &State) -> u64 {
        state.ended.max(state.begun)
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(self: Arc<Scrub>) {
        if self.state.lock().begun == 0 {
            // Nothing to look at yet: the first round is due when the time for one has passed.
            self.state.lock().begun = self.core.now().wall.0;
            self.keep();
        }
        let (mut told, mut kept) = (None::<Instant>, Instant::now());
        loop {
            if told.is_none_or(|told| told.elapsed() >= TOLD_EACH) {
                told = Some(Instant::now());
                self.tell_broken().await;
            }
            let begun = Instant::now();
            let phase = self.state.lock().phase;
            let step = match phase {
                ScrubPhase::Idle => {
                    self.wait_for_work().await;
                    continue;
                }
                ScrubPhase::Blocks => self.step_blocks().await,
                ScrubPhase::Pins => self.step_pins().await,
            };
            let pause = match step {
                Ok(bytes) => {
                    let rate = self.options.lock().rate.get().max(1);
                    Duration::from_secs_f64((bytes as f64 / rate as f64).min(3600.0)).saturating_sub(begun.elapsed())
                }
                Err(error) => {
                    tracing::warn!(error, "looking after the stored blocks; tried again");
                    AGAIN
                }
            };
            if kept.elapsed() >= KEPT_EACH {
                kept = Instant::now();
                self.keep();
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn wait_for_work(&self) {
        let every = self.options.lock().every;
        let last = self.last(&self.state.lock().clone());
        let now = self.core.now().wall.0;
        if every.is_some_and(|every| last + every.0 <= now) {
            self.begin();
            return;
        }
        // Something may be broken by another way than a round: the machine is told now and then.
        let wait = every.map_or(TOLD_EACH, |every| Duration::from_millis((last + every.0).saturating_sub(now)).min(TOLD_EACH));
        tokio::select! {
            () = self.asked.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }

    /// Bytes of one step.
    fn budget(&self) -> ByteCount {
        let rate = self.options.lock().rate.get();
        ByteCount((rate as f64 * STEP.as_secs_f64()) as u64).max(ByteCount(64 << 10))
    }

    async fn step_blocks(&self) -> Result<u64, String> {
        let cursor = self.state.lock().cursor.clone();
        let after = (!cursor.is_empty()).then(|| Bytes::from(cursor));
        let checked = self.core.node.check_blocks(after, self.budget()).await.map_err(|error| error.to_string())?;
        let restored = self.restore(&checked.damaged).await;
        let is_left = restored < checked.damaged.len() as u64;
        {
            let mut state = self.state.lock();
            state.blocks += checked.blocks;
            state.bytes += checked.bytes.get();
            state.damaged += checked.damaged.len() as u64;
            state.restored += restored;
            if state.phase == ScrubPhase::Blocks {
                match checked.next {
                    Some(next) => state.cursor = next.to_vec(),
                    None => (state.phase, state.cursor) = (ScrubPhase::Pins, Vec::new()),
                }
            }
        }
        if !checked.damaged.is_empty() {
            self.keep();
        }
        if is_left {
            self.walk_all_pins().await?;
        }
        Ok(checked.bytes.get())
    }

    /// Fetches damaged blocks again; how many came.
    async fn restore(&self, damaged: &[Cid]) -> u64 {
        use futures::StreamExt;
        if damaged.is_empty() || damaged.len() > RESTORED_MOST {
            return 0;
        }
        let source = Source { holders: self.nodes(), ..Source::default() };
        let fetches = futures::stream::iter(damaged.to_vec()).map(|cid| {
            let (source, node) = (source.clone(), self.core.node.clone());
            async move {
                let outcome = tokio::time::timeout(RESTORE, node.restore(&cid, &source)).await;
                let is_restored = matches!(outcome, Ok(Ok(())));
                tracing::info!(%cid, is_restored, "a damaged block was asked for");
                is_restored
            }
        });
        fetches.buffer_unordered(RESTORED_AT_ONCE).filter(|is_restored| std::future::ready(*is_restored)).count().await as u64
    }

    /// The nodes of all members.
    fn nodes(&self) -> Vec<types::PeerId> {
        let own = self.core.node.id();
        let nodes = self.core.trust.members().into_iter().flat_map(|member| self.core.trust.nodes_of(&member));
        nodes.filter(|node| Some(*node) != own).take(ASKED).collect()
    }

    /// Blocks are lost: which pins they belong to is found at once and not at the end of the round.
    async fn walk_all_pins(&self) -> Result<(), String> {
        let mut after = None;
        loop {
            let checked = self.core.node.check_pins(after, self.budget()).await.map_err(|error| error.to_string())?;
            self.tell(&checked.broken);
            after = checked.next;
            if after.is_none() {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    async fn step_pins(&self) -> Result<u64, String> {
        let cursor = self.state.lock().cursor.clone();
        let after = if cursor.is_empty() { None } else { Cid::try_from(&cursor[..]).ok() };
        let checked = self.core.node.check_pins(after, self.budget()).await.map_err(|error| error.to_string())?;
        self.tell(&checked.broken);
        let is_end = checked.next.is_none();
        {
            let mut state = self.state.lock();
            state.pins += checked.pins;
            if state.phase == ScrubPhase::Pins {
                match checked.next {
                    Some(next) => state.cursor = next.to_bytes(),
                    None => {
                        (state.phase, state.cursor) = (ScrubPhase::Idle, Vec::new());
                        state.ended = self.core.now().wall.0;
                    }
                }
            }
        }
        if is_end {
            self.keep();
            let state = self.state.lock().clone();
            tracing::info!(
                blocks = state.blocks,
                damaged = state.damaged,
                restored = state.restored,
                pins = state.pins,
                "stored blocks looked after"
            );
        }
        Ok(checked.bytes.get())
    }

    fn tell(&self, broken: &[BrokenPin]) {
        for pin in broken {
            self.core.feed(Event::Lost(pin.cid));
        }
    }

    async fn tell_broken(&self) {
        match self.core.node.broken(BROKEN_MOST).await {
            Ok(broken) => self.tell(&broken),
            Err(error) => tracing::warn!(%error, "reading which pins are not whole"),
        }
    }

    fn keep(&self) {
        let mut batch = Batch::new();
        batch.put(Area::Meta, KEY, self.state.lock().encode());
        // Lost with the power, a few seconds of looking are done again.
        if let Err(error) = self.core.store.commit(batch, Durability::Buffered) {
            tracing::warn!(%error, "keeping how far the stored blocks were looked after");
        }
    }
}

impl State {
    fn encode(&self) -> Vec<u8> {
        let phase = match self.phase {
            ScrubPhase::Idle => 0,
            ScrubPhase::Blocks => 1,
            ScrubPhase::Pins => 2,
        };
        let mut bytes = vec![VERSION, phase];
        for number in [self.begun, self.ended, self.blocks, self.bytes, self.pins, self.damaged, self.restored] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.cursor);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<State> {
        const NUMBERS: usize = 7;
        let [VERSION, phase, rest @ ..] = bytes else { return None };
        let phase = match phase {
            0 => ScrubPhase::Idle,
            1 => ScrubPhase::Blocks,
            2 => ScrubPhase::Pins,
            _ => return None,
        };
        let (numbers, cursor) = rest.split_at_checked(NUMBERS * 8)?;
        let number = |at: usize| numbers[at * 8..at * 8 + 8].try_into().map_or(0, u64::from_be_bytes);
        Some(State {
            phase,
            cursor: cursor.to_vec(),
            begun: number(0),
            ended: number(1),
            blocks: number(2),
            bytes: number(3),
            pins: number(4),
            damaged: number(5),
            restored: number(6),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_reached_reads_back() {
        let state = State {
            phase: ScrubPhase::Pins,
            cursor: vec![1, 2, 3],
            begun: 1,
            ended: 2,
            blocks: 3,
            bytes: 4,
            pins: 5,
            damaged: 6,
            restored: u64::MAX,
        };
        assert_eq!(State::decode(&state.encode()), Some(state.clone()));
        assert_eq!(State::decode(&state.encode()[..20]), None);
        assert_eq!(State::decode(&[2, 0]), None, "a later version");
        assert_eq!(State::decode(&[]), None);
    }
}
