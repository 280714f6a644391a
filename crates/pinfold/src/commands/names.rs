//! `pinfold name`: publishing, following, and records as files.

use crate::cli::Target;
use crate::client::{self, Client, escape};
use crate::output;
use crate::units::parse_duration;
use anyhow::Context;
use clap::{Args, Subcommand};
use http_body_util::{BodyExt, Full};
use hyper::Method;
use serde_json::Value;
use std::path::PathBuf;

/// `pinfold name ...`
#[derive(Debug, Subcommand)]
pub enum NameCommand {
    /// Say where the name of a key leads. Every member answers for it; this peer renews it while it runs.
    #[command(
        after_help = "Examples:\n  pinfold name publish /ipfs/<cid>\n  pinfold name publish /ipfs/<cid>/site --key site --lifetime 7d --ttl 1m\n  pinfold name publish /ipns/k51... --key alias"
    )]
    Publish(PublishArgs),
    /// Follow a name (of a key, or a domain name with a DNSLink) to content.
    #[command(
        after_help = "Examples:\n  pinfold name resolve k51...\n  pinfold name resolve docs.example.org --json\n  pinfold name resolve k51... --recursive=false"
    )]
    Resolve(ResolveArgs),
    /// What this peer has published, and until when it holds.
    #[command(after_help = "Examples:\n  pinfold name ls\n  pinfold name ls --json")]
    Ls {
        /// The peer.
        #[command(flatten)]
        target: Target,
    },
    /// Write the signed record of a name to a file; `ipfs name inspect` and `ipfs routing put` read it.
    #[command(after_help = "Examples:\n  pinfold name get k51... -o site.ipns-record")]
    Get {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The name.
        name: String,
        /// Where to; `-` is standard output.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Take a signed record of somebody else's name, so that every member answers for it; nobody here can renew it.
    #[command(after_help = "Examples:\n  ipfs routing get /ipns/k51... > their.record && pinfold name put k51... their.record")]
    Put {
        /// The peer.
        #[command(flatten)]
        target: Target,
        /// The name.
        name: String,
        /// The record.
        file: PathBuf,
    },
}

/// `pinfold name publish`
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The peer.
    #[command(flatten)]
    pub target: Target,
    /// /ipfs/CID/path, /ipns/NAME, or a CID.
    pub path: String,
    /// The key: what it is called, or its IPNS name.
    #[arg(short, long, default_value = "self")]
    pub key: String,
    /// How long the record may be believed (s, m, h, d).
    #[arg(short = 't', long, default_value = "48h")]
    pub lifetime: String,
    /// For how long it may be taken for true without another look (default 5m).
    #[arg(long)]
    pub ttl: Option<String>,
    /// The version of the record; default: one more where the value differs.
    #[arg(long)]
    pub sequence: Option<u64>,
    /// Follow the path first, and publish only what leads somewhere.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub resolve: bool,
}

/// `pinfold name resolve`
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The peer.
    #[command(flatten)]
    pub target: Target,
    /// The name, with or without /ipns/.
    pub name: String,
    /// Until content comes; otherwise only the next step.
    #[arg(
        short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true
    )]
    pub recursive: bool,
    /// Ask routing even where a member has a record.
    #[arg(long)]
    pub refresh: bool,
}

/// `pinfold name`
pub async fn run(command: NameCommand) -> anyhow::Result<()> {
    match command {
        NameCommand::Publish(args) => publish(args).await,
        NameCommand::Resolve(args) => resolve(args).await,
        NameCommand::Ls { target } => list(&target).await,
        NameCommand::Get { target, name, output } => get(&target, &name, output).await,
        NameCommand::Put { target, name, file } => put(&target, &name, file).await,
    }
}

async fn publish(args: PublishArgs) -> anyhow::Result<()> {
    let seconds = |text: &str| anyhow::Ok(format!("{}s", parse_duration(text)?.as_secs()));
    let mut query = format!("key={}&path={}&lifetime={}", escape(&args.key), escape(&args.path), seconds(&args.lifetime)?);
    if let Some(ttl) = &args.ttl {
        query.push_str(&format!("&ttl={}", seconds(ttl)?));
    }
    if let Some(sequence) = args.sequence {
        query.push_str(&format!("&sequence={sequence}"));
    }
    query.push_str(&format!("&resolve={}", args.resolve));
    let client = Client::new(&args.target.api)?;
    let published = client.json(Method::POST, &format!("/pinfold/v1/names?{query}")).await?.unwrap_or_default();
    show(&published, args.target.json);
    Ok(())
}

fn show(published: &Value, as_json: bool) {
    if as_json {
        output::json_line(published);
        return;
    }
    println!("/ipns/{} leads to {}", output::text(&published["name"]), output::text(&published["value"]));
    println!("  sequence {}, valid until {}", published["sequence"], output::text(&published["validity"]));
    let told = published["told"].as_array().cloned().unwrap_or_default();
    if told.is_empty() {
        println!("  every member of this cluster answers for it; no routing is set up that would tell others");
    }
    for told in told {
        match told["error"].as_str() {
            None => println!("  told: {}", output::text(&told["router"])),
            Some(error) => println!("  not told: {}: {error}", output::text(&told["router"])),
        }
    }
}

async fn resolve(args: ResolveArgs) -> anyhow::Result<()> {
    let typed = args.name.trim_start_matches("/ipns/").trim_end_matches('/');
    let (name, rest) = typed.split_once('/').unwrap_or((typed, ""));
    let path = format!("/pinfold/v1/names/{}?recursive={}&refresh={}", escape(name), args.recursive, args.refresh);
    let mut answer = Client::new(&args.target.api)?.json(Method::GET, &path).await?.unwrap_or_default();
    if !rest.is_empty() {
        answer["path"] = format!("{}/{rest}", output::text(&answer["path"]).trim_end_matches('/')).into();
    }
    if args.target.json {
        output::json_line(&answer);
    } else {
        println!("{}", output::shown(output::text(&answer["path"]).as_bytes()));
    }
    Ok(())
}

async fn list(target: &Target) -> anyhow::Result<()> {
    let answer = Client::new(&target.api)?.json(Method::GET, "/pinfold/v1/names").await?.unwrap_or_default();
    let names = answer["names"].as_array().cloned().unwrap_or_default();
    if target.json {
        names.iter().for_each(output::json_line);
        return Ok(());
    }
    let row = |name: &Value| {
        let key = match name["key"].as_str() {
            Some(key) => output::shown(key.as_bytes()),
            None => "(no key here)".to_owned(),
        };
        let until = output::text(&name["validity"]);
        let until = if name["ended"] == true { format!("{until} (ended)") } else { until };
        let value = output::shown(output::text(&name["value"]).as_bytes());
        vec![key, output::text(&name["name"]), output::text(&name["sequence"]), until, value]
    };
    output::table(&["KEY", "NAME", "SEQUENCE", "VALID UNTIL", "LEADS TO"], &names.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

fn record_path(name: &str) -> String {
    format!("/pinfold/v1/records/{}", escape(name.trim_start_matches("/ipns/")))
}

async fn get(target: &Target, name: &str, to: PathBuf) -> anyhow::Result<()> {
    let answer = Client::new(&target.api)?.ask(Method::GET, &record_path(name), client::empty()).await?;
    let record = answer.into_body().collect().await.context("reading the record")?.to_bytes();
    if to.as_os_str() == "-" {
        use std::io::Write;
        return std::io::stdout().write_all(&record).context("writing to standard output");
    }
    std::fs::write(&to, &record).with_context(|| format!("writing {}", to.display()))
}

async fn put(target: &Target, name: &str, file: PathBuf) -> anyhow::Result<()> {
    let record = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let body = Full::new(bytes::Bytes::from(record)).map_err(|never| match never {}).boxed_unsync();
    let answer = Client::new(&target.api)?.ask(Method::POST, &record_path(name), body).await?;
    let answer = answer.into_body().collect().await.context("reading the answer")?.to_bytes();
    show(&serde_json::from_slice(&answer).context("reading the answer")?, target.json);
    Ok(())
}
