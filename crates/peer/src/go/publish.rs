//! What this peer publishes about itself: whoever publishes a `ping` is a member to Go peers, whoever publishes the others too is placed on.

use super::{Side, answers};
use net::PublishError;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use types::PeerId;
use wire::METRICS_TOPIC;
use wire::metric::{FREE_SPACE, Metric, PIN_QUEUE, PING, PINS_HELD, PingValue, encode_metric};

/// Go's time to live of a metric.
const LASTS: Duration = Duration::from_secs(30);
/// Go sends again at half of it.
const PERIOD: Duration = Duration::from_secs(15);
/// How often it is looked for newcomers.
const LOOK: Duration = Duration::from_secs(1);
/// A newcomer is told once more after so long: its subscription may have come later than its connection.
const ONCE_MORE: Duration = Duration::from_secs(3);
/// Go divides the queue's length by this to get a weight.
const QUEUE_PER_WEIGHT: u64 = 100_000;

/// Publishes while a Go peer is near; among Pinfold peers alone nobody would read it.
pub(super) async fn run(side: Arc<Side>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next = Instant::now();
    let mut known = BTreeSet::new();
    let mut connected = BTreeSet::new();
    loop {
        look.tick().await;
        let now_connected = side.go_connected();
        announce(&side, &connected, &now_connected);
        connected = now_connected;
        let near = near(&side, &connected);
        let is_newcomer = near.difference(&known).next().is_some();
        known = near;
        let now = Instant::now();
        if known.is_empty() || (now < next && !is_newcomer) {
            continue;
        }
        next = match publish(&side).await {
            Ok(()) if is_newcomer => now + ONCE_MORE,
            Ok(()) => now + PERIOD,
            // Nobody is subscribed yet.
            Err(PublishError::NoPeers) => now,
            Err(error) => {
                tracing::warn!(%error, "publishing metrics for Go peers");
                now + PERIOD / 2
            }
        };
    }
}

/// Tells the consensus of Go peers that came and went: those that are not trusted follow the wish too. A connection alone does not say
/// what the peer is: its protocols do, a moment later.
fn announce(side: &Side, before: &BTreeSet<PeerId>, now: &BTreeSet<PeerId>) {
    let Some(wish) = &side.options.wish else { return };
    for peer in before.difference(now) {
        wish.disconnected(*peer);
    }
    for peer in now.difference(before) {
        tracing::info!(%peer, is_trusted = (side.options.trusted)(peer), "a Go peer connected");
        wish.go_connected(*peer);
    }
}

/// Go peers that are connected, or heard of through others.
fn near(side: &Side, connected: &BTreeSet<PeerId>) -> BTreeSet<PeerId> {
    let mut near = connected.clone();
    near.extend(side.go_peers().into_iter().map(|go| go.peer));
    near
}

async fn publish(side: &Side) -> Result<(), PublishError> {
    for metric in metrics(side).await {
        side.host.publish(METRICS_TOPIC, encode_metric(&metric)).await?;
    }
    Ok(())
}

async fn metrics(side: &Side) -> Vec<Metric> {
    let identity = side.cluster.identity().await;
    let wall = Duration::from_millis(side.now().wall.0);
    let expire = i64::try_from((wall + LASTS).as_nanos()).unwrap_or(i64::MAX);
    let metric = |name: &str, value: String| Metric {
        name: name.to_owned(),
        peer: Some(identity.peer),
        value,
        expire,
        valid: true,
        ..Metric::default()
    };
    let ping = PingValue {
        peer_name: identity.name.clone(),
        ipfs_id: identity.node.map(|node| node.to_string()).unwrap_or_default(),
        ipfs_addresses: answers::public(&identity.node_addresses),
    };
    let mut metrics = vec![metric(PING, ping.to_json())];
    metrics.push(Metric { partitionable: true, ..metric("tag:group", "default".to_owned()) });
    let own = side.cluster.peers().into_iter().find(|row| row.is_self);
    if let Some(own) = own {
        let free = (own.space_limit - own.space_used - own.space_reserved).get();
        // Go sends none when nothing is free; then nothing is placed there.
        if free > 0 {
            metrics.push(Metric { weight: i64::try_from(free).unwrap_or(i64::MAX), ..metric(FREE_SPACE, free.to_string()) });
        }
        let weight = -i64::try_from(own.exceptions / QUEUE_PER_WEIGHT).unwrap_or(i64::MAX);
        metrics.push(Metric { weight, ..metric(PIN_QUEUE, own.exceptions.to_string()) });
        metrics.push(metric(PINS_HELD, side.cluster.pins_held().to_string()));
    }
    metrics
}
