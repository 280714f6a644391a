//! One connection's part of the streams: negotiates outbound names, delivers inbound streams into their queue.

use super::{Accepted, OpenError, Shared, Stream, Way};
use crate::peer::ours;
use futures::FutureExt;
use futures::future::{BoxFuture, Ready, ready};
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedOutbound};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol};
use libp2p::{PeerId as Libp2pId, StreamProtocol};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use types::PeerId;

/// "Open a stream under one of these names."
pub(crate) struct OpenRequest {
    pub(super) peer: PeerId,
    pub(super) names: Vec<StreamProtocol>,
    pub(super) slot: OwnedSemaphorePermit,
    pub(super) reply: oneshot::Sender<Result<(Stream, String), OpenError>>,
}

pub(crate) struct Handler {
    pub(super) remote: Libp2pId,
    pub(super) shared: Arc<Shared>,
    pub(super) requests: mpsc::Receiver<OpenRequest>,
    pub(super) way: Arc<Way>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Inbound;
    type OutboundProtocol = Outbound;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<Inbound> {
        let accepted = self.shared.accepted.read().clone();
        let upgrade = Inbound { accepted, remote: self.remote, shared: self.shared.clone(), way: self.way.clone() };
        // Longer than the wait for a place in the queue, so that giving up is ours to count.
        SubstreamProtocol::new(upgrade, ()).with_timeout(self.shared.limits.inbound_wait + Duration::from_secs(5))
    }

    fn connection_keep_alive(&self) -> bool {
        self.shared.is_wanted(&self.remote) && !self.way.is_outdone()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Outbound, OpenRequest, Infallible>> {
        while let Poll::Ready(Some(request)) = self.requests.poll_recv(cx) {
            if request.reply.is_closed() {
                continue;
            }
            let upgrade = Outbound(request.names.clone());
            let protocol = SubstreamProtocol::new(upgrade, request).with_timeout(self.shared.limits.open);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Inbound, Outbound, (), OpenRequest>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (stream, name), info }) => {
                let stream = Stream::new(stream, self.shared.traffic.clone(), Some(info.slot), &self.way);
                // The opener may have gone; then the stream is reset.
                let _ = info.reply.send(Ok((stream, name.as_ref().to_owned())));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let peer = info.peer;
                let error = match error {
                    StreamUpgradeError::Timeout => OpenError::TimedOut(peer),
                    StreamUpgradeError::NegotiationFailed => {
                        OpenError::Unsupported { peer, protocols: info.names.iter().map(|name| name.as_ref().to_owned()).collect() }
                    }
                    StreamUpgradeError::Io(error) => OpenError::Lost { peer, reason: error.to_string() },
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.reply.send(Err(error));
            }
            _ => {}
        }
    }
}

/// Delivers a negotiated inbound stream; done when it stands in its queue, so that waiting holds further streams back.
pub(crate) struct Inbound {
    accepted: Arc<Accepted>,
    remote: Libp2pId,
    shared: Arc<Shared>,
    way: Arc<Way>,
}

impl UpgradeInfo for Inbound {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Vec<StreamProtocol> {
        self.accepted.0.iter().filter(|(_, group)| !group.queue.is_closed()).map(|(name, _)| name.clone()).collect()
    }
}

impl InboundUpgrade<libp2p::Stream> for Inbound {
    type Output = ();
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<(), Infallible>>;

    fn upgrade_inbound(self, stream: libp2p::Stream, name: StreamProtocol) -> Self::Future {
        async move {
            let group = self.accepted.0.iter().find(|(accepted, _)| *accepted == name).map(|(_, group)| group.clone());
            let (Some(group), Some(peer)) = (group, ours(&self.remote)) else { return Ok(()) };
            // The table holds the queue open; it must not, while this stream waits.
            drop(self.accepted);
            let wait = self.shared.limits.inbound_wait;
            if tokio::time::timeout(wait, group.deliver(peer, name.clone(), stream, &self.shared, &self.way)).await.is_err() {
                self.shared.traffic.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%peer, protocol = %name, ?wait, "stream reset: its queue stayed full");
            }
            Ok(())
        }
        .boxed()
    }
}

/// Offers names in order of preference.
pub(crate) struct Outbound(Vec<StreamProtocol>);

impl UpgradeInfo for Outbound {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Vec<StreamProtocol> {
        self.0.clone()
    }
}

impl OutboundUpgrade<libp2p::Stream> for Outbound {
    type Output = (libp2p::Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: libp2p::Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}
