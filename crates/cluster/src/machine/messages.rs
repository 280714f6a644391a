//! What other peers say.

use super::Parts;
use crate::Effect;
use crate::context::Context;
use crate::decisions::Duty;
use crate::health::Kind;
use crate::look::Look;
use crate::options::PlantedBug;
use crate::outbox::MESSAGE_MOST;
use types::{Cid, CopyState, HoldingReport, PeerId, PeerMessage, PinState, Refusal, SignedRecord};

impl Parts {
    /// Takes one message; strangers are not listened to.
    pub(super) fn message(&mut self, peer: PeerId, message: PeerMessage, ctx: &mut Context) {
        let is_heard = match self.health.kind(&peer) {
            Some(Kind::Ours) => self.membership.trusted().contains(&peer),
            // What the shell says in its name.
            Some(Kind::Go) => matches!(message, PeerMessage::Hello { .. } | PeerMessage::Holdings(_) | PeerMessage::Reserved { .. }),
            Some(Kind::Stranger) | None => false,
        };
        if !is_heard {
            return;
        }
        let was_live = self.health.is_live(&peer);
        self.health.heard(&peer, ctx.now, ctx.effects);
        if !was_live {
            self.tracker.provider_is_back(ctx);
            self.repair.look_soon(ctx);
        }
        match message {
            PeerMessage::Hello { .. } => self.heard_hello(&peer, &message, ctx),
            PeerMessage::AskHoldings { question, .. } => drop(self.questions.insert(peer, question)),
            // The shell hands it to the consensus.
            PeerMessage::Delta(_) => {}
            PeerMessage::AskCopies(cids) => self.tell_copies(peer, &cids, ctx),
            PeerMessage::Holdings(report) => self.heard_report(&peer, &report, ctx),
            PeerMessage::Reserve { lease, bytes } => self.reserve(peer, lease, bytes, ctx),
            PeerMessage::Reserved { lease, refused } => {
                self.with_desk(ctx, |adding, desk, ctx| adding.reserved(peer, lease, refused, desk, ctx));
            }
            PeerMessage::Release { lease, is_kept } => {
                if self.space.release(peer, lease) {
                    ctx.effects.push(Effect::Measure);
                }
                if is_kept {
                    ctx.effects.push(Effect::LaneEnded { peer, lease });
                }
            }
            PeerMessage::Offer(offer) => {
                let copies = self.repair.copies();
                let look = look!(self, ctx);
                self.taking.offered(peer, &offer, copies, look, ctx);
            }
            PeerMessage::Take { shipment, bytes } => {
                let look = look!(self, ctx);
                self.repair.answered(&peer, shipment, bytes, look, ctx);
            }
            PeerMessage::Records(records) => self.heard_records(peer, records, ctx),
            PeerMessage::Leaving => {
                self.health.left(&peer);
                self.repair.look_now(ctx);
            }
        }
    }

    fn heard_hello(&mut self, peer: &PeerId, message: &PeerMessage, ctx: &mut Context) {
        let was_known = self.health.of(peer).is_some_and(|standing| standing.facts.is_some());
        let was_draining = self.health.is_draining(peer);
        let had_load = self.health.load(peer).is_some();
        if self.health.hello(peer, message, ctx.options, ctx.now) {
            self.space.release_all(peer);
            self.holdings.linked(peer, true, ctx.now);
            self.tracker.unconfirm(&[*peer]);
        }
        self.adding_shown(peer, ctx);
        // With what it has it takes part in the spread.
        let has_counted = !had_load && self.health.load(peer).is_some();
        if !was_known || has_counted || was_draining != self.health.is_draining(peer) {
            self.repair.look_soon(ctx);
        }
        if !was_known && self.health.kind(peer) == Some(Kind::Ours) {
            // It did not hear what was said and asked before it knew that this peer is a member.
            ctx.effects.push(Effect::Tell(*peer, self.hello(ctx)));
            self.holdings.linked(peer, false, ctx.now);
        }
    }

    fn heard_report(&mut self, peer: &PeerId, report: &HoldingReport, ctx: &mut Context) {
        // It was on its way when the peer started anew, and may speak of what is lost since.
        if self.health.of(peer).is_some_and(|standing| report.incarnation < standing.incarnation) {
            return;
        }
        for copy in report.copies.iter().filter(|copy| copy.state == PinState::Pinned) {
            self.tracker.confirmed(peer, &copy.cid, copy.version, ctx);
        }
        for cid in self.holdings.report(peer, report, ctx.shared, ctx.options, ctx.now) {
            ctx.effects.push(Effect::Changed(cid));
        }
    }

    fn reserve(&mut self, peer: PeerId, lease: u64, bytes: types::ByteCount, ctx: &mut Context) {
        let takes_none = self.leaving.is_some() || self.membership.decisions().duty(&ctx.options.me) != Duty::InUse;
        let refused = if takes_none {
            Some(Refusal::Draining)
        } else {
            self.space.reserve(peer, lease, bytes, ctx.now).err().map(|free| Refusal::NoRoom { free })
        };
        if ctx.options.planted == Some(PlantedBug::ForgetsPromises) {
            self.space.forget(peer, lease);
        }
        ctx.effects.push(Effect::Tell(peer, PeerMessage::Reserved { lease, refused }));
    }

    fn heard_records(&mut self, peer: PeerId, records: Vec<SignedRecord>, ctx: &mut Context) {
        const RECORDS_MOST: usize = 1_000;
        let newer = self.membership.newer(&records);
        if !newer.is_empty() {
            ctx.effects.push(Effect::Tell(peer, PeerMessage::Records(newer)));
        }
        let mut has_changed = false;
        for record in records.into_iter().take(RECORDS_MOST) {
            has_changed |= self.membership.take(record, ctx.options, ctx.effects);
        }
        if has_changed {
            self.members_changed(ctx);
        }
        self.claims_changed(ctx);
    }

    /// Answers full questions, once the own round is done and the view is current: before that the answer would be a guess.
    pub(super) fn answer_questions(&mut self, ctx: &mut Context) {
        if self.questions.is_empty() || !ctx.is_current() || !self.tracker.can_answer() {
            return;
        }
        let copies: Vec<CopyState> = self.tracker.unsettled(ctx.now).collect();
        for (peer, question) in std::mem::take(&mut self.questions) {
            let mut parts: Vec<Vec<CopyState>> = copies.chunks(MESSAGE_MOST).map(<[CopyState]>::to_vec).collect();
            if parts.is_empty() {
                parts.push(Vec::new());
            }
            let last = parts.len() - 1;
            for (index, part) in parts.into_iter().enumerate() {
                let complete = (index == last).then_some(copies.len() as u64);
                let report = HoldingReport { incarnation: ctx.options.incarnation, complete, answer: question, copies: part };
                ctx.effects.push(Effect::Tell(peer, PeerMessage::Holdings(report)));
            }
        }
    }

    fn tell_copies(&mut self, peer: PeerId, cids: &[Cid], ctx: &mut Context) {
        let copies: Vec<CopyState> = cids.iter().take(MESSAGE_MOST).filter_map(|cid| self.tracker.tell_copy(cid, ctx)).collect();
        if !copies.is_empty() {
            let report = HoldingReport { incarnation: ctx.options.incarnation, complete: None, answer: 0, copies };
            ctx.effects.push(Effect::Tell(peer, PeerMessage::Holdings(report)));
        }
    }
}
