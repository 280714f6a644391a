//! Paths to CIDs, through the node.

use super::{Failure, parse_cid};
use crate::path::{self, PathError};
use ipfs::Source;
use peer::Cluster;
use peer::names::How;
use std::time::Duration;
use types::Cid;

/// How long a path may take; Go's default for a question to its node is 5 minutes, longer than any client waits.
const RESOLVE_LIMIT: Duration = Duration::from_secs(60);

/// The CID behind `/<kind>/<cid>/<path>`; only the root of a CID's path is no question to anybody.
pub(crate) async fn resolve(cluster: &dyn Cluster, kind: &str, segments: &[&str]) -> Result<Cid, Failure> {
    if kind == "ipns" {
        return resolve_name(cluster, segments).await;
    }
    let [root, rest @ ..] = segments else { return Err(Failure::bad("error parsing path: path does not begin with a CID")) };
    let root = parse_cid(root).map_err(|failure| {
        let reason = failure.message.trim_start_matches("error decoding Cid: ");
        Failure::bad(format!("error parsing path: invalid path \"/{kind}/{}\": {reason}", segments.join("/")))
    })?;
    if rest.is_empty() {
        return Ok(root);
    }
    follow(cluster, root, &rest.join("/")).await
}

/// The CID behind `/ipns/<name>/<path>` at this moment.
async fn resolve_name(cluster: &dyn Cluster, segments: &[&str]) -> Result<Cid, Failure> {
    let [name, rest @ ..] = segments else { return Err(Failure::bad("error parsing path: path does not begin with a name")) };
    let names = cluster.names().ok_or_else(|| Failure::internal("this peer knows no names"))?;
    let resolved = names.resolve(name, How::default()).await.map_err(|error| Failure::internal(error.to_string()))?;
    let path: Vec<&str> = std::iter::once(resolved.below.as_str()).chain(rest.iter().copied()).filter(|part| !part.is_empty()).collect();
    if path.is_empty() {
        return Ok(resolved.root);
    }
    follow(cluster, resolved.root, &path.join("/")).await
}

async fn follow(cluster: &dyn Cluster, root: Cid, path: &str) -> Result<Cid, Failure> {
    let (node, source) = (cluster.node(), Source::default());
    let resolved = path::resolve(&*node, root, path.as_bytes(), &source, |_, _| {});
    match tokio::time::timeout(RESOLVE_LIMIT, resolved).await {
        Ok(Ok(found)) => Ok(found.cid),
        Ok(Err(error @ PathError::NoLink { .. })) => Err(Failure::internal(error.to_string())),
        Ok(Err(error)) => Err(Failure::internal(format!("resolving the path: {error}"))),
        Err(_) => Err(Failure::internal(format!("resolving the path: not found within {} s", RESOLVE_LIMIT.as_secs()))),
    }
}
