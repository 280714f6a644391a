//! What doors ask. Rules and texts of pinning are Go's, so that its clients understand the answers.

use super::{Parts, Pending};
use crate::context::Context;
use crate::leaving::{End, Leaving};
use crate::look::Look;
use crate::options::PlantedBug;
use crate::owner;
use crate::placement::{self, Rules};
use crate::{Answer, Change, Command, Effect, Missing, Options, RequestId};
use std::collections::BTreeSet;
use types::{ByteCount, Cid, Depth, PeerId, Pin, PinKind, PinOptions, Replicas, UnixMillis};

/// Whether the command changes the wish, or begins what ends with that.
fn is_write(command: &Command) -> bool {
    match command {
        Command::Pin { .. }
        | Command::Unpin { .. }
        | Command::Place { .. }
        | Command::PinUnit { .. }
        | Command::PinRoot(_)
        | Command::DropUnits { .. }
        | Command::RenewUnits { .. }
        | Command::FollowClaims { .. } => true,
        Command::Grow { .. }
        | Command::Replace { .. }
        | Command::Arrived { .. }
        | Command::Release { .. }
        | Command::Recover { .. }
        | Command::Leave { .. }
        | Command::ApproveRemovals
        | Command::SetRecord { .. } => false,
    }
}

/// A pin that a door asks for.
pub(super) struct Asked {
    pub(super) cid: Cid,
    pub(super) options: PinOptions,
    pub(super) depth: Depth,
    pub(super) size: Option<ByteCount>,
    pub(super) lease: Option<u64>,
}

impl Parts {
    pub(super) fn command(&mut self, request: RequestId, command: Command, ctx: &mut Context) {
        if is_write(&command)
            && let Some(why) = self.why_no_writes(ctx.options)
        {
            return answer(request, Answer::Refused(why), ctx);
        }
        match command {
            Command::Pin { cid, options, depth, size, lease } => {
                let options = self.laid_over(&cid, options, ctx);
                self.answer_or_submit(request, Asked { cid, options, depth, size, lease }, ctx);
            }
            Command::Unpin { cid } => self.unpin(request, cid, ctx),
            Command::Place { .. } if self.leaving.is_some() => answer(request, Answer::Refused(Missing::Leaving), ctx),
            Command::Place { options, size } => self.with_desk(ctx, |adding, desk, ctx| adding.place(request, options, size, desk, ctx)),
            Command::Grow { lease, bytes } => self.with_desk(ctx, |adding, desk, ctx| adding.grow(request, lease, bytes, desk, ctx)),
            Command::Replace { lease, broken } => {
                self.with_desk(ctx, |adding, desk, ctx| adding.replace(request, lease, broken, desk, ctx));
            }
            Command::Arrived { lease } => {
                self.adding.arrived(lease, &mut self.space, ctx);
                answer(request, Answer::Done, ctx);
            }
            Command::Release { lease, is_kept } => {
                self.adding.end_as(lease, is_kept, &mut self.space, ctx);
                answer(request, Answer::Done, ctx);
            }
            Command::PinUnit { lease, add, unit } => self.pin_unit(request, lease, &add, &unit, ctx),
            Command::PinRoot(asked) => self.pin_root(request, *asked, ctx),
            Command::DropUnits { add, units } => self.drop_units(request, &add, units, ctx),
            Command::RenewUnits { units } => self.renew_units(request, units, ctx),
            Command::Recover { cid: Some(cid) } if self.pieces.has(&cid) => {
                let units: Vec<Cid> = self.pieces.of(&cid).map(|piece| piece.cid).collect();
                let recovered = units.into_iter().flat_map(|unit| self.tracker.recover(Some(unit), ctx)).collect::<Vec<_>>();
                let recovered = if recovered.is_empty() { recovered } else { vec![cid] };
                answer(request, Answer::Recovered(recovered), ctx);
            }
            Command::Recover { cid } => {
                let recovered = self.tracker.recover(cid, ctx);
                answer(request, Answer::Recovered(recovered), ctx);
            }
            Command::Leave { force } => self.leave(request, force, ctx),
            Command::ApproveRemovals => {
                self.tracker.approve_removals(ctx);
                answer(request, Answer::Done, ctx);
            }
            Command::SetRecord { record } => {
                let said = match self.membership.try_take(record, ctx.options, ctx.effects) {
                    Ok(has_changed) => {
                        if has_changed {
                            self.members_changed(ctx);
                        }
                        Answer::Done
                    }
                    Err(why) => Answer::Refused(Missing::NotWritten(why)),
                };
                self.claims_changed(ctx);
                answer(request, said, ctx);
            }
            Command::FollowClaims { cid, wished } => self.follow_claims(request, cid, *wished, ctx),
        }
    }

    /// Why a write of this peer would be refused, or nobody's but its own.
    pub(super) fn why_no_writes(&self, options: &Options) -> Option<Missing> {
        if options.follower {
            return Some(Missing::Follower);
        }
        let is_alone = self.others.is_empty() && self.distrusted > 0;
        is_alone.then_some(Missing::NotTrusted { peers: self.distrusted, own: options.me })
    }

    pub(super) fn answer_or_submit(&mut self, request: RequestId, asked: Asked, ctx: &mut Context) {
        let lease = asked.lease;
        if let Some(root) = self.root_of(&asked, ctx) {
            // The shards stay; blocks that came with this add are garbage.
            if let Some(lease) = lease {
                self.adding.end(lease, &mut self.space, ctx);
            }
            return self.repin_root(request, root, asked.options, ctx);
        }
        match self.pin_of(asked, ctx) {
            Ok(pin) => {
                let done = Answer::Pinned(Box::new(pin.clone()));
                self.write(request, Change::Put(Box::new(pin)), done, lease, ctx);
            }
            Err(refusal) => answer(request, *refusal, ctx),
        }
    }

    /// The pin there, when a root with shards is pinned again, or added again without being cut.
    fn root_of(&self, asked: &Asked, ctx: &Context) -> Option<Pin> {
        let is_again = self.leaving.is_none() && asked.depth == Depth::Recursive && self.pieces.has(&asked.cid);
        let (pin, _) = if is_again { ctx.shared.pin(&asked.cid)? } else { return None };
        (pin.kind == PinKind::Meta).then_some(pin)
    }

    /// The pin as it will be written, or why not.
    fn pin_of(&mut self, asked: Asked, ctx: &mut Context) -> Result<Pin, Box<Answer>> {
        if self.leaving.is_some() {
            return Err(Box::new(Answer::Refused(Missing::Leaving)));
        }
        if let Some(from) = asked.options.update.filter(|from| *from != asked.cid) {
            return updated(asked, from, ctx);
        }
        let existing = ctx.shared.pin(&asked.cid).map(|(pin, _)| pin);
        check(&asked, existing.as_ref(), ctx.now.wall).map_err(|text| Box::new(bad_wish(text)))?;
        if let Some(size) = asked.size {
            self.space.learn_size(&asked.cid, size);
        }
        let mut options = asked.options;
        let is_default = options.replicas == Replicas::Unset;
        if is_default {
            options.replicas = ctx.options.class.replicas();
        }
        let current = existing.map(|pin| pin.placement).unwrap_or_default();
        let placement = match asked.lease.and_then(|lease| self.adding.holders(lease)) {
            _ if options.replicas == Replicas::Everywhere => Vec::new(),
            Some(holders) => with_holders(&holders, &current),
            None => self.choose(&asked.cid, &options, is_default, asked.size, &current, ctx)?,
        };
        Ok(Pin {
            cid: asked.cid,
            kind: PinKind::Data,
            options,
            placement,
            depth: asked.depth,
            reference: None,
            created: self.repair.time_for(&asked.cid, ctx.now.wall),
        })
    }

    pub(super) fn choose(
        &mut self,
        cid: &Cid,
        options: &PinOptions,
        is_default: bool,
        size: Option<ByteCount>,
        current: &[PeerId],
        ctx: &Context,
    ) -> Result<Vec<PeerId>, Box<Answer>> {
        let class = ctx.options.class;
        let (least, want, most) = match options.replicas {
            // The default is a wish of the cluster, not of the user: what cannot be met yet is made good later.
            _ if is_default => (1, class.want, class.most),
            Replicas::Between { least, most } => (least.get(), most.get(), most.get()),
            Replicas::Unset | Replicas::Everywhere => (1, class.want, class.most),
        };
        let rules = Rules { prefer: options.prefer.clone(), size, avoid: BTreeSet::new(), ..Rules::copies(least, want, most) };
        let look: Look = look!(self, ctx);
        let mut candidates = look.candidates();
        let enough = if is_default { class.least } else { least };
        let valid = current.iter().filter(|peer| placement::filter::may_keep(&candidates, peer)).count();
        // With the default class a pin that is short and could have more copies gets them now.
        let rules = if is_default && valid < enough as usize {
            Rules { least: self.reachable(&candidates, &rules, current), ..rules }
        } else {
            rules
        };
        candidates.sort_by_key(|candidate| candidate.peer);
        match placement::place(cid, &candidates, &rules, current) {
            Ok(placed) => {
                // See `repair::judge`: a Go peer that is taken off the list lets go before anybody else has it.
                let is_safe = look.confirmed_on(cid, &placed.holders, false) >= least;
                let must_stay = |peer: &&PeerId| !is_safe && !placed.holders.contains(peer) && look.health.lets_go_at_once(peer);
                let kept: Vec<PeerId> = current.iter().filter(must_stay).copied().collect();
                for peer in &placed.added {
                    self.health.promise(peer, size.unwrap_or_default());
                }
                Ok(placed.holders.into_iter().chain(kept).collect())
            }
            Err(why) => Err(Box::new(Answer::Refused(Missing::NotEnoughPeers {
                needed: why.needed,
                wanted: why.wanted,
                candidates: why.candidates,
                detail: why.detail(),
            }))),
        }
    }

    /// How many copies there could be, at least one and at most what is wanted.
    fn reachable(&self, candidates: &[placement::Candidate], rules: &Rules, current: &[PeerId]) -> u32 {
        let kept: Vec<PeerId> = current.iter().filter(|peer| placement::filter::may_keep(candidates, peer)).copied().collect();
        let (fit, _) = placement::filter::split(candidates, rules, &kept);
        ((fit.len() + kept.len()) as u32).clamp(1, rules.want.max(1))
    }

    fn unpin(&mut self, request: RequestId, cid: Cid, ctx: &mut Context) {
        let Some((pin, _)) = ctx.shared.pin(&cid) else {
            answer(request, Answer::NotPinned, ctx);
            return;
        };
        if !self.release_own(request, &pin, ctx) {
            self.remove(request, cid, ctx);
        }
    }

    /// Removes a pin, whoever wishes it.
    pub(super) fn remove(&mut self, request: RequestId, cid: Cid, ctx: &mut Context) {
        let Some((pin, _)) = ctx.shared.pin(&cid) else {
            answer(request, Answer::NotPinned, ctx);
            return;
        };
        let refusal = match pin.kind {
            PinKind::Shard => Some("cannot unpin a shard directly. Unpin content root CID instead"),
            PinKind::ClusterDag => Some("cannot unpin a Cluster DAG directly. Unpin content root CID instead"),
            PinKind::Bad => Some("unrecognized pin type"),
            PinKind::Data | PinKind::Meta => None,
        };
        match refusal {
            Some(text) => answer(request, bad_wish(text.to_owned()), ctx),
            None if pin.kind == PinKind::Meta => match self.removal_of_root(&cid, ctx) {
                Some(changes) => self.write_all(request, changes, Answer::Unpinned(Box::new(pin)), ctx),
                None => answer(request, Answer::Refused(Missing::Busy), ctx),
            },
            None => self.write(request, Change::Remove(cid), Answer::Unpinned(Box::new(pin)), None, ctx),
        }
    }

    fn write(&mut self, request: RequestId, change: Change, done: Answer, lease: Option<u64>, ctx: &mut Context) {
        if self.pending.len() >= super::PENDING_MOST {
            answer(request, Answer::Refused(Missing::Busy), ctx);
            return;
        }
        if ctx.options.planted == Some(PlantedBug::AnswersEarly) {
            answer(request, done, ctx);
            self.submit(vec![change], None, ctx);
            return;
        }
        self.submit(vec![change], Some(Pending { request, answer: done, lease }), ctx);
    }

    fn leave(&mut self, request: RequestId, force: bool, ctx: &mut Context) {
        if self.leaving.as_ref().is_some_and(|leaving| !leaving.has_ended) {
            answer(request, Answer::Refused(Missing::Leaving), ctx);
            return;
        }
        self.leaving = Some(Leaving::new(request, force, self.repair.walks, ctx.now));
        self.next_hello = ctx.now.mono;
        self.repair.look_now(ctx);
    }

    /// Says good-bye when everything is handed over or nothing more can be.
    pub(super) fn leave_if_done(&mut self, ctx: &mut Context) {
        if self.leaving.as_ref().is_none_or(|leaving| leaving.has_ended) {
            return;
        }
        let takers = self.health.iter().filter(|(peer, _)| self.health.is_live(peer) && !self.health.is_draining(peer)).count();
        let hand_overs = self.tracker.hand_overs();
        let Some(leaving) = &mut self.leaving else { return };
        let Some(end) = leaving.end(self.repair.counted(), self.repair.walks, hand_overs, takers, ctx.now) else { return };
        let (request, is_forced) = (leaving.request, leaving.is_forced);
        let stranded = match end {
            End::HandedOver => 0,
            End::Stuck { only_here, .. } if is_forced => only_here,
            End::Stuck { pins, only_here } => {
                let detail = look!(self, ctx).why_nobody_takes();
                // It stays: what was handed over is held by others, the rest is served from here as before.
                self.leaving = None;
                self.next_hello = ctx.now.mono;
                answer(request, Answer::Refused(Missing::CannotLeave { pins, only_here, detail }), ctx);
                return;
            }
        };
        leaving.has_ended = true;
        ctx.effects.push(Effect::TellAll(types::PeerMessage::Leaving));
        answer(request, Answer::Left { stranded }, ctx);
    }
}

/// Go's pin update: everything of the old pin, with the new CID, a new name if one is said, a new end if it is ahead.
fn updated(asked: Asked, from: Cid, ctx: &Context) -> Result<Pin, Box<Answer>> {
    let Some((old, _)) = ctx.shared.pin(&from) else { return Err(Box::new(Answer::NotPinned)) };
    if old.kind != PinKind::Data {
        return Err(Box::new(bad_wish("can only update pins of ordinary content".to_owned())));
    }
    let mut options = PinOptions { update: Some(from), ..owner::without_owners(old.options) };
    if !asked.options.name.is_empty() {
        options.name = asked.options.name;
    }
    if let Some(end) = asked.options.expires.filter(|end| *end > ctx.now.wall) {
        options.expires = Some(end);
    }
    Ok(Pin { cid: asked.cid, options, created: UnixMillis::from_seconds(ctx.now.wall.seconds()), ..old })
}

/// Go's checks of a wish against the pin that is there.
fn check(asked: &Asked, existing: Option<&Pin>, wall: UnixMillis) -> Result<(), String> {
    if asked.options.expires.is_some_and(|end| end <= wall) {
        return Err("pin.ExpireAt set before current time".to_owned());
    }
    let Some(existing) = existing else { return Ok(()) };
    if existing.kind != PinKind::Data && existing.kind != PinKind::Bad {
        return Err(format!(
            "cannot repin CID with different tracking method, clear state with pin rm to proceed. New: pin. Was: {}",
            go_name(existing.kind)
        ));
    }
    if existing.depth == Depth::Recursive && asked.depth != Depth::Recursive {
        return Err(
            "cannot repin a CID which is already pinned in recursive mode (new pin is pinned as direct). Unpin it first.".to_owned()
        );
    }
    Ok(())
}

/// The word that Go uses for a kind in its messages.
fn go_name(kind: PinKind) -> &'static str {
    match kind {
        PinKind::Bad => "bad-type",
        PinKind::Data => "pin",
        PinKind::Meta => "meta-pin",
        PinKind::ClusterDag => "clusterdag-pin",
        PinKind::Shard => "shard-pin",
    }
}

/// An add's holders replace the placement; older holders that are among them keep their place.
fn with_holders(holders: &[PeerId], current: &[PeerId]) -> Vec<PeerId> {
    let kept = current.iter().filter(|peer| holders.contains(peer));
    let new = holders.iter().filter(|peer| !current.contains(peer));
    kept.chain(new).copied().collect()
}

pub(super) fn bad_wish(text: String) -> Answer {
    Answer::Refused(Missing::BadWish(text))
}

pub(super) fn answer(request: RequestId, answer: Answer, ctx: &mut Context) {
    ctx.effects.push(Effect::Answer(request, answer));
}
