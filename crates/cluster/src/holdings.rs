//! The copies on other peers: for each peer only what is **not** as wished (architecture.md 6, rule 6).
//!
//! status = wish x placement - exceptions. A change of the wish makes every placed peer *unconfirmed* until its report with
//! the same version clears it; a peer whose complete answer was never heard since our start counts as unconfirmed in all.
//! Reports may be lost, repeated or late: what stays unconfirmed is asked for, and every peer is asked in full each round.

use crate::outbox::Outbox;
use crate::{Effect, Options, SharedView};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use types::{Because, Cid, CopyState, HoldingReport, Millis, Now, PeerId, PeerMessage, Pin, PinState, UnixMillis};

/// Reports kept per peer that came before the wish they speak of.
const EARLY_MOST: usize = 2_000;
/// Exceptions kept per peer (some 20 MB); a peer with more is asked in full again.
const EXCEPTIONS_MOST: usize = 50_000;
/// Cids asked for in one message.
const ASK_MOST: usize = 1_000;
/// First question about an unconfirmed copy.
const ASK_FIRST: Millis = Millis::seconds(2);
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
    early: BTreeMap<Cid, u64>,
    early_order: VecDeque<Cid>,
    question: Option<Question>,
    ask_at: Option<Millis>,
    asks: u32,
    alarm: Option<Millis>,
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
    /// When each peer is to be looked at next; never later than it has something to ask.
    alarms: BTreeSet<(Millis, PeerId)>,
    questions: u64,
}

impl Holdings {
    /// The wish changed: every other peer that is placed is unconfirmed, those that are not placed any more still hold.
    pub fn wish_changed(&mut self, cid: &Cid, before: Option<&Pin>, after: Option<&(Pin, u64)>, members: Members, now: Now) {
        match after {
            None => {
                for copies in self.peers.values_mut() {
                    copies.remove(cid);
                }
            }
            Some((pin, version)) => {
                let concerned = concerned(pin, before, members);
                for peer in concerned {
                    let copies = self.peers.entry(peer).or_default();
                    if pin.is_for(&peer) {
                        copies.expect(cid, *version, now);
                    } else if before.is_some_and(|before| before.is_for(&peer)) {
                        copies.expect_to_let_go(cid, now);
                    }
                    self.set_alarm(&peer);
                }
            }
        }
    }

    /// Hints were lost: nothing is known any more until every peer has answered in full.
    pub fn lagged(&mut self, now: Now) {
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(copies) = self.peers.get_mut(&peer) {
                copies.forget(now);
            }
            self.set_alarm(&peer);
        }
    }

    /// A link to the peer came up, or it started anew (`is_new_start`): ask in full.
    pub fn linked(&mut self, peer: &PeerId, is_new_start: bool, now: Now) {
        let copies = self.peers.entry(*peer).or_default();
        if is_new_start {
            copies.forget(now);
        }
        copies.question = None;
        copies.asks = 0;
        copies.ask_at = Some(now.mono);
        self.set_alarm(peer);
    }

    /// The peer is no member any more.
    pub fn remove_peer(&mut self, peer: &PeerId) {
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
            }
        }
        let mut changed = Vec::new();
        for copy in report.copies.iter().take(ASK_MOST) {
            // What the wish is now, looked up only where the exceptions do not say it.
            let wish = || shared.pin(&copy.cid).filter(|(pin, _)| pin.is_for(peer)).map(|(_, version)| version);
            if copies.take(copy, wish, now) {
                changed.push(copy.cid);
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
    /// The peer should hold this version; cleared at once when its report came before the wish.
    fn expect(&mut self, cid: &Cid, version: u64, now: Now) {
        if self.early.get(cid) == Some(&version) {
            self.early.remove(cid);
            self.remove(cid);
            return;
        }
        self.put(cid, unconfirmed(Some(version), PinState::PinQueued, now));
    }

    fn expect_to_let_go(&mut self, cid: &Cid, now: Now) {
        self.put(cid, unconfirmed(None, PinState::UnpinQueued, now));
    }

    /// Takes one reported copy; true when something changed here.
    fn take(&mut self, copy: &CopyState, wish: impl Fn() -> Option<u64>, now: Now) -> bool {
        let wished = self.exceptions.get(&copy.cid).map(|exception| exception.wished);
        match copy.state {
            PinState::Pinned if wished == Some(Some(copy.version)) => {
                self.remove(&copy.cid);
                true
            }
            PinState::Pinned if wished == Some(None) => {
                // Thought to be letting go, by a report that came late or by a wish that changed its mind.
                match wish() {
                    Some(version) if version == copy.version => self.remove(&copy.cid),
                    Some(version) => self.put(&copy.cid, unconfirmed(Some(version), PinState::PinQueued, now)),
                    None => {}
                }
                true
            }
            PinState::Pinned => {
                self.keep_early(copy.cid, copy.version);
                false
            }
            PinState::Unpinned | PinState::Remote => match wished {
                Some(None) => {
                    self.remove(&copy.cid);
                    true
                }
                // It has not merged the wish yet: still unconfirmed.
                _ => false,
            },
            _ => {
                self.early.remove(&copy.cid);
                let wished = wished.unwrap_or_else(wish);
                let asks = self.exceptions.get(&copy.cid).map_or(1, |exception| exception.asks.max(3));
                self.put(
                    &copy.cid,
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
                    },
                );
                true
            }
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

    fn keep_early(&mut self, cid: Cid, version: u64) {
        if self.early.insert(cid, version).is_none() {
            self.early_order.push_back(cid);
        }
        while self.early_order.len() > EARLY_MOST {
            if let Some(oldest) = self.early_order.pop_front() {
                self.early.remove(&oldest);
            }
        }
    }

    fn forget(&mut self, now: Now) {
        self.is_known = false;
        self.exceptions.clear();
        self.due.clear();
        self.early.clear();
        self.early_order.clear();
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
mod tests {
    use super::*;
    use crate::testing::{Shelf, cid, peer, pin_on};
    use types::PinOptions;

    fn at(seconds: u64) -> Now {
        Now { mono: Millis::seconds(seconds), wall: UnixMillis::from_seconds(1_000 + seconds) }
    }

    fn copy(number: u64, version: u64, state: PinState) -> CopyState {
        CopyState { cid: cid(number), version, state, because: None, next_try: None, tries: 0, since: UnixMillis(0) }
    }

    fn update(copies: Vec<CopyState>) -> HoldingReport {
        HoldingReport { incarnation: 1, complete: None, answer: 0, copies }
    }

    /// Holdings in which peer 1 has answered that all is as wished.
    fn known() -> (Holdings, Options) {
        let options = Options::new(peer(0), "me", "test");
        let mut holdings = Holdings::default();
        holdings.linked(&peer(1), false, at(0));
        holdings.ask(|_| true, &mut Outbox::default(), &mut Vec::new(), at(0));
        holdings.report(
            &peer(1),
            &HoldingReport { incarnation: 1, complete: Some(0), answer: 1, copies: Vec::new() },
            &Shelf::default(),
            &options,
            at(0),
        );
        assert!(holdings.is_known(&peer(1)));
        (holdings, options)
    }

    fn wish(holdings: &mut Holdings, number: u64, version: u64, second: u64) {
        let pin = pin_on(cid(number), &[peer(1)], PinOptions::default());
        holdings.wish_changed(&cid(number), None, Some(&(pin, version)), Members { ours: &[peer(1)], go: &[] }, at(second));
    }

    #[test]
    fn a_report_of_the_right_version_confirms() {
        for (reported, confirmed) in [(7, true), (6, false)] {
            let (mut holdings, options) = known();
            wish(&mut holdings, 1, 7, 1);
            assert!(!holdings.is_confirmed(&peer(1), &cid(1)));
            holdings.report(&peer(1), &update(vec![copy(1, reported, PinState::Pinned)]), &Shelf::default(), &options, at(1));
            assert_eq!(holdings.is_confirmed(&peer(1), &cid(1)), confirmed, "version {reported}");
        }
    }

    #[test]
    fn a_report_before_the_wish_is_remembered() {
        let (mut holdings, options) = known();
        holdings.report(&peer(1), &update(vec![copy(1, 7, PinState::Pinned)]), &Shelf::default(), &options, at(1));
        wish(&mut holdings, 1, 7, 2);
        assert!(holdings.is_confirmed(&peer(1), &cid(1)));
    }

    #[test]
    fn what_stays_unconfirmed_is_asked_for_with_growing_pauses() {
        let (mut holdings, _) = known();
        wish(&mut holdings, 1, 7, 0);
        let mut asked = Vec::new();
        for second in 0..40 {
            let mut outbox = Outbox::default();
            holdings.ask(|_| true, &mut outbox, &mut Vec::new(), at(second));
            if outbox.has_questions() {
                asked.push(second);
            }
        }
        assert_eq!(asked, [2, 6, 14, 30]);
    }

    #[test]
    fn a_complete_answer_settles_what_it_does_not_name() {
        let (mut holdings, options) = known();
        wish(&mut holdings, 1, 7, 1);
        wish(&mut holdings, 2, 8, 1);
        holdings.linked(&peer(1), false, at(2));
        holdings.ask(|_| true, &mut Outbox::default(), &mut Vec::new(), at(2));
        wish(&mut holdings, 3, 9, 3);
        let answer = HoldingReport { incarnation: 1, complete: Some(1), answer: 2, copies: vec![copy(2, 8, PinState::PinError)] };
        holdings.report(&peer(1), &answer, &Shelf::default(), &options, at(4));
        assert!(holdings.is_confirmed(&peer(1), &cid(1)), "not named");
        assert_eq!(holdings.exception(&peer(1), &cid(2)).map(|exception| exception.state), Some(PinState::PinError));
        assert!(!holdings.is_confirmed(&peer(1), &cid(3)), "wished after the question");
    }

    #[test]
    fn an_answer_with_a_lost_part_proves_nothing() {
        let (mut holdings, options) = known();
        wish(&mut holdings, 1, 7, 1);
        holdings.linked(&peer(1), false, at(2));
        holdings.ask(|_| true, &mut Outbox::default(), &mut Vec::new(), at(2));
        holdings.report(
            &peer(1),
            &HoldingReport { incarnation: 1, complete: Some(1), answer: 2, copies: Vec::new() },
            &Shelf::default(),
            &options,
            at(3),
        );
        assert!(!holdings.is_confirmed(&peer(1), &cid(1)));
    }

    #[test]
    fn a_new_start_of_the_peer_voids_what_was_known() {
        let (mut holdings, options) = known();
        holdings.report(&peer(1), &HoldingReport { incarnation: 2, ..update(Vec::new()) }, &Shelf::default(), &options, at(1));
        assert!(!holdings.is_known(&peer(1)));
    }

    #[test]
    fn a_peer_that_lost_its_place_holds_until_it_says_otherwise() {
        let (mut holdings, options) = known();
        let before = pin_on(cid(1), &[peer(1)], PinOptions::default());
        let after = pin_on(cid(1), &[peer(2)], PinOptions::default());
        holdings.wish_changed(&cid(1), Some(&before), Some(&(after, 8)), Members { ours: &[peer(1), peer(2)], go: &[] }, at(1));
        assert_eq!(holdings.leaving_holders(&cid(1)).collect::<Vec<_>>(), [peer(1)]);
        holdings.report(&peer(1), &update(vec![copy(1, 8, PinState::Unpinned)]), &Shelf::default(), &options, at(2));
        assert_eq!(holdings.leaving_holders(&cid(1)).count(), 0);
    }

    #[test]
    fn a_late_report_of_letting_go_does_not_stick() {
        let (mut holdings, options) = known();
        let mut shelf = Shelf::default();
        let pin = pin_on(cid(1), &[peer(1)], PinOptions::default());
        shelf.pins.insert(cid(1).to_bytes(), (pin, 8));
        holdings.report(&peer(1), &update(vec![copy(1, 7, PinState::UnpinQueued)]), &shelf, &options, at(1));
        assert!(!holdings.is_confirmed(&peer(1), &cid(1)));
        holdings.report(&peer(1), &update(vec![copy(1, 8, PinState::Pinned)]), &shelf, &options, at(2));
        assert!(holdings.is_confirmed(&peer(1), &cid(1)));
    }
}
