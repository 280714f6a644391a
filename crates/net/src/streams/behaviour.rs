//! The swarm's side of the streams: gives every connection its handler and forgets it at its end.

use super::handler::Handler;
use super::{Connection, Shared, Way};
use crate::peer::is_circuit;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, ToSwarm};
use libp2p::{Multiaddr, PeerId as Libp2pId};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{Semaphore, mpsc};

/// Requests that wait for a connection's task; further openers wait in line.
const REQUESTS_QUEUED: usize = 64;

pub(crate) struct Behaviour {
    shared: Arc<Shared>,
}

impl Behaviour {
    pub(crate) fn new(shared: Arc<Shared>) -> Behaviour {
        Behaviour { shared }
    }

    fn handler(&self, id: ConnectionId, remote: Libp2pId, address: &Multiaddr) -> Handler {
        let way = Arc::new(Way::new(is_circuit(address)));
        let (sender, requests) = mpsc::channel(REQUESTS_QUEUED);
        let slots = Arc::new(Semaphore::new(self.shared.limits.outbound_per_connection));
        let mut connections = self.shared.connections.lock();
        let known = connections.entry(remote).or_default();
        // A connection refused by another behaviour never tells its end: its handler is gone, which closes the channel.
        known.retain(|connection| !connection.requests.is_closed());
        known.push(Connection { id, requests: sender, slots, way: way.clone() });
        Handler { remote, shared: self.shared.clone(), requests, way }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Libp2pId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(id, peer, local))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Libp2pId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(id, peer, address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) = event else { return };
        let mut connections = self.shared.connections.lock();
        let Some(known) = connections.get_mut(&peer_id) else { return };
        known.retain(|connection| connection.id != connection_id && !connection.requests.is_closed());
        if known.is_empty() {
            connections.remove(&peer_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: Libp2pId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
