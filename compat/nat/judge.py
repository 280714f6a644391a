"""Two peers behind NATs and a small public one, 150 ms from each other; standard library only. Needs root and `ip`."""
import json, os, pathlib, random, shutil, signal, subprocess, sys, tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "faults"))
import world
from world import API, BIN, GATEWAY, Refused, fail, ip, passed, until

GO = os.environ.get("PINFOLD_PEERS")

# One way; a round trip between two machines takes twice this.
DELAY = 0.075
ADDRESSES = ["11.0.0.1", "192.168.1.2", "192.168.1.3"]
NAMES = ["public", "left", "right"]


class Peer(world.Peer):
    """Listens wherever its namespace has an address."""

    def __init__(self, site, number):
        super().__init__(site, number)
        self.name = NAMES[number]

    def start(self, *command, **settings):
        self.dir.mkdir(exist_ok=True)
        (self.dir / "pinfold.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        argv = ["ip", "netns", "exec", self.namespace, BIN, *command, "--dir", self.dir, "--name", self.name, "--json",
                "--api", f"127.0.0.1:{API}", "--gateway", f"127.0.0.1:{GATEWAY}", "--proxy", "127.0.0.1:0",
                "--cluster", f"/ip4/{ADDRESSES[self.number]}/tcp/9096",
                "--swarm", f"/ip4/{ADDRESSES[self.number]}/tcp/4001", "--swarm", f"/ip4/{ADDRESSES[self.number]}/udp/4001/quic-v1"]
        self.process = subprocess.Popen([str(part) for part in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=open(self.world.folder / f"{self.name}.log", "ab"))
        line = self.process.stdout.readline()
        if not line:
            fail(f"{self.name} did not start: {self.log()}")
        ready = json.loads(line)
        self.id, self.node = ready["peer"], ready["node"]

    def ways(self):
        """Name -> how it is reached, as this one says."""
        return {row["name"]: row["way"] for row in self.json("GET", "/pinfold/v1/peers")}

    def own_way(self):
        return self.ways()[self.name]

    def kind(self, other):
        return self.ways()[other.name]["kind"]

    def has(self, cid, data):
        return self.ask("GET", f"/ipfs/{cid}", headers={"Cache-Control": "only-if-cached"}, port=GATEWAY) == data


class Sites:
    """A namespace each for the public peer and two sites; to be used in a `with`."""

    def __init__(self, is_symmetric):
        self.is_symmetric = is_symmetric
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pinfold-nat-"))
        self.namespaces = [f"pinfold-nat-{os.getpid()}-{name}" for name in NAMES]
        self.nat, self.peers, self.others = None, [], []

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            for namespace in self.namespaces:
                ip("netns", "add", namespace)
            self.nat = subprocess.Popen([sys.executable, "-B", HERE / "nat.py", *self.namespaces], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
            if self.nat.stdout.readline() != "ready\n":
                fail("the NAT program did not start")
            self.tell(delay=DELAY, symmetric=self.is_symmetric)
            for namespace, address in zip(self.namespaces, ADDRESSES):
                for command in (["addr", "add", f"{address}/32", "dev", "tun0"],
                                ["link", "set", "tun0", "up", "mtu", "1400", "txqueuelen", "2000"], ["link", "set", "lo", "up"],
                                ["route", "add", "default", "dev", "tun0"]):
                    ip("-n", namespace, *command)
            self.peers = [Peer(self, number) for number in range(3)]
            self.begin()
        except BaseException:
            self.close(True)
            raise
        return self

    def begin(self):
        public, left, right = self.peers
        public.start("up")
        for peer in (left, right):
            peer.start("join", public.json("POST", "/pinfold/v1/invite")["invite"])

    def __exit__(self, kind, error, trace):
        self.close(kind is not None)

    def tell(self, **rule):
        self.nat.stdin.write(json.dumps(rule) + "\n")
        self.nat.stdin.flush()
        return self.nat.stdout.readline().strip() or fail("the NAT program ended")

    def close(self, has_failed):
        for peer in self.peers:
            if peer.is_up():
                peer.process.kill()
                peer.process.wait()
            if has_failed and peer.process is not None:
                print(f"--- the end of the log of {peer.name}\n{peer.log(6000)}", flush=True)
        for other in self.others:
            other.kill()
            other.wait()
            if has_failed:
                print(f"--- the end of the log of Go's software\n{(self.folder / 'go.log').read_text(errors='replace')[-6000:]}", flush=True)
        if self.nat is not None:
            self.nat.kill()
            self.nat.wait()
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def meet(self):
        public, left, right = self.peers
        until("the public peer was dialled back and relays", lambda: public.own_way()["cluster"]["is_relay"] and public.own_way()["node"]["is_relay"])
        for peer in (left, right):
            until(f"{peer.name} has a seat at the public peer",
                  lambda: peer.own_way()["cluster"]["relays"] == [public.id] and len(peer.own_way()["node"]["relays"]) == 1)
            until(f"{peer.name} knows that it cannot be dialled", lambda: peer.own_way()["cluster"]["state"] == "behind_nat", 180)
        passed(f"the public peer is known for one, the others reach out: {left.own_way()['words']!r}")
        for one, two in ((left, right), (right, left)):
            until(f"{one.name} sees {two.name}", lambda: one.health().get(two.name) == "up")

    def meet_across(self):
        """The sites meet, and copies are for the two of them alone."""
        self.meet()
        public = self.peers[0]
        public.ask("POST", f"/pinfold/v1/peers/{public.id}/cordon")

    def add(self, size, what):
        """Adds at the left, to be held by the right too."""
        public, left, right = self.peers
        data = random.Random(size).randbytes(size)
        cid = left.add(data, copies=2, timeout=240)
        until(f"{what}: both hold it", lambda: set(left.statuses().get(cid, [])) >= {"left", "right"})
        until(f"{what}: the other site has every byte", lambda: right.has(cid, data))
        passed(what)


def punched():
    with Sites(is_symmetric=False) as sites:
        public, left, right = sites.peers
        sites.meet_across()
        sites.add(300_000, "an add at one site arrives at the other")
        for one, two in ((left, right), (right, left)):
            until(f"{one.name} reaches {two.name} directly", lambda: one.kind(two) == "direct")
            # No door shows it of the nodes.
            until("its node directly, too", lambda: f"no longer through a relay peer={two.node}" in one.log(1_000_000))
        until("packets go from site to site", lambda: int(sites.tell(count=True)) > 0)
        passed("a hole was punched through both NATs")
        sites.add(3_000_000, "an add over the direct connection")
        public.process.kill()
        public.process.wait()
        until("the public peer is missed", lambda: left.health()[public.name] != "up" and right.health()[public.name] != "up")
        if not (left.health()["right"] == right.health()["left"] == "up" and left.kind(right) == "direct"):
            fail(f"the sites lost each other with the public peer: {left.ways()}")
        passed("the public peer is killed; the sites keep each other")
        sites.add(2_000_000, "an add without the public peer")


def relayed():
    with Sites(is_symmetric=True) as sites:
        public, left, right = sites.peers
        sites.meet_across()
        sites.add(3_000_000, "an add through the relay, where no hole can be punched")
        if left.kind(right) != "relayed" or left.ways()["right"]["relay"] != public.id or int(sites.tell(count=True)):
            fail(f"that was to go through the relay: {left.ways()}")
        if right.ways()["left"]["words"] != "through public":
            fail(f"the words do not say so: {right.ways()}")
        until("the relay counts it", lambda: public.own_way()["cluster"]["circuits"] > 0)
        passed("it is said which way it goes")


class GoSites(Sites):
    """Left is ours; a Go peer stands in another place, started by `go`."""

    def begin(self):
        pass

    def go(self, number, *arguments):
        folder, namespace = self.folder / "go", self.namespaces[number]
        env = {**os.environ, "CLUSTER_SECRET": SECRET, "IPFS_CLUSTER_PATH": str(folder), "CLUSTER_CRDT_CLUSTERNAME": "pinfold",
               "CLUSTER_CRDT_TRUSTEDPEERS": "*", "CLUSTER_LISTENMULTIADDRESS": f"/ip4/{ADDRESSES[number]}/tcp/9096"}
        service, ctl = f"{GO}/ipfs-cluster-service", f"{GO}/ipfs-cluster-ctl"
        subprocess.run([service, "init", "--consensus", "crdt"], env=env, check=True, capture_output=True)
        ask = self.run(namespace, env, [service, "--loglevel", "info", "daemon", *arguments], [ctl, "--enc=json"])
        return json.loads((folder / "identity.json").read_text())["id"], ask

    def kubo(self, number, **settings):
        """Its id, and how to ask it."""
        ipfs, env = f"{GO}/ipfs", {**os.environ, "IPFS_PATH": str(self.folder / "ipfs"), "IPFS_TELEMETRY": "off"}
        address = ADDRESSES[number]
        settings = {"Bootstrap": [], "Addresses.Swarm": [f"/ip4/{address}/tcp/4001", f"/ip4/{address}/udp/4001/quic-v1"], "Routing.Type": "none",
                    "Discovery.MDNS.Enabled": False, "AutoConf.Enabled": False, "AutoTLS.Enabled": False, "DNS.Resolvers": {},
                    "Routing.DelegatedRouters": [], "Ipns.DelegatedPublishers": [], **settings}
        for command in (["init", "--profile=test"], *(["config", "--json", key, json.dumps(value)] for key, value in settings.items())):
            subprocess.run([ipfs, *command], env=env, check=True, capture_output=True)
        ask = self.run(self.namespaces[number], env, [ipfs, "daemon"], [ipfs])
        # Whoever asks sooner takes the repository from it.
        until("Kubo is up", (self.folder / "ipfs" / "api").exists)
        return json.loads(ask("id", "--enc=json"))["ID"], ask

    def run(self, namespace, env, daemon, client):
        inside, log = ["ip", "netns", "exec", namespace], open(self.folder / "go.log", "ab")
        self.others.append(subprocess.Popen([*inside, *daemon], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

        def ask(*words, data=None):
            done = subprocess.run([*inside, *client, *words], env=env, input=data, capture_output=True, timeout=120)
            if done.returncode != 0:
                raise Refused(f"{words}: {done.stderr[-500:]}")
            return done.stdout if data is None and words[0] == "cat" else done.stdout.decode()
        return ask


SECRET = "5e" * 32


def through_ours():
    """A Go peer behind one NAT is told one address of a peer behind another: the one through our relay."""
    with GoSites(is_symmetric=False) as sites:
        public, left, _ = sites.peers
        public.start("up", "--secret", SECRET, "--reachable", "yes", trusted_peers=["*"])
        left.start("join", public.json("POST", "/pinfold/v1/invite")["invite"], trusted_peers=["*"])
        until("a seat at the public peer", lambda: left.own_way()["cluster"]["relays"] == [public.id])
        circuit = until("its address through the relay", lambda: next(iter(
            address for address in left.json("GET", "/id")["addresses"] if "/p2p-circuit/" in address and "11.0.0.1" in address), None))
        go, ask = sites.go(2, "--bootstrap", circuit)
        until("the Go peer counts ours, which it was told of alone", lambda: left.id in ask("peers", "ls"), 180)
        until("ours is connected with it", lambda: f"a Go peer connected peer={go}" in left.log(100_000))
        until("and directly in the end", lambda: f"no longer through a relay peer={go}" in left.log(100_000))
        passed("a Go peer comes through our relay, with the secret on the inner connection")


def kubo_through_ours():
    """A Kubo behind one NAT takes a seat at our node, as a stranger; a peer behind another NAT pins what it has, and it reads what the peer has."""
    with GoSites(is_symmetric=False) as sites:
        public, left, _ = sites.peers
        public.start("up", "--reachable", "yes")
        left.start("join", public.json("POST", "/pinfold/v1/invite")["invite"])
        until("a seat at the public node", lambda: left.own_way()["node"]["relays"] == [public.node])
        public.ask("POST", f"/pinfold/v1/peers/{public.id}/cordon")
        relay = f"/ip4/11.0.0.1/udp/4001/quic-v1/p2p/{public.node}"
        # It is told that it cannot be dialled: AutoNAT would take it minutes.
        # And it would ask those alone that gave it something before.
        kubo, ask = sites.kubo(2, **{"Swarm.RelayClient.Enabled": True, "Swarm.RelayClient.StaticRelays": [relay],
                                     "Internal.Libp2pForceReachability": "private", "Internal.Bitswap.BroadcastControl.Enable": False})
        until("Kubo has a seat, too", lambda: "/p2p-circuit" in ask("id"))
        data = random.Random(5).randbytes(3_000_000)
        cid = ask("add", "--quieter", "--cid-version=1", data=data).strip()
        left.ask("POST", f"/pins/{cid}?replication=1&origins={relay}/p2p-circuit/p2p/{kubo}")
        until("what Kubo has is pinned", lambda: left.statuses().get(cid) == ["left"])
        until("every byte", lambda: left.has(cid, data))
        if not [line for line in ask("swarm", "peers").split() if left.node in line and "/p2p-circuit" not in line]:
            fail(f"there is no direct connection: {ask('swarm', 'peers')}")
        back = random.Random(6).randbytes(len(data))
        if ask("cat", left.add(back, copies=1)) != back:
            fail("Kubo reads other bytes")
        passed("a Kubo behind a NAT, which came through our relay as a stranger, and a peer behind another read each other")


if __name__ == "__main__":
    punched()
    relayed()
    if GO:
        through_ours()
        kubo_through_ours()
    else:
        print("note: nat: Go's peers are not at hand (PINFOLD_PEERS)", flush=True)
