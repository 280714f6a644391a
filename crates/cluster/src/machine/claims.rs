//! Pins with owners: commands that speak for an owner or for the cluster, and what brings a pin back in line with its claims.

use super::Parts;
use super::commands::{Asked, answer, bad_wish};
use crate::context::Context;
use crate::look::Look;
use crate::owner::{self, Projection};
use crate::{Answer, Change, PinChange, RequestId};
use std::collections::{BTreeMap, BTreeSet};
use types::{Cid, Depth, Millis, Pin, PinKind, PinOptions, Replicas};

/// Whoever was asked for a claim writes the pin itself; the others look after so long.
const WRITTEN_BY_THEN: Millis = Millis::seconds(10);
/// Where another peer is the first to write, it is looked again after so long; after so often anybody writes.
const AGAIN: Millis = Millis::seconds(30);
const LOOKS_MOST: u32 = 4;
/// Pins brought in line in one step.
const AT_ONCE: usize = 64;

/// Pins whose claims may say something else than they do.
#[derive(Clone, Debug, Default)]
pub(super) struct Owned {
    /// When each is to be looked at, and how often it was.
    due: BTreeMap<Cid, (Millis, u32)>,
    /// The same by time: after a start all claims are due.
    order: BTreeSet<(Millis, Cid)>,
    /// Pins that were removed although they are claimed: they come back, and nothing is let go meanwhile.
    removed: BTreeMap<Cid, Pin>,
}

impl Owned {
    pub(super) fn look(&mut self, cids: impl IntoIterator<Item = Cid>, at: Millis) {
        for cid in cids {
            let at = self.due.get(&cid).map_or(at, |(before, _)| at.min(*before));
            self.set(cid, at, 0);
        }
    }

    pub(super) fn next_wake(&self) -> Option<Millis> {
        self.order.first().map(|(at, _)| *at)
    }

    fn set(&mut self, cid: Cid, at: Millis, looks: u32) {
        if let Some((before, _)) = self.due.insert(cid, (at, looks)) {
            self.order.remove(&(before, cid));
        }
        self.order.insert((at, cid));
    }

    fn done(&mut self, cid: &Cid) {
        if let Some((at, _)) = self.due.remove(cid) {
            self.order.remove(&(at, *cid));
        }
    }

    /// The first that are due, and how often each was looked at.
    fn first_due(&self, now: Millis) -> Vec<(Cid, u32)> {
        let due = self.order.iter().take_while(|(at, _)| *at <= now).take(AT_ONCE);
        due.map(|(_, cid)| (*cid, self.due.get(cid).map_or(0, |(_, looks)| *looks))).collect()
    }
}

impl Parts {
    /// What the cluster wishes, in the pin of all owners; the wish itself where there are none.
    pub(super) fn laid_over(&self, cid: &Cid, mut options: PinOptions, ctx: &Context) -> PinOptions {
        let claims = self.membership.claims();
        if !claims.has(cid, ctx.now.wall) {
            return options;
        }
        let class = ctx.options.class.replicas();
        let is_default = options.replicas == Replicas::Unset;
        if is_default {
            options.replicas = class;
        }
        let existing = ctx.shared.pin(cid).map(|(pin, _)| pin);
        match claims.project_with(cid, existing.as_ref(), Some(options.clone()), ctx.now.wall) {
            // Where no owner wishes more, what cannot be met yet is made good later, as without owners.
            Projection::Keep(projected) if is_default && projected.replicas == class => {
                PinOptions { replicas: Replicas::Unset, ..*projected }
            }
            Projection::Keep(projected) => *projected,
            Projection::AsIs | Projection::Remove => options,
        }
    }

    /// The claims of a CID changed by a command: its pin follows. `wished`: what else the owner says of a pin that is not there yet.
    pub(super) fn follow_claims(&mut self, request: RequestId, cid: Cid, wished: PinOptions, ctx: &mut Context) {
        let existing = ctx.shared.pin(&cid).map(|(pin, _)| pin);
        match self.membership.claims().project(&cid, existing.as_ref(), ctx.now.wall) {
            Projection::Keep(projected) => {
                let mut options = *projected;
                if existing.is_none() {
                    let metadata = wished.metadata.into_iter().chain(std::mem::take(&mut options.metadata)).collect();
                    options = PinOptions { metadata, origins: wished.origins, shard_size: wished.shard_size, ..options };
                }
                options.prefer = wished.prefer;
                if let Some(pin) = existing.as_ref().filter(|pin| pin.kind == PinKind::Data && options.prefer.is_empty())
                    && owner::most_copies(pin.options.replicas, options.replicas) == pin.options.replicas
                {
                    return self.follow_down(request, pin.clone(), options, None, ctx);
                }
                let asked = Asked { cid, options, depth: Depth::Recursive, size: None, lease: None };
                self.answer_or_submit(request, asked, ctx);
            }
            Projection::Remove => self.remove(request, cid, ctx),
            Projection::AsIs => {
                let said = existing.map_or(Answer::NotPinned, |pin| Answer::Pinned(Box::new(pin)));
                answer(request, said, ctx);
            }
        }
    }

    /// The pin needs no more copies than it has places. Those stay where nobody else could be chosen: letting go must not depend on who is there.
    fn follow_down(&mut self, request: RequestId, pin: Pin, options: PinOptions, done: Option<Answer>, ctx: &mut Context) {
        let placement = match options.replicas {
            replicas if replicas == pin.options.replicas || pin.kind == PinKind::Meta => pin.placement.clone(),
            Replicas::Everywhere => Vec::new(),
            _ => match self.choose(&pin.cid, &options, false, None, &pin.placement, ctx) {
                Ok(placement) => placement,
                // It was everybody's.
                Err(refusal) if pin.placement.is_empty() => return answer(request, *refusal, ctx),
                Err(_) => pin.placement.clone(),
            },
        };
        let pin = Pin { options, placement, ..pin };
        let done = done.unwrap_or_else(|| Answer::Pinned(Box::new(pin.clone())));
        self.write_all(request, vec![Change::Put(Box::new(pin))], done, ctx);
    }

    /// The cluster itself wishes the pin no longer. True when that is all that happens: it has owners, and stays.
    pub(super) fn release_own(&mut self, request: RequestId, pin: &Pin, ctx: &mut Context) -> bool {
        let claims = self.membership.claims();
        if !claims.has(&pin.cid, ctx.now.wall) {
            return false;
        }
        if !owner::is_wished_by_cluster(pin) {
            let owners: Vec<String> =
                claims.of(&pin.cid, ctx.now.wall).take(3).map(|((owner, name), _)| format!("{owner}/{name}")).collect();
            let text = format!(
                "it is kept for its owners alone ({}): each lets go by `pinfold pin rm --owner OWNER {}`",
                owners.join(", "),
                pin.cid
            );
            answer(request, bad_wish(text), ctx);
            return true;
        }
        let Projection::Keep(options) = claims.project_with(&pin.cid, Some(pin), None, ctx.now.wall) else { return false };
        let mut options = *options;
        if pin.kind == PinKind::Meta {
            options.replicas = pin.options.replicas;
        }
        self.follow_down(request, pin.clone(), options, Some(Answer::Unpinned(Box::new(pin.clone()))), ctx);
        true
    }

    /// A pin changed: claims that it does not serve are looked at, at once, since nobody else is about to write it. What is left for the tracker.
    pub(super) fn owned_changed(&mut self, change: &PinChange, ctx: &Context) -> Option<PinChange> {
        let is_claimed = self.membership.claims().has(&change.cid, ctx.now.wall);
        if !is_claimed && !self.owned.removed.contains_key(&change.cid) {
            return Some(change.clone());
        }
        if is_claimed {
            self.owned.look([change.cid], ctx.now.mono);
        }
        match (&change.after, &change.before) {
            (None, Some(before)) if is_claimed => {
                self.owned.removed.insert(change.cid, before.clone());
                None
            }
            _ => {
                let removed = self.owned.removed.remove(&change.cid);
                Some(PinChange { before: removed.or_else(|| change.before.clone()), ..change.clone() })
            }
        }
    }

    /// Records came: pins that they speak of are looked at when whoever wrote them had time to write the pins too.
    pub(super) fn claims_changed(&mut self, ctx: &Context) {
        let touched = self.membership.touched();
        self.owned.look(touched, ctx.now.after(WRITTEN_BY_THEN));
    }

    /// Brings pins in line with their claims.
    pub(super) fn mend_owned(&mut self, ctx: &mut Context) {
        for (cid, looks) in self.owned.first_due(ctx.now.mono) {
            if !ctx.is_current() {
                self.owned.set(cid, ctx.now.after(AGAIN), looks);
                continue;
            }
            let Some(change) = self.mended(&cid, ctx) else {
                self.owned.done(&cid);
                self.let_go_removed(&cid, ctx);
                continue;
            };
            let is_first = {
                let look = look!(self, ctx);
                self.repair.is_first(&cid, look)
            };
            self.owned.set(cid, ctx.now.after(AGAIN), looks + 1);
            if is_first || looks >= LOOKS_MOST {
                self.submit(vec![change], None, ctx);
            }
        }
    }

    /// A removed pin that nobody claims any more goes as any other.
    fn let_go_removed(&mut self, cid: &Cid, ctx: &mut Context) {
        if self.membership.claims().has(cid, ctx.now.wall) || ctx.shared.pin(cid).is_some() {
            return;
        }
        if let Some(before) = self.owned.removed.remove(cid) {
            self.tracker.wish_changed(&PinChange { cid: *cid, before: Some(before), after: None }, ctx);
        }
    }

    /// What would bring a pin in line; none when it is.
    fn mended(&mut self, cid: &Cid, ctx: &Context) -> Option<Change> {
        let existing = ctx.shared.pin(cid).map(|(pin, _)| pin);
        let projected = self.membership.claims().project(cid, existing.as_ref(), ctx.now.wall);
        let mut options = match projected {
            Projection::AsIs => return None,
            Projection::Remove => return Some(Change::Remove(*cid)),
            Projection::Keep(options) => *options,
        };
        let is_default = options.replicas == Replicas::Unset;
        if is_default {
            options.replicas = ctx.options.class.replicas();
        }
        let Some(pin) = existing else {
            let before = self.owned.removed.get(cid);
            let placement = match (options.replicas, before) {
                (Replicas::Everywhere, _) => Vec::new(),
                // Those who held it a moment ago have it.
                (replicas, Some(before)) if before.options.replicas == replicas => before.placement.clone(),
                (_, before) => {
                    self.choose(cid, &options, is_default, None, &before.map(|pin| pin.placement.clone()).unwrap_or_default(), ctx).ok()?
                }
            };
            let created = self.repair.time_for(cid, ctx.now.wall);
            return Some(Change::Put(Box::new(Pin {
                cid: *cid,
                kind: PinKind::Data,
                options,
                placement,
                depth: Depth::Recursive,
                reference: None,
                created,
            })));
        };
        if options == pin.options {
            return None;
        }
        let placement = match (pin.kind, options.replicas) {
            // Copies of shards are theirs; a root has none.
            (PinKind::Meta, _) => {
                options.replicas = pin.options.replicas;
                pin.placement.clone()
            }
            (PinKind::Data, Replicas::Everywhere) => Vec::new(),
            (PinKind::Data, replicas) if replicas == pin.options.replicas => pin.placement.clone(),
            (PinKind::Data, _) => self.choose(cid, &options, is_default, None, &pin.placement, ctx).ok()?,
            (PinKind::Bad | PinKind::ClusterDag | PinKind::Shard, _) => return None,
        };
        if options == pin.options {
            return None;
        }
        Some(Change::Put(Box::new(Pin { options, placement, ..pin })))
    }

    /// Everything that is claimed is looked at: after a start, and when hints were lost.
    pub(super) fn look_at_owned(&mut self, now: types::Now) {
        let cids: BTreeSet<Cid> = self.membership.claims().cids().copied().collect();
        self.owned.look(cids, now.after(WRITTEN_BY_THEN));
    }
}

#[cfg(test)]
mod tests;
