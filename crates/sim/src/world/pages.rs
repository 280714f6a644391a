//! Pages of the set, for peers that join.

use super::World;
use crate::queue::{Packet, Place, What};
use bytes::Bytes;
use consensus::crdt;
use std::rc::Rc;
use store::Store;

/// A question is given up after so long.
const ANSWER_WITHIN: u64 = 5_000;

impl World {
    pub(super) fn fetch_page(&mut self, place: Place, other: Option<Place>, after: Vec<u8>) {
        let life = self.peers[place].life;
        let (Some(other), Some(running)) = (other, self.peers[place].running.as_mut()) else { return };
        running.page_asked = Some((after.clone(), other));
        self.send(place, other, &Packet::WantPage(Rc::new(after.clone())));
        self.at(self.now + ANSWER_WITHIN, What::PageLate(place, life, after, other));
    }

    pub(super) fn page_wanted(&mut self, from: Place, to: Place, after: Rc<Vec<u8>>) {
        let answer = match crdt::page(self.peers[to].store.snapshot(), &after) {
            Ok(answer) => answer,
            Err(error) => panic!("the store in memory refused a page: {error}"),
        };
        self.send(to, from, &Packet::Page(after, answer.into()));
    }

    pub(super) fn page_came(&mut self, from: Place, to: Place, after: &[u8], bytes: Bytes) {
        let is_asked = |asked: &mut (Vec<u8>, Place)| asked.0 == after && asked.1 == from;
        if self.peers[to].running.as_mut().is_some_and(|running| running.page_asked.take_if(is_asked).is_some()) {
            let from = self.peers[from].id;
            self.tell_crdt(to, crdt::Event::Page { from, bytes });
        }
    }

    pub(super) fn page_late(&mut self, place: Place, life: u32, after: &[u8], other: Place) {
        if self.lives(place, life) {
            self.page_came(other, place, after, Bytes::new());
        }
    }
}
