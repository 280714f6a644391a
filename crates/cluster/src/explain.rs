//! Plain words for `why`: where a pin is, why there, what is wrong and what happens next.

use crate::look::Look;
use crate::placement::{Candidate, Rules, filter, score};
use crate::repair::Repair;
use crate::report::{CopyRow, Explanation, PeerHealth};
use types::{PeerId, Pin, PinKind, PinState, UnixMillis};

/// Explains one pin.
pub(crate) fn explain(pin: &Pin, rows: Vec<CopyRow>, look: Look, repair: &Repair) -> Explanation {
    let wished = look.wished(pin);
    let confirmed = look.confirmed_live(pin);
    let members = rows.len() as u32;
    let class = class(pin, look);
    let (summary, mut next) = summary(pin, wished, confirmed, members, look, repair);
    next.extend(rows.iter().filter_map(next_of_copy));
    if let Some(end) = pin.options.expires {
        next.push(("the pin ends and is removed".to_owned(), Some(end)));
    }
    let candidates = look.candidates();
    let peers = rows
        .into_iter()
        .map(|row| {
            let words = why_peer(pin, &row, &candidates, look);
            (row, words)
        })
        .collect();
    Explanation { cid: pin.cid, class, wished, confirmed, summary, peers, next, pieces: Vec::new() }
}

fn class(pin: &Pin, look: Look) -> String {
    if pin.options.replicas == look.options.class.replicas() { look.options.class_name.clone() } else { "as asked with the pin".to_owned() }
}

type Next = Vec<(String, Option<UnixMillis>)>;

fn summary(pin: &Pin, wished: Option<(u32, u32)>, confirmed: u32, members: u32, look: Look, repair: &Repair) -> (String, Next) {
    match (pin.kind, wished) {
        (PinKind::Meta, _) => return ("the root of sharded content: its shards are held, not itself".to_owned(), Next::new()),
        (PinKind::Bad, _) => return ("the entry is damaged or of an unknown kind: nothing is done about it".to_owned(), Next::new()),
        (_, None) if confirmed >= members => return (format!("safe: all {members} peers hold it"), Next::new()),
        (_, None) => return (format!("being copied: {confirmed} of {members} peers hold it"), Next::new()),
        _ => {}
    }
    let (least, most) = wished.unwrap_or_default();
    if confirmed >= least {
        let over = if confirmed > most { format!(", {} more than the {most} wished", confirmed - most) } else { String::new() };
        return (format!("safe: {confirmed} confirmed copies, at least {least} wished{over}"), Next::new());
    }
    let head = format!("short of copies: {confirmed} confirmed, at least {least} wished");
    match repair.waits_for(pin, look) {
        Some((because, at)) => {
            let at = at.map(|at| look.now.wall_at(at));
            (format!("{head}; {because}"), vec![(format!("a repair is looked at: {because}"), at)])
        }
        None => (format!("{head}; the placed peers are making them"), Next::new()),
    }
}

/// What happens next with a copy that waits.
fn next_of_copy(row: &CopyRow) -> Option<(String, Option<UnixMillis>)> {
    let who = if row.name.is_empty() { row.peer.short() } else { row.name.clone() };
    let because = row.because.as_ref().map(|because| format!(" ({because})")).unwrap_or_default();
    let words = match row.state {
        PinState::PinQueued | PinState::UnexpectedlyUnpinned => format!("{who} fetches it{because}"),
        PinState::Pinning => format!("{who} is fetching it"),
        PinState::PinError => format!("{who} tries again to fetch it{because}"),
        PinState::UnpinQueued => format!("{who} lets it go{because}"),
        PinState::UnpinError => format!("{who} tries again to let it go{because}"),
        PinState::Unpinning => format!("{who} is letting it go"),
        _ => return None,
    };
    Some((words, row.next_try))
}

/// Why a peer was chosen or not.
fn why_peer(pin: &Pin, row: &CopyRow, candidates: &[Candidate], look: Look) -> String {
    let health = if row.peer == look.options.me { PeerHealth::Up } else { look.health.shown(&row.peer) };
    let state = match health {
        PeerHealth::Up => String::new(),
        other => format!(", now {}", other.as_str()),
    };
    if pin.is_everywhere() {
        return format!("every peer holds it{state}");
    }
    if row.is_placed {
        return format!("placed here{}{state}", rank_words(pin, &row.peer, candidates));
    }
    let rules = Rules { size: look.space.size(&pin.cid), ..Rules::copies(1, 1, 1) };
    let Some(candidate) = candidates.iter().find(|candidate| candidate.peer == row.peer) else {
        return format!("not placed: no member{state}");
    };
    match filter::check(candidate, &rules) {
        Some(unfit) => format!("not placed: it {unfit}"),
        None => format!("not placed: enough others{}{state}", rank_words(pin, &row.peer, candidates)),
    }
}

/// Where the peer stands among all that could hold it.
fn rank_words(pin: &Pin, peer: &PeerId, candidates: &[Candidate]) -> String {
    let fit: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.is_up && !candidate.is_draining).collect();
    let weights = score::weights(candidates, pin.placement.len().max(1) as u64);
    let ranked = score::ranked(&pin.cid, &fit, &weights, &[]);
    match ranked.iter().position(|other| other == peer) {
        Some(position) => format!(", rank {} of {} for this CID", position + 1, ranked.len()),
        None => String::new(),
    }
}
