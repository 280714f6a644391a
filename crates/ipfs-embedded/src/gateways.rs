//! Blocks over HTTP: trustless gateways (specs.ipfs.tech/http-gateways/trustless-gateway) that the user named, or that routers named where the
//! user allows it. A further source beside bitswap; what comes is proven by its hash before anybody sees it.
//!
//! One request for a block at a gateway, however many wait for it; the next gateway is asked when the first is slow. One that fails or lies
//! is put aside (`standing`), and whoever waits is told so. One that gives blocks is asked for whole DAGs too (`cars`).

mod cars;

pub(crate) use cars::Car;

use crate::shared::on_disk;
use crate::standing::{Aside, Fault, Standing, Ticket};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};
use futures::stream::{FuturesUnordered, StreamExt};
use ipfs::routing::HttpSource;
use net::http::{Answer, Ask, HttpClient, HttpError, Url};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use types::Cid;

/// Requests at once, at all gateways and at one: so many blocks are in memory at most.
const REQUESTS_MOST: usize = 32;
const REQUESTS_EACH: usize = 16;
/// A gateway that has not given the block for so long gets company.
const STAGGER: Duration = Duration::from_secs(2);
/// For how long a fetch waits for gateways that are put aside and likely to give it then.
const WAIT_MOST: Duration = Duration::from_secs(10);
/// A block that no gateway has is not asked for again for so long.
const MISSED: Duration = Duration::from_secs(30);
/// Misses remembered.
const MISSED_MOST: usize = 4096;
/// Gateways that routers named: so many are remembered, those that gave least go first; so many of them are asked for a block.
const FOUND_MOST: usize = 16;
const FOUND_ASKED: usize = 3;
/// What a gateway answers with.
const RAW: &str = "application/vnd.ipld.raw";

type Given = Result<Bytes, Arc<str>>;
type Running = Shared<BoxFuture<'static, Given>>;

/// The gateways of a node.
pub(crate) struct Gateways {
    client: HttpClient,
    /// Routers may name further ones.
    may_find: bool,
    list: Mutex<Vec<Arc<Gateway>>>,
    running: Mutex<HashMap<Cid, WeakShared<BoxFuture<'static, Given>>>>,
    missed: Mutex<HashMap<Cid, (Instant, Arc<str>)>>,
    turns: Semaphore,
}

struct Gateway {
    url: Url,
    shown: String,
    is_found: bool,
    may_be_private: bool,
    standing: Mutex<Standing>,
    turns: Semaphore,
    /// It was asked for a whole DAG and gave none.
    gives_no_cars: AtomicBool,
}

/// What became of one request.
enum Said {
    Gave(Bytes),
    /// It does not have it: for good, as far as this fetch goes.
    No(String),
    /// It is put aside.
    Aside(Aside),
}

impl Gateways {
    pub(crate) fn new(client: HttpClient, urls: Vec<Url>, may_find: bool) -> Arc<Gateways> {
        let named = urls.into_iter().map(|url| Arc::new(Gateway::new(url, false, true))).collect();
        let (running, missed) = (Mutex::default(), Mutex::default());
        Arc::new(Gateways { client, may_find, list: Mutex::new(named), running, missed, turns: Semaphore::new(REQUESTS_MOST) })
    }

    /// A router says that there is one.
    pub(crate) fn found(&self, url: Url, may_be_private: bool) {
        let mut list = self.list.lock();
        let gateway = Gateway::new(url, true, may_be_private);
        if list.iter().any(|known| known.shown == gateway.shown) {
            return;
        }
        if list.iter().filter(|known| known.is_found).count() >= FOUND_MOST {
            let least = list.iter().enumerate().filter(|(_, known)| known.is_found).min_by_key(|(_, known)| known.standing.lock().given());
            if let Some((index, _)) = least {
                list.remove(index);
            }
        }
        list.push(Arc::new(gateway));
    }

    /// Whether there is anybody to be asked, or may be once a search has ended.
    pub(crate) fn can_give(&self) -> bool {
        self.may_find || !self.is_empty()
    }

    /// Whether nobody is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.lock().is_empty()
    }

    /// The block, proven by its hash; or what each gateway said. Cancel by drop.
    pub(crate) async fn fetch(self: &Arc<Self>, cid: Cid) -> Result<Bytes, String> {
        if let Some((at, why)) = self.missed.lock().get(&cid).filter(|(at, _)| at.elapsed() < MISSED) {
            return Err(format!("{why}, {} s ago", at.elapsed().as_secs()));
        }
        self.running_of(cid).await.map_err(|why| why.to_string())
    }

    /// The fetch of a block that runs, or a fresh one. It ends when nobody waits for it any more.
    fn running_of(self: &Arc<Self>, cid: Cid) -> Running {
        let mut running = self.running.lock();
        if let Some(shared) = running.get(&cid).and_then(WeakShared::upgrade) {
            return shared;
        }
        // Those that nobody waited for to the end are still listed.
        if running.len() >= REQUESTS_MOST * 8 {
            running.retain(|_, shared| shared.upgrade().is_some());
        }
        let gateways = self.clone();
        let fetch = async move {
            let given = gateways.ask_all(cid).await;
            gateways.running.lock().remove(&cid);
            given
        };
        let shared = fetch.boxed().shared();
        if let Some(weak) = shared.downgrade() {
            running.insert(cid, weak);
        }
        shared
    }

    async fn ask_all(&self, cid: Cid) -> Given {
        let until = Instant::now() + WAIT_MOST;
        // What those said that need not be asked again.
        let mut no = BTreeMap::new();
        loop {
            let mut aside: BTreeMap<String, Aside> = BTreeMap::new();
            if let Some(data) = self.round(&cid, &mut no, &mut aside).await {
                return Ok(data);
            }
            let soonest = aside.values().filter(|aside| aside.is_hopeful).map(|aside| aside.until).min();
            match soonest.filter(|soonest| *soonest < until) {
                Some(soonest) => tokio::time::sleep_until(soonest.into()).await,
                None => return Err(self.in_vain(cid, &no, &aside)),
            }
        }
    }

    /// Asks everybody who may be asked, the next when the one before is slow.
    async fn round(&self, cid: &Cid, no: &mut BTreeMap<String, String>, aside: &mut BTreeMap<String, Aside>) -> Option<Bytes> {
        let mut asking = FuturesUnordered::new();
        let mut waiting = self.in_order(no).into_iter();
        loop {
            if let Some(gateway) = waiting.next() {
                asking.push(async move {
                    let said = self.ask(&gateway, cid).await;
                    (gateway.shown.clone(), said)
                });
            }
            let has_more = waiting.len() > 0;
            tokio::select! {
                done = asking.next() => match done {
                    Some((_, Said::Gave(data))) => return Some(data),
                    Some((url, Said::No(why))) => {
                        no.insert(url, why);
                    }
                    Some((url, Said::Aside(until))) => {
                        aside.insert(url, until);
                    }
                    None => return None,
                },
                () = tokio::time::sleep(STAGGER), if has_more => {}
            }
        }
    }

    /// Those that the user named, as he named them, then those that were found and gave most.
    fn in_order(&self, no: &BTreeMap<String, String>) -> Vec<Arc<Gateway>> {
        let list = self.list.lock();
        let (mut found, mut named): (Vec<_>, Vec<_>) =
            list.iter().filter(|gateway| !no.contains_key(&gateway.shown)).cloned().partition(|gateway| gateway.is_found);
        found.sort_by_key(|gateway| std::cmp::Reverse(gateway.standing.lock().given()));
        found.truncate(FOUND_ASKED);
        named.extend(found);
        named
    }

    async fn ask(&self, gateway: &Arc<Gateway>, cid: &Cid) -> Said {
        // Nobody closes them. Whoever stands in line sees at its turn what those before it learnt.
        let _turns = (gateway.turns.acquire().await.ok(), self.turns.acquire().await.ok());
        let asking = match Asking::begin(gateway) {
            Ok(asking) => asking,
            Err(aside) => return Said::Aside(aside),
        };
        let url = below(&gateway.url, &format!("ipfs/{cid}"), Some("format=raw"));
        let ask = Ask { url: &url, accept: RAW, most: dag::MAX_BLOCK, may_be_private: gateway.may_be_private };
        match self.client.get(ask).await {
            Ok(answer) => self.take(asking, answer, cid).await,
            Err(error) => asking.fault(fault_of(&error), error.to_string()),
        }
    }

    async fn take(&self, asking: Asking, answer: Answer, cid: &Cid) -> Said {
        match answer.status {
            200 => {}
            404 | 410 => return asking.no("does not have it".to_owned()),
            // By law, by a list of what it does not give out, or because it gives out its own content alone.
            403 | 451 => return asking.no(format!("does not give it out ({})", answer.status)),
            429 | 503 if answer.status == 429 || answer.retry_after.is_some() => {
                return asking.fault(Fault::Busy(answer.retry_after), answer.status.to_string());
            }
            // Not for such a CID, or not by such a request.
            400 | 406 | 412 | 501 => return asking.no(format!("refuses ({})", answer.status)),
            // Servers that look elsewhere for content say so when that fails.
            500 | 502 | 504 => return asking.fault(Fault::Slow, answer.status.to_string()),
            status => return asking.fault(Fault::Failed, status.to_string()),
        }
        let kind = answer.kind;
        if let Some(length) = answer.length.filter(|length| *length > dag::MAX_BLOCK as u64) {
            return asking.no(format!("has a block of {length} bytes, more than a node takes ({})", dag::MAX_BLOCK));
        }
        let data = match answer.body.all().await {
            Ok(data) => data,
            Err(error @ HttpError::TooLong { .. }) => return asking.fault(Fault::Lied, error.to_string()),
            Err(error) => return asking.fault(fault_of(&error), error.to_string()),
        };
        let (checked, proven) = (data.clone(), *cid);
        match on_disk(move || dag::verify(&proven, &checked)).await {
            Ok(()) => asking.gave(data),
            Err(error) if kind == RAW => asking.fault(Fault::Lied, format!("sent something else: {error}")),
            Err(_) => asking.fault(Fault::Failed, format!("answered with {kind:?} instead of a block")),
        }
    }

    fn in_vain(&self, cid: Cid, no: &BTreeMap<String, String>, aside: &BTreeMap<String, Aside>) -> Arc<str> {
        let now = Instant::now();
        let said = no.iter().map(|(url, why)| format!("gateway {url} {why}"));
        let later = aside.iter().map(|(url, aside)| {
            let seconds = aside.until.saturating_duration_since(now).as_secs_f32().ceil();
            format!("gateway {url}: {}, again in {seconds:.0} s", aside.why)
        });
        let why: Arc<str> = said.chain(later).collect::<Vec<_>>().join("; ").into();
        // Where nobody was asked, a search may name one any moment.
        if aside.is_empty() && !no.is_empty() {
            let mut missed = self.missed.lock();
            if missed.len() >= MISSED_MOST {
                missed.retain(|_, (at, _)| at.elapsed() < MISSED);
            }
            if missed.len() >= MISSED_MOST {
                missed.clear();
            }
            missed.insert(cid, (now, why.clone()));
        }
        why
    }

    /// For people.
    pub(crate) fn rows(&self) -> Vec<HttpSource> {
        let now = Instant::now();
        self.list.lock().iter().map(|gateway| gateway.standing.lock().row(gateway.shown.clone(), gateway.is_found, now)).collect()
    }
}

impl Gateway {
    fn new(url: Url, is_found: bool, may_be_private: bool) -> Gateway {
        let (standing, turns) = (Mutex::default(), Semaphore::new(REQUESTS_EACH));
        Gateway { shown: net::http::shown(&url), url, is_found, may_be_private, standing, turns, gives_no_cars: AtomicBool::new(false) }
    }
}

/// A request under way at a gateway. Dropped before its end it leaves the standing as it was.
struct Asking {
    gateway: Arc<Gateway>,
    ticket: Option<Ticket>,
}

impl Asking {
    fn begin(gateway: &Arc<Gateway>) -> Result<Asking, Aside> {
        let ticket = gateway.standing.lock().ask(Instant::now())?;
        Ok(Asking { gateway: gateway.clone(), ticket: Some(ticket) })
    }

    fn end<T>(mut self, tell: impl FnOnce(&mut Standing, Ticket, Instant) -> T) -> Option<T> {
        let ticket = self.ticket.take()?;
        Some(tell(&mut self.gateway.standing.lock(), ticket, Instant::now()))
    }

    fn gave(self, data: Bytes) -> Said {
        self.gave_bytes(data.len() as u64);
        Said::Gave(data)
    }

    fn gave_bytes(self, bytes: u64) {
        self.end(|standing, ticket, now| standing.gave(bytes, ticket, now));
    }

    fn no(self, why: String) -> Said {
        self.end(|standing, ticket, now| standing.missed(ticket, now));
        Said::No(why)
    }

    fn fault(self, fault: Fault, why: String) -> Said {
        let gateway = self.gateway.clone();
        let url = &gateway.shown;
        if fault == Fault::Lied {
            tracing::warn!(%url, %why, "a gateway lies and is put aside");
        } else {
            tracing::debug!(%url, %why, "a gateway failed");
        }
        let aside = self.end(|standing, ticket, now| standing.fault(fault, why.clone(), ticket, now)).flatten();
        match aside {
            // It may be about this content alone, and was waited for long enough.
            None => Said::No(format!("did not find it: {why}")),
            Some(aside) if fault == Fault::Slow => {
                let seconds = aside.until.saturating_duration_since(Instant::now()).as_secs_f32().ceil();
                Said::No(format!("did not find it: {why}, again in {seconds:.0} s"))
            }
            Some(aside) => Said::Aside(Aside { why, ..aside }),
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.gateway.standing.lock().dropped(ticket, Instant::now());
        }
    }
}

/// What a failed request says of a server.
pub(crate) fn fault_of(error: &HttpError) -> Fault {
    match error {
        HttpError::Late { what: "connection", .. } => Fault::Failed,
        HttpError::Late { .. } => Fault::Slow,
        _ => Fault::Failed,
    }
}

/// A path below a server's own.
pub(crate) fn below(base: &Url, path: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url.set_query(query);
    url
}
