//! The task that owns the swarm: waits for commands, events of the network and times, and lets small parts decide.

mod dial;
mod reach;
mod told;

use super::attempt::dial_error;
use super::behaviour::{Behaviour, BehaviourEvent, LAN_KAD};
use super::gossip::PublishError;
use super::lan::{Found, Lan};
use super::reconnect::Reconnect;
use super::{
    Board, DialError, HostError, HostEvent, HostOptions, IDENTIFIED_QUEUED, Link, Links, PeerInfo, SideDoor, known_kind, listen, transport,
};
use crate::peer::{ours, theirs};
use crate::streams;
use crate::throttle::Throttle;
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance};
use libp2p::identity::Keypair;
use libp2p::swarm::{self, ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId as Libp2pId, Swarm, identify, ping, relay};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use types::PeerId;

/// How long binding may take until the system reports the addresses.
const LISTEN_DEADLINE: Duration = Duration::from_secs(5);

/// Connections are closed politely for so long at the end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// Events that wait in the task when the channel is full. Above this gossip is dropped.
const GOSSIP_PENDING_MAX: usize = 1024;

/// Bytes of gossip that wait likewise.
const GOSSIP_PENDING_BYTES_MAX: usize = 32 << 20;

/// Above so many waiting events the network is not asked for more until the owner takes some.
const PENDING_MAX: usize = 8192;

/// Addresses kept of what one peer says of itself.
const LISTENS_MAX: usize = 32;

/// Protocol names kept of what one peer says of itself.
const PROTOCOLS_MAX: usize = 128;

/// At least so long between two searches for members.
const LOOKUP_PAUSE: Duration = Duration::from_secs(2);

type DialReply = oneshot::Sender<Result<PeerId, DialError>>;

/// What handles ask of the task.
pub(super) enum Command {
    Dial { address: Multiaddr, reply: DialReply },
    Connect { peer: PeerId, addresses: Vec<Multiaddr>, reply: DialReply },
    Keep { peer: PeerId, addresses: Vec<Multiaddr> },
    LetGo { peer: PeerId },
    Disconnect { peer: PeerId },
    Block { peer: PeerId },
    Allow { peer: PeerId },
    Publish { topic: String, data: Vec<u8>, reply: oneshot::Sender<Result<(), PublishError>> },
    Subscribe { topic: String, reply: oneshot::Sender<Result<(), PublishError>> },
    Shutdown { reply: oneshot::Sender<()> },
}

/// Silence that is borne under a limit of bandwidth, in ordinary ones.
const SLOW: u32 = 12;

/// Builds the swarm, binds its listeners, spawns the task.
pub(super) async fn start(
    options: HostOptions,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<HostEvent>,
) -> Result<Arc<Board>, HostError> {
    let setup = |error: &dyn std::fmt::Display| HostError::Setup(error.to_string());
    let listen = listen::usable(&options)?;
    let keypair = Keypair::ed25519_from_bytes(options.key).map_err(|error| setup(&error))?;
    let id = keypair.public().to_peer_id();
    let shared = streams::Shared::new(options.streams, options.keep_all);
    let (circuits, relay_client) = relay::client::new(id);
    let behaviour = Behaviour::new(&options, &keypair, shared.clone(), relay_client)?;
    // In a private network nobody may say anything before both have shown the key.
    let side_door = options.psk.is_none().then(|| Arc::new(SideDoor::default()));
    let transport =
        transport::build(&keypair, options.psk, side_door.as_ref(), &options.throttle, circuits).map_err(|error| setup(&error))?;
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(options.idle);
    let board = Arc::new(Board {
        id: ours(&id).ok_or_else(|| setup(&"the key gives no peer id"))?,
        addresses: RwLock::default(),
        peers: RwLock::default(),
        reach: RwLock::default(),
        filters: RwLock::default(),
        links: watch::Sender::new(Links::new()),
        identified: broadcast::Sender::new(IDENTIFIED_QUEUED),
        streams: shared,
        side_door,
        throttle: options.throttle.clone(),
        gossip_dropped: AtomicU64::new(0),
        gossip_filtered: AtomicU64::new(0),
    });
    let mut driver = Driver {
        swarm: Swarm::new(transport, behaviour, id, config),
        board: board.clone(),
        waiters: Vec::new(),
        reconnect: Reconnect::default(),
        kept_dials: HashMap::new(),
        dialled: HashMap::new(),
        heard: HashMap::new(),
        next_probe: Instant::now() + options.ping,
        probe: options.ping,
        silence: options.silence,
        // In a private network bulk never goes.
        throttle: options.psk.is_none().then(|| options.throttle.clone()),
        lan: options.local_net.map(|service| Lan::start(service.to_owned(), id)),
        lan_peers: BTreeSet::new(),
        announced: BTreeSet::new(),
        tells_listened: options.tells_listened,
        reach: reach::State::new(&options.reach)?,
        next_lookup: Instant::now(),
        arrivals: 0,
        pending: VecDeque::new(),
        pending_gossip: 0,
        pending_gossip_bytes: 0,
        events: Some(events),
    };
    driver.announce(&options)?;
    for topic in options.gossip.iter().flat_map(|gossip| &gossip.topics) {
        driver.subscribe(topic).map_err(|error| setup(&error))?;
    }
    driver.listen(listen).await?;
    driver.begin_reach();
    tokio::spawn(driver.run(commands));
    Ok(board)
}

struct Driver {
    swarm: Swarm<Behaviour>,
    board: Arc<Board>,
    waiters: Vec<Waiter>,
    reconnect: Reconnect,
    /// Dials made for peers that are kept.
    kept_dials: HashMap<ConnectionId, PeerId>,
    /// Where the peers of dials under way may be, as callers said.
    dialled: HashMap<ConnectionId, (PeerId, Vec<Multiaddr>)>,
    /// When a probe was last answered on a connection that answers probes.
    heard: HashMap<ConnectionId, Instant>,
    next_probe: Instant,
    probe: Duration,
    silence: Duration,
    /// Under a limit probes stand behind what waits in the buffers of both systems.
    throttle: Option<Throttle>,
    /// Finds peers on the local net.
    lan: Option<Lan>,
    /// Those found there that stay connected although nothing uses them.
    lan_peers: BTreeSet<Libp2pId>,
    /// What its owner says others are to dial.
    announced: BTreeSet<Multiaddr>,
    /// Whether others are told where it listens.
    tells_listened: bool,
    /// How this host is reached from outside.
    reach: reach::State,
    /// A member that is heard but not connected may be looked for from then on.
    next_lookup: Instant,
    /// Counts peers that connected.
    arrivals: u64,
    pending: VecDeque<HostEvent>,
    pending_gossip: usize,
    pending_gossip_bytes: usize,
    /// None once nobody listens.
    events: Option<mpsc::Sender<HostEvent>>,
}

/// Somebody who waits for a connection: this one, or any to that peer.
struct Waiter {
    connection: Option<ConnectionId>,
    peer: Option<PeerId>,
    reply: DialReply,
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let wake = self.next_wake();
            tokio::select! {
                command = commands.recv() => match command {
                    None => return Box::pin(self.stop()).await,
                    Some(Command::Shutdown { reply }) => {
                        commands.close();
                        Box::pin(self.stop()).await;
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => self.command(command),
                },
                event = self.swarm.select_next_some(), if self.pending.len() < PENDING_MAX => self.network(event),
                place = reserve(self.events.clone()), if !self.pending.is_empty() => self.deliver(place),
                found = next_found(self.lan.as_mut()) => self.found(found),
                () = tokio::time::sleep_until(wake.into()) => self.wake(Instant::now()),
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let own = self.next_probe.min(self.reach.next_wake());
        self.reconnect.next_wake().map_or(own, |at| at.min(own))
    }

    fn wake(&mut self, now: Instant) {
        if self.next_probe <= now {
            self.close_silent(now);
            self.next_probe = now + self.probe;
        }
        self.look_at_reach(now);
        for (peer, addresses) in self.reconnect.due(now) {
            if self.swarm.is_connected(&theirs_known(&peer)) {
                self.reconnect.connected(&peer);
                continue;
            }
            match self.dial_peer(peer, addresses) {
                Ok(connection) => _ = self.kept_dials.insert(connection, peer),
                Err(error) => {
                    tracing::debug!(%peer, %error, "dialling a kept peer");
                    self.reconnect.failed(&peer, now, rand::random());
                }
            }
        }
    }

    /// Closes connections on which nothing was heard for too long.
    fn close_silent(&mut self, now: Instant) {
        // When this task itself (or the whole machine) stood still, answers may be waiting: nobody is blamed for that time.
        let late = now.saturating_duration_since(self.next_probe);
        if late > Duration::from_secs(1) {
            self.heard.values_mut().for_each(|heard| *heard += late);
            return;
        }
        let is_slow = self.throttle.as_ref().is_some_and(Throttle::is_limiting);
        let silence = if is_slow { self.silence * SLOW } else { self.silence };
        let silent: Vec<ConnectionId> =
            self.heard.iter().filter(|(_, heard)| now.saturating_duration_since(**heard) > silence).map(|(id, _)| *id).collect();
        for connection in silent {
            tracing::info!(%connection, silence = ?self.silence, "closing a connection that went silent");
            self.heard.remove(&connection);
            self.swarm.close_connection(connection);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Dial { address, reply } => self.dial(address, reply),
            Command::Connect { peer, addresses, reply } => self.connect(peer, addresses, reply),
            Command::Keep { peer, addresses } => {
                let Some(id) = known_kind(&peer) else { return };
                self.board.streams.want(id, true);
                self.swarm.behaviour_mut().limits.bypass_peer_id(&id);
                let is_connected = self.swarm.is_connected(&id);
                self.reconnect.keep(peer, addresses, is_connected, Instant::now());
            }
            Command::LetGo { peer } => {
                let Some(id) = known_kind(&peer) else { return };
                self.board.streams.want(id, false);
                self.swarm.behaviour_mut().limits.remove_peer_id(&id);
                self.reconnect.let_go(&peer);
            }
            Command::Disconnect { peer } => {
                if let Some(id) = known_kind(&peer) {
                    // An error says that it was not connected.
                    let _ = self.swarm.disconnect_peer_id(id);
                }
            }
            Command::Block { peer } => {
                if let Some(id) = known_kind(&peer) {
                    self.swarm.behaviour_mut().blocked.block_peer(id);
                }
            }
            Command::Allow { peer } => {
                if let Some(id) = known_kind(&peer) {
                    self.swarm.behaviour_mut().blocked.unblock_peer(id);
                }
            }
            Command::Publish { topic, data, reply } => _ = reply.send(self.publish(&topic, data)),
            Command::Subscribe { topic, reply } => _ = reply.send(self.subscribe(&topic)),
            Command::Shutdown { reply } => _ = reply.send(()),
        }
    }

    fn publish(&mut self, topic: &str, data: Vec<u8>) -> Result<(), PublishError> {
        let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else { return Err(PublishError::NoGossip) };
        let size = data.len();
        gossip.publish(IdentTopic::new(topic), data).map(|_| ()).map_err(|error| PublishError::from_gossipsub(error, size))
    }

    fn subscribe(&mut self, topic: &str) -> Result<(), PublishError> {
        let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else { return Err(PublishError::NoGossip) };
        gossip.subscribe(&IdentTopic::new(topic)).map(|_| ()).map_err(|error| PublishError::Failed(error.to_string()))
    }

    /// Binds, and waits until each listener has an address.
    async fn listen(&mut self, addresses: Vec<Multiaddr>) -> Result<(), HostError> {
        let mut waiting: BTreeMap<String, ListenerId> = BTreeMap::new();
        for address in addresses {
            let failed = |source| HostError::Listen { address: address.to_string(), source };
            let listener = self.swarm.listen_on(address.clone()).map_err(|error| failed(io::Error::other(error)))?;
            waiting.insert(address.to_string(), listener);
        }
        let deadline = tokio::time::Instant::now() + LISTEN_DEADLINE;
        while let Some(address) = waiting.keys().next().cloned() {
            let failed = |source| HostError::Listen { address: address.clone(), source };
            let Ok(event) = tokio::time::timeout_at(deadline, self.swarm.select_next_some()).await else {
                return Err(failed(io::Error::from(io::ErrorKind::TimedOut)));
            };
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => waiting.retain(|_, listener| listener != listener_id),
                SwarmEvent::ListenerClosed { listener_id, reason, .. } if waiting.values().any(|listener| listener == listener_id) => {
                    let text = reason.as_ref().err().map_or_else(|| "closed".to_owned(), ToString::to_string);
                    return Err(failed(io::Error::other(text)));
                }
                _ => {}
            }
            self.network(event);
        }
        self.listen_changed();
        Ok(())
    }

    fn network(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                self.heard.insert(connection_id, Instant::now());
                self.kept_dials.remove(&connection_id);
                self.dialled.remove(&connection_id);
                let Some(peer) = ours(&peer_id) else {
                    self.swarm.close_connection(connection_id);
                    return;
                };
                self.reconnect.connected(&peer);
                if num_established.get() == 1 {
                    self.connected(peer, endpoint.get_remote_address().to_string());
                }
                self.way_opened(peer_id, connection_id, &endpoint);
                self.board.streams.announce(&peer_id, connection_id);
                self.answer(|waiter| waiter.connection == Some(connection_id) || waiter.peer == Some(peer), &Ok(peer));
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                self.heard.remove(&connection_id);
                let Some(peer) = ours(&peer_id) else { return };
                tracing::debug!(%peer, ?cause, left = num_established, "connection closed");
                if num_established == 0 {
                    self.lost_on_lan(&peer_id);
                    self.disconnected(peer);
                }
                self.way_closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                if self.dialled_elsewhere(connection_id, &error) {
                    return;
                }
                let peer = peer_id.as_ref().and_then(ours);
                tracing::debug!(?peer, %error, "dial failed");
                if let Some(id) = peer_id.filter(|id| !self.swarm.is_connected(id)) {
                    self.lost_on_lan(&id);
                }
                if let Some(kept) = self.kept_dials.remove(&connection_id) {
                    self.reconnect.failed(&kept, Instant::now(), rand::random());
                }
                self.answer(|waiter| waiter.connection == Some(connection_id), &Err(dial_error(&error, peer)));
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                let is_other_network = transport::is_other_network(&error);
                tracing::debug!(from = %send_back_addr, %error, is_other_network, "inbound connection failed");
            }
            SwarmEvent::NewListenAddr { .. } | SwarmEvent::ExpiredListenAddr { .. } | SwarmEvent::ExternalAddrExpired { .. } => {
                self.listen_changed();
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                self.seat_ended(listener_id);
                self.listen_changed();
            }
            SwarmEvent::ExternalAddrConfirmed { address } => self.address_confirmed(&address),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener has a problem"),
            SwarmEvent::Behaviour(event) => self.behaviour(event),
            _ => {}
        }
    }

    fn behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Ping(ping::Event { peer, connection, result }) => self.pinged(&peer, connection, result),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => self.identified(&peer_id, info),
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                self.gossip(&propagation_source, &message_id, message);
            }
            other => self.reach_event(other),
        }
    }

    fn pinged(&mut self, peer: &Libp2pId, connection: ConnectionId, result: Result<Duration, ping::Failure>) {
        match result {
            Ok(round_trip) => {
                if let Some(heard) = self.heard.get_mut(&connection) {
                    *heard = Instant::now();
                }
                let mut peers = self.board.peers.write();
                if let Some(info) = ours(peer).and_then(|peer| peers.get_mut(&peer)) {
                    info.round_trip = Some(round_trip);
                }
            }
            // Some software does not answer probes: its connections end with their sockets.
            Err(ping::Failure::Unsupported) => _ = self.heard.remove(&connection),
            Err(error) => tracing::debug!(%peer, %error, "probe failed"),
        }
    }

    fn identified(&mut self, id: &Libp2pId, info: identify::Info) {
        self.consider_relay(id, &info);
        let speaks_kad = info.protocols.contains(&LAN_KAD);
        let listens: Vec<&Multiaddr> = info.listen_addrs.iter().take(LISTENS_MAX).filter(|address| !self.is_own(address)).collect();
        if let (true, Some(kad)) = (speaks_kad, self.swarm.behaviour_mut().kad.as_mut()) {
            let is_first = kad.kbuckets().all(|bucket| bucket.is_empty());
            for address in listens {
                kad.add_address(id, address.clone());
            }
            if is_first {
                // Fails only without known peers; the periodic one comes again.
                let _ = kad.bootstrap();
            }
        }
        let mut peers = self.board.peers.write();
        let Some(known) = ours(id).and_then(|peer| peers.get_mut(&peer)) else { return };
        known.agent = info.agent_version.chars().take(256).collect();
        known.protocols = info.protocols.iter().take(PROTOCOLS_MAX).map(ToString::to_string).collect();
        known.listens = info.listen_addrs.iter().take(LISTENS_MAX).map(ToString::to_string).collect();
        drop(peers);
        // An error says that nobody listens.
        let _ = ours(id).map(|peer| self.board.identified.send(peer));
    }

    fn gossip(&mut self, source: &Libp2pId, id: &gossipsub::MessageId, message: gossipsub::Message) {
        let topic = message.topic.to_string();
        let from = message.source.as_ref().and_then(ours);
        let filter = self.board.filters.read().get(&topic).cloned();
        let is_trusted = from.is_some_and(|from| filter.is_none_or(|trusted| trusted(&from)));
        let acceptance = if is_trusted { MessageAcceptance::Accept } else { MessageAcceptance::Ignore };
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            gossip.report_message_validation_result(id, source, acceptance);
        }
        let (true, Some(from), Some(forwarded_by)) = (is_trusted, from, ours(source)) else {
            self.board.gossip_filtered.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.look_for(&from);
        let is_full = self.pending_gossip >= GOSSIP_PENDING_MAX || self.pending_gossip_bytes >= GOSSIP_PENDING_BYTES_MAX;
        if is_full {
            self.board.gossip_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.pending_gossip += 1;
        self.pending_gossip_bytes += message.data.len();
        self.push(HostEvent::Gossip { topic, from, data: message.data, forwarded_by });
    }

    /// Who is heard through others only is a member to be found.
    fn look_for(&mut self, peer: &PeerId) {
        let now = Instant::now();
        let is_known = self.board.peers.read().contains_key(peer) || *peer == self.board.id;
        if is_known || self.next_lookup > now {
            return;
        }
        if let (Some(id), Some(kad)) = (known_kind(peer), self.swarm.behaviour_mut().kad.as_mut()) {
            self.next_lookup = now + LOOKUP_PAUSE;
            kad.get_closest_peers(id);
        }
    }

    fn connected(&mut self, peer: PeerId, address: String) {
        tracing::debug!(%peer, address, "connected");
        // Who sees the peer below must find its link too.
        self.arrivals += 1;
        let link = Link { number: self.arrivals, moves: 0 };
        self.board.links.send_modify(|links| _ = links.insert(peer, link));
        self.board.peers.write().insert(peer, PeerInfo { address: address.clone(), ..PeerInfo::default() });
        self.push(HostEvent::Connected(peer, address));
    }

    fn disconnected(&mut self, peer: PeerId) {
        tracing::debug!(%peer, "disconnected");
        self.board.peers.write().remove(&peer);
        self.reconnect.disconnected(&peer, Instant::now(), rand::random());
        self.board.links.send_modify(|links| _ = links.remove(&peer));
        self.push(HostEvent::Disconnected(peer));
    }

    fn answer(&mut self, is_meant: impl Fn(&Waiter) -> bool, result: &Result<PeerId, DialError>) {
        for waiter in self.waiters.extract_if(.., |waiter| is_meant(waiter)) {
            let _ = waiter.reply.send(result.clone());
        }
    }

    fn push(&mut self, event: HostEvent) {
        if self.events.is_some() {
            self.pending.push_back(event);
        }
    }

    fn deliver(&mut self, place: Option<mpsc::OwnedPermit<HostEvent>>) {
        let Some(place) = place else {
            self.events = None;
            self.pending.clear();
            self.pending_gossip = 0;
            self.pending_gossip_bytes = 0;
            return;
        };
        let Some(event) = self.pending.pop_front() else { return };
        if let HostEvent::Gossip { data, .. } = &event {
            self.pending_gossip -= 1;
            self.pending_gossip_bytes -= data.len();
        }
        place.send(event);
    }

    async fn stop(mut self) {
        self.board.streams.stop();
        let peers: Vec<Libp2pId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_DEADLINE, closing).await;
        self.board.peers.write().clear();
        self.board.links.send_modify(Links::clear);
        self.board.addresses.write().clear();
    }
}

/// Whoever asked may have gone.
fn answer(reply: DialReply, result: Result<PeerId, DialError>) {
    let _ = reply.send(result);
}

/// The next peer that is heard on the local net; never where nobody listens.
async fn next_found(lan: Option<&mut Lan>) -> Found {
    match lan {
        Some(lan) => lan.next().await,
        None => std::future::pending().await,
    }
}

/// A place in the channel of events; none when nobody listens.
async fn reserve(events: Option<mpsc::Sender<HostEvent>>) -> Option<mpsc::OwnedPermit<HostEvent>> {
    events?.reserve_owned().await.ok()
}

fn theirs_known(peer: &PeerId) -> Libp2pId {
    theirs(peer).expect("only peers with a libp2p id are kept")
}
