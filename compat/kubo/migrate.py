"""A real Kubo's repository is taken over by `pinfold migrate-kubo`; standard library only."""
import filecmp, hashlib, json, os, subprocess, time, urllib.request
from judge import BEGUN, BIN, FOLDER, IPFS, expect, judge, start, until

REPO = FOLDER / "kubo"
ENV = {**os.environ, "IPFS_PATH": str(REPO), "IPFS_TELEMETRY": "off"}


def run(*argv, **options):
    return subprocess.run([str(part) for part in argv], **{"check": True, "capture_output": True, "text": True, "timeout": 300, "env": ENV, **options})


def ipfs(*arguments):
    return run(IPFS, *arguments).stdout.strip()


def state_of(folder):
    """Every file with its content and the time of its last change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (digest, stat.st_mtime_ns, stat.st_mode)
    return found


def migrate(*more, **options):
    return run(BIN, "migrate-kubo", REPO, "--dir", FOLDER / "one", "--ipfs", IPFS, "--json", *more, **options)


def main():
    ipfs("init", "--profile=test")
    ipfs("config", "Routing.Type", "none")
    source = FOLDER / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "large").write_bytes(os.urandom(5_000_000))
    for number in range(300):
        (source / f"file {number}").write_text(f"content {number}")
    roots = {
        "holiday 2024": ipfs("add", "-Q", "-r", "--pin-name", "holiday 2024", source),
        "": ipfs("add", "-Q", "-r", "--cid-version=1", "--chunker=size-65536", source),
        "other hash": ipfs("add", "-Q", "--hash=blake2b-256", "--pin-name", "other hash", source / "deep" / "er" / "large"),
    }
    run(IPFS, "files", "mkdir", "-p", "/docs/notes")
    run(IPFS, "files", "write", "--create", "/docs/notes/one", source / "file 1")
    tree = ipfs("files", "stat", "/", "--hash")
    direct = ipfs("add", "-Q", "--pin=false", "--raw-leaves", source / "file 7")
    ipfs("pin", "add", "--recursive=false", direct)
    names = {kind: ipfs("key", "gen", "--type", kind, f"a {kind} key") for kind in ["ed25519", "rsa", "secp256k1"]}

    daemon = start("kubo", [IPFS, "daemon"], ENV)
    until("the daemon is up", lambda: (REPO / "api").exists())
    refused = migrate(check=False)
    expect("a running daemon's repository is refused", refused.returncode == 1 and "in use by a running Kubo" in refused.stderr)
    daemon.terminate()
    daemon.wait(30)

    before = state_of(REPO)
    done = json.loads(migrate().stdout)
    expect("all comes over", done["blocks"]["copied"] > 380 and done["blocks"]["bad"] == 0 and not done["incomplete"])
    expect("the repository is as it was, to the times of its files", state_of(REPO) == before)
    again = json.loads(migrate().stdout)
    expect("again: no block is read twice", again["blocks"]["copied"] == 0 and again["blocks"]["here_already"] == done["blocks"]["copied"])

    doors = ["--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"]
    peer = start("one", [BIN, "up", "--dir", FOLDER / "one", *doors, "--json"], ENV, stdout=subprocess.PIPE, text=True)
    ready = json.loads(peer.stdout.readline())
    api, gateway = ready["api"], ready["gateway"]
    cli = lambda *arguments: run(BIN, *arguments, env={**ENV, "PINFOLD_API": api}).stdout
    pins = {pin["cid"]: pin for pin in map(json.loads, cli("pin", "ls", "--json").splitlines())}
    kubos = json.loads(ipfs("pin", "ls", "--names", "--type=recursive", "--enc=json"))["Keys"]
    expect("every pin is a pin here, with its name", all(pins[cid]["name"] == pin["Name"] for cid, pin in kubos.items()))
    expect("the direct one too", pins[direct]["max_depth"] == 0)
    expect("the files tree is one", pins[tree]["name"] == "files of Kubo")

    def held():
        answer = urllib.request.urlopen(f"{api}/pins", timeout=30).read().decode()
        rows = [json.loads(line) for line in answer.splitlines() if line]
        return len(rows) == len(pins) and all(copy["status"] == "pinned" for row in rows for copy in row["peer_map"].values())

    until("all are held", held)
    for name, root in roots.items():
        if name != "other hash":
            run(BIN, "get", root, "-o", FOLDER / f"back-{root}", env={**ENV, "PINFOLD_API": api})
            same = filecmp.dircmp(source, FOLDER / f"back-{root}")
            expect(f"the content of {root} is the same", not (same.left_only or same.right_only or same.diff_files))
            expect("  down to the last file", filecmp.cmp(source / "deep/er/large", FOLDER / f"back-{root}" / "deep/er/large", shallow=False))
    large = urllib.request.urlopen(f"{gateway}/ipfs/{roots['other hash']}", timeout=30).read()
    expect("what was hashed otherwise is read too", large == (source / "deep/er/large").read_bytes())
    note = urllib.request.urlopen(f"{gateway}/ipfs/{tree}/docs/notes/one", timeout=30).read()
    expect("the files tree is read by its paths", note == b"content 1")
    keys = {key["key"]: key["name"] for key in map(json.loads, cli("key", "list", "--json").splitlines())}
    expect("keys have their names", all(keys[f"a {kind} key"] == name for kind, name in names.items()))
    identity = ipfs("key", "list", "-l").splitlines()[0].split()[0]
    expect("the node's identity is a key", keys["kubo-self"] == identity)
    print(f"figure: {time.time() - BEGUN:.0f} s for taking a Kubo repository over ({done['blocks']['copied']} blocks)")


judge(main)
