//! Whose blocks of the shared state count: what records say is handed to the consensus.
//!
//! An author once known stays known, on every peer, whatever becomes of it (`consensus::crdt::author` says why).

use crate::core::Core;
use crate::records;
use cluster::{Notice, signing};
use consensus::Finding;
use types::{PeerId, SignedRecord};

impl Core {
    /// What the records on this disk make known, before anything comes from others.
    pub(crate) fn know_first_authors(&self, records: &[SignedRecord], me: PeerId) {
        self.know_authors(signing::authors(records).into_iter().chain([me]));
    }

    /// A record was accepted.
    pub(crate) fn author_record(&self, record: &SignedRecord) {
        if let Some(author) = signing::author_of(&record.key) {
            self.know_authors([author]);
        }
        if signing::ends_signing(record) {
            self.consensus.accept_unsigned();
        }
    }

    /// Records came that may not be accepted: whom a former member let in wrote things that others have merged.
    pub(crate) fn records_of_former_members(&self, records: &[SignedRecord]) {
        let makes_known = |record: &&SignedRecord| {
            let author = signing::author_of(&record.key);
            author.is_some_and(|author| !self.trust.is_author(&author))
                && self.trust.is_author(&record.key.author)
                && records::verify(record)
        };
        let authors: Vec<PeerId> = records.iter().filter(makes_known).filter_map(|record| signing::author_of(&record.key)).collect();
        self.know_authors(authors);
    }

    pub(crate) fn know_authors(&self, authors: impl IntoIterator<Item = PeerId>) {
        if let Some(known) = self.trust.know_authors(authors) {
            self.consensus.authors_known(known);
        }
    }

    /// The consensus found a fault in a block's author.
    pub(crate) fn found(&self, finding: Finding) {
        let Finding { block, author, fault, is_left_out } = finding;
        self.note(Notice::Author { block, author, fault: fault.to_string(), is_left_out });
    }
}
