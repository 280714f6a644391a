"""Go ipfs-cluster peers (CRDT mode, a Kubo each) and Pinfold peers as one cluster on loopback; standard library only."""
import json, os, pathlib, secrets, socket, subprocess, urllib.request
from judge import BIN, FOLDER, PEERS, expect, start, until

CLUSTER = "judge"
SECRET = secrets.token_hex(32)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run(argv, env=None):
    return subprocess.run([str(part) for part in argv], env={**os.environ, **(env or {})}, check=True, capture_output=True, text=True, timeout=120).stdout


def http(method, url):
    return urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10).read()


def values(text):
    """The JSON values that stand one after the other in a text, lists flattened."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        while text[at].isspace():
            at += 1
        value, at = decoder.raw_decode(text, at)
        found += value if isinstance(value, list) else [value]
    return found


class Peer:
    """Whoever answers Go's client."""

    def ctl(self, *arguments):
        host = f"/ip4/127.0.0.1/tcp/{self.api}"
        return run([PEERS / "ipfs-cluster-ctl", "--host", host, "--enc", "json", *arguments])

    def tries(self, *arguments):
        """What may be refused."""
        argv = [PEERS / "ipfs-cluster-ctl", "--host", f"/ip4/127.0.0.1/tcp/{self.api}", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)

    def ask(self, *arguments):
        return values(self.ctl(*arguments))

    def pins(self):
        return {pin["cid"]: pin for pin in self.ask("pin", "ls")}

    def status(self, cid):
        """State by peer name."""
        (info,) = self.ask("status", cid)
        return {short["peername"]: short["status"] for short in info["peer_map"].values()}


class Go(Peer):
    """`service`: its program; of another version, say."""

    def __init__(self, number, service=PEERS / "ipfs-cluster-service"):
        self.name, self.service = f"go{number}", service
        self.folder = FOLDER / self.name
        self.swarm, self.api, proxy, pinning, self.kubo, gateway, node = free_ports(7)
        self.others = {"proxy": proxy, "pinning": pinning, "gateway": gateway, "node": node}
        self.kubo_env = {"IPFS_PATH": str(FOLDER / f"kubo{number}"), "IPFS_TELEMETRY": "off"}
        run([service, "-c", self.folder, "init", "--consensus", "crdt"], {"CLUSTER_SECRET": SECRET})
        self.id = json.loads((self.folder / "identity.json").read_text())["id"]
        self.address = f"/ip4/127.0.0.1/tcp/{self.swarm}/p2p/{self.id}"

    def start_kubo(self):
        run([PEERS / "ipfs", "init", "--profile", "test", "-e"], self.kubo_env)
        path = pathlib.Path(self.kubo_env["IPFS_PATH"]) / "config"
        config = json.loads(path.read_text())
        config["Bootstrap"] = []
        config["Addresses"].update(API=f"/ip4/127.0.0.1/tcp/{self.kubo}", Gateway=f"/ip4/127.0.0.1/tcp/{self.others['gateway']}",
                                   Swarm=[f"/ip4/127.0.0.1/tcp/{self.others['node']}"])
        config.setdefault("Discovery", {})["MDNS"] = {"Enabled": False}
        config["Routing"] = {"Type": "none", "DelegatedRouters": []}
        for section in ("AutoConf", "AutoTLS"):
            config[section] = {**config.get(section, {}), "Enabled": False}
        config["DNS"] = {"Resolvers": {}}
        config["Ipns"] = {**config.get("Ipns", {}), "DelegatedPublishers": []}
        config["Datastore"]["StorageMax"] = "50GB"
        path.write_text(json.dumps(config))
        start(f"kubo-{self.name}", [PEERS / "ipfs", "daemon"], self.kubo_env)
        until(f"the Kubo of {self.name} answers", lambda: http("POST", f"http://127.0.0.1:{self.kubo}/api/v0/id"))

    def start(self, trusted, peerstore, has_node=True):
        path = self.folder / "service.json"
        config = json.loads(path.read_text())
        config["cluster"].update(peername=self.name, secret=SECRET, listen_multiaddress=[f"/ip4/127.0.0.1/tcp/{self.swarm}"],
                                 mdns_interval="0s", enable_relay_hop=False)
        config["consensus"]["crdt"].update(cluster_name=CLUSTER, trusted_peers=trusted, rebroadcast_interval="5s")
        config["api"]["restapi"]["http_listen_multiaddress"] = f"/ip4/127.0.0.1/tcp/{self.api}"
        config["api"]["ipfsproxy"].update(listen_multiaddress=f"/ip4/127.0.0.1/tcp/{self.others['proxy']}",
                                          node_multiaddress=f"/ip4/127.0.0.1/tcp/{self.kubo}")
        config["api"]["pinsvcapi"]["http_listen_multiaddress"] = f"/ip4/127.0.0.1/tcp/{self.others['pinning']}"
        config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = f"/ip4/127.0.0.1/tcp/{self.kubo}"
        path.write_text(json.dumps(config))
        (self.folder / "peerstore").write_text("".join(f"{address}\n" for address in peerstore))
        # Asked before it is ready it crashes now and then: its doors open before what they call.
        log = FOLDER / f"{self.name}.log"
        starts = log.read_text(errors="replace").count("Cluster is READY") if log.exists() else 0
        self.process = start(self.name, [self.service, "-c", self.folder, "daemon"])
        # Without a Kubo it never says that it is.
        if has_node:
            until(f"{self.name} is ready", lambda: log.read_text(errors="replace").count("Cluster is READY") > starts)
        until(f"{self.name} answers", lambda: http("GET", f"http://127.0.0.1:{self.api}/id"))


class Pinfold(Peer):
    def __init__(self, trusted, name="pinfold"):
        self.name, self.trusted = name, trusted
        self.folder = FOLDER / self.name

    def start(self, invite=None, **further):
        self.folder.mkdir(exist_ok=True)
        settings = {"name": self.name, "cluster_name": CLUSTER, "trusted_peers": self.trusted, **further}
        (self.folder / "pinfold.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        how = ["join", invite] if invite else ["up", "--secret", SECRET]
        self.process = start(self.name, [BIN, *how, "--dir", self.folder, "--json", "--api", "127.0.0.1:0", "--gateway",
                             "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"],
                             stdout=subprocess.PIPE, text=True)
        ready = json.loads(self.process.stdout.readline() or "{}")
        expect("the Pinfold peer is up", ready.get("ready"))
        self.id, self.url, self.gateway = ready["peer"], ready["api"], ready["gateway"]
        self.api = int(self.url.rsplit(":", 1)[1])
        self.address = ready["cluster"][0]


def sample(name, size=300_000):
    path = FOLDER / name
    path.write_bytes(secrets.token_bytes(size))
    return path


def added(peer, path, *options):
    """Adds a file through a peer; the root."""
    return peer.ask("add", *options, str(path))[-1]["cid"]


def everywhere(peer, cid, names):
    """Whether a peer says that all of these hold it."""
    states = peer.status(cid)
    return set(names) <= set(states) and all(states[name] == "pinned" for name in names)


def holders(infos, cids, names):
    """Whether a list says of these CIDs that all of the named peers hold them."""
    states = {info["cid"]: {short["peername"]: short["status"] for short in info["peer_map"].values()} for info in infos}
    return all(states.get(cid) == {name: "pinned" for name in names} for cid in cids)
