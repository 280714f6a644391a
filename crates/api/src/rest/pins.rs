//! Pins: write, remove, look up, list.

use super::copies::{Filter, StatusPages};
use super::stream::{self, Pages};
use super::{Answer, Failure, Rest, json, options, parse_cid, wall};
use crate::message::{Request, no_content};
use crate::query::Query;
use peer::Cluster;
use std::sync::Arc;
use types::{Cid, Depth, Pin, PinKind, PinOptions};

/// Pins read at once while a list is streamed.
pub(super) const PAGE: usize = 1000;

impl Rest {
    pub(super) async fn pin(&self, cid: Cid, query: &Query<'_>) -> Answer {
        let (mut options, mut depth) = options::pin(query, wall())?;
        if let Some(from) = options.update {
            (options, depth) = self.updated(from, options)?;
        }
        let pin = self.cluster.pin(cid, options, depth).await?;
        Ok(json::pin(&pin))
    }

    /// The options of an update: those of the pin it replaces, with a new name and end where given.
    fn updated(&self, from: Cid, wanted: PinOptions) -> Result<(PinOptions, Depth), Failure> {
        let old = self.cluster.pin_of(&from).ok_or_else(Failure::not_pinned)?;
        if old.kind != PinKind::Data {
            return Err(Failure::internal("this pin type cannot be updated"));
        }
        let name = if wanted.name.is_empty() { old.options.name.clone() } else { wanted.name };
        let expires = wanted.expires.or(old.options.expires);
        Ok((PinOptions { update: Some(from), name, expires, ..old.options }, old.depth))
    }

    pub(super) async fn unpin(&self, cid: Cid) -> Answer {
        match self.cluster.pin_of(&cid).map(|pin| pin.kind) {
            Some(PinKind::Shard) => return Err(Failure::internal("cannot unpin a shard directly. Unpin content root CID instead")),
            Some(PinKind::ClusterDag) => return Err(Failure::internal("cannot unpin a Cluster DAG directly. Unpin content root CID instead")),
            _ => {}
        }
        Ok(json::pin(&self.cluster.unpin(cid).await?))
    }

    pub(super) async fn status(&self, cid: &str, query: &Query<'_>) -> Answer {
        let cid = parse_cid(cid)?;
        Ok(json::raw(self.one_status(&cid, query.is_true("local"))))
    }

    fn one_status(&self, cid: &Cid, is_local: bool) -> Vec<u8> {
        let (pin, rows) = self.cluster.status(cid);
        let facts = json::PeerFacts::of(&*self.cluster);
        let mut line = Vec::new();
        let rows = rows.into_iter().filter(|row| !is_local || facts.is_self(&row.peer));
        json::push_status(&mut line, cid, pin.as_ref(), rows, &facts);
        line
    }

    pub(super) async fn statuses(&self, query: &Query<'_>, request: Request) -> Answer {
        let is_local = query.is_true("local");
        let asked: Vec<&str> = query.list("cids").collect();
        if !asked.is_empty() {
            let cids = asked.into_iter().map(parse_cid).collect::<Result<Vec<_>, _>>()?;
            let pages = NamedPages { cluster: self.cluster.clone(), cids, next: 0, is_local };
            return stream::answer(pages, request.trailer).await;
        }
        let filter = Filter::parse(query.get("filter"))?;
        stream::answer(StatusPages::new(self.cluster.clone(), filter, is_local), request.trailer).await
    }

    pub(super) async fn recover(&self, cid: &str, query: &Query<'_>) -> Answer {
        let cid = parse_cid(cid)?;
        let is_local = query.is_true("local");
        if is_local && self.cluster.pin_of(&cid).is_none() {
            return Err(Failure::not_pinned());
        }
        match self.cluster.recover(Some(cid)).await {
            Ok(_) | Err(peer::CommandError::NotPinned) => Ok(json::raw(self.one_status(&cid, is_local))),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn recover_all(&self, query: &Query<'_>, request: Request) -> Answer {
        let cids = self.cluster.recover(None).await?;
        if cids.is_empty() {
            return Ok(no_content());
        }
        let pages = NamedPages { cluster: self.cluster.clone(), cids, next: 0, is_local: query.is_true("local") };
        stream::answer(pages, request.trailer).await
    }

    pub(super) async fn allocation(&self, cid: &str) -> Answer {
        let pin = self.cluster.pin_of(&parse_cid(cid)?).ok_or_else(Failure::not_pinned)?;
        Ok(json::pin(&pin))
    }

    pub(super) async fn allocations(&self, query: &Query<'_>, request: Request) -> Answer {
        let kinds = kinds(query)?;
        let pages = PinPages { cluster: self.cluster.clone(), kinds, after: None, is_over: false };
        stream::answer(pages, request.trailer).await
    }
}

/// The kinds named by `filter`; none for all. Names that are not known count only when no other is.
fn kinds(query: &Query<'_>) -> Result<Option<Vec<PinKind>>, Failure> {
    let mut kinds = Vec::new();
    let mut is_named = false;
    for name in query.list("filter") {
        is_named = true;
        match name {
            "all" => return Ok(None),
            "pin" => kinds.push(PinKind::Data),
            "meta-pin" => kinds.push(PinKind::Meta),
            "clusterdag-pin" => kinds.push(PinKind::ClusterDag),
            "shard-pin" => kinds.push(PinKind::Shard),
            _ => {}
        }
    }
    match (is_named, kinds.is_empty()) {
        (false, _) => Ok(None),
        (true, true) => Err(Failure::bad("invalid filter value")),
        (true, false) => Ok(Some(kinds)),
    }
}

struct PinPages {
    cluster: Arc<dyn Cluster>,
    kinds: Option<Vec<PinKind>>,
    after: Option<Cid>,
    is_over: bool,
}

impl Pages for PinPages {
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        let pins = next_pins(&*self.cluster, &mut self.after, &mut self.is_over);
        let mut page = Vec::with_capacity(pins.len() * 512);
        for pin in &pins {
            if self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&pin.kind)) {
                json::push_pin(&mut page, pin);
            }
        }
        Some(page)
    }
}

/// The next page of the shared state.
pub(super) fn next_pins(cluster: &dyn Cluster, after: &mut Option<Cid>, is_over: &mut bool) -> Vec<Pin> {
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
    cids: Vec<Cid>,
    next: usize,
    is_local: bool,
}

impl Pages for NamedPages {
    fn next(&mut self) -> Option<Vec<u8>> {
        let part = self.cids.get(self.next..)?;
        if part.is_empty() {
            return None;
        }
        let part = &part[..part.len().min(100)];
        self.next += part.len();
        let facts = json::PeerFacts::of(&*self.cluster);
        let mut page = Vec::new();
        for cid in part {
            let (pin, rows) = self.cluster.status(cid);
            let rows = rows.into_iter().filter(|row| !self.is_local || facts.is_self(&row.peer));
            json::push_status(&mut page, cid, pin.as_ref(), rows, &facts);
        }
        Some(page)
    }
}
