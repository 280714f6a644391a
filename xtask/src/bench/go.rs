//! Kubo and Go ipfs-cluster under measurement, configured for loopback and nothing else.

use super::process::{Running, client, free_port, until};
use anyhow::Context;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One Kubo daemon.
pub struct Kubo {
    binary: PathBuf,
    repository: PathBuf,
    api: u16,
    daemon: Running,
    /// Where its swarm is reached, with its id.
    pub address: String,
}

impl Kubo {
    /// Makes a repository and starts the daemon.
    pub fn start(bin: &Path, folder: &Path, index: usize) -> anyhow::Result<Kubo> {
        let binary = bin.join("ipfs");
        let repository = folder.join(format!("kubo{index}"));
        client(Command::new(&binary).args(["init", "--profile", "test", "-e"]).env("IPFS_PATH", &repository))?;
        let path = repository.join("config");
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        let (api, gateway, swarm) = (free_port()?, free_port()?, free_port()?);
        config["Addresses"]["API"] = json!(format!("/ip4/127.0.0.1/tcp/{api}"));
        config["Addresses"]["Gateway"] = json!(format!("/ip4/127.0.0.1/tcp/{gateway}"));
        config["Addresses"]["Swarm"] = json!([format!("/ip4/127.0.0.1/tcp/{swarm}")]);
        config["Bootstrap"] = json!([]);
        config["Discovery"] = json!({"MDNS": {"Enabled": false}});
        config["Routing"] = json!({"Type": "none", "DelegatedRouters": []});
        config["AutoConf"] = json!({"Enabled": false});
        config["AutoTLS"] = json!({"Enabled": false});
        config["DNS"] = json!({"Resolvers": {}});
        config["Ipns"]["DelegatedPublishers"] = json!([]);
        config["Datastore"]["StorageMax"] = json!("50GB");
        std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        let id = config["Identity"]["PeerID"].as_str().context("kubo's id")?;
        let address = format!("/ip4/127.0.0.1/tcp/{swarm}/p2p/{id}");
        let mut command = Command::new(&binary);
        command.arg("daemon").env("IPFS_PATH", &repository).env("IPFS_TELEMETRY", "off");
        let daemon = Running::start("kubo", &mut command, &folder.join(format!("kubo{index}.log")))?;
        let kubo = Kubo { binary, repository, api, daemon, address };
        // Asked by its port: `ipfs id` would take the lock of a repository whose daemon is still on its way.
        until("kubo answers", Duration::from_secs(60), || TcpStream::connect(("127.0.0.1", api)).ok().map(drop))?;
        Ok(kubo)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("IPFS_PATH", &self.repository);
        command
    }

    /// Adds a path with today's usual form (CIDv1, raw leaves); the root.
    pub fn add(&self, path: &Path) -> anyhow::Result<String> {
        let output = client(self.command().args(["add", "-r", "-Q", "--cid-version=1", "--chunker=size-262144"]).arg(path))?;
        Ok(output.trim().to_owned())
    }

    /// Imports a CAR and pins its root, which is returned.
    pub fn import(&self, car: &Path) -> anyhow::Result<String> {
        let output = client(self.command().args(["dag", "import", "--enc=json"]).arg(car))?;
        let line: Value = serde_json::from_str(output.trim().lines().next().unwrap_or_default()).context("the root of an import")?;
        Ok(line["Root"]["Cid"]["/"].as_str().unwrap_or_default().to_owned())
    }

    /// Connects with a node.
    pub fn connect(&self, address: &str) -> anyhow::Result<()> {
        client(self.command().args(["swarm", "connect", address])).map(drop)
    }

    /// Fetches what is missing below a root and pins it.
    pub fn pin(&self, root: &str) -> anyhow::Result<()> {
        client(self.command().args(["pin", "add", "--progress=false", root])).map(drop)
    }

    /// CPU seconds so far.
    pub fn cpu(&self) -> f64 {
        self.daemon.cpu()
    }
}

/// A Go cluster in CRDT mode, one Kubo per peer.
pub struct Cluster {
    bin: PathBuf,
    kubos: Vec<Kubo>,
    peers: Vec<Running>,
    api: u16,
    /// `host:port` of every peer's REST door.
    pub doors: Vec<String>,
    /// Multiaddrs of every peer with its id.
    pub addresses: Vec<String>,
}

/// The key of its private network.
pub const SECRET: &str = "9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f";

/// How pins of a Go cluster are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// Each pin its own delta: Go's default.
    Off,
    /// Gathered in memory: at most 1,000 pins or 500 ms.
    On,
}

impl Cluster {
    /// Starts `count` peers with `copies` as replication factors (-1: everywhere); ready when all see all.
    pub fn start(bin: &Path, folder: &Path, count: usize, copies: i64, batching: Batching) -> anyhow::Result<Cluster> {
        let service = bin.join("ipfs-cluster-service");
        let mut made = Vec::new();
        for index in 0..count {
            let kubo = Kubo::start(bin, folder, index)?;
            let dir = folder.join(format!("go{index}"));
            client(Command::new(&service).arg("-c").arg(&dir).args(["init", "--consensus", "crdt"]).env("CLUSTER_SECRET", SECRET))?;
            let identity: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("identity.json"))?)?;
            let id = identity["id"].as_str().context("an identity")?.to_owned();
            made.push((kubo, dir, id, free_port()?, free_port()?));
        }
        for (index, (kubo, dir, id, swarm, api)) in made.iter().enumerate() {
            let path = dir.join("service.json");
            let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
            let own = &mut config["cluster"];
            own["peername"] = json!(format!("go{index}"));
            own["secret"] = json!(SECRET);
            own["listen_multiaddress"] = json!([format!("/ip4/127.0.0.1/tcp/{swarm}")]);
            own["mdns_interval"] = json!("0s");
            own["enable_relay_hop"] = json!(false);
            own["replication_factor_min"] = json!(copies);
            own["replication_factor_max"] = json!(copies);
            if batching == Batching::On {
                config["consensus"]["crdt"]["batching"] = json!({ "max_batch_size": 1000, "max_batch_age": "500ms" });
            }
            config["api"]["restapi"]["http_listen_multiaddress"] = json!(format!("/ip4/127.0.0.1/tcp/{api}"));
            config["api"]["ipfsproxy"]["listen_multiaddress"] = json!(format!("/ip4/127.0.0.1/tcp/{}", free_port()?));
            config["api"]["ipfsproxy"]["node_multiaddress"] = json!(format!("/ip4/127.0.0.1/tcp/{}", kubo.api));
            config["api"]["pinsvcapi"]["http_listen_multiaddress"] = json!(format!("/ip4/127.0.0.1/tcp/{}", free_port()?));
            config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = json!(format!("/ip4/127.0.0.1/tcp/{}", kubo.api));
            std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
            let others = made.iter().filter(|(_, _, other, _, _)| other != id);
            let lines: Vec<String> = others.map(|(_, _, other, swarm, _)| format!("/ip4/127.0.0.1/tcp/{swarm}/p2p/{other}\n")).collect();
            std::fs::write(dir.join("peerstore"), lines.concat())?;
        }
        let mut peers = Vec::new();
        for (index, (_, dir, _, _, _)) in made.iter().enumerate() {
            let mut command = Command::new(&service);
            command.arg("-c").arg(dir).arg("daemon");
            peers.push(Running::start("a go cluster peer", &mut command, &folder.join(format!("go{index}.log")))?);
            // One after another: a dial to a peer that does not listen yet is not tried again for minutes.
            until("a go peer answers", Duration::from_secs(30), || TcpStream::connect(("127.0.0.1", made[index].4)).ok().map(drop))?;
        }
        let api = made[0].4;
        let doors = made.iter().map(|(.., api)| format!("127.0.0.1:{api}")).collect();
        let addresses = made.iter().map(|(_, _, id, swarm, _)| format!("/ip4/127.0.0.1/tcp/{swarm}/p2p/{id}")).collect();
        let kubos = made.into_iter().map(|(kubo, ..)| kubo).collect();
        let cluster = Cluster { bin: bin.to_owned(), kubos, peers, api, doors, addresses };
        until("all go peers see each other", Duration::from_secs(90), || {
            let id: Value = serde_json::from_str(&client(cluster.ctl().args(["id"])).ok()?).ok()?;
            (id["cluster_peers"].as_array()?.len() == count).then_some(())
        })?;
        // A peer is a candidate only after its free-space metric has come, seconds after it is seen.
        let first = folder.join("first");
        std::fs::write(&first, b"first")?;
        until("the go cluster takes an add", Duration::from_secs(90), || cluster.add(&first).ok())?;
        Ok(cluster)
    }

    fn ctl(&self) -> Command {
        let mut command = Command::new(self.bin.join("ipfs-cluster-ctl"));
        command.args(["--enc=json", "--host", &format!("/ip4/127.0.0.1/tcp/{}", self.api)]);
        command
    }

    /// Adds a path and waits until its pin is at its holders.
    pub fn add(&self, path: &Path) -> anyhow::Result<()> {
        client(self.ctl().args(["add", "-Q", "-r", "--no-stream", "--cid-version", "1", "--wait"]).arg(path)).map(|_| ())
    }

    /// Imports a CAR and waits until its pin is at its holders.
    pub fn import(&self, car: &Path) -> anyhow::Result<()> {
        client(self.ctl().args(["add", "-Q", "--no-stream", "--format", "car", "--wait"]).arg(car)).map(|_| ())
    }

    /// One of the cluster peers.
    pub fn peer(&self, index: usize) -> &Running {
        &self.peers[index]
    }

    /// CPU seconds of the cluster peers alone so far.
    pub fn cpu_of_peers(&self) -> f64 {
        self.peers.iter().map(Running::cpu).sum()
    }

    /// CPU seconds of cluster peers and their Kubos so far.
    pub fn cpu(&self) -> f64 {
        self.peers.iter().map(Running::cpu).chain(self.kubos.iter().map(Kubo::cpu)).sum()
    }
}
