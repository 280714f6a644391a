//! The handle: what doors, the network and people call; the work is the driver's.

use super::author::{AuthorNumbers, AuthorRules};
use super::driver::{Doors, Driver, Inputs, Seen};
use super::event::{Event, MachineOptions, Signer};
use super::machine::{Machine, PUSH_BYTES_MAX};
use super::{CrdtError, CrdtNetwork, ancestors};
use crate::contract::claim;
use crate::hints::HintSender;
use crate::{Consensus, Hints, Kind, OpenError, Receipt, SubmitError, TakenOver, ViewState, Write};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::{Area, Snapshot, Store};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use types::{Cid, Millis, PeerId};
use wire::heads::{decode_heads, encode_heads};

/// How the CRDT behaves.
#[derive(Clone)]
pub struct CrdtOptions {
    /// This peer.
    pub me: PeerId,
    /// Distance of own blocks while writing goes on.
    pub spacing: Duration,
    /// The same while a peer that is no Pinfold is connected; shared by all who write.
    pub spacing_with_others: Duration,
    /// How often heads are told that nobody else told, give or take 30 %.
    pub rebroadcast: Duration,
    /// No other members are configured.
    pub alone: bool,
    /// A peer whose set was empty asks for pages of it once it has merged so many bytes of history and there is more.
    pub pages_after: usize,
    /// Signs own blocks.
    pub signer: Option<Signer>,
    /// What is asked of the authors of others' blocks; none: nothing.
    pub authors: Option<AuthorRules>,
}

impl CrdtOptions {
    /// What a cluster of Pinfold peers uses.
    pub fn new(me: PeerId) -> CrdtOptions {
        CrdtOptions {
            me,
            spacing: Duration::from_millis(10),
            spacing_with_others: Duration::from_millis(200),
            rebroadcast: Duration::from_secs(60),
            alone: false,
            pages_after: 1 << 20,
            signer: None,
            authors: None,
        }
    }

    /// Peers that start together must not act in step: the seed comes from their name.
    fn machine(&self) -> MachineOptions {
        let millis = |span: Duration| Millis(span.as_millis() as u64);
        let name =
            self.me.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        MachineOptions {
            spacing: millis(self.spacing),
            spacing_with_others: millis(self.spacing_with_others),
            rebroadcast: millis(self.rebroadcast),
            alone: self.alone,
            seed: name,
            pages_after: self.pages_after,
            signer: self.signer.clone(),
            authors: self.authors.clone(),
        }
    }
}

/// The convergent consensus.
pub struct Crdt {
    store: Arc<dyn Store>,
    doors: Doors,
    hints: HintSender,
    seen: Arc<Mutex<Seen>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Numbers for people and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrdtNumbers {
    /// Heads.
    pub heads: usize,
    /// Height of the highest block merged.
    pub height: u64,
    /// Blocks of the known history that are not here.
    pub missing: usize,
    /// Keys whose wish is acknowledged and not yet in a block.
    pub pending: usize,
}

impl Crdt {
    /// Goes on with what the store holds. Needs a tokio runtime.
    pub async fn open(store: Arc<dyn Store>, network: Arc<dyn CrdtNetwork>, options: CrdtOptions) -> Result<Crdt, OpenError> {
        let began = Instant::now();
        let read = {
            let (store, options) = (store.clone(), options.machine());
            move || {
                claim(&*store, "crdt")?;
                Machine::open(options, Millis(0), store.snapshot()).map_err(OpenError::from)
            }
        };
        let machine = tokio::task::spawn_blocking(read).await.map_err(|error| OpenError::Damaged(error.to_string()))??;
        let hints = HintSender::new();
        let seen = Arc::new(Mutex::new(Seen::of(&machine)));
        let (doors, inputs) = Inputs::new();
        let driver = Driver::new(store.clone(), network, options.machine(), hints.clone(), seen.clone(), began);
        let task = Mutex::new(Some(tokio::spawn(driver.run(machine, inputs))));
        Ok(Crdt { store, doors, hints, seen, task })
    }

    /// A broadcast or a pushed message with heads; its signer is trusted. Returns why it is no such message.
    pub fn heads_received(&self, from: PeerId, message: Vec<u8>) -> Result<(), wire::heads::HeadsDecodeError> {
        let heads = decode_heads(&message)?;
        if self.doors.announcements.try_send(Event::Heads { from, heads }).is_err() {
            tracing::debug!(%from, "too many announcements at once, one dropped");
        }
        Ok(())
    }

    /// A trusted Pinfold peer handed a block of its own over. Too many at once are dropped: they are told again as heads.
    pub fn block_pushed(&self, from: PeerId, bytes: Bytes) {
        if bytes.len() > PUSH_BYTES_MAX || self.doors.pushes.try_send(Event::Pushed { from, bytes }).is_err() {
            tracing::debug!(%from, "a block that was handed over is dropped");
        }
    }

    /// A trusted peer is connected; a Pinfold is asked for its heads.
    pub fn peer_connected(&self, peer: PeerId, is_pinfold: bool) {
        self.link(Event::Connected { peer, is_pinfold });
    }

    /// Its link is gone.
    pub fn peer_disconnected(&self, peer: PeerId) {
        self.link(Event::Disconnected { peer });
    }

    /// The answer to another Pinfold peer that asks for our heads.
    pub fn heads_message(&self) -> Vec<u8> {
        encode_heads(&self.seen.lock().heads)
    }

    /// The answer to another Pinfold peer that asks for a stretch of history; empty when there is none to give. Blocks its thread
    /// for up to some hundred reads of the store.
    pub fn stretch(&self, question: &[u8]) -> Vec<u8> {
        ancestors::answer(&*self.store.snapshot(), question)
            .inspect_err(|error| tracing::warn!(%error, "reading a stretch of history"))
            .unwrap_or_default()
    }

    /// The answer to another Pinfold peer that asks for a page of the set, behind a key; empty when there is none to give. Blocks its thread for up
    /// to some ten thousand reads of the store.
    pub fn page(&self, after: &[u8]) -> Vec<u8> {
        super::page(self.store.snapshot(), after)
            .inspect_err(|error| tracing::warn!(%error, "reading a page of the set"))
            .unwrap_or_default()
    }

    /// A block of the DAG, to serve by bitswap. Blocks its thread for a read of the store.
    pub fn block(&self, cid: &Cid) -> Option<Bytes> {
        let id = super::BlockId::of_cid(cid)?;
        self.store.get(Area::DagBlocks, &id.0).inspect_err(|error| tracing::warn!(%cid, %error, "reading a CRDT block")).ok()?
    }

    /// Numbers for people and metrics.
    pub fn numbers(&self) -> CrdtNumbers {
        let Seen { ref heads, missing, pending, height, .. } = *self.seen.lock();
        CrdtNumbers { heads: heads.len(), height, missing, pending }
    }

    /// For what nobody says again: it waits for a place. Needs a tokio runtime.
    fn must_link(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.doors.links.try_send(event) {
            let links = self.doors.links.clone();
            tokio::spawn(async move { links.send(event).await.ok() });
        }
    }

    fn link(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.doors.links.try_send(event) {
            tracing::warn!(?event, "too many peers come and go at once, one is not noted");
        }
    }
}

#[async_trait]
impl Consensus for Crdt {
    async fn submit(&self, writes: Vec<Write>) -> Result<Receipt, SubmitError> {
        self.doors.queue.submit(writes).await
    }

    fn hints(&self) -> Hints {
        self.hints.receiver()
    }

    fn hinted(&self) -> u64 {
        self.hints.announced()
    }

    fn view(&self) -> Arc<dyn Snapshot> {
        super::shown(self.store.snapshot())
    }

    fn taken_over(&self) -> TakenOver {
        let seen = self.seen.lock();
        TakenOver { unsure: seen.unsure.unwrap_or(0), mended: seen.mended }
    }

    fn counted(&self) -> Option<u64> {
        Some(self.seen.lock().pins)
    }

    fn state(&self) -> ViewState {
        self.seen.lock().state
    }

    fn heads(&self) -> Vec<Cid> {
        self.seen.lock().heads.clone()
    }

    async fn told_heads(&self, limit: Duration) -> Option<Vec<Cid>> {
        const STEP: Duration = Duration::from_millis(10);
        let written = self.seen.lock().marks.0;
        let end = Instant::now() + limit;
        loop {
            {
                let seen = self.seen.lock();
                if seen.marks.1 >= written {
                    return Some(seen.heads.clone());
                }
            }
            if Instant::now() >= end {
                return None;
            }
            tokio::time::sleep(STEP).await;
        }
    }

    fn has_merged(&self, heads: &[Cid]) -> bool {
        Machine::has_merged(&*self.store.snapshot(), heads).unwrap_or_else(|error| {
            tracing::warn!(%error, "reading which blocks are merged");
            false
        })
    }

    fn kind(&self) -> Kind {
        Kind::Convergent
    }

    fn authors_known(&self, known: BTreeSet<PeerId>) {
        self.must_link(Event::Authors(known));
    }

    fn accept_unsigned(&self) {
        self.must_link(Event::AcceptUnsigned);
    }

    fn authors(&self) -> AuthorNumbers {
        self.seen.lock().authors.clone()
    }

    async fn stop(&self) {
        let _ = self.doors.stopping.send(true);
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

impl From<CrdtError> for OpenError {
    fn from(error: CrdtError) -> OpenError {
        match error {
            CrdtError::Store(error) => OpenError::Store(error),
            CrdtError::Damaged(what) => OpenError::Damaged(what),
            CrdtError::Layout(layout) => OpenError::Layout(layout),
        }
    }
}

impl From<CrdtError> for SubmitError {
    fn from(error: CrdtError) -> SubmitError {
        match error {
            CrdtError::Store(error) => SubmitError::Store(error),
            CrdtError::Damaged(what) => SubmitError::Damaged(what),
            CrdtError::Layout(layout) => SubmitError::Damaged(layout.to_string()),
        }
    }
}
