//! Every byte that must equal Go's, and the protocol between Pinfold peers.
//!
//! Pure functions from values to bytes and back. Each reader is bounded, never panics, and names what was wrong. Nothing here decides,
//! waits, checks a signature or opens a socket.
//!
//! ```text
//! shared state    pin, delta, heads, topic, export, raft
//! gossip          pubsub, metric
//! peer RPC        msgpack, rpc                            (Go peers)
//! our own         peer, record, reconcile, join           (Pinfold peers)
//! blocks          bitswap, kad                            (kad: who has them, in the DHT)
//! local net       mdns                                    (how peers find each other there)
//! people, disk    rest, status, multiaddr, gotime, identity
//! names           ipns
//! over HTTP       delegated                               (who has what, as a delegated router says)
//! daemons         kubo, flatfs                            (what a Kubo answers, and how its blocks lie)
//! below           protobuf, cids
//! ```
//!
//! Start with [`pin`], then [`delta`]. What Go writes is recorded in `tests/vectors`.

pub mod pin;

pub mod delta;
pub mod heads;
pub mod topic;

pub mod export;
pub mod raft;

pub mod metric;
pub mod pubsub;

pub mod msgpack;
pub mod rpc;

pub mod join;
pub mod peer;
pub mod reconcile;
pub mod record;

pub mod bitswap;
pub mod delegated;
pub mod kad;

pub mod flatfs;
pub mod mdns;

pub mod gotime;
pub mod identity;
pub mod ipns;
pub mod kubo;
pub mod multiaddr;
pub mod rest;
pub mod status;

pub mod cids;
pub mod protobuf;

pub use crate::delta::{AuthorSignature, CrdtNode, Delta, Element, cid_of_key, decode_node, element_id, encode_node, pin_key};
pub use crate::heads::{decode_heads, encode_heads};
pub use crate::pin::{PinDecodeError, decode_pin, encode_pin, pin_version};
pub use crate::topic::{METRICS_TOPIC, crdt_topic};
