//! `pinfold scrub`: the blocks of a peer are read again from its disk, and what is damaged is fetched again from others.

use crate::cli::Target;
use crate::client::Client;
use crate::output;
use crate::units::parse_rate;
use anyhow::bail;
use clap::Args;
use hyper::Method;
use serde_json::Value;
use std::time::Duration;

/// Flags of `pinfold scrub`.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    /// The peer.
    #[command(flatten)]
    pub target: Target,
    /// Begin a round now; without it only how far it is.
    #[arg(long, conflicts_with = "stop")]
    pub start: bool,
    /// End the round that is under way.
    #[arg(long)]
    pub stop: bool,
    /// Bytes read in a second, with --start (default: scrub_rate in pinfold.toml, 10MB/s).
    #[arg(long, value_name = "RATE", requires = "start")]
    pub rate: Option<String>,
    /// Wait until the round has ended; exit code 1 when something is lost then.
    #[arg(long)]
    pub wait: bool,
}

/// `pinfold scrub`
pub async fn run(args: ScrubArgs) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(300);
    let client = Client::new(&args.target.api)?;
    let rate = args.rate.as_deref().map(parse_rate).transpose()?;
    let path = rate.map_or_else(|| "/pinfold/v1/scrub".to_owned(), |rate| format!("/pinfold/v1/scrub?rate={}", rate.get()));
    let method = match (args.start, args.stop) {
        (true, _) => Method::POST,
        (_, true) => Method::DELETE,
        _ => Method::GET,
    };
    let mut report = client.json(method, &path).await?.unwrap_or_default();
    if args.wait {
        let bar = output::byte_bar(None);
        while report["phase"] != "idle" {
            bar.set_position(report["bytes"].as_u64().unwrap_or(0));
            tokio::time::sleep(LOOK).await;
            report = client.json(Method::GET, "/pinfold/v1/scrub").await?.unwrap_or_default();
        }
        bar.finish_and_clear();
    }
    if args.target.json {
        output::json_line(&report);
    } else {
        show(&report);
    }
    let broken = report["broken"].as_array().map_or(0, Vec::len);
    if args.wait && broken > 0 {
        bail!("{broken} pins are not whole on this peer: `pinfold status` says what each of them waits for");
    }
    Ok(())
}

fn show(report: &Value) {
    let number = |key: &str| report[key].as_u64().unwrap_or(0);
    let share = (number("blocks") * 100).checked_div(number("blocks_all")).unwrap_or(100).min(100);
    let size = output::size(&report["bytes"]);
    match report["phase"].as_str() {
        Some("blocks") => println!(
            "reading blocks: {} of {} ({share}%), {size} at up to {}/s",
            number("blocks"),
            number("blocks_all"),
            output::size(&report["rate"])
        ),
        Some("pins") => println!("walking pins: {} so far; {} blocks read before", number("pins"), number("blocks")),
        _ => {
            let time = |key: &str| report[key].as_str().unwrap_or("never").to_owned();
            println!(
                "idle; last round ended {}: {} blocks, {size}, {} pins; next {}",
                time("ended"),
                number("blocks"),
                number("pins"),
                time("next")
            );
        }
    }
    println!("damaged blocks found: {}, of these fetched again at once: {}", number("damaged"), number("restored"));
    let rows: Vec<Vec<String>> = report["broken"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|pin| vec![output::text(&pin["cid"]), output::text(&pin["missing"]), output::text(&pin["block"])])
        .collect();
    if rows.is_empty() {
        println!("every pin that was looked at is whole");
    } else {
        output::table(&["PIN NOT WHOLE", "MISSING", "ONE OF THEM"], &rows);
    }
}
