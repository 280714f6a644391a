//! Records as signed registers, which reach every member and stay on every disk.

use crate::core::Core;
use crate::handle::CommandError;
use crate::records;
use async_trait::async_trait;
use cluster::{Answer, Command};
use ed25519_dalek::SigningKey;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{PeerId, RecordKey, RecordKind, SignedRecord, UnixMillis};

/// A record and who wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The name it is of.
    pub name: PeerId,
    /// Whether this peer wrote it.
    pub is_mine: bool,
    /// When, by the writer's clock.
    pub at: UnixMillis,
    /// The record; it has been checked when it came, and is checked again by whoever uses it.
    pub record: Vec<u8>,
}

/// Keeps records for all members.
#[async_trait]
pub trait Registers: Send + Sync + 'static {
    /// What members wrote about a name.
    fn of(&self, name: &PeerId) -> Result<Vec<Written>, String>;
    /// What this peer wrote.
    fn mine(&self) -> Result<Vec<Written>, String>;
    /// Writes a record, or takes the own one back; on disk when it returns, with the other members soon after.
    async fn write(&self, name: &PeerId, record: Option<Vec<u8>>) -> Result<(), CommandError>;
}

/// In the registers of the cluster.
pub struct ClusterRegisters {
    core: Arc<Core>,
    key: SigningKey,
    me: PeerId,
    /// Held from reading a version to writing the next one.
    writing: tokio::sync::Mutex<()>,
}

impl ClusterRegisters {
    /// In the name of this peer.
    pub fn new(core: Arc<Core>, key: SigningKey, me: PeerId) -> ClusterRegisters {
        ClusterRegisters { core, key, me, writing: tokio::sync::Mutex::new(()) }
    }

    fn written(&self, register: SignedRecord) -> Option<Written> {
        let name = PeerId::from_bytes(&register.key.key).ok()?;
        Some(Written { name, is_mine: register.key.author == self.me, at: register.written, record: register.value? })
    }
}

#[async_trait]
impl Registers for ClusterRegisters {
    fn of(&self, name: &PeerId) -> Result<Vec<Written>, String> {
        let registers = records::about(self.core.store.as_ref(), RecordKind::Name, name.as_bytes()).map_err(|error| error.to_string())?;
        Ok(registers.into_iter().filter_map(|register| self.written(register)).collect())
    }

    fn mine(&self) -> Result<Vec<Written>, String> {
        let registers = records::of_kind(self.core.store.as_ref(), RecordKind::Name).map_err(|error| error.to_string())?;
        Ok(registers.into_iter().filter(|register| register.key.author == self.me).filter_map(|register| self.written(register)).collect())
    }

    async fn write(&self, name: &PeerId, record: Option<Vec<u8>>) -> Result<(), CommandError> {
        let _one_at_a_time = self.writing.lock().await;
        let version = self.core.read(|machine, _| machine.next_version(RecordKind::Name, name.as_bytes()));
        let register = RecordKey { kind: RecordKind::Name, key: name.as_bytes().to_vec(), author: self.me };
        let signed = records::sign_value(&self.key, register, version, self.core.now().wall, record);
        match self.core.command(Command::SetRecord { record: signed.clone() }).await {
            Some(Answer::Refused(why)) => return Err(why.into()),
            Some(_) => {}
            None => return Err(CommandError::Stopping),
        }
        // A failing disk is only logged: what is there counts.
        let kept = records::about(self.core.store.as_ref(), RecordKind::Name, name.as_bytes());
        match kept {
            Ok(kept) if kept.contains(&signed) => Ok(()),
            Ok(_) => Err(CommandError::Failed("the disk did not take the record: the log says why".to_owned())),
            Err(error) => Err(CommandError::Failed(format!("reading the record back: {error}"))),
        }
    }
}

/// In memory, for one peer alone: for tests.
#[derive(Default)]
pub struct MemoryRegisters(Mutex<BTreeMap<PeerId, Written>>);

impl MemoryRegisters {
    /// Puts what somebody wrote at some time.
    pub fn set(&self, written: Written) {
        self.0.lock().insert(written.name, written);
    }
}

#[async_trait]
impl Registers for MemoryRegisters {
    fn of(&self, name: &PeerId) -> Result<Vec<Written>, String> {
        Ok(self.0.lock().get(name).cloned().into_iter().collect())
    }

    fn mine(&self) -> Result<Vec<Written>, String> {
        Ok(self.0.lock().values().cloned().collect())
    }

    async fn write(&self, name: &PeerId, record: Option<Vec<u8>>) -> Result<(), CommandError> {
        let mut kept = self.0.lock();
        match record {
            Some(record) => kept.insert(*name, Written { name: *name, is_mine: true, at: crate::clock::wall(), record }),
            None => kept.remove(name),
        };
        Ok(())
    }
}
