//! Decides when a peer that should stay connected is dialled again. Does nothing itself.

use libp2p::Multiaddr;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use types::PeerId;

/// The first pause after a connection was lost or a dial failed.
const PAUSE_LEAST: Duration = Duration::from_millis(200);

/// No pause is longer.
const PAUSE_MOST: Duration = Duration::from_secs(10);

/// Peers that should stay connected.
#[derive(Debug, Default)]
pub(super) struct Reconnect {
    peers: BTreeMap<PeerId, Kept>,
}

#[derive(Debug)]
struct Kept {
    addresses: Vec<Multiaddr>,
    phase: Phase,
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connected,
    Dialling,
    Waiting { until: Instant },
}

impl Reconnect {
    /// Keeps `peer` from now on, or replaces its addresses and tries those at once.
    pub(super) fn keep(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, is_connected: bool, now: Instant) {
        let phase = if is_connected { Phase::Connected } else { Phase::Waiting { until: now } };
        let kept = self.peers.entry(peer).or_insert_with(|| Kept { addresses: Vec::new(), phase, pause: PAUSE_LEAST });
        if kept.addresses != addresses && kept.phase != Phase::Connected {
            kept.phase = phase;
            kept.pause = PAUSE_LEAST;
        }
        kept.addresses = addresses;
    }

    /// Keeps it no longer.
    pub(super) fn let_go(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// Whether `peer` should stay connected.
    pub(super) fn is_kept(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// There is a connection.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(kept) = self.peers.get_mut(peer) {
            kept.phase = Phase::Connected;
        }
    }

    /// There is no connection any more; `spread` in 0..1 keeps many peers from dialling at one moment.
    pub(super) fn disconnected(&mut self, peer: &PeerId, now: Instant, spread: f64) {
        if let Some(kept) = self.peers.get_mut(peer) {
            kept.pause = PAUSE_LEAST;
            kept.phase = Phase::Waiting { until: now + spread_pause(kept.pause, spread) };
        }
    }

    /// A dial failed.
    pub(super) fn failed(&mut self, peer: &PeerId, now: Instant, spread: f64) {
        let Some(kept) = self.peers.get_mut(peer) else { return };
        if kept.phase == Phase::Dialling {
            kept.phase = Phase::Waiting { until: now + spread_pause(kept.pause, spread) };
            kept.pause = (kept.pause * 2).min(PAUSE_MOST);
        }
    }

    /// Who is to be dialled now; they count as being dialled from here on.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let due = self.peers.iter_mut().filter(|(_, kept)| matches!(kept.phase, Phase::Waiting { until } if until <= now));
        due.map(|(peer, kept)| {
            kept.phase = Phase::Dialling;
            (*peer, kept.addresses.clone())
        })
        .collect()
    }

    /// When [`Reconnect::due`] next has something.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let waits = self.peers.values().filter_map(|kept| match kept.phase {
            Phase::Waiting { until } => Some(until),
            _ => None,
        });
        waits.min()
    }
}

/// Between 3/4 and 5/4 of the pause.
fn spread_pause(pause: Duration, spread: f64) -> Duration {
    pause.mul_f64(0.75 + spread.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_ten_seconds_and_start_again_after_a_connection() {
        let (peer, mut now) = (PeerId::from_ed25519(&[1; 32]), Instant::now());
        let mut reconnect = Reconnect::default();
        reconnect.keep(peer, Vec::new(), false, now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(reconnect.due(now).len(), 1);
            assert!(reconnect.due(now).is_empty(), "a dial under way is not repeated");
            reconnect.failed(&peer, now, 0.5);
            let wake = reconnect.next_wake().unwrap();
            pauses.push((wake - now).as_millis());
            now = wake;
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        reconnect.due(now);
        reconnect.connected(&peer);
        assert_eq!(reconnect.next_wake(), None);
        reconnect.disconnected(&peer, now, 0.5);
        assert_eq!(reconnect.next_wake(), Some(now + Duration::from_millis(200)));
    }

    #[test]
    fn other_addresses_are_tried_at_once_and_who_is_let_go_is_not_dialled() {
        let (peer, now) = (PeerId::from_ed25519(&[1; 32]), Instant::now());
        let mut reconnect = Reconnect::default();
        reconnect.keep(peer, Vec::new(), false, now);
        reconnect.due(now);
        reconnect.failed(&peer, now, 1.0);
        assert!(reconnect.due(now).is_empty());
        reconnect.keep(peer, vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()], false, now);
        assert_eq!(reconnect.due(now).len(), 1);
        reconnect.failed(&peer, now, 1.0);
        reconnect.let_go(&peer);
        assert!(!reconnect.is_kept(&peer));
        assert_eq!(reconnect.next_wake(), None);
    }
}
