//! The event loop's heart: one machine behind a lock, fed from many tasks, its effects performed in order.
//!
//! There is no queue in front of the machine: whoever has an event takes the lock, lets the machine decide, and starts the
//! effects before letting go (starting never waits: it spawns or enqueues). So a command costs no task switch, and effects of
//! one event are performed before those of the next.

use crate::go::GoMembers;
use crate::links::Links;
use crate::looker::Looker;
use crate::reach::Reach;
use crate::records;
use crate::submitter::Submitter;
use crate::trust::Trust;
use crate::view::View;
use cluster::{Answer, Change, Command, Effect, Event, Machine, Missing, NodeOp, Notice, OpId, RequestId, SubmitId};
use consensus::{Consensus, Write};
use ipfs::IpfsNode;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use store::{Area, Batch, Durability, Store};
use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio::task::AbortHandle;
use types::{Millis, Now, Owner, PeerMessage, SignedRecord, UnixMillis};

use crate::handle::Live;

/// Live events kept for a slow reader before it is told that it lagged.
const LIVE_QUEUE: usize = 4096;
/// Records that are passed on in one message; 50 of the largest fit.
const RECORDS_TOGETHER: usize = 50;
/// Notices kept for pages and `/health/alerts`.
const NOTICES: usize = 1000;

/// The shared middle of a peer.
pub struct Core {
    machine: Mutex<Machine>,
    pub(crate) consensus: Arc<dyn Consensus>,
    pub(crate) node: Arc<dyn IpfsNode>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) trust: Trust,
    pub(crate) owner: Owner,
    links: OnceLock<Arc<Links>>,
    answers: Mutex<Waiting>,
    operations: Mutex<HashMap<OpId, AbortHandle>>,
    go: OnceLock<Weak<dyn GoMembers>>,
    pub(crate) submitter: Submitter,
    /// The node is to be measured soon.
    pub(crate) measure: tokio::sync::Notify,
    pub(crate) looker: Looker,
    live: broadcast::Sender<Live>,
    live_notices: broadcast::Sender<Live>,
    notices: Mutex<VecDeque<(UnixMillis, Notice, String)>>,
    wake: Notify,
    /// Until when the clock sleeps, in milliseconds since the start.
    wakes_at: AtomicU64,
    /// Up to where the machine was told what the wish shows (`Consensus::hinted`).
    hinted: watch::Sender<u64>,
    /// Something was let go since the last collection.
    has_garbage: AtomicBool,
    /// What nobody can give now.
    pub(crate) reach: Reach,
    started: Instant,
    own: Weak<Core>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    answers: HashMap<RequestId, oneshot::Sender<Answer>>,
}

/// Both clocks of a core that started then.
fn clocks(started: Instant) -> Now {
    Now { mono: Millis(started.elapsed().as_millis() as u64), wall: crate::clock::wall() }
}

impl Core {
    /// Puts the parts together; nothing runs yet.
    pub fn new(
        options: cluster::Options,
        consensus: Arc<dyn Consensus>,
        node: Arc<dyn IpfsNode>,
        store: Arc<dyn Store>,
        trust: Trust,
        owner: Owner,
    ) -> Arc<Core> {
        let started = Instant::now();
        let machine = Machine::new(options, clocks(started));
        trust.set_members(machine.trusted());
        Arc::new_cyclic(|own| Core {
            machine: Mutex::new(machine),
            consensus,
            node,
            store,
            trust,
            owner,
            links: OnceLock::new(),
            answers: Mutex::new(Waiting::default()),
            operations: Mutex::new(HashMap::new()),
            go: OnceLock::new(),
            submitter: Submitter::default(),
            measure: tokio::sync::Notify::new(),
            looker: Looker::default(),
            live: broadcast::channel(LIVE_QUEUE).0,
            live_notices: broadcast::channel(NOTICES).0,
            notices: Mutex::new(VecDeque::new()),
            wake: Notify::new(),
            wakes_at: AtomicU64::new(0),
            hinted: watch::Sender::new(0),
            has_garbage: AtomicBool::new(false),
            reach: Reach::default(),
            started,
            own: own.clone(),
        })
    }

    /// Gives the core its way to other peers; once.
    pub(crate) fn set_links(&self, links: Arc<Links>) {
        self.links.set(links).ok();
    }

    pub(crate) fn links(&self) -> Option<&Arc<Links>> {
        self.links.get()
    }

    /// The Go peers of a mixed cluster; set once.
    pub(crate) fn set_go(&self, go: Weak<dyn GoMembers>) {
        self.go.set(go).ok();
    }

    pub(crate) fn go(&self) -> Option<Arc<dyn GoMembers>> {
        self.go.get().and_then(Weak::upgrade)
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        clocks(self.started)
    }

    /// Something was let go: a collection will free it.
    pub(crate) fn mark_garbage(&self) {
        self.has_garbage.store(true, Ordering::Relaxed);
    }

    /// Whether something was let go since this was last asked.
    pub(crate) fn take_garbage(&self) -> bool {
        self.has_garbage.swap(false, Ordering::Relaxed)
    }

    /// Live events.
    pub fn live(&self) -> broadcast::Receiver<Live> {
        self.live.subscribe()
    }

    /// Live notices alone: whoever wants no more is not woken by every pin.
    pub fn live_notices(&self) -> broadcast::Receiver<Live> {
        self.live_notices.subscribe()
    }

    /// Tells live readers something that is no effect of the machine.
    pub(crate) fn tell_live(&self, live: Live) {
        if matches!(live, Live::Notice(..)) {
            // No reader is no error.
            self.live_notices.send(live.clone()).ok();
        }
        if self.live.receiver_count() > 0 {
            self.live.send(live).ok();
        }
    }

    /// Notices so far, oldest first.
    pub fn notices(&self) -> Vec<(UnixMillis, Notice, String)> {
        self.notices.lock().iter().cloned().collect()
    }

    /// Looks into the machine between events.
    pub fn read<T>(&self, look: impl FnOnce(&Machine, Now) -> T) -> T {
        let machine = self.machine.lock();
        look(&machine, self.now())
    }

    /// Lets the machine handle one event and performs what it wants.
    pub fn feed(&self, event: Event) {
        let view = View::new(self.consensus.as_ref(), self.store.as_ref());
        let mut effects = Vec::new();
        let mut machine = self.machine.lock();
        machine.handle(event, self.now(), &view, &mut effects);
        self.perform(effects);
        let next = machine.next_wake();
        drop(machine);
        self.wake_by(next);
    }

    /// The same for events of different pins that happened together, in one step.
    pub(crate) fn feed_together(&self, mut events: Vec<Event>) {
        match events.len() {
            0 => {}
            1 => events.drain(..).for_each(|event| self.feed(event)),
            _ => self.feed(Event::Together(events)),
        }
    }

    /// The machine has been told so much.
    pub(crate) fn hinted(&self, seen: u64) {
        self.hinted.send_replace(seen);
    }

    /// Waits until the machine has been told everything that the wish shows now. Before that a fresh pin would look settled, since what the
    /// machine has no word about is as wished. False when that took too long.
    pub(crate) async fn caught_up(&self) -> bool {
        /// A machine that cannot be told in this time is told of later, as ever.
        const LONGEST: Duration = Duration::from_secs(10);
        let shown = self.consensus.hinted();
        if *self.hinted.borrow() >= shown {
            return true;
        }
        let mut hinted = self.hinted.subscribe();
        let is_told = tokio::time::timeout(LONGEST, hinted.wait_for(|seen| *seen >= shown)).await.is_ok();
        if !is_told {
            tracing::warn!("the machine is behind the shared state");
        }
        is_told
    }

    /// Wakes the clock only if it would sleep too long: most events change nothing about that.
    fn wake_by(&self, next: Option<Millis>) {
        if next.is_some_and(|at| at.0 < self.wakes_at.load(Ordering::Acquire)) {
            self.wake.notify_one();
        }
    }

    /// Asks the machine and waits for its answer; `None` when the peer stops meanwhile.
    pub async fn command(&self, command: Command) -> Option<Answer> {
        let (answer, waiting) = oneshot::channel();
        let request = {
            /// Questions that may wait at once; a door beyond it is told to try again.
            const MOST: usize = 100_000;
            let mut answers = self.answers.lock();
            if answers.answers.len() >= MOST {
                return Some(Answer::Refused(Missing::Busy));
            }
            answers.next += 1;
            let request = RequestId(answers.next);
            answers.answers.insert(request, answer);
            request
        };
        self.feed(Event::Command(request, command));
        waiting.await.ok()
    }

    /// Wakes the machine when it wants to be; runs until dropped.
    pub async fn run_clock(self: Arc<Core>) {
        loop {
            let next = {
                let machine = self.machine.lock();
                let next = machine.next_wake();
                // Under the lock, so that an event that comes next sees it.
                self.wakes_at.store(next.map_or(u64::MAX, |at| at.0), Ordering::Release);
                next
            };
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until((self.started + std::time::Duration::from_millis(at.0)).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => self.wake_machine(),
                () = self.wake.notified() => {}
            }
        }
    }

    fn wake_machine(&self) {
        let view = View::new(self.consensus.as_ref(), self.store.as_ref());
        let mut effects = Vec::new();
        let mut machine = self.machine.lock();
        machine.wake(self.now(), &view, &mut effects);
        self.perform(effects);
    }

    /// Ends running operations; the machine hears nothing of it, since it ends too.
    pub(crate) fn stop_operations(&self) {
        for (_, operation) in self.operations.lock().drain() {
            operation.abort();
        }
        self.answers.lock().answers.clear();
    }

    fn perform(&self, effects: Vec<Effect>) {
        let mut ledger = Batch::new();
        let mut accepted = Vec::new();
        for effect in effects {
            match effect {
                // Many come together from a peer that was just met.
                Effect::Record(record) => accepted.push(record),
                Effect::Ledger { cid, ours: Some(bytes) } => {
                    ledger.put(Area::Ledger, cid.to_bytes(), crate::view::write_size(bytes));
                }
                Effect::Ledger { cid, ours: None } => {
                    ledger.delete(Area::Ledger, cid.to_bytes());
                }
                // Say nothing that the ledger or a record must come before.
                Effect::Note(notice) => self.note(notice),
                Effect::Changed(cid) => self.tell_live(Live::Pin(cid)),
                other => {
                    // The ledger is entered before whatever follows it.
                    self.write_ledger(std::mem::take(&mut ledger));
                    self.keep_records(std::mem::take(&mut accepted));
                    self.perform_one(other);
                }
            }
        }
        self.write_ledger(ledger);
        self.keep_records(accepted);
    }

    /// Stores records and passes them on, with one sync and few messages.
    fn keep_records(&self, accepted: Vec<SignedRecord>) {
        if accepted.is_empty() {
            return;
        }
        accepted.iter().for_each(|record| self.author_record(record));
        if let Err(error) = records::keep(self.store.as_ref(), &accepted) {
            tracing::error!(%error, "keeping records");
        }
        // Who has one already takes it for known and passes it on no further.
        let Some(links) = self.links() else { return };
        for together in accepted.chunks(RECORDS_TOGETHER) {
            links.tell_all(&PeerMessage::Records(together.to_vec()));
        }
    }

    fn write_ledger(&self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        // Buffered is enough: an entry lost with the power only means that something is kept which could have gone.
        if let Err(error) = self.store.commit(batch, Durability::Buffered) {
            tracing::error!(%error, "writing the ledger of held pins");
        }
    }

    fn perform_one(&self, effect: Effect) {
        match effect {
            Effect::Submit(id, changes) => self.submit(id, changes),
            Effect::Node(id, NodeOp::PinHere { cid, depth }) => self.looker.push(id, cid, depth),
            Effect::Node(id, operation) => self.start_operation(id, operation),
            Effect::Cancel(id) => self.cancel(id),
            Effect::Tell(peer, message) => {
                let message = match self.go() {
                    Some(go) => go.tell(&peer, message),
                    None => Some(message),
                };
                if let (Some(links), Some(message)) = (self.links(), message) {
                    links.tell(&peer, message);
                }
            }
            Effect::TellAll(message) => {
                if let Some(links) = self.links() {
                    links.tell_all(&message);
                }
            }
            Effect::Answer(request, answer) => {
                if let Some(waiting) = self.answers.lock().answers.remove(&request) {
                    // A door that gave up waits no more.
                    waiting.send(answer).ok();
                }
            }
            Effect::Trusted(members) => {
                self.know_authors(members.iter().copied());
                self.trust.set_members(members);
                if let Some(links) = self.links() {
                    links.members_changed();
                }
                self.tell_live(Live::Peers);
            }
            Effect::Measure => self.measure.notify_one(),
            Effect::LaneEnded { peer, lease } => self.end_lane(net::blockstream::lane_owner(&peer, lease)),
            // Done by `perform`.
            Effect::Ledger { .. } | Effect::Record(_) | Effect::Note(_) | Effect::Changed(_) => {}
        }
    }

    fn end_lane(&self, owner: Owner) {
        let Some(core) = self.own.upgrade() else { return };
        tokio::spawn(async move {
            // A failing disk is told by whatever uses it next.
            core.node.release(&owner).await.ok();
            core.mark_garbage();
        });
    }

    pub(crate) fn note(&self, notice: Notice) {
        let text = crate::words::notice(&notice, &|peer| self.name_of(peer));
        tracing::info!("{text}");
        let at = self.now().wall;
        let mut notices = self.notices.lock();
        if notices.len() >= NOTICES {
            notices.pop_front();
        }
        notices.push_back((at, notice.clone(), text.clone()));
        drop(notices);
        self.tell_live(Live::Notice(at, notice, text));
    }

    fn name_of(&self, peer: &types::PeerId) -> String {
        let of_go = || Some(self.go()?.who(peer)?.0).filter(|name| !name.is_empty());
        self.links().and_then(|links| links.name_of(peer)).or_else(of_go).unwrap_or_else(|| peer.short())
    }

    fn submit(&self, id: SubmitId, changes: Vec<Change>) {
        let writes = changes
            .into_iter()
            .map(|change| match change {
                Change::Put(pin) => Write { key: pin.cid.to_bytes(), value: Some(wire::pin::encode_pin(&pin).into()), expect: None },
                Change::Remove(cid) => Write { key: cid.to_bytes(), value: None, expect: None },
            })
            .collect();
        self.submitter.push(id, writes);
    }

    fn start_operation(&self, id: OpId, operation: NodeOp) {
        let Some(core) = self.own.upgrade() else { return };
        // Held over the spawn, so that a quick operation does not look for its entry before it is there.
        let mut operations = self.operations.lock();
        let task = tokio::spawn(async move {
            let outcome = crate::perform::run(&core, id, operation).await;
            // Whoever removes the entry reports: a cancelled operation is reported by `cancel`.
            let is_mine = core.operations.lock().remove(&id).is_some();
            if is_mine {
                core.feed(Event::Node(id, outcome));
            }
        });
        operations.insert(id, task.abort_handle());
    }

    fn cancel(&self, id: OpId) {
        let Some(operation) = self.operations.lock().remove(&id) else { return };
        operation.abort();
        let Some(core) = self.own.upgrade() else { return };
        // Not from here: the machine's lock is held while effects are performed.
        tokio::spawn(async move { core.feed(Event::Node(id, cluster::NodeOutcome::Cancelled)) });
    }
}
