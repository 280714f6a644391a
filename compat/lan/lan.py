"""Two peers, and real Go peers where they are at hand, on a bridge of this machine; standard library only. Needs root and `ip`."""
import json, os, pathlib, shutil, signal, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "faults"))
import world
from world import API, BIN, GATEWAY, fail, ip, passed, until

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="pinfold-lan-"))
NAMESPACES = [f"pinfold-lan-{os.getpid()}-{name}" for name in ("net", "a", "b", "go")]
GO = os.environ.get("PINFOLD_PEERS")
OTHERS = []


class Peer(world.Peer):
    """Listens wherever its namespace has an address."""

    def __init__(self, number):
        self.number, self.name = number, f"p{number}"
        self.namespace, self.dir = NAMESPACES[number], FOLDER / f"p{number}"
        self.world, self.process, self.is_stopped = type("World", (), {"folder": FOLDER}), None, False

    def start(self, *command, **settings):
        self.dir.mkdir(exist_ok=True)
        (self.dir / "pinfold.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        argv = ["ip", "netns", "exec", self.namespace, BIN, *command, "--dir", self.dir, "--name", self.name, "--json",
                "--api", f"127.0.0.1:{API}", "--gateway", f"127.0.0.1:{GATEWAY}", "--proxy", "127.0.0.1:0",
                "--cluster", "/ip4/0.0.0.0/tcp/9096", "--swarm", "/ip4/0.0.0.0/tcp/4001"]
        self.process = subprocess.Popen([str(part) for part in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        env={**os.environ, "PINFOLD_LOG": os.environ.get("PINFOLD_LOG", "info")}, stderr=open(FOLDER / f"{self.name}.log", "ab"))
        line = self.process.stdout.readline()
        if not line:
            fail(f"{self.name} did not start: {self.log()}")
        self.ready = json.loads(line)

    def sees(self, other):
        return self.health().get(other.name) == "up"


def address(number, last):
    """The one address of a namespace from now on."""
    ip("-n", NAMESPACES[number], "addr", "flush", "dev", "eth0", "scope", "global")
    ip("-n", NAMESPACES[number], "addr", "add", f"10.78.0.{last}/24", "dev", "eth0")


def wire_up():
    for namespace in NAMESPACES:
        ip("netns", "add", namespace)
        ip("-n", namespace, "link", "set", "lo", "up")
    net = NAMESPACES[0]
    ip("-n", net, "link", "add", "bridge", "type", "bridge")
    ip("-n", net, "link", "set", "bridge", "up")
    for number, namespace in enumerate(NAMESPACES[1:], start=1):
        ip("-n", net, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("-n", net, "link", "set", f"port{number}", "master", "bridge", "up")
        ip("-n", namespace, "link", "set", "eth0", "up")
        address(number, number)


def meet(what, one, two):
    until(what, lambda: one.sees(two) and two.sees(one))
    passed(what)


def restart(*peers, **settings):
    for peer in peers:
        peer.end()
    for peer in peers:
        peer.start("up", **settings)


def run(argv, env):
    argv = ["ip", "netns", "exec", NAMESPACES[3], *map(str, argv)]
    done = subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise world.Refused(f"{argv[4:]}: {done.stderr[-500:]}")
    return done.stdout


def spawn(name, argv, env):
    log = open(FOLDER / f"{name}.log", "ab")
    argv = ["ip", "netns", "exec", NAMESPACES[3], *map(str, argv)]
    OTHERS.append(subprocess.Popen(argv, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log))


def go_peers(one):
    """A Kubo and a Go cluster peer that were told nothing but the secret."""
    ipfs, service, ctl = (pathlib.Path(GO) / name for name in ("ipfs", "ipfs-cluster-service", "ipfs-cluster-ctl"))
    env = {"IPFS_PATH": str(FOLDER / "ipfs"), "IPFS_TELEMETRY": "off", "CLUSTER_SECRET": (one.dir / "secret").read_text().strip(),
           "IPFS_CLUSTER_PATH": str(FOLDER / "cluster"), "CLUSTER_CRDT_CLUSTERNAME": "pinfold", "CLUSTER_CRDT_TRUSTEDPEERS": "*"}
    run([ipfs, "init"], env)
    for key, value in {"Bootstrap": [], "Addresses.Swarm": ["/ip4/0.0.0.0/tcp/4001"], "Discovery.MDNS.Enabled": True}.items():
        run([ipfs, "config", "--json", key, json.dumps(value)], env)
    run([ipfs, "config", "Routing.Type", "none"], env)
    for key, value in {"AutoConf.Enabled": False, "AutoTLS.Enabled": False, "DNS.Resolvers": {}, "Routing.DelegatedRouters": [],
                       "Ipns.DelegatedPublishers": []}.items():
        run([ipfs, "config", "--json", key, json.dumps(value)], env)
    spawn("ipfs", [ipfs, "daemon"], env)
    until("Kubo is connected with the peer's node", lambda: one.ready["node"] in run([ipfs, "swarm", "peers"], env))
    passed("a Kubo on the net is found (or finds us) without an address")
    run([service, "init", "--consensus", "crdt"], env)
    spawn("cluster", [service, "daemon"], env)
    until("the Go peer counts ours among its peers", lambda: one.ready["peer"] in run([ctl, "peers", "ls"], env))
    passed("a Go cluster peer on the net is found (or finds us) without an address")


def main():
    wire_up()
    one, two = Peer(1), Peer(2)
    one.start("up")
    two.start("join", one.json("POST", "/pinfold/v1/invite")["invite"])
    meet("two peers, by an invite", one, two)

    for peer in (one, two):
        peer.end()
    address(1, 101)
    address(2, 102)
    one.start("up", mdns=False)
    two.start("up", mdns=False)
    time.sleep(15)
    if one.sees(two) or two.sees(one):
        fail("without multicast DNS nobody can know the other's address, and yet they met")
    passed("both have other addresses; without multicast DNS they stay apart")
    restart(one, two)
    meet("with it they meet", one, two)

    ip("-n", NAMESPACES[2], "link", "set", "eth0", "down")
    until("the other is missed", lambda: not one.sees(two))
    address(2, 202)
    ip("-n", NAMESPACES[2], "link", "set", "eth0", "up")
    meet("a peer that gets another address while it runs is met again", one, two)

    if GO:
        one.end()
        two.end()
        one.start("up", trusted_peers=["*"])
        go_peers(one)
    else:
        print("note: lan: Go's peers are not at hand (PINFOLD_PEERS)", flush=True)
    for peer in (one, two):
        if peer.is_up():
            peer.end()


try:
    main()
except BaseException:
    for log in sorted(FOLDER.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-2500:]}", flush=True)
    raise
finally:
    for namespace in NAMESPACES:
        for pid in subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
