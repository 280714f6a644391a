//! A network without wires, for tests of this crate and of those above: delay, loss, and links that are cut and mended.

use crate::crdt::{Crdt, CrdtNetwork};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use types::{Cid, PeerId};

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Time of one way.
    pub delay: Duration,
    /// Part of the broadcasts and calls that get lost, 0 to 1.
    pub loss: f64,
    /// Chance comes from here.
    pub seed: u64,
}

impl Weather {
    /// Nothing is lost and nothing takes time.
    pub const FINE: Weather = Weather { delay: Duration::ZERO, loss: 0.0, seed: 1 };
}

/// Peers that can reach each other.
pub struct MemoryNetwork {
    state: Mutex<State>,
}

struct State {
    weather: Weather,
    random: u64,
    peers: BTreeMap<PeerId, Weak<Crdt>>,
    /// Each pair once, the smaller first.
    links: BTreeSet<(PeerId, PeerId)>,
    fetches: u64,
    broadcasts: u64,
    gives_stretches: bool,
}

/// One peer's side of it.
pub struct MemoryLink {
    network: Arc<MemoryNetwork>,
    me: PeerId,
}

impl MemoryNetwork {
    /// A network without peers.
    pub fn new(weather: Weather) -> Arc<MemoryNetwork> {
        let random = weather.seed | 1;
        let state =
            State { weather, random, peers: BTreeMap::new(), links: BTreeSet::new(), fetches: 0, broadcasts: 0, gives_stretches: true };
        Arc::new(MemoryNetwork { state: Mutex::new(state) })
    }

    /// What `me` opens its CRDT with.
    pub fn link(self: &Arc<MemoryNetwork>, me: PeerId) -> Arc<MemoryLink> {
        Arc::new(MemoryLink { network: self.clone(), me })
    }

    /// Calls to `me` go there from here on.
    pub fn serve(&self, me: PeerId, crdt: &Arc<Crdt>) {
        self.state.lock().peers.insert(me, Arc::downgrade(crdt));
    }

    /// Connects two peers and tells both.
    pub fn connect(&self, a: PeerId, b: PeerId) {
        if self.state.lock().links.insert((a.min(b), a.max(b))) {
            self.tell_both(a, b, |crdt, other| crdt.peer_connected(other, true));
        }
    }

    /// Cuts the link between two peers and tells both.
    pub fn disconnect(&self, a: PeerId, b: PeerId) {
        if self.state.lock().links.remove(&(a.min(b), a.max(b))) {
            self.tell_both(a, b, |crdt, other| crdt.peer_disconnected(other));
        }
    }

    /// From here on history is walked link by link, as among Go peers.
    pub fn refuse_stretches(&self) {
        self.state.lock().gives_stretches = false;
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Blocks asked for, and broadcasts made, so far.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.fetches, state.broadcasts)
    }

    fn tell_both(&self, a: PeerId, b: PeerId, tell: impl Fn(&Crdt, PeerId)) {
        for (one, other) in [(a, b), (b, a)] {
            if let Some(crdt) = self.peer(one) {
                tell(&crdt, other);
            }
        }
    }

    fn peer(&self, peer: PeerId) -> Option<Arc<Crdt>> {
        self.state.lock().peers.get(&peer).and_then(Weak::upgrade)
    }

    /// The peers that `me` reaches.
    fn reached(&self, me: PeerId) -> Vec<PeerId> {
        let state = self.state.lock();
        let others = state.links.iter().filter_map(|(a, b)| if *a == me { Some(*b) } else { (*b == me).then_some(*a) });
        others.collect()
    }

    /// The delay of one way, or none when it gets lost.
    fn way(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        state.random ^= state.random << 13;
        state.random ^= state.random >> 7;
        state.random ^= state.random << 17;
        let chance = (state.random >> 11) as f64 / (1u64 << 53) as f64;
        (chance >= state.weather.loss).then_some(state.weather.delay)
    }

    /// A call there and back.
    async fn call<T>(&self, me: PeerId, to: PeerId, call: impl FnOnce(&Crdt) -> T) -> Result<T, String> {
        let delay = self.way().ok_or("lost")?;
        pause(delay).await;
        if !self.reached(me).contains(&to) {
            return Err("not connected".to_owned());
        }
        let answer = call(&*self.peer(to).ok_or("gone")?);
        pause(delay).await;
        Ok(answer)
    }
}

#[async_trait]
impl CrdtNetwork for MemoryLink {
    async fn broadcast(&self, message: Vec<u8>) -> Result<(), String> {
        self.network.state.lock().broadcasts += 1;
        let reached = self.network.reached(self.me);
        if reached.is_empty() {
            return Err("nobody is connected".to_owned());
        }
        for peer in reached {
            let Some(delay) = self.network.way() else { continue };
            let (network, me, message) = (self.network.clone(), self.me, message.clone());
            tokio::spawn(async move {
                pause(delay).await;
                if let Some(crdt) = network.peer(peer) {
                    let _ = crdt.heads_received(me, message);
                }
            });
        }
        Ok(())
    }

    fn push(&self, peers: &[PeerId], block: Bytes) {
        let reached = self.network.reached(self.me);
        for peer in peers.iter().filter(|peer| reached.contains(peer)).copied() {
            let Some(delay) = self.network.way() else { continue };
            let (network, me, block) = (self.network.clone(), self.me, block.clone());
            tokio::spawn(async move {
                pause(delay).await;
                if let Some(crdt) = network.peer(peer) {
                    crdt.block_pushed(me, block);
                }
            });
        }
    }

    async fn fetch(&self, cid: &Cid, likely: Option<PeerId>) -> Result<Bytes, String> {
        self.network.state.lock().fetches += 1;
        let others = self.network.reached(self.me).into_iter().filter(|peer| Some(*peer) != likely);
        for peer in likely.into_iter().chain(others) {
            if let Ok(Some(bytes)) = self.network.call(self.me, peer, |crdt| crdt.block(cid)).await {
                return Ok(bytes);
            }
        }
        Err("nobody has it".to_owned())
    }

    async fn ask_heads(&self, peer: PeerId) -> Result<Vec<u8>, String> {
        self.network.call(self.me, peer, Crdt::heads_message).await
    }

    async fn ask_stretch(&self, peer: PeerId, question: Vec<u8>) -> Result<Vec<u8>, String> {
        if !self.network.state.lock().gives_stretches {
            return Err("not offered".to_owned());
        }
        self.network.call(self.me, peer, |crdt| crdt.stretch(&question)).await
    }

    async fn ask_page(&self, peer: PeerId, after: Vec<u8>) -> Result<Vec<u8>, String> {
        if !self.network.state.lock().gives_stretches {
            return Err("not offered".to_owned());
        }
        self.network.call(self.me, peer, |crdt| crdt.page(&after)).await
    }
}

async fn pause(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}
