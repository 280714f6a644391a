//! `pinfold routing`: who has content among strangers, where nodes are, what they are told of this peer, and how servers over HTTP do.

use crate::cli::Target;
use crate::client::{Client, escape};
use crate::output;
use anyhow::bail;
use clap::Subcommand;
use hyper::Method;
use serde_json::Value;

/// `pinfold routing ...`
#[derive(Debug, Subcommand)]
pub enum RoutingCommand {
    /// How this peer takes part in the DHT, how far telling it of what is here has come, and how routers and gateways over HTTP do.
    #[command(after_help = "Examples:\n  pinfold routing status\n  pinfold routing status --json")]
    Status {
        /// The peer.
        #[command(flatten)]
        target: Target,
    },
    /// Who has content, as the DHT and delegated routers say. Exit code 1 when nobody is found.
    #[command(after_help = "Examples:\n  pinfold routing findprovs <cid>\n  pinfold routing findprovs <cid> --most 5 --json")]
    Findprovs {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The content.
        cid: String,
        /// So many at most.
        #[arg(long, default_value_t = 20)]
        most: usize,
    },
    /// Where a node is.
    #[command(after_help = "Examples:\n  pinfold routing findpeer 12D3Koo...")]
    Findpeer {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The node's id.
        node: String,
    },
    /// Tell the DHT at once that a block is here (only this one; what is stored is told by itself).
    #[command(after_help = "Examples:\n  pinfold routing provide <cid>")]
    Provide {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The block.
        cid: String,
    },
}

/// `pinfold routing`
pub async fn run(command: RoutingCommand) -> anyhow::Result<()> {
    match command {
        RoutingCommand::Status { target } => status(&target).await,
        RoutingCommand::Findprovs { target, cid, most } => {
            let path = format!("/pinfold/v1/routing/providers/{}?most={most}", escape(&cid));
            let found = Client::new(&target.api)?.json(Method::GET, &path).await?.unwrap_or_default();
            let rows = found.as_array().cloned().unwrap_or_default();
            if target.json {
                output::json_line(&found);
            } else {
                rows.iter().for_each(show_node);
            }
            if rows.is_empty() {
                bail!("nobody who was asked knows a provider of {cid}: `pinfold routing status` says who can be asked");
            }
            Ok(())
        }
        RoutingCommand::Findpeer { target, node } => {
            let path = format!("/pinfold/v1/routing/peer/{}", escape(&node));
            let found = Client::new(&target.api)?.json(Method::GET, &path).await?.unwrap_or_default();
            if target.json {
                output::json_line(&found);
            } else {
                show_node(&found);
            }
            Ok(())
        }
        RoutingCommand::Provide { target, cid } => {
            let path = format!("/pinfold/v1/routing/provide/{}", escape(&cid));
            let told = Client::new(&target.api)?.json(Method::POST, &path).await?.unwrap_or_default();
            if target.json {
                output::json_line(&told);
            } else {
                println!("{} peers of the DHT know that {cid} is here", told["records"]);
            }
            if told["records"] == 0 {
                bail!("no peer of the DHT took it: `pinfold routing status` says how many are known");
            }
            Ok(())
        }
    }
}

async fn status(target: &Target) -> anyhow::Result<()> {
    let status = Client::new(&target.api)?.json(Method::GET, "/pinfold/v1/routing").await?.unwrap_or_default();
    if target.json {
        output::json_line(&status);
        return Ok(());
    }
    if status["on"] != true {
        println!(
            "off: name peers to begin with under [routing] in pinfold.toml, or \"public\", or servers (delegated, gateways), and start again"
        );
        return Ok(());
    }
    for dht in status["dht"].as_array().into_iter().flatten() {
        let role = match (dht["server"] == true, dht["reachable"] == true) {
            (true, _) => "answers others",
            (false, true) => "only asks",
            (false, false) => "only asks; no address at which others could reach this node",
        };
        println!("{}: {} peers known; {role}", output::text(&dht["scope"]), dht["peers"]);
        println!("  kept for others: {} records of providers, {} of names", dht["records_kept"], dht["values_kept"]);
        let provide = &dht["provide"];
        let percent = (provide["passed"].as_f64().unwrap_or(0.0) * 100.0).floor();
        println!(
            "  telling ({}): {}; this round {percent}% passed, {} keys told by {} records and {} searches, {} taken by nobody; {} queued",
            output::text(&provide["strategy"]),
            output::text(&provide["phase"]),
            provide["keys"],
            provide["records"],
            provide["searches"],
            provide["failed"],
            provide["queued"],
        );
        println!("  last whole round: {}", provide["ended"].as_str().unwrap_or("never"));
    }
    if status["dht"].as_array().is_none_or(Vec::is_empty) {
        println!("DHT: off");
    }
    for (kind, key) in [("router", "routers"), ("gateway", "gateways")] {
        for server in status[key].as_array().into_iter().flatten() {
            show_server(kind, server);
        }
    }
    Ok(())
}

fn show_server(kind: &str, server: &Value) {
    let found = if server["found"] == true { " (named by a router)" } else { "" };
    let reason = server["reason"].as_str().unwrap_or_default();
    let state = match (server["until"].as_str(), reason) {
        (Some(until), reason) => format!("put aside until {until}: {reason}"),
        (None, "") => "ok".to_owned(),
        (None, reason) => format!("ok; last trouble: {reason}"),
    };
    println!("{kind} {}{found}: {state}", output::text(&server["url"]));
    let bytes = server["bytes"].as_u64().filter(|_| kind == "gateway").map(|bytes| format!(", {}", types::ByteCount(bytes)));
    println!(
        "  asked {} times: gave {}{}, had it not {}, failed {}",
        server["asked"],
        server["given"],
        bytes.unwrap_or_default(),
        server["missed"],
        server["failed"],
    );
}

fn show_node(node: &Value) {
    println!("{}", output::text(&node["node"]));
    for address in node["addresses"].as_array().into_iter().flatten() {
        println!("  {}", output::text(address));
    }
}
