//! Go's `service.json` and `peerstore` as `pinfold.toml`, and in words what has no counterpart.

use crate::announce::Side;
use anyhow::{Context, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use types::PeerId;

/// Port of our gateway beside a Kubo, which has 8080.
const GATEWAY_BESIDE_KUBO: &str = "127.0.0.1:8081";
/// Ports of our node beside a Kubo, which has 4001.
const SWARM_BESIDE_KUBO: [&str; 2] = ["/ip4/0.0.0.0/tcp/4002", "/ip4/0.0.0.0/udp/4002/quic-v1"];

/// Which consensus the Go peer had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consensus {
    /// `consensus.crdt`.
    Crdt,
    /// `consensus.raft`, with its data folder below the configuration's.
    Raft(String),
}

/// What a Go configuration becomes.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What `pinfold.toml` says beside the defaults.
    pub toml: String,
    /// Of the private network, 64 hex digits.
    pub secret: String,
    /// Which consensus it had.
    pub consensus: Consensus,
    /// Other peers that it knew where to find.
    pub others: BTreeSet<PeerId>,
    /// What an administrator should know: what changed and what was left behind.
    pub notes: Vec<String>,
}

/// Translates. `peerstore`: the text of that file, empty when there is none. An error names the key.
pub fn translate(service: &Value, peerstore: &str, me: &PeerId) -> anyhow::Result<Taken> {
    let mut notes = Vec::new();
    let cluster = &service["cluster"];
    let secret = cluster["secret"].as_str().unwrap_or_default().to_owned();
    if secret.is_empty() {
        bail!("cluster.secret is empty: the Go cluster is an open network, which Pinfold does not join; give it a secret first");
    }
    let consensus = consensus(service)?;
    let crdt = &service["consensus"]["crdt"];
    let addresses = peer_addresses(cluster, peerstore, me);
    let others: BTreeSet<PeerId> = addresses.iter().map(|(peer, _)| *peer).collect();
    let mut lines = vec!["# Taken over from Go ipfs-cluster by `pinfold migrate`; all keys with their defaults are below.".to_owned()];
    let mut set = |key: &str, value: toml::Value| lines.push(format!("{key} = {value}"));
    if let Some(name) = cluster["peername"].as_str().filter(|name| !name.is_empty()) {
        set("name", name.into());
    }
    set("cluster_name", crdt["cluster_name"].as_str().unwrap_or("ipfs-cluster").into());
    let listen: Vec<String> = texts(&cluster["listen_multiaddress"]);
    let tcp: Vec<toml::Value> = listen
        .iter()
        .filter(|address| address.contains("/tcp/") && !address.contains("/ws"))
        .map(|address| address.as_str().into())
        .collect();
    if tcp.len() < listen.len() {
        notes.push(
            "cluster.listen_multiaddress: only the TCP addresses are taken (Go does not serve QUIC beside a secret either)".to_owned(),
        );
    }
    if !tcp.is_empty() {
        set("cluster", toml::Value::Array(tcp));
    }
    let announced = texts(&cluster["announce_multiaddress"]);
    let ours: Vec<toml::Value> =
        announced.iter().filter(|address| Side::Cluster.takes(address)).map(|address| address.as_str().into()).collect();
    if ours.len() < announced.len() {
        notes.push("cluster.announce_multiaddress: only the TCP addresses are taken".to_owned());
    }
    if !ours.is_empty() {
        set("cluster_announce", toml::Value::Array(ours));
    }
    for (key, section, field) in [("api", "restapi", "http_listen_multiaddress"), ("proxy", "ipfsproxy", "listen_multiaddress")] {
        if let Some(address) = texts(&service["api"][section][field]).first() {
            set(key, door(address, &format!("api.{section}.{field}"), &mut notes)?.into());
        }
    }
    if let Some(node) = texts(&service["ipfs_connector"]["ipfshttp"]["node_multiaddress"]).first() {
        let (host, port) =
            host_port(node).with_context(|| format!("ipfs_connector.ipfshttp.node_multiaddress: {node:?} is no TCP address"))?;
        set("node", format!("kubo=http://{host}:{port}").into());
        set("gateway", GATEWAY_BESIDE_KUBO.into());
        set("swarm", toml::Value::Array(SWARM_BESIDE_KUBO.iter().map(|address| (*address).into()).collect()));
        notes.push(format!(
            "blocks stay in the Kubo at {host}:{port}, which must run; the gateway is at {GATEWAY_BESIDE_KUBO} and the own node at port 4002, since Kubo has 8080 and 4001"
        ));
    }
    let trusted = trusted(&consensus, crdt, &addresses, me, &mut notes);
    let has_trusted = !trusted.is_empty();
    set("trusted_peers", toml::Value::Array(trusted.into_iter().map(Into::into).collect()));
    if cluster["follower_mode"] == true {
        set("follower", true.into());
    }
    copies(cluster, has_trusted, &mut set, &mut notes)?;
    set("rebalance", false.into());
    notes.push(
        "copies stay where Go put them; `rebalance = true` in pinfold.toml moves them to an even spread, once no Go peer is left"
            .to_owned(),
    );
    left_behind(service, &mut notes);
    lines.push(String::new());
    Ok(Taken { toml: lines.join("\n"), secret, consensus, others, notes })
}

fn consensus(service: &Value) -> anyhow::Result<Consensus> {
    let sections = &service["consensus"];
    match (sections["crdt"].is_object(), sections["raft"].is_object()) {
        (true, false) => Ok(Consensus::Crdt),
        (false, true) => {
            Ok(Consensus::Raft(sections["raft"]["data_folder"].as_str().filter(|at| !at.is_empty()).unwrap_or("raft").to_owned()))
        }
        _ => bail!("service.json must have one of consensus.crdt and consensus.raft"),
    }
}

/// A string or a list of them, as Go writes address lists.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(|text| text.as_str().map(ToOwned::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// Other peers with an address each, as configured and as Go learned them; lines that do not start with `/` are skipped, as there.
fn peer_addresses(cluster: &Value, peerstore: &str, me: &PeerId) -> Vec<(PeerId, String)> {
    let configured = texts(&cluster["peer_addresses"]);
    let learned = peerstore.lines().map(|line| line.trim().to_owned());
    let mut seen = BTreeSet::new();
    configured
        .into_iter()
        .chain(learned)
        .filter(|address| address.starts_with('/'))
        .filter_map(|address| {
            let peer = wire::multiaddr::peer_of(&wire::multiaddr::from_text(&address).ok()?)?;
            (peer != *me && seen.insert(address.clone())).then_some((peer, address))
        })
        .collect()
}

/// Who may write: with an address where one is known, so that it is dialled.
fn trusted(consensus: &Consensus, crdt: &Value, addresses: &[(PeerId, String)], me: &PeerId, notes: &mut Vec<String>) -> Vec<String> {
    if matches!(consensus, Consensus::Raft(_)) {
        notes.push(
            "Raft peers do not take part in Pinfold's shared state: migrate each peer, and join the further ones to the first by `pinfold invite`"
                .to_owned(),
        );
        return Vec::new();
    }
    let listed = texts(&crdt["trusted_peers"]);
    let is_everybody = listed.iter().any(|entry| entry == "*");
    let mut entries: Vec<String> = if is_everybody { vec!["*".to_owned()] } else { Vec::new() };
    let mut named: BTreeSet<PeerId> = listed.iter().filter_map(|entry| entry.parse().ok()).filter(|peer| peer != me).collect();
    for (peer, address) in addresses {
        if is_everybody || named.contains(peer) {
            entries.push(address.clone());
        }
    }
    named.retain(|peer| !is_everybody && !addresses.iter().any(|(other, _)| other == peer));
    entries.extend(named.iter().map(ToString::to_string));
    let strangers = addresses.iter().filter(|(peer, _)| !is_everybody && !listed.contains(&peer.to_string())).count();
    if strangers > 0 {
        notes.push(format!("{strangers} addresses of the peerstore belong to peers that are not in trusted_peers: left behind"));
    }
    if !entries.is_empty() {
        notes.push(format!(
            "Go peers go on as they are; those with a list of trusted_peers must have this peer's id in it, as before ({me}). While there are any, pins \
             follow Go's rules (go-compat)"
        ));
    }
    entries
}

fn copies(cluster: &Value, has_trusted: bool, set: &mut impl FnMut(&str, toml::Value), notes: &mut Vec<String>) -> anyhow::Result<()> {
    let factor = |key: &str| cluster[key].as_i64().unwrap_or(-1);
    let (least, most) = (factor("replication_factor_min"), factor("replication_factor_max"));
    match (least, most) {
        (-1 | 0, -1 | 0) if has_trusted => {}
        (-1 | 0, -1 | 0) => notes.push(
            "Go kept pins that say nothing on every peer; here they get 2 copies of 2 to 3 (copies_least, copies_wanted, copies_most)"
                .to_owned(),
        ),
        (least, most) if 1 <= least && least <= most && most <= 100_000 => {
            set("copies_least", least.into());
            set("copies_wanted", most.into());
            set("copies_most", most.into());
        }
        (least, most) => bail!("cluster.replication_factor_min and _max are {least} and {most}: both -1, or 1 <= min <= max"),
    }
    if cluster["disable_repinning"].as_bool().unwrap_or(true) {
        set("repair", false.into());
        notes.push("disable_repinning: lost copies are not replaced; `repair = true` in pinfold.toml changes that".to_owned());
    }
    Ok(())
}

/// `host:port` of a door; what would listen to the world without credentials stays on loopback.
fn door(address: &str, key: &str, notes: &mut Vec<String>) -> anyhow::Result<String> {
    let (host, port) = host_port(address).with_context(|| format!("{key}: {address:?} is no TCP address"))?;
    let is_loopback = host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if is_loopback {
        return Ok(format!("{host}:{port}"));
    }
    notes.push(format!(
        "{key}: {host}:{port} is not loopback, which needs credentials that Pinfold's doors do not have yet: 127.0.0.1:{port}"
    ));
    Ok(format!("127.0.0.1:{port}"))
}

/// Host (IPv6 in brackets) and port of `/ip4|ip6|dns*/host/tcp/port`.
fn host_port(address: &str) -> Option<(String, u16)> {
    let parts: Vec<&str> = address.split('/').collect();
    let ["", kind, host, "tcp", port, ..] = parts[..] else { return None };
    let host = match kind {
        "ip6" => format!("[{}]", host.parse::<std::net::Ipv6Addr>().ok()?),
        "ip4" => host.parse::<std::net::Ipv4Addr>().ok()?.to_string(),
        "dns" | "dns4" | "dns6" if !host.is_empty() => host.to_owned(),
        _ => return None,
    };
    Some((host, port.parse().ok()?))
}

/// Settings that do something in Go and have no counterpart here.
fn left_behind(service: &Value, notes: &mut Vec<String>) {
    let rest = &service["api"]["restapi"];
    let is_set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    let settings = [
        ("api.restapi.basic_auth_credentials", &rest["basic_auth_credentials"]),
        ("api.restapi.ssl_cert_file", &rest["ssl_cert_file"]),
        ("api.restapi.libp2p_listen_multiaddress", &rest["libp2p_listen_multiaddress"]),
        ("cluster.no_announce_multiaddress", &service["cluster"]["no_announce_multiaddress"]),
        ("cluster.pin_only_on_trusted_peers", &service["cluster"]["pin_only_on_trusted_peers"]),
        ("cluster.pin_only_on_untrusted_peers", &service["cluster"]["pin_only_on_untrusted_peers"]),
        ("source", &service["source"]),
    ];
    notes.extend(settings.iter().filter(|(_, value)| is_set(value)).map(|(key, _)| format!("{key} has no counterpart: left behind")));
    if service["api"]["pinsvcapi"].is_object() {
        notes.push("api.pinsvcapi: the pinning service API is left behind".to_owned());
    }
    let tags = &service["informer"]["tags"]["tags"];
    if tags.as_object().is_some_and(|tags| tags.iter().any(|(key, value)| (key.as_str(), value.as_str()) != ("group", Some("default")))) {
        notes.push(format!("informer.tags.tags {tags} has no counterpart: left behind"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn peer(number: u8) -> PeerId {
        PeerId::from_ed25519(&[number; 32])
    }

    fn service() -> Value {
        json!({
            "cluster": {
                "peername": "nas \"1\"", "secret": "9f".repeat(32), "replication_factor_min": 2, "replication_factor_max": 3,
                "listen_multiaddress": ["/ip4/0.0.0.0/tcp/9096", "/ip4/0.0.0.0/udp/9096/quic"], "peer_addresses": [], "disable_repinning": true,
                "announce_multiaddress": ["/dns4/nas1.example.org/tcp/19096", "/ip4/203.0.113.7/udp/19096/quic"],
            },
            "consensus": { "crdt": { "cluster_name": "ours", "trusted_peers": [peer(2).to_string(), peer(3).to_string()] } },
            "api": {
                "restapi": { "http_listen_multiaddress": "/ip4/0.0.0.0/tcp/9094", "basic_auth_credentials": { "a": "b" } },
                "ipfsproxy": { "listen_multiaddress": "/ip6/::1/tcp/9095" },
            },
            "ipfs_connector": { "ipfshttp": { "node_multiaddress": "/ip4/127.0.0.1/tcp/5001" } },
        })
    }

    #[test]
    fn settings_become_ours_and_what_is_left_is_named() {
        let (known, stranger) = (format!("/ip4/10.0.0.2/tcp/9096/p2p/{}", peer(2)), format!("/ip4/10.0.0.4/tcp/9096/p2p/{}", peer(4)));
        let own = format!("/ip4/10.0.0.1/tcp/9096/p2p/{}", peer(1));
        let taken = translate(&service(), &format!("# old\n{known}\n{stranger}\n{own}\n"), &peer(1)).expect("read");
        let table: toml::Table = taken.toml.parse().expect("TOML");
        assert_eq!(table["name"].as_str(), Some("nas \"1\""));
        assert_eq!(table["cluster"].as_array().map(Vec::len), Some(1));
        assert_eq!(table["cluster_announce"], toml::Value::Array(vec!["/dns4/nas1.example.org/tcp/19096".into()]));
        let texts = ["cluster_name", "api", "proxy", "node"].map(|key| table[key].as_str().unwrap_or_default().to_owned());
        assert_eq!(texts, ["ours", "127.0.0.1:9094", "[::1]:9095", "kubo=http://127.0.0.1:5001"]);
        assert_eq!(table["trusted_peers"], toml::Value::Array(vec![known.into(), peer(3).to_string().into()]));
        let copies = ["copies_least", "copies_wanted", "copies_most"].map(|key| table[key].as_integer());
        assert_eq!((copies, table["repair"].as_bool()), ([Some(2), Some(3), Some(3)], Some(false)));
        assert_eq!(taken.others, BTreeSet::from([peer(2), peer(4)]));
        let notes = taken.notes.join("\n");
        for part in [
            "not loopback",
            "announce_multiaddress: only",
            "basic_auth_credentials",
            "must have this peer's id",
            "1 addresses of the peerstore",
            "disable_repinning",
        ] {
            assert!(notes.contains(part), "{part} in {notes}");
        }
    }

    #[test]
    fn everybody_and_raft_and_open_networks() {
        let mut everybody = service();
        everybody["consensus"]["crdt"]["trusted_peers"] = json!(["*"]);
        everybody["cluster"]["follower_mode"] = json!(true);
        let known = format!("/dns4/nas2/tcp/9096/p2p/{}", peer(2));
        let table: toml::Table = translate(&everybody, &known, &peer(1)).expect("read").toml.parse().expect("TOML");
        assert_eq!(table["trusted_peers"], toml::Value::Array(vec!["*".into(), known.into()]));
        assert_eq!(table["follower"], toml::Value::Boolean(true));
        let mut raft = service();
        raft["consensus"] = json!({ "raft": {} });
        let taken = translate(&raft, "", &peer(1)).expect("read");
        assert_eq!(taken.consensus, Consensus::Raft("raft".to_owned()));
        let mut open = service();
        open["cluster"]["secret"] = json!("");
        assert!(translate(&open, "", &peer(1)).expect_err("open").to_string().contains("secret"));
        let mut neither = service();
        neither["consensus"] = json!({});
        assert!(translate(&neither, "", &peer(1)).is_err());
    }

    #[test]
    fn addresses_of_doors_are_read() {
        assert_eq!(host_port("/ip4/127.0.0.1/tcp/5001"), Some(("127.0.0.1".to_owned(), 5001)));
        assert_eq!(host_port("/dns4/kubo/tcp/5001/http"), Some(("kubo".to_owned(), 5001)));
        for bad in ["/unix/run/kubo.sock", "/ip4/127.0.0.1/udp/5001", "/ip4/nonsense/tcp/1", "/ip4/127.0.0.1/tcp/70000", "", "5001"] {
            assert_eq!(host_port(bad), None, "{bad}");
        }
    }
}
