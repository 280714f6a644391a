//! Delegated routers: servers that the user named, asked over HTTP who has content, where nodes are, and for records of names
//! (specs.ipfs.tech/routing/http-routing-v1). Only asked: nothing is told to them.

use crate::gateways::{Gateways, below, fault_of};
use crate::standing::{Aside, Fault, Standing, Ticket};
use async_trait::async_trait;
use bytes::BytesMut;
use futures::stream::{self, BoxStream, StreamExt};
use ipfs::routing::{HttpSource, Provider};
use ipfs::values::{RoutingError, ValueRouting};
use net::http::{Answer, Ask, Body, HttpClient, Url};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use types::{Cid, PeerId};
use wire::delegated::{PeerRecord, RECORDS_MOST};

/// Bytes of a whole answer, and of a line of one.
const ANSWER_MOST: usize = 1 << 20;
const LINE_MOST: usize = 64 << 10;
/// The longest record of a name, as everywhere.
const NAME_RECORD_MOST: usize = 10 << 10;
const LINES: &str = "application/x-ndjson";
const LIST: &str = "application/json";
const NAME_RECORD: &str = "application/vnd.ipfs.ipns-record";

/// Whether gateways that routers name are asked for blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// No.
    #[default]
    No,
    /// Those in the world that answer over TLS.
    Public,
    /// Any: for closed nets, whose routers say what is there alone.
    Anywhere,
}

/// One router.
pub(crate) struct Delegated {
    client: HttpClient,
    url: Url,
    shown: String,
    gateways: Arc<Gateways>,
    found: Found,
    standing: Mutex<Standing>,
}

/// The records of an answer as they come.
struct Reading {
    router: Arc<Delegated>,
    body: Body,
    /// None when it is settled how the request ended.
    ticket: Option<Ticket>,
    pending: BytesMut,
    ready: VecDeque<PeerRecord>,
    records: usize,
}

impl Delegated {
    pub(crate) fn new(client: HttpClient, url: Url, gateways: Arc<Gateways>, found: Found) -> Arc<Delegated> {
        Arc::new(Delegated { shown: net::http::shown(&url), client, url, gateways, found, standing: Mutex::default() })
    }

    /// For people.
    pub(crate) fn row(&self) -> HttpSource {
        self.standing.lock().row(self.shown.clone(), false, Instant::now())
    }

    /// Its name and, where it is put aside, until when and why.
    pub(crate) fn describe(&self) -> String {
        let row = self.row();
        match (row.again_in, row.why) {
            (Some(again), Some(why)) => format!("router {} ({why}, again in {:.0} s)", row.url, again.as_secs_f32().ceil()),
            _ => format!("router {}", row.url),
        }
    }

    /// Who has this, as the answer comes; nobody where the router fails.
    pub(crate) fn providers(self: &Arc<Self>, cid: &Cid) -> BoxStream<'static, Provider> {
        let (router, path) = (self.clone(), format!("routing/v1/providers/{cid}"));
        let opened = stream::once(async move { router.open(&path).await.ok() });
        let records = opened
            .filter_map(std::future::ready)
            .flat_map(|reading| stream::unfold(reading, |mut reading| async move { reading.next().await.map(|record| (record, reading)) }));
        let on_libp2p = |record: PeerRecord| record.is_on_libp2p().then_some(Provider { node: record.id, addresses: record.addresses });
        records.filter_map(move |record| std::future::ready(on_libp2p(record))).boxed()
    }

    /// Where a node is.
    pub(crate) async fn peer(self: &Arc<Self>, node: &PeerId) -> Result<Option<Provider>, RoutingError> {
        let mut reading = self.open(&format!("routing/v1/peers/{}", wire::ipns::name_text(node))).await?;
        while let Some(record) = reading.next().await {
            if record.id == *node && !record.addresses.is_empty() {
                return Ok(Some(Provider { node: record.id, addresses: record.addresses }));
            }
        }
        Ok(None)
    }

    async fn open(self: &Arc<Self>, path: &str) -> Result<Reading, RoutingError> {
        let (ticket, answer) = self.ask(path, &format!("{LINES}, {LIST};q=0.9"), ANSWER_MOST).await?;
        let is_lines = answer.kind == LINES;
        let (pending, ready) = (BytesMut::new(), VecDeque::new());
        let mut reading = Reading { router: self.clone(), body: answer.body, ticket: Some(ticket), pending, ready, records: 0 };
        match (answer.status, is_lines) {
            (200, true) => {}
            (200, false) => reading.read_list(path).await?,
            // What follows a 404 is for people.
            _ => reading.end(),
        }
        Ok(reading)
    }

    /// An answer with 200, or with 404, whose body tells nothing.
    async fn ask(&self, path: &str, accept: &str, most: usize) -> Result<(Ticket, Answer), RoutingError> {
        let asked = self.standing.lock().ask(Instant::now());
        let ticket = asked.map_err(|Aside { until, why, .. }| {
            let seconds = until.saturating_duration_since(Instant::now()).as_secs_f32().ceil();
            RoutingError(format!("{why}, again in {seconds:.0} s"))
        })?;
        // A dropped request must not keep others waiting.
        let guard = Guard { standing: &self.standing, ticket: Some(ticket) };
        let url = below(&self.url, path, None);
        let answer = match self.client.get(Ask { url: &url, accept, most, may_be_private: true }).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.fault(guard.end(), fault_of(&error), error.to_string())),
        };
        let ticket = guard.end();
        match answer.status {
            200 | 404 => Ok((ticket, answer)),
            429 | 503 => Err(self.fault(ticket, Fault::Busy(answer.retry_after), answer.status.to_string())),
            504 => Err(self.fault(ticket, Fault::Slow, "504".to_owned())),
            status => Err(self.fault(ticket, Fault::Failed, status.to_string())),
        }
    }

    fn fault(&self, ticket: Ticket, fault: Fault, why: String) -> RoutingError {
        tracing::debug!(url = %self.shown, %why, "a router failed");
        self.standing.lock().fault(fault, why.clone(), ticket, Instant::now());
        RoutingError(why)
    }

    /// Gateways in a record are asked for blocks, where the user allows it.
    fn learn(&self, record: &PeerRecord, is_router_private: bool) {
        for url in record.gateways.iter().filter_map(|url| net::http::base(url).ok()) {
            match self.found {
                Found::No => {}
                Found::Public if url.scheme() == "https" => self.gateways.found(url, false),
                Found::Public => {}
                Found::Anywhere => self.gateways.found(url, is_router_private),
            }
        }
    }
}

struct Guard<'a> {
    standing: &'a Mutex<Standing>,
    ticket: Option<Ticket>,
}

impl Guard<'_> {
    fn end(mut self) -> Ticket {
        self.ticket.take().expect("it is ended once")
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.standing.lock().dropped(ticket, Instant::now());
        }
    }
}

impl Reading {
    /// The next record; none at the end, or where the answer breaks off.
    async fn next(&mut self) -> Option<PeerRecord> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(record);
            }
            // Settled: nothing more is read.
            self.ticket?;
            match self.body.chunk().await {
                Ok(Some(data)) => {
                    self.pending.extend_from_slice(&data);
                    self.cut();
                    if self.pending.len() > LINE_MOST {
                        self.fail(Fault::Failed, format!("a record of more than {LINE_MOST} bytes"));
                    }
                }
                Ok(None) => {
                    let last = self.pending.split();
                    self.take(wire::delegated::record_of_line(&last));
                    self.end();
                }
                Err(error) => {
                    self.fail(fault_of(&error), error.to_string());
                }
            }
            if self.records >= RECORDS_MOST {
                self.end();
            }
        }
    }

    /// Nothing more is read.
    fn end(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.router.end(ticket, self.records);
        }
    }

    fn fail(&mut self, fault: Fault, why: String) -> RoutingError {
        match self.ticket.take() {
            Some(ticket) => self.router.fault(ticket, fault, why),
            None => RoutingError(why),
        }
    }

    fn cut(&mut self) {
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line = self.pending.split_to(end + 1);
            self.take(wire::delegated::record_of_line(&line));
        }
    }

    fn take(&mut self, record: Option<PeerRecord>) {
        let Some(record) = record.filter(|_| self.records < RECORDS_MOST) else { return };
        self.records += 1;
        self.router.learn(&record, self.body.is_private());
        self.ready.push_back(record);
    }

    async fn read_list(&mut self, path: &str) -> Result<(), RoutingError> {
        let mut all = BytesMut::new();
        loop {
            match self.body.chunk().await {
                Ok(Some(data)) => all.extend_from_slice(&data),
                Ok(None) => break,
                Err(error) => return Err(self.fail(fault_of(&error), error.to_string())),
            }
        }
        let is_peers = path.starts_with("routing/v1/peers/");
        let records = if is_peers { wire::delegated::peers(&all) } else { wire::delegated::providers(&all) };
        let records = records.map_err(|error| self.fail(Fault::Failed, error.to_string()))?;
        records.into_iter().for_each(|record| self.take(Some(record)));
        self.end();
        Ok(())
    }
}

impl Drop for Reading {
    /// Whoever has enough does not read to the end.
    fn drop(&mut self) {
        if self.records > 0 {
            self.end();
        } else if let Some(ticket) = self.ticket.take() {
            self.router.standing.lock().dropped(ticket, Instant::now());
        }
    }
}

impl Delegated {
    fn end(&self, ticket: Ticket, records: usize) {
        let mut standing = self.standing.lock();
        match records {
            0 => standing.missed(ticket, Instant::now()),
            _ => standing.gave(0, ticket, Instant::now()),
        }
    }
}

/// Records of names. Who asks checks them as all others.
#[async_trait]
impl ValueRouting for Delegated {
    fn label(&self) -> String {
        self.shown.clone()
    }

    fn is_over_http(&self) -> bool {
        true
    }

    async fn get_value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RoutingError> {
        let name = key.strip_prefix(b"/ipns/").and_then(|name| PeerId::from_bytes(name).ok());
        let Some(name) = name else { return Ok(None) };
        let path = format!("routing/v1/ipns/{}", wire::ipns::name_text(&name));
        let (ticket, answer) = self.ask(&path, NAME_RECORD, NAME_RECORD_MOST).await?;
        if answer.status == 404 {
            self.end(ticket, 0);
            return Ok(None);
        }
        let kind = answer.kind;
        match answer.body.all().await {
            // "No record" is a 200 with some text for some servers (the specification says so).
            Ok(_) if kind != NAME_RECORD => {
                self.end(ticket, 0);
                Ok(None)
            }
            Ok(record) => {
                self.end(ticket, 1);
                Ok(Some(record.to_vec()))
            }
            Err(error) => Err(self.fault(ticket, fault_of(&error), error.to_string())),
        }
    }

    async fn put_value(&self, _key: &[u8], _value: &[u8]) -> Result<(), RoutingError> {
        Err(RoutingError("records are not told to routers over HTTP".to_owned()))
    }
}
