"""Two Pinfold peers, one of them over a real Kubo daemon; standard library only."""
import filecmp, json, os, pathlib, shutil, signal, subprocess, time, urllib.request
from judge import BEGUN, BIN, FOLDER, IPFS, expect, judge, passed, start, until

PASSWORD = "a secret of the daemon"
ENTRIES = int(os.environ.get("KUBO_ENTRIES", "50000"))
# Longer than Kubo waits before it sends a want again (`rebroadcastInterval` of boxo, looked at each 15 s).
STILL = 60


def run(argv, env=None, **options):
    options = {"check": True, "capture_output": True, "text": True, "timeout": 120, **options}
    return subprocess.run([str(part) for part in argv], env={**os.environ, **(env or {})}, **options).stdout


def stop(process, how=signal.SIGTERM):
    process.send_signal(how)
    process.wait(30)


def lines(text):
    return [json.loads(line) for line in text.splitlines() if line.strip()]


class Kubo:
    """A daemon of its own that wants to see a password before it answers."""

    def __init__(self, name="kubo"):
        self.name, self.env = name, {"IPFS_PATH": str(FOLDER / name), "IPFS_TELEMETRY": "off"}
        self.ipfs("init", "--profile=test")
        self.ipfs("config", "Addresses.API", "/ip4/127.0.0.1/tcp/0")
        for key, value in {
            "Addresses.Gateway": [],
            "Addresses.Swarm": ["/ip4/127.0.0.1/tcp/0"],
            "Bootstrap": [],
            "API.Authorizations": {"pinfold": {"AuthSecret": f"basic:me:{PASSWORD}", "AllowedPaths": ["/api/v0"]}},
        }.items():
            self.ipfs("config", "--json", key, json.dumps(value))
        self.ipfs("config", "Routing.Type", "none")
        self.begin()

    def begin(self):
        api = pathlib.Path(self.env["IPFS_PATH"]) / "api"
        api.unlink(missing_ok=True)
        self.daemon = start(self.name, [IPFS, "daemon"], self.env)
        until("the daemon is up", lambda: api.exists() and api.read_text().strip())
        self.port = int(api.read_text().strip().split("/")[4])
        self.ipfs("config", "Addresses.API", f"/ip4/127.0.0.1/tcp/{self.port}")

    @property
    def authorization(self):
        return ["--api-auth", f"basic:me:{PASSWORD}"] if hasattr(self, "port") else []

    def ipfs(self, *arguments, offline=False, **options):
        return run([IPFS, *([] if offline else self.authorization), *arguments], self.env, **options)

    def is_pinned(self, cid):
        return cid in self.ipfs("pin", "ls", "--type=recursive", "--quiet").split()

    @property
    def url(self):
        return f"kubo=http://me:{PASSWORD}@127.0.0.1:{self.port}"


class Peer:
    def __init__(self, name, *flags, invite=None):
        self.name, self.flags = name, flags
        self.begin(invite)

    def begin(self, invite=None):
        doors = ["--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0"]
        libp2p = ["--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"]
        first = ["join", invite] if invite else ["up"]
        argv = [BIN, *first, "--dir", FOLDER / self.name, "--name", self.name, *doors, *libp2p, *self.flags, "--json"]
        self.process = start(self.name, argv, stdout=subprocess.PIPE)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"FAILED: {self.name} did not start: {(FOLDER / (self.name + '.log')).read_text()[-2000:]}")
        ready = json.loads(line)
        self.api, self.gateway = ready["api"], ready["gateway"]
        self.swarm = ready["swarm"][0] if "/p2p/" in ready["swarm"][0] else f"{ready['swarm'][0]}/p2p/{ready['node']}"

    def cli(self, *arguments, **options):
        return run([BIN, *arguments, "--api", self.api], **options)

    def states(self, cid):
        """State by peer name."""
        status = json.loads(urllib.request.urlopen(f"{self.api}/pins/{cid}", timeout=10).read())
        return {short["peername"]: short["status"] for short in status["peer_map"].values()}

    def pins(self):
        text = urllib.request.urlopen(f"{self.api}/allocations", timeout=10).read().decode()
        return {pin["cid"]: pin for pin in lines(text)}

    def read(self, path):
        return urllib.request.urlopen(f"{self.gateway}/ipfs/{path}", timeout=30).read()


def everywhere(peer, cid):
    return lambda: all(state == "pinned" for state in peer.states(cid).values()) and len(peer.states(cid)) == 2


def pin_large(other, root):
    """A pin, tried again where Kubo has lost its way; whether it came to its end.

    boxo (0.42 and before) takes a block that does not come within twice the usual time, 50 ms at the least, for a "don't have"; after 16 in a row it
    drops the peer from the session (`sessionwantsender.go`). When the blocks come in that very moment, the drop is carried out after all wants were
    answered: then the session has no peer, none of its wants is live, and what it wants next it neither asks of anybody nor ever tells again. Two Kubos
    do so among themselves when the giver is stopped for 50 ms now and then. Its want list is empty then, and its log ends with "sent too many dont haves,
    removing from session"; a want of which an answer of ours was lost would stand in the list, and be sent again after half a minute."""
    pin = subprocess.Popen([IPFS, *other.authorization, "pin", "add", root], env={**os.environ, **other.env}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    came, since = -1, time.time()
    while True:
        try:
            pin.wait(5)
            break
        except subprocess.TimeoutExpired:
            stat = json.loads(other.ipfs("bitswap", "stat", "--enc=json"))
        if stat["BlocksReceived"] != came:
            came, since = stat["BlocksReceived"], time.time()
        if time.time() - since > STILL:
            pin.kill()
            pin.wait()
            expect(f"a pin that stands still at {came:,} blocks wants nothing of anybody ({stat['Wantlist']})", not stat["Wantlist"])
            return False
    if pin.returncode != 0:
        raise SystemExit(f"FAILED: Kubo's pin: {pin.stderr.read().strip()}")
    return True


def pins_a_large_folder(one):
    """A Kubo that nobody told anything but the address fetches by bitswap. It asks for 32 blocks at once and sends a want list each 20 ms at the most
    (`concurrency` of its walk, `minSendMessageDelay` of boxo), so 50,000 files take it 40 s from whomever."""
    source = FOLDER / "many"
    source.mkdir()
    for number in range(ENTRIES):
        (source / f"entry-{number:06}").write_text(f"{number} of many")
    root = lines(one.cli("add", source, "--copies", "1", "--json", timeout=300))[-1]["cid"]
    other = Kubo("other")
    other.ipfs("swarm", "connect", one.swarm)
    begun = time.time()
    while not pin_large(other, root):
        print("note: kubo: its pin stood still with nothing wanted, as it does among Kubos on a busy machine; it was begun again", flush=True)
        expect("Kubo pins within its time", time.time() - begun < 400)
    print(f"figure: kubo: a pin of {ENTRIES:,} entries from a peer, by bitswap: {time.time() - begun:.1f} s", flush=True)
    stop(other.daemon)
    # Without a network: all of it is there.
    held = other.ipfs("refs", "--recursive", "--unique", "--offline", root, offline=True).split()
    expect(f"Kubo pins all {ENTRIES:,} entries", len(held) >= ENTRIES)
    shutil.rmtree(source)
    one.cli("pin", "rm", root)


def main():
    kubo = Kubo()
    refused = subprocess.run([BIN, "up", "--dir", FOLDER / "refused", "--node", f"kubo=http://127.0.0.1:{kubo.port}", "--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0",
                              "--proxy", "127.0.0.1:0", "--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"], capture_output=True, text=True, timeout=60)
    expect("without the password the daemon refuses, and the start says so", refused.returncode == 1 and "Kubo refused" in refused.stderr)

    one = Peer("one")
    pins_a_large_folder(one)
    two = Peer("two", "--node", kubo.url, "--adopt", "pins+mfs", invite=one.cli("invite").splitlines()[-1])
    log = (FOLDER / "two.log").read_text()
    expect("no log names the password", PASSWORD not in log)

    # Added to the cluster, through the embedded node: the blocks travel to the daemon while they are read.
    source = FOLDER / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(5_000_000))
    (source / "small").write_text("a little text")
    added = lines(one.cli("add", source, "--copies", "2", "--wait", "2", "--json"))
    root = added[-1]["cid"]
    until("both peers hold what was added", everywhere(one, root))
    expect("the daemon has it pinned", kubo.is_pinned(root))
    kubo.ipfs("get", root, "-o", FOLDER / "from-kubo")
    expect("the daemon gives the same bytes", filecmp.cmp(source / "large", FOLDER / "from-kubo" / "large", shallow=False))
    until("blocks of the add are no longer pinned one by one", lambda: "add in progress" not in kubo.ipfs("pin", "ls", "--type=direct", "--names"))

    # Added through the peer over the daemon, read through the other.
    data = os.urandom(1_000_000)
    (FOLDER / "through").write_bytes(data)
    through = lines(two.cli("add", FOLDER / "through", "--copies", "2", "--wait", "2", "--json"))[-1]["cid"]
    until("both peers hold it", everywhere(two, through))
    expect("read through the embedded node", one.read(through) == data)
    expect("read through the daemon's peer", two.read(through) == data)

    # What the user of the daemon keeps becomes the cluster's.
    theirs = os.urandom(700_000)
    (FOLDER / "theirs").write_bytes(theirs)
    own = kubo.ipfs("add", "-Q", "--cid-version=1", "--pin-name=holiday", FOLDER / "theirs").strip()
    until("what `ipfs add` kept is a pin of the cluster within a minute", lambda: own in one.pins(), limit=60)
    expect("with its name", one.pins()[own]["name"] == "holiday")
    until("and is held by both", everywhere(one, own))
    expect("the embedded node gives its bytes", one.read(own) == theirs)

    kubo.ipfs("files", "mkdir", "/docs")
    kubo.ipfs("files", "write", "--create", "/docs/note", FOLDER / "theirs")
    until("the files tree is a pin of the cluster", lambda: [pin for pin in one.pins().values() if pin["name"] == "files of two"], limit=60)
    tree = [pin for pin in one.pins().values() if pin["name"] == "files of two"][-1]["cid"]
    until("held by both", everywhere(one, tree))
    expect("read by path through the other peer", one.read(f"{tree}/docs/note") == theirs)

    # Removed from the cluster: what was the user's stays, what was the cluster's goes.
    one.cli("pin", "rm", own)
    one.cli("pin", "rm", root)
    until("the daemon lets go of the cluster's", lambda: not kubo.is_pinned(root))
    time.sleep(3)
    expect("and keeps its user's", kubo.is_pinned(own))
    time.sleep(25)
    expect("which is not adopted again", own not in one.pins())

    # The daemon dies and comes back: said with the reason, mended by itself.
    stop(kubo.daemon, signal.SIGKILL)
    late = lines(one.cli("add", source, "--copies", "2", "--name", "late", "--json"))[-1]["cid"]
    until("the status says that its node does not answer", lambda: two.states(late).get("two") in ("pin_error", "pin_queued", "pinning"))
    until("the reason names Kubo", lambda: "Kubo" in two.cli("why", late), limit=120)
    kubo.begin()
    two.cli("recover")
    until("held by both after the daemon came back", everywhere(one, late), limit=180)

    # The peer is killed in the middle and started again: its ledger knows what is whose.
    two.process.kill()
    two.process.wait()
    two.begin()
    until("after a restart it holds what it held", lambda: two.states(through).get("two") == "pinned")
    expect("and nothing of the user's was let go", kubo.is_pinned(own))
    stop(two.process)
    stop(one.process)
    passed("both stop when asked")
    print(f"figure: {time.time() - BEGUN:.0f} s for all checks with a Kubo daemon as node")


judge(main)
