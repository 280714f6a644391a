//! What Go peers publish about themselves. No clock, no network.

use std::collections::BTreeMap;
use types::{ByteCount, Millis, Now, PeerId, UnixMillis};
use wire::metric::{FREE_SPACE, Metric, PIN_QUEUE, PING, PINS_HELD, PingValue, TAG, decode_metric};
use wire::msgpack::MsgpackError;
use wire::rpc::RepoStat;

/// Peers remembered; beyond it the one that was silent longest goes.
const PEERS_MOST: usize = 4096;
/// Addresses taken from a ping.
const ADDRESSES_MOST: usize = 64;
/// Names longer than this are cut.
const NAME_MOST: usize = 256;
/// Tags kept of a peer.
const TAGS_MOST: usize = 16;
/// Go's default time to live: a metric counts at least so long, so that a sender with a clock behind ours is not lost.
const LASTS_LEAST: Millis = Millis::seconds(30);
/// And at most so long, whatever it promises.
const LASTS_MOST: Millis = Millis::minutes(10);

/// A Go peer that is heard of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoPeer {
    /// Who.
    pub peer: PeerId,
    /// Its name for people.
    pub name: String,
    /// Its node.
    pub ipfs_id: Option<PeerId>,
    /// Multiaddrs of its node; in part from its gossip (public ones only), in part asked of it.
    pub node_addresses: Vec<String>,
    /// What it says is free on its node; none while it says nothing, then Go places nothing on it either.
    pub free_space: Option<ByteCount>,
    /// When it said so last, by the own clock.
    pub measured: UnixMillis,
    /// The limit of its node, asked of it.
    pub space_limit: Option<ByteCount>,
    /// Its tags; over the values of `group` Go spreads copies.
    pub tags: BTreeMap<String, String>,
    /// How many pins its node holds; Go's own programs do not say.
    pub pins_held: Option<u64>,
    /// Length of its pin queue.
    pub pins_queued: u64,
    /// Whether it may write to the shared wish here.
    pub is_trusted: bool,
    /// Whether it takes what this peer writes; none until it was asked.
    pub trusts_us: Option<bool>,
    /// Multiaddrs of its cluster host, asked of it.
    pub addresses: Vec<String>,
    /// Of its program, asked of it.
    pub version: String,
    /// Its last ping, by the own clock.
    pub heard: UnixMillis,
}

impl GoPeer {
    /// The failure domain that it names; Go's default names none.
    pub fn domain(&self) -> Option<&str> {
        self.tags.get("group").map(String::as_str).filter(|group| !group.is_empty() && *group != "default")
    }
}

/// Why a metric was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// It does not read.
    #[error(transparent)]
    Unreadable(#[from] MsgpackError),
    /// It speaks of another peer than the one that signed it.
    #[error("the metric {0:?} speaks of another peer than its signer")]
    OtherSigner(String),
}

/// A value and until when it counts.
#[derive(Clone, Debug)]
struct Fresh<T> {
    value: T,
    until: Millis,
}

impl<T> Fresh<T> {
    fn get(this: &Option<Fresh<T>>, now: Now) -> Option<&T> {
        this.as_ref().filter(|fresh| fresh.until > now.mono).map(|fresh| &fresh.value)
    }
}

#[derive(Clone, Debug, Default)]
struct Facts {
    ping: Option<Fresh<PingValue>>,
    free: Option<Fresh<u64>>,
    measured: UnixMillis,
    tags: BTreeMap<String, Fresh<String>>,
    pins: Option<Fresh<u64>>,
    queue: Option<Fresh<u64>>,
    /// Asked of it; nothing before.
    told: Met,
    trusts_us: Option<bool>,
    room: Option<RepoStat>,
    heard: Millis,
    heard_wall: UnixMillis,
}

impl Facts {
    fn tag(&mut self, tag: &str, value: String, until: Millis, now: Now) {
        self.tags.retain(|_, fresh| fresh.until > now.mono);
        if self.tags.len() < TAGS_MOST || self.tags.contains_key(tag) {
            self.tags.insert(tag.to_owned(), Fresh { value, until });
        }
    }
}

/// What a peer answered about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) name: String,
    pub(super) ipfs_id: Option<PeerId>,
    pub(super) node_addresses: Vec<String>,
    pub(super) addresses: Vec<String>,
    pub(super) version: String,
}

/// All that was heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    peers: BTreeMap<PeerId, Facts>,
}

impl Heard {
    /// Takes a metric. Its end is told by its sender's clock, which may be wrong: it is taken for a span, within bounds.
    pub(super) fn take(&mut self, from: PeerId, data: &[u8], now: Now) -> Result<(), Refused> {
        let metric = decode_metric(data)?;
        if metric.peer != Some(from) {
            return Err(Refused::OtherSigner(metric.name));
        }
        let until = now.after(lasts(&metric, now));
        if !metric.valid {
            return Ok(());
        }
        self.make_room(&from);
        let facts = self.peers.entry(from).or_default();
        (facts.heard, facts.heard_wall) = (now.mono, now.wall);
        match metric.name.as_str() {
            PING => facts.ping = Some(Fresh { value: bounded(PingValue::of_json(&metric.value)), until }),
            FREE_SPACE => {
                facts.free = metric.value.parse().ok().map(|value| Fresh { value, until });
                facts.measured = now.wall;
            }
            PIN_QUEUE => facts.queue = metric.value.parse().ok().map(|value| Fresh { value, until }),
            PINS_HELD => facts.pins = metric.value.parse().ok().map(|value| Fresh { value, until }),
            name => {
                if let Some(tag) = name.strip_prefix(TAG).filter(|tag| tag.len() <= NAME_MOST) {
                    facts.tag(tag, cut(metric.value), until, now);
                }
            }
        }
        Ok(())
    }

    /// Notes what a peer answered about itself. That counts as a ping until the next real one is due, as it does for Go.
    pub(super) fn met(&mut self, peer: PeerId, mut told: Met, now: Now) {
        self.make_room(&peer);
        told.node_addresses.truncate(ADDRESSES_MOST);
        told.addresses.truncate(ADDRESSES_MOST);
        told.version = cut(told.version);
        let facts = self.peers.entry(peer).or_default();
        facts.told = told.clone();
        if Fresh::get(&facts.ping, now).is_none() {
            let ipfs_id = told.ipfs_id.map(|id| id.to_string()).unwrap_or_default();
            let value = bounded(PingValue { peer_name: told.name, ipfs_id, ipfs_addresses: Vec::new() });
            facts.ping = Some(Fresh { value, until: now.after(LASTS_LEAST) });
            (facts.heard, facts.heard_wall) = (now.mono, now.wall);
        }
    }

    /// Notes whether a peer takes what this one writes.
    pub(super) fn trusts(&mut self, peer: &PeerId, trusts_us: bool) {
        if let Some(facts) = self.peers.get_mut(peer) {
            facts.trusts_us = Some(trusts_us);
        }
    }

    /// Notes what a peer said of its node's room.
    pub(super) fn room(&mut self, peer: &PeerId, room: RepoStat) {
        if let Some(facts) = self.peers.get_mut(peer) {
            facts.room = Some(room);
        }
    }

    /// Everybody who ever said a ping, and whether it takes what this peer writes.
    pub(super) fn known(&self) -> BTreeMap<PeerId, Option<bool>> {
        self.peers.iter().filter(|(_, facts)| facts.ping.is_some()).map(|(peer, facts)| (*peer, facts.trusts_us)).collect()
    }

    /// The last that was heard of a peer's name and node.
    pub(super) fn who(&self, peer: &PeerId) -> Option<(String, Option<PeerId>)> {
        let ping = &self.peers.get(peer)?.ping.as_ref()?.value;
        Some((ping.peer_name.clone(), ping.ipfs_id.parse().ok()))
    }

    /// Those whose ping counts, by id. Trust is not known here.
    pub(super) fn live(&self, now: Now) -> Vec<GoPeer> {
        let shown = |(peer, facts): (&PeerId, &Facts)| {
            let ping = Fresh::get(&facts.ping, now)?;
            Some(GoPeer {
                peer: *peer,
                name: ping.peer_name.clone(),
                ipfs_id: ping.ipfs_id.parse().ok(),
                node_addresses: if facts.told.node_addresses.is_empty() {
                    ping.ipfs_addresses.clone()
                } else {
                    facts.told.node_addresses.clone()
                },
                free_space: Fresh::get(&facts.free, now).map(|free| ByteCount(*free)),
                measured: facts.measured,
                space_limit: facts.room.map(|room| ByteCount(room.storage_max)).filter(|limit| *limit > ByteCount::ZERO),
                tags: facts
                    .tags
                    .iter()
                    .filter(|(_, fresh)| fresh.until > now.mono)
                    .map(|(tag, fresh)| (tag.clone(), fresh.value.clone()))
                    .collect(),
                pins_held: Fresh::get(&facts.pins, now).copied(),
                pins_queued: Fresh::get(&facts.queue, now).copied().unwrap_or_default(),
                is_trusted: false,
                trusts_us: facts.trusts_us,
                addresses: facts.told.addresses.clone(),
                version: facts.told.version.clone(),
                heard: facts.heard_wall,
            })
        };
        self.peers.iter().filter_map(shown).collect()
    }

    fn make_room(&mut self, from: &PeerId) {
        if self.peers.len() < PEERS_MOST || self.peers.contains_key(from) {
            return;
        }
        if let Some(oldest) = self.peers.iter().min_by_key(|(_, facts)| facts.heard).map(|(peer, _)| *peer) {
            self.peers.remove(&oldest);
        }
    }
}

fn lasts(metric: &Metric, now: Now) -> Millis {
    let promised = (metric.expire / 1_000_000).saturating_sub(now.wall.0 as i64).max(0) as u64;
    Millis(promised.clamp(LASTS_LEAST.0, LASTS_MOST.0))
}

fn bounded(mut ping: PingValue) -> PingValue {
    ping.peer_name = cut(ping.peer_name);
    ping.ipfs_addresses.truncate(ADDRESSES_MOST);
    ping
}

fn cut(text: String) -> String {
    if text.len() <= NAME_MOST { text } else { text.chars().take(NAME_MOST).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::from_ed25519(&[number; 32])
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Millis::seconds(seconds), wall: UnixMillis::from_seconds(1_000_000 + seconds) }
    }

    /// A metric that lasts so many seconds by the clock of a sender that is so many seconds ahead.
    fn metric(name: &str, value: &str, lasts: i64, ahead: i64) -> Vec<u8> {
        let expire = (1_000_000 + lasts + ahead) * 1_000_000_000;
        let metric = Metric { name: name.into(), peer: Some(peer(1)), value: value.into(), expire, valid: true, ..Metric::default() };
        wire::metric::encode_metric(&metric)
    }

    fn heard(metrics: &[Vec<u8>]) -> Heard {
        let mut heard = Heard::default();
        for metric in metrics {
            heard.take(peer(1), metric, at(0)).expect("taken");
        }
        heard
    }

    #[test]
    fn a_peer_is_what_its_metrics_say() {
        let ping = format!(r#"{{"peer_name":"go1","ipfs_id":"{}","ipfs_addresses":["/ip4/1.2.3.4/tcp/4001"],"more":1}}"#, peer(9));
        let metrics = [
            ("ping", &*ping),
            ("freespace", "5000"),
            ("pinqueue", "7"),
            ("tag:group", "rack1"),
            ("tag:zone", "b"),
            ("numpin", "12"),
            ("later", "x"),
        ];
        let metrics = metrics.map(|(name, value)| metric(name, value, 30, 0));
        let peers = heard(&metrics).live(at(1));
        let expected = GoPeer {
            peer: peer(1),
            name: "go1".into(),
            ipfs_id: Some(peer(9)),
            node_addresses: vec!["/ip4/1.2.3.4/tcp/4001".into()],
            free_space: Some(ByteCount(5000)),
            measured: at(0).wall,
            space_limit: None,
            tags: [("group", "rack1"), ("zone", "b")].map(|(tag, value)| (tag.to_owned(), value.to_owned())).into(),
            pins_held: Some(12),
            pins_queued: 7,
            is_trusted: false,
            trusts_us: None,
            addresses: Vec::new(),
            version: String::new(),
            heard: at(0).wall,
        };
        assert_eq!(peers, [expected]);
        assert_eq!(peers[0].domain(), Some("rack1"));
        let many: Vec<Vec<u8>> =
            (0..2 * TAGS_MOST).map(|number| metric(&format!("tag:{number}"), "x", 30, 0)).chain([metrics[0].clone()]).collect();
        assert_eq!(heard(&many).live(at(1))[0].tags.len(), TAGS_MOST);
        assert!(
            heard(&many).live(at(29))[0].domain().is_none()
                && heard(&[metric("tag:group", "default", 30, 0), metrics[0].clone()]).live(at(1))[0].domain().is_none()
        );
        assert!(heard(&metrics[1..]).live(at(1)).is_empty(), "no member without a ping");
    }

    #[test]
    fn freshness_is_by_our_clock_within_bounds() {
        for (lasts, ahead, end) in [(30, 0, 30), (120, 0, 120), (30, -3600, 30), (30, 60, 90), (1 << 30, 0, 600)] {
            let heard = heard(&[metric("ping", "{}", lasts, ahead)]);
            assert_eq!(heard.live(at(end - 1)).len(), 1, "{lasts} {ahead}");
            assert!(heard.live(at(end)).is_empty(), "{lasts} {ahead}");
        }
    }

    #[test]
    fn who_answered_is_there_until_its_ping_is_due() {
        let mut heard = Heard::default();
        let told = Met { name: "met".into(), node_addresses: vec!["/ip4/127.0.0.1/tcp/1".into()], ..Met::default() };
        heard.met(peer(1), told.clone(), at(0));
        heard.trusts(&peer(1), false);
        heard.trusts(&peer(2), true);
        let names = |heard: &Heard, second| heard.live(at(second)).into_iter().map(|go| go.name).collect::<Vec<_>>();
        assert_eq!(names(&heard, 29), ["met"]);
        let live = heard.live(at(0));
        assert_eq!((live.len(), &*live[0].node_addresses[0], live[0].trusts_us), (1, "/ip4/127.0.0.1/tcp/1", Some(false)));
        assert!(names(&heard, 30).is_empty());
        heard.take(peer(1), &metric("ping", r#"{"peer_name":"pinged"}"#, 60, 0), at(20)).expect("taken");
        heard.met(peer(1), told, at(21));
        assert_eq!(names(&heard, 59), ["pinged"]);
    }

    #[test]
    fn nobody_speaks_for_another_and_invalid_metrics_say_nothing() {
        let mut heard = Heard::default();
        let ping = metric("ping", "{}", 30, 0);
        assert_eq!(heard.take(peer(2), &ping, at(0)), Err(Refused::OtherSigner("ping".into())));
        assert!(matches!(heard.take(peer(2), b"\xc1nonsense", at(0)), Err(Refused::Unreadable(_))));
        let invalid = Metric { name: "ping".into(), peer: Some(peer(1)), expire: i64::MAX, ..Metric::default() };
        assert_eq!(heard.take(peer(1), &wire::metric::encode_metric(&invalid), at(0)), Ok(()));
        assert!(heard.live(at(0)).is_empty());
    }

    #[test]
    fn the_longest_silent_peer_makes_room() {
        let mut heard = Heard::default();
        let id = |number: u64| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            PeerId::from_ed25519(&key)
        };
        for number in 0..PEERS_MOST as u64 + 10 {
            let metric = Metric { name: "ping".into(), peer: Some(id(number)), valid: true, ..Metric::default() };
            heard
                .take(id(number), &wire::metric::encode_metric(&metric), Now { mono: Millis(number), wall: UnixMillis(1) })
                .expect("taken");
        }
        assert_eq!(heard.peers.len(), PEERS_MOST);
        assert!(!heard.peers.contains_key(&id(0)) && heard.peers.contains_key(&id(10)));
    }
}
