//! Names: keys of this peer, records of the cluster, and where a path that begins with a name leads.
//!
//! ```text
//!   doors ──► Names ──► resolve: own and the cluster's records ─► routing ─► (DNSLink) table ─► DNS
//!               ├─────► publish, renew: keys ─► a record ─► registers (every member) ─► routing
//!               └─────► keystore (files of this peer alone)
//! ```
//! A record proves itself by the key of its name, so it does not matter who brought it: members spread records as signed registers
//! ([`registers`]), and the best one counts (higher sequence, then longer validity) whoever wrote it. The peer that has the key renews
//! its records while it runs; nobody else can.
//!
//! Start with [`resolve`].

mod cache;
mod dnslink;
mod keystore;
mod publish;
mod registers;
mod renew;
mod resolve;
#[cfg(test)]
mod tests;

pub use self::dnslink::{DnsLink, DnsLinkError, TxtLookup};
pub use self::keystore::{KeyInfo, Keystore, KeystoreError, SELF};
pub use self::publish::{LIFETIME, Publish, PublishError, Published, TTL};
pub use self::registers::{ClusterRegisters, MemoryRegisters, Registers, Written};
pub use self::resolve::{From, How, NameError, Resolved, Step};

pub use net::dns::{DnsError, Texts};

use self::cache::Cache;
use ipfs::values::ValueRouting;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use types::{PeerId, UnixMillis};
use wire::gotime::GoTime;
use wire::ipns::{self, Record, RecordError};

/// What names are made of.
pub struct NamesOptions {
    /// Where the keys lie.
    pub keys: Keystore,
    /// Names of the domain name system.
    pub links: DnsLink,
    /// Where records of others are looked for and own ones are told; may be empty.
    pub routing: Vec<Arc<dyn ValueRouting>>,
    /// How often a record is renewed at least.
    pub renew_every: Duration,
}

/// Everything about names; one per peer.
pub struct Names {
    keys: Keystore,
    links: DnsLink,
    routing: Vec<Arc<dyn ValueRouting>>,
    renew_every: Duration,
    registers: Arc<dyn Registers>,
    cache: Cache,
    /// Held from reading the last sequence to writing the next one.
    publishing: Mutex<()>,
    /// Something was published: the time of the next renewal may have changed.
    published: Notify,
}

impl Names {
    /// Over registers that reach every member.
    pub fn new(options: NamesOptions, registers: Arc<dyn Registers>) -> Arc<Names> {
        let NamesOptions { keys, links, routing, renew_every } = options;
        let (publishing, published) = (Mutex::new(()), Notify::new());
        Arc::new(Names { keys, links, routing, renew_every, registers, cache: Cache::default(), publishing, published })
    }

    /// The keys of this peer.
    pub fn keys(&self) -> &Keystore {
        &self.keys
    }

    /// What would be asked for records that no member has; empty when nothing is set up.
    pub fn routing(&self) -> Vec<String> {
        self.routing.iter().map(|router| router.label()).collect()
    }

    /// The records that this peer wrote, with their names.
    pub fn published(&self) -> Result<Vec<(PeerId, Record, UnixMillis)>, NameError> {
        let written = self.registers.mine().map_err(NameError::Storage)?;
        let read = |written: Written| Some((written.name, ipns::decode(&written.record).ok()?, written.at));
        Ok(written.into_iter().filter_map(read).collect())
    }
}

/// Reads a record and checks that it is the name's; whether it is still valid is not looked at.
pub fn verified(name: &PeerId, bytes: &[u8]) -> Result<Record, RecordError> {
    let record = ipns::decode(bytes)?;
    record.verify(name, net::keys::is_signed)?;
    Ok(record)
}

fn now() -> GoTime {
    crate::clock::wall().into()
}

/// The key under which routing has the record of a name.
fn routing_key(name: &PeerId) -> Vec<u8> {
    [b"/ipns/", name.as_bytes()].concat()
}
