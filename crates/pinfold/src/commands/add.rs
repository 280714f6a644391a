//! `add`: a file, a folder or standard input goes to the peer as one stream.

use crate::cli::{AddArgs, InputFormat, Wish};
use crate::client::{Client, escape};
use crate::output;
use crate::units::{parse_bytes, parse_duration};
use crate::upload::{self, Skipped, Upload, Walk};
use anyhow::{Context, bail};
use hyper::Method;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Query parameters for a wish, as the REST door takes them; begins with nothing, each pair with `&`.
pub fn wish_query(wish: &Wish) -> anyhow::Result<String> {
    let mut query = String::new();
    match wish.copies.as_deref() {
        None => {}
        Some("all") => query.push_str("&replication=-1"),
        Some(copies) => {
            let copies: u32 = copies
                .parse()
                .ok()
                .filter(|copies| *copies > 0)
                .with_context(|| format!("--copies {copies:?}: use a number from 1, or all"))?;
            query.push_str(&format!("&replication={copies}"));
        }
    }
    if let Some(name) = &wish.name {
        query.push_str(&format!("&name={}", escape(name)));
    }
    if let Some(span) = &wish.expire_in {
        query.push_str(&format!("&expire-in={}s", parse_duration(span)?.as_secs()));
    }
    for pair in &wish.meta {
        let (key, value) = pair.split_once('=').with_context(|| format!("--meta {pair:?}: write it as KEY=VALUE"))?;
        query.push_str(&format!("&meta-{}={}", escape(key), escape(value)));
    }
    Ok(query)
}

/// How files are to be imported. Without a profile the CID version is 1.
fn import_query(args: &AddArgs) -> String {
    let mut query = String::new();
    if let Some(profile) = &args.profile {
        query.push_str(&format!("&profile={}", escape(profile)));
    }
    if let Some(version) = args.cid_version.or(args.profile.is_none().then_some(1)) {
        query.push_str(&format!("&cid-version={version}"));
    }
    if let Some(chunker) = &args.chunker {
        query.push_str(&format!("&chunker={}", escape(chunker)));
    }
    query
}

/// Tells the peer how much will come: the content and 2% for the nodes above it.
pub fn expected_size(bytes: u64) -> String {
    format!("&expected-size={}", bytes.saturating_add(bytes / 50).saturating_add(64 << 10))
}

/// What an add gave.
#[derive(Debug, Clone)]
pub struct Added {
    /// The root.
    pub root: String,
    /// Bytes of file content sent.
    pub bytes: u64,
    /// Files sent.
    pub files: u64,
    /// How long it took.
    pub took: Duration,
}

/// `pinfold add`
pub async fn run(args: AddArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.target.api)?;
    let from_stdin = args.paths.iter().any(|path| path.as_os_str() == "-");
    if from_stdin && args.paths.len() > 1 {
        bail!("standard input (-) can only be added alone");
    }
    let is_car = args.format == InputFormat::Car;
    if is_car {
        check_car(&args)?;
    }
    let walk = Walk { no_hidden: args.no_hidden, dereference: args.dereference, skip_errors: args.skip_errors };
    let mut wish = args.wish.clone();
    let (upload, total) = if from_stdin {
        let name = wish.name.clone().unwrap_or_default();
        (upload::of_reader(std::io::stdin(), name), None)
    } else {
        if wish.name.is_none() && args.paths.len() == 1 {
            wish.name = args.paths[0].file_name().map(|name| name.to_string_lossy().into_owned());
        }
        let extent = upload::measure(&args.paths, walk)?;
        (upload::of_paths(args.paths.clone(), walk), Some(extent.bytes))
    };
    let mut query = "/add?stream-channels=true".to_owned();
    if is_car {
        query.push_str("&format=car");
    } else {
        query.push_str(&import_query(&args));
    }
    if args.wrap || args.paths.len() > 1 {
        query.push_str("&wrap-with-directory=true");
    }
    if args.no_pin {
        query.push_str("&no-pin=true");
    }
    if let Some(size) = &args.shard_size {
        query.push_str(&format!("&shard-size={}", parse_bytes(size).context("--shard-size")?.get()));
    }
    query.push_str(&wish_query(&wish)?);
    query.push_str(&total.map(expected_size).unwrap_or_default());
    let skipped = upload.skipped.clone();
    let show_lines = args.target.json || !args.quiet;
    let added = send(&client, &query, upload, total, |line| {
        if args.target.json {
            output::json_line(line);
        } else if show_lines {
            println!("added {} {}", output::text(&line["cid"]), output::text(&line["name"]));
        }
    })
    .await?;
    let wait = args.wait.unwrap_or(0);
    let confirmed = if wait > 0 { wait_copies(&client, &added.root, wait).await? } else { 0 };
    if args.target.json {
        let rate = (added.bytes as f64 / added.took.as_secs_f64().max(0.001)) as u64;
        output::json_line(
            &json!({"cid": added.root, "bytes": added.bytes, "files": added.files, "seconds": added.took.as_secs_f64(), "bytes_per_second": rate, "confirmed": confirmed}),
        );
    } else if args.quiet {
        println!("{}", added.root);
    } else {
        let rate = types::ByteCount((added.bytes as f64 / added.took.as_secs_f64().max(0.001)) as u64);
        eprintln!("{} in {} files, {rate}/s", types::ByteCount(added.bytes), added.files);
    }
    match skipped.lock() {
        Ok(skipped) if skipped.count > 0 => Err(left_out(&skipped, args.target.json)),
        _ => Ok(()),
    }
}

/// Lists what was left out; everything else is kept, but the exit code says that not all of it is.
fn left_out(skipped: &Skipped, as_json: bool) -> anyhow::Error {
    if as_json {
        output::json_line(&json!({"skipped": skipped.count, "reasons": skipped.listed}));
    } else {
        skipped.listed.iter().for_each(|reason| eprintln!("left out: {reason}"));
    }
    match skipped.count {
        1 => anyhow::anyhow!("1 thing was left out; the rest was added and is kept"),
        count => anyhow::anyhow!("{count} things were left out; the rest was added and is kept"),
    }
}

/// A CAR is one stream with one root: nothing is walked, cut or wrapped.
fn check_car(args: &AddArgs) -> anyhow::Result<()> {
    let [path] = &args.paths[..] else { bail!("--format car takes one CAR; add several one after another") };
    if args.wrap {
        bail!("a CAR cannot be wrapped: its root is made already (leave out --wrap)");
    }
    if path.is_dir() {
        bail!("{} is a folder, not a CAR: add it without --format car", path.display());
    }
    Ok(())
}

/// Sends an upload, shows progress on the terminal, hands each answered line to `each`; the last line with a CID is the root.
pub async fn send(client: &Client, query: &str, upload: Upload, total: Option<u64>, mut each: impl FnMut(&Value)) -> anyhow::Result<Added> {
    let started = Instant::now();
    let bar = output::byte_bar(total);
    let (sent, watched) = (upload.sent.clone(), bar.clone());
    let ticker = tokio::spawn(async move {
        loop {
            watched.set_position(sent.bytes.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut root = None;
    let headers = [("content-type", upload.content_type.as_str())];
    let outcome = client
        .lines(Method::POST, query, upload.body, &headers, |line| {
            if let Some(cid) = line["cid"].as_str() {
                root = Some(cid.to_owned());
                bar.suspend(|| each(&line));
            }
            Ok(())
        })
        .await;
    ticker.abort();
    bar.finish_and_clear();
    // A reading error is the cause; what the peer says about the broken stream is its echo.
    if let Some(why) = upload.failure.take() {
        bail!("{why}");
    }
    outcome?;
    let root = root.context("the peer answered without a root")?;
    let (bytes, files) = (upload.sent.bytes.load(Ordering::Relaxed), upload.sent.files.load(Ordering::Relaxed));
    Ok(Added { root, bytes, files, took: started.elapsed() })
}

/// Waits until so many holders confirmed; says on standard error how it goes. No deadline: the user ends it with Ctrl-C.
pub async fn wait_copies(client: &Client, cid: &str, copies: u32) -> anyhow::Result<u64> {
    let bar = output::byte_bar(None);
    loop {
        let path = format!("/pinfold/v1/wait/{}?copies={copies}&timeout=10s", escape(cid));
        let answer = client.json(Method::GET, &path).await?.unwrap_or_default();
        let confirmed = answer["copies"].as_u64().unwrap_or(0);
        if confirmed >= u64::from(copies) {
            bar.finish_and_clear();
            return Ok(confirmed);
        }
        bar.set_message(format!("{confirmed} of {copies} copies confirmed"));
        bar.tick();
    }
}
