//! From `/ipfs/<cid>/<name>/…` to a CID: one directory after another, plain or sharded.

use bytes::Bytes;
use dag::hamt::{Shape, hash_name};
use dag::pb::Node;
use dag::unixfs::{Kind, UnixFs};
use dag::{DecodeError, codec};
use ipfs::{BlockError, IpfsNode, Source};
use types::Cid;

/// Names in one path; far more than any file system takes.
pub(crate) const DEPTH_MAX: usize = 256;

/// Why a path leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    #[error("no link named {name:?} under {parent}")]
    NoLink { name: String, parent: Cid },
    #[error("{cid} cannot be walked by name: {reason}")]
    NoDirectory { cid: Cid, reason: String },
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error("the path has more than {DEPTH_MAX} names")]
    TooDeep,
}

/// The end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub cid: Cid,
    /// The CIDs on the way, from the root to the end.
    pub roots: Vec<Cid>,
}

/// Follows `names` from `root`.
pub(crate) async fn resolve(node: &dyn IpfsNode, root: Cid, names: &[&str], source: &Source) -> Result<Found, PathError> {
    let names: Vec<&str> = names.iter().copied().filter(|name| !name.is_empty()).collect();
    if names.len() > DEPTH_MAX {
        return Err(PathError::TooDeep);
    }
    let mut roots = vec![root];
    let mut cid = root;
    for name in names {
        cid = child(node, cid, name, source).await?;
        roots.push(cid);
    }
    Ok(Found { cid, roots })
}

/// The block, also when the CID carries it inside.
pub(crate) async fn block(node: &dyn IpfsNode, cid: &Cid, source: &Source) -> Result<Bytes, BlockError> {
    match dag::block::inline_data(cid) {
        Some(data) => Ok(Bytes::copy_from_slice(data)),
        None => node.get(cid, source).await,
    }
}

/// The entry `name` of a directory.
pub(crate) async fn child(node: &dyn IpfsNode, parent: Cid, name: &str, source: &Source) -> Result<Cid, PathError> {
    let no_link = || PathError::NoLink { name: name.to_owned(), parent };
    let malformed = |cid: Cid| move |error: DecodeError| PathError::NoDirectory { cid, reason: error.to_string() };
    let hash = hash_name(name.as_bytes());
    let mut cid = parent;
    for depth in 0.. {
        match cid.codec() {
            codec::DAG_PB => {}
            codec::RAW => return Err(no_link()),
            other => {
                return Err(PathError::NoDirectory {
                    cid,
                    reason: format!("its codec is 0x{other:x}, only UnixFS directories have names"),
                });
            }
        }
        let data = block(node, &cid, source).await?;
        let links = Node::decode(&data).map_err(malformed(cid))?;
        let shape = match links.data.map(UnixFs::decode) {
            Some(Ok(unixfs)) if unixfs.kind == Kind::HamtShard => Shape::of(&unixfs).map_err(malformed(cid))?,
            Some(Ok(unixfs)) if unixfs.kind != Kind::Directory => return Err(no_link()),
            _ => return links.links.iter().find(|link| link.name == name.as_bytes()).map(|link| link.cid).ok_or_else(no_link),
        };
        let prefix = shape.prefix(shape.slot(hash, depth).ok_or_else(no_link)?);
        let in_slot = links.links.iter().find(|link| {
            link.name.starts_with(&prefix) && (link.name.len() == prefix.len() || &link.name[prefix.len()..] == name.as_bytes())
        });
        let link = in_slot.ok_or_else(no_link)?;
        if link.name.len() > prefix.len() {
            return Ok(link.cid);
        }
        cid = link.cid;
    }
    Err(no_link())
}
