"""Go and Pinfold peers hold one pinset: copies are placed on either kind, blocks of an add go to Go's nodes, and a dead holder is replaced by a
peer of the other kind. Go peers of older versions (`PINFOLD_PEERS_OLD`: folders with `ipfs-cluster-service`, separated by colons) are among
them; without any of them all are of one version."""
import json, os, pathlib, secrets, signal, subprocess, time, urllib.error, urllib.parse, urllib.request
from among import Go, Pinfold, added, http, sample
from judge import BEGUN, BIN, RUNNING, expect, judge, passed, start, until

OLD = [pathlib.Path(folder) / "ipfs-cluster-service" for folder in os.environ.get("PINFOLD_PEERS_OLD", "").split(":") if folder]
# Short, so that a dead peer is replaced while somebody watches.
SETTINGS = {"repair": True, "grace": "5s", "copies_least": 1, "copies_wanted": 1, "copies_most": 3}


def places(peer, cid):
    return set(peer.pins().get(cid, {}).get("allocations") or [])


def held_by(peer, cid, names):
    states = peer.status(cid)
    return {name for name, state in states.items() if state == "pinned"} >= set(names)


def has_blocks(go, cid):
    """Whether its node has the root and everything under it, without asking anybody."""
    query = urllib.parse.urlencode({"arg": cid, "offline": "true"})
    return http("POST", f"http://127.0.0.1:{go.kubo}/api/v0/cat?{query}")


def blocks_alone(ours, data, **options):
    """Adds without a pin; the root."""
    border = "a-border-that-is-not-in-the-data"
    head = f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="data"\r\nContent-Type: application/octet-stream\r\n\r\n'
    url = f"{ours.url}/add?{urllib.parse.urlencode({'no-pin': 'true', **options})}"
    body = head.encode() + data + f"\r\n--{border}--\r\n".encode()
    request = urllib.request.Request(url, body, {"content-type": f"multipart/form-data; boundary={border}"})
    return json.loads(urllib.request.urlopen(request, timeout=60).read().decode().splitlines()[-1])["cid"]


def placed_on_both(ours, gos):
    count = str(1 + len(gos))
    path = sample("everybody")
    cid = until("a pin of as many copies as there are peers of both kinds is taken",
                lambda: added(ours, path, "--name", "of all", "--rmin", count, "--rmax", count))
    expect("it is placed on all of them", places(ours, cid) == {ours.id, *(go.id for go in gos)})
    names = {"pinfold", *(go.name for go in gos)}
    for peer in (ours, *gos):
        until(f"{peer.name} says that all hold it", lambda: held_by(peer, cid, names))
    until("our own count has the Go copies", lambda: why(ours, cid)["confirmed"] == len(names))
    refused = ours.tries("pin", "add", "--rmin", "9", "--rmax", "9", cid)
    expect("nine copies are refused with the number of peers", refused.returncode != 0 and "Needed at least: 9" in refused.stdout + refused.stderr)
    return cid


def why(ours, cid):
    return json.loads(subprocess.run([BIN, "why", cid, "--api", ours.url, "--json"], check=True, capture_output=True, text=True, timeout=60).stdout)


def streams(ours, go):
    """Blocks go to a Go peer's node while they are added, not after the pin."""
    data = secrets.token_bytes(3_000_000)
    asked = {"replication-min": 1, "replication-max": 1, "user-allocations": go.id, "cid-version": 1}
    cid = blocks_alone(ours, data, **asked)
    expect("the node of a Go peer got every block of an add through us", has_blocks(go, cid) == data)
    pinned = added(ours, sample("on-go"), "--name", "on go", "--rmin", "1", "--rmax", "1", "--allocations", go.id)
    expect("a pin that names a Go peer is placed on it", places(ours, pinned) == {go.id})
    until("it is held there", lambda: ours.status(pinned).get(go.name) == "pinned")
    return pinned


def go_dies(ours, dead, alive):
    """Its copies come to the others; while those fetch it stays in the list, for it would let go as soon as it comes back."""
    only = [added(ours, sample(f"dying-{number}", 20_000), "--name", f"dying {number}", "--rmin", "2", "--rmax", "2", "--allocations",
                  f"{dead.id},{alive.id}") for number in range(20)]
    expect("twenty pins lie on two Go peers", all(places(ours, cid) == {dead.id, alive.id} for cid in only))
    until("both hold all of them", lambda: all(held_by(alive, cid, [dead.name, alive.name]) for cid in only))
    dead.process.kill()
    dead.process.wait(20)

    def replaced():
        return all((places(ours, cid) - {dead.id}) > {alive.id} for cid in only)
    until("each is given another holder", replaced, 150)
    until("a Go peer sees the same", lambda: all(places(alive, cid) == places(ours, cid) for cid in only))

    def held(cid):
        return sum(state == "pinned" for state in ours.status(cid).values()) >= len(places(ours, cid) - {dead.id})
    until("the others hold all of them", lambda: all(held(cid) for cid in only))
    return only


def comes_back(ours, go, only, addresses):
    go.start(["*"], addresses)
    until("who comes back is a member again", lambda: any(row["id"] == go.id and not row["error"] for row in ours.ask("peers", "ls")))
    until("and holds what it held", lambda: all(ours.status(cid).get(go.name) == "pinned" for cid in only))


def knows_room(ours, gos):
    told = json.loads(http("GET", f"{ours.url}/pinfold/v1/peers"))
    rows = {row["peer"]: row for row in (told["peers"] if isinstance(told, dict) else told)}
    return all(rows.get(go.id, {}).get("space", {}).get("free") for go in gos)


def drains(ours, second, go1):
    """The only copies of a drained Pinfold peer come to others, Go peers among them; each is kept until it is known to be there."""
    files = [sample(f"drained-{number}", 20_000) for number in range(10)]
    only = {added(go1, path, "--name", path.name, "--rmin", "1", "--rmax", "1", "--allocations", second.id): path for path in files}
    until("the second Pinfold peer alone holds ten pins", lambda: all(ours.status(cid).get("second") == "pinned" for cid in only))
    subprocess.run([BIN, "drain", "second", "--wait", "--api", ours.url], check=True, capture_output=True, text=True, timeout=120)
    expect("a drain gives each of them another holder", all(len(places(ours, cid)) == 1 and second.id not in places(ours, cid) for cid in only))
    until("which holds it", lambda: all("pinned" in go1.status(cid).values() for cid in only))
    expect("some of these are Go peers", {ours.id} != set().union(*(places(ours, cid) for cid in only)))
    expect("nothing is lost", all(http("GET", f"{ours.gateway}/ipfs/{cid}") == path.read_bytes() for cid, path in only.items()))
    subprocess.run([BIN, "uncordon", "second", "--api", ours.url], check=True, capture_output=True, text=True, timeout=60)


def drains_go(ours, go):
    """A Go peer is drained before it is taken away: it keeps each copy until another peer is known to have it, for it lets go at once."""
    # Go says what is free 15 s after its start, when nobody heard it the first time.
    until("its room is known", lambda: any(one["peer"] == go.id and one["valid"] for one in ours.ask("health", "metrics", "freespace")))
    path = sample("drained-go", 500_000)
    cid = added(ours, path, "--name", "drained go", "--rmin", "1", "--rmax", "1", "--allocations", go.id)

    def alone():
        if ours.status(cid).get(go.name) != "pinned" or places(ours, cid) != {go.id}:
            raise ValueError(ours.status(cid), places(ours, cid), go.tries("status", cid).stdout)
        return True
    until("a Go peer alone holds a pin", alone)
    seen = set()
    draining = start("drain", [BIN, "drain", go.name, "--wait", "--api", ours.url])
    while draining.poll() is None:
        states = ours.status(cid)
        seen.add("pinned" in states.values())
        time.sleep(0.2)
    expect("its drain ends", draining.returncode == 0)
    expect("at every look somebody held the pin", seen == {True})
    expect("it is placed on another peer", len(places(ours, cid)) == 1 and go.id not in places(ours, cid))
    expect("the pin is read from whom it came to", http("GET", f"{ours.gateway}/ipfs/{cid}") == path.read_bytes())
    subprocess.run([BIN, "uncordon", go.name, "--api", ours.url], check=True, capture_output=True, text=True, timeout=60)


def ours_dies(ours, second, go1):
    """The copies of a dead Pinfold peer come to Go peers when those are who is left."""
    only = [added(go1, sample(f"ours-{number}", 20_000), "--name", f"ours {number}", "--rmin", "2", "--rmax", "2", "--allocations",
                  f"{ours.id},{second.id}") for number in range(10)]
    until("both Pinfold peers hold ten pins", lambda: all(held_by(go1, cid, ["pinfold", "second"]) for cid in only))
    second.process.kill()
    second.process.wait(20)
    until("its copies are given to Go peers", lambda: all(second.id not in places(ours, cid) and len(places(ours, cid)) == 2 for cid in only), 150)

    def on_go(cid):
        return any(name.startswith("go") and state == "pinned" for name, state in go1.status(cid).items())
    until("Go peers hold them", lambda: all(on_go(cid) for cid in only))
    until("and that is known here", lambda: all(why(ours, cid)["confirmed"] == 2 for cid in only))


def main():
    gos = [Go(1), *(Go(2 + index, service) for index, service in enumerate(OLD or [Go(9).service]))]
    for go in gos:
        go.start_kubo()
    ours = Pinfold([go.address for go in gos])
    ours.start(**SETTINGS)
    for go in gos:
        go.start(["*"], [ours.address, *(other.address for other in gos if other is not go)])
    for go in gos:
        until(f"{go.name} ({go.ask('version')[0]['version']}) lists us",
              lambda: any(row["id"] == ours.id and not row["error"] for row in go.ask("peers", "ls")))
    first = placed_on_both(ours, gos)
    for go in gos:
        streams(ours, go)
    only = go_dies(ours, gos[1], gos[0])
    comes_back(ours, gos[1], only, [ours.address])
    for go in gos:
        until(f"{go.name} has the pins that we have", lambda: go.pins().keys() == ours.pins().keys() and first in go.pins())
    invite = subprocess.run([BIN, "invite", "--api", ours.url], check=True, capture_output=True, text=True, timeout=60).stdout.split()[-1]
    second = Pinfold([go.address for go in gos], "second")
    second.start(invite=invite, **SETTINGS)
    until("a second Pinfold peer is seen by Go", lambda: any(row["id"] == second.id and not row["error"] for row in gos[0].ask("peers", "ls")))
    # Who drains itself gives to peers whose room it knows; Go peers tell theirs now and then.
    until("it knows the room of both Go peers", lambda: knows_room(second, gos), 90)
    drains(ours, second, gos[0])
    drains_go(ours, gos[1])
    ours_dies(ours, second, gos[0])
    dead = [process for process in RUNNING if process is second.process or process.name == "drain"]
    expect("nothing else ended by itself", all(process.poll() is None for process in RUNNING if process not in dead and process is not first_of(gos[1])))
    print(f"figure: {time.time() - BEGUN:.0f} s for all checks of a mixed pinset ({', '.join(go.ask('version')[0]['version'] for go in gos)})")


def first_of(go):
    """The process of its first start, which was killed."""
    return next(process for process in RUNNING if process.name == go.name)


judge(main)
