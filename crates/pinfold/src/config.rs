//! Where a peer's settings come from: defaults, then `pinfold.toml`, then environment and flags.
//!
//! The data directory holds `pinfold.toml` (commented, for people), `identity.json` and `node.json` (keys, Go's form, readable
//! by their owner alone), `secret` (the private network's key), `keys` (of names), and the stores.

use crate::announce::{Announced, Side};
use crate::cli::UpArgs;
use crate::go_peers::GoPeers;
use crate::names::{NameSettings, NamesTable};
use crate::reach::ReachSettings;
use crate::routing::{RoutingSettings, RoutingTable};
use crate::units::{parse_bytes, parse_duration, parse_rate};
use anyhow::{Context, bail};
use ed25519_dalek::SigningKey;
use std::path::{Path, PathBuf};
use std::time::Duration;
use types::ByteCount;
use wire::identity::PrivateKey;

/// Everything `up` needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Data directory.
    pub dir: PathBuf,
    /// Name for people.
    pub name: String,
    /// The cluster's name; the gossip topic follows from it.
    pub cluster_name: String,
    /// REST door.
    pub api: String,
    /// Gateway door.
    pub gateway: String,
    /// Proxy door.
    pub proxy: String,
    /// Cluster listen addresses.
    pub cluster: Vec<String>,
    /// Node listen addresses.
    pub swarm: Vec<String>,
    /// Hard limit of the whole data directory; none is the disk's.
    pub space: Option<ByteCount>,
    /// Copies of a pin that says nothing: least, wanted, most; zeros are everywhere.
    pub copies: (u32, u32, u32),
    /// What that class is called.
    pub class_name: &'static str,
    /// Before copies of a silent peer are replaced.
    pub grace: Duration,
    /// What stores the blocks.
    pub node: NodeKind,
    /// Whether what the node's user keeps there becomes the cluster's too.
    pub adopt: peer::Adopt,
    /// How the stored blocks are looked after.
    pub scrub: peer::ScrubOptions,
    /// Limits of bandwidth.
    pub bandwidth: Bandwidth,
    /// Lost copies are replaced, at this rate.
    pub repair: (bool, ByteCount),
    /// Copies move by themselves to peers below their share; they and those of a drain at this rate.
    pub rebalance: (bool, ByteCount),
    /// Whether peers and IPFS nodes of the local net are found by multicast DNS.
    pub mdns: bool,
    /// Where others are told to dial the cluster's network, and the node.
    pub announced: (Announced, Announced),
    /// How this peer is reached from outside, and whom it helps with that.
    pub reach: ReachSettings,
    /// Whether this peer only follows what others write.
    pub follower: bool,
    /// Go peers of the same cluster.
    pub trusted_peers: GoPeers,
    /// IPNS and DNSLink.
    pub names: NameSettings,
    /// The DHT.
    pub routing: RoutingSettings,
}

/// The file's keys. Unknown ones are an error.
#[derive(Debug, Default, serde::Deserialize)]
struct File {
    name: Option<String>,
    cluster_name: Option<String>,
    api: Option<String>,
    gateway: Option<String>,
    proxy: Option<String>,
    cluster: Option<Vec<String>>,
    swarm: Option<Vec<String>>,
    space: Option<String>,
    copies_least: Option<u32>,
    copies_wanted: Option<u32>,
    copies_most: Option<u32>,
    grace: Option<String>,
    node: Option<String>,
    adopt: Option<String>,
    repair: Option<bool>,
    repair_rate: Option<String>,
    rebalance: Option<bool>,
    rebalance_rate: Option<String>,
    mdns: Option<bool>,
    cluster_announce: Option<Vec<String>>,
    swarm_announce: Option<Vec<String>>,
    reachable: Option<String>,
    relay: Option<String>,
    cluster_relays: Option<Vec<String>>,
    swarm_relays: Option<Vec<String>>,
    follower: Option<bool>,
    trusted_peers: Option<Vec<String>>,
    scrub_rate: Option<String>,
    scrub_every: Option<String>,
    bandwidth: Option<BandwidthTable>,
    names: Option<NamesTable>,
    routing: Option<RoutingTable>,
}

/// The table `[bandwidth]`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct BandwidthTable {
    lan_up: Option<String>,
    lan_down: Option<String>,
    wan_up: Option<String>,
    wan_down: Option<String>,
    /// Lines as `mon-fri 08:00-18:00 wan_up=1MB/s`.
    #[serde(default)]
    schedule: Vec<String>,
    /// What counts as the local net.
    #[serde(default)]
    lan: Vec<String>,
}

/// Limits of bandwidth as configured.
#[derive(Debug, Clone, Default)]
pub struct Bandwidth {
    /// When which limit holds.
    pub rules: Vec<peer::Rule>,
    /// What counts as the local net; empty for the usual ranges.
    pub lan: Vec<net::IpRange>,
}

impl Bandwidth {
    fn of(table: BandwidthTable) -> anyhow::Result<Bandwidth> {
        let named = [("lan_up", table.lan_up), ("lan_down", table.lan_down), ("wan_up", table.wan_up), ("wan_down", table.wan_down)];
        let words: Vec<String> = named.into_iter().filter_map(|(key, rate)| rate.map(|rate| format!("{key}={rate}"))).collect();
        let always = (!words.is_empty()).then(|| format!("always {}", words.join(" ")));
        let rules = always.iter().chain(&table.schedule).map(|line| line.parse()).collect::<Result<_, _>>()?;
        let lan = table.lan.iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
        Ok(Bandwidth { rules, lan })
    }
}

const KEYS: [&str; 32] = [
    "name",
    "cluster_name",
    "api",
    "gateway",
    "proxy",
    "cluster",
    "swarm",
    "space",
    "copies_least",
    "copies_wanted",
    "copies_most",
    "grace",
    "node",
    "adopt",
    "repair",
    "repair_rate",
    "rebalance",
    "rebalance_rate",
    "mdns",
    "cluster_announce",
    "swarm_announce",
    "reachable",
    "relay",
    "cluster_relays",
    "swarm_relays",
    "follower",
    "trusted_peers",
    "scrub_rate",
    "scrub_every",
    "bandwidth",
    "names",
    "routing",
];

/// All keys, commented out, with their defaults.
pub const COMMENTED: &str = r#"# Pinfold: settings of this peer. Flags and PINFOLD_* variables win over this file; a line with # is the default.
# What all peers must agree on (copies by class, policies) is kept by the cluster itself, not here.

# name = "nas1"                            # for people; default: the host's name
# cluster_name = "pinfold"                 # peers of one cluster have the same
# api = "127.0.0.1:9094"                   # REST door and status page
# gateway = "127.0.0.1:8080"               # http gateway
# proxy = "127.0.0.1:9095"                 # IPFS API proxy
# cluster = ["/ip4/0.0.0.0/tcp/9096"]      # where other peers reach this one
# swarm = ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"]   # where IPFS nodes reach it
# space = "500GB"                          # most bytes for the whole data directory; default: what the disk has
# copies_least = 2                         # copies of a pin that says nothing: fewer than this is repaired
# copies_wanted = 2
# copies_most = 3
# grace = "10m"                            # before the copies of a silent peer are replaced
# node = "embedded"                        # or a Kubo daemon: "kubo=http://127.0.0.1:5001" (user:password@ or bearer:TOKEN@ before the host)
# adopt = "off"                            # pins, pins+mfs: what the node's own user keeps there is kept by the cluster too
# scrub_rate = "10MB/s"                    # how gently stored blocks are read again and checked
# scrub_every = "14d"                      # from one such round to the next; "off": only by `pinfold scrub --start`
# repair = true                            # replace lost copies
# repair_rate = "500MB/s"                  # bytes that this peer orders anew in a second, at most, after copies were lost
# rebalance = true                         # move copies by themselves to peers that have less than their share; never while copies are
#                                          # lost or members out of sight. What `pinfold migrate` writes says false; see trusted_peers.
# rebalance_rate = "100MB/s"               # bytes that this peer moves in a second, at most: balancing and draining
# mdns = true                              # peers and IPFS nodes on one local net find each other (not where only loopback is listened on)
# cluster_announce = []                    # where others dial it, instead of where it listens: ["/ip4/203.0.113.7/tcp/9096"] where a router
#                                          # forwards that port; "listened" in the list stands for where it listens
# swarm_announce = []                      # the same for its IPFS node
# reachable = "auto"                       # can it be dialled from outside: auto asks others to try; "yes" and "no" say so
# relay = "everyone"                       # when it can: members reach each other through it, strangers a little; "members", "off"
# cluster_relays = []                      # when it cannot: relays to use before members, as multiaddrs with /p2p/<id>
# swarm_relays = []                        # the same for its IPFS node
# follower = false                         # true: what others write is carried out, and nothing is written through this peer, which they
#                                          # do not trust (a pin, an unpin or an add is refused)
# trusted_peers = []                       # Go ipfs-cluster peers that may write: ids, multiaddrs with /p2p/<id>, or "*" for all with the
#                                          # secret. With any of them pins that say nothing go everywhere, and nothing is repaired or moved,
#                                          # as in Go, until `copies_wanted`, `repair` and `rebalance` say otherwise here.

# [bandwidth]                              # changed while it runs by `pinfold limits set`
# lan_up = "none"                          # to peers on the local net; none: no limit
# lan_down = "none"
# wan_up = "none"                          # to all others, for example "5MB/s"
# wan_down = "none"
# schedule = []                            # other rates at some hours: ["mon-fri 08:00-18:00 wan_up=1MB/s", "sat,sun wan_up=none"]
# lan = []                                 # what the local net is, as ["10.0.0.0/8"]; default: private, link-local and loopback addresses

# [routing]                                # finding content among strangers, and being found: the DHT of IPFS
# bootstrap = []                           # peers to begin with, as ["/ip4/10.0.0.7/tcp/4001/p2p/12D3Koo..."], or ["public"]: those of the public
#                                          # network. Without any the DHT is off: this peer talks to its cluster and to who connects to it.
# mode = "auto"                            # auto: answers others on the local net, and in the world from a public address; client: only asks;
#                                          # server: always answers; off
# provide = "all"                          # what others are told that is here: "all" blocks, those that pins need ("pinned"), the "roots" of pins, or
#                                          # "none"
# delegated = []                           # routers that are asked over HTTP who has content (/routing/v1), after the DHT where it is on:
#                                          # ["https://delegated-ipfs.dev"]; they learn what this peer looks for
# gateways = []                            # trustless gateways that are asked over HTTP for blocks which nobody connected has: ["https://ipfs.io"],
#                                          # another Pinfold's or Kubo's ["http://10.0.0.7:8080"]; what they give is proven by its hash. "found":
#                                          # also those that delegated routers name (over TLS, in the world; "found-anywhere": any)
# ca = ""                                  # a file (PEM) of authorities that these servers' certificates may be of, besides the usual ones

# [names]                                  # IPNS and DNSLink
# renew_every = "4h"                       # a published record is made anew so often, and always before it ends
# dns = []                                 # servers that are asked for DNSLinks, as ["1.1.1.1", "127.0.0.1:5353"]; default: the system's

# [names.dnslink]                          # names that are known without DNS
# "docs.example.org" = "/ipfs/bafkqaaa"
"#;

impl Settings {
    /// Puts the settings together; makes the data directory and a commented file at the first start.
    pub fn load(flags: &UpArgs) -> anyhow::Result<Settings> {
        let dir = match &flags.dir {
            Some(dir) => dir.clone(),
            None => default_dir()?,
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("making the data directory {}", dir.display()))?;
        let path = dir.join("pinfold.toml");
        if !path.exists() {
            std::fs::write(&path, COMMENTED).with_context(|| format!("writing {}", path.display()))?;
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let file = parse(&text).with_context(|| format!("reading {}", path.display()))?;
        let list = |flag: &[String], file: Option<Vec<String>>, default: &[&str]| {
            if flag.is_empty() { file.unwrap_or_else(|| default.iter().map(ToString::to_string).collect()) } else { flag.to_vec() }
        };
        let or = |flag: &Option<String>, file: Option<String>, default: &str| flag.clone().or(file).unwrap_or_else(|| default.to_owned());
        let trusted_peers =
            GoPeers::parse(&file.trusted_peers.unwrap_or_default()).with_context(|| format!("reading {}", path.display()))?;
        let says_copies = file.copies_least.or(file.copies_wanted).or(file.copies_most).is_some();
        let is_everywhere = !says_copies && !trusted_peers.is_empty();
        let copies = match is_everywhere {
            true => (0, 0, 0),
            false => (file.copies_least.unwrap_or(2), file.copies_wanted.unwrap_or(2), file.copies_most.unwrap_or(3)),
        };
        let is_ordered = 1 <= copies.0 && copies.0 <= copies.1 && copies.1 <= copies.2;
        if !is_everywhere && !is_ordered {
            bail!("copies must be 1 <= least <= wanted <= most, not {} / {} / {}: see {}", copies.0, copies.1, copies.2, path.display());
        }
        let space = flags.space.clone().or(file.space).map(|text| parse_bytes(&text)).transpose()?;
        if let Some(space) = space.filter(|space| *space < ByteCount(64 << 20)) {
            bail!("--space {space} is too little: a peer needs at least 64 MiB");
        }
        let grace = flags.grace.clone().or(file.grace).unwrap_or_else(|| "10m".to_owned());
        Ok(Settings {
            name: flags.name.clone().or(file.name).unwrap_or_else(host_name),
            cluster_name: file.cluster_name.unwrap_or_else(|| "pinfold".to_owned()),
            api: or(&flags.api, file.api, "127.0.0.1:9094"),
            gateway: or(&flags.gateway, file.gateway, "127.0.0.1:8080"),
            proxy: or(&flags.proxy, file.proxy, "127.0.0.1:9095"),
            cluster: list(&flags.cluster, file.cluster, &["/ip4/0.0.0.0/tcp/9096"]),
            swarm: list(&flags.swarm, file.swarm, &["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"]),
            space,
            copies,
            class_name: if is_everywhere { "go-compat" } else { "default" },
            grace: parse_duration(&grace).context("reading the grace")?,
            node: NodeKind::parse(flags.node.as_deref().or(file.node.as_deref()).unwrap_or("embedded"))?,
            adopt: parse_adopt(flags.adopt.as_deref().or(file.adopt.as_deref()).unwrap_or("off"))?,
            scrub: scrub(file.scrub_rate.as_deref(), file.scrub_every.as_deref())?,
            bandwidth: Bandwidth::of(file.bandwidth.unwrap_or_default())
                .with_context(|| format!("reading [bandwidth] in {}", path.display()))?,
            // Go's peers repair nothing unless they are told to (`disable_repinning`), and move nothing.
            repair: (file.repair.unwrap_or(trusted_peers.is_empty()), rate(file.repair_rate, "500MB/s").context("reading repair_rate")?),
            rebalance: (
                file.rebalance.unwrap_or(trusted_peers.is_empty()),
                rate(file.rebalance_rate, "100MB/s").context("reading rebalance_rate")?,
            ),
            names: NameSettings::of(file.names.unwrap_or_default()).with_context(|| format!("reading [names] in {}", path.display()))?,
            routing: RoutingSettings::of(file.routing.unwrap_or_default())
                .with_context(|| format!("reading [routing] in {}", path.display()))?,
            mdns: file.mdns.unwrap_or(true),
            announced: (
                Announced::of(Side::Cluster, &list(&flags.cluster_announce, file.cluster_announce, &[])).context("cluster_announce")?,
                Announced::of(Side::Swarm, &list(&flags.swarm_announce, file.swarm_announce, &[])).context("swarm_announce")?,
            ),
            reach: ReachSettings::of(
                flags.reachable.as_deref().or(file.reachable.as_deref()),
                file.relay.as_deref(),
                file.cluster_relays,
                file.swarm_relays,
            )
            .with_context(|| format!("reading {}", path.display()))?,
            follower: file.follower.unwrap_or(false),
            trusted_peers,
            dir,
        })
    }
}

/// What stores the blocks of a peer.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// The node in this process.
    Embedded,
    /// A daemon.
    Kubo(ipfs_kubo::rpc::Endpoint),
}

impl NodeKind {
    fn parse(text: &str) -> anyhow::Result<NodeKind> {
        match text.split_once('=') {
            None if text == "embedded" => Ok(NodeKind::Embedded),
            Some(("kubo", url)) => Ok(NodeKind::Kubo(ipfs_kubo::rpc::Endpoint::parse(url)?)),
            _ => bail!("{text:?} is no node: write embedded, or kubo=http://127.0.0.1:5001"),
        }
    }
}

fn parse_adopt(text: &str) -> anyhow::Result<peer::Adopt> {
    match text {
        "off" => Ok(peer::Adopt::Off),
        "pins" => Ok(peer::Adopt::Pins),
        "pins+mfs" => Ok(peer::Adopt::PinsAndFiles),
        _ => bail!("{text:?} cannot be adopted: write off, pins or pins+mfs"),
    }
}

fn scrub(rate: Option<&str>, every: Option<&str>) -> anyhow::Result<peer::ScrubOptions> {
    let default = peer::ScrubOptions::default();
    let every = match every {
        None => default.every,
        Some("off") => None,
        Some(text) => Some(types::Millis(parse_duration(text).context("reading scrub_every")?.as_millis() as u64)),
    };
    let rate = rate.map(parse_rate).transpose().context("reading scrub_rate")?.unwrap_or(default.rate);
    Ok(peer::ScrubOptions { rate, every })
}

/// Bytes a second.
fn rate(text: Option<String>, default: &str) -> anyhow::Result<ByteCount> {
    let text = text.unwrap_or_else(|| default.to_owned());
    let bytes = text.strip_suffix("/s").with_context(|| format!("{text:?} is no rate: write it like 100MB/s"))?;
    parse_bytes(bytes)
}

fn parse(text: &str) -> anyhow::Result<File> {
    let table: toml::Table = text.parse().context("it is not TOML")?;
    for key in table.keys() {
        if !KEYS.contains(&key.as_str()) {
            let near = KEYS.iter().min_by_key(|known| distance(known, key)).copied().unwrap_or_default();
            bail!("unknown key {key:?}: did you mean {near:?}?");
        }
    }
    table.try_into().context("a value has the wrong form")
}

/// Levenshtein distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Where the data of a peer is when nothing is said.
pub fn default_dir() -> anyhow::Result<PathBuf> {
    let dirs = directories::ProjectDirs::from("", "", "pinfold").context("no home directory: say --dir")?;
    Ok(dirs.data_dir().to_owned())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "peer".to_owned())
}

/// The keys of a peer.
#[derive(Clone)]
pub struct Keys {
    /// Seed of the cluster identity.
    pub cluster: [u8; 32],
    /// Seed of the node identity.
    pub node: [u8; 32],
    /// Key of the private network.
    pub secret: [u8; 32],
}

impl Keys {
    /// Reads the keys, making what is missing. `secret` (from a flag or an invite) is written at the first start; a different
    /// one later is refused.
    pub fn load_or_make(dir: &Path, secret: Option<[u8; 32]>) -> anyhow::Result<Keys> {
        let cluster = identity(&dir.join("identity.json"))?;
        let node = identity(&dir.join("node.json"))?;
        let path = dir.join("secret");
        let kept = match std::fs::read_to_string(&path) {
            Ok(text) => Some(parse_secret(text.trim()).with_context(|| format!("reading {}", path.display()))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let secret = match (kept, secret) {
            (Some(kept), Some(given)) if kept != given => bail!(
                "this data directory belongs to a cluster with another secret: use another --dir, or `pinfold leave --purge` first ({})",
                dir.display()
            ),
            (Some(kept), _) => kept,
            (None, given) => {
                let secret = match given {
                    Some(given) => given,
                    None => random()?,
                };
                write_private(&path, format!("{}\n", hex::encode(secret)).as_bytes())?;
                secret
            }
        };
        Ok(Keys { cluster, node, secret })
    }

    /// Who the peer of a data directory is; its identity is made if it is missing. The secret is left to its start.
    pub fn cluster_id(dir: &Path) -> anyhow::Result<types::PeerId> {
        let seed = identity(&dir.join("identity.json"))?;
        Ok(types::PeerId::from_ed25519(&SigningKey::from_bytes(&seed).verifying_key().to_bytes()))
    }
}

/// Reads 64 hex digits.
pub fn parse_secret(text: &str) -> anyhow::Result<[u8; 32]> {
    wire::identity::decode_secret(text).context("a secret is 64 hex digits")
}

fn identity(path: &Path) -> anyhow::Result<[u8; 32]> {
    match std::fs::read_to_string(path) {
        Ok(text) => wire::identity::decode_identity(&text).map(|key| key.seed()).with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let seed = random()?;
            let key = SigningKey::from_bytes(&seed);
            write_private(path, wire::identity::encode_identity(&PrivateKey(key.to_keypair_bytes())).as_bytes())?;
            Ok(seed)
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    Ok(bytes)
}

/// Writes a file that only its owner may read, durably: temporary file, sync, rename, sync of the folder.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_private_by(path, |out| std::io::Write::write_all(out, bytes).with_context(|| format!("writing {}", path.display())))
}

/// The same with what `fill` writes, however long it is; when that fails, nothing is there.
pub fn write_private_by(path: &Path, fill: impl FnOnce(&mut dyn std::io::Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    use std::io::{BufWriter, Write};
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let writing = || format!("writing {}", path.display());
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).with_context(writing)?;
    let mut out = BufWriter::new(file);
    let written = fill(&mut out).and_then(|()| {
        let mut finish = || -> std::io::Result<()> {
            out.flush()?;
            out.get_ref().sync_all()?;
            std::fs::rename(&temporary, path)?;
            path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
        };
        finish().with_context(writing)
    });
    if written.is_err() {
        std::fs::remove_file(&temporary).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_known_one() {
        let error = parse("spac = \"1GB\"").expect_err("unknown").to_string();
        assert_eq!(error, "unknown key \"spac\": did you mean \"space\"?");
    }

    #[test]
    fn the_commented_file_is_all_defaults() {
        assert!(parse(COMMENTED).expect("it reads").name.is_none());
        let is_setting = |line: &&str| line.starts_with("# ") && (line.contains(" = ") || line.starts_with("# ["));
        let uncommented = COMMENTED.lines().filter(is_setting).map(|line| line.trim_start_matches("# "));
        let file = parse(&uncommented.collect::<Vec<_>>().join("\n")).expect("every default reads");
        assert_eq!(file.api.as_deref(), Some("127.0.0.1:9094"));
        let bandwidth = Bandwidth::of(file.bandwidth.expect("a table")).expect("it reads");
        let names = NameSettings::of(file.names.expect("a table")).expect("it reads");
        RoutingSettings::of(file.routing.expect("a table")).expect("it reads");
        assert_eq!(names.dnslink["docs.example.org"], "/ipfs/bafkqaaa");
        assert_eq!(bandwidth.rules, ["always lan_up=none lan_down=none wan_up=none wan_down=none".parse().expect("a rule")]);
    }

    #[test]
    fn another_secret_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = Keys::load_or_make(dir.path(), Some([1; 32])).expect("made");
        assert_eq!(Keys::load_or_make(dir.path(), None).expect("read").cluster, keys.cluster);
        assert!(Keys::load_or_make(dir.path(), Some([2; 32])).is_err());
    }
}
