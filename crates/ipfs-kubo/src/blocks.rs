//! Blocks to and from the daemon.
//!
//! Kubo collects whatever no pin reaches, at any time; so each block of an add is pinned directly under a name of ours until the add ends.
//! The direct pin is on the block's raw twin (same hash), so it never meets a pin of the content itself.

use crate::listing::ADDING;
use crate::node::{Inner, KuboError};
use crate::rpc::{Call, RpcError};
use bytes::Bytes;
use dag::block::{HashMismatch, inline_data, verify};
use dag::{HashFn, codec};
use futures::stream::{StreamExt, TryStreamExt};
use ipfs::{Block, BlockError, PutError, Source};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};
use types::{ByteCount, Cid};

/// Bytes in one call.
const PUT_BYTES: usize = 8 << 20;
/// CIDs in one call: they stand in its address.
const ARGS: usize = 100;
/// Questions at once.
const QUESTIONS: usize = 16;
/// A call that only looks at the daemon's disk.
pub(crate) const LOCAL: Duration = Duration::from_secs(30);
/// A call that writes there.
const WRITE: Duration = Duration::from_secs(120);
/// A garbage collection may be silent for so long.
const COLLECTION: Duration = Duration::from_secs(600);
/// A block that a collection took between its put and its pin is put again so often.
const PUT_TRIES: usize = 3;

/// The blocks of one add.
pub(crate) struct Add {
    /// Their raw twins, pinned directly.
    pinned: HashSet<Cid>,
    /// The add is over when nothing has come for so long; none: only when it is released.
    idle: Option<Duration>,
    last: Instant,
}

impl Inner {
    pub(crate) async fn put_blocks(&self, add: Option<(u64, Option<Duration>)>, blocks: Vec<Block>) -> Result<(), PutError> {
        let blocks = tokio::task::spawn_blocking(move || checked(blocks)).await.map_err(|error| PutError::Storage(error.to_string()))??;
        let stored: Vec<Block> = blocks.into_iter().filter(|block| inline_data(&block.cid).is_none()).collect();
        for group in groups(&stored) {
            let mut tries = 0;
            loop {
                self.put_group(&group).await.map_err(put_error)?;
                let Some((number, idle)) = add else { break };
                match self.protect(number, idle, &group).await {
                    Err(KuboError::Rpc(RpcError::Refused { message, .. }))
                        if wire::kubo::missing_block(&message).is_some() && tries < PUT_TRIES =>
                    {
                        tries += 1;
                    }
                    outcome => break outcome.map_err(put_error)?,
                }
            }
        }
        Ok(())
    }

    /// One multipart call; all blocks have the same hash function and digest length.
    async fn put_group(&self, group: &[&Block]) -> Result<(), KuboError> {
        let Some(first) = group.first() else { return Ok(()) };
        let hash = HashFn::from_code(first.cid.hash().code()).map_err(|error| KuboError::Other(error.to_string()))?;
        // The block store goes by the hash alone, so the codec does not matter; raw needs no decoding.
        let call = Call::new("block/put")
            .with("cid-codec", "raw")
            .with("mhtype", hash.name())
            .with("mhlen", first.cid.hash().size())
            .with("pin", false)
            .with("allow-big-block", true);
        let (content_type, body) = multipart(group);
        let mut lines = self.rpc.lines(call.body(content_type, body), WRITE).await?;
        for block in group {
            let line = lines.next().await?.ok_or_else(|| KuboError::Other("block/put answered for fewer blocks than it got".to_owned()))?;
            let stored = wire::kubo::put_block(&line).map_err(RpcError::from)?;
            if stored.hash() != block.cid.hash() {
                return Err(KuboError::Other(format!("block/put stored {stored} for {}", block.cid)));
            }
        }
        lines.finish(&self.rpc);
        Ok(())
    }

    /// Pins the blocks of an add directly.
    async fn protect(&self, number: u64, idle: Option<Duration>, group: &[&Block]) -> Result<(), KuboError> {
        let twins: Vec<Cid> = group.iter().map(|block| Cid::new_v1(codec::RAW, *block.cid.hash())).collect();
        for some in twins.chunks(ARGS) {
            let call = Call::new("pin/add").with("recursive", false).with("offline", true).with("name", ADDING);
            let call = some.iter().fold(call, |call, cid| call.with("arg", cid));
            match self.rpc.call(call, WRITE).await {
                Ok(_) => {
                    let mut adds = self.adds.lock();
                    let add = adds.entry(number).or_insert_with(|| Add { pinned: HashSet::new(), idle, last: Instant::now() });
                    add.last = Instant::now();
                    add.pinned.extend(some);
                }
                // Somebody keeps one of them recursively: it needs no protection, but the others do.
                Err(RpcError::Refused { message, .. }) if message.contains("already pinned recursively") && some.len() > 1 => {
                    for one in some {
                        let call = Call::new("pin/add").with("recursive", false).with("offline", true).with("name", ADDING);
                        match self.rpc.call(call.with("arg", one), WRITE).await {
                            Err(RpcError::Refused { message, .. }) if message.contains("already pinned recursively") => {}
                            Err(error) => return Err(error.into()),
                            Ok(_) => {
                                let mut adds = self.adds.lock();
                                adds.entry(number)
                                    .or_insert_with(|| Add { pinned: HashSet::new(), idle, last: Instant::now() })
                                    .pinned
                                    .insert(*one);
                            }
                        }
                    }
                }
                Err(RpcError::Refused { message, .. }) if message.contains("already pinned recursively") => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Says that an add goes on although nothing has come of it yet.
    pub(crate) fn keep_open(&self, number: u64, idle: Option<Duration>) {
        let mut adds = self.adds.lock();
        adds.entry(number).or_insert_with(|| Add { pinned: HashSet::new(), idle, last: Instant::now() }).last = Instant::now();
    }

    /// Ends the protection of an add's blocks.
    pub(crate) async fn release_add(&self, number: u64) -> Result<(), KuboError> {
        let Some(add) = self.adds.lock().remove(&number) else { return Ok(()) };
        // Another add may have put the same blocks.
        let others: HashSet<Cid> = self.adds.lock().values().flat_map(|other| other.pinned.iter().copied()).collect();
        let own: Vec<Cid> = add.pinned.into_iter().filter(|cid| !others.contains(cid)).collect();
        self.unpin_direct(&own).await
    }

    pub(crate) async fn unpin_direct(&self, cids: &[Cid]) -> Result<(), KuboError> {
        for some in cids.chunks(ARGS) {
            let call = Call::new("pin/rm").with("recursive", false);
            let call = some.iter().fold(call, |call, cid| call.with("arg", cid));
            if self.rpc.call(call, WRITE).await.is_ok() {
                continue;
            }
            // One of them was not pinned any more: the call stops there.
            for one in some {
                match self.rpc.call(Call::new("pin/rm").with("recursive", false).with("arg", one), WRITE).await {
                    Err(RpcError::Refused { message, .. })
                        if wire::kubo::is_not_pinned(&message) || message.contains("pinned recursively") => {}
                    other => {
                        other?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds of others that a pin of `root` has taken over: their sender does not say that they are over.
    pub(crate) fn taken_over(&self, root: &Cid) -> Vec<u64> {
        let twin = Cid::new_v1(codec::RAW, *root.hash());
        let adds = self.adds.lock();
        adds.iter().filter(|(_, add)| add.idle.is_some() && add.pinned.contains(&twin)).map(|(number, _)| *number).collect()
    }

    /// Adds of which nothing has come for their time.
    pub(crate) fn abandoned(&self) -> Vec<u64> {
        let adds = self.adds.lock();
        adds.iter().filter(|(_, add)| add.idle.is_some_and(|idle| add.last.elapsed() > idle)).map(|(number, _)| *number).collect()
    }

    pub(crate) async fn get_block(&self, cid: &Cid, source: &Source, patience: Duration) -> Result<Bytes, BlockError> {
        if let Some(data) = inline_data(cid) {
            return Ok(Bytes::copy_from_slice(data));
        }
        let local = self.rpc.call(Call::new("block/get").with("arg", cid).with("offline", true), LOCAL).await;
        let data = match local {
            Ok(data) => data,
            Err(RpcError::Refused { message, .. }) if wire::kubo::missing_block(&message).is_some() => {
                if source.local_only {
                    return Err(BlockError::NotLocal { cid: *cid });
                }
                self.reach(&source.holders).await;
                let asked = u32::try_from(source.holders.len()).unwrap_or(u32::MAX);
                let call = Call::new("block/get").with("arg", cid).with("timeout", format!("{}s", patience.as_secs().max(1)));
                match self.rpc.call(call, patience + Duration::from_secs(5)).await {
                    Ok(data) => data,
                    Err(RpcError::Refused { .. } | RpcError::Silent { .. }) => return Err(BlockError::NotFound { cid: *cid, asked }),
                    Err(error) => return Err(BlockError::Storage(error.to_string())),
                }
            }
            Err(error) => return Err(BlockError::Storage(error.to_string())),
        };
        verify(cid, &data).map_err(|_| BlockError::Corrupt { cid: *cid })?;
        Ok(data)
    }

    /// The size of a block that is there.
    pub(crate) async fn size_of(&self, cid: &Cid) -> Result<Option<u64>, KuboError> {
        if let Some(data) = inline_data(cid) {
            return Ok(Some(data.len() as u64));
        }
        match self.rpc.call(Call::new("block/stat").with("arg", cid).with("offline", true), LOCAL).await {
            Ok(body) => Ok(Some(wire::kubo::block_size(&body).map_err(RpcError::from)?)),
            Err(RpcError::Refused { message, .. }) if wire::kubo::missing_block(&message).is_some() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn has_blocks(&self, cids: &[Cid]) -> Result<Vec<bool>, KuboError> {
        let mut asked = Vec::with_capacity(cids.len());
        for cid in cids {
            asked.push(async move { self.size_of(cid).await.map(|size| size.is_some()) });
        }
        futures::stream::iter(asked).buffered(QUESTIONS).try_collect().await
    }

    /// Asks the daemon to collect; what it has less afterwards.
    pub(crate) async fn collect(&self) -> Result<ByteCount, KuboError> {
        let before = self.stat().await?;
        let mut lines = self.rpc.lines(Call::new("repo/gc").with("stream-errors", true).with("quiet", true), COLLECTION).await?;
        while lines.next().await?.is_some() {}
        lines.finish(&self.rpc);
        let after = self.stat().await?;
        Ok(ByteCount(before.used.get().saturating_sub(after.used.get())))
    }

    pub(crate) async fn stat(&self) -> Result<wire::kubo::RepoStat, KuboError> {
        let body = self.rpc.call(Call::new("repo/stat").with("size-only", true), LOCAL).await?;
        Ok(wire::kubo::repo_stat(&body).map_err(RpcError::from)?)
    }
}

/// Blocks that match their CIDs.
fn checked(blocks: Vec<Block>) -> Result<Vec<Block>, PutError> {
    for block in &blocks {
        let cid = block.cid;
        verify(&cid, &block.data).map_err(|error| match error {
            HashMismatch::Differs { .. } => PutError::Mismatch { cid },
            other => PutError::Refused { cid, reason: other.to_string() },
        })?;
    }
    Ok(blocks)
}

/// Blocks that may go in one call.
fn groups(blocks: &[Block]) -> Vec<Vec<&Block>> {
    let mut open: BTreeMap<(u64, u8), (usize, Vec<&Block>)> = BTreeMap::new();
    let mut full = Vec::new();
    for block in blocks {
        let (bytes, group) = open.entry((block.cid.hash().code(), block.cid.hash().size())).or_default();
        if *bytes + block.data.len() > PUT_BYTES && !group.is_empty() {
            full.push(std::mem::take(group));
            *bytes = 0;
        }
        *bytes += block.data.len();
        group.push(block);
    }
    full.extend(open.into_values().map(|(_, group)| group));
    full
}

/// A body with one part for each block, under a boundary that stands in none of them.
fn multipart(group: &[&Block]) -> (String, Bytes) {
    // A hash over all hashes cannot be known to who made one of the blocks.
    let digests: Vec<u8> = group.iter().flat_map(|block| block.cid.hash().digest()).copied().collect();
    let hash = HashFn::SHA2_256.digest(&digests).map(|hash| hash.digest().to_vec()).unwrap_or_default();
    let boundary = hash.iter().take(20).fold("pinfold".to_owned(), |text, byte| format!("{text}{byte:02x}"));
    let size: usize = group.iter().map(|block| block.data.len() + 200).sum();
    let mut body = Vec::with_capacity(size);
    for block in group {
        body.extend_from_slice(b"--");
        body.extend_from_slice(boundary.as_bytes());
        body.extend_from_slice(
            b"\r\nContent-Disposition: form-data; name=\"data\"; filename=\"b\"\r\nContent-Type: application/octet-stream\r\n\r\n",
        );
        body.extend_from_slice(&block.data);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--");
    body.extend_from_slice(boundary.as_bytes());
    body.extend_from_slice(b"--\r\n");
    (format!("multipart/form-data; boundary={boundary}"), body.into())
}

fn put_error(error: KuboError) -> PutError {
    PutError::Storage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipfs::conformance::sample::{leaf, raw_of_size};

    #[test]
    fn calls_are_bounded_and_of_one_hash_function() {
        let other = Block::new(codec::RAW, HashFn::from_name("blake3").unwrap(), Bytes::from_static(b"x")).unwrap();
        let large: Vec<Block> = (0..9).map(|seed| raw_of_size(seed, 1 << 20)).collect();
        let blocks: Vec<Block> = [leaf(1), other.clone()].into_iter().chain(large).collect();
        let sizes: Vec<(usize, usize)> =
            groups(&blocks).iter().map(|group| (group.len(), group.iter().map(|block| block.data.len()).sum())).collect();
        assert_eq!(sizes.iter().map(|(count, _)| count).sum::<usize>(), 11);
        assert!(sizes.iter().all(|(_, bytes)| *bytes <= PUT_BYTES), "{sizes:?}");
        assert_eq!(sizes.len(), 3);
    }
}
