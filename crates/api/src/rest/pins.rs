//! Pins: write, remove, look up, list.

use super::copies::StatusPages;
use super::stream::{self, Pages};
use super::{Answer, Failure, Rest, json, options, parse_cid, wall};
use crate::message::{Request, no_content};
use peer::Cluster;
use std::sync::Arc;
use types::{Cid, Depth, Pin, PinKind, PinOptions};
use wire::rest::query::{Query, kinds_filter};
use wire::status::Filter;

/// Pins read at once while a list is streamed.
pub(crate) const PAGE: usize = 1000;

impl Rest {
    pub(super) async fn pin(&self, cid: Cid, query: &Query) -> Answer {
        let (mut options, mut depth) = options::pin(query, wall())?;
        if let Some(from) = options.update {
            (options, depth) = updated(&*self.cluster, from, options)?;
        }
        let pin = self.cluster.pin(cid, options, depth).await?;
        Ok(json::pin(&pin))
    }

    pub(super) async fn unpin(&self, cid: Cid) -> Answer {
        Ok(json::pin(&unpin(&*self.cluster, cid).await?))
    }

    pub(super) async fn status(&self, cid: &str, query: &Query) -> Answer {
        let cid = parse_cid(cid)?;
        Ok(json::raw(self.one_status(&cid, is_local(query))))
    }

    fn one_status(&self, cid: &Cid, is_local: bool) -> String {
        let (pin, rows) = self.cluster.status(cid);
        let facts = json::PeerFacts::of(&*self.cluster);
        let mut line = String::new();
        let rows = rows.into_iter().filter(|row| !is_local || facts.is_self(&row.peer));
        json::push_status(&mut line, cid, pin.as_ref(), rows, &facts);
        line
    }

    pub(super) async fn statuses(&self, query: &Query, request: Request) -> Answer {
        let only_own = is_local(query);
        let asked = query.list("cids");
        if !asked.is_empty() {
            let cids = asked.into_iter().map(parse_cid).collect::<Result<Vec<_>, _>>()?;
            let pages = NamedPages { cluster: self.cluster.clone(), cids, next: 0, is_local: only_own };
            return stream::answer(pages, request.trailer).await;
        }
        let filter = Filter::parse(query.get("filter")).ok_or_else(|| Failure::bad("invalid filter value"))?;
        stream::answer(StatusPages::new(self.cluster.clone(), filter, only_own), request.trailer).await
    }

    pub(super) async fn recover(&self, cid: &str, query: &Query) -> Answer {
        let cid = parse_cid(cid)?;
        let only_own = is_local(query);
        if only_own && self.cluster.pin_of(&cid).is_none() {
            return Err(Failure::not_pinned());
        }
        match self.cluster.recover(Some(cid)).await {
            Ok(_) | Err(peer::CommandError::NotPinned) => Ok(json::raw(self.one_status(&cid, only_own))),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn recover_all(&self, query: &Query, request: Request) -> Answer {
        let cids = self.cluster.recover(None).await?;
        if cids.is_empty() {
            return Ok(no_content());
        }
        let pages = NamedPages { cluster: self.cluster.clone(), cids, next: 0, is_local: is_local(query) };
        stream::answer(pages, request.trailer).await
    }

    pub(super) async fn allocation(&self, cid: &str) -> Answer {
        let pin = self.cluster.pin_of(&parse_cid(cid)?).ok_or_else(Failure::not_pinned)?;
        Ok(json::pin(&pin))
    }

    pub(super) async fn allocations(&self, query: &Query, request: Request) -> Answer {
        let kinds = kinds_filter(query.get("filter")).ok_or_else(|| Failure::bad("invalid filter value"))?;
        let pages = PinPages { cluster: self.cluster.clone(), kinds, after: None, is_over: false };
        stream::answer(pages, request.trailer).await
    }
}

/// The options of an update: those of the pin it replaces, with a new name and end where given.
pub(crate) fn updated(cluster: &dyn Cluster, from: Cid, wanted: PinOptions) -> Result<(PinOptions, Depth), Failure> {
    let old = cluster.pin_of(&from).ok_or_else(Failure::not_pinned)?;
    if old.kind != PinKind::Data {
        return Err(Failure::internal("this pin type cannot be updated"));
    }
    let name = if wanted.name.is_empty() { old.options.name.clone() } else { wanted.name };
    let expires = wanted.expires.or(old.options.expires);
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

struct PinPages {
    cluster: Arc<dyn Cluster>,
    kinds: Vec<PinKind>,
    after: Option<Cid>,
    is_over: bool,
}

impl Pages for PinPages {
    fn next(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        let pins = next_pins(&*self.cluster, &mut self.after, &mut self.is_over);
        let mut page = String::with_capacity(pins.len() * 512);
        for pin in &pins {
            if self.kinds.contains(&pin.kind) || (pin.kind == PinKind::Bad && self.kinds.len() == 4) {
                json::push_pin(&mut page, pin);
            }
        }
        Some(page)
    }
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
    cids: Vec<Cid>,
    next: usize,
    is_local: bool,
}

impl Pages for NamedPages {
    fn next(&mut self) -> Option<String> {
        let part = self.cids.get(self.next..)?;
        if part.is_empty() {
            return None;
        }
        let part = &part[..part.len().min(100)];
        self.next += part.len();
        let facts = json::PeerFacts::of(&*self.cluster);
        let mut page = String::new();
        for cid in part {
            let (pin, rows) = self.cluster.status(cid);
            let rows = rows.into_iter().filter(|row| !self.is_local || facts.is_self(&row.peer));
            json::push_status(&mut page, cid, pin.as_ref(), rows, &facts);
        }
        Some(page)
    }
}
