//! Pins at the daemon: one operation a CID at a time, none without an end, none left behind.

use crate::blocks::LOCAL;
use crate::listing::on_disk;
use crate::node::{Inner, KuboError};
use crate::rpc::{Call, RpcError};
use ipfs::held::{NewPin, PinWrite};
use ipfs::{PinError, PinProgress, PinTask, Pinned, Progress};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use types::{ByteCount, Cid, Depth, Owner};
use wire::kubo::PinLine;

/// A removal: the daemon walks what else is pinned while it holds its lock.
const REMOVAL: Duration = Duration::from_secs(300);
/// Adding up a DAG that is there; afterwards its size is what the progress said.
const SUM: Duration = Duration::from_secs(60);
/// After a cancel the daemon is looked at so often: it may finish a pin that nobody waits for any more.
const LOOKS: [Duration; 4] = [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5)];

/// One operation on a CID at a time.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<Cid, Arc<tokio::sync::Mutex<()>>>>);

/// The right to change one CID's pin.
pub(crate) struct Turn {
    inner: Arc<Inner>,
    cid: Cid,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turn {
    pub(crate) async fn take(inner: &Arc<Inner>, cid: Cid) -> Turn {
        let turn = inner.turns.0.lock().entry(cid).or_default().clone();
        let guard = turn.lock_owned().await;
        Turn { inner: inner.clone(), cid, guard: Some(guard) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut turns = self.inner.turns.0.lock();
        // Only the table itself knows it any more.
        if turns.get(&self.cid).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.cid);
        }
    }
}

impl Inner {
    pub(crate) async fn pin_task(self: &Arc<Self>, task: PinTask, progress: Progress) -> Result<Pinned, PinError> {
        let turn = Turn::take(self, task.cid).await;
        let new = NewPin {
            owner: task.owner.clone(),
            cid: task.cid,
            depth: task.depth,
            size: Pinned { blocks: 0, bytes: ByteCount::ZERO },
            since: (self.options.clock)(),
        };
        let there = self.kept_at_daemon(&task.cid).await.map_err(pin_error)?;
        if there.is_some_and(|depth| is_enough(depth, task.depth))
            && let Some(size) = self.join(&new).await?
        {
            progress.send_replace(PinProgress { blocks: size.blocks, bytes: size.bytes, missing: 0 });
            return Ok(size);
        }
        // A drop of this future undoes what the daemon may still finish, before anybody else has a turn.
        let mut running = Running { inner: self.clone(), cid: task.cid, is_new: false, turn: Some(turn) };
        match (self.held_of(task.cid).await?, there) {
            (Some(_), _) => {}
            // Somebody else pinned it there: it stays theirs whatever the cluster wants later.
            (None, Some(depth)) => self.keep(NewPin { owner: Owner::User, depth, ..new.clone() }).await?,
            (None, None) => {
                running.is_new = true;
                let (inner, cid) = (self.clone(), task.cid);
                on_disk(move || inner.intents.begin(&cid)).await.map_err(|error| pin_error(error.into()))?;
            }
        }
        let pinned = match there {
            // Whoever asks for less than is there has it.
            Some(depth) if is_enough(depth, task.depth) => Ok(self.sum(task.cid, PinProgress::default()).await),
            _ => self.pin_there(&task, &progress).await,
        };
        match pinned {
            Ok(size) => {
                progress.send_replace(PinProgress { blocks: size.blocks, bytes: size.bytes, missing: 0 });
                self.keep(NewPin { size, ..new }).await?;
                running.finish();
                Ok(size)
            }
            Err(error) => Err(self.explain(&task, error).await),
        }
    }

    /// Lets the daemon fetch and pin.
    async fn pin_there(&self, task: &PinTask, progress: &Progress) -> Result<Pinned, KuboError> {
        if !task.source.local_only {
            self.reach(&task.source.holders).await;
        }
        let is_recursive = task.depth != Depth::DIRECT;
        let call = Call::new("pin/add").with("arg", task.cid).with("recursive", is_recursive).with("progress", true);
        let call = if task.source.local_only { call.with("offline", true) } else { call };
        let mut lines = self.rpc.lines(call, self.options.pin_stall).await?;
        let mut last = PinProgress::default();
        let mut moved = tokio::time::Instant::now();
        loop {
            // The daemon repeats its number twice a second: a line is no progress.
            let line = match tokio::time::timeout_at(moved + self.options.pin_stall, lines.next()).await {
                Ok(line) => line?,
                Err(_) => return Err(RpcError::Silent { call: "pin/add", seconds: self.options.pin_stall.as_secs() }.into()),
            };
            let Some(line) = line else {
                return Err(KuboError::Other("pin/add ended without saying that it pinned".to_owned()));
            };
            match wire::kubo::pin_line(&line).map_err(RpcError::from)? {
                PinLine::Progress { blocks, bytes } => {
                    if blocks > last.blocks {
                        moved = tokio::time::Instant::now();
                    }
                    last = PinProgress { blocks, bytes: ByteCount(bytes), missing: 0 };
                    progress.send_replace(last);
                }
                PinLine::Pinned => break,
            }
        }
        lines.finish(&self.rpc);
        let size = match is_recursive {
            false => Pinned { blocks: 1, bytes: ByteCount(self.size_of(&task.cid).await?.unwrap_or(0)) },
            true => self.sum(task.cid, last).await,
        };
        Ok(size)
    }

    /// What a whole DAG weighs: as the daemon adds it up, else as it counted while pinning.
    async fn sum(&self, cid: Cid, counted: PinProgress) -> Pinned {
        let call = Call::new("dag/stat").with("arg", cid).with("progress", false).with("offline", true);
        let stat = self.rpc.call(call, SUM).await.ok().and_then(|body| wire::kubo::dag_stat(&body).ok());
        stat.map_or(Pinned { blocks: counted.blocks, bytes: counted.bytes }, |stat| Pinned { blocks: stat.blocks, bytes: stat.bytes })
    }

    /// Says what is missing, where that is why.
    async fn explain(&self, task: &PinTask, error: KuboError) -> PinError {
        let missing = match &error {
            KuboError::Rpc(RpcError::Refused { message, .. }) => wire::kubo::missing_block(message),
            _ => None,
        };
        let is_silent = matches!(error, KuboError::Rpc(RpcError::Silent { .. }));
        let missing = match missing {
            None if is_silent => {
                // What the walk of what is there meets first.
                let call = Call::new("dag/stat").with("arg", task.cid).with("progress", false).with("offline", true);
                let walked = self.rpc.call(call, LOCAL).await;
                walked.err().and_then(|error| error.message().and_then(wire::kubo::missing_block))
            }
            missing => missing,
        };
        match missing {
            Some(missing) => PinError::Missing { cid: task.cid, missing: vec![missing], asked: String::new() },
            None => pin_error(error),
        }
    }

    /// How the daemon keeps it: whole, the one block, or not by itself.
    pub(crate) async fn kept_at_daemon(&self, cid: &Cid) -> Result<Option<Depth>, KuboError> {
        for (kind, depth) in [("recursive", Depth::Recursive), ("direct", Depth::DIRECT)] {
            match self.rpc.call(Call::new("pin/ls").with("arg", cid).with("type", kind), LOCAL).await {
                Ok(_) => return Ok(Some(depth)),
                Err(RpcError::Refused { message, .. }) if wire::kubo::is_not_pinned(&message) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Ends an owner's wish; the daemon's pin goes with the last of those that we know.
    pub(crate) async fn let_go(self: &Arc<Self>, owner: &Owner, cid: &Cid) -> Result<(), KuboError> {
        let _turn = Turn::take(self, *cid).await;
        let (inner, owner, named) = (self.clone(), owner.clone(), *cid);
        let is_last = on_disk(move || -> Result<bool, KuboError> {
            let before = inner.held.get(&named)?;
            let is_owner = before.as_ref().is_some_and(|held| held.owners.iter().any(|(known, ..)| *known == owner));
            if is_owner {
                inner.intents.begin(&named)?;
                inner.held.let_go(&owner, &named)?;
            }
            // A removal that failed before is tried again.
            Ok(inner.held.get(&named)?.is_none() && inner.intents.is_open(&named))
        })
        .await?;
        if is_last {
            self.remove(cid).await?;
        }
        self.settle(*cid).await
    }

    /// Removes the daemon's own pin.
    pub(crate) async fn remove(&self, cid: &Cid) -> Result<(), KuboError> {
        match self.rpc.call(Call::new("pin/rm").with("arg", cid), REMOVAL).await {
            Ok(_) => Ok(()),
            Err(RpcError::Refused { message, .. }) if wire::kubo::is_not_pinned(&message) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ledger and daemon agree.
    pub(crate) async fn settle(self: &Arc<Self>, cid: Cid) -> Result<(), KuboError> {
        let inner = self.clone();
        on_disk(move || -> Result<(), KuboError> {
            if inner.held.get(&cid)?.is_none() && inner.intents.is_open(&cid) {
                inner.listing.forget(&cid)?;
            }
            Ok(inner.intents.end(&cid)?)
        })
        .await
    }

    /// Takes back a pin that was called off.
    async fn undo(self: &Arc<Self>, cid: Cid) -> Result<(), KuboError> {
        for pause in LOOKS {
            tokio::time::sleep(pause).await;
            if self.kept_at_daemon(&cid).await?.is_some() {
                self.remove(&cid).await?;
            }
        }
        self.settle(cid).await
    }

    async fn held_of(self: &Arc<Self>, cid: Cid) -> Result<Option<ipfs::HeldPin>, PinError> {
        let inner = self.clone();
        on_disk(move || -> Result<_, KuboError> { Ok(inner.held.get(&cid)?) }).await.map_err(pin_error)
    }

    async fn join(self: &Arc<Self>, new: &NewPin) -> Result<Option<Pinned>, PinError> {
        let write = PinWrite::new(self.held.clone(), new.clone());
        let writing = write.writing();
        let joined = on_disk(move || -> Result<_, KuboError> { Ok(writing.join()?) }).await.map_err(pin_error)?;
        write.finish();
        Ok(joined)
    }

    async fn keep(self: &Arc<Self>, new: NewPin) -> Result<(), PinError> {
        let write = PinWrite::new(self.held.clone(), new);
        let writing = write.writing();
        on_disk(move || -> Result<_, KuboError> { Ok(writing.keep()?) }).await.map_err(pin_error)?;
        write.finish();
        Ok(())
    }
}

/// A pin under way: dropped before [`Running::finish`], one that began it is undone.
struct Running {
    inner: Arc<Inner>,
    cid: Cid,
    /// Nobody had it pinned before.
    is_new: bool,
    turn: Option<Turn>,
}

impl Running {
    /// It is pinned and in the ledger: the intent goes, which nobody need wait for.
    fn finish(mut self) {
        if std::mem::take(&mut self.is_new) {
            self.behind(|inner, cid| async move {
                for add in inner.taken_over(&cid) {
                    inner.release_add(add).await?;
                }
                inner.settle(cid).await
            });
        }
    }

    /// Runs `work` with the turn, behind whoever has gone.
    fn behind<F: Future<Output = Result<(), KuboError>> + Send>(&mut self, work: impl FnOnce(Arc<Inner>, Cid) -> F + Send + 'static) {
        // Without a runtime the process ends: the next start settles it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (inner, cid, turn) = (self.inner.clone(), self.cid, self.turn.take());
        runtime.spawn(async move {
            if let Err(error) = work(inner, cid).await {
                tracing::warn!(%cid, %error, "a pin at Kubo is not settled; the next start tries again");
            }
            drop(turn);
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_new {
            self.behind(|inner, cid| async move { inner.undo(cid).await });
        }
    }
}

/// Whether the daemon keeps at least what is asked; it knows no levels.
fn is_enough(there: Depth, asked: Depth) -> bool {
    there == Depth::Recursive || asked == Depth::DIRECT
}

pub(crate) fn pin_error(error: KuboError) -> PinError {
    PinError::Storage(error.to_string())
}
