//! Pinfold peers under measurement.

use super::process::{Running, client, until};
use anyhow::Context;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
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
    gateway: String,
}

/// Starts a peer in `folder/peer<index>`; it joins the one whose API is `first`. The line that it prints when it is ready.
pub fn start_peer(binary: &Path, folder: &Path, index: usize, first: Option<&str>, more: &[&str]) -> anyhow::Result<(Running, Value)> {
    let dir = folder.join(format!("peer{index}"));
    let log = folder.join(format!("peer{index}.log"));
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let mut command = Command::new(binary);
    match first {
        None => command.arg("up"),
        Some(first) => {
            let invite = client(Command::new(binary).args(["invite", "--api", first]))?;
            command.arg("join").arg(invite.trim().lines().last().context("an invite")?)
        }
    };
    command.arg("--dir").arg(&dir).args(["--name", &format!("peer{index}"), "--json"]);
    command.args(["--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0"]);
    command.args(["--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"]).args(more);
    let mut running = Running::start("a pinfold peer", &mut command, &log)?;
    let ready = until("a peer is ready", Duration::from_secs(60), || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|value| value["ready"] == true))
    });
    running.check()?;
    Ok((running, ready?))
}

impl Cluster {
    /// Starts `count` peers in `folder`, joined by invites; ready when all see all.
    pub fn start(binary: &Path, folder: &Path, count: usize) -> anyhow::Result<Cluster> {
        let mut cluster =
            Cluster { binary: binary.to_owned(), peers: Vec::new(), api: String::new(), doors: Vec::new(), gateway: String::new() };
        for index in 0..count {
            let (running, ready) = start_peer(binary, folder, index, (index > 0).then_some(cluster.api.as_str()), &[])?;
            let api = ready["api"].as_str().unwrap_or_default().to_owned();
            cluster.doors.push(api.trim_start_matches("http://").trim_end_matches('/').to_owned());
            if index == 0 {
                cluster.api = api;
                cluster.gateway = ready["gateway"].as_str().unwrap_or_default().to_owned();
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
        self.add_as("files", path, copies)
    }

    /// The same with a CAR.
    pub fn import(&self, car: &Path, copies: usize) -> anyhow::Result<String> {
        self.add_as("car", car, copies)
    }

    fn add_as(&self, format: &str, path: &Path, copies: usize) -> anyhow::Result<String> {
        let copies = copies.to_string();
        let mut command = Command::new(&self.binary);
        command.arg("add").arg(path).args(["--quiet", "--api", &self.api, "--copies", &copies, "--wait", &copies]);
        // Left out where it is the default, so that older binaries can be measured too.
        if format != "files" {
            command.args(["--format", format]);
        }
        let output = client(&mut command)?;
        Ok(output.trim().lines().last().unwrap_or_default().to_owned())
    }

    /// One of the processes.
    pub fn peer(&self, index: usize) -> &Running {
        &self.peers[index]
    }

    /// Writes what lies below `root` into a CAR.
    pub fn export(&self, root: &str, car: &Path) -> anyhow::Result<()> {
        let host = self.gateway.trim_start_matches("http://");
        let mut stream = BufReader::new(TcpStream::connect(host).context("connecting to the gateway")?);
        // HTTP/1.0: the body is what comes until the end.
        write!(stream.get_mut(), "GET /ipfs/{root}?format=car HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        anyhow::ensure!(line.contains(" 200 "), "the gateway gives no CAR: {}", line.trim());
        while line.trim_end() != "" {
            line.clear();
            stream.read_line(&mut line)?;
        }
        let mut file = std::fs::File::create(car).with_context(|| format!("making {}", car.display()))?;
        std::io::copy(&mut stream, &mut file).context("taking the CAR")?;
        Ok(())
    }

    /// CPU seconds of all peers so far.
    pub fn cpu(&self) -> f64 {
        self.peers.iter().map(Running::cpu).sum()
    }
}
