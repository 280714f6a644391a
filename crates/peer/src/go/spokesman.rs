//! Speaks for Go peers to the machine, in the words that Pinfold peers have for the same things: so placement, repair and status by exceptions
//! count Go peers without knowing their calls.
//!
//! ```text
//!   metrics, RepoStat ──► hello, links          machine
//!   Status, StatusAll ──► reports of copies  ◄──► its questions
//!   freespace         ──► room granted or not
//! ```
//! Absent: what only Pinfold peers do for each other (records, offers, heads); that is dropped.

use super::lists::GoList;
use super::members::{STATUS, ask};
use super::{GoPeer, Side};
use cluster::{Event, GoMember, LinkState};
use futures::{StreamExt, stream};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use types::{Because, ByteCount, Cid, CopyState, HoldingReport, Millis, PeerId, PeerMessage, Pin, PinState, Refusal, UnixMillis};
use wire::join::Known;
use wire::status::{Filter, of_bit};

/// How often it is said who is there: below the time in which a silent member becomes suspect.
const SAY: Duration = Duration::from_secs(2);
/// Questions that wait; further ones are lost, and asked again by the machine.
const QUESTIONS_MOST: usize = 1_000;
/// Questions that are answered at once, of all Go peers.
const ANSWERING_MOST: usize = 16;
/// Calls to one peer at once.
const CALLS_AT_ONCE: usize = 8;
/// Copies in one report.
const REPORT_MOST: usize = 1_000;
/// Pins read at once.
const PAGE: usize = 1_000;
/// A Go peer that was not there for so long is no member any more, unless it is named in the configuration.
const FORGOTTEN: Millis = Millis::minutes(7 * 24 * 60);
/// When each was there last is written so often.
const KEPT_AGAIN: Millis = Millis::minutes(60);
/// Go peers have no count of their starts: what one holds is asked anew when its link comes back.
const INCARNATION: u64 = 1;

/// What the Go side tells the machine, and reads of the wish.
pub trait Mind: Send + Sync {
    /// Something that a Go peer did or said.
    fn feed(&self, event: Event);
    /// A pin and the version of its stored form.
    fn pin(&self, cid: &Cid) -> Option<(Pin, u64)>;
    /// A page of all pins, by key.
    fn pins_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Pin, u64)>;
    /// The Go peers that were there before this start, and when last.
    fn remembered(&self) -> Vec<(PeerId, UnixMillis)>;
    /// Keeps these for the next start.
    fn remember(&self, peers: &[(PeerId, UnixMillis)]);
    /// Where Go peers were that were met before this start.
    fn addresses(&self) -> Vec<Known> {
        Vec::new()
    }
    /// Keeps these for the next start.
    fn remember_addresses(&self, known: &[Known]) {
        let _ = known;
    }
}

/// Takes the machine's messages to Go peers.
pub(super) struct Spokesman {
    mind: Arc<dyn Mind>,
    /// Trusted by configuration by their ids: they are waited for from the start.
    listed: Vec<PeerId>,
    spoken_for: RwLock<BTreeSet<PeerId>>,
    queue: mpsc::Sender<(PeerId, PeerMessage)>,
    questions: Mutex<Option<mpsc::Receiver<(PeerId, PeerMessage)>>>,
    /// Who is asked for its whole list: one call at a time for each.
    asked_in_full: Mutex<BTreeSet<PeerId>>,
}

impl Spokesman {
    pub(super) fn new(mind: Arc<dyn Mind>, listed: Vec<PeerId>) -> Spokesman {
        let (queue, questions) = mpsc::channel(QUESTIONS_MOST);
        let questions = Mutex::new(Some(questions));
        Spokesman { mind, listed, spoken_for: RwLock::default(), queue, questions, asked_in_full: Mutex::default() }
    }

    /// Takes a message to a Go peer; gives it back when it is for somebody else. Never waits, and asks nothing of the machine, which may be
    /// waiting for this.
    pub(super) fn tell(&self, peer: &PeerId, message: PeerMessage) -> Option<PeerMessage> {
        if !self.speaks_for(peer) {
            return Some(message);
        }
        let is_question = matches!(message, PeerMessage::AskHoldings { .. } | PeerMessage::AskCopies(_) | PeerMessage::Reserve { .. });
        if is_question && self.queue.try_send((*peer, message)).is_err() {
            tracing::debug!(%peer, "too many questions to Go peers wait: one is asked again later");
        }
        None
    }

    pub(super) fn mind(&self) -> Arc<dyn Mind> {
        self.mind.clone()
    }

    /// A Pinfold peer is a member, though nobody invited it.
    pub(super) fn is_ours(&self, peer: PeerId) {
        self.mind.feed(Event::Ours(peer));
    }

    /// Whether it is a Go peer that the machine knows.
    pub(super) fn speaks_for(&self, peer: &PeerId) -> bool {
        self.spoken_for.read().contains(peer)
    }
}

/// Runs until dropped.
pub(super) async fn run(side: Arc<Side>) {
    let Some(spokesman) = side.spokesman.clone() else { return };
    let Some(mut questions) = spokesman.questions.lock().take() else { return };
    let places = Arc::new(Semaphore::new(ANSWERING_MOST));
    let mut answering = JoinSet::new();
    let mut said = Said { remembered: spokesman.mind.remembered().into_iter().collect(), ..Said::default() };
    let mut tick = tokio::time::interval(SAY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => said.say(&side, &spokesman),
            Some((peer, question)) = questions.recv() => {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let (side, spokesman) = (side.clone(), spokesman.clone());
                answering.spawn(async move {
                    answer(&side, &spokesman, peer, question).await;
                    drop(place);
                });
            }
            Some(_) = answering.join_next() => {}
        }
    }
}

/// What the machine was told last.
#[derive(Default)]
struct Said {
    members: Vec<GoMember>,
    /// Failure domains that they name.
    domains: BTreeMap<PeerId, String>,
    there: BTreeSet<PeerId>,
    /// What was said of each of them. The same is not said again: with it room that was promised since then counts as shown in it.
    hellos: BTreeMap<PeerId, (UnixMillis, PeerMessage)>,
    /// Who was there, and when last: after a start in a split net those are out of sight, and not none.
    remembered: BTreeMap<PeerId, UnixMillis>,
    /// What of it is on disk, and since when.
    kept: (BTreeSet<PeerId>, UnixMillis),
}

impl Said {
    fn say(&mut self, side: &Side, spokesman: &Spokesman) {
        let (live, known) = (side.go_peers(), side.go_known());
        let ours: BTreeSet<PeerId> = side.cluster.peers().into_iter().map(|row| row.peer).collect();
        let listed = spokesman.listed.iter().filter(|peer| !ours.contains(peer) && !side.is_pinfold(peer));
        let now = side.now().wall;
        self.remembered.retain(|peer, heard| now.0.saturating_sub(heard.0) < FORGOTTEN.0 && !ours.contains(peer) && !side.is_pinfold(peer));
        let all: BTreeSet<PeerId> = known.keys().chain(listed).chain(self.remembered.keys()).copied().collect();
        // What one that does not take what is written here was given, it would never hear of.
        let is_mutual = |peer: &PeerId| (side.options.trusted)(peer) && known.get(peer) != Some(&Some(false));
        let members: Vec<GoMember> = all.into_iter().map(|peer| GoMember { peer, is_trusted: is_mutual(&peer) }).collect();
        if members != self.members {
            *spokesman.spoken_for.write() = members.iter().map(|member| member.peer).collect();
            self.members.clone_from(&members);
            spokesman.mind.feed(Event::GoPeers(members));
        }
        // Who is silent for a while is where it was.
        let mut domains = self.domains.clone();
        domains.retain(|peer, _| self.members.iter().any(|member| member.peer == *peer) && live.iter().all(|go| go.peer != *peer));
        domains.extend(live.iter().filter_map(|go| Some((go.peer, go.domain()?.to_owned()))));
        if domains != self.domains {
            self.domains.clone_from(&domains);
            spokesman.mind.feed(Event::Domains(domains));
        }
        let there: BTreeSet<PeerId> = live.iter().map(|go| go.peer).collect();
        for peer in self.there.difference(&there) {
            spokesman.mind.feed(Event::Link(*peer, LinkState::Down));
        }
        for go in &live {
            spokesman.mind.feed(Event::Link(go.peer, LinkState::Up));
            if is_mutual(&go.peer) {
                self.remembered.insert(go.peer, now);
                self.say_hello(go, spokesman, now);
            }
        }
        self.hellos.retain(|peer, _| there.contains(peer));
        self.there = there;
        self.keep(spokesman, now);
    }

    fn say_hello(&mut self, go: &GoPeer, spokesman: &Spokesman, now: UnixMillis) {
        // Its own clock is not known; nothing of what it says is dated by it.
        let (said, again) = ((go.measured, hello(go, UnixMillis(0))), self.hellos.get(&go.peer));
        if again != Some(&said) {
            self.hellos.insert(go.peer, said);
            spokesman.mind.feed(Event::Message(go.peer, hello(go, now)));
        }
    }

    fn keep(&mut self, spokesman: &Spokesman, now: UnixMillis) {
        let (kept, at) = &self.kept;
        let is_same = kept.len() == self.remembered.len() && kept.iter().all(|peer| self.remembered.contains_key(peer));
        if is_same && now.0.saturating_sub(at.0) < KEPT_AGAIN.0 {
            return;
        }
        let peers: Vec<(PeerId, UnixMillis)> = self.remembered.iter().map(|(peer, heard)| (*peer, *heard)).collect();
        spokesman.mind.remember(&peers);
        self.kept = (self.remembered.keys().copied().collect(), now);
    }
}

/// What a Go peer's metrics say, as a Pinfold peer says it. One that says nothing of its room has none: Go places nothing there either.
fn hello(go: &GoPeer, clock: UnixMillis) -> PeerMessage {
    let free = go.free_space.unwrap_or_default();
    let limit = go.space_limit.unwrap_or_default().max(free).max(ByteCount(1));
    PeerMessage::Hello {
        name: go.name.clone(),
        node_addresses: go.node_addresses.clone(),
        gateway: None,
        api: None,
        space_limit: limit,
        space_used: limit - free,
        space_reserved: ByteCount::ZERO,
        is_draining: false,
        incarnation: INCARNATION,
        clock,
        load: None,
    }
}

async fn answer(side: &Side, spokesman: &Spokesman, peer: PeerId, question: PeerMessage) {
    match question {
        PeerMessage::AskCopies(cids) => {
            let copies = copies(side, spokesman, peer, &cids).await;
            for part in copies.chunks(REPORT_MOST) {
                report(spokesman, peer, None, 0, part.to_vec());
            }
        }
        PeerMessage::AskHoldings { question, .. } => {
            if !spokesman.asked_in_full.lock().insert(peer) {
                return;
            }
            let unsettled = in_full(side, spokesman, peer).await;
            spokesman.asked_in_full.lock().remove(&peer);
            let Some(unsettled) = unsettled else { return };
            let total = unsettled.len() as u64;
            let mut parts: Vec<Vec<CopyState>> = unsettled.chunks(REPORT_MOST).map(<[CopyState]>::to_vec).collect();
            if parts.is_empty() {
                parts.push(Vec::new());
            }
            let last = parts.len() - 1;
            for (index, part) in parts.into_iter().enumerate() {
                report(spokesman, peer, (index == last).then_some(total), question, part);
            }
        }
        PeerMessage::Reserve { lease, bytes } => {
            // It keeps no room for anybody; what it has free is all that can be said.
            let free = side.go_peers().into_iter().find(|go| go.peer == peer).and_then(|go| go.free_space).unwrap_or_default();
            let refused = (free < bytes).then_some(Refusal::NoRoom { free });
            spokesman.mind.feed(Event::Message(peer, PeerMessage::Reserved { lease, refused }));
        }
        _ => {}
    }
}

fn report(spokesman: &Spokesman, peer: PeerId, complete: Option<u64>, answer: u64, copies: Vec<CopyState>) {
    let report = HoldingReport { incarnation: INCARNATION, complete, answer, copies };
    spokesman.mind.feed(Event::Message(peer, PeerMessage::Holdings(report)));
}

/// Asks about single copies. Who does not answer says nothing; it is asked again.
async fn copies(side: &Side, spokesman: &Spokesman, peer: PeerId, cids: &[Cid]) -> Vec<CopyState> {
    let asked = cids.iter().copied().map(|cid| async move {
        // Before the call: what it answers is not older than this version.
        let version = spokesman.mind.pin(&cid).map_or(0, |(_, version)| version);
        let info = ask(side, peer, STATUS, &cid).await.ok()?;
        let state = of_bit(info.short.status)?;
        Some(copy(side, cid, version, state, &info.short.error, info.short.attempt_count))
    });
    stream::iter(asked).buffer_unordered(CALLS_AT_ONCE).filter_map(std::future::ready).collect().await
}

/// Everything that is placed on it and not as wished; none when it gave no list.
async fn in_full(side: &Side, spokesman: &Spokesman, peer: PeerId) -> Option<Vec<CopyState>> {
    let go = side.go_peers().into_iter().find(|go| go.peer == peer)?;
    let list = GoList::ask(side, go, Filter::ALL).await;
    if let Some(error) = list.failure() {
        tracing::debug!(%peer, error, "a Go peer did not say what it holds");
        return None;
    }
    let (mind, now) = (spokesman.mind.clone(), side.now().wall);
    let walk = move || {
        let mut unsettled = BTreeMap::new();
        let mut after = None;
        loop {
            let page = mind.pins_after(after.as_ref(), PAGE);
            for (pin, version) in page.iter().filter(|(pin, _)| pin.placement.contains(&peer)) {
                let Some(row) = list.row(pin, now) else { continue };
                if row.state != PinState::Pinned {
                    unsettled.insert(pin.cid.to_bytes(), (pin.cid, *version, row.state, row.error.into_owned(), row.tries));
                }
            }
            after = page.last().map(|(pin, _)| pin.cid);
            if page.len() < PAGE {
                return unsettled;
            }
        }
    };
    let unsettled = tokio::task::spawn_blocking(walk).await.ok()?;
    let in_words = |(cid, version, state, error, tries): (Cid, u64, PinState, String, i64)| match state {
        // It has not heard of the pin yet. Said as it is, the machine would take it for a word about an older wish.
        PinState::Unpinned | PinState::Remote => {
            let unconfirmed = copy(side, cid, version, PinState::PinQueued, "", tries);
            CopyState { because: Some(Because::Unconfirmed), ..unconfirmed }
        }
        state => copy(side, cid, version, state, &error, tries),
    };
    Some(unsettled.into_values().map(in_words).collect())
}

fn copy(side: &Side, cid: Cid, version: u64, state: PinState, error: &str, tries: i64) -> CopyState {
    let because = (!error.is_empty()).then(|| Because::Failed { error: error.to_owned() });
    CopyState { cid, version, state, because, next_try: None, tries: u32::try_from(tries).unwrap_or(0), since: side.now().wall }
}
