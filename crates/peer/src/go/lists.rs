//! How all pins stand on a Go peer: its list, read once at the beginning of an answer and kept small.
//!
//! Of most pins there is nothing to say but that they are pinned: a number of eight bytes is kept for each of those, and what Go said of the
//! others.

use super::greeting::texts;
use super::members::GoCopy;
use super::{GoPeer, Side};
use net::gorpc::{CallError, CallLimits, Request, call_stream};
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;
use types::{Cid, Pin, PinState, UnixMillis};
use wire::gotime::GoTime;
use wire::rpc::PinInfo;
use wire::status::{Filter, bit, of_bit};

/// How long the first line may take (Go lists all pins of its Kubo before it), and each one after it.
const FIRST: Duration = Duration::from_secs(5);
const NEXT: Duration = Duration::from_secs(15);
/// Lines read of one peer.
const LINES_MAX: usize = 20_000_000;
/// Of so many pins that are not as wished everything is kept, of the ones after them the state alone.
const TOLD_MAX: usize = 100_000;
/// Characters of an error that are kept.
const ERROR_MAX: usize = 500;

/// One Go peer and how all pins stand there.
pub struct GoList {
    peer: GoPeer,
    addresses: Vec<String>,
    /// The states that were asked for; pins in others are not in the list.
    asked: Filter,
    hasher: RandomState,
    /// Marks of pins that it holds, in order.
    pinned: Vec<u64>,
    /// States of the ones for which there was no room below.
    plain: HashMap<u64, PinState>,
    told: HashMap<Cid, Told>,
    /// Why there is no list.
    error: Option<String>,
}

struct Told {
    state: PinState,
    since: GoTime,
    tries: i64,
    error: String,
}

/// How one pin stands on a Go peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoRow<'l> {
    /// Its state there.
    pub state: PinState,
    /// Since when.
    pub since: GoTime,
    /// What went wrong.
    pub error: Cow<'l, str>,
    /// Attempts so far.
    pub tries: i64,
}

impl GoList {
    /// Asks a peer for what is needed to answer a question for these states.
    pub(super) async fn ask(side: &Side, peer: GoPeer, filter: Filter) -> GoList {
        let mut list = GoList {
            addresses: peer.node_addresses.clone(),
            peer,
            asked: needed(filter),
            hasher: RandomState::new(),
            pinned: Vec::new(),
            plain: HashMap::new(),
            told: HashMap::new(),
            error: None,
        };
        if let Some(asked) = of_go(list.asked) {
            list.error = list.read(side, asked).await.err().map(|error| error.to_string());
            list.pinned.sort_unstable();
        }
        list
    }

    /// Whose list it is, with no state.
    pub fn head(&self) -> GoCopy {
        GoCopy { node_addresses: self.addresses.clone(), ..GoCopy::of(&self.peer) }
    }

    /// Why there is no list.
    pub(super) fn failure(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// How a pin stands there; none when it must be in a state that was not asked for.
    pub fn row(&self, pin: &Pin, now: UnixMillis) -> Option<GoRow<'_>> {
        let plain = |state, since: UnixMillis| GoRow { state, since: since.into(), error: Cow::Borrowed(""), tries: 0 };
        if !pin.is_for(&self.peer.peer) {
            return Some(plain(PinState::Remote, pin.created));
        }
        if let Some(error) = &self.error {
            return Some(GoRow { error: Cow::Borrowed(error), ..plain(PinState::ClusterError, now) });
        }
        if let Some(told) = self.told.get(&pin.cid) {
            return Some(GoRow { state: told.state, since: told.since, error: Cow::Borrowed(&told.error), tries: told.tries });
        }
        let mark = self.hasher.hash_one(pin.cid);
        if self.pinned.binary_search(&mark).is_ok() {
            return Some(plain(PinState::Pinned, pin.created));
        }
        match self.plain.get(&mark) {
            Some(state) => Some(plain(*state, now)),
            // It has not heard of the pin yet.
            None if self.asked == Filter::ALL => Some(plain(PinState::Unpinned, now)),
            None => None,
        }
    }

    async fn read(&mut self, side: &Side, asked: Filter) -> Result<(), CallError> {
        let limits = CallLimits::default();
        let request = Request::new("PinTracker", "StatusAll");
        let opening = async {
            let (mut sink, mut replies) = call_stream(&side.host, self.peer.peer, &request, &limits).await?;
            // When it refuses the call the replies say why.
            sink.send(&wire::rpc::encode(&asked)).await.ok();
            sink.finish().await.ok();
            Ok((replies.next().await?, replies))
        };
        let (mut next, mut replies) = tokio::time::timeout(FIRST, opening).await.unwrap_or(Err(CallError::TimedOut))?;
        let mut lines = 0;
        while let Some(reply) = next {
            lines += 1;
            if lines > LINES_MAX {
                return Err(CallError::Broken("its list has no end".to_owned()));
            }
            let info: PinInfo = wire::rpc::decode(&reply).map_err(|error| CallError::Broken(error.to_string()))?;
            self.take(info);
            next = tokio::time::timeout(NEXT, replies.next()).await.unwrap_or(Err(CallError::TimedOut))?;
        }
        Ok(())
    }

    fn take(&mut self, info: PinInfo) {
        let (Some(cid), Some(state)) = (info.cid, of_bit(info.short.status)) else { return };
        if self.addresses.is_empty()
            && let Some(addresses) = info.short.ipfs_addresses
        {
            self.addresses = texts(&addresses);
        }
        if state == PinState::Pinned {
            self.pinned.push(self.hasher.hash_one(cid));
        } else if self.told.len() < TOLD_MAX {
            let error = info.short.error.chars().take(ERROR_MAX).collect();
            self.told.insert(cid, Told { state, since: info.short.timestamp, tries: info.short.attempt_count, error });
        } else {
            self.plain.insert(self.hasher.hash_one(cid), state);
        }
    }
}

/// Whether a pin is unknown there can only be told from what it lists in all other states.
fn needed(filter: Filter) -> Filter {
    if filter.has(PinState::Unpinned) { Filter::ALL } else { filter }
}

/// What of these states the peer must be asked; none when that is nothing. Where it should not hold a pin is known here.
fn of_go(asked: Filter) -> Option<Filter> {
    let states = PinState::ALL.into_iter().filter(|state| asked.has(*state) && *state != PinState::Remote);
    let bits = states.map(bit).sum();
    (bits != 0).then_some(Filter(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_told_from_a_whole_list() {
        assert_eq!(needed(Filter(bit(PinState::Pinned))), Filter(bit(PinState::Pinned)));
        assert_eq!(needed(Filter(bit(PinState::Unpinned) | bit(PinState::Pinned))), Filter::ALL);
        assert_eq!(needed(Filter::ALL), Filter::ALL);
        assert_eq!(of_go(Filter(bit(PinState::Remote))), None);
        assert_eq!(of_go(Filter(bit(PinState::Remote) | 14)), Some(Filter(14)));
        assert!(of_go(Filter::ALL).is_some_and(|filter| filter.has(PinState::Pinned) && !filter.has(PinState::Remote)));
    }
}
