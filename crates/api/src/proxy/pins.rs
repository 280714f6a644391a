//! Kubo's `pin` commands, answered by the cluster.

use super::{Answer, KuboError, Proxy, missing, whole};
use crate::message::{Request, line_of};
use crate::rest::pins::{next_pins, unpin, updated};
use crate::rest::stream::{self, Pages};
use crate::rest::{Failure, parse_cid};
use peer::Cluster;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use types::{Cid, Depth, Pin, PinKind, PinOptions};
use wire::rest::query::Query;

/// Kubo's line of a listing.
#[derive(Serialize)]
struct Listed {
    #[serde(rename = "Cid", skip_serializing_if = "Option::is_none")]
    cid: Option<String>,
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Name", skip_serializing_if = "String::is_empty")]
    name: String,
}

impl Proxy {
    pub(super) async fn pin_add(&self, arguments: &[String], query: &Query) -> Answer {
        if arguments.is_empty() {
            return Err(missing("ipfs-path"));
        }
        let is_direct = query.bool("recursive").map_err(Failure::from)? == Some(false) || query.get("type") == "direct";
        let depth = if is_direct { Depth::DIRECT } else { Depth::Recursive };
        let mut cids = Vec::new();
        for argument in arguments {
            cids.push(self.resolve(argument).await?);
        }
        for cid in &cids {
            let options = PinOptions { name: query.get("name").to_owned(), ..PinOptions::default() };
            self.cluster.pin(*cid, options, depth).await.map_err(Failure::from)?;
        }
        Ok(pinned(&cids))
    }

    pub(super) async fn pin_rm(&self, arguments: &[String]) -> Answer {
        if arguments.is_empty() {
            return Err(missing("ipfs-path"));
        }
        let mut cids = Vec::new();
        for argument in arguments {
            let cid = self.resolve(argument).await?;
            unpin(&*self.cluster, cid).await?;
            cids.push(cid);
        }
        Ok(pinned(&cids))
    }

    pub(super) async fn pin_update(&self, arguments: &[String], query: &Query) -> Answer {
        let from = self.resolve(arguments.first().ok_or_else(|| missing("from-path"))?).await?;
        let to = self.resolve(arguments.get(1).ok_or_else(|| missing("to-path"))?).await?;
        let (options, depth) = updated(&*self.cluster, from, PinOptions::default())?;
        self.cluster.pin(to, options, depth).await.map_err(Failure::from)?;
        let lets_go = query.bool("unpin").map_err(Failure::from)? != Some(false);
        if lets_go && from != to {
            unpin(&*self.cluster, from).await?;
        }
        Ok(pinned(&[from, to]))
    }

    pub(super) async fn pin_ls(&self, arguments: &[String], query: &Query, request: Request) -> Answer {
        let is_set = |name| query.bool(name).map(|flag| flag == Some(true)).map_err(Failure::from);
        let has_names = is_set("names")?;
        let is_streamed = is_set("stream")? || is_set("s")?;
        let kinds: &'static [&'static str] = match query.get("type") {
            "" | "all" => &["recursive", "direct"],
            "recursive" => &["recursive"],
            "direct" => &["direct"],
            // Whose blocks are held through another pin is only known to the nodes.
            "indirect" => &[],
            other => return Err(KuboError::new(format!("invalid type '{other}', must be one of {{direct, indirect, recursive, all}}"))),
        };
        let named = arguments.iter().map(|text| self.named(text)).collect::<Result<Vec<_>, _>>()?;
        let named = if arguments.is_empty() { None } else { Some(named) };
        let pages = Listing {
            cluster: self.cluster.clone(),
            named,
            kinds,
            has_names,
            is_streamed,
            after: None,
            place: Place::Start,
            has_one: false,
        };
        let mut response = stream::answer(pages, request.trailer).await?;
        // Kubo has no 204.
        *response.status_mut() = hyper::StatusCode::OK;
        Ok(response)
    }

    fn named(&self, text: &str) -> Result<Pin, KuboError> {
        let cid = parse_cid(text.trim_start_matches("/ipfs/"))?;
        self.cluster.pin_of(&cid).ok_or_else(|| KuboError::new(format!("Error: path '{text}' is not pinned")))
    }
}

fn pinned(cids: &[Cid]) -> crate::message::Response {
    whole(&json!({ "Pins": cids.iter().map(Cid::to_string).collect::<Vec<_>>() }))
}

/// The pins of the cluster as Kubo lists its own: lines, or one object.
struct Listing {
    cluster: Arc<dyn Cluster>,
    named: Option<Vec<Pin>>,
    kinds: &'static [&'static str],
    has_names: bool,
    is_streamed: bool,
    after: Option<Cid>,
    place: Place,
    has_one: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Pins,
    End,
    Over,
}

impl Pages for Listing {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.next_text().map(String::into_bytes))
    }
}

impl Listing {
    fn next_text(&mut self) -> Option<String> {
        match self.place {
            Place::Start => {
                self.place = Place::Pins;
                Some(if self.is_streamed { String::new() } else { "{\"Keys\":{".to_owned() })
            }
            Place::Pins => Some(self.next_pins()),
            Place::End => {
                self.place = Place::Over;
                Some(if self.is_streamed { String::new() } else { "}}".to_owned() })
            }
            Place::Over => None,
        }
    }

    fn next_pins(&mut self) -> String {
        let mut is_over = self.named.is_some();
        let pins = match self.named.take() {
            Some(pins) => pins,
            None => next_pins(&*self.cluster, &mut self.after, &mut is_over),
        };
        if is_over {
            self.place = Place::End;
        }
        let mut page = String::new();
        for pin in &pins {
            let is_direct = pin.depth == Depth::DIRECT && pin.kind == PinKind::Data;
            let kind = if is_direct { "direct" } else { "recursive" };
            // Shards and the like are the cluster's own bookkeeping.
            if matches!(pin.kind, PinKind::Data | PinKind::Meta) && self.kinds.contains(&kind) {
                self.push(&mut page, pin, kind);
            }
        }
        page
    }

    fn push(&mut self, page: &mut String, pin: &Pin, kind: &'static str) {
        let name = if self.has_names { pin.options.name.clone() } else { String::new() };
        let cid = pin.cid.to_string();
        if self.is_streamed {
            page.push_str(&line_of(&Listed { cid: Some(cid), kind, name }));
            return;
        }
        if std::mem::replace(&mut self.has_one, true) {
            page.push(',');
        }
        page.push_str(&format!("\"{cid}\":{}", line_of(&Listed { cid: None, kind, name }).trim_end()));
    }
}
