//! Pins: write, remove, look up, list.

use super::copies::StatusPages;
use super::stream::{self, Pages};
use super::{Answer, Failure, Rest, json, options, parse_cid, wall};
use crate::message::{Request, Response, no_content};
use ::cluster::shards;
use futures::future::join_all;
use peer::go::{GoCopy, GoMembers};
use peer::{Cluster, Moment, PinReader};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::runtime::Handle;
use types::{Cid, Depth, Pin, PinKind, PinOptions};
use wire::rest::LineWriter;
use wire::rest::query::{Query, kinds_filter};
use wire::status::Filter;

/// Pins read at once while a list is streamed; fewer at first, so that the answer begins at once.
pub(crate) const PAGE: usize = 1000;
pub(super) const FIRST_PAGE: usize = 50;

impl Rest {
    pub(super) async fn pin(&self, cid: Cid, query: &Query) -> Answer {
        let (mut options, mut depth) = options::pin(query, wall())?;
        if let Some(from) = options.update {
            (options, depth) = updated(&*self.cluster, from, options)?;
        }
        if !query.get("owner").is_empty() {
            return self.claim(cid, query, options, depth).await;
        }
        let pin = self.cluster.pin(cid, options, depth).await?;
        Ok(json::pin(&pin))
    }

    pub(super) async fn unpin(&self, cid: Cid) -> Answer {
        Ok(json::pin(&unpin(&*self.cluster, cid).await?))
    }

    pub(super) async fn status(&self, cid: &str, query: &Query) -> Answer {
        let cid = parse_cid(cid)?;
        let only_own = is_local(query);
        let copies = match self.go(only_own) {
            Some(go) => go.copies(&cid, self.cluster.pin_of(&cid).as_ref()).await,
            None => Vec::new(),
        };
        Ok(self.one_status(&cid, only_own, copies).await)
    }

    /// The Go peers, where their copies are asked for.
    fn go(&self, only_own: bool) -> Option<Arc<dyn GoMembers>> {
        self.cluster.go().filter(|_| !only_own)
    }

    async fn one_status(&self, cid: &Cid, only_own: bool, copies: Vec<GoCopy>) -> Response {
        let (pin, rows) = self.cluster.status(cid).await;
        let facts = json::PeerFacts::of(&*self.cluster);
        let mut line = String::new();
        let rows = rows.into_iter().filter(|row| !only_own || facts.is_self(&row.peer));
        json::push_status(&mut line, cid, pin.as_ref(), rows, copies, &facts);
        json::raw(line)
    }

    pub(super) async fn statuses(&self, query: &Query, request: Request) -> Answer {
        let only_own = is_local(query);
        let asked = query.list("cids");
        if !asked.is_empty() {
            let cids = asked.into_iter().map(parse_cid).collect::<Result<Vec<_>, _>>()?;
            return stream::answer(self.status_of_each(cids, only_own), request.trailer).await;
        }
        let filter = Filter::parse(query.get("filter")).ok_or_else(|| Failure::bad("invalid filter value"))?;
        let shows_shards = query.bool("shards")?.unwrap_or(false);
        let lists = match self.go(only_own) {
            Some(go) => go.lists(filter).await,
            None => Vec::new(),
        };
        stream::answer(StatusPages::new(self.cluster.clone(), lists, filter, only_own, shows_shards), request.trailer).await
    }

    fn status_of_each(&self, cids: Vec<Cid>, only_own: bool) -> NamedPages {
        NamedPages { cluster: self.cluster.clone(), go: self.go(only_own), runtime: Handle::current(), cids, next: 0, is_local: only_own }
    }

    pub(super) async fn recover(&self, cid: &str, query: &Query) -> Answer {
        let cid = parse_cid(cid)?;
        let only_own = is_local(query);
        if only_own && self.cluster.pin_of(&cid).is_none() {
            return Err(Failure::not_pinned());
        }
        match self.cluster.recover(Some(cid)).await {
            Ok(_) | Err(peer::CommandError::NotPinned) => {}
            Err(error) => return Err(error.into()),
        }
        let copies = match self.go(only_own) {
            Some(go) => go.recover(&cid, self.cluster.pin_of(&cid).as_ref()).await,
            None => Vec::new(),
        };
        Ok(self.one_status(&cid, only_own, copies).await)
    }

    pub(super) async fn recover_all(&self, query: &Query, request: Request) -> Answer {
        let only_own = is_local(query);
        let mut cids: BTreeSet<Cid> = self.cluster.recover(None).await?.into_iter().collect();
        if let Some(go) = self.go(only_own) {
            cids.extend(go.recover_all().await);
        }
        if cids.is_empty() {
            return Ok(no_content());
        }
        stream::answer(self.status_of_each(cids.into_iter().collect(), only_own), request.trailer).await
    }

    pub(super) async fn allocation(&self, cid: &str) -> Answer {
        let pin = self.cluster.pin_of(&parse_cid(cid)?).ok_or_else(Failure::not_pinned)?;
        Ok(json::pin(&pin))
    }

    pub(super) async fn allocations(&self, query: &Query, request: Request) -> Answer {
        let mut kinds = kinds_filter(query.get("filter")).ok_or_else(|| Failure::bad("invalid filter value"))?;
        if kinds.len() == 4 {
            // All that Go knows: then what nobody knows is shown too.
            kinds.push(PinKind::Bad);
        }
        let shows_shards = !query.get("filter").is_empty() || query.bool("shards")?.unwrap_or(false);
        let pages = PinPages { shows_shards, ..PinPages::new(self.cluster.read_pins(Moment::Passing), kinds) };
        stream::answer(pages, request.trailer).await
    }
}

/// The options of an update: those of the pin it replaces, with a new name and end where given.
pub(crate) fn updated(cluster: &dyn Cluster, from: Cid, wanted: PinOptions) -> Result<(PinOptions, Depth), Failure> {
    let mut old = cluster.pin_of(&from).ok_or_else(Failure::not_pinned)?;
    old.options = ::cluster::owner::without_owners(old.options);
    if !matches!(old.kind, PinKind::Data | PinKind::Meta) {
        return Err(Failure::internal("this pin type cannot be updated"));
    }
    let name = if wanted.name.is_empty() { old.options.name.clone() } else { wanted.name };
    let expires = wanted.expires.or(old.options.expires);
    if old.kind == PinKind::Meta {
        // Its shards are no start for another DAG: what is alike is found by its blocks.
        let mut metadata = old.options.metadata;
        metadata.remove(shards::COUNT);
        metadata.remove(shards::SIZE);
        return Ok((PinOptions { update: None, name, expires, metadata, shard_size: 0, ..old.options }, Depth::Recursive));
    }
    Ok((PinOptions { update: Some(from), name, expires, ..old.options }, old.depth))
}

/// Removes a pin, unless it is a part of another one.
pub(crate) async fn unpin(cluster: &dyn Cluster, cid: Cid) -> Result<Pin, Failure> {
    match cluster.pin_of(&cid).map(|pin| pin.kind) {
        Some(PinKind::Shard) => Err(Failure::internal("cannot unpin a shard directly. Unpin content root CID instead")),
        Some(PinKind::ClusterDag) => Err(Failure::internal("cannot unpin a Cluster DAG directly. Unpin content root CID instead")),
        _ => Ok(cluster.unpin(cid).await?),
    }
}

/// Only the exact word counts.
fn is_local(query: &Query) -> bool {
    query.get("local") == "true"
}

/// Pages of pins as Go's lines, all of one moment.
pub(super) struct PinPages {
    reader: Box<dyn PinReader>,
    kinds: Vec<PinKind>,
    /// Shards of roots that were added here are parts of those, and shown only when asked for.
    shows_shards: bool,
    lines: LineWriter,
    page: usize,
    /// Bytes of the last page.
    size: usize,
}

impl PinPages {
    pub(super) fn new(reader: Box<dyn PinReader>, kinds: Vec<PinKind>) -> PinPages {
        PinPages { reader, kinds, shows_shards: true, lines: LineWriter::default(), page: FIRST_PAGE, size: 0 }
    }
}

impl Pages for PinPages {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let shows_shards = self.shows_shards;
        let PinPages { reader, kinds, lines, .. } = self;
        let mut page = Vec::with_capacity(self.size + self.size / 8);
        let count = reader.next(self.page, &mut |pin| {
            if kinds.contains(&pin.kind) && (shows_shards || !is_part(pin)) {
                lines.push_pin(&mut page, pin);
            }
        })?;
        self.size = page.len();
        self.page = PAGE;
        Ok((count > 0).then_some(page))
    }
}

/// Whether a pin is a shard of another one.
pub(crate) fn is_part(pin: &Pin) -> bool {
    !shards::owners(pin).is_empty()
}

/// The next page of the shared state.
pub(crate) fn next_pins(cluster: &dyn Cluster, after: &mut Option<Cid>, is_over: &mut bool) -> Vec<Pin> {
    let pins = cluster.pins(after.as_ref(), PAGE);
    *is_over = pins.len() < PAGE;
    if let Some(last) = pins.last() {
        *after = Some(last.cid);
    }
    pins
}

/// Status of named CIDs, in the order asked.
struct NamedPages {
    cluster: Arc<dyn Cluster>,
    go: Option<Arc<dyn GoMembers>>,
    runtime: Handle,
    cids: Vec<Cid>,
    next: usize,
    is_local: bool,
}

impl Pages for NamedPages {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let part = self.cids.get(self.next..).unwrap_or_default();
        if part.is_empty() {
            return Ok(None);
        }
        let part = &part[..part.len().min(100)];
        self.next += part.len();
        let copies = match &self.go {
            Some(go) => {
                let pins: Vec<Option<Pin>> = part.iter().map(|cid| self.cluster.pin_of(cid)).collect();
                self.runtime.block_on(join_all(part.iter().zip(&pins).map(|(cid, pin)| go.copies(cid, pin.as_ref()))))
            }
            None => vec![Vec::new(); part.len()],
        };
        let facts = json::PeerFacts::of(&*self.cluster);
        let mut page = String::new();
        for (cid, copies) in part.iter().zip(copies) {
            let (pin, rows) = self.runtime.block_on(self.cluster.status(cid));
            let rows = rows.into_iter().filter(|row| !self.is_local || facts.is_self(&row.peer));
            json::push_status(&mut page, cid, pin.as_ref(), rows, copies, &facts);
        }
        Ok(Some(page.into_bytes()))
    }
}
