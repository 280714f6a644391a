//! `status`, `why`, `peers`, `recover`, `invite`, `leave`, `removals`: how the cluster stands.

use crate::cli::Target;
use crate::client::{self, Client, escape};
use crate::output;
use crate::units::parse_duration;
use anyhow::Context;
use hyper::Method;
use serde_json::{Value, json};

/// `pinfold status`
pub async fn status(target: &Target, cid: Option<String>, filter: Option<String>, shards: bool) -> anyhow::Result<()> {
    let client = Client::new(&target.api)?;
    if let Some(cid) = cid {
        let pin = client.json(Method::GET, &format!("/pins/{}", escape(&cid))).await?.unwrap_or_default();
        if target.json {
            output::json_line(&pin);
        } else {
            println!("{} {}", output::text(&pin["cid"]), output::text(&pin["name"]));
            output::table(&["PEER", "STATE", "REASON"], &copies(&pin));
            if shards {
                let why = client.json(Method::GET, &format!("/pinfold/v1/why/{}", escape(&cid))).await?.unwrap_or_default();
                output::table(&SHARD_HEADING, &shard_rows(&why, false));
            }
        }
        return Ok(());
    }
    if !target.json && filter.is_none() {
        summary(&client).await?;
    }
    let mut query = format!("?shards={shards}");
    query.push_str(&filter.map(|filter| format!("&filter={}", escape(&filter))).unwrap_or_default());
    let mut rows = Vec::new();
    client
        .lines(Method::GET, &format!("/pins{query}"), client::empty(), &[], |pin| {
            if target.json {
                output::json_line(&pin);
            } else {
                for copy in copies(&pin) {
                    if copy[1] != "remote" {
                        rows.push([vec![output::short(&output::text(&pin["cid"])), output::text(&pin["name"])], copy].concat());
                    }
                }
            }
            Ok(())
        })
        .await?;
    output::table(&["CID", "NAME", "PEER", "STATE", "REASON"], &rows);
    Ok(())
}

async fn summary(client: &Client) -> anyhow::Result<()> {
    let totals = client.json(Method::GET, "/pinfold/v1/status").await?.unwrap_or_default();
    let number = |key: &str| totals[key].as_u64().unwrap_or(0);
    println!("{} pins, {} short of copies, {} copies waiting", number("pins"), number("short"), number("waiting"));
    for reason in totals["reasons"].as_array().into_iter().flatten() {
        println!("note: {}", output::text(reason));
    }
    Ok(())
}

fn copies(pin: &Value) -> Vec<Vec<String>> {
    let Some(peers) = pin["peer_map"].as_object() else { return Vec::new() };
    let row = |(peer, copy): (&String, &Value)| {
        let name = output::text(&copy["peername"]);
        let name = if name.is_empty() { output::short(peer) } else { name };
        vec![name, output::text(&copy["status"]), output::text(&copy["error"])]
    };
    peers.iter().map(row).collect()
}

const SHARD_HEADING: [&str; 5] = ["SHARD", "CID", "BYTES", "COPIES", "TROUBLE"];

/// The shards of a root, or those with troubles.
fn shard_rows(why: &Value, only_troubled: bool) -> Vec<Vec<String>> {
    let shards = why["shards"].as_array().into_iter().flatten();
    let shown = shards.filter(|shard| !only_troubled || shard["trouble"].is_string());
    let row = |shard: &Value| {
        let copies = format!("{} of {}", shard["confirmed"], shard["least"]);
        vec![
            output::text(&shard["name"]),
            output::short(&output::text(&shard["cid"])),
            output::size(&shard["bytes"]),
            copies,
            output::text(&shard["trouble"]),
        ]
    };
    shown.map(row).collect()
}

/// `pinfold why`
pub async fn why(target: &Target, cid: &str) -> anyhow::Result<()> {
    let why = Client::new(&target.api)?.json(Method::GET, &format!("/pinfold/v1/why/{}", escape(cid))).await?.unwrap_or_default();
    if target.json {
        output::json_line(&why);
        return Ok(());
    }
    println!("{}", output::text(&why["summary"]));
    println!("class: {}", output::text(&why["class"]));
    let rows: Vec<Vec<String>> = why["peers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|peer| {
            let placed = if peer["placed"].as_bool() == Some(true) { "yes" } else { "no" };
            vec![output::text(&peer["name"]), placed.to_owned(), output::text(&peer["state"]), output::text(&peer["reason"])]
        })
        .collect();
    output::table(&["PEER", "PLACED", "STATE", "REASON"], &rows);
    let troubled = shard_rows(&why, true);
    if !troubled.is_empty() {
        output::table(&SHARD_HEADING, &troubled);
    }
    for step in why["next"].as_array().into_iter().flatten() {
        println!("next: {}{}", output::text(&step["what"]), step["at"].as_str().map(|at| format!(" at {at}")).unwrap_or_default());
    }
    Ok(())
}

/// `pinfold peers`
pub async fn peers(target: &Target) -> anyhow::Result<()> {
    let peers = Client::new(&target.api)?.json(Method::GET, "/pinfold/v1/peers").await?.unwrap_or_default();
    let list = peers.as_array().cloned().unwrap_or_default();
    if target.json {
        list.iter().for_each(output::json_line);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = list
        .iter()
        .map(|peer| {
            let limit = peer["space"]["limit"].as_u64().unwrap_or(0);
            let space = if peer["kind"] == "go" {
                peer["space"]["free"].as_u64().map(|free| format!("{} free", types::ByteCount(free))).unwrap_or_default()
            } else if limit == 0 || limit == u64::MAX {
                output::size(&peer["space"]["used"])
            } else {
                let reserved = output::size(&peer["space"]["reserved"]);
                let forecast = peer["space"]["forecast"].as_str().map(|words| format!(", {words}")).unwrap_or_default();
                format!("{} of {}, {reserved} reserved{forecast}", output::size(&peer["space"]["used"]), types::ByteCount(limit))
            };
            let own = if peer["self"].as_bool() == Some(true) { " (this one)" } else { "" };
            vec![
                format!("{}{own}{}", output::text(&peer["name"]), if peer["kind"] == "go" { " (Go)" } else { "" }),
                output::text(&peer["health"]),
                if peer["self"].as_bool() == Some(true) { String::new() } else { age(&peer["heard_ms_ago"]) },
                space,
                output::text(&peer["exceptions"]),
                output::text(&peer["way"]["words"]),
                output::text(&peer["peer"]),
            ]
        })
        .collect();
    output::table(&["NAME", "HEALTH", "HEARD", "SPACE", "WAITING", "REACHED", "PEER"], &rows);
    let own = list.iter().find(|peer| peer["self"].as_bool() == Some(true)).map(|own| output::text(&own["peer"])).unwrap_or_default();
    for go in list.iter().filter(|peer| peer["kind"] == "go") {
        let name = output::text(&go["name"]);
        if go["trusts_us"].as_bool() == Some(false) {
            println!("{name} does not take what this peer writes: put {own} into its trusted_peers (service.json)");
        }
        if go["is_trusted"].as_bool() == Some(false) {
            println!("what {name} writes is not taken here: put its id into trusted_peers in pinfold.toml, if it should be");
        }
    }
    Ok(())
}

/// How old the last word of a peer is.
fn age(millis: &Value) -> String {
    match millis.as_u64() {
        None => "never".to_owned(),
        Some(millis) if millis < 120_000 => format!("{} s ago", millis / 1000),
        Some(millis) if millis < 120 * 60_000 => format!("{} min ago", millis / 60_000),
        Some(millis) => format!("{} h ago", millis / 3_600_000),
    }
}

/// `pinfold recover`
pub async fn recover(target: &Target, cid: Option<String>) -> anyhow::Result<()> {
    let client = Client::new(&target.api)?;
    let path = match &cid {
        Some(cid) => format!("/pins/{}/recover", escape(cid)),
        None => "/pins/recover".to_owned(),
    };
    let mut count = 0;
    client
        .lines(Method::POST, &path, client::empty(), &[], |line| {
            count += 1;
            if target.json {
                output::json_line(&line);
            }
            Ok(())
        })
        .await?;
    if !target.json {
        println!("{count} pins are tried again");
    }
    Ok(())
}

/// `pinfold invite`: the invite is the last line.
pub async fn invite(target: &Target, ttl: &str) -> anyhow::Result<()> {
    let seconds = parse_duration(ttl)?.as_secs().max(1);
    let answer = Client::new(&target.api)?.json(Method::POST, &format!("/pinfold/v1/invite?ttl={seconds}s")).await?.unwrap_or_default();
    let invite = answer["invite"].as_str().context("the peer gave no invite")?;
    if target.json {
        output::json_line(&json!({"invite": invite, "expires_in_seconds": seconds}));
    } else {
        eprintln!("good for one peer, within {ttl}; whoever has this line can join, so send it as you would a password");
        println!("{invite}");
    }
    Ok(())
}

/// `pinfold leave`
pub async fn leave(target: &Target, purge: bool, force: bool) -> anyhow::Result<()> {
    if !target.json {
        eprintln!("handing the copies over ...");
    }
    let answer =
        Client::new(&target.api)?.json(Method::POST, &format!("/pinfold/v1/leave?purge={purge}&force={force}")).await?.unwrap_or_default();
    let stranded = answer["stranded"].as_u64().unwrap_or(0);
    if target.json {
        output::json_line(&json!({"left": true, "stranded": stranded, "purged": purge}));
    } else if stranded == 0 {
        println!("left: every copy is held by others; this peer stops");
    } else {
        println!("left: {stranded} copies could go nowhere and stay only here; this peer stops");
    }
    Ok(())
}

/// `pinfold removals approve`
pub async fn approve(target: &Target) -> anyhow::Result<()> {
    Client::new(&target.api)?.json(Method::POST, "/pinfold/v1/removals/approve").await?;
    if target.json {
        output::json_line(&json!({"approved": true}));
    } else {
        println!("approved: the removals go on");
    }
    Ok(())
}
