//! How the peers' space was used over the last week: one sample an hour for each, in the own store; what the forecast is made from.

use crate::core::Core;
use cluster::forecast::{self, Sample, WINDOW};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Area, Batch, Durability};
use types::{ByteCount, PeerId, UnixMillis};

const PREFIX: &[u8] = b"fill/";
/// Samples of a peer are so far apart.
const APART: u64 = 3_600_000;
/// How often it is looked whether one is due.
const LOOK: Duration = Duration::from_secs(60);
/// Samples of one peer: a week and the two ends.
const SAMPLES_MOST: usize = (WINDOW.0 / APART) as usize + 2;
/// Peers sampled.
const PEERS_MOST: usize = 1_000;

/// The samples of all peers.
pub(crate) struct Fill {
    core: Arc<Core>,
    samples: Mutex<BTreeMap<PeerId, Vec<Sample>>>,
}

impl Fill {
    pub(crate) fn new(core: Arc<Core>) -> Arc<Fill> {
        let entries = core.store.snapshot().scan(Area::Meta, None, PREFIX, PEERS_MOST).unwrap_or_default();
        let read = |(key, value): &(bytes::Bytes, bytes::Bytes)| Some((PeerId::from_bytes(&key[PREFIX.len()..]).ok()?, decode(value)));
        let samples = Mutex::new(entries.iter().filter_map(read).collect());
        Arc::new(Fill { core, samples })
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(self: Arc<Fill>) {
        loop {
            self.sample();
            tokio::time::sleep(LOOK).await;
        }
    }

    /// When each peer will be full, for those of which it can be said.
    pub(crate) fn forecasts(&self) -> BTreeMap<PeerId, UnixMillis> {
        let rows = self.core.read(|machine, now| machine.peers(now));
        let (samples, now) = (self.samples.lock(), self.core.now().wall);
        let full = |row: &cluster::PeerRow| Some((row.peer, forecast::full_at(samples.get(&row.peer)?, row.space_limit, now)?));
        rows.iter().filter(|row| row.space_limit != ByteCount::ZERO).filter_map(full).collect()
    }

    fn sample(&self) {
        let now = self.core.now().wall;
        let mut batch = Batch::new();
        let rows = self.core.read(|machine, now| machine.peers(now));
        {
            let mut all = self.samples.lock();
            for row in rows.iter().take(PEERS_MOST).filter(|row| row.space_limit != ByteCount::ZERO) {
                let samples = all.entry(row.peer).or_default();
                if samples.last().is_some_and(|last| last.at.0 <= now.0 && last.at.0 + APART > now.0) {
                    continue;
                }
                samples.push(Sample { at: now, used: row.space_used });
                let surplus = samples.len().saturating_sub(SAMPLES_MOST);
                samples.drain(..surplus);
                batch.put(Area::Meta, [PREFIX, row.peer.as_bytes()].concat(), encode(samples));
            }
            // A peer that left is forgotten.
            all.retain(|peer, _| {
                let is_known = rows.iter().any(|row| row.peer == *peer);
                if !is_known {
                    batch.delete(Area::Meta, [PREFIX, peer.as_bytes()].concat());
                }
                is_known
            });
        }
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.core.store.commit(batch, Durability::Buffered) {
            tracing::debug!(%error, "keeping samples of the space");
        }
    }
}

fn encode(samples: &[Sample]) -> Vec<u8> {
    samples.iter().flat_map(|sample| [sample.at.0.to_be_bytes(), sample.used.get().to_be_bytes()].concat()).collect()
}

fn decode(value: &[u8]) -> Vec<Sample> {
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_be_bytes);
    let (samples, _) = value.as_chunks::<16>();
    let samples = samples.iter().map(|sample| Sample { at: UnixMillis(number(&sample[..8])), used: ByteCount(number(&sample[8..])) });
    samples.take(SAMPLES_MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_read_back() {
        let samples: Vec<Sample> = (0..5).map(|hour| Sample { at: UnixMillis(hour * APART), used: ByteCount(hour * 7) }).collect();
        assert_eq!(decode(&encode(&samples)), samples);
        assert_eq!(decode(&encode(&samples)[..20]), samples[..1], "a torn end is left out");
    }
}
