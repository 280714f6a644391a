//! Reads every file back from one holder, without letting it ask others, and compares it with the source byte by byte.

use super::children::Child;
use crate::client::{self, Client};
use anyhow::{Context, bail};
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Compares the copy that `peer` holds of `root` with the folder (or file) it was made of.
pub async fn compare(source: &Path, root: &str, peer: &Child) -> anyhow::Result<()> {
    let client = Client::new(&peer.gateway)?;
    let metadata = std::fs::metadata(source).with_context(|| format!("reading {}", source.display()))?;
    if metadata.is_dir() {
        Box::pin(compare_folder(&client, source, &format!("/ipfs/{root}"))).await
    } else {
        compare_file(&client, source, &format!("/ipfs/{root}")).await
    }
}

async fn compare_folder(client: &Client, folder: &Path, path: &str) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        let kind = entry.file_type().with_context(|| format!("reading {}", entry.path().display()))?;
        let below = format!("{path}/{}", escape_bytes(entry.file_name().as_bytes()));
        if kind.is_dir() {
            Box::pin(compare_folder(client, &entry.path(), &below)).await?;
        } else if kind.is_file() {
            compare_file(client, &entry.path(), &below).await?;
        }
        // Links, names and shapes are covered by the root CID itself: every block was hashed when it was stored.
    }
    Ok(())
}

async fn compare_file(client: &Client, source: &Path, path: &str) -> anyhow::Result<()> {
    let local_only = [("cache-control", "only-if-cached"), ("accept", "application/octet-stream, */*")];
    let response = client.send(Method::GET, path, &local_only, client::empty()).await?;
    if response.status() != StatusCode::OK {
        bail!("{path} is not there whole: status {}", response.status());
    }
    let mut file = std::fs::File::open(source).with_context(|| format!("reading {}", source.display()))?;
    let mut body = response.into_body();
    let mut at = 0u64;
    let mut expected = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.with_context(|| format!("{path} broke off at byte {at}"))?;
        let Ok(data) = frame.into_data() else { continue };
        expected.resize(data.len(), 0);
        file.read_exact(&mut expected).with_context(|| format!("{path} is longer than {}", source.display()))?;
        if expected != data {
            bail!("{path} differs from {} near byte {at}", source.display());
        }
        at += data.len() as u64;
    }
    if file.read(&mut [0]).with_context(|| format!("reading {}", source.display()))? != 0 {
        bail!("{path} is shorter than {}: {at} bytes", source.display());
    }
    Ok(())
}

fn escape_bytes(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
