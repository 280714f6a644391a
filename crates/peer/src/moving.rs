//! Drain, cordon, balance: decisions about peers as signed records, and plans over all pins.

use crate::core::Core;
use crate::handle::CommandError;
use crate::records;
use crate::view::View;
use cluster::plan::{Goal, Plan, Planner};
use cluster::{Answer, Balancing, Command, Duty, SharedView, signing};
use ed25519_dalek::SigningKey;
use std::collections::VecDeque;
use std::sync::Arc;
use types::{ByteCount, Cid, PeerId, RecordKey, RecordKind};

/// Pins read at a time.
const PAGE: usize = 1_000;

/// Makes decisions in the name of this peer.
pub struct Moving {
    core: Arc<Core>,
    key: SigningKey,
    me: PeerId,
    /// Held from reading a version to writing the next one.
    deciding: tokio::sync::Mutex<()>,
}

impl Moving {
    /// For this peer.
    pub fn new(core: Arc<Core>, key: SigningKey, me: PeerId) -> Moving {
        Moving { core, key, me, deciding: tokio::sync::Mutex::new(()) }
    }

    /// Decides what a member is there for.
    pub async fn set_duty(&self, peer: &PeerId, duty: Duty) -> Result<(), CommandError> {
        self.check_member(peer)?;
        self.decide(RecordKind::Duty, peer.as_bytes(), duty.as_str()).await
    }

    /// Decides how copies are balanced.
    pub async fn set_balancing(&self, mode: Balancing) -> Result<(), CommandError> {
        self.decide(RecordKind::Balance, b"", mode.as_str()).await
    }

    /// Decides that what no member signed counts too.
    pub async fn accept_unsigned(&self) -> Result<(), CommandError> {
        let word = std::str::from_utf8(signing::AUDITED).unwrap_or_default();
        self.decide(RecordKind::Signing, b"", word).await
    }

    /// Go peers hold copies too.
    fn check_member(&self, peer: &PeerId) -> Result<(), CommandError> {
        let is_go = self.core.go().is_some_and(|go| go.is_go(peer));
        if self.core.trust.is_member(peer) || *peer == self.me || is_go {
            return Ok(());
        }
        Err(CommandError::Bad(format!("{peer} is no member of this cluster: see `pinfold peers`")))
    }

    async fn decide(&self, kind: RecordKind, key: &[u8], word: &str) -> Result<(), CommandError> {
        let _one_at_a_time = self.deciding.lock().await;
        let version = self.core.read(|machine, _| machine.next_version(kind, key));
        let register = RecordKey { kind, key: key.to_vec(), author: self.me };
        let record = records::sign(&self.key, register, version, self.core.now().wall, word.as_bytes().to_vec());
        match self.core.command(Command::SetRecord { record }).await {
            Some(Answer::Refused(why)) => Err(why.into()),
            Some(_) => Ok(()),
            None => Err(CommandError::Stopping),
        }
    }

    /// Plans over all pins as they are; the machine is looked at only for a moment.
    pub async fn plan(&self, goal: Goal) -> Result<Plan, CommandError> {
        if let Goal::Drain(peer) = goal {
            self.check_member(&peer)?;
        }
        let (core, me) = (self.core.clone(), self.me);
        let planned = tokio::task::spawn_blocking(move || plan(&core, &me, goal)).await;
        planned.map_err(|error| CommandError::Failed(format!("planning: {error}")))
    }
}

fn plan(core: &Core, me: &PeerId, goal: Goal) -> Plan {
    let start = core.read(|machine, now| machine.plan_start(now));
    let mut planner = Planner::new(start, goal);
    let view = View::new(core.consensus.as_ref(), core.store.as_ref());
    let mut sizes = Sizes { view: &view, page: VecDeque::new(), after: None, has_ended: false };
    let mut after = None;
    loop {
        let mut last = None;
        let seen = view.each_pin_after(after.as_ref(), PAGE, &mut |pin, _| {
            let size = if pin.placement.contains(me) { sizes.of(&pin.cid) } else { None };
            planner.pin(pin, size);
            last = Some(pin.cid);
        });
        if seen < PAGE {
            return planner.finish();
        }
        after = last;
    }
}

/// The sizes of the ledger, read along with the pins; both are sorted by the CID's bytes.
struct Sizes<'a> {
    view: &'a View<'a>,
    page: VecDeque<(Cid, ByteCount)>,
    after: Option<Cid>,
    has_ended: bool,
}

impl Sizes<'_> {
    fn of(&mut self, cid: &Cid) -> Option<ByteCount> {
        loop {
            match self.page.front() {
                None if self.has_ended => return None,
                None => {
                    let page = self.view.ledger_after(self.after.as_ref(), PAGE);
                    self.has_ended = page.len() < PAGE;
                    self.after = page.last().map(|(cid, _)| *cid);
                    self.page.extend(page);
                }
                Some((found, size)) => match cluster::order::byte_order(found, cid) {
                    std::cmp::Ordering::Less => drop(self.page.pop_front()),
                    std::cmp::Ordering::Equal => return Some(*size).filter(|size| *size > ByteCount::ZERO),
                    std::cmp::Ordering::Greater => return None,
                },
            }
        }
    }
}
