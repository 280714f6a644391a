//! Finding who has a block that nobody connected has: one search for each block, however many wait for it, and none for what was just missed.

use crate::routing::Routing;
use futures::stream::{FuturesUnordered, StreamExt};
use ipfs::routing::{ContentRouting, Provider};
use net::Host;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use types::{Cid, PeerId};

/// How long one search may take, dials included.
const SEARCH: Duration = Duration::from_secs(20);
/// A block that was not found is not searched again for so long.
const MISSED: Duration = Duration::from_secs(30);
/// Misses remembered; beyond, the oldest are forgotten, which costs a search.
const MISSED_MOST: usize = 4096;
/// Searches at once; others wait in line.
const SEARCHES_AT_ONCE: usize = 16;
/// Searches that run or stand in line; beyond, what is looked for is not searched: gateways may give blocks faster than searches end.
const SEARCHES_MOST: usize = 256;
/// Providers dialled at once in one search, and connected ones after which it ends.
const DIALS_AT_ONCE: usize = 8;
const CONNECTED_MOST: usize = 8;

/// What a search knows so far.
#[derive(Clone, Default)]
struct Found {
    connected: Vec<PeerId>,
    is_over: bool,
    why: String,
}

pub(crate) struct Finder {
    host: Host,
    routing: Arc<Routing>,
    running: Mutex<HashMap<Vec<u8>, watch::Receiver<Found>>>,
    missed: Mutex<HashMap<Vec<u8>, (Instant, String)>>,
    turns: Semaphore,
}

impl Finder {
    pub(crate) fn new(host: Host, routing: Arc<Routing>) -> Arc<Finder> {
        let turns = Semaphore::new(SEARCHES_AT_ONCE);
        Arc::new(Finder { host, routing, running: Mutex::default(), missed: Mutex::default(), turns })
    }

    /// Providers of a block that are connected when it returns, at least one; or what was asked in vain.
    pub(crate) async fn find(self: &Arc<Self>, cid: &Cid) -> Result<Vec<PeerId>, String> {
        let key = cid.hash().to_bytes();
        if let Some((at, why)) = self.missed.lock().get(&key).filter(|(at, _)| at.elapsed() < MISSED) {
            return Err(format!("{why}, {} s ago", at.elapsed().as_secs()));
        }
        let Some(mut found) = self.search_of(cid, key) else {
            return Err(format!("and not searched for, because {SEARCHES_MOST} other searches stand in line"));
        };
        // The sender is dropped only after the last word.
        let found = found.wait_for(|found| found.is_over || !found.connected.is_empty()).await;
        let found = found.map(|found| found.clone()).unwrap_or_default();
        if found.connected.is_empty() { Err(found.why) } else { Ok(found.connected) }
    }

    /// The search for a block that runs, or a fresh one; none when too many stand in line.
    fn search_of(self: &Arc<Self>, cid: &Cid, key: Vec<u8>) -> Option<watch::Receiver<Found>> {
        let mut running = self.running.lock();
        if let Some(search) = running.get(&key) {
            return Some(search.clone());
        }
        if running.len() >= SEARCHES_MOST {
            return None;
        }
        let (sender, receiver) = watch::channel(Found::default());
        running.insert(key.clone(), receiver.clone());
        let (finder, cid) = (self.clone(), *cid);
        tokio::spawn(async move {
            finder.search(&cid, &sender).await;
            if sender.borrow().connected.is_empty() {
                finder.miss(key.clone(), sender.borrow().why.clone());
            }
            finder.running.lock().remove(&key);
            sender.send_modify(|found| found.is_over = true);
        });
        Some(receiver)
    }

    async fn search(&self, cid: &Cid, found: &watch::Sender<Found>) {
        let Ok(_turn) = self.turns.acquire().await else { return };
        let began = Instant::now();
        let (mut named, mut failed) = (0, 0);
        let looking = async {
            let mut providers = self.routing.find_providers(cid);
            let mut dials = FuturesUnordered::new();
            let mut is_open = true;
            while is_open || !dials.is_empty() {
                tokio::select! {
                    provider = providers.next(), if is_open && dials.len() < DIALS_AT_ONCE => match provider {
                        Some(provider) => {
                            named += 1;
                            dials.push(self.reach(provider));
                        }
                        None => is_open = false,
                    },
                    Some(reached) = dials.next(), if !dials.is_empty() => match reached {
                        Some(node) => {
                            found.send_modify(|found| found.connected.push(node));
                            if found.borrow().connected.len() >= CONNECTED_MOST {
                                return;
                            }
                        }
                        None => failed += 1,
                    },
                }
            }
        };
        let _ = tokio::time::timeout(SEARCH, looking).await;
        let asked = format!("{} for {:.1} s", self.routing.describe(), began.elapsed().as_secs_f32());
        let named = match (named, failed) {
            (0, _) => String::new(),
            (named, failed) => format!(", which named {named} nodes that cannot be reached ({failed} dials failed)"),
        };
        found.send_modify(|found| found.why = format!("{asked}{named}"));
    }

    /// The provider when it is connected; its address is searched where none is known.
    async fn reach(&self, provider: Provider) -> Option<PeerId> {
        let Provider { node, mut addresses } = provider;
        if addresses.is_empty() && !self.host.is_connected(&node) {
            addresses = self.routing.find_peer(&node).await.ok()??.addresses;
        }
        match self.host.connect(node, &addresses).await {
            Ok(()) => Some(node),
            Err(error) => {
                tracing::debug!(%node, %error, "a provider cannot be reached");
                None
            }
        }
    }

    fn miss(&self, key: Vec<u8>, why: String) {
        let mut missed = self.missed.lock();
        if missed.len() >= MISSED_MOST {
            missed.retain(|_, (at, _)| at.elapsed() < MISSED);
        }
        if missed.len() >= MISSED_MOST {
            missed.clear();
        }
        missed.insert(key, (Instant::now(), why));
    }
}
