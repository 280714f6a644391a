//! `state export`, `state import`: all pins as lines, out of a running peer and into one.

use crate::cli::{StateCommand, Target};
use crate::client::{self, ApiError, Body, Client};
use crate::output;
use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Bytes read from the file at once, and how many such pieces may wait for the connection.
const PIECE: usize = 512 << 10;
const PIECES_MAX: usize = 2;

/// `pinfold state ...`
pub async fn run(command: StateCommand) -> anyhow::Result<()> {
    match command {
        StateCommand::Export { target, output } => export(&target, output).await,
        StateCommand::Import { target, file, skip_bad, renew } => import(&target, &file, skip_bad, renew).await,
    }
}

async fn export(target: &Target, output: Option<PathBuf>) -> anyhow::Result<()> {
    let client = Client::new(&target.api)?;
    let response = client.ask(Method::GET, "/pinfold/v1/state", client::empty()).await?;
    let Some(path) = output else {
        let lines = copy(response.into_body(), &mut std::io::stdout().lock(), &ProgressBar::hidden()).await?;
        if target.json {
            eprintln!("{}", json!({ "exported": lines }));
        }
        return Ok(());
    };
    // A name of its own until it is whole: half an export must not pass for one.
    let part = with_suffix(&path, ".part");
    let bar = output::byte_bar(None);
    let mut file = File::create(&part).with_context(|| format!("making {}", part.display()))?;
    let copied = copy(response.into_body(), &mut file, &bar).await;
    bar.finish_and_clear();
    if copied.is_err() {
        std::fs::remove_file(&part).ok();
    }
    let lines = copied?;
    file.sync_all().with_context(|| format!("writing {}", part.display()))?;
    std::fs::rename(&part, &path).with_context(|| format!("naming {}", path.display()))?;
    if target.json {
        output::json_line(&json!({ "exported": lines, "file": path.display().to_string() }));
    } else {
        println!("exported {lines} pins to {}", path.display());
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Copies a streamed answer; how many lines it had. An error in the trailer, or an answer that breaks off, is an error.
async fn copy(mut body: hyper::body::Incoming, to: &mut impl Write, bar: &ProgressBar) -> anyhow::Result<usize> {
    let mut lines = 0;
    while let Some(frame) = body.frame().await {
        match frame.context("the answer broke off, so the export is not whole: try again")?.into_data() {
            Ok(data) => {
                lines += data.iter().filter(|byte| **byte == b'\n').count();
                bar.inc(data.len() as u64);
                to.write_all(&data).context("writing the export")?;
            }
            Err(frame) => {
                let said = frame.into_trailers().ok().and_then(|trailers| Some(trailers.get("x-stream-error")?.to_str().ok()?.to_owned()));
                if let Some(message) = said.filter(|said| !said.is_empty()) {
                    return Err(ApiError { code: 500, message }.into());
                }
            }
        }
    }
    to.flush().context("writing the export")?;
    Ok(lines)
}

async fn import(target: &Target, file: &Path, skip_bad: bool, renew: bool) -> anyhow::Result<()> {
    let client = Client::new(&target.api)?;
    let is_stdin = file == Path::new("-");
    let source: Box<dyn Read + Send> = if is_stdin {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("opening {}", file.display()))?)
    };
    let size = if is_stdin { None } else { std::fs::metadata(file).ok().map(|metadata| metadata.len()) };
    let bar = output::byte_bar(size);
    let path = format!("/pinfold/v1/state?skip-bad={skip_bad}&renew={renew}");
    let mut last = Value::Null;
    let mut refused = 0;
    let outcome = client
        .lines(Method::POST, &path, body_of(source, bar.clone()), &[("content-type", "application/x-ndjson")], |line| {
            if let Some(reason) = line["refused"].as_str() {
                refused += 1;
                if target.json {
                    output::json_line(&line);
                } else {
                    bar.suspend(|| eprintln!("line {} is left out: {reason}", line["line"]));
                }
                return Ok(());
            }
            bar.set_message(format!("{} pins", line["lines"]));
            last = line;
            Ok(())
        })
        .await;
    bar.finish_and_clear();
    outcome.with_context(|| format!("importing {}", if is_stdin { "standard input".to_owned() } else { file.display().to_string() }))?;
    if last["done"] != true {
        bail!("the peer ended before it had said that all is merged: it is safe to import the same again");
    }
    if target.json {
        output::json_line(&last);
        return Ok(());
    }
    let [added, changed, same, left_out] = ["added", "changed", "same", "refused"].map(|key| last[key].as_u64().unwrap_or(0));
    println!("imported: {added} added, {changed} changed, {same} as they were, {left_out} lines left out");
    if left_out > refused {
        println!("only the first {refused} of the lines left out were named");
    }
    Ok(())
}

/// A file as a body, read by a thread of its own.
fn body_of(mut source: Box<dyn Read + Send>, bar: ProgressBar) -> Body {
    let (sender, receiver) = mpsc::channel::<std::io::Result<Frame<Bytes>>>(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let read = source.read(&mut piece);
            let piece = match read {
                Ok(0) => return,
                Ok(length) => {
                    piece.truncate(length);
                    bar.inc(length as u64);
                    Ok(Frame::data(Bytes::from(piece)))
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_over = piece.is_err();
            if sender.blocking_send(piece).is_err() || is_over {
                return;
            }
        }
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    StreamBody::new(pieces).boxed_unsync()
}
