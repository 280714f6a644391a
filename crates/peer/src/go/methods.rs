//! The methods that Go peers call, and who may.

use super::answers::Own;
use super::{Side, greeting};
use crate::handle::CommandError;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use net::gorpc::{Arguments, Failure, Method, Replies, Request, Router};
use std::sync::Arc;
use types::{Cid, PeerId, Pin, PinKind};
use wire::rpc::{Id, Message, PinInfo, RepoGc, RepoStat, RpcPin, Version};
use wire::status::Filter;

/// Pins looked at between two replies of a list.
const PAGE: usize = 500;

/// Who may call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Everybody in the private network.
    Open,
    /// Who is trusted.
    Trusted,
    /// Nobody: a part of a Go peer for its own other parts. Known, so that it is refused in the same words.
    Closed,
}

use Policy::{Closed, Open, Trusted};

const UNARY: Method = Method::Unary;
const STREAM: Method = Method::Stream;

/// A method's name, how it is called, and who may.
type Known = (&'static str, Method, Policy);

/// Go's methods by service (v1.1.6, `rpc_policy.go`).
const METHODS: &[(&str, &[Known])] = &[
    (
        "Cluster",
        &[
            ("ID", UNARY, Open),
            ("IDStream", STREAM, Open),
            ("Version", UNARY, Open),
            ("PeerAdd", UNARY, Open),
            ("Peers", STREAM, Trusted),
            ("PeerRemove", UNARY, Trusted),
            ("RecoverAllLocal", STREAM, Trusted),
            ("RecoverLocal", UNARY, Trusted),
            ("RepoGCLocal", UNARY, Trusted),
            ("Alerts", UNARY, Closed),
            ("BandwidthByProtocol", UNARY, Closed),
            ("BlockAllocate", UNARY, Closed),
            ("ConnectGraph", UNARY, Closed),
            ("IPFSID", UNARY, Closed),
            ("Join", UNARY, Closed),
            ("PeersWithFilter", STREAM, Closed),
            ("Pin", UNARY, Closed),
            ("PinGet", UNARY, Closed),
            ("PinPath", UNARY, Closed),
            ("Pins", STREAM, Closed),
            ("Recover", UNARY, Closed),
            ("RecoverAll", STREAM, Closed),
            ("RepoGC", UNARY, Closed),
            ("SendInformerMetrics", UNARY, Closed),
            ("SendInformersMetrics", UNARY, Closed),
            ("Status", UNARY, Closed),
            ("StatusAll", STREAM, Closed),
            ("StatusAllLocal", STREAM, Closed),
            ("StatusLocal", UNARY, Closed),
            ("Unpin", UNARY, Closed),
            ("UnpinPath", UNARY, Closed),
        ],
    ),
    (
        "PinTracker",
        &[
            ("Status", UNARY, Trusted),
            ("StatusAll", STREAM, Trusted),
            ("Recover", UNARY, Trusted),
            ("PinQueueSize", UNARY, Closed),
            ("RecoverAll", STREAM, Closed),
            ("Track", UNARY, Closed),
            ("Untrack", UNARY, Closed),
        ],
    ),
    (
        "IPFSConnector",
        &[
            ("BlockStream", STREAM, Trusted),
            ("RepoStat", UNARY, Trusted),
            ("SwarmPeers", UNARY, Trusted),
            ("BlockGet", UNARY, Closed),
            ("ConfigKey", UNARY, Closed),
            ("Pin", UNARY, Closed),
            ("PinLs", STREAM, Closed),
            ("PinLsCid", UNARY, Closed),
            ("Resolve", UNARY, Closed),
            ("Unpin", UNARY, Closed),
        ],
    ),
    (
        "Consensus",
        &[
            ("LogPin", UNARY, Trusted),
            ("LogUnpin", UNARY, Trusted),
            ("AddPeer", UNARY, Trusted),
            ("RmPeer", UNARY, Trusted),
            ("Peers", UNARY, Closed),
        ],
    ),
    ("PeerMonitor", &[("LatestMetrics", UNARY, Closed), ("MetricNames", UNARY, Closed)]),
];

fn find(request: &Request) -> Result<(Method, Policy), Method> {
    let (_, methods) = METHODS.iter().find(|(service, _)| *service == request.service).ok_or(Method::UnknownService)?;
    let known = methods.iter().find(|(name, ..)| *name == request.method).ok_or(Method::UnknownMethod)?;
    Ok((known.1, known.2))
}

/// Answers calls.
pub(super) struct Methods(pub(super) Arc<Side>);

#[async_trait]
impl Router for Methods {
    fn method(&self, request: &Request) -> Method {
        find(request).map_or_else(|unknown| unknown, |(method, _)| method)
    }

    fn authorise(&self, caller: &PeerId, request: &Request) -> bool {
        match find(request) {
            Ok((_, Policy::Open)) => true,
            Ok((_, Policy::Trusted)) => (self.0.options.trusted)(caller),
            Ok((_, Policy::Closed)) | Err(_) => false,
        }
    }

    async fn unary(&self, _: PeerId, request: &Request, argument: Bytes) -> Result<Vec<u8>, Failure> {
        let side = &self.0;
        match (request.service.as_str(), request.method.as_str()) {
            ("Cluster", "ID") => answer(Own::of(side).await.id()),
            ("Cluster", "Version") => answer(Version { version: side.options.version.clone() }),
            ("Cluster", "PeerAdd") => answer(self.peer_add(read(&argument)?).await?),
            ("Cluster", "RecoverLocal") | ("PinTracker", "Recover") => answer(self.recover(read(&argument)?).await?),
            ("Cluster", "RepoGCLocal") => answer(self.collect_garbage().await),
            ("PinTracker", "Status") => answer(self.status(read(&argument)?).await),
            ("IPFSConnector", "RepoStat") => answer(self.repo_stat().await?),
            ("IPFSConnector", "SwarmPeers") => answer((side.options.swarm_peers)()),
            ("Consensus", "LogPin") => self.log_pin(read(&argument)?).await,
            ("Consensus", "LogUnpin") => self.log_unpin(read(&argument)?).await,
            // Membership follows from metrics and trust; Go's CRDT peers answer the same.
            ("Consensus", "AddPeer") => read::<PeerId>(&argument).and_then(|_| answer(())),
            ("Cluster", "PeerRemove") | ("Consensus", "RmPeer") => Err(Failure::method("crdt consensus component cannot remove peers")),
            _ => Err(Failure::method("this method is not served")),
        }
    }

    async fn stream(&self, _: PeerId, request: &Request, arguments: &mut Arguments, replies: &mut Replies) -> Result<(), Failure> {
        match (request.service.as_str(), request.method.as_str()) {
            ("Cluster", "IDStream") => send(replies, &Own::of(&self.0).await.id()).await,
            ("Cluster", "Peers") => self.peers(replies).await,
            ("Cluster", "RecoverAllLocal") => self.recover_all(replies).await,
            ("PinTracker", "StatusAll") => {
                let filter = arguments.next().await?.ok_or_else(|| Failure::argument("StatusAll: a filter is needed"))?;
                self.status_all(read(&filter)?, replies).await
            }
            ("IPFSConnector", "BlockStream") => self.0.leases.take(arguments).await,
            _ => Err(Failure::method("this method is not served")),
        }
    }
}

impl Methods {
    /// A peer joins: it is asked who it is, and that is the answer.
    async fn peer_add(&self, peer: PeerId) -> Result<Id, Failure> {
        let side = &self.0;
        if peer == side.host.id() {
            return Ok(Own::of(side).await.id());
        }
        greeting::ask_id(side, peer).await.map_err(Failure::method)
    }

    /// Everybody known here; Go peers are asked themselves.
    async fn peers(&self, replies: &mut Replies) -> Result<(), Failure> {
        let side = &self.0;
        let own = Own::of(side).await;
        for row in side.cluster.peers() {
            let id = if row.is_self {
                own.id()
            } else {
                let addresses = side.host.peer_info(&row.peer).unwrap_or_default().listens;
                own.other_id(&row, &addresses)
            };
            send(replies, &id).await?;
        }
        replies.flush().await?;
        let go_peers = side.go_peers();
        let answers = go_peers
            .iter()
            .map(|go| async { greeting::ask_id(side, go.peer).await.unwrap_or_else(|error| own.silent_id(go, error.to_string())) });
        for id in join_all(answers).await {
            send(replies, &id).await?;
        }
        Ok(())
    }

    async fn status(&self, cid: Cid) -> PinInfo {
        let (pin, rows) = self.0.cluster.status(&cid).await;
        Own::of(&self.0).await.pin_info(&cid, pin.as_ref(), &rows)
    }

    async fn status_all(&self, filter: Filter, replies: &mut Replies) -> Result<(), Failure> {
        let own = Own::of(&self.0).await;
        let mut after = None;
        loop {
            let pins = self.0.cluster.pins(after.as_ref(), PAGE);
            for (pin, rows) in pins.iter().zip(self.0.cluster.status_page(&pins).await) {
                let info = own.pin_info(&pin.cid, Some(pin), &rows);
                if wire::status::of_bit(info.short.status).is_some_and(|state| filter.has(state)) {
                    send(replies, &info).await?;
                }
            }
            if pins.len() < PAGE {
                return Ok(());
            }
            after = pins.last().map(|pin| pin.cid);
            // The caller sees progress, other tasks get their turn.
            replies.flush().await?;
        }
    }

    async fn recover(&self, cid: Cid) -> Result<PinInfo, Failure> {
        self.0.cluster.recover(Some(cid)).await.map_err(Failure::method)?;
        Ok(self.status(cid).await)
    }

    async fn recover_all(&self, replies: &mut Replies) -> Result<(), Failure> {
        let recovered = self.0.cluster.recover(None).await.map_err(Failure::method)?;
        let own = Own::of(&self.0).await;
        for cid in recovered {
            let (pin, rows) = self.0.cluster.status(&cid).await;
            send(replies, &own.pin_info(&cid, pin.as_ref(), &rows)).await?;
        }
        Ok(())
    }

    async fn collect_garbage(&self) -> RepoGc {
        let identity = self.0.cluster.identity().await;
        let outcome = self.0.cluster.own_node().collect_garbage().await;
        RepoGc {
            peer: Some(identity.peer),
            peer_name: identity.name,
            // Which blocks went is not told by the node.
            keys: Some(Vec::new()),
            error: outcome.err().map(|error| error.to_string()).unwrap_or_default(),
        }
    }

    async fn repo_stat(&self) -> Result<RepoStat, Failure> {
        let space = self.0.cluster.own_node().space().await.map_err(Failure::method)?;
        Ok(RepoStat { repo_size: space.used.get(), storage_max: space.limit.get() })
    }

    /// Writes a pin for a peer that cannot. Placement is chosen here, its own choice is preferred.
    async fn log_pin(&self, pin: RpcPin) -> Result<Vec<u8>, Failure> {
        let pin = Pin::try_from(pin).map_err(Failure::method)?;
        if pin.kind != PinKind::Data {
            return Err(Failure::method("only pins of ordinary content are written for other peers"));
        }
        let mut options = pin.options;
        if !pin.placement.is_empty() {
            options.prefer = pin.placement;
        }
        self.0.cluster.pin(pin.cid, options, pin.depth).await.map_err(Failure::method)?;
        answer(())
    }

    async fn log_unpin(&self, pin: RpcPin) -> Result<Vec<u8>, Failure> {
        let cid = pin.cid.ok_or_else(|| Failure::method("the pin has no CID"))?;
        match self.0.cluster.unpin(cid).await {
            Ok(_) | Err(CommandError::NotPinned) => answer(()),
            Err(error) => Err(Failure::method(error)),
        }
    }
}

fn read<M: Message>(argument: &[u8]) -> Result<M, Failure> {
    wire::rpc::decode(argument).map_err(Failure::argument)
}

fn answer<M: Message>(reply: M) -> Result<Vec<u8>, Failure> {
    Ok(wire::rpc::encode(&reply))
}

async fn send<M: Message>(replies: &mut Replies, reply: &M) -> Result<(), Failure> {
    replies.send(&wire::rpc::encode(reply)).await?;
    Ok(())
}
