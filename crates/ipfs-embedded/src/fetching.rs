//! One session of fetching: named holders, then whoever is connected, then those that routing finds; and gateways over HTTP beside them, when
//! nodes bring nothing.
//!
//! ```text
//!   nodes     bitswap ──── nobody connected has it ──► search (after a while, if gateways are asked) ──► bitswap
//!                │                     │
//!   gateways     └ silent for a while ─┴─► ask them            whoever is first with the block ends the fetch
//! ```
//! Gateways are asked at once when nobody connected has a block, for waiting would help nobody; but not as long as nodes bring blocks, be it
//! slowly: what is on its way to us already is not ordered twice.

use crate::finding::Finder;
use crate::gateways::{Car, Gateways};
use bytes::Bytes;
use ipfs::BlockError;
use net::bitswap::{FetchError, Session};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use types::Cid;

/// Searches in vain after which a session searches no more: what it wants is nowhere, and thousands of blocks may be missing. The same for
/// blocks that no gateway had, one after another.
const MISSES_MOST: usize = 16;
/// When nodes have brought no block for so long, gateways are asked.
const QUIET: Duration = Duration::from_secs(2);
/// The same when they have brought none of this session, but others: the line may be full, or this is what they do not have.
const QUIET_AMONG_OTHERS: Duration = Duration::from_secs(10);
/// Where gateways are asked, a search begins when they have not given the block for so long.
const SEARCH_AFTER: Duration = Duration::from_millis(700);

/// A session. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Fetcher {
    session: Session,
    finder: Option<Arc<Finder>>,
    gateways: Option<Arc<Gateways>>,
    progress: Arc<Progress>,
    activity: Activity,
}

/// When nodes last brought any block, of whichever session.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    pub(crate) fn new() -> Activity {
        Activity(Arc::new(Mutex::new(Instant::now())))
    }
}

/// What a session has learnt.
struct Progress {
    /// When nodes last brought a block, or the session began.
    brought: Mutex<Instant>,
    searches_in_vain: AtomicUsize,
    gateways_in_vain: AtomicUsize,
    /// Gateways gave a block.
    gateways_gave: AtomicBool,
}

/// What one fetch knows of its own way.
#[derive(Default)]
struct Way {
    /// Nobody connected has it.
    is_nowhere_near: Notify,
    is_searching: AtomicBool,
    /// Nodes did not bring it.
    is_over: Notify,
}

/// Why nodes did not bring it.
enum Failed {
    /// Gateways may have it.
    Nodes(BlockError),
    /// It could not be proven, or the node is stopping.
    Final(BlockError),
}

impl Fetcher {
    pub(crate) fn new(session: Session, activity: Activity, finder: Option<Arc<Finder>>, gateways: Option<Arc<Gateways>>) -> Fetcher {
        let brought = Mutex::new(Instant::now());
        let [searches_in_vain, gateways_in_vain] = [0; 2].map(AtomicUsize::new);
        let progress = Progress { brought, searches_in_vain, gateways_in_vain, gateways_gave: AtomicBool::new(false) };
        Fetcher { session, finder, gateways, progress: Arc::new(progress), activity }
    }

    /// The block, proven by its hash.
    pub(crate) fn fetch(&self, cid: Cid) -> impl Future<Output = Result<Bytes, BlockError>> + Send + use<> {
        let fetcher = self.clone();
        async move {
            match fetcher.gateways.clone().filter(|gateways| gateways.can_give()) {
                Some(gateways) => Box::pin(fetcher.ask_both(cid, gateways)).await,
                None => fetcher.ask_nodes(cid, &Way::default(), Duration::ZERO).await.map_err(|failed| match failed {
                    Failed::Nodes(error) | Failed::Final(error) => error,
                }),
            }
        }
    }

    /// All blocks from `root` down as one stream, of a gateway; none where nodes gave all so far.
    pub(crate) async fn car(&self, root: &Cid) -> Option<Car> {
        let gateways = self.gateways.as_ref().filter(|_| self.progress.gateways_gave.load(Ordering::Relaxed))?;
        gateways.car(root).await
    }

    async fn ask_both(&self, cid: Cid, gateways: Arc<Gateways>) -> Result<Bytes, BlockError> {
        let way = Way::default();
        let mut nodes = pin!(self.ask_nodes(cid, &way, SEARCH_AFTER));
        let mut http = pin!(self.ask_gateways(cid, &way, gateways));
        let (mut of_nodes, mut of_gateways) = (None, None);
        loop {
            tokio::select! {
                brought = &mut nodes, if of_nodes.is_none() => match brought {
                    Ok(data) => return Ok(data),
                    Err(Failed::Final(error)) => return Err(error),
                    Err(Failed::Nodes(error)) => {
                        way.is_over.notify_one();
                        of_nodes = Some(error);
                    }
                },
                given = &mut http, if of_gateways.is_none() => match given {
                    Ok(data) => {
                        self.progress.gateways_gave.store(true, Ordering::Relaxed);
                        // Else each of a million blocks would be searched for, and given before anything is found.
                        if way.is_searching.load(Ordering::Relaxed) {
                            self.progress.searches_in_vain.fetch_add(1, Ordering::Relaxed);
                        }
                        return Ok(data);
                    }
                    Err(why) => of_gateways = Some(why),
                },
            }
            if let (Some(nodes), Some(gateways)) = (&of_nodes, &of_gateways) {
                return Err(both(cid, nodes, gateways));
            }
        }
    }

    async fn ask_nodes(&self, cid: Cid, way: &Way, search_after: Duration) -> Result<Bytes, Failed> {
        let failed = match self.session.fetch(cid).await {
            Ok(data) => {
                self.brought();
                return Ok(data);
            }
            Err(error) => error,
        };
        let asked = match &failed {
            FetchError::NotFound { asked } => u32::try_from(*asked).unwrap_or(u32::MAX),
            FetchError::Timeout => 1,
            FetchError::Unprovable(_) | FetchError::Stopped => return Err(Failed::Final(BlockError::NotFound { cid, asked: 0 })),
        };
        way.is_nowhere_near.notify_one();
        let nobody = |routing: String| Err(Failed::Nodes(BlockError::NoProvider { cid, asked, routing }));
        let Some(finder) = &self.finder else { return Err(Failed::Nodes(BlockError::NotFound { cid, asked })) };
        if self.progress.searches_in_vain.load(Ordering::Relaxed) >= MISSES_MOST {
            return nobody(format!("and searched for none of it after {MISSES_MOST} other blocks were found nowhere"));
        }
        tokio::time::sleep(search_after).await;
        way.is_searching.store(true, Ordering::Relaxed);
        match finder.find(&cid).await {
            Ok(providers) => {
                self.session.add_providers(&providers);
                let named = providers.len();
                match self.session.fetch(cid).await {
                    Ok(data) => {
                        self.brought();
                        Ok(data)
                    }
                    Err(error) => nobody(format!("and {named} that a search named, which did not give it ({error})")),
                }
            }
            Err(routing) => {
                self.progress.searches_in_vain.fetch_add(1, Ordering::Relaxed);
                nobody(routing)
            }
        }
    }

    /// What gateways give, once nodes bring nothing.
    async fn ask_gateways(&self, cid: Cid, way: &Way, gateways: Arc<Gateways>) -> Result<Bytes, String> {
        tokio::select! {
            () = way.is_nowhere_near.notified() => {}
            () = self.quiet() => {}
        }
        if gateways.is_empty() {
            // The search may name one.
            way.is_over.notified().await;
        }
        let in_vain = &self.progress.gateways_in_vain;
        if in_vain.load(Ordering::Relaxed) >= MISSES_MOST {
            return Err(format!("gateways were asked for none of it after they had none of {MISSES_MOST} other blocks"));
        }
        let given = gateways.fetch(cid).await;
        match given {
            Ok(_) => in_vain.store(0, Ordering::Relaxed),
            Err(_) => {
                in_vain.fetch_add(1, Ordering::Relaxed);
            }
        }
        given
    }

    fn brought(&self) {
        let now = Instant::now();
        *self.progress.brought.lock() = now;
        *self.activity.0.lock() = now;
    }

    /// Until nodes have brought no block for a while.
    async fn quiet(&self) {
        loop {
            let of_session = self.progress.brought.lock().elapsed();
            let of_any = self.activity.0.lock().elapsed();
            match until_quiet(of_session, of_any) {
                Duration::ZERO => return,
                left => tokio::time::sleep(left).await,
            }
        }
    }
}

/// How long to wait still, when the last block of this session and the last of any came so long ago.
fn until_quiet(of_session: Duration, of_any: Duration) -> Duration {
    let alone = QUIET.saturating_sub(of_session.min(of_any));
    alone.min(QUIET_AMONG_OTHERS.saturating_sub(of_session))
}

fn both(cid: Cid, nodes: &BlockError, gateways: &str) -> BlockError {
    let (asked, routing) = match nodes {
        BlockError::NoProvider { asked, routing, .. } if gateways.is_empty() => (*asked, routing.clone()),
        BlockError::NotFound { asked, .. } if gateways.is_empty() => return BlockError::NotFound { cid, asked: *asked },
        BlockError::NoProvider { asked, routing, .. } => (*asked, format!("{routing}; {gateways}")),
        BlockError::NotFound { asked, .. } => (*asked, gateways.to_owned()),
        _ => (0, gateways.to_owned()),
    };
    BlockError::NoProvider { cid, asked, routing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_bring_puts_gateways_off_for_a_while() {
        let check = |of_session: u64, of_any: u64, left: u64| {
            assert_eq!(until_quiet(Duration::from_millis(of_session), Duration::from_millis(of_any)), Duration::from_millis(left));
        };
        check(0, 0, 2000);
        check(500, 500, 1500);
        check(2000, 2000, 0);
        check(3000, 500, 1500);
        check(9000, 100, 1000);
        check(10_000, 0, 0);
        check(60_000, 0, 0);
    }

    #[test]
    fn everybody_who_was_asked_is_named() {
        let cid = Cid::default();
        let nobody = BlockError::NoProvider { cid, asked: 3, routing: "the DHT for 1.0 s".to_owned() };
        let said = |nodes: &BlockError, gateways: &str| both(cid, nodes, gateways).to_string();
        assert!(said(&nobody, "gateway x: 504").contains("asked 3 nodes, the DHT for 1.0 s; gateway x: 504"));
        assert!(said(&nobody, "").ends_with("the DHT for 1.0 s"));
        assert!(said(&BlockError::NotFound { cid, asked: 2 }, "gateway x: 504").contains("asked 2 nodes, gateway x: 504"));
        assert!(said(&BlockError::NotFound { cid, asked: 2 }, "").contains("was not found: 2 nodes asked"));
    }
}
