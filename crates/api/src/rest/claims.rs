//! Pins for owners: `owner` and `name` of the requests that pin and unpin, and the list of what is kept for whom.

use super::{Answer, Failure, Rest, json, parse_cid};
use peer::{ClaimRow, CommandError, Released};
use serde_json::{Value, json};
use types::{Cid, Depth, PinOptions};
use wire::rest::query::Query;

impl Rest {
    /// Pins for an owner; without a name the CID is its name.
    pub(super) async fn claim(&self, cid: Cid, query: &Query, options: PinOptions, depth: Depth) -> Answer {
        if depth != Depth::Recursive {
            return Err(Failure::bad("an owner keeps content with all that lies below it: leave out mode=direct"));
        }
        let name = if options.name.is_empty() { cid.to_string() } else { options.name.clone() };
        Ok(json::pin(&self.cluster.claim(cid, query.get("owner"), &name, options).await.map_err(failure)?))
    }

    /// One owner lets go: of the name that is given, or of all its names for the CID.
    pub(super) async fn release(&self, cid: Cid, query: &Query) -> Answer {
        let owner = query.get("owner");
        let what = match query.get("name") {
            "" => Released::Cid(cid),
            name => {
                let is_it = self.cluster.claims(Some(owner)).iter().any(|row| row.name == name && row.claim.cid == cid);
                if !is_it {
                    return Err(Failure::not_pinned());
                }
                Released::Name(name.to_owned())
            }
        };
        let pins = self.cluster.release(owner, what).await.map_err(failure)?;
        pins.first().map(json::pin).ok_or_else(Failure::not_pinned)
    }

    /// What owners keep, one object a line.
    pub(super) fn claims(&self, query: &Query) -> Answer {
        let owner = Some(query.get("owner")).filter(|owner| !owner.is_empty());
        let cid = Some(query.get("cid")).filter(|cid| !cid.is_empty()).map(parse_cid).transpose()?;
        let rows = self.cluster.claims(owner);
        let lines = rows.iter().filter(|row| cid.is_none_or(|cid| row.claim.cid == cid)).map(|row| value(row).to_string() + "\n");
        Ok(json::raw(lines.collect::<String>()))
    }
}

fn value(row: &ClaimRow) -> Value {
    let (least, most) = row.claim.replicas.factors();
    json!({
        "owner": row.owner,
        "name": row.name,
        "cid": row.claim.cid.to_string(),
        "replication_factor_min": least,
        "replication_factor_max": most,
        "expire_at": row.claim.expires.map(json::time),
    })
}

/// A wrong owner or name is the client's fault.
fn failure(error: CommandError) -> Failure {
    match error {
        CommandError::Bad(text) => Failure::bad(text),
        other => other.into(),
    }
}
