//! Drain, cordon, balance, and their plans.

use super::{Answer, Failure, Rest, json};
use cluster::plan::{Goal, Plan};
use cluster::{Balancing, Duty};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use types::{Cid, PeerId};
use wire::rest::query::Query;

impl Rest {
    /// What a peer is there for from now on.
    pub(super) async fn set_duty(&self, peer: &str, duty: Duty) -> Answer {
        let peer = self.member(peer)?;
        self.cluster.set_duty(peer, duty).await?;
        Ok(json::value(&json!({ "peer": peer.to_string(), "duty": duty.as_str() })))
    }

    /// How copies are balanced from now on.
    pub(super) async fn set_balancing(&self, query: &Query) -> Answer {
        let text = query.get("mode");
        let word = if text.is_empty() { "now" } else { text };
        let mode = Balancing::decode(word.as_bytes())
            .ok_or_else(|| Failure::bad(format!("parameter mode invalid: {word:?} is none of now, auto, off")))?;
        self.cluster.set_balancing(mode).await?;
        Ok(json::value(&json!({ "balancing": mode.as_str() })))
    }

    pub(super) fn balancing(&self) -> Answer {
        Ok(json::value(&json!({ "balancing": self.cluster.balancing().as_str() })))
    }

    pub(super) async fn plan_drain(&self, peer: &str) -> Answer {
        let peer = self.member(peer)?;
        self.plan(Goal::Drain(peer)).await
    }

    pub(super) async fn plan(&self, goal: Goal) -> Answer {
        let plan = self.cluster.plan(goal).await?;
        let ours = self.cluster.peers().into_iter().map(|row| (row.peer, row.name));
        let names = ours.chain(self.go_peers().into_iter().map(|go| (go.peer, go.name))).collect();
        Ok(json::value(&plan_value(&plan, goal, &names)))
    }

    /// A member, Go's too, by its id, its name, or `self`.
    fn member(&self, text: &str) -> Result<PeerId, Failure> {
        let is_named = |peer: &PeerId, name: &str| peer.to_string() == text || name == text;
        let (rows, go) = (self.cluster.peers(), self.go_peers());
        let ours = rows.iter().filter(|row| is_named(&row.peer, &row.name) || (text == "self" && row.is_self)).map(|row| row.peer);
        let named: Vec<PeerId> = ours.chain(go.iter().filter(|go| is_named(&go.peer, &go.name)).map(|go| go.peer)).collect();
        match named.as_slice() {
            [peer] => Ok(*peer),
            [] => Err(Failure::bad(format!("no member is called {text:?}: give a name or an id of `pinfold peers`, or \"self\""))),
            several => {
                let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
                Err(Failure::bad(format!("several members are called {text:?}: give one of their ids ({})", ids.join(", "))))
            }
        }
    }
}

fn plan_value(plan: &Plan, goal: Goal, names: &BTreeMap<PeerId, String>) -> Value {
    let name = |peer: &PeerId| names.get(peer).cloned().unwrap_or_default();
    let goal = match goal {
        Goal::Drain(peer) => json!({ "drain": peer.to_string(), "name": name(&peer) }),
        Goal::Balance => json!("rebalance"),
    };
    let routes: Vec<Value> = plan
        .routes
        .iter()
        .map(|route| {
            json!({
                "from": route.from.to_string(), "from_name": name(&route.from),
                "to": route.to.to_string(), "to_name": name(&route.to),
                "copies": route.copies, "bytes": route.bytes.get(),
            })
        })
        .collect();
    let fills: Vec<Value> = plan
        .fills
        .iter()
        .map(|fill| {
            json!({
                "peer": fill.peer.to_string(), "name": name(&fill.peer),
                "limit": fill.limit.get(), "before": fill.before.get(), "after": fill.after.get(),
            })
        })
        .collect();
    let stranded: Vec<Value> = plan
        .stranded
        .iter()
        .map(|stranded| {
            let examples: Vec<String> = stranded.examples.iter().map(Cid::to_string).collect();
            json!({ "why": stranded.why, "copies": stranded.copies, "bytes": stranded.bytes.get(), "examples": examples })
        })
        .collect();
    json!({
        "goal": goal,
        "pins": plan.pins,
        "moves": plan.moves,
        "bytes": plan.bytes.get(),
        "estimated": plan.estimated,
        "dropped": plan.dropped,
        "only_copies": plan.only_copies,
        "everywhere": plan.everywhere,
        "seconds": plan.time.0.div_ceil(1000),
        "routes": routes,
        "peers": fills,
        "stranded": stranded,
    })
}
