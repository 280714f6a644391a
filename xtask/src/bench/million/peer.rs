//! A peer that is watched and started again.

use crate::bench::process::{Running, until};
use anyhow::Context;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running peer.
pub struct Peer {
    running: Running,
    ready: Value,
    dir: PathBuf,
}

/// Samples memory until it is asked for the peak.
pub struct Watch {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// `pinfold up`, or `join` with an invite.
    pub fn start(binary: &Path, folder: &Path, name: &str, invite: Option<&str>) -> anyhow::Result<Peer> {
        let any = [("--cluster", "/ip4/127.0.0.1/tcp/0"), ("--swarm", "/ip4/127.0.0.1/tcp/0")];
        let any: Vec<String> = any.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect();
        Peer::run(binary, folder, name, invite, &any)
    }

    /// `pinfold up` where it listened before.
    pub fn start_again(binary: &Path, folder: &Path, name: &str, addresses: &[String]) -> anyhow::Result<Peer> {
        Peer::run(binary, folder, name, None, addresses)
    }

    fn run(binary: &Path, folder: &Path, name: &str, invite: Option<&str>, addresses: &[String]) -> anyhow::Result<Peer> {
        let dir = folder.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let log = folder.join(format!("{name}.log"));
        let mut command = Command::new(binary);
        match invite {
            Some(invite) => command.arg("join").arg(invite),
            None => command.arg("up"),
        };
        command.arg("--dir").arg(&dir).args(["--name", name, "--json"]);
        command.args(["--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0"]).args(addresses);
        let mut running = Running::start("a pinfold peer", &mut command, &log)?;
        let begun = Instant::now();
        let ready = loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let ready = text.lines().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|value| value["ready"] == true));
            if let Some(ready) = ready {
                break ready;
            }
            running.check()?;
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(120), "the peer {name} is not ready: {text}");
            // A restart is timed by this.
            std::thread::sleep(Duration::from_millis(2));
        };
        let peer = Peer { running, ready, dir };
        until("the peer answers", Duration::from_secs(60), || peer.ask("/version").ok().map(|_| ()))?;
        Ok(peer)
    }

    /// URL of its REST door.
    pub fn api(&self) -> &str {
        self.ready["api"].as_str().unwrap_or_default()
    }

    /// The same as host and port.
    pub fn host(&self) -> String {
        self.api().trim_start_matches("http://").to_owned()
    }

    /// Where its node is reached, with the node's id.
    pub fn swarm(&self) -> Option<String> {
        swarm_of(&self.ready)
    }

    /// A JSON answer of its REST door.
    pub fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let host = self.host();
        let mut stream = TcpStream::connect(&host)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).with_context(|| format!("reading the answer to {path}"))
    }

    /// CPU seconds so far.
    pub fn cpu(&self) -> f64 {
        self.running.cpu()
    }

    /// MiB of anonymous memory now.
    pub fn anon(&self) -> f64 {
        anon(self.running.id())
    }

    /// Samples its memory from now on.
    pub fn watch(&self) -> Watch {
        let (peak, stop, id) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)), self.running.id());
        let (kept, stopped) = (peak.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                kept.fetch_max((anon(id) * 1024.0) as u64, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Watch { peak, stop, thread: Some(thread) }
    }

    /// Bytes that its state takes on disk; blocks of content are not among them.
    pub fn state_bytes(&self) -> anyhow::Result<u64> {
        allocated(&self.dir.join("state"))
    }

    /// Ends it; the flags that start it where it listened.
    pub fn stop(self) -> anyhow::Result<Vec<String>> {
        let bare = |key: &str| {
            let first = self.ready[key].as_array().and_then(|list| list.first()?.as_str()).unwrap_or_default();
            first.split("/p2p/").next().unwrap_or_default().to_owned()
        };
        Ok(vec!["--cluster".to_owned(), bare("cluster"), "--swarm".to_owned(), bare("swarm")])
    }
}

/// The first address of a peer's node, from the line that it prints when it is ready.
pub fn swarm_of(ready: &Value) -> Option<String> {
    let (address, node) = (ready["swarm"].as_array()?.first()?.as_str()?, ready["node"].as_str()?);
    Some(if address.contains("/p2p/") { address.to_owned() } else { format!("{address}/p2p/{node}") })
}

impl Watch {
    /// The most MiB seen.
    pub fn peak(mut self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        (self.peak.load(Ordering::Relaxed) as f64 / 1024.0 * 10.0).round() / 10.0
    }
}

/// MiB of anonymous memory of a process (`RssAnon`: without what the kernel keeps of files).
fn anon(id: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: f64 = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0.0);
    (kib / 1024.0 * 10.0).round() / 10.0
}

/// Bytes that the disk gave to the files of a folder; holes do not count.
pub fn allocated(folder: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("measuring {}", folder.display()))? {
        // Stores remove files while we look.
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        total += if metadata.is_dir() { allocated(&entry.path()).unwrap_or(0) } else { metadata.blocks() * 512 };
    }
    Ok(total)
}
