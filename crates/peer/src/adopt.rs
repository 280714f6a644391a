//! What the user of a node keeps there by itself becomes a pin of the cluster: `ipfs add` on a NAS is replicated with no change of habit.
//!
//! A slow look, from state: whatever the node keeps for its user and the cluster does not wish is wished, once. What was adopted is remembered
//! until the user lets go of it at the node, so an adopted pin that is later removed from the cluster is not taken up again each minute.
//! Letting go at the node removes nothing from the cluster: that is for `pin rm`.

use crate::core::Core;
use crate::view;
use cluster::{Answer, Command};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::{Area, Batch, Durability, StoreError};
use types::{Cid, Depth, Owner, PeerId, PinOptions};

/// Between two looks: what is kept at the node is wished within a minute.
const EVERY: Duration = Duration::from_secs(20);
/// Pins looked at together.
const PAGE: usize = 500;
/// Pins adopted in one look; the next one goes on.
const ADOPTED_MOST: usize = 5000;
/// The empty directory: Kubo pins it for itself when its repository is made.
const EMPTY: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
const SEEN: &[u8] = b"adopted/";
const FILES: &[u8] = b"adopted-files";

/// What is adopted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adopt {
    /// Nothing: what the user keeps at the node is shown and left alone.
    #[default]
    Off,
    /// What is pinned there.
    Pins,
    /// That, and the root of the user's files (MFS) as it changes.
    PinsAndFiles,
}

/// Runs until dropped.
pub(crate) async fn run(core: Arc<Core>, what: Adopt, me: PeerId, name: String) {
    if what == Adopt::Off {
        return;
    }
    loop {
        if let Err(error) = look(&core, me).await {
            tracing::warn!(error, "looking for what the node's user keeps");
        }
        if what == Adopt::PinsAndFiles
            && let Err(error) = look_at_files(&core, me, &name).await
        {
            tracing::warn!(error, "looking at the files of the node's user");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn look(core: &Arc<Core>, me: PeerId) -> Result<(), String> {
    let mut after = None;
    let mut adopted = 0;
    // Those remembered whose turn in the order has come; what is left behind has gone from the node.
    let mut gone = seen(core).map_err(|error| error.to_string())?;
    loop {
        let page = core.node.pins(after, PAGE).await.map_err(|error| error.to_string())?;
        for held in &page {
            let Some((_, depth, _)) = held.owners.iter().find(|(owner, ..)| *owner == Owner::User) else { continue };
            if gone.remove(&held.cid.to_bytes()) || is_wished(core, &held.cid) || held.cid.to_string() == EMPTY {
                continue;
            }
            if adopted >= ADOPTED_MOST {
                continue;
            }
            let label = core.node.name_of(&held.cid).await.unwrap_or_default();
            adopt(core, held.cid, *depth, PinOptions { name: label, prefer: vec![me], ..PinOptions::default() }).await?;
            remember(core, &held.cid).map_err(|error| error.to_string())?;
            adopted += 1;
        }
        match page.last() {
            Some(last) => after = Some(last.cid),
            None => break,
        }
    }
    if adopted > 0 {
        tracing::info!(adopted, "what the node's user keeps is now kept by the cluster");
    }
    forget(core, &gone).map_err(|error| error.to_string())
}

/// The root of the user's files: the version before stays wished until the next, so that no moment is without a whole copy elsewhere.
async fn look_at_files(core: &Arc<Core>, me: PeerId, name: &str) -> Result<(), String> {
    let Some(root) = core.node.files_root().await.filter(|root| root.to_string() != EMPTY) else { return Ok(()) };
    let kept = core.store.get(Area::Meta, FILES).map_err(|error| error.to_string())?.unwrap_or_default();
    let versions: Vec<Cid> =
        kept.split(|byte| *byte == b' ').filter_map(|text| Cid::try_from(std::str::from_utf8(text).ok()?).ok()).collect();
    if versions.last() == Some(&root) {
        return Ok(());
    }
    let update = versions.last().copied();
    let options = PinOptions { name: format!("files of {name}"), prefer: vec![me], update, ..PinOptions::default() };
    adopt(core, root, Depth::Recursive, options).await?;
    let mut batch = Batch::new();
    let text = update.map_or_else(|| root.to_string(), |before| format!("{before} {root}"));
    batch.put(Area::Meta, FILES, text);
    core.store.commit(batch, Durability::Synced).map_err(|error| error.to_string())?;
    if let [older, _] = versions[..]
        && older != root
    {
        core.command(Command::Unpin { cid: older }).await;
    }
    Ok(())
}

async fn adopt(core: &Core, cid: Cid, depth: Depth, options: PinOptions) -> Result<(), String> {
    match core.command(Command::Pin { cid, options, depth, size: None, lease: None }).await {
        Some(Answer::Refused(why)) => Err(format!("{cid} cannot be kept by the cluster: {why}")),
        Some(_) => Ok(()),
        None => Err("stopping".to_owned()),
    }
}

fn is_wished(core: &Core, cid: &Cid) -> bool {
    let key = cid.to_bytes();
    let stored = core.consensus.view().get(Area::Pins, &key).ok().flatten();
    stored.is_some_and(|stored| view::read_pin(&key, &stored).is_some())
}

fn seen(core: &Core) -> Result<BTreeSet<Vec<u8>>, StoreError> {
    let mut all = BTreeSet::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = core.store.snapshot().scan(Area::Meta, after.as_deref(), SEEN, PAGE)?;
        all.extend(page.iter().map(|(key, _)| key[SEEN.len()..].to_vec()));
        match page.last() {
            Some((key, _)) if page.len() == PAGE => after = Some(key.to_vec()),
            _ => return Ok(all),
        }
    }
}

fn remember(core: &Core, cid: &Cid) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(Area::Meta, [SEEN, &cid.to_bytes()].concat(), []);
    core.store.commit(batch, Durability::Buffered)
}

fn forget(core: &Core, gone: &BTreeSet<Vec<u8>>) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for key in gone {
        batch.delete(Area::Meta, [SEEN, key].concat());
    }
    core.store.commit(batch, Durability::Buffered)
}
