//! What a drain or a balancing would do, before anything is done: moves, bytes, time, the fill of each peer, what has nowhere to go.
//!
//! Pure and streamed: made from one look at the peers ([`Start`], taken from the machine in a moment) and all pins one after
//! another, outside of the machine's lock and in constant memory. The rules are those of the walk that carries it out
//! (`repair`), so the plan says what the walk will do as long as nothing else changes; carrying it out needs no stored plan,
//! goes on after a restart and can be repeated without harm.
//!
//! Sizes are exact for copies that the planning peer holds too; for others the holder's average counts, and the plan says for
//! how many.

use crate::DefaultClass;
use crate::placement::balance::{self, Role, Share, Shipping, Tolerance};
use crate::placement::{self, Candidate, Rules, filter, score};
use std::collections::{BTreeMap, BTreeSet};
use types::{ByteCount, Cid, Load, Millis, PeerId, Pin, PinKind, Replicas};

/// Weights are fitted anew after so many copies were placed.
const WEIGHTS_GOOD_FOR: u64 = 1_000;
/// CIDs named for each reason why copies have nowhere to go.
const NAMED: usize = 10;

/// What is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Every copy of this peer goes elsewhere.
    Drain(PeerId),
    /// Every peer gets its share.
    Balance,
}

/// One look at the peers.
#[derive(Clone, Debug)]
pub struct Start {
    /// All members.
    pub candidates: Vec<Candidate>,
    /// What each said that it has.
    pub loads: BTreeMap<PeerId, Load>,
    /// Peers whose copies count no more.
    pub lost: BTreeSet<PeerId>,
    /// Copies of a pin that does not say how many.
    pub class: DefaultClass,
    /// Copies of a pin on average, in thousandths.
    pub copies: u64,
    /// Bytes that each peer moves in a minute.
    pub bytes_per_minute: u64,
    /// Pins that each peer re-places in a minute.
    pub pins_per_minute: u64,
}

/// Copies from one peer to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Who gives.
    pub from: PeerId,
    /// Who takes.
    pub to: PeerId,
    /// How many.
    pub copies: u64,
    /// Their bytes.
    pub bytes: ByteCount,
}

/// How full a peer is and will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Which peer.
    pub peer: PeerId,
    /// Its limit; zero when it never said one.
    pub limit: ByteCount,
    /// Used of it.
    pub before: ByteCount,
    /// Used of it afterwards.
    pub after: ByteCount,
}

/// Copies that have nowhere to go, for one reason; they stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// Why, and what would help.
    pub why: String,
    /// How many.
    pub copies: u64,
    /// Their bytes.
    pub bytes: ByteCount,
    /// Some of them.
    pub examples: Vec<Cid>,
}

/// The plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Pins looked at.
    pub pins: u64,
    /// Copies that move.
    pub moves: u64,
    /// Their bytes.
    pub bytes: ByteCount,
    /// Of the moves, those whose size is an average.
    pub estimated: u64,
    /// Copies that are let go, since enough others are there.
    pub dropped: u64,
    /// Of the moves, those that are the only copy; they go first.
    pub only_copies: u64,
    /// Pins that every peer holds: nothing is to be done about them.
    pub everywhere: u64,
    /// From where to where, by peer.
    pub routes: Vec<Route>,
    /// Every member.
    pub fills: Vec<Fill>,
    /// What stays, and why.
    pub stranded: Vec<Stranded>,
    /// How long it takes at the limit that is set, if the network keeps up.
    pub time: Millis,
}

/// Makes a plan out of all pins.
#[derive(Clone, Debug)]
pub struct Planner {
    start: Start,
    goal: Goal,
    givers: BTreeMap<PeerId, Shipping>,
    fills: BTreeMap<PeerId, (u64, u64)>,
    routes: BTreeMap<(PeerId, PeerId), (u64, u64)>,
    stranded: BTreeMap<Why, (u64, u64, Vec<Cid>)>,
    weights: BTreeMap<u64, BTreeMap<PeerId, u64>>,
    placed: u64,
    plan: Plan,
}

/// Why a copy has nowhere to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// So many copies are wished on different peers, and so many peers take any.
    Peers { wished: u32, able: u32 },
    /// Peers take copies and none has room for this one.
    Room,
}

impl Planner {
    /// Begins a plan.
    pub fn new(mut start: Start, goal: Goal) -> Planner {
        let used = |candidate: &Candidate| candidate.limit.get().saturating_sub(candidate.free.get());
        let fills = start.candidates.iter().map(|candidate| (candidate.peer, (used(candidate), used(candidate)))).collect();
        if let Goal::Drain(drained) = goal {
            start.candidates.iter_mut().filter(|candidate| candidate.peer == drained).for_each(|candidate| candidate.is_draining = true);
        }
        let givers = match goal {
            Goal::Balance => givers(&start),
            Goal::Drain(drained) => BTreeMap::from([(drained, drainer(&start, &drained))]),
        };
        let plan = Plan {
            pins: 0,
            moves: 0,
            bytes: ByteCount::ZERO,
            estimated: 0,
            dropped: 0,
            only_copies: 0,
            everywhere: 0,
            routes: Vec::new(),
            fills: Vec::new(),
            stranded: Vec::new(),
            time: Millis(0),
        };
        Planner {
            start,
            goal,
            givers,
            fills,
            routes: BTreeMap::new(),
            stranded: BTreeMap::new(),
            weights: BTreeMap::new(),
            placed: 0,
            plan,
        }
    }

    /// Looks at one pin. `size`: of the planning peer's own copy, if it has one.
    pub fn pin(&mut self, pin: &Pin, size: Option<ByteCount>) {
        self.plan.pins += 1;
        if !matches!(pin.kind, PinKind::Data | PinKind::Shard) {
            return;
        }
        if pin.is_everywhere() {
            self.plan.everywhere += 1;
            return;
        }
        let (least, most) = match pin.options.replicas {
            Replicas::Between { least, most } => (least.get(), most.get()),
            Replicas::Unset | Replicas::Everywhere => (self.start.class.least, self.start.class.most),
        };
        match self.goal {
            Goal::Drain(from) if pin.placement.contains(&from) => self.hand_over(pin, &from, least, size),
            Goal::Drain(_) => {}
            Goal::Balance => self.ship(pin, most, size),
        }
    }

    fn hand_over(&mut self, pin: &Pin, from: &PeerId, least: u32, size: Option<ByteCount>) {
        let is_draining = |peer: &PeerId| self.start.candidates.iter().any(|other| other.peer == *peer && other.is_draining);
        let good: Vec<PeerId> =
            pin.placement.iter().filter(|peer| !self.start.lost.contains(peer) && !is_draining(peer)).copied().collect();
        let missing = (least as usize).saturating_sub(good.len());
        let bytes = size.unwrap_or_else(|| self.mean_size(from));
        if missing == 0 {
            self.plan.dropped += 1;
            self.changed(from, bytes, false);
            return;
        }
        let avoid = BTreeSet::from([*from]);
        let mut rules = Rules { size: Some(bytes), avoid, ..Rules::copies(1, least, least) };
        let candidates = &self.start.candidates;
        let may_take = |peer: &PeerId| {
            let candidate = candidates.iter().find(|candidate| candidate.peer == *peer);
            candidate.is_some_and(|candidate| placement::may_take(candidate, &rules, pin, from, candidates))
        };
        let best = self.givers.get(from).and_then(|shipping| shipping.best(bytes.get(), may_take));
        rules.prefer.extend(best);
        let (fit, _) = filter::split(&self.start.candidates, &rules, &good);
        let copies = (good.len() + missing) as u64;
        let weights = self.weights.entry(copies).or_insert_with(|| score::weights(candidates, copies));
        let gained = placement::add_weighted(&pin.cid, &fit, weights, &rules, &good, candidates, missing);
        let Some(to) = gained.first().copied() else {
            let able = candidates.iter().filter(|other| other.takes_copies() && !good.contains(&other.peer)).count() as u32;
            let why = if able == 0 { Why::Peers { wished: least, able: good.len() as u32 } } else { Why::Room };
            let entry = self.stranded.entry(why).or_default();
            entry.0 += 1;
            entry.1 = entry.1.saturating_add(bytes.get());
            if entry.2.len() < NAMED {
                entry.2.push(pin.cid);
            }
            return;
        };
        if let Some(shipping) = self.givers.get_mut(from) {
            gained.iter().for_each(|peer| shipping.used(peer, bytes.get()));
        }
        self.plan.only_copies += u64::from(good.is_empty());
        self.moved(*from, to, bytes, size.is_none());
        // Copies that were missing before are made good on the way.
        for other in &gained[1..] {
            self.changed(other, bytes, true);
        }
    }

    fn ship(&mut self, pin: &Pin, most: u32, size: Option<ByteCount>) {
        let is_there = |peer: &PeerId| self.start.candidates.iter().any(|other| other.peer == *peer && other.is_up);
        if pin.placement.len() > most as usize || !pin.placement.iter().all(is_there) {
            return;
        }
        for from in &pin.placement {
            let bytes = size.unwrap_or_else(|| self.mean_size(from));
            let Some(shipping) = self.givers.get_mut(from).filter(|shipping| !shipping.is_empty()) else { continue };
            let rules = Rules { size: Some(bytes), ..Rules::copies(1, 1, 1) };
            let candidates = &self.start.candidates;
            let fits = |peer: &PeerId| {
                let candidate = candidates.iter().find(|candidate| candidate.peer == *peer);
                candidate.is_some_and(|candidate| placement::may_take(candidate, &rules, pin, from, candidates))
            };
            if let Some(to) = shipping.take(bytes.get().max(1), fits) {
                self.moved(*from, to, bytes, size.is_none());
                return;
            }
        }
    }

    /// The average size of the peer's copies; of everybody's while it has not said.
    fn mean_size(&self, peer: &PeerId) -> ByteCount {
        let loads = &self.start.loads;
        let of = |loads: &mut dyn Iterator<Item = &Load>| {
            let (bytes, copies) = loads
                .fold((0u64, 0u64), |(bytes, copies), load| (bytes.saturating_add(load.placed.get()), copies.saturating_add(load.copies)));
            bytes.checked_div(copies)
        };
        let own = of(&mut loads.get(peer).into_iter());
        ByteCount(own.or_else(|| of(&mut loads.values())).unwrap_or(0))
    }

    fn moved(&mut self, from: PeerId, to: PeerId, bytes: ByteCount, is_estimated: bool) {
        self.plan.moves += 1;
        self.plan.bytes += bytes;
        self.plan.estimated += u64::from(is_estimated);
        let route = self.routes.entry((from, to)).or_default();
        *route = (route.0 + 1, route.1.saturating_add(bytes.get()));
        self.changed(&from, bytes, false);
        self.changed(&to, bytes, true);
    }

    /// A peer gains or loses bytes.
    fn changed(&mut self, peer: &PeerId, bytes: ByteCount, is_gain: bool) {
        if let Some((_, after)) = self.fills.get_mut(peer) {
            *after = if is_gain { after.saturating_add(bytes.get()) } else { after.saturating_sub(bytes.get()) };
        }
        if let Some(candidate) = self.start.candidates.iter_mut().find(|candidate| candidate.peer == *peer) {
            if is_gain {
                candidate.free = candidate.free - bytes;
                candidate.placed += bytes;
            } else {
                candidate.free += bytes;
                candidate.placed = candidate.placed - bytes;
            }
        }
        self.placed += 1;
        if self.placed.is_multiple_of(WEIGHTS_GOOD_FOR) {
            self.weights.clear();
        }
    }

    /// The plan, after all pins.
    pub fn finish(mut self) -> Plan {
        let mut by_giver: BTreeMap<PeerId, (u64, u64)> = BTreeMap::new();
        for ((from, to), (copies, bytes)) in &self.routes {
            self.plan.routes.push(Route { from: *from, to: *to, copies: *copies, bytes: ByteCount(*bytes) });
            let given = by_giver.entry(*from).or_default();
            *given = (given.0 + copies, given.1.saturating_add(*bytes));
        }
        let minutes = |amount: u64, a_minute: u64| (u128::from(amount) * 60_000).checked_div(u128::from(a_minute)).unwrap_or(0) as u64;
        let time =
            |(copies, bytes): &(u64, u64)| minutes(*copies, self.start.pins_per_minute).max(minutes(*bytes, self.start.bytes_per_minute));
        self.plan.time = Millis(by_giver.values().map(time).max().unwrap_or(0));
        let largest = self.start.candidates.iter().filter(|other| other.takes_copies()).map(|other| other.free).max().unwrap_or_default();
        for (why, (copies, bytes, examples)) in std::mem::take(&mut self.stranded) {
            let why = match why {
                Why::Peers { wished, able } => format!(
                    "{wished} copies are wished on different peers and only {able} other peers take any: add a peer, or ask for fewer copies"
                ),
                Why::Room => format!("no peer has room for it (the most free is {largest}): add room or a peer"),
            };
            self.plan.stranded.push(Stranded { why, copies, bytes: ByteCount(bytes), examples });
        }
        let fill = |candidate: &Candidate| {
            let (before, after) = self.fills.get(&candidate.peer).copied().unwrap_or_default();
            let limit = if candidate.limit.get() == u64::MAX { ByteCount::ZERO } else { candidate.limit };
            Fill { peer: candidate.peer, limit, before: ByteCount(before), after: ByteCount(after) }
        };
        self.plan.fills = self.start.candidates.iter().map(fill).collect();
        self.plan
    }
}

/// What each peer has to give for an even spread.
fn givers(start: &Start) -> BTreeMap<PeerId, Shipping> {
    let (shares, moving) = shares(&start.candidates, &start.loads);
    let targets = balance::targets(&shares, moving, start.copies);
    if !balance::is_uneven(&shares, &targets, Tolerance::ASKED) {
        return BTreeMap::new();
    }
    shares.iter().map(|share| (share.peer, Shipping::new(balance::lanes(&share.peer, &shares, &targets), false))).collect()
}

/// What each other peer lacks when one gives everything.
fn drainer(start: &Start, drained: &PeerId) -> Shipping {
    let (shares, moving) = shares(&start.candidates, &start.loads);
    let targets = balance::targets(&shares, moving, start.copies);
    Shipping::new(balance::shipments(drained, &shares, &targets), true)
}

/// What everybody has and how it takes part, and bytes on their way.
pub fn shares(candidates: &[Candidate], loads: &BTreeMap<PeerId, Load>) -> (Vec<Share>, u64) {
    let share = |candidate: &Candidate| {
        let load = loads.get(&candidate.peer);
        let role = match load {
            Some(_) if candidate.is_up && candidate.is_draining => Role::Drains,
            Some(_) if candidate.takes_copies() => Role::Full,
            _ => Role::Fixed,
        };
        let placed = load.map_or(0, |load| load.placed.get());
        Share { peer: candidate.peer, capacity: candidate.capacity.get(), placed, role }
    };
    // What a peer that fell silent or left said last has long come where it was going.
    let there = candidates.iter().filter(|candidate| candidate.is_up).filter_map(|candidate| loads.get(&candidate.peer));
    let moving = there.fold(0u64, |sum, load| sum.saturating_add(load.moving.get()));
    (candidates.iter().map(share).collect(), moving)
}

#[cfg(test)]
mod spread;
#[cfg(test)]
mod tests;
