//! Addresses that change while peers run: a peer that gets a seat at a relay, or another address, tells those it is linked with; one that
//! misses a member asks those it is linked with where that is.

use crate::links::Links;
use crate::peer::Inbound;
use net::{HostEvent, HostEvents};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use types::PeerId;

/// Changes come in groups: they are told together.
const SETTLE: Duration = Duration::from_millis(500);

/// Pauses between two questions for members that are not connected.
const ASK_LEAST: Duration = Duration::from_secs(4);
const ASK_MOST: Duration = Duration::from_secs(300);

/// Takes what happens on the cluster host, and keeps addresses up to date.
pub(crate) async fn run(links: Arc<Links>, inbound: Arc<dyn Inbound>, mut events: HostEvents) {
    let mut search = Search { missing: BTreeSet::new(), pause: ASK_LEAST };
    let mut ask_at = Instant::now() + ASK_LEAST;
    let (mut tell_at, mut turn) = (None::<Instant>, 0);
    loop {
        tokio::select! {
            event = events.next() => match event {
                None => return,
                Some(HostEvent::Connected(peer, _)) => links.connected(peer),
                Some(HostEvent::Disconnected(peer)) => links.disconnected(peer),
                Some(HostEvent::Gossip { topic, from, data, .. }) => inbound.gossip(&topic, from, data),
                Some(HostEvent::ListenChanged) => tell_at = tell_at.or_else(|| Some(Instant::now() + SETTLE)),
            },
            () = tokio::time::sleep_until(tell_at.map_or(ask_at, |at| at.min(ask_at))) => {
                let now = Instant::now();
                if tell_at.take_if(|at| *at <= now).is_some() {
                    tokio::spawn(links.clone().exchange_books(usize::MAX, 0));
                }
                if ask_at <= now {
                    let missing = links.missing();
                    let is_asked = !missing.is_empty();
                    ask_at = now + search.next_pause(missing);
                    if is_asked {
                        tokio::spawn(links.clone().exchange_books(2, turn));
                        turn = turn.wrapping_add(1);
                    }
                }
            },
        }
    }
}

/// How often to ask: soon when somebody is newly missed, ever more rarely for those that stay away.
struct Search {
    missing: BTreeSet<PeerId>,
    pause: Duration,
}

impl Search {
    fn next_pause(&mut self, missing: BTreeSet<PeerId>) -> Duration {
        let is_new = !missing.is_subset(&self.missing);
        self.pause = if is_new || missing.is_empty() { ASK_LEAST } else { (self.pause * 2).min(ASK_MOST) };
        self.missing = missing;
        self.pause
    }
}

/// What others say about a peer adds to what is known, what it says of itself replaces it.
pub(crate) fn merge(known: &[String], said: &[String], is_first_hand: bool) -> Vec<String> {
    /// Addresses kept for one peer; the oldest go.
    const MOST: usize = 24;
    if is_first_hand {
        return said.to_vec();
    }
    let added = said.iter().filter(|address| !known.contains(address));
    let all: Vec<String> = known.iter().chain(added).cloned().collect();
    all[all.len().saturating_sub(MOST)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_away_is_asked_about_ever_more_rarely() {
        let peer = |number: u8| PeerId::from_ed25519(&[number; 32]);
        let mut search = Search { missing: BTreeSet::new(), pause: ASK_LEAST };
        let one = BTreeSet::from([peer(1)]);
        let pauses: Vec<u64> = (0..9).map(|_| search.next_pause(one.clone()).as_secs()).collect();
        assert_eq!(pauses, [4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(search.next_pause(BTreeSet::from([peer(1), peer(2)])), ASK_LEAST, "somebody else");
        assert_eq!(search.next_pause(one.clone()).as_secs(), 8);
        assert_eq!(search.next_pause(BTreeSet::new()), ASK_LEAST);
    }

    #[test]
    fn hearsay_adds_and_the_peer_itself_replaces() {
        let list = |addresses: &[&str]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (known, said, is_first_hand, expected) in [
            (list(&["a", "b"]), list(&["c"]), true, list(&["c"])),
            (list(&["a", "b"]), list(&["b", "c"]), false, list(&["a", "b", "c"])),
            (list(&["a", "b"]), list(&["b"]), false, list(&["a", "b"])),
            (list(&[]), list(&["b"]), false, list(&["b"])),
        ] {
            assert_eq!(merge(&known, &said, is_first_hand), expected, "{known:?} {said:?}");
        }
        let many: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        assert_eq!(merge(&many, &list(&["x"]), false).last().unwrap(), "x", "the oldest go");
    }
}
