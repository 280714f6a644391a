//! The copies on other peers: for each peer only what is **not** as wished (architecture.md 6, rule 6).
//!
//! status = wish x placement - exceptions. A change of the wish makes every placed peer *unconfirmed* until its report with
//! the same version clears it; a peer whose complete answer was never heard since our start counts as unconfirmed in all.
//! Reports may be lost, repeated, late or too early ([`early`]): what stays unconfirmed is asked for, and every peer is asked in full each round.

mod early;

use crate::options::PlantedBug;
use crate::outbox::Outbox;
use crate::{Effect, Options, PinChange, SharedView};
use early::Early;
use std::collections::{BTreeMap, BTreeSet};
use types::{Because, Cid, CopyState, HoldingReport, Millis, Now, PeerId, PeerMessage, Pin, PinState, UnixMillis};

/// Exceptions kept per peer (some 20 MB); a peer with more is asked in full again.
const EXCEPTIONS_MOST: usize = 50_000;
/// Cids asked for in one message.
const ASK_MOST: usize = 1_000;
/// First question about an unconfirmed copy.
const ASK_FIRST: Millis = Millis::seconds(2);
/// A copy of which its holder says what is wrong is asked for as if so many questions had been asked: it tells by itself what changes.
const FIRST_REPORTED: u32 = 3;
/// Later questions, at most so far apart.
const ASK_SLOWEST: Millis = Millis::minutes(5);
/// A silent peer that would be asked is looked at again after so long; when it is back, its link or hello wakes it earlier.
const ASLEEP: Millis = Millis::seconds(2);
/// An unanswered question is asked again after so long, doubled each time up to [`ASK_SLOWEST`].
const QUESTION_AGAIN: Millis = Millis::seconds(10);

/// A copy that is not as wished.
#[derive(Clone, Debug)]
pub(crate) struct Exception {
    /// The version that the peer should hold; none when it should hold nothing (it still holds what it will let go).
    pub wished: Option<u64>,
    /// As last reported; `PinQueued` because `Unconfirmed` before any report.
    pub state: PinState,
    /// Why.
    pub because: Option<Because>,
    /// Next try.
    pub next_try: Option<UnixMillis>,
    /// Attempts.
    pub tries: u32,
    /// Since when, by the reporter's clock; before any report by the own.
    pub since: UnixMillis,
    /// Last changed here.
    told: Millis,
    ask_at: Millis,
    asks: u32,
}

/// What is known of one peer's copies.
#[derive(Clone, Debug, Default)]
struct PeerCopies {
    incarnation: u64,
    is_known: bool,
    exceptions: BTreeMap<Cid, Exception>,
    due: BTreeSet<(Millis, Cid)>,
    question: Option<Question>,
    ask_at: Option<Millis>,
    asks: u32,
    alarm: Option<Millis>,
}

/// What a reported copy did here.
struct Taken {
    has_changed: bool,
    /// It speaks of another wish than the one known here: that may be on its way.
    is_early: bool,
}

#[derive(Clone, Debug)]
struct Question {
    number: u64,
    asked: Millis,
    named: u64,
}

/// Who may hold copies beside the own peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Members<'a> {
    /// Pinfold peers.
    pub ours: &'a [PeerId],
    /// Go peers. They tell nothing by themselves: what every peer holds is not asked of them, since nobody decides by it.
    pub go: &'a [PeerId],
}

/// The copies on all other peers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings {
    peers: BTreeMap<PeerId, PeerCopies>,
    early: Early,
    /// When each peer is to be looked at next; never later than it has something to ask.
    alarms: BTreeSet<(Millis, PeerId)>,
    questions: u64,
}

impl Holdings {
    /// The wish changed: every other peer that is placed is unconfirmed, those that are not placed any more still hold. Gives the peers that
    /// had said before that they hold this very wish.
    pub fn wish_changed(&mut self, change: &PinChange, members: Members, options: &Options, now: Now) -> Vec<PeerId> {
        let (cid, before) = (&change.cid, change.before.as_ref());
        let mut confirmed = Vec::new();
        let Some((pin, version)) = &change.after else {
            for copies in self.peers.values_mut() {
                copies.remove(cid);
            }
            return confirmed;
        };
        let takes_any = options.planted == Some(PlantedBug::TakesAnyEarlyWord);
        for peer in concerned(pin, before, members) {
            let copies = self.peers.entry(peer).or_default();
            if pin.is_for(&peer) {
                let said = self.early.take(&peer, cid, *version, takes_any, now);
                if copies.expect(cid, *version, said.as_ref(), now) {
                    confirmed.push(peer);
                }
            } else if before.is_some_and(|before| before.is_for(&peer)) {
                copies.expect_to_let_go(cid, now);
            }
            self.set_alarm(&peer);
        }
        confirmed
    }

    /// Hints were lost: nothing is known any more until every peer has answered in full.
    pub fn lagged(&mut self, now: Now) {
        self.early.forget_all();
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(copies) = self.peers.get_mut(&peer) {
                copies.forget(now);
            }
            self.set_alarm(&peer);
        }
    }

    /// A link to the peer came up, or it started anew (`is_new_start`): ask in full.
    pub fn linked(&mut self, peer: &PeerId, is_new_start: bool, now: Now) {
        self.early.forget(peer);
        let copies = self.peers.entry(*peer).or_default();
        if is_new_start {
            copies.forget(now);
        }
        copies.question = None;
        copies.asks = 0;
        copies.ask_at = Some(now.mono);
        self.set_alarm(peer);
    }

    /// These peers fell silent: what they said of wishes that did not come yet proves nothing any more.
    pub fn silent(&mut self, peers: &[PeerId]) {
        peers.iter().for_each(|peer| self.early.forget(peer));
    }

    /// The peer is no member any more.
    pub fn remove_peer(&mut self, peer: &PeerId) {
        self.early.forget(peer);
        if let Some(alarm) = self.peers.remove(peer).and_then(|copies| copies.alarm) {
            self.alarms.remove(&(alarm, *peer));
        }
    }

    /// A report came; gives the CIDs whose standing here changed.
    pub fn report(&mut self, peer: &PeerId, report: &HoldingReport, shared: &dyn SharedView, options: &Options, now: Now) -> Vec<Cid> {
        let changed = self.take_report(peer, report, shared, options, now);
        self.set_alarm(peer);
        changed
    }

    fn take_report(&mut self, peer: &PeerId, report: &HoldingReport, shared: &dyn SharedView, options: &Options, now: Now) -> Vec<Cid> {
        let copies = self.peers.entry(*peer).or_default();
        if report.incarnation < copies.incarnation {
            return Vec::new();
        }
        if report.incarnation > copies.incarnation {
            let is_new_start = copies.incarnation != 0;
            copies.incarnation = report.incarnation;
            if is_new_start {
                copies.forget(now);
                self.early.forget(peer);
            }
        }
        let mut changed = Vec::new();
        for copy in report.copies.iter().take(ASK_MOST) {
            // What the wish is now, looked up only where the exceptions do not say it.
            let wish = || shared.pin(&copy.cid).filter(|(pin, _)| pin.is_for(peer)).map(|(_, version)| version);
            let taken = copies.take(copy, wish, now);
            if taken.has_changed {
                changed.push(copy.cid);
            }
            if taken.is_early {
                self.early.keep(peer, copy, now);
            } else {
                self.early.drop_word(peer, &copy.cid);
            }
        }
        let Some(question) = copies.question.as_mut().filter(|question| question.number == report.answer && report.answer != 0) else {
            return changed;
        };
        question.named += report.copies.len() as u64;
        // An answer whose parts were not all heard proves nothing; it is asked again.
        if let Some(named) = report.complete
            && named == question.named
        {
            let asked = question.asked;
            copies.question = None;
            copies.is_known = true;
            copies.asks = 0;
            copies.ask_at = Some(now.after(options.pace.round));
            let settled: Vec<Cid> = copies.exceptions.iter().filter(|(_, exception)| exception.told < asked).map(|(cid, _)| *cid).collect();
            for cid in settled {
                copies.remove(&cid);
                changed.push(cid);
            }
        }
        changed
    }

    /// Asks what is due: unconfirmed copies, and peers in full.
    pub fn ask(&mut self, is_live: impl Fn(&PeerId) -> bool, outbox: &mut Outbox, effects: &mut Vec<Effect>, now: Now) {
        while let Some((at, peer)) = self.alarms.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.alarms.remove(&(at, peer));
            let Some(copies) = self.peers.get_mut(&peer) else { continue };
            copies.alarm = None;
            if !is_live(&peer) {
                copies.alarm = Some(now.after(ASLEEP));
                self.alarms.insert((now.after(ASLEEP), peer));
                continue;
            }
            if copies.ask_at.is_some_and(|at| at <= now.mono) {
                self.questions += 1;
                copies.question = Some(Question { number: self.questions, asked: now.mono, named: 0 });
                copies.ask_at = Some(now.after(backed_off(QUESTION_AGAIN, copies.asks)));
                copies.asks += 1;
                effects.push(Effect::Tell(peer, PeerMessage::AskHoldings { question: self.questions, heads: Vec::new() }));
            }
            for _ in 0..ASK_MOST {
                let Some((at, cid)) = copies.due.first().copied().filter(|(at, _)| *at <= now.mono) else { break };
                copies.due.remove(&(at, cid));
                if let Some(exception) = copies.exceptions.get_mut(&cid) {
                    exception.asks += 1;
                    exception.ask_at = now.after(backed_off(ASK_FIRST, exception.asks));
                    copies.due.insert((exception.ask_at, cid));
                    outbox.ask(peer, cid);
                }
            }
            self.set_alarm(&peer);
        }
    }

    /// When [`Holdings::ask`] next has something to do.
    pub fn next_wake(&self) -> Option<Millis> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Sets the peer's alarm no later than it has something to ask; an alarm that is too early does no harm.
    fn set_alarm(&mut self, peer: &PeerId) {
        let Some(copies) = self.peers.get_mut(peer) else { return };
        let Some(at) = copies.due.first().map(|(at, _)| *at).into_iter().chain(copies.ask_at).min() else { return };
        if copies.alarm.is_some_and(|alarm| alarm <= at) {
            return;
        }
        if let Some(old) = copies.alarm.replace(at) {
            self.alarms.remove(&(old, *peer));
        }
        self.alarms.insert((at, *peer));
    }

    /// Whether the peer is known to hold this pin that is placed on it.
    pub fn is_confirmed(&self, peer: &PeerId, cid: &Cid) -> bool {
        self.peers.get(peer).is_some_and(|copies| copies.is_known && !copies.exceptions.contains_key(cid))
    }

    /// Whether the peer has answered in full since our start.
    pub fn is_known(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|copies| copies.is_known)
    }

    /// What is not as wished with this copy.
    pub fn exception(&self, peer: &PeerId, cid: &Cid) -> Option<&Exception> {
        self.peers.get(peer)?.exceptions.get(cid)
    }

    /// Peers that still hold what they will let go.
    pub fn leaving_holders<'a>(&'a self, cid: &'a Cid) -> impl Iterator<Item = PeerId> + 'a {
        self.peers
            .iter()
            .filter(|(_, copies)| copies.exceptions.get(cid).is_some_and(|exception| exception.wished.is_none()))
            .map(|(peer, _)| *peer)
    }

    /// Copies on the peer that are not as wished.
    pub fn exceptions_of(&self, peer: &PeerId) -> u64 {
        self.peers.get(peer).map_or(0, |copies| copies.exceptions.len() as u64)
    }

    /// Copies on all other peers that are not as wished.
    pub fn exceptions_count(&self) -> u64 {
        self.peers.values().map(|copies| copies.exceptions.len() as u64).sum()
    }
}

impl PeerCopies {
    /// The peer should hold this version; true when it is known at once that it does, by what it `said` of it before.
    fn expect(&mut self, cid: &Cid, version: u64, said: Option<&CopyState>, now: Now) -> bool {
        match said {
            Some(copy) if copy.state == PinState::Pinned => self.remove(cid),
            Some(copy) => self.put(cid, reported(copy, Some(version), FIRST_REPORTED, now)),
            None => self.put(cid, unconfirmed(Some(version), PinState::PinQueued, now)),
        }
        said.is_some_and(|copy| copy.state == PinState::Pinned)
    }

    fn expect_to_let_go(&mut self, cid: &Cid, now: Now) {
        self.put(cid, unconfirmed(None, PinState::UnpinQueued, now));
    }

    /// Takes one reported copy.
    fn take(&mut self, copy: &CopyState, wish: impl Fn() -> Option<u64>, now: Now) -> Taken {
        let wished = self.exceptions.get(&copy.cid).map(|exception| exception.wished);
        match copy.state {
            PinState::Pinned => self.take_pinned(copy, wished, wish, now),
            PinState::Unpinned | PinState::Remote => {
                // Where it should hold something, it has not merged the wish yet: still unconfirmed.
                let has_let_go = wished == Some(None);
                if has_let_go {
                    self.remove(&copy.cid);
                }
                Taken { has_changed: has_let_go, is_early: false }
            }
            state => {
                let is_coming = matches!(state, PinState::PinQueued | PinState::Pinning | PinState::PinError);
                let wished = wished.unwrap_or_else(wish);
                if is_coming && wished.is_none() && !self.exceptions.contains_key(&copy.cid) {
                    return Taken { has_changed: false, is_early: true };
                }
                let asks = self.exceptions.get(&copy.cid).map_or(1, |exception| exception.asks.max(FIRST_REPORTED));
                self.put(&copy.cid, reported(copy, wished, asks, now));
                Taken { has_changed: true, is_early: is_coming && wished != Some(copy.version) }
            }
        }
    }

    fn take_pinned(&mut self, copy: &CopyState, wished: Option<Option<u64>>, wish: impl Fn() -> Option<u64>, now: Now) -> Taken {
        match wished {
            Some(Some(version)) if version == copy.version => {
                self.remove(&copy.cid);
                Taken { has_changed: true, is_early: false }
            }
            Some(None) => {
                // Thought to be letting go, by a report that came late or by a wish that changed its mind.
                let wish = wish();
                match wish {
                    Some(version) if version == copy.version => self.remove(&copy.cid),
                    Some(version) => self.put(&copy.cid, unconfirmed(Some(version), PinState::PinQueued, now)),
                    None => {}
                }
                Taken { has_changed: true, is_early: wish != Some(copy.version) }
            }
            Some(Some(_)) | None => Taken { has_changed: false, is_early: true },
        }
    }

    fn put(&mut self, cid: &Cid, exception: Exception) {
        if self.exceptions.len() >= EXCEPTIONS_MOST && !self.exceptions.contains_key(cid) {
            self.is_known = false;
            self.ask_at = Some(self.ask_at.map_or(exception.ask_at, |at| at.min(exception.ask_at)));
            return;
        }
        self.due.insert((exception.ask_at, *cid));
        if let Some(old) = self.exceptions.insert(*cid, exception.clone())
            && old.ask_at != exception.ask_at
        {
            self.due.remove(&(old.ask_at, *cid));
        }
    }

    fn remove(&mut self, cid: &Cid) {
        if let Some(old) = self.exceptions.remove(cid) {
            self.due.remove(&(old.ask_at, *cid));
        }
    }

    fn forget(&mut self, now: Now) {
        self.is_known = false;
        self.exceptions.clear();
        self.due.clear();
        self.question = None;
        self.asks = 0;
        self.ask_at = Some(now.mono);
    }
}

/// The other members that hold the pin, or held it before.
fn concerned(pin: &Pin, before: Option<&Pin>, members: Members) -> Vec<PeerId> {
    let is_everywhere = pin.is_everywhere() || before.is_some_and(Pin::is_everywhere);
    if is_everywhere && members.go.is_empty() {
        return members.ours.to_vec();
    }
    let before = before.map_or(&[][..], |before| &before.placement);
    let is_known = |peer: &&PeerId| members.ours.contains(peer) || members.go.contains(peer);
    let mut peers: Vec<PeerId> = pin.placement.iter().chain(before).filter(is_known).copied().collect();
    if is_everywhere {
        peers.extend(members.ours);
    }
    peers.sort_unstable();
    peers.dedup();
    peers
}

/// As the peer said it.
fn reported(copy: &CopyState, wished: Option<u64>, asks: u32, now: Now) -> Exception {
    Exception {
        wished,
        state: copy.state,
        because: copy.because.clone(),
        next_try: copy.next_try,
        tries: copy.tries,
        since: copy.since,
        told: now.mono,
        ask_at: now.after(backed_off(ASK_FIRST, asks)),
        asks,
    }
}

fn unconfirmed(wished: Option<u64>, state: PinState, now: Now) -> Exception {
    let ask_at = now.after(if wished.is_some() { ASK_FIRST } else { Millis::minutes(1) });
    Exception {
        wished,
        state,
        because: Some(Because::Unconfirmed),
        next_try: Some(now.wall_at(ask_at)),
        tries: 0,
        since: now.wall,
        told: now.mono,
        ask_at,
        asks: 0,
    }
}

fn backed_off(first: Millis, times: u32) -> Millis {
    Millis(first.0.saturating_mul(1 << times.min(20)).min(ASK_SLOWEST.0))
}

#[cfg(test)]
mod tests;
