//! The shell around the machine: waits for events, performs effects, and gives doors one handle.
//!
//! It decides nothing; `cluster` does.
//!
//! ```text
//!   doors ──► handle::Cluster ──► Peer ──► core (one machine behind a lock) ──► perform (own node)
//!                                            │    ▲                        └──► consensus
//!   other members ◄── links (messages) ◄─────┘    └── hints, links, space, clock
//! ```
//! Start with [`handle`] (what doors see), then [`core`] (how the machine is fed), then [`links`].

mod addresses;
pub mod adopt;
mod answering;
mod authors;
mod bulk;
mod claims;
pub mod clock;
pub mod core;
pub mod crdt_network;
mod exchange;
mod fill;
mod garbage;
pub mod go;
pub mod handle;
pub mod join;
mod limits;
pub mod links;
mod looker;
mod mind;
mod moving;
pub mod names;
mod node;
mod origins;
mod parts;
mod paths;
mod peer;
mod perform;
mod reach;
pub mod records;
mod scrub;
mod sharded;
mod spread;
mod submitter;
pub mod trust;
pub mod view;
mod waiting;
mod words;

pub use adopt::Adopt;
pub use consensus::{AuthorNumbers, Finding};
pub use handle::{AddSession, ClaimRow, Cluster, CommandError, Identity, Imported, Live, Moment, PinReader, Released, Totals};
pub use limits::{BadRule, LimitsAsk, LimitsOptions, LimitsReport, Rule};
pub use names::{Names, NamesOptions};
pub use net::{Path, Reach, Reachability};
pub use node::ClusterNode;
pub use parts::Parts;
pub use paths::Paths;
pub use peer::{Ending, Inbound, Peer, Protocols};
pub use scrub::{ScrubAsk, ScrubOptions, ScrubPhase, ScrubReport};
pub use trust::Trust;
