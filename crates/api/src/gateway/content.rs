//! Content for programs, under `/pinfold/v1/`: what stands at a path (`stat`), the entries of a folder as JSON lines (`ls`), the bytes
//! of a file (`cat`). The same reading as the gateway's, without its pages.
//!
//! Names may be any bytes: `name` shows them (what is no UTF-8 is replaced), `escaped` names them exactly.

use super::answer::Trouble;
use super::fetch::{AHEAD, Fetcher};
use super::file;
use super::{What, kind};
use crate::message::{Body, Broken, Response, error_json, json, line_of, with_type};
use crate::path;
use crate::query::{decode_bytes, decode_percent};
use bytes::Bytes;
use dag::export::{DirectoryReader, Entry, ListStep, file_size};
use futures::stream;
use hyper::StatusCode;
use ipfs::Source;
use peer::Cluster;
use peer::names::How;
use serde_json::{Value, json};
use types::Cid;

/// What is asked.
pub(crate) enum Wanted {
    Stat,
    List,
    Bytes,
}

/// Answers for `path`: `<cid>/<name>/…` or `ipns/<name>/…`, escaped as it came.
pub(crate) async fn answer(cluster: &dyn Cluster, wanted: Wanted, path: &str) -> Response {
    match try_answer(cluster, wanted, path).await {
        Ok(response) => response,
        Err(trouble) => error_json(trouble.status, &trouble.message),
    }
}

/// The CID that a path begins with, or that the name at its beginning leads to, and the names below it.
async fn begin(cluster: &dyn Cluster, path: &str) -> Result<(Cid, Vec<u8>), Trouble> {
    if let Some(named) = path.strip_prefix("ipns/") {
        let (name, rest) = named.split_once('/').unwrap_or((named, ""));
        let names = cluster.names().ok_or_else(|| Trouble::new(StatusCode::NOT_IMPLEMENTED, "this peer knows no names"))?;
        let resolved = names.resolve(&decode_percent(name), How::default()).await?;
        return Ok((resolved.root, [resolved.below.as_bytes(), &decode_bytes(rest.as_bytes())].join(&b'/')));
    }
    let (root, names) = path.split_once('/').unwrap_or((path, ""));
    let root =
        wire::cids::cid_from_text(root).map_err(|error| Trouble::new(StatusCode::BAD_REQUEST, &format!("{root:?} is no CID: {error}")))?;
    Ok((root, decode_bytes(names.as_bytes())))
}

async fn try_answer(cluster: &dyn Cluster, wanted: Wanted, path: &str) -> Result<Response, Trouble> {
    let (root, names) = begin(cluster, path).await?;
    let fetcher = Fetcher::new(cluster.node(), Source::default());
    let found = path::resolve(fetcher.node(), root, &names, fetcher.source(), |_, _| {}).await?;
    let block = fetcher.get(&found.cid).await?;
    match (wanted, kind(&found.cid, &block)?) {
        (Wanted::Stat, what) => Ok(json(line_of(&described(&found.cid, &block, &what)))),
        (Wanted::List, What::Directory) => {
            let listing = Listing { directory: DirectoryReader::new(found.cid), fetcher };
            Ok(with_type(StatusCode::OK, "application/json", Bytes::new()).map(|_| Body::stream(lines(listing))))
        }
        (Wanted::List, _) => Err(Trouble::new(StatusCode::BAD_REQUEST, "this is no folder: `pinfold cat` shows a file")),
        (Wanted::Bytes, What::File) => {
            let response = with_type(StatusCode::OK, "application/octet-stream", Bytes::new());
            let body = file::body(&found.cid, block, fetcher).await?;
            Ok(response.map(|_| body))
        }
        (Wanted::Bytes, What::Directory) => Err(Trouble::new(StatusCode::BAD_REQUEST, "this is a folder: `pinfold ls` lists it")),
        (Wanted::Bytes, What::Symlink(target)) => {
            let target = String::from_utf8_lossy(&target).into_owned();
            Err(Trouble::new(StatusCode::BAD_REQUEST, &format!("this is a symbolic link to {target:?}")))
        }
        (Wanted::Bytes, What::Other(media)) => Err(Trouble::new(StatusCode::BAD_REQUEST, &format!("this is no file but {media}"))),
    }
}

/// Kind, size (of files), target (of links), in JSON.
fn described(cid: &Cid, block: &Bytes, what: &What) -> Value {
    match what {
        What::File => json!({"cid": cid.to_string(), "type": "file", "size": file_size(cid, block)}),
        What::Directory => json!({"cid": cid.to_string(), "type": "directory"}),
        What::Symlink(target) => {
            json!({"cid": cid.to_string(), "type": "symlink", "target": String::from_utf8_lossy(target), "target_escaped": escape(target)})
        }
        What::Other(media) => json!({"cid": cid.to_string(), "type": media}),
    }
}

struct Listing {
    directory: DirectoryReader,
    fetcher: Fetcher,
}

impl Listing {
    /// The next line; none at the end.
    async fn next(&mut self) -> Result<Option<String>, Trouble> {
        loop {
            match self.directory.step()? {
                ListStep::Done => return Ok(None),
                ListStep::Entry(entry) => return self.line(&entry).await.map(Some),
                ListStep::Need(cid) => {
                    let next = self.directory.upcoming(AHEAD + 1).into_iter().filter(|next| *next != cid).collect();
                    let data = self.fetcher.get_with_next(&cid, next).await?;
                    self.directory.give(&cid, &data)?;
                }
            }
        }
    }

    async fn line(&mut self, entry: &Entry) -> Result<String, Trouble> {
        // A raw leaf is a file of just its bytes, whatever is in it: no need to fetch it.
        let mut line = if entry.cid.codec() == dag::codec::RAW {
            json!({"cid": entry.cid.to_string(), "type": "file", "size": entry.tsize})
        } else {
            let block = self.fetcher.get(&entry.cid).await?;
            let what = kind(&entry.cid, &block)?;
            described(&entry.cid, &block, &what)
        };
        line["name"] = Value::from(String::from_utf8_lossy(&entry.name));
        line["escaped"] = Value::from(escape(&entry.name));
        Ok(line_of(&line))
    }
}

fn escape(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    bytes.iter().map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn lines(listing: Listing) -> impl futures::Stream<Item = Result<Bytes, Broken>> + Send {
    stream::unfold(Some(listing), |listing| async move {
        let mut listing = listing?;
        match listing.next().await {
            Ok(line) => line.map(|line| (Ok(Bytes::from(line)), Some(listing))),
            Err(trouble) => Some((Err(Broken(trouble.message)), None)),
        }
    })
}
