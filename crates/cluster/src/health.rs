//! Who is there: judged by the own receive times alone, never by what others say or by their clocks.
//!
//! up -> suspect (silent) -> down (silent beyond grace); back on the first word. *Draining* is said by the peer itself,
//! *gone* is said by it on leaving or by a record.

use crate::decisions::{Decisions, Duty};
use crate::event::{GoMember, PeerFacts};
use crate::options::PlantedBug;
use crate::{Effect, Notice, Options, PeerHealth};
use std::collections::{BTreeMap, BTreeSet};
use types::{ByteCount, Load, Millis, Now, PeerId, PeerMessage, UnixMillis};

/// Between two looks at all peers.
const TICK: Millis = Millis::seconds(1);
/// A whole failure domain is given up so many graces late.
const DOMAIN_GRACES: u64 = 6;
/// When nobody who has a pin is heard of, its holders are given up so many graces late.
const SOURCE_GRACES: u64 = 12;
/// Texts in a hello longer than this are cut: a stranger sends them.
const TEXT_MOST: usize = 1024;
/// Clocks this near to each other count as equal: a hello takes time to arrive.
const CLOCK_SLACK: Millis = Millis::seconds(5);
/// Addresses taken from a hello.
const ADDRESSES_MOST: usize = 64;

/// What a peer is to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A Pinfold peer of this cluster.
    Ours,
    /// A Go peer: it may write here, and this one there.
    Go,
    /// A Go peer of which that is not so: it may have been given copies by others.
    Stranger,
}

/// What is known of one other peer.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// What it is.
    pub kind: Kind,
    /// Connected now.
    pub linked: bool,
    unlinked_since: Millis,
    heard: Millis,
    /// When it was last heard of, by the own wall clock.
    pub heard_wall: UnixMillis,
    /// Suspect, down, ...
    pub phase: PeerHealth,
    /// Counts its starts, as it says.
    pub incarnation: u64,
    /// What its hello said; none before the first.
    pub facts: Option<PeerFacts>,
    /// How far its wall clock is ahead of the own one, in milliseconds, when it last said hello.
    pub clock_ahead: Option<i64>,
    /// What people decided about it.
    pub duty: Duty,
    /// Room promised to it since its last hello, which does not show it yet.
    pub promised: ByteCount,
}

impl Standing {
    fn new(kind: Kind, now: Now) -> Standing {
        Standing {
            kind,
            linked: false,
            unlinked_since: now.mono,
            heard: now.mono,
            heard_wall: UnixMillis(0),
            phase: PeerHealth::Suspect,
            incarnation: 0,
            facts: None,
            clock_ahead: None,
            duty: Duty::InUse,
            promised: ByteCount::ZERO,
        }
    }

    /// Whether its copies are handed over: it leaves, or people decided so.
    pub fn is_draining(&self) -> bool {
        self.duty == Duty::Draining || self.facts.as_ref().is_some_and(|facts| facts.is_draining)
    }
}

/// All other members.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    peers: BTreeMap<PeerId, Standing>,
    /// Failure domains that Go peers name.
    domains: BTreeMap<PeerId, String>,
    next_tick: Millis,
}

impl Health {
    /// Everybody is suspect until heard of.
    pub fn new(members: &BTreeSet<PeerId>, me: &PeerId, now: Now) -> Health {
        let mut health = Health { peers: BTreeMap::new(), domains: BTreeMap::new(), next_tick: now.mono };
        health.set_members(members, me, now);
        health
    }

    /// Follows a change of trust: new ones begin as suspect, others become gone.
    pub fn set_members(&mut self, members: &BTreeSet<PeerId>, me: &PeerId, now: Now) {
        for (peer, standing) in &mut self.peers {
            if members.contains(peer) {
                standing.kind = Kind::Ours;
            }
            if standing.kind != Kind::Ours {
                continue;
            }
            if !members.contains(peer) {
                standing.phase = PeerHealth::Gone;
            } else if standing.phase == PeerHealth::Gone {
                standing.phase = PeerHealth::Suspect;
                standing.heard = now.mono;
            }
        }
        for peer in members.iter().filter(|peer| *peer != me) {
            self.peers.entry(*peer).or_insert_with(|| Standing::new(Kind::Ours, now));
        }
    }

    /// Follows which Go peers there are; those that are not in the list are forgotten. Gives these.
    pub fn set_go(&mut self, go: &[GoMember], me: &PeerId, now: Now) -> Vec<PeerId> {
        let kind = |member: &GoMember| if member.is_trusted { Kind::Go } else { Kind::Stranger };
        let kinds: BTreeMap<PeerId, Kind> = go.iter().map(|member| (member.peer, kind(member))).filter(|(peer, _)| peer != me).collect();
        let is_forgotten = |peer: &PeerId, standing: &Standing| standing.kind != Kind::Ours && !kinds.contains_key(peer);
        let forgotten: Vec<PeerId> =
            self.peers.iter().filter(|(peer, standing)| is_forgotten(peer, standing)).map(|(peer, _)| *peer).collect();
        for peer in &forgotten {
            self.peers.remove(peer);
        }
        for (peer, kind) in kinds {
            let standing = self.peers.entry(peer).or_insert_with(|| Standing::new(kind, now));
            // A member, or one that was expelled, is what the records say.
            if standing.kind != Kind::Ours {
                standing.kind = kind;
            }
        }
        forgotten
    }

    /// Follows which failure domains Go peers name.
    pub fn set_domains(&mut self, domains: BTreeMap<PeerId, String>) {
        self.domains = domains;
    }

    /// The failure domain of a peer: as configured, else as it says itself.
    pub fn domain<'a>(&'a self, peer: &PeerId, options: &'a Options) -> Option<&'a str> {
        options.domain(peer).or_else(|| self.domains.get(peer).map(String::as_str))
    }

    /// Go peers that may write, by id.
    pub fn go(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().filter(|(_, standing)| standing.kind == Kind::Go).map(|(peer, _)| *peer)
    }

    /// What a peer is; none for one that is not known.
    pub fn kind(&self, peer: &PeerId) -> Option<Kind> {
        self.peers.get(peer).map(|standing| standing.kind)
    }

    /// Whether it is a Go peer: it lets go of what is not placed on it any more at once, whoever else has it.
    pub fn lets_go_at_once(&self, peer: &PeerId) -> bool {
        matches!(self.kind(peer), Some(Kind::Go | Kind::Stranger))
    }

    /// Follows what people decided.
    pub fn set_duties(&mut self, decisions: &Decisions) {
        for (peer, standing) in &mut self.peers {
            standing.duty = decisions.duty(peer);
        }
    }

    /// A link came or went.
    pub fn link(&mut self, peer: &PeerId, is_up: bool, now: Now, effects: &mut Vec<Effect>) {
        let Some(standing) = self.peers.get_mut(peer) else { return };
        if standing.linked && !is_up {
            standing.unlinked_since = now.mono;
        }
        standing.linked = is_up;
        if is_up {
            self.heard(peer, now, effects);
        }
    }

    /// Something came from the peer.
    pub fn heard(&mut self, peer: &PeerId, now: Now, effects: &mut Vec<Effect>) {
        let Some(standing) = self.peers.get_mut(peer) else { return };
        standing.heard = now.mono;
        standing.heard_wall = now.wall;
        if matches!(standing.phase, PeerHealth::Suspect | PeerHealth::Down) {
            if standing.phase == PeerHealth::Down && standing.kind != Kind::Stranger {
                effects.push(Effect::Note(Notice::PeerBack(*peer)));
            }
            standing.phase = PeerHealth::Up;
        }
    }

    /// The peer says what it is; true when it started anew since its last hello.
    pub fn hello(&mut self, peer: &PeerId, message: &PeerMessage, options: &Options, now: Now) -> bool {
        let PeerMessage::Hello {
            name,
            node_addresses,
            gateway,
            api,
            space_limit,
            space_used,
            space_reserved,
            is_draining,
            incarnation,
            clock,
            load,
        } = message
        else {
            return false;
        };
        let Some(standing) = self.peers.get_mut(peer) else { return false };
        let is_new_start = *incarnation > standing.incarnation;
        let is_first = standing.incarnation == 0;
        standing.incarnation = standing.incarnation.max(*incarnation);
        if standing.phase == PeerHealth::Gone && is_new_start {
            standing.phase = PeerHealth::Up;
        }
        standing.promised = ByteCount::ZERO;
        standing.clock_ahead = Some((i128::from(clock.0) - i128::from(now.wall.0)).clamp(i64::MIN.into(), i64::MAX.into()) as i64);
        standing.facts = Some(PeerFacts {
            name: cut(name),
            node_addresses: node_addresses.iter().take(ADDRESSES_MOST).map(|text| cut(text)).collect(),
            gateway: gateway.as_deref().map(cut),
            api: api.as_deref().map(cut),
            space_limit: *space_limit,
            space_used: *space_used,
            space_reserved: *space_reserved,
            is_draining: *is_draining,
            load: *load,
            heard: now.wall,
            labels: options.labels.get(peer).cloned().unwrap_or_default(),
        });
        is_new_start && !is_first
    }

    /// The peer said that it left.
    pub fn left(&mut self, peer: &PeerId) {
        if let Some(standing) = self.peers.get_mut(peer) {
            standing.phase = PeerHealth::Gone;
        }
    }

    /// Looks for the silent; gives who became suspect or down.
    pub fn tick(&mut self, options: &Options, now: Now, effects: &mut Vec<Effect>) -> Vec<PeerId> {
        let mut changed = Vec::new();
        if now.mono < self.next_tick {
            return changed;
        }
        self.next_tick = now.after(TICK);
        for (peer, standing) in &mut self.peers {
            let is_noted = standing.kind != Kind::Stranger;
            let silent = now.mono.0.saturating_sub(standing.heard.0);
            // Words that come without a link (another way, or a late one) count as much as the link.
            let unlinked = if standing.linked { 0 } else { now.mono.0.saturating_sub(standing.unlinked_since.max(standing.heard).0) };
            if standing.phase == PeerHealth::Up && (silent > options.pace.suspect_silent.0 || unlinked > options.pace.suspect_unlinked.0) {
                standing.phase = PeerHealth::Suspect;
                effects.extend(is_noted.then_some(Effect::Note(Notice::PeerSuspect(*peer))));
                changed.push(*peer);
            }
            if standing.phase == PeerHealth::Suspect && silent > options.grace.0 {
                standing.phase = PeerHealth::Down;
                effects.extend(is_noted.then_some(Effect::Note(Notice::PeerDown(*peer))));
                changed.push(*peer);
            }
        }
        changed
    }

    /// When [`Health::tick`] next has something to do.
    pub fn next_wake(&self) -> Option<Millis> {
        (!self.peers.is_empty()).then_some(self.next_tick)
    }

    /// What is known of a peer.
    pub fn of(&self, peer: &PeerId) -> Option<&Standing> {
        self.peers.get(peer)
    }

    /// Notes room promised to a peer until its next hello shows it.
    pub fn promise(&mut self, peer: &PeerId, bytes: ByteCount) {
        if let Some(standing) = self.peers.get_mut(peer) {
            standing.promised += bytes;
        }
    }

    /// What a peer said that it has.
    pub fn load(&self, peer: &PeerId) -> Option<Load> {
        self.of(peer)?.facts.as_ref()?.load
    }

    /// All other peers.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &Standing)> {
        self.peers.iter()
    }

    /// Whether the peer is heard of now (draining ones are).
    pub fn is_live(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|standing| standing.phase == PeerHealth::Up)
    }

    /// Whether its copies are handed over.
    pub fn is_draining(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(Standing::is_draining)
    }

    /// Whether it left or was expelled.
    pub fn is_gone(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|standing| standing.phase == PeerHealth::Gone)
    }

    /// Members seen now and members known, the own peer in both; strangers come and go as they like, and say nothing about the net.
    pub fn seen(&self) -> (u32, u32) {
        let members = || self.peers.values().filter(|standing| standing.kind != Kind::Stranger);
        let known = members().filter(|standing| standing.phase != PeerHealth::Gone).count() as u32 + 1;
        let seen = members().filter(|standing| standing.phase == PeerHealth::Up).count() as u32 + 1;
        (seen, known)
    }

    /// Whether this looks like a split, in which nothing may move (architecture.md, rule 4).
    pub fn is_split(&self) -> bool {
        let (seen, known) = self.seen();
        seen * 2 < known
    }

    /// The time by the slowest clock among the own one and those of live members: what ends at a certain time (a pin, say) must not end
    /// early because one clock is ahead.
    pub fn slowest_clock(&self, now: Now) -> UnixMillis {
        let live = self.peers.values().filter(|standing| standing.phase == PeerHealth::Up);
        let behind = live.filter_map(|standing| standing.clock_ahead).filter(|ahead| ahead.unsigned_abs() > CLOCK_SLACK.0).min();
        UnixMillis(now.wall.0.saturating_sub(behind.unwrap_or(0).min(0).unsigned_abs()))
    }

    /// Whether the copies of a peer are to be replaced: gone, or silent beyond grace (six graces when its whole failure
    /// domain is missing: that is a cut cable, not so many dead disks).
    pub fn is_lost(&self, peer: &PeerId, options: &Options, now: Now) -> bool {
        let Some(standing) = self.peers.get(peer) else {
            return *peer != options.me && now.mono > options.grace;
        };
        match standing.phase {
            PeerHealth::Gone => true,
            PeerHealth::Down => {
                let silent = now.mono.0.saturating_sub(standing.heard.0);
                !self.is_domain_missing(peer, options) || silent > options.grace.0.saturating_mul(DOMAIN_GRACES)
            }
            PeerHealth::Up | PeerHealth::Suspect | PeerHealth::Cordoned | PeerHealth::Draining => false,
        }
    }

    /// Whether nothing is to be waited for from a peer even where nobody else has what it holds: gone, or silent for twelve graces.
    pub fn is_given_up(&self, peer: &PeerId, options: &Options, now: Now) -> bool {
        let heard = match self.peers.get(peer) {
            Some(standing) if standing.phase == PeerHealth::Gone => return true,
            Some(standing) => standing.heard,
            // Since the start.
            None => Millis(0),
        };
        now.mono.0.saturating_sub(heard.0) > options.grace.0.saturating_mul(SOURCE_GRACES)
    }

    /// When the grace of a silent peer is over; none for one that is not silent.
    pub fn grace_end(&self, peer: &PeerId, options: &Options) -> Option<Millis> {
        let standing = self.peers.get(peer)?;
        let graces = if self.is_domain_missing(peer, options) { DOMAIN_GRACES } else { 1 };
        (standing.phase == PeerHealth::Suspect || (standing.phase == PeerHealth::Down && graces > 1))
            .then(|| Millis(standing.heard.0.saturating_add(options.grace.0.saturating_mul(graces))))
    }

    fn is_domain_missing(&self, peer: &PeerId, options: &Options) -> bool {
        let Some(domain) = self.domain(peer, options) else { return false };
        let is_own = options.domain(&options.me) == Some(domain);
        if is_own || options.planted == Some(PlantedBug::IgnoresDomains) {
            return false;
        }
        // Who left or was expelled is not missing.
        let same = self.peers.iter().filter(|(other, _)| self.domain(other, options) == Some(domain)).map(|(_, standing)| standing.phase);
        let staying: Vec<PeerHealth> = same.filter(|phase| *phase != PeerHealth::Gone).collect();
        staying.len() > 1 && staying.iter().all(|phase| *phase != PeerHealth::Up)
    }

    /// How a peer stands, for doors.
    pub fn shown(&self, peer: &PeerId) -> PeerHealth {
        match self.peers.get(peer) {
            None => PeerHealth::Gone,
            Some(standing) if standing.phase == PeerHealth::Up && standing.is_draining() => PeerHealth::Draining,
            Some(standing) if standing.phase == PeerHealth::Up && standing.duty == Duty::Cordoned => PeerHealth::Cordoned,
            Some(standing) => standing.phase,
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hello, peer};

    fn at(seconds: u64) -> Now {
        Now { mono: Millis::seconds(seconds), wall: UnixMillis::from_seconds(1_000 + seconds) }
    }

    fn three() -> (Health, Options) {
        let options = Options::new(peer(0), "me", "test");
        let members = (0..4).map(peer).collect();
        (Health::new(&members, &peer(0), at(0)), options)
    }

    /// Peer 1 is heard of and linked at 0, loses its link at `unlinked`; its health at `second`.
    fn check(unlinked: u64, second: u64, expected: PeerHealth) {
        let (mut health, options) = three();
        let mut effects = Vec::new();
        health.link(&peer(1), true, at(0), &mut effects);
        for now in 0..=second {
            if now == unlinked {
                health.link(&peer(1), false, at(now), &mut effects);
            }
            if now < unlinked {
                health.heard(&peer(1), at(now), &mut effects);
            }
            health.tick(&options, at(now), &mut effects);
        }
        assert_eq!(health.shown(&peer(1)), expected, "unlinked at {unlinked}, looked at {second}");
    }

    #[test]
    fn a_silent_peer_becomes_suspect_and_then_down() {
        check(100, 99, PeerHealth::Up);
        check(100, 104, PeerHealth::Up);
        check(100, 106, PeerHealth::Suspect);
        check(100, 699, PeerHealth::Suspect);
        check(100, 701, PeerHealth::Down);
    }

    #[test]
    fn a_word_brings_a_peer_back() {
        let (mut health, options) = three();
        let mut effects = Vec::new();
        health.tick(&options, at(1000), &mut effects);
        assert!(health.is_lost(&peer(2), &options, at(1000)));
        health.heard(&peer(2), at(1001), &mut effects);
        assert!(health.is_live(&peer(2)) && !health.is_lost(&peer(2), &options, at(1001)));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Note(Notice::PeerBack(_)))));
    }

    #[test]
    fn fewer_than_half_in_sight_is_a_split() {
        let (mut health, _) = three();
        assert!(health.is_split(), "one of four");
        health.heard(&peer(1), at(1), &mut Vec::new());
        assert!(!health.is_split(), "two of four");
    }

    #[test]
    fn a_missing_site_is_given_more_time() {
        let (mut health, mut options) = three();
        for (number, site) in [(0, "a"), (1, "a"), (2, "b"), (3, "b")] {
            options.labels.insert(peer(number), BTreeMap::from([("site".to_owned(), site.to_owned())]));
        }
        let mut effects = Vec::new();
        for second in 0..=700 {
            health.heard(&peer(1), at(second), &mut effects);
            health.tick(&options, at(second), &mut effects);
        }
        assert_eq!(health.shown(&peer(2)), PeerHealth::Down);
        assert!(!health.is_lost(&peer(2), &options, at(700)), "all of site b is missing");
        health.heard(&peer(3), at(700), &mut effects);
        assert!(health.is_lost(&peer(2), &options, at(700)), "site b is there, peer 2 is not");
    }

    /// Peers 0 and 1 are site a, 2 and 3 site b. Site b is silent from the start; whether peer 2 is lost at `second`, when
    /// peer 3 has left or not.
    fn check_site(second: u64, has_3_left: bool, expected: bool) {
        let (mut health, mut options) = three();
        for (number, site) in [(0, "a"), (1, "a"), (2, "b"), (3, "b")] {
            options.labels.insert(peer(number), BTreeMap::from([("site".to_owned(), site.to_owned())]));
        }
        if has_3_left {
            health.left(&peer(3));
        }
        for now in [second - 1, second] {
            health.heard(&peer(1), at(now), &mut Vec::new());
            health.tick(&options, at(now), &mut Vec::new());
        }
        assert_eq!(health.is_lost(&peer(2), &options, at(second)), expected, "at {second}, 3 left: {has_3_left}");
    }

    #[test]
    fn a_missing_site_is_given_up_after_six_graces() {
        check_site(601, false, false);
        check_site(3600, false, false);
        check_site(3601, false, true);
        check_site(600, true, false);
        check_site(601, true, true); // the only one of its site that stays: one peer, not a site
    }

    #[test]
    fn what_ends_waits_for_the_slowest_live_clock() {
        let (mut health, options) = three();
        let own = 1_700_000_000_000;
        let now = |second: u64| Now { mono: Millis::seconds(second), wall: UnixMillis(own + second * 1000) };
        let say = |health: &mut Health, number, ahead: i64| {
            let mut message = hello(1, 0, false);
            if let PeerMessage::Hello { clock, .. } = &mut message {
                *clock = UnixMillis((own as i64 + ahead) as u64);
            }
            health.heard(&peer(number), now(0), &mut Vec::new());
            health.hello(&peer(number), &message, &options, now(0));
        };
        say(&mut health, 1, 7_200_000);
        say(&mut health, 2, -300);
        assert_eq!(health.slowest_clock(now(0)).0, own, "one is ahead, one is late by the way it came");
        assert_eq!(health.of(&peer(1)).and_then(|standing| standing.clock_ahead), Some(7_200_000));
        say(&mut health, 3, -3_600_000);
        assert_eq!(health.slowest_clock(now(2)).0, own + 2000 - 3_600_000);
        for second in 0..20 {
            health.heard(&peer(1), now(second), &mut Vec::new());
            health.tick(&options, now(second), &mut Vec::new());
        }
        health.left(&peer(3));
        assert_eq!(health.slowest_clock(now(20)).0, own + 20_000, "who is gone is not waited for");
    }

    #[test]
    fn who_left_comes_back_only_with_a_new_start() {
        let (mut health, options) = three();
        health.hello(&peer(1), &hello(1, 0, false), &options, at(1));
        health.left(&peer(1));
        health.hello(&peer(1), &hello(1, 0, false), &options, at(2));
        assert!(health.is_gone(&peer(1)), "a late hello of the same start");
        let mut again = hello(1, 0, false);
        if let PeerMessage::Hello { incarnation, .. } = &mut again {
            *incarnation = 2;
        }
        assert!(health.hello(&peer(1), &again, &options, at(3)));
        assert!(!health.is_gone(&peer(1)));
    }
}
