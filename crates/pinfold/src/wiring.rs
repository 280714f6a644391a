//! Puts a peer together: the only place that names the implementers of the seams.

use crate::config::{Keys, NodeKind, Settings};
use crate::up::Bound;
use anyhow::{Context, anyhow, bail};
use consensus::crdt::{Crdt, CrdtOptions};
use ed25519_dalek::SigningKey;
use ipfs::routing::NodeRouting;
use ipfs::{IpfsNode, PinProgress, PinTask, Source};
use ipfs_embedded::{EmbeddedNode, EmbeddedOptions, Routing};
use ipfs_kubo::{KuboNode, KuboOptions};
use net::{Admission, Bitswap, BitswapLimits, GossipOptions, Host, HostOptions, Throttle};
use peer::crdt_network::{self, ClusterNetwork, CrdtInbound, DagBlocks};
use peer::go::{GoInbound, GoOptions, GoSide, GoStreams};
use peer::links::OwnFacts;
use peer::{Cluster, LimitsOptions, Parts, Peer, Protocols, Trust};
use std::sync::{Arc, Weak};
use store::{Area, Batch, DiskOptions, DiskStore, Durability, PackOptions, PackStore, Quota, Store};
use types::{ByteCount, Depth, Millis, Owner, PeerId, RecordKind, UnixMillis};
use wire::join::{Invite, Welcome};

/// What the hosts say they are.
const AGENT: &str = concat!("pinfold/", env!("CARGO_PKG_VERSION"));

/// A peer with everything under it.
pub struct Running {
    /// The peer.
    pub peer: Arc<Peer>,
    /// Its side towards Go peers, where any are trusted.
    go: Option<Arc<GoSide>>,
    /// REST, gateway and proxy URLs.
    pub urls: (String, String, String),
    /// Name of the inviter, when this start joined.
    pub joined: Option<String>,
    hosts: Vec<Host>,
    node: Arc<dyn IpfsNode>,
    store: Arc<dyn Store>,
    cluster_name: String,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Starts everything but the doors.
pub async fn start(settings: &Settings, keys: &Keys, bound: &Bound, invite: Option<&Invite>) -> anyhow::Result<Running> {
    let me = PeerId::from_ed25519(&SigningKey::from_bytes(&keys.cluster).verifying_key().to_bytes());
    let cluster_name = invite.map_or_else(|| settings.cluster_name.clone(), |invite| invite.cluster.clone());
    let quota = space_quota(settings)?;
    let store: Arc<dyn Store> = Arc::new(DiskStore::open(&settings.dir.join("state"), DiskOptions::with_quota(quota.clone()))?);
    let cluster_name = settled_name(store.as_ref(), cluster_name, invite.is_some())?;
    let incarnation = count_start(store.as_ref())?;
    let records = peer::records::load(store.as_ref()).context("reading the records of members")?;
    let trust = Trust::default();

    // The cluster host: private network, gossip, the shared wish.
    let topic = wire::topic::crdt_topic(&cluster_name);
    let throttle = Throttle::new(settings.bandwidth.lan.clone());
    let usual = HostOptions::cluster(keys.cluster, Some(keys.secret));
    let (host, host_events) = Host::start(HostOptions {
        throttle: throttle.before_others(),
        listen: settings.cluster.clone(),
        gossip: Some(GossipOptions::new([topic.clone()])),
        agent: AGENT.to_owned(),
        connections: connections(bound),
        local_net: settings.mdns.then_some(net::CLUSTER_SERVICE),
        announce: settings.announced.0.addresses.clone(),
        tells_listened: settings.announced.0.tells_listened,
        reach: settings.reach.cluster(usual.reach.clone()),
        ..usual
    })
    .await
    .map_err(|error| in_words(error, "--cluster"))
    .context("starting the cluster network (--cluster)")?;
    let (members, go_peers) = (trust.clone(), settings.trusted_peers.clone());
    let trusted: Arc<dyn Fn(&PeerId) -> bool + Send + Sync> = Arc::new(move |peer| members.is_member(peer) || go_peers.trusts(peer));
    host.set_gossip_filter(&topic, trusted.clone());
    let go_streams = match settings.trusted_peers.is_empty() {
        true => None,
        false => Some(GoStreams::register(&host).context("answering Go peers")?),
    };
    let protocols = Protocols::register(&host).context("answering other peers")?;
    let heads = host.accept(&[crdt_network::HEADS]).context("answering for heads")?;
    let stretches = host.accept(&[crdt_network::STRETCH]).context("answering for history")?;
    let pages = host.accept(&[crdt_network::PAGE]).context("answering for the set")?;
    let dag_blocks = DagBlocks::default();
    let cluster_bitswap = Bitswap::start(host.clone(), Arc::new(dag_blocks.clone()), BitswapLimits::default());
    let welcome = match invite {
        Some(invite) => ask_to_join(&host, invite, settings, &records, me).await?,
        None => None,
    };
    let told = welcome.as_ref().map(|welcome| welcome.signed);
    let signing = crate::signing::settle(store.as_ref(), &records, settings.trusted_peers.is_empty(), invite.is_some(), told)?;
    let network = ClusterNetwork::new(host.clone(), cluster_bitswap, protocols.messages(), topic);
    // Records of other kinds (names, decisions) a lone peer writes too.
    let is_alone = invite.is_none() && !records.iter().any(|record| record.key.kind == RecordKind::Member);
    let signer = peer::records::delta_signer(SigningKey::from_bytes(&keys.cluster), me, cluster_name.clone());
    let authors = signing.rules(peer::records::delta_verifier(cluster_name.clone()), &records, me, &settings.trusted_peers);
    let options = CrdtOptions { alone: is_alone, signer: Some(signer), authors: Some(authors), ..CrdtOptions::new(me) };
    let crdt = Arc::new(Crdt::open(store.clone(), network, options).await.context("opening the shared state")?);
    dag_blocks.set(crdt.clone());

    // The node host: blocks.
    let (node_host, _node_events) = Host::start(HostOptions {
        throttle: throttle.clone(),
        listen: settings.swarm.clone(),
        agent: AGENT.to_owned(),
        connections: connections(bound),
        local_net: settings.mdns.then_some(net::NODE_SERVICE),
        announce: settings.announced.1.addresses.clone(),
        tells_listened: settings.announced.1.tells_listened,
        reach: settings.reach.node(&trust),
        ..HostOptions::node(keys.node)
    })
    .await
    .map_err(|error| in_words(error, "--swarm"))
    .context("starting the IPFS node's network (--swarm)")?;
    let routing = crate::routing::start(settings, &node_host, &throttle)?;
    let node = open_node(settings, quota, &store, &node_host, &trust, routing.clone()).await?;

    let machine = cluster::Options {
        records,
        incarnation,
        class: cluster::DefaultClass { least: settings.copies.0, want: settings.copies.1, most: settings.copies.2 },
        class_name: settings.class_name.to_owned(),
        grace: Millis(settings.grace.as_millis() as u64),
        repair: cluster::RepairLimits {
            is_on: settings.repair.0,
            balances: settings.rebalance.0,
            bytes_per_minute: settings.repair.1.get().saturating_mul(60),
            move_bytes_per_minute: settings.rebalance.1.get().saturating_mul(60),
            ..cluster::RepairLimits::default()
        },
        // Go peers would hold the shards, but not know them for parts of a root.
        shards: settings.trusted_peers.is_empty(),
        follower: settings.follower,
        verify: peer::records::verify,
        ..cluster::Options::new(me, &settings.name, &cluster_name)
    };
    let joined = match (&welcome, invite) {
        (Some(welcome), Some(invite)) => {
            let inviter = welcome.members.iter().find(|known| known.peer == invite.inviter);
            Some(inviter.map(|known| known.name.clone()).filter(|name| !name.is_empty()).unwrap_or_else(|| invite.inviter.to_string()))
        }
        _ => None,
    };
    let urls = (bound.api_url(), bound.gateway_url(), bound.proxy_url());
    let own = OwnFacts { name: settings.name.clone(), api: Some(urls.0.clone()), gateway: Some(urls.1.clone()) };
    let inbound = GoInbound::new(Arc::new(CrdtInbound(crdt.clone())));
    let peer = Peer::start(Parts {
        key: SigningKey::from_bytes(&keys.cluster),
        secret: keys.secret,
        cluster: cluster_name.clone(),
        own,
        machine,
        trust,
        store: store.clone(),
        consensus: crdt.clone(),
        inbound: inbound.clone(),
        node: node.clone(),
        adopt: settings.adopt,
        node_host: Some(node_host.clone()),
        host: host.clone(),
        host_events,
        protocols,
        welcome: welcome.map(|welcome| welcome.members).unwrap_or_default(),
        scrub: settings.scrub,
        names: crate::names::options(settings, keys, routing.clone()),
        routing: routing.map(|routing| routing as Arc<dyn NodeRouting>),
        limits: LimitsOptions { throttle, rules: settings.bandwidth.rules.clone(), utc_offset: Arc::new(crate::units::utc_offset) },
    })
    .await
    .map_err(|error| anyhow!("starting the peer: {error}"))?;
    if signing.ends {
        peer.accept_unsigned().await.context("telling the cluster that unsigned blocks count")?;
    }
    let go = match go_streams {
        Some(streams) => Some(start_go(&host, &node_host, streams, &peer, settings, trusted, inbound).await?),
        None => None,
    };
    let tasks = vec![
        tokio::spawn(crdt_network::answer_heads(crdt.clone(), heads)),
        tokio::spawn(crdt_network::answer_stretches(crdt.clone(), stretches)),
        tokio::spawn(crdt_network::answer_pages(crdt, pages)),
    ];
    Ok(Running { peer, go, urls, joined, hosts: vec![host, node_host], node, store, cluster_name, tasks })
}

/// The node that stores the blocks; its host takes the blocks of members' adds and serves them.
async fn open_node(
    settings: &Settings,
    quota: Arc<Quota>,
    store: &Arc<dyn Store>,
    host: &Host,
    trust: &Trust,
    routing: Option<Arc<Routing>>,
) -> anyhow::Result<Arc<dyn IpfsNode>> {
    let members = trust.clone();
    // The stream proves the sender's node; what it claims to be in the cluster must be the member that named this node.
    let lanes: net::LaneGate = Arc::new(move |node, header| match members.member_of_node(node) {
        Some(member) if member == header.cluster_peer => Admission::Admitted,
        Some(_) => Admission::Refused,
        // A member's hello names its node; after a start or a join it may still be on its way, and the sender waits for it.
        None => Admission::NotYet,
    });
    match &settings.node {
        NodeKind::Embedded => {
            let packs = PackStore::open(&settings.dir.join("blocks"), store.clone(), PackOptions::with_quota(quota))
                .context("opening the block store")?;
            let options = EmbeddedOptions { lanes: Some(lanes), routing, ..EmbeddedOptions::default() };
            Ok(EmbeddedNode::open(store.clone(), Arc::new(packs), Some(host.clone()), options).context("opening the IPFS node")?)
        }
        NodeKind::Kubo(endpoint) => {
            let options = KuboOptions { lanes: Some(lanes), limit: settings.space, ..KuboOptions::default() };
            let node = KuboNode::open(endpoint.clone(), store.clone(), Some(host.clone()), options);
            Ok(node.await.context("taking the Kubo daemon (--node)")?)
        }
    }
}

fn connections(bound: &Bound) -> u32 {
    u32::try_from(bound.connections()).unwrap_or(u32::MAX).min(HostOptions::node([0; 32]).connections)
}

/// A taken port is the commonest mistake: it gets its next step.
fn in_words(error: net::HostError, flag: &str) -> anyhow::Error {
    match &error {
        net::HostError::Listen { address, source } if source.kind() == std::io::ErrorKind::AddrInUse => anyhow!(
            "{address}: the port is taken by another program (or another pinfold): choose another with {flag} (port 0 takes any free one)"
        ),
        _ => error.into(),
    }
}

async fn start_go(
    host: &Host,
    node_host: &Host,
    streams: GoStreams,
    peer: &Arc<Peer>,
    settings: &Settings,
    trusted: Arc<dyn Fn(&PeerId) -> bool + Send + Sync>,
    inbound: Arc<GoInbound>,
) -> anyhow::Result<Arc<GoSide>> {
    let (nodes, writer) = (node_host.clone(), peer.clone());
    let options = GoOptions {
        wish: Some(inbound.clone()),
        swarm_peers: Arc::new(move || nodes.connected()),
        distrusted: Arc::new(move |peers| writer.distrusted(peers)),
        mind: Some(peer.mind()),
        listed: settings.trusted_peers.ids().copied().collect(),
        ..GoOptions::new(env!("CARGO_PKG_VERSION"), trusted)
    };
    let go = GoSide::start(host.clone(), streams, peer.clone(), options).await.context("taking part among Go peers")?;
    let go = Arc::new(go);
    inbound.set(go.clone());
    let members: Weak<GoSide> = Arc::downgrade(&go);
    peer.set_go(members);
    for (peer, addresses) in settings.trusted_peers.addresses() {
        host.keep_connected(*peer, addresses).await;
    }
    Ok(go)
}

impl Running {
    /// Stops what `start` started, backwards.
    pub async fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(go) = &self.go {
            go.stop().await;
        }
        self.peer.stop().await;
        for host in &self.hosts {
            host.shutdown().await;
        }
    }

    /// After leaving: what was held for the cluster becomes the user's own, and the cluster's state is forgotten, so that it is
    /// never merged into another cluster.
    pub async fn forget_cluster(&self) -> anyhow::Result<()> {
        const PAGE: usize = 500;
        let owner = Owner::Cluster(self.cluster_name.clone());
        let mut after = None;
        loop {
            let page = self.node.pins(after, PAGE).await?;
            for held in &page {
                let Some((_, depth, _)) = held.owners.iter().find(|(held_for, _, _)| *held_for == owner) else { continue };
                self.keep_for_user(held.cid, *depth).await?;
                self.node.unpin(&owner, &held.cid).await?;
            }
            if page.len() < PAGE {
                break;
            }
            after = page.last().map(|held| held.cid);
        }
        let names = peer::records::of_kind(self.store.as_ref(), RecordKind::Name)?;
        for area in [
            Area::Pins,
            Area::Elements,
            Area::Tombstones,
            Area::Heads,
            Area::Processed,
            Area::DagBlocks,
            Area::Intents,
            Area::Ledger,
            Area::Records,
            Area::Meta,
        ] {
            clear(self.store.as_ref(), area)?;
        }
        // What this peer published is its user's, as are the keys: it goes along into the next cluster.
        let me = Cluster::identity(&*self.peer).await.peer;
        for register in names.iter().filter(|register| register.key.author == me) {
            peer::records::keep(self.store.as_ref(), [register])?;
        }
        Ok(())
    }

    async fn keep_for_user(&self, cid: types::Cid, depth: Depth) -> anyhow::Result<()> {
        let task = PinTask { owner: Owner::User, cid, depth, source: Source::local() };
        let progress = Arc::new(tokio::sync::watch::Sender::new(PinProgress::default()));
        self.node.pin(task, progress).await.map(|_| ()).with_context(|| format!("keeping {cid} for the user"))
    }
}

fn clear(store: &dyn Store, area: Area) -> anyhow::Result<()> {
    const PAGE: usize = 1000;
    loop {
        let page = store.snapshot().scan(area, None, &[], PAGE)?;
        if page.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (key, _) in &page {
            batch.delete(area, key);
        }
        store.commit(batch, Durability::Synced)?;
    }
}

/// The cluster's name is part of what was joined: kept with the state, and only an invite or an empty state changes it.
pub fn settled_name(store: &dyn Store, wanted: String, is_join: bool) -> anyhow::Result<String> {
    const KEY: &[u8] = b"cluster-name";
    let kept = store.snapshot().get(Area::Meta, KEY)?.map(|kept| String::from_utf8_lossy(&kept).into_owned());
    match kept {
        Some(kept) if is_join && kept != wanted => {
            bail!(
                "this data directory belongs to the cluster {kept:?}, the invite is for {wanted:?}: use another --dir, or `pinfold leave` first"
            )
        }
        Some(kept) => Ok(kept),
        None => {
            let mut batch = Batch::new();
            batch.put(Area::Meta, KEY, wanted.clone().into_bytes());
            store.commit(batch, Durability::Synced)?;
            Ok(wanted)
        }
    }
}

/// Counts this start: other peers tell a restart from an old message by it.
fn count_start(store: &dyn Store) -> anyhow::Result<u64> {
    const KEY: &[u8] = b"incarnation";
    let last = store.snapshot().get(Area::Meta, KEY)?;
    let last = last.and_then(|bytes| <[u8; 8]>::try_from(bytes.as_ref()).ok()).map_or(0, u64::from_be_bytes);
    // Not below the clock: a state restored from a backup must still count as newer.
    let clock = now().seconds();
    let incarnation = (last + 1).max(clock);
    let mut batch = Batch::new();
    batch.put(Area::Meta, KEY, incarnation.to_be_bytes());
    store.commit(batch, Durability::Synced)?;
    Ok(incarnation)
}

async fn ask_to_join(
    host: &Host,
    invite: &Invite,
    settings: &Settings,
    records: &[types::SignedRecord],
    me: PeerId,
) -> anyhow::Result<Option<Welcome>> {
    // Started again with the same line: it is a member already, so this is an ordinary start.
    let is_member = records.iter().any(|record| record.key.author == me && record.key.key == invite.inviter.as_bytes());
    if is_member {
        return Ok(None);
    }
    if invite.inviter == me {
        bail!("this invite was made by this very peer: use it on another machine, or with another --dir");
    }
    Ok(Some(peer::join::ask(host, invite, &settings.name, now()).await?))
}

fn now() -> UnixMillis {
    peer::clock::wall()
}

/// The limit that was asked for, or what the disk has free now less a reserve of 5% (at least 1 GiB when there is so much). It holds for the
/// whole data directory.
pub fn space_quota(settings: &Settings) -> anyhow::Result<Arc<Quota>> {
    let counted = folder_size(&settings.dir.join("blocks")) + folder_size(&settings.dir.join("state"));
    let whole = folder_size(&settings.dir);
    let other = ByteCount(whole.saturating_sub(counted));
    if let Some(space) = settings.space {
        return Ok(Quota::new(space, other));
    }
    let disk = rustix::fs::statvfs(&settings.dir).with_context(|| format!("asking for the free space of {}", settings.dir.display()))?;
    let free = ByteCount(disk.f_bavail.saturating_mul(disk.f_frsize));
    let room = free + ByteCount(whole);
    let reserve = ByteCount((room.0 / 20).max(ByteCount::GIB.0).min(room.0 / 2));
    Ok(Quota::new(room - reserve, other))
}

/// What a folder takes on disk with all that is below it.
fn folder_size(folder: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata(folder).map_or(0, |metadata| metadata.blocks() * 512);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { folder_size(&entry.path()) } else { metadata.blocks() * 512 })
    });
    own + sizes.sum::<u64>()
}
