"""A peer and Helia, the JavaScript implementation of IPFS: what both add has the same CIDs, and what one adds the other reads."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import shapes
from peer import BEGUN, Peer, content, expect, passed, remove, timed, travel

FOLDER = pathlib.Path(sys.argv[1])
# Its memory holds all blocks, and a folder of 50,000 entries takes it minutes: `HELIA_ENTRIES=50000 compat/helia/run`.
ENTRIES = int(os.environ.get("HELIA_ENTRIES", "5000"))
# What Helia adds with, by the names of the REST door.
DEFAULTS = {"profile": "unixfs-v1-2025"}


class Helia:
    def __init__(self):
        self.log_path = FOLDER / "helia.log"
        argv = ["node", FOLDER / "helia.mjs"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": open(self.log_path, "ab"), "text": True}
        self.process = subprocess.Popen(argv, cwd=FOLDER, **pipes)
        self.id, self.addresses = self.ask("id")

    def add(self, path):
        return self.ask("add", path)

    def get(self, cid, path):
        self.ask("get", cid, path)

    def ask(self, *request, limit=180):
        self.process.stdin.write(json.dumps([str(part) for part in request]) + "\n")
        self.process.stdin.flush()
        watch = threading.Timer(limit, self.process.kill)
        watch.start()
        line = self.process.stdout.readline()
        watch.cancel()
        answer = json.loads(line) if line else {"failed": f"no answer (waits {limit} s)"}
        if "failed" in answer:
            raise SystemExit(f"FAILED: {request} of Helia: {answer['failed']}\n{self.log_path.read_text(errors='replace')[-2000:]}")
        return answer["is"]


def equal_cids(helia, peer):
    """Files by Helia's defaults; a node has up to 1,024 links there, so what is longer than 174 MiB would differ from Kubo's old default too."""
    sizes = [0, 1, 100, 1048575, 1048576, 1048577, 2 * 1048576, 5_000_000, 20_000_000]
    source = FOLDER / "source"
    for size in sizes:
        data = shapes.noise(f"helia {size}", size)
        source.write_bytes(data)
        expect(f"{size} bytes: the same CID", helia.add(source) == peer.add_with(data, **DEFAULTS))
        remove(source)
    # It makes no empty folder of an empty list.
    for count in [1, 3, 500]:
        shapes.entries(count)(source)
        expect(f"a folder of {count}: the same CID", helia.add(source) == peer.add(source, "--profile", "unixfs-v1-2025"))
        remove(source)
    passed(f"{len(sizes)} files and 3 folders have equal CIDs")


def tree(path, seed):
    (path / "deep" / "deeper").mkdir(parents=True)
    (path / "deep" / "deeper" / "file").write_bytes(shapes.noise(seed, 3_000_000))
    (path / "small").write_bytes(seed.encode())


def journeys():
    yield "a file of 100 MB", lambda path, seed: path.write_bytes(shapes.noise(seed, 100_000_000))
    yield "a tree", tree
    yield f"a folder of {ENTRIES:,} entries", shapes.entries_of(ENTRIES)


def pin(helia, peer):
    """A pin of Helia takes all of what the peer holds: it is read when the peer is gone."""
    source, back = FOLDER / "source", FOLDER / "back"
    source.mkdir()
    shapes.mixed(source)
    for link in [path for path in source.rglob("*") if path.is_symlink()]:
        link.unlink()  # Helia's reader gives a link as its bytes.
    cid = peer.add(source)
    helia.ask("pin", cid)
    peer.stop()
    helia.get(cid, back)
    expect("read from Helia alone", content(back) == content(source))
    passed("Helia pins what the peer holds, and reads it without the peer")


def probed(helia, connected):
    """It asks every ten seconds, and closes a connection on which it was not answered."""
    time.sleep(max(0, connected + 35 - time.time()))
    expect("its probes are answered", helia.ask("closed") == 0)
    passed("one connection all the time, although it answers no probes itself")


def main():
    helia, peer = Helia(), Peer(FOLDER)
    try:
        expect("Helia listens on loopback alone", all(address.startswith("/ip4/127.0.0.1/") for address in helia.addresses))
        timed("helia", "CIDs", lambda: equal_cids(helia, peer))
        helia.ask("connect", peer.swarm[0] if "/p2p/" in peer.swarm[0] else f"{peer.swarm[0]}/p2p/{peer.node}")
        connected = time.time()
        expect("and knows nobody else", helia.ask("peers") == [peer.node])
        travel("helia", "Helia", helia, peer, FOLDER, journeys())
        probed(helia, connected)
        pin(helia, peer)
        helia.process.stdin.close()
        helia.process.wait(60)
    finally:
        for process in (helia.process, peer.process):
            process.kill()
            process.wait()
    print(f"figure: helia: all in {time.time() - BEGUN:.0f} s", flush=True)


main()
