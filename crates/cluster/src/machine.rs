//! Routes events to the parts; decides nothing itself.

/// Borrows the parts that decisions look at, and leaves the others free to change.
macro_rules! look {
    ($parts:expr, $ctx:expr) => {
        Look {
            options: $ctx.options,
            tracker: &$parts.tracker,
            holdings: &$parts.holdings,
            health: &$parts.health,
            space: &$parts.space,
            adding: &$parts.adding,
            is_leaving: $parts.leaving.is_some() || $parts.membership.decisions().duty(&$ctx.options.me) == crate::Duty::Draining,
            decisions: $parts.membership.decisions(),
            now: $ctx.now,
        }
    };
}

mod claims;
mod commands;
mod messages;
mod pieces;
mod reports;
mod shards;

pub use shards::{NewRoot, NewUnit};

use crate::adding::{Adding, Desk};
use crate::context::{Context, Ids};
use crate::health::{Health, Kind};
use crate::holdings::{Holdings, Members};
use crate::leaving::Leaving;
use crate::look::Look;
use crate::membership::Membership;
use crate::outbox::Outbox;
use crate::repair::Repair;
use crate::shards::Pieces;
use crate::space::Space;
use crate::taking::Taking;
use crate::tracker::{Around, Tracker};
use crate::{
    Answer, Change, Effect, Event, GoMember, LinkState, Missing, Options, PinChange, RequestId, SharedChange, SharedView, SubmitId,
    ViewState,
};
use std::collections::BTreeMap;
use types::{ByteCount, Cid, Millis, Now, PeerId};

/// Writes whose result is not known yet; more commands are refused as busy.
const PENDING_MOST: usize = 100_000;
/// A pin that is being written is in the wish after so long.
const WRITTEN_WITHIN: Millis = Millis::seconds(30);

/// The mind of one peer.
#[derive(Clone, Debug)]
pub struct Machine {
    options: Options,
    view: ViewState,
    view_since: Millis,
    ids: Ids,
    outbox: Outbox,
    parts: Parts,
}

/// The parts, apart from what every one of them is handed.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    tracker: Tracker,
    holdings: Holdings,
    health: Health,
    space: Space,
    repair: Repair,
    taking: Taking,
    adding: Adding,
    membership: Membership,
    leaving: Option<Leaving>,
    pieces: Pieces,
    owned: claims::Owned,
    pending: BTreeMap<SubmitId, Pending>,
    /// Members other than this peer.
    others: Vec<PeerId>,
    /// Go peers that may write.
    go: Vec<PeerId>,
    /// Questions of others that wait for the first round.
    questions: BTreeMap<PeerId, u64>,
    /// Connected Go peers, where none of them takes what this peer writes.
    distrusted: u32,
    facts: Facts,
    next_hello: Millis,
}

/// What the shell said about this peer.
#[derive(Clone, Debug, Default)]
struct Facts {
    node_addresses: Vec<String>,
    gateway: Option<String>,
    api: Option<String>,
}

/// A write whose result somebody waits for.
#[derive(Clone, Debug)]
struct Pending {
    request: RequestId,
    answer: Answer,
    lease: Option<u64>,
}

impl Machine {
    /// A machine that knows nothing yet: its first wake begins the first round.
    pub fn new(mut options: Options, now: Now) -> Machine {
        let membership = Membership::new(&options);
        // They are there now; twice they would take twice the memory.
        options.records = Vec::new();
        let others = others(&membership, &options);
        let mut health = Health::new(membership.trusted(), &options.me, now);
        health.set_duties(membership.decisions());
        let mut parts = Parts {
            tracker: Tracker::new(),
            holdings: Holdings::default(),
            health,
            space: Space::default(),
            repair: Repair::new(&options.repair),
            taking: Taking::default(),
            adding: Adding::default(),
            membership,
            leaving: None,
            pieces: Pieces::default(),
            owned: claims::Owned::default(),
            pending: BTreeMap::new(),
            others,
            go: Vec::new(),
            questions: BTreeMap::new(),
            distrusted: 0,
            facts: Facts::default(),
            next_hello: now.mono,
        };
        parts.look_at_owned(now);
        Machine { options, view: ViewState::Unknown, view_since: now.mono, ids: Ids::default(), outbox: Outbox::default(), parts }
    }

    /// Takes one event.
    pub fn handle(&mut self, event: Event, now: Now, shared: &dyn SharedView, effects: &mut Vec<Effect>) {
        if let Event::Shared(SharedChange::View(view)) = event {
            let before = std::mem::replace(&mut self.view, view);
            if before != view {
                self.view_since = now.mono;
            }
            self.step(now, shared, effects, |parts, ctx| {
                parts.tracker.view_changed(before, ctx);
                parts.repair.look_soon(ctx);
            });
            return;
        }
        self.step(now, shared, effects, |parts, ctx| parts.route(event, ctx));
    }

    /// What is claimed, by owner and name.
    pub fn claims(&self) -> &crate::owner::Claims {
        self.parts.membership.claims()
    }

    /// Why this peer writes nothing now; none when it may.
    pub fn why_no_writes(&self) -> Option<Missing> {
        self.parts.why_no_writes(&self.options)
    }

    /// Does what has become due.
    pub fn wake(&mut self, now: Now, shared: &dyn SharedView, effects: &mut Vec<Effect>) {
        self.step(now, shared, effects, Parts::wake);
    }

    /// When [`Machine::wake`] next has something to do.
    pub fn next_wake(&self) -> Option<Millis> {
        let parts = &self.parts;
        [
            parts.tracker.next_wake(self.options.pace.stall),
            parts.holdings.next_wake(),
            parts.health.next_wake(),
            parts.space.next_wake(),
            parts.repair.next_wake(),
            parts.adding.next_wake(),
            self.outbox.next_wake(self.options.pace.gather),
            (!parts.others.is_empty()).then_some(parts.next_hello),
            Some(parts.pieces.next_wake()),
            parts.owned.next_wake(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn step(&mut self, now: Now, shared: &dyn SharedView, effects: &mut Vec<Effect>, work: impl FnOnce(&mut Parts, &mut Context)) {
        let Machine { options, view, view_since, ids, outbox, parts } = self;
        let mut ctx = Context { now, view: *view, view_since: *view_since, shared, effects, ids, options, outbox };
        work(parts, &mut ctx);
        parts.advance(&mut ctx);
        ctx.outbox.flush(ctx.options.incarnation, ctx.options.pace.gather, now, ctx.effects);
    }
}

impl Parts {
    fn route(&mut self, event: Event, ctx: &mut Context) {
        match event {
            Event::Command(request, command) => self.command(request, command, ctx),
            Event::Shared(change) => self.shared(change, ctx),
            Event::Submitted(id, result) => self.submitted(id, result, ctx),
            Event::Node(op, outcome) => self.tracker.node(op, outcome, &mut self.space, ctx),
            Event::Space { limit, used, upkeep } => {
                self.space.measured(limit, used, upkeep);
                self.tracker.measured(used, ctx.now);
            }
            Event::Lost(cid) => self.tracker.lost(cid, ctx),
            Event::Facts { node_addresses, gateway, api } => {
                self.facts = Facts { node_addresses, gateway, api };
                self.next_hello = ctx.now.mono;
            }
            Event::Ours(peer) => {
                if self.membership.begin_with(peer, ctx.effects) {
                    self.members_changed(ctx);
                }
            }
            Event::GoPeers(go) => self.go_peers(&go, ctx),
            Event::Domains(domains) => {
                self.health.set_domains(domains);
                self.repair.look_soon(ctx);
            }
            Event::Distrusted(peers) => self.distrusted = peers,
            Event::Link(peer, state) => self.link(peer, &state, ctx),
            Event::Message(peer, message) => self.message(peer, message, ctx),
            Event::Together(events) => events.into_iter().for_each(|event| self.route(event, ctx)),
        }
    }

    fn shared(&mut self, change: SharedChange, ctx: &mut Context) {
        match change {
            SharedChange::Pins(changes) => {
                for change in &changes {
                    self.pin_changed(change, ctx);
                }
            }
            SharedChange::Lagged => {
                self.tracker.lagged(ctx);
                self.holdings.lagged(ctx.now);
                self.pieces.lagged(ctx.now);
                self.look_at_owned(ctx.now);
                self.repair.look_soon(ctx);
            }
            SharedChange::View(_) => {}
        }
    }

    fn pin_changed(&mut self, change: &PinChange, ctx: &mut Context) {
        let members = Members { ours: &self.others, go: &self.go };
        let confirmed = self.holdings.wish_changed(change, members, ctx.options, ctx.now);
        if let Some(change) = self.owned_changed(change, ctx) {
            self.tracker.wish_changed(&change, ctx);
        }
        if let Some((_, version)) = &change.after {
            confirmed.iter().for_each(|peer| self.tracker.confirmed(peer, &change.cid, *version, ctx));
        }
        let look = look!(self, ctx);
        self.repair.wish_changed(change, look, ctx);
        self.piece_changed(change, ctx);
        ctx.effects.push(Effect::Changed(change.cid));
    }

    fn submitted(&mut self, id: SubmitId, result: Result<(), String>, ctx: &mut Context) {
        let Some(pending) = self.pending.remove(&id) else { return };
        let answer = match result {
            Ok(()) => {
                if let Some(lease) = pending.lease {
                    self.adding.end(lease, &mut self.space, ctx);
                }
                pending.answer
            }
            Err(why) => Answer::Refused(Missing::NotWritten(why)),
        };
        ctx.effects.push(Effect::Answer(pending.request, answer));
    }

    fn link(&mut self, peer: PeerId, state: &LinkState, ctx: &mut Context) {
        let is_up = *state == LinkState::Up;
        let (was_linked, was_live) = (self.health.of(&peer).is_some_and(|standing| standing.linked), self.health.is_live(&peer));
        self.health.link(&peer, is_up, ctx.now, ctx.effects);
        let Some(kind) = self.health.kind(&peer).filter(|_| is_up) else { return };
        if kind != Kind::Ours {
            if !was_live {
                self.tracker.provider_is_back(ctx);
                self.repair.look_soon(ctx);
            }
            if kind == Kind::Go && !was_linked {
                self.holdings.linked(&peer, false, ctx.now);
            }
            return;
        }
        ctx.effects.push(Effect::Tell(peer, self.hello(ctx)));
        self.holdings.linked(&peer, false, ctx.now);
    }

    fn wake(&mut self, ctx: &mut Context) {
        let silent = self.health.tick(ctx.options, ctx.now, ctx.effects);
        if !silent.is_empty() {
            self.tracker.unconfirm(&silent);
            self.holdings.silent(&silent);
            self.repair.look_soon(ctx);
            if silent.iter().any(|peer| self.health.is_lost(peer, ctx.options, ctx.now)) {
                self.repair.look_now(ctx);
            }
        }
        if self.next_hello <= ctx.now.mono && !self.others.is_empty() {
            self.next_hello = ctx.now.after(ctx.options.pace.hello);
            self.adding_shown(&ctx.options.me, ctx);
            ctx.effects.push(Effect::TellAll(self.hello(ctx)));
        }
        self.space.expire(ctx.now);
        self.tracker.walk(ctx);
        self.holdings.ask(|peer| self.health.is_live(peer), ctx.outbox, ctx.effects, ctx.now);
        if self.adding.next_wake().is_some_and(|at| at <= ctx.now.mono) {
            self.with_desk(ctx, |adding, desk, ctx| adding.advance(desk, ctx));
        }
        let changes = {
            let look = look!(self, ctx);
            self.repair.advance(look, ctx)
        };
        let changes = self.with_units(changes, ctx);
        self.submit(changes, None, ctx);
        self.scan_pieces(ctx);
        self.mend_owned(ctx);
        self.leave_if_done(ctx);
    }

    /// After every event: starts what may start, answers what can be answered.
    fn advance(&mut self, ctx: &mut Context) {
        let mut around = Around { holdings: &self.holdings, health: &self.health, space: &mut self.space };
        self.tracker.advance(&mut around, ctx);
        self.answer_questions(ctx);
    }

    /// Hands changes to the consensus; the answer goes out when they are durable.
    fn submit(&mut self, changes: Vec<Change>, pending: Option<Pending>, ctx: &mut Context) {
        // A follower's own steps (repair, pins that end) are others' to take.
        if changes.is_empty() || ctx.options.follower {
            return;
        }
        let id = ctx.ids.submit();
        if let Some(pending) = pending {
            self.pending.insert(id, pending);
        }
        ctx.effects.push(Effect::Submit(id, changes));
    }

    /// Adds look at everybody's room while they change the own one.
    fn with_desk(&mut self, ctx: &mut Context, work: impl FnOnce(&mut Adding, &mut Desk, &mut Context)) {
        let me = ctx.options.me;
        self.look_at_given(ctx, |adding, is_confirmed, _| adding.settle(&me, |cid, since| is_confirmed(&me, cid, since)));
        let candidates = look!(self, ctx).candidates();
        let mut desk = Desk { candidates, space: &mut self.space };
        work(&mut self.adding, &mut desk, ctx);
    }

    /// A peer said what it has.
    fn adding_shown(&mut self, peer: &PeerId, ctx: &Context) {
        self.look_at_given(ctx, |adding, is_confirmed, now| adding.shown(peer, |cid, since| is_confirmed(peer, cid, since), now));
    }

    /// Looks which of the given copies are confirmed. One that is not in the wish has not got there yet, or was removed.
    fn look_at_given(&mut self, ctx: &Context, work: impl FnOnce(&mut Adding, &dyn Fn(&PeerId, &Cid, Millis) -> bool, Now)) {
        let mut adding = std::mem::take(&mut self.adding);
        let look = look!(self, ctx);
        let is_late = |since: Millis| since.0.saturating_add(WRITTEN_WITHIN.0) <= ctx.now.mono.0;
        let is_confirmed =
            |peer: &PeerId, cid: &Cid, since: Millis| look.is_confirmed(peer, cid) && (is_late(since) || ctx.shared.pin(cid).is_some());
        work(&mut adding, &is_confirmed, ctx.now);
        self.adding = adding;
    }

    /// What this peer says about itself.
    fn hello(&self, ctx: &Context) -> types::PeerMessage {
        let (limit, used) = self.space.numbers();
        types::PeerMessage::Hello {
            name: ctx.options.name.clone(),
            node_addresses: self.facts.node_addresses.clone(),
            gateway: self.facts.gateway.clone(),
            api: self.facts.api.clone(),
            space_limit: limit,
            space_used: used,
            space_reserved: if limit == ByteCount::ZERO { ByteCount::ZERO } else { self.space.reserved() },
            is_draining: self.leaving.is_some(),
            incarnation: ctx.options.incarnation,
            clock: ctx.now.wall,
            load: self.tracker.load(),
        }
    }

    /// Which Go peers there are.
    fn go_peers(&mut self, go: &[GoMember], ctx: &mut Context) {
        let forgotten = self.health.set_go(go, &ctx.options.me, ctx.now);
        self.health.set_duties(self.membership.decisions());
        for peer in forgotten.iter().chain(go.iter().filter(|member| !member.is_trusted).map(|member| &member.peer)) {
            if self.health.kind(peer) != Some(Kind::Ours) {
                self.holdings.remove_peer(peer);
            }
        }
        self.go = self.health.go().collect();
        self.repair.look_soon(ctx);
    }

    fn members_changed(&mut self, ctx: &mut Context) {
        for peer in &self.others {
            if !self.membership.trusted().contains(peer) {
                self.holdings.remove_peer(peer);
                self.questions.remove(peer);
            }
        }
        self.health.set_members(self.membership.trusted(), &ctx.options.me, ctx.now);
        self.health.set_duties(self.membership.decisions());
        // What was decided about this peer is seen by others in what it takes and gives; they hear of it at once.
        self.next_hello = ctx.now.mono;
        self.claims_changed(ctx);
        self.others = others(&self.membership, ctx.options);
        self.go = self.health.go().collect();
        self.repair.look_soon(ctx);
    }
}

fn others(membership: &Membership, options: &Options) -> Vec<PeerId> {
    membership.trusted().iter().filter(|peer| **peer != options.me).copied().collect()
}

#[cfg(test)]
mod go_tests;
#[cfg(test)]
mod moving_tests;
#[cfg(test)]
mod tests;
