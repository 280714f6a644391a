//! Does: one task gathers events, lets the machine step on a blocking thread, commits, then performs the effects.
//!
//! Everything that waits while a step is under way goes into the next one, so concurrent submits share an fsync and many fetched
//! blocks share a commit. Fetches, questions and broadcasts are tasks of their own, owned and awaited by the loop.

use super::author::{AuthorNumbers, Signatures};
use super::event::{Effect, Event, MachineOptions};
use super::machine::Machine;
use super::{BlockId, CrdtError, CrdtNetwork, ancestors, snapshot};
use crate::hints::HintSender;
use crate::queue::{Submit, SubmitQueue, stopped};
use crate::{Receipt, SubmitError, Version, ViewState};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use store::{Area, Durability, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use types::{Cid, Millis, PeerId};
use wire::heads::{decode_heads, encode_heads};

/// Events in one step, and bytes of blocks among them: bounds the memory and the length of a step.
const EVENTS_MAX: usize = 1024;
const EVENT_BYTES_MAX: usize = 8 << 20;

/// Announcements that may wait; more are dropped, since heads are told again.
const ANNOUNCEMENTS_MAX: usize = 256;

/// Blocks handed over that may wait, each of at most 128 KiB; more are dropped and fetched later.
const PUSHES_MAX: usize = 64;

/// Comings and goings of peers that may wait.
const LINKS_MAX: usize = 4096;

/// A fetch, a question, a broadcast must end within these.
const FETCH_TIME: Duration = Duration::from_secs(120);
const STRETCH_TIME: Duration = Duration::from_secs(30);
const ASK_TIME: Duration = Duration::from_secs(15);
const BROADCAST_TIME: Duration = Duration::from_secs(15);

/// Pause after a failed commit, doubling.
const FAILED_PAUSE: Duration = Duration::from_millis(100);
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long `stop` waits for the last broadcasts.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Where events go in.
pub(super) struct Doors {
    pub(super) queue: SubmitQueue,
    pub(super) announcements: mpsc::Sender<Event>,
    pub(super) pushes: mpsc::Sender<Event>,
    pub(super) links: mpsc::Sender<Event>,
    pub(super) stopping: watch::Sender<bool>,
}

/// Where they come out.
pub(super) struct Inputs {
    submits: mpsc::Receiver<Submit>,
    announced: mpsc::Receiver<Event>,
    pushed: mpsc::Receiver<Event>,
    linked: mpsc::Receiver<Event>,
    stop: watch::Receiver<bool>,
}

impl Inputs {
    pub(super) fn new() -> (Doors, Inputs) {
        let (queue, submits) = SubmitQueue::new();
        let (announcements, announced) = mpsc::channel(ANNOUNCEMENTS_MAX);
        let (pushes, pushed) = mpsc::channel(PUSHES_MAX);
        let (links, linked) = mpsc::channel(LINKS_MAX);
        let (stopping, stop) = watch::channel(false);
        (Doors { queue, announcements, pushes, links, stopping }, Inputs { submits, announced, pushed, linked, stop })
    }
}

/// What others may see of the machine, as of the last commit.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) state: ViewState,
    pub(super) heads: Vec<Cid>,
    pub(super) missing: usize,
    pub(super) pending: usize,
    pub(super) height: u64,
    pub(super) authors: AuthorNumbers,
    /// Up to where wishes were acknowledged, and up to where `heads` have them.
    pub(super) marks: (u64, u64),
    pub(super) pins: u64,
    pub(super) unsure: Option<u64>,
    pub(super) mended: u64,
}

impl Seen {
    pub(super) fn of(machine: &Machine) -> Seen {
        Seen {
            state: machine.state(),
            heads: machine.heads(),
            missing: machine.missing(),
            pending: machine.pending(),
            height: machine.height(),
            authors: machine.authors().clone(),
            marks: machine.marks(),
            pins: machine.pins(),
            unsure: machine.unsure(),
            mended: machine.mended(),
        }
    }
}

/// A page that was not yet asked for by the machine, and will be.
struct PageAhead {
    peer: PeerId,
    after: Vec<u8>,
    asking: AbortOnDropHandle<Option<Bytes>>,
}

/// The loop's own things.
pub(super) struct Driver {
    options: MachineOptions,
    store: Arc<dyn Store>,
    network: Arc<dyn CrdtNetwork>,
    hints: HintSender,
    seen: Arc<Mutex<Seen>>,
    began: Instant,
    wake: Option<Instant>,
    /// Steps in a row that failed.
    failures: u32,
    /// Who is connected, for a machine that is read again.
    peers: BTreeMap<PeerId, bool>,
    tickets: BTreeMap<u64, oneshot::Sender<Result<Receipt, SubmitError>>>,
    ticket: u64,
    tasks: JoinSet<Event>,
    page_ahead: Option<PageAhead>,
    /// What to report when a task ends without saying anything.
    underway: HashMap<tokio::task::Id, Event>,
}

impl Driver {
    pub(super) fn new(
        store: Arc<dyn Store>,
        network: Arc<dyn CrdtNetwork>,
        options: MachineOptions,
        hints: HintSender,
        seen: Arc<Mutex<Seen>>,
        began: Instant,
    ) -> Driver {
        Driver {
            options,
            store,
            network,
            hints,
            seen,
            began,
            // The first step at once: pending wishes and missing history do not wait for an event.
            wake: Some(began),
            failures: 0,
            peers: BTreeMap::new(),
            tickets: BTreeMap::new(),
            ticket: 0,
            tasks: JoinSet::new(),
            page_ahead: None,
            underway: HashMap::new(),
        }
    }

    /// Runs until asked to stop or until the handle is dropped.
    pub(super) async fn run(mut self, mut machine: Machine, mut inputs: Inputs) {
        loop {
            let Some(events) = self.gather(&mut inputs).await else { break };
            machine = match self.step(machine, events).await {
                Ok(machine) => machine,
                Err(error) => match self.recover(error, &mut inputs).await {
                    Some(machine) => machine,
                    None => return,
                },
            };
        }
        self.finish(machine, inputs).await;
    }

    /// Waits for something to happen, then takes everything that has. None when asked to stop.
    async fn gather(&mut self, inputs: &mut Inputs) -> Option<Vec<Event>> {
        let mut events = Vec::new();
        let mut group = Vec::new();
        let wake = self.wake;
        tokio::select! {
            biased;
            () = stopped(&mut inputs.stop) => return None,
            _ = inputs.submits.recv_many(&mut group, EVENTS_MAX) => {}
            Some(event) = inputs.linked.recv() => self.note_link(event, &mut events),
            Some(event) = inputs.pushed.recv() => events.push(event),
            Some(event) = inputs.announced.recv() => events.push(event),
            Some(ended) = self.tasks.join_next_with_id() => self.note_end(ended, &mut events),
            () = sleep_until(wake) => {}
        }
        self.gather_rest(inputs, group, &mut events);
        Some(events)
    }

    /// Takes what is there without waiting: own submits first, then what others sent.
    fn gather_rest(&mut self, inputs: &mut Inputs, mut group: Vec<Submit>, events: &mut Vec<Event>) {
        while group.len() < EVENTS_MAX
            && let Ok(submit) = inputs.submits.try_recv()
        {
            group.push(submit);
        }
        for Submit { writes, answer } in group {
            self.ticket += 1;
            self.tickets.insert(self.ticket, answer);
            events.push(Event::Submit { ticket: self.ticket, writes });
        }
        while let Ok(event) = inputs.linked.try_recv() {
            self.note_link(event, events);
        }
        // Before the announcements, which speak of them.
        while let Ok(event) = inputs.pushed.try_recv() {
            events.push(event);
        }
        while let Ok(event) = inputs.announced.try_recv() {
            events.push(event);
        }
        let mut bytes = 0;
        for _ in 0..EVENTS_MAX {
            let Some(ended) = self.tasks.try_join_next_with_id() else { break };
            self.note_end(ended, events);
            bytes += match events.last() {
                Some(Event::Block { bytes, .. } | Event::Page { bytes, .. }) => bytes.len(),
                Some(Event::Stretch { blocks, .. }) => blocks.iter().map(Bytes::len).sum(),
                _ => 0,
            };
            if bytes > EVENT_BYTES_MAX {
                break;
            }
        }
    }

    fn note_link(&mut self, event: Event, events: &mut Vec<Event>) {
        match &event {
            Event::Connected { peer, is_pinfold } => {
                self.peers.insert(*peer, *is_pinfold);
            }
            Event::Disconnected { peer } => {
                self.peers.remove(peer);
            }
            // For a machine that is read again.
            Event::Authors(known) => self.options.authors.iter_mut().for_each(|rules| rules.known.extend(known)),
            Event::AcceptUnsigned => self.options.authors.iter_mut().for_each(|rules| rules.required = false),
            _ => {}
        }
        events.push(event);
    }

    fn note_end(&mut self, ended: Result<(tokio::task::Id, Event), tokio::task::JoinError>, events: &mut Vec<Event>) {
        let (id, event) = match ended {
            Ok((id, event)) => (id, Some(event)),
            Err(error) => {
                tracing::error!(%error, "a task of the CRDT's network failed");
                (error.id(), None)
            }
        };
        let silent = self.underway.remove(&id);
        let event = event.or(silent);
        if let Some(Event::Page { from, bytes }) = &event {
            self.page_ahead(*from, bytes);
        }
        events.extend(event);
    }

    /// Decides, commits, performs.
    async fn step(&mut self, mut machine: Machine, events: Vec<Event>) -> Result<Machine, CrdtError> {
        let now = self.now();
        let (store, hints) = (self.store.clone(), self.hints.clone());
        let decide_and_commit = move || -> Result<_, CrdtError> {
            let step = machine.step(events, now, store.snapshot())?;
            // Where the commit fails, `recover` says that hints were lost.
            if step.effects.iter().any(|effect| matches!(effect, Effect::Changed(_))) {
                hints.announce();
            }
            if !step.batch.is_empty() {
                store.commit(step.batch, step.durability)?;
            }
            Ok((machine, step.effects, step.next_wake))
        };
        let ended = tokio::task::spawn_blocking(decide_and_commit).await;
        let (machine, effects, next_wake) = ended.unwrap_or_else(|error| Err(CrdtError::Damaged(error.to_string())))?;
        self.failures = 0;
        self.wake = next_wake.map(|at| self.began + Duration::from_millis(at.0));
        *self.seen.lock() = Seen::of(&machine);
        for effect in effects {
            self.perform(effect);
        }
        Ok(machine)
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Accepted { ticket } => self.answer(ticket, Ok(Receipt { version: Version(ticket) })),
            Effect::Refused { ticket, error } => self.answer(ticket, Err(error)),
            Effect::Changed(changes) => self.hints.changes(changes),
            Effect::State(state) => self.hints.state(state),
            Effect::Fetch { cid, likely } => self.fetch(cid, likely),
            Effect::FetchStretch { cid, peer, have } => self.fetch_stretch(cid, peer, &have),
            Effect::FetchPage { peer, after } => {
                tracing::debug!(%peer, "asking for a page of the set");
                self.fetch_page(peer, after);
            }
            Effect::Taken(pins) => {
                tracing::debug!(pins = pins.len(), "a page of the set is taken over");
            }
            Effect::PagesEnded => {
                tracing::debug!(unsure = ?self.seen.lock().unsure, "no more pages of the set come");
                self.page_ahead = None;
                self.hints.lagged();
            }
            Effect::Mended(pins) => {
                tracing::warn!(pins, "the set that was given when this peer joined was not what the history says; it was put right");
            }
            Effect::AskHeads(peer) => self.ask_heads(peer),
            Effect::Push { peers, bytes } => self.network.push(&peers, bytes),
            Effect::Broadcast(heads) => self.broadcast(encode_heads(&heads)),
            Effect::Finding(finding) => self.hints.finding(finding),
            Effect::BlockRefused { cid, why } => tracing::warn!(%cid, %why, "a block of the shared state is refused"),
        }
    }

    fn answer(&mut self, ticket: u64, result: Result<Receipt, SubmitError>) {
        if let Some(answer) = self.tickets.remove(&ticket) {
            let _ = answer.send(result);
        }
    }

    fn fetch(&mut self, cid: Cid, likely: Option<PeerId>) {
        let (network, signatures) = (self.network.clone(), self.signatures());
        self.spawn(Event::FetchFailed { cid }, async move {
            match tokio::time::timeout(FETCH_TIME, network.fetch(&cid, likely)).await {
                Ok(Ok(bytes)) => {
                    look_ahead(signatures, vec![bytes.clone()]).await;
                    return Some(Event::Block { cid, bytes });
                }
                Ok(Err(error)) => tracing::debug!(%cid, error, "a CRDT block did not come"),
                Err(_) => tracing::debug!(%cid, "a CRDT block did not come in time"),
            }
            None
        });
    }

    fn fetch_stretch(&mut self, cid: Cid, peer: PeerId, have: &[Cid]) {
        let (network, signatures) = (self.network.clone(), self.signatures());
        let question = ancestors::encode_question(&cid, have);
        self.spawn(Event::Stretch { cid, from: peer, blocks: Vec::new() }, async move {
            let answer = tokio::time::timeout(STRETCH_TIME, network.ask_stretch(peer, question)).await.ok()?;
            let answer = answer.inspect_err(|error| tracing::debug!(%peer, error, "no stretch of history")).ok()?;
            let blocks = ancestors::decode_answer(&answer.into());
            look_ahead(signatures, blocks.clone()).await;
            Some(Event::Stretch { cid, from: peer, blocks })
        });
    }

    fn signatures(&self) -> Option<Signatures> {
        self.options.authors.as_ref().map(|rules| rules.signatures.clone())
    }

    fn fetch_page(&mut self, peer: PeerId, after: Vec<u8>) {
        let asking = match self.page_ahead.take().filter(|ahead| ahead.peer == peer && ahead.after == after) {
            Some(ahead) => ahead.asking,
            None => self.ask_page(peer, after),
        };
        self.spawn(Event::Page { from: peer, bytes: Bytes::new() }, async move {
            let bytes = asking.await.ok()??;
            Some(Event::Page { from: peer, bytes })
        });
    }

    /// The next page is on its way while the machine takes this one.
    fn page_ahead(&mut self, peer: PeerId, page: &Bytes) {
        if let Some(after) = snapshot::last_of(page) {
            let asking = self.ask_page(peer, after.clone());
            self.page_ahead = Some(PageAhead { peer, after, asking });
        }
    }

    fn ask_page(&self, peer: PeerId, after: Vec<u8>) -> AbortOnDropHandle<Option<Bytes>> {
        let network = self.network.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let answer = tokio::time::timeout(STRETCH_TIME, network.ask_page(peer, after)).await.ok()?;
            answer.inspect_err(|error| tracing::debug!(%peer, error, "no page of the set")).ok().map(Bytes::from)
        }))
    }

    fn ask_heads(&mut self, peer: PeerId) {
        let network = self.network.clone();
        self.spawn(Event::AskFailed { peer }, async move {
            let answer = tokio::time::timeout(ASK_TIME, network.ask_heads(peer)).await.ok()?;
            let message = answer.inspect_err(|error| tracing::debug!(%peer, error, "heads were not told")).ok()?;
            // An empty answer is an answer: that peer has no heads.
            let heads = if message.is_empty() { Vec::new() } else { decode_heads(&message).ok()? };
            Some(Event::Heads { from: peer, heads })
        });
    }

    fn broadcast(&mut self, message: Vec<u8>) {
        let network = self.network.clone();
        self.spawn(Event::Broadcast { is_sent: false }, async move {
            let sent = tokio::time::timeout(BROADCAST_TIME, network.broadcast(message)).await.ok()?;
            sent.inspect_err(|error| tracing::debug!(error, "heads reached nobody")).ok()?;
            Some(Event::Broadcast { is_sent: true })
        });
    }

    /// Runs a call of the network; `failed` is what its silence means.
    fn spawn(&mut self, failed: Event, call: impl Future<Output = Option<Event>> + Send + 'static) {
        let silent = failed.clone();
        let task = self.tasks.spawn(async move { call.await.unwrap_or(failed) });
        self.underway.insert(task.id(), silent);
    }

    /// The disk did not take a step: says so to those who wait, pauses, reads the machine again. None when asked to stop.
    async fn recover(&mut self, error: CrdtError, inputs: &mut Inputs) -> Option<Machine> {
        tracing::error!(%error, "the shared state could not be written, reading it again");
        let mut error = SubmitError::from(error);
        loop {
            for (_, answer) in std::mem::take(&mut self.tickets) {
                let _ = answer.send(Err(error.clone()));
            }
            self.hints.lagged();
            let pause = FAILED_PAUSE.saturating_mul(1 << self.failures.min(8)).min(FAILED_PAUSE_MAX);
            self.failures += 1;
            self.refuse_for(pause, &error, inputs).await?;
            match self.reopen().await {
                Ok(machine) => return Some(machine),
                Err(again) => error = again.into(),
            }
        }
    }

    /// Waits until the pause is over. Submits that come meanwhile are answered with the error; when it is one that passes by itself, such as
    /// a full disk, they wait instead and end the pause: whoever made room is not told of the time before.
    async fn refuse_for(&mut self, pause: Duration, error: &SubmitError, inputs: &mut Inputs) -> Option<()> {
        let end = Instant::now() + pause;
        if matches!(error, SubmitError::Store(error) if error.is_transient()) {
            loop {
                tokio::select! {
                    () = stopped(&mut inputs.stop) => return None,
                    () = tokio::time::sleep(FAILED_PAUSE) => {}
                }
                if Instant::now() >= end || !inputs.submits.is_empty() {
                    return Some(());
                }
            }
        }
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut inputs.stop) => return None,
                Some(submit) = inputs.submits.recv() => {
                    let _ = submit.answer.send(Err(error.clone()));
                }
                () = tokio::time::sleep_until(end) => return Some(()),
            }
        }
    }

    async fn reopen(&mut self) -> Result<Machine, CrdtError> {
        let (options, now, store) = (self.options.clone(), self.now(), self.store.clone());
        let ended = tokio::task::spawn_blocking(move || Machine::open(options, now, store.snapshot())).await;
        let machine = ended.unwrap_or_else(|error| Err(CrdtError::Damaged(error.to_string())))?;
        let connected = self.peers.iter().map(|(peer, is_pinfold)| Event::Connected { peer: *peer, is_pinfold: *is_pinfold }).collect();
        self.step(machine, connected).await
    }

    /// Commits what is queued, tells what is pending, gives the last broadcasts a moment.
    async fn finish(mut self, mut machine: Machine, mut inputs: Inputs) {
        inputs.submits.close();
        loop {
            machine.hurry();
            let mut events = Vec::new();
            self.gather_rest(&mut inputs, Vec::new(), &mut events);
            machine = match self.step(machine, events).await {
                Ok(machine) => machine,
                Err(error) => return tracing::error!(%error, "the last wishes could not be written"),
            };
            if inputs.submits.is_empty() && machine.pending() == 0 {
                break;
            }
        }
        let store = self.store.clone();
        let sync = move || {
            let mut batch = store::Batch::new();
            batch.put(Area::Meta, "crdt/stopped", []);
            store.commit(batch, Durability::Synced)
        };
        match tokio::task::spawn_blocking(sync).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "syncing the shared state"),
            Err(error) => tracing::warn!(%error, "syncing the shared state"),
        }
        let broadcasts = |driver: &Driver| driver.underway.values().any(|silent| matches!(silent, Event::Broadcast { .. }));
        let end = Instant::now() + STOP_TIME;
        while broadcasts(&self)
            && let Ok(Some(ended)) = tokio::time::timeout_at(end, self.tasks.join_next_with_id()).await
        {
            self.note_end(ended, &mut Vec::new());
        }
        self.tasks.shutdown().await;
    }

    fn now(&self) -> Millis {
        Millis(self.began.elapsed().as_millis() as u64)
    }
}

/// Checks signatures beside the machine, so that it finds them checked.
async fn look_ahead(signatures: Option<Signatures>, blocks: Vec<Bytes>) {
    let Some(signatures) = signatures else { return };
    let check = move || {
        for bytes in &blocks {
            if let Some(id) = BlockId::of_cid(&wire::delta::block_cid(bytes)) {
                signatures.look_ahead(id, bytes);
            }
        }
    };
    // What was not checked ahead is checked in its turn.
    tokio::task::spawn_blocking(check).await.ok();
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
