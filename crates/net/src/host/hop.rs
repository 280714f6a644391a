//! Relays for others (circuit relay v2): members with wide limits, strangers with the narrow ones that Kubo gives.
//!
//! libp2p's relay has one set of limits, and one table of seats. All seats are in one table, so that members and strangers reach each other.
//! How much passes through a circuit is decided by the connection of whoever asks for it, which gets its limits at its start: there are two
//! relays here, and the one of strangers only makes their connections' handlers. How many seats and circuits strangers have together is
//! looked at before the table is asked ([`Strangers`]), so that they cannot spend what is for members. A peer that turns out to be a member
//! after its connection came up (it says so a moment later, on the cluster host) loses the connection when it first asks for something,
//! and is known when it comes back.
//!
//! Connections that are relayed themselves are kept from both: nobody relays on, and libp2p's relay would address a handler there that
//! does not exist.

use super::{ReachOptions, RelayFor};
use crate::peer::{is_circuit, ours};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::relay::{Behaviour as Relay, Config, Event, Status};
use libp2p::swarm::{ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm};
use libp2p::{Multiaddr, PeerId as Libp2pId};
use parking_lot::Mutex;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use types::PeerId;

/// Members that hold a seat here.
const MEMBER_SEATS: usize = 1024;

/// Circuits between members that run here at once.
const MEMBER_CIRCUITS: usize = 512;

/// Of these with one member at an end.
const MEMBER_CIRCUITS_PER_PEER: usize = 64;

/// A circuit between members ends after so long; then another is made.
const MEMBER_CIRCUIT: Duration = Duration::from_secs(24 * 3600);

/// A circuit between members ends after so many bytes.
const MEMBER_CIRCUIT_BYTES: u64 = 1 << 40;

/// Seats and circuits that one member may ask for in a minute.
const MEMBER_ASKS: NonZeroU32 = NonZeroU32::new(120).expect("over zero");

/// Strangers that hold a seat here, as in Kubo.
const STRANGER_SEATS: usize = 128;

/// Circuits that run at once for strangers who asked for them.
const STRANGER_CIRCUITS: usize = 16;

/// Of these for one.
const STRANGER_CIRCUITS_PER_PEER: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Member,
    Stranger,
    /// Through a relay: no business of this one.
    Relayed,
}

pub(super) struct Hop {
    /// Has all seats and circuits, and makes the handlers of members.
    relay: Relay,
    /// Makes the handlers of strangers. Where they are refused it has their connections, too, and serves nobody.
    narrow: Relay,
    strangers: Arc<Mutex<Strangers>>,
    relay_for: RelayFor,
    is_member: Arc<dyn Fn(&PeerId) -> bool + Send + Sync>,
    kinds: HashMap<ConnectionId, (Libp2pId, Kind)>,
    circuits: usize,
    is_serving: bool,
}

impl Hop {
    pub(super) fn new(id: Libp2pId, options: &ReachOptions) -> Hop {
        let strangers = Arc::new(Mutex::new(Strangers::default()));
        let mut hop = Hop {
            relay: Relay::new(id, limits(options.seat, &options.is_member, &strangers)),
            narrow: Relay::new(id, Config { reservation_duration: options.seat, ..Config::default() }),
            strangers,
            relay_for: options.relay,
            is_member: options.is_member.clone(),
            kinds: HashMap::new(),
            circuits: 0,
            is_serving: false,
        };
        hop.serve(false);
        hop
    }

    /// Whether to relay. Never left to libp2p's own guess: it takes an address through another relay for being reachable.
    pub(super) fn serve(&mut self, is_reachable: bool) {
        self.is_serving = is_reachable && self.relay_for != RelayFor::Nobody;
        let status = |serves: bool| Some(if serves && is_reachable { Status::Enable } else { Status::Disable });
        self.relay.set_status(status(self.relay_for != RelayFor::Nobody));
        self.narrow.set_status(status(self.relay_for == RelayFor::Everyone));
    }

    /// Whether it relays for anybody.
    pub(super) fn is_serving(&self) -> bool {
        self.is_serving
    }

    /// Circuits that run now.
    pub(super) fn circuits(&self) -> usize {
        self.circuits
    }

    fn kind_of(&mut self, id: ConnectionId, peer: Libp2pId, is_relayed: bool) -> Kind {
        let is_member = || ours(&peer).is_some_and(|peer| (self.is_member)(&peer));
        let kind = match is_relayed {
            true => Kind::Relayed,
            false if is_member() => Kind::Member,
            false => Kind::Stranger,
        };
        self.kinds.insert(id, (peer, kind));
        kind
    }

    /// Connections of the peers of `event` that began before they were known as members.
    pub(super) fn misjudged(&self, event: &Event) -> Vec<ConnectionId> {
        let peers = match event {
            Event::ReservationReqAccepted { src_peer_id, .. } => vec![*src_peer_id],
            Event::CircuitReqAccepted { src_peer_id, dst_peer_id } | Event::CircuitReqDenied { src_peer_id, dst_peer_id, .. } => {
                vec![*src_peer_id, *dst_peer_id]
            }
            _ => return Vec::new(),
        };
        let is_member = |peer: &Libp2pId| ours(peer).is_some_and(|peer| (self.is_member)(&peer));
        let members: Vec<Libp2pId> = peers.into_iter().filter(is_member).collect();
        let strangers = self.kinds.iter().filter(|(_, (_, kind))| *kind == Kind::Stranger);
        strangers.filter(|(_, (peer, _))| members.contains(peer)).map(|(connection, _)| *connection).collect()
    }

    /// Who makes the handler of a connection.
    fn maker(&mut self, kind: Kind) -> &mut Relay {
        match kind {
            Kind::Member => &mut self.relay,
            // The handler of a relayed connection refuses everything, whoever made it.
            Kind::Stranger | Kind::Relayed => &mut self.narrow,
        }
    }

    /// Who hears what happens on a connection.
    fn keeper(&mut self, kind: Kind) -> Option<&mut Relay> {
        match kind {
            Kind::Member => Some(&mut self.relay),
            Kind::Stranger if self.relay_for == RelayFor::Everyone => Some(&mut self.relay),
            Kind::Stranger => Some(&mut self.narrow),
            Kind::Relayed => None,
        }
    }

    fn count(&mut self, event: &Event) {
        let is_member = |peer: &Libp2pId| ours(peer).is_some_and(|peer| (self.is_member)(&peer));
        let mut strangers = self.strangers.lock();
        match event {
            Event::ReservationReqAccepted { src_peer_id, .. } if !is_member(src_peer_id) => _ = strangers.seats.insert(*src_peer_id),
            Event::ReservationTimedOut { src_peer_id } => _ = strangers.seats.remove(src_peer_id),
            // Comes for each connection that ends, with a seat or without.
            Event::ReservationClosed { src_peer_id } if !self.kinds.values().any(|(peer, _)| peer == src_peer_id) => {
                strangers.seats.remove(src_peer_id);
            }
            Event::CircuitReqAccepted { src_peer_id, .. } => {
                self.circuits += 1;
                if !is_member(src_peer_id) {
                    *strangers.circuits.entry(*src_peer_id).or_default() += 1;
                }
            }
            Event::CircuitClosed { src_peer_id, .. } => {
                self.circuits = self.circuits.saturating_sub(1);
                if let Entry::Occupied(mut running) = strangers.circuits.entry(*src_peer_id) {
                    *running.get_mut() -= 1;
                    if *running.get() == 0 {
                        running.remove();
                    }
                }
            }
            _ => {}
        }
    }
}

/// What strangers have here. A circuit counts from its acceptance, so that a burst passes the limit by what is asked in one round trip;
/// the rates and the limits for all bound that.
#[derive(Default)]
struct Strangers {
    seats: HashSet<Libp2pId>,
    /// By who asked; never zero.
    circuits: HashMap<Libp2pId, usize>,
}

impl Strangers {
    fn has_seat_for(&self, peer: &Libp2pId) -> bool {
        self.seats.len() < STRANGER_SEATS || self.seats.contains(peer)
    }

    fn has_circuit_for(&self, peer: &Libp2pId) -> bool {
        let of_peer = self.circuits.get(peer).copied().unwrap_or(0);
        of_peer < STRANGER_CIRCUITS_PER_PEER && self.circuits.values().sum::<usize>() < STRANGER_CIRCUITS
    }
}

type IsMember = Arc<dyn Fn(&PeerId) -> bool + Send + Sync>;

/// Bounds that stop a fault of a member rather than its transfer; and before them strangers' bounds and Kubo's rates.
fn limits(seat: Duration, is_member: &IsMember, strangers: &Arc<Mutex<Strangers>>) -> Config {
    let minute = Duration::from_secs(60);
    let unlimited = Config { reservation_rate_limiters: Vec::new(), circuit_src_rate_limiters: Vec::new(), ..Config::default() };
    let members = unlimited.reservation_rate_per_peer(MEMBER_ASKS, minute).circuit_src_per_peer(MEMBER_ASKS, minute);
    let (mut member_seats, mut member_circuits) = (members.reservation_rate_limiters, members.circuit_src_rate_limiters);
    let usual = Config::default();
    let (mut usual_seats, mut usual_circuits) = (usual.reservation_rate_limiters, usual.circuit_src_rate_limiters);
    let knows = |is_member: &IsMember| {
        let is_member = is_member.clone();
        move |peer: &Libp2pId| ours(peer).is_some_and(|peer| is_member(&peer))
    };
    let (is_known, counts) = (knows(is_member), strangers.clone());
    let seats = move |peer: Libp2pId, address: &Multiaddr, now: Instant| match is_known(&peer) {
        true => member_seats.iter_mut().all(|rate| rate.try_next(peer, address, now)),
        false => counts.lock().has_seat_for(&peer) && usual_seats.iter_mut().all(|rate| rate.try_next(peer, address, now)),
    };
    let (is_known, counts) = (knows(is_member), strangers.clone());
    let circuits = move |peer: Libp2pId, address: &Multiaddr, now: Instant| match is_known(&peer) {
        true => member_circuits.iter_mut().all(|rate| rate.try_next(peer, address, now)),
        false => counts.lock().has_circuit_for(&peer) && usual_circuits.iter_mut().all(|rate| rate.try_next(peer, address, now)),
    };
    Config {
        reservation_rate_limiters: vec![Box::new(seats)],
        circuit_src_rate_limiters: vec![Box::new(circuits)],
        max_reservations: MEMBER_SEATS + STRANGER_SEATS,
        max_reservations_per_peer: 4,
        reservation_duration: seat,
        max_circuits: MEMBER_CIRCUITS + STRANGER_CIRCUITS,
        max_circuits_per_peer: MEMBER_CIRCUITS_PER_PEER,
        max_circuit_duration: MEMBER_CIRCUIT,
        max_circuit_bytes: MEMBER_CIRCUIT_BYTES,
    }
}

impl NetworkBehaviour for Hop {
    type ConnectionHandler = <Relay as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Libp2pId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let kind = self.kind_of(id, peer, is_circuit(local));
        self.maker(kind).handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Libp2pId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let kind = self.kind_of(id, peer, is_circuit(address));
        self.maker(kind).handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let (connection, is_end) = match &event {
            FromSwarm::ConnectionEstablished(established) => (established.connection_id, false),
            FromSwarm::AddressChange(change) => (change.connection_id, false),
            FromSwarm::ConnectionClosed(closed) => (closed.connection_id, true),
            // A connection that another part refused never tells its end.
            FromSwarm::DialFailure(failure) => {
                self.kinds.remove(&failure.connection_id);
                return;
            }
            FromSwarm::ListenFailure(failure) => {
                self.kinds.remove(&failure.connection_id);
                return;
            }
            _ => {
                self.relay.on_swarm_event(event);
                self.narrow.on_swarm_event(event);
                return;
            }
        };
        let kind = if is_end { self.kinds.remove(&connection) } else { self.kinds.get(&connection).copied() };
        if let Some(keeper) = kind.and_then(|(_, kind)| self.keeper(kind)) {
            keeper.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: Libp2pId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        let kind = self.kinds.get(&connection).map(|(_, kind)| *kind);
        if let Some(keeper) = kind.and_then(|kind| self.keeper(kind)) {
            keeper.on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        let polled = match self.relay.poll(cx) {
            Poll::Pending => self.narrow.poll(cx),
            ready => ready,
        };
        if let Poll::Ready(ToSwarm::GenerateEvent(event)) = &polled {
            self.count(event);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_have_their_share_and_no_more() {
        let mut strangers = Strangers::default();
        let peers: Vec<Libp2pId> = (0..STRANGER_SEATS).map(|_| Libp2pId::random()).collect();
        let other = Libp2pId::random();
        strangers.seats.extend(&peers[1..]);
        assert!(strangers.has_seat_for(&other));
        strangers.seats.insert(peers[0]);
        assert!(!strangers.has_seat_for(&other) && strangers.has_seat_for(&peers[0]), "a seat can be renewed when all are taken");

        strangers.circuits.insert(peers[0], STRANGER_CIRCUITS_PER_PEER - 1);
        assert!(strangers.has_circuit_for(&peers[0]));
        strangers.circuits.insert(peers[0], STRANGER_CIRCUITS_PER_PEER);
        assert!(!strangers.has_circuit_for(&peers[0]) && strangers.has_circuit_for(&other));
        strangers.circuits.extend(peers[1..].iter().take(STRANGER_CIRCUITS - STRANGER_CIRCUITS_PER_PEER).map(|peer| (*peer, 1)));
        assert!(!strangers.has_circuit_for(&other));
    }
}
