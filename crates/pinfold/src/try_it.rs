//! `try`: three real peers on this machine keep a folder, and show who holds it and why.
//!
//! Three processes of this very binary, each with its own disk store and sockets, joined by invites as machines would be. They
//! end with this process, however it ends (their standard input closes).

mod children;
mod readback;

use crate::cli::{TryArgs, Wish};
use crate::client::{Client, escape};
use crate::commands::add;
use crate::output;
use crate::units::show_duration;
use crate::upload::{self, Extent, Walk};
use anyhow::{Context, bail};
use children::{Child, Folder};
use hyper::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NAMES: [&str; 3] = ["one", "two", "three"];
/// How long the peers may take to see each other.
const MEETING: Duration = Duration::from_secs(60);
/// How long the demo waits for its repair.
const REPAIR: Duration = Duration::from_secs(300);

/// `pinfold try`
pub async fn run(args: TryArgs) -> anyhow::Result<()> {
    let extent = upload::measure(std::slice::from_ref(&args.folder), Walk::default())?;
    let mut signals = crate::up::Signals::listen()?;
    let folder = Folder::new(args.dir.clone())?;
    let talk = Talk { json: args.json };
    talk.say("starting three peers on this machine ...");
    let mut peers = tokio::select! {
        peers = start_peers(&folder) => peers?,
        () = signals.asked() => return Ok(()),
    };
    let outcome = tokio::select! {
        outcome = keep(&args, extent, &mut peers, talk) => outcome,
        () = signals.asked() => Ok(()),
    };
    talk.say("stopping the peers ...");
    for peer in peers {
        peer.stop().await;
    }
    if args.dir.is_some() {
        talk.say(&format!("their data stays in {}", folder.path().display()));
    }
    outcome
}

/// Text for people; silent for scripts.
#[derive(Clone, Copy)]
struct Talk {
    json: bool,
}

impl Talk {
    fn say(self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }
}

async fn start_peers(folder: &Folder) -> anyhow::Result<Vec<Child>> {
    let first = Child::start(folder, NAMES[0], None).await?;
    let client = Client::new(&first.api)?;
    let mut peers = vec![first];
    for name in &NAMES[1..] {
        let answer = client.json(Method::POST, "/pinfold/v1/invite?ttl=600s").await?.unwrap_or_default();
        let invite = answer["invite"].as_str().context("the first peer gave no invite")?;
        peers.push(Child::start(folder, name, Some(invite)).await?);
    }
    let begun = Instant::now();
    for peer in &peers {
        let client = Client::new(&peer.api)?;
        loop {
            let seen = client.json(Method::GET, "/pinfold/v1/peers").await?.unwrap_or_default();
            let up = seen.as_array().into_iter().flatten().filter(|row| row["health"] == "up").count();
            if up == peers.len() {
                break;
            }
            if begun.elapsed() > MEETING {
                bail!("the peers do not see each other after {}: look into {}", show_duration(MEETING), folder.path().display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // The last hello, which names a peer's node to the others, may still be on its way.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(peers)
}

async fn keep(args: &TryArgs, extent: Extent, peers: &mut [Child], talk: Talk) -> anyhow::Result<()> {
    let client = Client::new(&peers[0].api)?;
    let name = args.folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let wish = Wish { copies: Some(args.copies.to_string()), name, ..Wish::default() };
    talk.say(&format!(
        "adding {} ({} in {} files), {} copies",
        args.folder.display(),
        types::ByteCount(extent.bytes),
        extent.files,
        args.copies
    ));
    let query =
        format!("/add?stream-channels=true&cid-version=1&raw-leaves=true{}{}", add::wish_query(&wish)?, add::expected_size(extent.bytes));
    let upload = upload::of_paths(vec![args.folder.clone()], Walk::default());
    let added = add::send(&client, &query, upload, Some(extent.bytes), |_| {}).await?;
    let rate = types::ByteCount((added.bytes as f64 / added.took.as_secs_f64().max(0.001)) as u64);
    talk.say(&format!("added in {} ({rate}/s); waiting for {} confirmed copies ...", show_duration(added.took), args.copies));
    add::wait_copies(&client, &added.root, args.copies).await?;
    let why = explain(&client, &added.root).await?;
    if args.once {
        talk.say("reading every byte back from each holder ...");
        for peer in peers.iter().filter(|peer| holds(&why, &peer.id)) {
            readback::compare(&args.folder, &added.root, peer).await.with_context(|| format!("comparing the copy of {}", peer.name))?;
        }
    }
    let gateway = format!("{}/ipfs/{}", peers[0].gateway, added.root);
    if args.json {
        let apis: Vec<&str> = peers.iter().map(|peer| peer.api.as_str()).collect();
        output::json_line(&json!({
            "root": added.root, "bytes": added.bytes, "files": added.files, "copies": copies(&why), "gateway": gateway, "apis": apis,
            "compared": args.once,
        }));
    } else {
        show(&added.root, &why, &gateway, &peers[0].api, args.once);
    }
    if args.demo_failure {
        demo_failure(&added.root, &why, args.copies, peers, talk).await?;
    }
    if args.once {
        return Ok(());
    }
    talk.say("running until Ctrl-C");
    std::future::pending().await
}

async fn explain(client: &Client, root: &str) -> anyhow::Result<Value> {
    Ok(client.json(Method::GET, &format!("/pinfold/v1/why/{}", escape(root))).await?.unwrap_or_default())
}

fn holds(why: &Value, peer: &str) -> bool {
    why["peers"].as_array().into_iter().flatten().any(|row| row["peer"] == peer && row["state"] == "pinned")
}

/// The rows of those who hold it or should.
fn copies(why: &Value) -> Vec<Value> {
    let placed = why["peers"].as_array().into_iter().flatten().filter(|row| row["placed"] == true);
    placed.map(|row| json!({"peer": row["peer"], "name": row["name"], "state": row["state"], "reason": row["reason"]})).collect()
}

fn show(root: &str, why: &Value, gateway: &str, api: &str, compared: bool) {
    println!("root      {root}");
    println!("          {}", output::text(&why["summary"]));
    let row = |row: &Value| vec![output::text(&row["name"]), output::text(&row["state"]), output::text(&row["reason"])];
    let rows: Vec<Vec<String>> = why["peers"].as_array().into_iter().flatten().map(row).collect();
    output::table(&["PEER", "STATE", "WHY"], &rows);
    if compared {
        println!("every byte was read back from each holder and is equal");
    }
    println!("gateway   {gateway}");
    println!("status    {api}/");
}

/// Kills one holder and shows the repair.
async fn demo_failure(root: &str, why: &Value, copies: u32, peers: &mut [Child], talk: Talk) -> anyhow::Result<()> {
    if copies as usize >= peers.len() {
        bail!("with {copies} copies on {} peers no other peer could take a lost copy: try --copies 2", peers.len());
    }
    // The first peer answers our questions, so another holder dies if there is one.
    let victim = peers.iter().rposition(|peer| holds(why, &peer.id)).context("nobody holds it")?;
    let survivor = (0..peers.len()).find(|index| *index != victim).context("no peer is left")?;
    talk.say(&format!("killing {} (kill -9) ...", peers[victim].name));
    peers[victim].kill().await;
    let client = Client::new(&peers[survivor].api)?;
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        let why = explain(&client, root).await?;
        let summary = output::text(&why["summary"]);
        if summary != last {
            talk.say(&format!("  {:>6}  {summary}", show_duration(begun.elapsed())));
            last = summary;
        }
        let alive = peers.iter().enumerate().filter(|(index, peer)| *index != victim && holds(&why, &peer.id)).count();
        if alive as u32 >= copies {
            talk.say(&format!("{copies} copies exist again after {}", show_duration(begun.elapsed())));
            return Ok(());
        }
        if begun.elapsed() > REPAIR {
            bail!("the lost copy was not replaced within {}", show_duration(REPAIR));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
