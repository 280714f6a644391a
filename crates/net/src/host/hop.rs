//! Relays for others (circuit relay v2): members with wide limits, strangers with the narrow ones that Kubo gives.
//!
//! Two relays in one behaviour, since libp2p's has one set of limits: each connection belongs to one of them from its start. A circuit
//! runs between two peers of one kind: a stranger cannot spend a member's share. A peer that turns out to be a member after its
//! connection came up (it says so a moment later, on the cluster host) loses the connection when it first asks for something, and is known
//! when it comes back.
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
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Member,
    Stranger,
    /// Through a relay: no business of this one.
    Relayed,
}

pub(super) struct Hop {
    members: Relay,
    strangers: Relay,
    relay_for: RelayFor,
    is_member: Arc<dyn Fn(&PeerId) -> bool + Send + Sync>,
    kinds: HashMap<ConnectionId, (Libp2pId, Kind)>,
    circuits: usize,
    is_serving: bool,
}

impl Hop {
    pub(super) fn new(id: Libp2pId, options: &ReachOptions) -> Hop {
        let mut hop = Hop {
            members: Relay::new(id, for_members(options.seat)),
            strangers: Relay::new(id, Config { reservation_duration: options.seat, ..Config::default() }),
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
        self.members.set_status(status(self.relay_for != RelayFor::Nobody));
        self.strangers.set_status(status(self.relay_for == RelayFor::Everyone));
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

    fn of_kind(&mut self, kind: Kind) -> &mut Relay {
        match kind {
            Kind::Member => &mut self.members,
            // The handler of a relayed connection refuses everything, whoever made it.
            Kind::Stranger | Kind::Relayed => &mut self.strangers,
        }
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::CircuitReqAccepted { .. } => self.circuits += 1,
            Event::CircuitClosed { .. } => self.circuits = self.circuits.saturating_sub(1),
            _ => {}
        }
    }
}

/// Bounds that stop a fault rather than a transfer.
fn for_members(seat: Duration) -> Config {
    let minute = Duration::from_secs(60);
    let config = Config {
        max_reservations: MEMBER_SEATS,
        max_reservations_per_peer: 4,
        reservation_duration: seat,
        reservation_rate_limiters: Vec::new(),
        max_circuits: MEMBER_CIRCUITS,
        max_circuits_per_peer: MEMBER_CIRCUITS_PER_PEER,
        max_circuit_duration: MEMBER_CIRCUIT,
        max_circuit_bytes: MEMBER_CIRCUIT_BYTES,
        circuit_src_rate_limiters: Vec::new(),
    };
    config.reservation_rate_per_peer(MEMBER_ASKS, minute).circuit_src_per_peer(MEMBER_ASKS, minute)
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
        self.of_kind(kind).handle_established_inbound_connection(id, peer, local, remote)
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
        self.of_kind(kind).handle_established_outbound_connection(id, peer, address, role, port)
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
                self.members.on_swarm_event(event);
                self.strangers.on_swarm_event(event);
                return;
            }
        };
        let kind = if is_end { self.kinds.remove(&connection) } else { self.kinds.get(&connection).copied() };
        if let Some((_, kind @ (Kind::Member | Kind::Stranger))) = kind {
            self.of_kind(kind).on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: Libp2pId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        if let Some((_, kind @ (Kind::Member | Kind::Stranger))) = self.kinds.get(&connection).copied() {
            self.of_kind(kind).on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        let polled = match self.members.poll(cx) {
            Poll::Pending => self.strangers.poll(cx),
            ready => ready,
        };
        if let Poll::Ready(ToSwarm::GenerateEvent(event)) = &polled {
            self.count(event);
        }
        polled
    }
}
