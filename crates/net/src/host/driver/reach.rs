//! Carries out how this host is reached: seats at relays, the verdict of those who dialled back, which way each connection goes.

use super::Driver;
use crate::host::behaviour::BehaviourEvent;
use crate::host::seats::Seats;
use crate::host::{HostError, Path, Reach, Reachability, Reachable};
use crate::peer::{is_circuit, ours};
use crate::throttle::Reach as Net;
use libp2p::autonat::v1::{self as autonat, InboundProbeEvent, NatStatus};
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId as Libp2pId, dcutr, identify, relay};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use types::PeerId;

/// From one look at seats and relayed connections to the next.
const LOOK: Duration = Duration::from_secs(1);

/// The same where there is neither: events bring the look forward.
const IDLE: Duration = Duration::from_secs(60);

/// A relayed connection is closed so long after a direct one came, unless a stream is open on it.
const GRACE: Duration = Duration::from_secs(3);

/// Peers that are asked to dial back, in turn.
const ASKED_MOST: usize = 16;

pub(super) struct State {
    pub(super) options: crate::host::ReachOptions,
    reachability: Reachability,
    seats: Seats,
    ways: BTreeMap<ConnectionId, Way>,
    /// Who is asked to dial back, and whether that is a member.
    asked: BTreeMap<Libp2pId, bool>,
    /// Members with a direct connection through two NATs.
    punched: BTreeSet<Libp2pId>,
    /// Addresses that somebody dialled back.
    pub(super) confirmed: Vec<Multiaddr>,
    next_look: Instant,
}

/// Where a connection goes.
struct Way {
    peer: Libp2pId,
    address: Multiaddr,
    is_relayed: bool,
    is_dialled: bool,
    relay: Option<Libp2pId>,
    since: Instant,
}

impl State {
    pub(super) fn new(options: &crate::host::ReachOptions) -> Result<State, HostError> {
        let mut seats = Seats::default();
        for text in &options.relays {
            let (relay, address) = configured(text).ok_or_else(|| HostError::BadAddress { address: text.clone() })?;
            seats.configure(relay, address);
        }
        let reachability = match options.reachable {
            Reachable::Auto => Reachability::Unknown,
            Reachable::Yes => Reachability::Public,
            Reachable::No => Reachability::BehindNat,
        };
        Ok(State {
            options: options.clone(),
            reachability,
            seats,
            ways: BTreeMap::new(),
            asked: BTreeMap::new(),
            punched: BTreeSet::new(),
            confirmed: Vec::new(),
            next_look: Instant::now(),
        })
    }

    pub(super) fn next_wake(&self) -> Instant {
        self.next_look
    }
}

/// A relay that the owner names, and where it is.
fn configured(text: &str) -> Option<(Libp2pId, Multiaddr)> {
    let mut address: Multiaddr = text.parse().ok()?;
    match address.pop()? {
        Protocol::P2p(relay) if !address.is_empty() && !is_circuit(&address) => Some((relay, address)),
        _ => None,
    }
}

/// Through which relay an address leads.
fn relay_of(address: &Multiaddr) -> Option<Libp2pId> {
    let before = address.iter().take_while(|part| *part != Protocol::P2pCircuit);
    before.filter_map(|part| if let Protocol::P2p(id) = part { Some(id) } else { None }).last()
}

impl Driver {
    /// What the owner says stands from the start.
    pub(super) fn begin_reach(&mut self) {
        self.settle_reachability(self.reach.reachability);
    }

    pub(super) fn look_at_reach(&mut self, now: Instant) {
        if self.reach.next_look > now {
            return;
        }
        let has_relayed = self.reach.ways.values().any(|way| way.is_relayed);
        self.reach.next_look = now + if has_relayed || !self.reach.seats.is_empty() { LOOK } else { IDLE };
        self.reach.seats.want(self.reach.reachability != Reachability::Public);
        for (relay, address) in self.reach.seats.due(now) {
            let Ok(address) = address.with_p2p(relay) else { continue };
            match self.swarm.listen_on(address.with(Protocol::P2pCircuit)) {
                Ok(listener) => self.reach.seats.asked(&relay, listener),
                Err(error) => {
                    tracing::debug!(%relay, %error, "asking for a seat at a relay");
                    self.reach.seats.failed(&relay, now);
                }
            }
        }
        self.close_outdone(now);
        self.show_reach();
    }

    /// Closes relayed connections to peers that a direct one reaches, once nobody uses them.
    fn close_outdone(&mut self, now: Instant) {
        let relayed: Vec<Libp2pId> = self.reach.ways.values().filter(|way| way.is_relayed).map(|way| way.peer).collect();
        for peer in relayed {
            let has_direct = self.direct_to(&peer, now.checked_sub(GRACE).unwrap_or(now)).is_some();
            let unused = self.board.streams.outdo(&peer, has_direct);
            for connection in unused.into_iter().filter(|_| has_direct) {
                tracing::debug!(%peer, %connection, "closing a relayed connection: there is a direct one");
                self.swarm.close_connection(connection);
            }
        }
    }

    /// A direct connection to `peer` that is there since `before` or longer.
    fn direct_to(&self, peer: &Libp2pId, before: Instant) -> Option<&Way> {
        self.reach.ways.values().find(|way| way.peer == *peer && !way.is_relayed && way.since <= before)
    }

    pub(super) fn way_opened(&mut self, peer: Libp2pId, connection: ConnectionId, point: &ConnectedPoint) {
        let (address, by) = match point {
            ConnectedPoint::Dialer { address, .. } => (address, relay_of(address)),
            ConnectedPoint::Listener { local_addr, send_back_addr } => (send_back_addr, relay_of(local_addr).or(self.only_seat())),
        };
        let is_relayed = point.is_relayed();
        let way = Way {
            peer,
            address: address.clone(),
            is_relayed,
            is_dialled: point.is_dialer(),
            relay: by.filter(|_| is_relayed),
            since: Instant::now(),
        };
        self.reach.ways.insert(connection, way);
        if is_relayed {
            self.reach.next_look = Instant::now();
        }
        self.show_way(&peer);
    }

    fn only_seat(&self) -> Option<Libp2pId> {
        let mut seats = self.reach.seats.held();
        seats.next().filter(|_| seats.next().is_none())
    }

    /// A direct connection through two NATs to a member cannot be dialled again without a relay: it stays, used or not.
    fn keep_punched(&mut self, id: Libp2pId) {
        tracing::debug!(peer = %id, "a direct connection in place of a relayed one");
        if ours(&id).is_some_and(|peer| (self.reach.options.is_member)(&peer)) && self.reach.punched.insert(id) {
            self.board.streams.want(id, true);
        }
    }

    pub(super) fn way_closed(&mut self, peer: Libp2pId, connection: ConnectionId) {
        self.reach.ways.remove(&connection);
        if self.direct_to(&peer, Instant::now()).is_none() {
            self.ask_no_more(&peer);
        }
        if !self.reach.ways.values().any(|way| way.peer == peer) && self.reach.punched.remove(&peer) {
            let is_kept = ours(&peer).is_some_and(|peer| self.reconnect.is_kept(&peer));
            self.board.streams.want(peer, is_kept);
        }
        self.show_way(&peer);
    }

    /// How a peer is connected, for whoever asks.
    fn show_way(&mut self, peer: &Libp2pId) {
        let Some(id) = ours(peer) else { return };
        let direct = self.direct_to(peer, Instant::now());
        let relayed = self.reach.ways.values().find(|way| way.peer == *peer && way.is_relayed);
        let connections = self.reach.ways.values().filter(|way| way.peer == *peer).count();
        let mut peers = self.board.peers.write();
        let Some(known) = peers.get_mut(&id) else { return };
        known.connections = connections;
        match (direct, relayed) {
            (Some(direct), _) if known.path != Path::Direct => {
                tracing::info!(peer = %id, address = %direct.address, "direct connection, no longer through a relay");
                known.path = Path::Direct;
                known.address = direct.address.to_string();
                self.board.links.send_modify(|links| {
                    if let Some(link) = links.get_mut(&id) {
                        link.moves = link.moves.wrapping_add(1);
                    }
                });
            }
            (None, Some(relayed)) => {
                known.path = Path::Relayed { by: relayed.relay.as_ref().and_then(ours) };
                known.address = relayed.address.to_string();
            }
            _ => {}
        }
    }

    pub(super) fn seat_ended(&mut self, listener: ListenerId) {
        if let Some(relay) = self.reach.seats.ended(listener, Instant::now(), rand::random()) {
            tracing::info!(%relay, "no seat at this relay any more");
            self.show_reach();
        }
    }

    /// A peer said what it speaks: a member that relays offers a seat.
    pub(super) fn consider_relay(&mut self, id: &Libp2pId, info: &identify::Info) {
        let Some(peer) = ours(id) else { return };
        self.consider_asking(id, info);
        if !info.protocols.contains(&relay::HOP_PROTOCOL_NAME) {
            return self.reach.seats.withdrawn(id);
        }
        let Some(way) = self.direct_to(id, Instant::now()).filter(|_| (self.reach.options.is_member)(&peer)) else { return };
        let dialled = Some(&way.address).filter(|_| way.is_dialled);
        let address = dialled.into_iter().chain(&info.listen_addrs).find(|address| !is_circuit(address) && self.is_outside(address));
        let Some(mut address) = address.cloned() else { return };
        if let Some(Protocol::P2p(_)) = address.iter().last() {
            address.pop();
        }
        self.reach.seats.offered(*id, address);
        self.reach.next_look = Instant::now();
    }

    /// A peer on another net can say whether it gets here. Members are asked; strangers only while there are none, since whoever is asked is
    /// believed.
    fn consider_asking(&mut self, id: &Libp2pId, info: &identify::Info) {
        let is_outside = self.direct_to(id, Instant::now()).is_some_and(|way| self.is_outside(&way.address));
        if !is_outside || !info.protocols.contains(&autonat::DEFAULT_PROTOCOL_NAME) {
            return;
        }
        let is_member = ours(id).is_some_and(|peer| (self.reach.options.is_member)(&peer));
        let has_members = self.reach.asked.values().any(|is_member| *is_member);
        if is_member && !has_members {
            for stranger in std::mem::take(&mut self.reach.asked).into_keys() {
                self.swarm.behaviour_mut().autonat.remove_server(&stranger);
            }
        }
        if (is_member || !has_members) && self.reach.asked.len() < ASKED_MOST {
            self.reach.asked.insert(*id, is_member);
            self.swarm.behaviour_mut().autonat.add_server(*id, None);
        }
    }

    fn ask_no_more(&mut self, id: &Libp2pId) {
        if self.reach.asked.remove(id).is_some() {
            self.swarm.behaviour_mut().autonat.remove_server(id);
        }
    }

    /// Whether an address helps those outside to get here. Who is told that it cannot be dialled takes any.
    fn is_outside(&self, address: &Multiaddr) -> bool {
        let options = &self.reach.options;
        if options.private_is_outside || options.reachable == Reachable::No {
            return true;
        }
        address.iter().any(|part| match part {
            Protocol::Ip4(ip) => self.board.throttle.reach(ip.into()) == Net::Wan,
            Protocol::Ip6(ip) => self.board.throttle.reach(ip.into()) == Net::Wan,
            Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => true,
            _ => false,
        })
    }

    pub(super) fn reach_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Circuits(relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, .. }) => {
                if !renewal {
                    tracing::info!(relay = %relay_peer_id, "reached through this relay from now on");
                }
                self.reach.seats.given(&relay_peer_id);
                self.show_reach();
            }
            BehaviourEvent::Autonat(autonat::Event::StatusChanged { new, .. }) => self.judged(&new),
            BehaviourEvent::Autonat(autonat::Event::InboundProbe(InboundProbeEvent::Response { peer, address, .. })) => {
                self.close_probe(&peer, &address);
            }
            BehaviourEvent::Autonat(event) => tracing::debug!(?event, "dialling back"),
            BehaviourEvent::Dcutr(dcutr::Event { remote_peer_id, result }) => match result {
                Ok(_) => self.keep_punched(remote_peer_id),
                Err(error) => tracing::debug!(peer = %remote_peer_id, %error, "no direct connection"),
            },
            BehaviourEvent::Hop(event) => {
                tracing::debug!(?event, "relaying");
                for connection in self.swarm.behaviour().hop.misjudged(&event) {
                    tracing::debug!(%connection, "a member that was taken for a stranger is to come again");
                    self.swarm.close_connection(connection);
                }
                self.show_reach();
            }
            _ => {}
        }
    }

    /// Those who dialled back have said whether they reached this host.
    fn judged(&mut self, verdict: &NatStatus) {
        if self.reach.options.reachable != Reachable::Auto {
            return;
        }
        let reachability = match verdict {
            NatStatus::Public(_) => Reachability::Public,
            NatStatus::Private => Reachability::BehindNat,
            NatStatus::Unknown => Reachability::Unknown,
        };
        if reachability == Reachability::BehindNat {
            for address in std::mem::take(&mut self.reach.confirmed) {
                self.swarm.remove_external_address(&address);
            }
        }
        self.settle_reachability(reachability);
    }

    fn settle_reachability(&mut self, reachability: Reachability) {
        if self.reach.reachability != reachability {
            tracing::info!(?reachability, "whether others can dial this host");
        }
        self.reach.reachability = reachability;
        self.swarm.behaviour_mut().hop.serve(reachability == Reachability::Public);
        self.reach.next_look = Instant::now();
        self.show_reach();
    }

    /// The connection of a dial-back has served.
    fn close_probe(&mut self, peer: &Libp2pId, address: &Multiaddr) {
        let is_probe = |way: &Way| way.peer == *peer && way.is_dialled && way.address == *address;
        let last = self.reach.ways.iter().rfind(|(_, way)| is_probe(way)).map(|(connection, _)| *connection);
        let others = self.reach.ways.values().filter(|way| way.peer == *peer).count();
        if let Some(connection) = last.filter(|_| others > 1) {
            self.swarm.close_connection(connection);
        }
    }

    fn show_reach(&mut self) {
        let hop = &self.swarm.behaviour().hop;
        let reach = Reach {
            state: self.reach.reachability,
            relays: self.reach.seats.held().filter_map(|relay| ours(&relay)).collect::<Vec<PeerId>>(),
            is_relay: hop.is_serving(),
            circuits: hop.circuits(),
        };
        let has_changed = *self.board.reach.read() != reach;
        if has_changed {
            *self.board.reach.write() = reach;
        }
    }
}
