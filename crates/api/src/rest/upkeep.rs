//! `/pinfold/v1/scrub`: looking after the blocks of this peer.

use super::{Answer, Failure, Rest, json};
use hyper::Method;
use peer::{ScrubAsk, ScrubPhase, ScrubReport};
use serde_json::{Value, json};
use types::ByteCount;
use wire::rest::query::Query;

impl Rest {
    /// GET shows, POST begins a round, DELETE ends it.
    pub(super) async fn scrub(&self, method: &Method, query: &Query) -> Answer {
        let ask = match *method {
            Method::POST => ScrubAsk::Start { rate: rate(query)? },
            Method::DELETE => ScrubAsk::Stop,
            _ => ScrubAsk::Show,
        };
        Ok(json::value(&report(&self.cluster.scrub(ask).await?)))
    }
}

fn rate(query: &Query) -> Result<Option<ByteCount>, Failure> {
    match query.get("rate") {
        "" => Ok(None),
        text => match text.parse() {
            Ok(rate) if rate > 0 => Ok(Some(ByteCount(rate))),
            _ => Err(Failure::bad(format!("parameter rate invalid: {text:?} is no number of bytes in a second"))),
        },
    }
}

fn report(report: &ScrubReport) -> Value {
    let phase = match report.phase {
        ScrubPhase::Idle => "idle",
        ScrubPhase::Blocks => "blocks",
        ScrubPhase::Pins => "pins",
    };
    let broken: Vec<Value> = report
        .broken
        .iter()
        .map(|pin| json!({ "cid": pin.cid.to_string(), "missing": pin.missing, "block": pin.first.to_string() }))
        .collect();
    json!({
        "phase": phase,
        "begun": report.begun.map(json::time),
        "ended": report.ended.map(json::time),
        "next": report.next.map(json::time),
        "blocks": report.blocks,
        "blocks_all": report.blocks_all,
        "bytes": report.bytes.get(),
        "pins": report.pins,
        "damaged": report.damaged,
        "restored": report.restored,
        "broken": broken,
        "rate": report.rate.get(),
    })
}
