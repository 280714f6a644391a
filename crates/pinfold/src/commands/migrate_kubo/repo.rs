//! A Kubo repository as it lies on disk, read only.

use crate::announce::Side;
use anyhow::{Context, bail};
use serde_json::Value;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder of blocks where nothing else is said.
const BLOCKS: &str = "blocks";
/// Keys of one repository, at most.
const KEYS_MOST: usize = 10_000;

/// The repository.
pub struct Repo {
    /// Where it lies.
    pub root: PathBuf,
    /// Its folder of blocks.
    pub blocks: PathBuf,
    config: Value,
}

impl Repo {
    /// Reads its settings and finds its blocks.
    pub fn open(root: &Path) -> anyhow::Result<Repo> {
        let path = root.join("config");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}: name the folder that Kubo uses ($IPFS_PATH, for example ~/.ipfs)", path.display()))?;
        let config: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        let blocks = match std::fs::read_to_string(root.join("datastore_spec")) {
            Ok(spec) => {
                let spec: Value = serde_json::from_str(&spec).context("datastore_spec is no JSON")?;
                let flatfs = flatfs_path(&spec).context(
                    "the blocks of this repository are not in flatfs (see its datastore_spec): bring them over by \
                     `ipfs dag export <cid> | pinfold add - --format car`",
                )?;
                root.join(flatfs)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => root.join(BLOCKS),
            Err(error) => return Err(error).context("reading datastore_spec"),
        };
        let sharding = blocks.join("SHARDING");
        let rule = std::fs::read_to_string(&sharding).with_context(|| format!("reading {}", sharding.display()))?;
        if !wire::flatfs::is_sharding(&rule) {
            bail!("{}: {:?} is no way of laying out blocks that is known here", sharding.display(), rule.trim());
        }
        Ok(Repo { root: root.to_owned(), blocks, config })
    }

    /// Refuses a repository that a daemon (or another command of Kubo) has open. What is returned keeps them out.
    pub fn refuse_running(&self) -> anyhow::Result<Option<File>> {
        let running = || format!("{} is in use by a running Kubo: stop it first (`ipfs shutdown`)", self.root.display());
        let path = self.root.join("repo.lock");
        let lock = match File::options().read(true).write(true).open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
        if let Some(file) = &lock
            && rustix::fs::fcntl_lock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
        {
            bail!(running());
        }
        // After a `kill -9` the file stays behind: only one that answers counts.
        let api = std::fs::read_to_string(self.root.join("api")).ok();
        if api.and_then(|api| socket_of(api.trim())).is_some_and(|api| TcpStream::connect_timeout(&api, Duration::from_secs(2)).is_ok()) {
            bail!(running());
        }
        Ok(lock)
    }

    /// Keys of the keystore: name and bytes in libp2p's form.
    pub fn keys(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let folder = self.root.join("keystore");
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
        };
        let mut keys = Vec::new();
        for entry in entries.take(KEYS_MOST) {
            let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
            let Some(key) = entry.file_name().to_str().and_then(wire::ipns::key_of_file) else { continue };
            if entry.metadata().is_ok_and(|metadata| metadata.len() <= net::keys::KEY_BYTES_MAX as u64) {
                keys.push((key, std::fs::read(entry.path()).with_context(|| format!("reading {}", entry.path().display()))?));
            }
        }
        keys.sort();
        Ok(keys)
    }

    /// The key of the node's identity.
    pub fn identity(&self) -> Option<Vec<u8>> {
        use base64::Engine;
        let text = self.config["Identity"]["PrivKey"].as_str()?;
        base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()
    }

    /// What `pinfold.toml` says beside the defaults, and in words what has no counterpart.
    pub fn settings(&self, notes: &mut Vec<String>) -> String {
        let config = &self.config;
        let mut lines = vec!["# Taken over from Kubo by `pinfold migrate-kubo`; all keys with their defaults are below.".to_owned()];
        let swarm = texts(&config["Addresses"]["Swarm"]);
        let taken: Vec<&String> = swarm.iter().filter(|address| is_ours(address)).collect();
        if !taken.is_empty() {
            lines.push(format!("swarm = {}", toml::Value::Array(taken.iter().map(|address| address.as_str().into()).collect())));
        }
        if taken.len() < swarm.len() {
            notes.push(
                "Addresses.Swarm: TCP and QUIC addresses are taken, others (WebRTC, WebTransport, WebSocket) are left behind".to_owned(),
            );
        }
        let (instead, further) = (texts(&config["Addresses"]["Announce"]), texts(&config["Addresses"]["AppendAnnounce"]));
        let announced: Vec<&String> = instead.iter().chain(&further).collect();
        let mut ours: Vec<toml::Value> =
            announced.iter().filter(|address| Side::Swarm.takes(address)).map(|address| address.as_str().into()).collect();
        if ours.len() < announced.len() {
            notes.push("Addresses.Announce and AppendAnnounce: TCP and QUIC addresses are taken, others are left behind".to_owned());
        }
        if !ours.is_empty() {
            if instead.is_empty() {
                ours.insert(0, "listened".into());
            }
            lines.push(format!("swarm_announce = {}", toml::Value::Array(ours)));
        }
        match texts(&config["Addresses"]["Gateway"]).iter().find_map(|address| socket_of(address)) {
            Some(gateway) if gateway.ip().is_loopback() => lines.push(format!("gateway = \"{gateway}\"")),
            Some(gateway) => {
                notes.push(format!("Addresses.Gateway {gateway} is not on loopback: set `gateway` in pinfold.toml if you want that"));
            }
            None => {}
        }
        if let Some(most) = config["Datastore"]["StorageMax"].as_str() {
            notes.push(format!("Datastore.StorageMax {most} is only a mark for Kubo's garbage collection: --space sets a hard limit here"));
        }
        let is_set =
            |value: &Value| value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|list| !list.is_empty());
        if is_set(&config["DNS"]["Resolvers"]) {
            notes.push("DNS.Resolvers (DNS over HTTPS) have no counterpart: `dns` in [names] takes servers of ordinary DNS".to_owned());
        }
        if is_set(&config["Peering"]["Peers"]) {
            notes.push("Peering.Peers have no counterpart: members of a cluster stay connected by themselves".to_owned());
        }
        for key in ["FilestoreEnabled", "UrlstoreEnabled"] {
            if config["Experimental"][key] == true {
                notes.push(format!(
                    "Experimental.{key}: what was added with --nocopy lies in its own files, not in the repository; add it again"
                ));
            }
        }
        if self.root.join("swarm.key").exists() {
            notes.push("swarm.key: the peer's node does not take part in private IPFS networks; its cluster has one of its own".to_owned());
        }
        lines.join("\n")
    }
}

/// The folder of the flatfs somewhere in a tree of mounts.
fn flatfs_path(spec: &Value) -> Option<String> {
    if spec["type"] == "flatfs" {
        return spec["path"].as_str().map(str::to_owned);
    }
    let below = spec["mounts"].as_array().into_iter().flatten().chain(spec.get("child"));
    below.into_iter().find_map(flatfs_path)
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// Addresses that our node listens on too.
fn is_ours(address: &str) -> bool {
    let parts: Vec<&str> = address.trim_matches('/').split('/').collect();
    matches!(parts.as_slice(), ["ip4" | "ip6", _, "tcp", _] | ["ip4" | "ip6", _, "udp", _, "quic-v1"])
}

/// `/ip4/127.0.0.1/tcp/5001` as an address of a socket.
fn socket_of(address: &str) -> Option<SocketAddr> {
    match address.trim_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["ip4" | "ip6", host, "tcp", port, ..] => Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_with_a_counterpart_are_taken_and_the_rest_is_named() {
        let config = json!({
            "Addresses": {
                "Swarm": ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/udp/4001/quic-v1", "/ip4/0.0.0.0/udp/4001/quic-v1/webtransport"],
                "Gateway": "/ip4/127.0.0.1/tcp/8080",
                "AppendAnnounce": ["/ip4/203.0.113.7/udp/4001/quic-v1", "/ip4/203.0.113.7/tcp/4003/ws"],
            },
            "Datastore": { "StorageMax": "10GB" },
            "DNS": { "Resolvers": { ".": "https://example.org" } },
            "Experimental": { "FilestoreEnabled": true },
        });
        let repo = Repo { root: "/nowhere".into(), blocks: "/nowhere".into(), config };
        let mut notes = Vec::new();
        let toml: toml::Table = repo.settings(&mut notes).parse().expect("TOML");
        assert_eq!(toml["gateway"].as_str(), Some("127.0.0.1:8080"));
        assert_eq!(toml["swarm"].as_array().map(Vec::len), Some(2));
        assert_eq!(toml["swarm_announce"], toml::Value::Array(vec!["listened".into(), "/ip4/203.0.113.7/udp/4001/quic-v1".into()]));
        for word in ["WebTransport", "AppendAnnounce", "StorageMax 10GB", "DNS.Resolvers", "FilestoreEnabled"] {
            assert!(notes.iter().any(|note| note.contains(word)), "{word}: {notes:?}");
        }
    }

    #[test]
    fn blocks_are_found_in_any_tree_of_mounts() {
        let flatfs = json!({"type": "flatfs", "path": "here"});
        for spec in [flatfs.clone(), json!({"type": "mount", "mounts": [{"type": "levelds"}, {"type": "measure", "child": flatfs}]})] {
            assert_eq!(flatfs_path(&spec).as_deref(), Some("here"), "{spec}");
        }
        assert_eq!(flatfs_path(&json!({"type": "badgerds", "path": "badgerds"})), None);
    }
}
