//! A real Kubo as judge of bitswap: 100 MB from it and to it. Run by hand, with the daemon's path:
//! `KUBO=/path/to/ipfs cargo test -p net --test kubo -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use futures::StreamExt;
use net::{Bitswap, BitswapLimits, BlockSource, HostOptions};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use types::{Cid, PeerId};

const MEGABYTES: usize = 100;

#[derive(Default)]
struct Memory(Mutex<HashMap<Cid, Bytes>>);

#[async_trait]
impl BlockSource for Memory {
    async fn get(&self, cid: &Cid) -> Option<Bytes> {
        self.0.lock().get(cid).cloned()
    }
    async fn size(&self, cid: &Cid) -> Option<u64> {
        self.0.lock().get(cid).map(|data| data.len() as u64)
    }
}

/// A Kubo daemon in its own folder, on ports that the system gives; ends with the test.
struct Kubo {
    program: PathBuf,
    folder: tempfile::TempDir,
    _daemon: Child,
}

impl Kubo {
    async fn start(program: &Path) -> Kubo {
        let folder = tempfile::tempdir().unwrap();
        let command = |words: &[&str]| {
            let mut command = Command::new(program);
            command.args(words).env("IPFS_PATH", folder.path()).kill_on_drop(true);
            command
        };
        assert!(command(&["init", "--profile=test"]).stdout(Stdio::null()).status().await.unwrap().success());
        let listen = r#"["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]"#;
        assert!(command(&["config", "--json", "Addresses.Swarm", listen]).status().await.unwrap().success());
        let mut daemon = command(&["daemon"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("Daemon is ready") {
                    return;
                }
            }
            panic!("the daemon ended");
        };
        tokio::time::timeout(Duration::from_secs(60), ready).await.unwrap();
        Kubo { program: program.to_owned(), folder, _daemon: daemon }
    }

    async fn run(&self, words: &[&str]) -> String {
        let output = Command::new(&self.program).args(words).env("IPFS_PATH", self.folder.path()).output().await.unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn addresses(&self) -> Vec<String> {
        self.run(&["id", "-f=<addrs>"]).await.lines().map(str::to_owned).collect()
    }

    async fn id(&self) -> PeerId {
        self.run(&["id", "-f=<id>"]).await.parse().unwrap()
    }
}

fn rate(begun: Instant) -> String {
    let seconds = begun.elapsed().as_secs_f64();
    format!("{:.0} MB/s ({seconds:.2} s)", MEGABYTES as f64 / seconds)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Kubo daemon: KUBO=/path/to/ipfs"]
async fn a_hundred_megabytes_come_from_kubo_and_go_to_kubo() {
    let program = PathBuf::from(std::env::var_os("KUBO").expect("KUBO names the program"));
    for transport in ["/tcp/", "/quic-v1/"] {
        let (giver, taker) = tokio::join!(Kubo::start(&program), Kubo::start(&program));
        let file = tempfile::NamedTempFile::new().unwrap();
        let noise: Vec<u8> = {
            let mut random = <rand::rngs::SmallRng as rand::SeedableRng>::seed_from_u64(7);
            let mut noise = vec![0; MEGABYTES * 1_000_000];
            rand::RngCore::fill_bytes(&mut random, &mut noise);
            noise
        };
        std::fs::write(file.path(), noise).unwrap();
        let root = giver.run(&["add", "-Q", "--raw-leaves", file.path().to_str().unwrap()]).await;
        let mut wanted: Vec<Cid> = giver.run(&["refs", "-r", "-u", &root]).await.lines().map(|line| line.parse().unwrap()).collect();
        wanted.push(root.parse().unwrap());

        let mut options = HostOptions { keep_all: true, ..options(1) };
        options.listen.push("/ip4/127.0.0.1/udp/0/quic-v1".to_owned());
        let (host, _) = start(options).await;
        let store = Arc::new(Memory::default());
        let bitswap = Bitswap::start(host.clone(), store.clone(), BitswapLimits::default());
        let over =
            |addresses: Vec<String>| -> Vec<String> { addresses.into_iter().filter(|address| address.contains(transport)).collect() };

        host.connect(giver.id().await, &over(giver.addresses().await)).await.unwrap();
        let session = bitswap.session();
        session.add_providers(&[giver.id().await]);
        let begun = Instant::now();
        let mut results = session.fetch_many(wanted.clone());
        while let Some((cid, result)) = results.next().await {
            store.0.lock().insert(cid, result.unwrap());
        }
        println!("{transport} from Kubo: {}; ledger {:?}", rate(begun), bitswap.ledger(&giver.id().await));
        assert_eq!(bitswap.total().blocks_unasked, 0);

        let ours = over(host.addresses()).remove(0);
        taker.run(&["swarm", "connect", &ours]).await;
        let begun = Instant::now();
        let taken = taker.run(&["refs", "-r", "-u", &root]).await;
        println!("{transport} to Kubo: {}; ledger {:?}", rate(begun), bitswap.ledger(&taker.id().await));
        assert_eq!(taken.lines().count(), wanted.len() - 1);
        let missing = dag::block::Block::new(0x55, dag::hash::HashFn::SHA2_256, Bytes::from_static(b"nobody has this")).unwrap();
        let begun = Instant::now();
        println!("{transport} missing: {:?} after {:?}", session.fetch(missing.cid).await, begun.elapsed());
        host.shutdown().await;
    }
}
