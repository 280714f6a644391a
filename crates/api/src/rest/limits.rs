//! `/pinfold/v1/limits`: bandwidth of this peer.

use super::{Answer, Failure, Rest, json};
use hyper::Method;
use peer::{LimitsAsk, LimitsReport, Rule};
use serde_json::{Value, json};
use wire::rest::query::Query;

impl Rest {
    /// GET shows, POST sets the rules (parameter `rules`, divided by `;`), DELETE goes back to the configured ones.
    pub(super) async fn limits(&self, method: &Method, query: &Query) -> Answer {
        let ask = match *method {
            Method::POST => LimitsAsk::Set(rules(query.get("rules"))?),
            Method::DELETE => LimitsAsk::Clear,
            _ => LimitsAsk::Show,
        };
        Ok(json::value(&report(&self.cluster.limits(ask).await?)))
    }
}

fn rules(text: &str) -> Result<Vec<Rule>, Failure> {
    let lines = text.split(';').map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.parse().map_err(|error: peer::BadRule| Failure::bad(error.to_string()))).collect()
}

fn report(report: &LimitsReport) -> Value {
    let (now, moved) = (report.now, report.traffic);
    json!({
        "rules": report.rules.iter().map(Rule::to_string).collect::<Vec<_>>(),
        "from": if report.is_set { "set" } else { "configuration" },
        "now": { "lan_up": now.lan_up, "lan_down": now.lan_down, "wan_up": now.wan_up, "wan_down": now.wan_down },
        "moved": { "lan_up": moved.lan_up, "lan_down": moved.lan_down, "wan_up": moved.wan_up, "wan_down": moved.wan_down },
        "utc_offset_minutes": report.utc_offset,
    })
}
