//! Strangers, liars and slow ones on every protocol and door: memory stays bounded, their connections end, the others notice nothing.

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::{Peer, holders, meet, noise, until};
use net::{Bitswap, BitswapLimits, BlockSource, Host, HostOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::{Cid, PeerId};

const SOON: Duration = Duration::from_secs(90);
/// How much the memory of a peer may grow under any of this; a megabyte a stream would be far over it.
const GROWTH_MOST: u64 = 96 << 20;
const SECRET: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// Two members of a cluster whose secret the attacker knows.
fn two(folder: &Path) -> [Peer; 2] {
    let one = Peer::start(folder, "one", &["up"], &["--secret", SECRET]);
    let two = Peer::join(folder, "two", &one.invite());
    let peers = [one, two];
    meet(&peers);
    peers
}

/// Everything that members do still works: an add with a copy on each, its bytes, the status.
fn check_service(folder: &Path, peers: &[Peer], seed: u64) {
    let file = folder.join(format!("file-{seed}"));
    std::fs::write(&file, noise(2_000_000, seed)).expect("written");
    let added = peers[0].json(&["add", file.to_str().expect("a path"), "--copies", "2", "--wait", "2", "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();
    assert_eq!(holders(&peers[1], &root).len(), 2);
    let (status, body) = common::http(peers[1].gateway(), "GET", &format!("/ipfs/{root}"), &[], b"");
    assert!(status == 200 && body == noise(2_000_000, seed));
    peers[0].say(&["status"]);
}

fn check_memory(peer: &Peer, before: u64) {
    let grown = peer.memory().saturating_sub(before);
    assert!(grown < GROWTH_MOST, "{} grew by {grown} bytes", peer.name);
}

/// Addresses of a network of the peer (`cluster` or `swarm`), and who is there.
fn address(peer: &Peer, network: &str) -> (PeerId, Vec<String>) {
    let list = peer.ready[network].as_array().cloned().unwrap_or_default();
    let addresses: Vec<String> = list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
    let id = addresses[0].rsplit('/').next().expect("an id").parse().expect("a peer id");
    (id, addresses)
}

fn socket(peer: &Peer, network: &str) -> String {
    let (_, addresses) = address(peer, network);
    let parts: Vec<&str> = addresses[0].split('/').collect();
    format!("{}:{}", parts[2], parts[4])
}

async fn stranger(number: u8, secret: Option<[u8; 32]>) -> Host {
    let options = match secret {
        Some(secret) => HostOptions::cluster([number; 32], Some(secret)),
        None => HostOptions::node([number; 32]),
    };
    let (host, mut events) = Host::start(HostOptions { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..options }).await.expect("starts");
    tokio::spawn(async move { while events.next().await.is_some() {} });
    host
}

/// Sends without end until the other side ends the stream; how many bytes went out.
async fn flood(stream: net::Stream, first: &[u8]) -> usize {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let junk = vec![0xa5; 64 << 10];
    let mut sent = 0;
    let flooding = async {
        if writer.write_all(first).await.is_err() {
            return;
        }
        loop {
            let mut answer = [0; 1024];
            tokio::select! {
                read = reader.read(&mut answer) => if !matches!(read, Ok(1..)) { return },
                written = writer.write(&junk) => match written {
                    Ok(count) if count > 0 => sent += count,
                    _ => return,
                },
            }
        }
    };
    tokio::time::timeout(SOON, flooding).await.expect("a flooded stream is ended by the other side");
    sent
}

/// 2 GiB as the length of a frame, in the form that every own protocol and bitswap use.
const TWO_GIB: [u8; 5] = [0x80, 0x80, 0x80, 0x80, 0x08];

#[tokio::test(flavor = "multi_thread")]
async fn garbage_huge_and_half_frames_on_every_protocol_harm_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = two(folder.path());
    let victim = &peers[0];
    let before = victim.memory();
    let secret: [u8; 32] = [0x5a; 32];
    let (cluster, node) = (stranger(101, Some(secret)).await, stranger(102, None).await);
    let bitswap = "/ipfs/bitswap/1.2.0";
    let of_cluster = [
        peer::join::JOIN,
        peer::links::MESSAGES,
        peer::links::BOOK,
        peer::crdt_network::HEADS,
        peer::crdt_network::STRETCH,
        peer::crdt_network::PAGE,
        bitswap,
    ];
    let targets = of_cluster
        .iter()
        .map(|name| (&cluster, "cluster", *name))
        .chain([(&node, "swarm", bitswap), (&node, "swarm", net::blockstream::PROTOCOL)]);
    let mut held = Vec::new();
    for (host, network, protocol) in targets {
        let (id, addresses) = address(victim, network);
        host.connect(id, &addresses).await.expect("connects");
        let open = || async { host.open(id, &[protocol]).await.unwrap_or_else(|error| panic!("{protocol}: {error}")).0 };
        // A frame that promises 2 GiB; no frame at all; then frames whose second half never comes.
        for first in [&TWO_GIB[..], &[0xff; 64]] {
            let sent = flood(open().await, first).await;
            assert!(sent < 64 << 20, "{protocol} took {sent} bytes of garbage");
        }
        for _ in 0..40 {
            let Ok((mut stream, _)) = host.open(id, &[protocol]).await else { break };
            stream.write_all(&[0x64, 1, 2, 3]).await.ok();
            stream.flush().await.ok();
            held.push(stream);
        }
        assert!(held.len() >= 20, "{protocol}: slow streams are let in first");
    }
    let (folder, peers) = tokio::task::spawn_blocking(move || {
        check_service(folder.path(), &peers, 1);
        check_memory(&peers[0], before);
        (folder, peers)
    })
    .await
    .expect("it works");
    // A lane of a stranger is refused, whoever it says that it is.
    let (id, addresses) = address(&peers[0], "swarm");
    let impostor = stranger(105, None).await;
    impostor.connect(id, &addresses).await.expect("connects");
    let header = net::LaneHeader { lease: 1, cluster_peer: peers[1].id().parse().expect("a peer id"), kind: net::LaneKind::Add };
    let lane = net::BlockLane::open(&impostor, id, header).await;
    assert!(matches!(lane, Err(net::LaneError::Refused(net::LaneRefusal::NotTrusted | net::LaneRefusal::NotYet))), "{:?}", lane.err());
    drop(held);
    tokio::task::spawn_blocking(move || {
        check_service(folder.path(), &peers, 2);
        check_memory(&peers[0], before);
        drop(peers);
    })
    .await
    .expect("it works");
}

/// Answers every want with other bytes.
struct Liar {
    asked: AtomicUsize,
}

#[async_trait]
impl BlockSource for Liar {
    async fn get(&self, _: &Cid) -> Option<Bytes> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Some(Bytes::from_static(b"a lie"))
    }
    async fn size(&self, _: &Cid) -> Option<u64> {
        Some(5)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_do_not_match_their_cid_are_not_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let victim = Peer::up(folder.path(), "victim");
    let honest = Peer::up(folder.path(), "honest");
    let file = folder.path().join("file");
    std::fs::write(&file, b"the truth").expect("written");
    let root = honest.json(&["add", file.to_str().expect("a path"), "--json"])["cid"].as_str().expect("a root").to_owned();

    let host = stranger(103, None).await;
    let liar = Arc::new(Liar { asked: AtomicUsize::new(0) });
    let _lying = Bitswap::start(host.clone(), liar.clone(), BitswapLimits::default());
    let (id, addresses) = address(&victim, "swarm");
    host.connect(id, &addresses).await.expect("connects");
    let victim = tokio::task::spawn_blocking({
        let (root, liar) = (root.clone(), liar.clone());
        move || {
            victim.say(&["pin", "add", &root, "--copies", "1"]);
            until("the liar is asked", SOON, || (liar.asked.load(Ordering::Relaxed) > 0).then_some(()));
            let said = victim.say(&["why", &root]);
            assert!(!said.contains(" pinned"), "{said}");
            victim
        }
    })
    .await
    .expect("it works");
    // Somebody honest brings the true block: the pin completes with it.
    let bridge = stranger(104, None).await;
    let _serving = Bitswap::start(bridge.clone(), Arc::new(Relay { root: root.parse().expect("a cid") }), BitswapLimits::default());
    bridge.connect(id, &addresses).await.expect("connects");
    tokio::task::spawn_blocking(move || {
        victim.say(&["recover"]);
        until("the true block is taken", SOON, || (holders(&victim, &root) == ["victim"]).then_some(()));
        assert_eq!(victim.say(&["cat", &root]), "the truth");
        drop((victim, honest));
    })
    .await
    .expect("it works");
}

/// Has the true block.
struct Relay {
    root: Cid,
}

#[async_trait]
impl BlockSource for Relay {
    async fn get(&self, cid: &Cid) -> Option<Bytes> {
        (*cid == self.root).then(|| Bytes::from_static(b"the truth"))
    }
    async fn size(&self, cid: &Cid) -> Option<u64> {
        (*cid == self.root).then_some(9)
    }
}

/// Connections that stay open and say `bytes`; those that were let in.
fn silent(to: &str, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let address: std::net::SocketAddr = to.parse().expect("an address");
    let mut open = Vec::new();
    for _ in 0..count {
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else { break };
        stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a time-out");
        stream.write_all(bytes).ok();
        open.push(stream);
    }
    open
}

#[test]
fn too_many_silent_and_babbling_connections_shut_nobody_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::with_few_descriptors(folder.path(), "one", 512, &["up"]);
    let two = Peer::join(folder.path(), "two", &one.invite());
    let peers = [one, two];
    meet(&peers);
    let before = peers[0].memory();
    let doors =
        ["api", "gateway", "proxy"].map(|door| peers[0].ready[door].as_str().expect("a door").trim_start_matches("http://").to_owned());
    let mut open = Vec::new();
    for door in &doors {
        for bytes in [&b""[..], b"GET /id HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", b"\x16\x03\x01\x02\x00\x01\x00", &[0xff; 4096]] {
            open.extend(silent(door, 100, bytes));
        }
    }
    let networks = ["cluster", "swarm"].map(|network| socket(&peers[0], network));
    let mut strangers = Vec::new();
    for network in &networks {
        for bytes in [&b""[..], b"\x13/multistream/1.0.0\n", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096]] {
            strangers.extend(silent(network, 100, bytes));
        }
    }
    // All of it at once: more connections than the process has descriptors. Members and the stores still have theirs.
    check_service(folder.path(), &peers, 3);
    check_memory(&peers[0], before);
    // The networks give up on all who do not shake hands.
    for stream in &mut strangers {
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        let mut answer = [0; 256];
        let ended = loop {
            match stream.read(&mut answer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        };
        assert!(ended, "a silent connection was never ended");
    }
    drop(open);
    check_service(folder.path(), &peers, 4);
}
