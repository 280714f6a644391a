//! `pinfold drain`, `cordon`, `uncordon`, `rebalance`, `plan`.

use crate::cli::Target;
use crate::client::{Client, escape};
use crate::output;
use crate::units::show_duration;
use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_secs(1);

/// `pinfold drain`
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The peer that is asked.
    #[command(flatten)]
    pub target: Target,
    /// Whose copies go elsewhere: a name, an id, or `self`.
    pub peer: String,
    /// Print the plan and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until nothing is left to hand over.
    #[arg(long)]
    pub wait: bool,
}

/// `pinfold cordon`, `pinfold uncordon`
#[derive(Debug, Args)]
pub struct PeerArgs {
    /// The peer that is asked.
    #[command(flatten)]
    pub target: Target,
    /// Which one: a name, an id, or `self`.
    pub peer: String,
}

/// `pinfold rebalance`
#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// The peer that is asked.
    #[command(flatten)]
    pub target: Target,
    /// Print the plan and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Stop: copies stay where they are, until `rebalance` or `rebalance --auto`.
    #[arg(long, conflicts_with_all = ["dry_run", "auto"])]
    pub stop: bool,
    /// Only when a peer is clearly off its share (the default of a cluster).
    #[arg(long, conflicts_with = "dry_run")]
    pub auto: bool,
}

/// `pinfold plan ...`
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// What draining a peer would do.
    #[command(after_help = "Examples:\n  pinfold plan drain nas1\n  pinfold plan drain self --json")]
    Drain(PeerArgs),
    /// What an even spread would take.
    #[command(after_help = "Examples:\n  pinfold plan rebalance")]
    Rebalance {
        /// The peer that is asked.
        #[command(flatten)]
        target: Target,
    },
}

/// Drains a peer, after showing the plan.
pub async fn drain(args: DrainArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.target.api)?;
    let plan = ask_plan(&client, &format!("/pinfold/v1/plan/drain/{}", escape(&args.peer))).await?;
    if args.dry_run {
        show(&plan, args.target.json);
        return Ok(());
    }
    if !args.target.json {
        print_plan(&plan);
    }
    let done = set_duty(&client, &args.peer, "drain").await?;
    let peer = output::text(&done["peer"]);
    if args.wait {
        wait_drained(&client, &peer, plan["bytes"].as_u64().unwrap_or(0)).await?;
    }
    if args.target.json {
        output::json_line(&json!({ "peer": peer, "duty": "draining", "done": args.wait, "plan": plan }));
    } else if args.wait {
        println!("drained: nothing more is left to hand over");
    } else {
        println!("draining; `pinfold peers` shows how far it is, `pinfold uncordon {}` stops it where it is", args.peer);
    }
    Ok(())
}

/// Waits until the peer has handed over everything that has somewhere to go.
async fn wait_drained(client: &Client, peer: &str, bytes: u64) -> anyhow::Result<()> {
    let bar: ProgressBar = output::byte_bar(Some(bytes));
    let path = format!("/pinfold/v1/plan/drain/{}", escape(peer));
    loop {
        let plan = ask_plan(client, &path).await?;
        let row = peer_row(client, peer).await?;
        anyhow::ensure!(row["duty"] == "draining", "the drain was turned back: {peer} is {} again", output::text(&row["duty"]));
        let left = plan["bytes"].as_u64().unwrap_or(0);
        bar.set_position(bytes.saturating_sub(left));
        let is_left = plan["moves"].as_u64().unwrap_or(0) + plan["dropped"].as_u64().unwrap_or(0) > 0;
        // A Go peer says nothing of copies on the move: its own stand in the plan until others have them.
        let is_moving = row["kind"] != "go" && row["load"]["moving"].as_u64().unwrap_or(1) > 0;
        if !is_left && !is_moving {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn peer_row(client: &Client, peer: &str) -> anyhow::Result<Value> {
    let peers = client.json(Method::GET, "/pinfold/v1/peers").await?.unwrap_or_default();
    let row = peers.as_array().into_iter().flatten().find(|row| row["peer"] == peer).cloned();
    row.with_context(|| format!("{peer} is no member any more"))
}

/// Takes no new copies, or is in use again.
pub async fn duty(args: PeerArgs, word: &str) -> anyhow::Result<()> {
    let done = set_duty(&Client::new(&args.target.api)?, &args.peer, word).await?;
    if args.target.json {
        output::json_line(&done);
    } else if word == "cordon" {
        println!("{} gets no new copies; what it has stays", args.peer);
    } else {
        println!("{} is in use: it takes and keeps copies", args.peer);
    }
    Ok(())
}

async fn set_duty(client: &Client, peer: &str, word: &str) -> anyhow::Result<Value> {
    let path = format!("/pinfold/v1/peers/{}/{word}", escape(peer));
    Ok(client.json(Method::POST, &path).await?.unwrap_or_default())
}

/// Spreads copies evenly, after showing the plan.
pub async fn rebalance(args: RebalanceArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.target.api)?;
    let (mode, words) = match (args.stop, args.auto) {
        (true, _) => ("off", "stopped: copies stay where they are"),
        (_, true) => ("auto", "copies move only when a peer is clearly off its share"),
        _ => ("now", "balancing; `pinfold peers` shows how far it is, `pinfold rebalance --stop` stops it where it is"),
    };
    let plan = if mode == "now" { Some(ask_plan(&client, "/pinfold/v1/plan/rebalance").await?) } else { None };
    if let Some(plan) = plan.as_ref().filter(|_| args.dry_run) {
        show(plan, args.target.json);
        return Ok(());
    }
    let done = client.json(Method::POST, &format!("/pinfold/v1/rebalance?mode={mode}")).await?.unwrap_or_default();
    if args.target.json {
        output::json_line(&json!({ "balancing": done["balancing"], "plan": plan }));
        return Ok(());
    }
    plan.iter().for_each(print_plan);
    println!("{words}");
    Ok(())
}

/// Shows a plan and changes nothing.
pub async fn plan(command: PlanCommand) -> anyhow::Result<()> {
    let (target, path) = match command {
        PlanCommand::Drain(args) => (args.target, format!("/pinfold/v1/plan/drain/{}", escape(&args.peer))),
        PlanCommand::Rebalance { target } => (target, "/pinfold/v1/plan/rebalance".to_owned()),
    };
    show(&ask_plan(&Client::new(&target.api)?, &path).await?, target.json);
    Ok(())
}

async fn ask_plan(client: &Client, path: &str) -> anyhow::Result<Value> {
    Ok(client.json(Method::GET, path).await?.unwrap_or_default())
}

fn show(plan: &Value, json: bool) {
    if json { output::json_line(plan) } else { print_plan(plan) }
}

fn print_plan(plan: &Value) {
    let number = |key: &str| plan[key].as_u64().unwrap_or(0);
    let list = |key: &str| plan[key].as_array().cloned().unwrap_or_default();
    if number("moves") + number("dropped") == 0 && list("stranded").is_empty() {
        println!("nothing is to be moved");
    } else {
        let time = show_duration(Duration::from_secs(number("seconds")));
        println!("{} copies move, {}, in about {time} at the limit that is set", number("moves"), output::size(&plan["bytes"]));
    }
    if number("dropped") > 0 {
        println!("{} copies are let go without a new one: enough others are there", number("dropped"));
    }
    if number("only_copies") > 0 {
        println!("{} of them are the only copies; they go first, and stay until the new ones are confirmed", number("only_copies"));
    }
    if number("estimated") > 0 {
        println!("sizes of {} copies are averages: ask a peer that holds them for exact ones", number("estimated"));
    }
    let name = |value: &Value, name: &str, id: &str| {
        let text = output::text(&value[name]);
        if text.is_empty() { output::short(&output::text(&value[id])) } else { text }
    };
    let rows: Vec<Vec<String>> = list("routes")
        .iter()
        .map(|route| {
            vec![
                name(route, "from_name", "from"),
                name(route, "to_name", "to"),
                output::text(&route["copies"]),
                output::size(&route["bytes"]),
            ]
        })
        .collect();
    output::table(&["FROM", "TO", "COPIES", "BYTES"], &rows);
    let fill = |peer: &Value, key: &str| match peer["limit"].as_u64() {
        Some(limit) if limit > 0 => {
            let used = peer[key].as_u64().unwrap_or(0);
            format!("{} ({:.0} %)", output::size(&peer[key]), used as f64 * 100.0 / limit as f64)
        }
        _ => output::size(&peer[key]),
    };
    let rows: Vec<Vec<String>> =
        list("peers").iter().map(|peer| vec![name(peer, "name", "peer"), fill(peer, "before"), fill(peer, "after")]).collect();
    output::table(&["PEER", "USED NOW", "AFTERWARDS"], &rows);
    for stranded in list("stranded") {
        println!(
            "{} copies ({}) stay: {}",
            output::text(&stranded["copies"]),
            output::size(&stranded["bytes"]),
            output::text(&stranded["why"])
        );
        for cid in stranded["examples"].as_array().into_iter().flatten() {
            println!("  {}", output::text(cid));
        }
    }
}
