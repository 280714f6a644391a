//! Pins of owners: claims as signed records, and the pin that follows them.

use crate::core::Core;
use crate::handle::{ClaimRow, CommandError, Released};
use crate::records;
use cluster::owner::{self, Claim};
use cluster::{Answer, Command};
use ed25519_dalek::SigningKey;
use std::sync::Arc;
use types::{Cid, Depth, PeerId, Pin, PinOptions, RecordKey, RecordKind, SignedRecord};

/// Speaks for owners through this peer.
pub struct Claiming {
    core: Arc<Core>,
    key: SigningKey,
    me: PeerId,
    /// Held from reading a version to writing the next one.
    writing: tokio::sync::Mutex<()>,
}

impl Claiming {
    /// For this peer.
    pub fn new(core: Arc<Core>, key: SigningKey, me: PeerId) -> Claiming {
        Claiming { core, key, me, writing: tokio::sync::Mutex::new(()) }
    }

    /// Keeps a CID for an owner. The claim is written first: what is written after it can be made good by any member.
    pub async fn claim(&self, cid: Cid, owner: &str, name: &str, options: PinOptions) -> Result<Pin, CommandError> {
        owner::check(owner, name).map_err(|error| CommandError::Bad(error.to_string()))?;
        if self.pin_of(&cid).is_some_and(|pin| pin.depth != Depth::Recursive && pin.kind == types::PinKind::Data) {
            return Err(CommandError::Bad(format!("{cid} is pinned without what lies below it: unpin it first")));
        }
        let _one_at_a_time = self.writing.lock().await;
        let claim = Claim { cid, replicas: options.replicas, expires: options.expires };
        let before = self.core.read(|machine, now| machine.claims().get(owner, name, now.wall).cloned());
        self.write(owner, name, Some(&claim)).await?;
        match self.follow(cid, options).await {
            Ok(Some(pin)) => {
                if let Some(before) = before.filter(|before| before.cid != cid) {
                    self.follow(before.cid, PinOptions::default()).await?;
                }
                Ok(pin)
            }
            Ok(None) => Err(CommandError::Failed(format!("{cid} was claimed and is not pinned: try again"))),
            Err(error) => {
                // The claim alone would be made good later, by whoever can.
                self.write(owner, name, before.as_ref()).await?;
                Err(error)
            }
        }
    }

    /// An owner lets go.
    pub async fn release(&self, owner: &str, what: Released) -> Result<Vec<Pin>, CommandError> {
        let _one_at_a_time = self.writing.lock().await;
        let rows = self.rows(Some(owner)).into_iter().filter(|row| match &what {
            Released::Name(name) => row.name == *name,
            Released::Cid(cid) => row.claim.cid == *cid,
        });
        let rows: Vec<ClaimRow> = rows.collect();
        if rows.is_empty() {
            return Err(CommandError::NotPinned);
        }
        let mut pins = Vec::new();
        for row in rows {
            pins.extend(self.pin_of(&row.claim.cid));
            self.write(owner, &row.name, None).await?;
            self.follow(row.claim.cid, PinOptions::default()).await?;
        }
        Ok(pins)
    }

    /// What is kept for owners.
    pub fn rows(&self, owner: Option<&str>) -> Vec<ClaimRow> {
        let row = |(owner, name): &owner::Named, claim: &Claim| ClaimRow { owner: owner.clone(), name: name.clone(), claim: claim.clone() };
        self.core.read(|machine, now| {
            let all = machine.claims().all(now.wall).filter(|((of, _), _)| owner.is_none_or(|owner| owner == of));
            all.map(|(named, claim)| row(named, claim)).collect()
        })
    }

    fn pin_of(&self, cid: &Cid) -> Option<Pin> {
        let view = crate::view::View::new(self.core.consensus.as_ref(), self.core.store.as_ref());
        cluster::SharedView::pin(&view, cid).map(|(pin, _)| pin)
    }

    async fn write(&self, owner: &str, name: &str, claim: Option<&Claim>) -> Result<(), CommandError> {
        if let Some(why) = self.core.read(|machine, _| machine.why_no_writes()) {
            return Err(why.into());
        }
        let key = owner::register_key(owner, name);
        let version = self.core.read(|machine, _| machine.next_version(RecordKind::Claim, &key));
        let register = RecordKey { kind: RecordKind::Claim, key: key.clone(), author: self.me };
        let record: SignedRecord = records::sign_value(&self.key, register, version, self.core.now().wall, claim.map(Claim::encode));
        match self.core.command(Command::SetRecord { record: record.clone() }).await {
            Some(Answer::Refused(why)) => return Err(why.into()),
            Some(_) => {}
            None => return Err(CommandError::Stopping),
        }
        // A failing disk is only logged: what is there counts.
        let kept =
            records::about(self.core.store.as_ref(), RecordKind::Claim, &key).map_err(|error| CommandError::Failed(error.to_string()))?;
        if kept.contains(&record) {
            return Ok(());
        }
        Err(CommandError::Failed("the disk did not take the claim: the log says why".to_owned()))
    }

    /// Lets the pin follow the claims; none where nothing is pinned then.
    async fn follow(&self, cid: Cid, wished: PinOptions) -> Result<Option<Pin>, CommandError> {
        match self.core.command(Command::FollowClaims { cid, wished: Box::new(wished) }).await {
            Some(Answer::Pinned(pin)) => Ok(Some(*pin)),
            Some(Answer::Unpinned(_) | Answer::NotPinned) => Ok(None),
            Some(Answer::Refused(why)) => Err(why.into()),
            Some(_) => Err(CommandError::Failed("the machine gave an answer of another kind".to_owned())),
            None => Err(CommandError::Stopping),
        }
    }
}
