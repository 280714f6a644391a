//! Real Go cluster peers as judges of the cluster host: private network, gossip, discovery. Run by hand, with a Kubo daemon running (Go
//! peers say nothing before they have one):
//! `CLUSTER=/path/to/ipfs-cluster-service CLUSTER_IPFSHTTP_NODEMULTIADDRESS=/ip4/127.0.0.1/tcp/5001 \
//!     cargo test -p net --test go_cluster -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use common::*;
use net::{GossipOptions, HostEvent, HostOptions};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use types::PeerId;

const METRICS: &str = "monitor.metrics";

/// A Go peer in its own folder; ends with the test.
struct GoPeer {
    _folder: tempfile::TempDir,
    _daemon: Child,
    id: PeerId,
    address: String,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl GoPeer {
    async fn start(program: &Path, secret: &str, bootstrap: Option<&str>) -> GoPeer {
        let folder = tempfile::tempdir().unwrap();
        let listen = format!("/ip4/127.0.0.1/tcp/{}", free_port());
        let command = |words: &[&str]| {
            let mut command = Command::new(program);
            let anywhere = || format!("/ip4/127.0.0.1/tcp/{}", free_port());
            command.args(words).env("IPFS_CLUSTER_PATH", folder.path()).env("CLUSTER_SECRET", secret);
            command.env("CLUSTER_LISTENMULTIADDRESS", &listen).env("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", anywhere());
            command.env("CLUSTER_IPFSPROXY_LISTENMULTIADDRESS", anywhere());
            command.env("CLUSTER_PINSVCAPI_HTTPLISTENMULTIADDRESS", anywhere());
            command.env("CLUSTER_MONITORPINGINTERVAL", "1s").env("CLUSTER_CRDT_TRUSTEDPEERS", "*");
            command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            command
        };
        assert!(command(&["init", "--consensus", "crdt"]).status().await.unwrap().success());
        let identity = std::fs::read_to_string(folder.path().join("identity.json")).unwrap();
        let id = identity.split('"').find(|word| word.starts_with("12D3Koo")).unwrap().parse().unwrap();
        let words = ["daemon"].into_iter().chain(bootstrap.iter().flat_map(|address| ["--bootstrap", address]));
        let daemon = command(&words.collect::<Vec<_>>()).spawn().unwrap();
        GoPeer { _folder: folder, _daemon: daemon, id, address: listen }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Go cluster peer: CLUSTER=/path/to/ipfs-cluster-service"]
async fn gossip_of_go_peers_arrives_and_peers_are_found() {
    let program = std::path::PathBuf::from(std::env::var_os("CLUSTER").expect("CLUSTER names the program"));
    let secret = "0707070707070707070707070707070707070707070707070707070707070707";
    let first = GoPeer::start(&program, secret, None).await;
    let mut options = HostOptions::cluster([1; 32], Some([7; 32]));
    options.listen = vec![TCP.to_owned()];
    options.gossip = Some(GossipOptions::new([METRICS]));
    let (host, mut events) = start(options).await;
    host.keep_connected(first.id, std::slice::from_ref(&first.address)).await;
    let (from, data, _) = loop {
        if let Some(message) = next_gossip(&mut events).await {
            break message;
        }
    };
    assert_eq!(from, first.id);
    println!("a metric of {} bytes by {from}; {:?}", data.len(), host.peer_info(&first.id));

    // The second Go peer knows the first only: we find it, or it finds us.
    let address = format!("{}/p2p/{}", first.address, first.id);
    let second = GoPeer::start(&program, secret, Some(&address)).await;
    let begun = std::time::Instant::now();
    let mut heard = std::collections::BTreeSet::new();
    let both = async {
        while heard.len() < 2 || !host.is_connected(&second.id) {
            if let Some(HostEvent::Gossip { from, .. }) = events.next().await {
                heard.insert(from);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(90), both).await.expect("the second peer is found and heard");
    host.publish(METRICS, b"not a metric, but gossip".to_vec()).await.unwrap();
    println!("connected: {:?} after {:?}", host.connected(), begun.elapsed());
    host.shutdown().await;
}
