//! Adds under way: holders are chosen and room is reserved with them before the first block.
//!
//! Choose, ask, gather for two seconds; who refuses or is silent is replaced by the next candidate. The reservation grows
//! with the stream and ends with the pin, with `Release`, or ten minutes after the last word of the add.

mod given;

use self::given::Given;
use crate::context::Context;
use crate::placement::{self, Candidate, Rules, filter};
use crate::shards;
use crate::space::Space;
use crate::{Answer, Effect, Missing, Options, PlantedBug, RequestId};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use types::{ByteCount, Cid, Millis, Now, PeerId, PeerMessage, PinOptions, Refusal, Replicas};

/// Holders answer within this.
const ANSWER_WITHIN: Millis = Millis::seconds(2);
/// Adds under way at a time.
const ADDS_MOST: usize = 1_000;
/// An add of which nothing was heard for so long has ended.
const FORGOTTEN: Millis = Millis::minutes(10);
/// Reserved at first for an add of unknown size; it grows with the stream.
const FIRST_RESERVE: ByteCount = ByteCount::MIB;

#[derive(Clone, Debug)]
struct Add {
    options: PinOptions,
    /// What grows beyond this is cut.
    unit: ByteCount,
    bytes: ByteCount,
    least: usize,
    want: usize,
    granted: Vec<PeerId>,
    asked: BTreeMap<PeerId, Millis>,
    refused: BTreeMap<PeerId, String>,
    question: Option<Question>,
    touched: Millis,
    /// The pin of its unit is written: what it brought counts as given.
    is_pinned: bool,
}

/// Who waits for an answer, and what it is when nobody had to be replaced.
#[derive(Clone, Debug)]
struct Question {
    request: RequestId,
    is_grow: bool,
    has_replaced: bool,
}

/// All adds of this peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Adding {
    adds: BTreeMap<u64, Add>,
    given: Given,
}

/// What adds look at and change beside themselves.
pub(crate) struct Desk<'a> {
    pub candidates: Vec<Candidate>,
    pub space: &'a mut Space,
}

impl Adding {
    /// Begins an add.
    pub fn place(&mut self, request: RequestId, mut options: PinOptions, size: Option<ByteCount>, desk: &mut Desk, ctx: &mut Context) {
        if self.adds.len() >= ADDS_MOST {
            ctx.effects.push(Effect::Answer(request, Answer::Refused(Missing::Busy)));
            return;
        }
        let (least, want) = copies_of(&options, ctx.options);
        if options.replicas == Replicas::Unset {
            options.replicas = ctx.options.class.replicas();
        }
        let unit = if ctx.options.shards { shards::unit_size(options.shard_size, &desk.candidates) } else { ByteCount(u64::MAX) };
        if let Some(missing) = size.and_then(|size| too_much(size, unit, least, want, &desk.candidates)) {
            ctx.effects.push(Effect::Answer(request, Answer::Refused(missing)));
            return;
        }
        let lease = ctx.ids.lease(ctx.options.incarnation);
        let add = Add {
            options,
            unit,
            bytes: size.unwrap_or(FIRST_RESERVE).min(unit),
            least,
            want,
            granted: Vec::new(),
            asked: BTreeMap::new(),
            refused: BTreeMap::new(),
            question: Some(Question { request, is_grow: false, has_replaced: false }),
            touched: ctx.now.mono,
            is_pinned: false,
        };
        self.adds.insert(lease, add);
        self.fill(lease, desk, ctx);
    }

    /// The add needs more room.
    pub fn grow(&mut self, request: RequestId, lease: u64, bytes: ByteCount, desk: &mut Desk, ctx: &mut Context) {
        let Some(add) = self.adds.get_mut(&lease) else { return refuse_unknown(request, ctx) };
        add.bytes = add.bytes.max(bytes);
        add.touched = ctx.now.mono;
        add.question = Some(Question { request, is_grow: true, has_replaced: false });
        for peer in std::mem::take(&mut add.granted) {
            ask(add, lease, peer, desk, ctx);
        }
        self.fill(lease, desk, ctx);
    }

    /// A holder's lane broke.
    pub fn replace(&mut self, request: RequestId, lease: u64, broken: PeerId, desk: &mut Desk, ctx: &mut Context) {
        let Some(add) = self.adds.get_mut(&lease) else { return refuse_unknown(request, ctx) };
        add.touched = ctx.now.mono;
        add.granted.retain(|peer| *peer != broken);
        add.asked.remove(&broken);
        add.refused.insert(broken, "its lane broke".to_owned());
        add.question = Some(Question { request, is_grow: false, has_replaced: true });
        end_lease(lease, &broken, desk.space, ctx);
        self.fill(lease, desk, ctx);
    }

    /// A holder answered.
    pub fn reserved(&mut self, peer: PeerId, lease: u64, refused: Option<Refusal>, desk: &mut Desk, ctx: &mut Context) {
        let Some(add) = self.adds.get_mut(&lease) else { return };
        if add.asked.remove(&peer).is_none() {
            return;
        }
        match refused {
            None => add.granted.push(peer),
            Some(refusal) => {
                let words = in_words(&refusal, add.bytes);
                refuse(add, peer, words);
            }
        }
        self.fill(lease, desk, ctx);
    }

    /// The add ended: all its reservations are free. Its holders, when it was known.
    pub fn end(&mut self, lease: u64, space: &mut Space, ctx: &mut Context) {
        self.end_as(lease, false, space, ctx);
    }

    /// The same; `is_kept`: what it brought is pinned and confirmed by its holders.
    pub fn end_as(&mut self, lease: u64, is_kept: bool, space: &mut Space, ctx: &mut Context) {
        let Some(add) = self.adds.remove(&lease) else { return };
        for peer in add.granted.iter().chain(add.asked.keys()) {
            end_lease_as(lease, peer, is_kept, space, ctx);
        }
    }

    /// Everything came: nothing more is reserved, and the add goes on to keep its blocks.
    pub fn arrived(&self, lease: u64, space: &mut Space, ctx: &mut Context) {
        let Some(add) = self.adds.get(&lease) else { return };
        for peer in &add.granted {
            end_lease(lease, peer, space, ctx);
        }
    }

    /// The holders of an add and its options, for its pin.
    pub fn holders(&self, lease: u64) -> Option<Vec<PeerId>> {
        self.adds.get(&lease).map(|add| add.granted.clone())
    }

    /// A unit that the add brought is pinned on its holders.
    pub fn pinned(&mut self, lease: u64, cid: &Cid, bytes: ByteCount, now: Now) {
        let Some(add) = self.adds.get_mut(&lease).filter(|add| !add.is_pinned) else { return };
        add.is_pinned = true;
        for peer in &add.granted {
            self.given.note(*peer, *cid, bytes, now);
        }
    }

    /// A peer said what it has.
    pub fn shown(&mut self, peer: &PeerId, is_confirmed: impl Fn(&Cid, Millis) -> bool, now: Now) {
        self.given.shown(peer, is_confirmed, now);
    }

    /// The own peer has what came.
    pub fn settle(&mut self, me: &PeerId, is_here: impl Fn(&Cid, Millis) -> bool) {
        self.given.settle(me, is_here);
    }

    /// Bytes that this peer's adds bring to each of these peers, and that what they said does not show: reserved ones of adds
    /// under way, and copies of which they have not told.
    pub fn brings<'a>(&self, peers: impl Iterator<Item = &'a PeerId>, options: &Options) -> BTreeMap<PeerId, ByteCount> {
        if options.planted == Some(PlantedBug::ForgetsGiven) {
            return BTreeMap::new();
        }
        let mut brings: BTreeMap<PeerId, ByteCount> = peers.map(|peer| (*peer, self.given.bytes(peer))).collect();
        for add in self.adds.values().filter(|add| !add.is_pinned) {
            for peer in add.granted.iter().chain(add.asked.keys()) {
                if let Some(bytes) = brings.get_mut(peer) {
                    *bytes += add.bytes;
                }
            }
        }
        brings
    }

    /// What an add wishes, the default class applied.
    pub fn options(&self, lease: u64) -> Option<PinOptions> {
        self.adds.get(&lease).map(|add| add.options.clone())
    }

    /// Gives up on silent holders and forgotten adds.
    pub fn advance(&mut self, desk: &mut Desk, ctx: &mut Context) {
        let late: Vec<u64> =
            self.adds.iter().filter(|(_, add)| add.asked.values().any(|at| *at <= ctx.now.mono)).map(|(lease, _)| *lease).collect();
        for lease in late {
            let Some(add) = self.adds.get_mut(&lease) else { continue };
            let silent: Vec<PeerId> = add.asked.iter().filter(|(_, at)| **at <= ctx.now.mono).map(|(peer, _)| *peer).collect();
            for peer in silent {
                add.asked.remove(&peer);
                refuse(add, peer, "did not answer in time".to_owned());
                end_lease(lease, &peer, desk.space, ctx);
            }
            self.fill(lease, desk, ctx);
        }
        let forgotten: Vec<u64> = self
            .adds
            .iter()
            .filter(|(_, add)| add.touched.0.saturating_add(FORGOTTEN.0) <= ctx.now.mono.0)
            .map(|(lease, _)| *lease)
            .collect();
        for lease in forgotten {
            self.end(lease, desk.space, ctx);
        }
    }

    /// When [`Adding::advance`] next has something to do.
    pub fn next_wake(&self) -> Option<Millis> {
        self.adds.values().flat_map(|add| add.asked.values().copied().chain([Millis(add.touched.0.saturating_add(FORGOTTEN.0))])).min()
    }

    /// Asks further candidates until there are enough, and answers when all asked ones have answered.
    fn fill(&mut self, lease: u64, desk: &mut Desk, ctx: &mut Context) {
        let Some(add) = self.adds.get_mut(&lease) else { return };
        while add.granted.len() + add.asked.len() < add.want {
            let Some(peer) = next_candidate(add, lease, desk, ctx.options) else { break };
            ask(add, lease, peer, desk, ctx);
        }
        if !add.asked.is_empty() {
            return;
        }
        let Some(question) = add.question.take() else { return };
        if add.granted.len() < add.least.max(1) {
            let missing = Missing::NotEnoughPeers {
                needed: add.least as u32,
                wanted: add.want as u32,
                candidates: add.granted.len() as u32,
                detail: refusals(add, desk, ctx.options),
            };
            self.end(lease, desk.space, ctx);
            ctx.effects.push(Effect::Answer(question.request, Answer::Refused(missing)));
            return;
        }
        let answer = if question.is_grow && !question.has_replaced {
            Answer::Done
        } else {
            Answer::Placed { lease, holders: add.granted.clone(), options: Box::new(add.options.clone()), unit: add.unit }
        };
        ctx.effects.push(Effect::Answer(question.request, answer));
    }
}

/// Copies that an add needs at least and wants: at least one when the wish does not say it; of what everybody will hold,
/// as many as the default class wants are made by the add and the rest follow.
fn copies_of(options: &PinOptions, cluster: &Options) -> (usize, usize) {
    match options.replicas {
        Replicas::Between { least, most } => (least.get() as usize, most.get() as usize),
        Replicas::Unset => (1, cluster.class.want.max(1) as usize),
        Replicas::Everywhere => (1, cluster.class.want.max(1) as usize),
    }
}

/// Why an add that will be cut cannot fit into all peers together; what is no larger than a unit is asked of the holders themselves.
fn too_much(size: ByteCount, unit: ByteCount, least: usize, want: usize, candidates: &[Candidate]) -> Option<Missing> {
    if size <= unit {
        return None;
    }
    let able = || candidates.iter().filter(|candidate| candidate.is_up && !candidate.is_draining);
    let free = able().fold(0u64, |sum, candidate| sum.saturating_add(candidate.free.get()));
    let needed = size.get().saturating_mul(least.max(1) as u64);
    (needed > free).then(|| Missing::NotEnoughPeers {
        needed: least as u32,
        wanted: want as u32,
        candidates: able().count() as u32,
        detail: format!(
            "{size} in {} copies need {}; all peers together have {} free: add peers, free space or ask for fewer copies.",
            least.max(1),
            ByteCount(needed),
            ByteCount(free)
        ),
    })
}

fn rules(add: &Add, options: &Options) -> Rules {
    let mut prefer = add.options.prefer.clone();
    if add.options.replicas == Replicas::Everywhere {
        prefer.push(options.me);
    }
    let avoid: BTreeSet<PeerId> = add.refused.keys().copied().collect();
    Rules { prefer, size: Some(add.bytes), avoid, ..Rules::copies(1, add.want as u32, add.want as u32) }
}

fn next_candidate(add: &Add, lease: u64, desk: &Desk, options: &Options) -> Option<PeerId> {
    let rules = rules(add, options);
    let taken: Vec<PeerId> = add.granted.iter().chain(add.asked.keys()).copied().collect();
    let (fit, _) = filter::split(&desk.candidates, &rules, &taken);
    let key = key(lease, &options.me);
    // Whole units fill the peers alike; what is small is spread by chance, so that not all of it falls on who came last.
    let chosen = match options.shards && add.bytes >= add.unit {
        true => placement::add_evenly(&key, &fit, add.bytes, &rules, &taken, &desk.candidates, 1),
        false => placement::add(&key, &fit, &rules, &taken, &desk.candidates, 1),
    };
    chosen.into_iter().next()
}

/// A CID that stands for the add, whose root is not known yet.
fn key(lease: u64, me: &PeerId) -> Cid {
    let mut hasher = Sha256::new();
    hasher.update(me.as_bytes());
    hasher.update(lease.to_be_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    cid::multihash::Multihash::wrap(0x12, &digest).map_or_else(|_| Cid::default(), |hash| Cid::new_v1(0x55, hash))
}

fn ask(add: &mut Add, lease: u64, peer: PeerId, desk: &mut Desk, ctx: &mut Context) {
    if peer == ctx.options.me {
        match desk.space.reserve(peer, lease, add.bytes, ctx.now) {
            Ok(()) => add.granted.push(peer),
            Err(free) => {
                let words = in_words(&Refusal::NoRoom { free }, add.bytes);
                refuse(add, peer, words);
                desk.space.forget(peer, lease);
            }
        }
        return;
    }
    add.asked.insert(peer, ctx.now.after(ANSWER_WITHIN));
    ctx.effects.push(Effect::Tell(peer, PeerMessage::Reserve { lease, bytes: add.bytes }));
}

fn refuse(add: &mut Add, peer: PeerId, why: String) {
    add.refused.insert(peer, why);
    if let Some(question) = &mut add.question {
        question.has_replaced = true;
    }
}

fn end_lease(lease: u64, peer: &PeerId, space: &mut Space, ctx: &mut Context) {
    end_lease_as(lease, peer, false, space, ctx);
}

fn end_lease_as(lease: u64, peer: &PeerId, is_kept: bool, space: &mut Space, ctx: &mut Context) {
    if *peer == ctx.options.me {
        if space.release(*peer, lease) {
            ctx.effects.push(Effect::Measure);
        }
    } else {
        ctx.effects.push(Effect::Tell(*peer, PeerMessage::Release { lease, is_kept }));
    }
}

fn refuse_unknown(request: RequestId, ctx: &mut Context) {
    let missing = Missing::BadWish("this add has ended: begin it anew".to_owned());
    ctx.effects.push(Effect::Answer(request, Answer::Refused(missing)));
}

fn in_words(refusal: &Refusal, needed: ByteCount) -> String {
    match refusal {
        Refusal::NoRoom { free } => format!("has no room (needs {needed}, free {free})"),
        Refusal::Draining => "is draining".to_owned(),
    }
}

fn refusals(add: &Add, desk: &Desk, options: &Options) -> String {
    let mut words: Vec<String> = add.refused.iter().map(|(peer, why)| format!("{} {why}", peer.short())).collect();
    let (_, unfit) = filter::split(&desk.candidates, &rules(add, options), &add.granted);
    words.extend(unfit.iter().filter(|(peer, _)| !add.refused.contains_key(peer)).map(|(peer, why)| format!("{} {why}", peer.short())));
    if words.is_empty() { "There are no other peers.".to_owned() } else { format!("Not fit: {}.", words.join(", ")) }
}

#[cfg(test)]
mod tests;
