//! What the tests of hosts share: hosts on loopback, on ports that the system gives.
#![allow(dead_code, reason = "each test file uses its part")]

use net::{GossipOptions, Host, HostEvent, HostEvents, HostOptions};
use std::time::Duration;
use types::PeerId;

pub const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// Options for host number `number`.
pub fn options(number: u8) -> HostOptions {
    let mut options = HostOptions::node([number; 32]);
    options.listen = vec![TCP.to_owned()];
    options
}

pub fn with_psk(number: u8, psk: u8) -> HostOptions {
    HostOptions { psk: Some([psk; 32]), ..options(number) }
}

pub fn with_gossip(number: u8, topic: &str) -> HostOptions {
    let gossip = GossipOptions { heartbeat: Duration::from_millis(200), ..GossipOptions::new([topic]) };
    HostOptions { gossip: Some(gossip), keep_all: true, ..options(number) }
}

pub async fn start(options: HostOptions) -> (Host, HostEvents) {
    Host::start(options).await.expect("starts")
}

/// Two connected hosts; their events are not kept.
pub async fn pair(first: HostOptions, second: HostOptions) -> (Host, Host) {
    let (first, _) = start(first).await;
    let (second, _) = start(second).await;
    first.connect(second.id(), &second.addresses()).await.expect("connects");
    wait_for("both see the connection", || second.is_connected(&first.id())).await;
    (first, second)
}

/// Waits until `holds`, at most ten seconds.
pub async fn wait_for(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// The next gossip message, at most after five seconds.
pub async fn next_gossip(events: &mut HostEvents) -> Option<(PeerId, Vec<u8>, PeerId)> {
    let next = async {
        loop {
            match events.next().await? {
                HostEvent::Gossip { from, data, forwarded_by, .. } => return Some((from, data, forwarded_by)),
                _ => continue,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), next).await.ok().flatten()
}
