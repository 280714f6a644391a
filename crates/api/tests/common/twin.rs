//! The cluster of a door in memory: three peers of which two hold everything that is pinned, one node for all of them.

use async_trait::async_trait;
use cluster::{Balancing, CopyRow, Duty, Explanation, Missing, PeerHealth, PeerRow, plan};
use ipfs::memory::MemoryNode;
use ipfs::{Block, Blocks, IpfsNode};
use peer::names::{DnsError, DnsLink, Keystore, MemoryRegisters, SELF, Texts, TxtLookup};
use peer::{AddSession, Cluster, CommandError, Identity, Imported, Live, Moment, PinReader, Totals};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;
use types::{Because, ByteCount, Cid, Depth, Owner, PeerId, Pin, PinKind, PinOptions, PinState, Replicas, UnixMillis};

/// When everything happens: 2023-11-14T22:13:20Z.
pub const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

pub struct Twin {
    /// Holds everything that is added; the cluster as a node.
    pub node: Arc<MemoryNode>,
    /// The node of this peer alone; empty unless a test fills it.
    pub own: Arc<MemoryNode>,
    pub pins: Arc<Mutex<BTreeMap<Cid, Pin>>>,
    pub live: broadcast::Sender<Live>,
    /// Pins that wait on the second peer, with the reason.
    pub waiting: Mutex<BTreeMap<Cid, Because>>,
    pub health: Mutex<[PeerHealth; 3]>,
    pub limit: Mutex<Option<ByteCount>>,
    pub adds: AtomicU64,
    pub balancing: Mutex<Balancing>,
    pub names: Arc<peer::Names>,
    _folder: tempfile::TempDir,
}

/// DNS of this world: one name with a link.
struct Zone;

#[async_trait]
impl TxtLookup for Zone {
    async fn texts(&self, name: &str) -> Result<Texts, DnsError> {
        let texts = if name == "_dnslink.www.example.org" { vec!["dnslink=/ipns/docs.example.org/sub".to_owned()] } else { Vec::new() };
        Ok(Texts { texts, ttl: Duration::from_secs(7) })
    }
}

/// The node's own name, which `docs.example.org` leads to.
pub fn own_name() -> String {
    wire::ipns::name_text(&Keystore::new("".into(), Some([9; 32])).find(SELF).unwrap().name())
}

fn names_of_one(folder: &std::path::Path) -> Arc<peer::Names> {
    let link = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let own = format!("/ipns/{}", own_name());
    let table =
        [link("docs.example.org", &own), link("a.example.org", "/ipns/b.example.org"), link("b.example.org", "/ipns/a.example.org")];
    let options = peer::NamesOptions {
        keys: Keystore::new(folder.join("keys"), Some([9; 32])),
        links: DnsLink::new(table.into(), Arc::new(Zone)),
        routing: Vec::new(),
        renew_every: Duration::from_secs(4 * 3600),
    };
    peer::Names::new(options, Arc::new(MemoryRegisters::default()))
}

pub fn peer(number: u8) -> PeerId {
    PeerId::from_ed25519(&[number; 32])
}

impl Twin {
    pub fn new() -> Arc<Twin> {
        let folder = tempfile::tempdir().unwrap();
        Arc::new(Twin {
            names: names_of_one(folder.path()),
            _folder: folder,
            node: MemoryNode::new(),
            own: MemoryNode::new(),
            pins: Arc::default(),
            live: broadcast::channel(64).0,
            waiting: Mutex::default(),
            health: Mutex::new([PeerHealth::Up; 3]),
            limit: Mutex::default(),
            adds: AtomicU64::new(1),
            balancing: Mutex::default(),
        })
    }

    fn names() -> [(&'static str, PeerId); 3] {
        [("alice", peer(1)), ("bob", peer(2)), ("carol", peer(3))]
    }

    pub fn write(&self, cid: Cid, options: PinOptions, depth: Depth) -> Pin {
        write(&self.pins, &self.live, cid, options, depth)
    }

    fn rows(&self, cid: &Cid, pin: Option<&Pin>) -> Vec<CopyRow> {
        let health = *self.health.lock().unwrap();
        let row = |(at, (name, peer)): (usize, (&str, PeerId))| {
            let is_placed = pin.is_some_and(|pin| pin.is_for(&peer));
            let because = self.waiting.lock().unwrap().get(cid).filter(|_| at == 1).cloned();
            let state = match (pin, is_placed, &because) {
                (None, ..) => PinState::Unpinned,
                (Some(_), false, _) => PinState::Remote,
                (Some(_), true, None) => PinState::Pinned,
                (Some(_), true, Some(Because::Failed { .. })) => PinState::PinError,
                (Some(_), true, Some(_)) => PinState::PinQueued,
            };
            CopyRow {
                peer,
                name: name.into(),
                state,
                because,
                next_try: None,
                tries: 0,
                since: NOW,
                as_of: NOW,
                is_live: health[at] == PeerHealth::Up,
                progress: None,
                is_placed,
            }
        };
        Twin::names().into_iter().enumerate().map(row).collect()
    }
}

#[async_trait]
impl Cluster for Twin {
    async fn identity(&self) -> Identity {
        Identity {
            peer: peer(1),
            name: "alice".into(),
            cluster: "twins".into(),
            addresses: vec![format!("/ip4/127.0.0.1/tcp/9096/p2p/{}", peer(1))],
            node: Some(peer(11)),
            node_addresses: vec![format!("/ip4/127.0.0.1/tcp/4001/p2p/{}", peer(11))],
            started: NOW,
        }
    }

    fn peers(&self) -> Vec<PeerRow> {
        let health = *self.health.lock().unwrap();
        let row = |(at, (name, id)): (usize, (&str, PeerId))| PeerRow {
            peer: id,
            name: name.into(),
            is_self: at == 0,
            health: health[at],
            heard: NOW,
            clock_ahead: Some(0),
            node_addresses: vec![format!("/ip4/10.0.0.{at}/tcp/4001/p2p/{}", peer(11 + at as u8))],
            gateway: None,
            api: None,
            space_limit: ByteCount(1000),
            space_used: ByteCount(400),
            space_reserved: ByteCount(100),
            duty: Duty::InUse,
            load: None,
            exceptions: 0,
        };
        Twin::names().into_iter().enumerate().map(row).collect()
    }

    fn totals(&self) -> Totals {
        Totals { pins: self.pins.lock().unwrap().len() as u64, waiting: self.waiting.lock().unwrap().len() as u64, ..Totals::default() }
    }

    async fn pin(&self, cid: Cid, options: PinOptions, depth: Depth) -> Result<Pin, CommandError> {
        if let Replicas::Between { least, most } = options.replicas
            && least.get() > 3
        {
            return Err(Missing::NotEnoughPeers {
                needed: least.get(),
                wanted: most.get(),
                candidates: 3,
                detail: "See logs for more info.".into(),
            }
            .into());
        }
        Ok(self.write(cid, options, depth))
    }

    async fn unpin(&self, cid: Cid) -> Result<Pin, CommandError> {
        let removed = self.pins.lock().unwrap().remove(&cid);
        let _ = self.live.send(Live::Pin(cid));
        removed.ok_or(CommandError::NotPinned)
    }

    async fn recover(&self, cid: Option<Cid>) -> Result<Vec<Cid>, CommandError> {
        let mut waiting = self.waiting.lock().unwrap();
        let again: Vec<Cid> = waiting.keys().filter(|own| cid.is_none_or(|cid| cid == **own)).copied().collect();
        for cid in &again {
            waiting.remove(cid);
        }
        Ok(again)
    }

    async fn add(&self, options: PinOptions, _size: Option<ByteCount>, _local: bool) -> Result<Box<dyn AddSession>, CommandError> {
        if let Replicas::Between { least, most } = options.replicas
            && least.get() > 3
        {
            return Err(Missing::NotEnoughPeers { needed: least.get(), wanted: most.get(), candidates: 3, detail: String::new() }.into());
        }
        let number = self.adds.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(TwinAdd {
            node: self.node.clone(),
            owner: Owner::Adding(number),
            left: self.limit.lock().unwrap().unwrap_or(ByteCount(u64::MAX)),
            pins: self.pins.clone(),
            live: self.live.clone(),
        }))
    }

    fn pin_of(&self, cid: &Cid) -> Option<Pin> {
        self.pins.lock().unwrap().get(cid).cloned()
    }

    fn pins(&self, after: Option<&Cid>, limit: usize) -> Vec<Pin> {
        let pins = self.pins.lock().unwrap();
        pins.values().filter(|pin| after.is_none_or(|after| pin.cid > *after)).take(limit).cloned().collect()
    }

    async fn status(&self, cid: &Cid) -> (Option<Pin>, Vec<CopyRow>) {
        let pin = self.pin_of(cid);
        let rows = self.rows(cid, pin.as_ref());
        (pin, rows)
    }

    async fn status_page(&self, pins: &[Pin]) -> Vec<Vec<CopyRow>> {
        pins.iter().map(|pin| self.rows(&pin.cid, Some(pin))).collect()
    }

    fn read_pins(&self, _: Moment) -> Box<dyn PinReader> {
        Box::new(TwinReader { pins: self.pins.clone(), after: None })
    }

    async fn import(&self, pins: Vec<Pin>, _renews: bool) -> Result<Imported, CommandError> {
        let mut imported = Imported::default();
        for pin in pins {
            if pin.options.name == "unwritable" {
                return Err(CommandError::Failed("writing the pins: the disk is full".into()));
            }
            match self.pins.lock().unwrap().insert(pin.cid, pin.clone()) {
                Some(before) if before == pin => imported.same += 1,
                Some(_) => imported.changed += 1,
                None => imported.added += 1,
            }
        }
        Ok(imported)
    }

    async fn why(&self, cid: &Cid) -> Option<Explanation> {
        let pin = self.pin_of(cid)?;
        let peers = self.rows(cid, Some(&pin)).into_iter().map(|row| (row, "most free space".to_owned())).collect();
        Some(Explanation {
            pieces: Vec::new(),
            cid: *cid,
            class: "default: 2 copies".into(),
            wished: Some((2, 2)),
            confirmed: 2,
            summary: "safe: 2 of 2 copies".into(),
            peers,
            next: vec![("nothing".into(), None)],
        })
    }

    async fn wait_copies(&self, cid: &Cid, copies: u32, limit: Duration) -> u32 {
        let have = self.rows(cid, self.pin_of(cid).as_ref()).iter().filter(|row| row.state == PinState::Pinned).count() as u32;
        if have < copies {
            tokio::time::sleep(limit.min(Duration::from_millis(50))).await;
        }
        have
    }

    fn live(&self) -> broadcast::Receiver<Live> {
        self.live.subscribe()
    }

    async fn invite(&self, ttl: Duration) -> Result<String, CommandError> {
        Ok(format!("invite-for-{}s", ttl.as_secs()))
    }

    async fn leave(&self, purge: bool, _force: bool) -> Result<u64, CommandError> {
        if purge { Err(CommandError::Stopping) } else { Ok(7) }
    }

    async fn approve_removals(&self) -> Result<(), CommandError> {
        Ok(())
    }

    async fn set_duty(&self, id: PeerId, duty: Duty) -> Result<(), CommandError> {
        let health = match duty {
            Duty::InUse => PeerHealth::Up,
            Duty::Cordoned => PeerHealth::Cordoned,
            Duty::Draining => PeerHealth::Draining,
        };
        let at = Twin::names().iter().position(|(_, known)| *known == id).expect("a member");
        self.health.lock().unwrap()[at] = health;
        Ok(())
    }

    async fn set_balancing(&self, mode: Balancing) -> Result<(), CommandError> {
        *self.balancing.lock().unwrap() = mode;
        Ok(())
    }

    fn balancing(&self) -> Balancing {
        *self.balancing.lock().unwrap()
    }

    async fn plan(&self, goal: plan::Goal) -> Result<plan::Plan, CommandError> {
        let start = plan::Start {
            candidates: Vec::new(),
            loads: BTreeMap::new(),
            lost: Default::default(),
            class: Default::default(),
            copies: 2000,
            bytes_per_minute: 60,
            pins_per_minute: 60,
        };
        let mut planner = plan::Planner::new(start, goal);
        self.pins.lock().unwrap().values().for_each(|pin| planner.pin(pin, None));
        Ok(planner.finish())
    }

    fn node(&self) -> Arc<dyn IpfsNode> {
        self.node.clone()
    }

    fn names(&self) -> Option<Arc<peer::Names>> {
        Some(self.names.clone())
    }

    fn own_node(&self) -> Arc<dyn IpfsNode> {
        self.own.clone()
    }
}

fn write(pins: &Mutex<BTreeMap<Cid, Pin>>, live: &broadcast::Sender<Live>, cid: Cid, options: PinOptions, depth: Depth) -> Pin {
    let placement = if options.replicas == Replicas::Everywhere { Vec::new() } else { vec![peer(1), peer(2)] };
    let pin = Pin { cid, kind: PinKind::Data, options, placement, depth, reference: None, created: NOW };
    pins.lock().unwrap().insert(cid, pin.clone());
    let _ = live.send(Live::Pin(cid));
    pin
}

struct TwinReader {
    pins: Arc<Mutex<BTreeMap<Cid, Pin>>>,
    after: Option<Cid>,
}

impl PinReader for TwinReader {
    fn next(&mut self, limit: usize, each: &mut dyn FnMut(&Pin)) -> Result<usize, CommandError> {
        let pins = self.pins.lock().unwrap();
        let page: Vec<&Pin> = pins.values().filter(|pin| self.after.is_none_or(|after| pin.cid > after)).take(limit).collect();
        self.after = page.last().map(|pin| pin.cid).or(self.after);
        page.iter().for_each(|pin| each(pin));
        Ok(page.len())
    }
}

/// An add into the one node.
struct TwinAdd {
    node: Arc<MemoryNode>,
    owner: Owner,
    left: ByteCount,
    pins: Arc<Mutex<BTreeMap<Cid, Pin>>>,
    live: broadcast::Sender<Live>,
}

#[async_trait]
impl AddSession for TwinAdd {
    fn holders(&self) -> Vec<PeerId> {
        vec![peer(1), peer(2)]
    }

    async fn put(&mut self, blocks: Vec<Block>) -> Result<(), CommandError> {
        for block in &blocks {
            if self.left.get() < block.data.len() as u64 {
                return Err(CommandError::Failed("no room on any holder".into()));
            }
            self.left = self.left - ByteCount(block.data.len() as u64);
        }
        self.node.put(&self.owner, blocks).await.map_err(|error| CommandError::Failed(error.to_string()))
    }

    async fn finish(self: Box<Self>, root: Cid, options: PinOptions, _size: ByteCount, pin: bool) -> Result<Pin, CommandError> {
        if pin {
            return Ok(write(&self.pins, &self.live, root, options, Depth::Recursive));
        }
        let pins = Mutex::default();
        Ok(write(&pins, &self.live, root, options, Depth::Recursive))
    }
}
