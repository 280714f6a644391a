//! What a block points to.

use crate::{DecodeError, cbor, codec, json, pb};
use types::Cid;

/// No block has more links than this: a full 2 MiB directory has some 47,000.
pub const MAX_LINKS: usize = 1 << 16;

/// Returns the links of a block in the order they stand there, doubles included. Blocks of other codecs have none.
pub fn links(cid: &Cid, data: &[u8]) -> Result<Vec<Cid>, DecodeError> {
    let mut links = Vec::new();
    match cid.codec() {
        codec::DAG_PB => {
            pb::scan(data, |link| {
                links.push(link.cid);
                Ok(())
            })?;
        }
        codec::DAG_CBOR => cbor::links(data, &mut links)?,
        codec::DAG_JSON => json::links(data, &mut links)?,
        _ => {}
    }
    Ok(links)
}
