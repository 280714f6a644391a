//! The records of a running peer, for exchanges: read from its disk, and taken through its machine.

use super::Shelf;
use crate::core::Core;
use crate::records;
use async_trait::async_trait;
use cluster::Event;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use types::{PeerId, PeerMessage, SignedRecord};
use wire::reconcile::RecordName;

/// What [`Core`] keeps.
pub struct CoreShelf(Weak<Core>);

impl CoreShelf {
    /// Of this peer.
    pub fn new(core: &Arc<Core>) -> Arc<CoreShelf> {
        Arc::new(CoreShelf(Arc::downgrade(core)))
    }
}

#[async_trait]
impl Shelf for CoreShelf {
    async fn names(&self) -> Result<BTreeMap<RecordName, Vec<u8>>, String> {
        let Some(core) = self.0.upgrade() else { return Err("this peer stops".to_owned()) };
        // Hashing thousands of records takes milliseconds.
        let reading = tokio::task::spawn_blocking(move || records::names(core.store.as_ref()));
        reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    fn record(&self, key: &[u8]) -> Option<SignedRecord> {
        records::under(self.0.upgrade()?.store.as_ref(), key)
    }

    fn take(&self, from: PeerId, records: Vec<SignedRecord>) {
        let Some(core) = self.0.upgrade() else { return };
        core.records_of_former_members(&records);
        core.feed(Event::Message(from, PeerMessage::Records(records)));
    }

    fn is_member(&self, peer: &PeerId) -> bool {
        self.0.upgrade().is_some_and(|core| core.trust.is_member(peer))
    }
}
