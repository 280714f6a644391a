//! Links to other members: who is connected, what each said of itself, messages both ways, the address book.
//!
//! A member is *linked* while it is connected on the cluster host and trusted here; only then does the machine hear it. Records
//! are the exception: they prove themselves by signature and are taken from anybody in the private network, so that a peer that
//! was trusted elsewhere a moment ago can bring its proof along.

use crate::core::Core;
use crate::exchange::{CoreShelf, Exchanges, Outcome};
use crate::handle::Live;
use crate::peer::Inbound;
use cluster::{Event, LinkState};
use consensus::Consensus;
use net::{Host, Messages};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::{Area, Batch, Durability, Store};
use types::{Cid, PeerId, PeerMessage};
use wire::join::Known;

/// Protocol of machine-to-machine messages.
pub const MESSAGES: &str = "/pinfold/peer/1";
/// Protocol of the exchange of addresses.
pub const BOOK: &str = "/pinfold/book/1";
/// How long an answer about all copies may wait until the asker's heads are merged here; the asker asks again.
const MERGE_PATIENCE: Duration = Duration::from_secs(60);
/// Records in one message.
const RECORDS_AT_ONCE: usize = 200;

/// What a member said of itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Name for people.
    pub name: String,
    /// Cluster addresses.
    pub addresses: Vec<String>,
    /// Node addresses.
    pub node_addresses: Vec<String>,
}

/// What this peer says of itself.
#[derive(Clone, Debug, Default)]
pub struct OwnFacts {
    /// Name for people.
    pub name: String,
    /// Base URL of the gateway.
    pub gateway: Option<String>,
    /// Base URL of the REST door.
    pub api: Option<String>,
}

/// The links of one peer.
pub struct Links {
    host: Host,
    messages: Messages,
    core: Weak<Core>,
    consensus: Arc<dyn Consensus>,
    store: Arc<dyn Store>,
    inbound: Arc<dyn Inbound>,
    own: OwnFacts,
    exchanges: Arc<Exchanges>,
    state: Mutex<State>,
    node_addresses: Mutex<Vec<String>>,
}

#[derive(Default)]
struct State {
    linked: BTreeSet<PeerId>,
    facts: BTreeMap<PeerId, Facts>,
}

impl Links {
    /// Over a running cluster host.
    pub fn new(host: Host, messages: Messages, core: &Arc<Core>, inbound: Arc<dyn Inbound>, own: OwnFacts) -> Arc<Links> {
        let exchanges = Arc::new(Exchanges::new(host.clone(), CoreShelf::new(core)));
        let links = Arc::new(Links {
            host,
            exchanges,
            messages,
            core: Arc::downgrade(core),
            consensus: core.consensus.clone(),
            store: core.store.clone(),
            inbound,
            own,
            state: Mutex::new(State::default()),
            node_addresses: Mutex::new(Vec::new()),
        });
        links.load_book();
        core.set_links(links.clone());
        links
    }

    /// The cluster host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Records between this peer and others.
    pub(crate) fn exchanges(&self) -> Arc<Exchanges> {
        self.exchanges.clone()
    }

    /// A member's name.
    pub fn name_of(&self, peer: &PeerId) -> Option<String> {
        if *peer == self.host.id() {
            return Some(self.own.name.clone());
        }
        self.state.lock().facts.get(peer).map(|facts| facts.name.clone()).filter(|name| !name.is_empty())
    }

    /// Where a member's node is reached.
    pub fn node_addresses_of(&self, peer: &PeerId) -> Vec<String> {
        self.state.lock().facts.get(peer).map(|facts| facts.node_addresses.clone()).unwrap_or_default()
    }

    /// What this peer says of itself.
    pub fn own(&self) -> &OwnFacts {
        &self.own
    }

    /// The own node's addresses changed (or became known).
    pub fn set_node_addresses(&self, addresses: Vec<String>) {
        *self.node_addresses.lock() = addresses;
    }

    /// Sends a message; a full queue drops it, since every message may be lost.
    pub fn tell(&self, peer: &PeerId, message: PeerMessage) {
        if let PeerMessage::AskHoldings { question, .. } = message {
            return self.ask_holdings(*peer, question);
        }
        let message = self.filled(message);
        if let Err(error) = self.messages.send(*peer, wire::peer::encode(&message)) {
            tracing::debug!(%peer, %error, "a message was not sent");
        }
    }

    /// Asks for all copies. The heads that go along contain every wish that the machine knows: what is acknowledged and in no block yet would be
    /// taken for confirmed by the answer of a peer that never heard of it. So the question waits for the block; one that would wait too long is lost, and
    /// asked again by the machine.
    fn ask_holdings(&self, peer: PeerId, question: u64) {
        let (consensus, messages) = (self.consensus.clone(), self.messages.clone());
        tokio::spawn(async move {
            let Some(heads) = consensus.told_heads(MERGE_PATIENCE).await else { return };
            if let Err(error) = messages.send(peer, wire::peer::encode(&PeerMessage::AskHoldings { question, heads })) {
                tracing::debug!(%peer, %error, "a question was not sent");
            }
        });
    }

    /// Sends a message to all linked members.
    pub fn tell_all(&self, message: &PeerMessage) {
        let linked: Vec<PeerId> = self.state.lock().linked.iter().copied().collect();
        if linked.is_empty() {
            return;
        }
        let encoded = wire::peer::encode(&self.filled(message.clone()));
        for peer in linked {
            if let Err(error) = self.messages.send(peer, encoded.clone()) {
                tracing::debug!(%peer, %error, "a message was not sent");
            }
        }
    }

    /// Fills in what only the shell knows: own addresses and doors, own heads.
    fn filled(&self, message: PeerMessage) -> PeerMessage {
        match message {
            PeerMessage::Hello { space_limit, space_used, space_reserved, is_draining, incarnation, clock, load, .. } => {
                PeerMessage::Hello {
                    name: self.own.name.clone(),
                    node_addresses: self.node_addresses.lock().clone(),
                    gateway: self.own.gateway.clone(),
                    api: self.own.api.clone(),
                    space_limit,
                    space_used,
                    space_reserved,
                    is_draining,
                    incarnation,
                    clock,
                    load,
                }
            }
            other => other,
        }
    }

    /// A peer connected on the cluster host.
    pub fn connected(self: &Arc<Links>, peer: PeerId) {
        let links = self.clone();
        tokio::spawn(async move { links.exchange_book(peer).await });
        if self.is_trusted(&peer) {
            self.link(peer);
        } else {
            // It may not know who is trusted, or bring the proof that it is.
            tokio::spawn(self.clone().exchange_records(peer));
        }
    }

    /// Its last connection ended.
    pub fn disconnected(&self, peer: PeerId) {
        if self.state.lock().linked.remove(&peer) {
            self.inbound.disconnected(peer);
            self.feed(Event::Link(peer, LinkState::Down));
            self.tell_live(Live::Peers);
        }
    }

    /// Membership changed: link who is trusted now, unlink who is not, keep connections to all members.
    pub fn members_changed(self: &Arc<Links>) {
        let links = self.clone();
        // Not from here: the machine's lock is held while effects are performed.
        tokio::spawn(async move {
            let connected = links.host.connected();
            for peer in &connected {
                if links.is_trusted(peer) {
                    links.link(*peer);
                } else if links.state.lock().linked.contains(peer) {
                    links.disconnected(*peer);
                    links.host.let_go(*peer).await;
                    links.host.disconnect(*peer).await;
                }
            }
            links.keep_connections().await;
        });
    }

    /// Keeps a connection to every member whose address is known.
    pub async fn keep_connections(&self) {
        let Some(core) = self.core.upgrade() else { return };
        for peer in core.trust.members() {
            let addresses = self.state.lock().facts.get(&peer).map(|facts| facts.addresses.clone()).unwrap_or_default();
            if peer != self.host.id() && !addresses.is_empty() {
                self.host.keep_connected(peer, &addresses).await;
            }
        }
    }

    fn link(self: &Arc<Links>, peer: PeerId) {
        if self.state.lock().linked.insert(peer) {
            self.inbound.connected(peer);
            self.feed(Event::Link(peer, LinkState::Up));
            // Also where that was done before it was trusted: what it said then may have been said in vain.
            tokio::spawn(self.clone().exchange_records(peer));
            self.tell_live(Live::Peers);
        }
    }

    fn is_trusted(&self, peer: &PeerId) -> bool {
        self.core.upgrade().is_some_and(|core| core.trust.is_member(peer))
    }

    fn feed(&self, event: Event) {
        if let Some(core) = self.core.upgrade() {
            core.feed(event);
        }
    }

    fn tell_live(&self, live: Live) {
        if let Some(core) = self.core.upgrade() {
            core.tell_live(live);
        }
    }

    /// Gives a peer the records that it lacks, and takes those that are lacking here.
    async fn exchange_records(self: Arc<Links>, peer: PeerId) {
        match self.exchanges.ask(peer).await {
            Ok(Outcome::Done { gave, took }) => tracing::debug!(%peer, gave, took, "records were exchanged"),
            // It sends its own by itself.
            Ok(Outcome::NotSpoken) => self.send_records(peer),
            Ok(Outcome::Gone) => {}
            Err(why) => {
                tracing::debug!(%peer, %why, "an exchange of records broke off: all are sent");
                self.send_records(peer);
            }
        }
    }

    /// Every record known here, to an older peer.
    fn send_records(&self, peer: PeerId) {
        match crate::records::load(self.store.as_ref()) {
            Ok(records) => {
                for part in records.chunks(RECORDS_AT_ONCE) {
                    self.tell(&peer, PeerMessage::Records(part.to_vec()));
                }
            }
            Err(error) => tracing::error!(%error, "reading the records"),
        }
    }

    /// A message came in; the transport has proved from whom.
    pub async fn received(self: &Arc<Links>, peer: PeerId, bytes: &[u8]) {
        let message = match wire::peer::decode(bytes) {
            Ok(Some(message)) => message,
            // A newer peer says something this version does not know.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%peer, %error, "a message does not read");
                return;
            }
        };
        let is_record = matches!(message, PeerMessage::Records(_));
        if !is_record && !self.is_trusted(&peer) {
            tracing::debug!(%peer, "a message from a peer that is not trusted");
            return;
        }
        let message = match message {
            PeerMessage::Delta(block) => {
                self.inbound.pushed(peer, block);
                return;
            }
            other => other,
        };
        match &message {
            PeerMessage::Hello { name, node_addresses, .. } => self.heard_hello(peer, name, node_addresses),
            PeerMessage::Records(records) => {
                if let Some(core) = self.core.upgrade() {
                    core.records_of_former_members(records);
                }
            }
            PeerMessage::AskHoldings { heads, .. } => {
                let (links, heads) = (self.clone(), heads.clone());
                // Answered only from a state that includes what the asker has, and that the machine has been told of; it asks again if that
                // takes too long.
                tokio::spawn(async move {
                    if links.merged(&heads).await
                        && let Some(core) = links.core.upgrade()
                        && core.caught_up().await
                    {
                        core.feed(Event::Message(peer, message));
                    }
                });
                return;
            }
            _ => {}
        }
        self.feed(Event::Message(peer, message));
    }

    async fn merged(&self, heads: &[Cid]) -> bool {
        const STEP: Duration = Duration::from_millis(50);
        let mut waited = Duration::ZERO;
        while waited < MERGE_PATIENCE {
            if self.consensus.has_merged(heads) {
                return true;
            }
            tokio::time::sleep(STEP).await;
            waited += STEP;
        }
        false
    }

    fn heard_hello(&self, peer: PeerId, name: &str, node_addresses: &[String]) {
        let Some(core) = self.core.upgrade() else { return };
        let is_new = {
            let mut state = self.state.lock();
            let facts = state.facts.entry(peer).or_default();
            let is_new = facts.node_addresses != node_addresses || facts.name != name;
            facts.name = name.to_owned();
            facts.node_addresses = node_addresses.to_vec();
            is_new
        };
        if !is_new {
            return;
        }
        // Said over an authenticated connection of the private network: this is what binds node ids to the member.
        core.trust.set_nodes(peer, node_addresses.iter().filter_map(|address| peer_of(address)));
        self.save_known(peer);
        self.tell_live(Live::Peers);
        let (node, addresses) = (core.node.clone(), node_addresses.to_vec());
        tokio::spawn(async move { node.connect(&addresses).await });
    }

    // ---- the address book ----

    /// Everybody known here, the own peer included.
    pub fn book(&self) -> Vec<Known> {
        let own = Known { peer: self.host.id(), name: self.own.name.clone(), addresses: self.host.addresses() };
        let state = self.state.lock();
        let others = state.facts.iter().filter(|(_, facts)| !facts.addresses.is_empty());
        let known = |(peer, facts): (&PeerId, &Facts)| Known { peer: *peer, name: facts.name.clone(), addresses: facts.addresses.clone() };
        std::iter::once(own).chain(others.map(known)).collect()
    }

    async fn exchange_book(self: Arc<Links>, peer: PeerId) {
        let outcome = async {
            let (mut stream, _) = self.host.open(peer, &[BOOK]).await.map_err(|error| error.to_string())?;
            net::frame::write_frame(&mut stream, &wire::join::encode_book(&self.book())).await.map_err(|error| error.to_string())?;
            let answer = net::frame::read_frame(&mut stream, wire::join::LONGEST).await.map_err(|error| error.to_string())?;
            wire::join::decode_book(&answer.unwrap_or_default()).map_err(|error| error.to_string())
        };
        match tokio::time::timeout(Duration::from_secs(10), outcome).await {
            Ok(Ok(book)) => self.learn(&book, peer).await,
            // Go peers do not speak it.
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no address book"),
            Err(_) => tracing::debug!(%peer, "no address book in time"),
        }
    }

    /// Answers one exchange that another peer began.
    pub async fn answer_book(self: Arc<Links>, peer: PeerId, mut stream: net::Stream) {
        let exchange = async {
            let theirs = net::frame::read_frame(&mut stream, wire::join::LONGEST).await.ok()??;
            net::frame::write_frame(&mut stream, &wire::join::encode_book(&self.book())).await.ok()?;
            wire::join::decode_book(&theirs).ok()
        };
        if let Ok(Some(book)) = tokio::time::timeout(Duration::from_secs(10), exchange).await {
            self.learn(&book, peer).await;
        }
    }

    /// Exchanges books with so many of the linked members, others at each `turn`.
    pub async fn exchange_books(self: Arc<Links>, most: usize, turn: usize) {
        let mut linked: Vec<PeerId> = self.state.lock().linked.iter().copied().collect();
        let start = turn.saturating_mul(most).checked_rem(linked.len()).unwrap_or(0);
        linked.rotate_left(start);
        for peer in linked.into_iter().take(most) {
            self.clone().exchange_book(peer).await;
        }
    }

    /// Members that are not linked.
    pub fn missing(&self) -> BTreeSet<PeerId> {
        let Some(core) = self.core.upgrade() else { return BTreeSet::new() };
        let members = core.trust.members();
        let state = self.state.lock();
        members.into_iter().filter(|peer| *peer != self.host.id() && !state.linked.contains(peer)).collect()
    }

    /// Takes over addresses. Only where to dial is learned here, never whom to trust: a wrong address costs a failed dial, since
    /// the connection proves the peer's id.
    pub async fn learn(&self, book: &[Known], from: PeerId) {
        for known in book {
            if known.peer == self.host.id() || known.addresses.is_empty() {
                continue;
            }
            let changed = {
                let mut state = self.state.lock();
                if state.facts.len() > 10_000 {
                    return;
                }
                let is_first_hand = known.peer == from;
                let has_said = state.facts.get(&known.peer).is_some_and(|facts| !facts.addresses.is_empty());
                if !is_first_hand && has_said && state.linked.contains(&known.peer) {
                    continue;
                }
                let facts = state.facts.entry(known.peer).or_default();
                let addresses = crate::addresses::merge(&facts.addresses, &known.addresses, is_first_hand);
                let changed = facts.addresses != addresses;
                facts.addresses = addresses;
                if facts.name.is_empty() {
                    facts.name.clone_from(&known.name);
                }
                changed
            };
            if changed {
                self.save_known(known.peer);
            }
        }
        self.keep_connections().await;
    }

    fn save_known(&self, peer: PeerId) {
        let Some(facts) = self.state.lock().facts.get(&peer).cloned() else { return };
        let known = Known { peer, name: facts.name, addresses: facts.addresses };
        let mut batch = Batch::new();
        batch.put(Area::Meta, [b"book/", peer.as_bytes()].concat(), wire::join::encode_book(&[known]));
        if let Err(error) = self.store.commit(batch, Durability::Buffered) {
            tracing::error!(%error, "keeping an address");
        }
    }

    fn load_book(&self) {
        let page = self.store.snapshot().scan(Area::Meta, None, b"book/", 10_000).unwrap_or_default();
        let mut state = self.state.lock();
        for known in page.iter().filter_map(|(_, value)| wire::join::decode_book(value).ok()).flatten() {
            let facts = Facts { name: known.name, addresses: known.addresses, node_addresses: Vec::new() };
            state.facts.insert(known.peer, facts);
        }
    }
}

/// The peer id at the end of a multiaddr (`/p2p/<id>`).
pub fn peer_of(address: &str) -> Option<PeerId> {
    address.rsplit_once("/p2p/").and_then(|(_, id)| id.parse().ok())
}
