//! A libp2p host: dialling, private network, gossip, bitswap, streams of blocks and of messages.
//!
//! Used twice in one process: the *cluster host* (private network, gossip, the CRDT's blocks) and the *node host* (QUIC and TLS,
//! bulk blocks). This is the only crate that names libp2p's behaviours; everything above sees [`Host`], plain types and channels.
//! What a message means is deliberately absent: bytes come in with the peer they came from, bytes go out.
//!
//! ```text
//!            Host (handle)            Bitswap        Messages        BlockLane / serve_lanes
//!               │  commands              └──────────────┴───────────────────┘
//!        ┌──────▼───────┐                               │ open, accept
//!        │ host::driver │ one task, owns the Swarm      │
//!        └──────┬───────┘                        ┌──────▼──────┐
//!               └── dial, listen, gossip, kad ───│   streams   │ negotiated, bounded, never silently dropped
//!                                                └─────────────┘
//! ```
//!
//! [`http`] asks servers that the user named, beside libp2p. [`kad`] finds content and peers among strangers, over streams as everything of our own.
//!
//! Start with [`host`], then [`streams`]; [`frame`] is how every own protocol cuts a stream into messages.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected"))]

pub mod bitswap;
pub mod blockstream;
mod direct;
pub mod dns;
pub mod frame;
pub mod gorpc;
pub mod host;
pub mod http;
pub mod kad;
pub mod keys;
pub mod messages;
mod peer;
pub mod streams;
pub mod throttle;

pub use bitswap::{Bitswap, BitswapLimits, BlockSource, FetchError, Session};
pub use blockstream::{Admission, BlockLane, LaneError, LaneGate, LaneHeader, LaneKind, LaneReceiver, LaneRefusal, LaneSink, serve_lanes};
pub use host::{
    CLUSTER_SERVICE, ConnectError, DialError, GossipOptions, Host, HostError, HostEvent, HostEvents, HostOptions, NODE_SERVICE, Path,
    PeerInfo, PublishError, Reach, ReachOptions, Reachability, Reachable, RelayFor, Stats,
};
pub use messages::{MessageLimits, Messages, Received, SendError};
pub use streams::{Incoming, OpenError, Stream};
pub use throttle::{BandwidthLimits, IpRange, Throttle, Traffic};
