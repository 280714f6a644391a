//! Real Go cluster peers as judges of the cluster host: private network, gossip, discovery. Run by hand, with a Kubo daemon running (Go
//! peers say nothing before they have one):
//! `CLUSTER=/path/to/ipfs-cluster-service CLUSTER_IPFSHTTP_NODEMULTIADDRESS=/ip4/127.0.0.1/tcp/5001 \
//!     cargo test -p net --test go_cluster -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use net::gorpc::{CallLimits, Request, call_collect, call_unary};
use net::{Bitswap, BitswapLimits, BlockSource, GossipOptions, HostEvent, HostOptions};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use types::{Cid, PeerId};

const METRICS: &str = "monitor.metrics";

/// A Go peer in its own folder; ends with the test.
struct GoPeer {
    _folder: tempfile::TempDir,
    _daemon: Child,
    id: PeerId,
    address: String,
    rest: String,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl GoPeer {
    async fn start(program: &Path, secret: &str, bootstrap: Option<&str>) -> GoPeer {
        let folder = tempfile::tempdir().unwrap();
        let listen = format!("/ip4/127.0.0.1/tcp/{}", free_port());
        let rest = format!("127.0.0.1:{}", free_port());
        let door = format!("/ip4/127.0.0.1/tcp/{}", rest.rsplit(':').next().unwrap());
        let command = |words: &[&str]| {
            let mut command = Command::new(program);
            let anywhere = || format!("/ip4/127.0.0.1/tcp/{}", free_port());
            command.args(words).env("IPFS_CLUSTER_PATH", folder.path()).env("CLUSTER_SECRET", secret);
            command.env("CLUSTER_LISTENMULTIADDRESS", &listen).env("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", &door);
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
        GoPeer { _folder: folder, _daemon: daemon, id, address: listen, rest }
    }

    /// A call of its REST door; its status.
    async fn rest(&self, method: &str, path: &str) -> u16 {
        let mut stream = tokio::net::TcpStream::connect(&self.rest).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: go\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
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

struct Nothing;

#[async_trait]
impl BlockSource for Nothing {
    async fn get(&self, _: &Cid) -> Option<Bytes> {
        None
    }
    async fn size(&self, _: &Cid) -> Option<u64> {
        None
    }
}

/// How the vectors of `crates/wire/tests/vectors/versions.json` were made: what a Go peer of some version says, as bytes.
/// `RECORD=/path/to/file CLUSTER=... cargo test -p net --test go_cluster -- --ignored --nocapture what_a_go`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Go cluster peer: CLUSTER=/path/to/ipfs-cluster-service, RECORD=/path/to/file"]
async fn what_a_go_peer_says_is_recorded() {
    let program = std::path::PathBuf::from(std::env::var_os("CLUSTER").expect("CLUSTER names the program"));
    let secret = "0707070707070707070707070707070707070707070707070707070707070707";
    let go = GoPeer::start(&program, secret, None).await;
    let topic = wire::crdt_topic("ipfs-cluster");
    let mut options = HostOptions::cluster([1; 32], Some([7; 32]));
    options.listen = vec![TCP.to_owned()];
    options.gossip = Some(GossipOptions::new([METRICS.to_owned(), topic.clone()]));
    let (host, mut events) = start(options).await;
    let bitswap = Bitswap::start(host.clone(), Arc::new(Nothing), BitswapLimits::default());
    host.keep_connected(go.id, std::slice::from_ref(&go.address)).await;
    let mut metrics: BTreeMap<String, String> = BTreeMap::new();
    let mut heads: Vec<Vec<u8>> = Vec::new();
    // CIDs that hold their content: nothing has to be fetched.
    let [first, second] = ["bafkqaaa", "bafkqabttmvrw63te"];
    let steps = [
        ("POST", format!("/pins/{first}?name=plain")),
        (
            "POST",
            format!(
                "/pins/{second}?name=full&mode=direct&replication-min=1&replication-max=1&expire-at=2130-01-02T03:04:05Z&meta-b=2&meta-a=1"
            ),
        ),
        ("POST", format!("/pins/{first}?name=again")),
        ("DELETE", format!("/pins/{second}")),
        ("POST", format!("/pins/{second}?pin-update={first}")),
    ];
    let mut steps = steps.iter();
    let listening = async {
        while metrics.len() < 4 || heads.len() < 5 {
            let Some(HostEvent::Gossip { topic: told, data, .. }) = events.next().await else { continue };
            if told == METRICS {
                metrics.insert(wire::metric::decode_metric(&data).unwrap().name, hex::encode(data));
            } else if !heads.contains(&data) {
                assert_eq!(told, topic);
                heads.push(data);
            }
            // One step, one head: the next when the last was told.
            if metrics.len() >= 4
                && heads.len() + steps.len() == 5
                && let Some((method, path)) = steps.next()
            {
                let status = go.rest(method, path).await;
                assert!(status < 300, "{method} {path}: {status}");
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), listening).await.expect("it says everything");

    let session = bitswap.session();
    session.add_providers(&[go.id]);
    let mut blocks: BTreeMap<String, String> = BTreeMap::new();
    let mut wanted: Vec<Cid> = heads.iter().flat_map(|data| wire::decode_heads(data).unwrap()).collect();
    while let Some(cid) = wanted.pop() {
        if blocks.contains_key(&cid.to_string()) {
            continue;
        }
        let block = session.fetch(cid).await.unwrap();
        wanted.extend(wire::decode_node(&block).unwrap().links);
        blocks.insert(cid.to_string(), hex::encode(block));
    }
    let (limits, deadline) = (CallLimits::default(), Duration::from_secs(10));
    let cid = wire::rpc::encode(&first.parse::<Cid>().unwrap());
    let nothing = wire::rpc::encode(&());
    let mut calls = Vec::new();
    for (service, method, argument) in [
        ("Cluster", "ID", &nothing),
        ("Cluster", "Version", &nothing),
        ("PinTracker", "Status", &cid),
        ("IPFSConnector", "RepoStat", &nothing),
        ("IPFSConnector", "SwarmPeers", &nothing),
    ] {
        let reply = call_unary(&host, go.id, &Request::new(service, method), argument, &limits, deadline).await.unwrap();
        calls.push(json!({ "method": format!("{service}.{method}"), "reply_hex": hex::encode(reply) }));
    }
    let all = wire::rpc::encode(&wire::status::Filter::ALL);
    for (service, method, arguments) in
        [("Cluster", "IDStream", &[][..]), ("Cluster", "Peers", &[]), ("PinTracker", "StatusAll", &[all.as_slice()])]
    {
        let replies = call_collect(&host, go.id, &Request::new(service, method), arguments, &limits, deadline).await.unwrap();
        calls.extend(replies.iter().map(|reply| json!({ "method": format!("{service}.{method}"), "reply_hex": hex::encode(reply) })));
    }
    let agent = host.peer_info(&go.id).unwrap_or_default();
    let recorded = json!({
        "protocols": agent.protocols,
        "metrics": metrics,
        "heads": heads.iter().map(hex::encode).collect::<Vec<_>>(),
        "blocks": blocks,
        "calls": calls,
    });
    std::fs::write(std::env::var_os("RECORD").expect("RECORD names a file"), serde_json::to_vec(&recorded).unwrap()).unwrap();
    host.shutdown().await;
}
