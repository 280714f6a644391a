//! Telling others what is here: for many keys of one region at once, so that the cost goes by peers and not by keys.

use super::ask::{AskError, SEARCH, written};
use super::key::Place;
use super::region::{Exploration, Region};
use super::{Contact, Dht};
use crate::frame::{read_frame, write_frame};
use futures::stream::{self, StreamExt};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use wire::kad::{self, Kind, MESSAGE_BYTES_MAX, Message};

/// How long all searches of one region may take.
const REGION: Duration = Duration::from_secs(300);
/// Peers that are told at once.
const TOLD_AT_ONCE: usize = 16;
/// How long one peer may take for its keys: so long at least, and so much for each thousand of them.
const TELLING: Duration = Duration::from_secs(20);
/// Bits of a place for which a key is searched by trying.
const TRIED_BITS: usize = 18;

/// What became of telling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Keys that at least one peer took.
    pub keys: usize,
    /// Keys that no peer took.
    pub failed: usize,
    /// Records taken, over all peers.
    pub records: usize,
    /// Peers that took theirs.
    pub peers: usize,
    /// Peers that did not.
    pub peers_failed: usize,
}

impl Dht {
    /// The region around the place of a key, with its peers.
    pub async fn region(&self, key: &[u8]) -> Region {
        self.explore(key, Instant::now() + REGION, false).await.finish()
    }

    /// The peers nearest to a key, nearest first. Where some are gone, searches beside the key find those behind them.
    pub async fn closest(&self, key: &[u8]) -> Vec<Contact> {
        self.explore(key, Instant::now() + SEARCH, true).await.nearest()
    }

    /// Searches around a key until its region is known, or, with `nearest_only`, its nearest peers are.
    async fn explore(&self, key: &[u8], until: Instant, nearest_only: bool) -> Exploration {
        let start = Place::of(key);
        let mut exploration = Exploration::new(start);
        let (mut silent, mut is_first) = (HashSet::new(), true);
        while let Some((near, bits)) = exploration.next() {
            let key = if is_first { key.to_vec() } else { key_near(&near, bits.min(TRIED_BITS)) };
            let search = self.search_until(&key, Kind::FindNode, until.min(Instant::now() + SEARCH), silent, |_, _| false);
            let lookup = Box::pin(search).await;
            exploration.learn(&Place::of(&key), &lookup);
            if (is_first && nearest_only && !lookup.is_unsure()) || until <= Instant::now() {
                break;
            }
            is_first = false;
            silent = lookup.into_silent();
        }
        exploration
    }

    /// Tells the peers of a region that keys in it (multihashes) are here.
    pub async fn tell(&self, region: &Region, keys: &[Vec<u8>]) -> Told {
        let own = self.own_contact();
        if own.addresses.is_empty() {
            return Told { failed: keys.len(), ..Told::default() };
        }
        let mut of_peer: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, key) in keys.iter().enumerate() {
            for peer in region.keepers(&Place::of(key)) {
                of_peer.entry(peer).or_default().push(number);
            }
        }
        let own = &written(&own);
        let telling = of_peer.into_iter().map(|(peer, numbers)| async move {
            let patience = TELLING + TELLING * u32::try_from(numbers.len() / 1000).unwrap_or(u32::MAX);
            let to = &region.peers[peer];
            let told = tokio::time::timeout(patience, self.tell_one(to, own, keys, &numbers)).await.unwrap_or(Err(AskError::TimedOut));
            if let Err(error) = &told {
                tracing::debug!(peer = %to.peer, %error, "a peer was not told what is here");
            }
            self.note(to, told.is_ok());
            (numbers, told.is_ok())
        });
        let mut took = vec![false; keys.len()];
        let mut told = Told::default();
        let mut telling = stream::iter(telling).buffer_unordered(TOLD_AT_ONCE);
        while let Some((numbers, is_told)) = telling.next().await {
            if is_told {
                told.records += numbers.len();
                numbers.into_iter().for_each(|number| took[number] = true);
            }
            told.peers += usize::from(is_told);
            told.peers_failed += usize::from(!is_told);
        }
        told.keys = took.iter().filter(|took| **took).count();
        told.failed = keys.len() - told.keys;
        told
    }

    /// All on one stream. Telling wants no answer, so a question follows: its answer says that all before it was read.
    async fn tell_one(&self, to: &Contact, own: &kad::Contact, keys: &[Vec<u8>], numbers: &[usize]) -> Result<(), AskError> {
        let mut stream = self.open(to).await?;
        for number in numbers {
            let message = Message { providers: vec![own.clone()], ..Message::request(Kind::AddProvider, &keys[*number]) };
            write_frame(&mut stream, &message.encode()).await?;
        }
        let Some(last) = numbers.last() else { return Ok(()) };
        write_frame(&mut stream, &Message::request(Kind::GetProviders, &keys[*last]).encode()).await?;
        let answer = read_frame(&mut stream, MESSAGE_BYTES_MAX).await?.ok_or(AskError::NoAnswer)?;
        let _ = stream.shutdown().await;
        kad::decode(&answer)?;
        Ok(())
    }
}

/// A key whose place shares so many bits with `near`: a question needs the key, and only trying leads from a place to one.
fn key_near(near: &Place, bits: usize) -> Vec<u8> {
    let mut key = near.0.to_vec();
    key.extend_from_slice(&[0; 8]);
    let mut number = 0u64;
    loop {
        key[32..].copy_from_slice(&number.to_be_bytes());
        if Place::of(&key).shared_bits(near) >= bits {
            return key;
        }
        number += 1;
    }
}

/// The key for a search at some depth from the own place.
pub(super) fn key_at_depth(own: &Place, depth: usize) -> Vec<u8> {
    let mut place = *own;
    place.0[depth / 8] ^= 0x80 >> (depth % 8);
    key_near(&place, (depth + 1).min(TRIED_BITS))
}
