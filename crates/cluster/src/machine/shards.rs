//! Roots with shards: their units are written before the root, belong to it by its write, and go with it.

use super::{Parts, Pending};
use crate::context::Context;
use crate::look::Look;
use crate::owner::most_copies;
use crate::placement::filter;
use crate::shards::{self, Belongs, Piece};
use crate::{Answer, Change, Effect, Missing, PinChange, RequestId};
use std::collections::BTreeSet;
use types::{ByteCount, Cid, Depth, Pin, PinKind, PinOptions, Replicas, UnixMillis};

/// A unit that an add has cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUnit {
    /// Its list.
    pub cid: Cid,
    /// Place in the order of the stream, from 1.
    pub number: u32,
    /// Nodes above the cuts.
    pub is_spine: bool,
    /// Bytes.
    pub bytes: ByteCount,
}

/// A root whose units are all pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRoot {
    /// The root that people know.
    pub root: Cid,
    /// What is wished.
    pub options: PinOptions,
    /// The name of the add.
    pub add: String,
    /// The head that names the units; one of them.
    pub head: Cid,
    /// All units.
    pub units: Vec<NewUnit>,
    /// Bytes of the whole.
    pub size: ByteCount,
}

impl NewUnit {
    fn belongs(&self, owner: &str, head: Option<Cid>) -> Belongs {
        Belongs { owner: owner.to_owned(), number: self.number, is_spine: self.is_spine, bytes: self.bytes, head }
    }
}

impl Parts {
    /// A unit lies with its holders: it becomes a pin that ends by itself unless the add comes to its end.
    pub(super) fn pin_unit(&mut self, request: RequestId, lease: u64, add: &str, unit: &NewUnit, ctx: &mut Context) {
        let Some((holders, options)) = self.adding.holders(lease).zip(self.adding.options(lease)) else {
            return refuse(request, "this add has ended: begin it anew", ctx);
        };
        let existing = ctx.shared.pin(&unit.cid).map(|(pin, _)| pin);
        if existing.as_ref().is_some_and(|pin| !matches!(pin.kind, PinKind::Shard | PinKind::Bad)) {
            return refuse(request, &format!("{} is a shard of this add and a pin of its own: unpin it first", unit.cid), ctx);
        }
        self.space.learn_size(&unit.cid, unit.bytes);
        let replicas = if unit.is_spine { shards::settled_spine(options.replicas, holders.len()) } else { options.replicas };
        let end = UnixMillis(ctx.now.wall.0 + shards::UNDER_WAY.0);
        let created = self.repair.time_for(&unit.cid, ctx.now.wall);
        let mut pin = match existing.filter(|pin| pin.kind == PinKind::Shard) {
            // Known already: its holders stay where they have it, and whoever wants the most copies gets them.
            Some(mut known) => {
                let is_safe = look!(self, ctx).confirmed_live(&known) > 0;
                if !is_safe {
                    known.placement.extend(holders.iter().filter(|holder| !known.placement.contains(holder)).copied().collect::<Vec<_>>());
                }
                known.options.replicas = most_copies(known.options.replicas, replicas);
                known.options.expires = known.options.expires.map(|known| known.max(end));
                known
            }
            None => Pin {
                cid: unit.cid,
                kind: PinKind::Shard,
                options: PinOptions { replicas, shard_size: unit.bytes.get(), expires: Some(end), ..PinOptions::default() },
                placement: if replicas == Replicas::Everywhere { Vec::new() } else { holders },
                depth: Depth::Recursive,
                reference: None,
                created,
            },
        };
        self.adding.pinned(lease, &unit.cid, unit.bytes, ctx.now);
        shards::add_owner(&mut pin, &unit.belongs(add, None));
        let done = Answer::Pinned(Box::new(pin.clone()));
        self.write_all(request, vec![Change::Put(Box::new(pin))], done, ctx);
    }

    /// The add came to its end: its units belong to the root from now on, and the root is pinned, in one write.
    pub(super) fn pin_root(&mut self, request: RequestId, asked: NewRoot, ctx: &mut Context) {
        let NewRoot { root, mut options, add, head, units, size } = asked;
        if self.leaving.is_some() {
            return answer(request, Answer::Refused(Missing::Leaving), ctx);
        }
        if options.expires.is_some_and(|end| end <= ctx.now.wall) {
            return refuse(request, "pin.ExpireAt set before current time", ctx);
        }
        if options.replicas == Replicas::Unset {
            options.replicas = ctx.options.class.replicas();
        }
        let owner = root.to_string();
        let mut changes = Vec::with_capacity(units.len() + 1);
        let mut named = BTreeSet::new();
        for unit in &units {
            if !named.insert(unit.cid) {
                continue;
            }
            let Some((mut pin, _)) = ctx.shared.pin(&unit.cid).filter(|(pin, _)| pin.kind == PinKind::Shard) else {
                return refuse(request, &format!("shard {} of this add is gone from the shared state: add again", unit.number), ctx);
            };
            shards::remove_owner(&mut pin, &add);
            shards::add_owner(&mut pin, &unit.belongs(&owner, Some(head)));
            pin.options.expires = None;
            changes.push(Change::Put(Box::new(pin)));
        }
        // An earlier cutting of the same root.
        let earlier: Vec<Piece> = self.pieces.of(&root).filter(|piece| !named.contains(&piece.cid)).collect();
        changes.extend(self.disown(earlier.iter().map(|piece| piece.cid), &owner, ctx));
        let count = units.iter().filter(|unit| !unit.is_spine).count();
        options.metadata.insert(shards::COUNT.to_owned(), count.to_string());
        options.metadata.insert(shards::SIZE.to_owned(), size.get().to_string());
        let pin = Pin {
            cid: root,
            kind: PinKind::Meta,
            options,
            placement: Vec::new(),
            depth: Depth::DIRECT,
            reference: Some(head),
            created: self.repair.time_for(&root, ctx.now.wall),
        };
        changes.push(Change::Put(Box::new(pin.clone())));
        self.write_all(request, changes, Answer::Pinned(Box::new(pin)), ctx);
    }

    /// The add ended without a root.
    pub(super) fn drop_units(&mut self, request: RequestId, add: &str, units: Vec<Cid>, ctx: &mut Context) {
        let changes = self.disown(units.into_iter(), add, ctx);
        self.write_all(request, changes, Answer::Done, ctx);
    }

    /// The add goes on: its units stay.
    pub(super) fn renew_units(&mut self, request: RequestId, units: Vec<Cid>, ctx: &mut Context) {
        let end = UnixMillis(ctx.now.wall.0 + shards::UNDER_WAY.0);
        let pins = units.iter().filter_map(|cid| ctx.shared.pin(cid)).map(|(pin, _)| pin);
        let ending = pins.filter(|pin| pin.kind == PinKind::Shard && pin.options.expires.is_some_and(|known| known < end));
        let changes = ending.map(|mut pin| {
            pin.options.expires = Some(end);
            Change::Put(Box::new(pin))
        });
        let changes = changes.collect();
        self.write_all(request, changes, Answer::Done, ctx);
    }

    /// What takes a root's units along when it is removed; none while not all of them are known.
    pub(super) fn removal_of_root(&self, root: &Cid, ctx: &Context) -> Option<Vec<Change>> {
        if !self.pieces.is_complete() {
            return None;
        }
        let units: Vec<Cid> = self.pieces.of(root).map(|piece| piece.cid).collect();
        let mut changes = vec![Change::Remove(*root)];
        changes.extend(self.disown(units.into_iter(), &root.to_string(), ctx));
        Some(changes)
    }

    /// Removes units from an owner; what has no other one ends.
    pub(super) fn disown(&self, units: impl Iterator<Item = Cid>, owner: &str, ctx: &Context) -> Vec<Change> {
        let mut changes = Vec::new();
        for cid in units {
            let Some((mut pin, _)) = ctx.shared.pin(&cid).filter(|(pin, _)| pin.kind == PinKind::Shard) else { continue };
            if !shards::remove_owner(&mut pin, owner) {
                changes.push(Change::Remove(cid));
                continue;
            }
            // Left to adds under way, which renew it or let it end.
            if shards::owners(&pin).iter().all(|belongs| belongs.root().is_none()) && pin.options.expires.is_none() {
                pin.options.expires = Some(UnixMillis(ctx.now.wall.0 + shards::UNDER_WAY.0));
            }
            changes.push(Change::Put(Box::new(pin)));
        }
        changes
    }

    /// Pinning a root that has shards: name, end and metadata are the root's, copies those of all its units.
    pub(super) fn repin_root(&mut self, request: RequestId, root: Pin, wished: PinOptions, ctx: &mut Context) {
        if wished.expires.is_some_and(|end| end <= ctx.now.wall) {
            return refuse(request, "pin.ExpireAt set before current time", ctx);
        }
        if !self.pieces.is_complete() {
            return answer(request, Answer::Refused(Missing::Busy), ctx);
        }
        let mut options = wished;
        if options.replicas == Replicas::Unset {
            options.replicas = ctx.options.class.replicas();
        }
        options.update = None;
        options.shard_size = root.options.shard_size;
        for key in [shards::COUNT, shards::SIZE] {
            if let Some(value) = root.options.metadata.get(key) {
                options.metadata.insert(key.to_owned(), value.clone());
            }
        }
        let mut changes = Vec::new();
        if options.replicas != root.options.replicas {
            let pieces: Vec<Piece> = self.pieces.of(&root.cid).collect();
            let candidates = look!(self, ctx).candidates();
            let able = candidates.iter().filter(|candidate| filter::may_keep(&candidates, &candidate.peer)).count();
            if let Replicas::Between { least, most } = options.replicas
                && (able as u32) < least.get()
            {
                let detail = "Not all shards could have so many copies.".to_owned();
                let missing = Missing::NotEnoughPeers { needed: least.get(), wanted: most.get(), candidates: able as u32, detail };
                return answer(request, Answer::Refused(missing), ctx);
            }
            for piece in pieces {
                let Some((mut pin, _)) = ctx.shared.pin(&piece.cid) else { continue };
                let is_shared = shards::owners(&pin).len() > 1;
                let wish = match piece.is_spine {
                    true => shards::settled_spine(shards::spine_copies(options.replicas), able),
                    false => options.replicas,
                };
                let replicas = if is_shared { most_copies(pin.options.replicas, wish) } else { wish };
                pin.placement = match replicas {
                    Replicas::Everywhere => Vec::new(),
                    _ => match self.choose(
                        &piece.cid,
                        &PinOptions { replicas, ..PinOptions::default() },
                        false,
                        Some(piece.bytes),
                        &pin.placement,
                        ctx,
                    ) {
                        Ok(placement) => placement,
                        Err(refusal) => return answer(request, *refusal, ctx),
                    },
                };
                pin.options.replicas = replicas;
                changes.push(Change::Put(Box::new(pin)));
            }
        }
        let pin = Pin { options, created: self.repair.time_for(&root.cid, ctx.now.wall), ..root };
        changes.push(Change::Put(Box::new(pin.clone())));
        self.write_all(request, changes, Answer::Pinned(Box::new(pin)), ctx);
    }

    /// Another peer wrote a unit without knowing of one of its owners (both writes stood side by side): the owner is put back.
    pub(super) fn heal_owners(&mut self, before: &Pin, after: &Pin, ctx: &mut Context) {
        let (was, is) = (shards::owners(before), shards::owners(after));
        let is_lost = |belongs: &&Belongs| {
            let root = belongs.root().and_then(|root| ctx.shared.pin(&root));
            let is_wished = root.is_some_and(|(root, _)| root.kind == PinKind::Meta && root.reference == belongs.head);
            is_wished && !is.iter().any(|other| other.owner == belongs.owner)
        };
        let lost: Vec<&Belongs> = was.iter().filter(is_lost).collect();
        if lost.is_empty() || after.kind != PinKind::Shard {
            return;
        }
        let mut pin = after.clone();
        lost.iter().for_each(|belongs| shards::add_owner(&mut pin, belongs));
        pin.options.expires = None;
        self.submit(vec![Change::Put(Box::new(pin))], None, ctx);
    }

    /// A pin changed: which units a root has may have changed with it.
    pub(super) fn piece_changed(&mut self, change: &PinChange, ctx: &mut Context) {
        let Some((after, _)) = &change.after else {
            self.pieces.forget(&change.cid);
            return;
        };
        if after.kind == PinKind::Shard
            && let Some(belongs) = shards::owners(after).first()
        {
            self.space.learn_size(&change.cid, belongs.bytes);
        }
        self.pieces.observe(after);
        if let Some(before) = change.before.as_ref().filter(|before| before.kind == PinKind::Shard) {
            self.heal_owners(before, after, ctx);
        }
        for root in shards::owners(after).iter().filter_map(Belongs::root) {
            ctx.effects.push(Effect::Changed(root));
        }
    }

    /// Goes on with the scan; units whose root is gone end (once, by whoever is first in rank; the others see it).
    pub(super) fn scan_pieces(&mut self, ctx: &mut Context) {
        let was_complete = self.pieces.is_complete();
        let rootless = self.pieces.scan(ctx);
        if self.pieces.is_complete() && !was_complete {
            self.end_broken_off(ctx);
        }
        for root in rootless {
            let is_first = {
                let look = look!(self, ctx);
                self.repair.is_first(&root, look)
            };
            if is_first {
                let units: Vec<Cid> = self.pieces.of(&root).map(|piece| piece.cid).collect();
                let changes = self.disown(units.into_iter(), &root.to_string(), ctx);
                self.submit(changes, None, ctx);
            }
        }
    }

    /// After a start: what this peer was adding when it ended goes at once, not with time.
    fn end_broken_off(&mut self, ctx: &mut Context) {
        let (me, incarnation) = (ctx.options.me, ctx.options.incarnation);
        let mut by_add: std::collections::BTreeMap<String, Vec<Cid>> = std::collections::BTreeMap::new();
        for (name, unit) in self.pieces.of_adds(|name| shards::is_broken_off(name, &me, incarnation)) {
            by_add.entry(name).or_default().push(unit);
        }
        for (name, units) in by_add {
            let changes = self.disown(units.into_iter(), &name, ctx);
            self.submit(changes, None, ctx);
        }
    }

    /// Removals of expired roots take their units along.
    pub(super) fn with_units(&self, changes: Vec<Change>, ctx: &Context) -> Vec<Change> {
        let mut all = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Remove(cid) if self.pieces.has(&cid) => all.extend(self.removal_of_root(&cid, ctx).unwrap_or_default()),
                other => all.push(other),
            }
        }
        all
    }

    pub(super) fn write_all(&mut self, request: RequestId, changes: Vec<Change>, done: Answer, ctx: &mut Context) {
        if changes.is_empty() {
            return answer(request, done, ctx);
        }
        if self.pending.len() >= super::PENDING_MOST {
            return answer(request, Answer::Refused(Missing::Busy), ctx);
        }
        self.submit(changes, Some(Pending { request, answer: done, lease: None }), ctx);
    }
}

fn refuse(request: RequestId, text: &str, ctx: &mut Context) {
    answer(request, Answer::Refused(Missing::BadWish(text.to_owned())), ctx);
}

fn answer(request: RequestId, answer: Answer, ctx: &mut Context) {
    ctx.effects.push(Effect::Answer(request, answer));
}

#[cfg(test)]
mod tests;
