//! Probes of connections: libp2p's ping, with answers of our own.
//!
//! libp2p's handler stops answering a peer that answers no probes itself; software that only asks (a bare Helia) then takes this host for
//! dead after 15 s. So its half that asks is used, and the other half is here.

use futures::future::BoxFuture;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::ping::{self, Config, Event, Failure};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, SubstreamProtocol,
    THandlerInEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId as Libp2pId, Stream, StreamProtocol};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

/// What is sent and comes back.
const PROBE_BYTES: usize = 32;

/// Streams on which one connection is answered: one is usual, and another one may take its place. A third ends the oldest.
const ANSWERED_MOST: usize = 2;

/// Asks and answers on every connection.
pub(super) struct Probes(ping::Behaviour);

impl Probes {
    pub(super) fn new(config: Config) -> Probes {
        Probes(ping::Behaviour::new(config))
    }
}

impl NetworkBehaviour for Probes {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Libp2pId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.0.handle_established_inbound_connection(id, peer, local, remote).map(Handler::new)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Libp2pId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        self.0.handle_established_outbound_connection(id, peer, address, role, port).map(Handler::new)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.0.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: Libp2pId, id: ConnectionId, event: Result<Duration, Failure>) {
        self.0.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.0.poll(cx)
    }
}

type Asking = <ping::Behaviour as NetworkBehaviour>::ConnectionHandler;
type Name = ReadyUpgrade<StreamProtocol>;

/// One connection's part.
pub(super) struct Handler {
    asking: Asking,
    answering: VecDeque<BoxFuture<'static, io::Error>>,
}

impl Handler {
    fn new(asking: Asking) -> Handler {
        Handler { asking, answering: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Result<Duration, Failure>;
    type InboundProtocol = Name;
    type OutboundProtocol = Name;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Name> {
        self.asking.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.asking.connection_keep_alive()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Name, (), Result<Duration, Failure>>> {
        self.answering.retain_mut(|answers| answers.poll_unpin(cx).is_pending());
        self.asking.poll(cx)
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Name, Name>) {
        let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: mut stream, .. }) = event else {
            return self.asking.on_connection_event(event);
        };
        stream.ignore_for_keep_alive();
        if self.answering.len() == ANSWERED_MOST {
            self.answering.pop_front();
        }
        self.answering.push_back(answer(stream).map(|Err(error)| error).boxed());
    }
}

/// Sends back what comes, until the stream ends.
async fn answer(mut stream: Stream) -> Result<Infallible, io::Error> {
    let mut probe = [0; PROBE_BYTES];
    loop {
        stream.read_exact(&mut probe).await?;
        stream.write_all(&probe).await?;
        stream.flush().await?;
        // However fast it asks, the other streams of the connection have their turn.
        tokio::task::yield_now().await;
    }
}
