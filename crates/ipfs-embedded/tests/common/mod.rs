//! Nodes on a temporary disk, with and without network.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part; a test may stop at anything unexpected")]

use ipfs_embedded::{EmbeddedNode, EmbeddedOptions};
use net::{Host, HostOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use store::{DiskOptions, DiskStore, PackOptions, PackStore};
use tempfile::TempDir;
use types::ByteCount;

/// A node and the folder that it lives in.
pub struct OnDisk {
    pub node: Arc<EmbeddedNode>,
    pub host: Option<Host>,
    pub dir: TempDir,
}

impl OnDisk {
    pub fn new() -> OnDisk {
        OnDisk::with(ByteCount(1 << 40), None, options())
    }

    pub fn with(limit: ByteCount, host: Option<Host>, options: EmbeddedOptions) -> OnDisk {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path(), limit, host.clone(), options);
        OnDisk { node, host, dir }
    }

    /// A node with a host on the loopback.
    pub async fn networked() -> OnDisk {
        OnDisk::networked_with(ByteCount(1 << 40)).await
    }

    pub async fn networked_with(limit: ByteCount) -> OnDisk {
        OnDisk::with(limit, Some(host().await), options())
    }

    /// Knows and reaches the other node.
    pub async fn connect(&self, other: &OnDisk) {
        use ipfs::NodeInfo;
        self.node.connect(&other.node.addresses().await).await;
    }
}

pub fn options() -> EmbeddedOptions {
    EmbeddedOptions { pin_stall: Duration::from_secs(10), ..EmbeddedOptions::default() }
}

pub fn open(dir: &Path, limit: ByteCount, host: Option<Host>, options: EmbeddedOptions) -> Arc<EmbeddedNode> {
    let store = Arc::new(DiskStore::open(&dir.join("state"), DiskOptions::default()).unwrap());
    let pack_options = PackOptions::with_limit(limit);
    let packs = Arc::new(PackStore::open(&dir.join("packs"), store.clone(), pack_options).unwrap());
    EmbeddedNode::open(store, packs, host, options).unwrap()
}

pub async fn host() -> Host {
    static HOSTS: AtomicU8 = AtomicU8::new(1);
    let mut key = [7; 32];
    key[0] = HOSTS.fetch_add(1, Ordering::Relaxed);
    let options = HostOptions { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..HostOptions::node(key) };
    Host::start(options).await.unwrap().0
}

/// Overwrites `bytes` wherever they stand in the packs.
pub fn damage(on_disk: &OnDisk, bytes: &[u8]) {
    let mut places = 0;
    for entry in std::fs::read_dir(on_disk.dir.path().join("packs")).unwrap() {
        let path = entry.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            content[at] ^= 0xff;
            // In place, as the node has the file open.
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&content[at..=at], at as u64).unwrap();
            places += 1;
        }
    }
    assert_eq!(places, 1, "the bytes stand in one segment");
}
