//! Decides at which relays a host that cannot be dialled takes a seat. Does nothing itself.
//!
//! Up to [`SEATS_MOST`] at once, configured relays before members, each kept until its relay goes: libp2p renews a seat by itself.

use libp2p::core::transport::ListenerId;
use libp2p::{Multiaddr, PeerId as Libp2pId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Seats at once: the second takes over when the first one's relay dies.
pub(super) const SEATS_MOST: usize = 2;

/// Relays known at once.
const OFFERS_MOST: usize = 64;

/// The first pause after a relay refused or was lost.
const PAUSE_LEAST: Duration = Duration::from_secs(2);

/// No pause is longer; a member's relay that failed so long is forgotten until it is connected again.
const PAUSE_MOST: Duration = Duration::from_secs(300);

/// The relays that offer a seat, and the seats taken.
#[derive(Debug, Default)]
pub(super) struct Seats {
    offers: BTreeMap<Libp2pId, Offer>,
    is_wanted: bool,
}

#[derive(Debug)]
struct Offer {
    address: Multiaddr,
    is_configured: bool,
    phase: Phase,
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Free,
    Asking(ListenerId),
    Seated(ListenerId),
    Waiting { until: Instant },
}

impl Seats {
    /// A relay that the owner names: known for ever.
    pub(super) fn configure(&mut self, relay: Libp2pId, address: Multiaddr) {
        self.offers.insert(relay, Offer { address, is_configured: true, phase: Phase::Free, pause: PAUSE_LEAST });
    }

    /// A connected member relays.
    pub(super) fn offered(&mut self, relay: Libp2pId, address: Multiaddr) {
        if self.offers.len() < OFFERS_MOST {
            let offer = || Offer { address, is_configured: false, phase: Phase::Free, pause: PAUSE_LEAST };
            self.offers.entry(relay).or_insert_with(offer);
        }
    }

    /// It relays no more. A seat there ends by itself.
    pub(super) fn withdrawn(&mut self, relay: &Libp2pId) {
        let is_idle = |offer: &Offer| !offer.is_configured && matches!(offer.phase, Phase::Free | Phase::Waiting { .. });
        if self.offers.get(relay).is_some_and(is_idle) {
            self.offers.remove(relay);
        }
    }

    /// Whether no relay is known.
    pub(super) fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    /// Whether seats are needed at all. Those taken are kept.
    pub(super) fn want(&mut self, is_wanted: bool) {
        self.is_wanted = is_wanted;
    }

    /// Where to ask for a seat now; [`Seats::asked`] says that it was done.
    pub(super) fn due(&self, now: Instant) -> Vec<(Libp2pId, Multiaddr)> {
        if !self.is_wanted {
            return Vec::new();
        }
        let taken = self.offers.values().filter(|offer| matches!(offer.phase, Phase::Asking(_) | Phase::Seated(_))).count();
        let is_free = |offer: &Offer| match offer.phase {
            Phase::Free => true,
            Phase::Waiting { until } => until <= now,
            Phase::Asking(_) | Phase::Seated(_) => false,
        };
        let mut free: Vec<_> = self.offers.iter().filter(|(_, offer)| is_free(offer)).collect();
        free.sort_by_key(|(relay, offer)| (!offer.is_configured, offer.pause, **relay));
        let room = SEATS_MOST.saturating_sub(taken);
        free.into_iter().take(room).map(|(relay, offer)| (*relay, offer.address.clone())).collect()
    }

    /// A seat is being asked for.
    pub(super) fn asked(&mut self, relay: &Libp2pId, listener: ListenerId) {
        if let Some(offer) = self.offers.get_mut(relay) {
            offer.phase = Phase::Asking(listener);
        }
    }

    /// The relay gave it, or renewed it.
    pub(super) fn given(&mut self, relay: &Libp2pId) {
        let Some(offer) = self.offers.get_mut(relay) else { return };
        if let Phase::Asking(listener) = offer.phase {
            offer.phase = Phase::Seated(listener);
            offer.pause = PAUSE_LEAST;
        }
    }

    /// The seat, or the question for it, ended. None when `listener` was no seat. `spread` in 0..1 keeps many peers of a dead relay apart.
    pub(super) fn ended(&mut self, listener: ListenerId, now: Instant, spread: f64) -> Option<Libp2pId> {
        let is_it = |offer: &Offer| matches!(offer.phase, Phase::Asking(known) | Phase::Seated(known) if known == listener);
        let (relay, offer) = self.offers.iter_mut().find(|(_, offer)| is_it(offer))?;
        offer.phase = Phase::Waiting { until: now + offer.pause.mul_f64(0.75 + spread.clamp(0.0, 1.0) / 2.0) };
        offer.pause = (offer.pause * 2).min(PAUSE_MOST);
        let relay = *relay;
        self.forget_failing();
        Some(relay)
    }

    /// The question could not even be put.
    pub(super) fn failed(&mut self, relay: &Libp2pId, now: Instant) {
        if let Some(offer) = self.offers.get_mut(relay) {
            offer.phase = Phase::Waiting { until: now + offer.pause };
            offer.pause = (offer.pause * 2).min(PAUSE_MOST);
        }
        self.forget_failing();
    }

    fn forget_failing(&mut self) {
        let is_failing = |offer: &Offer| matches!(offer.phase, Phase::Waiting { .. }) && offer.pause >= PAUSE_MOST;
        self.offers.retain(|_, offer| offer.is_configured || !is_failing(offer));
    }

    /// The relays at which a seat is held.
    pub(super) fn held(&self) -> impl Iterator<Item = Libp2pId> + '_ {
        self.offers.iter().filter(|(_, offer)| matches!(offer.phase, Phase::Seated(_))).map(|(relay, _)| *relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    fn relay(number: u8) -> Libp2pId {
        Keypair::ed25519_from_bytes([number; 32]).unwrap().public().to_peer_id()
    }

    fn address(number: u8) -> Multiaddr {
        format!("/ip4/10.0.0.{number}/tcp/1").parse().unwrap()
    }

    /// Asks for what is due, and says at whom.
    fn ask(seats: &mut Seats, now: Instant) -> Vec<(Libp2pId, ListenerId)> {
        let due = seats.due(now);
        due.into_iter()
            .map(|(relay, _)| {
                let listener = ListenerId::next();
                seats.asked(&relay, listener);
                (relay, listener)
            })
            .collect()
    }

    #[test]
    fn two_seats_at_most_and_configured_relays_first() {
        let (mut seats, now) = (Seats::default(), Instant::now());
        for number in 1..=4 {
            seats.offered(relay(number), address(number));
        }
        seats.configure(relay(9), address(9));
        assert!(ask(&mut seats, now).is_empty(), "not needed yet");
        seats.want(true);
        let asked = ask(&mut seats, now);
        assert_eq!(asked.len(), SEATS_MOST);
        assert_eq!(asked[0].0, relay(9));
        assert!(ask(&mut seats, now).is_empty());
        seats.given(&relay(9));
        assert_eq!(seats.held().collect::<Vec<_>>(), [relay(9)]);
    }

    #[test]
    fn a_lost_seat_is_taken_elsewhere_and_a_refusal_is_not_asked_again_at_once() {
        let (mut seats, now) = (Seats::default(), Instant::now());
        seats.want(true);
        for number in 1..=3 {
            seats.offered(relay(number), address(number));
        }
        let asked = ask(&mut seats, now);
        seats.given(&asked[0].0);
        seats.given(&asked[1].0);
        assert_eq!(seats.ended(asked[0].1, now, 0.5), Some(asked[0].0));
        let next = ask(&mut seats, now);
        assert_eq!(next.len(), 1);
        assert_ne!(next[0].0, asked[0].0);
        assert_eq!(seats.ended(next[0].1, now, 0.5), Some(next[0].0));
        assert!(ask(&mut seats, now).is_empty(), "both wait");
        assert_eq!(ask(&mut seats, now + PAUSE_LEAST).len(), 1);
        assert_eq!(seats.ended(ListenerId::next(), now, 0.5), None, "no seat");
    }

    #[test]
    fn a_relay_that_stays_away_is_forgotten_and_one_that_stops_relaying_at_once() {
        let (mut seats, mut now) = (Seats::default(), Instant::now());
        seats.want(true);
        seats.offered(relay(1), address(1));
        let mut tries = 0;
        while let Some((relay, listener)) = ask(&mut seats, now).pop() {
            seats.ended(listener, now, 0.5).filter(|ended| *ended == relay).unwrap();
            now += PAUSE_MOST;
            tries += 1;
        }
        assert_eq!(tries, 8, "pauses from 2 s to 256 s");
        assert!(seats.is_empty());

        seats.offered(relay(1), address(1));
        let asked = ask(&mut seats, now);
        seats.withdrawn(&relay(1));
        assert_eq!(seats.ended(asked[0].1, now, 0.5), Some(relay(1)), "what was asked for has its answer first");
        seats.withdrawn(&relay(1));
        assert!(seats.is_empty());
    }
}
