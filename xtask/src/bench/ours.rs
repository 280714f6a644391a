//! Pinfold peers under measurement.

use super::process::{Running, client, until};
use anyhow::Context;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A cluster of our peers.
pub struct Cluster {
    binary: PathBuf,
    peers: Vec<Running>,
    api: String,
    /// `host:port` of every peer's REST door.
    pub doors: Vec<String>,
}

impl Cluster {
    /// Starts `count` peers in `folder`, joined by invites; ready when all see all.
    pub fn start(binary: &Path, folder: &Path, count: usize) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster { binary: binary.to_owned(), peers: Vec::new(), api: String::new(), doors: Vec::new() };
        for index in 0..count {
            let dir = folder.join(format!("peer{index}"));
            let log = folder.join(format!("peer{index}.log"));
            std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            let mut command = Command::new(binary);
            if index == 0 {
                command.arg("up");
            } else {
                let invite = client(Command::new(binary).args(["invite", "--api", &cluster.api]))?;
                command.arg("join").arg(invite.trim().lines().last().context("an invite")?);
            }
            command.arg("--dir").arg(&dir).args(["--name", &format!("peer{index}"), "--json"]);
            command.args(["--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0"]);
            command.args(["--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"]);
            let mut running = Running::start("a pinfold peer", &mut command, &log)?;
            let ready = until("a peer is ready", Duration::from_secs(60), || {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                text.lines().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|value| value["ready"] == true))
            });
            running.check()?;
            let api = ready?["api"].as_str().unwrap_or_default().to_owned();
            cluster.doors.push(api.trim_start_matches("http://").trim_end_matches('/').to_owned());
            if index == 0 {
                cluster.api = api;
            }
            cluster.peers.push(running);
        }
        until("all peers see each other", Duration::from_secs(60), || {
            let seen = client(Command::new(binary).args(["peers", "--json", "--api", &cluster.api])).ok()?;
            (seen.matches("\"up\"").count() == count).then_some(())
        })?;
        Ok(cluster)
    }

    /// Adds a path and waits for the copies to be confirmed; the root.
    pub fn add(&self, path: &Path, copies: usize) -> anyhow::Result<String> {
        let copies = copies.to_string();
        let output = client(
            Command::new(&self.binary).arg("add").arg(path).args(["--quiet", "--api", &self.api, "--copies", &copies, "--wait", &copies]),
        )?;
        Ok(output.trim().lines().last().unwrap_or_default().to_owned())
    }

    /// One of the processes.
    pub fn peer(&self, index: usize) -> &Running {
        &self.peers[index]
    }

    /// CPU seconds of all peers so far.
    pub fn cpu(&self) -> f64 {
        self.peers.iter().map(Running::cpu).sum()
    }
}
