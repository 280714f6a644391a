//! Probes (libp2p's ping) of software that asks and does not answer.
#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use common::{options, start};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, future::BoxFuture};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, SubstreamProtocol, SwarmEvent,
    THandlerInEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, noise, tcp, yamux};
use net::HostOptions;
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// Asks again and again on one stream, and speaks nothing itself.
#[derive(Default)]
struct Asking {
    untold: usize,
}

impl NetworkBehaviour for Asking {
    type ConnectionHandler = Handler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, (): ()) {
        self.untold += 1;
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), THandlerInEvent<Self>>> {
        let Some(left) = self.untold.checked_sub(1) else { return Poll::Pending };
        self.untold = left;
        Poll::Ready(ToSwarm::GenerateEvent(()))
    }
}

#[derive(Default)]
struct Handler {
    is_opened: bool,
    asking: Option<BoxFuture<'static, std::io::Result<Stream>>>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = ();
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, (), ()>> {
        if !std::mem::replace(&mut self.is_opened, true) {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(PING), ()),
            });
        }
        let Some(asking) = &mut self.asking else { return Poll::Pending };
        let Poll::Ready(result) = asking.poll_unpin(cx) else { return Poll::Pending };
        self.asking = Some(ask(result.expect("what was sent comes back")).boxed());
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(()))
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, DeniedUpgrade, ReadyUpgrade<StreamProtocol>>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(opened) => self.asking = Some(ask(opened.protocol).boxed()),
            ConnectionEvent::DialUpgradeError(error) => panic!("no stream: {:?}", error.error),
            _ => {}
        }
    }
}

async fn ask(mut stream: Stream) -> std::io::Result<Stream> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    let probe: [u8; 32] = rand::random();
    stream.write_all(&probe).await?;
    stream.flush().await?;
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, probe);
    Ok(stream)
}

#[tokio::test]
async fn who_asks_and_does_not_answer_is_answered_and_stays() {
    let quick = HostOptions { ping: Duration::from_millis(50), silence: Duration::from_millis(200), ..options(1) };
    let (host, _) = start(quick).await;
    let mut asking = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Asking::default())
        .unwrap()
        .build();
    asking.dial(host.addresses()[0].parse::<Multiaddr>().unwrap()).unwrap();
    // Several times as long as the host bears silence.
    let mut answered = 0;
    while answered < 50 {
        let event = tokio::time::timeout(Duration::from_secs(10), asking.select_next_some()).await;
        match event.unwrap_or_else(|_| panic!("answered {answered} times, and then no more")) {
            SwarmEvent::Behaviour(()) => answered += 1,
            closed @ SwarmEvent::ConnectionClosed { .. } => panic!("{closed:?}"),
            _ => {}
        }
    }
    assert_eq!(host.connected().len(), 1);
}
