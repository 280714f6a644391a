"""Names of Kubo and ours judge each other: records, keys, gateways. A real Kubo daemon and one Pinfold peer; standard library only."""
import json, os, signal, subprocess, time, urllib.error, urllib.request
from judge import BEGUN, BIN, FOLDER, IPFS, expect, judge, start, until

ENV = {**os.environ, "IPFS_PATH": str(FOLDER / "kubo"), "IPFS_TELEMETRY": "off"}


def run(*argv, **options):
    options = {"check": True, "capture_output": True, "timeout": 120, "env": ENV, **options}
    done = subprocess.run([str(part) for part in argv], **options)
    return done.stdout


def ipfs(*arguments, **options):
    return run(IPFS, *arguments, **options).decode().strip()


def kubo():
    """A daemon on loopback that knows nobody; `dhtserver` so that `routing get` and `put` work on its own store."""
    ipfs("init", "--profile=test")
    for key, value in {"Addresses.API": "/ip4/127.0.0.1/tcp/0", "Addresses.Gateway": [], "Addresses.Swarm": ["/ip4/127.0.0.1/tcp/0"], "Bootstrap": []}.items():
        ipfs("config", "--json", key, json.dumps(value))
    ipfs("config", "Routing.Type", "dhtserver")
    daemon = start("kubo", [IPFS, "daemon"], ENV)
    api = FOLDER / "kubo" / "api"
    until("the daemon is up", lambda: api.exists() and api.read_text().strip())
    return daemon


class Peer:
    def __init__(self, name="one", *flags):
        doors = ["--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0"]
        libp2p = ["--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"]
        self.dir = FOLDER / name
        self.process = start(name, [BIN, "up", "--dir", self.dir, "--name", name, *doors, *libp2p, *flags, "--json"], ENV, stdout=subprocess.PIPE)
        ready = json.loads(self.process.stdout.readline())
        self.api, self.gateway = ready["api"], ready["gateway"]

    def cli(self, *arguments, **options):
        return run(BIN, *arguments, **{"env": {**ENV, "PINFOLD_API": self.api}, **options}).decode().strip()

    def json(self, *arguments):
        return json.loads(self.cli(*arguments, "--json").splitlines()[-1])

    def get(self, path, **headers):
        request = urllib.request.Request(self.gateway + path, headers=headers)
        return urllib.request.urlopen(request, timeout=30).read()


def main():
    daemon, peer = kubo(), Peer()
    page = FOLDER / "page"
    page.write_text("a page behind names")
    cid = peer.json("add", page, "--copies", "1")["cid"]
    ours = f"/ipfs/{cid}"

    # Kubo's records, with keys of every kind that it makes: verified, taken, followed, and given out again byte for byte.
    for kind, more in [("ed25519", []), ("rsa", ["--size=2048"]), ("secp256k1", [])]:
        for v1 in ["true", "false"]:
            key = f"{kind}-{v1}"
            name = ipfs("key", "gen", "--type", kind, *more, key)
            ipfs("name", "publish", "--allow-offline", "--resolve=false", f"--v1compat={v1}", "--key", key, "--ttl=1m", ours)
            record = run(IPFS, "routing", "get", f"/ipns/{name}")
            (FOLDER / "record").write_bytes(record)
            taken = peer.json("name", "put", name, FOLDER / "record")
            expect(f"a record of Kubo ({kind}, {'v1 and v2' if v1 == 'true' else 'v2 alone'}) is verified and taken", taken["value"] == ours)
            expect("  and the gateway shows what it leads to", peer.get(f"/ipns/{name}") == b"a page behind names")
            expect("  and gives it out as it was", peer.get(f"/ipns/{name}?format=ipns-record") == record)
            damaged = bytearray(record)
            damaged[record.index(b"/ipfs/") + 10] ^= 1
            (FOLDER / "damaged").write_bytes(damaged)
            refused = subprocess.run([BIN, "name", "put", name, FOLDER / "damaged"], env={**ENV, "PINFOLD_API": peer.api}, capture_output=True, text=True, timeout=60)
            expect("  and a damaged one is refused", refused.returncode == 2 and "ipns record" in refused.stderr)

    # Our records: Kubo inspects, verifies and stores them.
    name = peer.json("key", "gen", "site")["name"]
    for sequence, value in enumerate([ours, f"{ours}/with a blank", "/ipns/docs.example.org"]):
        published = peer.json("name", "publish", value, "--key", "site", "--lifetime", "30h", "--ttl", "90s", "--resolve", "false")
        peer.cli("name", "get", name, "-o", FOLDER / "ours")
        shown = json.loads(ipfs("name", "inspect", "--enc=json", "--verify", name, FOLDER / "ours"))
        expect(f"Kubo verifies our record: {value}", shown["Validation"]["Valid"] is True)
        entry = shown["Entry"]
        expect("  and reads what it says", (entry["Value"], entry["Sequence"], entry["TTL"]) == (value, sequence, 90_000_000_000))
        expect("  its end too", entry["Validity"] == published["validity"])
        # It says that nobody else could be told; its own store is asked below.
        subprocess.run([IPFS, "routing", "put", "--allow-offline", f"/ipns/{name}", FOLDER / "ours"], env=ENV, capture_output=True, timeout=60)
        expect("  and `routing put` stores it", run(IPFS, "routing", "get", f"/ipns/{name}") == (FOLDER / "ours").read_bytes())

    # Keys both ways, in both forms.
    ipfs("key", "gen", "--type=ed25519", "theirs")
    for form, ours_form in [("libp2p-protobuf-cleartext", "libp2p"), ("pem-pkcs8-cleartext", "pem")]:
        ipfs("key", "export", "theirs", f"--format={form}", "-o", FOLDER / f"theirs.{ours_form}")
        taken = peer.json("key", "import", f"theirs-{ours_form}", FOLDER / f"theirs.{ours_form}", "--dir", peer.dir)
        listed = dict(reversed(line.split()) for line in ipfs("key", "list", "-l").splitlines())
        expect(f"a key of Kubo ({ours_form}) has the same name here", taken["name"] == listed["theirs"])
        peer.cli("key", "export", "site", "--format", ours_form, "-o", FOLDER / f"site.{ours_form}", "--dir", peer.dir)
        imported = ipfs("key", "import", f"site-{ours_form}", FOLDER / f"site.{ours_form}", f"--format={form}")
        expect(f"a key of ours ({ours_form}) has the same name there", imported == name)
    # A peer over the daemon finds records by its routing, and tells it its own.
    port = (FOLDER / "kubo" / "api").read_text().split("/")[4]
    over = Peer("over", "--node", f"kubo=http://127.0.0.1:{port}")
    theirs = ipfs("key", "list", "-l").splitlines()[0].split()[0]
    ipfs("name", "publish", "--allow-offline", "--resolve=false", ours)
    found = over.json("name", "resolve", theirs)
    expect("a name that only Kubo has is found through its routing", found["path"] == ours and found["steps"][0]["from"] == "routing")
    told = over.json("name", "publish", ours, "--resolve", "false")
    expect("what is published over Kubo is told to it", [told["error"] for told in told["told"]] == [None])
    kept = run(IPFS, "routing", "get", f"/ipns/{told['name']}")
    expect("  and Kubo gives it to others", kept == over.get(f"/ipns/{told['name']}?format=ipns-record"))
    nobody = peer.json("key", "gen", "unpublished")["name"]
    nobody = subprocess.run([BIN, "name", "resolve", nobody], env={**ENV, "PINFOLD_API": over.api}, capture_output=True, text=True, timeout=90)
    expect("what nobody has is said to be nowhere", nobody.returncode == 2 and "the routing of Kubo found none" in nobody.stderr)
    over.process.terminate()
    over.process.wait(30)
    # An RSA key of an older node publishes here; Kubo verifies it.
    daemon.send_signal(signal.SIGTERM)
    daemon.wait(30)
    ipfs("key", "export", "rsa-true", "-o", FOLDER / "rsa.key")
    rsa = peer.json("key", "import", "rsa", FOLDER / "rsa.key", "--dir", peer.dir)
    peer.cli("name", "publish", ours, "--key", "rsa", "--sequence", "7")
    peer.cli("name", "get", rsa["name"], "-o", FOLDER / "rsa.record")
    shown = json.loads(ipfs("name", "inspect", "--enc=json", "--verify", rsa["name"], FOLDER / "rsa.record"))
    expect("a record that we made with an RSA key of Kubo is Kubo's", shown["Validation"]["Valid"] is True and shown["Entry"]["Sequence"] == 7)
    print(f"figure: {time.time() - BEGUN:.0f} s for names of Kubo and ours")


judge(main)
