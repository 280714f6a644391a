//! Roots with shards as people see them: one row for each peer, one explanation, and which shards nobody can give now.

use super::Machine;
use crate::report::{CopyRow, Explanation, PieceRow};
use crate::shards::Piece;
use types::{Cid, Depth, Now, PeerId, Pin, PinKind, PinOptions, PinState, UnixMillis};

impl Machine {
    /// Whether this is a root that was cut.
    pub fn has_pieces(&self, root: &Cid) -> bool {
        self.parts.pieces.has(root)
    }

    /// The units of a root: spine first, each in order.
    pub fn pieces_of(&self, root: &Cid) -> Vec<Piece> {
        self.parts.pieces.of(root).collect()
    }

    /// Units that belong to roots or to adds under way.
    pub fn pieces_count(&self) -> u64 {
        self.parts.pieces.len()
    }

    /// Whether a member is heard of now; the own peer always is.
    pub fn is_live(&self, peer: &PeerId) -> bool {
        *peer == self.options.me || self.parts.health.is_live(peer)
    }

    /// Units that nobody who is heard of now holds: root, unit, and the words for it. Empty as long as all members are heard of.
    pub fn unreachable_pieces(&self, now: Now) -> Vec<(Cid, Cid, String)> {
        let is_silent = |peer: &PeerId| *peer != self.options.me && !self.parts.health.is_live(peer);
        if !self.parts.health.iter().any(|(peer, _)| is_silent(peer)) {
            return Vec::new();
        }
        let mut lost = Vec::new();
        for root in self.parts.pieces.roots() {
            let count = self.parts.pieces.count(root);
            for piece in self.parts.pieces.of(root) {
                if !piece.holders.is_empty() && self.is_out_of_reach(&piece) {
                    lost.push((*root, piece.cid, self.lost_words(&piece, count, root, now)));
                }
            }
        }
        lost
    }

    /// One row for each member: the worst of the units that it should hold.
    pub(super) fn rows_of_root(&self, root: &Cid, now: Now) -> Vec<CopyRow> {
        let mut rows: Vec<CopyRow> = Vec::with_capacity(self.parts.others.len() + 1);
        rows.push(self.own_row(None, root, now));
        rows.extend(self.parts.others.iter().map(|peer| self.other_row(peer, None, root, now)));
        for row in &mut rows {
            row.state = PinState::Remote;
        }
        for piece in self.parts.pieces.of(root) {
            let pin = as_pin(&piece);
            for row in rows.iter_mut().filter(|row| pin.is_for(&row.peer)) {
                let unit = match row.peer == self.options.me {
                    true => self.own_row(Some(&pin), &piece.cid, now),
                    false => self.other_row(&row.peer.clone(), Some(&pin), &piece.cid, now),
                };
                if !row.is_placed || severity(unit.state) > severity(row.state) {
                    *row = unit;
                }
            }
        }
        rows
    }

    /// Copies that every unit has at least, confirmed on peers that are heard of now.
    pub(super) fn confirmed_of_root(&self, root: &Cid, now: Now) -> u32 {
        let look = self.look(now);
        self.parts.pieces.of(root).map(|piece| look.confirmed_on(&piece.cid, &piece.holders, piece.is_everywhere)).min().unwrap_or(0)
    }

    pub(super) fn explain_root(&self, pin: &Pin, rows: Vec<CopyRow>, now: Now) -> Explanation {
        let look = self.look(now);
        let count = self.parts.pieces.count(&pin.cid);
        let pieces: Vec<PieceRow> = self.parts.pieces.of(&pin.cid).map(|piece| self.piece_row(&piece, count, &pin.cid, now)).collect();
        let confirmed = pieces.iter().map(|piece| piece.confirmed).min().unwrap_or(0);
        let troubles: Vec<&str> = pieces.iter().filter_map(|piece| piece.trouble.as_deref()).collect();
        let mut next = Vec::new();
        if let Some(end) = pin.options.expires {
            next.push(("the pin ends and is removed with its shards".to_owned(), Some(end)));
        }
        let peers = rows.into_iter().map(|row| self.root_reason(row, &pieces)).collect();
        let wished = match pin.options.replicas {
            types::Replicas::Between { least, most } => Some((least.get(), most.get())),
            _ => None,
        };
        let class = if pin.options.replicas == look.options.class.replicas() { "default" } else { "as asked with the pin" };
        Explanation {
            cid: pin.cid,
            class: class.to_owned(),
            wished,
            confirmed,
            summary: summary(count, confirmed, &troubles),
            peers,
            next,
            pieces,
        }
    }

    fn piece_row(&self, piece: &Piece, count: u32, root: &Cid, now: Now) -> PieceRow {
        let look = self.look(now);
        let confirmed = look.confirmed_on(&piece.cid, &piece.holders, piece.is_everywhere);
        let trouble = if self.is_out_of_reach(piece) {
            Some(self.lost_words(piece, count, root, now))
        } else if confirmed < piece.least {
            let waits = look_for_reason(self, piece, now);
            Some(format!("{}: {confirmed} of at least {} copies confirmed{waits}", piece.words(count), piece.least))
        } else {
            None
        };
        PieceRow {
            cid: piece.cid,
            name: piece.words(count),
            bytes: piece.bytes,
            holders: piece.holders.clone(),
            confirmed,
            least: piece.least,
            trouble,
        }
    }

    /// Whether nobody who is heard of has it: neither a holder nor who handed it over to one that has not confirmed it.
    fn is_out_of_reach(&self, piece: &Piece) -> bool {
        let is_heard = |peer: &PeerId| self.is_live(peer);
        let has_kept = || self.parts.holdings.leaving_holders(&piece.cid).any(|peer| is_heard(&peer));
        !piece.is_everywhere && !piece.holders.iter().any(is_heard) && !self.parts.tracker.hands_over(&piece.cid) && !has_kept()
    }

    /// "shard 3 of 31 of <root> is held only by nas, last seen 12 s ago".
    fn lost_words(&self, piece: &Piece, count: u32, root: &Cid, now: Now) -> String {
        let who: Vec<String> = piece.holders.iter().map(|peer| self.last_seen(peer, now)).collect();
        format!("{} of {root} is held only by {}", piece.words(count), who.join(" and "))
    }

    fn last_seen(&self, peer: &PeerId, now: Now) -> String {
        let standing = self.parts.health.of(peer);
        let name = standing.and_then(|standing| standing.facts.as_ref()).map(|facts| facts.name.clone()).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| peer.short());
        match standing.map(|standing| standing.heard_wall).filter(|heard| *heard > UnixMillis(0)) {
            Some(heard) => format!("{name}, last seen {} ago", span(now.wall.0.saturating_sub(heard.0))),
            None => format!("{name}, not seen since this peer started"),
        }
    }

    fn root_reason(&self, row: CopyRow, pieces: &[PieceRow]) -> (CopyRow, String) {
        let placed = pieces.iter().filter(|piece| piece.holders.contains(&row.peer)).count();
        let words = match placed {
            0 => "holds no shard of it".to_owned(),
            placed => format!("holds {placed} of {} units", pieces.len()),
        };
        (row, words)
    }
}

/// The unit's pin, as far as a row needs it.
fn as_pin(piece: &Piece) -> Pin {
    let replicas = if piece.is_everywhere { types::Replicas::Everywhere } else { types::Replicas::Unset };
    Pin {
        cid: piece.cid,
        kind: PinKind::Shard,
        options: PinOptions { replicas, ..PinOptions::default() },
        placement: piece.holders.clone(),
        depth: Depth::Recursive,
        reference: None,
        created: UnixMillis(0),
    }
}

fn look_for_reason(machine: &Machine, piece: &Piece, now: Now) -> String {
    let pin = as_pin(piece);
    let rows = piece.holders.iter().map(|peer| match *peer == machine.options.me {
        true => machine.own_row(Some(&pin), &piece.cid, now),
        false => machine.other_row(peer, Some(&pin), &piece.cid, now),
    });
    let waiting = rows.filter(|row| row.state != PinState::Pinned).find_map(|row| row.because);
    waiting.map(|because| format!(" ({because})")).unwrap_or_default()
}

fn summary(count: u32, confirmed: u32, troubles: &[&str]) -> String {
    const SHOWN: usize = 3;
    let Some(first) = troubles.get(..troubles.len().min(SHOWN)).filter(|first| !first.is_empty()) else {
        return format!("safe: {count} shards, each with {confirmed} or more confirmed copies");
    };
    let more = if troubles.len() > SHOWN { format!("; and {} more", troubles.len() - SHOWN) } else { String::new() };
    format!("{} of its units need attention: {}{more}", troubles.len(), first.join("; "))
}

/// The worse, the higher.
fn severity(state: PinState) -> u8 {
    match state {
        PinState::Pinned => 0,
        PinState::Remote | PinState::Unpinned | PinState::Sharded => 1,
        PinState::Pinning => 2,
        PinState::PinQueued => 3,
        PinState::Unpinning | PinState::UnpinQueued => 4,
        PinState::UnexpectedlyUnpinned => 5,
        PinState::UnpinError => 6,
        PinState::PinError => 7,
        PinState::ClusterError => 8,
    }
}

fn span(milliseconds: u64) -> String {
    match milliseconds / 1000 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
