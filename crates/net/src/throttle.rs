//! Limits of bandwidth: how many bytes a peer sends and receives in a second, on the local net and beyond it apart.
//!
//! ```text
//!   TCP:   socket ─► Throttled ─► private network ─► TLS or Noise ─► yamux      everything that goes over the wire counts
//!   QUIC:  connection ─► ThrottledMuxer ─► its streams                          what streams carry counts, the frames around it do not
//! ```
//! One [`Throttle`] serves both hosts of a peer, so all protocols share the limits. Where a limit stands, each direction has a [`Bucket`]: who
//! finds it in debt waits. The receiving side simply reads no faster; the sender's window does the rest. [`Throttle::before_others`] gives a
//! host whose bytes count the same and wait less, so that a few words of the control path do not stand behind a gigabyte.

mod bucket;
mod ranges;
mod stream;

pub use self::bucket::Bucket;
pub use self::ranges::{BadRange, IpRange};
pub(crate) use self::stream::{Throttled, ThrottledMuxer};

use parking_lot::{Mutex, RwLock};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Which net a connection goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The local one: private, link-local and loopback addresses unless other ranges are configured.
    Lan,
    /// Anything else.
    Wan,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To others.
    Up,
    /// From others.
    Down,
}

/// Bytes in a second; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandwidthLimits {
    /// To peers on the local net.
    pub lan_up: Option<NonZeroU64>,
    /// From peers on the local net.
    pub lan_down: Option<NonZeroU64>,
    /// To all others.
    pub wan_up: Option<NonZeroU64>,
    /// From all others.
    pub wan_down: Option<NonZeroU64>,
}

/// Bytes that went over the wire since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To peers on the local net.
    pub lan_up: u64,
    /// From peers on the local net.
    pub lan_down: u64,
    /// To all others.
    pub wan_up: u64,
    /// From all others.
    pub wan_down: u64,
}

/// The limits of one peer, shared by all its connections; changed while they run.
#[derive(Clone, Debug)]
pub struct Throttle {
    inner: Arc<Inner>,
    /// How far in debt a bucket may be, in seconds of its rate, before this host waits.
    credit: Duration,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    lanes: [Lane; 4],
    lan: RwLock<Vec<IpRange>>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Bytes in a second; 0 is no limit.
    rate: AtomicU64,
    moved: AtomicU64,
    bucket: Mutex<Bucket>,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle::new(Vec::new())
    }
}

impl Throttle {
    /// No limits yet. `lan`: what counts as the local net; empty for the usual ranges.
    pub fn new(lan: Vec<IpRange>) -> Throttle {
        let lan = RwLock::new(if lan.is_empty() { ranges::usual() } else { lan });
        Throttle { inner: Arc::new(Inner { started: Instant::now(), lanes: Default::default(), lan }), credit: Duration::ZERO }
    }

    /// The same limits for a host that waits less.
    pub fn before_others(&self) -> Throttle {
        Throttle { inner: self.inner.clone(), credit: Duration::from_millis(250) }
    }

    /// Sets the limits, from now on.
    pub fn set(&self, limits: BandwidthLimits) {
        let now = self.now();
        for (lane, limit) in self.inner.lanes.iter().zip([limits.lan_up, limits.lan_down, limits.wan_up, limits.wan_down]) {
            let rate = limit.map_or(0, NonZeroU64::get);
            if lane.rate.swap(rate, Ordering::Relaxed) != rate {
                *lane.bucket.lock() = Bucket::new(rate, now);
            }
        }
    }

    /// The limits now.
    pub fn limits(&self) -> BandwidthLimits {
        let [lan_up, lan_down, wan_up, wan_down] =
            [0, 1, 2, 3].map(|lane| NonZeroU64::new(self.inner.lanes[lane].rate.load(Ordering::Relaxed)));
        BandwidthLimits { lan_up, lan_down, wan_up, wan_down }
    }

    /// What went over the wire so far.
    pub fn traffic(&self) -> Traffic {
        let [lan_up, lan_down, wan_up, wan_down] = [0, 1, 2, 3].map(|lane| self.inner.lanes[lane].moved.load(Ordering::Relaxed));
        Traffic { lan_up, lan_down, wan_up, wan_down }
    }

    /// Whether any limit stands: then an answer may be late without anybody being gone.
    pub fn is_limiting(&self) -> bool {
        self.inner.lanes.iter().any(|lane| lane.rate.load(Ordering::Relaxed) != 0)
    }

    /// Which net an address belongs to.
    pub fn reach(&self, address: IpAddr) -> Reach {
        let address = address.to_canonical();
        if self.inner.lan.read().iter().any(|range| range.contains(address)) { Reach::Lan } else { Reach::Wan }
    }

    fn lane(&self, reach: Reach, way: Way) -> &Lane {
        let index = match (reach, way) {
            (Reach::Lan, Way::Up) => 0,
            (Reach::Lan, Way::Down) => 1,
            (Reach::Wan, Way::Up) => 2,
            (Reach::Wan, Way::Down) => 3,
        };
        &self.inner.lanes[index]
    }

    fn now(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// How many bytes may go at once, or how long to wait first.
    fn grant(&self, reach: Reach, way: Way) -> Result<usize, Duration> {
        let lane = self.lane(reach, way);
        let rate = lane.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return Ok(usize::MAX);
        }
        let wait = lane.bucket.lock().wait(self.now(), self.credit);
        if wait > Duration::ZERO { Err(wait) } else { Ok(bucket::portion(rate)) }
    }

    /// So many went.
    fn charge(&self, reach: Reach, way: Way, bytes: usize) {
        let lane = self.lane(reach, way);
        lane.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        if lane.rate.load(Ordering::Relaxed) != 0 {
            lane.bucket.lock().take(self.now(), bytes as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bytes: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bytes)
    }

    #[test]
    fn limits_stand_for_their_net_and_way_alone_and_are_changed_while_they_run() {
        let throttle = Throttle::default();
        assert!(!throttle.is_limiting());
        assert_eq!(throttle.grant(Reach::Wan, Way::Up), Ok(usize::MAX));
        let limits = BandwidthLimits { wan_up: rate(1_000_000), ..BandwidthLimits::default() };
        throttle.set(limits);
        assert_eq!(throttle.limits(), limits);
        throttle.charge(Reach::Wan, Way::Up, 10_000_000);
        assert!(throttle.grant(Reach::Wan, Way::Up).is_err_and(|wait| wait > Duration::from_secs(5)), "ten seconds' worth went");
        assert_eq!(throttle.grant(Reach::Wan, Way::Down), Ok(usize::MAX));
        assert_eq!(throttle.grant(Reach::Lan, Way::Up), Ok(usize::MAX));
        throttle.set(BandwidthLimits::default());
        assert_eq!(throttle.grant(Reach::Wan, Way::Up), Ok(usize::MAX), "no limit any more");
        assert_eq!(throttle.traffic(), Traffic { wan_up: 10_000_000, ..Traffic::default() });
    }

    #[test]
    fn the_control_path_waits_less_and_counts_the_same() {
        let throttle = Throttle::default();
        throttle.set(BandwidthLimits { lan_up: rate(1_000_000), ..BandwidthLimits::default() });
        let control = throttle.before_others();
        throttle.charge(Reach::Lan, Way::Up, 200_000);
        assert!(throttle.grant(Reach::Lan, Way::Up).is_err());
        assert!(control.grant(Reach::Lan, Way::Up).is_ok());
        control.charge(Reach::Lan, Way::Up, 1_000_000);
        assert!(control.grant(Reach::Lan, Way::Up).is_err(), "within reason");
    }

    #[test]
    fn nets_are_told_apart_by_their_addresses() {
        let throttle = Throttle::default();
        for (address, reach) in [
            ("127.0.0.1", Reach::Lan),
            ("10.1.2.3", Reach::Lan),
            ("172.31.0.1", Reach::Lan),
            ("172.32.0.1", Reach::Wan),
            ("192.168.7.7", Reach::Lan),
            ("169.254.1.1", Reach::Lan),
            ("8.8.8.8", Reach::Wan),
            ("::1", Reach::Lan),
            ("fe80::1", Reach::Lan),
            ("fd00::1", Reach::Lan),
            ("2001:db8::1", Reach::Wan),
            ("::ffff:10.0.0.1", Reach::Lan),
        ] {
            assert_eq!(throttle.reach(address.parse().unwrap()), reach, "{address}");
        }
        let own = Throttle::new(vec!["100.64.0.0/10".parse().unwrap()]);
        assert_eq!(own.reach("100.100.1.1".parse().unwrap()), Reach::Lan);
        assert_eq!(own.reach("127.0.0.1".parse().unwrap()), Reach::Wan, "configured ranges stand instead of the usual ones");
    }
}
