//! From `/ipfs/<cid>/<name>/…` to a CID: drives `dag`'s resolver with the blocks of a node.

use bytes::Bytes;
use dag::export::{ExportError, Found, Resolve, Resolver};
use ipfs::{BlockError, IpfsNode, Source};
use types::Cid;

/// Why a path leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    #[error("no link named {name:?} under {under}")]
    NoLink { name: String, under: Cid },
    #[error(transparent)]
    Content(#[from] ExportError),
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// The block, also when the CID carries it inside.
pub(crate) async fn block(node: &dyn IpfsNode, cid: &Cid, source: &Source) -> Result<Bytes, BlockError> {
    match dag::block::inline_data(cid) {
        Some(data) => Ok(Bytes::copy_from_slice(data)),
        None => node.get(cid, source).await,
    }
}

/// Follows `path` (names divided by `/`) from `root`; `on_block` sees the blocks on the way.
pub(crate) async fn resolve(
    node: &dyn IpfsNode,
    root: Cid,
    path: &[u8],
    source: &Source,
    mut on_block: impl FnMut(Cid, Bytes),
) -> Result<Found, PathError> {
    let mut resolver = Resolver::new(root, path);
    loop {
        match resolver.step()? {
            Resolve::Found(found) => return Ok(found),
            Resolve::NotFound { name, under, .. } => {
                return Err(PathError::NoLink { name: String::from_utf8_lossy(&name).into_owned(), under });
            }
            Resolve::Need(cid) => {
                let data = node.get(&cid, source).await?;
                resolver.give(&cid, &data)?;
                on_block(cid, data);
            }
        }
    }
}
