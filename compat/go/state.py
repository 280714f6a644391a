"""Pinsets go between Go's offline `state export` and `state import` and a running Pinfold peer, line for line; standard library only."""
import json, os, pathlib, shutil, subprocess, tempfile

BIN = os.environ["PINFOLD_BIN"]
SERVICE = pathlib.Path(os.environ["PINFOLD_PEERS"]) / "ipfs-cluster-service"
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="pinfold-state-"))
STRANGER = "12D3KooWEmVZaeSx9U4c7FmrWRbXx6ZGGWhvSifwCSbY54u5mQkH"


def run(*argv, **options):
    return subprocess.run([str(part) for part in argv], check=True, capture_output=True, text=True, timeout=120, **options).stdout


def expect(what, value):
    if not value:
        raise SystemExit(f"FAILED: {what}: {value!r}")
    print(f"ok  {what}", flush=True)


def cid(number):
    """A CIDv1 of raw content that stands in it."""
    import base64
    content = number.to_bytes(4, "big") * 8
    return "b" + base64.b32encode(bytes([1, 0x55, 0, len(content)]) + content).decode().lower().rstrip("=")


def pin(number, **fields):
    plain = {
        "replication_factor_min": -1, "replication_factor_max": -1, "name": f"pin {number} <&> é", "mode": "recursive", "shard_size": 0,
        "user_allocations": None, "expire_at": "0001-01-01T00:00:00Z", "metadata": None, "pin_update": None, "origins": [], "cid": cid(number),
        "type": "pin", "allocations": [], "max_depth": -1, "reference": None, "timestamp": "2026-11-23T16:39:26Z",
    }
    return {**plain, **fields}


def pinset(count):
    special = [
        pin(900_001, replication_factor_min=1, replication_factor_max=2, allocations=[STRANGER], metadata={"a": "first", "z": "<last>"}),
        pin(900_002, mode="direct", max_depth=0, expire_at="2130-01-02T03:04:05Z", pin_update=cid(900_001)),
        pin(900_003, type="meta-pin", reference=cid(900_004), shard_size=1 << 20),
        pin(900_004, type="clusterdag-pin", max_depth=0, mode="direct"),
        pin(900_005, type="shard-pin", max_depth=1, allocations=[STRANGER], replication_factor_min=1, replication_factor_max=1),
        pin(900_006, origins=[f"/ip4/127.0.0.1/tcp/21001/p2p/{STRANGER}"]),
    ]
    return [pin(number) for number in range(count)] + special


def by_cid(text):
    return {json.loads(line)["cid"]: line for line in text.splitlines()}


class Go:
    def __init__(self, name):
        self.folder = FOLDER / name
        run(SERVICE, "-c", self.folder, "init", "--consensus", "crdt")

    def load(self, path):
        run(SERVICE, "-c", self.folder, "state", "import", "-f", path)

    def dump(self):
        out = self.folder / "out.ndjson"
        run(SERVICE, "-c", self.folder, "state", "export", "-f", out)
        return out.read_text()


class Pinfold:
    def __init__(self, name):
        self.process = subprocess.Popen(
            [BIN, "up", "--dir", str(FOLDER / name), "--json", "--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--proxy", "127.0.0.1:0",
             "--cluster", "/ip4/127.0.0.1/tcp/0", "--swarm", "/ip4/127.0.0.1/tcp/0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(FOLDER / f"{name}.log", "wb"), text=True)
        self.api = json.loads(self.process.stdout.readline())["api"]

    def load(self, path):
        return json.loads(run(BIN, "state", "import", path, "--json", "--api", self.api).splitlines()[-1])

    def dump(self):
        return run(BIN, "state", "export", "--api", self.api)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def main():
    file = FOLDER / "pins.ndjson"
    pins = pinset(2000)
    file.write_text("".join(json.dumps(one) + "\n" for one in pins))
    first = Go("go-first")
    first.load(file)
    theirs = first.dump()
    expect("Go exports what it imported", len(by_cid(theirs)) == len(pins))
    file.write_text(theirs)
    ours = Pinfold("ours")
    try:
        counts = ours.load(file)
        expect("every pin of Go's export is added", (counts["added"], counts["refused"]) == (len(pins), 0))
        mine = ours.dump()
        expect("our export has Go's lines, byte for byte", by_cid(mine) == by_cid(theirs))
        file.write_text(mine)
        second = Go("go-second")
        second.load(file)
        expect("Go imports our export and gives it back", by_cid(second.dump()) == by_cid(theirs))
        counts = ours.load(file)
        expect("importing it again changes nothing", (counts["added"], counts["changed"], counts["same"]) == (0, 0, len(pins)))
    finally:
        ours.stop()
    shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
