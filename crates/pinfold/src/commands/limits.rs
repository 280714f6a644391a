//! `pinfold limits`: bandwidth of a peer, changed while it runs.

use crate::cli::Target;
use crate::client::{Client, escape};
use crate::output;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

/// `pinfold limits [set|clear]`
#[derive(Debug, Args)]
pub struct LimitsArgs {
    /// The peer.
    #[command(flatten)]
    pub target: Target,
    /// What to do; nothing: show.
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// Changes.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Set limits; they hold at once and over restarts, instead of those in pinfold.toml.
    #[command(
        after_help = "Examples:\n  pinfold limits set --wan-up 5MB/s --wan-down 20MB/s\n  pinfold limits set --at \"mon-fri 08:00-18:00 wan_up=1MB/s\"\n  pinfold limits set --wan-up none"
    )]
    Set(Box<SetArgs>),
    /// Back to what pinfold.toml says.
    Clear,
}

/// Rates of `pinfold limits set`; what is not named stays.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// To peers on the local net (5MB/s, none).
    #[arg(long, value_name = "RATE")]
    pub lan_up: Option<String>,
    /// From peers on the local net.
    #[arg(long, value_name = "RATE")]
    pub lan_down: Option<String>,
    /// To all others.
    #[arg(long, value_name = "RATE")]
    pub wan_up: Option<String>,
    /// From all others.
    #[arg(long, value_name = "RATE")]
    pub wan_down: Option<String>,
    /// Other rates at some days and hours; may be repeated, and replaces all earlier ones.
    #[arg(long, value_name = "DAYS HOURS KEY=RATE")]
    pub at: Vec<String>,
}

/// `pinfold limits`
pub async fn run(args: LimitsArgs) -> anyhow::Result<()> {
    const PATH: &str = "/pinfold/v1/limits";
    let client = Client::new(&args.target.api)?;
    let report = match args.action {
        None => client.json(Method::GET, PATH).await?,
        Some(Action::Clear) => client.json(Method::DELETE, PATH).await?,
        Some(Action::Set(set)) => {
            let before = client.json(Method::GET, PATH).await?.unwrap_or_default();
            let rules = with(&before, &set).join(";");
            client.json(Method::POST, &format!("{PATH}?rules={}", escape(&rules))).await?
        }
    };
    let report = report.unwrap_or_default();
    if args.target.json {
        output::json_line(&report);
    } else {
        show(&report);
    }
    Ok(())
}

/// The rules that stand, changed as asked.
fn with(before: &Value, set: &SetArgs) -> Vec<String> {
    let standing: Vec<String> = before["rules"].as_array().into_iter().flatten().map(output::text).collect();
    let (always, timed): (Vec<String>, Vec<String>) = standing.into_iter().partition(|rule| rule.starts_with("always"));
    let named = [("lan_up", &set.lan_up), ("lan_down", &set.lan_down), ("wan_up", &set.wan_up), ("wan_down", &set.wan_down)];
    let words: Vec<String> = named.iter().filter_map(|(key, rate)| rate.as_ref().map(|rate| format!("{key}={rate}"))).collect();
    let mut rules = Vec::new();
    let base = always.iter().map(|rule| rule.trim_start_matches("always").trim().to_owned()).chain(words).collect::<Vec<_>>().join(" ");
    if !base.is_empty() {
        // Of two words for one thing the later wins.
        rules.push(format!("always {base}"));
    }
    rules.extend(if set.at.is_empty() { timed } else { set.at.clone() });
    rules
}

fn show(report: &Value) {
    let from = if report["from"] == "set" { "set with `pinfold limits set`" } else { "from pinfold.toml" };
    let rules: Vec<String> = report["rules"].as_array().into_iter().flatten().map(output::text).collect();
    if rules.is_empty() {
        println!("no limits ({from})");
    } else {
        println!("rules ({from}; hours are UTC{:+} min):", report["utc_offset_minutes"].as_i64().unwrap_or(0));
        rules.iter().for_each(|rule| println!("  {rule}"));
    }
    let rows: Vec<Vec<String>> = [("lan_up", "LAN up"), ("lan_down", "LAN down"), ("wan_up", "WAN up"), ("wan_down", "WAN down")]
        .iter()
        .map(|(key, name)| {
            let limit = if report["now"][key].is_null() { "none".to_owned() } else { format!("{}/s", output::size(&report["now"][key])) };
            vec![(*name).to_owned(), limit, output::size(&report["moved"][key])]
        })
        .collect();
    output::table(&["", "LIMIT NOW", "MOVED SINCE START"], &rows);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_named_stays() {
        let before = json!({ "rules": ["always wan_up=5 lan_up=7", "sun 00:00-24:00 wan_up=1"] });
        let set = |wan_up: Option<&str>, at: &[&str]| SetArgs {
            lan_up: None,
            lan_down: None,
            wan_up: wan_up.map(str::to_owned),
            wan_down: None,
            at: at.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(with(&before, &set(Some("9MB/s"), &[])), ["always wan_up=5 lan_up=7 wan_up=9MB/s", "sun 00:00-24:00 wan_up=1"]);
        assert_eq!(with(&before, &set(None, &["sat wan_up=2"])), ["always wan_up=5 lan_up=7", "sat wan_up=2"]);
        assert_eq!(with(&json!({}), &set(Some("1"), &[])), ["always wan_up=1"]);
    }
}
