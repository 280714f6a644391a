//! `get`, `cat`, `ls`: reading what the cluster keeps.

use crate::client::{self, Client};
use crate::output;
use anyhow::{Context, bail};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use tokio::io::AsyncWriteExt;

/// For what a user typed (a CID with or without `/ipfs/`, or a name behind `/ipns/`, with a path below it) the path that doors take; each
/// part escaped. Names may be any bytes.
fn content_path(typed: &OsStr) -> anyhow::Result<String> {
    let path = trimmed(typed);
    if path.is_empty() {
        bail!("no CID given");
    }
    Ok(path.split(|byte| *byte == b'/').map(client::escape_bytes).collect::<Vec<_>>().join("/"))
}

fn trimmed(typed: &OsStr) -> &[u8] {
    let mut path = typed.as_bytes();
    path = path.strip_prefix(b"/ipfs/").unwrap_or(path);
    while let Some(rest) = path.strip_prefix(b"/") {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    path
}

/// `pinfold cat`
pub async fn cat(client: &Client, path: &OsStr) -> anyhow::Result<()> {
    let mut out = tokio::io::stdout();
    copy(client, &content_path(path)?, &mut out).await?;
    out.flush().await.context("writing to standard output")
}

async fn copy(client: &Client, path: &str, out: &mut (impl AsyncWriteExt + Unpin)) -> anyhow::Result<u64> {
    let response = client.ask(Method::GET, &format!("/pinfold/v1/cat/{path}"), client::empty()).await?;
    let mut body = response.into_body();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Err(anyhow::Error::new(error).context(broken_off(client, path, total).await)),
        };
        if let Ok(data) = frame.into_data() {
            total += data.len() as u64;
            out.write_all(&data).await.context("writing")?;
        }
    }
    Ok(total)
}

/// Why the content broke off, as far as the peer knows: which shard is out of reach, and of whom.
async fn broken_off(client: &Client, path: &str, after: u64) -> String {
    let root = path.split('/').next().unwrap_or_default();
    let why = client.json(Method::GET, &format!("/pinfold/v1/why/{root}")).await.ok().flatten().unwrap_or_default();
    let shards = why["shards"].as_array().cloned().unwrap_or_default();
    let troubles: Vec<&str> = shards.iter().filter_map(|shard| shard["trouble"].as_str()).take(3).collect();
    let reason = if troubles.is_empty() { "`pinfold why` names the holders".to_owned() } else { troubles.join("; ") };
    format!("the content broke off after {after} bytes: some block could not be read ({reason})")
}

/// The entries below a path: objects with `name`, `type` (`file`, `directory`, `symlink`), `cid`, `size`, `target`.
async fn list(client: &Client, path: &str) -> anyhow::Result<Vec<Value>> {
    let mut entries = Vec::new();
    client
        .lines(Method::GET, &format!("/pinfold/v1/ls/{path}"), client::empty(), &[], |line| {
            entries.push(line);
            Ok(())
        })
        .await?;
    Ok(entries)
}

/// `pinfold ls`
pub async fn ls(client: &Client, path: &OsStr, json: bool) -> anyhow::Result<()> {
    let entries = list(client, &content_path(path)?).await?;
    if json {
        entries.iter().for_each(output::json_line);
        return Ok(());
    }
    let row = |entry: &Value| {
        let name = output::shown(&unescape(&output::text(&entry["escaped"])));
        let name = if entry["type"] == "directory" { format!("{name}/") } else { name };
        vec![output::text(&entry["cid"]), output::text(&entry["size"]), name]
    };
    output::table(&["CID", "SIZE", "NAME"], &entries.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

/// `pinfold get`
pub async fn get(client: &Client, typed: &OsStr, output: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let path = content_path(typed)?;
    let last = trimmed(typed).rsplit(|byte| *byte == b'/').next().unwrap_or(b"content");
    let target = output.unwrap_or_else(|| PathBuf::from(OsStr::from_bytes(last)));
    if std::fs::symlink_metadata(&target).is_ok() {
        bail!("{} exists already: name another with -o, or move it away", target.display());
    }
    let kind = client.json(Method::GET, &format!("/pinfold/v1/stat/{path}")).await?.unwrap_or_default();
    let mut counts = Counts::default();
    let bar = output::byte_bar(kind["size"].as_u64().filter(|_| kind["type"] == "file"));
    fetch(client, &path, &kind, &target, &mut counts, &bar).await?;
    bar.finish_and_clear();
    if json {
        output::json_line(&serde_json::json!({"path": target.display().to_string(), "bytes": counts.bytes, "files": counts.files}));
    } else {
        println!("{}: {} in {} files", target.display(), types::ByteCount(counts.bytes), counts.files);
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    bytes: u64,
    files: u64,
}

async fn fetch(
    client: &Client,
    path: &str,
    what: &Value,
    target: &Path,
    counts: &mut Counts,
    bar: &indicatif::ProgressBar,
) -> anyhow::Result<()> {
    match what["type"].as_str().unwrap_or_default() {
        "directory" => {
            std::fs::create_dir(target).with_context(|| format!("making {}", target.display()))?;
            for entry in list(client, path).await? {
                let escaped = output::text(&entry["escaped"]);
                let name = OsString::from_vec(unescape(&escaped));
                // By its own CID: a path would be walked from its root again for every entry of a deep tree.
                let below = match entry["cid"].as_str() {
                    Some(cid) => cid.to_owned(),
                    None => format!("{path}/{escaped}"),
                };
                Box::pin(fetch(client, &below, &entry, &target.join(safe_name(&name)?), counts, bar)).await?;
            }
        }
        "symlink" => {
            let leads_to = OsString::from_vec(unescape(&output::text(&what["target_escaped"])));
            std::os::unix::fs::symlink(&leads_to, target).with_context(|| format!("making the link {}", target.display()))?;
        }
        "file" => {
            let mut file = tokio::fs::File::create_new(target).await.with_context(|| format!("making {}", target.display()))?;
            let bytes = copy(client, path, &mut file).await.with_context(|| format!("fetching {}", target.display()))?;
            file.flush().await.with_context(|| format!("writing {}", target.display()))?;
            counts.bytes += bytes;
            counts.files += 1;
            bar.inc(bytes);
        }
        other => bail!("{path} is a {other:?}, which cannot be written to disk"),
    }
    Ok(())
}

/// Undoes percent-encoding; names may be any bytes.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// A name from a folder of strangers must stay inside the target.
fn safe_name(name: &OsStr) -> anyhow::Result<&OsStr> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(name),
        _ => bail!("the folder has an entry named {name:?}, which cannot be written safely"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_target_are_refused() {
        for name in ["..", ".", "", "a/b", "/etc"] {
            assert!(safe_name(OsStr::new(name)).is_err(), "{name:?}");
        }
        assert!(safe_name(OsStr::new("a b.txt")).is_ok());
        assert_eq!(unescape("a%20%ff%"), b"a \xff%");
    }

    #[test]
    fn typed_paths_become_content_paths() {
        let path = |typed: &[u8]| content_path(OsStr::from_bytes(typed)).ok();
        assert_eq!(path(b"/ipfs/bafy/a b/").as_deref(), Some("bafy/a%20b"));
        assert_eq!(path(b"bafy").as_deref(), Some("bafy"));
        assert_eq!(path(b"bafy/\xff%41").as_deref(), Some("bafy/%FF%2541"));
        assert_eq!(path(b"/ipns/docs.example.org/a b").as_deref(), Some("ipns/docs.example.org/a%20b"));
        assert_eq!(path(b"/ipfs/"), None);
    }
}
