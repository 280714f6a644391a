//! When the own node collects what nobody needs, and when the state store clears up.

use crate::core::Core;
use std::sync::Arc;
use std::time::{Duration, Instant};
use types::ByteCount;

/// How often it is looked whether something was let go.
const GARBAGE_LOOK: Duration = Duration::from_secs(20);
/// A nearly full node is not collected more often than this without a cause.
const GARBAGE_TIGHT: Duration = Duration::from_secs(600);
/// A collection is made once more after so long: by then every add of before has ended.
const GARBAGE_AGAIN: Duration = Duration::from_secs(660);

/// How often the state store may look whether it has come to rest.
const REST_LOOK: Duration = Duration::from_secs(5);

/// Lets the state store write down what it holds in memory once little is written.
pub(crate) async fn rest(core: Arc<Core>) {
    loop {
        tokio::time::sleep(REST_LOOK).await;
        let store = core.store.clone();
        tokio::task::spawn_blocking(move || store.rest()).await.ok();
    }
}

/// Frees what no owner needs any more: soon after something was let go, and when the space is nearly used up.
pub(crate) async fn collect(core: Arc<Core>) {
    let mut last = Instant::now();
    let mut again: Option<Instant> = None;
    loop {
        tokio::time::sleep(GARBAGE_LOOK).await;
        let Ok(space) = core.node.space().await else { continue };
        let is_tight = space.used.0 > space.limit.0 / 10 * 9 && last.elapsed() > GARBAGE_TIGHT;
        let is_new = core.take_garbage() && !core.node.collects_itself();
        if !is_tight && !is_new && again.is_none_or(|again| again > Instant::now()) {
            continue;
        }
        // What an add brought lately is spared for a while, even when its pin is gone again.
        again = is_new.then(|| Instant::now() + GARBAGE_AGAIN);
        last = Instant::now();
        match core.node.collect_garbage().await {
            Ok(freed) if freed > ByteCount::ZERO => tracing::info!(%freed, "garbage collected"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "collecting garbage"),
        }
    }
}
