//! `pin add|rm|ls|update`: the wish itself.

use super::add::{wait_copies, wish_query};
use crate::cli::PinCommand;
use crate::client::{self, Client, escape};
use crate::output;
use hyper::Method;
use serde_json::{Value, json};

/// `pinfold pin ...`
pub async fn run(command: PinCommand) -> anyhow::Result<()> {
    match command {
        PinCommand::Add { target, path, wish, owner, direct, origin, wait } => {
            let client = Client::new(&target.api)?;
            let mut query = wish_query(&wish)?;
            if direct {
                query.push_str("&mode=direct");
            }
            if let Some(owner) = &owner {
                query.push_str(&format!("&owner={}", escape(owner)));
            }
            if !origin.is_empty() {
                query.push_str(&format!("&origins={}", escape(&origin.join(","))));
            }
            // A name is followed by the peer; what is pinned is where it leads at this moment.
            let (kind, content) = match path.strip_prefix("/ipns/") {
                Some(named) => ("ipns", named),
                None => ("ipfs", path.strip_prefix("/ipfs/").unwrap_or(&path)),
            };
            let content = content.split('/').map(escape).collect::<Vec<_>>().join("/");
            let asked = format!("/pins/{kind}/{content}?{}", query.trim_start_matches('&'));
            let pin = client.json(Method::POST, &asked).await?.unwrap_or_default();
            let cid = output::text(&pin["cid"]);
            let confirmed = match wait {
                Some(copies) => wait_copies(&client, &cid, copies).await?,
                None => 0,
            };
            if target.json {
                let mut pin = pin;
                pin["confirmed"] = json!(confirmed);
                output::json_line(&pin);
            } else {
                println!("pinned {cid}, {}", holders(&pin));
            }
        }
        PinCommand::Rm { target, cid, owner, name } => {
            let client = Client::new(&target.api)?;
            let given =
                [("owner", owner), ("name", name)].into_iter().filter_map(|(key, value)| Some(format!("{key}={}", escape(&value?))));
            let query = given.collect::<Vec<_>>().join("&");
            let pin = client.json(Method::DELETE, &format!("/pins/{}?{query}", escape(&cid))).await?.unwrap_or_default();
            if target.json {
                output::json_line(&pin);
            } else {
                println!("unpinned {cid}");
            }
        }
        PinCommand::Ls { target, cid, owner: Some(owner), .. } => {
            let client = Client::new(&target.api)?;
            let of = cid.map(|cid| format!("&cid={}", escape(&cid))).unwrap_or_default();
            let mut rows = Vec::new();
            client
                .lines(Method::GET, &format!("/pinfold/v1/claims?owner={}{of}", escape(&owner)), client::empty(), &[], |claim| {
                    if target.json {
                        output::json_line(&claim);
                    } else {
                        rows.push(vec![output::text(&claim["name"]), output::text(&claim["cid"]), copies(&claim)]);
                    }
                    Ok(())
                })
                .await?;
            output::table(&["NAME", "CID", "COPIES"], &rows);
        }
        PinCommand::Ls { target, cid: Some(cid), .. } => {
            let pin = Client::new(&target.api)?.json(Method::GET, &format!("/allocations/{}", escape(&cid))).await?.unwrap_or_default();
            if target.json {
                output::json_line(&pin);
            } else {
                output::table(&HEADING, &[row(&pin)]);
            }
        }
        PinCommand::Ls { target, cid: None, shards, .. } => {
            let client = Client::new(&target.api)?;
            let mut rows = Vec::new();
            client
                .lines(Method::GET, if shards { "/allocations?shards=true" } else { "/allocations" }, client::empty(), &[], |pin| {
                    if target.json {
                        output::json_line(&pin);
                    } else {
                        rows.push(row(&pin));
                    }
                    Ok(())
                })
                .await?;
            output::table(&HEADING, &rows);
        }
        PinCommand::Update { target, from, to, keep_old } => {
            let client = Client::new(&target.api)?;
            let pin = client.json(Method::POST, &format!("/pins/{}?pin-update={}", escape(&to), escape(&from))).await?.unwrap_or_default();
            if !keep_old {
                client.json(Method::DELETE, &format!("/pins/{}", escape(&from))).await?;
            }
            if target.json {
                output::json_line(&pin);
            } else {
                println!("{from} -> {to}, {}", holders(&pin));
            }
        }
    }
    Ok(())
}

const HEADING: [&str; 4] = ["CID", "COPIES", "ADDED", "NAME"];

fn copies(pin: &Value) -> String {
    match (pin["replication_factor_min"].as_i64(), pin["replication_factor_max"].as_i64()) {
        (Some(-1), _) => "all".to_owned(),
        // A claim that leaves it to the cluster.
        (Some(0), Some(0)) => "default".to_owned(),
        (Some(least), Some(most)) if least == most => least.to_string(),
        (least, most) => format!("{}..{}", least.unwrap_or(0), most.unwrap_or(0)),
    }
}

fn row(pin: &Value) -> Vec<String> {
    let added = output::text(&pin["timestamp"]).chars().take(19).collect::<String>().replace('T', " ");
    vec![output::text(&pin["cid"]), copies(pin), added, output::text(&pin["name"])]
}

fn holders(pin: &Value) -> String {
    if let Some(shards) = pin["metadata"]["shards"].as_str().filter(|_| pin["type"] == "meta-pin") {
        return format!("{shards} shards");
    }
    match pin["allocations"].as_array() {
        Some(peers) if !peers.is_empty() => format!("{} holders", peers.len()),
        _ => "on every peer".to_owned(),
    }
}
