//! Balancing, as a taker: how much of what others offer finds a place here.
//!
//! What was taken up counts as if it had come, until the giver says that all of it is confirmed; so two givers never fill the
//! same place. A giver that falls silent is not waited for: its shipment lapses, and what it wrote is in the wish anyway.

use crate::Effect;
use crate::context::Context;
use crate::decisions::{Balancing, Duty};
use crate::look::Look;
use crate::placement::balance::{self, Taker};
use crate::repair::shares;
use std::collections::BTreeMap;
use types::{ByteCount, Millis, Offer, PeerId, PeerMessage};

/// A giver repeats its offer every few seconds; after so long without a word its shipment lapses.
const LAPSES: Millis = Millis::minutes(1);

/// What was taken up, by giver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taking {
    agreed: BTreeMap<PeerId, Agreed>,
}

#[derive(Clone, Copy, Debug)]
struct Agreed {
    shipment: u64,
    bytes: u64,
    until: Millis,
}

impl Taking {
    /// Answers an offer. `copies`: of an item on average, in thousandths; none before they were counted.
    pub fn offered(&mut self, giver: PeerId, offer: &Offer, copies: Option<u64>, look: Look, ctx: &mut Context) {
        let now = look.now;
        self.agreed.retain(|_, agreed| agreed.until > now.mono);
        let is_known = self.agreed.get(&giver).is_some_and(|agreed| agreed.shipment == offer.shipment);
        if offer.bytes == ByteCount::ZERO {
            if is_known {
                self.agreed.remove(&giver);
            }
            return;
        }
        let until = now.after(LAPSES);
        let bytes = if is_known {
            self.agreed.get(&giver).map_or(0, |agreed| agreed.bytes.min(offer.bytes.get()))
        } else {
            self.agreed.remove(&giver);
            self.taker(copies, look, ctx).map_or(0, |taker| taker.accepts(offer))
        };
        if bytes > 0 {
            self.agreed.insert(giver, Agreed { shipment: offer.shipment, bytes, until });
        }
        ctx.effects.push(Effect::Tell(giver, PeerMessage::Take { shipment: offer.shipment, bytes: ByteCount(bytes) }));
    }

    /// How this peer stands; none when it takes nothing.
    fn taker(&self, copies: Option<u64>, look: Look, ctx: &Context) -> Option<Taker> {
        let me = look.options.me;
        let takes_none = look.is_leaving || look.decisions.duty(&me) != Duty::InUse || look.decisions.balancing().0 == Balancing::Off;
        if takes_none || !ctx.is_current() || look.health.is_split() {
            return None;
        }
        let (shares, moving) = shares(look)?;
        let targets = balance::targets(&shares, moving, copies?);
        let (own, target) = shares.iter().zip(targets).find(|(share, _)| share.peer == me)?;
        let coming = self.agreed.values().fold(0u64, |sum, agreed| sum.saturating_add(agreed.bytes));
        let placed = own.placed.saturating_add(coming);
        let lack = target.saturating_sub(placed);
        Some(Taker { placed, capacity: own.capacity, lack, room: look.space.free().get().saturating_sub(coming) })
    }
}
