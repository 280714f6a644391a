"""A peer and boxo, the Go implementation below Kubo: CARs, hash tries and names of one are read by the other."""

import json
import pathlib
import subprocess
import sys
import time
import urllib.request

import shapes
from peer import BEGUN, Peer, content, expect, passed, remove

BOXO, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
SOURCE, BACK, CAR = FOLDER / "source", FOLDER / "back", FOLDER / "car"


def boxo(*arguments):
    done = subprocess.run([BOXO, *arguments], capture_output=True, text=True, timeout=240)
    expect(f"boxo {' '.join(map(str, arguments))}: {done.stderr[-2000:]}", done.returncode == 0)
    return done.stdout.split()


def fetch_car(peer, cid):
    with urllib.request.urlopen(f"{peer.gateway}/ipfs/{cid}?format=car", timeout=240) as answer, open(CAR, "wb") as out:
        while data := answer.read(1 << 20):
            out.write(data)


def trees(peer):
    """Each shape: the peer's CAR is read by boxo, and boxo's by the peer; both have the same root."""
    count = 0
    for what, make in shapes.all_shapes():
        make(SOURCE)
        held = content(SOURCE)
        ours = peer.add(SOURCE, "--cid-version", "1", "--no-pin")
        fetch_car(peer, ours)
        boxo("export", CAR, BACK)
        expect(f"{what}: boxo reads the peer's CAR", content(BACK) == held)
        remove(BACK)
        [theirs] = boxo("import", SOURCE, CAR)
        expect(f"{what}: the same root ({theirs}, {ours})", theirs == ours)
        expect(f"{what}: the peer takes boxo's CAR", peer.add(CAR, "--format", "car").split() == [theirs])
        peer.cli("get", theirs, "-o", BACK)
        expect(f"{what}: the peer gives back what was in boxo's CAR", content(BACK) == held)
        for path in (SOURCE, BACK, CAR):
            remove(path)
        count += 1
    print(f"figure: boxo: {count} shapes of input: equal roots, CARs read both ways", flush=True)


def edits(peer):
    """boxo changes a directory that the peer made: it becomes what the peer makes of the changed folder."""
    for count in [3, 1000, 6000]:
        shapes.entries(count)(SOURCE)
        fetch_car(peer, peer.add(SOURCE, "--cid-version", "1", "--no-pin"))
        [theirs] = boxo("change", CAR, "one more", FOLDER / "changed")
        (SOURCE / "one more").write_text("one more file")
        expect(f"{count} entries and one", theirs == peer.add(SOURCE, "--cid-version", "1", "--no-pin"))
        for path in (SOURCE, CAR, FOLDER / "changed"):
            remove(path)
    passed("directories and hash tries of the peer are changed by boxo to what the peer makes itself")


def names(peer):
    SOURCE.write_text("for a name")
    cid = peer.add(SOURCE)
    record = FOLDER / "record"
    for turn in ["first", "second"]:
        name = json.loads(peer.cli("key", "gen", turn, "--json"))["name"]
        peer.cli("name", "publish", f"/ipfs/{cid}", "--key", turn, "--lifetime", "2h")
        peer.cli("name", "get", name, "-o", record)
        path, sequence, end = boxo("record-check", name, record)
        expect(f"boxo believes the peer's record ({path}, {end})", path == f"/ipfs/{cid}" and 7100 < int(end) - time.time() < 7300)
        expect(f"its sequence ({sequence})", sequence.isdecimal())
        data = bytearray(record.read_bytes())
        data[len(data) // 2] ^= 1
        record.write_bytes(data)
        done = subprocess.run([BOXO, "record-check", name, record], capture_output=True)
        expect("boxo does not believe a changed one", done.returncode != 0)
        remove(record)
    name, path = boxo("record-make", record)
    peer.cli("name", "put", name, record)
    told = json.loads(peer.cli("name", "resolve", name, "--json"))
    expect(f"the peer believes boxo's record ({told})", path in told.values())
    remove(record)
    remove(SOURCE)
    passed("IPNS records are believed both ways")


def main():
    peer = Peer(FOLDER)
    try:
        trees(peer)
        edits(peer)
        names(peer)
        peer.stop()
    finally:
        peer.process.kill()
        peer.process.wait()
    print(f"figure: boxo: all in {time.time() - BEGUN:.0f} s", flush=True)


main()
